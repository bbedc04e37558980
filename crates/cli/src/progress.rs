//! What a user sees while something runs: bars on a terminal, lines of text elsewhere, or JSON.
//!
//! Owns no facts; draws the items of `watch` and the progress of tools.

use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use piecemeal_api::{Event, Progress, State, Status};
use serde::Serialize;

use crate::host::{ErrStream, Host};
use crate::text;
use crate::units::{count, percent, rate, size, span};
use crate::watch::{Course, Item};

/// Columns for a name before a bar: what leaves a bar worth looking at on a terminal of 80.
const NAME_COLUMNS: usize = 16;
/// Steps of a bar whose total is a size of any magnitude.
const BAR_STEPS: u64 = 1000;
/// How often a line repeats itself while bytes move, and at most how often when a tenth is passed.
const LINE_EVERY: Duration = Duration::from_secs(5);
const LINE_LEAST: Duration = Duration::from_secs(1);
/// indicatif draws at most twenty times a second and leaves out what comes between; this long after it is drawn.
const BARS_AGAIN: Duration = Duration::from_millis(100);
/// Seeding is long and dull.
const SEEDING_LINE_EVERY: Duration = Duration::from_secs(60);

/// What the user sees of a fleet.
pub struct Screen {
    started: Instant,
    err: ErrStream,
    style: Style,
}

enum Style {
    Json,
    Lines(Vec<Option<Said>>),
    Bars { all: MultiProgress, bars: Vec<ProgressBar> },
}

/// What the last line about a torrent said.
#[derive(Clone, Debug)]
pub struct Said {
    at: Duration,
    /// `None`: it was a link whose torrent was not known.
    state: Option<Discriminant<State>>,
    tenth: u64,
    moved: u64,
}

impl Screen {
    /// Events as JSON, or else as the host can show them.
    pub fn new(host: &Host, json: bool) -> Self {
        let style = match host.bars.target() {
            _ if json => Style::Json,
            Some(target) => Style::Bars { all: MultiProgress::with_draw_target(target), bars: Vec::new() },
            None => Style::Lines(Vec::new()),
        };
        Screen { started: Instant::now(), err: host.err.clone(), style }
    }

    /// Whether stdout is for JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.style, Style::Json)
    }

    /// An event of an engine.
    pub fn event(&self, host: &mut Host, event: &Event) -> io::Result<()> {
        self.json(host, event)
    }

    /// A line of JSON with the time, when JSON is wanted.
    pub fn json(&self, host: &mut Host, body: &impl Serialize) -> io::Result<()> {
        if !self.is_json() {
            return Ok(());
        }
        let time_s = (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        host.say_json(&Line { time_s, body })
    }

    /// A line for a person. Not when JSON is wanted: the events say it.
    pub fn note(&self, line: &str) {
        match &self.style {
            Style::Json => {}
            Style::Lines(_) => self.err.line(line),
            Style::Bars { all, .. } => {
                let _ = all.println(line);
            }
        }
    }

    /// How the torrents stand now. Gives when they are to be drawn again although nothing happened.
    pub fn draw(&mut self, items: &[Item]) -> Option<Instant> {
        match &mut self.style {
            Style::Json => None,
            Style::Lines(said) => {
                said.resize(items.len().max(said.len()), None);
                let now = self.started.elapsed();
                let mut next = None;
                for (item, said) in items.iter().zip(said) {
                    let is = match (&item.seek, &item.status) {
                        (Some(seek), _) => Said::seeking(now, seek.peers),
                        (None, Some(status)) => Said::of(now, status),
                        (None, None) => continue,
                    };
                    match is.due(said.as_ref()) {
                        Some(due) if due <= now => {
                            *said = Some(is);
                            self.err.line(&format!("{}: {}", item.name, describe(item)));
                        }
                        due => next = next.into_iter().chain(due).min(),
                    }
                }
                next.map(|next| self.started + next)
            }
            Style::Bars { all, bars } => {
                while bars.len() < items.len() {
                    bars.push(all.add(ProgressBar::new(BAR_STEPS).with_style(bar_style())));
                }
                let drawn = items.iter().zip(bars).map(|(item, bar)| draw_bar(bar, item));
                // All of them, not only until one changes.
                let changed = drawn.fold(false, |any, changed| any | changed);
                changed.then(|| Instant::now() + BARS_AGAIN)
            }
        }
    }

    /// Leaves the bars as they are and the cursor below them. Drawing may begin anew afterwards.
    pub fn end(&mut self) {
        if let Style::Bars { bars, .. } = &mut self.style {
            bars.drain(..).for_each(|bar| bar.abandon());
        }
        if let Style::Lines(said) = &mut self.style {
            said.clear();
        }
    }
}

