//! A host that runs the engine: a Server and a Shard, its disk, and the turn that carries things between them.
//!
//! Owns what the shell's loop owns: connections and whose they are, when to beat, what to write. It does as
//! `shell::engine_loop` does, event by event: whoever changes that loop changes this.
//!
//! - `conns`: dialing, reading, writing. - `datagrams`: UDP. - `streams`: connections over UDP. - `seat`: what the outside knows of a torrent, by its News.

mod conns;
mod datagrams;
mod seat;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::{swap, take};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::tracker::{FetchFailure, FetchId};
use piecemeal_discovery::udp::place;
use piecemeal_engine::cx::{Change, Command, ConnId, Net as Wish, News, Note, Options, Seating, Settings};
use piecemeal_engine::{Server, Shard};
use piecemeal_metainfo::{InfoHash, PeerId, Time, TorrentId};
use piecemeal_package::Start;

use crate::dice::Dice;
use crate::disk::{Knobs, SimDisk};
use crate::net::{Event, HostId, Life, LinkId, Mail, Net};
use crate::torrent::Torrent;
use conns::{Conn, End};
pub use datagrams::Said;
pub use seat::Seat;
use streams::Streams;

/// As in the shell: between two heartbeats when much happens.
const BEAT_PAUSE: Duration = Duration::from_millis(10);
/// As in the shell: rounds of wishes and writes in one turn.
const ROUNDS: usize = 4;
/// As in the shell: rounds of notes.
const NOTE_ROUNDS: usize = 1000;
/// Beats in a second for which nothing had come in; the engine's deadlines are in steps of 100 ms.
const IDLE_BEATS: usize = 10;
/// What an idle engine may do beside: deadlines of handshakes are not rounded, and one that comes within
/// [`BEAT_PAUSE`] of the last beat is put off.
const ODD_BEATS: usize = 5;

/// What a host is made of. Chained setters, so that a scenario says only what is special.
#[derive(Clone)]
pub struct Gear {
    /// Bytes/s it can send; 0: by its address.
    pub up: u64,
    /// Bytes/s it can receive; 0: by its address.
    pub down: u64,
    /// Its disk.
    pub knobs: Knobs,
    /// Nobody can call it, but by uTP whom it has called.
    pub natted: bool,
    /// Bufs of its pool.
    pub bufs: usize,
    /// Global limits in bytes/s, down and up.
    pub limits: (u64, u64),
    /// How its torrents run.
    pub options: Options,
    /// Peers its user named.
    pub peers: Vec<SocketAddr>,
    /// Announce URLs its user named beside those of a torrent.
    pub trackers: Vec<String>,
    /// Fixed settings; name, port and `from_files` are set by the world.
    pub settings: Settings,
    /// Its clock.
    pub clock: Clock,
    /// Its streams over datagrams begin to count packets here; `None`: anywhere.
    pub first_packet: Option<u16>,
}

/// How a host's clock runs. It begins anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// Millionths by which it is fast, or slow if negative.
    pub fast: i32,
    /// What packets of uTP bear of it turns over within the first minute.
    pub turns: bool,
}

impl Default for Gear {
    fn default() -> Gear {
        Gear {
            up: 0,
            down: 0,
            knobs: Knobs::default(),
            natted: false,
            bufs: 256,
            limits: (0, 0),
            options: Options::default(),
            peers: Vec::new(),
            trackers: Vec::new(),
            settings: Settings::default(),
            clock: Clock::default(),
            first_packet: None,
        }
    }
}

impl Gear {
    /// Bytes/s it can send and receive.
    pub fn line(mut self, up: u64, down: u64) -> Gear {
        (self.up, self.down) = (up, down);
        self
    }

    /// Its disk.
    pub fn disk(mut self, knobs: Knobs) -> Gear {
        self.knobs = knobs;
        self
    }

    /// Nobody can call it.
    pub fn natted(mut self) -> Gear {
        self.natted = true;
        self
    }

