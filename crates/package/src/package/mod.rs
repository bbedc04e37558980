//! The content of one torrent: what is had, what is being put together, and what the disk is asked to do.
//!
//! Owns: `have`, open Pieces with their running hashes, Blocks that wait, which Jobs are out, fences. Leaves to the
//! engine what is asked of whom, to a runner (the shell, the simulator) to do the Jobs, to the session to keep
//! [`ResumeFacts`].
//!
//! - A Piece is in `have` only when all its Blocks were answered `Ok(Saved)` and the digest of all its bytes is right,
//!   or when it was read back and hashed, or when [`ResumeFacts`] say so of files that did not change
//!   ([`Start::Trust`] excepted).
//! - At most one Save or Hash is out for a Piece. Blocks that come meanwhile wait and leave together, so a slow disk
//!   makes larger writes by itself.
//! - Every Buf that is taken comes back: to the pool with a Done, or to the caller with a [`Refused`] or
//!   [`PackageNews::Loaded`].
//!
//! `piece` decides about one Piece, `opening` what to believe at the start and what to check, `fence` what is done
//! alone, `done` what answers mean.

mod done;
mod fence;
mod opening;
mod piece;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_metainfo::{Bitfield, Metainfo, PieceIndex, Time, TorrentId};

use crate::{
    BLOCK_LEN, BlockPool, BlockRef, Buf, Fence, Hash, Job, Layout, Load, OpenPiece, ResumeFacts, Save, Span,
    Trouble, Warm,
};
use fence::{Alone, Fences, Held, Occasion};
use opening::Check;
use piece::{Piece, Step};

/// Blocks behind a gap wait this long for it to close: a few round trips to a slow peer. Guess, as the price of
/// being wrong is only to read them back, usually from memory.
const GAP_WAIT: Duration = Duration::from_secs(5);
/// Blocks of one Piece that wait behind gaps: 1 MiB, one full Save.
const PIECE_WAITING_BLOCKS: usize = 64;
/// Blocks of a Package that wait: 8 MiB, a quarter of the smallest pool.
const PACKAGE_WAITING_BLOCKS: usize = 512;
/// Emptied Vecs and Pieces kept to spare allocations, of each kind: about as many Jobs as are out at once.
const SPARES: usize = 32;

/// The lane for Jobs: each with the torrent it is of.
pub type Jobs = Vec<(TorrentId, Job)>;

/// How far to believe what was known when the torrent last ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// Believe facts of files that did not change; check the others.
    #[default]
    Resume,
    /// Check all that is there.
    Recheck,
    /// Claim all wanted content that is there by its length, without looking inside; what turns out unreadable is
    /// un-had.
    Trust,
}

/// What a Package is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PackageState {
    /// Not opened yet, or looking at the files, or making what is missing.
    Opening,
    /// Verifying content that was there.
    Checking {
        /// Pieces that were looked at.
        done: u32,
        /// Pieces to look at.
        total: u32,
    },
    /// Takes Blocks and gives them.
    Ready,
    /// The disk refused: what is had can still be read, nothing is written until
    /// [`Package::resume_after_trouble`].
    Stopped(Trouble),
    /// Nothing more will come.
    Closed,
}

/// A Block that [`Package::save`] did not take.
#[derive(Debug)]
pub enum Refused {
    /// It, or its whole Piece, is here already.
    NotNeeded(Buf),
    /// The Package is not ready, or it is no Block of this torrent: it must be fetched again.
    NotNow(Buf),
}

impl Refused {
    /// The Buf, which is the caller's again.
    pub fn into_buf(self) -> Buf {
        match self {
            Refused::NotNeeded(buf) | Refused::NotNow(buf) => buf,
        }
    }
}

/// How a Piece stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceFacts {
    /// Verified.
    pub have: bool,
    /// It has bytes of a wanted file.
    pub wanted: bool,
    /// Bytes.
    pub len: u32,
    /// How many Blocks it has.
    pub blocks: u32,
    /// How many of them came, verified or not.
    pub received: u32,
}

