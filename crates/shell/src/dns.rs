//! Names of UDP trackers, looked up by the system.
//!
//! Owns a few threads that may wait for the system's resolver, started with the first name, and what was looked up
//! lately: thousands of torrents name the same few trackers. HTTP looks its names up by itself (`http::place`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure};
use piecemeal_discovery::udp::place;
use piecemeal_metainfo::TorrentId;

/// Look-ups at once: names that are known are quick, and dead servers must not hold up all others.
const THREADS: usize = 4;
/// Requests that may wait for their look-up; each costs a few hundred bytes.
const WAITING_MAX: usize = 16_384;
/// A name is not looked up again sooner, found or not.
const KEPT: Duration = Duration::from_secs(300);
/// Names kept; beyond that all are forgotten, and looked up again as they come.
const NAMES_MAX: usize = 4096;

/// What became of a name: a request with the address to send it to, or why there is none.
pub(crate) type Resolved = (TorrentId, Fetch, Result<SocketAddr, FetchFailure>);

/// Called with each outcome, on any thread. Must not block: a mailbox.
pub(crate) type Reply = Box<dyn Fn(Resolved) + Send + Sync>;

/// The door to the threads.
pub(crate) struct Resolver {
    inner: Arc<Inner>,
    asks: OnceLock<Sender<(TorrentId, Fetch)>>,
}

/// When a name was looked up, and what it stands for or why that is not known.
type Names = BTreeMap<String, (Instant, Result<Vec<IpAddr>, String>)>;

struct Inner {
    reply: Reply,
    names: Mutex<Names>,
}

impl Resolver {
    pub(crate) fn new(reply: Reply) -> Resolver {
        Resolver { inner: Arc::new(Inner { reply, names: Mutex::default() }), asks: OnceLock::new() }
    }

    /// Looks up whom a `udp://` request asks; answered by one reply.
    pub(crate) fn resolve(&self, torrent: TorrentId, fetch: Fetch) {
        let asks = self.asks.get_or_init(|| start(&self.inner));
        if let Err(TrySendError::Full((torrent, fetch)) | TrySendError::Disconnected((torrent, fetch))) =
            asks.try_send((torrent, fetch))
        {
            let why = FetchFailure::Unreachable("too many names are waiting to be looked up".into());
            (self.inner.reply)((torrent, fetch, Err(why)));
        }
    }
}

/// The threads end with the sender.
fn start(inner: &Arc<Inner>) -> Sender<(TorrentId, Fetch)> {
    let (asks, inbox) = bounded(WAITING_MAX);
    for _ in 0..THREADS {
        let (inner, inbox) = (inner.clone(), inbox.clone());
        // Fewer threads are slower, and none at all is told to whoever asks: the channel has no other end then.
        let _ = std::thread::Builder::new().name("resolver".into()).spawn(move || inner.run(&inbox));
    }
    asks
}

impl Inner {
    fn run(&self, inbox: &Receiver<(TorrentId, Fetch)>) {
        for (torrent, fetch) in inbox {
            let result = self.address(&fetch);
            (self.reply)((torrent, fetch, result));
        }
    }

    fn address(&self, fetch: &Fetch) -> Result<SocketAddr, FetchFailure> {
        let unreachable = |why: &str| FetchFailure::Unreachable(why.to_owned());
        let place = place(&fetch.url).ok_or_else(|| unreachable("the URL names no host and port"))?;
        let all = self.look_up(place.host).map_err(|why| unreachable(&why))?;
        let fits = |ip: &IpAddr| ip.to_canonical().is_ipv4() == (fetch.family == Family::V4);
        let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        let ip = all.into_iter().filter(usable).find(fits).ok_or(FetchFailure::NoAddress)?;
        Ok(SocketAddr::new(ip.to_canonical(), place.port))
    }

    fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let known = self.names().get(host).filter(|(when, _)| when.elapsed() < KEPT).cloned();
        if let Some((_, answer)) = known {
            return answer;
        }
        let found = (host, 0).to_socket_addrs().map(|all| all.map(|addr| addr.ip()).collect());
        let answer: Result<Vec<IpAddr>, String> = found.map_err(|why| why.to_string());
        let mut names = self.names();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(host.to_owned(), (Instant::now(), answer.clone()));
        answer
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecemeal_discovery::tracker::FetchId;

    #[test]
    fn addresses_by_family() {
        let (tell, told) = bounded(10);
        let resolver = Resolver::new(Box::new(move |resolved| tell.send(resolved).unwrap()));
        let ask = |url: &str, family| {
            let fetch = Fetch { id: FetchId(1), url: url.into(), family, timeout: Duration::from_secs(9) };
            resolver.resolve(TorrentId(3), fetch);
            let (torrent, fetch, result) = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!((torrent, fetch.id), (TorrentId(3), FetchId(1)));
            result
        };
        let addr = |text: &str| Ok(text.parse().unwrap());
        assert_eq!(ask("udp://127.0.0.1:80/announce?x=1", Family::V4), addr("127.0.0.1:80"));
        assert_eq!(ask("udp://[::1]:81", Family::V6), addr("[::1]:81"));
        assert_eq!(ask("udp://[::ffff:10.0.0.1]:81", Family::V4), addr("10.0.0.1:81"));
        for (url, family) in [("udp://127.0.0.1:80", Family::V6), ("udp://0.0.0.0:80", Family::V4)] {
            assert_eq!(ask(url, family), Err(FetchFailure::NoAddress), "{url}");
        }
        assert_eq!(ask("udp://localhost:7/", Family::V4), addr("127.0.0.1:7"));
        assert!(matches!(ask("udp://127.0.0.1/", Family::V4), Err(FetchFailure::Unreachable(_))));
    }
}
