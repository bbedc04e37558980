//! Client and server against each other and against raw sockets, on loopback.

use super::line::AT_ONCE;
use super::*;
use crate::net::{Dialer, Policy};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_metainfo::TorrentId;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Only reached when something hangs.
const AGES: Duration = Duration::from_secs(30);

type Outcome = (TorrentId, FetchId, Result<Vec<u8>, FetchFailure>);

fn client() -> (Client, mpsc::Receiver<Outcome>) {
    let (sender, outcomes) = mpsc::channel();
    let reply: Reply = Box::new(move |torrent, id, result| drop(sender.send((torrent, id, result))));
    (Client::start(Dialer::new(Policy::default()), "tester/1", reply).unwrap(), outcomes)
}

fn get(url: &str, cap_bytes: usize, timeout: Duration) -> Result<Vec<u8>, GetError> {
    super::get(&Dialer::new(Policy::default()), url, cap_bytes, timeout)
}

fn fetch(id: u64, url: &str) -> Fetch {
    Fetch { id: FetchId(id), url: url.into(), family: Family::V4, timeout: AGES }
}

fn fetch_one(fetch: Fetch) -> Result<Vec<u8>, FetchFailure> {
    let (client, outcomes) = client();
    let id = fetch.id;
    client.fetch(TorrentId(7), fetch);
    let (torrent, answered, result) = outcomes.recv_timeout(AGES).unwrap();
    assert_eq!((torrent, answered), (TorrentId(7), id));
    client.stop();
    result
}

fn local(handler: impl Fn(&Asked<'_>) -> Answer + Send + Sync + 'static) -> (Serving, String) {
    serve_with(handler, ServeLimits::default())
}

fn serve_with(
    handler: impl Fn(&Asked<'_>) -> Answer + Send + Sync + 'static,
    limits: ServeLimits,
) -> (Serving, String) {
    let serving = serve(vec!["127.0.0.1:0".parse().unwrap()], handler, limits).unwrap();
    let base = format!("http://{}", serving.addrs()[0]);
    (serving, base)
}

fn text(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, content_type: "text/plain", body: body.into() }
}

/// Answers one connection with exactly these bytes and hands out what was asked.
fn raw_server(answer: Vec<u8>) -> (SocketAddr, mpsc::Receiver<Vec<String>>) {
    raw_servers(vec![answer])
}

/// The same for one connection after the other.
fn raw_servers(answers: Vec<Vec<u8>>) -> (SocketAddr, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let _ = sender.send(lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect());
            let _ = stream.write_all(&answer);
        }
    });
    (addr, heads)
}

/// Asks one thing on an open connection; the whole answer, which must have a length.
fn ask(stream: &mut TcpStream, target: &str) -> (String, Vec<u8>) {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
    }
    let length =
        head.to_lowercase().split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse();
    let mut body = vec![0; length.unwrap()];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}

