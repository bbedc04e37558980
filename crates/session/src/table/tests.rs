use super::*;
use crate::test_kit::{PIECE, facts, torrent, torrent_of};
use piecemeal_discovery::tracker::{Heard, Outcome, TrackerState, TrackerStatus};
use piecemeal_engine::cx::{Goodbye, PeerSnapshot};
use piecemeal_metainfo::Time;
use piecemeal_package::TroubleKind;
use std::time::Duration;

const ID: TorrentId = TorrentId(1);

/// A table with one torrent of four pieces.
fn table() -> Table {
    let mut table = Table::default();
    let id = table.next_id();
    let meta = torrent("film", 4);
    let dirs = (PathBuf::from("/d"), PathBuf::from("/d"));
    let before = Totals { downloaded: 11, uploaded: 7, ..Totals::default() };
    let new = Torrent::new(meta, dirs, [true].into(), cx::Options::default(), None, before);
    assert_eq!(table.insert(id, new), Event::Added { torrent: ID, name: "film".into() });
    table
}

fn snapshot(state: cx::State, have_pieces: u32) -> Snapshot {
    Snapshot {
        torrent: ID,
        state,
        paused: false,
        wanted_bytes: u64::from(4 * PIECE),
        have_bytes: u64::from(have_pieces * PIECE),
        pieces: 4,
        have_pieces,
        have: None,
        downloaded: 11,
        uploaded: 7,
        wasted: 0,
        from_leeches: 0,
        down_rate: 0,
        up_rate: 0,
        peers: Vec::new(),
        known: 0,
        trackers: Vec::new(),
        at: Time::ZERO,
    }
}

fn seen(state: cx::State, have_pieces: u32) -> News {
    News::Snapshot(Box::new(snapshot(state, have_pieces)))
}

fn trouble() -> News {
    let kind = TroubleKind::NoSpace;
    News::Trouble(ID, Some(piecemeal_package::Trouble { kind, path: "/d/film".into(), text: "full".into() }))
}

/// What listeners hear, in short; each Snapshot is checked against the table.
fn hear(table: &mut Table, news: News) -> Vec<String> {
    let mut events = Vec::new();
    table.hear(news, &mut events, &mut Vec::new());
    events.iter().map(short).collect()
}

fn short(event: &Event) -> String {
    match event {
        Event::Snapshot { status } => format!("{} {}", name(&status.state), status.have_pieces),
        Event::StateChanged { state, .. } => format!("now {}", name(state)),
        Event::Complete { .. } => "complete".into(),
        Event::Trouble { .. } => "trouble".into(),
        Event::Recovered { .. } => "recovered".into(),
        Event::Gone { .. } => "gone".into(),
        other => format!("{other:?}"),
    }
}

fn name(state: &State) -> &'static str {
    match state {
        State::Opening => "opening",
        State::Checking { .. } => "checking",
        State::Downloading => "downloading",
        State::Seeding => "seeding",
        State::Paused => "paused",
        State::Trouble { .. } => "troubled",
        State::Gone => "gone",
    }
}

#[test]
fn a_download_from_opening_to_complete() {
    let mut table = table();
    let status = table.status(ID).unwrap();
    assert_eq!((&status.state, status.wanted_bytes, status.totals.downloaded), (&State::Opening, 65_536, 11));
    assert_eq!(hear(&mut table, seen(cx::State::Opening, 0)), ["opening 0"]);
    let checking = |done| cx::State::Checking { done, total: 4 };
    assert_eq!(hear(&mut table, seen(checking(1), 0)), ["checking 0", "now checking"]);
    assert_eq!(hear(&mut table, seen(checking(3), 1)), ["checking 1"]);
    let State::Checking { checked_bytes, check_bytes } = table.status(ID).unwrap().state else { panic!() };
    assert_eq!((checked_bytes, check_bytes), (u64::from(3 * PIECE), u64::from(4 * PIECE)));
    assert_eq!(hear(&mut table, seen(cx::State::Downloading, 1)), ["downloading 1", "now downloading"]);
    assert_eq!(hear(&mut table, seen(cx::State::Downloading, 1)), [""; 0], "nothing moved");
    assert_eq!(hear(&mut table, seen(cx::State::Seeding, 4)), ["seeding 4", "now seeding"]);
    assert_eq!(hear(&mut table, News::Complete(ID)), ["seeding 4", "complete"]);
    assert!(table.status(ID).unwrap().complete());
}

