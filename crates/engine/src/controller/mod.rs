//! One torrent: its peers, its trackers, its Package, and the parts that decide.
//!
//! The Controller is a conductor. It owns the PeerConnections, the Trackers, the Package, the Picker, the Choker and the
//! Swarm, tells each what the others need to know, and keeps the agenda; it decides nothing that one of them could.
//!
//! - here: what comes in, and to whom it goes. - `agenda`: what is due. - `life`: opening, running, pausing, trouble,
//!   leaving. - `crowd`: peers coming and going, dialing, choking. - `download`: Blocks in. - `upload`: Blocks out.
//! - `turnover`: who makes room for others. - `pex`: peers of peers. - `punch`: holes through NATs. - `blame`: who spoiled
//!   a Piece. - `warmth`: what lies in the page cache. - `snapshot`: how it stands.

mod agenda;
mod blame;
mod crowd;
mod download;
mod life;
mod peers;
mod pex;
mod punch;
mod snapshot;
mod turnover;
mod upload;
mod warmth;

use std::sync::Arc;

use piecemeal_discovery::tracker::{FetchFailure, FetchId};
use piecemeal_metainfo::{Metainfo, Time, TorrentId};
use piecemeal_package::{BlockRef, Done, Package, PackageNews, Span};

use crate::choker::Choker;
use crate::cx::{Ate, Change, ConnId, Cx, Goodbye, Handed, Options, Sending, Settings};
use crate::finder::Finder;
use crate::peer::{Heard, Next};
use crate::picker::{PeerSlot, Picker};
use crate::rate::Budget;
use crate::swarm::PeerSource;
pub(crate) use agenda::BEAT;
use agenda::{Agenda, Due};
use blame::Blame;
use life::Life;
use peers::Peers;
use pex::Gossip;
pub(crate) use pex::believable;
use punch::Punches;
use snapshot::Ledger;
use warmth::Warmth;

/// See the module.
pub struct Controller {
    torrent: TorrentId,
    meta: Arc<Metainfo>,
    settings: Arc<Settings>,
    options: Options,
    life: Life,
    package: Package,
    picker: Picker,
    choker: Choker<PeerSlot>,
    finder: Finder,
    peers: Peers,
    blame: Blame,
    warmth: Warmth,
    gossip: Gossip,
    punches: Punches,
    down: Budget,
    up: Budget,
    agenda: Agenda,
    ledger: Ledger,
    /// When peers of no use may next make room for others.
    turnover_at: Time,
    /// Connections that ended, for the Shard to forget; emptied after each call.
    left: Vec<ConnId>,
    /// Opaque mark of this boot of the machine.
    boot: [u8; 16],
    /// Grows with each round over the peers, so that it is not always the same that come first.
    turn: u32,
    /// Kept for their memory.
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    news: Vec<PackageNews>,
    picked: Vec<BlockRef>,
    cancels: Vec<(PeerSlot, BlockRef)>,
    spans: Vec<Span>,
}

