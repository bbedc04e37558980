//! The info dictionary, part by part.
//!
//! Peers may disagree about its size, so there may be several assemblies; memory is taken only for parts that came, and
//! is bounded. A suspect has an assembly of its own. Who tells several sizes is believed the last one only, so that
//! nobody fills all places alone; and when memory is full, the oldest assembly goes on alone until it is whole or its
//! time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::metadata::metadata_pieces;

/// Bytes of all parts, but for what the oldest assembly still lacks: two of the largest dictionaries.
const MOST_BYTES: usize = 32 << 20;
/// Assemblies at once. A swarm has one size; more are lies, or suspects who prove themselves. As many as a torrent has
/// connections.
const MOST_ASSEMBLIES: usize = 100;
/// When others wait for room, an assembly that is not whole after this makes some. Liars who trickle cannot keep the
/// honest out for longer; 16 MiB in this time are 280 KB/s.
const TURN: Duration = Duration::from_secs(60);
/// Suspects remembered: a whole swarm of liars. Beyond, all begin anew.
const MOST_SUSPECTS: usize = 1000;

/// Whose an assembly is: everybody's of that size, or one suspect's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    alone: Option<IpAddr>,
    size: u32,
}

/// What has come of one dictionary.
#[derive(Debug)]
struct Assembly {
    since: Time,
    /// By number: the part, and who sent it.
    parts: BTreeMap<u32, (Vec<u8>, SocketAddr)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    /// At most [`MOST_ASSEMBLIES`]; none is empty.
    open: BTreeMap<Key, Assembly>,
    /// At most [`MOST_SUSPECTS`].
    suspects: BTreeSet<IpAddr>,
}

/// What became of a part.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Took {
    /// It was missing.
    Part,
    /// It was there, or there is no room.
    Useless,
    /// It was the last that was missing.
    Whole {
        /// All parts in order.
        bytes: Vec<u8>,
        /// Who sent them, each once.
        senders: Vec<SocketAddr>,
    },
}

impl Assemblies {
    fn key(&self, who: SocketAddr, size: u32) -> Key {
        Key { alone: Some(who.ip()).filter(|ip| self.suspects.contains(ip)), size }
    }

    /// Whether a part for this assembly would be taken.
    fn has_room(&self, key: &Key) -> bool {
        let full = self.bytes() >= MOST_BYTES;
        match self.open.contains_key(key) {
            true => !full || self.oldest().is_some_and(|(oldest, _)| oldest == key),
            false => !full && self.open.len() < MOST_ASSEMBLIES,
        }
    }

    fn oldest(&self) -> Option<(&Key, &Assembly)> {
        self.open.iter().min_by_key(|(key, assembly)| (assembly.since, **key))
    }

    /// Memory for parts.
    pub(super) fn bytes(&self) -> usize {
        let parts = self.open.values().flat_map(|assembly| assembly.parts.values());
        parts.map(|(data, _)| data.capacity()).sum()
    }

    /// A part that `who`, who speaks of `size` bytes, should be asked for: the first that is missing and not among
    /// `asked`; if all are, the first missing one again, as it may come sooner. `None` while there is no room.
    pub(super) fn next_part(&mut self, now: Time, who: SocketAddr, size: u32, asked: &[u32]) -> Option<u32> {
        let key = self.key(who, size);
        if !self.has_room(&key) && !self.make_room(now) {
            return None;
        }
        let there = self.open.get(&key);
        let missing = |part: &u32| there.is_none_or(|assembly| !assembly.parts.contains_key(part));
        let mut all = (0..metadata_pieces(size)).filter(missing);
        let first = all.clone().next();
        if key.alone.is_some() {
            return first;
        }
        all.find(|part| !asked.contains(part)).or(first)
    }

    /// The oldest assembly goes, if its turn is over.
    fn make_room(&mut self, now: Time) -> bool {
        let over =
            self.oldest().filter(|(_, assembly)| now.since(assembly.since) >= TURN).map(|(key, _)| *key);
        over.is_some_and(|key| self.open.remove(&key).is_some())
    }

    /// Takes a part from `who`; its length was checked against its place.
    pub(super) fn take(&mut self, now: Time, who: SocketAddr, size: u32, part: u32, data: Vec<u8>) -> Took {
        let key = self.key(who, size);
        self.drop_all_of(who.ip(), Some(key));
        if !self.has_room(&key) {
            return Took::Useless;
        }
        let assembly = self.open.entry(key).or_insert(Assembly { since: now, parts: BTreeMap::new() });
        if assembly.parts.contains_key(&part) {
            return Took::Useless;
        }
        assembly.parts.insert(part, (data, who));
        if assembly.parts.len() < metadata_pieces(size) as usize {
            return Took::Part;
        }
        let parts = self.open.remove(&key).map(|assembly| assembly.parts).unwrap_or_default();
        let mut senders: Vec<_> = parts.values().map(|(_, who)| *who).collect();
        senders.sort_unstable();
        senders.dedup_by_key(|who| who.ip());
        Took::Whole { bytes: parts.into_values().flat_map(|(data, _)| data).collect(), senders }
    }

