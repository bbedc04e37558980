//! Torrents and facts for tests.

use std::sync::Arc;

use piecemeal_metainfo::create::{Content, Files, NewFile, Options, Plan};
use piecemeal_metainfo::{Bitfield, Metainfo, PieceIndex, Version};
use piecemeal_package::{FileStamp, ResumeFacts};

/// Bytes of a piece of all of them.
pub(crate) const PIECE: u32 = 16 << 10;

/// One file of whole pieces.
pub(crate) fn torrent(name: &str, pieces: u32) -> Arc<Metainfo> {
    let file = NewFile { length: u64::from(pieces * PIECE), ..NewFile::default() };
    finish(Content { name: name.into(), files: Files::Single(file) }, Version::V1)
}

/// Files of one piece and a byte each; without any, a single file.
pub(crate) fn torrent_of(name: &str, paths: &[&str]) -> Arc<Metainfo> {
    let file = |path: &&str| NewFile {
        path: path.split('/').map(str::to_owned).collect(),
        length: u64::from(PIECE) + 1,
        ..NewFile::default()
    };
    match paths {
        [] => torrent(name, 1),
        _ => finish(
            Content { name: name.into(), files: Files::Many(paths.iter().map(file).collect()) },
            Version::V1,
        ),
    }
}

/// Facts of an earlier run that had these pieces.
pub(crate) fn facts(meta: &Metainfo, have: &[u32]) -> ResumeFacts {
    let mut bits = Bitfield::new(meta.piece_count());
    for piece in have {
        bits.set(PieceIndex(*piece));
    }
    ResumeFacts {
        open: Vec::new(),
        info_hash: meta.wire_hash(),
        have: bits,
        stamps: vec![FileStamp::default(); meta.files().len() + 1],
        wanted: vec![true; meta.files().len()],
        uploaded: 7,
        downloaded: 11,
        clean: true,
        boot: [3; 16],
    }
}

fn finish(content: Content, version: Version) -> Arc<Metainfo> {
    let plan = Plan::new(content, Options { piece_length: Some(PIECE), ..Options::new(version) }).unwrap();
    let hashes = vec![[9; 20]; plan.pieces() as usize];
    Arc::new(Metainfo::parse(&plan.finish(&hashes, &[]).unwrap()).unwrap())
}
