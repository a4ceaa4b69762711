//! What the engine carries when Python drives it: objects, exceptions, undo actions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anabranch_core::clock::Time;
use anabranch_core::engine::{Domain, Label, Port};
use pyo3::prelude::*;

use super::inspector::Inspector;
use super::run::locked;
use super::undo::Undo;
use super::work::ends_the_process;
use crate::clock::Clock;

/// The driving thread.
pub(crate) const INLINE: Port = Port(0);
/// The pipeline's threads.
pub(crate) const POOL: Port = Port(1);
/// Undo actions that are coroutines.
pub(crate) const UNDO: Port = Port(2);
/// The first port of a leg with tasks or a channel of its own.
pub(crate) const FIRST_OWN: usize = 3;

/// The engine's types, as the border fills them.
#[derive(Debug)]
pub(crate) struct PyDomain;

impl Domain for PyDomain {
    type Item = Py<PyAny>;
    type Error = Failure;
    type Undo = Undo;

    fn code(error: &Failure) -> &str {
        &error.code
    }

    fn cancelled(last: Failure) -> Failure {
        Failure {
            code: "cancelled".to_owned(),
            ..last
        }
    }

    fn stops(error: &Failure, otherwise: bool) -> bool {
        error.stops.unwrap_or(otherwise)
    }

    fn stage(error: &Failure) -> usize {
        error.stage
    }

    fn port(undo: &Undo) -> Port {
        undo.port
    }

    fn settled(undo: &mut Undo) {
        undo.settle();
    }

    fn label(undo: &Undo) -> Label {
        Label {
            name: undo.name.clone(),
            stage: undo.stage,
            at: undo.at,
            tries: undo.retries.saturating_add(1),
        }
    }
}

/// An exception of a callable, and where it arose.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Py<PyAny>,
    pub(crate) code: String,
    pub(crate) stage: usize,
    /// What the callable was given, where it was given something.
    pub(crate) item: Option<Py<PyAny>>,
    /// What operators are given, once it has been made.
    pub(crate) told: Option<Py<PyAny>>,
    /// Whether it stops the pipeline, where its stage says so.
    pub(crate) stops: Option<bool>,
}

impl Failure {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        let cloned = |it: &Option<Py<PyAny>>| it.as_ref().map(|it| it.clone_ref(py));
        Self {
            error: self.error.clone_ref(py),
            code: self.code.clone(),
            stage: self.stage,
            item: cloned(&self.item),
            told: cloned(&self.told),
            stops: self.stops,
        }
    }
}

/// What every context of a run reads: names, the clock, the order of registration.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pipeline: String,
    /// By stage number; the source is 0.
    pub(crate) stages: Vec<String>,
    /// By stage number: whether a failure that arose there stops the pipeline, if the stage says.
    pub(crate) stops: Vec<Option<bool>>,
    /// By stage number: the undo actions and finalizers that have been registered and neither run,
    /// nor been released or left out. Those that are stuck are among them.
    pub(crate) owed: Vec<AtomicU64>,
    pub(crate) clock: Clock,
    pub(crate) aborting: AtomicBool,
    /// When the slice under way began, in nanoseconds: workers stop when it is used up.
    pub(crate) slice: AtomicU64,
    pub(crate) inspector: Inspector,
    /// `anabranch._failures.describe`.
    pub(crate) describe: Py<PyAny>,
    /// `anabranch._failures.timed_out`.
    pub(crate) timed_out: Py<PyAny>,
    /// `anabranch._failures.undo_timed_out`.
    pub(crate) undo_timed_out: Py<PyAny>,
    /// `anabranch._failures.tell`: makes what operators, and the report, tell of a failure.
    pub(crate) tell: Py<PyAny>,
    /// `anabranch._failures.mapped`: the failure that a `map_error` has made of one.
    pub(crate) mapped: Py<PyAny>,
    /// What a signal handler raised in the middle of our own Python code: the next step raises it.
    fatal: Mutex<Option<PyErr>>,
}

/// Where the border calls back into the package.
#[derive(Debug, FromPyObject)]
pub(crate) struct Callbacks {
    #[pyo3(attribute("inspect"))]
    inspector: Inspector,
    describe: Py<PyAny>,
    timed_out: Py<PyAny>,
    undo_timed_out: Py<PyAny>,
    tell: Py<PyAny>,
    mapped: Py<PyAny>,
}

impl Shared {
    pub(crate) fn new(
        pipeline: String,
        stages: Vec<String>,
        stops: Vec<Option<bool>>,
        clock: Clock,
        callbacks: Callbacks,
    ) -> Self {
        Self {
            pipeline,
            owed: stages.iter().map(|_| AtomicU64::new(0)).collect(),
            stages,
            stops,
            clock,
            aborting: AtomicBool::new(false),
            slice: AtomicU64::new(0),
            inspector: callbacks.inspector,
            describe: callbacks.describe,
            timed_out: callbacks.timed_out,
            undo_timed_out: callbacks.undo_timed_out,
            tell: callbacks.tell,
            mapped: callbacks.mapped,
            fatal: Mutex::default(),
        }
    }

    /// Keeps an exception that ends the process until a place where nothing is in hand; any other
    /// one is no matter here.
    pub(crate) fn postpone(&self, py: Python<'_>, error: PyErr) {
        if ends_the_process(py, &error) {
            locked(&self.fatal).get_or_insert(error);
        }
    }

    /// The same, of what may have been raised.
    pub(crate) fn postpone_all(&self, py: Python<'_>, error: Option<PyErr>) {
        if let Some(error) = error {
            self.postpone(py, error);
        }
    }

    /// What was postponed.
    pub(crate) fn postponed(&self) -> Option<PyErr> {
        locked(&self.fatal).take()
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// When the slice under way began, or the last one did: what it was read for costs nothing.
    pub(crate) fn time_of_slice(&self) -> Time {
        Time::from_nanos(self.slice.load(Ordering::Relaxed))
    }

    /// Turns an exception into a failure: its code, and notes on where it arose.
    ///
    /// Errors of the description itself are shown instead of hiding the user's exception.
    pub(crate) fn failure(
        &self,
        py: Python<'_>,
        error: &PyErr,
        stage: usize,
        tenant: Option<&Py<PyAny>>,
        attempt: Option<u32>,
        item: Option<Py<PyAny>>,
    ) -> Failure {
        // By value: on Python 3.11 the traceback is kept beside the exception until it is asked for.
        let value = error.clone_ref(py).into_value(py).into_bound(py);
        let described = self.describe.bind(py).call1((
            &value,
            &self.pipeline,
            self.stages.get(stage),
            tenant,
            attempt,
        ));
        let code = match described.and_then(|code| code.extract()) {
            Ok(code) => code,
            Err(other) => {
                self.postpone(py, other);
                error
                    .get_type(py)
                    .name()
                    .map_or_else(|_| "?".to_owned(), |name| name.to_string())
            }
        };
        Failure {
            error: value.into_any().unbind(),
            code,
            stage,
            item,
            told: None,
            stops: self.stops.get(stage).copied().flatten(),
        }
    }
}
