//! A disk in memory that does Jobs as `package::job` says, and as slowly, as full and as faulty as a scenario wants.
//!
//! Owns files, the time that Jobs take, and the contract: a Job that the contract forbids is a panic here. It works
//! like `shell::disk`: several threads, so Jobs may end in another order than they began.

mod knobs;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_engine::cx::FileSpan;
use piecemeal_metainfo::{PieceIndex, Time, TorrentId};
use piecemeal_package::{Done, Hash, Job, Load, Place, Save, Span, Trouble, TroubleKind, Warm};

use crate::dice::Dice;
use crate::torrent::Torrent;
pub use knobs::Knobs;
use store::Store;

/// Threads of a lane, as the shell has on few cores.
const THREADS: usize = 2;

/// The number of a Job that is out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// See the module.
pub struct SimDisk {
    /// How it is; may be turned at any time.
    pub knobs: Knobs,
    stores: BTreeMap<TorrentId, Store>,
    /// When each thread is free.
    threads: [Time; THREADS],
    /// Jobs that are out. Bounded by what the engine asks for.
    out: BTreeMap<Ticket, (TorrentId, Job)>,
    next: u64,
    /// Blocks written so far.
    written: u64,
    dice: Dice,
    spare: Vec<u8>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(knobs: Knobs, dice: Dice) -> SimDisk {
        let threads = [Time::ZERO; THREADS];
        let (stores, out) = (BTreeMap::new(), BTreeMap::new());
        SimDisk { knobs, stores, threads, out, next: 0, written: 0, dice, spare: Vec::new() }
    }

    /// The torrent will be spoken of by this number. What lies there stays.
    pub fn know(&mut self, id: TorrentId, torrent: &Arc<Torrent>) {
        self.stores.entry(id).or_insert_with(|| Store::new(torrent.clone()));
    }

    /// All content is there.
    pub fn fill(&mut self, id: TorrentId) {
        self.store(id).fill();
    }

    /// Somebody deletes a file.
    pub fn lose_file(&mut self, id: TorrentId, place: Place) {
        self.store(id).files.remove(&place);
    }

    /// Takes a Job; it is done at the time told.
    pub fn submit(&mut self, now: Time, id: TorrentId, job: Job) -> (Ticket, Time) {
        self.check_contract(id, &job);
        let takes = self.takes(&job);
        let thread = if self.threads[0] <= self.threads[1] { 0 } else { 1 };
        let mut start = self.threads[thread].max(now);
        let mut end = start + takes;
        if let Some((from, to)) = self.knobs.stall {
            if start >= from && start < to {
                (start, end) = (to, to + takes);
            } else if start < from && end > from {
                end = end + to.since(from);
            }
        }
        debug_assert!(start <= end);
        self.threads[thread] = end;
        let ticket = Ticket(self.next);
        self.next += 1;
        self.out.insert(ticket, (id, job));
        (ticket, end)
    }

    /// The Job's time has come.
    pub fn finish(&mut self, now: Time, ticket: Ticket) -> Option<(TorrentId, Done)> {
        let (id, job) = self.out.remove(&ticket)?;
        Some((id, self.run(now, id, job)))
    }

    /// How many Jobs are out.
    pub fn jobs_out(&self) -> usize {
        self.out.len()
    }

    /// The process is gone, and its memory with it. What it wrote is there.
    pub fn process_died(&mut self) {
        for (_, job) in std::mem::take(&mut self.out).into_values() {
            match job {
                Job::Save(save) => save.blocks.into_iter().for_each(|buf| buf.abandon()),
                Job::Load(load) => load.into.abandon(),
                _ => {}
            }
        }
        self.threads = [Time::ZERO; THREADS];
    }

    /// The machine lost power: of what was not flushed, each page may be there or not.
    pub fn power_cut(&mut self) {
        self.process_died();
        for store in self.stores.values_mut() {
            store.power_cut(&mut self.dice);
        }
    }

    /// Whether the bytes of a piece lie there and are right. Pads always are.
    pub fn holds(&mut self, id: TorrentId, piece: PieceIndex) -> bool {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        let store = self.store(id);
        let right = store.torrent.clone();
        let spans = store.spans_of(piece);
        let there = spans.iter().all(|span| store.read(span, &mut bytes));
        let holds = there && bytes == right.piece(piece);
        self.spare = bytes;
        holds
    }

    /// Bytes to be sent straight from a file, appended to `into`. False: the file is shorter than that.
    pub fn send_from(&mut self, span: &FileSpan, into: &mut Vec<u8>) -> bool {
        let from = Span { place: Place::File(span.file), offset: span.offset, len: span.len };
        self.store(span.torrent).read(&from, into)
    }

    fn store(&mut self, id: TorrentId) -> &mut Store {
        self.stores.get_mut(&id).expect("a disk is told of a torrent before it is used")
    }

