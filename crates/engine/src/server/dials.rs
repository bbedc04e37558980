//! Dials: whom the Shards want called, whose turn it is, and by which carrier.
//!
//! Owns the errands of the Shards from [`Note::Dial`](crate::cx::Note::Dial) until a connection stands or none can be
//! had, and the numbers of what the shell is busy with. A peer is called by TCP, and if that takes longer than
//! [`HEAD_START`] or fails, by uTP as well; whichever stands first is taken. Whether an answer leads to a handshake is the
//! Server's business, and whether there is room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::{InfoHash, TorrentId};

use super::limits::DialRate;
use crate::cx::{Carrier, DialId, Net, Road, Settings, Time};

/// To connect by TCP: four SYNs on most systems, sent at 0, 1, 3 and 7 s (libtorrent's `peer_connect_timeout`).
const DIAL_PATIENCE: Duration = Duration::from_secs(15);
/// What TCP has before uTP is tried beside it: longer than a way around the world, shorter than a user's patience. TCP
/// costs less and fills what is free; whoever cannot be reached by it is behind a NAT that datagrams may pass.
const HEAD_START: Duration = Duration::from_millis(500);
/// Dials that wait for their turn: ten seconds' worth.
pub(super) const MOST_QUEUED_DIALS: usize = 300;

/// A dial that a Shard asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dial {
    /// For which torrent.
    pub(super) torrent: TorrentId,
    /// Where to, as the Shard named it.
    pub(super) to: SocketAddr,
    /// What the peer must name as well.
    pub(super) info_hash: InfoHash,
    /// By which carriers it may be reached.
    pub(super) road: Road,
    /// The handshake will be encrypted.
    pub(super) encrypted: bool,
    /// If the peer does not understand that, the other way may be tried.
    pub(super) other_way: bool,
}

/// What an answer of the shell comes to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// This dial has its connection, by that carrier.
    Won(Dial, Carrier),
    /// Nobody waits for it any more.
    Late,
    /// This dial came to nothing.
    Failed(Dial),
    /// Another carrier is being tried.
    Open,
}

/// See the module.
#[derive(Default)]
pub(super) struct Dials {
    /// Dials that wait until the rate allows them; at most [`MOST_QUEUED_DIALS`], and the second tries.
    queued: VecDeque<Dial>,
    /// Those begun. Each has a socket in `sockets`, or is in `later`.
    errands: BTreeMap<ErrandId, Errand>,
    /// When another carrier is to be tried.
    later: BTreeSet<(Time, ErrandId)>,
    /// What the shell is busy with; at most `max_pending`. Those whose errand is over still count: the socket is there.
    sockets: BTreeMap<DialId, (ErrandId, Carrier)>,
    rate: DialRate,
    tcp: bool,
    utp: bool,
    last_errand: u64,
    pub(super) next_dial: DialId,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct ErrandId(u64);

struct Errand {
    dial: Dial,
    /// Sockets of it that were not answered.
    trying: u8,
    /// What is to be tried beside them, or after.
    next: Option<(Time, Carrier)>,
}

impl Dials {
    pub(super) fn new(settings: &Settings) -> Dials {
        let rate = DialRate::new(settings.dials_a_second);
        Dials { tcp: settings.tcp, utp: settings.utp, rate, ..Dials::default() }
    }

    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.queued.len() < MOST_QUEUED_DIALS
    }

    /// One more, behind all others.
    pub(super) fn add(&mut self, dial: Dial) {
        self.queued.push_back(dial);
    }

    /// One more, before all others: it waited before, and its peer is there.
    pub(super) fn add_first(&mut self, dial: Dial) {
        self.queued.push_front(dial);
    }

    /// Sockets the shell is busy with.
    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// When [`Dials::release`] has something to do.
    pub(super) fn next_due(&self) -> Time {
        let queued = if self.queued.is_empty() { Time::NEVER } else { Time::ZERO };
        let later = self.later.first().map_or(Time::NEVER, |(due, _)| *due);
        let due = queued.min(later);
        if due == Time::NEVER { due } else { due.max(self.rate.next()) }
    }

    /// Sends off the next one whose turn it is, if `room` says that there is any. It waits for the rate, never for room:
    /// a Controller that waits for an answer can do nothing better meanwhile. What comes to nothing is returned.
    pub(super) fn release(&mut self, now: Time, room: bool, net: &mut Vec<Net>) -> Released {
        if self.rate.next() > now {
            return Released::Nothing;
        }
        if let Some(&(due, id)) = self.later.first()
            && due <= now
        {
            self.later.pop_first();
            return self.release_later(now, id, room, net);
        }
        let Some(dial) = self.queued.pop_front() else { return Released::Nothing };
        let Some((first, second)) = self.carriers(dial.road).filter(|_| room) else {
            return Released::Crowded(dial);
        };
        self.last_errand += 1;
        let id = ErrandId(self.last_errand);
        let next = second.map(|carrier| (now + HEAD_START, carrier));
        self.later.extend(next.map(|(due, _)| (due, id)));
        self.errands.insert(id, Errand { dial, trying: 0, next });
        self.call(now, id, first, net);
        Released::Began
    }

