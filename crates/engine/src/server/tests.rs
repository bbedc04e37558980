use std::fmt::Write as _;
use std::sync::Arc;

use piecemeal_metainfo::{Metainfo, PeerId};
use piecemeal_package::Start;
use piecemeal_wire::handshake::HANDSHAKE_BYTES;

use super::dials::MOST_QUEUED_DIALS;
use super::*;
use crate::cx::{Change, Options};
use crate::outside::Outside;

mod encrypted;
mod gate;
mod random;
mod reach;
mod tls;

const US: PeerId = PeerId(*b"-PM0100-uuuuuuuuuuuu");
const PEER: PeerId = PeerId(*b"-XX0001-pppppppppppp");
const ONE: TorrentId = TorrentId(1);
const TWO: TorrentId = TorrentId(2);

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of a test")
}

/// The host `10.x.y.z` with the number `host`.
fn host(host: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0000 | host).to_be_bytes(), 6881))
}

fn meta(torrent: TorrentId) -> Metainfo {
    let name = format!("t{}", torrent.0);
    let mut info = format!("d6:lengthi1e4:name{}:{name}12:piece lengthi16384e6:pieces20:", name.len());
    info.push_str("aaaaaaaaaaaaaaaaaaaae");
    Metainfo::from_info(info.as_bytes(), vec![]).expect("a torrent of one byte")
}

fn seating(torrent: TorrentId, meta: Metainfo) -> Box<Seating> {
    Box::new(Seating {
        torrent,
        meta: Arc::new(meta),
        wanted: [true].into(),
        facts: None,
        start: Start::Resume,
        boot: [0; 16],
        options: Options::default(),
        peers: vec![],
        known: vec![],
        trackers: vec![],
    })
}

fn hash(torrent: TorrentId) -> InfoHash {
    meta(torrent).wire_hash()
}

/// What `who` says to talk about `torrent`.
fn hello(who: PeerId, torrent: TorrentId) -> [u8; HANDSHAKE_BYTES] {
    Handshake { reserved: Reserved::NONE.with_dht(), info_hash: hash(torrent), peer_id: who }.encode()
}

/// What we must say about `torrent`.
fn our_hello(torrent: TorrentId) -> [u8; HANDSHAKE_BYTES] {
    let mut bytes = *b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04aaaaaaaaaaaaaaaaaaaa-PM0100-uuuuuuuuuuuu";
    bytes[28..48].copy_from_slice(&hash(torrent).0);
    bytes
}

/// All lanes as lines, in order, `net` before `notes` before `news`; and leaves them empty.
fn drain(server: &mut Server) -> Vec<String> {
    let out = server.out();
    assert!(out.disk.is_empty(), "a Server has no work for the disk");
    let net = out.net.drain(..).map(|wish| match wish {
        Net::Dial { dial, to, carrier: Carrier::Tcp, tls: None, patience } => {
            format!("dial #{} {to} {patience:?}", dial.0)
        }
        Net::Write(conn) => format!("write {}", conn.0),
        Net::Close(conn, why) => format!("close {} {why:?}", conn.0),
        other => panic!("not a Server's wish: {other:?}"),
    });
    let notes = out.notes.drain(..).map(|note| match note {
        Note::Seat(seating) => format!("seat {}", seating.torrent.0),
        Note::Unseat { torrent, delete } => format!("unseat {} {delete}", torrent.0),
        Note::Change(torrent, _) => format!("change {}", torrent.0),
        Note::Lease { down, up } => format!("lease {down} {up}"),
        Note::DialFailed { torrent, to, why } => format!("failed {} {to} {why:?}", torrent.0),
        Note::Hand(handed) => {
            let Handed { conn, torrent, addr, peer_id, reserved, outgoing, leftover, .. } = *handed;
            let way = if outgoing { "called" } else { "caller" };
            let mut line = format!("hand {} for {}: {way} {addr} ", conn.0, torrent.0);
            line.extend(peer_id.0.map(char::from));
            write!(line, " dht={} +{leftover:?}", reserved.dht()).expect("a String takes all");
            line
        }
        Note::Outside(outside) => format!("outside {}", outside.port_v4),
        Note::Moved => "moved".to_owned(),
        Note::Gate(_) => "gate".to_owned(),
        _ => panic!("not a note of a Server"),
    });
    let news = out.news.drain(..).map(|news| match news {
        News::Gone(torrent) => format!("gone {}", torrent.0),
        News::Reach(reach) => format!("reach {:?}", reach.map(|reach| (reach.port, reach.external))),
        other => panic!("not a Server's news: {other:?}"),
    });
    net.chain(notes).chain(news).collect()
}

