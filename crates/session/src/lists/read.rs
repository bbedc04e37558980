//! From the bytes of a list to its ranges.
//!
//! Owns what is taken for a list: it may be packed by gzip, and most of what it says must be ranges. Whatever it is,
//! memory is bounded by the ranges that a filter may have, and time by the bytes that are looked at.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use piecemeal_discovery::filter::{Builder, IpFilter, Report};

use super::Parsed;
use crate::words;

/// Bytes of a list once unpacked: some four times what the ranges that a filter may have take as text.
const MOST_BYTES: u64 = 1 << 30;
/// Read at once.
const STEP_BYTES: usize = 64 << 10;
/// How gzip begins (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads a list, packed or not. What is odd about it comes along in words.
///
/// # Errors
/// Why it is of no use, in words.
pub(super) fn read(mut from: impl BufRead) -> Result<(IpFilter, Option<String>), String> {
    let packed = from.fill_buf().map_err(|why| words::reason(&why))?.starts_with(&GZIP);
    let (filter, report) =
        if packed { all_of(MultiGzDecoder::new(from), "it is damaged: ")? } else { all_of(from, "")? };
    judge(&report)?;
    let odd = report.first_bad.as_ref().map(|(line, text)| {
        let Report { lines, skipped_lines, .. } = report;
        match skipped_lines {
            1 => format!("1 line of {lines} is no range, line {line}: {text}"),
            many => format!("{many} lines of {lines} are no ranges, the first is line {line}: {text}"),
        }
    });
    Ok((filter, odd))
}

/// The same, as lists have it.
pub(super) fn parsed(from: impl BufRead) -> Result<Parsed, String> {
    read(from).map(|(filter, odd)| (Arc::new(filter), odd))
}

fn all_of(mut from: impl Read, trouble: &str) -> Result<(IpFilter, Report), String> {
    let (mut builder, mut buf, mut total) = (Builder::new(), vec![0; STEP_BYTES], 0);
    loop {
        let bytes = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(format!("{trouble}{}", words::reason(&why))),
        };
        total += bytes as u64;
        if total > MOST_BYTES {
            return Err(format!("it is longer than {} MiB", MOST_BYTES >> 20));
        }
        builder.push(&buf[..bytes]).map_err(|why| why.to_string())?;
    }
    builder.finish().map_err(|why| why.to_string())
}

/// A page of the web may well hold an address or two.
fn judge(report: &Report) -> Result<(), String> {
    let read = report.ranges as u64 + report.merged + report.allowed;
    if read >= report.skipped_lines && read > 0 {
        return Ok(());
    }
    Err(match &report.first_bad {
        Some((line, text)) => format!("it is no list of IP ranges: line {line} is `{text}`"),
        None => "there is no range of IP addresses in it".to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    pub(in super::super) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn said(bytes: &[u8]) -> Result<(Vec<String>, Option<String>), String> {
        read(bytes).map(|(filter, odd)| (filter.ranges().map(|range| range.to_string()).collect(), odd))
    }

    #[test]
    fn lists_plain_and_packed() {
        let p2p = "# bad people\nsome org:1.2.3.0-1.2.3.255\nother:2001:db8::-2001:db8::ff\n";
        let expected = Ok((vec!["1.2.3.0/24".to_owned(), "2001:db8::/120".to_owned()], None));
        assert_eq!(said(p2p.as_bytes()), expected);
        assert_eq!(said(&gzip(p2p.as_bytes())), expected);
        // Two packed one behind the other are one.
        let two = [gzip(b"1.2.3.0/25\n"), gzip(b"1.2.3.128/25\n2001:db8::/120\n")].concat();
        assert_eq!(said(&two), expected);
        let dat = "001.002.003.000 - 001.002.003.255 , 000 , x\n5.5.5.5 - 5.5.5.5 , 200 , allowed\n";
        assert_eq!(said(dat.as_bytes()).unwrap().0, ["1.2.3.0/24"]);
    }

    #[test]
    fn what_is_no_list_is_said_in_a_line() {
        let packed = gzip(b"1.2.3.4\n");
        let rows: [(&[u8], &str); 6] = [
            (b"", "there is no range of IP addresses in it"),
            (b"# only a comment\n", "there is no range"),
            (b"<html>\n<p>\n1.2.3.4\n</html>\n", "it is no list of IP ranges: line 1 is `<html>`"),
            (&packed[..packed.len() - 4], "it is damaged: "),
            (&[0x1f, 0x8b, 9, 9], "it is damaged: "),
            (&[0, 255, 7, 8, 9], "it is no list of IP ranges: line 1 is `"),
        ];
        for (bytes, begins) in rows {
            let why = said(bytes).unwrap_err();
            assert!(why.starts_with(begins) && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn odd_lines_are_counted_and_the_first_is_named() {
        let (ranges, odd) = said(b"1.1.1.1\n1.1.1.3\nwhat?\n1.1.1.5\nand this\n").unwrap();
        assert_eq!(ranges.len(), 3);
        assert_eq!(odd.unwrap(), "2 lines of 5 are no ranges, the first is line 3: what?");
        let (_, odd) = said(b"1.1.1.1\nwhat?").unwrap();
        assert_eq!(odd.unwrap(), "1 line of 2 is no range, line 2: what?");
    }

    #[test]
    fn a_bomb_takes_no_memory() {
        // 64 MiB of nothing in 300 kB: one line without an end, of which a few kB are kept.
        let bomb = gzip(&vec![b'x'; 64 << 20]);
        assert!(bomb.len() < 400_000);
        let why = said(&bomb).unwrap_err();
        assert!(why.starts_with("it is no list of IP ranges: line 1 is `xxx") && why.len() < 200, "{why}");
    }
}
