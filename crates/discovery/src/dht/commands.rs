//! What a node does for us: lookups of all kinds, from the command to the summary.
//!
//! Owns what each kind asks, what it makes of the answers, and the order in which lookups take turns. Whom to ask next
//! is `lookup`'s, who answered what is `hear`'s.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::krpc::{Body, Message, Method, NodeId, Query, Want};
use thiserror::Error;

use super::asks::Purpose;
use super::bloom::Bloom;
use super::items::{Item, mutable_target};
use super::lookup::Search;
use super::table::K;
use super::{Dht, DhtOut, LookupId, MAX_BOOT, MAX_ROUTERS, News, Summary, VERSION, net};

/// Lookups at once, those that wait for a turn included.
pub(super) const MAX_LOOKUPS: usize = 1_024;
/// Lookups that ask at once; so at most some 50 questions are out, and a start with 1000 torrents is no burst.
const RUNNING: usize = 16;
/// Nodes of the table a lookup begins with: more than are needed, as some may be gone.
const BEGIN_WITH: usize = 2 * K;
/// Peers told by one lookup.
const MAX_PEERS_FOUND: usize = 2_000;

/// Who searches for peers, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerSearch {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Announce us to the nearest nodes afterwards.
    pub announce: Option<Announce>,
    /// Count the swarm (BEP 33).
    pub scrape: bool,
    /// Seeds are of no use (BEP 33).
    pub no_seed: bool,
}

/// How to be announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    /// Where we listen.
    pub port: u16,
    /// We listen, by uTP, where our datagrams come from; behind a NAT that is the port to be known by.
    pub implied_port: bool,
    /// We have everything (BEP 33).
    pub seed: bool,
}

/// Too many lookups are waiting already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("more than {MAX_LOOKUPS} lookups at once")]
pub struct Busy;

/// What a lookup is for.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Ping,
    FindNode,
    /// Of the node itself: a part of the table needs life.
    Refresh,
    Peers(PeerSearch),
    Get {
        salt: Vec<u8>,
    },
    Put {
        item: Box<Item>,
        cas: Option<i64>,
    },
    Sample,
}

/// One command under way.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) kind: Kind,
    pub(super) search: Search,
    since: Time,
    begun: bool,
    /// Only those it begins with are asked.
    pub(super) closed: bool,
    /// Answers to `announce_peer` or `put` that are to come; `None`: not so far yet.
    storing: Option<usize>,
    pub(super) stored: usize,
    pub(super) refused: Option<i64>,
    /// Bound: [`MAX_PEERS_FOUND`].
    told: BTreeSet<SocketAddr>,
    pub(super) seeds: Bloom,
    pub(super) leeches: Bloom,
    /// The version of a mutable item that was told last.
    best_seq: Option<i64>,
    /// It was found, and nothing can be added.
    satisfied: bool,
}