/// What the engine hears of its Package.
#[derive(Debug)]
pub enum PackageNews {
    /// [`Package::state`] became `Ready`; `have` is what there is.
    Opened,
    /// A piece was looked at; if good, it is in `have`.
    Checked {
        /// Which.
        piece: PieceIndex,
        /// Whether its content is right.
        good: bool,
    },
    /// All pieces that were to be looked at were; `Opened` follows.
    CheckedAll,
    /// A piece is written and verified, and in `have`.
    PieceDone(PieceIndex),
    /// A piece is written, and wrong: all its Blocks must be fetched again.
    PieceBad(PieceIndex),
    /// A Block that was taken is not here any more and must be fetched again.
    Lost(BlockRef),
    /// A piece is not had any more: it could not be read.
    Unhave(PieceIndex),
    /// Answer to [`Package::load`].
    Loaded {
        /// The asker's mark.
        ticket: u64,
        /// Which bytes.
        at: BlockRef,
        /// They are in here if `result` is `Ok`. The receiver owes it to the pool either way.
        buf: Buf,
        /// Whether they could be read.
        result: Result<(), Trouble>,
    },
    /// Answer to [`Package::warm`].
    Warmed {
        /// The asker's mark.
        ticket: u64,
        /// Whether the bytes could be read.
        result: Result<(), Trouble>,
    },
    /// [`Package::state`] became `Stopped`.
    Trouble(Trouble),
    /// After [`Package::resume_after_trouble`]: the disk did something again.
    Recovered,
    /// Answer to [`Package::ask_facts`], and said twice by [`Package::close`]. Totals are those of the last run: the
    /// receiver knows better.
    Facts(Box<ResumeFacts>),
    /// Answer to [`Package::fence`], and said at each step of [`Package::close`]. After `Close` and `Delete`
    /// nothing more comes.
    Fenced(Fence, Result<(), Trouble>),
}

/// The content of one torrent.
#[derive(Debug)]
pub struct Package {
    torrent: TorrentId,
    layout: Layout,
    phase: Phase,
    start: Start,
    boot: [u8; 16],
    /// What was known, until it was judged.
    facts: Option<Box<ResumeFacts>>,
    /// Pieces that were begun before this run, until the Package is ready.
    begun: Vec<OpenPiece>,
    /// Uploaded and downloaded before this run.
    totals: (u64, u64),
    have: Bitfield,
    /// Bytes of wanted files in `have`.
    have_bytes: u64,
    /// Wanted pieces not in `have`.
    lacking: u32,
    /// Open Pieces. Bounded by what the engine asks for at once.
    pieces: BTreeMap<PieceIndex, Piece>,
    /// Blocks that wait in them.
    waiting: usize,
    /// No Block waits behind a gap longer than it may before this.
    gap_due: Time,
    /// Jobs that are out, fences as well.
    out: usize,
    fences: Fences,
    check: Check,
    trouble: Option<Trouble>,
    /// Trouble was to be forgotten, and nothing succeeded since.
    recovering: bool,
    /// What failed alone, to be done again; at most one of each kind.
    retry: Vec<Fence>,
    /// Only fences are still to come.
    closing: bool,
    /// While closing: all that was written has reached the device.
    synced: bool,
    spare: Spare,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    New,
    Looking,
    Checking,
    Preparing,
    Ready,
    Closed,
}

/// Memory to use again; at most [`SPARES`] of each.
#[derive(Debug, Default)]
struct Spare {
    blocks: Vec<Vec<Buf>>,
    spans: Vec<Vec<Span>>,
    pieces: Vec<Piece>,
}

