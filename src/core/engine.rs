//! The engine: items in, work out, results back.
//!
//! It joins branches, windows, retries and rollbacks of one pipeline, and does no I/O: a driver
//! [`offer`](Engine::offer)s items, runs the work that [`next`](Engine::next) hands out, gives
//! each unit back through [`complete`](Engine::complete), and calls [`poll`](Engine::poll) when
//! time has passed.
//!
//! A pipeline is a row of **legs**. A leg is one handler with what stands in front of it: a
//! queue per branch, and a window if there is one. Branches of tenants begin at the leg
//! `Config::fan_leg`; the legs before it belong to the trunk. A leg that copies its units begins a
//! **course** of its own for the copies, whose legs stand behind it in the row.
//!
//! Two laws hold for whoever drives it. No foreign code runs and no item is dropped while the
//! engine is borrowed: what dies inside is handed over in the [`Graveyard`]. And only the driving
//! thread touches it.
//!
//! - `engine/unit.rs`: what moves through it; `engine/batch.rs`: several of them at once.
//! - `engine/lanes.rs`: how items move through the lanes, and who holds up whom.
//! - `engine/full.rs`: what becomes of items for a full branch, and how long it holds up others.
//! - `engine/life.rs`: how branches open, pause and are commanded; `engine/generations.rs`: how they
//!   end; `engine/idle.rs`: how they are evicted; `engine/streaks.rs`: when they have failed.
//! - `engine/beats.rs`: which branches hear that nothing has come for a while.
//! - `engine/outcome.rs`: success, failure, retry.
//! - `engine/ways.rs`: where items and failures go next.
//! - `engine/operators.rs`: where failures go that an operator behind them takes.
//! - `engine/overdue.rs`: attempts that must end in time.
//! - `engine/rollback.rs`: what failed units did is undone.
//! - `engine/undone.rs`: what has become of undo actions, as it is counted and listed.
//! - `engine/stuck.rs`: undo actions that are stuck, as operators deal with them.
//! - `engine/traces.rs`: what is remembered of rollbacks, for those who watch.
//! - `engine/whole.rs`: what is undone with a branch, or with the run as a whole.
//! - `engine/look.rs`: what those who watch the run are told.
//! - `engine/end.rs`: the source's end, drain and abort.

mod batch;
mod beats;
mod end;
mod full;
mod generations;
mod idle;
mod lanes;
mod life;
mod look;
mod operators;
mod outcome;
mod overdue;
mod rollback;
mod streaks;
mod stuck;
mod traces;
mod under_way;
mod undone;
mod unit;
mod ways;
mod whole;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

pub use batch::Batch;
pub use beats::Beat;
pub use full::{Refused, Why};
pub use life::{BranchOptions, OnBranchError};
pub use look::{DURATIONS, Gauge, LaneLook, LegLook, Look, Stage, StageLook};
pub use operators::Operator;
pub use overdue::{Abandoned, AttemptId, Overdue, UNDO_GRACE};
pub use streaks::Spot;
pub use traces::{Cause, Label, MAX_TRACE, Reach, RollbackLook, StepLook, StepState};
pub use under_way::UnitLook;
pub use unit::{
    Again, Domain, Failed, Fate, Graveyard, History, Item, Origin, Outcome, Payload, Port,
    RollbackId, Turn, Undone, Unit, Work,
};
pub use whole::Level;

use crate::branch::{Branch, BranchId, Own};
use crate::clock::Time;
use crate::compensation::{Policy, Step};
use crate::report::Counts;
use crate::retry::{Random, Retry};
use crate::throttle::Rate;
use crate::window::WindowOptions;
use beats::Beats;
use end::Phase;
use full::Stalls;
use life::Lives;
use look::Gauges;
use overdue::Watch;
use rollback::Undoing;
use traces::Traces;
use unit::{Alarm, Timer};
use ways::Ways;
use whole::Whole;

/// Failures and undo actions kept as samples; the counts beside them are exact.
pub const MAX_SAMPLES: usize = 100;
/// Errors kept of the earlier attempts of one unit.
pub const MAX_HISTORY: usize = 32;

/// Stuck undo actions kept to be tried again; the count beside them is exact.
pub const MAX_STUCK: usize = 10_000;