impl Lookup {
    fn new(now: Time, kind: Kind, target: NodeId) -> Lookup {
        Lookup {
            kind,
            search: Search::new(target),
            since: now,
            begun: false,
            closed: false,
            storing: None,
            stored: 0,
            refused: None,
            told: BTreeSet::new(),
            seeds: Bloom::default(),
            leeches: Bloom::default(),
            best_seq: None,
            satisfied: false,
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Lookup>() + self.search.heap_bytes() + self.told.len() * size_of::<SocketAddr>() * 3 / 2
    }

    /// Those of `peers` that were not told before.
    pub(super) fn new_peers(&mut self, peers: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut fresh = Vec::new();
        for peer in peers {
            if self.told.len() < MAX_PEERS_FOUND && self.told.insert(*peer) {
                fresh.push(*peer);
            }
        }
        fresh
    }

    /// An item that was found under the target, unchecked. Whether it is to be told.
    pub(super) fn is_news(&mut self, item: &Item) -> bool {
        let seq = item.signed.as_ref().map(|signed| signed.seq);
        let older = self.best_seq >= seq && self.best_seq.is_some();
        if self.satisfied || older || item.target() != self.search.target() || item.check().is_err() {
            return false;
        }
        // An item without a signature is its own proof; there can be no other.
        self.satisfied = seq.is_none();
        self.best_seq = seq;
        true
    }

    pub(super) fn salt(&self) -> &[u8] {
        match &self.kind {
            Kind::Get { salt } => salt,
            _ => &[],
        }
    }

    /// An answer to `announce_peer` or `put` came, or will not come.
    pub(super) fn store_ended(&mut self, result: Result<(), Option<i64>>) {
        self.storing = self.storing.map(|left| left.saturating_sub(1));
        match result {
            Ok(()) => self.stored += 1,
            Err(code) => self.refused = code.or(self.refused),
        }
    }

    fn summary(&self, now: Time) -> Summary {
        let (asked, answered) = self.search.counts();
        let scrape = matches!(&self.kind, Kind::Peers(search) if search.scrape);
        let estimate = |bloom: &Bloom| if bloom.is_empty() { 0.0 } else { bloom.estimate() };
        Summary {
            nodes: self.search.found().into_iter().map(|found| (found.id, found.addr)).collect(),
            asked,
            answered,
            rounds: self.search.rounds(),
            stored: self.stored,
            refused: self.refused,
            scrape: scrape.then(|| (estimate(&self.seeds), estimate(&self.leeches))),
            took: now.since(self.since),
        }
    }
}

impl Dht {
    /// Searches for peers, and announces us if that is wanted. Announces are to be repeated every
    /// [`super::ANNOUNCE_EVERY`].
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn get_peers(&mut self, now: Time, search: PeerSearch, out: &mut DhtOut) -> Result<LookupId, Busy> {
        self.begin(now, Lookup::new(now, Kind::Peers(search), search.info_hash.into()), out)
    }

    /// Searches for the nodes nearest to `target`.
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn find_node(&mut self, now: Time, target: NodeId, out: &mut DhtOut) -> Result<LookupId, Busy> {
        self.begin(now, Lookup::new(now, Kind::FindNode, target), out)
    }

    /// Asks one node whether it is there.
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn ping(&mut self, now: Time, addr: SocketAddr, out: &mut DhtOut) -> Result<LookupId, Busy> {
        self.begin_at(now, Lookup::new(now, Kind::Ping, self.own), addr, out)
    }

    /// Searches for an item by its key. `salt` belongs to the key of a mutable item and is needed to check it.
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn get(
        &mut self,
        now: Time,
        target: NodeId,
        salt: &[u8],
        out: &mut DhtOut,
    ) -> Result<LookupId, Busy> {
        self.begin(now, Lookup::new(now, Kind::Get { salt: salt.to_vec() }, target), out)
    }

    /// Stores an item with the nodes nearest to its key; those who know better refuse, see [`Summary::refused`].
    /// `cas`: only over this version of a mutable item.
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn put(
        &mut self,
        now: Time,
        item: Item,
        cas: Option<i64>,
        out: &mut DhtOut,
    ) -> Result<LookupId, Busy> {
        let target = item.target();
        self.begin(now, Lookup::new(now, Kind::Put { item: Box::new(item), cas }, target), out)
    }

    /// Asks which torrents are known: the nodes on the way to `target`, or only the one at `only` (BEP 51).
    ///
    /// # Errors
    /// If too many lookups are waiting.
    pub fn sample_infohashes(
        &mut self,
        now: Time,
        target: NodeId,
        only: Option<SocketAddr>,
        out: &mut DhtOut,
    ) -> Result<LookupId, Busy> {
        let lookup = Lookup::new(now, Kind::Sample, target);
        match only {
            Some(addr) => self.begin_at(now, lookup, addr, out),
            None => self.begin(now, lookup, out),
        }
    }

    /// What a lookup that is under way has come to; `None` once it has ended.
    pub fn so_far(&self, now: Time, id: LookupId) -> Option<Summary> {
        self.lookups.get(&id).map(|lookup| lookup.summary(now))
    }

