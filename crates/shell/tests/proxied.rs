//! Peers by way of a proxy that does as it is told: what is said to it, what comes of its answers, and that nothing ever
//! goes another way.

mod common;
mod proxies;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use common::PATIENCE;
use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId, Heard, Outcome};
use piecemeal_engine::cx::{
    Ate, Carrier, Command, ConnId, DialId, Goodbye, Net, News, Note, Out, Purpose, Sending, Settings,
};
use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_package::Done;
use piecemeal_shell::driven::{Data, Driven, Front};
use piecemeal_shell::net::{Carries, Dialer, Policy, ProxyKind, ProxyPolicy};
use piecemeal_shell::{Shell, ShellSettings};
use piecemeal_transport::mse::Total;
use piecemeal_transport::proxy::Target;
use piecemeal_transport::utp::{Event, Utp};
use piecemeal_wire::krpc::{Body, Message, NodeId, Response};
use proxies::{ASSOCIATE, Line, RelayingProxy, proxy};

/// What is said to every peer.
const HELLO: &[u8] = b"hello";
const SOCKS_OK: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
/// Somebody whom nobody may speak to directly.
const PEER: &str = "192.0.2.7:6881";
/// How a dial to `PEER` is asked of SOCKS5.
const ASK: &[u8] = b"\x05\x01\x00\x01\xc0\x00\x02\x07\x1a\xe1";

/// Calls whom it is told of as a node, or asks it by datagram if its port is 80; says hello, and tells all it hears.
struct Caller {
    out: Out,
    said: BTreeMap<ConnId, usize>,
    dials: u64,
    patience: Duration,
    carrier: Carrier,
}

impl Caller {
    fn tell(&mut self, what: &str, how: String) {
        let outcome = Outcome::Failed { reason: how, retry: Duration::MAX };
        self.out.news.push(News::Tracker(TorrentId(1), Heard { url: what.into(), outcome }));
    }
}

impl Driven for Caller {
    fn on_bytes(&mut self, _: Time, _: ConnId, bytes: &[u8]) -> Ate {
        self.tell("heard", String::from_utf8_lossy(bytes).into_owned());
        Ate { bytes: bytes.len(), thirsty: false }
    }
    fn on_wrote(&mut self, _: Time, conn: ConnId, bytes: usize) {
        *self.said.get_mut(&conn).unwrap() += bytes;
    }
    fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        let rest = &HELLO[*self.said.get(&conn)?..];
        (!rest.is_empty()).then(|| f(&[Sending::Bytes(rest)]))
    }
    fn on_closed(&mut self, _: Time, _: ConnId, why: Goodbye) {
        self.tell("closed", format!("{why:?}"));
    }
    fn on_note(&mut self, _: Time, _: Note) {}
    fn heartbeat(&mut self, _: Time) -> Time {
        Time::NEVER
    }
    fn out(&mut self) -> &mut Out {
        &mut self.out
    }
}

impl Front for Caller {
    fn lets_in(&self, _: IpAddr) -> bool {
        true
    }
    fn on_accepted(&mut self, _: Time, _: ConnId, _: SocketAddr, _: Carrier) {}
    fn on_total(&mut self, _: Time, _: ConnId, _: Total) {}
    fn on_proved(&mut self, _: ConnId, _: TorrentId) {}
    fn on_dialed(&mut self, _: Time, _: DialId, result: Result<ConnId, String>) {
        match result {
            Ok(conn) => {
                self.said.insert(conn, 0);
                self.out.net.push(Net::Write(conn));
                self.tell("dialed", "well".into());
            }
            Err(why) => self.tell("dialed", why),
        }
    }
    fn on_command(&mut self, _: Time, command: Command) {
        let Command::Nodes(all) = command else { return };
        for to in all {
            if to.port() == 80 {
                let (purpose, bytes) = (Purpose::Dht, HELLO.to_vec());
                self.out.net.push(Net::Datagram { purpose, to, bytes });
                continue;
            }
            let (dial, carrier, patience) = (DialId(self.dials), self.carrier, self.patience);
            self.dials += 1;
            self.out.net.push(Net::Dial { dial, to, carrier, tls: None, patience });
        }
    }
    fn on_datagram(&mut self, _: Time, from: SocketAddr, bytes: &[u8]) {
        self.tell("datagram", format!("{from} {}", String::from_utf8_lossy(bytes)));
    }
    fn on_lsd(&mut self, _: Time, _: SocketAddr, _: &[u8]) {}
    fn on_resolved(&mut self, _: Time, _: TorrentId, _: &Fetch, _: SocketAddr) {}
    fn on_unreachable(&mut self, _: Time, to: SocketAddr, why: &str) {
        self.tell("unreachable", format!("{to}: {why}"));
    }
}

