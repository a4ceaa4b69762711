//! A monitor of a few lines: it speaks the protocol over a real socket, tells of branches that
//! never change, and does what it is asked once for each key.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    reason = "each test uses a part of it, and in a test a panic is the right answer"
)]

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch_protocol::message::*;
use anabranch_protocol::row::{Branch, Columns, State};
use anabranch_protocol::{Client, Decoder, Server, Text, encode};

/// What a monitor is and has done.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// What was said to it.
    pub(crate) heard: Mutex<Vec<Client>>,
    /// Keys of commands it has carried out.
    pub(crate) done: Mutex<HashSet<String>>,
    /// Sessions it had.
    pub(crate) sessions: AtomicU64,
    /// Whether it hangs up instead of answering the next command.
    pub(crate) hang_up: AtomicBool,
    /// Whether it takes connections and says nothing.
    pub(crate) mute: AtomicBool,
    stop: AtomicBool,
}

/// A monitor that runs until it is dropped.
pub(crate) struct Monitor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Listens at a path; `start` tells it from another of the same number.
    pub(crate) fn listen(path: &Path, start: u64, branches: u32, shared: Arc<Shared>) -> Self {
        shared.stop.store(false, Ordering::SeqCst);
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let inner = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut sessions = Vec::new();
            while !inner.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        let shared = Arc::clone(&inner);
                        sessions.push(thread::spawn(move || {
                            let _ = serve(stream, start, branches, &shared);
                        }));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
            drop(listener);
            for session in sessions {
                let _ = session.join();
            }
        });
        Self {
            shared,
            path: path.to_owned(),
            thread: Some(thread),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn say(stream: &mut UnixStream, message: impl Into<Server>) -> std::io::Result<()> {
    let mut line = Vec::new();
    encode(&message.into(), &mut line).unwrap();
    stream.write_all(&line)
}

fn serve(
    mut stream: UnixStream,
    start: u64,
    branches: u32,
    shared: &Shared,
) -> std::io::Result<()> {
    shared.sessions.fetch_add(1, Ordering::SeqCst);
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut decoder, mut bytes, mut seq) = (Decoder::default(), [0; 4096], 0);
    let mut columns = None;
    while !shared.stop.load(Ordering::SeqCst) {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => decoder.push(&bytes[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        while let Ok(Some(line)) = decoder.line() {
            let message = Client::decode(&line).unwrap();
            shared.heard.lock().unwrap().push(message.clone());
            match message {
                Client::Hello(_) if shared.mute.load(Ordering::SeqCst) => {}
                Client::Hello(_) => begin(&mut stream, start)?,
                Client::Sub(sub) => {
                    if columns.is_none() {
                        table(
                            &mut stream,
                            &Columns::new(sub.cols.iter().map(|it| &**it)),
                            branches,
                        )?;
                    }
                    columns = Some(sub);
                }
                Client::Cmd(cmd) => {
                    if shared.hang_up.swap(false, Ordering::SeqCst) {
                        shared.done.lock().unwrap().insert(cmd.key);
                        return Ok(());
                    }
                    let known = !cmd.dry && !shared.done.lock().unwrap().insert(cmd.key.clone());
                    let state = if known { "known" } else { "accepted" };
                    say(
                        &mut stream,
                        Ack {
                            id: cmd.id,
                            state: Text::new(state),
                        },
                    )?;
                    say(
                        &mut stream,
                        Done {
                            id: cmd.id,
                            ok: true,
                            n: 1,
                            ..Done::default()
                        },
                    )?;
                }
                Client::Unknown => {}
            }
        }
        if columns.is_some() {
            seq += 1;
            let totals = Totals {
                p: 1,
                phase: Phase::Run,
                received: seq * 100,
                committed: seq * 100,
                branches: States {
                    all: branches.into(),
                    run: branches.into(),
                    ..States::default()
                },
                ..Totals::default()
            };
            let ts = anabranch_tui::top::clock();
            say(
                &mut stream,
                Tick {
                    seq,
                    ts,
                    tot: vec![totals],
                    ..Tick::default()
                },
            )?;
        }
    }
    Ok(())
}

fn begin(stream: &mut UnixStream, start: u64) -> std::io::Result<()> {
    let server = Process {
        version: Text::new("0.1.0"),
        pid: 4211,
        start,
        name: Text::new("orders-svc"),
        ..Process::default()
    };
    say(
        stream,
        Welcome {
            proto: 1,
            server,
            caps: vec![Right::Observe, Right::Control],
            cols: vec![],
            max_line: 262_144,
            min_tick_ms: 50,
        },
    )
}

fn table(stream: &mut UnixStream, columns: &Columns, branches: u32) -> std::io::Result<()> {
    let pipe = Pipe {
        p: 1,
        name: Text::new("ingest"),
        phase: Phase::Run,
        fan_leg: Some(0),
        control: true,
        ..Pipe::default()
    };
    say(stream, pipe)?;
    let ids: Vec<u32> = (1..=branches).collect();
    for chunk in ids.chunks(512) {
        let r = chunk
            .iter()
            .map(|id| (1, *id, Text::new(&format!("tenant-{id}"))));
        say(stream, Names { r: r.collect() })?;
        let rows = chunk.iter().map(|id| {
            columns.write(&Branch {
                pipeline: 1,
                id: *id,
                generation: 1,
                state: State::Run,
                queued: u64::from(branches - id),
                capacity: 1000,
                ..Branch::default()
            })
        });
        let more = chunk.last() != ids.last();
        say(
            stream,
            Rows {
                seq: 1,
                full: true,
                more,
                r: rows.collect(),
            },
        )?;
    }
    Ok(())
}
