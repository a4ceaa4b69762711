//! `Readers`: many channels, read by one: what a merge, a fan-in and a select are made of.
//!
//! Whose turn it is says the core; here stand the channels, their promises, and who sleeps. Nothing
//! waits here either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::channel::{Place, Taken, Ticket};
use anabranch_core::merge::{Choice, Merge, Stamp, Strategy};
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::channel::{Asked, Bell, PyChannel, Waiter};
use super::run::locked;
use super::time::VirtualTime;
use crate::clock::Clock;

/// Channels, of which the next item is wanted.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Readers {
    channels: Vec<Py<PyChannel>>,
    /// A strategy of the user's, given what there is; or what makes a number of an item.
    call: Option<Py<PyAny>>,
    clock: Clock,
    bell: Arc<Bell>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    merge: Merge,
    /// What each channel was asked with, if it was.
    tickets: Vec<Option<Ticket>>,
    /// Where the last item of each was taken from: it has one in hand at most.
    places: Vec<Place>,
    /// Those that have ended, and were not told of.
    ended: VecDeque<usize>,
    begun: bool,
}

/// What is there to be told: of which channel, and an item, unless it has ended.
type Told = (usize, Option<Py<PyAny>>);

/// The same for Python: the channel, an item or nothing, the error it ended with, and whether
/// there is more.
type Event = (usize, Py<PyAny>, Option<Py<PyAny>>, bool);

#[pymethods]
impl Readers {
    #[new]
    #[pyo3(signature = (channels, strategy, *, levels=None, aging=None, weights=None, call=None, time=None))]
    fn new(
        channels: Vec<Py<PyChannel>>,
        strategy: &str,
        levels: Option<Vec<u32>>,
        aging: Option<f64>,
        weights: Option<Vec<f64>>,
        call: Option<Py<PyAny>>,
        time: Option<&VirtualTime>,
    ) -> PyResult<Self> {
        let strategy = match strategy {
            "round_robin" => Strategy::RoundRobin,
            "priority" => Strategy::Priority {
                levels: levels.unwrap_or_default(),
                aging: aging.map(|it| Duration::try_from_secs_f64(it).unwrap_or(Duration::MAX)),
            },
            "weighted" => Strategy::weighted(&weights.unwrap_or_default()),
            "longest_queue" => Strategy::LongestQueue,
            "oldest_first" => Strategy::OldestFirst,
            "drain_first" => Strategy::DrainFirst,
            "sticky" => Strategy::Sticky,
            "custom" => Strategy::Custom,
            other => {
                let message = format!("no strategy is called {other:?}");
                return Err(PyValueError::new_err(message));
            }
        };
        let state = State {
            merge: Merge::new(strategy, channels.len()),
            tickets: channels.iter().map(|_| None).collect(),
            places: channels.iter().map(|_| Place::default()).collect(),
            ended: VecDeque::new(),
            begun: false,
        };
        Ok(Self {
            channels,
            call,
            clock: Clock::start(time.map(|it| it.0.clone())),
            bell: Arc::default(),
            state: Mutex::new(state),
        })
    }

    /// The next item, or end, as `(number, item, None, more)` or `(number, nothing, error, more)`,
    /// where `more` says whether others are ready, too; `None`, if there is nothing now.
    ///
    /// A channel that was read is not read again until it is passed as `done`. What the strategy
    /// raises comes out.
    #[pyo3(signature = (nothing, done=None))]
    fn take(
        &self,
        py: Python<'_>,
        nothing: Py<PyAny>,
        done: Option<usize>,
    ) -> PyResult<Option<Event>> {
        let Some((number, item)) = self.next(py, done)? else {
            return Ok(None);
        };
        let more = locked(&self.state).merge.has_ready() || self.bell.has_rung();
        if let Some(item) = item {
            return Ok(Some((number, item, None, more)));
        }
        let error = self.channels[number].get().failure(py);
        let error = error.map(|it| it.into_value(py).into_any());
        Ok(Some((number, nothing, error, more)))
    }

