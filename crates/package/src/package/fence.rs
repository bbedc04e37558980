//! What is done alone, and what waits meanwhile.
//!
//! Owns the queue of what is to be done alone and the Jobs that are held back. The contract:
//!
//! - While it runs, no other Job of the torrent is out. It is sent when the last of those is answered; they are all
//!   answered, since a runner waits for nothing of ours.
//! - What makes content last (`Sync`, `Close`) or looks at it (recheck) first sees the Blocks that were taken before:
//!   these leave at once, gaps or not, and full Pieces are hashed. The others let them wait in their Pieces.
//! - What is asked for afterwards is held, and let go in order of arrival when nothing is to be done alone any more. So
//!   none can overtake a fence, and a fence cannot be kept from its turn by new work.
//! - What is held is bounded: Saves and Loads hold a Buf each, so by the pool; Warms by [`HELD_WARMS`]. Of what waits
//!   to be done alone there is one of each kind.

use std::collections::{BTreeSet, VecDeque};

use piecemeal_metainfo::Time;

use super::{Jobs, Package, PackageNews, Phase, Refused};
use crate::{BlockPool, BlockRef, Buf, Fence, Job, Stat, Trouble, TroubleKind};

/// Warms that may be held: more than connections that could each wait for one.
const HELD_WARMS: usize = 4096;

/// What is done while no other Job is out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Alone {
    /// Stat, to decide what to believe.
    Look,
    /// Stat, to make facts.
    Facts(Occasion),
    /// A fence of the shell.
    Fence(Fence),
}

/// Why facts are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Occasion {
    /// Somebody asked.
    Asked,
    /// The end has begun, and all is written: these hold should the flush take longer than there is time.
    Closing,
    /// All is flushed.
    Flushed,
}

impl Alone {
    /// Whether Blocks that wait are written first.
    fn saves_first(&self) -> bool {
        matches!(
            self,
            Alone::Look | Alone::Facts(Occasion::Closing) | Alone::Fence(Fence::Sync | Fence::Close)
        )
    }

    /// Whether `newer` makes this one needless.
    fn yields_to(&self, newer: &Alone) -> bool {
        let prepare = |alone: &Alone| matches!(alone, Alone::Fence(Fence::Prepare { .. }));
        self == newer || (prepare(self) && prepare(newer))
    }
}

/// What waits for the end of what is done alone.
#[derive(Debug)]
pub(super) enum Held {
    Save(BlockRef, Buf),
    /// A Block that is not wanted any more; the Buf is on its way back.
    Void(Buf),
    Load(BlockRef, Buf, u64),
    Warm(BlockRef, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// At most one of each kind.
    queue: VecDeque<Alone>,
    running: Option<Alone>,
    held: VecDeque<Held>,
    /// Of the Blocks among them.
    held_blocks: BTreeSet<BlockRef>,
    held_warms: usize,
}

impl Fences {
    /// Whether something runs alone or waits to.
    pub(super) fn pending(&self) -> bool {
        self.running.is_some() || !self.queue.is_empty()
    }

    /// Whether Pieces may send Jobs; `Some(true)`: all that waits must leave.
    pub(super) fn may_save(&self) -> Option<bool> {
        match (&self.running, self.queue.front()) {
            (None, None) => Some(false),
            (None, Some(next)) if next.saves_first() => Some(true),
            _ => None,
        }
    }

    /// Whether something runs alone.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Keeps a Job back that is paid for by its Buf.
    pub(super) fn hold(&mut self, held: Held) {
        if let Held::Save(at, _) = held {
            self.held_blocks.insert(at);
        }
        self.held.push_back(held);
    }

    /// Blocks that are kept back are wanted no longer, and nobody expects to hear of them.
    pub(super) fn void_saves(&mut self) {
        self.held_blocks.clear();
        let held = std::mem::take(&mut self.held).into_iter().map(|held| match held {
            Held::Save(_, buf) => Held::Void(buf),
            other => other,
        });
        self.held = held.collect();
    }

    /// Whether this Block is kept back.
    pub(super) fn knows(&self, at: BlockRef) -> bool {
        self.held_blocks.contains(&at)
    }

