//! The doors in `entries`, fed with valid inputs that were damaged, with noise, and with what a coverage-guided fuzzer
//! found worth keeping.

#[path = "../../metainfo/tests/doors/mod.rs"]
mod doors;
mod entries;

use doors::*;
use entries::*;
use proptest::prelude::*;

const ENTRIES: [(&str, Entry); 3] = [("mse", mse), ("socks5", socks5), ("utp_stream", utp_stream)];

#[test]
fn what_a_fuzzer_kept_survives() {
    kept_survives(&ENTRIES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn damaged_inputs_survive(damages in splices()) {
        for (name, entry) in ENTRIES {
            seeds(name).into_iter().for_each(|seed| entry(&damaged(seed, &damages)));
        }
    }

    #[test]
    fn noise_survives(bytes: Vec<u8>) {
        ENTRIES.iter().for_each(|(_, entry)| entry(&bytes));
    }
}
