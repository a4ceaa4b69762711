//! What is told of windows, undo actions, outboxes, errors and the log.

use serde::{Deserialize, Serialize};

use crate::row::BranchKey;
use crate::text::Text;

/// Open windows: the late ones first, 512 at most.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// How many are open in all.
    #[serde(default)]
    pub all: u64,
    /// One for each.
    pub r: Vec<Win>,
}

/// An open window.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Win {
    /// Its branch.
    pub b: BranchKey,
    /// Its leg.
    pub leg: u32,
    /// Items in it.
    pub n: u64,
    /// Items that fill it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How old its first item is, in milliseconds.
    pub age_ms: u64,
    /// How old it may become, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Why the one before it left: `size`, `age`, `idle`, `bytes` or `close`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Text>,
}

words! {
    /// What a scope belongs to.
    ScopeLevel {
        /// A unit.
        Unit = "unit",
        /// A branch.
        Branch = "branch",
        /// The pipeline.
        Pipeline = "pipeline",
    }
}

words! {
    /// What became of an undo action.
    ActionState {
        /// Its turn has not come.
        Pending = "pending",
        /// It runs.
        Running = "running",
        /// It ran to the end.
        Done = "done",
        /// It raised; it waits for an operator.
        Failed = "failed",
        /// It had no turn in time; it waits for an operator.
        Unrun = "unrun",
        /// The policy, or an operator, left it out.
        Skipped = "skipped",
    }
}

/// Undo actions, as a tree: pipeline, scope, action.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comp {
    /// Whether more pieces follow.
    #[serde(default)]
    pub more: bool,
    /// The scopes with anything pending, running or stuck, and the last ones done.
    pub r: Vec<Scope>,
}

/// What is undone together.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Its number in the pipeline.
    pub id: u64,
    /// Where it belongs.
    pub b: BranchKey,
    /// What it belongs to.
    pub level: ScopeLevel,
    /// What failed, for people: the stage, the error.
    pub what: Text,
    /// In which way: `sequential`, `parallel`, `custom`.
    pub policy: Text,
    /// When it began, in milliseconds since 1970.
    pub start: u64,
    /// How long it took in all, in milliseconds, if it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Its actions, in the order they run.
    pub actions: Vec<Action>,
}

/// An undo action.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// Its number in the pipeline: later ones have a higher.
    pub n: u64,
    /// What it is called.
    pub name: Text,
    /// Where it was registered, by stage.
    pub stage: Text,
    /// What became of it.
    #[serde(rename = "st")]
    pub state: ActionState,
    /// Whether it runs in any case, not only after a failure.
    pub finalizer: bool,
    /// When it was registered, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Which try this is.
    pub attempt: u32,
    /// Tries in all.
    pub of: u32,
    /// When it is tried again, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<u64>,
    /// What it raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Text>,
}

/// Outboxes, by store.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// Whether more pieces follow.
    #[serde(default)]
    pub more: bool,
    /// One for each.
    pub r: Vec<Store>,
}

/// The outbox of one database.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// Its key.
    pub store: Text,
    /// Whose it is, if it is one of several that a worker serves.
    pub tenant: Text,
    /// Whether it can be reached: `up`, `down`, or `new` if that was not tried yet.
    #[serde(rename = "st")]
    pub state: Text,
    /// How stores are selected: `round_robin` …
    pub selection: Text,
    /// Messages that are ready.
    pub ready: u64,
    /// Messages that are leased.
    pub leased: u64,
    /// Messages due later, or tried again later.
    pub retry: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest ready one has waited, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// How long the oldest lease is held, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// When the next lease expires, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When it was last polled, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polled: Option<u64>,
    /// Workers at work on it, wherever they run; nothing, if that was not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u64>,
    /// Topics that are paused, as they were named; `*` is all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<Text>,
    /// Whether the worker of this process leaves it alone for a while, because it does not work.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resting: bool,
}

/// Dead letters of one store, or of one pipeline.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dead {
    /// The store, if it is one of an outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Text>,
    /// How many there are in all.
    #[serde(default)]
    pub all: u64,
    /// Whether more pieces follow.
    #[serde(default)]
    pub more: bool,
    /// One for each.
    pub r: Vec<DeadLetter>,
}

/// A dead letter, without what it holds.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetter {
    /// Its id.
    pub id: Text,
    /// Its topic.
    pub topic: Text,
    /// Its tenant.
    pub tenant: Text,
    /// Attempts it had.
    pub attempts: u32,
    /// The last error.
    pub error: Text,
    /// When it died, in milliseconds since 1970.
    pub at: u64,
    /// What it holds, cut; only in answer to `dl.peek`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Text>,
}

/// Errors by code.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// One for each code of each pipeline.
    pub r: Vec<ErrorRow>,
}

/// How often an error came up. Each is counted once, where it arose.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorRow {
    /// The pipeline.
    pub p: u32,
    /// Its code.
    pub code: Text,
    /// Items it has failed in all.
    pub n: u64,
    /// In the last minute.
    pub n1: u64,
    /// In the last 5 minutes.
    pub n5: u64,
    /// In the last 60 minutes.
    pub n60: u64,
    /// When it was first seen, in milliseconds since 1970.
    pub first: u64,
    /// When it was last seen, in milliseconds since 1970.
    pub last: u64,
    /// Branches it came up in: 8 at most, the last first.
    pub branches: Vec<u32>,
    /// The stage of the last one.
    pub stage: Text,
    /// One of them and its causes, the outermost first.
    pub sample: Vec<Text>,
}

words! {
    /// How bad it is.
    Severity {
        /// For whoever looks for a fault.
        Debug = "debug",
        /// As it should be.
        Info = "info",
        /// Worth a look.
        Warn = "warn",
        /// Something failed.
        Error = "error",
    }
}

words! {
    /// What an entry of the log is.
    Kind {
        /// It was logged.
        Log = "log",
        /// An operator did something.
        Audit = "audit",
        /// Something happened to a pipeline or a branch.
        Event = "event",
    }
}

/// What was logged, done and has happened.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// The oldest first.
    pub r: Vec<LogEntry>,
    /// Entries that were lost just before the first of these.
    #[serde(default)]
    pub lost: u64,
}

/// One entry of the log.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    /// Its number in the process.
    pub n: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What it is.
    pub kind: Kind,
    /// How bad it is.
    #[serde(rename = "lvl")]
    pub level: Severity,
    /// The pipeline, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<u32>,
    /// The branch, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<u32>,
    /// What happened.
    pub msg: Text,
    /// Who did it, of an audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Which operation, of an audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Text>,
    /// Whether it worked, of an audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
}

/// Who is at the other end.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it calls itself.
    pub client: Text,
}
