//! What stands on the screen, over answers that are made up.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use piecemeal_api::*;

use crate::test_kit::Ink;
use crate::{Bars, DONE, ErrStream, FAILED, Host, Interrupt, USAGE};

const ID: &str = "0123456789abcdef0123456789abcdef01234567";
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Answers everything alike.
struct Answers {
    findings: Vec<DhtFinding>,
    summary: DhtSummary,
    asked: Arc<Mutex<Vec<DhtRequest>>>,
}

impl Tools for Answers {
    fn dht(
        &self,
        request: &DhtRequest,
        hear: &mut dyn FnMut(DhtFinding),
        _: &Cancel,
    ) -> Result<DhtSummary, Refusal> {
        self.asked.lock().unwrap().push(request.clone());
        self.findings.iter().cloned().for_each(hear);
        Ok(self.summary.clone())
    }
    fn new_dht_key(&self) -> Result<[u8; 32], Refusal> {
        Ok([7; 32])
    }
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
    fn examine(&self, _: &DoctorRequest, _: &Cancel) -> Result<Diagnosis, Refusal> {
        unreachable!()
    }
    fn start_tracker(&self, _: &TrackerOptions) -> Result<Box<dyn RunningTracker>, Refusal> {
        Err(Refusal::Closed)
    }
    fn start_client(&self, _: &EngineOptions) -> Result<Box<dyn Client>, Refusal> {
        Err(Refusal::Closed)
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
    asked: Vec<DhtRequest>,
}

fn run(findings: &[DhtFinding], summary: DhtSummary, dir: &Path, args: &str) -> Ran {
    let tools = Answers { findings: findings.to_vec(), summary, asked: Arc::default() };
    let (out, err) = (Ink::default(), Ink::default());
    let mut host = Host {
        out: Box::new(out.clone()),
        err: ErrStream::new(err.clone()),
        bars: Bars::Off,
        cwd: dir.to_owned(),
        temp_dir: dir.to_owned(),
        state_dir: Some("/state".into()),
    };
    let args = ["piecemeal", "dht"].into_iter().chain(args.split(' ')).map(std::ffi::OsString::from);
    let code = crate::run(args, &tools, &mut host, &Interrupt::default());
    let asked = tools.asked.lock().unwrap().clone();
    Ran { code, out: out.read(), err: err.read(), asked }
}

fn here(findings: &[DhtFinding], summary: DhtSummary, args: &str) -> Ran {
    run(findings, summary, Path::new("/"), args)
}

fn node(byte: u8, binding: DhtBinding) -> DhtNode {
    DhtNode { id: DhtId([byte; 20]), addr: format!("1.2.3.{byte}:6881").parse().unwrap(), binding }
}

/// Seven of nine answered.
fn summary() -> DhtSummary {
    DhtSummary {
        target: DhtId([0xaa; 20]),
        nodes: vec![node(1, DhtBinding::Fits), node(2, DhtBinding::Differs)],
        asked: 9,
        answered: 7,
        stored: 0,
        refused: None,
        scrape: None,
        signed: None,
        took_ms: 2_340,
        complete: true,
    }
}

fn silence() -> DhtSummary {
    DhtSummary { nodes: vec![], asked: 1, answered: 0, ..summary() }
}

#[test]
fn ping() {
    let pong = |client: &[u8], binding, sees_us_at: Option<&str>| DhtFinding::Pong {
        node: node(1, binding),
        rtt_us: 12_345,
        client: Some(client.to_vec()),
        sees_us_at: sees_us_at.map(|addr| addr.parse().unwrap()),
    };
    let known = pong(b"LT\x02\x11", DhtBinding::Fits, Some("5.6.7.8:9"));
    let ran = here(std::slice::from_ref(&known), summary(), "ping h:1 -6 --timeout 3s");
    let id = "01".repeat(20);
    let expected = format!(
        "1.2.3.1:6881: answered in 12.3 ms\n\
         \x20 node id     {id}, fits its address (BEP 42)\n\
         \x20 client      LT 2.17 (libtorrent)\n\
         \x20 sees us at  5.6.7.8:9\n"
    );
    assert_eq!((ran.code, ran.out, ran.err), (DONE, expected, String::new()));
    let asked = &ran.asked[0];
    assert_eq!(asked.ask, DhtAsk::Ping { addr: "h:1".into() });
    assert_eq!((asked.wait_s, asked.family), (3, Some(IpFamily::V6)));
    let ran = here(&[pong(b"\x1b]0;x\x07", DhtBinding::Differs, None)], summary(), "ping h:1");
    assert!(
        ran.out.contains("client      1b5d303b7807\n") && ran.out.contains("does not fit"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("sees us at  not told"), "{}", ran.out);

    let ran = here(&[], silence(), "ping h:1");
    let line = "piecemeal: h:1: no answer in 10 s; check the address, or ask another node\n";
    assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (FAILED, "", line));
    let ran = here(&[known], summary(), "ping h:1 --json");
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["rtt_us"]), (&"pong".into(), &12_345.into()));
    assert_eq!((&lines[1]["event"], &lines[1]["answered"]), (&"done".into(), &7.into()));
}

