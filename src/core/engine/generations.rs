//! The end of a branch's generation: it is drained, removed or fails, and what comes meanwhile
//! waits for the next one or is refused.

use super::full::Refused;
use super::unit::{Alarm, Timer};
use super::{Domain, Engine, Item, Payload, Why};
use crate::branch::{BranchId, Ending, News, State};
use crate::channel::OnFull;
use crate::clock::Time;
use crate::window::Reason;

impl<D: Domain> Engine<D> {
    /// Lets a branch finish what is inside; `after` follows.
    pub(super) fn drain_branch(&mut self, branch: BranchId, after: State, now: Time) {
        let row = &mut self.branches[branch.index()];
        row.life.after = after;
        if row.life.state != State::Draining {
            row.life.state = State::Draining;
            row.life.ending = Ending::Well;
            if let Some(lane) = row.lanes.get_mut(row.entry - row.first) {
                // What comes now does not go in by the short way.
                lane.limit = 0;
            }
            self.lives.ending.push(branch);
            self.unpark(branch);
            for leg in self.branches[branch.index()].first..self.config.legs.len() {
                self.refill(branch, leg, now);
                self.list(branch, leg);
            }
        }
        self.note_refusal(branch);
        if after == State::Removed {
            self.refuse_next(branch, Why::Removed);
        }
    }

    /// Gives up what no handler of the branch has begun, and undoes the branch once the others
    /// have ended.
    pub(super) fn fail_branch(&mut self, branch: BranchId, why: Why, now: Time) {
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let life = &mut row.life;
        if life.state == State::Failed {
            return;
        }
        if life.ending == Ending::None {
            self.lives.ending.push(branch);
        }
        // A branch in its back-off has ended its generation already; failures may still wait in its
        // lanes, or be with their operator.
        let ended = life.state == State::Restarting && life.ending == Ending::None;
        life.ending = if ended {
            Ending::Quietly
        } else {
            Ending::Badly
        };
        life.state = State::Failed;
        life.after = State::Failed;
        self.note_refusal(branch);
        for leg in first..self.config.legs.len() {
            // Failures that wait for their operator are still heard.
            if !self.is_operator(leg) {
                self.refuse_lane(branch, leg, why, now);
            }
        }
        self.refuse_next(branch, why);
        self.unpark(branch);
        let timers = std::mem::take(&mut self.timers);
        let mut cut_short = Vec::new();
        for timer in timers {
            match timer.alarm {
                Alarm::Retry(unit)
                    if unit.branch == branch && self.config.legs[unit.leg].operator.is_none() =>
                {
                    cut_short.push((unit, timer.at));
                }
                _ => self.timers.push(timer),
            }
        }
        for port in 0..self.again.len() {
            for unit in std::mem::take(&mut self.again[port]) {
                if unit.branch == branch && !self.is_operator(unit.leg) {
                    cut_short.push((unit, now));
                } else {
                    self.again[port].push_back(unit);
                }
            }
        }
        for (unit, at) in cut_short {
            self.fail_in_back_off(unit, at, now);
        }
    }

    fn refuse_lane(&mut self, branch: BranchId, leg: usize, why: Why, now: Time) {
        let row = &mut self.branches[branch.index()];
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        let queue = std::mem::take(&mut lane.queue);
        let cut = std::mem::take(&mut lane.cut);
        let partial = lane.window.as_mut().filter(|window| !window.is_empty());
        let partial = partial.map(|window| window.cut(Reason::Close, now));
        self.let_on(branch, leg, now);
        for unit in cut {
            self.load[leg] -= unit.payload.entries() as u64;
            self.refuse_unit(unit, why);
        }
        if let Some(contents) = partial {
            self.load[leg] -= contents.values.len() as u64;
            self.refuse(Refused {
                branch,
                why,
                behind: leg,
                payload: Payload::Many(contents.values),
                weight: contents.weight,
                scope: contents.scope,
            });
        }
        self.load[leg] -= queue.len() as u64;
        for item in queue {
            self.refuse_item(leg, branch, item, why);
        }
    }

