//! How branches open, pause and are commanded; the states are in `branch/life.rs`.
//!
//! - `engine/generations.rs`: how they are drained, removed and fail.
//! - `engine/idle.rs`: how they are evicted.
//! - `engine/streaks.rs`: when they have failed often enough.
//!
//! The engine decides, and the driver hears of it: who is told of branches that open and close is
//! foreign code. So a branch that is to come back is not opened here: the driver is told that it
//! is wanted ([`Engine::take_news`]), and opens it ([`Engine::reopen`]) or declines to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::streaks::Streaks;
use super::{Domain, Engine, Port, Unit, Why};
use crate::branch::{Branch, BranchId, Change, Command, Ending, Lane, Misfit, News, Own, State};
use crate::channel::OnFull;
use crate::clock::Time;
use crate::retry::Retry;
use crate::throttle::{Bucket, Rate};

/// How branches live.
#[derive(Debug, Clone, PartialEq)]
pub struct BranchOptions {
    /// What becomes of an item that finds its branch full.
    pub on_full: OnFull,
    /// How long a full branch may hold up others; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How long after its last unit an empty branch is evicted; `None`: never.
    pub idle_ttl: Option<Duration>,
    /// What follows when a unit of a branch has failed for good.
    pub on_error: OnBranchError,
    /// Whether branches go on when the source has ended, until the pipeline is drained.
    pub stay_open: bool,
    /// How many units a branch hands out in one turn; at least 1.
    pub weight: u16,
}

impl Default for BranchOptions {
    fn default() -> Self {
        Self {
            on_full: OnFull::Wait,
            timeout: None,
            idle_ttl: None,
            on_error: OnBranchError::Continue,
            stay_open: false,
            weight: 1,
        }
    }
}

/// What follows when a unit of a branch has failed for good, and was rolled back.
#[derive(Debug, Clone, PartialEq)]
pub enum OnBranchError {
    /// The branch goes on.
    Continue,
    /// It fails once so many have failed at one of its stages with none that succeeded there in
    /// between.
    Fail {
        /// So many.
        after: u32,
    },
    /// It waits, and opens again; with no attempt left for such a row of failures it fails.
    Restart(Retry),
    /// The pipeline stops.
    Stop,
}

/// What is to happen to branches.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Branches whose generation ends as soon as they are at rest.
    pub(super) ending: Vec<BranchId>,
    /// When to see whether a branch is idle: at most one entry for each.
    pub(super) idle: BinaryHeap<Reverse<(Time, BranchId)>>,
    /// Branches with lanes.
    pub(super) open: usize,
    pub(super) news: Vec<(BranchId, News)>,
    /// Who has begun to refuse what comes, and who has ceased to.
    pub(super) turns: Vec<(BranchId, bool)>,
    pub(super) streaks: Streaks,
}

impl<D: Domain> Engine<D> {
    /// Opens a tenant's branch.
    pub fn open_branch(&mut self, own: Own, now: Time) -> BranchId {
        let id = BranchId(u32::try_from(self.branches.len()).unwrap_or(u32::MAX));
        let first = self.config.fan_leg;
        let legs = &self.config.legs[first..];
        let branch = Branch::new(first, legs, own, &self.config.branches, now);
        self.branches.push(branch);
        self.lives.open += 1;
        self.opened(id, own, now);
        id
    }

    /// Opens a branch again that was wanted, or is over: what has come for it meanwhile goes in.
    pub fn reopen(&mut self, branch: BranchId, own: Own, now: Time) {
        let row = &mut self.branches[branch.index()];
        if row.life.state.admits() && row.life.state != State::Restarting {
            return;
        }
        if row.lanes.is_empty() {
            let legs = &self.config.legs[row.first..];
            row.lanes = Lane::row(legs, own, &self.config.branches);
            self.lives.open += 1;
        }
        row.shut = 0;
        let life = &mut row.life;
        life.state = State::Open;
        life.after = State::Open;
        life.ending = Ending::None;
        life.generation += 1;
        life.rounds = 0;
        life.touched = now;
        let next = life.take_next();
        self.note_refusal(branch);
        self.opened(branch, own, now);
        for (leg, item) in next {
            self.load[leg] -= 1;
            self.offer(leg, branch, item, now);
        }
        self.list_all(branch);
    }

    /// The driver will not open a branch that was wanted: what has come for it is refused, and the
    /// next item asks again, as for one that was never open.
    pub fn decline(&mut self, branch: BranchId, now: Time) {
        if self.branches[branch.index()].life.state == State::Restarting {
            self.fail_branch(branch, Why::Declined, now);
            let life = &mut self.branches[branch.index()].life;
            life.state = State::Evicted;
            life.after = State::Evicted;
            self.note_refusal(branch);
        }
        self.refuse_next(branch, Why::Declined);
    }

    fn opened(&mut self, branch: BranchId, own: Own, now: Time) {
        self.least = self.least.min(own.capacity.unwrap_or(usize::MAX));
        self.watch_idle(branch, now);
    }

    /// How many branches are not over.
    pub const fn open_branches(&self) -> usize {
        self.lives.open
    }

    /// What a branch is doing, and how often it has been opened.
    pub fn state(&self, branch: BranchId) -> (State, u32) {
        let life = &self.branches[branch.index()].life;
        (life.state, life.generation)
    }

    /// What has happened to branches since the last call.
    pub fn take_news(&mut self) -> Vec<(BranchId, News)> {
        std::mem::take(&mut self.lives.news)
    }

