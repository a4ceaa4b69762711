//! How items move through the lanes: into a queue or a window, out as units; and who holds up
//! whom meanwhile.
//!
//! Lanes with something to hand out take turns in a ring, one unit a turn, or as many as their
//! branch's weight says: a tenant with a thousand items waiting is served as often as one with a
//! single item, which waits for one turn of each of the others at most. It is the deficit round
//! robin of Shreedhar and Varghese (1995), with units for bytes: no unit is larger than a turn, so
//! nothing is carried over from one to the next.

use super::unit::{Alarm, Timer};
use super::{Domain, Engine, Item, Port, Unit, Work};
use crate::branch::{BranchId, State};
use crate::clock::Time;

impl<D: Domain> Engine<D> {
    /// Takes an item into a leg of a branch.
    ///
    /// It is always taken: the driver asks [`Engine::room`] before it takes anything from the
    /// source, so that what is in its hand when a branch fills up is the most a queue exceeds its
    /// limit by. An item that comes too late, after [`Engine::abort`] or [`Engine::discard`],
    /// counts as left.
    pub fn offer(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        let closed = self.closed[leg];
        if (closed && self.gives_up(leg)) || (self.aborted() && self.is_operator(leg)) {
            self.give_up_item(leg, branch, item, now);
            return;
        }
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        if row.lanes.is_empty() && self.is_operator(leg) {
            // Its own lanes are gone: those of the trunk take what still fails.
            self.offer(leg, BranchId::TRUNK, item, now);
            return;
        }
        let row = &mut self.branches[branch.index()];
        if !row.life.state.admits() && self.turns_away(leg, branch) {
            self.turn_away(leg, branch, item, now);
            return;
        }
        if options.heartbeat.is_some() {
            self.heard(leg, branch, now);
        }
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let closed = closed || leg < row.shut;
        let lane = &mut row.lanes[leg - row.first];
        let windowed = options.window.is_some();
        if let (Some(window), Some(triggers)) = (&mut lane.window, &options.window)
            && lane.queue.is_empty()
            && window.due().is_none()
            && lane.bucket.as_mut().is_none_or(|bucket| bucket.take(now))
        {
            self.load[leg] += 1;
            window.push(item, triggers, now);
            if window.due().is_none() && (window.armed || !triggers.timed()) && !closed {
                window.settle(triggers, lane.bucket.is_some());
                return;
            }
        } else if lane.queue.len() >= lane.limit && lane.turns_down() {
            self.turn_down(leg, branch, item, now);
            return;
        } else {
            self.load[leg] += 1;
            lane.queue.push_back(item);
            if !lane.over && lane.queue.len() >= lane.limit {
                self.hold_up(branch, leg, now);
            }
        }
        if windowed {
            self.refill(branch, leg, now);
        }
        self.list(branch, leg);
    }

