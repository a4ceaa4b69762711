//! What is asked of branches while the pipeline runs, and how it is carried out.
//!
//! It comes from any thread, into an inbox; the driving thread carries it out between two rounds,
//! and answers.

use std::time::Duration;

use anabranch_core::branch::{BranchId, Command, State};
use anabranch_core::engine::Why;
use anabranch_core::throttle::Rate;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::super::errors::{BranchError, ClosedError};
use super::super::report;
use super::{Hand, Run, locked};

/// One question or command.
#[derive(Debug)]
pub(super) struct Asked {
    what: String,
    tenant: Py<PyAny>,
    argument: Option<Py<PyAny>>,
    /// Called with whether it worked, and the answer or the exception.
    answer: Py<PyAny>,
}

impl Asked {
    pub(super) const fn new(
        what: String,
        tenant: Py<PyAny>,
        argument: Option<Py<PyAny>>,
        answer: Py<PyAny>,
    ) -> Self {
        Self {
            what,
            tenant,
            argument,
            answer,
        }
    }

    /// Says that nobody will carry it out any more.
    pub(super) fn refuse(&self, py: Python<'_>, error: &PyErr) -> PyResult<()> {
        self.answer.call1(py, (false, error.value(py)))?;
        Ok(())
    }
}

impl Run {
    /// Carries out what was asked for since the last time.
    pub(super) fn answer(&self, py: Python<'_>, hand: &mut Hand) -> bool {
        let asked = locked(&self.asked).as_mut().map(std::mem::take);
        let asked = asked.unwrap_or_default();
        let any = self.obey_operators(py, hand) | !asked.is_empty();
        for asked in asked {
            let answered = match self.carry_out(py, hand, &asked) {
                Ok(answer) => asked.answer.call1(py, (true, answer)).map(|_| ()),
                Err(error) => {
                    let told = asked.refuse(py, &error);
                    self.shared.postpone(py, error);
                    told
                }
            };
            self.shared.postpone_all(py, answered.err());
        }
        any
    }

    fn carry_out<'py>(
        &self,
        py: Python<'py>,
        hand: &mut Hand,
        asked: &Asked,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = asked.tenant.bind(py);
        if asked.what == "blocking" {
            let blocking: Vec<_> = locked(&self.engine).blocking().collect();
            let tenants = blocking.into_iter().map(|branch| self.tenant(py, branch));
            let tenants: Vec<_> = tenants.collect();
            return Ok(tenants.into_pyobject(py)?.into_any());
        }
        if locked(&self.engine).aborted() && asked.what != "look" {
            let name = &self.shared.pipeline;
            return Err(ClosedError::new_err(format!("pipeline '{name}' is ending")));
        }
        let branch = match (hand.router.find(key)?, asked.what.as_str()) {
            (Some(branch), _) => branch,
            (None, "add") => {
                let Hand {
                    router, branches, ..
                } = hand;
                if self.is_full(branches, None) {
                    let shares = branches.shares();
                    let shares = if shares {
                        ", and its items go to that of ab.OVERFLOW"
                    } else {
                        ""
                    };
                    return Err(self.limit_reached(branches, key, shares));
                }
                let branch = router.branch(key, |_| self.open_branch(branches, key, None))?;
                return self.look(py, branch);
            }
            (None, _) => {
                return Err(self.misfit(
                    py,
                    key,
                    None,
                    "there is no such branch; add_branch() opens one",
                ));
            }
        };
        match (Command::from_name(&asked.what), &asked.argument) {
            (None, _) if asked.what == "look" => {}
            (None, rate) => {
                let rate = rate.as_ref().map(|rate| rate.extract(py)).transpose()?;
                self.throttle(py, key, branch, rate)?;
            }
            (Some(command), reason) => {
                self.command(py, hand, key, branch, command, reason.as_ref())?;
            }
        }
        self.look(py, branch)
    }

    pub(super) fn command(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        key: &Bound<'_, PyAny>,
        branch: BranchId,
        command: Command,
        reason: Option<&Py<PyAny>>,
    ) -> PyResult<()> {
        let now = self.shared.now();
        let wanted = {
            let mut engine = locked(&self.engine);
            let (state, _) = engine.state(branch);
            let obeyed = engine.obey(branch, command, now);
            drop(engine);
            if obeyed.is_err() {
                let does = match command {
                    Command::Add => "cannot be added".to_owned(),
                    Command::Resume => "cannot be resumed".to_owned(),
                    _ => format!("cannot {}", command.name()),
                };
                let what = format!("{does} while it is {}", state.name());
                return Err(self.misfit(py, key, Some(state), &what));
            }
            state.is_over() || state == State::Restarting
        };
        self.note_turns(hand);
        if let (Command::Fail, Some(reason)) = (command, reason) {
            let error = PyErr::from_value(reason.bind(py).clone());
            let tenant = Some(key.clone().unbind());
            let failure =
                self.shared
                    .failure(py, &error, hand.fan_stage, tenant.as_ref(), None, None);
            hand.branches.refuse_with(branch, Why::Failed, failure);
        }
        let opens = matches!(command, Command::Add | Command::Restart);
        // Here, not with the other news: whoever has asked hears of what the callables raise.
        let wanted = wanted && opens && locked(&self.engine).take_wanted(branch);
        self.tend_branches(py, hand);
        if wanted {
            let opened = self.open_again(py, hand, branch);
            self.tend_branches(py, hand);
            return opened;
        }
        Ok(())
    }

    pub(super) fn throttle(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        branch: BranchId,
        rate: Option<(f64, u32)>,
    ) -> PyResult<()> {
        let rate = rate.map(|(rate, burst)| pace(rate, burst));
        let now = self.shared.now();
        if locked(&self.engine).throttle(branch, rate, now) {
            return Ok(());
        }
        let (state, _) = locked(&self.engine).state(branch);
        let what = format!("cannot be throttled while it is {}", state.name());
        Err(self.misfit(py, key, Some(state), &what))
    }

    fn misfit(
        &self,
        py: Python<'_>,
        tenant: &Bound<'_, PyAny>,
        state: Option<State>,
        what: &str,
    ) -> PyErr {
        let shown = super::super::convert::shown(tenant);
        let message = format!(
            "pipeline '{}', branch {shown}: {what}",
            self.shared.pipeline
        );
        let arguments = PyDict::new(py);
        let error = arguments
            .set_item("tenant", tenant)
            .and_then(|()| arguments.set_item("state", state.map(State::name)))
            .and_then(|()| {
                py.get_type::<BranchError>()
                    .call((message,), Some(&arguments))
            });
        error.map_or_else(|error| error, PyErr::from_value)
    }

    /// A branch as it is now.
    fn look<'py>(&self, py: Python<'py>, branch: BranchId) -> PyResult<Bound<'py, PyAny>> {
        let now = self.shared.now();
        let (counts, (state, generation), blocked) = {
            let engine = locked(&self.engine);
            (
                engine.counts_of(branch),
                engine.state(branch),
                engine.blocked_by(branch, now),
            )
        };
        let row = report::counts(py, &counts)?;
        row.set_item("tenant", self.tenant(py, branch))?;
        row.set_item("state", state.name())?;
        row.set_item("generation", generation)?;
        row.set_item("blocked", blocked.as_secs_f64())?;
        Ok(row.into_any())
    }
}

/// So many items per second, and so many at once.
pub(in super::super) fn pace(rate: f64, burst: u32) -> Rate {
    Rate::new(
        Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX),
        burst,
    )
}
