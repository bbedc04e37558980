//! What the engine wants done: notes to the other side, sockets, Jobs, News; and writing.
//!
//! Writing frees Bufs and so makes new wishes; they are heard in the same turn, a few times over.

use std::mem::{replace, swap, take};

use piecemeal_engine::cx::{ConnId, Goodbye, Net, News, Note, Sending};
use piecemeal_transport::mse::Ciphers;

use super::conns::{Conn, Link, Owner, Slot, Wants};
use super::utp::End;
use super::{EngineLoop, to_owner};
use crate::driven::{Data, Front};
use crate::send::{Sent, SentEnd};

/// What one connection may write a turn before others have theirs.
const WRITE_BUDGET_BYTES: usize = 512 * 1024;
/// What is enciphered at once, and cannot be withdrawn when the peer is choked. Half of it costs who gives by RC4 5 % more, a
/// quarter 25 %: each needs a call of the system.
pub(super) const ENCIPHERED_BYTES: usize = 64 * 1024;
/// Rounds of wishes and writes in one turn; what is left is done in the next, after a look at the sockets.
const ROUNDS: usize = 4;
/// Rounds of notes: one answers another, but not for ever.
const NOTE_ROUNDS: usize = 1000;
/// Gathering writes that a Server may leave to be sent when it hands a connection over: a handshake is one.
const HANDOVER_WRITES: usize = 16;

