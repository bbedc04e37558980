//! How fast bytes flow, and how fast they may: [`Meter`] measures, [`Budget`] limits, [`spend`] and [`share`] make a
//! tree of budgets.
//!
//! Owns numbers only. Nothing here delays a byte: whoever wants to request or to load asks first, and what a limit
//! withholds is simply not asked for (docs: the Controller asks on the heartbeat and whenever it would send). One
//! `Budget` limits one direction; who has both directions to limit keeps two.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// The step in which money is spent, in bytes: one Block (BEP 3, 2^14). Debt and small bursts are measured in it.
pub const QUANTUM: u64 = 16 * 1024;

/// Slices a [`Meter`] keeps. With [`SLICE`] this makes a window of 4 s: long enough that a slow peer's single Blocks
/// do not look like bursts, short enough that a choke shows soon.
const SLICES: usize = 20;

/// How long one slice is: two beats, so that what is counted on the beat falls evenly into slices.
const SLICE: Duration = Duration::from_millis(200);

/// A Meter younger than this is judged as if it were this old, so that the first Block is no record.
const YOUNGEST: Duration = Duration::from_secs(1);

/// Bytes per second over a sliding window of about 4 s, computed from the times of the bytes alone.
///
/// Bytes noted at an instant count as having flowed just before it, so once the window is full a constant rate is
/// measured exactly if it ticks with the slices (20, 50, 100, 200 ms), and else up to one tick's bytes in 4 s.
#[derive(Clone, Debug)]
pub struct Meter {
    born: Time,
    /// The number of the newest slice; slice `n` covers `(n * SLICE, (n + 1) * SLICE]`.
    newest: u64,
    slices: [u64; SLICES],
    total: u64,
}

impl Meter {
    /// A meter that begins to listen now.
    pub fn new(now: Time) -> Meter {
        Meter { born: now, newest: slice_of(now), slices: [0; SLICES], total: 0 }
    }

    /// Notes `bytes` that flowed just now.
    pub fn add(&mut self, bytes: u64, now: Time) {
        let slice = slice_of(now).max(self.newest);
        let passed = slice - self.newest;
        for step in 1..=passed.min(SLICES as u64) {
            self.slices[((self.newest + step) % SLICES as u64) as usize] = 0;
        }
        self.newest = slice;
        let cell = &mut self.slices[(slice % SLICES as u64) as usize];
        *cell = cell.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }

    /// Bytes per second lately.
    pub fn rate(&self, now: Time) -> u64 {
        let last = slice_of(now).max(self.newest);
        let first = last.saturating_sub(SLICES as u64 - 1);
        let oldest_kept = self.newest.saturating_sub(SLICES as u64 - 1);
        let bytes = (first.max(oldest_kept)..=self.newest)
            .map(|slice| self.slices[(slice % SLICES as u64) as usize])
            .fold(0, u64::saturating_add);
        let begin = Time::from_nanos(first.saturating_mul(SLICE.as_nanos() as u64)).max(self.born);
        let span = now.since(begin).max(YOUNGEST).as_nanos();
        u64::try_from(u128::from(bytes) * 1_000_000_000 / span).unwrap_or(u64::MAX)
    }

    /// All bytes ever noted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// The slice that ends at or after `now`: an instant on the border belongs to the slice before it.
fn slice_of(now: Time) -> u64 {
    now.nanos().saturating_sub(1) / SLICE.as_nanos() as u64
}

/// A token bucket for one direction: bytes that may be spent, filled at `limit` bytes per second.
///
/// It begins empty, holds at most a quarter second's worth (or one Block, if that is more), and may go up to half a
/// Block into debt; so a limit below a Block per beat works, and what is spent since birth differs from limit times
/// age by half a Block at most while someone keeps asking.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Bytes per second; `None` is no limit.
    limit: Option<u64>,
    /// Bytes that may be spent; negative is debt.
    tokens: i64,
    /// Earned but less than a byte, in bytes * 1e-9.
    crumbs: u64,
    filled: Time,
}

/// No limit above this is told apart from it: 2^50 bytes per second. It keeps every sum below within 64 bits.
const LARGEST_LIMIT: u64 = 1 << 50;

impl Budget {
    /// A budget of `limit` bytes per second from now on; `None` is unlimited, zero forbids everything.
    pub fn new(limit: Option<u64>, now: Time) -> Budget {
        Budget { limit: limit.map(|rate| rate.min(LARGEST_LIMIT)), tokens: 0, crumbs: 0, filled: now }
    }

