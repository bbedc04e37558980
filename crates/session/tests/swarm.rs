//! Sessions that find each other on loopback: real sockets, real files, few and quick.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;
use piecemeal::api::{
    AddTorrent, Cancel, Content, CreateRequest, EngineOptions, Event, Events, FileIndex, Heard, Limits,
    Options, Refusal, Selection, State, Status, TorrentId, Verify, Work,
};
use piecemeal::{EventStream, Session, tools};
use piecemeal_wire::tracker as wire;

const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: u64 = 32 << 10;

/// A folder with content in it, and its torrent.
struct Stage {
    folder: tempfile::TempDir,
    torrent: Vec<u8>,
    size: u64,
}

impl Stage {
    /// `pieces` of content, most of them in one file, some over the edges of two small ones.
    fn new(pieces: u64) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("seed/show");
        fs::create_dir_all(content.join("extras")).unwrap();
        let size = pieces * PIECE;
        let files = [("big", size - 70_000), ("extras/a", 30_001), ("extras/b", 39_999)];
        for (at, (name, len)) in files.into_iter().enumerate() {
            fs::write(content.join(name), noise(at as u64, len as usize)).unwrap();
        }
        let request = CreateRequest {
            piece_length: Some(PIECE),
            format: piecemeal::api::Format::V1,
            ..CreateRequest::new(content)
        };
        let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
        let torrent = tools::create(&request, &work).unwrap().metainfo.to_vec();
        Stage { folder, torrent, size }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add(&self, name: &str) -> AddTorrent {
        AddTorrent::new(self.torrent.clone(), self.dir(name))
    }

    /// A session that has everything, and where it is.
    fn seed(&self, limits: Limits) -> (Session, SocketAddr) {
        let session = Session::start(&EngineOptions { limits, ..options() }).unwrap();
        session.add(AddTorrent { verify: Verify::Trust, ..self.add("seed") }).unwrap();
        let addr = session.listening()[0];
        (session, addr)
    }

    fn leech(&self, name: &str) -> Session {
        Session::start(&EngineOptions { state_dir: Some(self.dir(name).join("state")), ..options() }).unwrap()
    }

    fn same(&self, name: &str) -> bool {
        ["big", "extras/a", "extras/b"].iter().all(|file| {
            let read = |name: &str| fs::read(self.dir(name).join("show").join(file)).ok();
            read("seed").is_some() && read("seed") == read(name)
        })
    }
}

fn options() -> EngineOptions {
    EngineOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        pool_bytes: Some(4 << 20),
        ..EngineOptions::default()
    }
}

/// Bytes that differ from place to place (Vigna: xorshift64*).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(|_| word()).collect()
}

/// Makes all bytes of a file wrong, or right again, so that its facts do not tell.
fn invert(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// Listens until `done`; all that was heard.
fn until(events: &mut EventStream, done: impl Fn(&Event) -> bool) -> Vec<Event> {
    let give_up = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    loop {
        match events.next(give_up.saturating_duration_since(Instant::now())) {
            Heard::Event(event) => {
                heard.push(event);
                if heard.last().is_some_and(&done) {
                    return heard;
                }
            }
            other => panic!("{other:?} instead of what was waited for, after {heard:#?}"),
        }
    }
}

fn is_complete(event: &Event) -> bool {
    matches!(event, Event::Complete { .. })
}

fn has(bytes: u64) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Snapshot { status } if status.have_bytes >= bytes)
}