fn gzip_stored(data: &[u8]) -> Vec<u8> {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut chunks = data.chunks(0xffff).peekable();
    while let Some(chunk) = chunks.next() {
        out.push(chunks.peek().is_none().into());
        out.extend((chunk.len() as u16).to_le_bytes());
        out.extend((!(chunk.len() as u16)).to_le_bytes());
        out.extend(chunk);
    }
    out.extend((!crc).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out
}

fn answer_with(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n").into_bytes();
    answer.extend(body);
    answer
}

#[test]
fn the_query_reaches_the_wire_byte_for_byte() {
    let mut query = String::from("announce?passkey=a%2fb&info_hash=");
    (0..=255u8).for_each(|byte| query.push_str(&format!("%{byte:02X}")));
    (0..=255u8).for_each(|byte| query.push_str(&format!("%{byte:02x}")));
    query.push_str("&x=-._~!$()*+,;:@/?[]|^`{}");
    let (addr, heads) = raw_server(answer_with("", b"de"));
    assert_eq!(fetch_one(fetch(1, &format!("http://{addr}/{query}"))), Ok(b"de".to_vec()));
    let head = heads.recv().unwrap();
    assert_eq!(head[0], format!("GET /{query} HTTP/1.1"));
    assert!(head.iter().any(|line| line == "user-agent: tester/1"), "{head:?}");
    assert!(head.iter().any(|line| line == "accept-encoding: gzip"), "{head:?}");
}

#[test]
fn a_family_without_address_is_said_so() {
    for (url, family) in
        [("http://127.0.0.1:1/announce", Family::V6), ("http://[::1]:1/announce", Family::V4)]
    {
        assert_eq!(fetch_one(Fetch { family, ..fetch(1, url) }), Err(FetchFailure::NoAddress), "{url}");
    }
}

#[test]
fn a_refusal_keeps_its_words() {
    let (serving, base) = local(|_| text(503, "d14:failure reason4:busye"));
    let expected = FetchFailure::Status(503, b"d14:failure reason4:busye".to_vec());
    assert_eq!(fetch_one(fetch(3, &format!("{base}/announce"))), Err(expected));
    serving.stop();
}

#[test]
fn gzip_is_inflated_within_bounds() {
    let cases = [(b"d5:peers0:e".to_vec(), true), (vec![0; 1 << 20], true), (vec![0; (1 << 20) + 1], false)];
    for (data, fits) in cases {
        let (addr, _) = raw_server(answer_with("Content-Encoding: gzip\r\n", &gzip_stored(&data)));
        let got = fetch_one(fetch(1, &format!("http://{addr}/announce")));
        let too_large = FetchFailure::Unreachable("larger than 1048576 bytes".into());
        assert!(got == if fits { Ok(data) } else { Err(too_large) });
    }
}

#[test]
fn a_body_cut_short_is_no_answer() {
    let (addr, _) = raw_server(answer_with("Content-Length: 100\r\n", b"d5:peers0:e"));
    assert!(matches!(
        fetch_one(fetch(1, &format!("http://{addr}/announce"))),
        Err(FetchFailure::Unreachable(_))
    ));
}

#[test]
fn redirects_are_followed_within_reason() {
    let (serving, base) = local(|asked| text(200, asked.path_and_query));
    let hop = |location: &str| {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        format!("http://{}/announce", raw_server(head.into_bytes()).0)
    };
    let end = format!("{base}/announce9?a=%FF");
    let five = (0..5).fold(end.clone(), |next, _| hop(&next));
    assert_eq!(fetch_one(fetch(1, &five)), Ok(b"/announce9?a=%FF".to_vec()));
    let six = (0..6).fold(end, |next, _| hop(&next));
    let failure = |words: &str| Err(FetchFailure::Unreachable(words.into()));
    assert_eq!(fetch_one(fetch(1, &six)), failure("too many redirects"));
    for scheme in ["file:///etc/passwd", "ftp://127.0.0.1/announce", "udp://127.0.0.1/announce", "http://"] {
        assert_eq!(fetch_one(fetch(1, &hop(scheme))), failure("not an HTTP URL"), "{scheme}");
    }
    // A tracker may not send us to the doors of other programs on this machine.
    assert_eq!(fetch_one(fetch(1, &hop(&format!("{base}/api/stop")))), failure("leads to a local address"));
    assert_eq!(
        fetch_one(fetch(1, &format!("{base}/api/announce/stop"))),
        failure("leads to a local address")
    );
    serving.stop();
}

#[test]
fn silence_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let hasty = Fetch { timeout: Duration::from_millis(50), ..fetch(1, &url) };
    assert_eq!(fetch_one(hasty), Err(FetchFailure::TimedOut));
    assert_eq!(get(&url, 1000, Duration::from_millis(50)), Err(GetError::TimedOut));
}

#[test]
fn nobody_there_and_nonsense() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in
        [&format!("http://{free}/announce"), "udp://1.2.3.4/announce", "", "http://", "http://[::1/announce"]
    {
        assert!(matches!(fetch_one(fetch(1, url)), Err(FetchFailure::Unreachable(_))), "{url}");
    }
}

#[test]
fn tls_that_is_none_is_refused() {
    let (addr, _) = raw_server(answer_with("", b"de"));
    assert!(matches!(
        fetch_one(fetch(1, &format!("https://{addr}/announce"))),
        Err(FetchFailure::Unreachable(_))
    ));
}

#[test]
fn many_fetches_each_get_their_reply() {
    let (serving, base) = local(|asked| text(200, asked.query()));
    let (client, outcomes) = client();
    for id in 0..500 {
        let event = if id % 3 == 0 { "&event=stopped" } else { "" };
        client.fetch(TorrentId(id as u32), fetch(id, &format!("{base}/announce?id={id}{event}")));
    }
    for _ in 0..500 {
        let (torrent, FetchId(id), body) = outcomes.recv_timeout(AGES).unwrap();
        assert_eq!(u64::from(torrent.0), id);
        assert!(body.unwrap().starts_with(format!("id={id}").as_bytes()));
    }
    assert!(outcomes.try_recv().is_err());
    client.stop();
    serving.stop();
}

