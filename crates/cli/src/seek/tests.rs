//! Commands that are given links, over an engine that only says what it is told to.

use crate::test_kit::Ink;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use piecemeal_api::*;
use piecemeal_metainfo::Metainfo;
use piecemeal_metainfo::Version;
use piecemeal_metainfo::create::{Content as Made, Files, NewFile, Options as Making, Plan};

use crate::{Bars, ErrStream, FAILED, Host, INTERRUPTED, Interrupt, USAGE};

const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

/// What becomes of a link.
#[derive(Clone, Debug)]
enum Fate {
    Found(Resolved),
    Refused(Refusal),
    /// Nothing, until cancelled.
    Waits,
    /// Nothing, and its engine says goodbye for as long as it may.
    Clings,
}

/// An engine that finds links and has what is added at once.
#[derive(Clone)]
struct Engine {
    fate: Fate,
    asked: Arc<Mutex<Vec<ResolveRequest>>>,
    added: Arc<Mutex<Vec<AddTorrent>>>,
    left: Arc<Mutex<u32>>,
    stayed: Arc<Mutex<bool>>,
}

struct Silence(Vec<Event>);

impl Events for Silence {
    fn next(&mut self, wait: Duration) -> Heard {
        match self.0.pop() {
            Some(event) => Heard::Event(event),
            None => {
                std::thread::sleep(wait.min(Duration::from_millis(10)));
                Heard::Nothing
            }
        }
    }
    fn poll(&mut self, _: &std::task::Waker) -> Heard {
        // Nothing more will come, so nobody need be woken.
        self.0.pop().map_or(Heard::Nothing, Heard::Event)
    }
}

