//! The command line: what can be written, and what each word means.
//!
//! Owns the help text. Values are parsed here, so that a command never sees a wrong one.

pub mod dht;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use piecemeal_api::{Carried, Proxy};

use crate::units::{parse_rate, parse_ratio, parse_size, parse_span};

const EXIT_CODES: &str = "\
Sizes and rates: 500k, 10M and 10MB count in thousands, 10MiB in 1024s. Times: 90s, 10m, 2h, 1h30m.
Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted.
Ctrl-C ends well within 5 seconds; a second one ends at once.";

/// Swaps files with BitTorrent peers.
#[derive(Parser, Debug)]
#[command(name = "piecemeal", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Prove in two minutes that everything works, with no network: one seed, two leeches, a tracker, all on this machine
    Demo(Demo),
    /// Download torrents
    Get(Get),
    /// Upload content that is already there
    Seed(Seed),
    /// Make a .torrent file, or save that of a magnet link
    Create(Create),
    /// Print everything a torrent says, or the one that a magnet link leads to
    Show(Show),
    /// Compare content on disk with its torrent
    Verify(Verify),
    /// Ask each tracker of a torrent who is there
    Peers(Peers),
    /// Run a tracker until Ctrl-C
    Tracker(Tracker),
    /// See how this machine speaks to the network
    Net(Net),
    /// Ask the distributed hash table: for nodes, for peers, for values stored there
    Dht(dht::Dht),
}

/// `piecemeal demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// How much content to swap
    #[arg(long, default_value = "256MiB", value_parser = parse_size, value_name = "SIZE")]
    pub size: u64,
}

/// `piecemeal get`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("stay").multiple(true).args(["seed", "seed_ratio", "seed_time"]))]
pub struct Get {
    /// .torrent files, http(s) addresses of such, or magnet links
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<OsString>,
    /// Where the content goes [default: the current directory]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// A peer to try, as IP:PORT. Links cannot name peers of your own network: name them here
    #[arg(long = "peer", value_name = "ADDR")]
    pub peers: Vec<SocketAddr>,
    /// Only these files: a pattern such as '*.mkv' or 'extras/**', a number from `show`, or a range such as 2-5
    /// [default: what a magnet link says, else all]
    #[arg(long = "select", value_name = "GLOB|INDEX")]
    pub select: Vec<String>,
    #[command(flatten)]
    pub goal: SeedGoal,
    /// Go on uploading after the download, until Ctrl-C
    #[arg(long)]
    pub seed: bool,
    /// Prefer pieces in order
    #[arg(long)]
    pub sequential: bool,
    /// Most bytes per second to receive
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    pub down_limit: Option<u64>,
    #[command(flatten)]
    pub engine: Engine,
    /// Believe what is already on disk without hashing it
    #[arg(long)]
    pub no_verify: bool,
    /// One JSON event a line on stdout
    #[arg(long)]
    pub json: bool,
}

/// When to stop uploading.
#[derive(Args, Clone, Copy, PartialEq, Debug, Default)]
pub struct SeedGoal {
    /// Upload until this many times the content was sent; with --seed-time, whichever comes first
    #[arg(long, value_parser = parse_ratio, value_name = "RATIO")]
    pub seed_ratio: Option<f64>,
    /// Upload for this long
    #[arg(long, value_parser = parse_span, value_name = "TIME")]
    pub seed_time: Option<Duration>,
}

/// What every engine can be told.
#[derive(Args, Debug)]
pub struct Engine {
    /// Most bytes per second to send
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    pub up_limit: Option<u64>,
    #[command(flatten)]
    pub reach: Reach,
    /// Our certificate for torrents whose peers must have one (PEM; those between it and the root behind it)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM, without a password)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    #[command(flatten)]
    pub crowd: Crowd,
    /// Do not ask the router to let peers in (by PCP, NAT-PMP or UPnP)
    #[arg(long)]
    pub no_port_mapping: bool,
    /// The router to ask, as of a VPN [default: that of the default route]
    #[arg(long, value_name = "IP", conflicts_with = "no_port_mapping")]
    pub gateway: Option<Ipv4Addr>,
}

