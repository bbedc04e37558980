//! The seeker of a magnet link: finds peers, and fetches the info dictionary from them (BEP 9).
//!
//! It stands in a Controller's place until there is something to control: the same Finder, the same PeerConnections, no
//! Package. Owns the assembly of the dictionary and who sent which part. What the dictionary says is judged by whoever
//! hears [`News::Metadata`], by the same function as a .torrent file.
//!
//! Parts are asked of all peers at once, one of each; what was not asked for is passed over. When the whole is wrong, all
//! who sent a part are suspects, and each suspect must from then on bring the whole alone: whoever brings a wrong one is
//! banned.

mod assembly;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::tracker::{AnnounceFacts, FetchFailure, FetchId};
use piecemeal_metainfo::{InfoHashes, Time, TorrentId, sha1, sha256};

use crate::controller::{BEAT, believable};
use crate::cx::{Ate, Change, ConnId, Cx, Goodbye, Handed, Net, News, Seeking, Sending, Settings};
use crate::finder::Finder;
use crate::peer::{Heard, Next, Ourselves, PeerConnection};
use crate::swarm::{PeerSource, Twin, normal};
use assembly::{Assemblies, Took};

/// A peer that was asked for a part and did not send it for so long is not asked again until it does.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often peers are looked after.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Peers that know nothing go after this, to make room.
const USELESS_AFTER: Duration = Duration::from_secs(30);
/// Peers asked of a tracker.
const WANT: u32 = 200;
/// Good addresses handed on with the dictionary.
const MOST_HANDED_ON: usize = 200;

/// See the module.
pub(crate) struct Seeker {
    torrent: TorrentId,
    settings: Arc<Settings>,
    hashes: InfoHashes,
    finder: Finder,
    peers: BTreeMap<ConnId, Seat>,
    assemblies: Assemblies,
    left: Vec<ConnId>,
    next: Time,
    /// Trackers hear that we leave even when it is found.
    leave: bool,
    /// Peers connected and addresses known, as they were told last.
    told: Option<(usize, usize)>,
    leaving: bool,
}

struct Seat {
    peer: PeerConnection,
    /// The part it was asked for, and since when.
    asked: Option<(u32, Time)>,
    /// It lets us wait, or said that it has none.
    refuses: bool,
}

impl Seat {
    fn is_asked(&self, part: u32) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == part)
    }
}

impl Seeker {
    pub(crate) fn new(cx: &mut Cx<'_>, settings: Arc<Settings>, seeking: Seeking) -> Seeker {
        let Seeking { torrent, hashes, trackers, peers, leave } = seeking;
        let tiers: Vec<_> = trackers.into_iter().map(|url| vec![url]).collect();
        let mut finder = Finder::new(cx, torrent, settings.clone(), hashes.wire(), &tiers, false);
        finder.learn(cx.now, peers, PeerSource::Manual);
        finder.start(cx);
        Seeker {
            torrent,
            settings,
            hashes,
            finder,
            peers: BTreeMap::new(),
            assemblies: Assemblies::default(),
            left: Vec::new(),
            next: cx.now,
            leave,
            told: None,
            leaving: false,
        }
    }

    pub(crate) fn on_handed(&mut self, cx: &mut Cx<'_>, handed: &Handed) -> Result<(), Goodbye> {
        let Handed { conn, addr, peer_id, outgoing, .. } = *handed;
        let twin = self.finder.twin(cx.now, addr, peer_id, outgoing);
        if let Twin::Yields(other) = twin {
            self.end_twin(cx, other);
        }
        self.finder.admit(cx.now, addr, peer_id, outgoing, self.peers.len())?;
        if let Twin::Yields(other) = twin {
            self.finder.replaced(addr, other);
        }
        let mut peer = PeerConnection::new(cx.now, handed, None);
        let ourselves = Ourselves {
            client: &self.settings.client,
            port: self.finder.port_for(cx, addr),
            upload_only: false,
            metadata_size: None,
            pex: true,
            holepunch: false,
        };
        peer.greet(cx, &ourselves);
        self.peers.insert(conn, Seat { peer, asked: None, refuses: false });
        self.next = self.next.min(next_beat(cx.now));
        self.on_bytes(cx, conn, &handed.leftover);
        Ok(())
    }

    /// The same peer has another connection, which both ends think better.
    fn end_twin(&mut self, cx: &mut Cx<'_>, addr: SocketAddr) {
        let same = |seat: &Seat| normal(seat.peer.addr()) == addr;
        let conn = self.peers.iter().find(|(_, seat)| same(seat)).map(|(conn, _)| *conn);
        if let Some(conn) = conn {
            self.send_away(cx, conn, Goodbye::Duplicate);
        }
    }

