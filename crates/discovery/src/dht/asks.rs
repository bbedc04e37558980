//! Questions that are out.
//!
//! Owns transaction ids and deadlines. An id is four random bytes, and an answer counts only from the address that was
//! asked, so that nobody answers for another without seeing the question.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use piecemeal_metainfo::Time;
use rand_core::Rng;

use super::LookupId;

/// After this a lookup asks somebody else beside; four of five nodes answer sooner.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// After this an answer is not expected any more.
const LOST_AFTER: Duration = Duration::from_secs(8);
/// Nobody waits longer than this for the proof of an address.
const PROOF_AFTER: Duration = Duration::from_secs(2);
/// Questions at once. Lookups and checks have bounds that together stay below; a question beyond is not sent.
const MAX_ASKS: usize = 2_048;

/// Why something was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To see whether a node is there.
    Check,
    /// To see whether somebody receives what is sent to where it claims to be.
    Proof,
    /// A lookup goes on.
    Lookup(LookupId),
    /// A lookup has ended and stores.
    Store(LookupId),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) to: SocketAddr,
    pub(super) purpose: Purpose,
    sent: Time,
    slow: bool,
}

/// What waiting came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Late {
    /// There is no answer yet, and there may be one.
    Slow,
    /// There will be none.
    Lost,
}

/// The number of a question.
pub(super) type AskId = u32;

#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Bound: [`MAX_ASKS`].
    out: BTreeMap<AskId, Ask>,
    due: BTreeSet<(Time, AskId)>,
}

impl Asks {
    /// A number for a new question; `None` if too many are out.
    pub(super) fn add(
        &mut self,
        now: Time,
        to: SocketAddr,
        purpose: Purpose,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<AskId> {
        if self.out.len() >= MAX_ASKS {
            return None;
        }
        let mut id = rng.next_u32();
        while self.out.contains_key(&id) {
            id = rng.next_u32();
        }
        let ask = Ask { to, purpose, sent: now, slow: false };
        self.due.insert((ask.deadline(), id));
        self.out.insert(id, ask);
        Some(id)
    }

    /// The question that `from` answers; `None` if it was not asked that.
    pub(super) fn answered(&mut self, transaction: &[u8], from: SocketAddr) -> Option<(AskId, Ask)> {
        let id = AskId::from_be_bytes(transaction.try_into().ok()?);
        let ask = *self.out.get(&id).filter(|ask| ask.to == from)?;
        self.out.remove(&id);
        self.due.remove(&(ask.deadline(), id));
        Some((id, ask))
    }

    /// A question whose deadline has come. To be called until there is none.
    pub(super) fn late(&mut self, now: Time) -> Option<(AskId, Ask, Late)> {
        let (due, id) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let ask = self.out.get_mut(&id)?;
        if matches!(ask.purpose, Purpose::Lookup(_)) && !ask.slow {
            ask.slow = true;
            self.due.insert((ask.deadline(), id));
            return Some((id, *ask, Late::Slow));
        }
        self.out.remove(&id).map(|ask| (id, ask, Late::Lost))
    }

    pub(super) fn next_due(&self) -> Time {
        self.due.first().map_or(Time::NEVER, |(due, _)| *due)
    }

    /// Questions of this kind that are out.
    pub(super) fn count(&self, purpose: Purpose) -> usize {
        self.out.values().filter(|ask| ask.purpose == purpose).count()
    }

    /// Bytes of heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        self.out.len() * (size_of::<Ask>() + size_of::<(Time, AskId)>()) * 3 / 2
    }
}

impl Ask {
    fn deadline(&self) -> Time {
        let wait = match self.purpose {
            Purpose::Lookup(_) if !self.slow => SLOW_AFTER,
            Purpose::Proof => PROOF_AFTER,
            _ => LOST_AFTER,
        };
        self.sent + wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn only_who_was_asked_answers_and_only_once() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut asks = Asks::default();
        let to: SocketAddr = "20.0.0.1:1".parse().unwrap();
        let id = asks.add(Time::ZERO, to, Purpose::Check, &mut rng).unwrap();
        let bytes = id.to_be_bytes();
        for other in ["20.0.0.1:2", "20.0.0.2:1"] {
            assert!(asks.answered(&bytes, other.parse().unwrap()).is_none(), "{other}");
        }
        assert!(asks.answered(&bytes[..3], to).is_none() && asks.answered(&[0; 4], to).is_none());
        assert!(asks.answered(&bytes, to).is_some());
        assert!(asks.answered(&bytes, to).is_none());
        assert_eq!(asks.next_due(), Time::NEVER);
    }

    #[test]
    fn deadlines() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut asks = Asks::default();
        let to: SocketAddr = "20.0.0.1:1".parse().unwrap();
        let purpose = Purpose::Lookup(LookupId(1));
        asks.add(Time::ZERO, to, purpose, &mut rng).unwrap();
        asks.add(Time::ZERO, to, Purpose::Proof, &mut rng).unwrap();
        let mut seen = Vec::new();
        while asks.next_due() != Time::NEVER {
            let now = asks.next_due();
            while let Some((_, ask, late)) = asks.late(now) {
                seen.push((now.since(Time::ZERO).as_secs(), ask.purpose, late));
            }
        }
        assert_eq!(
            seen,
            [(1, purpose, Late::Slow), (2, Purpose::Proof, Late::Lost), (8, purpose, Late::Lost)]
        );
        let all = (0..MAX_ASKS + 9).filter_map(|_| asks.add(Time::ZERO, to, Purpose::Check, &mut rng));
        assert_eq!(all.count(), MAX_ASKS);
        assert_eq!(asks.count(Purpose::Check), MAX_ASKS);
    }
}
