//! Policies against real sockets on loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use socket2::SockRef;

use super::*;

/// Only reached when something hangs.
const AGES: Duration = Duration::from_secs(30);
const PEERS: Traffic = Traffic::PeersTcp;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bound_to(addr: &str) -> Policy {
    Policy { bind: [Some(ip(addr)), None], ..Policy::default() }
}

fn on_loopback(policy: Policy) -> Policy {
    Policy { interface: Some("lo".into()), ..policy }
}

fn nowhere() -> Policy {
    Policy { interface: Some("no-such-if0".into()), ..Policy::default() }
}

/// What is hard to put into a URL.
const LOGIN: (&str, &str) = ("m:e", "p@ss/w%rd");

fn by_proxy(url: SocketAddr, kind: ProxyKind) -> Policy {
    let (host, port) = (url.ip().to_string(), url.port());
    // The name of a user of an HTTP proxy ends at the first colon.
    let user = if kind == ProxyKind::Http { "me" } else { LOGIN.0 };
    let credentials = Some((user.to_owned(), LOGIN.1.to_owned()));
    let proxy = ProxyPolicy { kind, host, port, credentials, carries: Carries::ALL };
    Policy { proxy: Some(proxy), ..Policy::default() }
}

fn words<T>(result: std::io::Result<T>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn a_dial_comes_from_the_bound_address_and_is_marked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    for (policy, from) in [
        (bound_to("127.0.0.9"), "127.0.0.9"),
        (on_loopback(bound_to("127.0.0.8")), "127.0.0.8"),
        (on_loopback(Policy::default()), "127.0.0.1"),
    ] {
        let ours = Dialer::new(policy).dial(PEERS, to).unwrap();
        assert_eq!(SockRef::from(&ours).tos_v4().unwrap(), 1 << 2);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), ip(from));
    }
    let plain = Dialer::new(Policy { dscp: 0, ..Policy::default() }).dial(PEERS, to).unwrap();
    assert_eq!(SockRef::from(&plain).tos_v4().unwrap(), 0);
}