impl Client for Engine {
    fn add(&self, torrent: AddTorrent) -> Result<TorrentId, Refusal> {
        self.added.lock().unwrap().push(torrent);
        Ok(TorrentId(7))
    }
    fn resolve(&self, request: ResolveRequest, cancel: &Cancel) -> Result<Resolved, Refusal> {
        self.asked.lock().unwrap().push(request);
        // So that the events of the search are heard first.
        std::thread::sleep(Duration::from_millis(300));
        match self.fate.clone() {
            Fate::Found(resolved) => Ok(resolved),
            Fate::Refused(refusal) => Err(refusal),
            Fate::Waits | Fate::Clings => {
                while !cancel.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Refusal::Cancelled)
            }
        }
    }
    fn status(&self, id: TorrentId) -> Result<Status, Refusal> {
        Ok(Status {
            torrent: id,
            name: "show".into(),
            info_hash: None,
            info_hash_v2: None,
            dir: "/d".into(),
            state: State::Seeding,
            size: 10,
            wanted_bytes: 10,
            have_bytes: 10,
            have_pieces: 1,
            pieces: 1,
            down_rate: 0,
            up_rate: 0,
            totals: Totals::default(),
            peers: 0,
            seeds: 0,
            givers: 0,
            known_peers: 0,
            active_s: 0,
            limits: Limits::default(),
        })
    }
    fn events(&self) -> Box<dyn Events> {
        let hash = Some(InfoHash(piecemeal_metainfo::Magnet::parse(&link("")).unwrap().hashes.wire().0));
        let event = |peers| Event::Resolving {
            torrent: TorrentId(3),
            name: "film".into(),
            info_hash: hash,
            info_hash_v2: None,
            peers,
            known_peers: 4,
        };
        let why = "it lies".to_owned();
        let addr = "9.9.9.9:9".parse().unwrap();
        Box::new(Silence(vec![Event::Banned { torrent: TorrentId(3), addr, reason: why }, event(2)]))
    }
    fn mapping(&self) -> Option<piecemeal_api::Mapping> {
        None
    }
    fn ban(&self, _: &str) -> Result<bool, Refusal> {
        Ok(true)
    }
    fn unban(&self, _: &str) -> Result<bool, Refusal> {
        Ok(true)
    }
    fn bans(&self) -> Vec<String> {
        Vec::new()
    }
    fn ip_filter(&self) -> IpFilterStatus {
        IpFilterStatus::default()
    }
    fn listening(&self) -> Vec<SocketAddr> {
        vec!["127.0.0.1:1".parse().unwrap()]
    }
    fn shutdown(&self, deadline: Duration) -> Farewell {
        *self.left.lock().unwrap() += 1;
        if let Fate::Clings = self.fate {
            // As one whose trackers do not answer: who asked twice does not wait for it.
            std::thread::sleep(deadline);
            *self.stayed.lock().unwrap() = true;
        }
        Farewell::default()
    }
    fn details(&self, id: TorrentId) -> Result<Details, Refusal> {
        Err(Refusal::UnknownTorrent { torrent: id })
    }
    fn list(&self) -> Vec<Status> {
        Vec::new()
    }
    fn set_limits(&self, _: Limits) {}
    fn pause(&self, _: TorrentId) -> Result<(), Refusal> {
        Ok(())
    }
    fn resume(&self, _: TorrentId) -> Result<(), Refusal> {
        Ok(())
    }
    fn remove(&self, _: TorrentId, _: Content) -> Result<(), Refusal> {
        Ok(())
    }
    fn recheck(&self, _: TorrentId) -> Result<(), Refusal> {
        Ok(())
    }
    fn announce(&self, _: TorrentId) -> Result<(), Refusal> {
        Ok(())
    }
    fn add_peers(&self, _: TorrentId, _: &[SocketAddr]) -> Result<(), Refusal> {
        Ok(())
    }
    fn set_options(&self, _: TorrentId, _: Options) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Tools for Engine {
    fn create(&self, _: &CreateRequest, _: &Work<'_>) -> Result<Created, Refusal> {
        Err(Refusal::Closed)
    }
    fn verify(&self, _: &VerifyRequest, _: &Work<'_>) -> Result<Verdict, Refusal> {
        Err(Refusal::Closed)
    }
    fn announce_all(&self, _: &AnnounceRequest, _: &Cancel) -> Result<Vec<TrackerAnswer>, Refusal> {
        Err(Refusal::Closed)
    }
    fn fetch_torrent(&self, _: &str, _: &NetOptions, _: &Cancel) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::Closed)
    }
    fn dht(&self, _: &DhtRequest, _: &mut dyn FnMut(DhtFinding), _: &Cancel) -> Result<DhtSummary, Refusal> {
        Err(Refusal::Closed)
    }
    fn new_dht_key(&self) -> Result<[u8; 32], Refusal> {
        Err(Refusal::Closed)
    }
    fn examine(&self, _: &DoctorRequest, _: &Cancel) -> Result<Diagnosis, Refusal> {
        unreachable!()
    }
    fn start_tracker(&self, _: &TrackerOptions) -> Result<Box<dyn RunningTracker>, Refusal> {
        Err(Refusal::Closed)
    }
    fn start_client(&self, _: &EngineOptions) -> Result<Box<dyn Client>, Refusal> {
        Ok(Box::new(self.clone()))
    }
    fn cpu_time(&self) -> Option<Duration> {
        None
    }
}

/// What a command came to.
struct Ran {
    code: u8,
    out: String,
    err: String,
    asked: Vec<ResolveRequest>,
    added: Vec<AddTorrent>,
    /// Engines that were told to leave.
    left: u32,
    /// One of them had all the time that it may have.
    stayed: bool,
}

