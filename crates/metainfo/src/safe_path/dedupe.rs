//! No two files of a torrent may share a place on disk.
//!
//! Owns the renaming of files whose names fall together: equal ones, ones that differ only in case (one file on
//! many systems), and a file with the name of a directory. Directories that differ only in case may fall together
//! without harm.

use super::{PathError, SafePath};
use std::collections::BTreeSet;

/// Numbers tried for one name; a torrent that needs more is not an accident.
const TRIES: u32 = 500;

/// Renames what collides (`name.ext` becomes `name.1.ext`), later files first giving way to earlier ones, and
/// returns the places of those renamed, ascending. n log n in the number of paths.
pub(crate) fn resolve_duplicates(paths: &mut [&mut SafePath]) -> Result<Vec<usize>, PathError> {
    let mut sorted: Vec<(String, usize)> =
        paths.iter().enumerate().map(|(at, path)| (fold(path), at)).collect();
    sorted.sort_unstable();
    let mut given = BTreeSet::new();
    let mut renamed = Vec::new();
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let keepers = usize::from(!has_children(&sorted, &group[0].0));
        let mut tries = 1..=TRIES;
        for &(_, at) in group.iter().skip(keepers) {
            let free = tries.find_map(|number| {
                let path = numbered(paths[at], number);
                let key = fold(&path);
                let taken = is_taken(&sorted, &key) || has_children(&sorted, &key) || !given.insert(key);
                (!taken).then_some(path)
            });
            *paths[at] = free.ok_or(PathError::TooManyDuplicates)?;
            renamed.push(at);
        }
    }
    renamed.sort_unstable();
    Ok(renamed)
}

/// Equal for paths that some file system takes for one; NUL between components, so that what is inside a
/// directory sorts right behind its name.
fn fold(path: &SafePath) -> String {
    let lower = path.0.chars().flat_map(char::to_lowercase);
    lower.map(|c| if c == '/' { '\0' } else { c }).collect()
}

fn is_taken(sorted: &[(String, usize)], key: &str) -> bool {
    sorted.binary_search_by(|(other, _)| other.as_str().cmp(key)).is_ok()
}

fn has_children(sorted: &[(String, usize)], key: &str) -> bool {
    let behind = sorted.partition_point(|(other, _)| other.as_str() <= key);
    let rest = sorted.get(behind).and_then(|(other, _)| other.strip_prefix(key));
    rest.is_some_and(|rest| rest.starts_with('\0'))
}

fn numbered(path: &SafePath, number: u32) -> SafePath {
    let name = path.file_name();
    let parent = &path.0[..path.0.len() - name.len()];
    // A leading dot hides a file, it does not begin an extension.
    let dot = name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
    SafePath(format!("{parent}{}.{number}{}", &name[..dot], &name[dot..]).into())
}
