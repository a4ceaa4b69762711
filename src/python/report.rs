//! The report of a run as plain Python values; `anabranch.report` makes it readable.

use std::time::Duration;

use anabranch_core::branch::{BranchId, State};
use anabranch_core::compensation::Step;
use anabranch_core::engine::{Abandoned, Failed, Fate, Undone};
use anabranch_core::report::Counts;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyTuple};

use super::action::Action;
use super::domain::PyDomain;
use super::run::{Run, locked};
use super::undo::Undo;

const fn named(counts: &Counts) -> [(&'static str, u64); 12] {
    [
        ("received", counts.received),
        ("produced", counts.produced),
        ("committed", counts.committed),
        ("filtered", counts.filtered),
        ("failed", counts.failed),
        ("dropped", counts.dropped),
        ("dead_lettered", counts.dead_lettered),
        ("returned", counts.returned),
        ("recovered", counts.recovered),
        ("left", counts.left),
        ("retried", counts.retried),
        ("windows", counts.windows),
    ]
}

pub(crate) fn counts<'py>(py: Python<'py>, counts: &Counts) -> PyResult<Bound<'py, PyDict>> {
    named(counts).into_py_dict(py)
}

/// One branch's row: the values of [`columns`].
fn row<'py>(
    py: Python<'py>,
    tenant: Option<Py<PyAny>>,
    counts: &Counts,
    (state, generation): (State, u32),
    blocked: Duration,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut values = vec![tenant.into_pyobject(py)?];
    for (_, count) in named(counts) {
        values.push(count.into_pyobject(py)?.into_any());
    }
    values.push(state.name().into_pyobject(py)?.into_any());
    values.push(generation.into_pyobject(py)?.into_any());
    values.push(blocked.as_secs_f64().into_pyobject(py)?.into_any());
    PyTuple::new(py, values)
}

/// What the values of a branch's row are called.
fn columns() -> Vec<&'static str> {
    let counts = named(&Counts::default()).map(|(name, _)| name);
    let rest = ["state", "generation", "blocked"];
    [&["tenant"], counts.as_slice(), &rest].concat()
}

/// An undo action and what became of it, copied out of the engine.
struct Told {
    number: u64,
    branch: BranchId,
    outcome: &'static str,
    took: Duration,
    error: Option<Py<PyAny>>,
    step: Step<Undo>,
}

impl Told {
    fn new(py: Python<'_>, undone: &Undone<PyDomain>) -> Self {
        let Step { order, kind, undo } = &undone.step;
        Self {
            number: undone.number,
            branch: undone.branch,
            outcome: match undone.fate {
                Fate::Done => "done",
                Fate::Failed(_) => "failed",
                Fate::Unrun => "unrun",
                Fate::Skipped => "skipped",
            },
            took: undone.took,
            error: undone
                .fate
                .error()
                .map(|failure| failure.error.clone_ref(py)),
            step: Step {
                order: *order,
                kind: *kind,
                undo: undo.clone_ref(py),
            },
        }
    }

    fn row<'py>(mut self, py: Python<'py>, run: &Run) -> PyResult<Bound<'py, PyDict>> {
        let undo = &mut self.step.undo;
        undo.tenant = run.tenant_of(py, undo, self.branch);
        let row = PyDict::new(py);
        row.set_item("name", &*undo.name)?;
        row.set_item("stage", undo.stage_name())?;
        row.set_item("tenant", &undo.tenant)?;
        row.set_item("outcome", self.outcome)?;
        row.set_item("seconds", self.took.as_secs_f64())?;
        row.set_item("error", self.error)?;
        // Only what may be tried again is kept alive by the report.
        let stuck = matches!(self.outcome, "failed" | "unrun");
        let action = stuck.then(|| Action::new(py, self.step));
        row.set_item("action", action)?;
        Ok(row)
    }
}

