//! `Window`: the core's window by itself, for a stream that is read by hand.

use std::sync::Mutex;
use std::time::Duration;

use anabranch_core::clock::Time;
use anabranch_core::engine::Item;
use anabranch_core::window::{self, Reason, WindowOptions};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::domain::PyDomain;
use super::run::locked;

/// One window; the time is in seconds of the caller's clock.
#[pyclass(frozen, module = "anabranch._core", name = "Window")]
#[derive(Debug)]
pub(crate) struct PyWindow {
    options: WindowOptions,
    window: Mutex<window::Window<PyDomain>>,
}

#[pymethods]
impl PyWindow {
    #[new]
    #[pyo3(signature = (*, max_items, max_age, idle, max_bytes))]
    fn new(
        max_items: Option<usize>,
        max_age: Option<f64>,
        idle: Option<f64>,
        max_bytes: Option<u64>,
    ) -> Self {
        Self {
            options: WindowOptions {
                max_items,
                max_age: max_age.map(duration),
                idle: idle.map(duration),
                max_bytes,
                on_cancel: None,
            },
            window: Mutex::default(),
        }
    }

    /// Takes an item of so many bytes in; says whether the window must leave now.
    #[pyo3(signature = (item, size, now))]
    fn push(&self, item: Py<PyAny>, size: u32, now: f64) -> bool {
        let mut item = Item::new(item);
        item.bytes = size;
        let mut window = locked(&self.window);
        window.push(item, &self.options, time(now));
        window.due().is_some()
    }

    /// Whether it must leave now.
    #[pyo3(signature = (now))]
    fn due(&self, now: f64) -> bool {
        let mut window = locked(&self.window);
        window.expire(&self.options, time(now));
        window.due().is_some()
    }

    /// When it must leave if nothing comes before.
    #[pyo3(signature = ())]
    fn deadline(&self) -> Option<f64> {
        let (at, _) = locked(&self.window).deadline(&self.options)?;
        Some(at.since(Time::ZERO).as_secs_f64())
    }

    /// Empties it: its items, why it left, and the seconds since its first item came.
    #[pyo3(signature = (now))]
    fn cut<'py>(
        &self,
        py: Python<'py>,
        now: f64,
    ) -> PyResult<(Bound<'py, PyList>, &'static str, f64)> {
        let contents = {
            let mut window = locked(&self.window);
            let reason = window.due().unwrap_or(Reason::Close);
            window.cut(reason, time(now))
        };
        let age = contents.cut.closed.since(contents.cut.opened);
        let items = PyList::new(py, contents.values)?;
        Ok((items, contents.cut.reason.name(), age.as_secs_f64()))
    }

    fn __len__(&self) -> usize {
        locked(&self.window).len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(window) = self.window.try_lock() {
            for item in window.values() {
                visit.call(item)?;
            }
        }
        Ok(())
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn time(seconds: f64) -> Time {
    Time::ZERO.after(duration(seconds))
}
