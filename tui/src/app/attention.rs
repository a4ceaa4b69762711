//! What somebody should look at, the worst first.

use std::borrow::Cow;

use anabranch_protocol::message::{Call, Kind, Op, Phase, Store as Outbox};
use anabranch_protocol::row::{BranchKey, State};

use super::Model;
use crate::format;
use crate::store::{BranchId, Link, LogLine, Pipeline, Process, Row};

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// How bad it is: the higher, the worse.
    pub rank: u8,
    /// The state whose sign stands before it, if it is a branch.
    pub state: Option<State>,
    /// Who.
    pub who: String,
    /// What is the matter.
    pub what: String,
    /// The branch, if it is one.
    pub branch: Option<BranchId>,
}

/// What somebody should look at, before it is put into words: of ten thousand branches few are shown.
struct Found<'a> {
    rank: u8,
    who: Cow<'a, str>,
    about: About<'a>,
}

enum About<'a> {
    Lost(&'a Process),
    Stuck(u64),
    HeldUp(&'a Call, &'a Process),
    Quiet(&'a Pipeline, &'a Process),
    Outbox(&'a Outbox),
    Branch(BranchId, &'a Process, &'a Row),
}

/// The worst of what there is to look at, at most so many, and how many there are in all.
pub fn worst(model: &Model, most: usize) -> (Vec<Attention>, usize) {
    let now = model.shown_at();
    let mut found = find(model, now);
    let all = found.len();
    let order = |left: &(usize, Found<'_>), right: &(usize, Found<'_>)| {
        let worse = right.1.rank.cmp(&left.1.rank);
        worse.then_with(|| (&left.1.who, left.0).cmp(&(&right.1.who, right.0)))
    };
    if most < all {
        found.select_nth_unstable_by(most, order);
        found.truncate(most);
    }
    found.sort_unstable_by(order);
    let told = found.into_iter().map(|(_, it)| it.told(model, now));
    (told.collect(), all)
}

/// All there is, numbered as it was found.
fn find(model: &Model, now: u64) -> Vec<(usize, Found<'_>)> {
    let mut found = Vec::new();
    let mut add = |rank, who, about| {
        let number = found.len();
        found.push((number, Found { rank, who, about }));
    };
    for (id, process) in model.shown().processes() {
        if is_lost(process, now) {
            add(6, process.label().into(), About::Lost(process));
        }
        for (number, pipeline) in &process.pipelines {
            let (totals, name) = (&pipeline.totals, &*pipeline.pipe.name);
            if totals.stuck > 0 {
                add(8, name.into(), About::Stuck(totals.stuck));
            }
            if let Some(call) = &totals.call
                && process.is_fresh(now)
                && process.clock(now).saturating_sub(call.since) > 1000
            {
                add(7, name.into(), About::HeldUp(call, process));
            } else if is_quiet(pipeline, process, now) {
                add(7, name.into(), About::Quiet(pipeline, process));
            }
            for row in pipeline.rows.iter().filter(|row| pipeline.shows(row)) {
                if let Some(rank) = rank(model, row) {
                    let key = BranchKey(*number, row.id);
                    let branch = BranchId { process: id, key };
                    let about = About::Branch(branch, process, row);
                    let who = row.shown();
                    add(rank, who, about);
                }
            }
        }
        for outbox in &process.stores {
            if let Some(rank) = of_outbox(model, outbox) {
                add(rank, (&*outbox.store).into(), About::Outbox(outbox));
            }
        }
    }
    found
}

fn is_lost(process: &Process, now: u64) -> bool {
    match &process.link {
        Link::Lost { .. } => true,
        Link::Live => process.age(now).is_some_and(|age| age >= super::OLD_MS),
        Link::Connecting => false,
    }
}

/// Whether the driver of a pipeline tells nothing though its process does: its event loop, or a
/// callable that is nobody's, holds it up.
fn is_quiet(pipeline: &Pipeline, process: &Process, now: u64) -> bool {
    let totals = &pipeline.totals;
    let silent = process.clock(now).saturating_sub(totals.at);
    let told = totals.at > 0 && totals.phase != Phase::End;
    told && process.is_fresh(now) && silent >= super::OLD_MS
}

/// How bad it is with an outbox, if it is bad at all.
fn of_outbox(model: &Model, outbox: &Outbox) -> Option<u8> {
    let late = |ms: u64| ms / 1000 >= model.thresholds.lag;
    match &*outbox.state {
        "down" => Some(6),
        _ if outbox.resting => Some(6),
        _ if outbox.lag_ms.is_some_and(late) => Some(4),
        _ if !outbox.paused.is_empty() => Some(3),
        _ => None,
    }
}

/// How bad it is with a branch, if it is bad at all.
fn rank(model: &Model, row: &Row) -> Option<u8> {
    let branch = &row.branch;
    let full = || format::percent(branch.queued, branch.capacity) >= model.thresholds.queue;
    match branch.state {
        State::Failed => Some(9),
        State::Full => Some(5),
        State::Paused => Some(3),
        State::Run if late(row) > 1000 => Some(4),
        State::Run if branch.capacity > 0 && full() => Some(2),
        _ => None,
    }
}

/// By how much its window is late, in milliseconds.
fn late(row: &Row) -> u64 {
    match (row.branch.window_age_ms, row.branch.window_max_age_ms) {
        (Some(age), Some(most)) => age.saturating_sub(most),
        _ => 0,
    }
}

impl Found<'_> {
    /// Puts it into words.
    fn told(self, model: &Model, now: u64) -> Attention {
        let (what, state, branch) = match self.about {
            About::Lost(process) => (lost(process, now), None, None),
            About::Stuck(stuck) => {
                let stuck = format::count(stuck);
                let what = format!("{stuck} compensations are stuck: retry or skip them");
                (what, None, None)
            }
            About::HeldUp(call, process) => {
                let since = format::ago(process.clock(now), call.since);
                (format!("held up by {} for {since}", call.stage), None, None)
            }
            About::Quiet(pipeline, process) => {
                let since = format::ago(process.clock(now), pipeline.totals.at);
                let what = format!("has told nothing for {since}: what drives it is held up");
                (what, None, None)
            }
            About::Outbox(outbox) if &*outbox.state == "down" => {
                ("outbox cannot be reached".to_owned(), None, None)
            }
            About::Outbox(outbox) if outbox.resting => {
                let what = "outbox does not work: its worker leaves it alone for a while";
                (what.to_owned(), None, None)
            }
            About::Outbox(outbox) if !outbox.paused.is_empty() => {
                let topics: Vec<_> = outbox.paused.iter().map(|it| &**it).collect();
                (format!("outbox: paused {}", topics.join(", ")), None, None)
            }
            About::Outbox(outbox) => {
                let lag = format::span(outbox.lag_ms.unwrap_or_default());
                (format!("outbox: a message has waited {lag}"), None, None)
            }
            About::Branch(id, process, row) => {
                let mut what = matter(row, process.clock(now));
                if row.branch.state == State::Paused
                    && let Some(who) = paused_by(model, id)
                {
                    what = format!("{what} by {who}");
                }
                (what, Some(row.branch.state), Some(id))
            }
        };
        Attention {
            rank: self.rank,
            state,
            who: self.who.into_owned(),
            what,
            branch,
        }
    }
}

