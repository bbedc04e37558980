//! What stands on the screen, as a user reads it.

use crate::test_kit::Ink;
use std::path::PathBuf;
use std::sync::Arc;

use indicatif::TermLike;
use piecemeal_api::{InfoHash, Limits, Phase, Totals, Trouble, TroubleKind};
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
        (status(State::Downloading, 350 * MIB), "50.0 % of 700.0 MiB, 12.5 MiB/s, 4 peers, 28 s left"),
        (one, "99.8 % of 700.0 MiB, 12.5 MiB/s, 1 peer, 1 s left"),
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
        assert_eq!(describe(&item), words);
    }
    let mut failed = item("film", status(State::Downloading, 0));
    failed.course = Course::Failed("a \u{1b}[2J\u{202e}name".into());
    let words = describe(&failed);
    assert_eq!(words, "failed: a \u{fffd}[2J\u{fffd}name", "what others wrote steers nothing");
}

/// Two bars, drawn twice, with a line between.
fn two_bars(columns: u16) -> Vec<String> {
    let paper = Paper::new(columns);
    let (host, _, err) = host(bars(&paper));
    let mut screen = Screen::new(&host, false);
    assert!(!screen.is_json());
    let long = "a name that is much longer than a name should be.iso";
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
    assert_eq!(err.take(), "");
    paper.read()
}

#[test]
fn bars_on_terminals_of_many_widths() {
    let note = "film: banned 192.0.2.1:6881: bad data";
    let hundred = [
        note,
        "film             [==============>              ] 50.0 % of 700.0 MiB, 12.5 MiB/s, 4 peers, 28 s left",
        "a name that is … [=========================] seeding, 350.0 MiB sent, 3.0 MiB/s, 4 peers, ratio 0.50",
    ];
    assert_eq!(two_bars(100), hundred);
    let eighty = [
        note,
        "film             [====>    ] 50.0 % of 700.0 MiB, 12.5 MiB/s, 4 peers, 28 s left",
        "a name that is … [=====] seeding, 350.0 MiB sent, 3.0 MiB/s, 4 peers, ratio 0.50",
    ];
    assert_eq!(two_bars(80), eighty);
    // Too narrow for a bar; the words stand whole, and drawing again leaves nothing behind.
    let forty = [
        note,
        "film             [] 50.0 % of 700.0 MiB,",
        " 12.5 MiB/s, 4 peers, 28 s left",
        "a name that is … [] seeding, 350.0 MiB s",
        "ent, 3.0 MiB/s, 4 peers, ratio 0.50",
    ];
    assert_eq!(two_bars(40), forty);
}

#[test]
fn lines_where_there_is_no_terminal() {
    let (host, _, err) = host(Bars::Off);
    let mut screen = Screen::new(&host, false);
    let draw = |screen: &mut Screen, state: State, have| screen.draw(&[item("film", status(state, have))]);
    draw(&mut screen, State::Opening, 0);
    draw(&mut screen, State::Opening, 0);
    draw(&mut screen, State::Checking { checked_bytes: 0, check_bytes: 4 }, 0);
    draw(&mut screen, State::Checking { checked_bytes: 0, check_bytes: 4 }, 0);
    draw(&mut screen, State::Downloading, 0);
    screen.note("film: going on");
    // Movement within a second is no news.
    draw(&mut screen, State::Downloading, 350 * MIB);
    draw(&mut screen, State::Seeding, 700 * MIB);
    let said = err.take();
    let golden = [
        "film: opening",
        "film: checking 0.0 %",
        "film: 0.0 % of 700.0 MiB, 12.5 MiB/s, 4 peers, 56 s left",
        "film: going on",
        "film: seeding, 350.0 MiB sent, 3.0 MiB/s, 4 peers, ratio 0.50",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), golden);
    // Another loop over the same torrents begins with a line of each.
    screen.end();
    draw(&mut screen, State::Seeding, 700 * MIB);
    assert_eq!(err.take().lines().count(), 1);
    // Of what was not heard of nothing is said.
    let goal = Goal::Checked;
    screen.draw(&[Item::new(0, TorrentId(2), "new".into(), PathBuf::new(), goal)]);
    assert_eq!(err.take(), "");
}

#[test]
fn who_draws_says_when_to_draw_again() {
    let downloading = |have| [item("film", status(State::Downloading, have))];
    let (plain, _, err) = host(Bars::Off);
    let mut screen = Screen::new(&plain, false);
    assert_eq!(screen.draw(&downloading(0)), None, "said, and nothing is left to say");
    // Less than a tenth: said when it is time, and not drawn for it before.
    let due = screen.draw(&downloading(MIB)).unwrap();
    let early = LINE_EVERY - Duration::from_secs(1);
    assert!(due <= Instant::now() + LINE_EVERY && due >= screen.started + early);
    assert_eq!(screen.draw(&downloading(MIB)), Some(due), "however often it is drawn");
    assert!(screen.draw(&downloading(70 * MIB)).unwrap() < due, "a tenth is said sooner");
    assert_eq!(screen.draw(&downloading(0)), None, "as it was");
    assert_eq!(err.take().lines().count(), 1);

    let paper = Paper::new(80);
    let (terminal, _, _) = host(bars(&paper));
    let mut screen = Screen::new(&terminal, false);
    assert!(screen.draw(&downloading(0)).is_some(), "indicatif may have left it out");
    assert_eq!(screen.draw(&downloading(0)), None, "drawn once more, and that is enough");
    let two = [MIB, 0].map(|have| item("film", status(State::Downloading, have)));
    assert!(screen.draw(&two).is_some() && screen.draw(&two).is_none());

    let mut json = Screen::new(&terminal, true);
    assert_eq!(json.draw(&downloading(0)), None);
}

