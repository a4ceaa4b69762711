//! What the driving thread tells those who look: a pulse per slice, a sweep now and then, and which
//! callable it is in.
//!
//! With nobody looking a slice costs one lock of the engine more, which is free, and some stores; a
//! sweep is at most one part in two thousand of the time (`monitor/slots.rs`).

mod errors;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::branch::{BranchId, State};
use anabranch_core::clock::Time;
use anabranch_core::engine::{Engine, Look, Stage};
use anabranch_protocol::Text;
use anabranch_protocol::histogram::quantile;
use anabranch_protocol::message::{Phase, Severity};
use anabranch_protocol::row::State as Shown;
use pyo3::prelude::*;

use super::super::domain::PyDomain;
use super::told;
use super::{FINISHED, Hand, IDLE, MORE, Run, locked};
use crate::monitor::{LegValues, Looked, Pipeline, Pulse, REASONS, StageTold, Sums, Values};

/// Branches that are told of between two looks at the clock.
const PIECE: usize = 256;
/// Branches that are told of one by one while nobody looks, a slot of some 200 bytes for each; of
/// those beyond there are only the sums, until somebody does. A run with more does not tell of all
/// once more when it ends, either.
const SMALL: usize = 16_384;

/// The sweep under way, and what it needs from the one before.
#[derive(Debug)]
pub(super) struct Watch {
    pipeline: Arc<Pipeline>,
    began: Time,
    took: Duration,
    /// The next branch to be told of; `None` between two sweeps.
    next: Option<usize>,
    sums: Sums,
    /// Undo actions that have not run, by branch, and those that are stuck.
    left: HashMap<BranchId, u64>,
    stuck: HashMap<BranchId, u64>,
    /// The place of each code, and how often it had come up.
    codes: HashMap<String, (u64, u64)>,
    /// What those who look want to be told of beyond the numbers.
    looked: Looked,
    /// The stuck actions that are told of: what each has raised.
    raised: HashMap<u64, Text>,
}

const fn phase(stage: Stage) -> Phase {
    match stage {
        Stage::Running => Phase::Run,
        Stage::Draining => Phase::Drain,
        Stage::Aborting => Phase::Abort,
    }
}

const fn shown(state: State, full: bool) -> Shown {
    match state {
        State::Open if full => Shown::Full,
        State::Open => Shown::Run,
        State::Paused => Shown::Paused,
        State::Draining => Shown::Draining,
        State::Restarting => Shown::Restarting,
        State::Failed => Shown::Failed,
        State::Evicted => Shown::Evicted,
        State::Removed => Shown::Removed,
    }
}

fn place<T: PartialEq>(all: &[T], one: &T) -> u64 {
    all.iter().position(|it| it == one).unwrap_or(0) as u64
}

