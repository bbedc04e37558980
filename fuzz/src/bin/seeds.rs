//! Writes good inputs to `corpus/`, beside what is there.

use std::path::Path;
use std::{fs, io};

use piecemeal_fuzz::{discovery, metainfo, package, transport, wire};

fn main() -> io::Result<()> {
    for entry in ["bencode", "metainfo", "magnet"] {
        keep(entry, &metainfo::seeds(entry))?;
    }
    for entry in [
        "handshake",
        "peer_wire",
        "extension",
        "tracker_answer",
        "tracker_query",
        "udp_tracker",
        "krpc",
        "pex",
    ] {
        keep(entry, &wire::seeds(entry))?;
    }
    for entry in ["dht_node", "ip_filter", "lsd"] {
        keep(entry, &discovery::seeds(entry))?;
    }
    for entry in ["socks5", "mse", "utp_stream"] {
        keep(entry, &transport::seeds(entry))?;
    }
    keep("resume_facts", &package::seeds())
}

fn keep(entry: &str, seeds: &[Vec<u8>]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(entry);
    fs::create_dir_all(&folder)?;
    for (at, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{at}")), seed)?;
    }
    Ok(())
}
