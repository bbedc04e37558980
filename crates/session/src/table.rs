//! How each torrent stands, from what the engine tells; and what listeners are told of it.
//!
//! Owns the torrent list, the status of each, and the order of events: a `Snapshot` right before each `StateChanged`
//! and `Complete`, and never an event that the table does not know of yet. A value like any other: who locks it and
//! who sends the events is the session's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use piecemeal_api::{Details, Event, FileStatus, Limits, Refusal, State, Status, Totals, Trouble};
use piecemeal_engine::cx::{self, News, Snapshot};
use piecemeal_metainfo::{Bitfield, FileIndex, Metainfo, PieceIndex, TorrentId};
use piecemeal_package::ResumeFacts;

use crate::seeks::Seeks;
use crate::store::Claim;
use crate::words;

/// Addresses remembered as givers: a swarm of a day. Beyond it the number stays.
const GIVERS_MAX: usize = 65_536;

/// All torrents. Ids only grow, so their order is that of adding.
#[derive(Default)]
pub(crate) struct Table {
    torrents: BTreeMap<TorrentId, Torrent>,
    /// Magnet links that are to become torrents.
    pub(crate) seeks: Seeks,
    last: u32,
    /// The engine is leaving or has left: torrents that go stay listed, as gone.
    ending: bool,
}

/// One torrent.
pub(crate) struct Torrent {
    pub(crate) meta: Arc<Metainfo>,
    /// As the user gave it, absolute.
    pub(crate) dir: PathBuf,
    /// The same without links, to compare.
    pub(crate) real_dir: PathBuf,
    /// By file: what the user wants.
    pub(crate) wanted: Arc<[bool]>,
    pub(crate) options: cx::Options,
    /// The right to its resume facts, if they are kept.
    pub(crate) claim: Option<Arc<Claim>>,
    /// The user removed it, and it has not left yet.
    pub(crate) leaving: bool,
    /// The last facts were those of a torrent that is closed: nothing more is to be known of its content.
    closed: bool,
    stand: Stand,
}

/// How it stands.
struct Stand {
    added: Instant,
    state: State,
    /// The last one the engine told of.
    trouble: Option<Trouble>,
    /// In a Snapshot it was in trouble, and of what kind was not told.
    untold: bool,
    snapshot: Option<Box<Snapshot>>,
    /// When that was heard.
    heard: Instant,
    have: Option<Arc<Bitfield>>,
    /// At most [`GIVERS_MAX`].
    givers: BTreeSet<SocketAddr>,
    /// The engine says that the trouble is over, or that all is there; the Snapshot that shows it is still to come.
    recovering: bool,
    complete: bool,
    /// Of earlier runs.
    before: Totals,
    /// What listeners saw last, its age left out.
    shown: Option<Status>,
}

/// What is to be done about News beside telling listeners.
pub(crate) enum Errand {
    /// Keep these for the next run.
    Save(Arc<Claim>, Box<ResumeFacts>),
    /// Forget what was kept: the user removed the torrent, and it has left.
    Forget(Arc<Claim>),
}

impl Table {
    /// A number that no torrent or magnet link of this session had.
    pub(crate) fn next_id(&mut self) -> TorrentId {
        self.last += 1;
        TorrentId(self.last)
    }

    /// A torrent that the engine is about to get.
    pub(crate) fn insert(&mut self, id: TorrentId, torrent: Torrent) -> Event {
        let name = torrent.name();
        self.torrents.insert(id, torrent);
        Event::Added { torrent: id, name }
    }

    /// One that is there and stays.
    pub(crate) fn get(&self, id: TorrentId) -> Result<&Torrent, Refusal> {
        let known = self.torrents.get(&id).filter(|torrent| !torrent.leaving);
        known.ok_or(Refusal::UnknownTorrent { torrent: id })
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, id: TorrentId) -> Result<&mut Torrent, Refusal> {
        let known = self.torrents.get_mut(&id).filter(|torrent| !torrent.leaving);
        known.ok_or(Refusal::UnknownTorrent { torrent: id })
    }

