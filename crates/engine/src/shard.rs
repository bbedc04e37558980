//! Controllers that share a thread, and all they share: memory, dice, budgets, and the lanes out.
//!
//! Owns the Controllers, the BlockPool, the Rng, which connection is whose, who thirsts, and when which Controller is
//! due. Decides nothing about a torrent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::tracker::{FetchFailure, FetchId};
use piecemeal_metainfo::{Time, TorrentId};
use piecemeal_package::{BlockPool, Done};
use rand_chacha::rand_core::SeedableRng;

use crate::controller::{BEAT, Controller};
use crate::cx::{Ate, ConnId, Cx, Goodbye, Handed, Lease, Net, News, Note, Out, Rng, Sending, Settings};
use crate::outside::Outside;
use crate::rate::{Trunk, limit_of};
use crate::seated::Seated;
use crate::seeker::Seeker;

/// When somebody thirsts for so long, Blocks that trickle in are taken back.
const QUENCH_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Shard {
    settings: Arc<Settings>,
    seats: BTreeMap<TorrentId, Seat>,
    routes: BTreeMap<ConnId, TorrentId>,
    /// Exactly the Controllers that have something due, by time.
    beats: BTreeSet<(Time, TorrentId)>,
    /// Connections that wait for a Buf, the longest first. At most one entry a connection.
    thirsty: VecDeque<ConnId>,
    quench_at: Time,
    /// Grows with each division of a budget.
    turn: u64,
    rng: Rng,
    pool: BlockPool,
    lease: Lease,
    out: Out,
}

struct Seat {
    seated: Seated,
    /// As it stands in `beats`; `Time::NEVER`: not there.
    beat: Time,
}

impl Shard {
    /// A Shard without torrents, with `pool_bufs` Bufs.
    pub fn new(settings: Settings, seed: [u8; 32], pool_bufs: usize) -> Shard {
        Shard {
            seats: BTreeMap::new(),
            routes: BTreeMap::new(),
            beats: BTreeSet::new(),
            thirsty: VecDeque::new(),
            quench_at: Time::NEVER,
            turn: 0,
            rng: Rng::from_seed(seed),
            pool: BlockPool::new(pool_bufs),
            lease: Lease {
                down: Trunk::unlimited(),
                up: Trunk::unlimited(),
                upload_bufs: 0,
                outside: Outside::at(settings.port),
                gate: settings.gate.clone(),
            },
            out: Out::default(),
            settings: Arc::new(settings),
        }
    }