/// How many peers an engine has.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Connections")]
pub struct Crowd {
    /// Most peers over all torrents [default: 500, fewer where the system allows few open files]
    #[arg(long, value_parser = one_or_more(), value_name = "NUMBER")]
    pub max_peers: Option<u32>,
    /// Most peers of one torrent [default: 100]
    #[arg(long, value_parser = one_or_more(), value_name = "NUMBER")]
    pub max_peers_per_torrent: Option<u32>,
    /// Most peers being called at once, and most callers that have not said yet what they want [default: 256]
    #[arg(long, value_parser = one_or_more(), value_name = "NUMBER")]
    pub max_half_open: Option<u32>,
    /// Most calls begun in a second; some home routers choke on many [default: 30]
    #[arg(long, value_parser = one_or_more(), value_name = "NUMBER")]
    pub dial_rate: Option<u32>,
}

/// How an engine finds peers, and they it.
#[derive(Args, Debug)]
pub struct Reach {
    /// Do not look for peers in the distributed hash table
    #[arg(long)]
    pub no_dht: bool,
    /// Where the distributed hash table begins, as HOST:PORT, instead of at well-known hosts
    #[arg(long = "dht-node", value_name = "HOST:PORT", conflicts_with = "no_dht")]
    pub dht_nodes: Vec<String>,
    /// Do not look for peers on the local network
    #[arg(long)]
    pub no_lsd: bool,
    /// What carries connections with peers
    #[arg(long, value_enum, default_value_t = By::Both, value_name = "HOW")]
    pub transport: By,
    /// Let uTP take its part beside other traffic, as TCP does, instead of giving way to it
    #[arg(long)]
    pub utp_competes: bool,
    /// Whether connections are encrypted, both ways [default: accept it, and prefer it when calling]
    #[arg(long, value_enum, value_name = "HOW")]
    pub encryption: Option<Encrypt>,
    /// Whether those who call may or must encrypt
    #[arg(long, value_enum, value_name = "HOW")]
    pub encrypt_in: Option<Encrypt>,
    /// Whether to encrypt when calling
    #[arg(long, value_enum, value_name = "HOW")]
    pub encrypt_out: Option<Encrypt>,
    /// Where to listen for peers, as IP:PORT; port 0 takes a free one [default: port 6881 or above, everywhere]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    #[command(flatten)]
    pub ways: Ways,
    /// Talk to nobody in this list of IP ranges: P2P, DAT or CIDR, plain or gzip. Files are read again when they change,
    /// addresses once a day
    #[arg(long = "ip-filter", value_parser = parse_list, value_name = "FILE|URL", help_heading = "Ways into the network")]
    pub ip_filters: Vec<String>,
    /// Talk to nobody at this address, network (1.2.3.0/24) or range (1.2.3.4-1.2.3.8)
    #[arg(long, value_name = "RANGE", help_heading = "Ways into the network")]
    pub ban: Vec<String>,
}

/// By which ways anything is sent.
#[derive(Args, Clone, Debug, Default)]
pub struct Ways {
    /// Send and receive by this interface alone, such as tun0; while it is away, nothing
    #[arg(help_heading = WAYS, long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Send from this address alone; once for IPv4, once for IPv6, and a family without is off
    #[arg(help_heading = WAYS, long, value_name = "IP")]
    pub bind: Vec<IpAddr>,
    /// Speak IPv4 alone
    #[arg(help_heading = WAYS, short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Speak IPv6 alone
    #[arg(help_heading = WAYS, short = '6', long)]
    pub ipv6: bool,
    /// Send by a proxy: socks5://[NAME:PASSWORD@]HOST:PORT or http://HOST:PORT. What it cannot carry is off
    #[arg(help_heading = WAYS, long, value_parser = Proxy::parse, value_name = "URL")]
    pub proxy: Option<Proxy>,
    /// What goes by the proxy, some of peers,trackers,web,dht [default: all]
    #[arg(help_heading = WAYS, long, value_parser = parse_carried, value_delimiter = ',', requires = "proxy", value_name = "KINDS")]
    pub proxy_for: Vec<Carried>,
    /// How what peers are sent is marked (DSCP), 0 to 63; 0 is as all other traffic [default: 1, lower effort]
    #[arg(help_heading = WAYS, long, value_parser = clap::value_parser!(u8).range(..64), value_name = "NUMBER")]
    pub dscp: Option<u8>,
    /// Ask this server for names of hosts, where --interface or --bind keeps the system from asking
    #[arg(help_heading = WAYS, long, value_parser = parse_name_server, value_name = "IP[:PORT]")]
    pub name_server: Option<SocketAddr>,
}