    /// A budget without a limit.
    pub fn unlimited() -> Budget {
        Budget::new(None, Time::ZERO)
    }

    /// Changes the limit; debt stays, savings are cut to what the new limit may save.
    pub fn set_limit(&mut self, limit: Option<u64>, now: Time) {
        self.refill(now);
        self.limit = limit.map(|rate| rate.min(LARGEST_LIMIT));
        self.filled = now;
        match self.limit {
            Some(rate) => self.tokens = self.tokens.min(most_saved(rate)),
            None => (self.tokens, self.crumbs) = (0, 0),
        }
    }

    /// The limit in bytes per second.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Earns what the time since the last call is worth. Calling it often or seldom earns the same.
    pub fn refill(&mut self, now: Time) {
        let Some(rate) = self.limit else { return };
        let passed = now.since(self.filled).as_nanos();
        if passed == 0 {
            return;
        }
        self.filled = now;
        let earned = u128::from(rate) * passed + u128::from(self.crumbs);
        let most = most_saved(rate);
        let whole = i64::try_from(earned / 1_000_000_000).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(whole);
        self.crumbs = (earned % 1_000_000_000) as u64;
        if self.tokens >= most {
            (self.tokens, self.crumbs) = (most, 0);
        }
    }

    /// How many bytes of `wanted` a [`take`](Self::take) would grant.
    pub fn would_grant(&self, wanted: u64) -> u64 {
        if self.limit.is_none() {
            return wanted;
        }
        let half = (wanted.min(QUANTUM) / 2).max(1) as i64;
        if self.tokens < half { 0 } else { wanted.min((self.tokens + half) as u64) }
    }

    /// Spends up to `wanted` bytes and returns how many were granted. Refill first.
    ///
    /// Grants nothing below half of a Block (or of `wanted`, if that is less), and up to as much beyond what is
    /// there: rounding to the nearest Block instead of down keeps slow limits exact.
    pub fn take(&mut self, wanted: u64) -> u64 {
        let granted = self.would_grant(wanted);
        if self.limit.is_some() {
            self.tokens -= granted as i64;
        }
        granted
    }

    /// Spends `bytes` whether or not they are there: they have flowed already. Debt of a second at most is kept.
    pub fn charge(&mut self, bytes: u64) {
        if let Some(rate) = self.limit {
            let most_debt = rate.max(QUANTUM) as i64;
            self.tokens = self.tokens.saturating_sub(bytes.min(LARGEST_LIMIT) as i64).max(-most_debt);
        }
    }

    /// Returns what was granted and not used.
    pub fn put_back(&mut self, unused: u64) {
        if let Some(rate) = self.limit {
            self.tokens = self.tokens.saturating_add(unused.min(LARGEST_LIMIT) as i64).min(most_saved(rate));
        }
    }

