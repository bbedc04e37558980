//! Datagrams, in and out.
//!
//! Owns the sockets. What comes is handed to the Server at once; what goes out leaves by the socket of its family, or is
//! lost: whoever needs an answer asks again.

use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};

use super::{EngineLoop, FIRST_LISTENER};
use crate::driven::{Data, Front};
use crate::groups::Group;

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
    ) -> std::io::Result<DatagramSockets> {
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
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) -> bool {
        let fits = |socket: &&Datagrams| !socket.group && socket.addr.is_ipv4() == to.is_ipv4();
        let socket = self.sockets.iter().find(fits);
        socket.is_some_and(|socket| socket.socket.send_to(bytes, to).is_ok())
    }
}

impl<F: Front, D: Data> EngineLoop<F, D> {
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
