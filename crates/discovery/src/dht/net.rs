//! Addresses as the DHT counts them.
//!
//! Owns what one party can be assumed to hold. Ids cost nothing, addresses do: so one node of a *near* network (IPv4
//! /24, IPv6 /64) and few of a *wide* one (IPv4 /16, IPv6 /32) have a voice in a bucket and in a lookup. Addresses of
//! the local network are exempt, since a test or a LAN lives in one of those; they are taken only from local nodes, so
//! that no stranger makes us knock at doors behind our own router.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::local::is_local;

/// A network, with its size in the low bits' place, so that a /16 and a /24 are never the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Net(u128);

/// What one subscriber holds. A local address with its port is a network of its own.
pub(super) fn near(addr: SocketAddr) -> Net {
    match addr.ip() {
        ip if is_local(ip) => alone(addr),
        IpAddr::V4(ip) => Net(u128::from(u32::from(ip) >> 8) << 8 | 24),
        IpAddr::V6(ip) => Net(u128::from(ip) >> 64 << 64 | 64),
    }
}

/// What one provider, or somebody with means, holds.
pub(super) fn wide(addr: SocketAddr) -> Net {
    match addr.ip() {
        ip if is_local(ip) => alone(addr),
        IpAddr::V4(ip) => Net(u128::from(u32::from(ip) >> 16) << 16 | 16),
        IpAddr::V6(ip) => Net(u128::from(ip) >> 96 << 96 | 32),
    }
}

fn alone(addr: SocketAddr) -> Net {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // Local addresses leave their upper bits alone: turning the port into them collides with no other network.
    Net(u128::from(ip) ^ u128::from(addr.port()) << 64 ^ 1 << 127)
}

/// Whether a datagram can go there at all.
pub(super) fn can_be_sent_to(addr: SocketAddr) -> bool {
    let whole = match addr.ip() {
        IpAddr::V4(ip) => !(ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240),
        IpAddr::V6(ip) => {
            !(ip.is_multicast() || ip == Ipv6Addr::UNSPECIFIED || ip.to_ipv4_mapped().is_some())
        }
    };
    whole && addr.port() != 0
}

/// Whether `addr` may be believed from `source`.
pub(super) fn can_be_told(addr: SocketAddr, source: SocketAddr) -> bool {
    can_be_sent_to(addr) && (!is_local(addr.ip()) || is_local(source.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        assert_eq!(near(at("20.1.2.3:1")), near(at("20.1.2.9:7")));
        assert_ne!(near(at("20.1.2.3:1")), near(at("20.1.3.3:1")));
        assert_eq!(wide(at("20.1.2.3:1")), wide(at("20.1.9.9:7")));
        assert_ne!(wide(at("20.1.0.0:1")), near(at("20.1.0.0:1")));
        assert_eq!(near(at("[2001:db8::1]:1")), near(at("[2001:db8::2]:2")));
        assert_ne!(near(at("[2001:db8::1]:1")), near(at("[2001:db8:0:1::1]:1")));
        assert_eq!(wide(at("[2001:db8::1]:1")), wide(at("[2001:db8:9::1]:1")));
        // At home everybody is somebody.
        assert_ne!(near(at("127.0.0.1:1")), near(at("127.0.0.1:2")));
        assert_ne!(wide(at("10.0.0.1:1")), wide(at("10.0.0.2:1")));
        assert_ne!(near(at("[fe80::1]:1")), near(at("[fe80::1]:2")));
    }

    #[test]
    fn strangers_do_not_speak_of_home() {
        let (stranger, home) = (at("20.1.2.3:1"), at("192.168.0.1:1"));
        assert!(can_be_told(stranger, stranger) && can_be_told(stranger, home) && can_be_told(home, home));
        assert!(!can_be_told(home, stranger));
        for never in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "20.1.2.3:0", "[::]:1", "[ff02::1]:1"]
        {
            assert!(!can_be_told(at(never), home), "{never}");
        }
    }
}