/// Runs a command in a directory; interrupted after two seconds, and again when it is about to leave.
fn run(fate: Fate, dir: &Path, args: &[&str]) -> Ran {
    let engine = Engine {
        fate,
        asked: Arc::default(),
        added: Arc::default(),
        left: Arc::default(),
        stayed: Arc::default(),
    };
    let (out, err) = (Ink::default(), Ink::default());
    let mut host = Host {
        out: Box::new(out.clone()),
        err: ErrStream::new(err.clone()),
        bars: Bars::Off,
        cwd: dir.to_owned(),
        temp_dir: dir.to_owned(),
        state_dir: None,
    };
    let stop = Arc::new(Interrupt::default());
    let (raise, said) = (stop.clone(), err.clone());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        raise.raise();
        while !said.read().contains("Ctrl-C again") {
            std::thread::sleep(Duration::from_millis(5));
            if Arc::strong_count(&raise) == 1 {
                return;
            }
        }
        raise.raise();
    });
    let args = ["piecemeal"].iter().chain(args).map(std::ffi::OsString::from);
    let code = crate::run(args, &engine, &mut host, &stop);
    let asked = engine.asked.lock().unwrap().clone();
    let added = engine.added.lock().unwrap().clone();
    let (left, stayed) = (*engine.left.lock().unwrap(), *engine.stayed.lock().unwrap());
    Ran { code, out: out.read(), err: err.read(), asked, added, left, stayed }
}

fn link(rest: &str) -> String {
    format!("magnet:?xt=urn:btih:{HEX}&dn=film{rest}")
}

/// `show/a` and `show/b`, of which the link asks for `b`.
fn found() -> Fate {
    let file = |name: &str| NewFile { path: vec![name.to_owned()], length: 5, ..NewFile::default() };
    let made = Made { name: "show".into(), files: Files::Many(vec![file("a"), file("b")]) };
    let plan = Plan::new(made, Making::new(Version::V1)).unwrap();
    let torrent = plan.finish(&vec![[9; 20]; plan.pieces() as usize], &[]).unwrap();
    Fate::Found(Resolved {
        metainfo: torrent.into(),
        known: vec!["9.9.9.9:1".parse().unwrap()],
        select: Selection::Only { files: vec![FileIndex(1)] },
    })
}

#[test]
fn get_fetches_what_the_link_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(found(), dir.path(), &["get", &link("&so=1"), "--peer=9.9.9.9:2"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.asked.len(), 1);
    assert_eq!((&ran.asked[0].magnet, ran.asked[0].leave), (&link("&so=1"), false));
    assert_eq!(ran.asked[0].peers, ["9.9.9.9:2".parse().unwrap()]);
    assert_eq!(ran.added[0].select, Selection::Only { files: vec![FileIndex(1)] });
    assert_eq!(ran.added[0].known, ["9.9.9.9:1".parse().unwrap()]);
    assert_eq!(ran.added[0].peers, ran.asked[0].peers);
    assert_eq!(
        ran.err,
        "listening on 127.0.0.1:1\n\
         film: banned 9.9.9.9:9: it lies\n\
         film: asking 2 peers what this torrent is\n\
         show: seeding, 0 B sent, 0 B/s, 0 peers, ratio 0.00\n"
    );
    assert!(ran.out.starts_with("show: 10 B, all of it there already"), "{}", ran.out);
    // What the user selects counts more than what the link says.
    let ran = run(found(), dir.path(), &["get", &link("&so=1"), "--select=a"]);
    assert_eq!(ran.added[0].select, Selection::Only { files: vec![FileIndex(0)] });
}

#[test]
fn get_says_in_one_line_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Refusal::BadTorrent { what: "film".into(), reason: "info.name: missing".into() };
    let Fate::Found(resolved) = found() else { panic!("it is found") };
    let none = Fate::Found(Resolved { select: Selection::Only { files: vec![] }, ..resolved });
    let rows = [
        (Fate::Refused(bad), "film: info.name: missing; get the .torrent file again, or another one"),
        (Fate::Refused(Refusal::Closed), "film: engine: it has shut down; start it again"),
        (none, "film: the link asks for files that it does not have; choose others with --select"),
    ];
    for (fate, line) in rows {
        let ran = run(fate, dir.path(), &["get", &link("")]);
        assert_eq!((ran.code, ran.left), (FAILED, 1));
        assert_eq!(ran.err.lines().last(), Some(&*format!("piecemeal: {line}")));
        assert!(ran.added.is_empty());
    }
    let ran = run(Fate::Waits, dir.path(), &["get", &link("")]);
    assert_eq!((ran.code, ran.left), (INTERRUPTED, 1));
    // Nothing is started for what can be seen to be wrong.
    for (args, code, word) in [
        (&["get", "magnet:?dn=x"][..], FAILED, "no info-hash"),
        (&["get", &link(""), "--select=["], USAGE, "no pattern"),
        (&["create"], USAGE, "PATH"),
        (&["create", "--from=film.torrent"], FAILED, "not a magnet link"),
        (&["create", "film", &format!("--from={}", link(""))], USAGE, "--from"),
        (&["create", "--v1", &format!("--from={}", link(""))], USAGE, "--v1"),
        (&["show", "--offline", "--timeout=3s", &link("")], USAGE, "--timeout"),
    ] {
        let ran = run(found(), dir.path(), args);
        let line = ran.err.lines().last().unwrap_or_default();
        assert_eq!((ran.code, ran.left), (code, 0), "{args:?}: {line}");
        assert!(line.contains(word), "{args:?}: {line}");
    }
}

