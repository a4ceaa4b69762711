//! One slice of the driving thread's work: some hundred microseconds, then the caller decides.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_core::clock::Time;
use anabranch_core::engine::{Outcome, Unit, Work};
use pyo3::prelude::*;

use super::super::domain::{FIRST_OWN, INLINE, POOL, PyDomain, UNDO};
use super::super::job::Job;
use super::super::leg::Role;
use super::super::results::is_result;
use super::super::source::Source;
use super::super::work::{CallResult, GivenBack, InHand, ends_the_process};
use super::{FINISHED, Hand, IDLE, MORE, Run, locked};

/// How long a slice may take before signal handlers and other threads get their turn.
const ALONE: Duration = Duration::from_millis(1);
/// How long it may take before others in the loop get their turn. What becomes due there waits for
/// some three slices: the one under way, the one before its timer is looked at, and the one before
/// its task goes on.
const IN_LOOP: Duration = Duration::from_micros(300);
/// How long workers may go on before others in the loop get their turn.
pub(crate) const SLICE: Duration = Duration::from_micros(500);
/// Rounds in a slice of virtual time, which does not pass while something runs: the others get
/// their turn all the same, and the same one each time.
const ROUNDS: u32 = 16;
/// How long a chunk may take: a slice ends at a chunk's end.
const CHUNK: Duration = Duration::from_micros(125);
/// Items in the first chunk, before their cost is known.
pub(super) const FIRST_CHUNK: usize = 64;
/// Items in a chunk at most: what the callables made is still in the first-level cache when it is
/// routed, and a chunk's fixed cost is spread thinly enough (1 us over 256 items).
const MOST: usize = 256;
/// Items an async source may push ahead of the driver.
pub(super) const PUSHED: usize = 256;
/// How often the driver lets other threads have the interpreter while they want it, and how long
/// it stays away: giving it up without staying away starves them.
const NAP_EVERY: Duration = Duration::from_micros(500);
const NAP: Duration = Duration::from_micros(20);
/// How long it waits for the interpreter at least if another nap is to follow at once, and how long
/// naps may go on.
const WAITED: Duration = Duration::from_micros(3);
const NAPS: Duration = Duration::from_millis(1);

impl Run {
    pub(super) fn slice(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        in_loop: bool,
    ) -> PyResult<u8> {
        let py = this.py();
        if let Some(error) = self.shared.postponed() {
            return Err(error);
        }
        py.check_signals()?;
        self.wake.clear();
        let start = self.shared.now();
        let until = start.after(if in_loop { IN_LOOP } else { ALONE });
        self.shared.slice.store(start.as_nanos(), Ordering::Relaxed);
        let mut rounds = 0;
        loop {
            self.check_process()?;
            rounds += 1;
            let round = self.shared.now();
            // Each time, not only once a slice: nothing new begins after a signal has aborted.
            self.obey(py, hand, round);
            let mut progress = self.answer(py, hand);
            progress |= self.take_back(this, hand)?;
            progress |= self.arrange(py, hand)?;
            progress |= self.run_inline(this, hand, until)?;
            progress |= self.feed_pool(this, hand)?;
            progress |= self.feed_channels(this, hand, until)?;
            if self.shared.clock.is_virtual() {
                // What ran at once has ended now, not when the next chunk has been taken.
                progress |= self.take_back(this, hand)?;
            }
            progress |= self.move_arrivals(py, hand)?;
            progress |= self.move_failures(py)?;
            let (tasks_wait, room) = {
                let engine = locked(&self.engine);
                let room = match Self::straight_room(py, hand, &engine) {
                    0 => engine.room(),
                    // A worker that takes the rest by itself is only roused.
                    _ => 1,
                };
                (self.tasks_wait(&engine), room)
            };
            // A turn of the loop costs some ten microseconds: what is there anyway is brought in
            // first, so that the tasks have enough to do for it.
            let hurry = tasks_wait
                && (hand.straight
                    || !(hand.source.is_ready() && self.shared.now().since(start) < SLICE / 2));
            if !hurry && room > 0 && !matches!(hand.source, Source::Ended) {
                progress |= self.take_chunk(this, hand, room)?;
                // At once: what came in does not wait for a nap, or for the slice to begin anew.
                if !in_loop || self.shared.now() < until {
                    progress |= self.run_inline(this, hand, until)?;
                }
            }
            let now = self.shared.now();
            let (finished, stopping, overdue, more) = {
                let mut engine = locked(&self.engine);
                engine.poll(now);
                let overdue = engine.take_overdue();
                let pool = hand.pool.out < hand.pool.most && engine.has_work(POOL);
                // Time may have made room: a throttle, or the end of a branch's patience.
                let roomy = room == 0 && engine.room() > 0;
                let more = engine.has_work(INLINE)
                    || pool
                    || roomy
                    || engine.has_unarranged()
                    || engine.has_failures()
                    || engine.has_arrivals();
                (
                    engine.finished(),
                    engine.stopping() && !engine.aborted(),
                    overdue,
                    more,
                )
            };
            self.bury();
            progress |= self.tend_branches(py, hand) | self.beat(py)?;
            if !overdue.is_empty() {
                self.time_out(this, hand, overdue)?;
                continue;
            }
            if stopping {
                self.failed.store(true, Ordering::Release);
                self.abort_now(py, hand, now);
                continue;
            }
            if finished && hand.pool.out == 0 && locked(&self.adopted).is_empty() {
                return self.shared.postponed().map_or(Ok(FINISHED), Err);
            }
            if !self.shared.clock.is_virtual() {
                self.nap(py, hand, now)?;
            }
            // With another round like this one it would be: who shares the loop waits for whole ones.
            let used_up = now.after(now.since(round)) >= until
                || (rounds >= ROUNDS && self.shared.clock.is_virtual());
            if hurry || used_up {
                self.shared.slice.store(now.as_nanos(), Ordering::Relaxed);
                return Ok(MORE);
            }
            if !progress && !more && tasks_wait {
                self.shared.slice.store(now.as_nanos(), Ordering::Relaxed);
                return Ok(MORE);
            }
            if !progress && !more {
                self.starved.store(room == 0, Ordering::Relaxed);
                if room == 0 {
                    hand.source.rest(py, &self.shared);
                }
                self.shared.slice.store(now.as_nanos(), Ordering::Relaxed);
                return Ok(IDLE);
            }
        }
    }