#[test]
fn stopping_drops_what_is_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (client, outcomes) = client();
    (0..2 * AT_ONCE as u64).for_each(|id| client.fetch(TorrentId(1), fetch(id, &url)));
    let _under_way = listener.accept().unwrap();
    client.stop();
    // The sender is gone with the client, and nothing was sent.
    assert_eq!(outcomes.recv_timeout(AGES).unwrap_err(), mpsc::RecvTimeoutError::Disconnected);
    let (unused, _) = self::client();
    unused.stop();
}

#[test]
fn getting_a_torrent_by_url() {
    let (serving, base) = local(|asked| match asked.path() {
        "/a.torrent" => text(200, vec![b'x'; 100]),
        _ => text(404, "no"),
    });
    assert_eq!(get(&format!("{base}/a.torrent"), 100, AGES), Ok(vec![b'x'; 100]));
    assert_eq!(get(&format!("{base}/a.torrent"), 99, AGES), Err(GetError::TooLarge(99)));
    assert_eq!(get(&format!("{base}/b.torrent"), 99, AGES), Err(GetError::Status(404, b"no".to_vec())));
    assert_eq!(get("file:///etc/passwd", 99, AGES), Err(GetError::BadUrl));
    serving.stop();
}

/// A whole answer, after which the server hangs up.
fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The conditions in the head of a request.
fn conditions(heads: &mpsc::Receiver<Vec<String>>) -> Vec<String> {
    let head = heads.recv_timeout(AGES).unwrap();
    head.into_iter().filter(|line| line.to_ascii_lowercase().starts_with("if-")).collect()
}

#[test]
fn what_is_known_and_unchanged_is_not_sent_again() {
    let (tag, date) = ("W/\"a b\"", "Sat, 03 May 2025 10:00:00 GMT");
    let unchanged = || answer("304 Not Modified", "", "");
    let known = format!("etag: {tag}\r\nlast-modified: {date}\r\n");
    let (addr, heads) = raw_servers(vec![
        answer("200 OK", &known, "old"),
        unchanged(),
        unchanged(),
        answer("200 OK", &format!("etag: {}\r\n", "x".repeat(2000)), "new"),
        unchanged(),
    ]);
    let dialer = Dialer::new(Policy::default());
    let ask = |known: &Validators, path: &str| {
        get_if_changed(&dialer, &format!("http://{addr}/{path}"), known, 100, AGES, &Stop::default())
    };
    let Got::Body(body, known) = ask(&Validators::default(), "list").unwrap() else { panic!() };
    assert_eq!((&body[..], conditions(&heads)), (&b"old"[..], vec![]));
    assert_eq!((known.etag.as_deref(), known.last_modified.as_deref()), (Some(tag), Some(date)));
    assert_eq!(ask(&known, "list"), Ok(Got::Unchanged));
    assert_eq!(conditions(&heads), [format!("if-none-match: {tag}"), format!("if-modified-since: {date}")]);
    // Nobody else is told, and from them it is no answer.
    assert_eq!(ask(&known, "other"), Err(GetError::Status(304, vec![])));
    assert_eq!(conditions(&heads), Vec::<String>::new());
    let Got::Body(body, none) = ask(&known, "list").unwrap() else { panic!() };
    assert_eq!((&body[..], conditions(&heads).len()), (&b"new"[..], 2));
    // One that is too long is not kept.
    assert_eq!((none.etag, none.last_modified), (None, None));
    assert_eq!(get(&format!("http://{addr}/list"), 9, AGES), Err(GetError::Status(304, vec![])));
}

#[test]
fn the_end_of_a_redirect_is_told_what_is_known_of_it_and_the_way_there_is_not() {
    let (there, there_heads) =
        raw_servers(vec![answer("200 OK", "etag: \"1\"\r\n", ""), answer("304 Not Modified", "", "")]);
    let moved = answer("302 Found", &format!("location: http://{there}/x\r\n"), "");
    let (here, here_heads) = raw_servers(vec![moved.clone(), moved]);
    let ask = |known: &Validators| {
        let dialer = Dialer::new(Policy::default());
        get_if_changed(&dialer, &format!("http://{here}/"), known, 100, AGES, &Stop::default())
    };
    let Got::Body(_, known) = ask(&Validators::default()).unwrap() else { panic!() };
    assert_eq!(ask(&known), Ok(Got::Unchanged));
    for expected in [vec![], vec!["if-none-match: \"1\"".to_owned()]] {
        assert_eq!((conditions(&here_heads), conditions(&there_heads)), (vec![], expected));
    }
}

