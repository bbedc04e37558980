//! Whoever is blocked is not talked to, whichever door they come to.

use piecemeal_discovery::filter::{Bans, IpFilter};
use piecemeal_discovery::tracker::{Family, FetchId};
use piecemeal_wire::lsd::{LSD_V4, LsdAnnounce};

use super::*;

/// Blocks `10.0.1.0/24` by a list and `10.0.2.2` by hand.
fn gate() -> Gate {
    let lists: IpFilter =
        ["10.0.1.0/24".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()].into_iter().collect();
    let mut bans = Bans::default();
    bans.ban("10.0.2.2".parse().unwrap()).unwrap();
    Gate { lists: lists.into(), bans: bans.into() }
}

const OUTSIDE: [&str; 4] =
    ["10.0.1.7:6881", "[::ffff:10.0.1.7]:6881", "[2001:db8:1::7]:6881", "10.0.2.2:6881"];
const INSIDE: [&str; 3] = ["10.0.0.255:6881", "10.0.2.1:6881", "[2001:db8:2::7]:6881"];

fn shut(settings: Settings) -> Server {
    server_with(Settings { gate: gate(), ..settings })
}

#[test]
fn callers() {
    for carrier in [Carrier::Tcp, Carrier::Utp] {
        let mut server = shut(Settings { utp: true, ..settings() });
        for (conn, from) in (1..).zip(OUTSIDE) {
            assert!(!server.lets_in(addr(from).ip()), "{from}");
            server.on_accepted(at(0), ConnId(conn), addr(from), carrier);
            assert_eq!(drain(&mut server), [format!("close {conn} Banned")], "{from}");
        }
        for (conn, from) in (11..).zip(INSIDE) {
            assert!(server.lets_in(addr(from).ip()), "{from}");
            server.on_accepted(at(0), ConnId(conn), addr(from), carrier);
            assert_eq!(drain(&mut server), [""; 0], "{from}");
        }
    }
}

#[test]
fn dials() {
    let mut server = shut(settings());
    for to in OUTSIDE {
        server.on_note(at(0), Note::Dial { torrent: ONE, to: addr(to), road: Road::Any });
        assert_eq!(drain(&mut server), [format!("failed 1 {to} Banned")]);
    }
    dialed(&mut server, at(0), 1, addr(INSIDE[0]));
}

#[test]
fn udp_trackers() {
    let mut server = shut(settings());
    let url = "udp://t.example:6969/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&left=0";
    let fetch =
        |id| Fetch { id: FetchId(id), url: url.into(), family: Family::V4, timeout: Duration::from_secs(15) };
    for to in OUTSIDE {
        server.on_resolved(at(0), ONE, &fetch(3), addr(to));
        let out = server.out();
        let [Note::Fetched { torrent: ONE, fetch: FetchId(3), result: Err(why) }] = &out.notes[..] else {
            panic!("{to}: an answer")
        };
        assert_eq!(*why, FetchFailure::Unreachable("the IP filter blocks its address".into()));
        assert_eq!(out.net.len(), 0, "{to}");
        out.notes.clear();
    }
    let to = addr("10.0.3.3:6969");
    server.on_resolved(at(0), ONE, &fetch(4), to);
    assert_eq!(sent_to(&mut server), [to]);
    // It is blocked while we wait for it: it is not asked again.
    server.on_command(at(0), Command::Gate(blocking("10.0.3.3")));
    for second in 1..200 {
        server.heartbeat(at(1000 * second));
    }
    assert_eq!(sent_to(&mut server), []);
}

fn blocking(range: &str) -> Gate {
    Gate { lists: [range.parse().unwrap()].into_iter().collect::<IpFilter>().into(), ..Gate::default() }
}

/// Where datagrams go.
fn sent_to(server: &mut Server) -> Vec<SocketAddr> {
    let wishes = server.out().net.drain(..).collect::<Vec<_>>();
    wishes
        .into_iter()
        .filter_map(|wish| if let Net::Datagram { to, .. } = wish { Some(to) } else { None })
        .collect()
}

