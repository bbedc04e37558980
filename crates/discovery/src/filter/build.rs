//! Making a filter of lists, as their bytes come.

use piecemeal_wire::text::one_line;
use thiserror::Error;

use super::heap::Heap;
use super::line::{self, Line};
use super::range::Span;
use super::{IpFilter, IpRange};

/// Ranges of IPv4 in a filter, some 33 MB of them; the largest lists that people publish have less than a million.
pub const MAX_RANGES_V4: usize = 4_000_000;
/// Ranges of IPv6 in a filter, 33 MB of them.
pub const MAX_RANGES_V6: usize = 1_000_000;
/// Bytes of the longest line that is read; longer ones are skipped.
pub const MAX_LINE_BYTES: usize = 4_096;

/// Of a line that can not be read, so many bytes are shown.
const SHOWN_BYTES: usize = 80;
/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why there is no filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// See [`MAX_RANGES_V4`] and [`MAX_RANGES_V6`].
    #[error("the IP filter has more than {most} ranges of {family}")]
    TooManyRanges {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// So many there may be.
        most: usize,
    },
}

/// What was in the lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Lines, all of them.
    pub lines: u64,
    /// Ranges of the filter.
    pub ranges: usize,
    /// Ranges that were read and became parts of others.
    pub merged: u64,
    /// Ranges that a list names in order to allow them.
    pub allowed: u64,
    /// Lines that are neither ranges nor comments, or too long.
    pub skipped_lines: u64,
    /// The first of them: its number, from 1, and its beginning, made fit to show. If none is good, it says what was
    /// taken for a list.
    pub first_bad: Option<(u64, String)>,
    /// Bytes of heap that the ranges took at most on the way.
    pub peak_bytes: usize,
}

/// Makes an [`IpFilter`] of one or more lists. However their bytes are split, the filter and the report are the same.
pub struct Builder {
    v4: Heap<u32>,
    v6: Heap<u128>,
    /// The beginning of a line whose end has not come. Bound: [`MAX_LINE_BYTES`] and one, which says it is too long.
    torn: Vec<u8>,
    /// Lines of this list.
    line: u64,
    blocked: u64,
    report: Report,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Of nothing yet.
    pub fn new() -> Builder {
        Builder {
            v4: Heap::new(MAX_RANGES_V4),
            v6: Heap::new(MAX_RANGES_V6),
            torn: Vec::new(),
            line: 0,
            blocked: 0,
            report: Report::default(),
        }
    }

    /// Reads the next bytes of a list.
    ///
    /// # Errors
    /// If there are too many ranges; then there will be no filter.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.torn.is_empty() {
                self.line(line)?;
            } else {
                self.keep(line);
                self.torn_line()?;
            }
        }
        self.keep(rest);
        Ok(())
    }

    /// A list is at its end, even within a line; what is pushed from now on is another, whose lines count from 1.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn end_list(&mut self) -> Result<(), Fault> {
        if !self.torn.is_empty() {
            self.torn_line()?;
        }
        self.line = 0;
        Ok(())
    }

    /// A range that no list has.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn block(&mut self, range: IpRange) -> Result<(), Fault> {
        self.blocked += 1;
        match range.0 {
            Span::V4(first, last) => self.v4.push((first, last)).map_err(|_| TOO_MANY_V4),
            Span::V6(first, last) => self.v6.push((first, last)).map_err(|_| TOO_MANY_V6),
        }
    }

    /// Bytes of heap that the ranges take now.
    pub fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes()
    }

    /// The filter, and what was in the lists.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn finish(mut self) -> Result<(IpFilter, Report), Fault> {
        self.end_list()?;
        // What is given back at the end is copied, at worst.
        let peaks = self.v4.peak_bytes() + self.v6.peak_bytes();
        let before = self.memory_bytes();
        let v4 = self.v4.finish().map_err(|_| TOO_MANY_V4)?;
        let v6 = self.v6.finish().map_err(|_| TOO_MANY_V6)?;
        let filter = IpFilter { v4, v6 };
        self.report.ranges = filter.len();
        self.report.merged = self.blocked - filter.len() as u64;
        self.report.peak_bytes = peaks.max(before + filter.memory_bytes());
        Ok((filter, self.report))
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES + 1 - self.torn.len();
        self.torn.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn torn_line(&mut self) -> Result<(), Fault> {
        let mut line = std::mem::take(&mut self.torn);
        self.line(&line)?;
        line.clear();
        self.torn = line;
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.line += 1;
        self.report.lines += 1;
        let long = line.len() > MAX_LINE_BYTES;
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| self.line == 1).unwrap_or(line);
        let read = if long { Line::Bad } else { line::read(line) };
        match read {
            Line::Nothing => {}
            Line::Allowed => self.report.allowed += 1,
            Line::Blocked(range) => self.block(range)?,
            Line::Bad => {
                self.report.skipped_lines += 1;
                let number = self.line;
                self.report.first_bad.get_or_insert_with(|| (number, one_line(line, SHOWN_BYTES)));
            }
        }
        Ok(())
    }
}

const TOO_MANY_V4: Fault = Fault::TooManyRanges { family: "IPv4", most: MAX_RANGES_V4 };
const TOO_MANY_V6: Fault = Fault::TooManyRanges { family: "IPv6", most: MAX_RANGES_V6 };
