//! Whom we talk to at all.
//!
//! Owns what a new judgement ends: handshakes and dials here, and, by a note, what the Shards have. The doors ask for
//! themselves, each where it opens: calls, dials, datagrams, trackers. Who is judged, and where lists come from, is for
//! whoever commands.

use std::net::IpAddr;

use piecemeal_discovery::filter::Gate;

use super::Server;
use super::handshake::{Shaking, Side};
use crate::cx::{Goodbye, Note};

/// Said of a tracker that is blocked.
pub(super) const BLOCKED: &str = "the IP filter blocks its address";

impl Server {
    /// Whether anybody at `ip` may be talked to. Asked by the shell of what it need not show: nothing of others is
    /// answered, not even the first packet of a connection.
    pub fn lets_in(&self, ip: IpAddr) -> bool {
        !self.gate.blocks(ip)
    }

    /// Who may be talked to from now on.
    pub(super) fn set_gate(&mut self, gate: Gate) {
        let blocked = |shaking: &Shaking| match &shaking.side {
            Side::Caller { from, .. } => gate.blocks(from.ip()),
            Side::Dialed(dial) => gate.blocks(dial.to.ip()),
        };
        let conns = self.shaking.iter().filter(|(_, shaking)| blocked(shaking)).map(|(conn, _)| *conn);
        for conn in conns.collect::<Vec<_>>() {
            self.end(conn, Goodbye::Banned);
        }
        for dial in self.dials.end_all(|dial| gate.blocks(dial.to.ip())) {
            self.say_failed(&dial, Goodbye::Banned);
        }
        self.finding.set_gate(&gate);
        self.gate = gate.clone();
        // Behind all who were handed over before.
        self.out.notes.push(Note::Gate(gate));
    }
}