#[test]
fn a_request_is_given_up_when_nobody_waits_for_it() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, stop) = (format!("http://{}/", silent.local_addr().unwrap()), Stop::default());
    let stopper = stop.clone();
    let asked = thread::spawn(move || {
        let asked = silent.accept().unwrap();
        stopper.raise();
        asked
    });
    let dialer = Dialer::new(Policy::default());
    let ask = || get_if_changed(&dialer, &url, &Validators::default(), 9, AGES, &stop);
    assert_eq!((ask(), stop.is_raised()), (Err(GetError::TimedOut), true));
    assert_eq!(ask(), Err(GetError::TimedOut), "it stays raised");
    drop(asked.join().unwrap());
}

#[test]
fn a_connection_is_kept_and_a_request_understood() {
    let (serving, _) = local(|asked| {
        let words = [asked.method, asked.path(), asked.query(), asked.header("HOST").unwrap_or("-")];
        text(200, format!("{} {}", words.join(" "), asked.from.ip()))
    });
    let mut stream = TcpStream::connect(serving.addrs()[0]).unwrap();
    let (head, body) = ask(&mut stream, "/a%20b?c=%FF?d");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("content-type: text/plain\r\n"),
        "{head}"
    );
    assert_eq!(body, b"GET /a%20b c=%FF?d x 127.0.0.1");
    assert_eq!(ask(&mut stream, "/").1, b"GET /  x 127.0.0.1");
    // The idle connection does not hold this up.
    serving.stop();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn mapped_addresses_are_ipv4() {
    let handler = |asked: &Asked<'_>| text(200, asked.from.ip().to_string());
    let Ok(serving) = serve(vec!["[::]:0".parse().unwrap()], handler, ServeLimits::default()) else {
        return; // A machine without IPv6.
    };
    let mut stream = TcpStream::connect(("127.0.0.1", serving.addrs()[0].port())).unwrap();
    assert_eq!(ask(&mut stream, "/").1, b"127.0.0.1");
    serving.stop();
}

#[test]
fn a_head_has_bounds() {
    let (serving, _) = local(|_| text(200, "ok"));
    for junk in ["x".repeat(20_000), "a: b\r\n".repeat(100)] {
        let mut stream = TcpStream::connect(serving.addrs()[0]).unwrap();
        // The server may close before it has read all of it.
        let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{junk}\r\n\r\n").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    serving.stop();
}

#[test]
fn the_oldest_makes_room_and_a_host_has_its_share() {
    let limits = ServeLimits { connections: 4, connections_per_host: 100, ..ServeLimits::default() };
    let (serving, _) = serve_with(|_| text(200, "ok"), limits);
    let mut silent: Vec<_> = (0..4).map(|_| TcpStream::connect(serving.addrs()[0]).unwrap()).collect();
    let mut good = TcpStream::connect(serving.addrs()[0]).unwrap();
    assert_eq!(ask(&mut good, "/").1, b"ok");
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap(), 0, "the first is closed");
    assert_eq!(ask(&mut silent[1], "/").1, b"ok", "the second is not");
    serving.stop();

    let limits = ServeLimits { connections_per_host: 2, ..ServeLimits::default() };
    let (serving, _) = serve_with(|_| text(200, "ok"), limits);
    let mut kept: Vec<_> = (0..2).map(|_| TcpStream::connect(serving.addrs()[0]).unwrap()).collect();
    assert_eq!(ask(&mut kept[1], "/").1, b"ok");
    let mut third = TcpStream::connect(serving.addrs()[0]).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "one too many");
    serving.stop();
}

#[test]
fn the_slow_are_shown_out() {
    let patience = Duration::from_millis(50);
    let limits = ServeLimits {
        head_timeout: patience,
        stall_timeout: patience,
        connections_per_host: 1,
        ..ServeLimits::default()
    };
    let (serving, _) = serve_with(|_| text(200, vec![0; 64 << 20]), limits);
    let mut slow = TcpStream::connect(serving.addrs()[0]).unwrap();
    slow.write_all(b"GET / HT").unwrap();
    assert_eq!(slow.read(&mut [0; 1]).unwrap_or(0), 0, "a head that does not come");

    // Takes nothing of its answer: its place must become free, which the next one notices by being answered.
    let deaf = || {
        let mut stream = TcpStream::connect(serving.addrs()[0]).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        stream
    };
    let _stuck = deaf();
    while deaf().read(&mut [0; 1]).unwrap_or(0) == 0 {}
    serving.stop();
}
