//! A node of the DHT (BEP 5, 32, 33, 42, 43, 44, 45, 51), one value for each address family.
//!
//! Owns the node's id, its routing table, what others stored with it, and the lookups it makes for us. It is driven as
//! all is: datagrams and commands come in with the time, datagrams to send and [`News`] go out through [`DhtOut`], and
//! [`Dht::next_due`] says when [`Dht::heartbeat`] is wanted. Sockets, names of bootstrap hosts and what is kept over a
//! restart ([`Dht::save`], [`Dht::load`]) are the owner's. Announces end; whoever wants to stay findable repeats
//! [`Dht::get_peers`] every [`ANNOUNCE_EVERY`].
//!
//! Everything a stranger can make grow has a bound, named where it stands: `limits` what is sent, `peers` and `items`
//! what is stored, `table` and `lookup` who is believed, `asks` what waits.

mod answer;
mod asks;
mod bloom;
mod commands;
mod hear;
mod id;
mod items;
mod limits;
mod lookup;
mod net;
mod peers;
mod table;
mod token;
mod upkeep;

#[cfg(test)]
mod tests;

pub use bloom::Bloom;
pub use commands::{Announce, Busy, PeerSearch};
pub use id::{Ballot, Binding, binding};
pub use items::{Item, ItemError, SecretKey, Signed, mutable_target};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::krpc::{Body, Message, NodeId};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::filter::Gate;
use crate::tracker::Family;
use asks::{AskId, Asks};
use commands::Lookup;
use items::ItemStore;
use limits::Limits;
use peers::PeerStore;
use table::Table;
use token::Tokens;

/// How often an announce is to be repeated: a third of the time for which it counts elsewhere.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(15 * 60);

/// The program in the `v` of our messages.
const VERSION: [u8; 4] = *b"PM\x00\x01";

/// Addresses that wait for a first question.
const MAX_BOOT: usize = 400;
/// Addresses that are tried again when the table is empty.
const MAX_ROUTERS: usize = 64;
/// Questions that wait for the proof of their source's address; each at most 1500 bytes, for two seconds.
const MAX_HELD: usize = 32;

/// How a node is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose addresses it speaks to; all others are ignored.
    pub family: Family,
    /// The id of the last run; `None`: a new one.
    pub id: Option<NodeId>,
    /// Behind a NAT that lets nobody in: it asks and does not answer, and others do not list it (BEP 43).
    pub read_only: bool,
    /// It lives for a few questions: it asks nobody but for those, and keeps no table alive.
    pub brief: bool,
    /// There is a node for the other family too, to which [`News::OtherFamily`] can be told.
    pub want_other: bool,
    /// Bytes a second, headers counted, that all answers to strangers may take.
    pub answer_bytes_a_second: u32,
}

impl Settings {
    /// As libtorrent has them.
    pub fn new(family: Family) -> Settings {
        Settings {
            family,
            id: None,
            read_only: false,
            brief: false,
            want_other: false,
            answer_bytes_a_second: 8_000,
        }
    }
}

/// The number of one lookup; never used again by its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LookupId(pub u64);

/// What leaves a node. The owner takes it after each call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DhtOut {
    /// To be sent: at most 1500 bytes each, most of them below 400.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// To be told.
    pub news: Vec<News>,
}

