//! `Job`: a unit or an undo action in the hands of a pool thread or of a coroutine.

use std::sync::Mutex;

use anabranch_core::clock::Time;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::errors::ClosedError;
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
    /// Whether it holds a place in the pool.
    pooled: bool,
}

impl Job {
    pub(crate) fn new(run: Py<Run>, work: InHand, pooled: bool) -> Self {
        Self {
            run,
            work: Mutex::new(Some(work)),
            awaitable: Mutex::default(),
            pooled,
        }
    }

    pub(crate) fn adopted(run: Py<Run>, work: InHand, awaitable: Py<PyAny>) -> Self {
        let awaitable = Mutex::new(Some(awaitable));
        Self {
            run,
            work: Mutex::new(Some(work)),
            awaitable,
            pooled: false,
        }
    }

    fn end(&self, result: PyResult<Py<PyAny>>) {
        if let Some(work) = locked(&self.work).take() {
            self.run.get().give_back(work, result, self.pooled);
        }
    }
}

impl Drop for Job {
    /// A job that is let go is not lost: a signal handler may raise before anyone runs it.
    fn drop(&mut self) {
        self.end(Err(CancelledError::new_err(
            "the job was let go before it ran",
        )));
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

    /// Seconds an undo action may take: by its own timeout, and until its rollback gives up.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        let (own, deadline) = match locked(&self.work).as_ref() {
            Some(InHand::Undo { turn, .. }) => (turn.step.undo.timeout, turn.deadline),
            _ => return None,
        };
        let left = (deadline < Time::NEVER)
            .then(|| deadline.since(self.run.get().shared.now()).as_secs_f64());
        [own, left].into_iter().flatten().reduce(f64::min)
    }

    /// Whether it is an undo action, which is never cancelled.
    #[getter]
    fn undo(&self) -> bool {
        matches!(locked(&self.work).as_ref(), Some(InHand::Undo { .. }))
    }

    #[pyo3(signature = (result=None))]
    fn done(&self, py: Python<'_>, result: Option<Py<PyAny>>) {
        self.end(Ok(result.unwrap_or_else(|| py.None())));
    }

    fn failed(&self, error: Bound<'_, PyAny>) {
        self.end(Err(PyErr::from_value(error)));
    }
}
