//! What clients and trackers say to each other over UDP (BEP 15, options of BEP 41), in both directions.
//!
//! Owns the datagrams. Whether a connection id is good, when to send again and which addresses may be asked is left
//! to `discovery::udp` and to the tracker server; an announce itself is the same [`AnnounceRequest`] that HTTP carries.
//!
//! Nothing is allocated for a datagram but what its own bytes pay for: lists are read in place.

use super::answer::{AnnounceAnswer, MAX_PEERS, TrackerPeer};
use super::query::{AnnounceRequest, Event, MAX_SCRAPE_HASHES};
use super::scrape::ScrapeCounts;
use crate::{compact, text};
use piecemeal_metainfo::{InfoHash, PeerId};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use thiserror::Error;

/// Stands where the connection id will be, in the first request (BEP 15).
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;

/// Bytes of a request to connect, and of its answer.
pub const CONNECT_BYTES: usize = 16;

/// Bytes of an announce without options.
pub const ANNOUNCE_BYTES: usize = 98;

/// Bytes of an announce's answer before its peers.
pub const ANNOUNCED_BYTES: usize = 20;

/// Bytes of a scrape before its hashes.
const SCRAPE_HEAD_BYTES: usize = 16;

/// Bytes of a scrape's answer before its counts, and of an error before its words.
const ANSWER_HEAD_BYTES: usize = 8;

/// Bytes of one torrent's counts.
const COUNTS_BYTES: usize = 12;

/// Bytes one option can carry (BEP 41).
const OPTION_BYTES: usize = 255;

/// Bytes of a tracker's words that we read.
const WORDS_BYTES: usize = 512;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// What a tracker gives to one address, to be shown with each request: proof that the address is not forged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What a client draws at random and finds again in the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Transaction(pub u32);

/// Bytes that are none of these datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UdpError {
    /// Shorter than its kind can be.
    #[error("datagram too short")]
    TooShort,
    /// An action that is none, or a request to connect with another protocol's mark.
    #[error("not of this protocol")]
    Unknown,
}

/// A request, as a server reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UdpRequest<'a> {
    /// For a connection id.
    Connect {
        /// To be repeated in the answer.
        transaction: Transaction,
    },
    /// One announce.
    Announce {
        /// What the client was given.
        connection: ConnectionId,
        /// To be repeated in the answer.
        transaction: Transaction,
        /// The rest. `compact` and `no_peer_id` are set, as this protocol has no other form; `ip` is what the client
        /// claims, if anything.
        announce: AnnounceRequest,
        /// What follows (BEP 41).
        options: UdpOptions<'a>,
    },
    /// Counts of some torrents.
    Scrape {
        /// What the client was given.
        connection: ConnectionId,
        /// To be repeated in the answer.
        transaction: Transaction,
        /// Which: at least one, at most [`MAX_SCRAPE_HASHES`]; what is behind those is passed over.
        hashes: UdpHashes<'a>,
    },
}

/// The options behind an announce (BEP 41), as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpOptions<'a>(&'a [u8]);

/// The info-hashes of a scrape, as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpHashes<'a>(&'a [[u8; 20]]);

/// An answer, as a client reads it. A negative number counts as 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpAnswer<'a> {
    /// A connection id.
    Connected {
        /// Of the request.
        transaction: Transaction,
        /// To be shown with the next requests, for a minute (BEP 15).
        connection: ConnectionId,
    },
    /// A taken announce.
    Announced {
        /// Of the request.
        transaction: Transaction,
        /// The rest.
        answer: UdpAnnounced<'a>,
    },
    /// Counts.
    Scraped {
        /// Of the request.
        transaction: Transaction,
        /// In the order asked.
        counts: UdpCounts<'a>,
    },
    /// A refusal.
    Failed {
        /// Of the request.
        transaction: Transaction,
        /// Why, as it came: see [`words`].
        message: &'a [u8],
    },
}

/// A taken announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpAnnounced<'a> {
    /// Seconds until the next announce is welcome. Not clamped.
    pub interval: u32,
    /// Peers without everything.
    pub leechers: u32,
    /// Peers with everything.
    pub seeders: u32,
    /// Packed addresses; of which family, only the one the datagram came by tells.
    peers: &'a [u8],
}

