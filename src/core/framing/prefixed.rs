//! Lines that come after their length.

use super::{End, Lines, Rules, truncated};

/// Reads lengths, and so much after each.
#[derive(Debug)]
pub(super) struct Prefixed {
    size: usize,
    little_endian: bool,
    state: State,
    /// What has come of the line.
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of the length have come.
    Length([u8; 8], usize),
    /// So many bytes of the line are still to come.
    Line(usize),
    /// So many bytes of a line that is too long, and was told of, are still to come.
    Skipped(u64),
}

const START: State = State::Length([0; 8], 0);

impl Prefixed {
    pub(super) fn new(size: usize, little_endian: bool) -> Self {
        Self {
            size: size.clamp(1, 8),
            little_endian,
            state: START,
            tail: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, mut chunk: &[u8], rules: Rules, lines: &mut Lines) {
        while !chunk.is_empty() {
            self.state = match self.state {
                State::Length(mut bytes, have) => {
                    let came = take(&mut chunk, self.size - have);
                    let now = have + came.len();
                    bytes[have..now].copy_from_slice(came);
                    if now < self.size {
                        State::Length(bytes, now)
                    } else {
                        begin(self.length(bytes), rules, lines)
                    }
                }
                State::Line(left) => {
                    let came = take(&mut chunk, left);
                    if came.len() < left {
                        self.tail.extend_from_slice(came);
                        State::Line(left - came.len())
                    } else if self.tail.is_empty() {
                        rules.line(came, lines);
                        START
                    } else {
                        self.tail.extend_from_slice(came);
                        rules.line(&self.tail, lines);
                        // Its room is kept for the next unfinished line.
                        self.tail.clear();
                        START
                    }
                }
                State::Skipped(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    match left - take(&mut chunk, most).len() as u64 {
                        0 => START,
                        left => State::Skipped(left),
                    }
                }
            };
        }
    }

    pub(super) fn finish(&mut self, end: End, lines: &mut Lines) {
        let how = match end {
            End::Clean => "end of the stream",
            End::Cut(how) => how,
        };
        let tail = std::mem::take(&mut self.tail);
        match std::mem::replace(&mut self.state, START) {
            State::Length(_, 0) | State::Skipped(_) => {}
            State::Length(..) | State::Line(_) => truncated(how, tail.len(), lines),
        }
    }

    fn length(&self, mut bytes: [u8; 8]) -> u64 {
        if self.little_endian {
            return u64::from_le_bytes(bytes);
        }
        bytes.rotate_right(8 - self.size);
        u64::from_be_bytes(bytes)
    }
}

/// The length of a line has come.
fn begin(length: u64, rules: Rules, lines: &mut Lines) -> State {
    match usize::try_from(length).unwrap_or(usize::MAX) {
        0 => {
            rules.line(b"", lines);
            START
        }
        bytes if bytes > rules.max_line => {
            // Told at once: who sends nonsense may never send so much.
            rules.too_long(bytes, lines);
            State::Skipped(length)
        }
        bytes => State::Line(bytes),
    }
}

/// The first bytes of `chunk`, at most so many, which are then no longer in it.
fn take<'a>(chunk: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (came, rest) = chunk.split_at(most.min(chunk.len()));
    *chunk = rest;
    came
}
