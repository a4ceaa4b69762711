//! One branch: its state, its queue and window, what it is at, what went wrong.

use std::fmt::Write as _;

use anabranch_protocol::message::{Detail, LegDetail};
use anabranch_protocol::row::State;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, comps, errors, gauge, spark};
use crate::format;
use crate::store::{BranchId, Process, Row};
use crate::theme::Role;

/// The screen of one branch.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let Some(id) = look.model.open else {
        return Vec::new();
    };
    let width = body.width;
    let (Some(row), Some(process)) = (look.store.row(id), look.store.process(id.process)) else {
        let gone = "this branch is no more: it was removed, or its process has forgotten it";
        return vec![look.parts(width, vec![look.span(Role::Warn, gone)])];
    };
    let pipeline = look.store.pipeline(id.process, id.key.0);
    let name = pipeline.map_or("", |it| &*it.pipe.name);
    let tenant = pipeline.map_or_else(String::new, |it| it.tenant(id.key.1));
    let sign = look.symbols.state(row.branch.state).trim_end();
    let mut page = vec![look.parts(
        width,
        vec![
            look.span(
                Role::Title,
                format!("{} > {name} > {tenant}", process.label()),
            ),
            Span::styled(
                format!("{sign} {}", row.branch.state),
                look.theme.state(row.branch.state),
            ),
            look.span(
                Role::Dim,
                format!("opened {} times", row.branch.generation.max(1)),
            ),
        ],
    )];
    page.push(Line::default());
    let mut lines = lines(look, id);
    lines.extend(units(look, process, id));
    page.extend(lines.into_iter().map(|line| indent(look, line)));
    let history = usize::from(width).saturating_sub(2 + 12);
    let title = format!("in/s, {}", look.model.span.name());
    page.push(indent(
        look,
        Line::from(vec![
            look.span(Role::Dim, look.fit(&title, 11)),
            spark::spark(look, &row.history, history),
        ]),
    ));
    let rest = body.height.saturating_sub(format::cells(page.len()));
    let half = rest / 2;
    if half >= 3 {
        page.push(look.rule(width, "compensations"));
        let mut undo = comps::pane(look, Some(id), width.saturating_sub(2), half - 1);
        undo.resize((half - 1).into(), Line::default());
        page.extend(undo.into_iter().map(|line| indent(look, line)));
        page.push(look.rule(width, "errors here"));
        let errors = errors::of_branch(look, id, width.saturating_sub(2), half - 1);
        page.extend(errors.into_iter().map(|line| indent(look, line)));
    }
    page
}

fn indent(look: &Look<'_>, mut line: Line<'static>) -> Line<'static> {
    line.spans.insert(0, Span::raw(" ".repeat(look.margin())));
    line
}

