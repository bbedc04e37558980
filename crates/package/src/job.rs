//! Work for the disk, as values: what a Package asks (`Job`) and what comes back (`Done`).
//!
//! The contract between Package and whoever runs its Jobs:
//!
//! - Jobs of one torrent may run in any order and at once, on any thread. Package keeps at most one Save or Hash
//!   out for a Piece, and no other Job out while a fence runs, so a runner needs no order of its own.
//! - Every Job is answered by exactly one Done, also when it fails; Bufs and the running hash travel in it both ways.
//! - A Done says what really happened: `Ok` means that all bytes reached the operating system.

use std::sync::Arc;

use piecemeal_metainfo::{FileIndex, PieceIndex};
use sha1::{Digest, Sha1};

use crate::{BlockRef, Buf};

/// Where bytes of the torrent live on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// In a file that the user wants.
    File(FileIndex),
    /// In the part file: edges of wanted Pieces that reach into files the user did not ask for. Offsets in it are
    /// offsets in the torrent; it is sparse.
    Part,
    /// Nowhere: a pad file (BEP 47). Reads give zeros, writes are dropped.
    Pad,
}

/// A run of bytes in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Which file.
    pub place: Place,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes; at least 1.
    pub len: u32,
}

/// A v1 Piece's running SHA-1: everything before `at` went in.
#[derive(Clone, Debug, Default)]
pub struct PieceHash {
    sha1: Sha1,
    at: u32,
}

impl PieceHash {
    /// How many bytes of the Piece went in.
    pub fn at(&self) -> u32 {
        self.at
    }

    /// Takes the next bytes of the Piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.at += bytes.len() as u32;
    }

    /// The digest of all that went in.
    pub fn finish(self) -> [u8; 20] {
        self.sha1.finalize().into()
    }
}

/// Work for the disk.
#[derive(Debug)]
pub enum Job {
    /// Write a run of Blocks of one Piece.
    Save(Save),
    /// Read a stretch of a Piece back and hash it.
    Hash(Hash),
    /// Read one Block into a Buf.
    Load(Load),
    /// Bring bytes into the page cache, so that sending them does not wait for the disk.
    Warm(Warm),
    /// Tell sizes and times of the files.
    Stat(Stat),
    /// Fence: do this alone.
    Fence(Fence),
}

/// What became of a [`Job`].
#[derive(Debug)]
pub enum Done {
    /// Of a [`Job::Save`].
    Saved(Save, Result<(), Trouble>),
    /// Of a [`Job::Hash`].
    Hashed(Hash, Result<(), Trouble>),
    /// Of a [`Job::Load`].
    Loaded(Load, Result<(), Trouble>),
    /// Of a [`Job::Warm`].
    Warmed(Warm, Result<(), Trouble>),
    /// Of a [`Job::Stat`]: one stamp a file, in the order of the metainfo, and the part file's.
    Stated(Vec<FileStamp>),
    /// Of a [`Job::Fence`].
    Fenced(Fence, Result<(), Trouble>),
}

/// Consecutive Blocks of one Piece, to be hashed if they continue its running hash, then written.
#[derive(Debug)]
pub struct Save {
    /// The Piece.
    pub piece: PieceIndex,
    /// Where the run begins in the Piece, in bytes.
    pub begin: u32,
    /// The Blocks, without a gap.
    pub blocks: Vec<Buf>,
    /// Where their bytes go, without a gap.
    pub spans: Vec<Span>,
    /// The running hash, at `begin`; the runner feeds the Blocks to it. `None`: written unhashed.
    pub hash: Option<PieceHash>,
}

/// A stretch of a Piece to read from disk and feed to its hash, in steps of bounded memory.
#[derive(Debug)]
pub struct Hash {
    /// The Piece.
    pub piece: PieceIndex,
    /// Where to read.
    pub spans: Vec<Span>,
    /// The running hash; reading starts where it stands.
    pub hash: PieceHash,
    /// True while checking: the runner lets live traffic go first.
    pub idle: bool,
}

/// One Block to read.
#[derive(Debug)]
pub struct Load {
    /// Which Block.
    pub at: BlockRef,
    /// Where its bytes are.
    pub spans: Vec<Span>,
    /// Where to put them.
    pub into: Buf,
    /// The asker's own mark, returned as it came.
    pub ticket: u64,
}

/// Bytes to bring into the page cache.
#[derive(Debug)]
pub struct Warm {
    /// Where they are; only [`Place::File`].
    pub spans: Vec<Span>,
    /// The asker's own mark, returned as it came.
    pub ticket: u64,
}

/// A question for sizes and times.
#[derive(Debug)]
pub struct Stat;

/// What is done alone: no other Job of this torrent is out meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Make folders, empty files and links that are wanted; touch nothing that exists.
    Prepare {
        /// By file: whether the user wants it.
        wanted: Arc<[bool]>,
    },
    /// Flush what was written to the storage device.
    Sync,
    /// Close all handles.
    Close,
    /// Close all handles, then delete the torrent's regular files, the part file, and folders this leaves empty.
    Delete,
}

/// A file's facts on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileStamp {
    /// Its length in bytes; `None`: it does not exist.
    pub len: Option<u64>,
    /// When its content last changed, in nanoseconds since 1970; a pure crate compares, never asks.
    pub mtime_nanos: i128,
    /// Its number in the file system, or 0 where there is none.
    pub inode: u64,
}

/// The disk refused: the torrent stops, says so, and can be resumed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {text}")]
pub struct Trouble {
    /// What kind of refusal.
    pub kind: TroubleKind,
    /// The file it was about.
    pub path: String,
    /// The operating system's words.
    pub text: String,
}

/// Kinds of [`Trouble`], by what helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TroubleKind {
    /// No room (ENOSPC, EDQUOT): goes on by itself once there is room.
    NoSpace,
    /// Not allowed, or a read-only file system.
    Permission,
    /// A file that should exist is missing or shorter than it was.
    Missing,
    /// A link or a folder stands where a file should be, or a path leaves the root.
    Unsafe,
    /// Anything else, such as EIO.
    Io,
}
