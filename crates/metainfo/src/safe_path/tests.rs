use super::*;
use proptest::prelude::*;
use std::path::Component;

fn name(raw: &[u8]) -> String {
    SafePath::from_name(raw, NameRules::Unix).to_string()
}

#[test]
fn names_as_libtorrent_makes_them() {
    let table: &[(&[u8], &str)] = &[
        (b"/a/", "a"),
        (b"..", "_"),
        (b".", "_"),
        (b"/..", "_"),
        (b"//\\", "_"),
        (b"", "_"),
        (b"a...b", "a...b"),
        (b"...", "..."),
        (b"\x08?filename=4", "_?filename=4"),
        (b"filename\xc2", "filename_"),
        (b"filename\xe2\x9f", "filename_"),
        (b"filename\xf0\x9f\x92", "filename_"),
        (b"filename\xc0\xae", "filename_"),
        (b"filename\xe0\x80\xae", "filename_"),
        (b"filename\xf0\x80\x80\xae", "filename_"),
        (b"filename\xf8\x9f\x9f\x9f\x9ffoobar", "filename_foobar"),
        (b"foo\x7fbar", "foo_bar"),
        (b"foo\xc2\x80bar", "foo_bar"),
        (b"foo\xc2\x9fbar", "foo_bar"),
        (b"foo\0bar", "foo_bar"),
        (b"test2/../test3/.././../../test4", "test2..test3.......test4"),
        (b"C:\\windows", "C:windows"),
        (b".\xe2\x80\x8b.", "_"),
        (b"\x1b]52;c", "_]52;c"),
        (b" ", " "),
    ];
    for (raw, expected) in table {
        assert_eq!(name(raw), *expected, "{}", raw.escape_ascii());
    }
    let invisible: &[&[u8]] = &[
        b"\xe2\x80\x8b",
        b"\xe2\x80\x8c",
        b"\xe2\x80\x8d",
        b"\xe2\x80\x8e",
        b"\xe2\x80\xab",
        b"\xe2\x81\xa0",
        b"\xe2\x81\xa2",
        b"\xe2\x81\xa6",
        b"\xe2\x81\xa9",
        b"\xd8\x9c",
        b"\xef\xbb\xbf",
    ];
    for mark in invisible {
        assert_eq!(name(&[b"foo", *mark, b"bar"].concat()), "foobar");
    }
}

#[test]
fn long_names_keep_their_extension() {
    let long = "abcdefghi_".repeat(25);
    assert_eq!(name(long.as_bytes()), long[..240]);
    assert_eq!(name(format!("{long}.test").as_bytes()), format!("{}.test", &long[..240]));
    assert_eq!(name(format!("{}.test", &long[..236]).as_bytes()), format!("{}.test", &long[..236]));
    assert_eq!(name(format!("{long}.not-an-extension").as_bytes()), long[..240]);
    // Two bytes each, the cut at 240 falls between two; shifted by one it would split.
    let accents = "é".repeat(125);
    assert_eq!(name(accents.as_bytes()), "é".repeat(120));
    assert_eq!(name(format!("x{accents}").as_bytes()), format!("x{}", "é".repeat(119)));
    assert_eq!(name(format!("x{accents}.txt").as_bytes()), format!("x{}.txt", "é".repeat(119)));
}

