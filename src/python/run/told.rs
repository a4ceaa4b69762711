//! What is told of single branches and undo actions, to those who ask for it, and of exceptions.

use std::collections::{HashMap, HashSet};

use anabranch_core::branch::BranchId;
use anabranch_core::clock::Time;
use anabranch_core::compensation::Policy;
use anabranch_core::engine::{Engine, Reach, RollbackLook, StepLook, StepState};
use anabranch_protocol::Text;
use anabranch_protocol::message::{
    Action, ActionState, Detail, LegDetail, Scope, ScopeLevel, UnitDetail, Win,
};
use anabranch_protocol::row::BranchKey;
use pyo3::prelude::*;

use super::super::domain::PyDomain;
use super::{Run, locked};
use crate::monitor::Pipeline;

/// Rollbacks that are told of: so many under way, stuck, and over.
const ROLLBACKS: usize = 256;
/// Units of a branch that are told.
const UNITS: usize = 32;
/// Causes of an exception that are told.
const CAUSES: usize = 4;

/// An exception and its causes, for people.
pub(super) fn told_of(error: &Bound<'_, PyAny>) -> Vec<Text> {
    let py = error.py();
    let mut chain = Vec::new();
    let mut next = Some(error.clone());
    while let Some(error) = next.take()
        && chain.len() < CAUSES
    {
        let kind = error
            .get_type()
            .name()
            .map_or_else(|_| "?".to_owned(), |it| it.to_string());
        let text = error
            .str()
            .map_or_else(|_| String::new(), |it| it.to_string_lossy().into_owned());
        chain.push(Text::name(&format!("{kind}: {text}")));
        let suppressed = error
            .getattr("__suppress_context__")
            .is_ok_and(|it| it.is_truthy().unwrap_or(true));
        let cause = error.getattr("__cause__").ok().filter(|it| !it.is_none());
        let context = || {
            error
                .getattr("__context__")
                .ok()
                .filter(|it| !it.is_none() && !suppressed)
        };
        next = cause.or_else(context);
    }
    // What went wrong while asking is nobody's business.
    drop(PyErr::take(py));
    chain
}

/// A branch in detail, if there is one of that number.
pub(super) fn detail(
    engine: &Engine<PyDomain>,
    pipeline: &Pipeline,
    id: u32,
    now: Time,
) -> Option<Detail> {
    let branch = BranchId(id);
    if id as usize >= engine.branch_count() {
        return None;
    }
    let millis = |it: std::time::Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
    let legs = engine.look_at_lanes(branch, now).into_iter().map(|lane| {
        let leg = u32::try_from(lane.leg).unwrap_or(u32::MAX);
        let facts = pipeline.facts.legs.get(lane.leg);
        let window = lane.window.map(|(n, opened)| Win {
            b: BranchKey(pipeline.number, id),
            leg,
            n,
            max: facts.and_then(|it| it.window_size),
            age_ms: millis(now.since(opened)),
            max_age_ms: facts.and_then(|it| it.window_max_age_ms),
            last: lane.left.map(|it| Text::new(it.name())),
        });
        LegDetail {
            leg,
            queued: lane.queued,
            capacity: lane.capacity,
            full_ms: lane.full.map(millis),
            in_flight: lane.in_flight,
            window,
            cut: lane.cut,
            rate: lane.rate,
        }
    });
    let durations = engine.durations_of(branch).map_or(&[][..], |it| it);
    let used = durations.iter().rposition(|count| *count > 0);
    Some(Detail {
        p: pipeline.number,
        id,
        at: pipeline.unix_ms(now.as_nanos()),
        since: pipeline.unix_ms(pipeline.slots.told_of(id as usize).entered),
        legs: legs.collect(),
        units: units(engine, pipeline, branch),
        error: engine.last_error(branch).map(Text::name),
        hist: durations[..used.map_or(0, |last| last + 1)].to_vec(),
        note: None,
        facts: Vec::new(),
    })
}

