//! Running a chunk through a generated pass, and keeping the books on what came of each item.
//!
//! The pass itself is Python (`anabranch._pass`); this is its caller. An exception at one item
//! loses no earlier result and runs nothing twice: the pass resumes at the next item of the
//! iterator held here.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anabranch_core::branch::BranchId;
use anabranch_core::engine::Item;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyTuple};

use super::context::{Context, Registered};
use super::domain::{INLINE, PyDomain, Shared};
use super::keys::{Beyond, Router};
use super::leg::{Loop, PassSpec};
use super::run::locked;
use super::work::ends_the_process;

/// Makes the contexts of the items of one chunk, for stages that take `ctx`.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Contexts {
    shared: Arc<Shared>,
    /// By index, where the tenant is known before the pass.
    tenants: Vec<Option<Py<PyAny>>>,
    made: Mutex<Vec<Made>>,
    /// The outputs and the failures so far: a context covers what comes from here on. Let go with
    /// the pass: the traceback of a failure leads back here.
    so_far: Mutex<Option<(Py<PyList>, Py<PyList>)>>,
}

/// One context, and where the pass stood when it was made.
#[derive(Debug)]
struct Made {
    index: usize,
    stage: usize,
    outputs: usize,
    failures: usize,
    context: Py<Context>,
}

/// What one callable registered for one item, and what came of that item.
#[derive(Debug)]
pub(crate) struct Noted {
    /// The input.
    pub(crate) index: usize,
    pub(crate) stage: usize,
    /// Among these outputs, those of the input came of the item.
    pub(crate) outputs: Range<usize>,
    /// Among these failures, those of the input at this stage or behind it did.
    pub(crate) failures: Range<usize>,
    /// The key of its branch, if it is known.
    pub(crate) tenant: Option<Py<PyAny>>,
    pub(crate) registered: Registered,
}

impl Contexts {
    /// Ends the contexts: what was registered with them, in order.
    ///
    /// Each item of a stage that takes `ctx` has one, so what follows one of a stage up to the
    /// next one of the same stage came of its item.
    fn close(&self, py: Python<'_>) -> Vec<Noted> {
        let so_far = locked(&self.so_far).take();
        drop(so_far);
        let mut next = HashMap::new();
        let mut noted = Vec::new();
        for made in std::mem::take(&mut *locked(&self.made)).into_iter().rev() {
            let begin = (made.outputs, made.failures);
            let end = next
                .insert((made.index, made.stage), begin)
                .unwrap_or((usize::MAX, usize::MAX));
            let registered = made.context.get().close();
            if !registered.is_empty() {
                noted.push(Noted {
                    index: made.index,
                    stage: made.stage,
                    outputs: begin.0..end.0,
                    failures: begin.1..end.1,
                    tenant: made.context.get().key().map(|key| key.clone_ref(py)),
                    registered,
                });
            }
        }
        noted.reverse();
        noted
    }
}

#[pymethods]
impl Contexts {
    #[pyo3(signature = (index, stage, tenant=None))]
    fn __call__(
        &self,
        py: Python<'_>,
        index: usize,
        stage: usize,
        tenant: Option<Py<PyAny>>,
    ) -> PyResult<Py<Context>> {
        let tenant = tenant.or_else(|| {
            self.tenants
                .get(index)
                .and_then(Option::as_ref)
                .map(|tenant| tenant.clone_ref(py))
        });
        let context = Py::new(
            py,
            Context::new(self.shared.clone(), tenant, stage, 1, INLINE),
        )?;
        let (outputs, failures) = match locked(&self.so_far).as_ref() {
            Some((out, failures)) => (out.bind(py).len(), failures.bind(py).len()),
            None => (0, 0),
        };
        let made = Made {
            index,
            stage,
            outputs,
            failures,
            context: context.clone_ref(py),
        };
        locked(&self.made).push(made);
        Ok(context)
    }
}

/// What asks whether the branch of a key refuses what comes: the `refusing` of a guarded pass.
///
/// It has the router for as long as the pass runs, which nobody else needs meanwhile; the
/// traceback of a failure may lead back here later.
#[pyclass(frozen, module = "anabranch._core")]
#[derive(Debug)]
pub(crate) struct Gate {
    router: Mutex<Option<Router>>,
    beyond: Beyond,
}

impl Gate {
    pub(crate) const fn new(router: Router, beyond: Beyond) -> Self {
        Self {
            router: Mutex::new(Some(router)),
            beyond,
        }
    }

    /// Gives the router back.
    pub(crate) fn open(&self) -> Option<Router> {
        locked(&self.router).take()
    }
}

#[pymethods]
impl Gate {
    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        // Taken out while `__hash__` and `__eq__` run, which may come back in.
        let Some(router) = locked(&self.router).take() else {
            return Ok(false);
        };
        let refuses = router.refuses(key, self.beyond);
        *locked(&self.router) = Some(router);
        refuses
    }
}

