//! What a client asks: the query of an announce or scrape URL, written and read.

use super::percent;
use piecemeal_metainfo::{InfoHash, PeerId};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use thiserror::Error;

/// Bytes of a query a server reads; real ones stay under 1 KiB, a full scrape under 6.
pub const MAX_QUERY_BYTES: usize = 8 << 10;

/// Info-hashes of one scrape, as many as BEP 15 fits into a datagram.
pub const MAX_SCRAPE_HASHES: usize = 74;

/// Bytes of a `trackerid` we carry back and forth; longer ones are not a tracker's.
const MAX_TRACKER_ID_BYTES: usize = 256;

/// Why a client announces outside the regular beat (BEP 3; `Paused` is BEP 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first announce.
    Started,
    /// The download just became complete.
    Completed,
    /// The last announce.
    Stopped,
    /// A partial seed: wants nothing more, though not complete.
    Paused,
}

/// One announce (BEP 3, "trackers").
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceRequest {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Who.
    pub peer_id: PeerId,
    /// Where it listens.
    pub port: u16,
    /// Bytes given since `started`.
    pub uploaded: u64,
    /// Bytes taken since `started`.
    pub downloaded: u64,
    /// Bytes missing. `u64::MAX` where a client says it does not know (a negative number).
    pub left: u64,
    /// Why, if not because it is time.
    pub event: Option<Event>,
    /// How many peers are wanted; the tracker's choice if absent.
    pub numwant: Option<u32>,
    /// Proves, with the same number later, that a changed address is still the same client. We write eight hex
    /// digits; of a client that writes something else a number is made by hashing it. 0 if absent.
    pub key: u32,
    /// What the tracker gave as `tracker id` last time; at most 256 bytes.
    pub tracker_id: Option<Vec<u8>>,
    /// Packed addresses are welcome (BEP 23).
    pub compact: bool,
    /// Peer ids may be left out of an unpacked answer.
    pub no_peer_id: bool,
    /// Speaks MSE.
    pub supportcrypto: bool,
    /// An address the client claims, `ip` or `ipv4` (BEP 3, BEP 7). Believe it at your peril.
    pub ip: Option<IpAddr>,
    /// Another address it claims, `ipv6` (BEP 7).
    pub ipv6: Option<Ipv6Addr>,
}

