//! Bencode, info-hashes, torrent metainfo, magnet links, merkle trees, safe names.
#![forbid(unsafe_code)]

pub mod bencode;
mod bitfield;
pub mod create;
mod hash;
mod ids;
mod magnet;
pub mod merkle;
mod metainfo;
mod safe_path;
mod time;

pub use bitfield::{Bitfield, BitfieldError};
pub use hash::{from_base32, from_hex, sha1, sha256, to_hex};
pub use ids::{FileIndex, InfoHash, InfoHashV2, PeerId, PieceIndex, TorrentId};
pub use magnet::{Magnet, MagnetError};
pub use metainfo::{
    FILE_BYTES_END, FileEntry, Info, InfoHashes, Lint, MAX_PIECE_BYTES, MAX_PIECES, MAX_SOURCES, Metainfo,
    MetainfoError, TOTAL_BYTES_END, Version,
};
pub use safe_path::{COMPONENT_MAX_BYTES, DEPTH_MAX, NameRules, PATH_MAX_BYTES, PathError, SafePath};
pub use time::Time;
