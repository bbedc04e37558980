//! What the 20 bytes of a peer id tell (BEP 20).
//!
//! Owns our own prefix and the reading of other clients' styles. A peer id proves nothing: the name is for people
//! to look at, never for a decision.

use piecemeal_metainfo::PeerId;

/// How our own peer ids start: Azureus style, client `PM`, version 0.1.0.0.
pub const PEER_ID_PREFIX: [u8; 8] = *b"-PM0100-";

/// Our own peer id, from 12 random bytes. The bytes are folded into digits and letters, for trackers that mishandle
/// others.
pub fn own_peer_id(random: [u8; 12]) -> PeerId {
    const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._";
    let mut id = [0; 20];
    id[..8].copy_from_slice(&PEER_ID_PREFIX);
    for (to, from) in id[8..].iter_mut().zip(random) {
        *to = ALPHABET[usize::from(from & 63)];
    }
    PeerId(id)
}

/// The client's name and version, for display: printable ASCII only, at most 64 bytes, never empty.
pub fn client_name(id: &PeerId) -> String {
    azureus(&id.0).or_else(|| mainline(&id.0)).or_else(|| shadow(&id.0)).unwrap_or_else(|| unknown(&id.0))
}

/// `-XXabcd-`: two characters of client, four of version.
fn azureus(id: &[u8; 20]) -> Option<String> {
    let [b'-', code @ .., b'-'] = id.first_chunk::<8>()? else { return None };
    if !code[..2].iter().all(|c| c.is_ascii_alphanumeric() || *c == b'~') {
        return None;
    }
    let digits: Vec<u32> = code[2..].iter().map(|c| version_digit(*c)).collect::<Option<_>>()?;
    let shown = if digits[3] == 0 { &digits[..3] } else { &digits[..] };
    let name = AZUREUS_CODES.iter().find(|(known, _)| code[..2] == **known).map(|(_, name)| *name);
    let name = name.map_or_else(|| text(&code[..2]), str::to_owned);
    Some(format!("{name} {}", dotted(shown)))
}

/// `M4-3-6--`: Bram's own client, version numbers of one or two digits divided by dashes.
fn mainline(id: &[u8; 20]) -> Option<String> {
    let (b'M', version) = id.first_chunk::<8>()?.split_first()? else { return None };
    let version = text(version);
    let parts: Vec<&str> = version.trim_end_matches('-').split('-').collect();
    let plain = |part: &&str| (1..=2).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
    (parts.len() == 3 && parts.iter().all(plain)).then(|| format!("Mainline {}", parts.join(".")))
}

/// `S58B-----`: one character of client, up to five of version padded with dashes, three dashes.
fn shadow(id: &[u8; 20]) -> Option<String> {
    let (&code, rest) = id.split_first()?;
    let version = rest[..8].strip_suffix(b"---")?;
    let end = version.iter().rposition(|c| *c != b'-').map_or(0, |last| last + 1);
    let digits: Vec<u32> = version[..end].iter().map(|c| version_digit(*c)).collect::<Option<_>>()?;
    let (_, name) = SHADOW_CODES.iter().find(|(known, _)| *known == code)?;
    (!digits.is_empty()).then(|| format!("{name} {}", dotted(&digits)))
}

fn unknown(id: &[u8; 20]) -> String {
    if id.iter().all(|byte| *byte == 0) {
        return "unknown".to_owned();
    }
    format!("unknown [{}]", text(&id[..8]))
}

/// Digits as they are, then letters on from ten, as most clients count past nine.
fn version_digit(c: u8) -> Option<u32> {
    match c {
        b'0'..=b'9' => Some(u32::from(c - b'0')),
        b'A'..=b'Z' => Some(u32::from(c - b'A') + 10),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 36),
        _ => None,
    }
}

fn dotted(digits: &[u32]) -> String {
    digits.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|c| if c.is_ascii_graphic() { char::from(*c) } else { '.' }).collect()
}