/// One handler and what stands in front of it.
#[derive(Debug, Clone)]
pub struct LegOptions {
    /// The window, if the handler works on windows.
    pub window: Option<WindowOptions>,
    /// Items that may wait per branch before what feeds the leg stalls.
    pub capacity: usize,
    /// Whether a branch may wait with a quarter of its capacity more before it stalls the others.
    pub isolate: bool,
    /// Units in flight per branch.
    pub concurrency: u32,
    /// Whether outputs keep the order of the inputs.
    pub ordered: bool,
    /// How fast items go on from the queue, per branch; `None`: as fast as can be.
    pub throttle: Option<Rate>,
    /// How long nothing may come before the branch is told so, and how often; `None`: never.
    pub heartbeat: Option<Duration>,
    /// What happens after a failed attempt; `None`: there is one attempt.
    pub retry: Option<Retry>,
    /// How long an attempt may take; `None`: any time.
    pub timeout: Option<Duration>,
    /// How long after that its operation may take to end before it is left behind.
    pub grace: Duration,
    /// Where the handler runs.
    pub port: Port,
    /// What it does with failures, if those are what it takes; `None`: it takes items.
    pub operator: Option<Operator>,
    /// The course it belongs to; 0 is that of the items themselves.
    pub course: usize,
    /// The course of copies that begins with the next leg, if this one's handler copies: it gives
    /// two values, the second for that course. The row goes on with the first behind its last leg.
    pub copies: Option<usize>,
}

impl LegOptions {
    /// Whether it matters when an attempt begins.
    pub(crate) const fn clocked(&self) -> bool {
        self.timeout.is_some() || matches!(&self.retry, Some(Retry { total: Some(_), .. }))
    }

    pub(crate) const fn reorders(&self) -> bool {
        self.ordered && self.concurrency > 1
    }
}

/// A pipeline, as the engine sees it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The handlers in order: the last that takes items is the sink.
    pub legs: Vec<LegOptions>,
    /// The first leg that every tenant has for itself; the number of legs if none. It is in the
    /// course of the items themselves.
    pub fan_leg: usize,
    /// How many ports the driver has.
    pub ports: usize,
    /// Units in flight over all branches.
    pub max_in_flight: usize,
    /// Whether the first failure that nobody takes stops the pipeline, if it does not say itself.
    pub stop_on_error: bool,
    /// Seed of the jitter.
    pub seed: u64,
    /// How long after 1970-01-01 00:00 UTC the driver's own epoch is.
    pub epoch: Duration,
    /// How failed units are undone.
    pub rollback: RollbackOptions,
    /// How branches live.
    pub branches: BranchOptions,
}

/// How rollbacks go about it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RollbackOptions {
    /// How the compensations of one rollback follow each other.
    pub policy: Policy,
    /// How long a rollback may take before it gives up; `None`: as long as it takes.
    pub deadline: Option<Duration>,
    /// Whether units that succeeded are committed only when the run has ended, all or none.
    pub commit_at_end: bool,
}

/// The state of one run.
#[derive(Debug)]
pub struct Engine<D: Domain> {
    config: Config,
    branches: Vec<Branch<D>>,
    phase: Phase,
    /// The legs that nothing can reach any more.
    closed: Vec<bool>,
    /// Lanes with a unit to hand out, per port: they take turns.
    rings: Vec<VecDeque<(BranchId, usize)>>,
    /// Units whose back-off is over, per port.
    again: Vec<VecDeque<Unit<D>>>,
    /// Undo actions whose turn has come, per port.
    undos: Vec<VecDeque<(RollbackId, Step<D::Undo>)>>,
    /// Outputs on their way to the leg, or, of an operator, from it: the driver runs the stages in
    /// between and offers them.
    arrivals: Vec<Vec<(BranchId, Item<D>)>>,
    timers: BinaryHeap<Timer<D>>,
    /// Numbers timers and rollbacks.
    sequence: u64,
    /// The smallest capacity of a lane so far.
    least: usize,
    /// Lanes past their limit, per leg.
    over: Vec<u32>,
    /// Items waiting, in flight or in back-off, per leg.
    load: Vec<u64>,
    /// Units with a handler now.
    in_flight: usize,
    /// Ascending by their deadlines, too: all have the same time.
    rollbacks: BTreeMap<RollbackId, Undoing<D>>,
    /// Rollbacks whose first pass the driver is to arrange.
    unarranged: VecDeque<RollbackId>,
    whole: Whole<D>,
    watch: Watch,
    ways: Ways<D>,
    lives: Lives,
    stalls: Stalls,
    beats: Beats,
    gauges: Gauges,
    /// Items that were not let in, for the driver to make failures of.
    refused: Vec<Refused<D>>,
    random: Random,
    stopping: bool,
    failures: Vec<Failed<D>>,
    codes: BTreeMap<String, u64>,
    undone: Vec<Undone<D>>,
    stuck: Vec<Undone<D>>,
    undone_counts: UndoneCounts,
    /// Numbers them.
    undone_number: u64,
    traces: Traces,
    graveyard: Graveyard<D>,
}

