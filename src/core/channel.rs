//! A bounded queue with an end: first in, first out, measured in items rather than entries.
//!
//! Pure bookkeeping: nobody waits here. A full [`Channel`] hands the value back, and how to wait for
//! room, or for a value, is the driver's affair. [`Shared`] adds what many senders and receivers
//! need: who waits, whose turn it is, and what happens when it is full.
//!
//! - `channel/shared.rs`: a channel with those who wait at it, in lanes if it has priorities.
//! - `channel/lane.rs`: one lane of it; `channel/line.rs`: one line of those who wait.

mod lane;
mod line;
mod shared;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;

pub use line::Ticket;
pub use shared::{Called, Counts, OnFull, Place, Shared};

/// A bounded first-in-first-out queue that can be closed, cleanly or with an error of type `E`.
///
/// Its capacity is counted in items, and a value may stand for many of them: a batch of 500 lines
/// weighs 500. A value heavier than the whole capacity is let in when nothing else is inside, or it
/// could never pass at all.
///
/// ```
/// use anabranch_core::channel::{Channel, Refused, Taken};
///
/// let mut channel: Channel<&str> = Channel::new(3);
/// assert_eq!(channel.offer("two items", 2), Ok(()));
/// assert_eq!(channel.offer("two more", 2), Err(Refused::Full("two more")));
/// channel.close();
/// assert_eq!(channel.take(), Taken::Item("two items"));
/// assert_eq!(channel.take(), Taken::Ended);
/// ```
#[derive(Debug)]
pub struct Channel<T, E = Infallible> {
    /// What is inside, oldest first, each with its weight.
    queue: VecDeque<(T, usize)>,
    /// The sum of the weights in `queue`, kept so that nobody has to add them up.
    len: usize,
    /// The most that `len` may reach, save for one value that is heavier on its own.
    capacity: usize,
    end: End<E>,
}

/// Whether more may come, and if not, why.
#[derive(Debug)]
enum End<E> {
    Open,
    Closed,
    Failed(E),
}

/// Why a value was not let in. It is given back either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused<T> {
    /// No room now; there will be once something has been taken.
    Full(T),
    /// The channel is closed; nothing will ever be let in again.
    Closed(T),
}

/// What a look into the channel brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<T> {
    /// The oldest value.
    Item(T),
    /// Nothing inside now, but more may come.
    Empty,
    /// Nothing inside, and nothing will come; [`Channel::failure`] says whether that is an error.
    Ended,
}

impl<T, E> Channel<T, E> {
    /// An open channel for up to `capacity` items (at least one).
    pub const fn new(capacity: usize) -> Self {
        let capacity = if capacity == 0 { 1 } else { capacity };
        Self {
            queue: VecDeque::new(),
            len: 0,
            capacity,
            end: End::Open,
        }
    }

    /// Puts in `value`, which stands for `weight` items (at least one: nothing is free, or the
    /// queue would have no bound).
    ///
    /// # Errors
    /// [`Refused`], with the value, when there is no room or the channel is closed.
    pub fn offer(&mut self, value: T, weight: usize) -> Result<(), Refused<T>> {
        let weight = weight.max(1);
        if !matches!(self.end, End::Open) {
            return Err(Refused::Closed(value));
        }
        if weight > self.room() && !self.is_empty() {
            return Err(Refused::Full(value));
        }
        self.len += weight;
        self.queue.push_back((value, weight));
        Ok(())
    }

    /// Takes out the oldest value.
    pub fn take(&mut self) -> Taken<T> {
        match (self.queue.pop_front(), &self.end) {
            (Some((value, weight)), _) => {
                self.len -= weight;
                Taken::Item(value)
            }
            (None, End::Open) => Taken::Empty,
            (None, End::Closed | End::Failed(_)) => Taken::Ended,
        }
    }

    /// Puts a value that was taken back in front of all others, whether or not there is room, and
    /// though the channel is closed: what was inside once can always be taken.
    pub fn put_back(&mut self, value: T, weight: usize) {
        let weight = weight.max(1);
        self.len += weight;
        self.queue.push_front((value, weight));
    }

    /// Takes out everything at once, oldest first; open or closed, the channel stays as it is.
    ///
    /// The values come back rather than being dropped here, so that the caller may drop them once
    /// whatever guards the channel is released.
    pub fn take_all(&mut self) -> Vec<T> {
        self.len = 0;
        self.queue.drain(..).map(|(value, _)| value).collect()
    }

    /// Lets nothing more in; what is inside can still be taken. The first end stands.
    pub fn close(&mut self) {
        if matches!(self.end, End::Open) {
            self.end = End::Closed;
        }
    }