    fn release_later(&mut self, now: Time, id: ErrandId, room: bool, net: &mut Vec<Net>) -> Released {
        let Some(errand) = self.errands.get_mut(&id) else { return Released::Began };
        let Some((_, carrier)) = errand.next.take() else { return Released::Began };
        if room {
            self.call(now, id, carrier, net);
            return Released::Began;
        }
        if errand.trying > 0 {
            return Released::Began;
        }
        self.errands.remove(&id).map_or(Released::Began, |errand| Released::Crowded(errand.dial))
    }

    fn carriers(&self, road: Road) -> Option<(Carrier, Option<Carrier>)> {
        let utp = self.utp && road != Road::Tls;
        match (self.tcp && road != Road::Utp, utp) {
            (true, utp) => Some((Carrier::Tcp, utp.then_some(Carrier::Utp))),
            (false, true) => Some((Carrier::Utp, None)),
            (false, false) => None,
        }
    }

    fn call(&mut self, now: Time, id: ErrandId, carrier: Carrier, net: &mut Vec<Net>) {
        let Some(errand) = self.errands.get_mut(&id) else { return };
        errand.trying += 1;
        let number = self.next_dial;
        self.next_dial = DialId(number.0 + 1);
        self.rate.count(now);
        self.sockets.insert(number, (id, carrier));
        let Dial { torrent, to, road, .. } = errand.dial;
        let tls = (road == Road::Tls).then_some(torrent);
        net.push(Net::Dial { dial: number, to, carrier, tls, patience: DIAL_PATIENCE });
    }

    /// The shell answers.
    pub(super) fn on_dialed(&mut self, now: Time, number: DialId, well: bool) -> Answer {
        let Some((id, carrier)) = self.sockets.remove(&number) else { return Answer::Late };
        let Some(errand) = self.errands.get_mut(&id) else { return Answer::Late };
        errand.trying -= 1;
        match &mut errand.next {
            Some((due, _)) if !well => {
                // No need to wait for what has failed.
                self.later.remove(&(*due, id));
                *due = now;
                self.later.insert((now, id));
                Answer::Open
            }
            _ if !well && errand.trying > 0 => Answer::Open,
            _ => match self.finish(id) {
                Some(dial) if well => Answer::Won(dial, carrier),
                Some(dial) => Answer::Failed(dial),
                None => Answer::Late,
            },
        }
    }

    fn finish(&mut self, id: ErrandId) -> Option<Dial> {
        let errand = self.errands.remove(&id)?;
        if let Some((due, _)) = errand.next {
            self.later.remove(&(due, id));
        }
        Some(errand.dial)
    }

    /// Forgets all of which `which` says so, and returns it.
    pub(super) fn end_all(&mut self, which: impl Fn(&Dial) -> bool) -> Vec<Dial> {
        let its = self.errands.iter().filter(|(_, errand)| which(&errand.dial));
        let ids: Vec<_> = its.map(|(id, _)| *id).collect();
        let mut gone: Vec<_> = ids.into_iter().filter_map(|id| self.finish(id)).collect();
        self.queued.retain(|dial| {
            let stays = !which(dial);
            if !stays {
                gone.push(*dial);
            }
            stays
        });
        gone
    }

    /// The numbers of what the shell is busy with.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<DialId> {
        self.sockets.keys().copied().collect()
    }
}

