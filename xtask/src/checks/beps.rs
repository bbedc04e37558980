//! Rule 16: each row of `docs/beps.md` names files that exist.

use std::path::Path;

use super::Finding;

/// The table of wire features.
const TABLE: &str = "docs/beps.md";

/// Rows that name what is not there.
pub fn check(root: &Path) -> Vec<Finding> {
    match std::fs::read_to_string(root.join(TABLE)) {
        Ok(text) => rows(&text, root),
        Err(why) => vec![Finding::new(TABLE, None, format!("{why}; each wire feature has a row there"))],
    }
}

fn rows(text: &str, root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named = 0;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| line.trim_start().starts_with('|')) {
        for path in line.split('`').skip(1).step_by(2).filter_map(path) {
            named += 1;
            if !exists(root, path) {
                findings.push(Finding::new(
                    TABLE,
                    Some(number),
                    format!("{path} does not exist; correct the row"),
                ));
            }
        }
    }
    if named == 0 {
        findings.push(Finding::new(TABLE, None, "no row names a file in backticks; name modules and tests"));
    }
    findings
}

/// The path in a piece of code: `crates/a/src/b.rs::some_test` names the file before `::`.
fn path(code: &str) -> Option<&str> {
    let path = code.split("::").next()?.trim();
    let looks = path.contains('/') || path.ends_with(".rs");
    (looks && !path.contains([' ', '<', '*']) && !path.contains("://")).then_some(path)
}

/// A row may leave `crates/` away, as people do.
fn exists(root: &Path, path: &str) -> bool {
    root.join(path).exists() || root.join("crates").join(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("crates/wire/src")).unwrap();
        std::fs::write(dir.path().join("crates/wire/src/message.rs"), "").unwrap();
        let table = "`a/b.rs` outside\n| 3 | done | `crates/wire/src/message.rs::choke`, `wire/src` | `Fast` |\n\
                     | 5 | done | `crates/wire/src/krpc.rs` |\n";
        let found: Vec<_> = rows(table, dir.path()).iter().map(Finding::to_string).collect();
        assert_eq!(found, ["docs/beps.md:3: crates/wire/src/krpc.rs does not exist; correct the row"]);
    }

    #[test]
    fn a_table_without_paths_or_none_at_all_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(rows("| 3 | done |\n", dir.path()).len(), 1);
        assert_eq!(check(dir.path()).len(), 1);
    }
}