    fn tasks_wait(&self, engine: &anabranch_core::engine::Engine<PyDomain>) -> bool {
        engine.has_work(UNDO)
            || self
                .facts
                .iter()
                .filter(|leg| leg.port.0 >= FIRST_OWN && leg.role != Role::Channel)
                .any(|leg| engine.has_work(leg.port))
    }

    /// Carries out what was asked for since the last time.
    fn obey(&self, py: Python<'_>, hand: &mut Hand, now: Time) {
        if self.abort_asked.swap(false, Ordering::AcqRel) {
            self.abort_now(py, hand, now);
        }
        if self.drain_asked.swap(false, Ordering::AcqRel) {
            self.drained.store(true, Ordering::Release);
            if self.stop_source(py, hand) {
                locked(&self.engine).drain(now);
            }
        }
        if self.wanted() == 0 && !matches!(hand.source, Source::Ended) && self.stop_source(py, hand)
        {
            locked(&self.engine).end(now);
        }
    }

    /// Takes nothing more from the source; returns whether that is its end already.
    fn stop_source(&self, py: Python<'_>, hand: &mut Hand) -> bool {
        match &hand.source {
            // What clients have sent is still delivered; the end comes through the inbox.
            Source::Native(native) => {
                native.drain();
                false
            }
            // What was pushed is still taken; the end comes from the task that pushes.
            Source::Pushed => false,
            _ => {
                hand.source.rest(py, &self.shared);
                hand.source = Source::Ended;
                true
            }
        }
    }

    pub(super) fn abort_now(&self, py: Python<'_>, hand: &mut Hand, now: Time) {
        self.shared.aborting.store(true, Ordering::Release);
        hand.source.rest(py, &self.shared);
        let source = std::mem::replace(&mut hand.source, Source::Ended);
        let pushed = std::mem::take(&mut locked(&self.pushed).items);
        let untaken = match &source {
            Source::Native(native) => native.abort(),
            _ => pushed.len(),
        };
        drop((source, pushed));
        {
            let mut engine = locked(&self.engine);
            engine.received(untaken as u64);
            engine.left_behind(untaken as u64);
            engine.abort(now);
            if !hand.flush_on_abort {
                engine.discard(now);
            }
        }
        self.bury();
    }

    /// Gives the engine what came back from the pool and from coroutines.
    pub(super) fn take_back(&self, this: &Bound<'_, Self>, hand: &mut Hand) -> PyResult<bool> {
        let returned = std::mem::take(&mut *locked(&self.returned));
        let mut any = !returned.is_empty();
        let mut fatal = None;
        for (work, result, pooled) in returned {
            hand.pool.out -= usize::from(pooled);
            if let Some(attempt) = work.attempt() {
                hand.pool.timed.remove(&attempt);
            }
            fatal = self.finish(this, hand, work, result)?.or(fatal);
        }
        any |= self.take_late(hand);
        match fatal {
            Some(error) => Err(error),
            None => Ok(any),
        }
    }

