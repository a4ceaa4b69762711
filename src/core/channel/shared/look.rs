//! What can be seen of a channel without changing it.

use super::{Counts, End, Lane, OnFull, Shared};
use crate::clock::Time;

impl<T, E, W> Shared<T, E, W> {
    /// The error it was closed with.
    pub const fn failure(&self) -> Option<&E> {
        match &self.end {
            End::Failed(error) => Some(error),
            End::Open | End::Closed => None,
        }
    }

    /// Whether nothing more is let in.
    pub const fn is_closed(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    /// Whether nothing is inside, and nothing will come.
    pub const fn is_ended(&self) -> bool {
        self.is_closed() && self.depth == 0
    }

    /// The most items that each lane holds.
    pub fn capacity(&self) -> usize {
        self.lanes[0].capacity()
    }

    /// How many items are inside.
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// How many items are inside each lane, the most urgent lane first.
    pub fn depths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.lanes.iter().map(Lane::len)
    }

    /// The item that would be received next, if nobody takes it before.
    pub fn peek(&self) -> Option<&T> {
        self.lanes[self.next_lane()?].iter().next()
    }

    /// Whether items age, so that it matters when they are sent.
    pub const fn ages(&self) -> bool {
        self.aging.is_some()
    }

    /// What happens to an item that finds no room.
    pub const fn on_full(&self) -> OnFull {
        self.on_full
    }

    /// What happened so far.
    pub fn counts(&self, now: Time) -> Counts {
        let waiting = self.blocked_since.map(|since| now.since(since));
        Counts {
            sent: self.sent,
            received: self.received,
            dropped: self.dropped,
            depth: self.depth,
            blocked: self.blocked + waiting.unwrap_or_default(),
            senders: self.lanes.iter().map(|it| it.senders.len()).sum(),
            receivers: self.receivers.len(),
        }
    }

    /// The items inside, lane by lane, oldest first.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().flat_map(Lane::iter)
    }

    /// Those who wait on either side and were not called.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        let senders = self.lanes.iter().flat_map(|it| it.senders.waiters());
        senders.chain(self.receivers.waiters())
    }
}
