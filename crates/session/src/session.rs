//! The running product: an engine at work, its torrents, and the thread that hears what it tells.
//!
//! Owns birth and death, and the way of each command to the engine. The order of locks: the engine's, then the
//! table's, then those of listeners and store; none is held while the disk or the network is waited for.

mod resolve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use piecemeal_api::{
    AddTorrent, Cancel, Client, Content, Details, EngineOptions, Event, Events, Farewell, IpFilterStatus,
    Limits, Mapping, Options, Refusal, ResolveRequest, Resolved, State, Status,
};
use piecemeal_engine::cx::{Change, Command, News, Reach};
use piecemeal_metainfo::TorrentId;
use piecemeal_shell::Shell;

use crate::add::{self, Prepared};
use crate::hub::{EventStream, Hub};
use crate::lists::{self, Blocking, Keeper, Lists};
use crate::machine;
use crate::store::Store;
use crate::table::{Errand, Table, Torrent};
use crate::{nodes, words};

/// Of a farewell's time, what the engine does not get: its threads end a little after it, and facts are written last.
const AFTER_ENGINE: Duration = Duration::from_millis(900);
/// However late it is, facts that are ready get this long to be written.
const LAST_FACTS: Duration = Duration::from_millis(300);

/// A running BitTorrent client: torrents, their progress and their resume facts.
///
/// All methods may be called from any thread. Only [`Session::resolve`] and [`Session::shutdown`] wait for the network;
/// [`Session::add`] and [`Session::shutdown`] wait for the disk. It is also a [`Client`], the same thing as a trait.
///
/// Dropped without [`Session::shutdown`], it stops its threads and takes no leave of anybody.
pub struct Session {
    shared: Arc<Shared>,
    /// `None` once it was shut down.
    running: Mutex<Option<Running>>,
    /// Held while a torrent is added, so that two cannot both find that they are the first.
    adding: Mutex<()>,
    listening: Vec<SocketAddr>,
    /// Where datagrams are heard.
    hearing: Vec<SocketAddr>,
    boot: [u8; 16],
    farewell: Mutex<Farewell>,
}

struct Running {
    shell: Arc<Shell>,
    news: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    keeper: Option<Keeper>,
}

/// What the news thread shares with callers.
struct Shared {
    table: Mutex<Table>,
    hub: Hub,
    store: Option<Store>,
    /// What the session was started with.
    options: EngineOptions,
    /// Where nodes of the DHT are kept.
    nodes: Option<PathBuf>,
    /// By a router's help, and since when.
    reach: Mutex<Option<(Reach, Instant)>>,
    blocking: Arc<Blocking>,
    /// The engine's thread died.
    died: AtomicBool,
}

