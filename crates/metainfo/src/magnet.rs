//! Magnet links (BEP 9, BEP 53).
//!
//! Owns the text form. What a link leads to is unknown until its `info` came from a peer and went through
//! `Metainfo::from_info`; the name here is only something to show until then.

use crate::hash::{from_base32, from_hex};
use crate::metainfo::{InfoHashes, MAX_SOURCES};
use crate::{InfoHash, InfoHashV2};
use std::fmt;
use std::ops::RangeInclusive;

/// Bytes of a link; some carry a hundred trackers, none carries this.
const MAX_BYTES: usize = 256 << 10;
/// Multihash code and length of SHA-256, in hex (BEP 9, "btmh").
const SHA256_PREFIX: &str = "1220";

/// What a link says. All but the hashes is hearsay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Magnet {
    /// `xt`; at least one.
    pub hashes: InfoHashes,
    /// `dn`, a name to show; not safe as a path.
    pub name: Option<String>,
    /// `tr`; at most [`MAX_SOURCES`], as are the next two.
    pub trackers: Vec<String>,
    /// `ws` (BEP 19).
    pub web_seeds: Vec<String>,
    /// `x.pe`: host and port of peers.
    pub peers: Vec<(String, u16)>,
    /// `so`: the files to fetch, by index, in the order given; empty means all (BEP 53).
    pub select: Vec<RangeInclusive<u32>>,
}

/// Why a link is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MagnetError {
    /// It begins with something else.
    #[error("not a magnet link")]
    NotMagnet,
    /// Longer than any link should be.
    #[error("magnet link: longer than {MAX_BYTES} bytes")]
    TooLong,
    /// No `xt` that names a torrent.
    #[error("magnet link: no info-hash (xt=urn:btih: or xt=urn:btmh:)")]
    NoHash,
    /// An `xt` that names a torrent wrongly.
    #[error("magnet link: xt is no info-hash")]
    BadHash,
    /// Two different hashes of one kind.
    #[error("magnet link: two different info-hashes")]
    TwoHashes,
}

impl Magnet {
    /// A link with nothing but hashes.
    pub fn new(hashes: InfoHashes) -> Magnet {
        let (trackers, web_seeds, peers, select) = Default::default();
        Magnet { hashes, name: None, trackers, web_seeds, peers, select }
    }

    /// Reads a link. What is wrong in it beside the hashes is left out.
    pub fn parse(link: &str) -> Result<Magnet, MagnetError> {
        let link = link.trim();
        if link.len() > MAX_BYTES {
            return Err(MagnetError::TooLong);
        }
        let scheme = link.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("magnet:?"));
        let query = &link[scheme.ok_or(MagnetError::NotMagnet)?.len()..];
        let mut magnet = Magnet::new(InfoHashes { v1: None, v2: None });
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            magnet.take(&key.to_ascii_lowercase(), value)?;
        }
        let InfoHashes { v1, v2 } = magnet.hashes;
        if v1.is_none() && v2.is_none() { Err(MagnetError::NoHash) } else { Ok(magnet) }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), MagnetError> {
        // `tr.1=`, `tr.2=` are the same key; `x.pe` is a name of its own.
        let plain = key.split_once('.').filter(|(_, number)| number.bytes().all(|c| c.is_ascii_digit()));
        match plain.map_or(key, |(key, _)| key) {
            "xt" => self.take_hash(&unescape(value).ok_or(MagnetError::BadHash)?)?,
            "dn" => {
                let name = unescape(&value.replace('+', " ")).filter(|name| !name.is_empty());
                self.name = self.name.take().or(name);
            }
            "tr" => add(&mut self.trackers, unescape(value).filter(|url| is_url(url))),
            "ws" => add(&mut self.web_seeds, unescape(value).filter(|url| is_url(url))),
            "x.pe" => add(&mut self.peers, unescape(value).and_then(|peer| address(&peer))),
            "so" => {
                let parts = unescape(value).unwrap_or_default();
                parts.split(',').for_each(|part| add(&mut self.select, range(part)));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_hash(&mut self, urn: &str) -> Result<(), MagnetError> {
        let after = |prefix: &str| {
            urn.get(..prefix.len())
                .filter(|start| start.eq_ignore_ascii_case(prefix))
                .map(|_| &urn[prefix.len()..])
        };
        if let Some(text) = after("urn:btih:") {
            let hash =
                from_hex(text).or_else(|| from_base32(text)).map(InfoHash).ok_or(MagnetError::BadHash)?;
            return only(&mut self.hashes.v1, hash);
        }
        if let Some(text) = after("urn:btmh:") {
            let text = text.strip_prefix(SHA256_PREFIX).ok_or(MagnetError::BadHash)?;
            return only(&mut self.hashes.v2, from_hex(text).map(InfoHashV2).ok_or(MagnetError::BadHash)?);
        }
        // Links of several networks carry hashes of others too.
        Ok(())
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut glue = "magnet:?";
        let mut pair = |key: &str, value: fmt::Arguments<'_>| {
            let glue = std::mem::replace(&mut glue, "&");
            write!(f, "{glue}{key}={value}")
        };
        if let Some(hash) = self.hashes.v1 {
            pair("xt", format_args!("urn:btih:{hash}"))?;
        }
        if let Some(hash) = self.hashes.v2 {
            pair("xt", format_args!("urn:btmh:{SHA256_PREFIX}{hash}"))?;
        }
        if let Some(name) = &self.name {
            pair("dn", format_args!("{}", Escaped(name)))?;
        }
        for url in &self.trackers {
            pair("tr", format_args!("{}", Escaped(url)))?;
        }
        for url in &self.web_seeds {
            pair("ws", format_args!("{}", Escaped(url)))?;
        }
        for (host, port) in &self.peers {
            match host.contains(':') {
                true => pair("x.pe", format_args!("[{host}]:{port}"))?,
                false => pair("x.pe", format_args!("{}:{port}", Escaped(host)))?,
            }
        }
        let part = |range: &RangeInclusive<u32>| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        };
        if !self.select.is_empty() {
            pair("so", format_args!("{}", self.select.iter().map(part).collect::<Vec<_>>().join(",")))?;
        }
        Ok(())
    }
}

