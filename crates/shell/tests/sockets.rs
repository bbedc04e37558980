//! The loop against real sockets, with a small engine behind it that plays both sides' parts.

mod common;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{PATIENCE, Toy, content, storage, torrent};
use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId, Heard, Outcome};
use piecemeal_engine::cx::{
    Ate, Carrier, Command, ConnId, DialId, FileSpan, Goodbye, Handed, Net, News, Note, Out, Purpose, Sending,
    Settings,
};
use piecemeal_metainfo::{FileIndex, PeerId, Time, TorrentId};
use piecemeal_package::Done;
use piecemeal_shell::driven::{Data, Driven, Front};
use piecemeal_shell::net::{Dialer, Policy};
use piecemeal_shell::{Shell, ShellSettings};
use piecemeal_transport::mse::Total;
use piecemeal_wire::Reserved;

const T: TorrentId = TorrentId(1);
/// What the toy Server answers to the one byte of its handshake.
const HELLO: &[u8] = b"hello from the front";
/// A File slice follows such a header, as a Block does on the wire.
const HEADER: &[u8; 13] = b"thirteen byte";
const BLOCK: u32 = 16 * 1024;
/// Whom the toy Server does not talk to.
const BLOCKED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// Shakes hands: any first byte will do. Dials when it is told a limit: `up` times to port `down`. Sends a datagram to
/// each address that it is told of as a node.
#[derive(Default)]
struct ToyFront {
    out: Out,
    hello: BTreeMap<ConnId, usize>,
    dials: u64,
    refused: u64,
}

impl Driven for ToyFront {
    fn on_bytes(&mut self, _: Time, conn: ConnId, bytes: &[u8]) -> Ate {
        assert!(!bytes.is_empty());
        self.hello.insert(conn, 0);
        self.out.net.push(Net::Write(conn));
        self.out.notes.push(Note::Hand(Box::new(Handed {
            conn,
            torrent: T,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            peer_id: PeerId([0; 20]),
            reserved: Reserved::default(),
            outgoing: false,
            carrier: Carrier::Tcp,
            ciphers: None,
            leftover: Vec::new(),
        })));
        // The rest is for the Shard.
        Ate { bytes: 1, thirsty: false }
    }
    fn on_wrote(&mut self, _: Time, conn: ConnId, bytes: usize) {
        *self.hello.get_mut(&conn).unwrap() += bytes;
    }
    fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        let rest = &HELLO[*self.hello.get(&conn)?..];
        (!rest.is_empty()).then(|| f(&[Sending::Bytes(rest)]))
    }
    fn on_closed(&mut self, _: Time, _: ConnId, _: Goodbye) {}
    fn on_note(&mut self, _: Time, _: Note) {}
    fn heartbeat(&mut self, _: Time) -> Time {
        Time::NEVER
    }
    fn out(&mut self) -> &mut Out {
        &mut self.out
    }
}

impl Front for ToyFront {
    fn lets_in(&self, ip: IpAddr) -> bool {
        ip != BLOCKED
    }
    fn on_accepted(&mut self, _: Time, _: ConnId, _: SocketAddr, _: Carrier) {}
    fn on_total(&mut self, _: Time, _: ConnId, _: Total) {}
    fn on_proved(&mut self, _: ConnId, _: TorrentId) {}
    fn on_dialed(&mut self, _: Time, dial: DialId, result: Result<ConnId, String>) {
        match result {
            Ok(conn) => self.out.net.push(Net::Close(conn, Goodbye::Useless)),
            Err(_) => self.refused += 1,
        }
        assert!(dial.0 < self.dials);
        self.dials -= 1;
        if self.dials == 0 {
            self.out.news.push(told("dials", format!("{} refused", self.refused)));
        }
    }
    fn on_command(&mut self, _: Time, command: Command) {
        let (down, up) = match command {
            Command::Limits { down, up } => (down, up),
            Command::Nodes(all) => {
                let datagrams = all.into_iter().map(|to| Net::Datagram {
                    purpose: Purpose::Dht,
                    to,
                    bytes: b"hello".to_vec(),
                });
                return self.out.net.extend(datagrams);
            }
            _ => return,
        };
        (self.dials, self.refused) = (up, 0);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, down as u16));
        let patience = PATIENCE;
        self.out.net.extend((0..up).rev().map(|dial| Net::Dial {
            dial: DialId(dial),
            to,
            carrier: Carrier::Tcp,
            tls: None,
            patience,
        }));
    }
    /// Sends it back, back to front.
    fn on_datagram(&mut self, _: Time, from: SocketAddr, bytes: &[u8]) {
        let bytes = bytes.iter().rev().copied().collect();
        self.out.net.push(Net::Datagram { purpose: Purpose::Dht, to: from, bytes });
    }
    fn on_lsd(&mut self, _: Time, _: SocketAddr, _: &[u8]) {}
    fn on_resolved(&mut self, _: Time, _: TorrentId, _: &Fetch, _: SocketAddr) {}
    fn on_unreachable(&mut self, _: Time, to: SocketAddr, why: &str) {
        assert!(!why.is_empty());
        self.out.news.push(told("unreachable", to.to_string()));
    }
}

