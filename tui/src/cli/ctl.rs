//! `anabranch ctl`: the verbs of the dashboard's actions, for scripts.

use std::time::Duration;

use anabranch_protocol::message::{Arguments, Op};
use clap::{Args, Subcommand};

use super::whom::{self, Places};
use super::{Complaint, session};
use crate::Exit;
use crate::ctl::{self, Order};

#[derive(Debug, Args)]
pub(super) struct Ctl {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Let the units of a branch wait
    Pause(Target),
    /// Let them go on
    Resume(Target),
    /// Finish what is inside a branch or a pipeline (asks)
    Drain(Target),
    /// Give up what is inside a branch, or roll a pipeline back (asks)
    Cancel(Target),
    /// Open a branch again that is over, or has failed
    Restart(Target),
    /// Limit how fast a branch is
    Throttle {
        #[command(flatten)]
        target: Target,
        /// Items per second, or none for no limit
        #[arg(long, value_name = "RATE|none", value_parser = rate, allow_negative_numbers = true)]
        rate: Rate,
        /// Items at once
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        burst: Option<u32>,
    },
    /// Try stuck undo actions of a branch or a pipeline again (asks)
    Retry(Target),
    /// Give stuck undo actions up: what they undo stays done (asks)
    Skip(Target),
    /// Put the dead letters of an outbox store back: all of them, some each second (asks)
    Requeue {
        #[command(flatten)]
        letters: Letters,
        /// Letters per second; those that `--id` names are ready at once [default: 200]
        #[arg(long, value_name = "RATE", value_parser = per_second, allow_negative_numbers = true)]
        rate: Option<f64>,
    },
    /// Throw the dead letters of an outbox store away (asks)
    Discard(Letters),
    /// List the dead letters of an outbox store, or show what one of them holds
    Peek {
        #[command(flatten)]
        target: Target,
        /// The letter whose content is to be shown; without it they are listed
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Letters {
    #[command(flatten)]
    target: Target,
    /// These letters alone; `peek` lists them
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "each is an option of its own, and the argument is called TARGET"
)]
struct Target {
    /// PIPELINE/TENANT, or what of it is enough: TENANT, or PIPELINE; for dead letters, the store
    #[arg(value_name = "TARGET", value_parser = named)]
    target: String,
    /// Its process, by pid, by name, or by the beginning of a name; all are searched by default
    #[arg(long, value_name = "NAME|PID")]
    process: Vec<String>,
    #[command(flatten)]
    places: Places,
    /// Do not ask: what cannot be taken back asks for its name on a terminal, and is not done without
    /// one
    #[arg(long)]
    yes: bool,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is done, not only begun
    #[arg(long)]
    wait: bool,
    /// How long to wait: 500ms, 30s
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::time)]
    timeout: Duration,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// A variable that is not set must not be taken for the tenant whose name is empty.
fn named(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty; a tenant whose name is empty is PIPELINE/\"\"".to_owned());
    }
    Ok(text.to_owned())
}

/// A rate that was given, which may be that there is none.
#[derive(Debug, Clone, Copy)]
struct Rate(Option<f64>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    above_zero(text)
        .map(|it| Rate(Some(it)))
        .ok_or_else(|| format!("must be items per second, above 0, or none, got {text:?}"))
}

fn per_second(text: &str) -> Result<f64, String> {
    above_zero(text).ok_or_else(|| format!("must be a number per second, above 0, got {text:?}"))
}

fn above_zero(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok();
    number.filter(|it| it.is_finite() && *it > 0.0)
}

impl Ctl {
    pub(super) fn run(self) -> Result<Exit, Complaint> {
        let mut arguments = Arguments::default();
        let mut ids = Vec::new();
        let (branch, pipeline, target) = match self.verb {
            Verb::Pause(target) => (Op::BranchPause, None, target),
            Verb::Resume(target) => (Op::BranchResume, None, target),
            Verb::Drain(target) => (Op::BranchDrain, Some(Op::PipelineDrain), target),
            Verb::Cancel(target) => (Op::BranchCancel, Some(Op::PipelineCancel), target),
            Verb::Restart(target) => (Op::BranchRestart, None, target),
            Verb::Throttle {
                target,
                rate: Rate(rate),
                burst,
            } => {
                arguments.rate = rate;
                arguments.burst = burst;
                (Op::BranchThrottle, None, target)
            }
            Verb::Retry(target) => (Op::CompRetry, Some(Op::CompRetry), target),
            Verb::Skip(target) => (Op::CompSkip, Some(Op::CompSkip), target),
            Verb::Requeue { letters, rate } => {
                arguments.rate = rate;
                ids = letters.id;
                (Op::DeadRequeue, None, letters.target)
            }
            Verb::Discard(letters) => {
                ids = letters.id;
                (Op::DeadDiscard, None, letters.target)
            }
            Verb::Peek { target, id } => {
                ids.extend(id);
                (Op::DeadPeek, None, target)
            }
        };
        whom::check(&target.process)?;
        let mut targets = target.places.read()?;
        if targets.is_empty() || !target.process.is_empty() {
            targets.extend(whom::find(&target.process));
        }
        if targets.is_empty() {
            return Err(whom::nobody());
        }
        let order = Order {
            branch,
            pipeline,
            target: target.target,
            ids,
            arguments,
            yes: target.yes,
            dry: target.dry_run,
            wait: target.wait,
            timeout: target.timeout,
            json: target.json,
            key: session(),
        };
        Ok(ctl::run(&targets, &order))
    }
}
