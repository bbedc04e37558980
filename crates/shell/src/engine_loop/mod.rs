//! The one loop: a Server and a Shard on one thread, their sockets, and all that goes in and out of them.
//!
//! Owns the turn: sleep, read events and mail, read sockets, beat, carry notes, hand out work, write to sockets. Time is
//! read once a turn. Nothing here decides; that is the engine's. What is fair is decided here: how much one
//! connection may read or write before the next has its turn.
//!
//! - `conns`: the connections by slot. - `datagrams`: UDP. - `utp`: connections over UDP. - `sockets`: accepting, dialing,
//!   reading. - `settle`: what the engine wants done.
//! - `presence`: what is listened on, as the interface comes and goes.
//! - `proxied`: dials by way of a proxy. - `relay`: datagrams by way of one. What both share with tools is `crate::proxy`'s.
//!
//! The loop sleeps until a socket is ready, a mailbox has something, or something is due, and never wakes otherwise.

mod conns;
mod datagrams;
mod presence;
mod proxied;
mod relay;
mod settle;
mod sockets;
mod stats;
mod tls;
mod utp;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Poll, Token, Waker};
use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId};
use piecemeal_engine::cx::{Command, ConnId, Net, News, Note};
use piecemeal_metainfo::{InfoHashes, Time, TorrentId};
use piecemeal_package::{Done, Fence, Job};
use piecemeal_transport::mse::Total;
use piecemeal_transport::proxy::Target;

use crate::clock::Clock;
use crate::disk::{DiskPool, Submitter};
use crate::dns::Resolved;
use crate::driven::{Data, Front};
use crate::mailbox::{Doorbell, Mailbox};
use crate::net::Group;
use crate::news::NewsBox;
use crate::proxy::StandIns;
use crate::send::SendFiles;
use crate::sums::Sums;
use crate::tcp::{Door, Spare};
use crate::tls::{Identities, Identity};
use conns::{Conns, Slot};
use datagrams::DatagramSockets;
pub(crate) use presence::{Presence, Wanted, open};
use proxied::Missing;
use relay::Relay;
pub(crate) use stats::Counters;
pub use stats::Stats;
pub(crate) use utp::UtpStart;

/// Events taken from the system at once; what is left comes at the next turn.
const EVENTS: usize = 512;
/// One warm buffer for all reads: large enough that a fast peer needs few of them, small enough for the cache that the
/// engine copies out of.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Between two heartbeats when much happens; the engine's own deadlines are in steps of 100 ms.
const BEAT_PAUSE: Duration = Duration::from_millis(10);
/// A verified Piece waits so long for company before it wakes the listener.
const QUIET_NEWS: Duration = Duration::from_millis(50);

const WAKER: Token = Token(usize::MAX);
/// Looks whether the proxy is back.
const PROBE: Token = Token(WAKER.0 - 1);
/// Stands for as long as the proxy relays datagrams.
const RELAY: Token = Token(PROBE.0 - 1);
/// Listeners are numbered downwards from here, connections upwards from 0.
const FIRST_LISTENER: usize = RELAY.0 - 1;

/// What is said to a loop from outside.
pub(crate) enum Order {
    /// For the Server.
    Command(Command),
    /// Who we are to the peers of a torrent that speaks TLS.
    Identity(TorrentId, InfoHashes, Box<Identity>),
    /// The interface that sockets are tied to went, came, or was made anew.
    Interface,
    /// Hosts of the DHT that the proxy is to look up.
    Hosts(Vec<Target>),
    /// End when all torrents are gone, or at that instant.
    Stop(Instant),
}

/// An answer to a fetch.
pub(crate) type Fetched = (TorrentId, FetchId, Result<Vec<u8>, FetchFailure>);

/// The mailboxes of a loop.
#[derive(Clone)]
pub(crate) struct Inboxes {
    pub(crate) orders: Arc<Mailbox<Order>>,
    pub(crate) disk: Arc<Mailbox<(TorrentId, Done)>>,
    pub(crate) fetched: Arc<Mailbox<Fetched>>,
    pub(crate) resolved: Arc<Mailbox<Resolved>>,
    pub(crate) totals: Arc<Mailbox<(ConnId, Total)>>,
}

