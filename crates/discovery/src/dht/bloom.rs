//! Filters that count addresses across nodes (BEP 33).
//!
//! Owns the filter. An address sets two bits of 2048; filters of many nodes are laid over one another, and the number of
//! zeros that are left tells how many addresses there were, about.

use std::net::IpAddr;

use piecemeal_metainfo::sha1;
use piecemeal_wire::compact;
use piecemeal_wire::krpc::BLOOM_BYTES;

/// Bits of a filter.
const BITS: usize = BLOOM_BYTES * 8;

/// A set of addresses, as far as it can be guessed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bloom([u8; BLOOM_BYTES]);

impl Default for Bloom {
    fn default() -> Bloom {
        Bloom([0; BLOOM_BYTES])
    }
}

impl Bloom {
    /// Adds an address.
    pub fn insert(&mut self, ip: IpAddr) {
        let hash = sha1(&compact::encode_ip(ip));
        for pair in hash.as_chunks::<2>().0.iter().take(2) {
            let bit = usize::from(u16::from_le_bytes(*pair)) % BITS;
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Adds what is in another filter.
    pub fn merge(&mut self, other: &[u8; BLOOM_BYTES]) {
        self.0.iter_mut().zip(other).for_each(|(mine, other)| *mine |= other);
    }

    /// How many addresses it has, about; some 6000 are the most it can tell.
    pub fn estimate(&self) -> f64 {
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let bits = BITS as f64;
        let zeros = f64::from(zeros).clamp(1.0, bits - 1.0);
        // The BEP's formula puts an empty filter at one bit.
        (zeros / bits).ln() / (2.0 * (1.0 - 1.0 / bits).ln())
    }

    /// Whether nobody was ever added.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> &[u8; BLOOM_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_metainfo::{sha256, to_hex};
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_published_filter() {
        let mut bloom = Bloom::default();
        assert!(bloom.is_empty());
        for host in 0..=255 {
            bloom.insert(Ipv4Addr::new(192, 0, 2, host).into());
        }
        assert!((bloom.estimate() - 257.8546).abs() < 1e-3, "{}", bloom.estimate());
        let v4 = "3a7fc30146388f4d920237e3f41a5a5de8e04306daaa19271d11d8c593085b1e";
        assert_eq!(to_hex(&sha256(bloom.bytes())), v4);
        for host in 0..=0x3e7 {
            bloom.insert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into());
        }
        assert!((bloom.estimate() - 1224.9309).abs() < 1e-3, "{}", bloom.estimate());
        let both = "462ba3f17929325cb8d21231802c7b564058f741af9e54af8d74c88c3fd53325";
        assert_eq!(to_hex(&sha256(bloom.bytes())), both);
        assert!(to_hex(bloom.bytes()).starts_with("f6c3f5eaa07ffd91bde89f777f26fb2bff37bdb8fb2bbaa2fd3d"));
    }

    #[test]
    fn laid_over_one_another() {
        let (mut a, mut b, mut all) = (Bloom::default(), Bloom::default(), Bloom::default());
        for host in 0..100 {
            let ip = Ipv4Addr::new(10, 0, 0, host).into();
            if host % 3 == 0 {
                a.insert(ip)
            } else {
                b.insert(ip)
            }
            all.insert(ip);
        }
        a.merge(b.bytes());
        assert_eq!(a, all);
        let mut full = Bloom::default();
        full.merge(&[0xff; BLOOM_BYTES]);
        assert!(full.estimate().is_finite());
    }
}
