//! One stack against packets made by hand: each rule by itself.

use piecemeal_wire::utp::{SACK, Seq, UtpHeader, encode_sack};

use super::*;

const US: u32 = 77_000;

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 6881))
}

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn header(kind: UtpKind, id: u16, seq: u16, ack: u16) -> UtpHeader {
    UtpHeader {
        kind,
        connection: UtpConnectionId(id),
        timestamp: US,
        timestamp_difference: 0,
        window: 1 << 20,
        seq: Seq(seq),
        ack: Seq(ack),
    }
}

fn hear(utp: &mut Utp, now: Time, header: UtpHeader, payload: &[u8]) {
    assert!(utp.on_datagram(now, addr(2), &[&header.encode(0)[..], payload].concat()));
}

/// All that leaves, read back: header, selective acknowledgement, bytes of payload.
fn sent(utp: &mut Utp, now: Time) -> Vec<(UtpHeader, Vec<u16>, usize)> {
    let (mut buf, mut all) = (Vec::new(), Vec::new());
    while let Some(transmit) = utp.poll_transmit(now, &mut buf) {
        for datagram in buf.chunks(transmit.segment.unwrap_or(buf.len())) {
            let packet = UtpPacket::decode(datagram).expect("what we write can be read");
            let sack = packet.sack.map_or(Vec::new(), |sack| sack.set_bits().collect());
            all.push((packet.header, sack, packet.payload.len()));
        }
    }
    all
}

fn events(utp: &mut Utp) -> Vec<Event> {
    std::iter::from_fn(|| utp.poll_event()).collect()
}

fn new() -> Utp {
    Utp::new(Settings::default(), [5; 32])
}

/// A stack that asked at 0 ms and was answered after 50 ms: its connection, its SYN, and the number of the peer's first
/// packet, which is 500.
fn asked() -> (Utp, UtpId, UtpHeader) {
    asked_with(Settings::default())
}

fn asked_with(settings: Settings) -> (Utp, UtpId, UtpHeader) {
    let mut utp = Utp::new(settings, [5; 32]);
    let id = utp.connect(addr(2)).expect("there is room");
    let syn = sent(&mut utp, at(0))[0].0;
    hear(&mut utp, at(50), header(UtpKind::State, syn.connection.0, 500, syn.seq.0), b"");
    assert_eq!(events(&mut utp), [Event::Connected { id }]);
    (utp, id, syn)
}

/// A stack that was asked with id 10 and number 1, and got the proof with a byte; and our first number.
fn accepted() -> (Utp, UtpId, u16) {
    let mut utp = new();
    hear(&mut utp, at(0), header(UtpKind::Syn, 10, 1, 0), b"");
    let first = sent(&mut utp, at(0))[0].0.seq.0;
    hear(&mut utp, at(50), header(UtpKind::Data, 11, 2, first.wrapping_sub(1)), b"x");
    let Some(Event::Accepted { id, from }) = utp.poll_event() else { panic!("not accepted") };
    assert_eq!(from, addr(2));
    assert_eq!(events(&mut utp), [Event::Readable { id }]);
    assert_eq!(utp.readable(id), b"x");
    utp.consumed(at(50), id, 1);
    (utp, id, first)
}

#[test]
fn a_syn_and_its_answer_as_other_clients_have_them() {
    let mut utp = new();
    utp.connect(addr(2)).expect("there is room");
    let packets = sent(&mut utp, at(0));
    let [(syn, _, 0)] = packets[..] else { panic!("{packets:?}") };
    assert_eq!((syn.kind, syn.ack, syn.timestamp_difference), (UtpKind::Syn, Seq(0), 0));
    // What we send bears the next id; the number after the SYN's; and acknowledges the one before the peer's first,
    // since its answer took no number.
    let (mut utp, id, syn) = asked();
    assert_eq!(utp.write(at(60), id, b"hello"), 5);
    let packets = sent(&mut utp, at(60));
    let [(data, _, 5)] = packets[..] else { panic!("{packets:?}") };
    assert_eq!(data.connection, syn.connection.next());
    assert_eq!((data.kind, data.seq, data.ack), (UtpKind::Data, syn.seq.plus(1), Seq(499)));
    assert_eq!(data.timestamp, 60_000);
    assert_eq!(data.timestamp_difference, 50_000_u32.wrapping_sub(US));
}

