//! What a user interface may know: requests, answers, events, and the client traits.
//!
//! [`Client`] is a running engine and its torrents; [`Tools`] is the work that needs no swarm, and the way to start
//! a `Client`. A user interface is written against these two and nothing else, so it cannot tell whether the engine
//! runs in its own process or behind a socket.
//!
//! Owns the words both sides speak, and their JSON: `snake_case`, enums tagged, ids as numbers, info-hashes as hex,
//! file contents as base64. Owns no behaviour: whoever implements the traits (the session) decides, whoever calls
//! them (the commands) shows.
//!
//! Units, everywhere: sizes in bytes, rates in bytes per second, spans of time in whole seconds, each with the unit
//! in the name where the type does not say it.
#![forbid(unsafe_code)]

mod cancel;
mod client;
mod dht;
mod doctor;
mod event;
mod filter;
mod json;
mod net;
mod refusal;
mod resolve;
mod status;
mod tools;
mod torrent;

pub use cancel::{Cancel, OnCancel};
pub use client::{Client, Events, Farewell, Heard};
pub use dht::{
    DhtAsk, DhtBinding, DhtFinding, DhtId, DhtKey, DhtNode, DhtRequest, DhtScrape, DhtSecret, DhtSign,
    DhtSigned, DhtSummary, IpFamily,
};
pub use doctor::{Answer, Check, Diagnosis, DoctorRequest, InterfaceState, ProxyState, SeenAs, Way, WayOf};
pub use event::{Event, TrackerOutcome};
pub use filter::{IpFilterStatus, IpList};
pub use net::{Carried, NetOptions, Proxy, ProxyKind};
pub use refusal::Refusal;
pub use resolve::{ResolveRequest, Resolved};
pub use status::{
    Details, FileStatus, Mapping, MappingProtocol, PeerFlags, PeerStatus, State, Status, Totals,
    TrackerState, TrackerStatus, Trouble, TroubleKind,
};
pub use tools::{
    AnnounceRequest, CreateRequest, Created, Encryption, EngineOptions, FileState, FileVerdict, Format,
    Phase, Progress, RunningTracker, Tools, TrackerAnswer, TrackerOptions, TrackerStats, Transports, Verdict,
    VerifyRequest, Work,
};
pub use torrent::{AddTorrent, Content, Limits, Options, Selection, TlsIdentity, Verify};

/// One torrent of a running engine, from [`Client::add`].
pub use piecemeal_metainfo::{FileIndex, InfoHash, InfoHashV2, PieceIndex, TorrentId};
