//! The JSON that leaves this program: what it looks like, and that it comes back the same.

use std::time::Duration;

use piecemeal_api::*;
use serde_json::{Value, json};

fn status(state: State) -> Status {
    Status {
        torrent: TorrentId(7),
        name: "a".into(),
        info_hash: Some(InfoHash([0xab; 20])),
        info_hash_v2: None,
        dir: "/d".into(),
        state,
        size: 10,
        wanted_bytes: 10,
        have_bytes: 4,
        have_pieces: 1,
        pieces: 3,
        down_rate: 2,
        up_rate: 0,
        totals: Totals { downloaded: 4, uploaded: 20, wasted: 0, from_leeches: 1 },
        peers: 2,
        seeds: 1,
        givers: 2,
        known_peers: 3,
        active_s: 9,
        limits: Limits { down: Some(5), up: None },
    }
}

fn trouble() -> Trouble {
    Trouble { kind: TroubleKind::DiskFull, path: Some("/d/a".into()), text: "no room".into(), retries: true }
}

fn states() -> Vec<State> {
    vec![
        State::Opening,
        State::Checking { checked_bytes: 1, check_bytes: 2 },
        State::Downloading,
        State::Seeding,
        State::Paused,
        State::Trouble { trouble: trouble() },
        State::Gone,
    ]
}

fn events() -> Vec<Event> {
    let torrent = TorrentId(7);
    let mut all: Vec<Event> = states()
        .into_iter()
        .flat_map(|state| {
            let snapshot = Event::Snapshot { status: Box::new(status(state.clone())) };
            [Event::StateChanged { torrent, state }, snapshot]
        })
        .collect();
    let url = "http://t/announce".to_owned();
    all.extend([
        Event::Added { torrent, name: "a".into() },
        Event::Resolving {
            torrent,
            name: "a".into(),
            info_hash: None,
            info_hash_v2: Some(InfoHashV2([1; 32])),
            peers: 1,
            known_peers: 9,
        },
        Event::PieceVerified { torrent, piece: PieceIndex(3) },
        Event::PieceFailed { torrent, piece: PieceIndex(3) },
        Event::Complete { torrent },
        Event::Trouble { torrent, trouble: trouble() },
        Event::Recovered { torrent },
        Event::Banned { torrent, addr: "[::1]:9".parse().unwrap(), reason: "bad piece".into() },
        Event::Tracker {
            torrent,
            url: url.clone(),
            outcome: TrackerOutcome::Answered { peers: 3, interval_s: 1800, warning: None },
        },
        Event::Tracker { torrent, url, outcome: TrackerOutcome::Failed { reason: "no".into(), retry_s: 5 } },
        Event::Gone { torrent },
        Event::Lost { events: 12 },
    ]);
    all
}

#[test]
fn every_event_comes_back_the_same_and_is_tagged() {
    for event in events() {
        let value = serde_json::to_value(&event).unwrap();
        assert!(value["event"].is_string(), "{value}");
        assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    }
}

#[test]
fn events_look_as_documented() {
    let torrent = TorrentId(7);
    let rows: [(Event, Value); 4] = [
        (
            Event::PieceVerified { torrent, piece: PieceIndex(3) },
            json!({"event": "piece_verified", "torrent": 7, "piece": 3}),
        ),
        (
            Event::StateChanged { torrent, state: State::Checking { checked_bytes: 1, check_bytes: 2 } },
            json!({"event": "state_changed", "torrent": 7, "state": "checking", "checked_bytes": 1, "check_bytes": 2}),
        ),
        (
            Event::Tracker {
                torrent,
                url: "u".into(),
                outcome: TrackerOutcome::Failed { reason: "no".into(), retry_s: 5 },
            },
            json!({"event": "tracker", "torrent": 7, "url": "u", "outcome": "failed", "reason": "no", "retry_s": 5}),
        ),
        (Event::Lost { events: 12 }, json!({"event": "lost", "events": 12})),
    ];
    for (event, expected) in rows {
        assert_eq!(serde_json::to_value(event).unwrap(), expected);
    }
    let value = serde_json::to_value(status(State::Downloading)).unwrap();
    assert_eq!(value["state"], "downloading");
    assert_eq!(value["info_hash"], "ab".repeat(20));
}

