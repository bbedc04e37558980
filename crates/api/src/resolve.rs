//! From a magnet link to its torrent.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::json;
use crate::torrent::Selection;

/// A magnet link to resolve: its torrent's description is to be fetched from peers (BEP 9).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// The link.
    pub magnet: String,
    /// Peers to try at once, beside those that the link names and its trackers give.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// Announce URLs to ask beside those of the link, each a tier of its own, after the others.
    #[serde(default)]
    pub trackers: Vec<String>,
    /// Take leave of the trackers when it is done: nobody is about to download the torrent.
    #[serde(default)]
    pub leave: bool,
}

impl ResolveRequest {
    /// With nothing but what the link itself says.
    pub fn new(magnet: impl Into<String>) -> Self {
        ResolveRequest { magnet: magnet.into(), peers: Vec::new(), trackers: Vec::new(), leave: false }
    }
}

/// What a magnet link led to. Give its parts to [`crate::AddTorrent`], and the download begins with the peers that were
/// found already.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resolved {
    /// The bytes of a .torrent file: the description as it came from peers, hashed right and judged as any other, and
    /// the trackers and web seeds of the link.
    #[serde(with = "json::base64")]
    pub metainfo: Arc<[u8]>,
    /// Where peers of it were met. Of a private torrent only those whom the link names (BEP 27).
    pub known: Vec<SocketAddr>,
    /// Which files the link asks for (BEP 53): all, unless it says. Empty if it names none that the torrent has.
    pub select: Selection,
}
