//! What happens, as it happens.

use std::net::SocketAddr;

use piecemeal_metainfo::{InfoHash, InfoHashV2, PieceIndex, TorrentId};
use serde::{Deserialize, Serialize};

use crate::json;
use crate::status::{Mapping, State, Status, Trouble};

/// Something a user may want to hear.
///
/// Order holds within one torrent. A slow listener loses the oldest and is told with [`Event::Lost`]; the next
/// `Snapshot` has the truth again, so a user interface draws from snapshots and uses the others as news.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A torrent was added.
    Added {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Its name, as the metainfo has it.
        name: String,
    },
    /// A magnet link is being resolved: at the start, and whenever peers come or go. Its number is no torrent's and never
    /// will be; `Tracker` and `Banned` may carry it too. That the search is over is told to whoever asked for it.
    Resolving {
        /// Its number.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// The link's name for it; without one, its info-hash. Make safe to print.
        name: String,
        /// The v1 info-hash, if the link says it.
        #[serde(with = "json::info_hash", default)]
        info_hash: Option<InfoHash>,
        /// The v2 info-hash, if the link says it.
        #[serde(with = "json::info_hash_v2", default)]
        info_hash_v2: Option<InfoHashV2>,
        /// Peers connected.
        peers: u32,
        /// Addresses known.
        known_peers: u32,
    },
    /// A torrent does something else now. Progress inside a state is in snapshots.
    StateChanged {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// The new state.
        #[serde(flatten)]
        state: State,
    },
    /// A downloaded piece is good. (Pieces found by a check are counted in snapshots only.)
    PieceVerified {
        /// Which torrent.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Which piece.
        #[serde(with = "json::piece_index")]
        piece: PieceIndex,
    },
    /// A downloaded piece failed its hash and is fetched again.
    PieceFailed {
        /// Which torrent.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Which piece.
        #[serde(with = "json::piece_index")]
        piece: PieceIndex,
    },
    /// All that is selected is there: once per download, and once after adding when it was there already.
    Complete {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
    },
    /// A torrent stopped by itself.
    Trouble {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Why.
        trouble: Trouble,
    },
    /// The trouble is over.
    Recovered {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
    },
    /// A peer will not be spoken to again.
    Banned {
        /// By which torrent.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Who.
        addr: SocketAddr,
        /// What it did.
        reason: String,
    },
    /// A tracker answered, or did not.
    Tracker {
        /// Of which torrent.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Its announce URL.
        url: String,
        /// What it said.
        #[serde(flatten)]
        outcome: TrackerOutcome,
    },
    /// How a torrent stands: once a second while anything about it moves, and right before each `StateChanged`
    /// and `Complete`.
    Snapshot {
        /// The line.
        status: Box<Status>,
    },
    /// A torrent was removed, or its engine shut down.
    Gone {
        /// Which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
    },
    /// A router passes on to us what comes to a port of its own: when that begins, whenever it is renewed and may have
    /// changed, and when it is over or could not be had.
    Mapping {
        /// Which port; `None`: no router helps.
        mapping: Option<Mapping>,
    },
    /// The one interface that may be used went away, or is there. While it is away nothing is sent or received.
    Interface {
        /// What the system calls it.
        name: String,
        /// It is there.
        there: bool,
    },
    /// The IP filter was read anew, or a list of it could not be.
    IpFilter {
        /// Ranges of all lists together.
        ranges: u64,
        /// What is wrong with lists that was not told before, a line each, which names the list. Make safe to print.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// This listener was too slow.
    Lost {
        /// How many events it did not get.
        events: u64,
    },
}

impl Event {
    /// The torrent it is about; `None` for what is about the listener or the whole engine.
    pub fn torrent(&self) -> Option<TorrentId> {
        match self {
            Event::Added { torrent, .. }
            | Event::Resolving { torrent, .. }
            | Event::StateChanged { torrent, .. }
            | Event::PieceVerified { torrent, .. }
            | Event::PieceFailed { torrent, .. }
            | Event::Complete { torrent }
            | Event::Trouble { torrent, .. }
            | Event::Recovered { torrent }
            | Event::Banned { torrent, .. }
            | Event::Tracker { torrent, .. }
            | Event::Gone { torrent } => Some(*torrent),
            Event::Snapshot { status } => Some(status.torrent),
            Event::Mapping { .. } | Event::Interface { .. } | Event::IpFilter { .. } | Event::Lost { .. } => {
                None
            }
        }
    }
}

/// What came of an announce. Texts come from the network: make safe to print.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TrackerOutcome {
    /// It gave peers.
    Answered {
        /// How many addresses.
        peers: u32,
        /// Seconds until it wants to hear again.
        interval_s: u32,
        /// Its `warning message`, if any.
        #[serde(default)]
        warning: Option<String>,
    },
    /// It refused, or could not be reached.
    Failed {
        /// Its `failure reason`, or what went wrong on the way.
        reason: String,
        /// Seconds until it is tried again; [`TrackerOutcome::NEVER_S`]: not by itself.
        retry_s: u32,
    },
}

impl TrackerOutcome {
    /// In the place of seconds: never.
    pub const NEVER_S: u32 = u32::MAX;
}