/// The codes of BEP 20 and later ones one still meets.
const AZUREUS_CODES: &[(&[u8; 2], &str)] = &[
    (b"7T", "aTorrent"),
    (b"AR", "Arctic"),
    (b"AZ", "Vuze"),
    (b"BC", "BitComet"),
    (b"BI", "BiglyBT"),
    (b"BL", "BitLord"),
    (b"BT", "BitTorrent"),
    (b"BW", "BitWombat"),
    (b"CT", "CTorrent"),
    (b"DE", "Deluge"),
    (b"FD", "Free Download Manager"),
    (b"FL", "Folx"),
    (b"FW", "FrostWire"),
    (b"GT", "anacrolix"),
    (b"HL", "Halite"),
    (b"KT", "KTorrent"),
    (b"LT", "libtorrent"),
    (b"LW", "LimeWire"),
    (b"MO", "MonoTorrent"),
    (b"PI", "PicoTorrent"),
    (b"PM", "piecemeal"),
    (b"qB", "qBittorrent"),
    (b"rQ", "rqbit"),
    (b"SD", "Thunder"),
    (b"TL", "Tribler"),
    (b"TR", "Transmission"),
    (b"TX", "Tixati"),
    (b"UM", "uTorrent Mac"),
    (b"UT", "uTorrent"),
    (b"UW", "uTorrent Web"),
    (b"WD", "WebTorrent Desktop"),
    (b"WW", "WebTorrent"),
    (b"XL", "Xunlei"),
    (b"lt", "libTorrent"),
];

/// The one-letter codes of BEP 20.
const SHADOW_CODES: &[(u8, &str)] = &[
    (b'A', "ABC"),
    (b'O', "Osprey Permaseed"),
    (b'Q', "BTQueue"),
    (b'R', "Tribler"),
    (b'S', "Shadow"),
    (b'T', "BitTornado"),
    (b'U', "UPnP NAT BitTorrent"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_known_styles() {
        let table: &[(&[u8; 20], &str)] = &[
            (b"-PM0100-abcdefghijkl", "piecemeal 0.1.0"),
            (b"-qB43A0-abcdefghijkl", "qBittorrent 4.3.10"),
            (b"-TR4050-abcdefghijkl", "Transmission 4.0.5"),
            (b"-TR300Z-w4bd4mkebkbi", "Transmission 3.0.0.35"),
            (b"-lt0D60-abcdefghijkl", "libTorrent 0.13.6"),
            (b"-ZZ1234-abcdefghijkl", "ZZ 1.2.3.4"),
            (b"M4-3-6--abcdefghijkl", "Mainline 4.3.6"),
            (b"M7-10-5-abcdefghijkl", "Mainline 7.10.5"),
            (b"S58B-----bcdefghijkl", "Shadow 5.8.11"),
            (b"T03I-----bcdefghijkl", "BitTornado 0.3.18"),
            (b"exbc\x01\x02\xff\x1bcdefghijklmn", "unknown [exbc....]"),
            (b"-T\x1b123\n-abcdefghijkl", "unknown [-T.123.-]"),
            (b"---------abcdefghijk", "unknown [--------]"),
            (&[0; 20], "unknown"),
        ];
        for (id, name) in table {
            assert_eq!(client_name(&PeerId(**id)), *name);
        }
    }

    proptest! {
        #[test]
        fn a_name_is_printable_and_short(id: [u8; 20]) {
            let name = client_name(&PeerId(id));
            prop_assert!(!name.is_empty() && name.len() <= 64);
            prop_assert!(name.bytes().all(|c| c == b' ' || c.is_ascii_graphic()));
        }

        #[test]
        fn our_ids_are_plain_and_named(random: [u8; 12]) {
            let id = own_peer_id(random);
            prop_assert!(id.0.starts_with(&PEER_ID_PREFIX));
            prop_assert!(id.0.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(client_name(&id), "piecemeal 0.1.0");
        }
    }
}