/// What the user sees of a tool at work.
pub struct WorkScreen {
    label: String,
    err: ErrStream,
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

impl WorkScreen {
    /// `label` names the work, such as "hashing film".
    pub fn new(host: &Host, label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = host.bars.target().map(|target| {
            let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), target).with_style(bar_style());
            bar.with_prefix(padded(&label))
        });
        WorkScreen { label, err: host.err.clone(), bar, last: Mutex::new(Instant::now()) }
    }

    /// Takes in progress; any thread may call.
    pub fn report(&self, progress: Progress) {
        let text = match progress.total {
            0 => size(progress.done),
            total => format!("{}, {} of {}", percent(progress.done, total), size(progress.done), size(total)),
        };
        if let Some(bar) = &self.bar {
            bar.set_position(steps(progress.done, progress.total));
            bar.set_message(text);
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            self.err.line(&format!("{}: {text}", self.label));
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    time_s: f64,
    #[serde(flatten)]
    body: &'a T,
}

impl Said {
    fn of(at: Duration, status: &Status) -> Self {
        let moved = status.have_bytes + status.totals.downloaded + status.totals.uploaded + checked(status);
        Said { at, state: Some(discriminant(&status.state)), tenth: tenth(status), moved }
    }

    /// Peers are to a link what tenths are to a torrent.
    fn seeking(at: Duration, peers: u32) -> Self {
        Said { at, state: None, tenth: u64::from(peers), moved: 0 }
    }

    /// When a line is worth reading: another state, another tenth, or some seconds of movement. `None`: not as it is.
    fn due(&self, last: Option<&Said>) -> Option<Duration> {
        let Some(last) = last.filter(|last| last.state == self.state) else { return Some(self.at) };
        let seeding = self.state == Some(discriminant(&State::Seeding));
        let every = if seeding { SEEDING_LINE_EVERY } else { LINE_EVERY };
        if self.tenth != last.tenth {
            Some(last.at + LINE_LEAST)
        } else {
            (self.moved != last.moved).then_some(last.at + every)
        }
    }
}

fn tenth(status: &Status) -> u64 {
    match status.state {
        State::Checking { checked_bytes, check_bytes } => {
            steps(checked_bytes, check_bytes) / (BAR_STEPS / 10)
        }
        _ => steps(status.have_bytes, status.wanted_bytes) / (BAR_STEPS / 10),
    }
}

fn checked(status: &Status) -> u64 {
    if let State::Checking { checked_bytes, .. } = status.state { checked_bytes } else { 0 }
}

/// How a torrent or a link stands, in words.
fn describe(item: &Item) -> String {
    if let Course::Failed(why) = &item.course {
        return format!("failed: {}", text::safe(why));
    }
    if let Some(seek) = &item.seek {
        return match seek.peers {
            0 => "looking for peers that know this torrent".to_owned(),
            peers => format!("asking {} what this torrent is", count(u64::from(peers), "peer")),
        };
    }
    // Its link is not sought any more.
    let Some(status) = &item.status else { return "stopped".to_owned() };
    let peers = count(u64::from(status.peers), "peer");
    match &status.state {
        State::Opening => "opening".to_owned(),
        State::Checking { checked_bytes, check_bytes } => {
            format!("checking {}", percent(*checked_bytes, *check_bytes))
        }
        State::Downloading => {
            let left = status.eta_s().map_or("waiting for data".to_owned(), |eta| {
                // A guess of a second has no tenths.
                match eta.max(1) {
                    s @ ..60 => format!("{s} s left"),
                    s => format!("{} left", span(Duration::from_secs(s))),
                }
            });
            let done = percent(status.have_bytes, status.wanted_bytes);
            let of = size(status.wanted_bytes);
            format!("{done} of {of}, {}, {peers}, {left}", rate(status.down_rate))
        }
        State::Seeding => {
            let sent = size(status.totals.uploaded);
            format!("seeding, {sent} sent, {}, {peers}, ratio {:.2}", rate(status.up_rate), status.ratio())
        }
        State::Paused => "paused".to_owned(),
        State::Trouble { trouble } => format!("waiting: {}", text::safe(&trouble.text)),
        State::Gone => "gone".to_owned(),
    }
}

/// True if there is something else to be seen than before.
fn draw_bar(bar: &ProgressBar, item: &Item) -> bool {
    let position = match &item.status {
        None => 0,
        Some(status) => match status.state {
            State::Checking { checked_bytes, check_bytes } => steps(checked_bytes, check_bytes),
            _ => steps(status.have_bytes, status.wanted_bytes),
        },
    };
    let (prefix, message) = (padded(&item.name), describe(item));
    let changed = bar.prefix() != prefix || bar.position() != position || bar.message() != message;
    bar.set_prefix(prefix);
    bar.set_position(position);
    bar.set_message(message);
    changed
}

fn bar_style() -> ProgressStyle {
    // indicatif and the console beneath it leave colour out for NO_COLOR and where there is no terminal.
    let style = ProgressStyle::with_template("{prefix} [{wide_bar:.cyan}] {msg}")
        .expect("the template is a constant");
    style.progress_chars("=> ")
}

fn padded(name: &str) -> String {
    let name = text::fit(name, NAME_COLUMNS);
    let pad = NAME_COLUMNS - text::width(&name).min(NAME_COLUMNS);
    format!("{name}{}", " ".repeat(pad))
}

fn steps(done: u64, total: u64) -> u64 {
    if total == 0 {
        0
    } else {
        (u128::from(done.min(total)) * u128::from(BAR_STEPS) / u128::from(total)) as u64
    }
}

#[cfg(test)]
mod tests;
