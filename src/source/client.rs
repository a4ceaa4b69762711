//! A TCP client that takes lines from one server, and comes back to it whenever it is gone.
//!
//! ```text
//!  connect --ok--> read --> lost --> told as a failure --+
//!     ^  \--no--> back-off, or the fault of the source   |
//!     +------------------- back-off <--------------------+
//! ```
//!
//! # Guarantees
//! - What one connection brought is delivered in order, then that it is lost, then what the next
//!   one brings.
//! - A full inbox stops the reading, and so, through TCP, the server.
//! - Between two attempts passes what the policy says. A connection that brought a line makes it
//!   begin anew; one that brought nothing counts as an attempt that failed, or a server that hangs
//!   up at once would be called in a busy loop.
//!
//! Not responsible for what was sent while nobody was connected: that is lost.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anabranch_core::framing::{Decode, End, Framing, LineSplitter, Lines};
use anabranch_core::retry::{Random, Retry, Tried};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::owner::{Delivery, Order, Outlet, Owner, ordered, reached};
use super::read::{Read, read};
use super::tcp::Until;
use crate::inbox::{Closed, Inbox};

/// Code of the failure that stands for a connection that was lost.
pub const DISCONNECTED: &str = "source.disconnected";

/// Whom the client connects to, and what it takes for a line.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Name or address of the server; a name is looked up at each attempt.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is sent first, each time.
    pub greeting: Vec<u8>,
    /// What ends a line.
    pub framing: Framing,
    /// The longest line, in bytes without its terminator or length.
    pub max_line: usize,
    /// What the contents of a line have to be.
    pub decode: Decode,
    /// How long an attempt to connect may take.
    pub connect_timeout: Duration,
    /// A server that sends nothing for this long is taken for gone.
    pub idle_timeout: Option<Duration>,
    /// How often, and how patiently, it connects; `None`: once, and never again.
    pub retry: Option<Retry>,
    /// Of the policy's jitter.
    pub seed: u64,
    /// When it ends of its own accord; [`Until::Disconnected`] is when the server closes properly.
    pub until: Until,
}

/// Starts to connect, on the runtime of `handle`, which needs I/O and time enabled.
///
/// The inbox is closed when the client has ended, for whatever reason; [`Owner::fault`] is the last
/// error, if it gave up.
pub fn start(handle: &Handle, options: ClientOptions, inbox: Arc<Inbox<Delivery>>) -> Owner {
    let (owner, outlet, orders) = Owner::of(inbox);
    let peer = format!("{}:{}", options.host, options.port).into();
    let patience = Patience::new(options.retry.clone(), options.seed);
    let client = Client {
        options,
        outlet,
        orders,
        peer,
        patience,
    };
    handle.spawn(client.run());
    owner
}

/// The one task.
struct Client {
    options: ClientOptions,
    outlet: Outlet,
    orders: watch::Receiver<Order>,
    /// The server, as it was named.
    peer: Arc<str>,
    patience: Patience,
}

/// How a connection came to its end.
struct Lost {
    how: &'static str,
    /// Whether the server said that it is done.
    clean: bool,
    /// Whether it brought anything.
    useful: bool,
}

impl Client {
    /// Connects and reads until it is told to end, or has to.
    ///
    /// # Cancel safety
    /// Not cancelled: it hears of the end as an order. What its runtime's end cuts off is lost.
    async fn run(mut self) {
        let end = match self.options.until {
            Until::After(delay) => Instant::now().checked_add(delay),
            Until::Drain | Until::Disconnected => None,
        };
        loop {
            let connected = {
                let attempt = connect(&self.options);
                tokio::select! {
                    biased;
                    () = ordered(&mut self.orders, Order::Drain) => return,
                    () = reached(end) => return,
                    connected = attempt => connected,
                }
            };
            let error = match connected {
                Err(error) => error,
                Ok(stream) => match self.converse(stream, end).await {
                    None => return,
                    Some(lost) if lost.clean && self.options.until == Until::Disconnected => return,
                    Some(lost) => {
                        if lost.useful {
                            self.patience.rest();
                        }
                        if self.tell(lost.how).await.is_err() {
                            return;
                        }
                        io::Error::new(io::ErrorKind::ConnectionAborted, lost.how)
                    }
                },
            };
            let Some(delay) = self.patience.after_failure() else {
                return self.outlet.fail(self.gave_up(&error));
            };
            tokio::select! {
                biased;
                () = ordered(&mut self.orders, Order::Drain) => return,
                () = reached(end) => return,
                () = sleep(delay) => {}
            }
        }
    }

