//! The tracker server's book: who is in which swarm (BEP 3, 7, 48).
//!
//! Owns all swarms, their limits and their expiry. Queries, answers and intervals are the caller's (`trackerd`); it
//! also vouches for the address, as everything here believes it.
//!
//! Everybody may write into this book, so it is bounded by [`SwarmLimits`] and has one policy: *those who are here
//! stay*. Room is made only by
//! 1. peers that were not heard of for a lifetime, or said `stopped`;
//! 2. swarms that are empty. One that nobody ever completed goes at once; one with a count to remember stays until its
//!    place is needed, and the one that has been empty longest goes first.
//!
//! Whoever finds no room is told the peers of his swarm but not listed. So a flood of invented swarms or peers can
//! keep newcomers out while it lasts, as it can with any policy, but drives nobody out who announces in time; and the
//! bound on one network's peers in a swarm means that a single host can not pass for a swarm.
//!
//! Nothing is timed from outside: each call sweeps the swarm it touches and a few others, so that the whole book is
//! swept in the course of business. A book nobody opens keeps its dead, which costs nobody anything.

mod roll;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::tracker::Event;
use rand_core::Rng;

use crate::dice;
use roll::{Host, Roll, Tenths, Was};

/// Swarms looked at for the dead by each call, beside the one it touches.
const SWEPT_AT_ONCE: usize = 8;

/// The dead may lie this part of a lifetime longer, lest each announce to a large swarm look at all of it.
const SWEEPS_A_LIFETIME: u32 = 16;

/// What strangers may cost in memory. A peer takes 12 bytes (IPv4) or 24 (IPv6), twice that at worst; a swarm about
/// 200. So the default is bounded by some 100 MB, and reaches them only if filled by IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwarmLimits {
    /// Swarms at once.
    pub swarms: usize,
    /// Peers in all swarms together, both families.
    pub peers: usize,
    /// Peers in one swarm, both families. Far more than anybody needs to find the others.
    pub peers_per_swarm: usize,
    /// Peers in one swarm from one network: an IPv4 address or an IPv6 /64. Allows for a household or a lab behind one
    /// address.
    pub peers_per_network: usize,
}

impl Default for SwarmLimits {
    fn default() -> SwarmLimits {
        SwarmLimits { swarms: 100_000, peers: 1_000_000, peers_per_swarm: 50_000, peers_per_network: 64 }
    }
}

/// One peer's announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Where the peer listens, at the address it was seen at.
    pub peer: SocketAddr,
    /// Nothing is missing.
    pub seed: bool,
    /// Why it announces, if not because it is time.
    pub event: Option<Event>,
    /// How many peers it wants to be told; the caller bounds it.
    pub want: usize,
}

/// Whether a peer is in the book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Others are told of it.
    Listed,
    /// It has left, or has port 0, where nobody can dial it.
    Unlisted,
    /// The book or the swarm has no room for it.
    Full,
    /// Its network has as many peers in this swarm as one may have.
    Crowded,
}

/// How many are in a swarm. One that announces by both families counts twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SwarmCounts {
    /// Peers with everything.
    pub seeds: u32,
    /// Peers without.
    pub leeches: u32,
    /// How many were seen to complete: listed as a leech, then `completed` with nothing missing.
    pub completed: u32,
}

/// The answer to an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// What became of the peer itself.
    pub listing: Listing,
    /// The swarm with it.
    pub counts: SwarmCounts,
    /// Others, at most as many as wanted, drawn at random: of its own family, and of the other if that has too few. A
    /// seed is told no seeds.
    pub peers: Vec<SocketAddr>,
}

/// All swarms.
pub struct Swarms {
    limits: SwarmLimits,
    lifetime: Tenths,
    swarms: BTreeMap<InfoHash, Swarm>,
    /// In all swarms; bound: [`SwarmLimits::peers`].
    peers: usize,
    /// Swarms without peers, and since when: exactly those.
    empty: BTreeSet<(Tenths, InfoHash)>,
    sweep: Sweep,
}

