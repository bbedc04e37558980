//! Torrents whose peers prove by TLS that they belong to them.

use super::*;

const SECRET: TorrentId = TorrentId(3);

fn meta_of_secret() -> Metainfo {
    let pem = "-----BEGIN CERTIFICATE-----";
    let mut info =
        String::from("d6:lengthi1e4:name2:t312:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa");
    info.push_str(&format!("8:ssl-cert{}:{pem}e", pem.len()));
    Metainfo::from_info(info.as_bytes(), vec![]).expect("a torrent of one byte")
}

fn hello_for(info_hash: InfoHash) -> [u8; HANDSHAKE_BYTES] {
    Handshake { reserved: Reserved::NONE, info_hash, peer_id: PEER }.encode()
}

/// [`ONE`] is for everybody, [`SECRET`] is not; both are open.
fn server() -> Server {
    let mut server = server_with(Settings { utp: true, encrypt_out: Encryption::Require, ..settings() });
    server.on_command(at(0), Command::Add(seating(SECRET, meta_of_secret())));
    server.on_note(at(0), Note::Open { torrent: SECRET, open: true });
    drain(&mut server);
    server
}

/// Somebody calls, and proves to belong to `proved`. Whether it is handed over.
fn is_let_in(carrier: Carrier, proved: Option<TorrentId>, wants: InfoHash) -> bool {
    let mut server = server();
    server.on_accepted(at(0), ConnId(7), host(1), carrier);
    if let Some(torrent) = proved {
        server.on_proved(ConnId(7), torrent);
    }
    server.on_bytes(at(0), ConnId(7), &hello_for(wants));
    let said = drain(&mut server);
    let handed = said.iter().any(|line| line.starts_with("hand 7 "));
    assert_eq!(!handed, said.iter().any(|line| line.contains("Unknown")), "{said:?}");
    handed
}

#[test]
fn callers_get_what_they_proved_to_belong_to_and_nothing_else() {
    let (one, secret) = (hash(ONE), meta_of_secret().wire_hash());
    for (carrier, proved, wants, let_in) in [
        (Carrier::Tcp, None, one, true),
        (Carrier::Tcp, Some(SECRET), secret, true),
        (Carrier::Tcp, None, secret, false),
        (Carrier::Utp, None, secret, false),
        (Carrier::Tcp, Some(SECRET), one, false),
        (Carrier::Tcp, Some(ONE), secret, false),
        (Carrier::Tcp, Some(ONE), one, false),
    ] {
        assert_eq!(is_let_in(carrier, proved, wants), let_in, "{carrier:?} {proved:?} {wants}");
    }
}

#[test]
fn its_peers_are_called_by_tls_alone_and_in_plain_words_within() {
    let mut server = server();
    server.on_note(at(0), Note::Dial { torrent: SECRET, to: host(2), road: Road::Any });
    let mut calls = Vec::new();
    for turn in 0..50 {
        let now = at(100 * turn);
        server.heartbeat(now);
        let out = std::mem::take(server.out());
        for wish in out.net {
            if let Net::Dial { dial, carrier, tls, .. } = wish {
                calls.push((carrier, tls));
                server.on_dialed(now, dial, Ok(ConnId(9)));
            }
        }
    }
    assert_eq!(calls, [(Carrier::Tcp, Some(SECRET))]);
    let ours = Handshake { info_hash: meta_of_secret().wire_hash(), ..server.ours(hash(ONE)) };
    assert_eq!(written(&mut server, ConnId(9), 1000), ours.encode());
    // Who hangs up is not called another way.
    server.on_closed(at(5000), ConnId(9), Goodbye::Closed);
    assert_eq!(drain(&mut server), [format!("failed 3 {} Closed", host(2))]);
    server.on_note(at(5000), Note::Dial { torrent: SECRET, to: host(2), road: Road::Utp });
    assert_eq!(drain(&mut server), [format!("failed 3 {} Useless", host(2))]);
}

#[test]
fn nobody_else_hears_of_it() {
    let server = server();
    assert_eq!(server.directory.public_hash(SECRET), None);
    assert_eq!(server.directory.public_hash(ONE), Some(hash(ONE)));
    let secret = meta_of_secret().wire_hash();
    let asked = piecemeal_transport::mse::req2;
    assert_eq!(server.directory.hash_by(asked(secret)), None);
    assert_eq!(server.directory.hash_by(asked(hash(ONE))), Some(hash(ONE)));
}