#[test]
fn requests_come_back_the_same() {
    let mut add = AddTorrent::new(&b"d4:infode"[..], "/d");
    add.select = Selection::Only { files: vec![FileIndex(2), FileIndex(5)] };
    let value = serde_json::to_value(&add).unwrap();
    assert_eq!(value["select"], json!({"select": "only", "files": [2, 5]}));
    assert_eq!(value["metainfo"], "ZDQ6aW5mb2Rl");
    assert_eq!(serde_json::from_value::<AddTorrent>(value).unwrap(), add);
    let least = json!({"metainfo": "ZGU=", "dir": "/d"});
    assert_eq!(serde_json::from_value::<AddTorrent>(least).unwrap(), AddTorrent::new(&b"de"[..], "/d"));
    for bad in [json!({"metainfo": "*", "dir": "/d"}), json!({"dir": "/d"}), json!({"metainfo": "ZGU="})] {
        assert!(serde_json::from_value::<AddTorrent>(bad).is_err());
    }
    let request =
        ResolveRequest { trackers: vec!["udp://t:1".into()], ..ResolveRequest::new("magnet:?xt=x") };
    let value = serde_json::to_value(&request).unwrap();
    assert_eq!(serde_json::from_value::<ResolveRequest>(value).unwrap(), request);
    let least = json!({"magnet": "magnet:?xt=x"});
    assert_eq!(serde_json::from_value::<ResolveRequest>(least).unwrap(), ResolveRequest::new("magnet:?xt=x"));
    let resolved = Resolved {
        metainfo: b"de"[..].into(),
        known: vec!["[::1]:9".parse().unwrap()],
        select: Selection::Only { files: vec![] },
    };
    let value = serde_json::to_value(&resolved).unwrap();
    assert_eq!(
        value,
        json!({"metainfo": "ZGU=", "known": ["[::1]:9"], "select": {"select": "only", "files": []}})
    );
    assert_eq!(serde_json::from_value::<Resolved>(value).unwrap(), resolved);
    let engine = EngineOptions { max_peers: Some(3), dial_rate: Some(9), ..EngineOptions::default() };
    let value = serde_json::to_value(&engine).unwrap();
    assert_eq!(serde_json::from_value::<EngineOptions>(value).unwrap(), engine);
}

#[test]
fn refusals_are_one_line_that_names_what_is_wrong_and_what_to_do() {
    let what = || "x".to_owned();
    let all = [
        Refusal::UnknownTorrent { torrent: TorrentId(1) },
        Refusal::AlreadyAdded { torrent: TorrentId(1), name: what() },
        Refusal::BadTorrent { what: what(), reason: what() },
        Refusal::invalid("x", "y", "z"),
        Refusal::Unsupported { what: what(), instead: what() },
        Refusal::file("/x", "y", "z"),
        Refusal::Listen { addr: "1.2.3.4:5".parse().unwrap(), reason: what() },
        Refusal::Network { url: what(), reason: what() },
        Refusal::System { what: what(), reason: what() },
        Refusal::Cancelled,
        Refusal::Closed,
        Refusal::Bug { what: what() },
    ];
    for refusal in all {
        let text = refusal.to_string();
        assert!(text.contains(": ") && text.contains("; ") && !text.contains('\n'), "{text}");
        let value = serde_json::to_value(&refusal).unwrap();
        assert_eq!(serde_json::from_value::<Refusal>(value).unwrap(), refusal);
    }
}

#[test]
fn small_sums() {
    let mut line = status(State::Downloading);
    assert_eq!((line.eta_s(), line.ratio(), line.complete()), (Some(3), 2.0, false));
    line.down_rate = 0;
    line.have_bytes = 10;
    assert_eq!((line.eta_s(), line.complete()), (None, true));
    line.state = State::Opening;
    assert!(!line.complete());
    line.wanted_bytes = 0;
    assert_eq!(line.ratio(), 0.0);
    let cancel = Cancel::default();
    let other = cancel.clone();
    other.cancel();
    assert!(cancel.is_cancelled());
    assert!(EngineOptions::MAX_FAREWELL <= Duration::from_secs(5));
}

#[test]
fn a_verdict_is_good_only_when_everything_is() {
    let file = |state| FileVerdict { file: FileIndex(0), path: "a".into(), size: 1, state };
    let verdict = |state, good_pieces| Verdict {
        name: "a".into(),
        files: vec![file(state)],
        good_pieces,
        pieces: 1,
        good_bytes: 1,
        size: 1,
    };
    assert!(verdict(FileState::Good, 1).good());
    assert!(!verdict(FileState::Good, 0).good());
    assert!(!verdict(FileState::WrongSize { is_size: 2 }, 1).good());
    let value = serde_json::to_value(file(FileState::Bad { bad_pieces: 2 })).unwrap();
    assert_eq!(value, json!({"file": 0, "path": "a", "size": 1, "result": "bad", "bad_pieces": 2}));
}
