//! The parts by themselves, against published numbers; what both ends do together is in `tests/mse.rs`.

use std::hint::black_box;

use super::parts::{self, Field, Search};
use super::sum::{PeerKey, Private};
use super::*;

/// A session that Transmission recorded: the torrent, the key both ends have, and what comes of it.
const SKEY: &str = "2c6b6858d61da9543d4231a71db4b1c9264b0685";
const PRIVATE: &str = "d0460a0b00564380e0f645f7739c718d5b410cac";
const PUBLIC: &str = "b2f93248815c0acac34de1e33ede75e9415bb2847ee6f7db7b9fe6eacb44eeee492d9d74909d7d3663fae04d74a889e7\
                      efcb02ac9823c35c841c7c2bcce70a891958bdc328b7324c7be4a3ac55276b0dca05f9f66dc2818716ffb1f33d27b9c9";
const SECRET: &str = "218f45c4e425dc91b8a74df5fe4f778417892363bb2dfdb3979165247839293d75ee32ada87153f15855fb4512c62919\
                      1bb40be2935c3759cb601d1b4cb555db457c3c391b053846466ddf8715042d3ae620f33900803a7126a2a031596b6da5";
const OTHER: &str = "49f828abf9eb41f0f82308ab7e4fae84e99030e0bf4302bfbd888e69cb75345f53a565e6b3772f94a10ac6cd155269e6\
                     cad461f5b8782dcb356ecc250ba474e57ac91b32e166a02a70b514011d554cb039a0a4a3475d37f3315b86773bd63aa5";

fn hex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
}

/// A key below or above 0 or the prime; written as how far from it.
fn key(of_prime: bool, step: i8) -> [u8; KEY_BYTES] {
    let prime = "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd\
                 ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563";
    let mut key = if of_prime { hex(prime) } else { [0; KEY_BYTES] };
    key[KEY_BYTES - 1] = key[KEY_BYTES - 1].wrapping_add_signed(step);
    key
}

/// Dice that roll the recorded private key.
struct Recorded;

impl rand_core::TryRng for Recorded {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        into.copy_from_slice(&hex::<20>(PRIVATE));
        Ok(())
    }
}

#[test]
fn keys_and_secret_of_a_recorded_session() {
    let private = Private::draw(&mut Recorded);
    assert_eq!(Sum::own(private).run().own, Some(hex(PUBLIC)));
    let peer = PeerKey::read(&hex(PUBLIC)).expect("a good key");
    let secret = Sum::secret(private, peer).run();
    assert_eq!((secret.own, secret.secret), (None, Some(hex(SECRET))));
    let both = Sum::both(private, peer).run();
    assert_eq!((both.own, both.secret), (Some(hex(PUBLIC)), Some(hex(SECRET))));
}

#[test]
fn hashes_and_ciphers_of_a_recorded_session() {
    let (secret, skey) = (hex(SECRET), InfoHash(hex(SKEY)));
    assert_eq!(parts::hash(&[b"keyA", &secret, &skey.0]), hex("88f435144042cf35c9623716319f7b64e9436362"));
    assert_eq!(parts::hash(&[b"keyB", &secret, &skey.0]), hex("50b379cf149293f6bb517b7d9c6d88f90bf5855a"));
    assert_eq!(parts::req1(&secret), hex("a76be23201678c457cee31362455ec69766b34d2"));
    let masked = parts::mask(req2(skey), &secret);
    assert_eq!(masked.0, hex("b9316ebb4e8d5355b244f89fd35f0961e546c2b4"));
    assert_eq!(parts::mask(masked, &secret), req2(skey));
    assert_eq!(marks(&secret, skey), (hex("cfb2d10fbb757996"), hex("bed11ca92d44f877")));

    // A peer that was dialed with the same key.
    let peer = PeerKey::read(&hex(OTHER)).expect("a good key");
    let secret = Sum::secret(Private::draw(&mut Recorded), peer).run().secret.expect("asked for");
    assert_eq!(parts::req1(&secret), hex("99ba59141c1d8b8535b2756f6e8377b0c1293665"));
    assert_eq!(marks(&secret, skey).1, hex("5adb75923443f143"));
}

/// What VC looks like in both directions.
fn marks(secret: &[u8; KEY_BYTES], skey: InfoHash) -> ([u8; 8], [u8; 8]) {
    let (mut from_a, mut from_b) = parts::ciphers(secret, skey);
    let mut marks = (VC, VC);
    from_a.apply(&mut marks.0);
    from_b.apply(&mut marks.1);
    marks
}

#[test]
fn rc4_behind_what_is_dropped() {
    // RFC 6229, offset 1024 of each.
    for (len, stream) in [
        (5, "30abbcc7c20b01609f23ee2d5f6bb7df"),
        (16, "bdf0324e6083dcc6d3cedd3ca8c53c16"),
        (32, "7fec5bfd9f9b89ce6548309092d7e958"),
    ] {
        let key: Vec<u8> = (1..=len).collect();
        let mut bytes = [0; 16];
        Rc4::new(&key).apply(&mut bytes);
        assert_eq!(bytes, hex(stream), "{len}");
    }
}

