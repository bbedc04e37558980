//! The routing table: nodes that have answered, by how many leading bits they share with us.
//!
//! Owns who is in it and in what state. It sends nothing: [`Table::stale`] and [`Table::unrefreshed`] say what is
//! worth asking. A bucket holds the nodes that share exactly so many bits; the first four, which are half, a quarter,
//! ... of all nodes, hold more than the others, since every lookup starts there (as libtorrent's extended table).
//!
//! Who gets in:
//! 1. only who has answered a question of ours;
//! 2. one node an IP address; one of a near network in a bucket, and few of a wide one (see `net`);
//! 3. nobody with the id of a node that still answers, from wherever; a known address with a new id loses its place,
//!    and gets another only for an id that is bound to it;
//! 4. in a full bucket a node that fails makes room, then, for one whose id is bound to its address, one whose id is
//!    not; else the newcomer waits as a spare.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::krpc::NodeId;

use super::{id, net};
use crate::local::is_local;

/// Nodes of a bucket, and of an answer (BEP 5).
pub(super) const K: usize = 8;
/// Nodes of the first buckets.
const WIDE_BUCKETS: [usize; 4] = [128, 64, 32, 16];
/// A node that answered within this is good (BEP 5).
pub(super) const GOOD_FOR: Duration = Duration::from_secs(15 * 60);
/// A node is not asked again by the table within this.
const ASK_PAUSE: Duration = Duration::from_secs(20);
/// Unanswered questions after which a node is dropped.
const MAX_FAILS: u8 = 3;
/// Bits of an id.
const BITS: usize = 160;

/// A node of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
    /// When it last answered.
    pub(super) heard: Time,
    asked: Time,
    /// Questions in a row that it has not answered.
    pub(super) fails: u8,
    bound: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bound: [`size`].
    nodes: Vec<Node>,
    /// In order of arrival. Bound: [`K`].
    spares: Vec<Node>,
    refreshed: Time,
}

#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    /// As many as are needed, at least one. Bound: [`BITS`].
    buckets: Vec<Bucket>,
}

fn size(bucket: usize) -> usize {
    WIDE_BUCKETS.get(bucket).copied().unwrap_or(K)
}

/// Nodes of one wide network in a bucket.
fn wide_share(bucket: usize) -> usize {
    (size(bucket) / 8).max(2)
}

impl Table {
    pub(super) fn new(own: NodeId) -> Table {
        Table { own, buckets: vec![Bucket::default()] }
    }

    /// Our id has changed: everybody finds a new place.
    pub(super) fn move_to(&mut self, now: Time, own: NodeId) {
        let old = std::mem::replace(self, Table::new(own));
        let nodes = old.buckets.into_iter().flat_map(|bucket| bucket.nodes.into_iter().chain(bucket.spares));
        for node in nodes.collect::<Vec<_>>() {
            self.insert(node, now);
        }
        self.buckets.iter_mut().for_each(|bucket| bucket.refreshed = Time::ZERO);
    }

    /// A node has answered.
    pub(super) fn answered(&mut self, now: Time, id: NodeId, addr: SocketAddr) {
        let bound = id::is_bound(id, addr.ip());
        self.insert(Node { id, addr, heard: now, asked: now, fails: 0, bound }, now);
    }

    /// A node was asked by somebody; the table leaves it alone for a while.
    pub(super) fn asked(&mut self, now: Time, addr: SocketAddr) {
        if let Some(node) = self.find(addr) {
            node.asked = now;
        }
    }

    /// A node has not answered.
    pub(super) fn failed(&mut self, addr: SocketAddr) {
        for bucket in &mut self.buckets {
            bucket.spares.retain(|spare| spare.addr != addr);
            let Some(at) = bucket.nodes.iter().position(|node| node.addr == addr) else { continue };
            let node = &mut bucket.nodes[at];
            node.fails += 1;
            // Someone waits for the place, or it was silent too often.
            if node.fails >= MAX_FAILS || (node.fails > 1 && !bucket.spares.is_empty()) {
                bucket.nodes.remove(at);
                bucket.nodes.extend(bucket.spares.pop());
            }
        }
    }

    /// Whether a newcomer with this id and address could get a place, so that it is worth a question.
    pub(super) fn is_welcome(&self, id: NodeId, addr: SocketAddr) -> bool {
        let Some(at) = self.place(id) else { return false };
        if let Some(node) = self.nodes().find(|node| node.addr == addr) {
            // It was somebody else: what we tell others of it is wrong.
            return node.id != id;
        }
        let known = self.nodes().any(|node| node.id == id);
        let nodes = self.buckets.get(at).map_or(&[][..], |bucket| &bucket.nodes);
        let room = nodes.len() < size(at) || nodes.iter().any(|node| node.fails > 0);
        !known && room && !self.is_crowded(at, addr)
    }