#[test]
fn listeners_and_datagrams_are_bound_and_marked_too() {
    let dialer = Dialer::new(Policy { dscp: 46, ..bound_to("127.0.0.7") });
    let mark = 46 << 2;
    let listener = dialer.listen("0.0.0.0:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    assert_eq!(addr.ip(), ip("127.0.0.7"), "all addresses means the bound one");
    assert_eq!(SockRef::from(&listener).tos_v4().unwrap(), mark);
    let udp = dialer.datagrams(&[Traffic::Dht], addr).unwrap();
    assert_eq!((udp.local_addr().unwrap(), SockRef::from(&udp).tos_v4().unwrap()), (addr, mark));
    let _caller = std::net::TcpStream::connect(addr).unwrap();
    let accepted = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => thread::yield_now(),
        }
    };
    assert_eq!(SockRef::from(&accepted).tos_v4().unwrap(), mark, "who calls us is marked as who we call");
    let six = Dialer::new(Policy { dscp: 46, ..Policy::default() });
    if let Ok(udp) = six.datagrams(&[Traffic::Dht], "[::1]:0".parse().unwrap()) {
        assert_eq!(SockRef::from(&udp).tclass_v6().unwrap(), mark);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn sockets_are_tied_to_the_interface() {
    let dialer = Dialer::new(on_loopback(Policy::default()));
    assert!(!dialer.ties_by_address(), "Linux ties sockets to interfaces since 5.7");
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let device = |socket: SockRef<'_>| socket.device().unwrap();
    let listener = dialer.listen(any).unwrap();
    let udp = dialer.datagrams(&[Traffic::UdpTrackers], any).unwrap();
    let dial = dialer.dial(PEERS, listener.local_addr().unwrap()).unwrap();
    for device in [device((&listener).into()), device((&udp).into()), device((&dial).into())] {
        assert_eq!(device.as_deref(), Some(&b"lo"[..]));
    }
}

#[test]
fn where_sockets_cannot_be_tied_they_are_bound_to_the_address() {
    let dialer = Dialer::tied_by(on_loopback(Policy { ipv6: false, ..Policy::default() }), true);
    assert!(dialer.ties_by_address());
    let listener = dialer.listen("0.0.0.0:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    assert_eq!(to.ip(), ip("127.0.0.1"), "all addresses means those of the interface");
    let ours = dialer.dial(PEERS, to).unwrap();
    assert_eq!(ours.local_addr().unwrap().ip(), ip("127.0.0.1"));
    let away = Dialer::tied_by(nowhere(), true);
    assert_eq!(words(away.dial(PEERS, to)), "interface no-such-if0 is away");
    assert_eq!(words(away.listen(to)), "interface no-such-if0 is away");
}

#[test]
fn a_proxy_of_an_unknown_name_is_no_way() {
    let (server, _told) = name_server();
    let by = |host: &str| {
        let carries = Carries::ALL;
        let (kind, host) = (ProxyKind::Socks5, host.to_owned());
        let proxy = ProxyPolicy { kind, host, port: 1080, credentials: None, carries };
        Dialer::new(Policy { proxy: Some(proxy), name_server: Some(server), ..Policy::default() })
    };
    assert_eq!(by("tracker.example").proxy().unwrap(), "1.2.3.4:1080".parse().unwrap());
    let unknown = by("other.example");
    assert_eq!(words(unknown.proxy()), "the proxy other.example: no such host");
    assert_eq!(words(unknown.dial_proxy()), "the proxy other.example: no such host");
    let said = crate::http::get(&unknown, "http://127.0.0.1:1/announce", 100, AGES);
    assert_eq!(said.unwrap_err().to_string(), "the proxy other.example: no such host");
}

#[test]
fn without_its_interface_nothing_is_opened() {
    let dialer = Dialer::new(nowhere());
    let (addr, away) = ("127.0.0.1:1".parse().unwrap(), "interface no-such-if0 is away");
    assert_eq!(dialer.away().as_deref(), Some(away));
    assert_eq!(words(dialer.dial(PEERS, addr)), away);
    assert_eq!(words(dialer.listen(addr)), away);
    assert_eq!(words(dialer.datagrams(&[Traffic::Dht], addr)), away);
    assert_eq!(words(dialer.join("239.192.152.143:6771".parse().unwrap(), &[addr])), away);
    // Nobody is asked, whatever the system's servers are: with one, that it is away; without, that there is none.
    assert!(dialer.resolve(Traffic::Dht, "tracker.example").is_err());
}

#[test]
fn families_that_are_off_are_refused() {
    let six: SocketAddr = "[::1]:1".parse().unwrap();
    for policy in [bound_to("127.0.0.1"), Policy { ipv6: false, ..Policy::default() }] {
        let dialer = Dialer::new(policy);
        assert_eq!(words(dialer.dial(PEERS, six)), "IPv6 is off");
        assert_eq!(words(dialer.listen(six)), "IPv6 is off");
        assert_eq!(words(dialer.datagrams(&[Traffic::Dht], six)), "IPv6 is off");
    }
    let dialer = Dialer::new(Policy { ipv4: false, ..Policy::default() });
    assert_eq!(words(dialer.dial(PEERS, "127.0.0.1:1".parse().unwrap())), "IPv4 is off");
}

#[test]
fn what_goes_by_a_proxy_opens_no_socket_of_its_own() {
    let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let all = [Traffic::Dht, Traffic::UdpTrackers, Traffic::PeersUtp];
    for kind in [ProxyKind::Socks5, ProxyKind::Http] {
        let dialer = Dialer::new(by_proxy(addr, kind));
        assert_eq!(words(dialer.dial(PEERS, addr)), "this goes by the proxy");
        assert_eq!(words(dialer.listen(addr)), "nobody can call us through the proxy");
        assert!(dialer.datagrams(&all, addr).is_err());
        assert!(dialer.join("239.192.152.143:6771".parse().unwrap(), &[addr]).is_err());
        for traffic in Traffic::ALL {
            assert!(dialer.resolve(traffic, "localhost").is_err(), "{traffic:?}");
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialer = Dialer::new(by_proxy(listener.local_addr().unwrap(), ProxyKind::Socks5));
    let _ours = dialer.dial_proxy().unwrap();
    assert!(listener.accept().is_ok());
    assert_eq!(words(Dialer::new(Policy::default()).dial_proxy()), "there is no proxy");
}

/// A proxy for HTTP and for SOCKS5, good for one request: tells what it was asked for, and answers
/// with a page itself.
fn proxy() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        if first[0] == 5 {
            let mut greeting = [0; 1];
            stream.read_exact(&mut greeting).unwrap();
            let mut methods = vec![0; usize::from(greeting[0])];
            stream.read_exact(&mut methods).unwrap();
            assert!(methods.contains(&2), "name and password are offered");
            stream.write_all(&[5, 2]).unwrap();
            let login = [&[1, 3], LOGIN.0.as_bytes(), &[9], LOGIN.1.as_bytes()].concat();
            let mut said = vec![0; login.len()];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(said, login);
            stream.write_all(&[1, 0]).unwrap();
            let mut head = [0; 5];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(head[3], 3, "a name, not an address");
            let mut name = vec![0; usize::from(head[4]) + 2];
            stream.read_exact(&mut name).unwrap();
            name.truncate(name.len() - 2);
            tell.send(String::from_utf8(name).unwrap()).unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        }
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        // "me:p@ss/w%rd"
        let login = "proxy-authorization: Basic bWU6cEBzcy93JXJk";
        assert!(first[0] == 5 || head.lines().any(|line| line.eq_ignore_ascii_case(login)), "{head}");
        let _ = tell.send(head.lines().next().unwrap_or_default().to_owned());
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nde");
    });
    (addr, told)
}

#[test]
fn http_goes_by_the_proxy_and_leaves_names_to_it() {
    // A name that nobody can look up: it is the proxy's to know.
    let url = "http://tracker.invalid/announce?x";
    for (kind, expected) in [
        (ProxyKind::Socks5, vec!["tracker.invalid", "announce?x HTTP/1.1"]),
        (ProxyKind::Http, vec!["ET http://tracker.invalid/announce?x HTTP/1.1"]),
    ] {
        let (addr, told) = proxy();
        let dialer = Dialer::new(by_proxy(addr, kind));
        assert_eq!(crate::http::get(&dialer, url, 100, AGES), Ok(b"de".to_vec()), "{kind:?}");
        let told: Vec<String> = told.iter().collect();
        assert!(
            told.iter().zip(&expected).all(|(told, expected)| told.ends_with(expected)),
            "{kind:?} {told:?}"
        );
    }
    // Dead: nothing goes another way.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let direct = format!("http://{}/announce", server.local_addr().unwrap());
    for kind in [ProxyKind::Socks5, ProxyKind::Http] {
        assert!(crate::http::get(&Dialer::new(by_proxy(dead, kind)), &direct, 100, AGES).is_err());
    }
    assert!(server.accept().is_err(), "nobody came");
}

#[test]
fn http_comes_from_the_bound_address() {
    let answer = |asked: &crate::http::Asked<'_>| crate::http::Answer {
        status: 200,
        content_type: "text/plain",
        body: asked.from.ip().to_string().into_bytes(),
    };
    let any = vec!["127.0.0.1:0".parse().unwrap()];
    let server = crate::http::serve(any, answer, crate::http::ServeLimits::default()).unwrap();
    let url = format!("http://{}/announce", server.addrs()[0]);
    let get = |policy| crate::http::get(&Dialer::new(policy), &url, 100, AGES);
    assert_eq!(get(bound_to("127.0.0.5")), Ok(b"127.0.0.5".to_vec()));
    assert_eq!(get(on_loopback(bound_to("127.0.0.6"))), Ok(b"127.0.0.6".to_vec()));
    let away = get(nowhere()).unwrap_err().to_string();
    assert_eq!(away, "interface no-such-if0 is away");
    server.stop();
}

