//! Both ends of message stream encryption together: recorded sessions, every cut, all that may be offered, and peers
//! that lie.

#[path = "entries/mse.rs"]
#[expect(dead_code, reason = "the door itself is for `fuzz_entries.rs`")]
mod ends;

use ends::*;
use piecemeal_metainfo::InfoHash;
use piecemeal_transport::mse::{
    Choice, Done, Fault, Initiator, KEY_BYTES, MAX_PAD, MAX_PAYLOAD, Offer, Responder, Step,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const NOTHING: Offer = Offer { plain: false, rc4: false };

/// A session that Transmission recorded: both ends have the same key, so one key is that of either.
mod recorded {
    pub const SKEY: &str = "2c6b6858d61da9543d4231a71db4b1c9264b0685";
    pub const PRIVATE: &str = "d0460a0b00564380e0f645f7739c718d5b410cac";
    pub const PUBLIC: &str = "b2f93248815c0acac34de1e33ede75e9415bb2847ee6f7db7b9fe6eacb44eeee492d9d74909d7d3663fae04d\
                              74a889e7efcb02ac9823c35c841c7c2bcce70a891958bdc328b7324c7be4a3ac55276b0dca05f9f66dc28187\
                              16ffb1f33d27b9c9";
    pub const REQ1: &str = "a76be23201678c457cee31362455ec69766b34d2";
    pub const REQ2: &str = "b9316ebb4e8d5355b244f89fd35f0961e546c2b4";
    pub const CIPHER: &str = "cfb2d10fbb7579966ce3b4c1952da2f9104ae5a49f775ebcfe79ae84210114640f83e2329a57fb68f4d562\
                              d38ff55b50363c7820f88f69b9a73f8bd06c14f7237507a856d53bde53426d30d081389eca30d69b0a";
    /// The key of a peer that Transmission dialed with the same key of its own.
    pub const OTHER: &str = "49f828abf9eb41f0f82308ab7e4fae84e99030e0bf4302bfbd888e69cb75345f53a565e6b3772f94a10ac6cd\
                             155269e6cad461f5b8782dcb356ecc250ba474e57ac91b32e166a02a70b514011d554cb039a0a4a3475d37f3\
                             315b86773bd63aa5";
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().expect("of that length")
}

/// The handshake of the recorded session.
fn recorded_payload() -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05",
        &array::<20>(recorded::SKEY),
        b"-TR300Z-w4bd4mkebkbi",
        b"",
    ];
    parts.concat()
}

fn done<M>(actor: &Actor<M>) -> &Done {
    match &actor.end {
        Some(Ok(done)) => done,
        other => panic!("not done: {other:?}"),
    }
}

fn fault<M>(actor: &Actor<M>) -> Option<Fault> {
    match &actor.end {
        Some(Err(fault)) => Some(*fault),
        _ => None,
    }
}

/// Lets both speak in turns, until neither has anything to say; all that was said.
fn join(a: &mut Actor<Initiator>, b: &mut Actor<Responder>) -> (Vec<u8>, Vec<u8>) {
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    loop {
        let (from_a, from_b) = (a.take_out(), b.take_out());
        if from_a.is_empty() && from_b.is_empty() {
            return (to_a, to_b);
        }
        b.hear(&from_a);
        a.hear(&from_b);
        to_a.extend(from_b);
        to_b.extend(from_a);
    }
}

#[test]
fn a_recorded_caller_is_understood() {
    let skey = InfoHash(array(recorded::SKEY));
    let mut rng = Script::new(array(recorded::PRIVATE), [0, 0]);
    let mut b = Actor::new(Responder::new(&mut rng, Offer::BOTH, Choice::Plain));
    b.torrents = vec![SKEY, skey];
    b.hear(&[hex(recorded::PUBLIC), vec![b' '; 5]].concat());
    assert_eq!(b.take_out(), hex(recorded::PUBLIC));
    b.hear(&[vec![b' '; 5], hex(recorded::REQ1), hex(recorded::REQ2), hex(recorded::CIPHER)].concat());
    assert_eq!((done(&b).choice, &done(&b).payload), (Choice::Rc4, &recorded_payload()));
    let answer = b.take_out();
    assert_eq!((&answer[..8], answer.len()), (&hex("bed11ca92d44f877")[..], 14));
}

