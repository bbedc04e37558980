//! Datagrams, in and out.
//!
//! Owns the sockets. What comes is handed to the Server at once; what goes out leaves by the socket of its family, or is
//! lost: whoever needs an answer asks again. But where there is no way at all the Server hears of it. What a router or
//! the other end says of a datagram later is not: the system tells it to connected sockets only.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};

use super::{EngineLoop, FIRST_LISTENER};
use crate::driven::{Data, Front};
use crate::net::Group;

/// Datagrams taken from one socket a turn, before others have theirs.
const TURN_DATAGRAMS: usize = 256;
/// Sockets are numbered downwards from here: below all listeners that there can be.
const FIRST_SOCKET: usize = FIRST_LISTENER - (1 << 16);

struct Datagrams {
    socket: UdpSocket,
    addr: SocketAddr,
    ready: bool,
    /// It is in a group of local discovery.
    group: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct DatagramSockets {
    sockets: Vec<Datagrams>,
    groups: Vec<Group>,
}

impl DatagramSockets {
    /// Watches `sockets`.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn watch(
        poll: &Poll,
        sockets: Vec<(UdpSocket, SocketAddr)>,
        groups: Vec<Group>,
    ) -> io::Result<DatagramSockets> {
        let own = sockets.into_iter().map(|(socket, addr)| Ok((socket, addr, false)));
        let theirs = groups.iter().map(|group| group.reader().map(|socket| (socket, group.group(), true)));
        let mut watched = Vec::new();
        for (at, one) in own.chain(theirs).enumerate() {
            let (mut socket, addr, group) = one?;
            poll.registry().register(&mut socket, Token(FIRST_SOCKET - at), Interest::READABLE)?;
            watched.push(Datagrams { socket, addr, ready: true, group });
        }
        Ok(DatagramSockets { sockets: watched, groups })
    }

    /// Sends to a group of the local network.
    pub(super) fn multicast(&self, group: SocketAddr, bytes: &[u8]) {
        self.groups.iter().filter(|one| one.group() == group).for_each(|one| one.send(bytes));
    }

    /// Notes that a socket is ready; false if the event is not of one.
    pub(super) fn on_event(&mut self, event: &Event) -> bool {
        let at = FIRST_SOCKET.checked_sub(event.token().0);
        let Some(socket) = at.and_then(|at| self.sockets.get_mut(at)) else { return false };
        socket.ready = true;
        true
    }

    /// Whether something may be there to be read.
    pub(super) fn are_ready(&self) -> bool {
        self.sockets.iter().any(|socket| socket.ready)
    }

    /// Sends by the first socket of the right family.
    ///
    /// # Errors
    /// The system refuses, or there is no such socket.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let fits = |socket: &&Datagrams| !socket.group && socket.addr.is_ipv4() == to.is_ipv4();
        let none = || io::Error::new(ErrorKind::NetworkUnreachable, "no socket of that family");
        self.sockets.iter().find(fits).ok_or_else(none)?.socket.send_to(bytes, to).map(drop)
    }
}

/// Why nothing can be sent to an address, if that is what an error says; after any other the next datagram may well
/// arrive. Linux calls it an invalid argument where our own address is of loopback and the other is not, and a firewall
/// forbids.
fn unreachable(why: &io::Error) -> Option<String> {
    use ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    use ErrorKind::{InvalidInput, PermissionDenied};
    let no_route = matches!(why.kind(), NetworkUnreachable | HostUnreachable | AddrNotAvailable);
    let no = no_route || matches!(why.kind(), ConnectionRefused | InvalidInput | PermissionDenied);
    no.then(|| why.to_string())
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Sends a datagram. That none can ever arrive there is told to the Server at once: nobody will answer.
    pub(super) fn send_datagram(&mut self, to: SocketAddr, bytes: &[u8]) {
        match self.datagrams.send(to, bytes) {
            Ok(()) => self.stats.datagrams_out += 1,
            Err(why) => {
                if let Some(why) = unreachable(&why) {
                    self.front.on_unreachable(self.now, to, &why);
                }
            }
        }
    }

    pub(super) fn read_datagrams(&mut self) {
        for at in 0..self.datagrams.sockets.len() {
            for _ in 0..TURN_DATAGRAMS {
                let socket = &mut self.datagrams.sockets[at];
                if !socket.ready {
                    break;
                }
                match socket.socket.recv_from(&mut self.scratch) {
                    Ok((bytes, from)) => {
                        self.stirred = true;
                        self.stats.datagrams_in += 1;
                        let bytes = &self.scratch[..bytes];
                        match socket.group {
                            true => self.front.on_lsd(self.now, from, bytes),
                            false => self.front.on_datagram(self.now, from, bytes),
                        }
                    }
                    Err(why) if why.kind() == ErrorKind::WouldBlock => socket.ready = false,
                    // A refusal of what was sent before, told here; the next read tells of something else.
                    Err(_) => {}
                }
            }
        }
        self.carry();
    }
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
