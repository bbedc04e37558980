//! What a user asks of one torrent.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use piecemeal_metainfo::FileIndex;
use serde::{Deserialize, Serialize};

use crate::json;

/// A torrent to add to a running engine. `AddTorrent::new` fills what is seldom changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AddTorrent {
    /// The bytes of the .torrent file, as read. Refused unless they parse.
    #[serde(with = "json::base64")]
    pub metainfo: Arc<[u8]>,
    /// The directory the content lives in: a torrent named `a` is the file, or the directory, `dir/a`.
    pub dir: PathBuf,
    /// Which files to have.
    #[serde(default)]
    pub select: Selection,
    /// How far to believe what is already in `dir`.
    #[serde(default)]
    pub verify: Verify,
    /// Add it, check it, but speak to no peer or tracker until resumed.
    #[serde(default)]
    pub paused: bool,
    /// Prefer pieces in order to pieces that are rare.
    #[serde(default)]
    pub sequential: bool,
    /// Of this torrent alone; the engine's own limits hold besides.
    #[serde(default)]
    pub limits: Limits,
    /// Peers to try at once, beside those that trackers give.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// Addresses where peers of it were met a moment ago, to be tried as those that trackers give.
    #[serde(default)]
    pub known: Vec<SocketAddr>,
    /// Announce URLs beside those of the metainfo, each a tier of its own, after the others.
    #[serde(default)]
    pub trackers: Vec<String>,
    /// Who we are to its peers; wanted by a torrent with a root certificate (`ssl-cert`), and by no other.
    #[serde(default)]
    pub tls: Option<TlsIdentity>,
}

/// A certificate that a torrent's root signed, and its key: by these its peers know each other, and nobody else is let in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsIdentity {
    /// The certificate in PEM, and behind it those between it and the root. It is made out to the torrent's name, or `*`.
    pub certificate: String,
    /// Its private key in PEM, without a password.
    pub key: String,
}

/// The key is nobody's business.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl AddTorrent {
    /// All files, resumed where it was left, started at once, no limit.
    pub fn new(metainfo: impl Into<Arc<[u8]>>, dir: impl Into<PathBuf>) -> Self {
        AddTorrent {
            metainfo: metainfo.into(),
            dir: dir.into(),
            select: Selection::All,
            verify: Verify::Resume,
            paused: false,
            sequential: false,
            limits: Limits::default(),
            peers: Vec::new(),
            known: Vec::new(),
            trackers: Vec::new(),
            tls: None,
        }
    }
}

/// Which files of a torrent to have. The caller resolves names and patterns; an engine knows only indices.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(tag = "select", rename_all = "snake_case")]
pub enum Selection {
    /// Every file.
    #[default]
    All,
    /// These, and the pieces they share with neighbours. Refused when empty or out of range.
    Only {
        /// Which.
        #[serde(with = "json::file_indices")]
        files: Vec<FileIndex>,
    },
}

/// How far to believe content that is already there when a torrent is added.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// By resume facts where they still fit the files' sizes and times; hash the rest.
    #[default]
    Resume,
    /// Hash everything, whatever the resume facts say.
    Full,
    /// Hash nothing: files that are there with the right size are taken for good. A piece that turns out bad when
    /// first read is dropped.
    Trust,
}

/// Most bytes per second; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes per second received.
    #[serde(default)]
    pub down: Option<u64>,
    /// Most bytes per second sent.
    #[serde(default)]
    pub up: Option<u64>,
}

/// What can be changed of a torrent while it runs. `None` leaves as it is.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Which files to have.
    #[serde(default)]
    pub select: Option<Selection>,
    /// Prefer pieces in order to pieces that are rare.
    #[serde(default)]
    pub sequential: Option<bool>,
    /// Both limits of this torrent.
    #[serde(default)]
    pub limits: Option<Limits>,
}

/// What becomes of the content when its torrent is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Stays.
    Keep,
    /// The torrent's own files are deleted, then the directories this leaves empty.
    Delete,
}