    /// Ends a lookup without a word. An announce that is under way may still be stored.
    pub fn cancel(&mut self, now: Time, id: LookupId, out: &mut DhtOut) {
        self.lookups.remove(&id);
        self.run_waiting(now, out);
    }

    /// An address where a node may be: a bootstrap host, a torrent's `nodes`, a PORT message (BEP 5). It is asked on
    /// the next beat. Beyond a bound it is dropped.
    pub fn add_node(&mut self, addr: SocketAddr) {
        if self.speaks_to(addr) && !self.boot.contains(&addr) && self.boot.len() < MAX_BOOT {
            self.boot.push_back(addr);
            if self.routers.len() < MAX_ROUTERS {
                self.routers.insert(addr);
            }
        }
    }

    /// The nodes of the last run, as [`Dht::save`] gave them. They are asked before they are believed.
    pub fn load(&mut self, nodes: &[(NodeId, SocketAddr)]) {
        for (_, addr) in nodes {
            if self.speaks_to(*addr) && !self.boot.contains(addr) && self.boot.len() < MAX_BOOT {
                self.boot.push_back(*addr);
            }
        }
    }

    fn begin_at(
        &mut self,
        now: Time,
        mut lookup: Lookup,
        addr: SocketAddr,
        out: &mut DhtOut,
    ) -> Result<LookupId, Busy> {
        (lookup.begun, lookup.closed) = (true, true);
        if self.speaks_to(addr) {
            lookup.search.begin_with(None, addr);
        }
        self.begin(now, lookup, out)
    }

    fn begin(&mut self, now: Time, lookup: Lookup, out: &mut DhtOut) -> Result<LookupId, Busy> {
        if self.lookups.len() >= MAX_LOOKUPS {
            return Err(Busy);
        }
        self.last_lookup += 1;
        let id = LookupId(self.last_lookup);
        self.lookups.insert(id, lookup);
        self.advance(now, id, out);
        Ok(id)
    }

    /// A lookup of the node's own, for an id of a part of the table.
    pub(super) fn refresh(&mut self, now: Time, target: NodeId, out: &mut DhtOut) {
        // With too many lookups of others the table gets life enough.
        let _ = self.begin(now, Lookup::new(now, Kind::Refresh, target), out);
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.lookups.values().any(|lookup| matches!(lookup.kind, Kind::Refresh))
    }

    /// Lets a lookup, if it is its turn, ask whom it can, and end if it is over.
    pub(super) fn advance(&mut self, now: Time, id: LookupId, out: &mut DhtOut) {
        if self.lookups.keys().take(RUNNING).any(|running| *running == id) && self.go_on(now, id, out) {
            self.run_waiting(now, out);
        }
    }

    /// Gives those their turn who wait for it; a loop, as each may end at once.
    fn run_waiting(&mut self, now: Time, out: &mut DhtOut) {
        while let Some((id, _)) = self.lookups.iter().take(RUNNING).find(|(_, lookup)| !lookup.begun) {
            self.go_on(now, *id, out);
        }
    }

    /// Whether the lookup has ended.
    fn go_on(&mut self, now: Time, id: LookupId, out: &mut DhtOut) -> bool {
        let Some(mut lookup) = self.lookups.remove(&id) else { return false };
        if !lookup.begun {
            self.begin_search(&mut lookup);
        }
        if lookup.storing.is_none() && !lookup.satisfied {
            while let Some(addr) = lookup.search.next() {
                if !self.ask_next(now, id, &lookup, addr, out) {
                    lookup.search.failed(addr);
                }
            }
        }
        if lookup.storing.is_none() && (lookup.satisfied || lookup.search.is_over()) {
            lookup.storing = Some(self.store(now, id, &lookup, out));
        }
        if lookup.storing != Some(0) {
            self.lookups.insert(id, lookup);
            return false;
        }
        if !matches!(lookup.kind, Kind::Refresh) {
            out.news.push(News::Done { lookup: id, summary: lookup.summary(now) });
        }
        true
    }

