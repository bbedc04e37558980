//! Content laid out as pieces, and hashed by all cores.
//!
//! Owns the reading: which bytes make a piece, in what order workers take them, and the hashes over them. What the
//! hashes are for, made or compared, is its callers'.
//!
//! Work is dealt in runs of neighbouring pieces, in order, so that however many workers there are the disk sees nearly
//! one sequential reader. Each worker has one buffer, which both hashes of a hybrid torrent read while it is in the
//! cache; memory does not grow with pieces or files.

use super::{OfflineError, Progress};
use piecemeal_metainfo::merkle::{self, Hash, LEAF_BYTES};
use sha1::{Digest, Sha1};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

/// Bytes read at once: within the second-level cache, and so large that the call costs nothing. A multiple of
/// [`LEAF_BYTES`], as leaves must not straddle two reads.
const BUFFER_BYTES: usize = 512 << 10;
/// Bytes of a run, or one piece if that is larger: long enough for a turning disk, short enough that workers end
/// together.
const RUN_BYTES: u64 = 8 << 20;
/// Bytes between two calls of the progress function by one worker.
const PROGRESS_BYTES: u64 = 4 << 20;
/// Source of the bytes of pad files.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the bytes of all pieces are.
#[derive(Debug)]
pub(super) struct Sheet {
    /// Bytes of a piece; with `v2` a power of two of at least [`LEAF_BYTES`].
    pub piece_length: u32,
    /// How many pieces.
    pub pieces: u32,
    /// Take SHA-1s, over the bytes up to here; what no file covers is zeros (pad files).
    pub v1_end: Option<u64>,
    /// Take merkle nodes. Every file begins with a piece then.
    pub v2: bool,
    /// Files with content, in order, without overlap.
    pub files: Vec<Entry>,
}

/// One file with content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// Its first byte, counted from the first byte of piece 0.
    pub start: u64,
    /// Its bytes; more than 0.
    pub length: u64,
}

impl Entry {
    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// The hashes of one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct PieceHashes {
    /// SHA-1 of its bytes, if asked for.
    pub sha1: [u8; 20],
    /// If asked for: the node above its leaves, which is the file's root if the file has no other piece.
    pub node: Hash,
}

/// A file gave no bytes.
#[derive(Debug)]
pub(super) struct Unread {
    /// Which of the sheet's.
    pub file: usize,
    /// `UnexpectedEof` if it is too short.
    pub why: io::Error,
}

/// How a pass over the sheet is run.
pub(super) struct Pass<'a> {
    /// Workers; at least 1 is taken.
    pub threads: usize,
    /// Hears of file bytes done so far.
    pub progress: &'a Progress<'a>,
    /// Set by whoever has had enough.
    pub cancel: &'a AtomicBool,
}

impl Sheet {
    /// The bytes of a piece that are hashed: from, to.
    pub fn range(&self, piece: u32) -> (u64, u64) {
        let from = u64::from(piece) * u64::from(self.piece_length);
        let to = from + u64::from(self.piece_length);
        let end = match self.v1_end {
            Some(end) => end,
            None => self.files.get(self.file_at(from)).map_or(from, Entry::end),
        };
        (from, to.min(end).max(from))
    }

    /// The first file that ends after byte `at`.
    pub fn file_at(&self, at: u64) -> usize {
        self.files.partition_point(|file| file.end() <= at)
    }

    /// The files that have bytes in a piece.
    pub fn files_of(&self, piece: u32) -> impl Iterator<Item = (usize, &Entry)> {
        let (from, to) = self.range(piece);
        let first = self.file_at(from);
        (first..).zip(&self.files[first..]).take_while(move |(_, file)| file.start < to)
    }

    /// File bytes in a piece.
    fn content_of(&self, piece: u32) -> u64 {
        let (from, to) = self.range(piece);
        self.files_of(piece).map(|(_, file)| file.end().min(to) - file.start.max(from)).sum()
    }

