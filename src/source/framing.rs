//! Cutting a byte stream into lines. Pure: no I/O, and no idea where the bytes come from.
//!
//! # Guarantees
//! - However the stream is cut into chunks, the events are the same, in the same order.
//! - Every line is one event: its contents, or one [`Failure`]. After a failure the stream goes on
//!   with the next line.
//! - Memory stays within `max_line` beyond the chunk at hand, however long a line is.

use std::fmt;

/// What the contents of a line have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// Any bytes.
    Bytes,
    /// UTF-8 text.
    Utf8 {
        /// Whether invalid sequences become U+FFFD; otherwise the line is a failure.
        lossy: bool,
    },
}

/// How a stream came to its end; decides what an unterminated last line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sender said that it is done: what came last is a line like any other.
    Clean,
    /// The stream was cut off: what came last is [`TRUNCATED`]. The text says how it was cut off,
    /// as in "connection reset".
    Cut(&'static str),
}

/// Code of the failure of a line that the end of its stream cut off.
pub const TRUNCATED: &str = "source.truncated";
/// Code of the failure of a line longer than `max_line`.
pub const LINE_TOO_LONG: &str = "source.line_too_long";
/// Code of the failure of a line that is not UTF-8 though it has to be.
pub const INVALID_UTF8: &str = "source.invalid_utf8";

/// A line that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// [`TRUNCATED`], [`LINE_TOO_LONG`] or [`INVALID_UTF8`].
    pub code: &'static str,
    /// What happened, for people.
    pub message: String,
    /// Length of the line as far as it came, in bytes, without its terminator.
    pub bytes: usize,
}

/// One thing found in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The contents of a line, without its terminator; UTF-8 unless [`Decode::Bytes`] was asked for.
    Line(&'a [u8]),
    /// A line that could not be taken.
    Failed(&'a Failure),
}

/// A batch of events, in the order of the stream.
///
/// The contents of all lines lie in one buffer: a batch costs the same few allocations however many
/// lines it has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lines {
    /// The contents of the lines, one after the other, nothing in between.
    text: Vec<u8>,
    /// Where in `text` each line ends; it begins where the one before it ends.
    ends: Vec<usize>,
    /// The failures, each with the number of lines that come before it.
    failures: Vec<(usize, Failure)>,
}

impl Lines {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.ends.len() + self.failures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events, in order.
    pub fn iter(&self) -> Events<'_> {
        Events {
            lines: self,
            start: 0,
            line: 0,
            failure: 0,
        }
    }

    fn fail(&mut self, code: &'static str, bytes: usize, message: String) {
        self.failures.push((
            self.ends.len(),
            Failure {
                code,
                message,
                bytes,
            },
        ));
    }
}

impl<'a> IntoIterator for &'a Lines {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

/// Iterator over the events of a [`Lines`].
#[derive(Debug, Clone)]
pub struct Events<'a> {
    lines: &'a Lines,
    /// Where the next line begins in the text.
    start: usize,
    /// Index of the next line.
    line: usize,
    /// Index of the next failure.
    failure: usize,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if let Some((lines_before, failure)) = self.lines.failures.get(self.failure)
            && *lines_before == self.line
        {
            self.failure += 1;
            return Some(Event::Failed(failure));
        }
        let end = *self.lines.ends.get(self.line)?;
        let contents = &self.lines.text[self.start..end];
        self.start = end;
        self.line += 1;
        Some(Event::Line(contents))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.lines.len() - self.line - self.failure;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Cuts one stream into lines: chunks in, [`Lines`] out.
///
/// A line ends at LF; one CR right before the LF belongs to the terminator. An empty line is a line.
///
/// ```
/// use anabranch::source::framing::{Decode, End, Event, LineSplitter};
///
/// let mut splitter = LineSplitter::new(80, Decode::Utf8 { lossy: false });
/// let lines = splitter.feed(b"one\r\ntw");
/// assert_eq!(lines.iter().collect::<Vec<_>>(), [Event::Line(b"one")]);
/// let lines = splitter.finish(End::Clean);
/// assert_eq!(lines.iter().collect::<Vec<_>>(), [Event::Line(b"tw")]);
/// ```
#[derive(Debug)]
pub struct LineSplitter {
    /// The longest line, in bytes without its terminator.
    max_line: usize,
    decode: Decode,
    /// The beginning of a line whose LF has not come: at most `max_line` bytes and one CR.
    tail: Vec<u8>,
    /// The unfinished line is too long to be kept: what has come of it. `tail` is empty then.
    overlong: Option<Overlong>,
}

/// What is remembered of a line that is not kept.
#[derive(Debug, Clone, Copy)]
struct Overlong {
    bytes: usize,
    ends_in_cr: bool,
}

impl LineSplitter {
    /// A splitter at the beginning of a stream. `max_line` is in bytes, without the terminator.
    pub const fn new(max_line: usize, decode: Decode) -> Self {
        Self {
            max_line,
            decode,
            tail: Vec::new(),
            overlong: None,
        }
    }

