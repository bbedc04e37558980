//! Comparing content on disk with its torrent.

use piecemeal_api::{FileState, FileVerdict, Refusal, Verdict, VerifyRequest, Work};
use piecemeal_metainfo::FileIndex;
use piecemeal_shell::offline::{self, Found};

use super::{Meter, threads};

/// Hashes content against a torrent. Bad or missing content is a verdict.
///
/// # Errors
/// The torrent does not parse or lacks hashes, or the caller asked to stop.
pub fn verify(request: &VerifyRequest, work: &Work<'_>) -> Result<Verdict, Refusal> {
    let meta = super::parse(&request.metainfo)?;
    let meter = Meter::new(work, meta.info().content_length);
    let report = |done| meter.hashed(done);
    let judged = offline::verify(&meta, &request.dir, threads(), &report, &meter.cancel);
    let judged = judged.map_err(super::refusal)?;
    let indices = (0..).map(FileIndex).zip(meta.files()).filter(|(_, file)| !file.pad);
    Ok(Verdict {
        name: meta.info().name.to_string(),
        good_pieces: judged.good.count(),
        pieces: judged.good.pieces(),
        good_bytes: judged.files.iter().map(|file| file.good_bytes).sum(),
        size: meta.info().content_length,
        files: indices.zip(judged.files).map(|((index, _), file)| verdict(index, file)).collect(),
    })
}

fn verdict(index: FileIndex, file: offline::FileVerdict) -> FileVerdict {
    let state = match file.found {
        Found::Missing => FileState::Missing,
        Found::Unreadable(reason) => FileState::Unreadable { reason },
        Found::Length(is_size) if is_size != file.length => FileState::WrongSize { is_size },
        Found::Length(_) if file.bad_pieces > 0 => FileState::Bad { bad_pieces: file.bad_pieces },
        Found::Length(_) => FileState::Good,
    };
    FileVerdict { file: index, path: file.path.as_str().to_owned(), size: file.length, state }
}