impl Package {
    /// For a user who wants the files marked in `wanted`. `facts` that are not of this torrent are not believed;
    /// `boot` is the mark of this boot of the machine.
    ///
    /// Only for torrents with v1 hashes; of others no Piece is ever right.
    pub fn new(
        torrent: TorrentId,
        meta: Arc<Metainfo>,
        wanted: Arc<[bool]>,
        facts: Option<ResumeFacts>,
        start: Start,
        boot: [u8; 16],
    ) -> Package {
        let fits = |facts: &ResumeFacts| {
            facts.info_hash == meta.wire_hash()
                && facts.have.pieces() == meta.piece_count()
                && facts.wanted.len() == meta.files().len()
                && facts.stamps.len() == meta.files().len() + 1
        };
        let facts = facts.filter(fits).map(Box::new);
        let totals = facts.as_ref().map_or((0, 0), |facts| (facts.uploaded, facts.downloaded));
        let layout = Layout::new(meta, wanted);
        Package {
            torrent,
            phase: Phase::New,
            start,
            boot,
            facts,
            begun: Vec::new(),
            totals,
            have: Bitfield::new(layout.piece_count()),
            have_bytes: 0,
            lacking: layout.wanted().count(),
            layout,
            pieces: BTreeMap::new(),
            waiting: 0,
            gap_due: Time::NEVER,
            out: 0,
            fences: Fences::default(),
            check: Check::default(),
            trouble: None,
            recovering: false,
            retry: Vec::new(),
            closing: false,
            synced: false,
            spare: Spare::default(),
        }
    }

    /// Looks at the files, checks what must be checked, makes folders and empty files, and says
    /// [`PackageNews::Opened`]. Once only.
    pub fn open(&mut self, jobs: &mut Jobs) {
        if self.phase == Phase::New && !self.closing {
            self.phase = Phase::Looking;
            self.do_alone(Alone::Look, jobs);
        }
    }

    /// What it is doing.
    pub fn state(&self) -> PackageState {
        match (self.phase, &self.trouble) {
            (Phase::Closed, _) => PackageState::Closed,
            (_, Some(trouble)) => PackageState::Stopped(trouble.clone()),
            (Phase::New | Phase::Looking | Phase::Preparing, None) => PackageState::Opening,
            (Phase::Checking, None) => {
                PackageState::Checking { done: self.check.done, total: self.check.total }
            }
            (Phase::Ready, None) => PackageState::Ready,
        }
    }

