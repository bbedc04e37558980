//! What happened, in one number: two runs of one seed that differ in anything differ here.
//!
//! Owns the running hash, and says each line aloud if that is asked.

use std::fmt::Arguments;

use piecemeal_metainfo::Time;

/// See the module.
pub struct Trace {
    hash: u64,
    lines: u64,
    aloud: bool,
}

impl Trace {
    /// An empty trace; `aloud`: lines go to standard output as well.
    pub fn new(aloud: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: 0, aloud }
    }

    /// Something happened: `what` to whom, with two numbers that tell more.
    pub fn note(&mut self, now: Time, who: u32, what: &'static str, one: u64, two: u64) {
        let kind = what.bytes().fold(0, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(byte));
        for word in [now.nanos(), u64::from(who), kind, one, two] {
            // FNV-1a by words, with a turn so that high bits matter below.
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        self.lines += 1;
        if self.aloud {
            println!("{:>12.6} #{who} {what} {one} {two}", seconds(now));
        }
    }

    /// Something happened that needs words. Words count as the trace does, aloud or not.
    pub fn say(&mut self, now: Time, who: u32, what: Arguments<'_>) {
        let text = what.to_string();
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.hash ^= now.nanos().rotate_left(17);
        self.lines += 1;
        if self.aloud {
            println!("{:>12.6} #{who} {text}", seconds(now));
        }
    }

    /// All that happened, in one number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

fn seconds(now: Time) -> f64 {
    now.nanos() as f64 / 1e9
}
