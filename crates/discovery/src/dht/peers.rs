//! The peers that others announced to us (BEP 5).
//!
//! Owns them, their expiry and the memory they may take. Whoever announces has shown a token, so it holds its address;
//! but addresses can be had in numbers. So: at most [`MAX_TORRENTS`], of which the one farthest from our id makes room
//! (the others are asked for it, not we); at most [`MAX_PEERS`] each, of which the oldest makes room, and at most
//! [`PEERS_OF_A_NET`] of one network; and all of it in [`MAX_BYTES`]. An entry is 8 bytes, or 20 for IPv6, in one
//! vector a torrent, scanned from end to end: 500 entries are 4 KB.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::compact;
use piecemeal_wire::krpc::NodeId;
use rand_core::Rng;

use super::bloom::Bloom;
use crate::dice;

/// Torrents at once; as many as libtorrent keeps.
pub(super) const MAX_TORRENTS: usize = 2_000;
/// Peers of a torrent; as many as libtorrent keeps.
pub(super) const MAX_PEERS: usize = 500;
/// Peers of a torrent from one IPv4 address or IPv6 /64: a household, not a crowd.
const PEERS_OF_A_NET: usize = 4;
/// Bytes of all peers' entries. Full of IPv4 it takes 8 MB; of IPv6 this is the tighter bound.
const MAX_BYTES: usize = 10 << 20;
/// How long an announce counts. They are repeated every 15 to 30 minutes.
const LIFE: Duration = Duration::from_secs(45 * 60);

/// Entry time: steps of [`STEP_SECS`], modulo [`STAMPS`], which is three days and thus never ambiguous.
type Stamp = u16;
const STEP_SECS: u64 = 8;
const STAMPS: u64 = 1 << 15;
/// The bit of a stamp that says that the peer has everything.
const SEED: u16 = 1 << 15;

#[derive(Debug)]
pub(super) struct PeerStore {
    own: NodeId,
    /// By distance from our own id, so that the last is the first to go.
    torrents: BTreeMap<NodeId, Torrent>,
    /// Bytes of all entries' vectors.
    bytes: usize,
}

/// Entries of [`Torrent::stride`] bytes: address and port as on the wire, then the stamp.
#[derive(Debug)]
struct Torrent {
    entries: Vec<u8>,
    stride: usize,
}

/// What is known of a torrent, for one answer.
pub(super) struct Sample {
    pub(super) peers: Vec<SocketAddr>,
    pub(super) seeds: Bloom,
    pub(super) leeches: Bloom,
}

impl PeerStore {
    pub(super) fn new(own: NodeId) -> PeerStore {
        PeerStore { own, torrents: BTreeMap::new(), bytes: 0 }
    }

    /// Our id has changed, and with it what is far.
    pub(super) fn move_to(&mut self, own: NodeId) {
        let was = std::mem::replace(&mut self.own, own);
        let torrents = std::mem::take(&mut self.torrents);
        let moved = torrents.into_iter().map(|(key, torrent)| (was.distance(key).distance(own), torrent));
        self.torrents = moved.collect();
    }

    /// Lists the peer, or notes that it is still there; false if there is no room for its torrent.
    pub(super) fn announce(&mut self, now: Time, info_hash: InfoHash, peer: SocketAddr, seed: bool) -> bool {
        let key = self.own.distance(info_hash.into());
        if !self.torrents.contains_key(&key) && self.torrents.len() >= MAX_TORRENTS {
            match self.torrents.last_key_value() {
                Some((farthest, _)) if *farthest > key => self.drop_farthest(),
                _ => return false,
            }
        }
        let stride = stride(peer.ip());
        let torrent = self.torrents.entry(key).or_insert_with(|| Torrent { entries: Vec::new(), stride });
        let before = torrent.entries.capacity();
        torrent.put(now, peer, seed);
        self.bytes = self.bytes + torrent.entries.capacity() - before;
        while self.bytes > MAX_BYTES {
            self.drop_farthest();
        }
        true
    }

