//! A thousand nodes in memory: some leave and others come, a fifth is silent, a tenth lies. Peers must be found all the
//! same, and the nodes that are found must be honest ones.
//!
//! The liars all live in one /16. Half of them behave until they are asked for something, and then name the other
//! half, whose ids are whatever is nearest to what is looked for; those take every announce and tell nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::dht::{Announce, Dht, DhtOut, LookupId, News, PeerSearch, Settings, Summary};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::krpc::{Body, Message, Method, NodeId, Query, Response, Want, encode_node};

const SECOND: Duration = Duration::from_secs(1);
const HONEST: usize = 900;
const LIARS: u8 = 100;
const SILENT: usize = 200;

/// Numbers that are the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.roll() as u8)
    }
}

struct World {
    dice: Dice,
    now: Time,
    /// `None`: has left.
    nodes: Vec<(SocketAddr, Option<Dht>)>,
    places: BTreeMap<SocketAddr, usize>,
    silent: BTreeSet<usize>,
    /// From now on.
    lying: bool,
    due: BTreeSet<(Time, usize)>,
    dues: Vec<Time>,
    flying: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    found: BTreeMap<(usize, LookupId), Vec<(SocketAddr, u32)>>,
    done: BTreeMap<(usize, LookupId), Summary>,
}

fn liar(number: u8) -> SocketAddr {
    SocketAddr::from(([66, 66, number, 7], 6_881))
}

fn is_liar(addr: &SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [66, 66])
}

/// The id that a liar shows to those it does not lie to.
fn everyday_id(number: u8) -> NodeId {
    NodeId([number.wrapping_mul(5); 20])
}

/// The id that a liar of the second half has for whoever looks for `target`.
fn near(target: NodeId, number: u8) -> NodeId {
    let mut id = target;
    id.0[18] ^= 1;
    id.0[19] ^= number;
    id
}

impl World {
    fn new() -> World {
        let mut world = World {
            dice: Dice(3),
            now: Time::ZERO,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            silent: BTreeSet::new(),
            lying: false,
            due: BTreeSet::new(),
            dues: Vec::new(),
            flying: BTreeMap::new(),
            sent: 0,
            found: BTreeMap::new(),
            done: BTreeMap::new(),
        };
        (0..HONEST).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        let [a, b, c, d] = self.dice.bytes();
        let addr = SocketAddr::from(([100 + a % 60, b, c, d], 1_024 + u16::from(a)));
        let mut dht = Dht::new(self.now, Settings::new(Family::V4), self.dice.bytes());
        for _ in 0..3.min(self.nodes.len()) {
            let known = self.live();
            dht.add_node(self.nodes[known].0);
        }
        let at = self.nodes.len();
        self.places.insert(addr, at);
        self.nodes.push((addr, Some(dht)));
        self.dues.push(self.now);
        self.due.insert((self.now, at));
    }

    /// Liars of the first half make themselves known by asking around.
    fn liars_come(&mut self) {
        for number in 0..LIARS / 2 {
            for _ in 0..300 {
                let to = self.nodes[self.dice.below(HONEST)].0;
                let query = Query { id: everyday_id(number), want: Want::default(), method: Method::Ping };
                let body = Body::Query(query);
                let ping = Message { transaction: b"aa", version: None, ip: None, read_only: false, body };
                self.send(liar(number), to, ping.encode());
            }
        }
    }

    fn command<T>(&mut self, at: usize, command: impl FnOnce(&mut Dht, Time, &mut DhtOut) -> T) -> Option<T> {
        self.due.remove(&(self.dues[at], at));
        let (from, node) = &mut self.nodes[at];
        let (from, dht) = (*from, node.as_mut()?);
        let mut out = DhtOut::default();
        let result = command(dht, self.now, &mut out);
        self.dues[at] = dht.next_due();
        self.due.insert((self.dues[at], at));
        out.datagrams.into_iter().for_each(|(to, bytes)| self.send(from, to, bytes));
        for news in out.news {
            match news {
                News::PeersFound { lookup, peers, round } => {
                    let found = self.found.entry((at, lookup)).or_default();
                    found.extend(peers.into_iter().map(|peer| (peer, round)));
                }
                News::Done { lookup, summary } => _ = self.done.insert((at, lookup), summary),
                _ => {}
            }
        }
        Some(result)
    }

    /// From 10 to 200 ms on the way; one in fifty is lost.
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let delay = Duration::from_millis(10 + self.dice.below(190) as u64);
        if self.dice.below(50) > 0 {
            self.sent += 1;
            self.flying.insert((self.now + delay, self.sent), (from, to, bytes));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let (due, at) = self.due.first().copied().unwrap_or((Time::NEVER, 0));
            let arrival = self.flying.first_key_value().map_or(Time::NEVER, |((when, _), _)| *when);
            if due.min(arrival) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due.min(arrival));
            if due < arrival {
                self.command(at, |dht, now, out| dht.heartbeat(now, out));
            } else if let Some((_, (from, to, bytes))) = self.flying.pop_first() {
                self.deliver(from, to, &bytes);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        match self.places.get(&to).copied() {
            Some(at) if !self.silent.contains(&at) => {
                self.command(at, |dht, now, out| dht.on_packet(now, from, bytes, None, out));
            }
            None if is_liar(&to) => self.lie(from, to, bytes),
            _ => {}
        }
    }