fn wait(session: &Session, id: TorrentId, so: impl Fn(&Status) -> bool) -> Status {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = session.status(id).unwrap();
        if so(&status) {
            return status;
        }
        assert!(Instant::now() < give_up, "{status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn farewell(session: &Session) {
    let began = Instant::now();
    assert_eq!(session.shutdown(EngineOptions::MAX_FAREWELL), Default::default());
    assert!(began.elapsed() < Duration::from_secs(3), "a farewell took {:?}", began.elapsed());
}

#[test]
fn content_arrives_and_is_told_of_in_order() {
    let stage = Stage::new(200);
    let (seed, at) = stage.seed(Limits::default());
    let leech = stage.leech("leech");
    let mut events = leech.events();
    let id = leech.add(AddTorrent { peers: vec![at], ..stage.add("leech") }).unwrap();
    let heard = until(&mut events, is_complete);
    let status = leech.status(id).unwrap();
    assert!(status.complete() && status.state == State::Seeding, "{status:?}");
    assert!(
        status.totals.downloaded >= stage.size && status.givers == 1 && status.have_pieces == 200,
        "{status:?}"
    );

    assert!(matches!(&heard[0], Event::Added { name, .. } if name == "show"));
    for pair in heard.windows(2) {
        if let Event::StateChanged { state, .. } = &pair[1] {
            assert!(matches!(&pair[0], Event::Snapshot { status } if status.state == *state), "{pair:?}");
        }
        if is_complete(&pair[1]) {
            assert!(matches!(&pair[0], Event::Snapshot { status } if status.complete()), "{pair:?}");
        }
    }
    let verified = heard.iter().filter(|event| matches!(event, Event::PieceVerified { .. })).count();
    assert_eq!(verified, 200);
    let details = leech.details(id).unwrap();
    assert!(details.files.iter().all(|file| file.have_bytes == file.size), "{:?}", details.files);
    assert!(stage.same("leech"));
    farewell(&leech);
    farewell(&seed);
}

#[test]
fn a_torrent_pauses_goes_on_and_is_removed_with_its_files() {
    let stage = Stage::new(60);
    let (seed, at) = stage.seed(Limits { down: None, up: Some(1_000_000) });
    let leech = stage.leech("leech");
    let mut events = leech.events();
    let add = || AddTorrent { peers: vec![at], ..stage.add("leech") };
    let id = leech.add(add()).unwrap();
    until(&mut events, has(PIECE));
    leech.pause(id).unwrap();
    until(&mut events, |event| matches!(event, Event::StateChanged { state: State::Paused, .. }));
    let paused = wait(&leech, id, |status| status.peers == 0);
    assert!(!paused.complete(), "{paused:?}");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(leech.status(id).unwrap().totals.downloaded, paused.totals.downloaded);

    seed.set_limits(Limits::default());
    leech.resume(id).unwrap();
    // Its addresses may be on their way to being tried again; the user knows better.
    leech.add_peers(id, &[at]).unwrap();
    until(&mut events, is_complete);
    assert!(stage.same("leech"));

    leech.remove(id, Content::Delete).unwrap();
    assert_eq!(leech.status(id), Err(Refusal::UnknownTorrent { torrent: id }));
    assert_eq!(leech.pause(id), Err(Refusal::UnknownTorrent { torrent: id }));
    until(&mut events, |event| *event == Event::Gone { torrent: id });
    assert!(!stage.dir("leech").join("show").exists());
    let again = leech.add(AddTorrent { paused: true, ..add() }).unwrap();
    assert!(again > id);
    let status = wait(&leech, again, |status| status.state == State::Paused);
    assert_eq!((status.have_bytes, status.totals.downloaded), (0, 0));
    farewell(&leech);
    farewell(&seed);
}

#[test]
fn a_restart_goes_on_without_a_check_and_a_damaged_record_costs_one() {
    let stage = Stage::new(100);
    let (seed, at) = stage.seed(Limits { down: None, up: Some(1_000_000) });
    let add = || AddTorrent { peers: vec![at], ..stage.add("leech") };
    let first = stage.leech("leech");
    let mut events = first.events();
    first.add(add()).unwrap();
    until(&mut events, has(stage.size / 4));
    farewell(&first);
    let left = first.list().remove(0);
    assert_eq!(left.state, State::Gone);
    drop(first);

    // What facts said is there at once. Nothing is hashed: even bytes that are all wrong are taken for good.
    let content = stage.dir("leech/show/big");
    invert(&content);
    let second = stage.leech("leech");
    let mut events = second.events();
    second.add(AddTorrent { peers: vec![], ..add() }).unwrap();
    let heard =
        until(&mut events, |event| matches!(event, Event::StateChanged { state: State::Downloading, .. }));
    let status = second.list().remove(0);
    assert!(status.have_pieces >= left.have_pieces, "{heard:#?}");
    assert!(status.totals.downloaded >= left.totals.downloaded);
    farewell(&second);
    drop(second);
    invert(&content);

    // A flipped bit: the record is put aside, and the content is hashed instead.
    let path = fs::read_dir(stage.dir("leech/state")).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|it| it == "facts")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 4;
    fs::write(&path, bytes).unwrap();
    seed.set_limits(Limits::default());
    let third = stage.leech("leech");
    let mut events = third.events();
    third.add(add()).unwrap();
    until(&mut events, is_complete);
    let status = third.list().remove(0);
    assert!(status.totals.downloaded <= stage.size - left.have_bytes, "fetched again: {status:?}");
    assert!(path.with_extension("bad").exists());
    assert!(stage.same("leech"));
    farewell(&third);
    farewell(&seed);
}

