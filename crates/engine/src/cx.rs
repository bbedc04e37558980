//! All doors of the pure world: what comes in with every call (`Cx`), and what goes out (`Out`).
//!
//! Owns nothing that lasts. The shell fills a `Cx`, calls a Server or a Shard, and drains `Out` after each turn; the
//! simulator does the same with its own clock, links and disks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId, Heard, TrackerStatus};
use piecemeal_metainfo::{Bitfield, FileIndex, InfoHashes, Metainfo, PeerId, PieceIndex, TorrentId};
use piecemeal_package::{BlockPool, Job, ResumeFacts, Start};
use piecemeal_transport::mse::{Ciphers, Sum};
use piecemeal_transport::utp;
use piecemeal_wire::krpc::NodeId;

use crate::outside::Outside;
use crate::rate::Trunk;
use crate::swarm::PeerSource;

pub use piecemeal_metainfo::Time;

/// The one source of randomness of a Server or a Shard, from a seed given at birth.
pub type Rng = rand_chacha::ChaCha20Rng;

/// What every pure entry point is given.
pub struct Cx<'a> {
    /// Read once per turn of the loop.
    pub now: Time,
    /// Dice.
    pub rng: &'a mut Rng,
    /// All memory for content.
    pub pool: &'a mut BlockPool,
    /// What all torrents of the Shard share.
    pub lease: &'a mut Lease,
    /// Where to put what is to happen outside.
    pub out: &'a mut Out,
}

/// What the torrents of one Shard share beside memory.
#[derive(Debug)]
pub struct Lease {
    /// Bytes that may be requested.
    pub down: Trunk,
    /// Bytes that may be loaded to be sent.
    pub up: Trunk,
    /// Bufs that hold Blocks on their way to peers; at most half of the pool.
    pub upload_bufs: usize,
    /// How the world sees us.
    pub outside: Outside,
    /// Who may be talked to.
    pub gate: Gate,
}

/// Where peers from outside reach us by IPv4, because a router passes what comes there on to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// By what the router was asked.
    pub by: ReachedBy,
    /// The router's port.
    pub port: u16,
    /// The router's own address, if it told.
    pub external: Option<IpAddr>,
    /// For how long, if it is not renewed.
    pub lasts: Duration,
}

/// How a router is asked to pass on what comes to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReachedBy {
    /// The Port Control Protocol (RFC 6887).
    Pcp,
    /// The NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP, of an internet gateway device.
    Upnp,
}

/// What a turn wants done: four lanes, drained by the loop after each turn.
///
/// Each is bounded by what one turn can ask: the bytes of one read, the answers of one batch, one heartbeat.
#[derive(Default)]
pub struct Out {
    /// For the disk.
    pub disk: Vec<(TorrentId, Job)>,
    /// For sockets and the HTTP client.
    pub net: Vec<Net>,
    /// For the other side: Shard to Server or Server to Shard.
    pub notes: Vec<Note>,
    /// For whoever listens.
    pub news: Vec<News>,
}

/// One connection; the shell numbers them and never uses a number again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// One attempt to connect; the Server numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DialId(pub u64);

/// What carries the bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Carrier {
    /// A socket of TCP.
    Tcp,
    /// A stream over datagrams (BEP 29).
    Utp,
}

/// By which carriers a peer may be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Road {
    /// Any that is spoken here.
    Any,
    /// uTP alone, at once: the peer calls us at the same time, which makes way through both NATs (BEP 55), or will not
    /// speak by TCP.
    Utp,
    /// TLS over TCP alone: the torrent has a root certificate, by which peers prove that they belong to it.
    Tls,
}

/// Whether handshakes and streams are encrypted (MSE). That hides what they are from whoever sorts traffic, no more: it
/// proves nothing about who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// Never.
    Off,
    /// If the other side will not have it otherwise.
    Allow,
    /// If the other side can.
    Prefer,
    /// Always; the stream as well, by RC4.
    Require,
}

/// What a datagram is for: each may have its own way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The distributed hash table.
    Dht,
    /// A UDP tracker.
    Tracker,
}

