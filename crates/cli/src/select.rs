//! Which files a user means: patterns, numbers and ranges, resolved to file indices.

use globset::{Glob, GlobMatcher};
use piecemeal_api::{FileIndex, Selection};
use piecemeal_metainfo::{FileEntry, Metainfo};

use crate::fail::Failure;
use crate::text;

/// The files that `words` select of a torrent; all, when there are none. A word that matches no file is refused, so
/// that a misspelt pattern does not quietly fetch the wrong thing.
pub fn resolve(words: &[String], metainfo: &Metainfo) -> Result<Selection, Failure> {
    if words.is_empty() {
        return Ok(Selection::All);
    }
    let mut chosen = vec![false; metainfo.files().len()];
    for word in words {
        let pattern = Pattern::parse(word)?;
        let mut any = false;
        for (index, file) in metainfo.files().iter().enumerate() {
            if !file.pad && pattern.matches(index, file, metainfo.info().single_file) {
                chosen[index] = true;
                any = true;
            }
        }
        if !any {
            let name = text::safe(metainfo.info().name.as_str());
            let wrong = format_args!("`{word}` matches no file of {name}");
            return Err(Failure::failed(
                "--select",
                wrong,
                "see its files and their numbers with `piecemeal show`",
            ));
        }
    }
    let files =
        (0..).map(FileIndex).zip(chosen).filter(|(_, chosen)| *chosen).map(|(file, _)| file).collect();
    Ok(Selection::Only { files })
}

/// Whether the words can be understood, before it is known what there is to select from.
pub fn check(words: &[String]) -> Result<(), Failure> {
    words.iter().try_for_each(|word| Pattern::parse(word).map(drop))
}

enum Pattern {
    /// First and last index.
    Range(usize, usize),
    /// Against the path below the torrent's directory, against the whole path, and against the last name.
    Glob(Box<GlobMatcher>),
}

impl Pattern {
    fn parse(word: &str) -> Result<Pattern, Failure> {
        if let Ok(index) = word.parse() {
            return Ok(Pattern::Range(index, index));
        }
        let ends =
            word.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        if let Some((first, last)) = ends {
            return Ok(Pattern::Range(first, last));
        }
        match Glob::new(word) {
            Ok(glob) => Ok(Pattern::Glob(Box::new(glob.compile_matcher()))),
            Err(why) => Err(Failure::usage(
                "--select",
                format_args!("`{word}` is no pattern: {}", why.kind()),
                "write it like '*.mkv' or 'extras/**'",
            )),
        }
    }

    fn matches(&self, index: usize, file: &FileEntry, single: bool) -> bool {
        match self {
            Pattern::Range(first, last) => (*first..=*last).contains(&index),
            Pattern::Glob(glob) => {
                let whole = file.path.as_str();
                let below =
                    if single { whole } else { whole.split_once('/').map_or(whole, |(_, below)| below) };
                glob.is_match(below) || glob.is_match(whole) || glob.is_match(file.path.file_name())
            }
        }
    }
}
