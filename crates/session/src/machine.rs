//! What an engine is started with, chosen by the machine where the user chose nothing.
//!
//! Owns the defaults and the search for a port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::available_parallelism;

use piecemeal_api::{Encryption, EngineOptions, Refusal, Transports};
use piecemeal_discovery::filter::Gate;
use piecemeal_engine::cx::{self, Settings};
use piecemeal_shell::mapping::MappingSettings;
use piecemeal_shell::net::{Dialer, Traffic, Way};
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
pub(crate) fn start(
    options: &EngineOptions,
    dht_ids: [Option<NodeId>; 2],
    gate: &Gate,
) -> Result<Shell, Refusal> {
    may_be_so_many(options, handles())?;
    let policy = ways::policy(&options.net)?;
    ways::may_listen(&policy, &options.listen)?;
    let dialer = Dialer::new(policy);
    if !options.listen.is_empty() {
        return attempt(options, &dialer, &options.listen, dht_ids, gate).map_err(refusal);
    }
    let mut anywhere: Vec<SocketAddr> =
        vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
    anywhere.retain(|addr| dialer.policy().speaks(addr.is_ipv4()));
    let first = EngineOptions::FIRST_PORT;
    let mut ports = (first..first + PORTS_TRIED).chain([0]);
    let mut port = ports.next();
    loop {
        anywhere.iter_mut().for_each(|addr| addr.set_port(port.unwrap_or(0)));
        match attempt(options, &dialer, &anywhere, dht_ids, gate) {
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
    gate: &Gate,
) -> Result<Shell, ShellError> {
    let without = |why| ShellError::System { what: "without randomness", why };
    let random = entropy::seed().map_err(without)?;
    let (random, _) = random.split_first_chunk().expect("a seed has 32 bytes");
    let crowd = crowd(options, handles());
    // Where nobody can call us, the addresses listened on say nothing; and who goes by a proxy needs none of a family.
    let called = dialer.way(Traffic::Incoming).is_direct();
    let speaks = |v4| !called || listen.iter().any(|addr| addr.is_ipv4() == v4);
    let goes = |traffic| !matches!(dialer.way(traffic), Way::Off(_));
    let engine = Settings {
        peer_id: peer_id::own_peer_id(*random),
        ipv4: speaks(true),
        ipv6: speaks(false),
        dht: options.dht && goes(Traffic::Dht),
        dht_ids,
        gate: gate.clone(),
        lsd: options.lsd && dialer.way(Traffic::Lsd).is_direct(),
        tcp: options.transports != Transports::Utp,
        utp: options.transports != Transports::Tcp && goes(Traffic::PeersUtp),
        encrypt_in: encryption(options.encrypt_in.unwrap_or(Encryption::Allow)),
        encrypt_out: encryption(options.encrypt_out.unwrap_or(Encryption::Prefer)),
        ..crowd
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
        utp_yields: !options.utp_competes,
        disk_threads: (cores / 2).clamp(*DISK_THREADS.start(), *DISK_THREADS.end()),
        seed: None,
    })
}

/// Handles that this process may have at once.
fn handles() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections there may be, as far as handles go.
fn crowd(options: &EngineOptions, handles: u64) -> Settings {
    let defaults = Settings::default();
    let most = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).max(1);
    let of_one = options.max_peers_per_torrent.map(|peers| most(peers.into()));
    let peers = match options.max_peers {
        Some(peers) => most(peers.into()),
        // Half of the handles: the others are for files, dials and everything else.
        None => most((handles / 2).clamp(MIN_PEERS, MAX_PEERS)).max(of_one.unwrap_or(1)),
    };
    let half_open = options.max_half_open.map(|dials| most(dials.into()));
    Settings {
        max_conns: peers,
        max_conns_per_torrent: of_one.unwrap_or(defaults.max_conns_per_torrent).min(peers),
        max_pending: half_open.unwrap_or_else(|| defaults.max_pending.min(most(handles / 4))),
        dials_a_second: options.dial_rate.map_or(defaults.dials_a_second, |rate| most(rate.into())),
        ..defaults
    }
}

/// What cannot be had is said at the start, and not by the first peer that is turned away.
fn may_be_so_many(options: &EngineOptions, handles: u64) -> Result<(), Refusal> {
    let asked = [
        ("max-peers", options.max_peers),
        ("max-peers-per-torrent", options.max_peers_per_torrent),
        ("max-half-open", options.max_half_open),
    ];
    for (field, most) in asked {
        if most.is_some_and(|most| u64::from(most) >= handles) {
            let reason = format!("this process may have {handles} files and connections open at once");
            return Err(Refusal::invalid(
                field,
                reason,
                "choose a smaller number, or raise the limit with `ulimit -n`",
            ));
        }
    }
    if let (Some(all), Some(one)) = (options.max_peers, options.max_peers_per_torrent)
        && one > all
    {
        let reason = format!("{one} peers of one torrent are more than {all} of all together");
        return Err(Refusal::invalid("max-peers-per-torrent", reason, "raise max-peers as well"));
    }
    Ok(())
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
    fn connections_are_as_many_as_the_user_says_and_handles_allow() {
        let options = |max_peers, max_peers_per_torrent, max_half_open, dial_rate| EngineOptions {
            max_peers,
            max_peers_per_torrent,
            max_half_open,
            dial_rate,
            ..EngineOptions::default()
        };
        let rows = [
            (options(None, None, None, None), 1 << 20, [500, 100, 256, 30]),
            (options(None, None, None, None), 256, [128, 100, 64, 30]),
            (options(None, None, None, None), 4, [8, 8, 1, 30]),
            (options(Some(40), None, None, None), 1 << 20, [40, 40, 256, 30]),
            (options(Some(0), Some(0), Some(0), Some(0)), 1 << 20, [1, 1, 1, 1]),
            (options(Some(9_000), Some(3_000), Some(900), Some(90)), 1 << 20, [9_000, 3_000, 900, 90]),
            (options(None, Some(3_000), None, None), 1 << 20, [3_000, 3_000, 256, 30]),
        ];
        for (options, handles, expected) in rows {
            let it = crowd(&options, handles);
            let got = [it.max_conns, it.max_conns_per_torrent, it.max_pending, it.dials_a_second];
            assert_eq!(got, expected, "{options:?}");
            assert_eq!(may_be_so_many(&options, handles), Ok(()));
        }
        for (options, word) in [
            (options(Some(1_024), None, None, None), "max-peers: "),
            (options(None, None, Some(1_024), None), "max-half-open: "),
            (options(None, Some(2_000), None, None), "max-peers-per-torrent: "),
            (options(Some(10), Some(11), None, None), "max-peers-per-torrent: "),
        ] {
            let why = may_be_so_many(&options, 1_024).unwrap_err().to_string();
            assert!(why.starts_with(word) && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn the_pool_is_within_its_bounds() {
        assert!(POOL_BYTES.contains(&default_pool_bytes()), "{}", default_pool_bytes());
        assert!(memory_bytes() >= 16 << 20);
    }
}
