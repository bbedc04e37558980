//! Which pieces of a torrent: a peer has, we have, we want.
//!
//! Owns the bits and their form on the wire (BEP 3, "bitfield": first piece in the highest bit). Inside they are
//! 64-bit words, lowest bit first, because scanning words is some hundred times faster than asking bit by bit.

use crate::PieceIndex;

const WORD_BITS: usize = 64;

/// A fixed number of bits, one a piece.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    /// Bits at and past `pieces` are zero.
    words: Vec<u64>,
    pieces: u32,
    ones: u32,
}

/// Why a peer's bitfield is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BitfieldError {
    /// Not one bit a piece, rounded up to bytes.
    #[error("bitfield: {got} bytes, but {want} are needed")]
    Length {
        /// Bytes that came.
        got: usize,
        /// Bytes that should have come.
        want: usize,
    },
    /// A bit past the last piece is set.
    #[error("bitfield: spare bits are set")]
    SpareBits,
}

impl Bitfield {
    /// No piece of `pieces`. The caller has bounded `pieces` by the metainfo.
    pub fn new(pieces: u32) -> Bitfield {
        Bitfield { words: vec![0; (pieces as usize).div_ceil(WORD_BITS)], pieces, ones: 0 }
    }

    /// Every piece of `pieces`.
    pub fn full(pieces: u32) -> Bitfield {
        let mut words = vec![u64::MAX; (pieces as usize).div_ceil(WORD_BITS)];
        let tail = pieces as usize % WORD_BITS;
        if let (Some(last), 1..) = (words.last_mut(), tail) {
            *last = (1 << tail) - 1;
        }
        Bitfield { words, pieces, ones: pieces }
    }

    /// From the payload of a `bitfield` message: the length must be exact and spare bits zero (BEP 3). Memory is
    /// taken only after the length was checked.
    pub fn from_wire(bytes: &[u8], pieces: u32) -> Result<Bitfield, BitfieldError> {
        let want = (pieces as usize).div_ceil(8);
        if bytes.len() != want {
            return Err(BitfieldError::Length { got: bytes.len(), want });
        }
        let spare = want * 8 - pieces as usize;
        if bytes.last().is_some_and(|last| last & ((1u16 << spare) - 1) as u8 != 0) {
            return Err(BitfieldError::SpareBits);
        }
        let word = |chunk: &[u8]| {
            let mut little = [0; 8];
            for (to, from) in little.iter_mut().zip(chunk) {
                *to = from.reverse_bits();
            }
            u64::from_le_bytes(little)
        };
        let words: Vec<u64> = bytes.chunks(8).map(word).collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Ok(Bitfield { words, pieces, ones })
    }

    /// The payload of a `bitfield` message.
    pub fn to_wire(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes()).map(u8::reverse_bits);
        bytes.take((self.pieces as usize).div_ceil(8)).collect()
    }

    /// How many pieces it speaks of.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Whether it has `piece`; false beyond the end.
    pub fn get(&self, piece: PieceIndex) -> bool {
        let word = self.words.get(piece.at() / WORD_BITS).copied().unwrap_or(0);
        word >> (piece.at() % WORD_BITS) & 1 == 1
    }

    /// Adds `piece`; whether that changed anything. Beyond the end nothing happens.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        let fresh = piece.0 < self.pieces && !self.get(piece);
        if fresh {
            self.words[piece.at() / WORD_BITS] |= 1 << (piece.at() % WORD_BITS);
            self.ones += 1;
        }
        fresh
    }

    /// Takes `piece` away; whether that changed anything.
    pub fn unset(&mut self, piece: PieceIndex) -> bool {
        let had = self.get(piece);
        if had {
            self.words[piece.at() / WORD_BITS] &= !(1 << (piece.at() % WORD_BITS));
            self.ones -= 1;
        }
        had
    }

    /// How many pieces it has. Constant time.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether it has every piece.
    pub fn all(&self) -> bool {
        self.ones == self.pieces
    }

    /// Whether it has no piece.
    pub fn none(&self) -> bool {
        self.ones == 0
    }

    /// The pieces it has, ascending.
    pub fn iter_ones(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| ones_of(at, *word))
    }

    /// The pieces it lacks, ascending.
    pub fn iter_zeros(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let words = self.words.iter().enumerate();
        words.flat_map(|(at, word)| ones_of(at, !*word)).take_while(|piece| piece.0 < self.pieces)
    }

    /// The bits, lowest first; bits past the last piece are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether it has something that `other` lacks: "is this peer interesting?".
    pub fn intersects_not(&self, other: &Bitfield) -> bool {
        let lacks = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(lacks).any(|(mine, theirs)| mine & !theirs != 0)
    }

    /// The pieces it has and `other` lacks, ascending.
    pub fn iter_missing_in<'a>(&'a self, other: &'a Bitfield) -> impl Iterator<Item = PieceIndex> + 'a {
        let lacks = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(lacks).enumerate().flat_map(|(at, (mine, theirs))| ones_of(at, mine & !theirs))
    }
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({} of {})", self.ones, self.pieces)
    }
}

