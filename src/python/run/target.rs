//! The channels at the end of a pipeline: units go in while they have room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anabranch_core::channel::{OnFull, Refused, Ticket};
use anabranch_core::clock::Time;
use anabranch_core::engine::{Outcome, Port, Work};
use pyo3::prelude::*;

use super::super::channel::{PyChannel, Waiter};
use super::super::domain::Shared;
use super::super::errors::ChannelClosed;
use super::super::work::{CallResult, InHand};
use super::{Hand, Run, locked};
use crate::wake::Wake;

/// Items that go in together, at most.
const MOST: usize = 256;

/// One of the senders of a channel.
#[derive(Debug)]
pub(super) struct Target {
    channel: Py<PyChannel>,
    /// What is sent to it.
    port: Port,
    wake: Arc<Wake>,
    /// Its place in line, or the room it was promised.
    ticket: Option<Ticket>,
}

impl Target {
    pub(super) const fn new(channel: Py<PyChannel>, port: Port, wake: Arc<Wake>) -> Self {
        Self {
            channel,
            port,
            wake,
            ticket: None,
        }
    }

    /// How many items may be sent now; with none it stands in line, and the driver will be woken.
    ///
    /// Room comes before the unit: a unit that was handed out and finds no room would be held by
    /// the pipeline without anyone working on it. A channel that drops, fails or is closed has an
    /// answer for every unit.
    fn room(&mut self, py: Python<'_>, shared: &Shared) -> PyResult<usize> {
        let channel = self.channel.get();
        match channel.on_full() {
            OnFull::Wait => {}
            OnFull::Fail => return Ok(1),
            OnFull::DropNewest | OnFull::DropOldest => return Ok(MOST),
        }
        if let Some(ticket) = self.ticket {
            return Ok(usize::from(channel.is_called(ticket)));
        }
        match channel.reserve(MOST) {
            Ok((ticket, items)) => {
                self.ticket = Some(ticket);
                Ok(items)
            }
            Err(Refused::Closed(())) => Ok(1),
            Err(Refused::Full(())) => {
                let ticket = Ticket(channel.ticket()?);
                self.ticket = Some(ticket);
                let waiter = Waiter::Driver(self.wake.clone());
                shared.postpone_all(py, channel.wait_for_room(py, ticket, waiter));
                Ok(usize::from(channel.is_called(ticket)))
            }
        }
    }

    fn send<I: ExactSizeIterator<Item = Py<PyAny>>>(
        &mut self,
        py: Python<'_>,
        items: I,
        shared: &Shared,
    ) -> CallResult {
        let (sent, fatal) = self.channel.get().offer(py, items, self.ticket.take());
        shared.postpone_all(py, fatal);
        sent.map(|_| py.None())
    }

    /// Has nothing to send for now: its place, and its room, are the others'.
    pub(super) fn rest(&mut self, py: Python<'_>, shared: &Shared) {
        if let Some(ticket) = self.ticket.take() {
            shared.postpone_all(py, self.channel.get().give_up(py, ticket));
        }
    }
}

impl Run {
    /// Sends units into the channels while they have room.
    pub(super) fn feed_channels(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        until: Time,
    ) -> PyResult<bool> {
        // Out of the hand meanwhile, and back on every way out: a signal handler may raise.
        let mut targets = std::mem::take(&mut hand.targets);
        let mut progress = Ok(false);
        for target in &mut targets {
            let sent = self.send_on(this, hand, target, until);
            progress = progress.and_then(|before| sent.map(|now| before | now));
            if progress.is_err() {
                break;
            }
        }
        hand.targets = targets;
        progress
    }

    fn send_on(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        target: &mut Target,
        until: Time,
    ) -> PyResult<bool> {
        let py = this.py();
        let mut progress = false;
        loop {
            let now = self.shared.now();
            if !locked(&self.engine).has_work(target.port) {
                target.rest(py, &self.shared);
                return Ok(progress);
            }
            if progress && now >= until {
                return Ok(true);
            }
            let room = target.room(py, &self.shared)?;
            if room == 0 {
                if self.shared.aborting.load(Ordering::Acquire) {
                    // A rollback waits for no receiver: what has not gone in is left.
                    let mut engine = locked(&self.engine);
                    engine.discard(now);
                    while let Some(Work::Unit(unit)) = engine.next(target.port, now) {
                        engine.complete(unit, Outcome::Interrupted, None, now);
                    }
                    drop(engine);
                    self.bury();
                    target.rest(py, &self.shared);
                }
                return Ok(progress);
            }
            if !self.send_some(this, hand, target, room, now)? {
                target.rest(py, &self.shared);
                return Ok(progress);
            }
            progress = true;
        }
    }

    /// Sends as many of one branch's items as there is room for, or one unit; false if there was
    /// none to be handed out.
    fn send_some(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        target: &mut Target,
        room: usize,
        now: Time,
    ) -> PyResult<bool> {
        let py = this.py();
        let batch = locked(&self.engine).next_batch(target.port, room, now);
        let (work, result) = if let Some(batch) = batch {
            let copies: Vec<_> = batch.values.iter().map(|it| it.clone_ref(py)).collect();
            let count = copies.len();
            match target.send(py, copies.into_iter(), &self.shared) {
                Ok(_) => {
                    locked(&self.engine).complete_batch(batch.branch, batch.leg, (count, 0), now);
                    // The channel holds them now, or whoever has received them.
                    drop(batch.values);
                    return Ok(true);
                }
                Err(error) => {
                    // The first is the one that was refused; the others were not tried.
                    let mut rest = batch.values;
                    let first = rest.remove(0);
                    let (branch, leg) = (batch.branch, batch.leg);
                    let unit =
                        locked(&self.engine).break_batch(branch, leg, (0, 0), first, rest, now);
                    (InHand::plain(py, unit), Err(error))
                }
            }
        } else {
            let work = locked(&self.engine).next(target.port, now);
            let Some(work) = work else { return Ok(false) };
            match work {
                Work::Unit(unit) => {
                    let facts = self.facts[unit.leg];
                    let work = InHand::unit(py, self, &facts, unit)?;
                    let result = match &work {
                        InHand::Unit { value, .. } => {
                            let value = std::iter::once(value.clone_ref(py));
                            target.send(py, value, &self.shared)
                        }
                        InHand::Undo { .. } => Ok(py.None()),
                    };
                    (work, result)
                }
                Work::Undo(turn) => {
                    let work = InHand::undo(py, self, turn, 0, None)?;
                    let result = work.call(py, None);
                    (work, result)
                }
            }
        };
        let closed = result
            .as_ref()
            .is_err_and(|error| error.is_instance_of::<ChannelClosed>(py));
        self.finish(this, hand, work, result)?.map_or(Ok(()), Err)?;
        if closed {
            // Nothing can ever go in again: to go on would turn every item into a failure.
            self.failed.store(true, Ordering::Release);
            self.abort_now(py, hand, now);
        }
        Ok(true)
    }
}
