//! One process, and what its monitor says.

use std::collections::BTreeMap;

use anabranch_protocol::Text;
use anabranch_protocol::message::{
    self, Comp, Dead, DeadLetter, Detail, ErrorRow, Outbox, Right, Rows, Scope, Server, Tick,
    Welcome, Win,
};
use anabranch_protocol::row::Columns;

use super::pipeline::Pipeline;
use crate::app::OLD_MS;
use crate::conn::TargetId;

/// The columns that are asked for: those that are shown, and no others.
pub const COLUMNS: [&str; 24] = [
    "p", "id", "gen", "st", "in", "out", "err", "q", "qcap", "win", "wcap", "wage", "wint", "blk",
    "run", "retry", "comp", "dl", "lerr", "lat", "ent", "p50", "p99", "stuck",
];

/// How things are with a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is being reached for the first time.
    Connecting,
    /// It tells what it does.
    Live,
    /// It was lost.
    Lost {
        /// Why.
        why: String,
        /// Since when, in milliseconds since 1970.
        since: u64,
        /// When it is tried again, in milliseconds since 1970; never, if it is over.
        again: Option<u64>,
    },
}

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    /// How it is reached.
    pub target: TargetId,
    /// How things are with it.
    pub link: Link,
    /// What it says about itself, once it has.
    pub info: Option<message::Process>,
    /// The protocol that is spoken.
    pub proto: u32,
    /// What we may do.
    pub rights: Vec<Right>,
    /// Its pipelines.
    pub pipelines: BTreeMap<u32, Pipeline>,
    /// Open windows: how many in all, and those that were told.
    pub windows: (u64, Vec<Win>),
    /// Undo actions.
    pub scopes: Vec<Scope>,
    /// Outboxes.
    pub stores: Vec<message::Store>,
    /// Dead letters by store; those of no store under the empty name.
    pub dead: BTreeMap<Text, (u64, Vec<DeadLetter>)>,
    /// Errors by code.
    pub errors: Vec<ErrorRow>,
    /// The branch that is looked at.
    pub detail: Option<Detail>,
    /// When it last told its numbers: by its clock, and by ours.
    pub heard: Option<(u64, u64)>,
    /// Ticks it left out because we did not read.
    pub skipped: u64,
    /// Entries of its log that were lost.
    pub lost: u64,
    /// Its memory, in bytes.
    pub rss: u64,
    /// The number of the next entry of its log.
    pub(super) logged: u64,
    label: String,
    /// Pieces of tables of which more is to come.
    pieces: Pieces,
}

#[derive(Debug, Clone, Default)]
struct Pieces {
    scopes: Vec<Scope>,
    stores: Vec<message::Store>,
    dead: Vec<DeadLetter>,
}

impl Process {
    pub(super) fn new(target: TargetId, label: &str) -> Self {
        Self {
            target,
            label: Text::name(label).to_string(),
            link: Link::Connecting,
            info: None,
            proto: 0,
            rights: Vec::new(),
            pipelines: BTreeMap::new(),
            windows: (0, Vec::new()),
            scopes: Vec::new(),
            stores: Vec::new(),
            dead: BTreeMap::new(),
            errors: Vec::new(),
            detail: None,
            heard: None,
            skipped: 0,
            lost: 0,
            rss: 0,
            logged: 0,
            pieces: Pieces::default(),
        }
    }

    /// What it is called on the screen: `orders-svc[4211]`.
    pub fn label(&self) -> String {
        self.info.as_ref().map_or_else(
            || self.label.clone(),
            |info| format!("{}[{}]", info.name, info.pid),
        )
    }

    /// Whether it tells what it does.
    pub fn is_live(&self) -> bool {
        self.link == Link::Live
    }

    /// Whether it was lost.
    pub const fn is_lost(&self) -> bool {
        matches!(self.link, Link::Lost { .. })
    }

    /// Whether its numbers are those of now: it tells them, and has just done so.
    pub fn is_fresh(&self, now: u64) -> bool {
        self.is_live() && self.age(now).is_none_or(|age| age < OLD_MS)
    }

    /// How old its numbers are, in milliseconds; `None` if it never told any.
    pub fn age(&self, now: u64) -> Option<u64> {
        self.heard.map(|(_, at)| now.saturating_sub(at))
    }

    /// What its clock says now: while it is heard of, it goes on.
    pub fn clock(&self, now: u64) -> u64 {
        match self.heard {
            Some((ts, at)) if self.is_live() => ts + now.saturating_sub(at),
            Some((ts, _)) => ts,
            None => now,
        }
    }

    /// Whether this is the process that says so about itself.
    pub(super) fn is(&self, other: &message::Process) -> bool {
        self.info
            .as_ref()
            .is_some_and(|info| (info.pid, info.start) == (other.pid, other.start))
    }

