//! Dials by way of the proxy, and what becomes of them while it is not there.
//!
//! Owns the negotiation on a socket that was opened to the proxy, until it is as good as one to the peer, and the question
//! whether the proxy is back, asked by connecting to it now and then. What is said is `transport`'s. Nothing here ever
//! connects to a peer: without the proxy dials fail at once.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use mio::Interest;
use mio::event::Event;
use mio::net::TcpStream;
use piecemeal_engine::cx::{ConnId, Goodbye};
use piecemeal_metainfo::Time;
use piecemeal_transport::proxy::{Talk, Target};

use super::conns::{Dialing, Link, Slot};
use super::{EngineLoop, PROBE};
use crate::driven::{Data, Front};
use crate::proxy::{PATIENCE, converse};
use crate::tcp;

/// Until the proxy is looked for again, at first; doubles up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer: whoever restarts a proxy does not want to restart its clients.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How far a dial by the proxy is.
pub(super) struct Asking {
    talk: Talk,
    /// The proxy was reached.
    reached: bool,
}

/// A proxy that was not reached.
pub(super) struct Missing {
    why: String,
    /// When to look for it again, or to give up looking.
    due: Time,
    pause: Duration,
    probe: Option<TcpStream>,
}

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Begins to connect to a peer by way of the proxy.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    pub(super) fn dial_by_proxy(
        &mut self,
        to: SocketAddr,
        dialing: Dialing,
    ) -> Result<(Slot, ConnId), String> {
        if let Some(missing) = &self.missing {
            return Err(missing.why.clone());
        }
        let dialer = &self.presence.dialer;
        let proxy = dialer.policy().proxy.as_ref().ok_or("there is no proxy")?;
        let talk = Talk::connect(&proxy.language(), &Target::from(to)).map_err(|why| why.to_string())?;
        let stream = match dialer.dial_proxy() {
            Ok(stream) => stream,
            Err(why) => return Err(self.miss(&why.to_string())),
        };
        tcp::set_options(&stream);
        let (slot, id) = self.watch(stream, Some(dialing)).ok_or("too many connections")?;
        if let Some(conn) = self.conns.get(slot) {
            conn.asking = Some(Box::new(Asking { talk, reached: false }));
        }
        Ok((slot, id))
    }

    /// The proxy's socket can be read from or written to, or has failed.
    pub(super) fn ask_proxy(&mut self, slot: Slot) {
        let Some(conn) = self.conns.get(slot) else { return };
        let (Link::Tcp(stream), Some(asking)) = (&mut conn.link, &mut conn.asking) else { return };
        if !asking.reached {
            match tcp::dialed(stream) {
                Ok(()) => asking.reached = true,
                Err(why) if why.kind() == ErrorKind::NotConnected => return,
                Err(why) => {
                    let why = self.miss(&why.to_string());
                    return self.lose(slot, Goodbye::Failed(why));
                }
            }
        }
        match converse(stream, &mut asking.talk, &mut conn.unsent, &mut self.scratch) {
            Ok(None) => {}
            Ok(Some((_, left))) => {
                // The peer may have spoken already, and the socket tells of that only once.
                conn.kept.extend_from_slice(&self.scratch[left]);
                (conn.asking, conn.readable) = (None, true);
                self.list_to_read(slot);
                self.stands(slot);
            }
            Err(why) => self.lose(slot, Goodbye::Failed(why)),
        }
    }

    /// Why a dial that took too long did.
    pub(super) fn too_long(&mut self, slot: Slot) -> String {
        let asking = self.conns.get(slot).and_then(|conn| conn.asking.as_ref());
        match asking.map(|asking| asking.reached) {
            None => "nobody answered".to_owned(),
            Some(true) => "the proxy did not come to an end".to_owned(),
            Some(false) => self.miss("it does not answer"),
        }
    }

    /// The proxy was not reached. Returns that in words.
    fn miss(&mut self, why: &str) -> String {
        let why = format!("the proxy cannot be reached: {why}");
        let due = self.now + FIRST_PAUSE;
        self.missing.get_or_insert(Missing { why, due, pause: FIRST_PAUSE, probe: None }).why.clone()
    }

    /// Looks for a proxy that was not there, if it is time.
    pub(super) fn look_for_proxy(&mut self) {
        let now = self.now;
        let Some(missing) = self.missing.as_mut().filter(|missing| missing.due <= now) else { return };
        if missing.probe.take().is_some() {
            return missing.fails(now);
        }
        let begun = self.presence.dialer.dial_proxy().and_then(|mut stream| {
            self.poll.registry().register(&mut stream, PROBE, Interest::WRITABLE)?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => (missing.probe, missing.due) = (Some(stream), now + PATIENCE),
            Err(_) => missing.fails(now),
        }
    }

    /// True if the event was about a proxy that was not there.
    pub(super) fn on_probe_event(&mut self, event: &Event) -> bool {
        if event.token() != PROBE {
            return false;
        }
        let Some(missing) = &mut self.missing else { return true };
        let Some(stream) = &missing.probe else { return true };
        match tcp::dialed(stream) {
            Ok(()) => {
                self.missing = None;
                self.reconnect();
            }
            Err(why) if why.kind() == ErrorKind::NotConnected => {}
            Err(_) => missing.fails(self.now),
        }
        true
    }
}

impl Missing {
    /// When it has something to do.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    fn fails(&mut self, now: Time) {
        self.probe = None;
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