/// How a pass is run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mode<'a, 'py> {
    /// For the guarded form, which is run if this is given.
    pub(crate) gate: Option<&'a Bound<'py, Gate>>,
    /// Whether what stages take out counts from the start, and not from the first failure on.
    pub(crate) watched: bool,
}

/// An item that failed in the pass, or whose branch refuses it.
pub(crate) struct FailedItem<'py> {
    /// `None` if its branch refuses it.
    pub(crate) error: Option<PyErr>,
    pub(crate) stage: usize,
    /// Its key, if it failed behind the fan-out.
    pub(crate) key: Option<Bound<'py, PyAny>>,
    /// Which input it was; plain passes do not know.
    pub(crate) index: Option<usize>,
    /// What the callable was given.
    pub(crate) item: Option<Py<PyAny>>,
    /// Its place among the failures.
    pub(crate) place: usize,
    /// How many outputs there were before it.
    pub(crate) outputs: usize,
}

/// What a stage behind the fan-out has taken out.
pub(crate) struct Taken<'py> {
    /// How many failures there were before it.
    pub(crate) place: usize,
    /// The key of its branch, where the pass finds the keys.
    pub(crate) key: Bound<'py, PyAny>,
    /// Which input it was; plain passes do not know.
    pub(crate) index: Option<usize>,
}

/// What a pass made of a chunk.
pub(crate) struct Passed<'py> {
    pub(crate) out: Bound<'py, PyList>,
    /// The input of each output; empty for plain passes.
    pub(crate) at: Vec<usize>,
    /// The key of each output, where the pass finds the keys.
    pub(crate) keys: Option<Bound<'py, PyList>>,
    pub(crate) failed: Vec<FailedItem<'py>>,
    /// What its stages took out of branches, in a pass that is counted.
    pub(crate) taken: Vec<Taken<'py>>,
    /// Items made beyond the one each stage consumed; plain passes.
    pub(crate) produced: u64,
    /// The same by input; tracked passes.
    pub(crate) grown: Vec<(usize, u64)>,
    /// What the stages registered.
    pub(crate) noted: Vec<Noted>,
    /// What cut the pass short, and how many inputs it did not finish.
    pub(crate) interrupted: Option<(PyErr, usize)>,
}

impl<'py> Passed<'py> {
    /// Items that pass no stage on their way.
    pub(crate) fn untouched(items: Bound<'py, PyList>) -> Self {
        Self {
            at: (0..items.len()).collect(),
            out: items,
            keys: None,
            failed: Vec::new(),
            taken: Vec::new(),
            produced: 0,
            grown: Vec::new(),
            noted: Vec::new(),
            interrupted: None,
        }
    }
}

/// A failure as a pass lists it: the exception, the key, the input, the values on the way, and how
/// many outputs there were before.
type Listed<'py> = (
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
    Option<usize>,
    Bound<'py, PyTuple>,
    usize,
);

fn stage_of(py: Python<'_>, spec: &Loop, error: &PyErr) -> usize {
    let line = error
        .traceback(py)
        .and_then(|traceback| traceback.getattr("tb_lineno").ok())
        .and_then(|line| line.extract::<usize>().ok());
    let found = spec.lines.iter().find(|(number, _)| Some(*number) == line);
    found.or(spec.lines.first()).map_or(0, |(_, stage)| *stage)
}

fn remaining(iterator: &Bound<'_, PyIterator>) -> usize {
    iterator
        .call_method0("__length_hint__")
        .and_then(|hint| hint.extract())
        .unwrap_or(0)
}

/// Adds what the pass has listed itself.
fn list_failures<'py>(
    py: Python<'py>,
    spec: &PassSpec,
    form: &Loop,
    failures: &Bound<'py, PyList>,
    failed: &mut Vec<FailedItem<'py>>,
) -> PyResult<()> {
    for (place, failure) in failures.iter().enumerate() {
        let (error, key, index, values, outputs): Listed<'py> = failure.extract()?;
        let error = error.map(PyErr::from_value);
        let stage = match &error {
            Some(error) => stage_of(py, form, error),
            // What it is refused by is the fan-out.
            None => spec.routed_from - 1,
        };
        let given = spec.inputs.iter().find(|(of, _)| *of == stage);
        let item = given.and_then(|(_, at)| values.get_item(*at).ok());
        let key = (error.is_none() || stage >= spec.routed_from).then_some(key);
        failed.push(FailedItem {
            error,
            stage,
            key,
            index,
            item: item.map(Bound::unbind),
            place,
            outputs,
        });
    }
    Ok(())
}

