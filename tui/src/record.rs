//! Sessions written down, and told again.
//!
//! A recording is lines of JSON: first one that says so, then one for each thing that was heard,
//! with its time: `{"at":1795183327000,"n":0,"label":"orders","said":{"t":"tick",…}}`, or
//! `{"at":…,"n":0,"lost":"connection refused"}`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anabranch_protocol::{MAX_LINE, Server};
use serde_json::{Value, json};

use crate::app::Msg;
use crate::conn::{Event, Target, TargetId};
use crate::session::At;
use crate::top::{Bell, instant};

/// The first line.
const HEAD: &str = "{\"anabranch\":\"recording\",\"v\":1}";

/// Writes down what is heard.
#[derive(Debug)]
pub struct Recorder {
    /// The file; none, once it could not be written to.
    file: Mutex<Option<BufWriter<File>>>,
}

impl Recorder {
    /// Begins a recording; a file that is there is not overwritten.
    ///
    /// # Errors
    /// If the file is there, or cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(
                error.kind(),
                format!("{} is there already: name another file", path.display()),
            ),
            _ => named(path, &error),
        })?;
        let mut file = BufWriter::new(file);
        writeln!(file, "{HEAD}")?;
        Ok(Self {
            file: Mutex::new(Some(file)),
        })
    }

    /// Writes down what was heard from a process at that time.
    pub fn write(&self, target: &Target, event: &Event, at: u64) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(out) = file.as_mut() else {
            return;
        };
        let (n, label) = (target.id.0, &target.label);
        let line = match event {
            Event::Heard(said) => json!({"at": at, "n": n, "label": label, "said": said}),
            Event::Lost { why, .. } => json!({"at": at, "n": n, "label": label, "lost": why}),
        };
        // A disk that is full ends the recording, not the dashboard.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            *file = None;
        }
    }
}

/// What is wrong with a file, and which.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {}", path.display(), told(error)))
}

/// What the system says, without its number for it.
pub(crate) fn told(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" (os error ").unwrap_or(text.len());
    text[..end].to_owned()
}

/// One thing that was heard.
#[derive(Debug)]
pub struct Entry {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// From whom.
    pub target: Target,
    /// What.
    pub event: Event,
}

/// Reads a recording, entry by entry. What is not understood is left out: whoever wrote it may be
/// newer.
///
/// # Errors
/// If the file cannot be read, or is no recording.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = Entry> + use<>> {
    let mut file = BufReader::new(File::open(path).map_err(|error| named(path, &error))?);
    let mut line = Vec::new();
    next(&mut file, &mut line)?;
    let head: Option<Value> = serde_json::from_slice(&line).ok();
    if head.is_none_or(|head| head["anabranch"] != "recording" || head["v"] != 1) {
        return Err(io::Error::other(format!(
            "{} is no recording of a dashboard",
            path.display()
        )));
    }
    Ok(std::iter::from_fn(move || {
        loop {
            next(&mut file, &mut line).ok().filter(|read| *read > 0)?;
            if let Some(entry) = entry(&line) {
                return Some(entry);
            }
        }
    }))
}

/// The next line, of bounded length: one that is longer comes in pieces that are no entries.
fn next(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    io::Read::take(file, 2 * MAX_LINE as u64).read_until(b'\n', line)
}

fn entry(line: &[u8]) -> Option<Entry> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let id = TargetId(u32::try_from(value["n"].as_u64()?).ok()?);
    let event = if let Some(why) = value["lost"].as_str() {
        Event::Lost {
            why: why.to_owned(),
            again: None,
        }
    } else {
        let said = serde_json::to_vec(&value["said"]).ok()?;
        Event::Heard(Box::new(Server::decode(&said).ok()?))
    };
    Some(Entry {
        at: value["at"].as_u64()?,
        target: Target {
            id,
            label: value["label"].as_str().unwrap_or("?").to_owned(),
            at: At::Unix("a recording".into()),
        },
        event,
    })
}

/// Tells a recording again, so many times as fast, until it is over or `stop` is closed.
pub fn replay(
    entries: impl Iterator<Item = Entry>,
    speed: f64,
    out: &SyncSender<Msg>,
    bell: &Bell,
    stop: &Receiver<()>,
) {
    let mut origin = None;
    let mut known = Vec::new();
    for entry in entries {
        let (first, began) = *origin.get_or_insert_with(|| (entry.at, instant()));
        let recorded = Duration::from_millis(entry.at.saturating_sub(first));
        let until = began + recorded.div_f64(speed.clamp(0.01, 1000.0));
        let left = until.saturating_duration_since(instant());
        if matches!(stop.recv_timeout(left), Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        let id = entry.target.id;
        if !known.contains(&id) {
            known.push(id);
            let _ = out.send(Msg::Found(vec![entry.target]));
        }
        if out.send(Msg::Conn(id, entry.event)).is_err() {
            return;
        }
        bell.ring();
    }
    let _ = out.send(Msg::Over);
    bell.ring();
}
