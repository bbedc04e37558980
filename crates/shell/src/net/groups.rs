//! The groups of local discovery (BEP 14): sockets that hear them, and send to them by each interface.
//!
//! Owns which interfaces those are: all that have an address, or, where the program listens on certain addresses, those
//! that have one of these, and of a policy's interface that one. A group that cannot be joined is done without.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use if_addrs::{IfAddr, Interface};
use mio::net::UdpSocket;
use socket2::Socket;

/// The group's datagrams stay in the local network.
const HOPS: u32 = 1;

/// A socket in the group of its family, and the interfaces it is joined by.
pub(crate) struct Group {
    socket: Socket,
    group: SocketAddr,
    /// IPv4 addresses of interfaces, or their numbers.
    by: Vec<By>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    V4(Ipv4Addr),
    V6(u32),
}

impl Group {
    /// Makes a fresh `socket` join `group` by the interfaces of `listen`; by that of this name alone, if one is given.
    ///
    /// # Errors
    /// The group cannot be joined by any of them.
    pub(super) fn join(
        socket: Socket,
        group: SocketAddr,
        listen: &[SocketAddr],
        only: Option<&str>,
    ) -> io::Result<Group> {
        // Other programs on this machine are in the group too.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        let any: IpAddr = match group {
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(HOPS)?;
                Ipv4Addr::UNSPECIFIED.into()
            }
            SocketAddr::V6(_) => {
                socket.set_multicast_hops_v6(HOPS)?;
                Ipv6Addr::UNSPECIFIED.into()
            }
        };
        socket.bind(&SocketAddr::new(any, group.port()).into())?;
        let mut by = Vec::new();
        let ours = |one: &&Interface| only.is_none_or(|name| one.name == name) && is_ours(one, listen);
        for interface in if_addrs::get_if_addrs()?.iter().filter(ours) {
            let one = match (group.ip(), &interface.addr) {
                (IpAddr::V4(ip), IfAddr::V4(own)) => {
                    socket.join_multicast_v4(&ip, &own.ip).map(|()| By::V4(own.ip))
                }
                (IpAddr::V6(ip), IfAddr::V6(_)) => {
                    let number = interface.index.unwrap_or(0);
                    socket.join_multicast_v6(&ip, number).map(|()| By::V6(number))
                }
                _ => continue,
            };
            // Refused where an interface has several addresses: it is joined already.
            by.extend(one.ok().filter(|one| !by.contains(one)));
        }
        if by.is_empty() {
            return Err(io::Error::other("no interface of this family"));
        }
        Ok(Group { socket, group, by })
    }

    /// Where its datagrams go.
    pub(crate) fn group(&self) -> SocketAddr {
        self.group
    }

    /// The same socket, to be watched and read.
    ///
    /// # Errors
    /// The system has no handles left.
    pub(crate) fn reader(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket::from_std(self.socket.try_clone()?.into()))
    }

    /// Sends to the group by each interface. What an interface does not take is lost.
    pub(crate) fn send(&self, bytes: &[u8]) {
        for by in &self.by {
            let chosen = match by {
                By::V4(own) => self.socket.set_multicast_if_v4(own),
                By::V6(number) => self.socket.set_multicast_if_v6(*number),
            };
            if chosen.is_ok() {
                let _ = self.socket.send_to(bytes, &self.group.into());
            }
        }
    }
}

/// Whether the program listens there.
fn is_ours(interface: &Interface, listen: &[SocketAddr]) -> bool {
    let ip = interface.ip();
    listen
        .iter()
        .any(|addr| addr.ip() == ip || (addr.ip().is_unspecified() && addr.is_ipv4() == ip.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::super::{Dialer, Policy};
    use piecemeal_wire::lsd::{LSD_V4, LSD_V6};
    use std::time::Duration;

    #[test]
    fn what_is_sent_to_a_group_is_heard_in_it() {
        let listen = ["127.0.0.1:1".parse().unwrap()];
        let dialer = Dialer::new(Policy::default());
        let (joined, heard) = (dialer.join(LSD_V4, &listen).unwrap(), dialer.join(LSD_V4, &listen).unwrap());
        heard.socket.set_nonblocking(false).unwrap();
        heard.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        joined.send(b"BT-SEARCH");
        let mut bytes = [std::mem::MaybeUninit::uninit(); 100];
        let (count, from) = heard.socket.recv_from(&mut bytes).unwrap();
        assert_eq!((count, from.as_socket().unwrap().ip()), (9, listen[0].ip()));
    }

    #[test]
    fn no_group_without_an_interface_of_its_family() {
        let dialer = Dialer::new(Policy::default());
        assert!(dialer.join(LSD_V4, &["[::1]:1".parse().unwrap()]).is_err());
        assert!(dialer.join(LSD_V6, &["127.0.0.1:1".parse().unwrap()]).is_err());
        assert!(dialer.join(LSD_V4, &[]).is_err());
    }
}
