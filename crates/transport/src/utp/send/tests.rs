use super::*;
use proptest::prelude::*;

const FIRST: Seq = Seq(0xfffd);

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

/// A sender with packets of ten bytes on their way, all sent at once.
fn flying(packets: u16) -> Sender {
    let mut sender = Sender::new(FIRST);
    sender.write(&vec![1; usize::from(packets) * 10]);
    for _ in 0..packets {
        let outgoing = sender.cut(10, false);
        sender.sent(at(0), outgoing, false);
    }
    sender
}

fn hear(sender: &mut Sender, now: u64, ack: Seq, sack: &[u8]) -> Arrived {
    let ahead = sender.ahead(ack).expect("believed");
    let sack = (!sack.is_empty()).then_some(Sack(sack));
    sender.acknowledged(at(now), (ack, ahead), sack, true, Duration::ZERO)
}

fn lost(sender: &mut Sender) -> Vec<u16> {
    std::iter::from_fn(|| {
        let outgoing = sender.first_lost()?;
        sender.sent(at(1), outgoing, false);
        Some(outgoing.seq.steps_from(FIRST))
    })
    .collect()
}

#[test]
fn acknowledgements_free_what_arrived() {
    let mut sender = flying(10);
    assert_eq!((sender.flying(), sender.held(), sender.span()), (100, 100, 10));
    let arrived = hear(&mut sender, 40, FIRST.plus(3), &[]);
    assert_eq!((arrived.bytes, arrived.packets, arrived.rtt), (40, 4, Some(Duration::from_millis(40))));
    assert_eq!((sender.flying(), sender.held(), sender.span()), (60, 60, 6));
    // Again, or older: nothing.
    for ack in [3, 0] {
        assert_eq!(hear(&mut sender, 41, FIRST.plus(ack), &[]).packets, 0);
    }
    // Beyond what was sent, or long ago: not of this connection.
    assert_eq!(sender.ahead(FIRST.plus(10)), None);
    assert_eq!(sender.ahead(FIRST.minus(5000)), None);
    assert_eq!(sender.ahead(FIRST.plus(9)), Some(6));
}

#[test]
fn selective_acknowledgements_hold_bytes_until_the_gap_closes() {
    let mut sender = flying(10);
    let arrived = hear(&mut sender, 40, FIRST.minus(1), &[0b11]);
    assert_eq!((arrived.bytes, sender.flying(), sender.held()), (20, 80, 100));
    assert_eq!(hear(&mut sender, 40, FIRST.minus(1), &[0b11]).bytes, 0, "counted once");
    assert_eq!(hear(&mut sender, 40, FIRST.plus(2), &[]).bytes, 10);
    assert_eq!((sender.flying(), sender.held()), (70, 70));
    // One that is older than what we know is read from where it begins.
    let arrived = hear(&mut sender, 41, FIRST.minus(1), &[0b0001_0011]);
    assert_eq!((arrived.bytes, sender.flying()), (10, 60));
}

#[test]
fn who_is_overtaken_by_three_is_lost() {
    let mut sender = flying(10);
    // Missing: 0, 1 and 4. Behind 0 and 1 come four, behind 4 two.
    let arrived = hear(&mut sender, 40, FIRST.minus(1), &[0b0011_0110]);
    assert!(arrived.congested);
    assert_eq!(lost(&mut sender), [0, 1]);
    // One window is made smaller once.
    let arrived = hear(&mut sender, 41, FIRST.minus(1), &[0b0111_0110]);
    assert!(!arrived.congested);
    assert_eq!(lost(&mut sender), [4]);
    // What was sent again counts from then on: the sending of 4 came after those of 0 and 1, and new ones follow.
    sender.write(&[1; 40]);
    for _ in 0..4 {
        let outgoing = sender.cut(10, false);
        sender.sent(at(2), outgoing, false);
    }
    hear(&mut sender, 90, FIRST.minus(1), &[0b0111_0110, 0b110]);
    assert!(lost(&mut sender).is_empty());
    let arrived = hear(&mut sender, 91, FIRST.minus(1), &[0b0111_0110, 0b1110]);
    assert!(arrived.congested, "of another window");
    assert_eq!(lost(&mut sender), [0, 1, 4, 8, 9]);
}

/// The first sending of a packet that was repeated for nothing may be what arrived.
#[test]
fn an_echo_of_the_first_sending_overtakes_nobody() {
    let mut sender = flying(10);
    hear(&mut sender, 40, FIRST.minus(1), &[0b111]);
    assert_eq!(lost(&mut sender), [0]);
    let ahead = sender.ahead(FIRST.plus(3)).expect("believed");
    // After 2 ms, on a way of 40.
    let arrived = sender.acknowledged(at(3), (FIRST.plus(3), ahead), None, true, Duration::from_millis(40));
    assert_eq!((arrived.packets, arrived.rtt), (1, None));
    assert!(lost(&mut sender).is_empty());
}

