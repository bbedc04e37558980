//! News on its way to whoever listens.
//!
//! Owns what a slow listener may lose. Snapshots and Facts coalesce by torrent, the latest wins; Complete, Metadata and
//! Gone are never lost; of all other News the oldest is dropped beyond [`RING_NEWS`], and counted.
//!
//! A verified Piece by itself does not wake the listener: see [`NewsBox::post`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use piecemeal_engine::cx::{News, Snapshot};
use piecemeal_metainfo::TorrentId;
use piecemeal_package::ResumeFacts;

/// News that may be lost, kept for a listener who is slow: a few seconds of Pieces at 10 Gbit/s.
const RING_NEWS: usize = 10_000;

/// See the module.
#[derive(Default)]
pub(crate) struct NewsBox {
    inside: Mutex<Inside>,
    came: Condvar,
}

#[derive(Default)]
struct Inside {
    /// What may be lost, with its number; at most [`RING_NEWS`].
    ring: VecDeque<(u64, News)>,
    /// What may not: one Snapshot and one Facts a torrent, and each Complete, Metadata and Gone.
    sure: VecDeque<(u64, Sure)>,
    snapshots: BTreeMap<TorrentId, Box<Snapshot>>,
    facts: BTreeMap<TorrentId, Box<ResumeFacts>>,
    next_number: u64,
    lost: u64,
    /// No more will come.
    closed: bool,
    /// Whoever listens is to be let go once, news or not.
    let_go: bool,
}

enum Sure {
    /// Its latest value lies in `snapshots`.
    Snapshot(TorrentId),
    /// Its latest value lies in `facts`.
    Facts(TorrentId),
    Complete(TorrentId),
    /// News::Metadata, one a torrent.
    Metadata(Box<News>),
    Gone(TorrentId),
}

impl NewsBox {
    /// Posts a turn's News and leaves `news` empty. True if it was such that the listener was woken; a Piece can
    /// wait for company, since thousands may come a second, and the caller says [`NewsBox::nudge`] a little later.
    pub(crate) fn post(&self, news: &mut Vec<News>) -> bool {
        let mut inside = self.lock();
        let mut urgent = false;
        for one in news.drain(..) {
            urgent |= !matches!(one, News::Piece(..));
            inside.put(one);
        }
        drop(inside);
        if urgent {
            self.came.notify_all();
        }
        urgent
    }

    /// Wakes the listener.
    pub(crate) fn nudge(&self) {
        self.came.notify_all();
    }

    /// No more News will come: listeners get what is left, then `None` at once.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }

    /// The next News; waits for it at most `timeout`, or for ever.
    pub(crate) fn recv(&self, timeout: Option<Duration>) -> Option<News> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut inside = self.lock();
        loop {
            if let Some(news) = inside.take() {
                return Some(news);
            }
            if inside.closed || std::mem::take(&mut inside.let_go) {
                return None;
            }
            inside = match until {
                None => self.came.wait(inside).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.came.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets the listener go: one wait, this one or the next, ends without News.
    pub(crate) fn let_go(&self) {
        self.lock().let_go = true;
        self.came.notify_all();
    }

    /// How many News were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn put(&mut self, news: News) {
        let sure = match news {
            News::Snapshot(snapshot) => {
                let torrent = snapshot.torrent;
                match self.snapshots.insert(torrent, snapshot) {
                    Some(_) => return,
                    None => Sure::Snapshot(torrent),
                }
            }
            News::Facts(torrent, facts) => match self.facts.insert(torrent, facts) {
                Some(_) => return,
                None => Sure::Facts(torrent),
            },
            News::Complete(torrent) => Sure::Complete(torrent),
            News::Metadata { .. } => Sure::Metadata(Box::new(news)),
            News::Gone(torrent) => Sure::Gone(torrent),
            other => {
                if self.ring.len() == RING_NEWS {
                    self.ring.pop_front();
                    self.lost += 1;
                }
                let number = self.number();
                return self.ring.push_back((number, other));
            }
        };
        let number = self.number();
        self.sure.push_back((number, sure));
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn take(&mut self) -> Option<News> {
        let from_ring = match (self.ring.front(), self.sure.front()) {
            (Some((ring, _)), Some((sure, _))) => ring < sure,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if from_ring {
            return self.ring.pop_front().map(|(_, news)| news);
        }
        self.sure.pop_front().map(|(_, sure)| match sure {
            Sure::Snapshot(torrent) => {
                News::Snapshot(self.snapshots.remove(&torrent).expect("a queued Snapshot has a value"))
            }
            Sure::Facts(torrent) => {
                News::Facts(torrent, self.facts.remove(&torrent).expect("queued Facts have a value"))
            }
            Sure::Complete(torrent) => News::Complete(torrent),
            Sure::Metadata(news) => *news,
            Sure::Gone(torrent) => News::Gone(torrent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_engine::cx::State;
    use piecemeal_metainfo::{PieceIndex, Time};

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn snapshot(torrent: u32, have_pieces: u32) -> News {
        News::Snapshot(Box::new(Snapshot {
            torrent: TorrentId(torrent),
            state: State::Downloading,
            paused: false,
            wanted_bytes: 0,
            have_bytes: 0,
            pieces: 0,
            have_pieces,
            have: None,
            downloaded: 0,
            uploaded: 0,
            wasted: 0,
            from_leeches: 0,
            down_rate: 0,
            up_rate: 0,
            peers: Vec::new(),
            known: 0,
            trackers: Vec::new(),
            at: Time::ZERO,
        }))
    }

    #[test]
    fn snapshots_coalesce_and_order_is_kept() {
        let news = NewsBox::default();
        let piece = News::Piece(TorrentId(1), PieceIndex(0));
        let urgent = news.post(&mut vec![piece]);
        assert!(!urgent);
        let complete = News::Complete(TorrentId(1));
        assert!(news.post(&mut vec![snapshot(1, 1), snapshot(2, 5), complete, snapshot(1, 9)]));
        assert!(matches!(news.recv(NOW), Some(News::Piece(..))));
        assert!(matches!(news.recv(NOW), Some(News::Snapshot(s)) if s.torrent.0 == 1 && s.have_pieces == 9));
        assert!(matches!(news.recv(NOW), Some(News::Snapshot(s)) if s.torrent.0 == 2));
        assert!(matches!(news.recv(NOW), Some(News::Complete(_))));
        assert!(news.recv(NOW).is_none());
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_but_never_the_sure() {
        let news = NewsBox::default();
        let (info, known) = ([].into(), Vec::new());
        news.post(&mut vec![News::Metadata { torrent: TorrentId(7), info, known }]);
        news.post(&mut vec![News::Gone(TorrentId(7))]);
        let over = 5;
        let pieces = (0..RING_NEWS as u32 + over).map(|at| News::Piece(TorrentId(1), PieceIndex(at)));
        news.post(&mut pieces.collect());
        news.close();
        assert_eq!(news.lost(), u64::from(over));
        assert!(matches!(news.recv(None), Some(News::Metadata { .. })));
        assert!(matches!(news.recv(None), Some(News::Gone(_))));
        assert!(matches!(news.recv(None), Some(News::Piece(_, PieceIndex(first))) if first == over));
        let mut left = 0;
        while news.recv(None).is_some() {
            left += 1;
        }
        assert_eq!(left, RING_NEWS - 1);
    }
}
