//! Questions to the DHT, by a node that lives as long as the question.
//!
//! Owns the course of each: whom to begin at, both families at once, asking again what may have got lost. How a lookup
//! goes is `discovery::dht`'s, the socket `shell::dht`'s.

mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use piecemeal_api::{
    Cancel, DhtAsk, DhtBinding, DhtFinding, DhtId, DhtKey, DhtNode, DhtRequest, DhtScrape, DhtSecret,
    DhtSign, DhtSigned, DhtSummary, IpFamily, Refusal,
};
use piecemeal_discovery::dht::{
    self, Announce, Binding, Busy, Dht, DhtOut, Item, ItemError, LookupId, News, PeerSearch, SecretKey,
    Summary, mutable_target,
};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_shell::dht::{DhtNode as Node, Ended};
use piecemeal_shell::entropy;
use piecemeal_shell::net::{Dialer, Traffic, Way};
use piecemeal_wire::krpc::NodeId;

use crate::{ways, words};

/// A question to one node is asked again after this: a datagram may get lost, and most nodes answer in half a second.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Beginnings of a search among whom nobody is there: with 16 nodes each, all that are kept are tried.
const TRIES: u32 = 3;
/// News between the threads of the two families and the caller's.
const NEWS_WAITING: usize = 256;

/// What a lookup begins with.
type Begin<'a> = dyn Fn(&mut Dht, Time, &mut DhtOut) -> Result<LookupId, Busy> + Sync + 'a;

/// What a question to one node begins with.
type BeginAt<'a> = dyn Fn(&mut Dht, Time, SocketAddr, &mut DhtOut) -> Result<LookupId, Busy> + 'a;

/// Asks the distributed hash table. What is found on the way is told as it comes.
///
/// # Errors
/// A host or value that makes no sense, no network, or the caller asked to stop. That nobody answers is a summary.
pub fn dht(
    request: &DhtRequest,
    hear: &mut dyn FnMut(DhtFinding),
    cancel: &Cancel,
) -> Result<DhtSummary, Refusal> {
    let until = Instant::now() + Duration::from_secs(u64::from(request.wait_s));
    let dialer = dialer(request)?;
    let mut errand = Errand { request, dialer, until, cancel, hear };
    let summary = match &request.ask {
        DhtAsk::Ping { addr } => errand.ping(addr),
        DhtAsk::Sample { addr } => errand.sample(addr),
        DhtAsk::Find { target } => {
            errand.search(*target, &|dht, now, out| dht.find_node(now, id(*target), out))
        }
        DhtAsk::SampleNear { target } => {
            errand.search(*target, &|dht, now, out| dht.sample_infohashes(now, id(*target), None, out))
        }
        DhtAsk::GetPeers { info_hash, scrape, announce } => {
            let announce = announce.map(|port| Announce { port, implied_port: false, seed: false });
            let info_hash = InfoHash(info_hash.0);
            let search = PeerSearch { info_hash, announce, scrape: *scrape, no_seed: false };
            errand.search(info_hash.into(), &|dht, now, out| dht.get_peers(now, search, out))
        }
        DhtAsk::Get { of } => {
            let (target, salt) = place(of)?;
            errand.search(target, &|dht, now, out| dht.get(now, id(target), salt, out))
        }
        DhtAsk::Put { value, sign } => errand.put(value, sign.as_ref()),
    };
    if cancel.is_cancelled() { Err(Refusal::Cancelled) } else { summary }
}

/// 32 secret random bytes, the seed of a key to sign items with.
///
/// # Errors
/// The system has none to give.
pub fn new_dht_key() -> Result<[u8; 32], Refusal> {
    entropy::seed()
        .map_err(|why| Refusal::System { what: "randomness for a key".into(), reason: words::reason(&why) })
}

/// One question.
struct Errand<'a> {
    request: &'a DhtRequest,
    dialer: Dialer,
    until: Instant,
    cancel: &'a Cancel,
    hear: &'a mut dyn FnMut(DhtFinding),
}

