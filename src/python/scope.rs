//! `Scope` and `Playback`: compensation scopes by themselves, and the playback of their actions.
//!
//! The rules are the core's; `anabranch.scope` calls the actions.

use std::sync::Mutex;

use anabranch_core::compensation::{Ended, Kind, Policy, Rollback, Scope, Step};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::action::Action;
use super::context::Context;
use super::domain::INLINE;
use super::inspector::Inspector;
use super::run::locked;
use super::undo::{Given, Limit, Passed, Registrar, Tries, Undo, next_order};

/// What was registered with one scope.
#[pyclass(frozen, module = "anabranch._core", name = "Scope")]
#[derive(Debug)]
pub(crate) struct PyScope {
    inspector: Inspector,
    scope: Mutex<Scope<Undo>>,
}

#[pymethods]
impl PyScope {
    #[new]
    fn new(inspect: Inspector) -> Self {
        Self {
            inspector: inspect,
            scope: Mutex::default(),
        }
    }

    #[pyo3(signature = (r#fn, args, *, finalizer, when, name, retries, timeout))]
    #[expect(clippy::too_many_arguments, reason = "those of `compensate`")]
    fn register(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        finalizer: bool,
        when: Given<'_, bool>,
        name: Given<'_, Option<String>>,
        retries: Given<'_, Tries>,
        timeout: Given<'_, Option<Limit>>,
    ) -> PyResult<()> {
        let kind = if finalizer {
            Kind::Finalizer
        } else {
            Kind::Compensation
        };
        let registrar = Registrar {
            verb: if finalizer { "finalize" } else { "compensate" },
            home: None,
            stage: 0,
            tenant: None,
            port: INLINE,
            inspector: &self.inspector,
        };
        let passed = Passed {
            function: r#fn,
            args,
            when,
            name,
            retries,
            timeout,
        };
        if let Some(undo) = registrar.undo(py, passed)? {
            let step = Step {
                order: next_order(),
                kind,
                undo,
            };
            locked(&self.scope).push(step);
        }
        Ok(())
    }

    /// Compensations and finalizers pending.
    fn pending(&self) -> (usize, usize) {
        let scope = locked(&self.scope);
        let finalizers = scope.steps().iter().filter(|step| step.is_finalizer());
        let finalizers = finalizers.count();
        (scope.steps().len() - finalizers, finalizers)
    }

    /// Takes over what `other` holds.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn absorb(&self, other: PyRef<'_, Self>) {
        let taken = other.take();
        locked(&self.scope).absorb(taken);
    }

    /// Ends what was registered so far; what is to be run is in the playback.
    fn end(&self, well: bool, policy: &str) -> Playback {
        let Ended {
            released,
            due,
            finalizers,
            // A scope by hand has one holder.
            held: _,
        } = self.take().end(well);
        let policy = match policy {
            "parallel" => Policy::Parallel,
            "none" => Policy::Skip,
            "custom" => Policy::Custom,
            _ => Policy::Sequential,
        };
        // Outside the lock: dropping runs foreign code.
        drop(released);
        Playback::new(Rollback::new(due, finalizers, policy))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.inspector.traverse(&visit)?;
        if let Ok(scope) = self.scope.try_lock() {
            for step in scope.steps() {
                visit.call(&step.undo.call)?;
                visit.call(&step.undo.args)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.take());
        self.inspector.forget();
    }
}

impl PyScope {
    pub(crate) fn take(&self) -> Scope<Undo> {
        std::mem::take(&mut *locked(&self.scope))
    }
}

/// A playback: what to run next.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Playback {
    rollback: Mutex<Rollback<Undo>>,
}

impl Playback {
    const fn new(rollback: Rollback<Undo>) -> Self {
        let rollback = Mutex::new(rollback);
        Self { rollback }
    }
}

#[pymethods]
impl Playback {
    /// The playback of actions that got stuck; those that are playing elsewhere are left out.
    #[staticmethod]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn of(actions: Vec<Py<Action>>) -> Self {
        let steps = actions.iter().filter_map(|action| action.get().take());
        let (finalizers, due) = steps.partition(Step::is_finalizer);
        Self::new(Rollback::new(due, finalizers, Policy::Sequential))
    }

    /// The next action; None while it must wait for those that run, or when it is over.
    fn next(&self, py: Python<'_>) -> Option<Action> {
        let step = locked(&self.rollback).next()?;
        Some(Action::new(py, step))
    }

    /// An action has run, and this is what its tries registered with.
    fn ran(&self, registered: Vec<Bound<'_, PyAny>>) {
        let mut all = Scope::default();
        for it in registered {
            if let Ok(scope) = it.cast::<PyScope>() {
                all.absorb(scope.get().take());
            } else if let Ok(context) = it.cast::<Context>() {
                all.absorb(context.get().close().whole());
            }
        }
        locked(&self.rollback).ran(Some(all));
    }

    /// The first pass, for a policy to arrange.
    fn unarranged(&self, py: Python<'_>) -> Vec<Action> {
        let steps = locked(&self.rollback).unarranged();
        let actions = steps.into_iter();
        actions.map(|step| Action::new(py, step)).collect()
    }

    /// Takes back what of the first pass is to be run, in this order.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn arranged(&self, actions: Vec<Py<Action>>) {
        let steps = actions.iter().filter_map(|action| action.get().take());
        locked(&self.rollback).arranged(steps.collect());
    }

    /// Hands out nothing more.
    fn give_up(&self) {
        locked(&self.rollback).give_up();
    }

    /// The actions that will not run.
    fn abandoned(&self, py: Python<'_>) -> Vec<Action> {
        let steps = locked(&self.rollback).abandoned();
        let actions = steps.into_iter();
        actions.map(|step| Action::new(py, step)).collect()
    }

    #[getter]
    fn over(&self) -> bool {
        locked(&self.rollback).is_over()
    }
}