#[test]
fn a_syn_is_answered_with_its_id_and_ours_begins_with_that_number() {
    let mut utp = new();
    hear(&mut utp, at(0), header(UtpKind::Syn, 10, 1, 0), b"");
    let packets = sent(&mut utp, at(0));
    let [(state, _, 0)] = packets[..] else { panic!("{packets:?}") };
    assert_eq!((state.kind, state.connection, state.ack), (UtpKind::State, UtpConnectionId(10), Seq(1)));
    assert!(events(&mut utp).is_empty());
    let (mut utp, id, first) = accepted();
    utp.write(at(60), id, b"hello");
    let packets = sent(&mut utp, at(60));
    let [(data, _, 5)] = packets[..] else { panic!("{packets:?}") };
    assert_eq!((data.connection, data.seq, data.ack), (UtpConnectionId(10), Seq(first), Seq(2)));
}

/// Only the number we drew proves that someone receives. Until then nothing leaves but one answer to each SYN.
#[test]
fn nobody_is_believed_unproved() {
    let mut utp = new();
    hear(&mut utp, at(0), header(UtpKind::Syn, 10, 1, 0), b"");
    let first = sent(&mut utp, at(0))[0].0.seq.0;
    for (kind, ack) in [
        (UtpKind::Data, first),
        (UtpKind::Data, first.wrapping_add(1)),
        (UtpKind::State, 0),
        (UtpKind::Fin, 7),
    ] {
        hear(&mut utp, at(1), header(kind, 11, 2, ack), b"x");
    }
    utp.heartbeat(at(100_000));
    assert!(events(&mut utp).is_empty() && sent(&mut utp, at(100_000)).is_empty());
    // The same SYN is answered the same, another with this id not at all.
    hear(&mut utp, at(2), header(UtpKind::Syn, 10, 1, 0), b"");
    assert_eq!(sent(&mut utp, at(2))[0].0.seq.0, first);
    hear(&mut utp, at(2), header(UtpKind::Syn, 10, 5, 0), b"");
    assert!(sent(&mut utp, at(2)).is_empty());
    // Eight wrong guesses end it.
    (0..4).for_each(|_| hear(&mut utp, at(3), header(UtpKind::State, 11, 2, first), b""));
    hear(&mut utp, at(3), header(UtpKind::State, 11, 2, first.wrapping_sub(1)), b"");
    assert!(events(&mut utp).is_empty());
}

/// 10,000 forged SYNs, each from elsewhere: no more bytes leave than came, whatever time passes, and little is kept.
#[test]
fn a_flood_of_syns_is_not_amplified() {
    let mut utp = new();
    let (mut came, mut left, mut buf) = (0, 0, Vec::new());
    for number in 0..10_000_u32 {
        let from = SocketAddr::from((
            std::net::Ipv4Addr::from(0x0a00_0000 + number / 7),
            1000 + (number % 7) as u16,
        ));
        let syn = header(UtpKind::Syn, number as u16, 1, 0).encode(0);
        came += syn.len();
        assert!(utp.on_datagram(at(number.into()), from, &syn));
        utp.heartbeat(at(number.into()));
        while utp.poll_transmit(at(number.into()), &mut buf).is_some() {
            left += buf.len();
        }
    }
    utp.heartbeat(at(1_000_000));
    assert_eq!(utp.poll_transmit(at(1_000_000), &mut buf), None);
    assert!(left <= came, "{left} of {came}");
    assert_eq!((utp.conns(), utp.next_due(), utp.counters().evicted), (0, Time::NEVER, 10_000 - 64));
    assert!(events(&mut utp).is_empty());
}

#[test]
fn resets_to_strangers_are_few_and_small() {
    let mut utp = new();
    for number in 0..1000 {
        hear(&mut utp, at(number / 10), header(UtpKind::Data, number as u16, 9, 9), b"");
    }
    let packets = sent(&mut utp, at(100));
    assert_eq!(packets.len(), 32);
    let (reset, _, payload) = &packets[0];
    assert_eq!(
        (reset.kind, reset.connection, reset.ack, *payload),
        (UtpKind::Reset, UtpConnectionId(0), Seq(9), 0)
    );
    // To an acknowledgement, and to a reset, there is no answer.
    hear(&mut utp, at(5000), header(UtpKind::State, 7, 9, 9), b"");
    hear(&mut utp, at(5000), header(UtpKind::Reset, 7, 9, 9), b"");
    assert!(sent(&mut utp, at(5000)).is_empty());
}

