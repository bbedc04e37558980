//! A look at what a policy comes to: whether sockets are what they should be, and what the proxy says.
//!
//! Owns the tries; what is made of them is the caller's. Nothing is sent but to the proxy.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use piecemeal_transport::proxy::{Credentials, Proxy, Step, Talk, Target};
use socket2::{Protocol, Socket, Type};

use super::dialer::Dialer;
use super::names;
use super::policy::{ProxyKind, Traffic};

/// Addresses of documentation (RFC 5737, RFC 3849), which are nobody's. A route to them is that to the internet.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// The port "discard"; nothing is sent there.
const DISCARD: u16 = 9;
/// Bytes read at once of what a proxy says.
const PROXY_BYTES: usize = 1024;

/// One look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// At what.
    pub what: String,
    /// It is as it should be.
    pub good: bool,
    /// What was found.
    pub found: String,
}

impl Look {
    fn new(what: impl Into<String>, good: bool, found: impl Into<String>) -> Look {
        Look { what: what.into(), good, found: found.into() }
    }
}

/// Looks whether sockets obey the policy: which interface they are tied to, which address they speak from, whether a family
/// that is off can be spoken, whether what goes another way can go straight. Sends nothing.
pub fn leaks(dialer: &Dialer) -> Vec<Look> {
    let mut looks: Vec<Look> = [true, false].into_iter().map(|ipv4| family(dialer, ipv4)).collect();
    looks.push(names_asked(dialer));
    looks.extend(shut(dialer));
    looks
}

/// The servers that are asked for names; empty where the system does it.
///
/// # Errors
/// There is none that may be asked.
pub fn name_servers(dialer: &Dialer) -> io::Result<Vec<SocketAddr>> {
    if dialer.policy().asks_names_itself() { names::servers(dialer) } else { Ok(Vec::new()) }
}

fn family(dialer: &Dialer, ipv4: bool) -> Look {
    let what = if ipv4 { "IPv4 sockets" } else { "IPv6 sockets" };
    let socket = match dialer.socket(ipv4, Type::DGRAM, Protocol::UDP) {
        Ok(socket) => socket,
        // Away, off, or a machine without the family: whatever it is, nothing can be sent.
        Err(why) => return Look::new(what, true, format!("none can be opened: {why}")),
    };
    match spoken_from(dialer, &socket, ipv4) {
        Ok(ip) => {
            let (bound, tied) = (allowed_source(dialer, ip), is_tied(dialer, &socket));
            let by = dialer.policy().interface.as_ref().map_or(String::new(), |name| match &tied {
                Ok(()) if dialer.ties_by_address() => format!(", bound to the address of {name} only"),
                Ok(()) => format!(", tied to {name}"),
                Err(why) => format!(", not tied to {name}: {why}"),
            });
            Look::new(what, bound && tied.is_ok(), format!("from {ip}{by}"))
        }
        Err(why) => {
            Look::new(what, is_tied(dialer, &socket).is_ok(), format!("no way to the internet: {why}"))
        }
    }
}

