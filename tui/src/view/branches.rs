//! The table of branches, and from 120 columns on panes around it.

use anabranch_protocol::row::State;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, gauge, header, panes, spark, status, table};
use crate::app::columns::Column;
use crate::app::list::RowId;
use crate::app::{Model, layout};
use crate::format::{self, real};
use crate::store::{BranchId, Row};
use crate::symbols::state_word;
use crate::theme::Role;

/// Cells from which on a pipeline is told with the name of its process, not with its pid alone.
const LABEL: usize = 24;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let columns = fitted(look.model, width);
    let heads: Vec<_> = columns.iter().map(|(_, head)| (0, head.clone())).collect();
    let mut page = vec![title(look, width), table::head(look, &heads)];
    page.extend(table::rows(look, height, |row, here| match row {
        RowId::Branch(id) => branch(look, &columns, *id, here),
        _ => Line::default(),
    }));
    if look.model.list().rows().is_empty() && height > 0 {
        page[2] = Line::from(look.span(Role::Dim, empty(look)));
    }
    if layout::panes(look.model.size) {
        let range = look.span(Role::Dim, look.range(height));
        let gap = usize::from(width).saturating_sub(range.width() + 2);
        page.push(Line::from(vec![Span::raw(" ".repeat(gap)), range]));
        page.extend(panes::page(look, width));
        page.push(status::commands(look, width));
    } else {
        page.push(look.rule(width, &look.range(height)));
        page.push(status::sums(look, width));
        page.push(status::worst(look, width));
        page.push(look.rule(width, ""));
    }
    page
}

fn empty(look: &Look<'_>) -> String {
    if look.model.filter.is_empty() {
        "   no branches yet: they open with the first item of their tenant".to_owned()
    } else {
        let key = look.model.keymap.first(crate::keymap::Action::Back);
        format!("   no branch fits the filter ({key} takes it away)")
    }
}

