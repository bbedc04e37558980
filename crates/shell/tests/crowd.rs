//! The engine behind real sockets, with guests that come in numbers, or by several doors.
#![cfg(target_os = "linux")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use piecemeal_engine::cx::{Command, News, Seeking, Settings};
use piecemeal_metainfo::{InfoHash, InfoHashes, PeerId, TorrentId};
use piecemeal_shell::net::{Dialer, Policy};
use piecemeal_shell::{Shell, ShellSettings};
use piecemeal_wire::Reserved;
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const T: TorrentId = TorrentId(1);
const HASH: InfoHash = InfoHash([7; 20]);
/// Sockets that dawdle, if the system allows so many.
const SLOW: u64 = 10_000;
/// With fewer this test says nothing.
const LEAST_SLOW: u64 = 2_000;
/// Handles for everything else.
const OTHER_HANDLES: u64 = 1_000;
/// Threads that open them, and keep them open.
const CROWD_THREADS: u64 = 4;
/// The aim is 2 s; this is for machines that do other things at the same time.
const LET_IN_WITHIN: Duration = Duration::from_secs(10);
/// Far beyond what anything here takes; only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(listen: &[SocketAddr], engine: Settings) -> Shell {
    let settings = ShellSettings {
        engine,
        dialer: Dialer::new(Policy::default()),
        listen: listen.to_vec(),
        mapping: None,
        pool_bytes: 1 << 20,
        utp_yields: true,
        disk_threads: 1,
        seed: None,
    };
    Shell::start(settings).expect("loopback can be listened on")
}

/// Has it look for the torrent, so that it takes connections for it.
fn seek(shell: &Shell, peers: Vec<SocketAddr>) {
    let hashes = InfoHashes { v1: Some(HASH), v2: None };
    let seeking = Seeking { torrent: T, hashes, trackers: Vec::new(), peers, leave: false };
    shell.command(Command::Seek(Box::new(seeking)));
}

fn has_peers(shell: &Shell, wanted: usize) {
    loop {
        match shell.recv_news(Some(PATIENCE)) {
            Some(News::Seeking { peers, .. }) if peers == wanted => return,
            Some(_) => {}
            None => panic!("there are no {wanted} peers"),
        }
    }
}

/// A peer that does as it should; how long it took until the engine spoke to it as to a peer.
fn good_peer(to: SocketAddr, number: usize) -> io::Result<Duration> {
    let since = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, LET_IN_WITHIN)?;
    stream.set_read_timeout(Some(LET_IN_WITHIN))?;
    let reserved = Reserved::NONE.with_extension();
    let mut name = [b'g'; 20];
    name[12..].copy_from_slice(&number.to_be_bytes());
    let hello = Handshake { reserved, info_hash: HASH, peer_id: PeerId(name) };
    stream.write_all(&hello.encode())?;
    let mut answer = [0; HANDSHAKE_BYTES + 6];
    stream.read_exact(&mut answer)?;
    // Behind the handshake: an extended message (BEP 10), its handshake.
    assert_eq!(answer[HANDSHAKE_BYTES + 4..], [20, 0]);
    Ok(since.elapsed())
}

/// Raises the limit of handles; how many sockets that leaves for the crowd.
fn room_for_crowd() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(1 << 20).min(1 << 20);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    SLOW.min(most.saturating_sub(OTHER_HANDLES))
}

/// Number `n` of the crowd calls, from an address it shares with seven others.
fn slow_socket(n: u64, to: SocketAddr) -> Option<TcpStream> {
    let [_, b, c, d] = (n as u32 / 8 + 256).to_be_bytes();
    let from = SocketAddrV4::new(Ipv4Addr::new(127, b, c, d), 0);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from(from).into()).ok()?;
    socket.connect_timeout(&to.into(), LET_IN_WITHIN).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

