use super::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn syn() -> UtpHeader {
    UtpHeader {
        kind: UtpKind::Syn,
        connection: UtpConnectionId(0x1234),
        timestamp: 0x0102_0304,
        timestamp_difference: 0,
        window: 1 << 20,
        seq: Seq(1),
        ack: Seq(0),
    }
}

fn state() -> UtpHeader {
    UtpHeader { kind: UtpKind::State, timestamp_difference: 0x0a0b_0c0d, seq: Seq(5), ack: Seq(1), ..syn() }
}

const STATE: &str = "21011234010203040a0b0c0d0010000000050001000401000080";

/// The vectors of the reliability table, built from the layout of BEP 29.
#[test]
fn bytes_as_bep_29_has_them() {
    assert_eq!(hex(&syn().encode(0)), "4100123401020304000000000010000000010000");
    let mut bytes = state().encode(SACK).to_vec();
    let came: Vec<bool> = (0..32).map(|at| at == 0 || at == 31).collect();
    encode_sack(came.into_iter(), &mut bytes);
    assert_eq!(hex(&bytes), STATE);
    let packet = UtpPacket::decode(&bytes).expect("a packet");
    assert_eq!((packet.header, packet.payload), (state(), &b""[..]));
    let came = packet.sack.expect("has one").set_bits().collect::<Vec<_>>();
    // ack + 2 and ack + 33.
    assert_eq!(came, [0, 31]);
}

#[test]
fn kinds_and_versions() {
    let kinds = [
        (UtpKind::Data, 0x01),
        (UtpKind::Fin, 0x11),
        (UtpKind::State, 0x21),
        (UtpKind::Reset, 0x31),
        (UtpKind::Syn, 0x41),
    ];
    for (kind, first) in kinds {
        assert_eq!(UtpHeader { kind, ..syn() }.encode(0)[0], first);
    }
    for first in 0..=255 {
        let mut bytes = syn().encode(0);
        bytes[0] = first;
        let known = kinds.iter().any(|kind| kind.1 == first);
        assert_eq!(UtpPacket::decode(&bytes).is_ok(), known);
        assert_eq!(looks_like_utp(&bytes), known);
    }
}

/// As libutp reads it: the first extension is one it knows, and extension bits are eight bytes.
#[test]
fn padding_begins_with_what_libutp_knows() {
    let mut packet = UtpHeader { kind: UtpKind::Data, ..syn() }.encode(EXTENSION_BITS).to_vec();
    encode_padding(LEAST_PADDING_BYTES, &mut packet);
    assert_eq!(hex(&packet[..2]), "0102");
    assert_eq!(hex(&packet[HEADER_BYTES..]), "7e0800000000000000000000");
}

/// What shares the socket is never taken for uTP.
#[test]
fn others_on_the_socket_are_told_apart() {
    let dht = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    assert!(!looks_like_utp(dht));
    for action in 0u32..4 {
        assert!(!looks_like_utp(&[&action.to_be_bytes()[..], &[1; 30]].concat()));
    }
    assert!(!looks_like_utp(&syn().encode(0)[..19]) && !looks_like_utp(b""));
}

#[test]
fn numbers_wrap() {
    let table = [
        (1, 2, true),
        (100, 200, true),
        (0xfff0, 0x000f, true),
        (2, 1, false),
        (200, 100, false),
        (0xfff0, 0xff00, false),
        (5, 5, false),
        (0, 0x8000, false),
        (0x8000, 0, false),
        (0, 0x7fff, true),
    ];
    for (left, right, before) in table {
        assert_eq!(Seq(left).is_before(Seq(right)), before, "{left:x} {right:x}");
    }
    assert_eq!(Seq(0xffff).plus(3), Seq(2));
    assert_eq!(Seq(2).minus(3), Seq(0xffff));
    assert_eq!(Seq(2).steps_from(Seq(0xffff)), 3);
    assert_eq!(UtpConnectionId(0xffff).next(), UtpConnectionId(0));
    assert_eq!(UtpConnectionId(0).previous(), UtpConnectionId(0xffff));
}

#[test]
fn unknown_extensions_are_passed_over() {
    let mut bytes = state().encode(2).to_vec();
    bytes.extend([9, 8, 0, 0, 0, 0, 0, 0, 0, 0]); // extension bits
    bytes.extend([SACK, 0]); // an empty one of kind 9
    bytes.extend([SACK, 4, 1, 0, 0, 0]);
    bytes.extend([0, 4, 0xff, 0xff, 0xff, 0xff]); // a second acknowledgement, not read
    bytes.extend(b"rest");
    let packet = UtpPacket::decode(&bytes).expect("a packet");
    assert_eq!(packet.payload, b"rest");
    assert_eq!(packet.sack, Some(Sack(&[1, 0, 0, 0])));
    let whole = bytes.len() - 4;
    for len in 0..whole {
        assert_eq!(UtpPacket::decode(&bytes[..len]), Err(UtpError::TooShort), "{len}");
    }
    assert!(UtpPacket::decode(&bytes[..whole]).is_ok());
}

#[test]
fn a_sack_that_is_too_long_is_cut() {
    let mut bytes = state().encode(SACK).to_vec();
    encode_sack((0..5000).map(|at| at % 2 == 1), &mut bytes);
    assert_eq!(bytes.len(), HEADER_BYTES + 2 + MAX_SACK_BYTES);
    let sack = UtpPacket::decode(&bytes).expect("a packet").sack.expect("has one");
    assert!(sack.set_bits().eq((0..2016).filter(|at| at % 2 == 1)));
}

proptest! {
    #[test]
    fn padding_has_the_size_it_was_asked_for(bytes in LEAST_PADDING_BYTES..3000, payload: Vec<u8>) {
        let mut packet = UtpHeader { kind: UtpKind::Data, ..syn() }.encode(EXTENSION_BITS).to_vec();
        encode_padding(bytes, &mut packet);
        prop_assert_eq!(packet.len(), HEADER_BYTES + bytes);
        packet.extend(&payload);
        prop_assert_eq!(UtpPacket::decode(&packet).expect("a packet").payload, &payload[..]);
    }

    #[test]
    fn sacks_come_back(came in prop::collection::vec(any::<bool>(), 1..2016)) {
        let mut bytes = state().encode(SACK).to_vec();
        encode_sack(came.iter().copied(), &mut bytes);
        let sack = UtpPacket::decode(&bytes).expect("a packet").sack.expect("has one");
        prop_assert_eq!(sack.0.len() % 4, 0);
        let set = came.iter().enumerate().filter(|(_, came)| **came).map(|(at, _)| at as u16);
        prop_assert!(sack.set_bits().eq(set));
    }

    #[test]
    fn headers_come_back(bytes: [u8; HEADER_BYTES]) {
        if let Ok(packet) = UtpPacket::decode(&bytes) {
            prop_assert_eq!(packet.header.encode(bytes[1]), bytes);
        }
    }
}
