//! The doors in `entries`, fed with valid inputs that were damaged, with noise, and with what a coverage-guided fuzzer
//! found worth keeping.

#[path = "../../metainfo/tests/doors/mod.rs"]
mod doors;
mod entries;

use doors::*;
use entries::*;
use proptest::prelude::*;

const ENTRIES: [(&str, Entry); 3] = [("dht_node", dht_node), ("ip_filter", ip_filter), ("lsd", lsd)];

/// The scripts are of use: nodes are met, lookups begun, announces and items kept by those who answer.
#[test]
fn undamaged_lives_get_somewhere() {
    for seed in seeds("dht_node") {
        let [nodes, torrents, items, lookups] = live(seed[0], &seed[1..]);
        let kept = if seed[0] & 2 == 0 { (2, 2) } else { (0, 0) };
        assert!(
            nodes >= 6 && lookups >= 9 && (torrents, items) == kept,
            "{nodes} {lookups} {torrents} {items}"
        );
    }
}

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
