//! Asking UDP trackers without an engine: the counterpart of [`crate::http::Client`] for tools.
//!
//! Owns the thread that waits for them. What goes out and what answers mean is [`piecemeal_discovery::udp`]'s, and which way it
//! goes `proxy::courier`'s; names are looked up and judged by `dns`, as for an engine, or left to the proxy.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use piecemeal_discovery::tracker::{Family, Fetch, FetchFailure};
use piecemeal_discovery::udp::{UdpOut, UdpTrackers};
use piecemeal_engine::cx::Rng;
use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_transport::proxy::Target;
use rand_chacha::rand_core::SeedableRng;

use crate::clock::Clock;
use crate::dns::{Resolved, Resolver};
use crate::entropy;
use crate::http::Reply;
use crate::mailbox::{Doorbell, Mailbox};
use crate::net::{Dialer, Traffic};
use crate::proxy::{Courier, StandIns};

/// Datagrams read in one turn.
const READ_MAX: usize = 256;

/// The door to the thread.
pub struct UdpClient {
    resolver: Resolver,
    inbox: Arc<Inbox>,
    thread: thread::JoinHandle<()>,
}

/// What is said to the thread.
struct Inbox {
    resolved: Arc<Mailbox<Resolved>>,
    bell: Arc<Doorbell>,
    stop: AtomicBool,
}

impl UdpClient {
    /// A client on free ports, opened by `dialer`; a family that the system or the policy does not have is told with each
    /// request, and so is a proxy that relays nothing, which is asked to with the first request. `reply` is called on
    /// the client's thread, once for each request, and must not block.
    ///
    /// # Errors
    /// No randomness, thread or event queue can be had.
    pub fn start(dialer: Dialer, reply: Reply) -> io::Result<UdpClient> {
        let seed = entropy::seed()?;
        let mut courier = Courier::new(dialer.clone(), Traffic::UdpTrackers)?;
        for family in [Family::V4, Family::V6] {
            let _ = courier.open(family);
        }
        let waker = courier.waker();
        let bell = Doorbell::new(move || waker.wake_by_ref());
        let resolved = Mailbox::new(bell.clone());
        let inbox = Arc::new(Inbox { resolved: resolved.clone(), bell, stop: AtomicBool::new(false) });
        let desk = Desk {
            reply,
            inbox: inbox.clone(),
            courier,
            asked: BTreeSet::new(),
            stand_ins: StandIns::default(),
            down: None,
            clock: Clock::start(),
            udp: UdpTrackers::new(),
            out: UdpOut::default(),
            rng: Rng::from_seed(seed),
        };
        let thread = thread::Builder::new().name("udp-client".into()).spawn(move || desk.run())?;
        Ok(UdpClient {
            resolver: Resolver::new(dialer, Box::new(move |one| resolved.push(one))),
            inbox,
            thread,
        })
    }

    /// Asks what a `udp` URL asks; `fetch.timeout` counts from when its name is known and its turn comes.
    pub fn fetch(&self, torrent: TorrentId, fetch: Fetch) {
        self.resolver.resolve(torrent, fetch);
    }

    /// Ends the thread and drops all requests without a reply. After this no reply is called.
    pub fn stop(self) {
        self.inbox.stop.store(true, Ordering::SeqCst);
        self.inbox.bell.ring();
        // A panic there has been reported by the thread itself.
        let _ = self.thread.join();
    }
}

/// What the thread knows.
struct Desk {
    reply: Reply,
    inbox: Arc<Inbox>,
    courier: Courier,
    /// Whom something was asked of. Bound: the trackers that a tool asks.
    asked: BTreeSet<SocketAddr>,
    /// For names that the proxy looks up.
    stand_ins: StandIns,
    /// Why nothing leaves any more.
    down: Option<String>,
    clock: Clock,
    udp: UdpTrackers,
    out: UdpOut,
    rng: Rng,
}

impl Desk {
    fn run(mut self) {
        let mut resolved = Vec::new();
        loop {
            self.sleep();
            if self.inbox.stop.load(Ordering::SeqCst) {
                return self.inbox.resolved.close();
            }
            let now = self.clock.now();
            self.inbox.resolved.drain(&mut resolved);
            for one in resolved.drain(..) {
                self.ask(now, one);
            }
            self.read(now);
            self.udp.heartbeat(now, &mut self.rng, &mut self.out);
            self.go_on(now);
            for fetched in self.out.fetched.drain(..) {
                (self.reply)(fetched.torrent, fetched.id, fetched.result);
            }
        }
    }

    /// Until a socket has something, mail comes, or something is due.
    fn sleep(&mut self) {
        let due = self.udp.next_due().min(self.courier.due());
        let mut timeout = (due != Time::NEVER).then(|| due.since(self.clock.now()));
        self.inbox.bell.doze();
        if !self.inbox.resolved.is_empty() || self.inbox.stop.load(Ordering::SeqCst) {
            timeout = Some(Duration::ZERO);
        }
        self.courier.sleep(timeout);
        self.inbox.bell.wake();
    }

    fn ask(&mut self, now: Time, (torrent, fetch, result): Resolved) {
        let to = match (result, &self.down) {
            (Ok(Target::Addr(to)), None) => to,
            (Ok(Target::Name { host, port }), None) => (self.stand_ins.give(&host), port).into(),
            (Ok(_), Some(down)) => {
                return (self.reply)(torrent, fetch.id, Err(FetchFailure::Unreachable(down.clone())));
            }
            (Err(why), _) => return (self.reply)(torrent, fetch.id, Err(why)),
        };
        self.asked.insert(to);
        self.udp.ask(now, &mut self.rng, (torrent, &fetch), to, &mut self.out);
    }

