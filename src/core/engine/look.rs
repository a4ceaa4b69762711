//! What those who watch a run are told: numbers of branches and legs, read and never changed.
//!
//! The engine counts for itself, in plain integers; whoever drives it reads them here now and then
//! and shows them to others. Nothing in here is called while nobody watches, but for the few
//! additions of [`Gauges`].

use std::time::Duration;

use super::end::Phase;
use super::{Domain, Engine};
use crate::branch::{BranchId, State};
use crate::clock::Time;
use crate::report::Counts;
use crate::window::Reason;

/// How many classes of durations a leg tells apart: less than a microsecond, less than two, less
/// than four, and so on.
pub const DURATIONS: usize = 32;

/// One branch, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What it is doing, and how often it has been opened.
    pub life: (State, u32),
    /// What happened in it. What is inside is taken to weigh as much as the first of it.
    pub counts: Counts,
    /// Items that wait for a handler, those in windows included.
    pub queued: u64,
    /// Items that may wait in front of it.
    pub capacity: u64,
    /// Whether it is full.
    pub full: bool,
    /// Units with a handler, in back-off, or being undone.
    pub in_flight: u64,
    /// Items in its open window, of the first leg that has one, and since when.
    pub window: Option<(u64, Time)>,
    /// Why its last window left.
    pub left: Option<Reason>,
    /// How long it has held up what feeds it.
    pub blocked: Duration,
    /// Undo actions that have run.
    pub undone: u64,
}

/// One leg over all branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegLook {
    /// Items that wait, are in flight or in back-off.
    pub inside: u64,
    /// What was counted.
    pub gauge: Gauge,
}

/// One leg of one branch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneLook {
    /// The leg.
    pub leg: usize,
    /// Items that wait in its queue.
    pub queued: u64,
    /// Items that may.
    pub capacity: u64,
    /// For how long it has been full.
    pub full: Option<Duration>,
    /// Units in flight.
    pub in_flight: u64,
    /// Windows that have left and wait.
    pub cut: u64,
    /// Items in its open window, and since when.
    pub window: Option<(u64, Time)>,
    /// Why its last window left.
    pub left: Option<Reason>,
    /// Items per second it lets out, if it is throttled.
    pub rate: Option<f64>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It takes items.
    Running,
    /// It finishes what is inside.
    Draining,
    /// It rolls back.
    Aborting,
}

/// What a leg has done since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    /// Items that its handler is done with.
    pub passed: u64,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Those of them that were not the first of their unit.
    pub retried: u64,
    /// Items given up on purpose in front of it.
    pub dropped: u64,
    /// How many attempts took how long. The first class is reckoned: it holds what is in none of
    /// the others.
    durations: [u64; DURATIONS],
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            passed: 0,
            attempts: 0,
            retried: 0,
            dropped: 0,
            durations: [0; DURATIONS],
        }
    }
}

impl Gauge {
    /// How many attempts took how long.
    pub fn durations(&self) -> [u64; DURATIONS] {
        let mut all = self.durations;
        all[0] = self.attempts.saturating_sub(all[1..].iter().sum());
        all
    }

    /// So many attempts have ended, each after so long.
    #[inline]
    pub(super) fn took(&mut self, attempts: u64, each: Duration) {
        self.attempts += attempts;
        // Most attempts of a fast handler begin and end in one slice, whose time does not move.
        if !each.is_zero() {
            self.durations[class(each)] += attempts;
        }
    }
}

fn class(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let class = (u64::BITS - micros.leading_zeros()) as usize;
    class.min(DURATIONS - 1)
}

/// The gauges of all legs, and failures by where they arose.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) legs: Vec<Gauge>,
    /// Failures and undone actions, by stage.
    pub(super) stages: Vec<StageLook>,
    /// The branches whose attempts are measured one by one.
    pub(super) measured: Vec<BranchId>,
}

/// One stage over all branches, as far as something went wrong there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StageLook {
    /// Items failed that nobody has taken.
    pub failed: u64,
    /// Undo actions registered here that have run.
    pub undone: u64,
    /// The code of the last failure.
    pub last_error: Option<Box<str>>,
}

impl Gauges {
    pub(super) fn new(legs: usize) -> Self {
        Self {
            legs: vec![Gauge::default(); legs],
            stages: Vec::new(),
            measured: Vec::new(),
        }
    }

    fn stage(&mut self, stage: usize) -> &mut StageLook {
        if self.stages.len() <= stage {
            self.stages.resize(stage + 1, StageLook::default());
        }
        &mut self.stages[stage]
    }

    pub(super) fn fail(&mut self, stage: usize, items: u64, code: &str) {
        let stage = self.stage(stage);
        stage.failed += items;
        if stage.last_error.as_deref() != Some(code) {
            stage.last_error = Some(code.into());
        }
    }

    pub(super) fn undo(&mut self, stage: usize) {
        self.stage(stage).undone += 1;
    }
}

