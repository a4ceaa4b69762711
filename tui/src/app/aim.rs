//! What an action is about: the marked branches, or what the cursor is on.

use anabranch_protocol::message::{Op, Target};
use anabranch_protocol::row::BranchKey;

use super::list::RowId;
use super::order::is_stuck;
use super::{Model, Screen};
use crate::store::{BranchId, ProcessId, Row};

/// One thing an action is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Aim {
    /// Its process.
    pub process: ProcessId,
    /// As the monitor knows it.
    pub on: Target,
    /// The generation the operator saw, if it is a branch; of all dead letters, how many.
    pub generation: Option<u32>,
    /// What it is called.
    pub label: String,
}

/// What an operation would be about now, or why there is nothing.
///
/// # Errors
/// The reason, for people.
pub fn aims(model: &Model, op: Op) -> Result<Vec<Aim>, String> {
    let aims = match op {
        Op::PipelineDrain | Op::PipelineCancel => match model.selected() {
            Some(RowId::Pipe(process, Some(number))) => pipeline(model, *process, *number),
            _ => None,
        }
        .into_iter()
        .collect(),
        Op::CompRetry | Op::CompSkip => undo(model),
        Op::DeadRequeue | Op::DeadDiscard => dead(model).into_iter().collect(),
        _ => branches(model),
    };
    if !aims.is_empty() {
        return Ok(aims);
    }
    Err(match op {
        Op::CompRetry | Op::CompSkip => "nothing is stuck here",
        Op::DeadRequeue | Op::DeadDiscard => "no dead letters here",
        Op::PipelineDrain | Op::PipelineCancel => "no pipeline here",
        _ => "no branch here",
    }
    .to_owned())
}

fn pipeline(model: &Model, process: ProcessId, number: u32) -> Option<Aim> {
    let name = &model.shown().pipeline(process, number)?.pipe.name;
    Some(Aim {
        process,
        on: Target {
            p: Some(number),
            ..Target::default()
        },
        generation: None,
        label: name.to_string(),
    })
}

fn branch(model: &Model, id: BranchId) -> Option<Aim> {
    let row = model.shown().row(id)?;
    let pipeline = model.shown().pipeline(id.process, id.key.0)?;
    Some(Aim {
        process: id.process,
        on: Target {
            p: Some(id.key.0),
            branch: Some(id.key.1),
            ..Target::default()
        },
        generation: Some(row.branch.generation),
        label: pipeline.tenant(id.key.1),
    })
}

/// The branch the cursor is on, whatever the screen.
pub fn branch_here(model: &Model) -> Option<BranchId> {
    if let Some(open) = model.open {
        return Some(open);
    }
    match model.selected()? {
        RowId::Branch(id) | RowId::Window(id, _) | RowId::Undo(id) => Some(*id),
        RowId::Scope(process, p, scope) | RowId::Action(process, p, scope, _) => {
            let process_now = model.shown().process(*process)?;
            let mut scopes = process_now.scopes.iter();
            let scope = scopes.find(|it| it.b.0 == *p && it.id == *scope)?;
            Some(BranchId {
                process: *process,
                key: scope.b,
            })
        }
        RowId::Log(process, number) => {
            let mut lines = model.shown().log.iter();
            let line = lines.find(|it| it.process == *process && it.entry.n == *number)?;
            Some(BranchId {
                process: *process,
                key: BranchKey(line.entry.p?, line.entry.b?),
            })
        }
        _ => None,
    }
}

fn branches(model: &Model) -> Vec<Aim> {
    if model.screen == Screen::Branches && model.open.is_none() && !model.marks.is_empty() {
        let marked = model.marks.iter();
        return marked.filter_map(|id| branch(model, *id)).collect();
    }
    let here = branch_here(model);
    here.and_then(|id| branch(model, id)).into_iter().collect()
}

fn undo(model: &Model) -> Vec<Aim> {
    let chosen = |id: BranchId, scope: Option<u64>, action: Option<u64>| {
        let process = model.shown().process(id.process)?;
        let mut scopes = process.scopes.iter().filter(|it| it.b == id.key);
        let stuck = scopes.any(|it| {
            scope.is_none_or(|wanted| it.id == wanted)
                && it.actions.iter().any(|undo| {
                    action.is_none_or(|wanted| undo.n == wanted) && is_stuck(undo.state)
                })
        });
        // Elsewhere than on their own screen only their number is known.
        let told = !process.scopes.is_empty();
        let pending = model.shown().row(id).map_or(0, Row::undone);
        (stuck || (!told && pending > 0)).then(|| Aim {
            process: id.process,
            on: Target {
                p: Some(id.key.0),
                branch: Some(id.key.1),
                scope,
                action,
                ..Target::default()
            },
            generation: None,
            label: match (scope, action) {
                (_, Some(action)) => format!("#{action}"),
                (Some(scope), None) => format!("scope {scope}"),
                _ => model
                    .shown()
                    .pipeline(id.process, id.key.0)
                    .map_or_else(String::new, |it| it.tenant(id.key.1)),
            },
        })
    };
    let ids: Vec<_> = if model.screen == Screen::Branches && !model.marks.is_empty() {
        model.marks.iter().copied().collect()
    } else {
        branch_here(model).into_iter().collect()
    };
    let (scope, action) = match model.selected() {
        Some(RowId::Scope(_, _, scope)) => (Some(*scope), None),
        Some(RowId::Action(_, _, scope, action)) => (Some(*scope), Some(*action)),
        _ => (None, None),
    };
    ids.into_iter()
        .filter_map(|id| chosen(id, scope, action))
        .collect()
}

fn dead(model: &Model) -> Option<Aim> {
    let (process, store, ids) = match model.selected()? {
        RowId::Store(process, store) => (process, store, vec![]),
        RowId::Dead(process, store, id) => (process, store, vec![id.to_string()]),
        _ => return None,
    };
    let known = model.shown().process(*process)?;
    let all = known.stores.iter().find(|it| it.store == *store);
    let all = all.map_or(0, |it| it.dead);
    let listed = known.dead.get(store).map_or(0, |(all, _)| *all);
    (all > 0 || listed > 0).then(|| Aim {
        process: *process,
        label: ids.first().cloned().unwrap_or_else(|| match &**store {
            "" => known.label(),
            store => store.to_owned(),
        }),
        on: Target {
            store: Some(store.to_string()).filter(|it| !it.is_empty()),
            ids,
            ..Target::default()
        },
        generation: None,
    })
}