#[test]
fn when_a_line_is_worth_reading() {
    let s = Duration::from_secs;
    let down = |mib| status(State::Downloading, mib * MIB);
    let up = |mib| {
        let totals = Totals { uploaded: mib * MIB, ..Totals::default() };
        Status { totals, ..status(State::Seeding, 700 * MIB) }
    };
    let check = |bytes| status(State::Checking { checked_bytes: bytes, check_bytes: 100 }, 0);
    let worth_at = |is: Said, last: Option<&Said>| is.due(last).is_some_and(|due| due <= is.at);
    assert!(worth_at(Said::of(s(0), &down(0)), None), "the first");
    for (before, after, at, worth) in [
        (down(0), down(0), s(3600), false),
        (down(0), down(1), LINE_EVERY - Duration::from_millis(1), false),
        (down(0), down(1), LINE_EVERY, true),
        (down(0), down(70), LINE_LEAST - Duration::from_millis(1), false),
        (down(0), down(70), LINE_LEAST, true),
        (down(0), status(State::Paused, 0), s(0), true),
        (check(0), check(10), LINE_LEAST, true),
        (check(0), check(9), LINE_LEAST, false),
        (check(0), check(9), LINE_EVERY, true),
        (up(1), up(2), LINE_EVERY, false),
        (up(1), up(2), SEEDING_LINE_EVERY, true),
        (up(1), up(1), s(1 << 20), false),
    ] {
        let said = Said::of(s(0), &before);
        assert_eq!(worth_at(Said::of(at, &after), Some(&said)), worth, "{:?} after {at:?}", after.state);
    }
    let link = |at, peers| Said::seeking(at, peers);
    for (peers, at, worth) in
        [(0, s(3600), false), (1, LINE_LEAST, true), (1, LINE_LEAST - Duration::from_millis(1), false)]
    {
        assert_eq!(worth_at(link(at, peers), Some(&link(s(0), 0))), worth, "{peers} after {at:?}");
    }
    assert!(worth_at(Said::of(s(0), &down(0)), Some(&link(s(0), 3))), "now it is known what it is");
}

#[test]
fn json_is_on_stdout_alone() {
    let paper = Paper::new(80);
    let (mut host, out, err) = host(bars(&paper));
    let mut screen = Screen::new(&host, true);
    assert!(screen.is_json());
    screen.note("not for machines");
    screen.draw(&[item("film", status(State::Downloading, 0))]);
    screen.event(&mut host, &Event::Gone { torrent: TorrentId(1) }).unwrap();
    screen.json(&mut host, &serde_json::json!({"result": "done"})).unwrap();
    screen.end();
    let lines: Vec<serde_json::Value> =
        out.take().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line["time_s"].as_f64().is_some_and(|s| s < 60.0)));
    assert_eq!((&lines[0]["event"], &lines[1]["result"]), (&"gone".into(), &"done".into()));
    assert_eq!((err.take(), paper.read().len()), (String::new(), 0));
    // Without JSON nothing of it is on stdout.
    Screen::new(&host, false).json(&mut host, &1).unwrap();
    assert_eq!(out.take(), "");
}

#[test]
fn a_tool_at_work() {
    let paper = Paper::new(80);
    let (on_terminal, _, _) = host(bars(&paper));
    let screen = WorkScreen::new(&on_terminal, "hashing film");
    screen.report(Progress { phase: Phase::Hashing, done: 175 * MIB, total: 700 * MIB });
    assert_eq!(
        paper.read(),
        ["hashing film     [=======>                      ] 25.0 %, 175.0 MiB of 700.0 MiB"]
    );
    screen.end();
    assert_eq!(paper.read(), Vec::<String>::new());

    let (elsewhere, out, err) = host(Bars::Off);
    let screen = WorkScreen::new(&elsewhere, "hashing film");
    screen.report(Progress { phase: Phase::Hashing, done: 1, total: 2 });
    assert_eq!(
        (out.take(), err.take()),
        (String::new(), String::new()),
        "not more often than every few seconds"
    );
    *screen.last.lock().unwrap() = Instant::now() - LINE_EVERY;
    screen.report(Progress { phase: Phase::Hashing, done: 3 * MIB, total: 0 });
    assert_eq!(err.take(), "hashing film: 3.0 MiB\n");
}