/// What the owner may want to hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// Peers of a torrent, each named once a lookup and 2000 at most. Unjudged.
    PeersFound {
        /// By which lookup.
        lookup: LookupId,
        /// Who.
        peers: Vec<SocketAddr>,
        /// How many rounds it took, from 1.
        round: u32,
    },
    /// A node that was asked by [`Dht::ping`] is there.
    Pong {
        /// By which lookup.
        lookup: LookupId,
        /// Its id.
        id: NodeId,
        /// Its `v`: which program it is, usually two letters and two bytes. At most a datagram long.
        version: Option<Vec<u8>>,
        /// Its `ip`: where it sees us (BEP 42).
        sees_us_at: Option<SocketAddr>,
    },
    /// An item, checked. Of a mutable one, only what is newer than what was told before.
    Value {
        /// By which lookup.
        lookup: LookupId,
        /// What.
        item: Item,
    },
    /// Torrents that a node knows (BEP 51).
    Samples {
        /// By which lookup.
        lookup: LookupId,
        /// Which node.
        from: SocketAddr,
        /// Some of its torrents.
        info_hashes: Vec<InfoHash>,
        /// How many it has, by its word.
        num: u32,
        /// Before this it has no others.
        interval: Duration,
    },
    /// A lookup has ended. The last that is heard of it.
    Done {
        /// Which.
        lookup: LookupId,
        /// What came of it.
        summary: Summary,
    },
    /// The node has another id, because others see it at another address (BEP 42).
    NewId {
        /// The id.
        id: NodeId,
        /// The address.
        ip: IpAddr,
    },
    /// Nodes of the other family, for that family's `add_node`.
    OtherFamily(Vec<SocketAddr>),
}

/// What came of a lookup.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Summary {
    /// The nearest nodes that answered, nearest first, at most 8. Of a `ping`: who answered.
    pub nodes: Vec<(NodeId, SocketAddr)>,
    /// How many nodes were asked.
    pub asked: usize,
    /// How many answered.
    pub answered: usize,
    /// Rounds to the last answer.
    pub rounds: u32,
    /// How many nodes took an announce or an item.
    pub stored: usize,
    /// Why one that did not said no: a code of `wire::krpc::code`, the last one heard.
    pub refused: Option<i64>,
    /// Seeds and other peers, estimated (BEP 33), if asked for.
    pub scrape: Option<(f64, f64)>,
    /// How long it took; of a `ping`: the way there and back.
    pub took: Duration,
}

// An estimate is never NaN: it is made from a count between 1 and 2047.
impl Eq for Summary {}

/// How a node stands, for people and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Nodes in the table.
    pub nodes: usize,
    /// Of those, nodes that answered within a quarter of an hour.
    pub good_nodes: usize,
    /// Torrents others announced here.
    pub torrents: usize,
    /// Their peers.
    pub peers: usize,
    /// Items others stored here.
    pub items: usize,
    /// Lookups under way.
    pub lookups: usize,
    /// What came in and led to nothing, since the start.
    pub refused: Refusals,
}

/// Datagrams that led to nothing, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refusals {
    /// No message, or of the wrong family.
    pub malformed: u64,
    /// An answer to what was not asked, or from elsewhere.
    pub unasked: u64,
    /// A question beyond a limit.
    pub limited: u64,
    /// An announce or an item with a bad token.
    pub bad_token: u64,
}

/// One node.
pub struct Dht {
    settings: Settings,
    gate: Gate,
    rng: ChaCha20Rng,
    own: NodeId,
    table: Table,
    tokens: Tokens,
    peers: PeerStore,
    items: ItemStore,
    limits: Limits,
    ballot: Ballot,
    asks: Asks,
    /// Bound: `commands::MAX_LOOKUPS`.
    lookups: BTreeMap<LookupId, Lookup>,
    last_lookup: u64,
    /// Bound: [`MAX_BOOT`].
    boot: VecDeque<SocketAddr>,
    /// Bound: [`MAX_ROUTERS`].
    routers: BTreeSet<SocketAddr>,
    /// Bound: [`MAX_HELD`].
    held: BTreeMap<AskId, Vec<u8>>,
    agenda: upkeep::Agenda,
    refused: Refusals,
}

impl Dht {
    /// A node that knows nobody. `seed` is secret: ids of questions, tokens and the node's id come from it.
    pub fn new(now: Time, settings: Settings, seed: [u8; 32]) -> Dht {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let own = settings.id.unwrap_or_else(|| random_id(&mut rng));
        Dht {
            own,
            table: Table::new(own),
            tokens: Tokens::new(now, &mut rng),
            peers: PeerStore::new(own),
            items: ItemStore::new(own),
            limits: Limits::new(now, settings.answer_bytes_a_second),
            ballot: Ballot::default(),
            asks: Asks::default(),
            lookups: BTreeMap::new(),
            last_lookup: 0,
            boot: VecDeque::new(),
            routers: BTreeSet::new(),
            held: BTreeMap::new(),
            agenda: upkeep::Agenda::new(now),
            refused: Refusals::default(),
            settings,
            gate: Gate::default(),
            rng,
        }
    }

