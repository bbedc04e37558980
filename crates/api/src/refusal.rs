//! A command that was not carried out, and why.

use std::net::SocketAddr;
use std::path::PathBuf;

use piecemeal_metainfo::TorrentId;
use serde::{Deserialize, Serialize};

use crate::json;

/// Why a command was refused. Its text is one line, `WHAT: what is wrong; what to do`, for a person.
///
/// Reasons given by files and the network may hold anything: make safe to print.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// No such torrent, or no longer.
    #[error("torrent {}: there is none with this number; list the torrents to see which there are", torrent.0)]
    UnknownTorrent {
        /// The number given.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
    },
    /// The engine has this info-hash already.
    #[error("{name}: already added as torrent {}; remove that one first, or leave this one out", torrent.0)]
    AlreadyAdded {
        /// As which.
        #[serde(with = "json::torrent_id")]
        torrent: TorrentId,
        /// Its name.
        name: String,
    },
    /// The bytes are no torrent that can be used.
    #[error("{what}: {reason}; get the .torrent file again, or another one")]
    BadTorrent {
        /// The file or URL, or `torrent` where that is not known.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An option or field that makes no sense.
    #[error("{field}: {reason}; {remedy}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Something this program does not do.
    #[error("{what}: not supported yet; {instead}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        instead: String,
    },
    /// A file or directory could not be used.
    #[error("{}: {reason}; {remedy}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// An address to listen on could not be had.
    #[error(
        "{addr}: cannot listen here: {reason}; choose another address or port, or stop what uses this one"
    )]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Something out there could not be reached or gave a bad answer.
    #[error("{url}: {reason}; check the address and the network, and try again")]
    Network {
        /// Whom.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The system refused threads, memory or sockets.
    #[error("{what}: {reason}; free some or raise the limit, and try again")]
    System {
        /// What was asked for.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("interrupted: nothing was changed; start again when ready")]
    Cancelled,
    /// The engine has shut down.
    #[error("engine: it has shut down; start it again")]
    Closed,
    /// An invariant broke here.
    #[error("{what}: this is a fault in the program; please report it with this line")]
    Bug {
        /// Which.
        what: String,
    },
}

impl Refusal {
    /// A file or directory that could not be used.
    pub fn file(path: impl Into<PathBuf>, reason: impl ToString, remedy: impl Into<String>) -> Self {
        Refusal::File { path: path.into(), reason: reason.to_string(), remedy: remedy.into() }
    }

    /// A field that makes no sense.
    pub fn invalid(field: impl Into<String>, reason: impl ToString, remedy: impl Into<String>) -> Self {
        Refusal::Invalid { field: field.into(), reason: reason.to_string(), remedy: remedy.into() }
    }
}
