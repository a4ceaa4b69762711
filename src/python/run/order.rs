//! What came of a chunk in front of a leg, told to the streaks of its branches in the order in
//! which it came; and passes that ask first which branches refuse what comes.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{Engine, Item, Spot};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::super::domain::PyDomain;
use super::super::keys::{Beyond, Router};
use super::super::leg::PassSpec;
use super::super::pass::{self, Gate, Input, Mode, Passed};
use super::tracked::Way;
use super::{Hand, Run, locked};

/// Where a failure stands among the rest of its chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// Failures of the pass before it.
    pub(super) place: usize,
    /// Outputs before it.
    pub(super) outputs: usize,
}

impl Standing {
    /// Of what failed after the pass had let it through as this output.
    pub(super) const fn at_output(outputs: usize) -> Self {
        Self { place: 0, outputs }
    }
}

/// The successes of a chunk, in order.
#[derive(Debug)]
pub(super) struct Order {
    leg: usize,
    /// The branch of each output; `None` if it has failed after all.
    outputs: Vec<Option<BranchId>>,
    /// Failures of the pass before something was taken out, and its branch.
    taken: Vec<(usize, BranchId)>,
    next: (usize, usize),
}

impl Order {
    pub(super) const fn new(
        leg: usize,
        outputs: Vec<Option<BranchId>>,
        taken: Vec<(usize, BranchId)>,
    ) -> Self {
        Self {
            leg,
            outputs,
            taken,
            next: (0, 0),
        }
    }

    /// Tells what has succeeded before a failure.
    pub(super) fn tell_until(&mut self, engine: &mut Engine<PyDomain>, standing: Standing) {
        let (output, taken) = &mut self.next;
        let end = standing.outputs.min(self.outputs.len());
        for branch in self.outputs.iter().take(end).skip(*output).flatten() {
            engine.came_through(self.leg, *branch);
        }
        *output = end.max(*output);
        while let Some((_, branch)) = self
            .taken
            .get(*taken)
            .filter(|(before, _)| *before <= standing.place)
        {
            engine.came_through(self.leg, *branch);
            *taken += 1;
        }
    }

    /// Tells the rest.
    pub(super) fn tell_all(mut self, engine: &mut Engine<PyDomain>) {
        let standing = Standing {
            place: usize::MAX,
            outputs: usize::MAX,
        };
        self.tell_until(engine, standing);
    }
}

/// An item that did not get to its leg.
pub(super) struct Lost {
    pub(super) standing: Standing,
    /// `None` if its branch refuses it.
    pub(super) error: Option<PyErr>,
    pub(super) stage: usize,
    /// Its branch, or why it has none.
    pub(super) branch: PyResult<BranchId>,
    pub(super) item: Option<Py<PyAny>>,
}

/// What has become of the items of a chunk.
pub(super) struct Routed {
    /// How many there were.
    pub(super) seen: u64,
    /// The branches of those that got to the leg, where branches count their failures.
    pub(super) branches: Option<Vec<BranchId>>,
    pub(super) strays: Vec<Lost>,
    /// Failures of the pass before something was taken out, and its branch.
    pub(super) taken: Vec<(usize, BranchId)>,
}

/// The branches of all outputs; `gaps` are those that have none.
fn with_gaps(branches: Vec<BranchId>, gaps: &[usize]) -> Vec<Option<BranchId>> {
    let mut outputs: Vec<_> = branches.into_iter().map(Some).collect();
    let mut gaps = gaps.to_vec();
    gaps.sort_unstable();
    for gap in gaps {
        outputs.insert(gap.min(outputs.len()), None);
    }
    outputs
}

impl Run {
    /// What was lost of a chunk fails, or is refused, in between what came through, in order.
    pub(super) fn settle_plain(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        routed: Routed,
        mut lost: Vec<Lost>,
    ) {
        let Routed {
            branches,
            strays,
            taken,
            ..
        } = routed;
        let gaps: Vec<_> = strays.iter().map(|stray| stray.standing.outputs).collect();
        lost.extend(strays);
        let mut order = branches
            .filter(|_| !lost.is_empty() || locked(&self.engine).has_streaks_ahead())
            .map(|branches: Vec<_>| Order::new(hand.entry, with_gaps(branches, &gaps), taken));
        lost.sort_by_key(|lost| (lost.standing.outputs, lost.standing.place));
        for lost in lost {
            if let Some(order) = &mut order {
                order.tell_until(&mut locked(&self.engine), lost.standing);
            }
            self.lose_plain(py, hand, lost);
        }
        if let Some(order) = order {
            order.tell_all(&mut locked(&self.engine));
        }
    }

