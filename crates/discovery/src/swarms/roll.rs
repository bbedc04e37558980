//! The peers of one swarm in one address family, as small as they can be.
//!
//! A `Roll` owns two vectors, seeds and leeches, each sorted by address. Sorted vectors are the unfashionable
//! choice, for these reasons:
//! 1. a peer costs 12 bytes (IPv4) or 24 (IPv6), no node, no hash table's empty slots;
//! 2. most announces come from peers already listed, found by bisection;
//! 3. a vector can be sampled by index, a tree cannot;
//! 4. neighbours in the order are neighbours in the network, so "how many peers has this host" is two bisections.
//!
//! The price is that a newcomer shifts those behind it: at the largest swarm allowed by default about half a
//! megabyte of `memmove`, tens of microseconds. Limits and clocks belong to [`super::Swarms`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Book time: tenths of a second since the Server was born; lasts 13 years.
pub(super) type Tenths = u32;

/// An address without its family's name, ordered so that one network's hosts stand together.
pub(super) trait Host: Copy + Ord {
    /// A number that orders as address and port do: quicker to compare than bytes.
    type Rank: Ord;
    /// That of this address with this port.
    fn rank(self, port: u16) -> Self::Rank;
    /// The address for the answer.
    fn ip(self) -> IpAddr;
    /// What one subscriber can be assumed to hold: an IPv4 address, or an IPv6 /64.
    fn network(self) -> u64;
}

impl Host for [u8; 4] {
    type Rank = u64;

    fn rank(self, port: u16) -> u64 {
        u64::from(u32::from_be_bytes(self)) << 16 | u64::from(port)
    }

    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }

    fn network(self) -> u64 {
        u32::from_be_bytes(self).into()
    }
}

impl Host for [u8; 16] {
    type Rank = (u128, u16);

    fn rank(self, port: u16) -> (u128, u16) {
        (u128::from_be_bytes(self), port)
    }

    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }

    fn network(self) -> u64 {
        (u128::from_be_bytes(self) >> 64) as u64
    }
}

/// One peer: where it listens and when it last announced.
#[derive(Clone, Copy)]
pub(super) struct Listed<H> {
    host: H,
    port: u16,
    heard: Tenths,
}

impl<H: Host> Listed<H> {
    fn rank(&self) -> H::Rank {
        self.host.rank(self.port)
    }
}

/// Seeds and leeches of one swarm in one family; no address is in both.
pub(super) struct Roll<H> {
    seeds: Vec<Listed<H>>,
    leeches: Vec<Listed<H>>,
}

impl<H> Default for Roll<H> {
    fn default() -> Self {
        Roll { seeds: Vec::new(), leeches: Vec::new() }
    }
}

/// What the roll knew of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Was {
    Unlisted,
    Leech,
    Seed,
}

impl<H: Host> Roll<H> {
    pub(super) fn seeds(&self) -> usize {
        self.seeds.len()
    }

    pub(super) fn leeches(&self) -> usize {
        self.leeches.len()
    }

    pub(super) fn was(&self, host: H, port: u16) -> Was {
        if find(&self.leeches, host, port).is_ok() {
            Was::Leech
        } else if find(&self.seeds, host, port).is_ok() {
            Was::Seed
        } else {
            Was::Unlisted
        }
    }

    /// Peers listed from the network `host` is in.
    pub(super) fn neighbours(&self, host: H) -> usize {
        let count = |peers: &[Listed<H>]| {
            let network = host.network();
            let start = peers.partition_point(|peer| peer.host.network() < network);
            peers[start..].partition_point(|peer| peer.host.network() == network)
        };
        count(&self.seeds) + count(&self.leeches)
    }

    /// Lists the peer, or notes that it was heard again and whether it has become a seed or ceased to be one.
    pub(super) fn put(&mut self, host: H, port: u16, seed: bool, heard: Tenths) {
        let (to, other) =
            if seed { (&mut self.seeds, &mut self.leeches) } else { (&mut self.leeches, &mut self.seeds) };
        if let Ok(at) = find(other, host, port) {
            other.remove(at);
        }
        match find(to, host, port) {
            Ok(at) => to[at].heard = heard,
            Err(at) => to.insert(at, Listed { host, port, heard }),
        }
    }

    /// Does what [`Roll::put`] does, but only for a peer that is listed; what it was.
    pub(super) fn renew(&mut self, host: H, port: u16, seed: bool, heard: Tenths) -> Was {
        let (same, was, other_was) = if seed {
            (&mut self.seeds, Was::Seed, Was::Leech)
        } else {
            (&mut self.leeches, Was::Leech, Was::Seed)
        };
        if let Ok(at) = find(same, host, port) {
            same[at].heard = heard;
            return was;
        }
        let other = if seed { &self.leeches } else { &self.seeds };
        if find(other, host, port).is_err() {
            return Was::Unlisted;
        }
        self.put(host, port, seed, heard);
        other_was
    }

    /// Strikes the peer off; false if it was not listed.
    pub(super) fn remove(&mut self, host: H, port: u16) -> bool {
        for peers in [&mut self.seeds, &mut self.leeches] {
            if let Ok(at) = find(peers, host, port) {
                peers.remove(at);
                return true;
            }
        }
        false
    }

    /// Strikes off those last heard before `limit`, gives back memory, and says how many went.
    pub(super) fn expire(&mut self, limit: Tenths) -> usize {
        let before = self.seeds.len() + self.leeches.len();
        for peers in [&mut self.seeds, &mut self.leeches] {
            peers.retain(|peer| peer.heard >= limit);
            if peers.capacity() > 2 * peers.len() + 4 {
                peers.shrink_to_fit();
            }
        }
        before - self.seeds.len() - self.leeches.len()
    }

    /// How many peers could be told to the asker: a seed has no use for seeds.
    pub(super) fn choice(&self, asker_is_seed: bool) -> usize {
        if asker_is_seed { self.leeches.len() } else { self.leeches.len() + self.seeds.len() }
    }

    /// Where the asker itself stands among its choice, if it does.
    pub(super) fn place(&self, host: H, port: u16, asker_is_seed: bool) -> Option<usize> {
        let among_seeds = || find(&self.seeds, host, port).ok().map(|at| at + self.leeches.len());
        match find(&self.leeches, host, port) {
            Ok(at) => Some(at),
            Err(_) if asker_is_seed => None,
            Err(_) => among_seeds(),
        }
    }

    /// The peer at `at` of the choice: leeches first, then seeds.
    pub(super) fn at(&self, at: usize) -> Option<SocketAddr> {
        let peer = self.leeches.get(at).or_else(|| self.seeds.get(at.checked_sub(self.leeches.len())?))?;
        Some(SocketAddr::new(peer.host.ip(), peer.port))
    }

    /// Bytes of heap this roll holds.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        (self.seeds.capacity() + self.leeches.capacity()) * size_of::<Listed<H>>()
    }
}

fn find<H: Host>(peers: &[Listed<H>], host: H, port: u16) -> Result<usize, usize> {
    let rank = host.rank(port);
    peers.binary_search_by(|peer| peer.rank().cmp(&rank))
}
