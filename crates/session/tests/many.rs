//! Hundreds of torrents in one session: none may cost a farewell.

use std::time::{Duration, Instant};

use piecemeal::Session;
use piecemeal::api::{AddTorrent, Cancel, CreateRequest, EngineOptions, State, Verify, Work};

/// Enough that what grows with the square of it would show.
const TORRENTS: usize = 400;

#[test]
fn hundreds_of_torrents_leave_in_time_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
    let torrents: Vec<_> = (0..TORRENTS)
        .map(|at| {
            let path = folder.path().join(format!("film {at}"));
            std::fs::write(&path, format!("this is film {at}").repeat(1000)).unwrap();
            piecemeal::tools::create(&CreateRequest::new(path), &work).unwrap().metainfo
        })
        .collect();
    let options = EngineOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        state_dir: Some(folder.path().join("state")),
        ..EngineOptions::default()
    };
    for verify in [Verify::Full, Verify::Resume] {
        let began = Instant::now();
        let session = Session::start(&options).unwrap();
        for torrent in &torrents {
            session.add(AddTorrent { verify, ..AddTorrent::new(torrent.clone(), folder.path()) }).unwrap();
        }
        let added = began.elapsed();
        while !session.list().iter().all(|status| status.state == State::Seeding) {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", session.list());
            std::thread::sleep(Duration::from_millis(20));
        }
        let seeding = began.elapsed();
        assert_eq!(session.shutdown(EngineOptions::MAX_FAREWELL), Default::default());
        println!(
            "{verify:?}: added in {added:?}, seeding after {seeding:?}, left after {:?}",
            began.elapsed()
        );
        assert!(session.list().iter().all(|status| status.state == State::Gone));
    }
}
