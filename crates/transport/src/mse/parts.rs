//! What both ends are made of: fields that come in parts, the search for the end of a pad, hashes and pads.
//!
//! Owns no order of things; that is the machines'.

use piecemeal_metainfo::InfoHash;
use rand_core::Rng;
use sha1::{Digest, Sha1};

use super::{Ciphers, Fault, KEY_BYTES, MAX_PAD, Rc4, Req2, Step};

/// What one turn of a machine came to.
pub(super) enum Turn {
    /// It has a new state, and goes on at once.
    On,
    /// It needs more bytes.
    Wait,
    /// The caller has to do something.
    Tell(Step),
}

/// Lets a machine have turns until it wants more bytes, or something done; how many it ate by then.
pub(super) fn hear(
    bytes: &[u8],
    mut turn: impl FnMut(&mut &[u8]) -> Result<Turn, Fault>,
) -> Result<(usize, Step), Fault> {
    let mut rest = bytes;
    loop {
        let step = match turn(&mut rest)? {
            Turn::On => continue,
            Turn::Wait => Step::More,
            Turn::Tell(step) => step,
        };
        return Ok((bytes.len() - rest.len(), step));
    }
}

/// A field of fixed length whose bytes come in parts; one after the other.
pub(super) struct Field {
    bytes: [u8; KEY_BYTES],
    len: usize,
}

impl Field {
    pub(super) const EMPTY: Field = Field { bytes: [0; KEY_BYTES], len: 0 };

    /// Takes what it lacks from the front of `from`; the field, once it is whole.
    pub(super) fn fill<const N: usize>(&mut self, from: &mut &[u8]) -> Option<[u8; N]> {
        const { assert!(N <= KEY_BYTES) };
        let (taken, rest) = from.split_at((N - self.len).min(from.len()));
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        *from = rest;
        if self.len < N {
            return None;
        }
        self.len = 0;
        self.bytes[..N].try_into().ok()
    }
}

/// The search for a mark of `N` bytes behind a pad of unknown length.
pub(super) struct Search<const N: usize> {
    mark: [u8; N],
    last: [u8; N],
    heard: usize,
    left: usize,
}

impl<const N: usize> Search<N> {
    /// `pad` bytes of the pad went by before.
    pub(super) fn new(mark: [u8; N], pad: usize) -> Search<N> {
        Search { mark, last: [0; N], heard: 0, left: MAX_PAD.saturating_sub(pad) + N }
    }

    /// Takes bytes up to the end of the mark; whether that was found. Behind the longest pad it has to be.
    pub(super) fn find(&mut self, from: &mut &[u8]) -> Result<bool, Fault> {
        while let Some((byte, rest)) = from.split_first() {
            *from = rest;
            self.last.rotate_left(1);
            self.last[N - 1] = *byte;
            (self.heard, self.left) = (self.heard + 1, self.left - 1);
            if self.heard >= N && self.last == self.mark {
                return Ok(true);
            }
            if self.left == 0 {
                return Err(Fault::NoSync);
            }
        }
        Ok(false)
    }
}

/// Bytes of a pad that come while a sum is being computed. Until the peer has what depends on it, it can send nothing
/// but its pad, so they need not be kept.
pub(super) fn pass_pad(pad: &mut usize, from: &mut &[u8]) -> Result<(), Fault> {
    *pad += from.len();
    *from = &[];
    if *pad > MAX_PAD { Err(Fault::NoSync) } else { Ok(()) }
}

/// Takes what is left of a pad that is encrypted; whether all of it went by.
pub(super) fn skip_pad(left: &mut usize, cipher: &mut Rc4, from: &mut &[u8]) -> bool {
    let (pad, rest) = from.split_at((*left).min(from.len()));
    cipher.skip(pad.len());
    *left -= pad.len();
    *from = rest;
    *left == 0
}

/// Checks the announced length of a pad.
pub(super) fn pad_len(len: [u8; 2]) -> Result<usize, Fault> {
    let len = u16::from_be_bytes(len);
    if usize::from(len) > MAX_PAD { Err(Fault::PadTooLong(len)) } else { Ok(usize::from(len)) }
}

/// How long a pad of ours is: each length is as likely as any other.
pub(super) fn draw_len(rng: &mut (impl Rng + ?Sized)) -> usize {
    ((u64::from(rng.next_u32()) * (MAX_PAD as u64 + 1)) >> 32) as usize
}

/// A pad that is not encrypted: random bytes.
pub(super) fn draw_pad(rng: &mut (impl Rng + ?Sized)) -> Vec<u8> {
    let mut pad = vec![0; draw_len(rng)];
    rng.fill_bytes(&mut pad);
    pad
}

/// SHA-1 of all parts behind one another.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 20] {
    parts.iter().fold(Sha1::new(), Digest::chain_update).finalize().into()
}

/// By what the end of PadA is found: `HASH('req1', S)`.
pub(super) fn req1(secret: &[u8; KEY_BYTES]) -> [u8; 20] {
    hash(&[b"req1", secret])
}

/// Hides which torrent is asked for, or shows it: `xor HASH('req3', S)`.
pub(super) fn mask(req2: Req2, secret: &[u8; KEY_BYTES]) -> Req2 {
    let mask = hash(&[b"req3", secret]);
    Req2(std::array::from_fn(|at| req2.0[at] ^ mask[at]))
}

/// The ciphers from the initiator to the responder and back.
pub(super) fn ciphers(secret: &[u8; KEY_BYTES], skey: InfoHash) -> (Rc4, Rc4) {
    let cipher = |name: &[u8; 4]| Rc4::new(&hash(&[name, secret, &skey.0]));
    (cipher(b"keyA"), cipher(b"keyB"))
}

/// Adds bytes to what goes out, encrypted.
pub(super) fn encrypt(out: &mut Vec<u8>, ciphers: &mut Ciphers, parts: &[&[u8]]) {
    let start = out.len();
    out.reserve_exact(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    ciphers.outgoing.apply(&mut out[start..]);
}