    /// At most `want` peers of the torrent, drawn at random, and filters over all of them. `None` if there are none.
    pub(super) fn sample(
        &self,
        now: Time,
        info_hash: InfoHash,
        want: usize,
        no_seed: bool,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Sample> {
        let torrent = self.torrents.get(&self.own.distance(info_hash.into()))?;
        let mut sample = Sample { peers: Vec::new(), seeds: Bloom::default(), leeches: Bloom::default() };
        let mut fit = Vec::new();
        for (addr, stamp) in torrent.live(now) {
            let seed = stamp & SEED != 0;
            if seed { &mut sample.seeds } else { &mut sample.leeches }.insert(addr.ip());
            if !(seed && no_seed) {
                fit.push(addr);
            }
        }
        sample.peers = dice::sample(fit.len(), want, rng).into_iter().map(|at| fit[at]).collect();
        (!sample.seeds.is_empty() || !sample.leeches.is_empty()).then_some(sample)
    }

    /// At most `want` info-hashes, drawn at random, and how many there are (BEP 51).
    pub(super) fn info_hashes(&self, want: usize, rng: &mut (impl Rng + ?Sized)) -> (Vec<InfoHash>, usize) {
        let all: Vec<NodeId> = self.torrents.keys().copied().collect();
        let picks = dice::sample(all.len(), want, rng).into_iter();
        (picks.map(|at| InfoHash(self.own.distance(all[at]).0)).collect(), all.len())
    }

    /// Strikes off who was not heard of for a lifetime, and gives back memory.
    pub(super) fn expire(&mut self, now: Time) {
        self.torrents.retain(|_, torrent| {
            torrent.expire(now);
            !torrent.entries.is_empty()
        });
        self.bytes = self.torrents.values().map(|torrent| torrent.entries.capacity()).sum();
    }

    /// Torrents and their peers, the dead included.
    pub(super) fn counts(&self) -> (usize, usize) {
        let peers = self.torrents.values().map(|torrent| torrent.entries.len() / torrent.stride).sum();
        (self.torrents.len(), peers)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.torrents.is_empty()
    }

    /// Bytes of heap, about: what entries take and what a map takes for each torrent.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.torrents.len() * (size_of::<NodeId>() + size_of::<Torrent>()) * 3 / 2
    }

    fn drop_farthest(&mut self) {
        if let Some((_, torrent)) = self.torrents.pop_last() {
            self.bytes -= torrent.entries.capacity();
        }
    }
}

impl Torrent {
    fn put(&mut self, now: Time, peer: SocketAddr, seed: bool) {
        let mut entry = Vec::with_capacity(self.stride);
        compact::encode(peer, &mut entry);
        if entry.len() + 2 != self.stride {
            return;
        }
        entry.extend_from_slice(&(stamp(now) | if seed { SEED } else { 0 }).to_be_bytes());
        match self.place_for(now, &entry) {
            Some(at) => self.entries[at..at + self.stride].copy_from_slice(&entry),
            None => {
                // A quarter at a time: doubling would leave half of all memory empty at worst.
                if self.entries.capacity() < self.entries.len() + self.stride {
                    let more = (self.entries.len() / self.stride / 4).max(1);
                    self.entries.reserve_exact(more * self.stride);
                }
                self.entries.extend_from_slice(&entry);
            }
        }
    }

