//! What is told on topics of their own: windows, undo actions, errors, and single branches.

use std::cmp::Reverse;
use std::sync::Arc;

use anabranch_core::window::Reason;
use anabranch_protocol::message::{Comp, Detail, ErrorRow, Errors, Scope, Win, Windows};
use anabranch_protocol::row::BranchKey;
use anabranch_protocol::{MAX_LINE, MAX_ROWS, Text};

use super::pipeline::Pipeline;
use super::sampler::windowed;
use super::slots::{ErrorCount, Told};

/// Codes that are told of, over all pipelines.
const CODES: usize = 256;
/// Branches that are named with a code.
pub const BRANCHES: usize = 8;
/// Bytes of undo actions at most: what is more waits until some of it is over.
const UNDO: usize = MAX_LINE / 2;

/// Why windows leave, in the order of their places in a slot.
pub const REASONS: &[Reason] = &[
    Reason::Size,
    Reason::Age,
    Reason::Idle,
    Reason::Bytes,
    Reason::Close,
];

/// The reason at a place, from 1.
fn reason(place: u64) -> Option<Text> {
    let place = usize::try_from(place).ok()?.checked_sub(1)?;
    REASONS.get(place).map(|it| Text::new(it.name()))
}

/// The open windows: the late ones first.
pub(super) fn windows(pipelines: &[Arc<Pipeline>]) -> Windows {
    let mut open = Vec::new();
    for pipeline in pipelines.iter().filter(|it| !it.has_ended()) {
        let now = pipeline.now();
        let fan_leg = pipeline.facts.fan_leg.unwrap_or(pipeline.facts.legs.len());
        // Of ten thousand branches most may have none: those are not read.
        let trunk = windowed(pipeline, 0).map(|_| 0..1);
        let branches = windowed(pipeline, 1).map(|_| 1..pipeline.slots.len());
        let ids = [trunk, branches].into_iter().flatten().flatten();
        for id in ids.filter(|id| pipeline.slots.has_window(*id)) {
            let Some((values, _)) = pipeline.slots.read(id) else {
                continue;
            };
            let id = u32::try_from(id).unwrap_or(u32::MAX);
            let (max, max_age_ms) = windowed(pipeline, id).unwrap_or_default();
            let first = if id == 0 { 0 } else { fan_leg };
            let is_window = |leg: &usize| {
                let leg = &pipeline.facts.legs[*leg];
                leg.window_size.is_some() || leg.window_max_age_ms.is_some()
            };
            let leg = (first..pipeline.facts.legs.len())
                .find(is_window)
                .unwrap_or(first);
            open.push(Win {
                b: BranchKey(pipeline.number, id),
                leg: u32::try_from(leg).unwrap_or(u32::MAX),
                n: values.window,
                max,
                age_ms: now.saturating_sub(values.opened) / 1_000_000,
                max_age_ms,
                last: reason(values.left),
            });
        }
    }
    let all = open.len() as u64;
    let lateness = |win: &Win| {
        let age = i128::from(win.age_ms) - win.max_age_ms.map_or(i128::from(u64::MAX), i128::from);
        Reverse((age, win.n))
    };
    open.sort_by_key(lateness);
    open.truncate(MAX_ROWS);
    Windows { all, r: open }
}

/// Errors by code, the last first.
pub(super) fn errors(pipelines: &[Arc<Pipeline>]) -> Errors {
    let mut rows = Vec::new();
    for pipeline in pipelines {
        let now = pipeline.now() / 60_000_000_000;
        let told = pipeline.slots.told(Told::clone);
        let from = rows.len();
        for (code, error) in told.codes.iter().zip(&told.errors) {
            let within = |minutes: u64| {
                let fresh = |(minute, _): &&(u64, u64)| now.saturating_sub(*minute) < minutes;
                error
                    .minutes
                    .iter()
                    .filter(fresh)
                    .map(|(_, items)| items)
                    .sum()
            };
            rows.push(ErrorRow {
                p: pipeline.number,
                code: code.clone(),
                n: error.items,
                n1: within(1),
                n5: within(5),
                n60: within(60),
                first: pipeline.unix_ms(error.seen.0),
                last: pipeline.unix_ms(error.seen.1),
                branches: Vec::new(),
                stage: stage_of(pipeline, &told, code, error),
                sample: error.sample.clone(),
            });
        }
        name_branches(pipeline, &told, &mut rows[from..]);
    }
    rows.sort_by_key(|row| Reverse(row.last));
    rows.truncate(CODES);
    Errors { r: rows }
}

/// The stage whose last failure had this code; if all have had others since, that of its sample.
fn stage_of(pipeline: &Pipeline, told: &Told, code: &Text, error: &ErrorCount) -> Text {
    let mut stages = told.stages.iter();
    let last = stages.position(|stage| stage.last_error.as_ref() == Some(code));
    let name = last
        .or(error.stage)
        .and_then(|it| pipeline.facts.stages.get(it));
    name.map_or_else(Text::default, |name| Text::name(name))
}

/// Names the branches each code came up in, the last first.
fn name_branches(pipeline: &Pipeline, told: &Told, rows: &mut [ErrorRow]) {
    if rows.is_empty() {
        return;
    }
    let mut found: Vec<Vec<(u64, u32)>> = vec![Vec::new(); rows.len()];
    for id in 0..pipeline.slots.len() {
        let Some((at, place)) = pipeline.slots.error_of(id) else {
            continue;
        };
        if let Some(branches) = found.get_mut(place) {
            branches.push((at, u32::try_from(id).unwrap_or(u32::MAX)));
        }
    }
    for ((row, mut branches), error) in rows.iter_mut().zip(found).zip(&told.errors) {
        let again = |it: &&(u64, u32)| branches.iter().all(|(_, branch)| *branch != it.1);
        let former: Vec<_> = error.former.iter().filter(again).copied().collect();
        branches.extend(former);
        branches.sort_unstable_by_key(|it| Reverse(*it));
        row.branches = branches.iter().take(BRANCHES).map(|it| it.1).collect();
    }
}

/// The undo actions: of each pipeline those under way, those that are stuck, the last ones done.
pub(super) fn undo(pipelines: &[Arc<Pipeline>]) -> Comp {
    let mut told = Comp::default();
    let mut size = 0;
    for scope in pipelines.iter().flat_map(|it| it.undo()) {
        size += measured(&scope);
        if size > UNDO {
            break;
        }
        told.r.push(scope);
    }
    told
}

/// Bytes of a scope on the wire.
fn measured(scope: &Scope) -> usize {
    serde_json::to_vec(scope).map_or(0, |it| it.len())
}

/// A branch in detail.
pub(super) fn detail(pipelines: &[Arc<Pipeline>], BranchKey(p, id): BranchKey) -> Option<Detail> {
    let pipeline = pipelines.iter().find(|it| it.number == p)?;
    pipeline.detail(id)
}
