//! HTTP, client and server: the one place below the session where `async` is spoken.
//!
//! Owns the control thread of the tracker client, and the thread of a small server. What a URL asks and what an answer
//! means is `wire::tracker`'s; when to ask is `discovery::tracker`'s; what to answer is the handler's.

mod client;
mod get;
mod line;
mod place;
mod serve;
#[cfg(test)]
mod tests;

pub use client::{Client, Reply};
pub use get::{GetError, Got, Stop, Validators, get, get_if_changed};
pub use place::is_local;
pub(crate) use place::{Nowhere, Reach, let_in, looks_like_tracker};
pub use serve::{Answer, Asked, ServeLimits, Serving, serve};
