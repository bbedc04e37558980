//! A tracker: sockets and configuration around discovery::Swarms.
