//! Finding peers: the tracker client and the tracker's book.
#![forbid(unsafe_code)]

mod dice;
pub mod lsd;
pub mod swarms;
pub mod tracker;
pub mod udp;
