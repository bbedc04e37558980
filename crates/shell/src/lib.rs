//! The only I/O: event loop, sockets, HTTP, disk lanes, clock, entropy.
//!
//! A [`Shell`] is a pure engine at work: one thread that turns (`engine_loop`), threads for the disk ([`disk`]), and
//! one for HTTP ([`http`]). Nothing is decided here that the simulator could not decide without it.

pub mod ask_udp;
mod batch;
pub mod clock;
pub mod dht;
pub mod disk;
mod dns;
pub mod driven;
mod engine_loop;
pub mod entropy;
pub mod http;
pub mod mailbox;
pub mod mapping;
pub mod net;
mod news;
pub mod offline;
mod proxy;
mod send;
mod shell;
mod sums;
mod tcp;
pub mod tls;
pub mod udp_server;

pub use disk::Storage;
pub use engine_loop::Stats;
pub use shell::{Shell, ShellError, ShellSettings};
