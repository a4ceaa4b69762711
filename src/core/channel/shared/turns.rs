//! Whose turn it is: which lane is read next, and who is called.

use super::{Called, Place, Shared, Taken, Ticket};
use crate::clock::Time;

impl<T, E, W> Shared<T, E, W> {
    /// The lane that is meant: the last one for all beyond it.
    pub(super) fn lane(&self, lane: usize) -> usize {
        lane.min(self.lanes.len() - 1)
    }

    /// Whether somebody waits for room in a lane.
    pub(super) fn is_taken(&self, lane: usize) -> bool {
        self.lanes[lane].senders.is_waited_in()
    }

    pub(super) fn put(&mut self, lane: usize, items: impl Iterator<Item = T>, now: Time) {
        let arrived = self.aging.map(|_| now);
        for item in items {
            // What does not go in would be lost: it is counted and handed over like a dropped one.
            self.sent += 1;
            match self.lanes[lane].put(item, arrived) {
                Ok(()) => self.depth += 1,
                Err(refused) => {
                    self.gone.push(refused.into_value());
                    self.dropped += 1;
                }
            }
        }
    }

    /// The lane whose turn it is.
    pub(super) fn next_lane(&self) -> Option<usize> {
        match self.aging {
            None => self.lanes.iter().position(|it| it.len() > 0),
            Some(aging) => (0u32..)
                .zip(&self.lanes)
                .enumerate()
                .filter_map(|(at, (lane, it))| Some((it.due(lane, aging)?, at)))
                .min()
                .map(|(_, at)| at),
        }
    }

    pub(super) fn take_next(&mut self) -> Option<(T, Place)> {
        let lane = self.next_lane()?;
        let (item, arrived) = self.lanes[lane].take()?;
        self.depth -= 1;
        Some((item, Place { lane, arrived }))
    }

    /// How many items the caller may take now.
    pub(super) fn claim(&mut self, turn: Option<Ticket>, most: usize) -> Taken<usize> {
        if let Some(ticket) = turn {
            self.receivers.redeem(ticket);
        }
        let free = self.depth.saturating_sub(self.receivers.promised());
        if free > 0 {
            let count = free.min(most.max(1));
            self.received += count as u64;
            Taken::Item(count)
        } else if self.is_ended() {
            Taken::Ended
        } else {
            Taken::Empty
        }
    }

    /// Calls those whose turn it is.
    pub(super) fn call(&mut self) {
        if self.receivers.is_waited_in() {
            self.call_receivers();
        }
        for lane in 0..self.lanes.len() {
            if self.is_taken(lane) {
                self.call_senders(lane);
            }
        }
    }

    pub(super) fn call_receivers(&mut self) {
        while let Some((ticket, waiter)) = self.receivers.call(self.depth) {
            self.called.push(Called { ticket, waiter });
        }
        // Not before the last item is gone: whoever was promised it may yet give it up.
        if self.is_ended() {
            while let Some((ticket, waiter)) = self.receivers.dismiss() {
                self.called.push(Called { ticket, waiter });
            }
        }
    }

    pub(super) fn call_senders(&mut self, lane: usize) {
        let closed = self.is_closed();
        let lane = &mut self.lanes[lane];
        if closed {
            while let Some((ticket, waiter)) = lane.senders.dismiss() {
                self.called.push(Called { ticket, waiter });
            }
            return;
        }
        while let Some((ticket, waiter)) = lane.senders.call(lane.room()) {
            self.called.push(Called { ticket, waiter });
        }
    }

    /// Stops the clock of the blocked time once the last sender who waited is gone.
    pub(super) fn unblock(&mut self, now: Time) {
        if self.lanes.iter().all(|it| it.senders.len() == 0)
            && let Some(since) = self.blocked_since.take()
        {
            self.blocked += now.since(since);
        }
    }
}
