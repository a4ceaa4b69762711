//! The thread that answers: it sleeps in `poll` until someone connects, and never touches Python.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anabranch_core::clock::Time;
use anabranch_protocol::message::{self, LogEntry, Peer as Who, Process, Severity, Welcome};
use anabranch_protocol::place::{self, Marker};
use anabranch_protocol::row::COLUMNS;
use anabranch_protocol::{SUPPORTED, Text, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::commands::Orders;
use super::files::{self, Files, OpenError, Place};
use super::fork::Noted;
use super::journal::Journal;
use super::locked;
use super::peer::{Peer, Terms, World};
use super::pipeline::{Facts, Looked, Pipeline};
use super::sampler;
use crate::wake::Wake;

/// Clients at once.
const CLIENTS: usize = 8;
/// For how long a pipeline that has ended is still told of.
const LINGER: Duration = Duration::from_secs(60);
/// Pipelines that have ended are told of at most so many.
const ENDED: usize = 8;
/// Bytes read at once.
const READ: usize = 16 * 1024;

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
struct Shared {
    pipelines: Mutex<Vec<Arc<Pipeline>>>,
    next: AtomicU32,
    journal: Journal,
    wake: Arc<Wake>,
    closing: AtomicBool,
    welcome: Welcome,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        };
        match &stream {
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what others are told of the process is in their time"
)]
fn unix_ms() -> u64 {
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
        let (files, listener, at, terms) = listen(access, &directories, pid, uid)?;
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
        let wake = Wake::new().map_err(|error| OpenError::Io("a socket pair".into(), error))?;
        let shared = Arc::new(Shared {
            pipelines: Mutex::default(),
            next: AtomicU32::new(0),
            journal: Journal::default(),
            wake: Arc::new(wake),
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
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            // It panics at most where our own code is wrong, and then it is gone all the same.
            let _ = thread.join();
        }
    }
}

fn listen(
    access: &Access,
    directories: &[std::path::PathBuf],
    pid: u32,
    uid: u32,
) -> Result<(Files, Listener, String, Terms), OpenError> {
    let mut first = None;
    for directory in directories {
        match listen_in(access, directory.clone(), pid, uid) {
            Ok(open) => return Ok(open),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| OpenError::TooLong(std::path::PathBuf::new())))
}

fn listen_in(
    access: &Access,
    directory: std::path::PathBuf,
    pid: u32,
    uid: u32,
) -> Result<(Files, Listener, String, Terms), OpenError> {
    let mut files = Files::open(directory, pid, uid)?;
    let control = access.control;
    match &access.place {
        Place::Tcp { address, control } => {
            let path = || std::path::PathBuf::from(format!("tcp:{address}"));
            let listener = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                let at = format!("tcp:{}", listener.local_addr()?);
                Ok((listener, at))
            });
            let (listener, at) = listener.map_err(|error| OpenError::Io(path(), error))?;
            let token = Some(files.token()?);
            let terms = Terms {
                control: *control,
                token,
            };
            Ok((files, Listener::Tcp(listener), at, terms))
        }
        Place::Directory | Place::Path(_) => {
            let elsewhere = match &access.place {
                Place::Path(path) => Some(path.clone()),
                _ => None,
            };
            let listener = files.listen(elsewhere)?;
            let at = format!("unix:{}", files.socket().display());
            let terms = Terms {
                control,
                token: None,
            };
            Ok((files, Listener::Unix(listener), at, terms))
        }
    }
}

/// A client and its socket.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    peer: Peer,
    broken: bool,
    _noted: Noted,
}

