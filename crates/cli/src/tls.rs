//! Certificates: ours, for torrents whose peers must have one.

use std::fs;
use std::path::Path;

use piecemeal_api::TlsIdentity;

use crate::args::Engine;
use crate::fail::Failure;
use crate::host::Host;
use crate::source::{Torrent, reason};

/// What `--tls-cert` and `--tls-key` name.
pub fn read_identity(engine: &Engine, host: &Host) -> Result<Option<TlsIdentity>, Failure> {
    let (Some(certificate), Some(key)) = (&engine.tls_cert, &engine.tls_key) else { return Ok(None) };
    Ok(Some(TlsIdentity { certificate: read_pem(&host.at(certificate))?, key: read_pem(&host.at(key))? }))
}

/// The same for a torrent that wants it. Others are added without.
pub fn identity_for(torrent: &Torrent, identity: Option<&TlsIdentity>) -> Option<TlsIdentity> {
    identity.filter(|_| torrent.metainfo.info().tls_root.is_some()).cloned()
}

/// A file in the PEM format.
pub fn read_pem(path: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::failed(path.display(), why, "name a file in the PEM format (-----BEGIN ...)")
    };
    let bytes = fs::read(path).map_err(|why| failed(&reason(&why)))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(&"is no text"))?;
    if text.contains("-----BEGIN ") {
        Ok(text)
    } else {
        Err(failed(&"has nothing in it that begins with -----BEGIN"))
    }
}
