//! `Folders`: what an event loop that waits for writes to files has of the system.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use pyo3::prelude::*;

use crate::folders::{Folders, Written};

/// Folders that are watched; see `crate::folders`.
#[pyclass(frozen, name = "Folders", module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct PyFolders(Folders);

#[pymethods]
impl PyFolders {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Folders::new()?))
    }

    /// What to wait at: it can be read once there is something to tell.
    fn fileno(&self) -> RawFd {
        self.0.fileno()
    }

    /// Watches a folder; returns its number, the same each time.
    #[pyo3(signature = (folder))]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a path from Python is extracted whole"
    )]
    fn watch(&self, folder: PathBuf) -> PyResult<i32> {
        Ok(self.0.watch(&folder)?)
    }

    /// Watches a folder no more.
    #[pyo3(signature = (number))]
    fn leave(&self, number: i32) {
        self.0.leave(number);
    }

    /// What was written to since the last call, as a folder's number and a name; None: any of them.
    fn written(&self) -> PyResult<Vec<Option<(i32, OsString)>>> {
        let written = self.0.written()?.into_iter();
        Ok(written
            .map(|it| match it {
                Written::File(folder, name) => Some((folder, name)),
                Written::Any => None,
            })
            .collect())
    }
}
