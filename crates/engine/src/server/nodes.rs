//! Our nodes of the DHT, one for each address family, and when which torrent is searched for there.
//!
//! Owns the nodes and the agenda of searches. A search also announces us; it is repeated for as long as its torrent is
//! in its swarm. What peers it finds goes out as [`Note::Found`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::dht::{
    ANNOUNCE_EVERY, Announce, Dht, DhtOut, LookupId, News as DhtNews, PeerSearch, Settings as DhtSettings,
    Summary,
};
use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::{InfoHash, Time, TorrentId};
use rand_core::Rng as _;

use crate::cx::{KeptNodes, Net, Note, Out, Purpose, Rng, Settings};
use crate::swarm::PeerSource;

/// Nobody answered: we know no node yet, or the network is away.
const AGAIN_UNHEARD: Duration = Duration::from_secs(5);
/// There was no room for another search.
const AGAIN_BUSY: Duration = Duration::from_secs(10);
/// Nobody was found; others may come, and a torrent without peers waits for them.
const AGAIN_ALONE: Duration = Duration::from_secs(60);
/// Nodes kept over a restart, of each family (Transmission keeps 300).
const MOST_KEPT: usize = 300;

/// See the module.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    port: u16,
    /// Where peers from outside reach us by IPv4.
    port_v4: u16,
    torrents: BTreeMap<TorrentId, InfoHash>,
    /// When to search for whom, by which node.
    due: BTreeSet<(Time, TorrentId, usize)>,
    out: DhtOut,
    gate: Gate,
}

struct Node {
    dht: Dht,
    family: Family,
    /// Whom the searches under way are for, and how many peers they found. Bounded by the node.
    searches: BTreeMap<LookupId, (TorrentId, usize)>,
}

impl Nodes {
    pub(super) fn new(settings: &Settings, rng: &mut Rng) -> Nodes {
        let families = [(settings.ipv4, Family::V4, 0), (settings.ipv6, Family::V6, 1)];
        let both = settings.ipv4 && settings.ipv6;
        let nodes = families.into_iter().filter(|(spoken, ..)| settings.dht && *spoken);
        let nodes = nodes.map(|(_, family, at)| {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            // Nobody can reach one without a port: others need not list it (BEP 43).
            let own = DhtSettings {
                id: settings.dht_ids[at],
                read_only: settings.port == 0,
                want_other: both,
                ..DhtSettings::new(family)
            };
            let mut dht = Dht::new(Time::ZERO, own, seed);
            dht.set_gate(settings.gate.clone());
            Node { dht, family, searches: BTreeMap::new() }
        });
        Nodes {
            nodes: nodes.collect(),
            port: settings.port,
            port_v4: settings.port,
            torrents: BTreeMap::new(),
            due: BTreeSet::new(),
            out: DhtOut::default(),
            gate: settings.gate.clone(),
        }
    }

    /// Peers reach us elsewhere by IPv4, at this port or by another address: all torrents are announced again there.
    pub(super) fn moved(&mut self, now: Time, port: u16) {
        self.port_v4 = port;
        let Some(at) = self.nodes.iter().position(|node| node.family == Family::V4) else { return };
        self.due.retain(|(_, _, node)| *node != at);
        self.due.extend(self.torrents.keys().map(|torrent| (now, *torrent, at)));
    }

    /// Who is spoken to from now on.
    pub(super) fn set_gate(&mut self, gate: &Gate) {
        self.nodes.iter_mut().for_each(|node| node.dht.set_gate(gate.clone()));
        self.gate = gate.clone();
    }

    /// Searches for this torrent's peers from now on.
    pub(super) fn add(&mut self, now: Time, torrent: TorrentId, info_hash: InfoHash) {
        self.torrents.insert(torrent, info_hash);
        self.due.extend((0..self.nodes.len()).map(|node| (now, torrent, node)));
    }

    /// And no more.
    pub(super) fn remove(&mut self, torrent: TorrentId) {
        self.torrents.remove(&torrent);
        self.due.retain(|(_, other, _)| *other != torrent);
    }

    /// Addresses where nodes may be.
    pub(super) fn learn(&mut self, addrs: &[SocketAddr]) {
        for node in &mut self.nodes {
            addrs.iter().for_each(|addr| node.dht.add_node(*addr));
        }
    }

    /// Our ids, and nodes that are worth remembering.
    pub(super) fn worth_keeping(&self) -> KeptNodes {
        let good = |node: &Node| node.dht.save().into_iter().take(MOST_KEPT).map(|(_, addr)| addr);
        let id = |family| self.nodes.iter().find(|node| node.family == family).map(|node| node.dht.id());
        KeptNodes { ids: [id(Family::V4), id(Family::V6)], nodes: self.nodes.iter().flat_map(good).collect() }
    }

