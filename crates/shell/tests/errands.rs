//! Tools with a question to UDP trackers or the DHT, by way of a proxy: what goes there, and that nothing goes elsewhere.

mod common;
mod proxies;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::PATIENCE;
use piecemeal_discovery::dht::{Dht, DhtOut, News};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_metainfo::{InfoHash, PeerId, TorrentId};
use piecemeal_shell::ask_udp::UdpClient;
use piecemeal_shell::dht::{DhtNode, Meeting};
use piecemeal_shell::net::{Carries, Dialer, Policy, ProxyKind, ProxyPolicy};
use piecemeal_transport::proxy::Target;
use piecemeal_wire::krpc::{Body, Message, NodeId, Response};
use piecemeal_wire::tracker::udp::{self, ConnectionId, UdpRequest};
use piecemeal_wire::tracker::{AnnounceReply, AnnounceRequest, announce_url};
use proxies::{ASSOCIATE, Line, RelayingProxy, proxy};

const REFUSES: &[Line] =
    &[(b"\x05\x01\x00", b"\x05\x00"), (ASSOCIATE, b"\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00")];
const REFUSED: &str = "the proxy relays no datagrams: the proxy says: it does not know the command (reply 7)";
/// Where trackers and nodes are, as far as the proxy says.
const FAR: &str = "192.0.2.5:6969";

fn dialer(proxy: SocketAddr, kind: ProxyKind) -> Dialer {
    let (host, port) = (proxy.ip().to_string(), proxy.port());
    let proxy = ProxyPolicy { kind, host, port, credentials: None, carries: Carries::ALL };
    Dialer::new(Policy { proxy: Some(proxy), ..Policy::default() })
}

fn by(proxy: SocketAddr) -> Dialer {
    dialer(proxy, ProxyKind::Socks5)
}

/// An address at which nobody is.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

type Told = Receiver<(FetchId, Result<Vec<u8>, FetchFailure>)>;

fn client(dialer: Dialer) -> (UdpClient, Told) {
    let (tell, told) = channel();
    let reply = Box::new(move |_, id, result| tell.send((id, result)).unwrap());
    (UdpClient::start(dialer, reply).unwrap(), told)
}

fn ask(client: &UdpClient, id: u64, tracker: &str, family: Family) {
    let request = AnnounceRequest::new(InfoHash([1; 20]), PeerId([2; 20]), 6881);
    let url = announce_url(tracker, &request);
    client.fetch(TorrentId(0), Fetch { id: FetchId(id), url, family, timeout: PATIENCE });
}

fn failed(told: &Told) -> (u64, String) {
    match told.recv_timeout(PATIENCE).unwrap() {
        (FetchId(id), Err(FetchFailure::Unreachable(why))) => (id, why),
        other => panic!("{other:?}"),
    }
}

/// Answers one announce as a tracker that the proxy finds at `FAR`.
fn track(proxy: &RelayingProxy, expected: &Target) {
    let given = ConnectionId(77);
    loop {
        let (to, request, us) = proxy.hears();
        assert_eq!(to, *expected);
        let mut answer = Vec::new();
        let over = match UdpRequest::decode(&request).unwrap() {
            UdpRequest::Connect { transaction } => {
                udp::connected(transaction, given, &mut answer);
                false
            }
            UdpRequest::Announce { transaction, connection, .. } => {
                assert_eq!(connection, given);
                let peers = ["1.2.3.4:5".parse().unwrap()].into_iter();
                udp::announced(transaction, (900, 4, 3), peers, false, &mut answer);
                true
            }
            other => panic!("{other:?}"),
        };
        proxy.says(us, FAR, &answer);
        if over {
            return;
        }
    }
}

