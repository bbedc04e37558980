//! The network between hosts: what happens when, connections as two pipes, and datagrams.
//!
//! Owns the clock, the queue of all that is to come, links, and each host's share of its access line. Who a host is and
//! what it does with bytes is `node`'s and `peer`'s.
//!
//! A host's lines are shared by all its connections and datagrams, up and down; a link has its own latency. Bytes of one
//! direction stay in order, everything else may overtake.
//!
//! - `pipe`: one direction of a connection. - `datagrams`: what becomes of each. - `streams`: connections that datagrams
//!   carry, which arrive here only to be looked after.

mod datagrams;
mod pipe;
mod streams;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId};
use piecemeal_engine::cx::ConnId;
use piecemeal_metainfo::{Time, TorrentId};

use crate::dice::Dice;
use crate::disk::Ticket;
use crate::tap::Taps;
use crate::trace::Trace;
pub use datagrams::{Datagram, Passed};
pub use pipe::Pipe;
use streams::{Stream, StreamKey};

/// Who is on the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostId(pub u32);

/// A connection, or an attempt at one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId(pub u32);

/// Which end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// Who dialed.
    Caller,
    /// Who was dialed.
    Callee,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }

    fn at(self) -> usize {
        self as usize
    }
}

/// How a link ends for the one who hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// After the last byte.
    Closed,
    /// At once, and bytes that were not read are lost.
    Reset,
}

/// The life of a host: what was planned for an earlier one is void.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life(pub u32);

/// What is to come.
#[derive(Debug)]
pub enum Event {
    /// Somebody knocks.
    Knock(LinkId),
    /// The knocking was answered.
    Answer(LinkId, bool),
    /// Bytes are before this side's line.
    Lands(LinkId, Side, usize),
    /// Bytes arrive at this side.
    Bytes(LinkId, Side, usize),
    /// The other side has ended it; this side hears of it.
    End(LinkId, Side, Ending),
    /// This side can write again.
    Room(LinkId, Side),
    /// A datagram is before its host's line.
    Datagram(Datagram),
    /// A datagram arrives.
    Heard(Datagram),
    /// For a host.
    Host(HostId, Life, Mail),
    /// The world looks around.
    Audit,
}

/// What comes to one host.
#[derive(Debug)]
pub enum Mail {
    /// A dial took too long.
    Late(ConnId),
    /// A Job is done.
    Done(Ticket),
    /// A request reaches the tracker.
    Fetch(TorrentId, Fetch),
    /// The name of a UDP tracker was looked up.
    Resolved(TorrentId, Fetch, SocketAddr),
    /// The tracker's answer is back.
    Fetched(TorrentId, FetchId, Result<Vec<u8>, FetchFailure>),
    /// Something may be due.
    Beat(Time),
    /// A stream over datagrams may have something to do.
    Streams(Time),
    /// More is to be written.
    Turn,
    /// A scripted peer wanted to be woken, for this link.
    Wake(LinkId),
}

/// A connection.
struct Link {
    from: SocketAddr,
    to: SocketAddr,
    /// Datagrams carry it. Its pipes hold what was written and not read.
    stream: Option<Stream>,
    ends: [Option<HostId>; 2],
    /// By the side that writes.
    pipes: [Pipe; 2],
    latency: Duration,
}

/// A host's line.
#[derive(Clone, Copy, Debug)]
struct Access {
    up: u64,
    down: u64,
    up_free: Time,
    down_free: Time,
}

/// Bytes of a connection that wait before a slow line: no more than it sends in this time, or a Block.
const BLOAT: Duration = Duration::from_secs(2);
const LEAST_WINDOW: usize = 16 << 10;

/// How links are.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// One way, at least and at most; each link has its own.
    pub latency: (Duration, Duration),
    /// Added to it anew for each write, at most.
    pub jitter: Duration,
    /// Bytes that fit into one direction of a link, at least and at most.
    pub window: (usize, usize),
    /// Of a hundred datagrams, so many are lost.
    pub loss: usize,
    /// Of a hundred datagrams, so many come twice.
    pub doubled: usize,
    /// Of a hundred datagrams, so many are held back so long that others pass.
    pub late: usize,
    /// Bytes of the largest datagram that passes in one piece. A larger one vanishes without a word, unless routers may
    /// fragment it.
    pub mtu: usize,
}

impl Default for Weather {
    fn default() -> Weather {
        Weather {
            latency: (Duration::from_millis(2), Duration::from_millis(120)),
            jitter: Duration::from_millis(5),
            window: (16 << 10, 256 << 10),
            loss: 0,
            doubled: 0,
            late: 0,
            // Ethernet's 1500 less the headers of IP and UDP.
            mtu: 1472,
        }
    }
}

