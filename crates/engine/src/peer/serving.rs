//! What a peer asked of us, and what it is sent.
//!
//! Owns whether we choke it, its requests, those being loaded, the send queue and the meter. Whom to unchoke and when
//! to load is the Controller's.

use std::collections::VecDeque;

use piecemeal_metainfo::{PieceIndex, Time};
use piecemeal_package::{BlockRef, Buf};
use piecemeal_wire::message::{Message, piece_header};

use super::PeerConnection;
use super::send_queue::{Body, SendQueue, Wrote};
use crate::cx::{Cx, Net};
use crate::rate::Meter;

/// Requests of one peer that are kept: four times what we say we hold (`extensions::REQUESTS_HELD`), 24 KiB.
const MOST_REQUESTS: usize = 2000;

/// See the module.
#[derive(Debug)]
pub(super) struct Serving {
    choked: bool,
    /// When that changed last.
    since: Time,
    /// Bytes sent when it was unchoked last.
    sent_before: u64,
    /// Requests not begun, the oldest first; at most [`MOST_REQUESTS`].
    requests: VecDeque<BlockRef>,
    /// Requests whose Block is being read into a Buf; bounded by the pool.
    loading: Vec<BlockRef>,
    loading_bytes: u64,
    pub(super) queue: SendQueue,
    up: Meter,
    /// Pieces it may ask for while we choke it.
    granted: Vec<PieceIndex>,
}

impl Serving {
    pub(super) fn new(now: Time) -> Serving {
        Serving {
            choked: true,
            since: now,
            sent_before: 0,
            requests: VecDeque::new(),
            loading: Vec::new(),
            loading_bytes: 0,
            queue: SendQueue::default(),
            up: Meter::new(now),
            granted: Vec::new(),
        }
    }

    pub(super) fn up(&self) -> &Meter {
        &self.up
    }

    pub(super) fn on_wrote(&mut self, cx: &mut Cx<'_>, bytes: usize) -> Wrote {
        let before = self.queue.bufs();
        let wrote = self.queue.on_wrote(bytes, cx.pool);
        cx.lease.upload_bufs -= before - self.queue.bufs();
        if wrote.content > 0 {
            self.up.add(wrote.content, cx.now);
        }
        wrote
    }

    pub(super) fn end(&mut self, cx: &mut Cx<'_>) {
        cx.lease.upload_bufs -= self.queue.bufs();
        self.queue.clear(cx.pool);
        self.requests.clear();
        self.loading.clear();
        self.loading_bytes = 0;
    }

    /// Withdraws what `which` picks, wherever it is; returns it.
    fn withdraw(&mut self, cx: &mut Cx<'_>, which: impl Fn(BlockRef) -> bool) -> Vec<BlockRef> {
        let before = self.queue.bufs();
        let mut gone = self.queue.withdraw(cx.pool, &which);
        cx.lease.upload_bufs -= before - self.queue.bufs();
        self.loading.retain(|at| {
            let goes = which(*at);
            if goes {
                self.loading_bytes -= u64::from(at.len);
                gone.push(*at);
            }
            !goes
        });
        self.requests.retain(|at| {
            if which(*at) {
                gone.push(*at);
            }
            !which(*at)
        });
        gone
    }
}

impl PeerConnection {
    /// It gets nothing now.
    pub fn is_choked(&self) -> bool {
        self.serving.choked
    }

    /// When that changed last.
    pub fn choke_since(&self) -> Time {
        self.serving.since
    }

    /// Bytes it took since it was unchoked last.
    pub fn taken(&self) -> u64 {
        self.serving.up.total() - self.serving.sent_before
    }

    /// Whether it may ask for `piece` now.
    pub fn may_ask(&self, piece: PieceIndex) -> bool {
        !self.serving.choked || self.serving.granted.contains(&piece)
    }

    /// Chokes or unchokes it. What was asked for and has not begun to leave is dropped, and rejected (BEP 6), apart from
    /// granted pieces.
    pub fn set_choked(&mut self, cx: &mut Cx<'_>, choked: bool) {
        if std::mem::replace(&mut self.serving.choked, choked) == choked {
            return;
        }
        self.serving.since = cx.now;
        if !choked {
            self.serving.sent_before = self.serving.up.total();
            return self.tell(cx, |out| Message::Unchoke.encode(out));
        }
        self.tell(cx, |out| Message::Choke.encode(out));
        let granted = std::mem::take(&mut self.serving.granted);
        self.refuse(cx, |at| !granted.contains(&at.piece));
        self.serving.granted = granted;
    }

