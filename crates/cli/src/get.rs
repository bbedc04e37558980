//! `piecemeal get`: download torrents, several at once over one engine.

use std::path::Path;
use std::time::{Duration, Instant};

use piecemeal_api::{
    AddTorrent, Client, Encryption, EngineOptions, IpFamily, IpFilterStatus, Limits, NetOptions, Proxy,
    ResolveRequest, Resolved, Selection, Tools, Transports, Verify,
};
use serde::Serialize;

use crate::args::{By, Encrypt, Engine, Get, Reach, SeedGoal, Ways};
use crate::fail::Failure;
use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::progress::Screen;
use crate::seek::Link;
use crate::select;
use crate::source::{Source, Torrent};
use crate::text::safe;
use crate::tls::{identity_for, read_identity};
use crate::units::{count, mean_rate, percent, rate, size, span};
use crate::watch::{Course, End, Fleet, Goal, Item, filter_note};

/// Runs the command.
pub fn run(args: &Get, tools: &dyn Tools, host: &mut Host, stop: &Interrupt) -> Result<(), Failure> {
    let dir = args.output.as_deref().map_or_else(|| host.cwd.clone(), |dir| host.at(dir));
    let identity = read_identity(&args.engine, host)?;
    let mut wishes = Vec::new();
    for source in &args.sources {
        wishes.push(match Source::read(source, &net_options(&args.engine.reach.ways), host, tools, stop)? {
            Source::Torrent(torrent) => {
                let tls = identity_for(&torrent, identity.as_ref());
                let add = AddTorrent { tls, ..request(args, &torrent, &dir)? };
                Wish::Torrent(torrent, add)
            }
            Source::Link(link) => {
                select::check(&args.select)?;
                Wish::Link(link)
            }
        });
    }
    let mut fleet = Fleet::new(Screen::new(host, args.json));
    let result = fetch(args, wishes, &dir, &mut fleet, tools, host, stop);
    fleet.leave(host, stop);
    result
}

/// What is to be had.
enum Wish {
    Torrent(Torrent, AddTorrent),
    Link(Link),
}

/// What an engine is started with.
pub fn engine_options(engine: &Engine, down: Option<u64>, host: &Host) -> EngineOptions {
    EngineOptions {
        limits: Limits { down, up: engine.up_limit },
        port_mapping: !engine.no_port_mapping,
        gateway: engine.gateway,
        max_peers: engine.crowd.max_peers,
        max_peers_per_torrent: engine.crowd.max_peers_per_torrent,
        max_half_open: engine.crowd.max_half_open,
        dial_rate: engine.crowd.dial_rate,
        ..reach_options(&engine.reach, host)
    }
}

/// What an engine that only looks for peers is started with.
pub fn reach_options(reach: &Reach, host: &Host) -> EngineOptions {
    EngineOptions {
        listen: reach.listen.clone(),
        state_dir: host.state_dir.clone(),
        dht: !reach.no_dht,
        dht_nodes: reach.dht_nodes.clone(),
        lsd: !reach.no_lsd,
        net: net_options(&reach.ways),
        transports: match reach.transport {
            By::Both => Transports::Both,
            By::Tcp => Transports::Tcp,
            By::Utp => Transports::Utp,
        },
        utp_competes: reach.utp_competes,
        encrypt_in: reach.encrypt_in.or(reach.encryption).map(encryption),
        encrypt_out: reach.encrypt_out.or(reach.encryption).map(encryption),
        ip_filters: reach.ip_filters.iter().map(|list| list_place(list, host)).collect(),
        ban: reach.ban.clone(),
        ..EngineOptions::default()
    }
}

/// A list of the IP filter: a URL as it is, a file from where we are.
fn list_place(list: &str, host: &Host) -> String {
    if list.contains("://") { list.to_owned() } else { host.at(Path::new(list)).display().to_string() }
}

