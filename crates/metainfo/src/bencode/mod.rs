//! Bencode (BEP 3, "bencoding"): reading without copying, and writing canonically.
//!
//! Owns the syntax, and the budgets within which hostile input is read. What the values mean is left to whoever
//! asked: metainfo here, messages in `wire`.
//!
//! Reading makes one flat tape of tokens that borrows the input; there is no recursion, and memory is bounded by
//! the token budget. Three reasons for a reader of our own: an info-hash is taken over the *raw* bytes of a value,
//! which a value tree forgets; real torrents carry unsorted keys and odd integers, which must be accepted but
//! noticed; and a number that does not fit must be an error, never a wrapped value that another client reads
//! differently.

mod decode;
mod encode;
mod owned;
#[cfg(test)]
mod tests;

pub use decode::{decode, decode_prefix};
pub use encode::Encoder;
pub use owned::Bencode;

use std::ops::Range;

/// Deeper than any sane document; [`Limits::depth`] above it counts as this much, so that code that walks a
/// [`Value`] by recursion is safe.
pub const MAX_DEPTH: usize = 100;

/// How much a reader is willing to spend on one document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Containers inside containers; at most [`MAX_DEPTH`].
    pub depth: usize,
    /// Values and keys together. A token costs 12 bytes of memory.
    pub tokens: usize,
    /// Bytes of input.
    pub bytes: usize,
}

impl Limits {
    /// A .torrent file or the `info` of a magnet link: the largest real ones stay well below.
    pub const TORRENT: Limits = Limits { depth: 100, tokens: 3_000_000, bytes: 10 << 20 };
    /// One extension message of a peer (BEP 10).
    pub const PEER_EXTENSION: Limits = Limits { depth: 100, tokens: 1_000, bytes: 1 << 20 };
    /// One datagram of the DHT (BEP 5).
    pub const DHT: Limits = Limits { depth: 100, tokens: 500, bytes: 1_500 };
    /// One answer of a tracker, after inflating.
    pub const TRACKER: Limits = Limits { depth: 100, tokens: 100_000, bytes: 1 << 20 };
    /// Our own resume record, which may carry a whole torrent and more.
    pub const RESUME: Limits = Limits { depth: 100, tokens: 3_000_000, bytes: 64 << 20 };
}

/// Why bytes are not bencode, or are more of it than allowed. Positions count bytes from the start of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BencodeError {
    /// The input stops inside a value.
    #[error("bencode: ends too early, at byte {0}")]
    Truncated(usize),
    /// A byte that can not stand here.
    #[error("bencode: unexpected byte at {0}")]
    Unexpected(usize),
    /// Not a decimal integer.
    #[error("bencode: bad integer at byte {0}")]
    BadInt(usize),
    /// Outside of 64 bits.
    #[error("bencode: integer at byte {0} does not fit in 64 bits")]
    IntOverflow(usize),
    /// A string that claims more bytes than there are.
    #[error("bencode: string at byte {0} is longer than the input")]
    StringTooLong(usize),
    /// A dictionary key that is not a string.
    #[error("bencode: dictionary key at byte {0} is not a string")]
    KeyNotString(usize),
    /// A dictionary key without a value.
    #[error("bencode: dictionary key without a value, at byte {0}")]
    MissingValue(usize),
    /// Something follows the value.
    #[error("bencode: extra bytes after the value, from byte {0}")]
    Trailing(usize),
    /// Nested deeper than [`Limits::depth`].
    #[error("bencode: nested too deep, at byte {0}")]
    TooDeep(usize),
    /// More values than [`Limits::tokens`].
    #[error("bencode: too many values, at byte {0}")]
    TooManyTokens(usize),
    /// More bytes than [`Limits::bytes`].
    #[error("bencode: {0} bytes are too many")]
    TooManyBytes(usize),
}

/// Things that are wrong by the letter and common in the wild: noticed, not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// Some dictionary's keys are not in the order of their raw bytes.
    pub unsorted_keys: bool,
    /// Some dictionary has a key twice.
    pub duplicate_keys: bool,
    /// Some integer or length has leading zeros, or is a negative zero.
    pub odd_ints: bool,
}

impl Flags {
    /// Whether encoding the values again would give the same bytes.
    pub fn canonical(self) -> bool {
        self == Flags::default()
    }
}

/// What a [`Value`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `i..e`
    Int,
    /// `n:..`
    Bytes,
    /// `l..e`
    List,
    /// `d..e`
    Dict,
}

/// A decoded document: the input, and where its values lie.
#[derive(Clone, Debug)]
pub struct Tape<'a> {
    input: &'a [u8],
    tokens: Vec<Token>,
    flags: Flags,
}

