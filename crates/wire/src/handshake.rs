//! The 68 bytes that open every connection (BEP 3, "peer protocol"; reserved bits of BEP 4).
//!
//! Owns the layout and the reserved bits. Whether the info-hash is one of ours, whether the peer is ourselves and
//! how long to wait for the rest are the Server's questions.

use piecemeal_metainfo::{InfoHash, PeerId};
use thiserror::Error;

/// Bytes of a handshake, both directions.
pub const HANDSHAKE_BYTES: usize = 68;

/// How every handshake starts: the length of the name, and the name.
pub const PROTOCOL: [u8; 20] = *b"\x13BitTorrent protocol";

/// Where the info-hash ends: from here on the receiver knows which torrent is meant.
const INFO_HASH_END: usize = 48;

/// The eight bytes in which peers announce what they speak beyond BEP 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// BEP 3 and nothing else.
    pub const NONE: Reserved = Reserved([0; 8]);

    const FAST: (usize, u8) = (7, 0x04);
    const EXTENSION: (usize, u8) = (5, 0x10);
    const DHT: (usize, u8) = (7, 0x01);
    const V2: (usize, u8) = (7, 0x10);

    /// Fast extension (BEP 6).
    pub const fn fast(self) -> bool {
        self.has(Self::FAST)
    }

    /// Extension protocol (BEP 10).
    pub const fn extension(self) -> bool {
        self.has(Self::EXTENSION)
    }

    /// Has a DHT node and wants `port` (BEP 5).
    pub const fn dht(self) -> bool {
        self.has(Self::DHT)
    }

    /// Would speak v2 about a hybrid torrent (BEP 52, "upgrade path").
    pub const fn v2(self) -> bool {
        self.has(Self::V2)
    }

    /// With the bit of BEP 6 set.
    pub const fn with_fast(self) -> Reserved {
        self.with(Self::FAST)
    }

    /// With the bit of BEP 10 set.
    pub const fn with_extension(self) -> Reserved {
        self.with(Self::EXTENSION)
    }

    /// With the bit of BEP 5 set.
    pub const fn with_dht(self) -> Reserved {
        self.with(Self::DHT)
    }

    /// With the upgrade bit of BEP 52 set.
    pub const fn with_v2(self) -> Reserved {
        self.with(Self::V2)
    }

    const fn has(self, (byte, bit): (usize, u8)) -> bool {
        self.0[byte] & bit != 0
    }

    const fn with(mut self, (byte, bit): (usize, u8)) -> Reserved {
        self.0[byte] |= bit;
        self
    }
}

/// A whole handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// What the sender speaks.
    pub reserved: Reserved,
    /// Which torrent it wants to talk about.
    pub info_hash: InfoHash,
    /// What it calls itself.
    pub peer_id: PeerId,
}

/// How far the bytes of a handshake reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Right so far, not all here. Nothing is consumed: call again with the same bytes and more.
    Partial {
        /// Known from 28 bytes on.
        reserved: Option<Reserved>,
        /// Known from 48 bytes on, so that an accepting side can answer before the peer id arrives.
        info_hash: Option<InfoHash>,
    },
    /// All here; [`HANDSHAKE_BYTES`] are consumed, what follows is messages.
    Whole(Handshake),
}

/// These bytes are no handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HandshakeError {
    /// The protocol string differs; perhaps the peer speaks MSE.
    #[error("byte {at} of the protocol string is wrong")]
    WrongProtocol {
        /// The first wrong byte, 0..20.
        at: usize,
    },
}

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        let mut bytes = [0; HANDSHAKE_BYTES];
        bytes[..20].copy_from_slice(&PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads the handshake at the start of `bytes`, which may hold less or more than it.
    ///
    /// # Errors
    /// At the first byte that differs from the protocol string, however few have come.
    pub fn decode(bytes: &[u8]) -> Result<Progress, HandshakeError> {
        if let Some(at) = bytes.iter().zip(&PROTOCOL).position(|(got, want)| got != want) {
            return Err(HandshakeError::WrongProtocol { at });
        }
        let reserved = field(bytes, 20).map(Reserved);
        let info_hash = field(bytes, 28).map(InfoHash);
        let peer_id = field(bytes, INFO_HASH_END).map(PeerId);
        Ok(match (reserved, info_hash, peer_id) {
            (Some(reserved), Some(info_hash), Some(peer_id)) => {
                Progress::Whole(Handshake { reserved, info_hash, peer_id })
            }
            _ => Progress::Partial { reserved, info_hash },
        })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Handshake {
        Handshake {
            reserved: Reserved::NONE.with_fast().with_extension().with_dht(),
            info_hash: InfoHash(*b"aaaaaaaaaaaaaaaaaaaa"),
            peer_id: PeerId(*b"-PM0100-bbbbbbbbbbbb"),
        }
    }

    #[test]
    fn layout_is_bep_3() {
        let expected = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05aaaaaaaaaaaaaaaaaaaa-PM0100-bbbbbbbbbbbb";
        assert_eq!(&sample().encode(), expected);
    }

    #[test]
    fn each_bit_is_its_own() {
        let table = [
            (Reserved::NONE.with_fast(), [true, false, false, false], (7, 0x04)),
            (Reserved::NONE.with_extension(), [false, true, false, false], (5, 0x10)),
            (Reserved::NONE.with_dht(), [false, false, true, false], (7, 0x01)),
            (Reserved::NONE.with_v2(), [false, false, false, true], (7, 0x10)),
        ];
        for (bits, speaks, (byte, value)) in table {
            assert_eq!([bits.fast(), bits.extension(), bits.dht(), bits.v2()], speaks);
            let mut raw = [0; 8];
            raw[byte] = value;
            assert_eq!(bits.0, raw);
        }
    }

    #[test]
    fn the_info_hash_shows_at_48_bytes() {
        let bytes = sample().encode();
        for have in 0..HANDSHAKE_BYTES {
            let Ok(Progress::Partial { reserved, info_hash }) = Handshake::decode(&bytes[..have]) else {
                panic!("{have} bytes are a part");
            };
            assert_eq!(reserved, (have >= 28).then_some(sample().reserved));
            assert_eq!(info_hash, (have >= 48).then_some(sample().info_hash));
        }
        assert_eq!(Handshake::decode(&bytes), Ok(Progress::Whole(sample())));
    }

    #[test]
    fn a_wrong_byte_is_refused_as_soon_as_it_comes() {
        for at in 0..PROTOCOL.len() {
            let mut bytes = sample().encode();
            bytes[at] ^= 0x20;
            assert!(Handshake::decode(&bytes[..at]).is_ok());
            for have in at + 1..=HANDSHAKE_BYTES {
                assert_eq!(Handshake::decode(&bytes[..have]), Err(HandshakeError::WrongProtocol { at }));
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip_whatever_follows(
            reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20], tail: Vec<u8>,
        ) {
            let handshake = Handshake {
                reserved: Reserved(reserved), info_hash: InfoHash(info_hash), peer_id: PeerId(peer_id),
            };
            let mut bytes = handshake.encode().to_vec();
            bytes.extend(tail);
            prop_assert_eq!(Handshake::decode(&bytes), Ok(Progress::Whole(handshake)));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Handshake::decode(&bytes);
        }
    }
}
