//! What the outside knows of a node's torrent: what its News said, and whether that is true.
//!
//! Owns nothing of the engine. Each claim of a Piece is compared with the disk at once.

use std::net::SocketAddr;
use std::sync::Arc;

use piecemeal_engine::cx::{Goodbye, News, Snapshot};
use piecemeal_metainfo::{Bitfield, PieceIndex, TorrentId};
use piecemeal_package::{ResumeFacts, Trouble};

use super::Node;
use crate::net::Net;
use crate::torrent::Torrent;

/// See the module.
pub struct Seat {
    /// Which torrent.
    pub torrent: Arc<Torrent>,
    /// What it said it has, and did have.
    pub have: Bitfield,
    /// Said complete.
    pub complete: bool,
    /// Left.
    pub gone: bool,
    /// What stopped it, while it does.
    pub trouble: Option<Trouble>,
    /// Troubles so far.
    pub troubles: u32,
    /// Who was banned, and why.
    pub banned: Vec<(SocketAddr, Goodbye)>,
    /// Pieces that failed their hash.
    pub bad: u32,
    /// Pieces that were verified since it was seated.
    pub verified: u32,
    /// The latest.
    pub last: Option<Snapshot>,
    /// The latest.
    pub facts: Option<ResumeFacts>,
    /// The disk is known to have lost content behind its back: claims are not judged.
    pub tainted: bool,
}

impl Seat {
    /// A torrent that was just added, with these facts.
    pub fn new(torrent: Arc<Torrent>, facts: Option<ResumeFacts>) -> Seat {
        let have = Bitfield::new(torrent.meta.piece_count());
        Seat {
            torrent,
            have,
            complete: false,
            gone: false,
            trouble: None,
            troubles: 0,
            banned: Vec::new(),
            bad: 0,
            verified: 0,
            last: None,
            facts,
            tainted: false,
        }
    }

    /// Verified pieces, by its last Snapshot.
    pub fn have_pieces(&self) -> u32 {
        self.have.count().max(self.last.as_ref().map_or(0, |last| last.have_pieces))
    }

    /// Content received in vain, in bytes.
    pub fn wasted(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.wasted)
    }
}

impl Node {
    /// Takes note of News, and compares what can be compared.
    pub(super) fn hear(&mut self, net: &mut Net, news: News) {
        let who = self.id.0;
        match &news {
            News::Snapshot(snap) => {
                let bytes = (snap.downloaded, snap.uploaded, snap.wasted);
                let words = format_args!("{:?} {} {bytes:?}", snap.state, snap.have_pieces);
                net.trace.say(net.now, who, words);
            }
            News::Facts(id, facts) => {
                net.trace.note(net.now, who, "facts", u64::from(id.0), u64::from(facts.have.count()));
            }
            other => net.trace.say(net.now, who, format_args!("{other:?}")),
        }
        net.heard_news = true;
        match news {
            News::Snapshot(snap) => self.hear_snapshot(net, *snap),
            News::Piece(id, piece) => {
                self.check_claims(net, id, [piece]);
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.verified += 1;
                }
            }
            News::Complete(id) => {
                self.check_claims(net, id, []);
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.complete = true;
                }
            }
            News::Trouble(id, trouble) => {
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.troubles += u32::from(trouble.is_some());
                    seat.trouble = trouble;
                }
            }
            News::Banned(id, addr, why) => {
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.banned.push((addr, why));
                }
            }
            News::PieceBad(id, _) => {
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.bad += 1;
                }
            }
            News::Facts(id, facts) => {
                let claims: Vec<PieceIndex> = facts.have.iter_ones().collect();
                self.check_claims(net, id, claims);
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.facts = Some(*facts);
                }
            }
            News::Gone(id) => {
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.gone = true;
                }
            }
            _ => {}
        }
    }

    fn hear_snapshot(&mut self, net: &mut Net, snap: Snapshot) {
        let id = snap.torrent;
        if let Some(have) = snap.have.clone() {
            let claims: Vec<PieceIndex> = have.iter_ones().collect();
            if claims.len() != snap.have_pieces as usize {
                net.blame(|| format!("{}: a Snapshot whose numbers differ", self.addr));
            }
            self.check_claims(net, id, claims);
        }
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let before = seat.last.as_ref().map_or(0, |last| last.downloaded);
        if snap.downloaded < before {
            net.blame(|| format!("{}: downloaded fell from {before} to {}", self.addr, snap.downloaded));
        }
        // Complete from the beginning is said by no other News.
        seat.complete |= snap.have_bytes == snap.wanted_bytes && snap.pieces == snap.have_pieces;
        seat.last = Some(snap);
    }

    /// Whether pieces that are claimed lie on the disk and are right. A piece that was right is not compared again.
    pub fn check_claims(
        &mut self,
        net: &mut Net,
        id: TorrentId,
        claims: impl IntoIterator<Item = PieceIndex>,
    ) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| !seat.tainted) else { return };
        for piece in claims {
            if seat.have.get(piece) {
                continue;
            }
            if !self.disk.holds(id, piece) {
                net.blame(|| format!("{} claims {piece:?} of {id:?}, which is not on its disk", self.addr));
                return;
            }
            seat.have.set(piece);
        }
    }
}
