//! Cutting a stream into windows by size, age, silence and bytes.
//!
//! A [`Window`] is one buffer and its triggers. It never flushes by itself: it says when it is
//! due, and [`Window::cut`] empties it. Once due it takes no more: what comes later waits in
//! front of it, where it is counted against the capacity of the branch.
//!
//! ```text
//! push --> filling --size, bytes-----------> due --cut--> empty
//!             |  ^---deadline: age, idle------^            ^
//!             +----------------close, cut------------------+
//! ```
//!
//! The age counts from the first buffered item, so an item leaves no later than `max_age` after
//! it arrived however fast others trickle in; silence (`idle`) is the separate debounce trigger.

use std::time::Duration;

use crate::clock::Time;
use crate::compensation::Scope;
use crate::engine::{Domain, Item, Origin};

/// Why a window left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It held `max_items`.
    Size,
    /// Its first item was `max_age` old.
    Age,
    /// Nothing had arrived for `idle`.
    Idle,
    /// It held `max_bytes` or more.
    Bytes,
    /// Its source had ended.
    Close,
}

impl Reason {
    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Bytes => "bytes",
            Self::Close => "close",
        }
    }
}

/// What a window does with a partial buffer when it cannot fill any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// It leaves as it is.
    Flush,
    /// Its items are counted as dropped.
    Drop,
}

/// The triggers of a window; at least one is set.
#[derive(Debug, Clone, Default)]
pub struct WindowOptions {
    /// Leaves with this many items.
    pub max_items: Option<usize>,
    /// Leaves when the first item is this old; zero: with whatever one wake-up brought.
    pub max_age: Option<Duration>,
    /// Leaves after this much silence.
    pub idle: Option<Duration>,
    /// Leaves with this many bytes or more.
    pub max_bytes: Option<u64>,
    /// What becomes of a partial window; by default it leaves when the pipeline drains and is
    /// dropped when it aborts.
    pub on_cancel: Option<Partial>,
}

impl WindowOptions {
    /// Whether time alone can make a window due.
    pub const fn timed(&self) -> bool {
        self.max_age.is_some() || self.idle.is_some()
    }
}

/// What a window looked like when it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Why it left.
    pub reason: Reason,
    /// When its first item came.
    pub opened: Time,
    /// When it left.
    pub closed: Time,
}

/// The items of a window that left, and what travels with them.
#[derive(Debug)]
pub struct Contents<D: Domain> {
    /// The items, in order of arrival.
    pub values: Vec<D::Item>,
    /// Where they came from; empty unless the source is tracked.
    pub origins: Vec<Origin>,
    /// Source items they stand for.
    pub weight: u32,
    /// The merged scopes of the items.
    pub scope: Option<Box<Scope<D::Undo>>>,
    /// Why and when it left.
    pub cut: Cut,
}

/// One buffer: the window of one branch.
#[derive(Debug)]
pub struct Window<D: Domain> {
    /// How many plain items may yet come with nothing to decide: no trigger fires, the timer is
    /// set, nobody waits in front. Beside `values`: one cache line per window is all the hot path
    /// touches.
    easy: usize,
    /// The same where a throttle decides on each of them first.
    throttled: usize,
    values: Vec<D::Item>,
    origins: Vec<Origin>,
    scope: Option<Box<Scope<D::Undo>>>,
    /// Source items the buffered ones stand for, beyond one each.
    extra: u32,
    bytes: u64,
    opened: Time,
    latest: Time,
    due: Option<Reason>,
    /// Items the last window held, as far as room is made for the next one at once.
    expected: usize,
    /// Whether a timer of the engine will look at this window: at most one does at a time, so
    /// that idle windows cost no memory.
    pub(crate) armed: bool,
}

impl<D: Domain> Default for Window<D> {
    fn default() -> Self {
        Self {
            easy: 0,
            throttled: 0,
            values: Vec::new(),
            origins: Vec::new(),
            scope: None,
            extra: 0,
            bytes: 0,
            opened: Time::ZERO,
            latest: Time::ZERO,
            due: None,
            expected: 0,
            armed: false,
        }
    }
}

impl<D: Domain> Window<D> {
    /// Items buffered.
    pub const fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is buffered.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What is buffered, in order of arrival.
    pub fn values(&self) -> &[D::Item] {
        &self.values
    }

    /// When the first of what is buffered came; `None` while nothing is.
    pub fn opened(&self) -> Option<Time> {
        (!self.is_empty()).then_some(self.opened)
    }

