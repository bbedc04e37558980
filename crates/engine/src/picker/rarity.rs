//! How many copies of each piece the swarm has, and which of the pieces that could be opened is the one to open.
//!
//! Pieces that could be opened stand in `order`, sorted by copies: first unused places, then bucket 0, bucket 1, ...
//! One more copy moves a piece over one border, which is one swap. Since rare pieces stand near the front, taking
//! one out crosses few borders. Peers that have everything are counted in one number for all pieces.

use piecemeal_metainfo::PieceIndex;
use rand_core::Rng;

use super::set::{Has, Set};

/// Pieces asked for in the order of rarity before the words of the bitfields are searched instead. Enough for any peer
/// that has a hundredth of the rarest bucket.
const PROBES: u32 = 128;

/// Candidates compared when words are searched.
const COMPARED: u32 = 64;

/// A peer with more than one piece in this many is counted by sorting all anew, which then costs less than moving
/// pieces one by one.
const BULK: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Rarity {
    /// By piece: peers that have it, those with everything not counted.
    copies: Vec<u16>,
    /// Peers that have everything.
    everywhere: u32,
    /// Peers that do not.
    partial: u32,
    /// The pieces that could be opened.
    candidates: Set,
    order: Vec<u32>,
    /// By piece: where it stands in `order`, if it is a candidate.
    places: Vec<u32>,
    /// Where each bucket starts in `order`; each ends where the next starts, the last at the end.
    starts: Vec<u32>,
    /// `order`, `places` and `starts` are not kept and must be made anew before use.
    stale: bool,
}

impl Rarity {
    /// Every piece is a candidate, and there are no peers.
    pub(super) fn new(pieces: u32) -> Rarity {
        Rarity {
            copies: vec![0; pieces as usize],
            everywhere: 0,
            partial: 0,
            candidates: Set::full(pieces),
            order: Vec::new(),
            places: Vec::new(),
            starts: Vec::new(),
            stale: true,
        }
    }

    pub(super) fn peer_joined(&mut self, has: Has<'_>) {
        match has {
            Has::All => self.everywhere += 1,
            Has::Bits(bits) => {
                self.partial += 1;
                self.stale |= bits.count() > self.copies.len() as u32 / BULK;
                bits.iter_ones().for_each(|piece| self.more(piece.0));
            }
        }
    }

    pub(super) fn peer_left(&mut self, has: Has<'_>) {
        match has {
            Has::All => {
                debug_assert!(self.everywhere > 0, "a seed left that never joined");
                self.everywhere = self.everywhere.saturating_sub(1);
            }
            Has::Bits(bits) => {
                debug_assert!(self.partial > 0, "a peer left that never joined");
                self.partial = self.partial.saturating_sub(1);
                self.stale |= bits.count() > self.copies.len() as u32 / BULK;
                bits.iter_ones().for_each(|piece| self.fewer(piece.0));
            }
        }
    }

    /// A peer that has not everything got one more.
    pub(super) fn more(&mut self, piece: u32) {
        let Some(copies) = self.copies.get(piece as usize).copied().filter(|copies| *copies < u16::MAX)
        else {
            return;
        };
        if !self.stale && self.candidates.contains(piece) {
            self.shift_up(piece, copies as usize);
        }
        self.copies[piece as usize] = copies + 1;
    }

    /// A peer that has not everything lost one.
    pub(super) fn fewer(&mut self, piece: u32) {
        let copies = self.copies.get(piece as usize).copied().unwrap_or(0);
        debug_assert!(copies > 0, "a copy left that never came");
        if copies > 0 {
            if !self.stale && self.candidates.contains(piece) {
                self.shift_down(piece, copies as usize);
            }
            self.copies[piece as usize] = copies - 1;
        }
    }

    /// Whether `piece` could be opened.
    pub(super) fn set_candidate(&mut self, piece: u32, candidate: bool) {
        if !self.candidates.put(piece, candidate) || self.stale {
            return;
        }
        let copies = self.copies[piece as usize] as usize;
        if candidate {
            self.starts[0] -= 1;
            self.place(piece, self.starts[0]);
            (0..copies).for_each(|bucket| self.shift_up(piece, bucket));
        } else {
            (1..=copies).rev().for_each(|bucket| self.shift_down(piece, bucket));
            self.swap(piece, self.starts[0]);
            self.starts[0] += 1;
        }
    }

    pub(super) fn candidates(&self) -> &Set {
        &self.candidates
    }

    /// Peers that have `piece`.
    pub(super) fn copies(&self, piece: PieceIndex) -> u32 {
        self.copies.get(piece.at()).map_or(0, |copies| u32::from(*copies) + self.everywhere)
    }

    pub(super) fn peers(&self) -> u32 {
        self.everywhere + self.partial
    }

    /// Gives memory back that only picking needs; the next pick takes it again.
    pub(super) fn rest(&mut self) {
        (self.order, self.places, self.starts) = (Vec::new(), Vec::new(), Vec::new());
        self.stale = true;
    }

    /// The first candidate that `has` has.
    pub(super) fn first(&self, has: Has<'_>) -> Option<u32> {
        self.candidates.common(has, 0, usize::MAX).next()
    }

