//! What becomes of items for a branch that is full, and how long it holds up the others.
//!
//! A lane past its limit stalls what feeds it until half of its capacity is free again. Who stalls
//! whom, since when and for how long in all is kept, and bounded by `branch_timeout`: a lane that
//! has stalled the others for so long does not any more, and refuses what comes while it is full.
//!
//! Where a branch drops or fails instead of waiting, it stalls nobody but itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::rollback::Then;
use super::{Domain, Engine, Failed, Item, Payload, Unit};
use crate::branch::BranchId;
use crate::channel::OnFull;
use crate::clock::Time;
use crate::compensation::Scope;
use crate::retry::GaveUp;

/// An item, or a window, that was not let in. It counts as inside until the driver has made a
/// failure of it, by [`Engine::fail_refused`].
#[derive(Debug)]
pub struct Refused<D: Domain> {
    /// Whose it would have been.
    pub branch: BranchId,
    /// Why it was not let in.
    pub why: Why,
    /// The leg from which on operators may take the failure.
    pub(crate) behind: usize,
    /// What it was.
    pub payload: Payload<D::Item>,
    /// Source items it stands for.
    pub(crate) weight: u32,
    pub(crate) scope: Option<Box<Scope<D::Undo>>>,
}

/// Why an item was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The branch has failed.
    Failed,
    /// It was removed.
    Removed,
    /// It is full, and fails what comes.
    Full,
    /// It has been full for longer than `branch_timeout`.
    Timeout,
    /// The driver would not have it opened again.
    Declined,
}

/// Who holds up whom.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// Lanes that stall others than their own branch.
    lanes: usize,
    /// Since when there has been one.
    since: Time,
    /// How long there was one, in all, before that.
    blocked: Duration,
    /// When lanes have stalled others for long enough; those that do not any more among them.
    due: BinaryHeap<Reverse<(Time, BranchId, usize)>>,
}

impl Stalls {
    /// When a lane has stalled others for long enough.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    fn begin(&mut self, now: Time) {
        if self.lanes == 0 {
            self.since = now;
        }
        self.lanes += 1;
    }

    fn end(&mut self, now: Time) {
        self.lanes -= 1;
        if self.lanes == 0 {
            self.blocked += now.since(self.since);
        }
    }
}

impl<D: Domain> Engine<D> {
    /// A lane is past its limit.
    pub(super) fn hold_up(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        lane.over = true;
        lane.since = now;
        if !lane.stalls {
            return;
        }
        self.over[leg] += 1;
        self.stalls.begin(now);
        if let Some(most) = self.config.branches.timeout
            && branch != BranchId::TRUNK
            && self.config.legs[leg].operator.is_none()
        {
            self.stalls
                .due
                .push(Reverse((now.after(most), branch, leg)));
        }
    }

