//! `Monitor`: the way in for those who look at the pipelines of this process, as Python opens and
//! closes it. Everything behind it runs without the interpreter.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anabranch_protocol::message::{self, Leg, Severity};
use anabranch_tui::At;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::domain::Shared;
use super::leg;
use super::outboxes::PyOutboxes;
use super::run::locked;
use crate::monitor::{Access, Facts, Monitor, Pipeline, Place, descriptors};
use crate::wake::Wake;

/// The monitor of this process, or one of them.
#[pyclass(frozen, name = "Monitor", module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct PyMonitor(Mutex<Option<Monitor>>);

#[pymethods]
impl PyMonitor {
    /// Opens it: in the user's directory, at a path, or at a TCP address.
    #[new]
    #[pyo3(signature = (name, *, path, tcp, control))]
    fn new(
        py: Python<'_>,
        name: String,
        path: Option<PathBuf>,
        tcp: Option<String>,
        control: bool,
    ) -> PyResult<Self> {
        let place = match (path, tcp) {
            (Some(path), _) => Place::Path(path),
            (None, Some(address)) => {
                let address: SocketAddr = address
                    .parse()
                    .map_err(|error| PyOSError::new_err(format!("{address}: {error}")))?;
                Place::Tcp { address, control }
            }
            (None, None) => Place::Directory,
        };
        let access = Access {
            place,
            control,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name,
        };
        match py.detach(|| Monitor::open(&access)) {
            Ok(monitor) => Ok(Self(Mutex::new(Some(monitor)))),
            Err(error) => Err(PyOSError::new_err(error.to_string())),
        }
    }

    /// Where it answers: `unix:PATH` or `tcp:HOST:PORT`; None once it is closed.
    #[getter]
    fn at(&self) -> Option<String> {
        locked(&self.0)
            .as_ref()
            .map(|monitor| monitor.at().to_owned())
    }

    /// What is known of a pipeline of it now, in the lines of the protocol; empty if it is closed, or
    /// has forgotten the pipeline.
    #[pyo3(signature = (number, *, branches))]
    fn picture<'py>(&self, py: Python<'py>, number: u32, branches: bool) -> Bound<'py, PyBytes> {
        let picture = py.detach(|| {
            locked(&self.0)
                .as_ref()
                .map_or_else(Vec::new, |monitor| monitor.picture(number, branches))
        });
        PyBytes::new(py, &picture)
    }

    /// Tells of what was logged, at a time in milliseconds since 1970.
    #[pyo3(signature = (level, at, message))]
    fn log(&self, level: &str, at: u64, message: &str) {
        if let Some(monitor) = &*locked(&self.0) {
            monitor.log(Severity::from_word(level), at, message);
        }
    }

    /// The outboxes it is told of; None once it is closed.
    fn outboxes(&self) -> Option<PyOutboxes> {
        let monitor = locked(&self.0);
        monitor.as_ref().map(|it| PyOutboxes(it.outboxes()))
    }

    /// Ends its thread, and removes its files.
    fn close(&self, py: Python<'_>) {
        let monitor = locked(&self.0).take();
        py.detach(|| drop(monitor));
    }
}

impl PyMonitor {
    /// Shows a run.
    pub(super) fn show(
        &self,
        shared: &Arc<Shared>,
        legs: Vec<Leg>,
        fan_leg: usize,
        wake: &Arc<Wake>,
        control: bool,
    ) -> Option<Arc<Pipeline>> {
        // The monitor outlives the run and is let go of without the interpreter: of what the run
        // shares, which holds objects, it gets the clock alone. Nor does it keep the descriptors by
        // which the driver is woken, once there is none.
        let (clock, wake) = (shared.clock.clone(), Arc::downgrade(wake));
        let facts = Facts {
            name: shared.pipeline.clone(),
            stages: shared.stages.clone(),
            fan_leg: (fan_leg < legs.len()).then_some(fan_leg),
            legs,
            epoch: shared.clock.epoch(),
            clock: Box::new(move || clock.now()),
            wake: Box::new(move || {
                if let Some(wake) = wake.upgrade() {
                    wake.wake();
                }
            }),
            control,
        };
        locked(&self.0).as_ref().map(|monitor| monitor.add(facts))
    }
}

/// How a leg is introduced to those who look.
pub(super) fn introduce(options: &anabranch_core::engine::LegOptions, python: &leg::Leg) -> Leg {
    let window = options.window.as_ref();
    let millis = |it: std::time::Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
    let role = match (python.role, options.operator) {
        (_, Some(_)) => message::Role::Failures,
        (leg::Role::Forward, _) => message::Role::Window,
        (leg::Role::Sink | leg::Role::Channel | leg::Role::Collect, _) => message::Role::Sink,
        _ => message::Role::Map,
    };
    Leg {
        stage: u32::try_from(python.stage).unwrap_or(u32::MAX),
        role,
        capacity: options.capacity as u64,
        concurrency: options.concurrency,
        window_size: window.and_then(|it| it.max_items).map(|it| it as u64),
        window_max_age_ms: window.and_then(|it| it.max_age).map(millis),
        attempts: options.retry.as_ref().map(|it| it.attempts),
    }
}

/// In a forked child: the descriptors of its parent's monitors, which it must close.
#[pyfunction]
pub(crate) fn inherited() -> Vec<i32> {
    descriptors()
}

/// A process that can be looked at: its pid, its name, when it began to be, where it answers, and the
/// token that lets in.
type Found = (u32, String, u64, String, Option<String>);

/// The processes of this user that can be looked at.
#[pyfunction]
pub(crate) fn processes(py: Python<'_>) -> Vec<Found> {
    let found = py.detach(anabranch_tui::processes);
    let told = found.into_iter().map(|it| {
        let at = it.at.to_string();
        let token = match it.at {
            At::Tcp(_, token) => token,
            At::Unix(_) => None,
        };
        let marker = it.marker;
        (
            it.name.pid,
            marker.name.to_string(),
            marker.start,
            at,
            token,
        )
    });
    told.collect()
}

/// Runs the command `anabranch` with the arguments of a process; returns its exit code.
#[pyfunction]
pub(crate) fn command(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| anabranch_tui::run(arguments)).code()
}

/// Reads the arguments of `anabranch outbox` and tells them as JSON; or, if there is nothing to do any
/// more because help or a complaint was printed, the exit code.
#[pyfunction]
pub(crate) fn outbox_arguments(arguments: Vec<std::ffi::OsString>) -> (u8, Option<String>) {
    match anabranch_tui::outbox_arguments(arguments) {
        Ok(told) => (0, Some(told)),
        Err(exit) => (exit.code(), None),
    }
}
