//! The sums over all pipelines of this process: those that have ended, and those that run.
//!
//! Of one that runs there is what it has told those who may look, which takes none of its locks; one
//! that nobody may look at is in the sums once it has ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use anabranch_core::engine::Engine;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::domain::PyDomain;
use super::run::locked;
use crate::monitor::Pipeline;

static TALLY: Mutex<Tally> = Mutex::new(Tally::new());

/// What has come of the pipelines of a process.
#[derive(Debug)]
struct Tally {
    /// The process: a fork begins anew.
    pid: u32,
    begun: u64,
    ended: u64,
    sums: Counted,
    codes: BTreeMap<String, u64>,
    live: Vec<Weak<Pipeline>>,
}

/// Sums, in the order of [`NAMES`].
type Counted = [u64; NAMES.len()];

const NAMES: [&str; 8] = [
    "received",
    "committed",
    "failed",
    "dropped",
    "dead_lettered",
    "retried",
    "compensated",
    "stuck",
];

impl Tally {
    const fn new() -> Self {
        Self {
            pid: 0,
            begun: 0,
            ended: 0,
            sums: [0; NAMES.len()],
            codes: BTreeMap::new(),
            live: Vec::new(),
        }
    }

    fn of_this_process(&mut self) -> &mut Self {
        let pid = std::process::id();
        if self.pid != pid {
            *self = Self { pid, ..Self::new() };
        }
        self
    }
}

fn add(all: &mut Counted, more: Counted) {
    for (sum, count) in all.iter_mut().zip(more) {
        *sum += count;
    }
}

/// A run begins; `pipeline`, if others may look at it.
pub(super) fn begin(pipeline: Option<&Arc<Pipeline>>) {
    let mut tally = locked(&TALLY);
    let tally = tally.of_this_process();
    tally.begun += 1;
    tally.live.extend(pipeline.map(Arc::downgrade));
}

/// A run has ended: what it came to is known for good.
pub(super) fn end(engine: &Engine<PyDomain>, pipeline: Option<&Arc<Pipeline>>) {
    let mut tally = locked(&TALLY);
    let tally = tally.of_this_process();
    if tally.begun == tally.ended {
        // It was begun by the process that this is a fork of.
        return;
    }
    tally.ended += 1;
    let counts = engine.counts();
    let undone = engine.undone_counts();
    let sums = [
        counts.received,
        counts.committed,
        counts.failed,
        counts.dropped + counts.filtered,
        counts.dead_lettered,
        counts.retried,
        undone.done,
        undone.failed,
    ];
    add(&mut tally.sums, sums);
    for (code, items) in engine.codes() {
        *tally.codes.entry(code.clone()).or_default() += items;
    }
    let ended = pipeline.map(Arc::as_ptr);
    tally
        .live
        .retain(|it| it.strong_count() > 0 && Some(it.as_ptr()) != ended);
}

/// The sums over all pipelines of this process.
#[pyfunction]
pub(crate) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let (begun, ended, sums, codes) = {
        let mut tally = locked(&TALLY);
        let tally = tally.of_this_process();
        let (mut sums, mut codes) = (tally.sums, tally.codes.clone());
        for pipeline in tally.live.iter().filter_map(Weak::upgrade) {
            let taken = pipeline.slots.last_pulse().0.taken;
            pipeline.slots.told(|told| {
                let values = &told.sums.values;
                let live = [
                    taken,
                    values.committed,
                    values.failed,
                    values.dropped,
                    values.dead_lettered,
                    values.retried,
                    told.sums.compensated,
                    told.sums.stuck,
                ];
                add(&mut sums, live);
                for (code, error) in told.codes.iter().zip(&told.errors) {
                    *codes.entry(code.to_string()).or_default() += error.items;
                }
            });
        }
        (tally.begun, tally.ended, sums, codes)
    };
    let told = PyDict::new(py);
    told.set_item("pipelines", begun)?;
    told.set_item("running", begun - ended)?;
    for (name, sum) in NAMES.iter().zip(sums) {
        told.set_item(name, sum)?;
    }
    told.set_item("codes", codes)?;
    Ok(told)
}
