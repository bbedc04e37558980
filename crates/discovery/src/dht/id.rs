//! Ids that are bound to addresses (BEP 42), and what our own address is.
//!
//! Owns the binding and the vote. Who is preferred for a good id is the table's and the lookup's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use piecemeal_wire::krpc::NodeId;
use rand_core::Rng;

use super::net::{self, Net};
use crate::crc32c::crc32c;
use crate::local::is_local;

/// Leading bits of an id that its address decides.
const BOUND_BITS: u32 = 21;

/// Whether an id is one that a node at an address may have (BEP 42).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// It is derived from the address.
    Fits,
    /// It is not: the node is old, or chose its place.
    Differs,
    /// The address is of a local network, where any id is as good.
    Local,
}

/// How the id of a node at `ip` stands to BEP 42.
pub fn binding(id: NodeId, ip: IpAddr) -> Binding {
    match is_bound(id, ip) {
        _ if is_local(ip) => Binding::Local,
        true => Binding::Fits,
        false => Binding::Differs,
    }
}

/// An id for a node at `ip`, otherwise random.
pub(super) fn bound_to(ip: IpAddr, rng: &mut (impl Rng + ?Sized)) -> NodeId {
    let mut id = [0; 20];
    rng.fill_bytes(&mut id);
    let sum = checksum(ip, id[19]).to_be_bytes();
    id[0] = sum[0];
    id[1] = sum[1];
    id[2] = sum[2] & 0xf8 | id[2] & 0x07;
    NodeId(id)
}

/// Whether a node at `ip` may have this id. At home everybody may have any.
pub(super) fn is_bound(id: NodeId, ip: IpAddr) -> bool {
    if is_local(ip) {
        return true;
    }
    let sum = checksum(ip, id.0[19]);
    let have = u32::from_be_bytes([id.0[0], id.0[1], id.0[2], 0]);
    (sum ^ have) >> (32 - BOUND_BITS) == 0
}

/// The checksum whose leading bits are the id's; of `r`, the id's last byte, three bits count.
fn checksum(ip: IpAddr, r: u8) -> u32 {
    const V4: [u8; 4] = [0x03, 0x0f, 0x3f, 0xff];
    const V6: [u8; 8] = [0x01, 0x03, 0x07, 0x0f, 0x1f, 0x3f, 0x7f, 0xff];
    let r = (r & 7) << 5;
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = ip.octets();
            bytes.iter_mut().zip(V4).for_each(|(byte, mask)| *byte &= mask);
            bytes[0] |= r;
            crc32c(&bytes)
        }
        IpAddr::V6(ip) => {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(ip.octets()).zip(V6).for_each(|((byte, octet), mask)| *byte = octet & mask);
            bytes[0] |= r;
            crc32c(&bytes)
        }
    }
}

/// What others say our address is. One voice a network, the last of [`Ballot::VOICES`] count, and a change takes
/// more than half of them, so that a handful of liars can not make us move through the id space as they like.
#[derive(Debug, Default)]
pub struct Ballot {
    /// Bound: [`Ballot::VOICES`].
    voices: BTreeMap<Net, (u64, IpAddr)>,
    heard: u64,
    elected: Option<IpAddr>,
}

impl Ballot {
    /// Voices that count.
    pub const VOICES: usize = 32;
    /// Fewer than this elect nobody.
    const QUORUM: usize = 4;

    /// `source` says that we are `ip`. The new address if this changes it.
    pub fn vote(&mut self, ip: IpAddr, source: SocketAddr) -> Option<IpAddr> {
        if is_local(ip) || !net::can_be_sent_to(SocketAddr::new(ip, 1)) {
            // How somebody of our own network sees us says nothing about how the world does.
            return None;
        }
        self.heard += 1;
        self.voices.insert(net::near(source), (self.heard, ip));
        if self.voices.len() > Ballot::VOICES {
            let oldest = self.voices.iter().min_by_key(|(_, (heard, _))| *heard).map(|(net, _)| *net);
            oldest.and_then(|net| self.voices.remove(&net));
        }
        let agree = self.voices.values().filter(|(_, said)| *said == ip).count();
        let wins = agree >= Ballot::QUORUM && 2 * agree > self.voices.len();
        if !wins || self.elected == Some(ip) {
            return None;
        }
        self.elected = Some(ip);
        Some(ip)
    }

    /// The address that won last.
    pub fn elected(&self) -> Option<IpAddr> {
        self.elected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn the_published_ids() {
        let table = [
            ("124.31.75.21", 1, 0x5fbf_bdb2, [0x5f, 0xbf, 0xbf]),
            ("21.75.31.124", 86, 0x5a3c_e9b0, [0x5a, 0x3c, 0xe9]),
            ("65.23.51.170", 22, 0xa5d4_344a, [0xa5, 0xd4, 0x32]),
            ("84.124.73.14", 65, 0x1b03_217b, [0x1b, 0x03, 0x21]),
            ("43.213.53.83", 90, 0xe56f_6972, [0xe5, 0x6f, 0x6c]),
        ];
        for (ip, r, sum, head) in table {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(checksum(ip, r), sum, "{ip}");
            let mut id = NodeId([0; 20]);
            id.0[..3].copy_from_slice(&head);
            id.0[19] = r;
            assert_eq!(binding(id, ip), Binding::Fits, "{ip}");
            id.0[2] ^= 0x08;
            assert_eq!(binding(id, ip), Binding::Differs, "{ip}: the 21st bit counts");
            id.0[2] ^= 0x0c;
            assert!(is_bound(id, ip), "{ip}: the 22nd does not");
        }
    }

    #[test]
    fn ids_we_make_are_bound() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for ip in ["8.8.8.8", "123.45.67.89", "2001:4860:4860::8888"] {
            let ip: IpAddr = ip.parse().unwrap();
            let id = bound_to(ip, &mut rng);
            assert!(is_bound(id, ip));
            assert!(!is_bound(id, "9.9.9.9".parse().unwrap()));
        }
        assert_eq!(binding(NodeId([0; 20]), "192.168.1.2".parse().unwrap()), Binding::Local);
    }

    #[test]
    fn an_address_takes_a_majority() {
        let mut ballot = Ballot::default();
        let (one, two): (IpAddr, IpAddr) = ("20.0.0.1".parse().unwrap(), "20.0.0.2".parse().unwrap());
        let from = |net: u8| SocketAddr::from(([30, net, 0, 1], 1));
        for net in 0..3 {
            assert_eq!(ballot.vote(one, from(net)), None);
        }
        assert_eq!(ballot.vote(one, from(0)), None, "a network has one voice");
        assert_eq!(ballot.vote(one, from(3)), Some(one));
        assert_eq!(ballot.vote(one, from(4)), None, "nothing new");
        for net in 10..15 {
            assert_eq!(ballot.vote(two, from(net)), None, "half is no majority");
        }
        assert_eq!(ballot.vote(two, from(15)), Some(two));
        assert_eq!(ballot.elected(), Some(two));
        for net in 0..200 {
            ballot.vote(one, from(net));
        }
        assert_eq!((ballot.voices.len(), ballot.elected()), (Ballot::VOICES, Some(one)));
    }
}