#[test]
fn trackers_are_asked_by_the_relay_and_by_name() {
    let proxy = RelayingProxy::new();
    let (client, told) = client(by(proxy.addr()));
    let name = Target::Name { host: "tracker.example".into(), port: 6969 };
    let mut control = None;
    for (id, url, to) in [
        (1, "udp://tracker.example:6969/announce", name),
        (2, "udp://192.0.2.5:6969/announce", Target::Addr(FAR.parse().unwrap())),
    ] {
        ask(&client, id, url, Family::V4);
        // Asked for with the first request, and once.
        control.get_or_insert_with(|| proxy.associates());
        track(&proxy, &to);
        let (told, body) = told.recv_timeout(PATIENCE).unwrap();
        let Ok(AnnounceReply::Answer(answer)) = AnnounceReply::decode(&body.unwrap()) else { panic!() };
        assert_eq!((told, answer.interval, answer.peers.len()), (FetchId(id), Some(900), 1));
    }
    // The proxy takes whichever address it likes, so a name is asked once.
    ask(&client, 3, "udp://tracker.example:6969/announce", Family::V6);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (FetchId(3), Err(FetchFailure::NoAddress)));

    ask(&client, 4, "udp://silent.example:1/announce", Family::V4);
    proxy.hears();
    drop(control);
    assert_eq!(failed(&told), (4, "the proxy relays no datagrams: the proxy ended it".to_owned()));
    ask(&client, 5, "udp://silent.example:1/announce", Family::V4);
    assert_eq!(failed(&told), (5, "the proxy relays no datagrams: the proxy ended it".to_owned()));
    client.stop();
    assert!(told.try_recv().is_err());
}

#[test]
fn trackers_are_not_asked_where_the_proxy_relays_nothing() {
    let rows = [
        (by(proxy(REFUSES, false, false)), REFUSED),
        (by(proxy(REFUSES, true, true)), REFUSED),
        (by(nowhere()), "the proxy relays no datagrams: Connection refused"),
        (dialer(nowhere(), ProxyKind::Http), "an HTTP proxy carries no UDP"),
    ];
    for (dialer, expected) in rows {
        let (client, told) = client(dialer);
        ask(&client, 1, "udp://tracker.example:6969/announce", Family::V4);
        ask(&client, 2, "udp://192.0.2.5:6969/announce", Family::V4);
        let mut all = [failed(&told), failed(&told)];
        all.sort();
        for (at, (id, why)) in (1..).zip(all) {
            assert!(id == at && why.starts_with(expected) && !why.contains('\n'), "{id}: {why}");
        }
        client.stop();
    }
}

/// Answers what comes as nodes would, each from where `place` says, if anywhere; until the association ends.
fn answers(
    proxy: RelayingProxy,
    place: impl Fn(&Target) -> Option<&'static str> + Send + 'static,
) -> thread::JoinHandle<Vec<Target>> {
    thread::spawn(move || {
        let control = proxy.associates();
        control.set_nonblocking(true).unwrap();
        proxy.socket.set_read_timeout(Some(std::time::Duration::from_millis(5))).unwrap();
        let (mut bytes, mut asked) = ([0; 2000], Vec::new());
        let ended = |mut control: &TcpStream| matches!(std::io::Read::read(&mut control, &mut [0]), Ok(0));
        while !ended(&control) {
            let Ok((len, us)) = proxy.socket.recv_from(&mut bytes) else { continue };
            let (to, payload) = piecemeal_transport::proxy::datagram::unwrap(&bytes[..len]).unwrap();
            let query = Message::decode(payload).unwrap();
            assert!(query.read_only && matches!(query.body, Body::Query(_)), "{query:?}");
            if let Some(from) = place(&to) {
                let body = Body::Response(Response::new(NodeId([1; 20])));
                proxy.says(us, from, &Message { read_only: false, body, ..query }.encode());
            }
            asked.push(to);
        }
        asked
    })
}

