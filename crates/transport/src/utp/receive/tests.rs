use super::*;
use proptest::prelude::*;

const ROOM: usize = 10_000;

fn receiver(next: u16) -> Receiver {
    Receiver::new(Seq(next), ROOM, ROOM)
}

fn sack(receiver: &Receiver) -> Vec<u16> {
    let mut bytes = Vec::new();
    receiver.encode_sack(&mut bytes);
    piecemeal_wire::utp::Sack(&bytes[2..]).set_bits().collect()
}

#[test]
fn what_is_early_waits() {
    let mut receiver = receiver(0xfffe);
    assert_eq!(receiver.packet(Seq(1), b"d", false), Heard::Early);
    assert_eq!(receiver.packet(Seq(1), b"d", false), Heard::Again);
    assert_eq!(receiver.packet(Seq(0xffff), b"b", false), Heard::Early);
    // After 0xffff, which is not said, come 0 and 1.
    assert_eq!((receiver.ack(), sack(&receiver)), (Seq(0xfffd), vec![0, 2]));
    assert_eq!(receiver.packet(Seq(0xfffe), b"a", false), Heard::Next(2));
    assert_eq!((receiver.ack(), sack(&receiver)), (Seq(0xffff), vec![0]));
    assert_eq!(receiver.packet(Seq(0), b"c", false), Heard::Next(2));
    assert_eq!((receiver.readable(), receiver.has_gap()), (&b"abcd"[..], false));
    assert_eq!(receiver.packet(Seq(0), b"c", false), Heard::Again);
    assert_eq!(receiver.window(), ROOM - 4);
}

#[test]
fn what_has_no_room_is_refused() {
    let mut receiver = receiver(0);
    assert_eq!(receiver.packet(Seq(0), &[0; 4000], false), Heard::Next(4000));
    assert_eq!(receiver.packet(Seq(2), &[2; 4000], false), Heard::Early);
    assert_eq!(receiver.packet(Seq(3), &[3; 2001], false), Heard::Refused);
    assert_eq!(receiver.packet(Seq(MOST_PACKETS as u16 + 2), b"", false), Heard::Refused);
    assert_eq!(receiver.packet(Seq(3), &[3; 2000], false), Heard::Early);
    assert_eq!(receiver.window(), 0);
    // A gap is closed all the same, or nothing would ever move.
    assert_eq!(receiver.packet(Seq(1), &[1; 1400], false), Heard::Next(7400));
    assert_eq!(receiver.packet(Seq(4), b"x", false), Heard::Refused);
    receiver.consumed(Time::ZERO, 1401);
    assert_eq!(receiver.window(), 1);
    assert_eq!(receiver.packet(Seq(4), b"x", false), Heard::Next(1));
}

#[test]
fn the_end_is_where_the_first_fin_was() {
    let mut receiver = receiver(5);
    assert_eq!(receiver.packet(Seq(8), b"", true), Heard::Early);
    assert_eq!(receiver.packet(Seq(9), b"beyond", false), Heard::Refused);
    assert_eq!(receiver.packet(Seq(9), b"", true), Heard::Refused);
    assert_eq!(receiver.packet(Seq(6), b"b", false), Heard::Early);
    // Another that claims to be the end, where more is known to follow.
    assert_eq!(receiver.packet(Seq(7), b"c", true), Heard::Early);
    assert_eq!(receiver.packet(Seq(5), b"a", false), Heard::Next(3));
    assert!(receiver.ended());
    assert_eq!(receiver.packet(Seq(8), b"", true), Heard::Again);
    assert_eq!(receiver.packet(Seq(9), b"", true), Heard::Refused);
    let mut other = self::receiver(5);
    assert_eq!(other.packet(Seq(7), b"c", false), Heard::Early);
    assert_eq!(other.packet(Seq(5), b"", true), Heard::Refused, "what came behind it speaks against it");
    assert_eq!(other.packet(Seq(6), b"", true), Heard::Refused);
    assert_eq!(other.packet(Seq(5), b"a", false), Heard::Next(1));
    assert!(!other.ended());
}

#[test]
fn a_quick_reader_gets_a_larger_window() {
    let mut receiver = Receiver::new(Seq(0), 1000, 5000);
    let mut windows = Vec::new();
    for seq in 0..20 {
        receiver.packet(Seq(seq), &[1; 900], false);
        receiver.consumed(Time::from_nanos(u64::from(seq) * 1_000_000), 900);
        windows.push(receiver.window());
    }
    assert_eq!(windows[1], 2000);
    assert_eq!(windows.last(), Some(&5000));
    // One that takes minutes for it does not.
    let mut slow = Receiver::new(Seq(0), 1000, 5000);
    for seq in 0..20 {
        slow.packet(Seq(seq), &[1; 900], false);
        slow.consumed(Time::from_nanos(u64::from(seq) * 3_000_000_000), 900);
    }
    assert_eq!(slow.window(), 1000);
}

proptest! {
    /// Whatever order packets come in, and however often: the stream is the same, and what is held is bounded.
    #[test]
    fn any_order_gives_the_same_stream(
        first: u16,
        lens in prop::collection::vec(0usize..700, 1..60),
        order in prop::collection::vec((0usize..60, any::<bool>()), 0..400),
        takes in prop::collection::vec(0usize..2000, 460),
    ) {
        let mut receiver = receiver(first);
        let payload = |at: usize| vec![at as u8; lens[at]];
        let (mut read, mut takes) = (Vec::new(), takes.into_iter());
        let last = lens.len() - 1;
        // At last, all in order, as often as is needed.
        let rest = (0..=last).cycle().take(60 * (last + 1)).map(|at| (at, true));
        for (at, _) in order.into_iter().filter(|(at, _)| *at <= last).chain(rest) {
            receiver.packet(Seq(first).plus(at as u16), &payload(at), at == last);
            prop_assert!(receiver.readable().len() + receiver.early_bytes <= 2 * ROOM + 700);
            prop_assert_eq!(receiver.early_bytes, receiver.early.iter().flatten().map(|early| early.len()).sum::<usize>());
            let take = takes.next().unwrap_or(usize::MAX).min(receiver.readable().len());
            read.extend_from_slice(&receiver.readable()[..take]);
            receiver.consumed(Time::ZERO, take);
        }
        read.extend_from_slice(receiver.readable());
        prop_assert!(receiver.ended() && !receiver.has_gap());
        prop_assert_eq!(read, (0..=last).flat_map(payload).collect::<Vec<u8>>());
    }
}
