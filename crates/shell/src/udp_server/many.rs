//! Many datagrams with one call into the system, where it has such calls (Linux: recvmmsg and sendmmsg).
//!
//! Owns the way into the kernel and back. For a server that answers a hundred thousand datagrams a second the calls are
//! a tenth of the work.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::{mem, ptr};

use socket2::SockAddr;

use super::{BATCH, DATAGRAM_BYTES};

/// Reads what has come, at most a batch, into the first of `buffers`, and appends who sent it and how long it is.
/// Waits for the first; where the socket was shut down there is one of no bytes.
///
/// # Errors
/// As recvmmsg.
pub(super) fn receive(
    socket: &UdpSocket,
    buffers: &mut [[u8; DATAGRAM_BYTES]],
    from: &mut Vec<(SocketAddr, usize)>,
) -> io::Result<()> {
    // SAFETY: sockaddr_storage is plain numbers, for which zeros are values.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { mem::zeroed() };
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: plain numbers and pointers, which may be null.
    let mut heads: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let count = buffers.len().min(BATCH);
    for index in 0..count {
        parts[index] = libc::iovec { iov_base: buffers[index].as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES };
        let head = &mut heads[index].msg_hdr;
        head.msg_name = ptr::from_mut(&mut names[index]).cast();
        head.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        head.msg_iov = &raw mut parts[index];
        head.msg_iovlen = 1;
    }
    // SAFETY: `heads` has `count` entries, each of which names a buffer, a part and a place for an address that live
    // until the call is over and are of the sizes given; no two share any. No timeout is given.
    let come = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            heads.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_WAITFORONE as _,
            ptr::null_mut(),
        )
    };
    if come < 0 {
        return Err(io::Error::last_os_error());
    }
    for (head, name) in heads.iter().zip(&names).take(come.unsigned_abs() as usize) {
        from.push((address(name), (head.msg_len as usize).min(DATAGRAM_BYTES)));
    }
    Ok(())
}

/// Sends all; what the system does not take at once is lost. At most a batch.
pub(super) fn send<'a>(socket: &UdpSocket, datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>) {
    let (names, mut parts): (Vec<SockAddr>, Vec<libc::iovec>) = datagrams
        .take(BATCH)
        .map(|(to, bytes)| {
            let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            (SockAddr::from(to), part)
        })
        .unzip();
    // SAFETY: plain numbers and pointers, which may be null.
    let mut heads: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for ((head, name), part) in heads.iter_mut().zip(&names).zip(&mut parts) {
        head.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
        head.msg_hdr.msg_namelen = name.len();
        head.msg_hdr.msg_iov = part;
        head.msg_hdr.msg_iovlen = 1;
    }
    let mut rest = &mut heads[..names.len()];
    while !rest.is_empty() {
        // SAFETY: each entry of `rest` names an address and a part, of the sizes given, that live until the call is
        // over; the system only reads what they point to.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
        // An error is of the first that was not sent: that one is lost.
        let done = if sent < 0 { 1 } else { (sent.unsigned_abs() as usize).max(1) };
        let end = done.min(rest.len());
        rest = &mut rest[end..];
    }
}

/// The address the system wrote. Of another family there is none on these sockets.
fn address(name: &libc::sockaddr_storage) -> SocketAddr {
    let name = ptr::from_ref(name);
    // SAFETY: the system wrote the address of the family that it says, and the storage is large and aligned enough for
    // either. Where it wrote nothing there are zeros, which are a value of the first.
    unsafe {
        if libc::c_int::from((*name).ss_family) == libc::AF_INET6 {
            let v6 = &*name.cast::<libc::sockaddr_in6>();
            let (ip, port) = (v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port));
            SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into()
        } else {
            let v4 = &*name.cast::<libc::sockaddr_in>();
            SocketAddr::from((v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(v4.sin_port)))
        }
    }
}