#[test]
fn nodes_are_asked_by_the_relay() {
    let relay = RelayingProxy::new();
    let dialer = by(relay.addr());
    let far: SocketAddr = FAR.parse().unwrap();
    let asked = answers(relay, |to| (*to == Target::Addr(FAR.parse().unwrap())).then_some(FAR));
    let mut node = DhtNode::open(&dialer, Family::V4).unwrap();
    let mut pong = None;
    let ended = node.run(
        PATIENCE,
        |dht: &mut Dht, now, out: &mut DhtOut| dht.ping(now, far, out),
        &mut |news| {
            pong = Some(news);
            false
        },
        &|| false,
    );
    assert_eq!(ended.unwrap().summary.answered, 1);
    assert!(matches!(pong, Some(News::Pong { id: NodeId([1, ..]), .. })), "{pong:?}");
    drop(node);
    assert_eq!(asked.join().unwrap(), [Target::Addr(far)]);
}

#[test]
fn hosts_of_the_dht_are_met_by_name() {
    let relay = RelayingProxy::new();
    let dialer = by(relay.addr());
    let name = |host: &str| Target::Name { host: host.into(), port: 6881 };
    let there = name("there.example");
    let asked = answers(relay, move |to| (*to == there).then_some(FAR));
    let hosts = ["silent.example", "there.example"].map(|host| (host.to_owned(), 6881));
    let mut meeting = Meeting::open(&dialer, hosts.into()).unwrap();
    // The one that is silent is not waited for.
    assert_eq!(meeting.run(PATIENCE, &|| false).unwrap(), [FAR.parse().unwrap()]);
    drop(meeting);
    assert_eq!(asked.join().unwrap()[..2], [name("silent.example"), name("there.example")]);
}

#[test]
fn the_dht_is_not_asked_where_the_proxy_relays_nothing() {
    let ping = |dialer: &Dialer| {
        let mut node = DhtNode::open(dialer, Family::V4)?;
        let far = FAR.parse().unwrap();
        node.run(PATIENCE, |dht, now, out| dht.ping(now, far, out), &mut |_| false, &|| false)
    };
    let meet = |dialer: &Dialer| {
        let mut meeting = Meeting::open(dialer, vec![("there.example".into(), 1)])?;
        meeting.run(PATIENCE, &|| false)
    };
    let dead = by(nowhere());
    for (dialer, expected) in [
        (by(proxy(REFUSES, false, false)), REFUSED),
        (dead, "the proxy relays no datagrams: Connection refused"),
    ] {
        for why in [ping(&dialer).unwrap_err().to_string(), meet(&dialer).unwrap_err().to_string()] {
            assert!(why.starts_with(expected) && !why.contains('\n'), "{why}");
        }
    }
    let web = dialer(nowhere(), ProxyKind::Http);
    assert_eq!(ping(&web).unwrap_err().to_string(), "an HTTP proxy carries no UDP");
    assert!(meet(&web).is_err() && meet(&Dialer::new(Policy::default())).is_err());
    // What cannot be said to a proxy is no host.
    let relay = RelayingProxy::new();
    let mut meeting = Meeting::open(&by(relay.addr()), vec![("no host".into(), 1)]).unwrap();
    let _control = thread::spawn(move || relay.associates());
    let why = meeting.run(PATIENCE, &|| false).unwrap_err().to_string();
    assert_eq!(why, "\"no host\" is not the name of a host");
}

#[test]
fn who_waits_for_the_proxy_can_be_told_to_stop() {
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = DhtNode::open(&by(silent.local_addr().unwrap()), Family::V4).unwrap();
    let (waker, stop) = (node.waker(), std::sync::atomic::AtomicBool::new(false));
    let ordering = std::sync::atomic::Ordering::SeqCst;
    thread::scope(|scope| {
        let proxy = scope.spawn(|| {
            let asked = silent.accept().unwrap();
            stop.store(true, ordering);
            waker.wake_by_ref();
            asked
        });
        let far = FAR.parse().unwrap();
        let ended = node
            .run(PATIENCE, |dht, now, out| dht.ping(now, far, out), &mut |_| false, &|| stop.load(ordering));
        assert!(!ended.unwrap().complete);
        drop(proxy.join());
    });
}
