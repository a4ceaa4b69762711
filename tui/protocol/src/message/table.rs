//! Pipelines, their stages and branches, in numbers.

use serde::{Deserialize, Serialize};

use super::topic::Win;
use crate::row::{BranchKey, Cell};
use crate::text::Text;

words! {
    /// What a pipeline is doing.
    Phase {
        /// It takes items.
        Run = "run",
        /// It takes nothing more in and finishes what is inside.
        Drain = "drain",
        /// It rolls back.
        Abort = "abort",
        /// It is over; nothing more comes of it.
        End = "end",
    }
}

words! {
    /// What a leg does with what comes to it.
    Role {
        /// It handles units, and what comes of them goes on.
        Map = "map",
        /// It handles units, the last to do so.
        Sink = "sink",
        /// It gathers windows.
        Window = "window",
        /// It takes failures.
        Failures = "failures",
    }
}

/// A pipeline. Sent when it is first seen, and again when something here changes.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipe {
    /// Its number in this process, which is not used twice.
    pub p: u32,
    /// Its name, which two may share.
    pub name: Text,
    /// What it is doing.
    #[serde(rename = "st")]
    pub phase: Phase,
    /// When it began, in milliseconds since 1970.
    #[serde(default)]
    pub start: u64,
    /// Its stages, in order.
    #[serde(default)]
    pub stages: Vec<Text>,
    /// Its handlers in order, with what stands in front of each.
    #[serde(default)]
    pub legs: Vec<Leg>,
    /// The first leg that every tenant has for itself; none, if nothing fans out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_leg: Option<u32>,
    /// Whether the monitor takes commands for it.
    #[serde(default)]
    pub control: bool,
}

/// One handler, and what stands in front of it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Its stage, by number.
    pub stage: u32,
    /// What it does.
    #[serde(default)]
    pub role: Role,
    /// Items that may wait in front of it, per branch.
    #[serde(rename = "cap", default)]
    pub capacity: u64,
    /// Units in flight, per branch.
    #[serde(rename = "conc", default)]
    pub concurrency: u32,
    /// Items that fill its window; none, if it has no window or one without that limit.
    #[serde(rename = "wcap", default, skip_serializing_if = "Option::is_none")]
    pub window_size: Option<u64>,
    /// How old its window may become, in milliseconds.
    #[serde(rename = "wint", default, skip_serializing_if = "Option::is_none")]
    pub window_max_age_ms: Option<u64>,
    /// Attempts it makes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

/// Tenants of branches, each sent before the first row of its branch.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Names {
    /// Pipeline, branch, tenant.
    pub r: Vec<(u32, u32, Text)>,
}

/// Rows of branches.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Which table they are a piece of.
    pub seq: u64,
    /// Whether the table is the whole truth, and branches that are not in it are gone. Otherwise
    /// these are those that have changed.
    #[serde(default)]
    pub full: bool,
    /// Whether more pieces of the table follow.
    #[serde(default)]
    pub more: bool,
    /// The rows, in the columns of the session.
    #[serde(default)]
    pub r: Vec<Vec<Cell>>,
}

/// What is told over and over. It comes even if nothing has changed: a client that hears no tick
/// knows that its data are old.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// Its number.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub ts: u64,
    /// The number of the subscription it answers.
    #[serde(default)]
    pub sub: u64,
    /// The sums of each pipeline.
    #[serde(default)]
    pub tot: Vec<Totals>,
    /// The rows that the client looks at, and have changed.
    #[serde(default)]
    pub r: Vec<Vec<Cell>>,
    /// Branches that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<BranchKey>,
    /// Ticks left out so far because the client did not read.
    #[serde(default)]
    pub skipped: u64,
    /// What was lost so far.
    #[serde(default)]
    pub lost: Lost,
    /// Memory of the process, in bytes; 0 if it cannot be told.
    #[serde(default)]
    pub rss: u64,
}

/// Entries that were lost because a ring was full.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Of the log.
    #[serde(default)]
    pub log: u64,
}

