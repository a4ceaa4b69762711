//! Heartbeats: which branches are to hear that nothing has come for a while.
//!
//! Beats come at multiples of their period after the last item. None comes while the branch is not
//! open, or has something waiting; none once it has been silent for `idle_ttl`, so that it can be
//! evicted, nor once the source has ended.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::end::Phase;
use super::{Domain, Engine, Item};
use crate::branch::{BranchId, State};
use crate::clock::Time;

/// A heartbeat that the driver is to make an item of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Where nothing has come.
    pub branch: BranchId,
    /// The leg it is for.
    pub leg: usize,
    /// How long ago the last item came.
    pub silent: Duration,
    /// Which it is since then, from 1.
    pub number: u32,
}

/// The silences that are watched.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// When the last item came, of each lane that beats; each has one entry in `due`.
    since: BTreeMap<(BranchId, usize), Time>,
    due: BinaryHeap<Reverse<(Time, BranchId, usize)>>,
    told: Vec<Beat>,
    /// Whether what is offered is a beat itself.
    beating: bool,
}

impl<D: Domain> Engine<D> {
    /// An item has come for a lane.
    pub(super) fn heard(&mut self, leg: usize, branch: BranchId, now: Time) {
        let Some(every) = self.config.legs[leg].heartbeat else {
            return;
        };
        if self.beats.beating {
            return;
        }
        if self.beats.since.insert((branch, leg), now).is_none() {
            self.beats
                .due
                .push(Reverse((now.after(every), branch, leg)));
        }
    }

    /// When the next beat may be due.
    pub(super) fn beat_deadline(&self) -> Option<Time> {
        let next = self.beats.due.peek();
        let running = self.phase == Phase::Running;
        next.filter(|_| running).map(|Reverse((at, ..))| *at)
    }

    /// Finds the beats that are due.
    pub(super) fn beat(&mut self, now: Time) {
        if self.phase != Phase::Running {
            return;
        }
        while let Some(&Reverse((at, branch, leg))) = self.beats.due.peek()
            && at <= now
        {
            self.beats.due.pop();
            let lane = (branch, leg);
            let every = self.config.legs[leg].heartbeat;
            let (Some(every), Some(&since)) = (every, self.beats.since.get(&lane)) else {
                continue;
            };
            let silent = now.since(since);
            let number = silent.as_nanos() / every.as_nanos().max(1);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let row = &self.branches[branch.index()];
            let ttl = self.config.branches.idle_ttl;
            let idle = branch != BranchId::TRUNK && ttl.is_some_and(|ttl| silent >= ttl);
            if idle || row.life.state.is_over() || row.lanes.is_empty() {
                // Its next item begins anew.
                self.beats.since.remove(&lane);
                continue;
            }
            let waits = !row.lanes[leg - row.first].queue.is_empty();
            let next = since.after(every.saturating_mul(number.saturating_add(1)));
            self.beats.due.push(Reverse((next, branch, leg)));
            if number > 0 && !waits && row.life.state == State::Open {
                self.beats.told.push(Beat {
                    branch,
                    leg,
                    silent,
                    number,
                });
            }
        }
    }

    /// The beats to make items of, for [`Engine::offer_beat`].
    pub fn take_beats(&mut self) -> Vec<Beat> {
        std::mem::take(&mut self.beats.told)
    }

    /// Takes an item that was made of a beat: one more than came from the source.
    pub fn offer_beat(&mut self, beat: Beat, value: D::Item, now: Time) {
        self.passed(beat.branch, 0, 1);
        self.beats.beating = true;
        self.offer(beat.leg, beat.branch, Item::new(value), now);
        self.beats.beating = false;
    }
}
