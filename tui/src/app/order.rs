//! Which rows each screen has, and in which order.

use std::collections::BTreeMap;

use anabranch_protocol::message::{ActionState, Scope, ScopeLevel};
use anabranch_protocol::row::BranchKey;

use super::columns::{Column, Sort};
use super::list::RowId;
use super::{Model, Screen};
use crate::filter::Filter;
use crate::store::{BranchId, Process, ProcessId, Row, Store};

/// The rows of a screen.
pub fn rows(model: &Model, screen: Screen) -> Vec<RowId> {
    let store = model.shown();
    match screen {
        Screen::Pipes => pipes(store),
        Screen::Branches => {
            let ids = branches(store, &model.filter, model.sort, model.scope);
            ids.into_iter().map(RowId::Branch).collect()
        }
        Screen::Windows => windows(model, store),
        Screen::Comps => undo(model, store),
        Screen::Outbox => outbox(model, store),
        Screen::Errors => errors(model, store),
        Screen::Log => log(model, store),
    }
}

fn pipes(store: &Store) -> Vec<RowId> {
    let mut rows = Vec::new();
    // Those that are lost may be many, and nothing is to be done to them.
    let mut processes: Vec<_> = store.processes().collect();
    processes.sort_by_key(|(_, process)| process.is_lost());
    for (id, process) in processes {
        rows.extend(
            process
                .pipelines
                .keys()
                .map(|it| RowId::Pipe(id, Some(*it))),
        );
        if process.pipelines.is_empty() {
            rows.push(RowId::Pipe(id, None));
        }
    }
    rows
}

/// The branches that a filter shows, of one pipeline or of all, in the order wanted.
pub fn branches(
    store: &Store,
    filter: &Filter,
    sort: Sort,
    scope: Option<(ProcessId, u32)>,
) -> Vec<BranchId> {
    let mut shown: Vec<(&Row, BranchId)> = Vec::new();
    for (id, process) in store.processes() {
        let label = process.label();
        for (number, pipeline) in &process.pipelines {
            let inside = scope.is_none_or(|it| it == (id, *number));
            if !inside || !filter.allows(&label, &pipeline.pipe.name) {
                continue;
            }
            let rows = pipeline.rows.iter();
            let rows = rows.filter(|row| pipeline.shows(row) && filter.shows(row));
            shown.extend(rows.map(|row| {
                let key = BranchKey(*number, row.id);
                (row, BranchId { process: id, key })
            }));
        }
    }
    // What is compared is taken out of the rows first, and equals are ordered by their number: ten
    // thousand rows are too many to be looked at once more in each comparison.
    match sort.column {
        Column::Tenant => sorted(shown, sort.falling, |row, id| (&*row.tenant, id)),
        Column::Pipeline => sorted(shown, sort.falling, |_, id| id),
        column => {
            let falling = sort.falling;
            sorted(shown, false, |row, id| {
                let rank = column.rank(row);
                (if falling { u64::MAX - rank } else { rank }, id)
            })
        }
    }
}

fn sorted<'a, K: Ord>(
    rows: Vec<(&'a Row, BranchId)>,
    falling: bool,
    key: impl Fn(&'a Row, BranchId) -> K,
) -> Vec<BranchId> {
    let mut keyed: Vec<(K, BranchId)> = rows
        .into_iter()
        .map(|(row, id)| (key(row, id), id))
        .collect();
    keyed.sort_unstable_by(|left, right| {
        let order = left.0.cmp(&right.0);
        if falling { order.reverse() } else { order }
    });
    keyed.into_iter().map(|(_, id)| id).collect()
}

/// Processes with what of them is in the scope.
fn inside<'a>(
    model: &'a Model,
    store: &'a Store,
) -> impl Iterator<Item = (ProcessId, &'a Process, Option<u32>)> {
    store.processes().filter_map(|(id, process)| {
        let only = match model.scope {
            Some((scope, pipeline)) if scope == id => Some(pipeline),
            Some(_) => return None,
            None => None,
        };
        Some((id, process, only))
    })
}

