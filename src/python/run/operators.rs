//! Failures on their way to the operators behind them, and what these make of them.

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{Again, Failed, Item, Outcome, Spot, Unit};
use anabranch_core::retry::GaveUp;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::super::domain::{Failure, PyDomain};
use super::super::leg::{Leg, Role};
use super::super::pass::{self, FailedItem, Input, Mode};
use super::super::undo::Undo;
use super::super::work::{CallResult, GivenBack, ends_the_process};
use super::tracked::Way;
use super::{Hand, Run, locked};

impl Run {
    /// The first leg from which on operators may take what failed at `stage`, which is none of
    /// theirs: what they fail at goes on by [`Run::operator_failed`]. Those of other courses are
    /// passed over by the engine.
    pub(super) fn behind(&self, stage: usize) -> usize {
        let behind = |leg: &super::LegFacts| leg.role.operator().is_some() && leg.stage > stage;
        let found = self.facts.iter().position(behind);
        found.unwrap_or(self.facts.len())
    }

    /// Sends the failures on to the operators that take them; those that none takes have failed.
    pub(super) fn move_failures(&self, py: Python<'_>) -> PyResult<bool> {
        let mut progress = false;
        while locked(&self.engine).has_failures() {
            progress = true;
            let legs = self.legs()?;
            let (failures, unheard) = {
                let mut engine = locked(&self.engine);
                (engine.take_failures(), engine.take_unheard())
            };
            for (operator, failed) in failures {
                self.send_on_failure(py, &legs, operator, failed);
            }
            for (branch, item) in unheard {
                let error = self.told(py, item.value);
                let failed = Failed::new(branch, error, item.weight, GaveUp::Cancelled);
                let now = self.shared.now();
                locked(&self.engine).lose(failed, now);
            }
        }
        Ok(progress)
    }

