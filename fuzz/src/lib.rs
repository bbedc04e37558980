//! What all fuzz targets share: the doors, which live with their crates' tests, and a bound on memory.
//!
//! `run.sh` builds and runs them; `cargo run --bin seeds` writes good inputs to `corpus/`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "../../crates/discovery/tests/entries/mod.rs"]
pub mod discovery;
#[path = "../../crates/metainfo/tests/entries/mod.rs"]
pub mod metainfo;
#[path = "../../crates/package/tests/entries/mod.rs"]
pub mod package;
#[path = "../../crates/transport/tests/entries/mod.rs"]
pub mod transport;
#[path = "../../crates/wire/tests/entries/mod.rs"]
pub mod wire;

pub use libfuzzer_sys::fuzz_target;

/// Bytes one input may make live beyond what was before it. Inputs have at most 64 KiB (`run.sh`), of which bencode
/// makes at most as many tokens of 16 bytes.
const LIVE_BYTES: usize = 16 << 20;

/// Counts what is live, and ends the process where that is too much: then the input is kept as a crash.
pub struct Capped;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static CAP: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: all is passed on to the system's allocator as it came; what is added neither allocates nor panics.
unsafe impl GlobalAlloc for Capped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed).wrapping_add(layout.size());
        if live > CAP.load(Ordering::Relaxed) {
            // Printing may allocate.
            CAP.store(usize::MAX, Ordering::Relaxed);
            eprintln!("an allocation of {} bytes makes {live} live at once", layout.size());
            std::process::abort();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Feeds one input to a door.
pub fn feed(entry: fn(&[u8]), input: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |why| {
            // A backtrace takes more memory than any input may.
            CAP.store(usize::MAX, Ordering::Relaxed);
            report(why);
        }));
    });
    CAP.store(LIVE.load(Ordering::Relaxed).saturating_add(LIVE_BYTES), Ordering::Relaxed);
    entry(input);
    CAP.store(usize::MAX, Ordering::Relaxed);
}

/// The target of one door.
#[macro_export]
macro_rules! target {
    ($entry:path) => {
        #[global_allocator]
        static MEMORY: $crate::Capped = $crate::Capped;

        $crate::fuzz_target!(|input: &[u8]| $crate::feed($entry, input));
    };
}