    /// Refuses what waits for the next generation.
    pub(super) fn refuse_next(&mut self, branch: BranchId, why: Why) {
        let row = &mut self.branches[branch.index()];
        let (first, entry) = (row.first, row.entry);
        for (leg, item) in row.life.take_next() {
            self.load[leg] -= 1;
            let behind = if leg == entry { first } else { leg };
            self.refuse_item(behind, branch, item, why);
        }
    }

    /// Whether a branch that lets nothing in now has an answer for what comes to this leg.
    pub(super) fn turns_away(&self, leg: usize, branch: BranchId) -> bool {
        let row = &self.branches[branch.index()];
        match row.life.state {
            _ if self.is_operator(leg) => false,
            State::Failed | State::Removed | State::Evicted => true,
            State::Draining => leg == row.entry || row.life.gives_up(),
            State::Open | State::Paused | State::Restarting => false,
        }
    }

    /// An item comes to a branch that lets nothing in.
    pub(super) fn turn_away(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        let row = &mut self.branches[branch.index()];
        let removed = row.life.after == State::Removed;
        match row.life.state {
            // Of what it gives up; what comes afresh waits.
            State::Draining if leg != row.entry => {
                return self.refuse_entry(branch, item, Why::Failed);
            }
            State::Failed => return self.refuse_entry(branch, item, Why::Failed),
            State::Removed => return self.refuse_entry(branch, item, Why::Removed),
            _ if removed => return self.refuse_entry(branch, item, Why::Removed),
            _ => {}
        }
        // Between two generations, it waits for the leg it came to: what was recovered, for one
        // behind its operator.
        let waiting = row.life.next().len();
        // One whose end is still to be carried out hears then that something waits.
        if row.life.state == State::Evicted && waiting == 0 && row.life.ending == Ending::None {
            self.lives.news.push((branch, News::Wanted));
        }
        let lane = row.lanes.get(row.entry - row.first);
        let full = lane.is_some_and(|lane| waiting >= lane.capacity && lane.turns_down());
        if full {
            match lane.map(|lane| lane.on_full) {
                Some(OnFull::DropOldest) => {
                    let next = &mut row.life.rare().next;
                    next.push((leg, item));
                    let (of, oldest) = next.remove(0);
                    self.load[leg] += 1;
                    self.load[of] -= 1;
                    self.drop_item(branch, oldest, now);
                }
                Some(OnFull::DropNewest) => self.drop_item(branch, item, now),
                Some(OnFull::Fail) => self.refuse_entry(branch, item, Why::Full),
                Some(OnFull::Wait) | None => self.refuse_entry(branch, item, Why::Timeout),
            }
            return;
        }
        let holds_up = lane.is_some_and(|lane| waiting + 1 >= lane.capacity && !lane.over);
        row.life.rare().next.push((leg, item));
        self.load[leg] += 1;
        if holds_up {
            self.hold_up(branch, leg, now);
        }
    }

    /// Ends the generations whose time has come.
    pub(super) fn end_generations(&mut self, now: Time) {
        if self.lives.ending.is_empty() {
            return;
        }
        let ending = std::mem::take(&mut self.lives.ending);
        for branch in ending {
            if !self.end_generation(branch, now) {
                self.lives.ending.push(branch);
            }
        }
    }

