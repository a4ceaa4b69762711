//! When a branch has failed often enough: its streaks.
//!
//! A **streak** is a row of failures of one branch at one place, with nothing that succeeded there
//! in between. A leg has two such places: its handler, and the stages in front of it. A success at
//! one place says nothing of the other: a sink that always fails has a streak though the stages
//! before it succeed.
//!
//! A failure joins its streak when it arises. It counts at once unless an operator behind it might
//! make an item of it: then it counts where it ends, as failed or in a dead letter, and not at all
//! if it was recovered. So a streak may be over before all of its failures have counted.
//!
//! A lane knows the numbers of its streaks, and 0 where there is none: what succeeds looks at that.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Domain, Engine, Failed, OnBranchError, Operator, Why};
use crate::branch::{BranchId, Ending, State};
use crate::clock::Time;
use crate::retry::Tried;

/// One of the two places of a leg that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The stages in front of it.
    Ahead = 0,
    /// Its handler.
    Handler = 1,
}

/// Where an item failed that no handler was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The leg that it was on its way to.
    pub ahead_of: usize,
    /// The leg from which on operators may take the failure.
    pub behind: usize,
}

#[derive(Debug)]
struct Streak {
    branch: BranchId,
    /// That of the branch when a failure last joined.
    generation: u32,
    /// Failures that count.
    failed: u32,
    /// Failures that have not ended and may yet be recovered.
    open: u32,
    /// Whether something has succeeded since.
    over: bool,
}

/// The streaks there are, by number.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    rows: BTreeMap<u32, Streak>,
    last: u32,
    /// How many lanes have one in front of their leg.
    ahead: usize,
}

impl Streaks {
    fn begin(&mut self, branch: BranchId) -> u32 {
        // 0 is none. Those of four thousand million failures ago are over.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let streak = Streak {
            branch,
            generation: 0,
            failed: 0,
            open: 0,
            over: false,
        };
        self.rows.insert(self.last, streak);
        self.last
    }

    fn end(&mut self, number: u32) {
        if let Some(streak) = self.rows.get_mut(&number) {
            streak.over = true;
            self.forget(number);
        }
    }

    /// A failure that might have been recovered has ended, one way or the other.
    fn settle(&mut self, number: u32) {
        if let Some(streak) = self.rows.get_mut(&number) {
            streak.open = streak.open.saturating_sub(1);
            self.forget(number);
        }
    }

    /// Lets go of a streak that nothing can add to.
    fn forget(&mut self, number: u32) {
        let done = |streak: &Streak| streak.over && streak.open == 0;
        if self.rows.get(&number).is_some_and(done) {
            self.rows.remove(&number);
        }
    }
}

impl<D: Domain> Engine<D> {
    /// Whether a branch has a streak of the stages in front of a leg: then the driver says, by
    /// [`Engine::came_through`], what succeeds there.
    pub const fn has_streaks_ahead(&self) -> bool {
        self.lives.streaks.ahead > 0
    }

    /// An item of a branch has passed the stages in front of a leg, or was taken out by one.
    pub fn came_through(&mut self, leg: usize, branch: BranchId) {
        self.end_streak(branch, leg, Place::Ahead);
    }

    /// Something has succeeded.
    pub(super) fn end_streak(&mut self, branch: BranchId, leg: usize, place: Place) {
        if self.lives.streaks.rows.is_empty() {
            return;
        }
        let row = &mut self.branches[branch.index()];
        let lane = leg.checked_sub(row.first);
        let Some(lane) = lane.and_then(|at| row.lanes.get_mut(at)) else {
            return;
        };
        let number = &mut lane.streaks[place as usize];
        if *number != 0 {
            let number = std::mem::take(number);
            self.lives.streaks.ahead -= usize::from(place == Place::Ahead);
            self.lives.streaks.end(number);
        }
    }

    /// The lanes of a branch are about to go.
    pub(super) fn end_streaks_of(&mut self, branch: BranchId) {
        let row = &self.branches[branch.index()];
        let first = row.first;
        for leg in first..first + row.lanes.len() {
            self.end_streak(branch, leg, Place::Ahead);
            self.end_streak(branch, leg, Place::Handler);
        }
    }

