//! Every door that bytes of strangers come through, as one function each, and good inputs to begin with.
//!
//! The property tests of this crate and the targets of `fuzz/` call the same functions. Nothing may panic, memory is
//! bounded, and what is accepted must make sense. Where a door is a codec's alone it is with the codec.

mod dht_node;
mod ip_filter;
mod lsd;

pub use dht_node::{dht_node, live};
pub use ip_filter::ip_filter;
pub use lsd::lsd;

/// Good inputs for the function of this name.
pub fn seeds(entry: &str) -> Vec<Vec<u8>> {
    match entry {
        "dht_node" => dht_node::seeds(),
        "ip_filter" => ip_filter::seeds(),
        "lsd" => lsd::seeds(),
        _ => Vec::new(),
    }
}