#[test]
fn a_recorded_call_is_made() {
    let skey = InfoHash(array(recorded::SKEY));
    for (key, req1) in
        [(recorded::PUBLIC, recorded::REQ1), (recorded::OTHER, "99ba59141c1d8b8535b2756f6e8377b0c1293665")]
    {
        let mut rng = Script::new(array(recorded::PRIVATE), [0, 0]);
        let (machine, sum) = Initiator::begin(&mut rng, skey, Offer::RC4, &recorded_payload());
        let mut a = Actor::new(machine);
        a.sum = Some(sum);
        a.settle();
        assert_eq!(a.take_out(), hex(recorded::PUBLIC));
        a.hear(&hex(key));
        let out = a.take_out();
        assert_eq!(out[..20], hex(req1));
        if key == recorded::PUBLIC {
            assert_eq!(out, [hex(req1), hex(recorded::REQ2), hex(recorded::CIPHER)].concat());
        }
    }
}

#[test]
fn every_cut_and_every_end_of_both_flights() {
    for (offer, accept) in [(Offer::BOTH, Offer::BOTH), (Offer::BOTH, Offer::RC4)] {
        let make = || {
            let (mut a, mut b) = ends(offer, accept, Choice::Plain, [3, 4], [2, 5]);
            (a.says, b.says) = (b"I am A".to_vec(), b"I am B".to_vec());
            (a, b)
        };
        let (mut a, mut b) = make();
        let (to_a, to_b) = join(&mut a, &mut b);
        let heard = [(&a.heard, b"I am B".to_vec()), (&b.heard, [&PAYLOAD[..], b"I am A"].concat())];
        heard.iter().for_each(|(heard, said)| assert_eq!(*heard, said));
        for cut in 0..to_b.len() {
            let b = &mut make().1;
            b.hear(&to_b[..cut]);
            let whole = cut >= to_b.len() - 6;
            assert!(if whole { done(b).payload == PAYLOAD } else { b.end.is_none() }, "{cut}");
            b.hear(&to_b[cut..]);
            assert_eq!((b.take_out(), &b.heard), (to_a.clone(), heard[1].0), "{cut}");
        }
        for cut in 0..to_a.len() {
            let a = &mut make().0;
            a.hear(&to_a[..cut]);
            let whole = cut >= to_a.len() - 6;
            assert!(if whole { done(a).payload.is_empty() } else { a.end.is_none() }, "{cut}");
            a.hear(&to_a[cut..]);
            assert_eq!((a.take_out(), &a.heard), (to_b.clone(), heard[0].0), "{cut}");
        }
        for chunk in [1, 2, 3, 20, 97] {
            let (mut a, mut b) = make();
            b.hear_all(&to_b, chunk);
            a.hear_all(&to_a, chunk);
            assert_eq!((b.take_out(), a.take_out()), (to_a.clone(), to_b.clone()), "{chunk}");
        }
    }
}

#[test]
fn all_that_may_be_offered_and_accepted() {
    let all = [NOTHING, Offer::PLAIN, Offer::RC4, Offer::BOTH];
    for (offer, accept, prefer) in all.iter().flat_map(|offer| {
        all.iter().flat_map(|accept| [Choice::Plain, Choice::Rc4].map(|prefer| (*offer, *accept, prefer)))
    }) {
        let choice = match (offer.plain && accept.plain, offer.rc4 && accept.rc4) {
            (true, true) => Some(prefer),
            (true, false) => Some(Choice::Plain),
            (false, true) => Some(Choice::Rc4),
            (false, false) => None,
        };
        let (mut a, mut b) = ends(offer, accept, prefer, [9, 9], [9, 9]);
        (a.says, b.says) = (b"hello from A".to_vec(), b"hello from B".to_vec());
        let (_, to_b) = join(&mut a, &mut b);
        match choice {
            Some(choice) => {
                assert_eq!((done(&a).choice, done(&b).choice), (choice, choice));
                assert_eq!(a.heard, b"hello from B");
                assert_eq!(b.heard, [&PAYLOAD[..], b"hello from A"].concat());
                assert_eq!(to_b.ends_with(b"hello from A"), choice == Choice::Plain);
            }
            None => {
                let provided = u32::from(offer.plain) + 2 * u32::from(offer.rc4);
                assert_eq!(fault(&b), Some(Fault::NothingInCommon { provided }));
                assert!(a.end.is_none());
            }
        }
        a.check();
        b.check();
    }
}

