//! What can be set on a disk.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// How a disk is. Chained setters, so that a scenario says only what is special.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    /// What each Job takes at least.
    pub latency: Duration,
    /// What chance adds to that, at most.
    pub jitter: Duration,
    /// Bytes/s of one thread.
    pub rate: u64,
    /// Bytes that can still be written where nothing was.
    pub space: u64,
    /// Nothing gets done from here to there.
    pub stall: Option<(Time, Time)>,
    /// After so many writes, what is written rots in silence.
    pub corrupt_after: Option<u64>,
}

impl Default for Knobs {
    /// A solid disk of no great speed.
    fn default() -> Knobs {
        Knobs {
            latency: Duration::from_micros(200),
            jitter: Duration::from_millis(2),
            rate: 100 << 20,
            space: u64::MAX,
            stall: None,
            corrupt_after: None,
        }
    }
}

impl Knobs {
    /// What each Job takes at least.
    pub fn latency(mut self, latency: Duration) -> Knobs {
        self.latency = latency;
        self
    }

    /// What chance adds to the latency, at most.
    pub fn jitter(mut self, jitter: Duration) -> Knobs {
        self.jitter = jitter;
        self
    }

    /// Bytes/s of one thread.
    pub fn rate(mut self, rate: u64) -> Knobs {
        self.rate = rate;
        self
    }

    /// Bytes that can still be written where nothing was.
    pub fn space(mut self, bytes: u64) -> Knobs {
        self.space = bytes;
        self
    }

    /// Nothing gets done from `from` to `to`, in the world's time.
    pub fn stall(mut self, from: Time, to: Time) -> Knobs {
        self.stall = Some((from, to));
        self
    }

    /// After so many writes, what is written rots in silence.
    pub fn corrupt_after(mut self, writes: u64) -> Knobs {
        self.corrupt_after = Some(writes);
        self
    }
}
