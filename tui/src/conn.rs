//! One actor per process: it connects, tells what it hears, and comes back when it is lost.
//!
//! Nothing here is waited for by the dashboard: what an actor hears goes into a bounded channel,
//! and while that is full it does not read, so that the monitor leaves ticks out.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anabranch_protocol::message::Right;
use anabranch_protocol::{Client, Server};

use crate::record::Recorder;
use crate::session::{At, Failed, Session};
use crate::top::{Bell, clock, instant};

/// What is to be told to a monitor and has not been, at most.
const OUTBOX: usize = 1024;

/// How long an actor listens before it looks whether there is something to be told.
const LISTEN: Duration = Duration::from_millis(25);

/// The longest wait before the next try.
const LONGEST: Duration = Duration::from_secs(5);

/// A way to a process, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// A process to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its number.
    pub id: TargetId,
    /// What it is called until it says so itself.
    pub label: String,
    /// Where it answers.
    pub at: At,
}

/// What a connection tells.
#[derive(Debug)]
pub enum Event {
    /// The monitor says something.
    Heard(Box<Server>),
    /// The connection is lost, or was not made.
    Lost {
        /// Why.
        why: String,
        /// When it is tried again, in milliseconds since 1970; never, if there is no use.
        again: Option<u64>,
    },
}

/// What an actor is told.
enum Order {
    Send(Box<Client>),
    Reconnect,
}

/// An actor that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Conn {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// How an actor introduces itself, and where it tells what it hears.
#[derive(Clone)]
pub struct Context {
    /// Its name and version.
    pub client: String,
    /// What it would like to do.
    pub want: Vec<Right>,
    /// Where it tells what it hears.
    pub events: SyncSender<(TargetId, Event)>,
    /// What tells the dashboard that there is something.
    pub bell: Bell,
    /// Where everything is written down, if it is.
    pub recorder: Option<Arc<Recorder>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Conn {
    /// Begins to connect to a process, and goes on until it is dropped.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn open(target: Target, context: Context) -> std::io::Result<Self> {
        let (orders, inbox) = mpsc::sync_channel(OUTBOX);
        let thread = thread::Builder::new()
            .name(format!("anabranch-conn-{}", target.id.0))
            .spawn(move || Actor::new(target, context, inbox).run())?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Tells the monitor something, once it can be told; false if too much waits to be told.
    pub fn send(&self, message: Box<Client>) -> bool {
        self.order(Order::Send(message))
    }

    /// Tries to connect at once, if it is waiting to.
    pub fn reconnect(&self) {
        self.order(Order::Reconnect);
    }

    fn order(&self, order: Order) -> bool {
        let Some(orders) = &self.orders else {
            return false;
        };
        !matches!(orders.try_send(order), Err(TrySendError::Full(_)))
    }

    /// Whether the actor has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Tells the actor to end; waiting for it is what dropping does.
    pub fn close(&mut self) {
        self.orders = None;
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // An actor that has panicked was heard of already.
            let _ = thread.join();
        }
    }
}

/// How long to wait before the next try, after so many in a row that have failed: 0.1 s, 0.2 s,
/// 0.4 s … 5 s, and up to a quarter more, so that not all come back at once.
///
/// ```
/// use anabranch_tui::conn::delay;
///
/// let plain: Vec<_> = (1..8).map(|failed| delay(failed, 0).as_millis()).collect();
/// assert_eq!(plain, [100, 200, 400, 800, 1600, 3200, 5000]);
/// assert!(delay(99, u32::MAX).as_millis() <= 6250);
/// ```
pub fn delay(failed: u32, noise: u32) -> Duration {
    let plain = Duration::from_millis(100 << failed.saturating_sub(1).min(10)).min(LONGEST);
    plain + plain.mul_f64(f64::from(noise) / f64::from(u32::MAX) / 4.0)
}

struct Actor {
    target: Target,
    context: Context,
    inbox: Receiver<Order>,
    /// Tries in a row that have failed.
    failed: u32,
    noise: u32,
}

/// The dashboard has ended.
struct Closed;

impl Actor {
    const fn new(target: Target, context: Context, inbox: Receiver<Order>) -> Self {
        let noise = target.id.0.wrapping_mul(0x9e37_79b9) | 1;
        Self {
            target,
            context,
            inbox,
            failed: 0,
            noise,
        }
    }

    fn run(mut self) {
        loop {
            let failed = match self.session() {
                Ok(Closed) => return,
                Err(failed) => failed,
            };
            // What it is refused now it will be refused later, unless only a place was missing.
            let useless = matches!(&failed, Failed::Refused(refuse) if &*refuse.code != "busy");
            self.failed += 1;
            let wait = delay(self.failed, self.noise());
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let lost = Event::Lost {
                why: failed.to_string(),
                again: (!useless).then(|| clock() + milliseconds),
            };
            if self.tell(lost).is_err() || self.wait(wait, useless).is_err() {
                return;
            }
        }
    }

    /// Connects, and tells what is heard until that ends.
    fn session(&mut self) -> Result<Closed, Failed> {
        let Context { client, want, .. } = &self.context;
        let mut session = Session::open(&self.target.at, client, want)?;
        self.failed = 0;
        let welcome = Server::Welcome(session.welcome().clone());
        if self.tell(Event::Heard(Box::new(welcome))).is_err() {
            return Ok(Closed);
        }
        // It is about to be asked for something: to listen first would only hold that up.
        match self.inbox.recv_timeout(LISTEN) {
            Ok(Order::Send(message)) => session.send(&message)?,
            Ok(Order::Reconnect) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Closed),
        }
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok(Order::Send(message)) => session.send(&message)?,
                    Ok(Order::Reconnect) => {}
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(Closed),
                }
            }
            if let Some(message) = session.receive(instant() + LISTEN)?
                && self.tell(Event::Heard(Box::new(message))).is_err()
            {
                return Ok(Closed);
            }
        }
    }

    fn tell(&self, event: Event) -> Result<(), Closed> {
        if let Some(recorder) = &self.context.recorder {
            recorder.write(&self.target, &event, clock());
        }
        let told = self.context.events.send((self.target.id, event));
        told.map_err(|_gone| Closed)?;
        self.context.bell.ring();
        Ok(())
    }

    /// Waits for the next try. What comes to be sent meanwhile is left out: subscriptions and
    /// commands that have no answer are sent anew in the next session.
    fn wait(&self, time: Duration, useless: bool) -> Result<(), Closed> {
        let until = instant() + time;
        loop {
            let left = if useless {
                Duration::from_secs(3600)
            } else {
                until.saturating_duration_since(instant())
            };
            match self.inbox.recv_timeout(left) {
                Ok(Order::Reconnect) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if !useless => return Ok(()),
                Ok(Order::Send(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            }
        }
    }

    /// Something else each time: a xorshift, which is random enough to spread tries.
    const fn noise(&mut self) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise
    }
}
