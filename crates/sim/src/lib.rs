//! A world in a value: virtual clock, links, disks and swarms around the very same engine.
//!
//! A day takes seconds, every failure has a seed, and a seed brings it back. Nothing here reads a clock, rolls dice of
//! its own or touches a socket.
//!
//! - `scenario`: what is played, and what must come of it. - `world`: hosts, trackers, one clock, and what must always
//!   be true. - `node`: a host that runs the engine. - `peer`: a host that follows a script. - `net`, `disk`,
//!   `tracker`: what the shell has of the real thing. - `tap`: what was said on links. - `cli`: for `xtask sim`.
#![forbid(unsafe_code)]

pub mod cli;
pub mod dice;
pub mod disk;
pub mod net;
pub mod node;
pub mod peer;
pub mod scenario;
pub mod tap;
pub mod torrent;
pub mod trace;
pub mod tracker;
pub mod world;