    /// The whole that these sent is wrong; if it was one alone, it is guilty.
    pub(super) fn wrong(&mut self, senders: &[SocketAddr]) -> Option<SocketAddr> {
        if let [alone] = senders {
            self.suspects.remove(&alone.ip());
            self.drop_all_of(alone.ip(), None);
            return Some(*alone);
        }
        if self.suspects.len() + senders.len() > MOST_SUSPECTS {
            self.suspects.clear();
        }
        for sender in senders {
            self.suspects.insert(sender.ip());
            // What suspects brought to other assemblies is not to be mixed with what others bring.
            self.drop_all_of(sender.ip(), None);
        }
        None
    }

    /// Who stopped giving, or left, holds no place of its own any more. What it gave to others stays.
    pub(super) fn gave_up(&mut self, who: IpAddr) {
        self.open.retain(|key, _| key.alone != Some(who));
    }

    /// All that came from there goes, but not what came to the assembly `but`.
    fn drop_all_of(&mut self, who: IpAddr, but: Option<Key>) {
        self.open.retain(|key, assembly| {
            if Some(*key) != but {
                assembly.parts.retain(|_, (_, sender)| sender.ip() != who);
            }
            !assembly.parts.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u32 = 16 << 10;

    fn peer(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 6881))
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn parts_of_several_become_the_whole_in_order() {
        let mut all = Assemblies::default();
        let size = 2 * PART + 3;
        assert_eq!(all.next_part(at(0), peer(1), size, &[]), Some(0));
        assert_eq!(all.next_part(at(0), peer(2), size, &[0]), Some(1));
        assert_eq!(all.next_part(at(0), peer(3), size, &[0, 1, 2]), Some(0), "again: it may come sooner");
        assert_eq!(all.take(at(0), peer(2), size, 1, vec![1; PART as usize]), Took::Part);
        assert_eq!(all.take(at(0), peer(3), size, 1, vec![9; PART as usize]), Took::Useless);
        assert_eq!(all.take(at(0), peer(1), size, 2, vec![2; 3]), Took::Part);
        assert_eq!(all.next_part(at(0), peer(1), size, &[]), Some(0));
        let Took::Whole { bytes, senders } = all.take(at(0), peer(1), size, 0, vec![0; PART as usize]) else {
            panic!("not whole")
        };
        assert_eq!(bytes, [vec![0; PART as usize], vec![1; PART as usize], vec![2; 3]].concat());
        assert_eq!(senders, [peer(1), peer(2)]);
    }

    #[test]
    fn suspects_prove_themselves_alone() {
        let mut all = Assemblies::default();
        let size = 2 * PART;
        let part = || vec![7; PART as usize];
        all.take(at(0), peer(1), size, 0, part());
        let Took::Whole { senders, .. } = all.take(at(0), peer(2), size, 1, part()) else {
            panic!("not whole")
        };
        assert_eq!(all.wrong(&senders), None);
        for (who, first) in [(peer(1), true), (peer(2), false)] {
            assert_eq!(all.next_part(at(0), who, size, &[0, 1]), Some(0), "the whole, whoever was asked");
            assert_eq!(all.take(at(0), who, size, 0, part()), Took::Part);
            let took = all.take(at(0), who, size, 1, part());
            assert!(matches!(&took, Took::Whole { senders, .. } if *senders == [who]), "{took:?}");
            if first {
                assert_eq!(all.wrong(&[who]), Some(who));
            }
        }
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn one_peer_has_one_place_and_a_turn_ends() {
        let mut all = Assemblies::default();
        for size in 1..100 {
            all.take(at(0), peer(1), size * PART + 1, 0, vec![0; PART as usize]);
        }
        assert_eq!((all.open.len(), all.bytes()), (1, PART as usize));
        // Each with another size, and all but the last part.
        for (liar, size) in (2..10).zip(900..) {
            for part in 1..size {
                if all.next_part(at(1), peer(liar), size * PART, &[]).is_some() {
                    all.take(at(1), peer(liar), size * PART, part, vec![0; PART as usize]);
                }
            }
        }
        assert!(all.bytes() <= MOST_BYTES + (16 << 20), "{}", all.bytes());
        let size = 2 * PART;
        assert_eq!(all.next_part(at(59), peer(99), size, &[]), None);
        assert_eq!(all.take(at(59), peer(99), size, 0, vec![0; PART as usize]), Took::Useless);
        assert_eq!(all.next_part(at(59), peer(1), 99 * PART + 1, &[]), Some(1), "the oldest goes on");
        assert_eq!(all.next_part(at(60), peer(99), size, &[]), Some(0), "the oldest's turn is over");
        assert_eq!(all.take(at(60), peer(99), size, 0, vec![0; PART as usize]), Took::Part);
    }

    #[test]
    fn who_gives_up_leaves_its_place_and_what_it_gave() {
        let mut all = Assemblies::default();
        all.suspects.insert(peer(1).ip());
        all.take(at(0), peer(1), 2 * PART, 0, vec![0; PART as usize]);
        all.take(at(0), peer(2), 2 * PART, 0, vec![0; PART as usize]);
        assert_eq!(all.open.len(), 2);
        all.gave_up(peer(1).ip());
        all.gave_up(peer(2).ip());
        assert_eq!(all.open.len(), 1);
    }
}
