//! A tracker: sockets and configuration around discovery::Swarms.
//!
//! Owns the routes and the one lock around the book, which HTTP and UDP share: HTTP on one thread, UDP on one for each
//! address, and nobody waits longer than an announce takes. Who is in which swarm, for how long, and how many may be,
//! is [`piecemeal_discovery::swarms`]'s; what queries and answers look like, `wire::tracker`'s; patience with slow
//! clients, the shell's servers.
//!
//! A peer is known by the address its request comes from. What it claims with `ip=`, `ipv4=` or `ipv6=` (BEP 3,
//! BEP 7) is ignored, or anybody could send a swarm to anybody. So peers must reach the tracker directly: behind a
//! proxy all would have the proxy's address.
#![forbid(unsafe_code)]

mod book;
mod greeter;
mod lists;
mod pages;
mod udp;

pub use book::Stats;
pub use lists::{ListError, ListFiles};
pub use piecemeal_discovery::swarms::SwarmLimits;
pub use piecemeal_shell::http::ServeLimits;
pub use piecemeal_shell::net::outward;

use book::Book;
use greeter::Greeter;
use lists::{Lists, door};
use piecemeal_shell::entropy;
use piecemeal_shell::http::{Answer, Asked, Serving, serve};
use piecemeal_shell::udp_server::{UdpServing, serve_udp};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// How often peers announce when nobody says otherwise: as most trackers.
const INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Shorter would be a flood, longer a tracker that knows only the dead.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);
/// What the root says, so that a browser shows that all is well.
const GREETING: &str =
    concat!("piecemeal tracker ", env!("CARGO_PKG_VERSION"), ": /announce /scrape /stats /metrics\n");
/// Free ports tried until one is free for TCP and UDP alike; the first nearly always is.
const PORTS_TRIED: usize = 16;

/// How the tracker behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, for HTTP and UDP. Port 0 takes one that is free for both. `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
    pub listen: Vec<SocketAddr>,
    /// How often a peer is asked to announce: from a minute to a day.
    pub interval: Duration,
    /// What strangers may cost in connections.
    pub serve: ServeLimits,
    /// What they may cost in memory.
    pub swarms: SwarmLimits,
    /// What is served, and to whom.
    pub lists: ListFiles,
}

impl Config {
    /// Half an hour, and the limits that are made for a small machine.
    pub fn new(listen: Vec<SocketAddr>) -> Config {
        Config {
            listen,
            interval: INTERVAL,
            serve: ServeLimits::default(),
            swarms: SwarmLimits::default(),
            lists: ListFiles::default(),
        }
    }
}

/// Why there is no tracker.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting that can not be.
    #[error("{0}")]
    Config(&'static str),
    /// What the system refused.
    #[error(transparent)]
    System(#[from] io::Error),
    /// A list that can not be read.
    #[error(transparent)]
    List(#[from] ListError),
}

/// A running tracker.
pub struct TrackerServer {
    http: Serving,
    udp: UdpServing,
    book: Arc<Mutex<Book>>,
    lists: ListFiles,
}

impl TrackerServer {
    /// Listens and answers, on threads of its own.
    ///
    /// # Errors
    /// If a setting can not be, a list can not be read, or an address can not be listened on.
    pub fn start(config: Config) -> Result<TrackerServer, StartError> {
        if config.listen.is_empty() {
            return Err(StartError::Config("no address to listen on"));
        }
        if !INTERVALS.contains(&config.interval) {
            return Err(StartError::Config("the interval must be from a minute to a day"));
        }
        let book = Arc::new(Mutex::new(Book::open(&config)?));
        let mut tries = if config.listen.iter().any(|addr| addr.port() == 0) { PORTS_TRIED } else { 1 };
        loop {
            tries -= 1;
            let answering = book.clone();
            let handler = move |asked: &Asked<'_>| answer(asked, || open(&answering));
            let http = serve(config.listen.clone(), handler, config.serve)?;
            match listen_udp(http.addrs(), book.clone()) {
                Ok(udp) => return Ok(TrackerServer { http, udp, book, lists: config.lists }),
                // Somebody has the UDP port of the number that was free for TCP.
                Err(why) if why.kind() == io::ErrorKind::AddrInUse && tries > 0 => http.stop(),
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Reads the lists again. Those who are in a swarm that is no longer served are forgotten in time, and nobody is told
    /// of them.
    ///
    /// # Errors
    /// If one can not be read, or has a wrong line; then all stay as they were.
    pub fn reload(&self) -> Result<(), ListError> {
        let lists = Lists::read(&self.lists)?;
        open(&self.book).set_lists(lists);
        Ok(())
    }

    /// Where it listens, in the order of the configuration, with real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        self.http.addrs()
    }

    /// What to put into torrents, one for each address listened on. For the unspecified address that is loopback:
    /// only its owner knows the machine's name. Where passkeys are needed, `PASSKEY` stands for one.
    pub fn urls(&self) -> Vec<String> {
        self.named("http")
    }

    /// The same for UDP.
    pub fn udp_urls(&self) -> Vec<String> {
        self.named("udp")
    }

    fn named(&self, scheme: &str) -> Vec<String> {
        let path = if self.lists.passkeys.is_some() { "/PASSKEY/announce" } else { "/announce" };
        let url = |addr: &SocketAddr| {
            format!("{scheme}://{}{path}", SocketAddr::new(nameable(addr.ip()), addr.port()))
        };
        self.addrs().iter().map(url).collect()
    }

    /// Counts since the start, and what is known now.
    pub fn stats(&self) -> Stats {
        open(&self.book).stats()
    }

    /// Sends the answers that are on their way and ends. All swarms are forgotten; peers announce again.
    pub fn stop(self) {
        self.udp.stop();
        self.http.stop();
    }
}

/// A panic while the book was open leaves it at worst with one peer too few: good enough to go on.
fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen_udp(addrs: &[SocketAddr], book: Arc<Mutex<Book>>) -> io::Result<UdpServing> {
    let greeter = Greeter::new(entropy::seed()?);
    serve_udp(addrs, move |from, bytes, out| {
        let mut book = open(&book);
        let now = book.now();
        udp::answer(&mut book, &greeter, now, from, bytes, out);
    })
}

fn answer<'b>(asked: &Asked<'_>, book: impl Fn() -> MutexGuard<'b, Book>) -> Answer {
    let text = |status, body: &str| Answer { status, content_type: "text/plain", body: body.into() };
    // Clients parse the body whatever its type says; this is what trackers send.
    let bencoded = |body| Answer { status: 200, content_type: "text/plain", body };
    if !matches!(asked.method, "GET" | "HEAD") {
        return text(405, "only GET\n");
    }
    let page = |content_type, body: String| Answer { status: 200, content_type, body: body.into() };
    match (door(asked.path()), asked.path()) {
        (Some((key, "announce")), _) if key.is_none() || book().is_closed() => {
            bencoded(book().announce(key, asked.query(), asked.from.ip()))
        }
        (Some((key, "scrape")), _) if key.is_none() || book().is_closed() => {
            bencoded(book().scrape(key, asked.query()))
        }
        (_, "/metrics") => page(pages::METRICS_TYPE, pages::metrics(&book().report())),
        (_, "/stats") => page("text/html; charset=utf-8", pages::stats(&book().report())),
        (_, "/") => text(200, GREETING),
        _ => text(404, "only /announce and /scrape\n"),
    }
}

fn nameable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        known => known,
    }
}
