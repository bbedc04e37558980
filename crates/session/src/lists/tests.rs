use std::cell::{Cell, RefCell};

use super::read::tests::gzip;
use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    /// Writes a file as if at that second.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>, second: u64) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::options().write(true).open(&path).unwrap().set_modified(when).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn ranges(lists: &Lists) -> Vec<String> {
    lists.filter().unwrap().ranges().map(|range| range.to_string()).collect()
}

fn nothing(url: &str, _: &Validators) -> Result<Got, String> {
    panic!("{url} is not to be fetched");
}

#[test]
fn files_are_read_at_once_and_again_when_they_change() {
    let dir = Dir::new();
    let start = Instant::now();
    let places = [dir.write("a", "1.2.3.4\n", 10), dir.write("b.gz", gzip(b"x:5.5.5.0-5.5.5.255\n"), 10)];
    let mut lists = Lists::open(&places, None, start).unwrap();
    assert_eq!(ranges(&lists), ["1.2.3.4", "5.5.5.0/24"]);
    assert_eq!(lists.next_due(), Some(start + LOOK_EVERY));
    let minute = |minute: u32| start + LOOK_EVERY * minute;
    assert_eq!(lists.refresh(minute(1), &nothing), None);
    dir.write("a", "1.2.3.6\noops\n", 20);
    // Not before its time.
    assert_eq!(lists.refresh(minute(1) + Duration::from_secs(1), &nothing), None);
    let odd = format!("{}: 1 line of 2 is no range, line 2: oops", places[0]);
    assert_eq!(lists.refresh(minute(2), &nothing), Some(vec![odd.clone()]));
    assert_eq!(ranges(&lists), ["1.2.3.6", "5.5.5.0/24"]);
    assert_eq!((lists.status()[0].warning.as_ref(), lists.status()[1].warning.as_ref()), (Some(&odd), None));
    // What is no list any more, or is gone, leaves what it said; and is told once.
    dir.write("b.gz", "<html>\n", 20);
    let said = lists.refresh(minute(3), &nothing).unwrap();
    assert!(
        said.len() == 1 && said[0].ends_with("line 1 is `<html>`; what it said before still holds"),
        "{said:?}"
    );
    assert_eq!(lists.refresh(minute(4), &nothing), None);
    fs::remove_file(&places[1]).unwrap();
    let said = lists.refresh(minute(5), &nothing).unwrap();
    assert_eq!(said, [format!("{}: not found; what it said before still holds", places[1])]);
    assert_eq!(lists.refresh(minute(6), &nothing), None);
    assert_eq!(ranges(&lists), ["1.2.3.6", "5.5.5.0/24"]);
    dir.write("b.gz", gzip(b"6.6.6.6\n"), 30);
    assert_eq!(lists.refresh(minute(7), &nothing), Some(vec![]));
    assert_eq!(
        (ranges(&lists), lists.status()[1].warning.clone()),
        (vec!["1.2.3.6".into(), "6.6.6.6".into()], None)
    );
}

#[test]
fn a_file_that_is_no_list_keeps_the_session_from_starting() {
    let dir = Dir::new();
    let folder = dir.0.path().to_str().unwrap().to_owned();
    let rows = [
        (folder.clone() + "/none", "/none: not found; "),
        (folder, ": it is a directory; "),
        (dir.write("empty", "", 1), "/empty: there is no range of IP addresses in it; "),
        (dir.write("page", "<p>\n", 1), "/page: it is no list of IP ranges: line 1 is `<p>`; "),
    ];
    for (place, part) in rows {
        let why = Lists::open(&[place], None, Instant::now()).err().unwrap().to_string();
        assert!(why.contains(part) && why.ends_with("plain or gzip") && !why.contains('\n'), "{why}");
    }
}

#[test]
fn urls_are_fetched_once_a_day_and_outlast_a_restart() {
    let dir = Dir::new();
    let (url, start) = ("http://lists.example/a.gz".to_owned(), Instant::now());
    let open = |now| Lists::open(std::slice::from_ref(&url), Some(dir.0.path()), now).unwrap();
    let mut lists = open(start);
    assert!(ranges(&lists).is_empty() && lists.status()[0].waiting);
    let (fetched, answer) = (Cell::new(0), RefCell::new(Err("the server answered 503".to_owned())));
    let fetch = |asked: &str, _: &Validators| {
        assert_eq!(asked, url);
        fetched.set(fetched.get() + 1);
        answer.borrow().clone().map(|body| Got::Body(body, Validators::default()))
    };
    let said = lists.refresh(start, &fetch).unwrap();
    assert_eq!(said, [format!("{url}: the server answered 503; trying again later")]);
    assert_eq!(lists.next_due(), Some(start + AGAIN_SOON));
    *answer.borrow_mut() = Ok(gzip(b"1.2.3.4\n"));
    let now = start + AGAIN_SOON;
    assert_eq!(lists.refresh(now, &fetch), Some(vec![]));
    assert_eq!((ranges(&lists), lists.next_due()), (vec!["1.2.3.4".into()], Some(now + FETCH_EVERY)));
    assert!(!lists.status()[0].waiting && lists.status()[0].warning.is_none());
    // What is no list does not take the place of one.
    *answer.borrow_mut() = Ok(b"<html>".to_vec());
    let now = now + FETCH_EVERY;
    let said = lists.refresh(now, &fetch).unwrap();
    assert!(said[0].ends_with("what it said before still holds"), "{said:?}");
    assert_eq!((ranges(&lists), lists.next_due()), (vec!["1.2.3.4".into()], Some(now + AGAIN_AFTER)));
    // The next run has it at once, and fetches it when a day is over.
    let begin = Instant::now();
    let again = open(begin);
    assert_eq!(ranges(&again), ["1.2.3.4"]);
    let due = again.next_due().unwrap().duration_since(begin);
    assert!(due <= FETCH_EVERY && due > FETCH_EVERY - Duration::from_secs(600), "{due:?}");
    // A copy that is old, or damaged.
    let copy = fs::read_dir(dir.0.path().join(FOLDER)).unwrap().next().unwrap().unwrap().path();
    File::options().write(true).open(&copy).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!((ranges(&open(begin)).len(), open(begin).next_due()), (1, Some(begin)));
    fs::write(&copy, "rubbish").unwrap();
    assert_eq!((ranges(&open(begin)).len(), open(begin).next_due()), (0, Some(begin)));
    assert_eq!(fetched.get(), 3);
}