fn lost(process: &Process, now: u64) -> String {
    if let Link::Lost { why, .. } = &process.link {
        return format!("process lost ({why})");
    }
    let age = process.age(now).unwrap_or_default();
    format!("says nothing for {}", format::span(age))
}

/// Who has paused a branch, if that was somebody whose command was logged.
fn paused_by(model: &Model, id: BranchId) -> Option<String> {
    let about = |line: &&LogLine| {
        let entry = &line.entry;
        (line.process, entry.p, entry.b) == (id.process, Some(id.key.0), Some(id.key.1))
            && entry.kind == Kind::Audit
            && entry.op.as_deref() == Some(Op::BranchPause.word())
            && entry.ok == Some(true)
            && !entry.msg.starts_with("dry run")
    };
    let line = model.shown().log.iter().rev().find(about)?;
    let uid = line.entry.peer.as_ref()?.uid?;
    Some(model.user(uid))
}

/// What is the matter with a branch that has a rank.
fn matter(row: &Row, clock: u64) -> String {
    let branch = &row.branch;
    let since = || format::ago(clock, branch.entered);
    match branch.state {
        State::Failed => {
            let code = branch.last_error.as_deref();
            let code = code.unwrap_or("for an unknown reason");
            match (branch.stuck, branch.compensations) {
                (0, 0) => format!("failed {code}"),
                (0, n) => format!("failed {code}, {} compensations pending", format::count(n)),
                (n, _) => format!("failed {code}, {} compensations stuck", format::count(n)),
            }
        }
        // One that drops what comes holds nothing up.
        State::Full if branch.capacity > 0 && branch.blocked_ms > 0 => {
            format!("queue full {}, holds up what feeds it", since())
        }
        State::Full => format!("queue full {}", since()),
        State::Paused => format!("paused {} ago", since()),
        _ if late(row) > 1000 => format!("window {} late", format::span(late(row))),
        _ => {
            let percent = format::percent(branch.queued, branch.capacity);
            format!("queue {percent}% full")
        }
    }
}
