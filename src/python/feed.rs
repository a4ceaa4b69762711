//! `Feed`: where one worker task gets its units, one at a time.
//!
//! `for unit in feed: await handler(unit)`: asking for the next unit says that the one before
//! has succeeded. All workers of a leg draw from the same lanes, so a unit waits for a free
//! worker, never behind another worker's unit; but for those of a branch that has one unit in
//! flight at a time, which wait for each other anyway, and are taken in batches.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

use anabranch_core::branch::BranchId;
use anabranch_core::clock::Time;
use anabranch_core::engine::{AttemptId, Payload, Port, Unit, Work};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};

use super::context::Context;
use super::domain::PyDomain;
use super::late::{self, Late};
use super::run::slice::SLICE;
use super::run::{Run, locked};
use super::work::{GivenBack, InHand, LegFacts};

/// How many units pass between two looks at the clock.
const STRIDE: u32 = 8;
/// Items in the first batch, before the handler's speed is known, and in a batch at most: of a slow
/// one's none has more than the item in hand when its branch is paused or fails.
const FIRST_BATCH: usize = 1;
const MOST_BATCH: usize = 512;

/// One worker's end of the feed of a leg.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Feed {
    run: Py<Run>,
    facts: LegFacts,
    port: Port,
    /// One number, if the pass is woven: how many items of those in hand it has taken out.
    filtered: Option<Py<PyList>>,
    state: Mutex<State>,
}

/// What a worker has in hand.
#[derive(Debug)]
enum Current {
    /// A unit whose handler takes nothing but its item.
    Plain(Unit<PyDomain>),
    /// Any other unit.
    Full(InHand),
    /// A unit whose attempt has timed out: its task has been cancelled. Without the unit once the
    /// grace is over, too.
    Late(Option<InHand>, Late),
    /// Items it handles one after the other.
    Batch {
        branch: BranchId,
        leg: usize,
        items: Py<PyList>,
        /// Where it stands in them: Python advances it.
        iterator: Py<PyIterator>,
        began: Time,
    },
}

#[derive(Debug)]
struct State {
    current: Option<Current>,
    /// Units since the last look at the clock.
    since_look: u32,
    /// Whether the feed stopped because the slice was used up.
    yielded: bool,
    /// Whether the worker has come back and not looked at the clock since.
    fresh: bool,
    /// Items worth taking in one batch, by the time the last one took.
    batch: usize,
    worker: Worker,
}

/// What a timeout has done to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// Nothing.
    AtWork,
    /// It has been cancelled, and has not taken that back.
    Cancelled,
    /// It has been left behind: another has its place.
    Abandoned,
}

#[pymethods]
impl Feed {
    #[new]
    #[pyo3(signature = (run, leg, *, woven))]
    fn new(py: Python<'_>, run: Py<Run>, leg: usize, woven: bool) -> PyResult<Self> {
        let facts = *run.get().facts.get(leg).ok_or_else(|| {
            pyo3::exceptions::PyIndexError::new_err(format!("there is no leg {leg}"))
        })?;
        let state = State {
            current: None,
            since_look: 0,
            yielded: false,
            fresh: true,
            batch: FIRST_BATCH,
            worker: Worker::AtWork,
        };
        let filtered = woven.then(|| PyList::new(py, [0])).transpose()?;
        Ok(Self {
            run,
            facts,
            port: facts.port,
            filtered: filtered.map(Bound::unbind),
            state: Mutex::new(state),
        })
    }

