//! TCP: listeners, dials, and one write to a socket.
//!
//! Owns the options of sockets and what to do when handles run out. Leaves connections, turns and fairness to
//! `engine_loop`.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use piecemeal_engine::cx::{FileSpan, Goodbye, Sending};
use piecemeal_package::Place;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

use crate::disk::{Handle, Handles, Torrents};

/// Connections the system keeps for us until we accept them; it cuts this to its own bound.
const BACKLOG: i32 = 1024;
/// How often all addresses are tried anew, where one port is wanted that is free on each of them.
const SAME_PORT_TRIES: usize = 16;
/// Files kept open to be sent from.
const SEND_HANDLES: usize = 64;
/// Slices one system call takes; at most what `with_sealed` offers.
const SLICES: usize = 64;
/// Bytes read at a time where there is no `sendfile`.
#[cfg(not(target_os = "linux"))]
const BOUNCE_BYTES: usize = 64 * 1024;

/// Listens on every address; addresses with port 0 get one free port, the same for all if that can be had.
///
/// # Errors
/// The address that could not be had, and the system's reason.
pub(crate) fn listen(
    addrs: &[SocketAddr],
) -> Result<Vec<(TcpListener, SocketAddr)>, (SocketAddr, io::Error)> {
    for _ in 1..SAME_PORT_TRIES {
        match listen_on_one_port(addrs) {
            Err((_, why)) if why.kind() == io::ErrorKind::AddrInUse => {}
            answer => return answer,
        }
    }
    listen_on_one_port(addrs)
}

fn listen_on_one_port(
    addrs: &[SocketAddr],
) -> Result<Vec<(TcpListener, SocketAddr)>, (SocketAddr, io::Error)> {
    let mut listeners: Vec<(TcpListener, SocketAddr)> = Vec::with_capacity(addrs.len());
    let mut given = 0;
    for &addr in addrs {
        let mut wanted = addr;
        if wanted.port() == 0 {
            wanted.set_port(given);
        }
        let (listener, bound) = listen_on(wanted).map_err(|why| (addr, why))?;
        if addr.port() == 0 {
            given = bound.port();
        }
        listeners.push((listener, bound));
    }
    Ok(listeners)
}

fn listen_on(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // Each family has its own listener; otherwise the two would be in each other's way.
        socket.set_only_v6(true)?;
    }
    // A restart need not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into());
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Begins to connect; writable means that it ended, well or badly.
pub(crate) fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    set_options(&stream);
    Ok(stream)
}

/// Whether a dial came to a connection, once the socket is writable.
pub(crate) fn dialed(stream: &TcpStream) -> io::Result<()> {
    if let Some(why) = stream.take_error()? {
        return Err(why);
    }
    stream.peer_addr().map(|_| ())
}

/// What every connection has. Refusals are no reason to do without the connection.
pub(crate) fn set_options(stream: &TcpStream) {
    // We gather what belongs together ourselves; a request must not wait for the answer to another.
    let _ = stream.set_nodelay(true);
}

