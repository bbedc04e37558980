//! A lane: Jobs that wait for one device, and how few threads are woken for them.
//!
//! Owns the queue and the sleep of its threads. Torrents take turns; idle Jobs go when nothing else waits. Bounded by
//! Package, which has few Jobs out for each Piece and pays for most of them in Bufs.
//!
//! Waking a thread costs more than a Job whose bytes are in memory, so one thread is kept busy before a second
//! is woken: when [`WEIGHT_A_THREAD`] waits, or when a thread is about to wait for the device itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use piecemeal_metainfo::TorrentId;
use piecemeal_package::{BLOCK_LEN, Job};

use super::files::{Handles, Torrent};

/// Work that waits, in Blocks, for each thread that is awake: 256 KiB, some 200 us of hashing, dozens of wake-ups.
const WEIGHT_A_THREAD: usize = 16;
/// A Job of so many Blocks holds its thread for long (1 MiB, a millisecond): others do not wait behind it.
const LONG_JOB: usize = 64;
/// Handles a lane keeps open for each of its threads; as libtorrent's pool of 40.
const HANDLES_A_THREAD: usize = 40;
/// Empty queues kept, to spare allocations.
const SPARE_QUEUES: usize = 16;

/// See the module.
pub(crate) struct Lane {
    state: Mutex<State>,
    work: Condvar,
    handles: Mutex<Handles>,
}

struct State {
    live: Turns,
    idle: Turns,
    /// Threads there are; sleeping of them; busy with something long.
    threads: usize,
    sleeping: usize,
    stuck: usize,
    /// Threads called that have not woken yet.
    called: usize,
    stopping: bool,
}

/// Jobs by torrent, one torrent after the other.
#[derive(Default)]
struct Turns {
    /// Torrents with Jobs, next first.
    ring: VecDeque<TorrentId>,
    waiting: HashMap<TorrentId, Waiting>,
    spare: Vec<VecDeque<Job>>,
    /// Of all Jobs that wait, in Blocks.
    weight: usize,
}

struct Waiting {
    torrent: Arc<Torrent>,
    jobs: VecDeque<Job>,
}

/// What a thread takes from its lane.
pub(crate) struct Taken {
    pub(crate) torrent: Arc<Torrent>,
    pub(crate) job: Job,
    long: bool,
}

impl Lane {
    pub(crate) fn new(threads: usize) -> Lane {
        let (live, idle) = (Turns::default(), Turns::default());
        let state = State { live, idle, threads, sleeping: 0, stuck: 0, called: 0, stopping: false };
        let handles = Mutex::new(Handles::new(HANDLES_A_THREAD * threads));
        Lane { state: Mutex::new(state), work: Condvar::new(), handles }
    }

    /// Queues all Jobs, leaving `jobs` empty, and calls as many threads as they are worth.
    pub(crate) fn submit(&self, jobs: &mut Vec<(Arc<Torrent>, Job)>) {
        let mut state = self.lock();
        for (torrent, job) in jobs.drain(..) {
            let turns = if is_idle(&job) { &mut state.idle } else { &mut state.live };
            turns.push(torrent, job);
        }
        let call = state.call_for_weight();
        drop(state);
        self.call(call);
    }

    /// The next Job, if one waits.
    pub(crate) fn try_take(&self) -> Option<Taken> {
        self.lock().take()
    }

    /// The next Job; sleeps until there is one. `None`: the lane ends, and nothing waits.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.take() {
                return Some(taken);
            }
            if state.stopping {
                return None;
            }
            state.sleeping += 1;
            // Whoever calls takes us off `sleeping`; waking without a call is no waking.
            while state.called == 0 && !state.stopping {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.called > 0 {
                state.called -= 1;
            } else {
                state.sleeping -= 1;
            }
        }
    }

    /// To be said after a taken Job.
    pub(crate) fn finished(&self, long: bool) {
        if long {
            self.lock().stuck -= 1;
        }
    }

    /// A thread is about to wait for the device: while it does, others shall go on with what waits, or comes.
    pub(crate) fn waits_for_device(&self) -> Waits<'_> {
        let mut state = self.lock();
        state.stuck += 1;
        let call = state.call_for_weight();
        drop(state);
        self.call(call);
        Waits { lane: self }
    }

    /// The lane's open handles.
    pub(crate) fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more Jobs come; threads end when nothing waits.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
    }

    /// Takes all Jobs that wait, undone.
    pub(crate) fn empty(&self) -> Vec<Job> {
        let mut state = self.lock();
        let mut jobs = Vec::new();
        while let Some(taken) = state.take() {
            jobs.push(taken.job);
        }
        jobs
    }

    fn call(&self, threads: usize) {
        for _ in 0..threads {
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// For [`Lane::finished`].
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }
}

/// While this lives its thread waits for the device.
pub(crate) struct Waits<'a> {
    lane: &'a Lane,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.lane.lock().stuck -= 1;
    }
}

impl State {
    fn take(&mut self) -> Option<Taken> {
        let (torrent, job) = self.live.pop().or_else(|| self.idle.pop())?;
        let long = weight(&job) >= LONG_JOB;
        self.stuck += usize::from(long);
        Some(Taken { torrent, job, long })
    }

    /// How many sleeping threads to call; they are counted as awake from here on.
    fn call_for_weight(&mut self) -> usize {
        let weight = self.live.weight + self.idle.weight;
        let wanted = weight.div_ceil(WEIGHT_A_THREAD).min(self.threads);
        let awake = (self.threads - self.sleeping).saturating_sub(self.stuck);
        let call = wanted.saturating_sub(awake).min(self.sleeping);
        self.sleeping -= call;
        self.called += call;
        call
    }
}

impl Turns {
    fn push(&mut self, torrent: Arc<Torrent>, job: Job) {
        self.weight += weight(&job);
        let id = torrent.id;
        let waiting = self.waiting.entry(id).or_insert_with(|| {
            self.ring.push_back(id);
            Waiting { torrent, jobs: self.spare.pop().unwrap_or_default() }
        });
        waiting.jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<(Arc<Torrent>, Job)> {
        let id = self.ring.pop_front()?;
        let waiting = self.waiting.get_mut(&id).expect("a torrent in the ring has Jobs");
        let job = waiting.jobs.pop_front().expect("a torrent in the ring has Jobs");
        self.weight -= weight(&job);
        if !waiting.jobs.is_empty() {
            self.ring.push_back(id);
            return Some((waiting.torrent.clone(), job));
        }
        let Waiting { torrent, jobs } = self.waiting.remove(&id).expect("it was just there");
        if self.spare.len() < SPARE_QUEUES {
            self.spare.push(jobs);
        }
        Some((torrent, job))
    }
}

fn is_idle(job: &Job) -> bool {
    matches!(job, Job::Hash(hash) if hash.idle)
}

/// How much work a Job is, in Blocks; at least 1.
fn weight(job: &Job) -> usize {
    match job {
        Job::Save(save) => save.blocks.len().max(1),
        Job::Hash(hash) => {
            let bytes: u64 = hash.spans.iter().map(|span| u64::from(span.len)).sum();
            (bytes / u64::from(BLOCK_LEN)).max(1) as usize
        }
        Job::Load(_) | Job::Warm(_) => 1,
        // These look at, or wait for, many files.
        Job::Stat(_) | Job::Fence(_) => LONG_JOB,
    }
}