    /// The entry that a new one replaces: its own, or the oldest of its network or of all if those are too many.
    fn place_for(&self, now: Time, entry: &[u8]) -> Option<usize> {
        let net_bytes = if self.stride == stride_of(compact::V4_BYTES) { 4 } else { 8 };
        let addr_bytes = self.stride - 2;
        let (mut of_net, mut oldest_of_net, mut oldest) = (0, None, None);
        for (index, old) in self.entries.chunks_exact(self.stride).enumerate() {
            let at = index * self.stride;
            if old[..addr_bytes] == entry[..addr_bytes] {
                return Some(at);
            }
            let age = age(now, stamp_in(old));
            if old[..net_bytes] == entry[..net_bytes] {
                of_net += 1;
                oldest_of_net = oldest_of_net.max(Some((age, at)));
            }
            oldest = oldest.max(Some((age, at)));
        }
        let full = self.entries.len() / self.stride >= MAX_PEERS;
        let place = if of_net >= PEERS_OF_A_NET { oldest_of_net } else { oldest.filter(|_| full) };
        place.map(|(_, at)| at)
    }

    fn live(&self, now: Time) -> impl Iterator<Item = (SocketAddr, Stamp)> + '_ {
        let addr_bytes = self.stride - 2;
        let entries = self.entries.chunks_exact(self.stride).map(|entry| (entry, stamp_in(entry)));
        let live = entries.filter(move |(_, stamp)| age(now, *stamp) < LIFE);
        live.filter_map(move |(entry, stamp)| {
            let addr = &entry[..addr_bytes];
            let addr = match addr_bytes {
                compact::V4_BYTES => compact::decode_v4(addr).next(),
                _ => compact::decode_v6(addr).next(),
            };
            Some((addr?, stamp))
        })
    }

    fn expire(&mut self, now: Time) {
        let dead = |entry: &[u8]| age(now, stamp_in(entry)) >= LIFE;
        if !self.entries.chunks_exact(self.stride).any(dead) {
            return;
        }
        let live = self.entries.chunks_exact(self.stride).filter(|entry| !dead(entry));
        let mut kept = Vec::new();
        live.for_each(|entry| kept.extend_from_slice(entry));
        kept.shrink_to_fit();
        self.entries = kept;
    }
}

fn stride(ip: IpAddr) -> usize {
    stride_of(if ip.is_ipv4() { compact::V4_BYTES } else { compact::V6_BYTES })
}

const fn stride_of(addr_bytes: usize) -> usize {
    addr_bytes + size_of::<Stamp>()
}

fn stamp(now: Time) -> Stamp {
    (now.nanos() / 1_000_000_000 / STEP_SECS % STAMPS) as Stamp
}

fn stamp_in(entry: &[u8]) -> Stamp {
    entry.last_chunk::<2>().map_or(0, |stamp| Stamp::from_be_bytes(*stamp))
}