/// Counts in the order asked, as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpCounts<'a>(&'a [[u8; COUNTS_BYTES]]);

impl<'a> UdpRequest<'a> {
    /// Reads a request. Only what makes it unanswerable is an error: unknown events and options are passed over.
    ///
    /// # Errors
    /// If it is too short for what it says it is, or says nothing this protocol knows.
    pub fn decode(bytes: &'a [u8]) -> Result<UdpRequest<'a>, UdpError> {
        let mut reader = Reader(bytes);
        let connection = ConnectionId(u64::from_be_bytes(reader.array()?));
        let (action, transaction) = (reader.number()?, Transaction(reader.number()?));
        match action {
            CONNECT if connection.0 == PROTOCOL_ID => Ok(UdpRequest::Connect { transaction }),
            ANNOUNCE => {
                let announce = reader.announce()?;
                Ok(UdpRequest::Announce { connection, transaction, announce, options: UdpOptions(reader.0) })
            }
            SCRAPE => {
                let hashes = reader.0.as_chunks().0;
                if hashes.is_empty() {
                    return Err(UdpError::TooShort);
                }
                let hashes = UdpHashes(&hashes[..hashes.len().min(MAX_SCRAPE_HASHES)]);
                Ok(UdpRequest::Scrape { connection, transaction, hashes })
            }
            _ => Err(UdpError::Unknown),
        }
    }
}

impl UdpOptions<'_> {
    /// The path and query of the URL the client announces to, all URLData options joined (BEP 41); empty if there is
    /// none. Ends where an option is cut off.
    pub fn url_data(self) -> Vec<u8> {
        let (mut data, mut rest) = (Vec::new(), self.0);
        loop {
            rest = match rest {
                [1, rest @ ..] => rest,
                [kind @ 2..=255, len, rest @ ..] if rest.len() >= usize::from(*len) => {
                    let (value, rest) = rest.split_at((*len).into());
                    if *kind == 2 {
                        data.extend_from_slice(value);
                    }
                    rest
                }
                // 0 ends the list, as does its end.
                _ => return data,
            };
        }
    }
}

impl<'a> UdpHashes<'a> {
    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = InfoHash> + 'a {
        self.0.iter().map(|hash| InfoHash(*hash))
    }
}

impl<'a> UdpAnswer<'a> {
    /// Reads an answer. One to an announce that has nothing in it is a refusal without a word.
    ///
    /// # Errors
    /// If it is too short for what it says it is, or says nothing this protocol knows.
    pub fn decode(bytes: &'a [u8]) -> Result<UdpAnswer<'a>, UdpError> {
        let mut reader = Reader(bytes);
        let (action, transaction) = (reader.number()?, Transaction(reader.number()?));
        match action {
            CONNECT => {
                let connection = ConnectionId(u64::from_be_bytes(reader.array()?));
                Ok(UdpAnswer::Connected { transaction, connection })
            }
            // So opentracker says that it does not serve a torrent.
            ANNOUNCE if reader.0.is_empty() => Ok(UdpAnswer::Failed { transaction, message: &[] }),
            ANNOUNCE => {
                let (interval, leechers, seeders) = (reader.count()?, reader.count()?, reader.count()?);
                let answer = UdpAnnounced { interval, leechers, seeders, peers: reader.0 };
                Ok(UdpAnswer::Announced { transaction, answer })
            }
            SCRAPE => Ok(UdpAnswer::Scraped { transaction, counts: UdpCounts(reader.0.as_chunks().0) }),
            ERROR => Ok(UdpAnswer::Failed { transaction, message: reader.0 }),
            _ => Err(UdpError::Unknown),
        }
    }

    /// Whether a datagram may be such an answer; tells it from those of the DHT (which begin with `d`) and of uTP
    /// (whose first byte has a version of 1) on a shared socket.
    pub fn is_likely(bytes: &[u8]) -> bool {
        matches!(bytes, [0, 0, 0, 0..=3, ..]) && bytes.len() >= ANSWER_HEAD_BYTES
    }

    /// Which request it answers.
    pub fn transaction(&self) -> Transaction {
        match *self {
            UdpAnswer::Connected { transaction, .. }
            | UdpAnswer::Announced { transaction, .. }
            | UdpAnswer::Scraped { transaction, .. }
            | UdpAnswer::Failed { transaction, .. } => transaction,
        }
    }
}

impl UdpAnnounced<'_> {
    /// The same as an HTTP tracker would have said it: at most [`MAX_PEERS`] peers, none with port 0. `v6`: it came by
    /// IPv6, so its peers are of that family.
    pub fn into_answer(self, v6: bool) -> AnnounceAnswer {
        let named = |addr: SocketAddr| (addr.port() != 0).then_some(TrackerPeer { addr, peer_id: None });
        let peers = if v6 {
            compact::decode_v6(self.peers).filter_map(named).take(MAX_PEERS).collect()
        } else {
            compact::decode_v4(self.peers).filter_map(named).take(MAX_PEERS).collect()
        };
        AnnounceAnswer {
            interval: Some(self.interval),
            complete: Some(self.seeders),
            incomplete: Some(self.leechers),
            peers,
            ..AnnounceAnswer::default()
        }
    }
}

