//! The lines below the table of branches: sums, the worst of them, and commands.

use anabranch_protocol::message::{Op, Phase};
use anabranch_protocol::row::State;
use ratatui::text::Line;

use super::{Look, header, overview};
use crate::app::act::{self, State as Sent};
use crate::app::attention;
use crate::app::list::RowId;
use crate::format;
use crate::theme::Role;

/// What holds for all branches that are shown.
pub(super) fn sums(look: &Look<'_>, width: u16) -> Line<'static> {
    let (mut queued, mut capacity, mut late, mut comp) = (0, 0, 0, 0);
    let mut lease = None;
    for (_, pipeline) in header::summed(look) {
        late += pipeline.totals.late;
        comp += pipeline.totals.compensations + pipeline.totals.stuck;
        lease = lease.max(pipeline.totals.lease_ms);
        for row in pipeline.rows.iter().filter(|row| pipeline.shows(row)) {
            queued += row.branch.queued;
            capacity += row.branch.capacity;
        }
    }
    let grade = |bad: bool| if bad { Role::Warn } else { Role::Dim };
    let fill = format::percent(queued, capacity);
    let mut parts = vec![
        look.span(Role::Dim, format!("mean fill {fill}%")),
        look.span(
            grade(late > 0),
            format!(" late windows {}", format::count(late)),
        ),
        look.span(
            grade(comp > 0),
            format!(" pending compensations {}", format::count(comp)),
        ),
    ];
    if let Some(lease) = lease {
        parts.push(look.span(Role::Dim, format!(" oldest lease {}", format::span(lease))));
    }
    look.parts(width, parts)
}

/// What is the matter with the branch the cursor is on, or with the worst of all; or how it goes
/// with the last command.
pub(super) fn worst(look: &Look<'_>, width: u16) -> Line<'static> {
    if look
        .model
        .sent
        .iter()
        .any(|it| !it.cmd.dry && !it.state.is_over())
    {
        return commands(look, width);
    }
    if let Some(RowId::Branch(id)) = look.model.selected()
        && let Some(row) = look.store.row(*id)
        && let Some(process) = look.store.process(id.process)
        && let (Some(code), Some(at)) = (&row.branch.last_error, row.branch.last_error_at)
    {
        let since = format::ago(process.clock(look.now), at);
        let failed = row.branch.state == State::Failed;
        let word = if failed { "FAILED" } else { "last error" };
        let role = if failed { Role::Bad } else { Role::Warn };
        let comps = match row.undone() {
            0 => String::new(),
            n => format!(" {} {} compensations", look.symbols.arrow, format::count(n)),
        };
        let text = format!("{}: {word} {code}, {since} ago{comps}", row.shown());
        return look.parts(
            width,
            vec![look.span(role, look.fit_at_most(&text, usize::from(width) - 2))],
        );
    }
    let (worst, _) = attention::worst(look.model, 1);
    match worst.first() {
        Some(item) => overview::attention_line(look, item, width),
        None => look.parts(width, vec![look.span(Role::Dim, "nothing needs attention")]),
    }
}

/// The command that is under way, and the last that is over.
pub(super) fn commands(look: &Look<'_>, width: u16) -> Line<'static> {
    let model = look.model;
    let own = || model.sent.iter().rev().filter(|it| !it.cmd.dry);
    let now = own().find(|it| !it.state.is_over() || left(look, it).is_some());
    let last = own().find(|it| it.state.is_over() && left(look, it).is_none());
    let mut parts = Vec::new();
    if let Some(sent) = now {
        let line = match left(look, sent) {
            Some(left) => sent.going(left),
            None => sent.line(model.now),
        };
        parts.push(look.span(Role::Held, line));
    }
    if let Some(sent) = last {
        let bad = !matches!(&sent.state, Sent::Done(done) if done.ok);
        let role = if bad { Role::Bad } else { Role::Dim };
        let gap = if now.is_some() { "   " } else { "" };
        parts.push(look.span(role, format!("{gap}last: {}", sent.line(model.now))));
    }
    if parts.is_empty() {
        parts.push(look.span(Role::Dim, "no commands given"));
    }
    let most = usize::from(width) - 2;
    if let [only] = parts.as_mut_slice() {
        only.content = look.fit_at_most(&only.content, most).into();
    }
    look.parts(width, parts)
}

/// How much is left of what a command that is over has begun: a branch, or a pipeline, that drains.
fn left(look: &Look<'_>, sent: &act::Sent) -> Option<u64> {
    if !matches!(&sent.state, Sent::Done(done) if done.ok) {
        return None;
    }
    let on = &sent.cmd.on;
    let pipeline = look.store.pipeline(sent.process, on.p?)?;
    match (sent.cmd.op, on.branch) {
        (Op::BranchDrain, Some(id)) => {
            let branch = &pipeline.row(id)?.branch;
            let same = sent.cmd.if_gen == Some(branch.generation);
            let left = branch.queued + branch.in_flight + branch.compensations;
            (same && branch.state == State::Draining).then_some(left)
        }
        (Op::PipelineDrain, None) => {
            let totals = &pipeline.totals;
            (totals.phase == Phase::Drain).then_some(totals.queued + totals.in_flight)
        }
        _ => None,
    }
}
