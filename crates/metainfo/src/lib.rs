//! Bencode, info-hashes, torrent metainfo, magnet links, merkle trees, safe names.
#![forbid(unsafe_code)]

mod ids;
mod time;

pub use ids::{FileIndex, InfoHash, InfoHashV2, PeerId, PieceIndex, TorrentId};
pub use time::Time;