/// What [`Dials::release`] did.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Released {
    /// It is nobody's turn yet.
    Nothing,
    /// Somebody is being called.
    Began,
    /// There is no room for this one.
    Crowded(Dial),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn dial(port: u16) -> Dial {
        let to = SocketAddr::from(([10, 0, 0, 1], port));
        let (torrent, info_hash) = (TorrentId(u32::from(port)), InfoHash([0; 20]));
        Dial { torrent, to, info_hash, road: Road::Any, encrypted: false, other_way: false }
    }

    fn dials() -> Dials {
        Dials { tcp: true, utp: true, ..Dials::default() }
    }

    /// Releases all whose turn it is; what is called, by number.
    fn called(dials: &mut Dials, now: Time) -> Vec<(u64, Carrier)> {
        let mut net = Vec::new();
        while dials.release(now, true, &mut net) != Released::Nothing {}
        let number = |wish| match wish {
            Net::Dial { dial, carrier, .. } => (dial.0, carrier),
            other => panic!("not a dial: {other:?}"),
        };
        net.into_iter().map(number).collect()
    }

    #[test]
    fn tcp_has_a_head_start_and_the_first_that_stands_is_taken() {
        for (winner, loser) in [(0, 1), (1, 0)] {
            let mut dials = dials();
            dials.add(dial(1));
            assert_eq!(called(&mut dials, at(0)), [(0, Carrier::Tcp)]);
            assert_eq!(dials.next_due(), at(500));
            assert_eq!(called(&mut dials, at(499)), []);
            assert_eq!(called(&mut dials, at(500)), [(1, Carrier::Utp)]);
            let carrier = [Carrier::Tcp, Carrier::Utp][winner as usize];
            assert_eq!(dials.on_dialed(at(600), DialId(winner), true), Answer::Won(dial(1), carrier));
            assert_eq!((dials.sockets(), dials.next_due()), (1, Time::NEVER));
            assert_eq!(dials.on_dialed(at(601), DialId(loser), true), Answer::Late);
            assert_eq!(dials.sockets(), 0);
        }
    }

    #[test]
    fn what_fails_is_followed_at_once() {
        let mut dials = dials();
        dials.add(dial(1));
        assert_eq!(called(&mut dials, at(0)), [(0, Carrier::Tcp)]);
        assert_eq!(dials.on_dialed(at(20), DialId(0), false), Answer::Open);
        assert_eq!(dials.next_due(), at(20));
        assert_eq!(called(&mut dials, at(20)), [(1, Carrier::Utp)]);
        assert_eq!(dials.on_dialed(at(30), DialId(1), false), Answer::Failed(dial(1)));
        assert_eq!((dials.sockets(), dials.next_due(), dials.errands.len()), (0, Time::NEVER, 0));
    }

    #[test]
    fn one_failure_of_two_decides_nothing() {
        let mut dials = dials();
        dials.add(dial(1));
        called(&mut dials, at(0));
        called(&mut dials, at(500));
        assert_eq!(dials.on_dialed(at(600), DialId(1), false), Answer::Open);
        assert_eq!(dials.on_dialed(at(700), DialId(0), true), Answer::Won(dial(1), Carrier::Tcp));
    }

    #[test]
    fn carriers_as_they_are_there() {
        let rows = [
            (true, true, Road::Any, vec![Carrier::Tcp, Carrier::Utp]),
            (true, false, Road::Any, vec![Carrier::Tcp]),
            (false, true, Road::Any, vec![Carrier::Utp]),
            (true, true, Road::Utp, vec![Carrier::Utp]),
            (true, false, Road::Utp, vec![]),
            (false, false, Road::Any, vec![]),
            (true, true, Road::Tls, vec![Carrier::Tcp]),
            (false, true, Road::Tls, vec![]),
        ];
        for (tcp, utp, road, expected) in rows {
            let mut dials = Dials { tcp, utp, ..Dials::default() };
            dials.add(Dial { road, ..dial(1) });
            let mut carriers: Vec<_> = called(&mut dials, at(0)).into_iter().map(|(_, by)| by).collect();
            carriers.extend(called(&mut dials, at(500)).into_iter().map(|(_, by)| by));
            assert_eq!(carriers, expected, "{tcp} {utp} {road:?}");
        }
    }

    #[test]
    fn without_room_nobody_waits() {
        let (mut dials, mut net) = (dials(), Vec::new());
        dials.add(dial(1));
        dials.add(dial(2));
        assert_eq!(dials.release(at(0), false, &mut net), Released::Crowded(dial(1)));
        assert_eq!(called(&mut dials, at(0)), [(0, Carrier::Tcp)]);
        // The second carrier is done without, as long as the first may come to something.
        assert_eq!(dials.release(at(500), false, &mut net), Released::Began);
        assert_eq!(dials.on_dialed(at(600), DialId(0), false), Answer::Failed(dial(2)));
        dials.add(dial(3));
        called(&mut dials, at(700));
        assert_eq!(dials.on_dialed(at(701), DialId(1), false), Answer::Open);
        assert_eq!(dials.release(at(701), false, &mut net), Released::Crowded(dial(3)));
        assert_eq!((net.len(), dials.errands.len()), (0, 0));
    }

    #[test]
    fn a_torrent_that_leaves_takes_its_dials_along() {
        let mut dials = dials();
        (1..4).for_each(|port| dials.add(dial(port)));
        assert_eq!(called(&mut dials, at(0)).len(), 3);
        dials.add(dial(2));
        assert_eq!(dials.end_all(|dial| dial.torrent == TorrentId(2)), [dial(2), dial(2)]);
        assert_eq!(dials.on_dialed(at(1), DialId(1), true), Answer::Late);
        assert_eq!(called(&mut dials, at(500)), [(3, Carrier::Utp), (4, Carrier::Utp)]);
    }
}
