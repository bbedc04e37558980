//! How long a packet and its acknowledgement take, and after how long neither is expected any more.
//!
//! Owns the estimate (RFC 6298). What a timeout means is the connection's.

use std::time::Duration;

/// What is waited before anything was measured: the second of RFC 6298.
const FIRST: Duration = Duration::from_secs(1);

/// The least that is waited. Other clients hold acknowledgements back for some tens of milliseconds, and queues of the
/// target delay come and go.
const LEAST: Duration = Duration::from_millis(500);

/// The most that is waited, after however many timeouts: a peer that comes back within a minute is noticed soon.
const MOST: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    smooth: Option<Duration>,
    deviation: Duration,
    least: Option<Duration>,
}

impl Rtt {
    /// One measurement, of a packet that was sent once.
    pub fn measured(&mut self, took: Duration) {
        self.least = Some(self.least.map_or(took, |least| least.min(took)));
        match self.smooth {
            None => (self.smooth, self.deviation) = (Some(took), took / 2),
            Some(smooth) => {
                self.deviation = (self.deviation * 3 + smooth.abs_diff(took)) / 4;
                self.smooth = Some((smooth * 7 + took) / 8);
            }
        }
    }

    /// The smoothed time there and back; a second before it is known.
    pub fn smooth(&self) -> Duration {
        self.smooth.unwrap_or(FIRST)
    }

    pub fn is_known(&self) -> bool {
        self.smooth.is_some()
    }

    /// The shortest time there and back; zero before it is known.
    pub fn least(&self) -> Duration {
        self.least.unwrap_or_default()
    }

    /// What is waited for an acknowledgement after `timeouts` waits in vain: twice as long each time.
    pub fn timeout(&self, timeouts: u32) -> Duration {
        let wait = self.smooth.map_or(FIRST, |smooth| smooth + self.deviation * 4).clamp(LEAST, MOST);
        wait.saturating_mul(1 << timeouts.min(16)).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(0), FIRST);
        rtt.measured(Duration::from_millis(300));
        // 300 + 4 * 150.
        assert_eq!(rtt.timeout(0), Duration::from_millis(900));
        assert_eq!(rtt.timeout(1), Duration::from_millis(1800));
        assert_eq!(rtt.timeout(400), MOST);
        (0..100).for_each(|_| rtt.measured(Duration::from_millis(20)));
        assert_eq!(rtt.timeout(0), LEAST);
        assert_eq!(rtt.least(), Duration::from_millis(20));
    }
}
