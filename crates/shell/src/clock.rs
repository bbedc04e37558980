//! Time as the engine counts it, from the operating system's monotonic clock.
//!
//! Owns the birth of the Server. It jumps with no NTP step; while the machine sleeps it stands still.

use std::time::Instant;

use piecemeal_metainfo::Time;

/// Counts from its making.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    born: Instant,
}

impl Clock {
    /// A clock that shows [`Time::ZERO`] now.
    pub fn start() -> Clock {
        Clock { born: Instant::now() }
    }

    /// Time now.
    pub fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
