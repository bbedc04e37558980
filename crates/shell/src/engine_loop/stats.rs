//! What a loop did, to be read from other threads while it works.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What the loop did since its start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Stats {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        /// The loop's own count, and what of it others see.
        #[derive(Default)]
        pub(crate) struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            /// Shows `stats` to others; once a turn, by the loop alone.
            pub(super) fn show(&self, stats: &Stats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
            }

            /// What was shown last.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Times the loop slept and was woken, by a socket, a mailbox or a deadline.
    wakeups,
    /// Turns, those after a sleep included.
    turns,
    /// Reads from sockets.
    reads,
    /// Writes to sockets, of bytes or of files.
    writes,
    /// Bytes read from sockets.
    bytes_in,
    /// Bytes written to sockets.
    bytes_out,
    /// Of those, content that came straight from a file, without a Buf.
    bytes_from_files,
    /// Connections accepted.
    accepted,
    /// Connections turned away for want of file handles; each stands for all that waited then.
    turned_away,
    /// Dials begun.
    dialed,
    /// Connections and dials there are now.
    conns,
    /// Datagrams received.
    datagrams_in,
    /// Datagrams sent.
    datagrams_out,
    /// Connections that were ended or refused, and datagrams that were dropped, because nobody there may be talked to.
    blocked,
    /// Jobs given to the disk.
    jobs,
}