/// Whoever hears that it is complete, and asks, must not be told of half a torrent.
#[test]
fn complete_waits_for_the_snapshot_that_shows_it() {
    let mut table = table();
    hear(&mut table, seen(cx::State::Downloading, 3));
    assert_eq!(hear(&mut table, News::Complete(ID)), [""; 0]);
    assert_eq!(hear(&mut table, seen(cx::State::Downloading, 3)), [""; 0]);
    let heard = hear(&mut table, seen(cx::State::Seeding, 4));
    assert_eq!(heard, ["seeding 4", "now seeding", "seeding 4", "complete"]);
    assert_eq!(hear(&mut table, seen(cx::State::Seeding, 4)), [""; 0], "once only");
}

#[test]
fn trouble_and_recovery_in_either_order_of_news() {
    let told = ["troubled 3", "now troubled", "trouble"];
    for snapshot_first in [false, true] {
        let mut table = table();
        hear(&mut table, seen(cx::State::Downloading, 3));
        let heard: Vec<String> = if snapshot_first {
            let first = hear(&mut table, seen(cx::State::Troubled, 3));
            [first, hear(&mut table, trouble())].concat()
        } else {
            let first = hear(&mut table, trouble());
            [first, hear(&mut table, seen(cx::State::Troubled, 3))].concat()
        };
        assert_eq!(heard, told, "snapshot first: {snapshot_first}");
        let State::Trouble { trouble } = table.status(ID).unwrap().state else { panic!() };
        assert!(trouble.retries && trouble.text.contains("free some room"));
        let back = if snapshot_first {
            let first = hear(&mut table, seen(cx::State::Downloading, 3));
            [first, hear(&mut table, News::Trouble(ID, None))].concat()
        } else {
            let first = hear(&mut table, News::Trouble(ID, None));
            [first, hear(&mut table, seen(cx::State::Downloading, 3))].concat()
        };
        assert_eq!(
            back,
            ["downloading 3", "now downloading", "recovered"],
            "snapshot first: {snapshot_first}"
        );
        assert_eq!(hear(&mut table, News::Trouble(ID, None)), [""; 0]);
    }
}

#[test]
fn trouble_whose_reason_was_lost_is_trouble_all_the_same() {
    let mut table = table();
    assert_eq!(hear(&mut table, seen(cx::State::Troubled, 0)), ["opening 0"]);
    assert_eq!(hear(&mut table, seen(cx::State::Troubled, 0)), ["troubled 0", "now troubled"]);
}

#[test]
fn a_removed_torrent_is_unknown_at_once_and_gone_later() {
    let mut table = table();
    hear(&mut table, seen(cx::State::Seeding, 4));
    table.get_mut(ID).unwrap().leaving = true;
    assert_eq!(table.status(ID), Err(Refusal::UnknownTorrent { torrent: ID }));
    assert!(table.list().is_empty() && table.iter().count() == 1);
    assert_eq!(hear(&mut table, News::Gone(ID)), ["gone"]);
    assert_eq!(hear(&mut table, News::Gone(ID)), [""; 0]);
    assert_eq!(table.iter().count(), 0);
    assert_eq!(table.next_id(), TorrentId(2));
}

#[test]
fn after_the_end_torrents_are_listed_as_gone() {
    let mut table = table();
    hear(&mut table, seen(cx::State::Seeding, 4));
    table.end();
    assert_eq!(table.staying().count(), 1);
    let mut events = Vec::new();
    table.all_gone(&mut events);
    assert_eq!(events.iter().map(short).collect::<Vec<_>>(), ["gone"]);
    let status = table.status(ID).unwrap();
    assert_eq!((status.state, status.have_pieces), (State::Gone, 4));
    assert_eq!(table.staying().count(), 0);
}

