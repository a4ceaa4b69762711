//! What comes of a stream: lines and failures, a batch at a time.

use std::fmt;

/// A line that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// [`TRUNCATED`](super::TRUNCATED), [`LINE_TOO_LONG`](super::LINE_TOO_LONG) or
    /// [`INVALID_UTF8`](super::INVALID_UTF8).
    pub code: &'static str,
    /// What happened, for people.
    pub message: String,
    /// Length of the line as far as it came, in bytes, without its terminator or
    /// its length; the length that was announced, if that is what is too long.
    pub bytes: usize,
}

/// One thing found in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The contents of a line, without its terminator; UTF-8 unless
    /// [`Decode::Bytes`](super::Decode::Bytes) was asked for.
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
    /// One failure, of the stream itself and not of a line in it.
    pub fn failed(code: &'static str, message: String) -> Self {
        let mut lines = Self::default();
        lines.fail(code, 0, message);
        lines
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.ends.len() + self.failures.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `count` lines with so many bytes in all.
    pub(super) fn reserve(&mut self, count: usize, bytes: usize) {
        self.ends.reserve_exact(count);
        self.text.reserve_exact(bytes);
    }

    /// The events, in order.
    pub fn iter(&self) -> Events<'_> {
        self.iter_from(Place::default())
    }

    /// The events from a place that [`Events::place`] of the same batch told.
    pub const fn iter_from(&self, place: Place) -> Events<'_> {
        Events { lines: self, place }
    }

    pub(super) fn push(&mut self, contents: &[u8]) {
        self.text.extend_from_slice(contents);
        self.ends.push(self.text.len());
    }

    pub(super) fn fail(&mut self, code: &'static str, bytes: usize, message: String) {
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
    place: Place,
}

/// How far a batch has been read; the beginning, by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the next line begins in the text.
    start: usize,
    /// Index of the next line.
    line: usize,
    /// Index of the next failure.
    failure: usize,
}

impl Events<'_> {
    /// Where the next event is.
    pub const fn place(&self) -> Place {
        self.place
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        if let Some((lines_before, failure)) = self.lines.failures.get(self.place.failure)
            && *lines_before == self.place.line
        {
            self.place.failure += 1;
            return Some(Event::Failed(failure));
        }
        let end = *self.lines.ends.get(self.place.line)?;
        let contents = &self.lines.text[self.place.start..end];
        self.place.start = end;
        self.place.line += 1;
        Some(Event::Line(contents))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.lines.len() - self.place.line - self.place.failure;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
