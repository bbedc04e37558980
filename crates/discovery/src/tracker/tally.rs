//! What one tracker counts, asked for by a scrape (BEP 48).
//!
//! Owns when a scrape may go: for counts that no announce brought, and never twice within half an hour, whatever came
//! of the first. Whether one is wanted is the tracker's and the tier's to say.

use std::time::Duration;

use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::tracker::{ScrapeCounts, ScrapeReply};

use super::lane::LONGEST_INTERVAL;
use super::{Family, FetchFailure, FetchId};

/// Between two scrapes of a torrent at one tracker, at least; so long counts are good enough for people. A tracker may
/// ask for more (`min_request_interval`).
pub(super) const PAUSE: Duration = Duration::from_secs(30 * 60);

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    /// The last that were told, and when.
    counts: Option<(ScrapeCounts, Time)>,
    asked: Option<FetchId>,
    /// By which family the next one goes.
    family: Family,
    /// An announce brought no counts.
    wanted: bool,
    not_before: Time,
    /// The tracker does not live in the family tried before; nobody was bothered by that.
    absent: bool,
}

impl Tally {
    /// Nothing asked, by this family first.
    pub(super) fn new(family: Family) -> Tally {
        Tally { counts: None, asked: None, family, wanted: false, not_before: Time::ZERO, absent: false }
    }

    /// What was told last, and when.
    pub(super) fn counts(&self) -> Option<(ScrapeCounts, Time)> {
        self.counts
    }

    /// An announce by this family brought no counts.
    pub(super) fn want(&mut self, family: Family) {
        (self.wanted, self.family) = (true, family);
    }

    /// Nobody wants counts any more.
    pub(super) fn rest(&mut self) {
        self.wanted = false;
    }

    /// When a scrape that is wanted may go.
    pub(super) fn due(&self) -> Time {
        if self.wanted && self.asked.is_none() { self.not_before } else { Time::NEVER }
    }

    /// One may go now, if anybody wants it.
    pub(super) fn may_ask(&self, now: Time) -> bool {
        self.asked.is_none() && self.not_before <= now
    }

    /// One is out.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// By which family to ask.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// One went out.
    pub(super) fn asked(&mut self, now: Time, id: FetchId) {
        self.asked = Some(id);
        (self.wanted, self.not_before) = (false, now + PAUSE);
    }

    /// Whether `id` is the one that is out.
    pub(super) fn knows(&self, id: FetchId) -> bool {
        self.asked == Some(id)
    }

    /// The answer to the one that is out. After a failure the `other` family is next, if there is one.
    pub(super) fn on_fetched(
        &mut self,
        now: Time,
        info_hash: InfoHash,
        other: Option<Family>,
        result: Result<&[u8], FetchFailure>,
    ) {
        self.asked = None;
        let reply = result.map(ScrapeReply::decode);
        if let Ok(Ok(ScrapeReply::Answer(answer))) = &reply {
            let seconds = answer.min_request_interval.map_or(0, u64::from);
            let pause = Duration::from_secs(seconds).clamp(PAUSE, LONGEST_INTERVAL);
            self.not_before = self.not_before.max(now + pause);
            let ours = answer.files.iter().find(|(hash, _)| *hash == info_hash);
            self.counts = ours.map(|(_, counts)| (*counts, now)).or(self.counts);
            self.absent = false;
            return;
        }
        self.family = other.unwrap_or(self.family);
        let absent = matches!(reply, Err(FetchFailure::NoAddress)) && other.is_some();
        if absent && !self.absent {
            (self.wanted, self.not_before) = (true, now);
        }
        self.absent = absent && !self.absent;
    }
}
