//! Alone in its process, so that it can count threads.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use piecemeal::Session;
use piecemeal::api::{AddTorrent, Cancel, CreateRequest, EngineOptions, Events, Heard, Verify, Work};

#[test]
fn no_thread_outlives_a_session_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("film"), vec![1; 100_000]).unwrap();
    let work = Work { progress: &|_| {}, cancel: &Cancel::default() };
    // A tracker that is not there, so that the HTTP client has its threads too.
    let trackers = vec![vec!["http://127.0.0.1:1/announce".to_owned()]];
    let request = CreateRequest { trackers, ..CreateRequest::new(folder.path().join("film")) };
    let torrent = piecemeal::tools::create(&request, &work).unwrap().metainfo;
    let before = threads();
    for with_farewell in [true, false] {
        let session = Session::start(&EngineOptions {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            state_dir: Some(folder.path().join("state")),
            ..EngineOptions::default()
        });
        let session = session.unwrap();
        let mut events = session.events();
        session
            .add(AddTorrent { verify: Verify::Full, ..AddTorrent::new(torrent.clone(), folder.path()) })
            .unwrap();
        while session.list()[0].have_pieces == 0 {
            assert_ne!(events.next(Duration::from_secs(10)), Heard::Nothing);
        }
        assert!(threads() > before);
        if with_farewell {
            let farewell = session.shutdown(EngineOptions::MAX_FAREWELL);
            assert_eq!((farewell, session.shutdown(Duration::MAX)), (farewell, farewell));
            assert_eq!(farewell.unsaved, 0);
        }
        drop(session);
        // A thread that was told to end is not at once gone from the system's list.
        let until = Instant::now() + Duration::from_secs(2);
        while threads() > before {
            assert!(Instant::now() < until, "{} threads, there were {before}", threads());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}
