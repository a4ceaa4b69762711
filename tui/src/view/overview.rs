//! The pipelines of all processes, their history, and what needs attention.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, header, spark, table};
use crate::app::list::RowId;
use crate::app::{attention, layout};
use crate::format::{self, real};
use crate::store::{Link, Pipeline, Process, ProcessId};
use crate::theme::Role;

/// The screen.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let rows = look.model.list().rows().len();
    let parts = layout::overview(look.model.size, rows);
    let heads = heads(look, body.width);
    let mut page = vec![table::head(look, &heads)];
    page.extend(table::rows(look, parts.list, |row, here| {
        pipe(look, &heads, row, here, body.width)
    }));
    if parts.chart > 0 {
        page.extend(chart(look, body.width, parts.chart));
    }
    page.extend(attention(look, body.width, parts.attention));
    page.extend(vec![Line::default(); parts.gap.into()]);
    page.extend(sums(look, body.width));
    page
}

fn heads(look: &Look<'_>, width: u16) -> Vec<(usize, table::Head)> {
    let rest = usize::from(width) - table::sign_width(look);
    let heads = vec![
        table::left("PROCESS", 16, 0).grows(14),
        table::left("PIPELINE", 11, 1).grows(13),
        table::left("ST", 5, 1),
        table::right("BRANCHES", 8, 1).spare(2),
        table::right("IN/s", 6, 2),
        table::right("OUT/s", 6, 1),
        table::right("QUEUE", 6, 1),
        table::right("P99", 6, 1).spare(3),
        table::right("CMP", 4, 1).spare(1),
        table::right("DEAD", 6, 1).spare(4),
        table::right("FAIL", 5, 1).spare(5),
        table::right("RSS", 7, 1).spare(6),
    ];
    table::arrange(heads, rest)
}

fn pipe(
    look: &Look<'_>,
    heads: &[(usize, table::Head)],
    row: &RowId,
    here: bool,
    width: u16,
) -> Line<'static> {
    let RowId::Pipe(id, number) = row else {
        return Line::default();
    };
    let Some(process) = look.store.process(*id) else {
        return Line::default();
    };
    let pipeline = number.and_then(|it| process.pipelines.get(&it));
    let cell = |at: usize, role, text: &str| {
        let found = heads.iter().find(|(index, _)| *index == at);
        found.map(|(_, head)| (head.gap, table::cell(look, head, role, text)))
    };
    let name = pipeline.map_or_else(String::new, |it| it.pipe.name.to_string());
    let stale = !process.is_fresh(look.now);
    let role = |live| if stale { Role::Stale } else { live };
    let mut cells: Vec<_> = [
        cell(0, role(Role::Text), &process.label()),
        cell(1, role(Role::Text), &name),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some((word, told)) = link(look, process) {
        let badge = match word {
            "LOST" => Role::Bad,
            "SILENT" => Role::Warn,
            _ => Role::Dim,
        };
        let mut line = table::row(look, here, false, cells);
        let cells = format::width(word).max(5);
        let rest = usize::from(width).saturating_sub(line.width() + cells + 2);
        line.push_span(look.span(badge, format!(" {}", look.fit(word, cells))));
        line.push_span(look.span(Role::Stale, format!(" {}", look.fit_at_most(&told, rest))));
        return line;
    }
    let Some(pipeline) = pipeline else {
        let told = look.span(Role::Dim, "no pipeline yet");
        cells.push((1, vec![told]));
        return table::row(look, here, false, cells);
    };
    let totals = &pipeline.totals;
    let number = |it: u64| format::si(real(it));
    let failed = if totals.branches.fail > 0 {
        Role::Bad
    } else {
        Role::Dim
    };
    let comps = if totals.stuck > 0 {
        Role::Bad
    } else if totals.compensations > 0 {
        Role::Warn
    } else {
        Role::Text
    };
    let rss = match process.rss {
        0 => String::new(),
        rss => format!("{}B", format::si(real(rss))),
    };
    let p99 = totals.p99.map_or_else(|| "-".to_owned(), format::micros);
    let others = [
        cell(2, phase_role(pipeline), pipeline.pipe.phase.word()),
        cell(3, Role::Text, &format::count(totals.branches.all)),
        cell(4, Role::Text, &format::rate(pipeline.rates.received)),
        cell(5, Role::Text, &format::rate(pipeline.rates.committed)),
        cell(6, Role::Text, &number(totals.queued)),
        cell(7, Role::Text, &p99),
        cell(8, comps, &number(totals.compensations + totals.stuck)),
        cell(9, Role::Text, &number(totals.dead_lettered)),
        cell(10, failed, &number(totals.branches.fail)),
        cell(11, Role::Dim, &rss),
    ];
    cells.extend(others.into_iter().flatten());
    table::row(look, here, false, cells)
}