impl<'a> UdpCounts<'a> {
    /// One after the other.
    pub fn iter(self) -> impl ExactSizeIterator<Item = ScrapeCounts> + 'a {
        self.0.iter().map(|counts| {
            let mut reader = Reader(counts);
            let mut next = || reader.count().unwrap_or_default();
            let (complete, downloaded, incomplete) = (next(), next(), next());
            ScrapeCounts { complete, downloaded, incomplete }
        })
    }
}

/// A refusal's words, made fit to show: one line of at most 512 bytes.
pub fn words(message: &[u8]) -> String {
    text::one_line(message, WORDS_BYTES)
}

/// The datagram that asks for a connection id.
pub fn connect_request(transaction: Transaction) -> [u8; CONNECT_BYTES] {
    let mut bytes = [0; CONNECT_BYTES];
    bytes[..8].copy_from_slice(&PROTOCOL_ID.to_be_bytes());
    bytes[12..].copy_from_slice(&transaction.0.to_be_bytes());
    bytes
}

/// The datagram of an announce. `url_data`: path and query of the tracker's URL, which leave as options (BEP 41);
/// empty leaves none. An event that BEP 15 does not know is left out, as is an address that is not IPv4.
pub fn announce_request(
    connection: ConnectionId,
    transaction: Transaction,
    announce: &AnnounceRequest,
    url_data: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(ANNOUNCE_BYTES + url_data.len() + 2 + url_data.len() / OPTION_BYTES * 2);
    head(connection, ANNOUNCE, transaction, &mut out);
    out.extend_from_slice(&announce.info_hash.0);
    out.extend_from_slice(&announce.peer_id.0);
    for bytes in [announce.downloaded, announce.left, announce.uploaded] {
        out.extend_from_slice(&bytes.to_be_bytes());
    }
    let event: u32 = match announce.event {
        None | Some(Event::Paused) => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    match announce.ip {
        Some(IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
        _ => out.extend_from_slice(&[0; 4]),
    }
    out.extend_from_slice(&announce.key.to_be_bytes());
    let numwant = announce.numwant.map_or(-1, |want| i32::try_from(want).unwrap_or(i32::MAX));
    out.extend_from_slice(&numwant.to_be_bytes());
    out.extend_from_slice(&announce.port.to_be_bytes());
    for part in url_data.chunks(OPTION_BYTES) {
        // A chunk has at most 255 bytes.
        out.extend_from_slice(&[2, part.len() as u8]);
        out.extend_from_slice(part);
    }
    out
}

/// The datagram of a scrape. What is beyond [`MAX_SCRAPE_HASHES`] is left out.
pub fn scrape_request(connection: ConnectionId, transaction: Transaction, hashes: &[InfoHash]) -> Vec<u8> {
    let hashes = &hashes[..hashes.len().min(MAX_SCRAPE_HASHES)];
    let mut out = Vec::with_capacity(SCRAPE_HEAD_BYTES + 20 * hashes.len());
    head(connection, SCRAPE, transaction, &mut out);
    hashes.iter().for_each(|hash| out.extend_from_slice(&hash.0));
    out
}

/// Gives a request that is built the connection id that is known by now; a datagram that is no request stays as it is.
pub fn set_connection(request: &mut [u8], connection: ConnectionId) {
    if let Some(head) = request.first_chunk_mut() {
        *head = connection.0.to_be_bytes();
    }
}

/// Appends the answer to a request to connect.
pub fn connected(transaction: Transaction, connection: ConnectionId, out: &mut Vec<u8>) {
    answer_head(CONNECT, transaction, out);
    out.extend_from_slice(&connection.0.to_be_bytes());
}

/// Appends the answer to an announce that came by IPv6 (`v6`) or IPv4: of `peers` those of that family, all of them;
/// the server bounds them.
pub fn announced(
    transaction: Transaction,
    (interval, leechers, seeders): (u32, u32, u32),
    peers: impl Iterator<Item = SocketAddr>,
    v6: bool,
    out: &mut Vec<u8>,
) {
    answer_head(ANNOUNCE, transaction, out);
    for number in [interval, leechers, seeders] {
        out.extend_from_slice(&count(number));
    }
    peers.filter(|addr| addr.is_ipv6() == v6).for_each(|addr| compact::encode(addr, out));
}

/// Appends the answer to a scrape, with counts in the order asked.
pub fn scraped(transaction: Transaction, counts: impl Iterator<Item = ScrapeCounts>, out: &mut Vec<u8>) {
    answer_head(SCRAPE, transaction, out);
    for counts in counts {
        for number in [counts.complete, counts.downloaded, counts.incomplete] {
            out.extend_from_slice(&count(number));
        }
    }
}

/// Appends a refusal.
pub fn failed(transaction: Transaction, why: &str, out: &mut Vec<u8>) {
    answer_head(ERROR, transaction, out);
    out.extend_from_slice(why.as_bytes());
}

fn head(connection: ConnectionId, action: u32, transaction: Transaction, out: &mut Vec<u8>) {
    out.extend_from_slice(&connection.0.to_be_bytes());
    answer_head(action, transaction, out);
}

fn answer_head(action: u32, transaction: Transaction, out: &mut Vec<u8>) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.0.to_be_bytes());
}

