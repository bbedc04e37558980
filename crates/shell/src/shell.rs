//! The whole shell around one engine: its threads, and the doors to them.
//!
//! Owns the order of birth and death. Birth: listeners first, since the engine wants to know its port; then the disk,
//! the HTTP client, port mapping and the loop. Death: torrents leave while the mapping is taken back, the loop ends, then
//! the disk's threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use piecemeal_discovery::udp::place;
use piecemeal_engine::cx::{Command, News, Settings};
use piecemeal_engine::{Server, Shard};
use piecemeal_metainfo::{InfoHashes, TorrentId};
use piecemeal_package::BLOCK_LEN;
use piecemeal_transport::proxy::Target;

use crate::disk::{DiskPool, Storage, abandon_done};
use crate::dns::Resolver;
use crate::driven::{Data, Front};
use crate::engine_loop::{
    self, Counters, EngineLoop, Inboxes, Order, Parts, Presence, Stats, UtpStart, Wanted, poll_with_bell,
};
use crate::mailbox::{Doorbell, Mailbox};
use crate::mapping::{MappingSettings, PortMapping};
use crate::net::{Dialer, Traffic};
use crate::news::NewsBox;
use crate::tcp::Door;
use crate::tls::Identity;
use crate::{entropy, http};

/// A pool smaller than this starves: two Blocks for each of a few peers, and a few on the disk.
const MIN_POOL_BUFS: usize = 64;

/// What a shell is made of.
#[derive(Clone, Debug)]
pub struct ShellSettings {
    /// The engine's; `port` is filled in from the first of `listen`, and 0 where nobody can call us.
    pub engine: Settings,
    /// Opens all sockets; its policy decides what is opened at all.
    pub dialer: Dialer,
    /// Where to listen. Port 0 is any free port, one for all addresses if possible. Empty: nobody can call us.
    pub listen: Vec<SocketAddr>,
    /// The router is asked to map our port, unless all of `listen` is loopback. `None`: it is not.
    pub mapping: Option<MappingSettings>,
    /// uTP gives way to all other traffic, as LEDBAT does; else only to what is lost, as TCP does.
    pub utp_yields: bool,
    /// Memory for content, in bytes; at least 1 MiB is taken.
    pub pool_bytes: usize,
    /// Disk threads for each device.
    pub disk_threads: usize,
    /// The engine's randomness; `None` takes it from the operating system.
    pub seed: Option<[u8; 32]>,
}

/// Why a shell did not start.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// An address could not be listened on.
    #[error("cannot listen on {addr}: {why}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// The operating system's words.
        why: std::io::Error,
    },
    /// The operating system refused something else.
    #[error("cannot start {what}: {why}")]
    System {
        /// What was to be started.
        what: &'static str,
        /// The operating system's words.
        why: std::io::Error,
    },
}

/// An engine at work. Dropped without [`Shell::shutdown`], its threads end with the process.
pub struct Shell {
    dialer: Dialer,
    listening: Vec<SocketAddr>,
    hearing: Vec<SocketAddr>,
    mapping: Option<PortMapping>,
    inboxes: Inboxes,
    disk: Arc<DiskPool>,
    news: Arc<NewsBox>,
    counters: Arc<Counters>,
    /// The loop's thread holds the sender, and never sends: it is gone when the thread is.
    loop_ends: Receiver<()>,
}

impl Shell {
    /// Starts listening, and all threads.
    ///
    /// # Errors
    /// See [`ShellError`]; nothing is left running then.
    pub fn start(settings: ShellSettings) -> Result<Shell, ShellError> {
        Shell::start_with(settings, |engine, seed, pool_bufs| {
            let server = Server::new(engine.clone(), entropy::fork(&seed, "server"));
            (server, Shard::new(engine, entropy::fork(&seed, "shard 0"), pool_bufs))
        })
    }