    fn read(&mut self, now: Time) {
        let by_proxy = self.courier.by_proxy();
        for _ in 0..READ_MAX {
            // One that is broken has nothing for us; who waits for it runs out of patience.
            let Ok(Some((from, bytes))) = self.courier.receive() else { return };
            let whose = if by_proxy { self.stand_ins.whose(from, bytes) } else { from };
            self.udp.on_datagram(now, &mut self.rng, whose, bytes, &mut self.out);
        }
    }

    /// Sends, as soon as it can. Nobody asks a proxy to relay before there is something to send.
    fn go_on(&mut self, now: Time) {
        if self.asked.is_empty() || self.down.is_some() {
            return;
        }
        match self.courier.go_on(now) {
            Ok(true) => self.send(),
            // It waits, no longer than the proxy is waited for.
            Ok(false) => {}
            Err(why) => {
                self.out.datagrams.clear();
                for to in std::mem::take(&mut self.asked) {
                    self.udp.on_unreachable(to, &why, &mut self.out);
                }
                self.down = Some(why);
            }
        }
    }

    /// Sends all there is. What can not be sent at all is not waited for; nobody else's datagrams leave here.
    fn send(&mut self) {
        for datagram in std::mem::take(&mut self.out.datagrams) {
            let to = datagram.to;
            let target = if self.courier.by_proxy() {
                self.stand_ins.target(to, &datagram.bytes)
            } else {
                Some(Target::Addr(to))
            };
            // A name that was forgotten is asked in vain.
            let Some(target) = target else { continue };
            let sent = self.courier.send(&target, &datagram.bytes);
            if let Err(why) = sent
                && why.kind() != ErrorKind::WouldBlock
            {
                self.udp.on_unreachable(to, &why.to_string(), &mut self.out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Policy;
    use crate::udp_server::serve_udp;
    use piecemeal_discovery::tracker::{Family, FetchFailure, FetchId};
    use piecemeal_metainfo::{InfoHash, PeerId};
    use piecemeal_wire::tracker::udp::{self as wire, ConnectionId, UdpRequest};
    use piecemeal_wire::tracker::{
        AnnounceReply, AnnounceRequest, ScrapeCounts, ScrapeReply, announce_url, scrape_url,
    };
    use std::sync::mpsc::channel;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A tracker that serves one torrent.
    fn tracker(_: SocketAddr, bytes: &[u8], out: &mut Vec<u8>) {
        let given = ConnectionId(77);
        match UdpRequest::decode(bytes) {
            Ok(UdpRequest::Connect { transaction }) => wire::connected(transaction, given, out),
            Ok(UdpRequest::Announce { transaction, connection, .. }) if connection == given => {
                let peers = ["1.2.3.4:5".parse().unwrap()].into_iter();
                wire::announced(transaction, (900, 4, 3), peers, false, out);
            }
            Ok(UdpRequest::Scrape { transaction, connection, .. }) if connection == given => {
                let counts = ScrapeCounts { complete: 3, downloaded: 50, incomplete: 4 };
                wire::scraped(transaction, [counts].into_iter(), out);
            }
            _ => {}
        }
    }

    #[test]
    fn trackers_are_asked_and_each_request_has_one_reply() {
        let server = serve_udp(&["127.0.0.1:0".parse().unwrap()], tracker).unwrap();
        let port = server.addrs()[0].port();
        let (tell, told) = channel();
        let reply: Reply = Box::new(move |_, id, result| tell.send((id, result)).unwrap());
        let client = UdpClient::start(Dialer::new(Policy::default()), reply).unwrap();
        let hash = InfoHash([1; 20]);
        let ask = |id: u64, url: String, family| {
            let fetch = Fetch { id: FetchId(id), url, family, timeout: PATIENCE };
            client.fetch(TorrentId(0), fetch);
            let (told, result) = told.recv_timeout(PATIENCE).unwrap();
            assert_eq!(told, FetchId(id));
            result
        };
        let request = AnnounceRequest::new(hash, PeerId([2; 20]), 6881);
        let base = format!("udp://127.0.0.1:{port}/announce");
        let body = ask(1, announce_url(&base, &request), Family::V4).unwrap();
        let Ok(AnnounceReply::Answer(answer)) = AnnounceReply::decode(&body) else { panic!() };
        assert_eq!((answer.interval, answer.complete, answer.peers.len()), (Some(900), Some(3), 1));
        let body = ask(2, scrape_url(&base, &[hash]).unwrap(), Family::V4).unwrap();
        let Ok(ScrapeReply::Answer(answer)) = ScrapeReply::decode(&body) else { panic!() };
        assert_eq!(answer.files[0].1.downloaded, 50);
        assert_eq!(ask(3, announce_url(&base, &request), Family::V6), Err(FetchFailure::NoAddress));
        let bare = announce_url(&format!("udp://127.0.0.1:{port}"), &request);
        assert!(matches!(ask(4, bare, Family::V4), Err(FetchFailure::Unreachable(_))), "judged");
        // To a broadcast address nothing can be sent without asking the system for it.
        let nowhere = announce_url(&format!("udp://255.255.255.255:{port}/announce"), &request);
        assert!(matches!(ask(5, nowhere, Family::V4), Err(FetchFailure::Unreachable(_))));
        client.stop();
        assert!(told.try_recv().is_err());
        server.stop();
    }
}
