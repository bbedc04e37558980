//! Lists of an IP filter.

use std::net::IpAddr;

use piecemeal_discovery::filter::{Builder, IpFilter, IpRange, Report};

/// The first byte says in which parts the list comes. The parts change nothing, the ranges are in order and apart, and
/// what the filter says about their ends is what it is made of.
pub fn ip_filter(bytes: &[u8]) {
    let Some((size, list)) = bytes.split_first() else { return };
    let (filter, report) = build(list, list.len().max(1));
    assert_eq!(build(list, usize::from(*size).max(1)), (filter.clone(), report.clone()));
    // The shortest range, `::`, has two bytes and the end of its line.
    assert!(report.ranges as u64 + report.merged <= list.len() as u64 / 3 + 1);
    assert!(report.skipped_lines <= report.lines && report.ranges == filter.len());
    assert_eq!(report.first_bad.is_some(), report.skipped_lines > 0);
    if let Some((number, text)) = &report.first_bad {
        assert!((1..=report.lines).contains(number) && text.len() <= 240 && !text.contains(char::is_control));
    }
    let ranges: Vec<IpRange> = filter.ranges().collect();
    assert!(ranges.windows(2).all(|two| two[0].last() < two[1].first()));
    for range in &ranges {
        // An IPv4 address inside IPv6 is judged as IPv4, also where an IPv6 range ends among them.
        let judged = |ip: IpAddr| ip.to_canonical() != ip || filter.blocks(ip);
        assert!(judged(range.first()) && judged(range.last()));
        assert_eq!(range.to_string().parse(), Ok(*range));
    }
    assert_eq!(ranges.into_iter().collect::<IpFilter>(), filter);
}

fn build(list: &[u8], size: usize) -> (IpFilter, Report) {
    let mut builder = Builder::new();
    for part in list.chunks(size) {
        builder.push(part).expect("not so many");
    }
    assert!(builder.memory_bytes() <= 1 << 20);
    builder.finish().expect("not so many")
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 5] = [
        b"\x07# P2P\nSomebody, Inc.:1.2.3.4-1.2.3.8\r\nb: c:001.002.003.009-1.2.3.255\ncaf\xe9:2.0.0.0-2.255.255.255\n",
        b"\x00\xef\xbb\xbf001.002.003.004 - 001.002.003.255 , 100 , name\n1.2.3.4 - 1.2.3.5 , 128 , let through\n",
        b"\x01; CIDR\n1.2.3.0/24 ; SBL1\n10.0.0.1\n2001:db8::/32\n::ffff:1.2.3.4\n// end",
        b"\x03six:2001:db8::1-2001:db8::ffff\n::1 - ::2 , 0 ,\n::-::\n0.0.0.0/0\n255.255.255.255\n",
        b"\x10rubbish\n1.2.3.4-1.2.3.3\n\x1f\x8b\x08\n\n1.2.3.4/33\n",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}