/// One swarm.
#[derive(Default)]
struct Swarm {
    v4: Roll<[u8; 4]>,
    /// Apart, since most swarms have none: so they are a third smaller. Absent where it would be empty.
    v6: Option<Box<Roll<[u8; 16]>>>,
    completed: u32,
    /// When the dead were last struck off.
    swept: Tenths,
    /// Since when it has no peers; its place in [`Swarms::empty`].
    empty_since: Option<Tenths>,
}

/// An address family: which of a swarm's rolls is its own.
trait Family: Host {
    fn roll(swarm: &Swarm) -> Option<&Roll<Self>>;
    /// Makes it, if there is none.
    fn roll_mut(swarm: &mut Swarm) -> &mut Roll<Self>;
}

impl Family for [u8; 4] {
    fn roll(swarm: &Swarm) -> Option<&Roll<[u8; 4]>> {
        Some(&swarm.v4)
    }

    fn roll_mut(swarm: &mut Swarm) -> &mut Roll<[u8; 4]> {
        &mut swarm.v4
    }
}

impl Family for [u8; 16] {
    fn roll(swarm: &Swarm) -> Option<&Roll<[u8; 16]>> {
        swarm.v6.as_deref()
    }

    fn roll_mut(swarm: &mut Swarm) -> &mut Roll<[u8; 16]> {
        swarm.v6.get_or_insert_default()
    }
}

/// Where the sweeping of the whole book stands.
#[derive(Default)]
struct Sweep {
    /// When this round began.
    begun: Tenths,
    /// The last swarm looked at; `None` once a round is over.
    last: Option<InfoHash>,
}

impl Swarms {
    /// An empty book. A peer that is silent for `lifetime` is forgotten, at most a sixteenth of that later: twice the
    /// announce interval suits, in whole tenths of a second.
    pub fn new(limits: SwarmLimits, lifetime: Duration) -> Swarms {
        let lifetime = Tenths::try_from(lifetime.as_millis() / 100).unwrap_or(Tenths::MAX);
        Swarms {
            limits,
            lifetime,
            swarms: BTreeMap::new(),
            peers: 0,
            empty: BTreeSet::new(),
            sweep: Sweep::default(),
        }
    }

    /// Lists the peer, or strikes it off if it says `stopped`, and tells it of others. An IPv4 address mapped into
    /// IPv6 is IPv4.
    pub fn announce<R: Rng + ?Sized>(&mut self, now: Time, announce: &Announce, rng: &mut R) -> Told {
        let now = tenths(now);
        self.sweep(now);
        if let Some(told) = self.renew(now, announce, rng) {
            return told;
        }
        self.touch(now, announce.info_hash);
        let port = announce.peer.port();
        let listing = match announce.peer.ip().to_canonical() {
            IpAddr::V4(ip) => self.enter(now, announce, ip.octets(), port),
            IpAddr::V6(ip) => self.enter(now, announce, ip.octets(), port),
        };
        let Some(swarm) = self.swarms.get(&announce.info_hash) else {
            return Told { listing, counts: SwarmCounts::default(), peers: Vec::new() };
        };
        let leaves = announce.event == Some(Event::Stopped);
        let peers = if leaves { Vec::new() } else { swarm.choose(announce, rng) };
        Told { listing, counts: swarm.counts(), peers }
    }

    /// How many are in a swarm; `None` if it is unknown (BEP 48).
    pub fn counts(&mut self, now: Time, info_hash: InfoHash) -> Option<SwarmCounts> {
        let now = tenths(now);
        self.sweep(now);
        self.touch(now, info_hash);
        self.swarms.get(&info_hash).map(Swarm::counts)
    }

    /// Swarms with peers in them, the dead that lie unswept included.
    pub fn swarms(&self) -> usize {
        self.swarms.len() - self.empty.len()
    }

    /// Peers in all of them, likewise.
    pub fn peers(&self) -> usize {
        self.peers
    }

