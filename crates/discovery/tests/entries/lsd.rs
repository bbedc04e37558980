//! Datagrams of the local network.

use std::net::SocketAddr;

use piecemeal_discovery::lsd::Lsd;
use piecemeal_metainfo::{InfoHash, Time};
use piecemeal_wire::lsd::{LSD_V4, LSD_V6, LsdAnnounce, LsdError, MAX_COOKIE_BYTES, MAX_LSD_BYTES};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

const OURS: InfoHash = InfoHash([0xab; 20]);

/// A datagram to the group: as bytes, and as it is heard by who has one torrent.
pub fn lsd(bytes: &[u8]) {
    let mut ours = Lsd::new(6881, &mut ChaCha20Rng::seed_from_u64(1));
    ours.add(Time::ZERO, OURS);
    let mut said = Vec::new();
    ours.heartbeat(Time::ZERO, &mut said);
    let own = LsdAnnounce::decode(&said[0].1).expect("ours").cookie;
    let has_ours = match LsdAnnounce::decode(bytes) {
        Ok(announce) => {
            whole(&announce, bytes.len());
            announce.info_hashes.contains(&OURS) && announce.cookie != own
        }
        Err(why) => {
            assert_eq!(bytes.len() > MAX_LSD_BYTES, matches!(why, LsdError::TooLong(_)));
            false
        }
    };
    let from: SocketAddr = "10.0.0.2:6771".parse().expect("an address");
    let neighbour = ours.on_datagram(Time::ZERO, from, bytes);
    assert_eq!(neighbour.is_some(), has_ours);
    if let Some(neighbour) = neighbour {
        assert!(neighbour.addr.port() != 0 && neighbour.addr.ip() == from.ip());
        assert!(neighbour.info_hashes.iter().all(|hash| *hash == OURS));
    }
}

/// What was read is within its bounds, and written so that it means the same.
fn whole(announce: &LsdAnnounce<'_>, bytes: usize) {
    assert!(
        announce.port != 0 && !announce.info_hashes.is_empty() && announce.info_hashes.len() * 40 <= bytes
    );
    assert!(announce.cookie.is_none_or(|cookie| cookie.len() <= MAX_COOKIE_BYTES));
    for group in [LSD_V4, LSD_V6] {
        let (written, taken) = announce.encode(group);
        assert!(written.len() <= MAX_LSD_BYTES && taken > 0);
        let again = LsdAnnounce::decode(&written).expect("what we write we read");
        assert_eq!((again.port, again.cookie), (announce.port, announce.cookie));
        assert_eq!(again.info_hashes, announce.info_hashes[..taken]);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let one = LsdAnnounce { port: 6881, info_hashes: vec![OURS], cookie: Some("c0ffee") };
    let two = LsdAnnounce { port: 1, info_hashes: vec![InfoHash([7; 20]), OURS], cookie: None };
    let odd = b"BT-SEARCH * HTTP/1.1\nINFOHASH:ABABABABABABABABABABABABABABABABABABABAB\nX: y\nport: 80\n\n"
        .to_vec();
    vec![one.encode(LSD_V4).0, two.encode(LSD_V6).0, odd]
}
