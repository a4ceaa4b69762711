//! Items with a history on their way to a leg: each output knows its input, whose weight, origin
//! and undo actions it carries on.

use anabranch_core::branch::BranchId;
use anabranch_core::clock::Time;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{Engine, Item, Spot};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::super::domain::{Failure, PyDomain};
use super::super::leg::{Leg, PassSpec};
use super::super::pass::{Input, Passed};
use super::super::results;
use super::super::undo::Undo;
use super::holders::Holders;
use super::order::{Order, Standing};
use super::{Hand, Run, locked};

/// Why an item did not get to its leg.
enum Fate {
    Failed(Failure),
    /// Its branch refuses it.
    Refused(Py<PyAny>),
    /// The process is to end.
    Left(Py<PyAny>),
}

/// An item that did not get to its leg.
struct Stray {
    standing: Standing,
    branch: BranchId,
    fate: Fate,
    weight: u32,
    scope: Option<Box<Scope<Undo>>>,
}

/// A way to a leg: the stages that items pass on it.
pub(super) struct Way<'a> {
    pub(super) index: usize,
    leg: &'a Leg,
    pub(super) pass: Option<&'a PassSpec>,
    /// Whether items part by their keys on it.
    pub(super) routes: bool,
    /// The operator it leads away from.
    operator: Option<usize>,
}

impl<'a> Way<'a> {
    /// The way of what comes from the leg before, or from the source.
    pub(super) fn ahead(hand: &Hand, index: usize, leg: &'a Leg) -> Self {
        Self {
            index,
            leg,
            pass: leg.pass.as_ref(),
            routes: hand.key_leg == Some(index),
            operator: None,
        }
    }

    /// The way of what an operator in front of the leg has recovered.
    pub(super) fn behind(
        (number, operator): (usize, &'a Leg),
        index: usize,
        leg: &'a Leg,
        routes: bool,
    ) -> Self {
        Self {
            index,
            leg,
            pass: operator.rest.as_ref(),
            routes,
            operator: Some(number),
        }
    }
}

impl Way<'_> {
    /// Takes an item that has come this way into the leg.
    pub(super) fn offer(
        &self,
        engine: &mut Engine<PyDomain>,
        branch: BranchId,
        item: Item<PyDomain>,
        now: Time,
    ) {
        match self.operator {
            Some(operator) => engine.offer_recovered(operator, self.index, branch, item, now),
            None => engine.offer(self.index, branch, item, now),
        }
    }
}

impl Run {
    /// Sends the outputs of each leg on to the next.
    pub(super) fn move_arrivals(&self, py: Python<'_>, hand: &mut Hand) -> PyResult<bool> {
        let mut progress = false;
        for index in 0..self.facts.len() {
            let arrivals = locked(&self.engine).take_arrivals(index);
            if arrivals.is_empty() {
                continue;
            }
            progress = true;
            let legs = self.legs()?;
            let inputs = arrivals
                .into_iter()
                .map(|(branch, item)| Input::new(branch, item))
                .collect();
            let interrupted = if legs[index].role.operator().is_some() {
                self.flow_recovered(py, hand, &legs, index, inputs)?
            } else {
                let way = Way::ahead(hand, index, &legs[index]);
                self.flow_tracked(py, hand, &way, inputs)?
            };
            if let Some(error) = interrupted {
                return Err(error);
            }
        }
        Ok(progress)
    }

