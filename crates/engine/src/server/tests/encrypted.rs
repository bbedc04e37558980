//! Handshakes that are encrypted: two Servers, and who is content with whom.

use super::*;

const THEM: PeerId = PeerId(*b"-PM0100-tttttttttttt");

/// Two Servers that know [`ONE`], a caller and a called, and what came of it.
struct Pair {
    ends: [Server; 2],
    /// What lies on the way to each, and how many bytes at a time arrive.
    way: [Vec<u8>; 2],
    step: usize,
    /// By end: the connection that stands, how often it was dialed, and what was handed over.
    conns: [Option<ConnId>; 2],
    dials: u64,
    first_conn: u64,
    handed: [Option<Box<Handed>>; 2],
    failed: Option<Goodbye>,
}

impl Pair {
    fn new(encrypt_out: Encryption, encrypt_in: Encryption, step: usize) -> Pair {
        let end = |who, encrypt_out, encrypt_in| {
            let settings = Settings { peer_id: who, encrypt_out, encrypt_in, ..settings() };
            let mut server = Server::new(
                settings,
                who.0.iter().fold([7; 32], |mut seed, byte| {
                    seed[usize::from(*byte) % 32] ^= byte;
                    seed
                }),
            );
            server.on_command(at(0), Command::Add(seating(ONE, meta(ONE))));
            server.on_note(at(0), Note::Open { torrent: ONE, open: true });
            server.out().notes.clear();
            server
        };
        let ends = [end(US, encrypt_out, Encryption::Allow), end(THEM, Encryption::Off, encrypt_in)];
        let (way, conns) = (Default::default(), Default::default());
        Pair { ends, way, step, conns, dials: 0, first_conn: 0, handed: Default::default(), failed: None }
    }

    /// Lets the caller call, until it has a peer or an answer.
    fn run(&mut self) {
        self.ends[0].on_note(at(0), Note::Dial { torrent: ONE, to: host(2), road: Road::Any });
        for round in 0..10_000 {
            if self.failed.is_some() || self.handed.iter().all(Option::is_some) {
                return;
            }
            for end in 0..2 {
                self.ends[end].heartbeat(at(round / 100));
                self.obey(end, at(round / 100));
                self.carry(end);
            }
        }
        panic!("they neither meet nor part");
    }

    fn obey(&mut self, end: usize, now: Time) {
        let out = std::mem::take(self.ends[end].out());
        for note in out.notes {
            match note {
                Note::Hand(handed) => self.handed[end] = Some(handed),
                Note::DialFailed { why, .. } => self.failed = Some(why),
                _ => panic!("not a note of a handshake"),
            }
        }
        for wish in out.net {
            match wish {
                Net::Dial { dial, .. } => {
                    self.dials += 1;
                    let conn = ConnId(self.first_conn + self.dials);
                    (self.way, self.conns) = (Default::default(), [Some(conn); 2]);
                    self.ends[0].on_dialed(now, dial, Ok(conn));
                    self.ends[1].on_accepted(now, conn, host(1), Carrier::Tcp);
                }
                Net::Sum(conn, sum) => self.ends[end].on_total(now, conn, sum.run()),
                Net::Close(conn, why) => {
                    if self.conns[1 - end] == Some(conn) {
                        self.conns = [None; 2];
                        self.ends[1 - end].on_closed(now, conn, Goodbye::Closed);
                    }
                    assert_ne!(why, Goodbye::Crowded);
                }
                _ => {}
            }
        }
    }

    /// Carries what one end says to the other, some bytes.
    fn carry(&mut self, end: usize) {
        let Some(conn) = self.conns[end] else { return };
        let words = written(&mut self.ends[end], conn, self.step);
        self.way[1 - end].extend(words);
        let Some(conn) = self.conns[1 - end] else { return };
        if self.handed[1 - end].is_none() {
            let some = self.way[1 - end].len().min(self.step);
            let Ate { bytes, .. } = self.ends[1 - end].on_bytes(at(0), conn, &self.way[1 - end][..some]);
            self.way[1 - end].drain(..bytes.min(some));
        }
    }

    /// Both may speak to each other, and nobody misunderstands.
    fn understand(mut self) -> bool {
        let [mut us, mut them] =
            self.handed.each_mut().map(|handed| handed.take().expect("they met").ciphers);
        assert_eq!(us.is_some(), them.is_some());
        let (Some(us), Some(them)) = (&mut us, &mut them) else { return false };
        for (from, to) in [(&mut us.outgoing, &mut them.incoming), (&mut them.outgoing, &mut us.incoming)] {
            let mut words = *b"pieces of eight";
            from.apply(&mut words);
            assert_ne!(&words, b"pieces of eight");
            to.apply(&mut words);
            assert_eq!(&words, b"pieces of eight");
        }
        true
    }
}

#[test]
fn who_is_content_with_whom() {
    use Encryption::{Allow, Off, Prefer, Require};
    // How we call, how they answer: how often we dial, and whether the stream is encrypted; or that nothing comes of it.
    let table = [
        (Off, Off, Some((1, false))),
        (Off, Allow, Some((1, false))),
        (Off, Prefer, Some((1, false))),
        (Off, Require, None),
        (Allow, Off, Some((1, false))),
        (Allow, Allow, Some((1, false))),
        (Allow, Require, Some((2, true))),
        (Prefer, Off, Some((2, false))),
        (Prefer, Allow, Some((1, false))),
        (Prefer, Prefer, Some((1, false))),
        (Prefer, Require, Some((1, true))),
        (Require, Off, None),
        (Require, Allow, Some((1, true))),
        (Require, Require, Some((1, true))),
    ];
    for (ours, theirs, expected) in table {
        for step in [1, 19, 97, 100_000] {
            let mut pair = Pair::new(ours, theirs, step);
            pair.run();
            let said = format!("{ours:?} calls {theirs:?}, {step} bytes at a time");
            assert_eq!(pair.failed.is_none(), expected.is_some(), "{said}: {:?}", pair.failed);
            if let Some((dials, encrypted)) = expected {
                assert_eq!(pair.dials, dials, "{said}");
                assert_eq!(pair.understand(), encrypted, "{said}");
            }
        }
    }
}

