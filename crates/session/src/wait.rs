//! Waiting for something without being deaf to the wish to stop.
//!
//! Owns how the two are waited for at once, so that nobody looks now and then. What is waited for comes by a channel, or
//! wakes a [`Nudge`].

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use piecemeal_api::{Cancel, OnCancel};

/// Ends a wait, from any thread. As often as it was woken since the last wait, it counts once.
pub(crate) struct Nudge {
    rung: Receiver<()>,
    waker: Waker,
}

/// The wish to stop, for who waits.
pub(crate) struct Stop<'a> {
    cancel: &'a Cancel,
    nudge: Nudge,
    _guard: OnCancel,
}

/// Why nothing came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Missed {
    /// The caller wants no more.
    Cancelled,
    /// The time is up.
    Late,
    /// Nobody is left who could say anything.
    Gone,
}

struct Ring(Sender<()>);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        // One that lies there already does as well.
        let _ = self.0.try_send(());
    }
}

impl Nudge {
    /// Not woken yet.
    pub(crate) fn new() -> Nudge {
        let (ring, rung) = bounded(1);
        Nudge { rung, waker: Waker::from(Arc::new(Ring(ring))) }
    }

    /// Who wakes this ends a wait.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

impl Stop<'_> {
    /// Knows from now on when the caller wants no more.
    pub(crate) fn of(cancel: &Cancel) -> Stop<'_> {
        let nudge = Nudge::new();
        let guard = cancel.on_cancel(nudge.waker().clone());
        Stop { cancel, nudge, _guard: guard }
    }

    /// Whether the caller wants no more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The next message. Waits for it until then, or without end.
    pub(crate) fn hear<T>(&self, told: &Receiver<T>, until: Option<Instant>) -> Result<T, Missed> {
        if self.is_cancelled() {
            return Err(Missed::Cancelled);
        }
        // What is there is heard, even if it is late.
        if let Ok(message) = told.try_recv() {
            return Ok(message);
        }
        let late = until.map_or_else(never, at);
        select! {
            recv(told) -> message => message.map_err(|_| Missed::Gone),
            recv(self.nudge.rung) -> _ => Err(Missed::Cancelled),
            recv(late) -> _ => Err(Missed::Late),
        }
    }

    /// Until the nudge was woken, as [`Stop::hear`].
    pub(crate) fn nudged(&self, nudge: &Nudge, until: Option<Instant>) -> Result<(), Missed> {
        self.hear(&nudge.rung, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wait_ends_with_whatever_comes_first() {
        let cancel = Cancel::default();
        let stop = Stop::of(&cancel);
        let (tell, told) = bounded(1);
        let now = Instant::now();
        assert_eq!(stop.hear(&told, Some(now)), Err(Missed::Late));
        tell.send(1).unwrap();
        assert_eq!(stop.hear(&told, Some(now)), Ok(1), "late, but there");
        let teller = tell.clone();
        thread::scope(|scope| {
            scope.spawn(move || teller.send(2).unwrap());
            assert_eq!(stop.hear(&told, None), Ok(2));
        });
        drop(tell);
        assert_eq!(stop.hear(&told, Some(now + LONG)), Err(Missed::Gone));
        let nudge = Nudge::new();
        nudge.waker().wake_by_ref();
        nudge.waker().wake_by_ref();
        assert_eq!(stop.nudged(&nudge, None), Ok(()));
        assert_eq!(stop.nudged(&nudge, Some(now)), Err(Missed::Late));
        thread::scope(|scope| {
            scope.spawn(|| cancel.cancel());
            assert_eq!(stop.nudged(&nudge, None), Err(Missed::Cancelled));
        });
        nudge.waker().wake_by_ref();
        assert_eq!(stop.nudged(&nudge, None), Err(Missed::Cancelled), "first of all");
    }
}
