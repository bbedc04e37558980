//! Asking UDP trackers without an engine: the counterpart of [`crate::http::Client`] for tools.
//!
//! Owns two sockets, one for each family, and the thread that waits for them. What goes out and what answers mean is
//! [`piecemeal_discovery::udp`]'s; names are looked up and judged by `dns`, as for an engine.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use piecemeal_discovery::tracker::{Fetch, FetchFailure};
use piecemeal_discovery::udp::{UdpOut, UdpTrackers};
use piecemeal_engine::cx::Rng;
use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_transport::proxy::Target;
use rand_chacha::rand_core::SeedableRng;

use crate::clock::Clock;
use crate::dns::{Resolved, Resolver};
use crate::engine_loop::poll_with_bell;
use crate::entropy;
use crate::http::Reply;
use crate::mailbox::{Doorbell, Mailbox};
use crate::net::{Dialer, Traffic, Way};

/// Bytes of a datagram that are read: an answer with all peers that one brings is smaller.
const DATAGRAM_BYTES: usize = 4096;
/// Events taken from the system at once: there are two sockets and a bell.
const EVENTS: usize = 8;

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
    /// A client on free ports, opened by `dialer`; a family that the system or the policy does not have is told with each request. `reply` is called on
    /// the client's thread, once for each request, and must not block.
    ///
    /// # Errors
    /// No randomness, thread or event queue can be had.
    pub fn start(dialer: Dialer, reply: Reply) -> io::Result<UdpClient> {
        let seed = entropy::seed()?;
        let (poll, bell) = poll_with_bell()?;
        let resolved = Mailbox::new(bell.clone());
        let inbox = Arc::new(Inbox { resolved: resolved.clone(), bell, stop: AtomicBool::new(false) });
        let mut sockets = Vec::new();
        for ip in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let addr = SocketAddr::new(ip, 0);
            let Ok(mut socket) = dialer.datagrams(&[Traffic::UdpTrackers], addr) else { continue };
            poll.registry().register(&mut socket, Token(sockets.len()), Interest::READABLE)?;
            sockets.push((addr, socket));
        }
        let by_proxy = dialer.way(Traffic::UdpTrackers) == Way::Proxy;
        let desk = Desk {
            by_proxy,
            reply,
            inbox: inbox.clone(),
            sockets,
            clock: Clock::start(),
            udp: UdpTrackers::new(),
            out: UdpOut::default(),
            rng: Rng::from_seed(seed),
        };
        let thread = thread::Builder::new().name("udp-client".into()).spawn(move || desk.run(poll))?;
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
    /// There is a proxy for this, which would have to be asked to relay.
    by_proxy: bool,
    /// By family at most one, with the address it is bound to.
    sockets: Vec<(SocketAddr, UdpSocket)>,
    clock: Clock,
    udp: UdpTrackers,
    out: UdpOut,
    rng: Rng,
}

impl Desk {
    fn run(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS);
        let mut resolved = Vec::new();
        loop {
            self.sleep(&mut poll, &mut events);
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
            self.send();
            for fetched in self.out.fetched.drain(..) {
                (self.reply)(fetched.torrent, fetched.id, fetched.result);
            }
        }
    }

    /// Until a socket has something, mail comes, or something is due.
    fn sleep(&mut self, poll: &mut Poll, events: &mut Events) {
        let due = self.udp.next_due();
        let mut timeout = (due != Time::NEVER).then(|| due.since(self.clock.now()));
        self.inbox.bell.doze();
        if !self.inbox.resolved.is_empty() || self.inbox.stop.load(Ordering::SeqCst) {
            timeout = Some(Duration::ZERO);
        }
        if let Err(why) = poll.poll(events, timeout) {
            assert!(why.kind() == ErrorKind::Interrupted, "the system does not tell of events: {why}");
        }
        self.inbox.bell.wake();
    }

    fn ask(&mut self, now: Time, (torrent, fetch, result): Resolved) {
        match result {
            Ok(Target::Addr(to)) if !self.by_proxy => {
                self.udp.ask(now, &mut self.rng, (torrent, &fetch), to, &mut self.out);
            }
            Ok(_) => {
                let why = "UDP trackers go by the proxy while torrents are open, and not for one question";
                (self.reply)(torrent, fetch.id, Err(FetchFailure::Unreachable(why.into())));
            }
            Err(why) => (self.reply)(torrent, fetch.id, Err(why)),
        }
    }

    fn read(&mut self, now: Time) {
        let mut buffer = [0; DATAGRAM_BYTES];
        for (_, socket) in &self.sockets {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((bytes, from)) => {
                        let bytes = &buffer[..bytes];
                        self.udp.on_datagram(now, &mut self.rng, from, bytes, &mut self.out);
                    }
                    Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                    // A refusal of what was sent before, told here; the next read tells of something else.
                    Err(_) => {}
                }
            }
        }
    }

    /// Sends all there is. What can not be sent at all is not waited for; nobody else's datagrams leave here.
    fn send(&mut self) {
        for datagram in std::mem::take(&mut self.out.datagrams) {
            let to = datagram.to;
            let socket = self.sockets.iter().find(|(addr, _)| addr.is_ipv4() == to.is_ipv4());
            let sent = match socket {
                Some((_, socket)) => socket.send_to(&datagram.bytes, to).map(drop),
                None => Err(io::Error::new(ErrorKind::NetworkUnreachable, "no socket of that family")),
            };
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
