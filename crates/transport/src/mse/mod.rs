//! The obfuscated handshake (Message Stream Encryption, also called protocol encryption) and its ciphers.
//!
//! **It hides what the bytes are from whoever sorts traffic, and nothing more.** Nobody proves who they are, so whoever
//! sits in between can pose as both ends; the info hash that both must know is public; the group has 768 bits, and the
//! cipher is RC4. Nothing that must stay secret may rely on it, and no text of ours may call it security.
//!
//! ```text
//! 1  A -> B   Ya, PadA
//! 2  B -> A   Yb, PadB
//! 3  A -> B   HASH(req1, S), HASH(req2, SKEY) xor HASH(req3, S), RC4(VC, crypto_provide, len PadC, PadC, len IA, IA)
//! 4  B -> A   RC4(VC, crypto_select, len PadD, PadD), then the stream of B
//! 5  A -> B   the stream of A
//! ```
//!
//! Owns both ends of that, as values: [`Initiator`] and [`Responder`]. They are given bytes and hand out bytes; they
//! have no clock, so how long a peer may take is the caller's rule, as is how many may try at once. Owns no big-number
//! arithmetic on the caller's thread: a [`Sum`] is a value that can be run anywhere, and its [`Total`] is given back.
//! Owns no list of torrents: a responder asks for one by its [`Req2`], of which the caller keeps a map.
//!
//! What the caller does, for either end:
//!
//! ```text
//! loop {
//!     (eaten, step) = machine.hear(rest)?;     rest = rest[eaten..];
//!     match step {
//!         More      => read more, later
//!         Sum(sum)  => run it elsewhere, then machine.on_total(total); meanwhile go on hearing
//!         Who(req2) => machine.known(map.get(req2))?
//!         Done(..)  => rest is the peer's stream: decrypt it by ciphers.incoming, if there are ciphers
//!     }
//!     write machine.take_out()
//! }
//! ```
//!
//! A machine holds 2.5 KiB at most, with pads and payload as long as they may be, and half of that as a rule. It grows
//! for no length that a peer names before the peer has shown that it knows a torrent of ours.

mod initiator;
mod parts;
mod rc4;
mod responder;
mod sum;

#[cfg(test)]
mod tests;

use piecemeal_metainfo::InfoHash;
use thiserror::Error;

pub use initiator::Initiator;
pub use rc4::{Ciphers, Rc4};
pub use responder::Responder;
pub use sum::{Sum, Total};

/// Bytes of a public key and of the secret both ends compute: 768 bits, big-endian.
pub const KEY_BYTES: usize = 96;
/// Bytes a pad has at most, each of the four, both directions.
pub const MAX_PAD: usize = 512;
/// Bytes of the initial payload (IA) that are taken from an initiator, and that it may be given to send. Clients put
/// their handshake of 68 bytes there; this leaves room for an extension handshake behind it. The protocol would allow
/// 64 KiB, which nobody needs before it is answered and which each half-open connection could make us hold.
pub const MAX_PAYLOAD: usize = 1024;

/// What one end is ready to speak behind the handshake (`crypto_provide`). With neither, nobody is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The stream as it is; only the handshake was obfuscated.
    pub plain: bool,
    /// The stream goes through RC4.
    pub rc4: bool,
}

/// What both ends speak behind the handshake (`crypto_select`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The stream as it is.
    Plain,
    /// The stream goes through [`Ciphers`].
    Rc4,
}

/// How a torrent is asked for: `HASH('req2', SKEY)`, SKEY being its info hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Req2(pub [u8; 20]);

/// What hearing bytes came to.
#[derive(Debug)]
pub enum Step {
    /// All was heard; more has to come.
    More,
    /// This is to be run, and its total to be given to `on_total`. Bytes that come meanwhile can be heard.
    Sum(Sum),
    /// Which torrent is this? To be answered by [`Responder::known`] before anything more is heard.
    Who(Req2),
    /// The handshake is over. What was not eaten belongs to the peer's stream.
    Done(Done),
}