    /// All, in order of adding; those that leave too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TorrentId, &Torrent)> {
        self.torrents.iter().map(|(id, torrent)| (*id, torrent))
    }

    /// How one stands.
    pub(crate) fn status(&self, id: TorrentId) -> Result<Status, Refusal> {
        self.get(id).map(|torrent| torrent.status(id))
    }

    /// The same in full.
    pub(crate) fn details(&self, id: TorrentId) -> Result<Details, Refusal> {
        self.get(id).map(|torrent| torrent.details(id))
    }

    /// How all stand that were not removed.
    pub(crate) fn list(&self) -> Vec<Status> {
        let staying = self.iter().filter(|(_, torrent)| !torrent.leaving);
        staying.map(|(id, torrent)| torrent.status(id)).collect()
    }

    /// From here on, whoever goes is gone with the engine and not by the user's wish.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// Torrents that have not left: what is still to be said goodbye to.
    pub(crate) fn staying(&self) -> impl Iterator<Item = (TorrentId, &Torrent)> {
        self.iter().filter(|(_, torrent)| torrent.stand.state != State::Gone)
    }

    /// The engine tells something: takes it in, and adds what is to be told and done.
    pub(crate) fn hear(&mut self, news: News, events: &mut Vec<Event>, errands: &mut Vec<Errand>) {
        let id = match &news {
            News::Snapshot(snapshot) => snapshot.torrent,
            News::Piece(id, _)
            | News::Complete(id)
            | News::Trouble(id, _)
            | News::Banned(id, ..)
            | News::PieceBad(id, _)
            | News::Tracker(id, _)
            | News::Facts(id, _)
            | News::Gone(id) => *id,
            News::Seeking { torrent, .. } | News::Metadata { torrent, .. } => *torrent,
            // Of no torrent; heard before.
            News::Nodes(_) | News::Reach(_) => return,
            News::Interface { name, there } => {
                return events.push(Event::Interface { name: name.clone(), there: *there });
            }
        };
        if self.seeks.holds(id) {
            return self.seeks.hear(id, news, events);
        }
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        match news {
            News::Facts(_, facts) => errands.extend(torrent.facts(facts)),
            News::Gone(_) => self.gone(id, events, errands),
            news => torrent.hear(id, news, events),
        }
    }

    /// The engine died: all torrents are in trouble.
    pub(crate) fn engine_died(&mut self, events: &mut Vec<Event>) {
        self.seeks.close_all();
        for (id, torrent) in &mut self.torrents {
            if torrent.stand.state != State::Gone {
                torrent.troubled(*id, words::trouble_bug(), events);
            }
        }
    }

    /// What has not left by now is gone all the same.
    pub(crate) fn all_gone(&mut self, events: &mut Vec<Event>) {
        self.seeks.close_all();
        for id in self.staying().map(|(id, _)| id).collect::<Vec<_>>() {
            self.gone(id, events, &mut Vec::new());
        }
    }

    fn gone(&mut self, id: TorrentId, events: &mut Vec<Event>, errands: &mut Vec<Errand>) {
        let Some(torrent) = self.torrents.get_mut(&id) else { return };
        if torrent.stand.state == State::Gone {
            return;
        }
        torrent.stand.state = State::Gone;
        if let Some(snapshot) = &mut torrent.stand.snapshot {
            (snapshot.down_rate, snapshot.up_rate) = (0, 0);
            snapshot.peers.clear();
        }
        events.push(Event::Gone { torrent: id });
        let claim = torrent.claim.take();
        if torrent.leaving {
            errands.extend(claim.map(Errand::Forget));
        }
        if torrent.leaving || !self.ending {
            self.torrents.remove(&id);
        }
    }
}

impl Torrent {
    /// A torrent that the engine knows nothing of yet. `before` is what was swapped in earlier runs.
    pub(crate) fn new(
        meta: Arc<Metainfo>,
        (dir, real_dir): (PathBuf, PathBuf),
        wanted: Arc<[bool]>,
        options: cx::Options,
        claim: Option<Arc<Claim>>,
        before: Totals,
    ) -> Torrent {
        let stand = Stand {
            added: Instant::now(),
            state: State::Opening,
            trouble: None,
            untold: false,
            snapshot: None,
            heard: Instant::now(),
            have: None,
            givers: BTreeSet::new(),
            recovering: false,
            complete: false,
            before,
            shown: None,
        };
        Torrent { meta, dir, real_dir, wanted, options, claim, leaving: false, closed: false, stand }
    }

    /// Its name, as the metainfo has it.
    pub(crate) fn name(&self) -> String {
        self.meta.info().name.to_string()
    }

    /// The name of its facts if they are kept, and others are still to come.
    pub(crate) fn unsaved(&self) -> Option<&str> {
        self.claim.as_deref().filter(|_| !self.closed && !self.leaving).map(Claim::name)
    }

    fn facts(&mut self, facts: Box<ResumeFacts>) -> Option<Errand> {
        self.closed = facts.clean;
        let claim = self.claim.as_ref().filter(|_| !self.leaving)?;
        Some(Errand::Save(claim.clone(), facts))
    }