/// The units of a branch that are under way, as far as the engine can tell.
fn units(engine: &Engine<PyDomain>, pipeline: &Pipeline, branch: BranchId) -> Vec<UnitDetail> {
    let unix_ms = |at: Time| pipeline.unix_ms(at.as_nanos());
    let units = engine.look_at_units(branch, UNITS).into_iter();
    units
        .map(|unit| UnitDetail {
            leg: u32::try_from(unit.leg).unwrap_or(u32::MAX),
            items: unit.items.unwrap_or(0) as u64,
            attempt: unit.attempt,
            of: unit.of,
            since: unit.since.map(unix_ms),
            again: unit.again.map(unix_ms),
        })
        .collect()
}

/// A rollback, as those who look are told of it.
fn scope(
    pipeline: &Pipeline,
    look: RollbackLook,
    policy: Policy,
    raised: &HashMap<u64, Text>,
) -> Scope {
    let stage = |number: usize| {
        pipeline
            .facts
            .stages
            .get(number)
            .map_or("?", String::as_str)
    };
    let of_leg = |leg: usize| pipeline.facts.legs.get(leg).map(|it| it.stage as usize);
    let cause = &look.cause;
    let place = cause.stage.or_else(|| cause.leg.and_then(of_leg));
    let what = [place.map(stage), cause.code.as_deref()];
    let what: Vec<_> = what.into_iter().flatten().collect();
    let actions = look.steps.into_iter().map(|step| Action {
        n: step.order,
        name: Text::name(&step.label.name),
        stage: Text::name(stage(step.label.stage)),
        state: state(step.state),
        finalizer: step.finalizer,
        at: Some(pipeline.unix_ms(step.label.at.as_nanos())),
        took_ms: step
            .took
            .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        attempt: step.attempt,
        of: step.label.tries,
        again: None,
        error: error(&step, raised),
    });
    Scope {
        id: look.id,
        b: BranchKey(pipeline.number, look.branch.0),
        level: match look.reach {
            Reach::Unit => ScopeLevel::Unit,
            Reach::Branch => ScopeLevel::Branch,
            Reach::Run => ScopeLevel::Pipeline,
        },
        what: Text::name(&what.join(" ")),
        policy: Text::new(match policy {
            Policy::Sequential => "sequential",
            Policy::Parallel => "parallel",
            Policy::Skip => "none",
            Policy::Custom => "custom",
        }),
        start: pipeline.unix_ms(look.began.as_nanos()),
        took_ms: look
            .took
            .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        actions: actions.collect(),
    }
}

fn error(step: &StepLook, raised: &HashMap<u64, Text>) -> Option<Text> {
    let code = step.code.as_deref().map(Text::name);
    raised.get(&step.order).cloned().or(code)
}

const fn state(state: StepState) -> ActionState {
    match state {
        StepState::Pending => ActionState::Pending,
        StepState::Running => ActionState::Running,
        StepState::Done => ActionState::Done,
        StepState::Failed => ActionState::Failed,
        StepState::Unrun => ActionState::Unrun,
        StepState::Skipped => ActionState::Skipped,
    }
}

impl Run {
    /// Tells of the undo actions; `raised` is what stuck ones have raised, as far as it is known.
    pub(super) fn tell_undo(
        &self,
        py: Python<'_>,
        pipeline: &Pipeline,
        raised: &mut HashMap<u64, Text>,
    ) {
        let (looks, policy, errors) = {
            let engine = locked(&self.engine);
            let looks = engine.rollbacks(ROLLBACKS);
            let steps = looks.iter().flat_map(|it| &it.steps);
            let failed = steps.filter(|it| it.state == StepState::Failed);
            let failed: HashSet<_> = failed.map(|it| it.order).collect();
            raised.retain(|order, _| failed.contains(order));
            let stuck = engine.stuck().iter();
            let asked = stuck.filter(|it| {
                failed.contains(&it.step.order) && !raised.contains_key(&it.step.order)
            });
            let errors: Vec<_> = asked
                .filter_map(|it| Some((it.step.order, it.fate.error()?.error.clone_ref(py))))
                .collect();
            (looks, engine.rollback_policy(), errors)
        };
        for (order, error) in errors {
            let text = told_of(error.bind(py)).into_iter().next();
            raised.insert(order, text.unwrap_or_default());
        }
        let scopes = looks
            .into_iter()
            .map(|look| scope(pipeline, look, policy, raised));
        pipeline.tell_undo(scopes.collect());
    }
}
