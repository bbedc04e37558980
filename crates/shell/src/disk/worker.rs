//! One thread of a lane: takes Jobs, does them, answers in batches.
//!
//! Owns the thread's reading buffer. Bytes are hashed while they are warm from the network, and written from the Bufs
//! they came in; nothing is copied here. Fences are done in `fences`.

use std::io::{IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use piecemeal_metainfo::TorrentId;
use piecemeal_package::{Buf, Done, Hash, Job, Load, Place, Save, Span, Stat, Trouble, TroubleKind, Warm};
use rustix::fs::{self, Advice};
use rustix::io::{self, Errno, ReadWriteFlags};

use super::files::{Handle, Torrent};
use super::lane::{Lane, Taken};
use crate::mailbox::Mailbox;

/// What is read at a time to be hashed: large enough that the device streams, small enough to stay in the cache
/// between reading and hashing.
const STEP_BYTES: usize = 256 * 1024;
/// Slices of one gathering write: 1 MiB of Blocks, and within every system's IOV_MAX (1,024).
const SLICES: usize = 64;
/// Dones answered together at most.
const BATCH_DONES: usize = 32;
/// A Done waits at most so long for company, and for the Job behind it.
const BATCH_TIME: Duration = Duration::from_millis(1);
/// The page cache is asked at steps of this. Systems read and drop pages in longer runs than one page; asking for each
/// cost a sixth of all CPU time of a seed, and a page that is missed costs the loop one wait for the disk.
const PROBE_BYTES: u64 = 64 * 1024;

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Answers on their way to the loop.
pub(crate) type Replies = Arc<Mailbox<(TorrentId, Done)>>;

/// See the module.
pub(crate) struct Worker {
    lane: Arc<Lane>,
    buffer: Box<[u8]>,
}

impl Worker {
    pub(crate) fn new(lane: Arc<Lane>) -> Worker {
        Worker { lane, buffer: vec![0; STEP_BYTES].into() }
    }

    /// Works until the lane ends.
    pub(crate) fn run(mut self, replies: &Replies) {
        let mut batch: Vec<(TorrentId, Done)> = Vec::with_capacity(BATCH_DONES);
        let mut oldest = Instant::now();
        loop {
            let taken = match self.lane.try_take() {
                Some(taken) => taken,
                None => {
                    replies.push_all(&mut batch);
                    match self.lane.take() {
                        Some(taken) => taken,
                        None => return,
                    }
                }
            };
            if batch.is_empty() {
                oldest = Instant::now();
            }
            let long = taken.is_long();
            let Taken { torrent, job, .. } = taken;
            batch.push((torrent.id, self.answer(&torrent, job)));
            self.lane.finished(long);
            if batch.len() == BATCH_DONES || oldest.elapsed() >= BATCH_TIME {
                replies.push_all(&mut batch);
            }
        }
    }

    /// Does a Job. A panic becomes an answer like any other: the Job, and the Bufs in it, survive it out here.
    pub(crate) fn answer(&mut self, torrent: &Torrent, job: Job) -> Done {
        match job {
            Job::Save(mut save) => {
                let result = guard(torrent, || self.save(torrent, &mut save));
                Done::Saved(save, result)
            }
            Job::Hash(mut hash) => {
                let result = guard(torrent, || self.hash(torrent, &mut hash));
                Done::Hashed(hash, result)
            }
            Job::Load(mut load) => {
                let result = guard(torrent, || self.load(torrent, &mut load));
                if result.is_err() {
                    load.into.fill(0);
                }
                Done::Loaded(load, result)
            }
            Job::Warm(warm) => {
                let result = guard(torrent, || self.warm(torrent, &warm));
                Done::Warmed(warm, result)
            }
            Job::Stat(Stat) => {
                let _waits = self.lane.waits_for_device();
                Done::Stated(torrent.stamps())
            }
            Job::Fence(fence) => {
                let _waits = self.lane.waits_for_device();
                let result = guard(torrent, || torrent.fence(&fence, &self.lane));
                Done::Fenced(fence, result)
            }
        }
    }

    fn save(&mut self, torrent: &Torrent, save: &mut Save) -> Result<(), Trouble> {
        if let Some(hash) = &mut save.hash {
            save.blocks.iter().for_each(|block| hash.update(block.filled()));
        }
        let mut cursor = Cursor { blocks: &save.blocks, at: 0 };
        for span in &save.spans {
            if span.place == Place::Pad {
                cursor.skip(span.len as usize);
                continue;
            }
            let handle = self.handle(torrent, span.place, true)?;
            handle.note_write(torrent, span.place);
            cursor.write(&handle, span).map_err(|why| torrent.trouble(span.place, why))?;
        }
        Ok(())
    }

    fn hash(&mut self, torrent: &Torrent, job: &mut Hash) -> Result<(), Trouble> {
        for span in &job.spans {
            let mut left = u64::from(span.len);
            if span.place == Place::Pad {
                while left > 0 {
                    let step = left.min(ZEROS.len() as u64);
                    job.hash.update(&ZEROS[..step as usize]);
                    left -= step;
                }
                continue;
            }
            let handle = self.handle(torrent, span.place, false)?;
            let mut offset = span.offset;
            while left > 0 {
                let step = left.min(STEP_BYTES as u64);
                let buffer = &mut self.buffer[..step as usize];
                read_exactly(&self.lane, &handle, buffer, offset)
                    .map_err(|why| why.at(torrent, span.place))?;
                (offset, left) = (offset + step, left - step);
                if job.idle && left > 0 {
                    // The device fetches the next step while this one is hashed.
                    ask_ahead(&handle, offset, left.min(STEP_BYTES as u64));
                }
                job.hash.update(buffer);
            }
        }
        Ok(())
    }

    fn load(&mut self, torrent: &Torrent, load: &mut Load) -> Result<(), Trouble> {
        let mut rest = load.into.fill(load.at.len);
        for span in &load.spans {
            let (bytes, behind) = rest.split_at_mut((span.len as usize).min(rest.len()));
            rest = behind;
            if span.place == Place::Pad {
                bytes.fill(0);
                continue;
            }
            let handle = self.handle(torrent, span.place, false)?;
            read_exactly(&self.lane, &handle, bytes, span.offset)
                .map_err(|why| why.at(torrent, span.place))?;
        }
        Ok(())
    }

    fn warm(&mut self, torrent: &Torrent, warm: &Warm) -> Result<(), Trouble> {
        for span in &warm.spans {
            if span.place == Place::Pad {
                continue;
            }
            let handle = self.handle(torrent, span.place, false)?;
            let fetched = match first_cold(&handle, span) {
                Ok(None) => Ok(()),
                Ok(Some(offset)) => self.fetch(&handle, offset, span.offset + u64::from(span.len)),
                Err(why) => Err(why),
            };
            fetched.map_err(|why| why.at(torrent, span.place))?;
        }
        Ok(())
    }

    /// Reads `offset..end` for the page cache only.
    fn fetch(&mut self, handle: &Handle, mut offset: u64, end: u64) -> Result<(), ReadError> {
        let _waits = self.lane.waits_for_device();
        ask_ahead(handle, offset, end - offset);
        while offset < end {
            let step = (end - offset).min(STEP_BYTES as u64);
            read_patiently(handle, &mut self.buffer[..step as usize], offset)?;
            offset += step;
        }
        Ok(())
    }

    fn handle(&self, torrent: &Torrent, place: Place, write: bool) -> Result<Arc<Handle>, Trouble> {
        torrent.handle(&self.lane, place, write)
    }
}

impl Torrent {
    /// An open handle, from the lane's if there is one.
    pub(crate) fn handle(&self, lane: &Lane, place: Place, write: bool) -> Result<Arc<Handle>, Trouble> {
        if let Some(handle) = lane.handles().get(self.id, place, write) {
            return Ok(handle);
        }
        let handle = self.open(place, write)?;
        Ok(lane.handles().keep(self.id, place, handle))
    }
}

/// Runs `work`; a panic in it is Trouble for its torrent, not for the thread.
fn guard(torrent: &Torrent, work: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Trouble {
            kind: TroubleKind::Io,
            path: torrent.storage.root.display().to_string(),
            text: "a bug in the disk thread, see standard error".into(),
        })
    })
}