/// Readers take these numbers for signed.
fn count(number: u32) -> [u8; 4] {
    number.min(i32::MAX as u32).to_be_bytes()
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], UdpError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(UdpError::TooShort)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u32, UdpError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A number that should not be negative.
    fn count(&mut self) -> Result<u32, UdpError> {
        self.array().map(|bytes| i32::from_be_bytes(bytes).max(0).unsigned_abs())
    }

    fn announce(&mut self) -> Result<AnnounceRequest, UdpError> {
        let (info_hash, peer_id) = (InfoHash(self.array()?), PeerId(self.array()?));
        let mut bytes = || self.array().map(u64::from_be_bytes);
        let (downloaded, left, uploaded) = (bytes()?, bytes()?, bytes()?);
        let event = match self.number()? {
            1 => Some(Event::Completed),
            2 => Some(Event::Started),
            3 => Some(Event::Stopped),
            // No BEP says so, but libtorrent's partial seeds do.
            4 => Some(Event::Paused),
            _ => None,
        };
        let ip = Ipv4Addr::from(self.number()?);
        let key = self.number()?;
        let numwant = u32::try_from(i32::from_be_bytes(self.array()?)).ok();
        let port = u16::from_be_bytes(self.array()?);
        Ok(AnnounceRequest {
            uploaded,
            downloaded,
            left,
            event,
            numwant,
            key,
            supportcrypto: false,
            ip: (!ip.is_unspecified()).then_some(ip.into()),
            ..AnnounceRequest::new(info_hash, peer_id, port)
        })
    }
}

#[cfg(test)]
mod tests;
