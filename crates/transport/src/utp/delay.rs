//! How long packets of one direction wait in queues on their way.
//!
//! Owns the measurements of one direction. The two clocks differ by an unknown amount, so a measurement means nothing by
//! itself: the least of the last minutes is taken for an empty path, and what is more than that for waiting. What is
//! done about it is `ledbat`'s.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// Minutes whose least measurement counts, with the one that runs. Less, and a path that is never empty meanwhile looks
/// empty; more, and clocks that drift apart look like a queue.
const MINUTES: usize = 3;

const MINUTE: Duration = Duration::from_secs(60);

/// Measurements of which the least counts as now: one that was held up alone says nothing of a queue.
const RECENT: usize = 4;

/// The most by which drift is made up for at once, in microseconds: more at once is a change of the path.
const MOST_DRIFT_US: u32 = 10_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Delay {
    /// The least measurement of each minute, in microseconds; wraps. The last is the one that runs.
    bases: [u32; MINUTES],
    base: u32,
    recent: [u32; RECENT],
    heard: usize,
    minute_ends: Time,
    /// The least delay of this minute, in microseconds.
    least: u32,
}

/// What a measurement changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    /// The base went down by so many microseconds.
    pub lower_by: u32,
    /// A minute ended, in which packets always waited at least so many microseconds.
    pub minute_of: Option<u32>,
}

impl Delay {
    /// One measurement in microseconds, of two clocks that count from anywhere.
    pub fn measured(&mut self, now: Time, sample: u32) -> Change {
        let mut change = Change::default();
        if self.heard == 0 {
            (self.bases, self.base) = ([sample; MINUTES], sample);
            (self.minute_ends, self.least) = (now + MINUTE, u32::MAX);
        }
        if now >= self.minute_ends {
            change.minute_of = Some(self.least);
            self.bases.rotate_left(1);
            self.bases[MINUTES - 1] = sample;
            self.base = self.bases.into_iter().reduce(earlier).unwrap_or(sample);
            (self.minute_ends, self.least) = (now + MINUTE, u32::MAX);
        }
        let last = &mut self.bases[MINUTES - 1];
        *last = earlier(*last, sample);
        if is_before(sample, self.base) {
            change.lower_by = self.base.wrapping_sub(sample);
            self.base = sample;
        }
        self.recent[self.heard % RECENT] = sample;
        self.heard = self.heard.wrapping_add(1).max(1);
        self.least = self.least.min(sample.wrapping_sub(self.base));
        change
    }

    /// The other direction's base went down by `us` microseconds. If the clocks drift, this one's measurements went up
    /// by as much meanwhile, without any queue.
    pub fn drifted(&mut self, us: u32) {
        let us = us.min(MOST_DRIFT_US);
        self.bases.iter_mut().for_each(|base| *base = base.wrapping_add(us));
        self.base = self.base.wrapping_add(us);
    }

    /// How long packets wait now, if anything was measured.
    pub fn waiting(&self) -> Option<Duration> {
        let recent = &self.recent[..self.heard.min(RECENT)];
        let least = recent.iter().copied().reduce(earlier)?;
        let us = if is_before(least, self.base) { 0 } else { least.wrapping_sub(self.base) };
        Some(Duration::from_micros(us.into()))
    }
}

fn is_before(left: u32, right: u32) -> bool {
    (left.wrapping_sub(right) as i32) < 0
}

fn earlier(left: u32, right: u32) -> u32 {
    if is_before(left, right) { left } else { right }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn waiting(delay: &Delay) -> u128 {
        delay.waiting().expect("was measured").as_micros()
    }

    #[test]
    fn the_least_of_the_last_minutes_is_the_base() {
        let mut delay = Delay::default();
        assert_eq!(delay.waiting(), None);
        delay.measured(at(0), 5_000);
        assert_eq!(waiting(&delay), 0);
        (0..4).for_each(|_| {
            delay.measured(at(1), 45_000);
        });
        assert_eq!(waiting(&delay), 40_000);
        // One of four that came through at once is believed, one that was late is not.
        delay.measured(at(1), 15_000);
        delay.measured(at(1), 900_000);
        assert_eq!(waiting(&delay), 10_000);
        for second in 6..400 {
            let change = delay.measured(at(second), 45_000);
            assert_eq!(change.minute_of.is_some(), second % 60 == 0, "{second}");
            // The path is believed to have become longer once its best minute is out of sight.
            if second >= 10 {
                assert_eq!(waiting(&delay), if second < 180 { 40_000 } else { 0 }, "{second}");
            }
        }
    }

    #[test]
    fn clocks_wrap() {
        let mut delay = Delay::default();
        delay.measured(at(0), u32::MAX - 100);
        (0..4).for_each(|_| {
            delay.measured(at(1), 899);
        });
        assert_eq!(waiting(&delay), 1000);
        let change = delay.measured(at(1), u32::MAX - 300);
        assert_eq!(change.lower_by, 200);
        let mut down = Delay::default();
        down.measured(at(0), 100);
        assert_eq!(down.measured(at(0), u32::MAX - 99).lower_by, 200);
        assert_eq!(waiting(&down), 0);
    }

    #[test]
    fn drift_is_made_up_for() {
        let (mut ours, mut theirs) = (Delay::default(), Delay::default());
        // One clock gains a millisecond each second, far more than any real one.
        for second in 0..600u32 {
            ours.measured(at(second.into()), 7_000 + second * 1_000);
            let change = theirs.measured(at(second.into()), 90_000u32.wrapping_sub(second * 1_000));
            ours.drifted(change.lower_by);
            assert!(waiting(&ours) <= 5_000, "{second}: {}", waiting(&ours));
        }
    }
}
