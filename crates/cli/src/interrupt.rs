//! Ctrl-C, as a value: who catches the signal raises it, who works looks at it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use piecemeal_api::Cancel;

/// How often the user asked to stop. Once: end well. Twice: end now.
#[derive(Default)]
pub struct Interrupt {
    count: Mutex<u32>,
    raised: Condvar,
    cancel: Cancel,
}

impl Interrupt {
    /// One more request to stop; returns how many there were. Not for signal context: call it from the thread that
    /// receives signals.
    ///
    /// The commands leave by themselves after the first, and at once after the second; a caller may end the process
    /// after the third without asking.
    pub fn raise(&self) -> u32 {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add(1);
        self.cancel.cancel();
        self.raised.notify_all();
        *count
    }

    /// Requests so far.
    pub fn count(&self) -> u32 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there were at least `enough` requests, at most `wait`; true if there were.
    pub fn wait(&self, enough: u32, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count < enough {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            count = self.raised.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Raised with the first request.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}
