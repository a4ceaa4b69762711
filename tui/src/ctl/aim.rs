//! What a target that was written down may be.

use anabranch_protocol::message::{Op, Phase, Target};

use super::Order;
use crate::store::{Process, ProcessId, Store};

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
                let tenant = &*row.tenant;
                if inside == Some(tenant) || order.target == tenant {
                    aims.push(Aim {
                        process: id,
                        op: order.branch,
                        on: on(Some(row.id)),
                        generation: Some(row.branch.generation),
                        label: format!("{name}/{tenant}"),
                    });
                }
            }
        }
    }
    aims
}

/// The stores of that name; where none is told of, the process decides.
pub(super) fn letters(store: &Store, order: &Order) -> Vec<Aim> {
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
    let names: Vec<_> = store
        .processes()
        .flat_map(|(_, process)| process.pipelines.values())
        .map(|pipeline| pipeline.pipe.name.to_string())
        .take(8)
        .collect();
    let running = match names.as_slice() {
        [] => "none runs".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    format!(
        "no branch or pipeline is called {:?}; of pipelines {running} (see anabranch top --once)",
        order.target
    )
}

/// A target with its process.
pub(super) fn named(store: &Store, aim: &Aim) -> String {
    let process = store.process(aim.process).map(Process::label);
    format!("{} in {}", aim.label, process.unwrap_or_default())
}
