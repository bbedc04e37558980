//! One range of addresses: `1.2.3.4`, `1.2.3.0/24`, `1.2.3.4-1.2.3.8`, and the same of IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Bytes of the longest address as text: an IPv6 one that ends as an IPv4 one.
const MAX_ADDRESS_BYTES: usize = 45;

/// Addresses of one family, from a first to a last. A range of IPv4 addresses in IPv6 clothes is one of IPv4; a wider
/// one of IPv6, as `::/0`, has no IPv4 in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange(pub(super) Span);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Span {
    V4(u32, u32),
    V6(u128, u128),
}

/// The text is no range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no address, no network (1.2.3.0/24) and no range (1.2.3.4-1.2.3.8)")]
pub struct NoRange;

impl IpRange {
    /// From `first` to `last`, both included. `None`: they are of two families, or the other way round.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<IpRange> {
        let span = match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Span::V4(first.to_bits(), last.to_bits()),
            _ => match (first, last) {
                (IpAddr::V6(first), IpAddr::V6(last)) => Span::V6(first.to_bits(), last.to_bits()),
                _ => return None,
            },
        };
        let in_order = match span {
            Span::V4(first, last) => first <= last,
            Span::V6(first, last) => first <= last,
        };
        in_order.then_some(IpRange(span))
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        match self.0 {
            Span::V4(first, _) => Ipv4Addr::from_bits(first).into(),
            Span::V6(first, _) => Ipv6Addr::from_bits(first).into(),
        }
    }

    /// Its last address.
    pub fn last(&self) -> IpAddr {
        match self.0 {
            Span::V4(_, last) => Ipv4Addr::from_bits(last).into(),
            Span::V6(_, last) => Ipv6Addr::from_bits(last).into(),
        }
    }

    /// Reads any of the forms; spaces may stand around each part.
    pub(super) fn read(text: &[u8]) -> Option<IpRange> {
        if let Some(dash) = text.iter().rposition(|byte| *byte == b'-') {
            return IpRange::new(address(&text[..dash])?, address(&text[dash + 1..])?);
        }
        match text.iter().position(|byte| *byte == b'/') {
            Some(slash) => network(address(&text[..slash])?, &text[slash + 1..]),
            None => address(text).and_then(|ip| IpRange::new(ip, ip)),
        }
    }

    /// How many leading bits make the network that it is, if it is one.
    fn prefix(&self) -> Option<u32> {
        let (prefix, again) = match self.0 {
            Span::V4(first, last) => {
                let prefix = (first ^ last).leading_zeros();
                (prefix, prefixed(first.into(), prefix, 32) == (first.into(), last.into()))
            }
            Span::V6(first, last) => {
                let prefix = (first ^ last).leading_zeros();
                (prefix, prefixed(first, prefix, 128) == (first, last))
            }
        };
        again.then_some(prefix)
    }
}

impl From<IpAddr> for IpRange {
    fn from(ip: IpAddr) -> IpRange {
        IpRange(match ip.to_canonical() {
            IpAddr::V4(ip) => Span::V4(ip.to_bits(), ip.to_bits()),
            IpAddr::V6(ip) => Span::V6(ip.to_bits(), ip.to_bits()),
        })
    }
}

impl FromStr for IpRange {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<IpRange, NoRange> {
        IpRange::read(text.as_bytes()).ok_or(NoRange)
    }
}

/// In the shortest of the forms.
impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first(), self.last());
        match self.prefix() {
            _ if first == last => write!(f, "{first}"),
            Some(prefix) => write!(f, "{first}/{prefix}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Debug for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpRange({self})")
    }
}

/// An address of either family, with spaces around it.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = text.trim_ascii();
    if let Some(ip) = v4(text) {
        return Some(ip.into());
    }
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_ADDRESS_BYTES)?;
    text.parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// Four numbers of one to three digits; leading zeros do not make them octal, as lists are full of them.
fn v4(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut octets, mut parts) = ([0; 4], text.split(|byte| *byte == b'.'));
    for octet in &mut octets {
        let part = parts.next().filter(|part| (1..=3).contains(&part.len()))?;
        *octet = u8::try_from(number(part)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn network(ip: IpAddr, prefix: &[u8]) -> Option<IpRange> {
    let prefix = number(prefix.trim_ascii())?;
    match ip {
        IpAddr::V4(ip) if prefix <= 32 => {
            let (first, last) = prefixed(ip.to_bits().into(), prefix, 32);
            Some(IpRange(Span::V4(first as u32, last as u32)))
        }
        IpAddr::V6(ip) if prefix <= 128 => {
            let (first, last) = prefixed(ip.to_bits(), prefix, 128);
            IpRange::new(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
        }
        _ => None,
    }
}

/// First and last address, of so many bits, that share the first `prefix` of them with `ip`.
fn prefixed(ip: u128, prefix: u32, bits: u32) -> (u128, u128) {
    let host = (bits - prefix).checked_sub(1).map_or(0, |top| u128::MAX >> (127 - top));
    (ip & !host, ip | host)
}

/// Decimal digits and nothing else; what is too large is the largest.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let add = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    digits.then(|| text.iter().fold(0, add))
}
