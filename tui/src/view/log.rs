//! What was logged, done by operators, and has happened.

use std::fmt::Write as _;

use anabranch_protocol::message::{Kind, Severity};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, table};
use crate::app::list::RowId;
use crate::format;
use crate::store::{LOG, LogLine};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let model = look.model;
    let mut parts = vec![
        look.span(Role::Title, "log"),
        look.span(Role::Text, format!(" from {} on", model.level)),
        look.span(
            Role::Dim,
            if model.follow {
                " follows"
            } else {
                " stands still"
            },
        ),
    ];
    if !model.search.is_empty() {
        parts.push(look.span(Role::Held, format!(" search: {}", model.search)));
    }
    parts.push(look.span(
        Role::Dim,
        format!(" keeps the last {}", format::count(LOG as u64)),
    ));
    let sign = " ".repeat(table::sign_width(look));
    let cells = usize::from(width) - table::sign_width(look);
    let who = (cells / 8).clamp(10, 24);
    let head = format!("{sign}{:8}     {:5} {:who$} WHAT", "TIME", "LEVEL", "WHO");
    let mut page = vec![
        look.parts(width, parts),
        Line::from(look.span(Role::Title, head)),
    ];
    page.extend(table::rows(look, height, |row, here| {
        find(look, row).map_or_else(Line::default, |line| {
            table::row(look, here, false, vec![(0, spans(look, line, cells, who))])
        })
    }));
    if model.list().rows().is_empty() && height > 0 {
        page[2] = Line::from(look.span(Role::Dim, "   nothing was logged"));
    }
    page.push(look.rule(width, &look.range(height)));
    page
}

/// The line of a row. The log is in the order in which it came, and mostly the end is looked at.
pub(super) fn find<'a>(look: &Look<'a>, row: &RowId) -> Option<&'a LogLine> {
    let RowId::Log(process, number) = row else {
        return None;
    };
    let mut lines = look.store.log.iter().rev();
    lines.find(|it| it.process == *process && it.entry.n == *number)
}

/// Who a line is about: a tenant, else a pipeline, else the process.
pub(super) fn who(look: &Look<'_>, line: &LogLine) -> String {
    let process = look.store.process(line.process);
    let pipeline = process.and_then(|it| it.pipelines.get(&line.entry.p?));
    match (pipeline, line.entry.b) {
        (Some(pipeline), Some(branch)) => pipeline.tenant(branch),
        (Some(pipeline), None) => pipeline.pipe.name.to_string(),
        _ => process.map_or_else(String::new, crate::store::Process::label),
    }
}

/// What a line says, with who did it and what came of it, if somebody did it.
pub(super) fn what(look: &Look<'_>, line: &LogLine) -> String {
    let entry = &line.entry;
    let mut text = match line.lost {
        0 => String::new(),
        lost => format!("... {} lost ... ", format::count(lost)),
    };
    if let Some(op) = entry.op.as_deref().filter(|_| entry.kind == Kind::Audit) {
        let verb = op.split_once('.').map_or(op, |(_, verb)| verb);
        let _ = write!(text, "{verb}: ");
    }
    text += &entry.msg;
    if entry.kind == Kind::Audit {
        if let Some(peer) = &entry.peer {
            if let Some(uid) = peer.uid {
                let _ = write!(text, ", {}", look.model.user(uid));
            }
            let _ = write!(text, ", {}", peer.client);
        }
        if entry.ok == Some(false) {
            text += " FAILED";
        }
    }
    text
}

fn spans(look: &Look<'_>, line: &LogLine, cells: usize, name: usize) -> Vec<Span<'static>> {
    let (role, word) = match line.entry.level {
        Severity::Debug => (Role::Dim, "DEBUG"),
        Severity::Info => (Role::Text, "INFO"),
        Severity::Warn => (Role::Warn, "WARN"),
        Severity::Error => (Role::Bad, "ERROR"),
        Severity::Unknown => (Role::Dim, "?"),
    };
    let rest = cells.saturating_sub(12 + 1 + 5 + 1 + name + 1);
    vec![
        look.span(Role::Dim, look.time(line.entry.at, true) + " "),
        look.span(role, look.fit(word, 5) + " "),
        look.span(Role::Text, look.fit(&who(look, line), name) + " "),
        look.span(Role::Text, look.fit_at_most(&what(look, line), rest)),
    ]
}

/// The last lines, in a pane, the newest first.
pub(super) fn pane(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let scope = look.model.scope;
    let lines = look.store.log.iter().rev();
    let lines: Vec<_> = lines
        .filter(|it| it.entry.level >= look.model.level)
        .filter(|it| scope.is_none_or(|(process, _)| process == it.process))
        .take(height.into())
        .map(|line| Line::from(spans(look, line, width.into(), 9)))
        .collect();
    if lines.is_empty() {
        return vec![Line::from(look.span(Role::Dim, "nothing was logged"))];
    }
    lines
}