/// What a loop is given at birth.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) bell: Arc<Doorbell>,
    pub(crate) inboxes: Inboxes,
    pub(crate) presence: Presence,
    pub(crate) doors: Vec<Door>,
    /// Groups of local discovery.
    pub(crate) groups: Vec<Group>,
    pub(crate) disk: Arc<DiskPool>,
    pub(crate) fetch: Box<dyn FnMut(TorrentId, Fetch) + Send>,
    pub(crate) news: Arc<NewsBox>,
    pub(crate) counters: Arc<Counters>,
}

/// See the module.
pub(crate) struct EngineLoop<F, D> {
    front: F,
    data: D,
    clock: Clock,
    now: Time,
    poll: Poll,
    bell: Arc<Doorbell>,
    inboxes: Inboxes,

    presence: Presence,
    listeners: Vec<Listener>,
    datagrams: DatagramSockets,
    stand_ins: StandIns,
    /// After handles ran out: when to accept again.
    accept_again: Option<Time>,
    spare: Spare,
    conns: Conns,
    dials: BTreeSet<(Time, ConnId)>,
    /// Set while the proxy cannot be reached.
    missing: Option<Missing>,
    /// Connections to read from; each at most once.
    ready: Vec<Slot>,
    /// Connections to write to; each at most once.
    to_write: Vec<Slot>,
    scratch: Box<[u8]>,
    /// What a stream is given, put together.
    gathered: Vec<u8>,

    disk: Arc<DiskPool>,
    submitter: Submitter,
    send_files: SendFiles,
    /// Jobs that were not answered yet.
    jobs_out: usize,
    fetch: Box<dyn FnMut(TorrentId, Fetch) + Send>,
    sums: Sums,
    news: Arc<NewsBox>,
    /// News lie there of which the listener was not told.
    quiet_since: Option<Time>,
    /// Torrents in the Shard.
    seated: BTreeSet<TorrentId>,
    identities: Identities,

    last_beat: Time,
    next_beat: Time,
    /// Something came in since the last beat, so it may be due earlier than was said then.
    stirred: bool,
    stop: Option<Time>,

    counters: Arc<Counters>,
    stats: Stats,
    lanes: Lanes,
}

struct Listener {
    listener: TcpListener,
    ready: bool,
}

/// Emptied lanes, kept for their memory.
#[derive(Default)]
struct Lanes {
    orders: Vec<Order>,
    dones: Vec<(TorrentId, Done)>,
    fetched: Vec<Fetched>,
    resolved: Vec<Resolved>,
    totals: Vec<(ConnId, Total)>,
    net: Vec<Net>,
    notes: Vec<Note>,
    news: Vec<News>,
    jobs: Vec<(TorrentId, Job)>,
    slots: Vec<Slot>,
}

