//! What is played, and what must come of it.
//!
//! Owns the list and how one is run. Each scenario is a short function over a `World`; what must always be true is
//! looked after there.
//!
//! - `swarm`: peers that want the same. - `harm`: disks, trackers and peers that do not work as they should.
//!   - `crowd`: which connections there are. - `search`: ways to find peers. - `streams`: uTP, on all kinds of paths.
//!   - `calm`: limits, sleep, and doing nothing.

mod calm;
mod crowd;
mod harm;
mod search;
mod streams;
mod swarm;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::world::{Verdict, World};

/// See the module.
pub struct Scenario {
    /// Its name, for `--scenario`.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    play: fn(&mut World) -> Verdict,
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario { name: "lone-seed", about: "one seed, twenty leeches", play: swarm::lone_seed },
    Scenario { name: "slow-lines", about: "more leeches than are served at once", play: swarm::slow_lines },
    Scenario {
        name: "flash-crowd",
        about: "forty leeches in waves, the seed leaves",
        play: swarm::flash_crowd,
    },
    Scenario { name: "natted", about: "a seed that nobody can call", play: swarm::natted },
    Scenario { name: "punch", about: "peers behind NATs, and one between them", play: search::punch },
    Scenario { name: "many-torrents", about: "forty torrents on one port", play: swarm::many_torrents },
    Scenario { name: "mutual", about: "hosts that all call each other at once", play: crowd::mutual },
    Scenario {
        name: "turnover",
        about: "few places, all taken by those who never give",
        play: crowd::turnover,
    },
    Scenario { name: "liar", about: "a peer that sends bad content", play: harm::liar },
    Scenario { name: "mute", about: "peers that never answer a request", play: harm::mute },
    Scenario { name: "hostile", about: "slow, deaf, flooding and garbling peers", play: harm::hostile },
    Scenario { name: "disk-stall", about: "disks that stand still for 30 s", play: harm::disk_stall },
    Scenario { name: "thirst", about: "disks slower than the net, and little memory", play: harm::thirst },
    Scenario { name: "no-space", about: "a disk that is full, and then is not", play: harm::no_space },
    Scenario { name: "lost-file", about: "a seed whose files vanish", play: harm::lost_file },
    Scenario { name: "tracker-dies", about: "a tracker that dies and returns", play: harm::tracker_dies },
    Scenario { name: "crash", about: "leeches that die and go on with their facts", play: harm::crash },
    Scenario { name: "udp-tracker", about: "a UDP tracker and lost datagrams", play: search::udp_tracker },
    Scenario { name: "private", about: "a torrent that must not be searched for", play: search::private },
    Scenario { name: "utp", about: "all by uTP, on paths that lose nothing", play: streams::calm },
    Scenario { name: "utp-storm", about: "all by uTP, on paths with every fault", play: streams::storm },
    Scenario { name: "limits", about: "rates exact to 5 % over 10 s", play: calm::limits },
    Scenario { name: "suspend", about: "a laptop that sleeps for ten minutes", play: calm::suspend },
    Scenario { name: "idle", about: "nothing to do for an hour", play: calm::idle },
];

/// What came of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Events.
    pub events: u64,
    /// Seconds of the world's time.
    pub seconds: u64,
    /// Content that engines received, and of that what was in vain, in bytes.
    pub received: (u64, u64),
    /// All that happened, in one number.
    pub trace: u64,
}

/// The scenario of that name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Plays it. `aloud`: tells all that happens.
    ///
    /// # Errors
    /// What must not happen and did, a panic included.
    pub fn run(&self, seed: u64, aloud: bool) -> Result<Report, String> {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = self.world(seed, aloud);
            let result = (self.play)(&mut world);
            let report = Report {
                events: world.events(),
                seconds: world.net.now.nanos() / 1_000_000_000,
                received: world.received(),
                trace: world.net.trace.hash(),
            };
            if result.is_err() {
                // Hosts stand in the middle of things, and hold Bufs.
                std::mem::forget(world);
            }
            result.map(|()| report)
        }));
        played.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            Err(format!("panic: {}", words.unwrap_or_default()))
        })
    }

    /// Where a seed begins.
    fn world(&self, seed: u64, aloud: bool) -> World {
        // Each scenario has its own luck, or all would begin alike.
        let salt = self.name.bytes().fold(seed, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
        World::new(salt ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), aloud)
    }

    /// Plays a seed, twice if `twice`: the second time must be as the first.
    ///
    /// # Errors
    /// See [`Scenario::run`].
    pub fn check(&self, seed: u64, twice: bool) -> Result<Report, String> {
        let report = self.run(seed, false)?;
        if twice && self.run(seed, false)? != report {
            return Err("the same seed went another way".into());
        }
        Ok(report)
    }
}