    const fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let run = self.run.get();
        run.check_process()?;
        let mut state = locked(&self.state);
        match state.current.take() {
            // The hot path: the engine is locked once for the unit that ends and the one that
            // begins.
            Some(Current::Plain(unit)) if !self.time_is_up(&mut state) => {
                // Not the slice's: the handler may have waited since.
                let now = run.shared.now();
                let mut engine = locked(&run.engine);
                let handled = engine.complete_last(unit, now);
                let work = engine.next(self.port, now);
                // Now: taking it may have made room, too.
                run.unstarve(&engine);
                drop(engine);
                let next = self.begin(py, state, work);
                drop(handled);
                return next;
            }
            Some(current) => {
                drop(state);
                self.end(py, current, Ok(py.None()), None);
                state = locked(&self.state);
            }
            None => {}
        }
        // A worker that was cancelled at a timeout first takes its cancellation back.
        if state.worker != Worker::AtWork || state.yielded || self.time_is_up(&mut state) {
            drop(state);
            run.bury();
            return Ok(None);
        }
        let now = run.shared.now();
        let work = {
            let mut engine = locked(&run.engine);
            let work = engine.next(self.port, now);
            run.unstarve(&engine);
            work
        };
        self.begin(py, state, work)
    }

    /// Items to be handled one after the other, as an iterator; None where there are none. Asking
    /// says that all of the batch before have succeeded.
    fn batch(&self, py: Python<'_>) -> PyResult<Option<Py<PyIterator>>> {
        let run = self.run.get();
        run.check_process()?;
        let now = run.shared.now();
        let current = locked(&self.state).current.take();
        match current {
            Some(Current::Batch {
                branch,
                leg,
                items,
                began,
                ..
            }) => {
                let count = items.bind(py).len();
                let filtered = self.take_filtered(py, count);
                let took = now.since(began);
                {
                    let mut engine = locked(&run.engine);
                    engine.took(branch, leg, count, took);
                    engine.complete_batch(branch, leg, (count, filtered), now);
                }
                items.drop_ref(py);
                let mut state = locked(&self.state);
                if took > SLICE / 2 {
                    state.batch = (state.batch / 2).max(1);
                } else if count == state.batch {
                    state.batch = (state.batch * 2).min(MOST_BATCH);
                }
            }
            Some(current) => self.end(py, current, Ok(py.None()), None),
            None => {}
        }
        let most = {
            let mut state = locked(&self.state);
            let over = self.slice_is_over(&mut state, now);
            (!over).then_some(state.batch)
        };
        let batch = {
            let mut engine = locked(&run.engine);
            let batch = most.and_then(|most| engine.next_batch(self.port, most, now));
            run.unstarve(&engine);
            batch
        };
        let (branch, leg, items) = match (batch, most) {
            (Some(batch), _) => (batch.branch, batch.leg, PyList::new(py, batch.values)?),
            (None, Some(most)) => match run.take_straight(py, most)? {
                Some(items) => (BranchId::TRUNK, 0, items),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let iterator = items.try_iter()?.unbind();
        let given = iterator.clone_ref(py);
        locked(&self.state).current = Some(Current::Batch {
            branch,
            leg,
            items: items.unbind(),
            iterator,
            began: now,
        });
        Ok(Some(given))
    }

    /// This process is a fork: what is left of the batch in hand is the parent's.
    fn copied(&self, py: Python<'_>) -> PyResult<()> {
        let items = match &locked(&self.state).current {
            Some(Current::Batch { items, .. }) => items.clone_ref(py),
            _ => return Ok(()),
        };
        let items = items.bind(py);
        items.del_slice(0, items.len())
    }

    /// The context of the unit in hand.
    fn context(&self, py: Python<'_>) -> Option<Py<Context>> {
        match &locked(&self.state).current {
            Some(Current::Full(InHand::Unit { context, .. })) => {
                context.as_ref().map(|context| context.clone_ref(py))
            }
            _ => None,
        }
    }

    /// Whether the feed stopped because the slice was used up; asking resets it.
    fn yielded(&self) -> bool {
        let mut state = locked(&self.state);
        state.fresh = true;
        std::mem::take(&mut state.yielded)
    }

    /// The attempt has timed out. Returns whether it is the one in hand: then the worker is to be
    /// cancelled.
    fn expire(&self, py: Python<'_>, attempt: u64) -> PyResult<bool> {
        let attempt = AttemptId(attempt);
        let leg = match &locked(&self.state).current {
            Some(Current::Plain(unit)) if unit.deadline().is_some_and(|it| it.0 == attempt) => {
                unit.leg
            }
            Some(Current::Full(work)) if work.attempt() == Some(attempt) => {
                work.leg().unwrap_or_default()
            }
            _ => return Ok(false),
        };
        let late = Late::new(py, self.run.get(), leg, attempt)?;
        let mut state = locked(&self.state);
        let work = match state.current.take() {
            Some(Current::Plain(unit)) => InHand::plain(py, unit),
            Some(Current::Full(work)) => work,
            other => {
                state.current = other;
                return Ok(false);
            }
        };
        state.current = Some(Current::Late(Some(work), late));
        state.worker = Worker::Cancelled;
        Ok(true)
    }

    /// The grace is over, too. Returns whether the attempt is the one in hand: then the worker is
    /// to be left behind.
    fn abandon(&self, py: Python<'_>, attempt: u64) -> bool {
        let run = self.run.get();
        let mut state = locked(&self.state);
        let (work, error) = match &mut state.current {
            Some(Current::Late(work, late)) if late.attempt == AttemptId(attempt) => {
                (work.take(), late.error(py))
            }
            _ => return false,
        };
        state.worker = Worker::Abandoned;
        drop(state);
        late::abandoned(py, run, &error);
        if let Some(work) = work {
            self.settle(py, work, Err(error), None);
        }
        true
    }

    /// Whether the worker was cancelled because of a timeout; asking takes it back.
    fn was_cancelled(&self) -> bool {
        let mut state = locked(&self.state);
        let was = state.worker != Worker::AtWork;
        if state.worker == Worker::Cancelled {
            state.worker = Worker::AtWork;
        }
        was
    }

    /// Whether the worker was left behind.
    fn abandoned(&self) -> bool {
        locked(&self.state).worker == Worker::Abandoned
    }

    /// Someone else has cancelled the worker, too: that comes first.
    fn acquit(&self) {
        let mut state = locked(&self.state);
        match state.current.take() {
            Some(Current::Late(Some(work), late)) => {
                state.current = Some(Current::Full(work));
                drop(state);
                self.run.get().ended_here(late.attempt, false);
            }
            other => state.current = other,
        }
    }

    /// The unit in hand has this result.
    fn done(&self, py: Python<'_>, result: Py<PyAny>) {
        let current = locked(&self.state).current.take();
        if let Some(current) = current {
            self.end(py, current, Ok(result), None);
        }
    }

    /// The run was aborted, and the worker does not end: it is left behind, `seconds` after it was
    /// cancelled, and what it has in hand fails. Returns whether it had anything.
    fn forsake(&self, py: Python<'_>, error: Bound<'_, PyAny>, seconds: f64) -> bool {
        let mut state = locked(&self.state);
        if matches!(state.current, Some(Current::Late(..))) {
            // It has timed out, too: that has a grace of its own.
            return false;
        }
        state.worker = Worker::Abandoned;
        let current = state.current.take();
        drop(state);
        let Some(work) = current.and_then(|current| self.in_hand(py, current)) else {
            return false;
        };
        self.run.get().forsaken(&work, seconds);
        self.settle(py, work, Err(PyErr::from_value(error)), None);
        true
    }

    /// What a woven pass counts in.
    #[getter]
    fn filtered(&self, py: Python<'_>) -> Option<Py<PyList>> {
        self.filtered.as_ref().map(|list| list.clone_ref(py))
    }

    /// The unit in hand has failed, at the handler or at the stage that is named. Returns whether
    /// there was one: if not, the error is ours.
    #[pyo3(signature = (error, stage=None))]
    fn failed(&self, py: Python<'_>, error: Bound<'_, PyAny>, stage: Option<usize>) -> bool {
        let current = locked(&self.state).current.take();
        let Some(current) = current else { return false };
        self.end(py, current, Err(PyErr::from_value(error)), stage);
        true
    }
}

impl Feed {
    /// Looks at the clock now and then.
    fn time_is_up(&self, state: &mut State) -> bool {
        state.since_look += 1;
        if state.since_look < STRIDE {
            return false;
        }
        state.since_look = 0;
        self.slice_is_over(state, self.run.get().shared.now())
    }

    fn slice_is_over(&self, state: &mut State, now: Time) -> bool {
        let slice = &self.run.get().shared.slice;
        if std::mem::take(&mut state.fresh) {
            // However late a busy loop lets a worker go on, it gets something done before it lets
            // go again.
            slice.store(now.as_nanos(), Ordering::Relaxed);
            return false;
        }
        let began = Time::from_nanos(slice.load(Ordering::Relaxed));
        let over = now.since(began) >= SLICE;
        if over {
            // One worker yields; for the others, whose handlers suspend, a new slice begins.
            slice.store(now.as_nanos(), Ordering::Relaxed);
            state.yielded = true;
        }
        over
    }

    /// Makes work ready for the handler and keeps it; returns what the handler is given.
    fn begin(
        &self,
        py: Python<'_>,
        mut state: MutexGuard<'_, State>,
        work: Option<Work<PyDomain>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let Some(Work::Unit(unit)) = work else {
            drop(state);
            self.run.get().bury();
            return Ok(None);
        };
        if self.facts.plain
            && let Payload::One(value) = &unit.payload
        {
            let value = value.clone_ref(py);
            state.current = Some(Current::Plain(unit));
            return Ok(Some(value));
        }
        drop(state);
        let work = InHand::unit(py, self.run.get(), &self.facts, unit)?;
        let InHand::Unit { value, .. } = &work else {
            return Ok(None);
        };
        let value = value.clone_ref(py);
        locked(&self.state).current = Some(Current::Full(work));
        Ok(Some(value))
    }

    /// How many of the first `handled` items were taken out; the next batch counts anew.
    fn take_filtered(&self, py: Python<'_>, handled: usize) -> usize {
        let Some(list) = &self.filtered else { return 0 };
        let list = list.bind(py);
        let counted = list.get_item(0).and_then(|it| it.extract()).unwrap_or(0);
        if counted > 0 {
            // Cannot fail: the list has this one place.
            let _ = list.set_item(0, 0);
        }
        // A signal handler may have raised between the count and the next item.
        handled.min(counted)
    }

    /// Gives back what a worker had in hand.
    fn end(
        &self,
        py: Python<'_>,
        current: Current,
        result: PyResult<Py<PyAny>>,
        stage: Option<usize>,
    ) {
        let run = self.run.get();
        if run.is_closed() {
            // A worker of a loop that was closed, ended by the collector after the run: what it
            // had in hand was counted as left.
            return;
        }
        if let Current::Late(work, late) = current {
            let gave = late.ended(py, run, &result);
            if let Some(work) = work {
                self.settle(py, work, Err(late.error(py)), None);
            }
            run.ended_here(late.attempt, gave);
            run.tell_driver();
        } else if let Some(work) = self.in_hand(py, current) {
            self.settle(py, work, result, stage);
        }
    }

    /// What a worker handles now; the rest of its batch goes back.
    fn in_hand(&self, py: Python<'_>, current: Current) -> Option<InHand> {
        let run = self.run.get();
        match current {
            Current::Full(work) => Some(work),
            Current::Plain(unit) => Some(InHand::plain(py, unit)),
            Current::Late(work, _) => work,
            Current::Batch {
                branch,
                leg,
                items,
                iterator,
                began,
            } => {
                let items = items.bind(py);
                let left = iterator
                    .bind(py)
                    .call_method0("__length_hint__")
                    .and_then(|hint| hint.extract())
                    .unwrap_or(0);
                // The iterator stands behind the item in hand.
                let handled = items.len().saturating_sub(left + 1);
                let filtered = self.take_filtered(py, handled);
                let mut from_current = items.iter().skip(handled).map(Bound::unbind);
                let current = from_current.next()?;
                let rest = from_current.collect();
                let now = run.shared.now();
                let unit = {
                    let mut engine = locked(&run.engine);
                    if handled > 0 {
                        engine.took(branch, leg, handled, now.since(began));
                    }
                    let handled = (handled, filtered);
                    engine.break_batch(branch, leg, handled, current, rest, now)
                };
                Some(InHand::plain(py, unit))
            }
        }
    }

    /// Tells the engine how the attempt ended.
    fn settle(
        &self,
        py: Python<'_>,
        work: InHand,
        result: PyResult<Py<PyAny>>,
        stage: Option<usize>,
    ) {
        let run = self.run.get();
        if let GivenBack::Unit(unit, outcome, registered) = work.settle(py, run, result, stage) {
            let now = run.shared.now();
            let mut engine = locked(&run.engine);
            engine.complete(unit, outcome, registered, now);
            run.unstarve(&engine);
        }
        run.bury();
        // Outputs, retries and undo actions are the driver's to move.
        run.tell_driver();
    }
}
