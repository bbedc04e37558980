//! What is banned by hand or by name, beside the lists: few ranges, which come and go one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use super::{IpFilter, IpRange};

/// Ranges that can be banned. Each change costs a walk over all of them.
pub const MAX_BANS: usize = 65_536;

/// There are [`MAX_BANS`] bans.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("more than {MAX_BANS} bans; long lists belong into an IP filter")]
pub struct TooManyBans;

/// Ranges as they were banned, and the filter they make. Empty by default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bans {
    /// Bound: [`MAX_BANS`].
    given: BTreeSet<IpRange>,
    filter: IpFilter,
}

impl Bans {
    /// Bans a range; `false`: it was banned already, the same and not only as a part of another.
    ///
    /// # Errors
    /// If there are too many.
    pub fn ban(&mut self, range: IpRange) -> Result<bool, TooManyBans> {
        if self.given.len() >= MAX_BANS && !self.given.contains(&range) {
            return Err(TooManyBans);
        }
        let new = self.given.insert(range);
        if new {
            self.filter = self.given.iter().copied().collect();
        }
        Ok(new)
    }

    /// Lifts the ban of a range, which must be one that was given to [`Bans::ban`]; `false`: there was none. Its
    /// addresses may still be banned by another.
    pub fn lift(&mut self, range: IpRange) -> bool {
        let was = self.given.remove(&range);
        if was {
            self.filter = self.given.iter().copied().collect();
        }
        was
    }

    /// Whether nobody at `ip` may be talked to.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        self.filter.blocks(ip)
    }

    /// The ranges as they were banned, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = IpRange> + '_ {
        self.given.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bans_come_and_go() {
        let mut bans = Bans::default();
        let range = |text: &str| text.parse::<IpRange>().unwrap();
        assert_eq!(bans.ban(range("1.2.3.0/24")), Ok(true));
        assert_eq!(bans.ban(range("1.2.3.0-1.2.3.255")), Ok(false));
        assert_eq!(bans.ban(range("1.2.3.4")), Ok(true));
        assert_eq!(bans.ban(range("2001:db8::/64")), Ok(true));
        assert!(bans.blocks(ip("1.2.3.5")) && bans.blocks(ip("2001:db8::1")));
        assert!(bans.lift(range("1.2.3.0/24")) && !bans.lift(range("1.2.3.0/24")));
        assert!(bans.blocks(ip("1.2.3.4")) && !bans.blocks(ip("1.2.3.5")));
        assert_eq!(
            bans.iter().map(|range| range.to_string()).collect::<Vec<_>>(),
            ["1.2.3.4", "2001:db8::/64"]
        );
    }

    #[test]
    fn bans_are_bounded() {
        let ranges = (0..MAX_BANS as u32).map(|at| IpAddr::from(Ipv4Addr::from_bits(at * 2)).into());
        let given: BTreeSet<IpRange> = ranges.collect();
        let mut bans = Bans { filter: given.iter().copied().collect(), given };
        assert_eq!(bans.ban(ip("8.8.8.8").into()), Err(TooManyBans));
        assert_eq!(bans.ban(ip("0.0.0.0").into()), Ok(false));
        assert!(bans.lift(ip("0.0.0.0").into()) && bans.ban(ip("8.8.8.8").into()).unwrap());
    }
}
