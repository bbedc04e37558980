//! The door in `entries`, fed with facts of which bytes were exchanged, and with what a coverage-guided fuzzer found
//! worth keeping.

mod entries;

use std::path::Path;

use entries::{resume_facts, seeds};
use proptest::prelude::*;
use proptest::sample::Index;

#[test]
fn what_a_fuzzer_kept_survives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/resume_facts");
    let inputs = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let paths: Vec<_> = inputs.map(|input| input.expect("can be listed").path()).collect();
    assert!(!paths.is_empty(), "{}", folder.display());
    paths.iter().for_each(|path| resume_facts(&std::fs::read(path).expect("can be read")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn facts_with_foreign_bytes_survive(edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..5)) {
        for mut body in seeds() {
            edits.iter().for_each(|(at, byte)| *at.get_mut(&mut body) = *byte);
            resume_facts(&body);
        }
    }
}
