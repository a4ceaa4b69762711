//! `Late`: an attempt that has timed out, in the hands of who still runs its operation.

use std::time::Duration;

use anabranch_core::engine::AttemptId;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::run::{Run, locked};
use super::undo::Undo;
use super::work::{CallResult, InHand};

/// A timed-out attempt, and the error that its unit fails with.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) attempt: AttemptId,
    error: Py<PyAny>,
}

impl Late {
    /// # Errors
    /// What making the error raises: a signal handler may come in between.
    pub(crate) fn new(py: Python<'_>, run: &Run, leg: usize, attempt: AttemptId) -> PyResult<Self> {
        let legs = run.legs()?;
        let (stage, timeout) = legs
            .get(leg)
            .map_or((0, None), |leg| (leg.stage, leg.timeout));
        let shared = &run.shared;
        let stage = shared.stages.get(stage);
        let error = shared
            .timed_out
            .bind(py)
            .call1((&shared.pipeline, stage, timeout))?;
        Ok(Self {
            attempt,
            error: error.unbind(),
        })
    }

    /// The same for an undo action that the deadline of its rollback has come over.
    pub(crate) fn undo(
        py: Python<'_>,
        run: &Run,
        undo: &Undo,
        given: Duration,
        attempt: AttemptId,
    ) -> PyResult<Self> {
        let error = undo_timed_out(py, run, undo, given.as_secs_f64(), true)?;
        Ok(Self { attempt, error })
    }

    pub(crate) fn error(&self, py: Python<'_>) -> PyErr {
        PyErr::from_value(self.error.bind(py).clone())
    }

    /// The operation has ended after all. An exception is noted on the error, a result is not kept.
    /// Returns whether there was one.
    pub(crate) fn ended(&self, py: Python<'_>, run: &Run, result: &CallResult) -> bool {
        match result {
            Ok(_) => true,
            // The answer to our own cancellation.
            Err(error) if error.is_instance_of::<CancelledError>(py) => false,
            Err(error) => {
                run.shared.postpone(py, error.clone_ref(py));
                let late = error.value(py);
                set(py, run, &self.error(py), pyo3::intern!(py, "late"), late);
                false
            }
        }
    }
}

/// The error of an undo action that took longer than it may: its own timeout, or the deadline of its
/// rollback.
pub(crate) fn undo_timed_out(
    py: Python<'_>,
    run: &Run,
    undo: &Undo,
    given: f64,
    by_deadline: bool,
) -> PyResult<Py<PyAny>> {
    let shared = &run.shared;
    let stage = undo.stage_name();
    let error = shared.undo_timed_out.bind(py).call1((
        &*undo.name,
        given,
        by_deadline,
        &shared.pipeline,
        stage,
    ))?;
    Ok(error.unbind())
}

/// Notes on the error of a late attempt that its grace is over, too. Runs Python: the lock that the
/// [`Late`] is behind must not be held.
pub(crate) fn abandoned(py: Python<'_>, run: &Run, error: &PyErr) {
    set(py, run, error, pyo3::intern!(py, "abandoned"), true);
}

fn set<'py>(
    py: Python<'py>,
    run: &Run,
    error: &PyErr,
    name: &Bound<'py, PyString>,
    value: impl IntoPyObject<'py>,
) {
    if let Err(other) = error.value(py).setattr(name, value) {
        run.shared.postpone(py, other);
    }
}

impl Run {
    /// Tells the engine, on the driving thread, of a call that was cancelled and does not end.
    pub(crate) fn forsaken(&self, work: &InHand, seconds: f64) {
        if let InHand::Unit { unit, .. } = work {
            let ran = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            locked(&self.engine).tell_abandoned(unit.branch, unit.leg, unit.attempt, ran);
        }
    }

    /// Tells the engine, on the driving thread, that the operation of a late attempt has ended.
    pub(crate) fn ended_here(&self, attempt: AttemptId, gave: bool) {
        locked(&self.engine).ended(attempt, gave);
    }
}
