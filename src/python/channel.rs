//! `Channel`: the core's channel between threads, event loops and pipelines.
//!
//! Nothing here waits: who finds no room, or no item, leaves a waiter and goes to sleep in Python,
//! where no frame of ours lies on the stack. The lock is held for the core's bookkeeping alone; no
//! Python runs, and no item dies, under it.
//!
//! - `channel/exchange.rs`: what both Python's callers and pipelines do with it.
//! - `channel/bell.rs`: how one who reads many of them is told which to look at.

mod bell;
mod exchange;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anabranch_core::channel::{Counts, OnFull, Place, Shared, Taken, Ticket};
use anabranch_core::clock::Time;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::errors::ForkedProcessError;
use super::run::locked;
use super::time::VirtualTime;
use super::work::ends_the_process;
use crate::clock::Clock;
use crate::wake::Wake;

pub(crate) use bell::Bell;
pub(crate) use exchange::Asked;

/// The lane of who names none: the least urgent.
const LAST: usize = usize::MAX;

/// How one who waits is woken.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A callable: that of a task, or of a thread.
    Call(Py<PyAny>),
    /// The driver of a pipeline.
    Driver(Arc<Wake>),
    /// Who reads this channel among others, by its number among them.
    Reader(Arc<Bell>, usize),
}

impl Waiter {
    /// Wakes it, and says whether it can come; `fatal` keeps what a signal handler raised.
    fn wake(&self, py: Python<'_>, fatal: &mut Option<PyErr>) -> bool {
        match self {
            Self::Call(call) => comes(py, call, fatal),
            Self::Driver(wake) => {
                wake.wake();
                true
            }
            Self::Reader(bell, number) => {
                let sleeper = bell.ring(*number);
                sleeper.is_none_or(|call| comes(py, &call, fatal))
            }
        }
    }
}

/// Calls what wakes somebody, and says whether it can come.
fn comes(py: Python<'_>, call: &Py<PyAny>, fatal: &mut Option<PyErr>) -> bool {
    // Twice, if need be: a signal handler may raise before the callable has done anything, and to
    // wake one twice is harmless. What raises again is the waking itself: the event loop of the
    // one who waits is closed.
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
    /// The calendar's time of its end, for whoever comes later.
    since: OnceLock<Py<PyAny>>,
}