/// What is asked of the network.
#[derive(Debug)]
pub enum Net {
    /// Connect; answer with `Server::on_dialed`.
    Dial {
        /// The Server's number for it.
        dial: DialId,
        /// Where to.
        to: SocketAddr,
        /// By what.
        carrier: Carrier,
        /// The torrent whose certificates both sides show each other, by TLS over the carrier; `None`: no TLS.
        tls: Option<TorrentId>,
        /// Give up after this long.
        patience: Duration,
    },
    /// Do this arithmetic on another thread; answer with `Server::on_total`.
    Sum(ConnId, Box<Sum>),
    /// There is something to send: ask `with_sealed` when the socket can take it.
    Write(ConnId),
    /// The thirst is over: offer the bytes that were not eaten, then read again.
    Read(ConnId),
    /// Close without a word; there will be no `on_closed` for it.
    Close(ConnId, Goodbye),
    /// Send this; whether it arrives nobody knows.
    Datagram {
        /// What for.
        purpose: Purpose,
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send this to a group of the local network.
    Multicast {
        /// Which group.
        group: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Ask a tracker; answer with `Shard::on_fetched`, or, once the name of a UDP tracker is looked up, with
    /// `Server::on_resolved`.
    Fetch(TorrentId, Fetch),
}

/// Bytes of a file, to be sent without passing through our memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileSpan {
    /// Whose file.
    pub torrent: TorrentId,
    /// Which file.
    pub file: FileIndex,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

/// A slice of what a connection wants to send next.
#[derive(Debug)]
pub enum Sending<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes of a file.
    File(FileSpan),
}

/// How much of the bytes offered was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ate {
    /// Bytes taken, from the front.
    pub bytes: usize,
    /// True: no Buf was free. Keep the rest, stop reading, wait for [`Net::Read`].
    pub thirsty: bool,
}

/// Why a connection ended: a peer's fault, or nobody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goodbye {
    /// The other side closed.
    Closed,
    /// The network failed; the operating system's words.
    Failed(String),
    /// Content that was promised to it could not be read; the operating system's words.
    Unreadable(String),
    /// It broke the protocol; what it did.
    Broke(&'static str),
    /// It sent content that is not the torrent's.
    Poisoned,
    /// Nobody at its address may be talked to.
    Banned,
    /// It did not finish its handshake, or said nothing, for too long.
    Silent,
    /// It asked for a torrent that is not here, or is paused.
    Unknown,
    /// It is this very program.
    Ourselves,
    /// The same peer is connected already.
    Duplicate,
    /// There are connections enough.
    Crowded,
    /// Neither side has anything for the other.
    Useless,
    /// The torrent was paused, removed, or the program ends.
    Leaving,
}

/// Why a connection by uTP is no more, in the words of all connections.
impl From<utp::Why> for Goodbye {
    fn from(why: utp::Why) -> Goodbye {
        match why {
            utp::Why::Done => Goodbye::Closed,
            utp::Why::Reset => Goodbye::Failed("the peer ended the connection".into()),
            utp::Why::Silent | utp::Why::NoAnswer => Goodbye::Failed("nobody answered".into()),
            utp::Why::Unreachable => Goodbye::Failed("nobody is there".into()),
        }
    }
}

/// Messages between Server, Shard, and whoever commands them.
pub enum Note {
    /// To a Shard: here is a new torrent.
    Seat(Box<Seating>),
    /// To a Shard: here is a magnet link.
    Seek(Box<Seeking>),
    /// To a Shard: peers of a torrent, found by the Server.
    Found {
        /// Of which torrent.
        torrent: TorrentId,
        /// Where they listen.
        peers: Vec<SocketAddr>,
        /// How they were found.
        source: PeerSource,
    },
    /// To a Shard: what a UDP tracker answered, as an HTTP tracker would have, or why it did not.
    Fetched {
        /// For which torrent.
        torrent: TorrentId,
        /// Which request.
        fetch: FetchId,
        /// The answer.
        result: Result<Vec<u8>, FetchFailure>,
    },
    /// To a Shard: end this torrent; answered by [`News::Gone`].
    Unseat {
        /// Which.
        torrent: TorrentId,
        /// Delete its files as well.
        delete: bool,
    },
    /// To a Shard: change how a torrent runs.
    Change(TorrentId, Change),
    /// To a Shard: a peer that finished its handshake.
    Hand(Box<Handed>),
    /// To a Shard: a dial it asked for came to nothing.
    DialFailed {
        /// For which torrent.
        torrent: TorrentId,
        /// Where to.
        to: SocketAddr,
        /// Why.
        why: Goodbye,
    },
    /// To a Shard: its share of the global limits, in bytes/s; 0 is no limit.
    Lease {
        /// Download.
        down: u64,
        /// Upload.
        up: u64,
    },
    /// To a Shard: peers reach us elsewhere by IPv4 now, so all torrents announce again.
    Moved,
    /// To a Shard: how the world sees us.
    Outside(Outside),
    /// To a Shard: who may be talked to from now on. Whoever is not leaves.
    Gate(Gate),
    /// To a Server: somebody says that we are at this address (BEP 10 `yourip`, BEP 24 `external ip`).
    SeenAs {
        /// Which address.
        ip: IpAddr,
        /// Who says so.
        by: SocketAddr,
    },
    /// To a Server: connect and shake hands for this torrent.
    Dial {
        /// For which torrent.
        torrent: TorrentId,
        /// Where to.
        to: SocketAddr,
        /// By what.
        road: Road,
    },
    /// To a Server: a peer says that it has a node of the DHT here (BEP 5, "port").
    Node(SocketAddr),
    /// To a Server: a connection it handed over has ended.
    Left {
        /// Which.
        conn: ConnId,
    },
    /// To a Server: this torrent takes connections (or no longer).
    Open {
        /// Which.
        torrent: TorrentId,
        /// Whether it takes them.
        open: bool,
    },
}