impl Errand<'_> {
    fn ping(&mut self, host: &str) -> Result<DhtSummary, Refusal> {
        let mut pong = None;
        let (addr, summary) =
            self.ask_one(host, &|dht, now, addr, out| dht.ping(now, addr, out), &mut |news| {
                if let News::Pong { id, version, sees_us_at, .. } = news {
                    pong = Some((id, version, sees_us_at));
                }
            })?;
        if let Some((id, client, sees_us_at)) = pong {
            let rtt_us = u64::try_from(summary.took.as_micros()).unwrap_or(u64::MAX);
            (self.hear)(DhtFinding::Pong { node: node(id, addr), rtt_us, client, sees_us_at });
        }
        Ok(told(DhtId([0; 20]), &[Ended { summary, complete: true }]))
    }

    fn sample(&mut self, host: &str) -> Result<DhtSummary, Refusal> {
        let target = new_dht_key()?;
        let target = NodeId(std::array::from_fn(|at| target[at]));
        let mut samples = None;
        let (_, summary) = self.ask_one(
            host,
            &|dht, now, addr, out| dht.sample_infohashes(now, target, Some(addr), out),
            &mut |news| samples = finding(news).or(samples.take()),
        )?;
        samples.into_iter().for_each(&mut *self.hear);
        Ok(told(DhtId(target.0), &[Ended { summary, complete: true }]))
    }

    /// Asks one node, again and again until it answers or the time is up.
    fn ask_one(
        &mut self,
        host: &str,
        begin: &BeginAt<'_>,
        hear: &mut dyn FnMut(News),
    ) -> Result<(SocketAddr, Summary), Refusal> {
        let addr = names::one(&self.dialer, host, self.request.family, self.until, self.cancel)?;
        let mut asker = open(&self.dialer, if addr.is_ipv4() { Family::V4 } else { Family::V6 })?;
        let _wakes = self.cancel.on_cancel(asker.waker());
        // The end of a question that was given up as lost is news, and may still be an answer.
        let mut late = None;
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let ended = asker.run(
                left.min(ASK_AGAIN),
                |dht, now, out| begin(dht, now, addr, out),
                &mut |news| match news {
                    News::Done { summary, .. } if summary.answered > 0 => {
                        late = Some(summary);
                        true
                    }
                    news => {
                        hear(news);
                        false
                    }
                },
                &|| self.cancel.is_cancelled(),
            );
            let ended = ended.map_err(|why| unreachable(host, &words::reason(&why)))?;
            let over = left <= ASK_AGAIN || ended.complete || self.cancel.is_cancelled();
            if over || late.is_some() {
                return Ok((addr, late.unwrap_or(ended.summary)));
            }
        }
    }

    /// Stores an item; one of an owner as the version after the one that is there.
    fn put(&mut self, value: &[u8], sign: Option<&DhtSign>) -> Result<DhtSummary, Refusal> {
        let mut nodes = self.nodes()?;
        let (item, cas) = match sign {
            None => (Item::immutable(value.to_vec()), None),
            Some(sign) => {
                let secret = secret(&sign.secret);
                // What cannot be signed at all is refused before anybody is asked.
                Item::sign(&secret, sign.salt.clone(), sign.seq.unwrap_or(0), value.to_vec())
                    .map_err(unfit)?;
                let seq = match sign.seq {
                    Some(seq) => seq,
                    None => self.next_seq(&mut nodes, &secret.public(), &sign.salt)?,
                };
                (Item::sign(&secret, sign.salt.clone(), seq, value.to_vec()), sign.cas)
            }
        };
        let item = item.map_err(unfit)?;
        let ended = on_all(
            &mut nodes,
            &|dht, now, out| dht.put(now, item.clone(), cas, out),
            self.until,
            self.cancel,
            &mut |_| {},
        )?;
        let signed = item.signed.as_ref().map(|signed| DhtSigned { key: signed.key, seq: signed.seq });
        Ok(DhtSummary { signed, ..told(DhtId(item.target().0), &ended) })
    }

    fn next_seq(&mut self, nodes: &mut [Node], key: &[u8; 32], salt: &[u8]) -> Result<i64, Refusal> {
        let (target, mut newest) = (mutable_target(key, salt), 0);
        on_all(
            nodes,
            &|dht, now, out| dht.get(now, target, salt, out),
            self.until,
            self.cancel,
            &mut |news| {
                if let News::Value { item, .. } = news {
                    newest = item.signed.map_or(newest, |signed| signed.seq.max(newest));
                }
            },
        )?;
        newest.checked_add(1).ok_or_else(|| {
            Refusal::invalid("seq", "the item has the last of all versions", "choose another salt or key")
        })
    }

    fn search(&mut self, target: DhtId, begin: &Begin<'_>) -> Result<DhtSummary, Refusal> {
        let mut nodes = self.nodes()?;
        let mut filter = Filter::default();
        let ended = on_all(&mut nodes, begin, self.until, self.cancel, &mut |news| {
            finding(news).and_then(|finding| filter.fresh(finding)).into_iter().for_each(&mut *self.hear);
        })?;
        Ok(told(target, &ended))
    }

    /// A node for each family there are addresses to begin at of.
    fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        let known = names::to_begin_at(&self.dialer, self.request, self.until, self.cancel)?;
        let mut nodes = Vec::new();
        let mut failed = None;
        for family in [Family::V4, Family::V6] {
            let addrs: Vec<_> =
                known.iter().copied().filter(|addr| addr.is_ipv4() == (family == Family::V4)).collect();
            if addrs.is_empty() {
                continue;
            }
            match open(&self.dialer, family) {
                Ok(mut node) => {
                    node.know(&addrs);
                    nodes.push(node);
                }
                Err(why) => failed = Some(why),
            }
        }
        match failed {
            Some(why) if nodes.is_empty() => Err(why),
            _ => Ok(nodes),
        }
    }
}

