//! One pipeline: its sums, its branches, and how fast they are.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use anabranch_protocol::Text;
use anabranch_protocol::message::{Pipe, Totals};
use anabranch_protocol::row::Branch;

use super::ring::{POINTS, Ring};
use crate::format::{self, real, whole};

/// The least time between two points of a history, in milliseconds: the table comes once a second,
/// and not to the millisecond.
const POINT_MS: u64 = 700;

/// Over how long a rate is measured, in milliseconds.
const RATE_MS: u64 = 1000;

/// One branch, as it was last told, and what was reckoned from that.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its number.
    pub id: u32,
    /// Its key, which may be empty.
    pub tenant: Text,
    /// Whether its key is known: until then it is empty, too.
    pub named: bool,
    /// What was last told of it.
    pub branch: Branch,
    /// Whether a row of it has come: a name comes first.
    pub told: bool,
    /// Items that came, per second.
    pub rate_in: u32,
    /// Items handled to the end, per second.
    pub rate_out: u32,
    /// Items that came, per second, over the last minutes.
    pub history: Ring,
    /// What it had received and committed at the last point.
    pub(crate) sampled: Option<(u64, u64)>,
}

impl Row {
    /// Its tenant as people read it, or its number while that is all that is known.
    pub fn shown(&self) -> Cow<'_, str> {
        match self.id {
            0 => "(trunk)".into(),
            _ if self.named => format::name(&self.tenant),
            id => format!("#{id}").into(),
        }
    }

    /// Undo actions that have not been done: those that are to run, and those that are stuck.
    pub const fn undone(&self) -> u64 {
        self.branch.compensations + self.branch.stuck
    }
}

/// How fast a pipeline is, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Items that come.
    pub received: f64,
    /// Items handled to the end.
    pub committed: f64,
    /// Items failed for good.
    pub failed: f64,
    /// Attempts after the first.
    pub retried: f64,
}

impl std::ops::AddAssign for Rates {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.committed += other.committed;
        self.failed += other.failed;
        self.retried += other.retried;
    }
}

/// One pipeline of a process.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    /// What it is made of.
    pub pipe: Pipe,
    /// Its sums, as last told.
    pub totals: Totals,
    /// How fast it is.
    pub rates: Rates,
    /// Items that came, per second, over the last minutes.
    pub history: Ring,
    /// Its branches, in the order in which they were first told of.
    pub rows: Vec<Row>,
    /// Where the branch of a number is in `rows`.
    places: HashMap<u32, usize>,
    /// The branches a whole table has told of so far, while it comes in pieces.
    sweep: HashSet<u32>,
    /// Sums of about the last second, with their times.
    marks: VecDeque<(u64, [u64; 4])>,
    /// When the last point of the histories was made.
    point_at: Option<(u64, u64)>,
}

impl Pipeline {
    /// The branch of that number.
    pub fn row(&self, branch: u32) -> Option<&Row> {
        self.places.get(&branch).map(|place| &self.rows[*place])
    }

    /// The tenant of a branch, as [`Row::shown`].
    pub fn tenant(&self, branch: u32) -> String {
        let unknown = Row {
            id: branch,
            ..Row::default()
        };
        self.row(branch).unwrap_or(&unknown).shown().into_owned()
    }

    /// Whether a branch is one to show: the trunk is, only where nothing fans out.
    pub fn shows(&self, row: &Row) -> bool {
        row.told && (row.id != 0 || self.pipe.fan_leg.is_none())
    }

    fn row_mut(&mut self, branch: u32) -> &mut Row {
        let place = *self.places.entry(branch).or_insert_with(|| {
            self.rows.push(Row {
                id: branch,
                ..Row::default()
            });
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    pub(super) fn name(&mut self, branch: u32, tenant: Text) {
        let row = self.row_mut(branch);
        row.tenant = tenant;
        row.named = true;
    }

    pub(super) fn take(&mut self, branch: Branch, full: bool) {
        if full {
            self.sweep.insert(branch.id);
        }
        let row = self.row_mut(branch.id);
        row.told = true;
        row.branch = branch;
    }

    /// A whole table has come: what it did not tell of is gone.
    pub(super) fn swept(&mut self) {
        let told = std::mem::take(&mut self.sweep);
        let places = &self.places;
        let gone: Vec<u32> = places
            .keys()
            .copied()
            .filter(|it| !told.contains(it))
            .collect();
        for branch in gone {
            self.remove(branch);
        }
    }

    pub(super) fn remove(&mut self, branch: u32) {
        if let Some(place) = self.places.remove(&branch) {
            self.rows.swap_remove(place);
            // The last one has taken its place.
            if let Some(moved) = self.rows.get(place) {
                self.places.insert(moved.id, place);
            }
        }
    }

    /// Takes in sums of the time `ts`.
    pub(super) fn sum(&mut self, totals: Totals, ts: u64) {
        self.pipe.phase = totals.phase;
        let counts = [
            totals.received,
            totals.committed,
            totals.failed,
            totals.retried,
        ];
        self.totals = totals;
        while self
            .marks
            .get(1)
            .is_some_and(|(at, _)| ts.saturating_sub(*at) >= RATE_MS)
        {
            self.marks.pop_front();
        }
        if self.marks.len() < 64 {
            self.marks.push_back((ts, counts));
        }
        let Some((from, before)) = self.marks.front().filter(|(at, _)| *at < ts) else {
            return;
        };
        let per_second = |index: usize| {
            let more = counts[index].saturating_sub(before[index]);
            real(more) * 1000.0 / real(ts - from)
        };
        self.rates = Rates {
            received: per_second(0),
            committed: per_second(1),
            failed: per_second(2),
            retried: per_second(3),
        };
    }

    /// Makes a point of each history, if the last is old enough. `whole` tells that all rows have
    /// just come, which is the best moment: each has then had the same time.
    pub(super) fn point(&mut self, ts: u64, whole_table: bool) {
        let (last, received) = *self.point_at.get_or_insert((ts, self.totals.received));
        let passed = ts.saturating_sub(last);
        if passed < POINT_MS || (!whole_table && passed < 2 * POINT_MS) {
            return;
        }
        let seconds = usize::try_from((passed + 500) / 1000).unwrap_or(POINTS);
        let seconds = seconds.clamp(1, POINTS);
        let per_second = |now: u64, before: u64| {
            let rate = real(now.saturating_sub(before)) * 1000.0 / real(passed);
            u32::try_from(whole(rate.round())).unwrap_or(u32::MAX)
        };
        let rate = per_second(self.totals.received, received);
        self.history.push(rate, seconds);
        self.point_at = Some((ts, self.totals.received));
        for row in self.rows.iter_mut().filter(|row| row.told) {
            let counts = (row.branch.received, row.branch.committed);
            if let Some((received, committed)) = row.sampled.replace(counts) {
                row.rate_in = per_second(counts.0, received);
                row.rate_out = per_second(counts.1, committed);
                row.history.push(row.rate_in, seconds);
            }
        }
    }

    /// Nothing was heard for a while: what came meanwhile belongs to no second.
    pub(super) fn gap(&mut self, ms: u64) {
        let seconds = usize::try_from(ms / 1000).unwrap_or(POINTS);
        self.history.gap(seconds);
        self.point_at = None;
        self.marks.clear();
        self.sweep.clear();
        self.rates = Rates::default();
        for row in &mut self.rows {
            row.history.gap(seconds);
            row.sampled = None;
        }
    }
}
