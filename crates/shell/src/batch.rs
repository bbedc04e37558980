//! Many datagrams in one call to the system.
//!
//! Owns how that is asked for: where the system can, a run of datagrams of one size between two addresses goes in and out
//! as one piece (Linux: UDP_SEGMENT, UDP_GRO), which costs a fraction of what single ones do; elsewhere one by one.
//! Leaves to `net` the sockets, and to `engine_loop` whose
//! datagrams they are.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;

/// What the largest piece has: the length of an IP packet has 16 bits.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// What came with one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    /// How much.
    pub(crate) bytes: usize,
    /// From whom.
    pub(crate) from: SocketAddr,
    /// Bytes of each datagram but the last, which may be shorter.
    pub(crate) segment: usize,
}

/// Receives and sends; one for each socket.
#[derive(Debug)]
pub(crate) struct Batches {
    /// The system takes runs. Some network cards do not, which is only seen when one is sent.
    takes_runs: bool,
    #[cfg(target_os = "linux")]
    control: Vec<u8>,
}

#[cfg(target_os = "linux")]
impl Batches {
    /// Asks the system to put together what comes to `socket`; where it does not, datagrams come one by one.
    pub(crate) fn new(socket: &UdpSocket) -> Batches {
        use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
        let _ = setsockopt(socket, UdpGroSegment, &true);
        let_fragment(socket, false);
        Batches { takes_runs: true, control: nix::cmsg_space!(i32) }
    }

    /// Receives the next run of datagrams.
    ///
    /// # Errors
    /// As `recvmsg`; `WouldBlock`: none is there.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, into: &mut [u8]) -> io::Result<Received> {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
        use std::os::fd::AsRawFd;
        let mut slices = [io::IoSliceMut::new(into)];
        let fd = socket.as_raw_fd();
        let control = Some(&mut self.control[..]);
        let got = recvmsg::<SockaddrStorage>(fd, &mut slices, control, MsgFlags::empty())?;
        let from = got.address.as_ref().and_then(addr_of);
        let from = from.ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
        let mut segment = got.bytes;
        for message in got.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = message {
                segment = usize::try_from(size).unwrap_or(segment);
            }
        }
        Ok(Received { bytes: got.bytes, from, segment: segment.max(1) })
    }

    /// Sends `bytes`, as datagrams of `segment` bytes each, if that is said. Returns how many bytes left; fewer than all
    /// only where the system takes single datagrams and its buffer is full.
    ///
    /// # Errors
    /// As `sendmsg`, and nothing was sent.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<usize>,
    ) -> io::Result<usize> {
        use nix::errno::Errno;
        use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
        use std::os::fd::AsRawFd;
        let Some(size) = segment.filter(|size| *size < bytes.len()) else {
            return socket.send_to(bytes, to);
        };
        let run = u16::try_from(size).ok().filter(|_| self.takes_runs);
        if let Some(size) = run {
            let to = SockaddrStorage::from(to);
            let runs = [ControlMessage::UdpGsoSegments(&size)];
            let slices = [io::IoSlice::new(bytes)];
            match sendmsg(socket.as_raw_fd(), &slices, &runs, MsgFlags::empty(), Some(&to)) {
                Ok(sent) => return Ok(sent),
                Err(Errno::EIO | Errno::EINVAL | Errno::EOPNOTSUPP) => self.takes_runs = false,
                Err(why) => return Err(why.into()),
            }
        }
        send_singly(socket, to, bytes, size)
    }
}

#[cfg(target_os = "linux")]
fn addr_of(storage: &nix::sys::socket::SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

#[cfg(not(target_os = "linux"))]
impl Batches {
    /// One by one.
    pub(crate) fn new(_socket: &UdpSocket) -> Batches {
        Batches { takes_runs: false }
    }

    /// Receives the next datagram.
    ///
    /// # Errors
    /// As `recvfrom`; `WouldBlock`: none is there.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, into: &mut [u8]) -> io::Result<Received> {
        let (bytes, from) = socket.recv_from(into)?;
        Ok(Received { bytes, from, segment: bytes.max(1) })
    }

    /// Sends `bytes`, as datagrams of `segment` bytes each, if that is said. Returns how many bytes left.
    ///
    /// # Errors
    /// As `sendto`, and nothing was sent.
    pub(crate) fn send(
        &mut self,
        socket: &UdpSocket,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<usize>,
    ) -> io::Result<usize> {
        debug_assert!(!self.takes_runs, "nobody asks for them here");
        send_singly(socket, to, bytes, segment.unwrap_or(bytes.len()).max(1))
    }
}

fn send_singly(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], size: usize) -> io::Result<usize> {
    let mut sent = 0;
    for datagram in bytes.chunks(size) {
        match socket.send_to(datagram, to) {
            Ok(_) => sent += datagram.len(),
            Err(_) if sent > 0 => break,
            Err(why) => return Err(why),
        }
    }
    Ok(sent)
}

/// Whether routers may fragment what leaves by this socket. They may not, otherwise: uTP finds out how large packets may
/// be (BEP 29), and large datagrams of others come to nothing.
pub(crate) fn let_fragment(socket: &UdpSocket, may: bool) {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
        use rustix::net::sockopt::{set_ip_mtu_discover, set_ipv6_mtu_discover};
        let is_v4 = socket.local_addr().is_ok_and(|addr| addr.is_ipv4());
        // Where that cannot be said, packets that are too large are fragmented, or lost and found too large.
        let _ = match (is_v4, may) {
            (true, true) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT),
            (true, false) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE),
            (false, true) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT),
            (false, false) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE),
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, may);
}

/// Whether an error says that a datagram was larger than the way lets pass.
pub(crate) fn too_big(why: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(why) == Some(rustix::io::Errno::MSGSIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    /// All datagrams that are there; loopback delivers before `send` returns.
    fn received(batches: &mut Batches, socket: &UdpSocket) -> Vec<Vec<u8>> {
        let (mut into, mut all) = (vec![0; PIECE_BYTES], Vec::new());
        while let Ok(got) = batches.receive(socket, &mut into) {
            all.extend(into[..got.bytes].chunks(got.segment).map(<[u8]>::to_vec));
        }
        all
    }

    #[test]
    fn a_run_arrives_as_the_datagrams_it_is_made_of() {
        let (from, to) = (socket(), socket());
        let addr = to.local_addr().unwrap();
        let bytes: Vec<u8> = (0..10_000u32).map(|at| at as u8).collect();
        for takes_runs in [true, false] {
            let mut out = Batches { takes_runs, ..Batches::new(&from) };
            let mut into = Batches::new(&to);
            assert_eq!(out.send(&from, addr, &bytes, Some(1400)).unwrap(), bytes.len());
            assert_eq!(received(&mut into, &to), bytes.chunks(1400).map(<[u8]>::to_vec).collect::<Vec<_>>());
            assert_eq!(out.send(&from, addr, &bytes[..100], Some(1400)).unwrap(), 100);
            assert_eq!(out.send(&from, addr, &bytes[..200], None).unwrap(), 200);
            assert_eq!(received(&mut into, &to), [bytes[..100].to_vec(), bytes[..200].to_vec()]);
        }
    }
}
