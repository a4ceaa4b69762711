//! How items move through the lanes: into a queue or a window, out as units; and who holds up
//! whom meanwhile.

use super::unit::{Alarm, Timer};
use super::{Domain, Engine, Item, Port, Unit, Work};
use crate::branch::BranchId;
use crate::clock::Time;

impl<D: Domain> Engine<D> {
    /// Takes an item into a leg of a branch.
    ///
    /// It is always taken: the driver asks [`Engine::room`] before it takes anything from the
    /// source, so that what is in its hand when a branch fills up is the most a queue exceeds its
    /// limit by. An item that comes too late, after [`Engine::abort`] or [`Engine::discard`],
    /// counts as left.
    pub fn offer(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        let closed = leg < self.closed;
        if (closed && self.gives_up(leg)) || (self.aborted() && self.is_operator(leg)) {
            self.give_up_item(leg, branch, item, now);
            return;
        }
        self.load[leg] += 1;
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        match (&mut lane.window, &options.window) {
            (Some(window), Some(triggers)) if lane.queue.is_empty() && window.due().is_none() => {
                window.push(item, triggers, now);
                if window.due().is_none() && (window.armed || !triggers.timed()) && !closed {
                    window.settle(triggers);
                    return;
                }
            }
            _ => {
                lane.queue.push_back(item);
                if !lane.over && lane.queue.len() >= lane.limit {
                    lane.over = true;
                    self.over[leg] += 1;
                }
            }
        }
        if options.window.is_some() {
            self.refill(branch, leg, now);
        }
        self.list(branch, leg);
    }

    /// Takes items without a history into a leg, each into its branch: what [`Engine::offer`]
    /// does for one, and faster where an item changes nothing but how many there are.
    pub fn offer_plain(
        &mut self,
        leg: usize,
        items: impl IntoIterator<Item = (BranchId, D::Item)>,
        now: Time,
    ) {
        let mut taken = 0;
        let open = leg >= self.closed;
        for (branch, value) in items {
            let row = &mut self.branches[branch.index()];
            let lane = &mut row.lanes[leg - row.first];
            let value = match &mut lane.window {
                Some(window) => match window.push_easily(value) {
                    Ok(()) => {
                        taken += 1;
                        continue;
                    }
                    Err(value) => value,
                },
                // Behind others it changes nothing but the length.
                None if open && !lane.queue.is_empty() && lane.queue.len() + 1 < lane.limit => {
                    lane.queue.push_back(Item::new(value));
                    taken += 1;
                    continue;
                }
                None => value,
            };
            self.offer(leg, branch, Item::new(value), now);
        }
        self.load[leg] += taken;
    }

    /// The next piece of work for `port`, if there is one.
    pub fn next(&mut self, port: Port, now: Time) -> Option<Work<D>> {
        let Port(port) = port;
        if let Some(turn) = self.next_undo(port, now) {
            return Some(Work::Undo(turn));
        }
        if self.pauses() {
            return None;
        }
        if let Some(mut unit) = self.again[port].pop_front() {
            self.in_flight += 1;
            if self.config.legs[unit.leg].clocked() {
                self.begin_clocked(&mut unit, now);
            }
            self.branches[unit.branch.index()].counts.retried += 1;
            return Some(Work::Unit(unit));
        }
        while let Some((branch, leg)) = self.rings[port].pop_front() {
            if let Some(mut unit) = self.take(branch, leg, now) {
                self.in_flight += 1;
                if self.config.legs[leg].clocked() {
                    self.begin_clocked(&mut unit, now);
                }
                return Some(Work::Unit(unit));
            }
        }
        None
    }

    /// Whether no unit may be handed out now: all places are taken, or a failure has asked for
    /// a stop that the driver has not carried out yet.
    pub(super) fn pauses(&self) -> bool {
        self.in_flight >= self.config.max_in_flight || (self.stopping && !self.aborted())
    }

