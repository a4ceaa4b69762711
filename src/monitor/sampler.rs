//! From numbers to messages: what one client has seen of each pipeline, and what is new to it.
//!
//! Nothing is kept per branch and client but one bit (whether its name was sent) and, per pipeline,
//! the sweep up to which the client has seen all: rows that have changed later are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_protocol::message::{Names, Pipe, Stage, Stages, Tick};
use anabranch_protocol::row::{Branch, BranchKey, Cell, Columns, RowsLine, State};
use anabranch_protocol::{MAX_ROWS, Server, encode};

use super::pipeline::Pipeline;
use super::slots::Values;
use super::{sums, topics};

/// Bytes of rows in one message at most, roughly: below the longest line with room to spare.
const PIECE: usize = 160 * 1024;
/// Rows in one tick: more than a screen has.
pub(super) const MAX_VISIBLE: usize = 256;
/// For how long nothing changes in a branch that is called idle, in nanoseconds.
const IDLE: u64 = 5_000_000_000;

/// What one client has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pipelines: BTreeMap<u32, View>,
    /// The pass over all rows that is under way.
    pass: Option<Pass>,
    passes: u64,
    /// The rows it looks at, as they were when it was told of them last: the sweep in which each had
    /// changed, and its state.
    looked_at: Vec<(BranchKey, u64, State)>,
}

/// What it has seen of one pipeline.
#[derive(Debug, Default)]
struct View {
    pipe: Option<Pipe>,
    /// All changes up to this sweep.
    sent: u64,
    /// The branches whose name was sent, 64 to a word.
    named: Vec<u64>,
    stages: Vec<Stage>,
}

impl View {
    fn is_named(&self, branch: usize) -> bool {
        self.named
            .get(branch / 64)
            .is_some_and(|word| word >> (branch % 64) & 1 == 1)
    }

    /// Adds the name of a branch before its first row; returns how long it is at worst.
    fn introduce(&mut self, pipeline: &Pipeline, branch: usize, names: &mut Names) -> usize {
        if self.is_named(branch) {
            return 0;
        }
        let Some(name) = pipeline.slots.name_of(branch) else {
            return 0;
        };
        if self.named.len() <= branch / 64 {
            self.named.resize(branch / 64 + 1, 0);
        }
        self.named[branch / 64] |= 1 << (branch % 64);
        let id = u32::try_from(branch).unwrap_or(u32::MAX);
        names.r.push((pipeline.number, id, name.clone()));
        // An escaped character is six bytes long.
        32 + 6 * name.len()
    }
}

/// A pass over the rows of all pipelines, in pieces.
#[derive(Debug)]
struct Pass {
    seq: u64,
    full: bool,
    /// Where it stands.
    pipeline: u32,
    branch: usize,
    /// The sweep that is complete where it began with its pipeline.
    sweep: Option<u64>,
}

/// A piece of a table.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) names: Names,
    /// The line with the rows.
    pub(super) rows: Vec<u8>,
}

impl Seen {
    /// Begins a pass over all rows, of those that have changed or, `full`, of all. One that is under
    /// way goes on, unless all are wanted.
    pub(super) fn begin(&mut self, full: bool) {
        if self.pass.is_some() && !full {
            return;
        }
        self.passes += 1;
        self.pass = Some(Pass {
            seq: self.passes,
            full,
            pipeline: 0,
            branch: 0,
            sweep: None,
        });
    }

    /// Forgets everything: the client is told anew.
    pub(super) fn forget(&mut self) {
        self.pipelines.clear();
        self.looked_at.clear();
        self.pass = None;
    }

    /// Forgets which rows it looks at: all are told of again.
    pub(super) fn look_again(&mut self) {
        self.looked_at.clear();
    }

    /// Whether a pass is under way.
    pub(super) const fn is_passing(&self) -> bool {
        self.pass.is_some()
    }