fn told(what: &str, how: String) -> News {
    let outcome = Outcome::Failed { reason: how, retry: Duration::MAX };
    News::Tracker(T, Heard { url: what.into(), outcome })
}

/// What the toy Shard does is said by the first byte it gets: `e` echoes, `f` sends files, `t` thirsts.
struct ToyData {
    out: Out,
    conns: BTreeMap<ConnId, ToyConn>,
    files: Vec<FileSpan>,
    /// While set, a thirsty connection stays so.
    dry: Arc<AtomicBool>,
    thirsty: Vec<ConnId>,
}

#[derive(Default)]
struct ToyConn {
    mode: Option<u8>,
    /// Bytes to send, of them sent.
    echo: Vec<u8>,
    files: Vec<FileSpan>,
    sent: usize,
    ate: u64,
}

impl Driven for ToyData {
    fn on_bytes(&mut self, _: Time, conn: ConnId, bytes: &[u8]) -> Ate {
        let toy = self.conns.get_mut(&conn).expect("handed over first");
        let (first, rest) = match toy.mode {
            None => (1, &bytes[1..]),
            Some(_) => (0, bytes),
        };
        match *toy.mode.get_or_insert(bytes[0]) {
            b'e' => toy.echo.extend_from_slice(rest),
            b'f' => toy.files = self.files.clone(),
            b't' => {
                if self.dry.load(Ordering::SeqCst) {
                    self.thirsty.push(conn);
                    return Ate { bytes: first, thirsty: true };
                }
                // An odd number, so that what is kept has every shape.
                let eaten = rest.len().min(10_007);
                toy.ate += eaten as u64;
                toy.echo = toy.ate.to_be_bytes().to_vec();
                if eaten < rest.len() {
                    self.out.net.push(Net::Read(conn));
                    return Ate { bytes: first + eaten, thirsty: true };
                }
                toy.sent = 0;
            }
            other => panic!("no such mode: {other}"),
        }
        self.out.net.push(Net::Write(conn));
        Ate { bytes: bytes.len(), thirsty: false }
    }
    fn on_wrote(&mut self, _: Time, conn: ConnId, bytes: usize) {
        let toy = self.conns.get_mut(&conn).unwrap();
        toy.sent += bytes;
    }
    fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        let toy = self.conns.get(&conn)?;
        let mut skip = toy.sent;
        let mut slices = Vec::new();
        for span in &toy.files {
            let header = skip.min(HEADER.len());
            let body = (skip - header).min(span.len as usize);
            skip -= header + body;
            slices.push(Sending::Bytes(&HEADER[header..]));
            let (offset, len) = (span.offset + body as u64, span.len - body as u32);
            slices.push(Sending::File(FileSpan { offset, len, ..*span }));
        }
        // Some to gather, some small.
        slices.extend(toy.echo[skip..].chunks(1_000).map(Sending::Bytes));
        slices.retain(|slice| !matches!(slice, Sending::Bytes([]) | Sending::File(FileSpan { len: 0, .. })));
        slices.truncate(64);
        (!slices.is_empty()).then(|| f(&slices))
    }
    fn on_closed(&mut self, _: Time, conn: ConnId, why: Goodbye) {
        self.conns.remove(&conn).expect("closed once");
        self.out.news.push(told("closed", format!("{why:?}")));
    }
    fn on_note(&mut self, _: Time, note: Note) {
        if let Note::Hand(handed) = note {
            assert!(
                self.conns.insert(handed.conn, ToyConn::default()).is_none(),
                "a number is never used again"
            );
        }
    }
    fn heartbeat(&mut self, now: Time) -> Time {
        if self.thirsty.is_empty() {
            return Time::NEVER;
        }
        if !self.dry.load(Ordering::SeqCst) {
            self.out.net.extend(self.thirsty.drain(..).map(Net::Read));
        }
        now + Duration::from_millis(20)
    }
    fn out(&mut self) -> &mut Out {
        &mut self.out
    }
}

