//! `Channel`: the core's channel between threads, event loops and pipelines.
//!
//! Nothing here waits: who finds no room, or no item, leaves a waiter and goes to sleep in Python,
//! where no frame of ours lies on the stack. The lock is held for the core's bookkeeping alone; no
//! Python runs, and no item dies, under it.
//!
//! - `channel/exchange.rs`: what both Python's callers and pipelines do with it.

mod exchange;

use std::sync::{Arc, Mutex};

use anabranch_core::channel::{Counts, OnFull, Shared, Taken, Ticket};
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::errors::ForkedProcessError;
use super::run::locked;
use super::work::ends_the_process;
use crate::clock::Clock;
use crate::wake::Wake;

/// How one who waits is woken.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A callable: that of a task, or of a thread.
    Call(Py<PyAny>),
    /// The driver of a pipeline.
    Driver(Arc<Wake>),
}

impl Waiter {
    /// Wakes it, and says whether it can come; `fatal` keeps what a signal handler raised.
    fn wake(&self, py: Python<'_>, fatal: &mut Option<PyErr>) -> bool {
        let Self::Call(call) = self else {
            if let Self::Driver(wake) = self {
                wake.wake();
            }
            return true;
        };
        // Twice, if need be: a signal handler may raise before the callable has done anything, and
        // to wake one twice is harmless. What raises again is the waking itself: the event loop
        // of the one who waits is closed.
        (0..2).any(|_| match call.call0(py) {
            Ok(_) => true,
            Err(error) => {
                if ends_the_process(py, &error) {
                    fatal.get_or_insert(error);
                }
                false
            }
        })
    }
}

/// The error a channel was closed with.
#[derive(Debug)]
struct Failure {
    error: Py<PyAny>,
    /// As it was then: raising the same object for every receiver must not make it grow.
    traceback: Option<Py<PyAny>>,
}

type State = Shared<Py<PyAny>, Failure, Waiter>;

/// A bounded channel of Python objects.
#[pyclass(frozen, module = "anabranch._core", name = "Channel")]
#[derive(Debug)]
pub(crate) struct PyChannel {
    name: String,
    /// The process it was made in: nobody wakes those who wait in a fork.
    process: u32,
    clock: Clock,
    state: Mutex<State>,
}

