//! What a tracker answers to an announce, read and written.

use crate::{compact, text};
use piecemeal_metainfo::PeerId;
use piecemeal_metainfo::bencode::{self, BencodeError, Encoder, Limits, Value};
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// Peers taken from one answer, both families together: more than a client can use before it asks again.
pub const MAX_PEERS: usize = 500;

/// Bytes of a tracker's words we keep for people to read.
const MAX_WORDS_BYTES: usize = 512;

/// Bytes of a `tracker id` we would send back; a longer one would make URLs no server takes.
const MAX_TRACKER_ID_BYTES: usize = 256;

/// The two shapes of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnnounceReply {
    /// The announce was taken.
    Answer(AnnounceAnswer),
    /// It was not.
    Failure(AnnounceFailure),
}

/// A taken announce. Numbers are as the tracker gave them, but brought into range: a negative one is 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnounceAnswer {
    /// Seconds until the next announce is welcome. Not clamped.
    pub interval: Option<u32>,
    /// Seconds before which one is not. Not clamped.
    pub min_interval: Option<u32>,
    /// Something for the user to read; one clean line.
    pub warning: Option<String>,
    /// To be sent back with the next announce; at most 256 bytes.
    pub tracker_id: Option<Vec<u8>>,
    /// The address the announce came from (BEP 24).
    pub external_ip: Option<IpAddr>,
    /// Peers with everything.
    pub complete: Option<u32>,
    /// Peers without.
    pub incomplete: Option<u32>,
    /// How often the torrent was completed.
    pub downloaded: Option<u32>,
    /// At most [`MAX_PEERS`], none with port 0. Unjudged: may hold ourselves or any address there is.
    pub peers: Vec<TrackerPeer>,
}

/// A peer a tracker names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrackerPeer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it calls itself; only unpacked answers tell.
    pub peer_id: Option<PeerId>,
}

/// A refused announce or scrape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceFailure {
    /// `failure reason`, one clean line.
    pub reason: String,
    /// When to try again, if the tracker says (BEP 31).
    pub retry_in: Option<RetryIn>,
}

/// `retry in` (BEP 31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryIn {
    /// After so many minutes. Not clamped.
    Minutes(u32),
    /// Not at all.
    Never,
}

/// How a server writes peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerForm {
    /// Packed, by family (BEP 23, BEP 7).
    Compact,
    /// A list of dictionaries (BEP 3).
    Dicts {
        /// With the ids of those peers that have one.
        peer_ids: bool,
    },
}

/// Bytes that are no tracker's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AnswerError {
    /// Not bencode, or beyond `bencode::Limits::TRACKER`.
    #[error("not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// Something else than a dictionary.
    #[error("not a dictionary")]
    NotADict,
}

impl AnnounceReply {
    /// Reads the body of an answer. Fields of a wrong type are as if absent; white space behind the dictionary and
    /// peers that are no address (a host name, which we would have to look up for a stranger) are passed over.
    ///
    /// # Errors
    /// If the body is no bencoded dictionary within `bencode::Limits::TRACKER`.
    pub fn decode(body: &[u8]) -> Result<AnnounceReply, AnswerError> {
        let tape = bencode::decode(body.trim_ascii_end(), Limits::TRACKER)?;
        let root = tape.root();
        if root.as_dict().is_none() {
            return Err(AnswerError::NotADict);
        }
        if let Some(failure) = AnnounceFailure::read(root) {
            return Ok(AnnounceReply::Failure(failure));
        }
        let mut answer = AnnounceAnswer::default();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (key, value) in root.as_dict().into_iter().flatten() {
            match key {
                b"interval" => answer.interval = number(value),
                b"min interval" => answer.min_interval = number(value),
                b"complete" => answer.complete = number(value),
                b"incomplete" => answer.incomplete = number(value),
                b"downloaded" => answer.downloaded = number(value),
                b"warning message" => answer.warning = words(value),
                b"tracker id" => {
                    let id = value.as_bytes().filter(|id| id.len() <= MAX_TRACKER_ID_BYTES);
                    answer.tracker_id = id.map(<[u8]>::to_vec);
                }
                b"external ip" => answer.external_ip = value.as_bytes().and_then(compact::decode_ip),
                b"peers" => v4 = peers(value, |bytes| keep(compact::decode_v4(bytes).map(unnamed))),
                b"peers6" => v6 = peers(value, |bytes| keep(compact::decode_v6(bytes).map(unnamed))),
                _ => {}
            }
        }
        answer.peers = fair_share(v4, v6);
        Ok(AnnounceReply::Answer(answer))
    }
}

