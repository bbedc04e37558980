//! Makes a torrent of a file or folder and uploads it until interrupted:
//! `cargo run --example seed -- film http://tracker.example/announce`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use piecemeal::api::{AddTorrent, Cancel, CreateRequest, EngineOptions, Events, Heard, Verify, Work};
use piecemeal::{Session, tools};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let content = PathBuf::from(args.next().ok_or("usage: seed CONTENT [TRACKER...]")?).canonicalize()?;
    let dir = content.parent().ok_or("the root is no content")?.to_owned();

    let request =
        CreateRequest { trackers: args.map(|url| vec![url]).collect(), ..CreateRequest::new(content) };
    let work = Work { progress: &|progress| println!("{progress:?}"), cancel: &Cancel::default() };
    let created = tools::create(&request, &work)?;
    std::fs::write(format!("{}.torrent", created.name), &created.metainfo)?;
    println!("{}", created.magnet);

    let session = Session::start(&EngineOptions::default())?;
    let mut events = session.events();
    // Hashed a moment ago, so it need not be checked.
    session.add(AddTorrent { verify: Verify::Trust, ..AddTorrent::new(created.metainfo, dir) })?;
    println!("listening on {:?}", session.listening());
    while let Heard::Event(event) = events.next(Duration::MAX) {
        println!("{event:?}");
    }
    Ok(())
}
