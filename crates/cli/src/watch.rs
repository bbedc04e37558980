//! Engines at work: starting them, listening until every torrent got where it was to go, and leaving.
//!
//! `get`, `seed` and `demo` are this loop with different goals. Owns what a command remembers of its torrents; what
//! is shown of it is `progress`'s.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use piecemeal_api::{
    AddTorrent, Client, EngineOptions, Event, Events, Heard, Mapping, MappingProtocol, Resolved, State,
    Status, Tools, TorrentId, Totals, TrackerOutcome, Trouble,
};
use piecemeal_metainfo::InfoHashes;

use crate::args::SeedGoal;
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::{Interrupt, Last};
use crate::progress::Screen;
use crate::seek::Seek;
use crate::text;
use crate::units::many;

/// Events taken in one turn before the screen is drawn: a few seconds' worth of pieces.
const EVENTS_A_TURN: usize = 1024;
/// What engines get for their farewell. With `GRACE`, below the five seconds promised to who pressed Ctrl-C.
const FAREWELL: Duration = Duration::from_millis(4500);
/// How much longer than asked an engine may take before it is left behind.
const GRACE: Duration = Duration::from_millis(300);

/// A running engine and its news.
pub struct Engine {
    /// Its commands.
    pub client: Arc<dyn Client>,
    events: Box<dyn Events>,
    /// Where a router lets peers in, as it was told last.
    mapped: Option<(Option<IpAddr>, u16)>,
}

/// Engines, torrents and the screen of one command.
pub struct Fleet {
    /// The engines.
    pub engines: Vec<Engine>,
    /// The torrents, in the order given.
    pub items: Vec<Item>,
    /// What the user sees.
    pub screen: Screen,
}

/// How a loop ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Every torrent is done or failed.
    Done,
    /// The link at this index led to a torrent; give it to [`Fleet::arrive`] and go on.
    Resolved(usize, Box<Resolved>),
    /// By Ctrl-C.
    Interrupted,
}

/// When a torrent is done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// Opened and checked.
    Checked,
    /// All that is selected is there.
    Complete,
    /// Complete, and then this reached, or Ctrl-C when it names nothing.
    Seed(SeedGoal),
}

/// How far a torrent is on its way to its goal.
#[derive(Clone, PartialEq, Debug)]
pub enum Course {
    /// Not complete yet.
    Running,
    /// Complete since then.
    Complete(Instant),
    /// Will not get there: why.
    Failed(String),
}

/// One torrent of a command.
pub struct Item {
    /// Index of its engine.
    pub engine: usize,
    /// Its number there, or that of its search.
    pub id: TorrentId,
    /// Its torrent is not known yet.
    pub seek: Option<Seek>,
    /// What it is called on screen; safe to print.
    pub name: String,
    /// The file or directory of its content.
    pub place: PathBuf,
    /// When it is done.
    pub goal: Goal,
    /// How far it is.
    pub course: Course,
    /// How it stands.
    pub status: Option<Status>,
    /// What was swapped before this run.
    pub before: Totals,
    /// When fetching could begin: added, opened and checked.
    pub began: Instant,
    opened: bool,
}

impl Fleet {
    /// No engine, no torrent.
    pub fn new(screen: Screen) -> Self {
        Fleet { engines: Vec::new(), items: Vec::new(), screen }
    }

    /// Starts an engine; gives its index.
    pub fn start(&mut self, tools: &dyn Tools, options: &EngineOptions) -> Result<usize, Failure> {
        let client: Arc<dyn Client> = Arc::from(tools.start_client(options)?);
        let events = client.events();
        self.engines.push(Engine { client, events, mapped: None });
        Ok(self.engines.len() - 1)
    }