/// A query that is no announce or scrape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum QueryError {
    /// More than [`MAX_QUERY_BYTES`].
    #[error("query too long")]
    TooLong,
    /// A `%` without two hex digits.
    #[error("bad percent escape")]
    BadEscape,
    /// The field must be there.
    #[error("missing {0}")]
    Missing(&'static str),
    /// The field has a value it cannot have.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The field may be there once.
    #[error("repeated {0}")]
    Repeated(&'static str),
    /// More than [`MAX_SCRAPE_HASHES`].
    #[error("too many info_hash")]
    TooMany,
}

impl AnnounceRequest {
    /// A regular announce of a client that has moved no bytes, asks for packed addresses and can do MSE.
    pub fn new(info_hash: InfoHash, peer_id: PeerId, port: u16) -> AnnounceRequest {
        AnnounceRequest {
            info_hash,
            peer_id,
            port,
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: None,
            numwant: None,
            key: 0,
            tracker_id: None,
            compact: true,
            no_peer_id: true,
            supportcrypto: true,
            ip: None,
            ipv6: None,
        }
    }
}

/// The URL to get: `base`, as the torrent names the tracker, with the request added to whatever query it has.
pub fn announce_url(base: &str, request: &AnnounceRequest) -> String {
    let mut url = Url::on(base);
    url.raw("info_hash", &request.info_hash.0);
    url.raw("peer_id", &request.peer_id.0);
    url.number("port", request.port.into());
    url.number("uploaded", request.uploaded);
    url.number("downloaded", request.downloaded);
    url.number("left", request.left);
    url.raw("key", format!("{:08X}", request.key).as_bytes());
    if let Some(event) = request.event {
        url.raw("event", event.name().as_bytes());
    }
    if let Some(numwant) = request.numwant {
        url.number("numwant", numwant.into());
    }
    url.number("compact", request.compact.into());
    if request.no_peer_id {
        url.number("no_peer_id", 1);
    }
    if request.supportcrypto {
        url.number("supportcrypto", 1);
    }
    if let Some(ip) = request.ip {
        url.raw("ip", ip.to_string().as_bytes());
    }
    if let Some(ip) = request.ipv6 {
        url.raw("ipv6", ip.to_string().as_bytes());
    }
    if let Some(id) = &request.tracker_id {
        url.raw("trackerid", id);
    }
    url.text
}

/// Reads the query of an announce, with or without its `?`. Unknown fields are passed over.
///
/// # Errors
/// If `info_hash`, `peer_id`, `port` or `left` is missing, repeated or malformed, or a number is none.
pub fn parse_announce_query(query: &str) -> Result<AnnounceRequest, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong);
    }
    let (mut info_hash, mut peer_id, mut port, mut left) = (None, None, None, None);
    let mut request = AnnounceRequest::new(InfoHash([0; 20]), PeerId([0; 20]), 0);
    (request.compact, request.no_peer_id, request.supportcrypto) = (false, false, false);
    for (name, value) in percent::pairs(query) {
        match name {
            "info_hash" => once(&mut info_hash, "info_hash", twenty("info_hash", value)?)?,
            "peer_id" => once(&mut peer_id, "peer_id", twenty("peer_id", value)?)?,
            "port" => once(&mut port, "port", value.parse().map_err(|_| QueryError::Malformed("port"))?)?,
            "left" => once(&mut left, "left", bytes_left(value)?)?,
            "uploaded" => request.uploaded = value.parse().map_err(|_| QueryError::Malformed("uploaded"))?,
            "downloaded" => {
                request.downloaded = value.parse().map_err(|_| QueryError::Malformed("downloaded"))?
            }
            "event" => request.event = Event::named(value),
            "numwant" | "num want" => request.numwant = numwant(value)?,
            "key" => request.key = key(&percent::decode(value)?),
            "compact" => request.compact = value == "1",
            "no_peer_id" => request.no_peer_id = value == "1",
            "supportcrypto" | "requirecrypto" => request.supportcrypto |= value == "1",
            "ip" | "ipv4" => request.ip = claimed_ip(value).or(request.ip),
            "ipv6" => request.ipv6 = claimed_ipv6(value),
            "trackerid" | "tracker_id" => {
                request.tracker_id =
                    Some(percent::decode(value)?).filter(|id| id.len() <= MAX_TRACKER_ID_BYTES);
            }
            _ => {}
        }
    }
    request.info_hash = InfoHash(info_hash.ok_or(QueryError::Missing("info_hash"))?);
    request.peer_id = PeerId(peer_id.ok_or(QueryError::Missing("peer_id"))?);
    request.port = port.ok_or(QueryError::Missing("port"))?;
    request.left = left.ok_or(QueryError::Missing("left"))?;
    Ok(request)
}

/// The URL that scrapes `hashes` at the tracker announced to at `announce`, `None` if the tracker has no such URL.
///
/// The last segment of the path must begin with `announce`, which becomes `scrape` (BEP 48, and the older convention
/// it wrote down). A UDP tracker has one door for all (BEP 15), so there the path stays. Send at most [`MAX_SCRAPE_HASHES`]; a tracker may know a lower bound.
pub fn scrape_url(announce: &str, hashes: &[InfoHash]) -> Option<String> {
    let announce = without_fragment(announce);
    let (path, query) = match announce.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (announce, None),
    };
    let authority = path.find("://").map_or(0, |at| at + 3);
    let mut base = if path[..authority].eq_ignore_ascii_case("udp://") {
        path.to_owned()
    } else {
        let segment = authority + path[authority..].rfind('/')? + 1;
        let rest = path[segment..].strip_prefix("announce")?;
        format!("{}scrape{rest}", &path[..segment])
    };
    if let Some(query) = query {
        base.push('?');
        base.push_str(query);
    }
    let mut url = Url::on(&base);
    hashes.iter().for_each(|hash| url.raw("info_hash", &hash.0));
    Some(url.text)
}