    /// Runs what waits for the driving thread itself.
    fn run_inline(&self, this: &Bound<'_, Self>, hand: &mut Hand, until: Time) -> PyResult<bool> {
        let py = this.py();
        let mut progress = false;
        loop {
            self.check_process()?;
            let now = self.shared.now();
            if progress && now >= until {
                return Ok(true);
            }
            let work = locked(&self.engine).next(INLINE, now);
            let Some(work) = work else {
                return Ok(progress);
            };
            progress = true;
            match work {
                Work::Unit(unit) => match self.facts[unit.leg].role {
                    role @ (Role::Forward | Role::Tee) => self.forward(py, unit, role, now)?,
                    Role::Collect => self.collect(py, unit, now)?,
                    _ => {
                        let facts = self.facts[unit.leg];
                        let work = InHand::unit(py, self, &facts, unit)?;
                        self.call_here(this, hand, work)?;
                    }
                },
                Work::Undo(turn) => {
                    let work = InHand::undo(py, self, turn, 0, None)?;
                    self.call_here(this, hand, work)?;
                }
            }
        }
    }

    fn call_here(&self, this: &Bound<'_, Self>, hand: &mut Hand, work: InHand) -> PyResult<()> {
        let py = this.py();
        let legs = self.legs()?;
        let (stage, branch) = work.place(self);
        self.enter_call(stage, branch);
        let result = work.call(py, work.leg().and_then(|leg| legs.get(leg)));
        self.leave_call();
        match self.finish(this, hand, work, result)? {
            Some(fatal) => Err(fatal),
            None => Ok(()),
        }
    }

    /// Tells the engine how a call ended. Returns what ends the process, if it was that.
    pub(super) fn finish(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        work: InHand,
        result: CallResult,
    ) -> PyResult<Option<PyErr>> {
        let py = this.py();
        if let Ok(value) = &result
            && self.is_awaitable(hand, value.bind(py))
        {
            let job = Py::new(
                py,
                Job::adopted(this.clone().unbind(), work, value.clone_ref(py)),
            )?;
            locked(&self.adopted).push_back(job);
            return Ok(None);
        }
        let fatal = result
            .as_ref()
            .err()
            .filter(|error| ends_the_process(py, error))
            .map(|error| error.clone_ref(py));
        match work.settle(py, self, result, None) {
            GivenBack::Unit(unit, outcome, registered) => {
                let now = self.shared.now();
                locked(&self.engine).complete(unit, outcome, registered, now);
            }
            GivenBack::Undo(turn, error, registered) => {
                let now = self.shared.now();
                locked(&self.engine).complete_undo(turn, error, registered, now);
            }
            GivenBack::Again(turn, tried, registered) => {
                locked(&self.engine).try_undo_again(&turn, tried);
                let work = InHand::undo(py, self, turn, tried, registered)?;
                self.hand_on(this, hand, work)?;
            }
        }
        self.bury();
        Ok(fatal)
    }

    /// Whether a `def` callable has returned what should be awaited.
    fn is_awaitable(&self, hand: &Hand, value: &Bound<'_, PyAny>) -> bool {
        if value.is_none() || value.is_exact_instance_of::<pyo3::types::PyBool>() {
            return false;
        }
        // Awaited, a Result is itself.
        if is_result(value) {
            return false;
        }
        hand.is_awaitable
            .bind(value.py())
            .call1((value,))
            .and_then(|it| it.is_truthy())
            .unwrap_or_else(|error| {
                self.shared.postpone(value.py(), error);
                false
            })
    }

    /// Runs an undo action once more, where it ran before.
    fn hand_on(&self, this: &Bound<'_, Self>, hand: &mut Hand, work: InHand) -> PyResult<()> {
        let py = this.py();
        let port = match &work {
            InHand::Undo { turn, .. } => turn.step.undo.port,
            InHand::Unit { .. } => INLINE,
        };
        match port {
            UNDO => {
                let job = Py::new(py, Job::new(this.clone().unbind(), work, false))?;
                locked(&self.adopted).push_back(job);
                Ok(())
            }
            // There is room: it has just come back from there.
            POOL => Self::put(this, hand, work),
            _ => {
                let result = work.call(py, None);
                locked(&self.returned).push((work, result, false));
                Ok(())
            }
        }
    }

