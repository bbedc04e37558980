//! Datagrams, in and out.
//!
//! Owns the sockets, and the uTP connections of each (`utp` says what is done with them). What else comes is handed to the
//! Server at once; an answer leaves by the socket that was asked, all else by the first of its family, or is
//! lost: whoever needs an answer asks again. But where there is no way at all the Server hears of it. What a router or
//! the other end says of a datagram later is not: the system tells it to connected sockets only.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};
use piecemeal_engine::cx::{Net, Purpose};

use super::relay::Relay;
use super::utp::{Streams, UtpStart};
use super::{EngineLoop, FIRST_LISTENER};
use crate::batch::{Batches, PIECE_BYTES, Received};
use crate::driven::{Data, Front};
use crate::net::{Group, Traffic, Way};

/// Runs of datagrams taken from one socket a turn, before others have theirs.
const TURN_RUNS: usize = 128;
/// Bytes taken so: some thousand packets of uTP.
const TURN_BYTES: usize = 2 << 20;
/// Sockets are numbered downwards from here: below all listeners that there can be.
const FIRST_SOCKET: usize = FIRST_LISTENER - (1 << 16);

/// One socket.
pub(super) struct Datagrams {
    pub(super) socket: UdpSocket,
    addr: SocketAddr,
    ready: bool,
    /// It can take datagrams, as far as is known.
    pub(super) writable: bool,
    pub(super) batches: Batches,
    pub(super) role: Role,
    /// `None`: uTP is not spoken here.
    pub(super) streams: Option<Streams>,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// What goes straight.
    Direct,
    /// A group of local discovery.
    Group,
    /// What goes by the proxy.
    Relayed,
}

/// See the module.
#[derive(Default)]
pub(super) struct DatagramSockets {
    pub(super) sockets: Vec<Datagrams>,
    groups: Vec<Group>,
    /// `None`: nothing goes by a proxy.
    pub(super) relay: Option<Relay>,
}

impl DatagramSockets {
    /// Watches `sockets`, and speaks uTP by them, if there is something to begin with.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn watch(
        poll: &Poll,
        sockets: Vec<(UdpSocket, SocketAddr)>,
        groups: Vec<Group>,
        utp: Option<UtpStart>,
    ) -> io::Result<DatagramSockets> {
        let own = sockets.into_iter().map(|(socket, addr)| Ok((socket, addr, Role::Direct)));
        let theirs =
            groups.iter().map(|group| group.reader().map(|socket| (socket, group.group(), Role::Group)));
        let mut watched = Vec::new();
        for (at, one) in own.chain(theirs).enumerate() {
            let (mut socket, addr, role) = one?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut socket, Token(FIRST_SOCKET - at), both)?;
            let utp = utp.filter(|_| role == Role::Direct).map(|utp| utp.fork(&addr.to_string()));
            watched.push(Datagrams {
                batches: Batches::new(&socket),
                streams: utp.map(|utp| Streams::new(utp.seed, utp.settings())),
                socket,
                addr,
                ready: true,
                writable: true,
                role,
            });
        }
        Ok(DatagramSockets { sockets: watched, groups, relay: None })
    }

    /// Watches the socket of the relay as well.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn add_relayed(
        &mut self,
        poll: &Poll,
        mut socket: UdpSocket,
        ip: IpAddr,
        streams: Option<Streams>,
    ) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(FIRST_SOCKET - self.sockets.len()), both)?;
        self.sockets.push(Datagrams {
            batches: Batches::new(&socket),
            streams,
            socket,
            addr: SocketAddr::new(ip, 0),
            ready: true,
            writable: true,
            role: Role::Relayed,
        });
        Ok(())
    }

    /// Which of the sockets is the relay's.
    pub(super) fn relay_at(&self) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.role == Role::Relayed)
    }

    /// Sends to a group of the local network.
    pub(super) fn multicast(&self, group: SocketAddr, bytes: &[u8]) {
        self.groups.iter().filter(|one| one.group() == group).for_each(|one| one.send(bytes));
    }

    /// Notes that a socket is ready; false if the event is not of one.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let at = FIRST_SOCKET.checked_sub(event.token().0);
        let Some(socket) = at.and_then(|at| self.sockets.get_mut(at)) else { return false };
        socket.ready |= event.is_readable() || event.is_error();
        socket.writable |= event.is_writable();
        true
    }

    /// Whether something may be there to be read.
    pub(super) fn are_ready(&self) -> bool {
        self.sockets.iter().any(|socket| socket.ready)
    }

    /// The first socket of the right family, of those by which datagrams go straight.
    pub(super) fn to(&self, to: SocketAddr) -> Option<usize> {
        let fits = |socket: &Datagrams| socket.role == Role::Direct && socket.addr.is_ipv4() == to.is_ipv4();
        self.sockets.iter().position(fits)
    }

    /// Sends by the first socket of the right family.
    ///
    /// # Errors
    /// The system refuses, or there is no such socket.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let none = || io::Error::new(ErrorKind::NetworkUnreachable, "no socket of that family");
        let at = self.to(to).ok_or_else(none)?;
        self.sockets[at].socket.send_to(bytes, to).map(drop)
    }
}