    fn takes(&mut self, job: &Job) -> Duration {
        let spans = |spans: &[Span]| spans.iter().map(|span| u64::from(span.len)).sum();
        let bytes: u64 = match job {
            Job::Save(save) => save.blocks.iter().map(|block| u64::from(block.len())).sum(),
            Job::Hash(hash) => spans(&hash.spans),
            Job::Load(load) => spans(&load.spans),
            // Mostly it is in the page cache.
            Job::Warm(_) if self.dice.percent(70) => return Duration::ZERO,
            Job::Warm(warm) => spans(&warm.spans),
            Job::Stat(_) | Job::Fence(_) => 0,
        };
        let transfer = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.knobs.rate.max(1));
        transfer + self.knobs.latency + self.dice.span(self.knobs.jitter)
    }

    fn check_contract(&self, id: TorrentId, job: &Job) {
        let others = || self.out.values().filter(|(of, _)| *of == id).map(|(_, job)| job);
        let alone = |job: &Job| matches!(job, Job::Stat(_) | Job::Fence(_));
        assert!(!others().any(alone), "{job:?} was sent while something is done alone");
        assert!(!alone(job) || others().next().is_none(), "{job:?} was sent while another Job is out");
        if let Some(piece) = piece_of(job) {
            let twice = others().any(|other| piece_of(other) == Some(piece));
            assert!(!twice, "two Jobs put {piece:?} together at once");
        }
    }

    fn run(&mut self, now: Time, id: TorrentId, job: Job) -> Done {
        match job {
            Job::Save(mut save) => {
                let result = self.save(now, id, &mut save);
                Done::Saved(save, result)
            }
            Job::Hash(mut hash) => {
                let result = self.hash(id, &mut hash);
                Done::Hashed(hash, result)
            }
            Job::Load(mut load) => {
                let result = self.load(id, &mut load);
                if result.is_err() {
                    load.into.fill(0);
                }
                Done::Loaded(load, result)
            }
            Job::Warm(warm) => {
                let result = self.warm(id, &warm);
                Done::Warmed(warm, result)
            }
            Job::Stat(_) => Done::Stated(self.store(id).stamps()),
            Job::Fence(fence) => {
                self.store(id).fence(now, &fence);
                Done::Fenced(fence, Ok(()))
            }
        }
    }

    fn save(&mut self, now: Time, id: TorrentId, save: &mut Save) -> Result<(), Trouble> {
        let bytes: Vec<u8> = save.blocks.iter().flat_map(|block| block.filled()).copied().collect();
        if let Some(hash) = &mut save.hash {
            assert_eq!(hash.at(), save.begin, "a hash that the Blocks do not continue");
            hash.update(&bytes);
        }
        let spans: u64 = save.spans.iter().map(|span| u64::from(span.len)).sum();
        assert_eq!(spans, bytes.len() as u64, "spans and Blocks of {:?} differ", save.piece);
        let mut rest = &bytes[..];
        for span in &save.spans {
            let (head, tail) = rest.split_at(span.len as usize);
            rest = tail;
            self.written += 1;
            let rots = self.knobs.corrupt_after.is_some_and(|blocks| self.written > blocks);
            let store = self.stores.get_mut(&id).expect("a disk is told of a torrent before it is used");
            let needs = store.would_take(span);
            if needs > self.knobs.space {
                return Err(trouble(TroubleKind::NoSpace, "No space left on device"));
            }
            self.knobs.space -= needs;
            store.write(now, span, head, rots);
        }
        Ok(())
    }

    fn hash(&mut self, id: TorrentId, hash: &mut Hash) -> Result<(), Trouble> {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        let there = hash.spans.iter().all(|span| self.store(id).read(span, &mut bytes));
        if there {
            hash.hash.update(&bytes);
        }
        self.spare = bytes;
        if there { Ok(()) } else { Err(too_short()) }
    }

    fn load(&mut self, id: TorrentId, load: &mut Load) -> Result<(), Trouble> {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        let there = load.spans.iter().all(|span| self.store(id).read(span, &mut bytes));
        if there {
            load.into.fill(load.at.len).copy_from_slice(&bytes);
        }
        self.spare = bytes;
        if there { Ok(()) } else { Err(too_short()) }
    }

    fn warm(&mut self, id: TorrentId, warm: &Warm) -> Result<(), Trouble> {
        let store = self.store(id);
        let there = warm.spans.iter().all(|span| {
            assert!(matches!(span.place, Place::File(_)), "{span:?} is no part of a file");
            store.reaches(span)
        });
        if there { Ok(()) } else { Err(too_short()) }
    }
}

/// The piece that a Job puts together.
fn piece_of(job: &Job) -> Option<PieceIndex> {
    match job {
        Job::Save(save) => Some(save.piece),
        Job::Hash(hash) => Some(hash.piece),
        _ => None,
    }
}

fn too_short() -> Trouble {
    trouble(TroubleKind::Missing, "the file is shorter than it should be")
}

fn trouble(kind: TroubleKind, text: &str) -> Trouble {
    Trouble { kind, path: "simulated".into(), text: text.into() }
}
