//! The monitor as the process has it: opened, told of pipelines and outboxes, closed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use anabranch_core::clock::Time;
use anabranch_protocol::message::{self, Kind, LogEntry, Process, Severity, Welcome};
use anabranch_protocol::place::{self, Marker};
use anabranch_protocol::row::COLUMNS;
use anabranch_protocol::{SUPPORTED, Text, encode};

use super::files::{self, OpenError, Place};
use super::journal::Journal;
use super::outboxes::Outboxes;
use super::pipeline::{Facts, Pipeline};
use super::server::Server;
use super::{locked, sampler, socket};
use crate::wake::Wake;

/// Pipelines that have ended are told of at most so many.
const ENDED: usize = 8;

/// How a process may be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where.
    pub place: Place,
    /// Whether operators may steer as well.
    pub control: bool,
    /// The version of the package.
    pub version: String,
    /// What the process calls itself.
    pub name: String,
}

/// The monitor of this process. Dropping it ends its thread and removes its files.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Where it answers, for people.
    at: String,
    pid: u32,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pipelines: Mutex<Vec<Arc<Pipeline>>>,
    pub(super) next: AtomicU32,
    pub(super) journal: Journal,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) wake: Arc<Wake>,
    pub(super) closing: AtomicBool,
    pub(super) welcome: Welcome,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what others are told of the process is in their time"
)]
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Monitor {
    /// Opens the way in, in the first of the directories that will do, and answers there.
    ///
    /// # Errors
    /// [`OpenError`] if none will.
    pub fn open(access: &Access) -> Result<Self, OpenError> {
        let pid = std::process::id();
        let uid = rustix::process::geteuid().as_raw();
        let directories = place::directories(|name| std::env::var_os(name), uid);
        let (files, listener, at, terms) = socket::listen(access, &directories, pid, uid)?;
        let cwd = std::env::current_dir().unwrap_or_default();
        let process = Process {
            version: Text::name(&access.version),
            pid,
            start: unix_ms(),
            name: Text::name(&access.name),
            host: Text::name(&rustix::system::uname().nodename().to_string_lossy()),
            cwd: Text::name(&cwd.to_string_lossy()),
        };
        let beside = at == format!("unix:{}", files.socket().display())
            && matches!(access.place, Place::Directory);
        files.tell(&Marker {
            name: process.name.clone(),
            pid,
            start: process.start,
            version: process.version.clone(),
            proto: SUPPORTED,
            cwd: process.cwd.clone(),
            at: (!beside).then(|| at.clone()),
        })?;
        files::sweep(files.directory(), uid);
        let pair = |error| OpenError::Io("a socket pair".into(), error);
        let wake = Arc::new(Wake::new().map_err(pair)?);
        let outboxes = Arc::new(Outboxes::new(wake.clone()).map_err(pair)?);
        let shared = Arc::new(Shared {
            pipelines: Mutex::default(),
            next: AtomicU32::new(0),
            journal: Journal::default(),
            outboxes,
            wake,
            closing: AtomicBool::new(false),
            welcome: Welcome {
                proto: SUPPORTED.1,
                server: process,
                caps: Vec::new(),
                cols: Vec::new(),
                max_line: anabranch_protocol::MAX_LINE,
                min_tick_ms: anabranch_protocol::MIN_TICK_MS,
            },
        });
        let server = Server::new(shared.clone(), listener, terms, uid);
        let thread = std::thread::Builder::new()
            .name("anabranch-monitor".to_owned())
            .spawn(move || {
                let _files = files;
                server.run();
            })
            .map_err(|error| OpenError::Io("a thread".into(), error))?;
        Ok(Self {
            shared,
            thread: Some(thread),
            at,
            pid,
        })
    }

    /// Where it answers: `unix:PATH` or `tcp:HOST:PORT`.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Whether it was opened by this process, not by one that this is a fork of.
    pub fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Something was logged in this process.
    pub fn log(&self, level: Severity, at: u64, message: &str) {
        self.shared.journal.add(LogEntry {
            at,
            kind: Kind::Log,
            level,
            msg: Text::name(message),
            ..LogEntry::default()
        });
    }

    /// The outboxes of this process.
    pub fn outboxes(&self) -> Arc<Outboxes> {
        self.shared.outboxes.clone()
    }

    /// What is known of a pipeline now, in the lines that a client is sent at first.
    pub fn picture(&self, number: u32, branches: bool) -> Vec<u8> {
        let mut pipelines = locked(&self.shared.pipelines).clone();
        pipelines.retain(|it| it.number == number);
        let welcome = Welcome {
            cols: COLUMNS.iter().map(|it| Text::new(it)).collect(),
            ..self.shared.welcome.clone()
        };
        let mut out = Vec::new();
        // It is short.
        let _ = encode(&message::Server::from(welcome), &mut out);
        sampler::picture(&pipelines, branches, unix_ms(), &mut out);
        out
    }

    /// Shows a pipeline from now on.
    pub fn add(&self, facts: Facts) -> Arc<Pipeline> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let pipeline = Arc::new(Pipeline::new(number, facts, self.shared.wake.clone()));
        let mut pipelines = locked(&self.shared.pipelines);
        let mut ended = pipelines.iter().filter(|it| it.has_ended()).count();
        // Here as well as by the thread, which sleeps while nobody looks.
        pipelines.retain(|it| {
            let over = it.has_ended() && ended > ENDED;
            ended -= usize::from(over);
            !over
        });
        pipelines.push(pipeline.clone());
        drop(pipelines);
        pipeline.report(Severity::Info, None, "the pipeline has begun", Time::ZERO);
        pipeline
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if !self.is_ours() {
            // The thread is the parent's, and so are the files.
            return;
        }
        self.shared.outboxes.close();
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            // It panics at most where our own code is wrong, and then it is gone all the same.
            let _ = thread.join();
        }
    }
}