impl Data for ToyData {
    fn on_disk(&mut self, _: Time, _: TorrentId, _: Done) {}
    fn on_fetched(&mut self, _: Time, _: TorrentId, _: FetchId, _: Result<&[u8], FetchFailure>) {}
}

struct Rig {
    shell: Shell,
    dry: Arc<AtomicBool>,
}

impl Rig {
    fn new(files: Vec<FileSpan>) -> Rig {
        Rig::listening(&[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()], files)
    }

    fn listening(listen: &[SocketAddr], files: Vec<FileSpan>) -> Rig {
        Rig::speaking(listen, files, Settings::default())
    }

    fn speaking(listen: &[SocketAddr], files: Vec<FileSpan>, engine: Settings) -> Rig {
        let dry = Arc::new(AtomicBool::new(false));
        let flag = dry.clone();
        let settings = ShellSettings {
            mapping: None,
            engine,
            dialer: Dialer::new(Policy::default()),
            listen: listen.to_vec(),
            pool_bytes: 1 << 20,
            utp_yields: true,
            disk_threads: 1,
            seed: Some([1; 32]),
        };
        let shell = Shell::start_with(settings, move |engine, _, pool_bufs| {
            assert!(engine.port != 0 && pool_bufs == 64);
            let (out, conns, thirsty) = (Out::default(), BTreeMap::new(), Vec::new());
            (ToyFront::default(), ToyData { out, conns, files, dry: flag, thirsty })
        });
        Rig { shell: shell.expect("loopback can be listened on"), dry }
    }

    /// Connects, shakes hands, and says the mode.
    fn connect(&self, mode: u8) -> TcpStream {
        self.connect_to(self.shell.listening()[0], mode)
    }

    fn connect_to(&self, addr: SocketAddr, mode: u8) -> TcpStream {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[b'!', mode]).unwrap();
        let mut hello = [0; HELLO.len()];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, HELLO);
        stream
    }

    fn hear(&self, what: &str) -> String {
        loop {
            match self.shell.recv_news(Some(PATIENCE)) {
                Some(News::Tracker(_, Heard { url, outcome: Outcome::Failed { reason, .. } }))
                    if url == what =>
                {
                    return reason;
                }
                Some(_) => {}
                None => panic!("nothing was heard of {what}"),
            }
        }
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 9) as u8).collect()
}

#[test]
fn both_families_are_listened_on_at_one_port() {
    let rig = Rig::new(Vec::new());
    let [v4, v6] = rig.shell.listening() else { panic!() };
    assert_eq!(v4.port(), v6.port());
    rig.connect_to(*v4, b'e');
    rig.connect_to(*v6, b'e');
    for _ in 0..2 {
        assert_eq!(rig.hear("closed"), "Closed");
    }
}

#[test]
fn a_slow_reader_gets_every_byte_in_order() {
    let rig = Rig::new(Vec::new());
    let sent = noise(8 << 20);
    let mut stream = rig.connect(b'e');
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    // Nothing is read until all is written: writes must stay partial for long.
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer
    });
    let mut got = vec![0; sent.len()];
    for part in got.chunks_mut(70_001) {
        stream.read_exact(part).unwrap();
    }
    assert!(got == sent, "the echo differs");
    drop((writing.join().unwrap(), stream));
    // Counts are shown at the end of a turn; that the connection ended is heard in a later one.
    rig.hear("closed");
    let stats = rig.shell.stats();
    assert!(stats.bytes_in >= sent.len() as u64 && stats.accepted == 1, "{stats:?}");
}

#[test]
fn a_reset_is_heard_of_once() {
    let rig = Rig::new(Vec::new());
    let stream = rig.connect(b'e');
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert!(rig.hear("closed").starts_with("Failed"), "a reset is a failure");
    // A peer that says its last and then closes is heard to the end.
    let mut stream = rig.connect(b'e');
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.hear("closed"), "Closed");
}

