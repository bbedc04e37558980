//! A tracker in this process, in the words of `api`.
//!
//! Owns the names under which others reach it, and the signal that has it read its lists again; everything else is
//! `trackerd`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use piecemeal_api::{Refusal, RunningTracker, TrackerOptions, TrackerStats};
use piecemeal_cli::ErrStream;
use piecemeal_trackerd::{Config, ListError, ListFiles, StartError, TrackerServer, outward};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

/// A running tracker, or one that was stopped.
pub struct Tracker {
    server: Option<Arc<TrackerServer>>,
    /// Only where there are lists: without, SIGHUP ends the process as it does others.
    reloading: Option<Reloading>,
    urls: Vec<String>,
    udp_urls: Vec<String>,
    /// When it was stopped.
    last: TrackerStats,
}

impl Tracker {
    /// Starts it. What is wrong with lists that are read again goes to `err`.
    ///
    /// # Errors
    /// There is no address to listen on, or one cannot be had, or a list cannot be read.
    pub fn start(options: &TrackerOptions, err: ErrStream) -> Result<Tracker, Refusal> {
        let lists = ListFiles {
            allow: options.allow.clone(),
            deny: options.deny.clone(),
            passkeys: options.passkeys.clone(),
        };
        let path = if lists.passkeys.is_some() { "/PASSKEY/announce" } else { "/announce" };
        let has_lists = lists != ListFiles::default();
        let mut config = Config { lists, ..Config::new(options.listen.clone()) };
        if let Some(seconds) = options.interval_s {
            config.interval = Duration::from_secs(seconds.into());
        }
        let server =
            TrackerServer::start(config).map(Arc::new).map_err(|why| refusal(why, &options.listen))?;
        let urls = |scheme| server.addrs().iter().map(|addr| url(scheme, *addr, path)).collect();
        let (urls, udp_urls) = (urls("http"), urls("udp"));
        let reloading = if has_lists { Some(Reloading::start(server.clone(), err)?) } else { None };
        Ok(Tracker { server: Some(server), reloading, urls, udp_urls, last: TrackerStats::default() })
    }
}

impl RunningTracker for Tracker {
    fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    fn udp_urls(&self) -> Vec<String> {
        self.udp_urls.clone()
    }

    fn stats(&self) -> TrackerStats {
        let Some(server) = &self.server else { return self.last };
        let stats = server.stats();
        TrackerStats {
            swarms: stats.torrents,
            peers: stats.peers,
            announces: stats.announces,
            scrapes: stats.scrapes,
            refused: stats.failures,
        }
    }