    /// Source items the buffered ones stand for.
    pub fn weight(&self) -> u32 {
        u32::try_from(self.values.len()).unwrap_or(u32::MAX) + self.extra
    }

    /// Why the window must leave before it takes another item, if it must.
    pub const fn due(&self) -> Option<Reason> {
        self.due
    }

    /// Takes an item in. The caller cuts a window that is due before it pushes.
    pub fn push(&mut self, item: Item<D>, options: &WindowOptions, now: Time) {
        self.unsettle();
        if self.values.is_empty() {
            self.opened = now;
            if self.values.capacity() == 0 {
                // Windows of a branch resemble each other: one allocation instead of a dozen.
                self.values.reserve(self.expected);
            }
        }
        self.latest = now;
        self.extra += item.weight - 1;
        self.bytes += u64::from(item.bytes);
        if item.origin.is_known() {
            self.origins.push(item.origin);
        }
        if let Some(scope) = item.scope {
            match &mut self.scope {
                Some(mine) => mine.absorb(*scope),
                None => self.scope = Some(scope),
            }
        }
        self.values.push(item.value);
        if options
            .max_items
            .is_some_and(|most| self.values.len() >= most)
        {
            self.due = Some(Reason::Size);
        } else if options.max_bytes.is_some_and(|most| self.bytes >= most) {
            self.due = Some(Reason::Bytes);
        }
    }

    /// Takes a plain item in if that decides nothing; otherwise the caller goes by
    /// [`Window::push`].
    ///
    /// # Errors
    /// The value, if there is something to decide.
    #[inline]
    pub(crate) fn push_easily(&mut self, value: D::Item) -> Result<(), D::Item> {
        if self.easy == 0 {
            return Err(value);
        }
        self.easy -= 1;
        self.values.push(value);
        Ok(())
    }

    /// Works out how many plain items may come with nothing to decide; whatever makes the window
    /// due takes it back. Nobody waits in front of a window that is not due.
    pub(crate) fn settle(&mut self, options: &WindowOptions, throttled: bool) {
        let decided = self.due.is_none()
            && !self.is_empty()
            && (self.armed || !options.timed())
            // These two look at each item.
            && options.idle.is_none()
            && options.max_bytes.is_none();
        let easy = if decided {
            let most = options.max_items.unwrap_or(usize::MAX);
            // The last one fires the trigger.
            most.saturating_sub(self.values.len() + 1)
        } else {
            0
        };
        (self.easy, self.throttled) = if throttled { (0, easy) } else { (easy, 0) };
    }

    /// From here on each item decides something.
    pub(crate) const fn unsettle(&mut self) {
        self.easy = 0;
        self.throttled = 0;
    }

    /// Whether an item that a throttle lets through decides nothing; then it goes by
    /// [`Window::push_throttled`].
    #[inline]
    pub(crate) const fn is_easy(&self) -> bool {
        self.throttled > 0
    }

    /// Takes such an item in.
    #[inline]
    pub(crate) fn push_throttled(&mut self, value: D::Item) {
        self.throttled -= 1;
        self.values.push(value);
    }

    /// When age or silence makes the window due, and which; `None` while it is empty, due
    /// already, or has no such trigger.
    pub fn deadline(&self, options: &WindowOptions) -> Option<(Time, Reason)> {
        if self.is_empty() || self.due.is_some() {
            return None;
        }
        let age = options
            .max_age
            .map(|age| (self.opened.after(age), Reason::Age));
        let idle = options
            .idle
            .map(|idle| (self.latest.after(idle), Reason::Idle));
        match (age, idle) {
            (Some(age), Some(idle)) => Some(if idle.0 < age.0 { idle } else { age }),
            (age, idle) => age.or(idle),
        }
    }

    /// Makes the window due if its deadline has passed.
    pub fn expire(&mut self, options: &WindowOptions, now: Time) {
        if let Some((_, reason)) = self.deadline(options).filter(|(at, _)| *at <= now) {
            self.due = Some(reason);
            self.unsettle();
        }
    }

    /// Empties the window. What it returns is a snapshot: nothing changes it later.
    pub fn cut(&mut self, reason: Reason, now: Time) -> Contents<D> {
        let weight = self.weight();
        self.unsettle();
        self.extra = 0;
        self.bytes = 0;
        self.due = None;
        self.expected = self.values.len().min(1024);
        Contents {
            values: std::mem::take(&mut self.values),
            origins: std::mem::take(&mut self.origins),
            weight,
            scope: self.scope.take(),
            cut: Cut {
                reason,
                opened: self.opened,
                closed: now,
            },
        }
    }
}
