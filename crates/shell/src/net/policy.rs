//! What may leave this machine, and by which way.
//!
//! Owns one answer for each kind of traffic: straight, by the proxy, or not at all. What a proxy is meant to carry and
//! cannot is off, never straight: whoever sets one wants not to be seen. Opens nothing itself; [`super::Dialer`] does.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use piecemeal_transport::proxy;

/// DSCP "lower effort" (RFC 8622): where a network looks at it at all, everybody else goes first.
pub const LOW_EFFORT: u8 = 1;

/// How a program speaks to the network. The default speaks by all interfaces, with low effort.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The one interface that is used. While it is away there is no traffic.
    pub interface: Option<String>,
    /// The address that all traffic comes from, by family: IPv4, IPv6. If one is set, a family without is off.
    pub bind: [Option<IpAddr>; 2],
    /// Speak IPv4.
    pub ipv4: bool,
    /// Speak IPv6.
    pub ipv6: bool,
    /// Differentiated services code point of what peers are sent, 0 to 63; 0 is that of all other programs.
    pub dscp: u8,
    /// Somebody who speaks for us.
    pub proxy: Option<ProxyPolicy>,
    /// Who is asked for names where the system's own look-up would go by any interface; `None`: the servers that the
    /// system names.
    pub name_server: Option<SocketAddr>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { dscp: LOW_EFFORT, ..Policy::plain() }
    }
}

/// A proxy, and what it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyPolicy {
    /// Its language.
    pub kind: ProxyKind,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name and password, if it wants them; each of 1 to 255 bytes.
    pub credentials: Option<(String, String)>,
    /// What goes by it. All else goes as if there were none.
    pub carries: Carries,
}

impl ProxyPolicy {
    /// What is spoken to it, and who we are to it.
    pub(crate) fn language(&self) -> proxy::Proxy {
        let auth = self.credentials.clone().map(|(user, password)| proxy::Credentials { user, password });
        match self.kind {
            ProxyKind::Socks5 => proxy::Proxy::Socks5 { auth },
            ProxyKind::Http => proxy::Proxy::HttpConnect { auth },
        }
    }
}

/// The language of a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyKind {
    /// SOCKS5 (RFC 1928): connections and datagrams.
    Socks5,
    /// HTTP CONNECT: connections alone.
    Http,
}

/// What a proxy is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Carries {
    /// Peers. They cannot call us then, and the local network is left alone.
    pub peers: bool,
    /// Trackers.
    pub trackers: bool,
    /// Web seeds and .torrent files.
    pub web: bool,
    /// The distributed hash table.
    pub dht: bool,
}

impl Carries {
    /// Everything.
    pub const ALL: Carries = Carries { peers: true, trackers: true, web: true, dht: true };
}

/// A kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Traffic {
    /// Connections to peers by TCP.
    PeersTcp,
    /// Connections to peers by uTP (BEP 29).
    PeersUtp,
    /// Peers that call us, by TCP or uTP.
    Incoming,
    /// Trackers by HTTP.
    HttpTrackers,
    /// Trackers by UDP (BEP 15).
    UdpTrackers,
    /// Web seeds and .torrent files by HTTP.
    Web,
    /// The distributed hash table (BEP 5).
    Dht,
    /// Local discovery (BEP 14).
    Lsd,
    /// Asking the router for a port.
    Mapping,
}

impl Traffic {
    /// Every kind.
    pub const ALL: [Traffic; 9] = [
        Traffic::PeersTcp,
        Traffic::PeersUtp,
        Traffic::Incoming,
        Traffic::HttpTrackers,
        Traffic::UdpTrackers,
        Traffic::Web,
        Traffic::Dht,
        Traffic::Lsd,
        Traffic::Mapping,
    ];