/// What became of the undo actions and finalizers, in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct UndoneCounts {
    /// Undo actions that ran to the end.
    pub done: u64,
    /// Those, and finalizers, that raised, or had no turn before the deadline or the last pass.
    pub failed: u64,
    /// Undo actions the policy left out.
    pub skipped: u64,
    /// Finalizers that ran to the end.
    pub finalized: u64,
}

impl<D: Domain> Engine<D> {
    /// A run that has not begun.
    pub fn new(mut config: Config) -> Self {
        let legs = config.legs.len();
        let ways = Ways::new(&config.legs);
        for (leg, options) in config.legs.iter_mut().enumerate() {
            // The sink, and operators behind it, have no outputs to keep in order.
            options.ordered &= ways.next(leg).is_some();
        }
        let least = config.legs.iter().map(|leg| leg.capacity).min();
        let trunk = &config.legs[..ways.of_trunk(config.fan_leg)];
        let trunk = Branch::new(
            0,
            trunk,
            Own::default(),
            &BranchOptions::default(),
            Time::ZERO,
        );
        Self {
            branches: vec![trunk],
            phase: Phase::Running,
            closed: vec![false; legs],
            rings: (0..config.ports).map(|_| VecDeque::new()).collect(),
            again: (0..config.ports).map(|_| VecDeque::new()).collect(),
            undos: (0..config.ports).map(|_| VecDeque::new()).collect(),
            arrivals: (0..legs).map(|_| Vec::new()).collect(),
            timers: BinaryHeap::new(),
            sequence: 0,
            least: least.unwrap_or(1),
            over: vec![0; legs],
            load: vec![0; legs],
            in_flight: 0,
            rollbacks: BTreeMap::new(),
            unarranged: VecDeque::new(),
            whole: Whole::default(),
            watch: Watch::default(),
            ways,
            lives: Lives::default(),
            stalls: Stalls::default(),
            beats: Beats::default(),
            gauges: Gauges::new(legs),
            refused: Vec::new(),
            random: Random::new(config.seed),
            stopping: false,
            failures: Vec::new(),
            codes: BTreeMap::new(),
            undone: Vec::new(),
            stuck: Vec::new(),
            undone_counts: UndoneCounts::default(),
            undone_number: 0,
            traces: Traces::default(),
            graveyard: Graveyard::default(),
            config,
        }
    }

    /// How many items the source may bring at once: zero while a branch is over its limit.
    pub fn room(&self) -> usize {
        if self.phase != Phase::Running || self.over.iter().any(|over| *over > 0) {
            0
        } else {
            self.least
        }
    }

    /// Counts items taken from the source.
    pub fn received(&mut self, items: u64) {
        self.branches[0].counts.received += items;
    }

    /// Counts items that a stage took out on purpose, or made.
    pub fn passed(&mut self, branch: BranchId, filtered: u64, produced: u64) {
        let counts = &mut self.branches[branch.index()].counts;
        counts.filtered += filtered;
        counts.produced += produced;
    }

    /// Counts items that were taken from the source but never got to a leg.
    pub fn left_behind(&mut self, items: u64) {
        self.branches[0].counts.left += items;
    }

