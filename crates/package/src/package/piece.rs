//! A Piece that is being put together.
//!
//! Owns which of its Blocks are written, which wait, how far its hash has come, and whether a Job is out for it. It
//! decides what is to be done next ([`Piece::step`]); the Package does it.

use std::ops::Range;

use piecemeal_metainfo::Time;

use crate::{BLOCK_LEN, Buf, PieceHash};

/// Blocks of one Save at most: 1 MiB, what a runner writes with one call, and a millisecond of hashing.
const SAVE_BLOCKS: usize = 64;
const WORD_BITS: u32 = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// In bytes.
    len: u32,
    /// A bit a Block, lowest first.
    written: Vec<u64>,
    /// How many of them are set.
    written_blocks: u32,
    /// Blocks by where they begin, ascending. Bounded by the Blocks of a Piece, and by the pool.
    waiting: Vec<(u32, Buf)>,
    /// Stands where the next Block must begin to continue it; meaningless while it travels.
    hash: PieceHash,
    out: Out,
    /// When the first of those that wait came, or Blocks last left.
    since: Time,
}

/// The Job that is out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Out {
    #[default]
    Nothing,
    /// These bytes are being written.
    Save(Range<u32>),
    /// Bytes up to here are being read back and hashed.
    Hash(u32),
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing: a Job is out, or Blocks are missing.
    Wait,
    /// Write the first `blocks` that wait; if `hashed`, they continue the hash.
    Save { blocks: usize, hashed: bool },
    /// Read back from where the hash stands to `end`.
    Hash { end: u32 },
}

impl Piece {
    /// Of `len` bytes, with nothing in it; `self` is one that was [`Piece::is_idle`], and its memory is used again.
    pub(super) fn begin(mut self, len: u32) -> Piece {
        debug_assert!(self.is_idle());
        self.len = len;
        self.written.clear();
        self.written.resize(len.div_ceil(BLOCK_LEN).div_ceil(WORD_BITS) as usize, 0);
        self.written_blocks = 0;
        self.hash = PieceHash::default();
        self
    }

    /// As after a [`Piece::begin`] of `len` bytes and these Blocks having been written unhashed.
    pub(super) fn restore(self, len: u32, written: &[u64]) -> Piece {
        let mut piece = self.begin(len);
        for block in 0..len.div_ceil(BLOCK_LEN) {
            let (word, bit) = ((block / WORD_BITS) as usize, 1 << (block % WORD_BITS));
            if written.get(word).is_some_and(|word| word & bit != 0) {
                piece.written[word] |= bit;
                piece.written_blocks += 1;
            }
        }
        piece
    }

    /// A bit a Block that is written, lowest first.
    pub(super) fn written(&self) -> &[u64] {
        &self.written
    }

