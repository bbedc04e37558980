//! Text from files and the network, made fit for a terminal.
//!
//! A torrent's name may hold escape sequences that retitle a terminal, or marks that make a name read backwards. What
//! is printed for people goes through [`safe`]; what is printed as JSON goes through [`json_line`], which keeps every
//! character but escapes these.

use std::fmt::Write as _;

use serde::Serialize;

/// `text` in one line, with everything that could steer a terminal or the reading order replaced by U+FFFD.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `value` as one line of JSON, with the same characters as `\u` escapes.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    if !plain.chars().any(steers) {
        return Ok(plain);
    }
    let mut line = String::with_capacity(plain.len() + 64);
    for c in plain.chars() {
        if steers(c) {
            // Such a character can only stand inside a JSON string.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    Ok(line)
}

/// `text` cut to at most `columns` of a terminal, an ellipsis in place of the end.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += columns_of(c);
        if used > columns {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// Columns that `text` takes on a terminal, near enough to line things up.
pub fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Scheme and host of a URL: path and query of a tracker may hold a passkey, so progress lines leave them out.
pub fn host_of(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    // Userinfo is as secret as a passkey.
    match url[start..end].rfind('@') {
        Some(at) => &url[start + at + 1..end],
        None => &url[..end],
    }
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn columns_of(c: char) -> usize {
    match u32::from(c) {
        // Marks that stand on the character before them, and the joiner of emoji.
        0x300..=0x36f | 0x200c..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        // East Asian wide blocks and emoji.
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let hostile = "a\x1b]52;c;eA==\x07b\u{202e}gpj.exe\u{9b}2J\r\n\u{7f}\u{2066}\u{200b}\u{e0041}z";
        let clean = safe(hostile);
        assert!(!clean.chars().any(steers), "{clean:?}");
        assert!(clean.starts_with('a') && clean.ends_with('z'));
        assert_eq!(safe("größe 日本 👨‍👩‍👧"), "größe 日本 👨‍👩‍👧");
        let line = json_line(&hostile).unwrap();
        assert!(!line.chars().any(steers), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }

    #[test]
    fn cutting() {
        for (text, columns, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("日本語文", 6, "日本…"),
            ("日本", 4, "日本"),
            ("ab", 0, "…"),
        ] {
            assert_eq!(fit(text, columns), expected, "{text}");
        }
    }

    #[test]
    fn hosts() {
        for (url, host) in [
            ("http://t.example/announce?passkey=x", "http://t.example"),
            ("udp://t:80/announce", "udp://t:80"),
            ("http://me:secret@t/a", "t"),
            ("http://t", "http://t"),
            ("nonsense", "nonsense"),
            ("http://t?k=1", "http://t"),
        ] {
            assert_eq!(host_of(url), host);
        }
    }
}
