//! Errors by code: how often, since when, where, and one of them with its causes.

use anabranch_protocol::message::ErrorRow;
use ratatui::layout::Rect;
use ratatui::text::Line;
use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use super::{Look, table};
use crate::app::layout;
use crate::app::list::RowId;
use crate::format;
use crate::store::{BranchId, Process, ProcessId};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let below = layout::below(look.model.size);
    let rest = usize::from(width) - table::sign_width(look);
    let heads = table::arrange(
        vec![
            table::left("CODE", 18, 0).grows(14),
            table::right("1m", 6, 1),
            table::right("5m", 6, 1),
            table::right("60m", 6, 1),
            table::right("ALL", 7, 1).spare(2),
            table::left("FIRST", 8, 2).spare(3),
            table::right("LAST", 9, 1),
            table::left("STAGE", 12, 2).spare(5).grows(8),
            table::left("PIPELINE", 12, 1).spare(4),
            table::left("TENANTS", 14, 2).spare(1).grows(60),
        ],
        rest,
    );
    let count = look.model.list().rows().len() as u64;
    let mut page = vec![
        look.parts(
            width,
            vec![look.span(
                Role::Title,
                format!("errors by code {}", format::count(count)),
            )],
        ),
        table::head(look, &heads),
    ];
    page.extend(table::rows(look, height, |row, here| {
        find(look, row).map_or_else(Line::default, |(_, process, error)| {
            line(look, &heads, process, error, here)
        })
    }));
    if count == 0 && height > 0 {
        page[2] = Line::from(look.span(Role::Dim, "   nothing has failed"));
    }
    page.push(look.rule(width, &look.range(height)));
    if below > 1
        && let Some((_, _, error)) = look.model.selected().and_then(|row| find(look, row))
    {
        page.extend(chain(look, error, width));
    }
    page
}

/// The errors of a row.
pub(super) fn find<'a>(
    look: &Look<'a>,
    row: &RowId,
) -> Option<(ProcessId, &'a Process, &'a ErrorRow)> {
    let RowId::Error(id, pipeline, code) = row else {
        return None;
    };
    let process = look.store.process(*id)?;
    let mut errors = process.errors.iter();
    let error = errors.find(|it| it.p == *pipeline && it.code == *code)?;
    Some((*id, process, error))
}

/// The tenants an error came up in.
pub(super) fn tenants(process: &Process, error: &ErrorRow) -> String {
    let Some(pipeline) = process.pipelines.get(&error.p) else {
        return String::new();
    };
    let names = error.branches.iter().map(|it| pipeline.tenant(*it));
    names.collect::<Vec<_>>().join(", ")
}

fn line(
    look: &Look<'_>,
    heads: &[(usize, table::Head)],
    process: &Process,
    error: &ErrorRow,
    here: bool,
) -> Line<'static> {
    let pipeline = process.pipelines.get(&error.p);
    let name = pipeline.map_or("", |it| &*it.pipe.name);
    let clock = process.clock(look.now);
    let cells = heads
        .iter()
        .map(|(index, head)| {
            let text = |role, text: &str| table::cell(look, head, role, text);
            let count = |n: u64, role: Role| {
                let role = if n > 0 { role } else { Role::Dim };
                table::cell(look, head, role, &format::si_in(n, head.width))
            };
            let cell = match index {
                0 => text(Role::Text, &error.code),
                1 => count(error.n1, Role::Bad),
                2 => count(error.n5, Role::Warn),
                3 => count(error.n60, Role::Text),
                4 => count(error.n, Role::Text),
                5 => text(Role::Dim, &look.time(error.first, false)),
                6 => text(
                    Role::Text,
                    &format!("{} ago", format::ago(clock, error.last)),
                ),
                7 => text(Role::Text, &error.stage),
                8 => text(Role::Dim, name),
                _ => text(Role::Text, &tenants(process, error)),
            };
            (head.gap, cell)
        })
        .collect();
    table::row(look, here, false, cells)
}

/// One of the errors, and what caused it.
fn chain(look: &Look<'_>, error: &ErrorRow, width: u16) -> Vec<Line<'static>> {
    let cells = usize::from(width) - 2 * look.margin();
    let mut lines = vec![look.parts(
        width,
        vec![look.span(
            Role::Title,
            format!("one of them: {} in {}", error.code, error.stage),
        )],
    )];
    for (depth, cause) in error.sample.iter().enumerate() {
        let before = if depth == 0 { "" } else { "caused by " };
        for text in wrap(&format!("{before}{cause}"), cells) {
            lines.push(look.parts(width, vec![look.span(Role::Text, text)]));
        }
    }
    lines
}

/// A text in lines of at most so many cells.
pub(super) fn wrap(text: &str, cells: usize) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for grapheme in text.graphemes(true) {
        let more = grapheme.width();
        if used + more > cells && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        line.push_str(grapheme);
        used += more;
    }
    lines.push(line);
    lines
}

/// The codes that came up last, in a pane.
pub(super) fn pane(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let mut errors: Vec<_> = look
        .store
        .processes()
        .filter(|(id, _)| look.model.scope.is_none_or(|scope| scope.0 == *id))
        .flat_map(|(_, process)| process.errors.iter().map(move |it| (process, it)))
        .filter(|(_, it)| look.model.scope.is_none_or(|scope| scope.1 == it.p))
        .collect();
    if errors.is_empty() {
        return vec![Line::from(look.span(Role::Dim, "nothing has failed"))];
    }
    errors.sort_by_key(|(_, it)| std::cmp::Reverse((it.n5, it.last)));
    let shown = errors.into_iter().take(height.into());
    shown
        .map(|(process, error)| short(look, process, error, width))
        .collect()
}

/// The errors of one branch.
pub(super) fn of_branch(
    look: &Look<'_>,
    id: BranchId,
    width: u16,
    height: u16,
) -> Vec<Line<'static>> {
    let Some(process) = look.store.process(id.process) else {
        return Vec::new();
    };
    let here = process
        .errors
        .iter()
        .filter(|it| it.p == id.key.0 && it.branches.contains(&id.key.1));
    let lines: Vec<_> = here
        .take(height.into())
        .map(|error| short(look, process, error, width))
        .collect();
    if lines.is_empty() {
        return vec![Line::from(look.span(Role::Dim, "none of late"))];
    }
    lines
}

fn short(look: &Look<'_>, process: &Process, error: &ErrorRow, width: u16) -> Line<'static> {
    let ago = format!("{} ago", format::ago(process.clock(look.now), error.last));
    let middle = usize::from(width).saturating_sub(16 + 5 + 2 + 10);
    let role = if error.n1 > 0 { Role::Bad } else { Role::Text };
    Line::from(vec![
        look.span(role, look.fit(&error.code, 16)),
        look.span(Role::Text, look.right(&format::si_in(error.n5, 4), 5)),
        look.span(
            Role::Text,
            format!("  {}", look.fit(&tenants(process, error), middle)),
        ),
        look.span(Role::Dim, look.right(&ago, 10)),
    ])
}
