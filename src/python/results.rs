//! Results among what callables and sources give: an `Ok` goes on as its value, an `Err` fails.
//!
//! Generated passes look for themselves; here is what comes back from handlers, and what comes to a
//! leg with no pass in front of it.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple, PyType};

use super::pass::{FailedItem, Passed};

/// `Ok` and `Err`, and what makes a value of them; nothing before either can be made.
static KNOWN: PyOnceLock<(Py<PyTuple>, Py<PyAny>)> = PyOnceLock::new();

/// Learns the types of Results, and what unwraps them.
#[pyfunction]
pub(crate) fn results(py: Python<'_>, types: Py<PyTuple>, land: Py<PyAny>) {
    // The types are the same each time.
    let _ = KNOWN.set(py, (types, land));
}

/// Whether there can be Results.
pub(crate) fn known(py: Python<'_>) -> bool {
    KNOWN.get(py).is_some()
}

/// Whether this is one.
pub(crate) fn is_result(value: &Bound<'_, PyAny>) -> bool {
    let py = value.py();
    KNOWN.get(py).is_some_and(|(types, _)| {
        let kind: Bound<'_, PyType> = value.get_type();
        types.bind(py).iter().any(|known| known.is(&kind))
    })
}

/// What goes on of a value: of an `Ok` what it holds.
///
/// # Errors
/// The exception of an `Err`.
pub(crate) fn landed(py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
    match KNOWN.get(py) {
        Some((_, land)) if is_result(value.bind(py)) => land.call1(py, (value,)),
        _ => Ok(value),
    }
}

/// What becomes of items with Results among them that pass no stage, which came from `stage`;
/// `None` if there are none.
pub(crate) fn sifted<'py>(
    py: Python<'py>,
    items: &Bound<'py, PyList>,
    stage: usize,
) -> PyResult<Option<Passed<'py>>> {
    if !known(py) || !items.iter().any(|item| is_result(&item)) {
        return Ok(None);
    }
    let out = PyList::empty(py);
    let mut passed = Passed::untouched(out.clone());
    for (index, item) in items.iter().enumerate() {
        match landed(py, item.clone().unbind()) {
            Ok(value) => {
                out.append(value)?;
                passed.at.push(index);
            }
            Err(error) => passed.failed.push(FailedItem {
                error: Some(error),
                stage,
                key: None,
                index: Some(index),
                item: Some(item.unbind()),
                place: passed.failed.len(),
                outputs: out.len(),
            }),
        }
    }
    Ok(Some(passed))
}