#[test]
fn find() {
    let ran = here(&[], summary(), &format!("find {ID} --node a:1 --node [::1]:2"));
    let (one, two) = ("01".repeat(20), "02".repeat(20));
    let expected = format!("{one}  1.2.3.1:6881\n{two}  1.2.3.2:6881  (id does not fit the address)\n");
    assert_eq!((ran.code, ran.out), (DONE, expected));
    assert_eq!(ran.err, "2 nodes; 7 of 9 nodes answered in 2.3 s\n");
    assert_eq!((ran.asked[0].nodes.len(), ran.asked[0].wait_s), (2, 60));
    assert_eq!(ran.asked[0].state_dir.as_deref(), Some(Path::new("/state")));
    let ran = here(&[], DhtSummary { asked: 4, ..silence() }, &format!("find {ID}"));
    let line = "piecemeal: DHT: none of 4 nodes answered; check the network, or name a node with --node";
    assert_eq!((ran.code, ran.err.lines().last()), (FAILED, Some(line)));
    let ran = here(&[], DhtSummary { complete: false, ..summary() }, &format!("find {ID}"));
    assert!(ran.err.ends_with("cut short: --timeout gives it longer\n"), "{}", ran.err);
}

#[test]
fn peers() {
    let found = [
        DhtFinding::Peers { peers: vec!["9.9.9.9:1".parse().unwrap()] },
        DhtFinding::Peers { peers: vec!["[2001:db8::1]:2".parse().unwrap()] },
    ];
    let scrape = Some(DhtScrape { seeds: 2.7, leeches: 0.9 });
    let ran = here(&found, DhtSummary { scrape, ..summary() }, &format!("get-peers {ID} --scrape"));
    assert_eq!(ran.out, "9.9.9.9:1\n[2001:db8::1]:2\nabout 3 seeds and 1 other peer\n");
    assert_eq!((ran.code, &ran.err[..]), (DONE, "2 peers; 7 of 9 nodes answered in 2.3 s\n"));
    let announce = format!("get-peers {ID} --announce 7");
    let ran = here(&[], DhtSummary { stored: 5, ..summary() }, &announce);
    assert!(ran.code == DONE && ran.err.ends_with("announced to 5 nodes\n"), "{}", ran.err);
    let ran = here(&[], DhtSummary { refused: Some(203), ..summary() }, &announce);
    let line = "no node took the announce: it found the question malformed (error 203); try again later\n";
    assert!(ran.code == FAILED && ran.err.ends_with(line), "{}", ran.err);
}

#[test]
fn values() {
    let value = |value: &[u8], seq| DhtFinding::Value { value: value.to_vec(), seq };
    let rows: [(&[u8], &str); 4] = [
        (b"5:hello", "hello\n"),
        (b"4:a\x1bb\xff", "a\u{fffd}b\u{fffd}\n"),
        (b"d1:ai1ee", "d1:ai1ee\n"),
        (b"0:", "\n"),
    ];
    for (bencode, line) in rows {
        let ran = here(&[value(bencode, None)], summary(), &format!("get {ID}"));
        assert_eq!((ran.code, &ran.out[..]), (DONE, line));
    }
    let found = [value(b"1:a", Some(3)), value(b"1:b", Some(4))];
    let ran = here(&found, summary(), &format!("get --key {KEY} --salt s --raw"));
    assert_eq!((&ran.out[..], &ran.err[..]), ("b", "version 4, 1 bytes; 7 of 9 nodes answered in 2.3 s\n"));
    let DhtAsk::Get { of: DhtKey::Owner { key, salt } } = &ran.asked[0].ask else { panic!() };
    assert_eq!((key[1], &salt[..]), (0x11, &b"s"[..]));
    let ran = here(&[], summary(), &format!("get {ID}"));
    let line =
        format!("piecemeal: {ID}: none of 7 nodes has it; check the key and the salt, or store it again\n");
    assert_eq!((ran.code, ran.err), (FAILED, line));
}