    fn stop(&mut self) {
        self.last = self.stats();
        if let Some(reloading) = self.reloading.take() {
            reloading.stop();
        }
        // Nobody else has it: its thread has ended.
        if let Some(server) = self.server.take().and_then(Arc::into_inner) {
            server.stop();
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread that waits for SIGHUP.
struct Reloading {
    handle: Handle,
    thread: thread::JoinHandle<()>,
}

impl Reloading {
    fn start(server: Arc<TrackerServer>, err: ErrStream) -> Result<Reloading, Refusal> {
        let trouble = |why: std::io::Error| Refusal::System {
            what: "the signal to read lists again".into(),
            reason: without_number(&why),
        };
        let mut signals = Signals::new([SIGHUP]).map_err(trouble)?;
        let handle = signals.handle();
        let watch = move || {
            for _ in signals.forever() {
                match server.reload() {
                    Ok(()) => err.line("piecemeal: lists were read again"),
                    Err(why) => err.line(&format!("piecemeal: {why}; the lists stay as they were")),
                }
            }
        };
        let thread = thread::Builder::new().name("reload".into()).spawn(watch).map_err(trouble)?;
        Ok(Reloading { handle, thread })
    }

    fn stop(self) {
        self.handle.close();
        // A panic there has been reported by the thread itself.
        let _ = self.thread.join();
    }
}

fn refusal(why: StartError, listen: &[SocketAddr]) -> Refusal {
    match why {
        StartError::Config(what) if what.contains("interval") => {
            Refusal::invalid("interval", what, "name a time such as 30m")
        }
        StartError::Config(what) => Refusal::invalid("listen", what, "name an address such as 0.0.0.0:6969"),
        StartError::List(ListError::Unreadable { path, why }) => Refusal::File {
            path,
            reason: without_number(&why),
            remedy: "name a file that can be read".into(),
        },
        StartError::List(ListError::Line { path, line, wanted }) => Refusal::File {
            path,
            reason: format!("line {line}: {wanted}"),
            remedy: "correct that line".into(),
        },
        StartError::System(why) => match listen.first() {
            Some(addr) => Refusal::Listen { addr: *addr, reason: without_number(&why) },
            None => Refusal::System { what: "a tracker".into(), reason: without_number(&why) },
        },
    }
}

/// What goes into torrents. An address that stands for all is given as the one that others most likely see.
fn url(scheme: &str, bound: SocketAddr, path: &str) -> String {
    let ip = if bound.ip().is_unspecified() { outward(bound.is_ipv4()) } else { bound.ip() };
    format!("{scheme}://{}{path}", SocketAddr::new(ip, bound.port()))
}

fn without_number(why: &std::io::Error) -> String {
    why.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(options: &TrackerOptions) -> Result<Tracker, Refusal> {
        Tracker::start(options, ErrStream::new(std::io::sink()))
    }

    fn options() -> TrackerOptions {
        TrackerOptions { listen: vec!["127.0.0.1:0".parse().unwrap()], ..TrackerOptions::default() }
    }

    #[test]
    fn it_is_reached_where_it_says_and_stops_twice() {
        let mut tracker = start(&options()).unwrap();
        let urls = tracker.urls();
        assert!(urls[0].starts_with("http://127.0.0.1:") && urls[0].ends_with("/announce"), "{urls:?}");
        assert_eq!(tracker.udp_urls()[0], urls[0].replace("http", "udp"));
        assert_eq!(tracker.stats(), TrackerStats::default());
        tracker.stop();
        tracker.stop();
        assert_eq!(tracker.urls(), urls);
    }

    #[test]
    fn lists_are_named_in_the_url_and_in_refusals() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        std::fs::write(&keys, "k1\n").unwrap();
        let closed = TrackerOptions { passkeys: Some(keys.clone()), ..options() };
        let mut tracker = start(&closed).unwrap();
        assert!(tracker.udp_urls()[0].ends_with("/PASSKEY/announce"));
        tracker.stop();
        std::fs::write(&keys, "k1\na b\n").unwrap();
        let refused = start(&closed).map(drop).unwrap_err().to_string();
        assert!(refused.contains("keys: line 2: a key"), "{refused}");
        let gone = TrackerOptions { allow: Some(dir.path().join("gone")), ..options() };
        let refused = start(&gone).map(drop).unwrap_err().to_string();
        assert!(refused.contains("gone: ") && refused.ends_with("name a file that can be read"), "{refused}");
        let hasty = TrackerOptions { interval_s: Some(59), ..options() };
        assert!(start(&hasty).map(drop).unwrap_err().to_string().starts_with("interval: "));
    }

    #[test]
    fn the_address_for_all_is_not_given_to_others() {
        for wildcard in ["0.0.0.0:6969", "[::]:6969"] {
            let url = url("http", wildcard.parse().unwrap(), "/announce");
            assert!(!url.contains("//0.0.0.0") && !url.contains("[::]"), "{url}");
            assert!(url.ends_with(":6969/announce"), "{url}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let refused = start(&TrackerOptions { listen: vec![addr], ..options() }).map(drop);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{addr}: cannot listen here: ")), "{refused}");
        assert!(start(&TrackerOptions { listen: vec![], ..options() }).is_err());
    }
}