    /// In words, for a person.
    pub fn words(self) -> &'static str {
        match self {
            Traffic::PeersTcp => "peers by TCP",
            Traffic::PeersUtp => "peers by uTP",
            Traffic::Incoming => "peers that call us",
            Traffic::HttpTrackers => "trackers by HTTP",
            Traffic::UdpTrackers => "trackers by UDP",
            Traffic::Web => "web seeds and .torrent files",
            Traffic::Dht => "distributed hash table",
            Traffic::Lsd => "local discovery",
            Traffic::Mapping => "port mapping",
        }
    }
}

/// The way of one kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By a socket of our own, bound as the policy says.
    Direct,
    /// By the proxy.
    Proxy,
    /// None, and why.
    Off(&'static str),
}

impl Way {
    /// Whether a socket of our own may be opened for it.
    pub fn is_direct(self) -> bool {
        self == Way::Direct
    }
}

impl Policy {
    /// For servers that others call: no interface, no proxy, and nobody goes first.
    pub const fn plain() -> Policy {
        Policy {
            interface: None,
            bind: [None; 2],
            ipv4: true,
            ipv6: true,
            dscp: 0,
            proxy: None,
            name_server: None,
        }
    }

    /// Which way a kind of traffic takes.
    pub fn way(&self, traffic: Traffic) -> Way {
        let tied = self.interface.is_some() || self.bind != [None; 2];
        if traffic == Traffic::Mapping && tied {
            // Libraries speak to the router, by sockets of theirs.
            return Way::Off("the router is not asked by a named interface or address yet");
        }
        if traffic == Traffic::Mapping && !self.ipv4 {
            return Way::Off("IPv4 is off");
        }
        let Some(proxy) = &self.proxy else { return Way::Direct };
        let Carries { peers, trackers, web, dht } = proxy.carries;
        let carried = match traffic {
            Traffic::PeersTcp | Traffic::PeersUtp => peers,
            Traffic::Incoming | Traffic::Lsd | Traffic::Mapping => peers,
            Traffic::HttpTrackers | Traffic::UdpTrackers => trackers,
            Traffic::Web => web,
            Traffic::Dht => dht,
        };
        if !carried {
            return Way::Direct;
        }
        match (traffic, proxy.kind) {
            (Traffic::PeersTcp | Traffic::HttpTrackers | Traffic::Web, _) => Way::Proxy,
            (Traffic::PeersUtp | Traffic::UdpTrackers | Traffic::Dht, ProxyKind::Socks5) => Way::Proxy,
            (Traffic::PeersUtp | Traffic::UdpTrackers | Traffic::Dht, ProxyKind::Http) => {
                Way::Off("an HTTP proxy carries no UDP")
            }
            (Traffic::Incoming, _) => Way::Off("nobody can call us through the proxy"),
            (Traffic::Lsd, _) => Way::Off("it would show us to the local network"),
            (Traffic::Mapping, _) => Way::Off("nobody can call us through the proxy"),
        }
    }

    /// Whether a family may be spoken at all.
    pub fn speaks(&self, ipv4: bool) -> bool {
        let wanted = if ipv4 { self.ipv4 } else { self.ipv6 };
        wanted && (self.bind == [None; 2] || self.bind_of(ipv4).is_some())
    }

    /// The address that traffic of a family comes from, if one was named.
    pub fn bind_of(&self, ipv4: bool) -> Option<IpAddr> {
        self.bind[usize::from(!ipv4)]
    }

    /// Whether names are looked up by sockets of our own: the system's look-up goes by any interface.
    pub fn asks_names_itself(&self) -> bool {
        let bound = self.bind.iter().flatten().any(|ip| !ip.is_loopback());
        self.interface.is_some() || self.name_server.is_some() || bound
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Direct => f.write_str("direct"),
            Way::Proxy => f.write_str("proxy"),
            Way::Off(why) => write!(f, "off: {why}"),
        }
    }
}

