//! What moves through the engine: items, units of work, and their outcomes.

use std::fmt::Debug;
use std::time::Duration;

use super::{AttemptId, Label, MAX_HISTORY};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::{Scope, Step};
use crate::retry::GaveUp;
use crate::window::{Contents, Cut};

/// The types a driver puts into the engine, which treats them as opaque.
pub trait Domain: Debug + Sized {
    /// One event.
    type Item: Debug;
    /// Why an attempt failed.
    type Error: Debug;
    /// One undo action or finalizer.
    type Undo: Debug;

    /// The code a failure is counted under.
    fn code(error: &Self::Error) -> &str;
    /// The failure of a unit whose back-off was cut short, made of its last attempt's. Called
    /// while the engine is borrowed: it must run no foreign code.
    fn cancelled(last: Self::Error) -> Self::Error;
    /// Whether a failure that nobody has taken stops the pipeline; `otherwise`, if nothing says so
    /// of this one.
    fn stops(_error: &Self::Error, otherwise: bool) -> bool {
        otherwise
    }
    /// The stage a failure arose at, by number.
    fn stage(_error: &Self::Error) -> usize {
        0
    }
    /// Where an undo action runs.
    fn port(undo: &Self::Undo) -> Port;
    /// An undo action that is kept has been run, or left out: it is not owed any more. Called while
    /// the engine is borrowed.
    fn settled(_undo: &mut Self::Undo) {}
    /// What an undo action is called, for those who look.
    fn label(_undo: &Self::Undo) -> Label {
        Label::default()
    }
}

/// Where the driver runs a piece of work: a number it has given to a thread, a pool of threads or
/// a set of tasks. Work for one port never waits behind work for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub usize);

/// An item's number at its source, for sources that want to hear what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(u64);

