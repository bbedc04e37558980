//! What an engine tells of its torrents.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use piecemeal_metainfo::{FileIndex, InfoHash, InfoHashV2, TorrentId};
use serde::{Deserialize, Serialize};

use crate::json;
use crate::torrent::Limits;

/// One torrent in a line: small, and the same size however large the swarm. Peers, trackers and files are in
/// [`Details`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Which torrent.
    #[serde(with = "json::torrent_id")]
    pub torrent: TorrentId,
    /// Its name, as the metainfo has it: a user interface must make it safe to print.
    pub name: String,
    /// The v1 info-hash, if it has one.
    #[serde(with = "json::info_hash", default)]
    pub info_hash: Option<InfoHash>,
    /// The v2 info-hash, if it has one.
    #[serde(with = "json::info_hash_v2", default)]
    pub info_hash_v2: Option<InfoHashV2>,
    /// The directory the content lives in.
    pub dir: PathBuf,
    /// What it does now.
    #[serde(flatten)]
    pub state: State,
    /// Bytes of all its files.
    pub size: u64,
    /// Bytes of the files selected.
    pub wanted_bytes: u64,
    /// Bytes of the files selected that are there and verified.
    pub have_bytes: u64,
    /// Pieces verified.
    pub have_pieces: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// Content received, bytes per second over the last few seconds.
    pub down_rate: u64,
    /// Content sent, bytes per second over the last few seconds.
    pub up_rate: u64,
    /// Bytes since the torrent was first added, over restarts. Those of earlier runs are in from the first status
    /// after `Opening` and `Checking` on, before anything new is received.
    pub totals: Totals,
    /// Peers connected, handshake done.
    pub peers: u32,
    /// Of those, the ones that have everything.
    pub seeds: u32,
    /// Peers that gave at least one block since the torrent was added to this process.
    pub givers: u32,
    /// Addresses known and not banned.
    pub known_peers: u32,
    /// Whole seconds, in this process, since it was added.
    pub active_s: u64,
    /// Of this torrent alone.
    pub limits: Limits,
}

impl Status {
    /// Everything selected is there and verified.
    pub fn complete(&self) -> bool {
        self.have_bytes >= self.wanted_bytes && !matches!(self.state, State::Opening | State::Checking { .. })
    }

    /// Uploaded for each byte of the selected content; 0 when that is empty.
    pub fn ratio(&self) -> f64 {
        if self.wanted_bytes == 0 { 0.0 } else { self.totals.uploaded as f64 / self.wanted_bytes as f64 }
    }

    /// Seconds until complete at the present rate; `None` while nothing comes in.
    pub fn eta_s(&self) -> Option<u64> {
        let missing = self.wanted_bytes.saturating_sub(self.have_bytes);
        (self.down_rate > 0).then(|| missing.div_ceil(self.down_rate))
    }
}

/// What a torrent does.
///
/// Every torrent begins with `Opening`, also one that is added paused: it is opened and checked first, and `Paused`
/// comes after. So a user can add paused content, wait until neither `Opening` nor `Checking` is left, and see in
/// `have_bytes` what is there before anything is fetched or created.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Reading resume facts, looking at files.
    Opening,
    /// Hashing what is there.
    Checking {
        /// Bytes hashed.
        checked_bytes: u64,
        /// Bytes to hash.
        check_bytes: u64,
    },
    /// Something selected is missing.
    Downloading,
    /// All that is selected is there.
    Seeding,
    /// By the user.
    Paused,
    /// Stopped by itself; says why.
    Trouble {
        /// Why.
        trouble: Trouble,
    },
    /// Removed, or its engine shut down.
    Gone,
}

/// What stopped a torrent. Others go on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// The sort of trouble.
    pub kind: TroubleKind,
    /// The file or directory, when it is about one.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// One line for a person: what is wrong and what to do.
    pub text: String,
    /// The engine tries again by itself and reports `Recovered`. When false, only `resume` or `recheck` helps.
    pub retries: bool,
}

/// The sort of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// No room, or over quota. The engine retries.
    DiskFull,
    /// Not allowed to read or write.
    Permission,
    /// A file or the whole directory is gone.
    Missing,
    /// A file is not what was verified: shrunk, grown or rewritten by someone else.
    Changed,
    /// The device reports errors.
    Disk,
    /// An invariant broke; only this torrent is stopped.
    Bug,
}

