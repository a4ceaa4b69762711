//! `Undo`: an undo action or finalizer as it was registered, and the checks of what was passed.

use std::sync::Arc;

use anabranch_core::engine::Port;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::domain::{Shared, UNDO};
use super::errors::ConfigError;

/// An undo action or finalizer.
#[derive(Debug)]
pub(crate) struct Undo {
    pub(crate) call: Py<PyAny>,
    pub(crate) args: Py<PyTuple>,
    pub(crate) name: String,
    pub(crate) stage: usize,
    /// The branch it was registered in; None before the fan-out.
    pub(crate) tenant: Option<Py<PyAny>>,
    pub(crate) port: Port,
    /// Further tries after the first.
    pub(crate) retries: u32,
    /// Seconds each try may take, where it can be cancelled.
    pub(crate) timeout: Option<f64>,
    pub(crate) takes_ctx: bool,
    /// The run it was registered in; None for a scope by itself.
    pub(crate) home: Option<Arc<Shared>>,
}

impl Undo {
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
            home: self.home.clone(),
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
    /// `anabranch._callables.examine_undo`.
    pub(crate) inspect: &'a Py<PyAny>,
}

/// What was passed to register it.
#[derive(Debug)]
pub(crate) struct Passed<'py> {
    pub(crate) function: Bound<'py, PyAny>,
    pub(crate) args: Bound<'py, PyTuple>,
    pub(crate) name: Option<String>,
    pub(crate) retries: i64,
    pub(crate) timeout: Option<f64>,
}

impl Registrar<'_> {
    /// Checks what was passed.
    ///
    /// # Errors
    /// `ConfigError` naming the argument.
    pub(crate) fn undo(&self, py: Python<'_>, passed: Passed<'_>) -> PyResult<Undo> {
        if !passed.function.is_callable() {
            return Err(self.refused(py, "fn", passed.function, "a callable"));
        }
        let Ok(retries) = u32::try_from(passed.retries) else {
            let value = passed.retries.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "retries", value, "an int >= 0"));
        };
        if let Some(seconds) = passed.timeout
            && !(seconds > 0.0 && seconds.is_finite())
        {
            let value = seconds.into_pyobject(py)?.into_any();
            return Err(self.refused(py, "timeout", value, "None or seconds > 0"));
        }
        let (own_name, asynchronous, takes_ctx): (String, bool, bool) = self
            .inspect
            .bind(py)
            .call1((&passed.function,))?
            .extract()?;
        Ok(Undo {
            call: passed.function.unbind(),
            args: passed.args.unbind(),
            name: passed.name.unwrap_or(own_name),
            stage: self.stage,
            tenant: self.tenant.map(|tenant| tenant.clone_ref(py)),
            port: if asynchronous { UNDO } else { self.port },
            retries,
            timeout: passed.timeout,
            takes_ctx,
            home: self.home.cloned(),
        })
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