    /// Keeps a Warm back; `false` if too many are.
    pub(super) fn hold_warm(&mut self, at: BlockRef, ticket: u64) -> bool {
        let room = self.held_warms < HELD_WARMS;
        if room {
            self.held_warms += 1;
            self.held.push_back(Held::Warm(at, ticket));
        }
        room
    }

    /// How many Bufs are held.
    #[cfg(test)]
    pub(super) fn held_bufs(&self) -> usize {
        self.held.iter().filter(|held| !matches!(held, Held::Warm(..))).count()
    }

    /// What waits to be done alone is not to be done.
    pub(super) fn forget_queue(&mut self) {
        self.queue.clear();
    }

    /// What ran alone, if it is one of these.
    pub(super) fn finish(&mut self, which: impl FnOnce(&Alone) -> bool) -> Option<Alone> {
        self.running.take_if(|running| which(running))
    }
}

impl Package {
    /// Queues it behind the others, and starts it if nothing is out.
    pub(super) fn queue_alone(&mut self, now: Time, alone: Alone, jobs: &mut Jobs) {
        let queue = &mut self.fences.queue;
        queue.retain(|older| !older.yields_to(&alone));
        queue.push_back(alone);
        self.start_alone(now, jobs);
    }

    /// As [`Package::queue_alone`], when no Block can be waiting.
    pub(super) fn do_alone(&mut self, alone: Alone, jobs: &mut Jobs) {
        debug_assert_eq!(self.waiting, 0);
        self.queue_alone(Time::ZERO, alone, jobs);
    }

    /// Starts what is next to be done alone, if nothing is out; sends what must leave before it.
    pub(super) fn start_alone(&mut self, now: Time, jobs: &mut Jobs) {
        if self.fences.may_save() == Some(true) {
            self.each_open(|package, index| package.advance(now, index, true, jobs));
        }
        if self.out > 0 || self.fences.running.is_some() {
            return;
        }
        let Some(next) = self.fences.queue.pop_front() else { return };
        let job = match &next {
            Alone::Look => {
                debug_assert_eq!(self.waiting, 0, "all Blocks have left before");
                self.pieces.retain(|_, piece| piece.waiting() > 0);
                Job::Stat(Stat)
            }
            Alone::Facts(_) => Job::Stat(Stat),
            Alone::Fence(fence) => Job::Fence(fence.clone()),
        };
        self.fences.running = Some(next);
        self.send(job, jobs);
    }

    /// Lets go what was held and what waited in Pieces, when nothing is to be done alone any more.
    pub(super) fn release(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        jobs: &mut Jobs,
        news: &mut Vec<PackageNews>,
    ) {
        self.fences.held_warms = 0;
        self.fences.held_blocks.clear();
        let mut held = std::mem::take(&mut self.fences.held);
        for held in held.drain(..) {
            match held {
                Held::Save(at, buf) => match self.save(now, at, buf, jobs) {
                    Ok(()) => {}
                    Err(Refused::NotNeeded(buf)) => pool.give_back(buf),
                    Err(Refused::NotNow(buf)) => {
                        pool.give_back(buf);
                        news.push(PackageNews::Lost(at));
                    }
                },
                Held::Void(buf) => pool.give_back(buf),
                Held::Load(at, into, ticket) => {
                    if let Err(buf) = self.load(at, into, ticket, jobs) {
                        news.push(PackageNews::Loaded { ticket, at, buf, result: Err(gone()) });
                    }
                }
                Held::Warm(at, ticket) => {
                    if !self.warm(at, ticket, jobs) {
                        news.push(PackageNews::Warmed { ticket, result: Err(gone()) });
                    }
                }
            }
        }
        self.fences.held = held;
        if self.phase != Phase::Closed {
            self.each_open(|package, index| package.advance(now, index, false, jobs));
            self.check_more(jobs);
        }
    }
}

/// Answers those whose Piece went away while they were held.
fn gone() -> Trouble {
    Trouble {
        kind: TroubleKind::Missing,
        path: String::new(),
        text: "the piece is not there any more".into(),
    }
}
