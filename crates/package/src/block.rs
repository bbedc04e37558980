//! The address of a Block.

use piecemeal_metainfo::PieceIndex;

/// What peers ask one another for at a time, in bytes (BEP 3: "All current implementations use 2^14").
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The address of a Block: up to [`BLOCK_LEN`] bytes of a Piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockRef {
    /// The piece it is part of.
    pub piece: PieceIndex,
    /// Where it begins in the piece, in bytes.
    pub begin: u32,
    /// How many bytes it has.
    pub len: u32,
}
