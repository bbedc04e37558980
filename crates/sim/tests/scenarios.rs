//! Every scenario over many seeds: `PIECEMEAL_SEEDS` of them, or a few for a quick look.
#![allow(clippy::disallowed_methods)]

use piecemeal_sim::scenario::named;

/// Seeds that a quick look takes.
const QUICK: u64 = 20;
/// Every so many seeds one is played twice.
const TWICE_EVERY: u64 = 10;

fn play(name: &str) {
    let seeds = std::env::var("PIECEMEAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(QUICK);
    let scenario = named(name).expect("a scenario of that name");
    for seed in 0..seeds {
        if let Err(why) = scenario.check(seed, seed % TWICE_EVERY == 0) {
            panic!("{name}, seed {seed}: {why}\nxtask sim --scenario {name} --seed {seed}");
        }
    }
}

macro_rules! scenarios {
    ($($test:ident: $name:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            play($name);
        }
    )*
        #[test]
        fn all_are_played() {
            let played = [$($name),*];
            let all = piecemeal_sim::scenario::ALL.iter().map(|scenario| scenario.name);
            assert!(all.eq(played), "a scenario is in one list and not in the other");
        }
    };
}

scenarios! {
    lone_seed: "lone-seed",
    slow_lines: "slow-lines",
    flash_crowd: "flash-crowd",
    natted: "natted",
    punch: "punch",
    many_torrents: "many-torrents",
    mutual: "mutual",
    turnover: "turnover",
    liar: "liar",
    mute: "mute",
    hostile: "hostile",
    disk_stall: "disk-stall",
    thirst: "thirst",
    no_space: "no-space",
    lost_file: "lost-file",
    tracker_dies: "tracker-dies",
    crash: "crash",
    udp_tracker: "udp-tracker",
    private: "private",
    utp: "utp",
    utp_storm: "utp-storm",
    limits: "limits",
    suspend: "suspend",
    idle: "idle",
}