impl<D: Domain> Engine<D> {
    /// A branch as it is now. It costs the same however much waits in it.
    pub fn look(&self, branch: BranchId, now: Time) -> Look {
        let row = &self.branches[branch.index()];
        let next = row.life.next().len() as u64;
        let mut inside = row.outside + next;
        let mut queued = next;
        let mut in_flight = 0;
        let mut window = None;
        let mut left = None;
        for lane in &row.lanes {
            let weight = lane.queue.front().map_or(1, |item| u64::from(item.weight));
            let queue = lane.queue.len() as u64;
            inside += queue * weight;
            queued += queue;
            in_flight += u64::from(lane.in_flight);
            left = left.or(lane.left);
            for cut in &lane.cut {
                inside += u64::from(cut.weight);
                queued += cut.payload.entries() as u64;
            }
            if let Some(open) = &lane.window {
                inside += u64::from(open.weight());
                queued += open.len() as u64;
                let since = open.opened().unwrap_or(now);
                window = window.or(Some((open.len() as u64, since)));
            }
        }
        let mut counts = Counts {
            left: row.counts.left + inside,
            ..row.counts
        };
        if branch != BranchId::TRUNK {
            counts.received = counts.accounted().saturating_sub(counts.produced);
        }
        let entry = row.lanes.get(row.entry - row.first);
        Look {
            life: (row.life.state, row.life.generation),
            counts,
            queued,
            capacity: entry.map_or(0, |lane| lane.capacity as u64),
            full: row.lanes.iter().any(|lane| lane.over),
            in_flight,
            window,
            left,
            undone: row.undone,
            blocked: self.blocked_by(branch, now),
        }
    }

    /// The code of the last failure of a branch, if it has had one.
    pub fn last_error(&self, branch: BranchId) -> Option<&str> {
        self.branches[branch.index()].last_error.as_deref()
    }

    /// How many branches there are or were, the trunk included.
    pub const fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// How many legs there are.
    pub const fn leg_count(&self) -> usize {
        self.config.legs.len()
    }

    /// One leg over all branches.
    pub fn look_at_leg(&self, leg: usize) -> LegLook {
        LegLook {
            inside: self.load[leg],
            gauge: self.gauges.legs[leg].clone(),
        }
    }

    /// What went wrong at each stage, as far as something did.
    pub fn stages(&self) -> &[StageLook] {
        &self.gauges.stages
    }

    /// Units of a leg that are with a handler, in back-off or being undone, over all branches.
    pub fn in_flight_of(&self, leg: usize) -> u64 {
        let lanes = self.branches.iter().filter_map(|row| {
            let place = leg.checked_sub(row.first)?;
            row.lanes.get(place)
        });
        lanes.map(|lane| u64::from(lane.in_flight)).sum()
    }

    /// The legs of a branch, each with its number, queue, capacity, units in flight, windows that
    /// wait, and open window.
    pub fn look_at_lanes(&self, branch: BranchId, now: Time) -> Vec<LaneLook> {
        let row = &self.branches[branch.index()];
        let lanes = row.lanes.iter().enumerate();
        lanes
            .map(|(place, lane)| LaneLook {
                leg: row.first + place,
                queued: lane.queue.len() as u64,
                capacity: lane.capacity as u64,
                full: lane.over.then(|| now.since(lane.since)),
                in_flight: u64::from(lane.in_flight),
                cut: lane.cut.len() as u64,
                window: lane
                    .window
                    .as_ref()
                    .filter(|it| !it.is_empty())
                    .map(|it| (it.len() as u64, it.opened().unwrap_or(now))),
                left: lane.left,
                rate: lane.bucket.as_ref().map(|it| it.per_second()),
            })
            .collect()
    }

    /// From now on attempts of these branches are measured one by one, and of no others: a histogram
    /// for each branch would be more memory than all else that is kept of it.
    pub fn measure(&mut self, mut branches: Vec<BranchId>) {
        branches.retain(|branch| branch.index() < self.branches.len());
        branches.sort_unstable();
        branches.dedup();
        for branch in std::mem::take(&mut self.gauges.measured) {
            if branches.binary_search(&branch).is_err() {
                self.branches[branch.index()].durations = None;
            }
        }
        for branch in &branches {
            self.branches[branch.index()]
                .durations
                .get_or_insert_with(|| Box::new([0; DURATIONS]));
        }
        self.gauges.measured = branches;
    }

    /// How many attempts of a branch took how long since it is measured; `None` if it is not.
    pub fn durations_of(&self, branch: BranchId) -> Option<&[u64; DURATIONS]> {
        self.branches[branch.index()].durations.as_deref()
    }

    /// Attempts of a branch have ended.
    #[inline]
    pub(super) fn attempted(
        &mut self,
        branch: BranchId,
        leg: usize,
        attempts: u64,
        each: Duration,
    ) {
        self.gauges.legs[leg].took(attempts, each);
        if !self.gauges.measured.is_empty()
            && let Some(durations) = &mut self.branches[branch.index()].durations
        {
            durations[class(each)] += attempts;
        }
    }

    /// Items that wait or are under way, over all legs.
    pub fn inside(&self) -> u64 {
        self.load.iter().sum()
    }

    /// Items taken from the source.
    pub fn taken(&self) -> u64 {
        self.branches[0].counts.received
    }

    /// How far the run is.
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Running | Phase::Ending => Stage::Running,
            Phase::Draining => Stage::Draining,
            Phase::Aborted | Phase::Discarding => Stage::Aborting,
        }
    }

    /// Attempts at the handler of `leg` have ended that no unit was handed out for one by one:
    /// so many, after so long together.
    pub fn took(&mut self, branch: BranchId, leg: usize, attempts: usize, together: Duration) {
        let each = together / u32::try_from(attempts.max(1)).unwrap_or(u32::MAX);
        self.attempted(branch, leg, attempts as u64, each);
    }
}
