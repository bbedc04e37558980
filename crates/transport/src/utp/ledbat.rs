//! How many bytes may be on their way: LEDBAT (RFC 6817, BEP 29), which fills a path and gives way to everyone else.
//!
//! Owns the congestion window. Three forces move it: packets that wait less than the target let it grow, packets that
//! wait longer shrink it, and a lost packet halves it, at most once for each time there and back. Two things are from
//! LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus): above the target it shrinks in proportion to itself, so that a window
//! that was large gives way as fast as a small one; and now and then the path is left to empty itself, so that its base
//! delay can be measured again. What was lost is `send`'s to find out, the waiting is `delay`'s to measure.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// Bytes a window grows by in each time there and back, while nothing waits. TCP grows by one packet, other uTP clients
/// by this.
const GAIN_BYTES: f64 = 3000.0;

/// Part of the window that is left after a loss (BEP 29, as of 2012).
const LOSS_FACTOR: f64 = 0.5;

/// Bytes of the first window: what TCP begins with (RFC 6928) is ten packets.
const FIRST_BYTES: f64 = 14_600.0;

/// Packets that always may be on their way: two, so that their acknowledgement is not held back.
const LEAST_PACKETS: f64 = 2.0;

/// Part of the target at which the quick start ends: what is on its way by then comes to the target and beyond.
const SLOW_START_UNTIL: f64 = 0.75;

/// Part of the target that packets waited at least, for a whole minute, after which the path is left to empty itself.
const STANDING: f64 = 0.25;

#[derive(Clone, Debug)]
pub(super) struct Ledbat {
    target: Duration,
    window: f64,
    most: f64,
    /// Below this the window doubles with each time there and back.
    slow_start_until: f64,
    /// Until then the window stays at its least.
    emptying_until: Time,
    /// Since when the window has been known to be what held packets back.
    full_at: Option<Time>,
    /// The window, and how far it grows quickly, before nothing came back in time.
    before: Option<(f64, f64)>,
}

/// What one acknowledgement says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub bytes: usize,
    /// How long packets wait, if it was measured.
    pub waiting: Option<Duration>,
    pub rtt: Duration,
    pub packet_bytes: usize,
}

impl Ledbat {
    pub fn new(target: Duration, most_bytes: usize) -> Ledbat {
        let most = most_bytes as f64;
        Ledbat {
            target,
            window: FIRST_BYTES.min(most),
            most,
            slow_start_until: f64::INFINITY,
            emptying_until: Time::ZERO,
            full_at: None,
            before: None,
        }
    }

    /// Bytes that may be on their way.
    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// The window held a packet back.
    pub fn full(&mut self, now: Time) {
        self.full_at = Some(now);
    }

    /// Bytes arrived. The window grows only if it was in the way, and never by more than arrived: so neither an idle
    /// connection nor one whose peer acknowledges early and often gathers a window it never filled.
    pub fn arrived(&mut self, now: Time, progress: Progress) {
        let Progress { bytes, waiting, rtt, packet_bytes } = progress;
        if now < self.emptying_until {
            return;
        }
        let least = LEAST_PACKETS * packet_bytes as f64;
        let waiting = waiting.unwrap_or_default().min(rtt).as_secs_f64() / self.target.as_secs_f64();
        // Acknowledgements tell of what was sent a time there and back ago, and can be a while late.
        let was_full = self.full_at.is_some_and(|at| now.since(at) <= rtt * 2 + Duration::from_millis(20));
        let bytes = bytes as f64;
        if self.window < self.slow_start_until {
            if waiting < SLOW_START_UNTIL {
                if was_full {
                    self.window = (self.window + bytes).min(self.most);
                }
                return;
            }
            self.slow_start_until = self.window;
        }
        let part = bytes / self.window.max(bytes);
        let change = if waiting <= 1.0 {
            if was_full { GAIN_BYTES * (1.0 - waiting) * part } else { 0.0 }
        } else {
            -self.window * (waiting - 1.0).min(0.5) * part
        };
        self.window = (self.window + change.min(bytes)).clamp(least, self.most.max(least));
    }

    /// A packet was lost that was sent after the last one that told so.
    pub fn lost(&mut self, now: Time, packet_bytes: usize) {
        self.before = None;
        if now < self.emptying_until {
            self.slow_start_until *= LOSS_FACTOR;
            return;
        }
        self.window = (self.window * LOSS_FACTOR).max(LEAST_PACKETS * packet_bytes as f64);
        self.slow_start_until = self.window;
    }

    /// Nothing came back for a long time. All begins anew, up to half of what it was quickly.
    pub fn timed_out(&mut self, packet_bytes: usize) {
        self.before.get_or_insert((self.window, self.slow_start_until));
        let least = LEAST_PACKETS * packet_bytes as f64;
        self.slow_start_until = (self.window * LOSS_FACTOR).max(least);
        self.window = least;
    }

    /// What was late arrived: nothing was lost, and all is as before.
    pub fn late(&mut self) {
        if let Some((window, slow_start_until)) = self.before.take() {
            self.window = self.window.max(window);
            self.slow_start_until = slow_start_until;
        }
    }

    /// Nothing was on its way for longer than a timeout: what the path held then says little of now. What is left of it
    /// is how far the start goes quickly.
    pub fn idled(&mut self) {
        if self.window > FIRST_BYTES {
            (self.slow_start_until, self.window) = (self.window, FIRST_BYTES);
        }
    }