    /// Bufs of its pool.
    pub fn bufs(mut self, bufs: usize) -> Gear {
        self.bufs = bufs;
        self
    }

    /// Global limits in bytes/s; 0: none.
    pub fn limits(mut self, down: u64, up: u64) -> Gear {
        self.limits = (down, up);
        self
    }

    /// How its torrents run.
    pub fn options(mut self, options: Options) -> Gear {
        self.options = options;
        self
    }

    /// Peers its user named.
    pub fn peers(mut self, peers: impl IntoIterator<Item = SocketAddr>) -> Gear {
        self.peers.extend(peers);
        self
    }

    /// A tracker its user named.
    pub fn tracker(mut self, url: &str) -> Gear {
        self.trackers.push(url.to_owned());
        self
    }

    /// It looks for peers in the DHT and on the local network.
    pub fn searching(mut self) -> Gear {
        (self.settings.dht, self.settings.lsd) = (true, true);
        self
    }
}

/// See the module.
pub struct Node {
    /// Its number on the network.
    pub id: HostId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its disk, which outlives the process.
    pub disk: SimDisk,
    /// Its torrents, as far as News tell.
    pub seats: BTreeMap<TorrentId, Seat>,
    /// What counts heartbeats.
    pub beats: Beats,
    /// How often the engine had no memory for what came.
    pub thirsts: u64,
    /// Content it sent, over all its lives, in bytes.
    pub content_out: u64,
    /// Datagrams it sent.
    pub said: Said,
    /// To whom it spoke of which torrent.
    pub greeted: BTreeSet<(InfoHash, HostId)>,
    /// How often it told a peer of a torrent of other ways to find peers: ports of the DHT, peers, or that it wants to
    /// hear of peers.
    pub gossip: BTreeMap<InfoHash, u64>,
    gear: Gear,
    life: Life,
    engine: Option<Engine>,
    conns: BTreeMap<ConnId, Conn>,
    by_link: BTreeMap<LinkId, ConnId>,
    serial: u64,
    /// How far its clock was ahead of the world's when that began, in nanoseconds.
    ahead: u64,
    boot: [u8; 16],
    dice: Dice,
    /// Requests that were not answered.
    fetches: BTreeSet<(TorrentId, FetchId)>,
    /// Connections to write to.
    to_write: Vec<ConnId>,
    /// What a write gathers.
    scratch: Vec<u8>,
}

/// Heartbeats of one host.
#[derive(Clone, Default)]
pub struct Beats {
    /// All.
    pub all: u64,
    /// Those for which nothing had come in.
    pub idle: u64,
    recent: VecDeque<Time>,
}

/// The process.
struct Engine {
    server: Server,
    shard: Shard,
    /// Connections over datagrams; none unless it speaks uTP.
    streams: Streams,
    /// By its own clock.
    last_beat: Time,
    next_beat: Time,
    /// Something came in since the last beat.
    stirred: bool,
    /// When a beat is planned, by the world's clock.
    planned: Time,
}

/// Calls a verb of a connection's owner.
macro_rules! to_owner {
    ($engine:expr, $owner:expr, $it:ident => $call:expr) => {
        match $owner {
            $crate::node::conns::Owner::Front => {
                let $it = &mut $engine.server;
                $call
            }
            $crate::node::conns::Owner::Data => {
                let $it = &mut $engine.shard;
                $call
            }
        }
    };
}
use to_owner;