fn settings() -> Settings {
    Settings { peer_id: US, ..Settings::default() }
}

/// A Server where [`ONE`] is open and [`TWO`] is seated but closed.
fn server_with(settings: Settings) -> Server {
    let mut server = Server::new(settings, [0; 32]);
    server.on_command(at(0), Command::Add(seating(ONE, meta(ONE))));
    server.on_command(at(0), Command::Add(seating(TWO, meta(TWO))));
    server.on_note(at(0), Note::Open { torrent: ONE, open: true });
    assert_eq!(drain(&mut server), ["seat 1", "seat 2"]);
    server
}

fn server() -> Server {
    server_with(settings())
}

/// Writes all that `conn` has to write, `step` bytes at a time.
fn written(server: &mut Server, conn: ConnId, step: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(took) = server.with_sealed(conn, |slices| {
        let [Sending::Bytes(bytes)] = slices else { panic!("one slice of bytes: {slices:?}") };
        let took = bytes.len().min(step);
        all.extend_from_slice(&bytes[..took]);
        took
    }) {
        server.on_wrote(at(0), conn, took);
    }
    all
}

fn say(server: &mut Server, conn: u64, bytes: &[u8]) {
    let ate = server.on_bytes(at(0), ConnId(conn), bytes);
    assert_eq!(ate, Ate { bytes: bytes.len(), thirsty: false });
}

/// A call from `from` by a peer that does all as it should.
fn is_let_in(server: &mut Server, now: Time, conn: u64, from: SocketAddr) -> bool {
    server.on_accepted(now, ConnId(conn), from, Carrier::Tcp);
    server.on_bytes(now, ConnId(conn), &hello(PEER, ONE));
    drain(server).iter().any(|line| line.starts_with(&format!("hand {conn} ")))
}

/// Asks for a dial and lets the shell succeed with it.
fn dialed(server: &mut Server, now: Time, conn: u64, to: SocketAddr) {
    let number = server.dials.next_dial;
    server.on_note(now, Note::Dial { torrent: ONE, to, road: Road::Any });
    assert_eq!(drain(server), [format!("dial #{} {to} 15s", number.0)]);
    server.on_dialed(now, number, Ok(ConnId(conn)));
    assert_eq!(drain(server), [format!("write {conn}")]);
}

// How the world sees us.

#[test]
fn what_enough_networks_say_our_address_is_the_shard_hears() {
    for dht in [false, true] {
        let mut server = Server::new(Settings { port: 6881, dht, ..settings() }, [0; 32]);
        let ours = "5.6.7.8".parse().unwrap();
        let mut say = |ip: &str, by: &str| {
            server.on_note(at(0), Note::SeenAs { ip: ip.parse().unwrap(), by: addr(by) });
            let told = server.out().notes.drain(..).map(|note| match note {
                Note::Outside(outside) => outside,
                _ => panic!("nothing else is to be said"),
            });
            told.collect::<Vec<_>>()
        };
        // One network has one voice, and a neighbour knows only our address at home.
        for by in ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "1.1.1.4:1", "2.2.2.2:1", "0.0.0.0:0"] {
            assert_eq!(say("5.6.7.8", by), []);
            assert_eq!(say("192.168.0.2", by), []);
        }
        let outside = Outside { v4: Some(ours), ..Outside::at(6881) };
        assert_eq!(say("5.6.7.8", "3.3.3.3:1"), [outside], "dht={dht}");
        assert_eq!(say("5.6.7.8", "4.4.4.4:1"), []);
    }
}

// Callers.

#[test]
fn a_caller_is_answered_at_48_bytes_and_handed_over_at_68() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(7), addr("[::ffff:10.0.0.9]:50000"), Carrier::Tcp);
    let hello = hello(PEER, ONE);
    say(&mut server, 7, &hello[..47]);
    assert_eq!(drain(&mut server), [""; 0]);
    say(&mut server, 7, &hello[47..48]);
    assert_eq!(drain(&mut server), ["write 7"]);
    assert_eq!(written(&mut server, ConnId(7), 1000), our_hello(ONE));
    say(&mut server, 7, &hello[48..67]);
    assert_eq!(drain(&mut server), [""; 0]);
    say(&mut server, 7, &hello[67..]);
    let hand = "hand 7 for 1: caller 10.0.0.9:50000 -XX0001-pppppppppppp dht=true +[]";
    assert_eq!(drain(&mut server), [hand]);
    assert_eq!(server.heartbeat(at(20_000)), Time::NEVER);
}

