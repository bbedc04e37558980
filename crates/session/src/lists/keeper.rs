//! Who may be talked to, as the session knows it, and the thread that keeps lists fresh.
//!
//! Owns the one [`Gate`] from which the engine's are made, and that the engine hears of each change in their order. When
//! a list is due and what it says is known to [`Lists`].

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use piecemeal_api::{Event, IpList, Refusal};
use piecemeal_discovery::filter::{Bans, Gate, IpFilter, IpRange};
use piecemeal_engine::cx::Command;
use piecemeal_shell::{Shell, http};

use super::Lists;
use crate::words;

/// Bytes of a list as it comes over HTTP: the longest that people publish have 10 MB, packed, and 30 MB not.
const MOST_FETCHED_BYTES: usize = 64 << 20;
/// For all of it, by a slow line.
const FETCH_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Who may be talked to, and why.
pub(crate) struct Blocking(Mutex<Known>);

struct Known {
    gate: Gate,
    lists: Vec<IpList>,
}

/// A range that a user bans.
///
/// # Errors
/// It is none, and what is.
pub(crate) fn ban(text: &str) -> Result<IpRange, Refusal> {
    text.trim().parse().map_err(|_| {
        let remedy = "write it like 1.2.3.4, 1.2.3.0/24 or 1.2.3.4-1.2.3.8";
        Refusal::invalid("ban", format!("`{text}` is no address and no range of them"), remedy)
    })
}

impl Blocking {
    /// What the lists say now, and the bans of the start.
    ///
    /// # Errors
    /// A ban is none, or there are too many; the lists have too many ranges together.
    pub(crate) fn new(lists: &Lists, bans: &[String]) -> Result<Blocking, Refusal> {
        let filter = lists.filter();
        let filter =
            filter.map_err(|why| Refusal::invalid("ip filter", why, "name fewer or shorter lists"))?;
        let mut banned = Bans::default();
        for text in bans {
            banned.ban(ban(text)?).map_err(too_many)?;
        }
        let gate = Gate { lists: filter, bans: Arc::new(banned) };
        Ok(Blocking(Mutex::new(Known { gate, lists: lists.status() })))
    }

    /// What the engine begins with.
    pub(crate) fn gate(&self) -> Gate {
        self.known().gate.clone()
    }

    /// Bans, or lifts a ban; false if nothing changed.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn set(&self, range: IpRange, banned: bool, shell: &Shell) -> Result<bool, Refusal> {
        let mut known = self.known();
        let bans = Arc::make_mut(&mut known.gate.bans);
        let changed = if banned { bans.ban(range).map_err(too_many)? } else { bans.lift(range) };
        if changed {
            // Under the lock, so that the engine hears of the last change last.
            shell.command(Command::Gate(known.gate.clone()));
        }
        Ok(changed)
    }

    /// What is banned, as text.
    pub(crate) fn bans(&self) -> Vec<String> {
        self.known().gate.bans.iter().map(|range| range.to_string()).collect()
    }

    /// Ranges of all lists, and how each stands.
    pub(crate) fn lists(&self) -> (u64, Vec<IpList>) {
        let known = self.known();
        (known.gate.lists.len() as u64, known.lists.clone())
    }

    fn take(&self, filter: Arc<IpFilter>, lists: Vec<IpList>, shell: &Shell) {
        let mut known = self.known();
        known.lists = lists;
        if known.gate.lists != filter {
            known.gate.lists = filter;
            shell.command(Command::Gate(known.gate.clone()));
        }
    }

    /// Whoever panicked left it whole: it is changed in one step.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(why: piecemeal_discovery::filter::TooManyBans) -> Refusal {
    Refusal::invalid("ban", why, "put them into a file, and name that as an IP filter")
}

/// The thread that keeps lists fresh. It ends when this is dropped, which waits for it.
pub(crate) struct Keeper {
    stop: http::Stop,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it, if there is anything to keep. `tell` is given what listeners may hear.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        mut lists: Lists,
        shell: &Arc<Shell>,
        blocking: impl Fn() -> Option<Arc<Blocking>> + Send + 'static,
        tell: impl Fn(Event) + Send + 'static,
    ) -> Result<Option<Keeper>, Refusal> {
        if lists.next_due().is_none() {
            return Ok(None);
        }
        let stop = http::Stop::default();
        let (wake, sleep) = sync_channel(0);
        let (dialer, shell, stopped) = (shell.dialer().clone(), Arc::downgrade(shell), stop.clone());
        let keep = move || {
            let fetch = |url: &str, known: &http::Validators| {
                let (most, patience) = (MOST_FETCHED_BYTES, FETCH_PATIENCE);
                let got = http::get_if_changed(&dialer, url, known, most, patience, &stopped);
                got.map_err(|why| words::without_number(&why.to_string()).to_owned())
            };
            while let Some(due) = lists.next_due() {
                let left = due.saturating_duration_since(Instant::now());
                if sleep.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let said = lists.refresh(Instant::now(), &fetch);
                if stopped.is_raised() {
                    return;
                }
                if let (Some(warnings), Some(blocking)) = (said, blocking()) {
                    publish(&lists, warnings, &blocking, &shell, &tell);
                }
            }
        };
        let thread = std::thread::Builder::new().name("piecemeal-lists".into()).spawn(keep);
        let thread = thread.map_err(|why| Refusal::System {
            what: "a thread for the IP filter".into(),
            reason: words::reason(&why),
        })?;
        Ok(Some(Keeper { stop, wake: Some(wake), thread: Some(thread) }))
    }
}

fn publish(
    lists: &Lists,
    mut warnings: Vec<String>,
    blocking: &Blocking,
    shell: &Weak<Shell>,
    tell: &impl Fn(Event),
) {
    let Some(shell) = shell.upgrade() else { return };
    match lists.filter() {
        Ok(filter) => blocking.take(filter, lists.status(), &shell),
        Err(why) => warnings.push(format!("{why}; what was before still holds")),
    }
    drop(shell);
    tell(Event::IpFilter { ranges: blocking.lists().0, warnings });
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.raise();
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}
