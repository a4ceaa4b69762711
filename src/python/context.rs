//! `Context`: what a handler is told about its unit, and where it registers how to undo.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::clock::Time;
use anabranch_core::compensation::{Kind, Scope, Step};
use anabranch_core::engine::Port;
use anabranch_core::window::Cut;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::domain::{INLINE, POOL, Shared};
use super::errors::ClosedError;
use super::run::locked;
use super::scope::PyScope;
use super::time::VirtualTime;
use super::undo::{Given, Limit, Passed, Registrar, Tries, Undo, next_order};

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
    registered: Mutex<Option<Registered>>,
}

/// A level wider than the unit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wide {
    Branch,
    Pipeline,
}

/// What a registration belongs to: `None` is the unit.
#[derive(Debug)]
struct Level(Option<Wide>);

impl<'a, 'py> FromPyObject<'a, 'py> for Level {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match given.extract::<&str>()? {
            "unit" => Ok(Self(None)),
            "branch" => Ok(Self(Some(Wide::Branch))),
            "pipeline" => Ok(Self(Some(Wide::Pipeline))),
            _ => Err(PyValueError::new_err("no level")),
        }
    }
}

/// What a handler has registered. Without a registration nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Registered {
    unit: Vec<Step<Undo>>,
    pub(crate) wide: Vec<(Wide, Step<Undo>)>,
}

impl Registered {
    pub(crate) const fn is_empty(&self) -> bool {
        self.unit.is_empty() && self.wide.is_empty()
    }

    /// All of it: outside a run, whatever it was registered for has ended.
    pub(crate) fn whole(self) -> Scope<Undo> {
        let wide = self.wide.into_iter().map(|(_, step)| step);
        Scope::new(self.unit.into_iter().chain(wide).collect())
    }

