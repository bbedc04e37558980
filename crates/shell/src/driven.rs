//! What the loop drives: the verbs of the pure engine, as traits.
//!
//! Owns nothing. The loop is written against these, so that a test can put a small engine of its own behind real
//! sockets; the product has exactly one implementation of each, the engine's `Server` and `Shard`.

use std::net::{IpAddr, SocketAddr};

use piecemeal_discovery::tracker::{Fetch, FetchFailure, FetchId};
use piecemeal_engine::cx::{Ate, Carrier, Command, ConnId, DialId, Goodbye, Note, Out, Sending};
use piecemeal_engine::{Server, Shard};
use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_package::Done;
use piecemeal_transport::mse::Total;

/// The verbs that a Server and a Shard share.
pub trait Driven {
    /// Bytes came; all are eaten unless it is thirsty.
    fn on_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) -> Ate;
    /// The socket took so many bytes of what [`Driven::with_sealed`] showed.
    fn on_wrote(&mut self, now: Time, conn: ConnId, bytes: usize);
    /// Shows what is to be sent next. `None`: nothing.
    fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R>;
    /// The connection has ended from the other side, or failed.
    fn on_closed(&mut self, now: Time, conn: ConnId, why: Goodbye);
    /// A note from the other of the two.
    fn on_note(&mut self, now: Time, note: Note);
    /// Does what is due; returns when to be called again.
    fn heartbeat(&mut self, now: Time) -> Time;
    /// What it wants done outside.
    fn out(&mut self) -> &mut Out;
}

/// The verbs of a Server.
pub trait Front: Driven {
    /// Somebody called.
    fn on_accepted(&mut self, now: Time, conn: ConnId, from: SocketAddr, carrier: Carrier);
    /// A dial has ended.
    fn on_dialed(&mut self, now: Time, dial: DialId, result: Result<ConnId, String>);
    /// A sum was done.
    fn on_total(&mut self, now: Time, conn: ConnId, total: Total);
    /// A caller proved by TLS that it belongs to this torrent; before its first bytes.
    fn on_proved(&mut self, conn: ConnId, torrent: TorrentId);
    /// Someone commands.
    fn on_command(&mut self, now: Time, command: Command);
    /// Whether anybody at `ip` may be talked to; of others nothing needs to be shown.
    fn lets_in(&self, ip: IpAddr) -> bool;
    /// A datagram came.
    fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]);
    /// A datagram came to the group of local discovery.
    fn on_lsd(&mut self, now: Time, from: SocketAddr, bytes: &[u8]);
    /// The name of a UDP tracker was looked up.
    fn on_resolved(&mut self, now: Time, torrent: TorrentId, fetch: &Fetch, to: SocketAddr);
    /// A datagram could not be sent, and no other can be: `why`, in words.
    fn on_unreachable(&mut self, now: Time, to: SocketAddr, why: &str);
}

/// The verbs of a Shard.
pub trait Data: Driven {
    /// A Job was done.
    fn on_disk(&mut self, now: Time, torrent: TorrentId, done: Done);
    /// A tracker answered, or did not.
    fn on_fetched(
        &mut self,
        now: Time,
        torrent: TorrentId,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    );
}

macro_rules! drive {
    ($pure:ty) => {
        impl Driven for $pure {
            fn on_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) -> Ate {
                <$pure>::on_bytes(self, now, conn, bytes)
            }
            fn on_wrote(&mut self, now: Time, conn: ConnId, bytes: usize) {
                <$pure>::on_wrote(self, now, conn, bytes)
            }
            fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
                <$pure>::with_sealed(self, conn, f)
            }
            fn on_closed(&mut self, now: Time, conn: ConnId, why: Goodbye) {
                <$pure>::on_closed(self, now, conn, why)
            }
            fn on_note(&mut self, now: Time, note: Note) {
                <$pure>::on_note(self, now, note)
            }
            fn heartbeat(&mut self, now: Time) -> Time {
                <$pure>::heartbeat(self, now)
            }
            fn out(&mut self) -> &mut Out {
                <$pure>::out(self)
            }
        }
    };
}
drive!(Server);
drive!(Shard);

impl Front for Server {
    fn on_accepted(&mut self, now: Time, conn: ConnId, from: SocketAddr, carrier: Carrier) {
        Server::on_accepted(self, now, conn, from, carrier)
    }
    fn on_dialed(&mut self, now: Time, dial: DialId, result: Result<ConnId, String>) {
        Server::on_dialed(self, now, dial, result)
    }
    fn on_total(&mut self, now: Time, conn: ConnId, total: Total) {
        Server::on_total(self, now, conn, total)
    }
    fn on_proved(&mut self, conn: ConnId, torrent: TorrentId) {
        Server::on_proved(self, conn, torrent)
    }
    fn on_command(&mut self, now: Time, command: Command) {
        Server::on_command(self, now, command)
    }
    fn lets_in(&self, ip: IpAddr) -> bool {
        Server::lets_in(self, ip)
    }
    fn on_datagram(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        Server::on_datagram(self, now, from, bytes)
    }
    fn on_lsd(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        Server::on_lsd(self, now, from, bytes)
    }
    fn on_resolved(&mut self, now: Time, torrent: TorrentId, fetch: &Fetch, to: SocketAddr) {
        Server::on_resolved(self, now, torrent, fetch, to)
    }
    fn on_unreachable(&mut self, now: Time, to: SocketAddr, why: &str) {
        Server::on_unreachable(self, now, to, why)
    }
}

impl Data for Shard {
    fn on_disk(&mut self, now: Time, torrent: TorrentId, done: Done) {
        Shard::on_disk(self, now, torrent, done)
    }
    fn on_fetched(
        &mut self,
        now: Time,
        torrent: TorrentId,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) {
        Shard::on_fetched(self, now, torrent, fetch, result)
    }
}