    /// Puts the item that was taken of a channel last back where it was.
    #[pyo3(signature = (number, item))]
    fn put_back(&self, py: Python<'_>, number: usize, item: Py<PyAny>) -> PyResult<()> {
        let place = locked(&self.state).places[number];
        self.channels[number].get().give_back(py, item, place)
    }

    /// A channel may be read again.
    #[pyo3(signature = (number))]
    fn done(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        self.ask(py, number)
    }

    /// The first of the channels, from the given one on, that has an item now, and the item.
    ///
    /// Without asking any of them: where all would have to be given up again.
    #[pyo3(signature = (first=0))]
    fn poll(&self, py: Python<'_>, first: usize) -> PyResult<Option<(usize, Py<PyAny>)>> {
        let many = self.channels.len();
        for number in (0..many).map(|it| (it + first) % many) {
            let (taken, fatal) = self.channels[number].get().take_one(py, None);
            match (taken, fatal) {
                (Taken::Item((item, _)), None) => return Ok(Some((number, item))),
                (Taken::Item((item, place)), Some(error)) => {
                    return Err(self.unseen(py, number, item, place, error));
                }
                (_, Some(error)) => return Err(error),
                (Taken::Empty | Taken::Ended, None) => {}
            }
        }
        Ok(None)
    }

    /// Has `wake` called once something happens; says whether it will, or something has already.
    #[pyo3(signature = (wake))]
    fn sleep(&self, wake: Py<PyAny>) -> bool {
        self.bell.sleep(wake).is_ok()
    }

    /// Calls nobody any more.
    #[pyo3(signature = ())]
    fn awake(&self) {
        drop(self.bell.awake());
    }

    /// Gives up everything that was asked for; all may be asked anew.
    #[pyo3(signature = ())]
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        let tickets: Vec<(usize, Ticket)> = {
            let mut state = locked(&self.state);
            state.begun = false;
            state.merge.reset();
            state.ended.clear();
            let tickets = state.tickets.iter_mut().map(Option::take);
            tickets
                .enumerate()
                .filter_map(|(number, ticket)| Some((number, ticket?)))
                .collect()
        };
        let mut raised = None;
        for (number, ticket) in tickets {
            let fatal = self.channels[number].get().give_up(py, ticket);
            raised = raised.or(fatal);
        }
        self.bell.take();
        drop(self.bell.awake());
        raised.map_or(Ok(()), Err)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for channel in &self.channels {
            visit.call(channel)?;
        }
        visit.call(&self.call)
    }
}

impl Readers {
    fn next(&self, py: Python<'_>, done: Option<usize>) -> PyResult<Option<Told>> {
        self.begin(py)?;
        if let Some(number) = done {
            self.ask(py, number)?;
        }
        loop {
            for number in self.bell.take() {
                self.look(py, number)?;
            }
            if let Some(number) = locked(&self.state).ended.pop_front() {
                return Ok(Some((number, None)));
            }
            let Some(number) = self.choose(py)? else {
                return Ok(None);
            };
            let ticket = locked(&self.state).tickets[number].take();
            let (taken, fatal) = self.channels[number].get().take_one(py, ticket);
            match (taken, fatal) {
                (Taken::Item((item, place)), None) => {
                    locked(&self.state).places[number] = place;
                    return Ok(Some((number, Some(item))));
                }
                (Taken::Item((item, place)), Some(error)) => {
                    return Err(self.unseen(py, number, item, place, error));
                }
                (_, Some(error)) => return Err(error),
                // It was promised; but a channel may be taken apart.
                (Taken::Empty | Taken::Ended, None) => self.ask(py, number)?,
            }
        }
    }