    /// Adds a torrent to an engine; gives the index of its item.
    pub fn add(
        &mut self,
        engine: usize,
        add: AddTorrent,
        name: String,
        place: PathBuf,
        goal: Goal,
    ) -> Result<usize, Failure> {
        let client = &self.engines[engine].client;
        let id = client.add(add)?;
        let mut item = Item::new(engine, id, name, place, goal);
        if let Ok(status) = client.status(id) {
            item.stands(status);
        }
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    /// Listens and draws until all is done. With `patience`, gives up when no torrent moves for that long. Sleeps while
    /// there is no news and nothing is due.
    pub fn watch(
        &mut self,
        host: &mut Host,
        stop: &Interrupt,
        patience: Option<Duration>,
    ) -> Result<End, Failure> {
        let mut moved = (Instant::now(), 0);
        loop {
            let more = self.turn(host, stop)?;
            let redraw = self.screen.draw(&self.items);
            if let Some((at, resolved)) = self.resolved() {
                return Ok(End::Resolved(at, Box::new(resolved)));
            }
            if self.items.iter().all(Item::ended) {
                return Ok(End::Done);
            }
            if stop.count() > 0 {
                return Ok(End::Interrupted);
            }
            let sum = self.items.iter().map(Item::moved).sum();
            if sum != moved.1 {
                moved = (Instant::now(), sum);
            }
            let give_up = patience.and_then(|patience| moved.0.checked_add(patience));
            if give_up.is_some_and(|give_up| Instant::now() >= give_up) {
                return Err(self.stuck(patience.unwrap_or_default()));
            }
            if !more {
                let goals = self.items.iter().filter_map(Item::due);
                stop.sleep(goals.chain(redraw).chain(give_up).min());
            }
        }
    }

    fn stuck(&self, patience: Duration) -> Failure {
        let names: Vec<_> = self.items.iter().filter(|item| !item.ended()).map(|item| &*item.name).collect();
        let wrong = format_args!("nothing moved for {} s", patience.as_secs());
        Failure::failed(names.join(", "), wrong, "see whether something blocks the loopback")
    }

    /// Shuts all engines down at once and waits for them, until a second Ctrl-C or five seconds at most.
    pub fn leave(&mut self, host: &Host, stop: &Interrupt) {
        self.screen.end();
        let engines = std::mem::take(&mut self.engines);
        if engines.is_empty() || stop.count() > 1 {
            return;
        }
        if stop.count() == 1 {
            host.err.line("piecemeal: saying goodbye; Ctrl-C again to leave at once");
        }
        let asked = engines.len();
        let (done, left) = mpsc::sync_channel(asked);
        for engine in engines {
            let done = Last::new(done.clone(), stop.waker());
            // A thread of its own, so that a second Ctrl-C need not wait for it. Not started: dropped, which ends it.
            let farewell = move || {
                let farewell = engine.client.shutdown(FAREWELL);
                drop(engine);
                done.say(farewell);
            };
            let _ = thread::Builder::new().name("farewell".to_owned()).spawn(farewell);
        }
        drop(done);
        wait_for(asked, &left, host, stop);
    }

    /// Hears what there is to hear, without waiting; true if there may be more. If not, the sleep of `stop` ends when
    /// there is something again.
    pub fn turn(&mut self, host: &mut Host, stop: &Interrupt) -> Result<bool, Failure> {
        let waker = stop.waker();
        let mut more = false;
        for index in 0..self.engines.len() {
            more |= self.listen(index, &waker, host)?;
        }
        Ok(more)
    }

    fn listen(&mut self, engine: usize, waker: &Waker, host: &mut Host) -> Result<bool, Failure> {
        for _ in 0..EVENTS_A_TURN {
            match self.engines[engine].events.poll(waker) {
                Heard::Event(event) => self.hear(engine, event, host)?,
                Heard::Nothing => return Ok(false),
                Heard::Closed => {
                    self.closed(engine);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn hear(&mut self, engine: usize, event: Event, host: &mut Host) -> Result<(), Failure> {
        self.screen.event(host, &event)?;
        if let Event::Interface { name, there } = &event {
            self.screen.note(&interface_note(name, *there));
        }
        if let Event::IpFilter { ranges, warnings } = &event {
            if warnings.is_empty() {
                self.screen.note(&filter_note(*ranges));
            }
            warnings
                .iter()
                .for_each(|warning| self.screen.note(&format!("ip filter: {}", text::safe(warning))));
        }
        if let Event::Mapping { mapping } = event {
            self.mapped(engine, mapping);
        }
        let Some(id) = event.torrent() else { return Ok(()) };
        if let Event::Resolving { info_hash, info_hash_v2, peers, .. } = event {
            self.seeking(engine, id, InfoHashes { v1: info_hash, v2: info_hash_v2 }, peers);
            return Ok(());
        }
        let Some(item) = self.items.iter_mut().find(|item| item.engine == engine && item.id == id) else {
            return Ok(());
        };
        if let Event::Complete { .. } = event
            && let Ok(status) = self.engines[engine].client.status(id)
        {
            item.stands(status);
        }
        if let Some(note) = item.hear(event) {
            self.screen.note(&format!("{}: {}", item.name, text::safe(&note)));
        }
        Ok(())
    }

    /// Tells where peers are let in. That none are is no news to who is behind no router.
    fn mapped(&mut self, engine: usize, mapping: Option<Mapping>) {
        let engine = &mut self.engines[engine];
        let place = mapping.map(|mapping| (mapping.external_addr, mapping.external_port));
        let before = std::mem::replace(&mut engine.mapped, place);
        let note = match mapping {
            Some(mapping) if before != place => mapping_note(&mapping, &engine.client.listening()),
            None if before.is_some() => {
                "the router lets no peers in any more; asking again by and by".to_owned()
            }
            _ => return,
        };
        self.screen.note(&note);
    }

    fn seeking(&mut self, engine: usize, id: TorrentId, hashes: InfoHashes, peers: u32) {
        for item in self.items.iter_mut().filter(|item| item.engine == engine) {
            if let Some(seek) = item.seek.as_mut().filter(|seek| seek.is_of(hashes)) {
                (item.id, seek.peers) = (id, peers);
            }
        }
    }

    fn closed(&mut self, engine: usize) {
        for item in self.items.iter_mut().filter(|item| item.engine == engine && !item.ended()) {
            item.course = Course::Failed("the engine stopped; start it again".to_owned());
        }
    }
}

impl Item {
    /// One of which nothing was heard yet.
    pub fn new(engine: usize, id: TorrentId, name: String, place: PathBuf, goal: Goal) -> Self {
        Item {
            engine,
            id,
            seek: None,
            name,
            place,
            goal,
            course: Course::Running,
            status: None,
            before: Totals::default(),
            began: Instant::now(),
            opened: false,
        }
    }

    /// Nothing more will come of it.
    pub fn ended(&self) -> bool {
        let goal = match (&self.course, self.goal) {
            (Course::Failed(_), _) => return true,
            (_, Goal::Checked) => return self.opened,
            (Course::Running, _) => return false,
            (Course::Complete(_), Goal::Complete) => return true,
            (Course::Complete(since), Goal::Seed(goal)) => (goal, since.elapsed()),
        };
        let (SeedGoal { seed_ratio, seed_time }, elapsed) = goal;
        let ratio = self.status.as_ref().map_or(0.0, Status::ratio);
        seed_ratio.is_some_and(|wanted| ratio >= wanted) || seed_time.is_some_and(|wanted| elapsed >= wanted)
    }

    /// When it ends without anything happening, if it does.
    fn due(&self) -> Option<Instant> {
        match (&self.course, self.goal) {
            (Course::Complete(since), Goal::Seed(SeedGoal { seed_time: Some(wanted), .. }))
                if !self.ended() =>
            {
                since.checked_add(wanted)
            }
            _ => None,
        }
    }

    /// From here on its goal is to upload.
    pub fn seed_until(&mut self, goal: SeedGoal) {
        self.goal = Goal::Seed(goal);
        self.course = Course::Complete(Instant::now());
    }

    /// What it was to fetch is there.
    pub fn complete(&self) -> bool {
        matches!(self.course, Course::Complete(_))
    }

    /// Content received in this run.
    pub fn downloaded(&self) -> u64 {
        self.status
            .as_ref()
            .map_or(0, |status| status.totals.downloaded.saturating_sub(self.before.downloaded))
    }

    /// Of that, what came from peers that were still downloading themselves.
    pub fn leeches_gave(&self) -> u64 {
        self.status
            .as_ref()
            .map_or(0, |status| status.totals.from_leeches.saturating_sub(self.before.from_leeches))
    }

    /// Takes in how the torrent stands.
    pub fn stands(&mut self, status: Status) {
        if !self.opened {
            self.before = status.totals;
            self.began = Instant::now();
        }
        let complete = status.complete();
        self.state(&status.state);
        self.status = Some(status);
        if complete && self.course == Course::Running && self.goal != Goal::Checked {
            self.course = Course::Complete(Instant::now());
        }
    }

    fn state(&mut self, state: &State) {
        match state {
            State::Opening | State::Checking { .. } => {}
            State::Downloading | State::Seeding | State::Paused => self.opened = true,
            State::Trouble { trouble } => self.trouble(trouble),
            State::Gone if self.course == Course::Running => {
                self.course = Course::Failed("removed from the engine; add it again".to_owned());
            }
            State::Gone => {}
        }
    }

    fn trouble(&mut self, trouble: &Trouble) {
        if !trouble.retries {
            self.course = Course::Failed(trouble.text.clone());
        }
    }

    /// Takes in what happened; gives what a user should read about it.
    fn hear(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Snapshot { status } => self.stands(*status),
            Event::StateChanged { state, .. } => self.state(&state),
            Event::Complete { .. } if self.course == Course::Running && self.goal != Goal::Checked => {
                self.course = Course::Complete(Instant::now());
            }
            Event::Gone { .. } => self.state(&State::Gone),
            Event::Trouble { trouble, .. } => {
                self.trouble(&trouble);
                return trouble.retries.then(|| format!("paused: {}; it goes on by itself", trouble.text));
            }
            Event::Recovered { .. } => return Some("going on".to_owned()),
            Event::Banned { addr, reason, .. } => return Some(format!("banned {addr}: {reason}")),
            Event::Tracker { url, outcome, .. } => return tracker_note(&url, outcome),
            _ => {}
        }
        None
    }

    fn moved(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| {
            let checked =
                if let State::Checking { checked_bytes, .. } = status.state { checked_bytes } else { 0 };
            status.have_bytes + status.totals.downloaded + checked
        })
    }
}

/// `port 6881 is reachable by PCP as 203.0.113.7:6881`
fn mapping_note(mapping: &Mapping, listening: &[SocketAddr]) -> String {
    let ours = listening.iter().find(|addr| addr.is_ipv4()).map_or(0, SocketAddr::port);
    let by = match mapping.protocol {
        MappingProtocol::Pcp => "PCP",
        MappingProtocol::NatPmp => "NAT-PMP",
        MappingProtocol::Upnp => "UPnP",
    };
    match mapping.external_addr {
        None => format!("port {ours} is reachable by {by} at the router's port {}", mapping.external_port),
        Some(ip) => {
            let place = SocketAddr::new(ip, mapping.external_port);
            let but = if is_behind_another(ip) { ", which is itself behind another router" } else { "" };
            format!("port {ours} is reachable by {by} as {place}{but}")
        }
    }
}

/// Whether a router with this address towards the outside is not on the internet: a private network (RFC 1918), or a
/// provider's that shares addresses (RFC 6598).
fn is_behind_another(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a, b & 0xC0) == (100, 64)
        }
        IpAddr::V6(_) => false,
    }
}