    /// As [`Shell::start`], around whatever `build` makes of the settings (their port filled in), a seed and the
    /// number of Bufs; it is called on the loop's thread.
    ///
    /// # Errors
    /// See [`ShellError`].
    pub fn start_with<F: Front, D: Data>(
        settings: ShellSettings,
        build: impl FnOnce(Settings, [u8; 32], usize) -> (F, D) + Send + 'static,
    ) -> Result<Shell, ShellError> {
        let ShellSettings { mut engine, dialer, listen, mapping, utp_yields, pool_bytes, disk_threads, seed } =
            settings;
        dialer.set_gate(engine.gate.clone());
        let system = |what| move |why| ShellError::System { what, why };
        let seed = seed.map_or_else(entropy::seed, Ok).map_err(system("without randomness"))?;
        let utp = UtpStart { seed: entropy::fork(&seed, "utp"), yields: utp_yields };
        let utp = engine.utp.then_some(utp);
        let relay = entropy::fork(&seed, "relay");
        let mut wanted = Wanted { listen, tcp: engine.tcp, utp, relay, lsd: engine.lsd };
        let opened = engine_loop::open(&dialer, &wanted);
        let (doors, groups) = opened.map_err(|(addr, why)| ShellError::Listen { addr, why })?;
        let is_open = |door: &&Door| door.tcp.is_some() || (utp.is_some() && door.udp.is_some());
        let listening: Vec<SocketAddr> = doors.iter().filter(is_open).map(|door| door.addr).collect();
        let hearing = doors.iter().filter(|door| door.udp.is_some()).map(|door| door.addr).collect();
        wanted.listen = to_keep(wanted.listen, &doors).map_err(system("without randomness"))?;
        // A port that nobody can call by the proxy is nobody's to know.
        let called = dialer.way(Traffic::Incoming).is_direct();
        engine.port = wanted.listen.first().filter(|_| called).map_or(0, SocketAddr::port);

        let (poll, bell) = poll_with_bell().map_err(system("the event loop"))?;
        let inboxes = inboxes(&bell);
        let fetched = inboxes.fetched.clone();
        let reply: http::Reply =
            Box::new(move |torrent, fetch, result| fetched.push((torrent, fetch, result)));
        let client =
            http::Client::start(dialer.clone(), &engine.client, reply).map_err(system("the HTTP client"))?;
        let resolved = inboxes.resolved.clone();
        let resolver = Resolver::new(dialer.clone(), Box::new(move |outcome| resolved.push(outcome)));
        let disk = Arc::new(DiskPool::start(disk_threads, inboxes.disk.clone()));
        let (news, counters) = (Arc::new(NewsBox::default()), Arc::new(Counters::default()));
        let parts = Parts {
            poll,
            bell,
            inboxes: inboxes.clone(),
            presence: Presence::new(dialer.clone(), wanted),
            doors,
            groups,
            disk: disk.clone(),
            fetch: Box::new(move |torrent, fetch| match place(&fetch.url).is_some() {
                true => resolver.resolve(torrent, fetch),
                false => client.fetch(torrent, fetch),
            }),
            news: news.clone(),
            counters: counters.clone(),
        };
        let reached = inboxes.orders.clone();
        let told = move |reach| reached.push(Order::Command(Command::Reach(reach)));
        let mapping = mapping.filter(|_| dialer.way(Traffic::Mapping).is_direct());
        let mapping = mapping.map(|mapping| PortMapping::start(&mapping, &listening, Box::new(told)));
        let mapping = mapping.transpose().map_err(system("port mapping"))?.flatten();
        let pool_bufs = (pool_bytes / BLOCK_LEN as usize).max(MIN_POOL_BUFS);
        let loop_ends = spawn_loop(parts, move || build(engine, seed, pool_bufs))?;
        let orders = inboxes.orders.clone();
        dialer.watch(move || orders.push(Order::Interface)).map_err(system("a thread for the interface"))?;
        Ok(Shell { dialer, listening, hearing, mapping, inboxes, disk, news, counters, loop_ends })
    }

    /// What all its sockets are opened by.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The addresses listened on since the start, in the order of the settings; none if the interface was away then.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Where datagrams are heard, likewise.
    pub fn hearing(&self) -> &[SocketAddr] {
        &self.hearing
    }

    /// Tells where a torrent lies; before the [`Command::Add`] of it. It is forgotten by itself with
    /// [`News::Gone`].
    ///
    /// # Errors
    /// A thread for its device could not be started.
    pub fn register(&self, torrent: TorrentId, storage: Storage) -> Result<(), ShellError> {
        self.disk.register(torrent, storage).map_err(|why| ShellError::System { what: "a disk thread", why })
    }

    /// Tells who we are to the peers of a torrent with a root certificate; before the [`Command::Add`] of it. It is forgotten
    /// by itself with [`News::Gone`].
    pub fn identify(&self, torrent: TorrentId, hashes: InfoHashes, identity: Identity) {
        self.inboxes.orders.push(Order::Identity(torrent, hashes, Box::new(identity)));
    }

    /// Commands the engine; it hears of it soon. Lost if the engine has ended.
    pub fn command(&self, command: Command) {
        if let Command::Gate(gate) = &command {
            self.dialer.set_gate(gate.clone());
        }
        self.inboxes.orders.push(Order::Command(command));
    }

