//! What is outside: the keyboard, the actors, and what they tell.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch_protocol::message::Right;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;

use super::{Bell, Find, Options, Source, clock};
use crate::app::{self, Cmd, Model, Msg};
use crate::conn::{Conn, Context, Event, Target, TargetId};
use crate::record::{self, Recorder};
use crate::session::At;
use crate::term::Terminals;

/// How often it is looked for other processes.
const LOOK: Duration = Duration::from_secs(2);

/// What the actors have told and was not taken in, at most; then they wait.
const INBOX: usize = 64;

/// What keys come from: the input, or, if that is something else, the terminal itself.
pub(super) enum Keyboard {
    Input(io::Stdin),
    Terminal(File),
}

impl Keyboard {
    pub(super) fn open() -> io::Result<Self> {
        let input = io::stdin();
        if input.is_terminal() {
            Ok(Self::Input(input))
        } else {
            File::open("/dev/tty").map(Self::Terminal)
        }
    }
}

impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Input(input) => input.as_fd(),
            Self::Terminal(file) => file.as_fd(),
        }
    }
}

/// What is outside: actors, and what they tell.
pub(super) struct World {
    pub(super) bell: Bell,
    ear: UnixStream,
    heard: Receiver<(TargetId, Event)>,
    messages: Receiver<Msg>,
    said: SyncSender<Msg>,
    context: Context,
    conns: HashMap<TargetId, Conn>,
    /// Actors that were told to end, until they have.
    leaving: Vec<Conn>,
    /// Whether a recording is told: there is nobody to talk to.
    recording: bool,
    /// Dropped, it ends the thread that finds processes, or the one that tells a recording.
    stop: Option<SyncSender<()>>,
    helper: Option<JoinHandle<()>>,
    /// What writes a snapshot.
    saving: Option<JoinHandle<()>>,
}

