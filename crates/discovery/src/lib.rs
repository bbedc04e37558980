//! Finding peers: the tracker client, the tracker's book, the DHT; whose connection is worth more, and who may not be
//! talked to.
#![forbid(unsafe_code)]

mod crc32c;
pub mod dht;
mod dice;
pub mod filter;
pub mod local;
pub mod lsd;
pub mod priority;
pub mod swarms;
pub mod tracker;
pub mod udp;
