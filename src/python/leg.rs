//! The legs of a run as Python describes them, and what a handler's result becomes.

use std::time::Duration;

use anabranch_core::engine::{LegOptions, Operator, Port};
use anabranch_core::window::{Partial, WindowOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

use super::channel::PyChannel;
use super::convert;
use super::retry::RetrySpec;
use super::run::pace;

/// The window of a leg; durations in seconds.
#[derive(Debug, FromPyObject)]
pub(crate) struct WindowSpec {
    max_items: Option<usize>,
    max_age: Option<f64>,
    idle: Option<f64>,
    max_bytes: Option<u64>,
    on_cancel: Option<String>,
    size_of: Option<Py<PyAny>>,
    /// Its own number: the leg's is that of the handler behind it.
    stage: usize,
}

/// One form of a generated pass.
#[derive(Debug, FromPyObject)]
pub(crate) struct Loop {
    pub(crate) function: Py<PyAny>,
    /// The stage behind each line of its source: `(line, stage)`.
    pub(crate) lines: Vec<(usize, usize)>,
}

/// A generated pass: the synchronous callables in front of a leg, fused.
#[expect(
    clippy::struct_excessive_bools,
    reason = "as Python describes it: each is one fact of its own"
)]
#[derive(Debug, FromPyObject)]
pub(crate) struct PassSpec {
    pub(crate) r#loop: Loop,
    /// The form that asks of each key whether its branch refuses what comes.
    pub(crate) guarded: Option<Loop>,
    /// Whether it remembers which input each output came from.
    pub(crate) tracked: bool,
    /// Whether it lists the keys of what it lets through.
    pub(crate) keyed: bool,
    /// Whether a stage in it may make several items of one.
    pub(crate) grows: bool,
    /// Whether it notes what its stages took out of a branch.
    pub(crate) counted: bool,
    /// The first stage behind the key, whose failures belong to a branch.
    pub(crate) routed_from: usize,
    /// Where, among the values listed with a failure, the one is that each stage was given.
    pub(crate) inputs: Vec<(usize, usize)>,
}

impl PassSpec {
    /// Its first stage: where it is, as far as one can tell from outside.
    pub(crate) fn stage(&self) -> usize {
        self.r#loop.lines.first().map_or(0, |(_, stage)| *stage)
    }
}

/// One leg, as `anabranch._build` describes it.
#[derive(Debug, FromPyObject)]
pub(crate) struct LegSpec<'py> {
    generated: Option<PassSpec>,
    window: Option<WindowSpec>,
    pub(crate) stage: usize,
    role: String,
    runs: String,
    pub(crate) handler: Option<Py<PyAny>>,
    pub(crate) takes_ctx: bool,
    capacity: usize,
    isolate: bool,
    concurrency: u32,
    ordered: bool,
    /// Items per second, and how many at once.
    throttle: Option<(f64, u32)>,
    /// Seconds.
    heartbeat: Option<f64>,
    retry: Option<RetrySpec<'py>>,
    /// Seconds.
    timeout: Option<f64>,
    grace: f64,
    /// Of an operator: the stages behind it in front of the next leg, fused.
    rest: Option<PassSpec>,
    /// Of an operator: which failures it takes.
    takes: Option<Py<PyAny>>,
    /// Where units go, if they end in a channel.
    target: Option<Py<PyChannel>>,
    course: usize,
    copies: Option<usize>,
}

/// What a handler is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// None: a window becomes a value for the stages behind it.
    Forward,
    /// None either: the value goes on, and so does the copy.
    Tee,
    Map,
    Filter,
    FlatMap,
    Tap,
    Sink,
    /// The end of a course: a channel.
    Channel,
    Collect,
    /// Takes failures, looks at them and passes them on.
    TapError,
    /// Takes failures, and gives items.
    Recover,
    /// Takes failures, and gives others.
    MapError,
    /// Takes failures, and keeps them.
    DeadLetter,
}

/// One leg of a run: the Python side of an engine's leg.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) r#pass: Option<PassSpec>,
    pub(crate) role: Role,
    pub(crate) port: Port,
    pub(crate) stage: usize,
    pub(crate) handler: Option<Py<PyAny>>,
    pub(crate) takes_ctx: bool,
    pub(crate) retry: Option<LegRetry>,
    /// Seconds an attempt may take.
    pub(crate) timeout: Option<f64>,
    /// How its window counts bytes.
    pub(crate) sizes: Sizes,
    /// The stage whose failure it is if it cannot.
    pub(crate) window: usize,
    /// Of an operator: the pass of what it recovers.
    pub(crate) rest: Option<PassSpec>,
    /// Of an operator: which failures it takes; `None`: all.
    pub(crate) takes: Option<Py<PyAny>>,
    pub(crate) course: usize,
}

/// The Python side of a leg's retry policy.
#[derive(Debug)]
pub(crate) struct LegRetry {
    /// In all, the first included.
    pub(crate) attempts: u32,
    pub(crate) retryable: Py<PyAny>,
    pub(crate) delay: Option<Py<PyAny>>,
}

/// The sizes of items, for a window that counts bytes.
#[derive(Debug)]
pub(crate) enum Sizes {
    /// Nobody asks.
    Uncounted,
    /// The bytes of a `bytes` or `str`, the length of anything else.
    Own,
    /// What a callable says.
    By(Py<PyAny>),
}

