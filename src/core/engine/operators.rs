//! What becomes of failures behind the place where they arose.
//!
//! A failure is an item of another kind. It flows past windows, keys and handlers to the first
//! operator behind it: a leg that takes failures only, in the row at the place its stage has in the
//! plan. So the way of an item leads from handler to handler, that of a failure from operator to
//! operator, and [`Ways`](super::ways::Ways) knows both.
//!
//! ```text
//!  unit or item fails --> undone --> on its way --take_failures--> the driver
//!                                        |                          |      |
//!                                  abort |                    offer |      | lose
//!                                        v                          v      v
//!                                     failed     operator's lane, handler  failed
//!                                                 |        |        |
//!                                    recovered: an item    |     fails, or passes it on:
//!                                    behind the operator   |     on its way once more
//!                                                     dead-lettered
//! ```
//!
//! A failure goes on when what its unit did is undone, and not before. It counts where it ends: as
//! failed when no operator has taken it, never twice, and never if it was recovered. Until then
//! its items are inside. Once the run is aborted, no operator is asked any more: what is on its way
//! or waits for one has failed.
//!
//! An operator whose handler only looks completes its unit as failed, with the failure it was
//! given.

use super::rollback::Then;
use super::streaks::Place;
use super::{Domain, Engine, Failed, Item, Unit};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::Scope;

/// What a leg that takes failures does with one its handler is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The handler only looks, or makes another failure of it: it goes on as one.
    PassOn,
    /// What the handler gives goes on as an item.
    Recover,
    /// The failure has ended.
    DeadLetter,
}

/// A failure that goes on once its unit is undone.
#[derive(Debug)]
pub(super) struct Failing<D: Domain> {
    operator: usize,
    failed: Failed<D>,
    /// The unit that failed, if it was one.
    unit: Option<Unit<D>>,
}

impl<D: Domain> Failing<D> {
    pub(super) const fn error(&self) -> &D::Error {
        &self.failed.error
    }
}

impl<D: Domain> Engine<D> {
    /// Whether a leg takes failures.
    pub(super) fn is_operator(&self, leg: usize) -> bool {
        self.config.legs[leg].operator.is_some()
    }

    /// A unit or an item has failed for good at a leg: its branch hears of it, once, whatever
    /// operators make of it.
    pub(super) fn fail_from(
        &mut self,
        at: (usize, Place),
        behind: usize,
        mut failed: Failed<D>,
        scope: Option<Box<Scope<D::Undo>>>,
        unit: Option<Unit<D>>,
        now: Time,
    ) {
        let streak = self.enter_streak(&mut failed, at, behind);
        self.fail_behind((at.0, behind), failed, scope, unit, now);
        self.count_in_streak(streak, now);
    }

    /// What failed at a leg is undone, and then goes to the first operator from the leg `behind`
    /// on, if there is one.
    pub(super) fn fail_behind(
        &mut self,
        (at, behind): (usize, usize),
        failed: Failed<D>,
        scope: Option<Box<Scope<D::Undo>>>,
        unit: Option<Unit<D>>,
        now: Time,
    ) {
        let branch = failed.branch;
        // One that is no item's, of a source that broke, is nobody's to take.
        let operator = self.ways.operator(at, behind);
        let then = match operator.filter(|_| !self.aborted() && failed.items > 0) {
            None => {
                self.lose(failed, now);
                unit.map_or(Then::Nothing, Then::Release)
            }
            Some(operator) => {
                self.ways.heading[operator] += 1;
                self.branches[branch.index()].outside += u64::from(failed.items);
                Then::Fail(Box::new(Failing {
                    operator,
                    failed,
                    unit,
                }))
            }
        };
        self.undo(branch, scope, then, now);
    }

    /// What a failed unit did is undone: its failure goes on.
    pub(super) fn send_failure(&mut self, failing: Failing<D>, now: Time) {
        let Failing {
            operator,
            failed,
            unit,
        } = failing;
        self.ways.failures.push((operator, failed));
        if self.aborted() {
            self.lose_failures(now);
        }
        if let Some(unit) = unit {
            self.let_go(unit, std::iter::empty(), now);
        }
    }

    /// The failures on their way, each with the operator's leg it may go to at the earliest. The
    /// driver offers each to that operator or to one behind it, or [`lose`](Engine::lose)s it,
    /// before it calls [`Engine::poll`] again.
    pub fn take_failures(&mut self) -> Vec<(usize, Failed<D>)> {
        let failures = std::mem::take(&mut self.ways.failures);
        for (operator, failed) in &failures {
            self.ways.heading[*operator] -= 1;
            self.branches[failed.branch.index()].outside -= u64::from(failed.items);
        }
        failures
    }

    /// Failures whose operator will not be asked, because the run was aborted: the driver
    /// [`lose`](Engine::lose)s each.
    pub fn take_unheard(&mut self) -> Vec<(BranchId, Item<D>)> {
        let unheard = std::mem::take(&mut self.ways.unheard);
        for (branch, item) in &unheard {
            self.branches[branch.index()].outside -= u64::from(item.weight);
        }
        unheard
    }

    /// Whether there is something for [`Engine::take_failures`] or [`Engine::take_unheard`].
    pub fn has_failures(&self) -> bool {
        !self.ways.is_empty()
    }

    /// The operator's leg that a failure goes to if the one at `operator` does not take it.
    pub fn operator_behind(&self, operator: usize) -> Option<usize> {
        self.ways.operator(operator, operator + 1)
    }

    /// The run is aborted: no operator is asked any more.
    pub(super) fn lose_failures(&mut self, now: Time) {
        for (_, failed) in self.take_failures() {
            self.lose(failed, now);
        }
    }

    /// An item will not be handed out. One that is a failure has failed; what that means, its
    /// driver knows.
    pub(super) fn give_up_item(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        if self.is_operator(leg) {
            self.branches[branch.index()].outside += u64::from(item.weight);
            self.ways.unheard.push((branch, item));
        } else {
            self.leave(branch, item, now);
        }
    }

    /// Whether something may still come to `leg`.
    pub(super) fn is_reachable(&self, leg: usize) -> bool {
        // On the way to the next handler are stages in front of the operator, too.
        let last = match self.ways.next(leg) {
            Some(next) if self.is_operator(leg) => next,
            None if self.is_operator(leg) => self.arrivals.len() - 1,
            _ => leg,
        };
        let mut before = self.ways.before(leg);
        before.any(|leg| !self.closed[leg] || self.load[leg] > 0)
            || self.ways.heading[leg] > 0
            || self.arrivals[..=last].iter().any(|it| !it.is_empty())
    }
}
