//! Where peers reach us, by a router's help.

use std::net::IpAddr;

use super::*;
use crate::cx::ReachedBy;

#[test]
fn a_mapping_is_told_and_torrents_hear_when_it_moves_us() {
    let mut server = server_with(Settings { port: 6881, ..settings() });
    let reach = |port, last: Option<u8>| Reach {
        by: ReachedBy::Pcp,
        port,
        external: last.map(|last| IpAddr::from([203, 0, 113, last])),
        lasts: Duration::from_secs(3600),
    };
    for (told, moved) in [
        (None, None),
        // The port is as before, and that our address is told now is no change of it.
        (Some(reach(6881, Some(7))), None),
        (Some(reach(6881, Some(7))), None),
        (Some(reach(7000, Some(7))), Some("outside 7000")),
        (Some(reach(7000, None)), None),
        (Some(reach(7000, Some(7))), None),
        (Some(reach(7000, Some(8))), Some("outside 7000")),
        (None, Some("outside 6881")),
        (None, None),
    ] {
        server.on_command(at(0), Command::Reach(told));
        let heard = format!("reach {:?}", told.map(|reach| (reach.port, reach.external)));
        let moved = moved.into_iter().flat_map(|outside| [outside.to_owned(), "moved".to_owned()]);
        let expected: Vec<_> = moved.chain([heard]).collect();
        assert_eq!(drain(&mut server), expected);
    }
}

#[test]
fn the_dht_announces_the_routers_port_once_there_is_one() {
    let mut server = server_with(Settings { port: 6881, dht: true, ipv6: false, ..settings() });
    let node = addr("10.0.0.77:7777");
    server.on_command(at(0), Command::Nodes(vec![node]));
    assert_eq!(ports_announced(&mut server, node, 0), [6881]);
    let reach = |port| {
        let (by, external, lasts) = (ReachedBy::Upnp, None, Duration::from_secs(3600));
        Command::Reach(Some(Reach { by, port, external, lasts }))
    };
    server.on_command(at(60_000), reach(7000));
    // A search is under way when the port changes again.
    server.heartbeat(at(60_000));
    server.on_command(at(60_050), reach(7001));
    assert_eq!(ports_announced(&mut server, node, 60_100), [7000, 7001]);
    // From then on as ever: one search a minute, as nobody was found.
    assert_eq!(ports_announced(&mut server, node, 120_100), [7001]);
}

/// Lets the one node of the network answer everything for half a minute from `from_ms` on.
fn ports_announced(server: &mut Server, node: SocketAddr, from_ms: u64) -> Vec<u16> {
    let mut ports = Vec::new();
    for ms in (from_ms..from_ms + 30_000).step_by(100) {
        let out = server.out();
        out.notes.clear();
        out.news.clear();
        for wish in std::mem::take(&mut out.net) {
            let Net::Datagram { to, bytes, .. } = wish else { continue };
            if to != node || find(&bytes, b"1:y1:q").is_none() {
                continue;
            }
            if let Some(place) = find(&bytes, b"4:porti") {
                let digits = bytes[place + 7..].iter().take_while(|byte| byte.is_ascii_digit());
                ports.push(digits.fold(0, |port, byte| port * 10 + u16::from(byte - b'0')));
            }
            let place = find(&bytes, b"1:t").expect("a question has a transaction") + 3;
            let len = usize::from(bytes[place] - b'0');
            let mut answer = b"d1:rd2:id20:nnnnnnnnnnnnnnnnnnnn5:nodes0:5:token2:oke1:t".to_vec();
            answer.extend(&bytes[place..place + 2 + len]);
            answer.extend(b"1:y1:re");
            server.on_datagram(at(ms), node, &answer);
        }
        server.heartbeat(at(ms));
    }
    ports
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