    /// Ends a generation if its branch is at rest; returns whether nothing is left to be ended.
    ///
    /// It is over, and the next one may begin, when what undoes it has run.
    pub(super) fn end_generation(&mut self, branch: BranchId, now: Time) -> bool {
        if self.branches[branch.index()].life.ending == Ending::None {
            return true;
        }
        if self.branches[branch.index()].life.state == State::Draining {
            self.shut(branch, now);
        }
        let row = &self.branches[branch.index()];
        let begun = row.lanes.iter().any(|lane| lane.in_flight > 0);
        let at_rest = match row.life.state {
            State::Restarting => !begun,
            _ => row.is_at_rest(),
        };
        if !at_rest {
            return false;
        }
        if row.life.undoing > 0 {
            return false;
        }
        // Once more after each rollback: handlers of failures that were still on their way, and undo
        // actions, may have registered something.
        match row.life.ending {
            Ending::None => {}
            Ending::Well => self.commit_branch(branch, now),
            Ending::Badly | Ending::Quietly => self.undo_branch(branch, now),
        }
        let row = &mut self.branches[branch.index()];
        if row.life.undoing > 0 {
            return false;
        }
        let (first, lanes) = (row.first, row.lanes.len());
        row.life.ending = Ending::None;
        if row.life.state == State::Restarting {
            let (generation, at) = (row.life.generation, now.after(row.life.waited));
            self.lives
                .news
                .push((branch, News::Closed { wanted: false }));
            self.sequence += 1;
            self.timers.push(Timer {
                at,
                order: self.sequence,
                alarm: Alarm::Reopen(branch, generation),
            });
            return true;
        }
        let after = row.life.after;
        let waits = !row.life.next().is_empty();
        let wanted = after == State::Open || (after == State::Evicted && waits);
        if row.life.state == State::Draining {
            let over = if after == State::Removed {
                State::Removed
            } else {
                State::Evicted
            };
            row.life.state = over;
            self.note_refusal(branch);
        }
        for leg in first..first + lanes {
            self.let_on(branch, leg, now);
        }
        self.fold(branch);
        self.lives.news.push((branch, News::Closed { wanted }));
        true
    }

    /// Lets the windows of a draining branch leave, one leg after the other, as soon as nothing
    /// can reach them any more.
    fn shut(&mut self, branch: BranchId, now: Time) {
        let row = &self.branches[branch.index()];
        let first = row.first;
        for place in 0..row.lanes.len() {
            let leg = first + place;
            let row = &mut self.branches[branch.index()];
            let before = place.checked_sub(1).map(|before| &row.lanes[before]);
            if before.is_some_and(|lane| !lane.is_vacant()) {
                return;
            }
            let arriving = |of: &(BranchId, Item<D>)| of.0 == branch;
            if place > 0
                && (self.ways.has_failure_of(branch)
                    || self.arrivals[first..=leg].iter().flatten().any(arriving))
            {
                return;
            }
            if row.shut <= leg {
                row.shut = leg + 1;
                self.refill(branch, leg, now);
                self.list(branch, leg);
            }
        }
    }

    /// A branch has waited long enough since its generation ended.
    pub(super) fn back_off_is_over(&mut self, branch: BranchId, generation: u32) {
        let life = &self.branches[branch.index()].life;
        if life.state == State::Restarting && life.generation == generation {
            self.lives.news.push((branch, News::Wanted));
        }
    }

    /// Nothing is inside a branch, and it is over: it costs little from here on.
    pub(super) fn fold(&mut self, branch: BranchId) {
        self.end_streaks_of(branch);
        // Empty: nothing foreign is dropped with them.
        self.branches[branch.index()].lanes = Vec::new();
        self.lives.open -= 1;
    }

    /// Notes whether what comes to a branch is refused now, for the driver to hear of it.
    pub(super) fn note_refusal(&mut self, branch: BranchId) {
        let life = &mut self.branches[branch.index()].life;
        let refuses = match life.state {
            State::Failed | State::Removed => true,
            State::Draining => life.after == State::Removed,
            State::Open | State::Paused | State::Restarting | State::Evicted => false,
        };
        if std::mem::replace(&mut life.refuses, refuses) != refuses {
            self.lives.turns.push((branch, refuses));
        }
    }

    /// The branches that have begun to refuse what comes to them since the last call, and those
    /// that have ceased to.
    pub fn take_turns(&mut self) -> Vec<(BranchId, bool)> {
        std::mem::take(&mut self.lives.turns)
    }

    /// Whether an item that came to this leg of a branch would be refused because of its state.
    pub fn refuses(&self, leg: usize, branch: BranchId) -> bool {
        let row = &self.branches[branch.index()];
        let life = &row.life;
        let refuses = if leg == row.entry {
            life.refuses
        } else {
            life.gives_up()
        };
        refuses && !self.is_operator(leg)
    }
}
