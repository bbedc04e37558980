use super::*;
use proptest::prelude::*;

fn ok(input: &[u8]) -> Tape<'_> {
    decode(input, Limits::TORRENT).unwrap_or_else(|why| panic!("{}: {why}", input.escape_ascii()))
}

#[test]
fn accepts() {
    let table: &[&[u8]] = &[
        b"i64e",
        b"i-3e",
        b"i0e",
        b"0:",
        b"le",
        b"llleee",
        b"d3:cow3:moo4:spam4:eggse",
        b"de",
        b"d5:greenli1ei2ei3ee4:spamd1:ai123e3:keyi214eee",
        b"d3:a\0bi1ee",
        b"i9223372036854775807e",
        b"i-9223372036854775807e",
        b"i-9223372036854775808e",
    ];
    for input in table {
        let tape = ok(input);
        assert!(tape.flags().canonical(), "{}", input.escape_ascii());
        assert_eq!(Bencode::from(tape.root()).encode(), *input);
    }
    assert_eq!(ok(b"d3:a\0bi1ee").root().get_int(b"a\0b"), Some(1));
    assert_eq!(ok(b"i-9223372036854775808e").root().as_int(), Some(i64::MIN));
}

#[test]
fn rejects() {
    let table: &[&[u8]] = &[
        b"",
        b"`",
        b"e",
        b"i",
        b"ie",
        b"i-",
        b"i-e",
        b"i10",
        b"i6z4e",
        b"i35412-5633e",
        b"i92337203t854775807e",
        b"i184467440737095516154e",
        b"-10:foobar",
        b"1:",
        b"l2:..",
        b"l2:..0",
        b"d1000",
        b"d1000:..e",
        b"df00:",
        b"di5e1:ae",
        b"d1:ai1e1:be",
        b"d20:",
        b"lllee",
        b"l1:a1:b1:c",
        b"18446744073709551615:foobar",
        b"99999999:foobar",
        b"d1:a1919191010:11111",
        b"d2143289344:a4:aaaae",
        b"d9205357638345293824:a4:aaaae",
        b"leee",
        b"i18446744073709551615e",
        b"i18446744073709551617e",
        b"i9223372036854775808e",
        b"18446744073709551617:a",
        b"i+5e",
        b"i5",
        b"i 5e",
        b"d1:ae",
        b"lle",
        b"dle1:ae",
        b"5",
        b"i--5e",
        b"i-9223372036854775809e",
        b"00000000000000000000000000000000000000000000000000000000009:a",
        b"d14:failure reason119:The tracker was unable to process your request, please try again.e",
    ];
    for input in table {
        assert!(decode(input, Limits::TORRENT).is_err(), "{}", input.escape_ascii());
    }
}

#[test]
fn odd_but_common_is_flagged() {
    for input in [&b"i01e"[..], b"i04e", b"i-03e", b"i-0e", b"06:foobar", b"d01:ai1ee"] {
        let flags = ok(input).flags();
        assert!(flags.odd_ints && !flags.unsorted_keys && !flags.duplicate_keys, "{}", input.escape_ascii());
    }
    assert_eq!(ok(b"i-03e").root().as_int(), Some(-3));
    assert_eq!(ok(b"06:foobar").root().as_bytes(), Some(&b"foobar"[..]));
    let flags = ok(b"d2:bai1e2:aai2ee").flags();
    assert!(flags.unsorted_keys && !flags.duplicate_keys && !flags.odd_ints);
    for input in [&b"d2:aai1e1:ai2e2:aai3ee"[..], b"d1:bi0e1:ai1e1:bi2ee"] {
        let flags = ok(input).flags();
        assert!(flags.unsorted_keys && flags.duplicate_keys, "{}", input.escape_ascii());
    }
    let flags = ok(b"d2:aai1e1:ai2ee").flags();
    assert!(flags.unsorted_keys && !flags.duplicate_keys);
    let tape = ok(b"d2:aai1e2:aai2ee");
    assert!(tape.flags().duplicate_keys && !tape.flags().unsorted_keys);
    assert_eq!(tape.root().duplicate_key(), Some(&b"aa"[..]));
    assert_eq!(tape.root().get_int(b"aa"), Some(1));
}

#[test]
fn a_prefix_says_how_much_it_took() {
    let (tape, used) = decode_prefix(b"d8:msg_typei1eerest", Limits::PEER_EXTENSION).unwrap();
    assert_eq!((used, tape.input()), (15, &b"d8:msg_typei1ee"[..]));
    assert_eq!(decode_prefix(b"leee", Limits::DHT).unwrap().1, 2);
    assert_eq!(decode(b"leee", Limits::DHT).unwrap_err(), BencodeError::Trailing(2));
}

#[test]
fn keys_are_sorted_when_encoded_again() {
    let tape = ok(b"lld1:bi32e1:ai64eeee");
    assert_eq!(Bencode::from(tape.root()).encode(), b"lld1:ai64e1:bi32eeee");
}

