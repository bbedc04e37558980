//! Magnet links on loopback: resolved by a session that has the torrent, and by peers who lie about it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use piecemeal::api::{
    AddTorrent, Cancel, Content, CreateRequest, EngineOptions, Event, Events, Format, Heard, Refusal,
    ResolveRequest, Selection, State, Status, TorrentId, Verify, Work,
};
use piecemeal::{Session, tools};
use piecemeal_metainfo::bencode::Bencode;
use piecemeal_metainfo::{FileIndex, InfoHash, Metainfo, PeerId, sha1};
use piecemeal_wire::extension::{Extension, ExtensionHandshake, ExtensionIds, HANDSHAKE_ID};
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, Progress, Reserved};
use piecemeal_wire::message::{Head, Limits, Message, decode_head};
use piecemeal_wire::metadata::{METADATA_PIECE_BYTES, MetadataMessage, metadata_piece_len};

const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> EngineOptions {
    EngineOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        pool_bytes: Some(4 << 20),
        ..EngineOptions::default()
    }
}

/// A folder `show` of two files in `dir`, and its torrent.
fn content(dir: &Path, private: bool) -> Vec<u8> {
    fs::create_dir_all(dir.join("show")).unwrap();
    fs::write(dir.join("show/a"), vec![7; 300_000]).unwrap();
    fs::write(dir.join("show/b"), b"the second file".repeat(5_000)).unwrap();
    let request = CreateRequest { private, format: Format::Hybrid, ..CreateRequest::new(dir.join("show")) };
    let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
    tools::create(&request, &work).unwrap().metainfo.to_vec()
}

/// A session that has it, and where it is.
fn seed(dir: &Path, torrent: &[u8]) -> (Session, SocketAddr) {
    let session = Session::start(&options()).unwrap();
    let add = AddTorrent { verify: Verify::Full, ..AddTorrent::new(torrent, dir) };
    let id = session.add(add).unwrap();
    wait(&session, id, |status| status.state == State::Seeding);
    let addr = session.listening()[0];
    (session, addr)
}

fn wait(session: &Session, id: TorrentId, so: impl Fn(&Status) -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !so(&session.status(id).unwrap()) {
        assert!(Instant::now() < give_up, "{:?}", session.status(id));
        thread::sleep(Duration::from_millis(10));
    }
}

fn request(magnet: &str, peer: SocketAddr) -> ResolveRequest {
    ResolveRequest { peers: vec![peer], ..ResolveRequest::new(magnet) }
}

/// Resolves within the patience of a test.
fn resolve(session: &Session, request: ResolveRequest) -> Result<piecemeal::api::Resolved, Refusal> {
    let cancel = Cancel::default();
    let done = Cancel::default();
    let (late, over) = (cancel.clone(), done.clone());
    let watch = thread::spawn(move || {
        let until = Instant::now() + PATIENCE;
        while !over.is_cancelled() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        late.cancel();
    });
    let answer = session.resolve(request, &cancel);
    done.cancel();
    watch.join().unwrap();
    answer
}

