//! The content of a torrent: Package, Pieces, Blocks, and the jobs it wants done on disk.
#![forbid(unsafe_code)]

mod block;
mod buf;
mod job;

pub use block::{BLOCK_LEN, BlockRef};
pub use buf::{BlockPool, Buf};
pub use job::{
    Done, Fence, FileStamp, Hash, Job, Load, PieceHash, Place, Save, Span, Stat, Trouble, TroubleKind, Warm,
};
