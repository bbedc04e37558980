//! Sockets of servers: the tracker's, and those of interfaces for people. Others call them; they call nobody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::dialer::BACKLOG;

/// Listens on `addr` by TCP, not blocking. A `[::]` also takes IPv4, unless an IPv4 address with the same port is among
/// `all`.
///
/// # Errors
/// The address cannot be had; it is named.
pub(crate) fn tcp(addr: SocketAddr, all: &[SocketAddr]) -> io::Result<std::net::TcpListener> {
    let socket = socket(addr, all, Type::STREAM, Protocol::TCP)?;
    // On Windows this would let another program take the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into()).map_err(|why| named(addr, &why))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The same for datagrams, blocking.
///
/// # Errors
/// As of [`tcp`].
pub(crate) fn udp(
    addr: SocketAddr,
    all: &[SocketAddr],
    receive_buffer_bytes: usize,
) -> io::Result<std::net::UdpSocket> {
    let socket = socket(addr, all, Type::DGRAM, Protocol::UDP)?;
    // A smaller buffer only loses more in a burst.
    let _ = socket.set_recv_buffer_size(receive_buffer_bytes);
    socket.bind(&addr.into()).map_err(|why| named(addr, &why))?;
    Ok(socket.into())
}

/// The address this machine would speak to the internet from, or loopback. Nothing is sent: connecting a datagram
/// socket only looks up the route. The addresses are of documentation (RFC 5737, RFC 3849).
pub fn outward(ipv4: bool) -> IpAddr {
    let (anywhere, loopback): (IpAddr, IpAddr) = match ipv4 {
        true => (Ipv4Addr::new(198, 51, 100, 1).into(), Ipv4Addr::LOCALHOST.into()),
        false => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()),
    };
    let look = || -> io::Result<IpAddr> {
        // Any port: 9 is "discard".
        let to = SocketAddr::new(anywhere, 9);
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        socket.connect(&to.into())?;
        let own = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no IP address"))?;
        Ok(own.ip())
    };
    look().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(loopback)
}

fn socket(addr: SocketAddr, all: &[SocketAddr], kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        let both = addr.ip().is_unspecified();
        let v4_apart = all.iter().any(|other| other.is_ipv4() && other.port() == addr.port());
        socket.set_only_v6(!both || v4_apart)?;
    }
    Ok(socket)
}

fn named(addr: SocketAddr, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{addr}: {why}"))
}
