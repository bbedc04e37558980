//! From the ways a user names to the policy that all sockets obey.
//!
//! Owns the judgement of what makes no sense. An interface that is not there is none of that: it may come.

use std::net::{IpAddr, SocketAddr};

use piecemeal_api::{Carried, IpFamily, NetOptions, Proxy, ProxyKind, Refusal};
use piecemeal_shell::net::{self, LOW_EFFORT, Policy, ProxyPolicy};

/// Letters of the longest name that Linux gives an interface; other systems are content with fewer.
const MOST_LETTERS: usize = 15;
/// The code point has six bits (RFC 2474).
const MOST_DSCP: u8 = 63;

/// The policy of these options.
///
/// # Errors
/// Which of them makes no sense, and what would.
pub(crate) fn policy(options: &NetOptions) -> Result<Policy, Refusal> {
    if let Some(name) = &options.interface
        && (name.is_empty() || name.len() > MOST_LETTERS || name.contains(['/', ' ', '\0']))
    {
        let there = net::interface_names().join(", ");
        return Err(Refusal::invalid(
            "interface",
            format!("`{name}` is no name of one"),
            format!("there are: {there}"),
        ));
    }
    let mut bind: [Option<IpAddr>; 2] = [None; 2];
    for ip in &options.bind {
        let place = &mut bind[usize::from(ip.is_ipv6())];
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(Refusal::invalid(
                "bind",
                format!("{ip} is no address of this machine"),
                "name one that is",
            ));
        }
        if place.replace(*ip).is_some() {
            return Err(Refusal::invalid(
                "bind",
                "two addresses of one family",
                "name one IPv4 and one IPv6 address at most",
            ));
        }
    }
    let dscp = options.dscp.unwrap_or(LOW_EFFORT);
    if dscp > MOST_DSCP {
        return Err(Refusal::invalid(
            "dscp",
            format!("{dscp} is too large"),
            "name a number from 0 to 63; 1 is lower effort",
        ));
    }
    let policy = Policy {
        interface: options.interface.clone(),
        bind,
        ipv4: options.only != Some(IpFamily::V6),
        ipv6: options.only != Some(IpFamily::V4),
        dscp,
        proxy: options.proxy.as_ref().map(proxy).transpose()?,
        name_server: options.name_server,
    };
    if !policy.speaks(true) && !policy.speaks(false) {
        let remedy = "bind an address of the family that is to be spoken";
        return Err(Refusal::invalid("bind", "neither IPv4 nor IPv6 is left", remedy));
    }
    Ok(policy)
}

/// Whether all these addresses may be listened on.
///
/// # Errors
/// One is of a family that is off.
pub(crate) fn may_listen(policy: &Policy, listen: &[SocketAddr]) -> Result<(), Refusal> {
    let Some(addr) = listen.iter().find(|addr| !policy.speaks(addr.is_ipv4())) else { return Ok(()) };
    let family = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
    Err(Refusal::invalid(
        "listen",
        format!("{addr}: {family} is off"),
        "leave it out, or bind an address of that family",
    ))
}

fn proxy(proxy: &Proxy) -> Result<ProxyPolicy, Refusal> {
    let remedy = "write it like socks5://name:password@host:1080";
    if proxy.host.is_empty() || proxy.port == 0 {
        return Err(Refusal::invalid("proxy", "it has no host or no port", remedy));
    }
    // RFC 1929: each has 1 to 255 bytes. HTTP (RFC 7617) is content without a password, and ends a name at a colon.
    let socks = proxy.kind == ProxyKind::Socks5;
    let fits = |(name, password): &(String, String)| {
        let least = usize::from(socks);
        (1..=255).contains(&name.len())
            && (least..=255).contains(&password.len())
            && (socks || !name.contains(':'))
    };
    if !proxy.credentials.as_ref().is_none_or(fits) {
        return Err(Refusal::invalid(
            "proxy",
            "its name or password is empty, too long or has a colon",
            remedy,
        ));
    }
    let for_it = |what| proxy.carries.is_empty() || proxy.carries.contains(&what);
    Ok(ProxyPolicy {
        kind: match proxy.kind {
            ProxyKind::Socks5 => net::ProxyKind::Socks5,
            ProxyKind::Http => net::ProxyKind::Http,
        },
        host: proxy.host.clone(),
        port: proxy.port,
        credentials: proxy.credentials.clone(),
        carries: net::Carries {
            peers: for_it(Carried::Peers),
            trackers: for_it(Carried::Trackers),
            web: for_it(Carried::Web),
            dht: for_it(Carried::Dht),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told_in_a_line() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let bound = |ips: &[&str]| NetOptions {
            bind: ips.iter().map(|text| ip(text)).collect(),
            ..NetOptions::default()
        };
        let rows = [
            (NetOptions { interface: Some("".into()), ..NetOptions::default() }, "interface: "),
            (
                NetOptions { interface: Some("a-name-too-long-for-one".into()), ..NetOptions::default() },
                "interface: ",
            ),
            (NetOptions { dscp: Some(64), ..NetOptions::default() }, "dscp: 64 is too large; "),
            (bound(&["10.0.0.1", "10.0.0.2"]), "bind: two addresses"),
            (bound(&["0.0.0.0"]), "bind: 0.0.0.0 is no address"),
            (NetOptions { only: Some(IpFamily::V6), ..bound(&["10.0.0.1"]) }, "bind: neither"),
            (
                NetOptions {
                    proxy: Some(Proxy { port: 0, ..Proxy::parse("http://h").unwrap() }),
                    ..bound(&[])
                },
                "proxy: ",
            ),
        ];
        for (options, begins) in rows {
            let line = policy(&options).unwrap_err().to_string();
            assert!(line.starts_with(begins) && !line.contains('\n') && line.contains("; "), "{line}");
        }
        let both = policy(&bound(&["10.0.0.1", "2001:db8::1"])).unwrap();
        assert_eq!(both.bind, [Some(ip("10.0.0.1")), Some(ip("2001:db8::1"))]);
        assert_eq!((both.dscp, policy(&NetOptions::default()).unwrap()), (LOW_EFFORT, Policy::default()));
    }

    #[test]
    fn a_family_that_is_off_is_not_listened_on() {
        let four = NetOptions { only: Some(IpFamily::V4), ..NetOptions::default() };
        let policy = policy(&four).unwrap();
        assert!(may_listen(&policy, &["0.0.0.0:1".parse().unwrap()]).is_ok());
        let line = may_listen(&policy, &["[::]:1".parse().unwrap()]).unwrap_err().to_string();
        assert!(line.starts_with("listen: [::]:1: IPv6 is off; "), "{line}");
    }

    #[test]
    fn a_proxy_is_for_what_it_is_named_for() {
        let with = |carries: &[Carried]| {
            let proxy = Proxy { carries: carries.to_vec(), ..Proxy::parse("socks5://h:1").unwrap() };
            policy(&NetOptions { proxy: Some(proxy), ..NetOptions::default() })
                .unwrap()
                .proxy
                .unwrap()
                .carries
        };
        assert_eq!(with(&[]), net::Carries::ALL);
        let web = with(&[Carried::Web, Carried::Trackers]);
        assert_eq!(web, net::Carries { peers: false, trackers: true, web: true, dht: false });
    }
}