#[test]
fn storing() {
    let dir = tempfile::tempdir().unwrap();
    let stored = DhtSummary { stored: 7, ..summary() };
    let ran = run(&[], stored.clone(), dir.path(), "put hello");
    assert_eq!((ran.code, ran.out), (DONE, format!("{}\n", "aa".repeat(20))));
    assert_eq!(ran.err, "stored with 7 nodes; 7 of 9 nodes answered in 2.3 s\n");
    let asked = |ran: &Ran| match ran.asked[0].ask.clone() {
        DhtAsk::Put { value, sign } => (value, sign),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&ran_of(&stored, dir.path(), "put hello")), (b"5:hello".to_vec(), None));
    assert_eq!(asked(&ran_of(&stored, dir.path(), "put i3e --bencode")).0, b"i3e");
    std::fs::write(dir.path().join("f"), b"\x00\n").unwrap();
    assert_eq!(asked(&ran_of(&stored, dir.path(), "put --file f")).0, b"2:\x00\n");

    let signed = DhtSummary { signed: Some(DhtSigned { key: [9; 32], seq: 4 }), ..stored.clone() };
    let ran = ran_of(&signed, dir.path(), "put hi --new-key k --salt s");
    let lines = format!("key      {}\ntarget   {}\nversion  4\n", "09".repeat(32), "aa".repeat(20));
    assert_eq!((ran.code, &ran.out), (DONE, &lines));
    let sign = |seed, seq, cas| {
        let salt = if cas == Some(3) { Vec::new() } else { b"s".to_vec() };
        Some(DhtSign { secret: DhtSecret::Seed([seed; 32]), salt, seq, cas })
    };
    assert_eq!(asked(&ran).1, sign(7, None, None));
    let ran = ran_of(&signed, dir.path(), "put hi --secret-key k --seq 4 --cas 3");
    assert_eq!(asked(&ran).1, sign(7, Some(4), Some(3)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join("k")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::write(dir.path().join("long"), "0b".repeat(64)).unwrap();
    let ran = ran_of(&signed, dir.path(), "put hi --secret-key long");
    assert_eq!(asked(&ran).1.unwrap().secret, DhtSecret::Expanded([0x0b; 64]));
}

#[test]
fn what_cannot_be_stored_says_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "no key").unwrap();
    let newer = DhtSummary { refused: Some(302), ..summary() };
    let rows = [
        (summary(), "put a", FAILED, "no node took it; try again later"),
        (newer, "put a --secret-key k", FAILED, "k: not found; check the path, or make a key with --new-key"),
        (summary(), "put a --secret-key f", FAILED, "f: is no secret key, which has 64 or 128 hex digits; "),
        (summary(), "put a --new-key f", FAILED, "f: is there already; use the key in it with --secret-key"),
        (summary(), "put --file none", FAILED, "none: not found; check the path"),
        (silence(), "put a", FAILED, "DHT: none of 1 node answered; "),
        (summary(), "put a --file f", USAGE, "cannot be used with"),
    ];
    for (summary, args, code, words) in rows {
        let ran = ran_of(&summary, dir.path(), args);
        assert!(ran.code == code && ran.err.contains(words), "{args}: {} {}", ran.code, ran.err);
        assert_eq!((ran.err.lines().count(), &ran.out[..]), (1, ""));
    }
    let newer = DhtSummary { refused: Some(302), ..summary() };
    let ran = ran_of(&newer, dir.path(), "put a");
    let line =
        "no node took it: a newer version is there (error 302); leave --seq out, or give a higher one\n";
    assert!(ran.err.ends_with(line), "{}", ran.err);
}

#[test]
fn samples() {
    let info_hashes = vec![DhtId([1; 20]), DhtId([2; 20])];
    let from = "1.2.3.4:5".parse().unwrap();
    let found = [DhtFinding::Samples { from, info_hashes, num: 50, interval_s: 60 }];
    let ran = here(&found, summary(), "sample h:1");
    assert_eq!((ran.code, ran.out), (DONE, format!("{}\n{}\n", "01".repeat(20), "02".repeat(20))));
    assert_eq!(ran.err, "1.2.3.4:5: 2 of 50 torrents, others in 1 min 0 s\n");
    let ran = here(&found, summary(), &format!("sample {ID} --node a:1"));
    assert!(ran.err.ends_with("samples of 1 node; 7 of 9 nodes answered in 2.3 s\n"), "{}", ran.err);
    let ran = here(&[], summary(), "sample h:1");
    assert_eq!(ran.err, "piecemeal: h:1: answered without samples (BEP 51); ask another node\n");
    assert_eq!(ran.code, FAILED);
    let ran = here(&found, summary(), "sample h:1 --json");
    assert!(ran.err.is_empty() && ran.out.lines().count() == 2, "{}{}", ran.out, ran.err);
}

fn ran_of(summary: &DhtSummary, dir: &Path, args: &str) -> Ran {
    run(&[], summary.clone(), dir, args)
}
