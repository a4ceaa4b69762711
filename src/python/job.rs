//! `Job`: a unit or an undo action in the hands of a pool thread or of a coroutine.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anabranch_core::engine::AttemptId;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::errors::ClosedError;
use super::late::{self, Late};
use super::run::{Run, locked};
use super::work::InHand;

/// One piece of work that ends elsewhere than where it began.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Job {
    run: Py<Run>,
    work: Mutex<Option<InHand>>,
    /// What a `def` callable returned though it should have been awaited.
    awaitable: Mutex<Option<Py<PyAny>>>,
    /// Whether it holds a place in the pool; whoever frees it sets this to false.
    pooled: AtomicBool,
    /// The attempt has timed out, and its operation has not ended.
    late: Mutex<Option<Late>>,
    /// Whether the loop has been asked to cancel the operation, and has not been told of it.
    cancelled: AtomicBool,
}

impl Job {
    pub(crate) fn new(run: Py<Run>, work: InHand, pooled: bool) -> Self {
        Self::begun(run, work, None, pooled)
    }

    pub(crate) fn adopted(run: Py<Run>, work: InHand, awaitable: Py<PyAny>) -> Self {
        Self::begun(run, work, Some(awaitable), false)
    }

    fn begun(run: Py<Run>, work: InHand, awaitable: Option<Py<PyAny>>, pooled: bool) -> Self {
        Self {
            run,
            work: Mutex::new(Some(work)),
            awaitable: Mutex::new(awaitable),
            pooled: AtomicBool::new(pooled),
            late: Mutex::default(),
            cancelled: AtomicBool::new(false),
        }
    }

    /// The attempt has timed out: from here on the operation runs for nothing. Returns the work, if
    /// the operation has not ended meanwhile.
    pub(crate) fn time_out(&self, late: Late) -> Option<InHand> {
        let mut work = locked(&self.work);
        let work = work.take()?;
        *locked(&self.late) = Some(late);
        Some(work)
    }

    /// What an undo action that its rollback's deadline has come over fails with, if it has not
    /// ended meanwhile.
    pub(crate) fn late_undo(&self, py: Python<'_>, attempt: AttemptId) -> PyResult<Option<Late>> {
        // Copied: making the error runs Python.
        let (undo, given) = match locked(&self.work).as_ref() {
            Some(InHand::Undo { turn, .. }) => {
                let given = turn.deadline.since(turn.began);
                (turn.step.undo.clone_ref(py), given)
            }
            _ => return Ok(None),
        };
        Late::undo(py, self.run.get(), &undo, given, attempt).map(Some)
    }

    /// The grace is over, and another thread may have replaced that of the job. Returns whether
    /// the job's place in the pool is free by that.
    pub(crate) fn abandoned(&self, py: Python<'_>, replaced: bool) -> bool {
        let error = locked(&self.late).as_ref().map(|late| late.error(py));
        if let Some(error) = error {
            late::abandoned(py, self.run.get(), &error);
        }
        replaced && self.vacate()
    }

    /// Whoever asks may take the job's place in the pool, if it has one.
    pub(crate) fn vacate(&self) -> bool {
        self.pooled.swap(false, Ordering::AcqRel)
    }

    fn end(&self, py: Python<'_>, result: PyResult<Py<PyAny>>) {
        let work = locked(&self.work).take();
        let late = locked(&self.late).take();
        let run = self.run.get();
        let Some(late) = late else {
            match (work, result) {
                (Some(work), result) => run.give_back(work, result, self.vacate()),
                // It was left behind at an abort, which nothing but the process's end outlives.
                (None, Err(error)) => {
                    run.shared.postpone(py, error);
                    run.tell_driver();
                }
                (None, Ok(_)) => {}
            }
            return;
        };
        let gave = late.ended(py, run, &result);
        if let Some(work) = work {
            run.give_back(work, Err(late.error(py)), false);
        }
        run.ended(late.attempt, gave, self.vacate());
    }
}

impl Drop for Job {
    /// A job that is let go is not lost: a signal handler may raise before anyone runs it.
    fn drop(&mut self) {
        let never = || CancelledError::new_err("the job was let go before it ran");
        if let Some(work) = locked(&self.work).take() {
            self.run.get().give_back(work, Err(never()), self.vacate());
        }
    }
}