fn title(look: &Look<'_>, width: u16) -> Line<'static> {
    let model = look.model;
    let all: u64 = header::pipelines(look)
        .map(|(_, pipeline)| {
            pipeline
                .rows
                .iter()
                .filter(|row| pipeline.shows(row))
                .count() as u64
        })
        .sum();
    let shown = format::count(model.list().rows().len() as u64);
    let scope = model.scope.and_then(|(process, number)| {
        let name = &look.store.pipeline(process, number)?.pipe.name;
        Some(format!("{name} > "))
    });
    let order = look.symbols.order[usize::from(!model.sort.falling)];
    let mut parts = vec![look.span(
        Role::Title,
        format!(
            "{}branches {shown}/{}",
            scope.unwrap_or_default(),
            format::count(all)
        ),
    )];
    if !model.filter.is_empty() {
        parts.push(look.span(Role::Held, format!(" filter: {}", model.filter.source())));
    }
    parts.push(look.span(
        Role::Dim,
        format!(" sort: {} {order}", model.sort.column.name()),
    ));
    if !model.marks.is_empty() {
        parts.push(look.span(Role::Marked, format!(" marked {}", model.marks.len())));
    }
    if look.wide {
        parts.push(look.span(Role::Dim, format!(" theme {}", model.theme.name())));
    }
    look.parts(width, parts)
}

/// The columns that are shown, in their order.
pub fn columns(model: &Model) -> Vec<Column> {
    let fitted = fitted(model, model.size.0);
    fitted.into_iter().map(|(column, _)| column).collect()
}

fn fitted(model: &Model, width: u16) -> Vec<(Column, table::Head)> {
    let look = Look::new(model);
    let several = model.scope.is_none() && header::pipelines(&look).nth(1).is_some();
    let chosen = model.columns.clone().unwrap_or_else(|| {
        let all = Column::ALL.into_iter();
        all.filter(|it| several || *it != Column::Pipeline)
            .collect()
    });
    let heads = chosen
        .iter()
        .map(|column| {
            let mut head = head(&look, *column);
            if model.columns.is_some() && *column != Column::Tenant {
                head.spare = head.spare.max(1);
            }
            if model.sort.column == *column && *column != Column::Spark {
                head.role = Role::Active;
            }
            if model.column == *column {
                head.role = Role::Key;
            }
            head
        })
        .collect();
    let rest = usize::from(width).saturating_sub(table::sign_width(&look));
    table::arrange(heads, rest)
        .into_iter()
        .map(|(index, head)| (chosen[index], head))
        .collect()
}

fn head(look: &Look<'_>, column: Column) -> table::Head {
    let span = look.model.span.name();
    if look.wide {
        return match column {
            Column::Tenant => table::left("TENANT", 12, 0).grows(20),
            Column::Pipeline => table::left("PIPELINE", 14, 1).grows(18).spare(1),
            Column::State => table::left("ST", 7, 1),
            Column::In => table::right("IN/s", 5, 1),
            Column::Out => table::right("OUT/s", 6, 2).spare(4),
            Column::Spark => table::left(span, 20, 2).spare(7).grows(40),
            Column::Queue => table::left("QUEUE", 15, 2),
            Column::Window => table::left("WINDOW", 10, 2).spare(2),
            Column::Age => table::left("age/flush", 9, 1).spare(3),
            Column::Retry => table::right("RETRY", 5, 1).spare(5),
            Column::Comp => table::right("CMP", 4, 1),
            Column::Dead => table::right("DL", 4, 1).spare(1),
            Column::Failed => table::right("ERR", 6, 1).spare(9),
            Column::P99 => table::right("P99", 6, 1).spare(2),
        };
    }
    match column {
        Column::Tenant => table::left("TENANT", 14, 0).grows(10),
        Column::Pipeline => table::left("PIPELINE", 10, 1).spare(1),
        Column::State => table::left("ST", 6, 1),
        Column::In => table::right("RATE/s", 6, 1),
        Column::Out => table::right("OUT/s", 6, 1).spare(11),
        Column::Spark => table::left(span, 10, 2).spare(5).grows(10),
        Column::Queue => table::left("QUEUE", 10, 2),
        Column::Window => table::left("WINDOW", 10, 1).spare(2),
        Column::Age => table::right("AGE", 5, 1).spare(6),
        Column::Retry => table::right("RTY", 4, 1).spare(9),
        Column::Comp => table::right("CMP", 4, 0).spare(4),
        Column::Dead => table::right("DL", 4, 0).spare(3),
        Column::Failed => table::right("ERR", 5, 1).spare(10),
        Column::P99 => table::right("P99", 6, 1).spare(12),
    }
}

fn branch(
    look: &Look<'_>,
    columns: &[(Column, table::Head)],
    id: BranchId,
    here: bool,
) -> Line<'static> {
    let (Some(row), Some(process)) = (look.store.row(id), look.store.process(id.process)) else {
        return Line::default();
    };
    let fresh = process.is_fresh(look.now);
    let cells = columns
        .iter()
        .map(|(column, head)| {
            let mut cell = cell(look, id, row, *column, head);
            if !fresh {
                for span in &mut cell {
                    span.style = look.style(Role::Stale);
                }
            }
            (head.gap, cell)
        })
        .collect();
    table::row(look, here, look.model.marks.contains(&id), cells)
}

