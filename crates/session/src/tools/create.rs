//! Making a torrent of content on disk.

use piecemeal_api::{CreateRequest, Created, Format, Phase, Progress, Refusal, Work};
use piecemeal_metainfo::create::{CreateError, Options, Plan};
use piecemeal_metainfo::{Lint, Metainfo, Version};
use piecemeal_shell::offline::{self, ScanOptions, Symlinks};

use super::{Meter, threads};

/// Reads content and makes a torrent of it.
///
/// Links that lead to files of the same torrent stay links; others are left out, with a warning.
///
/// # Errors
/// There is nothing to read, a file cannot be read or changes meanwhile, an option makes no sense, or the caller
/// asked to stop.
pub fn create(request: &CreateRequest, work: &Work<'_>) -> Result<Created, Refusal> {
    (work.progress)(Progress { phase: Phase::Scanning, done: 0, total: 0 });
    let scan = ScanOptions { hidden: !request.skip_hidden, symlinks: Symlinks::Keep };
    let scanned = offline::scan(&request.content, scan).map_err(super::refusal)?;
    let plan = Plan::new(scanned.content, options(request)?).map_err(|why| refusal(&why))?;
    let meter = Meter::new(work, plan.content_length());
    let report = |done| meter.hashed(done);
    let bytes = offline::make(plan, &request.content, threads(), &report, &meter.cancel);
    let bytes = bytes.map_err(super::refusal)?;
    let broken = |why| Refusal::Bug { what: format!("the torrent just made does not parse: {why}") };
    let meta = Metainfo::parse(&bytes).map_err(broken)?;
    let warnings = scanned.warnings.iter().map(ToString::to_string);
    Ok(created(&meta, bytes, warnings.chain(meta.lints().iter().map(Lint::to_string)).collect()))
}

fn created(meta: &Metainfo, bytes: Vec<u8>, warnings: Vec<String>) -> Created {
    let (info, hashes) = (meta.info(), meta.info_hashes());
    Created {
        metainfo: bytes.into(),
        name: info.name.to_string(),
        size: info.content_length,
        files: crate::words::count(info.files.iter().filter(|file| !file.pad).count()),
        piece_length: u64::from(info.piece_length),
        pieces: info.piece_count,
        info_hash: hashes.v1,
        info_hash_v2: hashes.v2,
        magnet: meta.magnet(),
        warnings,
    }
}

fn options(request: &CreateRequest) -> Result<Options, Refusal> {
    let piece_length = request.piece_length.map(u32::try_from).transpose();
    let created = request.created.map(i64::try_from).transpose();
    Ok(Options {
        piece_length: piece_length
            .map_err(|_| Refusal::invalid("piece_length", "is too large", "choose a smaller one"))?,
        private: request.private,
        source: request.source.clone(),
        tls_root: request.tls_root.clone(),
        comment: request.comment.clone(),
        trackers: request.trackers.clone(),
        web_seeds: request.web_seeds.clone(),
        created_by: request.created_by.clone(),
        creation_date: created
            .map_err(|_| Refusal::invalid("created", "is too far in the future", "give another date"))?,
        ..Options::new(match request.format {
            Format::V1 => Version::V1,
            Format::V2 => Version::V2,
            Format::Hybrid => Version::Hybrid,
        })
    })
}

/// Why no torrent came of it.
pub(super) fn refusal(why: &CreateError) -> Refusal {
    let (field, remedy) = match why {
        CreateError::NoContent => ("content", "choose something with bytes in it"),
        CreateError::BadName(_) => ("content", "rename it"),
        CreateError::Twice(_) => ("content", "rename one of them"),
        CreateError::Ambiguous(_) => ("content", "share the file itself, or make a v1 torrent"),
        CreateError::BadLink(_) => ("content", "replace the link, or leave it out"),
        CreateError::PieceLength(_) => ("piece_length", "choose another, or leave it out"),
        CreateError::TooManyPieces { .. } => ("piece_length", "choose a larger one, or leave it out"),
        CreateError::TooLarge(_) => ("content", "share it in parts"),
        CreateError::Unreadable(_) => ("content", "see the field named"),
        CreateError::Hashes(_) => return Refusal::Bug { what: why.to_string() },
    };
    Refusal::invalid(field, why, remedy)
}

