//! Where the DHT begins: nodes of the last run, hosts the user named, hosts everybody knows.
//!
//! Owns the file that keeps nodes over a restart, and the look-up of names. Which node is any good the DHT finds out: all
//! of these are only asked.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use piecemeal_api::EngineOptions;
use piecemeal_engine::cx::Command;
use piecemeal_shell::Shell;

use crate::store::replace;

/// Hosts that clients have asked first for many years; one that answers is enough.
const WELL_KNOWN: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
    "dht.libtorrent.org:25401",
];
/// Nodes read from the file; more were never written.
const MOST_KEPT: usize = 1000;

/// Begins: tells the engine of nodes, those of names as they are looked up. An engine that listens on loopback alone
/// speaks to nobody outside, and so knows no hosts but those it is told.
pub(crate) fn begin(options: &EngineOptions, shell: &Arc<Shell>, file: Option<&Path>) {
    if !options.dht {
        return;
    }
    let kept = file.and_then(|file| load(file).ok()).unwrap_or_default();
    shell.command(Command::Nodes(kept));
    let inside = shell.listening().iter().all(|addr| addr.ip().is_loopback());
    let names: Vec<String> = match (&options.dht_nodes[..], inside) {
        ([], true) => return,
        ([], false) => WELL_KNOWN.map(str::to_owned).into(),
        (named, _) => named.to_vec(),
    };
    let (addrs, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.parse::<SocketAddr>().is_ok());
    shell.command(Command::Nodes(addrs.iter().filter_map(|addr| addr.parse().ok()).collect()));
    if names.is_empty() {
        return;
    }
    let shell: Weak<Shell> = Arc::downgrade(shell);
    // The system's resolver may take its time, and a machine without network has none: nobody waits for it. Without a
    // thread the DHT begins with what peers tell of.
    let look_up = move || {
        for name in names {
            let found = name.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            let Some(shell) = shell.upgrade() else { return };
            shell.command(Command::Nodes(found));
        }
    };
    let _ = std::thread::Builder::new().name("piecemeal-names".into()).spawn(look_up);
}

/// The file that keeps nodes.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("dht.nodes")
}

fn load(file: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).take(MOST_KEPT).collect())
}

/// Keeps nodes for the next run. An empty list leaves the file as it is: a run without network knew nobody.
///
/// # Errors
/// The file cannot be written; the old one stays.
pub(crate) fn save(file: &Path, nodes: &[SocketAddr]) -> io::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let text: String = nodes.iter().take(MOST_KEPT).map(|node| format!("{node}\n")).collect();
    replace(file, &file.with_extension("part"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_and_rubbish_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert!(load(&file).is_err());
        let nodes: Vec<SocketAddr> = vec!["1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
        save(&file, &nodes).unwrap();
        save(&file, &[]).unwrap();
        assert_eq!(load(&file).unwrap(), nodes);
        fs::write(&file, "1.2.3.4:5\nrubbish\n\n9.9.9.9\n").unwrap();
        assert_eq!(load(&file).unwrap(), nodes[..1]);
    }
}
