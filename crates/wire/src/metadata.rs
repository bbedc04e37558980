//! The info dictionary from peers: `ut_metadata` (BEP 9).
//!
//! Owns the three messages and what a lawful one looks like. Whom to ask, whom to believe and the hash of the whole
//! are `engine::controller::metadata`'s.

use crate::extension::{ExtensionError, MAX_METADATA_BYTES};
use piecemeal_metainfo::bencode::{self, Encoder, Limits, Value};

/// Bytes of each piece of metadata but the last.
pub const METADATA_PIECE_BYTES: u32 = 16 << 10;

/// One message. A piece here is 16 KiB of the info dictionary, not of the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataMessage<'a> {
    /// 0: send me this piece.
    Request {
        /// Index, unchecked.
        piece: u32,
    },
    /// 1: here it is.
    Data {
        /// Index, within `total_size`.
        piece: u32,
        /// Bytes of the whole dictionary as the sender claims, 1 to [`MAX_METADATA_BYTES`].
        total_size: u32,
        /// As many bytes as this piece of such a dictionary has.
        data: &'a [u8],
    },
    /// 2: I will not.
    Reject {
        /// Index, unchecked.
        piece: u32,
    },
    /// Any other type, to be ignored.
    Unknown,
}

/// Pieces of metadata of `total_size` bytes.
pub fn metadata_pieces(total_size: u32) -> u32 {
    total_size.div_ceil(METADATA_PIECE_BYTES)
}

/// Bytes of one piece of metadata of `total_size` bytes; `None` if there is no such piece.
pub fn metadata_piece_len(piece: u32, total_size: u32) -> Option<u32> {
    let begin = piece.checked_mul(METADATA_PIECE_BYTES)?;
    (begin < total_size).then(|| (total_size - begin).min(METADATA_PIECE_BYTES))
}

impl<'a> MetadataMessage<'a> {
    /// Reads the payload of an `extended` message.
    ///
    /// # Errors
    /// If the dictionary is malformed, or the data is not as long as its place demands.
    pub fn decode(payload: &'a [u8]) -> Result<MetadataMessage<'a>, ExtensionError> {
        let (tape, used) = bencode::decode_prefix(payload, Limits::PEER_EXTENSION)?;
        let root = tape.root();
        let msg_type = root.get_int(b"msg_type").ok_or(ExtensionError::Field("msg_type"))?;
        if !(0..=2).contains(&msg_type) {
            return Ok(MetadataMessage::Unknown);
        }
        let piece = number(root, "piece")?;
        match msg_type {
            0 => Ok(MetadataMessage::Request { piece }),
            2 => Ok(MetadataMessage::Reject { piece }),
            _ => {
                let total_size = number(root, "total_size")?;
                if total_size > MAX_METADATA_BYTES {
                    return Err(ExtensionError::Field("total_size"));
                }
                let len = metadata_piece_len(piece, total_size).ok_or(ExtensionError::Field("piece"))?;
                let data = &payload[used..];
                if data.len() != len as usize {
                    return Err(ExtensionError::Length(data.len()));
                }
                Ok(MetadataMessage::Data { piece, total_size, data })
            }
        }
    }

    /// Appends the payload to send; nothing for `Unknown`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (msg_type, piece, total_size, data) = match *self {
            MetadataMessage::Request { piece } => (0, piece, None, &[][..]),
            MetadataMessage::Data { piece, total_size, data } => (1, piece, Some(total_size), data),
            MetadataMessage::Reject { piece } => (2, piece, None, &[][..]),
            MetadataMessage::Unknown => return,
        };
        let mut to = Encoder::new(out);
        to.begin_dict().pair_int(b"msg_type", msg_type).pair_int(b"piece", piece.into());
        if let Some(size) = total_size {
            to.pair_int(b"total_size", size.into());
        }
        to.end();
        out.extend_from_slice(data);
    }
}

fn number(root: Value<'_>, field: &'static str) -> Result<u32, ExtensionError> {
    let int = root.get_int(field.as_bytes()).and_then(|int| u32::try_from(int).ok());
    int.ok_or(ExtensionError::Field(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_bep_9() {
        assert_eq!(
            MetadataMessage::decode(b"d8:msg_typei0e5:piecei0ee"),
            Ok(MetadataMessage::Request { piece: 0 })
        );
        assert_eq!(
            MetadataMessage::decode(b"d8:msg_typei2e5:piecei0ee"),
            Ok(MetadataMessage::Reject { piece: 0 })
        );
        let mut payload = b"d8:msg_typei1e5:piecei2e10:total_sizei34256ee".to_vec();
        payload.extend([7; 34256 - 2 * 16384]);
        let data = &payload[45..];
        assert_eq!(
            MetadataMessage::decode(&payload),
            Ok(MetadataMessage::Data { piece: 2, total_size: 34256, data })
        );
        for broken in [&payload[..payload.len() - 1], &[&payload[..], b"x"].concat()] {
            assert!(matches!(MetadataMessage::decode(broken), Err(ExtensionError::Length(_))));
        }
    }

    #[test]
    fn hostile_ones() {
        let table: &[&[u8]] = &[
            b"",
            b"le",
            b"de",
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_typei1e5:piecei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei-5ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei4611686018427387904ee",
            b"d8:msg_typei1e5:piecei1e10:total_sizei16384ee",
            b"d8:msg_typei1e5:piecei4294967295e10:total_sizei16384ee",
        ];
        for payload in table {
            assert!(MetadataMessage::decode(payload).is_err(), "{}", payload.escape_ascii());
        }
        assert_eq!(MetadataMessage::decode(b"d8:msg_typei9ee"), Ok(MetadataMessage::Unknown));
        let mut nothing = Vec::new();
        MetadataMessage::Unknown.encode(&mut nothing);
        assert!(nothing.is_empty());
    }

    #[test]
    fn lengths() {
        for (size, pieces, last) in [(1, 1, 1), (16384, 1, 16384), (16385, 2, 1), (1 << 24, 1024, 16384)] {
            assert_eq!(metadata_pieces(size), pieces);
            assert_eq!(metadata_piece_len(pieces - 1, size), Some(last));
            assert_eq!(metadata_piece_len(pieces, size), None);
        }
        assert_eq!(metadata_piece_len(u32::MAX, u32::MAX), None);
        assert_eq!(metadata_pieces(u32::MAX), 1 << 18);
    }

    proptest! {
        #[test]
        fn round_trip(piece: u32, total_size in 1u32..=50_000, place in 0u32..4, fill: u8) {
            let place = place % metadata_pieces(total_size);
            let data = vec![fill; metadata_piece_len(place, total_size).expect("in range") as usize];
            for message in [
                MetadataMessage::Request { piece },
                MetadataMessage::Reject { piece },
                MetadataMessage::Data { piece: place, total_size, data: &data },
            ] {
                let mut payload = Vec::new();
                message.encode(&mut payload);
                prop_assert_eq!(MetadataMessage::decode(&payload), Ok(message));
            }
        }
    }
}
