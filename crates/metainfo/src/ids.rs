//! The numbers that name things, one type each, so that none is taken for another.
//!
//! Owns nothing. Every crate above speaks in these words.

use std::fmt;

/// One torrent of this process, given by the session, never reused while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TorrentId(pub u32);

/// A piece, counted from 0 in the order of the info dictionary (BEP 3, "pieces").
///
/// On the wire any 32-bit number can be claimed; code that receives one checks it against the number of
/// pieces before it makes a `PieceIndex`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(pub u32);

impl PieceIndex {
    /// As an index into a table with one row a piece.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A file of the torrent, counted from 0 in the order of the metainfo, pad files included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileIndex(pub u32);

impl FileIndex {
    /// As an index into a table with one row a file.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The 20 bytes that name a swarm in handshakes, trackers and the DHT: the SHA-1 of the raw `info` (BEP 3), or
/// for a v2 torrent the first 20 bytes of its SHA-256 (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

/// The whole SHA-256 of a v2 torrent's raw `info` (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// The first 20 bytes, as trackers and handshakes carry them (BEP 52, "infohash").
    pub fn truncated(self) -> InfoHash {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        InfoHash(short)
    }
}

/// The 20 bytes a peer calls itself by (BEP 3, BEP 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

macro_rules! hex {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}
hex!(InfoHash, InfoHashV2, PeerId);