#[test]
fn any_split_of_a_handshake_comes_to_the_same() {
    let mut all = hello(PEER, ONE).to_vec();
    all.extend([1, 2, 3]);
    let hand = format!("hand 1 for 1: caller {} -XX0001-pppppppppppp dht=true +[1, 2, 3]", host(1));
    for first in 0..HANDSHAKE_BYTES {
        for second in first..HANDSHAKE_BYTES {
            let mut server = server();
            server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
            for part in [&all[..first], &all[first..second], &all[second..]] {
                say(&mut server, 1, part);
            }
            assert_eq!(drain(&mut server), ["write 1", &hand], "split at {first} and {second}");
            assert_eq!(written(&mut server, ConnId(1), 1000), our_hello(ONE));
        }
    }
}

#[test]
fn what_follows_after_the_hand_over_is_kept_for_the_shard() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    let mut bytes = hello(PEER, ONE).to_vec();
    bytes.resize(HANDSHAKE_BYTES + MOST_LEFTOVER_BYTES + 5, 9);
    let ate = server.on_bytes(at(0), ConnId(1), &bytes);
    assert_eq!(ate, Ate { bytes: HANDSHAKE_BYTES + MOST_LEFTOVER_BYTES, thirsty: false });
    let Some(Note::Hand(handed)) = server.out().notes.pop() else { panic!("handed over") };
    assert_eq!(handed.leftover, vec![9; MOST_LEFTOVER_BYTES]);
    assert_eq!(server.on_bytes(at(0), ConnId(1), &[9; 5]), Ate { bytes: 0, thirsty: true });
}

#[test]
fn our_handshake_can_be_fetched_after_the_hand_over() {
    for before in 0..=HANDSHAKE_BYTES {
        for step in [1, 7, 1000] {
            let mut server = server();
            server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
            say(&mut server, 1, &hello(PEER, ONE)[..50]);
            let early = server.with_sealed(ConnId(1), |slices| match slices {
                [Sending::Bytes(bytes)] => bytes[..before].to_vec(),
                _ => panic!("one slice of bytes"),
            });
            server.on_wrote(at(0), ConnId(1), before);
            say(&mut server, 1, &hello(PEER, ONE)[50..]);
            let late = written(&mut server, ConnId(1), step);
            assert_eq!([early.expect("all of it"), late].concat(), our_hello(ONE));
            assert_eq!(written(&mut server, ConnId(1), step), [0; 0]);
        }
    }
}

#[test]
fn who_asks_for_what_is_not_here_hears_nothing() {
    let mut nobody = hello(PEER, ONE);
    nobody[40] ^= 1;
    for hello in [nobody, hello(PEER, TWO)] {
        let mut server = server();
        server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
        say(&mut server, 1, &hello[..47]);
        assert_eq!(drain(&mut server), [""; 0]);
        say(&mut server, 1, &hello[47..48]);
        assert_eq!(drain(&mut server), ["close 1 Unknown"]);
        // Whatever comes before the socket is closed is of no interest.
        say(&mut server, 1, &hello[48..]);
        server.on_closed(at(0), ConnId(1), Goodbye::Closed);
        assert_eq!(written(&mut server, ConnId(1), 1), [0; 0]);
        assert_eq!(drain(&mut server), [""; 0]);
    }
}

#[test]
fn a_torrent_is_open_while_its_controller_says_so() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    server.on_accepted(at(0), ConnId(2), host(2), Carrier::Tcp);
    say(&mut server, 1, &hello(PEER, ONE)[..50]);
    assert_eq!(drain(&mut server), ["write 1"]);
    server.on_note(at(0), Note::Open { torrent: ONE, open: false });
    assert_eq!(drain(&mut server), ["close 1 Leaving"]);
    say(&mut server, 2, &hello(PEER, ONE));
    assert_eq!(drain(&mut server), ["close 2 Unknown"]);
    server.on_note(at(0), Note::Open { torrent: ONE, open: true });
    server.on_note(at(0), Note::Open { torrent: ONE, open: true });
    assert!(is_let_in(&mut server, at(0), 3, host(3)));
}