/// Bytes over the life of a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Totals {
    /// Content received from peers and web seeds, wasted bytes included.
    pub downloaded: u64,
    /// Content sent.
    pub uploaded: u64,
    /// Content received that was of no use: failed its hash, or was already there.
    pub wasted: u64,
    /// Of `downloaded`, what came from peers that did not have everything themselves.
    pub from_leeches: u64,
}

/// A port of a router that leads to us, so that peers from outside can call (PCP, NAT-PMP or UPnP). IPv4's: by IPv6 peers
/// reach us where we listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mapping {
    /// By what the router was asked.
    pub protocol: MappingProtocol,
    /// The router's address towards the outside, if it told. When that is a private one, there is another router.
    #[serde(default)]
    pub external_addr: Option<IpAddr>,
    /// The router's port, which peers are told of.
    pub external_port: u16,
    /// Seconds until it ends if it is not renewed; it is when half of the time is over.
    pub until_s: u64,
}

/// How a router is asked for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingProtocol {
    /// The Port Control Protocol (RFC 6887).
    Pcp,
    /// The NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP, of an internet gateway device.
    Upnp,
}

/// One torrent in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Details {
    /// The line.
    pub status: Status,
    /// Connected peers, in order of connection.
    pub peers: Vec<PeerStatus>,
    /// Trackers, in order of tier.
    pub trackers: Vec<TrackerStatus>,
    /// Files in metainfo order, pad files left out.
    pub files: Vec<FileStatus>,
}

/// One connected peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The other end.
    pub addr: SocketAddr,
    /// What it calls itself, or what its peer id gives away. From the network: make safe to print.
    pub client: String,
    /// Content from it, bytes per second.
    pub down_rate: u64,
    /// Content to it, bytes per second.
    pub up_rate: u64,
    /// Content from it on this connection, bytes.
    pub downloaded: u64,
    /// Content to it on this connection, bytes.
    pub uploaded: u64,
    /// Pieces it has.
    pub have_pieces: u32,
    /// It has everything.
    pub seed: bool,
    /// The rest.
    pub flags: PeerFlags,
}

/// Yes-or-no facts about a connected peer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PeerFlags {
    /// It dialled us.
    pub incoming: bool,
    /// We want something it has.
    pub interested: bool,
    /// It wants something we have.
    pub wants_us: bool,
    /// We do not serve it now.
    pub choked: bool,
    /// It does not serve us now.
    pub chokes_us: bool,
    /// Served as a try, not for what it gave.
    pub optimistic: bool,
    /// It stopped giving.
    pub snubbed: bool,
    /// The payload is encrypted.
    pub encrypted: bool,
    /// Over uTP rather than TCP.
    pub utp: bool,
    /// A web seed, not a peer.
    pub web_seed: bool,
}

/// One tracker of one torrent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrackerStatus {
    /// Its announce URL, which may hold a passkey.
    pub url: String,
    /// Its tier, from 0.
    pub tier: u32,
    /// How it is.
    pub state: TrackerState,
    /// What went wrong last, until an announce succeeds. From the network: make safe to print.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Peers with everything, by its count.
    #[serde(default)]
    pub seeds: Option<u32>,
    /// Peers without, by its count.
    #[serde(default)]
    pub leeches: Option<u32>,
    /// How often the torrent was completed, by its count; few trackers tell.
    #[serde(default)]
    pub downloads: Option<u32>,
    /// Seconds since `seeds` and `leeches` were told.
    #[serde(default)]
    pub counted_s: Option<u64>,
    /// Seconds until the next announce.
    #[serde(default)]
    pub next_s: Option<u64>,
}

/// How a tracker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackerState {
    /// Not spoken to yet.
    Idle,
    /// An announce is under way.
    Announcing,
    /// The last announce succeeded.
    Working,
    /// The last announce failed; it is tried again at `next_s`.
    Failing,
}

/// One file of one torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileStatus {
    /// Which.
    #[serde(with = "json::file_index")]
    pub file: FileIndex,
    /// Below the torrent's directory, with `/`. Make safe to print.
    pub path: String,
    /// Its size.
    pub size: u64,
    /// Bytes of it in verified pieces.
    pub have_bytes: u64,
    /// It is to be had.
    pub selected: bool,
}
