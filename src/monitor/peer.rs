//! One client: its rights, its lines, its patience. Bytes and times come in, bytes come out; the
//! server moves them.
//!
//! Nothing waits for a client. At a tick it is written to only if it has read all there was;
//! otherwise the tick is left out and counted, and the next one tells the same and more. So what
//! is kept for it is bounded, whatever it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::message::{
    Ack, Bye, Client, Cmd, Dead, Done, LogEntry, Op, Peer as Who, Prog, Refuse, Right, Server,
    Severity, Sub, Topic, Welcome,
};
use anabranch_protocol::row::{BranchKey, COLUMNS, Columns};
use anabranch_protocol::{
    Decoder, MAX_LINE, MAX_ROWS, MIN_TICK_MS, SUPPORTED, Text, encode, negotiate,
};

use super::commands::{Giver, Orders, Subjects, Taken};
use super::journal::Journal;
use super::outboxes::Outboxes;
use super::pipeline::{Looked, Pipeline};
use super::sampler::{MAX_VISIBLE, Seen};

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// How long a client may take to read anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line a client may send, in bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Entries of the log in one message.
const ENTRIES: usize = 256;
/// The fastest ticks.
const MIN_TICK: Duration = Duration::from_millis(MIN_TICK_MS);
/// The slowest ticks: what is slower could as well reconnect.
const MAX_TICK: Duration = Duration::from_secs(60);

/// What all clients look at.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) pipelines: &'a [Arc<Pipeline>],
    pub(super) outboxes: &'a Outboxes,
    pub(super) orders: &'a mut Orders,
    pub(super) journal: &'a Journal,
    pub(super) welcome: &'a Welcome,
    /// Reads the memory of the process, in bytes.
    pub(super) rss: fn() -> u64,
    /// Milliseconds since 1970.
    pub(super) unix_ms: u64,
}

/// What a client must show, and may do.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) control: bool,
    pub(super) token: Option<String>,
}

#[derive(Debug)]
enum State {
    /// It has not said hello.
    Strange,
    /// It is in.
    Known,
    /// Nothing more is read from it; what is in `out` is the last.
    Leaving,
}

/// One client.
#[derive(Debug)]
pub(super) struct Peer {
    number: u64,
    terms: Terms,
    who: Who,
    state: State,
    lines: Decoder,
    out: Vec<u8>,
    /// When it connected, or when what is in `out` began to wait; all times are since the server
    /// began.
    since: Duration,
    control: bool,
    /// Whether it may see what dead letters hold.
    payloads: bool,
    sub: Sub,
    columns: Columns,
    seen: Seen,
    next_tick: Option<Duration>,
    next_bulk: Duration,
    /// When it was told of something last.
    told_at: Duration,
    seq: u64,
    skipped: u64,
    /// The next entry of the log it has not seen, from which level on, and how many it has missed.
    entry: u64,
    level: Severity,
    lost: u64,
    /// Memory of the process, as of the last bulk.
    rss: u64,
    /// The version of the stores it has seen, and of the dead letters of each.
    outbox: u64,
    letters: BTreeMap<String, u64>,
}

impl Peer {
    pub(super) fn new(number: u64, who: Who, terms: Terms, now: Duration) -> Self {
        Self {
            number,
            terms,
            who,
            state: State::Strange,
            lines: Decoder::new(MAX_REQUEST),
            out: Vec::new(),
            since: now,
            control: false,
            payloads: false,
            sub: Sub::default(),
            columns: Columns::default(),
            seen: Seen::default(),
            next_tick: None,
            next_bulk: Duration::ZERO,
            told_at: Duration::ZERO,
            seq: 0,
            skipped: 0,
            entry: 0,
            level: Severity::Info,
            lost: 0,
            rss: 0,
            outbox: 0,
            letters: BTreeMap::new(),
        }
    }

    /// One that is told why it may not come in, and nothing else.
    pub(super) fn refused(code: &str, message: &str, now: Duration) -> Self {
        let terms = Terms {
            control: false,
            token: None,
        };
        let mut peer = Self::new(0, Who::default(), terms, now);
        peer.refuse(code, message, now);
        peer
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes to be written.
    pub(super) fn out(&self) -> &[u8] {
        &self.out
    }

    /// Whether there is something to be written, now or as soon as all before was read.
    pub(super) fn has_more(&self) -> bool {
        !self.out.is_empty() || self.seen.is_passing()
    }

    /// So many of them were.
    pub(super) fn wrote(&mut self, bytes: usize, now: Duration) {
        self.out.drain(..bytes);
        self.since = now;
    }

    /// Whether it can go: all was said, or its patience, or ours, is at an end.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        let waited = now.saturating_sub(self.since);
        match self.state {
            State::Strange => waited >= HELLO,
            State::Known => !self.out.is_empty() && waited >= PATIENCE,
            State::Leaving => self.out.is_empty() || waited >= HELLO,
        }
    }