/// The sums of one pipeline. Counts are in items since its start.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// The pipeline.
    pub p: u32,
    /// What it is doing.
    #[serde(rename = "st")]
    pub phase: Phase,
    /// How often all of it has been told of so far. After two more everything is newer than what
    /// was asked for meanwhile.
    pub sweep: u64,
    /// Items taken from the source, and made by stages.
    #[serde(rename = "in")]
    pub received: u64,
    /// Items handled to the end.
    #[serde(rename = "out")]
    pub committed: u64,
    /// Items failed for good.
    #[serde(rename = "err")]
    pub failed: u64,
    /// Items given up by policy, or filtered out.
    #[serde(rename = "drop")]
    pub dropped: u64,
    /// Items handed to a dead-letter target.
    #[serde(rename = "dl")]
    pub dead_lettered: u64,
    /// Attempts after the first, in units.
    #[serde(rename = "retry")]
    pub retried: u64,
    /// Undo actions that are pending.
    #[serde(rename = "comp")]
    pub compensations: u64,
    /// Undo actions that have run.
    #[serde(rename = "undone")]
    pub compensated: u64,
    /// Undo actions that could not be done, and wait for an operator.
    pub stuck: u64,
    /// For how long the oldest pending one has been, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comp_age_ms: Option<u64>,
    /// Items inside.
    #[serde(rename = "q")]
    pub queued: u64,
    /// Units with a handler now.
    #[serde(rename = "run")]
    pub in_flight: u64,
    /// Windows that have left.
    #[serde(rename = "wins")]
    pub windows: u64,
    /// Windows that are older than they may be.
    pub late: u64,
    /// How full open windows are on average, in percent.
    #[serde(rename = "wfill", skip_serializing_if = "Option::is_none")]
    pub window_fill: Option<u64>,
    /// For how long a full branch has held up the source, in all, in milliseconds.
    #[serde(rename = "blk")]
    pub blocked_ms: u64,
    /// Branches by state.
    #[serde(rename = "states")]
    pub branches: States,
    /// Half of all units took no longer at their handler, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<u64>,
    /// 99 of 100 took no longer, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// When the pipeline last told its numbers, in milliseconds since 1970: while a callable holds
    /// it up, everything else here stands still.
    pub at: u64,
    /// The callable its thread is in now, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// How long the oldest lease of its outboxes is held, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long the oldest message of its outboxes has waited, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
}

/// A callable of the user's that the driving thread is in.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Its stage.
    pub stage: Text,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// The branch whose unit it works on, if it works on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<u32>,
}

/// How many branches are in each state; the trunk is not among them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct States {
    /// All that are or were.
    pub all: u64,
    /// Running.
    pub run: u64,
    /// Running, with nothing to do.
    pub idle: u64,
    /// Full.
    pub full: u64,
    /// Paused.
    pub pause: u64,
    /// Draining.
    pub drain: u64,
    /// Restarting.
    pub restart: u64,
    /// Failed.
    pub fail: u64,
    /// Evicted or removed.
    pub over: u64,
}

/// The stages of pipelines, those that have changed.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// One for each.
    pub r: Vec<Stage>,
}

/// One stage, over all branches. Counts are since the start of its pipeline.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// The pipeline.
    pub p: u32,
    /// Its number there.
    pub s: u32,
    /// Items that came.
    #[serde(rename = "in")]
    pub received: u64,
    /// Items that went on, or, of a sink, that it handled.
    #[serde(rename = "out")]
    pub passed: u64,
    /// Items that failed here.
    #[serde(rename = "err")]
    pub failed: u64,
    /// Items taken out on purpose.
    #[serde(rename = "drop")]
    pub dropped: u64,
    /// Attempts after the first, in units.
    #[serde(rename = "retry")]
    pub retried: u64,
    /// Undo actions registered here that have run.
    #[serde(rename = "undone")]
    pub compensated: u64,
    /// Items that wait in front of it.
    #[serde(rename = "q")]
    pub queued: u64,
    /// Units with a handler now.
    #[serde(rename = "run")]
    pub in_flight: u64,
    /// For how long it has held up what feeds it, in milliseconds.
    #[serde(rename = "blk")]
    pub blocked_ms: u64,
    /// Code of the last failure.
    #[serde(rename = "lerr", skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Text>,
    /// How many units took how long: see [`crate::histogram`]; without the empty buckets at the
    /// end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hist: Vec<u64>,
}

/// One branch in detail.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// The pipeline.
    pub p: u32,
    /// The branch.
    pub id: u32,
    /// When this was so, in milliseconds since 1970.
    pub at: u64,
    /// Since when it has been in its state, in milliseconds since 1970.
    pub since: u64,
    /// Its legs.
    pub legs: Vec<LegDetail>,
    /// Units under way: 32 at most.
    pub units: Vec<UnitDetail>,
    /// What the last failure was, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Text>,
    /// How many units took how long, since somebody looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hist: Vec<u64>,
    /// Who paused or throttled it, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
    /// Numbers that have a name and no place of their own yet: `idempotency hits`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<(Text, u64)>,
}

/// One leg of a branch.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LegDetail {
    /// Its number.
    pub leg: u32,
    /// Items that wait.
    #[serde(rename = "q")]
    pub queued: u64,
    /// Items that may wait.
    #[serde(rename = "qcap")]
    pub capacity: u64,
    /// For how long its queue has been full, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_ms: Option<u64>,
    /// Units in flight.
    #[serde(rename = "run")]
    pub in_flight: u64,
    /// Its open window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Win>,
    /// Windows that have left and wait.
    pub cut: u64,
    /// Items per second it lets out, if it is throttled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// A unit under way.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitDetail {
    /// Its leg.
    pub leg: u32,
    /// Items in it; 0 while its handler has it.
    pub items: u64,
    /// Which attempt it is.
    pub attempt: u32,
    /// Attempts in all, if that is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// Since when it is with its handler, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When it is tried again, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<u64>,
}
