//! Addresses in their packed form: 4 or 16 bytes of address and 2 of port, in network order.
//!
//! Owns that form alone, as trackers (BEP 23, BEP 7), PEX (BEP 11) and the DHT (BEP 5, BEP 32) share it. Whether an
//! address may be dialled is the Swarm's to judge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a packed IPv4 address and port.
pub const V4_BYTES: usize = 6;
/// Bytes of a packed IPv6 address and port.
pub const V6_BYTES: usize = 18;

/// The IPv4 entries of `bytes`; what is left over at the end is not an entry and is ignored.
pub fn decode_v4(bytes: &[u8]) -> impl ExactSizeIterator<Item = SocketAddr> + '_ {
    bytes.as_chunks::<V4_BYTES>().0.iter().map(|&[a, b, c, d, high, low]| {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([high, low]))
    })
}

/// The IPv6 entries of `bytes`. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) comes out as IPv4, so that no
/// filter for one family is passed by writing it in the other.
pub fn decode_v6(bytes: &[u8]) -> impl ExactSizeIterator<Item = SocketAddr> + '_ {
    bytes.as_chunks::<V6_BYTES>().0.iter().map(|entry| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&entry[..16]);
        let port = u16::from_be_bytes([entry[16], entry[17]]);
        SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
    })
}

/// Appends `addr`: [`V4_BYTES`] or [`V6_BYTES`], by its family.
pub fn encode(addr: SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// An address without port, 4 or 16 bytes (BEP 10 `yourip`, BEP 24 `external ip`); `None` for another length.
pub fn decode_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).to_canonical())
}

/// The bytes [`decode_ip`] reads.
pub fn encode_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_of_both_families() {
        let mut out = Vec::new();
        encode("192.0.2.1:6881".parse().unwrap(), &mut out);
        assert_eq!(out, [192, 0, 2, 1, 0x1a, 0xe1]);
        out.clear();
        encode("[2001:db8::7]:258".parse().unwrap(), &mut out);
        assert_eq!(out, [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2]);
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        let mut out = Vec::new();
        encode("[::ffff:127.0.0.1]:1".parse().unwrap(), &mut out);
        assert_eq!(decode_v6(&out).next(), Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(decode_ip(&out[..16]), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(decode_ip(&out[..15]), None);
    }

    proptest! {
        #[test]
        fn round_trip_with_leftovers(
            v4: Vec<([u8; 4], u16)>, v6: Vec<([u8; 16], u16)>, tail in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let v4: Vec<SocketAddr> = v4.into_iter().map(SocketAddr::from).collect();
            let mut bytes = Vec::new();
            v4.iter().for_each(|addr| encode(*addr, &mut bytes));
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(decode_v4(&bytes).collect::<Vec<_>>(), v4);

            let v6 = v6.into_iter().map(SocketAddr::from);
            let v6: Vec<SocketAddr> = v6.filter(|addr| addr.ip().to_canonical() == addr.ip()).collect();
            let mut bytes = Vec::new();
            v6.iter().for_each(|addr| encode(*addr, &mut bytes));
            bytes.extend(tail);
            prop_assert_eq!(decode_v6(&bytes).collect::<Vec<_>>(), v6.clone());
            for addr in v6 {
                prop_assert_eq!(decode_ip(&encode_ip(addr.ip())), Some(addr.ip()));
            }
        }
    }
}
