//! The IP filter's lists: where they lie, and when they are read again.
//!
//! Owns the lists by file and URL, and the copies of the latter that the next run begins with. Files are looked at every
//! minute and read when they changed; URLs are asked once a day, and fetched unless the server says that they are what we
//! have. A list that cannot be read stays as it was. What becomes of the filter is `keeper`'s.

mod copy;
mod keeper;
mod read;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use piecemeal_api::{IpList, Refusal};
use piecemeal_discovery::filter::{Builder, IpFilter};
use piecemeal_metainfo::{sha1, to_hex};
use piecemeal_shell::http::{Got, Validators};

use crate::words;
pub(crate) use keeper::{Blocking, Keeper, ban};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often URLs are fetched: those who publish lists refuse who comes more often than that.
const FETCH_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// A fetch that failed is tried again after this, or, while nothing at all is known of the list, ...
const AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);
/// ... after this.
const AGAIN_SOON: Duration = Duration::from_secs(5 * 60);
/// Under the folder of what is kept.
const FOLDER: &str = "ip-filters";

/// All lists of one session.
pub(crate) struct Lists {
    lists: Vec<List>,
}

struct List {
    /// As it was named.
    place: String,
    kind: Kind,
    ranges: Arc<IpFilter>,
    /// What is odd about what was read.
    odd: Option<String>,
    /// What there is to say: that, or why it was not read.
    warning: Option<String>,
    /// It was read once.
    known: bool,
    due: Instant,
}

enum Kind {
    File {
        path: PathBuf,
        /// What it was when it was read last; `None`: not there.
        seen: Option<Stamp>,
    },
    Url {
        copy: Option<PathBuf>,
        /// By what the server knows what was read last.
        validators: Validators,
    },
}

/// By which a change of a file is seen.
type Stamp = (SystemTime, u64);

/// The ranges of a list, and what is odd about it, in words.
type Parsed = (Arc<IpFilter>, Option<String>);

/// Gets a URL, unless it is what these validators are of; why not, in words.
pub(crate) type Fetch<'a> = &'a dyn Fn(&str, &Validators) -> Result<Got, String>;

/// Whether it is a URL that can be fetched.
pub(crate) fn is_url(place: &str) -> bool {
    let begins =
        |scheme: &str| place.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    begins("http://") || begins("https://")
}

