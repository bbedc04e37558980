//! Text from strangers, made fit to show.
//!
//! Owns the cleaning alone: names of clients and words of trackers reach logs and terminals, and must not steer them.

/// The first `max_bytes` of `bytes` as text on one line: broken UTF-8 becomes U+FFFD (so the result has at most three
/// times as many bytes), control characters become spaces, and marks that turn the direction of text or take no
/// width are dropped.
pub fn one_line(bytes: &[u8], max_bytes: usize) -> String {
    let cut = bytes.get(..max_bytes).unwrap_or(bytes);
    let cut = whole_characters(cut, cut.len() < bytes.len());
    let cleaned = String::from_utf8_lossy(cut);
    let cleaned = cleaned.chars().filter(|c| !is_invisible(*c)).map(|c| if c.is_control() { ' ' } else { c });
    cleaned.collect::<String>().trim().to_owned()
}

/// Without the torn character a cut may leave at the end.
fn whole_characters(bytes: &[u8], was_cut: bool) -> &[u8] {
    match str::from_utf8(bytes) {
        Err(torn) if was_cut && torn.error_len().is_none() => &bytes[..torn.valid_up_to()],
        _ => bytes,
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned() {
        let table: &[(&[u8], &str)] = &[
            (b"plain words", "plain words"),
            (b" \x1b[2J\r\nx\x00 ", "[2J  x"),
            ("\u{b5}Torrent \u{202e}gpj".as_bytes(), "\u{b5}Torrent gpj"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("012345678901234\u{b5}".as_bytes(), "012345678901234"),
            (b"01234567890123456789", "0123456789012345"),
            (b"", ""),
        ];
        for (bytes, text) in table {
            assert_eq!(one_line(bytes, 16), *text);
        }
    }
}
