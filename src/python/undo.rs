//! `Undo`: an undo action or finalizer as it was registered, and the checks of what was passed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::clock::Time;
use anabranch_core::engine::Port;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyTuple};

use super::domain::{Shared, UNDO};
use super::errors::ConfigError;
use super::inspector::Inspector;

/// Numbers the undo actions of the whole process: a scope may absorb another one, and a unit of a
/// run what was done by hand inside its handler. Playback is strict LIFO across them all.
static ORDER: AtomicU64 = AtomicU64::new(0);

pub(crate) fn next_order() -> u64 {
    ORDER.fetch_add(1, Ordering::Relaxed)
}

/// An undo action or finalizer.
#[derive(Debug)]
pub(crate) struct Undo {
    pub(crate) call: Py<PyAny>,
    pub(crate) args: Py<PyTuple>,
    pub(crate) name: Arc<str>,
    pub(crate) stage: usize,
    /// The branch it was registered in; None before the fan-out.
    pub(crate) tenant: Option<Py<PyAny>>,
    pub(crate) port: Port,
    /// Further tries after the first.
    pub(crate) retries: u32,
    /// Seconds each try may take, where it can be cancelled.
    pub(crate) timeout: Option<f64>,
    pub(crate) takes_ctx: bool,
    /// When it was registered, by the clock of its run.
    pub(crate) at: Time,
    /// The run it was registered in; None for a scope by itself.
    pub(crate) home: Option<Arc<Shared>>,
    /// Whether the run counts it among those it owes.
    owed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Undo {
    /// It has had its turn, or needs none any more.
    pub(crate) fn settle(&mut self) {
        if std::mem::take(&mut self.owed)
            && let Some(owed) = self.home.as_ref().and_then(|it| it.owed.get(self.stage))
        {
            owed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The name of the stage that registered it.
    pub(crate) fn stage_name(&self) -> Option<&String> {
        self.home.as_ref()?.stages.get(self.stage)
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            call: self.call.clone_ref(py),
            args: self.args.clone_ref(py),
            name: self.name.clone(),
            stage: self.stage,
            tenant: self.tenant.as_ref().map(|tenant| tenant.clone_ref(py)),
            port: self.port,
            retries: self.retries,
            timeout: self.timeout,
            takes_ctx: self.takes_ctx,
            at: self.at,
            home: self.home.clone(),
            owed: false,
        }
    }
}

/// Who registers: for errors, and for what is the same for all its actions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registrar<'a> {
    /// The method called.
    pub(crate) verb: &'static str,
    /// The run; None for a scope by itself.
    pub(crate) home: Option<&'a Arc<Shared>>,
    /// The stage's number.
    pub(crate) stage: usize,
    pub(crate) tenant: Option<&'a Py<PyAny>>,
    /// Where a `def` runs.
    pub(crate) port: Port,
    pub(crate) inspector: &'a Inspector,
}

/// An argument as it was passed. `PyO3` would refuse the wrong type by itself, with a `TypeError`.
#[derive(Debug)]
pub(crate) enum Given<'py, T> {
    /// What it should be.
    Fit(T),
    /// Anything else.
    Other(Bound<'py, PyAny>),
}

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Given<'py, T> {
    type Error = Infallible;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(T::extract(given).map_or_else(|_| Self::Other(given.to_owned()), Self::Fit))
    }
}

/// How often an undo action is tried again.
#[derive(Debug)]
pub(crate) struct Tries(pub(crate) u32);

impl<'a, 'py> FromPyObject<'a, 'py> for Tries {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        refuse_bool(given)?;
        given.extract().map(Self)
    }
}

/// Seconds each try may take.
#[derive(Debug)]
pub(crate) struct Limit(pub(crate) f64);

impl<'a, 'py> FromPyObject<'a, 'py> for Limit {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        refuse_bool(given)?;
        let seconds: f64 = given.extract()?;
        if seconds > 0.0 && seconds.is_finite() {
            Ok(Self(seconds))
        } else {
            Err(PyTypeError::new_err("no duration"))
        }
    }
}

/// In Python a bool is a number; as an argument it is a slip.
fn refuse_bool(given: Borrowed<'_, '_, PyAny>) -> PyResult<()> {
    if given.is_exact_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("a bool"));
    }
    Ok(())
}