fn age(now: Time, then: Stamp) -> Duration {
    let steps = (u64::from(stamp(now)) + STAMPS - u64::from(then & !SEED)) % STAMPS;
    Duration::from_secs(steps * STEP_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    const MINUTE: Duration = Duration::from_secs(60);

    fn hash(number: u32) -> InfoHash {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHash(hash)
    }

    fn peer(number: u32) -> SocketAddr {
        SocketAddr::from(((20 << 24 | number).to_be_bytes(), 6881))
    }

    fn known(store: &PeerStore, now: Time, info_hash: InfoHash) -> usize {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        store.sample(now, info_hash, 10_000, false, &mut rng).map_or(0, |sample| sample.peers.len())
    }

    #[test]
    fn announces_live_for_45_minutes() {
        // Far from birth, so that stamps have wrapped.
        let start = Time::ZERO + Duration::from_secs(STAMPS * STEP_SECS - 100);
        let mut store = PeerStore::new(NodeId([0; 20]));
        assert!(store.announce(start, hash(1), peer(1), false));
        assert!(store.announce(start + 30 * MINUTE, hash(1), peer(2), true));
        assert_eq!(known(&store, start + 44 * MINUTE, hash(1)), 2);
        assert_eq!(known(&store, start + 46 * MINUTE, hash(1)), 1);
        store.expire(start + 46 * MINUTE);
        assert_eq!(store.counts(), (1, 1));
        store.expire(start + 76 * MINUTE);
        assert_eq!((store.counts(), store.heap_bytes()), ((0, 0), 0));
    }

    #[test]
    fn seeds_are_told_apart() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut store = PeerStore::new(NodeId([0; 20]));
        for number in 0..100 {
            store.announce(Time::ZERO, hash(1), peer(number), number % 4 == 0);
        }
        let sample = store.sample(Time::ZERO, hash(1), 1_000, true, &mut rng).unwrap();
        assert_eq!(sample.peers.len(), 75);
        assert!(
            (sample.seeds.estimate() - 25.0).abs() < 3.0 && (sample.leeches.estimate() - 75.0).abs() < 6.0
        );
        assert_eq!(store.sample(Time::ZERO, hash(1), 10, false, &mut rng).unwrap().peers.len(), 10);
        assert!(store.sample(Time::ZERO, hash(2), 10, false, &mut rng).is_none());
        // Who leaves the seeds is counted once.
        store.announce(Time::ZERO, hash(1), peer(0), false);
        assert_eq!(known(&store, Time::ZERO, hash(1)), 100);
    }

    #[test]
    fn one_network_has_few_places_and_the_oldest_makes_room() {
        let mut store = PeerStore::new(NodeId([0; 20]));
        let port = |port: u16| SocketAddr::from(([20, 0, 0, 1], port));
        for number in 1..=10 {
            store.announce(Time::ZERO + MINUTE * u32::from(number), hash(1), port(number), false);
        }
        assert_eq!(known(&store, Time::ZERO, hash(1)), 0, "all lie ahead");
        assert_eq!(known(&store, Time::ZERO + 10 * MINUTE, hash(1)), PEERS_OF_A_NET);
        let v6 = |host: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host], 1));
        for host in 0..10 {
            store.announce(Time::ZERO, hash(2), v6(host), false);
        }
        assert_eq!(known(&store, Time::ZERO, hash(2)), PEERS_OF_A_NET);
        for number in 0..2_000 {
            store.announce(Time::ZERO + MINUTE, hash(3), peer(number), false);
        }
        assert_eq!(known(&store, Time::ZERO + MINUTE, hash(3)), MAX_PEERS);
    }

    #[test]
    fn the_farthest_torrent_makes_room() {
        let mut store = PeerStore::new(NodeId([0; 20]));
        for number in 0..MAX_TORRENTS as u32 {
            assert!(store.announce(Time::ZERO, hash(number + 10), peer(number), false));
        }
        assert!(!store.announce(Time::ZERO, hash(9_999), peer(1), false), "farther than all");
        assert!(store.announce(Time::ZERO, hash(1), peer(1), false));
        assert_eq!(store.counts().0, MAX_TORRENTS);
        assert_eq!(known(&store, Time::ZERO, hash(MAX_TORRENTS as u32 + 9)), 0);
        store.move_to(NodeId([0xff; 20]));
        assert_eq!(known(&store, Time::ZERO, hash(1)), 1);
        assert!(store.announce(Time::ZERO, hash(9_999), peer(1), false), "what was far is near now");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (sample, all) = store.info_hashes(20, &mut rng);
        assert_eq!((sample.len(), all), (20, MAX_TORRENTS));
        assert!(sample.iter().all(|hash| known(&store, Time::ZERO, *hash) == 1));
    }

    #[test]
    fn a_flood_of_a_million_announces_stays_within_16_mib() {
        for v6 in [false, true] {
            let mut store = PeerStore::new(NodeId([0; 20]));
            for number in 0..1_000_000_u32 {
                let torrent = hash(number % 3_000);
                let addr = if v6 {
                    let [a, b, c, d] = number.to_be_bytes().map(u16::from);
                    SocketAddr::from(([0x2001, a, b, c, d, 0, 0, 1], 1))
                } else {
                    peer(number)
                };
                store.announce(Time::ZERO, torrent, addr, false);
            }
            let bytes = store.heap_bytes();
            assert!(bytes <= 16 << 20, "{bytes}");
            assert!(bytes >= 1 << 20, "{bytes}: it is a store");
        }
    }
}
