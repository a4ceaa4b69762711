//! What the engine carries when Python drives it: objects, exceptions, undo actions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anabranch_core::clock::Time;
use anabranch_core::engine::{Domain, Port};
use pyo3::prelude::*;

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
/// The channel at the end of the pipeline.
pub(crate) const CHANNEL: Port = Port(3);
/// The first port of a leg with tasks of its own.
pub(crate) const FIRST_TASKS: usize = 4;

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

    fn port(undo: &Undo) -> Port {
        undo.port
    }
}

/// An exception of a callable, and where it arose.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Py<PyAny>,
    pub(crate) code: String,
    pub(crate) stage: usize,
}

/// What every context of a run reads: names, the clock, the order of registration.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pipeline: String,
    /// By stage number; the source is 0.
    pub(crate) stages: Vec<String>,
    pub(crate) clock: Clock,
    pub(crate) aborting: AtomicBool,
    /// Numbers undo actions over the whole pipeline: playback is strict LIFO across scopes.
    order: AtomicU64,
    /// Looks at an undo action: its name, whether it is async, whether it takes `ctx`.
    pub(crate) inspect: Py<PyAny>,
    /// `anabranch._failures.describe`.
    pub(crate) describe: Py<PyAny>,
    /// `anabranch._failures.timed_out`.
    pub(crate) timed_out: Py<PyAny>,
    /// `anabranch._failures.undo_timed_out`.
    pub(crate) undo_timed_out: Py<PyAny>,
    /// What a signal handler raised in the middle of our own Python code: the next step raises it.
    fatal: Mutex<Option<PyErr>>,
}

impl Shared {
    pub(crate) fn new(
        pipeline: String,
        stages: Vec<String>,
        clock: Clock,
        inspect: Py<PyAny>,
        describe: Py<PyAny>,
        timed_out: Py<PyAny>,
        undo_timed_out: Py<PyAny>,
    ) -> Self {
        Self {
            pipeline,
            stages,
            clock,
            aborting: AtomicBool::new(false),
            order: AtomicU64::new(0),
            inspect,
            describe,
            timed_out,
            undo_timed_out,
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

    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
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
        }
    }
}
