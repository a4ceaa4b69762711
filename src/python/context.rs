//! `Context`: what a handler is told about its unit, and where it registers how to undo.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::clock::Time;
use anabranch_core::compensation::{Scope, Step};
use anabranch_core::engine::Port;
use anabranch_core::window::Cut;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::domain::{POOL, Shared, UNDO, Undo};
use super::errors::{ClosedError, ConfigError};
use super::run::locked;

/// The window a handler was given.
#[pyclass(frozen, get_all, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct WindowInfo {
    /// Why it left: "size", "age", "idle", "bytes" or "close".
    reason: &'static str,
    /// How many items it holds.
    items: usize,
    /// Seconds from its first item's arrival to its leaving.
    age: f64,
}

#[pymethods]
impl WindowInfo {
    fn __repr__(&self) -> String {
        format!(
            "WindowInfo(reason={:?}, items={}, age={:.6})",
            self.reason, self.items, self.age
        )
    }
}

impl WindowInfo {
    fn new(cut: &Cut, items: usize) -> Self {
        Self {
            reason: cut.reason.name(),
            items,
            age: cut.closed.since(cut.opened).as_secs_f64(),
        }
    }
}

/// One attempt of one unit, as its handler sees it.
///
/// A callable with a parameter named `ctx` is given one. It is valid during the call.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    tenant: Option<Py<PyAny>>,
    stage: usize,
    attempt: u32,
    deadline: Option<Time>,
    window: Option<Py<WindowInfo>>,
    /// Where `def` undo actions run: beside their handler.
    port: Port,
    /// What was registered; `None` once the attempt has ended.
    steps: Mutex<Option<Vec<Step<Undo>>>>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenant: Option<Py<PyAny>>,
        stage: usize,
        attempt: u32,
        port: Port,
    ) -> Self {
        let steps = Mutex::new(Some(Vec::new()));
        Self {
            shared,
            tenant,
            stage,
            attempt,
            deadline: None,
            window: None,
            port,
            steps,
        }
    }

    pub(crate) fn with_window(mut self, py: Python<'_>, cut: &Cut, items: usize) -> PyResult<Self> {
        self.window = Some(Py::new(py, WindowInfo::new(cut, items))?);
        Ok(self)
    }

    /// Ends the attempt: what was registered, if anything was. Later registrations are refused.
    pub(crate) fn close(&self) -> Option<Box<Scope<Undo>>> {
        let steps = locked(&self.steps).take().unwrap_or_default();
        if steps.is_empty() {
            None
        } else {
            Some(Box::new(Scope::new(steps)))
        }
    }
}

#[pymethods]
impl Context {
    /// The key of the branch; None before `fan_out`.
    #[getter]
    fn tenant(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.tenant.as_ref().map(|tenant| tenant.clone_ref(py))
    }

    /// The pipeline's name.
    #[getter]
    fn pipeline(&self) -> &str {
        &self.shared.pipeline
    }

    /// The stage's name.
    #[getter]
    fn stage(&self) -> &str {
        self.shared
            .stages
            .get(self.stage)
            .map_or("", String::as_str)
    }

    /// The number of the attempt, from 1.
    #[getter]
    const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the attempt must have ended, in seconds since the start of the run; None: never.
    #[getter]
    fn deadline(&self) -> Option<f64> {
        self.deadline
            .map(|at| Duration::from_nanos(at.as_nanos()).as_secs_f64())
    }

    /// Whether the run is being aborted. A long `def` handler looks at it now and then.
    #[getter]
    fn cancelled(&self) -> bool {
        self.shared.aborting.load(Ordering::Acquire)
    }

    /// The window, if the unit is one.
    #[getter]
    fn window(&self, py: Python<'_>) -> Option<Py<WindowInfo>> {
        self.window.as_ref().map(|window| window.clone_ref(py))
    }

