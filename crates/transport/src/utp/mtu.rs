//! How large a packet may be: path MTU discovery without help of the path.
//!
//! Owns the search. A packet that is made larger by padding is sent now and then; if it arrives, packets may be as large
//! as it was. It is padded, not filled, because a uTP packet that was lost must be sent again with the same payload: a
//! padded one goes again without its padding, in the size that is known to pass. When all is lost that is large, the
//! path has changed, and the search begins anew from below.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// Bytes of a datagram that pass every IPv4 path: 576 (RFC 1122) less the headers of IP and UDP.
const LEAST_V4: u16 = 576 - 28;

/// Bytes of a datagram that pass every IPv6 path: 1280 (RFC 8200) less the headers of IP and UDP.
const LEAST_V6: u16 = 1280 - 48;

/// Bytes that are not worth another probe.
const STEP: u16 = 16;

/// Probes of one size that are lost before it counts as too large. On a path that loses every fifth packet one search
/// in a hundred is misled at each step.
const TRIES: u8 = 3;

/// After how long a search that ended below the most is repeated: routes change seldom.
const AGAIN: Duration = Duration::from_secs(600);

/// How long after a change of the path the search waits.
const REST: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Mtu {
    /// What passes.
    size: u16,
    least: u16,
    most: u16,
    /// What may still pass.
    ceiling: u16,
    /// What is tried next, before halves: what is most likely.
    guess: Option<u16>,
    tries: u8,
    /// The probe that is on its way.
    flying: Option<u16>,
    not_before: Time,
}

impl Mtu {
    /// For datagrams of at most `most` bytes.
    pub fn new(v6: bool, most: usize) -> Mtu {
        let least = if v6 { LEAST_V6 } else { LEAST_V4 };
        let most = u16::try_from(most).unwrap_or(u16::MAX).max(least);
        Mtu {
            size: least,
            least,
            most,
            ceiling: most,
            guess: Some(most),
            tries: 0,
            flying: None,
            not_before: Time::ZERO,
        }
    }

    /// Bytes of the largest datagram that is known to pass.
    pub fn size(&self) -> usize {
        self.size.into()
    }

    /// Bytes of the probe that is worth being sent now.
    pub fn probe(&mut self, now: Time) -> Option<usize> {
        if self.flying.is_some() || self.size >= self.most || now < self.not_before {
            return None;
        }
        if self.ceiling < self.size + STEP {
            // The search had ended, and its time has come again.
            (self.ceiling, self.guess, self.tries) = (self.most, Some(self.most), 0);
        }
        Some(self.next().into())
    }

    /// A probe of this size left.
    pub fn sent(&mut self, bytes: usize) {
        self.flying = u16::try_from(bytes).ok();
    }

    /// The probe arrived.
    pub fn arrived(&mut self, now: Time) {
        if let Some(size) = self.flying.take() {
            self.size = self.size.max(size);
            (self.guess, self.tries) = (None, 0);
            self.ended(now);
        }
    }

    /// The probe was lost. This is no sign of congestion.
    pub fn lost(&mut self, now: Time) {
        let Some(size) = self.flying.take() else { return };
        self.tries += 1;
        if self.tries >= TRIES {
            self.below(now, size);
        }
    }