impl Session {
    /// Starts listening, and all threads.
    ///
    /// # Errors
    /// An address cannot be listened on, `state_dir` cannot be made, a limit is 0, a file of the IP filter cannot be read or
    /// is no list, a ban is no range, or the system refuses threads.
    /// Nothing is left running then.
    pub fn start(options: &EngineOptions) -> Result<Session, Refusal> {
        let limits = add::limits(options.limits)?;
        let store = options.state_dir.as_deref().map(Store::open).transpose()?;
        let nodes_file = options.state_dir.as_deref().filter(|_| options.dht).map(nodes::file);
        let kept = nodes_file.as_deref().map(nodes::load).unwrap_or_default();
        let lists = Lists::open(&options.ip_filters, options.state_dir.as_deref(), Instant::now())?;
        let blocking = Arc::new(Blocking::new(&lists, &options.ban)?);
        let shell = Arc::new(machine::start(options, kept.ids, &blocking.gate())?);
        shell.command(Command::Limits { down: limits.0, up: limits.1 });
        let (listening, hearing) = (shell.listening().to_vec(), shell.hearing().to_vec());
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            hub: Hub::default(),
            store,
            options: options.clone(),
            nodes: nodes_file,
            reach: Mutex::default(),
            blocking,
            died: AtomicBool::new(false),
        });
        nodes::begin(options, &shell, kept.nodes);
        let keeper = keep(lists, &shell, &shared)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (its, engine, stopped) = (shared.clone(), shell.clone(), stop.clone());
        let news = std::thread::Builder::new()
            .name("piecemeal-news".into())
            .spawn(move || its.listen(&engine, &stopped))
            .map_err(|why| Refusal::System {
                what: "a thread for news".into(),
                reason: words::reason(&why),
            })?;
        Ok(Session {
            shared,
            running: Mutex::new(Some(Running { shell, news, stop, keeper })),
            adding: Mutex::default(),
            listening,
            hearing,
            boot: Shell::boot_id(),
            farewell: Mutex::default(),
        })
    }

    /// Adds a torrent and starts it, unless asked not to. The directory is made if it is not there.
    ///
    /// # Errors
    /// The metainfo does not parse or is of v2 alone; a selected file does not exist, or none is selected; a limit is
    /// 0; the torrent, or another with a file of the same name in the same place, is here already; another session
    /// has it; the directory cannot be made, or is gone though content in it was verified before.
    pub fn add(&self, torrent: AddTorrent) -> Result<TorrentId, Refusal> {
        let _alone = lock(&self.adding);
        drop(self.engine()?);
        let checked = add::check(&torrent)?;
        add::reachable(&checked, self.shared.options.transports)?;
        add::free(&checked, &self.shared.table())?;
        let prepared = add::prepare(torrent, checked, self.shared.store.as_ref(), self.boot)?;
        let engine = self.engine()?;
        let mut table = self.shared.table();
        let id = table.next_id();
        let Prepared { storage, mut seating, identity, torrent } = prepared;
        seating.torrent = id;
        engine.register(id, storage).map_err(machine::refusal)?;
        if let Some(identity) = identity {
            engine.identify(id, seating.meta.info_hashes(), identity);
        }
        self.shared.hub.send([table.insert(id, torrent)]);
        if self.shared.options.dht {
            nodes::named_by(&seating.meta, engine.shell());
        }
        engine.command(Command::Add(Box::new(seating)));
        Ok(id)
    }

    /// Stops a torrent: its peers are disconnected and its trackers told. Paused already: nothing happens.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn pause(&self, id: TorrentId) -> Result<(), Refusal> {
        self.change(id, |torrent| {
            torrent.options.paused = true;
            vec![Change::Options(torrent.options)]
        })
    }

    /// Starts a paused torrent, or one in trouble, again.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn resume(&self, id: TorrentId) -> Result<(), Refusal> {
        self.change(id, |torrent| {
            torrent.options.paused = false;
            vec![Change::Options(torrent.options), Change::Retry]
        })
    }

    /// Removes a torrent and what was kept of it for the next run. Its number is unknown from now on;
    /// [`Event::Gone`] tells when it has left. Until then the same torrent cannot be added again.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn remove(&self, id: TorrentId, content: Content) -> Result<(), Refusal> {
        let engine = self.engine()?;
        let mut table = self.shared.table();
        table.get_mut(id)?.leaving = true;
        engine.command(Command::Remove { torrent: id, delete: content == Content::Delete });
        Ok(())
    }

    /// Hashes everything that is there again.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn recheck(&self, id: TorrentId) -> Result<(), Refusal> {
        self.change(id, |_| vec![Change::Recheck])
    }

    /// Announces to all trackers, as soon as they allow.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn announce(&self, id: TorrentId) -> Result<(), Refusal> {
        self.change(id, |_| vec![Change::Announce])
    }

    /// Addresses to try.
    ///
    /// # Errors
    /// There is no such torrent, or the session has shut down.
    pub fn add_peers(&self, id: TorrentId, peers: &[SocketAddr]) -> Result<(), Refusal> {
        self.change(id, |_| vec![Change::AddPeers(peers.to_vec())])
    }

    /// Changes what a torrent was added with.
    ///
    /// # Errors
    /// As [`Session::add`] for a selection and limits; there is no such torrent, or the session has shut down.
    /// Nothing is changed then.
    pub fn set_options(&self, id: TorrentId, options: Options) -> Result<(), Refusal> {
        let meta = self.shared.table().get(id)?.meta.clone();
        let wanted = options.select.as_ref().map(|select| add::wanted(&meta, select)).transpose()?;
        let limits = options.limits.map(add::limits).transpose()?;
        self.change(id, |torrent| {
            if let Some(sequential) = options.sequential {
                torrent.options.sequential = sequential;
            }
            if let Some((down, up)) = limits {
                (torrent.options.down_limit, torrent.options.up_limit) = (down, up);
            }
            let select = wanted.map(|wanted| {
                torrent.wanted = wanted.clone();
                Change::Wanted(wanted)
            });
            [Change::Options(torrent.options)].into_iter().chain(select).collect()
        })
    }

    /// How a torrent stands: at most a second old, and never older than an event that was heard of it.
    ///
    /// # Errors
    /// There is no such torrent. After a shutdown torrents are still known, as gone.
    pub fn status(&self, id: TorrentId) -> Result<Status, Refusal> {
        self.shared.table().status(id)
    }

    /// The same with peers, trackers and files. Trackers of a paused torrent are asked for counts, every half hour at
    /// most; a later look tells them.
    ///
    /// # Errors
    /// As [`Session::status`].
    pub fn details(&self, id: TorrentId) -> Result<Details, Refusal> {
        let details = self.shared.table().details(id)?;
        if details.status.state == State::Paused
            && let Ok(engine) = self.engine()
        {
            engine.command(Command::Change(id, Change::Look));
        }
        Ok(details)
    }

    /// How all torrents stand, in order of adding.
    pub fn list(&self) -> Vec<Status> {
        self.shared.table().list()
    }

    /// A new listener; it hears what happens from now on, and before all that the interface is away, if it is.
    pub fn events(&self) -> EventStream {
        self.shared.hub.listen()
    }

    /// Limits over all torrents. `Some(0)` is taken as one byte per second: as near to nothing as it gets.
    pub fn set_limits(&self, limits: Limits) {
        if let Ok(engine) = self.engine() {
            let least = |limit: Option<u64>| limit.map_or(0, |limit| limit.max(1));
            engine.command(Command::Limits { down: least(limits.down), up: least(limits.up) });
        }
    }

    /// Where peers can reach us; real ports, never 0.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Where datagrams are heard; real ports, never 0.
    pub(crate) fn hearing(&self) -> &[SocketAddr] {
        &self.hearing
    }

    /// Where peers from outside reach us, if a router passes on to us what comes there.
    pub fn mapping(&self) -> Option<Mapping> {
        lock(&self.shared.reach).map(|(reach, since)| words::mapping(&reach, since.elapsed()))
    }

    /// Talks to nobody at this address, network (`1.2.3.0/24`) or range (`1.2.3.4-1.2.3.8`), from now on: whoever is
    /// connected is sent away. False if it is banned already. Bans are not kept over a restart.
    ///
    /// # Errors
    /// It is no range, there are too many of them, or the session has shut down.
    pub fn ban(&self, range: &str) -> Result<bool, Refusal> {
        let range = lists::ban(range)?;
        self.shared.blocking.set(range, true, self.engine()?.shell())
    }

    /// Lifts a ban, which must be one of [`Session::bans`]; false if it is none. What lists of the IP filter block stays
    /// blocked.
    ///
    /// # Errors
    /// It is no range, or the session has shut down.
    pub fn unban(&self, range: &str) -> Result<bool, Refusal> {
        let range = lists::ban(range)?;
        self.shared.blocking.set(range, false, self.engine()?.shell())
    }

    /// What is banned by hand, in order of addresses.
    pub fn bans(&self) -> Vec<String> {
        self.shared.blocking.bans()
    }

    /// How the IP filter stands.
    pub fn ip_filter(&self) -> IpFilterStatus {
        let (ranges, lists) = self.shared.blocking.lists();
        let blocked = self.engine().map_or(0, |engine| engine.stats().blocked);
        IpFilterStatus { ranges, lists, blocked }
    }

    /// Takes leave of peers and trackers, writes resume facts and ends all threads, within `deadline` and never more
    /// than [`EngineOptions::MAX_FAREWELL`]. Listeners hear [`Event::Gone`] for each torrent. A second call returns
    /// at once.
    pub fn shutdown(&self, deadline: Duration) -> Farewell {
        let Some(running) = lock(&self.running).take() else { return *lock(&self.farewell) };
        let farewell = self.shared.leave(running, deadline.min(EngineOptions::MAX_FAREWELL));
        *lock(&self.farewell) = farewell;
        farewell
    }

    fn change(&self, id: TorrentId, change: impl FnOnce(&mut Torrent) -> Vec<Change>) -> Result<(), Refusal> {
        let engine = self.engine()?;
        let mut table = self.shared.table();
        for change in change(table.get_mut(id)?) {
            engine.command(Command::Change(id, change));
        }
        Ok(())
    }

    /// The engine, held so that it cannot be shut down meanwhile.
    fn engine(&self) -> Result<Engine<'_>, Refusal> {
        let running = lock(&self.running);
        let died = self.shared.died.load(Ordering::Acquire);
        if running.is_some() && !died { Ok(Engine(running)) } else { Err(Refusal::Closed) }
    }
}

