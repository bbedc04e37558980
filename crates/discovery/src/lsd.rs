//! Peers on the local network (BEP 14): when to tell it of which torrents, and whom to believe.
//!
//! Owns which torrents are told of and when, and the cookie that tells our own datagrams from others'. Private torrents
//! are never given to it. Where the datagrams go, and by which interface, is the shell's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::lsd::{LSD_V4, LSD_V6, LsdAnnounce};
use rand_core::Rng;

/// How often a torrent is told of; BEP 14: "no more than once every 5 minutes".
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Datagrams are no closer than this, however many torrents there are: BEP 14 allows one a minute for each torrent.
const PAUSE: Duration = Duration::from_secs(1);
/// Info-hashes of one datagram; about ten of them fill 600 bytes.
const MOST_HASHES: usize = 10;
/// Datagrams of others that are heard in a [`PAUSE`]; more are a flood.
const MOST_HEARD: u32 = 100;

/// See the module.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    cookie: String,
    torrents: BTreeMap<InfoHash, Time>,
    /// No datagram before this.
    quiet_until: Time,
    heard_since: Time,
    heard: u32,
}

/// Somebody near has torrents that we have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Which of ours it has.
    pub info_hashes: Vec<InfoHash>,
}

impl Lsd {
    /// For a program whose peers listen at `port`.
    pub fn new<R: Rng + ?Sized>(port: u16, rng: &mut R) -> Lsd {
        let cookie = format!("{:016x}", rng.next_u64());
        let (zero, torrents) = (Time::ZERO, BTreeMap::new());
        Lsd { port, cookie, torrents, quiet_until: zero, heard_since: zero, heard: 0 }
    }

    /// Tells the network of a torrent, soon and then again and again.
    pub fn add(&mut self, now: Time, info_hash: InfoHash) {
        self.torrents.entry(info_hash).or_insert(now);
    }

    /// Tells of it no more.
    pub fn remove(&mut self, info_hash: InfoHash) {
        self.torrents.remove(&info_hash);
    }

    /// Appends what is due to be sent, and to which group.
    pub fn heartbeat(&mut self, now: Time, out: &mut Vec<(SocketAddr, Vec<u8>)>) {
        if now < self.next_due() || self.port == 0 {
            return;
        }
        let due = self.torrents.iter().filter(|(_, due)| **due <= now);
        let info_hashes: Vec<_> = due.map(|(hash, _)| *hash).take(MOST_HASHES).collect();
        self.torrents.extend(info_hashes.iter().map(|hash| (*hash, now + EVERY)));
        self.quiet_until = now + PAUSE;
        let announce = LsdAnnounce { port: self.port, info_hashes, cookie: Some(&self.cookie) };
        out.extend([LSD_V4, LSD_V6].map(|group| (group, announce.encode(group).0)));
    }

    /// When [`Lsd::heartbeat`] has something to do.
    pub fn next_due(&self) -> Time {
        let first = self.torrents.values().copied().fold(Time::NEVER, Time::min);
        if self.port == 0 || first == Time::NEVER { Time::NEVER } else { first.max(self.quiet_until) }
    }

    /// A datagram came to the group. `None`: it is ours, of nothing we have, or nonsense.
    pub fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) -> Option<Neighbour> {
        if now.since(self.heard_since) >= PAUSE {
            (self.heard_since, self.heard) = (now, 0);
        }
        self.heard += 1;
        if self.heard > MOST_HEARD {
            return None;
        }
        let announce = LsdAnnounce::decode(bytes).ok()?;
        if announce.cookie == Some(&self.cookie) {
            return None;
        }
        let info_hashes: Vec<_> =
            announce.info_hashes.into_iter().filter(|hash| self.torrents.contains_key(hash)).collect();
        let addr = SocketAddr::new(from.ip(), announce.port);
        (!info_hashes.is_empty()).then_some(Neighbour { addr, info_hashes })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn lsd(seed: u64) -> Lsd {
        Lsd::new(6881, &mut ChaCha20Rng::seed_from_u64(seed))
    }

    fn beat(lsd: &mut Lsd, now: Time) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        lsd.heartbeat(now, &mut out);
        out
    }

    #[test]
    fn a_torrent_is_told_of_at_once_and_every_five_minutes() {
        let (mut lsd, hash) = (lsd(1), InfoHash([7; 20]));
        assert_eq!(lsd.next_due(), Time::NEVER);
        lsd.add(Time::ZERO, hash);
        let sent = beat(&mut lsd, Time::ZERO);
        assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [LSD_V4, LSD_V6]);
        assert_eq!(lsd.next_due(), Time::ZERO + EVERY);
        lsd.add(Time::ZERO + PAUSE, hash);
        assert!(beat(&mut lsd, Time::ZERO + EVERY - PAUSE).is_empty());
        assert_eq!(beat(&mut lsd, Time::ZERO + EVERY).len(), 2);
        lsd.remove(hash);
        assert_eq!(lsd.next_due(), Time::NEVER);
    }

    #[test]
    fn many_torrents_are_told_of_a_few_at_a_time() {
        let mut lsd = lsd(1);
        (0..25).for_each(|at| lsd.add(Time::ZERO, InfoHash([at; 20])));
        let mut told = 0;
        let mut now = Time::ZERO;
        while lsd.next_due() < Time::ZERO + EVERY {
            assert!(lsd.next_due() >= now);
            now = lsd.next_due();
            for (_, bytes) in beat(&mut lsd, now).into_iter().step_by(2) {
                told += LsdAnnounce::decode(&bytes).unwrap().info_hashes.len();
            }
        }
        assert_eq!((told, now), (25, Time::ZERO + 2 * PAUSE));
    }

    #[test]
    fn others_are_heard_and_we_are_not() {
        let (mut ours, mut other, hash) = (lsd(1), lsd(2), InfoHash([7; 20]));
        ours.add(Time::ZERO, hash);
        other.add(Time::ZERO, hash);
        other.add(Time::ZERO, InfoHash([8; 20]));
        let from = "10.0.0.2:6771".parse().unwrap();
        let own = beat(&mut ours, Time::ZERO);
        assert_eq!(ours.on_datagram(Time::ZERO, from, &own[0].1), None);
        let sent = beat(&mut other, Time::ZERO);
        let neighbour = Neighbour { addr: "10.0.0.2:6881".parse().unwrap(), info_hashes: vec![hash] };
        assert_eq!(ours.on_datagram(Time::ZERO, from, &sent[0].1), Some(neighbour));
        assert_eq!(ours.on_datagram(Time::ZERO, from, b"BT-SEARCH * HTTP/1.1\r\n"), None);
    }

    #[test]
    fn a_flood_is_not_listened_to() {
        let (mut ours, mut other, hash) = (lsd(1), lsd(2), InfoHash([7; 20]));
        ours.add(Time::ZERO, hash);
        other.add(Time::ZERO, hash);
        let sent = beat(&mut other, Time::ZERO);
        let from = "10.0.0.2:6771".parse().unwrap();
        let heard = (0..1000).filter(|_| ours.on_datagram(Time::ZERO, from, &sent[0].1).is_some()).count();
        assert_eq!(heard, MOST_HEARD as usize);
        assert!(ours.on_datagram(Time::ZERO + PAUSE, from, &sent[0].1).is_some());
    }
}
