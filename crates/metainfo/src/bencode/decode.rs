//! The reader: one pass over the bytes, a stack of open containers, a tape of tokens.
//!
//! Owns syntax and budgets. Walking the finished tape is [`super::Value`]'s.

use super::{BencodeError, Flags, Limits, MAX_DEPTH, Tape, Token};

/// Reads a document that fills `input`.
pub fn decode(input: &[u8], limits: Limits) -> Result<Tape<'_>, BencodeError> {
    if input.len() > limits.bytes {
        return Err(BencodeError::TooManyBytes(input.len()));
    }
    let (tape, used) = decode_prefix(input, limits)?;
    if used < input.len() { Err(BencodeError::Trailing(used)) } else { Ok(tape) }
}

/// Reads the document at the start of `input` and says how many bytes it took; what follows is the caller's
/// (`ut_metadata` puts raw data behind its dictionary, BEP 9).
pub fn decode_prefix(input: &[u8], limits: Limits) -> Result<(Tape<'_>, usize), BencodeError> {
    // What lies past the budget is not looked at: a document that needs it ends too early.
    let window = &input[..input.len().min(limits.bytes).min(u32::MAX as usize)];
    let mut reader = Reader {
        input: window,
        at: 0,
        tokens: Vec::new(),
        open: Vec::new(),
        flags: Flags::default(),
        limits: Limits { depth: limits.depth.min(MAX_DEPTH), ..limits },
    };
    reader.run()?;
    let used = reader.at;
    Ok((Tape { input: &input[..used], tokens: reader.tokens, flags: reader.flags }, used))
}

/// A signed decimal. Leading zeros are let through (the reader flags them); anything else odd is not.
pub(super) fn parse_int(text: &[u8]) -> Result<i64, NotInt> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotInt::Syntax);
    }
    // Counting downwards, because the negative half has one number more.
    let value = digits
        .iter()
        .try_fold(0i64, |value, digit| value.checked_mul(10)?.checked_sub(i64::from(digit - b'0')))
        .ok_or(NotInt::Overflow)?;
    if negative { Ok(value) } else { value.checked_neg().ok_or(NotInt::Overflow) }
}

#[derive(Debug)]
pub(super) enum NotInt {
    Syntax,
    Overflow,
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    tokens: Vec<Token>,
    /// Bound: [`Limits::depth`].
    open: Vec<Open>,
    flags: Flags,
    limits: Limits,
}

/// A container whose end has not been seen.
struct Open {
    token: usize,
    /// `None` in a list.
    dict: Option<OpenDict>,
}

