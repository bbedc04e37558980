//! The torrents the disk knows, and the lanes their Jobs go to.
//!
//! Owns: which torrent is on which device, and the threads. A lane is made for each device when its first torrent is
//! registered, as long as threads are left; later devices share the last lane.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use piecemeal_metainfo::TorrentId;
use piecemeal_package::{Done, Job, Trouble, TroubleKind};

use super::files::{Storage, Torrent};
use super::lane::Lane;
use super::worker::{Replies, Worker};

/// Threads over all devices.
const MAX_THREADS: usize = 32;

/// Lanes of threads that run Jobs.
pub struct DiskPool {
    torrents: Torrents,
    threads_a_lane: usize,
    replies: Replies,
    lanes: Mutex<Lanes>,
    /// Every thread holds a sender, and nobody sends: when all are gone, it is over.
    ends: Receiver<()>,
}

#[derive(Default)]
struct Lanes {
    lanes: Vec<(Device, Arc<Lane>)>,
    /// What each thread holds to be missed; `None` after the stop.
    alive: Option<Sender<()>>,
}

/// A device's number, as the system gives it.
type Device = u64;

/// Torrents by number, for the pool and for sending from files.
#[derive(Clone, Default)]
pub(crate) struct Torrents(Arc<Register>);

/// Who registers waits for the answer, so this is no mail; and it is written only when a torrent comes or goes.
#[derive(Default)]
struct Register {
    by_id: Mutex<HashMap<TorrentId, Registered>>,
}

#[derive(Clone)]
struct Registered {
    torrent: Arc<Torrent>,
    lane: Arc<Lane>,
}

/// One who submits Jobs, turn after turn; keeps what it needs between them.
pub(crate) struct Submitter {
    torrents: Torrents,
    replies: Replies,
    staged: Vec<(Arc<Torrent>, Job)>,
}

impl DiskPool {
    /// A pool of `threads` threads a device. Every Job is answered by one Done in `replies`.
    pub fn start(threads: usize, replies: Replies) -> DiskPool {
        let (alive, ends) = crossbeam_channel::bounded(0);
        let lanes = Mutex::new(Lanes { lanes: Vec::new(), alive: Some(alive) });
        let threads_a_lane = threads.clamp(1, MAX_THREADS);
        DiskPool { torrents: Torrents::default(), threads_a_lane, replies, lanes, ends }
    }

