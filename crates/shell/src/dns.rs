//! Names of UDP trackers.
//!
//! Owns a few threads that may wait for name servers (`net` asks them), started with the first name, and what was looked up
//! lately: thousands of torrents name the same few trackers. HTTP looks its names up by itself; where either may be led
//! is judged by the same rule (`http::place`), and at each use anew: a name is kept, its judgement is not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use piecemeal_discovery::filter::Gate;
use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure};
use piecemeal_discovery::udp::place;
use piecemeal_metainfo::TorrentId;
use piecemeal_transport::proxy::{Target, datagram};
use reqwest::Url;

use crate::http::{Nowhere, Reach, let_in, looks_like_tracker};
use crate::net::{Dialer, Traffic, Way};

/// Look-ups at once: names that are known are quick, and dead servers must not hold up all others.
const THREADS: usize = 4;
/// Requests that may wait for their look-up; each costs a few hundred bytes.
const WAITING_MAX: usize = 16_384;
/// A name is not looked up again sooner, found or not.
const KEPT: Duration = Duration::from_secs(300);
/// Names kept; beyond that all are forgotten, and looked up again as they come.
const NAMES_MAX: usize = 4096;

/// Said of a name that leads where a torrent's author may not lead us; as HTTP says it.
const LOCAL: &str = "leads to a local address";

/// What became of a name: a request with whom to send it to, or why there is nobody. A name is one for the proxy to look up.
pub(crate) type Resolved = (TorrentId, Fetch, Result<Target, FetchFailure>);

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
    dialer: Dialer,
    reply: Reply,
    names: Mutex<Names>,
}

impl Resolver {
    pub(crate) fn new(dialer: Dialer, reply: Reply) -> Resolver {
        Resolver { inner: Arc::new(Inner { dialer, reply, names: Mutex::default() }), asks: OnceLock::new() }
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
            let result = self.target(&fetch);
            (self.reply)((torrent, fetch, result));
        }
    }

    fn target(&self, fetch: &Fetch) -> Result<Target, FetchFailure> {
        let unreachable = |why: &str| FetchFailure::Unreachable(why.to_owned());
        let place = place(&fetch.url).ok_or_else(|| unreachable("the URL names no host and port"))?;
        match self.dialer.way(Traffic::UdpTrackers) {
            Way::Direct => {}
            Way::Proxy if place.host.parse::<IpAddr>().is_err() => {
                return named(place.host, place.port, fetch.family);
            }
            Way::Proxy => {}
            Way::Off(why) => return Err(unreachable(why)),
        }
        if let Some(why) = self.dialer.away() {
            return Err(FetchFailure::Unreachable(why));
        }
        let all = self.look_up(place.host).map_err(|why| unreachable(&why))?;
        match judge(&fetch.url, fetch.family, all, &self.dialer.gate()) {
            Ok(ip) => Ok(SocketAddr::new(ip, place.port).into()),
            Err(Nowhere::NoAddress) => Err(FetchFailure::NoAddress),
            Err(Nowhere::Local) => Err(unreachable(LOCAL)),
            Err(why @ Nowhere::Blocked) => Err(unreachable(&why.to_string())),
        }
    }

    fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let known = self.names().get(host).filter(|(when, _)| when.elapsed() < KEPT).cloned();
        if let Some((_, answer)) = known {
            return answer;
        }
        let answer = self.dialer.resolve(Traffic::UdpTrackers, host).map_err(|why| why.to_string());
        if answer.is_err() && self.dialer.policy().interface.is_some() {
            // It came or went a moment ago, more likely than not.
            return answer;
        }
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

/// A tracker by the name that the proxy looks up. It takes an address of whichever family it likes, mostly IPv4, so the
/// tracker is asked once.
fn named(host: &str, port: u16, family: Family) -> Result<Target, FetchFailure> {
    if family == Family::V6 {
        return Err(FetchFailure::NoAddress);
    }
    let target = Target::Name { host: host.to_owned(), port };
    // It must be one that can be said to a proxy.
    match datagram::wrap(&target, &[], &mut Vec::new()) {
        Ok(()) => Ok(target),
        Err(fault) => Err(FetchFailure::Unreachable(fault.to_string())),
    }
}