#[test]
fn rc4_is_the_same_however_it_is_cut() {
    // Straight from the definition, a byte at a time.
    let key = b"a key";
    let mut s: Vec<usize> = (0..256).collect();
    let mut j = 0;
    for i in 0..256 {
        j = (j + s[i] + usize::from(key[i % key.len()])) % 256;
        s.swap(i, j);
    }
    let (mut i, mut j) = (0, 0);
    let mut stream = vec![0; 1024 + 100_000];
    for byte in &mut stream {
        i = (i + 1) % 256;
        j = (j + s[i]) % 256;
        s.swap(i, j);
        *byte = s[(s[i] + s[j]) % 256] as u8;
    }
    let stream = &stream[1024..];
    for cut in [1, 2, 7, 8, 9, 15, 16, 255, 16384, 100_000] {
        let (mut cipher, mut skipping) = (Rc4::new(key), Rc4::new(key));
        for (turn, part) in stream.chunks(cut).enumerate() {
            let mut bytes = vec![0x33; part.len()];
            cipher.apply(&mut bytes);
            assert!(bytes.iter().zip(part).all(|(byte, stream)| byte ^ 0x33 == *stream), "{cut}");
            if turn % 2 == 0 {
                skipping.skip(part.len());
            } else {
                bytes.fill(0);
                skipping.apply(&mut bytes);
                assert_eq!(bytes, part);
            }
        }
    }
}

#[test]
fn keys_that_fix_the_secret_are_refused() {
    let good = |of_prime, step| PeerKey::read(&key(of_prime, step)).is_ok();
    assert_eq!([0, 1, 2, 3].map(|step| good(false, step)), [false, false, true, true]);
    assert_eq!([-3, -2, -1, 0, 1, 2].map(|step| good(true, step)), [true, true, false, false, false, false]);
    assert!(PeerKey::read(&[0xff; KEY_BYTES]).is_err());
}

#[test]
fn a_mark_is_found_behind_any_pad_and_no_longer_one() {
    let mark = *b"8 bytes.";
    for before in [0, 1, 100, MAX_PAD] {
        for pad in [0, 1, 7, 8, 300, MAX_PAD, MAX_PAD + 1] {
            let mut search = Search::new(mark, before.min(pad));
            let bytes = [&vec![b'8'; pad - before.min(pad)][..], &mark, b"rest"].concat();
            let mut rest = &bytes[..];
            let found = search.find(&mut rest);
            if pad <= MAX_PAD {
                assert_eq!((found, rest), (Ok(true), &b"rest"[..]), "{before} {pad}");
            } else {
                assert_eq!(found, Err(Fault::NoSync));
            }
        }
    }
}

#[test]
fn a_mark_is_found_only_once_all_of_it_came() {
    let mut search = Search::new([0; 8], 0);
    assert_eq!(search.find(&mut &[0; 7][..]), Ok(false));
    assert_eq!(search.find(&mut &[0][..]), Ok(true));
}

#[test]
fn a_field_is_whole_when_its_last_byte_came() {
    let mut field = Field::EMPTY;
    let mut from = &b"abc"[..];
    assert_eq!(field.fill::<4>(&mut from), None);
    assert!(from.is_empty());
    from = b"defghi";
    assert_eq!(field.fill::<4>(&mut from), Some(*b"abcd"));
    assert_eq!(field.fill::<2>(&mut from), Some(*b"ef"));
    assert_eq!(from, b"ghi");
}

#[test]
fn a_machine_is_small() {
    // Beside what its vectors hold: pads, payload and what goes out, each bounded by what the protocol allows.
    assert_eq!(size_of::<Ciphers>(), 516);
    assert!(size_of::<Initiator>() <= 400, "{}", size_of::<Initiator>());
    assert!(size_of::<Responder>() <= 450, "{}", size_of::<Responder>());
}

#[test]
fn a_connection_that_is_none_of_ours_is_told_by_its_first_bytes() {
    let plain = b"\x13BitTorrent protocol and more";
    for len in 0..plain.len() {
        let verdict = if len < 20 { Verdict::More } else { Verdict::Plain };
        assert_eq!(may_be_mse(&plain[..len]), verdict, "{len}");
    }
    for at in 0..20 {
        let mut other = *plain;
        other[at] ^= 1;
        assert_eq!(may_be_mse(&other), Verdict::Mse, "{at}");
        assert_eq!(may_be_mse(&other[..at]), Verdict::More);
    }
}

/// What it costs: `cargo nextest run --release -p piecemeal-transport --run-ignored only --no-capture`.
#[test]
#[ignore = "measures, and judges nothing"]
#[expect(clippy::disallowed_types, reason = "a clock is what measuring takes")]
fn what_it_costs() {
    let micros = |rounds: usize, run: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        (0..rounds).for_each(|_| run());
        start.elapsed().as_secs_f64() * 1e6 / rounds as f64
    };
    let mut cipher = Rc4::new(b"a key of 20 bytes...");
    for len in [16, 1448, 16384] {
        let mut bytes = vec![0; len];
        let each = micros((1 << 28) / len, &mut || cipher.apply(black_box(&mut bytes)));
        println!("RC4 in pieces of {len}: {:.0} MB/s", len as f64 / each);
    }
    let (private, peer) = (Private::draw(&mut Recorded), PeerKey::read(&hex(PUBLIC)).expect("a good key"));
    let mut one = || _ = black_box(Sum::own(black_box(private)).run());
    println!("a sum of one: {:.1} us", micros(2000, &mut one));
    let mut two = || _ = black_box(Sum::both(black_box(private), peer).run());
    println!("a sum of two: {:.1} us", micros(2000, &mut two));
    let mut key = || _ = black_box(Rc4::new(black_box(b"a key of 20 bytes...")));
    println!("a cipher: {:.2} us", micros(20_000, &mut key));
}
