//! What to believe when a Package opens, and checking the rest.
//!
//! Owns the judgement over old facts and present files, and the pieces still to be checked. By file:
//!
//! | facts | the file now | its pieces |
//! |---|---|---|
//! | say the same length, time and inode | unchanged | as the facts say; of an unclean end before this boot: the claimed ones are checked |
//! | say otherwise, or the user wants other files now | there | all are checked, so that work after the last facts is found again |
//! | none | there | all are checked |
//! | any | missing, empty, or too short | not had, not checked |
//!
//! A Piece over several places is as its worst place. Pieces that nobody wants are checked only if they were claimed:
//! the part file is sparse, and reading its holes would take as long as reading the torrent.

use piecemeal_metainfo::{Bitfield, PieceIndex};

use super::fence::Alone;
use super::piece::Piece;
use super::{Jobs, Package, PackageNews, Phase, Start};
use crate::{
    BlockPool, Fence, FileStamp, Hash, Job, Layout, OpenPiece, PieceHash, Place, ResumeFacts, Span, Trouble,
    TroubleKind,
};

/// Checks out at once: enough that a device has the next to read while one is hashed, on two threads.
const CHECKS_OUT: usize = 4;

/// Pieces to be checked.
#[derive(Debug)]
pub(super) struct Check {
    todo: Bitfield,
    /// None to do before this one.
    cursor: u32,
    /// At most [`CHECKS_OUT`].
    out: Vec<PieceIndex>,
    pub(super) done: u32,
    pub(super) total: u32,
    /// What was had before a recheck.
    pub(super) claims: Bitfield,
}

impl Default for Check {
    fn default() -> Check {
        let none = || Bitfield::new(0);
        Check { todo: none(), cursor: 0, out: Vec::new(), done: 0, total: 0, claims: none() }
    }
}

impl Check {
    /// Whether a Hash of `piece` is a check's.
    pub(super) fn is_out(&self, piece: PieceIndex) -> bool {
        self.out.contains(&piece)
    }

    fn is_over(&self) -> bool {
        self.todo.none() && self.out.is_empty()
    }

    fn next(&mut self) -> Option<PieceIndex> {
        let words = self.todo.words();
        let at = (self.cursor / 64) as usize;
        let found = words.iter().enumerate().skip(at).find(|(_, word)| **word != 0)?;
        let piece = PieceIndex(found.0 as u32 * 64 + found.1.trailing_zeros());
        self.cursor = piece.0;
        self.todo.unset(piece);
        self.out.push(piece);
        Some(piece)
    }

    fn again(&mut self, piece: PieceIndex) {
        self.todo.set(piece);
        self.cursor = self.cursor.min(piece.0);
    }
}

impl Package {
    /// The files were looked at.
    pub(super) fn looked(&mut self, stamps: &[FileStamp], jobs: &mut Jobs) {
        let facts = self.facts.take();
        let before = std::mem::take(&mut self.check).claims;
        let sight = Sight {
            layout: &self.layout,
            stamps,
            facts: facts.as_deref().filter(|_| self.start == Start::Resume),
            claims: facts.as_deref().map_or(&before, |facts| &facts.have),
        };
        let (have, todo) = match self.start {
            Start::Trust => (sight.all_there(), Bitfield::new(0)),
            Start::Resume | Start::Recheck => sight.judge(&self.boot),
        };
        self.begun = if sight.believes(&self.boot) { sight.begun() } else { Vec::new() };
        self.check = Check { total: todo.count(), todo, ..Check::default() };
        self.have = have;
        self.count();
        self.phase = Phase::Checking;
        if self.check.is_over() {
            self.prepare(jobs);
        }
    }

    /// Sends checks, as many as may be out.
    pub(super) fn check_more(&mut self, jobs: &mut Jobs) {
        if self.phase != Phase::Checking || self.closing || self.trouble.is_some() || self.fences.pending() {
            return;
        }
        while self.check.out.len() < CHECKS_OUT {
            let Some(piece) = self.check.next() else { return };
            let mut spans = self.spare.spans.pop().unwrap_or_default();
            self.layout.spans(piece, 0, self.layout.piece_len(piece), &mut spans);
            self.send(Job::Hash(Hash { piece, spans, hash: PieceHash::default(), idle: true }), jobs);
        }
    }

