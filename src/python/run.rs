//! `Run`: one run of one pipeline, driven from Python in slices.
//!
//! The driving thread calls [`Run::step`] over and over; it is the only one that touches the
//! engine. Others reach the run through what they may lock shortly: the results of the pool, the
//! pushed items, the two requests (drain, abort), and the wake-up.
//!
//! Lock order: `hand`, or the `state` of a feed, before `engine`; nothing is locked while `engine`
//! is, and no Python runs then. The other locks are leaves.
//!
//! - `run/spec.rs`: how it begins.
//! - `run/branches.rs`: how branches open and close, and who is told; `run/commands.rs`: what is
//!   asked of them.
//! - `run/slice.rs`: what a step does.
//! - `run/flow.rs`: items from the source, through the pass and the routing, to the first leg.
//! - `run/order.rs`: passes while branches refuse what comes, and the order of what came of them.
//! - `run/target.rs`: units into the channel at the end.
//! - `run/operators.rs`: failures to the operators behind them, and what these recover.
//! - `run/overdue.rs`: attempts that are not over in time.
//! - `run/tracked.rs`: the same for items with a history.
//! - `run/rollback.rs`: what is registered, and by which policy it is undone.
//! - `run/watch.rs`: what those who look are told; `run/told.rs`: what those who ask for it are told
//!   of branches and undo actions; `run/orders.rs`: what operators ask for.
//! - `run/holders.rs`: which of their outputs hold what undoes them.

mod branches;
mod commands;
mod flow;
mod holders;
mod operators;
mod order;
mod orders;
mod overdue;
mod rollback;
pub(super) mod slice;
mod spec;
mod target;
mod told;
mod tracked;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anabranch_core::branch::BranchId;
use anabranch_core::clock::Time;
use anabranch_core::engine::{
    AttemptId, BranchOptions, Config, Engine, Overdue, Port, RollbackOptions,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::domain::{FIRST_OWN, PyDomain, Shared};
use super::errors::{ClosedError, ForkedProcessError};
use super::job::Job;
use super::keys::{KeyOf, Router};
use super::leg::{Leg, PassSpec};
use super::native::NativeSource;
use super::report;
use super::source::Source;
use super::stats;
use super::work::{CallResult, InHand, LegFacts};
use crate::monitor::Pipeline;
use crate::wake::Wake;
use branches::{Branches, Tenant};
use commands::Asked;
pub(super) use commands::pace;
use spec::RunSpec;
use target::Target;
use watch::Watch;

/// Locks, whatever happened to the thread that held the lock before: the states behind our locks
/// are whole after every statement.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pipeline's threads, as the driver sees them.
#[derive(Debug)]
struct Pool {
    /// Sees to it that there is a thread for one more job.
    grow: Py<PyAny>,
    /// `SimpleQueue.put` of their feed, called with a [`Job`]. In C: no signal handler runs in it.
    put: Py<PyAny>,
    /// Jobs out.
    out: usize,
    /// Jobs out at most.
    most: usize,
    /// Replaces the thread that is stuck in a job; returns whether it did.
    abandon: Py<PyAny>,
    /// The jobs out that have a deadline.
    timed: HashMap<AttemptId, Py<Job>>,
}

/// What only the driving thread uses.
#[derive(Debug)]
struct Hand {
    source: Source,
    key: Option<KeyOf>,
    /// The leg that fresh items come to.
    entry: usize,
    /// The leg in front of which items part by their keys.
    key_leg: Option<usize>,
    /// The first leg that every tenant has for itself: that one, or operators in front of it.
    fan_leg: usize,
    rekey: Option<PassSpec>,
    fan_stage: usize,
    /// Whether branches count their failures.
    counts: bool,
    router: Router,
    branches: Branches,
    pool: Pool,
    /// The channels that take what arrives at the end of a course.
    targets: Vec<Target>,
    /// Items worth taking at once, by the measured cost per item.
    chunk: usize,
    /// Whether workers may take items straight from the source while it is ready.
    straight: bool,
    /// When the driver last let other threads have the interpreter.
    napped: Time,
    /// How many Python threads there are beside ours.
    other_threads: Py<PyAny>,
    /// Whether an awaitable is one, where a handler returned something.
    is_awaitable: Py<PyAny>,
    flush_on_abort: bool,
    /// The user's own policy: arranges the undo actions of a rollback.
    arrange: Option<Py<PyAny>>,
    /// What those who look are told; `None`: nobody may.
    watch: Option<Watch>,
}

/// Items an async source has pushed.
#[derive(Debug, Default)]
struct Pushed {
    items: Vec<Py<PyAny>>,
    ended: Option<PyResult<()>>,
}

/// One run of one pipeline.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) facts: Vec<LegFacts>,
    legs: Mutex<Option<Arc<Vec<Leg>>>>,
    pub(super) engine: Mutex<Engine<PyDomain>>,
    hand: Mutex<Option<Hand>>,
    tenants: Mutex<Vec<Tenant>>,
    /// What is asked of branches; `None` once nobody will answer.
    asked: Mutex<Option<Vec<Asked>>>,
    /// Work with its result, and whether it held a place in the pool.
    returned: Mutex<Vec<(InHand, CallResult, bool)>>,
    /// Operations that had timed out: whether they gave a result after all, and whether they still
    /// held a place in the pool.
    late: Mutex<Vec<(AttemptId, bool, bool)>>,
    adopted: Mutex<VecDeque<Py<Job>>>,
    /// What the loop is to cancel, or to leave behind.
    overdue: Mutex<Vec<Overdue>>,
    pushed: Mutex<Pushed>,
    collected: Mutex<Option<Py<PyList>>>,
    wake: Arc<Wake>,
    /// Where those who look find the run; `None`: nobody may.
    watched: Option<Arc<Pipeline>>,
    native: Option<Arc<NativeSource>>,
    /// Whether its sums are in those of the process.
    tallied: AtomicBool,
    drain_asked: AtomicBool,
    abort_asked: AtomicBool,
    drained: AtomicBool,
    /// How many more items the source is to bring, at most: at none it has ended for the run.
    wanted: AtomicUsize,
    failed: AtomicBool,
    /// Whether this process is a fork of the one that runs the pipeline.
    copied: AtomicBool,
    /// Whether nothing is waited for any more, undo actions included.
    left: AtomicBool,
    /// Whether the source waits for room: whoever makes some wakes the driver.
    starved: AtomicBool,
}

