//! What answers from the disk mean.

use piecemeal_metainfo::{PieceIndex, Time};

use super::fence::Alone;
use super::{Jobs, Package, PackageNews, Phase, SPARES};
use crate::{
    BLOCK_LEN, BlockPool, BlockRef, Done, Fence, FileStamp, Hash, Load, Save, Trouble, TroubleKind, Warm,
};

impl Package {
    /// Takes the answer to a Job.
    pub fn on_done(
        &mut self,
        now: Time,
        pool: &mut BlockPool,
        done: Done,
        jobs: &mut Jobs,
        news: &mut Vec<PackageNews>,
    ) {
        debug_assert!(self.out > 0, "more Dones than Jobs");
        self.out = self.out.saturating_sub(1);
        let alone = self.fences.is_running();
        match done {
            Done::Saved(save, result) => self.saved(now, save, result, pool, jobs, news),
            Done::Hashed(hash, result) => self.hashed(now, hash, result, pool, jobs, news),
            Done::Loaded(load, result) => self.loaded(load, result, pool, news),
            Done::Warmed(Warm { spans, ticket }, result) => {
                self.spare_spans(spans);
                news.push(PackageNews::Warmed { ticket, result });
            }
            Done::Stated(stamps) => self.stated(stamps, jobs, news),
            Done::Fenced(fence, result) => self.fenced(fence, result, pool, news),
        }
        if self.fences.pending() {
            self.start_alone(now, jobs);
        } else if alone {
            self.release(now, pool, jobs, news);
        }
    }

    /// Stops writing; what waits must be fetched again. The first reason counts.
    pub(super) fn stop(&mut self, trouble: Trouble, pool: &mut BlockPool, news: &mut Vec<PackageNews>) {
        self.drop_waiting(pool, Some(news), |_| true);
        self.recovering = false;
        if self.trouble.is_none() {
            self.trouble = Some(trouble.clone());
            news.push(PackageNews::Trouble(trouble));
        }
    }

    /// The disk did something that it might have refused.
    pub(super) fn worked(&mut self, news: &mut Vec<PackageNews>) {
        if std::mem::take(&mut self.recovering) {
            news.push(PackageNews::Recovered);
        }
    }

    fn saved(
        &mut self,
        now: Time,
        mut save: Save,
        result: Result<(), Trouble>,
        pool: &mut BlockPool,
        jobs: &mut Jobs,
        news: &mut Vec<PackageNews>,
    ) {
        save.blocks.drain(..).for_each(|buf| pool.give_back(buf));
        if self.spare.blocks.len() < SPARES {
            self.spare.blocks.push(save.blocks);
        }
        self.spare_spans(save.spans);
        let index = save.piece;
        let Some(piece) = self.pieces.get_mut(&index) else { return };
        match result {
            Ok(()) => {
                piece.saved(save.hash);
                self.worked(news);
                self.settle(now, index, jobs, news);
            }
            Err(trouble) => {
                let lost = piece.failed();
                for begin in lost.clone().step_by(BLOCK_LEN as usize) {
                    let len = (lost.end - begin).min(BLOCK_LEN);
                    news.push(PackageNews::Lost(BlockRef { piece: index, begin, len }));
                }
                self.stop(trouble, pool, news);
            }
        }
    }

    fn hashed(
        &mut self,
        now: Time,
        hash: Hash,
        result: Result<(), Trouble>,
        pool: &mut BlockPool,
        jobs: &mut Jobs,
        news: &mut Vec<PackageNews>,
    ) {
        self.spare_spans(hash.spans);
        let index = hash.piece;
        if self.check.is_out(index) {
            self.checked(index, hash.hash, result, pool, jobs, news);
            self.check_more(jobs);
            return;
        }
        let Some(piece) = self.pieces.get_mut(&index) else { return };
        match result {
            Ok(()) => {
                piece.hashed(hash.hash);
                self.worked(news);
                self.settle(now, index, jobs, news);
            }
            Err(trouble) => {
                // What was written cannot be read: none of it counts.
                piece.failed();
                let lost = self.layout.blocks_of(index).filter(|at| piece.is_written(at.begin));
                news.extend(lost.map(PackageNews::Lost));
                self.stop(trouble, pool, news);
                self.pieces.remove(&index);
            }
        }
    }

    /// The verdict over a Piece, or its next Job.
    fn settle(&mut self, now: Time, index: PieceIndex, jobs: &mut Jobs, news: &mut Vec<PackageNews>) {
        let Some(digest) = self.pieces.get(&index).and_then(|piece| piece.digest()) else {
            return self.advance(now, index, false, jobs);
        };
        if let Some(piece) = self.pieces.remove(&index)
            && self.spare.pieces.len() < SPARES
        {
            self.spare.pieces.push(piece);
        }
        if self.phase != Phase::Ready {
            // It is all to be looked at again.
        } else if self.layout.meta().piece_hash_v1(index) == Some(digest) {
            self.put_have(index, true);
            news.push(PackageNews::PieceDone(index));
        } else {
            news.push(PackageNews::PieceBad(index));
        }
    }

    fn loaded(
        &mut self,
        load: Load,
        result: Result<(), Trouble>,
        pool: &mut BlockPool,
        news: &mut Vec<PackageNews>,
    ) {
        let Load { at, spans, into: buf, ticket } = load;
        self.spare_spans(spans);
        match &result {
            Err(Trouble { kind: TroubleKind::Missing | TroubleKind::Io, .. }) => {
                if self.put_have(at.piece, false) {
                    news.push(PackageNews::Unhave(at.piece));
                }
            }
            Err(trouble) => self.stop(trouble.clone(), pool, news),
            Ok(()) => {}
        }
        news.push(PackageNews::Loaded { ticket, at, buf, result });
    }

    fn stated(&mut self, stamps: Vec<FileStamp>, jobs: &mut Jobs, news: &mut Vec<PackageNews>) {
        match self.fences.finish(|alone| matches!(alone, Alone::Look | Alone::Facts(_))) {
            Some(Alone::Look) if self.phase == Phase::Looking => self.looked(&stamps, jobs),
            Some(Alone::Facts(_)) => news.push(PackageNews::Facts(Box::new(self.facts_now(stamps)))),
            _ => {}
        }
    }

    fn fenced(
        &mut self,
        fence: Fence,
        result: Result<(), Trouble>,
        pool: &mut BlockPool,
        news: &mut Vec<PackageNews>,
    ) {
        if self.fences.finish(|alone| matches!(alone, Alone::Fence(_))).is_none() {
            return;
        }
        match (&fence, &result) {
            (Fence::Close | Fence::Delete, _) => {
                self.phase = Phase::Closed;
                self.drop_waiting(pool, None, |_| true);
                self.pieces.clear();
            }
            (_, Err(trouble)) => {
                self.synced = false;
                self.retry.retain(|older| std::mem::discriminant(older) != std::mem::discriminant(&fence));
                self.retry.push(fence.clone());
                self.stop(trouble.clone(), pool, news);
            }
            (Fence::Sync, Ok(())) => {
                self.synced = self.closing;
                self.worked(news);
            }
            (Fence::Prepare { .. }, Ok(())) => {
                self.worked(news);
                if self.phase == Phase::Preparing {
                    self.phase = Phase::Ready;
                    self.find_begun();
                    news.push(PackageNews::Opened);
                    return;
                }
            }
        }
        news.push(PackageNews::Fenced(fence, result));
    }
}