    /// When to look at it again.
    pub(super) fn due(&self) -> Option<Duration> {
        let patience = match self.state {
            State::Strange | State::Leaving => Some(self.since + HELLO),
            State::Known if self.out.is_empty() => None,
            State::Known => Some(self.since + PATIENCE),
        };
        [patience, self.next_tick].into_iter().flatten().min()
    }

    /// How often it wants to hear of visible rows; `None` if it wants none.
    pub(super) fn wants(&self) -> Option<Duration> {
        self.next_tick.map(|_| self.tick())
    }

    /// Adds what it looks at in a pipeline.
    pub(super) fn looks_at(&self, pipeline: u32, looked: &mut Looked) {
        if self.next_tick.is_none() || self.is_leaving() {
            return;
        }
        let here = |key: &&BranchKey| key.0 == pipeline;
        let visible = self.sub.visible.iter().take(MAX_VISIBLE).filter(here);
        looked.branches.extend(visible.map(|key| key.1));
        if let Some(key) = self.sub.detail.as_ref().filter(here) {
            looked.branches.push(key.1);
            looked.details.push(key.1);
        }
        looked.undo |= self.sub.topics.contains(&Topic::Comp);
    }

    /// Whether it looks at the outboxes.
    pub(super) fn looks_at_outboxes(&self) -> bool {
        self.wants().is_some() && !self.is_leaving() && self.sub.topics.contains(&Topic::Outbox)
    }

