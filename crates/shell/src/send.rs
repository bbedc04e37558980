//! One write to a socket, of bytes in memory and of bytes in files.
//!
//! File content is read into one scratch buffer, many Blocks at a time, and leaves together with the headers between
//! them by one gathering write. That costs half of what a `sendfile` for every Block does: a Block is small, and the
//! scratch stays in the processor's cache. The numbers are in `docs/adr/0001-how-content-leaves-a-socket.md`.
//!
//! Owns the scratch and the handles of files that are sent from. Leaves to `engine_loop` whose turn it is and what is
//! counted, and to the engine that the pages are warm before they are offered.

use std::io::{self, IoSlice};
use std::sync::Arc;

use mio::net::TcpStream;
use piecemeal_engine::cx::{FileSpan, Goodbye, Sending};
use piecemeal_metainfo::TorrentId;
use piecemeal_package::Place;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::disk::{Handle, Handles, Torrents};

/// Files kept open to be sent from.
const SEND_HANDLES: usize = 64;
/// Slices one system call takes; at most what `with_sealed` offers.
const SLICES: usize = 64;
/// File content one system call takes. Fits the second-level cache of one core; half of it costs a third more, twice
/// as much gains nothing that could be told from noise.
const SCRATCH_BYTES: usize = 256 * 1024;

/// How far a write came.
pub(crate) struct Sent {
    /// Bytes the socket took.
    pub(crate) bytes: usize,
    /// Of those, the ones that came straight from a file.
    pub(crate) from_files: usize,
    /// Times the socket was asked.
    pub(crate) calls: u64,
    /// Why it ended.
    pub(crate) end: SentEnd,
}

/// Why a write ended.
pub(crate) enum SentEnd {
    /// The socket takes more, if there is more.
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
    scratch: Box<[u8]>,
}

impl SendFiles {
    pub(crate) fn new(torrents: Torrents) -> SendFiles {
        SendFiles {
            torrents,
            handles: Handles::new(SEND_HANDLES),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        }
    }

    /// Closes what is open of a torrent.
    pub(crate) fn close(&mut self, torrent: TorrentId) {
        self.handles.close(torrent);
    }

