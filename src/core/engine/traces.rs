//! What is remembered of rollbacks for those who look: which actions they have, in which order they
//! run, and what became of each.
//!
//! A rollback under way is read as it is: what has run is in its [`Trace`], what waits is still in
//! the engine's hands. One that is over is remembered for a while; one of which something is stuck
//! until nothing is, for an operator may have it tried again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::rollback::{Then, Undoing};
use super::{Domain, Engine, Fate, RollbackId, Turn};
use crate::branch::BranchId;
use crate::clock::Time;
use crate::compensation::{Policy, Step};

/// Actions of one rollback that are remembered once they are done.
pub const MAX_TRACE: usize = 64;
/// Rollbacks that are remembered after their end while nothing of them is stuck.
const MAX_QUIET: usize = 32;
/// Rollbacks that are remembered after their end.
const MAX_OVER: usize = 1024;

/// What an undo action is called, as the driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: Arc<str>,
    /// The stage that registered it, by number.
    pub stage: usize,
    /// When it was registered.
    pub at: Time,
    /// How often it may be tried.
    pub tries: u32,
}

impl Default for Label {
    fn default() -> Self {
        Self {
            name: Arc::from(""),
            stage: 0,
            at: Time::ZERO,
            tries: 1,
        }
    }
}

/// What becomes of an undo action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Its turn has not come.
    Pending,
    /// It runs.
    Running,
    /// It ran to the end.
    Done,
    /// It raised: it is stuck.
    Failed,
    /// It had no turn in time: it is stuck, too.
    Unrun,
    /// The policy, or an operator, left it out.
    Skipped,
}

/// One undo action or finalizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLook {
    /// Its place in the order of registration.
    pub order: u64,
    /// What it is called.
    pub label: Label,
    /// Whether it runs however its scope ends.
    pub finalizer: bool,
    /// What becomes of it.
    pub state: StepState,
    /// When it began, if it runs.
    pub began: Option<Time>,
    /// Which try it is at; 0 before the first.
    pub attempt: u32,
    /// How long it took, if it has run.
    pub took: Option<Duration>,
    /// The code of what it raised.
    pub code: Option<Box<str>>,
}

impl StepLook {
    fn of<D: Domain>(step: &Step<D::Undo>, state: StepState) -> Self {
        Self {
            order: step.order,
            label: D::label(&step.undo),
            finalizer: step.is_finalizer(),
            state,
            began: None,
            attempt: 0,
            took: None,
            code: None,
        }
    }

    /// Whether it waits for an operator.
    pub const fn is_stuck(&self) -> bool {
        matches!(self.state, StepState::Failed | StepState::Unrun)
    }
}

/// What is undone together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What a unit did.
    Unit,
    /// What was registered for a branch.
    Branch,
    /// What ends with the run.
    Run,
}

/// Why something is undone, as far as it is known.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The leg whose unit has failed.
    pub leg: Option<usize>,
    /// The stage the failure arose at, by number.
    pub stage: Option<usize>,
    /// Its code.
    pub code: Option<Box<str>>,
}

/// One rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackLook {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub branch: BranchId,
    /// What is undone.
    pub reach: Reach,
    /// Why.
    pub cause: Cause,
    /// When it began.
    pub began: Time,
    /// How long it took, if it is over.
    pub took: Option<Duration>,
    /// Its actions, in the order they run.
    pub steps: Vec<StepLook>,
}

/// What has happened in a rollback under way.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) reach: Reach,
    began: Time,
    /// Whether there is something to undo, not only to finalize.
    undoes: bool,
    /// Actions that run or are over, in the order they began.
    steps: Vec<StepLook>,
}

impl Trace {
    pub(super) const fn new(reach: Reach, undoes: bool, now: Time) -> Self {
        Self {
            reach,
            began: now,
            undoes,
            steps: Vec::new(),
        }
    }

    pub(super) fn begin<D: Domain>(&mut self, step: &Step<D::Undo>, now: Time) {
        let look = StepLook {
            began: Some(now),
            attempt: 1,
            ..StepLook::of::<D>(step, StepState::Running)
        };
        self.steps.push(look);
    }

    pub(super) fn end<D: Domain>(
        &mut self,
        step: &Step<D::Undo>,
        fate: &Fate<D::Error>,
        took: Duration,
    ) {
        let known = self.steps.iter().position(|it| it.order == step.order);
        let full = self.steps.len() > MAX_TRACE;
        if full && matches!(fate, Fate::Done) {
            if let Some(known) = known {
                self.steps.remove(known);
            }
            return;
        }
        let place = known.unwrap_or(self.steps.len());
        if known.is_none() {
            self.steps.push(StepLook::of::<D>(step, StepState::Pending));
        }
        let look = &mut self.steps[place];
        look.began = None;
        look.code = fate.error().map(|error| D::code(error).into());
        look.state = match fate {
            Fate::Done => StepState::Done,
            Fate::Failed(_) => StepState::Failed,
            Fate::Unrun => StepState::Unrun,
            Fate::Skipped => StepState::Skipped,
        };
        let ran = matches!(fate, Fate::Done | Fate::Failed(_));
        look.took = ran.then_some(took);
    }
}

/// The rollbacks that are over and remembered.
#[derive(Debug, Default)]
pub(super) struct Traces {
    over: BTreeMap<RollbackId, RollbackLook>,
    /// Those of them of which nothing is stuck, the oldest first.
    quiet: VecDeque<RollbackId>,
}

impl Traces {
    fn remember(&mut self, id: RollbackId, look: RollbackLook) {
        let stuck = look.steps.iter().any(StepLook::is_stuck);
        if stuck && self.over.len() >= MAX_OVER {
            return;
        }
        self.over.insert(id, look);
        if !stuck {
            self.rest(id);
        }
    }