/// A poll and the bell that ends its sleep.
///
/// # Errors
/// The system has no handles left.
pub(crate) fn poll_with_bell() -> io::Result<(Poll, Arc<Doorbell>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    // A failed wake-up would leave the loop asleep over its mail: better to say so at once.
    let bell = Doorbell::new(move || waker.wake().expect("a loop can be woken while it lives"));
    Ok((poll, bell))
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// A loop around a Server and a Shard; nothing happens before [`EngineLoop::run`].
    ///
    /// # Errors
    /// The system refuses to watch a listener.
    pub(crate) fn new(parts: Parts, front: F, data: D) -> io::Result<EngineLoop<F, D>> {
        let Parts { poll, bell, inboxes, mut presence, doors, groups, disk, fetch, news, counters } = parts;
        let (listeners, datagrams) = presence.watch(&poll, doors, groups)?;
        Ok(EngineLoop {
            front,
            data,
            clock: Clock::start(),
            now: Time::ZERO,
            poll,
            bell,
            sums: Sums::new(inboxes.totals.clone()),
            inboxes,
            presence,
            listeners,
            datagrams,
            stand_ins: StandIns::default(),
            accept_again: None,
            spare: Spare::new(),
            conns: Conns::default(),
            dials: BTreeSet::new(),
            missing: None,
            ready: Vec::new(),
            to_write: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            gathered: Vec::new(),
            submitter: disk.submitter(),
            send_files: SendFiles::new(disk.torrents()),
            disk,
            jobs_out: 0,
            fetch,
            news,
            quiet_since: None,
            seated: BTreeSet::new(),
            identities: Identities::default(),
            last_beat: Time::ZERO,
            next_beat: Time::ZERO,
            stirred: false,
            stop: None,
            counters,
            stats: Stats::default(),
            lanes: Lanes::default(),
        })
    }

    /// Turns until it is told to stop and all torrents are gone, or its time is over.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        self.tell_if_away();
        self.settle();
        while !self.is_over() {
            self.sleep(&mut events);
            self.now = self.clock.now();
            self.stats.turns += 1;
            for event in &events {
                self.on_event(event);
            }
            self.read_mail();
            self.come_back();
            self.accept();
            self.read_datagrams();
            self.read_sockets();
            self.end_dials();
            self.look_for_proxy();
            self.beat_relay();
            self.beat();
            self.settle();
            self.transmit();
            self.nudge();
            self.stats.conns = self.conns.count() as u64;
            self.counters.show(&self.stats);
        }
        self.end();
    }

    fn sleep(&mut self, events: &mut Events) {
        let mut timeout = self.timeout();
        let sleeps = timeout != Some(Duration::ZERO);
        if sleeps {
            self.bell.doze();
            let boxes = &self.inboxes;
            let nothing = boxes.orders.is_empty() && boxes.disk.is_empty();
            let nothing = nothing && boxes.fetched.is_empty() && boxes.resolved.is_empty();
            if !(nothing && boxes.totals.is_empty()) {
                timeout = Some(Duration::ZERO);
            }
        }
        if let Err(why) = self.poll.poll(events, timeout) {
            assert!(why.kind() == io::ErrorKind::Interrupted, "the system does not tell of events: {why}");
            events.clear();
        }
        if sleeps {
            self.bell.wake();
            self.stats.wakeups += u64::from(timeout != Some(Duration::ZERO));
        }
    }

    /// How long to sleep; `None`: until something comes.
    fn timeout(&self) -> Option<Duration> {
        let accepts = self.accept_again.is_none() && self.listeners.iter().any(|listener| listener.ready);
        if accepts || self.datagrams.are_ready() || !self.ready.is_empty() || !self.to_write.is_empty() {
            return Some(Duration::ZERO);
        }
        let dials = self.dials.first().map(|(give_up, _)| *give_up);
        let quiet = self.quiet_since.map(|since| since + QUIET_NEWS);
        let others = [
            dials,
            self.accept_again,
            self.presence.again,
            quiet,
            self.stop,
            Some(self.datagrams.utp_due()),
            self.missing.as_ref().map(Missing::due),
            self.datagrams.relay.as_ref().map(Relay::due),
        ];
        let due = others.into_iter().flatten().fold(self.beat_due(), Time::min);
        (due != Time::NEVER).then(|| due.since(self.clock.now()))
    }

    fn read_mail(&mut self) {
        let mut orders = std::mem::take(&mut self.lanes.orders);
        self.inboxes.orders.drain(&mut orders);
        for order in orders.drain(..) {
            self.stirred = true;
            match order {
                Order::Command(command) => self.front.on_command(self.now, command),
                Order::Identity(torrent, hashes, identity) => self.identities.add(torrent, hashes, *identity),
                Order::Interface => self.on_interface(),
                Order::Hosts(hosts) => self.ask_hosts(hosts),
                Order::Stop(until) => {
                    self.front.on_command(self.now, Command::Shutdown);
                    self.stop = Some(self.now + until.saturating_duration_since(Instant::now()));
                }
            }
            self.carry();
        }
        self.lanes.orders = orders;
        self.read_dones();
        let mut fetched = std::mem::take(&mut self.lanes.fetched);
        self.inboxes.fetched.drain(&mut fetched);
        for (torrent, fetch, result) in fetched.drain(..) {
            self.stirred = true;
            let result = result.as_ref().map(Vec::as_slice).map_err(Clone::clone);
            self.data.on_fetched(self.now, torrent, fetch, result);
        }
        self.lanes.fetched = fetched;
        self.read_resolved();
        self.read_totals();
    }

    fn read_totals(&mut self) {
        let mut totals = std::mem::take(&mut self.lanes.totals);
        self.inboxes.totals.drain(&mut totals);
        for (conn, total) in totals.drain(..) {
            self.stirred = true;
            self.front.on_total(self.now, conn, total);
        }
        self.lanes.totals = totals;
    }

    fn read_resolved(&mut self) {
        let mut resolved = std::mem::take(&mut self.lanes.resolved);
        self.inboxes.resolved.drain(&mut resolved);
        for (torrent, fetch, result) in resolved.drain(..) {
            self.stirred = true;
            match result {
                Ok(Target::Addr(to)) => self.front.on_resolved(self.now, torrent, &fetch, to),
                Ok(Target::Name { host, port }) => {
                    let to = SocketAddr::from((self.stand_ins.give(&host), port));
                    self.front.on_resolved(self.now, torrent, &fetch, to);
                }
                Err(why) => self.data.on_fetched(self.now, torrent, fetch.id, Err(why)),
            }
            self.carry();
        }
        self.lanes.resolved = resolved;
    }

    fn read_dones(&mut self) {
        let mut dones = std::mem::take(&mut self.lanes.dones);
        self.inboxes.disk.drain(&mut dones);
        for (torrent, done) in dones.drain(..) {
            self.stirred = true;
            self.jobs_out -= 1;
            if matches!(done, Done::Fenced(Fence::Close | Fence::Delete, _)) {
                self.send_files.close(torrent);
            }
            self.data.on_disk(self.now, torrent, done);
        }
        self.lanes.dones = dones;
    }

    fn beat_due(&self) -> Time {
        if self.stirred { self.next_beat.min(self.last_beat + BEAT_PAUSE) } else { self.next_beat }
    }

    fn beat(&mut self) {
        if self.now < self.beat_due() {
            return;
        }
        // Notes of one beat may make something due for the other side; a second round hears of it.
        for _ in 0..2 {
            let front = self.front.heartbeat(self.now);
            self.carry();
            let data = self.data.heartbeat(self.now);
            self.next_beat = front.min(data);
            if !self.carry() {
                break;
            }
        }
        // A deadline that stays in the past must not make the loop spin.
        self.next_beat = self.next_beat.max(self.now + BEAT_PAUSE);
        (self.last_beat, self.stirred) = (self.now, false);
    }

    fn is_over(&self) -> bool {
        let done = self.seated.is_empty() && self.jobs_out == 0;
        self.stop.is_some_and(|until| done || self.now >= until)
    }

    /// Hears out what is already answered, and leaves.
    fn end(mut self) {
        self.read_dones();
        self.settle();
        self.inboxes.orders.close();
        self.inboxes.disk.close();
        self.inboxes.fetched.close();
        self.inboxes.resolved.close();
        self.inboxes.totals.close();
        self.counters.show(&self.stats);
        self.news.close();
    }

    fn nudge(&mut self) {
        if self.quiet_since.is_some_and(|since| self.now >= since + QUIET_NEWS) {
            self.quiet_since = None;
            self.news.nudge();
        }
    }
}

/// Calls a verb of a connection's owner.
macro_rules! to_owner {
    ($self:ident, $owner:expr, $it:ident => $call:expr) => {
        match $owner {
            Owner::Front => {
                let $it = &mut $self.front;
                $call
            }
            Owner::Data => {
                let $it = &mut $self.data;
                $call
            }
        }
    };
}
use to_owner;
