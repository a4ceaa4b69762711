//! The border with Python: the only folder that names pyo3.
//!
//! - `plan.rs`, `retry.rs`, `convert.rs`, `errors.rs`: the builder's side.
//! - `run.rs`: one run, driven in slices; `leg.rs`, `pass.rs`, `keys.rs`, `source.rs`, `native.rs`
//!   are its parts.
//! - `feed.rs`, `job.rs`: work in the hands of tasks and threads; `work.rs`, `late.rs`: what they
//!   have in common.
//! - `channel.rs`: the channel between threads, event loops and pipelines.
//! - `context.rs`, `report.rs`: what handlers and callers are told.
//! - `domain.rs`: what the engine carries; `time.rs`: the time of tests.

mod action;
mod channel;
mod context;
mod convert;
mod domain;
mod errors;
mod feed;
mod job;
mod keys;
mod late;
mod leg;
mod native;
mod pass;
mod plan;
mod report;
mod retry;
mod run;
mod scope;
mod source;
mod time;
mod undo;
mod work;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::action::Action;
    #[pymodule_export]
    use super::channel::PyChannel;
    #[pymodule_export]
    use super::context::{Context, WindowInfo};
    #[pymodule_export]
    use super::feed::Feed;
    #[pymodule_export]
    use super::job::Job;
    #[pymodule_export]
    use super::pass::Contexts;
    #[pymodule_export]
    use super::plan::{PyPlan, check_channel, check_retry, check_tcp};
    #[pymodule_export]
    use super::retry::{RetryBudget, has_zone};
    #[pymodule_export]
    use super::run::Run;
    #[pymodule_export]
    use super::scope::{Playback, PyScope};
    #[pymodule_export]
    use super::time::VirtualTime;

    /// The version of the package.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name Python gives it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
