//! A TCP server that takes lines from many connections and delivers them into an inbox.
//!
//! ```text
//!  owner --order--> acceptor --draining--> connections --push--> inbox
//!                      ^                        |
//!                      +------ joins each ------+
//! ```
//! One task accepts and owns one task per connection. It ends last, and closes the inbox: whoever
//! drives the inbox always sees the end.
//!
//! # Guarantees
//! - What a connection sent is delivered in order; what one read brings is one delivery.
//! - A full inbox stops the reading, and so, through TCP, the sender. Nothing is dropped for it.
//! - Beyond `max_connections` nothing is accepted: who comes waits in the system's backlog.
//! - Every task is joined; none outlives [`TcpSource::close`], or the source's drop by more than
//!   the moment it takes to notice.

mod acceptor;

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::acceptor::Acceptor;
use super::framing::{Decode, End, LineSplitter, Lines};
use crate::inbox::{Closed, Inbox};

/// The most that one read takes from a socket, in bytes.
const READ: usize = 64 * 1024;

/// What the server listens on, accepts and takes for a line.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Name or address to bind; a name is looked up, and its first address that works is taken.
    pub host: String,
    /// Port to bind; 0 lets the system choose, and [`TcpSource::address`] tells.
    pub port: u16,
    /// The longest line, in bytes without its terminator.
    pub max_line: usize,
    /// The most connections open at once (at least one).
    pub max_connections: usize,
    /// A client that sends nothing for this long is closed.
    pub idle_timeout: Option<Duration>,
    /// What the contents of a line have to be.
    pub decode: Decode,
    /// When the server ends of its own accord.
    pub until: Until,
}

/// When the server ends of its own accord: it then drains, as by [`TcpSource::drain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never: it serves until it is told to drain.
    Drain,
    /// This long after its start.
    After(Duration),
    /// As soon as at least one client came and none is left, neither open nor waiting.
    Disconnected,
}

/// What one read brought from one connection.
#[derive(Debug)]
pub struct Delivery {
    /// The other end, as `address:port`.
    pub peer: Arc<str>,
    /// At least one event.
    pub lines: Lines,
}

/// A running server. Dropping it closes it, without waiting for its tasks.
#[derive(Debug)]
pub struct TcpSource {
    address: SocketAddr,
    /// What the acceptor is to do; its end, by drop, stands for [`Order::Abort`].
    order: watch::Sender<Order>,
    /// Nothing is ever sent: it disconnects when the last task has gone.
    gone: Mutex<Receiver<()>>,
}

/// What the owner wants of the acceptor; only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Serve,
    Drain,
    Abort,
}

