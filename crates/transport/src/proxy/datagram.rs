//! Datagrams by way of a SOCKS5 proxy: the header before each (RFC 1928, 7).
//!
//! Owns the header. That datagrams come from the relay and from nobody else is for those to look at who hold the socket.

use super::address::{self, MAX_ADDRESS_BYTES};
use super::{Fault, Target};

/// Bytes of the longest header.
pub const MAX_HEADER_BYTES: usize = HEAD_BYTES + MAX_ADDRESS_BYTES;

/// Two reserved ones and the number of a fragment.
const HEAD_BYTES: usize = 3;

/// Bytes by which [`wrap`] makes a datagram to `to` longer: 10 for IPv4, 22 for IPv6.
pub fn header_bytes(to: &Target) -> usize {
    HEAD_BYTES + address::encoded_len(to)
}

/// Appends `payload` to `out` with the header that sends it to `to`.
///
/// # Errors
/// If that is no target; nothing is appended then.
pub fn wrap(to: &Target, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    address::check(to)?;
    out.reserve(header_bytes(to) + payload.len());
    out.extend([0; HEAD_BYTES]);
    address::write(to, out);
    out.extend_from_slice(payload);
    Ok(())
}

/// Who sent what the proxy relays, and what that is. The reserved bytes may be anything.
///
/// # Errors
/// If the datagram is a fragment, ends too early, or comes from nobody who could be answered.
pub fn unwrap(bytes: &[u8]) -> Result<(Target, &[u8]), Fault> {
    let short = || Fault::ShortDatagram(bytes.len());
    let ([_, _, fragment], rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(short)?;
    if *fragment != 0 {
        return Err(Fault::Fragment(*fragment));
    }
    let (from, len) = address::read(rest)?.ok_or_else(short)?;
    Ok((from.target()?, &rest[len..]))
}
