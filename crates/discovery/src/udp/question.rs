//! What a URL asks of a UDP tracker, and what it is in datagrams.
//!
//! Owns the way between the two forms of a request. The query of an announce is the one HTTP trackers get, so what
//! BEP 15 has no field for is left out.

use piecemeal_metainfo::InfoHash;
use piecemeal_wire::tracker::udp::{self as wire, ConnectionId, Transaction, UdpCounts};
use piecemeal_wire::tracker::{
    AnnounceRequest, Event, ScrapeAnswer, parse_announce_query, parse_scrape_query,
};

/// Bytes of path and query that are carried along (BEP 41), so that a request stays in one packet of 1280 bytes.
const URL_DATA_MAX_BYTES: usize = 1024;

/// Whom a URL asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// A name, or an address without brackets.
    pub host: &'a str,
    /// Never 0. UDP trackers have no usual port, so a URL must name it.
    pub port: u16,
}

/// Reads the host and port of a `udp://` URL; `None` if it is none or names no host or port.
pub fn place(url: &str) -> Option<Place<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, port) = rest[..authority(rest)].rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.bytes().all(|digit| digit.is_ascii_digit()).then(|| port.parse().ok())??;
    let fits = scheme.eq_ignore_ascii_case("udp") && !bare.is_empty() && !bare.contains('@') && port != 0;
    fits.then_some(Place { host: bare, port })
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// One announce.
    Announce {
        request: Box<AnnounceRequest>,
        /// Path and query of the tracker's own URL.
        url_data: Vec<u8>,
    },
    /// Counts of these.
    Scrape { hashes: Vec<InfoHash> },
}

impl Question {
    /// Reads a URL to which an announce or scrape was added. One without `peer_id` is a scrape.
    pub(super) fn read(url: &str) -> Result<Question, String> {
        if place(url).is_none() {
            return Err("the URL names no host and port".into());
        }
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let data = &rest[authority(rest)..];
        let query = data.split_once('?').map_or("", |(_, query)| query);
        if query.split('&').any(|pair| pair.starts_with("peer_id=")) {
            let request = parse_announce_query(query).map_err(|why| why.to_string())?;
            let url_data = own_part(data).as_bytes();
            let url_data = url_data[..url_data.len().min(URL_DATA_MAX_BYTES)].to_vec();
            return Ok(Question::Announce { request: Box::new(request), url_data });
        }
        let hashes = parse_scrape_query(query).map_err(|why| why.to_string())?;
        if hashes.is_empty() { Err("nothing is asked".into()) } else { Ok(Question::Scrape { hashes }) }
    }

    /// Somebody waits for it to be over.
    pub(super) fn is_farewell(&self) -> bool {
        matches!(self, Question::Announce { request, .. } if request.event == Some(Event::Stopped))
    }

    pub(super) fn datagram(&self, connection: ConnectionId, transaction: Transaction) -> Vec<u8> {
        match self {
            Question::Announce { request, url_data } => {
                wire::announce_request(connection, transaction, request, url_data)
            }
            Question::Scrape { hashes } => wire::scrape_request(connection, transaction, hashes),
        }
    }
}

/// Counts as an HTTP tracker tells them. What a tracker leaves out at the end is absent; what it does not know it gives
/// as zeros, which are kept.
pub(super) fn scrape_answer(hashes: &[InfoHash], counts: UdpCounts<'_>) -> ScrapeAnswer {
    ScrapeAnswer { files: hashes.iter().copied().zip(counts.iter()).collect(), min_request_interval: None }
}

/// Where the authority ends.
fn authority(rest: &str) -> usize {
    rest.find(['/', '?', '#']).unwrap_or(rest.len())
}

/// The path and query without what was added, which begins with `info_hash`.
fn own_part(data: &str) -> &str {
    let added = ["?info_hash=", "&info_hash="].iter().filter_map(|start| data.find(start)).min();
    &data[..added.unwrap_or(data.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_metainfo::PeerId;
    use piecemeal_wire::tracker::{announce_url, scrape_url};

    #[test]
    fn places() {
        let table = [
            ("udp://t.example:6969/announce", Some(("t.example", 6969))),
            ("UDP://1.2.3.4:80", Some(("1.2.3.4", 80))),
            ("udp://[2001:db8::1]:80?x", Some(("2001:db8::1", 80))),
            ("udp://t.example", None),
            ("udp://t.example/:80", None),
            ("udp://t.example:0", None),
            ("udp://t.example:65536", None),
            ("udp://t.example:+80", None),
            ("udp://t.example:", None),
            ("udp://:80", None),
            ("udp://[]:80", None),
            ("udp://[::1:80", None),
            ("udp://::1:80", None),
            ("udp://me@t.example:80", None),
            ("http://t.example:80", None),
            ("t.example:80", None),
        ];
        for (url, expected) in table {
            assert_eq!(place(url).map(|place| (place.host, place.port)), expected, "{url}");
        }
    }

    #[test]
    fn what_was_written_into_a_url_is_read_back() {
        let request = AnnounceRequest {
            left: 7,
            event: Some(Event::Started),
            numwant: Some(3),
            supportcrypto: false,
            ..AnnounceRequest::new(InfoHash([0xff; 20]), PeerId([b'&'; 20]), 6881)
        };
        let table = [
            ("udp://t:1", ""),
            ("udp://t:1/", "/"),
            ("udp://t:1/announce", "/announce"),
            ("udp://t:1/announce?", "/announce"),
            ("udp://t:1/announce?key=1", "/announce?key=1"),
            ("udp://t:1/k/announce?a=b&c=d#top", "/k/announce?a=b&c=d"),
        ];
        for (base, expected) in table {
            let Ok(Question::Announce { request: read, url_data }) =
                Question::read(&announce_url(base, &request))
            else {
                panic!("{base}");
            };
            assert_eq!((*read, String::from_utf8(url_data).unwrap()), (request.clone(), expected.to_owned()));
        }
        let hashes = vec![InfoHash([1; 20]), InfoHash([2; 20])];
        for (base, _) in table {
            let url = scrape_url(base, &hashes).unwrap();
            assert_eq!(Question::read(&url), Ok(Question::Scrape { hashes: hashes.clone() }), "{url}");
        }
        let long = format!("udp://t:1/{}", "x".repeat(3_000));
        let Ok(Question::Announce { url_data, .. }) = Question::read(&announce_url(&long, &request)) else {
            panic!()
        };
        assert_eq!(url_data.len(), URL_DATA_MAX_BYTES);
    }

    #[test]
    fn what_asks_nothing() {
        for url in [
            "",
            "udp://t:1",
            "udp://t:1?info_hash=short",
            "udp://t/announce?info_hash=aaaaaaaaaaaaaaaaaaaa",
            "udp://t:1?peer_id=bbbbbbbbbbbbbbbbbbbb",
            "udp://t:1?info_hash=aaaaaaaaaaaaaaaaaaaa&info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=x",
        ] {
            assert!(Question::read(url).is_err(), "{url}");
        }
    }
}