/// What an undo action should have been, in the words of an error.
fn wanted(name: &str, given: usize, least: usize, most: usize) -> String {
    let takes = if least > most {
        "needs others, which go through functools.partial".to_owned()
    } else if least == most {
        format!("takes {least}")
    } else if given < least {
        format!("takes at least {least}")
    } else {
        format!("takes at most {most}")
    };
    let plural = if given == 1 { "" } else { "s" };
    format!(
        "a callable that can be called with the {given} argument{plural} passed, and perhaps ctx \
         ({name} {takes})"
    )
}

/// What was passed to register it.
#[derive(Debug)]
pub(crate) struct Passed<'py> {
    pub(crate) function: Bound<'py, PyAny>,
    pub(crate) args: Bound<'py, PyTuple>,
    pub(crate) when: Given<'py, bool>,
    pub(crate) name: Given<'py, Option<String>>,
    pub(crate) retries: Given<'py, Tries>,
    pub(crate) timeout: Given<'py, Option<Limit>>,
}

impl Registrar<'_> {
    /// Checks what was passed; `None` if `when` says that it is not to be registered.
    ///
    /// # Errors
    /// `ConfigError` naming the argument.
    pub(crate) fn undo(&self, py: Python<'_>, passed: Passed<'_>) -> PyResult<Option<Undo>> {
        if !passed.function.is_callable() {
            return Err(self.refused(py, "fn", passed.function, "a callable"));
        }
        let when = self.fit(py, "when", passed.when, "a bool")?;
        let name = self.fit(py, "name", passed.name, "None or a str that is not blank")?;
        if let Some(blank) = name.as_ref().filter(|name| name.trim().is_empty()) {
            let blank = blank.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "name", blank, "None or a str that is not blank"));
        }
        let Tries(retries) = self.fit(py, "retries", passed.retries, "an int >= 0")?;
        let timeout = self.fit(py, "timeout", passed.timeout, "None or seconds > 0")?;
        let examined = self.inspector.examine(&passed.function)?;
        let (least, most) = examined.takes;
        let given = passed.args.len();
        if !(least..=most).contains(&given) {
            let allowed = wanted(&examined.name, given, least, most);
            return Err(self.refused(py, "fn", passed.function, &allowed));
        }
        if !when {
            return Ok(None);
        }
        let owed = self.home.and_then(|home| home.owed.get(self.stage));
        if let Some(owed) = owed {
            owed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(Undo {
            call: passed.function.unbind(),
            args: passed.args.unbind(),
            name: name.map_or(examined.name, Arc::from),
            stage: self.stage,
            tenant: self.tenant.map(|tenant| tenant.clone_ref(py)),
            port: if examined.asynchronous {
                UNDO
            } else {
                self.port
            },
            retries,
            timeout: timeout.map(|Limit(seconds)| seconds),
            takes_ctx: examined.takes_ctx,
            at: self.home.map_or(Time::ZERO, |home| home.time_of_slice()),
            home: self.home.cloned(),
            owed: owed.is_some(),
        }))
    }

    /// An argument that is what it should be.
    pub(crate) fn fit<T>(
        &self,
        py: Python<'_>,
        argument: &str,
        given: Given<'_, T>,
        allowed: &str,
    ) -> PyResult<T> {
        match given {
            Given::Fit(value) => Ok(value),
            Given::Other(value) => Err(self.refused(py, argument, value, allowed)),
        }
    }

    /// The error of a refused argument.
    pub(crate) fn refused(
        &self,
        py: Python<'_>,
        argument: &str,
        value: Bound<'_, PyAny>,
        allowed: &str,
    ) -> PyErr {
        let shown = value
            .repr()
            .map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
        let pipeline = self.home.map(|home| &home.pipeline);
        let stage = self.home.and_then(|home| home.stages.get(self.stage));
        let place = match (pipeline, stage) {
            (Some(pipeline), Some(stage)) => format!("pipeline '{pipeline}', stage '{stage}'"),
            _ => "scope".to_owned(),
        };
        let verb = self.verb;
        let error = ConfigError::new_err(format!(
            "{place}: {verb}: {argument} must be {allowed}, got {shown}"
        ));
        let set = || -> PyResult<()> {
            let attributes = PyDict::new(py);
            attributes.set_item("pipeline", pipeline)?;
            attributes.set_item("stage", stage)?;
            attributes.set_item("argument", argument)?;
            attributes.set_item("value", value)?;
            for (name, value) in attributes {
                error.value(py).setattr(name.extract::<String>()?, value)?;
            }
            Ok(())
        };
        set().err().unwrap_or(error)
    }
}
