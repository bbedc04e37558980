//! Datagrams by way of a SOCKS5 proxy (RFC 1928, 7).
//!
//! Owns how long the association lasts ([`Association`]): it is made again when it ends, with pauses that grow. Until it stands nothing leaves: what is said meanwhile waits
//! for a moment at the first try, and is lost otherwise. The socket itself lies among the others of `datagrams`; what is
//! written around a datagram is `transport`'s.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::Poll;
use mio::event::Event;
use piecemeal_engine::cx::{Command, Goodbye};
use piecemeal_metainfo::Time;
use piecemeal_transport::proxy::{Target, datagram};
use piecemeal_transport::utp::Settings;

use super::conns::Link;
use super::datagrams::DatagramSockets;
use super::proxied::{FIRST_PAUSE, LONGEST_PAUSE};
use super::utp::{Streams, UtpStart};
use super::{EngineLoop, RELAY};
use crate::driven::{Data, Front};
use crate::entropy;
use crate::net::{Dialer, Traffic, Way};
use crate::proxy::{Association, Hosts, PATIENCE};

/// Datagrams that wait for an association that is being made; then they are lost, as any may be.
const EARLY_MAX: usize = 64;
/// See the module.
pub(super) struct Relay {
    state: State,
    pause: Duration,
    /// It failed before, so torrents may have peers and trackers to try anew when it stands.
    failed: bool,
    pub(super) hosts: Hosts,
    /// What waits until it stands. Bound: [`EARLY_MAX`].
    early: Vec<(Target, Vec<u8>)>,
    /// From which streams draw, if uTP goes by it.
    utp: Option<UtpStart>,
    /// The last datagram, or a run of them, with headers.
    pub(super) wrapped: Vec<u8>,
}

enum State {
    /// Nobody asked for it yet.
    Idle,
    Down {
        again: Time,
        why: String,
    },
    Asking {
        association: Association,
        give_up: Time,
    },
    Up {
        association: Association,
        since: Time,
    },
}

impl Relay {
    /// Not yet asked for, if anything goes by it at all. What it draws comes from `seed`.
    pub(super) fn new(dialer: &Dialer, seed: [u8; 32], utp: Option<UtpStart>) -> Option<Relay> {
        let relayed = |traffic| dialer.way(traffic) == Way::Proxy;
        let utp = utp.filter(|_| relayed(Traffic::PeersUtp));
        if utp.is_none() && !relayed(Traffic::Dht) && !relayed(Traffic::UdpTrackers) {
            return None;
        }
        Some(Relay {
            // Who dials by uTP does not wait.
            state: if utp.is_some() {
                State::Down { again: Time::ZERO, why: "it was not asked yet".to_owned() }
            } else {
                State::Idle
            },
            pause: FIRST_PAUSE,
            failed: false,
            hosts: Hosts::new(entropy::fork(&seed, "hosts")),
            early: Vec::new(),
            utp: utp.map(|utp| utp.fork("relay")),
            wrapped: Vec::new(),
        })
    }

    /// Where the proxy takes datagrams, and sends them from.
    pub(super) fn place(&self) -> Option<SocketAddr> {
        if let State::Up { association, .. } = &self.state { association.place() } else { None }
    }

    /// Why it will not stand soon.
    pub(super) fn down(&self) -> Option<String> {
        match &self.state {
            State::Down { why, .. } => Some(format!("the proxy relays no datagrams: {why}")),
            State::Idle | State::Asking { .. } | State::Up { .. } => None,
        }
    }

    /// When it has something to do.
    pub(super) fn due(&self) -> Time {
        match &self.state {
            State::Idle if self.early.is_empty() && self.hosts.due == Time::NEVER => Time::NEVER,
            State::Idle => Time::ZERO,
            State::Down { again, .. } => *again,
            State::Asking { give_up, .. } => *give_up,
            State::Up { .. } => self.hosts.due,
        }
    }

    /// Puts the header before a datagram. Where [`Relay::wrapped`] is to be sent then; `None`: it waits, or is lost.
    ///
    /// # Errors
    /// Why no datagram can leave to there.
    pub(super) fn wrap(&mut self, to: &Target, payload: &[u8]) -> Result<Option<SocketAddr>, String> {
        if let Some(why) = self.down() {
            return Err(why);
        }
        self.wrapped.clear();
        datagram::wrap(to, payload, &mut self.wrapped).map_err(|fault| fault.to_string())?;
        let place = self.place();
        if place.is_none() && self.early.len() < EARLY_MAX {
            self.early.push((to.clone(), payload.to_vec()));
        }
        Ok(place)
    }