    /// Takes the next `chunk` of the stream; returns the events it completes, often none or many.
    pub fn feed(&mut self, chunk: &[u8]) -> Lines {
        let mut lines = Lines::default();
        // Counting first costs a fraction of what growing the buffers would.
        let count = memchr::memchr_iter(b'\n', chunk).count();
        if count == 0 {
            self.keep(chunk);
            return lines;
        }
        lines.ends.reserve_exact(count);
        lines.text.reserve_exact(self.tail.len() + chunk.len());

        let mut start = 0;
        for at in memchr::memchr_iter(b'\n', chunk) {
            let piece = &chunk[start..at];
            start = at + 1;
            if self.tail.is_empty() && self.overlong.is_none() {
                self.line(without_cr(piece), &mut lines);
            } else {
                self.keep(piece);
                self.finish_kept(&mut lines);
            }
        }
        self.keep(&chunk[start..]);
        lines
    }

    /// Says that the stream has ended; returns at most one event, for a last line without LF.
    ///
    /// Without an LF, a CR at its end belongs to the line. The splitter is then as new.
    pub fn finish(&mut self, end: End) -> Lines {
        let mut lines = Lines::default();
        let tail = std::mem::take(&mut self.tail);
        match (self.overlong.take(), end) {
            (Some(Overlong { bytes, .. }), _) => self.too_long(bytes, &mut lines),
            (None, _) if tail.is_empty() => {}
            (None, End::Clean) => self.line(&tail, &mut lines),
            (None, End::Cut(how)) => {
                let bytes = tail.len();
                let message = format!("{how} in the middle of a line ({bytes} bytes of it came)");
                lines.fail(TRUNCATED, bytes, message);
            }
        }
        lines
    }

    /// Appends `piece` to the unfinished line, which it does not end.
    fn keep(&mut self, piece: &[u8]) {
        let Some(&last) = piece.last() else { return };
        let ends_in_cr = last == b'\r';
        let bytes = self.overlong.map_or(self.tail.len(), |line| line.bytes) + piece.len();
        // One byte more may turn out to be the CR of the terminator.
        let may_fit = bytes <= self.max_line || (bytes - 1 == self.max_line && ends_in_cr);
        if may_fit {
            self.tail.extend_from_slice(piece);
        } else {
            self.tail = Vec::new();
            self.overlong = Some(Overlong { bytes, ends_in_cr });
        }
    }

    /// The LF of the unfinished line has come.
    fn finish_kept(&mut self, lines: &mut Lines) {
        if let Some(Overlong { bytes, ends_in_cr }) = self.overlong.take() {
            self.too_long(bytes - usize::from(ends_in_cr), lines);
        } else {
            let mut tail = std::mem::take(&mut self.tail);
            self.line(without_cr(&tail), lines);
            // Kept for the next unfinished line.
            tail.clear();
            self.tail = tail;
        }
    }

    /// A whole line, without its terminator.
    fn line(&self, contents: &[u8], lines: &mut Lines) {
        if contents.len() > self.max_line {
            return self.too_long(contents.len(), lines);
        }
        match self.decode {
            Decode::Bytes => lines.text.extend_from_slice(contents),
            Decode::Utf8 { lossy: true } => {
                lines
                    .text
                    .extend_from_slice(String::from_utf8_lossy(contents).as_bytes());
            }
            Decode::Utf8 { lossy: false } => {
                if let Err(error) = std::str::from_utf8(contents) {
                    let (at, bytes) = (error.valid_up_to(), contents.len());
                    let message = format!("line of {bytes} bytes is not UTF-8 at byte {at}");
                    return lines.fail(INVALID_UTF8, bytes, message);
                }
                lines.text.extend_from_slice(contents);
            }
        }
        lines.ends.push(lines.text.len());
    }

    fn too_long(&self, bytes: usize, lines: &mut Lines) {
        let message = format!(
            "line of {bytes} bytes is longer than max_line={}",
            self.max_line
        );
        lines.fail(LINE_TOO_LONG, bytes, message);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// `line` without the one CR that belongs to the LF after it.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Decode = Decode::Utf8 { lossy: false };

    #[test]
    fn an_endless_line_is_one_failure_and_takes_no_memory() {
        let mut splitter = LineSplitter::new(8, STRICT);
        for _ in 0..1000 {
            assert!(splitter.feed(&[b'x'; 1000]).is_empty());
            assert_eq!(splitter.tail.capacity(), 0);
        }
        let lines = splitter.feed(b"\r\nnext\n");
        let events: Vec<_> = lines.iter().collect();
        let [Event::Failed(failure), Event::Line(b"next")] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((failure.code, failure.bytes), (LINE_TOO_LONG, 1_000_000));
    }
}
