//! Outboxes by store, and the dead letters of one.

use anabranch_protocol::Text;
use anabranch_protocol::message::{DeadLetter, Store};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, table};
use crate::app::layout;
use crate::app::list::RowId;
use crate::format::{self, real};
use crate::store::{Process, ProcessId};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let below = layout::below(look.model.size);
    if let Some((process, store)) = &look.model.open_store {
        return letters(look, *process, store, body);
    }
    let heads = stores_heads(look, width);
    let count = look.model.list().rows().len() as u64;
    let mut page = vec![
        look.parts(
            width,
            vec![look.span(
                Role::Title,
                format!("outbox stores {}", format::count(count)),
            )],
        ),
        table::head(look, &heads),
    ];
    page.extend(table::rows(look, height, |row, here| {
        let RowId::Store(id, name) = row else {
            return Line::default();
        };
        look.store
            .process(*id)
            .map_or_else(Line::default, |process| {
                let store = process.stores.iter().find(|it| it.store == *name);
                store_line(look, &heads, process, name, store, here)
            })
    }));
    if count == 0 && height > 0 {
        page[2] = Line::from(look.span(Role::Dim, "   no outbox here"));
    }
    page.push(look.rule(width, &look.range(height)));
    if below > 1 {
        page.extend(preview(look, width, below));
    }
    page
}

fn stores_heads(look: &Look<'_>, width: u16) -> Vec<(usize, table::Head)> {
    let rest = usize::from(width) - table::sign_width(look);
    table::arrange(
        vec![
            table::left("STORE", 14, 0).grows(20),
            table::left("TENANT", 10, 1).spare(5),
            table::left("ST", 5, 1),
            table::right("PEND", 6, 1),
            table::right("CLAIM", 6, 1),
            table::right("RETRY", 6, 1),
            table::right("DEAD", 6, 1),
            table::right("LAG", 6, 1),
            table::right("WRK", 4, 1).spare(1),
            table::right("LEASE", 6, 1).spare(2),
            table::right("POLLED", 7, 1).spare(3),
            table::left("SELECTION", 12, 2).spare(4).grows(3),
            table::left("PROCESS", 18, 1).spare(6),
        ],
        rest,
    )
}

fn store_line(
    look: &Look<'_>,
    heads: &[(usize, table::Head)],
    process: &Process,
    name: &Text,
    store: Option<&Store>,
    here: bool,
) -> Line<'static> {
    let clock = process.clock(look.now);
    let dead = process.dead.get(name).map_or(0, |(all, _)| *all);
    let fallback = Store::default();
    let it = store.unwrap_or(&fallback);
    let dead = dead.max(it.dead);
    let title = if name.is_empty() { "(pipelines)" } else { name };
    let number = |n: u64| format::si(real(n));
    let span = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), format::span);
    let late = it
        .lag_ms
        .is_some_and(|ms| ms / 1000 >= look.model.thresholds.lag);
    let cells = heads
        .iter()
        .map(|(index, head)| {
            let text = |role, text: &str| table::cell(look, head, role, text);
            let cell = match index {
                0 => text(Role::Text, title),
                1 => text(Role::Text, &it.tenant),
                2 => {
                    let (role, word) = state(it);
                    text(role, word)
                }
                3 => text(Role::Text, &number(it.ready)),
                4 => text(Role::Text, &number(it.leased)),
                5 => text(Role::Text, &number(it.retry)),
                6 => text(if dead > 0 { Role::Warn } else { Role::Dim }, &number(dead)),
                7 => text(if late { Role::Warn } else { Role::Text }, &span(it.lag_ms)),
                8 => match it.workers {
                    None => text(Role::Dim, "-"),
                    Some(0) if it.ready + it.retry > 0 => text(Role::Warn, "0"),
                    Some(workers) => text(Role::Text, &number(workers)),
                },
                9 => text(
                    Role::Text,
                    &span(it.expires.map(|at| at.saturating_sub(clock))),
                ),
                10 => text(
                    Role::Dim,
                    &span(it.polled.map(|at| clock.saturating_sub(at))),
                ),
                11 => text(Role::Dim, &it.selection),
                _ => text(Role::Dim, &process.label()),
            };
            (head.gap, cell)
        })
        .collect();
    table::row(look, here, false, cells)
}