    /// The short way for what most announces are: a peer that is listed, in a swarm that needs no sweeping, announces
    /// again. One look into the book instead of four; `None` if it is something else.
    fn renew<R: Rng + ?Sized>(&mut self, now: Tenths, announce: &Announce, rng: &mut R) -> Option<Told> {
        let patience = self.patience();
        let swarm = self.swarms.get_mut(&announce.info_hash)?;
        if announce.event == Some(Event::Stopped) || now.saturating_sub(swarm.swept) >= patience {
            return None;
        }
        let port = announce.peer.port();
        let was = match announce.peer.ip().to_canonical() {
            IpAddr::V4(ip) => swarm.v4.renew(ip.octets(), port, announce.seed, now),
            IpAddr::V6(ip) => {
                let roll = swarm.v6.as_mut();
                roll.map_or(Was::Unlisted, |roll| roll.renew(ip.octets(), port, announce.seed, now))
            }
        };
        if was == Was::Unlisted {
            return None;
        }
        swarm.count_completion(was, announce);
        Some(Told { listing: Listing::Listed, counts: swarm.counts(), peers: swarm.choose(announce, rng) })
    }

    /// Brings one peer's line up to date.
    fn enter<H: Family>(&mut self, now: Tenths, announce: &Announce, host: H, port: u16) -> Listing {
        let hash = announce.info_hash;
        let roll = self.swarms.get(&hash).and_then(H::roll);
        let was = roll.map_or(Was::Unlisted, |roll| roll.was(host, port));
        if announce.event == Some(Event::Stopped) {
            if was != Was::Unlisted
                && let Some(swarm) = self.swarms.get_mut(&hash)
                && H::roll_mut(swarm).remove(host, port)
            {
                self.peers -= 1;
                self.settle(now, hash);
            }
            return Listing::Unlisted;
        }
        if was == Was::Unlisted
            && let Some(refusal) = self.refuse(hash, host, port)
        {
            return refusal;
        }
        let swarm = self.swarms.entry(hash).or_insert_with(|| Swarm { swept: now, ..Swarm::default() });
        if let Some(since) = swarm.empty_since.take() {
            self.empty.remove(&(since, hash));
        }
        H::roll_mut(swarm).put(host, port, announce.seed, now);
        self.peers += usize::from(was == Was::Unlisted);
        swarm.count_completion(was, announce);
        Listing::Listed
    }

    /// Why a newcomer can not be listed, if so. Makes room for its swarm if that is all it takes.
    fn refuse<H: Family>(&mut self, hash: InfoHash, host: H, port: u16) -> Option<Listing> {
        let limits = self.limits;
        let swarm = self.swarms.get(&hash);
        let peers = swarm.map_or(0, Swarm::peers);
        let neighbours = swarm.and_then(H::roll).map_or(0, |roll| roll.neighbours(host));
        if port == 0 {
            Some(Listing::Unlisted)
        } else if self.peers >= limits.peers || peers >= limits.peers_per_swarm {
            Some(Listing::Full)
        } else if neighbours >= limits.peers_per_network {
            Some(Listing::Crowded)
        } else if self.swarms.contains_key(&hash) || self.swarms.len() < limits.swarms || self.make_room() {
            None
        } else {
            Some(Listing::Full)
        }
    }

    /// Forgets the swarm that has been empty longest.
    fn make_room(&mut self) -> bool {
        let Some((_, hash)) = self.empty.pop_first() else { return false };
        self.swarms.remove(&hash);
        true
    }

    /// Strikes the dead off a few swarms; a round begins no sooner than it can find any.
    fn sweep(&mut self, now: Tenths) {
        let from = match self.sweep.last {
            Some(last) => Bound::Excluded(last),
            None if now.saturating_sub(self.sweep.begun) < self.patience() => return,
            None => {
                self.sweep.begun = now;
                Bound::Unbounded
            }
        };
        let next = self.swarms.range((from, Bound::Unbounded)).map(|(hash, _)| *hash);
        let some: Vec<InfoHash> = next.take(SWEPT_AT_ONCE).collect();
        self.sweep.last = some.last().copied().filter(|_| some.len() == SWEPT_AT_ONCE);
        some.into_iter().for_each(|hash| self.touch(now, hash));
    }

    /// Strikes the dead off one swarm, unless that was done lately.
    fn touch(&mut self, now: Tenths, hash: InfoHash) {
        let (patience, limit) = (self.patience(), now.saturating_sub(self.lifetime));
        let Some(swarm) = self.swarms.get_mut(&hash) else { return };
        if now.saturating_sub(swarm.swept) >= patience {
            swarm.swept = now;
            let gone = swarm.v4.expire(limit) + swarm.v6.as_mut().map_or(0, |roll| roll.expire(limit));
            self.peers -= gone;
            if gone > 0 {
                self.settle(now, hash);
            }
        }
    }

