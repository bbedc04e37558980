//! The tracker client of one torrent (BEP 3, 7, 12, 23, 24, 31, 48): whom to ask, when, and what the answers mean.
//!
//! Owns the tiers, what each tracker was told, and when each is asked again. How it is asked is not its business: a
//! question leaves as a [`Fetch`] and comes back through [`Trackers::on_fetched`], exactly once. Those of `http` and
//! `https` are the shell's, those of `udp` go through [`crate::udp`], which answers in the same form. What the bytes say is `wire::tracker`'s;
//! whether an address is worth a dial, the Swarm's.
//!
//! The rules, where the BEPs leave a choice:
//! 1. *Every tier is announced to*, one working tracker each, for private torrents too. BEP 12 would ask the second
//!    tier only when the whole first one fails. But tiers in the wild list independent trackers, each with peers the
//!    others do not know, and qBittorrent (`announce_to_all_tiers`) has taught users to expect all of them. Within a
//!    tier it is as BEP 12 says: in a random order drawn once, the next only when one fails, and whoever answers moves
//!    to the front.
//! 2. *A tracker has one lane for each address family* (BEP 7), each with its own events and its own pace, because a
//!    tracker keeps two lists. A tracker works if one lane does, and fails when the last of them has failed: half the
//!    world has no working IPv6, and nobody wants to read about it once an hour.
//! 3. *Nothing hurries but events.* Few peers are no reason to ask a tracker before its interval is over.
//! 4. `completed` is repeated until it is answered, but to a tracker that another one has replaced it goes once, as a
//!    courtesy.
//! 5. *Scrapes are for people.* Announces bring counts; a scrape goes where they brought none, or where a torrent that
//!    does not run is looked at ([`Trackers::look`]): one tracker a tier, and each at most once in half an hour.

mod answer;
mod lane;
mod one;
mod tally;
mod tier;
mod voice;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, MAX_SOURCES, PeerId, Time};
use rand_core::Rng;

use tier::Tier;
use voice::Voice;

/// The number of one request; never used again within its torrent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// Which addresses of a tracker a request goes to (BEP 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A request for the shell's HTTP client or, if its URL says `udp`, for [`crate::udp::UdpTrackers`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Its number, to be named with the answer.
    pub id: FetchId,
    /// What to get.
    pub url: String,
    /// By addresses of this family only.
    pub family: Family,
    /// Give up after this long: 30 s, by UDP 225 s ([`crate::udp::PATIENCE`]), for a farewell 5 s.
    pub timeout: Duration,
}

/// Why a request brought no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FetchFailure {
    /// The tracker has no address of this family.
    NoAddress,
    /// An HTTP status that is not 200, and the body, which may hold a `failure reason`.
    Status(u16, Vec<u8>),
    /// Not in time.
    TimedOut,
    /// Anything else, in words.
    Unreachable(String),
}

/// Who announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Our name.
    pub peer_id: PeerId,
    /// Where we listen, and peers reach us until [`Trackers::moved`]; 0: nowhere.
    pub port: u16,
    /// Proves to a tracker that a changed address is still us.
    pub key: u32,
    /// We can be reached by, and reach, IPv4.
    pub ipv4: bool,
    /// We can be reached by, and reach, IPv6.
    pub ipv6: bool,
}

/// What an announce tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AnnounceFacts {
    /// Content given since the start of the session, in bytes. Trackers hear what was given since
    /// [`Trackers::start`]; a number that went down since [`Trackers::stop`] is taken for counted anew.
    pub uploaded: u64,
    /// Content taken, in bytes; likewise.
    pub downloaded: u64,
    /// Content that is missing, in bytes.
    pub left: u64,
    /// How many peers would be welcome; 0: none.
    pub want: u32,
}

/// How a tracker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrackerState {
    /// Not spoken to yet.
    Idle,
    /// An announce is under way.
    Announcing,
    /// The last announce succeeded.
    Working,
    /// The last announce failed.
    Failing,
}

/// How a tracker stands, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackerStatus {
    /// Its announce URL.
    pub url: String,
    /// Its tier, from 0.
    pub tier: u32,
    /// How it is.
    pub state: TrackerState,
    /// What went wrong last, until an announce succeeds.
    pub last_error: Option<String>,
    /// Seeds by its count.
    pub seeds: Option<u32>,
    /// Leeches by its count.
    pub leeches: Option<u32>,
    /// How often the torrent was completed, by its count; only a scrape tells (BEP 48).
    pub downloads: Option<u32>,
    /// When `seeds` and `leeches` were told.
    pub counted: Option<Time>,
    /// When it is asked next; `Time::NEVER`: not by itself.
    pub next: Time,
}

/// What a tracker said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Which tracker: its announce URL.
    pub url: String,
    /// What it said.
    pub outcome: Outcome,
}

/// What came of an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It gave peers.
    Answered {
        /// Their addresses: at most 500, none with port 0. Unjudged.
        peers: Vec<SocketAddr>,
        /// When it wants to hear again: from a minute to a day.
        interval: Duration,
        /// Its `warning message`.
        warning: Option<String>,
        /// How it sees us (BEP 24).
        external_ip: Option<IpAddr>,
    },
    /// It refused or could not be reached, in any family.
    Failed {
        /// Its words, or what went wrong on the way.
        reason: String,
        /// When it is tried again; `Duration::MAX`: never by itself.
        retry: Duration,
    },
}

/// All trackers of one torrent.
#[derive(Debug)]
pub struct Trackers {
    voice: Voice,
    tiers: Vec<Tier>,
    running: bool,
}

