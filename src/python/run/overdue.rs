//! What the driver does about attempts that are not over in time.

use anabranch_core::engine::Overdue;
use pyo3::prelude::*;

use super::super::job::Job;
use super::super::late::Late;
use super::{Hand, Run, locked};

impl Run {
    /// Hears which operations that had timed out have ended; returns whether there were any.
    pub(super) fn take_late(&self, hand: &mut Hand) -> bool {
        let late = std::mem::take(&mut *locked(&self.late));
        for &(attempt, gave, pooled) in &late {
            hand.pool.out -= usize::from(pooled);
            hand.pool.timed.remove(&attempt);
            locked(&self.engine).ended(attempt, gave);
        }
        !late.is_empty()
    }

    /// Fails the units of late attempts on the pool, whose threads nothing can interrupt, and
    /// replaces the threads of abandoned ones. The loop does the same for coroutines.
    pub(super) fn time_out(
        &self,
        this: &Bound<'_, Self>,
        hand: &mut Hand,
        overdue: Vec<Overdue>,
    ) -> PyResult<()> {
        let py = this.py();
        for overdue in overdue {
            let job = hand.pool.timed.get(&overdue.attempt);
            let Some(job) = job.map(|job| job.clone_ref(py)) else {
                locked(&self.overdue).push(overdue);
                continue;
            };
            if overdue.abandoned {
                hand.pool.timed.remove(&overdue.attempt);
                let replaced = hand
                    .pool
                    .abandon
                    .bind(py)
                    .call1((&job, self.aborting()))?
                    .is_truthy()?;
                if job.get().abandoned(py, replaced) {
                    hand.pool.out -= 1;
                }
            } else {
                let late = match overdue.leg {
                    Some(leg) => Some(Late::new(py, self, leg, overdue.attempt)?),
                    None => job.get().late_undo(py, overdue.attempt)?,
                };
                let late = late.and_then(|late| {
                    let error = late.error(py);
                    Some((job.get().time_out(late)?, error))
                });
                if let Some((work, error)) = late {
                    self.finish(this, hand, work, Err(error))?;
                } else {
                    // It has just ended: by a hair, it is not late.
                    self.ended_here(overdue.attempt, false);
                }
            }
        }
        Ok(())
    }

    /// The run was aborted `seconds` ago: fails the units whose handlers still keep a thread, and
    /// replaces the threads. Undo actions have a deadline of their own, unless nothing is waited
    /// for any more.
    pub(super) fn forsake_jobs(
        hand: &mut Hand,
        jobs: Vec<Bound<'_, Job>>,
        error: &Bound<'_, PyAny>,
        seconds: f64,
        undo: bool,
    ) -> PyResult<()> {
        for job in jobs {
            if job.get().undo() && !undo {
                continue;
            }
            job.get().forsake(error.clone(), seconds);
            hand.pool.abandon.bind(job.py()).call1((&job, true))?;
            // Those that have failed at their timeout, and could not be replaced, had kept theirs.
            hand.pool.out -= usize::from(job.get().vacate());
        }
        Ok(())
    }
}
