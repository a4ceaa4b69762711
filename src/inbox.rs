//! The inbox: where native sources leave their batches for the driving thread.
//!
//! ```text
//!  source tasks --push--> [ bounded channel ] --take--> driving thread
//!        ^  wait for room         |                          ^
//!        +------------------------+------ one wake-up -------+
//! ```
//!
//! # Guarantees
//! - Bounded in items; a source that finds no room waits, and so stops reading its socket.
//! - Whoever waits for room is served in order of arrival: light batches cannot starve a heavy one.
//! - One wake-up per burst: a batch wakes the driver only if the driver has found the inbox empty
//!   since the last wake-up. None is lost: both happen under one lock.
//! - The wake-up is called with no lock held, so it may take others (the interpreter's, say).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anabranch_core::channel::{Channel, Refused, Taken};
use tokio::sync::Semaphore;

/// A bounded queue of batches `B` between source tasks and the one driving thread.
pub struct Inbox<B> {
    state: Mutex<State<B>>,
    /// The channel's capacity in items, here so that nobody needs the lock to know it.
    capacity: usize,
    /// The room in the channel. Permits are taken before the lock and given back after it, so there
    /// are never more of them than the channel has room: what holds permits is never refused.
    room: Semaphore,
    /// Calls the driver; see [`Inbox::new`].
    wake: Box<dyn Fn() + Send + Sync>,
    /// How often `wake` was called.
    wakes: AtomicU64,
}

struct State<B> {
    channel: Channel<B>,
    /// The driver has been woken and has not found the inbox empty since: it will look again of
    /// its own accord. Set by whoever brings something, cleared by [`Inbox::take`].
    armed: bool,
}

/// The inbox takes nothing more: its source has ended, or the pipeline has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl<B> Inbox<B> {
    /// An open inbox for up to `capacity_items` items (at least one).
    ///
    /// `wake` is called on whatever thread brings something when the driver might be asleep. It
    /// should be quick and must not block on the driver; it may call back into the inbox.
    pub fn new(capacity_items: usize, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        // Semaphores count in `u32` per request; nobody means more than four billion items.
        let capacity = capacity_items.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Self {
            state: Mutex::new(State {
                channel: Channel::new(capacity),
                armed: false,
            }),
            capacity,
            room: Semaphore::new(capacity),
            wake,
            wakes: AtomicU64::new(0),
        }
    }

    /// Leaves `batch`, which holds `items` items, and waits for room first if need be.
    ///
    /// A batch larger than the whole capacity waits until nothing else is inside.
    ///
    /// # Errors
    /// [`Closed`] once the inbox is closed, also for those who were waiting; the batch is dropped.
    ///
    /// # Cancel safety
    /// Cancelled while it waits, nothing has been left and the place in the queue is given up; the
    /// batch is dropped with the future. Once there is room it finishes without another await, so
    /// a batch is never left in part. No lock is held across an await.
    pub async fn push(&self, batch: B, items: usize) -> Result<(), Closed> {
        let permits = self.permits(items);
        // The only error is `AcquireError`: the semaphore is closed, and so is the inbox.
        let Ok(permit) = self.room.acquire_many(permits).await else {
            return Err(Closed);
        };
        let mut state = self.lock();
        match state.channel.offer(batch, items) {
            Ok(()) => {
                permit.forget();
                self.rouse(state);
                Ok(())
            }
            Err(Refused::Closed(batch)) => {
                drop(state);
                drop(batch);
                Err(Closed)
            }
            Err(Refused::Full(_)) => unreachable!("invariant: a permit is room in the channel"),
        }
    }

    /// Takes out the oldest batch. For the driver alone.
    ///
    /// Before it goes to sleep the driver has to have seen [`Taken::Empty`]: only from then on does
    /// the next batch wake it. Until then, however often it takes, it counts as awake, and a
    /// source that keeps up with it costs no wake-ups at all.
    pub fn take(&self) -> Taken<B> {
        let mut state = self.lock();
        let before = state.channel.len();
        let taken = state.channel.take();
        let freed = before - state.channel.len();
        if matches!(taken, Taken::Empty) {
            state.armed = false;
        }
        drop(state);
        if freed > 0 {
            self.room.add_permits(self.permits(freed) as usize);
        }
        taken
    }

    /// Lets nothing more in; what is inside can still be taken, and then comes [`Taken::Ended`].
    ///
    /// Whoever waits for room gets [`Closed`]. Wakes the driver. Closing twice is harmless.
    pub fn close(&self) {
        self.room.close();
        let mut state = self.lock();
        if !state.channel.is_closed() {
            state.channel.close();
            self.rouse(state);
        }
    }

    /// Closes the inbox and drops what is inside; returns how many items that were.
    pub fn abort(&self) -> usize {
        self.room.close();
        let mut state = self.lock();
        let items = state.channel.len();
        let dropped = state.channel.take_all();
        state.channel.close();
        self.rouse(state);
        // Only now: a batch's own drop may be long, and must not run under the lock.
        drop(dropped);
        items
    }

    /// How many items are inside.
    pub fn len(&self) -> usize {
        self.lock().channel.len()
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the driver has been woken so far.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Wakes the driver unless it is going to look anyway; releases the lock before it does.
    fn rouse(&self, mut state: MutexGuard<'_, State<B>>) {
        let asleep = !std::mem::replace(&mut state.armed, true);
        drop(state);
        if asleep {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            (self.wake)();
        }
    }

    /// The permits a batch of `items` holds: all there are, if it is larger than that.
    fn permits(&self, items: usize) -> u32 {
        u32::try_from(items.clamp(1, self.capacity)).unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing under this lock runs foreign code, so a poisoned one is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> fmt::Debug for Inbox<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("items", &self.len())
            .field("wakes", &self.wakes())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inbox is closed")
    }
}

impl std::error::Error for Closed {}