    /// Hosts of the DHT, by name and port, that the proxy is to look up: they are asked by way of it, and who answers is a
    /// node. Nothing happens where no datagrams go by a proxy.
    pub fn ask_hosts(&self, hosts: Vec<(String, u16)>) {
        let hosts = hosts.into_iter().map(|(host, port)| Target::Name { host, port }).collect();
        self.inboxes.orders.push(Order::Hosts(hosts));
    }

    /// The next News; waits for it at most `timeout`, or for ever. `None`: there was none, or the engine has ended.
    pub fn recv_news(&self, timeout: Option<Duration>) -> Option<News> {
        self.news.recv(timeout)
    }

    /// Lets whoever waits in [`Shell::recv_news`] go: one wait, this one or the next, ends without News.
    pub fn let_listener_go(&self) {
        self.news.let_go();
    }

    /// How many News were lost because nobody took them.
    pub fn lost_news(&self) -> u64 {
        self.news.lost()
    }

    /// What the loop did so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// An opaque mark of this boot of the machine, for `Seating::boot`.
    pub fn boot_id() -> [u8; 16] {
        entropy::boot_id()
    }

    /// Lets all torrents leave, ends all threads, and returns the News that nobody took. What is not done after
    /// `deadline` is left undone: threads that hang in the system end with the process.
    pub fn shutdown(self, deadline: Duration) -> Vec<News> {
        let until = Instant::now() + deadline;
        let unmapped = self.mapping.map(|mapping| mapping.stop(until));
        self.inboxes.orders.push(Order::Stop(until));
        // The loop itself keeps the deadline; a little more lets it say its last.
        let ended = self.loop_ends.recv_deadline(until + LAST_WORDS);
        if !matches!(ended, Err(RecvTimeoutError::Timeout)) {
            self.disk.stop(until.max(Instant::now() + LAST_WORDS));
        }
        if let Some(unmapped) = unmapped {
            let _ = unmapped.recv_deadline(until + LAST_WORDS);
        }
        std::iter::from_fn(|| self.news.recv(Some(Duration::ZERO))).collect()
    }
}

/// Where to listen from now on: at the ports that were got. Where any would do and none was got, one is chosen: the engine
/// says its port before it listens, or without. It is one of those that nobody has for long (RFC 6335).
fn to_keep(mut listen: Vec<SocketAddr>, doors: &[Door]) -> std::io::Result<Vec<SocketAddr>> {
    if !doors.is_empty() {
        listen = doors.iter().map(|door| door.addr).collect();
    }
    if listen.iter().any(|addr| addr.port() == 0) {
        let [high, low, ..] = entropy::seed()?;
        let port = 0xc000 | u16::from_be_bytes([high, low]);
        listen.iter_mut().filter(|addr| addr.port() == 0).for_each(|addr| addr.set_port(port));
    }
    Ok(listen)
}

/// What a thread has beyond a deadline to come to its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn inboxes(bell: &Arc<Doorbell>) -> Inboxes {
    Inboxes {
        orders: Mailbox::new(bell.clone()),
        disk: Mailbox::with_discard(bell.clone(), |(_, done)| abandon_done(done)),
        fetched: Mailbox::new(bell.clone()),
        resolved: Mailbox::new(bell.clone()),
        totals: Mailbox::new(bell.clone()),
    }
}

fn spawn_loop<F: Front, D: Data>(
    parts: Parts,
    build: impl FnOnce() -> (F, D) + Send + 'static,
) -> Result<Receiver<()>, ShellError> {
    let (alive, ends) = crossbeam_channel::bounded::<()>(0);
    let (started, start) = crossbeam_channel::bounded(1);
    let system = |what| move |why| ShellError::System { what, why };
    let run = move || {
        let _alive = alive;
        let _closing = CloseNews(parts.news.clone());
        let (front, data) = build();
        match EngineLoop::new(parts, front, data) {
            Ok(engine) => {
                let _ = started.send(Ok(()));
                engine.run();
            }
            Err(why) => {
                let _ = started.send(Err(why));
            }
        }
    };
    let named = std::thread::Builder::new().name("piecemeal-loop".into());
    named.spawn(run).map_err(system("the loop's thread"))?;
    let answer = start.recv().unwrap_or_else(|_| Err(std::io::Error::other("the engine panicked at birth")));
    answer.map_err(system("the event loop"))?;
    Ok(ends)
}

/// Tells listeners that no more News come, also when the loop ends by a panic.
struct CloseNews(Arc<NewsBox>);

impl Drop for CloseNews {
    fn drop(&mut self) {
        self.0.close();
    }
}
