//! A set of pieces that finds its common members with a peer's bitfield quickly, however sparse either is.

use piecemeal_metainfo::{Bitfield, PieceIndex};

const BITS: usize = 64;

/// What a peer has.
#[derive(Clone, Copy, Debug)]
pub enum Has<'a> {
    /// Every piece: a seed, or a web seed.
    All,
    /// These.
    Bits(&'a Bitfield),
}

impl Has<'_> {
    pub(super) fn get(self, piece: u32) -> bool {
        match self {
            Has::All => true,
            Has::Bits(bits) => bits.get(PieceIndex(piece)),
        }
    }

    fn word(self, at: usize) -> u64 {
        match self {
            Has::All => u64::MAX,
            Has::Bits(bits) => bits.words().get(at).copied().unwrap_or(0),
        }
    }
}

/// Piece `i` is bit `i % 64` of word `i / 64`. Numbers beyond the end are never members.
#[derive(Clone, Debug)]
pub(super) struct Set {
    words: Vec<u64>,
    /// Bit `w` says that word `w` is not zero.
    summary: Vec<u64>,
    pieces: u32,
    ones: u32,
}

impl Set {
    pub(super) fn new(pieces: u32) -> Set {
        let words = (pieces as usize).div_ceil(BITS);
        Set { words: vec![0; words], summary: vec![0; words.div_ceil(BITS)], pieces, ones: 0 }
    }

    pub(super) fn full(pieces: u32) -> Set {
        let mut set = Set::new(pieces);
        fill(&mut set.words, pieces as usize);
        let words = set.words.len();
        fill(&mut set.summary, words);
        set.ones = pieces;
        set
    }

    pub(super) fn contains(&self, piece: u32) -> bool {
        piece < self.pieces && self.words[piece as usize / BITS] >> (piece as usize % BITS) & 1 == 1
    }

    /// Adds or removes `piece`; whether that changed anything.
    pub(super) fn put(&mut self, piece: u32, member: bool) -> bool {
        if piece >= self.pieces || self.contains(piece) == member {
            return false;
        }
        let at = piece as usize / BITS;
        self.words[at] ^= 1 << (piece as usize % BITS);
        if member {
            self.ones += 1;
            self.summary[at / BITS] |= 1 << (at % BITS);
        } else {
            self.ones -= 1;
            if self.words[at] == 0 {
                self.summary[at / BITS] &= !(1 << (at % BITS));
            }
        }
        true
    }

    pub(super) fn len(&self) -> u32 {
        self.ones
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// How many words there are, for [`Set::common`].
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    /// The members that `has` has too, ascending, from word `from` to before word `to`.
    pub(super) fn common<'a>(&'a self, has: Has<'a>, from: usize, to: usize) -> Common<'a> {
        Common { set: self, has, next: from, to: to.min(self.words.len()), base: 0, bits: 0 }
    }

    pub(super) fn iter(&self) -> Common<'_> {
        self.common(Has::All, 0, self.words.len())
    }

    /// Whether `has` has a member.
    pub(super) fn meets(&self, has: Has<'_>) -> bool {
        match has {
            Has::All => self.ones > 0,
            Has::Bits(bits) => {
                self.ones > 0 && bits.count() > 0 && self.common(has, 0, usize::MAX).next().is_some()
            }
        }
    }

    /// The first word at or after `from` that is not zero.
    fn next_word(&self, from: usize) -> Option<usize> {
        // Full words follow one another far more often than not.
        if *self.words.get(from)? != 0 {
            return Some(from);
        }
        let mut at = from / BITS;
        let mut word = self.summary[at] & (u64::MAX << (from % BITS));
        while word == 0 {
            at += 1;
            word = *self.summary.get(at)?;
        }
        Some(at * BITS + word.trailing_zeros() as usize)
    }
}

/// See [`Set::common`].
pub(super) struct Common<'a> {
    set: &'a Set,
    has: Has<'a>,
    next: usize,
    to: usize,
    base: usize,
    bits: u64,
}

impl Iterator for Common<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.bits == 0 {
            let at = self.set.next_word(self.next).filter(|at| *at < self.to)?;
            (self.base, self.next) = (at * BITS, at + 1);
            self.bits = self.set.words[at] & self.has.word(at);
        }
        let bit = self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(self.base as u32 + bit)
    }
}

fn fill(words: &mut [u64], bits: usize) {
    words.fill(u64::MAX);
    if let (Some(last), 1..) = (words.last_mut(), bits % BITS) {
        *last = (1 << (bits % BITS)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn full_is_full_and_new_is_empty() {
        for pieces in [0, 1, 63, 64, 65, 4_095, 4_096, 4_097, 10_000] {
            let (full, empty) = (Set::full(pieces), Set::new(pieces));
            assert!(full.iter().eq(0..pieces) && full.len() == pieces && !full.contains(pieces));
            assert!(empty.is_empty() && empty.iter().next().is_none());
            assert_eq!(full.meets(Has::All), pieces > 0);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            pieces in 1u32..9_000, ops in prop::collection::vec((0u32..9_100, any::<bool>()), 0..60),
            theirs in prop::collection::vec(0u32..9_000, 0..60), from in 0usize..150, to in 0usize..150,
        ) {
            let mut set = Set::new(pieces);
            let mut model = std::collections::BTreeSet::new();
            for (piece, member) in ops {
                let changed = piece < pieces && if member { model.insert(piece) } else { model.remove(&piece) };
                prop_assert_eq!(set.put(piece, member), changed);
            }
            let mut bits = Bitfield::new(pieces);
            theirs.iter().for_each(|piece| { bits.set(PieceIndex(*piece)); });
            model.iter().take(5).for_each(|piece| { bits.set(PieceIndex(*piece)); });
            prop_assert!(set.iter().eq(model.iter().copied()));
            let both: Vec<u32> = model.iter().copied().filter(|piece| bits.get(PieceIndex(*piece))).collect();
            prop_assert_eq!(set.meets(Has::Bits(&bits)), !both.is_empty());
            let range = from as u32 * 64..to as u32 * 64;
            let part: Vec<u32> = set.common(Has::Bits(&bits), from, to).collect();
            prop_assert_eq!(part, both.into_iter().filter(|piece| range.contains(piece)).collect::<Vec<_>>());
        }
    }
}