impl Origin {
    /// The source does not ask.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// The `n`th item of the source, from zero.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// Whether the source asks.
    pub const fn is_known(self) -> bool {
        self.0 != u64::MAX
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// One event on its way.
#[derive(Debug)]
pub struct Item<D: Domain> {
    /// The event.
    pub value: D::Item,
    /// Where it came from.
    pub origin: Origin,
    /// What undoes the effects it had upstream; `None` costs nothing.
    pub scope: Option<Box<Scope<D::Undo>>>,
    /// Source items it stands for: more than one once a window was turned into a value.
    pub weight: u32,
    /// Its size, where a window counts bytes; of a failure, the streak it belongs to.
    pub bytes: u32,
}

impl<D: Domain> Item<D> {
    /// An item that stands for itself and has no history.
    pub const fn new(value: D::Item) -> Self {
        Self {
            value,
            origin: Origin::UNKNOWN,
            scope: None,
            weight: 1,
            bytes: 0,
        }
    }

    /// What an operator is given of a failure.
    pub fn of_failure(value: D::Item, failed: &Failed<D>) -> Self {
        Self {
            weight: failed.items,
            bytes: failed.streak,
            ..Self::new(value)
        }
    }
}

/// What a unit holds.
#[derive(Debug)]
pub enum Payload<T> {
    /// One item.
    One(T),
    /// A window.
    Many(Vec<T>),
    /// A window the driver has made one value of.
    Sealed {
        /// The value.
        value: T,
        /// Items the window held.
        entries: usize,
    },
}

/// What one handler call works on: an item or a window.
///
/// A unit is moved, never copied: whoever holds it is responsible for giving it back through
/// [`Engine::complete`](crate::engine::Engine::complete).
#[derive(Debug)]
pub struct Unit<D: Domain> {
    /// Whose it is.
    pub branch: BranchId,
    /// Which leg's handler it is for.
    pub leg: usize,
    /// The items.
    pub payload: Payload<D::Item>,
    /// Source items it stands for.
    pub weight: u32,
    /// The number of the attempt to come or under way, from 1.
    pub attempt: u32,
    /// Where its items came from; empty unless tracked.
    pub origins: Vec<Origin>,
    /// What undoes the effects it had upstream.
    pub scope: Option<Box<Scope<D::Undo>>>,
    /// How its window left, if it is one.
    pub cut: Option<Box<Cut>>,
    /// Earlier attempts.
    pub history: Option<Box<History<D>>>,
    /// When it was handed out.
    pub(crate) began: Time,
    pub(crate) slot: u32,
    /// Of a failure: the streak it belongs to.
    pub(crate) streak: u32,
}

/// What the attempts so far came to.
#[derive(Debug)]
pub struct History<D: Domain> {
    /// The errors of failed attempts, oldest first: the first one and the latest, at most
    /// [`MAX_HISTORY`].
    pub errors: Vec<D::Error>,
    /// Time spent waiting between attempts.
    pub delay: Duration,
    /// The last of these waits.
    pub(crate) waited: Duration,
    /// When the first attempt began, where the policy asks.
    pub(crate) began: Time,
    /// The attempt under way, if it has a deadline.
    pub(crate) watched: Option<(Time, AttemptId)>,
}

impl<D: Domain> History<D> {
    pub(crate) const fn new(began: Time) -> Self {
        Self {
            errors: Vec::new(),
            delay: Duration::ZERO,
            waited: Duration::ZERO,
            began,
            watched: None,
        }
    }

    /// Adds the error of one more attempt; returns the one that has to go for it.
    pub(crate) fn push(&mut self, error: D::Error) -> Option<D::Error> {
        // The first error often says most: those after it may only say "still broken".
        let surplus = (self.errors.len() >= MAX_HISTORY).then(|| self.errors.remove(1));
        self.errors.push(error);
        surplus
    }
}

impl<D: Domain> Unit<D> {
    pub(crate) fn of_item((branch, leg): (BranchId, usize), item: Item<D>) -> Self {
        let origins = if item.origin.is_known() {
            vec![item.origin]
        } else {
            Vec::new()
        };
        Self {
            branch,
            leg,
            payload: Payload::One(item.value),
            weight: item.weight,
            attempt: 1,
            origins,
            scope: item.scope,
            cut: None,
            history: None,
            began: Time::NEVER,
            slot: 0,
            streak: item.bytes,
        }
    }

    pub(crate) fn of_window((branch, leg): (BranchId, usize), contents: Contents<D>) -> Self {
        Self {
            branch,
            leg,
            payload: Payload::Many(contents.values),
            weight: contents.weight,
            attempt: 1,
            origins: contents.origins,
            scope: contents.scope,
            cut: Some(Box::new(contents.cut)),
            history: None,
            began: Time::NEVER,
            slot: 0,
            streak: 0,
        }
    }
}

impl<D: Domain> Unit<D> {
    /// The history, which begins `now` if there is none yet.
    pub(crate) fn history_from(&mut self, now: Time) -> &mut History<D> {
        self.history
            .get_or_insert_with(|| Box::new(History::new(now)))
    }
}

/// Names a rollback under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RollbackId(pub(crate) u64);

impl RollbackId {
    /// That of actions that were given up with the run as a whole, before any rollback had them.
    pub(crate) const NONE: Self = Self(0);

    /// The number those who look know it by.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Something for the driver to run.
#[derive(Debug)]
pub enum Work<D: Domain> {
    /// A handler call.
    Unit(Unit<D>),
    /// One undo action or finalizer.
    Undo(Turn<D>),
}

/// An undo action or finalizer whose turn has come.
///
/// Moved like a unit: whoever holds it gives it back through
/// [`Engine::complete_undo`](crate::engine::Engine::complete_undo).
#[derive(Debug)]
pub struct Turn<D: Domain> {
    /// The rollback it belongs to.
    pub rollback: RollbackId,
    /// What to call.
    pub step: Step<D::Undo>,
    /// Whose unit it was registered for, or the trunk.
    pub branch: BranchId,
    /// When it was handed out.
    pub began: Time,
    /// When the rollback gives up: no further try begins then, and what can be cancelled is.
    pub deadline: Time,
    /// What [`Engine::take_overdue`](crate::engine::Engine::take_overdue) calls it, if it has a
    /// deadline.
    pub attempt: Option<AttemptId>,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome<D: Domain> {
    /// It succeeded; for a leg that is not the last, with these values for the next one.
    Done(Vec<D::Item>),
    /// It failed.
    Failed {
        /// Why.
        error: D::Error,
        /// Whether another attempt makes sense.
        again: Again,
    },
    /// It was cut short because the process is to end: it counts as left, and is undone.
    Interrupted,
}

/// Whether a failed attempt is worth another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No.
    No,
    /// Yes, if and when the leg's policy says so.
    Yes,
    /// Yes, and the policy leaves the delay to the driver, which asks for this one.
    After(Duration),
}

/// A unit or an item that failed for good.
#[derive(Debug)]
pub struct Failed<D: Domain> {
    /// Where.
    pub branch: BranchId,
    /// Why, the last time.
    pub error: D::Error,
    /// Source items lost with it.
    pub items: u32,
    /// Attempts made.
    pub attempts: u32,
    /// Time spent waiting between them.
    pub delay: Duration,
    /// The errors of earlier attempts: the first one and the latest.
    pub history: Vec<D::Error>,
    /// Why there was no further attempt.
    pub gave_up: GaveUp,
    /// The streak that it counts for once it has ended and was not recovered; 0: none.
    pub(crate) streak: u32,
}

impl<D: Domain> Failed<D> {
    /// A failure of one attempt.
    pub const fn new(branch: BranchId, error: D::Error, items: u32, gave_up: GaveUp) -> Self {
        Self {
            branch,
            error,
            items,
            attempts: 1,
            delay: Duration::ZERO,
            history: Vec::new(),
            gave_up,
            streak: 0,
        }
    }
}

/// An undo action or finalizer whose rollback is done with it.
#[derive(Debug)]
pub struct Undone<D: Domain> {
    /// Its place among all of the run.
    pub number: u64,
    /// The rollback it belonged to.
    pub rollback: RollbackId,
    /// Whose unit, or the trunk.
    pub branch: BranchId,
    /// The action.
    pub step: Step<D::Undo>,
    /// What became of it.
    pub fate: Fate<D::Error>,
    /// How long it took.
    pub took: Duration,
}

/// What became of an undo action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<E> {
    /// It ran to the end.
    Done,
    /// It failed: it is stuck.
    Failed(E),
    /// The deadline came, or the passes were used up, before its turn: it is stuck, too.
    Unrun,
    /// The policy left it out.
    Skipped,
}

impl<E> Fate<E> {
    /// Why it failed, if it did.
    pub const fn error(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Done | Self::Unrun | Self::Skipped => None,
        }
    }
}

/// What died inside the engine: dropping it may run foreign code, which the driver does once it
/// no longer borrows the engine.
#[derive(Debug)]
pub struct Graveyard<D: Domain> {
    /// Events.
    pub items: Vec<D::Item>,
    /// Errors beyond the samples kept.
    pub errors: Vec<D::Error>,
    /// Released undo actions.
    pub undos: Vec<D::Undo>,
}

impl<D: Domain> Default for Graveyard<D> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            errors: Vec::new(),
            undos: Vec::new(),
        }
    }
}