    /// The next piece of the pass under way. A pass over changes that finds none gives none.
    pub(super) fn next(&mut self, pipelines: &[Arc<Pipeline>], columns: &Columns) -> Option<Piece> {
        let mut pass = self.pass.take()?;
        let mut names = Names::default();
        let mut rows = RowsLine::new(pass.seq, pass.full);
        // Names are escaped at worst, six bytes a character.
        let mut size = 0;
        let mut more = false;
        for pipeline in pipelines {
            if pipeline.number < pass.pipeline {
                continue;
            }
            if pipeline.number > pass.pipeline {
                (pass.pipeline, pass.branch, pass.sweep) = (pipeline.number, 0, None);
            }
            let view = self.pipelines.entry(pipeline.number).or_default();
            let sweep = *pass.sweep.get_or_insert_with(|| pipeline.slots.sweeps());
            let since = if pass.full { 0 } else { view.sent };
            let len = pipeline.slots.len();
            let now = pipeline.now();
            while pass.branch < len && rows.count() < MAX_ROWS && size + rows.size() < PIECE {
                let branch = pass.branch;
                pass.branch += 1;
                if pipeline.slots.version(branch) > since
                    && let Some((values, _)) = pipeline.slots.read(branch)
                {
                    size += view.introduce(pipeline, branch, &mut names);
                    rows.push(columns, &row(pipeline, branch, &values, now));
                }
            }
            if pass.branch < len {
                more = true;
                break;
            }
            view.sent = sweep;
            (pass.pipeline, pass.branch, pass.sweep) = (pipeline.number + 1, 0, None);
        }
        let empty = rows.count() == 0 && !pass.full;
        let rows = rows.finish(more);
        if more {
            self.pass = Some(pass);
        }
        (more || !empty).then_some(Piece { names, rows })
    }

    /// The rows that a client looks at and that are not as it was told last.
    pub(super) fn visible(
        &mut self,
        pipelines: &[Arc<Pipeline>],
        visible: &[BranchKey],
        columns: &Columns,
    ) -> (Names, Vec<Vec<Cell>>) {
        let (mut names, mut rows) = (Names::default(), Vec::new());
        let before = std::mem::take(&mut self.looked_at);
        for (place, key) in visible.iter().take(MAX_VISIBLE).enumerate() {
            let BranchKey(p, branch) = *key;
            let branch = branch as usize;
            let Some(pipeline) = pipelines.iter().find(|it| it.number == p) else {
                continue;
            };
            let Some((values, version)) = pipeline.slots.read(branch) else {
                continue;
            };
            let now = pipeline.now();
            let told = (*key, version, state(&values, now));
            self.looked_at.push(told);
            // Most look at the same rows as before, in the same order. The age of a window changes
            // by itself.
            let same = match before.get(place) {
                Some(last) if last.0 == *key => *last == told,
                _ => before.contains(&told),
            };
            if !same || values.window > 0 {
                let view = self.pipelines.entry(p).or_default();
                view.introduce(pipeline, branch, &mut names);
                rows.push(columns.write(&row(pipeline, branch, &values, now)));
            }
        }
        (names, rows)
    }

    /// The pipelines that are new, or have changed their phase.
    pub(super) fn pipes(&mut self, pipelines: &[Arc<Pipeline>]) -> Vec<Pipe> {
        let mut changed = Vec::new();
        for pipeline in pipelines {
            let view = self.pipelines.entry(pipeline.number).or_default();
            let known = view.pipe.as_ref().map(|pipe| pipe.phase);
            if known != Some(pipeline.phase()) {
                let pipe = pipeline.introduce();
                view.pipe = Some(pipe.clone());
                changed.push(pipe);
            }
        }
        changed
    }

    /// The stages that have changed.
    pub(super) fn stages(&mut self, pipelines: &[Arc<Pipeline>]) -> Stages {
        let mut changed = Vec::new();
        for pipeline in pipelines {
            let view = self.pipelines.entry(pipeline.number).or_default();
            let stages = sums::stages_of(pipeline);
            for (index, stage) in stages.iter().enumerate() {
                if view.stages.get(index) != Some(stage) {
                    changed.push(stage.clone());
                }
            }
            view.stages = stages;
        }
        Stages { r: changed }
    }
}

