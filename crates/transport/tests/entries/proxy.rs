//! What a proxy says: SOCKS5 and HTTP negotiations, and datagrams it relays.

use piecemeal_transport::proxy::datagram::{self, MAX_HEADER_BYTES};
use piecemeal_transport::proxy::{Credentials, Fault, Proxy, Step, Talk, Target};

/// The first byte says what we asked for, the rest is what comes back: whole, and byte by byte to the same end.
pub fn socks5(bytes: &[u8]) {
    let Some((what, heard)) = bytes.split_first() else { return };
    let Some(talk) = asked(*what) else { return relayed(heard) };
    let whole = listen(talk, heard.chunks(heard.len().max(1)));
    let split = listen(asked(*what).expect("as before"), heard.chunks(1));
    assert_eq!(whole, split);
    let (eaten, end) = whole;
    assert!(eaten <= heard.len());
    match end {
        Ok(Step::More) => assert_eq!(eaten, heard.len()),
        Ok(Step::Associated { relay }) => assert!(what % 8 < 4 && relay.port() != 0),
        Ok(Step::Connected { .. }) => assert!(eaten >= 9),
        Err(fault) => assert!(!fault.to_string().is_empty() && !fault.to_string().contains(char::is_control)),
    }
}

/// `None`: nothing, it is a datagram.
fn asked(what: u8) -> Option<Talk> {
    let auth = Credentials { user: "user".to_owned(), password: "password".to_owned() };
    let auth = (what & 1 != 0).then_some(auth);
    let name = Target::Name { host: "t.example".to_owned(), port: 6881 };
    let talk = match what % 8 / 2 {
        0 => Talk::connect(&Proxy::Socks5 { auth }, &name),
        1 => Talk::associate(auth.as_ref()),
        2 => Talk::connect(&Proxy::HttpConnect { auth }, &name),
        _ => return None,
    };
    Some(talk.expect("can be asked"))
}

/// How much is eaten, and how it ends. Of what ends badly nothing is eaten: the connection is of no more use.
fn listen<'a>(mut talk: Talk, parts: impl Iterator<Item = &'a [u8]>) -> (usize, Result<Step, Fault>) {
    let mut eaten = 0;
    assert!(!talk.to_send().is_empty(), "we speak first");
    for part in parts {
        match talk.hear(part) {
            Ok((count, Step::More)) => {
                assert_eq!(count, part.len());
                eaten += count;
                assert!(talk.to_send().len() <= 600);
            }
            Ok((count, step)) => {
                assert_eq!(talk.hear(part), Ok((0, step)));
                return (eaten + count, Ok(step));
            }
            Err(fault) => return (0, Err(fault)),
        }
    }
    (eaten, Ok(Step::More))
}

/// A datagram from a relay. What can be read is written again, and is no longer than it was.
fn relayed(bytes: &[u8]) {
    let Ok((from, payload)) = datagram::unwrap(bytes) else { return };
    let mut again = Vec::new();
    datagram::wrap(&from, payload, &mut again).expect("who spoke can be answered");
    assert_eq!(again.len(), datagram::header_bytes(&from) + payload.len());
    assert!(again.len() <= bytes.len() && again.len() - payload.len() <= MAX_HEADER_BYTES);
    assert_eq!(datagram::unwrap(&again), Ok((from, payload)));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 12] = [
        b"\0\x05\x00\x05\x00\x00\x01\x09\x08\x07\x06\x10\x01peer",
        b"\x01\x05\x02\x01\x00\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x10\x01",
        b"\x01\x05\x02\x01\x01",
        b"\0\x05\x00\x05\x05\x00\x01",
        b"\x02\x05\x00\x05\x00\x00\x03\x05proxy\x10\x01",
        b"\x03\x05\xff",
        b"\x04HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 9\r\n\r\n\x13BitTorrent",
        b"\x05HTTP/1.1 407 Who?\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
        b"\x04HTTP/1.1 503 Service Unavailable\n\n",
        b"\x06\0\0\0\x01\x01\x02\x03\x04\x1a\xe1d1:q4:ping",
        b"\x06\0\0\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1x",
        b"\x06\0\0\0\x03\x09t.example\x1a\xe1x",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}