    pub(crate) fn on_bytes(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: &[u8]) -> Ate {
        let mut input = bytes;
        while let Some(seat) = self.peers.get_mut(&conn) {
            let heard = match seat.peer.next(cx, &mut input) {
                Ok(Next::Heard(heard)) => self.heard(cx, conn, heard),
                Ok(Next::More | Next::Thirsty) => break,
                Err(goodbye) => Err(goodbye),
            };
            if let Err(goodbye) = heard {
                self.send_away(cx, conn, goodbye);
            }
        }
        self.ask(cx, conn);
        Ate { bytes: bytes.len(), thirsty: false }
    }

    fn heard(&mut self, cx: &mut Cx<'_>, conn: ConnId, heard: Heard) -> Result<(), Goodbye> {
        let Some(seat) = self.peers.get_mut(&conn) else { return Ok(()) };
        let addr = seat.peer.addr();
        match heard {
            Heard::Hello(hello) => {
                let outgoing = seat.peer.is_outgoing();
                self.finder.hello(cx, addr, outgoing, hello);
            }
            Heard::Metadata { piece, total, data } if seat.is_asked(piece) => {
                // Who speaks of one size and sends of another has nothing to give.
                (seat.asked, seat.refuses) = (None, seat.peer.metadata_size() != Some(total));
                if !seat.refuses {
                    let took = self.assemblies.take(cx.now, addr, total, piece, data);
                    self.took(cx, took);
                }
            }
            Heard::NoMetadata(piece) if seat.is_asked(piece) => {
                (seat.asked, seat.refuses) = (None, true);
                self.assemblies.gave_up(addr.ip());
            }
            Heard::WantsMetadata(piece) => seat.peer.give_metadata(cx, &[], piece),
            Heard::Pex(message) => {
                self.finder.learn(cx.now, believable(addr.ip(), &message), PeerSource::Pex);
            }
            Heard::Block { buf, .. } => cx.pool.give_back(buf),
            _ => {}
        }
        Ok(())
    }

    /// A part was taken; the whole may be there.
    fn took(&mut self, cx: &mut Cx<'_>, took: Took) {
        let Took::Whole { bytes, senders } = took else { return };
        if self.is_right(&bytes) {
            self.found(cx, bytes);
        } else if let Some(guilty) = self.assemblies.wrong(&senders) {
            self.ban(cx, guilty);
        }
    }

    fn is_right(&self, bytes: &[u8]) -> bool {
        let v1 = self.hashes.v1.is_none_or(|hash| sha1(bytes) == hash.0);
        let v2 = self.hashes.v2.is_none_or(|hash| sha256(bytes) == hash.0);
        v1 && v2
    }

    /// The dictionary is here: whoever asked hears of it, and the search is over. Trackers are not told, if the torrent
    /// is about to announce itself.
    fn found(&mut self, cx: &mut Cx<'_>, bytes: Vec<u8>) {
        let mut known: Vec<_> = self.peers.values().filter_map(|seat| seat.peer.listens_at()).collect();
        let others = self.finder.good_addresses(MOST_HANDED_ON);
        known.extend(others.into_iter().filter(|addr| !known.contains(addr)).collect::<Vec<_>>());
        known.truncate(MOST_HANDED_ON);
        cx.out.news.push(News::Metadata { torrent: self.torrent, info: bytes.into(), known });
        if self.leave {
            return self.leave(cx);
        }
        self.finder.vanish(cx);
        self.close(cx);
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        self.leaving = true;
        self.next = Time::NEVER;
        for conn in self.peers.keys().copied().collect::<Vec<_>>() {
            self.send_away(cx, conn, Goodbye::Leaving);
        }
    }

    fn ban(&mut self, cx: &mut Cx<'_>, who: SocketAddr) {
        self.finder.ban(who);
        cx.out.news.push(News::Banned(self.torrent, who, Goodbye::Poisoned));
        let same = |seat: &Seat| seat.peer.addr().ip().to_canonical() == who.ip().to_canonical();
        let conns: Vec<_> = self.peers.iter().filter(|(_, seat)| same(seat)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.send_away(cx, conn, Goodbye::Poisoned);
        }
    }

    /// Asks a peer for the next part that nobody was asked for.
    fn ask(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let waiting = self.peers.values().filter(|seat| !seat.refuses);
        let others: Vec<u32> = waiting.filter_map(|seat| seat.asked.map(|(part, _)| part)).collect();
        let Some(seat) = self.peers.get_mut(&conn).filter(|seat| !seat.refuses && seat.asked.is_none())
        else {
            return;
        };
        let Some(size) = seat.peer.metadata_size() else { return };
        if let Some(part) = self.assemblies.next_part(cx.now, seat.peer.addr(), size, &others) {
            seat.asked = Some((part, cx.now));
            seat.peer.ask_metadata(cx, part);
        }
    }