    /// Runs items through the pass in front of a leg, and sends each on to its branch.
    pub(super) fn flow_tracked(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        way: &Way<'_>,
        inputs: Vec<Input>,
    ) -> PyResult<Option<PyErr>> {
        let mut inputs = self.let_off(hand, way, inputs);
        let values = PyList::new(py, inputs.iter().map(|input| input.item.value.bind(py)))?;
        let mut passed = if let Some(spec) = way.pass {
            let tenants = inputs
                .iter()
                .map(|input| self.tenant(py, input.branch))
                .collect();
            self.run_pass(py, hand, spec, &values, tenants)?
        } else {
            let before = way.index.checked_sub(1);
            let stage = before.map_or(0, |leg| self.facts[leg].stage);
            results::sifted(py, &values, stage)?.unwrap_or_else(|| Passed::untouched(values))
        };
        for (at, produced) in passed.grown.drain(..) {
            if let Some(input) = inputs.get_mut(at) {
                input.produced += produced;
            }
        }
        let interrupted = passed.interrupted.take();
        // From the first input the pass did not finish on, all are left, whatever came of them.
        let reached = inputs.len() - interrupted.as_ref().map_or(0, |(_, left)| *left);
        self.register_wide(py, hand, way, &mut passed, &inputs);
        let mut holders = Holders::find(&mut inputs, &mut passed, reached);
        let mut pathless = Vec::new();
        let routed = self.route_tracked(
            py,
            hand,
            way,
            &passed,
            &mut inputs,
            reached,
            &mut pathless,
            &mut holders,
        );
        // Only now: where branches are few, what has failed takes none from what has not. In the
        // order told it comes first: it failed before the output that it stands at.
        let mut strays = self.failed_items(py, hand, way, &mut passed, &mut inputs, &mut holders);
        strays.append(&mut pathless);
        let taken = std::mem::take(&mut passed.taken);
        let taken = taken.into_iter().map(|taken| {
            let input = taken.index.and_then(|at| inputs.get(at));
            let branch = match input {
                Some(input) if !way.routes => input.branch,
                _ => Self::branch_behind(hand, &taken.key),
            };
            (taken.place, branch)
        });
        let taken: Vec<_> = taken.collect();
        strays.sort_by_key(|stray| (stray.standing.outputs, stray.standing.place));
        let mut order = hand.counts.then(|| {
            let mut outputs = vec![None; passed.out.len()];
            for (position, branch, _) in &routed {
                outputs[*position] = Some(*branch);
            }
            Order::new(way.index, outputs, taken)
        });
        let now = self.shared.now();
        // Dropped only when the engine is no longer borrowed.
        let mut done = Vec::with_capacity(inputs.len());
        {
            let mut engine = locked(&self.engine);
            for (at, mut input) in inputs.into_iter().enumerate() {
                if at < reached {
                    let (filtered, produced) = input.balance();
                    engine.passed(input.branch, filtered, produced);
                    engine.release_scope(input.branch, input.item.scope.take(), now);
                    done.push(input.item.value);
                } else {
                    engine.passed(input.branch, 0, input.outputs + input.failures);
                    engine.leave(input.branch, input.item, now);
                }
            }
            for (_, branch, item) in routed {
                way.offer(&mut engine, branch, item, now);
            }
            for stray in strays {
                if let Some(order) = &mut order {
                    order.tell_until(&mut engine, stray.standing);
                }
                self.lose_tracked(&mut engine, way, stray, now);
            }
            if let Some(order) = order {
                order.tell_all(&mut engine);
            }
        }
        drop(done);
        Ok(interrupted.map(|(error, _)| error))
    }

    /// An item that did not get to its leg fails, is refused or is left.
    fn lose_tracked(&self, engine: &mut Engine<PyDomain>, way: &Way<'_>, stray: Stray, now: Time) {
        let (branch, weight, scope) = (stray.branch, stray.weight, stray.scope);
        match stray.fate {
            Fate::Failed(failure) => {
                let spot = Spot {
                    ahead_of: way.index,
                    behind: self.behind(failure.stage),
                };
                engine.fail_item(spot, branch, failure, weight, scope, now);
            }
            Fate::Refused(value) => {
                let item = Item {
                    scope,
                    weight,
                    ..Item::new(value)
                };
                way.offer(engine, branch, item, now);
            }
            Fate::Left(value) => {
                let item = Item {
                    scope,
                    weight,
                    ..Item::new(value)
                };
                engine.leave(branch, item, now);
            }
        }
    }

