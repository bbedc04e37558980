//! Rust source as the checks see it: code without its comments and texts, line by line, and which lines are tests.
//!
//! This is no parser. It knows comments, texts, braces and `#[cfg(test)]`, which is all that the rules speak of; so it
//! also reads code that does not compile yet.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One line of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// Its code, with texts and characters emptied.
    pub code: String,
    /// What its comments say.
    pub comment: String,
    /// It belongs to an item under `#[cfg(test)]`.
    pub test: bool,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    /// Its lines; the first is number 1 for people.
    pub lines: Vec<Line>,
    /// All of it is a test.
    pub test: bool,
}

impl Source {
    /// Reads the text of a file.
    pub fn parse(path: &str, text: &str) -> Source {
        let mut lines = split(text);
        mark_tests(&mut lines);
        let test = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        Source { path: path.to_owned(), lines, test }
    }

    /// The crate it belongs to: the folder below `crates/`, or `xtask`.
    pub fn house(&self) -> &str {
        let mut parts = self.path.split('/');
        match parts.next() {
            Some("crates") => parts.next().unwrap_or_default(),
            Some(first) => first,
            None => "",
        }
    }

    /// Lines that are no tests, with their numbers.
    pub fn product_lines(&self) -> impl Iterator<Item = (usize, &Line)> {
        (1..).zip(&self.lines).filter(|(_, line)| !line.test && !self.test)
    }
}

/// Every Rust file of the workspace, those under `#[cfg(test)] mod name;` marked as tests.
pub fn workspace(root: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in ["crates", "xtask", "fuzz"] {
        collect(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        sources.push(Source::parse(&name, &text));
    }
    spread_tests(&mut sources);
    Ok(sources)
}

/// Where `word` stands in `code` as a whole word.
pub fn word_at(code: &str, word: &str) -> Option<usize> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next()))
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// A file declared by `#[cfg(test)] mod name;` is a test, and so is what lies below it.
fn spread_tests(sources: &mut [Source]) {
    let mut tests = BTreeSet::new();
    for source in sources.iter() {
        let (dir, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let below = match file {
            "lib.rs" | "main.rs" | "mod.rs" => dir.to_owned(),
            _ => format!("{dir}/{}", file.trim_end_matches(".rs")),
        };
        for line in source.lines.iter().filter(|line| line.test) {
            let Some(at) = word_at(&line.code, "mod") else { continue };
            if let Some(name) = line.code[at + 3..].trim().strip_suffix(';') {
                tests.insert(format!("{below}/{}", name.trim()));
            }
        }
    }
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        source.test |= tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/")));
    }
}

/// Where the reader is.
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

fn split(text: &str) -> Vec<Line> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        if chars[at] == '\n' {
            if matches!(state, State::LineComment) {
                state = State::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let line = lines.last_mut().expect("there is always a line");
        at += step(&chars[at..], &mut state, line);
    }
    if text.ends_with('\n') {
        lines.pop();
    }
    lines
}

/// Takes in a few characters, of which the first is no line end; gives how many.
fn step(rest: &[char], state: &mut State, line: &mut Line) -> usize {
    let next = rest.get(1).copied();
    match state {
        State::Code => return code_step(rest, state, line),
        State::LineComment => line.comment.push(rest[0]),
        State::BlockComment(depth) => match (rest[0], next) {
            ('*', Some('/')) => {
                *depth -= 1;
                if *depth == 0 {
                    *state = State::Code;
                }
                return 2;
            }
            ('/', Some('*')) => {
                *depth += 1;
                return 2;
            }
            (c, _) => line.comment.push(c),
        },
        // A line end behind a backslash stays, so that lines keep their numbers.
        State::Text if rest[0] == '\\' && next.is_some_and(|c| c != '\n') => return 2,
        State::Text if rest[0] == '"' => {
            line.code.push('"');
            *state = State::Code;
        }
        State::RawText(hashes) => {
            if rest[0] == '"' && rest.iter().skip(1).take(*hashes).filter(|c| **c == '#').count() == *hashes {
                let length = 1 + *hashes;
                line.code.push('"');
                *state = State::Code;
                return length;
            }
        }
        State::Text => {}
    }
    1
}

