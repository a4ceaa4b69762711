//! The end of a run: the source is dry, the pipeline is drained, or it is aborted.

use super::rollback::Then;
use super::unit::Alarm;
use super::{Domain, Engine, Item, Unit};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::window::{Partial, Reason};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Running,
    /// The source is dry; what is inside is finished.
    Ending,
    /// The source was stopped or has failed; what is inside is finished.
    Draining,
    /// What no handler had begun has been given up.
    Aborted,
    /// What handlers had begun goes no further, either.
    Discarding,
}

impl<D: Domain> Engine<D> {
    /// The source has no more items: whole windows leave first, then the partial ones.
    pub fn end(&mut self, now: Time) {
        self.advance_to(Phase::Ending, now);
    }

    /// The source was stopped, or has failed: like [`Engine::end`], but partial windows leave or
    /// are dropped by their policy (they leave by default).
    pub fn drain(&mut self, now: Time) {
        self.advance_to(Phase::Draining, now);
    }

    /// Gives up what no handler has begun. Partial windows leave or are dropped by their policy
    /// (dropped by default); windows that have left stay to be handed out, see
    /// [`Engine::discard`]; units in back-off fail as cancelled; what waiting items did
    /// upstream is undone. Units with a handler are the driver's to cancel; what those that
    /// succeed pass on goes its way, but for partial windows.
    pub fn abort(&mut self, now: Time) {
        if self.phase < Phase::Aborted {
            self.phase = Phase::Aborted;
            self.give_up(now);
            self.close_legs(now);
        }
    }

    /// Aborts, and gives up the windows that no handler has begun, too, and what units still
    /// under way pass on.
    pub fn discard(&mut self, now: Time) {
        if self.phase == Phase::Discarding {
            return;
        }
        self.phase = Phase::Discarding;
        self.closed.fill(true);
        self.give_up(now);
        for leg in 0..self.config.legs.len() {
            for branch in self.passing(leg) {
                let row = &mut self.branches[branch.index()];
                let lane = row.lanes.get_mut(leg - row.first);
                for unit in lane
                    .map(|lane| std::mem::take(&mut lane.cut))
                    .unwrap_or_default()
                {
                    self.leave_unit(unit, now);
                }
            }
        }
    }

    /// Whether all that went in has ended and all that had to be undone is. What ends last may
    /// let a leg close: the driver calls [`Engine::poll`] before it asks.
    pub fn finished(&self) -> bool {
        self.at_rest() && !self.has_whole()
    }

    /// Whether no item is inside, and no rollback is under way.
    pub(super) fn at_rest(&self) -> bool {
        self.phase != Phase::Running
            && self.closed.iter().all(|closed| *closed)
            && self.load.iter().all(|load| *load == 0)
            && self.arrivals.iter().all(Vec::is_empty)
            && self.refused.is_empty()
            && self.rollbacks.is_empty()
            && self.ways.is_empty()
            && self.watch.is_empty()
    }

    /// Whether the run was aborted.
    pub fn aborted(&self) -> bool {
        self.phase >= Phase::Aborted
    }

    /// Whether an item that comes to `leg` now comes too late.
    pub(super) fn gives_up(&self, leg: usize) -> bool {
        self.phase == Phase::Discarding
            || (self.phase == Phase::Aborted && leg == self.ways.entry())
    }

    /// Counts an item as left, and undoes what it did.
    pub fn leave(&mut self, branch: BranchId, item: Item<D>, now: Time) {
        self.branches[branch.index()].counts.left += u64::from(item.weight);
        self.graveyard.items.push(item.value);
        self.undo(branch, item.scope, Then::Nothing, now);
    }

    /// Lets the last window of a lane leave, or drops it: no item can come any more. A window
    /// that is due leaves by itself as soon as there is room for it.
    pub(super) fn close_window(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &self.branches[branch.index()];
        let lane = &row.lanes[leg - row.first];
        if lane
            .window
            .as_ref()
            .is_some_and(|window| window.due().is_none())
            && lane.has_room()
        {
            self.empty_window(branch, leg, now);
        }
    }