#[test]
fn givers_are_counted_over_connections_and_once_each() {
    let mut table = table();
    let peer = |port: u16, downloaded| PeerSnapshot {
        addr: ([10, 0, 0, 1], port).into(),
        client: String::new(),
        down_rate: 0,
        up_rate: 0,
        downloaded,
        uploaded: 0,
        pieces: 4,
        seed: port == 1,
        interested: false,
        unchoked: false,
        wants_us: false,
        served: false,
        optimistic: false,
        snubbed: false,
        outgoing: true,
        carrier: piecemeal_engine::cx::Carrier::Tcp,
        encrypted: false,
    };
    let with = |peers| News::Snapshot(Box::new(Snapshot { peers, ..snapshot(cx::State::Downloading, 0) }));
    hear(&mut table, with(vec![peer(1, 5), peer(2, 0)]));
    let status = table.status(ID).unwrap();
    assert_eq!((status.peers, status.seeds, status.givers), (2, 1, 1));
    hear(&mut table, with(vec![peer(2, 5)]));
    hear(&mut table, with(vec![peer(1, 5)]));
    assert_eq!(table.status(ID).unwrap().givers, 2);
    let details = table.details(ID).unwrap();
    assert!(
        !details.peers[0].flags.incoming && details.peers[0].flags.choked && details.peers[0].flags.chokes_us
    );
}

#[test]
fn details_count_bytes_of_files_in_verified_pieces() {
    let mut table = Table::default();
    let id = table.next_id();
    // Two files of one piece and one byte: pieces 0, 1 (shared) and 2 (the last two bytes).
    let meta = torrent_of("show", &["a", "b"]);
    let dirs = (PathBuf::from("/d"), PathBuf::from("/d"));
    let wanted = [true, false].into();
    let new = Torrent::new(meta.clone(), dirs, wanted, cx::Options::default(), None, Totals::default());
    table.insert(id, new);
    let trackers = vec![TrackerStatus {
        url: "http://t/announce".into(),
        tier: 0,
        state: TrackerState::Working,
        last_error: None,
        seeds: Some(1),
        leeches: None,
        downloads: Some(9),
        counted: Some(Time::ZERO),
        next: Time::from_nanos(5_000_000_000),
    }];
    let have = Some(Arc::new(facts(&meta, &[1, 2]).have));
    let first = Snapshot { have, trackers: trackers.clone(), ..snapshot(cx::State::Downloading, 2) };
    hear(&mut table, News::Snapshot(Box::new(first)));
    // The next one does not repeat which pieces there are.
    hear(&mut table, seen(cx::State::Downloading, 2));
    let details = table.details(id).unwrap();
    let files: Vec<_> = details.files.iter().map(|file| (file.have_bytes, file.selected)).collect();
    assert_eq!(files, [(1, true), (u64::from(PIECE) + 1, false)]);
    let first = Snapshot { trackers, ..snapshot(cx::State::Paused, 2) };
    hear(&mut table, News::Snapshot(Box::new(first)));
    let tracker = table.details(id).unwrap().trackers.remove(0);
    assert_eq!((tracker.seeds, tracker.downloads, tracker.leeches), (Some(1), Some(9), None));
    assert!(tracker.counted_s.is_some() && tracker.next_s <= Some(5), "{tracker:?}");
    assert_eq!(details.files[1].path, "show/b");
}

#[test]
fn small_news_are_told_as_they_are() {
    let mut table = table();
    let said = Heard {
        url: "http://t/announce".into(),
        outcome: Outcome::Failed { reason: "go away".into(), retry: Duration::from_secs(60) },
    };
    let news = [
        News::Piece(ID, PieceIndex(2)),
        News::PieceBad(ID, PieceIndex(3)),
        News::Banned(ID, ([10, 0, 0, 1], 1).into(), Goodbye::Poisoned),
        News::Tracker(ID, said),
        News::Piece(TorrentId(9), PieceIndex(0)),
    ];
    let mut events = Vec::new();
    news.into_iter().for_each(|news| table.hear(news, &mut events, &mut Vec::new()));
    let [Event::PieceVerified { .. }, Event::PieceFailed { .. }, banned, tracker] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(
        matches!(banned, Event::Banned { reason, .. } if reason == "it sent content that is not the torrent's")
    );
    let failed = piecemeal_api::TrackerOutcome::Failed { reason: "go away".into(), retry_s: 60 };
    assert!(matches!(tracker, Event::Tracker { outcome, .. } if *outcome == failed));
}

#[test]
fn when_the_engine_dies_all_are_in_trouble() {
    let mut table = table();
    hear(&mut table, seen(cx::State::Downloading, 1));
    let mut events = Vec::new();
    table.engine_died(&mut events);
    assert_eq!(events.iter().map(short).collect::<Vec<_>>(), ["troubled 1", "now troubled", "trouble"]);
}
