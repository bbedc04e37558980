//! The forms of lists, hostile lines, any split, a naive model, and a million ranges.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::line::{Line, read};
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn build(text: &[u8]) -> (IpFilter, Report) {
    let mut builder = Builder::new();
    builder.push(text).unwrap();
    builder.finish().unwrap()
}

fn blocked(line: &[u8]) -> String {
    match read(line) {
        Line::Blocked(range) => range.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn lines_of_each_form() {
    let table: &[(&[u8], &str)] = &[
        // P2P
        (b"name:1.2.3.4-1.2.3.8", "1.2.3.4-1.2.3.8"),
        (b"Evil, Inc. (a-b: c):1.2.3.4-1.2.3.4\r", "1.2.3.4"),
        (b"caf\xe9 \xff:001.002.003.000-001.002.003.255", "1.2.3.0/24"),
        (b":1.2.3.4-1.2.3.8", "1.2.3.4-1.2.3.8"),
        (b"a # b; c // d:0.0.0.0-255.255.255.255", "0.0.0.0/0"),
        (b"name: 1.2.3.4 - 1.2.3.8 ", "1.2.3.4-1.2.3.8"),
        (b"name:2001:db8::1-2001:db8::8", "2001:db8::1-2001:db8::8"),
        (b"beef:cafe:2001:db8::1-2001:db8::8", "2001:db8::1-2001:db8::8"),
        (b"a:::-::ffff", "::/112"),
        (b"a:::ffff:1.2.3.4-::ffff:1.2.3.5", "1.2.3.4/31"),
        (
            b"a:1111:2222:3333:4444:5555:6666:7777:0-1111:2222:3333:4444:5555:6666:7777:1",
            "1111:2222:3333:4444:5555:6666:7777:0/127",
        ),
        // DAT
        (b"001.002.003.004 - 001.002.003.255 , 100 , name, or not", "1.2.3.4-1.2.3.255"),
        (b"010.000.000.000-010.255.255.255,000,ten", "10.0.0.0/8"),
        (b"1.2.3.4 - 1.2.3.5 , 127 , x", "1.2.3.4/31"),
        (b"1.2.3.4 - 1.2.3.5 , 128 , x", "Allowed"),
        (b"1.2.3.4 - 1.2.3.5,99999999999", "Allowed"),
        (b"1.2.3.4 - 1.2.3.5 , , x", "1.2.3.4/31"),
        (b"1.2.3.4 - 1.2.3.5 , high , x", "1.2.3.4/31"),
        (b"1.2.3.4 - 1.2.3.5", "1.2.3.4/31"),
        (b"2001:db8::1 - 2001:db8::8 , 1 , six", "2001:db8::1-2001:db8::8"),
        // CIDR
        (b"1.2.3.0/24", "1.2.3.0/24"),
        (b" 1.2.3.77/24\t", "1.2.3.0/24"),
        (b"1.2.3.4/32", "1.2.3.4"),
        (b"0.0.0.0/0", "0.0.0.0/0"),
        (b"1.2.3.4", "1.2.3.4"),
        (b"1.2.3.0/24 ; SBL1", "1.2.3.0/24"),
        (b"1.2.3.0/24 # why", "1.2.3.0/24"),
        (b"1.2.3.0/24 // why", "1.2.3.0/24"),
        (b"1.2.3.4 // why", "1.2.3.4"),
        (b"2001:db8::/32", "2001:db8::/32"),
        (b"::1", "::1"),
        (b"::/0", "::/0"),
        (b"::ffff:0:0/96", "0.0.0.0/0"),
        (b"::ffff:1.2.3.4", "1.2.3.4"),
        // Comments
        (b"", "Nothing"),
        (b" \t\r", "Nothing"),
        (b"# 1.2.3.4", "Nothing"),
        (b";1.2.3.4", "Nothing"),
        (b"  // 1.2.3.4", "Nothing"),
    ];
    for (line, expected) in table {
        assert_eq!(blocked(line), *expected, "{}", line.escape_ascii());
    }
}

#[test]
fn lines_of_none() {
    let table: &[&[u8]] = &[
        b"name",
        b"name:1.2.3.8-1.2.3.4",
        b"name:1.2.3.4",
        b"name:1.2.3.4-",
        b"name:-1.2.3.4",
        b"-",
        b":",
        b"/",
        b",",
        b"1.2.3",
        b"1.2.3.4.5",
        b"1.2.3.256",
        b"1.2.3.0004",
        b"1.2.3.-4",
        b"1.2.3.+4",
        b"1.2.3.4/33",
        b"1.2.3.4/",
        b"1.2.3.4/4294967328",
        b"1.2.3.4/-1",
        b"1.2.3.4/24/24",
        b"1.2.3.4/24-1.2.3.5",
        b"::/129",
        b"1.2.3.4-::5",
        b"name:::1-1.2.3.4",
        b"fe80::1%eth0",
        b"[::1]",
        b"\x1f\x8b\x08\0\0\0\0\0",
        b"<!DOCTYPE html>",
        b"\xff\xfe1\0.\x002\0",
    ];
    for line in table {
        assert_eq!(read(line), Line::Bad, "{}", line.escape_ascii());
    }
}

#[test]
fn a_mixed_list() {
    let text = b"\xef\xbb\xbf1.0.0.0/8\r\n\
        # c\r\n\
        \r\n\
        a:2.0.0.0-2.0.0.255\r\n\
        002.000.001.000 - 002.000.001.255 , 10 , b\n\
        rub\x1bbish\n\
        3.0.0.0 - 3.0.0.1 , 200 , c\n\
        more rubbish\n\
        six:2001:db8::-2001:db8::ff\n\
        ::ffff:9.9.9.9";
    let (filter, report) = build(text);
    let shown: Vec<_> = filter.ranges().map(|range| range.to_string()).collect();
    assert_eq!(shown, ["1.0.0.0-2.0.1.255", "9.9.9.9", "2001:db8::/120"]);
    let expected = Report {
        lines: 10,
        ranges: 3,
        merged: 2,
        allowed: 1,
        skipped_lines: 2,
        first_bad: Some((6, "rub bish".to_owned())),
        peak_bytes: report.peak_bytes,
    };
    assert_eq!(report, expected);
    for inside in ["1.0.0.0", "1.255.255.255", "2.0.1.7", "::ffff:2.0.1.7", "9.9.9.9", "2001:db8::80"] {
        assert!(filter.blocks(ip(inside)), "{inside}");
    }
    for outside in
        ["0.255.255.255", "2.0.2.0", "3.0.0.0", "::ffff:3.0.0.0", "2001:db8::100", "::1", "::909:909"]
    {
        assert!(!filter.blocks(ip(outside)), "{outside}");
    }
}

#[test]
fn the_ends_of_both_worlds() {
    let (filter, report) = build(b"0.0.0.0\n255.255.255.255\n::\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n");
    assert_eq!((filter.len(), report.merged), (4, 0));
    for end in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
        assert!(filter.blocks(ip(end)));
    }
    assert!(!filter.blocks(ip("0.0.0.1")) && !filter.blocks(ip("::1")));
    let (all, report) = build(b"128.0.0.0/1\n255.255.255.255\n0.0.0.0/1\n::/0\n::/0\n");
    assert_eq!((all.len(), report.merged), (2, 3));
    assert!(all.blocks(ip("127.255.255.255")) && all.blocks(ip("::ffff:1.2.3.4")));
    assert!(!build(b"::/0").0.blocks(ip("::ffff:1.2.3.4")), "IPv4 is judged as IPv4");
    assert!(!IpFilter::default().blocks(ip("0.0.0.0")) && IpFilter::default().is_empty());
}

#[test]
fn long_lines_are_skipped_at_no_cost() {
    let mut builder = Builder::new();
    builder.push(b"1.1.1.1\n").unwrap();
    (0..10_000).for_each(|_| builder.push(&[b'x'; 999]).unwrap());
    builder.push(b":1.2.3.4-1.2.3.5\n2.2.2.2\n").unwrap();
    let (filter, report) = builder.finish().unwrap();
    assert_eq!((filter.len(), report.skipped_lines), (2, 1));
    assert_eq!(report.first_bad, Some((2, "x".repeat(80))));
    let end = b":1.2.3.4-1.2.3.5";
    for (name, ranges) in [(MAX_LINE_BYTES - end.len(), 1), (MAX_LINE_BYTES - end.len() + 1, 0)] {
        for mark in [&b""[..], b"\xef\xbb\xbf"] {
            let name = vec![b'n'; name - mark.len()];
            let line = [mark, &name, end, b"\n"].concat();
            assert_eq!(build(&line).0.len(), ranges);
            let mut split = Builder::new();
            line.chunks(7).for_each(|part| split.push(part).unwrap());
            assert_eq!(split.finish().unwrap(), build(&line));
        }
    }
}

#[test]
fn lists_one_after_another() {
    let mut builder = Builder::new();
    builder.push(b"1.1.1.1\n1.1.1.2").unwrap();
    builder.end_list().unwrap();
    builder.push(b"\xef\xbb\xbf1.1.1.3\nrubbish\n").unwrap();
    builder.end_list().unwrap();
    builder.block(ip("1.1.1.9").into()).unwrap();
    let (filter, report) = builder.finish().unwrap();
    assert_eq!((filter.len(), report.lines, report.merged), (2, 4, 2));
    assert_eq!(report.first_bad, Some((2, "rubbish".to_owned())));
}

#[test]
fn ranges_there_and_back() {
    for text in ["1.2.3.4", "1.2.3.4-1.2.3.6", "1.2.3.0/24", "0.0.0.0/0", "::/0", "2001:db8::1-2001:db8::4"] {
        assert_eq!(text.parse::<IpRange>().unwrap().to_string(), text);
    }
    for text in ["", "x", "1.2.3.4-1.2.3.3", "1.2.3.4,5", "name:1.2.3.4-1.2.3.5"] {
        assert_eq!(text.parse::<IpRange>(), Err(NoRange), "{text}");
    }
    assert_eq!(IpRange::new(ip("::ffff:1.2.3.4"), ip("1.2.3.4")), Some(ip("1.2.3.4").into()));
    assert_eq!(IpRange::new(ip("1.2.3.4"), ip("::1")), None);
}

/// Where range number `at` of a million stands: they come in no order at all, 2048 addresses apart.
fn scattered(at: u32) -> u32 {
    (at.wrapping_mul(1_664_525) % (1 << 20)) * 2_048 + 5
}

#[test]
fn a_million_ranges() {
    const COUNT: u32 = 1_000_000;
    let mut builder = Builder::new();
    let mut most = 0;
    let mut text = String::new();
    for at in 0..COUNT {
        let first = Ipv4Addr::from_bits(scattered(at));
        let last = Ipv4Addr::from_bits(scattered(at) + at % 1_000);
        text.clear();
        text += &format!("Somebody, {at}:{first}-{last}\n");
        builder.push(text.as_bytes()).unwrap();
        most = most.max(builder.memory_bytes());
    }
    let (filter, report) = builder.finish().unwrap();
    assert_eq!((filter.len(), report.merged, report.skipped_lines), (COUNT as usize, 0, 0));
    assert!(filter.memory_bytes() < COUNT as usize * 9, "{}", filter.memory_bytes());
    assert!(most <= 12 << 20 && report.peak_bytes < 24 << 20, "{most} {}", report.peak_bytes);
    for at in 0..COUNT {
        let (first, last) = (scattered(at), scattered(at) + at % 1_000);
        let blocks = |at: u32| filter.blocks(Ipv4Addr::from_bits(at).into());
        assert!(blocks(first) && blocks(last) && blocks(first + (last - first) / 2));
        assert!(!blocks(first - 1) && !blocks(last + 1));
    }
}

#[test]
fn too_many_ranges_are_refused() {
    let mut builder = Builder::new();
    let ranges =
        |count: u32| (0..count).rev().map(|at| IpAddr::from(Ipv6Addr::from_bits(u128::from(at) * 2)).into());
    let most = MAX_RANGES_V6 as u32;
    ranges(most).try_for_each(|range| builder.block(range)).unwrap();
    ranges(most / 4 + 1).try_for_each(|range| builder.block(range)).unwrap();
    let mut more = ranges(most * 2);
    let fault = more.try_for_each(|range| builder.block(range)).unwrap_err();
    assert_eq!(fault.to_string(), "the IP filter has more than 1000000 ranges of IPv6");
    assert!(builder.memory_bytes() <= (MAX_RANGES_V6 * 5 / 4 + 1) * 32);
    let mut builder = Builder::new();
    ranges(most + 1).try_for_each(|range| builder.block(range)).unwrap();
    assert!(builder.finish().is_err());
}

/// A world of few addresses, at both ends of the number line and around the middle, so that ranges meet.
fn place() -> impl Strategy<Value = u8> {
    0..24_u8
}

fn v4(place: u8) -> IpAddr {
    let base = [0, 0x7fff_fffc, u32::MAX - 7][usize::from(place / 8)];
    Ipv4Addr::from_bits(base + u32::from(place % 8)).into()
}

fn v6(place: u8) -> IpAddr {
    // The middle lies where the first half of the number ends, and far from the IPv4 addresses.
    let base = [0, u128::from(u64::MAX) - 3, u128::MAX - 7][usize::from(place / 8)];
    Ipv6Addr::from_bits(base + u128::from(place % 8)).into()
}

/// The line of a range in one of the forms.
fn written(first: IpAddr, last: IpAddr, form: u8) -> String {
    match form {
        // What a name before IPv6 means is not always clear.
        0 if first.is_ipv4() => format!("so: and - so:{first}-{last}\r\n"),
        1 => format!("{first} - {last} , 100 , so\n"),
        2 => format!("{first}-{last} # so\n"),
        _ => format!("# so\n\nso\n{first} - {last},128\n{first}-{last}\n"),
    }
}

proptest! {
    #[test]
    fn as_a_naive_model_has_it(
        ranges in prop::collection::vec((place(), place(), any::<bool>(), 0..4_u8), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut text = String::new();
        let mut model = Vec::new();
        for (a, b, six, form) in ranges {
            let world = if six { v6 } else { v4 };
            let (first, last) = (world(a.min(b)), world(a.max(b)));
            text += &written(first, last, form);
            model.push((first, last));
        }
        let (filter, report) = build(text.as_bytes());
        for place in 0..24 {
            for ip in [v4(place), v6(place)] {
                let inside = model.iter().any(|(first, last)| {
                    first.is_ipv4() == ip.is_ipv4() && *first <= ip && ip <= *last
                });
                prop_assert_eq!(filter.blocks(ip), inside, "{}", ip);
            }
        }
        prop_assert_eq!(report.merged as usize + report.ranges, model.len());
        let ranges: Vec<IpRange> = filter.ranges().collect();
        // IPv4 comes before IPv6 in the order of addresses too.
        let in_order = ranges.windows(2).all(|two| two[0].last() < two[1].first());
        prop_assert!(in_order);
        // The same in parts, and from its own ranges.
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut builder = Builder::new();
        cuts.windows(2).for_each(|two| builder.push(&text.as_bytes()[two[0]..two[1]]).unwrap());
        prop_assert_eq!(builder.finish().unwrap(), (filter.clone(), report));
        prop_assert_eq!(ranges.into_iter().collect::<IpFilter>(), filter);
    }

    #[test]
    fn any_bytes_in_any_parts(lines in prop::collection::vec("[0-9a-f:.,/ #;x-]{0,40}|\\PC{0,20}", 0..20), size in 1..50_usize) {
        let text = lines.join("\n");
        let (filter, report) = build(text.as_bytes());
        let mut builder = Builder::new();
        text.as_bytes().chunks(size).for_each(|part| builder.push(part).unwrap());
        prop_assert_eq!(builder.finish().unwrap(), (filter, report));
    }

    #[test]
    fn a_range_comes_back(first: u128, len: u32, shift in 0..128_u32, four: bool) {
        let range = if four {
            let first = first as u32;
            let last = first.saturating_add(len >> (shift % 32));
            IpRange::new(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into())
        } else {
            let last = first.saturating_add(u128::from(len) << (shift % 96));
            IpRange::new(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
        };
        let range = range.unwrap();
        prop_assert_eq!(range.to_string().parse(), Ok(range));
        prop_assert_eq!(read(range.to_string().as_bytes()), Line::Blocked(range));
    }

    #[test]
    fn a_named_range_comes_back(first: u128, len: u32, shift in 0..80_u32, four: bool) {
        let range = if four {
            let first = first as u32;
            IpRange::new(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first.saturating_add(len)).into())
        } else {
            let first = first >> 4 | 0x2 << 124;
            IpRange::new(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(first + (u128::from(len) << shift)).into())
        };
        let range = range.unwrap();
        let p2p = format!("a name:{}-{}", range.first(), range.last());
        prop_assert_eq!(read(p2p.as_bytes()), Line::Blocked(range));
    }
}