/// How a handshake ended.
#[derive(Debug)]
pub struct Done {
    /// What is spoken from here on, in both directions.
    pub choice: Choice,
    /// Both ciphers, each placed at the first byte behind the handshake. None when the choice is plain.
    pub ciphers: Option<Box<Ciphers>>,
    /// The first bytes of the initiator's stream (IA), decrypted; at most [`MAX_PAYLOAD`]. The rest of its stream
    /// follows on the wire. Always empty at the initiator.
    pub payload: Vec<u8>,
}

/// Why a handshake failed. Nothing more can be made of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// The peer spoke before it was its turn: no client of this protocol.
    #[error("the peer spoke too early")]
    TooEarly,
    /// The peer's key would fix the secret, or is no number of the group.
    #[error("the peer's public key is degenerate")]
    DegenerateKey,
    /// Where the pad had to end at the latest, nothing showed that the peer computed the same secret.
    #[error("no sign of the peer within the longest pad")]
    NoSync,
    /// The caller does not know the torrent that was asked for.
    #[error("the torrent is unknown")]
    UnknownTorrent,
    /// The verification constant came out wrong: the peer uses another torrent's key.
    #[error("the verification constant is wrong")]
    Garbled,
    /// Neither end offers what the other accepts.
    #[error("nothing of {provided:#x} is acceptable")]
    NothingInCommon {
        /// The peer's `crypto_provide`.
        provided: u32,
    },
    /// The responder chose what was not offered, or not exactly one thing.
    #[error("the peer chose {chosen:#x}, which was not offered")]
    WrongChoice {
        /// The peer's `crypto_select`.
        chosen: u32,
    },
    /// A pad is announced that is longer than [`MAX_PAD`].
    #[error("a pad of {0} bytes")]
    PadTooLong(u16),
    /// An initial payload is announced that is longer than [`MAX_PAYLOAD`].
    #[error("an initial payload of {0} bytes")]
    PayloadTooLong(u16),
}

/// What the first bytes of an incoming connection look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A BitTorrent handshake as it is (BEP 3).
    Plain,
    /// No BitTorrent handshake; if it is anything of ours, it is this protocol.
    Mse,
    /// Too few bytes to tell.
    More,
}

impl Offer {
    /// All there is.
    pub const BOTH: Offer = Offer { plain: true, rc4: true };
    /// Only the handshake is obfuscated.
    pub const PLAIN: Offer = Offer { plain: true, rc4: false };
    /// All is obfuscated.
    pub const RC4: Offer = Offer { plain: false, rc4: true };

    /// What is in both of them; bits that have no meaning yet are passed over.
    fn common(self, provided: u32) -> Offer {
        Offer { plain: self.plain && provided & PLAIN != 0, rc4: self.rc4 && provided & RC4 != 0 }
    }

    fn bits(self) -> u32 {
        u32::from(self.plain) * PLAIN + u32::from(self.rc4) * RC4
    }
}

impl Choice {
    fn bits(self) -> u32 {
        match self {
            Choice::Plain => PLAIN,
            Choice::Rc4 => RC4,
        }
    }
}

/// What a torrent of this info hash is asked for by. To be computed once for each torrent, so that a handshake costs
/// one look into a map.
pub fn req2(skey: InfoHash) -> Req2 {
    Req2(parts::hash(&[b"req2", &skey.0]))
}

/// Tells the two kinds of incoming connections on one port apart by their first 20 bytes. Of random first bytes one
/// in 256 begins as the protocol string does; it differs from it soon after.
pub fn may_be_mse(first: &[u8]) -> Verdict {
    let len = first.len().min(PROTOCOL.len());
    if first[..len] != PROTOCOL[..len] {
        Verdict::Mse
    } else if len == PROTOCOL.len() {
        Verdict::Plain
    } else {
        Verdict::More
    }
}

/// How a BitTorrent handshake begins (BEP 3).
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// The bits of `crypto_provide` and `crypto_select`; the others are reserved.
const PLAIN: u32 = 1;
const RC4: u32 = 2;

/// The verification constant, by which the ciphertext is known to be decrypted right.
const VC: [u8; 8] = [0; 8];
