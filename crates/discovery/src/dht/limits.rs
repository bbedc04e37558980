//! What strangers may make us send (T33 of the threat table).
//!
//! Owns the budgets. A datagram's source can be forged, so an answer may hit somebody who never asked. Therefore:
//! 1. all answers together stay below a rate of bytes, with a burst of three seconds; who has not *proven* its address
//!    can not use the last quarter of it, so that a flood leaves something for those we know;
//! 2. one network is answered [`ANSWERS_A_SECOND`] times a second, with a burst of ten seconds;
//! 3. an unproven source gets at most [`AMPLIFICATION`] times the bytes it sent.
//!
//! An address is proven for [`PROOF_LIFE`] by a valid token or by the answer to a question of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;

use super::net::{self, Net};

/// Networks that are remembered; the one unheard of for longest is forgotten.
const MAX_NETS: usize = 4_096;
/// Proofs that are remembered; the one that ends first is forgotten.
const MAX_PROOFS: usize = 4_096;
/// Bytes an unproven source gets for one of its own.
pub(super) const AMPLIFICATION: usize = 3;
/// Bytes of the largest answer to anybody: it passes everywhere in one piece.
pub(super) const MAX_ANSWER_BYTES: usize = 1_024;
/// Answers a second to one network (IPv4 /24, IPv6 /64); libtorrent bans at 5 a second.
const ANSWERS_A_SECOND: u64 = 5;
const BURST_SECS: u64 = 10;
/// Seconds for which unused budget can be saved up.
const SAVED_SECS: u64 = 3;
/// What IP and UDP add to a datagram.
const HEADER_BYTES: usize = 28;
/// No answer is smaller, headers counted.
const LEAST_ANSWER_BYTES: u64 = 90;
/// How long a proof counts.
const PROOF_LIFE: Duration = Duration::from_secs(15 * 60);

const NANOS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Limits {
    all: Bucket,
    bytes_a_second: u64,
    /// Bound: [`MAX_NETS`].
    nets: BTreeMap<Net, Seen>,
    /// The same networks, by when they were last seen.
    order: BTreeMap<u64, Net>,
    turns: u64,
    /// Until when an address is proven. Apart from the networks, whom a flood pushes out; here only proofs get in.
    /// Bound: [`MAX_PROOFS`].
    proofs: BTreeMap<IpAddr, Time>,
    ends: BTreeSet<(Time, IpAddr)>,
}

#[derive(Debug)]
struct Seen {
    answers: Bucket,
    turn: u64,
}

/// Tokens that flow in with time, in billionths.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    nanos: u64,
    since: Time,
}

impl Bucket {
    fn refill(&mut self, now: Time, a_second: u64, secs: u64) {
        let passed = now.since(self.since).min(Duration::from_secs(secs)).as_nanos() as u64;
        self.nanos = (self.nanos + passed * a_second).min(secs * a_second * NANOS);
        self.since = now;
    }
}