/// What the stages of the pass have taken out.
fn taken_out<'py>(listed: &Bound<'py, PyList>) -> PyResult<Vec<Taken<'py>>> {
    let taken = listed.iter().map(|taken| {
        let (place, key, index) = taken.extract()?;
        Ok(Taken { place, key, index })
    });
    taken.collect()
}

/// Runs `items` through the pass.
///
/// # Errors
/// Only errors of the machinery; what callables raise is in the result.
pub(crate) fn run<'py>(
    py: Python<'py>,
    spec: &PassSpec,
    items: &Bound<'py, PyList>,
    shared: &Arc<Shared>,
    tenants: Vec<Option<Py<PyAny>>>,
    mode: Mode<'_, 'py>,
) -> PyResult<Passed<'py>> {
    let guarded = spec.guarded.as_ref().filter(|_| mode.gate.is_some());
    let form = guarded.unwrap_or(&spec.r#loop);
    let out = PyList::empty(py);
    let failures = PyList::empty(py);
    let held = items.try_iter()?;
    // What the pass does not ask for is not made: a chunk's fixed cost is felt in small chunks.
    let at = spec.tracked.then(|| PyList::empty(py));
    let keys = spec.keyed.then(|| PyList::empty(py));
    let tally = match (spec.grows, spec.tracked) {
        (false, _) => None,
        (true, true) => Some(PyList::empty(py)),
        (true, false) => Some(PyList::new(py, [0_u64])?),
    };
    let contexts = spec
        .tracked
        .then(|| Contexts {
            shared: shared.clone(),
            tenants,
            made: Mutex::default(),
            so_far: Mutex::new(Some((out.clone().unbind(), failures.clone().unbind()))),
        })
        .map(|contexts| Bound::new(py, contexts))
        .transpose()?;
    let chunk = if spec.tracked {
        py.import("builtins")?
            .getattr("enumerate")?
            .call1((&held,))?
    } else {
        held.clone().into_any()
    };
    let taken = spec.counted.then(|| PyList::empty(py));
    let arguments = (
        chunk,
        &out,
        &at,
        &keys,
        &failures,
        &tally,
        &contexts,
        mode.gate,
        &taken,
        mode.watched,
    )
        .into_pyobject(py)?;
    let mut failed = Vec::new();
    let mut interrupted = None;
    while let Err(error) = form.function.bind(py).call1(arguments.clone()) {
        let left = remaining(&held);
        if ends_the_process(py, &error) {
            interrupted = Some((error, left + 1));
            break;
        }
        // Not an Exception, yet no reason to end either: a CancelledError of the callable's own.
        let stage = stage_of(py, form, &error);
        let index = spec.tracked.then(|| items.len() - left - 1);
        failed.push(FailedItem {
            error: Some(error),
            stage,
            key: None,
            index,
            item: items
                .len()
                .checked_sub(left + 1)
                .and_then(|at| items.get_item(at).ok())
                .map(Bound::unbind),
            place: failures.len(),
            outputs: out.len(),
        });
    }
    list_failures(py, spec, form, &failures, &mut failed)?;
    let taken = taken.map(|taken| taken_out(&taken)).transpose()?;
    let noted = contexts.map_or_else(Vec::new, |contexts| contexts.get().close(py));
    Ok(Passed {
        at: at.map(|at| at.extract()).transpose()?.unwrap_or_default(),
        keys,
        failed,
        taken: taken.unwrap_or_default(),
        produced: match &tally {
            Some(tally) if !spec.tracked => tally.get_item(0)?.extract()?,
            _ => 0,
        },
        grown: match &tally {
            Some(tally) if spec.tracked => tally.extract()?,
            _ => Vec::new(),
        },
        noted,
        interrupted,
        out,
    })
}

/// What became of one input of a tracked pass.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) branch: BranchId,
    pub(crate) item: Item<PyDomain>,
    /// Items made beyond the one it was.
    pub(crate) produced: u64,
    pub(crate) outputs: u64,
    pub(crate) failures: u64,
}

impl Input {
    pub(crate) const fn new(branch: BranchId, item: Item<PyDomain>) -> Self {
        Self {
            branch,
            item,
            produced: 0,
            outputs: 0,
            failures: 0,
        }
    }

    /// How many items were taken out on the way, and how many made: of `1 + produced` items,
    /// those that neither went on nor failed were taken out.
    pub(crate) fn balance(&self) -> (u64, u64) {
        let filtered = (1 + self.produced).saturating_sub(self.outputs + self.failures);
        let carried = if self.fresh() {
            u64::from(self.item.weight) - 1
        } else {
            0
        };
        (filtered + carried, self.produced)
    }

    /// Whether nothing has come of it yet: what comes first carries its weight.
    pub(crate) const fn fresh(&self) -> bool {
        self.outputs == 0 && self.failures == 0
    }
}
