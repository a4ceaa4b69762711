//! Open windows, the late ones first: how full and how old, against their own limits.

use anabranch_protocol::message::Win;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::{Look, gauge, table};
use crate::app::list::RowId;
use crate::format;
use crate::store::{BranchId, Process};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let rest = usize::from(width) - table::sign_width(look);
    let bar = if look.wide { 24 } else { 10 };
    let heads = table::arrange(
        vec![
            table::left("TENANT", 14, 0).grows(18),
            table::left("PIPELINE", 12, 1).spare(2),
            table::left("ITEMS", bar, 1),
            table::right("n/max", 10, 1),
            table::left("AGE", bar, 2).spare(1),
            table::left("age/flush", 14, 1),
            table::left("LAST", 5, 1).spare(3),
        ],
        rest,
    );
    let (mut all, mut late) = (0, 0);
    for (_, process) in look.store.processes() {
        all += process.windows.0;
        late += process.windows.1.iter().filter(|it| is_late(it)).count() as u64;
    }
    let role = if late > 0 { Role::Warn } else { Role::Dim };
    let mut page = vec![
        look.parts(
            width,
            vec![
                look.span(Role::Title, format!("open windows {}", format::count(all))),
                look.span(role, format!(" late {}", format::count(late))),
                look.span(
                    Role::Dim,
                    " the late ones first; LAST tells why the one before left",
                ),
            ],
        ),
        table::head(look, &heads),
    ];
    page.extend(table::rows(look, height, |row, here| {
        let RowId::Window(id, leg) = row else {
            return Line::default();
        };
        find(look, *id, *leg).map_or_else(Line::default, |(process, window)| {
            line(look, &heads, process, window, here)
        })
    }));
    if look.model.list().rows().is_empty() && height > 0 {
        page[2] = Line::from(look.span(Role::Dim, "   no window is open"));
    }
    page.push(look.rule(width, &look.range(height)));
    page
}

fn find<'a>(look: &Look<'a>, id: BranchId, leg: u32) -> Option<(&'a Process, &'a Win)> {
    let process = look.store.process(id.process)?;
    let mut windows = process.windows.1.iter();
    Some((process, windows.find(|it| it.b == id.key && it.leg == leg)?))
}

fn is_late(window: &Win) -> bool {
    window.max_age_ms.is_some_and(|most| window.age_ms > most)
}

fn tenant(process: &Process, window: &Win) -> String {
    let pipeline = process.pipelines.get(&window.b.0);
    pipeline.map_or_else(String::new, |it| it.tenant(window.b.1))
}

fn line(
    look: &Look<'_>,
    heads: &[(usize, table::Head)],
    process: &Process,
    window: &Win,
    here: bool,
) -> Line<'static> {
    let pipeline = process.pipelines.get(&window.b.0);
    let name = pipeline.map_or("", |it| &*it.pipe.name);
    let late = is_late(window);
    let cells = heads
        .iter()
        .map(|(index, head)| {
            let text = |role, text: &str| table::cell(look, head, role, text);
            let cell = match index {
                0 => text(Role::Text, &tenant(process, window)),
                1 => text(Role::Dim, name),
                2 => gauge::gauge(look, window.n, window.max.unwrap_or(0), head.width),
                3 => text(Role::Text, &count(window)),
                4 => gauge::gauge(
                    look,
                    window.age_ms,
                    window.max_age_ms.unwrap_or(0),
                    head.width,
                ),
                5 => text(if late { Role::Warn } else { Role::Text }, &age(window)),
                _ => text(Role::Dim, window.last.as_deref().unwrap_or("-")),
            };
            (head.gap, cell)
        })
        .collect();
    table::row(look, here, false, cells)
}

fn count(window: &Win) -> String {
    match window.max {
        Some(max) => format!("{}/{max}", window.n),
        None => window.n.to_string(),
    }
}

fn age(window: &Win) -> String {
    let age = format::seconds(window.age_ms);
    match window.max_age_ms {
        Some(most) if window.age_ms > most => format!("{age}/{} !!", format::span(most)),
        Some(most) => format!("{age}/{}", format::span(most)),
        None => age,
    }
}

/// The windows that are latest or fullest, in a pane.
pub(super) fn pane(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let mut windows: Vec<_> = look
        .store
        .processes()
        .filter(|(id, _)| look.model.scope.is_none_or(|scope| scope.0 == *id))
        .flat_map(|(_, process)| process.windows.1.iter().map(move |it| (process, it)))
        .filter(|(_, it)| look.model.scope.is_none_or(|scope| scope.1 == it.b.0))
        .collect();
    windows.sort_by_key(|(_, it)| {
        let late = it
            .max_age_ms
            .map_or(0, |most| it.age_ms * 100 / most.max(1));
        std::cmp::Reverse((late.max(100), it.n))
    });
    if windows.is_empty() {
        return vec![Line::from(look.span(Role::Dim, "no window is open"))];
    }
    // Where there is room, names are read to their end.
    let name = (8 + usize::from(width).saturating_sub(72) / 4).min(24);
    let bars = usize::from(width).saturating_sub(name + 4 + 11 + 4 + 8);
    let (items, time) = (bars * 2 / 3, bars / 3);
    let lines = windows
        .into_iter()
        .take(height.into())
        .map(|(process, it)| {
            let mut spans =
                vec![look.span(Role::Text, look.fit(&tenant(process, it), name) + " n ")];
            spans.extend(gauge::gauge(look, it.n, it.max.unwrap_or(0), items));
            spans.push(look.span(Role::Text, format!(" {}t ", look.fit(&count(it), 9))));
            spans.extend(gauge::gauge(
                look,
                it.age_ms,
                it.max_age_ms.unwrap_or(0),
                time,
            ));
            let role = if is_late(it) { Role::Warn } else { Role::Text };
            let late = if is_late(it) { " !!" } else { "" };
            spans.push(look.span(role, format!(" {}{late}", format::seconds(it.age_ms))));
            Line::from(spans)
        });
    lines.collect()
}

/// A window in words.
pub(super) fn text(look: &Look<'_>, id: BranchId, leg: u32) -> String {
    find(look, id, leg).map_or_else(String::new, |(process, window)| {
        format!(
            "{} items {} age {}",
            tenant(process, window),
            count(window),
            age(window)
        )
    })
}