#[test]
fn the_longest_pads_and_none_and_any_payload() {
    for (pads_a, pads_b) in [([0, 0], [0, 0]), ([MAX_PAD; 2], [MAX_PAD; 2]), ([0, MAX_PAD], [MAX_PAD, 0])] {
        for payload in [0, 1, 68, MAX_PAYLOAD] {
            let payload = vec![7; payload];
            let (machine, sum) =
                Initiator::begin(&mut Script::new([3; 20], pads_a), SKEY, Offer::BOTH, &payload);
            let mut a = Actor::new(machine);
            a.sum = Some(sum);
            a.settle();
            let (_, mut b) = ends(Offer::BOTH, Offer::RC4, Choice::Rc4, [0, 0], pads_b);
            let (to_a, to_b) = join(&mut a, &mut b);
            assert_eq!(to_b.len(), KEY_BYTES + pads_a[0] + 40 + 14 + pads_a[1] + 2 + payload.len());
            assert_eq!(to_a.len(), KEY_BYTES + pads_b[0] + 14 + pads_b[1]);
            assert_eq!((&done(&b).payload, done(&a).payload.len()), (&payload, 0));
        }
    }
}

#[test]
#[should_panic(expected = "too many")]
fn an_own_payload_that_nobody_would_take_is_a_mistake() {
    Initiator::begin(&mut Script::new([3; 20], [0, 0]), SKEY, Offer::BOTH, &[0; MAX_PAYLOAD + 1]);
}

#[test]
fn pads_that_come_while_a_sum_is_computed_count() {
    for pad in [0, 1, 19, 20, 300, MAX_PAD, MAX_PAD + 1] {
        let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [0, 3], [0, 3]);
        (a.late, b.late) = (true, true);
        let early = pad / 2;
        b.hear(&a.take_out());
        b.hear(&vec![0; early]);
        b.settle();
        a.hear(&b.take_out());
        a.hear(&vec![0; early]);
        a.settle();
        b.hear(&vec![0; pad - early]);
        b.hear(&a.take_out());
        a.hear(&vec![0; pad - early]);
        a.hear(&b.take_out());
        if pad > MAX_PAD {
            assert_eq!((fault(&a), fault(&b)), (None, Some(Fault::NoSync)));
            a.hear(&[0; 8]);
            assert_eq!(fault(&a), Some(Fault::NoSync));
        } else {
            assert_eq!((done(&a).choice, done(&b).choice), (Choice::Rc4, Choice::Rc4), "{pad}");
        }
    }
}

#[test]
fn more_than_a_pad_before_it_is_ones_turn() {
    let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [0, 0], [0, 0]);
    (a.late, b.late) = (true, true);
    b.hear(&[a.take_out(), vec![0; MAX_PAD]].concat());
    assert!(b.end.is_none());
    b.hear(&[0]);
    assert_eq!(fault(&b), Some(Fault::NoSync));
    let (machine, sum) = Initiator::begin(&mut Script::new([3; 20], [0, 0]), SKEY, Offer::BOTH, b"");
    let mut a = Actor::new(machine);
    a.sum = Some(sum);
    a.hear(b"");
    assert!(a.end.is_none());
    a.hear(b"220 mail.example ESMTP");
    assert_eq!(fault(&a), Some(Fault::TooEarly));
    a.settle();
    assert!(a.take_out().is_empty(), "nothing comes of it any more");
}

#[test]
fn degenerate_keys() {
    let prime = hex(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
                     ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    );
    let near = |last: u8| [&prime[..KEY_BYTES - 1], &[last]].concat();
    let small = |last: u8| [&[0; KEY_BYTES - 1][..], &[last]].concat();
    let keys = [
        (small(0), false),
        (small(1), false),
        (small(2), true),
        (near(0x61), true),
        (near(0x62), false),
        (near(0x63), false),
        (near(0x64), false),
        (vec![0xff; KEY_BYTES], false),
    ];
    for (key, good) in keys {
        let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [0, 0], [0, 0]);
        a.hear(&key);
        b.hear(&key);
        let fault_ = (!good).then_some(Fault::DegenerateKey);
        assert_eq!((fault(&a), fault(&b)), (fault_, fault_), "{key:02x?}");
        a.check();
        b.check();
    }
}

