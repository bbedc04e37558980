//! Rule 9: a file has at most 800 lines, tests apart; a function at most 60.

use super::Finding;
use super::source::{Source, item_end, word_at};

/// Above this a file does more than one thing.
const FILE_LINES: usize = 800;
/// A function that does not fit on a screen is not read as one.
const FUNCTION_LINES: usize = 60;

/// Files and functions that are too long.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(|source| file(source).into_iter().chain(functions(source))).collect()
}

fn file(source: &Source) -> Option<Finding> {
    let lines = source.product_lines().count();
    let text = || format!("{lines} lines, at most {FILE_LINES}; split it by concern");
    (lines > FILE_LINES).then(|| Finding::new(&source.path, None, text()))
}

fn functions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let Some((column, name)) = function(&line.code) else { continue };
        let lines = item_end(&source.lines, index, column) - index + 1;
        if lines > FUNCTION_LINES {
            let text = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES}; give its parts names");
            findings.push(Finding::new(&source.path, Some(index + 1), text));
        }
    }
    findings
}

/// Where a function begins on this line, and its name. `fn(u8)` is a type, not a function.
fn function(code: &str) -> Option<(usize, &str)> {
    let column = word_at(code, "fn")?;
    let name = code[column + 2..].trim_start();
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(name.len());
    (end > 0).then(|| (column, &name[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&[Source::parse(path, text)]).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let body = "struct A;\n".repeat(FILE_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(50));
        assert!(found("crates/x/src/a.rs", &format!("{body}{tests}")).is_empty());
        let found_ = found("crates/x/src/a.rs", &format!("{body}// one more\n"));
        assert_eq!(found_.len(), 1);
        assert!(found_[0].starts_with("crates/x/src/a.rs: 801 lines"), "{found_:?}");
        assert!(found("crates/x/tests/a.rs", &body.repeat(2)).is_empty());
    }

    #[test]
    fn a_long_function_is_found_wherever_it_is() {
        let long = |head: &str| format!("{head} {{\n{}}}\n", "    x(\"}\");\n".repeat(FUNCTION_LINES - 1));
        for head in ["fn a()", "    pub async fn a<T>(x: [u8; { 3 }]) -> T\nwhere T: Fn() -> u8,"] {
            assert_eq!(found("crates/x/src/a.rs", &long(head)).len(), 1, "{head}");
        }
        assert_eq!(found("crates/x/tests/a.rs", &long("fn a()")).len(), 1);
    }

    #[test]
    fn what_fits_and_what_is_no_function_is_left_alone() {
        let fits = format!("fn a() {{\n{}}}\n", "    x();\n".repeat(FUNCTION_LINES - 2));
        assert!(found("crates/x/src/a.rs", &fits.repeat(3)).is_empty());
        let trait_ = format!("trait A {{\n{}}}\n", "    fn a(&self);\n".repeat(FUNCTION_LINES * 2));
        assert!(found("crates/x/src/a.rs", &trait_).is_empty());
        let pointer =
            format!("struct A {{\n    a: fn(u8),\n{}}}\n", "    b: u8,\n".repeat(FUNCTION_LINES * 2));
        assert!(found("crates/x/src/a.rs", &pointer).is_empty());
    }
}
