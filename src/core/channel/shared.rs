//! A channel that many send to and many receive from, where a full one may be waited for.
//!
//! Still pure bookkeeping: who waits stands in a [line](super::line), and who is to be woken comes
//! back as a value. The driver guards it with a lock, and wakes and drops outside.
//!
//! # Guarantees
//! - What was sent is inside, was received, or was dropped by the overflow rule and counted:
//!   `sent = received + dropped + depth` at every moment.
//! - Items leave in the order they came in. Those who wait are called in order of arrival, and
//!   nobody overtakes them: a small batch cannot starve a large one.
//! - A batch goes in whole or not at all, unless the overflow rule drops.
//! - Whoever is called takes the item, or puts it in, itself. One that is cancelled in between
//!   leaves, and the next is called: no item is ever on its way to somebody.
//! - After the end what is inside can be received; only then is anybody told about the end.
//!
//! # Lanes
//! A channel with priorities has several lanes, each with a capacity of its own: a full one holds
//! up those who send into it and nobody else. Which item is received is decided when it is: always
//! the oldest of the first lane that has one, so that nothing ever overtakes a more urgent item. With
//! aging a lane comes after the one before it by so much time and no more: each item is received
//! as if it had come so much later for each lane in front of its own.
//!
//! - `shared/turns.rs`: whose turn it is; `shared/look.rs`: what can be seen of it.

mod look;
mod turns;

use std::time::Duration;

use super::lane::Lane;
use super::line::{Line, Ticket};
use super::{End, Refused, Taken};
use crate::clock::Time;

/// What happens to an item that comes to a full channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Its sender waits.
    Wait,
    /// It is dropped.
    DropNewest,
    /// It goes in, and the oldest inside is dropped.
    DropOldest,
    /// Its sender is told.
    Fail,
}

/// One whose turn has come, or to whom the end is to be told.
#[derive(Debug)]
pub struct Called<W> {
    /// With it the waiter comes back; or gives up.
    pub ticket: Ticket,
    /// How to wake it.
    pub waiter: W,
}

/// Where an item was taken from: with it, it can be put back there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its lane.
    pub lane: usize,
    /// When it came; zero unless items age.
    pub arrived: Time,
}

/// Counters of a channel. In items unless said otherwise.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Accepted from senders.
    pub sent: u64,
    /// Given to receivers.
    pub received: u64,
    /// Dropped by the overflow rule.
    pub dropped: u64,
    /// Inside now.
    pub depth: usize,
    /// How long somebody waited for room.
    pub blocked: Duration,
    /// How many wait for room now.
    pub senders: usize,
    /// How many wait for an item now.
    pub receivers: usize,
}

/// A bounded channel of items `T`, closed with an error `E`, and the waiters `W` on both sides.
///
/// ```
/// use anabranch_core::channel::{OnFull, Refused, Shared, Taken};
/// use anabranch_core::clock::Time;
///
/// let mut channel: Shared<char, &str, &str> = Shared::new(1, OnFull::Wait);
/// assert!(channel.send(0, std::iter::once('a'), Time::ZERO).is_ok());
/// assert!(matches!(channel.send(0, std::iter::once('b'), Time::ZERO), Err(Refused::Full(_))));
///
/// let ticket = channel.ticket();
/// channel.join_senders(0, ticket, 1, "the second sender", Time::ZERO);
/// assert_eq!(channel.receive(None), Taken::Item('a'));
/// assert_eq!(channel.take_called()[0].waiter, "the second sender");
/// // It is its turn now, and nobody's else.
/// assert!(matches!(channel.send(0, std::iter::once('c'), Time::ZERO), Err(Refused::Full(_))));
/// assert!(channel.send_in_turn(0, ticket, std::iter::once('b'), Time::ZERO).is_ok());
/// ```
#[derive(Debug)]
pub struct Shared<T, E, W> {
    /// The most urgent first; at least one.
    lanes: Vec<Lane<T, W>>,
    end: End<E>,
    on_full: OnFull,
    /// By how much a lane comes after the one before it; `None`: by any time.
    aging: Option<Duration>,
    /// Items inside, over all lanes.
    depth: usize,
    receivers: Line<W>,
    tickets: u64,
    /// To be woken by the driver.
    called: Vec<Called<W>>,
    /// To be dropped by the driver.
    gone: Vec<T>,
    sent: u64,
    received: u64,
    dropped: u64,
    blocked: Duration,
    /// Since when somebody waits for room.
    blocked_since: Option<Time>,
}

