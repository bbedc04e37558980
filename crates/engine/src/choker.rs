//! Friends: whom we unchoke because it gives, and whom to find out whether it would (BEP 3, "Choking Algorithm").
//!
//! Owns who holds an optimistic slot and since when. The choke state itself belongs to PeerConnection: the Controller
//! brings one [`ChokeFacts`] a peer and makes the connections agree with the list it gets back.
//!
//! While we leech, friends are the peers that gave most lately. What is left of the slots goes round as optimistic
//! unchokes, and every peer that snubs us frees one more, so that a bad minute does not become a bad hour. Once we
//! have all, everyone gets a turn, the ones that take fast before the others.

use std::time::Duration;

use piecemeal_metainfo::Time;
use rand_core::Rng;

/// How often to call [`Choker::judge`]. BEP 3: "it only changes who's choked once every ten seconds", long enough for
/// TCP to reach full speed, short enough to follow the swarm.
pub const JUDGE_EVERY: Duration = Duration::from_secs(10);

/// How long an optimistic unchoke lasts. BEP 3: "thirty seconds is enough for the upload to get going to full capacity,
/// the download to reciprocate, and then for that download to get up to full capacity".
pub const OPTIMISTIC_LASTS: Duration = Duration::from_secs(30);

/// A peer connected for less than this is new: two rotations (a guess).
const NEW_FOR: Duration = Duration::from_secs(60);

/// BEP 3: "new connections are three times as likely to start as the current optimistic unchoke".
const NEW_WEIGHT: u64 = 3;

/// How long a peer keeps its slot while we seed and others wait.
const TURN_LASTS: Duration = Duration::from_secs(60);

/// Slots and quotas, as set by the user or leased by the Server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokeLimits {
    /// Peers unchoked because they give (leeching). BEP 3 uses four.
    pub friends: usize,
    /// Peers unchoked whatever they give. BEP 3 uses one.
    pub optimistic: usize,
    /// While we seed, a peer that took this many bytes yields to one that waits; 20 Pieces are customary.
    pub quota: u64,
}

impl ChokeLimits {
    /// Four friends, one optimistic unchoke and a quota of 20 Pieces of `piece_length` bytes.
    pub fn new(piece_length: u32) -> ChokeLimits {
        ChokeLimits { friends: 4, optimistic: 1, quota: 20 * u64::from(piece_length) }
    }
}

/// What the Choker needs to know of one peer. `K` names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChokeFacts<K> {
    /// Its name.
    pub who: K,
    /// It wants something from us.
    pub interested: bool,
    /// Bytes per second it sends us lately.
    pub gives: u64,
    /// Bytes per second we send it lately.
    pub takes: u64,
    /// Bytes it took since it was unchoked last.
    pub taken: u64,
    /// It has unchoked us and owes us Blocks, but sent none for 60 s.
    pub snubbed: bool,
    /// When the connection began.
    pub connected_at: Time,
    /// When we last choked or unchoked it; when it connected if we never did.
    pub since: Time,
    /// We are choking it now.
    pub choked: bool,
    /// It is a seed or says it will only upload (BEP 21): it never takes a slot.
    pub upload_only: bool,
}

/// Chooses whom to unchoke.
#[derive(Clone, Debug)]
pub struct Choker<K> {
    limits: ChokeLimits,
    /// Holders of optimistic slots, longest first. At most `friends * 2 + optimistic`.
    optimistic: Vec<K>,
    rotates_at: Time,
    /// Scratch, kept so that judging takes no memory: indices into the facts.
    ranked: Vec<usize>,
}

impl<K: Copy + Ord> Choker<K> {
    /// A choker to whom nobody is known.
    pub fn new(limits: ChokeLimits) -> Choker<K> {
        Choker { limits, optimistic: Vec::new(), rotates_at: Time::ZERO, ranked: Vec::new() }
    }

    /// New limits; they hold from the next judgement.
    pub fn set_limits(&mut self, limits: ChokeLimits) {
        self.limits = limits;
    }

    /// The limits that hold.
    pub fn limits(&self) -> ChokeLimits {
        self.limits
    }

    /// When optimistic slots change hands next. Judging then (and each [`JUDGE_EVERY`]) is enough; judging more often,
    /// say because a friend left, changes nothing that need not change.
    pub fn next_rotation(&self) -> Time {
        self.rotates_at
    }

    /// Whether `who` holds an optimistic slot.
    pub fn is_optimistic(&self, who: K) -> bool {
        self.optimistic.contains(&who)
    }