impl Trackers {
    /// Trackers by tier (BEP 12), each tier shuffled once. What is not `http`, `https` or `udp` is listed as failing.
    ///
    /// A URL that is listed twice counts where it comes first; beyond [`MAX_SOURCES`] the rest is dropped. Nothing is
    /// due before [`Trackers::start`].
    pub fn new<R: Rng + ?Sized>(tiers: &[Vec<String>], identity: Identity, rng: &mut R) -> Trackers {
        let mut seen = BTreeSet::new();
        let mut listed = Vec::new();
        for (number, urls) in (0..).zip(tiers) {
            let mut fresh: Vec<&str> = Vec::new();
            for url in urls.iter().map(|url| url.trim()).filter(|url| !url.is_empty()) {
                if seen.len() < MAX_SOURCES && seen.insert(url) {
                    fresh.push(url);
                }
            }
            if !fresh.is_empty() {
                listed.push(Tier::new(number, &fresh, &identity, rng));
            }
        }
        Trackers { voice: Voice::new(identity), tiers: listed, running: false }
    }

    /// Begins (again): `started` is due at once, and past failures are forgiven. While it runs nothing happens.
    ///
    /// A tracker whose farewell is still under way hears `started` after that, or it might hear them in the wrong
    /// order and forget us.
    pub fn start(&mut self, now: Time) {
        if !self.running {
            self.running = true;
            self.tiers.iter_mut().for_each(|tier| tier.start(now));
        }
    }

    /// The download just became complete: those who heard `started` while something was missing hear `completed`,
    /// once in each family, whatever their interval.
    pub fn complete(&mut self, now: Time) {
        if self.running {
            self.tiers.iter_mut().for_each(|tier| tier.complete(now));
        }
    }

    /// Ends: appends `stopped` for each tracker that knows us (timeout at most 5 s), nothing more is due until `start`.
    ///
    /// A tracker with an announce under way may come to know us by it, so it hears `stopped` too; the answer to that
    /// announce will be ignored.
    pub fn stop(&mut self, now: Time, facts: &AnnounceFacts, out: &mut Vec<Fetch>) {
        // A farewell is not scheduled; the time is taken because every event has one.
        let _ = now;
        if self.running {
            self.running = false;
            let voice = &mut self.voice;
            self.tiers.iter_mut().for_each(|tier| tier.stop(voice, facts, out));
            voice.rest(facts);
        }
    }

    /// Somebody looks at a torrent that does not run: appends scrapes (BEP 48) where no counts were told for half an
    /// hour. May be called as often as one likes. While it runs nothing happens: announces bring counts.
    pub fn look(&mut self, now: Time, out: &mut Vec<Fetch>) {
        if !self.running {
            let voice = &mut self.voice;
            self.tiers.iter_mut().for_each(|tier| tier.look(now, voice, out));
        }
    }

    /// Whether all that was asked was answered, scrapes apart; after `stop`, whether the farewells are over.
    ///
    /// Then an announce that `stop` cut off is not waited for: it may hang six times as long as a farewell.
    pub fn is_quiet(&self) -> bool {
        self.tiers.iter().all(|tier| tier.is_quiet(self.running))
    }

    /// The user wants an announce now; given as soon as each tracker's `min interval` allows (a minute where it names
    /// none, 30 s after a failure). So one that asked never to be tried again is tried again.
    pub fn announce_now(&mut self, now: Time) {
        if self.running {
            self.tiers.iter_mut().for_each(|tier| tier.hurry(now));
        }
    }

    /// Peers reach us elsewhere by IPv4 from now on: at this port (0: nowhere), or by another address. Trackers that work
    /// hear of it as soon as each allows, as by [`Trackers::announce_now`]; one that is hearing of the old place right
    /// now, right after. What is said by IPv6 stays.
    pub fn moved(&mut self, now: Time, port: u16) {
        self.voice.set_port_v4(port);
        if self.running {
            self.tiers.iter_mut().for_each(|tier| tier.moved(now));
        }
    }

    /// Appends the announces, and the scrapes they made necessary, that are due. Afterwards `next_due` lies ahead of `now`.
    pub fn heartbeat<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        facts: &AnnounceFacts,
        out: &mut Vec<Fetch>,
    ) {
        // No dice are rolled here today: pauses are drawn when a failure is heard.
        let _ = rng;
        if self.running {
            let voice = &mut self.voice;
            self.tiers.iter_mut().for_each(|tier| tier.heartbeat(now, voice, facts, out));
        }
    }

    /// When `heartbeat` has something to do; `Time::NEVER`: not before something happens. To be asked again after
    /// every other call.
    pub fn next_due(&self) -> Time {
        let due = self.tiers.iter().filter(|_| self.running).map(Tier::next_due);
        due.min().unwrap_or(Time::NEVER)
    }

    /// A tracker answered. `None`: nothing of interest (an answer to a `stopped`, an unknown number, one family's
    /// failure while another works or is still out), or counts, which [`Trackers::status`] tells.
    pub fn on_fetched<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        id: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) -> Option<Heard> {
        let info_hash = self.voice.info_hash();
        if let Some(tracker) = self.tiers.iter_mut().find_map(|tier| tier.scraped(id)) {
            tracker.on_scraped(now, info_hash, result);
            return None;
        }
        let (tier, tracker, lane) = self
            .tiers
            .iter_mut()
            .find_map(|tier| tier.find(id).map(|(tracker, lane)| (tier, tracker, lane)))?;
        tier.on_fetched(now, rng, (tracker, lane), id, answer::read(result))
    }

    /// How each tracker stands, in order of tier, within a tier in the order they are tried.
    pub fn status(&self) -> Vec<TrackerStatus> {
        let mut all = Vec::new();
        self.tiers.iter().for_each(|tier| tier.status(self.running, &mut all));
        all
    }
}

#[cfg(test)]
mod tests;
