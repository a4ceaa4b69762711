//! Rollbacks under way: what a unit did is undone, then the unit is tried again or let go.
//!
//! A unit that succeeds may have one, too: its finalizers, and what it held together with other
//! outputs of which one has failed.

use std::time::Duration;

use super::operators::Failing;
use super::traces::{Reach, Trace};
use super::unit::{Alarm, Fate, Timer};
use super::{Domain, Engine, Port, RollbackId, Turn, Unit};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::{Ended, MAX_PASSES, Policy, Rollback, Scope, Step};

/// What follows a rollback.
#[derive(Debug)]
pub(super) enum Then<D: Domain> {
    /// The unit is tried again, not before this time.
    Retry(Unit<D>, Time),
    /// The unit has ended; its lane goes on.
    Release(Unit<D>),
    /// The item was in no handler.
    Nothing,
    /// It was what a branch had registered.
    Branch,
    /// It was what ends with the run.
    Run,
    /// What failed goes on to an operator.
    Fail(Box<Failing<D>>),
}

/// A rollback under way.
#[derive(Debug)]
pub(super) struct Undoing<D: Domain> {
    pub(super) rollback: Rollback<D::Undo>,
    pub(super) then: Then<D>,
    pub(super) branch: BranchId,
    pub(super) trace: Trace,
    deadline: Time,
    /// Whether the deadline has passed.
    late: bool,
}

impl<D: Domain> Engine<D> {
    /// The undo actions that have not run yet, by branch.
    pub fn undos_left(&self) -> impl Iterator<Item = (BranchId, usize)> {
        let under_way = self.rollbacks.values();
        under_way.map(|it| (it.branch, it.rollback.left()))
    }

    /// Takes back an undo action that ran, with what it registered meanwhile.
    pub fn complete_undo(
        &mut self,
        turn: Turn<D>,
        error: Option<D::Error>,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        self.end_undo(&turn);
        let id = turn.rollback;
        let Some(undoing) = self.rollbacks.get_mut(&id) else {
            self.graveyard.undos.push(turn.step.undo);
            self.graveyard.errors.extend(error);
            if let Some(scope) = registered {
                let ended = scope.end(true);
                self.graveyard.bury_steps(ended.released);
                self.graveyard.bury_steps(ended.finalizers);
            }
            return;
        };
        undoing.rollback.ran(registered.map(|scope| *scope));
        // What was cancelled at the deadline may come back before anyone has looked at the clock.
        undoing.late |= now >= undoing.deadline;
        if undoing.late {
            undoing.rollback.give_up();
        }
        let fate = error.map_or(Fate::Done, Fate::Failed);
        let took = now.since(turn.began);
        self.log_undo((id, turn.branch), turn.step, fate, took);
        self.advance(id, now);
    }

    /// Whether there is one for [`Engine::next_unarranged`].
    pub fn has_unarranged(&self) -> bool {
        !self.unarranged.is_empty()
    }

    /// The compensations of a rollback that has begun, the last registered first, for the driver
    /// to arrange by its own policy; it gives them back through [`Engine::arrange`].
    pub fn next_unarranged(&mut self) -> Option<(RollbackId, Vec<Step<D::Undo>>)> {
        loop {
            let id = self.unarranged.pop_front()?;
            // One that was given up before its turn is not there any more.
            if let Some(undoing) = self.rollbacks.get_mut(&id) {
                return Some((id, undoing.rollback.unarranged()));
            }
        }
    }

    /// Takes back the compensations of a rollback: `steps` are run in this order, `skipped` are
    /// not.
    pub fn arrange(
        &mut self,
        rollback: RollbackId,
        steps: Vec<Step<D::Undo>>,
        skipped: Vec<Step<D::Undo>>,
        now: Time,
    ) {
        let Some(undoing) = self.rollbacks.get_mut(&rollback) else {
            self.graveyard.bury_steps(steps);
            self.graveyard.bury_steps(skipped);
            return;
        };
        undoing.rollback.arranged(steps);
        if undoing.late {
            undoing.rollback.give_up();
        }
        let branch = undoing.branch;
        for step in skipped {
            self.log_undo((rollback, branch), step, Fate::Skipped, Duration::ZERO);
        }
        self.advance(rollback, now);
    }