#[cfg(test)]
mod tests {
    use super::super::verify;
    use super::*;
    use piecemeal_api::{Cancel, FileState, VerifyRequest};
    use std::fs;
    use std::sync::Mutex;

    #[test]
    fn what_is_made_verifies_and_what_is_changed_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("film");
        fs::create_dir_all(content.join("extras")).unwrap();
        fs::write(content.join("film.mkv"), vec![1; 5 << 20]).unwrap();
        fs::write(content.join("extras/empty"), b"").unwrap();
        fs::write(content.join(".hidden"), b"x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", content.join("way-out")).unwrap();
        let told = Mutex::new(Vec::new());
        let progress = |progress| told.lock().unwrap().push(progress);
        let cancel = Cancel::default();
        let work = Work { progress: &progress, cancel: &cancel };
        let request = CreateRequest {
            trackers: vec![vec!["http://t/announce".into()]],
            skip_hidden: true,
            piece_length: Some(1 << 20),
            ..CreateRequest::new(&content)
        };
        let created = create(&request, &work).unwrap();
        assert_eq!((created.files, created.size, created.piece_length), (2, 5 << 20, 1 << 20));
        assert!(created.info_hash.is_some() && created.info_hash_v2.is_some());
        assert!(created.warnings.iter().any(|warning| warning.contains("way-out")), "{:?}", created.warnings);
        let last = *told.lock().unwrap().last().unwrap();
        assert_eq!(last, Progress { phase: Phase::Hashing, done: 5 << 20, total: 5 << 20 });

        let request = VerifyRequest { metainfo: created.metainfo.clone(), dir: folder.path().into() };
        let verdict = verify(&request, &work).unwrap();
        assert!(verdict.good() && verdict.good_bytes == 5 << 20, "{verdict:?}");
        let mut bytes = fs::read(content.join("film.mkv")).unwrap();
        bytes[3 << 20] ^= 1;
        fs::write(content.join("film.mkv"), bytes).unwrap();
        fs::remove_file(content.join("extras/empty")).unwrap();
        let verdict = verify(&request, &work).unwrap();
        let states: Vec<_> = verdict.files.iter().map(|file| (&*file.path, &file.state)).collect();
        let want = [
            ("film/extras/empty", &FileState::Missing),
            ("film/film.mkv", &FileState::Bad { bad_pieces: 1 }),
        ];
        assert_eq!(states, want);
        assert_eq!((verdict.good_pieces, verdict.pieces), (4, 5));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let (quiet, cancel) = (|_| {}, Cancel::default());
        let work = Work { progress: &quiet, cancel: &cancel };
        let refused = |request: &CreateRequest| create(request, &work).unwrap_err().to_string();
        fs::create_dir(folder.path().join("none")).unwrap();
        let line = refused(&CreateRequest::new(folder.path().join("none")));
        assert!(line.starts_with("content: there are no bytes to share; "), "{line}");
        let line = refused(&CreateRequest::new(folder.path().join("missing")));
        assert!(line.contains("missing: not found; "), "{line}");
        fs::write(folder.path().join("a"), b"a").unwrap();
        let request = CreateRequest::new(folder.path().join("a"));
        let line = refused(&CreateRequest { piece_length: Some(17), ..request.clone() });
        assert!(line.starts_with("piece_length: "), "{line}");
        let line = refused(&CreateRequest { piece_length: Some(u64::MAX), ..request.clone() });
        assert!(line.starts_with("piece_length: "), "{line}");
        cancel.cancel();
        assert_eq!(create(&request, &work).unwrap_err(), Refusal::Cancelled);
    }
}