impl<T, E, W> Shared<T, E, W> {
    /// An open channel for up to `capacity` items (at least one).
    pub fn new(capacity: usize, on_full: OnFull) -> Self {
        Self::with_lanes(1, capacity, on_full, None)
    }

    /// An open channel with so many lanes (at least one), for up to `capacity` items each.
    pub fn with_lanes(
        lanes: usize,
        capacity: usize,
        on_full: OnFull,
        aging: Option<Duration>,
    ) -> Self {
        Self {
            lanes: (0..lanes.max(1)).map(|_| Lane::new(capacity)).collect(),
            end: End::Open,
            on_full,
            aging,
            depth: 0,
            receivers: Line::new(),
            tickets: 0,
            called: Vec::new(),
            gone: Vec::new(),
            sent: 0,
            received: 0,
            dropped: 0,
            blocked: Duration::ZERO,
            blocked_since: None,
        }
    }

    /// A place in a line that is yet to be joined.
    pub const fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Sends `items` into a lane as the overflow rule has it.
    ///
    /// # Errors
    /// [`Refused`], with all of the items, when the channel is closed, or when they would have to
    /// wait or to fail.
    pub fn send<I: ExactSizeIterator<Item = T>>(
        &mut self,
        lane: usize,
        items: I,
        now: Time,
    ) -> Result<(), Refused<I>> {
        if self.is_closed() {
            return Err(Refused::Closed(items));
        }
        let lane = self.lane(lane);
        match self.on_full {
            OnFull::Wait | OnFull::Fail => {
                if self.is_taken(lane) || items.len() > self.lanes[lane].free_room() {
                    return Err(Refused::Full(items));
                }
                self.put(lane, items, now);
            }
            OnFull::DropNewest => {
                let mut items = items;
                let fit = items.len().min(self.lanes[lane].free_room());
                self.put(lane, items.by_ref().take(fit), now);
                let before = self.gone.len();
                self.gone.extend(items);
                let beyond = (self.gone.len() - before) as u64;
                self.sent += beyond;
                self.dropped += beyond;
            }
            OnFull::DropOldest => {
                for item in items {
                    if self.lanes[lane].room() == 0
                        && let Some((oldest, _)) = self.lanes[lane].take()
                    {
                        self.gone.push(oldest);
                        self.depth -= 1;
                        self.dropped += 1;
                    }
                    self.put(lane, std::iter::once(item), now);
                }
            }
        }
        self.call();
        Ok(())
    }

    /// Sends `items` into a lane, in which the holder of `ticket` was promised room for them.
    ///
    /// # Errors
    /// [`Refused`], with all of the items: the channel is closed, or it is not its turn.
    pub fn send_in_turn<I: ExactSizeIterator<Item = T>>(
        &mut self,
        lane: usize,
        ticket: Ticket,
        items: I,
        now: Time,
    ) -> Result<(), Refused<I>> {
        if self.is_closed() {
            self.leave(ticket, now);
            return Err(Refused::Closed(items));
        }
        let lane = self.lane(lane);
        if !self.lanes[lane].senders.redeem(ticket) {
            return Err(Refused::Full(items));
        }
        self.put(lane, items, now);
        self.unblock(now);
        self.call();
        Ok(())
    }

    /// Promises room in a lane, if nobody waits for it and there is some: for how many items, at
    /// most `most`.
    ///
    /// # Errors
    /// [`Refused`], when there is none, or the channel is closed.
    pub fn reserve(&mut self, lane: usize, most: usize) -> Result<(Ticket, usize), Refused<()>> {
        if self.is_closed() {
            return Err(Refused::Closed(()));
        }
        let lane = self.lane(lane);
        let items = most.min(self.lanes[lane].free_room());
        if self.is_taken(lane) || items == 0 {
            return Err(Refused::Full(()));
        }
        let ticket = self.ticket();
        self.lanes[lane].senders.promise(ticket, items);
        Ok((ticket, items))
    }

    /// Promises the holder of `ticket` an item, if nobody waits for it and there is one.
    pub fn reserve_item(&mut self, ticket: Ticket) -> bool {
        let free = !self.receivers.is_waited_in() && self.depth > self.receivers.promised();
        if free {
            self.receivers.promise(ticket, 1);
        }
        free
    }

    /// Whether a sender who waits has been called, or need not wait any more.
    pub fn is_called(&self, ticket: Ticket) -> bool {
        self.is_closed() || self.lanes.iter().any(|it| it.senders.is_promised(ticket))
    }

