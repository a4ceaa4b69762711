//! `VirtualTime`: the time of a test, as `anabranch.testing` moves it and runs read it.

use pyo3::prelude::*;

use crate::clock;

/// Nanoseconds that only a test moves.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct VirtualTime(pub(super) clock::VirtualTime);

#[pymethods]
impl VirtualTime {
    #[new]
    #[pyo3(signature = (nanos))]
    fn new(nanos: u64) -> Self {
        let time = clock::VirtualTime::default();
        time.reach(nanos);
        Self(time)
    }

    /// Where it stands.
    #[getter]
    fn nanos(&self) -> u64 {
        self.0.nanos()
    }

    /// Moves on to `nanos`; never back.
    #[pyo3(signature = (nanos))]
    fn reach(&self, nanos: u64) {
        self.0.reach(nanos);
    }
}
