//! The swarm: PeerConnection, Picker, Choker, Rate, Controller, Server, Shard.
#![forbid(unsafe_code)]
