//! Finding peers: the tracker client, the tracker's book, the DHT, and whose connection is worth more.
#![forbid(unsafe_code)]

mod crc32c;
pub mod dht;
mod dice;
pub mod lsd;
pub mod priority;
pub mod swarms;
pub mod tracker;
pub mod udp;