    /// Puts the header before each datagram of a run, whose datagrams have `segment` bytes. How large they are then, and
    /// where they go; `None`: nowhere now.
    pub(super) fn wrap_run(
        &mut self,
        to: SocketAddr,
        run: &[u8],
        segment: Option<usize>,
    ) -> Option<(SocketAddr, Option<usize>)> {
        let relay = self.place()?;
        let to = Target::from(to);
        self.wrapped.clear();
        for payload in run.chunks(segment.unwrap_or(run.len()).max(1)) {
            datagram::wrap(&to, payload, &mut self.wrapped).ok()?;
        }
        Some((relay, segment.map(|bytes| bytes + datagram::header_bytes(&to))))
    }

    /// Whose datagram the proxy relayed, and what it is; `None`: it is not the proxy's, or not to be understood.
    pub(super) fn unwrap<'a>(&self, from: SocketAddr, bytes: &'a [u8]) -> Option<(SocketAddr, &'a [u8])> {
        let State::Up { association, .. } = &self.state else { return None };
        association.unwrap(from, bytes)
    }

    fn fails(&mut self, now: Time, why: String) {
        if let State::Up { since, .. } = &self.state
            && now.since(*since) >= LONGEST_PAUSE
        {
            self.pause = FIRST_PAUSE;
        }
        self.early.clear();
        self.state = State::Down { again: now + self.pause, why };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.failed = true;
    }

    fn begin(&mut self, now: Time, poll: &Poll, dialer: &Dialer) -> Result<(), String> {
        let association = Association::begin(dialer, poll.registry(), RELAY)?;
        self.state = State::Asking { association, give_up: now + PATIENCE };
        Ok(())
    }

    /// Hears the proxy. True if it takes datagrams from now on.
    fn go_on(&mut self, now: Time, scratch: &mut [u8]) -> Result<bool, String> {
        let (State::Asking { association, .. } | State::Up { association, .. }) = &mut self.state else {
            return Ok(false);
        };
        if !association.go_on(scratch)? {
            return Ok(false);
        }
        if let State::Asking { association, .. } = std::mem::replace(&mut self.state, State::Idle) {
            self.state = State::Up { association, since: now };
        }
        Ok(true)
    }
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Does what is due for the relay.
    pub(super) fn beat_relay(&mut self) {
        let now = self.now;
        let Some(relay) = self.datagrams.relay.as_mut().filter(|relay| relay.due() <= now) else { return };
        match &relay.state {
            State::Idle | State::Down { .. } => {
                let begun = relay.begin(now, &self.poll, &self.presence.dialer);
                if let Err(why) = begun.and_then(|()| self.open_relayed()) {
                    self.relay_fails(why);
                }
            }
            State::Asking { .. } => self.relay_fails("it does not answer".to_owned()),
            State::Up { .. } => {
                let asks = relay.hosts.asks(now);
                asks.into_iter().for_each(|(host, ask)| drop(self.send_relayed(&host, &ask)));
            }
        }
    }

    /// True if the event was the relay's.
    pub(super) fn on_relay_event(&mut self, event: &Event) -> bool {
        if event.token() != RELAY {
            return false;
        }
        let Some(relay) = &mut self.datagrams.relay else { return true };
        match relay.go_on(self.now, &mut self.scratch) {
            Ok(false) => {}
            Ok(true) => self.relay_stands(),
            Err(why) => self.relay_fails(why),
        }
        true
    }

    fn relay_stands(&mut self) {
        self.stirred = true;
        let Some(relay) = &mut self.datagrams.relay else { return };
        relay.hosts.begin_anew();
        let again = std::mem::take(&mut relay.failed);
        for (to, payload) in std::mem::take(&mut relay.early) {
            let _ = self.send_relayed(&to, &payload);
        }
        if again {
            self.missing = None;
            self.reconnect();
        }
    }

    fn relay_fails(&mut self, why: String) {
        let now = self.now;
        let Some(relay) = &mut self.datagrams.relay else { return };
        relay.fails(now, why);
        let why = relay.down().unwrap_or_default();
        // Whoever is there knows us by an address that is the proxy's to give, and gone.
        let at = self.datagrams.relay_at();
        for slot in self.conns.slots() {
            let its = |link: &Link| matches!(link, Link::Utp(socket, _) if Some(*socket) == at);
            if self.conns.get(slot).is_some_and(|conn| its(&conn.link)) {
                self.lose(slot, Goodbye::Failed(why.clone()));
            }
        }
        self.datagrams.forget_held();
    }

    /// Hosts of the DHT to be asked by name.
    pub(super) fn ask_hosts(&mut self, hosts: Vec<Target>) {
        if let Some(relay) = &mut self.datagrams.relay {
            relay.hosts.add(hosts);
        }
    }

    /// Opens the socket for what is relayed, if it is not there yet: of which family, the proxy's address says.
    fn open_relayed(&mut self) -> Result<(), String> {
        let utp = match (self.datagrams.relay_at(), &self.datagrams.relay) {
            (Some(_), _) | (None, None) => return Ok(()),
            (None, Some(relay)) => relay.utp,
        };
        let dialer = &self.presence.dialer;
        let v4 = dialer.proxy().map_err(|why| why.to_string())?.is_ipv4();
        let any = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = dialer.relayed(SocketAddr::new(any, 0)).map_err(|why| why.to_string())?;
        let streams = utp.map(|utp| Streams::new(utp.seed, within_header(utp.settings(), v4)));
        self.datagrams.add_relayed(&self.poll, socket, any, streams).map_err(|why| why.to_string())
    }

    /// Sends by the relay.
    ///
    /// # Errors
    /// Why no datagram can leave to there.
    pub(super) fn send_relayed(&mut self, to: &Target, payload: &[u8]) -> Result<(), String> {
        let at = self.datagrams.relay_at();
        let DatagramSockets { sockets, relay, .. } = &mut self.datagrams;
        let Some(relay) = relay else { return Err("there is no proxy that relays".to_owned()) };
        if let (Some(place), Some(at)) = (relay.wrap(to, payload)?, at) {
            // What the system does not take is lost, as any datagram may be.
            let sent = sockets[at].socket.send_to(&relay.wrapped, place);
            self.stats.datagrams_out += u64::from(sent.is_ok());
        }
        Ok(())
    }

    /// Datagrams of `segment` bytes each came to the socket of the relay; they lie in the first `bytes` of the scratch
    /// buffer.
    pub(super) fn heard_relayed(&mut self, at: usize, from: SocketAddr, bytes: usize, segment: usize) {
        let now = self.now;
        let dht = self.presence.dialer.way(Traffic::Dht) == Way::Proxy;
        let DatagramSockets { sockets, relay, .. } = &mut self.datagrams;
        let Some(relay) = relay else { return };
        let streams = &mut sockets[at].streams;
        for datagram in self.scratch[..bytes].chunks(segment) {
            self.stats.datagrams_in += 1;
            let Some((whose, payload)) = relay.unwrap(from, datagram) else { continue };
            if !self.front.lets_in(whose.ip()) {
                self.stats.blocked += 1;
                continue;
            }
            if streams.as_mut().is_some_and(|streams| streams.on_datagram(now, whose, payload)) {
                continue;
            }
            match payload.first() {
                Some(b'd') if !dht => {}
                Some(b'd') if relay.hosts.is_answer(payload) => {
                    self.front.on_command(now, Command::Nodes(vec![whose]));
                }
                Some(b'd') => self.front.on_datagram(now, whose, payload),
                _ => self.front.on_datagram(now, self.stand_ins.whose(whose, payload), payload),
            }
        }
    }
}

/// Packets leave room for the header, and for the larger one of IPv6 if the proxy is spoken to by that.
fn within_header(all: Settings, v4: bool) -> Settings {
    let outside = if v4 { all.most_packet_bytes_v4 } else { all.most_packet_bytes_v6 };
    let header = |ip| datagram::header_bytes(&Target::Addr(SocketAddr::new(ip, 1)));
    Settings {
        most_packet_bytes_v4: outside - header(Ipv4Addr::UNSPECIFIED.into()),
        most_packet_bytes_v6: outside - header(Ipv6Addr::UNSPECIFIED.into()),
        ..all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_room_for_the_header() {
        let within = |v4| within_header(Settings::default(), v4);
        let sizes = |v4| (within(v4).most_packet_bytes_v4, within(v4).most_packet_bytes_v6);
        assert_eq!([sizes(true), sizes(false)], [(1462, 1450), (1442, 1430)]);
    }
}