#[test]
fn a_link_becomes_its_torrent_and_the_content_comes_from_whom_it_met() {
    let folder = tempfile::tempdir().unwrap();
    let torrent = content(&folder.path().join("seed"), false);
    let (seed, addr) = seed(&folder.path().join("seed"), &torrent);
    let leech = Session::start(&options()).unwrap();
    let mut events = leech.events();
    let meta = Metainfo::parse(&torrent).unwrap();
    let magnet = format!("{}&so=1-9", meta.magnet());
    let resolved = resolve(&leech, request(&magnet, addr)).unwrap();
    let whole = Metainfo::parse(&resolved.metainfo).unwrap();
    assert_eq!(whole.raw_info(), meta.raw_info());
    assert_eq!(resolved.known, [addr]);
    // The second of two files, and the pad behind the first is not one.
    let files: Vec<_> = meta.files().iter().map(|file| (file.path.as_str().to_owned(), file.pad)).collect();
    let b = files.iter().position(|(path, _)| path == "show/b").unwrap() as u32;
    assert_eq!(resolved.select, Selection::Only { files: vec![FileIndex(b)] }, "{files:?}");
    assert!(leech.list().is_empty(), "nothing is added by itself");

    let dir = folder.path().join("leech");
    let add = AddTorrent {
        known: resolved.known,
        select: resolved.select,
        ..AddTorrent::new(resolved.metainfo.clone(), &dir)
    };
    let id = leech.add(add).unwrap();
    wait(&leech, id, Status::complete);
    assert_eq!(fs::read(dir.join("show/b")).unwrap(), b"the second file".repeat(5_000));
    assert!(!dir.join("show/a").exists());

    let mut resolving = Vec::new();
    while let Heard::Event(event) = events.next(Duration::ZERO) {
        if let Event::Resolving { torrent, name, info_hash, info_hash_v2, peers, known_peers } = event {
            assert_eq!(
                (&*name, info_hash, info_hash_v2),
                ("show", meta.info_hashes().v1, meta.info_hashes().v2)
            );
            assert_ne!(torrent, id);
            resolving.push((peers, known_peers));
        }
    }
    assert_eq!(resolving.first(), Some(&(0, 0)));
    let again = resolve(&leech, request(&magnet, addr)).unwrap_err();
    assert_eq!(again, Refusal::AlreadyAdded { torrent: id, name: "show".into() });
    // Gone and resolved anew: nothing of the first time stands in the way.
    leech.remove(id, Content::Keep).unwrap();
    while !matches!(events.next(PATIENCE), Heard::Event(Event::Gone { .. })) {}
    assert_eq!(resolve(&leech, request(&magnet, addr)).unwrap().metainfo, resolved.metainfo);
    leech.shutdown(EngineOptions::MAX_FAREWELL);
    seed.shutdown(EngineOptions::MAX_FAREWELL);
}

#[test]
fn a_torrent_that_turns_out_private_forgets_whom_peers_named() {
    let folder = tempfile::tempdir().unwrap();
    let torrent = content(folder.path(), true);
    let (seed, addr) = seed(folder.path(), &torrent);
    let leech = Session::start(&options()).unwrap();
    let magnet = Metainfo::parse(&torrent).unwrap().magnet();
    let resolved = resolve(&leech, request(&magnet, addr)).unwrap();
    assert!(Metainfo::parse(&resolved.metainfo).unwrap().info().private);
    assert_eq!(resolved.known, []);
    // The user may still name a peer.
    let add =
        AddTorrent { peers: vec![addr], ..AddTorrent::new(resolved.metainfo, folder.path().join("leech")) };
    let id = leech.add(add).unwrap();
    wait(&leech, id, Status::complete);
    seed.shutdown(EngineOptions::MAX_FAREWELL);
}

