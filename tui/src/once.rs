//! `anabranch top --once`, `--batch` and `--json`: what the dashboard would show, printed.

mod print;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anabranch_protocol::histogram::quantile;
use anabranch_protocol::message::{
    ErrorRow, Pipe, Process, Right, Server, Stage, Store, Sub, Topic, Totals,
};
use anabranch_protocol::row::{Branch, BranchKey, Columns};
use anabranch_protocol::{Client, Text};
use serde_json::{Value, json};

use crate::Exit;
use crate::app::columns::{Column, Sort};
use crate::cli::{complain, say};
use crate::filter::Filter;
use crate::session::{At, Failed, Session};
use crate::store::Row;

/// How long a process may take for its first picture, beyond the interval.
const PATIENCE: Duration = Duration::from_secs(3);
/// A pipeline that has told nothing for so long is stuck, in milliseconds.
const STUCK: u64 = 2000;

/// What is to be printed.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Between two pictures.
    pub(crate) interval: Duration,
    /// Pictures; the first comes after one interval, for there are rates in it.
    pub(crate) pictures: u64,
    /// Whether as JSON, one object per picture.
    pub(crate) json: bool,
    /// Branches that are printed, the first of their order.
    pub(crate) rows: usize,
    /// Which branches are shown.
    pub(crate) filter: Filter,
    /// Their order.
    pub(crate) sort: Sort,
}

impl Options {
    /// Whether it matters how fast a branch is.
    fn needs_rates(&self) -> bool {
        matches!(self.sort.column, Column::In | Column::Out | Column::Spark)
            || self.filter.source().contains("rate:")
    }
}

/// One process, as it was told of.
#[derive(Debug, Default)]
struct Picture {
    process: Process,
    pipes: BTreeMap<u32, Pipe>,
    totals: BTreeMap<u32, Totals>,
    /// The totals one interval ago, and how long that is.
    before: BTreeMap<u32, Totals>,
    between: Duration,
    stages: BTreeMap<(u32, u32), Stage>,
    names: BTreeMap<BranchKey, Text>,
    branches: BTreeMap<BranchKey, Branch>,
    errors: Vec<ErrorRow>,
    /// The outboxes, and those of a table of which more is to come.
    stores: Vec<Store>,
    some_stores: Vec<Store>,
    /// What each branch had received and committed at the last tick, and one before.
    counted: [BTreeMap<BranchKey, (u64, u64)>; 2],
    ts: u64,
    ticks: u64,
    /// Whether the first table is complete.
    whole: bool,
    rss: u64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what waits for a process needs a clock of its own"
)]
fn now() -> Instant {
    Instant::now()
}

/// Prints the pictures of these processes. The worst of what went wrong is the exit code, if
/// nothing could be shown.
pub(crate) fn run(targets: &[At], options: &Options) -> Exit {
    let mut watched = Vec::new();
    let mut worst = Exit::Nothing;
    for at in targets {
        match Session::open(
            at,
            concat!("anabranch-top/", env!("CARGO_PKG_VERSION")),
            &[Right::Observe],
        ) {
            Ok(session) => watched.push((at, session, Picture::default())),
            Err(error) => worst = failed(at, &error),
        }
    }
    let mut shown = 0;
    for (at, session, picture) in &mut watched {
        picture.process = session.welcome().server.clone();
        let tick_ms = u64::try_from(options.interval.as_millis()).unwrap_or(u64::MAX);
        let sub = Sub {
            id: 1,
            tick_ms,
            bulk_ms: tick_ms,
            topics: vec![
                Topic::Totals,
                Topic::Stages,
                Topic::Branches,
                Topic::Errors,
                Topic::Outbox,
            ],
            ..Sub::default()
        };
        if let Err(error) = session.send(&Client::from(sub)) {
            worst = failed(at, &error);
        }
    }
    for number in 0..options.pictures {
        watched.retain_mut(
            |(at, session, picture)| match look(session, picture, options) {
                Ok(()) => true,
                Err(error) => {
                    worst = failed(at, &error);
                    false
                }
            },
        );
        if watched.is_empty() {
            break;
        }
        shown += 1;
        let pictures: Vec<_> = watched.iter().map(|(_, _, picture)| picture).collect();
        let text = if options.json {
            let processes: Vec<_> = pictures.iter().map(|it| it.json(&options.filter)).collect();
            format!("{}\n", json!({ "processes": processes }))
        } else {
            let gap = if number == 0 { "" } else { "\n" };
            format!("{gap}{}", print::render(&pictures, options))
        };
        let said = say(&text);
        if said != Exit::Ok {
            return said;
        }
    }
    if shown == 0 { worst } else { Exit::Ok }
}

