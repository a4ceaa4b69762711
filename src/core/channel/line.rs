//! Those who wait at a channel, in order of arrival, and what has been promised to those called.
//!
//! ```text
//!  join --> [ waits ] --call--> [ called, holds a promise ] --redeem--> gone
//!               |                            |
//!               +----------- leave ----------+
//! ```
//!
//! A promise is a number of places, or of items, that nobody else may take. It is no item: one who
//! is called and never comes, because it was cancelled, has lost nothing, and leaving frees what
//! it was promised for the next in line.

use std::collections::BTreeMap;

/// One who waits, or was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A line of waiters `W`, whatever it takes to call one.
///
/// Trees, because tickets are numbered in order of arrival, and whoever gives up may stand
/// anywhere: leaving must not cost more the longer the line is.
#[derive(Debug)]
pub(super) struct Line<W> {
    /// Those not called yet, with how much each wants.
    waiting: BTreeMap<Ticket, (usize, W)>,
    /// What was promised to those called.
    promises: BTreeMap<Ticket, usize>,
    /// The sum of `promises`.
    promised: usize,
}

impl<W> Line<W> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            promises: BTreeMap::new(),
            promised: 0,
        }
    }

    /// Goes to the end of the line: tickets are handed out in order.
    pub(super) fn join(&mut self, ticket: Ticket, wants: usize, waiter: W) {
        self.waiting.insert(ticket, (wants, waiter));
    }

    /// A promise without having waited.
    pub(super) fn promise(&mut self, ticket: Ticket, wants: usize) {
        self.promises.insert(ticket, wants);
        self.promised += wants;
    }

    /// Calls the first in line if what it wants is there beside what was promised to others.
    pub(super) fn call(&mut self, there: usize) -> Option<(Ticket, W)> {
        let (_, &(wants, _)) = self.waiting.first_key_value()?;
        if self.promised + wants > there {
            return None;
        }
        let (ticket, (wants, waiter)) = self.waiting.pop_first()?;
        self.promise(ticket, wants);
        Some((ticket, waiter))
    }

    /// Sends the first in line away without a promise.
    pub(super) fn dismiss(&mut self) -> Option<(Ticket, W)> {
        let (ticket, (_, waiter)) = self.waiting.pop_first()?;
        Some((ticket, waiter))
    }

    /// Gives a promise back; says whether there was one.
    pub(super) fn redeem(&mut self, ticket: Ticket) -> bool {
        match self.promises.remove(&ticket) {
            Some(promise) => {
                self.promised -= promise;
                true
            }
            None => false,
        }
    }

    /// Leaves the line, or gives the promise up; returns the waiter if it was not called yet.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<W> {
        self.redeem(ticket);
        self.waiting.remove(&ticket).map(|(_, waiter)| waiter)
    }

    /// Whether the holder of the ticket has been called.
    pub(super) fn is_promised(&self, ticket: Ticket) -> bool {
        self.promises.contains_key(&ticket)
    }

    /// How much nobody but those called may take.
    pub(super) const fn promised(&self) -> usize {
        self.promised
    }

    /// Whether someone was not called yet.
    pub(super) fn is_waited_in(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait, or were called and have not come yet.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.promises.len()
    }

    /// Those not called yet.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &W> {
        self.waiting.values().map(|(_, waiter)| waiter)
    }

    /// Empties the line; returns those not called yet.
    pub(super) fn clear(&mut self) -> Vec<W> {
        self.promises.clear();
        self.promised = 0;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().map(|(_, waiter)| waiter).collect()
    }
}