impl Limits {
    /// Limits with a full budget. `bytes_a_second` counts headers too; above 1 GB it counts as that.
    pub(super) fn new(now: Time, bytes_a_second: u32) -> Limits {
        let bytes_a_second = u64::from(bytes_a_second).min(NANOS);
        let all = Bucket { nanos: SAVED_SECS * bytes_a_second * NANOS, since: now };
        Limits {
            all,
            bytes_a_second,
            nets: BTreeMap::new(),
            order: BTreeMap::new(),
            turns: 0,
            proofs: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// Whether this network may be answered once more; counts it.
    pub(super) fn may_ask(&mut self, now: Time, from: SocketAddr) -> bool {
        let answers = &mut self.seen(now, from).answers;
        answers.refill(now, ANSWERS_A_SECOND, BURST_SECS);
        let may = answers.nanos >= NANOS;
        answers.nanos -= if may { NANOS } else { 0 };
        may
    }

    /// `from` was shown to receive what is sent there.
    pub(super) fn prove(&mut self, now: Time, from: SocketAddr) {
        let (ip, until) = (from.ip(), now + PROOF_LIFE);
        if let Some(before) = self.proofs.insert(ip, until) {
            self.ends.remove(&(before, ip));
        }
        self.ends.insert((until, ip));
        if self.proofs.len() > MAX_PROOFS
            && let Some((_, first)) = self.ends.pop_first()
        {
            self.proofs.remove(&first);
        }
    }

    pub(super) fn is_proven(&self, now: Time, from: SocketAddr) -> bool {
        self.proofs.get(&from.ip()).is_some_and(|until| *until > now)
    }

    /// Whether there is budget for any answer at all, so that none is made in vain.
    pub(super) fn has_budget(&mut self, now: Time, proven: bool) -> bool {
        self.all.refill(now, self.bytes_a_second, SAVED_SECS);
        self.all.nanos >= LEAST_ANSWER_BYTES * NANOS + self.reserve(proven)
    }

    /// Takes a datagram of `bytes` from the common budget; false if there is no more.
    pub(super) fn take(&mut self, now: Time, bytes: usize, proven: bool) -> bool {
        self.all.refill(now, self.bytes_a_second, SAVED_SECS);
        let cost = (bytes + HEADER_BYTES) as u64 * NANOS;
        let may = self.all.nanos >= cost + self.reserve(proven);
        self.all.nanos -= if may { cost } else { 0 };
        may
    }

    /// What is kept for those we know.
    fn reserve(&self, proven: bool) -> u64 {
        if proven { 0 } else { SAVED_SECS * self.bytes_a_second * NANOS / 4 }
    }

    fn seen(&mut self, now: Time, from: SocketAddr) -> &mut Seen {
        self.turns += 1;
        let (turn, net) = (self.turns, net::near(from));
        if !self.nets.contains_key(&net) && self.nets.len() >= MAX_NETS {
            let oldest = self.order.pop_first();
            oldest.and_then(|(_, oldest)| self.nets.remove(&oldest));
        }
        let full = Bucket { nanos: BURST_SECS * ANSWERS_A_SECOND * NANOS, since: now };
        let new = Seen { answers: full, turn };
        let seen = self.nets.entry(net).or_insert(new);
        self.order.remove(&seen.turn);
        self.order.insert(turn, net);
        seen.turn = turn;
        seen
    }

    /// Bytes of heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let row = size_of::<Net>() + size_of::<Seen>() + size_of::<(u64, Net)>();
        let proof = size_of::<(IpAddr, Time)>() * 2;
        (self.nets.len() * row + self.proofs.len() * proof) * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(number: u32) -> SocketAddr {
        SocketAddr::from(((20 << 24 | number << 8).to_be_bytes(), 1))
    }

    #[test]
    fn one_network_is_answered_five_times_a_second() {
        let mut limits = Limits::new(Time::ZERO, 8_000);
        let burst = (0..100).filter(|_| limits.may_ask(Time::ZERO, from(1))).count();
        assert_eq!(burst, 50);
        let later = Time::ZERO + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| limits.may_ask(later, from(1))).count(), 10);
        assert!(limits.may_ask(later, from(2)), "another network");
    }

    #[test]
    fn all_share_a_budget_and_the_proven_have_a_reserve() {
        let mut limits = Limits::new(Time::ZERO, 8_000);
        let mut sent = 0;
        while limits.take(Time::ZERO, 972, false) {
            sent += 1_000;
        }
        assert_eq!(sent, 18_000);
        while limits.take(Time::ZERO, 972, true) {
            sent += 1_000;
        }
        assert_eq!(sent, 24_000);
        let later = Time::ZERO + Duration::from_secs(1);
        assert!(!limits.take(later, 8_000, true) && limits.take(later, 7_972, true));
    }

    #[test]
    fn a_proof_ends_and_memory_is_bounded() {
        let mut limits = Limits::new(Time::ZERO, 8_000);
        limits.prove(Time::ZERO, from(1));
        assert!(limits.is_proven(Time::ZERO, from(1)) && !limits.is_proven(Time::ZERO, from(2)));
        assert!(!limits.is_proven(Time::ZERO + PROOF_LIFE, from(1)));
        for number in 0..20_000 {
            limits.may_ask(Time::ZERO, from(number));
        }
        assert_eq!((limits.nets.len(), limits.order.len()), (MAX_NETS, MAX_NETS));
        limits.prove(Time::ZERO, from(2));
        (0..20_000).for_each(|number| _ = limits.may_ask(Time::ZERO, from(number)));
        assert!(limits.is_proven(Time::ZERO, from(2)), "a flood does not push out a proof");
        (0..20_000).for_each(|number| limits.prove(Time::ZERO, from(number)));
        assert_eq!((limits.proofs.len(), limits.ends.len()), (MAX_PROOFS, MAX_PROOFS));
        assert!(limits.heap_bytes() < 2 << 20);
    }
}