    /// Whether the holder of the ticket was promised an item.
    pub fn is_promised(&self, ticket: Ticket) -> bool {
        self.receivers.is_promised(ticket)
    }

    /// Takes the oldest item; the holder of a ticket takes the one it was promised.
    pub fn receive(&mut self, turn: Option<Ticket>) -> Taken<T> {
        match self.receive_placed(turn) {
            Taken::Item((item, _)) => Taken::Item(item),
            Taken::Empty => Taken::Empty,
            Taken::Ended => Taken::Ended,
        }
    }

    /// The same, for who may have to put the item back.
    pub fn receive_placed(&mut self, turn: Option<Ticket>) -> Taken<(T, Place)> {
        match self.claim(turn, 1) {
            Taken::Item(_) => {
                let taken = self.take_next();
                self.call();
                taken.map_or(Taken::Empty, Taken::Item)
            }
            Taken::Empty => Taken::Empty,
            Taken::Ended => Taken::Ended,
        }
    }

    /// Takes the oldest items, as many as there are, but at most `most`.
    pub fn receive_many(&mut self, turn: Option<Ticket>, most: usize) -> Taken<Vec<T>> {
        self.receive_many_placed(turn, most, |_| ())
    }

    /// The same, for who may have to put them back: told the place of each.
    pub fn receive_many_placed(
        &mut self,
        turn: Option<Ticket>,
        most: usize,
        mut told: impl FnMut(Place),
    ) -> Taken<Vec<T>> {
        match self.claim(turn, most) {
            Taken::Item(count) => {
                let mut items = Vec::with_capacity(count);
                while items.len() < count
                    && let Some((item, place)) = self.take_next()
                {
                    items.push(item);
                    told(place);
                }
                self.call();
                Taken::Item(items)
            }
            Taken::Empty => Taken::Empty,
            Taken::Ended => Taken::Ended,
        }
    }

    /// Puts an item that was received back where it was taken from, in front of its lane.
    pub fn put_back(&mut self, item: T, place: Place) {
        let arrived = self.aging.map(|_| place.arrived);
        let lane = self.lane(place.lane);
        self.lanes[lane].put_back(item, arrived);
        self.depth += 1;
        self.received -= 1;
        self.call();
    }

    /// Waits for room for so many items in a lane; called at once if there is some.
    pub fn join_senders(
        &mut self,
        lane: usize,
        ticket: Ticket,
        items: usize,
        waiter: W,
        now: Time,
    ) {
        let lane = self.lane(lane);
        self.lanes[lane].senders.join(ticket, items, waiter);
        self.blocked_since.get_or_insert(now);
        self.call();
    }

    /// Waits for an item; called at once if there is one, or none will come.
    pub fn join_receivers(&mut self, ticket: Ticket, waiter: W) {
        self.receivers.join(ticket, 1, waiter);
        self.call();
    }

    /// Gives up a place in line, or what was promised. A ticket that has been used is no matter.
    ///
    /// Returns the waiter, if it had not been called.
    pub fn leave(&mut self, ticket: Ticket, now: Time) -> Option<W> {
        let mut waiter = self.receivers.leave(ticket);
        for lane in &mut self.lanes {
            waiter = waiter.or_else(|| lane.senders.leave(ticket));
        }
        self.unblock(now);
        self.call();
        waiter
    }

    /// Lets nothing more in, because of `error` if there is one. The first end stands.
    pub fn close(&mut self, error: Option<E>, now: Time) -> Option<E> {
        let late = if self.is_closed() {
            error
        } else {
            self.end = error.map_or(End::Closed, End::Failed);
            None
        };
        self.call();
        self.unblock(now);
        late
    }

    /// Those to be woken: each once, and outside whatever guards the channel.
    pub fn take_called(&mut self) -> Vec<Called<W>> {
        std::mem::take(&mut self.called)
    }

    /// What the overflow rule has dropped: to be let go outside whatever guards the channel.
    pub fn take_gone(&mut self) -> Vec<T> {
        std::mem::take(&mut self.gone)
    }

    /// Lets go of everything inside and of everybody who waits: the end of the channel itself.
    pub fn clear(&mut self) -> (Vec<T>, Vec<W>) {
        let mut waiters = self.receivers.clear();
        let mut items = Vec::new();
        for lane in &mut self.lanes {
            waiters.extend(lane.senders.clear());
            items.extend(lane.take_all());
        }
        self.depth = 0;
        (items, waiters)
    }
}

#[cfg(test)]
mod tests;