    /// Hashes every piece that `wanted` wants. Each worker has a `T` of its own, made by `fresh`, which `each` is
    /// given with every piece; all of them come back, in no order.
    ///
    /// # Errors
    /// The first of `each`, or that the pass was cancelled.
    pub fn hash<T: Send>(
        &self,
        pass: &Pass<'_>,
        wanted: impl Fn(u32) -> bool + Sync,
        fresh: impl Fn() -> T + Sync,
        each: impl Fn(&mut T, u32, Result<&PieceHashes, Unread>) -> Result<(), OfflineError> + Sync,
    ) -> Result<Vec<T>, OfflineError> {
        let run = (RUN_BYTES / u64::from(self.piece_length)).clamp(1, u64::from(u32::MAX)) as u32;
        let runs = self.pieces.div_ceil(run);
        let (next, done, over) = (AtomicU32::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let work = || {
            let mut mine = fresh();
            let mut worker = Worker::new(self, pass, &done, &over);
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                // Each worker comes here once too often, which can not wrap the counter.
                if at >= runs {
                    break;
                }
                let pieces = at * run..(at * run).saturating_add(run).min(self.pieces);
                let outcome =
                    worker.run(pieces, &wanted, &mut |piece, hashes| each(&mut mine, piece, hashes));
                if outcome.is_err() {
                    over.store(true, Ordering::Relaxed);
                }
                outcome?;
            }
            worker.tell();
            Ok(mine)
        };
        gather(pass.threads.clamp(1, runs.max(1) as usize), &work)
    }
}

/// Runs `work` on so many threads; all results, or the most telling error.
fn gather<T: Send>(
    threads: usize,
    work: &(impl Fn() -> Result<T, OfflineError> + Sync),
) -> Result<Vec<T>, OfflineError> {
    let outcomes: Vec<Result<T, OfflineError>> = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().name("hash".into()).spawn_scoped(scope, work);
        let others: Vec<_> = (1..threads).map_while(|n| spawn(n).ok()).collect();
        // The caller's thread works too; so it goes on with fewer if the system has no more threads.
        let mut outcomes = vec![work()];
        outcomes.extend(others.into_iter().map(|other| other.join().expect("hashing does not panic")));
        outcomes
    });
    let mut all = Vec::with_capacity(outcomes.len());
    let mut failure = None;
    for outcome in outcomes {
        match outcome {
            Ok(one) => all.push(one),
            // The others only stopped because of it.
            Err(why) if failure.is_none() || matches!(failure, Some(OfflineError::Cancelled)) => {
                failure = Some(why)
            }
            Err(_) => {}
        }
    }
    failure.map_or(Ok(all), Err)
}

/// One thread's buffer and place.
struct Worker<'a> {
    sheet: &'a Sheet,
    pass: &'a Pass<'a>,
    /// File bytes done by all workers.
    done: &'a AtomicU64,
    /// Another worker failed.
    over: &'a AtomicBool,
    /// File bytes of this worker not yet in `done`.
    untold: u64,
    window: Window,
    leaves: Vec<Hash>,
}

