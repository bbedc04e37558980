//! The info dictionary, part by part.
//!
//! Peers may disagree about its size, so there may be several assemblies; memory is taken only for parts that came, and
//! their number is bounded. A suspect has an assembly of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use piecemeal_wire::metadata::metadata_pieces;

/// Sizes believed at once. A swarm has one; more are lies, and the first that come keep the others out until they are
/// proven wrong.
const MOST_ASSEMBLIES: usize = 8;

/// Whose an assembly is: everybody's of that size, or one suspect's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    alone: Option<IpAddr>,
    size: u32,
}

/// A part, and who sent it.
type Part = (Vec<u8>, SocketAddr);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Assemblies {
    open: BTreeMap<Key, BTreeMap<u32, Part>>,
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

    fn has_room(&self, key: &Key) -> bool {
        self.open.contains_key(key) || self.open.len() < MOST_ASSEMBLIES
    }

    /// A part that `who`, who speaks of `size` bytes, should be asked for: the first that is missing and not among
    /// `asked`; if all are, the first missing one again, as it may come sooner.
    pub(super) fn next_part(&self, who: SocketAddr, size: u32, asked: &[u32]) -> Option<u32> {
        let key = self.key(who, size);
        if !self.has_room(&key) {
            return None;
        }
        let there = self.open.get(&key);
        let missing = |part: &u32| there.is_none_or(|parts| !parts.contains_key(part));
        let mut all = (0..metadata_pieces(size)).filter(missing);
        let first = all.clone().next();
        if key.alone.is_some() {
            return first;
        }
        all.find(|part| !asked.contains(part)).or(first)
    }

    /// Takes a part from `who`; its length was checked against its place.
    pub(super) fn take(&mut self, who: SocketAddr, size: u32, part: u32, data: Vec<u8>) -> Took {
        let key = self.key(who, size);
        if !self.has_room(&key) {
            return Took::Useless;
        }
        let parts = self.open.entry(key).or_default();
        if parts.contains_key(&part) {
            return Took::Useless;
        }
        parts.insert(part, (data, who));
        if parts.len() < metadata_pieces(size) as usize {
            return Took::Part;
        }
        let parts = self.open.remove(&key).unwrap_or_default();
        let mut senders: Vec<_> = parts.values().map(|(_, who)| *who).collect();
        senders.sort_unstable();
        senders.dedup();
        Took::Whole { bytes: parts.into_values().flat_map(|(data, _)| data).collect(), senders }
    }

    /// The whole that these sent is wrong; if it was one alone, it is guilty.
    pub(super) fn wrong(&mut self, senders: &[SocketAddr]) -> Option<SocketAddr> {
        if let [alone] = senders {
            self.suspects.remove(&alone.ip());
            self.open.retain(|key, _| key.alone != Some(alone.ip()));
            return Some(*alone);
        }
        self.suspects.extend(senders.iter().map(SocketAddr::ip));
        // What suspects brought to other assemblies is not to be mixed with what others bring.
        for (key, parts) in &mut self.open {
            if key.alone.is_none() {
                parts.retain(|_, (_, who)| !self.suspects.contains(&who.ip()));
            }
        }
        self.open.retain(|_, parts| !parts.is_empty());
        None
    }
}
