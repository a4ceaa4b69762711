//! What a target that was written down may be.

use anabranch_protocol::message::{Op, Phase, Target};

use super::Order;
use crate::app::act::verb;
use crate::store::{Process, ProcessId, Store};

/// Names that are told where a target is not known.
const NAMED: usize = 8;

/// What a target is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aim {
    pub(super) process: ProcessId,
    pub(super) op: Op,
    pub(super) on: Target,
    pub(super) generation: Option<u32>,
    /// As it is told: `ingest/acme`.
    pub(super) label: String,
}

/// What the target may be: a pipeline by name, a branch by its tenant, or both in one.
pub(super) fn aims(store: &Store, order: &Order) -> Vec<Aim> {
    let mut aims = Vec::new();
    for (id, process) in store.processes() {
        for (number, pipeline) in &process.pipelines {
            if pipeline.totals.phase == Phase::End {
                continue;
            }
            let name = &*pipeline.pipe.name;
            let on = |branch| Target {
                p: Some(*number),
                branch,
                ..Target::default()
            };
            if let Some(op) = order.pipeline.filter(|_| order.target == name) {
                aims.push(Aim {
                    process: id,
                    op,
                    on: on(None),
                    generation: None,
                    label: name.to_owned(),
                });
            }
            let inside = order.target.strip_prefix(name);
            let inside = inside.and_then(|it| it.strip_prefix('/'));
            for row in pipeline.rows.iter().filter(|row| row.id > 0) {
                // What cannot be seen of a name may be written as it is shown, too.
                let names = [&*row.tenant, &*row.shown()];
                let is_meant = |given: &str| row.named && names.contains(&given);
                if inside.is_some_and(is_meant) || is_meant(&order.target) {
                    aims.push(Aim {
                        process: id,
                        op: order.branch,
                        on: on(Some(row.id)),
                        generation: Some(row.branch.generation),
                        label: format!("{name}/{}", row.shown()),
                    });
                }
            }
        }
    }
    aims
}

/// The stores of that name; where none is told of, the process decides.
pub(super) fn stores(store: &Store, order: &Order) -> Vec<Aim> {
    let known = |process: &Process| process.stores.iter().any(|it| *it.store == *order.target);
    let aim = |process| Aim {
        process,
        op: order.branch,
        on: Target {
            store: Some(order.target.clone()),
            ids: order.ids.clone(),
            ..Target::default()
        },
        generation: None,
        label: order.target.clone(),
    };
    let processes = store.processes().filter(|(_, it)| known(it));
    let aims: Vec<_> = processes.map(|(id, _)| aim(id)).collect();
    let mut all = store.processes().map(|(id, _)| aim(id));
    match (all.next(), all.next()) {
        (Some(only), None) if aims.is_empty() => vec![only],
        _ => aims,
    }
}

/// What to say where nothing has that name.
pub(super) fn unknown(store: &Store, order: &Order) -> String {
    let target = &order.target;
    if is_about_letters(order.branch) {
        let stores = store.processes().flat_map(|(_, it)| &it.stores);
        let there = listed(stores.map(|it| it.store.to_string()), "none is shown");
        return format!("no outbox is called {target:?}; of outboxes {there}");
    }
    let running = store
        .processes()
        .flat_map(|(_, process)| process.pipelines.values())
        .filter(|it| it.totals.phase != Phase::End);
    let names: Vec<_> = running.map(|it| it.pipe.name.to_string()).collect();
    if names.contains(target) {
        let verb = verb(order.branch);
        return format!(
            "{target:?} is a pipeline, and {verb} is for a branch: name it as {target}/TENANT"
        );
    }
    let running = listed(names.into_iter(), "none runs");
    format!(
        "no branch or pipeline is called {target:?}; of pipelines {running} (see anabranch top --once)"
    )
}

/// Some of what there is; `none` if there is nothing.
fn listed(names: impl Iterator<Item = String>, none: &str) -> String {
    let names: Vec<_> = names.take(NAMED).collect();
    match names.as_slice() {
        [] => none.to_owned(),
        names => format!("there are {}", names.join(", ")),
    }
}

/// Whether it is about dead letters.
pub(super) const fn is_about_letters(op: Op) -> bool {
    matches!(op, Op::DeadRequeue | Op::DeadDiscard | Op::DeadPeek)
}

/// A target with its process.
pub(super) fn named(store: &Store, aim: &Aim) -> String {
    let process = store.process(aim.process).map(Process::label);
    format!("{} in {}", aim.label, process.unwrap_or_default())
}
