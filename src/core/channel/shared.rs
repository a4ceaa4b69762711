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

use std::time::Duration;

use super::line::{Line, Ticket};
use super::{Channel, Refused, Taken};
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
/// assert!(channel.send(std::iter::once('a')).is_ok());
/// assert!(matches!(channel.send(std::iter::once('b')), Err(Refused::Full(_))));
///
/// let ticket = channel.ticket();
/// channel.join_senders(ticket, 1, "the second sender", Time::ZERO);
/// assert_eq!(channel.receive(None), Taken::Item('a'));
/// assert_eq!(channel.take_called()[0].waiter, "the second sender");
/// // It is its turn now, and nobody's else.
/// assert!(matches!(channel.send(std::iter::once('c')), Err(Refused::Full(_))));
/// assert!(channel.send_in_turn(ticket, std::iter::once('b'), Time::ZERO).is_ok());
/// ```
#[derive(Debug)]
pub struct Shared<T, E, W> {
    channel: Channel<T, E>,
    on_full: OnFull,
    senders: Line<W>,
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
    pub const fn new(capacity: usize, on_full: OnFull) -> Self {
        Self {
            channel: Channel::new(capacity),
            on_full,
            senders: Line::new(),
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

    /// Sends `items` as the overflow rule has it.
    ///
    /// # Errors
    /// [`Refused`], with all of the items, when the channel is closed, or when they would have to
    /// wait or to fail.
    pub fn send<I: ExactSizeIterator<Item = T>>(&mut self, items: I) -> Result<(), Refused<I>> {
        if self.channel.is_closed() {
            return Err(Refused::Closed(items));
        }
        match self.on_full {
            OnFull::Wait | OnFull::Fail => {
                if self.senders.is_waited_in() || items.len() > self.free_room() {
                    return Err(Refused::Full(items));
                }
                self.put(items);
            }
            OnFull::DropNewest => {
                let mut items = items;
                let fit = items.len().min(self.free_room());
                self.put(items.by_ref().take(fit));
                let before = self.gone.len();
                self.gone.extend(items);
                let late = (self.gone.len() - before) as u64;
                self.sent += late;
                self.dropped += late;
            }
            OnFull::DropOldest => {
                for item in items {
                    if self.channel.room() == 0
                        && let Taken::Item(oldest) = self.channel.take()
                    {
                        self.gone.push(oldest);
                        self.dropped += 1;
                    }
                    self.put(std::iter::once(item));
                }
            }
        }
        self.call();
        Ok(())
    }

    /// Sends `items`, for whose number the holder of `ticket` was promised room.
    ///
    /// # Errors
    /// [`Refused`], with all of the items: the channel is closed, or it is not its turn.
    pub fn send_in_turn<I: ExactSizeIterator<Item = T>>(
        &mut self,
        ticket: Ticket,
        items: I,
        now: Time,
    ) -> Result<(), Refused<I>> {
        if self.channel.is_closed() {
            self.leave(ticket, now);
            return Err(Refused::Closed(items));
        }
        if !self.senders.redeem(ticket) {
            return Err(Refused::Full(items));
        }
        self.put(items);
        self.unblock(now);
        self.call();
        Ok(())
    }

    /// Promises room, if nobody waits for it and there is some: for how many items, at most `most`.
    ///
    /// # Errors
    /// [`Refused`], when there is none, or the channel is closed.
    pub fn reserve(&mut self, most: usize) -> Result<(Ticket, usize), Refused<()>> {
        if self.channel.is_closed() {
            return Err(Refused::Closed(()));
        }
        let items = most.min(self.free_room());
        if self.senders.is_waited_in() || items == 0 {
            return Err(Refused::Full(()));
        }
        let ticket = self.ticket();
        self.senders.promise(ticket, items);
        Ok((ticket, items))
    }

    /// Whether a sender who waits has been called, or need not wait any more.
    pub fn is_called(&self, ticket: Ticket) -> bool {
        self.channel.is_closed() || self.senders.is_promised(ticket)
    }

    /// Takes the oldest item; the holder of a ticket takes the one it was promised.
    pub fn receive(&mut self, turn: Option<Ticket>) -> Taken<T> {
        match self.claim(turn, 1) {
            Taken::Item(_) => {
                let taken = self.channel.take();
                self.call();
                taken
            }
            Taken::Empty => Taken::Empty,
            Taken::Ended => Taken::Ended,
        }
    }

    /// Takes the oldest items, as many as there are, but at most `most`.
    pub fn receive_many(&mut self, turn: Option<Ticket>, most: usize) -> Taken<Vec<T>> {
        match self.claim(turn, most) {
            Taken::Item(count) => {
                let mut items = Vec::with_capacity(count);
                while items.len() < count
                    && let Taken::Item(item) = self.channel.take()
                {
                    items.push(item);
                }
                self.call();
                Taken::Item(items)
            }
            Taken::Empty => Taken::Empty,
            Taken::Ended => Taken::Ended,
        }
    }

    /// Waits for room for so many items; called at once if there is some.
    pub fn join_senders(&mut self, ticket: Ticket, items: usize, waiter: W, now: Time) {
        self.senders.join(ticket, items, waiter);
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
        let waiter = self.senders.leave(ticket);
        let waiter = waiter.or_else(|| self.receivers.leave(ticket));
        self.unblock(now);
        self.call();
        waiter
    }

    /// Lets nothing more in, because of `error` if there is one. The first end stands.
    pub fn close(&mut self, error: Option<E>, now: Time) -> Option<E> {
        let late = if self.channel.is_closed() {
            error
        } else {
            match error {
                Some(error) => self.channel.fail(error),
                None => self.channel.close(),
            }
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

    /// The error it was closed with.
    pub const fn failure(&self) -> Option<&E> {
        self.channel.failure()
    }

    /// Whether nothing more is let in.
    pub const fn is_closed(&self) -> bool {
        self.channel.is_closed()
    }

    /// The most items it holds.
    pub const fn capacity(&self) -> usize {
        self.channel.capacity()
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
            depth: self.channel.len(),
            blocked: self.blocked + waiting.unwrap_or_default(),
            senders: self.senders.len(),
            receivers: self.receivers.len(),
        }
    }

    /// The items inside, oldest first.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.channel.iter()
    }

    /// Those who wait on either side and were not called.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        self.senders.waiters().chain(self.receivers.waiters())
    }

    /// Lets go of everything inside and of everybody who waits: the end of the channel itself.
    pub fn clear(&mut self) -> (Vec<T>, Vec<W>) {
        let mut waiters = self.senders.clear();
        waiters.extend(self.receivers.clear());
        (self.channel.take_all(), waiters)
    }

    const fn free_room(&self) -> usize {
        self.channel.room().saturating_sub(self.senders.promised())
    }

    fn put(&mut self, items: impl Iterator<Item = T>) {
        for item in items {
            // What does not go in would be lost: it is counted and handed over like a dropped one.
            self.sent += 1;
            if let Err(refused) = self.channel.offer(item, 1) {
                self.gone.push(refused.into_value());
                self.dropped += 1;
            }
        }
    }

    /// How many items the caller may take now.
    fn claim(&mut self, turn: Option<Ticket>, most: usize) -> Taken<usize> {
        if let Some(ticket) = turn {
            self.receivers.redeem(ticket);
        }
        let free = self.channel.len().saturating_sub(self.receivers.promised());
        if free > 0 {
            let count = free.min(most.max(1));
            self.received += count as u64;
            Taken::Item(count)
        } else if self.channel.is_closed() && self.channel.is_empty() {
            Taken::Ended
        } else {
            Taken::Empty
        }
    }

    /// Calls those whose turn it is.
    fn call(&mut self) {
        if self.receivers.is_waited_in() {
            self.call_receivers();
        }
        if self.senders.is_waited_in() {
            self.call_senders();
        }
    }

    fn call_receivers(&mut self) {
        while let Some((ticket, waiter)) = self.receivers.call(self.channel.len()) {
            self.called.push(Called { ticket, waiter });
        }
        // Not before the last item is gone: whoever was promised it may yet give it up.
        if self.channel.is_closed() && self.channel.is_empty() {
            while let Some((ticket, waiter)) = self.receivers.dismiss() {
                self.called.push(Called { ticket, waiter });
            }
        }
    }

    fn call_senders(&mut self) {
        if self.channel.is_closed() {
            while let Some((ticket, waiter)) = self.senders.dismiss() {
                self.called.push(Called { ticket, waiter });
            }
            return;
        }
        while let Some((ticket, waiter)) = self.senders.call(self.channel.room()) {
            self.called.push(Called { ticket, waiter });
        }
    }

    /// Stops the clock of the blocked time once the last sender who waited is gone.
    fn unblock(&mut self, now: Time) {
        if self.senders.len() == 0
            && let Some(since) = self.blocked_since.take()
        {
            self.blocked += now.since(since);
        }
    }
}

#[cfg(test)]
mod tests;
