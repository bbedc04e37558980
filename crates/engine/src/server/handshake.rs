//! One handshake: the bytes that came so far, and those of ours that have yet to go.
//!
//! Owns no rule but how much is read: never beyond the handshake, so that what follows can be given to the Shard
//! as it came. Whom to answer is the Server's question.

use std::net::SocketAddr;

use piecemeal_metainfo::{InfoHash, TorrentId};
use piecemeal_wire::handshake::{HANDSHAKE_BYTES, Handshake, HandshakeError, Progress};

use crate::cx::Time;

/// A dial that a Shard asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dial {
    /// For which torrent.
    pub(super) torrent: TorrentId,
    /// Where to, as the Shard named it.
    pub(super) to: SocketAddr,
    /// What the peer must name as well.
    pub(super) info_hash: InfoHash,
}

/// Who began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// They called us.
    Caller {
        /// From where.
        from: SocketAddr,
        /// What they want, once they said it and we answered.
        torrent: Option<TorrentId>,
    },
    /// We called them.
    Dialed(Dial),
}

impl Side {
    /// The torrent it is about, as far as that is known.
    pub(super) fn torrent(&self) -> Option<TorrentId> {
        match self {
            Side::Caller { torrent, .. } => *torrent,
            Side::Dialed(dial) => Some(dial.torrent),
        }
    }
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Shaking {
    /// Who began.
    pub(super) side: Side,
    /// When it began, and since when the caller occupies a place.
    pub(super) since: Time,
    /// Ours.
    pub(super) unsent: Unsent,
    /// The caller is this very program. It is let go only when it has our handshake, by which the end that dialed
    /// learns the same, and not to dial that address again.
    pub(super) ourselves: bool,
    got: [u8; HANDSHAKE_BYTES],
    got_bytes: usize,
}

impl Shaking {
    /// A handshake of which nothing is here.
    pub(super) fn new(side: Side, since: Time, unsent: Unsent) -> Shaking {
        Shaking { side, since, unsent, ourselves: false, got: [0; HANDSHAKE_BYTES], got_bytes: 0 }
    }

    /// Takes what belongs to the handshake from the front of `bytes`; returns how much that was, and how far it is.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> (usize, Result<Progress, HandshakeError>) {
        let room = &mut self.got[self.got_bytes..];
        let took = room.len().min(bytes.len());
        room[..took].copy_from_slice(&bytes[..took]);
        self.got_bytes += took;
        (took, Handshake::decode(&self.got[..self.got_bytes]))
    }
}

/// What of our handshake has yet to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unsent {
    bytes: [u8; HANDSHAKE_BYTES],
    wrote: usize,
}

impl Unsent {
    /// Nothing (yet).
    pub(super) const NOTHING: Unsent = Unsent { bytes: [0; HANDSHAKE_BYTES], wrote: HANDSHAKE_BYTES };

    /// All of `ours`.
    pub(super) fn all(ours: &Handshake) -> Unsent {
        Unsent { bytes: ours.encode(), wrote: 0 }
    }

    /// The bytes to write next.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.wrote..]
    }

    /// So many of them were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.wrote = self.wrote.saturating_add(bytes).min(HANDSHAKE_BYTES);
    }
}
