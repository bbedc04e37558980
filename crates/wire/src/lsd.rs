//! Local service discovery: who in this network shares the torrent (BEP 14).
//!
//! Owns the datagram. How often one is sent, into which network, and whose own it is by the cookie are discovery's.

use piecemeal_metainfo::{InfoHash, from_hex, to_hex};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// Bytes of the largest datagram that is read or written: what passes everywhere in one piece (BEP 14).
pub const MAX_LSD_BYTES: usize = 1_400;
/// Bytes of the longest cookie that is read.
pub const MAX_COOKIE_BYTES: usize = 64;
/// Where IPv4 announces go.
pub const LSD_V4: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), 6771));
/// Where IPv6 announces go: site-local.
pub const LSD_V6: SocketAddr = SocketAddr::V6(std::net::SocketAddrV6::new(
    Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f),
    6771,
    0,
    0,
));

const FIRST_LINE: &str = "BT-SEARCH * HTTP/1.1";

/// One datagram. Its sender is known by where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LsdAnnounce<'a> {
    /// Where the sender listens, never 0.
    pub port: u16,
    /// What it shares; at least one, and never more than the datagram has bytes for.
    pub info_hashes: Vec<InfoHash>,
    /// By which a sender knows its own datagrams.
    pub cookie: Option<&'a str>,
}

/// Why a datagram is no announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LsdError {
    /// More than [`MAX_LSD_BYTES`].
    #[error("{0} bytes are too many")]
    TooLong(usize),
    /// Not `BT-SEARCH`, or not text.
    #[error("not an announce")]
    NotAnAnnounce,
    /// A header must be there and in range.
    #[error("bad or missing {0}")]
    Field(&'static str),
}

impl<'a> LsdAnnounce<'a> {
    /// Reads a datagram. Headers that are not known are passed over, their order is free.
    ///
    /// # Errors
    /// If it is not an announce, or has no port or no info-hash in 40 hex digits. One bad info-hash spoils all.
    pub fn decode(packet: &'a [u8]) -> Result<LsdAnnounce<'a>, LsdError> {
        if packet.len() > MAX_LSD_BYTES {
            return Err(LsdError::TooLong(packet.len()));
        }
        let text = std::str::from_utf8(packet).map_err(|_| LsdError::NotAnAnnounce)?;
        let mut lines = text.lines();
        if lines.next().map(str::trim_end) != Some(FIRST_LINE) {
            return Err(LsdError::NotAnAnnounce);
        }
        let (mut port, mut info_hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.trim().is_empty()) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("port") {
                port = value.parse::<u16>().ok();
            } else if name.eq_ignore_ascii_case("infohash") {
                info_hashes.push(InfoHash(from_hex(value).ok_or(LsdError::Field("infohash"))?));
            } else if name.eq_ignore_ascii_case("cookie") {
                cookie = Some(value).filter(|cookie| cookie.len() <= MAX_COOKIE_BYTES);
            }
        }
        let port = port.filter(|port| *port != 0).ok_or(LsdError::Field("port"))?;
        if info_hashes.is_empty() {
            return Err(LsdError::Field("infohash"));
        }
        Ok(LsdAnnounce { port, info_hashes, cookie })
    }

    /// The datagram for `to`, [`LSD_V4`] or [`LSD_V6`], and how many of the info-hashes found room in it; the rest
    /// goes into another. A cookie must be one line of at most [`MAX_COOKIE_BYTES`].
    pub fn encode(&self, to: SocketAddr) -> (Vec<u8>, usize) {
        let mut text = format!("{FIRST_LINE}\r\nHost: {to}\r\nPort: {}\r\n", self.port);
        let tail = match self.cookie {
            Some(cookie) => format!("cookie: {cookie}\r\n\r\n\r\n"),
            None => "\r\n\r\n".to_owned(),
        };
        let line_bytes = "Infohash: ".len() + 40 + 2;
        let room = MAX_LSD_BYTES.saturating_sub(text.len() + tail.len()) / line_bytes;
        let taken = room.min(self.info_hashes.len());
        for hash in &self.info_hashes[..taken] {
            // Writing to a string does not fail.
            let _ = write!(text, "Infohash: {}\r\n", to_hex(&hash.0));
        }
        text.push_str(&tail);
        (text.into_bytes(), taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f10111213";

    #[test]
    fn as_the_bep_has_it() {
        let announce =
            LsdAnnounce { port: 6881, info_hashes: vec![InfoHash([0xab; 20])], cookie: Some("c0ffee") };
        let (bytes, taken) = announce.encode(LSD_V4);
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {}\r\n\
             cookie: c0ffee\r\n\r\n\r\n",
            "ab".repeat(20)
        );
        assert_eq!((std::str::from_utf8(&bytes), taken), (Ok(&expected[..]), 1));
        let (bytes, _) = announce.encode(LSD_V6);
        assert!(bytes.windows(28).any(|part| part == b"Host: [ff15::efc0:988f]:6771"));
    }

    #[test]
    fn other_hands() {
        let many = format!(
            "BT-SEARCH * HTTP/1.1\r\nINFOHASH:{HEX}\r\nX: y\r\nport: 1\r\nrubbish\r\nInfohash: {}\r\n\r\nPort: 9\r\n",
            HEX.to_uppercase()
        );
        let got = LsdAnnounce::decode(many.as_bytes()).expect("an announce");
        assert_eq!((got.port, got.info_hashes.len(), got.cookie), (1, 2, None));
    }

    #[test]
    fn refused() {
        let table = [
            (String::new(), LsdError::NotAnAnnounce),
            ("M-SEARCH * HTTP/1.1\r\n".into(), LsdError::NotAnAnnounce),
            (format!("BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: {HEX}\r\n"), LsdError::Field("port")),
            (format!("BT-SEARCH * HTTP/1.1\r\nPort: 70000\r\nInfohash: {HEX}\r\n"), LsdError::Field("port")),
            (format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {HEX}\r\n"), LsdError::Field("port")),
            ("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n\r\n".into(), LsdError::Field("infohash")),
            ("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\nInfohash: abc\r\n\r\n".into(), LsdError::Field("infohash")),
            (" ".repeat(1_401), LsdError::TooLong(1_401)),
        ];
        for (text, why) in table {
            assert_eq!(LsdAnnounce::decode(text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn what_finds_no_room_is_left() {
        let announce = LsdAnnounce { port: 65535, info_hashes: vec![InfoHash([7; 20]); 100], cookie: None };
        let (bytes, taken) = announce.encode(LSD_V6);
        assert!(bytes.len() <= MAX_LSD_BYTES && taken == 25, "{} {taken}", bytes.len());
        assert_eq!(LsdAnnounce::decode(&bytes).expect("an announce").info_hashes.len(), taken);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = LsdAnnounce::decode(&bytes);
        }

        #[test]
        fn headers_of_any_kind(lines in prop::collection::vec("[ -~]{0,60}", 0..20)) {
            let text = format!("BT-SEARCH * HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
            let _ = LsdAnnounce::decode(text.as_bytes());
        }

        #[test]
        fn round_trip(port in 1..=u16::MAX, hashes in prop::collection::vec(any::<[u8; 20]>(), 1..20)) {
            let info_hashes = hashes.into_iter().map(InfoHash).collect();
            let sent = LsdAnnounce { port, info_hashes, cookie: Some("x") };
            let (bytes, _) = sent.encode(LSD_V4);
            prop_assert_eq!(LsdAnnounce::decode(&bytes), Ok(sent));
        }
    }
}