fn failed(at: &At, error: &Failed) -> Exit {
    complain(&format!("{at}: {error}"));
    match error {
        Failed::Refused(_) => Exit::Refused,
        _ => Exit::Lost,
    }
}

/// Listens until there is a picture one interval after the last one.
fn look(session: &mut Session, picture: &mut Picture, options: &Options) -> Result<(), Failed> {
    let until = now() + options.interval + PATIENCE;
    // Rates of branches take one look more than those of pipelines.
    let first = if options.needs_rates() { 2 } else { 1 };
    let wanted = picture.ticks.max(first) + 1;
    while picture.ticks < wanted || !picture.is_whole() {
        match session.receive(until)? {
            Some(message) => picture.take(message),
            None if picture.ticks > 0 => return Ok(()),
            None => return Err(Failed::Silent),
        }
    }
    Ok(())
}

impl Picture {
    /// Whether there is a row for each branch that the totals speak of: some may have opened since
    /// the table was begun.
    fn is_whole(&self) -> bool {
        let rows = |p: u32| {
            self.branches
                .range(BranchKey(p, 1)..=BranchKey(p, u32::MAX))
        };
        let told = |(p, it): (&u32, &Totals)| rows(*p).count() as u64 >= it.branches.all;
        self.whole && self.totals.iter().all(told)
    }

    fn take(&mut self, message: Server) {
        match message {
            Server::Pipe(pipe) => {
                self.pipes.insert(pipe.p, pipe);
            }
            Server::Names(names) => {
                let names = names.r.into_iter();
                self.names
                    .extend(names.map(|(p, id, name)| (BranchKey(p, id), name)));
            }
            Server::Rows(rows) => {
                self.whole |= rows.full && !rows.more;
                self.rows(&rows.r);
            }
            Server::Errors(errors) => self.errors = errors.r,
            Server::Outbox(outbox) => {
                self.some_stores.extend(outbox.r);
                if !outbox.more {
                    self.stores = std::mem::take(&mut self.some_stores);
                }
            }
            Server::Stages(stages) => {
                self.stages
                    .extend(stages.r.into_iter().map(|it| ((it.p, it.s), it)));
            }
            Server::Tick(tick) => {
                self.rows(&tick.r);
                self.between = Duration::from_millis(tick.ts.saturating_sub(self.ts));
                self.ts = tick.ts;
                self.rss = tick.rss;
                self.ticks += 1;
                let totals = tick.tot.into_iter().map(|it| (it.p, it)).collect();
                self.before = std::mem::replace(&mut self.totals, totals);
                let counts = self.branches.iter();
                let counts = counts.map(|(key, it)| (*key, (it.received, it.committed)));
                self.counted.rotate_left(1);
                self.counted[1] = counts.collect();
            }
            _ => {}
        }
    }

    fn rows(&mut self, rows: &[Vec<anabranch_protocol::row::Cell>]) {
        let columns = Columns::default();
        for row in rows {
            let branch = columns.read(row);
            self.branches.insert(branch.key(), branch);
        }
    }

