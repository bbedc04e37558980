//! Why a torrent is refused: one line that names the field and what is wrong with it.

use crate::PathError;
use crate::bencode::BencodeError;

/// Bytes of a name that an error repeats; enough to recognise it.
const NAME_SHOWN_BYTES: usize = 120;

/// Why a torrent is refused. `field` is a path like `info.files[3].length`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencode, or too much of it.
    #[error(transparent)]
    Bencode(#[from] BencodeError),
    /// A field that must be there is not.
    #[error("{field}: missing")]
    Missing {
        /// Which.
        field: String,
    },
    /// A field of another type than it must be.
    #[error("{field}: should be {expected}")]
    Type {
        /// Which.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A field whose value can not be.
    #[error("{field}: {why}")]
    Value {
        /// Which.
        field: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A number beyond what this program accepts.
    #[error("{field}: {value} is too much, the limit is {limit}")]
    TooMuch {
        /// Which.
        field: String,
        /// What it says.
        value: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// A name that makes no path.
    #[error("{field}: {why}")]
    Path {
        /// Which.
        field: String,
        /// What is wrong.
        why: PathError,
    },
    /// Not 20 bytes for every piece of the content.
    #[error("info.pieces: {got} bytes, but {pieces} pieces need {want}")]
    Pieces {
        /// Bytes there are.
        got: usize,
        /// Pieces that the lengths come to.
        pieces: u64,
        /// Bytes there should be.
        want: u64,
    },
}

impl MetainfoError {
    pub(super) fn missing(field: impl Into<String>) -> MetainfoError {
        MetainfoError::Missing { field: field.into() }
    }

    pub(super) fn kind(field: impl Into<String>, expected: &'static str) -> MetainfoError {
        MetainfoError::Type { field: field.into(), expected }
    }

    pub(super) fn value(field: impl Into<String>, why: &'static str) -> MetainfoError {
        MetainfoError::Value { field: field.into(), why }
    }

    pub(super) fn too_much(field: impl Into<String>, value: u64, limit: u64) -> MetainfoError {
        MetainfoError::TooMuch { field: field.into(), value, limit }
    }
}

/// A name from outside, fit to be shown in one line.
pub(super) fn shown(name: &[u8]) -> String {
    name[..name.len().min(NAME_SHOWN_BYTES)].escape_ascii().to_string()
}