impl Watch {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        Self {
            pipeline,
            began: Time::ZERO,
            took: Duration::ZERO,
            // The first slice tells of what there is.
            next: Some(0),
            sums: Sums::default(),
            left: HashMap::new(),
            stuck: HashMap::new(),
            codes: HashMap::new(),
            looked: Looked::default(),
            raised: HashMap::new(),
        }
    }

    /// There is something to tell, as soon as can be.
    pub(super) fn hurry(&mut self) {
        self.next.get_or_insert(0);
    }

    fn is_due(&self, now: Time) -> bool {
        let age = now.since(Time::ZERO);
        let interval = || self.pipeline.slots.interval(self.took, age);
        self.next.is_some() || self.pipeline.is_looked_anew() || now.since(self.began) >= interval()
    }

    fn pulse(&self, engine: &Engine<PyDomain>, now: Time, asleep: bool) {
        let pulse = Pulse {
            at: now.as_nanos(),
            phase: place(Phase::ALL, &phase(engine.stage())),
            taken: engine.taken(),
            inside: engine.inside(),
            in_flight: engine.in_flight() as u64,
        };
        self.pipeline.slots.pulse(&pulse, asleep);
    }

    /// Tells of the next piece; returns which branches that were, and whether they were the last.
    fn sweep(&mut self, engine: &mut Engine<PyDomain>, now: Time) -> (usize, usize, bool) {
        let first = self.next.unwrap_or(0);
        if first == 0 {
            if let Some(looked) = self.pipeline.looked() {
                engine.measure(looked.branches.iter().copied().map(BranchId).collect());
                self.looked = looked;
            }
            self.began = now;
            self.took = Duration::ZERO;
            // First: the branches name the codes by their places.
            let codes = &mut self.codes;
            self.pipeline.slots.retell(|told| {
                for (code, items) in engine.codes() {
                    errors::count(codes, told, code, *items, now);
                }
            });
            self.sums = Sums::default();
            self.left.clear();
            for (branch, left) in engine.undos_left() {
                *self.left.entry(branch).or_default() += left as u64;
            }
            self.stuck.clear();
            for undone in engine.stuck() {
                *self.stuck.entry(undone.branch).or_default() += 1;
            }
        }
        let count = engine.branch_count();
        let end = count.min(first + PIECE);
        let watched = self.pipeline.slots.is_wanted();
        for index in first..end {
            let id = BranchId(u32::try_from(index).unwrap_or(u32::MAX));
            let look = engine.look(id, now);
            let durations = engine.durations_of(id).map_or(&[][..], |it| it);
            let values = self.values(id, &look, engine.last_error(id), durations, now);
            if watched || index < SMALL {
                self.pipeline.slots.tell(index, &values);
            }
            self.add(id, &values, now);
        }
        let over = end == count;
        self.next = (!over).then_some(end);
        if over {
            self.finish(engine, count, now);
        }
        (first, end, over)
    }

    fn values(
        &self,
        id: BranchId,
        look: &Look,
        last_error: Option<&str>,
        durations: &[u64],
        now: Time,
    ) -> Values {
        let quantile = |share| quantile(durations, share).map_or(0, |it| it + 1);
        let slots = &self.pipeline.slots;
        let before = slots.told_of(id.0 as usize);
        let (state, generation) = look.life;
        let (window, opened) = look.window.unwrap_or((0, Time::ZERO));
        let counts = &look.counts;
        let error = match last_error.map(|code| self.codes.get(code)) {
            None => 0,
            Some(Some((place, _))) => *place,
            // There are more codes than are told of.
            Some(None) => before.error,
        };
        let mut values = Values {
            generation: u64::from(generation),
            state: place(Shown::ALL, &shown(state, look.full)),
            // What weighs more than one item may be inside: it is counted in full when it ends.
            received: counts.received.max(before.received),
            committed: counts.committed,
            failed: counts.failed,
            dropped: counts.dropped + counts.filtered,
            dead_lettered: counts.dead_lettered,
            queued: look.queued,
            capacity: look.capacity,
            window,
            opened: if window == 0 { 0 } else { opened.as_nanos() },
            in_flight: look.in_flight,
            retried: counts.retried,
            compensations: self.left.get(&id).copied().unwrap_or(0),
            compensated: look.undone,
            stuck: self.stuck.get(&id).copied().unwrap_or(0),
            windows: counts.windows,
            left: look.left.map_or(0, |it| place(REASONS, &it) + 1),
            blocked: u64::try_from(look.blocked.as_millis()).unwrap_or(u64::MAX),
            error,
            error_at: before.error_at,
            since: before.since,
            entered: before.entered,
            p50: quantile(0.5),
            p99: quantile(0.99),
        };
        if values.failed != before.failed {
            values.error_at = now.as_nanos();
        }
        if values.error != before.error && before.error > 0 {
            slots.retell(|told| errors::was(told, before.error, before.error_at, id.0));
        }
        let life = |it: &Values| (it.state, it.generation);
        if life(&values) != life(&before) {
            values.entered = now.as_nanos();
        }
        if values != before {
            values.since = now.as_nanos();
        }
        let failed = place(Shown::ALL, &Shown::Failed);
        if values.state == failed && before.state != failed {
            let what = format!(
                "the branch has failed: {}",
                last_error.unwrap_or("by command")
            );
            self.pipeline
                .report(Severity::Error, Some(id.0), &what, now);
        }
        values
    }

    fn add(&mut self, id: BranchId, values: &Values, now: Time) {
        let sums = &mut self.sums;
        let all = &mut sums.values;
        all.committed += values.committed;
        all.failed += values.failed;
        all.dropped += values.dropped;
        all.dead_lettered += values.dead_lettered;
        all.retried += values.retried;
        all.compensations += values.compensations;
        all.windows += values.windows;
        if id != BranchId::TRUNK
            && let Some(count) = usize::try_from(values.state)
                .ok()
                .and_then(|it| sums.states.get_mut(it))
        {
            *count += 1;
        }
        if values.window > 0 {
            let facts = &self.pipeline.facts;
            let windowed = facts
                .legs
                .iter()
                .find(|it| it.window_size.is_some() || it.window_max_age_ms.is_some());
            let age = now.since(Time::from_nanos(values.opened)).as_millis();
            if let Some(leg) = windowed {
                let late = leg
                    .window_max_age_ms
                    .is_some_and(|most| age > u128::from(most));
                sums.late += u64::from(late);
                if let Some(size) = leg.window_size {
                    sums.fill.0 += values.window;
                    sums.fill.1 += size;
                }
            }
        }
    }

    /// Tells of the whole.
    fn finish(&mut self, engine: &Engine<PyDomain>, count: usize, now: Time) {
        let slots = &self.pipeline.slots;
        let watched = slots.is_wanted();
        for leg in 0..engine.leg_count() {
            let look = engine.look_at_leg(leg);
            let values = LegValues {
                inside: look.inside,
                passed: look.gauge.passed,
                retried: look.gauge.retried,
                dropped: look.gauge.dropped,
                in_flight: if watched { engine.in_flight_of(leg) } else { 0 },
                durations: look.gauge.durations(),
            };
            slots.tell_leg(leg, &values);
        }
        let mut sums = std::mem::take(&mut self.sums);
        sums.values.blocked = u64::try_from(engine.blocked(now).as_millis()).unwrap_or(u64::MAX);
        let undone = engine.undone_counts();
        sums.compensated = undone.done;
        sums.stuck = engine.stuck().len() as u64;
        let before = slots.told(|told| told.sums.stuck);
        if sums.stuck > before {
            let (verb, s) = if sums.stuck == 1 {
                ("is", "")
            } else {
                ("are", "s")
            };
            let (stuck, more) = (sums.stuck, sums.stuck - before);
            let what = format!("{stuck} undo action{s} {verb} stuck: {more} more");
            self.pipeline.report(Severity::Error, None, &what, now);
        }
        slots.retell(|told| {
            sums.undoing_since = (sums.values.compensations > 0)
                .then(|| told.sums.undoing_since.unwrap_or(now.as_nanos()));
            told.sums = sums;
            told.stages.clear();
            told.stages
                .extend(engine.stages().iter().map(|stage| StageTold {
                    failed: stage.failed,
                    compensated: stage.undone,
                    last_error: stage.last_error.as_deref().map(Text::name),
                }));
        });
        let details = self.looked.details.iter();
        let details = details.filter_map(|id| told::detail(engine, &self.pipeline, *id, now));
        self.pipeline.tell_details(details.collect());
        slots.swept(count);
    }
}

