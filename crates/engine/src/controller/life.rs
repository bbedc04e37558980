//! The life of a torrent: opening, running, pausing, trouble, leaving.

use std::sync::Arc;
use std::time::Duration;

use piecemeal_discovery::tracker::AnnounceFacts;
use piecemeal_metainfo::PieceIndex;
use piecemeal_package::{Fence, Package, PackageState, ResumeFacts, Start, Trouble, TroubleKind};

use super::agenda::{Agenda, Due};
use super::blame::Blame;
use super::peers::Peers;
use super::pex::Gossip;
use super::punch::Punches;
use super::snapshot::Ledger;
use super::warmth::Warmth;
use super::{Controller, Scratch, turnover};
use crate::choker::{ChokeLimits, Choker};
use crate::cx::{Cx, Goodbye, News, Options, Seating, Settings};
use crate::finder::Finder;
use crate::picker::Picker;
use crate::rate::{Budget, limit_of};
use crate::swarm::PeerSource;

/// The disk is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Peers asked of a tracker while we download (libtorrent's `num_want`), and while we only give.
const WANT_DOWNLOADING: u32 = 200;
const WANT_SEEDING: u32 = 50;

/// How far a torrent is in its life.
#[derive(Debug)]
pub(super) enum Life {
    /// Its content is being looked at.
    Opening,
    /// Its content is open; it is in its swarm, or not.
    Open {
        /// Its user was told that all is there.
        told_complete: bool,
    },
    /// Its content is being closed, to be opened anew.
    Reopening {
        /// By file: what will be wanted.
        wanted: Arc<[bool]>,
        /// What was known of the content when it closed.
        facts: Option<Box<ResumeFacts>>,
    },
    /// It says goodbye.
    Leaving {
        /// Its content is closed.
        closed: bool,
    },
}

impl Controller {
    /// A torrent that begins to look at its files.
    pub fn new(cx: &mut Cx<'_>, settings: Arc<Settings>, seating: Seating) -> Controller {
        let Seating { torrent, meta, wanted, facts, start, boot, options, peers, known, trackers } = seating;
        let more = trackers.into_iter().map(|url| vec![url]);
        let tiers: Vec<_> = meta.trackers().iter().cloned().chain(more).collect();
        let private = meta.info().private;
        let mut finder = Finder::new(cx, torrent, settings.clone(), meta.wire_hash(), &tiers, private);
        finder.learn(cx.now, peers, PeerSource::Manual);
        // Who was met before the torrent turned out to be private may not be of its trackers (BEP 27).
        if !private {
            finder.learn(cx.now, known, PeerSource::Resume);
        }
        let totals = facts.as_ref().map_or((0, 0), |facts| (facts.downloaded, facts.uploaded));
        let slots =
            ChokeLimits { friends: settings.upload_slots, ..ChokeLimits::new(meta.info().piece_length) };
        let package = Package::new(torrent, meta.clone(), wanted, facts, start, boot);
        let mut controller = Controller {
            torrent,
            life: Life::Opening,
            picker: new_picker(&package, options.sequential),
            package,
            choker: Choker::new(slots),
            finder,
            peers: Peers::default(),
            blame: Blame::default(),
            warmth: Warmth::default(),
            gossip: Gossip::default(),
            punches: Punches::default(),
            down: Budget::new(limit_of(options.down_limit), cx.now),
            up: Budget::new(limit_of(options.up_limit), cx.now),
            agenda: Agenda::new(),
            ledger: Ledger::new(cx.now, totals),
            turnover_at: cx.now + turnover::EVERY,
            left: Vec::new(),
            boot,
            turn: 0,
            scratch: Scratch::default(),
            meta,
            settings,
            options,
        };
        controller.package.open(&mut cx.out.disk);
        controller.touch(cx.now);
        controller
    }

    /// It speaks to peers and trackers.
    pub(super) fn is_running(&self) -> bool {
        self.finder.is_running()
    }

    /// All is said and done: the Shard may drop it.
    pub fn is_over(&self) -> bool {
        matches!(self.life, Life::Leaving { closed: true }) && self.finder.is_quiet()
    }

