//! Who sent the Blocks of a Piece, and who is guilty when it is wrong.
//!
//! Owns the senders of open Pieces and the cases that are not solved. A wrong Piece from one sender solves itself: the
//! sender is guilty. From several, all are suspects, and from then on each is given Pieces of its own (`PickFacts::alone`):
//! whoever spoils one of those is guilty, whoever brings a good one is a suspect no more. So a liar costs the Pieces it
//! had a part in when it was found out, and one more; and nobody is punished for another's lie.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use piecemeal_metainfo::PieceIndex;

/// Cases remembered; the oldest are dropped. Each was a wrong Piece of several senders.
const MOST_CASES: usize = 64;
/// Senders of one Piece that are told apart. Beyond that everybody counts as a sender, and nobody can be guilty alone.
const MOST_SENDERS: usize = 64;

/// Stands for whoever sent Blocks before the program was restarted.
const SENT_BEFORE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a wrong Piece proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// This one did it.
    Guilty(SocketAddr),
    /// It was one of several.
    Unsolved,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// Bounded by the open Pieces.
    senders: BTreeMap<PieceIndex, Vec<SocketAddr>>,
    cases: Vec<Vec<SocketAddr>>,
}

impl Blame {
    /// `from` sent a Block of `piece`.
    pub(super) fn sent(&mut self, piece: PieceIndex, from: SocketAddr) {
        let senders = self.senders.entry(piece).or_default();
        // Most Blocks come from whoever sent the one before.
        if senders.last() != Some(&from) && senders.len() < MOST_SENDERS {
            match senders.iter().position(|sender| *sender == from) {
                Some(at) => {
                    let last = senders.len() - 1;
                    senders.swap(at, last);
                }
                None => senders.push(from),
            }
        }
    }

    /// Blocks of `piece` were here before; nobody knows from whom.
    pub(super) fn sent_before(&mut self, piece: PieceIndex) {
        self.sent(piece, SENT_BEFORE);
    }

    /// `piece` is right. Who brought it alone is cleared.
    pub(super) fn good(&mut self, piece: PieceIndex) {
        if let Some(senders) = self.senders.remove(&piece)
            && let [alone] = senders[..]
            && !self.cases.is_empty()
        {
            self.cases.iter_mut().for_each(|case| case.retain(|sender| *sender != alone));
            self.cases.retain(|case| !case.is_empty());
        }
    }

    /// `piece` is wrong.
    pub(super) fn bad(&mut self, piece: PieceIndex) -> Verdict {
        match self.senders.remove(&piece).as_deref() {
            Some([SENT_BEFORE]) => Verdict::Unsolved,
            Some([alone]) => {
                let alone = *alone;
                // What it had a part in is explained.
                self.cases.retain(|case| !case.contains(&alone));
                Verdict::Guilty(alone)
            }
            None | Some([]) => Verdict::Unsolved,
            Some(several) => {
                if self.cases.len() == MOST_CASES {
                    self.cases.remove(0);
                }
                self.cases.push(several.to_vec());
                Verdict::Unsolved
            }
        }
    }

    /// Whether somebody at `ip` may have spoiled a Piece.
    pub(super) fn suspects(&self, ip: IpAddr) -> bool {
        self.cases.iter().flatten().any(|sender| sender.ip() == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6881))
    }

    #[test]
    fn a_lone_sender_is_guilty() {
        let mut blame = Blame::default();
        blame.sent(PieceIndex(3), peer(1));
        blame.sent(PieceIndex(3), peer(1));
        assert_eq!(blame.bad(PieceIndex(3)), Verdict::Guilty(peer(1)));
        assert!(!blame.suspects(peer(1).ip()));
    }

    #[test]
    fn of_several_each_must_prove_itself() {
        let mut blame = Blame::default();
        [1, 2, 1, 3, 2].into_iter().for_each(|who| blame.sent(PieceIndex(0), peer(who)));
        assert_eq!(blame.bad(PieceIndex(0)), Verdict::Unsolved);
        assert!([1, 2, 3].iter().all(|who| blame.suspects(peer(*who).ip())));
        assert!(!blame.suspects(peer(4).ip()));
        blame.sent(PieceIndex(1), peer(1));
        blame.good(PieceIndex(1));
        assert!(!blame.suspects(peer(1).ip()) && blame.suspects(peer(2).ip()));
        // A good piece of two clears neither.
        [2, 3].into_iter().for_each(|who| blame.sent(PieceIndex(2), peer(who)));
        blame.good(PieceIndex(2));
        assert!(blame.suspects(peer(2).ip()) && blame.suspects(peer(3).ip()));
        blame.sent(PieceIndex(3), peer(2));
        assert_eq!(blame.bad(PieceIndex(3)), Verdict::Guilty(peer(2)));
        // His guilt explains the first case.
        assert!(!blame.suspects(peer(3).ip()));
    }

    #[test]
    fn unknown_senders_accuse_nobody() {
        let mut blame = Blame::default();
        assert_eq!(blame.bad(PieceIndex(9)), Verdict::Unsolved);
        blame.sent_before(PieceIndex(9));
        assert_eq!(blame.bad(PieceIndex(9)), Verdict::Unsolved);
        blame.sent_before(PieceIndex(9));
        blame.sent(PieceIndex(9), peer(1));
        assert_eq!(blame.bad(PieceIndex(9)), Verdict::Unsolved);
        assert!(blame.suspects(peer(1).ip()));
    }
}