    /// Sends `slices`, in order, as far as the socket takes them.
    pub(crate) fn send(&mut self, stream: &TcpStream, slices: &[Sending<'_>]) -> Sent {
        let mut sent = Sent { bytes: 0, from_files: 0, calls: 0, end: SentEnd::All };
        let mut rest = slices;
        while !rest.is_empty() && matches!(sent.end, SentEnd::All) {
            let (batch, behind) = rest.split_at(batch_len(rest));
            // Of a slice that is larger than the scratch only the beginning leaves; the rest is offered again.
            let whole = batch.iter().all(|slice| in_scratch(slice) <= SCRATCH_BYTES);
            rest = if whole { behind } else { &[] };
            sent.end = match self.read_files(batch) {
                Ok(()) => self.write(stream, batch, !whole || !rest.is_empty(), &mut sent),
                Err(why) => SentEnd::Broken(why),
            };
        }
        sent
    }

    /// Copies of `slices`, in order, at most `most` bytes behind what is in `into`; for those who do not write them to a
    /// socket as they are.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn gather(
        &mut self,
        slices: &[Sending<'_>],
        most: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), Goodbye> {
        let (batch, _) = slices.split_at(batch_len(slices));
        self.read_files(batch)?;
        let (mut content, mut room) = (&self.scratch[..], most);
        for slice in batch {
            let bytes = bytes_of(slice, &mut content);
            let took = bytes.len().min(room);
            into.extend_from_slice(&bytes[..took]);
            room -= took;
            if room == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Fills the scratch with the file content of a batch, back to back. Blocks that follow each other in a file are
    /// read at once.
    fn read_files(&mut self, batch: &[Sending<'_>]) -> Result<(), Goodbye> {
        let mut spans = batch.iter().filter_map(|slice| match slice {
            Sending::File(span) => Some(FileSpan { len: span.len.min(SCRATCH_BYTES as u32), ..*span }),
            Sending::Bytes(_) => None,
        });
        let Some(mut run) = spans.next() else { return Ok(()) };
        let mut at = 0;
        for span in spans {
            if follows(&run, &span) {
                run.len += span.len;
            } else {
                at = self.read_run(&run, at)?;
                run = span;
            }
        }
        self.read_run(&run, at).map(|_| ())
    }

    /// Reads a stretch of a file to `at` in the scratch; returns where it ends there.
    fn read_run(&mut self, run: &FileSpan, at: usize) -> Result<usize, Goodbye> {
        let handle = self.handle(run)?;
        let end = at + run.len as usize;
        let (mut into, mut offset) = (&mut self.scratch[at..end], run.offset);
        while !into.is_empty() {
            match rustix::io::pread(&*handle, &mut *into, offset) {
                Ok(0) => return Err(Goodbye::Unreadable("a file is shorter than it was".into())),
                Ok(read) => (into, offset) = (&mut into[read..], offset + read as u64),
                Err(Errno::INTR) => {}
                Err(why) => return Err(Goodbye::Unreadable(io::Error::from(why).to_string())),
            }
        }
        Ok(end)
    }

    fn handle(&mut self, span: &FileSpan) -> Result<Arc<Handle>, Goodbye> {
        let place = Place::File(span.file);
        if let Some(handle) = self.handles.get(span.torrent, place, false) {
            return Ok(handle);
        }
        let torrent =
            self.torrents.get(span.torrent).ok_or_else(|| Goodbye::Failed("its torrent has left".into()))?;
        let handle =
            torrent.open(place, false).map_err(|trouble| Goodbye::Unreadable(trouble.to_string()))?;
        Ok(self.handles.keep(span.torrent, place, handle))
    }

    /// One gathering write of a batch that was read. `more`: what follows belongs into the same packets.
    fn write(&self, stream: &TcpStream, batch: &[Sending<'_>], more: bool, sent: &mut Sent) -> SentEnd {
        let mut iov = [IoSlice::new(&[]); SLICES];
        let mut content = &self.scratch[..];
        let mut total = 0;
        for (slot, slice) in iov.iter_mut().zip(batch) {
            let bytes = bytes_of(slice, &mut content);
            *slot = IoSlice::new(bytes);
            total += bytes.len();
        }
        loop {
            sent.calls += 1;
            let wrote = match &iov[..batch.len()] {
                [one] => rustix::net::send(stream, one, flags(more)),
                many => rustix::net::sendmsg(stream, many, &mut SendAncillaryBuffer::default(), flags(more)),
            };
            return match wrote {
                Ok(bytes) => {
                    sent.bytes += bytes;
                    sent.from_files += from_files(batch, bytes);
                    // A socket that takes a part is full: it tells by an edge when it can take more.
                    if bytes == total { SentEnd::All } else { SentEnd::Full }
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => SentEnd::Full,
                Err(why) => SentEnd::Broken(Goodbye::Failed(io::Error::from(why).to_string())),
            };
        }
    }
}

/// How many of `slices` one system call and the scratch can take; at least one.
fn batch_len(slices: &[Sending<'_>]) -> usize {
    let mut room = SCRATCH_BYTES;
    let fitting = slices.iter().take(SLICES).take_while(|slice| {
        let fits = in_scratch(slice) <= room;
        room = room.saturating_sub(in_scratch(slice));
        fits
    });
    fitting.count().max(1)
}

/// The bytes of a slice; those of a file are the next of `content`, where they were read to.
fn bytes_of<'a>(slice: &Sending<'a>, content: &mut &'a [u8]) -> &'a [u8] {
    match slice {
        Sending::Bytes(bytes) => bytes,
        Sending::File(_) => {
            let (now, later) = content.split_at(in_scratch(slice).min(SCRATCH_BYTES));
            *content = later;
            now
        }
    }
}

/// Bytes of scratch a slice asks for.
fn in_scratch(slice: &Sending<'_>) -> usize {
    match slice {
        Sending::Bytes(_) => 0,
        Sending::File(span) => span.len as usize,
    }
}

fn follows(run: &FileSpan, next: &FileSpan) -> bool {
    (run.torrent, run.file) == (next.torrent, next.file) && run.offset + u64::from(run.len) == next.offset
}

/// How many of the first `bytes` bytes of a batch are file content.
fn from_files(batch: &[Sending<'_>], bytes: usize) -> usize {
    let (mut left, mut content) = (bytes, 0);
    for slice in batch {
        let len = match slice {
            Sending::Bytes(bytes) => bytes.len(),
            Sending::File(span) => span.len as usize,
        };
        let part = len.min(left);
        left -= part;
        content += part.min(in_scratch(slice));
    }
    content
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