    /// What goes with the unit, if anything does.
    pub(crate) fn scope(&mut self) -> Option<Box<Scope<Undo>>> {
        let steps = std::mem::take(&mut self.unit);
        (!steps.is_empty()).then(|| Box::new(Scope::new(steps)))
    }
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenant: Option<Py<PyAny>>,
        stage: usize,
        attempt: u32,
        port: Port,
    ) -> Self {
        let registered = Mutex::new(Some(Registered::default()));
        Self {
            shared,
            tenant,
            stage,
            attempt,
            deadline: None,
            window: None,
            port,
            registered,
        }
    }

    pub(crate) fn with_window(mut self, py: Python<'_>, cut: &Cut, items: usize) -> PyResult<Self> {
        self.window = Some(Py::new(py, WindowInfo::new(cut, items))?);
        Ok(self)
    }

    pub(crate) const fn with_deadline(mut self, deadline: Option<Time>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Ends the attempt: what was registered. Later registrations are refused.
    pub(crate) fn close(&self) -> Registered {
        locked(&self.registered).take().unwrap_or_default()
    }

    /// The key of the branch, if it is known.
    pub(crate) const fn key(&self) -> Option<&Py<PyAny>> {
        self.tenant.as_ref()
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

    /// Whether the run is being aborted, or the attempt has timed out. A long `def` handler looks
    /// at it now and then.
    #[getter]
    fn cancelled(&self) -> bool {
        self.shared.aborting.load(Ordering::Acquire) || locked(&self.registered).is_none()
    }

    /// The pipeline's name and the stage's.
    #[getter]
    fn name(&self) -> String {
        format!("{}.{}", self.shared.pipeline, self.stage())
    }

    /// Seconds left until the deadline, never less than 0; None: there is no deadline.
    #[getter]
    fn remaining(&self) -> Option<f64> {
        let deadline = self.deadline?;
        Some(deadline.since(self.shared.now()).as_secs_f64())
    }

    /// The time of the test that the run goes by, if it does.
    #[getter]
    fn _time(&self) -> Option<VirtualTime> {
        self.shared.clock.virtual_time().map(VirtualTime)
    }

    /// Takes over what a call by hand inside the handler has registered.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn _absorb(&self, py: Python<'_>, scope: PyRef<'_, PyScope>) -> PyResult<()> {
        let mut registered = locked(&self.registered);
        let Some(registered) = registered.as_mut() else {
            return Err(self.has_ended("compensate"));
        };
        let adopted = scope.take().into_steps().into_iter().map(|mut step| {
            let undo = &mut step.undo;
            if undo.home.is_none() {
                undo.home = Some(Arc::clone(&self.shared));
                undo.stage = self.stage;
                undo.tenant = self.tenant.as_ref().map(|tenant| tenant.clone_ref(py));
            }
            if undo.port == INLINE {
                undo.port = self.port;
            }
            step
        });
        registered.unit.extend(adopted);
        Ok(())
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
    /// What a unit with several outputs registered belongs to all of them: it runs once all have
    /// ended, if one of them has failed, and after what they registered themselves.
    ///
    /// Args:
    ///     fn: The undo action, `def` or `async def`. A `def` runs where the handler runs: on the
    ///         pool, or inline. One with a parameter `ctx` is given a Context, and what its tries
    ///         register there, failed ones included, runs in a next pass (at most 16).
    ///     args: What to call it with; keywords go through `functools.partial`.
    ///     level: "unit"; "branch": it stays when the unit has ended, and runs if the branch fails,
    ///         or the run fails or is aborted (before `fan_out`: the run); "pipeline": if the run
    ///         fails or is aborted.
    ///     when: False: check the arguments, and register nothing.
    ///     name: What reports call it; the callable's name by default.
    ///     retries: Further tries if it raises.
    ///     timeout: Seconds each try of an `async def` may take, None for no limit; a `def`
    ///         cannot be stopped. One that is still running at the rollback's deadline is stuck:
    ///         on the pool its thread is left behind, and the run goes on; inline it holds the
    ///         run up.
    ///
    /// Raises:
    ///     ConfigError: An argument is not allowed.
    ///     ClosedError: The unit has ended.
    #[pyo3(
        signature = (
            r#fn, /, *args, level=Given::Fit(Level(None)), when=Given::Fit(true),
            name=Given::Fit(None), retries=Given::Fit(Tries(0)),
            timeout=Given::Fit(Some(Limit(30.0)))
        ),
        text_signature = "(self, fn, /, *args, level='unit', when=True, name=None, retries=0, \
                          timeout=30.0)"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "the keywords of the Python method"
    )]
    fn compensate(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        level: Given<'_, Level>,
        when: Given<'_, bool>,
        name: Given<'_, Option<String>>,
        retries: Given<'_, Tries>,
        timeout: Given<'_, Option<Limit>>,
    ) -> PyResult<()> {
        let passed = Passed {
            function: r#fn,
            args,
            when,
            name,
            retries,
            timeout,
        };
        self.register(py, Kind::Compensation, level, passed)
    }

    /// Register what closes or releases something when the unit has ended, however it ends.
    ///
    /// Finalizers run after the undo actions, which may still need what they close; the last one
    /// registered runs first. Those of a failed attempt run before the next one.
    ///
    /// Args:
    ///     fn: The finalizer, `def` or `async def`; as for `compensate`.
    ///     args: What to call it with; keywords go through `functools.partial`.
    ///     level: "unit"; "branch": it runs when the branch ends; "pipeline": when the run ends.
    ///     when: False: check the arguments, and register nothing.
    ///     name: What reports call it; the callable's name by default.
    ///     retries: Further tries if it raises.
    ///     timeout: Seconds each try of an `async def` may take, None for no limit; a `def`
    ///         cannot be stopped. One that is still running at the rollback's deadline is stuck:
    ///         on the pool its thread is left behind, and the run goes on; inline it holds the
    ///         run up.
    ///
    /// Raises:
    ///     ConfigError: An argument is not allowed.
    ///     ClosedError: The unit has ended.
    #[pyo3(
        signature = (
            r#fn, /, *args, level=Given::Fit(Level(None)), when=Given::Fit(true),
            name=Given::Fit(None), retries=Given::Fit(Tries(0)),
            timeout=Given::Fit(Some(Limit(30.0)))
        ),
        text_signature = "(self, fn, /, *args, level='unit', when=True, name=None, retries=0, \
                          timeout=30.0)"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "the keywords of the Python method"
    )]
    fn finalize(
        &self,
        py: Python<'_>,
        r#fn: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        level: Given<'_, Level>,
        when: Given<'_, bool>,
        name: Given<'_, Option<String>>,
        retries: Given<'_, Tries>,
        timeout: Given<'_, Option<Limit>>,
    ) -> PyResult<()> {
        let passed = Passed {
            function: r#fn,
            args,
            when,
            name,
            retries,
            timeout,
        };
        self.register(py, Kind::Finalizer, level, passed)
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
        if let Ok(registered) = self.registered.try_lock()
            && let Some(registered) = registered.as_ref()
        {
            let wide = registered.wide.iter().map(|(_, step)| step);
            for step in registered.unit.iter().chain(wide) {
                visit.call(&step.undo.call)?;
                visit.call(&step.undo.args)?;
            }
        }
        Ok(())
    }
}

impl Context {
    fn register(
        &self,
        py: Python<'_>,
        kind: Kind,
        level: Given<'_, Level>,
        passed: Passed<'_>,
    ) -> PyResult<()> {
        let registrar = Registrar {
            verb: match kind {
                Kind::Compensation => "compensate",
                Kind::Finalizer => "finalize",
            },
            home: Some(&self.shared),
            stage: self.stage,
            tenant: self.tenant.as_ref(),
            port: self.port,
            inspector: &self.shared.inspector,
        };
        let Level(wide) = registrar.fit(py, "level", level, "'unit', 'branch' or 'pipeline'")?;
        let Some(undo) = registrar.undo(py, passed)? else {
            return Ok(());
        };
        let order = next_order();
        let step = Step { order, kind, undo };
        if let Some(registered) = locked(&self.registered).as_mut() {
            match wide {
                None => registered.unit.push(step),
                Some(wide) => registered.wide.push((wide, step)),
            }
            return Ok(());
        }
        Err(self.has_ended(registrar.verb))
    }

    fn has_ended(&self, verb: &str) -> PyErr {
        ClosedError::new_err(format!(
            "pipeline '{}', stage '{}': {verb}() was called after its unit had ended; \
             register before the handler returns",
            self.shared.pipeline,
            self.stage(),
        ))
    }
}

/// Where the `def` undo actions of a handler on `port` run.
pub(crate) const fn undo_port(port: Port) -> Port {
    match port {
        super::domain::INLINE => super::domain::INLINE,
        _ => POOL,
    }
}
