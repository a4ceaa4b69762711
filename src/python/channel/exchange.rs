//! Sending and receiving as Python's callers and pipelines do it: under the lock, then woken.

use std::collections::VecDeque;
use std::sync::MutexGuard;

use anabranch_core::channel::{Called, OnFull, Place, Refused, Taken, Ticket};
use anabranch_core::clock::Time;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict as _;

use super::super::errors::{ChannelClosed, ChannelFull};
use super::super::run::locked;
use super::{LAST, PyChannel, State, Waiter};

/// What becomes of asking for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// One is promised.
    Promised,
    /// The waiter will be woken.
    Waits,
    /// None will come.
    Ended,
}

/// Each of these does what it says and then returns, beside its result, what a signal handler
/// raised while others were woken.
impl PyChannel {
    /// Takes the oldest items, at most so many.
    pub(crate) fn take(
        &self,
        py: Python<'_>,
        most: usize,
        turn: Option<Ticket>,
    ) -> (Taken<Vec<Py<PyAny>>>, Option<PyErr>) {
        let mut state = locked(&self.state);
        let taken = state.receive_many(turn, most);
        (taken, self.settle(py, state))
    }

    /// The same, and where each was taken from.
    pub(super) fn take_placed(
        &self,
        py: Python<'_>,
        most: usize,
        turn: Option<Ticket>,
    ) -> (Taken<Vec<Py<PyAny>>>, Vec<Place>, Option<PyErr>) {
        let mut places = Vec::new();
        let mut state = locked(&self.state);
        let taken = state.receive_many_placed(turn, most, |it| places.push(it));
        (taken, places, self.settle(py, state))
    }

    /// Waits for an item.
    pub(crate) fn wait(&self, py: Python<'_>, ticket: Ticket, waiter: Waiter) -> Option<PyErr> {
        let mut state = locked(&self.state);
        state.join_receivers(ticket, waiter);
        self.settle(py, state)
    }

    /// Asks for an item: to be promised one now, or when the waiter is woken.
    pub(crate) fn ask(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        waiter: Waiter,
    ) -> (Asked, Option<PyErr>) {
        let mut state = locked(&self.state);
        if state.reserve_item(ticket) {
            return (Asked::Promised, None);
        }
        if state.is_ended() {
            return (Asked::Ended, None);
        }
        state.join_receivers(ticket, waiter);
        (Asked::Waits, self.settle(py, state))
    }

    /// What has become of asking, once the waiter was woken.
    pub(crate) fn asked(&self, ticket: Ticket) -> Asked {
        let state = locked(&self.state);
        if state.is_promised(ticket) {
            Asked::Promised
        } else if state.is_ended() {
            Asked::Ended
        } else {
            Asked::Waits
        }
    }

    /// Takes one item, with which it can be put back.
    pub(crate) fn take_one(
        &self,
        py: Python<'_>,
        turn: Option<Ticket>,
    ) -> (Taken<(Py<PyAny>, Place)>, Option<PyErr>) {
        let mut state = locked(&self.state);
        let taken = state.receive_placed(turn);
        (taken, self.settle(py, state))
    }

    /// Puts an item back where it was taken from.
    pub(crate) fn give_back(&self, py: Python<'_>, item: Py<PyAny>, place: Place) -> PyResult<()> {
        let mut state = locked(&self.state);
        state.put_back(item, place);
        self.settle(py, state).map_or(Ok(()), Err)
    }

    /// The item that would be received next.
    pub(crate) fn peek(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        locked(&self.state).peek().map(|item| item.clone_ref(py))
    }

    /// How many items are inside.
    pub(crate) fn holds(&self) -> usize {
        locked(&self.state).depth()
    }

    /// Waits for room for one item.
    pub(crate) fn wait_for_room(
        &self,
        py: Python<'_>,
        ticket: Ticket,
        waiter: Waiter,
    ) -> Option<PyErr> {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        state.join_senders(LAST, ticket, 1, waiter, now);
        self.settle(py, state)
    }

    /// Promises room that nobody waits for: for how many items, at most `most`.
    ///
    /// # Errors
    /// As [`Shared::reserve`] has it.
    pub(crate) fn reserve(&self, most: usize) -> Result<(Ticket, usize), Refused<()>> {
        locked(&self.state).reserve(LAST, most)
    }

    /// Whether a sender who waits may come.
    pub(crate) fn is_called(&self, ticket: Ticket) -> bool {
        locked(&self.state).is_called(ticket)
    }

