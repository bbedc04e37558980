//! A tracker behind HTTP or UDP, as a value: it reads announce URLs or datagrams, and writes answers.
//!
//! Owns who announced what, and whether the tracker lives. It speaks through the codecs of `wire`, as a real one does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure};
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::tracker::udp::{self as wire, ConnectionId, UdpRequest};
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceFailure, AnnounceRequest, Event, PeerForm, ScrapeCounts, TrackerPeer,
    parse_announce_query,
};

use crate::dice::Dice;

/// Peers in one answer, where the client does not say; as trackers do.
const NUMWANT: usize = 50;
/// An entry that was not renewed for so many intervals is forgotten.
const INTERVALS: u32 = 3;

/// See the module.
pub struct SimTracker {
    /// It answers.
    pub alive: bool,
    /// When clients are to come again.
    pub interval: Duration,
    /// How it counts what was asked of it.
    pub counts: Counts,
    swarms: BTreeMap<InfoHash, BTreeMap<SocketAddr, Entry>>,
}

/// What was asked of a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Announces it took.
    pub announces: u64,
    /// Of those, with `started`.
    pub started: u64,
    /// Of those, with `completed`.
    pub completed: u64,
    /// Of those, with `stopped`.
    pub stopped: u64,
    /// What came while it was dead.
    pub in_vain: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    left: u64,
    seen: Time,
    /// Never renewed, never forgotten: a scripted peer.
    fixed: bool,
}

impl SimTracker {
    /// A tracker that wants to hear every `interval`.
    pub fn new(interval: Duration) -> SimTracker {
        SimTracker { alive: true, interval, counts: Counts::default(), swarms: BTreeMap::new() }
    }

    /// A peer that never announces, but is there.
    pub fn add(&mut self, torrent: InfoHash, addr: SocketAddr) {
        let entry = Entry { left: 0, seen: Time::ZERO, fixed: true };
        self.swarms.entry(torrent).or_default().insert(addr, entry);
    }

    /// Who is known to share a torrent.
    pub fn knows(&self, torrent: InfoHash) -> usize {
        self.swarms.get(&torrent).map_or(0, BTreeMap::len)
    }

    /// A request came from `from`. `None`: it never answers.
    pub fn on_fetch(
        &mut self,
        now: Time,
        dice: &mut Dice,
        from: IpAddr,
        fetch: &Fetch,
    ) -> Option<Result<Vec<u8>, FetchFailure>> {
        if fetch.family == Family::V6 {
            return Some(Err(FetchFailure::NoAddress));
        }
        if !self.alive {
            self.counts.in_vain += 1;
            return match dice.below(3) {
                0 => None,
                1 => Some(Err(FetchFailure::Unreachable("connection refused".into()))),
                _ => Some(Err(FetchFailure::Status(503, b"gone fishing".to_vec()))),
            };
        }
        let query = fetch.url.split_once('?').map_or("", |(_, query)| query);
        Some(Ok(match parse_announce_query(query) {
            Err(why) => AnnounceFailure { reason: why.to_string(), retry_in: None }.encode(),
            Ok(request) => {
                let answer = self.announce(now, dice, from, &request);
                let form =
                    if dice.percent(80) { PeerForm::Compact } else { PeerForm::Dicts { peer_ids: false } };
                answer.encode(form)
            }
        }))
    }

    /// A datagram came from `from` (BEP 15). `None`: no answer.
    pub fn on_datagram(
        &mut self,
        now: Time,
        dice: &mut Dice,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let request = UdpRequest::decode(bytes).ok()?;
        if !self.alive {
            self.counts.in_vain += 1;
            return None;
        }
        let mut out = Vec::new();
        match request {
            UdpRequest::Connect { transaction } => {
                wire::connected(transaction, greeting(now, from), &mut out)
            }
            UdpRequest::Announce { connection, transaction, .. }
            | UdpRequest::Scrape { connection, transaction, .. }
                if !is_greeting(now, from, connection) =>
            {
                wire::failed(transaction, "connection id mismatch", &mut out);
            }
            UdpRequest::Announce { transaction, announce, .. } => {
                let answer = self.announce(now, dice, from.ip(), &announce);
                let peers = answer.peers.iter().map(|peer| peer.addr);
                let [interval, leeches, seeds] = [answer.interval, answer.incomplete, answer.complete];
                let counts = (interval.unwrap_or(0), leeches.unwrap_or(0), seeds.unwrap_or(0));
                wire::announced(transaction, counts, peers, false, &mut out);
            }
            UdpRequest::Scrape { transaction, hashes, .. } => {
                let counts = hashes.iter().map(|hash| {
                    let (complete, incomplete) = self.count(hash);
                    ScrapeCounts { complete, downloaded: 0, incomplete }
                });
                wire::scraped(transaction, counts, &mut out);
            }
        }
        Some(out)
    }