impl Controller {
    /// Bytes came from a peer. All are eaten unless there is no memory for a Block.
    pub fn on_bytes(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: &[u8]) -> Ate {
        let all = Ate { bytes: bytes.len(), thirsty: false };
        let Some(slot) = self.peers.slot_of(conn) else { return all };
        let mut input = bytes;
        let mut thirsty = false;
        while let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.conn() == conn) {
            let heard = match peer.next(cx, &mut input) {
                Ok(Next::Heard(heard)) => self.heard(cx, slot, heard),
                Ok(Next::More) => break,
                Ok(Next::Thirsty) => {
                    thirsty = true;
                    break;
                }
                Err(goodbye) => Err(goodbye),
            };
            if let Err(goodbye) = heard {
                self.send_away(cx, slot, goodbye);
                return all;
            }
        }
        // Once for all Blocks that came together, so that the requests leave together.
        self.request(cx, slot);
        self.touch(cx.now);
        if thirsty { Ate { bytes: bytes.len() - input.len(), thirsty } } else { all }
    }

    fn heard(&mut self, cx: &mut Cx<'_>, slot: PeerSlot, heard: Heard) -> Result<(), Goodbye> {
        match heard {
            Heard::Block { at, buf, asked } => self.received_block(cx, slot, at, buf, asked),
            Heard::Unasked(bytes) => self.ledger.wasted += u64::from(bytes),
            Heard::Choked(lost) => self.choked(slot, &lost),
            Heard::Unchoked | Heard::AllowedFast(_) => {}
            Heard::Interested(_) => self.agenda.by(Due::Choke, cx.now),
            Heard::Pieces { before, had_all } => return self.introduced(cx, slot, &before, had_all),
            Heard::Have(piece) => return self.has_piece(cx, slot, piece),
            Heard::DontHave { piece, had_all } => self.has_no_more(cx, slot, piece, had_all),
            Heard::Request(at) => return self.wants_block(cx, slot, at),
            Heard::Cancelled => self.serve(cx, slot),
            Heard::Rejected(at) => self.rejected(cx, slot, at),
            Heard::Hello(hello) => return self.hello(cx, slot, hello),
            Heard::WantsMetadata(piece) => self.give_metadata(cx, slot, piece),
            // We have it.
            Heard::Metadata { .. } | Heard::NoMetadata(_) => {}
            Heard::Pex(message) => self.told_of_peers(cx, slot, &message),
            Heard::Holepunch(message) => self.heard_holepunch(cx, slot, message),
            Heard::Node(port) => self.has_node(cx, slot, port),
        }
        Ok(())
    }

    /// The socket of a peer took bytes.
    pub fn on_wrote(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: usize) {
        let Some(slot) = self.peers.slot_of(conn) else { return };
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let wrote = peer.on_wrote(cx, bytes);
        if wrote.content > 0 {
            self.ledger.up.add(wrote.content, cx.now);
            self.touch(cx.now);
            self.serve(cx, slot);
        }
    }

    /// Shows what a peer is to be sent next.
    pub fn with_sealed<R>(&self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        self.peers.get(self.peers.slot_of(conn)?)?.with_sealed(f)
    }

    /// A peer's connection has ended.
    pub fn on_closed(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: &Goodbye) {
        let Some(slot) = self.peers.slot_of(conn) else { return };
        if let Goodbye::Unreadable(_) = why {
            self.unreadable(slot);
        }
        self.part(cx, slot, why);
    }

    /// A peer whose handshake is done, and what came behind it.
    ///
    /// # Errors
    /// Why it cannot stay.
    pub fn on_handed(&mut self, cx: &mut Cx<'_>, handed: &Handed) -> Result<(), Goodbye> {
        self.join(cx, handed)?;
        self.on_bytes(cx, handed.conn, &handed.leftover);
        Ok(())
    }

    /// A Job was done.
    pub fn on_disk(&mut self, cx: &mut Cx<'_>, done: Done) {
        let mut news = std::mem::take(&mut self.scratch.news);
        self.package.on_done(cx.now, cx.pool, done, &mut cx.out.disk, &mut news);
        for one in news.drain(..) {
            self.on_package(cx, one);
        }
        self.scratch.news = news;
        self.agenda.set(Due::Flush, self.package.next_due());
        self.touch(cx.now);
    }

    fn on_package(&mut self, cx: &mut Cx<'_>, news: PackageNews) {
        match news {
            PackageNews::Opened => self.opened(cx),
            PackageNews::Checked { .. } | PackageNews::CheckedAll => {}
            PackageNews::PieceDone(piece) => self.have_piece(cx, piece),
            PackageNews::PieceBad(piece) => self.bad_piece(cx, piece),
            PackageNews::Lost(at) => drop(self.picker.drop_block(at)),
            PackageNews::Unhave(piece) => self.unhave(cx, piece),
            PackageNews::Loaded { ticket, at, buf, result } => {
                self.loaded(cx, ConnId(ticket), at, buf, result.is_ok());
                self.doubt(cx, &result);
            }
            PackageNews::Warmed { ticket, result } => {
                self.warmed(cx, ticket, result.is_ok());
                self.doubt(cx, &result);
            }
            PackageNews::Trouble(trouble) => self.troubled(cx, trouble),
            PackageNews::Recovered => self.recovered(cx),
            PackageNews::Facts(facts) => self.facts(cx, facts),
            PackageNews::Fenced(fence, result) => self.fenced(cx, &fence, result.is_ok()),
        }
    }

    /// A tracker answered, or did not.
    pub fn on_fetched(&mut self, cx: &mut Cx<'_>, fetch: FetchId, result: Result<&[u8], FetchFailure>) {
        self.finder.on_fetched(cx, fetch, result);
        self.plan_search();
        self.touch(cx.now);
    }

    /// The user changes something.
    pub fn on_change(&mut self, cx: &mut Cx<'_>, change: Change) {
        match change {
            Change::Options(options) => self.set_options(cx, options),
            Change::Wanted(wanted) => self.set_wanted(cx, wanted),
            Change::AddPeers(peers) => self.learn(cx, &peers, PeerSource::Manual),
            Change::Retry => self.retry(cx),
            Change::Recheck => self.recheck(cx),
            Change::Announce => {
                self.finder.announce_now(cx.now);
                self.plan_search();
            }
            // Nothing changed; what the trackers answer will.
            Change::Look => return self.finder.look(cx),
            Change::Reconnect => {
                self.finder.reconnect(cx.now);
                self.plan_search();
            }
            Change::Save => self.package.ask_facts(cx.now, &mut cx.out.disk),
        }
        self.touch(cx.now);
    }

    /// Peers reach us elsewhere now.
    pub fn moved(&mut self, cx: &mut Cx<'_>) {
        self.finder.moved(cx);
        self.plan_search();
    }

    /// Those who may not be talked to any more leave.
    pub fn gate_changed(&mut self, cx: &mut Cx<'_>) {
        self.send_blocked_away(cx);
        self.finder.set_gate(cx.lease.gate.clone());
        self.plan_search();
    }

    /// Does what is due.
    pub fn heartbeat(&mut self, cx: &mut Cx<'_>) {
        while let Some(due) = self.agenda.take(cx.now) {
            match due {
                Due::Requests => self.tend(cx),
                Due::Choke => self.choke(cx),
                Due::Reap => self.reap(cx),
                Due::Connect => self.connect(cx),
                Due::Announce => self.announce(cx),
                Due::Pex => self.tell_of_peers(cx),
                Due::Flush => {
                    self.package.tick(cx.now, false, &mut cx.out.disk);
                    self.agenda.set(Due::Flush, self.package.next_due());
                }
                Due::Retry => self.retry(cx),
                Due::Resume => self.package.ask_facts(cx.now, &mut cx.out.disk),
                Due::Snapshot => self.snapshot(cx),
            }
        }
    }

    /// When [`Controller::heartbeat`] has something to do.
    pub fn next_heartbeat(&self) -> Time {
        self.agenda.next()
    }

    /// Connections that ended since the last call.
    pub fn take_left(&mut self) -> impl Iterator<Item = ConnId> + '_ {
        self.left.drain(..)
    }
}
