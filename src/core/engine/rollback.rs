//! Rollbacks under way: what a unit did is undone, then the unit is tried again or let go.

use super::unit::{Alarm, Timer};
use super::{Domain, Engine, MAX_SAMPLES, Port, RollbackId, Undone, Unit};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::{Rollback, Scope};

/// What follows a rollback.
#[derive(Debug)]
pub(super) enum Then<D: Domain> {
    /// The unit is tried again, not before this time.
    Retry(Unit<D>, Time),
    /// The unit has failed; its lane goes on.
    Release(Unit<D>),
    /// The item was in no handler.
    Nothing,
}

/// A rollback under way.
#[derive(Debug)]
pub(super) struct Undoing<D: Domain> {
    rollback: Rollback<D::Undo>,
    then: Then<D>,
    branch: BranchId,
    /// When the action under way was handed out.
    started: Time,
}

impl<D: Domain> Engine<D> {
    /// Takes back an undo action that ran, with what it registered meanwhile.
    pub fn complete_undo(
        &mut self,
        rollback: RollbackId,
        undo: D::Undo,
        error: Option<D::Error>,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        let Some(undoing) = self.rollbacks.get_mut(&rollback) else {
            self.graveyard.undos.push(undo);
            self.graveyard.errors.extend(error);
            self.release_scope(registered);
            return;
        };
        if let Some(scope) = registered {
            undoing.rollback.register(*scope);
        }
        let (branch, took) = (undoing.branch, now.since(undoing.started));
        self.log_undo(Undone {
            branch,
            undo,
            error,
            took,
        });
        self.advance(rollback, now);
    }

    /// An undo action is handed out.
    pub(super) fn undo_begins(&mut self, rollback: RollbackId, now: Time) {
        if let Some(undoing) = self.rollbacks.get_mut(&rollback) {
            undoing.started = now;
        }
    }

    fn log_undo(&mut self, undone: Undone<D>) {
        if undone.error.is_some() {
            self.undone_counts.failed += 1;
        } else {
            self.undone_counts.done += 1;
        }
        if self.undone.len() < MAX_SAMPLES {
            self.undone.push(undone);
        } else {
            self.graveyard.undos.push(undone.undo);
            self.graveyard.errors.extend(undone.error);
        }
    }

    /// Starts a rollback, or goes on at once if there is nothing to undo.
    pub(super) fn undo(
        &mut self,
        branch: BranchId,
        scope: Option<Box<Scope<D::Undo>>>,
        then: Then<D>,
        now: Time,
    ) {
        let Some(scope) = scope.filter(|scope| !scope.is_empty()) else {
            self.proceed(then, now);
            return;
        };
        self.sequence += 1;
        let id = RollbackId(self.sequence);
        let rollback = scope.into_rollback();
        self.rollbacks.insert(
            id,
            Undoing {
                rollback,
                then,
                branch,
                started: now,
            },
        );
        self.advance(id, now);
    }

    fn advance(&mut self, id: RollbackId, now: Time) {
        let Some(undoing) = self.rollbacks.get_mut(&id) else {
            return;
        };
        if let Some(undo) = undoing.rollback.next() {
            let Port(port) = D::port(&undo);
            self.undos[port].push_back((id, undo));
            return;
        }
        let abandoned = undoing.rollback.abandoned();
        self.undone_counts.failed += abandoned.len() as u64;
        self.graveyard.undos.extend(abandoned);
        if let Some(undoing) = self.rollbacks.remove(&id) {
            self.proceed(undoing.then, now);
        }
    }

    fn proceed(&mut self, then: Then<D>, now: Time) {
        match then {
            Then::Retry(unit, at) if self.aborted() => self.fail_in_back_off(unit, at, now),
            Then::Retry(unit, at) => {
                self.sequence += 1;
                self.timers.push(Timer {
                    at,
                    order: self.sequence,
                    alarm: Alarm::Retry(unit),
                });
            }
            Then::Release(unit) => self.let_go(unit, std::iter::empty(), now),
            Then::Nothing => {}
        }
    }
}
