//! What an engine is started with, chosen by the machine where the user chose nothing.
//!
//! Owns the defaults and the search for a port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::available_parallelism;

use piecemeal_api::{Encryption, EngineOptions, Refusal, Transports};
use piecemeal_engine::cx::{self, Settings};
use piecemeal_shell::mapping::MappingSettings;
use piecemeal_shell::net::{Dialer, Traffic};
use piecemeal_shell::{Shell, ShellError, ShellSettings, entropy};
use piecemeal_wire::krpc::NodeId;
use piecemeal_wire::peer_id;
use rustix::process::{Resource, getrlimit};

use crate::{ways, words};

/// The pool takes this share of memory, within bounds: below, few peers would be kept busy; above, nothing gains.
const POOL_SHARE: u64 = 16;
const POOL_BYTES: std::ops::RangeInclusive<u64> = 32 << 20..=1 << 30;
/// Where the system does not tell how much memory there is.
const MEMORY_UNKNOWN_BYTES: u64 = 1 << 30;
/// Ports tried from the first one on, before any port will do.
const PORTS_TRIED: u16 = 64;
/// Peers over all torrents, as libtorrent; fewer where handles are few.
const MAX_PEERS: u64 = 500;
/// However few handles there are, with fewer peers nothing moves.
const MIN_PEERS: u64 = 8;
/// Disk threads for each device: two on small machines, then half the cores.
const DISK_THREADS: std::ops::RangeInclusive<usize> = 2..=32;

/// Memory for content that an engine takes if it is not told otherwise, in bytes: 1/16 of the machine's or of the
/// container's, at least 32 MiB and at most 1 GiB.
pub fn default_pool_bytes() -> u64 {
    (memory_bytes() / POOL_SHARE).clamp(*POOL_BYTES.start(), *POOL_BYTES.end())
}

/// Starts the engine.
pub(crate) fn start(options: &EngineOptions, dht_ids: [Option<NodeId>; 2]) -> Result<Shell, Refusal> {
    let policy = ways::policy(&options.net)?;
    ways::may_listen(&policy, &options.listen)?;
    let dialer = Dialer::new(policy);
    if !options.listen.is_empty() {
        return attempt(options, &dialer, &options.listen, dht_ids).map_err(refusal);
    }
    let mut anywhere: Vec<SocketAddr> =
        vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    anywhere.retain(|addr| dialer.policy().speaks(addr.is_ipv4()));
    let first = EngineOptions::FIRST_PORT;
    let mut ports = (first..first + PORTS_TRIED).chain([0]);
    let mut port = ports.next();
    loop {
        anywhere.iter_mut().for_each(|addr| addr.set_port(port.unwrap_or(0)));
        match attempt(options, &dialer, &anywhere, dht_ids) {
            Err(ShellError::Listen { why, .. })
                if why.kind() == io::ErrorKind::AddrInUse && port.is_some() =>
            {
                port = ports.next();
            }
            // A machine without one of the families: go on with the other.
            Err(ShellError::Listen { addr, .. }) if anywhere.len() > 1 => {
                anywhere.retain(|other| other.is_ipv4() != addr.is_ipv4());
            }
            other => return other.map_err(refusal),
        }
    }
}

fn attempt(
    options: &EngineOptions,
    dialer: &Dialer,
    listen: &[SocketAddr],
    dht_ids: [Option<NodeId>; 2],
) -> Result<Shell, ShellError> {
    let without = |why| ShellError::System { what: "without randomness", why };
    let random = entropy::seed().map_err(without)?;
    let (random, _) = random.split_first_chunk().expect("a seed has 32 bytes");
    let handles = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let peers = match options.max_peers {
        Some(peers) => u64::from(peers.max(1)),
        // Half of the handles: the others are for files, dials and everything else.
        None => (handles / 2).clamp(MIN_PEERS, MAX_PEERS),
    };
    let defaults = Settings::default();
    let at_most = |most: usize, share: u64| most.min(usize::try_from(share).unwrap_or(most)).max(1);
    // Where nobody can call us, the addresses listened on say nothing; and who goes by a proxy needs none of a family.
    let called = dialer.way(Traffic::Incoming).is_direct();
    let speaks = |v4| !called || listen.iter().any(|addr| addr.is_ipv4() == v4);
    let engine = Settings {
        peer_id: peer_id::own_peer_id(*random),
        ipv4: speaks(true),
        ipv6: speaks(false),
        max_conns: usize::try_from(peers).unwrap_or(usize::MAX),
        max_conns_per_torrent: at_most(defaults.max_conns_per_torrent, peers),
        max_pending: at_most(defaults.max_pending, handles / 4),
        dht: options.dht && dialer.way(Traffic::Dht).is_direct(),
        dht_ids,
        lsd: options.lsd && dialer.way(Traffic::Lsd).is_direct(),
        tcp: options.transports != Transports::Utp,
        utp: options.transports != Transports::Tcp && dialer.way(Traffic::PeersUtp).is_direct(),
        encrypt_in: encryption(options.encrypt_in.unwrap_or(Encryption::Allow)),
        encrypt_out: encryption(options.encrypt_out.unwrap_or(Encryption::Prefer)),
        ..defaults
    };
    let pool = options.pool_bytes.unwrap_or_else(default_pool_bytes);
    let cores = available_parallelism().map_or(1, usize::from);
    Shell::start(ShellSettings {
        engine,
        dialer: dialer.clone(),
        listen: listen.to_vec(),
        mapping: options
            .port_mapping
            .then(|| MappingSettings { gateway: options.gateway, ..Default::default() }),
        pool_bytes: usize::try_from(pool).unwrap_or(usize::MAX),
        disk_threads: (cores / 2).clamp(*DISK_THREADS.start(), *DISK_THREADS.end()),
        seed: None,
    })
}

fn encryption(how: Encryption) -> cx::Encryption {
    match how {
        Encryption::Off => cx::Encryption::Off,
        Encryption::Allow => cx::Encryption::Allow,
        Encryption::Prefer => cx::Encryption::Prefer,
        Encryption::Require => cx::Encryption::Require,
    }
}

/// Why there is no engine, in the words of `api`.
pub(crate) fn refusal(why: ShellError) -> Refusal {
    match why {
        ShellError::Listen { addr, why } => Refusal::Listen { addr, reason: words::reason(&why) },
        ShellError::System { what, why } => {
            Refusal::System { what: what.to_owned(), reason: words::reason(&why) }
        }
    }
}

/// Of the machine, or less if a container has less.
#[cfg(target_os = "linux")]
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "it is narrower on 32-bit machines")]
    let ram = u64::try_from(info.totalram).unwrap_or(u64::MAX);
    let all = ram.saturating_mul(u64::from(info.mem_unit.max(1)));
    let all = if all == 0 { MEMORY_UNKNOWN_BYTES } else { all };
    // Of the control group we see as root, which is a container's own; "max" is no number.
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    group.and_then(|text| text.trim().parse().ok()).map_or(all, |bytes: u64| bytes.min(all))
}

#[cfg(not(target_os = "linux"))]
fn memory_bytes() -> u64 {
    MEMORY_UNKNOWN_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_within_its_bounds() {
        assert!(POOL_BYTES.contains(&default_pool_bytes()), "{}", default_pool_bytes());
        assert!(memory_bytes() >= 16 << 20);
    }
}