impl<'a> Worker<'a> {
    fn new(sheet: &'a Sheet, pass: &'a Pass<'a>, done: &'a AtomicU64, over: &'a AtomicBool) -> Worker<'a> {
        Worker { sheet, pass, done, over, untold: 0, window: Window::new(), leaves: Vec::new() }
    }

    fn run(
        &mut self,
        pieces: std::ops::Range<u32>,
        wanted: &impl Fn(u32) -> bool,
        each: &mut impl FnMut(u32, Result<&PieceHashes, Unread>) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        let run_end = u64::from(pieces.end) * u64::from(self.sheet.piece_length);
        let mut file = self.sheet.file_at(u64::from(pieces.start) * u64::from(self.sheet.piece_length));
        for piece in pieces {
            if !wanted(piece) {
                self.untold += self.sheet.content_of(piece);
                continue;
            }
            let hashes = self.piece(piece, &mut file, run_end)?;
            each(
                piece,
                hashes.as_ref().map_err(|unread| Unread { file: unread.file, why: again(&unread.why) }),
            )?;
        }
        Ok(())
    }

    /// `file` is one that is not past the piece, and is left so.
    fn piece(
        &mut self,
        piece: u32,
        file: &mut usize,
        run_end: u64,
    ) -> Result<Result<PieceHashes, Unread>, OfflineError> {
        let (mut at, end) = self.sheet.range(piece);
        let mut sha1 = Sha1::new();
        self.leaves.clear();
        let mut width = 0;
        while at < end {
            if self.pass.cancel.load(Ordering::Relaxed) || self.over.load(Ordering::Relaxed) {
                return Err(OfflineError::Cancelled);
            }
            while self.sheet.files.get(*file).is_some_and(|entry| entry.end() <= at) {
                *file += 1;
            }
            let entry = self.sheet.files.get(*file).filter(|entry| entry.start < end);
            let data = match entry {
                Some(entry) if entry.start <= at => {
                    let until = (end.min(entry.end()) - at).min(BUFFER_BYTES as u64) as usize;
                    match self.window.bytes(*file, entry, at - entry.start, until, run_end) {
                        Ok(data) => data,
                        Err(why) => return Ok(Err(Unread { file: *file, why })),
                    }
                }
                padded => {
                    let until = padded.map_or(end, |entry| entry.start) - at;
                    &ZEROS[..until.min(ZEROS.len() as u64) as usize]
                }
            };
            if self.sheet.v1_end.is_some() {
                sha1.update(data);
            }
            if let Some(entry) = entry.filter(|entry| entry.start <= at) {
                if self.sheet.v2 {
                    self.leaves.extend(data.chunks(LEAF_BYTES as usize).map(merkle::leaf));
                    let whole = entry.length > u64::from(self.sheet.piece_length);
                    width = if whole { (self.sheet.piece_length / LEAF_BYTES) as usize } else { 0 };
                }
                self.untold += data.len() as u64;
            }
            at += data.len() as u64;
        }
        if self.untold >= PROGRESS_BYTES {
            self.tell();
        }
        let node = if self.sheet.v2 { merkle::root(&self.leaves, 0, width) } else { Hash::default() };
        Ok(Ok(PieceHashes { sha1: sha1.finalize().into(), node }))
    }

    fn tell(&mut self) {
        let before = self.done.fetch_add(self.untold, Ordering::Relaxed);
        (self.pass.progress)(before + self.untold);
        self.untold = 0;
    }
}

/// An error that can be told to two.
fn again(why: &io::Error) -> io::Error {
    why.raw_os_error().map_or_else(|| why.kind().into(), io::Error::from_raw_os_error)
}

/// One open file and the part of it that is in memory.
struct Window {
    open: Option<(usize, File)>,
    buffer: Vec<u8>,
    /// Where in the file the buffer was filled from, and how far.
    from: u64,
    len: usize,
}

impl Window {
    fn new() -> Window {
        Window { open: None, buffer: vec![0; BUFFER_BYTES], from: 0, len: 0 }
    }

    /// Up to `want` bytes of the file from `offset`, at least one; reads ahead, but not past the run.
    fn bytes(
        &mut self,
        file: usize,
        entry: &Entry,
        offset: u64,
        want: usize,
        run_end: u64,
    ) -> io::Result<&[u8]> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.open = None;
            self.open = Some((file, open(&entry.path)?));
            self.len = 0;
        }
        if offset < self.from || offset >= self.from + self.len as u64 {
            let ahead = (entry.end().min(run_end) - entry.start - offset).min(BUFFER_BYTES as u64) as usize;
            self.len = 0;
            if let Some((_, file)) = &self.open {
                // A fault further on must not cost the pieces before it: what is needed now gets a second chance.
                self.len = match read_exact_at(file, &mut self.buffer[..ahead], offset) {
                    Ok(()) => ahead,
                    Err(_) => read_exact_at(file, &mut self.buffer[..want], offset).map(|()| want)?,
                };
            }
            self.from = offset;
        }
        let skip = (offset - self.from) as usize;
        let to = self.len.min(skip + want);
        Ok(&self.buffer[skip..to])
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Only advice; a file system that does not take it reads as it likes.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    Ok(file)
}

#[cfg(unix)]
fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    let mut read = 0;
    while read < into.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut into[read..], offset + read as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(some) => read += some,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}
