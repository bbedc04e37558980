//! The IP filter: which addresses may not be talked to.
//!
//! Owns the ranges, their text forms (P2P, DAT, CIDR) and what is banned by hand. Where lists lie or are fetched from,
//! unpacking them, and asking the filter before each dial, accept and datagram are for others.
//!
//! A [`Builder`] is fed with the bytes of lists as they come and makes an [`IpFilter`], which never changes. A range of
//! IPv4 takes a little more than 8 bytes, one of IPv6 than 32. With what is banned ([`Bans`]) it is a [`Gate`].

mod bans;
mod build;
mod gate;
mod heap;
mod line;
mod range;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use bans::{Bans, MAX_BANS, TooManyBans};
pub use build::{Builder, Fault, MAX_LINE_BYTES, MAX_RANGES_V4, MAX_RANGES_V6, Report};
pub use gate::Gate;
use heap::Sorted;
use range::Span;
pub use range::{IpRange, NoRange};

/// Addresses that are blocked. Empty by default.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct IpFilter {
    v4: Sorted<u32>,
    v6: Sorted<u128>,
}

impl IpFilter {
    /// Whether nobody at `ip` may be talked to. An IPv4 address in IPv6 clothes (`::ffff:1.2.3.4`) is judged as what it
    /// is. Takes as many steps as the number of ranges has binary digits.
    pub fn blocks(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.has(ip.to_bits()),
            IpAddr::V6(ip) => self.v6.has(ip.to_bits()),
        }
    }

    /// How many ranges there are, of both families.
    pub fn len(&self) -> usize {
        self.v4.ranges().len() + self.v6.ranges().len()
    }

    /// Whether it blocks nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of heap it holds.
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }

    /// Its ranges, IPv4 first, each family in order.
    pub fn ranges(&self) -> impl Iterator<Item = IpRange> + '_ {
        let v4 = self.v4.ranges().iter().map(|(first, last)| IpRange(Span::V4(*first, *last)));
        v4.chain(self.v6.ranges().iter().map(|(first, last)| IpRange(Span::V6(*first, *last))))
    }
}

/// Of ranges in any order, which may overlap. Their number is the caller's to bound.
impl FromIterator<IpRange> for IpFilter {
    fn from_iter<I: IntoIterator<Item = IpRange>>(ranges: I) -> IpFilter {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range.0 {
                Span::V4(first, last) => v4.push((first, last)),
                Span::V6(first, last) => v6.push((first, last)),
            }
        }
        IpFilter { v4: Sorted::new(v4), v6: Sorted::new(v6) }
    }
}

/// Without the ranges: there may be a million.
impl fmt::Debug for IpFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpFilter")
            .field("v4", &self.v4.ranges().len())
            .field("v6", &self.v6.ranges().len())
            .finish()
    }
}
