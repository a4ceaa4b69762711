//! `Attempts`: a retry policy at work outside a run.

use std::sync::Mutex;
use std::time::Duration;

use anabranch_core::retry::{Random, Retry, Tried};
use pyo3::prelude::*;

use super::retry::RetrySpec;
use super::run::locked;

/// The attempts at one call.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Retry,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// The attempts that have failed.
    failed: u32,
    /// The delay before the latest attempt, and all delays together.
    waited: Duration,
    delay: Duration,
}

#[pymethods]
impl Attempts {
    #[new]
    #[pyo3(signature = (policy, seed))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "PyO3 hands arguments over by value"
    )]
    fn new(policy: RetrySpec<'_>, seed: u64) -> PyResult<Self> {
        let state = State {
            random: Random::new(seed),
            failed: 0,
            waited: Duration::ZERO,
            delay: Duration::ZERO,
        };
        Ok(Self {
            policy: policy.policy()?,
            state: Mutex::new(state),
        })
    }

    /// An attempt has failed: seconds to the next one, or why there is none.
    ///
    /// `since_first` are seconds since the first attempt began, `wall` is the calendar's time,
    /// counted from 1970, and `asked` the delay that a custom policy asks for.
    #[pyo3(signature = (since_first, wall, asked))]
    fn failed(
        &self,
        since_first: f64,
        wall: f64,
        asked: Option<f64>,
    ) -> (Option<f64>, Option<&'static str>) {
        let mut state = locked(&self.state);
        state.failed = state.failed.saturating_add(1);
        let tried = Tried {
            attempt: state.failed,
            waited: state.waited,
            since_first: duration(since_first),
            wall: duration(wall),
            random: state.random.next_f64(),
            asked: duration(asked.unwrap_or_default()),
        };
        match self.policy.delay(&tried) {
            Ok(delay) => {
                state.waited = delay;
                state.delay = state.delay.saturating_add(delay);
                (Some(delay.as_secs_f64()), None)
            }
            Err(reason) => (None, Some(reason.name())),
        }
    }

    /// Seconds waited between the attempts, in all.
    #[getter]
    fn delay(&self) -> f64 {
        locked(&self.state).delay.as_secs_f64()
    }
}

/// Seconds that Python has made sure are some.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
