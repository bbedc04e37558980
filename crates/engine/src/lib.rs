//! The swarm: PeerConnection, Picker, Choker, Rate, Controller, Server, Shard.
#![forbid(unsafe_code)]

pub mod choker;
mod controller;
pub mod cx;
mod finder;
mod outside;
pub mod peer;
pub mod picker;
pub mod rate;
mod seated;
mod seeker;
mod server;
mod shard;
pub mod swarm;

pub use outside::Outside;
pub use server::Server;
pub use shard::Shard;