/// Keeps the lists of the IP filter fresh.
fn keep(lists: Lists, shell: &Arc<Shell>, shared: &Arc<Shared>) -> Result<Option<Keeper>, Refusal> {
    let (its, told) = (Arc::downgrade(shared), Arc::downgrade(shared));
    let tell = move |event| {
        if let Some(shared) = told.upgrade() {
            shared.hub.send([event]);
        }
    };
    Keeper::start(lists, shell, move || its.upgrade().map(|shared| shared.blocking.clone()), tell)
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.running).take() {
            self.shared.leave(running, Duration::ZERO);
        }
    }
}

struct Engine<'a>(MutexGuard<'a, Option<Running>>);

impl Engine<'_> {
    fn shell(&self) -> &Arc<Shell> {
        &self.0.as_ref().expect("held since it was seen to run").shell
    }
}

impl std::ops::Deref for Engine<'_> {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        self.shell()
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// The life of the news thread.
    fn listen(&self, shell: &Arc<Shell>, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            match shell.recv_news(None) {
                Some(news) => {
                    let back = matches!(news, News::Interface { there: true, .. });
                    self.hear(news);
                    if back && self.options.dht {
                        nodes::ask(shell, nodes::first_hosts(&self.options, shell));
                    }
                }
                None if stop.load(Ordering::Acquire) => {}
                None => return self.engine_died(),
            }
        }
    }

    fn hear(&self, news: News) {
        if let News::Nodes(nodes) = &news {
            // Not worth an error: the next run asks the hosts that everybody knows.
            let _ = self.nodes.as_deref().map(|file| nodes::save(file, nodes));
            return;
        }
        if let News::Reach(reach) = news {
            *lock(&self.reach) = reach.map(|reach| (reach, Instant::now()));
            let mapping = reach.map(|reach| words::mapping(&reach, Duration::ZERO));
            return self.hub.send([Event::Mapping { mapping }]);
        }
        let (mut events, mut errands) = (Vec::new(), Vec::new());
        let mut table = self.table();
        table.hear(news, &mut events, &mut errands);
        // Under the lock: nobody may hear of it before the table knows, or out of order.
        self.hub.send(events);
        for errand in errands {
            match (&self.store, errand) {
                (Some(store), Errand::Save(claim, facts)) => store.save(&claim, facts),
                (Some(store), Errand::Forget(claim)) => store.forget(&claim),
                (None, _) => {}
            }
        }
    }

    fn engine_died(&self) {
        self.died.store(true, Ordering::Release);
        let mut events: Vec<Event> = Vec::new();
        let mut table = self.table();
        table.engine_died(&mut events);
        self.hub.send(events);
        self.hub.close();
    }

    fn leave(&self, running: Running, deadline: Duration) -> Farewell {
        let until = Instant::now() + deadline;
        let Running { shell, news, stop, keeper } = running;
        stop.store(true, Ordering::Release);
        drop(keeper);
        shell.let_listener_go();
        // A panic there has been reported by the thread itself.
        let _ = news.join();
        self.table().end();
        let left = until.saturating_duration_since(Instant::now());
        let for_engine = left.saturating_sub(AFTER_ENGINE);
        // Commands hold it only under the lock that no longer leads to it, and the news thread has ended. Whoever looks up
        // names holds it for as long as it takes to put a letter into a box.
        let mut held = shell;
        let alone = loop {
            match Arc::try_unwrap(held) {
                Ok(shell) => break Some(shell),
                Err(_) if Instant::now() >= until => break None,
                Err(again) => held = again,
            }
            std::thread::yield_now();
        };
        if let Some(shell) = alone {
            shell.shutdown(for_engine).into_iter().for_each(|news| self.hear(news));
        }
        let mut table = self.table();
        let unsaved = table.staying().filter_map(|(_, torrent)| torrent.unsaved());
        let mut unsaved: Vec<String> = unsaved.map(str::to_owned).collect();
        let unannounced = table.staying().map(|(_, torrent)| torrent.trackers_that_know_us()).sum();
        let mut events = Vec::new();
        table.all_gone(&mut events);
        self.hub.send(events);
        drop(table);
        if let Some(store) = &self.store {
            unsaved.extend(store.close(until.max(Instant::now() + LAST_FACTS)));
        }
        self.hub.close();
        unsaved.sort();
        unsaved.dedup();
        Farewell { unsaved: words::count(unsaved.len()), unannounced: words::count(unannounced) }
    }
}

