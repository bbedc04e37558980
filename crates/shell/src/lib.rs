//! The only I/O: event loop, sockets, HTTP, disk lanes, clock, entropy.

pub mod http;
pub mod offline;
