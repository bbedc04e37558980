//! One tracker's address: its connection id, and who waits.
//!
//! Owns facts only; what happens when is [`super::UdpTrackers`]'s.

use std::collections::VecDeque;

use piecemeal_metainfo::Time;
use piecemeal_wire::tracker::udp::{ConnectionId, Transaction};

/// An address that has been asked.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) connection: Connection,
    /// When its connection wants the heartbeat: it is sent again, or expires.
    pub(super) next: Time,
    /// Requests whose turn has come.
    pub(super) out: usize,
    /// Others, by arrival; bound: that of all requests.
    pub(super) line: VecDeque<Transaction>,
}

impl Default for Host {
    fn default() -> Host {
        Host { connection: Connection::None, next: Time::NEVER, out: 0, line: VecDeque::new() }
    }
}

/// How we stand with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    /// Not asked for, or expired.
    None,
    /// Asked for, so many times.
    Asked { transaction: Transaction, sends: u32 },
    /// Given, and good until then.
    Known { id: ConnectionId, until: Time },
}

impl Connection {
    /// A connection id that may be used now.
    pub(super) fn id(&self, now: Time) -> Option<ConnectionId> {
        match *self {
            Connection::Known { id, until } if now < until => Some(id),
            _ => None,
        }
    }

    /// It is asked for.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Connection::Asked { .. })
    }

    /// It is asked for by this number.
    pub(super) fn awaits(&self, number: Transaction) -> bool {
        matches!(self, Connection::Asked { transaction, .. } if *transaction == number)
    }
}