/// A reset must name our id or the peer's, and a packet that was sent.
#[test]
fn forged_resets_are_not_believed() {
    let (mut utp, id, syn) = asked();
    utp.write(at(60), id, b"hello");
    let data = sent(&mut utp, at(60))[0].0;
    for (id, ack) in [
        (data.connection.0, data.seq.0 + 3),
        (data.connection.0 + 1, data.seq.0),
        (syn.connection.0, 30_000 ^ data.seq.0),
    ] {
        hear(&mut utp, at(70), header(UtpKind::Reset, id, 1, ack), b"");
    }
    assert!(events(&mut utp).is_empty());
    hear(&mut utp, at(70), header(UtpKind::Reset, data.connection.0, 1, data.seq.0), b"");
    assert_eq!(events(&mut utp), [Event::Closed { id, why: Why::Reset }]);
    assert_eq!(utp.conns(), 0);
    // One who refuses to be asked names the SYN.
    let mut utp = new();
    let id = utp.connect(addr(2)).expect("there is room");
    let syn = sent(&mut utp, at(0))[0].0;
    hear(&mut utp, at(9), header(UtpKind::Reset, syn.connection.0, 1, syn.seq.0 ^ 1), b"");
    assert!(events(&mut utp).is_empty());
    hear(&mut utp, at(9), header(UtpKind::Reset, syn.connection.0, 1, syn.seq.0), b"");
    assert_eq!(events(&mut utp), [Event::Closed { id, why: Why::Reset }]);
}

/// Many packets are acknowledged by one; an odd one by itself after 10 ms.
#[test]
fn acknowledgements_are_gathered() {
    let (mut utp, _, first) = accepted();
    let ack = first.wrapping_sub(1);
    assert!(sent(&mut utp, at(50)).is_empty(), "one packet waits");
    assert_eq!(utp.next_due(), at(60));
    utp.heartbeat(at(60));
    assert_eq!(sent(&mut utp, at(60))[0].0.ack, Seq(2));
    for seq in 3..43 {
        hear(&mut utp, at(61), header(UtpKind::Data, 11, seq, ack), &[7; 100]);
    }
    let packets = sent(&mut utp, at(61));
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].0.kind, packets[0].0.ack), (UtpKind::State, Seq(42)));
    // Out of order: at once, with what came.
    hear(&mut utp, at(62), header(UtpKind::Data, 11, 44, ack), b"late");
    hear(&mut utp, at(62), header(UtpKind::Data, 11, 47, ack), b"late");
    let packets = sent(&mut utp, at(62));
    assert_eq!((packets.len(), packets[0].0.ack, &packets[0].1[..]), (1, Seq(42), &[0, 3][..]));
    hear(&mut utp, at(63), header(UtpKind::Data, 11, 43, ack), b"late");
    assert_eq!(sent(&mut utp, at(63))[0].0.ack, Seq(44));
    // What came before is said again, as the peer did not hear it.
    hear(&mut utp, at(64), header(UtpKind::Data, 11, 43, ack), b"late");
    assert_eq!(sent(&mut utp, at(64)).len(), 1);
}

/// What is acknowledged beyond what was sent is not believed, nor is anything that comes with it.
#[test]
fn early_acknowledgements_are_not_believed() {
    let (mut utp, id, syn) = asked();
    let written = utp.write(at(60), id, &vec![1; 100_000]);
    assert_eq!(written, 64 << 10);
    let out = sent(&mut utp, at(60));
    let last = out.last().expect("data").0.seq;
    let before = utp.facts(id).expect("is there");
    for ahead in [1, 2, 100, 5000] {
        hear(&mut utp, at(80), header(UtpKind::Data, syn.connection.0, 500, last.plus(ahead).0), b"data");
    }
    assert_eq!(utp.facts(id), Some(before));
    assert_eq!((utp.readable(id), utp.counters().disbelieved), (&b""[..], 4));
    // Selective ones beyond it are passed over.
    let state = header(UtpKind::State, syn.connection.0, 500, syn.seq.0);
    let mut bytes = state.encode(SACK).to_vec();
    encode_sack((0..1000).map(|bit| bit >= out.len()), &mut bytes);
    utp.on_datagram(at(80), addr(2), &bytes);
    assert_eq!(utp.facts(id).expect("is there").flying, before.flying);
    // Of one acknowledgement the window grows by no more than what it acknowledges, however often it comes.
    for _ in 0..1000 {
        hear(&mut utp, at(110), header(UtpKind::State, syn.connection.0, 500, last.0), b"");
    }
    let after = utp.facts(id).expect("is there");
    assert_eq!((after.flying, after.window), (0, before.window + before.flying));
}

