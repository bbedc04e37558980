//! Time as the pure crates know it: an argument, never a call.
//!
//! It stands in the lowest crate because `discovery` and `engine` both speak of it and neither may import the
//! other's upper half; see docs/adr/0001.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since the Server was born; read once per turn of a loop. Never wall time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// The birth of the Server.
    pub const ZERO: Time = Time(0);
    /// Later than anything: the deadline of what is not planned.
    pub const NEVER: Time = Time(u64::MAX);

    /// The instant `nanos` nanoseconds after birth.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since birth.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first multiple of `step` at or after this instant, so that nearby deadlines share one wake-up.
    pub fn rounded_up(self, step: Duration) -> Time {
        let step = step.as_nanos() as u64;
        if self == Time::NEVER || step == 0 { self } else { Time(self.0.div_ceil(step).saturating_mul(step)) }
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}
