//! The outbox's state: messages, who holds them, and what may be claimed next.
//!
//! Guarantees: pure values; `now` is an argument, nothing waits, nothing is drawn. Not responsible
//! for SQL, connections or handlers. What a store must do is told by the one that is nothing but
//! this state, [`Memory`]: the others are tested against the same suite.
//!
//! Times are milliseconds since 1970, as every store's own clock tells them.
//!
//! - `outbox/memory.rs`: all messages of one store, and what is done with them.
//! - `outbox/operations.rs`: what operators do with them: pauses, dead letters, what has ended.
//! - `outbox/subscriptions.rs`: who hears of which of them.
//! - `outbox/inbox.rs`: what was handled.
//! - `outbox/joins.rs`: what follows when several messages have ended.

mod inbox;
mod joins;
mod memory;
mod operations;
mod subscriptions;

use std::time::Duration;

pub use joins::{Join, JoinDraft, Outcome};
pub use memory::{Dedupe, Filter, Memory, Reaped};
pub use operations::Ages;

use crate::retry::{Backoff, Jitter, Retry, Tried};

/// Milliseconds since 1970.
pub type Millis = i64;

/// How many failed attempts of a message are remembered, the latest ones.
pub const MOST_ERRORS: usize = 10;

/// How many milliseconds a join that has ended is remembered: a week.
pub const JOIN_KEPT: Millis = 7 * 24 * 60 * 60 * 1000;

/// What the bytes of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bytes, as they are.
    Bytes,
    /// A text in UTF-8.
    Text,
    /// A JSON document in UTF-8.
    Json,
}

impl Format {
    /// The number it has in a table.
    pub const fn code(self) -> u8 {
        match self {
            Self::Bytes => 0,
            Self::Text => 1,
            Self::Json => 2,
        }
    }

    /// The format with that number in a table.
    pub const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Bytes),
            1 => Some(Self::Text),
            2 => Some(Self::Json),
            _ => None,
        }
    }
}

/// When a message is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    At(Millis),
    /// So many milliseconds after it is enqueued.
    After(Millis),
}

/// A message that is not written yet; whoever offers it has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is about; handlers are chosen by it.
    pub topic: String,
    /// What it says.
    pub body: Vec<u8>,
    /// What `body` is.
    pub format: Format,
    /// A JSON object of texts.
    pub headers: Option<String>,
    /// What it belongs to, over all services.
    pub correlation_id: Option<String>,
    /// The W3C trace context it was written in.
    pub traceparent: Option<String>,
    /// Messages with one such key are handled one after another, in the order of their ids.
    pub ordering_key: Option<String>,
    /// Messages with one such key are one message.
    pub dedupe_key: Option<String>,
    /// From 0 to 9; higher ones first.
    pub priority: u8,
    /// Whose it is, where one store holds the messages of many.
    pub tenant: Option<String>,
    /// When it may be claimed at the earliest.
    pub due: Due,
    /// How many milliseconds after it is enqueued nobody wants it any more.
    pub ttl: Option<Millis>,
}

/// Where a message is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It can be claimed.
    Ready,
    /// It is due later.
    Scheduled,
    /// Somebody holds it.
    Leased,
    /// It has failed for good, or nobody wanted it in time.
    Dead,
    /// It is handled.
    Done,
    /// It would be ready, but for a pause. Only counts tell.
    Paused,
}

impl Status {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::Leased => "leased",
            Self::Dead => "dead",
            Self::Done => "done",
            Self::Paused => "paused",
        }
    }

    /// The status with that name.
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Ready,
            Self::Scheduled,
            Self::Leased,
            Self::Dead,
            Self::Done,
        ]
        .into_iter()
        .find(|status| status.name() == name)
    }
}

/// What an ordering key does while its first message waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// The others wait for it.
    Block,
    /// The next one that is due goes first.
    Skip,
}

/// The right to change one message: it goes with one claim of it.
///
/// An owner's number is never given twice, and the claims of a message are counted for ever: so what
/// a claimer does after it lost the lease finds nothing to change, even if it has claimed the message
/// again meanwhile. The attempt would not do: it goes back when a message is released or requeued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message.
    pub id: i64,
    /// Who claimed it.
    pub owner: i64,
    /// The how manieth claim of the message that was.
    pub claims: u32,
}

/// Which messages a worker wants.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wanted<'a> {
    /// Topics it has no room for, or no handler.
    pub without: &'a [String],
    /// Its subscribers. A message that waits for none of them is left to others.
    pub by: Option<&'a [String]>,
    /// The only tenant whose messages they are; `None`: of all.
    pub tenant: Option<&'a str>,
}

