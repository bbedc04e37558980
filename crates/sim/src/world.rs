//! A world: hosts on a network, trackers, one clock, and what must always be true.
//!
//! Owns all of them, hands each event to whom it concerns, and looks after every event whether a claim was made that
//! is not true. Scenarios build a world, let it run, and ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::tracker::{Fetch, FetchFailure};
use piecemeal_discovery::udp::place;
use piecemeal_engine::cx::Command;
use piecemeal_metainfo::{PieceIndex, Time, TorrentId};
use piecemeal_package::Start;

use crate::dice::Dice;
use crate::net::{Datagram, Ending, Event, HostId, Life, Mail, Net, Side};
use crate::node::{Gear, Node, Seat};
use crate::peer::{Manner, Peer};
use crate::tap::{Claim, Waiting};
use crate::torrent::{Shape, TRACKER, Torrent};
use crate::trace::Trace;
use crate::tracker::SimTracker;

/// What went wrong, or nothing.
pub type Verdict = Result<(), String>;

/// How often the world looks for requests that nobody answers.
const AUDIT_PAUSE: Duration = Duration::from_secs(5);
/// A request that an engine left without answer for so long is a fault: twice what an asker waits at most.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who was choked hears so long after that what it had asked for will not come: what had begun to leave may have to
/// leave by a slow line.
const CHOKED_PATIENCE: Duration = Duration::from_secs(60);
/// Events at one instant: more is a circle.
const SAME_INSTANT: u32 = 200_000;
/// To leave all swarms and flush: farewells to a tracker may take 5 s, a slow disk some more.
const FAREWELL: Duration = Duration::from_secs(120);

/// Who is on the network.
pub enum Host {
    /// One that runs the engine.
    Node(Box<Node>),
    /// One that follows a script.
    Peer(Box<Peer>),
}

/// See the module.
pub struct World {
    /// The network and the clock.
    pub net: Net,
    /// All chance that is not the network's.
    pub dice: Dice,
    /// How long a request may be without answer.
    pub patience: Duration,
    /// Somebody may send bad content, or break the protocol: Pieces may be bad, and peers banned.
    pub hostile: bool,
    /// Hosts that sleep, and until when.
    asleep: BTreeMap<HostId, Time>,
    hosts: Vec<Host>,
    trackers: BTreeMap<String, SimTracker>,
    /// Where those live that are asked by UDP: their URLs.
    at_ports: BTreeMap<SocketAddr, String>,
    torrents: Vec<Arc<Torrent>>,
    events: u64,
    same_instant: (Time, u32),
}

impl World {
    /// An empty world with one tracker. `aloud`: it tells all that happens.
    pub fn new(seed: u64, aloud: bool) -> World {
        let mut dice = Dice::new(seed);
        let mut net = Net::new(dice.fork(), Trace::new(aloud));
        net.taps.aloud = aloud;
        net.plan(Time::ZERO + AUDIT_PAUSE, Event::Audit);
        let tracker = SimTracker::new(Duration::from_secs(600));
        World {
            net,
            dice,
            patience: PATIENCE,
            hostile: false,
            asleep: BTreeMap::new(),
            hosts: Vec::new(),
            trackers: BTreeMap::from([(TRACKER.into(), tracker)]),
            at_ports: BTreeMap::new(),
            torrents: Vec::new(),
            events: 0,
            same_instant: (Time::ZERO, 0),
        }
    }

    /// A torrent of this shape.
    pub fn torrent(&mut self, shape: &Shape) -> TorrentId {
        let torrent = Torrent::new(shape, &mut self.dice);
        self.net.taps.know(&torrent);
        self.torrents.push(torrent);
        TorrentId(self.torrents.len() as u32 - 1)
    }

    /// A torrent of about `kib` KiB, of some shape.
    pub fn some_torrent(&mut self, kib: u64) -> TorrentId {
        let shape = Shape::any(kib << 10, &mut self.dice);
        self.torrent(&shape)
    }

