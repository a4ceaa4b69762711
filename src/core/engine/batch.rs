//! Batches: items of one lane that one handler works on one after the other.
//!
//! Where a branch has one unit in flight at a time, its next items wait for the same handler
//! anyway: they are handed out together, which costs one round trip instead of one for each. Each
//! item is still a unit of its own: it succeeds, fails and is tried again by itself. Items with a
//! history, and those of legs with windows, more units in flight or attempts that are clocked, are
//! handed out by [`Engine::next`].
//!
//! While other lanes wait, a batch is no longer than [`TURN`] items for each unit that is left of
//! its branch's turn.
//!
//! Where nothing stands between the source and such a handler, a batch need not even be queued:
//! it is taken **straight** from the source into the worker's hand.

use super::streaks::Place;
use super::{Domain, Engine, Item, Port, Unit, Why};
use crate::branch::{BranchId, State};
use crate::clock::Time;

/// Items of a batch that others wait for, in a branch of weight 1. With a handler that returns at
/// once a batch costs as much as two items: less would be felt.
const TURN: usize = 64;

/// Items of one lane, in order.
#[derive(Debug)]
pub struct Batch<D: Domain> {
    /// Whose they are.
    pub branch: BranchId,
    /// Which leg's handler they are for.
    pub leg: usize,
    /// The items; at least one.
    pub values: Vec<D::Item>,
}

impl<D: Domain> Engine<D> {
    /// The next batch for `port`, of at most `most` items; `None` if there is none, or if
    /// [`Engine::next`] has something that comes first.
    pub fn next_batch(&mut self, Port(port): Port, most: usize, now: Time) -> Option<Batch<D>> {
        if self.pauses() || !self.undos[port].is_empty() || !self.again[port].is_empty() {
            return None;
        }
        let &(branch, leg) = self.rings[port].front()?;
        let held_back = self.held_back(branch, leg);
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let lane = row.lanes.get_mut(leg - row.first)?;
        if held_back
            || lane.bucket.is_some()
            || options.concurrency != 1
            || options.window.is_some()
            || options.clocked()
            || !lane.dispatchable(options)
        {
            return None;
        }
        let most = if self.rings[port].len() > 1 {
            most.min(TURN * usize::from(lane.weight - lane.turn))
        } else {
            most
        };
        let plain = lane
            .queue
            .iter()
            .take(most)
            .take_while(|item| item.is_plain())
            .count();
        if plain == 0 {
            return None;
        }
        self.rings[port].pop_front();
        lane.listed = false;
        lane.in_flight += 1;
        let values: Vec<_> = lane.queue.drain(..plain).map(|item| item.value).collect();
        row.outside += values.len() as u64;
        self.in_flight += 1;
        self.ease(branch, leg, now);
        Some(Batch {
            branch,
            leg,
            values,
        })
    }

    /// Whether the worker of the first leg may take its next batch straight from the source: there
    /// is one worker at a time, nothing waits before it, and nothing comes first.
    pub fn straight(&self) -> bool {
        let options = &self.config.legs[0];
        let Port(port) = options.port;
        // The trunk has lanes behind the fan-out, too, where failures have operators.
        let Some(lane) = self.branches[0]
            .lanes
            .first()
            .filter(|_| self.config.fan_leg > 0)
        else {
            return false;
        };
        options.concurrency == 1
            && options.window.is_none()
            && lane.bucket.is_none()
            && !options.clocked()
            && lane.in_flight == 0
            && lane.queue.is_empty()
            && self.undos[port].is_empty()
            && self.again[port].is_empty()
            && !self.pauses()
            && self.room() > 0
    }

    /// So many items have been taken straight from the source, where [`Engine::straight`] allows
    /// it: they are a batch of the trunk's first leg from now on.
    pub fn lend(&mut self, items: usize) {
        let trunk = &mut self.branches[0];
        trunk.counts.received += items as u64;
        trunk.outside += items as u64;
        trunk.lanes[0].in_flight += 1;
        self.load[0] += items as u64;
        self.in_flight += 1;
    }

    /// All items of a batch have been handled, `filtered` of them by being taken out on purpose.
    pub fn complete_batch(
        &mut self,
        branch: BranchId,
        leg: usize,
        (items, filtered): (usize, usize),
        now: Time,
    ) {
        self.in_flight -= 1;
        self.handled(branch, leg, (items, filtered));
        let row = &mut self.branches[branch.index()];
        let units = u16::try_from(items.div_ceil(TURN)).unwrap_or(u16::MAX);
        row.lanes[leg - row.first].use_turn(units);
        self.release(branch, leg, items as u64, now);
    }

    /// A batch ends early: so many items have been handled, `filtered` of them by being taken out,
    /// `current` is still in hand, and none of `rest` has been begun.
    ///
    /// Returns the item in hand as a unit, to be given back through [`Engine::complete`]. The rest
    /// goes back to the head of its queue, or is left if the run was aborted.
    pub fn break_batch(
        &mut self,
        branch: BranchId,
        leg: usize,
        (handled, filtered): (usize, usize),
        current: D::Item,
        rest: Vec<D::Item>,
        now: Time,
    ) -> Unit<D> {
        self.handled(branch, leg, (handled, filtered));
        self.load[leg] -= handled as u64;
        self.gauges.legs[leg].passed += handled as u64;
        let aborted = self.aborted();
        let row = &mut self.branches[branch.index()];
        row.outside -= rest.len() as u64;
        if row.life.gives_up() {
            let why = match row.life.after {
                State::Removed => Why::Removed,
                _ => Why::Failed,
            };
            self.load[leg] -= rest.len() as u64;
            for value in rest {
                self.refuse_item(leg, branch, Item::new(value), why);
            }
        } else if aborted {
            self.load[leg] -= rest.len() as u64;
            for value in rest {
                self.leave(branch, Item::new(value), now);
            }
        } else {
            let lane = &mut row.lanes[leg - row.first];
            for value in rest.into_iter().rev() {
                lane.queue.push_front(Item::new(value));
            }
            // Its handler waits: one of its units is under way, as if it had been handed out alone.
            lane.use_turn(1);
        }
        Unit::of_item((branch, leg), Item::new(current))
    }

    fn handled(&mut self, branch: BranchId, leg: usize, (items, filtered): (usize, usize)) {
        if items > 0 {
            self.end_streak(branch, leg, Place::Handler);
        }
        let row = &mut self.branches[branch.index()];
        row.outside -= items as u64;
        row.counts.committed += (items - filtered) as u64;
        row.counts.filtered += filtered as u64;
    }
}

impl<D: Domain> Item<D> {
    /// Whether the item is nothing but its value.
    fn is_plain(&self) -> bool {
        self.scope.is_none() && self.weight == 1 && !self.origin.is_known()
    }
}