impl Wanted<'_> {
    fn takes(&self, message: &Message) -> bool {
        let waits = match (&message.waiting, self.by) {
            (Some(waiting), Some(by)) => {
                waiting.is_empty() || waiting.iter().any(|it| by.contains(it))
            }
            _ => true,
        };
        waits && !self.without.contains(&message.draft.topic) && message.is_of(self.tenant)
    }
}

/// What becomes of a message of which some subscribers are done, and others are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// In how many milliseconds it is due again; `None`: it is dead.
    pub delay: Option<Millis>,
    /// The subscribers it waits for, or that it is dead for.
    pub waiting: Option<Vec<String>>,
    /// How far each has come.
    pub progress: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether the attempt counts.
    pub counts: bool,
}

/// Who hears of which topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whose it is.
    pub subscriber: String,
    /// A topic, or the beginning of topics and `*`.
    pub pattern: String,
    /// The last message there was before it.
    pub since: i64,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its number; the first is 1. 0: the message failed before it had one.
    pub attempt: u32,
    /// When.
    pub at: Millis,
    /// What happened.
    pub error: String,
}

/// A message in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number; higher ones were enqueued later.
    pub id: i64,
    /// What was enqueued.
    pub draft: Draft,
    /// When.
    pub enqueued_at: Millis,
    /// When it may be claimed at the earliest.
    pub due_at: Millis,
    /// When nobody wants it any more.
    pub expires_at: Option<Millis>,
    /// How often it was claimed since it was ready for the first time or requeued, what was released
    /// not counted.
    pub attempt: u32,
    /// How often it was claimed.
    pub claims: u32,
    /// The latest failed attempts, oldest first.
    pub errors: Vec<Failed>,
    /// Whose it is, and until when.
    pub lease: Option<(i64, Millis)>,
    /// How and when it ended, if it did.
    pub ended: Option<(Ended, Millis)>,
    /// The subscribers it still waits for; `None`: it was not divided among them yet.
    pub waiting: Option<Vec<String>>,
    /// How far each of its subscribers has come: a JSON object that only they read.
    pub progress: Option<String>,
    /// The join that waits for it.
    pub join: Option<i64>,
    /// When it was claimed for the last time.
    pub claimed_at: Option<Millis>,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is handled.
    Done,
    /// It has failed for good, or nobody wanted it in time.
    Dead,
}

impl Message {
    /// Where it is in its life.
    pub fn status(&self, now: Millis) -> Status {
        match self.ended {
            Some((Ended::Done, _)) => Status::Done,
            Some((Ended::Dead, _)) => Status::Dead,
            None if self.is_leased(now) => Status::Leased,
            None if self.due_at > now => Status::Scheduled,
            None => Status::Ready,
        }
    }

    /// Whether it is one of those: of a tenant, or of all.
    fn is_of(&self, tenant: Option<&str>) -> bool {
        tenant.is_none() || self.draft.tenant.as_deref() == tenant
    }

    fn is_leased(&self, now: Millis) -> bool {
        self.lease.is_some_and(|(_, until)| until > now)
    }

    fn is_wanted(&self, now: Millis) -> bool {
        self.ended.is_none() && self.expires_at.is_none_or(|expires| expires > now)
    }

    fn is_held_by(&self, receipt: Receipt, now: Millis) -> bool {
        self.ended.is_none()
            && self.claims == receipt.claims
            && self
                .lease
                .is_some_and(|(owner, until)| owner == receipt.owner && until > now)
    }

    fn end(&mut self, how: Ended, now: Millis) {
        self.lease = None;
        self.ended = Some((how, now));
    }

    fn record(&mut self, at: Millis, error: String) {
        if self.errors.len() == MOST_ERRORS {
            self.errors.remove(0);
        }
        self.errors.push(Failed {
            attempt: self.attempt,
            at,
            error,
        });
    }
}

/// How long a message waits after a failed attempt, unless its handler's policy says otherwise:
/// one second, doubled with every attempt up to two hours, and of that anything (full jitter).
///
/// ```
/// use std::time::Duration;
/// use anabranch_core::outbox::back_off;
///
/// assert_eq!(back_off(1, 0.5), Duration::from_millis(500));
/// assert_eq!(back_off(4, 0.5), Duration::from_secs(4));
/// assert_eq!(back_off(40, 0.5), Duration::from_secs(3600));
/// ```
pub fn back_off(attempt: u32, random: f64) -> Duration {
    let policy = Retry::new(
        u32::MAX,
        Backoff::Exponential {
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(2 * 60 * 60),
            jitter: Jitter::Full,
        },
    );
    let tried = Tried {
        attempt,
        random,
        ..Tried::default()
    };
    policy.delay(&tried).unwrap_or_default()
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