    /// A swarm has lost peers: perhaps its last.
    fn settle(&mut self, now: Tenths, hash: InfoHash) {
        let Some(swarm) = self.swarms.get_mut(&hash) else { return };
        swarm.v6.take_if(|roll| roll.seeds() + roll.leeches() == 0);
        if swarm.peers() == 0 && swarm.completed == 0 {
            self.swarms.remove(&hash);
        } else if swarm.peers() == 0 {
            // The roll keeps what it once took; an empty swarm is not looked at again.
            (swarm.v4, swarm.empty_since) = (Roll::default(), Some(now));
            self.empty.insert((now, hash));
        }
    }

    fn patience(&self) -> Tenths {
        self.lifetime / SWEEPS_A_LIFETIME
    }

    /// Bytes of heap, the trees by their entries.
    #[cfg(test)]
    fn heap_bytes(&self) -> usize {
        let six = |roll: &Roll<[u8; 16]>| size_of_val(roll) + roll.heap_bytes();
        let rolls = |swarm: &Swarm| swarm.v4.heap_bytes() + swarm.v6.as_deref().map_or(0, six);
        self.swarms.values().map(rolls).sum::<usize>()
            + self.swarms.len() * size_of::<(InfoHash, Swarm)>()
            + self.empty.len() * size_of::<(Tenths, InfoHash)>()
    }
}

impl Swarm {
    fn peers(&self) -> usize {
        self.seeds() + self.leeches()
    }

    fn seeds(&self) -> usize {
        self.v4.seeds() + self.v6.as_ref().map_or(0, |roll| roll.seeds())
    }

    fn leeches(&self) -> usize {
        self.v4.leeches() + self.v6.as_ref().map_or(0, |roll| roll.leeches())
    }

    fn count_completion(&mut self, was: Was, announce: &Announce) {
        if was == Was::Leech && announce.seed && announce.event == Some(Event::Completed) {
            self.completed = self.completed.saturating_add(1);
        }
    }

    fn counts(&self) -> SwarmCounts {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        SwarmCounts { seeds: count(self.seeds()), leeches: count(self.leeches()), completed: self.completed }
    }

    /// Others for the asker, those of its own family first.
    fn choose<R: Rng + ?Sized>(&self, announce: &Announce, rng: &mut R) -> Vec<SocketAddr> {
        let (want, seed, port) = (announce.want, announce.seed, announce.peer.port());
        let mut peers = Vec::new();
        match announce.peer.ip().to_canonical() {
            IpAddr::V4(ip) => {
                draw(Some(&self.v4), Some((ip.octets(), port)), seed, want, rng, &mut peers);
                draw(self.v6.as_deref(), None, seed, want - peers.len(), rng, &mut peers);
            }
            IpAddr::V6(ip) => {
                draw(self.v6.as_deref(), Some((ip.octets(), port)), seed, want, rng, &mut peers);
                draw(Some(&self.v4), None, seed, want - peers.len(), rng, &mut peers);
            }
        }
        peers
    }
}

/// Appends at most `want` peers of `roll`, but not the asker.
fn draw<H: Host, R: Rng + ?Sized>(
    roll: Option<&Roll<H>>,
    asker: Option<(H, u16)>,
    seed: bool,
    want: usize,
    rng: &mut R,
    peers: &mut Vec<SocketAddr>,
) {
    let Some(roll) = roll else { return };
    let own = asker.and_then(|(host, port)| roll.place(host, port, seed));
    let others = roll.choice(seed) - usize::from(own.is_some());
    let picks = dice::spread(others, want, rng);
    peers.reserve(picks.len());
    // Numbers from the asker's own place on stand for the peer behind.
    peers.extend(picks.filter_map(|at| roll.at(at + usize::from(own.is_some_and(|own| at >= own)))));
}

fn tenths(now: Time) -> Tenths {
    Tenths::try_from(now.nanos() / 100_000_000).unwrap_or(Tenths::MAX)
}

#[cfg(test)]
mod tests;
