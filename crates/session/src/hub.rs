//! Events on their way to listeners, blocking and asynchronous ones alike.
//!
//! Owns one bounded queue for each listener and what it lost. Which events there are, and in what order, is `table`'s.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use piecemeal_api::{Event, Events, Heard};

/// Events one listener may leave lying: some seconds of pieces at 10 Gbit/s, and at most two megabytes.
const QUEUE_EVENTS: usize = 4096;

/// All listeners of a session.
#[derive(Default)]
pub(crate) struct Hub {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// As many as the embedder asks for; those dropped are swept at the next event.
    listeners: Vec<Weak<Queue>>,
    /// The interface is away: an engine tells so as it starts, before anybody can listen.
    away: Option<Event>,
    closed: bool,
}

impl Hub {
    /// A new listener; it hears what is sent from now on, and before all that the interface is away, if it is.
    pub(crate) fn listen(&self) -> EventStream {
        let mut inside = lock(&self.inside);
        let queue = Arc::new(Queue::default());
        {
            let mut waiting = lock(&queue.inside);
            waiting.closed = inside.closed;
            waiting.events.extend(inside.away.clone());
        }
        inside.listeners.push(Arc::downgrade(&queue));
        EventStream { queue }
    }

    /// Tells all listeners.
    pub(crate) fn send(&self, events: impl IntoIterator<Item = Event>) {
        let mut inside = lock(&self.inside);
        inside.listeners.retain(|listener| listener.strong_count() > 0);
        for event in events {
            if let Event::Interface { there, .. } = &event {
                inside.away = (!there).then(|| event.clone());
            }
            for listener in inside.listeners.iter().filter_map(Weak::upgrade) {
                listener.push(event.clone());
            }
        }
    }

    /// Nothing more will come: listeners get what is left, then [`Heard::Closed`].
    pub(crate) fn close(&self) {
        let mut inside = lock(&self.inside);
        inside.closed = true;
        inside.listeners.drain(..).filter_map(|listener| listener.upgrade()).for_each(|queue| queue.close());
    }
}

/// The events of a session, from the moment it was asked for.
///
/// Take them blocking, with [`Events::next`], or as a [`Stream`], which ends when the session has shut down. The
/// queue holds 4096 events; whoever does not take them in time loses the oldest and hears [`Event::Lost`].
pub struct EventStream {
    queue: Arc<Queue>,
}

impl Events for EventStream {
    fn next(&mut self, wait: Duration) -> Heard {
        self.queue.next(wait)
    }

    fn poll(&mut self, waker: &Waker) -> Heard {
        let mut waiting = lock(&self.queue.inside);
        let heard = waiting.take();
        waiting.waker = (heard == Heard::Nothing).then(|| waker.clone());
        heard
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.get_mut().poll(context.waker()) {
            Heard::Event(event) => Poll::Ready(Some(event)),
            Heard::Closed => Poll::Ready(None),
            Heard::Nothing => Poll::Pending,
        }
    }
}

#[derive(Default)]
struct Queue {
    inside: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// At most [`QUEUE_EVENTS`].
    events: VecDeque<Event>,
    lost: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn push(&self, event: Event) {
        let mut waiting = lock(&self.inside);
        if waiting.events.len() == QUEUE_EVENTS {
            waiting.events.pop_front();
            waiting.lost += 1;
        }
        waiting.events.push_back(event);
        self.wake(waiting);
    }

    fn close(&self) {
        let mut waiting = lock(&self.inside);
        waiting.closed = true;
        self.wake(waiting);
    }

    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let waker = waiting.waker.take();
        drop(waiting);
        self.came.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn next(&self, wait: Duration) -> Heard {
        let until = Instant::now().checked_add(wait);
        let mut waiting = lock(&self.inside);
        loop {
            match waiting.take() {
                Heard::Nothing => {}
                heard => return heard,
            }
            waiting = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Heard::Nothing,
                Some(left) => self.came.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Heard {
        if self.lost > 0 {
            return Heard::Event(Event::Lost { events: std::mem::take(&mut self.lost) });
        }
        match self.events.pop_front() {
            Some(event) => Heard::Event(event),
            None if self.closed => Heard::Closed,
            None => Heard::Nothing,
        }
    }
}

/// A panic of another thread left at worst one event half counted: good enough to go on.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_api::{PieceIndex, TorrentId};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    fn piece(piece: u32) -> Event {
        Event::PieceVerified { torrent: TorrentId(0), piece: PieceIndex(piece) }
    }

    #[test]
    fn who_is_slow_loses_the_oldest_and_is_told_in_their_place() {
        let hub = Hub::default();
        let mut slow = hub.listen();
        hub.send((0..QUEUE_EVENTS as u32 + 3).map(piece));
        let now = Duration::ZERO;
        assert_eq!(slow.next(now), Heard::Event(Event::Lost { events: 3 }));
        for at in 0..QUEUE_EVENTS as u32 {
            assert_eq!(slow.next(now), Heard::Event(piece(at + 3)));
        }
        assert_eq!(slow.next(now), Heard::Nothing);
        hub.send([piece(9)]);
        hub.close();
        assert_eq!(slow.next(now), Heard::Event(piece(9)));
        assert_eq!(slow.next(now), Heard::Closed);
        assert_eq!(hub.listen().next(Duration::MAX), Heard::Closed);
    }

    #[test]
    fn each_listener_hears_from_its_own_beginning() {
        let hub = Hub::default();
        let mut first = hub.listen();
        hub.send([piece(1)]);
        let mut second = hub.listen();
        drop(hub.listen());
        hub.send([piece(2)]);
        let hear = |stream: &mut EventStream| stream.next(Duration::ZERO);
        assert_eq!((hear(&mut first), hear(&mut first)), (Heard::Event(piece(1)), Heard::Event(piece(2))));
        assert_eq!((hear(&mut second), hear(&mut second)), (Heard::Event(piece(2)), Heard::Nothing));
    }

    #[test]
    fn who_comes_late_hears_that_the_interface_is_away() {
        let (hub, now) = (Hub::default(), Duration::ZERO);
        let interface = |there| Event::Interface { name: "tun0".into(), there };
        hub.send([interface(false), piece(1)]);
        let mut late = hub.listen();
        assert_eq!((late.next(now), late.next(now)), (Heard::Event(interface(false)), Heard::Nothing));
        hub.send([interface(true)]);
        assert_eq!((late.next(now), late.next(now)), (Heard::Event(interface(true)), Heard::Nothing));
        assert_eq!(hub.listen().next(now), Heard::Nothing, "all is well");
    }

    #[test]
    fn a_stream_is_woken_once_and_ends() {
        #[derive(Default)]
        struct Count(AtomicU32);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (hub, count) = (Hub::default(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut stream = hub.listen();
        let mut poll = || Pin::new(&mut stream).poll_next(&mut context);
        assert_eq!(poll(), Poll::Pending);
        hub.send([piece(1), piece(2)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            (poll(), poll(), poll()),
            (Poll::Ready(Some(piece(1))), Poll::Ready(Some(piece(2))), Poll::Pending)
        );
        // The same without a future.
        hub.send([piece(3), piece(4)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        let mut poll = || Events::poll(&mut stream, &waker);
        assert_eq!((poll(), poll()), (Heard::Event(piece(3)), Heard::Event(piece(4))));
        hub.send([piece(5)]);
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "who was given something looks again by itself");
        assert_eq!((poll(), poll()), (Heard::Event(piece(5)), Heard::Nothing));
        hub.close();
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert_eq!(poll(), Heard::Closed);
    }
}