/// The same, for who speaks to it as to any other client.
impl Client for Session {
    fn add(&self, torrent: AddTorrent) -> Result<TorrentId, Refusal> {
        self.add(torrent)
    }
    fn resolve(&self, request: ResolveRequest, cancel: &Cancel) -> Result<Resolved, Refusal> {
        self.resolve(request, cancel)
    }
    fn pause(&self, id: TorrentId) -> Result<(), Refusal> {
        self.pause(id)
    }
    fn resume(&self, id: TorrentId) -> Result<(), Refusal> {
        self.resume(id)
    }
    fn remove(&self, id: TorrentId, content: Content) -> Result<(), Refusal> {
        self.remove(id, content)
    }
    fn recheck(&self, id: TorrentId) -> Result<(), Refusal> {
        self.recheck(id)
    }
    fn announce(&self, id: TorrentId) -> Result<(), Refusal> {
        self.announce(id)
    }
    fn add_peers(&self, id: TorrentId, peers: &[SocketAddr]) -> Result<(), Refusal> {
        self.add_peers(id, peers)
    }
    fn set_options(&self, id: TorrentId, options: Options) -> Result<(), Refusal> {
        self.set_options(id, options)
    }
    fn status(&self, id: TorrentId) -> Result<Status, Refusal> {
        self.status(id)
    }
    fn details(&self, id: TorrentId) -> Result<Details, Refusal> {
        self.details(id)
    }
    fn list(&self) -> Vec<Status> {
        self.list()
    }
    fn events(&self) -> Box<dyn Events> {
        Box::new(self.events())
    }
    fn set_limits(&self, limits: Limits) {
        self.set_limits(limits);
    }
    fn listening(&self) -> Vec<SocketAddr> {
        self.listening().to_vec()
    }
    fn mapping(&self) -> Option<Mapping> {
        self.mapping()
    }
    fn ban(&self, range: &str) -> Result<bool, Refusal> {
        self.ban(range)
    }
    fn unban(&self, range: &str) -> Result<bool, Refusal> {
        self.unban(range)
    }
    fn bans(&self) -> Vec<String> {
        self.bans()
    }
    fn ip_filter(&self) -> IpFilterStatus {
        self.ip_filter()
    }
    fn shutdown(&self, deadline: Duration) -> Farewell {
        self.shutdown(deadline)
    }
}

/// Who panicked with a lock has said so; what it guarded is still made of whole values.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
