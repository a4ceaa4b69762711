//! What all native sources have: an owner who orders, tasks that deliver, an end that is seen.
//!
//! ```text
//!  Owner --order--> tasks --Outlet--> inbox, closed when the last of them has gone
//! ```

use std::future::pending;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anabranch_core::framing::Lines;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::inbox::{Closed, Inbox};

/// What one read brought from one place.
#[derive(Debug)]
pub struct Delivery {
    /// Where it is from: the other end as `address:port`, or a file's path.
    pub peer: Arc<str>,
    /// At least one event.
    pub lines: Lines,
}

/// Whoever runs a source. Dropping it closes the source, without waiting for its tasks.
#[derive(Debug)]
pub struct Owner {
    /// What the tasks are to do; its end, by drop, stands for [`Order::Abort`].
    order: watch::Sender<Order>,
    /// Nothing is ever sent: it disconnects when the last task has gone.
    gone: Mutex<Receiver<()>>,
    fault: Arc<OnceLock<io::Error>>,
}

/// What the owner wants of the tasks; only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Serve,
    Drain,
    Abort,
}

/// Where the tasks of one source leave what they have.
pub(super) struct Outlet {
    fault: Arc<OnceLock<io::Error>>,
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

impl Owner {
    /// An owner, what its tasks share, and what they listen to.
    pub(super) fn of(inbox: Arc<Inbox<Delivery>>) -> (Self, Outlet, watch::Receiver<Order>) {
        let (order, orders) = watch::channel(Order::Serve);
        let (presence, gone) = channel();
        let fault = Arc::<OnceLock<io::Error>>::default();
        let outlet = Outlet {
            fault: Arc::clone(&fault),
            inbox: ClosedAtEnd(inbox),
            _presence: presence,
        };
        let owner = Self {
            order,
            gone: Mutex::new(gone),
            fault,
        };
        (owner, outlet, orders)
    }

    /// Takes in nothing more, delivers what has been read, and closes the inbox.
    ///
    /// Returns immediately; that it is done shows in the inbox, which someone has to go on taking
    /// from.
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

    /// Why the source has ended, if it was not told to and is not done: final once the inbox is
    /// closed.
    pub fn fault(&self) -> Option<&io::Error> {
        self.fault.get()
    }

    fn give(&self, new: Order) {
        self.order.send_modify(|order| *order = new.max(*order));
    }
}

impl Outlet {
    /// Leaves `lines` from `peer` in the inbox, if there are any.
    ///
    /// # Cancel safety
    /// As [`Inbox::push`]: all of them are left or, if cancelled, none.
    pub(super) async fn deliver(&self, peer: &Arc<str>, lines: Lines) -> Result<(), Closed> {
        if lines.is_empty() {
            return Ok(());
        }
        let items = lines.len();
        let peer = Arc::clone(peer);
        self.inbox.0.push(Delivery { peer, lines }, items).await
    }

    /// Says why the source ends.
    pub(super) fn fail(&self, error: io::Error) {
        // The first reason stands.
        let _ = self.fault.set(error);
    }
}

/// Returns once at least `order` has been given, or nobody is left to give any.
///
/// # Cancel safety
/// An order stays given, so nothing is missed if this is cancelled and called again.
pub(super) async fn ordered(orders: &mut watch::Receiver<Order>, order: Order) {
    let _ = orders.wait_for(|given| *given >= order).await;
}

/// Returns at `time`; never, if there is none.
///
/// # Cancel safety
/// Holds nothing but the time.
pub(super) async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