    /// Whether a branch is to be opened, which is no news any more.
    pub fn take_wanted(&mut self, branch: BranchId) -> bool {
        let before = self.lives.news.len();
        self.lives.news.retain(|it| *it != (branch, News::Wanted));
        let mut wanted = self.lives.news.len() < before;
        for (of, what) in &mut self.lives.news {
            if let News::Closed { wanted: again } = what
                && *of == branch
            {
                wanted |= std::mem::take(again);
            }
        }
        wanted
    }

    /// Whether there is something for [`Engine::take_news`].
    pub const fn has_news(&self) -> bool {
        !self.lives.news.is_empty()
    }

    /// Whether something could be asked of a branch now.
    ///
    /// # Errors
    /// [`Misfit`] if it does not fit the branch's state.
    pub fn would_obey(&self, branch: BranchId, command: Command) -> Result<(), Misfit> {
        let life = &self.branches[branch.index()].life;
        life.state.obey(command, life.after).map(|_| ())
    }

    /// Carries out what is asked of a branch.
    ///
    /// # Errors
    /// [`Misfit`] if it does not fit the branch's state.
    pub fn obey(&mut self, branch: BranchId, command: Command, now: Time) -> Result<(), Misfit> {
        let life = &mut self.branches[branch.index()].life;
        match life.state.obey(command, life.after)? {
            Change::To(State::Failed) => {
                // It fails by this command, whatever has failed in it before.
                self.branches[branch.index()].last_error = None;
                self.fail_branch(branch, Why::Failed, now);
            }
            Change::To(State::Paused) => self.pause(branch),
            Change::To(State::Removed) => {
                life.state = State::Removed;
                life.after = State::Removed;
                // What has come since it was evicted would have opened it.
                self.take_wanted(branch);
                self.refuse_next(branch, Why::Removed);
            }
            Change::To(state) => {
                life.state = state;
                life.after = state;
                if state == State::Open {
                    self.watch_idle(branch, now);
                    self.unpark(branch);
                    self.list_all(branch);
                }
            }
            Change::Drain(after) => self.drain_branch(branch, after, now),
            Change::Open if life.ending == Ending::None => {
                self.lives.news.push((branch, News::Wanted));
            }
            Change::Open => {
                life.after = State::Open;
                life.waited = Duration::ZERO;
                if life.state != State::Restarting {
                    // What comes from now on is for the generation that follows.
                    life.state = State::Draining;
                    if self.end_generation(branch, now) {
                        self.lives.ending.retain(|it| *it != branch);
                    }
                }
            }
        }
        self.note_refusal(branch);
        Ok(())
    }

    /// Lets the units of a branch out at another rate, at its first leg with a throttle, or, if
    /// none has one, at its first; `None`: as fast as can be. Whether it has a leg now.
    pub fn throttle(&mut self, branch: BranchId, rate: Option<Rate>, now: Time) -> bool {
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let throttled = row.lanes.iter().position(|lane| lane.bucket.is_some());
        let place = throttled.unwrap_or(row.entry - first);
        let Some(lane) = row.lanes.get_mut(place) else {
            return false;
        };
        match (&mut lane.bucket, rate) {
            (Some(bucket), Some(rate)) => bucket.change(rate, now),
            (bucket, rate) => *bucket = rate.map(|rate| Box::new(Bucket::new(rate))),
        }
        // The timer that is set may be wrong now; one that goes off for nothing does no harm.
        (lane.dry, lane.timed) = (false, false);
        if lane.window.is_some() {
            self.refill(branch, first + place, now);
        }
        self.list(branch, first + place);
        true
    }

    fn pause(&mut self, branch: BranchId) {
        self.branches[branch.index()].life.state = State::Paused;
        for port in 0..self.again.len() {
            for unit in std::mem::take(&mut self.again[port]) {
                self.try_again(unit);
            }
        }
    }

    /// Whether a unit that would be tried again has failed for good meanwhile, with the run or with
    /// its branch.
    pub(super) fn tries_no_more(&self, unit: &Unit<D>) -> bool {
        self.aborted()
            || (self.branches[unit.branch.index()].life.gives_up() && !self.is_operator(unit.leg))
    }

    /// A unit's back-off is over: its turn comes, unless its branch is paused. What takes failures
    /// goes on then, too: others may wait for it.
    pub(super) fn try_again(&mut self, unit: Unit<D>) {
        let goes_on = self.aborted() || self.is_operator(unit.leg);
        let life = &mut self.branches[unit.branch.index()].life;
        if life.state == State::Paused && !goes_on {
            life.rare().parked.push(unit);
        } else {
            let Port(port) = self.config.legs[unit.leg].port;
            self.again[port].push_back(unit);
        }
    }

    pub(super) fn unpark(&mut self, branch: BranchId) {
        for unit in self.branches[branch.index()].life.take_parked() {
            self.try_again(unit);
        }
    }

    fn list_all(&mut self, branch: BranchId) {
        for leg in self.branches[branch.index()].first..self.config.legs.len() {
            self.list(branch, leg);
        }
    }

    /// Gives up what waits outside of the lanes: for the next generation, or for a branch to be
    /// resumed.
    pub(super) fn give_up_waiting(&mut self, now: Time) {
        for index in 0..self.branches.len() {
            let row = &mut self.branches[index];
            if row.life.rare.is_none() {
                continue;
            }
            let branch = BranchId(u32::try_from(index).unwrap_or(u32::MAX));
            let (next, parked) = (row.life.take_next(), row.life.take_parked());
            for (leg, item) in next {
                self.load[leg] -= 1;
                self.leave(branch, item, now);
            }
            for unit in parked {
                self.fail_in_back_off(unit, now, now);
            }
        }
    }
}
