//! Whom a session does not talk to: lists from files and servers, and bans, over real sockets on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use piecemeal::api::{
    AddTorrent, Cancel, CreateRequest, EngineOptions, Limits, NetOptions, TorrentId, Transports, Verify, Work,
};
use piecemeal::{Session, tools};
use piecemeal_shell::http::{Answer, ServeLimits, Serving, serve};

const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    folder: tempfile::TempDir,
    torrent: Vec<u8>,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("seed")).unwrap();
        let content = folder.path().join("seed/film");
        fs::write(&content, vec![7; 4 << 20]).unwrap();
        let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
        let request = CreateRequest { piece_length: Some(64 << 10), ..CreateRequest::new(content) };
        let torrent = tools::create(&request, &work).unwrap().metainfo.to_vec();
        Stage { folder, torrent }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn add(&self, to: &Session, dir: &str, peers: &[SocketAddr]) -> TorrentId {
        let dir: PathBuf = self.path().join(dir);
        let add = AddTorrent { peers: peers.to_vec(), ..AddTorrent::new(self.torrent.clone(), dir) };
        to.add(AddTorrent { verify: Verify::Trust, ..add }).unwrap()
    }
}

/// Listens there, and calls from there.
fn at(ip: &str) -> EngineOptions {
    let ip: IpAddr = ip.parse().unwrap();
    EngineOptions {
        listen: vec![SocketAddr::new(ip, 0)],
        net: NetOptions { bind: vec![ip], ..NetOptions::default() },
        pool_bytes: Some(4 << 20),
        ..EngineOptions::default()
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The addresses of those connected.
fn peers(session: &Session, id: TorrentId) -> Vec<IpAddr> {
    session.details(id).unwrap().peers.iter().map(|peer| peer.addr.ip()).collect()
}

fn served(body: &'static [u8], status: u16) -> (Serving, String) {
    let answer = move |_: &piecemeal_shell::http::Asked<'_>| Answer {
        status,
        content_type: "application/gzip",
        body: body.to_vec(),
    };
    let serving = serve(vec!["127.0.0.1:0".parse().unwrap()], answer, ServeLimits::default()).unwrap();
    let url = format!("http://{}/list", serving.addrs()[0]);
    (serving, url)
}

#[test]
#[cfg(target_os = "linux")]
fn who_is_banned_is_sent_away_and_may_come_back() {
    for transports in [Transports::Tcp, Transports::Utp] {
        let stage = Stage::new();
        let slow = Limits { down: None, up: Some(64 << 10) };
        let seed = Session::start(&EngineOptions { limits: slow, transports, ..at("127.0.0.2") }).unwrap();
        stage.add(&seed, "seed", &[]);
        let leech = Session::start(&EngineOptions { transports, ..at("127.0.0.1") }).unwrap();
        let id = stage.add(&leech, "leech", seed.listening());
        until("it is connected", || !peers(&leech, id).is_empty());
        assert_eq!(
            (leech.ban("127.0.0.2-127.0.0.9"), leech.ban(" 127.0.0.2-127.0.0.9")),
            (Ok(true), Ok(false))
        );
        assert_eq!(leech.bans(), ["127.0.0.2-127.0.0.9"]);
        until("it is sent away", || peers(&leech, id).is_empty());
        assert!(leech.ip_filter().blocked > 0);
        // It is not known any more, and naming it does not help.
        until("it is forgotten", || leech.status(id).unwrap().known_peers == 0);
        leech.add_peers(id, seed.listening()).unwrap();
        assert_eq!(leech.unban("127.0.0.2"), Ok(false));
        assert_eq!(leech.unban("127.0.0.2-127.0.0.9"), Ok(true));
        assert!(leech.bans().is_empty());
        leech.add_peers(id, seed.listening()).unwrap();
        until("it is back", || !peers(&leech, id).is_empty());
        let why = leech.ban("nobody").unwrap_err().to_string();
        assert!(why.starts_with("ban: `nobody` is no address and no range of them; write it like"), "{why}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn content_comes_from_those_who_are_not_blocked() {
    let stage = Stage::new();
    let list = stage.path().join("list.p2p");
    fs::write(&list, "somebody:127.0.0.2-127.0.0.2\n").unwrap();
    let seeds = ["127.0.0.2", "127.0.0.3"].map(|ip| {
        let seed = Session::start(&at(ip)).unwrap();
        stage.add(&seed, "seed", &[]);
        seed
    });
    let options = EngineOptions { ip_filters: vec![list.to_str().unwrap().into()], ..at("127.0.0.1") };
    let leech = Session::start(&options).unwrap();
    let filter = leech.ip_filter();
    assert_eq!((filter.ranges, filter.lists.len(), filter.lists[0].warning.clone()), (1, 1, None));
    let named = seeds.each_ref().map(|seed| seed.listening()[0]);
    let id = stage.add(&leech, "leech", &named);
    until("it is complete", || leech.status(id).unwrap().complete());
    let sent = |seed: &Session| seed.list()[0].totals.uploaded;
    until("the one that is let in has sent it", || sent(&seeds[1]) >= 4 << 20);
    assert_eq!(sent(&seeds[0]), 0);
    // Whoever is blocked may call as well.
    let blocked = leech.ip_filter().blocked;
    seeds[0].add_peers(seeds[0].list()[0].torrent, leech.listening()).unwrap();
    until("it is refused", || leech.ip_filter().blocked > blocked);
}

#[test]
fn lists_come_from_servers_and_stay_over_a_restart() {
    let stage = Stage::new();
    let (server, url) = served(b"1.2.3.4\n5.6.7.0/24\n", 200);
    let state_dir = Some(stage.path().join("state"));
    let options = EngineOptions { ip_filters: vec![url.clone()], state_dir, ..at("127.0.0.1") };
    let session = Session::start(&options).unwrap();
    until("it is fetched", || session.ip_filter().ranges == 2);
    assert!(!session.ip_filter().lists[0].waiting);
    drop(session);
    server.stop();
    let session = Session::start(&options).unwrap();
    assert_eq!(session.ip_filter().ranges, 2);
}

#[test]
fn a_list_that_is_what_we_have_is_not_fetched_again() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list", listener.local_addr().unwrap());
    let (tell, asked) = channel();
    // A server that knows its list by a tag.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let knows = head.iter().any(|line| line == "if-none-match: \"7\"");
            let said = match knows {
                true => "304 Not Modified\r\nconnection: close\r\n\r\n".to_owned(),
                false => "200 OK\r\netag: \"7\"\r\nconnection: close\r\n\r\n1.2.3.4\n5.6.7.0/24\n".to_owned(),
            };
            stream.write_all(format!("HTTP/1.1 {said}").as_bytes()).unwrap();
            if tell.send(knows).is_err() {
                return;
            }
        }
    });
    let state_dir = stage.path().join("state");
    let options =
        EngineOptions { ip_filters: vec![url], state_dir: Some(state_dir.clone()), ..at("127.0.0.1") };
    let session = Session::start(&options).unwrap();
    until("it is fetched", || session.ip_filter().ranges == 2);
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(false));
    drop(session);
    // A day goes by.
    let copy = fs::read_dir(state_dir.join("ip-filters")).unwrap().next().unwrap().unwrap().path();
    let modified = || fs::metadata(&copy).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&copy).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let session = Session::start(&options).unwrap();
    assert_eq!(asked.recv_timeout(PATIENCE), Ok(true));
    until("that it is fresh is kept", || modified() > SystemTime::UNIX_EPOCH);
    let filter = session.ip_filter();
    assert_eq!((filter.ranges, filter.lists[0].warning.clone()), (2, None));
}

#[test]
fn a_server_that_fails_is_told_of_and_nothing_waits_for_it() {
    let (_server, url) = served(b"gone", 404);
    let session =
        Session::start(&EngineOptions { ip_filters: vec![url.clone()], ..at("127.0.0.1") }).unwrap();
    until("it is told", || session.ip_filter().lists[0].warning.is_some());
    let list = &session.ip_filter().lists[0];
    assert_eq!(
        list.warning.as_deref(),
        Some(&*format!("{url}: the server answered 404; trying again later"))
    );
    assert!(list.waiting && list.ranges == 0);
    // One that says nothing at all does not hold up a farewell.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list", silent.local_addr().unwrap());
    let session = Session::start(&EngineOptions { ip_filters: vec![url], ..at("127.0.0.1") }).unwrap();
    let (_asked, _) = silent.accept().unwrap();
    let began = Instant::now();
    session.shutdown(EngineOptions::MAX_FAREWELL);
    assert!(began.elapsed() < EngineOptions::MAX_FAREWELL);
}
