//! Blocks in: whom to ask for what, and what to do with what comes.

use std::time::Duration;

use piecemeal_metainfo::PieceIndex;
use piecemeal_package::{BLOCK_LEN, BlockRef, Buf, Refused};

use super::Controller;
use super::agenda::{BEAT, Due};
use super::blame::Verdict;
use crate::cx::{Cx, Goodbye, News};
use crate::picker::{Mood, PeerSlot, PickFacts, Received};

/// How often peers that owe us Blocks are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// The same in the endgame.
const ENDGAME_EVERY: Duration = Duration::from_millis(500);
/// A peer that owes us Blocks and sent none for so long is snubbed: others are asked for them (libtorrent's
/// `piece_timeout`, also 20 s).
const SNUB_AFTER: Duration = Duration::from_secs(20);
/// A snubbed peer that gives nothing for so long more goes; libtorrent's `request_timeout` is 60 s.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// What work may be lost by a crash.
const FACTS_EVERY: Duration = Duration::from_secs(5);
/// A Block that comes in slower than this is taken back when others wait for memory.
const TRICKLE: Duration = Duration::from_secs(5);

impl Controller {
    /// Asks a peer for as much as it should be asked for and the budget allows.
    pub(super) fn request(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) {
        self.request_as(cx, slot, false);
    }