    /// Reads until the connection is lost; `None`: the client has to end.
    async fn converse(&mut self, stream: TcpStream, end: Option<Instant>) -> Option<Lost> {
        let ClientOptions {
            ref framing,
            max_line,
            decode,
            idle_timeout,
            ..
        } = self.options;
        let mut splitter = LineSplitter::new(framing, max_line, decode);
        let mut chunk = Vec::new();
        let mut heard = Instant::now();
        let mut useful = false;
        let (how, over) = loop {
            let came = tokio::select! {
                biased;
                () = ordered(&mut self.orders, Order::Drain) => break (End::Cut("drain"), true),
                () = reached(end) => break (End::Cut("end of the time"), true),
                came = read(&stream, &mut chunk) => came,
                () = reached(idle_timeout.and_then(|limit| heard.checked_add(limit))) => {
                    break (End::Cut("idle timeout"), false);
                }
            };
            match came {
                Read::Some => {}
                Read::None => continue,
                Read::End(end) => break (end, false),
            }
            let lines = splitter.feed(&chunk);
            chunk.clear();
            useful |= !lines.is_empty();
            if self.deliver(lines).await.is_err() {
                return None;
            }
            heard = Instant::now();
        };
        let last = splitter.finish(how);
        useful |= !last.is_empty();
        if self.deliver(last).await.is_err() || over {
            return None;
        }
        Some(Lost {
            how: match how {
                End::Clean => "the server closed it",
                End::Cut(how) => how,
            },
            clean: how == End::Clean,
            useful,
        })
    }

    /// Leaves lines in the inbox, unless the client is to end at once.
    async fn deliver(&mut self, lines: Lines) -> Result<(), Closed> {
        tokio::select! {
            biased;
            () = ordered(&mut self.orders, Order::Abort) => Err(Closed),
            left = self.outlet.deliver(&self.peer, lines) => left,
        }
    }

    /// Says in the stream that the connection was lost.
    async fn tell(&mut self, how: &str) -> Result<(), Closed> {
        let message = format!("the connection is lost: {how}");
        self.deliver(Lines::failed(DISCONNECTED, message)).await
    }

    fn gave_up(&self, error: &io::Error) -> io::Error {
        let Self { peer, patience, .. } = self;
        let attempts = match patience.failed {
            1 => "1 attempt".to_owned(),
            count => format!("{count} attempts"),
        };
        let message = format!("{error} (server {peer}, after {attempts} in a row)");
        io::Error::new(error.kind(), message)
    }
}

/// A connection that has been greeted.
async fn connect(options: &ClientOptions) -> io::Result<TcpStream> {
    let attempt = async {
        let mut stream = TcpStream::connect((options.host.as_str(), options.port)).await?;
        stream.write_all(&options.greeting).await?;
        Ok(stream)
    };
    match timeout(options.connect_timeout, attempt).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no connection in time",
        )),
    }
}

/// A retry policy at work: from one connection that was of use to the next.
struct Patience {
    policy: Option<Retry>,
    random: Random,
    /// When it was made, and what the calendar said then, counted from 1970.
    began: (Instant, Duration),
    /// Attempts that have failed in a row, when the first of them did, and the latest delay.
    failed: u32,
    since: Instant,
    waited: Duration,
}

impl Patience {
    fn new(policy: Option<Retry>, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            policy,
            random: Random::new(seed),
            began: (now, SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
            failed: 0,
            since: now,
            waited: Duration::ZERO,
        }
    }

    /// The last attempt was a success.
    fn rest(&mut self) {
        self.failed = 0;
        self.waited = Duration::ZERO;
    }

    /// How long to wait for the next attempt; `None`: there is none.
    fn after_failure(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.failed == 0 {
            self.since = now;
        }
        self.failed = self.failed.saturating_add(1);
        let tried = Tried {
            attempt: self.failed,
            waited: self.waited,
            since_first: now - self.since,
            wall: self.began.1 + (now - self.began.0),
            random: self.random.next_f64(),
            asked: Duration::ZERO,
        };
        self.waited = self.policy.as_ref()?.delay(&tried).ok()?;
        Some(self.waited)
    }
}
