//! What is undone with a branch, or with the run as a whole: actions registered at those levels,
//! and what joins them so that all is undone in one order.
//!
//! Units that fail are undone by themselves, at once. But when the run itself fails or is aborted
//! while something is registered at a wider level, what its units did is part of the same tree of
//! scopes: it joins the others, and one rollback undoes all, last in, first out. It begins when
//! no unit is left: one still with a handler may yet register, and what it has done is undone
//! first. A handler that is stuck would keep everything from being undone: it is the driver's to
//! leave behind, and to give its unit back.
//!
//! With `commit_at_end` units join when they succeed, too, and the run commits as one: if every item
//! that went in was committed, filtered or dead-lettered, and no branch has failed. One that failed,
//! was dropped or is left, whether or not something was registered for it, is enough to undo all.

use super::rollback::Then;
use super::{Domain, Engine};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::{Scope, Step};

/// What an action belongs to, if not to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It ends with the branch, or with the run: badly if one of them does.
    Branch(BranchId),
    /// It ends with the run.
    Pipeline,
}

/// What ends with the run.
#[derive(Debug)]
pub(super) struct Whole<D: Domain> {
    scope: Scope<D::Undo>,
    /// Actions registered at a level wider than the unit, here and in the branches.
    wide: u64,
    /// Whether something that ends no unit has failed: the source has, or, with `commit_at_end`, a
    /// branch.
    failed: bool,
    /// How often it has ended: what was registered for it meanwhile ends with it once more.
    pub(super) rounds: u8,
}

impl<D: Domain> Default for Whole<D> {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            wide: 0,
            failed: false,
            rounds: 0,
        }
    }
}

impl<D: Domain> Whole<D> {
    pub(super) fn join(&mut self, scope: Scope<D::Undo>) {
        self.scope.absorb(scope);
    }
}

impl<D: Domain> Engine<D> {
    /// Registers an action at a level wider than the unit. It stays, whatever becomes of the unit.
    pub fn register(&mut self, level: Level, step: Step<D::Undo>) {
        self.whole.wide += 1;
        match level {
            Level::Pipeline => self.whole.scope.push(step),
            Level::Branch(branch) => self.branches[branch.index()]
                .scope
                .get_or_insert_default()
                .push(step),
        }
    }

    /// The run has failed, though none of its items has: its source did.
    pub const fn fail(&mut self) {
        self.whole.failed = true;
    }

    /// A branch has failed: what was registered for it is undone.
    pub fn undo_branch(&mut self, branch: BranchId, now: Time) {
        // Where it is all or none, it is none.
        self.whole.failed |= self.config.rollback.commit_at_end;
        let scope = self.take_branch(branch);
        self.undo(branch, scope, Then::Branch, now);
    }

    /// A branch has closed well: what was registered for it is released.
    pub fn commit_branch(&mut self, branch: BranchId, now: Time) {
        let scope = self.take_branch(branch);
        self.end_well(branch, scope, Then::Branch, now);
    }

    fn take_branch(&mut self, branch: BranchId) -> Option<Box<Scope<D::Undo>>> {
        let scope = self.branches[branch.index()].scope.take()?;
        self.whole.wide -= scope.steps().len() as u64;
        Some(scope)
    }

    /// Whether there is something that ends with the run.
    pub(super) const fn has_whole(&self) -> bool {
        self.whole.wide > 0 || !self.whole.scope.is_empty()
    }

    /// Whether a scope that ends now is undone with the run rather than by itself.
    pub(super) fn joins_whole(&self, then: &Then<D>) -> bool {
        match then {
            // What an attempt did is undone before the next one.
            Then::Retry(..) => self.aborted() && self.is_undone_as_one(),
            // It may be recovered, and the run then good as a whole.
            Then::Fail(_) => self.is_undone_as_one(),
            Then::Release(_) | Then::Nothing | Then::Branch | Then::Run => {
                self.config.rollback.commit_at_end || self.is_undone_as_one()
            }
        }
    }

    /// Whether the run ends badly, and takes what its units did with it.
    pub(super) fn is_undone_as_one(&self) -> bool {
        let ends = self.aborted() || self.stopping;
        ends && (self.whole.wide > 0 || self.config.rollback.commit_at_end)
    }

    /// Ends what ends with the run, once all else has.
    pub(super) fn settle_whole(&mut self, now: Time) {
        if !self.has_whole() || !self.at_rest() {
            return;
        }
        let scope = self.take_whole();
        let mut ended = scope.end(self.ends_well());
        self.graveyard
            .bury_steps(std::mem::take(&mut ended.released));
        self.play(BranchId::TRUNK, ended, Then::Run, now);
    }

    /// The run is left before all was undone: what has had no turn is stuck. Actions that run now
    /// may still be given back.
    pub fn abandon(&mut self, now: Time) {
        let mut left = self.take_whole();
        for undoing in self.rollbacks.values_mut() {
            left.absorb(undoing.rollback.let_go().into());
        }
        for id in self.rollbacks.keys().copied().collect::<Vec<_>>() {
            self.give_up_rollback(id, now);
            self.log_abandoned(id);
        }
        let left = left.end(false);
        self.log_left_out(BranchId::TRUNK, left);
    }

    fn take_whole(&mut self) -> Scope<D::Undo> {
        self.whole.wide = 0;
        let mut scope = std::mem::take(&mut self.whole.scope);
        for branch in &mut self.branches {
            if let Some(of_branch) = branch.scope.take() {
                scope.absorb(*of_branch);
            }
        }
        scope
    }

    /// Whether a run that commits as one could not, though it came to its end.
    pub fn falls_short(&self) -> bool {
        self.config.rollback.commit_at_end && !self.ends_well()
    }

    /// Whether the run is good as a whole.
    fn ends_well(&self) -> bool {
        let broken = self.aborted() || self.stopping || self.whole.failed;
        !broken && (!self.config.rollback.commit_at_end || self.counts().is_whole())
    }
}