/// The heading of [`Ways`], which come with other options before and after.
const WAYS: &str = "Ways into the network";

/// What carries connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum By {
    /// TCP, and uTP for those whom it does not reach
    Both,
    /// TCP alone
    Tcp,
    /// uTP alone, which gives way to all other traffic
    Utp,
}

/// Whether connections are encrypted. That hides what they are from whoever sorts traffic, and is no secrecy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Encrypt {
    /// Never
    Off,
    /// If the other side insists
    Allow,
    /// If the other side can: the handshake, and all of it if it insists
    Prefer,
    /// Always, and all of it
    Require,
}

/// How the torrent of a magnet link is found.
#[derive(Args, Debug)]
#[command(next_help_heading = "For magnet links")]
pub struct Find {
    /// A peer that may know the torrent, as IP:PORT
    #[arg(long = "peer", value_name = "ADDR")]
    pub peers: Vec<SocketAddr>,
    #[command(flatten)]
    pub reach: Reach,
    /// Give up after this long [default: never]
    #[arg(long, value_parser = parse_span, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// `piecemeal seed`
#[derive(Args, Debug)]
pub struct Seed {
    /// Content (a .torrent file is made in the current directory) or .torrent files
    #[arg(required = true, value_name = "PATH|TORRENT")]
    pub paths: Vec<PathBuf>,
    /// Where the content of .torrent files is [default: beside each]
    #[arg(short = 'o', long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Announce here too; commas join the trackers of one tier
    #[arg(long = "tracker", value_parser = parse_tier, value_name = "URL")]
    pub trackers: Vec<Tier>,
    /// Run a tracker as well, and announce to it
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = TRACKER_LISTEN)]
    pub embedded_tracker: Option<SocketAddr>,
    #[command(flatten)]
    pub engine: Engine,
    #[command(flatten)]
    pub goal: SeedGoal,
    /// One JSON event a line on stdout
    #[arg(long)]
    pub json: bool,
}

/// `piecemeal create`
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("format").args(["v1", "v2", "hybrid"]))]
pub struct Create {
    /// A file or directory
    #[arg(required_unless_present = "from")]
    pub path: Option<PathBuf>,
    /// Instead of making one, fetch the torrent of this magnet link from peers
    #[arg(long, value_name = "MAGNET", conflicts_with_all = NOT_FROM)]
    pub from: Option<String>,
    /// The file to write [default: NAME.torrent in the current directory]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A tracker, each a tier of its own; commas join the trackers of one tier
    #[arg(long = "tracker", value_parser = parse_tier, value_name = "URL")]
    pub trackers: Vec<Tier>,
    /// A web server that has the content
    #[arg(long = "web-seed", value_parser = parse_http, value_name = "URL")]
    pub web_seeds: Vec<String>,
    /// Bytes a piece, a power of two from 16KiB [default: by size]
    #[arg(long, value_parser = parse_piece_length, value_name = "SIZE")]
    pub piece_length: Option<u64>,
    /// Peers from the trackers only
    #[arg(long)]
    pub private: bool,
    /// A text that makes the info-hash differ, as private trackers want
    #[arg(long, value_name = "TEXT")]
    pub source: Option<String>,
    /// Only for peers with a certificate that this one signed (PEM); they speak TLS alone
    #[arg(long, value_name = "FILE")]
    pub tls_root: Option<PathBuf>,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// For old clients only (BEP 3)
    #[arg(long)]
    pub v1: bool,
    /// For new clients only (BEP 52)
    #[arg(long)]
    pub v2: bool,
    /// For both [the default]
    #[arg(long)]
    pub hybrid: bool,
    /// Leave out files and directories whose names begin with a dot
    #[arg(long)]
    pub no_hidden: bool,
    /// Leave out the creation date, so that the same content makes the same file
    #[arg(long)]
    pub no_date: bool,
    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub find: Find,
}

/// What cannot be said of a torrent that others made.
const NOT_FROM: [&str; 13] = [
    "path",
    "trackers",
    "web_seeds",
    "piece_length",
    "private",
    "source",
    "tls_root",
    "comment",
    "v1",
    "v2",
    "hybrid",
    "no_hidden",
    "no_date",
];

