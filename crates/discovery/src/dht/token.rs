//! Tokens: whoever shows one has received a datagram at the address it writes from (BEP 5).
//!
//! Owns the secrets. A token takes no memory: it is a keyed hash of the address and of what was asked for, by a secret
//! that is replaced every five minutes; the one before is still good, so a token lives five to ten minutes.

use std::net::IpAddr;
use std::time::Duration;

use piecemeal_metainfo::{Time, sha256};
use piecemeal_wire::krpc::NodeId;
use rand_core::Rng;

/// Bytes of a token: too many to guess within its life.
pub(super) const TOKEN_BYTES: usize = 8;

/// How long a secret makes tokens (BEP 5).
const SECRET_LIFE: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(super) struct Tokens {
    current: [u8; 32],
    previous: [u8; 32],
    since: Time,
}

impl Tokens {
    pub(super) fn new(now: Time, rng: &mut (impl Rng + ?Sized)) -> Tokens {
        Tokens { current: draw(rng), previous: draw(rng), since: now }
    }

    /// Replaces what is too old. To be called before any other.
    pub(super) fn turn(&mut self, now: Time, rng: &mut (impl Rng + ?Sized)) {
        let age = now.since(self.since);
        if age < SECRET_LIFE {
            return;
        }
        self.previous = if age < 2 * SECRET_LIFE { self.current } else { draw(rng) };
        self.current = draw(rng);
        self.since = if age < 2 * SECRET_LIFE { self.since + SECRET_LIFE } else { now };
    }

    pub(super) fn make(&self, ip: IpAddr, target: NodeId) -> [u8; TOKEN_BYTES] {
        token(&self.current, ip, target)
    }

    pub(super) fn is_good(&self, shown: &[u8], ip: IpAddr, target: NodeId) -> bool {
        let same = |secret| {
            let good = token(secret, ip, target);
            // All bytes are looked at, or the time it takes would tell how many of a guess are right.
            shown.len() == good.len() && good.iter().zip(shown).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
        };
        same(&self.current) | same(&self.previous)
    }
}

fn token(secret: &[u8; 32], ip: IpAddr, target: NodeId) -> [u8; TOKEN_BYTES] {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // All parts have a fixed length, and most of the hash is kept back, so nothing can be appended.
    let hash = sha256(&[&secret[..], &ip.octets(), &target.0].concat());
    let mut token = [0; TOKEN_BYTES];
    token.copy_from_slice(&hash[..TOKEN_BYTES]);
    token
}

fn draw(rng: &mut (impl Rng + ?Sized)) -> [u8; 32] {
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    secret
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn a_token_lives_between_five_and_ten_minutes() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let minute = Duration::from_secs(60);
        let (ip, other) = ("20.0.0.1".parse().unwrap(), "20.0.0.2".parse().unwrap());
        let what = NodeId([1; 20]);
        let mut tokens = Tokens::new(Time::ZERO, &mut rng);
        let token = tokens.make(ip, what);
        for (minutes, good) in [(0, true), (4, true), (6, true), (9, true), (11, false), (12, false)] {
            tokens.turn(Time::ZERO + minute * minutes, &mut rng);
            assert_eq!(tokens.is_good(&token, ip, what), good, "after {minutes} minutes");
            let fresh = tokens.make(ip, what);
            assert!(tokens.is_good(&fresh, ip, what));
            assert!(!tokens.is_good(&fresh, other, what), "another address");
            assert!(!tokens.is_good(&fresh, ip, NodeId([2; 20])), "another torrent");
            assert!(!tokens.is_good(&fresh[..7], ip, what) && !tokens.is_good(&[], ip, what));
        }
        // Nobody came by for an hour: both secrets are gone.
        let token = tokens.make(ip, what);
        tokens.turn(Time::ZERO + minute * 72, &mut rng);
        assert!(!tokens.is_good(&token, ip, what));
    }
}
