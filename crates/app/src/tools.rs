//! The tools of this process: the session's, and a tracker.
//!
//! Owns the choices of a program that runs for one command: little memory, and no failure for want of a place for
//! resume facts.

use std::time::Duration;

use piecemeal::{Session, default_pool_bytes, tools};
use piecemeal_api::{
    AnnounceRequest, Cancel, Client, CreateRequest, Created, DhtFinding, DhtRequest, DhtSummary, Diagnosis,
    DoctorRequest, EngineOptions, NetOptions, Refusal, RunningTracker, Tools, TrackerAnswer, TrackerOptions,
    Verdict, VerifyRequest, Work,
};
use piecemeal_cli::ErrStream;

use crate::tracker::Tracker;

/// The most memory for content that a command takes by itself: with it, a whole `get` stays below 160 MiB. Enough
/// for some Gbit/s; a larger pool is for who serves many torrents, and says so.
const POOL_BYTES: u64 = 64 << 20;

/// Everything in this process.
pub struct InProcess {
    err: ErrStream,
}

impl InProcess {
    /// Warnings go to `err`.
    pub fn new(err: ErrStream) -> InProcess {
        InProcess { err }
    }

    fn start(&self, options: &EngineOptions) -> Result<Session, Refusal> {
        let options = EngineOptions {
            pool_bytes: options.pool_bytes.or(Some(default_pool_bytes().min(POOL_BYTES))),
            ..options.clone()
        };
        let Some(dir) = &options.state_dir else { return Session::start(&options) };
        match Session::start(&options) {
            // A home that cannot be written to, as in many containers, is no reason not to download.
            Err(Refusal::File { path, reason, .. }) if path == *dir => {
                let dir = dir.display();
                self.err.line(&format!(
                    "piecemeal: {dir}: {reason}; progress is not kept for the next start, set XDG_STATE_HOME to keep it"
                ));
                Session::start(&EngineOptions { state_dir: None, ..options })
            }
            other => other,
        }
    }
}

impl Tools for InProcess {
    fn create(&self, request: &CreateRequest, work: &Work<'_>) -> Result<Created, Refusal> {
        tools::create(request, work)
    }

    fn verify(&self, request: &VerifyRequest, work: &Work<'_>) -> Result<Verdict, Refusal> {
        tools::verify(request, work)
    }

    fn announce_all(
        &self,
        request: &AnnounceRequest,
        cancel: &Cancel,
    ) -> Result<Vec<TrackerAnswer>, Refusal> {
        tools::announce_all(request, cancel)
    }

    fn fetch_torrent(&self, url: &str, net: &NetOptions, cancel: &Cancel) -> Result<Vec<u8>, Refusal> {
        tools::fetch_torrent(url, net, cancel)
    }

    fn dht(
        &self,
        request: &DhtRequest,
        hear: &mut dyn FnMut(DhtFinding),
        cancel: &Cancel,
    ) -> Result<DhtSummary, Refusal> {
        tools::dht(request, hear, cancel)
    }

    fn new_dht_key(&self) -> Result<[u8; 32], Refusal> {
        tools::new_dht_key()
    }

    fn examine(&self, request: &DoctorRequest, cancel: &Cancel) -> Result<Diagnosis, Refusal> {
        tools::examine(request, cancel)
    }

    fn start_tracker(&self, options: &TrackerOptions) -> Result<Box<dyn RunningTracker>, Refusal> {
        Ok(Box::new(Tracker::start(options, self.err.clone())?))
    }

    fn start_client(&self, options: &EngineOptions) -> Result<Box<dyn Client>, Refusal> {
        Ok(Box::new(self.start(options)?))
    }

    fn cpu_time(&self) -> Option<Duration> {
        Some(tools::cpu_time())
    }
}