    /// Makes a torrent known; before any Job of it. Looks at the device of its root.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn register(&self, id: TorrentId, storage: Storage) -> std::io::Result<()> {
        let lane = self.lane_of(device_of(&storage.root))?;
        let torrent = Arc::new(Torrent::new(id, storage));
        self.torrents.lock().insert(id, Registered { torrent, lane });
        Ok(())
    }

    /// Forgets a torrent and closes what is open of it; after its last Job.
    pub fn forget(&self, id: TorrentId) {
        let gone = self.torrents.lock().remove(&id);
        if let Some(gone) = gone {
            gone.lane.handles().close(id);
        }
    }

    /// Queues Jobs, leaving `jobs` empty. A torrent that is not known is answered with Trouble at once.
    pub fn submit(&self, jobs: &mut Vec<(TorrentId, Job)>) {
        self.submitter().submit(jobs);
    }

    pub(crate) fn submitter(&self) -> Submitter {
        Submitter { torrents: self.torrents.clone(), replies: self.replies.clone(), staged: Vec::new() }
    }

    pub(crate) fn torrents(&self) -> Torrents {
        self.torrents.clone()
    }

    /// Ends all threads once nothing waits; after `until` the Jobs that still wait are dropped undone, and threads
    /// that hang in the system are left behind. True if all ended.
    pub fn stop(&self, until: Instant) -> bool {
        let lanes = {
            let mut lanes = self.lock();
            lanes.alive = None;
            lanes.lanes.clone()
        };
        lanes.iter().for_each(|(_, lane)| lane.stop());
        let ended =
            !matches!(self.ends.recv_deadline(until), Err(crossbeam_channel::RecvTimeoutError::Timeout));
        for (_, lane) in &lanes {
            lane.empty().into_iter().for_each(abandon_job);
        }
        ended
    }

    fn lane_of(&self, device: Device) -> std::io::Result<Arc<Lane>> {
        let mut lanes = self.lock();
        if let Some((_, lane)) = lanes.lanes.iter().find(|(of, _)| *of == device) {
            return Ok(lane.clone());
        }
        if let Some((_, last)) = lanes.lanes.last()
            && (lanes.lanes.len() + 1) * self.threads_a_lane > MAX_THREADS
        {
            return Ok(last.clone());
        }
        let lane = Arc::new(Lane::new(self.threads_a_lane));
        for _ in 0..self.threads_a_lane {
            let (worker, replies) = (Worker::new(lane.clone()), self.replies.clone());
            let alive = lanes.alive.clone();
            std::thread::Builder::new().name("piecemeal-disk".into()).spawn(move || {
                worker.run(&replies);
                drop(alive);
            })?;
        }
        lanes.lanes.push((device, lane.clone()));
        Ok(lane)
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Torrents {
    pub(crate) fn get(&self, id: TorrentId) -> Option<Arc<Torrent>> {
        self.lock().get(&id).map(|registered| registered.torrent.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TorrentId, Registered>> {
        self.0.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submitter {
    /// See [`DiskPool::submit`]. Jobs of one lane that follow one another cost one lock of it.
    pub(crate) fn submit(&mut self, jobs: &mut Vec<(TorrentId, Job)>) {
        if jobs.is_empty() {
            return;
        }
        let torrents = self.torrents.lock();
        let mut open: Option<(TorrentId, Registered)> = None;
        for (id, job) in jobs.drain(..) {
            if open.as_ref().is_none_or(|(of, _)| *of != id) {
                let Some(next) = torrents.get(&id) else {
                    self.replies.push((id, refuse(id, job)));
                    continue;
                };
                if let Some((_, before)) = open.take()
                    && !Arc::ptr_eq(&before.lane, &next.lane)
                {
                    before.lane.submit(&mut self.staged);
                }
                open = Some((id, next.clone()));
            }
            let (_, registered) = open.as_ref().expect("just set");
            self.staged.push((registered.torrent.clone(), job));
        }
        drop(torrents);
        if let Some((_, last)) = open {
            last.lane.submit(&mut self.staged);
        }
    }
}

/// The answer to a Job that cannot even begin.
fn refuse(id: TorrentId, job: Job) -> Done {
    let no = |what: &str| {
        let text = format!("{what} of a torrent that has no storage");
        Err(Trouble { kind: TroubleKind::Io, path: format!("torrent {}", id.0), text })
    };
    match job {
        Job::Save(save) => Done::Saved(save, no("a write")),
        Job::Hash(hash) => Done::Hashed(hash, no("a check")),
        Job::Load(load) => Done::Loaded(load, no("a read")),
        Job::Warm(warm) => Done::Warmed(warm, no("a read")),
        Job::Stat(_) => Done::Stated(Vec::new()),
        Job::Fence(fence) => Done::Fenced(fence, no("a fence")),
    }
}

/// Frees the Bufs of a Job that will not be done: the end of all.
fn abandon_job(job: Job) {
    match job {
        Job::Save(save) => save.blocks.into_iter().for_each(|block| block.abandon()),
        Job::Load(load) => load.into.abandon(),
        Job::Hash(_) | Job::Warm(_) | Job::Stat(_) | Job::Fence(_) => {}
    }
}

/// Frees the Bufs of an answer that nobody hears any more.
pub(crate) fn abandon_done(done: Done) {
    match done {
        Done::Saved(save, _) => save.blocks.into_iter().for_each(|block| block.abandon()),
        Done::Loaded(load, _) => load.into.abandon(),
        Done::Hashed(..) | Done::Warmed(..) | Done::Stated(_) | Done::Fenced(..) => {}
    }
}

/// The device of `path`, or of the nearest folder above it that exists.
fn device_of(path: &Path) -> Device {
    path.ancestors().find_map(|path| rustix::fs::stat(path).ok()).map_or(0, |stat| {
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_cast,
            reason = "its width differs between systems"
        )]
        let device = stat.st_dev as Device;
        device
    })
}