/// Text with everything but the letters that a URL never gives a meaning (RFC 3986, "unreserved") as `%XX`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(f, "{}", byte as char)
            }
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

/// `None` if a `%` is not followed by two hex digits, or the result is no text.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let [byte] = from_hex::<1>(part.get(..2)?)?;
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: Option<T>) {
    if let Some(item) = item.filter(|item| list.len() < MAX_SOURCES && !list.contains(item)) {
        list.push(item);
    }
}

fn only<T: PartialEq>(slot: &mut Option<T>, hash: T) -> Result<(), MagnetError> {
    match slot {
        Some(other) if *other != hash => Err(MagnetError::TwoHashes),
        _ => {
            *slot = Some(hash);
            Ok(())
        }
    }
}

fn is_url(url: &str) -> bool {
    !url.is_empty() && !url.contains(char::is_control)
}

/// `host:port` or `[v6]:port`.
fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => host,
    };
    let bare_v6 = host.contains(':') && !text.starts_with('[');
    let fits =
        (1..=255).contains(&host.len()) && !host.contains(|c: char| c.is_control() || "[]/@ &".contains(c));
    (fits && !bare_v6).then(|| (host.to_owned(), port))
}

/// `7` or `4-6`.
fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
    const V2: &str = "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";

    fn ok(link: &str) -> Magnet {
        Magnet::parse(link).unwrap_or_else(|why| panic!("{link}: {why}"))
    }

    #[test]
    fn hashes_of_all_forms() {
        let cd = Some(InfoHash([0xcd; 20]));
        for link in [
            format!("magnet:?xt=urn:btih:{HEX}"),
            format!("magnet:?xt=urn:btih:{}", HEX.to_uppercase()),
            format!("magnet:?xt=urn%3Abtih%3A{HEX}"),
            format!("magnet:?XT=urn:btih:{HEX}"),
            format!("MAGNET:?xt=URN:BTIH:{HEX}"),
            format!("magnet:?xt.1=urn:btih:{HEX}&xt.2=urn:sha1:ABC"),
            format!("magnet:?&so=&&xt=urn:btih:{HEX}"),
            format!("magnet:?xt=urn:btih:{HEX}\n"),
            format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{HEX}"),
        ] {
            assert_eq!(ok(&link).hashes, InfoHashes { v1: cd, v2: None }, "{link}");
        }
        let base32 = ok("magnet:?xt=urn:btih:MFRGCYTBMJQWEYLCMFRGCYTBMJQWEYLC");
        assert_eq!(base32.hashes.v1, Some(InfoHash(*b"abababababababababab")));
        assert_eq!(ok("magnet:?xt=urn:btih:mfrgcytbmjqweylcmfrgcytbmjqweylc"), base32);
        let v2 = ok(&format!("magnet:?xt=urn:btmh:1220{V2}&dn=bittorrent-v2-test"));
        assert_eq!(v2.hashes, InfoHashes { v1: None, v2: from_hex(V2).map(InfoHashV2) });
        assert_eq!(v2.name.as_deref(), Some("bittorrent-v2-test"));
        let hybrid = ok(&format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btmh:1220{V2}"));
        assert_eq!(hybrid.hashes, InfoHashes { v1: cd, v2: v2.hashes.v2 });
    }

    #[test]
    fn bad_hashes() {
        let table = [
            ("", MagnetError::NotMagnet),
            ("magnet:", MagnetError::NotMagnet),
            ("http://example.org/?xt=urn:btih:cdcd", MagnetError::NotMagnet),
            ("magnet:?", MagnetError::NoHash),
            ("magnet:?dn=foo", MagnetError::NoHash),
            ("magnet:?xt=blah", MagnetError::NoHash),
            ("magnet:?xt=urn:btih:", MagnetError::BadHash),
            ("magnet:?xt=urn:btih:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdc", MagnetError::BadHash),
            ("magnet:?xt=urn:btih:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd", MagnetError::BadHash),
            ("magnet:?xt=urn:btih: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd", MagnetError::BadHash),
            ("magnet:?xt=urn:btih:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdxy", MagnetError::BadHash),
            ("magnet:?xt=urn:btih:MFRGCYTBMJQWEYLCMFRGCYTBMJQWEYL1", MagnetError::BadHash),
            ("magnet:?xt=urn%%3Abtih:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd", MagnetError::BadHash),
            ("magnet:?xt=urn:btmh:1220cdcd", MagnetError::BadHash),
        ];
        for (link, why) in table {
            assert_eq!(Magnet::parse(link), Err(why), "{link}");
        }
        for link in [format!("magnet:?xt=urn:btmh:1221{V2}"), format!("magnet:?xt=urn:btmh:{V2}")] {
            assert_eq!(Magnet::parse(&link), Err(MagnetError::BadHash));
        }
        let other = HEX.replace('c', "e");
        let two = format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}");
        assert_eq!(Magnet::parse(&two), Err(MagnetError::TwoHashes));
        let long = format!("magnet:?xt=urn:btih:{HEX}&dn={}", "x".repeat(MAX_BYTES));
        assert_eq!(Magnet::parse(&long), Err(MagnetError::TooLong));
    }

    #[test]
    fn everything_else() {
        let magnet = ok(&format!(
            "magnet:?xt=urn:btih:{HEX}&dn=a+b%20c%26&tr=http%3A%2F%2Ft%2Fa%3Fx%3D1%2B2&TR.1=udp://u:1&tr=udp://u:1\
             &ws=http://w/&x.pe=1.2.3.4:5&x.pe=%5B::1%5D:6&x.pe=h.example:7&x.pe=::1:8&x.pe=h:0&x.pe=h:65536\
             &so=0,2,4-6,9-8,x,-1,&unknown=1&tr=%zz&tr="
        ));
        assert_eq!(magnet.name.as_deref(), Some("a b c&"));
        assert_eq!(magnet.trackers, ["http://t/a?x=1+2", "udp://u:1"]);
        assert_eq!(magnet.web_seeds, ["http://w/"]);
        let peers =
            [("1.2.3.4", 5), ("::1", 6), ("h.example", 7)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(magnet.peers, peers);
        assert_eq!(magnet.select, [0..=0, 2..=2, 4..=6]);
        assert_eq!(ok(&magnet.to_string()), magnet);
    }

    proptest! {
        #[test]
        fn round_trip(v1 in any::<[u8; 20]>(), v2 in proptest::option::of(any::<[u8; 32]>()), name in ".{1,20}",
                      trackers in proptest::collection::btree_set("[a-z+&=%# é]{1,10}", 0..4)) {
            let hashes = InfoHashes { v1: Some(InfoHash(v1)), v2: v2.map(InfoHashV2) };
            let mut magnet = Magnet::new(hashes);
            magnet.name = Some(name);
            magnet.trackers = trackers.into_iter().collect();
            prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
        }

        #[test]
        fn any_text_is_judged(text in ".{0,60}") {
            let _ = Magnet::parse(&text);
            let _ = Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}&{text}"));
            let _ = Magnet::parse(&format!("magnet:?xt={text}"));
        }
    }
}