#[pymethods]
impl PyChannel {
    #[new]
    #[pyo3(signature = (name, capacity, on_full))]
    fn new(name: String, capacity: usize, on_full: &str) -> PyResult<Self> {
        let on_full = match on_full {
            "wait" => OnFull::Wait,
            "drop_newest" => OnFull::DropNewest,
            "drop_oldest" => OnFull::DropOldest,
            "fail" => OnFull::Fail,
            other => {
                return Err(PyValueError::new_err(format!(
                    "no rule is called {other:?}"
                )));
            }
        };
        Ok(Self {
            name,
            process: std::process::id(),
            clock: Clock::start(None),
            state: Mutex::new(Shared::new(capacity, on_full)),
        })
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[getter]
    fn capacity(&self) -> usize {
        locked(&self.state).capacity()
    }

    /// Whether nothing more can be sent.
    #[getter]
    fn closed(&self) -> bool {
        locked(&self.state).is_closed()
    }

    /// Whether it was closed with an error.
    #[getter]
    fn failed(&self) -> bool {
        locked(&self.state).failure().is_some()
    }

    /// Whether a batch goes in whole, so that it may be too large to ever do so.
    #[getter]
    fn whole(&self) -> bool {
        matches!(locked(&self.state).on_full(), OnFull::Wait | OnFull::Fail)
    }

    /// What happened so far.
    #[pyo3(signature = ())]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (counts, capacity) = {
            let state = locked(&self.state);
            (state.counts(self.clock.now()), state.capacity())
        };
        let Counts {
            sent,
            received,
            dropped,
            depth,
            blocked,
            senders,
            receivers,
        } = counts;
        let stats = PyDict::new(py);
        stats.set_item("depth", depth)?;
        stats.set_item("capacity", capacity)?;
        stats.set_item("sent", sent)?;
        stats.set_item("received", received)?;
        stats.set_item("dropped", dropped)?;
        stats.set_item("blocked", blocked.as_secs_f64())?;
        stats.set_item("senders", senders)?;
        stats.set_item("receivers", receivers)?;
        Ok(stats)
    }

    /// Sends an item; says whether it could, or its sender has to wait.
    ///
    /// Raises `ChannelClosed`, and `ChannelFull` under that rule.
    #[pyo3(signature = (item, turn=None))]
    fn send(&self, py: Python<'_>, item: Py<PyAny>, turn: Option<u64>) -> PyResult<bool> {
        let (sent, fatal) = self.offer(py, std::iter::once(item), turn.map(Ticket));
        raised(fatal)?;
        sent
    }

    /// Sends a batch, in whole; like [`Self::send`].
    #[pyo3(signature = (items, turn=None))]
    fn send_many(
        &self,
        py: Python<'_>,
        items: &Bound<'_, PyList>,
        turn: Option<u64>,
    ) -> PyResult<bool> {
        let items: Vec<Py<PyAny>> = items.iter().map(Bound::unbind).collect();
        let (sent, fatal) = self.offer(py, items.into_iter(), turn.map(Ticket));
        raised(fatal)?;
        sent
    }

    /// Takes the oldest item; `nothing`, if there is none to be had now.
    ///
    /// At the end raises the error of the channel, or `ChannelClosed`.
    #[pyo3(signature = (nothing, turn=None))]
    fn receive(
        &self,
        py: Python<'_>,
        nothing: Py<PyAny>,
        turn: Option<u64>,
    ) -> PyResult<Py<PyAny>> {
        let mut state = locked(&self.state);
        let taken = state.receive(turn.map(Ticket));
        raised(self.settle(py, state))?;
        match taken {
            Taken::Item(item) => Ok(item),
            Taken::Empty => Ok(nothing),
            Taken::Ended => Err(self.end(py)),
        }
    }

    /// Takes the oldest items, at most so many; an empty list, if there is none to be had now.
    ///
    /// At the end raises the error of the channel, or `ChannelClosed`.
    #[pyo3(signature = (most, turn=None))]
    fn receive_many<'py>(
        &self,
        py: Python<'py>,
        most: Option<usize>,
        turn: Option<u64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (taken, fatal) = self.take(py, most.unwrap_or(usize::MAX), turn.map(Ticket));
        raised(fatal)?;
        match taken {
            Taken::Item(items) => PyList::new(py, items),
            Taken::Empty => Ok(PyList::empty(py)),
            Taken::Ended => Err(self.end(py)),
        }
    }

    /// A place in line, to be joined with: it can be given up whatever comes in between.
    #[pyo3(signature = ())]
    pub(crate) fn ticket(&self) -> PyResult<u64> {
        if self.process != std::process::id() {
            let message = format!(
                "channel '{}' was made in process {} and cannot be waited for in its fork {}: \
                 make one after the fork",
                self.name,
                self.process,
                std::process::id()
            );
            return Err(ForkedProcessError::new_err(message));
        }
        let Ticket(ticket) = locked(&self.state).ticket();
        Ok(ticket)
    }

    /// Waits for room; `wake` is called when it is there, or will never be.
    #[pyo3(signature = (ticket, items, wake))]
    fn join_senders(
        &self,
        py: Python<'_>,
        ticket: u64,
        items: usize,
        wake: Py<PyAny>,
    ) -> PyResult<()> {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        state.join_senders(Ticket(ticket), items, Waiter::Call(wake), now);
        raised(self.settle(py, state))
    }

    /// Waits for an item; `wake` is called when there is one, or none will come.
    #[pyo3(signature = (ticket, wake))]
    fn join_receivers(&self, py: Python<'_>, ticket: u64, wake: Py<PyAny>) -> PyResult<()> {
        raised(self.wait(py, Ticket(ticket), Waiter::Call(wake)))
    }

    /// Gives up a place in line, or what was promised to its holder.
    #[pyo3(signature = (ticket))]
    fn leave(&self, py: Python<'_>, ticket: u64) -> PyResult<()> {
        raised(self.give_up(py, Ticket(ticket)))
    }

    /// Lets nothing more in, because of `error` if there is one. The first end stands.
    #[pyo3(signature = (error=None))]
    fn close(&self, py: Python<'_>, error: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let failure = match error {
            Some(error) => {
                let traceback = error.getattr(pyo3::intern!(py, "__traceback__"))?;
                Some(Failure {
                    traceback: (!traceback.is_none()).then(|| traceback.unbind()),
                    error: error.unbind(),
                })
            }
            None => None,
        };
        let now = self.clock.now();
        let mut state = locked(&self.state);
        let late = state.close(failure, now);
        let settled = self.settle(py, state);
        drop(late);
        raised(settled)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector may come while somebody holds the lock: it comes again.
        if let Ok(state) = self.state.try_lock() {
            for item in state.items() {
                visit.call(item)?;
            }
            for waiter in state.waiters() {
                if let Waiter::Call(call) = waiter {
                    visit.call(call)?;
                }
            }
            if let Some(failure) = state.failure() {
                visit.call(&failure.error)?;
                visit.call(&failure.traceback)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let fresh = Shared::new(1, OnFull::Fail);
        let old = self
            .state
            .try_lock()
            .map(|mut state| std::mem::replace(&mut *state, fresh));
        drop(old);
    }
}

/// For Python's callers; a pipeline keeps the error until nothing is in its hand.
fn raised(fatal: Option<PyErr>) -> PyResult<()> {
    fatal.map_or(Ok(()), Err)
}
