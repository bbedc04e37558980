//! One tracker: its lanes together.
//!
//! Owns the verdict over a tracker: it works if one of its lanes does, and has failed once the last of them failed.

use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::tracker::{AnnounceAnswer, Event, scrape_url};
use rand_core::Rng;

use super::answer::Answer;
use super::lane::{Condition, Kind, Lane};
use super::tally::{PAUSE, Tally};
use super::voice::Voice;
use super::{AnnounceFacts, Family, Fetch, FetchFailure, FetchId, Identity, Outcome, TrackerState};
use crate::udp;

/// Longer URLs are nobody's tracker; servers refuse requests of 8 KiB, and we add a few hundred bytes.
const MAX_URL_BYTES: usize = 4 << 10;

/// One tracker.
#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) url: String,
    /// One a family; none if it can not be asked at all.
    lanes: Vec<Lane>,
    /// What went wrong last, or why it can not be asked.
    last_error: Option<String>,
    /// `None` if there is no URL to scrape at.
    tally: Option<Tally>,
}

/// Peers by a tracker's count, and when it told that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) seeds: Option<u32>,
    pub(super) leeches: Option<u32>,
    pub(super) downloads: Option<u32>,
    /// Of the first two.
    pub(super) at: Option<Time>,
}

/// What an answer means to the tier.
pub(super) enum Verdict {
    /// Nothing.
    Silence,
    /// The tracker works; it was asked in its turn.
    Works(Outcome),
    /// Something to tell, but nothing changes.
    Says(Outcome),
}

impl Tracker {
    pub(super) fn new(url: &str, identity: &Identity) -> Tracker {
        let families = [(Family::V4, identity.ipv4), (Family::V6, identity.ipv6)];
        let mut lanes: Vec<Lane> =
            families.into_iter().filter(|(_, used)| *used).map(|(family, _)| Lane::new(family)).collect();
        let unfit = unfit(url).or(lanes.is_empty().then_some("neither IPv4 nor IPv6 is in use"));
        if unfit.is_some() {
            lanes.clear();
        }
        let tally = lanes.first().filter(|_| scrape_url(url, &[]).is_some());
        let tally = tally.map(|lane| Tally::new(lane.family));
        Tracker { url: url.to_owned(), lanes, last_error: unfit.map(str::to_owned), tally }
    }

    pub(super) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// The last announce was taken, in some family.
    pub(super) fn works(&self) -> bool {
        self.lanes.iter().any(|lane| lane.condition == Condition::Works)
    }

    /// An announce is out, in its turn.
    pub(super) fn is_asked(&self) -> bool {
        self.lanes.iter().any(Lane::is_asked)
    }

    /// Something is out that a lane must wait for.
    pub(super) fn is_held(&self) -> bool {
        !self.lanes.iter().all(Lane::is_free)
    }

    /// In some family it was not heard in this run, so that nobody knows whether it works.
    pub(super) fn is_fresh(&self) -> bool {
        self.lanes.iter().any(|lane| lane.condition == Condition::Fresh)
    }

    pub(super) fn is_quiet(&self, running: bool) -> bool {
        self.lanes.iter().all(|lane| lane.is_quiet(running))
    }

    /// When the first lane that may ask is due.
    pub(super) fn next(&self) -> Time {
        self.lanes.iter().filter(|lane| lane.is_free()).map(|lane| lane.next).min().unwrap_or(Time::NEVER)
    }

    /// When the first courtesy is due.
    pub(super) fn courtesy_due(&self) -> Time {
        self.lanes.iter().filter_map(Lane::courtesy_due).min().unwrap_or(Time::NEVER)
    }