/// See the module.
pub struct Net {
    /// The world's time, which no host reads.
    pub now: Time,
    /// How new links are.
    pub weather: Weather,
    /// All chance of the network.
    pub dice: Dice,
    /// What happened.
    pub trace: Trace,
    /// What should not have happened; the first counts.
    pub blame: Option<String>,
    /// What was said on each link.
    pub taps: Taps,
    /// Some engine had News since this was last looked at.
    pub heard_news: bool,
    queue: BinaryHeap<Reverse<Entry>>,
    serial: u64,
    links: Vec<Option<Link>>,
    lines: Vec<Access>,
    listeners: BTreeMap<SocketAddr, HostId>,
    /// Hosts that nobody can call, by where they are and whom they sent datagrams to, and when last.
    holes: BTreeMap<(SocketAddr, SocketAddr), (HostId, Time)>,
    /// What a datagram takes at least between two hosts, one way.
    ways: BTreeMap<(IpAddr, IpAddr), Duration>,
    /// What became of the datagrams of one host to another.
    passed: BTreeMap<(SocketAddr, SocketAddr), Passed>,
    /// Connections that datagrams carry.
    streams: BTreeMap<StreamKey, LinkId>,
}

struct Entry {
    when: Time,
    serial: u64,
    event: Event,
}