    /// The `want` nodes nearest to `target`, nearest first; those that answer before those that failed.
    pub(super) fn nearest(&self, target: NodeId, want: usize) -> Vec<(NodeId, SocketAddr)> {
        let keyed = self.nodes().map(|node| (node.fails > 1, node.id.distance(target), node.addr));
        let mut nodes: Vec<_> = keyed.collect();
        if want < nodes.len() {
            nodes.select_nth_unstable(want);
            nodes.truncate(want);
        }
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, distance, addr)| (distance.distance(target), addr)).collect()
    }

    /// A node that has been silent for longer than is good, the longest first.
    pub(super) fn stale(&self, now: Time) -> Option<SocketAddr> {
        let stale = self.nodes().filter(|node| now.since(node.heard) >= GOOD_FOR || node.fails > 0);
        let stale = stale.filter(|node| now.since(node.asked) >= ASK_PAUSE);
        stale.min_by_key(|node| node.heard).map(|node| node.addr)
    }

    /// An id of a bucket where nothing was looked for for a quarter of an hour; it is taken for refreshed now.
    pub(super) fn unrefreshed(&mut self, now: Time, random: NodeId) -> Option<NodeId> {
        let own = self.own;
        let depth = self.depth();
        let due = |bucket: &Bucket| bucket.refreshed == Time::ZERO || now.since(bucket.refreshed) >= GOOD_FOR;
        // The nearest ones first: they are what others ask us for.
        let at = (0..=depth).rev().find(|at| due(&self.buckets[*at]))?;
        self.buckets[at].refreshed = now.max(Time::from_nanos(1));
        let mut id = random;
        for bit in 0..=at {
            let mask = 0x80 >> (bit % 8);
            let want = (own.0[bit / 8] & mask) ^ if bit == at { mask } else { 0 };
            id.0[bit / 8] = id.0[bit / 8] & !mask | want;
        }
        Some(id)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.buckets.iter().flat_map(|bucket| &bucket.nodes)
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.nodes.len()).sum()
    }

    /// Bytes of heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let nodes = |bucket: &Bucket| bucket.nodes.capacity() + bucket.spares.capacity();
        let nodes: usize = self.buckets.iter().map(nodes).sum();
        nodes * size_of::<Node>() + self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Forgets those at other addresses than `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) {
        for bucket in &mut self.buckets {
            bucket.nodes.retain(|node| keep(node.addr.ip()));
            bucket.spares.retain(|spare| keep(spare.addr.ip()));
        }
    }

    /// The last bucket that is not empty.
    fn depth(&self) -> usize {
        self.buckets.iter().rposition(|bucket| !bucket.nodes.is_empty()).unwrap_or(0)
    }

    fn place(&self, id: NodeId) -> Option<usize> {
        Some(self.own.shared_bits(id) as usize).filter(|at| *at < BITS)
    }

    fn find(&mut self, addr: SocketAddr) -> Option<&mut Node> {
        self.buckets.iter_mut().flat_map(|bucket| &mut bucket.nodes).find(|node| node.addr == addr)
    }

    /// Whether the networks of `addr` have as many nodes in the bucket as they may.
    fn is_crowded(&self, at: usize, addr: SocketAddr) -> bool {
        let (near, wide) = (net::near(addr), net::wide(addr));
        let mut of_wide = 0;
        for node in self.buckets.get(at).into_iter().flat_map(|bucket| &bucket.nodes) {
            if net::near(node.addr) == near {
                return true;
            }
            of_wide += usize::from(net::wide(node.addr) == wide);
        }
        let alone = is_local(addr.ip());
        of_wide >= wide_share(at) || (!alone && self.nodes().any(|node| node.addr.ip() == addr.ip()))
    }

    fn insert(&mut self, new: Node, now: Time) {
        let Some(at) = self.place(new.id) else { return };
        if self.buckets.len() <= at {
            self.buckets.resize_with(at + 1, Bucket::default);
        }
        if let Some(known) = self.find(new.addr) {
            if known.id == new.id {
                (known.heard, known.fails) = (known.heard.max(new.heard), new.fails);
                return;
            }
            self.forget(new.addr);
            if !new.bound {
                return;
            }
        }
        if let Some(namesake) = self.buckets[at].nodes.iter().find(|node| node.id == new.id) {
            if namesake.fails == 0 && now.since(namesake.heard) < GOOD_FOR {
                return;
            }
            let addr = namesake.addr;
            self.forget(addr);
        }
        if self.is_crowded(at, new.addr) {
            return;
        }
        let bucket = &mut self.buckets[at];
        bucket.spares.retain(|spare| spare.addr != new.addr);
        if bucket.nodes.len() < size(at) {
            bucket.nodes.push(new);
            return;
        }
        let failing = bucket.nodes.iter().position(|node| node.fails > 0);
        let unbound = || bucket.nodes.iter().position(|node| new.bound && !node.bound);
        match failing.or_else(unbound) {
            Some(place) => bucket.nodes[place] = new,
            None => {
                if bucket.spares.len() >= K {
                    bucket.spares.remove(0);
                }
                bucket.spares.push(new);
            }
        }
    }

    fn forget(&mut self, addr: SocketAddr) {
        self.buckets.iter_mut().for_each(|bucket| bucket.nodes.retain(|node| node.addr != addr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1_000_000_000);

    fn table() -> Table {
        Table::new(NodeId([0; 20]))
    }

    /// An id in the given bucket of [`table`].
    fn id(bucket: usize, number: u16) -> NodeId {
        let mut id = [0; 20];
        id[bucket / 8] = 0x80 >> (bucket % 8);
        id[17..19].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn addr(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([20 + high, low, 1, 1], 1))
    }

    #[test]
    fn buckets_have_sizes_and_spares_step_in() {
        let mut table = table();
        for number in 0..200 {
            table.answered(NOW, id(0, number), addr(number));
            table.answered(NOW, id(9, number + 1_000), addr(number + 1_000));
        }
        assert_eq!((table.buckets[0].nodes.len(), table.buckets[9].nodes.len()), (128, 8));
        assert_eq!(table.buckets[9].spares.len(), K);
        let first = table.buckets[9].nodes[0].addr;
        table.failed(first);
        assert!(table.nodes().any(|node| node.addr == first), "once is nothing");
        table.failed(first);
        assert!(table.nodes().all(|node| node.addr != first), "twice, and there are spares");
        assert_eq!((table.buckets[9].nodes.len(), table.buckets[9].spares.len()), (8, K - 1));
    }

    #[test]
    fn one_network_does_not_fill_a_bucket() {
        let mut table = table();
        for number in 0..250 {
            table.answered(NOW, id(9, number), SocketAddr::from(([20, 1, 1, number as u8], 1)));
        }
        table.answered(NOW, id(3, 1), SocketAddr::from(([20, 1, 1, 0], 9)));
        assert_eq!(table.len(), 1, "one of a /24, one of an address");
        for number in 0..250 {
            table.answered(NOW, id(9, number), SocketAddr::from(([20, 1, number as u8, 1], 1)));
        }
        assert_eq!(table.len(), 2, "two of a /16");
        for number in 0..250 {
            let home = SocketAddr::from(([127, 0, 0, 1], 1_000 + number));
            table.answered(NOW, id(9, number + 500), home);
        }
        assert_eq!(table.len(), 8, "at home networks do not count");
    }

    #[test]
    fn a_namesake_and_a_turncoat_get_nothing() {
        let mut table = table();
        table.answered(NOW, id(9, 1), addr(1));
        table.answered(NOW, id(9, 1), addr(2));
        assert_eq!(table.nearest(id(9, 1), 8), [(id(9, 1), addr(1))], "the first one still answers");
        table.answered(NOW, id(9, 2), addr(1));
        assert_eq!(table.len(), 0, "another id at the same address");
        table.answered(NOW, id(9, 1), addr(1));
        table.failed(addr(1));
        table.answered(NOW, id(9, 1), addr(2));
        assert_eq!(table.nearest(id(9, 1), 8), [(id(9, 1), addr(2))], "the first one was silent");
        table.answered(NOW, NodeId([0; 20]), addr(3));
        assert_eq!(table.len(), 1, "nobody is us");
    }

    #[test]
    fn a_bound_id_is_preferred() {
        let mut table = table();
        for number in 0..8 {
            table.answered(NOW, id(9, number), addr(number));
        }
        // Ids at home are always good.
        let home: SocketAddr = "192.168.0.1:1".parse().unwrap();
        table.answered(NOW, id(9, 100), home);
        assert!(table.nodes().any(|node| node.addr == home));
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn what_is_stale_or_unrefreshed_is_told() {
        let mut table = table();
        table.answered(NOW, id(2, 1), addr(1));
        table.answered(NOW + Duration::from_secs(60), id(5, 2), addr(2));
        assert_eq!(table.stale(NOW + Duration::from_secs(600)), None);
        let later = NOW + Duration::from_secs(1_000);
        assert_eq!(table.stale(later), Some(addr(1)));
        table.asked(later, addr(1));
        assert_eq!(table.stale(later), Some(addr(2)));
        table.asked(later, addr(2));
        assert_eq!(table.stale(later), None);
        let mut seen = Vec::new();
        while let Some(id) = table.unrefreshed(later, NodeId([0xaa; 20])) {
            seen.push(table.own.shared_bits(id));
        }
        assert_eq!(seen, [5, 4, 3, 2, 1, 0]);
        assert!(table.unrefreshed(later + GOOD_FOR, NodeId([0xaa; 20])).is_some());
    }

    #[test]
    fn a_new_id_keeps_the_nodes() {
        let mut table = table();
        for number in 0..40 {
            table.answered(NOW, id(0, number), addr(number));
        }
        let mut own = NodeId([0; 20]);
        own.0[0] = 0x40;
        table.move_to(NOW, own);
        assert_eq!(table.len(), 40);
        own.0[0] = 0x80;
        table.move_to(NOW, own);
        assert!((10..40).contains(&table.len()), "near buckets are small: {}", table.len());
        assert!(table.heap_bytes() > 0);
    }
}
