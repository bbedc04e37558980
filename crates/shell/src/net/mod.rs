//! The one module that opens sockets and looks up names; `cargo xtask words` sees to it.
//!
//! - `policy`: which way each kind of traffic takes.
//! - `dialer`: sockets that obey it.
//! - `examine`: whether they do.
//! - `interface`: whether the one that is used is there.
//! - `names`: hosts.
//! - `groups`: local discovery.
//! - `router`: asking the router.
//! - `servers`: sockets of servers.
//!
//! Everything fails closed: what cannot go by the way it was told to is not sent.

mod dialer;
mod examine;
mod groups;
mod interface;
mod names;
mod policy;
pub(crate) mod router;
pub(crate) mod servers;
#[cfg(test)]
mod tests;

pub use dialer::Dialer;
pub use examine::{Look, leaks, name_servers, proxy_connects, proxy_relays};
pub(crate) use groups::Group;
pub use interface::{Seen, look as look_at_interface, names as interface_names};
pub use policy::{Carries, LOW_EFFORT, Policy, ProxyKind, ProxyPolicy, Traffic, Way};
pub use servers::outward;