    fn begin_search(&mut self, lookup: &mut Lookup) {
        lookup.begun = true;
        let target = lookup.search.target();
        let known = self.table.nearest(target, BEGIN_WITH);
        for (id, addr) in &known {
            lookup.search.begin_with(Some(*id), *addr);
        }
        if known.len() < K {
            for addr in self.routers.iter().chain(&self.boot).take(BEGIN_WITH) {
                lookup.search.begin_with(None, *addr);
            }
            // If those are gone, the next lookup begins with others.
            let tried = BEGIN_WITH.min(self.boot.len());
            self.boot.rotate_left(tried);
        }
    }

    fn ask_next(
        &mut self,
        now: Time,
        id: LookupId,
        lookup: &Lookup,
        addr: SocketAddr,
        out: &mut DhtOut,
    ) -> bool {
        let target = lookup.search.target();
        let method = match &lookup.kind {
            Kind::Ping => Method::Ping,
            Kind::FindNode | Kind::Refresh => Method::FindNode { target },
            Kind::Peers(search) => Method::GetPeers {
                info_hash: search.info_hash,
                scrape: search.scrape,
                no_seed: search.no_seed,
            },
            Kind::Get { .. } => Method::Get { target, seq: None },
            // Whoever has the item need not send it back: only its token is wanted.
            Kind::Put { item, .. } => {
                Method::Get { target, seq: item.signed.as_ref().map(|signed| signed.seq) }
            }
            Kind::Sample => Method::SampleInfohashes { target },
        };
        self.ask(now, addr, method, Purpose::Lookup(id), out)
    }

    /// Announces or stores with those that were found; how many answers are to come.
    fn store(&mut self, now: Time, id: LookupId, lookup: &Lookup, out: &mut DhtOut) -> usize {
        let mut sent = 0;
        for found in lookup.search.found() {
            if found.token.is_empty() {
                continue;
            }
            let token = &found.token[..];
            let method = match &lookup.kind {
                Kind::Peers(PeerSearch { info_hash, announce: Some(announce), .. }) => Method::AnnouncePeer {
                    info_hash: *info_hash,
                    port: announce.port,
                    implied_port: announce.implied_port,
                    seed: announce.seed,
                    token,
                },
                Kind::Put { item, cas } => Method::Put { token, item: item.as_put(*cas) },
                _ => return 0,
            };
            sent += usize::from(self.ask(now, found.addr, method, Purpose::Store(id), out));
        }
        sent
    }

    /// Sends a question; false if too many are out.
    pub(super) fn ask(
        &mut self,
        now: Time,
        to: SocketAddr,
        method: Method<'_>,
        purpose: Purpose,
        out: &mut DhtOut,
    ) -> bool {
        let Some(id) = self.asks.add(now, to, purpose, &mut self.rng) else { return false };
        self.table.asked(now, to);
        let both = self.settings.want_other && matches!(method, Method::FindNode { .. });
        let query = Query { id: self.own, want: Want { v4: both, v6: both }, method };
        let datagram = Message {
            transaction: &id.to_be_bytes(),
            version: Some(&VERSION),
            ip: None,
            read_only: self.settings.read_only,
            body: Body::Query(query),
        };
        out.datagrams.push((to, datagram.encode()));
        true
    }

    /// What a found item would be as an [`Item`], if its parts are there.
    pub(super) fn item_of(
        value: &[u8],
        key: Option<&[u8; 32]>,
        signature: Option<&[u8; 64]>,
        seq: Option<i64>,
        salt: &[u8],
        target: NodeId,
    ) -> Option<Item> {
        let signed = match key {
            Some(key) if mutable_target(key, salt) == target => {
                Some(super::Signed { key: *key, salt: salt.to_vec(), seq: seq?, signature: *signature? })
            }
            _ => None,
        };
        Some(Item { value: value.to_vec(), signed })
    }

    /// Whether a node named by `source` may be asked.
    pub(super) fn is_worth_asking(&self, id: NodeId, addr: SocketAddr, source: SocketAddr) -> bool {
        id != self.own && self.speaks_to(addr) && net::can_be_told(addr, source)
    }
}
