//! The HTTP client of the torrents: trackers.
//!
//! Owns the control thread, which starts with the first fetch, and the waiting line in front of it. One fetch gets one
//! reply, unless the client is stopped first. When to announce again is `discovery::tracker`'s.

use super::get::{Browser, GetError, Trust};
use super::line::Line;
use crate::net::{Dialer, Traffic};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure, FetchId};
use piecemeal_metainfo::TorrentId;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

/// Fetches handed over and not yet in the waiting line: a burst of all torrents of a large session.
const HANDED_OVER_MAX: usize = 16_384;
/// Bytes of an answer after inflating; 50 times what 200 peers need. As `bencode::Limits::TRACKER`.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Threads that wait for name servers: more than enough for names that are known, and a bound for those
/// whose servers are dead.
const RESOLVERS_MAX: usize = 16;
/// What goes by this client.
const TRAFFIC: Traffic = Traffic::HttpTrackers;

/// Called with the outcome of each fetch, on the control thread, or at once on the caller's when a fetch can not even
/// wait. Must not block: a mailbox.
pub type Reply = Box<dyn Fn(TorrentId, FetchId, Result<Vec<u8>, FetchFailure>) + Send + Sync>;

/// The door to the control thread.
pub struct Client {
    dialer: Dialer,
    user_agent: String,
    reply: Arc<Reply>,
    control: OnceLock<Control>,
}

struct Control {
    asks: mpsc::Sender<Asked>,
    thread: thread::JoinHandle<()>,
}

/// A fetch and whose it is.
struct Asked {
    torrent: TorrentId,
    fetch: Fetch,
}

impl Client {
    /// A client that starts no thread until something is fetched, and goes by the way of `dialer`. `user_agent` goes out
    /// with each request.
    ///
    /// # Errors
    /// If `user_agent` can not be a header.
    pub fn start(dialer: Dialer, user_agent: &str, reply: Reply) -> io::Result<Client> {
        if user_agent.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a user agent must be printable ASCII"));
        }
        let (user_agent, reply) = (user_agent.to_owned(), Arc::new(reply));
        Ok(Client { dialer, user_agent, reply, control: OnceLock::new() })
    }

    /// Gets the URL as soon as its turn comes; `fetch.timeout` counts from then.
    pub fn fetch(&self, torrent: TorrentId, fetch: Fetch) {
        let id = fetch.id;
        if let Err(why) = self.hand_over(Asked { torrent, fetch }) {
            (self.reply)(torrent, id, Err(FetchFailure::Unreachable(why)));
        }
    }

    /// Ends the control thread and drops all fetches, waiting or under way, without a reply. After this no reply is
    /// called. To say farewell to trackers, wait for those replies first.
    pub fn stop(self) {
        if let Some(control) = self.control.into_inner() {
            drop(control.asks);
            // A panic there has been reported by the thread itself.
            let _ = control.thread.join();
        }
    }

    fn hand_over(&self, asked: Asked) -> Result<(), String> {
        let control = match self.control.get() {
            Some(control) => control,
            None => self.begin().map_err(|why| why.to_string())?,
        };
        control.asks.try_send(asked).map_err(|_| "too many requests are waiting".into())
    }

    fn begin(&self) -> io::Result<&Control> {
        let (asks, inbox) = mpsc::channel(HANDED_OVER_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVERS_MAX)
            .thread_name("resolver")
            .build()?;
        let desk = Desk::new(&self.dialer, &self.user_agent, self.reply.clone());
        let thread = thread::Builder::new().name("http-client".into()).spawn(move || {
            runtime.block_on(desk.run(inbox));
            // A look-up that hangs in the system's resolver must not hold up the end of the process.
            runtime.shutdown_background();
        })?;
        // Two callers may come here at once; the thread of the later ends as its sender is dropped.
        Ok(self.control.get_or_init(|| Control { asks, thread }))
    }
}

/// What the control thread knows.
struct Desk {
    browsers: [Arc<Browser>; 2],
    reply: Arc<Reply>,
    line: Line<Asked>,
    tasks: JoinSet<()>,
    /// Whose a task is, for the line, and for a reply should it die. Bound: the line's.
    under_way: BTreeMap<Id, (String, TorrentId, FetchId)>,
}

impl Desk {
    fn new(dialer: &Dialer, user_agent: &str, reply: Arc<Reply>) -> Desk {
        let browsers = [[true, false], [false, true]].map(|families| {
            Arc::new(Browser::new(dialer.clone(), TRAFFIC, Trust::Torrent, user_agent, families))
        });
        Desk { browsers, reply, line: Line::new(), tasks: JoinSet::new(), under_way: BTreeMap::new() }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Asked>) {
        loop {
            tokio::select! {
                asked = inbox.recv() => match asked {
                    Some(asked) => self.enqueue(asked),
                    None => return,
                },
                Some(ended) = self.tasks.join_next_with_id() => match ended {
                    Ok((task, ())) => self.ended(task, false),
                    Err(why) => self.ended(why.id(), true),
                },
            }
            while let Some((host, asked)) = self.line.next() {
                self.begin(host, asked);
            }
        }
    }

    fn enqueue(&mut self, asked: Asked) {
        let host = authority(&asked.fetch.url).to_owned();
        let farewell = asked.fetch.url.contains("&event=stopped");
        if let Err(asked) = self.line.push(host, farewell, asked) {
            let why = FetchFailure::Unreachable("too many requests are waiting".into());
            (self.reply)(asked.torrent, asked.fetch.id, Err(why));
        }
    }

    fn begin(&mut self, host: String, asked: Asked) {
        let Asked { torrent, fetch } = asked;
        let id = fetch.id;
        let browser = self.browsers[usize::from(fetch.family == Family::V6)].clone();
        let reply = self.reply.clone();
        let task = self.tasks.spawn(async move {
            let got = browser.get(&fetch.url, ANSWER_MAX_BYTES, fetch.timeout).await;
            reply(torrent, id, got.map_err(failure));
        });
        self.under_way.insert(task.id(), (host, torrent, id));
    }

    fn ended(&mut self, task: Id, died: bool) {
        if let Some((host, torrent, id)) = self.under_way.remove(&task) {
            self.line.done(&host);
            if died {
                (self.reply)(torrent, id, Err(FetchFailure::Unreachable("the request died of a bug".into())));
            }
        }
    }
}

/// The part of a URL that says whom it asks; only for taking turns.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn failure(why: GetError) -> FetchFailure {
    match why {
        GetError::NoAddress => FetchFailure::NoAddress,
        GetError::Status(code, body) => FetchFailure::Status(code, body),
        GetError::TimedOut => FetchFailure::TimedOut,
        other => FetchFailure::Unreachable(other.to_string()),
    }
}