/// What number `n` says when its turn comes. One in four begins as if its handshake were encrypted: 96 bytes make a key,
/// for which the engine has to calculate. The others say a byte of a plain one, or nothing.
fn says(n: u64, turn: u64) -> Vec<u8> {
    let hello = Handshake { reserved: Reserved::NONE, info_hash: HASH, peer_id: PeerId([b's'; 20]) }.encode();
    match n % 4 {
        0 if turn == 0 => {
            (0..96).map(|at: u64| ((n + 1).wrapping_mul(at * 2 + 0x9e37_79b9) >> 11) as u8 | 1).collect()
        }
        0 => vec![n as u8],
        3 => Vec::new(),
        _ => hello[turn as usize % 40..][..1].to_vec(),
    }
}

/// Says something; whether the other end is gone.
fn is_gone(socket: &mut TcpStream, words: &[u8]) -> bool {
    let waits = |why: io::Error| why.kind() == ErrorKind::WouldBlock;
    let mut answer = [0; 1024];
    let heard = socket.read(&mut answer).map_or_else(waits, |bytes| bytes > 0);
    let said = socket.write(words).map_or_else(waits, |_| true);
    !heard || !said
}

/// Keeps `mine` of the crowd busy until told to stop: each says a little, and who was sent away comes back.
fn dawdle(mine: std::ops::Range<u64>, to: SocketAddr, open: &AtomicU64, came: &AtomicU64, stop: &AtomicBool) {
    let mut sockets: Vec<(Option<TcpStream>, u64)> = mine.clone().map(|_| (None, 0)).collect();
    while !stop.load(Ordering::Relaxed) {
        for (n, (socket, turn)) in mine.clone().zip(&mut sockets) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let gone = socket.as_mut().is_none_or(|socket| is_gone(socket, &says(n, *turn)));
            *turn += 1;
            if gone {
                open.fetch_sub(u64::from(socket.is_some()), Ordering::Relaxed);
                (*socket, *turn) = (slow_socket(n, to), 0);
                open.fetch_add(u64::from(socket.is_some()), Ordering::Relaxed);
                came.fetch_add(u64::from(socket.is_some()), Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn ten_thousand_who_dawdle_keep_no_good_peer_out() {
    let crowd = room_for_crowd();
    assert!(crowd >= LEAST_SLOW, "the system allows {crowd} sockets");
    let shell = start(&[(Ipv4Addr::LOCALHOST, 0).into()], Settings::default());
    seek(&shell, Vec::new());
    let to = shell.listening()[0];
    let (open, came, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (open, came, stop) = (&open, &came, &stop);
    let took = thread::scope(|scope| {
        for part in 0..CROWD_THREADS {
            let mine = crowd * part / CROWD_THREADS..crowd * (part + 1) / CROWD_THREADS;
            scope.spawn(move || dawdle(mine, to, open, came, stop));
        }
        // Until all of the crowd have come twice: while they pour in, and while they come back.
        let (since, mut took) = (Instant::now(), Vec::new());
        while came.load(Ordering::Relaxed) < 2 * crowd && since.elapsed() < PATIENCE {
            took.push(good_peer(to, took.len()));
            thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        took
    });
    let came = came.load(Ordering::Relaxed);
    assert!(came >= 2 * crowd, "only {came} of {crowd} came");
    let took: Vec<Duration> = took.into_iter().map(|took| took.expect("a good peer is let in")).collect();
    println!(
        "{crowd} sockets, of which {} were open at the end, called {came} times; {} good peers were let in within {:?}",
        open.load(Ordering::Relaxed),
        took.len(),
        took.iter().max().expect("there were some"),
    );
    shell.shutdown(Duration::from_secs(5));
}

#[test]
fn peers_come_by_each_of_several_addresses_and_both_carriers() {
    let any = |host| SocketAddr::from(([127, 0, 0, host], 0));
    for (tcp, utp) in [(true, false), (false, true)] {
        let settings = |name: u8| Settings { tcp, utp, peer_id: PeerId([name; 20]), ..Settings::default() };
        let called = start(&[any(1), any(2)], settings(1));
        seek(&called, Vec::new());
        let callers: Vec<Shell> = (0..2).map(|at| start(&[any(3)], settings(at + 2))).collect();
        for (caller, to) in callers.iter().zip(called.listening()) {
            seek(caller, vec![*to]);
            has_peers(caller, 1);
        }
        has_peers(&called, 2);
        for shell in callers.into_iter().chain([called]) {
            shell.shutdown(Duration::from_secs(5));
        }
    }
}
