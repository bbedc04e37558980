//! The tracker as clients meet it: raw HTTP over loopback.

use piecemeal_metainfo::{InfoHash, PeerId};
use piecemeal_shell::http::ServeLimits;
use piecemeal_trackerd::{Config, TrackerServer};
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceReply, AnnounceRequest, Event, ScrapeCounts, ScrapeReply, announce_url,
    scrape_url,
};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const HASH: InfoHash = InfoHash(*b"\x00\xff%&=+ ?#/swarm.....");

fn tracker(listen: &str) -> TrackerServer {
    TrackerServer::start(Config::new(vec![listen.parse().unwrap()])).unwrap()
}

/// From a chosen loopback address, so that one machine can be several peers.
fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn loopback(host: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, host).into()
}

fn exchange(mut stream: TcpStream, request: &str) -> (u16, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let body = answer.split_off(at + 4);
    let status = str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, body)
}

/// GETs a URL of the tracker.
fn get(from: IpAddr, url: &str) -> (u16, Vec<u8>) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, target) = rest.split_once('/').unwrap();
    let to = host.parse().unwrap();
    exchange(
        connect(from, to),
        &format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    )
}

fn request(port: u16, left: u64) -> AnnounceRequest {
    let mut peer_id = [b'-'; 20];
    peer_id[..2].copy_from_slice(&port.to_be_bytes());
    AnnounceRequest { left, ..AnnounceRequest::new(HASH, PeerId(peer_id), port) }
}

fn announce(tracker: &TrackerServer, from: IpAddr, request: &AnnounceRequest) -> AnnounceAnswer {
    let (status, body) = get(from, &announce_url(&tracker.urls()[0], request));
    match AnnounceReply::decode(&body) {
        Ok(AnnounceReply::Answer(answer)) if status == 200 => answer,
        other => panic!("{status} {other:?}"),
    }
}

fn failure(tracker: &TrackerServer, path: &str) -> String {
    let base = tracker.urls()[0].strip_suffix("/announce").unwrap().to_owned();
    let (status, body) = get(loopback(1), &format!("{base}{path}"));
    match AnnounceReply::decode(&body) {
        Ok(AnnounceReply::Failure(failure)) if status == 200 => failure.reason,
        other => panic!("{status} {other:?}"),
    }
}

fn counts(tracker: &TrackerServer) -> ScrapeCounts {
    let (status, body) = get(loopback(1), &scrape_url(&tracker.urls()[0], &[HASH]).unwrap());
    match ScrapeReply::decode(&body) {
        Ok(ScrapeReply::Answer(answer)) if status == 200 => answer.files[0].1,
        other => panic!("{status} {other:?}"),
    }
}

fn addrs(answer: &AnnounceAnswer) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = answer.peers.iter().map(|peer| peer.addr).collect();
    addrs.sort();
    addrs
}

#[test]
fn two_peers_find_each_other() {
    let tracker = tracker("0.0.0.0:0");
    let port = tracker.addrs()[0].port();
    assert_eq!(tracker.urls(), [format!("http://127.0.0.1:{port}/announce")]);
    let seed = AnnounceRequest { event: Some(Event::Started), ..request(1001, 0) };
    let first = announce(&tracker, loopback(2), &seed);
    assert!(first.peers.is_empty());
    assert_eq!(first.interval, Some(1800));
    let second = announce(&tracker, loopback(3), &request(1002, 5));
    assert_eq!(addrs(&second), [SocketAddr::new(loopback(2), 1001)]);
    assert_eq!((second.complete, second.incomplete), (Some(1), Some(1)));
    let again = announce(&tracker, loopback(2), &request(1001, 0));
    assert_eq!(addrs(&again), [SocketAddr::new(loopback(3), 1002)]);

    assert_eq!(counts(&tracker), ScrapeCounts { complete: 1, downloaded: 0, incomplete: 1 });
    announce(&tracker, loopback(3), &AnnounceRequest { event: Some(Event::Completed), ..request(1002, 0) });
    assert_eq!(counts(&tracker), ScrapeCounts { complete: 2, downloaded: 1, incomplete: 0 });
    announce(&tracker, loopback(2), &AnnounceRequest { event: Some(Event::Stopped), ..request(1001, 0) });
    assert_eq!(counts(&tracker), ScrapeCounts { complete: 1, downloaded: 1, incomplete: 0 });
    let stats = tracker.stats();
    assert_eq!(
        (stats.announces, stats.scrapes, stats.failures, stats.torrents, stats.peers),
        (5, 3, 0, 1, 1)
    );
    tracker.stop();
}

#[test]
fn unpacked_for_those_who_ask() {
    let tracker = tracker("127.0.0.1:0");
    announce(&tracker, loopback(1), &request(1001, 0));
    let plain = AnnounceRequest { compact: false, ..request(1002, 5) };
    let (_, body) = get(loopback(1), &announce_url(&tracker.urls()[0], &plain));
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("5:peersld2:ip9:127.0.0.14:porti1001eee"), "{text}");
    assert_eq!(addrs(&announce(&tracker, loopback(1), &request(1003, 5))).len(), 2);
    tracker.stop();
}

