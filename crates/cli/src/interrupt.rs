//! Ctrl-C, as a value: who catches the signal raises it, who works looks at it, and who waits is woken.
//!
//! Owns the sleep of a command: whatever it waits for beside Ctrl-C, such as events of an engine or the end of a thread,
//! wakes it by [`Interrupt::waker`]. So nobody has to look now and then.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use piecemeal_api::Cancel;

/// How often the user asked to stop. Once: end well. Twice: end now.
#[derive(Default)]
pub struct Interrupt {
    bell: Arc<Bell>,
    cancel: Cancel,
}

#[derive(Default)]
struct Bell {
    inside: Mutex<Inside>,
    rings: Condvar,
}

#[derive(Default)]
struct Inside {
    /// Requests to stop.
    count: u32,
    /// Somebody rang since the last sleep.
    rung: bool,
}

impl Interrupt {
    /// One more request to stop; returns how many there were. Not for signal context: call it from the thread that
    /// receives signals.
    ///
    /// The commands leave by themselves after the first, and at once after the second; a caller may end the process
    /// after the third without asking.
    pub fn raise(&self) -> u32 {
        let mut inside = self.bell.inside();
        inside.count = inside.count.saturating_add(1);
        inside.rung = true;
        let count = inside.count;
        drop(inside);
        self.cancel.cancel();
        self.bell.rings.notify_all();
        count
    }

    /// Requests so far.
    pub fn count(&self) -> u32 {
        self.bell.inside().count
    }

    /// Waits until there were at least `enough` requests, at most `wait`; true if there were.
    pub fn wait(&self, enough: u32, wait: Duration) -> bool {
        let until = Instant::now().checked_add(wait);
        self.bell.wait(until, |inside| inside.count >= enough)
    }

    /// Sleeps until one more request to stop, until somebody wakes [`Interrupt::waker`], or until then. What happened
    /// since the last sleep counts: look at what is waited for after that, and nothing is missed.
    pub fn sleep(&self, until: Option<Instant>) {
        self.bell.wait(until, |inside| std::mem::take(&mut inside.rung));
    }

    /// Ends a sleep; any thread may wake it.
    pub fn waker(&self) -> Waker {
        Waker::from(self.bell.clone())
    }

    /// Raised with the first request.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

impl Bell {
    /// Until `enough` says so, or until then; what it said last.
    fn wait(&self, until: Option<Instant>, mut enough: impl FnMut(&mut Inside) -> bool) -> bool {
        let mut inside = self.inside();
        while !enough(&mut inside) {
            inside = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                Some(left) => self.rings.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.rings.wait(inside).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }

    /// A panic of another thread leaves numbers that are right.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.inside().rung = true;
        self.rings.notify_all();
    }
}

/// The end of a thread that has one thing to say, as something that wakes who waits for it: whether it said so or died.
pub struct Last<T> {
    to: Option<std::sync::mpsc::SyncSender<T>>,
    waker: Waker,
}

impl<T> Last<T> {
    /// To be said by `to`, whose receiver is woken by `waker`.
    pub fn new(to: std::sync::mpsc::SyncSender<T>, waker: Waker) -> Self {
        Last { to: Some(to), waker }
    }

    /// Says it. Nobody listens any more: the command is over.
    pub fn say(mut self, what: T) {
        if let Some(to) = self.to.take() {
            let _ = to.send(what);
        }
    }
}

impl<T> Drop for Last<T> {
    fn drop(&mut self) {
        self.to = None;
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{RecvTimeoutError, sync_channel};
    use std::thread;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_sleep_ends_with_whatever_comes_first_and_misses_nothing() {
        let stop = Arc::new(Interrupt::default());
        let now = Instant::now();
        // None of these would end within the patience of a test if it were missed.
        stop.waker().wake();
        stop.sleep(None);
        stop.raise();
        stop.sleep(Some(now + LONG));
        stop.sleep(Some(now));
        let (waker, raise) = (stop.waker(), stop.clone());
        let threads = [thread::spawn(move || waker.wake())];
        stop.sleep(None);
        let threads = threads.into_iter().chain([thread::spawn(move || assert_eq!(raise.raise(), 2))]);
        assert!(stop.wait(2, LONG), "the first was before");
        threads.for_each(|thread| thread.join().unwrap());
        assert!(stop.cancel().is_cancelled() && !stop.wait(3, Duration::ZERO));
    }

    #[test]
    fn who_died_wakes_too() {
        let stop = Interrupt::default();
        let (tell, told) = sync_channel::<u8>(1);
        let last = Last::new(tell, stop.waker());
        let died = thread::spawn(move || {
            let _last = last;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        stop.sleep(None);
        assert_eq!(told.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
        assert!(died.join().is_err());
        let (tell, told) = sync_channel(1);
        Last::new(tell, stop.waker()).say(7);
        stop.sleep(None);
        assert_eq!(told.try_recv(), Ok(7));
    }
}
