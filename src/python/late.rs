//! `Late`: an attempt that has timed out, in the hands of who still runs its operation.

use anabranch_core::engine::AttemptId;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::run::{Run, locked};
use super::work::CallResult;

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
    /// Tells the engine, on the driving thread, that the operation of a late attempt has ended.
    pub(crate) fn ended_here(&self, attempt: AttemptId, gave: bool) {
        locked(&self.engine).ended(attempt, gave);
    }
}
