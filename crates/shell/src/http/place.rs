//! Which addresses a URL may lead to.
//!
//! Owns the judgement of addresses, for UDP trackers too ([`crate::dns`] looks their names up), and the resolver that
//! enforces it for HTTP. A torrent's author chooses its tracker URLs, so
//! without this he could have every downloader send requests of his choosing to its own router, or to programs that
//! listen on its loopback. The resolver decides on the very addresses that are connected to, so a name server that
//! answers differently the second time gains nothing.

use super::get::Trust;
use crate::net::{Dialer, Traffic};
use piecemeal_discovery::filter::Gate;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// Addresses a request may go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    /// IPv4 addresses.
    pub v4: bool,
    /// IPv6 addresses.
    pub v6: bool,
    /// Addresses of this machine and of the networks around it.
    pub local: bool,
}

/// Why no address is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum Nowhere {
    /// The name has no address of the family wanted.
    #[error("no address of that family")]
    NoAddress,
    /// It has, but only in networks that are out of bounds.
    #[error("the address is a local one")]
    Local,
    /// It has, but nobody there may be talked to.
    #[error("the IP filter blocks its address")]
    Blocked,
}

impl Reach {
    /// Which of `found` may be connected to.
    pub fn among(self, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Nowhere> {
        let mut kept: Vec<IpAddr> =
            found.into_iter().filter(|ip| if ip.is_ipv4() { self.v4 } else { self.v6 }).collect();
        if kept.is_empty() {
            return Err(Nowhere::NoAddress);
        }
        kept.retain(|ip| self.local || !is_local(*ip));
        if kept.is_empty() { Err(Nowhere::Local) } else { Ok(kept) }
    }

    /// The same judgement for a URL that names an address instead of a host; `Ok` for those that name a host.
    pub fn check(self, url: &Url, gate: &Gate) -> Result<(), Nowhere> {
        literal(url).map_or(Ok(()), |ip| let_in(gate, self.among(vec![ip])?).map(drop))
    }
}

/// Which of these addresses may be talked to at all.
pub(crate) fn let_in(gate: &Gate, mut found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Nowhere> {
    found.retain(|ip| !gate.blocks(*ip));
    if found.is_empty() { Err(Nowhere::Blocked) } else { Ok(found) }
}

/// Looks names up for the HTTP client, as the policy says, and gives those addresses alone that may be gone to.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) dialer: Dialer,
    pub(super) traffic: Traffic,
    pub(super) reach: Reach,
    /// Who asks may go where they like: see [`Trust`].
    pub(super) trust: Trust,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let Names { dialer, traffic, reach, trust } = self.clone();
        Box::pin(async move {
            let gate = gate_of(&dialer, trust);
            let look_up = move || dialer.resolve(traffic, name.as_str());
            // No address at all is an error of the system's resolver, which can not tell it from other troubles.
            let found = tokio::task::spawn_blocking(look_up).await??;
            let kept = let_in(&gate, reach.among(found)?)?;
            // Port 0 stands for the URL's.
            Ok(Box::new(kept.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Who may not be talked to on somebody's word.
pub(super) fn gate_of(dialer: &Dialer, trust: Trust) -> Gate {
    if trust == Trust::User { Gate::default() } else { dialer.gate() }
}

/// Whether a tracker may live at this URL on a local address: the last part of its path begins with `announce` or
/// `scrape`, as that of real trackers does and that of other programs' doors hardly.
pub(crate) fn looks_like_tracker(url: &Url) -> bool {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    last.starts_with("announce") || last.starts_with("scrape")
}

/// Whether the URL itself says that it leads to a local address.
pub(super) fn says_local(url: &Url) -> bool {
    url.host_str() == Some("localhost") || literal(url).is_some_and(is_local)
}

/// Loopback, private and link-local networks, and all else that no host on the internet has as its address.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_local_v4(ip),
        IpAddr::V6(ip) => is_local_v6(ip),
    }
}

fn is_local_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    // 0.0.0.0/8 reaches this host on some systems; 100.64.0.0/10 is shared address space (RFC 6598).
    let odd = a == 0 || (a == 100 && b & 0xc0 == 64);
    odd || ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_multicast() || a >= 240
}

fn is_local_v6(ip: Ipv6Addr) -> bool {
    let [a, b, .., c, d] = ip.segments();
    let embedded = || Ipv4Addr::from(u32::from(c) << 16 | u32::from(d));
    // NAT64 (RFC 6052) and the deprecated ::a.b.c.d stand for IPv4 addresses.
    let translated = (a == 0x64 && b == 0xff9b) || ip.to_bits() >> 32 == 0;
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.is_multicast()
        || (translated && is_local_v4(embedded()))
}

/// Whether it names a host, not an address.
pub(super) fn names_a_host(url: &Url) -> bool {
    literal(url).is_none()
}

fn literal(url: &Url) -> Option<IpAddr> {
    // A bracketed host is IPv6; the parser has normalised all ways to write an IPv4 address.
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_discovery::filter::IpFilter;

    #[test]
    fn local_addresses() {
        let local = [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "::127.0.0.1",
        ];
        for ip in local {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
        {
            assert!(!is_local(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn literals_are_judged_however_written() {
        let (reach, open) = (Reach { v4: true, v6: true, local: false }, Gate::default());
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            assert_eq!(reach.check(&url.parse().unwrap(), &open), Err(Nowhere::Local), "{url}");
        }
        assert_eq!(reach.check(&"http://8.8.8.8/".parse().unwrap(), &open), Ok(()));
        let v6 = Reach { v4: false, v6: true, local: true };
        assert_eq!(v6.check(&"http://8.8.8.8/".parse().unwrap(), &open), Err(Nowhere::NoAddress));
        let lists = ["8.8.8.0/24".parse().unwrap()].into_iter().collect::<IpFilter>().into();
        let shut = Gate { lists, ..Gate::default() };
        for (url, expected) in [
            ("http://8.8.8.8/", Err(Nowhere::Blocked)),
            ("http://[::ffff:808:808]/", Err(Nowhere::Blocked)),
            ("http://8.8.9.8/", Ok(())),
        ] {
            assert_eq!(reach.check(&url.parse().unwrap(), &shut), expected, "{url}");
        }
    }

    #[test]
    fn local_trackers_look_like_trackers() {
        for (path, expected) in [
            ("announce", true),
            ("key/announce.php", true),
            ("scrape?x", true),
            ("unusual-announce-path", false),
            ("", false),
        ] {
            assert_eq!(looks_like_tracker(&format!("http://h/{path}").parse().unwrap()), expected, "{path}");
        }
    }
}