/// How things are with a store, in a word.
fn state(store: &Store) -> (Role, &str) {
    let all = store.paused.iter().any(|topic| &**topic == "*");
    match &*store.state {
        "down" => (Role::Bad, "down"),
        _ if store.resting => (Role::Bad, "rest"),
        _ if all => (Role::Held, "paus"),
        _ if !store.paused.is_empty() => (Role::Held, "part"),
        other => (Role::Good, other),
    }
}

/// What a store's state means, if it is not just up.
fn meaning(look: &Look<'_>, store: &Store) -> Vec<Span<'static>> {
    let mut parts = Vec::new();
    if store.resting {
        let what = "its worker here rests: it does not work";
        parts.push(look.span(Role::Bad, what));
    }
    if !store.paused.is_empty() {
        let topics: Vec<_> = store.paused.iter().map(|it| &**it).collect();
        parts.push(look.span(Role::Held, format!("paused: {}", topics.join(", "))));
    }
    parts
}

fn dead<'a>(look: &Look<'a>, process: ProcessId, store: &Text) -> (u64, &'a [DeadLetter]) {
    let found = look
        .store
        .process(process)
        .and_then(|it| it.dead.get(store));
    found.map_or((0, &[]), |(all, letters)| (*all, letters))
}

fn letter_heads(look: &Look<'_>, width: u16) -> Vec<(usize, table::Head)> {
    let rest = usize::from(width) - table::sign_width(look);
    table::arrange(
        vec![
            table::left("ID", 10, 0),
            table::left("TOPIC", 14, 1),
            table::left("TENANT", 12, 1).spare(1),
            table::right("TRIES", 5, 1),
            table::right("AGE", 6, 1),
            table::left("LAST ERROR", 16, 2).grows(60),
        ],
        rest,
    )
}

fn letter_line(
    look: &Look<'_>,
    heads: &[(usize, table::Head)],
    clock: u64,
    letter: &DeadLetter,
    here: bool,
) -> Line<'static> {
    let cells = heads
        .iter()
        .map(|(index, head)| {
            let text = |role, text: &str| table::cell(look, head, role, text);
            let cell = match index {
                0 => text(Role::Text, &letter.id),
                1 => text(Role::Text, &letter.topic),
                2 => text(Role::Text, &letter.tenant),
                3 => text(Role::Text, &letter.attempts.to_string()),
                4 => text(Role::Text, &format::ago(clock, letter.at)),
                _ => text(Role::Bad, &letter.error),
            };
            (head.gap, cell)
        })
        .collect();
    table::row(look, here, false, cells)
}

/// The dead letters of the store the cursor is on, below the stores.
fn preview(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let Some(RowId::Store(id, name)) = look.model.selected() else {
        return Vec::new();
    };
    let clock = look
        .store
        .process(*id)
        .map_or(look.now, |it| it.clock(look.now));
    let (all, letters) = dead(look, *id, name);
    let heads = letter_heads(look, width);
    let mut parts = vec![look.span(
        Role::Title,
        format!("dead letters of {} {}", title(name), format::count(all)),
    )];
    let stores = look.store.process(*id).map_or(&[][..], |it| &it.stores);
    if let Some(store) = stores.iter().find(|it| it.store == *name) {
        parts.extend(meaning(look, store));
    }
    let mut lines = vec![look.parts(width, parts), table::head(look, &heads)];
    let place = usize::from(height).saturating_sub(lines.len());
    lines.extend(
        letters
            .iter()
            .take(place)
            .map(|it| letter_line(look, &heads, clock, it, false)),
    );
    lines
}

fn title(store: &str) -> &str {
    if store.is_empty() {
        "the pipelines"
    } else {
        store
    }
}