#[test]
fn walks_siblings_over_subtrees() {
    let tape = ok(b"d1:ald1:xi1eel2:yyee1:bi7e1:c0:e");
    let root = tape.root();
    let keys: Vec<_> = root.as_dict().unwrap().map(|(key, value)| (key, value.raw())).collect();
    assert_eq!(keys, [(&b"a"[..], &b"ld1:xi1eel2:yyee"[..]), (b"b", b"i7e"), (b"c", b"0:")]);
    let items: Vec<_> = root.get(b"a").unwrap().as_list().unwrap().map(|item| item.raw()).collect();
    assert_eq!(items, [&b"d1:xi1ee"[..], b"l2:yye"]);
    assert_eq!(root.get_str(b"c"), Some(""));
    assert_eq!(root.as_int(), None);
    assert_eq!(root.get(b"b").unwrap().as_dict().map(|_| ()), None);
}

#[test]
fn depth_is_bounded_without_recursion() {
    let nest = |n: usize| [vec![b'l'; n], vec![b'e'; n]].concat();
    ok(&nest(100));
    assert_eq!(decode(&nest(101), Limits::TORRENT).unwrap_err(), BencodeError::TooDeep(100));
    let generous = Limits { depth: usize::MAX, ..Limits::TORRENT };
    assert_eq!(decode(&nest(101), generous).unwrap_err(), BencodeError::TooDeep(100));
    for bomb in [vec![b'l'; 1_000_000], b"d1:a".repeat(1_000_000)] {
        assert!(matches!(decode(&bomb, Limits::TORRENT), Err(BencodeError::TooDeep(_))));
    }
}

#[test]
fn budgets_hold() {
    let many = [b"l".to_vec(), b"le".repeat(499), b"e".to_vec()].concat();
    assert!(decode(&many, Limits::DHT).is_ok());
    let more = [b"l".to_vec(), b"le".repeat(500), b"e".to_vec()].concat();
    assert_eq!(decode(&more, Limits::DHT).unwrap_err(), BencodeError::TooManyTokens(999));
    let big = [b"1497:".to_vec(), vec![0; 1497]].concat();
    assert_eq!(decode(&big, Limits::DHT).unwrap_err(), BencodeError::TooManyBytes(1502));
    assert!(decode_prefix(&big, Limits::DHT).is_err());
}

#[test]
fn a_million_equal_keys_are_found_quickly() {
    // Quadratic work would be 10^12 comparisons and never end.
    let equal = [b"d".to_vec(), b"1:a0:".repeat(1_000_000), b"e".to_vec()].concat();
    assert!(ok(&equal).flags().duplicate_keys);
    let unsorted = [b"d1:b0:".to_vec(), b"1:a0:1:b0:".repeat(500_000), b"e".to_vec()].concat();
    assert!(ok(&unsorted).flags().duplicate_keys);
}

#[test]
fn the_writer_is_canonical() {
    let mut out = Vec::new();
    let mut e = Encoder::new(&mut out);
    e.begin_dict().pair_bytes(b"", b"x").key(b"a").begin_list().int(-1).str("é").raw(b"le").end();
    e.pair_int(b"b", i64::MIN).key(b"c").begin_dict().pair_int(b"a", 0).end().pair_int(&[b'd'; 10], 1).end();
    let tape = ok(&out);
    assert!(tape.flags().canonical());
    assert_eq!(Bencode::from(tape.root()).encode(), out);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "keys out of order")]
fn the_writer_insists_on_order() {
    let mut out = Vec::new();
    Encoder::new(&mut out).begin_dict().pair_int(b"b", 0).pair_int(b"a", 0);
}

fn tree() -> impl Strategy<Value = Bencode> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Bencode::Int),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bencode::Bytes)
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        let key = proptest::collection::vec(any::<u8>(), 0..5);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Bencode::List),
            proptest::collection::btree_map(key, inner, 0..8).prop_map(Bencode::Dict)
        ]
    })
}

proptest! {
    #[test]
    fn round_trip(value in tree()) {
        let bytes = value.encode();
        let tape = decode(&bytes, Limits::TORRENT).unwrap();
        prop_assert!(tape.flags().canonical());
        prop_assert_eq!(Bencode::from(tape.root()), value);
    }

    #[test]
    fn every_cut_is_too_early(value in tree(), cut in any::<proptest::sample::Index>()) {
        let bytes = value.encode();
        let cut = cut.index(bytes.len());
        prop_assert!(decode(&bytes[..cut], Limits::TORRENT).is_err());
    }

    #[test]
    fn soup_never_panics(input in proptest::collection::vec(
        proptest::sample::select(&b"0123456789:ildeilde-ab"[..]), 0..200)) {
        if let Ok((tape, used)) = decode_prefix(&input, Limits::TORRENT) {
            let again = Bencode::from(tape.root()).encode();
            prop_assert!(!tape.flags().canonical() || again == input[..used]);
            prop_assert!(again.len() <= used);
        }
    }
}