    /// No Block waits and no Job is out.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.out == Out::Nothing
    }

    /// Whether the Block at `begin` is here already, in whatever state.
    pub(super) fn knows(&self, begin: u32) -> bool {
        let leaving = matches!(&self.out, Out::Save(range) if range.contains(&begin));
        leaving || self.is_written(begin) || self.place_of(begin).is_ok()
    }

    /// Takes a Block that is not known.
    pub(super) fn wait(&mut self, begin: u32, buf: Buf, now: Time) {
        if self.waiting.is_empty() {
            self.since = now;
        }
        let (Ok(at) | Err(at)) = self.place_of(begin);
        self.waiting.insert(at, (begin, buf));
    }

    /// How many Blocks wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Since when Blocks wait behind a gap.
    pub(super) fn gap_since(&self) -> Option<Time> {
        (self.out == Out::Nothing && !self.waiting.is_empty()).then_some(self.since)
    }

    /// How many Blocks are written, being written or waiting.
    pub(super) fn received(&self) -> u32 {
        let leaving = match &self.out {
            Out::Save(range) => (range.end - range.start).div_ceil(BLOCK_LEN),
            _ => 0,
        };
        self.written_blocks + leaving + self.waiting.len() as u32
    }

    /// Whether every Block is written, being written or waiting.
    pub(super) fn is_full(&self) -> bool {
        self.received() == self.len.div_ceil(BLOCK_LEN)
    }

    /// Whether not one Block of it is here.
    pub(super) fn is_empty(&self) -> bool {
        self.received() == 0
    }

    /// What to do next. With `hurry`, Blocks behind a gap wait no longer, and are written unhashed.
    ///
    /// Where the hash stands before Blocks that were written unhashed, and the next one waits right behind them, they
    /// are read back at once: it is a little now, or all the rest of the Piece later.
    pub(super) fn step(&self, hurry: bool) -> Step {
        if self.out != Out::Nothing {
            return Step::Wait;
        }
        let at = self.hash.at();
        let first = self.waiting.first().map(|(begin, _)| *begin);
        if first == Some(at) {
            return Step::Save { blocks: self.run(), hashed: true };
        }
        if self.is_written(at) {
            let end = self.written_until(at);
            if end == self.len || (first == Some(end) && !hurry) {
                return Step::Hash { end };
            }
        }
        if first.is_some() && hurry {
            return Step::Save { blocks: self.run(), hashed: false };
        }
        Step::Wait
    }

    /// Moves the first `blocks` that wait to `into`; they are out until [`Piece::saved`] or [`Piece::failed`].
    pub(super) fn start_save(
        &mut self,
        blocks: usize,
        hashed: bool,
        into: &mut Vec<Buf>,
        now: Time,
    ) -> (Range<u32>, Option<PieceHash>) {
        let begin = self.waiting.first().map_or(0, |(begin, _)| *begin);
        let mut end = begin;
        into.extend(self.waiting.drain(..blocks).map(|(_, buf)| {
            end += buf.len();
            buf
        }));
        self.since = now;
        self.out = Out::Save(begin..end);
        (begin..end, hashed.then(|| std::mem::take(&mut self.hash)))
    }

    /// Gives the hash away to be fed; it is out until [`Piece::hashed`] or [`Piece::failed`].
    pub(super) fn start_hash(&mut self, end: u32) -> PieceHash {
        self.out = Out::Hash(end);
        std::mem::take(&mut self.hash)
    }

    /// The Save that was out is written.
    pub(super) fn saved(&mut self, hash: Option<PieceHash>) {
        let Out::Save(range) = std::mem::take(&mut self.out) else { return };
        for begin in range.clone().step_by(BLOCK_LEN as usize) {
            let block = begin / BLOCK_LEN;
            self.written[(block / WORD_BITS) as usize] |= 1 << (block % WORD_BITS);
            self.written_blocks += 1;
        }
        if let Some(hash) = hash {
            // A hash that stands elsewhere is not to be believed; then the Piece is read back from its start.
            self.hash = if hash.at() == range.end { hash } else { PieceHash::default() };
        }
    }

    /// The Hash that was out has been fed.
    pub(super) fn hashed(&mut self, hash: PieceHash) {
        if std::mem::take(&mut self.out) == Out::Hash(hash.at()) {
            self.hash = hash;
        }
    }

    /// The Job that was out failed: its bytes, which are returned, are not here any more, and the hash, which
    /// may have taken some of them, begins anew.
    pub(super) fn failed(&mut self) -> Range<u32> {
        self.hash = PieceHash::default();
        match std::mem::take(&mut self.out) {
            Out::Save(range) => range,
            _ => 0..0,
        }
    }

    /// Takes out all Blocks that wait.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (u32, Buf)> + '_ {
        self.waiting.drain(..)
    }

    /// The digest, once all is written and hashed.
    pub(super) fn digest(&self) -> Option<[u8; 20]> {
        let finished = self.out == Out::Nothing && self.hash.at() == self.len;
        finished.then(|| self.hash.clone().finish())
    }

    /// Whether the Block at `begin` is written.
    pub(super) fn is_written(&self, begin: u32) -> bool {
        let block = begin / BLOCK_LEN;
        begin < self.len && self.written[(block / WORD_BITS) as usize] >> (block % WORD_BITS) & 1 == 1
    }

    /// How many of those that wait follow one another.
    fn run(&self) -> usize {
        let pairs = self.waiting.windows(2).take(SAVE_BLOCKS - 1);
        1 + pairs.take_while(|pair| pair[0].0 + BLOCK_LEN == pair[1].0).count()
    }

    fn place_of(&self, begin: u32) -> Result<usize, usize> {
        // Blocks mostly come in order.
        match self.waiting.last() {
            Some((last, _)) if *last < begin => Err(self.waiting.len()),
            _ => self.waiting.binary_search_by_key(&begin, |(begin, _)| *begin),
        }
    }

    /// The end of the written Blocks that begin at `begin`.
    fn written_until(&self, begin: u32) -> u32 {
        let mut block = begin / BLOCK_LEN;
        while let Some(word) = self.written.get((block / WORD_BITS) as usize) {
            let ones = (word >> (block % WORD_BITS)).trailing_ones();
            block += ones;
            if ones == 0 || !block.is_multiple_of(WORD_BITS) {
                break;
            }
        }
        block.saturating_mul(BLOCK_LEN).min(self.len)
    }
}
