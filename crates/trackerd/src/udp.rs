//! The tracker over UDP (BEP 15, 41): datagrams in, datagrams out.
//!
//! Owns what is answered to whom. Nothing longer than the question goes to an address that has not proven itself by a
//! connection id; what is no request at all is passed over without a word.

use std::net::SocketAddr;

use piecemeal_metainfo::Time;
use piecemeal_wire::tracker::AnnounceRequest;
use piecemeal_wire::tracker::udp::{self as wire, Transaction, UdpOptions, UdpRequest};

use crate::book::Book;
use crate::greeter::Greeter;
use crate::lists::door;

/// Bytes of an answer by IPv6 or by IPv4: no link has to cut it (IPv6 promises 1280, IPv4 gets that in practice).
const ANSWER_BYTES: usize = 1280 - 48;
/// Shorter than any request that needs an id, so a liar gets no more sent to his victim than he sends himself.
const UNPROVEN: &str = "connection id has expired";

/// Appends the answer to one datagram, or nothing.
pub(crate) fn answer(
    book: &mut Book,
    greeter: &Greeter,
    now: Time,
    from: SocketAddr,
    bytes: &[u8],
    out: &mut Vec<u8>,
) {
    match UdpRequest::decode(bytes) {
        Err(_) => book.counted.malformed += 1,
        Ok(UdpRequest::Connect { transaction }) => {
            book.counted.connects += 1;
            wire::connected(transaction, greeter.greet(now, from.ip()), out);
        }
        Ok(
            UdpRequest::Announce { connection, transaction, .. }
            | UdpRequest::Scrape { connection, transaction, .. },
        ) if !greeter.knows(now, from.ip(), connection) => {
            book.counted.unproven += 1;
            wire::failed(transaction, UNPROVEN, out);
        }
        Ok(UdpRequest::Announce { transaction, announce, options, .. }) => {
            announced(book, now, (from, transaction), &announce, options, out);
        }
        Ok(UdpRequest::Scrape { transaction, hashes, .. }) => match book.scrape_udp(now, hashes) {
            Ok(counts) => wire::scraped(transaction, counts.into_iter(), out),
            Err(why) => wire::failed(transaction, why, out),
        },
    }
}

fn announced(
    book: &mut Book,
    now: Time,
    (from, transaction): (SocketAddr, Transaction),
    request: &AnnounceRequest,
    options: UdpOptions<'_>,
    out: &mut Vec<u8>,
) {
    let key = book.is_closed().then(|| passkey(options)).flatten();
    let v6 = from.is_ipv6();
    let most = (ANSWER_BYTES - wire::ANNOUNCED_BYTES) / if v6 { 18 } else { 6 };
    match book.announce_udp(now, request, key.as_deref(), from.ip(), most) {
        Ok(told) => {
            let numbers = (book.interval_s(), told.counts.leeches, told.counts.seeds);
            wire::announced(transaction, numbers, told.peers.into_iter(), v6, out);
        }
        Err(why) => wire::failed(transaction, why, out),
    }
}