/// By which ways anything is sent.
pub fn net_options(ways: &Ways) -> NetOptions {
    let only = match (ways.ipv4, ways.ipv6) {
        (true, _) => Some(IpFamily::V4),
        (_, true) => Some(IpFamily::V6),
        _ => None,
    };
    NetOptions {
        interface: ways.interface.clone(),
        bind: ways.bind.clone(),
        only,
        dscp: ways.dscp,
        proxy: ways.proxy.clone().map(|proxy| Proxy { carries: ways.proxy_for.clone(), ..proxy }),
        name_server: ways.name_server,
    }
}

fn encryption(how: Encrypt) -> Encryption {
    match how {
        Encrypt::Off => Encryption::Off,
        Encrypt::Allow => Encryption::Allow,
        Encrypt::Prefer => Encryption::Prefer,
        Encrypt::Require => Encryption::Require,
    }
}

/// Tells where peers can reach an engine.
pub fn say_listening(fleet: &Fleet, client: &dyn Client, host: &mut Host) -> Result<(), Failure> {
    let addrs: Vec<_> = client.listening().iter().map(ToString::to_string).collect();
    say_filter(fleet, client);
    fleet.screen.note(&match &addrs[..] {
        [] => "listening nowhere: nobody can call us".to_owned(),
        _ => format!("listening on {}", addrs.join(", ")),
    });
    Ok(fleet.screen.json(host, &Own::Listening { addrs })?)
}

/// Tells who is not talked to, if there is anybody.
pub fn say_filter(fleet: &Fleet, client: &dyn Client) {
    let IpFilterStatus { ranges, lists, .. } = client.ip_filter();
    if !lists.is_empty() {
        let waiting = lists.iter().filter(|list| list.waiting).map(|list| safe(&list.place));
        let waiting: String = waiting.map(|place| format!("; fetching {place}")).collect();
        fleet.screen.note(&format!("{}{waiting}", filter_note(ranges)));
    }
    for warning in lists.iter().filter_map(|list| list.warning.as_deref()) {
        fleet.screen.note(&format!("ip filter: {}", safe(warning)));
    }
}

/// A line for each torrent that is there, an error for each that is not; fails if there is one of those.
pub fn conclude(fleet: &mut Fleet, host: &mut Host) -> Result<(), Failure> {
    fleet.screen.end();
    let mut failed = false;
    for item in &fleet.items {
        match &item.course {
            Course::Complete(at) if fleet.screen.is_json() => {
                fleet.screen.json(host, &Own::summary(item, *at))?
            }
            Course::Complete(at) => host.say(line(item, *at))?,
            Course::Failed(why) => {
                failed = true;
                host.err.line(&format!("piecemeal: {}: {}", item.name, safe(why)));
            }
            Course::Running => {}
        }
    }
    if failed { Err(Failure::Said) } else { Ok(()) }
}

