//! Percent-encoding of raw bytes (RFC 3986, 2.1), as info-hashes and peer ids need it.
//!
//! A `+` is a plus: no client in use writes a space so, and a raw byte 2b in an info-hash must survive.

use super::QueryError;

/// Appends `bytes`, with all but the unreserved characters of RFC 3986 escaped.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The bytes `text` stands for; never more than it has.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, QueryError> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|c| char::from(c).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(QueryError::BadEscape) };
        out.push((high << 4 | low) as u8);
    }
    Ok(out)
}

/// The pairs of a query, values still escaped. A leading `?` and empty pairs are passed over.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = query.strip_prefix('?').unwrap_or(query);
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}