    /// A lane has room again, or nothing that would need it.
    pub(super) fn let_on(&mut self, branch: BranchId, leg: usize, now: Time) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        if !lane.over {
            return;
        }
        if lane.counts_as_over() {
            row.life.blocked += now.since(lane.since);
            self.over[leg] -= 1;
            self.stalls.end(now);
        }
        lane.over = false;
        lane.overrun = false;
        let first = row.first;
        for earlier in first..leg {
            self.list(branch, earlier);
        }
        self.list_trunk(leg);
    }

    /// Lanes that have stalled others for too long do not any more.
    pub(super) fn overrun(&mut self, now: Time) {
        let Some(most) = self.config.branches.timeout else {
            return;
        };
        while let Some(&Reverse((at, branch, leg))) = self.stalls.due.peek()
            && at <= now
        {
            self.stalls.due.pop();
            let row = &mut self.branches[branch.index()];
            let Some(lane) = row.lanes.get_mut(leg - row.first) else {
                continue;
            };
            // It may have had room in between.
            if lane.counts_as_over() && lane.since.after(most) <= now {
                row.life.blocked += now.since(lane.since);
                lane.overrun = true;
                self.over[leg] -= 1;
                self.stalls.end(now);
                self.list_trunk(leg);
            }
        }
    }

    /// The trunk goes on if `leg` does not hold it up any more.
    fn list_trunk(&mut self, leg: usize) {
        if self.over[leg] == 0 {
            // The trunk passes operators behind the fan-out, too.
            for earlier in 0..leg.min(self.branches[0].lanes.len()) {
                self.list(BranchId::TRUNK, earlier);
            }
        }
    }

    /// An item comes to a lane that is full and does not let it wait.
    pub(super) fn turn_down(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        let row = &mut self.branches[branch.index()];
        let lane = &mut row.lanes[leg - row.first];
        match lane.on_full {
            OnFull::DropNewest => self.drop_item(branch, item, now),
            OnFull::DropOldest => {
                lane.queue.push_back(item);
                if let Some(oldest) = lane.queue.pop_front() {
                    self.drop_item(branch, oldest, now);
                }
            }
            OnFull::Fail => self.refuse_entry(branch, item, Why::Full),
            OnFull::Wait => self.refuse_entry(branch, item, Why::Timeout),
        }
    }

    /// Counts an item as dropped, and undoes what it did.
    pub(super) fn drop_item(&mut self, branch: BranchId, item: Item<D>, now: Time) {
        let row = &mut self.branches[branch.index()];
        row.counts.dropped += u64::from(item.weight);
        self.gauges.legs[row.entry].dropped += u64::from(item.weight);
        self.graveyard.items.push(item.value);
        self.undo(branch, item.scope, Then::Nothing, now);
    }

    /// Keeps an item that came to a branch and was not let in for the driver.
    pub(super) fn refuse_entry(&mut self, branch: BranchId, item: Item<D>, why: Why) {
        let behind = self.branches[branch.index()].first.max(self.ways.past);
        self.refuse_item(behind, branch, item, why);
    }

    /// Keeps an item that will not be handled for the driver.
    pub(super) fn refuse_item(&mut self, behind: usize, branch: BranchId, item: Item<D>, why: Why) {
        self.refuse(Refused {
            branch,
            why,
            behind,
            payload: Payload::One(item.value),
            weight: item.weight,
            scope: item.scope,
        });
    }

    /// The same for a window that was not handed out.
    pub(super) fn refuse_unit(&mut self, unit: Unit<D>, why: Why) {
        self.refuse(Refused {
            branch: unit.branch,
            why,
            behind: unit.leg,
            payload: unit.payload,
            weight: unit.weight,
            scope: unit.scope,
        });
    }

    pub(super) fn refuse(&mut self, refused: Refused<D>) {
        self.branches[refused.branch.index()].outside += u64::from(refused.weight);
        self.refused.push(refused);
    }

    /// Whether there is something for [`Engine::take_refused`].
    pub const fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What was not let in since the last call.
    pub fn take_refused(&mut self) -> Vec<Refused<D>> {
        std::mem::take(&mut self.refused)
    }

    /// Counts what was not let in as failed, and undoes what it did.
    pub fn fail_refused(&mut self, refused: Refused<D>, error: D::Error, now: Time) {
        let Refused {
            branch,
            behind,
            payload,
            weight,
            scope,
            ..
        } = refused;
        self.branches[branch.index()].outside -= u64::from(weight);
        self.graveyard.bury_payload(payload);
        let failed = Failed::new(branch, error, weight, GaveUp::Error);
        self.fail_behind((behind, behind), failed, scope, None, now);
    }

    /// How long something was held up because a branch was full, in all.
    pub fn blocked(&self, now: Time) -> Duration {
        let current = if self.stalls.lanes > 0 {
            now.since(self.stalls.since)
        } else {
            Duration::ZERO
        };
        self.stalls.blocked + current
    }

    /// How long a branch has held up others.
    pub fn blocked_by(&self, branch: BranchId, now: Time) -> Duration {
        let row = &self.branches[branch.index()];
        let current = row.lanes.iter().filter(|lane| lane.counts_as_over());
        let current = current.map(|lane| now.since(lane.since));
        row.life.blocked + current.max().unwrap_or_default()
    }

    /// The branches that hold up others now.
    pub fn blocking(&self) -> impl Iterator<Item = BranchId> {
        let rows = (0..).map(BranchId).zip(&self.branches);
        rows.filter(|(_, row)| row.lanes.iter().any(crate::branch::Lane::counts_as_over))
            .map(|(branch, _)| branch)
    }
}
