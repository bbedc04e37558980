//! Sockets to ask a router with. There is no policy here: where one ties traffic to an interface or an address, or sends
//! it by a proxy, the router is not asked at all ([`super::Traffic::Mapping`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Our address on the way to a router. Connecting by UDP sends nothing.
pub(crate) fn towards(router: SocketAddr) -> Option<Ipv4Addr> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    socket.connect(&router.into()).ok()?;
    match socket.local_addr().ok()?.as_socket()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// A socket that sends to groups by the interface of one of our addresses, so many hops; not blocking.
///
/// # Errors
/// The address is not ours, or the system has no handles left.
pub(crate) fn searcher(client: Ipv4Addr, hops: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_multicast_ttl_v4(hops)?;
    socket.set_multicast_if_v4(&client)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(client, 0).into())?;
    Ok(socket.into())
}

/// A socket that only this machine can reach; not blocking.
///
/// # Errors
/// The system has no handles left.
pub(crate) fn on_loopback() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
