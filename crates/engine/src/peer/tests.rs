//! One event in, exactly what follows out.

use super::*;
use crate::cx::{Carrier, Lease, Out, Rng};
use crate::rate::Trunk;
use piecemeal_metainfo::{PeerId, TorrentId};
use piecemeal_package::{BLOCK_LEN, BlockPool};
use piecemeal_wire::extension::{Extension, ExtensionHandshake, ExtensionIds};
use piecemeal_wire::handshake::Reserved;
use piecemeal_wire::message::piece_header;
use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;
use std::time::Duration;

const PIECES: u32 = 20;

/// A connection and all that surrounds it.
struct World {
    now: Time,
    rng: Rng,
    pool: BlockPool,
    lease: Lease,
    out: Out,
    peer: PeerConnection,
}

impl World {
    fn new(reserved: Reserved) -> World {
        let handed = Handed {
            conn: ConnId(7),
            torrent: TorrentId(0),
            addr: "10.0.0.1:6881".parse().unwrap(),
            peer_id: PeerId(*b"-TR4060-abcdefghijkl"),
            reserved,
            outgoing: true,
            carrier: Carrier::Tcp,
            ciphers: None,
            leftover: Vec::new(),
        };
        World {
            now: Time::ZERO,
            rng: Rng::from_seed([1; 32]),
            pool: BlockPool::new(4),
            lease: Lease {
                down: Trunk::unlimited(),
                up: Trunk::unlimited(),
                upload_bufs: 0,
                outside: Default::default(),
                gate: Default::default(),
            },
            out: Out::default(),
            peer: PeerConnection::new(Time::ZERO, &handed, Some(PIECES)),
        }
    }

    fn fast() -> World {
        World::new(Reserved::NONE.with_fast().with_extension())
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut PeerConnection, &mut Cx<'_>) -> R) -> R {
        let World { now, rng, pool, lease, out, peer } = self;
        f(peer, &mut Cx { now: *now, rng, pool, lease, out })
    }

    /// All that is heard in `bytes`, in words; Bufs go back.
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<String>, Goodbye> {
        let mut input = bytes;
        let mut heard = Vec::new();
        loop {
            match self.with(|peer, cx| peer.next(cx, &mut input))? {
                Next::More => break,
                Next::Thirsty => {
                    heard.push(format!("thirsty with {} left", input.len()));
                    break;
                }
                Next::Heard(Heard::Block { at, buf, asked }) => {
                    let sum: u32 = buf.filled().iter().map(|byte| u32::from(*byte)).sum();
                    heard.push(format!("block {}+{}={sum} {asked}", at.piece.0, at.begin));
                    self.pool.give_back(buf);
                }
                Next::Heard(other) => heard.push(format!("{other:?}")),
            }
        }
        Ok(heard)
    }

    /// What it wants to send, taken as if it were sent.
    fn sent(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let step = self.peer.with_sealed(|slices| {
                let mut step = Vec::new();
                for slice in slices {
                    match slice {
                        Sending::Bytes(bytes) => step.extend_from_slice(bytes),
                        Sending::File(span) => step.extend(std::iter::repeat_n(0xF1, span.len as usize)),
                    }
                }
                step
            });
            let Some(step) = step else { return all };
            self.with(|peer, cx| peer.on_wrote(cx, step.len()));
            all.extend(step);
        }
    }
}

fn at(piece: u32, block: u32) -> BlockRef {
    BlockRef { piece: PieceIndex(piece), begin: block * BLOCK_LEN, len: BLOCK_LEN }
}

fn bytes(messages: &[Message<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out
}

fn block(at: BlockRef, fill: u8) -> Vec<u8> {
    let mut out = piece_header(at.piece.0, at.begin, at.len).to_vec();
    out.resize(out.len() + at.len as usize, fill);
    out
}

fn request(at: BlockRef) -> Message<'static> {
    Message::Request { piece: at.piece.0, begin: at.begin, len: at.len }
}