/// What became of the operations behind timed-out attempts.
fn timeouts<'py>(
    py: Python<'py>,
    run: &Run,
    left_behind: &[Abandoned],
    abandoned: u64,
    late: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let rows = PyList::empty(py);
    for it in left_behind {
        let row = PyDict::new(py);
        // The source has no leg.
        let stage = run.facts.get(it.leg).map_or(0, |leg| leg.stage);
        row.set_item("stage", run.shared.stages.get(stage))?;
        row.set_item("tenant", run.tenant(py, it.branch))?;
        row.set_item("attempt", it.attempt)?;
        row.set_item("seconds", it.ran.as_secs_f64())?;
        rows.append(row)?;
    }
    let timeouts = PyDict::new(py);
    timeouts.set_item("abandoned", abandoned)?;
    timeouts.set_item("late", late)?;
    timeouts.set_item("calls", rows)?;
    Ok(timeouts)
}

/// A failure, to be told of once the engine is not borrowed.
fn copied(py: Python<'_>, failed: &Failed<PyDomain>) -> Failed<PyDomain> {
    let history = failed.history.iter();
    let error = failed.error.clone_ref(py);
    let mut copy = Failed::new(failed.branch, error, failed.items, failed.gave_up);
    copy.attempts = failed.attempts;
    copy.delay = failed.delay;
    copy.history = history.map(|error| error.clone_ref(py)).collect();
    copy
}

/// Builds the report.
pub(crate) fn build<'py>(
    py: Python<'py>,
    run: &Run,
    outcome: &str,
) -> PyResult<Bound<'py, PyDict>> {
    // Numbers and references are copied out under the lock; nothing allocates in Python then, for
    // an allocation may start the garbage collector, which runs foreign code.
    let engine = locked(&run.engine);
    let total = engine.counts();
    let now = run.shared.now();
    let blocked = engine.blocked(now);
    let branches: Vec<_> = engine
        .branch_counts()
        .skip(1)
        .map(|(branch, counts)| {
            let blocked = engine.blocked_by(branch, now);
            (branch, counts, engine.state(branch), blocked)
        })
        .collect();
    let codes = engine.codes().clone();
    let failures: Vec<_> = engine
        .failures()
        .iter()
        .map(|failed| copied(py, failed))
        .collect();
    let undone_counts = engine.undone_counts();
    let mut actions: Vec<_> = engine
        .undone()
        .iter()
        .chain(engine.stuck())
        .map(|undone| Told::new(py, undone))
        .collect();
    let (left_behind, abandoned) = engine.abandoned();
    let left_behind = left_behind.to_vec();
    let late = engine.late();
    drop(engine);

    let report = PyDict::new(py);
    report.set_item("pipeline", &run.shared.pipeline)?;
    report.set_item("outcome", outcome)?;
    let seconds = std::time::Duration::from_nanos(run.shared.now().as_nanos()).as_secs_f64();
    report.set_item("seconds", seconds)?;
    report.set_item("counts", counts(py, &total)?)?;
    report.set_item("blocked", blocked.as_secs_f64())?;
    let rows = PyList::empty(py);
    for (branch, branch_counts, life, blocked) in branches {
        rows.append(row(
            py,
            run.tenant(py, branch),
            &branch_counts,
            life,
            blocked,
        )?)?;
    }
    report.set_item("columns", columns())?;
    report.set_item("branches", rows)?;
    report.set_item("codes", codes)?;
    let samples = PyList::empty(py);
    for mut failed in failures {
        // What operators were given, if they were.
        let told = match failed.error.told.take() {
            Some(told) => told,
            None => run.tell(py, &failed)?,
        };
        samples.append(told)?;
    }
    report.set_item("failures", samples)?;
    let compensations = PyDict::new(py);
    compensations.set_item("done", undone_counts.done)?;
    compensations.set_item("failed", undone_counts.failed)?;
    compensations.set_item("skipped", undone_counts.skipped)?;
    compensations.set_item("finalized", undone_counts.finalized)?;
    actions.sort_by_key(|told| told.number);
    let rows = PyList::empty(py);
    for told in actions {
        rows.append(told.row(py, run)?)?;
    }
    compensations.set_item("actions", rows)?;
    report.set_item("compensations", compensations)?;
    let timeouts = timeouts(py, run, &left_behind, abandoned, late)?;
    report.set_item("timeouts", timeouts)?;
    report.set_item("items", PyList::empty(py))?;
    Ok(report)
}