    /// Bytes came; all are eaten unless it is thirsty.
    pub fn on_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) -> Ate {
        let all = Ate { bytes: bytes.len(), thirsty: false };
        let Some(&torrent) = self.routes.get(&conn) else { return all };
        let ate = self.visit(now, torrent, |seated, cx| seated.on_bytes(cx, conn, bytes)).unwrap_or(all);
        if ate.thirsty {
            self.thirsts(now, conn);
        }
        ate
    }

    /// The socket took so many bytes of what [`Shard::with_sealed`] showed.
    pub fn on_wrote(&mut self, now: Time, conn: ConnId, bytes: usize) {
        if let Some(&torrent) = self.routes.get(&conn) {
            self.visit(now, torrent, |seated, cx| seated.on_wrote(cx, conn, bytes));
            self.water(now);
        }
    }

    /// Shows what is to be sent next. `None`: nothing.
    pub fn with_sealed<R>(&mut self, conn: ConnId, f: impl FnOnce(&[Sending<'_>]) -> R) -> Option<R> {
        let torrent = self.routes.get(&conn)?;
        self.seats.get(torrent)?.seated.with_sealed(conn, f)
    }

    /// The connection has ended from the other side, or failed.
    pub fn on_closed(&mut self, now: Time, conn: ConnId, why: Goodbye) {
        if let Some(&torrent) = self.routes.get(&conn) {
            self.visit(now, torrent, |seated, cx| seated.on_closed(cx, conn, &why));
            self.water(now);
        }
    }

    /// A Job was done.
    pub fn on_disk(&mut self, now: Time, torrent: TorrentId, done: Done) {
        self.visit(now, torrent, |seated, cx| seated.on_disk(cx, done));
        self.water(now);
    }

    /// A tracker answered, or did not.
    pub fn on_fetched(
        &mut self,
        now: Time,
        torrent: TorrentId,
        fetch: FetchId,
        result: Result<&[u8], FetchFailure>,
    ) {
        self.visit(now, torrent, |seated, cx| seated.on_fetched(cx, fetch, result));
    }

    /// The Server says something.
    pub fn on_note(&mut self, now: Time, note: Note) {
        match note {
            Note::Seat(seating) => {
                let torrent = seating.torrent;
                let settings = self.settings.clone();
                let controller = Controller::new(&mut self.cx(now), settings, *seating);
                self.seat(now, torrent, Seated::Controller(Box::new(controller)));
            }
            Note::Seek(seeking) => {
                let torrent = seeking.torrent;
                let settings = self.settings.clone();
                let seeker = Seeker::new(&mut self.cx(now), settings, *seeking);
                self.seat(now, torrent, Seated::Seeker(Box::new(seeker)));
            }
            Note::Fetched { torrent, fetch, result } => {
                let result = result.as_ref().map(Vec::as_slice).map_err(Clone::clone);
                self.on_fetched(now, torrent, fetch, result);
            }
            Note::Found { torrent, peers, source } => {
                self.visit(now, torrent, |seated, cx| seated.learn(cx, &peers, source));
            }
            Note::Unseat { torrent, delete } => {
                if self.visit(now, torrent, |seated, cx| seated.leave(cx, delete)).is_none() {
                    self.out.news.push(News::Gone(torrent));
                }
            }
            Note::Change(torrent, change) => {
                self.visit(now, torrent, |seated, cx| seated.on_change(cx, change));
            }
            Note::Hand(handed) => self.on_handed(now, &handed),
            Note::DialFailed { torrent, to, why } => {
                self.visit(now, torrent, |seated, cx| seated.on_dial_failed(cx, to, &why));
            }
            Note::Lease { down, up } => {
                self.lease.down.set_limit(limit_of(down), now);
                self.lease.up.set_limit(limit_of(up), now);
                self.visit_all(now, Seated::spend_parts);
            }
            Note::Outside(outside) => self.lease.outside = outside,
            Note::Gate(gate) => {
                self.lease.gate = gate;
                self.visit_all(now, Seated::gate_changed);
                self.water(now);
            }
            Note::Moved => {
                self.visit_all(now, Seated::moved);
            }
            // These go the other way.
            Note::SeenAs { .. }
            | Note::Dial { .. }
            | Note::Left { .. }
            | Note::Open { .. }
            | Note::Node(_) => {}
        }
    }

    /// Does what is due; returns when to be called again.
    pub fn heartbeat(&mut self, now: Time) -> Time {
        while let Some(&(beat, torrent)) = self.beats.first()
            && beat <= now
        {
            self.visit(now, torrent, |seated, cx| seated.heartbeat(cx));
        }
        self.divide(now);
        if self.quench_at <= now {
            self.quench(now);
        }
        self.water(now);
        let beat = self.beats.first().map_or(Time::NEVER, |(beat, _)| *beat);
        beat.min(self.budgets_due(now)).min(self.quench_at)
    }

    /// What it wants done outside.
    pub fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// Bufs that are lent, for whoever keeps the balance.
    pub fn lent_bufs(&self) -> usize {
        self.pool.lent()
    }

    fn on_handed(&mut self, now: Time, handed: &Handed) {
        let conn = handed.conn;
        self.routes.insert(conn, handed.torrent);
        let joined = self.visit(now, handed.torrent, |seated, cx| seated.on_handed(cx, handed));
        if let Err(why) = joined.unwrap_or(Err(Goodbye::Unknown)) {
            self.routes.remove(&conn);
            self.out.net.push(Net::Close(conn, why));
            self.out.notes.push(Note::Left { conn });
        }
    }

    fn seat(&mut self, now: Time, torrent: TorrentId, seated: Seated) {
        self.seats.insert(torrent, Seat { seated, beat: Time::NEVER });
        self.visit(now, torrent, |_, _| {});
    }

    /// Calls a Controller or Seeker, and does what follows from whatever it did.
    fn visit<R>(
        &mut self,
        now: Time,
        torrent: TorrentId,
        call: impl FnOnce(&mut Seated, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let seat = self.seats.get_mut(&torrent)?;
        let Shard { rng, pool, lease, out, .. } = self;
        let result = call(&mut seat.seated, &mut Cx { now, rng, pool, lease, out });
        for conn in seat.seated.take_left() {
            self.routes.remove(&conn);
            self.thirsty.retain(|thirsty| *thirsty != conn);
            self.out.notes.push(Note::Left { conn });
        }
        let over = seat.seated.is_over();
        let beat = if over { Time::NEVER } else { seat.seated.next_heartbeat() };
        if beat != seat.beat {
            self.beats.remove(&(seat.beat, torrent));
            seat.beat = beat;
            if beat != Time::NEVER {
                self.beats.insert((beat, torrent));
            }
        }
        if over {
            self.seats.remove(&torrent);
            self.out.news.push(News::Gone(torrent));
        }
        Some(result)
    }

    fn visit_all(&mut self, now: Time, call: impl Fn(&mut Seated, &mut Cx<'_>)) {
        for torrent in self.seats.keys().copied().collect::<Vec<_>>() {
            self.visit(now, torrent, &call);
        }
    }

    fn cx(&mut self, now: Time) -> Cx<'_> {
        Cx { now, rng: &mut self.rng, pool: &mut self.pool, lease: &mut self.lease, out: &mut self.out }
    }

    fn thirsts(&mut self, now: Time, conn: ConnId) {
        if !self.thirsty.contains(&conn) {
            self.thirsty.push_back(conn);
        }
        self.quench_at = self.quench_at.min(now + QUENCH_EVERY);
    }

    /// As many as there are Bufs for may read again.
    fn water(&mut self, now: Time) {
        for _ in 0..self.pool.available().min(self.thirsty.len()) {
            if let Some(conn) = self.thirsty.pop_front() {
                self.out.net.push(Net::Read(conn));
            }
        }
        self.quench_at =
            if self.thirsty.is_empty() { Time::NEVER } else { self.quench_at.min(now + QUENCH_EVERY) };
    }

    fn quench(&mut self, now: Time) {
        self.quench_at = now + QUENCH_EVERY;
        self.visit_all(now, Seated::quench);
    }

    /// When a budget that somebody waits for has something again.
    fn budgets_due(&self, now: Time) -> Time {
        let due = self.lease.down.next_due().min(self.lease.up.next_due());
        if due == Time::NEVER { due } else { due.max(now + BEAT).rounded_up(BEAT) }
    }

    /// Divides the budgets that are short over those that want of them.
    fn divide(&mut self, now: Time) {
        let due = |trunk: &Trunk| trunk.next_due() <= now;
        if !due(&self.lease.down) && !due(&self.lease.up) {
            return;
        }
        self.turn += 1;
        let torrents: Vec<_> = self.seats.keys().copied().collect();
        let demands: Vec<_> = self.seats.values().map(|seat| seat.seated.demands()).collect();
        let mut parts = [vec![0; torrents.len()], vec![0; torrents.len()]];
        for (at, part) in parts.iter_mut().enumerate() {
            let wanted: Vec<_> = demands.iter().map(|demand| demand[at]).collect();
            let trunk = if at == 0 { &mut self.lease.down } else { &mut self.lease.up };
            if trunk.next_due() <= now {
                trunk.divide(&wanted, self.turn, part, now);
            }
        }
        for (at, torrent) in torrents.into_iter().enumerate() {
            if parts[0][at] == 0 && parts[1][at] == 0 {
                continue;
            }
            self.lease.down.begin_part(parts[0][at]);
            self.lease.up.begin_part(parts[1][at]);
            self.visit(now, torrent, Seated::spend_parts);
            self.lease.down.end_part();
            self.lease.up.end_part();
        }
    }
}
