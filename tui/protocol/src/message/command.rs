//! What an operator asks for, and what becomes of it.

use serde::{Deserialize, Serialize};

use crate::text::Text;

words! {
    /// What can be asked for.
    Op {
        /// Units of the branch wait; items still come in.
        BranchPause = "branch.pause",
        /// They go on.
        BranchResume = "branch.resume",
        /// The branch finishes what is inside; the next item opens it again.
        BranchDrain = "branch.drain",
        /// The branch fails: what is inside and was not begun is given up, the rest is undone.
        BranchCancel = "branch.cancel",
        /// Its units leave at another rate; without one, as fast as can be.
        BranchThrottle = "branch.throttle",
        /// A branch that is over, or has failed, opens again.
        BranchRestart = "branch.restart",
        /// Stuck undo actions are tried again.
        CompRetry = "comp.retry",
        /// Stuck undo actions are given up.
        CompSkip = "comp.skip",
        /// Nothing more is taken in; what is inside is finished.
        PipelineDrain = "pipeline.drain",
        /// The pipeline rolls back.
        PipelineCancel = "pipeline.cancel",
        /// Dead letters go back.
        DeadRequeue = "dl.requeue",
        /// One is shown.
        DeadPeek = "dl.peek",
        /// They are thrown away.
        DeadDiscard = "dl.discard",
        /// From which level on the log is sent.
        LogLevel = "log.level",
        /// Everything is sent once more.
        Snapshot = "snapshot",
    }
}

impl Op {
    /// Whether it changes nothing in the process, so that whoever may look may ask for it.
    pub const fn only_looks(self) -> bool {
        matches!(self, Self::Snapshot | Self::LogLevel)
    }

    /// Whether it cannot be taken back: a person should confirm it.
    pub const fn is_dangerous(self) -> bool {
        matches!(
            self,
            Self::BranchDrain
                | Self::BranchCancel
                | Self::CompRetry
                | Self::CompSkip
                | Self::PipelineDrain
                | Self::PipelineCancel
                | Self::DeadRequeue
                | Self::DeadDiscard
        )
    }
}

/// A command. It runs once, however often it is sent with the same key.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cmd {
    /// Its number, which the answers repeat.
    pub id: u64,
    /// What is asked for.
    pub op: Op,
    /// Of what.
    #[serde(default)]
    pub on: Target,
    /// The generation the branch had when the operator decided: it is refused if it has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_gen: Option<u32>,
    /// With what.
    #[serde(default)]
    pub args: Arguments,
    /// Names this very decision, over reconnects too: a command whose key was seen is not carried
    /// out again, and is answered as the first was.
    #[serde(default)]
    pub key: String,
    /// Whether it is only to be told what would happen.
    #[serde(default)]
    pub dry: bool,
}

/// What a command is about. By number where there is one: names are shown, not compared.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Target {
    /// The pipeline, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<u32>,
    /// The pipeline, by name, if only one has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The branch, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<u32>,
    /// The branch, by its tenant as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The scope of undo actions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u64>,
    /// The undo action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<u64>,
    /// The store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Messages, by id; all of the store, if it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

/// What a command needs beyond its target.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arguments {
    /// How long it may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Items per second, of a throttle; none, or null, for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Items at once, of a throttle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The level of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<super::Severity>,
    /// Why, for the audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// A command was taken on. One that was not gets a `done` with an error at once.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The command.
    pub id: u64,
    /// `accepted`, or `known` if its key was seen before.
    #[serde(default)]
    pub state: Text,
}

/// How far a command is.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prog {
    /// The command.
    pub id: u64,
    /// What is still to be done, in items.
    pub left: u64,
}

/// How a command ended.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The command.
    pub id: u64,
    /// Whether it worked.
    pub ok: bool,
    /// What it was about in number: items, actions or messages.
    #[serde(default)]
    pub n: u64,
    /// Those it left alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// What happened, or, of a dry run, what would, as a sentence.
    #[serde(default)]
    pub msg: Text,
    /// Why it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<Failure>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a command did not work.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// As a word.
    pub code: Code,
    /// As a sentence, with what to do.
    #[serde(default)]
    pub msg: Text,
}

words! {
    /// Why a command did not work.
    Code {
        /// The session may only look.
        ReadOnly = "readonly",
        /// There is no such pipeline, branch, scope or message.
        NotFound = "not_found",
        /// Several have that name.
        Ambiguous = "ambiguous",
        /// The branch has changed since the operator looked.
        Conflict = "conflict",
        /// What is asked for does not fit its state.
        State = "state",
        /// The monitor does not know the operation, or this process does not offer it.
        Unsupported = "unsupported",
        /// An argument makes no sense.
        Invalid = "invalid",
        /// It was not done in time.
        Timeout = "timeout",
        /// Too many commands are under way.
        Busy = "busy",
        /// The pipeline has ended.
        Ended = "ended",
        /// It was tried, and raised.
        Failed = "failed",
    }
}
