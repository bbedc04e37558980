//! Work without a swarm, and the way to start one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_metainfo::{FileIndex, InfoHash, InfoHashV2};
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::client::Client;
use crate::dht::{DhtFinding, DhtRequest, DhtSummary};
use crate::doctor::{Diagnosis, DoctorRequest};
use crate::json;
use crate::net::NetOptions;
use crate::refusal::Refusal;
use crate::torrent::Limits;

/// What a program can do with torrents before, beside and after swapping them.
///
/// Everything here blocks the caller. Nothing here writes a .torrent file: [`Tools::create`] hands back bytes, and who
/// asked for them stores them.
pub trait Tools: Send + Sync {
    /// Reads content and makes a torrent of it. Refused when there is nothing to read, a file changes underway, or an
    /// option makes no sense.
    fn create(&self, request: &CreateRequest, work: &Work<'_>) -> Result<Created, Refusal>;

    /// Hashes content against a torrent. Bad or missing content is a verdict; a refusal means that none was reached.
    fn verify(&self, request: &VerifyRequest, work: &Work<'_>) -> Result<Verdict, Refusal>;

    /// Asks each tracker of a torrent for peers, as one who has nothing, and takes leave again: event `started`
    /// followed by `stopped`, so that we do not stay in its list. Or for counts alone (`request.scrape`), by which no
    /// tracker learns of us. One answer per tracker, in order of tier. At most `request.wait_s` in all.
    fn announce_all(&self, request: &AnnounceRequest, cancel: &Cancel)
    -> Result<Vec<TrackerAnswer>, Refusal>;

    /// Fetches a .torrent file over http or https: redirects followed within bounds, size and time bounded.
    fn fetch_torrent(&self, url: &str, net: &NetOptions, cancel: &Cancel) -> Result<Vec<u8>, Refusal>;

    /// Asks the distributed hash table. What is found on the way is told as it comes, on the caller's thread; that
    /// nobody answers is a summary.
    fn dht(
        &self,
        request: &DhtRequest,
        hear: &mut dyn FnMut(DhtFinding),
        cancel: &Cancel,
    ) -> Result<DhtSummary, Refusal>;

    /// 32 secret random bytes, the seed of a key to sign items of the distributed hash table with.
    fn new_dht_key(&self) -> Result<[u8; 32], Refusal>;

    /// Says what an engine would open, by which ways anything goes, how others see us, and whether anything leaks.
    fn examine(&self, request: &DoctorRequest, cancel: &Cancel) -> Result<Diagnosis, Refusal>;

    /// Starts a tracker in this process.
    fn start_tracker(&self, options: &TrackerOptions) -> Result<Box<dyn RunningTracker>, Refusal>;

    /// Starts an engine in this process.
    fn start_client(&self, options: &EngineOptions) -> Result<Box<dyn Client>, Refusal>;

    /// CPU time this process has used so far, user and system; `None` where the system does not tell.
    fn cpu_time(&self) -> Option<Duration>;

    /// The name and version that identify this program, for `created by`.
    fn program(&self) -> String {
        concat!("piecemeal ", env!("CARGO_PKG_VERSION")).to_owned()
    }
}

/// How a long piece of work reports, and how it is stopped.
pub struct Work<'a> {
    /// Called now and then from whichever thread works, a few times a second at most.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Looked at often; the work then ends with [`Refusal::Cancelled`] and leaves nothing behind.
    pub cancel: &'a Cancel,
}

/// How far a piece of work is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do; 0 while unknown.
    pub total: u64,
}

/// The parts of a long piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Walking directories.
    Scanning,
    /// Reading and hashing.
    Hashing,
}

/// A torrent to make.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CreateRequest {
    /// A file or a directory; its last component is the torrent's name.
    pub content: PathBuf,
    /// Which pieces and trees to write.
    pub format: Format,
    /// Announce URLs by tier (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// Bytes a piece; `None` chooses by size. A power of two of at least 16 KiB.
    pub piece_length: Option<u64>,
    /// Peers from its trackers only (BEP 27).
    pub private: bool,
    /// The `source` field, which makes info-hashes differ between trackers.
    pub source: Option<String>,
    /// The root certificate in PEM: peers must show one that it signed, and speak TLS alone (`ssl-cert`).
    #[serde(default)]
    pub tls_root: Option<String>,
    /// The `comment` field.
    pub comment: Option<String>,
    /// The `created by` field.
    pub created_by: Option<String>,
    /// The `creation date` field, seconds since 1970; `None` leaves it out.
    pub created: Option<u64>,
    /// Leave out files and directories whose name begins with a dot.
    pub skip_hidden: bool,
}

impl CreateRequest {
    /// A public hybrid torrent of everything in `content`, with no tracker and no date.
    pub fn new(content: impl Into<PathBuf>) -> Self {
        CreateRequest {
            content: content.into(),
            format: Format::Hybrid,
            trackers: Vec::new(),
            web_seeds: Vec::new(),
            piece_length: None,
            private: false,
            source: None,
            tls_root: None,
            comment: None,
            created_by: None,
            created: None,
            skip_hidden: false,
        }
    }
}