impl<D: Domain> Graveyard<D> {
    /// Whether there is nothing to drop.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty() && self.errors.is_empty() && self.undos.is_empty()
    }

    pub(crate) fn bury_payload(&mut self, payload: Payload<D::Item>) {
        match payload {
            Payload::One(value) | Payload::Sealed { value, .. } => self.items.push(value),
            Payload::Many(values) => self.items.extend(values),
        }
    }

    pub(crate) fn bury_steps(&mut self, steps: Vec<Step<D::Undo>>) {
        self.undos.extend(steps.into_iter().map(|step| step.undo));
    }
}

/// One timer of the engine.
#[derive(Debug)]
pub(crate) enum Alarm<D: Domain> {
    /// A window may be due.
    Window(BranchId, usize),
    /// A throttled lane may have a token.
    Throttle(BranchId, usize),
    /// A unit's back-off is over.
    Retry(Unit<D>),
    /// A branch's is, in this generation.
    Reopen(BranchId, u32),
}

/// A heap entry: earliest first, and in order of setting among equals.
#[derive(Debug)]
pub(crate) struct Timer<D: Domain> {
    pub(crate) at: Time,
    pub(crate) order: u64,
    pub(crate) alarm: Alarm<D>,
}

impl<D: Domain> PartialEq for Timer<D> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<D: Domain> Eq for Timer<D> {}

impl<D: Domain> PartialOrd for Timer<D> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<D: Domain> Ord for Timer<D> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
