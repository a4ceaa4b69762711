//! The thread that answers: it sleeps in `poll` until someone connects, and never touches Python.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anabranch_protocol::message::{LogEntry, Peer as Who};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::commands::Orders;
use super::fork::Noted;
use super::locked;
use super::open::{Shared, unix_ms};
use super::peer::{Peer, Terms, World};
use super::pipeline::Looked;
use super::socket::{Listener, Stream, credentials, is_patience};

/// Clients at once.
const CLIENTS: usize = 8;
/// For how long a pipeline that has ended is still told of.
const LINGER: Duration = Duration::from_secs(60);
/// Bytes read at once.
const READ: usize = 16 * 1024;

/// A client and its socket.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    peer: Peer,
    broken: bool,
    _noted: Noted,
}

/// What the thread owns.
pub(super) struct Server {
    shared: Arc<Shared>,
    listener: Listener,
    terms: Terms,
    uid: u32,
    began: Instant,
    connections: Vec<Connection>,
    orders: Orders,
    /// The version of the outboxes that was told of.
    outboxes_told: u64,
    next: u64,
    _noted: Vec<Noted>,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "the monitor's clock: all it is made of is told the time"
    )]
    pub(super) fn new(shared: Arc<Shared>, listener: Listener, terms: Terms, uid: u32) -> Self {
        let noted = vec![Noted::new(&listener), Noted::new(&*shared.outboxes)];
        Self {
            shared,
            listener,
            terms,
            uid,
            began: Instant::now(),
            connections: Vec::new(),
            orders: Orders::default(),
            outboxes_told: 0,
            next: 1,
            _noted: noted,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn run(mut self) {
        loop {
            let (called, ready) = self.wait();
            let now = self.now();
            let closing = self.shared.closing.load(Ordering::Acquire);
            // The last answers, too: a command may be why the process ends.
            self.hear_drivers(now);
            self.tell_outboxes(now);
            if closing {
                return self.say_goodbye();
            }
            for (index, flags) in ready {
                self.serve(index, flags, now);
            }
            self.tick(now);
            self.connections
                .retain(|it| !it.broken && !it.peer.is_over(now));
            if called {
                self.accept(now);
            }
            self.tell_drivers();
        }
    }

    /// Sleeps until something happens; returns whether somebody connects, which connections are
    /// ready, and for what.
    fn wait(&self) -> (bool, Vec<(usize, PollFlags)>) {
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
            return (false, Vec::new());
        }
        self.shared.wake.clear();
        // To ask without being called costs the kernel a socket.
        let called = !ends[1].revents().is_empty();
        let ready = ends[2..]
            .iter()
            .enumerate()
            .map(|(index, end)| (index, end.revents()));
        let ready = ready.filter(|(_, flags)| !flags.is_empty());
        (called, ready.collect())
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
            outboxes: &self.shared.outboxes,
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
        let mut answers = self.shared.outboxes.answers();
        for pipeline in &pipelines {
            let (news, lost) = pipeline.news();
            for entry in news {
                journal.add(entry);
            }
            journal.lose(lost);
            answers.extend(pipeline.answers().into_iter().map(|it| (it, None)));
        }
        for (number, left) in self.shared.outboxes.progressed() {
            for (client, prog) in self.orders.progress(number, left) {
                if let Some(connection) = client_of(&mut self.connections, client) {
                    connection.peer.progress(prog, now);
                    flush(connection, now);
                }
            }
        }
        for (answer, letters) in answers {
            let mut note = |entry: LogEntry| journal.add(LogEntry { at, ..entry });
            for (client, done) in self.orders.over(answer, &mut note) {
                if let Some(connection) = client_of(&mut self.connections, client) {
                    connection.peer.done(done, letters.clone(), now);
                    flush(connection, now);
                }
            }
        }
    }

    /// Tells those who look at the outboxes of what is new at once: it comes about once a second, and
    /// would be as old as that at their next bulk.
    fn tell_outboxes(&mut self, now: Duration) {
        let version = self.shared.outboxes.version();
        if std::mem::replace(&mut self.outboxes_told, version) == version {
            return;
        }
        for index in 0..self.connections.len() {
            self.with(index, |peer, world| peer.hear_of_outboxes(world, now));
            flush(&mut self.connections[index], now);
        }
    }

    /// Tells drivers how often they are looked at, and wakes those that have not told for so long.
    fn tell_drivers(&self) {
        let looks = |connection: &Connection| connection.peer.looks_at_outboxes();
        self.shared
            .outboxes
            .want(self.connections.iter().any(looks));
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

/// The connection of a client, if it is still there.
fn client_of(connections: &mut [Connection], client: u64) -> Option<&mut Connection> {
    connections.iter_mut().find(|it| it.peer.number() == client)
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

/// Memory of the process in bytes; 0 where it cannot be told.
fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|it| it.parse().ok());
    pages.unwrap_or(0_u64) * rustix::param::page_size() as u64
}
