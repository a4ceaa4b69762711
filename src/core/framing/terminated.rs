//! Lines that something ends: an LF, or a delimiter of some bytes.

use memchr::memchr_iter;
use memchr::memmem::Finder;

use super::{End, Lines, Rules, truncated};

/// Looks for the ends of lines, and keeps the one that has none yet.
#[derive(Debug)]
pub(super) struct Terminated {
    delimiter: Finder<'static>,
    /// Whether one CR before the delimiter belongs to it.
    chomps: bool,
    /// The unfinished line: all of it or, if it is too long to be kept, its last bytes, in which
    /// the delimiter may begin. Of what is in here no part is a whole delimiter.
    tail: Vec<u8>,
    /// How much of the unfinished line came before `tail`; more than none if it is too long.
    dropped: usize,
}

impl Terminated {
    pub(super) fn lf() -> Self {
        Self {
            chomps: true,
            ..Self::by(b"\n")
        }
    }

    pub(super) fn by(delimiter: &[u8]) -> Self {
        Self {
            delimiter: Finder::new(delimiter).into_owned(),
            chomps: false,
            tail: Vec::new(),
            dropped: 0,
        }
    }

    pub(super) fn feed(&mut self, chunk: &[u8], rules: Rules, lines: &mut Lines) {
        let mut rest = chunk;
        if self.tail.len() + self.dropped > 0 {
            let Some(after) = self.end_tail(chunk, rules, lines) else {
                return;
            };
            rest = &chunk[after..];
        }
        let start = match *self.delimiter.needle() {
            // Counting single bytes costs a fraction of what growing the buffers would.
            [byte] => {
                let ends = memchr_iter(byte, rest);
                match ends.clone().count() {
                    0 => {}
                    count => lines.reserve(count, rest.len()),
                }
                self.cut(rest, ends, rules, lines)
            }
            _ => self.cut(rest, self.delimiter.find_iter(rest), rules, lines),
        };
        self.keep(&rest[start..], rules);
    }

    pub(super) fn finish(&mut self, end: End, rules: Rules, lines: &mut Lines) {
        let tail = std::mem::take(&mut self.tail);
        let bytes = std::mem::take(&mut self.dropped) + tail.len();
        match end {
            _ if bytes == 0 => {}
            End::Clean => rules.line_of(bytes, &tail, lines),
            // Too long is too long, however it ends; but the end may have cut the terminator.
            End::Cut(_) if bytes - self.terminator(&tail) > rules.max_line => {
                rules.too_long(bytes, lines);
            }
            End::Cut(how) => truncated(how, bytes, lines),
        }
    }

    /// The lines of `chunk`, of which the first begins with it; returns where the last one ends.
    fn cut(
        &self,
        chunk: &[u8],
        ends: impl Iterator<Item = usize>,
        rules: Rules,
        lines: &mut Lines,
    ) -> usize {
        let mut start = 0;
        for at in ends {
            let contents = &chunk[start..at];
            let contents = &contents[..contents.len() - self.cr(contents)];
            rules.line(contents, lines);
            start = at + self.delimiter.needle().len();
        }
        start
    }

    /// Looks for the end of the unfinished line, and returns where in `chunk` the next one begins.
    fn end_tail(&mut self, chunk: &[u8], rules: Rules, lines: &mut Lines) -> Option<usize> {
        let width = self.delimiter.needle().len();
        let overlap = self.tail.len().min(width.saturating_sub(1));
        // What begins in the tail ends within these bytes.
        let mut seam = self.tail[self.tail.len() - overlap..].to_vec();
        seam.extend_from_slice(&chunk[..chunk.len().min(width.saturating_sub(1))]);
        let after = if let Some(at) = self.delimiter.find(&seam) {
            self.tail.truncate(self.tail.len() - overlap + at);
            at + width - overlap
        } else if let Some(at) = self.delimiter.find(chunk) {
            self.keep(&chunk[..at], rules);
            at + width
        } else {
            self.keep(chunk, rules);
            return None;
        };
        let cr = self.cr(&self.tail);
        let bytes = std::mem::take(&mut self.dropped) + self.tail.len() - cr;
        rules.line_of(bytes, &self.tail[..self.tail.len() - cr], lines);
        // Its room is kept for the next unfinished line.
        self.tail.clear();
        Some(after)
    }

    /// Appends `piece` to the unfinished line, which it does not end.
    fn keep(&mut self, piece: &[u8], rules: Rules) {
        // So many of its last bytes may turn out to belong to the terminator.
        let spare = self
            .delimiter
            .needle()
            .len()
            .saturating_sub(1)
            .max(usize::from(self.chomps));
        let bytes = self.tail.len() + piece.len();
        if self.dropped == 0 && bytes <= rules.max_line.saturating_add(spare) {
            return self.tail.extend_from_slice(piece);
        }
        self.dropped += bytes;
        let last = piece.len().saturating_sub(spare);
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(&piece[last..]);
        // A new buffer, for what is too long may have made the old one large.
        self.tail = tail[tail.len().saturating_sub(spare)..].to_vec();
        self.dropped -= self.tail.len();
    }

    /// How many bytes at the end of `contents` belong to the delimiter after it.
    fn cr(&self, contents: &[u8]) -> usize {
        usize::from(self.chomps && contents.ends_with(b"\r"))
    }

    /// How many bytes at the end of an unfinished line may belong to a delimiter that was cut off.
    fn terminator(&self, tail: &[u8]) -> usize {
        let needle = self.delimiter.needle();
        let begun = (1..needle.len())
            .rev()
            .find(|&n| tail.ends_with(&needle[..n]));
        begun.unwrap_or_else(|| self.cr(tail))
    }
}

impl Rules {
    /// A whole line of so many bytes, of which `kept` may be no more than the last.
    fn line_of(self, bytes: usize, kept: &[u8], lines: &mut Lines) {
        if bytes > kept.len() {
            self.too_long(bytes, lines);
        } else {
            self.line(kept, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decode, Event, Framing, LINE_TOO_LONG, LineSplitter};
    use super::*;

    #[test]
    fn an_endless_line_is_one_failure_and_takes_no_memory() {
        let rules = Rules {
            max_line: 8,
            decode: Decode::Bytes,
        };
        for mut cutter in [Terminated::lf(), Terminated::by(b"<end>")] {
            let mut lines = Lines::default();
            for _ in 0..1000 {
                cutter.feed(&[b'x'; 1000], rules, &mut lines);
                assert!(lines.is_empty());
                assert!(cutter.tail.capacity() < 8);
            }
        }
        let mut splitter = LineSplitter::new(&Framing::Lf, 8, Decode::Bytes);
        for _ in 0..1000 {
            splitter.feed(&[b'x'; 1000]);
        }
        let lines = splitter.feed(b"\r\nnext\n");
        let events: Vec<_> = lines.iter().collect();
        let [Event::Failed(failure), Event::Line(b"next")] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((failure.code, failure.bytes), (LINE_TOO_LONG, 1_000_000));
    }
}