impl fmt::Debug for ProxyPolicy {
    /// Without the password: settings end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProxyPolicy { kind, host, port, credentials, carries } = self;
        let name = credentials.as_ref().map(|(name, _)| name);
        write!(f, "ProxyPolicy({kind:?} {host}:{port}, as {name:?}, for {carries:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::Traffic::*;
    use super::*;

    fn by(kind: ProxyKind, carries: Carries) -> Policy {
        let proxy = ProxyPolicy { kind, host: "p".into(), port: 1080, credentials: None, carries };
        Policy { proxy: Some(proxy), ..Policy::default() }
    }

    /// One letter a kind, in the order of `Traffic::ALL`.
    fn ways(policy: &Policy) -> String {
        let letter = |traffic| match policy.way(traffic) {
            Way::Direct => 'd',
            Way::Proxy => 'p',
            Way::Off(_) => '-',
        };
        Traffic::ALL.into_iter().map(letter).collect()
    }

    #[test]
    fn each_kind_has_one_way() {
        let only = |word: &str| Carries {
            peers: word == "peers",
            trackers: word == "trackers",
            web: word == "web",
            dht: word == "dht",
        };
        //                              TCP uTP in  http udp web dht lsd map
        let rows = [
            (ProxyKind::Socks5, Carries::ALL, "pp-pppp--"),
            (ProxyKind::Http, Carries::ALL, "p--p-p---"),
            (ProxyKind::Socks5, only("peers"), "pp-dddd--"),
            (ProxyKind::Http, only("peers"), "p--dddd--"),
            (ProxyKind::Socks5, only("trackers"), "dddppdddd"),
            (ProxyKind::Http, only("trackers"), "dddp-dddd"),
            (ProxyKind::Socks5, only("web"), "dddddpddd"),
            (ProxyKind::Http, only("dht"), "dddddd-dd"),
            (ProxyKind::Socks5, only("dht"), "ddddddpdd"),
        ];
        for (kind, carries, expected) in rows {
            assert_eq!(ways(&by(kind, carries)), expected, "{kind:?} {carries:?}");
        }
        assert_eq!(ways(&Policy::default()), "ddddddddd");
        let bound = Policy { interface: Some("tun0".into()), ..Policy::default() };
        assert_eq!(ways(&bound), "dddddddd-");
        assert_eq!(
            ways(&Policy { bind: [Some("10.0.0.1".parse().unwrap()), None], ..Policy::default() }),
            "dddddddd-"
        );
        assert_eq!(ways(&Policy { ipv4: false, ..Policy::default() }), "dddddddd-");
    }

    #[test]
    fn what_a_proxy_is_for_is_never_direct() {
        for kind in [ProxyKind::Socks5, ProxyKind::Http] {
            let policy = by(kind, Carries::ALL);
            assert!(Traffic::ALL.into_iter().all(|traffic| !policy.way(traffic).is_direct()), "{kind:?}");
        }
    }

    #[test]
    fn a_family_without_an_address_is_off_where_the_other_has_one() {
        let four = Some("10.0.0.1".parse().unwrap());
        let rows = [
            (Policy::default(), [true, true]),
            (Policy { bind: [four, None], ..Policy::default() }, [true, false]),
            (Policy { bind: [None, Some("::1".parse().unwrap())], ..Policy::default() }, [false, true]),
            (Policy { ipv4: false, ..Policy::default() }, [false, true]),
            (Policy { bind: [four, None], ipv4: false, ..Policy::default() }, [false, false]),
        ];
        for (policy, expected) in rows {
            assert_eq!([policy.speaks(true), policy.speaks(false)], expected, "{policy:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let mut policy = by(ProxyKind::Socks5, Carries::ALL);
        policy.proxy.as_mut().unwrap().credentials = Some(("me".into(), "s3cret".into()));
        let shown = format!("{policy:?}");
        assert!(shown.contains("me") && !shown.contains("s3cret"), "{shown}");
        assert_eq!(HttpTrackers.words(), "trackers by HTTP");
    }
}