    /// How much more it has become per second.
    fn rate(&self, p: u32, count: impl Fn(&Totals) -> u64) -> Option<u64> {
        let before = count(self.before.get(&p)?);
        let after = count(self.totals.get(&p)?);
        let millis = u64::try_from(self.between.as_millis())
            .ok()
            .filter(|it| *it > 0)?;
        Some(after.saturating_sub(before).saturating_mul(1000) / millis)
    }

    /// A branch as the dashboard would hold it.
    fn row(&self, key: BranchKey, branch: &Branch) -> Row {
        let millis = u64::try_from(self.between.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let at = |index: usize| self.counted[index].get(&key).copied();
        let rates = at(0).zip(at(1)).map(|(before, after)| {
            let rate = |before: u64, after: u64| {
                let rate = after.saturating_sub(before).saturating_mul(1000) / millis;
                u32::try_from(rate).unwrap_or(u32::MAX)
            };
            (rate(before.0, after.0), rate(before.1, after.1))
        });
        let (rate_in, rate_out) = rates.unwrap_or_default();
        Row {
            id: key.1,
            tenant: self.names.get(&key).cloned().unwrap_or_default(),
            named: self.names.contains_key(&key),
            branch: branch.clone(),
            told: true,
            rate_in,
            rate_out,
            ..Row::default()
        }
    }

    fn label(&self) -> String {
        format!("{}[{}]", self.process.name, self.process.pid)
    }

    /// The branches a filter shows.
    fn rows_shown<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = Row> + 'a {
        let allowed = |p: &u32| {
            let pipe = self.pipes.get(p);
            filter.allows(&self.label(), pipe.map_or("", |it| &it.name))
        };
        let allowed: Vec<_> = self.pipes.keys().copied().filter(allowed).collect();
        let branches = self
            .branches
            .iter()
            .filter(move |(key, _)| allowed.contains(&key.0));
        let rows = branches.map(|(key, branch)| self.row(*key, branch));
        rows.filter(|row| filter.shows(row))
    }

    fn json(&self, filter: &Filter) -> Value {
        let pipelines: Vec<_> = self
            .pipes
            .values()
            .filter(|pipe| filter.allows(&self.label(), &pipe.name))
            .map(|pipe| self.pipeline_json(pipe, filter))
            .collect();
        json!({
            "pid": self.process.pid,
            "name": self.process.name,
            "version": self.process.version,
            "start": self.process.start,
            "host": self.process.host,
            "ts": self.ts,
            "rss": self.rss,
            "pipelines": pipelines,
            "outboxes": self.stores,
        })
    }

    fn pipeline_json(&self, pipe: &Pipe, filter: &Filter) -> Value {
        let p = pipe.p;
        let stages: Vec<_> = self
            .stages
            .range((p, 0)..=(p, u32::MAX))
            .map(|(_, stage)| {
                let mut value = json!(stage);
                value["name"] = json!(pipe.stages.get(stage.s as usize));
                value["p50"] = json!(quantile(&stage.hist, 0.5));
                value["p99"] = json!(quantile(&stage.hist, 0.99));
                value
            })
            .collect();
        let columns = Columns::default();
        let branches: Vec<_> = self
            .rows_shown(filter)
            .filter(|row| row.branch.pipeline == p)
            .map(|row| {
                let names = columns.names().iter().map(ToString::to_string);
                let mut cells: serde_json::Map<_, _> = names
                    .zip(columns.write(&row.branch).iter().map(|cell| json!(cell)))
                    .collect();
                cells.insert(
                    "tenant".to_owned(),
                    json!(self.names.get(&row.branch.key())),
                );
                Value::Object(cells)
            })
            .collect();
        let errors: Vec<_> = self.errors.iter().filter(|it| it.p == p).collect();
        json!({
            "p": p,
            "name": pipe.name,
            "st": pipe.phase,
            "start": pipe.start,
            "control": pipe.control,
            "in_per_s": self.rate(p, |it| it.received),
            "out_per_s": self.rate(p, |it| it.committed),
            "totals": self.totals.get(&p),
            "stages": stages,
            "branches": branches,
            "errors": errors,
        })
    }
}
