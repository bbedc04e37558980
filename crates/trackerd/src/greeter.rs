//! Connection ids that need no memory (BEP 15): a keyed hash of the address and the time.
//!
//! Owns the key. Who shows an id has received what we sent to that address lately, so the address is not forged, and an
//! answer larger than the question goes to somebody who asked for it.

use std::net::IpAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::tracker::udp::ConnectionId;
use sha2::{Digest, Sha256};

/// Ids change this often.
const WINDOW: Duration = Duration::from_secs(30);
/// An id is taken until so many windows after its own: for two minutes at least (BEP 15), two and a half at most.
const WINDOWS: u8 = 4;
/// The bytes of an id that are the hash; the last tells the window, so that one hash is enough to check it.
const HASH_BYTES: usize = 7;

/// Gives out connection ids, and knows them again.
pub(crate) struct Greeter {
    key: [u8; 32],
}

impl Greeter {
    /// `key`: 32 bytes that nobody else knows.
    pub(crate) fn new(key: [u8; 32]) -> Greeter {
        Greeter { key }
    }

    /// An id for this address, from now on.
    pub(crate) fn greet(&self, now: Time, to: IpAddr) -> ConnectionId {
        self.id(to, window(now))
    }

    /// Whether this id was given to this address in the last two minutes.
    pub(crate) fn knows(&self, now: Time, from: IpAddr, id: ConnectionId) -> bool {
        let now = window(now);
        // The window is told by its last byte; it is one of the last few, or not ours.
        let age = (now as u8).wrapping_sub(id.0 as u8);
        age <= WINDOWS && u64::from(age) <= now && id == self.id(from, now - u64::from(age))
    }

    /// What is hashed has one length and fits one block of SHA-256 beside the key, so nothing can be appended to it,
    /// which is all that HMAC would prevent; and it takes one step of the hash instead of four.
    fn id(&self, ip: IpAddr, window: u64) -> ConnectionId {
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        // Of the window the last six bytes: in all 54, and 55 is what one block takes.
        let window = window.to_be_bytes();
        let hash = Sha256::new()
            .chain_update(self.key)
            .chain_update(ip.octets())
            .chain_update(&window[2..])
            .finalize();
        let mut id = [0; 8];
        id[..HASH_BYTES].copy_from_slice(&hash[..HASH_BYTES]);
        id[HASH_BYTES] = window[7];
        ConnectionId(u64::from_be_bytes(id))
    }
}

fn window(now: Time) -> u64 {
    now.nanos() / u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn known_for_two_minutes_at_one_address() {
        let greeter = Greeter::new([7; 32]);
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for ip in [v4, v6] {
            for start in [0, 29, 30, 119, 7_680, 255 * 30, 100_000_000] {
                let id = greeter.greet(at(start), ip);
                assert!((0..=120).all(|later| greeter.knows(at(start + later), ip, id)), "{start}");
                let long = [151, 180, 256 * 30, 257 * 30, 1_000_000];
                assert!(!long.iter().any(|later| greeter.knows(at(start + later), ip, id)), "{start}");
            }
        }
        let id = greeter.greet(at(1_000), v4);
        assert!(
            !greeter.knows(at(1_000), v6, id) && !greeter.knows(at(1_000), "192.0.2.2".parse().unwrap(), id)
        );
        assert!(!greeter.knows(at(900), v4, id), "of the future");
        assert!(!Greeter::new([8; 32]).knows(at(1_000), v4, id));
        for bit in 0..64 {
            assert!(!greeter.knows(at(1_000), v4, ConnectionId(id.0 ^ 1 << bit)), "{bit}");
        }
    }
}
