//! One line of a list.
//!
//! Owns which of the forms it has; each line is looked at for itself, so lists may be mixed.
//!
//! - P2P, of PeerGuardian: `name:1.2.3.4-1.2.3.8`. A name may have anything in it, colons and dashes too.
//! - DAT, of eMule: `001.002.003.004 - 001.002.003.255 , 100 , name`. From access level 128 on the range is allowed.
//! - CIDR: `1.2.3.0/24`, and single addresses.
//!
//! Comments are lines that begin with `#`, `;` or `//`, and what follows those behind a range.

use std::net::IpAddr;

use super::range::{IpRange, address, number};

/// The first access level of a DAT list that lets pass.
const ALLOWED_FROM: u32 = 128;
/// Bytes in which the first address of a P2P range of IPv6 must stand, spaces counted in.
const ADDRESS_WINDOW: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// Empty, or a comment.
    Nothing,
    /// Named, and not to be blocked.
    Allowed,
    Blocked(IpRange),
    /// None of the forms.
    Bad,
}

pub(super) fn read(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") || line.starts_with(b"//") {
        return Line::Nothing;
    }
    let mut windows = line.iter().zip(line.iter().skip(1).chain([&b' ']));
    let end = windows.position(|(byte, next)| b",;#".contains(byte) || (*byte, *next) == (b'/', b'/'));
    let (range, rest) = line.split_at(end.unwrap_or(line.len()));
    match IpRange::read(range) {
        Some(_) if rest.first() == Some(&b',') && is_allowed(&rest[1..]) => Line::Allowed,
        Some(range) => Line::Blocked(range),
        None => named(line).map_or(Line::Bad, Line::Blocked),
    }
}

/// What follows the range of a DAT line. What is no level allows nothing.
fn is_allowed(rest: &[u8]) -> bool {
    let level = rest.split(|byte| *byte == b',').next().unwrap_or_default();
    number(level.trim_ascii()).is_some_and(|level| level >= ALLOWED_FROM)
}

/// A P2P line. With IPv6 it is not said at which colon the name ends, so of what it may mean the narrowest is taken:
/// an address that lost its beginning, or has a part of the name before it, is far away from the last one as a rule.
fn named(line: &[u8]) -> Option<IpRange> {
    let dash = line.iter().rposition(|byte| *byte == b'-')?;
    let (head, last) = (&line[..dash], address(&line[dash + 1..])?);
    let near = match last {
        IpAddr::V4(_) => head.iter().rposition(|byte| *byte == b':')?,
        IpAddr::V6(_) => head.len().saturating_sub(ADDRESS_WINDOW),
    };
    let colons = (near..head.len()).filter(|at| head[*at] == b':');
    colons.filter_map(|at| IpRange::new(address(&head[at + 1..])?, last)).max_by_key(IpRange::first)
}
