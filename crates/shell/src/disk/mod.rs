//! The disk: runs the Jobs of Packages on lanes of threads, and answers each with its Done.
//!
//! - `pool` knows the torrents, deals Jobs out to lanes, starts and ends threads.
//! - `lane` is a queue and its threads, one for each device: turns between torrents, idle Jobs last, few wake-ups.
//! - `worker` does the Jobs that move bytes; `fences` those that are done alone.
//! - `files` is the only way from a file of a torrent to an open handle: beneath the root, through no link.
//!
//! What may run beside what is Package's to say (see `piecemeal_package::Job`); nothing here orders Jobs.

mod fences;
mod files;
mod lane;
mod pool;
mod worker;

pub use files::Storage;
pub(crate) use files::{Handle, Handles};
pub use pool::DiskPool;
pub(crate) use pool::{Submitter, Torrents, abandon_done};
