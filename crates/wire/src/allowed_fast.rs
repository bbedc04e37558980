//! The pieces a choked peer may ask for anyway (BEP 6, "allowed fast set generation").
//!
//! Owns the arithmetic. How large a set to grant, to whom, and when a peer has had enough of it is the engine's.

use piecemeal_metainfo::{InfoHash, PieceIndex, sha1};
use std::net::IpAddr;

/// Rounds of SHA-1, five candidates each, after which a set is left as short as it is. With more pieces than the set
/// has members, 64 rounds fill it but for a chance too small to meet; the bound is there so that none can hang.
const MAX_ROUNDS: u32 = 64;

/// The allowed-fast set of `count` pieces for the peer at `ip`, in the order of the BEP.
///
/// Empty for IPv6, for which the BEP defines none, and for a torrent of at most `count` pieces, where the set would
/// be everything and choking would mean nothing.
pub fn allowed_fast_set(info_hash: InfoHash, ip: IpAddr, pieces: u32, count: usize) -> Vec<PieceIndex> {
    let IpAddr::V4(ip) = ip.to_canonical() else { return Vec::new() };
    if count >= pieces as usize {
        return Vec::new();
    }
    let [a, b, c, _] = ip.octets();
    let mut seed = [0; 24];
    seed[..3].copy_from_slice(&[a, b, c]);
    seed[4..].copy_from_slice(&info_hash.0);
    let mut digest = sha1(&seed);
    let mut set = Vec::with_capacity(count);
    for _ in 0..MAX_ROUNDS {
        for candidate in digest.as_chunks::<4>().0 {
            if set.len() == count {
                return set;
            }
            let piece = PieceIndex(u32::from_be_bytes(*candidate) % pieces);
            if !set.contains(&piece) {
                set.push(piece);
            }
        }
        digest = sha1(&digest);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AA: InfoHash = InfoHash([0xaa; 20]);

    fn set(ip: &str, pieces: u32, count: usize) -> Vec<u32> {
        let ip = ip.parse().expect("an address");
        allowed_fast_set(AA, ip, pieces, count).into_iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn vectors_of_bep_6() {
        assert_eq!(set("80.4.4.200", 1313, 7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(set("80.4.4.200", 1313, 9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    #[test]
    fn neighbours_in_one_24_share_a_set() {
        assert_eq!(set("80.4.4.1", 1313, 9), set("80.4.4.200", 1313, 9));
        assert_eq!(set("::ffff:80.4.4.200", 1313, 9), set("80.4.4.200", 1313, 9));
        assert_ne!(set("80.4.5.200", 1313, 9), set("80.4.4.200", 1313, 9));
    }

    #[test]
    fn no_set_where_it_would_be_everything_or_nothing_is_defined() {
        for pieces in 0..=9 {
            assert!(set("80.4.4.200", pieces, 9).is_empty());
        }
        assert!(set("2001:db8::1", 1313, 9).is_empty());
        assert_eq!(set("80.4.4.200", 10, 9).len(), 9);
    }

    proptest! {
        #[test]
        fn members_are_pieces_and_differ(hash: [u8; 20], ip: [u8; 4], pieces in 0u32.., count in 0usize..12) {
            let mut set = allowed_fast_set(InfoHash(hash), ip.into(), pieces, count);
            prop_assert!(set.iter().all(|piece| piece.0 < pieces));
            prop_assert_eq!(set.len(), if count < pieces as usize { count } else { 0 });
            set.sort_unstable();
            set.dedup();
            prop_assert_eq!(set.len(), if count < pieces as usize { count } else { 0 });
        }
    }
}
