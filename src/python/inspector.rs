//! What is found out about an undo action when it is registered.
//!
//! `anabranch._callables.examine_action` finds out, in Python, which would cost more than all the rest
//! of a registration: mostly the same function is registered again and again, so the answer for the
//! last one is kept.

use std::sync::{Arc, Mutex};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::run::locked;

/// What there is to know of an undo action.
#[derive(Debug, Clone)]
pub(crate) struct Examined {
    /// What reports call it.
    pub(crate) name: Arc<str>,
    /// Whether it must be awaited.
    pub(crate) asynchronous: bool,
    /// Whether it has a parameter `ctx`.
    pub(crate) takes_ctx: bool,
    /// How many arguments it must be given, `ctx` not counted, and how many it may be.
    pub(crate) takes: (usize, usize),
}

/// What is not known to be otherwise.
const ANY_NUMBER: (usize, usize) = (0, usize::MAX);

/// Examines undo actions.
#[derive(Debug)]
pub(crate) struct Inspector {
    /// `anabranch._callables.examine_action`.
    examine: Py<PyAny>,
    /// `types.FunctionType` and `types.MethodType`.
    function: Py<PyAny>,
    method: Py<PyAny>,
    /// The last function, and what was found out.
    last: Mutex<Option<(Py<PyAny>, Examined)>>,
}

impl<'py> FromPyObject<'_, 'py> for Inspector {
    type Error = PyErr;

    fn extract(examine: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let types = examine.py().import("types")?;
        Ok(Self {
            examine: examine.to_owned().unbind(),
            function: types.getattr("FunctionType")?.unbind(),
            method: types.getattr("MethodType")?.unbind(),
            last: Mutex::default(),
        })
    }
}

impl Inspector {
    pub(crate) fn examine(&self, call: &Bound<'_, PyAny>) -> PyResult<Examined> {
        let py = call.py();
        if call.is_exact_instance_of::<PyCFunction>() {
            return Ok(Examined {
                name: call
                    .getattr(pyo3::intern!(py, "__name__"))?
                    .extract::<&str>()?
                    .into(),
                asynchronous: false,
                takes_ctx: false,
                takes: ANY_NUMBER,
            });
        }
        let kind = call.get_type();
        // A bound method is a new object each time; its function is not.
        let function = if kind.is(&self.method) {
            call.getattr(pyo3::intern!(py, "__func__"))?
        } else {
            call.clone()
        };
        if let Some((last, examined)) = &*locked(&self.last)
            && function.is(last)
        {
            return Ok(examined.clone());
        }
        let (name, asynchronous, takes_ctx, least, most): (String, bool, bool, usize, usize) =
            self.examine.bind(py).call1((call,))?.extract()?;
        let examined = Examined {
            name: name.into(),
            asynchronous,
            takes_ctx,
            takes: (least, most),
        };
        if function.get_type().is(&self.function) {
            let kept = (function.unbind(), examined.clone());
            let before = locked(&self.last).replace(kept);
            // Outside the lock: dropping a function runs foreign code.
            drop(before);
        }
        Ok(examined)
    }

    /// Lets go of the function that is kept: what it refers to may refer to whoever holds this.
    pub(crate) fn forget(&self) {
        let before = locked(&self.last).take();
        drop(before);
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.examine)?;
        // The collector may come while the lock is held: it comes again.
        if let Ok(last) = self.last.try_lock()
            && let Some((function, _)) = &*last
        {
            visit.call(function)?;
        }
        Ok(())
    }
}
