//! What is said, by whom.
//!
//! - `message/session.rs`: hello, welcome, refuse, sub, bye.
//! - `message/table.rs`: pipelines, names, rows, ticks, stages, one branch in detail.
//! - `message/topic.rs`: windows, compensations, outboxes, dead letters, errors, the log.
//! - `message/command.rs`: commands, and what becomes of them.

mod command;
mod session;
mod table;
mod topic;

use serde::{Deserialize, Serialize};

pub use command::{Ack, Arguments, Cmd, Code, Done, Failure, Op, Prog, Target};
pub use session::{Bye, Hello, Process, Refuse, Right, Sub, Topic, Welcome};
pub use table::{
    Call, Detail, Leg, LegDetail, Lost, Names, Phase, Pipe, Role, Rows, Stage, Stages, States,
    Tick, Totals, UnitDetail,
};
pub use topic::{
    Action, ActionState, Comp, Dead, DeadLetter, ErrorRow, Errors, Kind, Log, LogEntry, Outbox,
    Peer, Scope, ScopeLevel, Severity, Store, Win, Windows,
};

use crate::codec::Malformed;

macro_rules! messages {
    ($(#[$outer:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(tag = "t")]
        pub enum $name {
            $( $(#[$doc])* #[serde(rename = $word)] $variant($variant), )+
            /// A message of a newer version.
            #[serde(rename = "?")]
            Unknown,
        }

        impl $name {
            /// Reads a line.
            ///
            /// # Errors
            /// [`Malformed`] if it is no JSON object with a `t`, or lacks what its type needs.
            pub fn decode(line: &[u8]) -> Result<Self, Malformed> {
                // The type first, then just what it needs: an enum tagged from within would copy
                // all cells of a table once more.
                let tag: Tag<'_> = serde_json::from_slice(line).map_err(Malformed)?;
                match &*tag.t {
                    $( $word => serde_json::from_slice(line).map(Self::$variant), )+
                    _ => Ok(Self::Unknown),
                }
                .map_err(Malformed)
            }
        }

        $(
            impl From<$variant> for $name {
                fn from(message: $variant) -> Self {
                    Self::$variant(message)
                }
            }
        )+
    };
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    t: std::borrow::Cow<'a, str>,
}

messages! {
    /// What a client says.
    Client {
        /// Who it is. The first line.
        Hello = "hello",
        /// What it wants to see. A later one takes the place of the earlier.
        Sub = "sub",
        /// What is to be done.
        Cmd = "cmd",
    }
}

messages! {
    /// What a monitor says.
    Server {
        /// The session begins.
        Welcome = "welcome",
        /// It does not; the connection ends.
        Refuse = "refuse",
        /// A pipeline, when it is first seen and when it changes.
        Pipe = "pipe",
        /// The tenants of branches, before the first row of each.
        Names = "names",
        /// Rows of branches.
        Rows = "rows",
        /// Totals, and the rows the client looks at.
        Tick = "tick",
        /// The stages of pipelines.
        Stages = "stages",
        /// One branch in detail.
        Detail = "detail",
        /// Open windows.
        Windows = "wins",
        /// Undo actions.
        Comp = "comp",
        /// Outboxes.
        Outbox = "outbox",
        /// Dead letters of a store.
        Dead = "dead",
        /// Errors by code.
        Errors = "errors",
        /// What was logged, done by operators, and what happened.
        Log = "log",
        /// A command was taken on, or not.
        Ack = "ack",
        /// How far it is.
        Prog = "prog",
        /// How it ended.
        Done = "done",
        /// The connection ends, and why.
        Bye = "bye",
    }
}