#[test]
fn a_thirsty_connection_stops_and_goes_on_where_it_stopped() {
    let rig = Rig::new(Vec::new());
    rig.dry.store(true, Ordering::SeqCst);
    let mut stream = rig.connect(b't');
    let sent = noise(32 << 20);
    // Back-pressure reaches the sender: its own buffer fills, and nothing more is taken.
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut written = 0;
    while written < sent.len() {
        match stream.write(&sent[written..]) {
            Ok(bytes) => written += bytes,
            Err(why) => {
                assert!(matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{why}");
                break;
            }
        }
    }
    assert!(written < sent.len(), "the sender was never stopped");
    assert!(rig.shell.stats().bytes_in <= 2 + 64 * 1024, "one read is kept, no more");
    rig.dry.store(false, Ordering::SeqCst);
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&sent[written..]).unwrap();
    let mut counted = [0; 8];
    while u64::from_be_bytes(counted) < sent.len() as u64 {
        stream.read_exact(&mut counted).expect("all of it is counted in the end");
    }
    assert_eq!(u64::from_be_bytes(counted), sent.len() as u64);
}

#[test]
fn dials_to_a_closed_port_are_all_answered() {
    let rig = Rig::new(Vec::new());
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    rig.shell.command(Command::Limits { down: port.into(), up: 2_000 });
    assert_eq!(rig.hear("dials"), "2000 refused");
    // And to an open one.
    let port = rig.shell.listening()[0].port();
    rig.shell.command(Command::Limits { down: port.into(), up: 50 });
    assert_eq!(rig.hear("dials"), "0 refused");
}

fn span(offset: u64, len: u32) -> FileSpan {
    FileSpan { torrent: T, file: FileIndex(0), offset, len }
}

#[test]
fn files_are_sent_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let len = 6_000_007;
    let meta = torrent(&[Toy::File("a", len)]);
    let bytes = content(&meta, T);
    std::fs::create_dir_all(folder.path().join("root/t")).unwrap();
    std::fs::write(folder.path().join("root/t/a"), &bytes).unwrap();
    let offsets = (0..len).step_by(BLOCK as usize);
    let files: Vec<_> = offsets.map(|at| span(at, (len - at).min(BLOCK.into()) as u32)).collect();
    let rig = Rig::new(files.clone());
    rig.shell.register(T, storage(folder.path(), &meta)).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| rig.connect(b'f')).collect();
    for span in &files {
        for stream in &mut readers {
            let mut header = [0; HEADER.len()];
            stream.read_exact(&mut header).unwrap();
            assert_eq!(&header, HEADER);
            let mut block = vec![0; span.len as usize];
            stream.read_exact(&mut block).unwrap();
            assert!(block == bytes[span.offset as usize..][..block.len()], "at {}", span.offset);
        }
    }
    drop(readers);
    for _ in 0..3 {
        rig.hear("closed");
    }
    assert_eq!(rig.shell.stats().bytes_from_files, 3 * len);
}

#[test]
fn a_file_that_shrank_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let meta = torrent(&[Toy::File("a", 100_000)]);
    std::fs::create_dir_all(folder.path().join("root/t")).unwrap();
    std::fs::write(folder.path().join("root/t/a"), vec![7; 20_000]).unwrap();
    let rig = Rig::new(vec![span(0, BLOCK), span(BLOCK.into(), BLOCK)]);
    rig.shell.register(T, storage(folder.path(), &meta)).unwrap();
    let mut stream = rig.connect(b'f');
    let mut got = Vec::new();
    // A reset is as good an end as a last byte.
    let _ = stream.read_to_end(&mut got);
    assert!(got.len() <= 20_000 + 2 * HEADER.len());
    assert!(rig.hear("closed").contains("shorter"));
    // A file that is not there, and one whose place a link took.
    for (at, want) in ["No such file", "symbolic links"].into_iter().enumerate() {
        let path = folder.path().join("root/t/a");
        let _ = std::fs::remove_file(&path);
        if at == 1 {
            std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        }
        let rig = Rig::new(vec![span(0, 16)]);
        rig.shell.register(T, storage(folder.path(), &meta)).unwrap();
        let mut stream = rig.connect(b'f');
        let _ = stream.read_to_end(&mut got);
        let why = rig.hear("closed");
        assert!(why.contains(want), "{why}");
    }
}

#[test]
fn an_idle_engine_sleeps() {
    let rig = Rig::new(Vec::new());
    let _stream = rig.connect(b'e');
    // What the start and the handshake brought is over once nothing was woken for a while.
    let quiet = || rig.shell.recv_news(Some(Duration::from_millis(200)));
    quiet();
    let before = rig.shell.stats();
    quiet();
    assert_eq!(rig.shell.stats(), before);
}