impl Entry {
    fn key(&self) -> (Time, u64) {
        (self.when, self.serial)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Net {
    /// An empty network.
    pub fn new(dice: Dice, trace: Trace) -> Net {
        Net {
            now: Time::ZERO,
            weather: Weather::default(),
            dice,
            trace,
            blame: None,
            taps: Taps::default(),
            heard_news: false,
            queue: BinaryHeap::new(),
            serial: 0,
            links: Vec::new(),
            lines: Vec::new(),
            listeners: BTreeMap::new(),
            holes: BTreeMap::new(),
            ways: BTreeMap::new(),
            passed: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// A new host; bytes/s up and down.
    pub fn join(&mut self, up: u64, down: u64) -> HostId {
        self.lines.push(Access { up, down, up_free: Time::ZERO, down_free: Time::ZERO });
        HostId(self.lines.len() as u32 - 1)
    }

    /// Who knocks at `addr` finds `host`.
    pub fn listen(&mut self, addr: SocketAddr, host: HostId) {
        self.listeners.insert(addr, host);
    }

    /// Who knocks at `addr` is refused.
    pub fn deafen(&mut self, addr: SocketAddr) {
        self.listeners.remove(&addr);
    }

    /// Plans an event.
    pub fn plan(&mut self, when: Time, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse(Entry { when: when.max(self.now), serial: self.serial, event }));
    }

    /// The next event, if it comes before `until`; the clock moves there.
    pub fn next(&mut self, until: Time) -> Option<Event> {
        let due = self.queue.peek().filter(|Reverse(entry)| entry.when <= until);
        if due.is_none() {
            self.now = self.now.max(until);
            return None;
        }
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.when;
        Some(entry.event)
    }

    /// Something is wrong.
    pub fn blame(&mut self, what: impl FnOnce() -> String) {
        if self.blame.is_none() {
            self.blame = Some(format!("{:.6} s: {}", self.now.nanos() as f64 / 1e9, what()));
        }
    }

    /// Knocks at `to`.
    pub fn dial(&mut self, host: HostId, from: SocketAddr, to: SocketAddr) -> LinkId {
        let id = LinkId(self.links.len() as u32);
        let weather = self.weather;
        let latency = weather.latency.0 + self.dice.span(weather.latency.1.saturating_sub(weather.latency.0));
        let window = self.dice.pick(weather.window.0..weather.window.1 + 1);
        let from = SocketAddr::new(from.ip(), 20_000 + (id.0 % 40_000) as u16);
        let pipes = [Pipe::new(bounded(self.lines[host.0 as usize].up, window)), Pipe::new(window)];
        self.links.push(Some(Link { from, to, stream: None, ends: [Some(host), None], pipes, latency }));
        self.plan(self.now + latency, Event::Knock(id));
        id
    }

    /// Somebody's knocking arrives: who is there, and who knocks. Answered at once if nobody is.
    pub(crate) fn knocked(&mut self, id: LinkId) -> Option<(HostId, SocketAddr)> {
        let now = self.now;
        let link = self.links.get(id.0 as usize)?.as_ref()?;
        link.ends[0]?;
        let host = self.listeners.get(&link.to).copied();
        let link = self.links.get_mut(id.0 as usize)?.as_mut()?;
        link.ends[1] = host;
        if let Some(host) = host {
            let window = bounded(self.lines[host.0 as usize].up, link.pipes[1].room());
            link.pipes[1] = Pipe::new(window);
        }
        let (from, when) = (link.from, now + link.latency);
        self.plan(when, Event::Answer(id, host.is_some()));
        host.map(|host| (host, from))
    }

    /// Whose end of a link this is, if it is still open.
    pub fn end_of(&self, id: LinkId, side: Side) -> Option<HostId> {
        self.links.get(id.0 as usize)?.as_ref()?.ends[side.at()]
    }

    /// Whether a write would find room.
    pub fn room(&mut self, id: LinkId, side: Side) -> usize {
        let Some(link) = self.link(id) else { return 0 };
        let room = link.pipes[side.at()].room();
        link.pipes[side.at()].full = room == 0;
        room
    }

    /// Whether what `side` writes finds no room.
    pub fn is_full(&self, id: LinkId, side: Side) -> bool {
        let link = self.links.get(id.0 as usize).and_then(Option::as_ref);
        link.is_some_and(|link| match link.stream {
            None => link.pipes[side.at()].room() == 0,
            Some(_) => link.pipes[side.at()].full,
        })
    }

    /// Writes; takes as much as fits. After a take of less, [`Event::Room`] tells of room.
    pub fn send(&mut self, id: LinkId, side: Side, bytes: &[u8]) -> usize {
        let (now, jitter) = (self.now, self.weather.jitter);
        let jitter = self.dice.span(jitter);
        let Some(link) = self.links.get_mut(id.0 as usize).and_then(Option::as_mut) else { return 0 };
        let Some(own) = link.ends[side.at()] else { return 0 };
        if link.ends[side.other().at()].is_none() {
            // It went away, and we will hear of it.
            return bytes.len();
        }
        let pipe = &mut link.pipes[side.at()];
        let took = pipe.take(bytes);
        pipe.full = took < bytes.len();
        if took == 0 {
            return 0;
        }
        let line = &mut self.lines[own.0 as usize];
        line.up_free = line.up_free.max(now) + transfer(took, line.up);
        pipe.last = pipe.last.max(line.up_free + link.latency + jitter);
        let when = pipe.last;
        self.plan(when, Event::Lands(id, side.other(), took));
        took
    }

    /// Bytes wait for this side's line. True: it is free, and they are there.
    pub(crate) fn landed(&mut self, id: LinkId, side: Side, bytes: usize) -> bool {
        let Some(host) = self.end_of(id, side) else { return false };
        let (now, line) = (self.now, &mut self.lines[host.0 as usize]);
        let free = line.down_free <= now;
        let when = line.down_free.max(now);
        line.down_free = when + transfer(bytes, line.down);
        if !free {
            self.plan(when, Event::Bytes(id, side, bytes));
            if let Some(link) = self.link(id) {
                let last = &mut link.pipes[side.other().at()].last;
                *last = when.max(*last);
            }
        }
        free
    }

    /// Bytes arrived at `side`; they can be read now.
    pub(crate) fn arrived(&mut self, id: LinkId, side: Side, bytes: usize) {
        if let Some(link) = self.link(id) {
            link.pipes[side.other().at()].arrive(bytes);
        }
    }

    /// What `side` can read.
    pub fn readable(&self, id: LinkId, side: Side) -> &[u8] {
        let link = self.links.get(id.0 as usize).and_then(Option::as_ref);
        link.map_or(&[], |link| link.pipes[side.other().at()].readable())
    }

    /// `side` read so many bytes.
    pub fn consume(&mut self, id: LinkId, side: Side, bytes: usize) {
        let Some(link) = self.link(id) else { return };
        let pipe = &mut link.pipes[side.other().at()];
        pipe.consume(bytes);
        if pipe.full && pipe.room() > 0 {
            pipe.full = false;
            let latency = link.latency;
            self.plan(self.now + latency, Event::Room(id, side.other()));
        }
    }

    /// `side` leaves. The other hears of it after the last byte; or at once, if bytes to us lay unread.
    pub fn close(&mut self, id: LinkId, side: Side) {
        let now = self.now;
        let Some(link) = self.link(id) else { return };
        if link.ends[side.at()].take().is_none() {
            return;
        }
        let unread = !link.pipes[side.other().at()].readable().is_empty();
        link.pipes[side.other().at()].empty();
        let ending = if unread { Ending::Reset } else { Ending::Closed };
        let lands = now + link.latency;
        let when = if unread { lands } else { link.pipes[side.at()].last.max(lands) };
        if link.ends[side.other().at()].is_some() {
            self.plan(when, Event::End(id, side.other(), ending));
        } else {
            self.links[id.0 as usize] = None;
            self.taps.forget(id);
        }
    }

    /// The last bytes to `side` have not arrived, so their end has not either; when to look again.
    pub(crate) fn ends_later(&self, id: LinkId, side: Side) -> Option<Time> {
        let pipe = &self.links.get(id.0 as usize)?.as_ref()?.pipes[side.other().at()];
        pipe.is_flying().then_some(pipe.last)
    }

    /// Bytes that ever went from `side` into the link.
    pub fn total(&self, id: LinkId, side: Side) -> u64 {
        let link = self.links.get(id.0 as usize).and_then(Option::as_ref);
        link.map_or(0, |link| link.pipes[side.at()].total())
    }

    /// One way from end to end.
    pub fn latency(&self, id: LinkId) -> Duration {
        let link = self.links.get(id.0 as usize).and_then(Option::as_ref);
        link.map_or(Duration::ZERO, |link| link.latency)
    }

    fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0 as usize)?.as_mut()
    }
}

/// What of a window a line of `rate` bytes/s can use.
fn bounded(rate: u64, window: usize) -> usize {
    window.min((rate.saturating_mul(BLOAT.as_secs()) as usize).max(LEAST_WINDOW))
}

fn transfer(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate.max(1))
}