    /// When a whole Block can be had at the earliest; `Time::NEVER` if the limit is zero.
    pub fn next_grant(&self) -> Time {
        let lacking = (QUANTUM / 2) as i64 - self.tokens;
        match self.limit {
            None => self.filled,
            Some(_) if lacking <= 0 => self.filled,
            Some(0) => Time::NEVER,
            Some(rate) => {
                let nanos = (lacking as u128 * 1_000_000_000).div_ceil(u128::from(rate));
                self.filled + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    }
}

/// The most a budget of `rate` bytes per second may save: a quarter of a second, at least a Block.
fn most_saved(rate: u64) -> i64 {
    (rate / 4).max(QUANTUM) as i64
}

/// A limit as users and Notes give it, in bytes/s: 0 is none.
pub fn limit_of(bytes_a_second: u64) -> Option<u64> {
    (bytes_a_second > 0).then_some(bytes_a_second)
}

/// Takes from a branch and its trunk at once, so that both limits hold: returns what both grant. Refill both first.
pub fn spend(trunk: &mut Budget, branch: &mut Budget, wanted: u64) -> u64 {
    let granted = trunk.would_grant(branch.would_grant(wanted));
    if trunk.limit.is_some() {
        trunk.tokens -= granted as i64;
    }
    if branch.limit.is_some() {
        branch.tokens -= granted as i64;
    }
    granted
}

/// Returns to both what [`spend`] granted and nobody used.
pub fn unspend(trunk: &mut Budget, branch: &mut Budget, unused: u64) {
    trunk.put_back(unused);
    branch.put_back(unused);
}

/// The budget that all torrents of a Shard share in one direction, and how it is shared while it is short.
///
/// While it lasts, whoever asks gets. Once somebody got less than it asked for, nobody gets anything until the next beat
/// divides what there is ([`share`]) and lets each torrent spend its part; so none is served first for being quick.
#[derive(Clone, Debug)]
pub struct Trunk {
    budget: Budget,
    short: bool,
    part: Option<u64>,
}

impl Trunk {
    /// Without a limit.
    pub fn unlimited() -> Trunk {
        Trunk { budget: Budget::unlimited(), short: false, part: None }
    }

    /// A new limit, in bytes/s.
    pub fn set_limit(&mut self, limit: Option<u64>, now: Time) {
        self.budget.set_limit(limit, now);
        self.short &= limit.is_some();
    }

    /// Takes from the trunk and a `branch`; returns what both grant.
    pub fn spend(&mut self, branch: &mut Budget, wanted: u64, now: Time) -> u64 {
        branch.refill(now);
        let granted = match self.part {
            _ if self.budget.limit().is_none() => return branch.take(wanted),
            Some(part) => {
                let granted = branch.take(wanted.min(part));
                self.part = Some(part - granted);
                return granted;
            }
            None if self.short => 0,
            None => {
                self.budget.refill(now);
                spend(&mut self.budget, branch, wanted)
            }
        };
        self.short |= granted < wanted;
        granted
    }

    /// Returns what was granted and is not used.
    pub fn refund(&mut self, branch: &mut Budget, unused: u64) {
        match &mut self.part {
            Some(part) => {
                *part += unused;
                branch.put_back(unused);
            }
            None => unspend(&mut self.budget, branch, unused),
        }
    }

    /// When the next beat should divide anew; `Time::NEVER` while nobody waits.
    pub fn next_due(&self) -> Time {
        if self.short { self.budget.next_grant() } else { Time::NEVER }
    }

    /// Divides what there is over `demands`; each part is then spent between [`Trunk::begin_part`] and
    /// [`Trunk::end_part`].
    pub fn divide(&mut self, demands: &[u64], turn: u64, parts: &mut [u64], now: Time) {
        self.budget.refill(now);
        share(&mut self.budget, demands, turn, parts);
        self.short = demands.iter().zip(parts).any(|(demand, part)| *part < *demand);
    }

    /// One torrent spends its part now.
    pub fn begin_part(&mut self, part: u64) {
        self.part = Some(part);
    }

    /// What it did not spend goes back.
    pub fn end_part(&mut self) {
        let unused = self.part.take().unwrap_or(0);
        self.budget.put_back(unused);
    }
}

/// Divides what `trunk` has over `demands` (bytes each would like), into `shares` of the same length, and spends it.
///
/// Nobody gets more than it asked for, nobody who asks for more gets less than another, give or take one Block;
/// the odd Blocks go round: call it with a `turn` that grows by one each beat. Shares are whole Blocks unless the
/// demand is smaller, so that a limit of less than a Block each still moves one torrent after the other.
/// Extra entries of the longer slice are ignored.
pub fn share(trunk: &mut Budget, demands: &[u64], turn: u64, shares: &mut [u64]) {
    let count = demands.len().min(shares.len());
    let (demands, shares) = (&demands[..count], &mut shares[..count]);
    if trunk.limit.is_none() {
        shares.copy_from_slice(demands);
        return;
    }
    shares.fill(0);
    let all = demands.iter().fold(0, |sum: u64, &demand| sum.saturating_add(demand));
    let mut left = trunk.take(all);
    // Each round gives every hungry one the same; it ends when a round satisfies nobody. At most `count` rounds, and
    // in practice two or three.
    loop {
        let hungry = demands.iter().zip(&*shares).filter(|(demand, share)| share < demand).count() as u64;
        let each = left.checked_div(hungry).unwrap_or(0) / QUANTUM * QUANTUM;
        if each == 0 {
            break;
        }
        for (demand, share) in demands.iter().zip(&mut *shares) {
            let more = (demand - *share).min(each);
            *share += more;
            left -= more;
        }
    }
    for step in 0..count {
        let at = ((turn % count.max(1) as u64) as usize + step) % count;
        let more = (demands[at] - shares[at]).min(QUANTUM);
        if more <= left {
            shares[at] += more;
            left -= more;
        }
    }
    trunk.put_back(left);
}

#[cfg(test)]
mod tests;