impl<'a> Tape<'a> {
    /// The one value of the document.
    pub fn root(&self) -> Value<'_> {
        Value { input: self.input, tokens: &self.tokens, at: 0 }
    }

    /// What was odd, anywhere in the document.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// The bytes the document was read from, as far as it reaches.
    pub fn input(&self) -> &'a [u8] {
        self.input
    }
}

/// Where one value lies. 12 bytes, as a large torrent has millions.
#[derive(Clone, Copy, Debug)]
struct Token {
    /// First byte of the raw value.
    offset: u32,
    /// Bytes of the raw value.
    len: u32,
    /// Containers: the index of the first token behind this subtree. Strings: the bytes before the payload (digits
    /// and colon), since their next sibling is always the next token. Integers: unused.
    link: u32,
}

/// A place in a [`Tape`]; copy it freely.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    input: &'a [u8],
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Value<'a> {
    /// What stands here.
    pub fn kind(&self) -> Kind {
        match self.raw().first() {
            Some(b'i') => Kind::Int,
            Some(b'l') => Kind::List,
            Some(b'd') => Kind::Dict,
            _ => Kind::Bytes,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self.raw() {
            [b'i', digits @ .., b'e'] => decode::parse_int(digits).ok(),
            _ => None,
        }
    }

    /// The string's bytes, if it is one.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        self.bytes_span().map(|span| &self.input[span])
    }

    /// The string, if it is one and UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<List<'a>> {
        (self.kind() == Kind::List).then(|| List { next: self.first_child(), end: self.behind() })
    }

    /// The pairs in the order they stand, if it is a dictionary. A key given twice comes twice.
    pub fn as_dict(&self) -> Option<Dict<'a>> {
        (self.kind() == Kind::Dict).then(|| Dict { next: self.first_child(), end: self.behind() })
    }

    /// The first value under `key`, if this is a dictionary that has it. Takes time linear in the number of keys;
    /// to read many keys of a large dictionary, iterate [`Value::as_dict`].
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        self.as_dict()?.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// `get(key)` and then `as_int`.
    pub fn get_int(&self, key: &[u8]) -> Option<i64> {
        self.get(key)?.as_int()
    }

    /// `get(key)` and then `as_bytes`.
    pub fn get_bytes(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.get(key)?.as_bytes()
    }

    /// `get(key)` and then `as_str`.
    pub fn get_str(&self, key: &[u8]) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// A key this dictionary (not those inside it) has twice. Takes n log n time.
    pub fn duplicate_key(&self) -> Option<&'a [u8]> {
        let mut keys: Vec<&[u8]> = self.as_dict()?.map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// The raw bytes of this value, as they stand in the input: what an info-hash is taken over.
    pub fn raw(&self) -> &'a [u8] {
        &self.input[self.span()]
    }

    /// Where [`Value::raw`] lies in the input.
    pub fn span(&self) -> Range<usize> {
        let token = self.tokens[self.at];
        let start = token.offset as usize;
        start..start + token.len as usize
    }

    /// Where the payload of a string lies in the input; for callers who want to borrow from their own input
    /// longer than the tape lives.
    pub fn bytes_span(&self) -> Option<Range<usize>> {
        let span = self.span();
        (self.kind() == Kind::Bytes).then(|| span.start + self.tokens[self.at].link as usize..span.end)
    }

    fn first_child(&self) -> Value<'a> {
        Value { at: self.at + 1, ..*self }
    }

    /// The token index behind this value and all that is in it.
    fn behind(&self) -> usize {
        match self.kind() {
            Kind::List | Kind::Dict => self.tokens[self.at].link as usize,
            Kind::Int | Kind::Bytes => self.at + 1,
        }
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({})", self.kind(), self.raw().escape_ascii())
    }
}

/// The items of a list; see [`Value::as_list`].
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    next: Value<'a>,
    end: usize,
}

impl<'a> Iterator for List<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.next.at >= self.end {
            return None;
        }
        let here = self.next;
        self.next.at = here.behind();
        Some(here)
    }
}

/// The pairs of a dictionary; see [`Value::as_dict`].
#[derive(Clone, Copy, Debug)]
pub struct Dict<'a> {
    next: Value<'a>,
    end: usize,
}

impl<'a> Iterator for Dict<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next.at >= self.end {
            return None;
        }
        let key = self.next;
        let value = Value { at: key.behind(), ..key };
        self.next.at = value.behind();
        Some((key.as_bytes().unwrap_or_default(), value))
    }
}
