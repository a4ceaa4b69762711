//! What the functions that make native sources were told, checked there.

use std::path::PathBuf;
use std::time::Duration;

use anabranch_core::framing::{Decode, Framing};
use pyo3::prelude::*;

use super::super::retry::RetrySpec;
use crate::source::client::ClientOptions;
use crate::source::tail::TailOptions;
use crate::source::tcp::{TcpOptions, Until};

/// A source that can be started.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) options: Options,
    /// Whether items are `str`.
    pub(super) text: bool,
    /// Whether items are pairs with where they are from.
    pub(super) peer: bool,
    pub(super) what: &'static str,
    pub(super) what_went_wrong: String,
}

#[derive(Debug)]
pub(super) enum Options {
    Server(TcpOptions),
    Client(ClientOptions),
    File(TailOptions),
}

/// The classes of `anabranch`, told apart by what each has.
#[derive(FromPyObject)]
enum Told<'py> {
    Server(Server),
    Client(Client<'py>),
    File(File),
}

/// `anabranch.sources.TcpLines`.
#[derive(FromPyObject)]
struct Server {
    host: String,
    port: u16,
    framing: FramingSpec,
    max_line: usize,
    max_connections: usize,
    idle_timeout: Option<f64>,
    encoding: Option<String>,
    errors: String,
    peer: bool,
    until: Option<UntilSpec>,
}

/// `anabranch.sources.TcpClient`.
#[derive(FromPyObject)]
struct Client<'py> {
    host: String,
    port: u16,
    greeting: Vec<u8>,
    framing: FramingSpec,
    max_line: usize,
    connect_timeout: f64,
    idle_timeout: Option<f64>,
    encoding: Option<String>,
    errors: String,
    until: Option<UntilSpec>,
    #[pyo3(attribute("policy"))]
    retry: Option<RetrySpec<'py>>,
    seed: u64,
}

/// `anabranch.sources.Tail`.
#[derive(FromPyObject)]
struct File {
    path: PathBuf,
    from_start: bool,
    max_line: usize,
    encoding: Option<String>,
    errors: String,
    poll: f64,
    until: Option<f64>,
}

/// What `framing=` takes, told apart by what each kind has.
#[derive(FromPyObject)]
enum FramingSpec {
    LengthPrefix {
        size: usize,
        byteorder: String,
    },
    Delimiter {
        end: Vec<u8>,
    },
    /// "lines"; nothing else gets here.
    Lines(#[expect(dead_code, reason = "there is one word")] String),
}

#[derive(FromPyObject)]
enum UntilSpec {
    Seconds(f64),
    /// "disconnected"; nothing else gets here.
    Event(#[expect(dead_code, reason = "there is one event")] String),
}

impl Spec {
    /// What one of the classes says.
    ///
    /// # Errors
    /// `TypeError` for anything else.
    pub(super) fn of(told: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(match told.extract()? {
            Told::Server(it) => Self {
                what: "client",
                what_went_wrong: format!("tcp_lines cannot listen on {}:{}", it.host, it.port),
                text: it.encoding.is_some(),
                peer: it.peer,
                options: Options::Server(TcpOptions {
                    host: it.host,
                    port: it.port,
                    framing: it.framing.into(),
                    max_line: it.max_line,
                    max_connections: it.max_connections,
                    idle_timeout: it.idle_timeout.map(seconds),
                    decode: decode(it.encoding.as_deref(), &it.errors),
                    until: until(it.until.as_ref()),
                }),
            },
            Told::Client(it) => Self {
                what: "server",
                what_went_wrong: format!("tcp_client gave {}:{} up", it.host, it.port),
                text: it.encoding.is_some(),
                peer: false,
                options: Options::Client(ClientOptions {
                    host: it.host,
                    port: it.port,
                    greeting: it.greeting,
                    framing: it.framing.into(),
                    max_line: it.max_line,
                    decode: decode(it.encoding.as_deref(), &it.errors),
                    connect_timeout: seconds(it.connect_timeout),
                    idle_timeout: it.idle_timeout.map(seconds),
                    retry: it.retry.map(|it| it.policy()).transpose()?,
                    seed: it.seed,
                    until: until(it.until.as_ref()),
                }),
            },
            Told::File(it) => Self {
                what: "file",
                what_went_wrong: format!("tail cannot read {}", it.path.display()),
                text: it.encoding.is_some(),
                peer: false,
                options: Options::File(TailOptions {
                    path: it.path,
                    from_start: it.from_start,
                    max_line: it.max_line,
                    decode: decode(it.encoding.as_deref(), &it.errors),
                    poll: seconds(it.poll),
                    until: it.until.map(seconds),
                }),
            },
        })
    }
}

impl From<FramingSpec> for Framing {
    fn from(spec: FramingSpec) -> Self {
        match spec {
            FramingSpec::LengthPrefix { size, byteorder } => Self::LengthPrefix {
                size,
                little_endian: byteorder == "little",
            },
            FramingSpec::Delimiter { end } => Self::Delimiter(end),
            FramingSpec::Lines(_) => Self::Lf,
        }
    }
}

fn until(spec: Option<&UntilSpec>) -> Until {
    match spec {
        None => Until::Drain,
        Some(UntilSpec::Event(_)) => Until::Disconnected,
        Some(UntilSpec::Seconds(number)) => Until::After(seconds(*number)),
    }
}

fn decode(encoding: Option<&str>, errors: &str) -> Decode {
    match encoding {
        None => Decode::Bytes,
        Some(_) => Decode::Utf8 {
            lossy: errors == "replace",
        },
    }
}

/// Seconds that Python has made sure are some.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX)
}