    /// Whether [`Package::save`] takes Blocks.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && self.trouble.is_none() && !self.closing
    }

    /// Where bytes go.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The verified pieces.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Whether `piece` has bytes of a wanted file.
    pub fn wants(&self, piece: PieceIndex) -> bool {
        self.layout.piece_wanted(piece)
    }

    /// Verified bytes of wanted files.
    pub fn have_bytes(&self) -> u64 {
        self.have_bytes
    }

    /// Bytes of wanted files that are not verified.
    pub fn left_bytes(&self) -> u64 {
        self.layout.wanted_bytes() - self.have_bytes
    }

    /// Whether all that is wanted is verified.
    pub fn is_complete(&self) -> bool {
        self.lacking == 0
    }

    /// How `piece` stands.
    pub fn piece_facts(&self, piece: PieceIndex) -> PieceFacts {
        let (have, blocks) = (self.have.get(piece), self.layout.blocks(piece));
        let open = self.pieces.get(&piece).map_or(0, Piece::received);
        PieceFacts {
            have,
            wanted: self.wants(piece),
            len: self.layout.piece_len(piece),
            blocks,
            received: if have { blocks } else { open },
        }
    }

    /// The Blocks of open Pieces that are written; after [`PackageNews::Opened`], those found again.
    pub fn written_blocks(&self) -> impl Iterator<Item = BlockRef> + '_ {
        self.pieces
            .iter()
            .flat_map(|(index, piece)| self.layout.blocks_of(*index).filter(|at| piece.is_written(at.begin)))
    }

    /// Whether no Job is out, no Block waits and no fence is asked for: it may be moved to another shard.
    pub fn is_quiet(&self) -> bool {
        self.out == 0 && self.waiting == 0 && !self.fences.pending()
    }

    /// Takes one of [`Layout::blocks_of`] a Piece that is not had, filled to its length.
    pub fn save(&mut self, now: Time, at: BlockRef, buf: Buf, jobs: &mut Jobs) -> Result<(), Refused> {
        // What is here while all is looked at again may be gone, or had, afterwards.
        if self.phase != Phase::Ready || self.closing {
            return Err(Refused::NotNow(buf));
        }
        let known = self.pieces.get(&at.piece).is_some_and(|piece| piece.knows(at.begin));
        if known || self.have.get(at.piece) || self.fences.knows(at) {
            return Err(Refused::NotNeeded(buf));
        }
        if self.trouble.is_some() || !self.layout.is_block(at) || buf.len() != at.len {
            return Err(Refused::NotNow(buf));
        }
        if self.fences.pending() {
            self.fences.hold(Held::Save(at, buf));
            return Ok(());
        }
        let piece = self.pieces.entry(at.piece).or_insert_with(|| {
            self.spare.pieces.pop().unwrap_or_default().begin(self.layout.piece_len(at.piece))
        });
        piece.wait(at.begin, buf, now);
        self.waiting += 1;
        self.advance(now, at.piece, false, jobs);
        Ok(())
    }

    /// Reads up to [`BLOCK_LEN`] bytes of a Piece that is had; answered by one [`PackageNews::Loaded`]. Other bytes are
    /// refused, and the Buf is the caller's again.
    pub fn load(&mut self, at: BlockRef, into: Buf, ticket: u64, jobs: &mut Jobs) -> Result<(), Buf> {
        if !self.can_read(at) || at.len > BLOCK_LEN {
            return Err(into);
        }
        if self.fences.pending() {
            self.fences.hold(Held::Load(at, into, ticket));
            return Ok(());
        }
        let spans = self.spans(at);
        self.send(Job::Load(Load { at, spans, into, ticket }), jobs);
        Ok(())
    }

    /// Brings bytes of a Piece that is had, at most the whole Piece, into the page cache; answered by one
    /// [`PackageNews::Warmed`]. `false`, and no answer, if they do not lie in files alone, or too many such wait.
    pub fn warm(&mut self, at: BlockRef, ticket: u64, jobs: &mut Jobs) -> bool {
        if !self.can_read(at) {
            return false;
        }
        let spans = self.spans(at);
        if !Layout::in_files(&spans) {
            self.spare_spans(spans);
            return false;
        }
        if self.fences.pending() {
            self.spare_spans(spans);
            return self.fences.hold_warm(at, ticket);
        }
        self.send(Job::Warm(Warm { spans, ticket }), jobs);
        true
    }

    /// Where bytes of a Piece that is had lie, to be sent from there; appended to `spans`. `false`, and nothing
    /// appended, if they do not lie in files alone: then use [`Package::load`].
    pub fn file_spans(&self, at: BlockRef, spans: &mut Vec<Span>) -> bool {
        let before = spans.len();
        if self.can_read(at) {
            self.layout.spans(at.piece, at.begin, at.len, spans);
        }
        if !Layout::in_files(&spans[before..]) {
            spans.truncate(before);
        }
        spans.len() > before
    }

    /// `piece` could not be sent from its file: it is not had any more. Whether it was.
    pub fn unhave(&mut self, piece: PieceIndex) -> bool {
        self.put_have(piece, false)
    }

    /// To be called at [`Package::next_due`], and with `thirsty` when the pool runs dry: writes Blocks that
    /// waited too long behind a gap, or all that do.
    pub fn tick(&mut self, now: Time, thirsty: bool, jobs: &mut Jobs) {
        if self.fences.pending() || self.trouble.is_some() || (now < self.gap_due && !thirsty) {
            return;
        }
        self.gap_due = Time::NEVER;
        self.each_open(|package, index| {
            let since = package.pieces.get(&index).and_then(Piece::gap_since);
            let due = since.is_some_and(|since| since + GAP_WAIT <= now);
            package.advance(now, index, thirsty || due, jobs);
        });
    }

    /// When [`Package::tick`] has something to do.
    pub fn next_due(&self) -> Time {
        let idle = self.waiting == 0 || self.fences.pending() || self.trouble.is_some();
        if idle { Time::NEVER } else { self.gap_due }
    }

    /// Forgets all that is had and checks all that is there, when the Jobs that are out are done; as after
    /// [`Package::open`], until [`PackageNews::Opened`] Blocks are refused. The caller forgets with it what it thinks is
    /// had and received.
    pub fn recheck(&mut self, now: Time, jobs: &mut Jobs) {
        if self.closing || self.phase == Phase::New {
            return;
        }
        self.phase = Phase::Looking;
        self.start = Start::Recheck;
        let none = Bitfield::new(self.layout.piece_count());
        if !self.have.none() {
            self.check.claims = std::mem::replace(&mut self.have, none);
        }
        self.count();
        self.fences.void_saves();
        // It is made anew when all is looked at.
        self.retry.retain(|fence| !matches!(fence, Fence::Prepare { .. }));
        self.queue_alone(now, Alone::Look, jobs);
    }

    /// Does `fence` alone; answered by [`PackageNews::Fenced`], one for equal ones that wait together. Blocks that
    /// wait are written first. After `Close` or `Delete`, or once closing, nothing is taken any more.
    pub fn fence(&mut self, now: Time, fence: Fence, jobs: &mut Jobs) {
        if self.closing {
            return;
        }
        self.closing = matches!(fence, Fence::Close | Fence::Delete);
        self.queue_alone(now, Alone::Fence(fence), jobs);
    }

    /// Asks for facts to keep, made when no Job is out; answered by [`PackageNews::Facts`], never clean. Nothing while
    /// closing: [`Package::close`] makes its own.
    pub fn ask_facts(&mut self, now: Time, jobs: &mut Jobs) {
        if !self.closing {
            self.queue_alone(now, Alone::Facts(Occasion::Asked), jobs);
        }
    }

    /// Goes on after [`PackageNews::Trouble`], trying again what failed.
    pub fn resume_after_trouble(&mut self, now: Time, jobs: &mut Jobs) {
        if self.trouble.take().is_none() {
            return;
        }
        self.recovering = true;
        for fence in std::mem::take(&mut self.retry) {
            if !self.closing {
                self.queue_alone(now, Alone::Fence(fence), jobs);
            }
        }
        if !self.fences.pending() {
            self.each_open(|package, index| package.advance(now, index, false, jobs));
            self.check_more(jobs);
        }
    }

    /// Ends it: gives back Blocks of Pieces that are not full, finishes the others, makes facts, flushes
    /// (`Sync`), makes facts that are clean if that went well, and closes (`Close`). Ends with [`PackageNews::Fenced`] of `Close`.
    pub fn close(&mut self, now: Time, pool: &mut BlockPool, jobs: &mut Jobs) {
        if self.closing {
            return;
        }
        self.drop_waiting(pool, None, |piece| !piece.is_full());
        self.queue_alone(now, Alone::Facts(Occasion::Closing), jobs);
        self.queue_alone(now, Alone::Fence(Fence::Sync), jobs);
        self.queue_alone(now, Alone::Facts(Occasion::Flushed), jobs);
        self.closing = true;
        self.queue_alone(now, Alone::Fence(Fence::Close), jobs);
    }

    /// Ends it and deletes its files. Ends with [`PackageNews::Fenced`] of `Delete`.
    pub fn delete(&mut self, now: Time, pool: &mut BlockPool, jobs: &mut Jobs) {
        if self.closing {
            return;
        }
        self.closing = true;
        self.drop_waiting(pool, None, |_| true);
        self.fences.forget_queue();
        self.queue_alone(now, Alone::Fence(Fence::Delete), jobs);
    }

    /// Sends what `index` should do next, if it may. With `hurry`, Blocks behind a gap wait no longer.
    fn advance(&mut self, now: Time, index: PieceIndex, hurry: bool, jobs: &mut Jobs) {
        let Some(flushing) = self.fences.may_save() else { return };
        let Some(piece) = self.pieces.get_mut(&index).filter(|_| self.trouble.is_none()) else { return };
        let crowded = piece.waiting() >= PIECE_WAITING_BLOCKS || self.waiting >= PACKAGE_WAITING_BLOCKS;
        let job = match piece.step(hurry || flushing || crowded) {
            Step::Wait => {
                if let Some(since) = piece.gap_since() {
                    self.gap_due = self.gap_due.min(since + GAP_WAIT);
                }
                return;
            }
            Step::Save { blocks: count, hashed } => {
                let mut blocks = self.spare.blocks.pop().unwrap_or_default();
                let mut spans = self.spare.spans.pop().unwrap_or_default();
                let (range, hash) = piece.start_save(count, hashed, &mut blocks, now);
                self.waiting -= count;
                self.layout.spans(index, range.start, range.end - range.start, &mut spans);
                Job::Save(Save { piece: index, begin: range.start, blocks, spans, hash })
            }
            Step::Hash { end } => {
                let mut spans = self.spare.spans.pop().unwrap_or_default();
                let hash = piece.start_hash(end);
                self.layout.spans(index, hash.at(), end - hash.at(), &mut spans);
                Job::Hash(Hash { piece: index, spans, hash, idle: false })
            }
        };
        self.send(job, jobs);
    }

    fn send(&mut self, job: Job, jobs: &mut Jobs) {
        self.out += 1;
        jobs.push((self.torrent, job));
    }

    /// Calls `each` with every open Piece, of which it may remove the one it is given.
    fn each_open(&mut self, mut each: impl FnMut(&mut Package, PieceIndex)) {
        let mut next = self.pieces.keys().next().copied();
        while let Some(index) = next {
            each(self, index);
            let rest = self.pieces.range((Bound::Excluded(index), Bound::Unbounded));
            next = rest.map(|(index, _)| *index).next();
        }
    }

    /// Whether `at` can be read: had, inside its Piece, and the Package lives.
    fn can_read(&self, at: BlockRef) -> bool {
        !self.closing && self.have.get(at.piece) && self.layout.is_inside(at)
    }

    fn spans(&mut self, at: BlockRef) -> Vec<Span> {
        let mut spans = self.spare.spans.pop().unwrap_or_default();
        self.layout.spans(at.piece, at.begin, at.len, &mut spans);
        spans
    }

    fn spare_spans(&mut self, mut spans: Vec<Span>) {
        if self.spare.spans.len() < SPARES {
            spans.clear();
            self.spare.spans.push(spans);
        }
    }

    /// Whether that changed anything.
    fn put_have(&mut self, piece: PieceIndex, has: bool) -> bool {
        let changed = if has { self.have.set(piece) } else { self.have.unset(piece) };
        if changed && self.wants(piece) {
            let bytes = u64::from(self.layout.wanted_bytes_in(piece));
            if has {
                self.have_bytes += bytes;
                self.lacking -= 1;
            } else {
                self.have_bytes -= bytes;
                self.lacking += 1;
            }
        }
        changed
    }

    /// Counts anew what is had, by whichever is less: what is there or what is missing.
    fn count(&mut self) {
        let (layout, have) = (&self.layout, &self.have);
        let bytes = |piece| u64::from(layout.wanted_bytes_in(piece));
        self.have_bytes = if have.count() > have.pieces() / 2 {
            layout.wanted_bytes() - layout.wanted().iter_missing_in(have).map(bytes).sum::<u64>()
        } else {
            have.iter_ones().map(bytes).sum()
        };
        self.lacking = layout.wanted().iter_missing_in(have).count() as u32;
    }

    /// Gives back the Blocks that wait in Pieces of this kind, telling of each if there is someone to tell.
    fn drop_waiting(
        &mut self,
        pool: &mut BlockPool,
        mut news: Option<&mut Vec<PackageNews>>,
        which: impl Fn(&Piece) -> bool,
    ) {
        let dropped = &mut self.waiting;
        self.pieces.retain(|index, piece| {
            if which(piece) {
                for (begin, buf) in piece.drain() {
                    *dropped -= 1;
                    if let Some(news) = &mut news {
                        news.push(PackageNews::Lost(BlockRef { piece: *index, begin, len: buf.len() }));
                    }
                    pool.give_back(buf);
                }
            }
            !(piece.is_empty() && piece.is_idle())
        });
    }
}