    /// Hands out the next undo action for a port.
    pub(super) fn next_undo(&mut self, port: usize, now: Time) -> Option<Turn<D>> {
        let (rollback, step) = self.undos[port].pop_front()?;
        let (branch, deadline) = match self.rollbacks.get_mut(&rollback) {
            Some(undoing) => {
                undoing.trace.begin::<D>(&step, now);
                (undoing.branch, undoing.deadline)
            }
            None => (BranchId::TRUNK, Time::NEVER),
        };
        let attempt = self.begin_undo(branch, deadline, now);
        Some(Turn {
            rollback,
            step,
            branch,
            began: now,
            deadline,
            attempt,
        })
    }

    /// When the next rollback gives up.
    pub(super) fn rollback_deadline(&self) -> Option<Time> {
        let next = self.rollbacks.values().find(|undoing| !undoing.late)?;
        (next.deadline < Time::NEVER).then_some(next.deadline)
    }

    /// Rollbacks whose time is up hand out nothing more; what runs is waited for.
    pub(super) fn give_up_rollbacks(&mut self, now: Time) {
        while self.rollback_deadline().is_some_and(|at| at <= now) {
            let next = self.rollbacks.iter().find(|(_, undoing)| !undoing.late);
            let Some(id) = next.map(|(id, _)| *id) else {
                return;
            };
            self.give_up_rollback(id, now);
        }
    }

    pub(super) fn give_up_rollback(&mut self, id: RollbackId, now: Time) {
        let Some(undoing) = self.rollbacks.get_mut(&id) else {
            return;
        };
        undoing.late = true;
        undoing.rollback.give_up();
        let branch = undoing.branch;
        for port in 0..self.undos.len() {
            let waiting = std::mem::take(&mut self.undos[port]);
            for (of, step) in waiting {
                if of != id {
                    self.undos[port].push_back((of, step));
                    continue;
                }
                if let Some(undoing) = self.rollbacks.get_mut(&id) {
                    undoing.rollback.ran(None);
                }
                self.log_undo((id, branch), step, Fate::Unrun, Duration::ZERO);
            }
        }
        self.advance(id, now);
    }

    /// A scope ends badly: it is undone, or joins what is undone with the run as a whole.
    pub(super) fn undo(
        &mut self,
        branch: BranchId,
        scope: Option<Box<Scope<D::Undo>>>,
        then: Then<D>,
        now: Time,
    ) {
        match scope {
            None => self.proceed(then, now),
            Some(scope) if self.joins_whole(&then) => {
                self.whole.join(*scope);
                self.proceed(then, now);
            }
            Some(mut scope) => {
                if self.config.rollback.commit_at_end {
                    // What other outputs did upon it is kept to the end of the run, so it is, too.
                    self.whole.join(scope.take_failed());
                }
                self.play(branch, scope.end(false), then, now);
            }
        }
    }

    /// A scope ends well: its compensations are released, or kept to the end of the run.
    pub(super) fn end_well(
        &mut self,
        branch: BranchId,
        scope: Option<Box<Scope<D::Undo>>>,
        then: Then<D>,
        now: Time,
    ) {
        let Some(scope) = scope else {
            self.proceed(then, now);
            return;
        };
        self.end_with_others(branch, scope.end(true), then, now);
    }

    /// What has ended well may have been held together with an output that has failed.
    fn end_with_others(
        &mut self,
        branch: BranchId,
        mut ended: Ended<D::Undo>,
        then: Then<D>,
        now: Time,
    ) {
        let mut owner = branch;
        if self.config.rollback.commit_at_end {
            let kept = std::mem::take(&mut ended.released);
            self.whole.join(Scope::new(kept));
        }
        if !ended.due.is_empty() {
            // That output was of whichever branch. It may have been taken care of, and the run be
            // good as a whole.
            owner = BranchId::TRUNK;
            if self.is_undone_as_one() {
                self.whole.join(Scope::new(std::mem::take(&mut ended.due)));
                self.whole.join(std::mem::take(&mut ended.held).into());
            }
        }
        self.graveyard.bury_steps(ended.released);
        ended.released = Vec::new();
        self.play(owner, ended, then, now);
    }