/// The address that the internet would be spoken to from.
fn spoken_from(dialer: &Dialer, socket: &Socket, ipv4: bool) -> io::Result<IpAddr> {
    if let Some(ip) = dialer.source(ipv4)? {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    socket.connect(&SocketAddr::new(ANYWHERE[usize::from(!ipv4)], DISCARD).into())?;
    let own = socket.local_addr()?.as_socket();
    own.map(|own| own.ip()).ok_or_else(|| io::Error::other("no address"))
}

/// Whether the policy lets anything come from an address.
fn allowed_source(dialer: &Dialer, ip: IpAddr) -> bool {
    if let Some(bound) = dialer.policy().bind_of(ip.is_ipv4()) {
        return ip == bound;
    }
    dialer.policy().interface.is_none() || dialer.interface().is_some_and(|seen| seen.addrs.contains(&ip))
}

/// Whether the system keeps a socket to the interface, where one is named and the system can.
fn is_tied(dialer: &Dialer, socket: &Socket) -> Result<(), String> {
    let Some(name) = dialer.policy().interface.as_deref().filter(|_| !dialer.ties_by_address()) else {
        return Ok(());
    };
    match device(socket) {
        Ok(Some(device)) if device == name.as_bytes() => Ok(()),
        Ok(Some(other)) => Err(format!("it is tied to {}", String::from_utf8_lossy(&other))),
        Ok(None) => Err("it is tied to none".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(target_os = "linux")]
fn device(socket: &Socket) -> io::Result<Option<Vec<u8>>> {
    socket.device()
}

#[cfg(not(target_os = "linux"))]
fn device(_: &Socket) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

fn names_asked(dialer: &Dialer) -> Look {
    let what = "names of hosts";
    if !dialer.policy().asks_names_itself() {
        // All of what needs names goes by the proxy: then nobody here is asked.
        let all =
            [Traffic::HttpTrackers, Traffic::UdpTrackers, Traffic::Web, Traffic::Dht, Traffic::PeersTcp];
        let none = all.into_iter().all(|traffic| !dialer.way(traffic).is_direct());
        let found = if none { "left to the proxy" } else { "looked up by the system" };
        return Look::new(what, true, found);
    }
    match names::servers(dialer) {
        Ok(servers) => {
            let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
            Look::new(what, true, format!("asked of {}, by the same way", servers.join(", ")))
        }
        Err(why) => Look::new(what, true, format!("not asked: {why}")),
    }
}

/// Whether what has another way or none is refused to go straight. `None`: all goes straight.
fn shut(dialer: &Dialer) -> Option<Look> {
    let others = || Traffic::ALL.into_iter().filter(|traffic| !dialer.way(*traffic).is_direct());
    let open: Vec<&str> = others().filter(|traffic| opens(dialer, *traffic)).map(Traffic::words).collect();
    let found = match others().count() {
        0 => return None,
        count if open.is_empty() => {
            format!("{count} of {} kinds, none of which can go straight", Traffic::ALL.len())
        }
        _ => format!("can go straight all the same: {}", open.join(", ")),
    };
    Some(Look::new("other ways", open.is_empty(), found))
}

/// Whether a socket can be had for a kind of traffic.
fn opens(dialer: &Dialer, traffic: Traffic) -> bool {
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DISCARD);
    match traffic {
        Traffic::PeersTcp | Traffic::HttpTrackers | Traffic::Web => dialer.dial(traffic, to).is_ok(),
        Traffic::Incoming => dialer.listen(SocketAddr::new(to.ip(), 0)).is_ok(),
        // No socket of the Dialer's; the way alone decides.
        Traffic::Mapping => false,
        Traffic::PeersUtp | Traffic::UdpTrackers | Traffic::Dht | Traffic::Lsd => {
            dialer.datagrams(&[traffic], SocketAddr::new(to.ip(), 0)).is_ok()
        }
    }
}

/// Has the proxy connect to a place it may know; gives what it said. That the place refuses is the place's.
///
/// # Errors
/// There is no proxy, it is not there, or it refuses us: why, in words.
pub fn proxy_connects(dialer: &Dialer, host: &str, port: u16, patience: Duration) -> Result<String, String> {
    let target = match host.parse() {
        Ok(ip) => Target::from(SocketAddr::new(ip, port)),
        Err(_) => Target::Name { host: host.to_owned(), port },
    };
    let talk = Talk::connect(&language(dialer)?, &target).map_err(|fault| fault.to_string())?;
    match negotiate(dialer, talk, patience) {
        Ok(_) => Ok(format!("connects to {target}")),
        Err(Said::Fault(fault)) if fault.blames_target() => {
            Ok(format!("is there; of {target} it says: {fault}"))
        }
        Err(why) => Err(why.to_string()),
    }
}

/// Has a SOCKS5 proxy relay datagrams; gives where to.
///
/// # Errors
/// As of [`proxy_connects`], or it does not do that.
pub fn proxy_relays(dialer: &Dialer, patience: Duration) -> Result<String, String> {
    let Proxy::Socks5 { auth } = language(dialer)? else {
        return Err("an HTTP proxy carries no UDP".to_owned());
    };
    let talk = Talk::associate(auth.as_ref()).map_err(|fault| fault.to_string())?;
    match negotiate(dialer, talk, patience) {
        Ok(Step::Associated { relay }) => Ok(format!("relays datagrams at {relay}")),
        Ok(_) => Err("it answered something else".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

fn language(dialer: &Dialer) -> Result<Proxy, String> {
    let proxy = dialer.policy().proxy.as_ref().ok_or("there is no proxy")?;
    let auth = proxy.credentials.clone().map(|(user, password)| Credentials { user, password });
    Ok(match proxy.kind {
        ProxyKind::Socks5 => Proxy::Socks5 { auth },
        ProxyKind::Http => Proxy::HttpConnect { auth },
    })
}

/// Why a negotiation did not end well.
#[derive(Debug, thiserror::Error)]
enum Said {
    #[error("{0}")]
    Fault(piecemeal_transport::proxy::Fault),
    #[error("{0}")]
    System(#[from] io::Error),
}

fn negotiate(dialer: &Dialer, mut talk: Talk, patience: Duration) -> Result<Step, Said> {
    let addr = dialer.proxy()?;
    let socket = dialer.socket(addr.is_ipv4(), Type::STREAM, Protocol::TCP)?;
    socket.set_nonblocking(false)?;
    if let Some(ip) = dialer.source(addr.is_ipv4())? {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    socket.connect_timeout(&addr.into(), patience)?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut bytes = [0; PROXY_BYTES];
    loop {
        stream.write_all(&talk.to_send())?;
        let count = stream.read(&mut bytes).map_err(silent)?;
        if count == 0 {
            return Err(Said::Fault(talk.hung_up()));
        }
        match talk.hear(&bytes[..count]).map_err(Said::Fault)? {
            (_, Step::More) => {}
            (_, step) => return Ok(step),
        }
    }
}

fn silent(why: io::Error) -> io::Error {
    match why.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
        }
        _ => why,
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Carries, Policy, ProxyPolicy};
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn found(policy: Policy) -> Vec<Look> {
        leaks(&Dialer::new(policy))
    }

    fn by_proxy(addr: SocketAddr, kind: ProxyKind) -> Dialer {
        let (host, port) = (addr.ip().to_string(), addr.port());
        let proxy = ProxyPolicy { kind, host, port, credentials: None, carries: Carries::ALL };
        Dialer::new(Policy { proxy: Some(proxy), ..Policy::default() })
    }

    #[test]
    fn sockets_of_a_policy_obey_it() {
        let bind = [Some("127.0.0.3".parse().unwrap()), None];
        let looks = found(Policy { interface: Some("lo".into()), bind, ..Policy::default() });
        assert!(looks.iter().all(|look| look.good), "{looks:?}");
        assert!(looks[1].found.ends_with("IPv6 is off"), "{looks:?}");
        let away = found(Policy { interface: Some("no-such-if0".into()), ..Policy::default() });
        assert!(away[0].good && away[0].found.ends_with("interface no-such-if0 is away"), "{away:?}");
        assert!(found(Policy::default()).iter().all(|look| look.good));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_that_was_forgotten_is_found() {
        let dialer = Dialer::new(Policy { interface: Some("lo".into()), ..Policy::default() });
        let forgotten = Socket::new(socket2::Domain::IPV4, Type::DGRAM, None).unwrap();
        assert_eq!(is_tied(&dialer, &forgotten), Err("it is tied to none".to_owned()));
        assert!(!allowed_source(&dialer, "198.51.100.7".parse().unwrap()));
        assert!(allowed_source(&dialer, "127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_goes_by_a_proxy_cannot_go_straight() {
        for kind in [ProxyKind::Socks5, ProxyKind::Http] {
            let looks = leaks(&by_proxy("127.0.0.1:1".parse().unwrap(), kind));
            let last = looks.last().unwrap();
            assert_eq!((&*last.what, last.good), ("other ways", true));
            assert!(last.found.starts_with("9 of 9 kinds"), "{looks:?}");
            assert!(looks.iter().any(|look| look.found == "left to the proxy"));
        }
    }

    /// Reads a request of `asks` bytes after each answer, and says these.
    fn scripted(script: &'static [(usize, &'static [u8])]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for (asks, answer) in script {
                stream.read_exact(&mut vec![0; *asks]).unwrap();
                stream.write_all(answer).unwrap();
            }
        });
        addr
    }

    #[test]
    fn what_a_proxy_says_is_told() {
        let connect = |script| {
            let dialer = by_proxy(scripted(script), ProxyKind::Socks5);
            proxy_connects(&dialer, "x.example", 80, PATIENCE)
        };
        // No login; then a name of 9 letters, or an address and port of IPv4.
        let good = connect(&[(3, &[5, 0]), (16, &[5, 0, 0, 1, 9, 9, 9, 9, 0, 1])]);
        assert_eq!(good, Ok("connects to x.example:80".to_owned()));
        let far = connect(&[(3, &[5, 0]), (16, &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0])]);
        assert!(far.clone().unwrap().starts_with("is there; of x.example:80 it says: "), "{far:?}");
        assert!(connect(&[(3, &[5, 0xff])]).is_err());
        let relays =
            by_proxy(scripted(&[(3, &[5, 0]), (10, &[5, 0, 0, 1, 9, 9, 9, 9, 0, 7])]), ProxyKind::Socks5);
        assert_eq!(proxy_relays(&relays, PATIENCE), Ok("relays datagrams at 9.9.9.9:7".to_owned()));
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for kind in [ProxyKind::Socks5, ProxyKind::Http] {
            let dead = by_proxy(dead, kind);
            assert!(proxy_connects(&dead, "x.example", 80, PATIENCE).is_err());
            assert!(proxy_relays(&dead, PATIENCE).is_err());
        }
    }
}