#[test]
fn only_what_is_selected_arrives_until_the_rest_is_selected_too() {
    let stage = Stage::new(60);
    let (seed, at) = stage.seed(Limits::default());
    let leech = stage.leech("leech");
    let mut events = leech.events();
    let select = Selection::Only { files: vec![FileIndex(1)] };
    let id = leech.add(AddTorrent { peers: vec![at], select, ..stage.add("leech") }).unwrap();
    until(&mut events, is_complete);
    let status = leech.status(id).unwrap();
    assert_eq!((status.wanted_bytes, status.have_bytes), (30_001, 30_001));
    assert!(!stage.dir("leech").join("show/big").exists());
    leech.set_options(id, Options { select: Some(Selection::All), ..Options::default() }).unwrap();
    until(&mut events, is_complete);
    assert!(stage.same("leech") && leech.status(id).unwrap().wanted_bytes == stage.size);
    farewell(&leech);
    farewell(&seed);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let stage = Stage::new(10);
    let session = stage.leech("leech");
    let id = session.add(AddTorrent { paused: true, ..stage.add("leech") }).unwrap();
    let twice = session.add(stage.add("elsewhere"));
    assert_eq!(twice, Err(Refusal::AlreadyAdded { torrent: id, name: "show".into() }));
    assert!(!stage.dir("elsewhere").exists());

    // Another torrent with a file of the same name: the same content, cut into other pieces.
    let request =
        CreateRequest { piece_length: Some(2 * PIECE), ..CreateRequest::new(stage.dir("seed/show")) };
    let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
    let other = tools::create(&request, &work).unwrap();
    let refused = session.add(AddTorrent::new(other.metainfo.clone(), stage.dir("leech"))).unwrap_err();
    assert!(refused.to_string().contains("torrent 1 (show) has this file already; "), "{refused}");
    session.add(AddTorrent { paused: true, ..AddTorrent::new(other.metainfo, stage.dir("other")) }).unwrap();

    let nobody = TorrentId(99);
    assert_eq!(session.resume(nobody), Err(Refusal::UnknownTorrent { torrent: nobody }));
    let select = Some(Selection::Only { files: vec![FileIndex(7)] });
    assert!(session.set_options(id, Options { select, ..Options::default() }).is_err());
    let limits = Some(Limits { down: Some(0), up: None });
    assert!(session.set_options(id, Options { limits, ..Options::default() }).is_err());
    let limits = Limits { down: Some(5), up: None };
    session.set_options(id, Options { limits: Some(limits), ..Options::default() }).unwrap();
    assert_eq!(session.status(id).unwrap().limits, limits);

    // Another session, as another process would be.
    let rival =
        Session::start(&EngineOptions { state_dir: Some(stage.dir("leech/state")), ..options() }).unwrap();
    let refused = rival.add(stage.add("leech")).unwrap_err();
    assert!(refused.to_string().contains("another piecemeal has this torrent here; "), "{refused}");
    farewell(&session);
    assert_eq!(session.add(stage.add("leech")), Err(Refusal::Closed));
    assert_eq!(session.pause(id), Err(Refusal::Closed));
    rival.add(AddTorrent { paused: true, ..stage.add("leech") }).unwrap();
    farewell(&rival);
}

#[test]
fn a_stream_ends_with_its_session_even_if_that_is_dropped() {
    let stage = Stage::new(10);
    let session = stage.leech("leech");
    let mut stream = session.events();
    let id = session.add(AddTorrent { paused: true, ..stage.add("leech") }).unwrap();
    let began = Instant::now();
    drop(session);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let mut heard = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(event)) = Pin::new(&mut stream).poll_next(&mut context) {
        heard.push(event);
    }
    assert_eq!(Pin::new(&mut stream).poll_next(&mut context), Poll::Ready(None));
    assert_eq!(heard.last(), Some(&Event::Gone { torrent: id }));
}

#[test]
fn without_an_address_the_first_free_port_is_taken() {
    let anywhere = || Session::start(&EngineOptions { listen: vec![], ..options() }).unwrap();
    let (one, other) = (anywhere(), anywhere());
    let port = |session: &Session| session.listening()[0].port();
    assert!(port(&one) >= EngineOptions::FIRST_PORT && port(&one) != port(&other));
    assert!(one.listening().iter().all(|addr| addr.port() == port(&one)));
    let taken = Session::start(&EngineOptions { listen: vec![one.listening()[0]], ..options() });
    assert!(matches!(taken.map(drop), Err(Refusal::Listen { .. })));
}

#[test]
fn a_look_at_a_paused_torrent_brings_counts() {
    use piecemeal_shell::http::{Answer, Asked, ServeLimits, serve};
    let (tell, told) = std::sync::mpsc::channel();
    let answer = move |asked: &Asked<'_>| {
        let (query, at) = (asked.query().to_owned(), asked.path().to_owned());
        let hash = wire::parse_scrape_query(&query).unwrap()[0];
        let counts = wire::ScrapeCounts { complete: 3, downloaded: 50, incomplete: 4 };
        let body = wire::ScrapeAnswer { files: vec![(hash, counts)], min_request_interval: None }.encode();
        tell.send(at).unwrap();
        Answer { status: 200, content_type: "text/plain", body }
    };
    let server = serve(vec!["127.0.0.1:0".parse().unwrap()], answer, ServeLimits::default()).unwrap();
    let stage = Stage::new(3);
    let session = stage.leech("leech");
    let mut add = stage.add("leech");
    add.paused = true;
    let url = format!("http://{}/announce", server.addrs()[0]);
    add.trackers = vec![url];
    let id = session.add(add).unwrap();
    wait(&session, id, |status| status.state == State::Paused);
    assert_eq!(session.details(id).unwrap().trackers[0].seeds, None);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("/scrape".into()));
    wait(&session, id, |_| session.details(id).unwrap().trackers[0].seeds.is_some());
    let tracker = session.details(id).unwrap().trackers.remove(0);
    assert_eq!((tracker.seeds, tracker.leeches, tracker.downloads), (Some(3), Some(4), Some(50)));
    assert!(tracker.counted_s.is_some() && tracker.next_s.is_none());
    farewell(&session);
    assert!(told.try_recv().is_err(), "asked once, and no announce");
    server.stop();
}