/// Why nothing can be sent to an address, if that is what an error says; after any other the next datagram may well
/// arrive. Linux calls it an invalid argument where our own address is of loopback and the other is not, and a firewall
/// forbids.
pub(super) fn unreachable(why: &io::Error) -> Option<String> {
    use ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    use ErrorKind::{InvalidInput, PermissionDenied};
    let no_route = matches!(why.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable);
    let no = no_route || matches!(why.kind(), ConnectionRefused | InvalidInput | PermissionDenied);
    no.then(|| why.to_string())
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Sends a datagram. That none can ever arrive there is told to the Server at once: nobody will answer.
    pub(super) fn send_datagram(&mut self, purpose: Purpose, to: SocketAddr, bytes: &[u8]) {
        let traffic = match purpose {
            Purpose::Dht => Traffic::Dht,
            Purpose::Tracker => Traffic::UdpTrackers,
        };
        let why = match self.presence.dialer.way(traffic) {
            Way::Direct => match self.datagrams.send(to, bytes) {
                Ok(()) => return self.stats.datagrams_out += 1,
                Err(why) => unreachable(&why),
            },
            Way::Proxy => {
                let target = match purpose {
                    Purpose::Dht => Some(to.into()),
                    Purpose::Tracker => self.stand_ins.target(to, bytes),
                };
                let forgotten = || "its name was forgotten".to_owned();
                target.ok_or_else(forgotten).and_then(|target| self.send_relayed(&target, bytes)).err()
            }
            Way::Off(why) => Some(why.to_owned()),
        };
        if let Some(why) = why {
            self.front.on_unreachable(self.now, to, &why);
        }
    }

    pub(super) fn read_datagrams(&mut self) {
        for at in 0..self.datagrams.sockets.len() {
            let mut left = TURN_BYTES;
            for _ in 0..TURN_RUNS {
                let socket = &mut self.datagrams.sockets[at];
                if !socket.ready || left == 0 {
                    break;
                }
                match socket.batches.receive(&socket.socket, &mut self.scratch[..PIECE_BYTES]) {
                    Ok(Received { bytes, from, segment }) => {
                        self.stirred = true;
                        left = left.saturating_sub(bytes);
                        self.heard_datagrams(at, from, bytes, segment);
                    }
                    Err(why) if why.kind() == ErrorKind::WouldBlock => socket.ready = false,
                    // A refusal of what was sent before, told here; the next read tells of something else.
                    Err(_) => {}
                }
            }
        }
        self.carry();
        self.hear_streams();
    }

    /// Datagrams of `segment` bytes each came; they lie in the first `bytes` of the scratch buffer. Whoever is blocked gets
    /// no answer: streams would refuse what they do not know by a packet of their own.
    fn heard_datagrams(&mut self, at: usize, from: SocketAddr, bytes: usize, segment: usize) {
        let first = self.datagrams.to(from) == Some(at);
        // Whoever answers by another way than the question came tells where else it is.
        let heard = |first: Option<&u8>| match first {
            Some(b'd') => self.presence.dialer.way(Traffic::Dht).is_direct(),
            _ => self.presence.dialer.way(Traffic::UdpTrackers).is_direct(),
        };
        let socket = &mut self.datagrams.sockets[at];
        if socket.role == Role::Relayed {
            return self.heard_relayed(at, from, bytes, segment);
        }
        if !self.front.lets_in(from.ip()) {
            self.stats.blocked += bytes.div_ceil(segment) as u64;
            return;
        }
        for datagram in self.scratch[..bytes].chunks(segment) {
            self.stats.datagrams_in += 1;
            if socket.role == Role::Group {
                self.front.on_lsd(self.now, from, datagram);
                continue;
            }
            let streams = socket.streams.as_mut();
            let its = streams.is_some_and(|streams| streams.on_datagram(self.now, from, datagram));
            if !its && heard(datagram.first()) {
                let before = self.front.out().net.len();
                self.front.on_datagram(self.now, from, datagram);
                if !first {
                    let sent = answer_by(&socket.socket, from, &mut self.front.out().net, before);
                    self.stats.datagrams_out += sent;
                }
            }
        }
    }
}

/// Sends what of the wishes after the first `before` is an answer by the socket that was asked, although others of the
/// family go by another: who asked one address does not believe another. How many were sent.
fn answer_by(socket: &UdpSocket, from: SocketAddr, net: &mut Vec<Net>, before: usize) -> u64 {
    let wishes = net.split_off(before);
    let mut sent = 0;
    for wish in wishes {
        match wish {
            Net::Datagram { to, bytes, .. } if to == from => {
                sent += u64::from(socket.send_to(&bytes, to).is_ok());
            }
            other => net.push(other),
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errors_that_say_there_is_no_way() {
        for errno in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNREFUSED, Errno::INVAL, Errno::PERM] {
            assert!(unreachable(&errno.into()).is_some(), "{errno}");
        }
        for errno in [Errno::AGAIN, Errno::NOBUFS, Errno::MSGSIZE, Errno::INTR, Errno::NOMEM] {
            assert_eq!(unreachable(&errno.into()), None, "{errno}");
        }
    }
}