    /// A check came back.
    pub(super) fn checked(
        &mut self,
        piece: PieceIndex,
        hash: PieceHash,
        result: Result<(), Trouble>,
        pool: &mut BlockPool,
        jobs: &mut Jobs,
        news: &mut Vec<PackageNews>,
    ) {
        self.check.out.retain(|out| *out != piece);
        if self.phase != Phase::Checking {
            // It is all to be looked at again.
            return;
        }
        let good = match result {
            Ok(()) => {
                self.worked(news);
                let whole = hash.at() == self.layout.piece_len(piece);
                whole && Some(hash.finish()) == self.layout.meta().piece_hash_v1(piece)
            }
            // Content that is cut short or unreadable is to be fetched again.
            Err(Trouble { kind: TroubleKind::Missing | TroubleKind::Io, .. }) => false,
            Err(trouble) => {
                self.check.again(piece);
                self.stop(trouble, pool, news);
                return;
            }
        };
        self.check.done += 1;
        if good {
            self.put_have(piece, true);
        }
        news.push(PackageNews::Checked { piece, good });
        if self.check.is_over() {
            news.push(PackageNews::CheckedAll);
            self.prepare(jobs);
        }
    }

    fn prepare(&mut self, jobs: &mut Jobs) {
        self.check = Check::default();
        self.phase = Phase::Preparing;
        if !self.closing {
            let wanted = self.layout.wanted_files().clone();
            self.do_alone(Alone::Fence(Fence::Prepare { wanted }), jobs);
        }
    }

    /// Goes on with Pieces that were begun before this run.
    pub(super) fn find_begun(&mut self) {
        for OpenPiece { piece, written } in std::mem::take(&mut self.begun) {
            if !self.have.get(piece) && self.wants(piece) {
                let found = Piece::default().restore(self.layout.piece_len(piece), &written);
                self.pieces.insert(piece, found);
            }
        }
        self.pieces.retain(|_, piece| !piece.is_empty());
    }

    fn open_now(&self) -> Vec<OpenPiece> {
        let written = self.pieces.iter().filter(|(_, piece)| piece.written().iter().any(|word| *word != 0));
        written.map(|(piece, open)| OpenPiece { piece: *piece, written: open.written().to_vec() }).collect()
    }

    /// Facts as of now.
    pub(super) fn facts_now(&mut self, stamps: Vec<FileStamp>) -> ResumeFacts {
        if let (Phase::New, Some(facts)) = (self.phase, &self.facts) {
            return ResumeFacts::clone(facts);
        }
        let files = self.layout.meta().files().len();
        let settled = matches!(self.phase, Phase::Preparing | Phase::Ready) && stamps.len() == files + 1;
        ResumeFacts {
            info_hash: self.layout.meta().wire_hash(),
            have: self.have.clone(),
            stamps: if settled { stamps } else { vec![FileStamp::default(); files + 1] },
            open: if settled { self.open_now() } else { self.begun.clone() },
            wanted: (0..files).map(|at| self.layout.wanted_files().get(at) == Some(&true)).collect(),
            uploaded: self.totals.0,
            downloaded: self.totals.1,
            clean: settled && self.closing && self.synced,
            boot: self.boot,
        }
    }
}

/// What is in sight when judging.
struct Sight<'a> {
    layout: &'a Layout,
    stamps: &'a [FileStamp],
    /// To be believed of files that did not change.
    facts: Option<&'a ResumeFacts>,
    /// What was had at some time.
    claims: &'a Bitfield,
}

/// How a place is, or the worst place of a Piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Look {
    Same,
    Changed,
    Gone,
}

