//! How the world sees us, and which connections are therefore worth more (BEP 40).
//!
//! Owns nothing that lasts: the Server holds the election, each Shard keeps a copy of its outcome.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use piecemeal_discovery::priority::priority;

/// The voice that all trackers have together: what they say of us comes without their own address.
pub(crate) const TRACKERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Our addresses as others see them, as far as enough of them agree; and the ports peers reach us at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outside {
    /// The IPv4 address.
    pub v4: Option<IpAddr>,
    /// The IPv6 address.
    pub v6: Option<IpAddr>,
    /// The port we listen on, where peers nearby and those of IPv6 reach us; 0: none.
    pub port: u16,
    /// The port that peers from outside reach us at by IPv4: a router's, if one maps ours.
    pub port_v4: u16,
}

impl Outside {
    /// Nobody said who we are; we listen on this port.
    pub fn at(port: u16) -> Outside {
        Outside { port, port_v4: port, ..Outside::default() }
    }

    /// What a connection with `peer` is worth, the same number at both ends; `None` while we do not know who we are.
    pub fn rank(&self, peer: SocketAddr) -> Option<u32> {
        let (ours, port) = if peer.is_ipv4() { (self.v4, self.port_v4) } else { (self.v6, self.port) };
        ours.map(|ip| priority(SocketAddr::new(ip, port), peer))
    }

    /// Of `peers`, the one whose connection is worth least, if that is less than what one with `newcomer` is worth. Both
    /// ends rank alike, so whoever must go is not chosen by either.
    pub(crate) fn worth_less<T: Ord>(
        &self,
        newcomer: SocketAddr,
        peers: impl Iterator<Item = (SocketAddr, T)>,
    ) -> Option<T> {
        let worth = self.rank(newcomer)?;
        let (least, who) = peers.filter_map(|(addr, who)| Some((self.rank(addr)?, who))).min()?;
        (least < worth).then_some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_worth_least_makes_room() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let outside = Outside { v4: Some("123.213.32.10".parse().unwrap()), ..Outside::at(6881) };
        // Ranks published with BEP 40: of this address with 98.76.54.32 and with 123.213.32.234.
        let (high, low) = (addr("98.76.54.32:1"), addr("123.213.32.234:1"));
        assert_eq!((outside.rank(high), outside.rank(low)), (Some(0xec2d_7224), Some(0x9956_8189)));
        let unranked = addr("[2001:db8::1]:1");
        assert_eq!(outside.worth_less(high, [(unranked, 1), (low, 2)].into_iter()), Some(2));
        assert_eq!(outside.worth_less(low, [(unranked, 1), (high, 2)].into_iter()), None);
        assert_eq!(outside.worth_less(unranked, [(low, 2)].into_iter()), None);
        assert_eq!(Outside::default().worth_less(high, [(low, 2)].into_iter()), None);
    }
}