    /// Hands over the outputs that wait to be offered to `leg`; of an operator's leg, what it has
    /// recovered, which waits to be offered to the next that takes items.
    ///
    /// The driver runs the stages in between and offers what comes of it before it calls
    /// [`Engine::poll`] again: a leg that nothing seems to be on the way to may close.
    pub fn take_arrivals(&mut self, leg: usize) -> Vec<(BranchId, Item<D>)> {
        let arrivals = std::mem::take(&mut self.arrivals[leg]);
        for (branch, item) in &arrivals {
            self.branches[branch.index()].outside -= u64::from(item.weight);
        }
        arrivals
    }

    /// Whether there is something for [`Engine::take_arrivals`]: [`Engine::poll`] may have let it
    /// out.
    pub fn has_arrivals(&self) -> bool {
        self.arrivals.iter().any(|arrivals| !arrivals.is_empty())
    }

    /// Whether [`Engine::next`] would hand out something for `port`; it may still say no when
    /// all that waits is held back.
    pub fn has_work(&self, port: Port) -> bool {
        let Port(t) = port;
        let units = !self.again[t].is_empty() || !self.rings[t].is_empty();
        !self.undos[t].is_empty() || (units && !self.pauses())
    }

    /// Runs the timers that are due, and closes the legs that nothing can reach any more.
    pub fn poll(&mut self, now: Time) {
        while self.timers.peek().is_some_and(|timer| timer.at <= now) {
            let Some(timer) = self.timers.pop() else {
                break;
            };
            match timer.alarm {
                Alarm::Window(branch, leg) => self.window_due(branch, leg, now),
                Alarm::Throttle(branch, leg) => self.throttle_due(branch, leg, now),
                Alarm::Retry(unit) => self.try_again(unit),
                Alarm::Reopen(branch, generation) => self.back_off_is_over(branch, generation),
            }
        }
        self.watch(now);
        self.overrun(now);
        // First what time does, then what may end by it: nobody polls again because of it.
        self.give_up_rollbacks(now);
        self.close_legs(now);
        self.end_generations(now);
        self.beat(now);
        self.evict_idle(now);
        self.settle_whole(now);
    }

    /// When [`Engine::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|timer| timer.at);
        let watch = self.watch.deadline();
        [
            timer,
            watch,
            self.rollback_deadline(),
            self.stalls.deadline(),
            self.idle_deadline(),
            self.beat_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What died inside since the last call.
    pub fn take_graveyard(&mut self) -> Graveyard<D> {
        std::mem::take(&mut self.graveyard)
    }

    /// How many timers are set: at most one per window and one per unit in back-off.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Units with a handler now.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The counts of each branch, the trunk first. What is in the driver's hand is not in them.
    pub fn branch_counts(&self) -> impl Iterator<Item = (BranchId, Counts)> {
        let ids = (0..).map(BranchId).take(self.branches.len());
        ids.map(|id| (id, self.counts_of(id)))
    }

    /// The counts of one branch.
    pub fn counts_of(&self, id: BranchId) -> Counts {
        let mut counts = self.branches[id.index()].counts();
        if id != BranchId::TRUNK {
            // Stages of the driver's may end an item before it reaches a leg of its branch: what
            // came is what came of it. What a branch made that is over may have become the trunk's.
            let accounted = counts.accounted();
            counts.produced = counts.produced.min(accounted);
            counts.received = accounted - counts.produced;
        }
        counts
    }

    /// The counts of the pipeline.
    pub fn counts(&self) -> Counts {
        let mut total = Counts::default();
        for branch in &self.branches {
            total += branch.counts();
        }
        total
    }

    /// The first failures, as samples.
    pub fn failures(&self) -> &[Failed<D>] {
        &self.failures
    }

    /// Items failed, by code.
    pub const fn codes(&self) -> &BTreeMap<String, u64> {
        &self.codes
    }

    /// The first undo actions that are done or were left out, as samples.
    pub fn undone(&self) -> &[Undone<D>] {
        &self.undone
    }

    /// The undo actions and finalizers that are stuck, the first [`MAX_STUCK`] of them.
    pub fn stuck(&self) -> &[Undone<D>] {
        &self.stuck
    }

    /// What became of the undo actions and finalizers, in numbers.
    pub const fn undone_counts(&self) -> UndoneCounts {
        self.undone_counts
    }
}