/// What [`Run::step`] says: nothing to do until something happens.
const IDLE: u8 = 0;
/// There is more to do at once.
const MORE: u8 = 1;
/// The run is over.
const FINISHED: u8 = 2;

#[pymethods]
impl Run {
    #[new]
    #[pyo3(signature = (spec))]
    fn new(py: Python<'_>, spec: RunSpec<'_>) -> PyResult<Self> {
        spec.open(py)
    }

    /// One slice of work on the driving thread; a short one where a loop has other things to do.
    #[pyo3(signature = (*, in_loop))]
    fn step(this: &Bound<'_, Self>, in_loop: bool) -> PyResult<u8> {
        let run = this.get();
        let Ok(mut hand) = run.hand.try_lock() else {
            return Err(run.closed_error("is driven twice at once"));
        };
        match hand.as_mut() {
            Some(hand) => {
                let said = run.slice(this, hand, in_loop)?;
                Ok(run.tell_watchers(this.py(), hand, said))
            }
            None => Err(run.closed_error("is closed")),
        }
    }

    /// Seconds until a timer is due; None if there is none.
    fn timeout(&self) -> Option<f64> {
        let deadline = locked(&self.engine).deadline()?;
        Some(deadline.since(self.shared.now()).as_secs_f64())
    }

    /// Waits for something to happen, detached, at most so many seconds; a signal ends it early.
    fn wait(&self, py: Python<'_>, most: f64) {
        let most = std::time::Duration::try_from_secs_f64(most).unwrap_or_default();
        py.detach(|| self.wake.wait(most));
    }

    /// The descriptor that is readable when the driver should step.
    fn fileno(&self) -> i32 {
        self.wake.fileno()
    }

    /// Reads the wake-up.
    fn awake(&self) {
        self.wake.clear();
        self.wake.drain();
    }