fn phase_role(pipeline: &Pipeline) -> Role {
    use anabranch_protocol::message::Phase;
    match pipeline.pipe.phase {
        Phase::Run => Role::Good,
        Phase::Drain => Role::Held,
        Phase::Abort => Role::Bad,
        Phase::End | Phase::Unknown => Role::Dim,
    }
}

/// What is said of a process that tells nothing now.
fn link(look: &Look<'_>, process: &Process) -> Option<(&'static str, String)> {
    match &process.link {
        Link::Live if process.is_fresh(look.now) => None,
        Link::Live => {
            let at = process.heard.map_or(0, |(_, at)| at);
            Some(("SILENT", format!("last seen {}", look.time(at, false))))
        }
        Link::Connecting => Some(("...", "connecting".to_owned())),
        Link::Lost { why, again, .. } => {
            let seen = match process.heard {
                Some((_, at)) => format!("last seen {}", look.time(at, false)),
                None => why.clone(),
            };
            let again = match again {
                Some(at) if *at > look.now => {
                    let left = (at - look.now).div_ceil(1000);
                    format!(", retry {left}s (Enter = now)")
                }
                Some(_) => ", retrying".to_owned(),
                None if process.heard.is_some() => ", is over".to_owned(),
                None => String::new(),
            };
            Some(("LOST", seen + &again))
        }
    }
}

/// The pipeline the cursor is on, or the first.
fn chosen<'a>(look: &Look<'a>) -> Option<(ProcessId, &'a Process, &'a Pipeline)> {
    let RowId::Pipe(id, number) = look.model.selected()? else {
        return None;
    };
    let process = look.store.process(*id)?;
    Some((*id, process, process.pipelines.get(number.as_ref()?)?))
}

fn chart(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let Some((_, process, pipeline)) = chosen(look) else {
        let mut lines = vec![look.rule(width, "in/s")];
        lines.resize(height.into(), Line::default());
        return lines;
    };
    let name = process.info.as_ref().map_or("", |info| &*info.name);
    let label = format!(
        "in/s, last {} ({name} {} {})",
        look.model.span.name(),
        look.symbols.arrow,
        pipeline.pipe.name
    );
    let mut lines = vec![look.rule(width, &label)];
    lines.extend(spark::chart(look, &pipeline.history, width, height - 1));
    lines
}

fn attention(look: &Look<'_>, width: u16, height: u16) -> Vec<Line<'static>> {
    let place = usize::from(height).saturating_sub(1);
    let (worst, all) = attention::worst(look.model, place);
    let mut lines = vec![look.rule(width, &format!("attention ({all})"))];
    if all == 0 && place > 0 {
        lines.push(Line::from(
            look.span(Role::Dim, format!("{}nothing", " ".repeat(look.margin()))),
        ));
    }
    let shown = if all > place {
        place.saturating_sub(1)
    } else {
        all
    };
    for item in &worst[..shown] {
        lines.push(attention_line(look, item, width));
    }
    if all > shown && place > 0 {
        let more = format!(
            "{}and {} more",
            " ".repeat(look.margin()),
            format::count((all - shown) as u64)
        );
        lines.push(Line::from(look.span(Role::Dim, more)));
    }
    lines.resize(height.into(), Line::default());
    lines
}

/// What needs attention, in a line.
pub(super) fn attention_line(
    look: &Look<'_>,
    item: &attention::Attention,
    width: u16,
) -> Line<'static> {
    let (style, sign) = match item.state {
        Some(state) => (look.theme.state(state), look.symbols.state(state)),
        None if item.rank >= 8 => (
            look.style(Role::Bad),
            look.symbols.state(anabranch_protocol::row::State::Failed),
        ),
        None => (
            look.style(Role::Warn),
            look.symbols.state(anabranch_protocol::row::State::Full),
        ),
    };
    let margin = look.margin();
    let who = if item.state.is_some() {
        look.fit(&item.who, 10.max(format::width(&item.who).min(24)))
    } else {
        item.who.clone()
    };
    let rest = usize::from(width).saturating_sub(margin + 2 + 1 + format::width(&who) + 1);
    Line::from(vec![
        Span::raw(" ".repeat(margin)),
        Span::styled(sign.to_owned(), style),
        look.span(Role::Text, format!(" {who} ")),
        look.span(Role::Text, look.fit_at_most(&item.what, rest)),
    ])
}

