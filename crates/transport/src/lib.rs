//! Byte carriers with a state of their own, between a socket and the messages of a peer.
//!
//! - `mse`: the obfuscated handshake and its ciphers. - `utp`: streams over datagrams (BEP 29). - `proxy`: the words to
//!   a SOCKS5 or HTTP proxy.
//!
//! All are values that compute: bytes and time come in, bytes to send go out. Sockets are the shell's.
#![forbid(unsafe_code)]

pub mod mse;
pub mod proxy;
pub mod utp;