    /// What a torrent is.
    pub fn content(&self, torrent: TorrentId) -> &Arc<Torrent> {
        &self.torrents[torrent.0 as usize]
    }

    /// A host that runs the engine, without torrents.
    pub fn host(&mut self, gear: Gear) -> HostId {
        let addr = self.next_addr();
        let mut node = Node::new(&mut self.net, addr, gear, self.dice.fork());
        node.start(&mut self.net);
        let id = node.id;
        self.hosts.push(Host::Node(Box::new(node)));
        id
    }

    /// A host that has all of a torrent.
    pub fn seed(&mut self, torrent: TorrentId, gear: Gear) -> HostId {
        let host = self.host(gear);
        self.give(host, torrent);
        host
    }

    /// A host has all of a torrent, and finds that out in one way or another.
    pub fn give(&mut self, host: HostId, torrent: TorrentId) {
        let content = self.content(torrent).clone();
        let start = if self.dice.percent(50) { Start::Trust } else { Start::Recheck };
        self.at(host, |node, net| {
            node.disk.know(torrent, &content);
            node.disk.fill(torrent);
            node.add(net, torrent, &content, start);
        });
    }

    /// A host that has nothing of a torrent, and wants all.
    pub fn leech(&mut self, torrent: TorrentId, gear: Gear) -> HostId {
        let host = self.host(gear);
        self.want(host, torrent);
        host
    }

    /// So many of them, of no special kind.
    pub fn leeches(&mut self, count: usize, torrent: TorrentId) -> Vec<HostId> {
        (0..count).map(|_| self.leech(torrent, Gear::default())).collect()
    }

    /// A host wants all of a torrent, and goes on with what it has.
    pub fn want(&mut self, host: HostId, torrent: TorrentId) {
        let content = self.content(torrent).clone();
        self.at(host, |node, net| node.add(net, torrent, &content, Start::Resume));
    }

    /// A host that died starts again, and goes on with what it has.
    pub fn restart(&mut self, host: HostId) {
        self.at(host, Node::start);
        let torrents: Vec<TorrentId> = self.node(host).seats.keys().copied().collect();
        torrents.into_iter().for_each(|torrent| self.want(host, torrent));
    }

    /// A host hears and does nothing for so many seconds, as a laptop with its lid closed.
    pub fn suspend(&mut self, host: HostId, seconds: u64) {
        self.asleep.insert(host, self.after(seconds));
    }

    /// A peer that follows a script, known to the tracker.
    pub fn peer(&mut self, manner: Manner, torrent: TorrentId) -> HostId {
        let addr = self.next_addr();
        let content = self.content(torrent).clone();
        self.tracker().add(content.hash(), addr);
        let peer = Peer::new(&mut self.net, addr, content, manner, self.dice.fork());
        let id = peer.id;
        self.hosts.push(Host::Peer(Box::new(peer)));
        id
    }

    /// A scripted peer calls somebody.
    pub fn call(&mut self, peer: HostId, to: SocketAddr) {
        if let Host::Peer(peer) = &mut self.hosts[peer.0 as usize] {
            peer.call(&mut self.net, to);
        }
    }

    /// The tracker that torrents name.
    pub fn tracker(&mut self) -> &mut SimTracker {
        self.tracker_at(TRACKER)
    }

    /// A tracker at this URL; a new one if there was none.
    pub fn tracker_at(&mut self, url: &str) -> &mut SimTracker {
        if let Some(place) = place(url) {
            let addr = SocketAddr::from(([203, 0, 113, 1], place.port));
            self.at_ports.insert(addr, url.to_owned());
        }
        let new = || SimTracker::new(Duration::from_secs(600));
        self.trackers.entry(url.to_owned()).or_insert_with(new)
    }

    /// A host that runs the engine.
    pub fn node(&self, host: HostId) -> &Node {
        match &self.hosts[host.0 as usize] {
            Host::Node(node) => node,
            Host::Peer(_) => panic!("{host:?} follows a script"),
        }
    }

