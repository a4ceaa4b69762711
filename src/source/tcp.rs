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

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::framing::{Decode, End, Framing, LineSplitter};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::acceptor::Acceptor;
use super::owner::{Delivery, Order, Outlet, Owner, ordered, reached};
use super::read::{Read, read};
use crate::inbox::Inbox;

/// What the server listens on, accepts and takes for a line.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    /// Name or address to bind; a name is looked up, and its first address that works is taken.
    pub host: String,
    /// Port to bind; 0 lets the system choose, and [`TcpSource::address`] tells.
    pub port: u16,
    /// What ends a line.
    pub framing: Framing,
    /// The longest line, in bytes without its terminator or length.
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

/// A running server. Dropping it closes it, without waiting for its tasks.
#[derive(Debug)]
pub struct TcpSource {
    address: SocketAddr,
    owner: Owner,
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
        let (owner, outlet, orders) = Owner::of(inbox);
        let serving = Arc::new(Serving { options, outlet });
        handle.spawn(serve(acceptor, serving, orders));
        Ok(Self { address, owner })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and reading at once, delivers what has been read, and closes the inbox.
    ///
    /// An unfinished line is [`TRUNCATED`](anabranch_core::framing::TRUNCATED). Returns immediately; that
    /// it is done shows in the inbox, which someone has to go on taking from.
    pub fn drain(&self) {
        self.owner.drain();
    }

    /// Aborts and joins all tasks; see [`Owner::close`].
    pub fn close(&self, within: Duration) -> bool {
        self.owner.close(within)
    }

    /// Whoever orders it to drain, or to end.
    pub fn into_owner(self) -> Owner {
        self.owner
    }
}

/// What all tasks of one server share.
struct Serving {
    options: TcpOptions,
    outlet: Outlet,
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
        ref framing,
        max_line,
        idle_timeout,
        decode,
        ..
    } = serving.options;
    let peer: Arc<str> = address.to_string().into();
    let mut splitter = LineSplitter::new(framing, max_line, decode);
    let mut chunk = Vec::new();
    let mut heard = Instant::now();
    let end = loop {
        let came = tokio::select! {
            // The end first, or a client that never pauses would outlast it.
            biased;
            _ = draining.changed() => break End::Cut("drain"),
            came = read(&stream, &mut chunk) => came,
            () = reached(idle_timeout.and_then(|limit| heard.checked_add(limit))) => {
                break End::Cut("idle timeout");
            }
        };
        match came {
            Read::Some => {}
            Read::None => continue,
            Read::End(end) => break end,
        }
        let lines = splitter.feed(&chunk);
        chunk.clear();
        if serving.outlet.deliver(&peer, lines).await.is_err() {
            return;
        }
        // Only now: the wait for room in the inbox is not the client's silence.
        heard = Instant::now();
    };
    // If the inbox is closed by now, nobody wants to know.
    let _ = serving.outlet.deliver(&peer, splitter.finish(end)).await;
}