/// What the thread owns.
struct Server {
    shared: Arc<Shared>,
    listener: Listener,
    terms: Terms,
    uid: u32,
    began: Instant,
    connections: Vec<Connection>,
    orders: Orders,
    next: u64,
    _noted: Vec<Noted>,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "the monitor's clock: all it is made of is told the time"
    )]
    fn new(shared: Arc<Shared>, listener: Listener, terms: Terms, uid: u32) -> Self {
        let noted = vec![Noted::new(&listener)];
        Self {
            shared,
            listener,
            terms,
            uid,
            began: Instant::now(),
            connections: Vec::new(),
            orders: Orders::default(),
            next: 1,
            _noted: noted,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn run(mut self) {
        loop {
            let ready = self.wait();
            let now = self.now();
            let closing = self.shared.closing.load(Ordering::Acquire);
            // The last answers, too: a command may be why the process ends.
            self.hear_drivers(now);
            if closing {
                return self.say_goodbye();
            }
            for (index, flags) in ready {
                self.serve(index, flags, now);
            }
            self.tick(now);
            self.connections
                .retain(|it| !it.broken && !it.peer.is_over(now));
            self.accept(now);
            self.tell_drivers();
        }
    }

    /// Sleeps until something happens; returns which connections are ready, and for what.
    fn wait(&self) -> Vec<(usize, PollFlags)> {
        let now = self.now();
        let due = self.connections.iter().filter_map(|it| it.peer.due()).min();
        let timeout = due.and_then(|due| {
            // A little late rather than early, and then again.
            let most = due.saturating_sub(now) + Duration::from_micros(200);
            Timespec::try_from(most).ok()
        });
        let mut ends = vec![
            PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for connection in &self.connections {
            let mut flags = PollFlags::IN;
            if connection.peer.has_more() {
                flags |= PollFlags::OUT;
            }
            ends.push(PollFd::new(&connection.stream, flags));
        }
        if poll(&mut ends, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        self.shared.wake.clear();
        let ready = ends[2..]
            .iter()
            .enumerate()
            .map(|(index, end)| (index, end.revents()));
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }

    /// Lets go of clients that have hung up, though not all they said was read.
    fn let_go(&mut self) {
        let still = |connection: &Connection| {
            let mut end = [PollFd::new(&connection.stream, PollFlags::empty())];
            let looked = poll(&mut end, Some(&Timespec::default()));
            looked.is_err() || !end[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
        };
        self.connections.retain(still);
    }

    fn inside(&self) -> usize {
        let inside = self.connections.iter();
        inside.filter(|it| !it.peer.is_leaving()).count()
    }

    fn accept(&mut self, now: Duration) {
        while let Ok(stream) = self.listener.accept() {
            let noted = Noted::new(&stream);
            let (who, ours) = self.identify(&stream);
            if self.inside() >= CLIENTS {
                self.let_go();
            }
            let inside = self.inside();
            let peer = if !ours {
                Peer::refused("auth", "this process belongs to another user", now)
            } else if inside >= CLIENTS {
                Peer::refused("busy", "8 clients look at this process already", now)
            } else {
                self.next += 1;
                Peer::new(self.next, who, self.terms.clone(), now)
            };
            let mut connection = Connection {
                stream,
                peer,
                broken: false,
                _noted: noted,
            };
            flush(&mut connection, now);
            if self.connections.len() < 2 * CLIENTS {
                self.connections.push(connection);
            }
        }
    }

    /// Who is at the other end, and whether that is us, or the superuser.
    fn identify(&self, stream: &Stream) -> (Who, bool) {
        match stream {
            Stream::Unix(stream) => match credentials(stream) {
                Some((uid, pid)) => {
                    let who = Who {
                        uid: Some(uid),
                        pid: Some(pid),
                        ..Who::default()
                    };
                    (who, uid == self.uid || uid == 0)
                }
                // Where it cannot be told, the modes of the directory and the socket let nobody
                // else in.
                None => (Who::default(), true),
            },
            // The token decides.
            Stream::Tcp(_) => (Who::default(), true),
        }
    }

    fn serve(&mut self, index: usize, flags: PollFlags, now: Duration) {
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let mut bytes = [0; READ];
            let read = self.connections[index].stream.read(&mut bytes);
            match read {
                Ok(0) => self.connections[index].broken = true,
                Ok(read) => self.with(index, |peer, world| peer.read(&bytes[..read], world, now)),
                Err(error) if is_patience(&error) => {}
                Err(_) => self.connections[index].broken = true,
            }
        }
        flush(&mut self.connections[index], now);
        if self.connections[index].peer.out().is_empty() {
            self.with(index, |peer, world| peer.go_on(world, now));
            flush(&mut self.connections[index], now);
        }
    }

    fn tick(&mut self, now: Duration) {
        for index in 0..self.connections.len() {
            if self.connections[index]
                .peer
                .due()
                .is_some_and(|due| due <= now)
            {
                self.with(index, |peer, world| peer.tick_if_due(world, now));
                flush(&mut self.connections[index], now);
            }
        }
    }

    fn with(&mut self, index: usize, act: impl FnOnce(&mut Peer, &mut World<'_>)) {
        let pipelines = locked(&self.shared.pipelines).clone();
        let mut world = World {
            pipelines: &pipelines,
            orders: &mut self.orders,
            journal: &self.shared.journal,
            welcome: &self.shared.welcome,
            rss,
            unix_ms: unix_ms(),
        };
        act(&mut self.connections[index].peer, &mut world);
    }

    /// Takes what drivers have answered and reported.
    fn hear_drivers(&mut self, now: Duration) {
        let at = unix_ms();
        let mut pipelines = locked(&self.shared.pipelines);
        let over = u64::try_from(LINGER.as_nanos()).unwrap_or(u64::MAX);
        pipelines.retain(|it| !it.ended_before(over));
        let pipelines = pipelines.clone();
        let journal = &self.shared.journal;
        for pipeline in &pipelines {
            let (news, lost) = pipeline.news();
            for entry in news {
                journal.add(entry);
            }
            journal.lose(lost);
            for answer in pipeline.answers() {
                let mut note = |entry: LogEntry| journal.add(LogEntry { at, ..entry });
                for (client, done) in self.orders.over(answer, &mut note) {
                    let found = self
                        .connections
                        .iter_mut()
                        .find(|it| it.peer.number() == client);
                    if let Some(connection) = found {
                        connection.peer.done(done, now);
                        flush(connection, now);
                    }
                }
            }
        }
    }

    /// Tells drivers how often they are looked at, and wakes those that have not told for so long.
    fn tell_drivers(&self) {
        let wanted = self
            .connections
            .iter()
            .filter_map(|it| it.peer.wants())
            .min();
        for pipeline in locked(&self.shared.pipelines)
            .iter()
            .filter(|it| !it.has_ended())
        {
            let mut looked = Looked::default();
            for connection in &self.connections {
                connection.peer.looks_at(pipeline.number, &mut looked);
            }
            pipeline.look(looked);
            pipeline.slots.want(wanted);
            if let Some(wanted) = wanted {
                pipeline.rouse(wanted);
            }
        }
    }

    fn say_goodbye(&mut self) {
        let now = self.now();
        for connection in &mut self.connections {
            connection.peer.leave(
                "ended",
                "the process ends, or has nothing more to tell",
                now,
            );
            flush(connection, now);
        }
    }
}

/// Writes what can be written without waiting.
fn flush(connection: &mut Connection, now: Duration) {
    while !connection.peer.out().is_empty() && !connection.broken {
        match connection.stream.write(connection.peer.out()) {
            Ok(0) => connection.broken = true,
            Ok(written) => connection.peer.wrote(written, now),
            Err(error) if is_patience(&error) => return,
            Err(_) => connection.broken = true,
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whose process is at the other end.
#[cfg(target_os = "linux")]
fn credentials(stream: &UnixStream) -> Option<(u32, u32)> {
    let found = rustix::net::sockopt::socket_peercred(stream).ok()?;
    let pid = u32::try_from(found.pid.as_raw_nonzero().get()).unwrap_or(0);
    Some((found.uid.as_raw(), pid))
}

#[cfg(not(target_os = "linux"))]
const fn credentials(_stream: &UnixStream) -> Option<(u32, u32)> {
    None
}

/// Memory of the process in bytes; 0 where it cannot be told.
fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|it| it.parse().ok());
    pages.unwrap_or(0_u64) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboard_2_where_a_path_is_too_long_the_next_directory_is_used() {
        let scratch = std::env::temp_dir().join(format!("ab-{}", std::process::id()));
        let long = scratch.join("x".repeat(100));
        let short = scratch.join("run");
        std::fs::create_dir(&scratch).unwrap();
        let access = Access {
            place: Place::Directory,
            control: true,
            version: "0".to_owned(),
            name: "test".to_owned(),
        };
        let uid = rustix::process::geteuid().as_raw();
        let opened = listen(&access, &[long.clone(), short.clone()], 7, uid);
        let left: Vec<_> = std::fs::read_dir(&long).unwrap().collect();
        let (files, listener, at, _) = opened.unwrap();
        assert!(
            at.starts_with(&format!("unix:{}/7-", short.display())),
            "{at}"
        );
        assert!(
            left.is_empty(),
            "nothing stays where it did not work: {left:?}"
        );
        assert!(listen(&access, &[long], 7, uid).is_err());
        drop((files, listener));
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