    /// Closes the channel because of `error`. The first end stands: on a channel that is closed
    /// already this changes nothing.
    pub fn fail(&mut self, error: E) {
        if matches!(self.end, End::Open) {
            self.end = End::Failed(error);
        }
    }

    /// The error the channel was closed with; it concerns who takes only after the last value.
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

    /// The values inside, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter().map(|(value, _)| value)
    }

    /// How many items are inside.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The most items it holds.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many more items fit.
    pub const fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }
}

impl<T> Refused<T> {
    /// The value that was not let in.
    pub fn into_value(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "channel is full",
            Self::Closed(_) => "channel is closed",
        })
    }
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_heavier_than_the_capacity_passes_alone() {
        let mut channel: Channel<u8> = Channel::new(10);
        assert_eq!(channel.offer(1, 1), Ok(()));
        assert_eq!(channel.offer(2, 11), Err(Refused::Full(2)));
        assert_eq!(channel.take(), Taken::Item(1));
        assert_eq!(channel.offer(2, 11), Ok(()));
        assert_eq!((channel.len(), channel.room()), (11, 0));
        assert_eq!(channel.offer(3, 1), Err(Refused::Full(3)));
        assert_eq!(channel.take(), Taken::Item(2));
        assert_eq!((channel.len(), channel.room()), (0, 10));
    }

    #[test]
    fn a_weightless_value_still_counts_as_one() {
        let mut channel: Channel<u8> = Channel::new(0);
        assert_eq!(channel.capacity(), 1);
        assert_eq!(channel.offer(1, 0), Ok(()));
        assert_eq!(channel.offer(2, 0), Err(Refused::Full(2)));
    }

    #[test]
    fn a_closed_channel_gives_what_it_holds_and_then_ends() {
        let mut channel: Channel<u8> = Channel::new(10);
        assert_eq!(channel.take(), Taken::Empty);
        assert_eq!(channel.offer(1, 1), Ok(()));
        channel.close();
        assert!(channel.is_closed());
        assert_eq!(channel.offer(2, 1), Err(Refused::Closed(2)));
        assert_eq!(channel.take(), Taken::Item(1));
        assert_eq!(channel.take(), Taken::Ended);
        assert_eq!(channel.take(), Taken::Ended);
    }

    #[test]
    fn the_first_end_stands() {
        let mut failed: Channel<u8, &str> = Channel::new(1);
        failed.fail("disk full");
        failed.close();
        failed.fail("too late");
        assert_eq!(failed.failure(), Some(&"disk full"));
        assert_eq!(failed.take(), Taken::Ended);

        let mut closed: Channel<u8, &str> = Channel::new(1);
        closed.close();
        closed.fail("too late");
        assert_eq!(closed.failure(), None);
    }

    #[test]
    fn taking_all_makes_room_and_keeps_the_order() {
        let mut channel: Channel<u8> = Channel::new(4);
        for value in 0..4 {
            assert_eq!(channel.offer(value, 1), Ok(()));
        }
        assert_eq!(channel.take_all(), [0, 1, 2, 3]);
        assert_eq!((channel.len(), channel.room()), (0, 4));
        assert_eq!(channel.take(), Taken::Empty);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Offer(usize),
        Take,
        Close,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (0usize..40).prop_map(Step::Offer),
            10 => Just(Step::Take),
            1 => Just(Step::Close),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// What was let in comes out, all of it, in order, and the bound holds at every step.
        #[test]
        fn nothing_is_lost_reordered_or_beyond_the_bound(
            capacity in 1usize..32,
            steps in steps(),
        ) {
            let mut channel: Channel<usize> = Channel::new(capacity);
            let (mut let_in, mut came_out) = (Vec::new(), Vec::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Offer(weight) => match channel.offer(value, weight) {
                        Ok(()) => let_in.push(value),
                        Err(refused) => {
                            let closed = matches!(refused, Refused::Closed(_));
                            prop_assert_eq!(closed, channel.is_closed());
                            prop_assert!(closed || weight.max(1) > channel.room());
                            prop_assert_eq!(refused.into_value(), value);
                        }
                    },
                    Step::Take => match channel.take() {
                        Taken::Item(value) => came_out.push(value),
                        Taken::Empty => prop_assert!(!channel.is_closed()),
                        Taken::Ended => prop_assert!(channel.is_closed()),
                    },
                    Step::Close => channel.close(),
                }
                let inside = let_in.len() - came_out.len();
                prop_assert_eq!(channel.is_empty(), inside == 0);
                prop_assert!(channel.len() <= capacity || inside == 1);
                prop_assert!(channel.len() >= inside);
            }
            came_out.extend(channel.take_all());
            prop_assert_eq!(came_out, let_in);
        }
    }
}