/// A packet is sent again once three that left later have arrived, and no earlier.
#[test]
fn three_later_packets_make_one_lost() {
    // No probes among them.
    let (mut utp, id, syn) = asked_with(Settings { most_packet_bytes_v4: 548, ..Settings::default() });
    utp.write(at(60), id, &vec![1; 10 * 528]);
    let first = syn.seq.plus(1);
    assert_eq!(sent(&mut utp, at(60)).len(), 10);
    for (came, again) in [(0b1, 0), (0b11, 0), (0b111, 1)] {
        let mut bytes = header(UtpKind::State, syn.connection.0, 500, syn.seq.0).encode(SACK).to_vec();
        bytes.extend([0, 4, came, 0, 0, 0]);
        utp.on_datagram(at(110), addr(2), &bytes);
        let packets = sent(&mut utp, at(110));
        assert_eq!(packets.len(), again, "{came:b}");
        assert!(packets.iter().all(|packet| packet.0.seq == first));
    }
    assert_eq!(utp.counters().losses, 1);
}

/// So do three acknowledgements that ask for it without saying more.
#[test]
fn three_plain_acknowledgements_make_one_lost() {
    let (mut utp, id, syn) = asked();
    utp.write(at(60), id, &vec![1; 10 * 528]);
    sent(&mut utp, at(60));
    for again in [0, 0, 1, 0, 0, 0] {
        hear(&mut utp, at(110), header(UtpKind::State, syn.connection.0, 500, syn.seq.0), b"");
        assert_eq!(sent(&mut utp, at(110)).len(), again);
    }
}