    /// Lets a window leave now, or drops it if it is partial and its policy says so.
    fn empty_window(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        let (Some(window), Some(options)) = (&mut lane.window, &self.config.legs[leg].window)
        else {
            return;
        };
        if window.is_empty() {
            return;
        }
        let policy = match self.phase {
            Phase::Running | Phase::Ending => Partial::Flush,
            Phase::Draining => options.on_cancel.unwrap_or(Partial::Flush),
            Phase::Aborted | Phase::Discarding => options.on_cancel.unwrap_or(Partial::Drop),
        };
        let due = window.due();
        let contents = window.cut(due.unwrap_or(Reason::Close), now);
        if due.is_some() || policy == Partial::Flush {
            row.counts.windows += 1;
            lane.left = Some(due.unwrap_or(Reason::Close));
            lane.cut.push_back(Unit::of_window((branch, leg), contents));
        } else {
            row.counts.dropped += u64::from(contents.weight);
            self.gauges.legs[leg].dropped += u64::from(contents.weight);
            self.load[leg] -= contents.values.len() as u64;
            self.graveyard.items.extend(contents.values);
            self.undo(branch, contents.scope, Then::Nothing, now);
        }
    }

    /// Gives up what waits in queues, in partial windows, between legs and in back-off.
    fn give_up(&mut self, now: Time) {
        self.lose_failures(now);
        for leg in 0..self.config.legs.len() {
            for (branch, item) in self.take_arrivals(leg) {
                self.leave(branch, item, now);
            }
            for branch in self.passing(leg) {
                self.give_up_lane(branch, leg, now);
            }
        }
        for timer in std::mem::take(&mut self.timers) {
            if let Alarm::Retry(unit) = timer.alarm {
                self.fail_in_back_off(unit, timer.at, now);
            }
        }
        self.give_up_waiting(now);
        for unit in self
            .again
            .iter_mut()
            .flat_map(std::mem::take)
            .collect::<Vec<_>>()
        {
            self.fail_in_back_off(unit, now, now);
        }
    }

    fn give_up_lane(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        let queue = std::mem::take(&mut lane.queue);
        self.load[leg] -= queue.len() as u64;
        if let Some(window) = &mut lane.window {
            window.armed = false;
        }
        (lane.dry, lane.timed) = (false, false);
        self.let_on(branch, leg, now);
        self.empty_window(branch, leg, now);
        for item in queue {
            self.give_up_item(leg, branch, item, now);
        }
        self.list(branch, leg);
    }

    fn leave_unit(&mut self, mut unit: Unit<D>, now: Time) {
        let (branch, scope) = (unit.branch, unit.scope.take());
        self.branches[branch.index()].counts.left += u64::from(unit.weight);
        self.load[unit.leg] -= unit.payload.entries() as u64;
        self.bury(unit);
        self.undo(branch, scope, Then::Nothing, now);
    }

    /// The branches that pass `leg`.
    fn passing(&self, leg: usize) -> impl Iterator<Item = BranchId> + use<D> {
        let branches = u32::try_from(self.branches.len()).unwrap_or(u32::MAX);
        let passing = if leg < self.config.fan_leg {
            0..1
        } else if self.is_operator(leg) {
            0..branches
        } else {
            1..branches
        };
        passing.map(BranchId)
    }

    fn advance_to(&mut self, phase: Phase, now: Time) {
        if self.phase < phase {
            self.phase = phase;
            self.close_legs(now);
        }
    }

    /// Closes each leg that nothing can reach any more. What leads to a leg stands before it.
    pub(super) fn close_legs(&mut self, now: Time) {
        if self.phase == Phase::Running {
            return;
        }
        for leg in 0..self.config.legs.len() {
            let stays = self.config.branches.stay_open && self.phase == Phase::Ending;
            if self.closed[leg] || self.is_reachable(leg) || (stays && leg >= self.config.fan_leg) {
                continue;
            }
            self.closed[leg] = true;
            if self.config.legs[leg].window.is_none() {
                continue;
            }
            for branch in self.passing(leg) {
                self.refill(branch, leg, now);
                self.list(branch, leg);
            }
        }
    }
}