#[test]
fn a_lost_probe_is_told_and_is_no_congestion() {
    let mut sender = Sender::new(FIRST);
    sender.write(&[1; 50]);
    for at_ in 0..5 {
        let outgoing = sender.cut(10, false);
        sender.sent(at(0), outgoing, at_ == 0);
    }
    let arrived = hear(&mut sender, 40, FIRST.minus(1), &[0b111]);
    assert_eq!((arrived.probe, arrived.congested), (Some(false), false));
    assert_eq!(lost(&mut sender), [0]);
    let arrived = hear(&mut sender, 80, FIRST.plus(4), &[]);
    // The last to leave was a repetition: its time says nothing.
    assert_eq!((arrived.probe, arrived.rtt), (None, None));
    assert!(sender.all_arrived());
}

#[test]
fn a_timeout_loses_all_and_a_reset_names_what_was_sent() {
    let mut sender = flying(5);
    assert!(
        sender.could_reset(FIRST) && sender.could_reset(FIRST.plus(5)) && !sender.could_reset(FIRST.plus(7))
    );
    hear(&mut sender, 40, FIRST.minus(1), &[0b1]);
    assert!(sender.timed_out().congested);
    assert_eq!((sender.flying(), sender.nothing_flies()), (0, true));
    assert_eq!(lost(&mut sender), [0, 2, 3, 4]);
    assert_eq!(sender.flying(), 40);
}

#[test]
fn what_was_late_only_flies_again() {
    // Of what was given up and not sent again one arrives; and the first sending of one that was sent again.
    let mut sender = flying(10);
    sender.timed_out();
    assert!(hear(&mut sender, 900, FIRST.plus(0), &[]).late);
    assert_eq!((sender.flying(), lost(&mut sender)), (90, vec![]));
    assert!(!hear(&mut sender, 901, FIRST.plus(1), &[]).late, "said once");
    let mut sender = flying(10);
    sender.timed_out();
    let first = sender.first_lost().expect("all are");
    sender.sent(at(900), first, false);
    let arrived = sender.acknowledged(at(902), (FIRST, 1), None, true, Duration::from_millis(40));
    assert_eq!((arrived.late, sender.flying(), sender.first_lost().is_none()), (true, 90, true));
    // Those that were overtaken are lost as before; and all are if what was sent again arrives after its time.
    let mut sender = flying(10);
    hear(&mut sender, 40, FIRST.minus(1), &[0b1110]);
    sender.timed_out();
    assert!(hear(&mut sender, 900, FIRST.minus(1), &[0b1_1110]).late);
    assert_eq!(lost(&mut sender), [0, 1]);
    let mut sender = flying(3);
    sender.timed_out();
    let first = sender.first_lost().expect("all are");
    sender.sent(at(900), first, false);
    let arrived = sender.acknowledged(at(950), (FIRST, 1), None, true, Duration::from_millis(40));
    assert_eq!((arrived.late, lost(&mut sender)), (false, vec![1, 2]));
}

proptest! {
    /// Whatever is acknowledged in whatever way: the counts are those of the packets, and payloads are what was written.
    #[test]
    fn counts_are_those_of_the_packets(steps in prop::collection::vec((0u8..6, any::<u16>(), any::<u32>()), 1..200)) {
        let mut sender = Sender::new(FIRST);
        let mut written = 0_u64;
        for (now, (kind, number, bits)) in steps.into_iter().enumerate() {
            match kind {
                0 => {
                    let bytes: Vec<u8> = (0..number % 300).map(|at| (written + u64::from(at)) as u8).collect();
                    written += bytes.len() as u64;
                    sender.write(&bytes);
                }
                1 => {
                    for _ in 0..number % 8 {
                        let len = sender.unsent().min(bits as usize % 50);
                        if len > 0 {
                            let outgoing = sender.cut(len, false);
                            sender.sent(at(now as u64), outgoing, bits % 7 == 0);
                        }
                    }
                }
                2 | 3 => {
                    let ack = sender.first.minus(3).plus(number % 12);
                    if let Some(ahead) = sender.ahead(ack) {
                        let bits = bits.to_le_bytes();
                        let sack = (kind == 3).then_some(Sack(&bits));
                        sender.acknowledged(at(now as u64), (ack, ahead), sack, true, Duration::ZERO);
                    }
                }
                4 => {
                    sender.timed_out();
                }
                _ => {
                    if let Some(outgoing) = sender.first_lost() {
                        let mut bytes = Vec::new();
                        sender.payload(outgoing, &mut bytes);
                        prop_assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (outgoing.start + at as u64) as u8));
                        sender.sent(at(now as u64), outgoing, false);
                    }
                }
            }
            let of = |fate| sender.packets.iter().filter(move |packet| packet.fate == fate);
            prop_assert_eq!(sender.flying, of(Fate::Flying).map(|packet| usize::from(packet.len)).sum::<usize>());
            prop_assert_eq!(sender.flying_packets, of(Fate::Flying).count());
            prop_assert_eq!(sender.lost, of(Fate::Lost).count());
            prop_assert!(sender.packets.iter().take(sender.lost_from).all(|packet| packet.fate != Fate::Lost));
            let held: usize = sender.packets.iter().map(|packet| usize::from(packet.len)).sum();
            prop_assert_eq!(sender.held(), held + sender.unsent());
        }
    }
}