#[test]
fn windows_taboos_only_when_asked() {
    let table = [
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("COM1.txt", "_COM1.txt"),
        ("com0", "_com0"),
        ("COM¹", "_COM¹"),
        ("LPT9.a.b", "_LPT9.a.b"),
        ("NUL .txt", "_NUL .txt"),
        ("CONIN$", "_CONIN$"),
        ("COM10", "COM10"),
        ("COMET", "COMET"),
        ("CONSOLE", "CONSOLE"),
        ("a:b*c?d", "a_b_c_d"),
        ("<\">|", "____"),
        ("trailing. . ", "trailing"),
        ("...", "_"),
        (" ", "_"),
        ("C:", "C_"),
    ];
    for (raw, expected) in table {
        assert_eq!(SafePath::from_name(raw.as_bytes(), NameRules::Windows).as_str(), expected, "{raw:?}");
        assert_eq!(name(raw.as_bytes()), raw);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |n: usize| SafePath::from_components(std::iter::repeat_n(&b"d"[..], n), NameRules::Unix);
    assert!(deep(50).is_ok() && deep(100).is_ok());
    assert_eq!(deep(101), Err(PathError::TooDeep));
    assert_eq!(deep(0), Err(PathError::Empty));
    let long = vec![b'x'; 240];
    assert_eq!(SafePath::from_components([&long[..]; 20], NameRules::Unix), Err(PathError::TooLong));
}

#[test]
fn joins_and_links() {
    let path = SafePath::parse("album/cd1/../song.ogg", NameRules::Unix).unwrap();
    assert_eq!(path.as_str(), "album/cd1/_/song.ogg");
    assert_eq!(path.join_to(Path::new("/srv")), Path::new("/srv/album/cd1/_/song.ogg"));
    assert_eq!(path.with_file_name(b"../x", NameRules::Unix).unwrap().as_str(), "album/cd1/_/..x");
    assert_eq!(path.parent().unwrap().as_str(), "album/cd1/_");
    let of = |text: &str| SafePath::parse(text, NameRules::Unix).unwrap();
    let table = [
        ("t/a", "t/b", "a"),
        ("t/d/a", "t/b", "d/a"),
        ("t/a", "t/d/e/b", "../../a"),
        ("t/x/a", "t/y/b", "../x/a"),
        ("t", "t/b", "../t"),
        ("a", "b", "a"),
    ];
    for (target, link, expected) in table {
        assert_eq!(of(target).as_seen_from(&of(link)), Path::new(expected), "{target} from {link}");
    }
}

fn resolved(names: &[&str]) -> Result<Vec<String>, PathError> {
    let mut paths: Vec<SafePath> =
        names.iter().map(|name| SafePath::parse(name, NameRules::Unix).unwrap()).collect();
    resolve_duplicates(&mut paths.iter_mut().collect::<Vec<_>>())?;
    Ok(paths.iter().map(|path| path.to_string()).collect())
}

#[test]
fn duplicates_are_renamed() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["test/temporary.txt", "test/Temporary.txt", "test/TeMPorArY.txT", "test/a", "test/b"],
            &["test/temporary.txt", "test/Temporary.1.txt", "test/TeMPorArY.2.txT", "test/a", "test/b"],
        ),
        (&["test/a", "test/a/c"], &["test/a.1", "test/a/c"]),
        (&["test/A/c", "test/a"], &["test/A/c", "test/a.1"]),
        (&["x", "x", "x.1", "x.2/y"], &["x", "x.3", "x.1", "x.2/y"]),
        (&[".rc", ".rc"], &[".rc", ".rc.1"]),
        (&["é", "É"], &["é", "É.1"]),
        (&["a/b", "A/c"], &["a/b", "A/c"]),
    ];
    for (names, expected) in table {
        assert_eq!(resolved(names).unwrap(), *expected);
    }
}

#[test]
fn the_budget_for_duplicates_ends() {
    assert!(resolved(&vec!["x"; 501]).is_ok());
    assert_eq!(resolved(&vec!["x"; 502]), Err(PathError::TooManyDuplicates));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn never_leaves_the_root(raw in proptest::collection::vec(hostile(), 1..6), windows in any::<bool>()) {
        let rules = if windows { NameRules::Windows } else { NameRules::Unix };
        let Ok(path) = SafePath::from_components(raw.iter().map(Vec::as_slice), rules) else { return Ok(()) };
        let root = Path::new("/srv/here");
        let joined = path.join_to(root);
        let below = joined.strip_prefix(root).unwrap();
        prop_assert_eq!(below.components().count(), raw.len());
        prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
        for part in path.components() {
            prop_assert!(!part.is_empty() && part.len() <= COMPONENT_MAX_BYTES);
            prop_assert!(!part.contains(['/', '\\']) && !part.chars().any(char::is_control));
        }
        // Names that were made safe once stay as they are.
        prop_assert_eq!(&SafePath::parse(path.as_str(), rules).unwrap(), &path);
    }

    #[test]
    fn renaming_leaves_no_two_alike(names in proptest::collection::vec(
        proptest::collection::vec(proptest::sample::select(&["a", "A", "b", "a.1", "b.txt", "B.txt"][..]), 1..4), 1..40)) {
        let names: Vec<String> = names.iter().map(|parts| parts.join("/")).collect();
        let out = resolved(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let lower: Vec<String> = out.iter().map(|path| path.to_lowercase()).collect();
        for (at, path) in lower.iter().enumerate() {
            for other in &lower[at + 1..] {
                prop_assert!(path != other);
                let inside = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
                prop_assert!(!inside(path, other) && !inside(other, path));
            }
        }
    }
}

const HOSTILE: &[&[u8]] = &[
    b"..",
    b".",
    b"/",
    b"\\",
    b"\0",
    b"C:",
    b"\xc0\xae",
    b"\xe2\x80\x8b",
    b"\xe2\x80\xae",
    b"..\\..",
    b"CON",
    b" ",
    b"~",
    b"%2e",
    b"\xff",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::sample::select(HOSTILE).prop_map(<[u8]>::to_vec),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}