#[test]
fn another_protocol_is_refused_at_its_first_byte() {
    for wrong in 0..20 {
        let mut server = server_with(Settings { encrypt_in: Encryption::Off, ..settings() });
        server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
        let mut hello = hello(PEER, ONE);
        hello[wrong] ^= 0x20;
        say(&mut server, 1, &hello[..wrong]);
        assert_eq!(drain(&mut server), [""; 0]);
        say(&mut server, 1, &hello[wrong..=wrong]);
        assert_eq!(drain(&mut server), ["close 1 Broke(\"does not speak BitTorrent\")"]);
    }
}

#[test]
fn a_caller_that_leaves_at_any_byte_leaves_no_trace() {
    for have in 0..HANDSHAKE_BYTES {
        let mut server = server();
        server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
        say(&mut server, 1, &hello(PEER, ONE)[..have]);
        drain(&mut server);
        server.on_closed(at(1), ConnId(1), Goodbye::Closed);
        assert_eq!(drain(&mut server), [""; 0]);
        assert_eq!(server.heartbeat(at(1)), Time::NEVER);
        assert_eq!((server.conns(), server.callers.count()), (0, 0));
    }
}

#[test]
fn ten_seconds_are_for_all_bytes_together() {
    let mut server = server();
    server.on_accepted(at(1_000), ConnId(1), host(1), Carrier::Tcp);
    server.on_accepted(at(1_500), ConnId(2), host(2), Carrier::Tcp);
    for (second, byte) in hello(PEER, ONE).iter().take(9).enumerate() {
        server.on_bytes(at(2_000 + second as u64 * 1_000), ConnId(1), &[*byte]);
    }
    assert_eq!(server.heartbeat(at(10_000)), at(11_000));
    let just_before = at(11_000) - Duration::from_nanos(1);
    assert_eq!(server.heartbeat(just_before), at(11_000));
    assert_eq!(drain(&mut server), [""; 0]);
    assert_eq!(server.heartbeat(at(11_000)), at(11_500));
    assert_eq!(drain(&mut server), ["close 1 Silent"]);
    assert_eq!(server.heartbeat(at(99_000)), Time::NEVER);
    assert_eq!(drain(&mut server), ["close 2 Silent"]);
}

#[test]
fn ten_thousand_who_dawdle_keep_nobody_out() {
    let mut server = server();
    for dawdler in 0..10_000 {
        let now = at(u64::from(dawdler) / 10);
        server.on_accepted(
            now,
            ConnId(1_000_000 + u64::from(dawdler)),
            host(0x10_0000 + dawdler),
            Carrier::Tcp,
        );
        server.on_bytes(now, ConnId(1_000_000 + u64::from(dawdler)), b"\x13");
        assert!(server.callers.count() <= 256 && server.shaking.len() <= 256);
        if dawdler % 1_000 == 999 {
            drain(&mut server);
            let number = 1 + u64::from(dawdler / 1_000);
            // One that takes a round trip to finish, while others crowd in.
            server.on_accepted(now, ConnId(number), host(dawdler), Carrier::Tcp);
            say(&mut server, number, &hello(PEER, ONE)[..48]);
            for next in 0..200 {
                server.on_accepted(
                    now,
                    ConnId(number * 10_000 + next),
                    host(0x20_0000 + next as u32),
                    Carrier::Tcp,
                );
            }
            drain(&mut server);
            say(&mut server, number, &hello(PEER, ONE)[48..]);
            assert_eq!(drain(&mut server).len(), 1, "the good peer is handed over");
        }
    }
}

