//! The datagrams of a tool that has a question and no engine.
//!
//! Owns its sockets and the sleep for them: straight, one for each family, or one to the relay of a SOCKS5 proxy, if that is
//! the way. Where it is, nothing leaves until the proxy takes datagrams, and nothing any more once it does not: a tool
//! is told so and ends, as nobody waits long for one question. What datagrams say is the tool's.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use piecemeal_discovery::tracker::Family;
use piecemeal_metainfo::Time;
use piecemeal_transport::proxy::{Target, datagram};

use super::{Association, PATIENCE};
use crate::net::{Dialer, Traffic, Way};

/// Events taken from the system at once: there are two sockets and a bell.
const EVENTS: usize = 8;
/// More than a datagram has.
const BUFFER_BYTES: usize = 64 << 10;
/// What is nobody's, read in one go.
const PASSED_OVER_MAX: usize = 64;
const BELL: Token = Token(usize::MAX);
const CONTROL: Token = Token(BELL.0 - 1);

/// See the module.
pub(crate) struct Courier {
    poll: Poll,
    events: Events,
    bell: Arc<Bell>,
    dialer: Dialer,
    traffic: Traffic,
    /// By family at most one; by the proxy, one.
    sockets: Vec<(SocketAddr, UdpSocket)>,
    /// `None`: straight.
    relay: Option<State>,
    /// There may be datagrams that were not read.
    unread: bool,
    buffer: Box<[u8]>,
    wrapped: Vec<u8>,
}

enum State {
    Idle,
    Asking { association: Association, give_up: Time },
    Stands(Association),
    Failed(String),
}

struct Bell(mio::Waker);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // A failed wake-up would leave the tool asleep: better to say so at once.
        self.0.wake().expect("a tool can be woken while it lives");
    }
}

impl Courier {
    /// For this kind of traffic, by its way. Opens nothing yet.
    ///
    /// # Errors
    /// The system tells of no events.
    pub(crate) fn new(dialer: Dialer, traffic: Traffic) -> io::Result<Courier> {
        let relay = (dialer.way(traffic) == Way::Proxy).then_some(State::Idle);
        let poll = Poll::new()?;
        let bell = Arc::new(Bell(mio::Waker::new(poll.registry(), BELL)?));
        Ok(Courier {
            poll,
            events: Events::with_capacity(EVENTS),
            bell,
            dialer,
            traffic,
            sockets: Vec::new(),
            relay,
            unread: false,
            buffer: vec![0; BUFFER_BYTES].into(),
            wrapped: Vec::new(),
        })
    }

    /// Opens the socket of a family. A proxy relays datagrams of both, by a socket that is opened when it does.
    ///
    /// # Errors
    /// There is no such family, no port, or no way for this traffic, or not at present.
    pub(crate) fn open(&mut self, family: Family) -> io::Result<()> {
        if self.relay.is_some() {
            return Ok(());
        }
        let any = unspecified(family == Family::V4);
        let socket = self.dialer.datagrams(&[self.traffic], any)?;
        self.add(any, socket)
    }

    fn add(&mut self, any: SocketAddr, mut socket: UdpSocket) -> io::Result<()> {
        self.poll.registry().register(&mut socket, Token(self.sockets.len()), Interest::READABLE)?;
        self.sockets.push((any, socket));
        Ok(())
    }

    /// Whether datagrams go by the proxy.
    pub(crate) fn by_proxy(&self) -> bool {
        self.relay.is_some()
    }

    /// Ends the sleep; any thread may wake it.
    pub(crate) fn waker(&self) -> std::task::Waker {
        self.bell.clone().into()
    }

    /// Has the proxy relay, if that is the way, and does what is to be done for it. True if datagrams leave now.
    ///
    /// # Errors
    /// Why no datagram will leave any more, in words.
    pub(crate) fn go_on(&mut self, now: Time) -> Result<bool, String> {
        let stands = match &mut self.relay {
            None => return Ok(true),
            Some(State::Failed(why)) => return Err(why.clone()),
            Some(State::Idle) => self.begin(now).map(|()| false),
            Some(State::Asking { give_up, .. }) if *give_up <= now => Err("it does not answer".to_owned()),
            Some(State::Asking { association, .. }) => association.go_on(&mut self.buffer),
            Some(State::Stands(association)) => association.go_on(&mut self.buffer).map(|_| true),
        };
        let stands = match stands {
            Ok(true) => self.stand().map(|()| true),
            other => other,
        };
        stands.map_err(|why| {
            let why = format!("the proxy relays no datagrams: {why}");
            // Nothing is left by which anything could go.
            self.sockets.clear();
            self.relay = Some(State::Failed(why.clone()));
            why
        })
    }