    /// Whether it is only there to be told why it may not come in.
    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving)
    }

    fn tick(&self) -> Duration {
        Duration::from_millis(self.sub.tick_ms.max(MIN_TICK_MS)).min(MAX_TICK)
    }

    fn bulk(&self) -> Duration {
        Duration::from_millis(self.sub.bulk_ms).clamp(self.tick(), MAX_TICK)
    }

    /// Bytes have come.
    pub(super) fn read(&mut self, bytes: &[u8], world: &mut World<'_>, now: Duration) {
        self.lines.push(bytes);
        while !matches!(self.state, State::Leaving) {
            let line = match self.lines.line() {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(error) => return self.leave("malformed", &error.to_string(), now),
            };
            match (Client::decode(&line), &self.state) {
                (Err(error), State::Strange) => {
                    self.refuse("malformed", &error.to_string(), now);
                }
                (Err(error), _) => self.leave("malformed", &error.to_string(), now),
                (Ok(Client::Hello(hello)), State::Strange) => {
                    self.greet(&hello, world, now);
                }
                (Ok(_), State::Strange) => self.refuse("malformed", "say hello first", now),
                (Ok(Client::Sub(sub)), _) => self.subscribe(sub, world, now),
                (Ok(Client::Cmd(cmd)), _) => self.command(&cmd, world, now),
                (Ok(Client::Hello(_) | Client::Unknown), _) => {}
            }
        }
    }

    fn greet(
        &mut self,
        hello: &anabranch_protocol::message::Hello,
        world: &World<'_>,
        now: Duration,
    ) {
        self.who.client = Text::name(&hello.client);
        let Some(proto) = negotiate(SUPPORTED, hello.proto) else {
            let refuse = Refuse {
                code: "proto".into(),
                need: Some(SUPPORTED),
                msg: Text::new(&format!(
                    "this process runs anabranch {}, which speaks another protocol; use the \
                     command of the same version",
                    world.welcome.server.version
                )),
            };
            self.say(refuse, now);
            self.state = State::Leaving;
            return;
        };
        if let Some(token) = &self.terms.token
            && !same(token, hello.token.as_deref().unwrap_or_default())
        {
            return self.refuse("auth", "the token is missing or wrong", now);
        }
        self.control = self.terms.control && hello.want.contains(&Right::Control);
        let mut caps = vec![Right::Observe];
        caps.extend(self.control.then_some(Right::Control));
        // Whether there is something to see is for each outbox to say.
        self.payloads = self.terms.control && hello.want.contains(&Right::Payloads);
        caps.extend(self.payloads.then_some(Right::Payloads));
        self.entry = world.journal.next().saturating_sub(ENTRIES as u64);
        self.state = State::Known;
        self.say(
            Welcome {
                proto,
                caps,
                cols: COLUMNS.iter().map(|it| Text::new(it)).collect(),
                max_line: MAX_LINE,
                min_tick_ms: MIN_TICK_MS,
                ..world.welcome.clone()
            },
            now,
        );
    }

    fn subscribe(&mut self, mut sub: Sub, world: &mut World<'_>, now: Duration) {
        sub.visible.truncate(MAX_ROWS);
        sub.cols.truncate(2 * COLUMNS.len());
        let columns = if sub.cols.is_empty() {
            Columns::default()
        } else {
            Columns::new(sub.cols.iter().map(|it| &**it))
        };
        // What it has left out meanwhile it has not seen.
        if !sub.topics.contains(&Topic::Outbox) {
            self.outbox = 0;
        }
        let wanted = |sub: &Sub| sub.topics.contains(&Topic::Branches);
        // Other columns make all rows sent so far unreadable.
        let anew = self.next_tick.is_none() || columns.names() != self.columns.names();
        if wanted(&sub) && (anew || !wanted(&self.sub)) {
            self.seen.begin(true);
        }
        self.columns = columns;
        let before = std::mem::replace(&mut self.sub, sub);
        let scrolled = Sub {
            id: self.sub.id,
            visible: self.sub.visible.clone(),
            ..before
        };
        if self.next_tick.is_some() && scrolled == self.sub {
            // Other rows of the same picture: they come soon, and all else as it would have.
            let soon = self.told_at + MIN_TICK;
            self.next_tick = self.next_tick.map(|due| due.min(soon.max(now)));
            return self.tick_if_due(world, now);
        }
        self.seen.look_again();
        self.next_tick = Some(now + self.tick());
        self.next_bulk = now + self.bulk();
        // At once: nobody wants to wait for the first picture.
        self.tell(world, true, now);
    }

    fn command(&mut self, cmd: &Cmd, world: &mut World<'_>, now: Duration) {
        match cmd.op {
            Op::Snapshot => {
                self.seen.forget();
                self.outbox = 0;
                self.letters.clear();
                self.seen.begin(true);
                self.next_bulk = now;
                self.say(
                    Done {
                        id: cmd.id,
                        ok: true,
                        ..Done::default()
                    },
                    now,
                );
            }
            Op::LogLevel => {
                self.level = cmd.args.level.unwrap_or(Severity::Info);
                self.say(
                    Done {
                        id: cmd.id,
                        ok: true,
                        ..Done::default()
                    },
                    now,
                );
            }
            _ => {
                let giver = Giver {
                    client: self.number,
                    peer: &self.who,
                    control: self.control,
                    payloads: self.payloads,
                };
                let subjects = Subjects {
                    pipelines: world.pipelines,
                    outboxes: world.outboxes,
                };
                let (journal, at) = (world.journal, world.unix_ms);
                let mut note = |entry: LogEntry| journal.add(LogEntry { at, ..entry });
                match world.orders.take(cmd, giver, subjects, &mut note) {
                    Taken::Accepted { known } => {
                        let state = if known { "known" } else { "accepted" };
                        self.say(
                            Ack {
                                id: cmd.id,
                                state: state.into(),
                            },
                            now,
                        );
                    }
                    Taken::Over(done) => self.say(done, now),
                }
            }
        }
    }

    /// Its command is over; it may have been to show dead letters.
    pub(super) fn done(&mut self, done: Done, letters: Option<Dead>, now: Duration) {
        if let Some(letters) = letters {
            self.say(letters, now);
        }
        self.say(done, now);
    }

    /// So much is left of its command.
    pub(super) fn progress(&mut self, prog: Prog, now: Duration) {
        self.say(prog, now);
    }

    fn say(&mut self, message: impl Into<Server>, now: Duration) {
        if self.out.is_empty() {
            self.since = now;
        }
        // What would be too long for a line is left out; the next tick says it again, shorter or
        // not. Answers to commands are short.
        if self.out.len() < MAX_LINE {
            let _ = encode(&message.into(), &mut self.out);
        }
    }

    fn refuse(&mut self, code: &str, message: &str, now: Duration) {
        let refuse = Refuse {
            code: code.into(),
            need: None,
            msg: Text::new(message),
        };
        self.say(refuse, now);
        self.state = State::Leaving;
    }

    /// Says good-bye.
    pub(super) fn leave(&mut self, code: &str, message: &str, now: Duration) {
        if matches!(self.state, State::Known) {
            let bye = Bye {
                code: code.into(),
                msg: Text::new(message),
            };
            self.say(bye, now);
        }
        self.state = State::Leaving;
    }
}

/// Compares without telling by the time it takes how much is right.
fn same(one: &str, other: &str) -> bool {
    let differ = one
        .bytes()
        .zip(other.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differ == 0
}

mod tell;

#[cfg(test)]
mod tests;