    pub(crate) fn on_full(&self) -> OnFull {
        locked(&self.state).on_full()
    }

    /// Gives up a place in line, or what was promised to its holder.
    pub(crate) fn give_up(&self, py: Python<'_>, ticket: Ticket) -> Option<PyErr> {
        let now = self.clock.now();
        let mut state = locked(&self.state);
        let waiter = state.leave(ticket, now);
        let settled = self.settle(py, state);
        drop(waiter);
        settled
    }

    /// The error it was closed with, as raised for one more receiver.
    pub(crate) fn failure(&self, py: Python<'_>) -> Option<PyErr> {
        let failure = locked(&self.state).failure().map(|failure| {
            let traceback = failure.traceback.as_ref().map(|it| it.clone_ref(py));
            (failure.error.clone_ref(py), traceback)
        });
        let (error, traceback) = failure?;
        let error = error.into_bound(py);
        let raised = error.call_method1(pyo3::intern!(py, "with_traceback"), (traceback,));
        Some(raised.map_or_else(|other| other, PyErr::from_value))
    }

    /// What a receiver is told at the end.
    pub(super) fn end(&self, py: Python<'_>) -> PyErr {
        self.failure(py)
            .unwrap_or_else(|| self.closed_error(py, "is closed, and nothing is left in it"))
    }

    /// Sends items; false if their sender has to wait.
    pub(crate) fn offer<I: ExactSizeIterator<Item = Py<PyAny>>>(
        &self,
        py: Python<'_>,
        items: I,
        turn: Option<Ticket>,
    ) -> (PyResult<bool>, Option<PyErr>) {
        self.offer_to(py, LAST, items, turn)
    }

    /// Sends items into a lane; false if their sender has to wait.
    pub(super) fn offer_to<I: ExactSizeIterator<Item = Py<PyAny>>>(
        &self,
        py: Python<'_>,
        lane: usize,
        items: I,
        turn: Option<Ticket>,
    ) -> (PyResult<bool>, Option<PyErr>) {
        let mut state = locked(&self.state);
        // Reading the clock costs as much as sending.
        let now = if turn.is_some() || state.ages() {
            self.clock.now()
        } else {
            Time::ZERO
        };
        let sent = match turn {
            None => state.send(lane, items, now),
            Some(ticket) => state.send_in_turn(lane, ticket, items, now),
        };
        let fails = state.on_full() == OnFull::Fail;
        let fatal = self.settle(py, state);
        let sent = match sent {
            Ok(()) => Ok(true),
            Err(Refused::Full(_)) if fails => Err(ChannelFull::new_err(format!(
                "channel '{}' is full: it holds all the {} items it may",
                self.name,
                self.capacity()
            ))),
            Err(Refused::Full(_)) => Ok(false),
            Err(Refused::Closed(_)) => Err(self.refused(py)),
        };
        (sent, fatal)
    }

    /// What a sender is told after the end; its cause is the error the channel was closed with.
    fn refused(&self, py: Python<'_>) -> PyErr {
        let error = self.closed_error(py, "is closed: nothing more can be sent");
        let cause = locked(&self.state)
            .failure()
            .map(|failure| failure.error.clone_ref(py));
        if let Some(cause) = cause {
            error.set_cause(py, Some(PyErr::from_value(cause.into_bound(py))));
        }
        error
    }

    fn closed_error(&self, py: Python<'_>, what: &str) -> PyErr {
        let message = format!("channel '{}' {what}", self.name);
        let kind = py.get_type::<ChannelClosed>();
        let since = [("since", self.since.get())].into_py_dict(py);
        since
            .and_then(|since| kind.call((message,), Some(&since)))
            .map_or_else(|error| error, PyErr::from_value)
    }

    /// Releases the lock, lets go of what was dropped, and wakes those whose turn it is.
    pub(super) fn settle(&self, py: Python<'_>, mut state: MutexGuard<'_, State>) -> Option<PyErr> {
        let gone = state.take_gone();
        let called = state.take_called();
        drop(state);
        drop(gone);
        if called.is_empty() {
            return None;
        }
        let mut fatal = None;
        let mut called = VecDeque::from(called);
        while let Some(Called { ticket, waiter }) = called.pop_front() {
            if !waiter.wake(py, &mut fatal) {
                // It will never come: its turn is the next one's.
                let now = self.clock.now();
                let mut state = locked(&self.state);
                state.leave(ticket, now);
                called.extend(state.take_called());
            }
        }
        fatal
    }
}
