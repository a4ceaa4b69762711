//! Where the items of a run come from, a chunk at a time.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::channel::{Taken, Ticket};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PySequence};

use super::channel::{PyChannel, Waiter};
use super::domain::Shared;
use super::native::NativeSource;
use crate::wake::Wake;

/// Items pulled from an iterator at once, at most.
const PULL: usize = 256;
/// Time spent on pulling a chunk, at most.
const PULL_TIME: Duration = Duration::from_micros(500);
/// An iterator slower than this per item gains nothing from being pulled in batches, and its
/// items are handed on one by one.
const SLOW: Duration = Duration::from_micros(1);

/// One kind of source each.
#[derive(Debug)]
pub(crate) enum Source {
    /// A list or tuple: sliced.
    Sequence { items: Py<PySequence>, next: usize },
    /// Any other iterable: pulled. `pull` is how many items at once are worth while.
    Iterator { items: Py<PyIterator>, pull: usize },
    /// An async iterable: a task of the loop pushes.
    Pushed,
    /// A channel: taken from while there is something in it, then waited for.
    Channel(ChannelSource),
    /// A source of our own: it delivers into an inbox.
    Native(Arc<NativeSource>),
    /// It has ended.
    Ended,
}

/// One of the receivers of a channel. What it has not taken stays inside, for others.
#[derive(Debug)]
pub(crate) struct ChannelSource {
    channel: Py<PyChannel>,
    wake: Arc<Wake>,
    /// Its place in line, while it waits.
    ticket: Option<Ticket>,
}

impl ChannelSource {
    pub(crate) const fn new(channel: Py<PyChannel>, wake: Arc<Wake>) -> Self {
        Self {
            channel,
            wake,
            ticket: None,
        }
    }

    fn pull<'py>(&mut self, py: Python<'py>, most: usize, shared: &Shared) -> PyResult<Chunk<'py>> {
        let channel = self.channel.get();
        let (taken, fatal) = channel.take(py, most, self.ticket);
        shared.postpone_all(py, fatal);
        match taken {
            Taken::Item(items) => {
                self.ticket = None;
                Ok(Chunk::new(PyList::new(py, items)?, None))
            }
            Taken::Empty => {
                if self.ticket.is_none() {
                    let ticket = Ticket(channel.ticket()?);
                    self.ticket = Some(ticket);
                    let fatal = channel.wait(py, ticket, Waiter::Driver(self.wake.clone()));
                    shared.postpone_all(py, fatal);
                }
                Ok(Chunk::new(PyList::empty(py), None))
            }
            Taken::Ended => {
                self.ticket = None;
                let ended = channel.failure(py).map_or(Ok(()), Err);
                Ok(Chunk::new(PyList::empty(py), Some(ended)))
            }
        }
    }
}

/// What a source brought.
pub(crate) struct Chunk<'py> {
    pub(crate) items: Bound<'py, PyList>,
    /// Failures that stand for an item: a broken line.
    pub(crate) broken: Vec<PyErr>,
    /// Whether nothing comes after this.
    pub(crate) ended: Option<PyResult<()>>,
    /// Whether time has passed while it was brought.
    pub(crate) slow: bool,
}

impl<'py> Chunk<'py> {
    fn new(items: Bound<'py, PyList>, ended: Option<PyResult<()>>) -> Self {
        Self {
            items,
            broken: Vec::new(),
            ended,
            slow: false,
        }
    }
}

impl Source {
    /// Whether its next items are there, or come so fast that waiting for them holds nothing back.
    pub(crate) const fn is_ready(&self) -> bool {
        match self {
            Self::Sequence { .. } => true,
            Self::Iterator { pull, .. } => *pull == PULL,
            Self::Channel(source) => source.ticket.is_none(),
            Self::Pushed | Self::Native(_) | Self::Ended => false,
        }
    }

    /// Takes no more for now: what a channel has promised is free for its other receivers.
    pub(crate) fn rest(&mut self, py: Python<'_>, shared: &Shared) {
        if let Self::Channel(source) = self
            && let Some(ticket) = source.ticket.take()
        {
            shared.postpone_all(py, source.channel.get().give_up(py, ticket));
        }
    }

    /// The next items, at most `most`. Runs Python.
    ///
    /// # Errors
    /// Only those of the machinery; what the source raises is in [`Chunk::ended`].
    pub(crate) fn pull<'py>(
        &mut self,
        py: Python<'py>,
        most: usize,
        shared: &Shared,
        pushed: impl FnOnce() -> (Vec<Py<PyAny>>, Option<PyResult<()>>),
    ) -> PyResult<Chunk<'py>> {
        match self {
            Self::Ended => Ok(Chunk::new(PyList::empty(py), None)),
            Self::Sequence { items, next } => {
                let bound = items.bind(py);
                // The length is asked each time: a list may shrink or grow under our hands.
                let length = bound.len()?;
                let end = length.min(*next + most);
                let slice = bound.get_slice((*next).min(end), end)?;
                *next = end;
                let chunk = match slice.cast_into::<PyList>() {
                    Ok(list) => list,
                    Err(error) => error.into_inner().cast::<PySequence>()?.to_list()?,
                };
                Ok(Chunk::new(chunk, (end == length).then_some(Ok(()))))
            }
            Self::Iterator { items, pull } => {
                let mut iterator = items.bind(py).clone();
                let chunk = PyList::empty(py);
                let most = most.min(*pull);
                let start = shared.now();
                let mut spent = Duration::ZERO;
                let mut ended = None;
                let mut taken = 0;
                while taken < most && spent < PULL_TIME {
                    match iterator.next() {
                        Some(Ok(item)) => chunk.append(item)?,
                        Some(Err(error)) => ended = Some(Err(error)),
                        None => ended = Some(Ok(())),
                    }
                    if ended.is_some() {
                        break;
                    }
                    taken += 1;
                    spent = shared.now().since(start);
                }
                // In virtual time each item is handed on before the generator may let time pass.
                let slow = shared.clock.is_virtual()
                    || spent >= SLOW * u32::try_from(taken.max(1)).unwrap_or(u32::MAX);
                *pull = if slow { 1 } else { (*pull * 2).min(PULL) };
                Ok(Chunk {
                    slow,
                    ..Chunk::new(chunk, ended)
                })
            }
            Self::Pushed => {
                let (items, ended) = pushed();
                Ok(Chunk::new(PyList::new(py, items)?, ended))
            }
            Self::Channel(source) => source.pull(py, most, shared),
            Self::Native(source) => {
                let items = PyList::empty(py);
                let mut broken = Vec::new();
                let taken = source.take(py, &items, &mut broken, most)?;
                let ended = matches!(taken, Taken::Ended).then(|| source.end());
                Ok(Chunk {
                    items,
                    broken,
                    ended,
                    slow: false,
                })
            }
        }
    }
}
