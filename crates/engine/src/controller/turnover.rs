//! Turnover: where there are peers enough, a few that are of no use make room for others that may be.
//!
//! Owns who leaves, and when. Without it a torrent that filled its places with the first who answered would never meet
//! anybody else. The numbers are those of libtorrent (`peer_turnover`, `peer_turnover_cutoff`, `peer_turnover_interval`).

use std::time::Duration;

use piecemeal_metainfo::Time;

use super::Controller;
use crate::cx::{Cx, Goodbye};

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(300);
/// Of the places a torrent has, in hundredths: when fewer are taken, newcomers need nobody to leave.
const FULL_PERCENT: usize = 90;
/// Of the peers, in hundredths, and at least one.
const LEAVE_PERCENT: usize = 4;
/// One that was met later may still come to something: two turns of the Choker's optimistic place.
const JUST_MET: Duration = Duration::from_secs(60);

/// What is known of a peer.
#[derive(Clone, Copy, Debug)]
struct Standing<W> {
    who: W,
    /// The user named it.
    manual: bool,
    met: Time,
    /// Content moves, either way.
    swaps: bool,
    /// It has what we want.
    wanted: bool,
    /// It wants what we have.
    wants_us: bool,
    /// It lets us ask.
    open: bool,
    /// Content from it so far, in bytes.
    gave: u64,
}

impl Controller {
    /// Lets a few leave, if it is time, the places are taken, and others wait. They may come back, but not at once.
    pub(super) fn turn_over(&mut self, cx: &mut Cx<'_>) {
        let count = self.peers.len();
        if cx.now < self.turnover_at || !self.finder.is_full(count, FULL_PERCENT) {
            return;
        }
        let most = (count * LEAVE_PERCENT / 100).max(1);
        let leave = self.finder.due(cx.now, most);
        if leave == 0 {
            return;
        }
        self.turnover_at = cx.now + EVERY;
        self.finder.hope();
        let all = self.peers.iter().map(|(slot, peer)| Standing {
            who: slot,
            manual: self.finder.is_manual(peer.addr()),
            met: peer.connected_at(),
            swaps: peer.down().rate(cx.now) > 0 || peer.up().rate(cx.now) > 0,
            wanted: peer.is_interested(),
            wants_us: peer.wants_us(),
            open: !peer.chokes_us(),
            gave: peer.down().total(),
        });
        for slot in leaving(cx.now, all, leave) {
            self.send_away(cx, slot, Goodbye::Crowded);
        }
    }
}

/// Who leaves: at most `most`, those of least use first, and nobody who is of use.
fn leaving<W: Copy>(now: Time, all: impl Iterator<Item = Standing<W>>, most: usize) -> Vec<W> {
    let may_leave = |it: &Standing<W>| !it.manual && !it.swaps && now.since(it.met) >= JUST_MET;
    let mut idle: Vec<_> = all.filter(may_leave).collect();
    idle.sort_by_key(|it| (it.wanted, it.wants_us, it.open, it.gave, it.met));
    idle.into_iter().take(most).map(|it| it.who).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    /// Of no use at all, since long ago.
    fn idle(who: u32) -> Standing<u32> {
        let (manual, swaps, wanted, wants_us, open) = (false, false, false, false, false);
        Standing { who, manual, met: at(0), swaps, wanted, wants_us, open, gave: 0 }
    }

    fn left(all: &[Standing<u32>], most: usize) -> Vec<u32> {
        leaving(at(600), all.iter().copied(), most)
    }

    #[test]
    fn who_is_of_use_stays_however_few_leave() {
        let rows = [
            Standing { manual: true, ..idle(1) },
            Standing { swaps: true, ..idle(2) },
            Standing { met: at(541), ..idle(3) },
        ];
        assert_eq!(left(&rows, 9), []);
        assert_eq!(left(&[Standing { met: at(540), ..idle(4) }], 9), [4]);
        assert_eq!(left(&[], 9), []);
        assert_eq!(left(&[idle(1)], 0), []);
    }

    #[test]
    fn those_of_least_use_leave_first() {
        let all = [
            Standing { wanted: true, open: true, gave: 1, ..idle(1) },
            Standing { wanted: true, open: true, ..idle(2) },
            Standing { wanted: true, gave: 9, ..idle(3) },
            Standing { wanted: true, ..idle(4) },
            Standing { wants_us: true, ..idle(5) },
            Standing { met: at(9), ..idle(6) },
            idle(7),
        ];
        assert_eq!(left(&all, 9), [7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(left(&all, 2), [7, 6]);
    }
}
