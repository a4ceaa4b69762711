//! One lane of a channel: what is inside, and who waits for room in it.

use std::collections::VecDeque;
use std::time::Duration;

use super::line::Line;
use super::{Channel, Refused, Taken};
use crate::clock::Time;

/// A lane; a channel without priorities has one.
#[derive(Debug)]
pub(super) struct Lane<T, W> {
    /// Its end is the whole channel's, so this one is never closed.
    queue: Channel<T>,
    /// When each of the items came; empty unless they age.
    arrived: VecDeque<Time>,
    /// Those who wait for room.
    pub(super) senders: Line<W>,
}

impl<T, W> Lane<T, W> {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            queue: Channel::new(capacity),
            arrived: VecDeque::new(),
            senders: Line::new(),
        }
    }

    pub(super) const fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    pub(super) const fn len(&self) -> usize {
        self.queue.len()
    }

    /// Room for items, whoever it was promised to.
    pub(super) const fn room(&self) -> usize {
        self.queue.room()
    }

    /// Room that was promised to nobody.
    pub(super) const fn free_room(&self) -> usize {
        self.room().saturating_sub(self.senders.promised())
    }

    /// Puts an item in; `arrived` is when, if items age.
    pub(super) fn put(&mut self, item: T, arrived: Option<Time>) -> Result<(), Refused<T>> {
        self.queue.offer(item, 1)?;
        self.arrived.extend(arrived);
        Ok(())
    }

    /// Puts an item in front, whether or not there is room; `arrived` is when it came, if items
    /// age.
    pub(super) fn put_back(&mut self, item: T, arrived: Option<Time>) {
        self.queue.put_back(item, 1);
        if let Some(arrived) = arrived {
            self.arrived.push_front(arrived);
        }
    }

    /// Takes the oldest item, and when it came.
    pub(super) fn take(&mut self) -> Option<(T, Time)> {
        let arrived = self.arrived.pop_front().unwrap_or(Time::ZERO);
        match self.queue.take() {
            Taken::Item(item) => Some((item, arrived)),
            Taken::Empty | Taken::Ended => None,
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.arrived.clear();
        self.queue.take_all()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter()
    }

    /// When the oldest item is due, in the order of lanes that age: as if each lane came so much
    /// later than the one before it. `None` if nothing is inside.
    pub(super) fn due(&self, lane: u32, aging: Duration) -> Option<Time> {
        let arrived = self.arrived.front()?;
        Some(arrived.after(aging.saturating_mul(lane)))
    }
}
