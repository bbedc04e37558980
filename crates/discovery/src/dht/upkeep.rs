//! What a node does by itself: keeping the table alive, getting into the network, and forgetting.
//!
//! Owns the deadlines of these. Deadlines of single questions are `asks`'s.

use std::time::Duration;

use piecemeal_metainfo::Time;
use piecemeal_wire::krpc::Method;

use super::asks::Purpose;
use super::table::K;
use super::{Dht, DhtOut, random_id};

/// Known addresses that are tried in one go, and how long it is to the next.
const BOOT_AT_ONCE: usize = 8;
const BOOT_EVERY: Duration = Duration::from_secs(1);
/// How often the table is looked at. A table of 300 nodes has one to ask every three seconds.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Stores are swept this often; what is dead is not told in between.
const EXPIRE_EVERY: Duration = Duration::from_secs(5 * 60);
/// With an almost empty table, the way in is tried again after this, then after twice as long, ...
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// ... and at most this.
const RETRY_MOST: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(super) struct Agenda {
    boot: Time,
    look: Time,
    expire: Time,
    /// The next try to get in.
    retry: Time,
    pause: Duration,
}

impl Agenda {
    pub(super) fn new(now: Time) -> Agenda {
        Agenda { boot: now, look: now, expire: now + EXPIRE_EVERY, retry: now, pause: RETRY_FIRST }
    }
}

impl Dht {
    /// Does what is due. Afterwards `next_due` lies ahead of `now`.
    pub fn heartbeat(&mut self, now: Time, out: &mut DhtOut) {
        self.judge_silence(now, out);
        if self.settings.brief {
            return;
        }
        if now >= self.agenda.boot {
            self.agenda.boot = now + BOOT_EVERY;
            self.boot(now, out);
        }
        if now >= self.agenda.retry {
            self.get_in(now, out);
        }
        if now >= self.agenda.look {
            self.agenda.look = now + LOOK_EVERY;
            self.look_after_table(now, out);
        }
        if now >= self.agenda.expire {
            self.agenda.expire = now + EXPIRE_EVERY;
            self.peers.expire(now);
            self.items.expire(now);
        }
    }

    /// When `heartbeat` has something to do; `Time::NEVER`: not before something happens. To be asked again after
    /// every other call.
    pub fn next_due(&self) -> Time {
        if self.settings.brief {
            return self.asks.next_due();
        }
        let when = |wanted: bool, due: Time| if wanted { due } else { Time::NEVER };
        let stores = !self.peers.is_empty() || self.items.len() > 0;
        self.asks
            .next_due()
            .min(when(!self.boot.is_empty(), self.agenda.boot))
            .min(when(self.wants_in(), self.agenda.retry))
            .min(when(self.table.len() > 0, self.agenda.look))
            .min(when(stores, self.agenda.expire))
    }

    /// Asks some of the addresses that were given to us.
    fn boot(&mut self, now: Time, out: &mut DhtOut) {
        for _ in 0..BOOT_AT_ONCE {
            let Some(addr) = self.boot.pop_front() else { return };
            if self.table.nodes().all(|node| node.addr != addr) {
                self.ask(now, addr, Method::Ping, Purpose::Check, out);
            }
        }
    }

    fn wants_in(&self) -> bool {
        self.table.len() < K && !(self.routers.is_empty() && self.boot.is_empty() && self.table.len() == 0)
    }

    /// Looks for our own neighbours while hardly anybody is known.
    fn get_in(&mut self, now: Time, out: &mut DhtOut) {
        if !self.wants_in() {
            // Whoever empties the table, the first new try is soon.
            self.agenda.pause = RETRY_FIRST;
            self.agenda.retry = now;
            return;
        }
        self.agenda.retry = now + self.agenda.pause;
        self.agenda.pause = (2 * self.agenda.pause).min(RETRY_MOST);
        if !self.is_refreshing() {
            let own = self.own;
            self.refresh(now, own, out);
        }
    }

    fn look_after_table(&mut self, now: Time, out: &mut DhtOut) {
        if let Some(addr) = self.table.stale(now) {
            self.ask(now, addr, Method::Ping, Purpose::Check, out);
        }
        if self.table.len() > 0 && !self.is_refreshing() {
            let random = random_id(&mut self.rng);
            if let Some(target) = self.table.unrefreshed(now, random) {
                self.refresh(now, target, out);
            }
        }
    }
}
