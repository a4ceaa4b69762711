//! Undo actions that are stuck, as operators deal with them: tried again, or left out for good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rollback::Then;
use super::traces::{Reach, StepState};
use super::{Domain, Engine, Fate, RollbackId, Undone};
use crate::clock::Time;
use crate::compensation::{Policy, Rollback, Step};

impl<D: Domain> Engine<D> {
    /// Tries the stuck actions again that `which` chooses: those of each rollback one after the
    /// other, the last registered first. Returns how many they are. What fails again is stuck again.
    pub fn retry_stuck(&mut self, which: impl Fn(&Undone<D>) -> bool, now: Time) -> usize {
        let chosen = self.take_stuck(which);
        let count = chosen.len();
        self.undone_counts.failed -= count as u64;
        let mut rollbacks: BTreeMap<RollbackId, Vec<Undone<D>>> = BTreeMap::new();
        for undone in chosen {
            rollbacks.entry(undone.rollback).or_default().push(undone);
        }
        for (id, actions) in rollbacks {
            let branch = actions[0].branch;
            let then = match self.traces.reach(id) {
                Reach::Unit => Then::Nothing,
                Reach::Branch => Then::Branch,
                Reach::Run => Then::Run,
            };
            let mut steps = Vec::new();
            for undone in actions {
                self.traces.settle(id, undone.step.order, None);
                if let Fate::Failed(error) = undone.fate {
                    self.graveyard.errors.push(error);
                }
                steps.push(undone.step);
            }
            let (finalizers, due) = steps.into_iter().partition(Step::is_finalizer);
            let rollback = Rollback::new(due, finalizers, Policy::Sequential);
            let id = self.begin_rollback(branch, rollback, then, true, now);
            self.advance(id, now);
        }
        count
    }

    /// Leaves the stuck actions out for good that `which` chooses; returns how many they are.
    pub fn skip_stuck(&mut self, which: impl Fn(&Undone<D>) -> bool) -> usize {
        let chosen = self.take_stuck(which);
        let count = chosen.len();
        self.undone_counts.failed -= count as u64;
        for undone in chosen {
            let skipped = Some(StepState::Skipped);
            self.traces
                .settle(undone.rollback, undone.step.order, skipped);
            if let Fate::Failed(error) = undone.fate {
                self.graveyard.errors.push(error);
            }
            let (id, branch, step) = (undone.rollback, undone.branch, undone.step);
            self.log_undo((id, branch), step, Fate::Skipped, Duration::ZERO);
        }
        count
    }

    fn take_stuck(&mut self, which: impl Fn(&Undone<D>) -> bool) -> Vec<Undone<D>> {
        let (chosen, others) = std::mem::take(&mut self.stuck).into_iter().partition(which);
        self.stuck = others;
        chosen
    }
}
