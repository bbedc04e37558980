//! One tracker in one address family: what it was told, what is out, when it is asked again.
//!
//! Owns the pace: intervals, pauses after failures, events still owed. Whether this tracker's turn has come is the
//! tier's to say; whether the tracker as a whole works, its owner's.

use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::tracker::{AnnounceAnswer, Event, RetryIn};
use rand_core::Rng;

use super::{Family, FetchId};
use crate::dice;

/// The shortest interval we accept. A tracker that says 0 or -1 is broken or wants us to flood somebody.
pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_secs(60);

/// The longest: a tracker that says 2^31 would never hear of us again.
pub(super) const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The interval of a tracker that names none, as most trackers name.
const USUAL_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause but for its jitter of up to a quarter, with which it is an hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(48 * 60);

/// How long a tracker without an address in this family is left alone while it works in the other.
const ABSENT_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How the last announce went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    /// There was none in this run.
    Fresh,
    /// It was taken.
    Works,
    /// It failed, for this reason.
    Failed(String),
    /// The tracker has no address in this family.
    Absent,
}

/// An announce under way.
#[derive(Debug)]
struct Asked {
    id: FetchId,
    event: Option<Event>,
    /// Something was missing when it was asked.
    incomplete: bool,
    /// Out of turn, to a tracker that was replaced.
    courtesy: bool,
    /// Where it says that we are reached is true no longer.
    stale: bool,
}

/// What an answer was to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// An announce in its turn.
    Announce,
    /// A `completed` out of turn.
    Courtesy,
    /// A farewell, or an announce cut off by one.
    Past,
}

/// One tracker in one address family.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) family: Family,
    pub(super) condition: Condition,
    /// `tracker id`, to be carried back.
    pub(super) tracker_id: Option<Vec<u8>>,
    pub(super) seeds: Option<u32>,
    pub(super) leeches: Option<u32>,
    /// When either was told last.
    pub(super) counted: Option<Time>,
    /// When the next announce is due, by the tracker's wish or ours.
    pub(super) next: Time,
    /// Before this not even the user's wish counts.
    not_before: Time,
    /// In a row.
    failures: u32,
    /// It knows us: took a `started`. Whether something was missing then, and it has heard no `completed` since.
    known: Option<bool>,
    /// When a `completed` fell due.
    owed: Option<Time>,
    asked: Option<Asked>,
    farewell: Option<FetchId>,
    /// An announce that was out when the farewell was said.
    stray: Option<FetchId>,
}

impl Lane {
    pub(super) fn new(family: Family) -> Lane {
        Lane {
            family,
            condition: Condition::Fresh,
            tracker_id: None,
            seeds: None,
            leeches: None,
            counted: None,
            next: Time::NEVER,
            not_before: Time::ZERO,
            failures: 0,
            known: None,
            owed: None,
            asked: None,
            farewell: None,
            stray: None,
        }
    }

    pub(super) fn start(&mut self, now: Time) {
        self.condition = Condition::Fresh;
        self.failures = 0;
        (self.next, self.not_before) = (now, now);
    }

    /// Owes `completed` from now, if it heard `started` while something was missing.
    pub(super) fn complete(&mut self, now: Time) {
        // One that is hearing it right now will know, or hear `started` again with nothing missing.
        let hearing = |asked: &Asked| asked.event == Some(Event::Started) && asked.incomplete;
        if self.known != Some(true) && !self.asked.as_ref().is_some_and(hearing) {
            return;
        }
        self.owed = Some(now);
        if self.condition == Condition::Works {
            self.next = self.next.min(now);
        }
    }

    /// Ends the run. True if the tracker knows us, or may come to by what is out, and must hear `stopped`.
    pub(super) fn stop(&mut self) -> bool {
        let asked = self.asked.take().map(|asked| asked.id);
        let farewell = asked.is_some() || self.known.is_some();
        // A run with one still out asks nothing, so there is none to lose.
        self.stray = self.stray.or(asked);
        (self.known, self.owed, self.next) = (None, None, Time::NEVER);
        if self.condition == Condition::Works {
            self.condition = Condition::Fresh;
        }
        farewell
    }

    pub(super) fn hurry(&mut self, now: Time) {
        self.next = self.next.min(now.max(self.not_before));
    }

    /// Peers reach us elsewhere by IPv4: a tracker that took or is about to take the old place hears of the new one. Others
    /// hear it when their turn comes.
    pub(super) fn moved(&mut self, now: Time) {
        if self.family != Family::V4 {
            return;
        }
        if let Some(asked) = &mut self.asked {
            asked.stale = true;
        } else if self.condition == Condition::Works {
            self.hurry(now);
        }
    }

    /// Nothing is out, in any sense, so that an announce may go.
    pub(super) fn is_free(&self) -> bool {
        self.asked.is_none() && self.farewell.is_none() && self.stray.is_none()
    }