#[derive(Default)]
struct OpenDict {
    /// A key stands alone.
    wants_value: bool,
    /// Token of the key before.
    last_key: Option<usize>,
    unsorted: bool,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), BencodeError> {
        loop {
            let byte = self.peek()?;
            if byte == b'e' {
                self.close()?;
            } else {
                self.value(byte)?;
            }
            if self.open.is_empty() {
                return Ok(());
            }
        }
    }

    fn value(&mut self, byte: u8) -> Result<(), BencodeError> {
        let is_key = self.open.last().and_then(|open| open.dict.as_ref()).is_some_and(|d| !d.wants_value);
        if is_key && !byte.is_ascii_digit() {
            return Err(BencodeError::KeyNotString(self.at));
        }
        if self.tokens.len() >= self.limits.tokens {
            return Err(BencodeError::TooManyTokens(self.at));
        }
        let token = self.tokens.len();
        match byte {
            b'0'..=b'9' => self.string()?,
            b'i' => self.int()?,
            b'l' | b'd' => return self.open(byte == b'd'),
            _ => return Err(BencodeError::Unexpected(self.at)),
        }
        if is_key {
            self.key_done(token)
        } else {
            self.value_done()
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), BencodeError> {
        let start = self.at;
        let mut len = 0usize;
        loop {
            match self.peek()? {
                b':' => break,
                digit @ b'0'..=b'9' => {
                    len = len
                        .checked_mul(10)
                        .and_then(|len| len.checked_add(usize::from(digit - b'0')))
                        .ok_or(BencodeError::StringTooLong(start))?;
                    self.at += 1;
                }
                _ => return Err(BencodeError::Unexpected(self.at)),
            }
        }
        let digits = self.at - start;
        self.flags.odd_ints |= digits > 1 && self.input[start] == b'0';
        self.at += 1;
        if len > self.input.len() - self.at {
            return Err(BencodeError::StringTooLong(start));
        }
        self.at += len;
        self.push(start, digits + 1);
        Ok(())
    }

    fn int(&mut self) -> Result<(), BencodeError> {
        let start = self.at;
        let rest = &self.input[start + 1..];
        let len = rest
            .iter()
            .position(|byte| !(byte.is_ascii_digit() || *byte == b'-'))
            .ok_or(BencodeError::Truncated(self.input.len()))?;
        if rest[len] != b'e' {
            return Err(BencodeError::BadInt(start));
        }
        let text = &rest[..len];
        parse_int(text).map_err(|why| match why {
            NotInt::Syntax => BencodeError::BadInt(start),
            NotInt::Overflow => BencodeError::IntOverflow(start),
        })?;
        self.flags.odd_ints |= matches!(text, [b'0', _, ..] | [b'-', b'0', ..]);
        self.at = start + len + 2;
        self.push(start, 0);
        Ok(())
    }

    fn open(&mut self, dict: bool) -> Result<(), BencodeError> {
        if self.open.len() >= self.limits.depth {
            return Err(BencodeError::TooDeep(self.at));
        }
        self.open.push(Open { token: self.tokens.len(), dict: dict.then(OpenDict::default) });
        self.at += 1;
        self.push(self.at - 1, 0);
        Ok(())
    }

    fn close(&mut self) -> Result<(), BencodeError> {
        let Some(open) = self.open.pop() else { return Err(BencodeError::Unexpected(self.at)) };
        if open.dict.as_ref().is_some_and(|dict| dict.wants_value) {
            return Err(BencodeError::MissingValue(self.at));
        }
        self.at += 1;
        let end = self.tokens.len() as u32;
        let token = &mut self.tokens[open.token];
        token.len = self.at as u32 - token.offset;
        token.link = end;
        if open.dict.is_some_and(|dict| dict.unsorted) {
            self.flags.unsorted_keys = true;
            // Sorted dictionaries show their duplicates as neighbours; only the others need this.
            if !self.flags.duplicate_keys {
                let tape =
                    Tape { input: self.input, tokens: std::mem::take(&mut self.tokens), flags: self.flags };
                let dict = super::Value { at: open.token, ..tape.root() };
                self.flags.duplicate_keys |= dict.duplicate_key().is_some();
                self.tokens = tape.tokens;
            }
        }
        self.value_done();
        Ok(())
    }

    fn key_done(&mut self, token: usize) {
        let order = |reader: &Self, last: usize| reader.key(last).cmp(reader.key(token));
        let last = self.open.last().and_then(|open| open.dict.as_ref()).and_then(|dict| dict.last_key);
        let order = last.map(|last| order(self, last));
        if order == Some(std::cmp::Ordering::Equal) {
            self.flags.duplicate_keys = true;
        }
        if let Some(dict) = self.open.last_mut().and_then(|open| open.dict.as_mut()) {
            dict.unsorted |= order == Some(std::cmp::Ordering::Greater);
            dict.last_key = Some(token);
            dict.wants_value = true;
        }
    }

    fn value_done(&mut self) {
        if let Some(dict) = self.open.last_mut().and_then(|open| open.dict.as_mut()) {
            dict.wants_value = false;
        }
    }

    fn key(&self, token: usize) -> &[u8] {
        let Token { offset, len, link } = self.tokens[token];
        &self.input[(offset + link) as usize..(offset + len) as usize]
    }

    fn push(&mut self, start: usize, link: usize) {
        self.tokens.push(Token { offset: start as u32, len: (self.at - start) as u32, link: link as u32 });
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        self.input.get(self.at).copied().ok_or(BencodeError::Truncated(self.at))
    }
}