/// Reads the query of a scrape. Empty means that the client asks for everything, which a server may refuse.
///
/// # Errors
/// If an `info_hash` is malformed, or there are more than [`MAX_SCRAPE_HASHES`].
pub fn parse_scrape_query(query: &str) -> Result<Vec<InfoHash>, QueryError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(QueryError::TooLong);
    }
    let mut hashes = Vec::new();
    for (_, value) in percent::pairs(query).filter(|(name, _)| *name == "info_hash") {
        if hashes.len() == MAX_SCRAPE_HASHES {
            return Err(QueryError::TooMany);
        }
        hashes.push(InfoHash(twenty("info_hash", value)?));
    }
    Ok(hashes)
}

impl Event {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::Completed => "completed",
            Event::Stopped => "stopped",
            Event::Paused => "paused",
        }
    }

    /// `None` for an empty or unknown word: a regular announce.
    fn named(word: &str) -> Option<Event> {
        [Event::Started, Event::Completed, Event::Stopped, Event::Paused]
            .into_iter()
            .find(|e| e.name() == word)
    }
}

/// A URL that grows a query.
struct Url {
    text: String,
}

impl Url {
    fn on(base: &str) -> Url {
        Url { text: without_fragment(base).to_owned() }
    }

    fn raw(&mut self, name: &str, value: &[u8]) {
        if !self.text.contains('?') {
            self.text.push('?');
        } else if !self.text.ends_with(['?', '&']) {
            self.text.push('&');
        }
        self.text.push_str(name);
        self.text.push('=');
        percent::encode(value, &mut self.text);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.raw(name, value.to_string().as_bytes());
    }
}

fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(url, _)| url)
}

fn once<T>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), QueryError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::Repeated(name)),
    }
}

fn twenty(name: &'static str, value: &str) -> Result<[u8; 20], QueryError> {
    percent::decode(value)?.try_into().map_err(|_| QueryError::Malformed(name))
}

/// Clients that only have a magnet link do not know; some say so with a negative number.
fn bytes_left(value: &str) -> Result<u64, QueryError> {
    match value.strip_prefix('-') {
        Some(digits) if digits.parse::<u64>().is_ok() => Ok(u64::MAX),
        _ => value.parse().map_err(|_| QueryError::Malformed("left")),
    }
}

/// A negative or empty number leaves the choice to the tracker.
fn numwant(value: &str) -> Result<Option<u32>, QueryError> {
    if value.is_empty() || value.starts_with('-') {
        return Ok(None);
    }
    let number: u64 = value.parse().map_err(|_| QueryError::Malformed("numwant"))?;
    Ok(Some(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// Up to eight hex digits are the number they say; anything else is hashed (FNV-1a), to be compared only.
fn key(value: &[u8]) -> u32 {
    let digits =
        str::from_utf8(value).ok().filter(|text| (1..=8).contains(&text.len()) && !text.starts_with('+'));
    let number = digits.and_then(|text| u32::from_str_radix(text, 16).ok());
    number.unwrap_or_else(|| {
        value.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    })
}

/// Host names are ignored: a tracker that resolved them would be a weapon.
fn claimed_ip(value: &str) -> Option<IpAddr> {
    let text = String::from_utf8(percent::decode(value).ok()?).ok()?;
    text.parse().ok()
}

/// BEP 7 allows an address or an address with port; the port is `port`'s business.
fn claimed_ipv6(value: &str) -> Option<Ipv6Addr> {
    let text = String::from_utf8(percent::decode(value).ok()?).ok()?;
    text.parse().or_else(|_| text.parse().map(|addr: SocketAddrV6| *addr.ip())).ok()
}

#[cfg(test)]
mod tests;