    /// An announce is out, in its turn.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| !asked.courtesy)
    }

    /// Any announce or farewell is out.
    pub(super) fn is_talking(&self) -> bool {
        self.asked.is_some() || self.farewell.is_some()
    }

    /// Whether all was answered that counts: after the end of the run only the farewell.
    pub(super) fn is_quiet(&self, running: bool) -> bool {
        if running { self.is_free() } else { self.farewell.is_none() }
    }

    /// When the courtesy of a `completed` is due, if it is owed and may go.
    pub(super) fn courtesy_due(&self) -> Option<Time> {
        self.owed.filter(|_| self.is_free() && self.known.is_some())
    }

    /// What the next announce says.
    pub(super) fn event(&self) -> Option<Event> {
        match (self.known, self.owed) {
            (None, _) => Some(Event::Started),
            (_, Some(_)) => Some(Event::Completed),
            (_, None) => None,
        }
    }

    pub(super) fn asked(&mut self, id: FetchId, event: Option<Event>, incomplete: bool, courtesy: bool) {
        debug_assert!(self.is_free(), "one announce at a time");
        self.asked = Some(Asked { id, event, incomplete, courtesy, stale: false });
    }

    pub(super) fn bade_farewell(&mut self, id: FetchId) {
        debug_assert!(self.farewell.is_none(), "one farewell at a time");
        self.farewell = Some(id);
    }

    /// Whether `id` is out on this lane.
    pub(super) fn knows(&self, id: FetchId) -> bool {
        let asked = self.asked.as_ref().map(|asked| asked.id);
        [asked, self.farewell, self.stray].contains(&Some(id))
    }

    /// What `id`, which is out on this lane, was. It is out no longer if it belongs to the past.
    pub(super) fn kind(&mut self, id: FetchId) -> Kind {
        match &self.asked {
            Some(asked) if asked.id == id => {
                if asked.courtesy {
                    Kind::Courtesy
                } else {
                    Kind::Announce
                }
            }
            _ => {
                self.farewell.take_if(|farewell| *farewell == id);
                self.stray.take_if(|stray| *stray == id);
                Kind::Past
            }
        }
    }

    /// The announce was taken. Returns the interval.
    pub(super) fn taken(&mut self, now: Time, answer: &AnnounceAnswer) -> Duration {
        let seconds =
            |number: u32| Duration::from_secs(number.into()).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let at_least = answer.min_interval.map_or(SHORTEST_INTERVAL, seconds);
        let interval = answer.interval.map_or(USUAL_INTERVAL, seconds).max(at_least);
        // What is absent from this answer still holds (the convention for `tracker id`), or is better than nothing.
        self.tracker_id = answer.tracker_id.clone().or(self.tracker_id.take());
        self.seeds = answer.complete.or(self.seeds);
        self.leeches = answer.incomplete.or(self.leeches);
        if answer.complete.is_some() || answer.incomplete.is_some() {
            self.counted = Some(now);
        }
        self.failures = 0;
        self.not_before = now + at_least;
        self.next = now + interval;
        self.condition = Condition::Works;
        let Some(asked) = self.asked.take() else { return interval };
        match asked.event {
            Some(Event::Started) => self.known = Some(asked.incomplete),
            Some(Event::Completed) => (self.known, self.owed) = (Some(false), None),
            _ => {}
        }
        if asked.courtesy {
            // It is not asked by its interval, but when its turn comes again.
            (self.condition, self.next) = (Condition::Fresh, self.not_before);
        } else if self.owed.is_some() {
            self.next = now;
        } else if asked.stale {
            self.next = self.not_before;
        }
        interval
    }

    /// The announce failed: pauses, longer each time, or as the tracker says (BEP 31).
    pub(super) fn refused<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        rng: &mut R,
        reason: String,
        retry_in: Option<RetryIn>,
    ) {
        self.condition = Condition::Failed(reason);
        self.failed();
        self.not_before = self.not_before.max(now + FIRST_PAUSE);
        self.next = match retry_in {
            Some(RetryIn::Never) => Time::NEVER,
            Some(RetryIn::Minutes(minutes)) => {
                let pause = Duration::from_secs(u64::from(minutes) * 60);
                self.not_before = now + pause.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
                self.not_before
            }
            None => now + pause(self.failures, rng),
        };
    }

    /// The tracker does not live in this family.
    pub(super) fn absent(&mut self, now: Time) {
        self.condition = Condition::Absent;
        self.failed();
        self.next = now + ABSENT_PAUSE;
    }

    /// It lives nowhere, so this was a failure like others.
    pub(super) fn pause<R: Rng + ?Sized>(&mut self, now: Time, rng: &mut R) {
        self.next = now + pause(self.failures, rng);
    }

    /// A courtesy that came to nothing is not repeated.
    pub(super) fn courtesy_failed(&mut self) {
        (self.asked, self.owed) = (None, None);
        self.known = self.known.map(|_| false);
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        // `started` will be said again, and then with what is missing by then.
        if self.asked.take().is_some_and(|asked| asked.event == Some(Event::Started)) {
            self.owed = None;
        }
    }
}

/// How long to wait after so many failures in a row: 30 s, doubling, with a jitter of up to a quarter so that clients
/// that failed together do not return together; an hour at most.
fn pause<R: Rng + ?Sized>(failures: u32, rng: &mut R) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let base = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
    let quarter_ms = usize::try_from(base.as_millis() / 4).unwrap_or(usize::MAX);
    base + Duration::from_millis(dice::below(quarter_ms.saturating_add(1), rng) as u64)
}