impl Sizes {
    /// The size of an item in bytes; zero if nobody asks.
    ///
    /// # Errors
    /// What the callable, or `len`, raises.
    pub(crate) fn of(&self, item: &Bound<'_, PyAny>) -> PyResult<u32> {
        let bytes: usize = match self {
            Self::Uncounted => 0,
            Self::By(size_of) => {
                let size = size_of.bind(item.py()).call1((item,))?;
                match size.extract() {
                    Ok(bytes) => bytes,
                    Err(_) if size.is_instance_of::<PyInt>() && size.gt(0)? => usize::MAX,
                    Err(error) => {
                        let error: PyErr = error;
                        let refused = PyValueError::new_err(format!(
                            "size_of must return a number of bytes, an int >= 0, got {}",
                            convert::shown(&size)
                        ));
                        refused.set_cause(item.py(), Some(error));
                        return Err(refused);
                    }
                }
            }
            Self::Own => match item.cast::<PyBytes>() {
                Ok(bytes) => bytes.as_bytes().len(),
                Err(_) => match item.cast::<PyString>() {
                    Ok(text) => text.to_str()?.len(),
                    Err(_) => item.len()?,
                },
            },
        };
        Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl LegSpec<'_> {
    /// Splits a description into the engine's part and Python's; `tasks` numbers the ports of
    /// legs with tasks, or a channel, of their own.
    pub(crate) fn build(
        self,
        tasks: &mut usize,
    ) -> PyResult<(LegOptions, Leg, Option<Py<PyChannel>>)> {
        let port = match self.runs.as_str() {
            "inline" => super::domain::INLINE,
            "pool" => super::domain::POOL,
            "tasks" | "channel" => {
                *tasks += 1;
                Port(*tasks - 1)
            }
            other => return Err(PyValueError::new_err(format!("unknown place {other:?}"))),
        };
        let role = match self.role.as_str() {
            "forward" => Role::Forward,
            "tee" => Role::Tee,
            "map" => Role::Map,
            "filter" => Role::Filter,
            "flat_map" => Role::FlatMap,
            "tap" => Role::Tap,
            "tap_error" | "collect_errors" => Role::TapError,
            "recover" => Role::Recover,
            "map_error" => Role::MapError,
            "dead_letter" => Role::DeadLetter,
            "for_each" => Role::Sink,
            "to_channel" => Role::Channel,
            "collect" => Role::Collect,
            other => return Err(PyValueError::new_err(format!("unknown role {other:?}"))),
        };
        let mut sizes = Sizes::Uncounted;
        let stage = self.window.as_ref().map_or(self.stage, |it| it.stage);
        let window = self.window.map(|window| {
            if window.max_bytes.is_some() {
                sizes = window.size_of.map_or(Sizes::Own, Sizes::By);
            }
            WindowOptions {
                max_items: window.max_items,
                max_age: window.max_age.map(seconds),
                idle: window.idle.map(seconds),
                max_bytes: window.max_bytes,
                on_cancel: window.on_cancel.map(|policy| match policy.as_str() {
                    "flush" => Partial::Flush,
                    _ => Partial::Drop,
                }),
            }
        });
        let policy = self.retry.as_ref().map(RetrySpec::policy).transpose()?;
        let retry = self.retry.map(|retry| LegRetry {
            attempts: policy.as_ref().map_or(1, |policy| policy.attempts),
            retryable: retry.retryable,
            delay: retry.delay,
        });
        let options = LegOptions {
            window,
            capacity: self.capacity,
            isolate: self.isolate,
            concurrency: self.concurrency,
            ordered: self.ordered && !matches!(role, Role::Sink | Role::Channel),
            throttle: self.throttle.map(|(rate, burst)| pace(rate, burst)),
            heartbeat: self.heartbeat.map(seconds),
            retry: policy,
            timeout: self.timeout.map(seconds),
            grace: seconds(self.grace),
            port,
            operator: role.operator(),
            course: self.course,
            copies: self.copies,
        };
        let leg = Leg {
            r#pass: self.generated,
            role,
            port,
            stage: self.stage,
            handler: self.handler,
            takes_ctx: self.takes_ctx,
            retry,
            timeout: self.timeout,
            sizes,
            window: stage,
            rest: self.rest,
            takes: self.takes,
            course: self.course,
        };
        Ok((options, leg, self.target))
    }
}

impl Role {
    /// What the engine makes of a failure that the handler has taken, if failures are what it takes.
    pub(crate) const fn operator(self) -> Option<Operator> {
        match self {
            // They complete as failed, with the failure that goes on.
            Self::TapError | Self::MapError => Some(Operator::PassOn),
            Self::Recover => Some(Operator::Recover),
            Self::DeadLetter => Some(Operator::DeadLetter),
            _ => None,
        }
    }

    /// What a stage passes on, given its input and its handler's result.
    ///
    /// # Errors
    /// What the result's `__bool__` or iterator raises.
    pub(crate) fn outputs(
        self,
        value: &Bound<'_, PyAny>,
        result: Bound<'_, PyAny>,
    ) -> PyResult<Vec<Py<PyAny>>> {
        match self {
            Self::Map | Self::Recover => Ok(vec![result.unbind()]),
            Self::Forward | Self::Tap => Ok(vec![value.clone().unbind()]),
            Self::Tee => Ok(vec![value.clone().unbind(), value.clone().unbind()]),
            Self::Filter if result.is_truthy()? => Ok(vec![value.clone().unbind()]),
            Self::Filter
            | Self::Sink
            | Self::Channel
            | Self::Collect
            | Self::TapError
            | Self::MapError
            | Self::DeadLetter => Ok(Vec::new()),
            Self::FlatMap => result
                .try_iter()?
                .map(|item| item.map(Bound::unbind))
                .collect(),
        }
    }
}