#[test]
fn another_torrent() {
    let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [1, 1], [1, 1]);
    b.torrents = vec![InfoHash([1; 20])];
    join(&mut a, &mut b);
    assert_eq!((fault(&a), fault(&b)), (None, Some(Fault::UnknownTorrent)));
    b.check();

    // The caller answers with one that was not asked for: its ciphers do not fit.
    let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [1, 1], [1, 1]);
    b.hear(&a.take_out());
    a.hear(&b.take_out());
    let bytes = a.take_out();
    let Ok((eaten, Step::Who(_))) = b.machine.hear(&bytes) else { panic!("asks") };
    assert!(matches!(b.machine.hear(&bytes[eaten..]), Ok((0, Step::More))), "it was asked first");
    assert_eq!(b.machine.known(Some(InfoHash([1; 20]))), Ok(()));
    assert_eq!(b.machine.known(None), Ok(()), "nobody asked");
    assert_eq!(b.machine.hear(&bytes[eaten..]).map(|(eaten, _)| eaten), Err(Fault::Garbled));
}

/// Where a flight's fields are, behind key and pad; the pads of this test are empty but the last ones.
const HEAD: usize = 40;

/// What the responder makes of the initiator's second flight with some bits flipped.
fn caller_with(flips: &[(usize, u8)]) -> Actor<Responder> {
    let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Plain, [0, 3], [0, 0]);
    b.hear(&a.take_out());
    a.hear(&b.take_out());
    let mut flight = a.take_out();
    flips.iter().for_each(|(at, flip)| flight[*at] ^= flip);
    b.hear(&flight);
    b.check();
    b
}

/// What the initiator makes of the responder's second flight with some bits flipped.
fn called_with(offer: Offer, flips: &[(usize, u8)]) -> Actor<Initiator> {
    let (mut a, mut b) = ends(offer, Offer::BOTH, Choice::Plain, [0, 3], [0, 3]);
    b.hear(&a.take_out());
    a.hear(&b.take_out());
    b.hear(&a.take_out());
    let mut flight = b.take_out();
    flips.iter().for_each(|(at, flip)| flight[*at] ^= flip);
    a.hear(&flight);
    a.check();
    a
}