    fn hear(&mut self, id: TorrentId, news: News, events: &mut Vec<Event>) {
        match news {
            News::Snapshot(snapshot) => self.snapshot(id, snapshot, events),
            News::Piece(_, piece) => events.push(Event::PieceVerified { torrent: id, piece }),
            News::PieceBad(_, piece) => events.push(Event::PieceFailed { torrent: id, piece }),
            News::Complete(_) => {
                self.stand.complete = true;
                self.complete_if_seen(id, events);
            }
            News::Trouble(_, Some(trouble)) => self.troubled(id, words::trouble(&trouble), events),
            News::Trouble(_, None) => self.recovered(id, events),
            News::Banned(_, addr, why) => {
                events.push(Event::Banned { torrent: id, addr, reason: words::goodbye(&why) });
            }
            News::Tracker(_, heard) => {
                let outcome = words::outcome(&heard);
                events.push(Event::Tracker { torrent: id, url: heard.url, outcome });
            }
            News::Facts(..)
            | News::Gone(_)
            | News::Seeking { .. }
            | News::Metadata { .. }
            | News::Nodes(_)
            | News::Reach(_)
            | News::Interface { .. } => {}
        }
    }

    fn snapshot(&mut self, id: TorrentId, mut snapshot: Box<Snapshot>, events: &mut Vec<Event>) {
        if let Some(have) = snapshot.have.take() {
            self.stand.have = Some(have);
        }
        for peer in snapshot.peers.iter().filter(|peer| peer.downloaded > 0) {
            if self.stand.givers.len() < GIVERS_MAX {
                self.stand.givers.insert(peer.addr);
            }
        }
        let state = self.state_of(&snapshot);
        (self.stand.snapshot, self.stand.heard) = (Some(snapshot), Instant::now());
        self.enter(id, state, events);
        self.recovered_if_seen(id, events);
        self.complete_if_seen(id, events);
    }

    fn state_of(&mut self, snapshot: &Snapshot) -> State {
        let untold = std::mem::take(&mut self.stand.untold);
        match snapshot.state {
            cx::State::Opening => State::Opening,
            cx::State::Checking { done, total } => {
                let piece = u64::from(self.meta.info().piece_length);
                let bytes = |pieces: u32| (u64::from(pieces) * piece).min(self.meta.info().length);
                State::Checking { checked_bytes: bytes(done), check_bytes: bytes(total) }
            }
            cx::State::Downloading => State::Downloading,
            cx::State::Seeding => State::Seeding,
            cx::State::Paused => State::Paused,
            cx::State::Troubled => match &self.stand.trouble {
                Some(trouble) => State::Trouble { trouble: trouble.clone() },
                // The News about it comes right behind, or was lost.
                None if untold => State::Trouble { trouble: words::trouble_unknown() },
                None => {
                    self.stand.untold = true;
                    self.stand.state.clone()
                }
            },
            // Until it is gone, it is what it was.
            cx::State::Leaving => self.stand.state.clone(),
        }
    }

    fn troubled(&mut self, id: TorrentId, trouble: Trouble, events: &mut Vec<Event>) {
        self.stand.recovering = false;
        self.stand.trouble = Some(trouble.clone());
        self.enter(id, State::Trouble { trouble: trouble.clone() }, events);
        events.push(Event::Trouble { torrent: id, trouble });
    }

    fn recovered(&mut self, id: TorrentId, events: &mut Vec<Event>) {
        if self.stand.trouble.take().is_some() {
            self.stand.recovering = true;
            self.recovered_if_seen(id, events);
        }
    }

    fn recovered_if_seen(&mut self, id: TorrentId, events: &mut Vec<Event>) {
        if self.stand.recovering && !matches!(self.stand.state, State::Trouble { .. }) {
            self.stand.recovering = false;
            events.push(Event::Recovered { torrent: id });
        }
    }

    /// Tells how it stands, if anything moved, and of the state if it is another.
    fn enter(&mut self, id: TorrentId, state: State, events: &mut Vec<Event>) {
        let changed = !same_state(&self.stand.state, &state);
        self.stand.state = state.clone();
        self.show(id, changed, events);
        if changed {
            events.push(Event::StateChanged { torrent: id, state });
        }
    }

    fn complete_if_seen(&mut self, id: TorrentId, events: &mut Vec<Event>) {
        if self.stand.complete && self.stand.snapshot.is_some() && self.status(id).complete() {
            self.stand.complete = false;
            self.show(id, true, events);
            events.push(Event::Complete { torrent: id });
        }
    }

    fn show(&mut self, id: TorrentId, always: bool, events: &mut Vec<Event>) {
        let status = self.status(id);
        let seen = Status { active_s: 0, ..status.clone() };
        if always || self.stand.shown.as_ref() != Some(&seen) {
            self.stand.shown = Some(seen);
            events.push(Event::Snapshot { status: Box::new(status) });
        }
    }