fn code_step(rest: &[char], state: &mut State, line: &mut Line) -> usize {
    let inside_word = line.code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    match (rest[0], rest.get(1).copied()) {
        ('/', Some('/')) => {
            *state = State::LineComment;
            return 2;
        }
        ('/', Some('*')) => {
            *state = State::BlockComment(1);
            return 2;
        }
        ('"', _) => {
            line.code.push('"');
            *state = State::Text;
        }
        ('r', Some('"' | '#')) if !inside_word || line.code.ends_with('b') => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            line.code.push('r');
            if rest.get(1 + hashes) == Some(&'"') {
                line.code.push('"');
                *state = State::RawText(hashes);
                return 2 + hashes;
            }
        }
        ('\'', _) => {
            if let Some(length) = char_literal(rest) {
                line.code.push_str("' '");
                return length;
            }
            line.code.push('\'');
        }
        (c, _) => line.code.push(c),
    }
    1
}

/// The length of the character that begins here; `None` when it is a lifetime.
fn char_literal(rest: &[char]) -> Option<usize> {
    match (rest.get(1)?, rest.get(2)?) {
        ('\\', _) => {
            let end = rest.iter().skip(3).position(|c| *c == '\'')?;
            Some(end + 4)
        }
        (_, '\'') => Some(3),
        _ => None,
    }
}

/// Marks each item under `#[cfg(test)]`, from the attribute to its last brace or semicolon.
fn mark_tests(lines: &mut [Line]) {
    let mut at = 0;
    while at < lines.len() {
        let code = &lines[at].code;
        let start = ["#[cfg(test)]", "#[cfg(all(test"].iter().find_map(|form| code.find(form));
        let Some(start) = start else {
            at += 1;
            continue;
        };
        let end = item_end(lines, at, start);
        lines[at..=end].iter_mut().for_each(|line| line.test = true);
        at = end + 1;
    }
}

/// The last line of the item that begins at `column` of line `from`, attributes included.
pub fn item_end(lines: &[Line], from: usize, column: usize) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (index, line) in lines.iter().enumerate().skip(from) {
        let code = if index == from { &line.code[column..] } else { &line.code };
        for c in code.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 && brackets == 0 {
                        return index;
                    }
                }
                ';' if braces == 0 && brackets == 0 => return index,
                _ => {}
            }
        }
    }
    lines.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        split(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        assert_eq!(code("a // b\n/* c /* d */ e */ f\n"), ["a ", " f"]);
        assert_eq!(code("x(\"unwrap() // {\") // y"), ["x(\"\") "]);
        assert_eq!(code("r#\"a \" { \"# }"), ["r\"\" }"]);
        assert_eq!(code("br\"{\" b\"\\\"{\""), ["br\"\" b\"\""]);
        assert_eq!(code("\"a\nb\" c"), ["\"", "\" c"]);
        assert_eq!(code("'{' '\\'' '\\u{7b}' <'a> b'x'"), ["' ' ' ' ' ' <'a> b' '"]);
        assert_eq!(code("\"a\\\n  b\" c"), ["\"", "\" c"]);
        assert_eq!(split("f(); // why: it is so")[0].comment, " why: it is so");
    }

    #[test]
    fn words_are_whole() {
        assert!(word_at("async_broadcast::x", "async").is_none());
        assert!(word_at("unsafe_code", "unsafe").is_none());
        assert_eq!(word_at("pub async fn", "async"), Some(4));
    }

    #[test]
    fn inline_tests_end_with_their_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nuse x;\nfn d() {}\n";
        let source = Source::parse("crates/x/src/lib.rs", text);
        let kept: Vec<_> = source.product_lines().map(|(number, _)| number).collect();
        assert_eq!(kept, [1, 6, 9]);
    }

    #[test]
    fn a_file_under_cfg_test_is_a_test() {
        let mut sources = vec![
            Source::parse("crates/x/src/lib.rs", "#[cfg(test)]\nmod kit;\nmod real;\n"),
            Source::parse("crates/x/src/kit.rs", ""),
            Source::parse("crates/x/src/kit/deep.rs", ""),
            Source::parse("crates/x/src/real.rs", "#[cfg(test)]\nmod model;\n"),
            Source::parse("crates/x/src/real/model.rs", ""),
            Source::parse("crates/x/tests/a.rs", ""),
        ];
        spread_tests(&mut sources);
        let tests: Vec<_> = sources.iter().map(|source| source.test).collect();
        assert_eq!(tests, [false, true, true, false, true, true]);
    }
}
