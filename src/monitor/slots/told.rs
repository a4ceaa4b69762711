//! What is told once per sweep, whole: sums, errors, stages.

use std::collections::VecDeque;

use anabranch_protocol::Text;

use super::Values;

/// The sums over all branches, as of the last sweep.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sums {
    /// The sums of the branches' values, where a sum makes sense.
    pub values: Values,
    /// Branches by state, in the order of `State::ALL`; the trunk is not among them.
    pub states: [u64; 9],
    /// Windows older than they may be.
    pub late: u64,
    /// Items in open windows that have a size, and the sum of those sizes.
    pub fill: (u64, u64),
    /// Undo actions that have run.
    pub compensated: u64,
    /// Undo actions that wait for an operator.
    pub stuck: u64,
    /// Since when the oldest rollback is under way, in nanoseconds of the pipeline's clock.
    pub undoing_since: Option<u64>,
}

/// What is told once per sweep, whole.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// The sums.
    pub sums: Sums,
    /// Codes of failures, in the order they were first seen.
    pub codes: Vec<Text>,
    /// Errors by code, in the same order.
    pub errors: Vec<ErrorCount>,
    /// What went wrong, by stage.
    pub stages: Vec<StageTold>,
}

/// What went wrong at a stage.
#[derive(Debug, Default, Clone)]
pub struct StageTold {
    /// Items failed.
    pub failed: u64,
    /// Undo actions registered there that have run.
    pub compensated: u64,
    /// The code of the last failure.
    pub last_error: Option<Text>,
}

/// How often an error came up.
#[derive(Debug, Clone)]
pub struct ErrorCount {
    /// Items.
    pub items: u64,
    /// When it was first and last noticed, in nanoseconds of the pipeline's clock.
    pub seen: (u64, u64),
    /// Items by minute of the pipeline's clock, modulo 60, and which minute each place is of.
    pub minutes: [(u64, u64); 60],
    /// One of them, and its causes.
    pub sample: Vec<Text>,
    /// The stage that one arose in, by number, if it is known.
    pub stage: Option<usize>,
    /// Branches it came up in that have had another error since, and when, the last at the end.
    pub former: VecDeque<(u64, u32)>,
}