    /// Lets it ask for `pieces` while we choke it (BEP 6, "allowed fast").
    pub fn grant(&mut self, cx: &mut Cx<'_>, pieces: Vec<PieceIndex>) {
        self.tell(cx, |out| {
            pieces.iter().for_each(|piece| Message::AllowedFast { piece: piece.0 }.encode(out));
        });
        self.serving.granted = pieces;
    }

    /// Takes a request; false if there are too many.
    pub fn take_request(&mut self, at: BlockRef) -> bool {
        let room = self.serving.requests.len() + self.serving.loading.len() < MOST_REQUESTS;
        if room {
            self.serving.requests.push_back(at);
        }
        room
    }

    /// Says that a request will not be answered, if the peer understands that.
    pub fn reject(&mut self, cx: &mut Cx<'_>, at: BlockRef) {
        if self.fast {
            self.tell(cx, |out| {
                Message::Reject { piece: at.piece.0, begin: at.begin, len: at.len }.encode(out);
            });
        }
    }

    /// The oldest request that has not begun.
    pub fn first_request(&self) -> Option<BlockRef> {
        self.serving.requests.front().copied()
    }

    /// Takes the oldest request out, to answer it or not.
    pub fn pop_request(&mut self) -> Option<BlockRef> {
        self.serving.requests.pop_front()
    }

    /// Bytes of content that are loaded or being loaded for it.
    pub fn outgoing_bytes(&self) -> u64 {
        self.serving.queue.content() + self.serving.loading_bytes
    }

    /// A Buf is being filled for it.
    pub fn loading(&mut self, cx: &mut Cx<'_>, at: BlockRef) {
        cx.lease.upload_bufs += 1;
        self.serving.loading.push(at);
        self.serving.loading_bytes += u64::from(at.len);
    }

    /// A Buf was filled; sends it, unless it was cancelled meanwhile. Call also when reading failed, with `good` false.
    pub fn loaded(&mut self, cx: &mut Cx<'_>, at: BlockRef, buf: Buf, good: bool) {
        let place = self.serving.loading.iter().position(|other| *other == at);
        if let Some(place) = place {
            self.serving.loading.swap_remove(place);
            self.serving.loading_bytes -= u64::from(at.len);
        }
        if place.is_some() && good {
            return self.send_block(cx, at, Body::Buf(buf));
        }
        cx.pool.give_back(buf);
        cx.lease.upload_bufs -= 1;
        if place.is_some() {
            self.reject(cx, at);
        }
    }

    /// Sends a Block. A Buf must have been counted by [`PeerConnection::loading`].
    pub fn send_block(&mut self, cx: &mut Cx<'_>, at: BlockRef, body: Body) {
        let idle = self.serving.queue.is_empty();
        self.serving.queue.block(at, piece_header(at.piece.0, at.begin, at.len), body);
        if idle {
            cx.out.net.push(Net::Write(self.conn));
        }
    }

    /// The Blocks on their way to it.
    pub fn sending(&self) -> impl Iterator<Item = BlockRef> + '_ {
        self.serving.queue.blocks()
    }

    /// All requests for `piece` are withdrawn: it cannot be read.
    pub fn withdraw_piece(&mut self, cx: &mut Cx<'_>, piece: PieceIndex) {
        self.refuse(cx, |at| at.piece == piece);
    }

    /// The peer takes a request back; BEP 6 wants that answered too.
    pub(super) fn cancelled(&mut self, cx: &mut Cx<'_>, at: BlockRef) {
        self.refuse(cx, |other| other == at);
    }

    /// Withdraws what `which` picks, and says so.
    fn refuse(&mut self, cx: &mut Cx<'_>, which: impl Fn(BlockRef) -> bool) {
        let gone = self.serving.withdraw(cx, which);
        gone.into_iter().for_each(|at| self.reject(cx, at));
    }
}