/// `ip filter: 312,004 ranges`
pub fn filter_note(ranges: u64) -> String {
    format!("ip filter: {}", many(ranges, "range"))
}

fn interface_note(name: &str, there: bool) -> String {
    let name = text::safe(name);
    match there {
        true => format!("interface {name} is there: going on"),
        false => format!("interface {name} is away: nothing is sent or received until it comes"),
    }
}

fn tracker_note(url: &str, outcome: TrackerOutcome) -> Option<String> {
    let host = text::host_of(url);
    match outcome {
        TrackerOutcome::Answered { warning, .. } => warning.map(|warning| format!("{host} warns: {warning}")),
        TrackerOutcome::Failed { reason, retry_s: TrackerOutcome::NEVER_S } => {
            Some(format!("{host}: {reason}; not asked again by itself"))
        }
        TrackerOutcome::Failed { reason, retry_s } => {
            Some(format!("{host}: {reason}; trying again in {retry_s} s"))
        }
    }
}

fn wait_for(asked: usize, left: &mpsc::Receiver<piecemeal_api::Farewell>, host: &Host, stop: &Interrupt) {
    let until = Instant::now() + FAREWELL + GRACE;
    let mut waiting = asked;
    while waiting > 0 && stop.count() < 2 && Instant::now() < until {
        match left.try_recv() {
            Ok(farewell) => {
                waiting -= 1;
                if farewell.unsaved > 0 {
                    let text = "could not be saved in time and will be checked when next opened";
                    host.err
                        .line(&format!("piecemeal: {} torrent(s): resume facts {text}", farewell.unsaved));
                }
            }
            Err(mpsc::TryRecvError::Empty) => stop.sleep(Some(until)),
            Err(mpsc::TryRecvError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_router_lets_peers_in() {
        let listening: Vec<SocketAddr> = vec!["[::]:9".parse().unwrap(), "0.0.0.0:6881".parse().unwrap()];
        let table = [
            (None, "port 6881 is reachable by PCP at the router's port 7000"),
            (Some("203.0.113.7"), "port 6881 is reachable by PCP as 203.0.113.7:7000"),
            (
                Some("100.64.0.1"),
                "port 6881 is reachable by PCP as 100.64.0.1:7000, which is itself behind another router",
            ),
            (
                Some("192.168.0.1"),
                "port 6881 is reachable by PCP as 192.168.0.1:7000, which is itself behind another router",
            ),
            (Some("100.128.0.1"), "port 6881 is reachable by PCP as 100.128.0.1:7000"),
        ];
        for (external, expected) in table {
            let mapping = Mapping {
                protocol: MappingProtocol::Pcp,
                external_addr: external.map(|ip| ip.parse().unwrap()),
                external_port: 7000,
                until_s: 3600,
            };
            assert_eq!(mapping_note(&mapping, &listening), expected);
        }
    }
}