    pub(super) fn welcome(&mut self, welcome: &Welcome, now: u64) {
        if let Some((_, at)) = self.heard {
            for pipeline in self.pipelines.values_mut() {
                pipeline.gap(now.saturating_sub(at));
            }
        }
        self.pieces = Pieces::default();
        self.info = Some(welcome.server.clone());
        self.proto = welcome.proto;
        self.rights.clone_from(&welcome.caps);
        self.link = Link::Live;
    }

    /// Another process answers in its place.
    pub(super) fn replaced(&mut self, now: u64) {
        let since = match self.link {
            Link::Lost { since, .. } => since,
            _ => now,
        };
        self.link = Link::Lost {
            why: "another process has taken its place".to_owned(),
            since,
            again: None,
        };
    }

    /// The connection is lost. What is known stays.
    pub fn lose(&mut self, why: &str, now: u64, again: Option<u64>) {
        let since = match self.link {
            Link::Lost { since, .. } => since,
            _ => now,
        };
        self.link = Link::Lost {
            why: Text::new(why).to_string(),
            since,
            again,
        };
    }

    /// Takes in what its monitor says of its numbers. Answers to commands, the log and the begin
    /// and end of a session are not told here.
    pub fn hear(&mut self, message: Server, now: u64) {
        match message {
            Server::Pipe(pipe) => {
                let number = pipe.p;
                self.pipelines.entry(number).or_default().pipe = pipe;
            }
            Server::Names(names) => {
                for (pipeline, branch, tenant) in names.r {
                    let pipeline = self.pipelines.entry(pipeline).or_default();
                    pipeline.name(branch, Text::name(&tenant));
                }
            }
            Server::Rows(rows) => self.rows(&rows),
            Server::Tick(tick) => self.tick(tick, now),
            Server::Detail(detail) => self.detail = Some(detail),
            Server::Windows(windows) => self.windows = (windows.all, windows.r),
            Server::Comp(Comp { more, r }) => {
                self.pieces.scopes.extend(r);
                if !more {
                    self.scopes = std::mem::take(&mut self.pieces.scopes);
                }
            }
            Server::Outbox(Outbox { more, r }) => {
                self.pieces.stores.extend(r);
                if !more {
                    self.stores = std::mem::take(&mut self.pieces.stores);
                }
            }
            Server::Dead(dead) => self.dead(dead),
            Server::Errors(errors) => self.errors = errors.r,
            _ => {}
        }
    }

    fn rows(&mut self, rows: &Rows) {
        self.read(&rows.r, rows.full);
        if rows.more {
            return;
        }
        let ts = self.heard.map(|(ts, _)| ts);
        for pipeline in self.pipelines.values_mut() {
            if rows.full {
                pipeline.swept();
            }
            if let Some(ts) = ts {
                pipeline.point(ts, true);
            }
        }
    }

    fn read(&mut self, rows: &[Vec<anabranch_protocol::row::Cell>], full: bool) {
        let columns = Columns::new(COLUMNS);
        for cells in rows {
            let branch = columns.read(cells);
            let pipeline = self.pipelines.entry(branch.pipeline).or_default();
            pipeline.take(branch, full);
        }
    }

    fn tick(&mut self, tick: Tick, now: u64) {
        self.heard = Some((tick.ts, now));
        self.skipped = tick.skipped;
        self.lost = tick.lost.log;
        self.rss = tick.rss;
        self.read(&tick.r, false);
        for key in tick.gone {
            if let Some(pipeline) = self.pipelines.get_mut(&key.0) {
                pipeline.remove(key.1);
            }
        }
        for totals in tick.tot {
            let pipeline = self.pipelines.entry(totals.p).or_default();
            pipeline.sum(totals, tick.ts);
        }
        for pipeline in self.pipelines.values_mut() {
            pipeline.point(tick.ts, false);
        }
    }

    fn dead(&mut self, dead: Dead) {
        let store = dead.store.unwrap_or_default();
        let (_, known) = self.dead.entry(store.clone()).or_default();
        if dead.r.iter().any(|it| it.payload.is_some()) {
            // What was asked to be shown: of the others nothing is said.
            for letter in dead.r {
                match known.iter_mut().find(|it| it.id == letter.id) {
                    Some(place) => *place = letter,
                    None => known.push(letter),
                }
            }
            return;
        }
        self.pieces.dead.extend(dead.r);
        if !dead.more {
            let mut letters = std::mem::take(&mut self.pieces.dead);
            for letter in &mut letters {
                let shown = known.iter_mut().find(|it| it.id == letter.id);
                letter.payload = shown.and_then(|it| it.payload.take());
            }
            self.dead.insert(store, (dead.all, letters));
        }
    }
}
