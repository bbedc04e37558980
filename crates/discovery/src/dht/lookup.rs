//! One search for the nodes nearest to a target (Kademlia's iterative lookup).
//!
//! Owns the candidates, who is asked next and when it is enough. What is asked and what answers contain is the node's.
//!
//! A lookup ends when the [`K`] nearest candidates that count have answered. Nodes that lie would have it end among
//! themselves, so who counts is limited:
//! 1. only who answers, with the id it was named with or one that is bound to its address; who is slow does not hold a
//!    place;
//! 2. one node of a near network and [`WIDE_SHARE`] of a wide one (see `net`), whatever ids they claim: with one /16
//!    one gets two of the eight places, not all;
//! 3. half of the places are kept for nodes whose ids are bound to their addresses (BEP 42), if there are any.
//!
//! And what one answer can do is limited: [`NODES_OF_AN_ANSWER`] nodes are taken from it, [`MAX_CANDIDATES`] are kept,
//! [`MAX_ASKED`] are asked, each once.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use piecemeal_wire::krpc::NodeId;

use super::table::K;
use super::{
    id,
    net::{self, Net},
};

/// Questions at once (Kademlia's alpha); slow ones do not count.
pub(super) const ALPHA: usize = 3;
/// Candidates that are kept.
const MAX_CANDIDATES: usize = 96;
/// Candidates of one wide network that are kept.
const WIDE_KEPT: usize = 4;
/// Nodes of one wide network among the nearest.
const WIDE_SHARE: usize = 2;
/// Nodes with unbound ids among the nearest, while there are others.
const UNBOUND_SHARE: usize = K / 2;
/// Nodes taken from one answer; an honest one has eight.
pub(super) const NODES_OF_AN_ANSWER: usize = 16;
/// Nodes asked in one lookup; 20 to 40 are usual.
const MAX_ASKED: usize = 100;
/// Addresses that are remembered, so that none comes back.
const MAX_KNOWN: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    Asked,
    Slow,
    Answered,
    Failed,
}

#[derive(Clone, Debug)]
struct Candidate {
    /// `None`: only the address is known. It counts as farther than all.
    id: Option<NodeId>,
    addr: SocketAddr,
    state: State,
    /// How many answers led to it.
    depth: u32,
    token: Vec<u8>,
    near: Net,
    wide: Net,
    bound: bool,
}

/// A node that has answered, with its token.
pub(super) struct Found {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    pub(super) token: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Search {
    target: NodeId,
    /// By distance. Bound: [`MAX_CANDIDATES`].
    candidates: Vec<Candidate>,
    /// Bound: [`MAX_KNOWN`].
    known: BTreeSet<SocketAddr>,
    asked: usize,
    answered: usize,
    rounds: u32,
}

impl Search {
    pub(super) fn new(target: NodeId) -> Search {
        Search { target, candidates: Vec::new(), known: BTreeSet::new(), asked: 0, answered: 0, rounds: 0 }
    }

    /// A candidate to begin with.
    pub(super) fn begin_with(&mut self, id: Option<NodeId>, addr: SocketAddr) {
        self.add(id, addr, 0);
    }

    /// The next to ask; taken for asked. `None`: not now.
    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        let out = self.candidates.iter().filter(|candidate| candidate.state == State::Asked).count();
        if out >= ALPHA || self.asked >= MAX_ASKED {
            return None;
        }
        let at = self.nearest().into_iter().find(|at| self.candidates[*at].state == State::New)?;
        self.candidates[at].state = State::Asked;
        self.asked += 1;
        Some(self.candidates[at].addr)
    }

    /// Whether there is nothing more to hope for.
    pub(super) fn is_over(&self) -> bool {
        let nearest = self.nearest();
        let has = |state| nearest.iter().any(|at| self.candidates[*at].state == state);
        if has(State::Asked) || (has(State::New) && self.asked < MAX_ASKED) {
            return false;
        }
        // Who is slow is waited for only while there are not enough others.
        nearest.len() >= K || self.candidates.iter().all(|candidate| candidate.state != State::Slow)
    }

    /// A candidate answered, as `id`. Which round that was, from 1; `None` if it is not the one it was named as, and
    /// has no better right to this id.
    pub(super) fn answered(&mut self, id: NodeId, addr: SocketAddr, token: Option<&[u8]>) -> Option<u32> {
        let at = self.candidates.iter().position(|candidate| candidate.addr == addr)?;
        let candidate = &mut self.candidates[at];
        if candidate.id.is_some_and(|named| named != id) && !id::is_bound(id, addr.ip()) {
            candidate.state = State::Failed;
            return None;
        }
        candidate.id = Some(id);
        candidate.bound = id::is_bound(id, addr.ip());
        candidate.state = State::Answered;
        candidate.token = token.unwrap_or_default().to_vec();
        let round = candidate.depth + 1;
        self.answered += 1;
        self.rounds = self.rounds.max(round);
        let target = self.target;
        self.candidates.sort_by_key(|candidate| candidate.distance(target));
        Some(round)
    }