fn ones_of(at: usize, mut word: u64) -> impl Iterator<Item = PieceIndex> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            PieceIndex((at * WORD_BITS) as u32 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_piece_is_the_highest_bit() {
        let field = Bitfield::from_wire(&[0b1010_0000, 0b0100_0000], 10).unwrap();
        assert_eq!(field.iter_ones().map(|p| p.0).collect::<Vec<_>>(), [0, 2, 9]);
        assert_eq!(field.to_wire(), [0b1010_0000, 0b0100_0000]);
    }

    #[test]
    fn length_is_exact_and_spare_bits_are_zero() {
        let length = |got, want| Err(BitfieldError::Length { got, want });
        assert_eq!(Bitfield::from_wire(&[0], 9), length(1, 2));
        assert_eq!(Bitfield::from_wire(&[0, 0, 0], 9), length(3, 2));
        assert_eq!(Bitfield::from_wire(&[0, 0x40], 9), Err(BitfieldError::SpareBits));
        assert_eq!(Bitfield::from_wire(&[0, 0x01], 9), Err(BitfieldError::SpareBits));
        assert!(Bitfield::from_wire(&[0, 0x80], 9).is_ok());
        assert!(Bitfield::from_wire(&[0xff], 8).unwrap().all());
        assert!(Bitfield::from_wire(&[], 0).unwrap().all());
    }

    #[test]
    fn full_is_full() {
        for pieces in [0, 1, 7, 8, 63, 64, 65, 200] {
            let full = Bitfield::full(pieces);
            assert!(full.all() && full.count() == pieces && full.iter_zeros().next().is_none());
            assert_eq!(Bitfield::from_wire(&full.to_wire(), pieces).unwrap(), full);
            assert_eq!(Bitfield::new(pieces).iter_zeros().count(), pieces as usize);
        }
    }

    #[test]
    fn beyond_the_end_is_nothing() {
        let mut field = Bitfield::new(5);
        for piece in [5, 63, 64, u32::MAX] {
            assert!(!field.set(PieceIndex(piece)) && !field.get(PieceIndex(piece)));
            assert!(!field.unset(PieceIndex(piece)));
        }
        assert!(field.none());
        assert!(Bitfield::full(70).intersects_not(&Bitfield::full(5)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_bools(bits in proptest::collection::vec(any::<bool>(), 0..300),
                                       flips in proptest::collection::vec(0u32..300, 0..50)) {
            let mut model = bits.clone();
            let mut field = Bitfield::new(bits.len() as u32);
            for (at, bit) in bits.iter().enumerate() {
                prop_assert_eq!(*bit && field.set(PieceIndex(at as u32)), *bit);
            }
            for flip in flips {
                let Some(bit) = model.get_mut(flip as usize) else { continue };
                *bit = !*bit;
                let piece = PieceIndex(flip);
                let changed = if *bit { field.set(piece) } else { field.unset(piece) };
                prop_assert!(changed);
            }
            let again = Bitfield::from_wire(&field.to_wire(), field.pieces()).unwrap();
            prop_assert_eq!(&again, &field);
            let ones: Vec<u32> = (0..).zip(&model).filter(|(_, bit)| **bit).map(|(at, _)| at).collect();
            prop_assert_eq!(field.iter_ones().map(|p| p.0).collect::<Vec<_>>(), ones.clone());
            prop_assert_eq!(field.count() as usize, ones.len());
            let first = Bitfield::from_wire(&{
                let mut half = Bitfield::new(field.pieces());
                ones.iter().step_by(2).for_each(|p| { half.set(PieceIndex(*p)); });
                half.to_wire()
            }, field.pieces()).unwrap();
            prop_assert_eq!(field.intersects_not(&first), ones.len() > 1);
            prop_assert!(!first.intersects_not(&field));
            let missing: Vec<u32> = field.iter_missing_in(&first).map(|p| p.0).collect();
            prop_assert_eq!(missing, ones.iter().copied().skip(1).step_by(2).collect::<Vec<_>>());
        }
    }
}