/// One lookup by all nodes at once. That one of them has no network is no failure while another has.
fn on_all(
    nodes: &mut [Node],
    begin: &Begin<'_>,
    until: Instant,
    cancel: &Cancel,
    hear: &mut dyn FnMut(News),
) -> Result<Vec<Ended>, Refusal> {
    let results: Vec<_> = thread::scope(|scope| {
        let (tell, told) = sync_channel(NEWS_WAITING);
        let spawn = |node| {
            let tell: SyncSender<News> = tell.clone();
            let name = thread::Builder::new().name("piecemeal-dht".into());
            name.spawn_scoped(scope, move || look(node, begin, until, cancel, &tell))
        };
        let threads: Vec<_> = nodes.iter_mut().map(spawn).collect();
        drop(tell);
        told.into_iter().for_each(&mut *hear);
        let join = |thread: std::io::Result<thread::ScopedJoinHandle<'_, _>>| {
            thread?.join().unwrap_or_else(|_| Err(std::io::Error::other("the search died of a bug")))
        };
        threads.into_iter().map(join).collect()
    });
    let (mut ended, mut failed) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(one) => ended.push(one),
            Err(why) => failed = Some(unreachable("DHT", &words::reason(&why))),
        }
    }
    match failed {
        Some(why) if ended.is_empty() => Err(why),
        _ => Ok(ended),
    }
}

/// What was told by the node of one family need not be told by the other's.
#[derive(Default)]
struct Filter {
    /// Bound: what two lookups tell of, 2000 each.
    peers: BTreeSet<SocketAddr>,
    /// The version of the item told last; `Some(None)`: it has none.
    newest: Option<Option<i64>>,
}

impl Filter {
    fn fresh(&mut self, finding: DhtFinding) -> Option<DhtFinding> {
        match finding {
            DhtFinding::Peers { mut peers } => {
                peers.retain(|peer| self.peers.insert(*peer));
                (!peers.is_empty()).then_some(DhtFinding::Peers { peers })
            }
            DhtFinding::Value { seq, .. } if self.newest >= Some(seq) => None,
            DhtFinding::Value { seq, value } => {
                self.newest = Some(seq);
                Some(DhtFinding::Value { seq, value })
            }
            other => Some(other),
        }
    }
}

/// One lookup by one node. If nobody of those it began with is there, it begins with others that it knows.
fn look(
    node: &mut Node,
    begin: &Begin<'_>,
    until: Instant,
    cancel: &Cancel,
    tell: &SyncSender<News>,
) -> std::io::Result<Ended> {
    let _wakes = cancel.on_cancel(node.waker());
    let mut tries = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut hear = |news| tell.send(news).is_err();
        let ended = node.run(left, begin, &mut hear, &|| cancel.is_cancelled())?;
        tries += 1;
        if !ended.complete || ended.summary.answered > 0 || tries == TRIES {
            return Ok(ended);
        }
    }
}

/// Opens what the question needs, as far as there is a way.
fn dialer(request: &DhtRequest) -> Result<Dialer, Refusal> {
    let dialer = Dialer::new(ways::policy(&request.net)?);
    let none = match dialer.way(Traffic::Dht) {
        Way::Direct | Way::Proxy => dialer.away(),
        Way::Off(why) => Some(why.to_owned()),
    };
    none.map_or(Ok(dialer), |why| Err(unreachable("DHT", &why)))
}

