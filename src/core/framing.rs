//! Cutting a byte stream into lines, by their ends or by their lengths.
//!
//! A line is whatever the [`Framing`] cuts: text up to an LF, or a message of so many bytes.
//!
//! # Guarantees
//! - However the stream is cut into chunks, the events are the same, in the same order.
//! - Every line is one event: its contents, or one [`Failure`]. After a failure the stream goes on
//!   with the next line.
//! - Memory stays within `max_line` beyond the chunk at hand, however long a line is.
//!
//! Not responsible for where the bytes come from.
//!
//! - `framing/lines.rs`: what comes of a stream.
//! - `framing/terminated.rs`: lines that something ends.
//! - `framing/prefixed.rs`: lines that come after their length.

mod lines;
mod prefixed;
mod terminated;

pub use lines::{Event, Events, Failure, Lines, Place};

use prefixed::Prefixed;
use terminated::Terminated;

/// Where one line ends and the next begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// A line ends at LF; one CR right before the LF belongs to the terminator.
    Lf,
    /// A line ends at these bytes: the first time they come, read from its beginning. At least one.
    Delimiter(Vec<u8>),
    /// The length of each line comes before it, as an unsigned integer.
    LengthPrefix {
        /// How many bytes the integer has, from 1 to 8.
        size: usize,
        /// Whether its least significant byte comes first.
        little_endian: bool,
    },
}

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

/// How a stream came to its end; decides what an unfinished last line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sender said that it is done: what came last is a line like any other, unless its length
    /// says that there should be more of it.
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

/// Cuts one stream into lines: chunks in, [`Lines`] out. An empty line is a line.
///
/// ```
/// use anabranch_core::framing::{Decode, End, Event, Framing, LineSplitter};
///
/// let mut splitter = LineSplitter::new(&Framing::Lf, 80, Decode::Utf8 { lossy: false });
/// let lines = splitter.feed(b"one\r\ntw");
/// assert_eq!(lines.iter().collect::<Vec<_>>(), [Event::Line(b"one")]);
/// let lines = splitter.finish(End::Clean);
/// assert_eq!(lines.iter().collect::<Vec<_>>(), [Event::Line(b"tw")]);
/// ```
#[derive(Debug)]
pub struct LineSplitter {
    rules: Rules,
    cutter: Cutter,
}

#[derive(Debug)]
enum Cutter {
    // Boxed: what looks for the delimiter is large.
    Terminated(Box<Terminated>),
    Prefixed(Prefixed),
}

/// What the contents of a line must be, however it was cut.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The longest line, in bytes without its terminator or its length.
    max_line: usize,
    decode: Decode,
}

impl LineSplitter {
    /// A splitter at the beginning of a stream. `max_line` is in bytes, without the terminator or
    /// the length.
    pub fn new(framing: &Framing, max_line: usize, decode: Decode) -> Self {
        let cutter = match framing {
            Framing::Lf => Cutter::Terminated(Box::new(Terminated::lf())),
            Framing::Delimiter(end) => Cutter::Terminated(Box::new(Terminated::by(end))),
            &Framing::LengthPrefix {
                size,
                little_endian,
            } => Cutter::Prefixed(Prefixed::new(size, little_endian)),
        };
        Self {
            rules: Rules { max_line, decode },
            cutter,
        }
    }

    /// Takes the next `chunk` of the stream; returns the events it completes, often none or many.
    pub fn feed(&mut self, chunk: &[u8]) -> Lines {
        let mut lines = Lines::default();
        match &mut self.cutter {
            Cutter::Terminated(cutter) => cutter.feed(chunk, self.rules, &mut lines),
            Cutter::Prefixed(cutter) => cutter.feed(chunk, self.rules, &mut lines),
        }
        lines
    }

    /// Says that the stream has ended; returns at most one event, for an unfinished last line.
    ///
    /// Without an LF, a CR at its end belongs to the line. The splitter is then as new.
    pub fn finish(&mut self, end: End) -> Lines {
        let mut lines = Lines::default();
        match &mut self.cutter {
            Cutter::Terminated(cutter) => cutter.finish(end, self.rules, &mut lines),
            Cutter::Prefixed(cutter) => cutter.finish(end, &mut lines),
        }
        lines
    }
}

impl Rules {
    /// A whole line.
    fn line(self, contents: &[u8], lines: &mut Lines) {
        if contents.len() > self.max_line {
            return self.too_long(contents.len(), lines);
        }
        match self.decode {
            Decode::Bytes => lines.push(contents),
            Decode::Utf8 { lossy: true } => {
                lines.push(String::from_utf8_lossy(contents).as_bytes());
            }
            Decode::Utf8 { lossy: false } => {
                if let Err(error) = std::str::from_utf8(contents) {
                    let (at, bytes) = (error.valid_up_to(), contents.len());
                    let message = format!("line of {bytes} bytes is not UTF-8 at byte {at}");
                    return lines.fail(INVALID_UTF8, bytes, message);
                }
                lines.push(contents);
            }
        }
    }

    fn too_long(self, bytes: usize, lines: &mut Lines) {
        let message = format!(
            "line of {bytes} bytes is longer than max_line={}",
            self.max_line
        );
        lines.fail(LINE_TOO_LONG, bytes, message);
    }
}

/// A line of which no more than `bytes` will come.
fn truncated(how: &str, bytes: usize, lines: &mut Lines) {
    let message = format!("{how} in the middle of a line ({bytes} bytes of it came)");
    lines.fail(TRUNCATED, bytes, message);
}
