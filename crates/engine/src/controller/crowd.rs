//! Peers coming and going: dialing, joining, what they say of themselves, choking, parting.

use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_discovery::tracker::{Heard as TrackerHeard, Outcome};
use piecemeal_metainfo::PieceIndex;
use piecemeal_wire::allowed_fast::allowed_fast_set;

use super::Controller;
use super::agenda::Due;
use crate::choker::{ChokeFacts, JUDGE_EVERY};
use crate::cx::{Cx, Goodbye, Handed, Net, News, Note};
use crate::peer::{Hello, Ourselves, PeerConnection};
use crate::picker::{Has, PeerSlot};
use crate::swarm::{PeerSource, Refusal, Why};

/// Dials a torrent may have under way, so that one with a thousand addresses leaves room for others.
const MOST_DIALING: usize = 32;
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
        if !self.is_running() {
            return;
        }
        while self.has_room() {
            let Some(to) = self.swarm.next_to_dial(cx.now, cx.rng) else { break };
            self.dialing += 1;
            cx.out.notes.push(Note::Dial { torrent: self.torrent, to });
        }
        self.plan_dials();
    }

    fn has_room(&self) -> bool {
        self.dialing < MOST_DIALING && self.peers.len() + self.dialing < self.settings.max_conns_per_torrent
    }

    /// When the next dial is due.
    fn plan_dials(&mut self) {
        let due = self.is_running() && self.has_room();
        let at = if due { self.swarm.next_due() } else { piecemeal_metainfo::Time::NEVER };
        self.agenda.set(Due::Connect, at);
    }

    /// A dial came to nothing.
    pub fn on_dial_failed(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        self.dialing = self.dialing.saturating_sub(1);
        match why {
            Goodbye::Crowded | Goodbye::Leaving => self.swarm.dial_postponed(to, cx.now),
            Goodbye::Ourselves => {
                let ourselves = self.settings.peer_id;
                // The answer is known; asking makes the Swarm remember the address as ours.
                let _ = self.swarm.connected(to, ourselves, false, cx.now);
            }
            _ => self.swarm.dial_failed(to, cx.now),
        }
        self.plan_dials();
    }

    /// Peers the user named.
    pub(super) fn add_peers(&mut self, cx: &mut Cx<'_>, peers: &[SocketAddr]) {
        for addr in peers {
            self.swarm.learn(*addr, PeerSource::Manual, cx.now);
        }
        self.agenda.by(Due::Connect, cx.now);
    }

    /// A tracker gave addresses, or words.
    pub(super) fn tracker_said(&mut self, cx: &mut Cx<'_>, heard: TrackerHeard) {
        if let Outcome::Answered { peers, .. } = &heard.outcome {
            for addr in peers {
                self.swarm.learn(*addr, PeerSource::Tracker, cx.now);
            }
            self.plan_dials();
        }
        cx.out.news.push(News::Tracker(self.torrent, heard));
    }

    /// A peer is here.
    ///
    /// # Errors
    /// Why it cannot stay.
    pub(super) fn join(&mut self, cx: &mut Cx<'_>, handed: &Handed) -> Result<(), Goodbye> {
        if handed.outgoing {
            self.dialing = self.dialing.saturating_sub(1);
        }
        if !self.is_running() {
            self.swarm.dial_postponed(handed.addr, cx.now);
            return Err(Goodbye::Unknown);
        }
        if self.peers.len() >= self.settings.max_conns_per_torrent {
            self.swarm.dial_postponed(handed.addr, cx.now);
            return Err(Goodbye::Crowded);
        }
        let may_stay = self.swarm.connected(handed.addr, handed.peer_id, !handed.outgoing, cx.now);
        may_stay.map_err(|refusal| match refusal {
            Refusal::Duplicate => Goodbye::Duplicate,
            Refusal::Ourselves => Goodbye::Ourselves,
            Refusal::Banned => Goodbye::Banned,
            Refusal::Crowded => Goodbye::Crowded,
        })?;
        let mut peer = PeerConnection::new(cx.now, handed, self.meta.piece_count());
        peer.introduce_us(cx, self.package.have());
        let ourselves = Ourselves {
            client: &self.settings.client,
            port: self.settings.port,
            upload_only: self.package.is_complete(),
        };
        peer.greet(cx, &ourselves);
        if peer.is_fast() && !self.package.have().none() {
            let hash = self.meta.wire_hash();
            let set = allowed_fast_set(hash, handed.addr.ip(), self.meta.piece_count(), ALLOWED_FAST);
            let have = self.package.have();
            peer.grant(cx, set.into_iter().filter(|piece| have.get(*piece)).collect());
        }
        self.picker.peer_joined(peer.has_for_picker());
        self.peers.insert(peer);
        self.agenda.by(Due::Reap, cx.now + REAP_EVERY);
        self.plan_dials();
        Ok(())
    }

    /// A peer told all it has.
    pub(super) fn introduced(&mut self, cx: &mut Cx<'_>, slot: PeerSlot) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        let nothing = piecemeal_metainfo::Bitfield::new(self.meta.piece_count());
        self.picker.peer_left(Has::Bits(&nothing));
        self.picker.peer_joined(peer.has_for_picker());
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
            && let Some(peer) = self.peer(slot)
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
        self.swarm.set_seed(peer.addr(), false);
        self.update_interest(cx, slot);
    }

    /// Where a peer listens, and whether it is of use.
    pub(super) fn hello(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, hello: Hello) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        if let Some(port) = hello.port.filter(|_| !peer.is_outgoing()) {
            self.swarm.listens_at(peer.addr(), port, cx.now);
        }
        self.note_seed(slot)
    }

    /// Two that want nothing part.
    fn note_seed(&mut self, slot: PeerSlot) -> Result<(), Goodbye> {
        let Some(peer) = self.peers.get(slot) else { return Ok(()) };
        if peer.is_seed() {
            self.swarm.set_seed(peer.addr(), true);
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
        for (slot, peer) in self.peers.iter_mut() {
            peer.set_choked(cx, !unchoked.contains(&slot));
        }
        let due = cx.now + JUDGE_EVERY;
        let rotation = self.choker.next_rotation();
        // Nobody to choose from: the next who wants something asks for a judgement.
        if facts.iter().any(|peer| peer.interested) || !unchoked.is_empty() {
            self.agenda.by(Due::Choke, if rotation > cx.now { rotation.min(due) } else { due });
        }
    }

    /// Tells quiet peers that we live; lets go of those that are silent, or that neither side needs.
    pub(super) fn reap(&mut self, cx: &mut Cx<'_>) {
        for slot in self.peers.round(0) {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            if cx.now.since(peer.last_heard()) >= SILENT_AFTER {
                self.send_away(cx, slot, Goodbye::Silent);
            } else if self.note_seed(slot).is_err() {
                self.send_away(cx, slot, Goodbye::Useless);
            } else if let Some(peer) = self.peer(slot)
                && cx.now.since(peer.last_sent()) >= KEEP_ALIVE_AFTER
            {
                peer.keep_alive(cx);
            }
        }
        if self.peers.len() > 0 {
            self.agenda.set(Due::Reap, cx.now + REAP_EVERY);
        }
    }

    /// Never again speaks to whoever is at the address of `who`.
    pub(super) fn ban(&mut self, cx: &mut Cx<'_>, who: SocketAddr, why: Goodbye) {
        let ip = who.ip().to_canonical();
        cx.out.news.push(News::Banned(self.torrent, who, why.clone()));
        self.swarm.ban(ip);
        for slot in self.peers.round(0) {
            if self.peers.get(slot).is_some_and(|peer| peer.addr().ip().to_canonical() == ip) {
                self.send_away(cx, slot, why.clone());
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
        let never_spoke = !peer.is_introduced() && peer.down().total() == 0;
        let why = match why {
            Goodbye::Broke(_) | Goodbye::Poisoned | Goodbye::Banned | Goodbye::Silent => Why::Fault,
            Goodbye::Closed | Goodbye::Failed(_) if never_spoke => Why::Fault,
            Goodbye::Useless => Why::Idle,
            _ => Why::Normal,
        };
        self.swarm.disconnected(peer.addr(), cx.now, why);
        self.left.push(peer.conn());
        peer.end(cx);
        if self.is_running() {
            self.plan_dials();
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