/// A torrent as it is given to a Shard.
pub struct Seating {
    /// Its number.
    pub torrent: TorrentId,
    /// What it is.
    pub meta: Arc<Metainfo>,
    /// By file: what the user wants.
    pub wanted: Arc<[bool]>,
    /// What was known of its content when it last ran.
    pub facts: Option<ResumeFacts>,
    /// How far to believe those facts.
    pub start: Start,
    /// Opaque mark of this boot of the machine; facts of another boot are believed less.
    pub boot: [u8; 16],
    /// How it runs.
    pub options: Options,
    /// Peers the user named.
    pub peers: Vec<SocketAddr>,
    /// Addresses where peers of this torrent were met a moment ago.
    pub known: Vec<SocketAddr>,
    /// Announce URLs beside those of the metainfo, each a tier of its own, after the others.
    pub trackers: Vec<String>,
}

/// A torrent of which only the name is known: its info dictionary is to be fetched from peers (BEP 9).
pub struct Seeking {
    /// Its number.
    pub torrent: TorrentId,
    /// What the dictionary must hash to.
    pub hashes: InfoHashes,
    /// Announce URLs, each a tier of its own.
    pub trackers: Vec<String>,
    /// Peers the user or the link named.
    pub peers: Vec<SocketAddr>,
    /// Take leave of the trackers when it is found: nobody is about to download it.
    pub leave: bool,
}

/// How a torrent runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Not running.
    pub paused: bool,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// Download limit in bytes/s; 0 is none.
    pub down_limit: u64,
    /// Upload limit in bytes/s; 0 is none.
    pub up_limit: u64,
}

/// A change to a torrent that is seated.
pub enum Change {
    /// Run in another way.
    Options(Options),
    /// By file: what the user wants now.
    Wanted(Arc<[bool]>),
    /// Peers the user named.
    AddPeers(Vec<SocketAddr>),
    /// Go on after trouble, as far as that helps.
    Retry,
    /// Verify all content again.
    Recheck,
    /// Ask the trackers now.
    Announce,
    /// Somebody looks: while the torrent does not run, its trackers may be asked for counts (BEP 48).
    Look,
    /// The network was away and is back: failures and pauses of that time count for nothing.
    Reconnect,
    /// Make resume facts now; answered by [`News::Facts`].
    Save,
}

/// A peer whose handshake is done.
pub struct Handed {
    /// Its connection.
    pub conn: ConnId,
    /// For which torrent.
    pub torrent: TorrentId,
    /// Its address.
    pub addr: SocketAddr,
    /// Its name.
    pub peer_id: PeerId,
    /// What it can do.
    pub reserved: piecemeal_wire::handshake::Reserved,
    /// True: we called it.
    pub outgoing: bool,
    /// What carries it.
    pub carrier: Carrier,
    /// By what its stream is encrypted from here on. Whoever carries the connection takes them.
    pub ciphers: Option<Box<Ciphers>>,
    /// Bytes that came behind the handshake.
    pub leftover: Vec<u8>,
}

