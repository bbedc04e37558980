//! A bencoded value that owns its parts, for small documents that are built or kept.
//!
//! Owns order: dictionaries are sorted by construction, so what it writes is always canonical. Big or hostile
//! input is read through [`super::Tape`] instead.

use super::{Encoder, Kind, Value};
use std::collections::BTreeMap;

/// An owned value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bencode {
    /// An integer.
    Int(i64),
    /// A string.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Bencode>),
    /// A dictionary.
    Dict(BTreeMap<Vec<u8>, Bencode>),
}

impl Bencode {
    /// An empty dictionary, to be filled by [`Bencode::with`].
    pub fn dict() -> Bencode {
        Bencode::Dict(BTreeMap::new())
    }

    /// This dictionary with one more key (the last value given for a key stays). Anything else is left as it is.
    pub fn with(mut self, key: impl AsRef<[u8]>, value: impl Into<Bencode>) -> Bencode {
        if let Bencode::Dict(pairs) = &mut self {
            pairs.insert(key.as_ref().to_vec(), value.into());
        }
        self
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut Encoder::new(&mut out));
        out
    }

    /// Canonical bytes, as a part of something larger.
    pub fn write(&self, out: &mut Encoder<'_>) {
        match self {
            Bencode::Int(value) => {
                out.int(*value);
            }
            Bencode::Bytes(bytes) => {
                out.bytes(bytes);
            }
            Bencode::List(items) => {
                out.begin_list();
                items.iter().for_each(|item| item.write(out));
                out.end();
            }
            Bencode::Dict(pairs) => {
                out.begin_dict();
                for (key, value) in pairs {
                    value.write(out.key(key));
                }
                out.end();
            }
        }
    }
}

/// Copies; of keys given twice the first stays, as with [`Value::get`]. Recursion is bounded by
/// [`super::MAX_DEPTH`].
impl From<Value<'_>> for Bencode {
    fn from(value: Value<'_>) -> Bencode {
        match value.kind() {
            Kind::Int => Bencode::Int(value.as_int().unwrap_or_default()),
            Kind::Bytes => Bencode::Bytes(value.as_bytes().unwrap_or_default().to_vec()),
            Kind::List => Bencode::List(value.as_list().into_iter().flatten().map(Bencode::from).collect()),
            Kind::Dict => {
                let mut pairs = BTreeMap::new();
                for (key, value) in value.as_dict().into_iter().flatten() {
                    pairs.entry(key.to_vec()).or_insert_with(|| Bencode::from(value));
                }
                Bencode::Dict(pairs)
            }
        }
    }
}

impl From<i64> for Bencode {
    fn from(value: i64) -> Bencode {
        Bencode::Int(value)
    }
}

impl From<&[u8]> for Bencode {
    fn from(bytes: &[u8]) -> Bencode {
        Bencode::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Bencode {
    fn from(bytes: Vec<u8>) -> Bencode {
        Bencode::Bytes(bytes)
    }
}

impl From<&str> for Bencode {
    fn from(text: &str) -> Bencode {
        Bencode::Bytes(text.as_bytes().to_vec())
    }
}

impl From<Vec<Bencode>> for Bencode {
    fn from(items: Vec<Bencode>) -> Bencode {
        Bencode::List(items)
    }
}
