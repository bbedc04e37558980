//! One tier: whose turn it is (BEP 12).
//!
//! Owns the order, and for whom of them counts are asked. Trackers are tried from the front; one that has failed is passed over until its pause is over, one
//! that works ends the search, and whoever answers moves to the front. So behind a tracker that works nobody is asked
//! (but for the courtesy of a `completed`), and while one is being asked the others wait.

use piecemeal_metainfo::Time;
use rand_core::Rng;

use super::answer::Answer;
use super::lane::Lane;
use super::one::{Tracker, Verdict};
use super::voice::Voice;
use super::{AnnounceFacts, Fetch, FetchId, Heard, Identity, TrackerStatus};
use crate::dice;

/// Trackers of which one is enough.
#[derive(Debug)]
pub(super) struct Tier {
    number: u32,
    trackers: Vec<Tracker>,
}

impl Tier {
    pub(super) fn new<R: Rng + ?Sized>(number: u32, urls: &[&str], identity: &Identity, rng: &mut R) -> Tier {
        let mut trackers: Vec<Tracker> = urls.iter().map(|url| Tracker::new(url, identity)).collect();
        dice::shuffle(&mut trackers, rng);
        Tier { number, trackers }
    }

    pub(super) fn start(&mut self, now: Time) {
        self.lanes_mut().for_each(|lane| lane.start(now));
    }

    pub(super) fn complete(&mut self, now: Time) {
        self.lanes_mut().for_each(|lane| lane.complete(now));
    }

    pub(super) fn hurry(&mut self, now: Time) {
        self.lanes_mut().for_each(|lane| lane.hurry(now));
    }

    pub(super) fn moved(&mut self, now: Time) {
        self.lanes_mut().for_each(|lane| lane.moved(now));
    }

    pub(super) fn stop(&mut self, voice: &mut Voice, facts: &AnnounceFacts, out: &mut Vec<Fetch>) {
        self.trackers.iter_mut().for_each(|tracker| tracker.stop(voice, facts, out));
    }

    pub(super) fn is_quiet(&self, running: bool) -> bool {
        self.trackers.iter().all(|tracker| tracker.is_quiet(running))
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Time,
        voice: &mut Voice,
        facts: &AnnounceFacts,
        out: &mut Vec<Fetch>,
    ) {
        if let Some(turn) = self.turn(now) {
            self.trackers[turn].announce(now, voice, facts, out);
        }
        if let Some(replaced) = self.replaced() {
            self.trackers[replaced..]
                .iter_mut()
                .for_each(|tracker| tracker.courtesies(now, voice, facts, out));
        }
        for tracker in self.trackers.iter_mut().filter(|tracker| tracker.scrape_due() <= now) {
            tracker.scrape(now, voice, out);
        }
    }

    /// Scrapes the first tracker that may be, unless there are counts already or one is being scraped.
    pub(super) fn look(&mut self, now: Time, voice: &mut Voice, out: &mut Vec<Fetch>) {
        for tracker in &mut self.trackers {
            if tracker.is_counted(now) || tracker.scrape(now, voice, out) {
                return;
            }
        }
    }

    /// The tracker that `id` is a scrape of.
    pub(super) fn scraped(&mut self, id: FetchId) -> Option<&mut Tracker> {
        self.trackers.iter_mut().find(|tracker| tracker.is_scraped_by(id))
    }

    /// When the heartbeat has something to do. It finds the same tracker as [`Tier::turn`] would at that time: the
    /// first that is due is either the earliest due, or stands before one that is due no later.
    pub(super) fn next_due(&self) -> Time {
        let courtesies = self.replaced().map(|from| &self.trackers[from..]).unwrap_or_default();
        let courtesy = courtesies.iter().map(Tracker::courtesy_due).min().unwrap_or(Time::NEVER);
        let announce = match self.trackers.iter().find(|tracker| tracker.is_asked()) {
            Some(asked) => asked.next(),
            None => {
                let last = self.trackers.iter().position(|tracker| tracker.works() || tracker.is_held());
                let reach = last.map_or(self.trackers.len(), |last| last + 1);
                self.trackers[..reach].iter().map(Tracker::next).min().unwrap_or(Time::NEVER)
            }
        };
        let scrape = self.trackers.iter().map(Tracker::scrape_due).min().unwrap_or(Time::NEVER);
        announce.min(courtesy).min(scrape)
    }

    /// Where `id` is out: which tracker, which lane.
    pub(super) fn find(&self, id: FetchId) -> Option<(usize, usize)> {
        self.trackers.iter().enumerate().find_map(|(at, tracker)| tracker.find(id).map(|lane| (at, lane)))
    }

    /// The answer to `id`, which is out at the tracker and lane of `place`.
    pub(super) fn on_fetched<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        place: (usize, usize),
        id: FetchId,
        answer: Answer,
    ) -> Option<Heard> {
        let (at, lane) = place;
        let tracker = &mut self.trackers[at];
        let verdict = tracker.on_fetched(now, rng, lane, id, answer);
        let url = tracker.url.clone();
        match verdict {
            Verdict::Silence => None,
            Verdict::Says(outcome) => Some(Heard { url, outcome }),
            Verdict::Works(outcome) => {
                self.trackers[..=at].rotate_right(1);
                Some(Heard { url, outcome })
            }
        }
    }

    pub(super) fn status(&self, running: bool, all: &mut Vec<TrackerStatus>) {
        let mut planned = running;
        for tracker in &self.trackers {
            let counts = tracker.counts();
            all.push(TrackerStatus {
                url: tracker.url.clone(),
                tier: self.number,
                state: tracker.state(),
                last_error: tracker.last_error().map(str::to_owned),
                seeds: counts.seeds,
                leeches: counts.leeches,
                downloads: counts.downloads,
                counted: counts.at,
                next: if planned { tracker.next() } else { Time::NEVER },
            });
            // Those behind are asked if this one fails, not before.
            planned &= !(tracker.works() || tracker.is_held() || tracker.is_fresh());
        }
    }

    /// Whose turn it is.
    fn turn(&self, now: Time) -> Option<usize> {
        let asked = self.trackers.iter().position(Tracker::is_asked);
        let stops = |tracker: &Tracker| tracker.works() || tracker.is_held() || tracker.next() <= now;
        asked.or_else(|| self.trackers.iter().position(stops))
    }

    /// Where those begin that another has replaced; `None` while none works.
    fn replaced(&self) -> Option<usize> {
        self.trackers.iter().position(Tracker::works).map(|at| at + 1)
    }

    fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.trackers.iter_mut().flat_map(Tracker::lanes_mut)
    }
}
