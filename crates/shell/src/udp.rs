//! UDP: the sockets that share their port with the listeners.
//!
//! Owns their options. What the datagrams mean is the engine's; one that cannot be sent at once is lost, as any may be.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// What the system may keep for us between two turns: some thousand datagrams of the DHT.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A socket on `addr` alone, not blocking.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A smaller buffer only loses more in a burst.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
