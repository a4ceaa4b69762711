//! What handlers register, and how it is undone: what a run adds to the engine's rules.

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::{Scope, Step};
use anabranch_core::engine::{Level, RollbackId};
use pyo3::prelude::*;

use super::super::action;
use super::super::context::{Context, Wide};
use super::super::undo::Undo;
use super::{Hand, Run, locked};

impl Run {
    /// The tenant of an undo action: its own, or, if it was registered before the fan-out, that of
    /// the unit that is undone.
    pub(crate) fn tenant_of(
        &self,
        py: Python<'_>,
        undo: &Undo,
        branch: BranchId,
    ) -> Option<Py<PyAny>> {
        match &undo.tenant {
            Some(tenant) => Some(tenant.clone_ref(py)),
            None => self.tenant(py, branch),
        }
    }

    /// Ends a context: returns what goes with its unit, and hands the engine what does not.
    pub(crate) fn registered(
        &self,
        context: Option<&Py<Context>>,
        branch: BranchId,
    ) -> Option<Box<Scope<Undo>>> {
        let mut registered = context?.get().close();
        for (wide, step) in registered.wide.drain(..) {
            self.register(wide, branch, step);
        }
        registered.scope()
    }

    pub(crate) fn register(&self, wide: Wide, branch: BranchId, step: Step<Undo>) {
        let level = match wide {
            Wide::Branch => Level::Branch(branch),
            Wide::Pipeline => Level::Pipeline,
        };
        locked(&self.engine).register(level, step);
    }

    /// Has the user's policy arrange the rollbacks that have begun.
    pub(super) fn arrange(&self, py: Python<'_>, hand: &Hand) -> PyResult<bool> {
        let Some(policy) = &hand.arrange else {
            return Ok(false);
        };
        let mut progress = false;
        while let Some((rollback, steps)) = self.next_unarranged() {
            progress = true;
            let (steps, skipped) = action::arranged(py, policy, steps, &self.shared)?;
            let now = self.shared.now();
            locked(&self.engine).arrange(rollback, steps, skipped, now);
        }
        Ok(progress)
    }

    fn next_unarranged(&self) -> Option<(RollbackId, Vec<Step<Undo>>)> {
        locked(&self.engine).next_unarranged()
    }
}