/// What is known of pipelines now, in the lines that a client is sent at first.
pub(super) fn picture(
    pipelines: &[Arc<Pipeline>],
    branches: bool,
    unix_ms: u64,
    out: &mut Vec<u8>,
) {
    let mut seen = Seen::default();
    let mut say = |message: Server| {
        // What would be too long is left out: of the tables pieces are made.
        let _ = encode(&message, out);
    };
    for pipe in seen.pipes(pipelines) {
        say(pipe.into());
    }
    say(seen.stages(pipelines).into());
    say(topics::errors(pipelines).into());
    let tick = Tick {
        ts: unix_ms,
        tot: pipelines.iter().map(|it| sums::totals(it)).collect(),
        ..Tick::default()
    };
    say(tick.into());
    let columns = Columns::default();
    if branches {
        seen.begin(true);
    }
    while let Some(piece) = seen.next(pipelines, &columns) {
        let _ = encode(&Server::from(piece.names), out);
        out.extend_from_slice(&piece.rows);
    }
}

/// The row of a branch.
fn row(pipeline: &Pipeline, branch: usize, values: &Values, now: u64) -> Branch {
    let id = u32::try_from(branch).unwrap_or(u32::MAX);
    let error = usize::try_from(values.error).unwrap_or(0).checked_sub(1);
    let error = error.and_then(|it| pipeline.slots.told(|told| told.codes.get(it).cloned()));
    let window = windowed(pipeline, id);
    let open = window.is_some() && values.window > 0;
    let state = state(values, now);
    // Idle is what rests: it has, since the last change.
    let entered = match state {
        State::Idle => values.since,
        _ => values.entered,
    };
    Branch {
        pipeline: pipeline.number,
        id,
        generation: u32::try_from(values.generation).unwrap_or(u32::MAX),
        state,
        received: values.received,
        committed: values.committed,
        failed: values.failed,
        dropped: values.dropped,
        queued: values.queued,
        capacity: values.capacity,
        window: window.map(|_| values.window),
        window_size: window.and_then(|(size, _)| size),
        window_age_ms: open.then(|| now.saturating_sub(values.opened) / 1_000_000),
        window_max_age_ms: window.and_then(|(_, age)| age),
        blocked_ms: values.blocked,
        in_flight: values.in_flight,
        retried: values.retried,
        compensations: values.compensations,
        compensated: values.compensated,
        stuck: values.stuck,
        dead_lettered: values.dead_lettered,
        windows: values.windows,
        last_error_at: error.is_some().then(|| pipeline.unix_ms(values.error_at)),
        last_error: error,
        since: pipeline.unix_ms(values.since),
        entered: pipeline.unix_ms(entered),
        p50: values.p50.checked_sub(1),
        p99: values.p99.checked_sub(1),
    }
}

/// Size and age that the windows of a branch may have, if it has any.
pub(super) fn windowed(pipeline: &Pipeline, id: u32) -> Option<(Option<u64>, Option<u64>)> {
    let fan_leg = pipeline.facts.fan_leg.unwrap_or(pipeline.facts.legs.len());
    let legs = &pipeline.facts.legs;
    let legs = if id == 0 {
        &legs[..fan_leg]
    } else {
        &legs[fan_leg..]
    };
    let mut windows = legs
        .iter()
        .map(|leg| (leg.window_size, leg.window_max_age_ms));
    windows.find(|(size, age)| size.is_some() || age.is_some())
}

/// What a branch is doing. One that is running is idle after a while with nothing inside.
fn state(values: &Values, now: u64) -> State {
    let index = usize::try_from(values.state).unwrap_or(usize::MAX);
    let state = State::ALL.get(index).copied().unwrap_or_default();
    let rests = values.queued == 0 && values.in_flight == 0;
    if state == State::Run && rests && now.saturating_sub(values.since) > IDLE {
        State::Idle
    } else {
        state
    }
}