/// Who did not understand how we began is spoken to the other way at once, until that is wrong as well.
#[test]
fn what_a_peer_understands_is_remembered() {
    use Encryption::{Allow, Off, Prefer, Require};
    let mut pair = Pair::new(Prefer, Off, 100_000);
    let calls = [(Off, 2), (Off, 1), (Require, 2), (Allow, 1)];
    for (at, (theirs, dials)) in calls.into_iter().enumerate() {
        pair.ends[1].settings.encrypt_in = theirs;
        (pair.dials, pair.handed) = (0, Default::default());
        pair.first_conn = 10 * at as u64;
        pair.run();
        assert_eq!((pair.dials, &pair.failed), (dials, &None), "call {at}");
    }
}

#[test]
fn what_comes_behind_an_encrypted_handshake_is_deciphered() {
    let mut pair = Pair::new(Encryption::Require, Encryption::Allow, 100_000);
    pair.ends[0].on_note(at(0), Note::Dial { torrent: ONE, to: host(2), road: Road::Any });
    for end in (0..2).cycle() {
        pair.obey(end, at(0));
        if pair.handed[1].is_some() {
            break;
        }
        pair.carry(end);
    }
    // The called end is through; what it says next lies behind its handshake when the caller hears that.
    let words = written(&mut pair.ends[1], ConnId(1), 1000);
    pair.way[0].extend(words);
    let mut more = *b"\0\0\0\x01\x0f";
    pair.handed[1].as_mut().unwrap().ciphers.as_mut().unwrap().outgoing.apply(&mut more);
    pair.way[0].extend(more);
    let all = std::mem::take(&mut pair.way[0]);
    assert_eq!(pair.ends[0].on_bytes(at(0), ConnId(1), &all).bytes, all.len());
    pair.obey(0, at(0));
    assert_eq!(pair.handed[0].as_ref().unwrap().leftover, b"\0\0\0\x01\x0f");
}

#[test]
fn who_asks_for_what_is_not_here_in_cipher_hears_nothing() {
    let mut pair = Pair::new(Encryption::Require, Encryption::Allow, 50);
    pair.ends[1].on_note(at(0), Note::Open { torrent: ONE, open: false });
    pair.run();
    assert_eq!(pair.failed, Some(Goodbye::Closed));
}

#[test]
fn who_ends_tcp_without_a_word_is_called_by_utp() {
    for (encrypt_out, calls) in [(Encryption::Off, 1), (Encryption::Prefer, 2)] {
        let mut server = server_with(Settings { utp: true, encrypt_out, ..settings() });
        server.on_note(at(0), Note::Dial { torrent: ONE, to: host(9), road: Road::Any });
        let mut carriers = Vec::new();
        for conn in 1.. {
            server.heartbeat(at(100 * conn));
            let out = std::mem::take(server.out());
            let failed = out.notes.iter().any(|note| matches!(note, Note::DialFailed { .. }));
            assert_eq!(failed, carriers.len() == 2 * calls, "{carriers:?}");
            if failed {
                break;
            }
            for wish in out.net {
                if let Net::Dial { dial, carrier, .. } = wish {
                    carriers.push(carrier);
                    server.on_dialed(at(100 * conn), dial, Ok(ConnId(conn)));
                    server.on_closed(at(100 * conn), ConnId(conn), Goodbye::Closed);
                }
            }
        }
        assert_eq!(carriers, [vec![Carrier::Tcp; calls], vec![Carrier::Utp; calls]].concat());
    }
    // One that said something has made its choice.
    let mut server = server_with(Settings { utp: true, ..settings() });
    dialed(&mut server, at(0), 1, host(9));
    say(&mut server, 1, &hello(PEER, ONE)[..20]);
    server.on_closed(at(0), ConnId(1), Goodbye::Closed);
    assert_eq!(drain(&mut server), [format!("failed 1 {} Closed", host(9))]);
}

#[test]
fn a_flood_of_garbage_ends_within_the_longest_pad() {
    let mut server = server();
    server.on_accepted(at(0), ConnId(1), host(1), Carrier::Tcp);
    let mut said = 0;
    while drain_closes(&mut server).is_empty() {
        said += server.on_bytes(at(0), ConnId(1), &[0x55; 100]).bytes;
        assert!(said <= 1_000, "within 96 + 512 + 20 bytes");
    }
    assert_eq!((server.conns(), server.callers.count()), (0, 0));
}

fn drain_closes(server: &mut Server) -> Vec<Goodbye> {
    let out = std::mem::take(server.out());
    let mut sums = Vec::new();
    let closes = out.net.into_iter().filter_map(|wish| match wish {
        Net::Close(_, why) => Some(why),
        Net::Sum(conn, sum) => {
            sums.push((conn, sum));
            None
        }
        _ => None,
    });
    let closes = closes.collect();
    for (conn, sum) in sums {
        server.on_total(at(0), conn, sum.run());
    }
    closes
}