fn windows(model: &Model, store: &Store) -> Vec<RowId> {
    let mut rows = Vec::new();
    for (id, process, only) in inside(model, store) {
        for window in &process.windows.1 {
            if only.is_none_or(|it| it == window.b.0) {
                // The latest first: by how far each is over its limit, then by how near.
                let over = window.max_age_ms.map_or(0.0, |most| {
                    crate::format::real(window.age_ms) / crate::format::real(most.max(1))
                });
                let branch = BranchId {
                    process: id,
                    key: window.b,
                };
                rows.push((over, RowId::Window(branch, window.leg)));
            }
        }
    }
    rows.sort_by(|left, right| right.0.total_cmp(&left.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Whether an operator is needed for an undo action.
pub const fn is_stuck(state: ActionState) -> bool {
    matches!(state, ActionState::Failed | ActionState::Unrun)
}

/// Whether anything of a scope is still to be done.
pub fn is_open(scope: &Scope) -> bool {
    scope.actions.iter().any(|action| {
        is_stuck(action.state)
            || matches!(action.state, ActionState::Pending | ActionState::Running)
    })
}

fn undo(model: &Model, store: &Store) -> Vec<RowId> {
    let mut rows = Vec::new();
    for (id, process, only) in inside(model, store) {
        let pipelines = process.pipelines.keys().copied();
        for number in pipelines.filter(|it| only.is_none_or(|only| only == *it)) {
            let mut scopes: Vec<_> = process
                .scopes
                .iter()
                .filter(|it| it.b.0 == number)
                .collect();
            if scopes.is_empty() {
                continue;
            }
            let head = RowId::Pipe(id, Some(number));
            let folded = model.folded.contains(&head);
            rows.push(head);
            if folded {
                continue;
            }
            // The pipeline's own first, then by branch: those that wait for somebody, those where
            // something is open, the others; and of each what is open before what is done.
            let mut worst: BTreeMap<BranchKey, u8> = BTreeMap::new();
            for scope in &scopes {
                let stuck = scope.actions.iter().any(|it| is_stuck(it.state));
                let rank = if stuck {
                    0
                } else {
                    1 + u8::from(!is_open(scope))
                };
                let of_branch = worst.entry(scope.b).or_insert(rank);
                *of_branch = rank.min(*of_branch);
            }
            scopes.sort_by_key(|it| {
                let own = it.level != ScopeLevel::Pipeline;
                let rank = worst.get(&it.b).copied();
                let newest = std::cmp::Reverse(it.start);
                (own, rank, it.b, !is_open(it), newest, it.id)
            });
            let mut branch = None;
            let mut shut = false;
            for scope in scopes {
                if scope.level != ScopeLevel::Pipeline && branch != Some(scope.b) {
                    branch = Some(scope.b);
                    let head = RowId::Undo(BranchId {
                        process: id,
                        key: scope.b,
                    });
                    shut = model.folded.contains(&head);
                    rows.push(head);
                }
                if !shut {
                    push_scope(model, id, scope, &mut rows);
                }
            }
        }
    }
    rows
}

fn push_scope(model: &Model, process: ProcessId, scope: &Scope, rows: &mut Vec<RowId>) {
    let head = RowId::Scope(process, scope.b.0, scope.id);
    // What is done is folded at first, what is open is not: Enter turns it around.
    let shown = is_open(scope) != model.folded.contains(&head);
    rows.push(head);
    if shown {
        let actions = scope.actions.iter();
        rows.extend(actions.map(|it| RowId::Action(process, scope.b.0, scope.id, it.n)));
    }
}

fn outbox(model: &Model, store: &Store) -> Vec<RowId> {
    if let Some((process, name)) = &model.open_store {
        let letters = store.process(*process).and_then(|it| it.dead.get(name));
        let letters = letters.map(|(_, letters)| letters.as_slice());
        return letters
            .unwrap_or_default()
            .iter()
            .map(|it| RowId::Dead(*process, name.clone(), it.id.clone()))
            .collect();
    }
    let mut rows = Vec::new();
    for (id, process) in store.processes() {
        rows.extend(
            process
                .stores
                .iter()
                .map(|it| RowId::Store(id, it.store.clone())),
        );
        let listed = |name: &anabranch_protocol::Text| {
            process.stores.iter().any(|store| store.store == *name)
        };
        let others = process.dead.keys().filter(|name| !listed(name));
        rows.extend(others.map(|name| RowId::Store(id, name.clone())));
    }
    rows
}

fn errors(model: &Model, store: &Store) -> Vec<RowId> {
    let mut rows = Vec::new();
    for (id, process, only) in inside(model, store) {
        for error in &process.errors {
            if only.is_none_or(|it| it == error.p) {
                let row = RowId::Error(id, error.p, error.code.clone());
                rows.push((error.n5, error.n, error.last, row));
            }
        }
    }
    rows.sort_by_key(|(recent, all, last, _)| std::cmp::Reverse((*recent, *all, *last)));
    rows.into_iter().map(|(_, _, _, row)| row).collect()
}

fn log(model: &Model, store: &Store) -> Vec<RowId> {
    store
        .log
        .iter()
        .filter(|line| line.entry.level >= model.level)
        .filter(|line| {
            model
                .scope
                .is_none_or(|(process, _)| process == line.process)
        })
        .map(|line| RowId::Log(line.process, line.entry.n))
        .collect()
}