/// Which of the addresses that a tracker's host stands for is sent to: the first of the family that this URL may lead
/// to. Nobody is a tracker at an unspecified address or a group.
fn judge(url: &str, family: Family, found: Vec<IpAddr>, gate: &Gate) -> Result<IpAddr, Nowhere> {
    let local = url.parse().is_ok_and(|url: Url| looks_like_tracker(&url));
    let reach = Reach { v4: family == Family::V4, v6: family == Family::V6, local };
    let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    let found = found.into_iter().map(|ip| ip.to_canonical()).filter(usable).collect();
    let_in(gate, reach.among(found)?)?.into_iter().next().ok_or(Nowhere::NoAddress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Policy;
    use piecemeal_discovery::filter::IpFilter;
    use piecemeal_discovery::tracker::FetchId;

    #[test]
    fn addresses_by_family() {
        let (tell, told) = bounded(10);
        let dialer = Dialer::new(Policy::default());
        let resolver = Resolver::new(dialer, Box::new(move |resolved| tell.send(resolved).unwrap()));
        let ask = |url: &str, family| {
            let fetch = Fetch { id: FetchId(1), url: url.into(), family, timeout: Duration::from_secs(9) };
            resolver.resolve(TorrentId(3), fetch);
            let (torrent, fetch, result) = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!((torrent, fetch.id), (TorrentId(3), FetchId(1)));
            result
        };
        let addr = |text: &str| Ok(Target::Addr(text.parse().unwrap()));
        assert_eq!(ask("udp://127.0.0.1:80/announce?x=1", Family::V4), addr("127.0.0.1:80"));
        assert_eq!(ask("udp://[::1]:81/announce", Family::V6), addr("[::1]:81"));
        assert_eq!(ask("udp://[2001:db8::1]:81", Family::V6), addr("[2001:db8::1]:81"));
        assert_eq!(ask("udp://[::ffff:10.0.0.1]:81/announce", Family::V4), addr("10.0.0.1:81"));
        for (url, family) in [("udp://127.0.0.1:80", Family::V6), ("udp://0.0.0.0:80", Family::V4)] {
            assert_eq!(ask(url, family), Err(FetchFailure::NoAddress), "{url}");
        }
        // The name is known from then on, and judged all the same.
        let local = Err(FetchFailure::Unreachable(LOCAL.into()));
        assert_eq!(ask("udp://localhost:7/announce", Family::V4), addr("127.0.0.1:7"));
        assert_eq!(ask("udp://localhost:53/", Family::V4), local);
        assert_eq!(ask("udp://localhost:7/announce.php?k=1", Family::V4), addr("127.0.0.1:7"));
        assert_eq!(ask("udp://127.0.0.1:53", Family::V4), local);
        assert!(matches!(ask("udp://127.0.0.1/", Family::V4), Err(FetchFailure::Unreachable(_))));
    }

    #[test]
    fn names_are_left_to_a_proxy() {
        let host = Target::Name { host: "t.example".into(), port: 80 };
        assert_eq!(named("t.example", 80, Family::V4), Ok(host));
        assert_eq!(named("t.example", 80, Family::V6), Err(FetchFailure::NoAddress), "asked once");
        for (host, port) in [("t.example\r\n", 80), ("", 80), ("t.example", 0)] {
            assert!(matches!(named(host, port, Family::V4), Err(FetchFailure::Unreachable(_))), "{host:?}");
        }
    }

    #[test]
    fn local_addresses_are_for_what_looks_like_a_tracker() {
        const LOCAL: [&str; 9] = [
            "127.0.0.1",
            "127.255.1.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
        ];
        let judge = |url: &str, found: &[&str]| {
            let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
            let family = if found[0].to_canonical().is_ipv4() { Family::V4 } else { Family::V6 };
            super::judge(url, family, found, &Gate::default())
        };
        for ip in LOCAL.into_iter().chain(["::ffff:127.0.0.1", "::ffff:10.0.0.1"]) {
            let expected: IpAddr = ip.parse::<IpAddr>().unwrap().to_canonical();
            for url in
                ["udp://t.example:6969/announce", "UDP://t.example:1/k/announce?x#y", "udp://t:1/scrape"]
            {
                assert_eq!(judge(url, &[ip]), Ok(expected), "{url} {ip}");
            }
            for url in [
                "udp://t.example:53",
                "udp://t.example:53/",
                "udp://t:53/x?/announce",
                "udp://t:53#/announce",
            ] {
                assert_eq!(judge(url, &[ip]), Err(Nowhere::Local), "{url} {ip}");
            }
        }
        // Of several the good ones are taken; the others' family does not matter.
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(judge("udp://t:1", &["127.0.0.1", "192.0.2.1"]), Ok(far));
        assert_eq!(judge("udp://t:1", &["192.0.2.1", "::1"]), Ok(far));
        let lists = ["192.0.2.0/24".parse().unwrap()].into_iter().collect::<IpFilter>().into();
        let shut = Gate { lists, ..Gate::default() };
        let beside: IpAddr = "198.51.100.1".parse().unwrap();
        assert_eq!(super::judge("udp://t:1", Family::V4, vec![far, beside], &shut), Ok(beside));
        assert_eq!(super::judge("udp://t:1", Family::V4, vec![far], &shut), Err(Nowhere::Blocked));
        assert_eq!(judge("udp://t:1/announce", &["0.0.0.0"]), Err(Nowhere::NoAddress));
        assert_eq!(judge("udp://t:1/announce", &["224.0.0.1"]), Err(Nowhere::NoAddress));
    }
}