#[test]
fn what_the_server_says_is_unchanged_is_not_fetched_and_outlasts_a_restart() {
    let dir = Dir::new();
    let (url, start) = ("http://lists.example/a".to_owned(), Instant::now());
    let open = |now| Lists::open(std::slice::from_ref(&url), Some(dir.0.path()), now).unwrap();
    let tagged = |tag: &str| Validators {
        url_hash: [7; 20],
        etag: Some(tag.to_owned()),
        last_modified: Some("yesterday".to_owned()),
    };
    let (said, answer) = (RefCell::new(Validators::default()), RefCell::new(Err("no".to_owned())));
    let fetch = |_: &str, known: &Validators| {
        said.replace(known.clone());
        answer.borrow().clone()
    };
    let mut lists = open(start);
    *answer.borrow_mut() = Ok(Got::Body(b"1.2.3.4\noops\n".to_vec(), tagged("\"1\"")));
    let odd = format!("{url}: 1 line of 2 is no range, line 2: oops");
    assert_eq!(lists.refresh(start, &fetch), Some(vec![odd.clone()]));
    assert_eq!(*said.borrow(), Validators::default(), "nothing was known");

    *answer.borrow_mut() = Ok(Got::Unchanged);
    let now = start + FETCH_EVERY;
    assert_eq!((lists.refresh(now, &fetch), lists.next_due()), (None, Some(now + FETCH_EVERY)));
    assert_eq!((ranges(&lists), said.borrow().clone()), (vec!["1.2.3.4".into()], tagged("\"1\"")));
    // A fault in between is over, and what is known is still known; what is no list is not what is known.
    for fault in [Err("the server answered 503".to_owned()), Ok(Got::Body(b"<p>".to_vec(), tagged("\"2\"")))]
    {
        *answer.borrow_mut() = fault;
        let now = lists.next_due().unwrap();
        assert!(lists.refresh(now, &fetch).unwrap()[0].ends_with("what it said before still holds"));
        *answer.borrow_mut() = Ok(Got::Unchanged);
        let now = lists.next_due().unwrap();
        assert_eq!(lists.refresh(now, &fetch), Some(vec![odd.clone()]), "the warning is another");
        assert_eq!((&*said.borrow(), lists.status()[0].warning.as_ref()), (&tagged("\"1\""), Some(&odd)));
    }

    // The next run knows it too, with the list, and says so a day after it was asked last.
    let copy = fs::read_dir(dir.0.path().join(FOLDER)).unwrap().next().unwrap().unwrap().path();
    let kept = fs::read(&copy).unwrap();
    assert!(!kept.windows(5).any(|part| part == b"lists"), "there may be a password in the URL");
    let long_ago = |bytes: &[u8]| {
        fs::write(&copy, bytes).unwrap();
        File::options().write(true).open(&copy).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    long_ago(&kept);
    let begin = Instant::now();
    let mut again = open(begin);
    assert_eq!((ranges(&again), again.next_due()), (vec!["1.2.3.4".into()], Some(begin)));
    assert_eq!(again.refresh(begin, &fetch), None);
    assert_eq!(*said.borrow(), tagged("\"1\""));
    assert!(open(begin).next_due() > Some(begin + FETCH_EVERY / 2), "it was asked just now");
    // A copy that lost a part of it knows nothing; one of the list alone is a list.
    for (bytes, ranges) in [(&kept[..20], 0), (&kept[..kept.len() - 13], 0), (b"1.2.3.4\n", 1)] {
        long_ago(bytes);
        let mut one = open(begin);
        assert_eq!(self::ranges(&one).len(), ranges);
        one.refresh(begin, &fetch);
        assert_eq!(*said.borrow(), Validators::default());
    }
}

#[test]
fn what_is_a_url() {
    for (place, expected) in
        [("http://a/b", true), ("HTTPS://a", true), ("ftp://a", false), ("/http/x", false), ("é", false)]
    {
        assert_eq!(is_url(place), expected, "{place}");
    }
}