#[test]
fn what_breaks_the_protocol_ends_it() {
    let spare = [0xff; 3];
    let table: &[(&[Message<'_>], bool)] = &[
        (&[Message::Have { piece: PIECES }], false),
        (&[Message::Have { piece: PIECES - 1 }], true),
        (&[Message::Bitfield(&spare)], false),
        (&[Message::Bitfield(&[0xff, 0, 0xf0])], true),
        (&[Message::HaveAll, Message::HaveNone], false),
        (&[Message::Have { piece: 0 }, Message::HaveAll], false),
        // As aria2 does.
        (&[Message::Have { piece: 0 }, Message::Bitfield(&[0xff, 0, 0])], true),
        (&[Message::HaveAll, Message::Bitfield(&[0; 3])], true),
        (&[Message::Bitfield(&[0; 3]); 302], false),
        (&[Message::AllowedFast { piece: PIECES }], false),
        (&[Message::Extended { id: 0, payload: b"not bencode" }], false),
        (&[Message::Extended { id: 77, payload: b"of an extension we never offered" }], true),
        (&[Message::Unknown { id: 99, payload: b"from the future" }], true),
    ];
    for (messages, fine) in table {
        assert_eq!(World::fast().hear(&bytes(messages)).is_ok(), *fine, "{messages:?}");
    }
    // BEP 6 without having said so.
    assert!(World::new(Reserved::NONE).hear(&bytes(&[Message::HaveAll])).is_err());
    // A length of 4 GiB, and a bitfield of another torrent.
    assert!(World::fast().hear(&[0xff; 4]).is_err());
    assert!(World::fast().hear(&[0, 0, 0, 5, 5]).is_err());
}

#[test]
fn what_was_asked_for_comes_in_and_nothing_else() {
    let mut world = World::fast();
    world.with(|peer, cx| peer.ask(cx, &[at(3, 0), at(3, 1)]));
    assert!(matches!(world.out.net[..], [Net::Write(ConnId(7))]));
    assert_eq!(world.sent(), bytes(&[request(at(3, 0)), request(at(3, 1))]));
    let mut stream = block(at(3, 1), 1);
    stream.extend(block(at(9, 9), 2));
    stream.extend(block(at(3, 0), 1));
    let heard = world.hear(&stream).unwrap();
    assert_eq!(heard, ["block 3+16384=16384 true", "Unasked(16384)", "block 3+0=16384 true"]);
    assert_eq!((world.peer.asked(), world.pool.lent()), (0, 0));
}

#[test]
fn unasked_blocks_without_end_are_too_much() {
    let mut world = World::fast();
    let empty = piece_header(0, 0, 0);
    let all = empty.repeat(MOST_RUDE as usize);
    assert!(world.hear(&all).is_ok());
    assert_eq!(world.hear(&empty), Err(Goodbye::Broke("sends blocks that nobody asked for")));
}

#[test]
fn thirst_keeps_what_is_not_eaten() {
    let mut world = World::fast();
    let held: Vec<_> = (0..4).map(|_| world.pool.lend().unwrap()).collect();
    world.with(|peer, cx| peer.ask(cx, &[at(1, 0)]));
    let stream = block(at(1, 0), 1);
    assert_eq!(world.hear(&stream).unwrap(), [format!("thirsty with {} left", stream.len())]);
    // The header may have come in two parts: then it is kept, and the payload is not touched.
    let mut world2 = World::fast();
    let held2: Vec<_> = (0..4).map(|_| world2.pool.lend().unwrap()).collect();
    world2.with(|peer, cx| peer.ask(cx, &[at(1, 0)]));
    assert!(world2.hear(&stream[..5]).unwrap().is_empty());
    assert_eq!(world2.hear(&stream[5..]).unwrap(), ["thirsty with 16384 left"]);
    for (world, held, rest) in [(&mut world, held, &stream[..]), (&mut world2, held2, &stream[13..])] {
        held.into_iter().for_each(|buf| world.pool.give_back(buf));
        assert_eq!(world.hear(rest).unwrap(), ["block 1+0=16384 true"]);
    }
}

#[test]
fn a_choke_without_bep_6_takes_all_requests_back() {
    for (reserved, lost) in [(Reserved::NONE, 2), (Reserved::NONE.with_fast(), 0)] {
        let mut world = World::new(reserved);
        world.with(|peer, cx| peer.ask(cx, &[at(0, 0), at(0, 1)]));
        let mut input = &bytes(&[Message::Choke])[..];
        let next = world.with(|peer, cx| peer.next(cx, &mut input)).unwrap();
        let Next::Heard(Heard::Choked(gone)) = next else { panic!("{next:?}") };
        assert_eq!((gone.len(), world.peer.asked()), (lost, 2 - lost));
    }
}

#[test]
fn a_snubbed_peer_keeps_one_request_and_may_still_come_late() {
    let mut world = World::fast();
    world.with(|peer, cx| peer.ask(cx, &[at(0, 0), at(0, 1), at(0, 2)]));
    world.now = world.now + Duration::from_secs(20);
    assert_eq!(world.peer.owes_since(), Some(Time::ZERO));
    assert_eq!(world.peer.snub(world.now), [at(0, 1), at(0, 2)]);
    assert!(world.peer.is_snubbed() && world.peer.asked() == 1 && world.peer.room() == 0);
    assert_eq!(world.hear(&block(at(0, 2), 0)).unwrap(), ["block 0+32768=0 false"]);
    assert!(!world.peer.is_snubbed());
    assert_eq!(world.hear(&block(at(0, 0), 0)).unwrap(), ["block 0+0=0 true"]);
}

#[test]
fn what_is_owed_is_not_asked_for_again() {
    let mut world = World::fast();
    world.with(|peer, cx| peer.ask(cx, &[at(0, 0), at(0, 1), at(0, 2)]));
    world.peer.snub(world.now);
    world.sent();
    world.with(|peer, cx| peer.ask(cx, &[at(0, 2), at(0, 3)]));
    assert_eq!(world.sent(), bytes(&[request(at(0, 3))]));
    assert_eq!(world.hear(&block(at(0, 2), 0)).unwrap(), ["block 0+32768=0 true"]);
    // What it rejects late may be asked for again.
    world.hear(&bytes(&[Message::Reject { piece: 0, begin: BLOCK_LEN, len: BLOCK_LEN }])).unwrap();
    world.with(|peer, cx| peer.ask(cx, &[at(0, 1)]));
    assert_eq!(world.sent(), bytes(&[request(at(0, 1))]));
}

#[test]
fn choking_rejects_what_has_not_left_but_what_was_granted() {
    let mut world = World::fast();
    world.with(|peer, cx| peer.grant(cx, vec![PieceIndex(5)]));
    world.with(|peer, cx| peer.set_choked(cx, false));
    for at in [at(5, 0), at(1, 0), at(2, 0)] {
        assert!(world.peer.take_request(at));
    }
    world.sent();
    let span = crate::cx::FileSpan {
        torrent: TorrentId(0),
        file: piecemeal_metainfo::FileIndex(0),
        offset: 0,
        len: BLOCK_LEN,
    };
    assert_eq!(world.peer.pop_request(), Some(at(5, 0)));
    assert_eq!(world.peer.pop_request(), Some(at(1, 0)));
    world.with(|peer, cx| peer.send_block(cx, at(1, 0), Body::File(span)));
    world.with(|peer, cx| peer.send_block(cx, at(5, 0), Body::File(span)));
    // One byte of the first has left: it cannot be taken back.
    world.with(|peer, cx| peer.on_wrote(cx, 1));
    world.with(|peer, cx| peer.set_choked(cx, true));
    assert!(world.peer.may_ask(PieceIndex(5)) && !world.peer.may_ask(PieceIndex(1)));
    let sent = world.sent();
    let reject = Message::Reject { piece: 2, begin: 0, len: BLOCK_LEN };
    let whole = 13 + BLOCK_LEN as usize;
    assert!(sent[whole - 1..].starts_with(&bytes(&[Message::Choke, reject])));
    assert_eq!(sent.len(), 2 * whole - 1 + 5 + 17);
    assert_eq!(world.peer.first_request(), None);
}

#[test]
fn a_cancelled_load_gives_its_memory_back() {
    let mut world = World::fast();
    world.with(|peer, cx| peer.set_choked(cx, false));
    let buf = world.pool.lend().unwrap();
    world.with(|peer, cx| peer.loading(cx, at(1, 0)));
    assert_eq!((world.lease.upload_bufs, world.peer.outgoing_bytes()), (1, u64::from(BLOCK_LEN)));
    world.sent();
    world.hear(&bytes(&[Message::Cancel { piece: 1, begin: 0, len: BLOCK_LEN }])).unwrap();
    assert_eq!(world.sent(), bytes(&[Message::Reject { piece: 1, begin: 0, len: BLOCK_LEN }]));
    world.with(|peer, cx| peer.loaded(cx, at(1, 0), buf, true));
    assert_eq!((world.lease.upload_bufs, world.pool.lent(), world.sent().len()), (0, 0, 0));
}

#[test]
fn introductions() {
    let hello = |have: Bitfield, reserved: Reserved| {
        let mut world = World::new(reserved);
        world.with(|peer, cx| peer.introduce_us(cx, &have));
        world.sent()
    };
    let mut one = Bitfield::new(PIECES);
    one.set(PieceIndex(1));
    let (fast, plain) = (Reserved::NONE.with_fast(), Reserved::NONE);
    assert_eq!(hello(Bitfield::new(PIECES), fast), bytes(&[Message::HaveNone]));
    assert_eq!(hello(Bitfield::full(PIECES), fast), bytes(&[Message::HaveAll]));
    assert_eq!(hello(one, fast), bytes(&[Message::Bitfield(&[0x40, 0, 0])]));
    assert_eq!(hello(Bitfield::new(PIECES), plain), []);
    assert_eq!(hello(Bitfield::full(PIECES), plain), bytes(&[Message::Bitfield(&[0xff, 0xff, 0xf0])]));
}

#[test]
fn the_extension_handshake_is_heeded() {
    let mut world = World::fast();
    let hello = ExtensionHandshake {
        ids: ExtensionIds::own([Extension::DontHave]),
        client: Some("Other 1.0".into()),
        port: Some(4000),
        reqq: Some(2),
        upload_only: Some(true),
        ..ExtensionHandshake::default()
    };
    let payload = hello.encode();
    let heard = world.hear(&bytes(&[Message::Extended { id: 0, payload: &payload }])).unwrap();
    assert_eq!(heard, ["Hello(Hello { port: Some(4000), your_ip: None })"]);
    assert_eq!((world.peer.client().as_str(), world.peer.room()), ("Other 1.0", 2));
    assert!(world.peer.is_upload_only() && !world.peer.is_seed());
    world.with(|peer, cx| peer.have_not(cx, PieceIndex(3)));
    let payload = 3u32.to_be_bytes();
    let id = Extension::DontHave.own_id();
    assert_eq!(world.sent(), bytes(&[Message::Extended { id, payload: &payload }]));
    // It has everything, then one piece less.
    world.hear(&bytes(&[Message::HaveAll])).unwrap();
    assert!(matches!(world.peer.has_for_picker(), Has::All));
    let lost = bytes(&[Message::Extended { id, payload: &payload }]);
    assert_eq!(world.hear(&lost).unwrap(), ["DontHave { piece: PieceIndex(3), had_all: true }"]);
    assert!(matches!(world.peer.has_for_picker(), Has::Bits(_)) && !world.peer.is_seed());
}

#[test]
fn what_is_said_of_pieces_is_passed_over_while_nobody_knows_how_many_there_are() {
    let mut world = World::fast();
    world.with(|peer, cx| {
        let handed = Handed {
            conn: ConnId(7),
            torrent: TorrentId(0),
            addr: peer.addr(),
            peer_id: PeerId([1; 20]),
            reserved: Reserved::NONE.with_fast().with_extension(),
            outgoing: true,
            carrier: Carrier::Tcp,
            ciphers: None,
            leftover: Vec::new(),
        };
        *peer = PeerConnection::new(cx.now, &handed, None);
    });
    let payload = 3u32.to_be_bytes();
    let lost = Message::Extended { id: Extension::DontHave.own_id(), payload: &payload };
    let all = bytes(&[Message::HaveAll, Message::Have { piece: 9 }, Message::AllowedFast { piece: 4 }, lost]);
    assert_eq!(world.hear(&all), Ok(Vec::new()));
}

proptest! {
    /// However the bytes are cut, the same is heard.
    #[test]
    fn any_split_is_heard_the_same(cuts in prop::collection::vec(0usize..40_000, 0..40)) {
        let mut stream = bytes(&[Message::Bitfield(&[0xff, 0, 0xf0]), Message::Unchoke, Message::Interested]);
        stream.extend(KEEP_ALIVE);
        stream.extend(block(at(3, 0), 7));
        stream.extend(bytes(&[request(at(1, 1)), Message::Extended { id: 0, payload: b"d1:pi99ee" }]));
        stream.extend(block(at(4, 0), 9));
        stream.extend(block(at(3, 1), 1));
        stream.extend(bytes(&[Message::Have { piece: 10 }, Message::NotInterested]));
        let ready = || {
            let mut world = World::fast();
            world.with(|peer, cx| peer.ask(cx, &[at(3, 0), at(3, 1)]));
            world
        };
        let whole = ready().hear(&stream).unwrap();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut world = ready();
        let mut heard = Vec::new();
        for pair in cuts.windows(2) {
            heard.extend(world.hear(&stream[pair[0]..pair[1]]).unwrap());
        }
        prop_assert_eq!(heard, whole);
    }

    /// Nonsense ends a connection or is passed over; no memory is lost.
    #[test]
    fn nonsense_is_survived(stream in prop::collection::vec(any::<u8>(), 0..2000), start in 0u8..24) {
        let mut world = World::fast();
        world.with(|peer, cx| peer.ask(cx, &[at(0, 0)]));
        let mut framed = vec![0, 0, 0, 5, start];
        framed.extend(&stream);
        let _ = world.hear(&framed);
        world.with(|peer, cx| peer.end(cx));
        prop_assert_eq!((world.pool.lent(), world.lease.upload_bufs), (0, 0));
    }
}

/// One that called by uTP is sent one keep-alive, behind its first word; nobody else is.
#[test]
fn a_caller_by_utp_is_nudged_once() {
    for (carrier, outgoing, nudged) in
        [(Carrier::Utp, false, true), (Carrier::Utp, true, false), (Carrier::Tcp, false, false)]
    {
        let mut world = World::fast();
        let handed = Handed {
            conn: ConnId(7),
            torrent: TorrentId(0),
            addr: "10.0.0.1:6881".parse().unwrap(),
            peer_id: PeerId(*b"-TR3000-abcdefghijkl"),
            reserved: Reserved::NONE.with_fast(),
            outgoing,
            carrier,
            ciphers: None,
            leftover: Vec::new(),
        };
        world.peer = PeerConnection::new(Time::ZERO, &handed, Some(PIECES));
        let mut have_none = Vec::new();
        Message::HaveNone.encode(&mut have_none);
        world.hear(&have_none[..3]).unwrap();
        assert_eq!(world.sent(), b"", "not before it has said something");
        world.hear(&have_none[3..]).unwrap();
        assert_eq!(world.sent(), if nudged { &KEEP_ALIVE[..] } else { b"" }, "{carrier:?} {outgoing}");
        world.hear(&[0; 4]).unwrap();
        assert_eq!(world.sent(), b"");
    }
}
