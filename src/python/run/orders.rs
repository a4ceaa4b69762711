//! What operators ask for over the monitor, carried out on the driving thread between two slices.

use anabranch_core::branch::{BranchId, Command};
use anabranch_core::engine::Undone;
use anabranch_protocol::Text;
use anabranch_protocol::message::{Code, Op};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::super::domain::PyDomain;
use super::super::errors::{BranchError, BranchRefused};
use super::{Hand, Run, locked};
use crate::monitor::{Answer, Request, no_branch};

impl Run {
    /// Carries out what operators have asked for. Returns whether there was anything.
    pub(super) fn obey_operators(&self, py: Python<'_>, hand: &mut Hand) -> bool {
        let Some(pipeline) = self.watched.clone().filter(|it| it.is_asked()) else {
            return false;
        };
        for mut request in pipeline.requests() {
            if let Some(tenant) = request.tenant.take() {
                request.branch = self.named(py, &tenant);
                if request.branch.is_none() {
                    let result = Err(no_branch(&self.shared.pipeline));
                    self.log_order(py, &request, &result);
                    pipeline.answer(Answer {
                        number: request.number,
                        result,
                    });
                    continue;
                }
            }
            let result = self.obey_operator(py, hand, &request);
            if let Some(watch) = &mut hand.watch {
                // Whoever asked looks for what came of it.
                watch.hurry();
            }
            self.log_order(py, &request, &result);
            pipeline.answer(Answer {
                number: request.number,
                result,
            });
        }
        true
    }

    /// The branch whose tenant is shown like this.
    fn named(&self, py: Python<'_>, name: &Text) -> Option<u32> {
        let count = u32::try_from(locked(&self.engine).branch_count()).unwrap_or(u32::MAX);
        (1..count).find(|id| {
            let tenant = self.tenant(py, BranchId(*id));
            let shown = tenant.and_then(|it| it.bind(py).str().ok());
            shown.is_some_and(|it| Text::name(&it.to_string_lossy()) == *name)
        })
    }

    fn obey_operator(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        request: &Request,
    ) -> Result<(u64, String), (Code, String)> {
        match request.op {
            Op::PipelineDrain | Op::PipelineCancel => {
                let inside = locked(&self.engine).inside();
                if !request.dry && request.op == Op::PipelineDrain {
                    self.drain();
                } else if !request.dry {
                    self.abort();
                }
                let what = if request.op == Op::PipelineDrain {
                    "drains"
                } else {
                    "rolls back"
                };
                Ok((
                    inside,
                    format!("pipeline '{}' {what}", self.shared.pipeline),
                ))
            }
            Op::CompRetry | Op::CompSkip => self.obey_on_undo(request),
            _ => self.obey_on_branch(py, hand, request),
        }
    }

    /// Has stuck undo actions tried again, or leaves them out for good.
    fn obey_on_undo(&self, request: &Request) -> Result<(u64, String), (Code, String)> {
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        if let Some(branch) = request.branch {
            let (_, generation) = engine.state(BranchId(branch));
            check_generation(request, generation, "the undo actions may be others")?;
        }
        let (scope, action) = request.undo;
        let chosen = |it: &Undone<PyDomain>| {
            request.branch.is_none_or(|branch| it.branch.0 == branch)
                && scope.is_none_or(|scope| it.rollback.get() == scope)
                && action.is_none_or(|action| it.step.order == action)
        };
        let stuck = engine.stuck().iter().filter(|it| chosen(it)).count();
        if stuck == 0 {
            let what = "nothing is stuck there: it may have been dealt with meanwhile";
            return Err((Code::State, what.to_owned()));
        }
        let (verb, done) = match request.op {
            Op::CompRetry => ("tried again", "are"),
            _ => ("left out for good", "were"),
        };
        match request.op {
            _ if request.dry => {}
            Op::CompRetry => {
                engine.retry_stuck(chosen, now);
            }
            _ => {
                engine.skip_stuck(chosen);
            }
        }
        let done = match (request.dry, stuck, done) {
            (true, ..) => "would be",
            (false, 1, "are") => "is",
            (false, 1, _) => "was",
            (false, _, done) => done,
        };
        let s = if stuck == 1 { "" } else { "s" };
        let what = format!("{stuck} stuck undo action{s} {done} {verb}");
        Ok((stuck as u64, what))
    }