fn cell(
    look: &Look<'_>,
    id: BranchId,
    row: &Row,
    column: Column,
    head: &table::Head,
) -> Vec<Span<'static>> {
    let branch = &row.branch;
    let text = |role, text: &str| table::cell(look, head, role, text);
    let count = |number: u64, bad: Role| {
        let role = if number > 0 { bad } else { Role::Dim };
        table::cell(look, head, role, &format::si_in(number, head.width))
    };
    match column {
        Column::Tenant => text(Role::Text, &row.shown()),
        Column::Pipeline => {
            let process = look.store.process(id.process);
            let pipeline = look.store.pipeline(id.process, id.key.0);
            let name = pipeline.map_or("", |it| &*it.pipe.name);
            let host = process.and_then(|it| it.info.as_ref());
            // Several processes may run the same one.
            match host.filter(|_| look.store.processes().nth(1).is_some()) {
                Some(info) if head.width >= LABEL => {
                    text(Role::Dim, &format!("{}[{}]/{name}", info.name, info.pid))
                }
                Some(info) => text(Role::Dim, &format!("{}/{name}", info.pid)),
                None => text(Role::Dim, name),
            }
        }
        Column::State => {
            let gap = if look.wide || !look.symbols.ascii {
                " "
            } else {
                ""
            };
            // Nobody knows what it is in now, if its process tells nothing.
            let fresh = look.store.process(id.process);
            let fresh = fresh.is_some_and(|it| it.is_fresh(look.now));
            let known = if fresh { branch.state } else { State::Unknown };
            let sign = look.symbols.state(known);
            let sign = if look.symbols.ascii {
                sign
            } else {
                sign.trim_end()
            };
            let word = format!("{sign}{gap}{}", state_word(branch.state));
            vec![Span::styled(
                look.fit(&word, head.width),
                look.theme.state(branch.state),
            )]
        }
        Column::In => text(Role::Text, &format::si(f64::from(row.rate_in))),
        Column::Out => text(Role::Text, &format::si(f64::from(row.rate_out))),
        Column::Spark => {
            let mut cell = vec![spark::spark(look, &row.history, head.width)];
            let used: usize = cell.iter().map(Span::width).sum();
            cell.push(Span::raw(" ".repeat(head.width.saturating_sub(used))));
            cell
        }
        Column::Queue => {
            let mut cell = gauge::gauge(look, branch.queued, branch.capacity, 10);
            if head.width > 10 {
                let percent = format::percent(branch.queued, branch.capacity);
                cell.push(look.span(
                    Role::Text,
                    look.right(&format!("{percent}%"), head.width - 10),
                ));
            }
            cell
        }
        Column::Window => match (branch.window, branch.window_size) {
            (Some(items), None) => text(Role::Text, &format::count(items)),
            (items, size) => gauge::gauge(look, items.unwrap_or(0), size.unwrap_or(0), 10),
        },
        Column::Age => {
            let late = branch.window_age_ms > branch.window_max_age_ms;
            let late = late && branch.window_max_age_ms.is_some();
            let role = if late { Role::Warn } else { Role::Text };
            text(
                role,
                &age(look, branch.window_age_ms, branch.window_max_age_ms),
            )
        }
        Column::Retry => count(branch.retried, Role::Text),
        Column::Comp if branch.stuck > 0 => count(row.undone(), Role::Bad),
        Column::Comp => count(row.undone(), Role::Warn),
        Column::Dead => count(branch.dead_lettered, Role::Warn),
        Column::Failed => count(branch.failed, Role::Bad),
        Column::P99 => match branch.p99 {
            Some(p99) => text(Role::Text, &format::micros(p99)),
            None => text(Role::Dim, "-"),
        },
    }
}

fn age(look: &Look<'_>, age: Option<u64>, most: Option<u64>) -> String {
    match (age, most) {
        (None, _) => "-".to_owned(),
        (Some(age), Some(most)) if look.wide => {
            let age = format::seconds(age);
            format!("{}/{}", age.trim_end_matches('s'), format::span(most))
        }
        (Some(age), _) => format::seconds(age),
    }
}

/// The number of a branch's items, for those who copy it.
pub(super) fn text(row: &Row) -> String {
    let branch = &row.branch;
    format!(
        "{} {} in {}/s out {}/s queue {}/{} retry {} comp {} dead {} err {}",
        row.shown(),
        branch.state,
        format::si(f64::from(row.rate_in)),
        format::si(f64::from(row.rate_out)),
        branch.queued,
        branch.capacity,
        branch.retried,
        row.undone(),
        branch.dead_lettered,
        format::si(real(branch.failed)),
    )
}
