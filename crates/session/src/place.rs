//! Where content lies, and whether two torrents would write to the same files.
//!
//! Owns the judgement about names; what is in the files is nobody's here. Selections are not looked at: what is not
//! wanted today may be tomorrow.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use piecemeal_metainfo::Metainfo;

/// A name that both torrents use for a file, or one for a file and the other for a folder; `None` if they can live
/// side by side, even in one folder. Folders are those of the content, absolute and without links.
pub(crate) fn overlap(one: (&Metainfo, &Path), other: (&Metainfo, &Path)) -> Option<PathBuf> {
    let root = |(meta, dir): (&Metainfo, &Path)| meta.info().name.join_to(dir);
    let (its, others) = (root(one), root(other));
    if !its.starts_with(&others) && !others.starts_with(&its) {
        return None;
    }
    let (its, others) = (paths(one), paths(other));
    in_the_way(&its, &others).or_else(|| in_the_way(&others, &its))
}

/// Beside the content, so that it is on the same file system: the bytes of unwanted files that share a piece with
/// wanted ones. A hidden file that carries the info-hash is nobody else's.
pub(crate) fn part_file(meta: &Metainfo, dir: &Path) -> PathBuf {
    dir.join(format!(".{}.piecemeal-part", meta.wire_hash()))
}

fn paths((meta, dir): (&Metainfo, &Path)) -> BTreeSet<PathBuf> {
    meta.files().iter().filter(|file| !file.pad).map(|file| file.path.join_to(dir)).collect()
}

/// A file of `these` that is one of `those` too, or a folder above one.
fn in_the_way(these: &BTreeSet<PathBuf>, those: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    those.iter().flat_map(|path| path.ancestors()).find(|path| these.contains(*path)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::torrent_of;

    #[test]
    fn only_shared_names_are_in_the_way() {
        let show_1 = torrent_of("show", &["1.mkv", "extras/a"]);
        let show_2 = torrent_of("show", &["2.mkv", "extras/b"]);
        let show_3 = torrent_of("show", &["3.mkv", "extras"]);
        let film = torrent_of("1.mkv", &[]);
        let (here, show) = (Path::new("/d"), Path::new("/d/show"));
        let cases = [
            ((&show_1, here), (&show_1, here), Some("/d/show/1.mkv")),
            ((&show_1, here), (&show_1, Path::new("/e")), None),
            ((&show_1, here), (&show_2, here), None),
            ((&show_1, here), (&show_3, here), Some("/d/show/extras")),
            ((&show_1, here), (&film, show), Some("/d/show/1.mkv")),
            ((&show_2, here), (&film, show), None),
            ((&show_1, here), (&film, here), None),
            ((&film, here), (&film, here), Some("/d/1.mkv")),
        ];
        for (at, ((one, dir), (other, elsewhere), want)) in cases.into_iter().enumerate() {
            let want = want.map(PathBuf::from);
            assert_eq!(overlap((one, dir), (other, elsewhere)), want, "case {at}");
            assert_eq!(overlap((other, elsewhere), (one, dir)), want, "case {at}, the other way round");
        }
    }
}