    fn lie(&mut self, from: SocketAddr, own: SocketAddr, bytes: &[u8]) {
        let message = Message::decode(bytes).expect("honest nodes send messages");
        let Body::Query(query) = &message.body else { return };
        let number = (0..LIARS).find(|number| liar(*number) == own).expect("a liar");
        let target = match query.method {
            Method::FindNode { target } | Method::Get { target, .. } => Some(target),
            Method::GetPeers { info_hash, .. } => Some(info_hash.into()),
            _ => None,
        };
        let (mut id, mut nodes) = (everyday_id(number), Vec::new());
        if let Some(target) = target.filter(|_| self.lying) {
            if number >= LIARS / 2 {
                id = near(target, number);
            }
            for _ in 0..8 {
                let other = LIARS / 2 + self.dice.below(usize::from(LIARS / 2)) as u8;
                encode_node(near(target, other), liar(other), &mut nodes);
            }
        }
        let mut response = Response::new(id);
        (response.nodes, response.token) = (Some(&nodes[..]), Some(&b"anything"[..]));
        let (transaction, body) = (message.transaction, Body::Response(response));
        let answer = Message { transaction, version: None, ip: None, read_only: false, body }.encode();
        self.send(own, from, answer);
    }

    /// Five leave, five come.
    fn churn(&mut self) {
        for _ in 0..5 {
            let at = self.live();
            self.due.remove(&(self.dues[at], at));
            self.nodes[at].1 = None;
            self.join();
        }
    }

    fn live(&mut self) -> usize {
        loop {
            let at = self.dice.below(self.nodes.len());
            if self.nodes[at].1.is_some() && !self.silent.contains(&at) {
                return at;
            }
        }
    }

    fn get_peers(&mut self, info_hash: InfoHash, announce: Option<Announce>) -> (usize, LookupId) {
        let at = self.live();
        let search = PeerSearch { info_hash, announce, scrape: false, no_seed: false };
        let lookup = self.command(at, |dht, now, out| dht.get_peers(now, search, out).expect("not busy"));
        (at, lookup.expect("it is live"))
    }
}

#[test]
fn peers_are_found_among_the_silent_and_the_lying() {
    let mut world = World::new();
    world.run(40 * SECOND);
    world.liars_come();
    world.run(20 * SECOND);
    for _ in 0..SILENT {
        let at = world.live();
        world.silent.insert(at);
    }
    world.lying = true;

    let mut announced = Vec::new();
    for number in 0..30 {
        let info_hash = InfoHash(world.dice.bytes());
        let announce = Announce { port: 7_000 + number, implied_port: false, seed: false };
        let (at, _) = world.get_peers(info_hash, Some(announce));
        announced.push((info_hash, SocketAddr::new(world.nodes[at].0.ip(), announce.port)));
    }
    world.run(30 * SECOND);

    let mut lookups = Vec::new();
    for _ in 0..10 {
        world.churn();
        world.run(10 * SECOND);
        for (info_hash, peer) in &announced {
            lookups.push((world.get_peers(*info_hash, None), *peer));
        }
        world.run(20 * SECOND);
    }

    // Who left took its lookups along.
    let ended: Vec<_> = lookups.iter().filter(|(lookup, _)| world.done.contains_key(lookup)).collect();
    assert!(ended.len() >= lookups.len() - 50, "{} of {}", ended.len(), lookups.len());
    let (mut hits, mut most_rounds, mut met_liars, mut known) = (0, 0, 0, 0);
    for (lookup, peer) in &ended {
        let found = world.found.get(lookup).into_iter().flatten().find(|(found, _)| found == peer);
        if let Some((_, round)) = found {
            most_rounds = most_rounds.max(*round);
            hits += usize::from(*round <= 8);
        }
        let summary = &world.done[lookup];
        let liars = summary.nodes.iter().filter(|(_, addr)| is_liar(addr)).count();
        met_liars += usize::from(liars > 0);
        assert!(summary.nodes.len() == 8 && liars <= 2, "{summary:?}");
    }
    for dht in world.nodes.iter().filter_map(|(_, dht)| dht.as_ref()) {
        known += dht.save().iter().filter(|(_, addr)| is_liar(addr)).count();
    }
    println!(
        "{hits} of {} found, after {most_rounds} rounds at most; {met_liars} ended at liars, whom {known} know",
        ended.len()
    );
    assert!(met_liars * 4 > ended.len(), "they have not even tried");
    assert!(hits * 100 >= ended.len() * 99, "{hits} of {}", ended.len());
}