    fn announce(
        &mut self,
        now: Time,
        dice: &mut Dice,
        from: IpAddr,
        request: &AnnounceRequest,
    ) -> AnnounceAnswer {
        let addr = SocketAddr::new(from, request.port);
        self.counts.announces += 1;
        match request.event {
            Some(Event::Started) => self.counts.started += 1,
            Some(Event::Completed) => self.counts.completed += 1,
            Some(Event::Stopped) => self.counts.stopped += 1,
            _ => {}
        }
        let swarm = self.swarms.entry(request.info_hash).or_default();
        if request.event == Some(Event::Stopped) {
            swarm.remove(&addr);
        } else if request.port != 0 {
            swarm.insert(addr, Entry { left: request.left, seen: now, fixed: false });
        }
        let patience = self.interval * INTERVALS;
        swarm.retain(|_, entry| entry.fixed || now.since(entry.seen) < patience);
        let want = request.numwant.map_or(NUMWANT, |want| want as usize).min(NUMWANT);
        let leaves = request.event == Some(Event::Stopped);
        let mut peers: Vec<SocketAddr> = swarm.keys().filter(|other| **other != addr).copied().collect();
        dice.shuffle(&mut peers);
        peers.truncate(if leaves { 0 } else { want });
        let (complete, incomplete) = self.count(request.info_hash);
        AnnounceAnswer {
            interval: Some(self.interval.as_secs() as u32),
            complete: Some(complete),
            incomplete: Some(incomplete),
            peers: peers.into_iter().map(|addr| TrackerPeer { addr, peer_id: None }).collect(),
            ..AnnounceAnswer::default()
        }
    }

    /// Seeds and leeches.
    fn count(&self, torrent: InfoHash) -> (u32, u32) {
        let Some(swarm) = self.swarms.get(&torrent) else { return (0, 0) };
        let seeds = swarm.values().filter(|entry| entry.left == 0).count();
        (seeds as u32, (swarm.len() - seeds) as u32)
    }
}

/// The connection id of an address in this minute. Nobody forges here, so it need not be secret.
fn greeting(now: Time, to: SocketAddr) -> ConnectionId {
    let minute = now.nanos() / 60_000_000_000;
    let ip = match to.ip() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.to_bits() as u64,
    };
    ConnectionId((minute << 48) ^ (ip << 16) ^ u64::from(to.port()) ^ 0x5a5a)
}

/// Whether it was given in this minute or the one before (BEP 15: two minutes).
fn is_greeting(now: Time, from: SocketAddr, shown: ConnectionId) -> bool {
    let before = Time::from_nanos(now.nanos().saturating_sub(60_000_000_000));
    [now, before].iter().any(|at| greeting(*at, from) == shown)
}

#[cfg(test)]
mod tests {
    use piecemeal_discovery::tracker::FetchId;
    use piecemeal_metainfo::PeerId;
    use piecemeal_wire::tracker::{AnnounceReply, AnnounceRequest, announce_url};

    use super::*;

    struct Bench {
        tracker: SimTracker,
        dice: Dice,
        now: Time,
    }