impl World {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let (bell, ear) = Bell::new()?;
        let (events, heard) = mpsc::sync_channel(INBOX);
        let (said, messages) = mpsc::sync_channel(INBOX);
        let recorder = match &options.source {
            Source::Live {
                record: Some(path), ..
            } => Some(Arc::new(Recorder::create(path)?)),
            _ => None,
        };
        let mut want = vec![Right::Observe];
        if !options.begin.read_only {
            want.extend([Right::Control, Right::Payloads]);
        }
        Ok(Self {
            context: Context {
                client: concat!("anabranch-top/", env!("CARGO_PKG_VERSION")).to_owned(),
                want,
                events,
                bell: bell.clone(),
                recorder,
            },
            bell,
            ear,
            heard,
            messages,
            said,
            conns: HashMap::new(),
            leaving: Vec::new(),
            recording: matches!(options.source, Source::Recording(..)),
            stop: None,
            helper: None,
            saving: None,
        })
    }

    pub(super) fn start(&mut self, source: Source, model: &mut Model) -> io::Result<()> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let (said, bell) = (self.said.clone(), self.bell.clone());
        let helper = thread::Builder::new().name("anabranch-source".to_owned());
        match source {
            Source::Live { targets, find, .. } => {
                let mut known = Numbered::default();
                let found = Msg::Found(known.fresh(targets));
                let mut cmds = app::update(model, found, clock());
                for cmd in cmds.drain(..) {
                    if let Cmd::Open(target) = cmd {
                        self.open(target)?;
                    }
                }
                if let Some(find) = find {
                    let work = move || look(find, known, &said, &bell, &stopped);
                    self.helper = Some(helper.spawn(work)?);
                }
            }
            Source::Recording(path, speed) => {
                model.read_only = true;
                let entries = record::read(&path)?;
                let work = move || record::replay(entries, speed, &said, &bell, &stopped);
                self.helper = Some(helper.spawn(work)?);
            }
        }
        self.stop = Some(stop);
        Ok(())
    }

    fn open(&mut self, target: Target) -> io::Result<()> {
        let id = target.id;
        let conn = Conn::open(target, self.context.clone())?;
        self.conns.insert(id, conn);
        Ok(())
    }

    /// Waits until a key is pressed, a signal or news come, or the time is over.
    pub(super) fn wait(
        &mut self,
        keyboard: &Keyboard,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let timeout = timeout.and_then(|it| Timespec::try_from(it).ok());
        let mut fds = [
            PollFd::new(keyboard, PollFlags::IN),
            PollFd::new(&self.ear, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if fds[0].revents().intersects(gone) {
            return Err(io::Error::other("the terminal is gone"));
        }
        let mut bytes = [0; 256];
        while matches!(self.ear.read(&mut bytes), Ok(read) if read > 0) {}
        Ok(())
    }

    /// What has come meanwhile: no more than there was place for.
    pub(super) fn news(&self) -> Vec<Msg> {
        let messages = self.messages.try_iter().take(INBOX);
        let heard = self.heard.try_iter().take(INBOX);
        let news: Vec<_> = messages
            .chain(heard.map(|(target, event)| Msg::Conn(target, event)))
            .collect();
        if news.len() >= INBOX {
            // There may be more.
            self.bell.ring();
        }
        news
    }

    pub(super) fn carry_out(
        &mut self,
        cmd: Cmd,
        model: &mut Model,
        terminals: &mut Terminals,
    ) -> io::Result<()> {
        match cmd {
            Cmd::Quit => {}
            Cmd::Suspend => {
                terminals.leave();
                emulate_default_handler(SIGTSTP)?;
                terminals.again()?;
                terminals.mouse(model.mouse)?;
                model.dirty = true;
            }
            Cmd::Redraw => terminals.redraw()?,
            // A recording has targets too, and nothing to connect to.
            Cmd::Open(_) if self.recording => {}
            Cmd::Open(target) => self.open(target)?,
            Cmd::Close(target) => {
                if let Some(mut conn) = self.conns.remove(&target) {
                    conn.close();
                    // It may be connecting: it is not waited for, but looked after once more.
                    self.leaving.retain(|it| !it.is_over());
                    self.leaving.push(conn);
                }
            }
            Cmd::Send(target, message) => {
                let sent = self.conns.get(&target).is_none_or(|it| it.send(message));
                if !sent {
                    model.warn("too much is asked of a process that does not answer");
                    model.dirty = true;
                }
            }
            Cmd::Reconnect(target) => {
                if let Some(conn) = self.conns.get(&target) {
                    conn.reconnect();
                }
            }
            Cmd::Copy(text) => terminals.copy(&text)?,
            Cmd::Save { stem, text, json } => {
                let (said, bell) = (self.said.clone(), self.bell.clone());
                let work = move || {
                    let told = save(&stem, &text, &json);
                    let _ = said.send(Msg::Notice(told));
                    bell.ring();
                };
                if self.saving.as_ref().is_some_and(|it| !it.is_finished()) {
                    model.warn("the snapshot before is still being written");
                    model.dirty = true;
                } else {
                    let saver = thread::Builder::new().name("anabranch-save".to_owned());
                    self.saving = Some(saver.spawn(work)?);
                }
            }
            Cmd::Mouse(on) => terminals.mouse(on)?,
        }
        Ok(())
    }
}

fn save(stem: &str, text: &str, json: &str) -> Result<String, String> {
    let write = |end: &str, content: &str| {
        let name = format!("{stem}.{end}");
        let made = File::create_new(&name).and_then(|mut file| file.write_all(content.as_bytes()));
        made.map_err(|error| format!("{name}: {error}"))
    };
    write("txt", text)?;
    write("json", json)?;
    Ok(format!("saved {stem}.txt and {stem}.json"))
}

/// Places with their numbers.
#[derive(Default)]
struct Numbered(Vec<At>);

impl Numbered {
    /// Those that were not known yet, with numbers of their own.
    fn fresh(&mut self, found: Vec<(String, At)>) -> Vec<Target> {
        let mut fresh = Vec::new();
        for (label, at) in found {
            if !self.0.contains(&at) {
                let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
                self.0.push(at.clone());
                fresh.push(Target {
                    id: TargetId(number),
                    label,
                    at,
                });
            }
        }
        fresh
    }
}

/// Looks for processes now and then, until `stop` is closed.
fn look(
    mut find: Find,
    mut known: Numbered,
    said: &SyncSender<Msg>,
    bell: &Bell,
    stop: &Receiver<()>,
) {
    loop {
        let fresh = known.fresh(find());
        if !fresh.is_empty() {
            if said.send(Msg::Found(fresh)).is_err() {
                return;
            }
            bell.ring();
        }
        if !matches!(
            stop.recv_timeout(LOOK),
            Err(mpsc::RecvTimeoutError::Timeout)
        ) {
            return;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Whoever waits to tell something must not wait for ever.
        let (_, closed) = mpsc::sync_channel(0);
        self.heard = closed;
        let (_, closed) = mpsc::sync_channel(0);
        self.messages = closed;
        self.stop = None;
        // All are told before the first is waited for.
        for conn in self.conns.values_mut() {
            conn.close();
        }
        self.conns.clear();
        for thread in self.helper.take().into_iter().chain(self.saving.take()) {
            let _ = thread.join();
        }
    }
}
