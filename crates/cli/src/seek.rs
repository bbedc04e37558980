//! Magnet links on their way to their torrents.
//!
//! Each waits in a thread of its own, so that the loop of `watch` goes on: other torrents are fetched meanwhile, and
//! Ctrl-C is heard at once. Owns what is known of a link until its torrent is there.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use piecemeal_api::{AddTorrent, Refusal, ResolveRequest, Resolved, Tools, TorrentId};
use piecemeal_metainfo::{InfoHashes, Magnet};

use crate::args::Find;
use crate::fail::Failure;
use crate::get::{reach_options, say_filter};
use crate::host::Host;
use crate::interrupt::{Interrupt, Last};
use crate::progress::Screen;
use crate::source::Torrent;
use crate::text;
use crate::units::span;
use crate::watch::{Course, Fleet, Goal, Item};

/// No torrent and no search has this number.
const NO_NUMBER: TorrentId = TorrentId(u32::MAX);
/// Columns of a link in an error.
const LINK_COLUMNS: usize = 60;

/// A link of the command line.
#[derive(Clone, Debug)]
pub struct Link {
    /// As it was given.
    pub text: String,
    /// What it says.
    pub magnet: Magnet,
}

/// A link that is being resolved.
pub struct Seek {
    hashes: InfoHashes,
    /// Peers connected.
    pub peers: u32,
    answer: Receiver<Result<Resolved, Refusal>>,
}

impl Link {
    /// Judges a link.
    pub fn parse(text: &str) -> Result<Link, Failure> {
        let wrong = |why| {
            Failure::failed(text::fit(text.trim(), LINK_COLUMNS), why, "copy the whole link, in quotes")
        };
        Ok(Link { text: text.to_owned(), magnet: Magnet::parse(text).map_err(wrong)? })
    }

    /// What it calls its torrent, or else the info-hash.
    fn raw_name(&self) -> String {
        self.magnet.name.clone().unwrap_or_else(|| self.magnet.hashes.wire().to_string())
    }

    /// The same, safe to print.
    pub fn name(&self) -> String {
        text::safe(&self.raw_name())
    }
}

impl Seek {
    /// Whether an event speaks of this one.
    pub fn is_of(&self, hashes: InfoHashes) -> bool {
        self.hashes == hashes
    }
}

impl Fleet {
    /// Begins to resolve a link; gives the index of its item, which becomes the torrent's by [`Fleet::arrive`].
    pub fn seek(
        &mut self,
        engine: usize,
        link: &Link,
        request: ResolveRequest,
        goal: Goal,
        stop: &Interrupt,
    ) -> Result<usize, Failure> {
        let (client, cancel) = (self.engines[engine].client.clone(), stop.cancel().clone());
        let (tell, answer) = sync_channel(1);
        let tell = Last::new(tell, stop.waker());
        let wait = move || tell.say(client.resolve(request, &cancel));
        let started = thread::Builder::new().name("resolve".to_owned()).spawn(wait);
        started.map_err(|why| {
            Failure::failed("threads", crate::source::reason(&why), "raise the limit, and try again")
        })?;
        let mut item = Item::new(engine, NO_NUMBER, link.name(), std::path::PathBuf::new(), goal);
        item.seek = Some(Seek { hashes: link.magnet.hashes, peers: 0, answer });
        self.items.push(item);
        Ok(self.items.len() - 1)
    }

    /// A link that led somewhere, with the index of its item. One that led nowhere has failed.
    pub fn resolved(&mut self) -> Option<(usize, Resolved)> {
        for (at, item) in self.items.iter_mut().enumerate() {
            let Some(seek) = &item.seek else { continue };
            let answer = match seek.answer.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => Err(Refusal::Closed),
            };
            item.seek = None;
            match answer {
                Ok(resolved) => return Some((at, resolved)),
                // By Ctrl-C; the loop knows.
                Err(Refusal::Cancelled) => {}
                Err(refusal) => item.fail(&refusal.to_string()),
            }
        }
        None
    }

    /// The torrent of a link is known: adds it to the engine that found it.
    pub fn arrive(&mut self, at: usize, torrent: &Torrent, add: AddTorrent) -> Result<(), Failure> {
        let place = torrent.place(&add.dir);
        let client = self.engines[self.items[at].engine].client.clone();
        let id = client.add(add)?;
        let item = &mut self.items[at];
        (item.id, item.name, item.place, item.began) = (id, torrent.name(), place, Instant::now());
        if let Ok(status) = client.status(id) {
            item.stands(status);
        }
        Ok(())
    }

    /// Listens and draws until the only item, a link, led somewhere.
    fn wait_for_torrent(
        &mut self,
        timeout: Option<Duration>,
        host: &mut Host,
        stop: &Interrupt,
    ) -> Result<Resolved, Failure> {
        let give_up = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let more = self.turn(host, stop)?;
            let redraw = self.screen.draw(&self.items);
            if let Some((_, resolved)) = self.resolved() {
                return Ok(resolved);
            }
            let item = &self.items[0];
            if let Course::Failed(why) = &item.course {
                return Err(Failure::Failed(format!("{}: {why}", item.name)));
            }
            if stop.count() > 0 {
                return Err(Failure::Interrupted);
            }
            if give_up.is_some_and(|give_up| Instant::now() >= give_up) {
                let waited = span(timeout.unwrap_or_default());
                let wrong = format_args!("no peer gave the torrent's description in {waited}");
                return Err(Failure::failed(
                    &item.name,
                    wrong,
                    "name a peer with --peer, or try again later",
                ));
            }
            if !more {
                stop.sleep(redraw.into_iter().chain(give_up).min());
            }
        }
    }
}

impl Item {
    /// It will not get to its goal. What is told begins with the name of it already, or need not.
    pub fn fail(&mut self, why: &str) {
        let why = why.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why);
        self.course = Course::Failed(why.to_owned());
    }
}

/// What a link leads to, by an engine of its own that downloads nothing.
pub fn resolve(
    link: &Link,
    find: &Find,
    tools: &dyn Tools,
    host: &mut Host,
    stop: &Interrupt,
) -> Result<Resolved, Failure> {
    let mut fleet = Fleet::new(Screen::new(host, false));
    let request =
        ResolveRequest { peers: find.peers.clone(), leave: true, ..ResolveRequest::new(link.text.clone()) };
    let engine = fleet.start(tools, &reach_options(&find.reach, host))?;
    say_filter(&fleet, &*fleet.engines[engine].client);
    let result = fleet
        .seek(engine, link, request, Goal::Complete, stop)
        .and_then(|_| fleet.wait_for_torrent(find.timeout, host, stop));
    fleet.leave(host, stop);
    result
}

#[cfg(test)]
mod tests;