    /// Fills `unchoked` with everyone who is to be unchoked now; all others are to be choked. `seeding` means that we
    /// want nothing any more.
    ///
    /// At most `friends * 2 + optimistic` interested peers are named. Peers that are not interested may be named
    /// beside them: they give more than a friend does and may ask at once when they find something.
    pub fn judge<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        seeding: bool,
        facts: &[ChokeFacts<K>],
        rng: &mut R,
        unchoked: &mut Vec<K>,
    ) {
        unchoked.clear();
        if seeding {
            self.optimistic.clear();
            self.rotates_at = now;
            self.take_turns(now, facts, unchoked);
        } else {
            self.choose_friends(facts, unchoked);
            let friends = self.ranked.len();
            self.choose_optimistic(now, friends, facts, rng, unchoked);
        }
    }

    /// Those who give most; leaves the friends' indices in `ranked`.
    fn choose_friends(&mut self, facts: &[ChokeFacts<K>], unchoked: &mut Vec<K>) {
        let gives = |peer: &ChokeFacts<K>| peer.gives > 0 && !peer.snubbed && !peer.upload_only;
        self.ranked.clear();
        self.ranked.extend((0..facts.len()).filter(|&at| facts[at].interested && gives(&facts[at])));
        self.ranked.sort_unstable_by_key(|&at| best_giver(&facts[at]));
        self.ranked.truncate(self.limits.friends);
        let full = self.ranked.len() == self.limits.friends;
        let worst = if full { self.ranked.last().map_or(u64::MAX, |&at| facts[at].gives) } else { 0 };
        unchoked.extend(self.ranked.iter().map(|&at| facts[at].who));
        // They hold no slot. When one becomes interested, the next judgement ranks it, and the worst friend loses.
        let bystanders = facts.iter().filter(|peer| !peer.interested && gives(peer) && peer.gives > worst);
        unchoked.extend(bystanders.map(|peer| peer.who));
    }

    /// Those who may show what they give: the optimistic slots, those no friend fills, and one for each that snubs us.
    fn choose_optimistic<R: Rng + ?Sized>(
        &mut self,
        now: Time,
        friends: usize,
        facts: &[ChokeFacts<K>],
        rng: &mut R,
        unchoked: &mut Vec<K>,
    ) {
        let snubbed = facts.iter().filter(|peer| peer.snubbed && !peer.upload_only).count();
        let extra = snubbed.min(self.limits.friends);
        let slots =
            (self.limits.friends - friends).saturating_add(self.limits.optimistic).saturating_add(extra);
        self.ranked.clear();
        self.ranked.extend((0..facts.len()).filter(|&at| {
            facts[at].interested && !facts[at].upload_only && !unchoked.contains(&facts[at].who)
        }));
        let eligible = |ranked: &[usize], who: &K| ranked.iter().any(|&at| facts[at].who == *who);
        let ranked = &self.ranked;
        self.optimistic.retain(|who| eligible(ranked, who));
        self.optimistic.truncate(slots);
        let rotate = now >= self.rotates_at;
        if rotate {
            self.rotates_at = now + OPTIMISTIC_LASTS;
        }
        // On rotation all slots are dealt anew, to those who had none first; else only the vacant ones are.
        let held = self.optimistic.len();
        let optimistic = &self.optimistic;
        self.ranked.retain(|&at| !optimistic.contains(&facts[at].who));
        let vacant = if rotate { slots } else { slots - held };
        for _ in 0..vacant {
            let Some(lucky) = draw(now, &self.ranked, facts, rng) else { break };
            self.optimistic.push(facts[self.ranked.swap_remove(lucky)].who);
        }
        let surplus = self.optimistic.len().saturating_sub(slots);
        self.optimistic.drain(..surplus);
        unchoked.extend(&self.optimistic);
    }

    /// While we seed: who still has its turn keeps it, then who waits longest, then who had its turn; fast takers
    /// first among equals.
    fn take_turns(&mut self, now: Time, facts: &[ChokeFacts<K>], unchoked: &mut Vec<K>) {
        let slots = self.limits.friends.saturating_add(self.limits.optimistic);
        let quota = self.limits.quota;
        self.ranked.clear();
        self.ranked.extend((0..facts.len()).filter(|&at| facts[at].interested && !facts[at].upload_only));
        self.ranked.sort_unstable_by_key(|&at| {
            let peer = &facts[at];
            let done = peer.taken >= quota || now.since(peer.since) >= TURN_LASTS;
            let (group, waits) = match (peer.choked, done) {
                (false, false) => (0, Time::ZERO),
                (true, _) => (1, peer.since),
                (false, true) => (2, Time::ZERO),
            };
            (group, waits, std::cmp::Reverse(peer.takes), peer.connected_at, peer.who)
        });
        unchoked.extend(self.ranked.iter().take(slots).map(|&at| facts[at].who));
    }
}

/// Sorts the best first. Equals: whoever is unchoked stays so, then the older connection; no change without cause.
fn best_giver<K: Copy + Ord>(peer: &ChokeFacts<K>) -> (std::cmp::Reverse<u64>, bool, Time, K) {
    (std::cmp::Reverse(peer.gives), peer.choked, peer.connected_at, peer.who)
}

/// Draws a place in `ranked`, new peers with threefold weight.
fn draw<K, R: Rng + ?Sized>(
    now: Time,
    ranked: &[usize],
    facts: &[ChokeFacts<K>],
    rng: &mut R,
) -> Option<usize> {
    let weight = |at: usize| {
        let peer = &facts[at];
        if now.since(peer.connected_at) < NEW_FOR && !peer.snubbed { NEW_WEIGHT } else { 1 }
    };
    let all: u64 = ranked.iter().map(|&at| weight(at)).sum();
    let mut ticket = ((u128::from(rng.next_u64()) * u128::from(all)) >> 64) as u64;
    ranked.iter().position(|&at| {
        let hit = ticket < weight(at);
        ticket = ticket.saturating_sub(weight(at));
        hit
    })
}

#[cfg(test)]
mod tests;
