//! What stands on the screen, as a user reads it.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::TermLike;
use piecemeal_api::{InfoHash, Limits, Totals, Trouble, TroubleKind};
use piecemeal_metainfo::TorrentId;

use super::*;
use crate::args::SeedGoal;
use crate::host::Bars;
use crate::watch::Goal;

const MIB: u64 = 1 << 20;

/// A terminal of some width: understands what indicatif says to one.
#[derive(Clone, Debug)]
struct Paper {
    columns: u16,
    grid: Arc<Mutex<Grid>>,
}

#[derive(Debug, Default)]
struct Grid {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Paper {
    fn new(columns: u16) -> Paper {
        Paper { columns, grid: Arc::default() }
    }

    fn on<R>(&self, change: impl FnOnce(&mut Grid) -> R) -> R {
        change(&mut self.grid.lock().unwrap())
    }

    /// The lines that stand there, without the spaces behind them.
    fn read(&self) -> Vec<String> {
        self.on(|grid| {
            let lines = grid.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
            let mut lines: Vec<String> = lines.collect();
            while lines.last().is_some_and(String::is_empty) {
                lines.pop();
            }
            lines
        })
    }
}

impl TermLike for Paper {
    fn width(&self) -> u16 {
        self.columns
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.on(|grid| grid.row = grid.row.saturating_sub(n));
        Ok(())
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.on(|grid| grid.row += n);
        Ok(())
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.on(|grid| grid.column += n);
        Ok(())
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.on(|grid| grid.column = grid.column.saturating_sub(n));
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)?;
        self.on(|grid| (grid.row, grid.column) = (grid.row + 1, 0));
        Ok(())
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        let columns = usize::from(self.columns);
        self.on(|grid| {
            for c in text.chars() {
                if c == '\n' || grid.column == columns {
                    (grid.row, grid.column) = (grid.row + 1, 0);
                }
                if c == '\n' {
                    continue;
                }
                let rows = grid.lines.len().max(grid.row + 1);
                grid.lines.resize(rows, Vec::new());
                let line = &mut grid.lines[grid.row];
                line.resize(line.len().max(grid.column + 1), ' ');
                line[grid.column] = c;
                grid.column += 1;
            }
        });
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        self.on(|grid| {
            grid.column = 0;
            if let Some(line) = grid.lines.get_mut(grid.row) {
                line.clear();
            }
        });
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What was written to a stream.
#[derive(Clone, Default)]
struct Ink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Ink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ink {
    /// What was written since the last time.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// A host with both streams on paper.
fn host(bars: Bars) -> (Host, Ink, Ink) {
    let (out, err) = (Ink::default(), Ink::default());
    let host = Host {
        out: Box::new(out.clone()),
        err: ErrStream::new(err.clone()),
        bars,
        cwd: PathBuf::from("/"),
        temp_dir: PathBuf::from("/tmp"),
        state_dir: None,
    };
    (host, out, err)
}

fn bars(paper: &Paper) -> Bars {
    let paper = paper.clone();
    Bars::On(Arc::new(move || Box::new(paper.clone())))
}

fn status(state: State, have_bytes: u64) -> Status {
    Status {
        torrent: TorrentId(1),
        name: "film".into(),
        info_hash: Some(InfoHash([7; 20])),
        info_hash_v2: None,
        dir: PathBuf::from("/films"),
        state,
        size: 700 * MIB,
        wanted_bytes: 700 * MIB,
        have_bytes,
        have_pieces: 0,
        pieces: 700,
        down_rate: 12 * MIB + MIB / 2,
        up_rate: 3 * MIB,
        totals: Totals { downloaded: have_bytes, uploaded: 350 * MIB, wasted: 0, from_leeches: 0 },
        peers: 4,
        seeds: 1,
        givers: 2,
        known_peers: 9,
        active_s: 20,
        limits: Limits::default(),
    }
}

fn item(name: &str, status: Status) -> Item {
    let goal = Goal::Seed(SeedGoal { seed_ratio: None, seed_time: None });
    let mut item = Item::new(0, TorrentId(1), name.into(), PathBuf::from("/films"), goal);
    item.status = Some(status);
    item
}

fn full_disk() -> Trouble {
    let text = "the disk of /films is full; make room".to_owned();
    Trouble { kind: TroubleKind::DiskFull, path: None, text, retries: true }
}

#[test]
fn every_state_in_words() {
    let slow = Status { down_rate: 0, peers: 0, ..status(State::Downloading, 7 * MIB) };
    let one = Status { peers: 1, ..status(State::Downloading, 699 * MIB) };
    for (status, words) in [
        (status(State::Opening, 0), "opening"),
        (status(State::Checking { checked_bytes: 0, check_bytes: 10 }, 0), "checking 0.0 %"),
        (status(State::Checking { checked_bytes: 5, check_bytes: 10 }, 0), "checking 50.0 %"),
        (
            status(State::Downloading, 350 * MIB),
            "50.0 % of 700.0 MiB, 12.5 MiB/s, 4 peers, 28 s left",
        ),
        (one, "99.8 % of 700.0 MiB, 12.5 MiB/s, 1 peer, 1.0 s left"),
        (slow, "1.0 % of 700.0 MiB, 0 B/s, 0 peers, waiting for data"),
        (status(State::Seeding, 700 * MIB), "seeding, 350.0 MiB sent, 3.0 MiB/s, 4 peers, ratio 0.50"),
        (status(State::Paused, 0), "paused"),
        (
            status(State::Trouble { trouble: full_disk() }, 0),
            "waiting: the disk of /films is full; make room",
        ),
        (status(State::Gone, 0), "gone"),
    ] {
        let item = item("film", status);
        assert_eq!(describe(&item, item.status.as_ref().unwrap()), words);
    }
    let mut failed = item("film", status(State::Downloading, 0));
    failed.course = Course::Failed("a \u{1b}[2J\u{202e}name".into());
    let words = describe(&failed, failed.status.as_ref().unwrap());
    assert_eq!(words, "failed: a \u{fffd}[2J\u{fffd}name", "what others wrote steers nothing");
}

#[test]
fn two_bars_on_a_terminal() {
    let paper = Paper::new(100);
    let (host, _, err) = host(bars(&paper));
    let mut screen = Screen::new(&host, false);
    assert!(!screen.is_json());
    let long = "日本語の名前がとても長いファイル.iso";
    let mut items = vec![
        item("film", status(State::Checking { checked_bytes: 1, check_bytes: 4 }, 0)),
        item(long, Status { down_rate: 0, ..status(State::Downloading, 0) }),
    ];
    screen.draw(&items);
    screen.note("film: banned 192.0.2.1:6881: bad data");
    items[0] = item("film", status(State::Downloading, 350 * MIB));
    items[1] = item(long, status(State::Seeding, 700 * MIB));
    screen.draw(&items);
    screen.end();
    assert_eq!(paper.read(), Vec::<String>::new());
    assert_eq!(err.take(), "");
}