/// True if there are no file handles left, in the process or the system.
pub(crate) fn out_of_handles(why: &io::Error) -> bool {
    matches!(Errno::from_io_error(why), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// True for failures of one incoming connection, not of the listener.
pub(crate) fn only_this_one(why: &io::Error) -> bool {
    let network = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::PERM,
    ];
    Errno::from_io_error(why).is_some_and(|why| network.contains(&why))
}

/// A handle held back, so that a connection can be taken and closed when no other is left. Otherwise it would stay in
/// the backlog, and the listener readable, for ever.
pub(crate) struct Spare(Option<std::fs::File>);

impl Spare {
    pub(crate) fn new() -> Spare {
        Spare(std::fs::File::open("/dev/null").ok())
    }

    /// Takes connections in the spare's place and closes them, until none waits.
    pub(crate) fn turn_away(&mut self, listener: &TcpListener) {
        self.0 = None;
        // Bounded by the backlog; whoever comes meanwhile meets the pause of the listener.
        for _ in 0..BACKLOG {
            if listener.accept().is_err() {
                break;
            }
        }
        *self = Spare::new();
    }
}

/// How far a write came.
pub(crate) struct Sent {
    /// Bytes the socket took.
    pub(crate) bytes: usize,
    /// Of those, the ones that came from a file without passing through our memory.
    pub(crate) from_files: usize,
    /// System calls that took.
    pub(crate) calls: u64,
    /// Why it ended.
    pub(crate) end: SentEnd,
}

/// Why a write ended.
pub(crate) enum SentEnd {
    /// All that was offered was taken.
    All,
    /// The socket is full.
    Full,
    /// The connection, or the file, is broken.
    Broken(Goodbye),
}

/// Files to send from.
pub(crate) struct SendFiles {
    torrents: Torrents,
    handles: Handles,
}

impl SendFiles {
    pub(crate) fn new(torrents: Torrents) -> SendFiles {
        SendFiles { torrents, handles: Handles::new(SEND_HANDLES) }
    }

    /// Closes what is open of a torrent.
    pub(crate) fn close(&mut self, torrent: piecemeal_metainfo::TorrentId) {
        self.handles.close(torrent);
    }

    fn handle(&mut self, span: &FileSpan) -> Result<Arc<Handle>, Goodbye> {
        let place = Place::File(span.file);
        if let Some(handle) = self.handles.get(span.torrent, place, false) {
            return Ok(handle);
        }
        let torrent =
            self.torrents.get(span.torrent).ok_or_else(|| Goodbye::Failed("its torrent has left".into()))?;
        let handle = torrent.open(place, false).map_err(|trouble| Goodbye::Failed(trouble.to_string()))?;
        Ok(self.handles.keep(span.torrent, place, handle))
    }

    /// Sends `slices`, in order, as far as the socket takes them.
    pub(crate) fn send(&mut self, stream: &TcpStream, slices: &[Sending<'_>]) -> Sent {
        let mut sent = Sent { bytes: 0, from_files: 0, calls: 0, end: SentEnd::All };
        let mut rest = slices;
        while let Some(first) = rest.first() {
            let end = match first {
                Sending::Bytes(_) => {
                    let count = rest.iter().take_while(|slice| matches!(slice, Sending::Bytes(_))).count();
                    let (run, behind) = rest.split_at(count.min(SLICES));
                    rest = behind;
                    send_bytes(stream, run, !rest.is_empty(), &mut sent)
                }
                Sending::File(span) => {
                    rest = &rest[1..];
                    match self.handle(span) {
                        Ok(handle) => send_file(stream, &handle, span, &mut sent),
                        Err(why) => SentEnd::Broken(why),
                    }
                }
            };
            if !matches!(end, SentEnd::All) {
                sent.end = end;
                break;
            }
        }
        sent
    }
}

/// One gathering write. `more`: what follows belongs into the same packets.
fn send_bytes(stream: &TcpStream, run: &[Sending<'_>], more: bool, sent: &mut Sent) -> SentEnd {
    let mut iov = [IoSlice::new(&[]); SLICES];
    let mut total = 0;
    for (slot, slice) in iov.iter_mut().zip(run) {
        if let Sending::Bytes(bytes) = slice {
            *slot = IoSlice::new(bytes);
            total += bytes.len();
        }
    }
    let flags = flags(more);
    loop {
        sent.calls += 1;
        let wrote = match &iov[..run.len()] {
            [one] => rustix::net::send(stream, one, flags),
            many => rustix::net::sendmsg(stream, many, &mut SendAncillaryBuffer::default(), flags),
        };
        return match wrote {
            Ok(bytes) => {
                sent.bytes += bytes;
                // A socket that takes a part is full: it tells by an edge when it can take more.
                if bytes == total { SentEnd::All } else { SentEnd::Full }
            }
            Err(Errno::INTR) => continue,
            Err(why) => full_or_broken(why),
        };
    }
}

#[cfg(target_os = "linux")]
fn flags(more: bool) -> SendFlags {
    if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL }
}

#[cfg(all(not(target_os = "linux"), not(target_vendor = "apple")))]
fn flags(_more: bool) -> SendFlags {
    SendFlags::NOSIGNAL
}

/// Sockets of the standard library and mio raise no signal there by their own option.
#[cfg(target_vendor = "apple")]
fn flags(_more: bool) -> SendFlags {
    SendFlags::empty()
}

#[cfg(target_os = "linux")]
fn send_file(stream: &TcpStream, handle: &Handle, span: &FileSpan, sent: &mut Sent) -> SentEnd {
    let (mut offset, mut left) = (span.offset, span.len as usize);
    while left > 0 {
        sent.calls += 1;
        match rustix::fs::sendfile(stream.as_fd(), handle.as_fd(), Some(&mut offset), left) {
            Ok(0) => return SentEnd::Broken(shrunk()),
            Ok(bytes) => {
                sent.bytes += bytes;
                sent.from_files += bytes;
                left -= bytes;
            }
            Err(Errno::INTR) => {}
            Err(why) => return full_or_broken(why),
        }
    }
    SentEnd::All
}

/// Through memory of ours, where the system has no `sendfile` of this kind.
#[cfg(not(target_os = "linux"))]
fn send_file(stream: &TcpStream, handle: &Handle, span: &FileSpan, sent: &mut Sent) -> SentEnd {
    let (mut offset, mut left) = (span.offset, span.len as usize);
    let mut bounce = vec![0; BOUNCE_BYTES.min(left)];
    while left > 0 {
        let step = left.min(bounce.len());
        let read = match rustix::io::pread(handle.as_fd(), &mut bounce[..step], offset) {
            Ok(0) => return SentEnd::Broken(shrunk()),
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(why) => return full_or_broken(why),
        };
        let before = sent.bytes;
        let end = send_bytes(stream, &[Sending::Bytes(&bounce[..read])], read < left, sent);
        let took = sent.bytes - before;
        (offset, left) = (offset + took as u64, left - took);
        if !matches!(end, SentEnd::All) {
            return end;
        }
    }
    SentEnd::All
}

fn shrunk() -> Goodbye {
    Goodbye::Failed("a file is shorter than it was".into())
}

fn full_or_broken(why: Errno) -> SentEnd {
    if why == Errno::AGAIN {
        SentEnd::Full
    } else {
        SentEnd::Broken(Goodbye::Failed(io::Error::from(why).to_string()))
    }
}