    /// Register how to undo what the handler did, or is about to do.
    ///
    /// If the unit fails, here or in a later stage, or is cut short, its undo actions run in strict
    /// reverse order of registration, those of each failed attempt before the next one. If it
    /// succeeds they are released. Register before the effect: an undo of something that did not
    /// happen is usually harmless, a missing one is not.
    ///
    /// Args:
    ///     fn: The undo action, `def` or `async def`. A `def` runs where the handler runs: on the
    ///         pool, or inline. One with a parameter `ctx` is given a Context, and what it
    ///         registers there runs in a next pass (at most 16).
    ///     args: What to call it with; keywords go through `functools.partial`.
    ///     level: "unit".
    ///     name: What reports call it; the callable's name by default.
    ///     retries: Further tries if it raises.
    ///     timeout: Seconds an `async def` action may take; a `def` cannot be stopped.
    ///
    /// Raises:
    ///     ConfigError: An argument is not allowed.
    ///     ClosedError: The unit has ended.
    #[pyo3(signature = (r#fn, /, *args, level="unit", name=None, retries=0, timeout=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "the keywords of the Python method"
    )]
    fn compensate(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        level: &str,
        name: Option<String>,
        retries: i64,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        if !r#fn.is_callable() {
            return Err(self.refused(py, "fn", r#fn.clone(), "a callable"));
        }
        if level != "unit" {
            let value = level.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "level", value, "'unit'"));
        }
        let Ok(tries) = u32::try_from(retries) else {
            let value = retries.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "retries", value, "an int >= 0"));
        };
        if let Some(seconds) = timeout
            && !(seconds > 0.0 && seconds.is_finite())
        {
            let value = seconds.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "timeout", value, "None or seconds > 0"));
        }
        let (own_name, asynchronous, takes_ctx): (String, bool, bool) =
            self.shared.inspect.bind(py).call1((&r#fn,))?.extract()?;
        let name = name.unwrap_or(own_name);
        let port = if asynchronous { UNDO } else { self.port };
        let undo = Undo {
            call: r#fn.unbind(),
            args: args.unbind(),
            name,
            stage: self.stage,
            port,
            retries: tries,
            timeout,
            takes_ctx,
        };
        let order = self.shared.next_order();
        if let Some(steps) = locked(&self.steps).as_mut() {
            steps.push(Step { order, undo });
            return Ok(());
        }
        Err(ClosedError::new_err(format!(
            "pipeline '{}', stage '{}': compensate() was called after its unit had ended; \
             register an undo before the handler returns",
            self.shared.pipeline,
            self.stage()
        )))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let tenant = match &self.tenant {
            Some(tenant) => tenant.bind(py).repr()?.to_string(),
            None => "None".to_owned(),
        };
        let (pipeline, stage, attempt) = (&self.shared.pipeline, self.stage(), self.attempt);
        Ok(format!(
            "Context(pipeline={pipeline:?}, stage={stage:?}, tenant={tenant}, attempt={attempt})"
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(tenant) = &self.tenant {
            visit.call(tenant)?;
        }
        // The collector may come while a registration holds the lock: it comes again.
        if let Ok(steps) = self.steps.try_lock() {
            for step in steps.iter().flatten() {
                visit.call(&step.undo.call)?;
                visit.call(&step.undo.args)?;
            }
        }
        Ok(())
    }
}

impl Context {
    fn refused(
        &self,
        py: Python<'_>,
        argument: &str,
        value: Bound<'_, PyAny>,
        allowed: &str,
    ) -> PyErr {
        let shown = value
            .repr()
            .map_or_else(|_| "?".to_owned(), |repr| repr.to_string());
        let message = format!(
            "pipeline '{}', stage '{}': compensate: {argument} must be {allowed}, got {shown}",
            self.shared.pipeline,
            self.stage()
        );
        let error = ConfigError::new_err(message);
        let set = || -> PyResult<()> {
            let attributes = PyDict::new(py);
            attributes.set_item("pipeline", &self.shared.pipeline)?;
            attributes.set_item("stage", self.stage())?;
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

/// Where the `def` undo actions of a handler on `port` run.
pub(crate) const fn undo_port(port: Port) -> Port {
    match port {
        super::domain::INLINE => super::domain::INLINE,
        _ => POOL,
    }
}
