//! A wish to stop, on its way from who has it to who works or waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A wish to stop, shared by clones. Once raised it stays. Who works looks at it now and then; who waits is woken.
#[derive(Clone, Default, Debug)]
pub struct Cancel(Arc<Wish>);

#[derive(Default, Debug)]
struct Wish {
    raised: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Bound: one for each guard that lives.
#[derive(Default, Debug)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl Cancel {
    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        // Woken without the lock: who is woken may be who drops the guard.
        let wakers = std::mem::take(&mut self.0.waiting().wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Whether it was asked to.
    pub fn is_cancelled(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Wakes `waker` when the work is asked to stop, at once if it was already, for as long as the guard lives.
    #[must_use = "nobody is woken once this is dropped"]
    pub fn on_cancel(&self, waker: Waker) -> OnCancel {
        let mut waiting = self.0.waiting();
        let id = waiting.next;
        waiting.next += 1;
        waiting.wakers.insert(id, waker.clone());
        drop(waiting);
        // Who raised it before could not see the waker; who does so from now on sees it.
        if self.is_cancelled() {
            waker.wake();
        }
        OnCancel { wish: self.0.clone(), id }
    }
}

impl Wish {
    /// A panic of another thread leaves the list whole.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody is woken when the wish to stop is raised, until this is dropped.
#[derive(Debug)]
pub struct OnCancel {
    wish: Arc<Wish>,
    id: u64,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        self.wish.waiting().wakers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_is_woken_once_and_who_has_left_is_not() {
        let (cancel, stays, left, late) =
            (Cancel::default(), Arc::<Count>::default(), Arc::<Count>::default(), Arc::<Count>::default());
        let guard = cancel.on_cancel(Waker::from(stays.clone()));
        drop(cancel.on_cancel(Waker::from(left.clone())));
        let clone = cancel.clone();
        clone.cancel();
        clone.cancel();
        assert!(cancel.is_cancelled());
        drop(guard);
        // Raised already: at once.
        let guard = cancel.on_cancel(Waker::from(late.clone()));
        let count = |of: &Arc<Count>| of.0.load(Ordering::SeqCst);
        assert_eq!((count(&stays), count(&left), count(&late)), (1, 0, 1));
        drop(guard);
        assert_eq!(cancel.0.waiting().wakers.len(), 0);
    }
}