    /// A datagram came in. `other`: the node of the other family, for those who want its nodes too (BEP 32).
    pub fn on_packet(
        &mut self,
        now: Time,
        from: SocketAddr,
        packet: &[u8],
        other: Option<&Dht>,
        out: &mut DhtOut,
    ) {
        if !self.speaks_to(from) {
            self.refused.malformed += 1;
            return;
        }
        let Ok(message) = Message::decode(packet) else {
            self.refused.malformed += 1;
            return;
        };
        match &message.body {
            Body::Query(_) | Body::Malformed { .. } => self.on_query(now, from, packet, &message, other, out),
            Body::Response(response) => {
                if let Some(proven) = self.on_response(now, from, &message, response, out) {
                    self.answer_held(now, from, &proven, other, out);
                }
            }
            Body::Error { code, .. } => self.on_error(now, from, message.transaction, *code, out),
        }
    }

    /// Our id.
    pub fn id(&self) -> NodeId {
        self.own
    }

    /// Our address as others see it, once enough of them agree.
    pub fn external_ip(&self) -> Option<IpAddr> {
        self.ballot.elected()
    }

    /// Whether we may be asked, from now on (BEP 43).
    pub fn set_read_only(&mut self, read_only: bool) {
        self.settings.read_only = read_only;
    }

    /// Who is spoken to from now on. Nodes that are not are forgotten; a question to one that is under way runs out.
    pub fn set_gate(&mut self, gate: Gate) {
        self.table.retain(|ip| !gate.blocks(ip));
        self.boot.retain(|addr| !gate.blocks(addr.ip()));
        self.routers.retain(|addr| !gate.blocks(addr.ip()));
        self.gate = gate;
    }

    /// The good nodes of the table, for [`Dht::load`] of the next run; at most some 1500.
    pub fn save(&self) -> Vec<(NodeId, SocketAddr)> {
        let nodes = self.table.nodes().filter(|node| node.fails == 0);
        nodes.map(|node| (node.id, node.addr)).collect()
    }

    /// How it stands.
    pub fn facts(&self, now: Time) -> Facts {
        let (torrents, peers) = self.peers.counts();
        let good = self.table.nodes().filter(|node| now.since(node.heard) < table::GOOD_FOR);
        Facts {
            nodes: self.table.len(),
            good_nodes: good.count(),
            torrents,
            peers,
            items: self.items.len(),
            lookups: self.lookups.len(),
            refused: self.refused,
        }
    }

    /// Bytes of heap it holds, about.
    pub fn heap_bytes(&self) -> usize {
        let lookups: usize = self.lookups.values().map(Lookup::heap_bytes).sum();
        let held: usize = self.held.values().map(Vec::capacity).sum();
        let waiting = (self.boot.capacity() + self.routers.len()) * size_of::<SocketAddr>();
        let stores = self.peers.heap_bytes() + self.items.heap_bytes();
        stores
            + self.table.heap_bytes()
            + self.limits.heap_bytes()
            + self.asks.heap_bytes()
            + lookups
            + held
            + waiting
    }

    fn speaks_to(&self, addr: SocketAddr) -> bool {
        self.is_of_family(addr) && net::can_be_sent_to(addr) && !self.gate.blocks(addr.ip())
    }

    fn is_of_family(&self, addr: SocketAddr) -> bool {
        addr.is_ipv4() == (self.settings.family == Family::V4)
    }
}

fn random_id(rng: &mut (impl Rng + ?Sized)) -> NodeId {
    let mut id = [0; 20];
    rng.fill_bytes(&mut id);
    NodeId(id)
}
