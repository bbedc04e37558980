//! Stateless codecs of the BitTorrent wire: bytes to values and back.
//!
//! No time and no memory between calls. A decoder says what stands in the bytes and whether they are well formed; it
//! never decides whether the sender is welcome. What is decoded borrows from the bytes where it can, and what must be
//! owned is bounded by them.
#![forbid(unsafe_code)]

pub mod allowed_fast;
pub mod compact;
pub mod extension;
pub mod handshake;
pub mod holepunch;
pub mod krpc;
pub mod lsd;
pub mod message;
pub mod metadata;
pub mod peer_id;
pub mod pex;
pub mod text;
pub mod tracker;
pub mod utp;

pub use handshake::{Handshake, HandshakeError, Progress, Reserved};
pub use message::{Head, Limits, Message, WireError, decode_head, needed, piece_header};