/// Where a write stands in a run of Blocks.
struct Cursor<'a> {
    blocks: &'a [Buf],
    /// Bytes of the first of them that are done.
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Moves `bytes` on.
    fn skip(&mut self, mut bytes: usize) {
        while let Some((first, rest)) = self.blocks.split_first() {
            let left = first.len() as usize - self.at;
            if bytes < left {
                self.at += bytes;
                return;
            }
            bytes -= left;
            (self.blocks, self.at) = (rest, 0);
        }
        debug_assert_eq!(bytes, 0, "spans reach beyond their Blocks");
    }

    /// Writes the next bytes to `span`, all of it.
    fn write(&mut self, handle: &Handle, span: &Span) -> Result<(), Errno> {
        let (mut offset, mut left) = (span.offset, span.len as usize);
        while left > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let gathered = self.gather(&mut slices, left);
            debug_assert!(gathered > 0, "spans reach beyond their Blocks");
            let wrote = match io::pwritev(handle, &slices[..gathered], offset) {
                Err(Errno::INTR) => continue,
                Ok(0) => return Err(Errno::IO),
                answer => answer?,
            };
            self.skip(wrote);
            offset += wrote as u64;
            left -= wrote;
        }
        Ok(())
    }

    /// Fills `slices` with at most `bytes` bytes; returns how many slices that took.
    fn gather(&self, slices: &mut [IoSlice<'a>], mut bytes: usize) -> usize {
        let mut filled = 0;
        let mut at = self.at;
        for (slice, block) in slices.iter_mut().zip(self.blocks) {
            let rest = &block.filled()[at..];
            let take = rest.len().min(bytes);
            *slice = IoSlice::new(&rest[..take]);
            filled += 1;
            bytes -= take;
            at = 0;
            if bytes == 0 {
                break;
            }
        }
        filled
    }
}