#[test]
fn the_oldest_makes_room() {
    let mut server = server_with(Settings { max_pending: 3, ..settings() });
    for conn in 1..=3 {
        server.on_accepted(at(10 - conn / 3), ConnId(conn), host(conn as u32), Carrier::Tcp);
    }
    server.on_accepted(at(20), ConnId(4), host(4), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 3 Crowded"]);
    server.on_accepted(at(20), ConnId(5), host(5), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 1 Crowded"]);
}

#[test]
fn one_address_drives_out_only_itself() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    for conn in 100..1_100 {
        server.on_accepted(at(1), ConnId(conn), host(2), Carrier::Tcp);
    }
    let evicted: Vec<String> = (100..1_092).map(|conn| format!("close {conn} Crowded")).collect();
    assert_eq!(drain(&mut server), evicted);
    assert_eq!(server.callers.count(), 1 + 8);
    say(&mut server, 1, &hello(PEER, ONE));
    assert_eq!(drain(&mut server).len(), 2, "the first caller was left alone");
}

#[test]
fn a_household_is_one_address() {
    let table = [
        ("10.0.0.1:1", "10.0.0.1:2", true),
        ("10.0.0.1:1", "10.0.0.2:1", false),
        ("10.0.0.1:1", "[::ffff:10.0.0.1]:1", true),
        ("[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff::]:1", true),
        ("[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false),
    ];
    for (a, b, same) in table {
        assert_eq!(limits::Origin::of(addr(a)) == limits::Origin::of(addr(b)), same, "{a} {b}");
    }
}

#[test]
fn a_full_house_refuses_newcomers_and_left_frees_places() {
    let mut server = server_with(Settings { max_conns: 3, ..settings() });
    for conn in 1..=3 {
        assert!(is_let_in(&mut server, at(0), conn, host(conn as u32)));
    }
    server.on_accepted(at(0), ConnId(4), host(4), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 4 Crowded"]);
    // The shell tells the Server of an end before the Shard knows: still its place.
    server.on_closed(at(0), ConnId(2), Goodbye::Closed);
    server.on_note(at(0), Note::Left { conn: ConnId(77) });
    server.on_accepted(at(0), ConnId(5), host(5), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 5 Crowded"]);
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(9), road: Road::Any });
    assert_eq!(drain(&mut server), [format!("failed 1 {} Crowded", host(9))]);
    server.on_note(at(0), Note::Left { conn: ConnId(2) });
    server.on_note(at(0), Note::Left { conn: ConnId(2) });
    // The last place is held by one that dawdles.
    server.on_accepted(at(0), ConnId(6), host(6), Carrier::Tcp);
    server.on_accepted(at(1), ConnId(7), host(7), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 6 Crowded"]);
    say(&mut server, 7, &hello(PEER, ONE));
    assert_eq!(drain(&mut server).len(), 2);
    server.on_accepted(at(1), ConnId(8), host(8), Carrier::Tcp);
    assert_eq!(drain(&mut server), ["close 8 Crowded"]);
}

#[test]
fn limits_of_zero_let_nobody_in() {
    for settings in [
        Settings { max_conns: 0, ..settings() },
        Settings { max_pending: 0, ..settings() },
        Settings { max_pending_per_ip: 0, ..settings() },
    ] {
        let mut server = server_with(settings);
        server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
        assert_eq!(drain(&mut server), ["close 1 Crowded"]);
    }
}

// Ourselves.

#[test]
fn who_calls_itself_learns_it_at_both_ends() {
    let mut server = server();
    let port = addr("10.0.0.1:6881");
    dialed(&mut server, at(0), 1, port);
    server.on_accepted(at(0), ConnId(2), addr("10.0.0.1:50000"), Carrier::Tcp);
    let sent = written(&mut server, ConnId(1), 1000);
    say(&mut server, 2, &sent);
    assert_eq!(drain(&mut server), ["write 2"], "the answer goes out before the line is cut");
    let answer = written(&mut server, ConnId(2), 50);
    assert_eq!(drain(&mut server), ["close 2 Ourselves"]);
    say(&mut server, 1, &answer);
    assert_eq!(drain(&mut server), ["close 1 Ourselves".into(), format!("failed 1 {port} Ourselves")]);
    assert_eq!(server.conns(), 0);
}

#[test]
fn who_claims_to_be_us_gets_no_longer_than_others() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    server.on_accepted(at(0), ConnId(2), host(2), Carrier::Tcp);
    say(&mut server, 1, &hello(US, ONE));
    say(&mut server, 1, b"more");
    say(&mut server, 2, &hello(US, ONE)[..48]);
    assert_eq!(drain(&mut server), ["write 1", "write 2"]);
    assert_eq!(written(&mut server, ConnId(2), 1000), our_hello(ONE));
    assert_eq!(drain(&mut server), [""; 0]);
    say(&mut server, 2, &hello(US, ONE)[48..]);
    assert_eq!(drain(&mut server), ["close 2 Ourselves"]);
    assert_eq!(server.heartbeat(at(10_000)), Time::NEVER);
    assert_eq!(drain(&mut server), ["close 1 Ourselves"]);
}

// Dials.

#[test]
fn whom_we_called_is_handed_over_when_it_names_the_same_torrent() {
    let mut all = hello(PEER, ONE).to_vec();
    all.extend([5, 6]);
    for split in 0..=67 {
        let mut server = server();
        dialed(&mut server, at(0), 1, host(1));
        assert_eq!(written(&mut server, ConnId(1), 9), our_hello(ONE), "the one who calls speaks first");
        say(&mut server, 1, &all[..split]);
        assert_eq!(drain(&mut server), [""; 0]);
        say(&mut server, 1, &all[split..]);
        let hand = format!("hand 1 for 1: called {} -XX0001-pppppppppppp dht=true +[5, 6]", host(1));
        assert_eq!(drain(&mut server), [hand]);
    }
}

#[test]
fn an_answer_for_another_torrent_is_the_peers_fault() {
    let mut server = server();
    dialed(&mut server, at(0), 1, host(1));
    say(&mut server, 1, &hello(PEER, TWO)[..47]);
    assert_eq!(drain(&mut server), [""; 0]);
    say(&mut server, 1, &hello(PEER, TWO)[47..48]);
    let why = "Broke(\"answers for another torrent\")";
    assert_eq!(drain(&mut server), [format!("close 1 {why}"), format!("failed 1 {} {why}", host(1))]);
}

#[test]
fn each_way_a_dial_can_fail_is_told_once() {
    let mut server = server();
    let failed = |why: &str| format!("failed 1 {} {why}", host(1));
    // The socket.
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(1), road: Road::Any });
    drain(&mut server);
    server.on_dialed(at(0), DialId(0), Err("no route".into()));
    assert_eq!(drain(&mut server), [failed("Failed(\"no route\")")]);
    server.on_dialed(at(0), DialId(0), Err("no route".into()));
    assert_eq!(drain(&mut server), [""; 0]);
    // The peer, at any byte.
    for have in 0..HANDSHAKE_BYTES as u64 {
        // Each at a second of its own, for the rate's sake.
        let now = at(1_000 * (have + 1));
        dialed(&mut server, now, have, host(1));
        say(&mut server, have, &hello(PEER, ONE)[..have as usize]);
        server.on_closed(now, ConnId(have), Goodbye::Closed);
        assert_eq!(drain(&mut server), [failed("Closed")]);
    }
    // Its silence.
    dialed(&mut server, at(100_000), 100, host(1));
    assert_eq!(server.heartbeat(at(109_999)), at(110_000));
    assert_eq!(drain(&mut server), [""; 0]);
    assert_eq!(server.heartbeat(at(110_000)), Time::NEVER);
    assert_eq!(drain(&mut server), ["close 100 Silent".into(), failed("Silent")]);
    // Another protocol.
    dialed(&mut server, at(200_000), 101, host(1));
    say(&mut server, 101, b"HTTP");
    let why = "Broke(\"does not speak BitTorrent\")";
    assert_eq!(drain(&mut server), [format!("close 101 {why}"), failed(why)]);
    assert_eq!(server.conns(), 0);
}