    /// A datagram came that may be the DHT's.
    pub(super) fn on_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8], out: &mut Out) {
        let is_its = |node: &Node| from.is_ipv4() == (node.family == Family::V4);
        let Some(at) = self.nodes.iter().position(is_its) else { return };
        let (before, rest) = self.nodes.split_at_mut(at);
        let Some((node, behind)) = rest.split_first_mut() else { return };
        let other = before.first().or(behind.first()).map(|other| &other.dht);
        node.dht.on_packet(now, from, packet, other, &mut self.out);
        self.drain(now, at, out);
    }

    /// Somebody beside the DHT says that we are at this address.
    pub(super) fn seen_as(&mut self, now: Time, ip: IpAddr, by: SocketAddr, out: &mut Out) {
        for at in 0..self.nodes.len() {
            self.nodes[at].dht.vote_external_ip(now, ip, by, &mut self.out);
            self.drain(now, at, out);
        }
    }

    /// Our address of that family, once enough agree.
    pub(super) fn external_ip(&self, v4: bool) -> Option<IpAddr> {
        let family = if v4 { Family::V4 } else { Family::V6 };
        self.nodes.iter().find(|node| node.family == family)?.dht.external_ip()
    }

    /// Does what is due.
    pub(super) fn heartbeat(&mut self, now: Time, out: &mut Out) {
        for at in 0..self.nodes.len() {
            self.nodes[at].dht.heartbeat(now, &mut self.out);
            self.drain(now, at, out);
        }
        while let Some(&(due, torrent, at)) = self.due.first()
            && due <= now
        {
            self.due.remove(&(due, torrent, at));
            self.search(now, torrent, at, out);
        }
    }

    fn search(&mut self, now: Time, torrent: TorrentId, at: usize, out: &mut Out) {
        let Some(&info_hash) = self.torrents.get(&torrent) else { return };
        let port = if self.nodes[at].family == Family::V4 { self.port_v4 } else { self.port };
        // A NAT that nobody told of a port may have chosen one for our datagrams, and lets uTP in by it. Where a router
        // gave us another port, that is the one.
        let announce = Announce { port, implied_port: port == self.port, seed: false };
        let search = PeerSearch {
            info_hash,
            announce: (port != 0).then_some(announce),
            scrape: false,
            no_seed: false,
        };
        match self.nodes[at].dht.get_peers(now, search, &mut self.out) {
            Ok(lookup) => {
                self.nodes[at].searches.insert(lookup, (torrent, 0));
            }
            Err(_) => {
                self.due.insert((now + AGAIN_BUSY, torrent, at));
            }
        }
        self.drain(now, at, out);
    }

    /// When [`Nodes::heartbeat`] has something to do.
    pub(super) fn next_due(&self) -> Time {
        let search = self.due.first().map_or(Time::NEVER, |(due, ..)| *due);
        self.nodes.iter().map(|node| node.dht.next_due()).fold(search, Time::min)
    }

    fn drain(&mut self, now: Time, at: usize, out: &mut Out) {
        // A search under way may know some from before.
        let gate = &self.gate;
        let datagrams = self.out.datagrams.drain(..).filter(|(to, _)| !gate.blocks(to.ip()));
        out.net.extend(datagrams.map(|(to, bytes)| Net::Datagram { purpose: Purpose::Dht, to, bytes }));
        for news in std::mem::take(&mut self.out.news) {
            match news {
                DhtNews::PeersFound { lookup, peers, .. } => {
                    if let Some((torrent, found)) = self.nodes[at].searches.get_mut(&lookup) {
                        *found += peers.len();
                        out.notes.push(Note::Found { torrent: *torrent, peers, source: PeerSource::Dht });
                    }
                }
                DhtNews::Done { lookup, summary } => self.searched(now, at, lookup, &summary),
                DhtNews::OtherFamily(addrs) => self.learn(&addrs),
                DhtNews::NewId { .. }
                | DhtNews::Pong { .. }
                | DhtNews::Value { .. }
                | DhtNews::Samples { .. } => {}
            }
        }
    }

    fn searched(&mut self, now: Time, at: usize, lookup: LookupId, summary: &Summary) {
        let Some((torrent, found)) = self.nodes[at].searches.remove(&lookup) else { return };
        // Since it began, another may have been planned.
        let planned = self.due.iter().any(|(_, other, node)| (*other, *node) == (torrent, at));
        if self.torrents.contains_key(&torrent) && !planned {
            let again = match (summary.answered, found) {
                (0, _) => AGAIN_UNHEARD,
                (_, 0) => AGAIN_ALONE,
                _ => ANNOUNCE_EVERY,
            };
            self.due.insert((now + again, torrent, at));
        }
    }
}
