//! One datagram with each call into the system, which every system has.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::DATAGRAM_BYTES;

/// Waits for a datagram, reads it into the first of `buffers`, and appends who sent it and how long it is.
///
/// # Errors
/// The wait is over, or the system speaks of something else than a datagram.
pub(super) fn receive(
    socket: &UdpSocket,
    buffers: &mut [[u8; DATAGRAM_BYTES]],
    from: &mut Vec<(SocketAddr, usize)>,
) -> io::Result<()> {
    let (len, sender) = socket.recv_from(&mut buffers[0])?;
    from.push((sender, len));
    Ok(())
}

/// Sends all; what the system does not take at once is lost.
pub(super) fn send<'a>(socket: &UdpSocket, datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>) {
    for (to, bytes) in datagrams {
        let _ = socket.send_to(bytes, to);
    }
}