/// `piecemeal show`
///
/// What a magnet link leads to is fetched from peers.
#[derive(Args, Debug)]
pub struct Show {
    /// A .torrent file or a magnet link
    #[arg(value_name = "TORRENT|MAGNET")]
    pub what: OsString,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print what the magnet link itself says, and ask nobody
    #[arg(long, help_heading = "For magnet links", conflicts_with_all = FIND)]
    pub offline: bool,
    #[command(flatten)]
    pub find: Find,
}

/// The options of [`Find`].
const FIND: [&str; 21] = [
    "peers",
    "timeout",
    "no_dht",
    "dht_nodes",
    "no_lsd",
    "listen",
    "transport",
    "utp_competes",
    "encryption",
    "encrypt_in",
    "encrypt_out",
    "interface",
    "bind",
    "ipv4",
    "ipv6",
    "proxy",
    "proxy_for",
    "dscp",
    "name_server",
    "ip_filters",
    "ban",
];

/// `piecemeal verify`
#[derive(Args, Debug)]
pub struct Verify {
    /// The .torrent file
    pub torrent: PathBuf,
    /// The directory the content lies in, or the content's own directory
    pub dir: PathBuf,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `piecemeal peers`
///
/// Announces as a client that has nothing (event `started`), then takes leave (`stopped`), so that it does not stay
/// in the list.
#[derive(Args, Debug)]
pub struct Peers {
    /// The .torrent file
    pub torrent: PathBuf,
    /// Only ask how many seeds, leeches and downloads each tracker counts, without announcing
    #[arg(long)]
    pub scrape: bool,
    /// One JSON object a tracker, one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ways: Ways,
}

/// `piecemeal net`
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Net {
    /// What to see.
    #[command(subcommand)]
    pub command: NetCommand,
}

/// What can be seen of the network.
#[derive(Subcommand, Debug)]
pub enum NetCommand {
    /// Print what is open, by which ways anything goes, how others see us, and whether anything leaks
    Doctor(Doctor),
}

/// `piecemeal net doctor`
///
/// Takes the options of `get`, and says what an engine with these would do: it starts one, without torrents.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    pub engine: Engine,
    /// Wait this long for anybody out there
    #[arg(long, value_parser = parse_span, value_name = "TIME", default_value = "15s")]
    pub timeout: Duration,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `piecemeal tracker`
///
/// Serves HTTP and UDP on one port, counts at /stats (for people) and /metrics (for Prometheus). SIGHUP has it read its
/// files again.
#[derive(Args, Debug)]
pub struct Tracker {
    /// Where to listen, as IP:PORT; port 0 takes a free one; '[::]:6969' takes IPv4 too
    #[arg(long, value_name = "ADDR", default_value = TRACKER_LISTEN)]
    pub listen: Vec<SocketAddr>,
    /// How often peers announce, from 1m to 24h [default: 30m]
    #[arg(long, value_parser = parse_span, value_name = "TIME")]
    pub interval: Option<Duration>,
    /// Serve only the torrents whose info-hashes stand in this file, in hex, one a line
    #[arg(long, value_name = "FILE")]
    pub allow: Option<PathBuf>,
    /// Do not serve those in this file
    #[arg(long, value_name = "FILE")]
    pub deny: Option<PathBuf>,
    /// Serve only who shows a key of this file, one a line: /PASSKEY/announce
    #[arg(long, value_name = "FILE")]
    pub passkeys: Option<PathBuf>,
}

/// 6969 is the port trackers have used since the first one.
pub const TRACKER_LISTEN: &str = "0.0.0.0:6969";

/// The trackers of one tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tier(pub Vec<String>);

fn one_or_more() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(u32::MAX))
}

fn parse_tier(text: &str) -> Result<Tier, String> {
    text.split(',')
        .map(|url| parse_url(url.trim(), &["http", "https", "udp"]))
        .collect::<Result<_, _>>()
        .map(Tier)
}

fn parse_http(text: &str) -> Result<String, String> {
    parse_url(text.trim(), &["http", "https"])
}

/// A file, or an address that can be fetched.
fn parse_list(text: &str) -> Result<String, String> {
    if text.contains("://") { parse_http(text) } else { Ok(text.to_owned()) }
}