/// What generation of the protocol a torrent is for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// BEP 3 only.
    V1,
    /// BEP 52 only.
    V2,
    /// Both, over the same bytes.
    #[default]
    Hybrid,
}

/// A torrent made.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Created {
    /// The bytes of the .torrent file.
    #[serde(with = "json::base64")]
    pub metainfo: Arc<[u8]>,
    /// The torrent's name.
    pub name: String,
    /// Bytes of content.
    pub size: u64,
    /// Files of content, pad files not counted.
    pub files: u32,
    /// Bytes a piece.
    pub piece_length: u64,
    /// Pieces.
    pub pieces: u32,
    /// The v1 info-hash, if it has one.
    #[serde(with = "json::info_hash", default)]
    pub info_hash: Option<InfoHash>,
    /// The v2 info-hash, if it has one.
    #[serde(with = "json::info_hash_v2", default)]
    pub info_hash_v2: Option<InfoHashV2>,
    /// The magnet link, with name and trackers.
    pub magnet: String,
    /// One line each: what was skipped, what readers may trip over.
    pub warnings: Vec<String>,
}

/// Content to hash against a torrent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// The bytes of the .torrent file.
    #[serde(with = "json::base64")]
    pub metainfo: Arc<[u8]>,
    /// The directory the content lives in, as in [`crate::AddTorrent::dir`].
    pub dir: PathBuf,
}

/// How content compares with its torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The torrent's name.
    pub name: String,
    /// Every file in metainfo order, pad files left out.
    pub files: Vec<FileVerdict>,
    /// Pieces that are right.
    pub good_pieces: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// Bytes of content in right pieces.
    pub good_bytes: u64,
    /// Bytes of content in all.
    pub size: u64,
}

impl Verdict {
    /// Every piece is right and every file is as it should be.
    pub fn good(&self) -> bool {
        self.good_pieces == self.pieces && self.files.iter().all(|file| file.state == FileState::Good)
    }
}

/// One file of a verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileVerdict {
    /// Which.
    #[serde(with = "json::file_index")]
    pub file: FileIndex,
    /// Below the torrent's directory, with `/`. Make safe to print.
    pub path: String,
    /// Its size by the torrent.
    pub size: u64,
    /// How it is.
    #[serde(flatten)]
    pub state: FileState,
}

/// How one file compares with its torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum FileState {
    /// Right, to the last byte.
    Good,
    /// The right size, but pieces that touch it are wrong.
    Bad {
        /// How many.
        bad_pieces: u32,
    },
    /// Not there.
    Missing,
    /// Shorter or longer than it should be.
    WrongSize {
        /// Its size on disk, bytes.
        is_size: u64,
    },
    /// There, but it cannot be read, or is no file.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// A question to all trackers of a torrent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AnnounceRequest {
    /// The bytes of the .torrent file.
    #[serde(with = "json::base64")]
    pub metainfo: Arc<[u8]>,
    /// The longest to wait, in whole seconds, for all of them together.
    pub wait_s: u32,
    /// How many peers to ask for.
    pub num_want: u32,
    /// Ask for counts instead (BEP 48).
    #[serde(default)]
    pub scrape: bool,
    /// Which ways it may go.
    #[serde(default)]
    pub net: NetOptions,
}

/// What one tracker said. Texts come from the network: make safe to print.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TrackerAnswer {
    /// Its announce URL.
    pub url: String,
    /// Addresses it gave, in its order.
    pub peers: Vec<SocketAddr>,
    /// Seconds it wants between announces.
    #[serde(default)]
    pub interval_s: Option<u32>,
    /// Peers with everything, by its count.
    #[serde(default)]
    pub seeds: Option<u32>,
    /// Peers without, by its count.
    #[serde(default)]
    pub leeches: Option<u32>,
    /// How often the torrent was completed, by its count; only a scrape tells.
    #[serde(default)]
    pub downloads: Option<u32>,
    /// Its `warning message`.
    #[serde(default)]
    pub warning: Option<String>,
    /// Its `failure reason`, or what went wrong on the way. When set, the rest says nothing.
    #[serde(default)]
    pub error: Option<String>,
}

/// A tracker to start.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TrackerOptions {
    /// Where to listen, for HTTP and UDP; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Seconds between a peer's announces, from a minute to a day; `None`: half an hour.
    #[serde(default)]
    pub interval_s: Option<u32>,
    /// A file of info-hashes that are served, none else; in hex, one a line. `None`: all are.
    #[serde(default)]
    pub allow: Option<PathBuf>,
    /// A file of info-hashes that are not served, whatever the other one says.
    #[serde(default)]
    pub deny: Option<PathBuf>,
    /// A file of keys, one a line, of which a peer must show one (`/PASSKEY/announce`). `None`: none is needed.
    #[serde(default)]
    pub passkeys: Option<PathBuf>,
}

