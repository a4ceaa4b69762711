//! The border with Python: the only folder that names pyo3.
//!
//! - `plan.rs`, `retry.rs`, `convert.rs`, `errors.rs`: the builder's side.
//! - `attempts.rs`, `scope.rs`: retries and compensations outside a run.
//! - `run.rs`: one run, driven in slices; `leg.rs`, `pass.rs`, `keys.rs`, `source.rs`, `native.rs`
//!   are its parts.
//! - `feed.rs`, `job.rs`: work in the hands of tasks and threads; `work.rs`, `late.rs`: what they
//!   have in common.
//! - `channel.rs`: the channel between threads, event loops and pipelines; `readers.rs`: many of
//!   them, read by one.
//! - `context.rs`, `report.rs`: what handlers and callers are told.
//! - `monitor.rs`: the way in for those who look, and the command; `stats.rs`: the sums of the process.
//! - `outbox.rs`: the SQL of the outbox, and its store in memory; `outboxes.rs`: what the monitor is
//!   told of all; `folders.rs`: who writes to files.
//! - `domain.rs`: what the engine carries; `time.rs`: the time of tests; `window.rs`: a window by
//!   itself.

mod action;
mod attempts;
mod channel;
mod context;
mod convert;
mod domain;
mod errors;
mod feed;
mod folders;
mod inspector;
mod job;
mod keys;
mod late;
mod leg;
mod monitor;
mod native;
mod outbox;
mod outboxes;
mod pass;
mod plan;
mod readers;
mod report;
mod results;
mod retry;
mod run;
mod scope;
mod source;
mod stats;
mod time;
mod undo;
mod window;
mod work;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::action::Action;
    #[pymodule_export]
    use super::attempts::Attempts;
    #[pymodule_export]
    use super::channel::PyChannel;
    #[pymodule_export]
    use super::context::{Context, WindowInfo};
    #[pymodule_export]
    use super::feed::Feed;
    #[pymodule_export]
    use super::folders::PyFolders;
    #[pymodule_export]
    use super::job::Job;
    #[pymodule_export]
    use super::monitor::{PyMonitor, command, inherited, outbox_arguments, processes};
    #[pymodule_export]
    use super::outbox::{OutboxMemory, outbox_back_off, outbox_sql};
    #[pymodule_export]
    use super::outboxes::PyOutboxes;
    #[pymodule_export]
    use super::pass::Contexts;
    #[pymodule_export]
    use super::plan::{
        PyPlan, check_channel, check_retry, check_tail, check_tcp, check_tcp_client, check_window,
    };
    #[pymodule_export]
    use super::readers::Readers;
    #[pymodule_export]
    use super::results::results;
    #[pymodule_export]
    use super::retry::{RetryBudget, has_zone};
    #[pymodule_export]
    use super::run::Run;
    #[pymodule_export]
    use super::scope::{Playback, PyScope};
    #[pymodule_export]
    use super::stats::stats;
    #[pymodule_export]
    use super::time::VirtualTime;
    #[pymodule_export]
    use super::window::PyWindow;

    /// The version of the package.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name Python gives it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
