//! `_core.Plan`, and the checks of policies and sources that exist before there is a plan.

use anabranch_core::error::PlanError;
use anabranch_core::plan::{self, Kind, Options, Stage};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use super::errors::config_error;

/// What a pipeline is going to do: immutable, checked as it grows.
///
/// Holds values only: callables and other live objects stay with the builder, by stage index.
#[pyclass(frozen, module = "anabranch._core", name = "Plan")]
#[derive(Debug)]
pub(crate) struct PyPlan {
    /// Read by the driver that runs it.
    pub(crate) plan: plan::Plan,
}

#[pymethods]
impl PyPlan {
    // The defaults are the plan's; they are repeated here only for `inspect.signature`.
    #[new]
    #[pyo3(
        signature = (name, **settings),
        text_signature = "(name, *, max_in_flight=256, threads=8, on_error='continue', \
                          dead_letter=None, grace=30.0, commit='unit', rollback='sequential', \
                          rollback_deadline=30.0, seed=None)"
    )]
    fn new(name: &Bound<'_, PyAny>, settings: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let settings = settings.unwrap_or_else(|| PyDict::new(name.py()));
        match plan::Plan::new(&convert::value(name)?, &convert::options(&settings)?) {
            Ok(plan) => Ok(Self { plan }),
            Err(error) => Err(blame(error, name, &settings)?),
        }
    }

    /// The plan with one more stage at its end.
    ///
    /// Raises `ConfigError` if it cannot stand there, or an option is not allowed.
    #[pyo3(signature = (kind, label, options))]
    fn stage(
        &self,
        kind: &str,
        label: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let kind = Kind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("no stage is of the kind {kind:?}")))?;
        let wanted = convert::value(label)?;
        match self
            .plan
            .clone()
            .with(kind, &wanted, &convert::options(options)?)
        {
            Ok(plan) => Ok(Self { plan }),
            Err(error) => Err(blame(error, label, options)?),
        }
    }

    /// The plan behind the end of the course of copies that was begun last; raises `ConfigError`.
    #[pyo3(signature = ())]
    fn leave(&self, py: Python<'_>) -> PyResult<Self> {
        let plan = self.plan.clone().leave();
        let plan = plan.map_err(|error| config_error(error, &PyDict::new(py)))?;
        Ok(Self { plan })
    }

    /// The course that each stage belongs to: 0 for the items themselves, or a number of its own for
    /// the copies of each tee, in the order of the tees; and last that of the next stage.
    #[pyo3(signature = ())]
    fn courses(&self) -> Vec<usize> {
        let stages = self.plan.stages().iter().map(Stage::course);
        stages.chain([self.plan.course()]).collect()
    }

    /// Raises `ConfigError` unless the plan leads from a source to a sink.
    #[pyo3(signature = ())]
    fn validate(&self, py: Python<'_>) -> PyResult<()> {
        self.plan
            .validate()
            .map_err(|error| config_error(error, &PyDict::new(py)))
    }

    /// The stages' names, unique within the plan.
    #[pyo3(signature = ())]
    fn names(&self) -> Vec<&str> {
        self.plan.stages().iter().map(Stage::name).collect()
    }

    /// The stages' kinds: the builder methods that added them.
    #[pyo3(signature = ())]
    fn kinds(&self) -> Vec<&'static str> {
        self.plan
            .stages()
            .iter()
            .map(|stage| stage.kind().name())
            .collect()
    }

    /// The options of one stage: all that its kind has, durations in seconds.
    #[pyo3(signature = (index))]
    fn options<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyDict>> {
        let stages = self.plan.stages();
        let stage = stages.get(index).ok_or_else(|| {
            PyIndexError::new_err(format!("stage {index} of a plan that has {}", stages.len()))
        })?;
        convert::dict(py, stage.options())
    }

    /// The pipeline's name and settings, durations in seconds.
    #[pyo3(signature = ())]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let named = PyDict::new(py);
        named.set_item("name", self.plan.name())?;
        named.update(convert::dict(py, self.plan.settings())?.as_mapping())?;
        Ok(named)
    }

    /// The plan as a listing, one line per stage.
    #[pyo3(signature = ())]
    fn describe(&self) -> String {
        self.plan.describe()
    }

    /// The plan as a Mermaid flowchart.
    #[pyo3(signature = ())]
    fn mermaid(&self) -> String {
        self.plan.mermaid()
    }

    fn __repr__(&self) -> String {
        self.plan.describe()
    }
}

/// The options of a retry policy, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_retry<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::retry, options)
}

/// The options of `tcp_lines`, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_tcp<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::tcp_lines, options)
}

/// The options of `tcp_client`, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_tcp_client<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::tcp_client, options)
}

/// The options of `tail`, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_tail<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::tail, options)
}

/// The options of a channel, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_channel<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::channel, options)
}

/// The options of a window by itself, checked and filled in; raises `ConfigError`.
#[pyfunction]
#[pyo3(signature = (options))]
pub(crate) fn check_window<'py>(options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    checked(plan::window, options)
}

fn checked<'py>(
    check: fn(&Options) -> Result<Options, PlanError>,
    given: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = check(&convert::options(given)?).map_err(|error| config_error(error, given))?;
    convert::dict(given.py(), &options)
}

/// The `ConfigError` where `name` stands beside the other arguments.
fn blame(error: PlanError, name: &Bound<'_, PyAny>, others: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let given = others.copy()?;
    given.set_item("name", name)?;
    Ok(config_error(error, &given))
}
