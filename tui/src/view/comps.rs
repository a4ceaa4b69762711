//! Undo actions, as a tree: pipeline, branch, scope, action.

use std::fmt::Write as _;

use anabranch_protocol::message::{Action, ActionState, Scope, ScopeLevel};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, table};
use crate::app::list::RowId;
use crate::app::order::{is_open, is_stuck};
use crate::format;
use crate::store::{BranchId, Process};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let mut counts = [0u64; 4];
    for (_, process) in look.store.processes() {
        for action in process.scopes.iter().flat_map(|it| &it.actions) {
            let at = match action.state {
                ActionState::Pending => 0,
                ActionState::Running => 1,
                ActionState::Failed | ActionState::Unrun => 2,
                _ => 3,
            };
            counts[at] += 1;
        }
    }
    let [pending, running, stuck, over] = counts.map(format::count);
    let role = if counts[2] > 0 { Role::Bad } else { Role::Dim };
    let mut page = vec![
        look.parts(
            width,
            vec![
                look.span(Role::Title, "compensations"),
                look.span(Role::Text, format!(" pending {pending}")),
                look.span(Role::Text, format!("running {running}")),
                look.span(role, format!("stuck {stuck}")),
                look.span(Role::Dim, format!("over {over}")),
            ],
        ),
        columns(look, width),
    ];
    page.extend(table::rows(look, height, |row, here| {
        line(look, row, here, width)
    }));
    if look.model.list().rows().is_empty() && height > 0 {
        let none = "   nothing was undone, and nothing waits to be";
        page[2] = Line::from(look.span(Role::Dim, none));
    }
    page.push(look.rule(width, &look.range(height)));
    page
}

/// Cells of the columns at the right: state, when, how long, tries.
const STATE: usize = 10;
const TIME: usize = 9;
const TOOK: usize = 7;
const TRY: usize = 5;