    /// The answer of `round` named a node.
    pub(super) fn named(&mut self, id: NodeId, addr: SocketAddr, round: u32) {
        self.add(Some(id), addr, round);
    }

    pub(super) fn slow(&mut self, addr: SocketAddr) {
        self.set(addr, State::Slow);
    }

    pub(super) fn failed(&mut self, addr: SocketAddr) {
        self.set(addr, State::Failed);
    }

    /// The nearest that have answered, at most [`K`].
    pub(super) fn found(&self) -> Vec<Found> {
        let nearest = self.nearest().into_iter().map(|at| &self.candidates[at]);
        let answered = nearest.filter(|candidate| candidate.state == State::Answered);
        let found = answered.filter_map(|candidate| {
            Some(Found { id: candidate.id?, addr: candidate.addr, token: candidate.token.clone() })
        });
        found.collect()
    }

    pub(super) fn target(&self) -> NodeId {
        self.target
    }

    /// How many were asked and how many answered.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.asked, self.answered)
    }

    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Bytes of heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let tokens: usize = self.candidates.iter().map(|candidate| candidate.token.capacity()).sum();
        let known = self.known.len() * size_of::<SocketAddr>() * 3 / 2;
        self.candidates.capacity() * size_of::<Candidate>() + tokens + known
    }

    fn set(&mut self, addr: SocketAddr, state: State) {
        let waits = |candidate: &&mut Candidate| {
            candidate.addr == addr && matches!(candidate.state, State::Asked | State::Slow)
        };
        if let Some(candidate) = self.candidates.iter_mut().find(waits) {
            candidate.state = state;
        }
    }

    /// The [`K`] nearest that count, by their places: who has answered, is asked or could be.
    fn nearest(&self) -> Vec<usize> {
        let mut seen: Vec<&Candidate> = Vec::with_capacity(2 * K);
        let (mut chosen, mut unbound) = (Vec::with_capacity(K), Vec::new());
        for (at, candidate) in self.candidates.iter().enumerate() {
            if matches!(candidate.state, State::Failed | State::Slow) {
                continue;
            }
            let of_wide = seen.iter().filter(|nearer| nearer.wide == candidate.wide).count();
            if of_wide >= WIDE_SHARE || seen.iter().any(|nearer| nearer.near == candidate.near) {
                continue;
            }
            seen.push(candidate);
            if candidate.bound || unbound.len() < UNBOUND_SHARE {
                chosen.push(at);
            }
            if !candidate.bound {
                unbound.push(at);
            }
            if chosen.len() == K {
                return chosen;
            }
        }
        // Not enough with bound ids: the others fill up, or a young network would find nobody.
        chosen.extend(unbound.into_iter().skip(UNBOUND_SHARE).take(K - chosen.len()));
        chosen.sort_unstable();
        chosen
    }

    fn add(&mut self, id: Option<NodeId>, addr: SocketAddr, depth: u32) {
        if self.known.len() >= MAX_KNOWN || self.known.contains(&addr) || !self.has_room_for(addr) {
            return;
        }
        let bound = id.is_none_or(|id| id::is_bound(id, addr.ip()));
        let (near, wide, token) = (net::near(addr), net::wide(addr), Vec::new());
        let new = Candidate { id, addr, state: State::New, depth, token, near, wide, bound };
        let distance = new.distance(self.target);
        if self.candidates.len() >= MAX_CANDIDATES {
            let farthest = self.candidates.iter().rposition(|candidate| {
                matches!(candidate.state, State::New | State::Failed)
                    && candidate.distance(self.target) > distance
            });
            let Some(farthest) = farthest else { return };
            self.candidates.remove(farthest);
        }
        self.known.insert(addr);
        let at = self.candidates.partition_point(|candidate| candidate.distance(self.target) <= distance);
        self.candidates.insert(at, new);
    }

    fn has_room_for(&self, addr: SocketAddr) -> bool {
        let (near, wide) = (net::near(addr), net::wide(addr));
        let live = || self.candidates.iter().filter(|candidate| candidate.state != State::Failed);
        live().all(|candidate| candidate.near != near)
            && live().filter(|candidate| candidate.wide == wide).count() < WIDE_KEPT
    }
}