    /// A window becomes a list for the stages behind it, and what is copied becomes two.
    fn forward(&self, py: Python<'_>, unit: Unit<PyDomain>, role: Role, now: Time) -> PyResult<()> {
        let facts = self.facts[unit.leg];
        let InHand::Unit { unit, value, .. } = InHand::unit(py, self, &facts, unit)? else {
            return Ok(());
        };
        let values = match role {
            Role::Tee => vec![value.clone_ref(py), value],
            _ => vec![value],
        };
        locked(&self.engine).complete(unit, Outcome::Done(values), None, now);
        Ok(())
    }

    fn collect(&self, py: Python<'_>, unit: Unit<PyDomain>, now: Time) -> PyResult<()> {
        let facts = self.facts[unit.leg];
        let InHand::Unit { unit, value, .. } = InHand::unit(py, self, &facts, unit)? else {
            return Ok(());
        };
        let list = locked(&self.collected)
            .as_ref()
            .map(|list| list.clone_ref(py));
        if let Some(list) = list {
            list.bind(py).append(value)?;
        }
        locked(&self.engine).complete(unit, Outcome::Done(Vec::new()), None, now);
        Ok(())
    }

    /// Hands work to the pipeline's threads while they can take it.
    fn feed_pool(&self, this: &Bound<'_, Self>, hand: &mut Hand) -> PyResult<bool> {
        let py = this.py();
        let mut progress = false;
        while hand.pool.out < hand.pool.most && locked(&self.engine).has_work(POOL) {
            // Before anything is in hand: a signal handler may raise in Python code.
            hand.pool.grow.call0(py)?;
            let now = self.shared.now();
            let work = locked(&self.engine).next(POOL, now);
            let Some(work) = work else { break };
            let work = match work {
                Work::Unit(unit) => {
                    let facts = self.facts[unit.leg];
                    InHand::unit(py, self, &facts, unit)?
                }
                Work::Undo(turn) => InHand::undo(py, self, turn, 0, None)?,
            };
            Self::put(this, hand, work)?;
            progress = true;
        }
        Ok(progress)
    }

    /// Hands a piece of work to the pipeline's threads.
    fn put(this: &Bound<'_, Self>, hand: &mut Hand, work: InHand) -> PyResult<()> {
        let py = this.py();
        let attempt = work.attempt();
        let job = Py::new(py, Job::new(this.clone().unbind(), work, true))?;
        if let Some(attempt) = attempt {
            hand.pool.timed.insert(attempt, job.clone_ref(py));
        }
        // First: a job that is not put gives itself back.
        hand.pool.out += 1;
        hand.pool.put.call1(py, (job,))?;
        Ok(())
    }

    /// The next coroutine for the loop.
    pub(super) fn next_async_job(&self, this: &Bound<'_, Self>) -> PyResult<Option<Py<Job>>> {
        let py = this.py();
        if let Some(job) = locked(&self.adopted).pop_front() {
            return Ok(Some(job));
        }
        let now = self.shared.now();
        let work = locked(&self.engine).next(UNDO, now);
        let Some(Work::Undo(turn)) = work else {
            return Ok(None);
        };
        let work = InHand::undo(py, self, turn, 0, None)?;
        Ok(Some(Py::new(
            py,
            Job::new(this.clone().unbind(), work, false),
        )?))
    }

    fn nap(&self, py: Python<'_>, hand: &mut Hand, now: Time) -> PyResult<()> {
        if now.since(hand.napped) < NAP_EVERY {
            return Ok(());
        }
        hand.napped = now;
        let wanted =
            hand.pool.out > 0 || hand.other_threads.bind(py).call0()?.extract::<usize>()? > 0;
        if !wanted {
            return Ok(());
        }
        loop {
            let awake = py.detach(|| {
                std::thread::sleep(NAP);
                self.shared.now()
            });
            let back = self.shared.now();
            // Who had to wait for the interpreter was not alone, and more may wait behind; but one
            // that keeps it for long gets it once.
            if back.since(awake) < WAITED || back.since(now) > NAPS {
                return Ok(());
            }
        }
    }

    /// Sizes the next chunk so that a slice has room for some.
    pub(super) fn resize_chunk(hand: &mut Hand, items: usize, took: Duration) {
        if items < hand.chunk {
            return;
        }
        let nanos = took.as_nanos().max(1);
        let fit = (items as u128 * CHUNK.as_nanos() / nanos) as usize;
        hand.chunk = fit.clamp(1, (hand.chunk * 2).min(MOST));
    }
}