fn parse_url(url: &str, schemes: &[&str]) -> Result<String, String> {
    let known = || schemes.join("://, ") + "://";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("`{url}` is no address; begin it with one of {}", known()));
    };
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(format!("`{scheme}` is not known here; use one of {}", known()));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{url}` names no host; write it like {scheme}://host/announce"));
    }
    Ok(url.to_owned())
}

fn parse_carried(text: &str) -> Result<Carried, String> {
    match text {
        "peers" => Ok(Carried::Peers),
        "trackers" => Ok(Carried::Trackers),
        "web" => Ok(Carried::Web),
        "dht" => Ok(Carried::Dht),
        _ => {
            Err(format!("`{text}` is not known; name some of peers, trackers, web, dht, with commas between"))
        }
    }
}

fn parse_name_server(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is no address; write it like 9.9.9.9 or [2620:fe::fe]:53");
    // Name servers listen at port 53 (RFC 1035).
    text.parse().or_else(|_| text.parse().map(|ip: IpAddr| (ip, 53).into())).map_err(|_| wrong())
}

fn parse_piece_length(text: &str) -> Result<u64, String> {
    let length = parse_size(text)?;
    // BEP 52: a power of two of at least 16 KiB. 256 MiB is the most other clients read.
    if length.is_power_of_two() && (16 << 10..=256 << 20).contains(&length) {
        return Ok(length);
    }
    Err(format!("`{text}` is {length} bytes; use a power of two from 16KiB to 256MiB, such as 1MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_embedded_tracker_does_not_swallow_the_path() {
        let cli = Cli::try_parse_from(["piecemeal", "seed", "--embedded-tracker", "film"]).unwrap();
        let Command::Seed(seed) = cli.command else { panic!("not seed") };
        assert_eq!(seed.embedded_tracker, Some(TRACKER_LISTEN.parse().unwrap()));
        assert_eq!(seed.paths, [PathBuf::from("film")]);
    }

    #[test]
    fn ways_that_make_no_sense_are_refused() {
        let of = |words: &str| {
            let words = format!("piecemeal get x {words}");
            let cli = Cli::try_parse_from(words.split(' ')).map_err(|why| why.to_string())?;
            let Command::Get(get) = cli.command else { panic!("not get") };
            Ok::<_, String>(get.engine.reach.ways)
        };
        let ways =
            of("--interface tun0 --bind 10.0.0.1 --bind ::1 --proxy socks5://h:1 --proxy-for peers,dht")
                .unwrap();
        assert_eq!((ways.interface.as_deref(), ways.bind.len()), (Some("tun0"), 2));
        assert_eq!(ways.proxy_for, [Carried::Peers, Carried::Dht]);
        for bad in [
            "--bind tun0",
            "--proxy h:1",
            "--proxy socks4://h:1",
            "--proxy-for peers",
            "--proxy socks5://h --proxy-for mail",
            "--dscp 64",
            "--ipv4 --ipv6",
            "--name-server x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_of_peers() {
        let of = |words: &str| {
            let words = format!("piecemeal seed x {words}");
            let cli = Cli::try_parse_from(words.split(' ')).map_err(|why| why.to_string())?;
            let Command::Seed(seed) = cli.command else { panic!("not seed") };
            Ok::<_, String>(seed.engine.crowd)
        };
        let crowd = of("--max-peers 9 --max-peers-per-torrent 8 --max-half-open 7 --dial-rate 6").unwrap();
        let got = [crowd.max_peers, crowd.max_peers_per_torrent, crowd.max_half_open, crowd.dial_rate];
        assert_eq!(got, [Some(9), Some(8), Some(7), Some(6)]);
        for bad in
            ["--max-peers 0", "--max-half-open -1", "--dial-rate x", "--max-peers-per-torrent 4294967296"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(
            parse_tier("http://a/x, udp://b:1"),
            Ok(Tier(vec!["http://a/x".into(), "udp://b:1".into()]))
        );
        for bad in ["", "a", "ftp://a", "http://", "http:///x", "udp://a b", "http://a,"] {
            assert!(parse_tier(bad).is_err(), "{bad}");
        }
        assert!(parse_http("udp://a").is_err());
        assert_eq!(parse_name_server("9.9.9.9"), Ok("9.9.9.9:53".parse().unwrap()));
        assert_eq!(parse_name_server("[::1]:5353"), Ok("[::1]:5353".parse().unwrap()));
        assert!(parse_name_server("dns.example").is_err());
        assert_eq!(parse_piece_length("1MiB"), Ok(1 << 20));
        for bad in ["1M", "8KiB", "512MiB", "0", "3MiB"] {
            assert!(parse_piece_length(bad).is_err(), "{bad}");
        }
    }
}
