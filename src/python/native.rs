//! Native sources as Python sees them: lines in, `str` or `bytes` out.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::channel::Taken;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use tokio::runtime::{Builder, Runtime};

use super::errors::SourceError;
use super::run::locked;
use crate::inbox::Inbox;
use crate::source::framing::{Decode, Event};
use crate::source::tcp::{Delivery, TcpOptions, TcpSource, Until};
use crate::wake::Wake;

/// Lines that may wait between the sockets and the driver.
const INBOX: usize = 16_384;
/// How long closing waits for connections to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// `anabranch.sources.TcpLines`, checked there.
#[derive(Debug, FromPyObject)]
struct TcpSpec {
    host: String,
    port: u16,
    max_line: usize,
    max_connections: usize,
    idle_timeout: Option<f64>,
    encoding: Option<String>,
    errors: String,
    peer: bool,
    until: Option<UntilSpec>,
}

#[derive(Debug, FromPyObject)]
enum UntilSpec {
    Seconds(f64),
    /// "disconnected"; nothing else gets here.
    Event(#[expect(dead_code, reason = "there is one event")] String),
}

/// A delivery of which a part has been taken.
#[derive(Debug)]
struct Opened {
    delivery: Delivery,
    taken: usize,
}

/// A TCP server and the runtime it lives in. Its threads never touch Python.
#[derive(Debug)]
pub(crate) struct NativeSource {
    inbox: Arc<Inbox<Delivery>>,
    server: TcpSource,
    opened: Mutex<Option<Opened>>,
    text: bool,
    peer: bool,
    runtime: Mutex<Option<Runtime>>,
}

impl NativeSource {
    /// Listens.
    ///
    /// # Errors
    /// `OSError` when the address cannot be had.
    pub(crate) fn start(
        py: Python<'_>,
        spec: &Bound<'_, PyAny>,
        wake: Arc<Wake>,
    ) -> PyResult<Self> {
        let spec: TcpSpec = spec.extract()?;
        let decode = match (spec.encoding.as_deref(), spec.errors.as_str()) {
            (None, _) => Decode::Bytes,
            (Some(_), errors) => Decode::Utf8 {
                lossy: errors == "replace",
            },
        };
        let until = match spec.until {
            None => Until::Drain,
            Some(UntilSpec::Event(_)) => Until::Disconnected,
            Some(UntilSpec::Seconds(seconds)) => {
                Until::After(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
        };
        let text = spec.encoding.is_some();
        let place = format!("{}:{}", spec.host, spec.port);
        let options = TcpOptions {
            host: spec.host,
            port: spec.port,
            max_line: spec.max_line,
            max_connections: spec.max_connections,
            idle_timeout: spec
                .idle_timeout
                .and_then(|it| Duration::try_from_secs_f64(it).ok()),
            decode,
            until,
        };
        let inbox = Arc::new(Inbox::new(INBOX, Box::new(move || wake.wake())));
        py.detach(|| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("anabranch-io")
                .enable_all()
                .build()?;
            let server = TcpSource::start(runtime.handle(), options, inbox.clone())?;
            let runtime = Mutex::new(Some(runtime));
            let opened = Mutex::default();
            Ok(Self {
                inbox,
                server,
                opened,
                text,
                peer: spec.peer,
                runtime,
            })
        })
        .map_err(|error: std::io::Error| {
            // The number goes before the message, as Python has it.
            let reason = error.to_string();
            let reason = reason.split(" (os error").next().unwrap_or_default();
            let message = format!("tcp_lines cannot listen on {place}: {reason}");
            match error.raw_os_error() {
                Some(number) => PyOSError::new_err((number, message)),
                None => PyOSError::new_err(message),
            }
        })
    }

    pub(crate) fn address(&self) -> (String, u16) {
        let address: SocketAddr = self.server.address();
        (address.ip().to_string(), address.port())
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
                    Taken::Item(delivery) => Opened { delivery, taken: 0 },
                    Taken::Ended if items.is_empty() && broken.is_empty() => {
                        return Ok(Taken::Ended);
                    }
                    // The end is told when there is nothing else to tell.
                    Taken::Empty | Taken::Ended => return Ok(Taken::Empty),
                },
            };
            let taken = self.open(py, &opened, items, broken, most)?;
            if taken < opened.delivery.lines.len() {
                *locked(&self.opened) = Some(Opened { taken, ..opened });
            }
        }
        Ok(Taken::Item(()))
    }

    fn open(
        &self,
        py: Python<'_>,
        opened: &Opened,
        items: &Bound<'_, PyList>,
        broken: &mut Vec<PyErr>,
        most: usize,
    ) -> PyResult<usize> {
        let mut taken = opened.taken;
        let peer = PyString::new(py, &opened.delivery.peer);
        for event in opened.delivery.lines.iter().skip(opened.taken) {
            match event {
                Event::Line(line) if self.text => {
                    // Checked by the splitter, off the interpreter.
                    let text = std::str::from_utf8(line)
                        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
                    self.add(items, &peer, PyString::new(py, text).into_any())?;
                }
                Event::Line(line) => self.add(items, &peer, PyBytes::new(py, line).into_any())?,
                Event::Failed(failure) => {
                    let message = format!("client {}: {}", opened.delivery.peer, failure.message);
                    let error = SourceError::new_err(message);
                    error.value(py).setattr("code", failure.code)?;
                    error.value(py).setattr("peer", &peer)?;
                    broken.push(error);
                }
            }
            taken += 1;
            if items.len() >= most {
                break;
            }
        }
        Ok(taken)
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

    pub(crate) fn drain(&self) {
        self.server.drain();
    }

    /// Gives up what was delivered and not taken; returns how many lines.
    pub(crate) fn abort(&self) -> usize {
        let opened = locked(&self.opened).take();
        let half = opened.map_or(0, |it| it.delivery.lines.len() - it.taken);
        self.inbox.abort() + half
    }

    /// Ends the server and its runtime; call it detached.
    pub(crate) fn close(&self) {
        self.inbox.abort();
        let runtime = locked(&self.runtime).take();
        if let Some(runtime) = runtime {
            self.server.close(CLOSE_WITHIN);
            runtime.shutdown_timeout(CLOSE_WITHIN);
        }
    }
}