#[test]
fn thirty_dials_go_in_any_second() {
    let mut server = server();
    for peer in 0..75 {
        server.on_note(at(u64::from(peer)), Note::Dial { torrent: ONE, to: host(peer), road: Road::Any });
    }
    let dials =
        |peers: std::ops::Range<u32>| peers.map(|peer| format!("dial #{peer} {} 15s", host(peer))).collect();
    let first: Vec<String> = dials(0..30);
    assert_eq!(drain(&mut server), first);
    // Asked for at 0, 1, ... 29 ms, and so their successors go a second later each.
    for next in 0..29 {
        assert_eq!(server.heartbeat(at(1_000 + next)), at(1_001 + next));
        assert_eq!(drain(&mut server), dials(30 + next as u32..31 + next as u32));
    }
    assert_eq!(server.heartbeat(at(1_900)), at(2_000));
    assert_eq!(drain(&mut server), dials(59..60));
    assert_eq!(server.heartbeat(at(5_000)), Time::NEVER);
    assert_eq!(drain(&mut server), dials(60..75));
}

#[test]
fn as_many_dials_go_in_a_second_as_settings_say_and_never_none() {
    for (set, most) in [(0, 1), (1, 1), (7, 7)] {
        let mut server = server_with(Settings { dials_a_second: set, ..settings() });
        for peer in 0..15 {
            server.on_note(at(0), Note::Dial { torrent: ONE, to: host(peer), road: Road::Any });
        }
        assert_eq!(drain(&mut server).len(), most);
        assert_eq!(server.heartbeat(at(500)), at(1_000));
        assert_eq!(server.heartbeat(at(1_000)), at(2_000));
        assert_eq!(drain(&mut server).len(), most);
    }
}