/// A tracker that runs in this process until stopped or dropped.
pub trait RunningTracker: Send {
    /// Its announce URLs, ports as bound. A wildcard address is given as one that others can use where known. Where
    /// passkeys are needed, `PASSKEY` stands for one.
    fn urls(&self) -> Vec<String>;

    /// The same for UDP (BEP 15).
    fn udp_urls(&self) -> Vec<String>;

    /// Counts so far.
    fn stats(&self) -> TrackerStats;

    /// Stops it and waits until its sockets are closed. A second call does nothing.
    fn stop(&mut self);
}

/// What a tracker counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TrackerStats {
    /// Swarms known.
    pub swarms: u64,
    /// Peers in them.
    pub peers: u64,
    /// Announces answered since it started.
    pub announces: u64,
    /// Scrapes answered since it started.
    pub scrapes: u64,
    /// Requests refused or not understood since it started.
    pub refused: u64,
}

/// An engine to start.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct EngineOptions {
    /// Where to listen for peers; port 0 takes a free one, a port in use is refused. Empty: the first free port from
    /// [`EngineOptions::FIRST_PORT`] on, or any, on all addresses of both families.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Memory for content, bytes; `None` chooses by the machine.
    #[serde(default)]
    pub pool_bytes: Option<u64>,
    /// Where resume facts are kept. `None`: nowhere, so that nothing outlives the engine but the content.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Limits over all torrents.
    #[serde(default)]
    pub limits: Limits,
    /// Most peers connected at once, over all torrents; `None` chooses by the machine.
    #[serde(default)]
    pub max_peers: Option<u32>,
    /// Most peers of one torrent; `None`: 100, and never more than of all together.
    #[serde(default)]
    pub max_peers_per_torrent: Option<u32>,
    /// Most peers being called at once, and apart from them most callers that have not said yet what they want; `None`:
    /// 256, fewer where handles are few.
    #[serde(default)]
    pub max_half_open: Option<u32>,
    /// Most calls begun in any second; `None`: 30.
    #[serde(default)]
    pub dial_rate: Option<u32>,
    /// Look for peers in the distributed hash table (BEP 5), and be a part of it. Private torrents never do.
    #[serde(default)]
    pub dht: bool,
    /// Where the distributed hash table begins, as HOST:PORT; empty: where it began last time, and at well-known hosts.
    #[serde(default)]
    pub dht_nodes: Vec<String>,
    /// Look for peers on the local network (BEP 14). Private torrents never do.
    #[serde(default)]
    pub lsd: bool,
    /// Ask the router to pass on to us what comes to a port of its own (PCP, NAT-PMP, UPnP), unless all of `listen` is
    /// loopback.
    #[serde(default)]
    pub port_mapping: bool,
    /// The router to ask; `None`: that of the default route. One on loopback is asked even if all of `listen` is.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Which ways it may go.
    #[serde(default)]
    pub net: NetOptions,
    /// What carries connections with peers.
    #[serde(default)]
    pub transports: Transports,
    /// uTP takes its part of a path beside other traffic, as TCP does, instead of giving way to it: for a network where TCP
    /// would leave uTP nothing.
    #[serde(default)]
    pub utp_competes: bool,
    /// Whether those who call us may or must encrypt; `None`: they may.
    #[serde(default)]
    pub encrypt_in: Option<Encryption>,
    /// Whether we encrypt when we call; `None`: if the other side can.
    #[serde(default)]
    pub encrypt_out: Option<Encryption>,
    /// Lists of addresses that are not talked to, in the P2P, DAT or CIDR format, plain or gzip: files, or http(s) URLs.
    /// Files are read before anything is sent, and again when they change; URLs once a day, if the server has another one
    /// than we, and until one was read for the first time, its list blocks nobody.
    #[serde(default)]
    pub ip_filters: Vec<String>,
    /// Addresses that are not talked to: each one address, network (`1.2.3.0/24`) or range (`1.2.3.4-1.2.3.8`).
    #[serde(default)]
    pub ban: Vec<String>,
}

/// What carries connections with peers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transports {
    /// TCP, and uTP for those whom it does not reach.
    #[default]
    Both,
    /// TCP alone.
    Tcp,
    /// uTP alone (BEP 29), which gives way to all other traffic.
    Utp,
}

/// Whether connections with peers are encrypted (MSE). That hides from whoever sorts traffic what it is; it is no
/// secrecy, and proves nothing about the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Never.
    Off,
    /// If the other side will not have it otherwise.
    Allow,
    /// If the other side can: the handshake; what follows only if it insists.
    Prefer,
    /// Always, and all of it.
    Require,
}

impl EngineOptions {
    /// The port BitTorrent clients have tried first since the beginning.
    pub const FIRST_PORT: u16 = 6881;

    /// The longest a shutdown takes. A user who pressed Ctrl-C waits this long at worst; trackers answer within it or
    /// notice by themselves, resume facts need a tenth of it.
    pub const MAX_FAREWELL: Duration = Duration::from_secs(5);
}
