//! Bencode, info-hashes, torrent metainfo, magnet links, merkle trees, safe names.
#![forbid(unsafe_code)]

pub mod bencode;
mod bitfield;
mod hash;
mod ids;
pub mod merkle;
mod safe_path;
mod time;

pub use bitfield::{Bitfield, BitfieldError};
pub use hash::{from_base32, from_hex, sha1, sha256, to_hex};
pub use ids::{FileIndex, InfoHash, InfoHashV2, PeerId, PieceIndex, TorrentId};
pub use safe_path::{NameRules, PathError, SafePath};
pub use time::Time;