#[pymethods]
impl PyChannel {
    #[new]
    #[pyo3(signature = (name, capacity, on_full, lanes=1, aging=None, time=None))]
    fn new(
        name: String,
        capacity: usize,
        on_full: &str,
        lanes: usize,
        aging: Option<f64>,
        time: Option<&VirtualTime>,
    ) -> PyResult<Self> {
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
        let aging = aging.map(|it| Duration::try_from_secs_f64(it).unwrap_or(Duration::MAX));
        Ok(Self {
            name,
            process: std::process::id(),
            clock: Clock::start(time.map(|it| it.0.clone())),
            state: Mutex::new(Shared::with_lanes(lanes, capacity, on_full, aging)),
            since: OnceLock::new(),
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

    /// How many items are inside.
    #[getter]
    fn depth(&self) -> usize {
        self.holds()
    }

    /// How many items are inside each lane, the most urgent first.
    #[getter]
    fn depths(&self) -> Vec<usize> {
        locked(&self.state).depths().collect()
    }

    /// Seconds in which somebody waited for room.
    #[getter]
    fn blocked(&self) -> f64 {
        let now = self.clock.now();
        locked(&self.state).counts(now).blocked.as_secs_f64()
    }

    /// Whether a sender may have to wait for room.
    #[getter]
    fn waits(&self) -> bool {
        locked(&self.state).on_full() == OnFull::Wait
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
    #[pyo3(signature = (item, turn=None, lane=None))]
    fn send(
        &self,
        py: Python<'_>,
        item: Py<PyAny>,
        turn: Option<u64>,
        lane: Option<usize>,
    ) -> PyResult<bool> {
        let (sent, fatal) = self.offer_to(
            py,
            lane.unwrap_or(LAST),
            std::iter::once(item),
            turn.map(Ticket),
        );
        raised(fatal)?;
        sent
    }

    /// Sends a batch, in whole; like [`Self::send`].
    #[pyo3(signature = (items, turn=None, lane=None))]
    fn send_many(
        &self,
        py: Python<'_>,
        items: &Bound<'_, PyList>,
        turn: Option<u64>,
        lane: Option<usize>,
    ) -> PyResult<bool> {
        let items: Vec<Py<PyAny>> = items.iter().map(Bound::unbind).collect();
        let (sent, fatal) = self.offer_to(
            py,
            lane.unwrap_or(LAST),
            items.into_iter(),
            turn.map(Ticket),
        );
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
    /// At the end raises the error of the channel, or `ChannelClosed`. Into `places` goes where each
    /// of them was taken from, if there are lanes, to be put back there.
    #[pyo3(signature = (most, turn=None, places=None))]
    fn receive_many<'py>(
        &self,
        py: Python<'py>,
        most: Option<usize>,
        turn: Option<u64>,
        places: Option<&Bound<'py, PyList>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (most, turn) = (most.unwrap_or(usize::MAX), turn.map(Ticket));
        let laned = places.filter(|_| locked(&self.state).depths().len() > 1);
        let taken = if let Some(places) = laned {
            let (taken, from, fatal) = self.take_placed(py, most, turn);
            raised(fatal)?;
            for Place { lane, arrived } in from {
                places.append((lane, arrived.as_nanos()))?;
            }
            taken
        } else {
            let (taken, fatal) = self.take(py, most, turn);
            raised(fatal)?;
            taken
        };
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
    #[pyo3(signature = (ticket, items, wake, lane=None))]
    fn join_senders(
        &self,
        py: Python<'_>,
        ticket: u64,
        items: usize,
        wake: Py<PyAny>,
        lane: Option<usize>,
    ) -> PyResult<()> {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        state.join_senders(
            lane.unwrap_or(LAST),
            Ticket(ticket),
            items,
            Waiter::Call(wake),
            now,
        );
        raised(self.settle(py, state))
    }

    /// Whether a sender who waits may come.
    #[pyo3(signature = (ticket))]
    fn called(&self, ticket: u64) -> bool {
        self.is_called(Ticket(ticket))
    }

    /// Waits for an item; `wake` is called when there is one, or none will come.
    #[pyo3(signature = (ticket, wake))]
    fn join_receivers(&self, py: Python<'_>, ticket: u64, wake: Py<PyAny>) -> PyResult<()> {
        raised(self.wait(py, Ticket(ticket), Waiter::Call(wake)))
    }

    /// Puts an item that was received back where it was taken from: it is the next of its lane.
    ///
    /// Without a place, of the first lane: of a channel that has one.
    #[pyo3(signature = (item, place=None))]
    fn put_back(
        &self,
        py: Python<'_>,
        item: Py<PyAny>,
        place: Option<(usize, u64)>,
    ) -> PyResult<()> {
        let (lane, arrived) = place.unwrap_or_default();
        let arrived = Time::from_nanos(arrived);
        self.give_back(py, item, Place { lane, arrived })
    }

    /// Gives up a place in line, or what was promised to its holder.
    #[pyo3(signature = (ticket))]
    fn leave(&self, py: Python<'_>, ticket: u64) -> PyResult<()> {
        raised(self.give_up(py, Ticket(ticket)))
    }

    /// Lets nothing more in, because of `error` if there is one. The first end stands.
    ///
    /// `moment` is the time of the calendar, a `datetime`.
    #[pyo3(signature = (error=None, moment=None))]
    fn close(
        &self,
        py: Python<'_>,
        error: Option<Bound<'_, PyAny>>,
        moment: Option<Py<PyAny>>,
    ) -> PyResult<()> {
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
        // Before the end is there to be told; of two who close at once the first one's stands.
        if let Some(moment) = moment {
            let late = self.since.set(moment);
            drop(late);
        }
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
