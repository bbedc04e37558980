//! Every door that bytes of strangers come through, as one function each, and good inputs to begin with.
//!
//! The property tests of this crate and the targets of `fuzz/` call the same functions. Nothing may panic, and what is
//! accepted must make sense.

mod mse;
mod proxy;
mod utp;

pub use mse::mse;
pub use proxy::socks5;
pub use utp::utp_stream;

/// Good inputs for the function of this name.
pub fn seeds(entry: &str) -> Vec<Vec<u8>> {
    match entry {
        "mse" => mse::seeds(),
        "socks5" => proxy::seeds(),
        "utp_stream" => utp::seeds(),
        _ => Vec::new(),
    }
}