    /// Takes the next unit out of a lane that came up in its ring.
    fn take(&mut self, branch: BranchId, leg: usize, now: Time) -> Option<Unit<D>> {
        let held_back = self.held_back(branch, leg);
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        lane.listed = false;
        if held_back || !lane.dispatchable(options) {
            return None;
        }
        let unit = lane.take((branch, leg), options)?;
        row.outside += u64::from(unit.weight);
        if options.window.is_some() {
            self.refill(branch, leg, now);
        } else {
            self.ease(branch, leg);
        }
        self.list(branch, leg);
        Some(unit)
    }

    /// Whether a lane must wait because what it would feed is over its limit. A branch waits for
    /// its own lanes only, the trunk for all.
    pub(super) fn held_back(&self, branch: BranchId, leg: usize) -> bool {
        if branch == BranchId::TRUNK {
            self.over[leg + 1..].iter().any(|over| *over > 0)
        } else {
            let row = &self.branches[branch.index()];
            row.lanes[leg + 1 - row.first..]
                .iter()
                .any(|lane| lane.over)
        }
    }

    /// Puts a lane with something to hand out into its ring, once.
    pub(super) fn list(&mut self, branch: BranchId, leg: usize) {
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        if !lane.listed && lane.dispatchable(options) {
            lane.listed = true;
            let Port(port) = options.port;
            self.rings[port].push_back((branch, leg));
        }
    }

    /// Sets the timer of a window that needs one and has none.
    fn arm(&mut self, branch: BranchId, leg: usize) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        if let (Some(window), Some(triggers)) = (&mut lane.window, &self.config.legs[leg].window)
            && !window.armed
            && let Some((at, _)) = window.deadline(triggers)
        {
            window.armed = true;
            self.sequence += 1;
            let alarm = Alarm::Window(branch, leg);
            self.timers.push(Timer {
                at,
                order: self.sequence,
                alarm,
            });
        }
    }

    /// Cuts as many windows as fit from what is queued, and the last one if no item can come.
    pub(super) fn refill(&mut self, branch: BranchId, leg: usize, now: Time) {
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let lane = &mut row.lanes[leg - first];
        row.counts.windows += lane.fill((branch, leg), options, now);
        if leg < self.closed && lane.queue.is_empty() {
            self.close_window(branch, leg, now);
        }
        self.ease(branch, leg);
        self.arm(branch, leg);
        let lane = &mut self.branches[branch.index()].lanes[leg - first];
        if let (Some(window), Some(triggers)) = (&mut lane.window, &self.config.legs[leg].window) {
            window.settle(triggers);
        }
    }

    /// Lets the feed of a lane go on once its queue is down to half of its capacity.
    pub(super) fn ease(&mut self, branch: BranchId, leg: usize) {
        let row = &mut self.branches[branch.index()];
        let (first, lane) = (row.first, &mut row.lanes[leg - row.first]);
        if !lane.over || lane.queue.len() > lane.capacity / 2 {
            return;
        }
        lane.over = false;
        self.over[leg] -= 1;
        for earlier in first..leg {
            self.list(branch, earlier);
        }
        if self.over[leg] == 0 {
            // The trunk passes operators behind the fan-out, too.
            for earlier in 0..leg.min(self.branches[0].lanes.len()) {
                self.list(BranchId::TRUNK, earlier);
            }
        }
    }

    /// The timer of a window has gone off.
    pub(super) fn window_due(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        if let (Some(window), Some(triggers)) = (&mut lane.window, &self.config.legs[leg].window) {
            window.armed = false;
            window.expire(triggers, now);
            self.refill(branch, leg, now);
            self.list(branch, leg);
        }
    }

    /// A unit has ended: its lane may hand out another one.
    pub(super) fn release(&mut self, branch: BranchId, leg: usize, entries: u64) {
        self.load[leg] -= entries;
        let row = &mut self.branches[branch.index()];
        row.lanes[leg - row.first].in_flight -= 1;
        self.list(branch, leg);
    }
}