    /// A failure has arisen at a leg of a branch: returns the number of its streak, or 0 where
    /// nobody asks.
    fn join_streak(&mut self, branch: BranchId, leg: usize, place: Place) -> u32 {
        if branch == BranchId::TRUNK || self.aborted() {
            return 0;
        }
        let row = &mut self.branches[branch.index()];
        let state = row.life.state;
        let heard = match self.config.branches.on_error {
            OnBranchError::Continue => false,
            // What fails while a branch rests belongs to the failure that it rests for.
            OnBranchError::Restart(_) => matches!(state, State::Open | State::Paused),
            OnBranchError::Fail { .. } | OnBranchError::Stop => {
                !state.is_over() && !row.life.gives_up()
            }
        };
        let lane = leg.checked_sub(row.first);
        let Some(lane) = lane.and_then(|at| row.lanes.get_mut(at)).filter(|_| heard) else {
            return 0;
        };
        let number = &mut lane.streaks[place as usize];
        let streaks = &mut self.lives.streaks;
        if *number == 0 {
            *number = streaks.begin(branch);
            streaks.ahead += usize::from(place == Place::Ahead);
        }
        if let Some(streak) = streaks.rows.get_mut(number) {
            streak.generation = row.life.generation;
        }
        *number
    }

    /// A failure has arisen: whether it counts now, and for which streak, is returned; if it may be
    /// recovered, it takes the number with it instead.
    pub(super) fn enter_streak(
        &mut self,
        failed: &mut Failed<D>,
        (leg, place): (usize, Place),
        behind: usize,
    ) -> u32 {
        let number = self.join_streak(failed.branch, leg, place);
        let mut from = behind;
        let operators = std::iter::from_fn(|| {
            let operator = self.ways.operator(leg, from)?;
            from = operator + 1;
            Some(operator)
        });
        let recovers = operators
            .map(|operator| self.config.legs[operator].operator)
            .any(|it| it == Some(Operator::Recover));
        if !recovers || failed.items == 0 {
            return number;
        }
        if let Some(streak) = self.lives.streaks.rows.get_mut(&number) {
            streak.open += 1;
            failed.streak = number;
        }
        0
    }

    /// A failure was recovered: it does not count.
    pub(super) fn leave_streak(&mut self, number: u32) {
        self.lives.streaks.settle(number);
    }

    /// A failure that might have been recovered was not: it counts.
    pub(super) fn stay_in_streak(&mut self, number: u32, now: Time) {
        self.count_in_streak(number, now);
        self.lives.streaks.settle(number);
    }

    /// A failure of a streak counts: its branch does what its pipeline says.
    pub(super) fn count_in_streak(&mut self, number: u32, now: Time) {
        let aborted = self.aborted();
        let Some(streak) = self.lives.streaks.rows.get_mut(&number) else {
            return;
        };
        let branch = streak.branch;
        let life = &mut self.branches[branch.index()].life;
        if streak.generation != life.generation || life.state.is_over() || aborted {
            return;
        }
        match &self.config.branches.on_error {
            OnBranchError::Continue => {}
            OnBranchError::Stop => self.stopping = true,
            OnBranchError::Fail { after } => {
                streak.failed = streak.failed.saturating_add(1);
                if streak.failed >= *after {
                    self.fail_branch(branch, Why::Failed, now);
                }
            }
            OnBranchError::Restart(retry) => {
                if !matches!(life.state, State::Open | State::Paused) {
                    return;
                }
                if streak.failed == 0 {
                    life.waited = Duration::ZERO;
                }
                streak.failed = streak.failed.saturating_add(1);
                let delay = retry.delay(&Tried {
                    attempt: streak.failed,
                    waited: life.waited,
                    since_first: Duration::ZERO,
                    wall: self.config.epoch.saturating_add(now.since(Time::ZERO)),
                    random: self.random.next_f64(),
                    asked: Duration::ZERO,
                });
                let Ok(delay) = delay else {
                    self.fail_branch(branch, Why::Failed, now);
                    return;
                };
                life.waited = delay;
                life.state = State::Restarting;
                life.ending = Ending::Badly;
                self.lives.ending.push(branch);
                self.unpark(branch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_a_streak_is_forgotten_once_it_is_over_and_its_failures_have_ended() {
        let mut streaks = Streaks::default();
        let number = streaks.begin(BranchId(1));
        assert_ne!(number, 0, "that is none");
        for streak in streaks.rows.values_mut() {
            streak.open += 2;
        }
        streaks.settle(number);
        streaks.end(number);
        assert_eq!(streaks.rows.len(), 1, "a failure may yet count");
        streaks.settle(number);
        assert!(streaks.rows.is_empty());
        let next = streaks.begin(BranchId(1));
        assert_ne!(next, number);
        streaks.end(next);
        assert!(
            streaks.rows.is_empty(),
            "none of its failures is on its way"
        );
    }
}
