//! A tracker: sockets and configuration around discovery::Swarms.
//!
//! Owns the routes and the one lock around the book. Who is in which swarm, for how long, and how many may be, is
//! [`piecemeal_discovery::swarms`]'s; what queries and answers look like, `wire::tracker`'s; patience with slow
//! clients, the shell's server.
//!
//! A peer is known by the address its request comes from. What it claims with `ip=`, `ipv4=` or `ipv6=` (BEP 3,
//! BEP 7) is ignored, or anybody could send a swarm to anybody. So peers must reach the tracker directly: behind a
//! proxy all would have the proxy's address.
#![forbid(unsafe_code)]

mod book;

pub use book::Stats;
pub use piecemeal_shell::http::ServeLimits;

use book::Book;
use piecemeal_discovery::swarms::SwarmLimits;
use piecemeal_shell::http::{Answer, Asked, Serving, serve};
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
const GREETING: &str = concat!("piecemeal tracker ", env!("CARGO_PKG_VERSION"), ": /announce /scrape\n");

/// How the tracker behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. `[::]` also takes IPv4, unless an IPv4 address with the same port is listed.
    pub listen: Vec<SocketAddr>,
    /// How often a peer is asked to announce: from a minute to a day.
    pub interval: Duration,
    /// What strangers may cost in connections.
    pub serve: ServeLimits,
    /// What they may cost in memory.
    pub swarms: SwarmLimits,
}

impl Config {
    /// Half an hour, and the limits that are made for a small machine.
    pub fn new(listen: Vec<SocketAddr>) -> Config {
        Config { listen, interval: INTERVAL, serve: ServeLimits::default(), swarms: SwarmLimits::default() }
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
}

/// A running tracker.
pub struct TrackerServer {
    serving: Serving,
    book: Arc<Mutex<Book>>,
}

impl TrackerServer {
    /// Listens and answers, on a thread of its own.
    ///
    /// # Errors
    /// If a setting can not be, or an address can not be listened on.
    pub fn start(config: Config) -> Result<TrackerServer, StartError> {
        if config.listen.is_empty() {
            return Err(StartError::Config("no address to listen on"));
        }
        if !INTERVALS.contains(&config.interval) {
            return Err(StartError::Config("the interval must be from a minute to a day"));
        }
        let book = Arc::new(Mutex::new(Book::open(&config)?));
        let answering = book.clone();
        let serving = serve(config.listen, move |asked| answer(asked, || open(&answering)), config.serve)?;
        Ok(TrackerServer { serving, book })
    }

    /// Where it listens, in the order of the configuration, with real ports.
    pub fn addrs(&self) -> &[SocketAddr] {
        self.serving.addrs()
    }

    /// What to put into torrents, one for each address listened on. For the unspecified address that is loopback:
    /// only its owner knows the machine's name.
    pub fn urls(&self) -> Vec<String> {
        let url = |addr: &SocketAddr| {
            format!("http://{}/announce", SocketAddr::new(nameable(addr.ip()), addr.port()))
        };
        self.addrs().iter().map(url).collect()
    }

    /// Counts since the start, and what is known now.
    pub fn stats(&self) -> Stats {
        open(&self.book).stats()
    }

    /// Sends the answers that are on their way and ends. All swarms are forgotten; peers announce again.
    pub fn stop(self) {
        self.serving.stop();
    }
}

/// A panic while the book was open leaves it at worst with one peer too few: good enough to go on.
fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer<'b>(asked: &Asked<'_>, book: impl Fn() -> MutexGuard<'b, Book>) -> Answer {
    let text = |status, body: &str| Answer { status, content_type: "text/plain", body: body.into() };
    // Clients parse the body whatever its type says; this is what trackers send.
    let bencoded = |body| Answer { status: 200, content_type: "text/plain", body };
    if !matches!(asked.method, "GET" | "HEAD") {
        return text(405, "only GET\n");
    }
    match asked.path() {
        "/announce" => bencoded(book().announce(asked.query(), asked.from.ip())),
        "/scrape" => bencoded(book().scrape(asked.query())),
        "/" => text(200, GREETING),
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
