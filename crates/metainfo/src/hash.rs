//! The two hashes BitTorrent knows, in one call each, and their text forms.
//!
//! Owns nothing; streaming over content is done by whoever reads it (the disk lanes), with the same crates.

use data_encoding::{BASE32_NOPAD_NOCASE, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// SHA-1 of `data` (BEP 3: info-hash and pieces).
pub fn sha1(data: &[u8]) -> [u8; 20] {
    Sha1::digest(data).into()
}

/// SHA-256 of `data` (BEP 52: info-hash and merkle trees).
pub fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// Lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Exactly `N` bytes from hex in either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    (text.len() == 2 * N).then(|| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()).flatten()
}

/// Exactly `N` bytes from base32 without padding (RFC 4648), in either case.
pub fn from_base32<const N: usize>(text: &str) -> Option<[u8; N]> {
    (text.len() == (8 * N).div_ceil(5))
        .then(|| BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?.try_into().ok())
        .flatten()
}