    /// A signal handler has raised while an item was taken: nobody will see it.
    fn unseen(
        &self,
        py: Python<'_>,
        number: usize,
        item: Py<PyAny>,
        place: Place,
        error: PyErr,
    ) -> PyErr {
        let back = self.channels[number].get().give_back(py, item, place);
        back.err().unwrap_or(error)
    }

    /// Asks all, beginning behind the one that was read last: whose turn it is stays.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let first = {
            let mut state = locked(&self.state);
            if std::mem::replace(&mut state.begun, true) {
                return Ok(());
            }
            state.merge.last().map_or(0, |it| it + 1)
        };
        let many = self.channels.len();
        (0..many).try_for_each(|it| self.ask(py, (it + first) % many))
    }

    /// Asks a channel for an item, unless it was asked already.
    fn ask(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let channel = self.channels[number].get();
        if locked(&self.state).tickets[number].is_some() {
            return Ok(());
        }
        let ticket = Ticket(channel.ticket()?);
        locked(&self.state).tickets[number] = Some(ticket);
        let waiter = Waiter::Reader(self.bell.clone(), number);
        let (asked, fatal) = channel.ask(py, ticket, waiter);
        fatal.map_or(Ok(()), Err)?;
        self.asked(py, number, asked)
    }

    /// Looks at a channel that has rung.
    fn look(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let Some(ticket) = locked(&self.state).tickets[number] else {
            return Ok(());
        };
        match self.channels[number].get().asked(ticket) {
            // It was woken for nothing, and stands in no line: again.
            Asked::Waits => {
                locked(&self.state).tickets[number] = None;
                self.ask(py, number)
            }
            asked => self.asked(py, number, asked),
        }
    }

    fn asked(&self, py: Python<'_>, number: usize, asked: Asked) -> PyResult<()> {
        match asked {
            Asked::Promised => {
                let stamp = self.stamp(py, number)?;
                let now = self.clock.now();
                locked(&self.state).merge.ready(number, stamp, now);
            }
            Asked::Waits => locked(&self.state).merge.rest(number),
            Asked::Ended => {
                let mut state = locked(&self.state);
                state.tickets[number] = None;
                state.merge.end(number);
                state.ended.push_back(number);
            }
        }
        Ok(())
    }

    /// What the next item of a channel is compared by, if it is.
    fn stamp(&self, py: Python<'_>, number: usize) -> PyResult<Stamp> {
        let strategy = Strategy::OldestFirst;
        let by_stamp = *locked(&self.state).merge.strategy() == strategy;
        match &self.call {
            Some(call) if by_stamp => match self.channels[number].get().peek(py) {
                Some(item) => Ok(Stamp::of(call.call1(py, (item,))?.extract(py)?)),
                None => Ok(Stamp::default()),
            },
            _ => Ok(Stamp::default()),
        }
    }

    /// The channel that is to be read now.
    fn choose(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        let depth = |it: usize| self.channels[it].get().holds();
        let looks: Vec<_> = {
            let mut state = locked(&self.state);
            if *state.merge.strategy() != Strategy::Custom {
                let choice = state.merge.pick(depth);
                return Ok(read(choice));
            }
            if !state.merge.has_ready() {
                return Ok(None);
            }
            state.merge.looks().collect()
        };
        let Some(call) = &self.call else {
            return Ok(None);
        };
        let now = self.clock.now();
        let looks = looks.iter().enumerate().map(|(number, look)| {
            let age = if look.ready {
                now.since(look.since)
            } else {
                Duration::ZERO
            };
            (look.ready, depth(number), age.as_secs_f64(), look.ended)
        });
        let looks = PyList::new(py, looks.collect::<Vec<_>>())?;
        let answer: Option<usize> = call.call1(py, (looks,))?.extract(py)?;
        Ok(read(locked(&self.state).merge.choose(answer)))
    }
}

const fn read(choice: Choice) -> Option<usize> {
    match choice {
        Choice::Read(number) => Some(number),
        // The caller of Python's has checked the answer.
        Choice::Nothing | Choice::Unknown(_) => None,
    }
}