/// Without an answer packets go again, each time after twice as long.
#[test]
fn timeouts_double() {
    let (mut utp, id, _) = asked();
    utp.write(at(60), id, b"hello");
    sent(&mut utp, at(60));
    let mut waits = Vec::new();
    let mut before = at(60);
    while utp.conns() > 0 {
        let due = utp.next_due();
        utp.heartbeat(due);
        if !sent(&mut utp, due).is_empty() {
            waits.push(due.since(before).as_millis());
            before = due;
        }
    }
    // Once before the timeout: after twice the time there and back.
    assert_eq!(waits, [120, 380, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
    assert_eq!(events(&mut utp), [Event::Closed { id, why: Why::Silent }]);
}

#[test]
fn a_window_that_opens_is_told() {
    let mut utp = Utp::new(
        Settings { receive_window_bytes: 4000, most_receive_window_bytes: 4000, ..Settings::default() },
        [5; 32],
    );
    hear(&mut utp, at(0), header(UtpKind::Syn, 10, 1, 0), b"");
    let first = sent(&mut utp, at(0))[0].0.seq.0;
    for seq in 2..6 {
        hear(&mut utp, at(50), header(UtpKind::Data, 11, seq, first.wrapping_sub(1)), &[1; 1000]);
    }
    let Some(Event::Accepted { id, .. }) = utp.poll_event() else { panic!("not accepted") };
    assert_eq!(sent(&mut utp, at(50))[0].0.window, 0);
    // Nothing more is taken, and it is said each time.
    hear(&mut utp, at(60), header(UtpKind::Data, 11, 6, first.wrapping_sub(1)), &[1; 1000]);
    assert_eq!(utp.readable(id).len(), 4000);
    assert_eq!(sent(&mut utp, at(60))[0].0.ack, Seq(5));
    utp.consumed(at(70), id, 100);
    assert!(sent(&mut utp, at(70)).is_empty(), "too little to be worth a packet");
    utp.consumed(at(70), id, 3000);
    assert_eq!(sent(&mut utp, at(70))[0].0.window, 3100);
}

/// A FIN that overtook others ends the stream only once they are here; what would come behind it is nothing.
#[test]
fn a_fin_waits_for_what_is_before_it() {
    let (mut utp, id, first) = accepted();
    let ack = first.wrapping_sub(1);
    hear(&mut utp, at(60), header(UtpKind::Fin, 11, 4, ack), b"");
    hear(&mut utp, at(60), header(UtpKind::Data, 11, 5, ack), b"beyond");
    assert!(events(&mut utp).is_empty());
    hear(&mut utp, at(60), header(UtpKind::Data, 11, 3, ack), b"last");
    assert_eq!(events(&mut utp), [Event::Readable { id }, Event::Ended { id }]);
    assert_eq!(utp.readable(id), b"last");
    assert_eq!(sent(&mut utp, at(60))[0].0.ack, Seq(4));
    // Ours is acknowledged: both are done, though the other's is still acknowledged for a while.
    utp.close(at(70), id);
    assert_eq!(sent(&mut utp, at(70))[0].0.kind, UtpKind::Fin);
    hear(&mut utp, at(80), header(UtpKind::State, 11, 5, first), b"");
    assert_eq!(events(&mut utp), [Event::Closed { id, why: Why::Done }]);
    hear(&mut utp, at(90), header(UtpKind::Fin, 11, 4, first), b"");
    assert_eq!(sent(&mut utp, at(90))[0].0.kind, UtpKind::State);
    utp.heartbeat(at(11_000));
    assert_eq!((utp.conns(), events(&mut utp).len()), (0, 0));
}

/// Some clients forget a connection once their FIN arrived: their reset then ends nothing that was not over.
#[test]
fn a_reset_after_both_ended_is_no_fault() {
    for (unsent, why) in [(false, Why::Done), (true, Why::Reset)] {
        let (mut utp, id, first) = accepted();
        hear(&mut utp, at(60), header(UtpKind::Fin, 11, 3, first.wrapping_sub(1)), b"");
        utp.write(at(60), id, if unsent { b"more" } else { b"" });
        utp.close(at(60), id);
        let last = sent(&mut utp, at(60)).last().expect("a FIN").0;
        hear(&mut utp, at(70), header(UtpKind::Reset, last.connection.0, 1, last.seq.0), b"");
        assert_eq!(events(&mut utp), [Event::Ended { id }, Event::Closed { id, why }]);
    }
}

/// Only the SYN's number is an answer to it.
#[test]
fn forged_answers_are_not_believed() {
    let mut utp = new();
    let id = utp.connect(addr(2)).expect("there is room");
    let syn = sent(&mut utp, at(0))[0].0;
    for (kind, ack) in [(UtpKind::State, 1), (UtpKind::State, -1), (UtpKind::Data, 0), (UtpKind::Fin, 0)] {
        let ack = syn.seq.0.wrapping_add(ack as u16);
        hear(&mut utp, at(10), header(kind, syn.connection.0, 500, ack), b"x");
    }
    assert!(events(&mut utp).is_empty());
    hear(&mut utp, at(20), header(UtpKind::State, syn.connection.0, 500, syn.seq.0), b"");
    assert_eq!(events(&mut utp), [Event::Connected { id }]);
}

/// Of the last packet nobody could tell that it was lost: it goes again soon, and the window stays.
#[test]
fn the_last_packet_is_not_left_to_the_timeout() {
    let (mut utp, id, syn) = asked();
    utp.write(at(60), id, &[1; 3 * 528]);
    let packets = sent(&mut utp, at(60));
    hear(&mut utp, at(110), header(UtpKind::State, syn.connection.0, 500, packets[1].0.seq.0), b"");
    let before = utp.facts(id).expect("is there").window;
    let mut again = Vec::new();
    while again.is_empty() {
        let due = utp.next_due();
        assert!(due < at(300), "{due:?}");
        utp.heartbeat(due);
        again = sent(&mut utp, due);
    }
    assert_eq!((again.len(), again[0].0.seq), (1, packets[2].0.seq));
    hear(&mut utp, at(300), header(UtpKind::State, syn.connection.0, 500, packets[2].0.seq.0), b"");
    let after = utp.facts(id).expect("is there");
    assert_eq!((after.flying, utp.counters().timeouts), (0, 0));
    assert!(after.window >= before);
}

/// The last packets of a burst have too few behind them for the rule of three.
#[test]
fn the_end_of_a_burst_needs_fewer() {
    let (mut utp, id, syn) = asked_with(Settings { most_packet_bytes_v4: 548, ..Settings::default() });
    utp.write(at(60), id, &[1; 2 * 528]);
    assert_eq!(sent(&mut utp, at(60)).len(), 2);
    let mut bytes = header(UtpKind::State, syn.connection.0, 500, syn.seq.0).encode(SACK).to_vec();
    bytes.extend([0, 4, 1, 0, 0, 0]);
    utp.on_datagram(at(110), addr(2), &bytes);
    assert_eq!(sent(&mut utp, at(110))[0].0.seq, syn.seq.plus(1));
}

#[test]
fn ids_that_are_taken_are_left_alone() {
    let (mut utp, id, syn) = asked();
    // A SYN whose connection would have our id.
    hear(&mut utp, at(60), header(UtpKind::Syn, syn.connection.previous().0, 1, 0), b"");
    assert!(sent(&mut utp, at(61)).iter().all(|packet| packet.0.seq != Seq(1) && packet.0.ack != Seq(1)));
    assert!(utp.facts(id).is_some());
    // From another address it is another.
    assert!(utp.on_datagram(
        at(62),
        addr(3),
        &header(UtpKind::Syn, syn.connection.previous().0, 1, 0).encode(0)
    ));
    assert_eq!(sent(&mut utp, at(62)).len(), 1);
    // All ids of one address can be taken.
    let mut full = Utp::new(Settings { most_conns: 100_000, ..Settings::default() }, [6; 32]);
    let ids = (0..70_000).map_while(|_| full.connect(addr(2)).ok()).count();
    assert!((50_000..=65_536).contains(&ids), "{ids}");
    assert!(full.connect(addr(3)).is_ok());
}

/// What ten thousand idle connections cost, beside entries of maps.
#[test]
fn a_connection_is_small() {
    assert!(size_of::<Conn>() <= 1024, "{}", size_of::<Conn>());
}

#[test]
fn bounds_and_addresses() {
    let mut utp = Utp::new(Settings { most_conns: 2, ..Settings::default() }, [7; 32]);
    assert_eq!(utp.connect(SocketAddr::from(([192, 0, 2, 1], 0))), Err(Refusal::BadAddress));
    assert_eq!(utp.connect(SocketAddr::from(([239, 0, 2, 1], 9))), Err(Refusal::BadAddress));
    assert_eq!(utp.connect(SocketAddr::from(([0, 0, 0, 0], 9))), Err(Refusal::BadAddress));
    let one = utp.connect(addr(2)).expect("there is room");
    let two = utp.connect(addr(3)).expect("there is room");
    assert_eq!(utp.connect(addr(4)), Err(Refusal::Full));
    hear(&mut utp, at(0), header(UtpKind::Syn, 10, 1, 0), b"");
    assert_eq!(utp.counters().full, 1);
    utp.on_unreachable(addr(2));
    assert_eq!(events(&mut utp), [Event::Closed { id: one, why: Why::Unreachable }]);
    utp.close(at(1), two);
    assert_eq!(events(&mut utp), [Event::Closed { id: two, why: Why::Done }]);
    // Old ids name nothing, also where their place was taken.
    let three = utp.connect(addr(3)).expect("there is room");
    assert_ne!(two, three);
    utp.reset(at(1), two);
    assert_eq!((utp.conns(), utp.write(at(1), two, b"x"), utp.readable(two)), (1, 0, &b""[..]));
    assert_eq!(utp.facts(two), None);
}

/// A datagram that the system refuses is sent again smaller, or with leave to fragment.
#[test]
fn what_is_too_big_goes_again() {
    let (mut utp, id, _) = asked();
    utp.write(at(60), id, &[1; 2000]);
    let sizes = |utp: &mut Utp, now| {
        sent(utp, now).iter().map(|(header, _, payload)| (header.seq.0, *payload)).collect::<Vec<_>>()
    };
    let mut buf = Vec::new();
    let probe = utp.poll_transmit(at(60), &mut buf).expect("a packet");
    assert_eq!((buf.len(), probe.packets), (1472, 1), "the first full packet is a probe");
    let first = UtpPacket::decode(&buf).expect("a packet").header.seq.0;
    utp.on_too_big(at(60), addr(2), 1472);
    let again = sizes(&mut utp, at(60));
    assert_eq!(again[0], (first, 528), "without its padding");
    assert_eq!(utp.counters().losses, 0);
}