impl Node {
    /// A host with an empty disk, on which nothing runs yet.
    pub fn new(net: &mut Net, addr: SocketAddr, gear: Gear, mut dice: Dice) -> Node {
        let (up, down) = speeds(addr, &gear);
        let disk = SimDisk::new(gear.knobs, dice.fork());
        Node {
            id: net.join(up, down),
            addr,
            disk,
            seats: BTreeMap::new(),
            beats: Beats::default(),
            thirsts: 0,
            content_out: 0,
            said: Said::default(),
            greeted: BTreeSet::new(),
            gossip: BTreeMap::new(),
            gear,
            life: Life(0),
            engine: None,
            conns: BTreeMap::new(),
            by_link: BTreeMap::new(),
            serial: 0,
            ahead: 0,
            boot: dice.bytes(),
            dice,
            fetches: BTreeSet::new(),
            to_write: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Starts the process; its clock begins anywhere.
    pub fn start(&mut self, net: &mut Net) {
        let mut name = *b"-PM0100-............";
        name[8..].copy_from_slice(&self.dice.bytes::<12>().map(|byte| b'a' + byte % 26));
        let settings = Settings {
            peer_id: PeerId(name),
            // Who speaks uTP can be called through its NAT, and says where.
            port: if self.gear.natted && !self.gear.settings.utp { 0 } else { self.addr.port() },
            ipv6: false,
            from_files: self.dice.percent(50),
            ..self.gear.settings.clone()
        };
        self.ahead = self.dice.word() >> self.dice.pick(2..64);
        if self.gear.clock.turns {
            let until = self.dice.span(Duration::from_secs(60)).as_nanos() as u64;
            self.ahead = (u64::from(u32::MAX) * 1000).saturating_sub(until + net.now.nanos());
        }
        let now = self.time(net);
        let secret = if self.gear.settings.utp { self.dice.bytes() } else { [0; 32] };
        let streams = Streams::new(self.gear.first_packet, secret);
        let server = Server::new(settings.clone(), self.dice.bytes());
        let shard = Shard::new(settings, self.dice.bytes(), self.gear.bufs);
        let (last_beat, next_beat) = (now, now);
        let engine =
            Engine { server, shard, streams, last_beat, next_beat, stirred: true, planned: Time::NEVER };
        self.engine = Some(engine);
        if !self.gear.natted {
            net.listen(self.addr, self.id);
        }
        let (down, up) = self.gear.limits;
        if (down, up) != (0, 0) {
            self.command(net, Command::Limits { down, up });
        }
        net.trace.note(net.now, self.id.0, "start", self.ahead, 0);
        self.turn(net);
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// The life that events must be of.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Adds a torrent; what the disk has of it is found by `start`.
    pub fn add(&mut self, net: &mut Net, id: TorrentId, torrent: &Arc<Torrent>, start: Start) {
        self.disk.know(id, torrent);
        let facts = self.seats.get_mut(&id).and_then(|seat| seat.facts.take());
        let seat = Seat::new(torrent.clone(), facts.clone());
        self.seats.insert(id, seat);
        let seating = Seating {
            torrent: id,
            meta: torrent.meta.clone(),
            wanted: vec![true; torrent.meta.files().len()].into(),
            facts,
            start,
            boot: self.boot,
            options: self.gear.options,
            peers: self.gear.peers.clone(),
            known: Vec::new(),
            trackers: self.gear.trackers.clone(),
        };
        self.command(net, Command::Add(Box::new(seating)));
    }

    /// Changes a torrent.
    pub fn change(&mut self, net: &mut Net, id: TorrentId, change: Change) {
        self.command(net, Command::Change(id, change));
    }

    /// Commands the engine.
    pub fn command(&mut self, net: &mut Net, command: Command) {
        let now = self.time(net);
        let Some(engine) = &mut self.engine else { return };
        engine.stirred = true;
        engine.server.on_command(now, command);
        self.turn(net);
    }

    /// The process dies where it stands. The machine lives on, so its peers hear of it.
    pub fn kill(&mut self, net: &mut Net) {
        net.trace.note(net.now, self.id.0, "kill", 0, 0);
        self.disk.process_died();
        self.die(net);
    }

    /// The machine loses power: as [`Node::kill`], and what was not flushed may be lost.
    pub fn power_cut(&mut self, net: &mut Net) {
        net.trace.note(net.now, self.id.0, "power cut", 0, 0);
        self.disk.power_cut();
        self.boot = self.dice.bytes();
        self.die(net);
    }

    fn die(&mut self, net: &mut Net) {
        net.deafen(self.addr);
        let conns: Vec<ConnId> = take(&mut self.by_link).into_values().collect();
        for conn in conns {
            self.forget_conn(net, conn, End::Broken);
        }
        self.conns.clear();
        self.fetches.clear();
        self.to_write.clear();
        self.life = Life(self.life.0 + 1);
        if let Some(engine) = self.engine.take() {
            // Its Bufs belong to a pool that goes with it; to drop them one by one would be a Bug elsewhere.
            std::mem::forget(engine.shard);
        }
    }

    /// All torrents were told to leave and did: ends the process, and tells what it still holds.
    pub fn end(&mut self, net: &mut Net) -> Result<(), String> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let lent = engine.shard.lent_bufs();
        if lent > 0 || self.disk.jobs_out() > 0 {
            return Err(format!(
                "{} leaves with {lent} Bufs lent, {} Jobs out",
                self.addr,
                self.disk.jobs_out()
            ));
        }
        self.die(net);
        Ok(())
    }

    /// Its own clock.
    pub fn time(&self, net: &Net) -> Time {
        let drift = match self.gear.clock.fast {
            0 => 0,
            fast => i128::from(net.now.nanos()) * i128::from(fast) / 1_000_000,
        };
        Time::from_nanos((i128::from(net.now.nanos() + self.ahead) + drift) as u64)
    }

    /// Its own clock's `at`, by the world's; not before.
    fn world_time(&self, at: Time) -> Time {
        let own = at.nanos().saturating_sub(self.ahead);
        match self.gear.clock.fast {
            _ if at == Time::NEVER => at,
            0 => Time::from_nanos(own),
            fast => {
                let world = i128::from(own) * 1_000_000 / (1_000_000 + i128::from(fast));
                // What was rounded off was less than this.
                Time::from_nanos(world as u64 + 2)
            }
        }
    }

    /// Something came for it.
    pub fn on_mail(&mut self, net: &mut Net, mail: Mail) {
        let now = self.time(net);
        let Some(engine) = &mut self.engine else { return };
        match mail {
            Mail::Done(ticket) => {
                if let Some((torrent, done)) = self.disk.finish(net.now, ticket) {
                    engine.stirred = true;
                    engine.shard.on_disk(now, torrent, done);
                }
            }
            Mail::Fetched(torrent, fetch, _) if !self.fetches.remove(&(torrent, fetch)) => return,
            Mail::Fetched(torrent, fetch, result) => {
                engine.stirred = true;
                let result: Result<&[u8], FetchFailure> = match &result {
                    Ok(body) => Ok(body),
                    Err(why) => Err(why.clone()),
                };
                engine.shard.on_fetched(now, torrent, fetch, result);
            }
            Mail::Resolved(torrent, fetch, to) => {
                self.fetches.remove(&(torrent, fetch.id));
                self.on_resolved(now, torrent, &fetch, to);
            }
            Mail::Late(conn) => self.dial_is_late(net, conn),
            Mail::Beat(at) if at != engine.planned => return,
            Mail::Beat(_) => engine.planned = Time::NEVER,
            Mail::Streams(at) => return self.on_streams_due(net, at),
            Mail::Turn | Mail::Fetch(..) | Mail::Wake(_) => {}
        }
        self.turn(net);
    }

    /// Beats if that is due, and does all that the engine wants done.
    pub(super) fn turn(&mut self, net: &mut Net) {
        self.beat(net);
        for _ in 0..ROUNDS {
            self.carry(net);
            self.do_wishes(net);
            self.submit(net);
            if self.to_write.is_empty() {
                break;
            }
            self.write_all(net);
        }
        self.carry(net);
        self.submit(net);
        self.publish(net);
        let heard = self.transmit(net);
        if heard {
            net.plan(net.now, Event::Host(self.id, self.life, Mail::Turn));
        }
        self.plan_next(net);
    }

    fn plan_next(&mut self, net: &mut Net) {
        let (id, life) = (self.id, self.life);
        let Some(due) = self.engine.as_ref().map(Engine::beat_due) else { return };
        let due = self.world_time(due).max(net.now);
        let Some(engine) = &mut self.engine else { return };
        let wishes = !engine.server.out().net.is_empty() || !engine.shard.out().net.is_empty();
        if wishes || !self.to_write.is_empty() {
            net.plan(net.now, Event::Host(id, life, Mail::Turn));
        }
        if due < engine.planned {
            engine.planned = due;
            net.plan(due, Event::Host(id, life, Mail::Beat(due)));
        }
    }

    fn beat(&mut self, net: &mut Net) {
        let now = self.time(net);
        let Some(engine) = &mut self.engine else { return };
        if now < engine.beat_due() {
            return;
        }
        let idle = !engine.stirred;
        for _ in 0..2 {
            let Some(engine) = &mut self.engine else { return };
            let front = engine.server.heartbeat(now);
            self.carry(net);
            let Some(engine) = &mut self.engine else { return };
            let data = engine.shard.heartbeat(now);
            engine.next_beat = front.min(data);
            if !self.carry(net) {
                break;
            }
        }
        let Some(engine) = &mut self.engine else { return };
        if idle && engine.next_beat <= now {
            let next = engine.next_beat;
            net.blame(|| format!("{}: a beat at {now:?} says it is due again at {next:?}", self.addr));
        }
        engine.next_beat = engine.next_beat.max(now + BEAT_PAUSE);
        (engine.last_beat, engine.stirred) = (now, false);
        net.trace.note(net.now, self.id.0, "beat", engine.next_beat.nanos(), u64::from(idle));
        if let Some(words) = self.beats.count(net.now, idle) {
            net.blame(|| format!("{}: {words}", self.addr));
        }
    }

    /// Carries notes between the two until there are none. True if there were.
    fn carry(&mut self, net: &mut Net) -> bool {
        let now = self.time(net);
        let mut any = false;
        for _ in 0..NOTE_ROUNDS {
            let Some(engine) = &mut self.engine else { return any };
            if engine.server.out().notes.is_empty() && engine.shard.out().notes.is_empty() {
                return any;
            }
            any = true;
            for note in take(&mut engine.server.out().notes) {
                self.carry_to_data(net, note);
            }
            let Some(engine) = &mut self.engine else { return any };
            for note in take(&mut engine.shard.out().notes) {
                engine.server.on_note(now, note);
            }
        }
        net.blame(|| format!("{}: Server and Shard answer each other for ever", self.addr));
        any
    }

    fn carry_to_data(&mut self, net: &mut Net, note: Note) {
        let now = self.time(net);
        let handed = match &note {
            Note::Hand(handed) => Some(handed.conn),
            _ => None,
        };
        let there = handed.is_none_or(|conn| self.hand_over(net, conn));
        let Some(engine) = &mut self.engine else { return };
        engine.shard.on_note(now, note);
        if let (Some(conn), false) = (handed, there) {
            engine.shard.on_closed(now, conn, piecemeal_engine::cx::Goodbye::Closed);
        }
    }

    fn do_wishes(&mut self, net: &mut Net) {
        for _ in 0..ROUNDS {
            let Some(engine) = &mut self.engine else { return };
            let mut wishes = take(&mut engine.server.out().net);
            wishes.append(&mut engine.shard.out().net);
            for wish in wishes {
                self.do_wish(net, wish);
            }
            self.carry(net);
            let Some(engine) = &mut self.engine else { return };
            if engine.server.out().net.is_empty() && engine.shard.out().net.is_empty() {
                return;
            }
        }
    }

    fn do_wish(&mut self, net: &mut Net, wish: Wish) {
        match wish {
            Wish::Dial { dial, to, carrier, patience, .. } => self.dial(net, dial, (to, carrier), patience),
            Wish::Sum(conn, sum) => {
                let now = self.time(net);
                let Some(engine) = &mut self.engine else { return };
                engine.server.on_total(now, conn, sum.run());
            }
            Wish::Write(conn) => self.list_to_write(net, conn),
            Wish::Read(conn) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.thirsty = false;
                }
                self.read(net, conn);
            }
            Wish::Close(conn, why) => {
                net.trace.say(net.now, self.id.0, format_args!("closes {}: {why:?}", conn.0));
                self.forget_conn(net, conn, End::Over);
            }
            Wish::Fetch(torrent, fetch) => {
                net.trace.note(net.now, self.id.0, "fetch", u64::from(torrent.0), fetch.id.0);
                let (patience, when) = (fetch.timeout, net.now + net.dice.span(Duration::from_millis(200)));
                let late = Mail::Fetched(torrent, fetch.id, Err(FetchFailure::TimedOut));
                self.fetches.insert((torrent, fetch.id));
                // That a UDP tracker does not answer the engine finds out by itself.
                if place(&fetch.url).is_none() {
                    net.plan(net.now + patience, Event::Host(self.id, self.life, late));
                }
                net.plan(when, Event::Host(self.id, self.life, Mail::Fetch(torrent, fetch)));
            }
            Wish::Datagram { to, bytes, .. } => self.send_datagram(net, to, bytes),
            Wish::Multicast { group, bytes } => self.multicast(net, group, &bytes),
        }
    }

