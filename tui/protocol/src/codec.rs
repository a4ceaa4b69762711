//! Bytes into lines, and messages into bytes.
//!
//! A [`Decoder`] keeps at most one unfinished line, of bounded length. What is too long is not
//! skipped: whoever sends it does not speak this protocol, and the connection ends.

use std::fmt;

use serde::Serialize;

use crate::MAX_LINE;

/// A line is, or would be, longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes a line may have.
    pub most: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line is longer than {} bytes", self.most)
    }
}

impl std::error::Error for TooLong {}

/// A line is no message: not JSON, no object, or a field of the wrong kind.
#[derive(Debug)]
pub struct Malformed(pub(crate) serde_json::Error);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message: {}", self.0)
    }
}

impl std::error::Error for Malformed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Cuts what arrives into lines.
///
/// ```
/// use anabranch_protocol::Decoder;
///
/// let mut decoder = Decoder::default();
/// decoder.push(b"{\"t\":\"he");
/// assert_eq!(decoder.line(), Ok(None));
/// decoder.push(b"llo\"}\n");
/// assert_eq!(decoder.line(), Ok(Some(b"{\"t\":\"hello\"}".to_vec())));
/// ```
#[derive(Debug)]
pub struct Decoder {
    /// What was pushed and not taken; before `start` it has been taken.
    bytes: Vec<u8>,
    start: usize,
    /// Up to here there is no end of a line behind `start`.
    seen: usize,
    most: usize,
    failed: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl Decoder {
    /// Takes lines of at most so many bytes, their end included.
    pub const fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            seen: 0,
            most,
            failed: false,
        }
    }

    /// Takes in what has arrived. Take the lines out before the next push: only then is what is
    /// kept bounded, by one line and one push.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.seen -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. Empty lines are left out.
    ///
    /// # Errors
    /// [`TooLong`], from then on, once a line is longer than it may be.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            if self.failed {
                return Err(TooLong { most: self.most });
            }
            let end = self.bytes[self.seen..]
                .iter()
                .position(|byte| *byte == b'\n');
            let length = end.map_or(self.bytes.len(), |end| self.seen + end + 1) - self.start;
            if length > self.most || (end.is_none() && length == self.most) {
                self.failed = true;
                self.bytes = Vec::new();
                continue;
            }
            let Some(end) = end else {
                self.seen = self.bytes.len();
                return Ok(None);
            };
            let line = &self.bytes[self.start..self.seen + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
            self.seen += end + 1;
            self.start = self.seen;
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// Bytes kept.
    pub fn kept(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// Appends a message and its end to `out`; nothing, if it is too long.
///
/// # Errors
/// [`TooLong`] if the line would be longer than [`MAX_LINE`].
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let before = out.len();
    // Writing to memory does not fail, and all our keys are strings.
    let written = serde_json::to_writer(&mut *out, message);
    out.push(b'\n');
    if written.is_err() || out.len() - before > MAX_LINE {
        out.truncate(before);
        return Err(TooLong { most: MAX_LINE });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Vec::new();
        while let Some(line) = decoder.line()? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn a_line_that_just_fits_is_taken_and_one_more_byte_is_not() {
        let mut decoder = Decoder::new(4);
        decoder.push(b"abc\n");
        assert_eq!(all(&mut decoder), Ok(vec![b"abc".to_vec()]));
        decoder.push(b"abcd\n");
        assert_eq!(all(&mut decoder), Err(TooLong { most: 4 }));
        decoder.push(b"x\n");
        assert_eq!(
            decoder.line(),
            Err(TooLong { most: 4 }),
            "it does not go on"
        );
        assert_eq!(decoder.kept(), 0);
    }

    #[test]
    fn a_line_without_an_end_fails_before_it_has_come() {
        let mut decoder = Decoder::new(4);
        decoder.push(b"abcd");
        assert_eq!(decoder.line(), Err(TooLong { most: 4 }));
    }

    #[test]
    fn what_would_be_too_long_is_not_written_in_part() {
        let mut out = b"before\n".to_vec();
        assert!(encode(&"x".repeat(MAX_LINE), &mut out).is_err());
        assert_eq!(out, b"before\n");
        encode(&"x".repeat(MAX_LINE - 3), &mut out).unwrap();
        assert_eq!(out.len(), 7 + MAX_LINE);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let mut decoder = Decoder::default();
            let mut lines = Vec::new();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(&rest.len()).to_owned());
                decoder.push(now);
                lines.extend(all(&mut decoder).unwrap());
                rest = later;
            }
            let whole = bytes.rsplit(|byte| *byte == b'\n').skip(1);
            let mut expected: Vec<_> = whole
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
                .filter(|line| !line.is_empty())
                .collect();
            expected.reverse();
            prop_assert_eq!(lines, expected);
        }

        #[test]
        fn what_is_kept_is_bounded(
            pushes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..64),
        ) {
            let mut decoder = Decoder::new(100);
            for push in pushes {
                decoder.push(&push);
                prop_assert!(decoder.kept() < 100 + 64);
                while let Ok(Some(line)) = decoder.line() {
                    prop_assert!(line.len() < 100);
                }
            }
        }
    }
}
