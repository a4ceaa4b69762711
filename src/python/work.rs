//! Work in someone's hand: a unit or an undo action, from being handed out to being given back.

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{Again, AttemptId, Outcome, Payload, Turn, Unit};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::context::{Context, undo_port};
use super::domain::{Failure, PyDomain};
use super::leg::{Leg, Role};
use super::results;
use super::run::Run;
use super::undo::Undo;

/// Whether an exception ends the process rather than a unit.
pub(crate) fn ends_the_process(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// One piece of work with whoever runs it.
#[derive(Debug)]
pub(crate) enum InHand {
    /// A handler call.
    Unit {
        unit: Unit<PyDomain>,
        /// What the handler is given.
        value: Py<PyAny>,
        context: Option<Py<Context>>,
    },
    /// An undo action.
    Undo {
        turn: Turn<PyDomain>,
        /// Tries made before this one.
        tried: u32,
        context: Option<Py<Context>>,
        /// What these tries have registered.
        registered: Option<Box<Scope<Undo>>>,
    },
}

/// How a call ended, before anything was made of it.
pub(crate) type CallResult = PyResult<Py<PyAny>>;

/// What goes back to the engine.
pub(crate) enum GivenBack {
    Unit(Unit<PyDomain>, Outcome<PyDomain>, Option<Box<Scope<Undo>>>),
    Undo(Turn<PyDomain>, Option<Failure>, Option<Box<Scope<Undo>>>),
    /// An undo action that is to be tried again: how often it was, and what it registered.
    Again(Turn<PyDomain>, u32, Option<Box<Scope<Undo>>>),
}

impl InHand {
    /// Makes a unit ready for its handler: its items become one object.
    pub(crate) fn unit(
        py: Python<'_>,
        run: &Run,
        leg: &LegFacts,
        mut unit: Unit<PyDomain>,
    ) -> PyResult<Self> {
        let value = match &mut unit.payload {
            Payload::One(value) | Payload::Sealed { value, .. } => value.clone_ref(py),
            Payload::Many(values) if leg.retries => {
                // A retried handler gets a list of its own each time: what it did to the last one
                // does not show.
                PyList::new(py, values.iter().map(|value| value.bind(py)))?
                    .into_any()
                    .unbind()
            }
            Payload::Many(values) => {
                let entries = values.len();
                let list = PyList::new(py, std::mem::take(values))?.into_any().unbind();
                unit.payload = Payload::Sealed {
                    value: list.clone_ref(py),
                    entries,
                };
                list
            }
        };
        let context = if leg.takes_ctx {
            let tenant = run.tenant(py, unit.branch);
            let port = undo_port(leg.port);
            let deadline = unit.deadline().map(|(_, at)| at);
            let mut context =
                Context::new(run.shared.clone(), tenant, leg.stage, unit.attempt, port)
                    .with_deadline(deadline);
            if let Some(cut) = &unit.cut {
                let items = match &unit.payload {
                    Payload::One(_) => 1,
                    Payload::Many(values) => values.len(),
                    Payload::Sealed { entries, .. } => *entries,
                };
                context = context.with_window(py, cut, items)?;
            }
            Some(Py::new(py, context)?)
        } else {
            None
        };
        Ok(Self::Unit {
            unit,
            value,
            context,
        })
    }

    /// A unit whose handler takes nothing but its item.
    pub(crate) fn plain(py: Python<'_>, unit: Unit<PyDomain>) -> Self {
        let value = match &unit.payload {
            Payload::One(value) | Payload::Sealed { value, .. } => value.clone_ref(py),
            Payload::Many(_) => py.None(),
        };
        Self::Unit {
            unit,
            value,
            context: None,
        }
    }

    /// The attempt, if it has a deadline.
    pub(crate) fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Unit { unit, .. } => unit.deadline().map(|(attempt, _)| attempt),
            Self::Undo { turn, .. } => turn.attempt,
        }
    }

    /// Makes an undo action ready to be called.
    pub(crate) fn undo(
        py: Python<'_>,
        run: &Run,
        turn: Turn<PyDomain>,
        tried: u32,
        registered: Option<Box<Scope<Undo>>>,
    ) -> PyResult<Self> {
        let undo = &turn.step.undo;
        let context = if undo.takes_ctx {
            let port = undo_port(undo.port);
            let tenant = run.tenant_of(py, undo, turn.branch);
            let context = Context::new(run.shared.clone(), tenant, undo.stage, tried + 1, port);
            Some(Py::new(py, context)?)
        } else {
            None
        };
        Ok(Self::Undo {
            turn,
            tried,
            context,
            registered,
        })
    }

    /// The stage it belongs to, and the branch.
    pub(crate) fn place(&self, run: &Run) -> (usize, BranchId) {
        match self {
            Self::Unit { unit, .. } => (run.facts[unit.leg].stage, unit.branch),
            Self::Undo { turn, .. } => (turn.step.undo.stage, turn.branch),
        }
    }

    /// The number of the unit's leg.
    pub(crate) const fn leg(&self) -> Option<usize> {
        match self {
            Self::Unit { unit, .. } => Some(unit.leg),
            Self::Undo { .. } => None,
        }
    }

    /// Turns the end of a call into what the engine is told; a failure is the handler's, or that
    /// of `stage`. Runs Python: the engine must not be borrowed.
    pub(crate) fn settle(
        self,
        py: Python<'_>,
        run: &Run,
        result: CallResult,
        stage: Option<usize>,
    ) -> GivenBack {
        let result = result.and_then(|value| results::landed(py, value));
        match self {
            Self::Unit {
                unit,
                value,
                context,
            } => {
                let registered = run.registered(context.as_ref(), unit.branch);
                let leg = &run.facts[unit.leg];
                if leg.role.operator().is_some() {
                    return run.settle_operator(py, unit, &value, result, registered);
                }
                let result = result.and_then(|result| {
                    let outputs = leg.role.outputs(value.bind(py), result.into_bound(py));
                    if let Err(error) = &outputs {
                        // The caller knows of the call's own exception only.
                        run.shared.postpone(py, error.clone_ref(py));
                    }
                    outputs
                });
                let outcome = match result {
                    Ok(values) => Outcome::Done(values),
                    Err(error) if ends_the_process(py, &error) => Outcome::Interrupted,
                    Err(error) => {
                        let tenant = run.tenant(py, unit.branch);
                        let attempt = leg.retries.then_some(unit.attempt);
                        let stage = stage.unwrap_or(leg.stage);
                        let item = Some(value.clone_ref(py));
                        let failure =
                            run.shared
                                .failure(py, &error, stage, tenant.as_ref(), attempt, item);
                        let again = if leg.retries {
                            run.again(py, unit.leg, unit.attempt, &error)
                        } else {
                            Again::No
                        };
                        Outcome::Failed {
                            error: failure,
                            again,
                        }
                    }
                };
                value.drop_ref(py);
                GivenBack::Unit(unit, outcome, registered)
            }
            Self::Undo {
                turn,
                tried,
                context,
                registered: mut all,
            } => {
                // Of every try: what a try did before it failed is there, too.
                if let Some(registered) = run.registered(context.as_ref(), turn.branch) {
                    all.get_or_insert_default().absorb(*registered);
                }
                let registered = all;
                let undo = &turn.step.undo;
                let error = match result {
                    Ok(_) => None,
                    Err(_)
                        if tried < undo.retries
                            && run.shared.now() < turn.deadline
                            && !run.is_left() =>
                    {
                        return GivenBack::Again(turn, tried + 1, registered);
                    }
                    Err(error) => {
                        let tenant = run.tenant_of(py, undo, turn.branch);
                        let (stage, tenant) = (undo.stage, tenant.as_ref());
                        Some(run.shared.failure(py, &error, stage, tenant, None, None))
                    }
                };
                GivenBack::Undo(turn, error, registered)
            }
        }
    }

    /// Calls the handler or the undo action.
    pub(crate) fn call(&self, py: Python<'_>, leg: Option<&Leg>) -> CallResult {
        match self {
            Self::Undo {
                turn,
                context: None,
                ..
            } => {
                let undo = &turn.step.undo;
                undo.call.call1(py, undo.args.clone_ref(py))
            }
            Self::Undo {
                turn,
                context: Some(context),
                ..
            } => {
                let undo = &turn.step.undo;
                let keywords = PyDict::new(py);
                keywords.set_item(pyo3::intern!(py, "ctx"), context)?;
                undo.call.call(py, undo.args.clone_ref(py), Some(&keywords))
            }
            Self::Unit { value, context, .. } => {
                let Some(leg) = leg else { return Ok(py.None()) };
                match (leg.role, &leg.handler) {
                    (Role::Forward, _) | (_, None) => Ok(py.None()),
                    (_, Some(handler)) => call_handler(py, handler, value, context.as_ref()),
                }
            }
        }
    }
}

/// Calls a handler with its unit, and with its context if it takes one.
pub(crate) fn call_handler(
    py: Python<'_>,
    handler: &Py<PyAny>,
    value: &Py<PyAny>,
    context: Option<&Py<Context>>,
) -> CallResult {
    match context {
        None => handler.call1(py, (value,)),
        Some(context) => {
            let keywords = PyDict::new(py);
            keywords.set_item(pyo3::intern!(py, "ctx"), context)?;
            handler.call(py, PyTuple::new(py, [value])?, Some(&keywords))
        }
    }
}

/// What anyone may know of a leg without Python: copied out of it at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LegFacts {
    pub(crate) role: Role,
    pub(crate) port: anabranch_core::engine::Port,
    pub(crate) stage: usize,
    pub(crate) takes_ctx: bool,
    pub(crate) retries: bool,
    /// Whether a handler is called with an item and nothing else is made of the call: neither a
    /// context, nor outputs, nor a timeout.
    pub(crate) plain: bool,
}