    /// Nothing of it is stuck.
    fn rest(&mut self, id: RollbackId) {
        self.quiet.push_back(id);
        if self.quiet.len() > MAX_QUIET
            && let Some(oldest) = self.quiet.pop_front()
        {
            self.over.remove(&oldest);
        }
    }

    /// A stuck action is stuck no more: an operator had it left out, or, `None`, tried again, in a
    /// rollback of its own.
    pub(super) fn settle(&mut self, id: RollbackId, order: u64, state: Option<StepState>) {
        let Some(look) = self.over.get_mut(&id) else {
            return;
        };
        match state {
            Some(state) => {
                let step = look.steps.iter_mut().find(|it| it.order == order);
                if let Some(step) = step {
                    step.state = state;
                }
            }
            None => look.steps.retain(|it| it.order != order),
        }
        if look.steps.is_empty() {
            self.over.remove(&id);
        } else if !look.steps.iter().any(StepLook::is_stuck) {
            self.rest(id);
        }
    }

    pub(super) fn reach(&self, id: RollbackId) -> Reach {
        self.over.get(&id).map_or(Reach::Unit, |look| look.reach)
    }
}

impl<D: Domain> Engine<D> {
    /// The rollbacks: those under way, then those of which something is stuck, then the last that
    /// are over. Of each at most so many, the last first, with eight times as many actions.
    pub fn rollbacks(&self, most: usize) -> Vec<RollbackLook> {
        let room = 8 * most;
        let fits = |steps: &mut usize, more: usize| {
            let before = *steps;
            *steps += more;
            before == 0 || *steps <= room
        };
        let mut handed: HashMap<RollbackId, Vec<&Step<D::Undo>>> = HashMap::new();
        for (id, step) in self.undos.iter().flatten() {
            handed.entry(*id).or_default().push(step);
        }
        let under_way = self.rollbacks.iter().rev().take(most);
        let mut steps = 0;
        let mut looks: Vec<_> = under_way
            .map(|(id, undoing)| {
                let handed = handed.get(id).map_or(&[][..], Vec::as_slice);
                self.look_at_rollback(*id, undoing, handed)
            })
            .take_while(|look| fits(&mut steps, look.steps.len()))
            .collect();
        let is_stuck = |look: &&RollbackLook| look.steps.iter().any(StepLook::is_stuck);
        for stuck in [true, false] {
            let mut steps = 0;
            let over = self.traces.over.values().rev();
            let over = over.filter(|look| is_stuck(look) == stuck).take(most);
            looks.extend(
                over.take_while(|look| fits(&mut steps, look.steps.len()))
                    .cloned(),
            );
        }
        looks
    }

    fn look_at_rollback(
        &self,
        id: RollbackId,
        undoing: &Undoing<D>,
        handed: &[&Step<D::Undo>],
    ) -> RollbackLook {
        let mut steps = undoing.trace.steps.clone();
        let waiting = handed.iter().copied().chain(undoing.rollback.upcoming());
        let pending = waiting.map(|step| StepLook::of::<D>(step, StepState::Pending));
        steps.extend(pending.take(MAX_TRACE));
        RollbackLook {
            id: id.0,
            branch: undoing.branch,
            reach: undoing.trace.reach,
            cause: self.cause(undoing),
            began: undoing.trace.began,
            took: None,
            steps,
        }
    }

    /// An undo action under way is tried again, after so many tries.
    pub fn try_undo_again(&mut self, turn: &Turn<D>, tried: u32) {
        let Some(undoing) = self.rollbacks.get_mut(&turn.rollback) else {
            return;
        };
        let steps = &mut undoing.trace.steps;
        if let Some(step) = steps.iter_mut().find(|it| it.order == turn.step.order) {
            step.attempt = tried + 1;
        }
    }

    /// How the compensations of a rollback follow each other.
    pub const fn rollback_policy(&self) -> Policy {
        self.config.rollback.policy
    }

    /// A rollback is over.
    pub(super) fn remember(&mut self, id: RollbackId, undoing: &mut Undoing<D>, now: Time) {
        // What units that succeed finalize is not worth a line.
        let stuck = undoing.trace.steps.iter().any(StepLook::is_stuck);
        if !undoing.trace.undoes && !stuck {
            return;
        }
        let look = RollbackLook {
            id: id.0,
            branch: undoing.branch,
            reach: undoing.trace.reach,
            cause: self.cause(undoing),
            began: undoing.trace.began,
            took: Some(now.since(undoing.trace.began)),
            steps: std::mem::take(&mut undoing.trace.steps),
        };
        self.traces.remember(id, look);
    }

    fn cause(&self, undoing: &Undoing<D>) -> Cause {
        let of_error = |error: &D::Error| Cause {
            leg: None,
            stage: Some(D::stage(error)),
            code: Some(D::code(error).into()),
        };
        let last = || {
            let code = &self.branches[undoing.branch.index()].last_error;
            code.clone().filter(|_| undoing.trace.undoes)
        };
        match &undoing.then {
            Then::Retry(unit, _) => {
                let last = unit.history.as_ref().and_then(|it| it.errors.last());
                last.map(of_error).unwrap_or_default()
            }
            Then::Fail(failing) => of_error(failing.error()),
            Then::Release(unit) => Cause {
                leg: Some(unit.leg),
                stage: None,
                code: last(),
            },
            Then::Branch | Then::Nothing => Cause {
                code: last(),
                ..Cause::default()
            },
            Then::Run => Cause::default(),
        }
    }
}