    /// One of the rarest candidates that `has` has.
    pub(super) fn rarest<R: Rng + ?Sized>(&mut self, rng: &mut R, has: Has<'_>) -> Option<u32> {
        self.refresh();
        // What nobody has, only one who has everything can have.
        let first = usize::from(matches!(has, Has::Bits(_)));
        self.choose(rng, has, first..self.starts.len(), |copies| copies)
    }

    /// A candidate that `has` has and about half of the peers have too, give or take an eighth: rare enough to be worth
    /// giving on, common enough to be had from several peers at once.
    pub(super) fn middling<R: Rng + ?Sized>(&mut self, rng: &mut R, has: Has<'_>) -> Option<u32> {
        self.refresh();
        let jitter = self.peers() / 8;
        let target =
            (self.peers() / 2 + below(rng, jitter * 2 + 1)).saturating_sub(jitter + self.everywhere) as usize;
        let target = target.min(self.starts.len().saturating_sub(1));
        let both_sides = (0..self.starts.len())
            .flat_map(|far| [target.checked_sub(far), (far > 0).then_some(target + far)])
            .flatten();
        self.choose(rng, has, both_sides, |copies| copies.abs_diff(target as u16))
    }

    /// A random candidate that `has` has, from the first of `buckets` that holds one; `rank` says the same of a single
    /// piece (less is better).
    fn choose<R: Rng + ?Sized>(
        &self,
        rng: &mut R,
        has: Has<'_>,
        buckets: impl Iterator<Item = usize>,
        rank: impl Fn(u16) -> u16,
    ) -> Option<u32> {
        if self.candidates.is_empty() {
            return None;
        }
        let mut probes = PROBES;
        'search: for bucket in buckets {
            let (start, end) = self.range(bucket);
            if start == end {
                continue;
            }
            let mut at = start + below(rng, end - start);
            for _ in start..end {
                let piece = self.order[at as usize];
                if has.get(piece) {
                    return Some(piece);
                }
                at = if at + 1 == end { start } else { at + 1 };
                probes -= 1;
                if probes == 0 {
                    break 'search;
                }
            }
        }
        let words = self.candidates.words();
        let middle = below(rng, words as u32) as usize;
        let around = self.candidates.common(has, middle, words).chain(self.candidates.common(has, 0, middle));
        around.take(COMPARED as usize).min_by_key(|piece| rank(self.copies[*piece as usize]))
    }

    /// Makes `order`, `places` and `starts` true again: a counting sort.
    fn refresh(&mut self) {
        if !self.stale {
            return;
        }
        self.stale = false;
        let pieces = self.copies.len();
        self.order.resize(pieces, 0);
        self.places.resize(pieces, 0);
        let copies_of = |piece: u32| self.copies[piece as usize] as usize;
        let buckets = self.candidates.iter().map(copies_of).max().map_or(1, |most| most + 1);
        self.starts.clear();
        self.starts.resize(buckets, 0);
        for piece in self.candidates.iter() {
            self.starts[copies_of(piece)] += 1;
        }
        let mut end = pieces as u32;
        for start in self.starts.iter_mut().rev() {
            end -= *start;
            *start = end;
        }
        // Each start walks to its bucket's end while pieces are placed, then all are set back by one bucket.
        for piece in self.candidates.iter() {
            let next = &mut self.starts[copies_of(piece)];
            self.order[*next as usize] = piece;
            self.places[piece as usize] = *next;
            *next += 1;
        }
        self.starts.rotate_right(1);
        self.starts[0] = end;
    }

    fn range(&self, bucket: usize) -> (u32, u32) {
        let end = self.order.len() as u32;
        let border = |at: usize| self.starts.get(at).copied().unwrap_or(end);
        (border(bucket), border(bucket + 1))
    }

    /// Moves `piece` from the end of `bucket` over the border into the next.
    fn shift_up(&mut self, piece: u32, bucket: usize) {
        if self.starts.len() == bucket + 1 {
            self.starts.push(self.order.len() as u32);
        }
        self.starts[bucket + 1] -= 1;
        self.swap(piece, self.starts[bucket + 1]);
    }

    /// Moves `piece` from the start of `bucket` over the border into the one before.
    fn shift_down(&mut self, piece: u32, bucket: usize) {
        self.swap(piece, self.starts[bucket]);
        self.starts[bucket] += 1;
    }

    fn swap(&mut self, piece: u32, place: u32) {
        let other = self.order[place as usize];
        let old = self.places[piece as usize];
        self.place(piece, place);
        self.place(other, old);
    }

    fn place(&mut self, piece: u32, place: u32) {
        self.order[place as usize] = piece;
        self.places[piece as usize] = place;
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        if self.stale {
            return;
        }
        let in_use = self.order.len() as u32 - self.starts[0];
        assert_eq!(in_use, self.candidates.len());
        assert!(self.starts.is_sorted() && *self.starts.last().unwrap() <= self.order.len() as u32);
        for bucket in 0..self.starts.len() {
            let (start, end) = self.range(bucket);
            for at in start..end {
                let piece = self.order[at as usize];
                assert!(self.candidates.contains(piece) && self.places[piece as usize] == at);
                assert_eq!(self.copies[piece as usize] as usize, bucket);
            }
        }
    }
}

/// An even random number below `end`; zero if there is none.
pub(super) fn below<R: Rng + ?Sized>(rng: &mut R, end: u32) -> u32 {
    ((u64::from(rng.next_u32()) * u64::from(end)) >> 32) as u32
}
