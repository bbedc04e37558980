//! Blocks out: what peers ask for, from the files to their sockets.

use std::time::Duration;

use piecemeal_package::{BLOCK_LEN, BlockRef, Buf, Span};

use super::Controller;
use super::agenda::{BEAT, Due};
use super::warmth::Warmed;
use crate::cx::{ConnId, Cx, FileSpan, Goodbye};
use crate::peer::Body;
use crate::picker::PeerSlot;

/// A request that comes later than this after a choke was no race.
const CHOKE_RACE: Duration = Duration::from_secs(2);
/// Content on its way to one peer, in bytes: half a second of its rate, but no less and no more than this. In files it
/// costs no memory, only the chance to withdraw it.
const FILE_WINDOW: (u64, u64) = (256 * 1024, 4 << 20);
/// The same where it lies in Bufs.
const BUF_WINDOW: (u64, u64) = (2 * BLOCK_LEN as u64, 1 << 20);

impl Controller {
    /// A peer asks for a Block.
    ///
    /// # Errors
    /// It asks too much that cannot be.
    pub(super) fn wants_block(
        &mut self,
        cx: &mut Cx<'_>,
        slot: PeerSlot,
        at: BlockRef,
    ) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get_mut(slot) else { return Ok(()) };
        let possible = at.len <= BLOCK_LEN && self.package.layout().is_inside(at);
        if !possible || !self.package.have().get(at.piece) {
            peer.reject(cx, at);
            return peer.offend("asks for what we do not have");
        }
        if !peer.may_ask(at.piece) {
            peer.reject(cx, at);
            let race = cx.now.since(peer.choke_since()) < CHOKE_RACE;
            return if race { Ok(()) } else { peer.offend("asks while it is choked") };
        }
        if !peer.take_request(at) {
            peer.reject(cx, at);
            return peer.offend("asks for more than anyone can wait for");
        }
        self.serve(cx, slot);
        Ok(())
    }

    /// Loads for a peer what it asked for, as far as its window, the budget and memory allow.
    pub(super) fn serve(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) {
        let mut spans = std::mem::take(&mut self.scratch.spans);
        self.serve_with(cx, slot, &mut spans);
        self.scratch.spans = spans;
    }

    fn serve_with(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, spans: &mut Vec<Span>) {
        while let Some(peer) = self.peers.get(slot)
            && let Some(at) = peer.first_request()
        {
            if !self.package.have().get(at.piece) {
                self.refuse_first(cx, slot);
                continue;
            }
            spans.clear();
            let from_file = self.settings.from_files && self.package.file_spans(at, spans);
            let (least, most) = if from_file { FILE_WINDOW } else { BUF_WINDOW };
            let half_a_second = peer.up().rate(cx.now) / 2;
            if peer.outgoing_bytes() >= half_a_second.clamp(least, most) {
                return;
            }
            let sent =
                if from_file { self.send_from_file(cx, slot, at, spans) } else { self.load(cx, slot, at) };
            if !sent {
                return;
            }
        }
    }

    fn refuse_first(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if let Some(at) = peer.pop_request() {
            peer.reject(cx, at);
        }
    }

    /// Puts the first request of a peer into its send queue as places in files. False: not yet.
    fn send_from_file(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, at: BlockRef, spans: &[Span]) -> bool {
        let Some(peer) = self.peers.get_mut(slot) else { return false };
        let piece_len = self.package.layout().piece_len(at.piece);
        match self.warmth.ask(cx.now, peer.conn(), at, piece_len) {
            Warmed::Ready => {}
            Warmed::Wait => return false,
            Warmed::Bring(what, mark) => {
                if self.package.warm(what, mark, &mut cx.out.disk) {
                    return false;
                }
                // Not all of the stretch lies in files, or too much is held up: send it cold.
                self.warmth.came(cx.now, mark, true);
            }
        }
        if !self.grant(cx, at) {
            return false;
        }
        let torrent = self.torrent;
        let place = |span: &Span| match span.place {
            piecemeal_package::Place::File(file) => {
                Some(FileSpan { torrent, file, offset: span.offset, len: span.len })
            }
            _ => None,
        };
        let mut places = spans.iter().filter_map(place);
        let body = match (places.next(), spans.len()) {
            (Some(only), 1) => Body::File(only),
            (first, _) => Body::Files(first.into_iter().chain(places).collect()),
        };
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.pop_request();
            peer.send_block(cx, at, body);
        }
        true
    }

    /// Has the first request of a peer read into memory. False: not yet.
    fn load(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, at: BlockRef) -> bool {
        let room = cx.lease.upload_bufs < cx.pool.total() / 2 && cx.pool.available() > 0;
        if !room {
            self.agenda.by(Due::Requests, cx.now + BEAT);
            return false;
        }
        if !self.grant(cx, at) {
            return false;
        }
        let Some(buf) = cx.pool.lend() else { return false };
        let Some(peer) = self.peers.get_mut(slot) else {
            cx.pool.give_back(buf);
            return false;
        };
        peer.pop_request();
        match self.package.load(at, buf, peer.conn().0, &mut cx.out.disk) {
            Ok(()) => peer.loading(cx, at),
            Err(buf) => {
                cx.pool.give_back(buf);
                peer.reject(cx, at);
            }
        }
        true
    }

    fn grant(&mut self, cx: &mut Cx<'_>, at: BlockRef) -> bool {
        let wanted = u64::from(at.len);
        let granted = cx.lease.up.spend(&mut self.up, wanted, cx.now);
        if granted < wanted {
            cx.lease.up.refund(&mut self.up, granted);
            self.agenda.by(Due::Requests, self.up.next_grant().max(cx.now + BEAT));
        }
        granted == wanted
    }

    /// A Block was read for a peer.
    pub(super) fn loaded(&mut self, cx: &mut Cx<'_>, conn: ConnId, at: BlockRef, buf: Buf, good: bool) {
        let slot = self.peers.slot_of(conn);
        match slot.and_then(|slot| self.peers.get_mut(slot)) {
            Some(peer) => peer.loaded(cx, at, buf, good),
            None => {
                cx.pool.give_back(buf);
                cx.lease.upload_bufs -= 1;
            }
        }
        if let Some(slot) = slot {
            self.serve(cx, slot);
        }
    }

    /// A stretch lies in the page cache now, or cannot be read.
    pub(super) fn warmed(&mut self, cx: &mut Cx<'_>, mark: u64, good: bool) {
        let Some((piece, waiting)) = self.warmth.came(cx.now, mark, good) else { return };
        if !good && self.package.unhave(piece) {
            self.unhave(cx, piece);
        }
        for conn in waiting {
            if let Some(slot) = self.peers.slot_of(conn) {
                self.serve(cx, slot);
            }
        }
    }

    /// Something could not be sent from its file, and its connection is lost with it. Which of the Blocks it was nobody
    /// knows; none is believed to be warm any more, and whoever asks for the spoiled one next makes the disk look.
    pub(super) fn unreadable(&mut self, slot: PeerSlot) {
        let Some(peer) = self.peers.get(slot) else { return };
        peer.sending().for_each(|at| self.warmth.forget(at));
    }
}
