//! Embeddable BitTorrent: add, pause, resume, remove, status, events.
//!
//! [`Session`] is a running client: its torrents, what they do, and the resume facts by which the next run goes on
//! where this one left off. [`tools`] is the work on torrents that needs no swarm. Requests, answers and events are
//! the types of [`api`], so that a user interface cannot tell a session in its own process from one behind a socket.
//!
//! ```no_run
//! use std::time::Duration;
//! use piecemeal::api::{AddTorrent, EngineOptions, Event, Events, Heard};
//!
//! let session = piecemeal::Session::start(&EngineOptions::default())?;
//! let mut events = session.events();
//! let id = session.add(AddTorrent::new(std::fs::read("film.torrent")?, "downloads"))?;
//! while let Heard::Event(event) = events.next(Duration::MAX) {
//!     match event {
//!         Event::Complete { torrent } if torrent == id => break,
//!         event => println!("{event:?}"),
//!     }
//! }
//! session.shutdown(EngineOptions::MAX_FAREWELL);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Threads: one for the engine and its sockets, two or more for the disk, one for news, one for resume facts, and
//! one for HTTP once a tracker is asked. Memory: a pool for content, [`default_pool_bytes`] unless told otherwise,
//! and some megabytes beside it.
#![forbid(unsafe_code)]

mod add;
mod hub;
mod lists;
mod machine;
mod nodes;
mod place;
mod seeks;
mod session;
mod store;
mod table;
#[cfg(test)]
mod test_kit;
pub mod tools;
mod wait;
mod ways;
mod words;

pub use hub::EventStream;
pub use machine::default_pool_bytes;
pub use piecemeal_api as api;
pub use session::Session;
