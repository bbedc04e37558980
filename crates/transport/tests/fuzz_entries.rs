//! The doors in `entries`, fed with valid inputs that were damaged, with noise, and with what a coverage-guided fuzzer
//! found worth keeping.

mod entries;

use std::path::Path;

use entries::*;
use proptest::prelude::*;

/// A way through a door.
type Entry = fn(&[u8]);

const ENTRIES: [(&str, Entry); 3] = [("mse", mse), ("socks5", socks5), ("utp_stream", utp_stream)];

#[test]
fn what_a_fuzzer_kept_survives() {
    for (name, entry) in ENTRIES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let inputs = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let paths: Vec<_> = inputs.map(|input| input.expect("can be listed").path()).collect();
        assert!(!paths.is_empty(), "{}", folder.display());
        paths.iter().for_each(|path| entry(&std::fs::read(path).expect("can be read")));
    }
}

/// Some bytes at a place, in the stead of as many others; positions are taken modulo the length.
fn damaged(mut seed: Vec<u8>, damages: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    for (place, count, with) in damages {
        let start = place % (seed.len() + 1);
        let end = (start + count).min(seed.len());
        seed.splice(start..end, with.iter().copied());
    }
    seed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn damaged_inputs_survive(
        damages in prop::collection::vec((any::<usize>(), 0..8_usize, prop::collection::vec(any::<u8>(), 0..8)), 0..6),
    ) {
        for (name, entry) in ENTRIES {
            seeds(name).into_iter().for_each(|seed| entry(&damaged(seed, &damages)));
        }
    }

    #[test]
    fn noise_survives(bytes: Vec<u8>) {
        ENTRIES.iter().for_each(|(_, entry)| entry(&bytes));
    }
}
