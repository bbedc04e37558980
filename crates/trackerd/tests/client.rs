//! Our client of UDP trackers and two trackers: our own, and opentracker where it is installed.

use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_discovery::udp::{PATIENCE, UdpOut, UdpTrackers};
use piecemeal_metainfo::{InfoHash, PeerId, Time, TorrentId};
use piecemeal_trackerd::{Config, TrackerServer};
use piecemeal_wire::tracker::{
    AnnounceAnswer, AnnounceReply, AnnounceRequest, Event, ScrapeCounts, ScrapeReply, announce_url,
    scrape_url,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HASH: InfoHash = InfoHash([0xab; 20]);

/// The client, with a clock and a socket, as the shell gives it.
struct Client {
    udp: UdpTrackers,
    socket: UdpSocket,
    rng: ChaCha20Rng,
    born: Instant,
    asked: u64,
}

impl Client {
    fn new(to: SocketAddr) -> Client {
        let local: SocketAddr = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let rng = ChaCha20Rng::seed_from_u64(1);
        Client { udp: UdpTrackers::new(), socket, rng, born: Instant::now(), asked: 0 }
    }

    fn fetch(&mut self, url: String, to: SocketAddr) -> Result<Vec<u8>, FetchFailure> {
        let id = FetchId(self.asked);
        self.asked += 1;
        let fetch = Fetch { id, url, family: Family::V4, timeout: PATIENCE };
        let mut out = UdpOut::default();
        self.udp.ask(self.now(), &mut self.rng, (TorrentId(1), &fetch), to, &mut out);
        let mut buffer = [0; 4096];
        while out.fetched.is_empty() {
            for datagram in out.datagrams.drain(..) {
                self.socket.send_to(&datagram.bytes, datagram.to).unwrap();
            }
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                let now = self.now();
                assert!(self.udp.on_datagram(now, &mut self.rng, from, &buffer[..len], &mut out));
            }
            self.udp.heartbeat(self.now(), &mut self.rng, &mut out);
            assert!(self.born.elapsed() < Duration::from_secs(60), "no answer");
        }
        assert_eq!(out.fetched[0].id, id);
        out.fetched.remove(0).result
    }

    fn announce(&mut self, url: &str, to: SocketAddr, request: &AnnounceRequest) -> AnnounceReply {
        AnnounceReply::decode(&self.fetch(announce_url(url, request), to).unwrap()).unwrap()
    }

    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.born.elapsed().as_nanos()).unwrap())
    }
}

fn request(port: u16, left: u64) -> AnnounceRequest {
    let event = Some(Event::Started);
    AnnounceRequest { left, event, numwant: Some(50), ..AnnounceRequest::new(HASH, PeerId([b'p'; 20]), port) }
}

fn taken(reply: AnnounceReply) -> AnnounceAnswer {
    match reply {
        AnnounceReply::Answer(answer) => answer,
        AnnounceReply::Failure(why) => panic!("{why:?}"),
    }
}

/// A seed and two leeches come, are counted and found, and one leaves.
fn life_of_a_swarm(url: &str, to: SocketAddr) {
    let mut client = Client::new(to);
    let here = client.socket.local_addr().unwrap().ip();
    let seed = taken(client.announce(url, to, &request(1001, 0)));
    assert_eq!((seed.complete, seed.incomplete), (Some(1), Some(0)));
    taken(client.announce(url, to, &request(1002, 9)));
    let third = taken(client.announce(url, to, &request(1003, 9)));
    assert_eq!((third.complete, third.incomplete), (Some(1), Some(2)));
    assert!(third.interval.is_some_and(|seconds| seconds >= 60), "{third:?}");
    let mut ports: Vec<_> = third.peers.iter().map(|peer| (peer.addr.ip(), peer.addr.port())).collect();
    ports.sort_unstable();
    // Some trackers tell us of ourselves, too.
    ports.retain(|(_, port)| *port != 1003);
    assert_eq!(ports, [(here, 1001), (here, 1002)]);
    let gone = AnnounceRequest { event: Some(Event::Stopped), ..request(1002, 9) };
    taken(client.announce(url, to, &gone));

    let scrape = client.fetch(scrape_url(url, &[HASH]).unwrap(), to).unwrap();
    let Ok(ScrapeReply::Answer(scrape)) = ScrapeReply::decode(&scrape) else { panic!() };
    assert_eq!(scrape.files, [(HASH, ScrapeCounts { complete: 1, downloaded: 0, incomplete: 1 })]);
    assert!(client.udp.is_empty());
}

#[test]
fn our_client_and_our_tracker() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(tracker) = TrackerServer::start(Config::new(vec![listen.parse().unwrap()])) else { continue };
        life_of_a_swarm(&tracker.udp_urls()[0], tracker.addrs()[0]);
        assert_eq!(tracker.stats().connects, 1, "one connection id for all");
        tracker.stop();
    }
}

/// Started for a test and gone with it.
struct Opentracker(Child);

impl Drop for Opentracker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_client_and_opentracker() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("torrents");
    std::fs::write(&list, format!("{HASH}\n")).unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    // Debian's serves only what is listed.
    let child = Command::new("opentracker")
        .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-P", &port.to_string(), "-u", "nobody", "-w"])
        .arg(&list)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        eprintln!("opentracker is not installed: nothing was tested");
        return;
    };
    let mut opentracker = Opentracker(child);
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(to).is_err() {
        let ended = opentracker.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < until, "opentracker did not start: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    life_of_a_swarm(&format!("udp://{to}/announce"), to);
    let other = AnnounceRequest { info_hash: InfoHash([1; 20]), ..request(1001, 0) };
    let reply = Client::new(to).announce(&format!("udp://{to}"), to, &other);
    assert!(matches!(reply, AnnounceReply::Failure(_)), "it has no words, but is an answer: {reply:?}");
}