    fn send_on_failure(
        &self,
        py: Python<'_>,
        legs: &[Leg],
        operator: usize,
        mut failed: Failed<PyDomain>,
    ) {
        let told = match failed.error.told.take() {
            Some(told) => Ok(told),
            None => self.tell(py, &failed),
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                // Of a signal handler: nobody can be told of it, so it counts as what it is.
                self.shared.postpone(py, error);
                let now = self.shared.now();
                locked(&self.engine).lose(failed, now);
                return;
            }
        };
        let mut taker = Some(operator);
        while let Some(leg) = taker {
            if self.takes(py, &legs[leg], &told) {
                break;
            }
            taker = locked(&self.engine).operator_behind(leg);
        }
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        if let Some(leg) = taker {
            // Not aborted meanwhile: that is done between two of these rounds, and loses them all.
            let item = Item::of_failure(told, &failed);
            engine.offer(leg, failed.branch, item, now);
            drop(engine);
            drop(failed);
        } else {
            failed.error.told = Some(told);
            engine.lose(failed, now);
        }
    }

    fn takes(&self, py: Python<'_>, leg: &Leg, told: &Py<PyAny>) -> bool {
        let Some(takes) = &leg.takes else {
            return true;
        };
        // Ours: nothing raises in it but a signal handler, which the run ends with.
        let result = takes.bind(py).call1((told,)).and_then(|it| it.is_truthy());
        result.unwrap_or_else(|error| {
            self.shared.postpone(py, error);
            false
        })
    }

    /// Makes what operators are given of a failure.
    ///
    /// # Errors
    /// What a signal handler raises meanwhile.
    pub(crate) fn tell(&self, py: Python<'_>, failed: &Failed<PyDomain>) -> PyResult<Py<PyAny>> {
        let Failure {
            error,
            code,
            stage,
            item,
            ..
        } = &failed.error;
        // The error of each attempt, the last one included.
        let attempts = failed.history.iter().chain([&failed.error]);
        let history = PyList::new(py, attempts.map(|failure| failure.error.bind(py)))?;
        let told = self.shared.tell.bind(py).call1((
            error,
            code,
            self.shared.stages.get(*stage),
            self.tenant(py, failed.branch),
            failed.items,
            failed.attempts,
            failed.delay.as_secs_f64(),
            failed.gave_up.name(),
            history,
            item,
        ))?;
        Ok(told.unbind())
    }

    /// The failure that operators were given, as the engine knows it.
    fn told(&self, py: Python<'_>, told: Py<PyAny>) -> Failure {
        let of = told.bind(py);
        let text = |name: &str| -> PyResult<String> { of.getattr(name)?.extract() };
        let error = of
            .getattr("error")
            .map_or_else(|_| py.None(), Bound::unbind);
        let code = text("code").unwrap_or_else(|_| "?".to_owned());
        let stage = text("stage").unwrap_or_default();
        let stage = self.shared.stages.iter().position(|name| *name == stage);
        let stage = stage.unwrap_or_default();
        Failure {
            error,
            code,
            stage,
            item: None,
            told: Some(told),
            stops: self.shared.stops.get(stage).copied().flatten(),
        }
    }

    /// What comes back from an operator's handler, as the engine is told.
    pub(crate) fn settle_operator(
        &self,
        py: Python<'_>,
        unit: Unit<PyDomain>,
        given: &Py<PyAny>,
        result: CallResult,
        mut registered: Option<Box<Scope<Undo>>>,
    ) -> GivenBack {
        let leg = &self.facts[unit.leg];
        let result = match (leg.role, result) {
            (Role::MapError, Ok(result)) => self
                .shared
                .mapped
                .bind(py)
                .call1((given, result))
                .map(Bound::unbind),
            (_, result) => result,
        };
        let outcome = match result {
            Ok(result) => match leg.role {
                Role::Recover => Outcome::Done(vec![result]),
                Role::DeadLetter => Outcome::Done(Vec::new()),
                role => {
                    // It has done its part, whatever becomes of the failure.
                    let registered = registered.take();
                    let now = self.shared.now();
                    locked(&self.engine).release_scope(unit.branch, registered, now);
                    let mapped = role == Role::MapError;
                    let told = if mapped { result } else { given.clone_ref(py) };
                    self.onward(py, told)
                }
            },
            Err(error) if ends_the_process(py, &error) => Outcome::Interrupted,
            // It was not the operator that failed.
            Err(error) if error.is_instance_of::<CancelledError>(py) && self.aborting() => {
                self.onward(py, given.clone_ref(py))
            }
            Err(error) => self.operator_failed(py, &unit, given, &error),
        };
        GivenBack::Unit(unit, outcome, registered)
    }

    /// A failure goes on to the next operator.
    fn onward(&self, py: Python<'_>, told: Py<PyAny>) -> Outcome<PyDomain> {
        Outcome::Failed {
            error: self.told(py, told),
            again: Again::No,
        }
    }

    /// An operator has raised: a failure of its own, whose cause is the one it was given.
    fn operator_failed(
        &self,
        py: Python<'_>,
        unit: &Unit<PyDomain>,
        given: &Py<PyAny>,
        error: &PyErr,
    ) -> Outcome<PyDomain> {
        let leg = &self.facts[unit.leg];
        let given = given.bind(py);
        if error.cause(py).is_none()
            && let Ok(original) = given.getattr("error")
            && !original.is_none()
            && !original.is(error.value(py))
        {
            error.set_cause(py, Some(PyErr::from_value(original)));
        }
        let item = given.getattr("item").ok().map(Bound::unbind);
        let tenant = self.tenant(py, unit.branch);
        let attempt = leg.retries.then_some(unit.attempt);
        let failure = self
            .shared
            .failure(py, error, leg.stage, tenant.as_ref(), attempt, item);
        let again = if leg.retries {
            self.again(py, unit.leg, unit.attempt, error)
        } else {
            Again::No
        };
        Outcome::Failed {
            error: failure,
            again,
        }
    }

    /// Sends what an operator has recovered on to the next leg.
    pub(super) fn flow_recovered(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        legs: &[Leg],
        operator: usize,
        inputs: Vec<Input>,
    ) -> PyResult<Option<PyErr>> {
        let fits = |leg: &usize| {
            legs[*leg].role.operator().is_none() && legs[*leg].course == legs[operator].course
        };
        let Some(index) = (operator..legs.len()).find(fits) else {
            return Ok(None);
        };
        let ahead_of_keys = hand.key_leg == Some(index) && operator < hand.fan_leg;
        let inputs = if operator >= hand.fan_leg {
            self.part(py, hand, (operator, index), inputs)
        } else {
            inputs
        };
        let way = Way::behind(
            (operator, &legs[operator]),
            index,
            &legs[index],
            ahead_of_keys,
        );
        self.flow_tracked(py, hand, &way, inputs)
    }

    /// Finds the branches of items that were recovered behind the fan-out though their failure is
    /// from before it; those without one have failed.
    fn part(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        (operator, index): (usize, usize),
        inputs: Vec<Input>,
    ) -> Vec<Input> {
        let mut parted = Vec::with_capacity(inputs.len());
        for mut input in inputs {
            if input.branch != BranchId::TRUNK {
                parted.push(input);
                continue;
            }
            let value = input.item.value.clone_ref(py);
            let branch = self
                .key_again(hand, value.bind(py))
                .and_then(|key| self.branch_at(hand, &key));
            let now = self.shared.now();
            match branch {
                Ok(branch) => {
                    input.branch = branch;
                    parted.push(input);
                }
                Err(error) if self.ends(py, &error) => {
                    locked(&self.engine).leave(BranchId::TRUNK, input.item, now);
                }
                Err(error) => {
                    let stage = hand.fan_stage;
                    let failure = self
                        .shared
                        .failure(py, &error, stage, None, None, Some(value));
                    let Item { scope, weight, .. } = input.item;
                    // Never back to the operator it comes from.
                    let spot = Spot {
                        ahead_of: index,
                        behind: operator + 1,
                    };
                    locked(&self.engine).fail_item(
                        spot,
                        BranchId::TRUNK,
                        failure,
                        weight,
                        scope,
                        now,
                    );
                }
            }
        }
        parted
    }

    fn key_again<'py>(
        &self,
        hand: &Hand,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        if let Some(key) = &hand.key {
            return key.get(value);
        }
        let Some(spec) = &hand.rekey else {
            return Ok(py.None().into_bound(py));
        };
        let mut passed = pass::run(
            py,
            spec,
            &PyList::new(py, [value])?,
            &self.shared,
            Vec::new(),
            Mode::default(),
        )?;
        if let Some((error, _)) = passed.interrupted {
            return Err(error);
        }
        match (passed.failed.pop(), passed.keys) {
            (
                Some(FailedItem {
                    error: Some(error), ..
                }),
                _,
            ) => Err(error),
            (_, Some(keys)) => keys.get_item(0),
            (_, None) => Ok(py.None().into_bound(py)),
        }
    }
}
