//! Retry policies at the border: what the core cannot hold or look up.

use std::time::Duration;

use anabranch_core::engine::Again;
use anabranch_core::plan;
use anabranch_core::retry::{Backoff, Budget, Retry};
use jiff::tz::TimeZone;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert;
use super::errors::config_error;
use super::run::Run;

/// A budget that further attempts are paid from, shared by all policies that name it.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct RetryBudget {
    #[pyo3(get)]
    rate: f64,
    #[pyo3(get)]
    burst: u32,
    budget: Budget,
}

#[pymethods]
impl RetryBudget {
    #[new]
    #[pyo3(signature = (*, rate, burst))]
    fn new(rate: &Bound<'_, PyAny>, burst: &Bound<'_, PyAny>) -> PyResult<Self> {
        let given = PyDict::new(rate.py());
        given.set_item("rate", rate)?;
        given.set_item("burst", burst)?;
        let budget = plan::budget(&convert::options(&given)?)
            .map_err(|error| config_error(error, &given))?;
        Ok(Self {
            rate: rate.extract()?,
            burst: burst.extract()?,
            budget,
        })
    }

    fn __repr__(&self) -> String {
        format!("RetryBudget(rate={:?}, burst={})", self.rate, self.burst)
    }
}

/// Whether this machine's time zone database has a zone of that name.
#[pyfunction]
#[pyo3(signature = (name))]
pub(crate) fn has_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

/// The retry policy of a leg, as `anabranch._build` describes it.
#[derive(Debug, FromPyObject)]
pub(crate) struct RetrySpec<'py> {
    /// The plan's options.
    options: Bound<'py, PyDict>,
    budget: Option<Bound<'py, RetryBudget>>,
    /// Whether an error is worth another attempt.
    pub(crate) retryable: Py<PyAny>,
    /// What a custom policy goes by: `(attempt, error)` to seconds, None if it cannot say.
    pub(crate) delay: Option<Py<PyAny>>,
}

impl RetrySpec<'_> {
    pub(crate) fn policy(&self) -> PyResult<Retry> {
        let options = convert::options(&self.options)?;
        let mut retry = plan::policy(&options)
            .ok_or_else(|| PyValueError::new_err(format!("no retry policy: {}", self.options)))?;
        retry.budget = self.budget.as_ref().map(|it| it.get().budget.clone());
        if let Some(name) = options.text("tz")
            && let Backoff::Cron(cron) = retry.backoff
        {
            let zone = TimeZone::get(name)
                .map_err(|error| PyValueError::new_err(format!("time zone {name}: {error}")))?;
            retry.backoff = Backoff::Cron(cron.within(zone));
        }
        Ok(retry)
    }
}

impl Run {
    /// Whether the leg's policy would try again after this attempt has failed so. Runs Python: the
    /// engine must not be borrowed.
    pub(crate) fn again(&self, py: Python<'_>, leg: usize, attempt: u32, error: &PyErr) -> Again {
        let Ok(legs) = self.legs() else {
            return Again::No;
        };
        let Some(policy) = legs.get(leg).and_then(|leg| leg.retry.as_ref()) else {
            return Again::No;
        };
        let value = error.value(py);
        let answer = || -> PyResult<Again> {
            if !policy.retryable.bind(py).call1((value,))?.is_truthy()? {
                return Ok(Again::No);
            }
            match &policy.delay {
                // After the last attempt nobody asks.
                Some(delay) if attempt < policy.attempts => {
                    let delay: Option<f64> = delay.bind(py).call1((attempt, value))?.extract()?;
                    let delay = delay.and_then(|it| Duration::try_from_secs_f64(it).ok());
                    Ok(delay.map_or(Again::No, Again::After))
                }
                _ => Ok(Again::Yes),
            }
        };
        answer().unwrap_or_else(|error| {
            self.shared.postpone(py, error);
            Again::No
        })
    }
}