    /// Releases what undoes items that ended well in a stage of the driver's.
    pub fn release_scope(
        &mut self,
        branch: BranchId,
        scope: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        self.end_well(branch, scope, Then::Nothing, now);
    }

    /// Starts a rollback, or goes on at once if there is nothing to run.
    pub(super) fn play(
        &mut self,
        branch: BranchId,
        ended: Ended<D::Undo>,
        then: Then<D>,
        now: Time,
    ) {
        debug_assert!(
            ended.released.is_empty(),
            "the caller buries what is released"
        );
        if ended.is_quiet() {
            self.proceed(then, now);
            return;
        }
        if self.rounds_of(branch, &then) > MAX_PASSES {
            // Actions that register further ones at their level each time they run.
            self.log_left_out(branch, ended);
            self.proceed(then, now);
            return;
        }
        let policy = self.config.rollback.policy;
        let undoes = !ended.due.is_empty();
        let arranges = policy == Policy::Custom && undoes;
        let id = self.begin_rollback(branch, Rollback::of(ended, policy), then, undoes, now);
        if arranges {
            self.unarranged.push_back(id);
        } else {
            self.advance(id, now);
        }
    }

    /// How often what is wider than a unit has ended, this time included.
    fn rounds_of(&mut self, branch: BranchId, then: &Then<D>) -> u8 {
        let rounds = match then {
            Then::Branch => &mut self.branches[branch.index()].life.rounds,
            Then::Run => &mut self.whole.rounds,
            Then::Retry(..) | Then::Release(_) | Then::Nothing | Then::Fail(_) => return 0,
        };
        *rounds = rounds.saturating_add(1);
        *rounds
    }

    pub(super) fn begin_rollback(
        &mut self,
        branch: BranchId,
        rollback: Rollback<D::Undo>,
        then: Then<D>,
        undoes: bool,
        now: Time,
    ) -> RollbackId {
        self.sequence += 1;
        let id = RollbackId(self.sequence);
        let reach = match &then {
            Then::Branch => Reach::Branch,
            Then::Run => Reach::Run,
            Then::Retry(..) | Then::Release(_) | Then::Nothing | Then::Fail(_) => Reach::Unit,
        };
        if matches!(then, Then::Branch) {
            self.branches[branch.index()].life.undoing += 1;
        }
        let deadline = self.config.rollback.deadline;
        let undoing = Undoing {
            rollback,
            then,
            branch,
            trace: Trace::new(reach, undoes, now),
            deadline: deadline.map_or(Time::NEVER, |most| now.after(most)),
            late: false,
        };
        self.rollbacks.insert(id, undoing);
        id
    }

    pub(super) fn advance(&mut self, id: RollbackId, now: Time) {
        let Some(undoing) = self.rollbacks.get_mut(&id) else {
            return;
        };
        while let Some(step) = undoing.rollback.next() {
            let Port(port) = D::port(&step.undo);
            self.undos[port].push_back((id, step));
        }
        let over = undoing.rollback.is_over();
        if over || !undoing.late {
            self.log_abandoned(id);
        }
        if over && let Some(mut undoing) = self.rollbacks.remove(&id) {
            self.remember(id, &mut undoing, now);
            if matches!(undoing.then, Then::Branch) {
                self.branches[undoing.branch.index()].life.undoing -= 1;
            }
            let held = undoing.rollback.let_go();
            self.end_with_others(undoing.branch, held.end(), Then::Nothing, now);
            self.proceed(undoing.then, now);
        }
    }

    fn proceed(&mut self, then: Then<D>, now: Time) {
        match then {
            Then::Retry(unit, at) if self.tries_no_more(&unit) => {
                self.fail_in_back_off(unit, at, now);
            }
            Then::Retry(unit, at) => {
                self.sequence += 1;
                self.timers.push(Timer {
                    at,
                    order: self.sequence,
                    alarm: Alarm::Retry(unit),
                });
            }
            Then::Release(unit) => self.let_go(unit, std::iter::empty(), now),
            Then::Nothing | Then::Branch | Then::Run => {}
            Then::Fail(failing) => self.send_failure(*failing, now),
        }
    }
}