    /// A host that follows a script.
    pub fn scripted(&self, host: HostId) -> &Peer {
        match &self.hosts[host.0 as usize] {
            Host::Peer(peer) => peer,
            Host::Node(_) => panic!("{host:?} runs the engine"),
        }
    }

    /// All hosts that run the engine.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.hosts.iter().filter_map(|host| match host {
            Host::Node(node) => Some(&**node),
            Host::Peer(_) => None,
        })
    }

    /// Does something to a host that runs the engine.
    pub fn at<R>(&mut self, host: HostId, f: impl FnOnce(&mut Node, &mut Net) -> R) -> R {
        match &mut self.hosts[host.0 as usize] {
            Host::Node(node) => f(node, &mut self.net),
            Host::Peer(_) => panic!("{host:?} follows a script"),
        }
    }

    /// A torrent of a host, as its News tell.
    pub fn seat(&self, host: HostId, torrent: TorrentId) -> &Seat {
        &self.node(host).seats[&torrent]
    }

    /// Where a host listens.
    pub fn addr(&self, host: HostId) -> SocketAddr {
        match &self.hosts[host.0 as usize] {
            Host::Node(node) => node.addr,
            Host::Peer(peer) => peer.addr,
        }
    }

    /// Whether all torrents on all running hosts are complete.
    pub fn all_complete(&self) -> bool {
        self.nodes().filter(|node| node.is_up()).all(|node| node.seats.values().all(|seat| seat.complete))
    }

    /// How many pieces of a torrent no running host but `without` has.
    pub fn unshared(&self, torrent: TorrentId, without: HostId) -> u32 {
        let others: Vec<&Seat> = self
            .nodes()
            .filter(|node| node.id != without && node.is_up())
            .filter_map(|node| node.seats.get(&torrent))
            .collect();
        let pieces = (0..self.content(torrent).meta.piece_count()).map(PieceIndex);
        pieces.filter(|piece| !others.iter().any(|seat| seat.have.get(*piece))).count() as u32
    }

    /// Content that all hosts received, and of that what was in vain, in bytes; as their last Snapshots tell.
    pub fn received(&self) -> (u64, u64) {
        let snaps = self.nodes().flat_map(|node| node.seats.values()).filter_map(|seat| seat.last.as_ref());
        snaps.fold((0, 0), |sum, snap| (sum.0 + snap.downloaded, sum.1 + snap.wasted))
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Seconds from now.
    pub fn after(&self, seconds: u64) -> Time {
        self.net.now + Duration::from_secs(seconds)
    }

    /// Lets so many seconds pass.
    ///
    /// # Errors
    /// Something happened that must not.
    pub fn run_for(&mut self, seconds: u64) -> Verdict {
        let until = self.after(seconds);
        while self.step(until)? {}
        Ok(())
    }

    /// Lets time pass until `what` holds; it is looked at whenever there are News.
    ///
    /// # Errors
    /// It does not within so many seconds, or something happened that must not.
    pub fn run_until(&mut self, within: u64, goal: &str, what: impl Fn(&World) -> bool) -> Verdict {
        let until = self.after(within);
        self.net.heard_news = true;
        loop {
            if std::mem::take(&mut self.net.heard_news) && what(self) {
                return Ok(());
            }
            if !self.step(until)? {
                return Err(format!("after {within} s not {goal}: {}", self.standing()));
            }
        }
    }

    /// Lets time pass until all torrents on all running hosts are complete.
    ///
    /// # Errors
    /// See [`World::run_until`].
    pub fn run_to_completion(&mut self, within: u64) -> Verdict {
        self.run_until(within, "all complete", World::all_complete)
    }

    /// All hosts leave in good order; whatever they owe shows.
    ///
    /// # Errors
    /// Some host cannot leave, or leaves something behind.
    pub fn finish(&mut self) -> Verdict {
        let hosts: Vec<HostId> = self.nodes().map(|node| node.id).collect();
        let mild = self.nodes().flat_map(|node| node.seats.values().map(move |seat| (node, seat)));
        let harsh = mild.filter(|(_, seat)| !seat.tainted && (seat.bad > 0 || !seat.banned.is_empty()));
        if let (Some((node, seat)), false) =
            (harsh.map(|(n, s)| (n.addr, (s.bad, &s.banned))).next(), self.hostile)
        {
            return Err(format!("{node} has bad Pieces, or bans: {seat:?}, though nobody is evil"));
        }
        for host in hosts {
            self.leave(host)?;
        }
        Ok(())
    }

    /// A host leaves in good order.
    ///
    /// # Errors
    /// It cannot, or leaves something behind.
    pub fn leave(&mut self, host: HostId) -> Verdict {
        if !self.node(host).is_up() {
            return Ok(());
        }
        self.at(host, |node, net| node.command(net, Command::Shutdown));
        let gone = |world: &World| {
            let node = world.node(host);
            node.disk.jobs_out() == 0 && node.seats.values().all(|seat| seat.gone)
        };
        let until = self.net.now + FAREWELL;
        while !gone(self) {
            if !self.step(until)? {
                return Err(format!("{} does not leave: {}", self.addr(host), self.standing()));
            }
        }
        self.at(host, |node, net| node.end(net))
    }

    /// The next event. False: none before `until`.
    fn step(&mut self, until: Time) -> Result<bool, String> {
        let Some(event) = self.net.next(until) else { return Ok(false) };
        self.events += 1;
        if self.same_instant.0 == self.net.now {
            self.same_instant.1 += 1;
        } else {
            self.same_instant = (self.net.now, 0);
        }
        if self.same_instant.1 > SAME_INSTANT {
            return Err(format!("the world turns in a circle: {event:?}"));
        }
        match self.sleeper(&event) {
            Some(until) => self.net.plan(until, event),
            None => self.dispatch(event),
        }
        self.judge();
        match self.net.blame.take() {
            Some(blame) => Err(blame),
            None => Ok(true),
        }
    }

    /// Until when the one whom the event concerns sleeps.
    fn sleeper(&self, event: &Event) -> Option<Time> {
        if self.asleep.is_empty() {
            return None;
        }
        let host = match event {
            Event::Knock(_) | Event::Audit | Event::Lands(..) => return None,
            Event::Datagram(_) | Event::Heard(_) => return None,
            Event::Answer(link, _) => self.net.end_of(*link, Side::Caller),
            Event::Bytes(link, side, _) | Event::End(link, side, _) | Event::Room(link, side) => {
                self.net.end_of(*link, *side)
            }
            Event::Host(host, ..) => Some(*host),
        };
        self.asleep.get(&host?).copied().filter(|until| *until > self.net.now)
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Lands(link, side, bytes) => {
                if self.net.landed(link, side, bytes) {
                    self.dispatch(Event::Bytes(link, side, bytes));
                }
            }
            Event::Host(host, life, mail) => self.deliver(host, life, mail),
            Event::Datagram(datagram) => self.land_datagram(&datagram),
            Event::Heard(datagram) => self.deliver_datagram(&datagram),
            Event::Audit => self.audit(),
            of_a_link => self.happen(of_a_link),
        }
    }

    /// Something happens at one end of a link.
    fn happen(&mut self, event: Event) {
        let net = &mut self.net;
        let (end, from) = match event {
            Event::Knock(link) => match net.knocked(link) {
                Some((host, from)) => (Some(host), Some(from)),
                None => (None, None),
            },
            Event::Answer(link, _) => (net.end_of(link, Side::Caller), None),
            Event::Bytes(link, side, bytes) => {
                net.arrived(link, side, bytes);
                (net.end_of(link, side), None)
            }
            Event::End(link, side, _) | Event::Room(link, side) => (net.end_of(link, side), None),
            _ => (None, None),
        };
        let Some(host) = end else { return };
        if let Event::End(link, side, Ending::Closed) = event
            && let Some(when) = net.ends_later(link, side)
        {
            return net.plan(when, event);
        }
        match (&mut self.hosts[host.0 as usize], event) {
            (Host::Node(node), Event::Knock(link)) => {
                node.on_accepted(net, link, from.expect("who knocks comes from somewhere"));
            }
            (Host::Peer(peer), Event::Knock(link)) => peer.on_accepted(net, link),
            (Host::Node(node), Event::Answer(link, there)) => node.on_answer(net, link, there),
            (Host::Peer(peer), Event::Answer(link, there)) => peer.on_answer(net, link, there),
            (Host::Node(node), Event::Bytes(link, ..)) => node.on_bytes(net, link),
            (Host::Peer(peer), Event::Bytes(link, ..)) => peer.on_bytes(net, link),
            (Host::Node(node), Event::End(link, _, ending)) => node.on_end(net, link, ending),
            (Host::Peer(peer), Event::End(link, _, ending)) => peer.on_end(net, link, ending),
            (Host::Node(node), Event::Room(link, _)) => node.on_room(net, link),
            (Host::Peer(peer), Event::Room(link, _)) => peer.on_room(net, link),
            _ => {}
        }
    }

    /// Mail comes to a host, if it is still the one that asked.
    fn deliver(&mut self, host: HostId, life: Life, mail: Mail) {
        let net = &mut self.net;
        match (&mut self.hosts[host.0 as usize], mail) {
            (Host::Node(node), _) if node.life() != life => {}
            (Host::Node(node), Mail::Fetch(torrent, fetch)) => {
                let from = node.addr.ip();
                self.ask_tracker(host, life, from, torrent, &fetch);
            }
            (Host::Node(node), mail) => node.on_mail(net, mail),
            (Host::Peer(peer), Mail::Wake(link)) => peer.on_wake(net, link),
            (Host::Peer(_), _) => {}
        }
    }

    /// A datagram comes before a host's line, to a tracker, or to nobody.
    fn land_datagram(&mut self, datagram: &Datagram) {
        let net = &mut self.net;
        let tracker = self.at_ports.get(&datagram.to).and_then(|url| self.trackers.get_mut(url));
        if let Some(tracker) = tracker {
            if let Some(answer) = tracker.on_datagram(net.now, &mut net.dice, datagram.from, &datagram.bytes)
            {
                net.answer_datagram(datagram.to, datagram.from, answer);
            }
            return;
        }
        if let Some(host) = net.datagram_reaches(datagram)
            && net.datagram_lands(host, datagram)
        {
            self.deliver_datagram(datagram);
        }
    }

    /// A datagram reaches a host, if it is awake.
    fn deliver_datagram(&mut self, datagram: &Datagram) {
        let net = &mut self.net;
        let Some(host) = net.datagram_reaches(datagram) else { return };
        let asleep = self.asleep.get(&host).is_some_and(|until| *until > net.now);
        if let (Host::Node(node), false) = (&mut self.hosts[host.0 as usize], asleep) {
            net.datagram_heard(datagram);
            node.on_datagram(net, datagram);
        }
    }

    fn ask_tracker(&mut self, host: HostId, life: Life, from: IpAddr, torrent: TorrentId, fetch: &Fetch) {
        let net = &mut self.net;
        if place(&fetch.url).is_some() {
            let asked = self.at_ports.iter().find(|(_, url)| fetch.url.starts_with(url.as_str()));
            let mail = match asked {
                Some((to, _)) => Mail::Resolved(torrent, fetch.clone(), *to),
                None => Mail::Fetched(torrent, fetch.id, Err(FetchFailure::NoAddress)),
            };
            return net.plan(net.now, Event::Host(host, life, mail));
        }
        let answer = self
            .trackers
            .iter_mut()
            .find(|(url, _)| fetch.url.starts_with(url.as_str()))
            .and_then(|(_, tracker)| tracker.on_fetch(net.now, &mut net.dice, from, fetch));
        if let Some(answer) = answer {
            let when = net.now + net.dice.span(Duration::from_millis(200));
            net.plan(when, Event::Host(host, life, Mail::Fetched(torrent, fetch.id, answer)));
        }
    }

    /// Whether what engines said on links is true, and polite.
    fn judge(&mut self) {
        if self.net.taps.claims.is_empty() {
            return;
        }
        for (link, side, claim) in std::mem::take(&mut self.net.taps.claims) {
            let Some(host) = self.net.end_of(link, side) else { continue };
            let hello = matches!(claim, Claim::Hello(_));
            let place = self.net.place_of(link, side.other()).filter(|_| hello);
            let other = place.and_then(|addr| self.whose(addr.ip()));
            let Host::Node(node) = &mut self.hosts[host.0 as usize] else { continue };
            let id_of = |hash| self.torrents.iter().position(|torrent| torrent.hash() == hash);
            let id = |hash| TorrentId(id_of(hash).unwrap_or(usize::MAX) as u32);
            match claim {
                Claim::Has(hash, piece) => node.check_claims(&mut self.net, id(hash), [PieceIndex(piece)]),
                Claim::HasAll(hash, bits) => {
                    let pieces: Vec<PieceIndex> = bits.iter_ones().collect();
                    node.check_claims(&mut self.net, id(hash), pieces);
                }
                Claim::Hello(hash) => {
                    // Who calls by datagrams may speak before the other knows of it.
                    let other = self.net.end_of(link, side.other()).or(other);
                    node.greeted.extend(other.map(|other| (hash, other)));
                }
                Claim::Gossip(hash) => *node.gossip.entry(hash).or_default() += 1,
                Claim::Rude(_) if node.seats.values().any(|seat| seat.tainted) => {}
                Claim::Rude(words) => self.net.blame(|| format!("{} on {link:?}: {words}", node.addr)),
            }
        }
    }

    /// Looks for requests that an engine should have answered long ago.
    fn audit(&mut self) {
        self.net.plan(self.net.now + AUDIT_PAUSE, Event::Audit);
        let now = self.net.now;
        let slept = self.asleep.values().max().is_some_and(|until| now < *until + self.patience);
        let late = self.net.taps.waiting().find(|Waiting { link, by, since, choked, .. }| {
            let both = self.net.end_of(*link, by.other()).is_some();
            // Who does not read gets no answer.
            let deaf = self.net.is_full(*link, *by);
            let host = self.net.end_of(*link, *by).map(|host| &self.hosts[host.0 as usize]);
            let Some(Host::Node(node)) = host.filter(|_| both && !deaf && !slept) else { return false };
            let choked = choked.is_some_and(|choked| now.since(choked) > CHOKED_PATIENCE);
            node.is_up() && (choked || now.since(*since) > self.patience)
        });
        if let Some(late) = late {
            let host = self.net.end_of(late.link, late.by).map(|host| self.addr(host));
            self.net.blame(|| format!("{host:?} did not answer: {late:?}"));
        }
    }

    /// How all stand, in a few words.
    pub fn standing(&self) -> String {
        let mut words = String::new();
        for node in self.nodes().filter(|node| node.is_up()) {
            for (id, seat) in node.seats.iter().filter(|(_, seat)| !seat.complete || seat.trouble.is_some()) {
                let last = seat.last.as_ref();
                let (state, peers) = (last.map(|last| last.state), last.map_or(0, |last| last.peers.len()));
                let (have, all) = (seat.have_pieces(), seat.have.pieces());
                words += &format!("[{} {id:?} {have}/{all} {state:?} {peers} peers]", node.addr);
            }
        }
        words
    }

    fn whose(&self, ip: IpAddr) -> Option<HostId> {
        (0..self.hosts.len() as u32).map(HostId).find(|host| self.addr(*host).ip() == ip)
    }

    fn next_addr(&self) -> SocketAddr {
        let at = self.hosts.len();
        SocketAddr::from(([10, 0, (at / 250) as u8, (at % 250) as u8 + 1], 6881))
    }
}