impl Candidate {
    fn distance(&self, target: NodeId) -> NodeId {
        self.id.map_or(NodeId([0xff; 20]), |id| id.distance(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// An id with `shared` leading bits of zero, then a one.
    fn id(shared: usize, number: u8) -> NodeId {
        let mut id = [0; 20];
        id[shared / 8] = 0x80 >> (shared % 8);
        id[19] = number;
        NodeId(id)
    }

    fn home(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number + 1))
    }

    fn search() -> Search {
        Search::new(NodeId([0; 20]))
    }

    #[test]
    fn goes_nearer_until_the_nearest_have_answered() {
        let mut search = search();
        search.begin_with(Some(id(0, 0)), home(0));
        let (mut asked, mut next) = (Vec::new(), 1);
        loop {
            while let Some(addr) = search.next() {
                asked.push(addr);
                let number = addr.port() - 1;
                let round = search.answered(id(usize::from(number), number as u8), addr, None).unwrap();
                if next <= 20 {
                    search.named(id(usize::from(next), next as u8), home(next), round);
                    next += 1;
                }
            }
            if search.is_over() {
                break;
            }
        }
        assert_eq!((search.rounds(), search.counts()), (21, (21, 21)));
        let found: Vec<_> = search.found().into_iter().map(|found| found.addr).collect();
        assert_eq!(found, (13..=20).rev().map(home).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_than_alpha_at_once_and_slow_ones_are_passed() {
        let mut search = search();
        (0..20).for_each(|number| search.begin_with(Some(id(30, number)), home(number.into())));
        let asked: Vec<_> = std::iter::from_fn(|| search.next()).collect();
        assert_eq!(asked.len(), ALPHA);
        search.slow(asked[0]);
        assert_eq!(std::iter::from_fn(|| search.next()).count(), 1);
        assert_eq!(search.answered(id(30, 0), asked[0], None), Some(1), "late is not never");
        assert!(!search.is_over());
        let mut search = self::search();
        let public = SocketAddr::from(([20, 1, 1, 1], 1));
        search.begin_with(Some(id(30, 1)), public);
        search.next();
        assert_eq!(search.answered(id(31, 9), public, None), None, "an id that was not named");
        assert!(search.is_over() && search.found().is_empty());
    }

    #[test]
    fn slow_ones_are_waited_for_if_there_are_no_others() {
        let mut search = search();
        search.begin_with(None, home(1));
        assert!(!search.is_over());
        let addr = search.next().unwrap();
        search.slow(addr);
        assert!(!search.is_over());
        search.failed(addr);
        assert!(search.is_over() && search.found().is_empty());
    }

    #[test]
    fn a_clan_gets_two_places() {
        let mut search = search();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for number in 0..8 {
            let addr = SocketAddr::from(([30 + number, 1, 1, 1], 1));
            search.begin_with(Some(id::bound_to(addr.ip(), &mut rng)), addr);
        }
        // Nearer than all, from one /16, and one of them with five ports.
        for number in 0..100 {
            search.named(id(100, number), SocketAddr::from(([20, 1, number, 1], 1)), 1);
            search.named(id(100, number), SocketAddr::from(([20, 1, 0, 1], 2 + u16::from(number))), 1);
        }
        while let Some(addr) = search.next() {
            let named =
                search.candidates.iter().find(|candidate| candidate.addr == addr).unwrap().id.unwrap();
            search.answered(named, addr, None);
        }
        let found = search.found();
        let clan = found.iter().filter(|found| net::wide(found.addr) == net::wide(([20, 1, 0, 0], 1).into()));
        assert_eq!((found.len(), clan.count()), (8, 2));
    }

    #[test]
    fn bound_ids_get_half_of_the_places_if_they_exist() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for bound in [0, 2, 8] {
            let mut search = search();
            for number in 0..20 {
                search.begin_with(Some(id(100, number)), SocketAddr::from(([30 + number, 1, 1, 1], 1)));
            }
            for number in 0..bound {
                let addr = SocketAddr::from(([60 + number, 1, 1, 1], 1));
                search.begin_with(Some(id::bound_to(addr.ip(), &mut rng)), addr);
            }
            let nearest = search.nearest();
            let good = nearest.iter().filter(|at| search.candidates[**at].bound).count();
            assert_eq!((nearest.len(), good), (K, usize::from(bound).min(4)));
        }
    }

    #[test]
    fn floods_are_bounded() {
        let mut search = search();
        for number in 0..20_000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            search.named(id(50, c), SocketAddr::from(([20 + a, b, c, 1], 1)), 1);
        }
        assert!(search.candidates.len() <= MAX_CANDIDATES && search.known.len() <= MAX_KNOWN);
        let mut asked = 0;
        while let Some(addr) = search.next() {
            search.failed(addr);
            asked += 1;
            let [a, b] = (asked as u16).to_be_bytes();
            search.named(id(60, 1), SocketAddr::from(([200, a, b, 1], 1)), 1);
        }
        assert!(asked <= MAX_ASKED && search.is_over());
        assert!(search.heap_bytes() < 100_000);
    }
}
