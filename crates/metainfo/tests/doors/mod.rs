//! What the tests of all crates do with the doors that are fuzzed.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::Path;

use proptest::prelude::*;

/// A way through a door.
pub type Entry = fn(&[u8]);

/// Feeds each door what a coverage-guided fuzzer found worth keeping.
pub fn kept_survives(entries: &[(&str, Entry)]) {
    for (name, entry) in entries {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let inputs = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let paths: Vec<_> = inputs.map(|input| input.expect("can be listed").path()).collect();
        assert!(!paths.is_empty(), "{}", folder.display());
        paths.iter().for_each(|path| entry(&std::fs::read(path).expect("can be read")));
    }
}

/// Some bytes at a place, in the stead of as many others; positions are taken modulo the length.
pub type Splice = (usize, usize, Vec<u8>);

/// A few of them.
pub fn splices() -> impl Strategy<Value = Vec<Splice>> {
    prop::collection::vec((any::<usize>(), 0..8_usize, prop::collection::vec(any::<u8>(), 0..8)), 0..6)
}

/// An input with these changes.
pub fn damaged(mut seed: Vec<u8>, damages: &[Splice]) -> Vec<u8> {
    for (place, count, with) in damages {
        let start = place % (seed.len() + 1);
        let end = (start + count).min(seed.len());
        seed.splice(start..end, with.iter().copied());
    }
    seed
}