/// A name server of one name with an alias; tells who asked.
fn name_server() -> (SocketAddr, Receiver<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let asked = Packet::parse(&bytes[..count]).unwrap();
            let question = asked.questions[0].clone();
            let mut answer = Packet::new_reply(asked.id());
            let name = question.qname.to_string();
            let real = Name::new("real.example").unwrap();
            let record = |name, data| ResourceRecord::new(name, CLASS::IN, 60, data);
            match (&*name, question.qtype) {
                ("tracker.example", kind) => {
                    answer.answers.push(record(question.qname.clone(), RData::CNAME(CNAME(real.clone()))));
                    answer.answers.push(match kind {
                        QTYPE::TYPE(TYPE::A) => record(real, RData::A(A { address: 0x0102_0304 })),
                        _ => record(real, RData::AAAA(AAAA { address: 1 })),
                    });
                }
                ("silent.example", _) => continue,
                _ => *answer.rcode_mut() = RCODE::NameError,
            }
            answer.set_flags(PacketFlag::RECURSION_AVAILABLE);
            answer.questions.push(question);
            if tell.send(from).is_err() {
                return;
            }
            let bytes = answer.build_bytes_vec().unwrap();
            // A stranger's guess comes first, with another id.
            let mut guess = bytes.clone();
            guess[0] ^= 0xff;
            socket.send_to(&guess, from).unwrap();
            socket.send_to(&bytes, from).unwrap();
        }
    });
    (addr, told)
}

#[test]
fn names_are_asked_by_the_same_way() {
    let (server, told) = name_server();
    let policy = Policy { name_server: Some(server), ..bound_to("127.0.0.4") };
    let dialer = Dialer::new(on_loopback(policy));
    assert_eq!(dialer.resolve(Traffic::Dht, "Tracker.Example").unwrap(), [ip("1.2.3.4")]);
    assert_eq!(told.recv().unwrap().ip(), ip("127.0.0.4"));
    assert_eq!(words(dialer.resolve(Traffic::Dht, "other.example")), "no such host");
    assert_eq!(dialer.resolve(Traffic::Dht, "localhost").unwrap()[0], ip("127.0.0.1"));
    assert!(words(dialer.resolve(Traffic::Dht, &"x".repeat(300))).starts_with("not the name"));
    let both = Dialer::new(Policy { name_server: Some(server), ..Policy::default() });
    assert_eq!(both.resolve(Traffic::Dht, "tracker.example").unwrap(), [ip("1.2.3.4"), ip("::1")]);
    let with_port = both.resolve_with_port(Traffic::Dht, "tracker.example:7").unwrap();
    assert_eq!(with_port[0], "1.2.3.4:7".parse().unwrap());
    assert!(both.resolve_with_port(Traffic::Dht, "tracker.example").is_err());
}