    fn begin(&mut self, now: Time) -> Result<(), String> {
        let association = Association::begin(&self.dialer, self.poll.registry(), CONTROL)?;
        self.relay = Some(State::Asking { association, give_up: now + PATIENCE });
        Ok(())
    }

    /// The proxy takes datagrams: there must be a socket for them.
    fn stand(&mut self) -> Result<(), String> {
        let relay = self.relay.take();
        let Some(State::Asking { association, .. }) = relay else {
            self.relay = relay;
            return Ok(());
        };
        let at = association.place().ok_or("it names no place")?;
        self.relay = Some(State::Stands(association));
        let any = unspecified(at.is_ipv4());
        let opened = self.dialer.relayed(any).and_then(|socket| self.add(any, socket));
        opened.map_err(|why| why.to_string())
    }

    /// When [`Courier::go_on`] has something to do although nothing came.
    pub(crate) fn due(&self) -> Time {
        if let Some(State::Asking { give_up, .. }) = &self.relay { *give_up } else { Time::NEVER }
    }

    /// Sends one, after [`Courier::go_on`] said that it leaves.
    ///
    /// # Errors
    /// The system refuses it, there is no socket of that family, or the name is none or has nobody to look it up.
    pub(crate) fn send(&mut self, to: &Target, bytes: &[u8]) -> io::Result<()> {
        let (at, bytes) = match (&self.relay, to) {
            (Some(State::Stands(association)), _) => {
                self.wrapped.clear();
                datagram::wrap(to, bytes, &mut self.wrapped).map_err(io::Error::other)?;
                let at = association.place().ok_or(ErrorKind::NotConnected)?;
                (at, &self.wrapped[..])
            }
            (Some(_), _) => return Err(ErrorKind::NotConnected.into()),
            (None, Target::Addr(addr)) => (*addr, bytes),
            (None, Target::Name { .. }) => return Err(ErrorKind::Unsupported.into()),
        };
        match self.sockets.iter().find(|(any, _)| any.is_ipv4() == at.is_ipv4()) {
            Some((_, socket)) => socket.send_to(bytes, at).map(drop),
            None => Err(io::Error::new(ErrorKind::NetworkUnreachable, "no socket of that family")),
        }
    }

    /// Until something comes or the waker is woken, and no longer than this.
    pub(crate) fn sleep(&mut self, most: Option<Duration>) {
        let most = if self.unread { Some(Duration::ZERO) } else { most };
        if let Err(why) = self.poll.poll(&mut self.events, most) {
            assert!(why.kind() == ErrorKind::Interrupted, "the system does not tell of events: {why}");
        }
        self.unread |= !self.events.is_empty();
    }

    /// One that came: whose, and what. What is not the proxy's, where all comes by it, is passed over.
    ///
    /// # Errors
    /// A socket is broken.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(SocketAddr, &[u8])>> {
        let next = self.next()?;
        Ok(next.map(|(whose, at)| (whose, &self.buffer[at])))
    }

    fn next(&mut self) -> io::Result<Option<(SocketAddr, Range<usize>)>> {
        use ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
        for (_, socket) in &self.sockets {
            let mut passed_over = 0;
            while passed_over < PASSED_OVER_MAX {
                passed_over += 1;
                let (bytes, from) = match socket.recv_from(&mut self.buffer) {
                    Ok(read) => read,
                    Err(why) if why.kind() == WouldBlock => break,
                    // A word of the system about somebody who is not there; the next read tells of something else.
                    Err(why) if matches!(why.kind(), Interrupted | ConnectionReset | ConnectionRefused) => {
                        continue;
                    }
                    Err(why) => return Err(why),
                };
                match &self.relay {
                    None => return Ok(Some((from, 0..bytes))),
                    Some(State::Stands(association)) => {
                        if let Some((whose, payload)) = association.unwrap(from, &self.buffer[..bytes]) {
                            return Ok(Some((whose, bytes - payload.len()..bytes)));
                        }
                    }
                    Some(_) => {}
                }
            }
            if passed_over == PASSED_OVER_MAX {
                // Whoever floods us does not keep us from what else there is to do.
                return Ok(None);
            }
        }
        self.unread = false;
        Ok(None)
    }
}

fn unspecified(v4: bool) -> SocketAddr {
    let ip = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}