#[test]
fn dials_beyond_what_can_wait_are_refused_at_once() {
    let mut server = server_with(Settings { max_pending: 5_000, max_conns: 5_000, ..settings() });
    let asked = 30 + MOST_QUEUED_DIALS as u32;
    for peer in 0..asked {
        server.on_note(at(0), Note::Dial { torrent: ONE, to: host(peer), road: Road::Any });
    }
    assert_eq!(drain(&mut server).len(), 30);
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(asked), road: Road::Any });
    assert_eq!(drain(&mut server), [format!("failed 1 {} Crowded", host(asked))]);
    let mut now = at(0);
    for _ in 0..10 {
        now = server.heartbeat(now);
    }
    assert_eq!((now, server.heartbeat(now)), (at(10_000), Time::NEVER));
    assert_eq!(drain(&mut server).len(), MOST_QUEUED_DIALS);
}

#[test]
fn dials_are_limited_apart_from_callers() {
    let mut server = server_with(Settings { max_pending: 2, ..settings() });
    for conn in 10..12 {
        server.on_accepted(at(0), ConnId(conn), host(conn as u32), Carrier::Tcp);
    }
    dialed(&mut server, at(0), 1, host(1));
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(2), road: Road::Any });
    assert_eq!(drain(&mut server).len(), 1, "a place is left");
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(3), road: Road::Any });
    assert_eq!(drain(&mut server), [format!("failed 1 {} Crowded", host(3))]);
    server.on_dialed(at(0), DialId(1), Err("refused".into()));
    drain(&mut server);
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(3), road: Road::Any });
    assert_eq!(drain(&mut server), [format!("dial #2 {} 15s", host(3))]);
}

#[test]
fn a_dial_that_waited_in_vain_for_the_rate_does_not_wait_for_room() {
    let mut server = server_with(Settings { max_pending: 31, ..settings() });
    for peer in 0..33 {
        server.on_note(at(0), Note::Dial { torrent: ONE, to: host(peer), road: Road::Any });
    }
    assert_eq!(drain(&mut server).len(), 30);
    assert_eq!(server.heartbeat(at(1_000)), Time::NEVER);
    let failed = |peer| format!("failed 1 {} Crowded", host(peer));
    assert_eq!(drain(&mut server), [format!("dial #30 {} 15s", host(30)), failed(31), failed(32)]);
}

#[test]
fn a_dial_for_a_torrent_that_is_not_open_comes_to_nothing() {
    let mut server = server();
    for torrent in [TWO, TorrentId(3)] {
        server.on_note(at(0), Note::Dial { torrent, to: host(1), road: Road::Any });
        assert_eq!(drain(&mut server), [format!("failed {} {} Leaving", torrent.0, host(1))]);
    }
}

#[test]
fn dials_of_a_torrent_that_leaves_end_in_every_stage() {
    for how in 0..3 {
        let mut server = server();
        dialed(&mut server, at(0), 1, host(1));
        for peer in 2..32 {
            server.on_note(at(0), Note::Dial { torrent: ONE, to: host(peer), road: Road::Any });
        }
        assert_eq!(drain(&mut server).len(), 29);
        match how {
            0 => server.on_command(at(0), Command::Remove { torrent: ONE, delete: true }),
            1 => server.on_note(at(0), Note::Open { torrent: ONE, open: false }),
            _ => server.on_command(at(0), Command::Shutdown),
        }
        let mut expected = vec!["close 1 Leaving".to_owned()];
        expected.extend((1..32).map(|peer| format!("failed 1 {} Leaving", host(peer))));
        match how {
            0 => expected.push("unseat 1 true".into()),
            1 => {}
            _ => expected.extend(["unseat 1 false".into(), "unseat 2 false".into()]),
        }
        assert_eq!(drain(&mut server), expected);
        // Sockets the shell was still busy with count until it says what became of them.
        assert_eq!(server.conns(), 29);
        server.on_dialed(at(0), DialId(1), Ok(ConnId(2)));
        server.on_dialed(at(0), DialId(2), Err("refused".into()));
        assert_eq!(drain(&mut server), ["close 2 Leaving"]);
        assert_eq!(server.conns(), 27);
        assert_eq!(server.heartbeat(at(0)), Time::NEVER);
    }
}

// Torrents and commands.

#[test]
fn commands_become_notes() {
    let mut server = server();
    server.on_command(at(0), Command::Change(ONE, Change::Retry));
    server.on_command(at(0), Command::Change(TorrentId(9), Change::Retry));
    server.on_command(at(0), Command::Limits { down: 5, up: 0 });
    server.on_command(at(0), Command::Remove { torrent: TWO, delete: false });
    server.on_command(at(0), Command::Remove { torrent: TWO, delete: true });
    server.on_command(at(0), Command::Change(TWO, Change::Retry));
    assert_eq!(drain(&mut server), ["change 1", "lease 5 0", "unseat 2 false"]);
}