/// The dead letters of one store.
fn letters(look: &Look<'_>, id: ProcessId, store: &Text, body: Rect) -> Vec<Line<'static>> {
    let width = body.width;
    let height = look.model.height();
    let below = layout::below(look.model.size);
    let clock = look
        .store
        .process(id)
        .map_or(look.now, |it| it.clock(look.now));
    let (all, letters) = dead(look, id, store);
    let heads = letter_heads(look, width);
    let listed = letters.len() as u64;
    let more = if all > listed {
        format!(", {} listed", format::count(listed))
    } else {
        String::new()
    };
    let mut page = vec![
        look.parts(
            width,
            vec![look.span(
                Role::Title,
                format!(
                    "outbox > {} > dead letters {}{more}",
                    title(store),
                    format::count(all)
                ),
            )],
        ),
        table::head(look, &heads),
    ];
    page.extend(table::rows(look, height, |row, here| {
        let RowId::Dead(_, _, id) = row else {
            return Line::default();
        };
        let letter = letters.iter().find(|it| it.id == *id);
        letter.map_or_else(Line::default, |it| {
            letter_line(look, &heads, clock, it, here)
        })
    }));
    page.push(look.rule(width, &look.range(height)));
    if below > 1
        && let Some(RowId::Dead(_, _, id)) = look.model.selected()
        && let Some(letter) = letters.iter().find(|it| it.id == *id)
    {
        page.push(look.parts(width, vec![look.span(Role::Bad, letter.error.to_string())]));
        let payload = letter.payload.as_deref();
        let shown = payload.unwrap_or("Enter asks what it holds, if its process lets that be seen");
        let cells = usize::from(width) - 2 * look.margin();
        page.extend(
            super::errors::wrap(shown, cells)
                .into_iter()
                .map(|text| look.parts(width, vec![look.span(Role::Dim, text)])),
        );
    }
    page
}

/// The stores with the most dead letters and the longest lag, in a pane.
pub(super) fn pane(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let mut stores: Vec<&Store> = look
        .store
        .processes()
        .flat_map(|(_, it)| &it.stores)
        .collect();
    if stores.is_empty() {
        return vec![Line::from(look.span(Role::Dim, "no outbox here"))];
    }
    stores.sort_by_key(|it| std::cmp::Reverse((it.dead, it.lag_ms)));
    let name = usize::from(width).saturating_sub(5 * 6 + 3).min(16);
    let line = |role: Role, title: &str, cells: [String; 5]| {
        let numbers: String = cells.iter().map(|it| look.right(it, 6)).collect();
        Line::from(look.span(role, look.fit(title, name) + &numbers))
    };
    let head = ["PEND", "CLAIM", "RETRY", "DEAD", "LAG"].map(str::to_owned);
    let mut lines = vec![line(Role::Title, "STORE", head)];
    let place = usize::from(height).saturating_sub(1);
    let shown = if stores.len() > place {
        place.saturating_sub(1)
    } else {
        stores.len()
    };
    let number = |n: u64| format::si(real(n));
    let cells = |it: &Store| {
        [
            number(it.ready),
            number(it.leased),
            number(it.retry),
            number(it.dead),
            it.lag_ms.map_or_else(|| "-".to_owned(), format::span),
        ]
    };
    for store in &stores[..shown] {
        let role = if store.dead > 0 {
            Role::Warn
        } else {
            Role::Text
        };
        lines.push(line(role, &store.store, cells(store)));
    }
    let others = &stores[shown..];
    if !others.is_empty() {
        let sum = Store {
            ready: others.iter().map(|it| it.ready).sum(),
            leased: others.iter().map(|it| it.leased).sum(),
            retry: others.iter().map(|it| it.retry).sum(),
            dead: others.iter().map(|it| it.dead).sum(),
            lag_ms: others.iter().filter_map(|it| it.lag_ms).max(),
            ..Store::default()
        };
        lines.push(line(
            Role::Dim,
            &format!("others {}", others.len()),
            cells(&sum),
        ));
    }
    lines
}