    /// Asks for a drain, from any thread: intake stops, what is inside is finished.
    fn drain(&self) {
        self.drain_asked.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Asks for an abort, from any thread: what was not begun is given up.
    fn abort(&self) {
        self.abort_asked.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// This process is a fork of the one that runs the pipeline: nothing more is begun here.
    fn copied(&self) {
        self.copied.store(true, Ordering::Release);
        self.wake.copied();
    }

    /// Tells how many more items are wanted of the source; of several who tell, the least counts.
    fn want(&self, items: usize) {
        self.wanted.fetch_min(items, Ordering::AcqRel);
        if items == 0 {
            self.wake.wake();
        }
    }

    /// Whether the source is to bring nothing more.
    #[getter]
    fn stopping(&self) -> bool {
        self.aborting() || self.draining() || self.wanted() == 0
    }

    /// Whether the run was asked to drain.
    #[getter]
    fn draining(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    #[getter]
    fn aborting(&self) -> bool {
        self.shared.aborting.load(Ordering::Acquire)
    }

    /// Whether work waits for the tasks on `port`.
    fn waiting(&self, port: usize) -> bool {
        locked(&self.engine).has_work(Port(port))
    }

    /// The port of each leg.
    fn ports(&self) -> Vec<usize> {
        self.facts.iter().map(|leg| leg.port.0).collect()
    }

    /// The next coroutine to await: an undo action, or what a `def` callable returned.
    fn next_job(this: &Bound<'_, Self>) -> PyResult<Option<Py<Job>>> {
        this.get().next_async_job(this)
    }

    /// The attempts that coroutines make and that are overdue, as (leg, attempt, abandoned): the
    /// loop cancels those that are not abandoned yet, and leaves the others behind.
    fn take_overdue(&self) -> Vec<(Option<usize>, u64, bool)> {
        let overdue = std::mem::take(&mut *locked(&self.overdue));
        overdue
            .into_iter()
            .map(|it| (it.leg, it.attempt.0, it.abandoned))
            .collect()
    }

    /// What was overdue has just ended: by a hair, it is not late.
    fn in_time(&self, attempt: u64) {
        self.ended_here(AttemptId(attempt), false);
    }

    /// Whether there is a coroutine to await: a driver without a loop must get one.
    fn has_job(&self) -> bool {
        !locked(&self.adopted).is_empty() || locked(&self.engine).has_work(super::domain::UNDO)
    }

    /// Takes an item of an async source. 0: go on; 1: go on, and tell the driver; 2: wait; 3: end.
    fn push(&self, item: Py<PyAny>) -> u8 {
        if self.aborting() {
            // Nothing asks for it any more; but it has come, and the report tells of it.
            let mut engine = locked(&self.engine);
            engine.received(1);
            engine.left_behind(1);
            return 3;
        }
        let stopping = self.stopping();
        let mut pushed = locked(&self.pushed);
        pushed.items.push(item);
        match pushed.items.len() {
            _ if stopping => 3,
            slice::PUSHED.. => 2,
            1 => 1,
            _ => 0,
        }
    }

    /// Whether an async source may push again.
    fn has_room(&self) -> bool {
        locked(&self.pushed).items.len() < slice::PUSHED
    }

    /// An async source has ended, with an exception or without.
    #[pyo3(signature = (error=None))]
    fn source_ended(&self, error: Option<Bound<'_, PyAny>>) {
        let ended = error.map_or(Ok(()), |error| Err(PyErr::from_value(error)));
        locked(&self.pushed).ended.get_or_insert(ended);
        self.wake.wake();
    }

    /// Its number where it can be looked at; None: nobody may.
    #[getter]
    fn number(&self) -> Option<u32> {
        self.watched.as_ref().map(|pipeline| pipeline.number)
    }

    #[getter]
    fn address(&self) -> Option<(String, u16)> {
        self.native.as_ref().and_then(|native| native.address())
    }

    /// How many undo actions and finalizers of which stages have not run, of those that are not
    /// released; from any thread.
    fn owed(&self) -> Vec<(String, u64)> {
        let stages = self.shared.stages.iter().zip(&self.shared.owed);
        stages
            .map(|(stage, owed)| (stage.clone(), owed.load(Ordering::Relaxed)))
            .filter(|(_, owed)| *owed > 0)
            .collect()
    }

    /// The tenants whose branches have opened and have not closed since, in order.
    fn tenants(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.tenants_told(py)
    }

    /// Asks something of a branch, from any thread; `answer` is called with whether it worked, and
    /// what came of it.
    #[pyo3(signature = (what, tenant, argument, answer))]
    fn ask(
        &self,
        what: String,
        tenant: Py<PyAny>,
        argument: Option<Py<PyAny>>,
        answer: Py<PyAny>,
    ) -> PyResult<()> {
        let asked = Asked::new(what, tenant, argument, answer);
        match locked(&self.asked).as_mut() {
            Some(waiting) => waiting.push(asked),
            None => return Err(self.closed_error("has ended: its report tells of its branches")),
        }
        self.wake.wake();
        Ok(())
    }

    /// Carries out what was asked, on the driving thread between two steps; false in the middle of
    /// one, which will do it.
    fn attend(&self, py: Python<'_>) -> bool {
        let Ok(mut hand) = self.hand.try_lock() else {
            return false;
        };
        if let Some(hand) = hand.as_mut() {
            self.answer(py, hand);
        }
        true
    }

    /// The run was aborted `seconds` ago, and these jobs on the pool do not end: their units fail
    /// with `error`, and their threads are replaced. Called by the driver between two steps; with
    /// `undo` when none is to come, and then for undo actions, too.
    #[pyo3(signature = (jobs, error, seconds, *, undo))]
    fn forsake(
        &self,
        jobs: Vec<Bound<'_, Job>>,
        error: &Bound<'_, PyAny>,
        seconds: f64,
        undo: bool,
    ) -> PyResult<()> {
        self.left.fetch_or(undo, Ordering::AcqRel);
        // What was late before that is not waited for any longer, either.
        locked(&self.engine).end_grace(self.shared.now());
        match self.hand.try_lock().ok().as_deref_mut() {
            Some(Some(hand)) => Self::forsake_jobs(hand, jobs, error, seconds, undo),
            _ => Ok(()),
        }
    }

    /// The run was aborted `seconds` ago, and its async source has not ended.
    fn forsake_source(&self, seconds: f64) {
        let ran = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let no_leg = self.facts.len();
        locked(&self.engine).tell_abandoned(BranchId::TRUNK, no_leg, 1, ran);
    }

    /// The run is left as it is: undo actions that have had no turn are stuck.
    fn abandon(this: &Bound<'_, Self>) {
        let py = this.py();
        let run = this.get();
        if run.is_left()
            && let Ok(mut hand) = run.hand.try_lock()
            && let Some(hand) = hand.as_mut()
            && let Err(error) = run.take_back(this, hand)
        {
            run.shared.postpone(py, error);
        }
        run.end_here();
    }

    /// What happened so far.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let outcome = if self.failed.load(Ordering::Acquire) {
            "failed"
        } else if self.aborting() || !locked(&self.engine).finished() {
            "aborted"
        } else if locked(&self.engine).falls_short() {
            "failed"
        } else if self.drained.load(Ordering::Acquire) {
            "drained"
        } else {
            "completed"
        };
        let report = report::build(py, self, outcome)?;
        if let Some(items) = locked(&self.collected).as_ref() {
            report.set_item("items", items)?;
        }
        Ok(report)
    }

    /// Lets go of the source, the callables and what the engine still holds.
    fn close(&self, py: Python<'_>) {
        if let Some(pipeline) = &self.watched {
            pipeline.end();
        }
        if let Some(native) = &self.native {
            py.detach(|| native.close());
        }
        // Each is taken out under its lock and dropped outside: dropping runs foreign code.
        let mut hand = self.hand.try_lock().ok().and_then(|mut hand| hand.take());
        if let Some(hand) = &mut hand {
            hand.source.rest(py, &self.shared);
            for target in &mut hand.targets {
                target.rest(py, &self.shared);
            }
        }
        self.shared.inspector.forget();
        let legs = locked(&self.legs).take();
        let pushed = std::mem::take(&mut *locked(&self.pushed));
        let returned = std::mem::take(&mut *locked(&self.returned));
        let adopted = std::mem::take(&mut *locked(&self.adopted));
        let collected = locked(&self.collected).take();
        let tenants = std::mem::take(&mut *locked(&self.tenants));
        let asked = locked(&self.asked).take();
        let error = self.closed_error("has ended: its report tells of its branches");
        for asked in asked.iter().flatten() {
            self.shared.postpone_all(py, asked.refuse(py, &error).err());
        }
        // The engine with its samples, too: an exception's traceback leads through the frames of
        // the driver back to this run, and the collector cannot see into it.
        let empty = Engine::new(Config {
            legs: Vec::new(),
            fan_leg: 0,
            ports: self.facts.len() + FIRST_OWN,
            max_in_flight: 0,
            stop_on_error: false,
            seed: 0,
            epoch: std::time::Duration::ZERO,
            rollback: RollbackOptions::default(),
            branches: BranchOptions::default(),
        });
        let engine = std::mem::replace(&mut *locked(&self.engine), empty);
        if !self.tallied.swap(true, Ordering::AcqRel) {
            stats::end(&engine, self.watched.as_ref());
        }
        drop((
            hand, legs, pushed, returned, adopted, collected, tenants, asked, engine,
        ));
    }
}

impl Run {
    fn closed_error(&self, what: &str) -> PyErr {
        ClosedError::new_err(format!("pipeline '{}' {what}", self.shared.pipeline))
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// Refuses to go on in a fork.
    pub(crate) fn check_process(&self) -> PyResult<()> {
        if !self.copied.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(ForkedProcessError::new_err(format!(
            "pipeline '{}' runs in the process this one was forked from and does not go on here: \
             end the child where it was forked, or use the start method 'spawn'",
            self.shared.pipeline
        )))
    }

    /// Whether nothing is waited for any more.
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Gives up the undo actions that have had no turn.
    fn end_here(&self) {
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        // It was asked to abort, perhaps, and had no turn to.
        let asked = self.abort_asked.load(Ordering::Acquire);
        if asked && (engine.counts().left > 0 || !engine.finished()) {
            self.shared.aborting.store(true, Ordering::Release);
        }
        engine.abandon(now);
    }

    /// The tenant of a branch; None for the trunk.
    pub(crate) fn tenant(&self, py: Python<'_>, branch: BranchId) -> Option<Py<PyAny>> {
        let index = (branch.0 as usize).checked_sub(1)?;
        locked(&self.tenants)
            .get(index)
            .map(|tenant| tenant.key.clone_ref(py))
    }

    /// Whether the engine is gone.
    pub(crate) fn is_closed(&self) -> bool {
        locked(&self.legs).is_none()
    }

    pub(crate) fn legs(&self) -> PyResult<Arc<Vec<Leg>>> {
        locked(&self.legs)
            .clone()
            .ok_or_else(|| self.closed_error("is closed"))
    }

    /// Gives work back from any thread; `pooled` work frees its place in the pool.
    pub(crate) fn give_back(&self, work: InHand, result: CallResult, pooled: bool) {
        locked(&self.returned).push((work, result, pooled));
        self.wake.wake();
    }

    /// Tells, from any thread, that an operation which had timed out has ended.
    pub(crate) fn ended(&self, attempt: AttemptId, gave: bool, pooled: bool) {
        locked(&self.late).push((attempt, gave, pooled));
        self.wake.wake();
    }

    /// Drops what died inside the engine, after the borrow has ended.
    pub(crate) fn bury(&self) {
        let graveyard = {
            let mut engine = locked(&self.engine);
            engine.take_graveyard()
        };
        drop(graveyard);
    }

    /// When the slice under way began: the driver goes by it where the calls it makes are shown. A
    /// worker reads the clock, since what it awaited may have taken any time.
    pub(crate) fn now(&self) -> Time {
        self.shared.time_of_slice()
    }

    /// There is something for the driver to move.
    pub(crate) fn tell_driver(&self) {
        self.wake.wake();
    }

    /// Wakes the driver if its source waits for room and there is some now.
    pub(crate) fn unstarve(&self, engine: &Engine<PyDomain>) {
        if self.starved.load(Ordering::Relaxed) && engine.room() > 0 {
            self.starved.store(false, Ordering::Relaxed);
            self.wake.wake();
        }
    }
}
