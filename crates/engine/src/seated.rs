//! Who sits at a torrent's seat: its Controller, or, while only its name is known, a Seeker.

use std::net::SocketAddr;

use piecemeal_discovery::tracker::{FetchFailure, FetchId};
use piecemeal_metainfo::Time;
use piecemeal_package::Done;

use crate::controller::Controller;
use crate::cx::{Ate, Change, ConnId, Cx, Goodbye, Handed, Sending};
use crate::seeker::Seeker;
use crate::swarm::PeerSource;

/// See the module. What each verb does is said at [`Controller`].
pub(crate) enum Seated {
    Controller(Box<Controller>),
    Seeker(Box<Seeker>),
}

/// Calls a verb that both have.
macro_rules! both {
    ($self:expr, $it:ident => $call:expr) => {
        match $self {
            Seated::Controller($it) => $call,
            Seated::Seeker($it) => $call,
        }
    };
}

impl Seated {
    pub(crate) fn on_bytes(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: &[u8]) -> Ate {
        both!(self, it => it.on_bytes(cx, conn, bytes))
    }

    pub(crate) fn on_wrote(&mut self, cx: &mut Cx<'_>, conn: ConnId, bytes: usize) {
        both!(self, it => it.on_wrote(cx, conn, bytes))
    }

    pub(crate) fn with_sealed<R>(&self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        both!(self, it => it.with_sealed(conn, f))
    }

    pub(crate) fn on_closed(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: &Goodbye) {
        both!(self, it => it.on_closed(cx, conn, why))
    }

    pub(crate) fn on_handed(&mut self, cx: &mut Cx<'_>, handed: &Handed) -> Result<(), Goodbye> {
        both!(self, it => it.on_handed(cx, handed))
    }

    pub(crate) fn on_fetched(
        &mut self,
        cx: &mut Cx<'_>,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) {
        both!(self, it => it.on_fetched(cx, fetch, result))
    }

    pub(crate) fn on_change(&mut self, cx: &mut Cx<'_>, change: Change) {
        both!(self, it => it.on_change(cx, change))
    }

    pub(crate) fn moved(&mut self, cx: &mut Cx<'_>) {
        both!(self, it => it.moved(cx))
    }

    pub(crate) fn gate_changed(&mut self, cx: &mut Cx<'_>) {
        both!(self, it => it.gate_changed(cx))
    }

    pub(crate) fn on_dial_failed(&mut self, cx: &mut Cx<'_>, to: SocketAddr, why: &Goodbye) {
        both!(self, it => it.on_dial_failed(cx, to, why))
    }

    pub(crate) fn learn(&mut self, cx: &mut Cx<'_>, peers: &[SocketAddr], source: PeerSource) {
        both!(self, it => it.learn(cx, peers, source))
    }

    pub(crate) fn heartbeat(&mut self, cx: &mut Cx<'_>) {
        both!(self, it => it.heartbeat(cx))
    }

    pub(crate) fn next_heartbeat(&self) -> Time {
        both!(self, it => it.next_heartbeat())
    }

    pub(crate) fn is_over(&self) -> bool {
        both!(self, it => it.is_over())
    }

    pub(crate) fn take_left(&mut self) -> Vec<ConnId> {
        both!(self, it => it.take_left().collect())
    }

    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>, delete: bool) {
        match self {
            Seated::Controller(controller) => controller.leave(cx, delete),
            Seated::Seeker(seeker) => seeker.leave(cx),
        }
    }

    /// A Seeker sends no Jobs.
    pub(crate) fn on_disk(&mut self, cx: &mut Cx<'_>, done: Done) {
        if let Seated::Controller(controller) = self {
            controller.on_disk(cx, done);
        }
    }

    /// A Seeker holds no Bufs.
    pub(crate) fn quench(&mut self, cx: &mut Cx<'_>) {
        if let Seated::Controller(controller) = self {
            controller.quench(cx);
        }
    }

    /// What it would like to request and to load now, in bytes; a Seeker swaps no content.
    pub(crate) fn demands(&self) -> [u64; 2] {
        match self {
            Seated::Controller(controller) => controller.demands(),
            Seated::Seeker(_) => [0, 0],
        }
    }

    /// Spends what the Shard divided.
    pub(crate) fn spend_parts(&mut self, cx: &mut Cx<'_>) {
        if let Seated::Controller(controller) = self {
            controller.tend(cx);
        }
    }
}
