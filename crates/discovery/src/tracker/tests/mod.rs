//! A scripted clock and scripted trackers.

mod events;
mod hostile;
mod pace;
mod scrapes;
mod tiers;

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

// None of them has a URL to scrape at, so that counts are of no matter where a test is not about them.
const A: &str = "http://a.example/tracker";
const B: &str = "http://b.example/tracker";
const C: &str = "https://c.example/tracker?passkey=1";
const SECOND: Duration = Duration::from_secs(1);
/// Half an hour, as [`GOOD`] says.
const INTERVAL: Duration = Duration::from_secs(1_800);
const GOOD: &[u8] = b"d8:completei3e10:incompletei4e8:intervali1800e5:peers6:\x01\x02\x03\x04\x1a\xe1e";

/// A torrent's trackers, with everything they need.
struct World {
    trackers: Trackers,
    rng: ChaCha8Rng,
    now: Time,
    facts: AnnounceFacts,
    /// What is out.
    out: Vec<Fetch>,
}

impl World {
    fn new(tiers: &[&[&str]], ipv4: bool, ipv6: bool) -> World {
        let tiers: Vec<Vec<String>> =
            tiers.iter().map(|tier| tier.iter().map(|url| (*url).to_owned()).collect()).collect();
        let identity = Identity {
            info_hash: InfoHash([b'h'; 20]),
            peer_id: PeerId([b'p'; 20]),
            port: 6881,
            key: 0xdead_beef,
            ipv4,
            ipv6,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let trackers = Trackers::new(&tiers, identity, &mut rng);
        let facts = AnnounceFacts { uploaded: 0, downloaded: 0, left: 1_000, want: 50 };
        World { trackers, rng, now: Time::ZERO, facts, out: Vec::new() }
    }

    /// Over IPv4 alone, started.
    fn v4(tiers: &[&[&str]]) -> World {
        let mut world = World::new(tiers, true, false);
        world.trackers.start(world.now);
        world
    }

    fn start(&mut self) {
        self.trackers.start(self.now);
    }

    fn stop(&mut self) {
        self.trackers.stop(self.now, &self.facts, &mut self.out);
    }

    fn complete(&mut self) {
        self.facts.left = 0;
        self.trackers.complete(self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Beats now.
    fn beat(&mut self) {
        let before = self.out.len();
        let due = self.trackers.next_due();
        self.trackers.heartbeat(self.now, &mut self.rng, &self.facts, &mut self.out);
        assert_eq!(self.out.len() > before, due <= self.now, "something happens just when it is due");
        assert!(self.trackers.next_due() > self.now, "a heartbeat leaves nothing due");
    }

    /// Waits for the next beat; how long it was to it.
    fn wait(&mut self) -> Duration {
        let due = self.trackers.next_due();
        assert_ne!(due, Time::NEVER, "nothing will happen");
        let waited = due.since(self.now);
        self.now = self.now.max(due);
        self.beat();
        waited
    }

    /// Answers what went out first.
    fn answer(&mut self, result: Result<&[u8], FetchFailure>) -> Option<Heard> {
        let fetch = self.out.remove(0);
        self.trackers.on_fetched(self.now, &mut self.rng, fetch.id, result)
    }

    fn good(&mut self) -> Option<Heard> {
        self.answer(Ok(GOOD))
    }

    fn bad(&mut self) -> Option<Heard> {
        self.answer(Err(FetchFailure::TimedOut))
    }

    /// Everything that is out: host, family, event.
    fn said(&self) -> Vec<(char, Family, &str)> {
        self.out.iter().map(said).collect()
    }

    fn status(&self, url: &str) -> TrackerStatus {
        self.trackers.status().into_iter().find(|status| status.url == url).unwrap()
    }

    fn state(&self, url: &str) -> TrackerState {
        self.status(url).state
    }
}

fn said(fetch: &Fetch) -> (char, Family, &str) {
    (host(&fetch.url), fetch.family, field(&fetch.url, "event").unwrap_or("-"))
}

/// The letter our examples have for a name.
fn host(url: &str) -> char {
    url.split_once("://").unwrap().1.chars().next().unwrap()
}

fn field<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let query = url.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// How long until the retry, if that is what was heard.
fn retry(heard: Option<Heard>) -> Duration {
    match heard {
        Some(Heard { outcome: Outcome::Failed { retry, .. }, .. }) => retry,
        other => panic!("{other:?}"),
    }
}

fn reason(heard: Option<Heard>) -> String {
    match heard {
        Some(Heard { outcome: Outcome::Failed { reason, .. }, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn interval(heard: Option<Heard>) -> Duration {
    match heard {
        Some(Heard { outcome: Outcome::Answered { interval, .. }, .. }) => interval,
        other => panic!("{other:?}"),
    }
}