    /// Takes what an operator has made of a failure into a leg behind it: if it is not let in, only
    /// operators behind that one are asked.
    pub fn offer_recovered(
        &mut self,
        operator: usize,
        leg: usize,
        branch: BranchId,
        item: Item<D>,
        now: Time,
    ) {
        self.ways.past = operator + 1;
        self.offer(leg, branch, item, now);
        self.ways.past = 0;
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
        let open = !self.closed[leg];
        let beats = self.config.legs[leg].heartbeat.is_some();
        for (branch, value) in items {
            if beats {
                self.offer(leg, branch, Item::new(value), now);
                continue;
            }
            let row = &mut self.branches[branch.index()];
            let Some(lane) = row.lanes.get_mut(leg - row.first) else {
                // The branch is over: it comes back for the item, or refuses it.
                self.offer(leg, branch, Item::new(value), now);
                continue;
            };
            let value = match &mut lane.window {
                Some(window) => match window.push_easily(value) {
                    Ok(()) => {
                        taken += 1;
                        continue;
                    }
                    Err(value) => {
                        if window.is_easy()
                            && let Some(bucket) = &mut lane.bucket
                            && bucket.take(now)
                        {
                            window.push_throttled(value);
                            taken += 1;
                            continue;
                        }
                        value
                    }
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
            unit.began = now;
            self.gauges.legs[unit.leg].retried += 1;
            if self.config.legs[unit.leg].clocked() {
                self.begin_clocked(&mut unit, now);
            }
            self.branches[unit.branch.index()].counts.retried += 1;
            return Some(Work::Unit(unit));
        }
        while let Some((branch, leg)) = self.rings[port].pop_front() {
            if let Some(mut unit) = self.take(branch, leg, now) {
                self.in_flight += 1;
                unit.began = now;
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
        // A branch may have ended since it was listed.
        let lane = row.lanes.get_mut(leg - row.first)?;
        lane.listed = false;
        if held_back || !lane.dispatchable(options) {
            return None;
        }
        if lane.window.is_none()
            && let Some(bucket) = &mut lane.bucket
            && !bucket.take(now)
        {
            lane.dry = true;
            self.arm(branch, leg);
            return None;
        }
        let unit = lane.take((branch, leg), options)?;
        row.outside += u64::from(unit.weight);
        if options.window.is_some() {
            self.refill(branch, leg, now);
        } else {
            self.ease(branch, leg, now);
        }
        self.list(branch, leg);
        Some(unit)
    }

    /// Whether a lane must wait because what it would feed is over its limit, or because its
    /// branch holds its units back. A branch waits for its own lanes only, the trunk for all.
    pub(super) fn held_back(&self, branch: BranchId, leg: usize) -> bool {
        if branch == BranchId::TRUNK {
            let over = |behind: usize| self.over[behind] > 0;
            self.ways.behind(leg).any(over)
        } else {
            let row = &self.branches[branch.index()];
            if row.life.state.holds() && !self.aborted() && !self.is_operator(leg) {
                return true;
            }
            // What waits for the next generation waits in front of the entry, which nothing in this
            // one goes to any more: if it held back an operator, neither would end.
            let closed = matches!(row.life.state, State::Draining | State::Evicted);
            let closed = closed.then_some(row.entry);
            let over = |at: usize| row.lanes.get(at - row.first).is_some_and(|lane| lane.over);
            self.ways
                .behind(leg)
                .any(|at| over(at) && closed != Some(at))
        }
    }

    /// Puts a lane with something to hand out into its ring, once.
    pub(super) fn list(&mut self, branch: BranchId, leg: usize) {
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        if !lane.listed && lane.dispatchable(options) {
            lane.listed = true;
            let Port(port) = options.port;
            if lane.keeps_its_turn() {
                self.rings[port].push_front((branch, leg));
            } else {
                lane.turn = 0;
                self.rings[port].push_back((branch, leg));
            }
        }
    }

    /// Sets the timer of a window that needs one and has none, and that of an empty bucket.
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
        if let Some(bucket) = &lane.bucket
            && lane.dry
            && !lane.timed
        {
            lane.timed = true;
            self.sequence += 1;
            self.timers.push(Timer {
                at: bucket.ready_at(),
                order: self.sequence,
                alarm: Alarm::Throttle(branch, leg),
            });
        }
    }

    /// Cuts as many windows as fit from what is queued, and the last one if no item can come.
    pub(super) fn refill(&mut self, branch: BranchId, leg: usize, now: Time) {
        let options = &self.config.legs[leg];
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let shut = leg < row.shut;
        let Some(lane) = row.lanes.get_mut(leg - first) else {
            return;
        };
        row.counts.windows += lane.fill((branch, leg), options, now);
        if (shut || self.closed[leg]) && lane.queue.is_empty() {
            self.close_window(branch, leg, now);
        }
        self.ease(branch, leg, now);
        self.arm(branch, leg);
        let row = &mut self.branches[branch.index()];
        let admits = row.life.state.admits();
        let lane = &mut row.lanes[leg - first];
        if let (Some(window), Some(triggers)) = (&mut lane.window, &self.config.legs[leg].window) {
            let throttled = lane.bucket.is_some();
            if admits && (!throttled || lane.queue.is_empty()) {
                window.settle(triggers, throttled);
            } else {
                window.unsettle();
            }
        }
    }

    /// Lets the feed of a lane go on once its queue is down to half of its capacity.
    pub(super) fn ease(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &self.branches[branch.index()];
        let lane = &row.lanes[leg - row.first];
        if !lane.over {
            return;
        }
        // What waits for the next generation waits in front of the first lane.
        let next = if leg == row.entry {
            row.life.next().len()
        } else {
            0
        };
        if lane.queue.len() + next <= lane.capacity / 2 {
            self.let_on(branch, leg, now);
        }
    }

    /// The timer of a window has gone off.
    pub(super) fn window_due(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        // A branch may have ended since the timer was set.
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        if let (Some(window), Some(triggers)) = (&mut lane.window, &self.config.legs[leg].window) {
            window.armed = false;
            window.expire(triggers, now);
            self.refill(branch, leg, now);
            self.list(branch, leg);
        }
    }

    /// An empty bucket may have a token.
    pub(super) fn throttle_due(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        lane.timed = false;
        lane.dry = false;
        if lane.window.is_some() {
            self.refill(branch, leg, now);
        }
        self.list(branch, leg);
    }

    /// A unit has ended: its lane may hand out another one.
    pub(super) fn release(&mut self, branch: BranchId, leg: usize, entries: u64, now: Time) {
        self.load[leg] -= entries;
        self.gauges.legs[leg].passed += entries;
        self.watch_idle(branch, now);
        let row = &mut self.branches[branch.index()];
        row.lanes[leg - row.first].in_flight -= 1;
        self.list(branch, leg);
    }
}
