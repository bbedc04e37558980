//! The only randomness that comes from the operating system: the seed of an engine, and the mark of this boot.

use sha2::{Digest, Sha256};

/// Random bytes for an engine's birth.
///
/// # Errors
/// The operating system has none to give.
pub fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// The seed of one part of an engine, drawn from the engine's; `part` names it.
pub fn fork(seed: &[u8; 32], part: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed).chain_update(part).finalize().into()
}

/// An opaque mark of this boot of the machine. Where the system tells none it differs with every call, so that facts
/// are believed less rather than more.
pub fn boot_id() -> [u8; 16] {
    let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    told.and_then(|text| parse_boot_id(&text)).unwrap_or_else(|| {
        let mut mark = [0; 16];
        // Without entropy all zeros remain; `Shell::start` fails long before that matters.
        let _ = getrandom::fill(&mut mark);
        mark
    })
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut mark = [0; 16];
    for (at, byte) in mark.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_seed_differ_and_repeat() {
        let seed = [7; 32];
        assert_eq!(fork(&seed, "server"), fork(&seed, "server"));
        assert_ne!(fork(&seed, "server"), fork(&seed, "shard 0"));
    }

    #[test]
    fn a_boot_id_is_a_uuid() {
        let mark = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!((mark[1], mark[15]), (0x11, 0xff));
        for bad in
            ["", "00112233", "0011223344556677889900aabbccddeegg", "é0112233-4455-6677-8899-aabbccddeef"]
        {
            assert_eq!(parse_boot_id(bad), None, "{bad}");
        }
    }
}
