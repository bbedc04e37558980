//! Torrents for those alone who have a certificate: two sessions over real sockets on loopback.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use piecemeal::api::{
    AddTorrent, Cancel, Content, CreateRequest, EngineOptions, TlsIdentity, TorrentId, Transports, Verify,
    Work,
};
use piecemeal::{Session, tools};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const PATIENCE: Duration = Duration::from_secs(30);

/// A root certificate in PEM, and who signs by it.
fn root() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn signed(root: &Issuer<'static, KeyPair>, name: &str) -> TlsIdentity {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, root).unwrap().pem();
    TlsIdentity { certificate, key: key.serialize_pem() }
}

struct Stage {
    folder: tempfile::TempDir,
    root: Issuer<'static, KeyPair>,
    torrent: Vec<u8>,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("seed")).unwrap();
        let content = folder.path().join("seed/film");
        fs::write(&content, (0..3_000_000_u32).map(|at| (at % 253) as u8).collect::<Vec<_>>()).unwrap();
        let (pem, root) = root();
        let request = CreateRequest { tls_root: Some(pem), ..CreateRequest::new(content) };
        let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
        let torrent = tools::create(&request, &work).unwrap().metainfo.to_vec();
        Stage { folder, root, torrent }
    }

    fn add(&self, dir: &str, tls: Option<TlsIdentity>) -> AddTorrent {
        AddTorrent { tls, ..AddTorrent::new(self.torrent.clone(), self.folder.path().join(dir)) }
    }

    /// A session that has the content, and where it listens.
    fn seed(&self) -> (Session, SocketAddr, TorrentId) {
        let session = start();
        let add = self.add("seed", Some(signed(&self.root, "*")));
        let id = session.add(AddTorrent { verify: Verify::Trust, ..add }).unwrap();
        let at = session.listening()[0];
        (session, at, id)
    }
}

fn start() -> Session {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    Session::start(&EngineOptions { listen, pool_bytes: Some(4 << 20), ..EngineOptions::default() }).unwrap()
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn content_goes_to_those_who_belong_to_it() {
    let stage = Stage::new();
    let (seed, at, seeded) = stage.seed();
    let leech = start();
    let add = stage.add("leech", Some(signed(&stage.root, "film")));
    let id = leech.add(AddTorrent { peers: vec![at], ..add }).unwrap();
    until("all is there", || leech.status(id).unwrap().complete());
    let read = |dir: &str| fs::read(stage.folder.path().join(dir).join("film")).unwrap();
    assert!(read("seed") == read("leech"));
    // Nobody who does not believe its root, or speaks no TLS, gets as far as being a peer.
    leech.remove(id, Content::Keep).unwrap();
    until("the leech has left", || seed.details(seeded).unwrap().peers.is_empty());
    let sent = seed.status(seeded).unwrap().totals.uploaded;
    for line in [&b"\x13BitTorrent protocol"[..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3]] {
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        std::io::Write::write_all(&mut stream, line).unwrap();
        std::io::Write::write_all(&mut stream, &[0; 100]).unwrap();
        let mut answer = Vec::new();
        // Closed, by an end or a reset.
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        assert!(!answer.starts_with(b"\x13BitTorrent"), "{answer:?}");
    }
    assert_eq!(seed.status(seeded).unwrap().totals.uploaded, sent);
    assert!(seed.details(seeded).unwrap().peers.is_empty());
}

#[test]
fn what_cannot_work_is_refused_when_it_is_added() {
    let stage = Stage::new();
    let session = start();
    let (_, stranger) = root();
    let plain = {
        let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
        tools::create(&CreateRequest::new(stage.folder.path().join("seed/film")), &work).unwrap().metainfo
    };
    let wrong_key = TlsIdentity { key: signed(&stage.root, "*").key, ..signed(&stage.root, "film") };
    for (add, expected) in [
        (stage.add("a", None), "film: only those are let in who have a certificate of this torrent"),
        (stage.add("a", Some(signed(&stranger, "film"))), "none of this torrent: another root signed it"),
        (stage.add("a", Some(signed(&stage.root, "series"))), "it is made out to another name"),
        (stage.add("a", Some(wrong_key)), "film: the key: "),
        (
            AddTorrent { metainfo: plain, ..stage.add("a", Some(signed(&stage.root, "film"))) },
            "film: this torrent has no root certificate, and is for everybody",
        ),
    ] {
        let why = session.add(add).unwrap_err().to_string();
        assert!(why.contains(expected) && !why.contains('\n'), "{why}");
    }
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let transports = Transports::Utp;
    let deaf = Session::start(&EngineOptions { listen, transports, ..EngineOptions::default() }).unwrap();
    let why = deaf.add(stage.add("a", Some(signed(&stage.root, "film")))).unwrap_err().to_string();
    assert_eq!(why, "film: its peers speak TLS, and that by TCP alone, which is off; allow TCP");
    assert!(!stage.folder.path().join("a").exists(), "nothing was made for what was refused");
    assert!(!format!("{:?}", signed(&stage.root, "film")).contains("PRIVATE"), "keys are not told");
}
