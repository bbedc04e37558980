//! The swarm: PeerConnection, Picker, Choker, Rate, Controller, Server, Shard.
#![forbid(unsafe_code)]

pub mod choker;
pub mod picker;
pub mod rate;
pub mod swarm;
