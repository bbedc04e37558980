//! Which content is believed to lie in the page cache, so that sending it does not wait for the disk.
//!
//! Owns stretches that were brought in lately, and those on their way with who waits for them. What is warm is guessed
//! from the time alone: a wrong guess costs a read in the loop, not a wrong byte.

use std::collections::BTreeMap;
use std::time::Duration;

use piecemeal_metainfo::{PieceIndex, Time};
use piecemeal_package::BlockRef;

use crate::cx::ConnId;

/// What is brought in at once, in bytes: a disk reads it about as fast as a few Blocks.
const STRETCH_BYTES: u32 = 1 << 20;
/// A stretch counts as warm for so long after its last use (a guess).
const WARM_FOR: Duration = Duration::from_secs(30);
/// Stretches remembered: 4 GiB of content. Beyond that the oldest are forgotten.
const MOST: usize = 4096;

#[derive(Debug)]
enum State {
    Coming(Vec<ConnId>),
    Warm(Time),
}

/// What is to be done before a Block can be sent from its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Warmed {
    /// Nothing.
    Ready,
    /// It is on its way; the asker will be named by [`Warmth::came`].
    Wait,
    /// Bring this in, under this mark, then as `Wait`.
    Bring(BlockRef, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    stretches: BTreeMap<(PieceIndex, u32), State>,
    on_their_way: BTreeMap<u64, (PieceIndex, u32)>,
    next: u64,
}

impl Warmth {
    /// Whether the Block `at` can be sent for `who`; `piece_len` is the length of its piece.
    pub(super) fn ask(&mut self, now: Time, who: ConnId, at: BlockRef, piece_len: u32) -> Warmed {
        // A Block that crosses into the next stretch is judged by its first byte: the disk reads ahead.
        let key = (at.piece, at.begin / STRETCH_BYTES);
        match self.stretches.get_mut(&key) {
            Some(State::Warm(used)) if now.since(*used) < WARM_FOR => {
                *used = now;
                return Warmed::Ready;
            }
            Some(State::Coming(waiting)) => {
                if !waiting.contains(&who) {
                    waiting.push(who);
                }
                return Warmed::Wait;
            }
            _ => {}
        }
        if self.stretches.len() >= MOST {
            self.stretches.retain(|_, state| match state {
                State::Coming(_) => true,
                State::Warm(used) => now.since(*used) < WARM_FOR / 2,
            });
        }
        self.next += 1;
        self.on_their_way.insert(self.next, key);
        self.stretches.insert(key, State::Coming(vec![who]));
        let begin = key.1 * STRETCH_BYTES;
        let len = (piece_len - begin).min(STRETCH_BYTES);
        Warmed::Bring(BlockRef { piece: at.piece, begin, len }, self.next)
    }

    /// The Block `at` may not be there after all.
    pub(super) fn forget(&mut self, at: BlockRef) {
        let key = (at.piece, at.begin / STRETCH_BYTES);
        if let Some(State::Warm(_)) = self.stretches.get(&key) {
            self.stretches.remove(&key);
        }
    }

    /// What was brought in under this mark is there, or could not be read; returns the piece and who waited.
    pub(super) fn came(&mut self, now: Time, mark: u64, good: bool) -> Option<(PieceIndex, Vec<ConnId>)> {
        let key = self.on_their_way.remove(&mark)?;
        let before =
            if good { self.stretches.insert(key, State::Warm(now)) } else { self.stretches.remove(&key) };
        let Some(State::Coming(waiting)) = before else { return None };
        Some((key.0, waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(1), begin, len: 16 * 1024 }
    }

    #[test]
    fn brought_in_once_then_warm_for_a_while() {
        let mut warmth = Warmth::default();
        let (now, len) = (Time::ZERO, (1 << 20) + 5000);
        let Warmed::Bring(what, mark) = warmth.ask(now, ConnId(1), at(32 * 1024), len) else { panic!() };
        assert_eq!((what.begin, what.len), (0, 1 << 20));
        assert_eq!(warmth.ask(now, ConnId(2), at(0), len), Warmed::Wait);
        assert_eq!(warmth.ask(now, ConnId(2), at(16 * 1024), len), Warmed::Wait);
        assert_eq!(warmth.came(now, mark, true), Some((PieceIndex(1), vec![ConnId(1), ConnId(2)])));
        assert_eq!(warmth.came(now, mark, true), None);
        assert_eq!(warmth.ask(now, ConnId(2), at(0), len), Warmed::Ready);
        warmth.forget(at(5));
        let Warmed::Bring(_, mark) = warmth.ask(now, ConnId(2), at(0), len) else { panic!() };
        assert!(warmth.came(now, mark, true).is_some());
        let later = now + WARM_FOR;
        let Warmed::Bring(_, mark) = warmth.ask(later, ConnId(2), at(0), len) else { panic!() };
        assert!(warmth.came(later, mark, false).is_some());
        let Warmed::Bring(rest, _) = warmth.ask(now, ConnId(1), at(1 << 20), len) else { panic!() };
        assert_eq!((rest.begin, rest.len), (1 << 20, 5000));
    }
}