enum ReadError {
    Short,
    System(Errno),
}

impl ReadError {
    fn at(self, torrent: &Torrent, place: Place) -> Trouble {
        match self {
            ReadError::Short => torrent.too_short(place),
            ReadError::System(why) => torrent.trouble(place, why),
        }
    }
}

/// Fills `bytes` from `offset`. What is in memory is read at once; only if the device must be waited for, others of
/// the lane are told.
fn read_exactly(lane: &Lane, handle: &Handle, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
    let mut done = 0;
    while done < bytes.len() {
        match read_at_once(handle, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(ReadError::Short),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let _waits = lane.waits_for_device();
                return read_patiently(handle, &mut bytes[done..], offset + done as u64);
            }
            Err(why) => return Err(ReadError::System(why)),
        }
    }
    Ok(())
}

/// Fills `bytes` from `offset`, however long the device takes.
fn read_patiently(handle: &Handle, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
    let mut done = 0;
    while done < bytes.len() {
        match io::pread(handle, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(ReadError::Short),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(why) => return Err(ReadError::System(why)),
        }
    }
    Ok(())
}

/// Reads what lies in the page cache; `AGAIN` if the next byte does not.
#[cfg(target_os = "linux")]
fn read_at_once(handle: &Handle, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    io::preadv2(handle, &mut [IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT)
}

/// Elsewhere nobody can tell: always patient.
#[cfg(not(target_os = "linux"))]
fn read_at_once(_: &Handle, _: &mut [u8], _: u64) -> Result<usize, Errno> {
    Err(Errno::AGAIN)
}

/// The first byte of `span`, at steps of [`PROBE_BYTES`], that does not lie in the page cache.
fn first_cold(handle: &Handle, span: &Span) -> Result<Option<u64>, ReadError> {
    let end = span.offset + u64::from(span.len);
    let mut byte = [0];
    let mut offset = span.offset;
    while offset < end {
        match read_at_once(handle, &mut byte, offset) {
            Ok(0) => return Err(ReadError::Short),
            Ok(_) => offset = (offset / PROBE_BYTES + 1) * PROBE_BYTES,
            Err(Errno::INTR) => {}
            Err(_) => return Ok(Some(offset)),
        }
    }
    // Its last byte tells that the file reaches so far; that page was asked for.
    match read_at_once(handle, &mut byte, end - 1) {
        Ok(0) => Err(ReadError::Short),
        _ => Ok(None),
    }
}

/// Tells the system what will be read next; nobody waits for it.
fn ask_ahead(handle: &Handle, offset: u64, bytes: u64) {
    // Advice only: where it is refused, the read itself fetches.
    let _ = fs::fadvise(handle, offset, NonZeroU64::new(bytes), Advice::WillNeed);
}
