//! Peers coming and going: dialing, joining, what they say of themselves, choking, parting.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::{Bitfield, PieceIndex};
use piecemeal_wire::allowed_fast::allowed_fast_set;

use super::Controller;
use super::agenda::Due;
use crate::choker::{ChokeFacts, JUDGE_EVERY};
use crate::cx::{Cx, Goodbye, Handed, Net, News, Note};
use crate::peer::{Hello, Ourselves, PeerConnection};
use crate::picker::{Has, PeerSlot};
use crate::swarm::{PeerSource, Twin, normal};

/// A peer hears from us at least this often; BEP 3: keepalives "are generally sent once every two minutes".
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(100);
/// A peer that says nothing for longer is gone; longer than two minutes, and some for the way.
const SILENT_AFTER: Duration = Duration::from_secs(150);
/// How often quiet peers are looked for.
const REAP_EVERY: Duration = Duration::from_secs(20);
/// Pieces a peer may ask for while it is choked (libtorrent's `allowed_fast_set_size`, also 5).
const ALLOWED_FAST: usize = 5;

impl Controller {
    /// Dials whose time has come, while there is room.
    pub(super) fn connect(&mut self, cx: &mut Cx<'_>) {
        self.finder.connect(cx, self.peers.len());
        self.plan_search();
    }

    /// When to dial and to announce next.
    pub(super) fn plan_search(&mut self) {
        self.agenda.set(Due::Connect, self.finder.next_dial(self.peers.len()));
        self.agenda.set(Due::Announce, self.finder.next_announce());
    }

    /// A dial came to nothing.
    pub fn on_dial_failed(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        self.finder.on_dial_failed(cx, to, why);
        self.ask_to_punch(cx, to, why);
        self.plan_search();
    }

    /// Addresses to try.
    pub fn learn(&mut self, cx: &mut Cx<'_>, peers: &[SocketAddr], source: PeerSource) {
        self.finder.learn(cx.now, peers.iter().copied(), source);
        self.plan_search();
    }

    /// A peer is here.
    ///
    /// # Errors
    /// Why it cannot stay.
    pub(super) fn join(&mut self, cx: &mut Cx<'_>, handed: &Handed) -> Result<(), Goodbye> {
        let Handed { addr, peer_id, outgoing, .. } = *handed;
        let twin = self.finder.twin(cx.now, addr, peer_id, outgoing);
        match twin {
            Twin::None => self.make_room_for(cx, addr),
            // It would only be refused; nobody has to leave for that.
            Twin::Stays => {}
            Twin::Yields(other) => self.end_twin(cx, other),
        }
        self.finder.admit(cx.now, addr, peer_id, outgoing, self.peers.len())?;
        if let Twin::Yields(other) = twin {
            self.finder.replaced(addr, other);
        }
        let mut peer = PeerConnection::new(cx.now, handed, Some(self.meta.piece_count()));
        peer.introduce_us(cx, self.package.have());
        let told = self.finder.port_for(cx, addr);
        let ourselves = Ourselves {
            client: &self.settings.client,
            port: told,
            upload_only: self.package.is_complete(),
            metadata_size: u32::try_from(self.meta.raw_info().len()).ok(),
            pex: !self.meta.info().private,
            holepunch: self.punches(),
        };
        peer.greet(cx, &ourselves);
        if self.settings.dht && !self.meta.info().private {
            peer.tell_node(cx, told);
        }
        if peer.is_fast() && !self.package.have().none() {
            let hash = self.meta.wire_hash();
            let set = allowed_fast_set(hash, handed.addr.ip(), self.meta.piece_count(), ALLOWED_FAST);
            let have = self.package.have();
            peer.grant(cx, set.into_iter().filter(|piece| have.get(*piece)).collect());
        }
        self.picker.peer_joined(peer.has_for_picker());
        self.peers.insert(peer);
        self.agenda.by(Due::Reap, cx.now + REAP_EVERY);
        self.plan_pex(cx);
        self.plan_search();
        Ok(())
    }

