//! The writer: appends canonical bencode to a vector.
//!
//! Owns the form of the output. The order of keys is the caller's duty, checked in debug builds; whoever writes
//! keys that come from outside uses [`super::Bencode`], which sorts.

/// Appends values to `out`. Every `begin_*` needs its `end`; in a dictionary every value is preceded by `key`, and
/// keys come in the order of their raw bytes, each once.
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// What is open, with the place of the last key of a dictionary; for the debug checks only.
    open: Vec<Option<(usize, usize)>>,
}

impl<'o> Encoder<'o> {
    /// An encoder that appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Encoder { out, open: Vec::new() }
    }

    /// An integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// A string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
        self.out.extend_from_slice(bytes);
        self
    }

    /// A string that is text.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A value that is bencode already.
    pub fn raw(&mut self, bencode: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bencode);
        self
    }

    /// Opens a list.
    pub fn begin_list(&mut self) -> &mut Self {
        self.out.push(b'l');
        self.open.push(None);
        self
    }

    /// Opens a dictionary.
    pub fn begin_dict(&mut self) -> &mut Self {
        self.out.push(b'd');
        self.open.push(None);
        self
    }

    /// A key of the innermost dictionary; its value must follow.
    pub fn key(&mut self, key: &[u8]) -> &mut Self {
        let digits = key.len().checked_ilog10().unwrap_or(0) as usize + 1;
        let start = self.out.len() + digits + 1;
        if let Some(last) = self.open.last_mut() {
            debug_assert!(
                last.is_none_or(|(from, to)| self.out[from..to] < *key),
                "keys out of order at {:?}",
                key.escape_ascii().to_string()
            );
            *last = Some((start, start + key.len()));
        }
        self.bytes(key)
    }

    /// A key and an integer.
    pub fn pair_int(&mut self, key: &[u8], value: i64) -> &mut Self {
        self.key(key).int(value)
    }

    /// A key and a string.
    pub fn pair_bytes(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.key(key).bytes(value)
    }

    /// Closes the innermost list or dictionary.
    pub fn end(&mut self) -> &mut Self {
        let open = self.open.pop();
        debug_assert!(open.is_some(), "end without begin");
        self.out.push(b'e');
        self
    }
}