/// What is known of a branch, in lines: at first from its row, then from what its process tells
/// of it alone.
pub(super) fn lines(look: &Look<'_>, id: BranchId) -> Vec<Line<'static>> {
    let (Some(row), Some(process)) = (look.store.row(id), look.store.process(id.process)) else {
        return Vec::new();
    };
    let detail = process.detail.as_ref();
    let detail = detail.filter(|it| (it.p, it.id) == (id.key.0, id.key.1));
    let mut lines = vec![
        state(look, process, row),
        queue(look, row, detail),
        window(look, row),
        flight(look, process, row, detail),
        error(look, process, row, detail),
    ];
    lines.push(line(
        look,
        format!(
            "in {}  out {}  failed {}  retried {}  dead {}",
            format::count(row.branch.received),
            format::count(row.branch.committed),
            format::count(row.branch.failed),
            format::count(row.branch.retried),
            format::count(row.branch.dead_lettered),
        ),
    ));
    let mut facts: Vec<_> = detail
        .map_or(&[][..], |it| &it.facts)
        .iter()
        .map(|(name, number)| format!("{name} {}", format::count(*number)))
        .collect();
    if let Some(note) = detail.and_then(|it| it.note.as_deref()) {
        facts.insert(0, note.to_owned());
    }
    if !facts.is_empty() {
        lines.push(line(look, facts.join("   ")));
    }
    lines
}

fn line(look: &Look<'_>, text: String) -> Line<'static> {
    Line::from(look.span(Role::Text, text))
}

fn state(look: &Look<'_>, process: &Process, row: &Row) -> Line<'static> {
    let branch = &row.branch;
    let mut spans = vec![
        look.span(Role::Text, "state "),
        Span::styled(branch.state.to_string(), look.theme.state(branch.state)),
    ];
    if branch.entered > 0 {
        let since = format::ago(process.clock(look.now), branch.entered);
        spans.push(look.span(Role::Text, format!(" {since}")));
    }
    let tail = match (branch.p50, branch.p99) {
        (Some(p50), Some(p99)) => {
            format!(
                "    p50 {}  p99 {}",
                format::micros(p50),
                format::micros(p99)
            )
        }
        _ => String::new(),
    };
    spans.push(look.span(Role::Text, tail));
    Line::from(spans)
}

fn queue(look: &Look<'_>, row: &Row, detail: Option<&Detail>) -> Line<'static> {
    let branch = &row.branch;
    let legs = detail.map_or(&[][..], |it| &it.legs);
    let mut text = format!(
        "queue {}/{}",
        format::count(branch.queued),
        format::count(branch.capacity)
    );
    if let Some(full) = legs.iter().filter_map(|leg| leg.full_ms).max() {
        let _ = write!(text, "   full {}", format::span(full));
    }
    if branch.blocked_ms > 0 {
        let _ = write!(
            text,
            "   held up its source {} in all",
            format::span(branch.blocked_ms)
        );
    }
    if let Some(rate) = legs.iter().find_map(|leg| leg.rate) {
        let _ = write!(text, "   throttled to {}/s", format::rate(rate));
    }
    if legs.len() > 1 {
        let each: Vec<_> = legs
            .iter()
            .map(|it: &LegDetail| it.queued.to_string())
            .collect();
        let _ = write!(text, "   by leg {}", each.join("+"));
    }
    let role = if branch.state == State::Full {
        Role::Warn
    } else {
        Role::Text
    };
    Line::from(look.span(role, text))
}

fn window(look: &Look<'_>, row: &Row) -> Line<'static> {
    let branch = &row.branch;
    let Some(items) = branch.window else {
        return Line::from(look.span(Role::Dim, "window -"));
    };
    let mut text = match branch.window_size {
        Some(size) => format!("window {}/{}", format::count(items), format::count(size)),
        None => format!("window {}", format::count(items)),
    };
    let mut role = Role::Text;
    if let Some(age) = branch.window_age_ms {
        let _ = write!(text, "    age {}", format::seconds(age));
        if let Some(most) = branch.window_max_age_ms {
            let _ = write!(text, " / flush {}", format::span(most));
            if age > most {
                let late = format::seconds(age - most);
                let _ = write!(text, "  {} {late} late", look.symbols.arrow);
                role = Role::Warn;
            }
        }
    }
    Line::from(look.span(role, text))
}

fn flight(look: &Look<'_>, process: &Process, row: &Row, detail: Option<&Detail>) -> Line<'static> {
    let units = detail.map_or(&[][..], |it| &it.units);
    let Some(unit) = units.first() else {
        let count = detail.map_or(row.branch.in_flight, |it| {
            it.legs.iter().map(|leg| leg.in_flight).sum()
        });
        return line(look, format!("in flight: {}", format::count(count)));
    };
    let clock = process.clock(look.now);
    let of = unit.of.map_or_else(String::new, |of| format!("/{of}"));
    let items = match unit.items {
        0 => String::new(),
        1 => "1 item, ".to_owned(),
        items => format!("{} items, ", format::count(items)),
    };
    let mut text = format!("in flight: {items}attempt {}{of}", unit.attempt);
    if let Some(since) = unit.since {
        let _ = write!(text, ", {}", format::ago(clock, since));
    }
    if let Some(again) = unit.again {
        let _ = write!(
            text,
            ", next in {}",
            format::seconds(again.saturating_sub(clock))
        );
    }
    if units.len() > 1 {
        let _ = write!(text, "  (and {} more)", units.len() - 1);
    }
    line(look, text)
}

fn error(look: &Look<'_>, process: &Process, row: &Row, detail: Option<&Detail>) -> Line<'static> {
    let Some(code) = &row.branch.last_error else {
        return Line::from(look.span(Role::Dim, "no error"));
    };
    let mut text = format!("last error {code}");
    if let Some(at) = row.branch.last_error_at {
        let _ = write!(text, ", {} ago", format::ago(process.clock(look.now), at));
    }
    let told = detail.and_then(|it| it.error.as_deref());
    if let Some(told) = told.filter(|it| *it != &**code) {
        let _ = write!(text, ": {told}");
    }
    Line::from(look.span(Role::Bad, text))
}

/// The legs of a branch, one line each, with their gauges.
fn units(look: &Look<'_>, process: &Process, id: BranchId) -> Vec<Line<'static>> {
    let detail = process.detail.as_ref();
    let Some(detail) = detail.filter(|it| (it.p, it.id) == (id.key.0, id.key.1)) else {
        return Vec::new();
    };
    let pipeline = process.pipelines.get(&id.key.0);
    let stage = |leg: u32| -> String {
        let found = pipeline.and_then(|it| {
            let leg = it.pipe.legs.get(usize::try_from(leg).ok()?)?;
            it.pipe.stages.get(usize::try_from(leg.stage).ok()?)
        });
        found.map_or_else(|| format!("leg {leg}"), ToString::to_string)
    };
    let legs = detail.legs.iter().map(|leg| {
        let mut spans = vec![look.span(Role::Dim, look.fit(&stage(leg.leg), 18) + " ")];
        spans.extend(gauge::gauge(look, leg.queued, leg.capacity, 12));
        spans.push(look.span(
            Role::Text,
            format!(
                " {}/{}  running {}  windows waiting {}",
                leg.queued, leg.capacity, leg.in_flight, leg.cut
            ),
        ));
        Line::from(spans)
    });
    legs.collect()
}