/// What commands the engine takes, by way of the Server.
pub enum Command {
    /// A new torrent.
    Add(Box<Seating>),
    /// Fetch the info dictionary of a magnet link; answered by [`News::Metadata`] and [`News::Gone`].
    Seek(Box<Seeking>),
    /// End a torrent.
    Remove {
        /// Which.
        torrent: TorrentId,
        /// Delete its files as well.
        delete: bool,
    },
    /// Change a torrent.
    Change(TorrentId, Change),
    /// Global limits in bytes/s; 0 is none.
    Limits {
        /// Download.
        down: u64,
        /// Upload.
        up: u64,
    },
    /// Addresses where nodes of the DHT may be: of the last run, of well-known hosts, of a torrent.
    Nodes(Vec<SocketAddr>),
    /// A router maps our port, still or again; or none does. Told again as [`News::Reach`]. When that changes where peers
    /// reach us, all torrents announce again.
    Reach(Option<Reach>),
    /// Who may be talked to from now on, in the place of [`Settings::gate`] or the last of these. Whoever is not leaves at
    /// once.
    Gate(Gate),
    /// Leave all swarms: stopped announces, resume facts, closed files; each torrent answers with [`News::Gone`].
    Shutdown,
}

/// What a user may hear.
#[derive(Debug)]
pub enum News {
    /// Once a second for a running torrent, and at each change of state.
    Snapshot(Box<Snapshot>),
    /// A Piece was verified.
    Piece(TorrentId, PieceIndex),
    /// All that is wanted is there and verified.
    Complete(TorrentId),
    /// The torrent stopped for a reason, or (`None`) goes on.
    Trouble(TorrentId, Option<piecemeal_package::Trouble>),
    /// A peer is banned, and why.
    Banned(TorrentId, SocketAddr, Goodbye),
    /// A Piece failed its hash, and is fetched again.
    PieceBad(TorrentId, PieceIndex),
    /// A tracker said this, or failed so.
    Tracker(TorrentId, Heard),
    /// How the search for the info dictionary of a magnet link goes, when that changed.
    Seeking {
        /// Of which.
        torrent: TorrentId,
        /// Peers connected.
        peers: usize,
        /// Addresses known.
        known: usize,
    },
    /// The info dictionary of a magnet link, hashed right and not yet judged. The search for it is over.
    Metadata {
        /// Of which.
        torrent: TorrentId,
        /// The raw dictionary.
        info: Arc<[u8]>,
        /// Where peers of it were met.
        known: Vec<SocketAddr>,
    },
    /// To be kept for the next run.
    Facts(TorrentId, Box<ResumeFacts>),
    /// What is to be kept of the DHT for the next run; said once, when all leave.
    Nodes(KeptNodes),
    /// Where peers from outside reach us by a router's help; `None`: no router helps.
    Reach(Option<Reach>),
    /// The torrent has left; nothing more is heard of it.
    Gone(TorrentId),
    /// The one interface that may be used went away, or came. Told by the shell.
    Interface {
        /// What the system calls it.
        name: String,
        /// It is there.
        there: bool,
    },
}

/// What is kept of the DHT over a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeptNodes {
    /// Our ids: IPv4, IPv6.
    pub ids: [Option<NodeId>; 2],
    /// Nodes that answered; at most some hundreds of each family.
    pub nodes: Vec<SocketAddr>,
}

/// What a torrent is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Looking at its files.
    Opening,
    /// Verifying content that was there.
    Checking {
        /// Pieces that were looked at.
        done: u32,
        /// Pieces to look at.
        total: u32,
    },
    /// Fetching.
    Downloading,
    /// Complete, and giving.
    Seeding,
    /// Not running.
    Paused,
    /// Stopped by the disk; see [`News::Trouble`].
    Troubled,
    /// Saying goodbye.
    Leaving,
}