    /// The content is open.
    pub(super) fn opened(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.life, Life::Opening) {
            return;
        }
        self.life = Life::Open { told_complete: false };
        self.picker = new_picker(&self.package, self.options.sequential);
        for piece in self.package.have().iter_ones() {
            self.picker.set_have(piece);
        }
        self.go_on();
        self.ledger.have_changed = true;
        self.agenda.by(Due::Resume, cx.now);
        if self.package.is_complete() {
            self.completed(cx);
        }
        // Before the first byte comes, so that whoever watches can count from here.
        self.snapshot(cx);
        if !self.options.paused {
            self.run(cx);
        }
    }

    /// Goes on with Pieces that were begun before. Who sent their Blocks is not known any more.
    fn go_on(&mut self) {
        let mut nobody = Vec::new();
        for at in self.package.written_blocks() {
            self.picker.adopt(at, &mut nobody);
            self.blame.sent_before(at.piece);
        }
    }

    fn run(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.life, Life::Open { .. }) && self.finder.start(cx) {
            self.finder.set_seeding(self.package.is_complete());
            self.plan_search();
            self.touch(cx.now);
        }
    }

    fn halt(&mut self, cx: &mut Cx<'_>) {
        if !self.finder.is_running() {
            return;
        }
        self.send_all_away(cx, &Goodbye::Leaving);
        self.finder.stop(cx, &self.announce_facts());
        for due in [Due::Requests, Due::Choke, Due::Reap] {
            self.agenda.set(due, piecemeal_metainfo::Time::NEVER);
        }
        self.plan_search();
        self.touch(cx.now);
    }

    /// All that is wanted is there.
    pub(super) fn completed(&mut self, cx: &mut Cx<'_>) {
        let Life::Open { told_complete } = &mut self.life else { return };
        if std::mem::replace(told_complete, true) {
            return;
        }
        self.snapshot(cx);
        cx.out.news.push(News::Complete(self.torrent));
        self.agenda.set(Due::Resume, cx.now);
        if !self.is_running() {
            return;
        }
        self.finder.set_seeding(true);
        self.finder.complete(cx.now);
        self.plan_search();
        for (_, peer) in self.peers.iter_mut() {
            peer.set_interested(cx, false);
            peer.tell_upload_only(cx, true);
        }
        self.agenda.by(Due::Choke, cx.now);
        self.agenda.by(Due::Reap, cx.now);
    }

    /// Something that is wanted is not there any more.
    pub(super) fn incomplete(&mut self) {
        if let Life::Open { told_complete } = &mut self.life
            && !self.package.is_complete()
        {
            *told_complete = false;
            self.finder.set_seeding(false);
        }
    }

    /// Announces what is due.
    pub(super) fn announce(&mut self, cx: &mut Cx<'_>) {
        let facts = self.announce_facts();
        self.finder.announce(cx, facts);
        self.plan_search();
    }

    fn announce_facts(&self) -> AnnounceFacts {
        AnnounceFacts {
            uploaded: self.ledger.up.total(),
            downloaded: self.ledger.down.total(),
            left: self.package.left_bytes(),
            want: if self.package.is_complete() { WANT_SEEDING } else { WANT_DOWNLOADING },
        }
    }

    /// The disk refused: nothing more is asked for until it is tried again.
    pub(super) fn troubled(&mut self, cx: &mut Cx<'_>, trouble: Trouble) {
        for slot in self.peers.round(0) {
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.cancel_all(cx);
                self.picker.forget_peer(slot);
            }
        }
        if matches!(trouble.kind, TroubleKind::NoSpace | TroubleKind::Permission) {
            self.agenda.set(Due::Retry, cx.now + RETRY_AFTER);
        }
        cx.out.news.push(News::Trouble(self.torrent, Some(trouble)));
        self.touch(cx.now);
    }

    /// The disk is tried again.
    pub(super) fn retry(&mut self, cx: &mut Cx<'_>) {
        self.agenda.set(Due::Retry, piecemeal_metainfo::Time::NEVER);
        if matches!(self.package.state(), PackageState::Stopped(_)) {
            self.package.resume_after_trouble(cx.now, &mut cx.out.disk);
            self.agenda.by(Due::Requests, cx.now);
        }
    }

    /// The disk works again.
    pub(super) fn recovered(&mut self, cx: &mut Cx<'_>) {
        cx.out.news.push(News::Trouble(self.torrent, None));
        self.agenda.by(Due::Requests, cx.now);
    }

    pub(super) fn set_options(&mut self, cx: &mut Cx<'_>, options: Options) {
        self.down.set_limit(limit_of(options.down_limit), cx.now);
        self.up.set_limit(limit_of(options.up_limit), cx.now);
        self.picker.set_sequential(options.sequential);
        self.options = options;
        if options.paused {
            self.halt(cx);
            self.package.ask_facts(cx.now, &mut cx.out.disk);
        } else {
            self.run(cx);
            self.agenda.by(Due::Requests, cx.now);
        }
    }

    /// The user wants other files: the content is closed and opened again, since what lies where changes with it.
    pub(super) fn set_wanted(&mut self, cx: &mut Cx<'_>, wanted: Arc<[bool]>) {
        match &mut self.life {
            Life::Leaving { .. } => {}
            Life::Reopening { wanted: next, .. } => *next = wanted,
            Life::Opening | Life::Open { .. } => {
                self.halt(cx);
                self.life = Life::Reopening { wanted, facts: None };
                self.package.close(cx.now, cx.pool, &mut cx.out.disk);
            }
        }
    }

    /// Something that was had could not be read. Where a file is gone or shorter than it was, no claim on it holds: a
    /// Piece that is fetched again makes it grow, and what lay between would be read as zeros.
    pub(super) fn doubt(&mut self, cx: &mut Cx<'_>, result: &Result<(), Trouble>) {
        if matches!(result, Err(Trouble { kind: TroubleKind::Missing, .. })) {
            self.recheck(cx);
        }
    }

    /// Verifies all content again, out of the swarm meanwhile.
    pub(super) fn recheck(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.life, Life::Open { .. }) {
            self.halt(cx);
            self.life = Life::Opening;
            self.blame = Blame::default();
            self.ledger.have_changed = true;
            self.package.recheck(cx.now, &mut cx.out.disk);
        }
    }

    /// Facts to be kept. The Package knows the content, we know what was swapped.
    pub(super) fn facts(&mut self, cx: &mut Cx<'_>, mut facts: Box<ResumeFacts>) {
        (facts.downloaded, facts.uploaded) = self.ledger.totals();
        if let Life::Reopening { facts: kept, .. } = &mut self.life {
            *kept = Some(facts.clone());
        }
        cx.out.news.push(News::Facts(self.torrent, facts));
    }

    /// Something was done alone.
    pub(super) fn fenced(&mut self, cx: &mut Cx<'_>, fence: &Fence, good: bool) {
        if !matches!(fence, Fence::Close | Fence::Delete) {
            debug_assert!(
                good || matches!(self.package.state(), PackageState::Stopped(_) | PackageState::Closed)
            );
            return;
        }
        match &mut self.life {
            Life::Reopening { wanted, facts } => {
                let (wanted, facts) = (wanted.clone(), facts.take().map(|facts| *facts));
                let meta = self.meta.clone();
                self.package = Package::new(self.torrent, meta, wanted, facts, Start::Resume, self.boot);
                self.life = Life::Opening;
                self.package.open(&mut cx.out.disk);
            }
            Life::Leaving { closed } => *closed = true,
            // Nobody closes it otherwise.
            Life::Opening | Life::Open { .. } => debug_assert!(false, "closed without being asked to"),
        }
    }

    /// Says goodbye to all; [`Controller::is_over`] tells when that is done.
    pub fn leave(&mut self, cx: &mut Cx<'_>, delete: bool) {
        if matches!(self.life, Life::Leaving { .. }) {
            return;
        }
        self.halt(cx);
        let reopening = matches!(self.life, Life::Reopening { .. });
        self.life = Life::Leaving { closed: false };
        self.agenda = Agenda::new();
        match (delete, reopening) {
            (true, false) => self.package.delete(cx.now, cx.pool, &mut cx.out.disk),
            _ => self.package.close(cx.now, cx.pool, &mut cx.out.disk),
        }
        self.snapshot(cx);
    }
}

fn new_picker(package: &Package, sequential: bool) -> Picker {
    let layout = package.layout();
    let (pieces, info) = (layout.piece_count(), layout.meta().info());
    let last = layout.piece_len(PieceIndex(pieces.saturating_sub(1))).max(1);
    let mut picker = Picker::new(pieces, info.piece_length, last);
    picker.set_sequential(sequential);
    for piece in (0..pieces).map(PieceIndex).filter(|piece| !layout.piece_wanted(*piece)) {
        picker.set_wanted(piece, false);
    }
    picker
}
