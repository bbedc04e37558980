//! A node of the DHT without an engine, for who has one question and is gone.
//!
//! Owns a socket of its own and the loop that drives the pure node: what it sends leaves, what comes is heard, and its
//! beat is kept until the one lookup that is wanted has ended. It says that it is read-only (BEP 43): it will not be
//! there when others would ask it, and so answers nobody. What is asked and what answers mean is the caller's.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use piecemeal_discovery::dht::{Busy, Dht, DhtOut, LookupId, News, Settings, Summary};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::Time;
use piecemeal_wire::krpc::{MAX_PACKET_BYTES, NodeId};

use crate::clock::Clock;
use crate::entropy;
use crate::net::{Dialer, Traffic};

/// How long a wish to stop may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The shortest wait that is asked of the system: none at all would be one without end.
const SHORTEST_WAIT: Duration = Duration::from_micros(100);

/// A node of one family of addresses.
pub struct DhtNode {
    dht: Dht,
    family: Family,
    socket: UdpSocket,
    clock: Clock,
    out: DhtOut,
    /// Datagrams that left.
    sent: u64,
    /// Why the last one that did not leave did not.
    unsent: Option<io::Error>,
}

/// What a lookup came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// What was found, be it complete or not.
    pub summary: Summary,
    /// It went to its end; else the time was up, or the listener has heard enough.
    pub complete: bool,
}

impl DhtNode {
    /// A node on a free port of all addresses of a family, which knows nobody.
    ///
    /// # Errors
    /// There are no such addresses or the policy has another way, no port, or no randomness.
    pub fn open(dialer: &Dialer, family: Family) -> io::Result<DhtNode> {
        let any: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = dialer.waiting_datagrams(&[Traffic::Dht], any)?;
        let clock = Clock::start();
        let settings = Settings { read_only: true, brief: true, ..Settings::new(family) };
        let dht = Dht::new(clock.now(), settings, entropy::seed()?);
        Ok(DhtNode { dht, family, socket, clock, out: DhtOut::default(), sent: 0, unsent: None })
    }

    /// Whose addresses it speaks to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Nodes to begin at; those of the other family are passed over. Beyond some hundreds they are dropped.
    pub fn know(&mut self, addrs: &[SocketAddr]) {
        // Not as bootstrap hosts, which are asked again and again: this node does not live that long.
        let unnamed: Vec<_> = addrs.iter().map(|addr| (NodeId([0; 20]), *addr)).collect();
        self.dht.load(&unnamed);
    }

    /// Begins a lookup and drives it to its end, at most for `limit`. `hear` is told all news but that end, and says
    /// whether that was enough. A lookup that was left so goes on with the next call, and its end is news then.
    ///
    /// # Errors
    /// Nothing could be sent to anybody, as without a route, or the socket is broken.
    pub fn run(
        &mut self,
        limit: Duration,
        begin: impl FnOnce(&mut Dht, Time, &mut DhtOut) -> Result<LookupId, Busy>,
        hear: &mut dyn FnMut(News) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Ended> {
        let until = self.clock.now() + limit;
        let lookup = begin(&mut self.dht, self.clock.now(), &mut self.out).map_err(io::Error::other)?;
        loop {
            let now = self.clock.now();
            if now >= self.dht.next_due() {
                self.dht.heartbeat(now, &mut self.out);
            }
            self.send();
            let mut enough = stop() || now >= until;
            for news in std::mem::take(&mut self.out.news) {
                match news {
                    News::Done { lookup: ended, summary } if ended == lookup => {
                        return Ok(Ended { summary, complete: true });
                    }
                    news => enough |= hear(news),
                }
            }
            if enough {
                let summary = self.dht.so_far(now, lookup).unwrap_or_default();
                return Ok(Ended { summary, complete: false });
            }
            if let Some(why) = self.unsent.take().filter(|_| self.sent == 0) {
                return Err(why);
            }
            self.receive(until)?;
        }
    }

    fn send(&mut self) {
        for (to, bytes) in self.out.datagrams.drain(..) {
            match self.socket.send_to(&bytes, to) {
                Ok(_) => self.sent += 1,
                // It is lost, as any may be; if none ever leaves, that is told.
                Err(why) => self.unsent = Some(why),
            }
        }
    }

    /// Waits for one datagram, at most to the next beat.
    fn receive(&mut self, until: Time) -> io::Result<()> {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
        let now = self.clock.now();
        let wait = self.dht.next_due().min(until).since(now).clamp(SHORTEST_WAIT, LOOK_EVERY);
        self.socket.set_read_timeout(Some(wait))?;
        // One byte more than is read, so that a longer one is seen to be that.
        let mut buffer = [0; MAX_PACKET_BYTES + 1];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                self.dht.on_packet(self.clock.now(), from, &buffer[..len], None, &mut self.out);
                Ok(())
            }
            // The wait is over; or a word of the system about somebody who is not there.
            Err(why)
                if matches!(
                    why.kind(),
                    WouldBlock | TimedOut | Interrupted | ConnectionReset | ConnectionRefused
                ) =>
            {
                Ok(())
            }
            Err(why) => Err(why),
        }
    }
}
