//! Addresses as SOCKS5 writes them: type, address or counted name, port (RFC 1928, 5).

use std::net::{IpAddr, SocketAddr};

use piecemeal_wire::text::one_line;

use super::{Fault, MAX_TEXT_BYTES, Target};

const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;
/// Bytes of the longest: type, count, name, port.
pub(super) const MAX_ADDRESS_BYTES: usize = 1 + 1 + MAX_TEXT_BYTES + 2;
/// Of a name that is none, so much is shown.
const SHOWN_BYTES: usize = 80;

/// What stands in the bytes. A name is unjudged and may be empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read<'a> {
    Addr(SocketAddr),
    Name(&'a [u8], u16),
}

impl Read<'_> {
    /// As somebody to speak to.
    pub(super) fn target(self) -> Result<Target, Fault> {
        let target = match self {
            Read::Addr(addr) => Target::from(addr),
            Read::Name(host, port) => {
                let unnamed = || Fault::Name(one_line(host, SHOWN_BYTES));
                let host = str::from_utf8(host).map_err(|_| unnamed())?;
                Target::Name { host: host.to_owned(), port }
            }
        };
        check(&target)?;
        Ok(target)
    }
}

/// The target as it is written: names and ports that can not be are refused.
pub(super) fn check(target: &Target) -> Result<(), Fault> {
    if let Target::Name { host, .. } = target {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || host.len() > MAX_TEXT_BYTES || !host.bytes().all(fits) {
            return Err(Fault::Name(one_line(host.as_bytes(), SHOWN_BYTES)));
        }
    }
    if target.port() == 0 { Err(Fault::NoPort) } else { Ok(()) }
}

/// Bytes that [`write()`] appends for a target that passed [`check`].
pub(super) fn encoded_len(target: &Target) -> usize {
    match target {
        Target::Addr(addr) if addr.ip().to_canonical().is_ipv4() => 1 + 4 + 2,
        Target::Addr(_) => 1 + 16 + 2,
        Target::Name { host, .. } => 1 + 1 + host.len() + 2,
    }
}

/// Appends a target that passed [`check`].
pub(super) fn write(target: &Target, out: &mut Vec<u8>) {
    match target {
        Target::Addr(addr) => match addr.ip().to_canonical() {
            IpAddr::V4(ip) => {
                out.push(V4);
                out.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(V6);
                out.extend(ip.octets());
            }
        },
        Target::Name { host, .. } => {
            out.extend([NAME, host.len() as u8]);
            out.extend(host.as_bytes());
        }
    }
    out.extend(target.port().to_be_bytes());
}

/// An address at the start of `bytes` and its length; `None` if it goes on beyond them.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Read<'_>, usize)>, Fault> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    let read = match *kind {
        V4 => rest.split_first_chunk().and_then(|(ip, rest)| addr(IpAddr::from(*ip as [u8; 4]), rest)),
        V6 => rest.split_first_chunk().and_then(|(ip, rest)| addr(IpAddr::from(*ip as [u8; 16]), rest)),
        NAME => name(rest),
        other => return Err(Fault::AddressType(other)),
    };
    Ok(read.map(|(read, left)| (read, bytes.len() - left)))
}

fn addr(ip: IpAddr, rest: &[u8]) -> Option<(Read<'_>, usize)> {
    let (port, rest) = rest.split_first_chunk()?;
    Some((Read::Addr(SocketAddr::new(ip, u16::from_be_bytes(*port))), rest.len()))
}

fn name(bytes: &[u8]) -> Option<(Read<'_>, usize)> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    let (port, rest) = rest.split_first_chunk()?;
    Some((Read::Name(name, u16::from_be_bytes(*port)), rest.len()))
}