    fn lose_plain(&self, py: Python<'_>, hand: &mut Hand, lost: Lost) {
        let now = self.shared.now();
        let (branch, error) = match (lost.branch, lost.error, &lost.item) {
            (Ok(branch), None, Some(item)) => {
                // Its branch refuses it, and counts it.
                let item = Item::new(item.clone_ref(py));
                locked(&self.engine).offer(hand.entry, branch, item, now);
                return;
            }
            (Ok(branch), Some(error), _) => (branch, error),
            // Its own error tells more than why it would have had no branch.
            (Err(_), Some(error), _) | (Err(error), None, _) => (BranchId::TRUNK, error),
            (Ok(_), None, None) => return,
        };
        if self.ends(py, &error) {
            locked(&self.engine).left_behind(1);
            return;
        }
        let tenant = self.tenant(py, branch);
        let failure = self
            .shared
            .failure(py, &error, lost.stage, tenant.as_ref(), None, lost.item);
        let spot = Spot {
            ahead_of: hand.entry,
            behind: self.behind(lost.stage),
        };
        locked(&self.engine).fail_item(spot, branch, failure, 1, None, now);
    }

    /// Runs items through a pass; while some branch refuses what comes, what would be refused is
    /// let off before the stages behind the fan-out.
    pub(super) fn run_pass<'py>(
        &self,
        py: Python<'py>,
        hand: &mut Hand,
        spec: &PassSpec,
        items: &Bound<'py, PyList>,
        tenants: Vec<Option<Py<PyAny>>>,
    ) -> PyResult<Passed<'py>> {
        self.enter_call(spec.stage(), BranchId::TRUNK);
        let passed = self.run_guarded(py, hand, spec, items, tenants);
        self.leave_call();
        passed
    }

    fn run_guarded<'py>(
        &self,
        py: Python<'py>,
        hand: &mut Hand,
        spec: &PassSpec,
        items: &Bound<'py, PyList>,
        tenants: Vec<Option<Py<PyAny>>>,
    ) -> PyResult<Passed<'py>> {
        let mut mode = Mode {
            gate: None,
            watched: spec.counted && locked(&self.engine).has_streaks_ahead(),
        };
        if spec.guarded.is_none() {
            return pass::run(py, spec, items, &self.shared, tenants, mode);
        }
        self.note_turns(hand);
        let beyond = self.beyond_limit(hand);
        if !hand.router.has_refusing() && !beyond.refuses() {
            return pass::run(py, spec, items, &self.shared, tenants, mode);
        }
        let router = std::mem::replace(&mut hand.router, Router::empty(py));
        let gate = Bound::new(py, Gate::new(router, beyond))?;
        mode.gate = Some(&gate);
        let passed = pass::run(py, spec, items, &self.shared, tenants, mode);
        if let Some(router) = gate.get().open() {
            hand.router = router;
        }
        passed
    }

    /// What becomes of keys without an open branch.
    fn beyond_limit(&self, hand: &Hand) -> Beyond {
        let full = locked(&self.engine).open_branches() >= hand.branches.most();
        let one_for_all = hand.branches.shares();
        let closed = |branch| hand.router.is_refusing(branch);
        let refused = !one_for_all || hand.branches.shared().is_some_and(closed);
        Beyond {
            strangers: full && refused,
            sleepers: full && !one_for_all,
        }
    }

    /// Hears which branches refuse what comes from now on, and which do not any more.
    pub(super) fn note_turns(&self, hand: &mut Hand) {
        for (branch, refuses) in locked(&self.engine).take_turns() {
            hand.router.turn(branch, refuses);
        }
    }

    /// The branch of a key that has passed; the trunk if it has none.
    pub(super) fn branch_behind(hand: &Hand, key: &Bound<'_, PyAny>) -> BranchId {
        let found = hand.router.find(key).ok().flatten();
        found
            .or_else(|| hand.branches.shared())
            .unwrap_or(BranchId::TRUNK)
    }

    /// Lets off what its branch refuses before the stages on the way are called for it.
    pub(super) fn let_off(&self, hand: &mut Hand, way: &Way<'_>, inputs: Vec<Input>) -> Vec<Input> {
        if way.routes || way.pass.is_none() {
            return inputs;
        }
        self.note_turns(hand);
        if !hand.router.has_refusing() {
            return inputs;
        }
        let now = self.shared.now();
        let mut engine = locked(&self.engine);
        let refused = |input: &Input| engine.refuses(way.index, input.branch);
        let (refused, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(refused);
        for input in refused {
            way.offer(&mut engine, input.branch, input.item, now);
        }
        inputs
    }
}
