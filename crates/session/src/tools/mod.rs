//! Work on torrents that needs no session: making, verifying, fetching, asking trackers.
//!
//! Each function blocks its caller and uses as many threads as there are cores. Whoever wants [`crate::api::Tools`]
//! makes it of these and of a tracker, which lives elsewhere.

mod announce;
mod create;
mod dht;
mod doctor;
mod fetch;
mod verify;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use piecemeal_api::{Phase, Progress, Refusal, Work};
use piecemeal_metainfo::Metainfo;
use piecemeal_shell::offline::OfflineError;
use rustix::time::{ClockId, clock_gettime};

use crate::words;

pub use announce::announce_all;
pub use create::create;
pub use dht::{dht, new_dht_key};
pub use doctor::examine;
pub use fetch::fetch_torrent;
pub use verify::verify;

/// A few times a second, as `Work` promises.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// CPU time this process has used so far, user and system together.
pub fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(used.tv_sec), u32::try_from(used.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

fn parse(bytes: &[u8]) -> Result<Metainfo, Refusal> {
    Metainfo::parse(bytes)
        .map_err(|why| Refusal::BadTorrent { what: "torrent".into(), reason: why.to_string() })
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Stands between the many calls of workers and the few that a caller wants, and carries his wish to stop.
struct Meter<'a> {
    work: &'a Work<'a>,
    total: u64,
    began: Instant,
    /// When progress may be told again, in nanoseconds since `began`.
    next: AtomicU64,
    cancel: AtomicBool,
}

impl<'a> Meter<'a> {
    fn new(work: &'a Work<'a>, total: u64) -> Meter<'a> {
        let cancel = AtomicBool::new(work.cancel.is_cancelled());
        Meter { work, total, began: Instant::now(), next: AtomicU64::new(0), cancel }
    }

    fn hashed(&self, done: u64) {
        if self.work.cancel.is_cancelled() {
            self.cancel.store(true, Ordering::Release);
        }
        let now = self.began.elapsed().as_nanos() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let after = now + PROGRESS_EVERY.as_nanos() as u64;
        // Of many workers that find it time, one tells.
        let mine = || self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if done >= self.total || (now >= next && mine()) {
            (self.work.progress)(Progress { phase: Phase::Hashing, done, total: self.total });
        }
    }
}

fn refusal(why: OfflineError) -> Refusal {
    match why {
        OfflineError::Cancelled => Refusal::Cancelled,
        OfflineError::File { path, why } => {
            Refusal::file(path, words::reason(&why), "make it readable, or leave it out")
        }
        OfflineError::Changed { path } => Refusal::file(
            path,
            "changed while it was read",
            "wait until nobody writes to it, and start again",
        ),
        OfflineError::Unfit { path, what } => Refusal::file(path, what, "rename it, or leave it out"),
        OfflineError::NoLayer { path } => Refusal::BadTorrent {
            what: "torrent".into(),
            reason: format!("it lacks the hashes of the pieces of {path}"),
        },
        OfflineError::Create(why) => create::refusal(&why),
    }
}
