//! A running engine, as a user interface sees it.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use piecemeal_metainfo::TorrentId;
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::event::Event;
use crate::filter::IpFilterStatus;
use crate::refusal::Refusal;
use crate::resolve::{ResolveRequest, Resolved};
use crate::status::{Details, Mapping, Status};
use crate::torrent::{AddTorrent, Content, Limits, Options};

/// The torrents of a running engine: in this process, or behind a socket.
///
/// Any thread may call. Calls answer when the command is accepted, not when it has taken effect; effects are heard
/// through [`Client::events`]. Only [`Client::resolve`] and [`Client::shutdown`] wait for the network. Dropping a client that was not shut down stops its threads without farewell.
pub trait Client: Send + Sync {
    /// Adds a torrent and starts it unless asked not to. Refused when the metainfo does not parse, a selected file
    /// does not exist, or the same info-hash is there already.
    fn add(&self, torrent: AddTorrent) -> Result<TorrentId, Refusal>;

    /// Fetches the description of a magnet link's torrent from peers. Blocks until it is there, until cancelled, or until
    /// the engine shuts down; [`Event::Resolving`] tells how the search goes. Adds nothing.
    ///
    /// Refused when the link does not parse or names a torrent of v2 alone, when the torrent is there already or is being
    /// resolved, and when the description is no torrent that can be used.
    fn resolve(&self, request: ResolveRequest, cancel: &Cancel) -> Result<Resolved, Refusal>;

    /// Disconnects its peers and says `stopped` to its trackers. Paused already: nothing happens.
    fn pause(&self, id: TorrentId) -> Result<(), Refusal>;

    /// Starts a paused torrent, or one in trouble, again.
    fn resume(&self, id: TorrentId) -> Result<(), Refusal>;

    /// Removes a torrent from the engine, its resume facts too.
    fn remove(&self, id: TorrentId, content: Content) -> Result<(), Refusal>;

    /// Hashes everything that is there again.
    fn recheck(&self, id: TorrentId) -> Result<(), Refusal>;

    /// Announces to all trackers now, as far as they allow.
    fn announce(&self, id: TorrentId) -> Result<(), Refusal>;

    /// Addresses to try.
    fn add_peers(&self, id: TorrentId, peers: &[SocketAddr]) -> Result<(), Refusal>;

    /// Changes what a torrent was added with.
    fn set_options(&self, id: TorrentId, options: Options) -> Result<(), Refusal>;

    /// How a torrent stands, at most a second old, and never older than an event its caller has heard: who hears
    /// `Complete` and asks gets the totals of the completed torrent.
    fn status(&self, id: TorrentId) -> Result<Status, Refusal>;

    /// The same with peers, trackers and files.
    fn details(&self, id: TorrentId) -> Result<Details, Refusal>;

    /// How all torrents stand, in order of adding.
    fn list(&self) -> Vec<Status>;

    /// A new listener. It hears what happens from now on, and before all that the interface is away, if it is.
    fn events(&self) -> Box<dyn Events>;

    /// Limits over all torrents.
    fn set_limits(&self, limits: Limits);

    /// Where peers can reach us; ports as bound, never 0.
    fn listening(&self) -> Vec<SocketAddr>;

    /// Where peers from outside reach us, if a router passes on to us what comes there; [`Event::Mapping`] tells of changes.
    fn mapping(&self) -> Option<Mapping>;

    /// Talks to nobody at this address, network (`1.2.3.0/24`) or range (`1.2.3.4-1.2.3.8`), from now on: whoever is
    /// connected is sent away. False if it is banned already.
    fn ban(&self, range: &str) -> Result<bool, Refusal>;

    /// Lifts a ban, which must be one of [`Client::bans`]; false if it is none. What lists of the IP filter block stays
    /// blocked.
    fn unban(&self, range: &str) -> Result<bool, Refusal>;

    /// What is banned by hand, in order of addresses.
    fn bans(&self) -> Vec<String>;

    /// How the IP filter stands.
    fn ip_filter(&self) -> IpFilterStatus;

    /// Ends well, within `deadline` and never more than [`crate::EngineOptions::MAX_FAREWELL`]: closes peers, says
    /// `stopped` to the trackers, writes resume facts. Blocks until done or late; threads are gone afterwards either
    /// way, listeners hear `Gone` for each torrent and then [`Heard::Closed`]. A second call returns at once.
    fn shutdown(&self, deadline: Duration) -> Farewell;
}

/// A listener to the news of one engine. Its queue is bounded: who does not ask in time loses the oldest.
pub trait Events: Send {
    /// The next event; waits for it at most `wait`.
    fn next(&mut self, wait: Duration) -> Heard;

    /// The next event, if there is one. [`Heard::Nothing`]: `waker`, that of the last call alone, is woken once when
    /// there is something to hear. So who listens to several can sleep until one of them has news.
    fn poll(&mut self, waker: &Waker) -> Heard;
}

/// What a listener got.
#[derive(Clone, PartialEq, Debug)]
pub enum Heard {
    /// This. [`Event::Lost`] comes in the place of what was lost.
    Event(Event),
    /// Nothing in time.
    Nothing,
    /// The engine has shut down; nothing will come.
    Closed,
}

/// How a shutdown went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Farewell {
    /// Torrents whose resume facts could not be written in time: they will be checked when next opened.
    pub unsaved: u32,
    /// Trackers that did not hear or confirm `stopped` in time.
    pub unannounced: u32,
}