impl Lists {
    /// Reads all files, and of the URLs what the last run kept under `state_dir`.
    ///
    /// # Errors
    /// A file cannot be read or is no list.
    pub(crate) fn open(places: &[String], state_dir: Option<&Path>, now: Instant) -> Result<Lists, Refusal> {
        let folder = state_dir.map(|dir| dir.join(FOLDER));
        let open = |place: &String| match is_url(place) {
            true => Ok(List::of_url(place, folder.as_deref(), now)),
            false => List::of_file(place, now),
        };
        Ok(Lists { lists: places.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The filter of all of them.
    ///
    /// # Errors
    /// Together they have too many ranges, in words.
    pub(crate) fn filter(&self) -> Result<Arc<IpFilter>, String> {
        if let [one] = &self.lists[..] {
            return Ok(one.ranges.clone());
        }
        let mut builder = Builder::new();
        for range in self.lists.iter().flat_map(|list| list.ranges.ranges()) {
            builder.block(range).map_err(|why| why.to_string())?;
        }
        builder.finish().map(|(filter, _)| Arc::new(filter)).map_err(|why| why.to_string())
    }

    /// How each stands.
    pub(crate) fn status(&self) -> Vec<IpList> {
        let status = |list: &List| IpList {
            place: list.place.clone(),
            ranges: list.ranges.len() as u64,
            waiting: !list.known,
            warning: list.warning.clone(),
        };
        self.lists.iter().map(status).collect()
    }

    /// When [`Lists::refresh`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.lists.iter().map(|list| list.due).min()
    }

    /// Reads again what is due. `None`: nothing is other than before; else what there is to say.
    pub(crate) fn refresh(&mut self, now: Instant, fetch: Fetch<'_>) -> Option<Vec<String>> {
        let due = self.lists.iter_mut().filter(|list| list.due <= now);
        let mut changed = false;
        let mut said = Vec::new();
        for list in due {
            let before = list.warning.clone();
            changed |= match list.kind {
                Kind::File { .. } => list.look(now),
                Kind::Url { .. } => list.fetch(now, fetch),
            };
            said.extend(list.warning.clone().filter(|warning| before.as_ref() != Some(warning)));
        }
        (changed || !said.is_empty()).then_some(said)
    }
}

impl List {
    fn of_file(place: &str, now: Instant) -> Result<List, Refusal> {
        let path = PathBuf::from(place);
        let seen = stamp(&path);
        let parsed = read_file(&path).map_err(|why| {
            let remedy = "name a list in the P2P, DAT or CIDR format, plain or gzip";
            Refusal::file(&path, why, remedy)
        })?;
        let mut list = List::new(place, Kind::File { path, seen }, now + LOOK_EVERY);
        list.took(parsed);
        Ok(list)
    }

    fn of_url(place: &str, folder: Option<&Path>, now: Instant) -> List {
        // Two lists of one user will not share so much of a hash.
        let name = || format!("{}.list", to_hex(&sha1(place.as_bytes())[..8]));
        let copy = folder.map(|folder| folder.join(name()));
        // A damaged copy is as good as none.
        let kept = copy.as_deref().and_then(|copy| Some((copy::read(copy).ok()?, stamp(copy)?)));
        let mut list = List::new(place, Kind::Url { copy, validators: Validators::default() }, now);
        if let Some(((parsed, validators), (modified, _))) = kept {
            list.took(parsed);
            list.knows(validators);
            // One of the future is of a clock that was wrong.
            let age = modified.elapsed().unwrap_or(FETCH_EVERY);
            list.due = now + FETCH_EVERY.saturating_sub(age);
        }
        list
    }

    /// One of which nothing is known yet.
    fn new(place: &str, kind: Kind, due: Instant) -> List {
        let (place, ranges) = (place.to_owned(), Arc::default());
        List { place, kind, ranges, odd: None, warning: None, known: false, due }
    }

    /// Looks whether a file is another; true if its ranges were read.
    fn look(&mut self, now: Instant) -> bool {
        self.due = now + LOOK_EVERY;
        let Kind::File { path, seen } = &mut self.kind else { return false };
        // Before it is read: what is written meanwhile is seen the next time.
        let is = stamp(path);
        if std::mem::replace(seen, is) == is {
            return false;
        }
        let read = read_file(path);
        self.heard(read)
    }

    /// Asks for it; true if its ranges or what there is to say are others.
    fn fetch(&mut self, now: Instant, fetch: Fetch<'_>) -> bool {
        let Kind::Url { copy, validators } = &self.kind else { return false };
        let got = fetch(&self.place, validators).and_then(|got| match got {
            Got::Unchanged => Ok(None),
            Got::Body(body, validators) => Ok(Some((read::parsed(&body[..])?, body, validators))),
        });
        let pause = if self.known { AGAIN_AFTER } else { AGAIN_SOON };
        self.due = now + if got.is_ok() { FETCH_EVERY } else { pause };
        // What cannot be kept is not worth an error: the next run fetches it again.
        match got {
            Ok(None) => {
                let _ = copy.as_deref().map(copy::is_fresh);
                let before = std::mem::replace(&mut self.warning, self.odd.clone());
                before != self.warning
            }
            Ok(Some((parsed, body, validators))) => {
                let _ = copy.as_deref().map(|copy| copy::write(copy, &body, &validators));
                self.knows(validators);
                self.heard(Ok(parsed))
            }
            Err(why) => self.heard(Err(why)),
        }
    }

    fn heard(&mut self, read: Result<Parsed, String>) -> bool {
        match read {
            Ok(parsed) => {
                self.took(parsed);
                true
            }
            Err(why) => {
                let stays =
                    if self.known { "; what it said before still holds" } else { "; trying again later" };
                self.warning = Some(format!("{}: {why}{stays}", self.place));
                false
            }
        }
    }

    fn took(&mut self, (ranges, odd): Parsed) {
        (self.ranges, self.known) = (ranges, true);
        self.odd = odd.map(|odd| format!("{}: {odd}", self.place));
        self.warning = self.odd.clone();
    }

    fn knows(&mut self, new: Validators) {
        if let Kind::Url { validators, .. } = &mut self.kind {
            *validators = new;
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn read_file(path: &Path) -> Result<Parsed, String> {
    let file = File::open(path).map_err(|why| words::reason(&why))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err("it is a directory".to_owned());
    }
    read::parsed(BufReader::new(file))
}