    impl Bench {
        fn ask(&mut self, ip: u8, left: u64, event: Option<Event>) -> Option<Vec<SocketAddr>> {
            let request = AnnounceRequest {
                left,
                event,
                ..AnnounceRequest::new(InfoHash([1; 20]), PeerId([ip; 20]), 6881)
            };
            let url = announce_url("http://t/announce", &request);
            let fetch = Fetch { id: FetchId(0), url, family: Family::V4, timeout: Duration::from_secs(9) };
            let from = IpAddr::from([10, 0, 0, ip]);
            let body = self.tracker.on_fetch(self.now, &mut self.dice, from, &fetch)?.ok()?;
            match AnnounceReply::decode(&body).unwrap() {
                AnnounceReply::Answer(answer) => Some(answer.peers.iter().map(|peer| peer.addr).collect()),
                AnnounceReply::Failure(failure) => panic!("{failure:?}"),
            }
        }
    }

    #[test]
    fn who_came_is_told_to_others_until_it_leaves_or_stays_away() {
        let tracker = SimTracker::new(Duration::from_secs(60));
        let mut bench = Bench { tracker, dice: Dice::new(1), now: Time::ZERO };
        assert_eq!(bench.ask(1, 0, Some(Event::Started)), Some(vec![]));
        let first = vec![SocketAddr::from(([10, 0, 0, 1], 6881))];
        assert_eq!(bench.ask(2, 9, Some(Event::Started)), Some(first.clone()));
        assert_eq!(bench.ask(2, 0, Some(Event::Completed)), Some(first));
        assert_eq!(bench.ask(1, 0, Some(Event::Stopped)), Some(vec![]));
        assert_eq!(bench.tracker.knows(InfoHash([1; 20])), 1);
        bench.now = Time::ZERO + Duration::from_secs(500);
        assert_eq!(bench.ask(3, 9, Some(Event::Started)), Some(vec![]));
        let counts = Counts { announces: 5, started: 3, completed: 1, stopped: 1, in_vain: 0 };
        assert_eq!(bench.tracker.counts, counts);
    }

    #[test]
    fn a_dead_tracker_takes_nothing() {
        let tracker = SimTracker::new(Duration::from_secs(60));
        let mut bench = Bench { tracker, dice: Dice::new(1), now: Time::ZERO };
        bench.tracker.alive = false;
        assert!((0..20).all(|_| bench.ask(1, 0, None).is_none()));
        bench.tracker.alive = true;
        assert_eq!(bench.ask(1, 0, None), Some(vec![]));
        assert_eq!(bench.tracker.counts.in_vain, 20);
    }

    #[test]
    fn by_datagrams_only_who_was_greeted_is_served() {
        use piecemeal_wire::tracker::udp::{Transaction, UdpAnswer};
        let mut tracker = SimTracker::new(Duration::from_secs(60));
        let (mut dice, from) = (Dice::new(1), SocketAddr::from(([10, 0, 0, 1], 6881)));
        let mut say = |now: u64, bytes: &[u8]| {
            let now = Time::ZERO + Duration::from_secs(now);
            tracker.on_datagram(now, &mut dice, from, bytes)
        };
        let number = Transaction(7);
        let greeted = say(59, &wire::connect_request(number)).unwrap();
        let Ok(UdpAnswer::Connected { transaction, connection }) = UdpAnswer::decode(&greeted) else {
            panic!()
        };
        assert_eq!(transaction, number);
        let request = AnnounceRequest::new(InfoHash([1; 20]), PeerId([1; 20]), 6881);
        let announce = wire::announce_request(connection, number, &request, b"");
        let answer = say(61, &announce).unwrap();
        let Ok(UdpAnswer::Announced { answer, .. }) = UdpAnswer::decode(&answer) else { panic!() };
        assert_eq!((answer.interval, answer.seeders, answer.leechers), (60, 1, 0));
        let scrape = wire::scrape_request(connection, number, &[InfoHash([1; 20])]);
        assert!(matches!(UdpAnswer::decode(&say(62, &scrape).unwrap()), Ok(UdpAnswer::Scraped { .. })));
        for bytes in [announce, scrape] {
            assert!(matches!(UdpAnswer::decode(&say(180, &bytes).unwrap()), Ok(UdpAnswer::Failed { .. })));
        }
        assert_eq!(say(180, b"d1:ad"), None);
    }
}
