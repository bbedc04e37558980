//! Which of two peers' connections is worth more (BEP 40).
//!
//! Owns the ranking alone. Both ends of a connection come to the same number, so that when all drop the lowest, they
//! drop the same ones, and the swarm stays a random graph that nobody can aim at.

use std::net::{IpAddr, SocketAddr};

use crate::crc32c::crc32c;

/// Bits that still count where networks differ: every second one, so that neighbours rank alike.
const COARSE: u8 = 0x55;

/// The rank of the connection between `a` and `b`, the same in either order; more is better.
///
/// Addresses are compared as far as they are shared: IPv4 in full within a /24, by three bytes within a /16, else by
/// two; IPv6 by six bytes, and by two more than are shared where that is more (as libtorrent counts). What lies behind
/// is masked. Addresses of different families, which share no network, have the rank of their IPv6 forms.
pub fn priority(a: SocketAddr, b: SocketAddr) -> u32 {
    match (a.ip(), b.ip()) {
        (ip, other) if ip == other => {
            let (low, high) = (a.port().min(b.port()), a.port().max(b.port()));
            crc32c(&[low.to_be_bytes(), high.to_be_bytes()].concat())
        }
        (IpAddr::V4(a), IpAddr::V4(b)) => of_octets(a.octets(), b.octets(), 2, 1),
        (a, b) => of_octets(v6(a), v6(b), 6, 2),
    }
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn of_octets<const N: usize>(a: [u8; N], b: [u8; N], least: usize, beyond: usize) -> u32 {
    let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let whole = (shared + beyond).max(least);
    let masked = |mut octets: [u8; N]| {
        octets.iter_mut().skip(whole).for_each(|octet| *octet &= COARSE);
        octets
    };
    let (a, b) = (masked(a), masked(b));
    crc32c(&[a.min(b), a.max(b)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_ranks() {
        let all = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1234";
        let table = [
            ("123.213.32.10:0", "98.76.54.32:0", 0xec2d_7224),
            ("123.213.32.10:0", "123.213.32.234:0", 0x9956_8189),
            ("230.12.123.3:1234", "230.12.123.3:300", 0xae8b_7034),
            ("230.12.123.1:1234", "230.12.123.3:300", 0x99c5_4d79),
            ("230.12.23.1:1234", "230.12.123.3:300", 0x21fd_5f80),
            ("230.120.23.1:1234", "230.12.123.3:300", 0xfa9a_860e),
            (all, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:300", 0xae8b_7034),
            (all, "[ffff:0fff:ffff:ffff:ffff:ffff:ffff:ffff]:300", 0x59d7_1f38),
            (all, "[ffff:ffff:0fff:ffff:ffff:ffff:ffff:ffff]:300", 0x081d_5282),
            (all, "[ffff:ffff:ff0f:ffff:ffff:ffff:ffff:ffff]:300", 0xc5f9_72be),
            (all, "[ffff:ffff:ffff:0fff:ffff:ffff:ffff:ffff]:300", 0x9ff5_0bd0),
        ];
        for (a, b, rank) in table {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(priority(a, b), rank, "{a} {b}");
            assert_eq!(priority(b, a), rank, "{b} {a}");
        }
    }

    #[test]
    fn families_can_be_compared() {
        let (a, b) = ("1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:5".parse().unwrap());
        assert_eq!(priority(a, b), priority(b, a));
    }
}
