//! What we asked of a peer.
//!
//! Owns the requests that are out, those we gave up on and would still take, and the Pipeline. Which Blocks, and when
//! to give up, is the Controller's.

use std::collections::VecDeque;

use piecemeal_metainfo::Time;
use piecemeal_package::BlockRef;
use piecemeal_wire::message::Message;

use super::PeerConnection;
use super::pipeline::Pipeline;
use crate::cx::Cx;

/// Requests given up of which the answer is still welcome; as many as can be out.
const MOST_LATE: usize = 500;
/// Blocks that may come although they were cancelled or rejected, before that counts as a breach.
const MOST_FORGIVEN: u32 = 1000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// In the order they were sent. At most what the Pipeline allows.
    out: VecDeque<BlockRef>,
    /// Given up because the peer was slow; at most [`MOST_LATE`].
    late: VecDeque<BlockRef>,
    pipeline: Pipeline,
    /// Requests that were withdrawn and may be answered all the same.
    forgiven: u32,
    /// When it last owed us nothing, or sent a Block.
    since: Time,
    /// It stopped giving.
    snubbed: bool,
    /// What it gave a second ago, in bytes/s.
    rate_before: u64,
}

impl Asking {
    pub(super) fn waits_for(&self, at: BlockRef) -> bool {
        self.out.contains(&at) || self.late.contains(&at)
    }

    /// A Block came; whether it was asked for and not given up.
    pub(super) fn came(&mut self, now: Time, at: BlockRef, rate: u64) -> bool {
        self.since = now;
        self.snubbed = false;
        self.pipeline.on_block(rate);
        let asked = self.forget(at);
        if !asked && let Some(place) = self.late.iter().position(|late| *late == at) {
            self.late.remove(place);
        }
        asked
    }

    /// This request stands no more. False if it did not.
    pub(super) fn forget(&mut self, at: BlockRef) -> bool {
        let place = self.out.iter().position(|out| *out == at);
        if let Some(place) = place {
            self.out.remove(place);
        }
        place.is_some()
    }

    /// It will not come late either.
    pub(super) fn forget_late(&mut self, at: BlockRef) {
        self.late.retain(|late| *late != at);
    }

    /// None stands any more; they may come all the same.
    pub(super) fn forget_all(&mut self) -> Vec<BlockRef> {
        let out: Vec<_> = self.out.drain(..).collect();
        self.forgiven = (self.forgiven + out.len() as u32).min(MOST_FORGIVEN);
        out
    }

    /// A Block came that nobody waits for: whether that can be.
    pub(super) fn forgive(&mut self) -> bool {
        let can_be = self.forgiven > 0;
        self.forgiven = self.forgiven.saturating_sub(1);
        can_be
    }
}

impl PeerConnection {
    /// How many more Blocks it should be asked for.
    pub fn room(&self) -> usize {
        self.asking.pipeline.target().saturating_sub(self.asking.out.len())
    }

    /// Requests that are out.
    pub fn asked(&self) -> usize {
        self.asking.out.len()
    }

    /// Asks for `blocks`.
    pub fn ask(&mut self, cx: &mut Cx<'_>, blocks: &[BlockRef]) {
        if blocks.is_empty() {
            return;
        }
        if self.asking.out.is_empty() {
            self.asking.since = cx.now;
        }
        self.asking.out.extend(blocks);
        // What it still owes from before it was snubbed need not be asked for again.
        let late = &mut self.asking.late;
        let owed: Vec<BlockRef> = late.iter().filter(|owed| blocks.contains(owed)).copied().collect();
        late.retain(|late| !owed.contains(late));
        self.tell(cx, |out| {
            for at in blocks.iter().filter(|at| !owed.contains(at)) {
                Message::Request { piece: at.piece.0, begin: at.begin, len: at.len }.encode(out);
            }
        });
    }

    /// Withdraws a request: the Block came from another.
    pub fn cancel(&mut self, cx: &mut Cx<'_>, at: BlockRef) {
        if self.asking.forget(at) {
            self.asking.forgiven = (self.asking.forgiven + 1).min(MOST_FORGIVEN);
            self.tell(cx, |out| {
                Message::Cancel { piece: at.piece.0, begin: at.begin, len: at.len }.encode(out);
            });
        }
    }

    /// Withdraws all requests; returns them.
    pub fn cancel_all(&mut self, cx: &mut Cx<'_>) -> Vec<BlockRef> {
        let out: Vec<_> = self.asking.out.iter().copied().collect();
        out.iter().for_each(|at| self.cancel(cx, *at));
        out
    }

    /// It stopped giving: from now on one request at a time. All but the oldest request are given up and returned; what
    /// comes late is still taken.
    pub fn snub(&mut self, now: Time) -> Vec<BlockRef> {
        let asking = &mut self.asking;
        (asking.snubbed, asking.since) = (true, now);
        asking.pipeline.snub();
        let given_up: Vec<_> = asking.out.drain(1.min(asking.out.len())..).collect();
        let keep = MOST_LATE.saturating_sub(given_up.len());
        let old = asking.late.len().saturating_sub(keep);
        asking.late.drain(..old);
        asking.late.extend(&given_up);
        given_up
    }

    /// It owes us Blocks and has sent none for a while.
    pub fn is_snubbed(&self) -> bool {
        self.asking.snubbed
    }

    /// Since when it owes us a Block; `None`: it owes nothing.
    pub fn owes_since(&self) -> Option<Time> {
        (!self.asking.out.is_empty()).then_some(self.asking.since)
    }

    /// Once a second: the Pipeline follows the rate.
    pub fn judge_pipeline(&mut self, now: Time) {
        let rate = self.down.rate(now);
        let asking = &mut self.asking;
        if !asking.snubbed && !asking.out.is_empty() {
            // A longer queue that brings less than a quarter more is long enough.
            if rate > 0 && rate < asking.rate_before + asking.rate_before / 4 {
                asking.pipeline.settle();
            }
            asking.rate_before = rate;
            asking.pipeline.judge(rate);
        }
    }

    /// The peer holds so many requests at most (BEP 10, "reqq").
    pub(super) fn cap_requests(&mut self, reqq: u32) {
        self.asking.pipeline.cap(reqq as usize);
    }
}
