//! What is due, and when: every timed thing of a torrent, in one array.

use std::time::Duration;

use piecemeal_metainfo::Time;

/// A shard wakes at most ten times a second: deadlines are rounded up to this.
pub(crate) const BEAT: Duration = Duration::from_millis(100);

/// A timed thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Look for peers that owe us Blocks, ask those that can be asked, and answer whom the budget kept waiting.
    Requests,
    /// Judge whom to unchoke.
    Choke,
    /// Tell quiet peers that we live, and let silent or useless ones go.
    Reap,
    /// Dial.
    Connect,
    /// Announce.
    Announce,
    /// Tell peers of peers.
    Pex,
    /// Blocks wait too long behind a gap.
    Flush,
    /// Try the disk again.
    Retry,
    /// Facts to be kept.
    Resume,
    /// Tell how we stand.
    Snapshot,
}

impl Due {
    const ALL: [Due; 10] = [
        Due::Requests,
        Due::Choke,
        Due::Reap,
        Due::Connect,
        Due::Announce,
        Due::Pex,
        Due::Flush,
        Due::Retry,
        Due::Resume,
        Due::Snapshot,
    ];
}

/// The deadlines of a torrent.
#[derive(Debug)]
pub(super) struct Agenda {
    at: [Time; Due::ALL.len()],
}

impl Agenda {
    /// Nothing is due.
    pub(super) fn new() -> Agenda {
        Agenda { at: [Time::NEVER; Due::ALL.len()] }
    }

    /// It is due then, whatever was said before; `Time::NEVER`: not at all.
    pub(super) fn set(&mut self, due: Due, at: Time) {
        self.at[due as usize] = if at == Time::NEVER { at } else { at.rounded_up(BEAT) };
    }

    /// It is due then, or sooner.
    pub(super) fn by(&mut self, due: Due, at: Time) {
        if at < self.at[due as usize] {
            self.set(due, at);
        }
    }

    /// When it is due.
    pub(super) fn at(&self, due: Due) -> Time {
        self.at[due as usize]
    }

    /// Something that is due at `now`; it no longer is.
    pub(super) fn take(&mut self, now: Time) -> Option<Due> {
        let due = Due::ALL.into_iter().find(|due| self.at(*due) <= now)?;
        self.at[due as usize] = Time::NEVER;
        Some(due)
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Time {
        self.at.iter().copied().fold(Time::NEVER, Time::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_is_next_and_is_taken_once() {
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let mut agenda = Agenda::new();
        assert_eq!(agenda.next(), Time::NEVER);
        agenda.set(Due::Choke, at(1001));
        agenda.by(Due::Choke, at(5000));
        agenda.by(Due::Resume, at(150));
        assert_eq!((agenda.at(Due::Choke), agenda.next()), (at(1100), at(200)));
        assert_eq!(agenda.take(at(199)), None);
        assert_eq!(agenda.take(at(1100)), Some(Due::Choke));
        assert_eq!(agenda.take(at(1100)), Some(Due::Resume));
        assert_eq!(agenda.take(at(1100)), None);
        agenda.set(Due::Choke, at(1));
        agenda.set(Due::Choke, Time::NEVER);
        assert_eq!(agenda.next(), Time::NEVER);
    }
}