    fn status(&self, id: TorrentId) -> Status {
        let stand = &self.stand;
        let snapshot = stand.snapshot.as_deref();
        let seen = |count: &dyn Fn(&Snapshot) -> usize| words::count(snapshot.map_or(0, count));
        let known = |value: &dyn Fn(&Snapshot) -> u64| snapshot.map_or(0, value);
        let hashes = self.meta.info_hashes();
        Status {
            torrent: id,
            name: self.name(),
            info_hash: hashes.v1,
            info_hash_v2: hashes.v2,
            dir: self.dir.clone(),
            state: stand.state.clone(),
            size: self.meta.info().content_length,
            wanted_bytes: snapshot.map_or_else(|| self.wanted_bytes(), |snapshot| snapshot.wanted_bytes),
            have_bytes: known(&|snapshot| snapshot.have_bytes),
            have_pieces: snapshot.map_or(0, |snapshot| snapshot.have_pieces),
            pieces: self.meta.piece_count(),
            down_rate: known(&|snapshot| snapshot.down_rate),
            up_rate: known(&|snapshot| snapshot.up_rate),
            totals: snapshot.map_or(stand.before, |snapshot| Totals {
                downloaded: snapshot.downloaded,
                uploaded: snapshot.uploaded,
                wasted: snapshot.wasted,
                from_leeches: snapshot.from_leeches,
            }),
            peers: seen(&|snapshot| snapshot.peers.len()),
            seeds: seen(&|snapshot| snapshot.peers.iter().filter(|peer| peer.seed).count()),
            givers: words::count(stand.givers.len()),
            known_peers: seen(&|snapshot| snapshot.known),
            active_s: stand.added.elapsed().as_secs(),
            limits: Limits {
                down: Some(self.options.down_limit).filter(|limit| *limit > 0),
                up: Some(self.options.up_limit).filter(|limit| *limit > 0),
            },
        }
    }

    fn details(&self, id: TorrentId) -> Details {
        let snapshot = self.stand.snapshot.as_deref();
        let trackers = |snapshot: &Snapshot| {
            // A torrent that rests tells nothing for hours, and time goes on.
            let now = snapshot.at + self.stand.heard.elapsed();
            snapshot.trackers.iter().map(|tracker| words::tracker(tracker, now)).collect()
        };
        let files = self.meta.files().iter().enumerate().filter(|(_, file)| !file.pad);
        let file = |(at, file): (usize, &piecemeal_metainfo::FileEntry)| FileStatus {
            file: FileIndex(at as u32),
            path: file.path.as_str().to_owned(),
            size: file.length,
            have_bytes: self.have_bytes(FileIndex(at as u32)),
            selected: self.wanted.get(at) == Some(&true),
        };
        Details {
            status: self.status(id),
            peers: snapshot
                .map_or_else(Vec::new, |snapshot| snapshot.peers.iter().map(words::peer).collect()),
            trackers: snapshot.map_or_else(Vec::new, trackers),
            files: files.map(file).collect(),
        }
    }

    fn wanted_bytes(&self) -> u64 {
        let files = self.meta.files().iter().zip(self.wanted.iter());
        files.filter(|(file, wanted)| **wanted && !file.pad).map(|(file, _)| file.length).sum()
    }

    /// Bytes of a file in verified pieces.
    fn have_bytes(&self, index: FileIndex) -> u64 {
        let (Some(have), Some(file)) = (&self.stand.have, self.meta.file(index)) else { return 0 };
        let piece_length = u64::from(self.meta.info().piece_length);
        let end = file.offset + file.length;
        let inside = |piece: u32| {
            let start = u64::from(piece) * piece_length;
            end.min(start + piece_length) - file.offset.max(start)
        };
        let pieces = self.meta.file_pieces(index);
        pieces.filter(|piece| have.get(PieceIndex(*piece))).map(inside).sum()
    }

    /// How many trackers count us among their peers, or may soon.
    pub(crate) fn trackers_that_know_us(&self) -> usize {
        use piecemeal_discovery::tracker::TrackerState::{Announcing, Working};
        let trackers = self.stand.snapshot.iter().flat_map(|snapshot| &snapshot.trackers);
        trackers.filter(|tracker| matches!(tracker.state, Announcing | Working)).count()
    }
}

/// Progress inside a state is no change of it.
fn same_state(one: &State, other: &State) -> bool {
    matches!((one, other), (State::Checking { .. }, State::Checking { .. })) || one == other
}

#[cfg(test)]
mod tests;