#[test]
fn fields_that_lie() {
    // A bit of VC; nothing provided; reserved bits beside what is; PadC of 513 and 65535 bytes; IA of 1025 and more.
    assert_eq!(fault(&caller_with(&[(HEAD + 7, 1)])), Some(Fault::Garbled));
    assert_eq!(fault(&caller_with(&[(HEAD + 11, 3)])), Some(Fault::NothingInCommon { provided: 0 }));
    assert_eq!(fault(&caller_with(&[(HEAD + 11, 7)])), Some(Fault::NothingInCommon { provided: 4 }));
    let reserved = caller_with(&[(HEAD + 8, 0xff), (HEAD + 11, 0xfc)]);
    assert_eq!((done(&reserved).choice, &done(&reserved).payload[..]), (Choice::Plain, &PAYLOAD[..]));
    assert_eq!(fault(&caller_with(&[(HEAD + 12, 2), (HEAD + 13, 2)])), Some(Fault::PadTooLong(513)));
    assert_eq!(fault(&caller_with(&[(HEAD + 12, 0xff), (HEAD + 13, 0xfc)])), Some(Fault::PadTooLong(0xffff)));
    assert!(caller_with(&[(HEAD + 12, 2), (HEAD + 13, 3)]).end.is_none(), "a pad of 512, of which some came");
    let len = HEAD + 14 + 3;
    assert_eq!(fault(&caller_with(&[(len, 4), (len + 1, 68 ^ 1)])), Some(Fault::PayloadTooLong(1025)));
    assert!(caller_with(&[(len, 4), (len + 1, 68)]).end.is_none(), "1024 bytes, of which some came");
    assert_eq!(fault(&caller_with(&[(len, 0xff)])), Some(Fault::PayloadTooLong(0xff44)));
    // What PadC says is nobody's business yet.
    assert_eq!(done(&caller_with(&[(HEAD + 14, 0xff)])).payload, PAYLOAD);
    // req1 and req2.
    assert!(caller_with(&[(0, 1)]).end.is_none(), "still looking");
    assert_eq!(fault(&caller_with(&[(20, 1)])), Some(Fault::UnknownTorrent));

    assert_eq!(done(&called_with(Offer::BOTH, &[])).choice, Choice::Plain);
    assert_eq!(done(&called_with(Offer::BOTH, &[(11, 3)])).choice, Choice::Rc4);
    for (offer, flips, chosen) in [
        (Offer::BOTH, &[(11, 1)][..], 0),
        (Offer::BOTH, &[(11, 2)], 3),
        (Offer::BOTH, &[(11, 5)], 4),
        (Offer::BOTH, &[(8, 0x80)], 0x8000_0001),
        (Offer::RC4, &[(11, 3)], 1),
        (Offer::PLAIN, &[(11, 3)], 2),
    ] {
        assert_eq!(fault(&called_with(offer, flips)), Some(Fault::WrongChoice { chosen }));
    }
    assert_eq!(fault(&called_with(Offer::BOTH, &[(12, 2), (13, 2)])), Some(Fault::PadTooLong(513)));
    assert!(called_with(Offer::BOTH, &[(7, 1)]).end.is_none(), "still looking");
}

#[test]
fn a_flood_of_garbage_ends_where_the_longest_pad_does() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for chunk in [1, 7, 1024] {
        let mut garbage = [0; 1024];
        rng.fill_bytes(&mut garbage);
        garbage[0] &= 0x7f;
        let (mut a, mut b) = ends(Offer::BOTH, Offer::BOTH, Choice::Rc4, [0, 0], [0, 0]);
        a.hear_all(&garbage[..KEY_BYTES + MAX_PAD + 7], chunk);
        b.hear_all(&garbage[..KEY_BYTES + MAX_PAD + 19], chunk);
        assert!(a.end.is_none() && b.end.is_none());
        a.hear(&[0]);
        b.hear(&[0]);
        assert_eq!((fault(&a), fault(&b)), (Some(Fault::NoSync), Some(Fault::NoSync)));
        a.check();
        b.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Both ends with dice of their own, bytes cut anywhere, sums that take their time, and streams in both
    /// directions.
    #[test]
    fn what_is_said_is_heard(
        seed: u64,
        policy in (1_u8..4, 1_u8..4, any::<bool>()).prop_filter("something in common", |(a, b, _)| a & b != 0),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        says: (Vec<u8>, Vec<u8>),
        lateness in 0_u32..4,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let offer = |bits: u8| Offer { plain: bits & 1 != 0, rc4: bits & 2 != 0 };
        let prefer = if policy.2 { Choice::Plain } else { Choice::Rc4 };
        let (machine, sum) = Initiator::begin(&mut rng, SKEY, offer(policy.0), &payload);
        let mut a = Actor::new(machine);
        let mut b = Actor::new(Responder::new(&mut rng, offer(policy.1), prefer));
        a.sum = Some(sum);
        (a.late, b.late) = (true, true);
        (a.says, b.says) = (says.0.clone(), says.1.clone());
        let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            to_b.extend(a.take_out());
            to_a.extend(b.take_out());
            let mut part = |bytes: &mut Vec<u8>| {
                let most = rng.next_u32() as usize % 80;
                bytes.drain(..most.min(bytes.len())).collect::<Vec<_>>()
            };
            b.hear(&part(&mut to_b));
            a.hear(&part(&mut to_a));
            if rng.next_u32() % 4 >= lateness { a.settle(); }
            if rng.next_u32() % 4 >= lateness { b.settle(); }
        }
        prop_assert_eq!(done(&a).choice, done(&b).choice);
        prop_assert_eq!(&a.heard, &says.1);
        prop_assert_eq!(&b.heard, &[payload, says.0].concat());
    }
}