/// The passkey in the URL a client announces to.
fn passkey(options: UdpOptions<'_>) -> Option<String> {
    let data = String::from_utf8(options.url_data()).ok()?;
    let path = data.split_once('?').map_or(&data[..], |(path, _)| path);
    door(path)?.0.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use piecemeal_metainfo::{InfoHash, PeerId};
    use piecemeal_wire::tracker::udp::{ConnectionId, UdpAnswer};
    use piecemeal_wire::tracker::{Event, ScrapeCounts};
    use std::fs;

    const T: Transaction = Transaction(77);
    const HASH: InfoHash = InfoHash([0xaa; 20]);

    /// A tracker without sockets.
    struct Desk {
        book: Book,
        greeter: Greeter,
        now: Time,
    }

    impl Desk {
        fn new(config: &Config) -> Desk {
            Desk { book: Book::open(config).unwrap(), greeter: Greeter::new([3; 32]), now: Time::ZERO }
        }

        fn open() -> Desk {
            Desk::new(&Config::new(Vec::new()))
        }

        fn say(&mut self, from: &str, bytes: &[u8]) -> Vec<u8> {
            let mut out = Vec::new();
            answer(&mut self.book, &self.greeter, self.now, from.parse().unwrap(), bytes, &mut out);
            out
        }

        fn connect(&mut self, from: &str) -> ConnectionId {
            match UdpAnswer::decode(&self.say(from, &wire::connect_request(T))) {
                Ok(UdpAnswer::Connected { transaction: T, connection }) => connection,
                other => panic!("{other:?}"),
            }
        }

        /// Counts and peers, or the reason.
        fn announce(
            &mut self,
            from: &str,
            request: &AnnounceRequest,
            path: &str,
        ) -> Result<(u32, u32, Vec<SocketAddr>), String> {
            let connection = self.connect(from);
            let bytes = self.say(from, &wire::announce_request(connection, T, request, path.as_bytes()));
            match UdpAnswer::decode(&bytes) {
                Ok(UdpAnswer::Announced { answer, transaction: T }) => {
                    let v6 = from.starts_with('[');
                    let answer = answer.into_answer(v6);
                    assert_eq!(answer.interval, Some(1_800));
                    let peers = answer.peers.into_iter().map(|peer| peer.addr).collect();
                    Ok((answer.complete.unwrap(), answer.incomplete.unwrap(), peers))
                }
                Ok(UdpAnswer::Failed { message, transaction: T }) => Err(wire::words(message)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn request(port: u16, left: u64) -> AnnounceRequest {
        AnnounceRequest { left, ..AnnounceRequest::new(HASH, PeerId([b'p'; 20]), port) }
    }

    #[test]
    fn peers_of_one_family_find_each_other() {
        let mut desk = Desk::open();
        assert_eq!(desk.announce("192.0.2.1:9", &request(1, 0), ""), Ok((1, 0, vec![])));
        let found = vec!["192.0.2.1:1".parse().unwrap()];
        assert_eq!(desk.announce("192.0.2.2:9", &request(2, 5), "/announce"), Ok((1, 1, found.clone())));
        // Counts are of both families; addresses have room for one.
        assert_eq!(desk.announce("[2001:db8::1]:9", &request(3, 5), ""), Ok((1, 2, vec![])));
        let found6 = vec!["[2001:db8::1]:3".parse().unwrap()];
        assert_eq!(desk.announce("[2001:db8::2]:9", &request(4, 5), ""), Ok((1, 3, found6)));
        let gone = AnnounceRequest { event: Some(Event::Stopped), ..request(4, 5) };
        assert_eq!(desk.announce("[2001:db8::2]:9", &gone, ""), Ok((1, 2, vec![])));
        // What a peer claims to be is ignored.
        let liar = AnnounceRequest { ip: Some("203.0.113.1".parse().unwrap()), ..request(5, 5) };
        desk.announce("192.0.2.3:9", &liar, "").unwrap();
        let (_, _, peers) = desk.announce("192.0.2.2:9", &request(2, 5), "").unwrap();
        assert!(peers.contains(&"192.0.2.3:5".parse().unwrap()) && peers.len() == 2);
        assert!(desk.announce("192.0.2.2:9", &request(0, 5), "").unwrap_err().contains("port 0"));
    }

    #[test]
    fn a_scrape_counts_in_the_order_asked() {
        let mut desk = Desk::open();
        desk.announce("192.0.2.1:9", &request(1, 0), "").unwrap();
        let connection = desk.connect("192.0.2.9:9");
        let hashes = [InfoHash([1; 20]), HASH];
        let bytes = desk.say("192.0.2.9:9", &wire::scrape_request(connection, T, &hashes));
        let Ok(UdpAnswer::Scraped { counts, .. }) = UdpAnswer::decode(&bytes) else { panic!() };
        let seed = ScrapeCounts { complete: 1, ..ScrapeCounts::default() };
        assert_eq!(counts.iter().collect::<Vec<_>>(), [ScrapeCounts::default(), seed]);
        assert_eq!(desk.book.stats().scrapes, 1);
    }

    #[test]
    fn nobody_is_sent_more_than_was_sent_in_his_name() {
        let mut desk = Desk::open();
        let stolen = desk.connect("192.0.2.1:9");
        let requests = [
            wire::connect_request(T).to_vec(),
            wire::announce_request(stolen, T, &request(1, 0), b""),
            wire::scrape_request(stolen, T, &[HASH]),
        ];
        for bytes in &requests {
            assert!(desk.say("192.0.2.2:9", bytes).len() <= bytes.len());
            for len in 0..bytes.len() {
                assert!(desk.say("192.0.2.2:9", &bytes[..len]).is_empty());
            }
        }
        let stats = desk.book.stats();
        assert_eq!((stats.unproven, stats.peers), (2, 0));
        assert_eq!(stats.malformed, requests.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
        desk.now = Time::from_nanos(200 * 1_000_000_000);
        let bytes = desk.say("192.0.2.1:9", &requests[1]);
        let Ok(UdpAnswer::Failed { message, .. }) = UdpAnswer::decode(&bytes) else { panic!() };
        assert!(message.starts_with(b"connection"), "clients look for the word");
    }

    #[test]
    fn answers_are_not_cut_on_the_way() {
        let swarms =
            piecemeal_discovery::swarms::SwarmLimits { peers_per_network: 1_000, ..Default::default() };
        let mut desk = Desk::new(&Config { swarms, ..Config::new(Vec::new()) });
        for (from, most) in [("192.0.2.1:9", 200), ("[2001:db8::1]:9", 67)] {
            for port in 1..300 {
                desk.announce(from, &request(port, 5), "").unwrap();
            }
            let all = AnnounceRequest { numwant: Some(9_999), ..request(300, 5) };
            assert_eq!(desk.announce(from, &all, "").unwrap().2.len(), most);
            let connection = desk.connect(from);
            assert!(desk.say(from, &wire::announce_request(connection, T, &all, b"")).len() <= ANSWER_BYTES);
            let none = AnnounceRequest { numwant: Some(0), ..request(300, 5) };
            assert!(desk.announce(from, &none, "").unwrap().2.is_empty());
            assert_eq!(desk.announce(from, &request(300, 5), "").unwrap().2.len(), 50);
        }
    }

    #[test]
    fn lists_hold_here_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let mut config = Config::new(Vec::new());
        config.lists.allow = path("allow", &HASH.to_string());
        config.lists.passkeys = path("keys", "secret\n");
        let mut desk = Desk::new(&config);
        for path in ["", "/announce", "/wrong/announce", "/secret%20/announce", "?secret", "\u{ff}"] {
            let why = desk.announce("192.0.2.1:9", &request(1, 5), path).unwrap_err();
            assert!(why.contains("passkey"), "{path}: {why}");
        }
        for path in ["/secret/announce", "/secret/announce?x=/y/"] {
            assert!(desk.announce("192.0.2.1:9", &request(1, 5), path).is_ok(), "{path}");
        }
        let other = AnnounceRequest { info_hash: InfoHash([1; 20]), ..request(1, 5) };
        let why = desk.announce("192.0.2.1:9", &other, "/secret/announce").unwrap_err();
        assert!(why.contains("not served"), "{why}");
        let connection = desk.connect("192.0.2.1:9");
        let bytes = desk.say("192.0.2.1:9", &wire::scrape_request(connection, T, &[HASH]));
        assert!(
            matches!(UdpAnswer::decode(&bytes), Ok(UdpAnswer::Failed { .. })),
            "a scrape has no place for a key"
        );
    }
}