    /// Announces on all lanes that are due.
    pub(super) fn announce(
        &mut self,
        now: Time,
        voice: &mut Voice,
        facts: &AnnounceFacts,
        out: &mut Vec<Fetch>,
    ) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_free() && lane.next <= now) {
            say(&self.url, lane, false, voice, facts, out);
        }
    }

    /// Says `completed` on all lanes that are owed it.
    pub(super) fn courtesies(
        &mut self,
        now: Time,
        voice: &mut Voice,
        facts: &AnnounceFacts,
        out: &mut Vec<Fetch>,
    ) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.courtesy_due().is_some_and(|due| due <= now)) {
            say(&self.url, lane, true, voice, facts, out);
        }
    }

    pub(super) fn stop(&mut self, voice: &mut Voice, facts: &AnnounceFacts, out: &mut Vec<Fetch>) {
        self.tally.iter_mut().for_each(Tally::rest);
        for lane in &mut self.lanes {
            if lane.stop() {
                let id = lane.tracker_id.as_deref();
                let fetch = voice.fetch(&self.url, lane.family, Some(Event::Stopped), id, facts);
                lane.bade_farewell(fetch.id);
                out.push(fetch);
            }
        }
    }

    /// When a scrape is due.
    pub(super) fn scrape_due(&self) -> Time {
        self.tally.as_ref().map_or(Time::NEVER, Tally::due)
    }

    /// Whether counts are new, or on their way.
    pub(super) fn is_counted(&self, now: Time) -> bool {
        let new = self.counts().at.is_some_and(|at| now.since(at) < PAUSE);
        new || self.tally.as_ref().is_some_and(Tally::is_asked)
    }

    /// Scrapes, if that may be now. True if so.
    pub(super) fn scrape(&mut self, now: Time, voice: &mut Voice, out: &mut Vec<Fetch>) -> bool {
        let Some(tally) = self.tally.as_mut().filter(|tally| tally.may_ask(now)) else { return false };
        let Some(fetch) = voice.scrape(&self.url, tally.family()) else { return false };
        tally.asked(now, fetch.id);
        out.push(fetch);
        true
    }

    /// Whether `id` is a scrape that is out.
    pub(super) fn is_scraped_by(&self, id: FetchId) -> bool {
        self.tally.as_ref().is_some_and(|tally| tally.knows(id))
    }

    /// The answer to the scrape that is out.
    pub(super) fn on_scraped(&mut self, now: Time, info_hash: InfoHash, result: Result<&[u8], FetchFailure>) {
        let Some(tally) = &mut self.tally else { return };
        let other = self.lanes.iter().map(|lane| lane.family).find(|family| *family != tally.family());
        tally.on_fetched(now, info_hash, other, result);
    }

    /// The lane on which `id` is out.
    pub(super) fn find(&self, id: FetchId) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.knows(id))
    }

    /// The answer to `id`, which is out on the lane at `at`.
    pub(super) fn on_fetched<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        at: usize,
        id: FetchId,
        answer: Answer,
    ) -> Verdict {
        let lane = &mut self.lanes[at];
        match (lane.kind(id), answer) {
            (Kind::Past, _) => return Verdict::Silence,
            (kind, Answer::Taken(answer)) => {
                let interval = lane.taken(now, &answer);
                let counted = answer.complete.is_some() && answer.incomplete.is_some();
                if let Some(tally) = self.tally.as_mut().filter(|_| !counted) {
                    tally.want(lane.family);
                }
                self.last_error = None;
                let outcome = answered(answer, interval);
                return if kind == Kind::Announce { Verdict::Works(outcome) } else { Verdict::Says(outcome) };
            }
            (Kind::Courtesy, _) => {
                lane.courtesy_failed();
                return Verdict::Silence;
            }
            (Kind::Announce, Answer::Absent) => lane.absent(now),
            (Kind::Announce, Answer::Refused { reason, retry_in }) => {
                lane.refused(now, rng, reason, retry_in);
            }
        }
        if self.works() || self.is_asked() { Verdict::Silence } else { Verdict::Says(self.fail(now, rng)) }
    }

    pub(super) fn state(&self) -> TrackerState {
        if self.lanes.iter().any(Lane::is_talking) {
            TrackerState::Announcing
        } else if self.works() {
            TrackerState::Working
        } else if self.is_fresh() {
            TrackerState::Idle
        } else {
            TrackerState::Failing
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Its counts: by what it said last. Each family's announce may count that family alone, so the larger is nearer.
    pub(super) fn counts(&self) -> Counts {
        let largest = |count: fn(&Lane) -> Option<u32>| self.lanes.iter().filter_map(count).max();
        let told = self.lanes.iter().filter_map(|lane| lane.counted).max();
        let scraped = self.tally.as_ref().and_then(Tally::counts);
        let Some((scraped, at)) = scraped else {
            let (seeds, leeches) = (largest(|lane| lane.seeds), largest(|lane| lane.leeches));
            return Counts { seeds, leeches, downloads: None, at: told };
        };
        let newer = |count: fn(&Lane) -> Option<u32>| largest(count).filter(|_| told > Some(at));
        Counts {
            seeds: newer(|lane| lane.seeds).or(Some(scraped.complete)),
            leeches: newer(|lane| lane.leeches).or(Some(scraped.incomplete)),
            downloads: Some(scraped.downloaded),
            at: told.max(Some(at)),
        }
    }

    /// The last lane has failed: what to say of them all, and when the first is tried again.
    fn fail<R: Rng + ?Sized>(&mut self, now: Time, rng: &mut R) -> Outcome {
        if self.lanes.iter().all(|lane| lane.condition == Condition::Absent) {
            self.lanes.iter_mut().for_each(|lane| lane.pause(now, rng));
        }
        let words = |lane: &Lane| match &lane.condition {
            Condition::Failed(reason) => Some(reason.clone()),
            _ => None,
        };
        let reason =
            self.lanes.iter().find_map(words).unwrap_or_else(|| "the tracker's name has no address".into());
        self.last_error = Some(reason.clone());
        let next = self.next();
        let retry = if next == Time::NEVER { Duration::MAX } else { next.since(now) };
        Outcome::Failed { reason, retry }
    }
}

fn say(
    url: &str,
    lane: &mut Lane,
    courtesy: bool,
    voice: &mut Voice,
    facts: &AnnounceFacts,
    out: &mut Vec<Fetch>,
) {
    let event = lane.event();
    let fetch = voice.fetch(url, lane.family, event, lane.tracker_id.as_deref(), facts);
    lane.asked(fetch.id, event, facts.left > 0, courtesy);
    out.push(fetch);
}

fn answered(answer: AnnounceAnswer, interval: Duration) -> Outcome {
    Outcome::Answered {
        peers: answer.peers.iter().map(|peer| peer.addr).collect(),
        interval,
        warning: answer.warning,
        external_ip: answer.external_ip,
    }
}

/// Why nothing can be asked at this URL. The shell parses it again, and more strictly.
fn unfit(url: &str) -> Option<&'static str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Some("not a URL") };
    if url.len() > MAX_URL_BYTES {
        return Some("the URL is too long");
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some("not a URL");
    }
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" if rest.starts_with(['/', '?', '#', ':']) || rest.is_empty() => {
            Some("the URL names no host")
        }
        "http" | "https" => None,
        "udp" if udp::place(url).is_none() => Some("the URL names no host and port"),
        "udp" => None,
        "ws" | "wss" => Some("WebTorrent trackers are not supported by this version"),
        _ => Some("not an HTTP or UDP tracker"),
    }
}