#[test]
fn a_torrent_that_was_removed_is_closed_at_once_and_may_come_back() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    say(&mut server, 1, &hello(PEER, ONE)[..60]);
    drain(&mut server);
    server.on_command(at(0), Command::Remove { torrent: ONE, delete: false });
    assert_eq!(drain(&mut server), ["close 1 Leaving", "unseat 1 false"]);
    // Its Controller did not know yet.
    server.on_note(at(0), Note::Open { torrent: ONE, open: true });
    assert!(!is_let_in(&mut server, at(0), 2, host(2)));
    // The same content, with a new number.
    server.on_command(at(0), Command::Add(seating(TorrentId(3), meta(ONE))));
    assert_eq!(drain(&mut server), ["seat 3"]);
    assert!(!is_let_in(&mut server, at(0), 3, host(3)));
    server.on_note(at(0), Note::Open { torrent: TorrentId(3), open: true });
    assert!(is_let_in(&mut server, at(0), 4, host(4)));
}

#[test]
#[cfg_attr(debug_assertions, should_panic = "seated already")]
fn the_same_content_twice_is_gone_at_once() {
    let mut server = server();
    server.on_command(at(0), Command::Add(seating(TorrentId(3), meta(ONE))));
    assert_eq!(drain(&mut server), ["gone 3"]);
    assert!(is_let_in(&mut server, at(0), 1, host(1)));
}

#[test]
fn after_shutdown_nobody_comes_in() {
    let mut server = server();
    assert!(is_let_in(&mut server, at(0), 1, host(1)));
    server.on_accepted(at(0), ConnId(2), host(2), Carrier::Tcp);
    server.on_accepted(at(0), ConnId(3), host(3), Carrier::Tcp);
    say(&mut server, 3, &hello(PEER, ONE)[..50]);
    drain(&mut server);
    server.on_command(at(0), Command::Shutdown);
    assert_eq!(
        drain(&mut server),
        ["close 3 Leaving", "close 2 Leaving", "unseat 1 false", "unseat 2 false"]
    );
    server.on_command(at(0), Command::Shutdown);
    server.on_command(at(0), Command::Remove { torrent: ONE, delete: true });
    assert_eq!(drain(&mut server), [""; 0]);
    server.on_command(at(0), Command::Add(seating(TorrentId(3), meta(TorrentId(3)))));
    server.on_accepted(at(0), ConnId(4), host(4), Carrier::Tcp);
    server.on_note(at(0), Note::Open { torrent: ONE, open: true });
    server.on_note(at(0), Note::Dial { torrent: ONE, to: host(5), road: Road::Any });
    let failed = format!("failed 1 {} Leaving", host(5));
    assert_eq!(drain(&mut server), ["close 4 Leaving", &failed, "gone 3"]);
    server.on_note(at(0), Note::Left { conn: ConnId(1) });
    assert_eq!((server.conns(), server.heartbeat(at(0))), (0, Time::NEVER));
}

#[test]
fn a_tracker_that_nothing_can_be_sent_to_fails_at_once() {
    use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
    let mut server = server();
    let url = "udp://t.example:6969/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&left=0";
    let patience = Duration::from_secs(225);
    let fetch = Fetch { id: FetchId(7), url: url.into(), family: Family::V4, timeout: patience };
    let tracker = addr("192.0.2.1:6969");
    server.on_resolved(at(0), ONE, &fetch, tracker);
    let sent = std::mem::take(&mut server.out().net);
    assert!(matches!(&sent[..], [Net::Datagram { to, .. }] if *to == tracker));
    server.on_unreachable(at(0), addr("192.0.2.2:6969"), "somebody else");
    assert!(server.out().notes.is_empty());
    server.on_unreachable(at(0), addr("[::ffff:192.0.2.1]:6969"), "no route");
    let told = std::mem::take(&mut server.out().notes);
    let [Note::Fetched { torrent: ONE, fetch: FetchId(7), result: Err(why) }] = &told[..] else { panic!() };
    assert_eq!(*why, FetchFailure::Unreachable("no route".into()));
    server.on_unreachable(at(0), tracker, "told once");
    assert!(server.out().notes.is_empty());
}
