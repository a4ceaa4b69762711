//! `Action`: an undo action as policies and users see it, and as it is called outside a run.

use std::sync::{Arc, Mutex};

use anabranch_core::compensation::Step;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::context::Context;
use super::domain::{INLINE, Shared, UNDO};
use super::run::locked;
use super::undo::Undo;

/// One undo action or finalizer that was registered.
#[pyclass(frozen, module = "anabranch._core", name = "UndoAction")]
#[derive(Debug)]
pub(crate) struct Action {
    #[pyo3(get)]
    name: String,
    /// The stage that registered it; None for a scope by itself.
    #[pyo3(get)]
    stage: Option<String>,
    /// The pipeline of that stage.
    #[pyo3(get)]
    pipeline: Option<String>,
    #[pyo3(get)]
    tenant: Option<Py<PyAny>>,
    #[pyo3(get)]
    args: Py<PyTuple>,
    #[pyo3(get)]
    finalizer: bool,
    #[pyo3(get)]
    retries: u32,
    #[pyo3(get)]
    timeout: Option<f64>,
    #[pyo3(get)]
    is_async: bool,
    #[pyo3(get)]
    takes_ctx: bool,
    /// What is called.
    #[pyo3(get)]
    call: Py<PyAny>,
    /// The run it is from, if it is from one, and the number of its stage there.
    home: Option<Arc<Shared>>,
    /// Its place in the order of registration, by which it is known whoever has it.
    #[pyo3(get)]
    order: u64,
    number: usize,
    step: Mutex<Option<Step<Undo>>>,
}

impl Action {
    pub(crate) fn new(py: Python<'_>, step: Step<Undo>) -> Self {
        let undo = &step.undo;
        Self {
            name: undo.name.to_string(),
            stage: undo.stage_name().cloned(),
            pipeline: undo.home.as_ref().map(|home| home.pipeline.clone()),
            tenant: undo.tenant.as_ref().map(|tenant| tenant.clone_ref(py)),
            args: undo.args.clone_ref(py),
            finalizer: step.is_finalizer(),
            retries: undo.retries,
            timeout: undo.timeout,
            is_async: undo.port == UNDO,
            takes_ctx: undo.takes_ctx,
            call: undo.call.clone_ref(py),
            home: undo.home.clone(),
            order: step.order,
            number: undo.stage,
            step: Mutex::new(Some(step)),
        }
    }

    pub(crate) fn take(&self) -> Option<Step<Undo>> {
        locked(&self.step).take()
    }
}

#[pymethods]
impl Action {
    /// The context of one try, if it is from a run and takes one.
    fn context(&self, py: Python<'_>, attempt: u32) -> Option<Context> {
        let home = self.home.as_ref().filter(|_| self.takes_ctx)?.clone();
        let tenant = self.tenant.as_ref().map(|tenant| tenant.clone_ref(py));
        Some(Context::new(home, tenant, self.number, attempt, INLINE))
    }

    /// Whether it may be played: nobody has taken it.
    #[getter]
    fn pending(&self) -> bool {
        locked(&self.step).is_some()
    }

    fn __repr__(&self) -> String {
        format!("<UndoAction {:?}>", self.name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(tenant) = &self.tenant {
            visit.call(tenant)?;
        }
        visit.call(&self.args)?;
        visit.call(&self.call)
    }
}

/// Steps to run, in order, and steps left out.
type Arranged = (Vec<Step<Undo>>, Vec<Step<Undo>>);

/// Has a policy arrange the undo actions of a rollback.
pub(crate) fn arranged(
    py: Python<'_>,
    policy: &Py<PyAny>,
    steps: Vec<Step<Undo>>,
    shared: &Arc<Shared>,
) -> PyResult<Arranged> {
    let actions = steps
        .into_iter()
        .map(|step| Py::new(py, Action::new(py, step)))
        .collect::<PyResult<Vec<_>>>()?;
    // `anabranch._scopes.arranged`: it answers whatever the policy does.
    let answer = policy
        .bind(py)
        .call1((PyTuple::new(py, &actions)?,))
        .and_then(|answer| answer.extract());
    let chosen: Vec<Py<Action>> = answer.unwrap_or_else(|error| {
        // A signal handler has raised: all are run, as without a policy.
        shared.postpone(py, error);
        actions.iter().map(|action| action.clone_ref(py)).collect()
    });
    let run = chosen.iter().filter_map(|it| it.get().take()).collect();
    let skipped = actions.iter().filter_map(|it| it.get().take()).collect();
    Ok((run, skipped))
}
