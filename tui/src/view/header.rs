//! The lines above each screen: where one is, how it goes, and the tabs.

use anabranch_protocol::message::Right;
use ratatui::text::{Line, Span};

use super::{Look, with_right};
use crate::app::{OLD_MS, Screen};
use crate::format;
use crate::keymap::Action;
use crate::store::{Link, Pipeline, Process, ProcessId, Rates};
use crate::theme::Role;

/// The three lines above each screen.
pub(super) fn lines(look: &Look<'_>, width: u16) -> [Line<'static>; 3] {
    [first(look, width), second(look, width), tabs(look, width)]
}

/// The process the screen is about, if it is about one.
pub(super) fn process<'a>(look: &Look<'a>) -> Option<(ProcessId, &'a Process)> {
    if let Some((id, _)) = look.model.scope {
        return Some((id, look.store.process(id)?));
    }
    let mut all = look.store.processes();
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

fn first(look: &Look<'_>, width: u16) -> Line<'static> {
    let version = env!("CARGO_PKG_VERSION");
    let version = version.rsplit_once('.').map_or(version, |(short, _)| short);
    let mut parts = vec![look.span(Role::Title, format!("anabranch {version}"))];
    let one = process(look);
    if let Some((_, process)) = one {
        let host = process.info.as_ref().map_or("", |info| &*info.host);
        let host = if look.wide && !host.is_empty() {
            format!(" {host}")
        } else {
            String::new()
        };
        let label = look.fit_at_most(&process.label(), usize::from(width) / 3);
        parts.push(look.span(Role::Text, label + &host));
        if look.wide && process.proto > 0 {
            parts.push(look.span(Role::Dim, format!("proto {}", process.proto)));
        }
    } else {
        let count = look.store.processes().count();
        parts.push(look.span(Role::Text, format!("{count} processes")));
        let gone = look.store.processes().filter(|(_, it)| it.is_lost());
        let gone = gone.count();
        if gone > 0 {
            parts.push(look.span(Role::Bad, format!("{gone} LOST")));
        }
    }
    parts.push(badge(look));
    if let Some((_, process)) = one
        && let Some(info) = &process.info
    {
        let up = format::ago(process.clock(look.now), info.start);
        parts.push(look.span(Role::Text, format!("up {up}")));
    }
    let lost: u64 = look.store.processes().map(|(_, it)| it.lost).sum();
    let role = if lost > 0 { Role::Warn } else { Role::Dim };
    parts.push(look.span(role, format!("lost {}", format::count(lost))));
    if width >= 120 {
        let skipped: u64 = look.store.processes().map(|(_, it)| it.skipped).sum();
        let role = if skipped > 0 { Role::Warn } else { Role::Dim };
        parts.push(look.span(role, format!("skipped ticks {}", format::count(skipped))));
    }
    parts.push(rights(look));
    let line = look.parts(width, parts);
    let clock = look.span(Role::Text, look.time(look.model.now, false));
    with_right(line, width, clock)
}

/// Whether anything may be done.
fn rights(look: &Look<'_>) -> Span<'static> {
    let any = look.store.processes().any(|(_, process)| {
        let mut pipelines = process.pipelines.values();
        let open = process.pipelines.is_empty() || pipelines.any(|it| it.pipe.control);
        process.rights.contains(&Right::Control) && open
    });
    if any && !look.model.read_only {
        look.span(Role::Text, "rw")
    } else {
        look.span(Role::Warn, "ro")
    }
}

fn badge(look: &Look<'_>) -> Span<'static> {
    let model = look.model;
    if let Some(frozen) = &model.frozen {
        let since = format::span(model.now.saturating_sub(frozen.since) / 1000 * 1000);
        let since = if since == "0ms" { "0s" } else { &since };
        return look.span(Role::Badge, format!("FROZEN {since}"));
    }
    if model.over.is_some() {
        return look.span(Role::Badge, "OVER");
    }
    let about: Vec<&Process> = match process(look) {
        Some((_, process)) => vec![process],
        None => look.store.processes().map(|(_, process)| process).collect(),
    };
    let live = about.iter().filter(|it| it.is_live());
    let freshest = live.filter_map(|it| it.age(look.now)).min();
    match freshest {
        Some(age) if age < OLD_MS => {
            let hertz = format::rate(1000.0 / format::real(model.tick_ms.max(1)));
            look.span(Role::Good, format!("{} LIVE {hertz}Hz", look.symbols.live))
        }
        Some(age) => look.span(Role::Badge, format!("SILENT {}", format::span(age))),
        None if about.iter().any(|it| matches!(it.link, Link::Lost { .. })) => {
            let age = about.iter().filter_map(|it| it.age(look.now)).min();
            let age = age.map_or_else(String::new, |age| format!(" {}", format::span(age)));
            look.span(Role::Badge, format!("LOST{age}"))
        }
        None if about.is_empty() => look.span(Role::Dim, "waiting"),
        None => look.span(Role::Dim, "connecting"),
    }
}

/// The pipelines the screen is about.
pub(super) fn pipelines<'a>(look: &Look<'a>) -> impl Iterator<Item = (&'a Process, &'a Pipeline)> {
    let scope = look.model.scope;
    let store = look.store;
    store.processes().flat_map(move |(id, process)| {
        process
            .pipelines
            .iter()
            .filter(move |(number, _)| scope.is_none_or(|it| it == (id, **number)))
            .map(move |(_, pipeline)| (process, pipeline))
    })
}

/// Those of them that are summed: what a lost process had is no longer there, unless all are lost
/// and what was last heard is all there is.
pub(super) fn summed<'a>(look: &Look<'a>) -> impl Iterator<Item = (&'a Process, &'a Pipeline)> {
    let any = pipelines(look).any(|(process, _)| process.is_live());
    pipelines(look).filter(move |(process, _)| process.is_live() || !any)
}

fn second(look: &Look<'_>, width: u16) -> Line<'static> {
    let mut rates = Rates::default();
    let (mut queued, mut comp, mut dead) = (0, 0, 0);
    let (mut fill, mut p50, mut p99) = (None::<u64>, None::<u64>, None::<u64>);
    let mut live = false;
    for (process, pipeline) in summed(look) {
        if process.is_fresh(look.now) {
            live = true;
            rates += pipeline.rates;
        }
        let totals = &pipeline.totals;
        queued += totals.queued;
        comp += totals.compensations + totals.stuck;
        dead += totals.dead_lettered;
        fill = fill.max(totals.window_fill);
        p50 = p50.max(totals.p50);
        p99 = p99.max(totals.p99);
    }
    let role = if live { Role::Text } else { Role::Stale };
    let mut parts = vec![
        format!("in {}/s", format::rate(rates.received)),
        format!("out {}/s", format::rate(rates.committed)),
        format!("err {}/s", format::rate(rates.failed)),
    ];
    if look.wide {
        parts.push(format!("retry {}/s", format::rate(rates.retried)));
    }
    parts.push(format!("queued {}", format::si(format::real(queued))));
    if let Some(fill) = fill.filter(|_| look.wide) {
        parts.push(format!("window fill {fill}%"));
    }
    parts.push(format!("comp {}", format::count(comp)));
    parts.push(format!("dead {}", format::count(dead)));
    if let Some(p50) = p50.filter(|_| look.wide) {
        parts.push(format!("p50 {}", format::micros(p50)));
    }
    if let Some(p99) = p99 {
        parts.push(format!("p99 {}", format::micros(p99)));
    }
    let parts = parts.into_iter().map(|part| look.span(role, part));
    look.parts(width, parts.collect())
}

fn tabs(look: &Look<'_>, width: u16) -> Line<'static> {
    let actions = [
        Action::Pipes,
        Action::Branches,
        Action::Windows,
        Action::Comps,
        Action::Outbox,
        Action::Errors,
        Action::Log,
    ];
    let narrow = width < 78;
    let gap = match (look.wide, narrow) {
        (true, _) => "   ",
        (_, true) => " ",
        _ => "  ",
    };
    let mut line = vec![Span::raw(" ".repeat(look.margin()))];
    for (screen, action) in Screen::ALL.into_iter().zip(actions) {
        let active = screen == look.model.screen;
        let title = match screen {
            Screen::Windows if narrow && !active => "Win",
            Screen::Branches if narrow && !active => "Branch",
            Screen::Errors if narrow && !active => "Err",
            _ => screen.title(look.wide),
        };
        if screen != Screen::Pipes {
            line.push(Span::raw(gap));
        }
        let key = look.model.keymap.first(action);
        if active {
            line.push(look.span(Role::Active, format!("[{key} {title}]")));
        } else {
            line.push(look.span(Role::Key, key));
            line.push(look.span(Role::Dim, format!(" {title}")));
        }
    }
    let help = format!("{} help", look.model.keymap.first(Action::Help));
    with_right(Line::from(line), width, look.span(Role::Dim, help))
}

impl Look<'_> {
    /// A text, cut if it is longer than so many cells.
    pub(super) fn fit_at_most(&self, text: &str, cells: usize) -> String {
        if format::width(text) <= cells {
            text.to_owned()
        } else {
            self.fit(text, cells)
        }
    }
}