    /// With `share`, also for what others were asked for, once nothing else is left (the endgame). That is for the beat
    /// alone: a Block that is on its way for half a second may hang, one that was just asked for would only come twice.
    fn request_as(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, share: bool) {
        if !self.package.is_ready() {
            return;
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let allowed = peer.chokes_us().then(|| peer.allowed());
        let room = peer.room();
        if !peer.is_interested() || room == 0 || allowed.is_some_and(<[_]>::is_empty) {
            return;
        }
        let block = u64::from(BLOCK_LEN);
        let bytes = cx.lease.down.spend(&mut self.down, room as u64 * block, cx.now);
        let granted = bytes / block;
        cx.lease.down.refund(&mut self.down, bytes - granted * block);
        if granted == 0 {
            self.agenda.by(Due::Requests, self.down.next_grant().max(cx.now + BEAT));
            return;
        }
        let facts = PickFacts {
            rate: peer.down().rate(cx.now),
            want: granted as usize,
            alone: self.blame.suspects(peer.addr().ip()),
            share,
            allowed_fast: allowed,
        };
        self.scratch.picked.clear();
        self.picker.pick(cx.rng, slot, peer.has_for_picker(), &facts, &mut self.scratch.picked);
        let unused = granted - self.scratch.picked.len() as u64;
        cx.lease.down.refund(&mut self.down, unused * block);
        peer.ask(cx, &self.scratch.picked);
        let owes = peer.asked() > 0;
        let endgame = unused > 0 && self.picker.mood() == Mood::Endgame;
        if owes || endgame {
            self.agenda.by(Due::Requests, cx.now + if endgame { ENDGAME_EVERY } else { TEND_EVERY });
        }
    }

    /// A Block came.
    pub(super) fn received_block(
        &mut self,
        cx: &mut Cx<'_>,
        slot: PeerSlot,
        at: BlockRef,
        buf: Buf,
        asked: bool,
    ) {
        let Some(peer) = self.peers.get(slot) else { return cx.pool.give_back(buf) };
        let from = peer.addr();
        self.ledger.received(u64::from(at.len), !peer.is_seed(), cx.now);
        let mut cancels = std::mem::take(&mut self.scratch.cancels);
        let received = if asked { self.picker.received(slot, at, &mut cancels) } else { Received::Unclaimed };
        let fresh = match received {
            Received::Fresh => true,
            Received::Duplicate => false,
            Received::Unclaimed => self.picker.adopt(at, &mut cancels),
        };
        for (other, at) in cancels.drain(..) {
            if let Some(peer) = self.peers.get_mut(other) {
                peer.cancel(cx, at);
            }
        }
        self.scratch.cancels = cancels;
        if !fresh {
            self.ledger.wasted += u64::from(at.len);
            return cx.pool.give_back(buf);
        }
        self.blame.sent(at.piece, from);
        match self.package.save(cx.now, at, buf, &mut cx.out.disk) {
            Ok(()) => self.agenda.by(Due::Flush, self.package.next_due()),
            Err(refused) => {
                if let Refused::NotNow(_) = refused {
                    self.picker.drop_block(at);
                }
                self.ledger.wasted += u64::from(at.len);
                cx.pool.give_back(refused.into_buf());
            }
        }
    }

    /// A peer chokes us: what it was asked for is free again. With BEP 6 it rejects each.
    pub(super) fn choked(&mut self, slot: PeerSlot, lost: &[BlockRef]) {
        for at in lost {
            self.picker.forget(slot, *at);
        }
    }

    /// A peer will not answer a request (BEP 6).
    pub(super) fn rejected(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, at: BlockRef) {
        self.picker.forget(slot, at);
        cx.lease.down.refund(&mut self.down, u64::from(at.len));
    }

    /// A Piece is verified.
    pub(super) fn have_piece(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.picker.set_have(piece);
        self.blame.good(piece);
        self.ledger.have_changed = true;
        cx.out.news.push(News::Piece(self.torrent, piece));
        for (_, peer) in self.peers.iter_mut() {
            // A seed cares for nobody's pieces; to all others it is an offer.
            if !peer.is_seed() {
                peer.have(cx, piece);
            }
        }
        self.agenda.by(Due::Resume, cx.now + FACTS_EVERY);
        if self.package.is_complete() {
            self.completed(cx);
        }
    }

    /// A Piece is wrong: it is fetched again, and whoever is guilty goes for ever.
    pub(super) fn bad_piece(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.picker.lost(piece);
        self.ledger.wasted += u64::from(self.package.layout().piece_len(piece));
        cx.out.news.push(News::PieceBad(self.torrent, piece));
        if let Verdict::Guilty(who) = self.blame.bad(piece) {
            self.ban(cx, who, Goodbye::Poisoned);
        }
        self.agenda.by(Due::Requests, cx.now);
    }

    /// A Piece that was had cannot be read any more.
    pub(super) fn unhave(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.picker.lost(piece);
        self.ledger.have_changed = true;
        for (_, peer) in self.peers.iter_mut() {
            peer.withdraw_piece(cx, piece);
            peer.have_not(cx, piece);
        }
        self.incomplete();
        self.agenda.by(Due::Requests, cx.now);
        self.plan_search();
    }

    /// Looks after all peers: who owes us too long, who is worth asking, who waits for the budget.
    pub fn tend(&mut self, cx: &mut Cx<'_>) {
        self.turn = self.turn.wrapping_add(1);
        let mut owing = false;
        for slot in self.peers.round(self.turn) {
            self.judge_debt(cx, slot);
            self.update_interest(cx, slot);
            self.request_as(cx, slot, true);
            self.serve(cx, slot);
            owing |= self.peers.get(slot).is_some_and(|peer| peer.asked() > 0);
        }
        if owing {
            self.agenda.by(Due::Requests, cx.now + TEND_EVERY);
        }
    }

    fn judge_debt(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.judge_pipeline(cx.now);
        let Some(since) = peer.owes_since() else { return };
        let waits = cx.now.since(since);
        if peer.is_snubbed() && waits >= GIVE_UP_AFTER {
            return self.send_away(cx, slot, Goodbye::Silent);
        }
        if !peer.is_snubbed() && waits >= SNUB_AFTER {
            for at in peer.snub(cx.now) {
                self.picker.forget(slot, at);
            }
            self.agenda.by(Due::Choke, cx.now);
        }
    }

    /// Whether we want something of a peer, and says so.
    pub(super) fn update_interest(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let interesting = self.picker.is_interesting(peer.has_for_picker());
        peer.set_interested(cx, interesting);
    }

    /// Others wait for memory: what trickles in, or waits behind gaps, gives it back.
    pub fn quench(&mut self, cx: &mut Cx<'_>) {
        self.package.tick(cx.now, true, &mut cx.out.disk);
        let before = cx.now.nanos().saturating_sub(TRICKLE.as_nanos() as u64);
        for (slot, peer) in self.peers.iter_mut() {
            if let Some(at) = peer.take_back(cx, piecemeal_metainfo::Time::from_nanos(before)) {
                self.picker.forget(slot, at);
            }
        }
    }

    /// What the torrent would like to request and to load now, in bytes.
    pub fn demands(&self) -> [u64; 2] {
        let block = u64::from(BLOCK_LEN);
        let ready = self.package.is_ready();
        let mut demands = [0, 0];
        for (_, peer) in self.peers.iter() {
            let asks = ready && peer.is_interested() && (!peer.chokes_us() || !peer.allowed().is_empty());
            demands[0] += if asks { peer.room() as u64 * block } else { 0 };
            demands[1] += u64::from(peer.first_request().is_some()) * block * 4;
        }
        demands
    }
}