impl Sight<'_> {
    /// What is had, and what is to be checked.
    fn judge(&self, boot: &[u8; 16]) -> (Bitfield, Bitfield) {
        let pieces = self.layout.piece_count();
        let (mut have, mut check) = (Bitfield::new(pieces), Bitfield::new(pieces));
        let believed = self.believes(boot);
        let (best, worst) = self.extremes();
        match self.facts {
            _ if best == Look::Gone => return (have, check),
            Some(facts) if worst == Look::Same && believed => return (facts.have.clone(), check),
            _ => {}
        }
        let mut spans = Vec::new();
        for piece in (0..pieces).map(PieceIndex) {
            let claimed = self.claims.get(piece);
            if !claimed && !self.layout.piece_wanted(piece) {
                continue;
            }
            match self.piece(piece, &mut spans) {
                Look::Same if claimed && believed => have.set(piece),
                Look::Same if claimed => check.set(piece),
                Look::Changed => check.set(piece),
                Look::Same | Look::Gone => false,
            };
        }
        (have, check)
    }

    /// Whether all that was written before the facts were made has reached the disk, or is still in memory.
    fn believes(&self, boot: &[u8; 16]) -> bool {
        self.facts.is_some_and(|facts| facts.clean || facts.boot == *boot)
    }

    /// Of the Pieces that were begun, the Blocks that are still there.
    fn begun(&self) -> Vec<OpenPiece> {
        let same_places = |facts: &&ResumeFacts| facts.wanted[..] == self.layout.wanted_files()[..];
        let Some(facts) = self.facts.filter(same_places) else { return Vec::new() };
        let mut spans = Vec::new();
        let mut open = facts.open.clone();
        for OpenPiece { piece, written } in &mut open {
            for (block, at) in self.layout.blocks_of(*piece).enumerate() {
                spans.clear();
                self.layout.spans(*piece, at.begin, at.len, &mut spans);
                let mut real = spans.iter().filter(|span| span.place != Place::Pad);
                if let Some(word) = written.get_mut(block / 64)
                    && !real.all(|span| self.span(span) != Look::Gone)
                {
                    *word &= !(1 << (block % 64));
                }
            }
        }
        open
    }

    /// Wanted pieces that are there by the length of files.
    fn all_there(&self) -> Bitfield {
        let mut have = Bitfield::new(self.layout.piece_count());
        let mut spans = Vec::new();
        for piece in self.layout.wanted().iter_ones() {
            if self.piece(piece, &mut spans) != Look::Gone {
                have.set(piece);
            }
        }
        have
    }

    fn piece(&self, piece: PieceIndex, spans: &mut Vec<Span>) -> Look {
        spans.clear();
        self.layout.spans(piece, 0, self.layout.piece_len(piece), spans);
        let looks = spans.iter().filter(|span| span.place != Place::Pad).map(|span| self.span(span));
        looks.max().unwrap_or(Look::Same)
    }

    fn span(&self, span: &Span) -> Look {
        let there = self.stamp(span.place).len.is_some_and(|len| span.offset + u64::from(span.len) <= len);
        if there { self.place(span.place) } else { Look::Gone }
    }

    /// The best and the worst of all places that have bytes.
    fn extremes(&self) -> (Look, Look) {
        let files = self.layout.meta().files().iter().zip(0..);
        let own = files.filter(|(file, at)| {
            file.length > 0 && !file.pad && self.layout.wanted_files().get(*at as usize) == Some(&true)
        });
        let places = own.map(|(_, at)| Place::File(piecemeal_metainfo::FileIndex(at)));
        let part = self.layout.has_part().then_some(Place::Part);
        places
            .chain(part)
            .map(|place| self.place(place))
            .fold((Look::Gone, Look::Same), |(best, worst), look| (best.min(look), worst.max(look)))
    }

    fn place(&self, place: Place) -> Look {
        let now = self.stamp(place);
        if now.len.unwrap_or(0) == 0 {
            return Look::Gone;
        }
        let wanted = self.layout.wanted_files();
        let same = self.facts.is_some_and(|facts| {
            let before = facts.stamps.get(self.index(place)).copied().unwrap_or_default();
            let placed_so = match place {
                // What lies in the part file depends on all that is wanted.
                Place::Part => facts.wanted[..] == wanted[..],
                Place::File(file) => facts.wanted.get(file.at()) == Some(&true),
                Place::Pad => true,
            };
            placed_so && before == now
        });
        if same { Look::Same } else { Look::Changed }
    }

    fn stamp(&self, place: Place) -> FileStamp {
        self.stamps.get(self.index(place)).copied().unwrap_or_default()
    }

    /// Of `place` among stamps: the part file comes behind all files.
    fn index(&self, place: Place) -> usize {
        match place {
            Place::File(file) => file.at(),
            Place::Part | Place::Pad => self.layout.meta().files().len(),
        }
    }
}