    /// The same peer has another connection, which both ends think better.
    fn end_twin(&mut self, cx: &mut Cx<'_>, addr: SocketAddr) {
        let same = |peer: &PeerConnection| normal(peer.addr()) == addr;
        let slot = self.peers.iter().find(|(_, peer)| same(peer)).map(|(slot, _)| slot);
        if let Some(slot) = slot {
            self.send_away(cx, slot, Goodbye::Duplicate);
        }
    }

    /// Where there are peers enough, the one whose connection is worth least leaves, if it is worth less than the
    /// newcomer's (BEP 40).
    fn make_room_for(&mut self, cx: &mut Cx<'_>, addr: SocketAddr) {
        if !self.finder.is_crowded(self.peers.len()) {
            return;
        }
        let peers = self.peers.iter().map(|(slot, peer)| (peer.addr(), slot));
        if let Some(slot) = cx.lease.outside.worth_less(addr, peers) {
            self.send_away(cx, slot, Goodbye::Crowded);
        }
    }

    /// A peer told all it has.
    pub(super) fn introduced(
        &mut self,
        cx: &mut Cx<'_>,
        slot: PeerSlot,
        before: &Bitfield,
        had_all: bool,
    ) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        self.picker.peer_left(if had_all { Has::All } else { Has::Bits(before) });
        self.picker.peer_joined(peer.has_for_picker());
        self.finder.set_seed(peer.addr(), peer.is_seed());
        self.update_interest(cx, slot);
        self.note_seed(slot)
    }

    /// A peer has one more piece.
    pub(super) fn has_piece(
        &mut self,
        cx: &mut Cx<'_>,
        slot: PeerSlot,
        piece: PieceIndex,
    ) -> Result<(), Goodbye> {
        self.picker.has(piece);
        if self.picker.lacks(piece)
            && let Some(peer) = self.peers.get_mut(slot)
        {
            peer.set_interested(cx, true);
        }
        self.note_seed(slot)
    }

    /// A peer has one piece less.
    pub(super) fn has_no_more(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, piece: PieceIndex, had_all: bool) {
        let Some(peer) = self.peers.get(slot) else { return };
        if had_all {
            self.picker.peer_left(Has::All);
            self.picker.peer_joined(peer.has_for_picker());
        } else {
            self.picker.has_no_more(piece);
        }
        self.finder.set_seed(peer.addr(), false);
        self.update_interest(cx, slot);
    }

    /// Where a peer listens, and whether it is of use.
    pub(super) fn hello(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, hello: Hello) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        self.finder.hello(cx, peer.addr(), peer.is_outgoing(), hello);
        self.note_seed(slot)
    }

    /// A peer asks for a piece of the info dictionary.
    pub(super) fn give_metadata(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, piece: u32) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.give_metadata(cx, self.meta.raw_info(), piece);
        }
    }

    /// A peer has a node of the DHT.
    pub(super) fn has_node(&self, cx: &mut Cx<'_>, slot: PeerSlot, port: u16) {
        if let Some(peer) = self.peers.get(slot) {
            cx.out.notes.push(Note::Node(SocketAddr::new(peer.addr().ip(), port)));
        }
    }

    /// Two that want nothing part.
    fn note_seed(&mut self, slot: PeerSlot) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        if peer.is_seed() {
            self.finder.set_seed(peer.addr(), true);
        }
        let useless = self.package.is_complete() && peer.is_introduced() && peer.is_upload_only();
        if useless { Err(Goodbye::Useless) } else { Ok(()) }
    }

    /// Makes the choke states agree with what the Choker says.
    pub(super) fn choke(&mut self, cx: &mut Cx<'_>) {
        let seeding = self.package.is_complete();
        let facts: Vec<_> = self.peers.iter().map(|(slot, peer)| facts_of(slot, peer, cx)).collect();
        let mut unchoked = Vec::with_capacity(facts.len());
        self.choker.judge(cx.now, seeding, &facts, cx.rng, &mut unchoked);
        for slot in self.peers.round(0) {
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.set_choked(cx, !unchoked.contains(&slot));
            }
            // What a choke withdrew makes room for what was granted beside it, and no write will tell of that.
            self.serve(cx, slot);
        }
        let due = cx.now + JUDGE_EVERY;
        let rotation = self.choker.next_rotation();
        // Nobody to choose from: the next who wants something asks for a judgement.
        if facts.iter().any(|peer| peer.interested) || !unchoked.is_empty() {
            self.agenda.by(Due::Choke, if rotation > cx.now { rotation.min(due) } else { due });
        }
    }

    /// Tells quiet peers that we live; lets go of those that are silent, or that neither side needs, and at times of a few
    /// that others may be better than.
    pub(super) fn reap(&mut self, cx: &mut Cx<'_>) {
        for slot in self.peers.round(0) {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            if cx.now.since(peer.last_heard()) >= SILENT_AFTER {
                self.send_away(cx, slot, Goodbye::Silent);
            } else if self.note_seed(slot).is_err() {
                self.send_away(cx, slot, Goodbye::Useless);
            } else if let Some(peer) = self.peers.get_mut(slot)
                && cx.now.since(peer.last_sent()) >= KEEP_ALIVE_AFTER
            {
                peer.keep_alive(cx);
            }
        }
        self.turn_over(cx);
        if self.peers.len() > 0 {
            self.agenda.set(Due::Reap, cx.now + REAP_EVERY);
        }
    }

    /// Never again speaks to whoever is at the address of `who`.
    pub(super) fn ban(&mut self, cx: &mut Cx<'_>, who: SocketAddr, why: Goodbye) {
        let ip = who.ip().to_canonical();
        cx.out.news.push(News::Banned(self.torrent, who, why.clone()));
        self.finder.ban(who);
        for slot in self.peers.round(0) {
            if self.peers.get(slot).is_some_and(|peer| peer.addr().ip().to_canonical() == ip) {
                self.send_away(cx, slot, why.clone());
            }
        }
    }

    /// Ends the connections with those who may not be talked to.
    pub(super) fn send_blocked_away(&mut self, cx: &mut Cx<'_>) {
        for slot in self.peers.round(0) {
            if self.peers.get(slot).is_some_and(|peer| cx.lease.gate.blocks(peer.addr().ip())) {
                self.send_away(cx, slot, Goodbye::Banned);
            }
        }
    }

    /// Ends a connection from our side.
    pub(super) fn send_away(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, why: Goodbye) {
        let Some(peer) = self.peers.get(slot) else { return };
        let conn = peer.conn();
        self.part(cx, slot, &why);
        cx.out.net.push(Net::Close(conn, why));
    }

    /// Ends all connections from our side.
    pub(super) fn send_all_away(&mut self, cx: &mut Cx<'_>, why: &Goodbye) {
        for slot in self.peers.round(0) {
            self.send_away(cx, slot, why.clone());
        }
    }

    /// A connection is over: what it claimed is free again, its memory goes back.
    pub(super) fn part(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, why: &Goodbye) {
        let Some(mut peer) = self.peers.remove(slot) else { return };
        self.picker.forget_peer(slot);
        self.picker.peer_left(peer.has_for_picker());
        let spoke = peer.is_introduced() || peer.down().total() > 0;
        self.finder.parted(cx.now, peer.addr(), why, spoke);
        self.left.push(peer.conn());
        peer.end(cx);
        if self.is_running() {
            self.plan_search();
            // Its slot is free for another, and its Blocks for others.
            self.agenda.by(Due::Choke, cx.now);
            self.agenda.by(Due::Requests, cx.now);
        }
        self.touch(cx.now);
    }
}

fn facts_of(slot: PeerSlot, peer: &PeerConnection, cx: &Cx<'_>) -> ChokeFacts<PeerSlot> {
    ChokeFacts {
        who: slot,
        interested: peer.wants_us(),
        gives: peer.down().rate(cx.now),
        takes: peer.up().rate(cx.now),
        taken: peer.taken(),
        snubbed: peer.is_snubbed(),
        connected_at: peer.connected_at(),
        since: peer.choke_since(),
        choked: peer.is_choked(),
        upload_only: peer.is_upload_only(),
    }
}