/// Two lines of sums: what waits, and how many branches are in which state.
fn sums(look: &Look<'_>, width: u16) -> [Line<'static>; 2] {
    let (mut late, mut stuck) = (0, 0);
    let (mut comp, mut lag) = (None::<u64>, None::<(u64, String)>);
    let mut states: [u64; 8] = [0; 8];
    for (process, pipeline) in header::summed(look) {
        let totals = &pipeline.totals;
        late += totals.late;
        comp = comp.max(totals.comp_age_ms);
        stuck += totals.stuck;
        let own = totals.lag_ms.map(|ms| (ms, pipeline.pipe.name.to_string()));
        let stores = process.stores.iter();
        let stores = stores.filter_map(|it| Some((it.lag_ms?, it.store.to_string())));
        lag = lag.max(stores.max().or(own));
        let it = totals.branches;
        let counts = [
            it.all, it.run, it.idle, it.full, it.pause, it.drain, it.restart, it.fail,
        ];
        for (sum, count) in states.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let thresholds = look.model.thresholds;
    let grade = |bad: bool| if bad { Role::Warn } else { Role::Dim };
    let mut first = vec![look.span(
        grade(late > 0),
        format!("windows late {}", format::count(late)),
    )];
    if stuck > 0 {
        let stuck = format!(" compensations stuck {}", format::count(stuck));
        first.push(look.span(Role::Bad, stuck));
    }
    match comp {
        Some(ms) => first.push(look.span(
            grade(ms / 1000 >= thresholds.compensation),
            format!(" oldest compensation {}", format::span(ms)),
        )),
        None if stuck == 0 => first.push(look.span(Role::Dim, " no compensation pending")),
        None => {}
    }
    if let Some((ms, name)) = lag {
        let text = format!(" outbox lag max {} ({name})", format::span(ms));
        first.push(look.span(grade(ms / 1000 >= thresholds.lag), text));
    }
    let title = match chosen_scope(look) {
        Some(name) => format!("{name}: {} branches", format::count(states[0])),
        None => format!("{} branches", format::count(states[0])),
    };
    let words = ["run", "idle", "full", "paused", "drain", "restart", "fail"];
    let told = words.into_iter().zip(states[1..].iter().copied());
    let mut told: Vec<_> = told.filter(|it| it.0 != "restart" || it.1 > 0).collect();
    let line = |told: &[(&str, u64)]| {
        let mut parts = vec![look.span(Role::Text, title.clone())];
        parts.extend(told.iter().map(|(word, count)| {
            let role = match *word {
                "fail" if *count > 0 => Role::Bad,
                "full" if *count > 0 => Role::Warn,
                _ => Role::Dim,
            };
            look.span(role, format!("{word} {}", format::count(*count)))
        }));
        parts
    };
    let cells: usize = line(&told).iter().map(|part| part.width() + 2).sum();
    if cells - 2 + look.margin() > usize::from(width) {
        // No place for all of them: the worst first, and none that no branch is in.
        told.retain(|(_, count)| *count > 0);
        told.reverse();
    }
    [look.parts(width, first), look.parts(width, line(&told))]
}

/// The name of the only pipeline there is.
fn chosen_scope(look: &Look<'_>) -> Option<String> {
    let mut all = header::pipelines(look);
    let (_, only) = all.next()?;
    all.next().is_none().then(|| only.pipe.name.to_string())
}