#[test]
fn a_search_in_vain_ends_when_asked_to() {
    let session = Arc::new(Session::start(&options()).unwrap());
    let magnet = format!("magnet:?xt=urn:btih:{}&dn=nobody", "a".repeat(40));
    let start = |cancel: &Cancel| {
        let (session, cancel, magnet) = (session.clone(), cancel.clone(), magnet.clone());
        thread::spawn(move || session.resolve(ResolveRequest::new(magnet), &cancel))
    };
    for _ in 0..2 {
        let cancel = Cancel::default();
        let search = start(&cancel);
        thread::sleep(Duration::from_millis(300));
        let second = session.resolve(ResolveRequest::new(&*magnet), &Cancel::default()).unwrap_err();
        assert!(second.to_string().contains("is being resolved"), "{second}");
        let began = Instant::now();
        cancel.cancel();
        assert_eq!(search.join().unwrap().unwrap_err(), Refusal::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    let search = start(&Cancel::default());
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    session.shutdown(EngineOptions::MAX_FAREWELL);
    assert_eq!(search.join().unwrap().unwrap_err(), Refusal::Closed);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// A peer that has these dictionaries and no content.
fn fake_peer(infos: BTreeMap<[u8; 20], Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let infos = Arc::new(infos);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let infos = infos.clone();
            thread::spawn(move || serve(stream, &infos));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, infos: &BTreeMap<[u8; 20], Vec<u8>>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut hello = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut hello).ok()?;
    let Ok(Progress::Whole(theirs)) = Handshake::decode(&hello) else { return None };
    let info = infos.get(&theirs.info_hash.0)?;
    let ours = Handshake {
        reserved: Reserved::NONE.with_extension(),
        info_hash: theirs.info_hash,
        peer_id: PeerId(*b"-XX0001-ffffffffffff"),
    };
    let ids = ExtensionIds::own([Extension::Metadata]);
    let size = u32::try_from(info.len()).ok();
    let introduction = ExtensionHandshake { ids, metadata_size: size, ..ExtensionHandshake::default() };
    let mut says = ours.encode().to_vec();
    Message::Extended { id: HANDSHAKE_ID, payload: &introduction.encode() }.encode(&mut says);
    stream.write_all(&says).ok()?;
    let mut heard = Vec::new();
    let mut their_id = None;
    loop {
        while let Ok(Head::Message { message, consumed }) = decode_head(&heard, &Limits::default()) {
            let mut says = Vec::new();
            match message {
                Message::Extended { id: HANDSHAKE_ID, payload } => {
                    their_id = ExtensionHandshake::decode(payload).ok()?.ids.get(Extension::Metadata);
                }
                Message::Extended { payload, .. } => {
                    let MetadataMessage::Request { piece } = MetadataMessage::decode(payload).ok()? else {
                        continue;
                    };
                    let begin = (piece * METADATA_PIECE_BYTES) as usize;
                    let len = metadata_piece_len(piece, size?)? as usize;
                    let data = &info[begin..begin + len];
                    let mut answer = Vec::new();
                    MetadataMessage::Data { piece, total_size: size?, data }.encode(&mut answer);
                    Message::Extended { id: their_id?, payload: &answer }.encode(&mut says);
                }
                _ => {}
            }
            heard.drain(..consumed);
            stream.write_all(&says).ok()?;
        }
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).ok().filter(|read| *read > 0)?;
        heard.extend_from_slice(&bytes[..read]);
    }
}

/// A sound dictionary of one file.
fn single() -> Bencode {
    Bencode::dict()
        .with("length", 5)
        .with("name", "a")
        .with("piece length", 16384)
        .with("pieces", &[7_u8; 20][..])
}

fn many(paths: &[&[&str]]) -> Bencode {
    let file = |path: &&[&str]| {
        let parts = path.iter().map(|part| Bencode::from(*part)).collect::<Vec<_>>();
        Bencode::dict().with("length", 5).with("path", Bencode::List(parts))
    };
    Bencode::dict()
        .with("files", Bencode::List(paths.iter().map(file).collect()))
        .with("name", "dir")
        .with("piece length", 16384)
        .with("pieces", &[7_u8; 20][..])
}

/// What strangers may send for an `info`: paths that climb, names of other systems, sizes that lie, and what is no
/// dictionary at all.
fn hostile() -> Vec<Vec<u8>> {
    let mut all = vec![
        single().with("name", "../../etc/passwd").encode(),
        single().with("name", "").encode(),
        single().with("name", "/etc/passwd").encode(),
        single().with("name", "..").encode(),
        single().with("name", "CON").encode(),
        single().with("name", "a\0b").encode(),
        single().with("name", "\u{202e}gpj.exe").encode(),
        single().with("name", 7).encode(),
        single().with("length", -1).encode(),
        single().with("length", 0).encode(),
        single().with("length", i64::MAX).encode(),
        single().with("length", 1 << 48).encode(),
        single().with("piece length", 0).encode(),
        single().with("piece length", -16384).encode(),
        single().with("piece length", i64::from(u32::MAX)).encode(),
        single().with("piece length", 1).encode(),
        single().with("pieces", &[7_u8; 19][..]).encode(),
        single().with("pieces", &[7_u8; 40][..]).encode(),
        single().with("pieces", "").encode(),
        single().with("pieces", 20).encode(),
        single().with("meta version", 2).encode(),
        single().with("meta version", 3).encode(),
        single().with("private", 2).encode(),
        single().with("symlink path", Bencode::List(vec!["..".into()])).with("attr", "l").encode(),
        many(&[]).encode(),
        many(&[&["a"], &["a"]]).encode(),
        many(&[&["a"], &["A"]]).encode(),
        many(&[&["a"], &["a", "b"]]).encode(),
        many(&[&[".."]]).encode(),
        many(&[&["a", "..", "..", "b"]]).encode(),
        many(&[&["", ""]]).encode(),
        many(&[&[]]).encode(),
        many(&[&["/abs"]]).encode(),
        many(&[&["C:\\x"]]).encode(),
        many(&[&["a", "."]]).encode(),
        many(&[&["x"; 300]]).encode(),
        many(&[&["x".repeat(4000).as_str()]]).encode(),
        b"le".to_vec(),
        b"de".to_vec(),
        b"i7e".to_vec(),
        b"4:spam".to_vec(),
        b"<html>".to_vec(),
        [b"d1:a".repeat(300), b"e".repeat(300)].concat(),
        b"d6:pieces99999999999:".to_vec(),
    ];
    // Trailing bytes, a key twice, keys out of order.
    all.push([single().encode(), b"e".to_vec()].concat());
    all.push(
        b"d6:lengthi5e6:lengthi6e4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae".to_vec(),
    );
    all.push(b"d4:name1:a6:lengthi5e12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae".to_vec());
    all
}

/// How a torrent fares: its files, or why it is refused, without the name of where it came from. Where bencode is
/// broken is at other bytes of a file.
fn fate(judged: Result<Metainfo, Refusal>) -> String {
    match judged {
        Ok(meta) => format!("{:?}", meta.files()),
        Err(Refusal::BadTorrent { reason, .. }) if reason.starts_with("bencode: ") => "bencode".to_owned(),
        Err(Refusal::BadTorrent { reason, .. }) => format!("bad: {reason}"),
        Err(other) => other.to_string(),
    }
}

#[test]
fn what_peers_send_is_judged_as_what_comes_in_a_file() {
    let infos: BTreeMap<_, _> = hostile().into_iter().map(|info| (sha1(&info), info)).collect();
    let peer = fake_peer(infos.clone());
    let folder = tempfile::tempdir().unwrap();
    let session = Session::start(&options()).unwrap();
    let mut refused = 0;
    for (hash, info) in &infos {
        let by_file = {
            let torrent = [&b"d4:info"[..], info, b"e"].concat();
            let add =
                AddTorrent { paused: true, ..AddTorrent::new(torrent.clone(), folder.path().join("f")) };
            session.add(add).map(|id| {
                session.remove(id, Content::Keep).unwrap();
                Metainfo::parse(&torrent).unwrap()
            })
        };
        refused += usize::from(by_file.is_err());
        let magnet = format!("magnet:?xt=urn:btih:{}", InfoHash(*hash));
        let mut by_link = resolve(&session, request(&magnet, peer));
        // The one that came as a file may still be leaving.
        let give_up = Instant::now() + PATIENCE;
        while matches!(&by_link, Err(Refusal::Invalid { reason, .. }) if reason.contains("not left yet")) {
            assert!(Instant::now() < give_up);
            thread::sleep(Duration::from_millis(5));
            by_link = resolve(&session, request(&magnet, peer));
        }
        let by_link = by_link.map(|resolved| Metainfo::parse(&resolved.metainfo).unwrap());
        let shown = info.escape_ascii().to_string();
        assert_ne!(fate(by_link.clone()), fate(Err(Refusal::Cancelled)), "never came: {shown:.200}");
        assert_eq!(fate(by_link), fate(by_file), "{shown:.200}");
    }
    assert!(refused > 25, "only {refused} of {} are refused", infos.len());
    session.shutdown(EngineOptions::MAX_FAREWELL);
}
