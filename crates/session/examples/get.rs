//! Downloads one torrent: `cargo run --example get -- film.torrent downloads`.

use std::error::Error;
use std::time::Duration;

use piecemeal::Session;
use piecemeal::api::{AddTorrent, EngineOptions, Event, Events, Heard};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let torrent = args.next().ok_or("usage: get TORRENT [DIRECTORY]")?;
    let dir = args.next().unwrap_or_else(|| ".".into());

    let session = Session::start(&EngineOptions::default())?;
    let mut events = session.events();
    session.add(AddTorrent::new(std::fs::read(torrent)?, dir))?;
    loop {
        match events.next(Duration::MAX) {
            Heard::Event(Event::Snapshot { status }) => println!(
                "{} of {} bytes, {} bytes/s from {} peers",
                status.have_bytes, status.wanted_bytes, status.down_rate, status.peers
            ),
            Heard::Event(Event::Trouble { trouble, .. }) if !trouble.retries => Err(trouble.text)?,
            Heard::Event(Event::Complete { .. }) => break,
            Heard::Event(_) | Heard::Nothing => {}
            Heard::Closed => Err("the session ended")?,
        }
    }
    session.shutdown(EngineOptions::MAX_FAREWELL);
    Ok(())
}