#[test]
fn a_shutdown_ends_all_threads_and_hands_out_the_last_news() {
    let rig = Rig::new(Vec::new());
    drop(rig.connect(b'e'));
    rig.shell.command(Command::Limits { down: 1, up: 1 });
    rig.hear("dials");
    let addr = rig.shell.listening()[0];
    let news = rig.shell.shutdown(PATIENCE);
    assert!(news.iter().all(|news| matches!(news, News::Tracker(..))));
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn a_taken_port_is_told() {
    let rig = Rig::new(Vec::new());
    let settings = ShellSettings {
        mapping: None,
        engine: Settings::default(),
        dialer: Dialer::new(Policy::default()),
        listen: vec![rig.shell.listening()[0]],
        pool_bytes: 0,
        utp_yields: true,
        disk_threads: 1,
        seed: None,
    };
    let said = Shell::start(settings).err().map(|why| why.to_string()).unwrap_or_default();
    assert!(said.starts_with("cannot listen on 127.0.0.1:"), "{said}");
}

#[test]
fn datagrams_come_and_go_by_the_port_of_the_listeners() {
    let rig = Rig::new(Vec::new());
    for listening in rig.shell.listening() {
        let socket = std::net::UdpSocket::bind(SocketAddr::new(listening.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // More than one turn takes, so that what is left is found without another event.
        for at in 0..600_u16 {
            socket.send_to(&[b'd', at as u8, (at >> 8) as u8], listening).unwrap();
            let mut answer = [0; 100];
            let (bytes, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..bytes], from), (&[(at >> 8) as u8, at as u8, b'd'][..], *listening));
        }
    }
    // Counts are shown at the end of a turn, and the last answer may be here sooner.
    let stats = rig.shell.stats();
    assert!(stats.datagrams_in >= 1190 && stats.datagrams_out >= 1190, "{stats:?}");
}

/// Only Linux has more than one address of loopback by itself.
#[cfg(target_os = "linux")]
#[test]
fn each_of_several_addresses_answers_for_itself() {
    let addrs = [1, 2, 3].map(|host| SocketAddr::from(([127, 0, 0, host], 0)));
    let rig = Rig::listening(&addrs, Vec::new());
    let listening = rig.shell.listening();
    assert_eq!(listening.iter().map(SocketAddr::ip).collect::<Vec<_>>(), addrs.map(|addr| addr.ip()));
    assert!(listening.iter().all(|addr| addr.port() == listening[0].port()));
    assert_eq!(rig.shell.hearing(), listening);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for addr in listening {
        rig.connect_to(*addr, b'e');
        socket.send_to(b"who", addr).unwrap();
        let mut answer = [0; 100];
        let (bytes, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..bytes], from), (&b"ohw"[..], *addr));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn who_is_blocked_gets_no_answer_to_any_datagram() {
    // The first packet of a uTP connection, and what is no uTP.
    let syn = b"\x41\0\x12\x34\0\0\0\0\0\0\0\0\0\x10\0\0\0\x01\0\0";
    let packets: [&[u8]; 2] = [syn, b"dee"];
    let engine = Settings { utp: true, ..Settings::default() };
    let any = [(Ipv4Addr::UNSPECIFIED, 0).into()];
    let rig = Rig::speaking(&any, Vec::new(), engine);
    let to: SocketAddr = (Ipv4Addr::LOCALHOST, rig.shell.listening()[0].port()).into();
    let [blocked, other] = [BLOCKED, Ipv4Addr::LOCALHOST.into()].map(|ip| {
        let socket = std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    for packet in packets {
        blocked.send_to(packet, to).unwrap();
        other.send_to(packet, to).unwrap();
        // It is answered after the first one could have been.
        assert!(other.recv(&mut [0; 100]).unwrap() > 0, "{packet:?}");
    }
    blocked.set_nonblocking(true).unwrap();
    assert_eq!(blocked.recv(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Counts are shown at the end of a turn, and the last answer may be here sooner.
    assert!(rig.shell.stats().blocked >= 1, "{:?}", rig.shell.stats());
}

#[test]
fn an_address_without_a_way_to_it_is_told() {
    let rig = Rig::listening(&[(Ipv4Addr::LOCALHOST, 0).into()], Vec::new());
    // Where nobody answers is still a way to; from a socket of loopback none leads out; of the other family is none.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let far = ["192.0.2.1:9", "[2001:db8::1]:9"];
    let to = [silent].into_iter().chain(far.map(|addr| addr.parse().unwrap()));
    rig.shell.command(Command::Nodes(to.collect()));
    assert_eq!(far.map(|_| rig.hear("unreachable")), far);
}