/// Has nothing to do.
#[derive(Default)]
struct Idle(Out);

impl Driven for Idle {
    fn on_bytes(&mut self, _: Time, _: ConnId, _: &[u8]) -> Ate {
        panic!("nothing was handed over")
    }
    fn on_wrote(&mut self, _: Time, _: ConnId, _: usize) {}
    fn with_sealed<R>(&mut self, _: ConnId, _: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        None
    }
    fn on_closed(&mut self, _: Time, _: ConnId, _: Goodbye) {}
    fn on_note(&mut self, _: Time, _: Note) {}
    fn heartbeat(&mut self, _: Time) -> Time {
        Time::NEVER
    }
    fn out(&mut self) -> &mut Out {
        &mut self.0
    }
}

impl Data for Idle {
    fn on_disk(&mut self, _: Time, _: TorrentId, _: Done) {}
    fn on_fetched(&mut self, _: Time, _: TorrentId, _: FetchId, _: Result<&[u8], FetchFailure>) {}
}

struct Rig(Shell);

impl Rig {
    fn new(proxy: SocketAddr, kind: ProxyKind, login: Option<(&str, &str)>, patience: Duration) -> Rig {
        let carries = Carries { dht: false, trackers: false, ..Carries::ALL };
        Rig::carrying(proxy, (kind, login), (Carrier::Tcp, carries), patience)
    }

    /// By a SOCKS5 proxy that relays.
    fn relayed(proxy: SocketAddr, carrier: Carrier) -> Rig {
        Rig::carrying(proxy, (ProxyKind::Socks5, None), (carrier, Carries::ALL), PATIENCE)
    }

    fn carrying(
        proxy: SocketAddr,
        (kind, login): (ProxyKind, Option<(&str, &str)>),
        (carrier, carries): (Carrier, Carries),
        patience: Duration,
    ) -> Rig {
        let credentials = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let (host, port) = (proxy.ip().to_string(), proxy.port());
        let proxy = Some(ProxyPolicy { kind, host, port, credentials, carries });
        let settings = ShellSettings {
            mapping: None,
            engine: Settings { utp: carrier == Carrier::Utp, ..Settings::default() },
            dialer: Dialer::new(Policy { proxy, ..Policy::default() }),
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            pool_bytes: 1 << 20,
            utp_yields: true,
            disk_threads: 1,
            seed: Some([1; 32]),
        };
        let shell = Shell::start_with(settings, move |engine, _, _| {
            assert_eq!(engine.port, 0, "nobody can call us");
            let (out, said, dials) = (Out::default(), BTreeMap::new(), 0);
            (Caller { out, said, dials, patience, carrier }, Idle::default())
        });
        Rig(shell.unwrap())
    }

    fn call(&self, peer: &str) {
        self.0.command(Command::Nodes(vec![peer.parse().unwrap()]));
    }

    fn hear(&self, what: &str) -> String {
        loop {
            match self.0.recv_news(Some(PATIENCE)) {
                Some(News::Tracker(_, Heard { url, outcome: Outcome::Failed { reason, .. } }))
                    if url == what =>
                {
                    return reason;
                }
                Some(_) => {}
                None => panic!("nothing was heard of {what}"),
            }
        }
    }
}