    /// What was registered at a wider level than the item's.
    fn register_wide(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        way: &Way<'_>,
        passed: &mut Passed<'_>,
        inputs: &[Input],
    ) {
        for noted in &mut passed.noted {
            let Some(input) = inputs.get(noted.index) else {
                continue;
            };
            for (wide, step) in noted.registered.wide.drain(..) {
                let branch = match &noted.tenant {
                    Some(key) if way.routes => {
                        let key = key.bind(py);
                        let branch = self.branch_at(hand, key);
                        branch.unwrap_or(input.branch)
                    }
                    _ => input.branch,
                };
                self.register(wide, branch, step);
            }
        }
    }

    /// The failures of a pass, each with what it carries.
    fn failed_items(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        way: &Way<'_>,
        passed: &mut Passed<'_>,
        inputs: &mut [Input],
        holders: &mut Holders,
    ) -> Vec<Stray> {
        let mut strays = Vec::new();
        for (place, failed) in passed.failed.drain(..).enumerate() {
            let Some(input) = failed.index.and_then(|at| inputs.get_mut(at)) else {
                continue;
            };
            let branch = match &failed.key {
                Some(key) if way.routes => self.branch_at(hand, key),
                _ => Ok(input.branch),
            };
            let (branch, error) = match (branch, failed.error) {
                (Ok(branch), error) => (branch, error),
                (Err(error), None) => (input.branch, Some(error)),
                (Err(_), error) => (input.branch, error),
            };
            let fate = match (error, failed.item) {
                (None, Some(value)) => Fate::Refused(value),
                (None, None) => continue,
                (Some(error), item) => {
                    let tenant = self.tenant(py, branch);
                    let tenant = tenant.as_ref();
                    let stage = failed.stage;
                    Fate::Failed(self.shared.failure(py, &error, stage, tenant, None, item))
                }
            };
            let weight = if input.fresh() { input.item.weight } else { 1 };
            input.failures += 1;
            strays.push(Stray {
                standing: Standing {
                    place: failed.place,
                    outputs: failed.outputs,
                },
                branch,
                fate,
                weight,
                scope: holders.of_failure(place),
            });
        }
        strays
    }

    /// The outputs of a pass with their branches; those without one join the strays.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of flow_tracked, with its locals"
    )]
    fn route_tracked(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        way: &Way<'_>,
        passed: &Passed<'_>,
        inputs: &mut [Input],
        reached: usize,
        strays: &mut Vec<Stray>,
        holders: &mut Holders,
    ) -> Vec<(usize, BranchId, Item<PyDomain>)> {
        let mut routed = Vec::with_capacity(passed.out.len());
        for (position, (value, at)) in passed.out.iter().zip(&passed.at).enumerate() {
            let Some(input) = inputs.get_mut(*at) else {
                continue;
            };
            let first = input.fresh() && *at < reached;
            input.outputs += 1;
            let weight = if first { input.item.weight } else { 1 };
            let scope = holders.of_output(position);
            let branch = if way.routes {
                self.branch_of(hand, &value, passed.keys.as_ref(), position)
            } else {
                Ok(input.branch)
            };
            let stage = if branch.is_ok() {
                way.leg.window
            } else {
                hand.fan_stage
            };
            let sized =
                branch.and_then(|branch| way.leg.sizes.of(&value).map(|bytes| (branch, bytes)));
            match sized {
                Ok((branch, bytes)) => {
                    let origin = input.item.origin;
                    let value = value.unbind();
                    routed.push((
                        position,
                        branch,
                        Item {
                            value,
                            origin,
                            scope,
                            weight,
                            bytes,
                        },
                    ));
                }
                Err(error) => {
                    let branch = input.branch;
                    let fate = if self.ends(py, &error) {
                        Fate::Left(value.unbind())
                    } else {
                        let tenant = self.tenant(py, branch);
                        let item = Some(value.unbind());
                        let failure =
                            self.shared
                                .failure(py, &error, stage, tenant.as_ref(), None, item);
                        Fate::Failed(failure)
                    };
                    strays.push(Stray {
                        standing: Standing::at_output(position),
                        branch,
                        fate,
                        weight,
                        scope,
                    });
                }
            }
        }
        routed
    }
}
