//! Peers from peers: `ut_pex` (BEP 11).
//!
//! Owns the message. How often, how many, about whom, and which addresses to believe is discovery's.

use crate::compact;
use crate::extension::ExtensionError;
use piecemeal_metainfo::bencode::{self, Encoder, Limits, Value};
use std::net::SocketAddr;

/// Addresses taken from one message, of each family and kind. BEP 11 allows 50, more in the first message; the rest
/// is ignored.
pub const MAX_PEX_PEERS: usize = 100;

/// What the sender says about a peer (BEP 11, "added.f").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// Prefers encryption.
    pub const ENCRYPTION: PexFlags = PexFlags(0x01);
    /// Seed, or wants nothing more.
    pub const SEED: PexFlags = PexFlags(0x02);
    /// Speaks uTP.
    pub const UTP: PexFlags = PexFlags(0x04);
    /// Speaks `ut_holepunch`.
    pub const HOLEPUNCH: PexFlags = PexFlags(0x08);
    /// The sender could connect to it.
    pub const REACHABLE: PexFlags = PexFlags(0x10);

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: PexFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// With `flags` set.
    pub const fn with(self, flags: PexFlags) -> PexFlags {
        PexFlags(self.0 | flags.0)
    }
}

/// A change of the sender's connections. Unjudged: any address, doubles, ourselves; none with port 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PexMessage {
    /// Newly connected, IPv4 first; at most twice [`MAX_PEX_PEERS`] when read.
    pub added: Vec<(SocketAddr, PexFlags)>,
    /// No longer connected, IPv4 first; at most twice [`MAX_PEX_PEERS`] when read.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Reads the payload of an `extended` message. Fields of a wrong type are as if absent, flags that are missing 0.
    ///
    /// # Errors
    /// If there is no bencoded dictionary within `bencode::Limits::PEER_EXTENSION`.
    pub fn decode(payload: &[u8]) -> Result<PexMessage, ExtensionError> {
        let (tape, _) = bencode::decode_prefix(payload, Limits::PEER_EXTENSION)?;
        let root = tape.root();
        if root.as_dict().is_none() {
            return Err(ExtensionError::NotADict);
        }
        let mut message = PexMessage::default();
        let v4 = compact::decode_v4(bytes(root, b"added"));
        let v6 = compact::decode_v6(bytes(root, b"added6"));
        message.added.extend(flagged(v4, bytes(root, b"added.f")));
        message.added.extend(flagged(v6, bytes(root, b"added6.f")));
        let v4 = compact::decode_v4(bytes(root, b"dropped")).take(MAX_PEX_PEERS);
        let v6 = compact::decode_v6(bytes(root, b"dropped6")).take(MAX_PEX_PEERS);
        message.dropped.extend(v4.chain(v6).filter(|addr| addr.port() != 0));
        Ok(message)
    }

    /// The payload to send. Writes all it has: the caller bounds it.
    pub fn encode(&self) -> Vec<u8> {
        let (mut v4, mut v4_flags, mut v6, mut v6_flags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (addr, flags) in &self.added {
            let (list, list_flags) =
                if addr.is_ipv4() { (&mut v4, &mut v4_flags) } else { (&mut v6, &mut v6_flags) };
            compact::encode(*addr, list);
            list_flags.push(flags.0);
        }
        let (mut gone4, mut gone6) = (Vec::new(), Vec::new());
        for addr in &self.dropped {
            compact::encode(*addr, if addr.is_ipv4() { &mut gone4 } else { &mut gone6 });
        }
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.begin_dict().pair_bytes(b"added", &v4).pair_bytes(b"added.f", &v4_flags);
        to.pair_bytes(b"added6", &v6).pair_bytes(b"added6.f", &v6_flags);
        to.pair_bytes(b"dropped", &gone4).pair_bytes(b"dropped6", &gone6).end();
        out
    }
}

fn bytes<'a>(root: Value<'a>, key: &[u8]) -> &'a [u8] {
    root.get_bytes(key).unwrap_or_default()
}

fn flagged(
    addrs: impl Iterator<Item = SocketAddr>,
    flags: &[u8],
) -> impl Iterator<Item = (SocketAddr, PexFlags)> {
    let flags = flags.iter().copied().chain(std::iter::repeat(0)).map(PexFlags);
    addrs.zip(flags).take(MAX_PEX_PEERS).filter(|(addr, _)| addr.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flags_stay_with_their_peers() {
        let payload = b"d5:added18:\x01\x01\x01\x01\x00\x01\x02\x02\x02\x02\x00\x00\x03\x03\x03\x03\x00\x03\
            7:added.f2:\x02\x047:dropped7:\x04\x04\x04\x04\x00\x04xe";
        let got = PexMessage::decode(payload).expect("a message");
        assert_eq!(
            got.added,
            [
                ("1.1.1.1:1".parse().expect("an address"), PexFlags::SEED),
                ("3.3.3.3:3".parse().expect("an address"), PexFlags(0)),
            ]
        );
        assert_eq!(got.dropped, ["4.4.4.4:4".parse().expect("an address")]);
    }

    #[test]
    fn no_more_than_the_bound_is_taken() {
        let addr: SocketAddr = "1.2.3.4:5".parse().expect("an address");
        let many = PexMessage { added: vec![(addr, PexFlags::UTP); 5000], dropped: vec![addr; 5000] };
        let got = PexMessage::decode(&many.encode()).expect("a message");
        assert_eq!((got.added.len(), got.dropped.len()), (MAX_PEX_PEERS, MAX_PEX_PEERS));
    }

    #[test]
    fn odd_ones() {
        assert_eq!(PexMessage::decode(b"de"), Ok(PexMessage::default()));
        assert_eq!(PexMessage::decode(b"d5:addedi1e7:droppedlee"), Ok(PexMessage::default()));
        assert_eq!(PexMessage::decode(b"le"), Err(ExtensionError::NotADict));
        assert!(PexMessage::decode(b"d5:added6:abc").is_err());
    }

    proptest! {
        #[test]
        fn round_trip(
            v4 in prop::collection::vec(any::<([u8; 4], u16, u8)>(), 0..MAX_PEX_PEERS),
            v6 in prop::collection::vec(any::<([u8; 16], u16, u8)>(), 0..MAX_PEX_PEERS),
        ) {
            let mut added: Vec<(SocketAddr, PexFlags)> =
                v4.into_iter().map(|(ip, port, flags)| ((ip, port.max(1)).into(), PexFlags(flags))).collect();
            let v6 = v6.into_iter().map(|(ip, port, flags)| (SocketAddr::from((ip, port.max(1))), PexFlags(flags)));
            added.extend(v6.filter(|(addr, _)| addr.ip().to_canonical().is_ipv6()));
            let dropped = added.iter().map(|(addr, _)| *addr).collect();
            let sent = PexMessage { added, dropped };
            prop_assert_eq!(PexMessage::decode(&sent.encode()), Ok(sent));
        }
    }
}
