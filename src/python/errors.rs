//! Errors at the border: the Python classes, and the one mapping onto them.
//!
//! The classes live in Python: the stable ABI of 3.11 cannot subclass exceptions natively.

use anabranch_core::error::PlanError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;

pyo3::import_exception!(anabranch.errors, BranchError);
pyo3::import_exception!(anabranch.errors, BranchRefused);
pyo3::import_exception!(anabranch.errors, ChannelClosed);
pyo3::import_exception!(anabranch.errors, ChannelFull);
pyo3::import_exception!(anabranch.errors, ClosedError);
pyo3::import_exception!(anabranch.errors, ConfigError);
pyo3::import_exception!(anabranch.errors, ForkedProcessError);
pyo3::import_exception!(anabranch.errors, SourceError);

/// The `ConfigError` that says what `error` says, with the user's own object as its `value`.
///
/// `given` holds, by argument, the objects that the plan's values were made from.
pub(crate) fn config_error(error: PlanError, given: &Bound<'_, PyDict>) -> PyErr {
    let original = error
        .argument()
        .and_then(|argument| original(given, argument));
    let error = match &original {
        Some(object) => error.showing(convert::shown(object)),
        None => error,
    };
    raised(given.py(), &error, original).unwrap_or_else(|failure| failure)
}

fn raised(py: Python<'_>, error: &PlanError, value: Option<Bound<'_, PyAny>>) -> PyResult<PyErr> {
    let attributes = PyDict::new(py);
    attributes.set_item("pipeline", error.pipeline())?;
    attributes.set_item("stage", error.stage())?;
    attributes.set_item("argument", error.argument())?;
    attributes.set_item("value", value)?;
    let message = (error.to_string(),);
    let exception = py
        .get_type::<ConfigError>()
        .call(message, Some(&attributes))?;
    Ok(PyErr::from_value(exception))
}

/// What was given as `argument`; a dotted name leads into a dict within.
fn original<'py>(given: &Bound<'py, PyDict>, argument: &str) -> Option<Bound<'py, PyAny>> {
    argument
        .split('.')
        .try_fold(given.clone().into_any(), |object, key| {
            object.cast::<PyDict>().ok()?.get_item(key).ok()?
        })
}