    /// The system refused a datagram of `bytes` bytes.
    pub fn too_big(&mut self, now: Time, bytes: usize) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.flying.take_if(|flying| *flying >= bytes);
        if bytes <= self.ceiling {
            self.size = self.size.min(bytes.saturating_sub(1)).max(self.least);
            self.below(now, bytes);
        }
    }

    /// Large packets are lost again and again. What passed until now is guessed first, in case it was chance.
    pub fn swallowed(&mut self, now: Time) {
        if self.size > self.least {
            (self.ceiling, self.guess, self.tries) = (self.size, Some(self.size), 0);
            (self.size, self.flying, self.not_before) = (self.least, None, now + REST);
        }
    }

    /// Whether a datagram of `bytes` bytes is larger than any that must pass.
    pub fn is_large(&self, bytes: usize) -> bool {
        bytes > usize::from(self.least)
    }

    fn next(&self) -> u16 {
        let guess = self.guess.filter(|guess| *guess > self.size && *guess <= self.ceiling);
        guess.unwrap_or(self.size + (self.ceiling - self.size).div_ceil(2))
    }

    fn below(&mut self, now: Time, bytes: u16) {
        self.ceiling = bytes.saturating_sub(1).max(self.size);
        (self.guess, self.tries) = (None, 0);
        self.ended(now);
    }

    fn ended(&mut self, now: Time) {
        if self.ceiling < self.size + STEP {
            self.not_before = now + AGAIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a path that passes datagrams of `passes` bytes; tells how many probes it took.
    fn search(mtu: &mut Mtu, now: Time, passes: usize) -> usize {
        let mut probes = 0;
        while let Some(probe) = mtu.probe(now) {
            assert!(probe > mtu.size() && probe <= usize::from(mtu.most));
            mtu.sent(probe);
            assert_eq!(mtu.probe(now), None, "one at a time");
            if probe <= passes {
                mtu.arrived(now)
            } else {
                mtu.lost(now)
            }
            probes += 1;
            assert!(probes < 60, "it ends");
        }
        probes
    }

    #[test]
    fn every_path_is_found_out() {
        for v6 in [false, true] {
            let least = Mtu::new(v6, 1472).size();
            for passes in least..=1500 {
                let mut mtu = Mtu::new(v6, 1472);
                let probes = search(&mut mtu, Time::ZERO, passes);
                let best = passes.min(1472);
                assert!(
                    mtu.size() <= best && mtu.size() + usize::from(STEP) > best,
                    "{passes}: {}",
                    mtu.size()
                );
                assert!(probes <= 30, "{passes}: {probes}");
            }
            assert_eq!(
                search(&mut Mtu::new(v6, 1472), Time::ZERO, 1472),
                1,
                "the usual path costs one probe"
            );
        }
        // A most below the least is raised to it: nothing smaller makes sense.
        assert_eq!(Mtu::new(true, 10).size(), 1232);
        assert_eq!(search(&mut Mtu::new(true, 10), Time::ZERO, 9000), 0);
    }

    #[test]
    fn a_search_is_repeated_after_a_while() {
        let mut mtu = Mtu::new(false, 1472);
        search(&mut mtu, Time::ZERO, 1252);
        let soon = Time::ZERO + Duration::from_secs(599);
        assert_eq!(mtu.probe(soon), None);
        search(&mut mtu, Time::ZERO + AGAIN, 1472);
        assert_eq!(mtu.size(), 1472);
    }

    #[test]
    fn a_path_that_shrank_is_searched_from_below() {
        let mut mtu = Mtu::new(false, 1472);
        search(&mut mtu, Time::ZERO, 1472);
        mtu.swallowed(Time::ZERO);
        assert_eq!((mtu.size(), mtu.probe(Time::ZERO)), (548, None));
        assert_eq!(mtu.probe(Time::ZERO + REST), Some(1472), "it may have been chance");
        search(&mut mtu, Time::ZERO + REST, 1252);
        assert!((1237..=1252).contains(&mtu.size()));
    }

    #[test]
    fn what_the_system_refuses_is_not_tried() {
        let mut mtu = Mtu::new(false, 1472);
        mtu.sent(1472);
        mtu.too_big(Time::ZERO, 1472);
        let probes = search(&mut mtu, Time::ZERO, 1400);
        assert!(probes > 0 && mtu.size() > 1384);
        mtu.too_big(Time::ZERO, 1300);
        assert_eq!(mtu.size(), 1299);
        for bytes in [0, 548] {
            mtu.too_big(Time::ZERO, bytes);
            assert_eq!(mtu.size(), 548, "never below the least");
        }
    }
}