    pub(crate) fn heartbeat(&mut self, cx: &mut Cx<'_>) {
        if self.leaving {
            return;
        }
        self.finder.connect(cx, self.peers.len());
        self.finder.announce(cx, AnnounceFacts { left: 1, want: WANT, ..AnnounceFacts::default() });
        for conn in self.peers.keys().copied().collect::<Vec<_>>() {
            self.tend(cx, conn);
        }
        self.tell(cx);
        self.next = if self.peers.is_empty() { Time::NEVER } else { cx.now + TEND_EVERY };
        self.plan(cx);
    }

    /// Tells how the search goes, if that changed.
    fn tell(&mut self, cx: &mut Cx<'_>) {
        let (peers, known) = (self.peers.len(), self.finder.known());
        if self.told.replace((peers, known)) != Some((peers, known)) {
            cx.out.news.push(News::Seeking { torrent: self.torrent, peers, known });
        }
    }

    fn tend(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(seat) = self.peers.get_mut(&conn) else { return };
        if !seat.refuses && seat.asked.is_some_and(|(_, since)| cx.now.since(since) >= PATIENCE) {
            // Late is better than never, so what it was asked stays.
            seat.refuses = true;
            self.assemblies.gave_up(seat.peer.addr().ip());
        }
        let idle = seat.refuses || seat.peer.metadata_size().is_none();
        if idle && cx.now.since(seat.peer.connected_at()) >= USELESS_AFTER {
            return self.send_away(cx, conn, Goodbye::Useless);
        }
        self.ask(cx, conn);
    }

    /// The next beat is no later than the next dial and the next announce.
    fn plan(&mut self, cx: &Cx<'_>) {
        let due = self.finder.next_dial(self.peers.len()).min(self.finder.next_announce());
        if !self.leaving && due < self.next {
            self.next = if due > cx.now { due.rounded_up(BEAT) } else { next_beat(cx.now) };
        }
    }

    pub(crate) fn next_heartbeat(&self) -> Time {
        self.next
    }

    pub(crate) fn on_fetched(
        &mut self,
        cx: &mut Cx<'_>,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) {
        self.finder.on_fetched(cx, fetch, result);
        self.plan(cx);
    }

    pub(crate) fn on_dial_failed(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        self.finder.on_dial_failed(cx, to, why);
        self.plan(cx);
    }

    pub(crate) fn learn(&mut self, cx: &mut Cx<'_>, peers: &[SocketAddr], source: PeerSource) {
        self.finder.learn(cx.now, peers.iter().copied(), source);
        self.plan(cx);
    }

    pub(crate) fn on_change(&mut self, cx: &mut Cx<'_>, change: Change) {
        match change {
            Change::AddPeers(peers) => self.learn(cx, &peers, PeerSource::Manual),
            Change::Announce => self.finder.announce_now(cx.now),
            Change::Reconnect => self.finder.reconnect(cx.now),
            // There is no content to change.
            _ => {}
        }
        self.plan(cx);
    }

    pub(crate) fn moved(&mut self, cx: &mut Cx<'_>) {
        self.finder.moved(cx);
        self.plan(cx);
    }

    /// Those who may not be talked to any more leave.
    pub(crate) fn gate_changed(&mut self, cx: &mut Cx<'_>) {
        let blocked = self.peers.iter().filter(|(_, seat)| cx.lease.gate.blocks(seat.peer.addr().ip()));
        for conn in blocked.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.send_away(cx, conn, Goodbye::Banned);
        }
        self.finder.set_gate(cx.lease.gate.clone());
        self.plan(cx);
    }

    pub(crate) fn on_wrote(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: usize) {
        if let Some(seat) = self.peers.get_mut(&conn) {
            seat.peer.on_wrote(cx, bytes);
        }
    }

    pub(crate) fn with_sealed<R>(&self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        self.peers.get(&conn)?.peer.with_sealed(f)
    }

    pub(crate) fn on_closed(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: &Goodbye) {
        let Some(mut seat) = self.peers.remove(&conn) else { return };
        let spoke = seat.peer.metadata_size().is_some();
        // Who knows nothing may know more in a minute.
        let why = if *why == Goodbye::Useless { &Goodbye::Leaving } else { why };
        self.finder.parted(cx.now, seat.peer.addr(), why, spoke);
        seat.peer.end(cx);
        self.left.push(conn);
        self.assemblies.gave_up(seat.peer.addr().ip());
        self.plan(cx);
        if !self.leaving {
            self.next = self.next.min(next_beat(cx.now));
        }
    }

    fn send_away(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: Goodbye) {
        self.on_closed(cx, conn, &why);
        cx.out.net.push(Net::Close(conn, why));
    }

    /// The search is over, and trackers hear of it.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>) {
        self.finder.stop(cx, &AnnounceFacts { left: 1, ..AnnounceFacts::default() });
        self.close(cx);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.leaving && self.finder.is_quiet()
    }

    pub(crate) fn take_left(&mut self) -> impl Iterator<Item = ConnId> + '_ {
        self.left.drain(..)
    }
}

/// The beat after this one.
fn next_beat(now: Time) -> Time {
    (now + BEAT).rounded_up(BEAT)
}
