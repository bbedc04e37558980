//! What is known of one address, and what an address must be to be worth knowing.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;

use piecemeal_metainfo::{PeerId, Time};

/// Where an address came from, the most trusted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerSource {
    /// The user named it: it is never forgotten and retried soon.
    Manual,
    /// It answered before the last restart.
    Resume,
    /// Found on the local network (BEP 14).
    Lsd,
    /// It connected to us and said where it listens.
    Incoming,
    /// A tracker named it.
    Tracker,
    /// The DHT named it (BEP 5).
    Dht,
    /// Another peer named it (BEP 11).
    Pex,
}

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It may be dialed when its time has come.
    Waiting,
    /// Someone is dialing it.
    Dialing,
    /// A connection stands.
    Connected,
    /// The peer that listens here is connected under another address, which will say when that ends.
    Elsewhere,
}

/// What is known of one address.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub source: PeerSource,
    pub state: State,
    /// Failures since it last ended well.
    pub failures: u32,
    /// When it may be dialed.
    pub due: Time,
    /// When it last connected.
    pub met: Option<Time>,
    pub seed: bool,
    /// False for the port of a caller, where nobody listens.
    pub dialable: bool,
    /// Who called, while connected.
    pub incoming: bool,
    /// Whom we met here, while connected.
    pub id: Option<PeerId>,
    /// The address that is `Elsewhere` because of this connection.
    pub also: Option<SocketAddr>,
}

impl Known {
    pub(super) fn new(source: PeerSource, now: Time) -> Known {
        Known {
            source,
            state: State::Waiting,
            failures: 0,
            due: now,
            met: None,
            seed: false,
            dialable: true,
            incoming: false,
            id: None,
            also: None,
        }
    }

    /// Whether it waits to be dialed.
    pub(super) fn may_queue(&self, seeding: bool) -> bool {
        self.state == State::Waiting && self.dialable && !(seeding && self.seed)
    }
}

/// The one form of an address: IPv4 inside IPv6 becomes IPv4, and flow labels, which name no one, are dropped.
pub fn normal(addr: SocketAddr) -> SocketAddr {
    match (addr.ip().to_canonical(), addr) {
        (IpAddr::V6(ip), SocketAddr::V6(full)) => {
            SocketAddrV6::new(ip, addr.port(), 0, full.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, addr.port()),
    }
}

/// Whether a peer can listen there: a port, and an address of one host. Loopback and private addresses can; whether
/// a source may name them is for the source's reader to say.
pub fn can_be_dialed(addr: SocketAddr) -> bool {
    let host = match addr.ip().to_canonical() {
        // 0.0.0.0/8 is "this network", 240.0.0.0/4 reserved and holds the broadcast address (RFC 6890).
        IpAddr::V4(ip) => ip.octets()[0] != 0 && !ip.is_multicast() && ip.octets()[0] < 240,
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    addr.port() != 0 && host
}

/// All addresses with this IP, and perhaps a few others of IPv6 scopes.
pub(super) fn all_of(ip: IpAddr) -> RangeInclusive<SocketAddr> {
    let last = match ip {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), u16::MAX),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, u16::MAX, u32::MAX, u32::MAX).into(),
    };
    SocketAddr::new(ip, 0)..=last
}

/// A number that shuffles addresses, otherwise for each peer: whole swarms should not dial in the same order.
pub(super) fn mixed(addr: SocketAddr, own: &PeerId) -> u32 {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let tail = own.0.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
    // The finisher of splitmix64, over all that differs.
    let mut word =
        (ip as u64) ^ ((ip >> 64) as u64).rotate_left(29) ^ u64::from(addr.port()).rotate_left(48) ^ tail;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_dialed() {
        let rows = [
            ("1.2.3.4:6881", true),
            ("127.0.0.1:1", true),
            ("10.0.0.1:65535", true),
            ("[::1]:6881", true),
            ("[2001:db8::1]:6881", true),
            ("[fe80::1]:6881", true),
            ("1.2.3.4:0", false),
            ("0.0.0.0:6881", false),
            ("0.1.2.3:6881", false),
            ("224.0.0.1:6881", false),
            ("239.192.152.143:6771", false),
            ("240.0.0.1:6881", false),
            ("255.255.255.255:6881", false),
            ("[::]:6881", false),
            ("[ff15::efc0:988f]:6771", false),
            ("[::ffff:224.0.0.1]:6881", false),
            ("[::ffff:0.0.0.0]:6881", false),
            ("[::ffff:1.2.3.4]:6881", true),
        ];
        for (addr, expected) in rows {
            assert_eq!(can_be_dialed(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn one_form_for_each_address() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(normal(parse("[::ffff:1.2.3.4]:5")), parse("1.2.3.4:5"));
        let flow = SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 7, 3);
        assert_eq!(normal(flow.into()), SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, 3).into());
        assert!(all_of("127.0.0.1".parse().unwrap()).contains(&parse("127.0.0.1:65535")));
        assert!(all_of("fe80::1".parse().unwrap()).contains(&flow.into()));
        let ids = [PeerId([1; 20]), PeerId([2; 20])];
        assert_ne!(mixed(parse("1.2.3.4:5"), &ids[0]), mixed(parse("1.2.3.4:5"), &ids[1]));
        assert_ne!(mixed(parse("1.2.3.4:5"), &ids[0]), mixed(parse("1.2.3.5:5"), &ids[0]));
    }
}