impl<F: Front, D: Data> EngineLoop<F, D> {
    /// Does all that both want done.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            self.carry();
            self.do_net();
            self.submit();
            if self.to_write.is_empty() {
                break;
            }
            self.write_sockets();
        }
        self.carry();
        self.submit();
        self.publish();
    }

    /// Carries notes between the two until there are none. True if there were.
    pub(super) fn carry(&mut self) -> bool {
        let mut any = false;
        for _ in 0..NOTE_ROUNDS {
            if self.front.out().notes.is_empty() && self.data.out().notes.is_empty() {
                return any;
            }
            any = true;
            let mut notes = take(&mut self.lanes.notes);
            swap(&mut notes, &mut self.front.out().notes);
            notes.drain(..).for_each(|note| self.carry_to_data(note));
            swap(&mut notes, &mut self.data.out().notes);
            notes.drain(..).for_each(|note| self.front.on_note(self.now, note));
            self.lanes.notes = notes;
        }
        debug_assert!(false, "Server and Shard answer each other for ever");
        any
    }

    fn carry_to_data(&mut self, note: Note) {
        let mut note = note;
        let handed = match &mut note {
            Note::Hand(handed) => Some((handed.conn, handed.ciphers.take())),
            Note::Seat(seating) => {
                self.seated.insert(seating.torrent);
                None
            }
            _ => None,
        };
        let gone = handed.and_then(|(conn, ciphers)| (!self.hand_over(conn, ciphers)).then_some(conn));
        self.data.on_note(self.now, note);
        if let Some(conn) = gone {
            self.data.on_closed(self.now, conn, Goodbye::Closed);
        }
    }

    /// Changes a connection's owner. Bytes that the Server has yet to send go first; bytes it did not eat go to the
    /// Shard, deciphered. False if the connection is gone.
    fn hand_over(&mut self, id: ConnId, ciphers: Option<Box<Ciphers>>) -> bool {
        let Some(slot) = self.conns.slot_of(id) else { return false };
        for _ in 0..HANDOVER_WRITES {
            let Some(conn) = self.conns.get(slot) else { return false };
            let took = self.front.with_sealed(id, |slices| conn.take_unsent(slices)).unwrap_or(0);
            if took == 0 {
                break;
            }
            self.front.on_wrote(self.now, id, took);
        }
        let Some(conn) = self.conns.get(slot) else { return false };
        conn.owner = Owner::Data;
        conn.thirsty = false;
        conn.ciphers = ciphers;
        if let Some(ciphers) = &mut conn.ciphers {
            ciphers.incoming.apply(&mut conn.kept);
        }
        if !conn.kept.is_empty() {
            self.list_to_read(slot);
        }
        self.list_to_write(slot);
        true
    }

    fn do_net(&mut self) {
        let mut net = take(&mut self.lanes.net);
        // Dials that fail at once are told at once, and may wish for others: hence the rounds.
        for _ in 0..ROUNDS {
            swap(&mut net, &mut self.front.out().net);
            net.drain(..).for_each(|wish| self.do_wish(wish));
            swap(&mut net, &mut self.data.out().net);
            net.drain(..).for_each(|wish| self.do_wish(wish));
            self.carry();
            if self.front.out().net.is_empty() && self.data.out().net.is_empty() {
                break;
            }
        }
        self.lanes.net = net;
    }

    fn do_wish(&mut self, wish: Net) {
        match wish {
            Net::Dial { dial, to, carrier, tls, patience } => self.dial(dial, to, carrier, tls, patience),
            Net::Sum(conn, sum) => self.sums.ask(conn, sum),
            Net::Write(conn) => {
                if let Some(slot) = self.conns.slot_of(conn) {
                    self.list_to_write(slot);
                }
            }
            Net::Read(conn) => {
                if let Some(slot) = self.conns.slot_of(conn) {
                    if let Some(conn) = self.conns.get(slot) {
                        conn.thirsty = false;
                    }
                    self.list_to_read(slot);
                }
            }
            Net::Close(conn, why) => {
                let gone = self.conns.slot_of(conn).and_then(|slot| self.conns.remove(slot));
                let Some(gone) = gone else { return };
                let blocked = why == Goodbye::Banned;
                self.stats.blocked += u64::from(blocked);
                // Nothing of theirs is heard any more, a farewell neither.
                self.end_link(&gone.link, if blocked { End::Broken } else { End::Over });
                if let Some(dialing) = gone.dialing {
                    self.dials.remove(&(dialing.give_up, conn));
                }
            }
            Net::Fetch(torrent, fetch) => (self.fetch)(torrent, fetch),
            Net::Multicast { group, bytes } => self.datagrams.multicast(group, &bytes),
            Net::Datagram { purpose, to, bytes } => self.send_datagram(purpose, to, &bytes),
        }
    }

    pub(super) fn list_to_read(&mut self, slot: Slot) {
        if let Some(conn) = self.conns.get(slot).filter(|conn| !conn.listed) {
            conn.listed = true;
            self.ready.push(slot);
        }
    }

    pub(super) fn list_to_write(&mut self, slot: Slot) {
        if let Some(conn) = self.conns.get(slot).filter(|conn| conn.write == Wants::Nothing) {
            conn.write = if conn.writable { Wants::Listed } else { Wants::Room };
            if conn.writable {
                self.to_write.push(slot);
            }
        }
    }

    fn submit(&mut self) {
        let mut jobs = take(&mut self.lanes.jobs);
        swap(&mut jobs, &mut self.data.out().disk);
        jobs.append(&mut self.front.out().disk);
        self.jobs_out += jobs.len();
        self.stats.jobs += jobs.len() as u64;
        self.submitter.submit(&mut jobs);
        self.lanes.jobs = jobs;
    }

    fn publish(&mut self) {
        let mut news = take(&mut self.lanes.news);
        swap(&mut news, &mut self.data.out().news);
        news.append(&mut self.front.out().news);
        for one in &news {
            if let News::Gone(torrent) = one {
                self.seated.remove(torrent);
                self.identities.remove(*torrent);
                self.send_files.close(*torrent);
                self.disk.forget(*torrent);
            }
        }
        if !news.is_empty() {
            let told = self.news.post(&mut news);
            self.quiet_since = if told { None } else { self.quiet_since.or(Some(self.now)) };
        }
        self.lanes.news = news;
    }

    fn write_sockets(&mut self) {
        let mut slots = replace(&mut self.to_write, take(&mut self.lanes.slots));
        for slot in slots.drain(..) {
            self.write(slot);
        }
        self.lanes.slots = slots;
    }

    /// Writes to a connection until it has no more, the socket is full, or its turn is over.
    fn write(&mut self, slot: Slot) {
        let mut left = WRITE_BUDGET_BYTES;
        while let Some(conn) = self.conns.get(slot).filter(|conn| conn.write == Wants::Listed) {
            if left == 0 {
                return self.to_write.push(slot);
            }
            if conn.unsent.is_empty()
                && conn.is_sealed()
                && let Err(why) = self.seal(slot)
            {
                return self.lose(slot, why);
            }
            let Some(Sent { bytes, from_files, calls, end }) = self.send(slot) else {
                if let Some(conn) = self.conns.get(slot) {
                    conn.write = Wants::Nothing;
                }
                return;
            };
            self.stats.writes += calls;
            self.stats.bytes_out += bytes as u64;
            self.stats.bytes_from_files += from_files as u64;
            left = left.saturating_sub(bytes);
            let Some(conn) = self.conns.get(slot) else { return };
            match end {
                SentEnd::All if bytes == 0 => conn.write = Wants::Nothing,
                SentEnd::All => {}
                SentEnd::Full => (conn.write, conn.writable) = (Wants::Room, false),
                SentEnd::Broken(why) => return self.lose(slot, why),
            }
            if !conn.unsent.is_empty() {
                conn.unsent.drain(..bytes);
            } else if bytes > 0 {
                let (id, owner) = (conn.id, conn.owner);
                to_owner!(self, owner, it => it.on_wrote(self.now, id, bytes));
            }
        }
    }

    /// Sends once: what is unsent, or else what the owner has. `None`: it has nothing.
    fn send(&mut self, slot: Slot) -> Option<Sent> {
        let conn = self.conns.get(slot)?;
        let (id, owner, files) = (conn.id, conn.owner, &mut self.send_files);
        match &conn.link {
            Link::Tcp(stream) if !conn.unsent.is_empty() => {
                Some(files.send(stream, &[Sending::Bytes(&conn.unsent)]))
            }
            // All that it has to say was enciphered before, and is said.
            Link::Tcp(_) if conn.is_sealed() => None,
            Link::Tcp(stream) => {
                to_owner!(self, owner, it => it.with_sealed(id, |slices| files.send(stream, slices)))
            }
            Link::Utp(..) => self.send_utp(slot),
        }
    }

    /// Enciphers what its owner has to say next: from then on it cannot be withdrawn.
    ///
    /// # Errors
    /// A file cannot be read.
    fn seal(&mut self, slot: Slot) -> Result<(), Goodbye> {
        let Some(conn) = self.conns.get(slot) else { return Ok(()) };
        if conn.tls.is_some() {
            return self.seal_tls(slot);
        }
        let (id, owner, files, unsent) = (conn.id, conn.owner, &mut self.send_files, &mut conn.unsent);
        let gathered = to_owner!(self, owner, it => {
            it.with_sealed(id, |slices| files.gather(slices, ENCIPHERED_BYTES, unsent))
        });
        let bytes = unsent.len();
        if let Some(ciphers) = &mut conn.ciphers {
            ciphers.outgoing.apply(unsent);
        }
        gathered.unwrap_or(Ok(()))?;
        if bytes > 0 {
            to_owner!(self, owner, it => it.on_wrote(self.now, id, bytes));
        }
        Ok(())
    }
}

impl Conn {
    /// Copies what can be copied of `slices`; returns how many bytes that was.
    fn take_unsent(&mut self, slices: &[Sending<'_>]) -> usize {
        let mut took = 0;
        for slice in slices {
            let Sending::Bytes(bytes) = slice else { break };
            match &mut self.tls {
                // A failure shows at the next write.
                Some(tls) => drop(tls.seal(bytes, &mut self.unsent)),
                None => self.unsent.extend_from_slice(bytes),
            }
            took += bytes.len();
        }
        took
    }

    /// Whether what it says is not sent as it is.
    fn is_sealed(&self) -> bool {
        self.ciphers.is_some() || self.tls.is_some()
    }
}