#[pymethods]
impl Job {
    /// The call to make: callable, arguments, keywords.
    ///
    /// Made by the thread itself: no frame of ours may lie below it when the interpreter exits
    /// and ends the thread, for unwinding through it would abort the process.
    fn parts<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Py<PyAny>, Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let legs = self.run.get().legs()?;
        let work = locked(&self.work);
        let keywords = PyDict::new(py);
        let (call, arguments, context) = match work.as_ref() {
            Some(InHand::Undo { turn, context, .. }) => {
                let undo = &turn.step.undo;
                (undo.call.clone_ref(py), undo.args.bind(py).clone(), context)
            }
            Some(InHand::Unit {
                unit,
                value,
                context,
            }) => {
                let handler = legs.get(unit.leg).and_then(|leg| leg.handler.as_ref());
                let handler = handler.map_or_else(|| py.None(), |handler| handler.clone_ref(py));
                (handler, PyTuple::new(py, [value])?, context)
            }
            None => return Err(ClosedError::new_err("the job has ended")),
        };
        if let Some(context) = context {
            keywords.set_item(pyo3::intern!(py, "ctx"), context)?;
        }
        Ok((call, arguments, keywords))
    }

    /// What to await. Calls an undo action that is a coroutine function.
    fn awaitable(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if let Some(awaitable) = locked(&self.awaitable).take() {
            return Ok(Some(awaitable));
        }
        let work = locked(&self.work).take();
        let awaitable = match &work {
            Some(work) => work.call(py, None).map(Some),
            None => Ok(None),
        };
        *locked(&self.work) = work;
        awaitable
    }

    /// Seconds an undo action may take, by its own timeout.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        match locked(&self.work).as_ref() {
            Some(InHand::Undo { turn, .. }) => turn.step.undo.timeout,
            _ => None,
        }
    }

    /// The undo action has taken longer than that: the error it fails with.
    fn overran(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let undo = match locked(&self.work).as_ref() {
            Some(InHand::Undo { turn, .. }) => turn.step.undo.clone_ref(py),
            _ => return Ok(None),
        };
        let given = undo.timeout.unwrap_or_default();
        late::undo_timed_out(py, self.run.get(), &undo, given, false).map(Some)
    }

    /// Whether it is an undo action, which is never cancelled.
    #[getter]
    pub(crate) fn undo(&self) -> bool {
        matches!(locked(&self.work).as_ref(), Some(InHand::Undo { .. }))
    }

    /// The attempt has timed out. Returns whether it is this job's: then its task is to be
    /// cancelled.
    fn expire(&self, py: Python<'_>, attempt: u64) -> PyResult<bool> {
        let attempt = AttemptId(attempt);
        let leg = match locked(&self.work).as_ref() {
            Some(work) if work.attempt() == Some(attempt) => work.leg(),
            _ => return Ok(false),
        };
        let late = match leg {
            Some(leg) => Some(Late::new(py, self.run.get(), leg, attempt)?),
            None => self.late_undo(py, attempt)?,
        };
        let Some(late) = late else { return Ok(false) };
        *locked(&self.late) = Some(late);
        self.cancelled.store(true, Ordering::Release);
        Ok(true)
    }

    /// The grace is over, too. Returns whether the attempt is this job's: then its task is to be
    /// left behind.
    fn abandon(&self, py: Python<'_>, attempt: u64) -> bool {
        let run = self.run.get();
        let error = match locked(&self.late).as_ref() {
            Some(late) if late.attempt == AttemptId(attempt) => late.error(py),
            _ => return false,
        };
        late::abandoned(py, run, &error);
        if let Some(work) = locked(&self.work).take() {
            run.give_back(work, Err(error), false);
        }
        true
    }

    /// Whether the task was cancelled because of the timeout; asking resets it.
    fn was_cancelled(&self) -> bool {
        self.cancelled.swap(false, Ordering::AcqRel)
    }

    /// Someone else has cancelled the task, too: that comes first.
    fn acquit(&self) {
        let late = locked(&self.late).take();
        if let Some(late) = late {
            self.run.get().ended(late.attempt, false, false);
        }
    }

    /// The run was aborted, and the call does not end: it is left behind, `seconds` later, and its
    /// unit fails. Returns whether it had one.
    pub(crate) fn forsake(&self, error: Bound<'_, PyAny>, seconds: f64) -> bool {
        let Some(work) = locked(&self.work).take() else {
            return false;
        };
        let run = self.run.get();
        run.forsaken(&work, seconds);
        run.give_back(work, Err(PyErr::from_value(error)), self.vacate());
        true
    }

    #[pyo3(signature = (result=None))]
    fn done(&self, py: Python<'_>, result: Option<Py<PyAny>>) {
        self.end(py, Ok(result.unwrap_or_else(|| py.None())));
    }

    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.end(py, Err(PyErr::from_value(error)));
    }
}
