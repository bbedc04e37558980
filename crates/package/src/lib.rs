//! The content of a torrent: Package, Pieces, Blocks, and the jobs it wants done on disk.
#![forbid(unsafe_code)]

mod block;
mod buf;
mod facts;
mod job;
mod layout;
mod package;
#[cfg(test)]
mod test_kit;

pub use block::{BLOCK_LEN, BlockRef};
pub use buf::{BlockPool, Buf};
pub use facts::{FactsError, OpenPiece, ResumeFacts};
pub use job::{
    Done, Fence, FileStamp, Hash, Job, Load, PieceHash, Place, Save, Span, Stat, Trouble, TroubleKind, Warm,
};
pub use layout::Layout;
pub use package::{Jobs, Package, PackageNews, PackageState, PieceFacts, Refused, Start};