/// How a torrent stands, once a second.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which torrent.
    pub torrent: TorrentId,
    /// What it is doing.
    pub state: State,
    /// The user paused it; `state` may still tell of opening and checking.
    pub paused: bool,
    /// Bytes the user wants.
    pub wanted_bytes: u64,
    /// Of those, verified.
    pub have_bytes: u64,
    /// Pieces of the torrent, and how many of them are verified.
    pub pieces: u32,
    /// Verified pieces.
    pub have_pieces: u32,
    /// Which pieces are verified; `None` if that did not change since the last Snapshot.
    pub have: Option<Arc<Bitfield>>,
    /// Content received, over all runs, in bytes.
    pub downloaded: u64,
    /// Content sent, over all runs, in bytes.
    pub uploaded: u64,
    /// Content received in vain: twice, or bad.
    pub wasted: u64,
    /// Of the content received, what came from peers that were not seeds at the time.
    pub from_leeches: u64,
    /// Bytes/s received.
    pub down_rate: u64,
    /// Bytes/s sent.
    pub up_rate: u64,
    /// Peers connected.
    pub peers: Vec<PeerSnapshot>,
    /// Addresses known.
    pub known: usize,
    /// Trackers.
    pub trackers: Vec<TrackerStatus>,
    /// When this was true.
    pub at: Time,
}

/// How a peer stands.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its address.
    pub addr: SocketAddr,
    /// The program it says it is.
    pub client: String,
    /// Bytes/s from it.
    pub down_rate: u64,
    /// Bytes/s to it.
    pub up_rate: u64,
    /// Content from it.
    pub downloaded: u64,
    /// Content to it.
    pub uploaded: u64,
    /// Pieces it has.
    pub pieces: u32,
    /// It has all.
    pub seed: bool,
    /// We want something it has.
    pub interested: bool,
    /// It lets us ask.
    pub unchoked: bool,
    /// It wants something we have.
    pub wants_us: bool,
    /// We let it ask.
    pub served: bool,
    /// We let it ask as a try, not for what it gave.
    pub optimistic: bool,
    /// It stopped giving.
    pub snubbed: bool,
    /// We called it.
    pub outgoing: bool,
    /// What carries it.
    pub carrier: Carrier,
    /// Its stream is encrypted.
    pub encrypted: bool,
}

/// Dials in any one second, unless [`Settings`] say otherwise; home routers lose track of more (libtorrent's
/// `connection_speed` is 30).
pub const DIALS_A_SECOND: usize = 30;

/// Settings of a Server and its Shards, fixed for their life.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name we go by.
    pub peer_id: PeerId,
    /// The port we listen on, which peers are told of until [`Command::Reach`] names another; 0: none.
    pub port: u16,
    /// IPv4 peers can reach us, and we them.
    pub ipv4: bool,
    /// IPv6 peers can reach us, and we them.
    pub ipv6: bool,
    /// Connections over all torrents.
    pub max_conns: usize,
    /// Connections of one torrent.
    pub max_conns_per_torrent: usize,
    /// Dials under way at once, and apart from them handshakes of callers.
    pub max_pending: usize,
    /// Of those callers, from one address.
    pub max_pending_per_ip: usize,
    /// Dials in any one second; at least one.
    pub dials_a_second: usize,
    /// Peers are called by TCP.
    pub tcp: bool,
    /// Peers are called by uTP (BEP 29).
    pub utp: bool,
    /// Whether callers may or must encrypt.
    pub encrypt_in: Encryption,
    /// Whether we encrypt when we call.
    pub encrypt_out: Encryption,
    /// Peers a torrent gives to at once, beside the optimistic one.
    pub upload_slots: usize,
    /// Content may go out as places in files, which the shell reads when the socket takes them; otherwise it is read into
    /// Bufs first.
    pub from_files: bool,
    /// Peers are looked for in the DHT (BEP 5), and we are a part of it.
    pub dht: bool,
    /// Our ids in the DHT of the last run: IPv4, IPv6.
    pub dht_ids: [Option<NodeId>; 2],
    /// Peers are looked for on the local network (BEP 14).
    pub lsd: bool,
    /// Who may be talked to, until [`Command::Gate`] says otherwise.
    pub gate: Gate,
    /// The `User-Agent`-like name told to peers (BEP 10, "v").
    pub client: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            peer_id: PeerId(*b"-PM0100-000000000000"),
            port: 0,
            ipv4: true,
            ipv6: true,
            max_conns: 500,
            max_conns_per_torrent: 100,
            max_pending: 256,
            max_pending_per_ip: 8,
            dials_a_second: DIALS_A_SECOND,
            tcp: true,
            utp: false,
            encrypt_in: Encryption::Allow,
            encrypt_out: Encryption::Off,
            upload_slots: 4,
            from_files: true,
            dht: false,
            dht_ids: [None; 2],
            lsd: false,
            gate: Gate::default(),
            client: concat!("piecemeal ", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}