impl TcpSource {
    /// Binds, and starts to serve on the runtime of `handle`, which needs I/O and time enabled.
    /// Looking up the host may block.
    ///
    /// The inbox is closed when the server has ended, for whatever reason.
    ///
    /// # Errors
    /// If the host is unknown, the address is taken, or the system refuses otherwise. The inbox is
    /// left open then.
    pub fn start(
        handle: &Handle,
        options: TcpOptions,
        inbox: Arc<Inbox<Delivery>>,
    ) -> io::Result<Self> {
        let listener = StdListener::bind((options.host.as_str(), options.port))?;
        let address = listener.local_addr()?;
        let acceptor = {
            let _entered = handle.enter();
            Acceptor::new(listener)?
        };
        let (order, orders) = watch::channel(Order::Serve);
        let (presence, gone) = channel();
        let serving = Arc::new(Serving {
            options,
            inbox: ClosedAtEnd(inbox),
            _presence: presence,
        });
        handle.spawn(serve(acceptor, serving, orders));
        Ok(Self {
            address,
            order,
            gone: Mutex::new(gone),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and reading at once, delivers what has been read, and closes the inbox.
    ///
    /// An unfinished line is [`TRUNCATED`](super::framing::TRUNCATED). Returns immediately; that
    /// it is done shows in the inbox, which someone has to go on taking from.
    pub fn drain(&self) {
        self.give(Order::Drain);
    }

    /// Aborts and joins all tasks, for at most `within`; returns whether they have all gone.
    ///
    /// What they had not delivered yet is lost. The inbox is closed, not emptied. Not for use in a
    /// task, whose thread it would block; nor while holding what the inbox's wake-up needs.
    pub fn close(&self, within: Duration) -> bool {
        self.give(Order::Abort);
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
    }

    fn give(&self, new: Order) {
        self.order.send_modify(|order| *order = new.max(*order));
    }
}

/// What all tasks of one server share.
struct Serving {
    options: TcpOptions,
    // Before `_presence`: fields go in this order, and who finds the tasks gone finds it closed.
    inbox: ClosedAtEnd,
    _presence: Sender<()>,
}

/// Closes the inbox when the last task lets go of it, be it because its runtime was shut down.
struct ClosedAtEnd(Arc<Inbox<Delivery>>);

impl Drop for ClosedAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Serving {
    /// Leaves `lines` from `peer` in the inbox, if there are any.
    ///
    /// # Cancel safety
    /// As [`Inbox::push`]: all of them are left or, if cancelled, none.
    async fn deliver(&self, peer: &Arc<str>, lines: Lines) -> Result<(), Closed> {
        if lines.is_empty() {
            return Ok(());
        }
        let items = lines.len();
        let peer = Arc::clone(peer);
        self.inbox.0.push(Delivery { peer, lines }, items).await
    }
}

/// The acceptor's task: accepts until it has to end, then sees every connection out.
///
/// # Cancel safety
/// Cancelled at any await it drops the set of connections, which aborts them all; what they had
/// not delivered is lost, and the inbox is closed once they are gone.
async fn serve(mut acceptor: Acceptor, serving: Arc<Serving>, mut orders: watch::Receiver<Order>) {
    let TcpOptions {
        max_connections,
        until,
        ..
    } = serving.options;
    let end = match until {
        Until::After(delay) => Instant::now().checked_add(delay),
        Until::Drain | Until::Disconnected => None,
    };
    // Nothing is ever sent: the sender's drop tells every connection to end.
    let (serving_on, draining) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut came = false;

    loop {
        let mut client = None;
        if until == Until::Disconnected && came && connections.is_empty() {
            match acceptor.waiting() {
                Ok(None) => break,
                Ok(waiting) => client = waiting,
                Err(_) => acceptor.pause(),
            }
        }
        if client.is_none() {
            client = tokio::select! {
                // Orders first: a rush of clients must not delay the end.
                biased;
                () = ordered(&mut orders, Order::Drain) => break,
                () = reached(end) => break,
                Some(_) = connections.join_next() => None,
                client = acceptor.accept(), if connections.len() < max_connections.max(1) => client,
            };
        }
        if let Some((stream, address)) = client {
            came = true;
            connections.spawn(converse(
                stream,
                address,
                Arc::clone(&serving),
                draining.clone(),
            ));
        }
    }
    // From now on clients are refused: before anyone can see the end in the inbox.
    drop(acceptor);
    drop(serving_on);
    loop {
        tokio::select! {
            biased;
            () = ordered(&mut orders, Order::Abort) => return connections.shutdown().await,
            joined = connections.join_next() => if joined.is_none() { return },
        }
    }
}

/// One connection's task: reads until the client, its silence or the acceptor ends it.
///
/// # Cancel safety
/// Cancelled at any await it closes the connection; what was read and not yet delivered is lost.
async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    serving: Arc<Serving>,
    mut draining: watch::Receiver<()>,
) {
    let TcpOptions {
        max_line,
        idle_timeout,
        decode,
        ..
    } = serving.options;
    let peer: Arc<str> = address.to_string().into();
    let mut splitter = LineSplitter::new(max_line, decode);
    let mut chunk = Vec::new();
    let mut heard = Instant::now();
    let end = loop {
        tokio::select! {
            // The end first, or a client that never pauses would outlast it.
            biased;
            _ = draining.changed() => break End::Cut("drain"),
            // An error shows again, and in more detail, in the read.
            _ = stream.readable() => {}
            () = reached(idle_timeout.and_then(|limit| heard.checked_add(limit))) => {
                break End::Cut("idle timeout");
            }
        }
        chunk.reserve(READ);
        match stream.try_read_buf(&mut chunk) {
            Ok(0) => break End::Clean,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A thousand silent clients should not hold a thousand buffers.
                chunk = Vec::new();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                break End::Cut("connection reset");
            }
            Err(_) => break End::Cut("connection lost"),
        }
        let lines = splitter.feed(&chunk);
        chunk.clear();
        if serving.deliver(&peer, lines).await.is_err() {
            return;
        }
        // Only now: the wait for room in the inbox is not the client's silence.
        heard = Instant::now();
    };
    // If the inbox is closed by now, nobody wants to know.
    let _ = serving.deliver(&peer, splitter.finish(end)).await;
}

/// Returns once at least `order` has been given, or nobody is left to give any.
///
/// # Cancel safety
/// An order stays given, so nothing is missed if this is cancelled and called again.
async fn ordered(orders: &mut watch::Receiver<Order>, order: Order) {
    let _ = orders.wait_for(|given| *given >= order).await;
}

/// Returns at `time`; never, if there is none.
///
/// # Cancel safety
/// Holds nothing but the time.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
