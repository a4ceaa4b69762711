//! `Outboxes`: what the thread that reads the stores of this process has of the monitor.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use anabranch_protocol::message::{Code, Dead, Outbox};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::monitor::{Answer, Outboxes};

/// A request: its number, what is asked for, of which store, of which messages (all, if none), how
/// many there must be then, how many a second, whether nothing is to be done, and who asks.
type Asked = (
    u64,
    &'static str,
    String,
    Vec<i64>,
    Option<u32>,
    Option<f64>,
    bool,
    String,
);

/// The outboxes of this process, as its monitor is told of them.
#[pyclass(frozen, name = "Outboxes", module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct PyOutboxes(pub(super) Arc<Outboxes>);

fn read<T: serde::de::DeserializeOwned>(text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl PyOutboxes {
    /// What to wait at: it can be read once there is something to do.
    fn fileno(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Before looking for what there is to do.
    fn clear(&self) {
        self.0.clear();
    }

    /// Whether the monitor is gone.
    #[getter]
    fn closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Whether somebody looks.
    #[getter]
    fn wanted(&self) -> bool {
        self.0.is_wanted()
    }

    /// From now on operators may only look.
    fn only_look(&self) {
        self.0.only_look();
    }

    /// Tells of all stores, and of the dead letters of some, in the JSON of the protocol.
    #[pyo3(signature = (stores, letters))]
    fn tell(&self, stores: &str, letters: &str) -> PyResult<()> {
        let outbox = Outbox {
            more: false,
            r: read(stores)?,
        };
        self.0.tell(outbox, read::<Vec<Dead>>(letters)?);
        Ok(())
    }

    /// What operators have asked for.
    fn requests(&self) -> Vec<Asked> {
        let asked = self.0.requests().into_iter();
        asked
            .map(|it| {
                let about = (it.number, it.op.word(), it.store, it.ids);
                (
                    about.0, about.1, about.2, about.3, it.seen, it.rate, it.dry, it.who,
                )
            })
            .collect()
    }

    /// A request was carried out; it may have been to show letters.
    #[pyo3(signature = (number, count, message, letters=None))]
    fn answer(
        &self,
        number: u64,
        count: u64,
        message: String,
        letters: Option<&str>,
    ) -> PyResult<()> {
        let result = Ok((count, message));
        let letters = letters.map(read).transpose()?;
        self.0.answer(Answer { number, result }, letters);
        Ok(())
    }

    /// So much is left of a request that is being carried out.
    fn progress(&self, number: u64, left: u64) {
        self.0.progress(number, left);
    }

    /// A request was not carried out.
    #[pyo3(signature = (number, code, message))]
    fn refuse(&self, number: u64, code: &str, message: String) {
        let result = Err((Code::from_word(code), message));
        self.0.answer(Answer { number, result }, None);
    }
}
