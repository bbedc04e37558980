//! How the names of `metainfo` and raw bytes look in JSON.
//!
//! `metainfo` is pure and knows no serde; these are the `#[serde(with = "...")]` modules for its newtypes.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use piecemeal_metainfo::{FileIndex, InfoHash, InfoHashV2, PieceIndex, TorrentId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

macro_rules! number {
    ($($module:ident: $name:ident),* $(,)?) => {$(
        pub mod $module {
            use super::*;
            pub fn serialize<S: Serializer>(id: &$name, to: S) -> Result<S::Ok, S::Error> {
                id.0.serialize(to)
            }
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                u32::deserialize(from).map($name)
            }
        }
    )*};
}
number!(torrent_id: TorrentId, piece_index: PieceIndex, file_index: FileIndex);

macro_rules! hex {
    ($($module:ident: $name:ident),* $(,)?) => {$(
        pub mod $module {
            use super::*;
            pub fn serialize<S: Serializer>(hash: &Option<$name>, to: S) -> Result<S::Ok, S::Error> {
                hash.map(|hash| hash.to_string()).serialize(to)
            }
            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<$name>, D::Error> {
                let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
                bytes.map(|bytes| Some($name(bytes))).ok_or_else(|| D::Error::custom("not an info-hash"))
            }
        }
    )*};
}
hex!(info_hash: InfoHash, info_hash_v2: InfoHashV2);

pub mod file_indices {
    use super::*;
    pub fn serialize<S: Serializer>(files: &[FileIndex], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(files.iter().map(|file| file.0))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<FileIndex>, D::Error> {
        Ok(Vec::<u32>::deserialize(from)?.into_iter().map(FileIndex).collect())
    }
}

pub mod base64 {
    use super::*;
    use std::sync::Arc;
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        BASE64.encode(bytes).serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map(Arc::from).map_err(|_| D::Error::custom("not base64"))
    }
}

/// Bytes as lower-case hex.
pub mod hex_bytes {
    use super::*;
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        HEXLOWER_PERMISSIVE.encode(bytes).serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| D::Error::custom("not hex"))
    }
}

/// Bytes as lower-case hex, or nothing.
pub mod opt_hex_bytes {
    use super::*;
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(|bytes| HEXLOWER_PERMISSIVE.encode(bytes)).serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map(Some).map_err(|_| D::Error::custom("not hex"))
    }
}

/// A fixed number of bytes as lower-case hex.
pub mod hex_array {
    use super::*;
    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], to: S) -> Result<S::Ok, S::Error> {
        HEXLOWER_PERMISSIVE.encode(bytes).serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
        let bytes = hex_bytes::deserialize(from)?;
        bytes.try_into().map_err(|_| D::Error::custom(format!("not {} digits", 2 * N)))
    }
}