#[test]
fn a_second_wish_to_stop_does_not_wait_for_the_farewell() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(Fate::Clings, dir.path(), &["get", &link("")]);
    assert_eq!((ran.code, ran.left, ran.stayed), (INTERRUPTED, 1, false));
    assert!(
        ran.err
            .ends_with("piecemeal: saying goodbye; Ctrl-C again to leave at once\npiecemeal: interrupted\n"),
        "{}",
        ran.err
    );
}

#[test]
fn show_tells_what_it_leads_to_or_at_least_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let shown = run(found(), dir.path(), &["show", &link("&so=1&x.pe=h.example:7")]);
    assert_eq!((shown.code, shown.left), (0, 1), "{}", shown.err);
    for line in ["Name          show", "Peers         h.example:7", "Files wanted  1", "  show/"] {
        assert!(shown.out.lines().any(|said| said == line), "{line}: {}", shown.out);
    }
    assert!(shown.asked[0].leave && shown.added.is_empty());
    let json = run(found(), dir.path(), &["show", "--json", &link("&so=1")]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&value["name"], &value["link"]["name"]), (&"show".into(), &"film".into()));

    let offline = run(found(), dir.path(), &["show", "--offline", &link("")]);
    assert_eq!((offline.code, offline.left, offline.asked.len()), (0, 0, 0));
    let says = format!("Name          film\nInfo-hash v1  {HEX}\n");
    assert_eq!(offline.out, says);

    let late = run(Fate::Waits, dir.path(), &["show", "--timeout=1s", &link("")]);
    assert_eq!((late.code, &late.out, late.left), (FAILED, &says, 1));
    let why = "no peer gave the torrent's description in 1.0 s; name a peer with --peer, or try again later";
    assert_eq!(late.err.lines().last(), Some(&*format!("piecemeal: film: {why}")));
    let stopped = run(Fate::Waits, dir.path(), &["show", &link("")]);
    assert_eq!((stopped.code, &stopped.out), (INTERRUPTED, &says));
}

#[test]
fn create_saves_what_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let from = format!("--from={}", link(""));
    let ran = run(found(), dir.path(), &["create", &from]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let file = dir.path().join("show.torrent");
    let saved = std::fs::read(&file).unwrap();
    let Fate::Found(resolved) = found() else { panic!("it is found") };
    assert_eq!(saved, resolved.metainfo[..]);
    let magnet = Metainfo::parse(&saved).unwrap().magnet();
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(
        (lines[0], lines[1]),
        (&*file.display().to_string(), "show: 10 B in 2 files, 1 piece of 16.0 KiB")
    );
    assert_eq!(lines.last(), Some(&&*magnet));
    // What is there is not replaced, and nobody is asked when that is known before.
    let again = run(found(), dir.path(), &["create", &from]);
    assert_eq!((again.code, again.asked.len()), (FAILED, 1), "{}", again.err);
    let named = run(found(), dir.path(), &["create", &from, "-o", "show.torrent"]);
    assert_eq!((named.code, named.asked.len()), (FAILED, 0), "{}", named.err);
    let forced = run(found(), dir.path(), &["create", &from, "-o", "show.torrent", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
}
