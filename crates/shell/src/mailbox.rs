//! Mailboxes into the loop, and the bell that wakes it.
//!
//! Owns the rule that makes wake-ups rare: a bell is rung only while its hearer sleeps. While the loop works, putting
//! something into a mailbox costs a lock and no system call; the loop looks into all mailboxes before it sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Wakes one sleeper, and only if it sleeps.
pub struct Doorbell {
    asleep: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// A bell whose sound is `ring`.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Arc<Doorbell> {
        Arc::new(Doorbell { asleep: AtomicBool::new(false), ring: Box::new(ring) })
    }

    /// Says that the hearer is about to sleep. It must look into every mailbox after this, by
    /// [`Mailbox::is_empty`], and not sleep if one has something.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Says that the hearer is awake.
    pub fn wake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Wakes the hearer if it sleeps. To be called after the message lies in its mailbox: the mailbox's lock orders
    /// the two, so either the hearer sees the message or we see that it dozes.
    pub fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            (self.ring)();
        }
    }
}

/// Messages for one hearer, taken all at once.
///
/// Bounded by what its senders may have outstanding: Dones by Jobs and so by Bufs, answers by fetches, and commands
/// by what a user asks in one turn of the loop.
pub struct Mailbox<T> {
    messages: Mutex<Messages<T>>,
    /// A hint, to spare the lock while nothing came.
    some: AtomicBool,
    bell: Arc<Doorbell>,
}

struct Messages<T> {
    waiting: Vec<T>,
    /// What becomes of a message that nobody will read.
    discard: fn(T),
    closed: bool,
}

impl<T> Mailbox<T> {
    /// An empty one; `bell` rings for its hearer.
    pub fn new(bell: Arc<Doorbell>) -> Arc<Mailbox<T>> {
        Mailbox::with_discard(bell, drop)
    }

    /// An empty one of which messages that nobody reads end in `discard`.
    pub fn with_discard(bell: Arc<Doorbell>, discard: fn(T)) -> Arc<Mailbox<T>> {
        let messages = Mutex::new(Messages { waiting: Vec::new(), discard, closed: false });
        Arc::new(Mailbox { messages, some: AtomicBool::new(false), bell })
    }

    /// Puts one message in.
    pub fn push(&self, message: T) {
        let mut messages = self.lock();
        messages.waiting.push(message);
        self.posted(messages);
    }

    /// Puts all messages in and leaves `batch` empty, its memory kept where that is free.
    pub fn push_all(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let mut messages = self.lock();
        if messages.waiting.is_empty() {
            std::mem::swap(&mut messages.waiting, batch);
        } else {
            messages.waiting.append(batch);
        }
        self.posted(messages);
    }

    /// Takes all messages out, in order, behind what `into` has already.
    pub fn drain(&self, into: &mut Vec<T>) {
        if !self.some.load(Ordering::Acquire) {
            return;
        }
        let mut messages = self.lock();
        if into.is_empty() {
            std::mem::swap(&mut messages.waiting, into);
        } else {
            into.append(&mut messages.waiting);
        }
        self.some.store(false, Ordering::Release);
    }

    /// True while nothing lies in it; exact, unlike the hint.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Its hearer is gone: what lies in it, and what still comes, is discarded.
    pub fn close(&self) {
        let mut messages = self.lock();
        messages.closed = true;
        messages.discard_all();
    }

    fn posted(&self, mut messages: MutexGuard<'_, Messages<T>>) {
        if messages.closed {
            return messages.discard_all();
        }
        self.some.store(true, Ordering::Release);
        drop(messages);
        self.bell.ring();
    }

    fn lock(&self) -> MutexGuard<'_, Messages<T>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Messages<T> {
    fn discard_all(&mut self) {
        self.waiting.drain(..).for_each(self.discard);
    }
}

impl<T> Drop for Messages<T> {
    fn drop(&mut self) {
        self.discard_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_bell_rings_once_a_sleep() {
        let rung = Arc::new(AtomicUsize::new(0));
        let count = rung.clone();
        let bell = Doorbell::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mailbox = Mailbox::new(bell.clone());
        mailbox.push(1);
        assert_eq!(rung.load(Ordering::SeqCst), 0, "nobody sleeps");
        bell.doze();
        assert!(!mailbox.is_empty());
        mailbox.push_all(&mut vec![2, 3]);
        mailbox.push(4);
        assert_eq!(rung.load(Ordering::SeqCst), 1);
        let mut all = Vec::new();
        mailbox.drain(&mut all);
        assert_eq!(all, [1, 2, 3, 4]);
        assert!(mailbox.is_empty());
    }
}