impl Run {
    /// The driver calls a callable of a stage: whoever looks sees where it is until it has left.
    pub(super) fn enter_call(&self, stage: usize, branch: BranchId) {
        if let Some(pipeline) = &self.watched {
            pipeline.slots.enter(stage, branch.0, self.now().as_nanos());
        }
    }

    /// It has come back.
    pub(super) fn leave_call(&self) {
        if let Some(pipeline) = &self.watched {
            pipeline.slots.leave();
        }
    }

    /// Tells, at the end of a slice, what there is to tell. Returns what the slice said, or that
    /// there is more to do: the sweep under way.
    pub(super) fn tell_watchers(&self, py: Python<'_>, hand: &mut Hand, said: u8) -> u8 {
        let Some(watch) = &mut hand.watch else {
            return said;
        };
        let now = self.now();
        watch.pulse(&locked(&self.engine), now, said == IDLE);
        let last = said == FINISHED;
        if last {
            let small = locked(&self.engine).branch_count() <= SMALL;
            if !small && !watch.pipeline.slots.is_wanted() {
                return said;
            }
            watch.next = Some(0);
        }
        if !watch.is_due(now) {
            return said;
        }
        loop {
            let began = self.shared.now();
            let (first, end, over) = watch.sweep(&mut locked(&self.engine), now);
            self.name_branches(py, &watch.pipeline, first..end);
            if over {
                self.sample_errors(py, &watch.pipeline);
            }
            if over && watch.looked.undo {
                self.tell_undo(py, &watch.pipeline, &mut watch.raised);
            }
            watch.took += self.shared.now().since(began);
            if over {
                return said;
            }
            if !last {
                // The rest in the next slices.
                return if said == IDLE { MORE } else { said };
            }
        }
    }

    /// Names branches that have no name yet, as their tenants are shown.
    fn name_branches(&self, py: Python<'_>, pipeline: &Pipeline, ids: std::ops::Range<usize>) {
        for id in ids {
            if id > 0 && !pipeline.slots.is_named(id) {
                let branch = BranchId(u32::try_from(id).unwrap_or(u32::MAX));
                let tenant = self.tenant(py, branch);
                let name = tenant.and_then(|it| it.bind(py).str().ok());
                let name = name
                    .map(|it| it.to_string_lossy().into_owned())
                    .unwrap_or_default();
                pipeline.slots.name(id, || Text::name(&name));
            }
        }
    }
}
