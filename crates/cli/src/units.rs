//! Sizes, rates, spans of time and dates: as users write them and as we write them.
//!
//! `k M G T` and `kB MB GB TB` are powers of 1000, `KiB MiB GiB TiB` powers of 1024. What we print is always the latter.

use std::time::Duration;

const SUFFIXES: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1000),
    ("kib", 1 << 10),
    ("m", 1000 * 1000),
    ("mb", 1000 * 1000),
    ("mib", 1 << 20),
    ("g", 1000 * 1000 * 1000),
    ("gb", 1000 * 1000 * 1000),
    ("gib", 1 << 30),
    ("t", 1000 * 1000 * 1000 * 1000),
    ("tib", 1 << 40),
];

/// Bytes from `10M`, `1.5 GiB`, `500k` or `12345`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let compact = text.trim().to_ascii_lowercase();
    let digits = compact.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(compact.len());
    let (number, suffix) = (&compact[..digits], compact[digits..].trim());
    let unit = SUFFIXES.iter().find(|(name, _)| *name == suffix || (*name == "t" && suffix == "tb"));
    let Some(&(_, unit)) = unit else {
        return Err(format!("`{text}` is no size; write it like 500k, 10MB, 256MiB or 1048576"));
    };
    scaled(number, unit)
        .ok_or_else(|| format!("`{text}` is no size; write it like 500k, 10MB, 256MiB or 1048576"))
}

/// Bytes per second from a size, with or without `/s`. Zero is refused: it would stop everything.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    match parse_size(size) {
        Ok(0) => Err("a limit of 0 would stop everything; leave the option out for no limit".to_owned()),
        Ok(rate) => Ok(rate),
        Err(_) => Err(format!("`{text}` is no rate; write it like 500k, 10MB or 2MiB (per second)")),
    }
}

/// A span of time from `90s`, `10m`, `2h`, `1d`, `1h30m` or plain seconds.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time; write it like 90s, 10m, 2h or 1h30m");
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = rest[digits..].chars().next();
        let unit = match after {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some(_) => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|span| total.checked_add(span)).ok_or_else(wrong)?;
        rest = &rest[digits + usize::from(after.is_some())..];
    }
    Ok(Duration::from_secs(total))
}

/// A share ratio such as `1.5`: a number above 0.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.trim().parse().map_err(|_| format!("`{text}` is no ratio; write it like 1.5"))?;
    if ratio.is_finite() && ratio > 0.0 {
        Ok(ratio)
    } else {
        Err("a ratio is above 0; write it like 1.5".to_owned())
    }
}

/// `1.5 MiB`, `17 B`.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// `1.5 MiB/s`.
pub fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", size(bytes_per_s))
}

/// Bytes over a span, per second.
pub fn mean_rate(bytes: u64, span: Duration) -> u64 {
    (bytes as f64 / span.as_secs_f64().max(0.001)) as u64
}

/// `0.4 s`, `42 s`, `3 min 5 s`, `2 h 7 min`, `3 d 4 h`.
pub fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `1 peer`, `2 peers`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `1 range`, `312,004 ranges`.
pub fn many(n: u64, noun: &str) -> String {
    let digits = n.to_string();
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    let grouped: String = digits
        .char_indices()
        .flat_map(|(at, digit)| comma(at).then_some(',').into_iter().chain([digit]))
        .collect();
    format!("{grouped} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `part` of `whole` as `45.2 %`; never `100.0 %` while something is missing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part >= whole {
        return "100.0 %".to_owned();
    }
    let tenths = (u128::from(part) * 1000 / u128::from(whole)).min(999);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Seconds since 1970 as `2024-02-29 12:00:00 UTC`; `None` outside the years 1 to 9999.
pub fn date(unix_s: i64) -> Option<String> {
    let days = unix_s.div_euclid(86_400);
    let second = unix_s.rem_euclid(86_400);
    // Days from 0000-03-01: a year that begins in March ends with its leap day.
    let from_march = days.checked_add(719_468)?;
    let era = from_march.div_euclid(146_097);
    let day_of_era = from_march.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let (h, m, s) = (second / 3600, second % 3600 / 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC"))
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    if !number.contains('.') || number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    // Below 2^53 a float counts bytes exactly enough; above, write whole numbers.
    (value < 9.0e15).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        for (n, expected) in [
            (0, "0 ranges"),
            (1, "1 range"),
            (999, "999 ranges"),
            (1_000, "1,000 ranges"),
            (312_004, "312,004 ranges"),
            (1_234_567, "1,234,567 ranges"),
        ] {
            assert_eq!(many(n, "range"), expected);
        }
    }

    #[test]
    fn sizes_as_users_write_them() {
        let good = [
            ("0", 0),
            ("12345", 12_345),
            ("10M", 10_000_000),
            ("10MB", 10_000_000),
            ("10MiB", 10 << 20),
            ("10mib", 10 << 20),
            ("500k", 500_000),
            ("500 kB", 500_000),
            ("1KiB", 1024),
            ("1.5GiB", 3 << 29),
            ("2T", 2_000_000_000_000),
            ("2TB", 2_000_000_000_000),
            (" 7b ", 7),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1X", "1.", ".5M", "1..5k", "1e3", "99999999999T", "1,5M", "10 M B", "٣"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_ratios() {
        assert_eq!(parse_rate("10MB/s"), Ok(10_000_000));
        assert_eq!(parse_rate("64KiB"), Ok(65_536));
        for text in ["0", "0k", "fast", "/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_ratio("1.5"), Ok(1.5));
        for text in ["0", "-1", "inf", "NaN", "much"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_as_users_write_them() {
        for (text, s) in
            [("90s", 90), ("90", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("0s", 0)]
        {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(s)), "{text}");
        }
        for text in ["", "s", "1w", "h2", "-1s", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_we_print() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (256 << 20, "256.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (ms, text) in [
            (0, "0.0 s"),
            (3240, "3.2 s"),
            (42_000, "42 s"),
            (185_000, "3 min 5 s"),
            (7_620_000, "2 h 7 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
        assert_eq!(percent(1999, 2000), "99.9 %");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9 %");
        assert_eq!((percent(0, 0), percent(2, 2)), ("100.0 %".into(), "100.0 %".into()));
        assert_eq!((count(1, "peer"), count(0, "peer")), ("1 peer".into(), "0 peers".into()));
    }

    #[test]
    fn dates() {
        for (s, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_704_164_645, "2024-01-02 03:04:05 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(s).as_deref(), Some(text));
        }
        for s in [i64::MAX, i64::MIN, 253_402_300_800] {
            assert_eq!(date(s), None);
        }
    }
}
