//! A node of the DHT without an engine, for who has one question and is gone.
//!
//! Owns the loop that drives the pure node: what it sends leaves, by a socket of its own or by the proxy, what comes is heard,
//! and its beat is kept until the one lookup that is wanted has ended. Also the [`Meeting`] with hosts whose names the
//! proxy alone looks up. It says that it is read-only (BEP 43): it will not be
//! there when others would ask it, and so answers nobody. What is asked and what answers mean is the caller's.

use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use piecemeal_discovery::dht::{Busy, Dht, DhtOut, LookupId, News, Settings, Summary};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::Time;
use piecemeal_transport::proxy::Target;
use piecemeal_wire::krpc::NodeId;

use crate::clock::Clock;
use crate::entropy;
use crate::net::{Dialer, Traffic};
use crate::proxy::{Courier, Hosts};

/// Datagrams heard in one turn.
const HEARD_MAX: usize = 256;
/// Once one host has answered, others have so long to: one is enough, and more are better.
const COMPANY: Duration = Duration::from_millis(500);

/// A node of one family of addresses.
pub struct DhtNode {
    dht: Dht,
    family: Family,
    courier: Courier,
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
    /// A node on a free port of all addresses of a family, or one that speaks to that family by the proxy. It knows nobody.
    ///
    /// # Errors
    /// There are no such addresses or the policy has no way, no port, or no randomness.
    pub fn open(dialer: &Dialer, family: Family) -> io::Result<DhtNode> {
        let mut courier = Courier::new(dialer.clone(), Traffic::Dht)?;
        courier.open(family)?;
        let clock = Clock::start();
        let settings = Settings { read_only: true, brief: true, ..Settings::new(family) };
        let dht = Dht::new(clock.now(), settings, entropy::seed()?);
        Ok(DhtNode { dht, family, courier, clock, out: DhtOut::default(), sent: 0, unsent: None })
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

    /// Has a run look at its `stop`; any thread may wake it.
    pub fn waker(&self) -> Waker {
        self.courier.waker()
    }

    /// Begins a lookup and drives it to its end, at most for `limit`. `hear` is told all news but that end, and says
    /// whether that was enough. A lookup that was left so goes on with the next call, and its end is news then.
    ///
    /// # Errors
    /// Nothing could be sent to anybody, as without a route, the proxy relays nothing, or the socket is broken.
    pub fn run(
        &mut self,
        limit: Duration,
        begin: impl FnOnce(&mut Dht, Time, &mut DhtOut) -> Result<LookupId, Busy>,
        hear: &mut dyn FnMut(News) -> bool,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Ended> {
        let until = self.clock.now() + limit;
        if !stand(&mut self.courier, self.clock, until, stop)? {
            return Ok(Ended { summary: Summary::default(), complete: false });
        }
        let lookup = begin(&mut self.dht, self.clock.now(), &mut self.out).map_err(io::Error::other)?;
        loop {
            let now = self.clock.now();
            if now >= self.dht.next_due() {
                self.dht.heartbeat(now, &mut self.out);
            }
            self.courier.go_on(now).map_err(io::Error::other)?;
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
            match self.courier.send(&to.into(), &bytes) {
                Ok(()) => self.sent += 1,
                // It is lost, as any may be; if none ever leaves, that is told.
                Err(why) => self.unsent = Some(why),
            }
        }
    }

    /// Waits for datagrams, at most to the next beat.
    fn receive(&mut self, until: Time) -> io::Result<()> {
        self.courier.sleep(Some(self.dht.next_due().min(until).since(self.clock.now())));
        let now = self.clock.now();
        for _ in 0..HEARD_MAX {
            let Some((from, bytes)) = self.courier.receive()? else { break };
            self.dht.on_packet(now, from, bytes, None, &mut self.out);
        }
        Ok(())
    }
}

/// Waits until datagrams leave; false if that was not so in time, or not waited for.
fn stand(courier: &mut Courier, clock: Clock, until: Time, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    loop {
        let now = clock.now();
        if courier.go_on(now).map_err(io::Error::other)? {
            return Ok(true);
        }
        if stop() || now >= until {
            return Ok(false);
        }
        courier.sleep(Some(courier.due().min(until).since(now)));
    }
}

/// Hosts of the DHT whose names the proxy alone looks up: each is sent a ping by its name, and where that is answered from,
/// there is a node.
pub struct Meeting {
    courier: Courier,
    clock: Clock,
    asked: usize,
    hosts: Hosts,
}

impl Meeting {
    /// With these hosts, by name and port; 64 at most.
    ///
    /// # Errors
    /// The policy has no proxy for this, or there is no randomness.
    pub fn open(dialer: &Dialer, hosts: Vec<(String, u16)>) -> io::Result<Meeting> {
        let courier = Courier::new(dialer.clone(), Traffic::Dht)?;
        if !courier.by_proxy() {
            return Err(io::Error::other("names of the DHT are not left to a proxy"));
        }
        let (asked, mut all) = (hosts.len(), Hosts::new(entropy::seed()?));
        all.add(hosts.into_iter().map(|(host, port)| Target::Name { host, port }).collect());
        Ok(Meeting { courier, clock: Clock::start(), asked, hosts: all })
    }

    /// Has a run look at its `stop`; any thread may wake it.
    pub fn waker(&self) -> Waker {
        self.courier.waker()
    }

    /// Where they answered from, within `limit`, in the order in which they did: the first, and who is as quick. Of a host
    /// that has several addresses, the proxy takes whichever it likes.
    ///
    /// # Errors
    /// The proxy relays nothing, or none of the names can be said to it.
    pub fn run(&mut self, limit: Duration, stop: &dyn Fn() -> bool) -> io::Result<Vec<SocketAddr>> {
        let mut until = self.clock.now() + limit;
        let (mut found, mut sent, mut unsent) = (Vec::new(), 0_u64, None);
        if !stand(&mut self.courier, self.clock, until, stop)? {
            return Ok(found);
        }
        loop {
            let now = self.clock.now();
            self.courier.go_on(now).map_err(io::Error::other)?;
            if self.hosts.due <= now {
                for (host, ping) in self.hosts.asks(now) {
                    match self.courier.send(&host, &ping) {
                        Ok(()) => sent += 1,
                        Err(why) => unsent = Some(why),
                    }
                }
            }
            if let Some(why) = unsent.take().filter(|_| sent == 0) {
                return Err(why);
            }
            if stop() || now >= until || found.len() >= self.asked || self.hosts.due == Time::NEVER {
                return Ok(found);
            }
            self.courier.sleep(Some(self.hosts.due.min(until).since(now)));
            for _ in 0..HEARD_MAX {
                let Some((whose, bytes)) = self.courier.receive()? else { break };
                if self.hosts.is_answer(bytes) && !found.contains(&whose) {
                    found.push(whose);
                    until = until.min(self.clock.now() + COMPANY);
                }
            }
        }
    }
}
