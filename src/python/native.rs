//! Native sources as Python sees them: lines in, `str` or `bytes` out.
//!
//! - `native/spec.rs`: what their functions were told.

mod spec;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::channel::Taken;
use anabranch_core::framing::{Event, Place};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use tokio::runtime::{Builder, Runtime};

use self::spec::{Options, Spec};
use super::errors::SourceError;
use super::run::locked;
use crate::inbox::Inbox;
use crate::source::owner::{Delivery, Owner};
use crate::source::tcp::TcpSource;
use crate::source::{client, tail};
use crate::wake::Wake;

/// Lines that may wait between the source and the driver.
const INBOX: usize = 16_384;
/// How long closing waits for the source's tasks to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A delivery of which a part has been taken.
#[derive(Debug)]
struct Opened {
    delivery: Delivery,
    place: Place,
}

/// A native source and the runtime it lives in. Its threads never touch Python.
#[derive(Debug)]
pub(crate) struct NativeSource {
    inbox: Arc<Inbox<Delivery>>,
    owner: Owner,
    /// Where it listens, if it does.
    address: Option<SocketAddr>,
    opened: Mutex<Option<Opened>>,
    text: bool,
    peer: bool,
    /// What a delivery is from.
    what: &'static str,
    /// What the error says first that the source ends with.
    what_went_wrong: String,
    runtime: Mutex<Option<Runtime>>,
}

impl NativeSource {
    /// Listens, connects or opens.
    ///
    /// # Errors
    /// `OSError` when the address cannot be had, or the file cannot be read.
    pub(crate) fn start(
        py: Python<'_>,
        spec: &Bound<'_, PyAny>,
        wake: Arc<Wake>,
    ) -> PyResult<Self> {
        let Spec {
            options,
            text,
            peer,
            what,
            what_went_wrong,
        } = Spec::of(spec)?;
        let inbox = Arc::new(Inbox::new(INBOX, Box::new(move || wake.wake())));
        let started = py.detach(|| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("anabranch-io")
                .enable_all()
                .build()?;
            let (handle, inbox) = (runtime.handle(), inbox.clone());
            let (owner, address) = match options {
                Options::Server(options) => {
                    let server = TcpSource::start(handle, options, inbox)?;
                    let address = server.address();
                    (server.into_owner(), Some(address))
                }
                Options::Client(options) => (client::start(handle, options, inbox), None),
                Options::File(options) => (tail::start(handle, options, inbox)?, None),
            };
            Ok((runtime, owner, address))
        });
        let (runtime, owner, address) =
            started.map_err(|error: io::Error| os_error(&what_went_wrong, &error))?;
        Ok(Self {
            inbox,
            owner,
            address,
            opened: Mutex::default(),
            text,
            peer,
            what,
            what_went_wrong,
            runtime: Mutex::new(Some(runtime)),
        })
    }

    pub(crate) fn address(&self) -> Option<(String, u16)> {
        let address = self.address?;
        Some((address.ip().to_string(), address.port()))
    }

    /// Fills `items` up to `most`, and `broken` with what stands for a line.
    pub(crate) fn take(
        &self,
        py: Python<'_>,
        items: &Bound<'_, PyList>,
        broken: &mut Vec<PyErr>,
        most: usize,
    ) -> PyResult<Taken<()>> {
        while items.len() < most {
            let current = locked(&self.opened).take();
            let opened = match current {
                Some(opened) => opened,
                None => match self.inbox.take() {
                    Taken::Item(delivery) => Opened {
                        delivery,
                        place: Place::default(),
                    },
                    Taken::Ended if items.is_empty() && broken.is_empty() => {
                        return Ok(Taken::Ended);
                    }
                    // The end is told when there is nothing else to tell.
                    Taken::Empty | Taken::Ended => return Ok(Taken::Empty),
                },
            };
            let rest = self.open(py, &opened, items, broken, most)?;
            if let Some(place) = rest {
                *locked(&self.opened) = Some(Opened { place, ..opened });
            }
        }
        Ok(Taken::Item(()))
    }

    /// Takes from a delivery; returns from where to go on, if it was not all.
    fn open(
        &self,
        py: Python<'_>,
        opened: &Opened,
        items: &Bound<'_, PyList>,
        broken: &mut Vec<PyErr>,
        most: usize,
    ) -> PyResult<Option<Place>> {
        let peer = PyString::new(py, &opened.delivery.peer);
        let mut events = opened.delivery.lines.iter_from(opened.place);
        while items.len() < most {
            let Some(event) = events.next() else {
                return Ok(None);
            };
            match event {
                Event::Line(line) if self.text => {
                    // Checked by the splitter, off the interpreter.
                    let text = std::str::from_utf8(line)
                        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                    self.add(items, &peer, PyString::new(py, text).into_any())?;
                }
                Event::Line(line) => self.add(items, &peer, PyBytes::new(py, line).into_any())?,
                Event::Failed(failure) => {
                    let message = format!(
                        "{} {}: {}",
                        self.what, opened.delivery.peer, failure.message
                    );
                    let error = SourceError::new_err(message);
                    error.value(py).setattr("code", failure.code)?;
                    error.value(py).setattr("peer", &peer)?;
                    broken.push(error);
                }
            }
        }
        Ok((events.len() > 0).then(|| events.place()))
    }

    fn add<'py>(
        &self,
        items: &Bound<'py, PyList>,
        peer: &Bound<'py, PyString>,
        line: Bound<'py, PyAny>,
    ) -> PyResult<()> {
        if self.peer {
            items.append((peer, line))
        } else {
            items.append(line)
        }
    }

    /// How it has ended: `OSError` if it could not go on.
    pub(crate) fn end(&self) -> PyResult<()> {
        match self.owner.fault() {
            None => Ok(()),
            Some(fault) => Err(os_error(&self.what_went_wrong, fault)),
        }
    }

    pub(crate) fn drain(&self) {
        self.owner.drain();
    }

    /// Gives up what was delivered and not taken; returns how many lines.
    pub(crate) fn abort(&self) -> usize {
        let opened = locked(&self.opened).take();
        let half = opened.map_or(0, |it| it.delivery.lines.iter_from(it.place).len());
        self.inbox.abort() + half
    }

    /// Ends the source and its runtime; call it detached.
    pub(crate) fn close(&self) {
        self.inbox.abort();
        let runtime = locked(&self.runtime).take();
        if let Some(runtime) = runtime {
            self.owner.close(CLOSE_WITHIN);
            runtime.shutdown_timeout(CLOSE_WITHIN);
        }
    }
}

/// The `OSError`, of the class that its kind has in Python, that says what could not be done.
fn os_error(what: &str, error: &io::Error) -> PyErr {
    // The number goes before the message, as Python has it.
    let reason = error.to_string();
    let message = match reason.split_once(" (os error ") {
        None => format!("{what}: {reason}"),
        Some((reason, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{what}: {reason}{after}")
        }
    };
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, message)),
        None => PyErr::from(io::Error::new(error.kind(), message)),
    }
}
