//! Where the loop is present in the network: listeners, UDP sockets and groups, and what happens as the interface they
//! are tied to goes and comes.
//!
//! Gone: everything is closed at once, and nothing can be opened (`net` sees to that). Back: the same addresses are
//! listened on again, and each torrent tries its peers and trackers anew. Whoever listens for News hears of both.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Interest, Poll, Token};
use piecemeal_engine::cx::{Change, Command, Goodbye, News};
use piecemeal_metainfo::Time;
use piecemeal_wire::lsd::{LSD_V4, LSD_V6};

use super::datagrams::DatagramSockets;
use super::relay::Relay;
use super::utp::UtpStart;
use super::{EngineLoop, FIRST_LISTENER, Listener};
use crate::driven::{Data, Front};
use crate::entropy;
use crate::net::{Dialer, Group, Traffic};
use crate::tcp::{self, Door};

/// When listening anew was refused, as where an address is not there yet: so long until it is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// An interface often has its address a moment before its routes: so long after it came, all is tried once more.
const SETTLED: Duration = Duration::from_secs(3);

/// What is to be open whenever it can be.
pub(crate) struct Wanted {
    /// Where peers reach us.
    pub(crate) listen: Vec<SocketAddr>,
    /// They may call by TCP.
    pub(crate) tcp: bool,
    /// uTP is spoken, by streams that draw from this secret.
    pub(crate) utp: Option<UtpStart>,
    /// A secret for datagrams that go by a proxy.
    pub(crate) relay: [u8; 32],
    /// In the groups of local discovery.
    pub(crate) lsd: bool,
}

/// See the module.
pub(crate) struct Presence {
    pub(super) dialer: Dialer,
    wanted: Wanted,
    /// When to try again to listen, or, if that is done, to reach everybody.
    pub(super) again: Option<Time>,
    /// Doors are to be opened then.
    shut: bool,
    /// Ends of connections by uTP that went with the interface, to be told once it is back: until it hears of it, the
    /// other end takes us for connected, and refuses us. One small datagram for each of the last connections.
    farewells: Vec<(SocketAddr, Vec<u8>)>,
}

impl Presence {
    /// As wanted; no port is 0.
    pub(crate) fn new(dialer: Dialer, wanted: Wanted) -> Presence {
        Presence { dialer, wanted, again: None, shut: false, farewells: Vec::new() }
    }

    /// Has the poll watch doors and groups.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn watch(
        &mut self,
        poll: &Poll,
        doors: Vec<Door>,
        groups: Vec<Group>,
    ) -> io::Result<(Vec<Listener>, DatagramSockets)> {
        // No two sockets draw the same.
        let Wanted { utp, relay, .. } = &mut self.wanted;
        *utp = utp.map(|utp| utp.fork("next"));
        *relay = entropy::fork(relay, "next");
        let direct = utp.filter(|_| self.dialer.way(Traffic::PeersUtp).is_direct());
        let (listeners, mut datagrams) = watch(poll, doors, groups, direct)?;
        datagrams.relay = Relay::new(&self.dialer, *relay, *utp);
        Ok((listeners, datagrams))
    }
}

/// Opens doors at `listen`, and groups. Nothing while the interface is away.
///
/// # Errors
/// The address that cannot be listened on, and why.
pub(crate) fn open(
    dialer: &Dialer,
    wanted: &Wanted,
) -> Result<(Vec<Door>, Vec<Group>), (SocketAddr, io::Error)> {
    if dialer.away().is_some() {
        return Ok((Vec::new(), Vec::new()));
    }
    let doors = tcp::listen(dialer, &wanted.listen, wanted.tcp)?;
    let listening: Vec<SocketAddr> = doors.iter().map(|door| door.addr).collect();
    let joined = |group| wanted.lsd.then(|| dialer.join(group, &listening).ok()).flatten();
    Ok((doors, [LSD_V4, LSD_V6].into_iter().filter_map(joined).collect()))
}

fn watch(
    poll: &Poll,
    doors: Vec<Door>,
    groups: Vec<Group>,
    utp: Option<UtpStart>,
) -> io::Result<(Vec<Listener>, DatagramSockets)> {
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for Door { tcp, udp, addr } in doors {
        if let Some(mut listener) = tcp {
            let token = Token(FIRST_LISTENER - listeners.len());
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            listeners.push(Listener { listener, ready: true });
        }
        datagrams.extend(udp.map(|udp| (udp, addr)));
    }
    Ok((listeners, DatagramSockets::watch(poll, datagrams, groups, utp)?))
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Tells where the interface is not there from the beginning.
    pub(super) fn tell_if_away(&mut self) {
        if self.presence.dialer.away().is_some() {
            self.tell_of_interface();
        }
    }

    /// The interface went, came, or was made anew: whatever is open belongs to what it was.
    pub(super) fn on_interface(&mut self) {
        self.stirred = true;
        let away = self.presence.dialer.away();
        let why = away.clone().unwrap_or_else(|| "the interface was made anew".to_owned());
        self.listeners.clear();
        for slot in self.conns.slots() {
            self.lose(slot, Goodbye::Failed(why.clone()));
        }
        let farewells = self.datagrams.unsaid(self.now);
        if !farewells.is_empty() {
            self.presence.farewells = farewells;
        }
        self.datagrams = DatagramSockets::default();
        (self.presence.again, self.missing) = (None, None);
        self.tell_of_interface();
        if away.is_none() {
            self.listen_again();
        }
    }

    /// Tries again to listen, or to reach everybody, if it is time.
    pub(super) fn come_back(&mut self) {
        if self.presence.again.is_none_or(|again| again > self.now) {
            return;
        }
        self.presence.again = None;
        if self.presence.shut {
            return self.listen_again();
        }
        self.say_farewells();
        self.presence.farewells.clear();
        self.reconnect();
    }

    fn listen_again(&mut self) {
        let opened = open(&self.presence.dialer, &self.presence.wanted).map_err(|(_, why)| why);
        let watched = opened.and_then(|(doors, groups)| self.presence.watch(&self.poll, doors, groups));
        self.presence.shut = watched.is_err();
        self.presence.again = Some(self.now + if watched.is_err() { LISTEN_AGAIN } else { SETTLED });
        let Ok((listeners, datagrams)) = watched else { return };
        (self.listeners, self.datagrams) = (listeners, datagrams);
        self.say_farewells();
        self.reconnect();
    }

    /// Told twice, in case there was no route yet; what is told once too often is passed over.
    fn say_farewells(&mut self) {
        for (to, bytes) in &self.presence.farewells {
            if self.datagrams.send(*to, bytes).is_ok() {
                self.stats.datagrams_out += 1;
            }
        }
    }

    /// Has each torrent try its peers and trackers anew.
    pub(super) fn reconnect(&mut self) {
        self.stirred = true;
        for torrent in self.seated.clone() {
            self.front.on_command(self.now, Command::Change(torrent, Change::Reconnect));
        }
        self.carry();
    }

    fn tell_of_interface(&mut self) {
        let dialer = &self.presence.dialer;
        let Some(name) = dialer.policy().interface.clone() else { return };
        let there = dialer.away().is_none();
        self.front.out().news.push(News::Interface { name, there });
    }
}
