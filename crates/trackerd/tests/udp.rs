//! The tracker as clients meet it: datagrams over loopback, beside HTTP, with lists that change.

use piecemeal_metainfo::{InfoHash, PeerId};
use piecemeal_trackerd::{Config, TrackerServer};
use piecemeal_wire::tracker::AnnounceRequest;
use piecemeal_wire::tracker::udp::{self as wire, ConnectionId, Transaction, UdpAnswer};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const HASH: InfoHash = InfoHash([0xab; 20]);
const T: Transaction = Transaction(42);

fn request(port: u16, left: u64) -> AnnounceRequest {
    AnnounceRequest { left, ..AnnounceRequest::new(HASH, PeerId([b'p'; 20]), port) }
}

fn exchange(socket: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 2048];
    socket.send(bytes).unwrap();
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// A client of the tracker at `to`.
fn connect(to: SocketAddr) -> (UdpSocket, ConnectionId) {
    let from: SocketAddr = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(to).unwrap();
    match UdpAnswer::decode(&exchange(&socket, &wire::connect_request(T))) {
        Ok(UdpAnswer::Connected { transaction: T, connection }) => (socket, connection),
        other => panic!("{other:?}"),
    }
}

fn announce(to: SocketAddr, request: &AnnounceRequest, path: &str) -> Result<Vec<SocketAddr>, String> {
    let (socket, connection) = connect(to);
    let bytes = exchange(&socket, &wire::announce_request(connection, T, request, path.as_bytes()));
    match UdpAnswer::decode(&bytes) {
        Ok(UdpAnswer::Announced { transaction: T, answer }) => {
            Ok(answer.into_answer(to.is_ipv6()).peers.into_iter().map(|peer| peer.addr).collect())
        }
        Ok(UdpAnswer::Failed { transaction: T, message }) => Err(wire::words(message)),
        other => panic!("{other:?}"),
    }
}

fn get(to: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn one_port_one_book_two_protocols_and_both_families() {
    let Ok(tracker) = TrackerServer::start(Config::new(vec!["[::]:0".parse().unwrap()])) else {
        return; // A machine without IPv6.
    };
    let port = tracker.addrs()[0].port();
    let (v4, v6) = (SocketAddr::from(([127, 0, 0, 1], port)), format!("[::1]:{port}").parse().unwrap());
    assert_eq!(tracker.udp_urls(), [format!("udp://[::1]:{port}/announce")]);
    assert_eq!(announce(v4, &request(1, 0), ""), Ok(vec![]));
    assert_eq!(announce(v6, &request(2, 0), ""), Ok(vec![]));
    assert_eq!(announce(v4, &request(3, 9), "/announce"), Ok(vec!["127.0.0.1:1".parse().unwrap()]));
    assert_eq!(announce(v6, &request(4, 9), ""), Ok(vec!["[::1]:2".parse().unwrap()]));
    let query = format!("info_hash={}&peer_id={}&port=5&left=1&compact=1", "%AB".repeat(20), "q".repeat(20));
    assert!(get(v4, &format!("/announce?{query}")).contains("8:completei2e"));
    let metrics = get(v4, "/metrics");
    assert!(metrics.contains("announces_total{protocol=\"udp\"} 4\n"), "{metrics}");
    assert!(metrics.contains("announces_total{protocol=\"http\"} 1\n"), "{metrics}");
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(get(v4, "/stats").contains("<th>peers<td>5"));
    let stats = tracker.stats();
    assert_eq!((stats.announces, stats.udp_announces, stats.connects), (5, 4, 4));
    tracker.stop();
}

#[test]
fn nonsense_is_passed_over() {
    let tracker = TrackerServer::start(Config::new(vec!["127.0.0.1:0".parse().unwrap()])).unwrap();
    let to = tracker.addrs()[0];
    let (socket, connection) = connect(to);
    for len in 0..97 {
        socket.send(&vec![len as u8; len]).unwrap();
    }
    let wrong = ConnectionId(connection.0 ^ 1 << 40);
    let bytes = exchange(&socket, &wire::announce_request(wrong, T, &request(1, 0), b""));
    assert!(matches!(UdpAnswer::decode(&bytes), Ok(UdpAnswer::Failed { .. })));
    assert_eq!(announce(to, &request(1, 0), ""), Ok(vec![]));
    let stats = tracker.stats();
    assert_eq!((stats.malformed, stats.unproven, stats.peers), (97, 1, 1));
    tracker.stop();
}

#[test]
fn lists_are_read_again_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (allow, keys) = (dir.path().join("allow"), dir.path().join("keys"));
    fs::write(&allow, "").unwrap();
    fs::write(&keys, "k1\n").unwrap();
    let mut config = Config::new(vec!["127.0.0.1:0".parse().unwrap()]);
    (config.lists.allow, config.lists.passkeys) = (Some(allow.clone()), Some(keys.clone()));
    let tracker = TrackerServer::start(config.clone()).unwrap();
    let to = tracker.addrs()[0];
    assert_eq!(tracker.urls(), [format!("http://{to}/PASSKEY/announce")]);
    let http = |path: &str| {
        get(to, &format!("{path}?info_hash={}&peer_id={}&port=5&left=1", "%AB".repeat(20), "q".repeat(20)))
    };

    assert!(announce(to, &request(1, 0), "/k1/announce").unwrap_err().contains("not served"));
    assert!(http("/k1/announce").contains("not served"));
    fs::write(&allow, format!("{HASH} # ours\n")).unwrap();
    assert!(announce(to, &request(1, 0), "/k1/announce").is_err(), "not read yet");
    tracker.reload().unwrap();
    assert!(announce(to, &request(1, 0), "/k1/announce").is_ok());
    assert!(http("/k1/announce").contains("8:intervali1800e"));
    for path in ["/announce", "/k2/announce"] {
        assert!(http(path).contains("passkey") && announce(to, &request(1, 0), path).is_err(), "{path}");
    }
    assert!(http("/k1/scrape").contains("8:completei"));
    assert!(http("/scrape").contains("passkey"));

    fs::write(&keys, "k2\n").unwrap();
    fs::write(&allow, "nonsense\n").unwrap();
    assert!(tracker.reload().unwrap_err().to_string().contains("allow:1:"));
    assert!(announce(to, &request(1, 0), "/k1/announce").is_ok(), "as before");
    fs::write(&allow, HASH.to_string()).unwrap();
    tracker.reload().unwrap();
    assert!(announce(to, &request(1, 0), "/k1/announce").is_err());
    assert!(announce(to, &request(1, 0), "/k2/announce").is_ok());
    tracker.stop();

    fs::remove_file(&keys).unwrap();
    assert!(TrackerServer::start(config).is_err(), "no file, no tracker");
}

#[test]
fn a_udp_port_in_use_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = TrackerServer::start(Config::new(vec![addr])).err().unwrap();
    assert!(error.to_string().starts_with(&addr.to_string()), "{error}");
}