    fn submit(&mut self, net: &mut Net) {
        let Some(engine) = &mut self.engine else { return };
        let mut jobs = take(&mut engine.shard.out().disk);
        jobs.append(&mut engine.server.out().disk);
        for (torrent, job) in jobs {
            net.trace.note(net.now, self.id.0, "job", u64::from(torrent.0), job_kind(&job));
            let (ticket, when) = self.disk.submit(net.now, torrent, job);
            net.plan(when, Event::Host(self.id, self.life, Mail::Done(ticket)));
        }
    }

    fn publish(&mut self, net: &mut Net) {
        let Some(engine) = &mut self.engine else { return };
        let mut news: Vec<News> = Vec::new();
        swap(&mut news, &mut engine.shard.out().news);
        news.append(&mut engine.server.out().news);
        for one in news {
            self.hear(net, one);
        }
    }
}

impl Engine {
    fn beat_due(&self) -> Time {
        if self.stirred { self.next_beat.min(self.last_beat + BEAT_PAUSE) } else { self.next_beat }
    }
}

impl Beats {
    /// Counts one; complains if an idle engine beats too often.
    fn count(&mut self, now: Time, idle: bool) -> Option<String> {
        self.all += 1;
        if !idle {
            return None;
        }
        self.idle += 1;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.since(*first) >= Duration::from_secs(1)) {
            self.recent.pop_front();
        }
        let count = self.recent.len();
        (count > IDLE_BEATS + ODD_BEATS)
            .then(|| format!("{count} heartbeats within a second, and nothing had happened"))
    }
}

/// As its address says, unless its gear says otherwise: a mixed swarm needs no configuration.
fn speeds(addr: SocketAddr, gear: &Gear) -> (u64, u64) {
    let digit = match addr {
        SocketAddr::V4(addr) => u32::from(addr.ip().octets()[3] % 4),
        SocketAddr::V6(_) => 0,
    };
    let up = if gear.up > 0 { gear.up } else { (256 << 10) << digit };
    let down = if gear.down > 0 { gear.down } else { (1 << 20) << digit };
    (up, down)
}

fn job_kind(job: &piecemeal_package::Job) -> u64 {
    use piecemeal_package::Job;
    match job {
        Job::Save(save) => 1_000 + u64::from(save.piece.0),
        Job::Hash(hash) => 1_000_000 + u64::from(hash.piece.0),
        Job::Load(load) => 2_000_000 + u64::from(load.at.piece.0),
        Job::Warm(_) => 1,
        Job::Stat(_) => 2,
        Job::Fence(_) => 3,
    }
}