#[test]
fn the_dht() {
    let ping = b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe";
    let mut server = shut(Settings { dht: true, port: 6881, ..settings() });
    let beat = |server: &mut Server| {
        for second in 0..600 {
            server.heartbeat(at(1000 * second));
        }
        let mut all = sent_to(server);
        all.sort();
        all.dedup();
        all
    };
    // Neither is what they ask answered, nor are they asked: named by the user, by a peer.
    for from in OUTSIDE {
        server.on_datagram(at(0), addr(from), ping);
        server.on_command(at(0), Command::Nodes(vec![addr(from)]));
        server.on_note(at(0), Note::Node(addr(from)));
    }
    assert_eq!(beat(&mut server), []);
    let there = addr(INSIDE[0]);
    server.on_datagram(at(600_000), there, ping);
    let sent = sent_to(&mut server);
    assert!(!sent.is_empty() && sent.iter().all(|to| *to == there), "{sent:?}");
    let mut server = shut(Settings { dht: true, port: 6881, ..settings() });
    server.on_command(at(0), Command::Nodes(vec![there]));
    assert_eq!(beat(&mut server), [there]);
    // Blocked later, it is forgotten before it is asked.
    let mut server = shut(Settings { dht: true, port: 6881, ..settings() });
    server.on_command(at(0), Command::Nodes(vec![there]));
    server.on_command(at(0), Command::Gate(blocking("10.0.0.0/16")));
    assert_eq!(beat(&mut server), []);
}

#[test]
fn the_local_network() {
    let hash = hash(ONE);
    for (from, heard) in [(OUTSIDE[0], false), (INSIDE[0], true)] {
        let mut server = shut(Settings { lsd: true, port: 6881, ..settings() });
        let announce = LsdAnnounce { port: 7000, info_hashes: vec![hash], cookie: None };
        let (words, _) = announce.encode(LSD_V4);
        server.on_lsd(at(0), addr(from), &words);
        let found = server.out().notes.iter().any(|note| matches!(note, Note::Found { .. }));
        assert_eq!(found, heard, "{from}");
    }
}

#[test]
fn a_new_gate_ends_what_stands() {
    let mut server = server_with(Settings { max_pending: 20, ..settings() });
    let (bad, good) = (addr("10.0.1.9:6881"), addr("10.0.0.9:6881"));
    // Callers, of whom one said what it wants; those called, of whom one is connected; a dial under way each.
    for (conn, from) in [(1, bad), (2, good)] {
        server.on_accepted(at(0), ConnId(conn), from, Carrier::Tcp);
    }
    server.on_accepted(at(0), ConnId(3), bad, Carrier::Tcp);
    say(&mut server, 3, &hello(PEER, ONE)[..48]);
    assert_eq!(drain(&mut server), ["write 3"]);
    for (conn, to) in [(4, bad), (5, good)] {
        dialed(&mut server, at(1000 * conn), conn, to);
    }
    let next = server.dials.next_dial;
    for to in [bad, good] {
        server.on_note(at(9000), Note::Dial { torrent: ONE, to, road: Road::Any });
    }
    // Only its first one is due at once.
    drain(&mut server);
    server.heartbeat(at(9500));
    drain(&mut server);
    server.on_command(at(9501), Command::Gate(gate()));
    assert_eq!(
        drain(&mut server),
        [
            "close 1 Banned",
            "close 3 Banned",
            "close 4 Banned",
            &format!("failed 1 {bad} Banned"),
            &format!("failed 1 {bad} Banned"),
            "gate"
        ]
    );
    // A socket that stands all the same is of no use; the others go on.
    server.on_dialed(at(9600), next, Ok(ConnId(6)));
    server.on_dialed(at(9600), DialId(next.0 + 1), Ok(ConnId(7)));
    assert_eq!(drain(&mut server), ["close 6 Leaving", "write 7"]);
    say(&mut server, 5, &hello(PEER, ONE));
    assert_eq!(
        drain(&mut server)[0],
        format!("hand 5 for 1: called {good} -XX0001-pppppppppppp dht=true +[]")
    );
    // The gate opens again.
    server.on_command(at(9700), Command::Gate(Gate::default()));
    assert_eq!(drain(&mut server), ["gate"]);
    assert!(is_let_in(&mut server, at(9700), 8, bad));
}