fn open(dialer: &Dialer, family: Family) -> Result<Node, Refusal> {
    Node::open(dialer, family)
        .map_err(|why| Refusal::System { what: "a socket for the DHT".into(), reason: words::reason(&why) })
}

fn unreachable(what: &str, reason: &str) -> Refusal {
    Refusal::Network { url: what.to_owned(), reason: reason.to_owned() }
}

fn unfit(why: ItemError) -> Refusal {
    let remedy = match why {
        ItemError::ValueTooBig(_) => "store at most 1000 bytes of bencode",
        ItemError::NotCanonical => "write keys in order and numbers without zeros in front",
        ItemError::SaltTooLong(_) => "choose one of at most 64 bytes",
        ItemError::NegativeSeq => "count versions from 0",
        ItemError::BadSignature => "please report it",
    };
    Refusal::invalid("item", why, remedy)
}

fn secret(secret: &DhtSecret) -> SecretKey {
    match secret {
        DhtSecret::Seed(seed) => SecretKey::from_seed(seed),
        DhtSecret::Expanded(bytes) => SecretKey::from_expanded(bytes),
    }
}

/// Where an item is stored, and the salt that is needed to check it.
fn place(key: &DhtKey) -> Result<(DhtId, &[u8]), Refusal> {
    match key {
        DhtKey::Target(target) => Ok((*target, &[])),
        DhtKey::Owner { salt, .. } if salt.len() > piecemeal_wire::krpc::MAX_SALT_BYTES => {
            Err(unfit(ItemError::SaltTooLong(salt.len())))
        }
        DhtKey::Owner { key, salt } => Ok((DhtId(mutable_target(key, salt).0), salt)),
    }
}

fn id(id: DhtId) -> NodeId {
    NodeId(id.0)
}

fn node(id: NodeId, addr: SocketAddr) -> DhtNode {
    DhtNode { id: DhtId(id.0), addr, binding: binding(id, addr.ip()) }
}

fn binding(id: NodeId, ip: IpAddr) -> DhtBinding {
    match dht::binding(id, ip) {
        Binding::Fits => DhtBinding::Fits,
        Binding::Differs => DhtBinding::Differs,
        Binding::Local => DhtBinding::Local,
    }
}

fn finding(news: News) -> Option<DhtFinding> {
    Some(match news {
        News::PeersFound { peers, .. } => DhtFinding::Peers { peers },
        News::Value { item, .. } => {
            DhtFinding::Value { seq: item.signed.map(|signed| signed.seq), value: item.value }
        }
        News::Samples { from, info_hashes, num, interval, .. } => DhtFinding::Samples {
            from,
            info_hashes: info_hashes.into_iter().map(DhtId::from).collect(),
            num,
            interval_s: u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
        },
        News::Pong { .. } | News::Done { .. } | News::NewId { .. } | News::OtherFamily(_) => return None,
    })
}

/// What the lookups of both families came to together.
fn told(target: DhtId, ended: &[Ended]) -> DhtSummary {
    let all = || ended.iter().map(|ended| &ended.summary);
    let mut nodes: Vec<_> =
        all().flat_map(|summary| summary.nodes.iter().map(|(id, addr)| node(*id, *addr))).collect();
    nodes.sort_by_key(|node| id(node.id).distance(id(target)));
    let sum = |of: fn(&Summary) -> usize| words::count(all().map(of).sum());
    let scrapes = || all().filter_map(|summary| summary.scrape);
    let scrape = scrapes().next().map(|_| DhtScrape {
        seeds: scrapes().map(|(seeds, _)| seeds).sum(),
        leeches: scrapes().map(|(_, leeches)| leeches).sum(),
    });
    let took = all().map(|summary| summary.took).max().unwrap_or_default();
    DhtSummary {
        target,
        nodes,
        asked: sum(|summary| summary.asked),
        answered: sum(|summary| summary.answered),
        stored: sum(|summary| summary.stored),
        refused: all().find_map(|summary| summary.refused),
        scrape,
        signed: None,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        complete: ended.iter().all(|ended| ended.complete),
    }
}

/// Whether an address is of the wanted family; without a wish both are.
fn fits(addr: &SocketAddr, family: Option<IpFamily>) -> bool {
    family.is_none_or(|family| addr.is_ipv4() == (family == IpFamily::V4))
}
