//! Where the DHT begins: nodes of the last run, hosts the user or a torrent named, hosts everybody knows.
//!
//! Owns the file that keeps our ids and nodes over a restart, and the look-up of names. Which node is any good the DHT finds out: all
//! of these are only asked.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use piecemeal_api::EngineOptions;
use piecemeal_engine::cx::{Command, KeptNodes};
use piecemeal_metainfo::Metainfo;
use piecemeal_shell::Shell;
use piecemeal_shell::net::{Traffic, Way};
use piecemeal_wire::krpc::NodeId;

use crate::store::replace;

/// Hosts that clients have asked first for many years; one that answers is enough.
pub(crate) const WELL_KNOWN: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
    "dht.libtorrent.org:25401",
];
/// Hosts of one torrent that are asked.
const MOST_NAMED: usize = 16;
/// Before our ids in the file: IPv4, IPv6.
const ID_WORDS: [&str; 2] = ["id4 ", "id6 "];
/// Nodes read from the file; more were never written.
const MOST_KEPT: usize = 1000;

/// Begins: tells the engine of nodes, those of names as they are looked up. An engine that listens on loopback alone
/// speaks to nobody outside, and so knows no hosts but those it is told.
pub(crate) fn begin(options: &EngineOptions, shell: &Arc<Shell>, kept: Vec<SocketAddr>) {
    if !options.dht || matches!(shell.dialer().way(Traffic::Dht), Way::Off(_)) {
        return;
    }
    shell.command(Command::Nodes(kept));
    ask(shell, first_hosts(options, shell));
}

/// Hosts to ask first: again too, when the interface is back that was away.
pub(crate) fn first_hosts(options: &EngineOptions, shell: &Shell) -> Vec<String> {
    let mut listening = shell.listening().iter().peekable();
    let inside = listening.peek().is_some() && listening.all(|addr| addr.ip().is_loopback());
    match (&options.dht_nodes[..], inside) {
        ([], true) => Vec::new(),
        ([], false) => WELL_KNOWN.map(str::to_owned).into(),
        (named, _) => named.to_vec(),
    }
}

/// Hosts that a torrent names (BEP 5, `nodes`).
pub(crate) fn named_by(meta: &Metainfo, shell: &Arc<Shell>) {
    // Nobody may hear of a private one by the DHT, so it gains nothing from it (BEP 27).
    if !meta.info().private {
        let host = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let names = meta.nodes().iter().take(MOST_NAMED);
        ask(shell, names.map(|(name, port)| format!("{}:{port}", host(name))).collect());
    }
}

pub(crate) fn ask(shell: &Arc<Shell>, names: Vec<String>) {
    let (addrs, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.parse::<SocketAddr>().is_ok());
    if !addrs.is_empty() {
        shell.command(Command::Nodes(addrs.iter().filter_map(|addr| addr.parse().ok()).collect()));
    }
    if names.is_empty() {
        return;
    }
    if shell.dialer().way(Traffic::Dht) == Way::Proxy {
        return shell.ask_hosts(names.iter().filter_map(|name| split(name)).collect());
    }
    let dialer = shell.dialer().clone();
    let shell: Weak<Shell> = Arc::downgrade(shell);
    // Name servers may take its time, and a machine without network has none: nobody waits for it. Without a
    // thread the DHT begins with what peers tell of.
    let look_up = move || {
        for name in names {
            let found = dialer.resolve_with_port(Traffic::Dht, &name).unwrap_or_default();
            let Some(shell) = shell.upgrade() else { return };
            shell.command(Command::Nodes(found));
        }
    };
    let _ = std::thread::Builder::new().name("piecemeal-names".into()).spawn(look_up);
}

/// The host and the port of `HOST:PORT`.
pub(crate) fn split(place: &str) -> Option<(String, u16)> {
    let (host, port) = place.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// The file that keeps nodes.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("dht.nodes")
}

/// What was kept; nothing, if there is no such file or it cannot be read.
pub(crate) fn load(file: &Path) -> KeptNodes {
    let text = fs::read_to_string(file).unwrap_or_default();
    let id = |word: &str| text.lines().find_map(|line| id_of(line.strip_prefix(word)?));
    KeptNodes {
        ids: ID_WORDS.map(id),
        nodes: text.lines().filter_map(|line| line.parse().ok()).take(MOST_KEPT).collect(),
    }
}

fn hex(id: NodeId) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(hex: &str) -> Option<NodeId> {
    // Lines of others' making may be anything.
    let digits = (hex.len() == 40 && hex.is_ascii()).then_some(hex)?;
    let mut id = [0; 20];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(NodeId(id))
}

/// Keeps our ids and nodes for the next run. Without nodes the file stays as it is: a run without network knew nobody.
///
/// # Errors
/// The file cannot be written; the old one stays.
pub(crate) fn save(file: &Path, kept: &KeptNodes) -> io::Result<()> {
    if kept.nodes.is_empty() {
        return Ok(());
    }
    let ids = ID_WORDS.iter().zip(kept.ids).filter_map(|(word, id)| Some(format!("{word}{}\n", hex(id?))));
    let nodes = kept.nodes.iter().take(MOST_KEPT).map(|node| format!("{node}\n"));
    let text: String = ids.chain(nodes).collect();
    replace(file, &file.with_extension("part"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_and_rubbish_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert_eq!(load(&file), KeptNodes::default());
        let nodes: Vec<SocketAddr> = vec!["1.2.3.4:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
        let kept = KeptNodes { ids: [Some(NodeId([0xa5; 20])), None], nodes: nodes.clone() };
        save(&file, &kept).unwrap();
        save(&file, &KeptNodes { ids: [None; 2], nodes: vec![] }).unwrap();
        assert_eq!(load(&file), kept);
        fs::write(&file, "id4 xyz\nid6 \u{e9}\n1.2.3.4:5\nrubbish\n\n9.9.9.9\n").unwrap();
        assert_eq!(load(&file), KeptNodes { ids: [None; 2], nodes: nodes[..1].to_vec() });
    }
}
