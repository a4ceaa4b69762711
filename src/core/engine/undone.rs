//! What has become of each undo action and finalizer: what is counted, and listed, of it.

use std::time::Duration;

use super::{Domain, Engine, Fate, MAX_SAMPLES, MAX_STUCK, RollbackId, Undone};
use crate::branch::BranchId;
use crate::compensation::{Ended, Policy, Step};

impl<D: Domain> Engine<D> {
    /// Counts what has become of an action, and lists it.
    pub(super) fn log_undo(
        &mut self,
        (rollback, branch): (RollbackId, BranchId),
        mut step: Step<D::Undo>,
        fate: Fate<D::Error>,
        took: Duration,
    ) {
        if let Some(undoing) = self.rollbacks.get_mut(&rollback) {
            undoing.trace.end::<D>(&step, &fate, took);
        }
        let counts = &mut self.undone_counts;
        let (list, most) = match &fate {
            Fate::Done if step.is_finalizer() => {
                // Only counted: units that succeed have them, too.
                counts.finalized += 1;
                self.graveyard.undos.push(step.undo);
                return;
            }
            Fate::Done => {
                counts.done += 1;
                self.branches[branch.index()].undone += 1;
                self.gauges.undo(D::label(&step.undo).stage);
                D::settled(&mut step.undo);
                (&mut self.undone, MAX_SAMPLES)
            }
            Fate::Skipped => {
                counts.skipped += 1;
                D::settled(&mut step.undo);
                (&mut self.undone, MAX_SAMPLES)
            }
            Fate::Failed(_) | Fate::Unrun => {
                counts.failed += 1;
                (&mut self.stuck, MAX_STUCK)
            }
        };
        self.undone_number += 1;
        if list.len() < most {
            list.push(Undone {
                number: self.undone_number,
                rollback,
                branch,
                step,
                fate,
                took,
            });
        } else {
            self.graveyard.undos.push(step.undo);
            if let Fate::Failed(error) = fate {
                self.graveyard.errors.push(error);
            }
        }
    }

    /// Tells what of a rollback will not run: at its end, after what ran.
    pub(super) fn log_abandoned(&mut self, id: RollbackId) {
        let Some(undoing) = self.rollbacks.get_mut(&id) else {
            return;
        };
        let branch = undoing.branch;
        for step in undoing.rollback.abandoned() {
            let fate = self.fate_without_a_turn(&step);
            self.log_undo((id, branch), step, fate, Duration::ZERO);
        }
    }

    /// Tells what of a scope that has ended has had no turn, and will have none.
    pub(super) fn log_left_out(&mut self, branch: BranchId, ended: Ended<D::Undo>) {
        for step in ended.due.into_iter().chain(ended.finalizers) {
            let fate = self.fate_without_a_turn(&step);
            self.log_undo((RollbackId::NONE, branch), step, fate, Duration::ZERO);
        }
    }

    /// The fate of what has had no turn, and will have none.
    fn fate_without_a_turn(&self, step: &Step<D::Undo>) -> Fate<D::Error> {
        match self.config.rollback.policy {
            // A finalizer is not what the policy leaves out: it has had no turn in time.
            Policy::Skip if !step.is_finalizer() => Fate::Skipped,
            _ => Fate::Unrun,
        }
    }
}