fn fetch(
    args: &Get,
    wishes: Vec<Wish>,
    dir: &Path,
    fleet: &mut Fleet,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<(), Failure> {
    let engine = fleet.start(tools, &engine_options(&args.engine, args.down_limit, host))?;
    let client = fleet.engines[engine].client.clone();
    say_listening(fleet, &*client, host)?;
    for wish in wishes {
        match wish {
            Wish::Torrent(torrent, add) => {
                let place = torrent.place(&add.dir);
                fleet.add(engine, add, torrent.name(), place, goal(args))?;
            }
            Wish::Link(link) => {
                let request =
                    ResolveRequest { peers: args.peers.clone(), ..ResolveRequest::new(link.text.clone()) };
                fleet.seek(engine, &link, request, goal(args), stop)?;
            }
        }
    }
    let end = loop {
        match fleet.watch(host, stop, None) {
            // Who read our events went away before the download was done.
            Err(Failure::Pipe) if !fleet.items.iter().all(Item::complete) => return Err(Failure::Said),
            Ok(End::Resolved(at, resolved)) => arrived(args, dir, fleet, at, *resolved),
            other => break other?,
        }
    };
    conclude(fleet, host)?;
    match end {
        End::Done | End::Resolved(..) => Ok(()),
        // Seeding without an end ends like this.
        End::Interrupted if endless(args) && fleet.items.iter().all(Item::complete) => Ok(()),
        End::Interrupted => Err(Failure::Interrupted),
    }
}

/// A link led to a torrent: it is downloaded like any other, or has failed. The others go on.
fn arrived(args: &Get, dir: &Path, fleet: &mut Fleet, at: usize, resolved: Resolved) {
    let Resolved { metainfo, known, select } = resolved;
    let name = fleet.items[at].name.clone();
    let begin = |fleet: &mut Fleet| {
        let torrent = Torrent::parse(metainfo, &name)?;
        let mut add = AddTorrent { known, ..request(args, &torrent, dir)? };
        if args.select.is_empty() {
            if select == (Selection::Only { files: Vec::new() }) {
                let wrong = "the link asks for files that it does not have";
                return Err(Failure::failed(&name, wrong, "choose others with --select"));
            }
            add.select = select;
        }
        fleet.arrive(at, &torrent, add)
    };
    if let Err(why) = begin(fleet) {
        fleet.items[at].fail(&why.line().unwrap_or_default());
    }
}

fn request(args: &Get, torrent: &Torrent, dir: &Path) -> Result<AddTorrent, Failure> {
    Ok(AddTorrent {
        select: select::resolve(&args.select, &torrent.metainfo)?,
        verify: if args.no_verify { Verify::Trust } else { Verify::Resume },
        sequential: args.sequential,
        peers: args.peers.clone(),
        ..AddTorrent::new(torrent.bytes.clone(), dir)
    })
}

fn goal(args: &Get) -> Goal {
    let SeedGoal { seed_ratio, seed_time } = args.goal;
    if args.seed || seed_ratio.is_some() || seed_time.is_some() {
        Goal::Seed(args.goal)
    } else {
        Goal::Complete
    }
}

fn endless(args: &Get) -> bool {
    matches!(goal(args), Goal::Seed(SeedGoal { seed_ratio: None, seed_time: None }))
}

/// `film: 256.0 MiB in 3.2 s, 80.0 MiB/s, from 2 peers, 48.0 % from leeches, in /here/film`
fn line(item: &Item, complete: Instant) -> String {
    let place = safe(&item.place.display().to_string());
    let bytes = item.downloaded();
    let have = item.status.as_ref().map_or(0, |status| status.have_bytes);
    if bytes == 0 {
        return format!("{}: {}, all of it there already, in {place}", item.name, size(have));
    }
    let took = took(item, complete);
    let givers = item.status.as_ref().map_or(0, |status| u64::from(status.givers));
    format!(
        "{}: {} in {}, {}, from {}, {} from leeches, in {place}",
        item.name,
        size(bytes),
        span(took),
        rate(mean_rate(bytes, took)),
        count(givers, "peer"),
        percent(item.leeches_gave(), bytes),
    )
}

fn took(item: &Item, complete: Instant) -> Duration {
    complete.saturating_duration_since(item.began)
}

/// The events that are the command's own.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Own<'a> {
    Listening {
        addrs: Vec<String>,
    },
    Summary {
        torrent: u32,
        name: &'a str,
        bytes: u64,
        took_s: f64,
        mean_rate: u64,
        peers: u32,
        from_leeches: u64,
        path: String,
    },
}

impl<'a> Own<'a> {
    fn summary(item: &'a Item, complete: Instant) -> Self {
        let took = took(item, complete);
        Own::Summary {
            torrent: item.id.0,
            name: &item.name,
            bytes: item.downloaded(),
            took_s: took.as_secs_f64(),
            mean_rate: mean_rate(item.downloaded(), took),
            peers: item.status.as_ref().map_or(0, |status| status.givers),
            from_leeches: item.leeches_gave(),
            path: item.place.display().to_string(),
        }
    }
}
