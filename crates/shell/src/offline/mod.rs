//! Work on content without a swarm: making and verifying torrents on all cores.
//!
//! Owns the reading of content for that, and of what there is to make a torrent of. Which files go into a torrent, in
//! what order and how it is written is `metainfo::create`'s; what a torrent says is [`Metainfo`]'s. All of it blocks,
//! on the caller's thread and as many more as it was allowed.
//!
//! Memory: half a megabyte a thread, and the hashes.
//!
//! [`Metainfo`]: piecemeal_metainfo::Metainfo

mod make;
mod scan;
mod sheet;
#[cfg(test)]
mod tests;
mod verify;

pub use make::make;
pub use scan::{ScanOptions, Scanned, Symlinks, Warning, scan};
pub use verify::{FileVerdict, Found, Verdict, verify};

use piecemeal_metainfo::create::CreateError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Called now and then, by any worker, with the bytes of content done so far. The last call has all of them. Two
/// workers may call at once, so that a smaller number may come after a larger.
pub type Progress<'a> = dyn Fn(u64) + Sync + 'a;

/// Why nothing came of it. One line, which names the file.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A file or directory that can not be read.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A file that did not stay as it was while it was read.
    #[error("{}: changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Something that can not be in a torrent.
    #[error("{}: {what}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A v2 torrent without the hashes of its pieces can not be verified piece by piece.
    #[error("the torrent lacks the piece layer of {path}")]
    NoLayer {
        /// The file, as the torrent names it.
        path: String,
    },
    /// The torrent can not be made of this content.
    #[error(transparent)]
    Create(#[from] CreateError),
}