impl AnnounceAnswer {
    /// The body of an answer. Writes all peers it has: the server bounds them.
    pub fn encode(&self, form: PeerForm) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict();
        pair(&mut to, b"complete", self.complete);
        pair(&mut to, b"downloaded", self.downloaded);
        if let Some(ip) = self.external_ip {
            to.pair_bytes(b"external ip", &compact::encode_ip(ip));
        }
        pair(&mut to, b"incomplete", self.incomplete);
        pair(&mut to, b"interval", self.interval);
        pair(&mut to, b"min interval", self.min_interval);
        match form {
            PeerForm::Compact => self.write_packed(&mut to),
            PeerForm::Dicts { peer_ids } => self.write_dicts(&mut to, peer_ids),
        }
        if let Some(id) = &self.tracker_id {
            to.pair_bytes(b"tracker id", id);
        }
        if let Some(warning) = &self.warning {
            to.pair_bytes(b"warning message", warning.as_bytes());
        }
        to.end();
        out
    }

    /// `peers` is written even if empty, because clients look for it; `peers6` is not.
    fn write_packed(&self, to: &mut Encoder<'_>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for addr in self.peers.iter().map(|peer| canonical(peer.addr)) {
            compact::encode(addr, if addr.is_ipv4() { &mut v4 } else { &mut v6 });
        }
        to.pair_bytes(b"peers", &v4);
        if !v6.is_empty() {
            to.pair_bytes(b"peers6", &v6);
        }
    }

    fn write_dicts(&self, to: &mut Encoder<'_>, peer_ids: bool) {
        to.key(b"peers").begin_list();
        for peer in &self.peers {
            let addr = canonical(peer.addr);
            to.begin_dict().pair_bytes(b"ip", addr.ip().to_string().as_bytes());
            if let Some(id) = peer.peer_id.filter(|_| peer_ids) {
                to.pair_bytes(b"peer id", &id.0);
            }
            to.pair_int(b"port", addr.port().into()).end();
        }
        to.end();
    }
}

impl AnnounceFailure {
    /// The body of a refusal, the same for announce and scrape.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict().pair_bytes(b"failure reason", self.reason.as_bytes());
        match self.retry_in {
            Some(RetryIn::Minutes(minutes)) => to.pair_int(b"retry in", minutes.into()),
            Some(RetryIn::Never) => to.pair_bytes(b"retry in", b"never"),
            None => &mut to,
        };
        to.end();
        out
    }

    /// Any `failure reason` makes an answer a refusal, whatever stands beside it (BEP 3).
    pub(super) fn read(root: Value<'_>) -> Option<AnnounceFailure> {
        let reason = root.get(b"failure reason")?;
        let reason = text::one_line(reason.as_bytes().unwrap_or_default(), MAX_WORDS_BYTES);
        Some(AnnounceFailure { reason, retry_in: root.get(b"retry in").and_then(retry_in) })
    }
}

/// A whole number of seconds, peers and the like, brought into range.
pub(super) fn number(value: Value<'_>) -> Option<u32> {
    value.as_int().map(|number| u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// Writes a number if there is one.
fn pair(to: &mut Encoder<'_>, key: &[u8], number: Option<u32>) {
    if let Some(number) = number {
        to.pair_int(key, number.into());
    }
}

fn words(value: Value<'_>) -> Option<String> {
    let words = text::one_line(value.as_bytes()?, MAX_WORDS_BYTES);
    (!words.is_empty()).then_some(words)
}

/// Minutes come as an integer or as its digits.
fn retry_in(value: Value<'_>) -> Option<RetryIn> {
    match value.as_bytes() {
        Some(b"never") => Some(RetryIn::Never),
        Some(digits) => str::from_utf8(digits).ok()?.parse().ok().map(RetryIn::Minutes),
        None => u32::try_from(value.as_int()?).ok().map(RetryIn::Minutes),
    }
}

/// Both keys are met in both forms.
fn peers(value: Value<'_>, packed: impl Fn(&[u8]) -> Vec<TrackerPeer>) -> Vec<TrackerPeer> {
    match value.as_bytes() {
        Some(bytes) => packed(bytes),
        None => keep(value.as_list().into_iter().flatten().filter_map(named)),
    }
}

fn keep(peers: impl Iterator<Item = TrackerPeer>) -> Vec<TrackerPeer> {
    peers.filter(|peer| peer.addr.port() != 0).take(MAX_PEERS).collect()
}

fn unnamed(addr: SocketAddr) -> TrackerPeer {
    TrackerPeer { addr, peer_id: None }
}

fn named(peer: Value<'_>) -> Option<TrackerPeer> {
    let ip: IpAddr = peer.get_str(b"ip")?.parse().ok()?;
    let port = u16::try_from(peer.get_int(b"port")?).ok()?;
    let peer_id = peer.get_bytes(b"peer id").and_then(|id| id.try_into().ok()).map(PeerId);
    Some(TrackerPeer { addr: SocketAddr::new(ip.to_canonical(), port), peer_id })
}

/// Neither family crowds the other out: each may fill half, and what the other leaves.
fn fair_share(mut v4: Vec<TrackerPeer>, mut v6: Vec<TrackerPeer>) -> Vec<TrackerPeer> {
    v6.truncate((MAX_PEERS / 2).max(MAX_PEERS.saturating_sub(v4.len())));
    v4.truncate(MAX_PEERS - v6.len());
    v4.append(&mut v6);
    v4
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests;