    /// A minute ended in which packets always waited `us` microseconds or longer. If that is long, the queue is ours and
    /// would soon be taken for the path itself: it is left to run empty.
    pub fn minute(&mut self, now: Time, us: u32, rtt: Duration, packet_bytes: usize) {
        let standing = Duration::from_micros(us.into()).as_secs_f64() > STANDING * self.target.as_secs_f64();
        if standing && us != u32::MAX && self.window > LEAST_PACKETS * packet_bytes as f64 {
            self.slow_start_until = self.window;
            self.window = LEAST_PACKETS * packet_bytes as f64;
            self.emptying_until = now + rtt * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);
    const PACKET: usize = 1400;

    fn ledbat(window: f64) -> Ledbat {
        let mut ledbat = Ledbat::new(Duration::from_millis(100), 4 << 20);
        (ledbat.window, ledbat.slow_start_until) = (window, 0.0);
        ledbat.full(Time::ZERO);
        ledbat
    }

    /// A whole window arrives, in packets that waited `ms`.
    fn round(ledbat: &mut Ledbat, ms: u64) -> f64 {
        let before = ledbat.window();
        // A queue cannot be longer than the time there and back.
        let (waiting, rtt) = (Duration::from_millis(ms), RTT.max(Duration::from_millis(ms)));
        let mut left = before;
        while left > 0 {
            let bytes = left.min(PACKET);
            left -= bytes;
            ledbat.arrived(Time::ZERO, Progress { bytes, waiting: Some(waiting), rtt, packet_bytes: PACKET });
        }
        ledbat.window - before as f64
    }

    #[test]
    fn the_window_moves_towards_the_target() {
        // Waiting in ms, and by how much a window of 100,000 bytes changes in a round, within a tenth.
        let table = [
            (0, 3000.0),
            (50, 1500.0),
            (90, 300.0),
            (100, 0.0),
            (125, -25_000.0),
            (150, -50_000.0),
            (900, -50_000.0),
        ];
        for (ms, expected) in table {
            let change = round(&mut ledbat(100_000.0), ms);
            assert!((change - expected).abs() <= f64::abs(expected) / 10.0, "{ms}: {change}");
        }
    }

    #[test]
    fn what_was_late_only_makes_no_window_smaller() {
        let mut ledbat = ledbat(100_000.0);
        for _ in 0..3 {
            ledbat.timed_out(PACKET);
        }
        assert_eq!(ledbat.window(), 2 * PACKET);
        ledbat.late();
        assert_eq!((ledbat.window(), ledbat.slow_start_until), (100_000, 0.0));
        // Said again, or after a loss, it changes nothing.
        ledbat.timed_out(PACKET);
        ledbat.lost(Time::ZERO, PACKET);
        ledbat.late();
        assert_eq!(ledbat.window(), 2 * PACKET);
    }

    #[test]
    fn a_start_doubles_until_packets_wait() {
        let mut ledbat = Ledbat::new(Duration::from_millis(100), 1 << 20);
        ledbat.full(Time::ZERO);
        let first = ledbat.window();
        round(&mut ledbat, 0);
        assert_eq!(ledbat.window(), 2 * first);
        round(&mut ledbat, 80);
        assert!(ledbat.window() < 2 * first + 3000);
        // And no more from then on.
        round(&mut ledbat, 0);
        assert!(ledbat.window() < 2 * first + 7000);
        let mut capped = Ledbat::new(Duration::from_millis(100), 1 << 20);
        capped.full(Time::ZERO);
        (0..20).for_each(|_| {
            round(&mut capped, 0);
        });
        assert_eq!(capped.window(), 1 << 20);
    }

    #[test]
    fn a_window_that_was_not_filled_does_not_grow() {
        let mut idle = ledbat(20_000.0);
        idle.full_at = None;
        assert_eq!(round(&mut idle, 0), 0.0);
        idle.slow_start_until = f64::INFINITY;
        assert_eq!(round(&mut idle, 0), 0.0);
    }

    #[test]
    fn losses_halve_and_timeouts_begin_anew() {
        let mut ledbat = ledbat(100_000.0);
        ledbat.lost(Time::ZERO, PACKET);
        assert_eq!(ledbat.window(), 50_000);
        ledbat.timed_out(PACKET);
        assert_eq!(ledbat.window(), 2 * PACKET);
        round(&mut ledbat, 0);
        assert_eq!(ledbat.window(), 4 * PACKET);
        (0..10).for_each(|_| {
            round(&mut ledbat, 0);
        });
        assert!(ledbat.window() < 60_000);
        (0..100).for_each(|_| ledbat.lost(Time::ZERO, PACKET));
        assert_eq!(ledbat.window(), 2 * PACKET);
    }

    #[test]
    fn after_a_pause_it_begins_anew() {
        let mut ledbat = ledbat(100_000.0);
        ledbat.idled();
        assert_eq!((ledbat.window(), ledbat.slow_start_until), (14_600, 100_000.0));
        ledbat.idled();
        assert_eq!(ledbat.slow_start_until, 100_000.0);
    }

    #[test]
    fn a_standing_queue_is_left_to_run_empty() {
        let mut ledbat = ledbat(100_000.0);
        ledbat.minute(Time::ZERO, 10_000, RTT, PACKET);
        assert_eq!(ledbat.window(), 100_000, "a short queue is no harm");
        ledbat.minute(Time::ZERO, 60_000, RTT, PACKET);
        assert_eq!(ledbat.window(), 2 * PACKET);
        round(&mut ledbat, 0);
        assert_eq!(ledbat.window(), 2 * PACKET, "until it had the time");
        ledbat.emptying_until = Time::ZERO;
        (0..6).for_each(|_| {
            round(&mut ledbat, 0);
        });
        assert!(ledbat.window() >= 100_000, "then it is soon as before: {}", ledbat.window());
    }
}
