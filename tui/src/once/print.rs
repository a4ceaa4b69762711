//! The pictures as tables and remarks.

use std::fmt::Write;

use anabranch_protocol::message::{Pipe, Totals};
use anabranch_protocol::row::BranchKey;

use super::{Options, Picture, STUCK};
use crate::app::columns::{Column, Sort};
use crate::format::{self, micros};
use crate::store::Row;
use crate::table::{Table, short, span};

fn maybe(number: Option<u64>, show: impl Fn(u64) -> String) -> String {
    number.map_or_else(|| "-".to_owned(), show)
}

pub(super) fn render(pictures: &[&Picture], options: &Options) -> String {
    let mut table = Table::new(&[
        "PROCESS",
        "PIPELINE",
        "ST",
        "BRANCHES>",
        "IN/s>",
        "OUT/s>",
        "IN>",
        "OUT>",
        "ERR>",
        "QUEUE>",
        "P99>",
        "CMP>",
    ]);
    let mut remarks = String::new();
    for picture in pictures {
        let process = picture.label();
        let allowed = |pipe: &&Pipe| options.filter.allows(&process, &pipe.name);
        for pipe in picture.pipes.values().filter(allowed) {
            let totals = picture.totals.get(&pipe.p).cloned().unwrap_or_default();
            table.row(vec![
                process.clone(),
                pipe.name.to_string(),
                totals.phase.to_string(),
                short(totals.branches.all),
                maybe(picture.rate(pipe.p, |it| it.received), short),
                maybe(picture.rate(pipe.p, |it| it.committed), short),
                short(totals.received),
                short(totals.committed),
                short(totals.failed),
                short(totals.queued),
                maybe(totals.p99, micros),
                short(totals.compensations),
            ]);
            remark(&mut remarks, picture, pipe, &totals);
        }
        if picture.pipes.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(remarks, "!! {process}: no pipeline runs");
        }
    }
    let mut text = table.render();
    text.push('\n');
    text.push_str(&branches(pictures, options));
    text.push_str(&outboxes(pictures));
    text.push_str(&remarks);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The outboxes of all processes, if there are any.
fn outboxes(pictures: &[&Picture]) -> String {
    let mut table = Table::new(&[
        "STORE", "PROCESS", "ST", "READY>", "LEASED>", "LATER>", "DEAD>", "LAG>", "WORKERS>",
        "PAUSED",
    ]);
    let mut any = false;
    for picture in pictures {
        for store in &picture.stores {
            any = true;
            let paused: Vec<_> = store.paused.iter().map(|it| &**it).collect();
            let state = if store.resting { "rest" } else { &*store.state };
            table.row(vec![
                store.store.to_string(),
                picture.label(),
                state.to_owned(),
                short(store.ready),
                short(store.leased),
                short(store.retry),
                short(store.dead),
                maybe(store.lag_ms, span),
                maybe(store.workers, short),
                paused.join(","),
            ]);
        }
    }
    if any {
        format!("{}\n", table.render())
    } else {
        String::new()
    }
}

/// What a person should look at.
fn remark(remarks: &mut String, picture: &Picture, pipe: &Pipe, totals: &Totals) {
    let silent = picture.ts.saturating_sub(totals.at);
    if let Some(call) = totals.call.as_ref().filter(|_| silent > STUCK) {
        let since = span(picture.ts.saturating_sub(call.since));
        let branch = call
            .branch
            .and_then(|id| picture.names.get(&BranchKey(pipe.p, id)));
        let branch = branch
            .map(|name| format!(", branch {}", format::name(name)))
            .unwrap_or_default();
        let _ = writeln!(
            remarks,
            "!! {}: in stage {} since {since}{branch}; its numbers are as old",
            pipe.name, call.stage
        );
    } else if silent > STUCK && totals.phase != anabranch_protocol::message::Phase::End {
        let _ = writeln!(
            remarks,
            "!! {}: has told nothing for {}",
            pipe.name,
            span(silent)
        );
    }
    let states = &totals.branches;
    for (count, what) in [
        (states.fail, "failed"),
        (states.full, "full"),
        (states.pause, "paused"),
    ] {
        if count > 0 {
            let branches = if count == 1 { "branch" } else { "branches" };
            let _ = writeln!(
                remarks,
                "!! {}: {} {branches} {what}",
                pipe.name,
                short(count)
            );
        }
    }
}

/// The first branches of the order wanted.
fn branches(pictures: &[&Picture], options: &Options) -> String {
    let mut all: Vec<(&Picture, Row)> = Vec::new();
    for picture in pictures {
        let rows = picture.rows_shown(&options.filter).filter(|row| row.id > 0);
        all.extend(rows.map(|row| (*picture, row)));
    }
    let (count, rows) = (all.len(), options.rows);
    if count == 0 || rows == 0 {
        return String::new();
    }
    let Sort { column, falling } = options.sort;
    all.sort_by(|(_, left), (_, right)| {
        let order = match column {
            Column::Tenant => left.tenant.cmp(&right.tenant),
            column => column.rank(left).cmp(&column.rank(right)),
        };
        let order = if falling { order.reverse() } else { order };
        order.then_with(|| left.branch.key().cmp(&right.branch.key()))
    });
    let mut table = Table::new(&[
        "TENANT",
        "PIPELINE",
        "ST",
        "IN>",
        "OUT>",
        "ERR>",
        "QUEUE>",
        "WINDOW>",
        "AGE>",
        "RUN>",
        "DL>",
        "LAST ERROR",
    ]);
    for (picture, row) in all.iter().take(rows) {
        let branch = &row.branch;
        let pipe = picture
            .pipes
            .get(&branch.pipeline)
            .map(|it| it.name.to_string());
        let of = |size: Option<u64>| size.map(|it| format!("/{}", short(it))).unwrap_or_default();
        table.row(vec![
            row.shown().into_owned(),
            pipe.unwrap_or_default(),
            branch.state.to_string(),
            short(branch.received),
            short(branch.committed),
            short(branch.failed),
            format!("{}/{}", short(branch.queued), short(branch.capacity)),
            maybe(branch.window, |it| {
                format!("{}{}", short(it), of(branch.window_size))
            }),
            maybe(branch.window_age_ms, |it| {
                format!("{}.{}s", it / 1000, it % 1000 / 100)
            }),
            short(branch.in_flight),
            short(branch.dead_lettered),
            branch
                .last_error
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    if count > rows {
        let _ = writeln!(text, "... and {} more", count - rows);
    }
    text.push('\n');
    text
}