#[test]
fn what_a_peer_claims_to_be_is_ignored() {
    let tracker = tracker("127.0.0.1:0");
    let victim = IpAddr::from([192, 0, 2, 1]);
    announce(&tracker, loopback(1), &AnnounceRequest { ip: Some(victim), ..request(1001, 0) });
    let seen = announce(&tracker, loopback(1), &request(1002, 5));
    assert_eq!(addrs(&seen), [SocketAddr::new(loopback(1), 1001)]);
    tracker.stop();
}

#[test]
fn both_families() {
    let Ok(tracker) = TrackerServer::start(Config::new(vec!["[::]:0".parse().unwrap()])) else {
        return; // A machine without IPv6.
    };
    let port = tracker.addrs()[0].port();
    let v6: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let ask = |from: IpAddr, to: SocketAddr, request: &AnnounceRequest| {
        let (_, body) = get(from, &announce_url(&format!("http://{to}/announce"), request));
        match AnnounceReply::decode(&body) {
            Ok(AnnounceReply::Answer(answer)) => addrs(&answer),
            other => panic!("{other:?}"),
        }
    };
    let v4 = SocketAddr::new(loopback(1), port);
    ask(v6.ip(), v6, &request(1001, 0));
    ask(v4.ip(), v4, &request(1002, 0));
    // Mapped addresses came in as IPv4.
    assert!(ask(v4.ip(), v4, &request(1003, 5)).contains(&SocketAddr::new(loopback(1), 1002)));
    assert!(ask(v6.ip(), v6, &request(1004, 5)).contains(&SocketAddr::new(v6.ip(), 1001)));
    tracker.stop();
}

#[test]
fn nonsense_gets_a_reason() {
    let tracker = tracker("127.0.0.1:0");
    let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
    let id = "peer_id=bbbbbbbbbbbbbbbbbbbb";
    let table = [
        ("/announce".to_owned(), "missing info_hash"),
        (format!("/announce?{id}&port=1&left=0"), "missing info_hash"),
        (format!("/announce?info_hash=short&{id}&port=1&left=0"), "malformed info_hash"),
        (format!("/announce?info_hash=%zz&{id}&port=1&left=0"), "bad percent escape"),
        (format!("/announce?{hash}&{hash}&{id}&port=1&left=0"), "repeated info_hash"),
        (format!("/announce?{hash}&{id}&port=99999&left=0"), "malformed port"),
        (format!("/announce?{hash}&{id}&port=1&left=x"), "malformed left"),
        ("/scrape?info_hash=short".to_owned(), "malformed info_hash"),
        ("/scrape".to_owned(), "name the torrents to be scraped"),
        (format!("/scrape?{}", [hash; 75].join("&")), "too many info_hash"),
    ];
    for (path, reason) in &table {
        assert_eq!(failure(&tracker, path), *reason, "{path}");
    }
    assert!(!failure(&tracker, &format!("/announce?{hash}&{id}&port=0&left=0")).is_empty());
    assert_eq!(tracker.stats().failures, table.len() as u64 + 1);
    tracker.stop();
}

#[test]
fn other_paths_and_methods() {
    let tracker = tracker("127.0.0.1:0");
    let base = tracker.urls()[0].strip_suffix("announce").unwrap().to_owned();
    let (status, body) = get(loopback(1), &base);
    assert_eq!((status, body.iter().filter(|byte| **byte == b'\n').count()), (200, 1));
    for path in ["x", "announce/", "announce.php", "Announce", "..%2fannounce"] {
        assert_eq!(get(loopback(1), &format!("{base}{path}")).0, 404, "{path}");
    }
    let post = "POST /announce HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(connect(loopback(1), tracker.addrs()[0]), post).0, 405);
    tracker.stop();
}

#[test]
fn a_thousand_slow_ones_do_not_stop_a_good_one() {
    const PLACES: usize = 300;
    let serve =
        ServeLimits { connections: PLACES, connections_per_host: 2 * PLACES, ..ServeLimits::default() };
    let config = Config { serve, ..Config::new(vec!["127.0.0.1:0".parse().unwrap()]) };
    let tracker = TrackerServer::start(config).unwrap();
    let mut slow = Vec::new();
    for at in 0..1000 {
        let mut stream = connect(loopback(1 + (at % 4) as u8), tracker.addrs()[0]);
        let _ = stream.write_all(b"GET /announce?info_ha");
        slow.push(stream);
        // This process has both ends, and may not be allowed two thousand of them.
        if slow.len() > PLACES {
            slow.remove(0);
        }
        if at % 250 == 249 {
            announce(&tracker, loopback(5), &request(1001, 0));
        }
    }
    assert_eq!(tracker.stats().announces, 4);
    tracker.stop();
}

#[test]
fn an_address_in_use_is_told() {
    let tracker = tracker("127.0.0.1:0");
    let error = TrackerServer::start(Config::new(vec![tracker.addrs()[0]])).err().unwrap();
    assert!(error.to_string().starts_with(&tracker.addrs()[0].to_string()), "{error}");
    assert!(TrackerServer::start(Config::new(Vec::new())).is_err());
    let odd = Config { interval: Duration::ZERO, ..Config::new(vec!["127.0.0.1:0".parse().unwrap()]) };
    assert!(TrackerServer::start(odd).is_err());
    tracker.stop();
}
