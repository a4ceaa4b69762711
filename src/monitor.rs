//! The monitor: what lets others look at the pipelines of this process, and steer them.
//!
//! One thread per process answers on a socket in the user's runtime directory. It sleeps in
//! `poll` while nobody is connected, never takes the interpreter's lock, and waits for nobody: who
//! does not read misses ticks, and is let go in the end. So a pipeline that is stuck in a callable
//! can be looked at, which is when one needs it most.
//!
//! ```text
//! driving thread --numbers--> slots <--reads-- sampler --messages--> peer --bytes--> client
//!       ^                                                              |
//!       +---- inbox of commands <------------ commands <---------------+
//! ```
//!
//! - `monitor/slots.rs`: the numbers of one pipeline, where any thread may read them.
//! - `monitor/pipeline.rs`: one pipeline, as the monitor and its driver share it.
//! - `monitor/sampler.rs`, `monitor/sums.rs`: from numbers to messages.
//! - `monitor/topics.rs`: windows, undo actions, errors, and single branches.
//! - `monitor/commands.rs`: what operators ask for.
//! - `monitor/outboxes.rs`: the outboxes, as the monitor and their reader share them.
//! - `monitor/peer.rs`: one client: its rights, its lines, its patience.
//! - `monitor/files.rs`: the files by which the process is found.
//! - `monitor/open.rs`: the monitor as the process has it; `monitor/socket.rs`: where it answers.
//! - `monitor/server.rs`: the thread.
//! - `monitor/journal.rs`: the log, with what operators did.
//! - `monitor/fork.rs`: what a forked child must close.

mod commands;
mod files;
mod fork;
mod journal;
mod open;
mod outboxes;
mod peer;
mod pipeline;
mod sampler;
mod server;
mod slots;
mod socket;
mod sums;
mod topics;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use commands::{Answer, Request, no_branch};
pub use files::{OpenError, Place};
pub use fork::descriptors;
pub use open::{Access, Monitor};
pub use outboxes::{LetterRequest, Outboxes};
pub use pipeline::{Facts, Looked, Pipeline};
pub use slots::{ErrorCount, LegValues, Pulse, Slots, StageTold, Sums, Told, Values};
pub use topics::{BRANCHES, REASONS};

/// Locks, whatever happened to the thread that held the lock before: what our locks guard is whole
/// after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