#[test]
fn a_peer_is_reached_by_every_proxy() {
    const NO_LOGIN: &[Line] = &[
        (b"\x05\x01\x00", b"\x05\x00"),
        // The peer speaks at once, in the same packet.
        (ASK, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00I am a peer"),
        (HELLO, b" and heard you"),
    ];
    const LOGIN: &[Line] = &[
        (b"\x05\x02\x00\x02", b"\x05\x02"),
        (b"\x01\x02me\x04pass", b"\x01\x00"),
        (ASK, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00I am a peer"),
        (HELLO, b" and heard you"),
    ];
    const WEB: &[Line] = &[
        (
            b"CONNECT 192.0.2.7:6881 HTTP/1.1\r\nHost: 192.0.2.7:6881\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n\r\n",
            b"HTTP/1.1 200 go on\r\nX: y\r\n\r\nI am a peer",
        ),
        (HELLO, b" and heard you"),
    ];
    let rows = [
        (NO_LOGIN, ProxyKind::Socks5, None),
        (LOGIN, ProxyKind::Socks5, Some(("me", "pass"))),
        (WEB, ProxyKind::Http, Some(("me", "pass"))),
    ];
    for (script, kind, login) in rows {
        for singly in [false, true] {
            let rig = Rig::new(proxy(script, singly, false), kind, login, PATIENCE);
            rig.call(PEER);
            assert_eq!(rig.hear("dialed"), "well");
            let mut heard = String::new();
            while heard.len() < "I am a peer and heard you".len() {
                heard += &rig.hear("heard");
            }
            assert_eq!(heard, "I am a peer and heard you");
        }
    }
}

#[test]
fn what_the_proxy_says_is_why_a_dial_fails() {
    const METHOD: Line = (b"\x05\x01\x00", b"\x05\x00");
    let rows: [(&'static [Line], ProxyKind, &str); 7] = [
        (
            &[METHOD, (ASK, b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")],
            ProxyKind::Socks5,
            "the proxy says: the host refused the connection (reply 5)",
        ),
        (
            &[(b"\x05\x01\x00", b"\x05\xff")],
            ProxyKind::Socks5,
            "the proxy wants a user and a password (method 0xff)",
        ),
        (&[METHOD, (ASK, b"\x05\x00\x00")], ProxyKind::Socks5, "the proxy closed the connection "),
        (&[METHOD], ProxyKind::Socks5, "the proxy closed the connection instead of answering the request"),
        (&[], ProxyKind::Socks5, "the proxy closed the connection before it answered"),
        (
            &[(b"CONNECT ", b"HTTP/1.1 407 log in\r\n\r\n")],
            ProxyKind::Http,
            "the proxy wants a user and a password",
        ),
        (&[(b"CONNECT ", b"SSH-2.0-x\r\n\r\n")], ProxyKind::Http, "the proxy does not speak HTTP/1.1"),
    ];
    for (script, kind, why) in rows {
        let rig = Rig::new(proxy(script, false, true), kind, None, PATIENCE);
        rig.call(PEER);
        let heard = rig.hear("dialed");
        assert!(heard.starts_with(why), "{heard}, not {why}");
    }
}

#[test]
fn a_proxy_that_says_nothing_has_as_long_as_the_peer() {
    let rig = Rig::new(proxy(&[], false, false), ProxyKind::Socks5, None, Duration::from_millis(100));
    rig.call(PEER);
    assert_eq!(rig.hear("dialed"), "the proxy did not come to an end");
}

#[test]
fn without_the_proxy_nobody_is_called_until_it_is_back() {
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    somebody.set_nonblocking(true).unwrap();
    let peer = somebody.local_addr().unwrap().to_string();
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::new(addr, ProxyKind::Socks5, None, PATIENCE);
    for _ in 0..3 {
        rig.call(&peer);
        let why = rig.hear("dialed");
        assert!(why.starts_with("the proxy cannot be reached: Connection refused"), "{why}");
    }
    assert_eq!(somebody.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");

    let back = TcpListener::bind(addr).unwrap();
    // Somebody looks whether it is there, and leaves at once.
    let (mut probe, _) = back.accept().unwrap();
    assert_eq!(probe.read(&mut [0; 1]).unwrap(), 0);
    rig.call(&peer);
    let (mut stream, _) = back.accept().unwrap();
    let mut method = [0; 3];
    stream.read_exact(&mut method).unwrap();
    stream.write_all(b"\x05\x00").unwrap();
    let mut asked = [0; 10];
    stream.read_exact(&mut asked).unwrap();
    stream.write_all(SOCKS_OK).unwrap();
    assert_eq!(rig.hear("dialed"), "well");
    assert_eq!(somebody.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");
}

#[test]
fn datagrams_go_by_the_relay_alone() {
    let proxy = RelayingProxy::new();
    let rig = Rig::relayed(proxy.addr(), Carrier::Tcp);
    let node: SocketAddr = "192.0.2.9:80".parse().unwrap();
    // Said before the proxy answers: it waits.
    rig.call("192.0.2.9:80");
    let control = proxy.associates();
    let (to, payload, us) = proxy.hears();
    assert_eq!((to, &payload[..]), (node.into(), HELLO));
    // A fragment, something short, and somebody else's are nobody's.
    proxy.socket.send_to(b"\x00\x00\x01\x01\xc0\x00\x02\x09\x00\x50part", us).unwrap();
    proxy.socket.send_to(b"\x00\x00\x00\x01\xc0", us).unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"\x00\x00\x00\x01\xc0\x00\x02\x09\x00\x50forged", us).unwrap();
    proxy.says(us, "192.0.2.9:80", b"I am a node");
    assert_eq!(rig.hear("datagram"), "192.0.2.9:80 I am a node");
    proxy.says(us, "[2001:db8::9]:80", b"and I");
    assert_eq!(rig.hear("datagram"), "[2001:db8::9]:80 and I");

    // Its end is the relay's; the next one begins by itself.
    drop(control);
    let why = loop {
        rig.call("192.0.2.9:80");
        match proxy.socket.set_nonblocking(true).and_then(|()| proxy.socket.recv_from(&mut [0; 99])) {
            // It did not hear of the end yet.
            Ok(_) => continue,
            Err(_) => break rig.hear("unreachable"),
        }
    };
    assert_eq!(why, "192.0.2.9:80: the proxy relays no datagrams: the proxy ended it");
    let _control = proxy.associates();
    proxy.socket.set_nonblocking(false).unwrap();
    loop {
        rig.call("192.0.2.9:80");
        proxy.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        if proxy.socket.recv_from(&mut [0; 99]).is_ok() {
            break;
        }
    }
}

#[test]
fn a_proxy_that_relays_nothing_is_told_of() {
    const NO: &[Line] =
        &[(b"\x05\x01\x00", b"\x05\x00"), (ASSOCIATE, b"\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00")];
    let rig = Rig::relayed(proxy(NO, false, false), Carrier::Utp);
    rig.call("192.0.2.9:80");
    let why = loop {
        match rig.0.recv_news(Some(Duration::from_millis(20))) {
            Some(News::Tracker(_, Heard { outcome: Outcome::Failed { reason, .. }, .. })) => break reason,
            _ => rig.call("192.0.2.9:80"),
        }
    };
    assert_eq!(
        why,
        "192.0.2.9:80: the proxy relays no datagrams: the proxy says: it does not know the command (reply 7)"
    );
    rig.call(PEER);
    assert!(rig.hear("dialed").starts_with("the proxy relays no datagrams: "));
}

#[test]
fn peers_by_utp_go_by_the_relay() {
    let proxy = RelayingProxy::new();
    let rig = Rig::relayed(proxy.addr(), Carrier::Utp);
    let control = proxy.associates();
    rig.call(PEER);
    let peer: SocketAddr = PEER.parse().unwrap();
    let mut theirs = Utp::new(piecemeal_transport::utp::Settings::default(), [9; 32]);
    let us: SocketAddr = "198.51.100.1:1".parse().unwrap();
    let (mut now, mut buf, mut heard, mut conn) = (Time::ZERO, Vec::new(), Vec::new(), None);
    while heard != HELLO {
        let (to, packet, relay) = proxy.hears();
        assert_eq!(to, peer.into());
        assert!(packet.len() <= 1462, "the header has room");
        now = now + Duration::from_millis(1);
        theirs.on_datagram(now, us, &packet);
        while let Some(event) = theirs.poll_event() {
            match event {
                Event::Accepted { id, .. } => {
                    conn = Some(id);
                    assert_eq!(theirs.write(now, id, b"I am a peer"), 11);
                }
                Event::Readable { id } => {
                    heard.extend_from_slice(theirs.readable(id));
                    let bytes = theirs.readable(id).len();
                    theirs.consumed(now, id, bytes);
                }
                _ => {}
            }
        }
        while let Some(run) = theirs.poll_transmit(now, &mut buf) {
            assert_eq!(run.to, us);
            proxy.says(relay, PEER, &buf);
        }
    }
    assert!(conn.is_some());
    assert_eq!((rig.hear("dialed"), rig.hear("heard")), ("well".into(), "I am a peer".into()));
    drop(control);
    let why = rig.hear("closed");
    assert!(why.contains("the proxy relays no datagrams"), "{why}");
}

#[test]
fn hosts_of_the_dht_are_asked_by_name() {
    let proxy = RelayingProxy::new();
    let rig = Rig::relayed(proxy.addr(), Carrier::Tcp);
    rig.0.ask_hosts(vec![("router.example".into(), 6881)]);
    let _control = proxy.associates();
    let (to, payload, us) = proxy.hears();
    assert_eq!(to, Target::Name { host: "router.example".into(), port: 6881 });
    let asked = Message::decode(&payload).unwrap();
    let body = Body::Response(Response::new(NodeId([1; 20])));
    let answer = Message { read_only: false, body, ..asked }.encode();
    // Whoever answers is a node at that address; the toy greets nodes at port 80.
    proxy.says(us, "192.0.2.80:80", &answer);
    let (to, payload, _) = proxy.hears();
    assert_eq!((to, &payload[..]), (Target::Addr("192.0.2.80:80".parse().unwrap()), HELLO));
}
