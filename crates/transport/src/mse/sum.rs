//! The arithmetic of the key exchange, as values that can be computed on any thread.
//!
//! Owns the group: 2 to a random power, modulo a prime of 768 bits. Owns no rule of the handshake but which keys are
//! refused.

use std::fmt;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U192, U768};
use rand_core::Rng;

use super::{Fault, KEY_BYTES};

/// Bits of a private key, as the protocol advises: enough for what the group is worth, and quick.
const PRIVATE_BITS: u32 = 160;
/// The generator of the group.
const G: U768 = U768::from_u8(2);
/// The prime, in the form in which it is computed with.
const GROUP: FixedMontyParams<{ U768::LIMBS }> = FixedMontyParams::new_vartime(Odd::<U768>::from_be_hex(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74\
     020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437\
     4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
));

/// Arithmetic to be done elsewhere and given back: one or two powers of big numbers, each some 50 microseconds.
pub struct Sum {
    private: Private,
    own: bool,
    peer: Option<PeerKey>,
}

/// What a [`Sum`] came to.
pub struct Total {
    /// Our public key, if it was asked for.
    pub(super) own: Option<[u8; KEY_BYTES]>,
    /// The shared secret S, if the peer's key was there.
    pub(super) secret: Option<[u8; KEY_BYTES]>,
}

/// Our private key of one connection.
#[derive(Clone, Copy)]
pub(super) struct Private(U192);

/// A peer's public key that is worth computing with.
#[derive(Clone, Copy)]
pub(super) struct PeerKey(U768);

impl Sum {
    /// Our public key.
    pub(super) fn own(private: Private) -> Sum {
        Sum { private, own: true, peer: None }
    }

    /// The secret.
    pub(super) fn secret(private: Private, peer: PeerKey) -> Sum {
        Sum { private, own: false, peer: Some(peer) }
    }

    /// Both at once.
    pub(super) fn both(private: Private, peer: PeerKey) -> Sum {
        Sum { private, own: true, peer: Some(peer) }
    }

    /// Computes it. Needs no memory beyond the stack.
    pub fn run(self) -> Total {
        let power = |base: &U768| -> [u8; KEY_BYTES] {
            let power = FixedMontyForm::new(base, &GROUP).pow_bounded_exp(&self.private.0, PRIVATE_BITS);
            power.retrieve().to_be_bytes().into()
        };
        Total { own: self.own.then(|| power(&G)), secret: self.peer.map(|peer| power(&peer.0)) }
    }
}

impl Private {
    /// A new one for each connection.
    pub(super) fn draw(rng: &mut (impl Rng + ?Sized)) -> Private {
        let mut bytes = [0; U192::BYTES];
        let unused = bytes.len() - PRIVATE_BITS as usize / 8;
        rng.fill_bytes(&mut bytes[unused..]);
        Private(U192::from_be_slice(&bytes))
    }
}

impl PeerKey {
    /// Refuses the keys by which whoever sits in between could fix the secret without computing anything (0, 1 and
    /// their likes at the other end, P - 1 and P), and what is beyond the prime.
    pub(super) fn read(bytes: &[u8; KEY_BYTES]) -> Result<PeerKey, Fault> {
        let key = U768::from_be_slice(bytes);
        let last = GROUP.modulus().as_ref().wrapping_sub(&G);
        if key < G || key > last { Err(Fault::DegenerateKey) } else { Ok(PeerKey(key)) }
    }
}

/// The keys in it are nobody's business.
impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sum")
            .field("own", &self.own)
            .field("secret", &self.peer.is_some())
            .finish_non_exhaustive()
    }
}

/// As of [`Sum`].
impl fmt::Debug for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Total").finish_non_exhaustive()
    }
}
