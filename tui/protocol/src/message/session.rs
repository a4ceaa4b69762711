//! How a session begins, what it is about, and how it ends.

use serde::{Deserialize, Serialize};

use crate::row::BranchKey;
use crate::text::Text;
use crate::version::Versions;

words! {
    /// What a client may do. The monitor decides; a client asks.
    Right {
        /// To look.
        Observe = "observe",
        /// To give commands.
        Control = "control",
        /// To see what dead letters hold.
        Payloads = "payloads",
    }
}

words! {
    /// What a client can be told about.
    Topic {
        /// The sums of each pipeline, every tick.
        Totals = "totals",
        /// Its stages.
        Stages = "stages",
        /// Its branches.
        Branches = "branches",
        /// Open windows.
        Windows = "windows",
        /// Undo actions.
        Comp = "comp",
        /// Outboxes.
        Outbox = "outbox",
        /// Errors by code.
        Errors = "errors",
        /// The log, with what operators did.
        Log = "log",
    }
}

/// Who a client is. Its first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions it speaks.
    pub proto: Versions,
    /// Its name and version: `anabranch-top/0.1.0`.
    #[serde(default)]
    pub client: Text,
    /// What it would like to do; without it, to look.
    #[serde(default)]
    pub want: Vec<Right>,
    /// What lets it in over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The session begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that is spoken from now on.
    pub proto: u32,
    /// The process.
    pub server: Process,
    /// What the client may do.
    pub caps: Vec<Right>,
    /// The columns of a row, unless the client names those it wants.
    pub cols: Vec<Text>,
    /// The longest line, in bytes.
    #[serde(default = "max_line")]
    pub max_line: usize,
    /// The shortest tick the monitor keeps, in milliseconds.
    #[serde(default)]
    pub min_tick_ms: u64,
}

const fn max_line() -> usize {
    crate::MAX_LINE
}

/// A process with pipelines.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The version of anabranch in it.
    #[serde(default)]
    pub version: Text,
    /// Its number.
    pub pid: u32,
    /// When it began to be observable, in milliseconds since 1970. With the pid it tells whether a
    /// client that comes back finds the same process.
    pub start: u64,
    /// What it calls itself: the name of its script.
    #[serde(default)]
    pub name: Text,
    /// The machine.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub host: Text,
    /// The directory it was started in.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cwd: Text,
}

fn is_empty(text: &Text) -> bool {
    text.is_empty()
}

/// The session does not begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refuse {
    /// Why, as a word: `proto`, `auth`, `busy` or `malformed`.
    pub code: Text,
    /// The versions the monitor speaks, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Versions>,
    /// Why, as a sentence, and what to do.
    #[serde(default)]
    pub msg: Text,
}

/// What a client wants to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sub {
    /// Its number, which the first tick after it repeats.
    pub id: u64,
    /// How often totals and visible rows come, in milliseconds.
    #[serde(default = "tick")]
    pub tick_ms: u64,
    /// How often all changed rows come, in milliseconds.
    #[serde(default = "bulk")]
    pub bulk_ms: u64,
    /// The branches on the screen, which are told of every tick: 512 at most.
    #[serde(default)]
    pub visible: Vec<BranchKey>,
    /// What it is about; rows of branches come only with `branches`.
    #[serde(default)]
    pub topics: Vec<Topic>,
    /// The columns of a row, in this order; all, if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cols: Vec<Text>,
    /// The branch that is open in a pane of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<BranchKey>,
}

const fn tick() -> u64 {
    100
}

const fn bulk() -> u64 {
    1000
}

impl Default for Sub {
    fn default() -> Self {
        Self {
            id: 0,
            tick_ms: tick(),
            bulk_ms: bulk(),
            visible: Vec::new(),
            topics: Vec::new(),
            cols: Vec::new(),
            detail: None,
        }
    }
}

/// The connection ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bye {
    /// Why, as a word: `ended` (the process has no more to tell), `slow` (nothing was read for too
    /// long), `malformed` (what the client sent was no message) or `silent` (no hello came).
    pub code: Text,
    /// Why, as a sentence.
    #[serde(default)]
    pub msg: Text,
}
