//! The sums of a pipeline and of its stages, as they are told.

use anabranch_protocol::Text;
use anabranch_protocol::histogram::quantile;
use anabranch_protocol::message::{Call, Phase, Stage, States, Totals};
use anabranch_protocol::row::State;

use super::pipeline::Pipeline;
use super::slots::{Pulse, StageTold, Sums, Values};

/// The sums of one pipeline.
pub(super) fn totals(pipeline: &Pipeline) -> Totals {
    let slots = &pipeline.slots;
    let (pulse, asleep) = slots.last_pulse();
    let phase = pipeline.phase();
    let now = pipeline.now();
    // The sums alone: with the errors they would be some kilobytes, each tick.
    let sums: Sums = slots.told(|told| told.sums.clone());
    let Values {
        committed,
        failed,
        dropped,
        dead_lettered,
        retried,
        compensations,
        windows,
        ..
    } = sums.values;
    let call = slots.call().filter(|_| phase != Phase::End);
    let branch = |id: u32| (id > 0).then_some(id);
    let call = call.map(|(stage, id, since)| Call {
        stage: Text::name(pipeline.facts.stages.get(stage).map_or("?", String::as_str)),
        since: pipeline.unix_ms(since),
        branch: branch(id),
    });
    let durations = durations(pipeline);
    let (inside, room) = sums.fill;
    Totals {
        p: pipeline.number,
        phase,
        received: pulse.taken,
        committed,
        failed,
        dropped,
        dead_lettered,
        retried,
        compensations,
        compensated: sums.compensated,
        stuck: sums.stuck,
        comp_age_ms: sums
            .undoing_since
            .map(|since| now.saturating_sub(since) / 1_000_000),
        queued: pulse.inside,
        in_flight: pulse.in_flight,
        windows,
        late: sums.late,
        window_fill: (room > 0).then(|| 100 * inside / room),
        blocked_ms: sums.values.blocked,
        branches: states(&sums.states),
        p50: quantile(&durations, 0.5),
        p99: quantile(&durations, 0.99),
        sweep: slots.sweeps(),
        at: pipeline.unix_ms(answering(&pulse, asleep, now)),
        call,
        lease_ms: None,
        lag_ms: None,
    }
}

/// Up to when what the driver has told is true: one that waits has nothing to add.
const fn answering(pulse: &Pulse, asleep: bool, now: u64) -> u64 {
    if asleep { now } else { pulse.at }
}

fn states(counts: &[u64; 9]) -> States {
    let of = |state: State| {
        let index = State::ALL.iter().position(|it| *it == state);
        index
            .and_then(|index| counts.get(index))
            .copied()
            .unwrap_or(0)
    };
    States {
        all: counts.iter().sum(),
        run: of(State::Run),
        idle: of(State::Idle),
        full: of(State::Full),
        pause: of(State::Paused),
        drain: of(State::Draining),
        restart: of(State::Restarting),
        fail: of(State::Failed),
        over: of(State::Evicted) + of(State::Removed),
    }
}

/// How long all attempts took, over all legs that call something.
fn durations(pipeline: &Pipeline) -> Vec<u64> {
    let mut all = Vec::new();
    for leg in (0..pipeline.slots.legs()).filter_map(|leg| pipeline.slots.leg(leg)) {
        all.resize(leg.durations.len(), 0);
        for (sum, count) in all.iter_mut().zip(leg.durations) {
            *sum += count;
        }
    }
    all
}

/// The stages of a pipeline.
pub(super) fn stages_of(pipeline: &Pipeline) -> Vec<Stage> {
    let (mut told, taken) = pipeline
        .slots
        .told(|told| (told.stages.clone(), told.sums.values));
    told.resize(pipeline.facts.stages.len(), StageTold::default());
    let mut stages: Vec<_> = told
        .into_iter()
        .enumerate()
        .map(|(index, told)| Stage {
            p: pipeline.number,
            s: u32::try_from(index).unwrap_or(u32::MAX),
            failed: told.failed,
            compensated: told.compensated,
            last_error: told.last_error,
            ..Stage::default()
        })
        .collect();
    if let Some(source) = stages.first_mut() {
        let (pulse, _) = pipeline.slots.last_pulse();
        (source.received, source.passed) = (pulse.taken, pulse.taken);
        source.blocked_ms = taken.blocked;
    }
    for (leg, facts) in pipeline.facts.legs.iter().enumerate() {
        let Some(values) = pipeline.slots.leg(leg) else {
            continue;
        };
        if let Some(stage) = stages.get_mut(facts.stage as usize) {
            stage.received += values.passed + values.inside;
            stage.passed += values.passed;
            stage.queued += values.inside;
            stage.retried += values.retried;
            stage.dropped += values.dropped;
            stage.in_flight += values.in_flight;
            let used = values.durations.iter().rposition(|count| *count > 0);
            stage.hist = values.durations[..used.map_or(0, |last| last + 1)].to_vec();
        }
    }
    stages
}