fn columns(look: &Look<'_>, width: u16) -> Line<'static> {
    let name = name_width(look, width);
    Line::from(vec![
        Span::raw(" ".repeat(table::sign_width(look))),
        look.span(
            Role::Title,
            format!(
                "{}{}{}{}{}",
                look.fit("WHAT", name),
                look.fit(" STATE", STATE + 1),
                look.fit(" SINCE", TIME + 1),
                look.right("TOOK", TOOK),
                look.right("TRY", TRY + 1),
            ),
        ),
    ])
}

fn name_width(look: &Look<'_>, width: u16) -> usize {
    let rest = usize::from(width) - table::sign_width(look);
    rest.saturating_sub(STATE + TIME + TOOK + TRY + 3)
}

/// The scope of that number.
pub(super) fn scope(process: &Process, pipeline: u32, number: u64) -> Option<&Scope> {
    let mut scopes = process.scopes.iter();
    scopes.find(|it| it.b.0 == pipeline && it.id == number)
}

fn line(look: &Look<'_>, row: &RowId, here: bool, width: u16) -> Line<'static> {
    let name = name_width(look, width);
    let folded = look.symbols.fold[usize::from(look.model.folded.contains(row))];
    let cells = match row {
        RowId::Pipe(id, number) => {
            let label = look
                .store
                .process(*id)
                .map_or_else(String::new, Process::label);
            let pipeline = number.and_then(|it| look.store.pipeline(*id, it));
            let title = pipeline.map_or("", |it| &*it.pipe.name);
            vec![look.span(
                Role::Title,
                look.fit(&format!("{folded} {title}  {label}"), name),
            )]
        }
        RowId::Undo(id) => {
            let pipeline = look.store.pipeline(id.process, id.key.0);
            let tenant = pipeline.map_or_else(String::new, |it| it.tenant(id.key.1));
            vec![look.span(Role::Text, look.fit(&format!("  {folded} {tenant}"), name))]
        }
        RowId::Scope(id, pipeline, number) => {
            let Some(process) = look.store.process(*id) else {
                return Line::default();
            };
            scope(process, *pipeline, *number)
                .map_or_else(Vec::new, |it| scope_cells(look, row, it, name))
        }
        RowId::Action(id, pipeline, number, action) => {
            let Some(process) = look.store.process(*id) else {
                return Line::default();
            };
            let found = scope(process, *pipeline, *number);
            let found = found.and_then(|it| {
                let at = it.actions.iter().position(|undo| undo.n == *action)?;
                Some((&it.actions[at], at + 1 == it.actions.len()))
            });
            found.map_or_else(Vec::new, |(action, last)| {
                action_cells(look, process, action, last, name)
            })
        }
        _ => Vec::new(),
    };
    table::row(look, here, false, vec![(0, cells)])
}

fn scope_cells(look: &Look<'_>, row: &RowId, scope: &Scope, name: usize) -> Vec<Span<'static>> {
    let open = is_open(scope) != look.model.folded.contains(row);
    let fold = look.symbols.fold[usize::from(!open)];
    let indent = if scope.level == ScopeLevel::Pipeline {
        "  "
    } else {
        "    "
    };
    let what = format!("{indent}{fold} {} {} {}", scope.level, scope.id, scope.what);
    let done = scope
        .actions
        .iter()
        .filter(|it| it.state == ActionState::Done)
        .count();
    let stuck = scope.actions.iter().any(|it| is_stuck(it.state));
    let (role, word) = match (stuck, is_open(scope)) {
        (true, _) => (Role::Bad, "stuck"),
        (_, true) => (Role::Warn, "undoing"),
        _ => (Role::Dim, "done"),
    };
    let took = scope.took_ms.map_or_else(String::new, format::span);
    vec![
        look.span(Role::Text, look.fit(&what, name)),
        look.span(role, format!(" {}", look.fit(word, STATE))),
        look.span(
            Role::Dim,
            format!(" {}", look.fit(&look.time(scope.start, false), TIME)),
        ),
        look.span(Role::Dim, look.right(&took, TOOK)),
        look.span(
            Role::Dim,
            format!(
                " {}",
                look.right(&format!("{done}/{}", scope.actions.len()), TRY)
            ),
        ),
    ]
}

fn action_cells(
    look: &Look<'_>,
    process: &Process,
    action: &Action,
    last: bool,
    name: usize,
) -> Vec<Span<'static>> {
    let tree = look.symbols.tree[usize::from(last)];
    let kind = if action.finalizer { " (finalizer)" } else { "" };
    let mut what = format!("      {tree} #{} {}{kind}", action.n, action.name);
    if let Some(error) = &action.error {
        let _ = write!(what, "  {error}");
    }
    let role = action_role(action);
    let sign = look.symbols.action(action.state);
    let at = action
        .at
        .map_or_else(String::new, |at| look.time(at, false));
    let took = match (action.took_ms, action.again) {
        (Some(took), _) => format::span(took),
        (None, Some(again)) => {
            format!(
                "in {}",
                format::span(again.saturating_sub(process.clock(look.now)))
            )
        }
        _ => String::new(),
    };
    let tries = match action.of {
        0 | 1 => String::new(),
        of => format!("{}/{of}", action.attempt),
    };
    vec![
        look.span(Role::Text, look.fit(&what, name)),
        look.span(
            role,
            format!(" {}", look.fit(&format!("{sign} {}", action.state), STATE)),
        ),
        look.span(Role::Dim, format!(" {}", look.fit(&at, TIME))),
        look.span(Role::Dim, look.right(&took, TOOK)),
        look.span(Role::Dim, format!(" {}", look.right(&tries, TRY))),
    ]
}

const fn action_role(action: &Action) -> Role {
    match action.state {
        ActionState::Pending => Role::Warn,
        ActionState::Running => Role::Held,
        ActionState::Done => Role::Good,
        ActionState::Failed | ActionState::Unrun => Role::Bad,
        ActionState::Skipped | ActionState::Unknown => Role::Dim,
    }
}

/// The undo actions of a branch, in a pane.
pub(super) fn pane(
    look: &Look<'_>,
    here: Option<BranchId>,
    width: u16,
    height: u16,
) -> Vec<Line<'static>> {
    let Some((id, process)) = here.and_then(|id| Some((id, look.store.process(id.process)?)))
    else {
        return Vec::new();
    };
    let mut scopes: Vec<_> = process.scopes.iter().filter(|it| it.b == id.key).collect();
    scopes.sort_by_key(|it| (!is_open(it), std::cmp::Reverse(it.start)));
    if scopes.is_empty() {
        let none = Line::from(look.span(Role::Dim, "nothing was undone here"));
        return vec![none];
    }
    let count = |state| {
        let actions = scopes.iter().flat_map(|it| &it.actions);
        format::count(actions.filter(|it| it.state == state).count() as u64)
    };
    let pipeline = process.pipelines.get(&id.key.0);
    let name = pipeline.map_or_else(String::new, |it| {
        format!("{}/{}", it.pipe.name, it.tenant(id.key.1))
    });
    let mut lines = vec![Line::from(look.span(
        Role::Text,
        format!(
            "scope {name}   {} pending  {} running  {} failed",
            count(ActionState::Pending),
            count(ActionState::Running),
            count(ActionState::Failed),
        ),
    ))];
    for scope in &scopes {
        let open = is_open(scope);
        let fold = look.symbols.fold[usize::from(!open)];
        let done = scope
            .actions
            .iter()
            .filter(|it| it.state == ActionState::Done)
            .count();
        let mut text = format!("{fold} {} {} {}", scope.level, scope.id, scope.what);
        if !open {
            let _ = write!(text, "  done {done}/{}", scope.actions.len());
            if let Some(took) = scope.took_ms {
                let _ = write!(text, " in {}", format::span(took));
            }
        }
        lines.push(Line::from(look.span(Role::Text, text)));
        if open {
            let last = scope.actions.len();
            for (at, action) in (1..).zip(&scope.actions) {
                lines.push(short(look, process, action, at == last, width));
            }
        }
    }
    if let Some(scope) = scopes.first()
        && lines.len() < usize::from(height)
    {
        let policy = format!("policy {}", scope.policy);
        lines.push(Line::from(look.span(Role::Dim, policy)));
    }
    lines.truncate(height.into());
    lines
}

fn short(
    look: &Look<'_>,
    process: &Process,
    action: &Action,
    last: bool,
    width: u16,
) -> Line<'static> {
    let tree = look.symbols.tree[usize::from(last)];
    let at = match (action.again, action.at) {
        (Some(again), _) => format!(
            "retry {}/{}, next in {}",
            action.attempt,
            action.of,
            format::seconds(again.saturating_sub(process.clock(look.now)))
        ),
        (None, Some(at)) => format!(
            "reg {}",
            look.time(at, true)
                .split_at_checked(10)
                .map_or_else(String::new, |it| it.0.to_owned())
        ),
        _ => String::new(),
    };
    let state = action.state.to_string();
    let name = usize::from(width).saturating_sub(5 + 9 + format::width(&at) + 2);
    let mut what = format!("#{} {}", action.n, action.name);
    if let Some(error) = &action.error {
        let _ = write!(what, "  {error}");
    }
    Line::from(vec![
        look.span(Role::Line, format!("  {tree} ")),
        look.span(Role::Text, look.fit(&what, name)),
        look.span(action_role(action), format!(" {}", look.fit(&state, 8))),
        look.span(Role::Dim, format!(" {at}")),
    ])
}