    fn obey_on_branch(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        request: &Request,
    ) -> Result<(u64, String), (Code, String)> {
        let gone = || {
            (
                Code::NotFound,
                "there is no such branch any more".to_owned(),
            )
        };
        let id = BranchId(request.branch.ok_or_else(gone)?);
        let tenant = self.tenant(py, id).ok_or_else(gone)?;
        let tenant = tenant.bind(py);
        let now = self.shared.now();
        let look = locked(&self.engine).look(id, now);
        let (state, generation) = look.life;
        check_generation(request, generation, state.name())?;
        let inside = look.queued + look.in_flight;
        let shown = super::super::convert::shown(tenant);
        let (command, reason) = match request.op {
            // Who only asks has cancelled nothing.
            Op::BranchCancel if request.dry => (Some(Command::Fail), None),
            Op::BranchPause => (Some(Command::Pause), None),
            Op::BranchResume => (Some(Command::Resume), None),
            Op::BranchDrain => (Some(Command::Drain), None),
            Op::BranchRestart => (Some(Command::Restart), None),
            Op::BranchCancel => (
                Some(Command::Fail),
                Some(cancelled(py, &shown, &request.who)),
            ),
            _ => (None, None),
        };
        if request.dry {
            let fits = match command {
                Some(command) => locked(&self.engine).would_obey(id, command).is_ok(),
                None => !state.is_over(),
            };
            let what = format!("branch {shown} is {}, with {inside} inside", state.name());
            return if fits {
                Ok((inside, what))
            } else {
                let verb = request.op.word().rsplit('.').next().unwrap_or_default();
                Err((Code::State, format!("{what}: cannot {verb}")))
            };
        }
        let done = match command {
            Some(command) => self.command(py, hand, tenant, id, command, reason.as_ref()),
            None => self.throttle(py, tenant, id, request.rate),
        };
        match done {
            Ok(()) => {
                let (state, _) = locked(&self.engine).state(id);
                let what = match (request.op, request.rate) {
                    (Op::BranchThrottle, Some((rate, _))) => {
                        format!("branch {shown} is limited to {rate} a second")
                    }
                    (Op::BranchThrottle, None) => format!("branch {shown} has no limit"),
                    _ => format!("branch {shown} is {}", state.name()),
                };
                Ok((inside, what))
            }
            Err(error) => {
                let misfit = error.is_instance_of::<BranchError>(py);
                let message = error.value(py).to_string();
                self.shared.postpone(py, error);
                Err((if misfit { Code::State } else { Code::Failed }, message))
            }
        }
    }

    /// Writes what an operator did into the process' own log.
    fn log_order(
        &self,
        py: Python<'_>,
        request: &Request,
        result: &Result<(u64, String), (Code, String)>,
    ) {
        let message = match result {
            Ok((_, message)) | Err((_, message)) => message,
        };
        let logged = py.import("anabranch._observe").and_then(|module| {
            let order = (
                &self.shared.pipeline,
                request.op.word(),
                &request.who,
                result.is_ok(),
                message,
            );
            module.getattr("audited")?.call1(order)
        });
        self.shared.postpone_all(py, logged.err());
    }
}

/// Refuses what was asked of a branch that has been opened again since.
fn check_generation(request: &Request, generation: u32, now: &str) -> Result<(), (Code, String)> {
    if request.if_gen.is_none_or(|asked| asked == generation) {
        return Ok(());
    }
    let what = format!(
        "the branch has been opened again since: it is in generation {generation}, and {now}"
    );
    Err((Code::Conflict, what))
}

/// Why the items of a branch fail that an operator has cancelled.
fn cancelled(py: Python<'_>, shown: &str, who: &str) -> Py<PyAny> {
    let arguments = PyDict::new(py);
    let message = format!("branch {shown}: cancelled by {who}");
    let error = arguments.set_item("code", "branch.failed").and_then(|()| {
        py.get_type::<BranchRefused>()
            .call((message,), Some(&arguments))
    });
    match error {
        Ok(error) => error.unbind(),
        Err(error) => error.into_value(py).into_any(),
    }
}
