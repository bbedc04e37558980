//! How many requests to keep at a peer: what it can send in three seconds.
//!
//! Owns: the number. Leaves to the Picker which Blocks these are, and to Rate whether the budget allows them.

use piecemeal_package::BLOCK_LEN;

/// Requests cover this many seconds of the peer's rate, as libtorrent's `request_queue_time`: long enough that a slow
/// round trip never leaves the peer idle.
const QUEUE_SECONDS: u64 = 3;
/// Never fewer, in Blocks: a peer that just began must be able to show its rate.
const LEAST: usize = 4;
/// Never more, in Blocks: 8 MiB under way at one peer.
const MOST: usize = 500;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    target: usize,
    /// While growing, each Block received allows one request more, so the queue doubles with each round trip.
    growing: bool,
    /// What the peer says it holds at most (BEP 10, "reqq").
    cap: usize,
}

impl Default for Pipeline {
    fn default() -> Pipeline {
        Pipeline { target: LEAST, growing: true, cap: MOST }
    }
}

impl Pipeline {
    /// How many requests should be out, in Blocks.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The peer told how many it holds (BEP 10, "reqq"); less than one is taken as one.
    pub fn cap(&mut self, reqq: usize) {
        self.cap = reqq.clamp(1, MOST);
        self.target = self.target.min(self.cap);
    }

    /// A Block came; `rate` is what the peer sends, in bytes/s.
    pub fn on_block(&mut self, rate: u64) {
        if self.growing {
            self.target = (self.target + 1).min(self.cap);
            self.growing = self.target < self.cap;
        }
        self.judge(rate);
    }

    /// Once a beat: follow the peer's rate, in bytes/s.
    pub fn judge(&mut self, rate: u64) {
        let by_rate = (rate * QUEUE_SECONDS / u64::from(BLOCK_LEN)) as usize;
        if by_rate >= self.target || !self.growing {
            self.target = by_rate.clamp(LEAST, MOST).min(self.cap);
        }
    }

    /// It stopped giving: ask for one Block at a time until it gives again.
    pub fn snub(&mut self) {
        (self.target, self.growing) = (1, false);
    }

    /// The doubling is over: the rate no longer grows with the queue.
    pub fn settle(&mut self) {
        self.growing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_blocks_then_follows_the_rate() {
        let mut pipeline = Pipeline::default();
        assert_eq!(pipeline.target(), 4);
        for _ in 0..10 {
            pipeline.on_block(0);
        }
        assert_eq!(pipeline.target(), 14);
        pipeline.settle();
        // 64 KiB/s for three seconds are 12 Blocks.
        pipeline.judge(64 * 1024);
        assert_eq!(pipeline.target(), 12);
        pipeline.judge(u64::MAX / 8);
        assert_eq!(pipeline.target(), 500);
        pipeline.judge(0);
        assert_eq!(pipeline.target(), 4);
    }

    #[test]
    fn honours_what_the_peer_holds() {
        let mut pipeline = Pipeline::default();
        pipeline.cap(2);
        pipeline.on_block(1 << 30);
        assert_eq!(pipeline.target(), 2);
        pipeline.snub();
        assert_eq!(pipeline.target(), 1);
    }
}
