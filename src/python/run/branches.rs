//! Branches as they live: who is told that they open and close, and what becomes of items they do
//! not let in.

use std::collections::HashMap;
use std::time::Duration;

use anabranch_core::branch::{BranchId, News, Own, State};
use anabranch_core::channel::OnFull;
use anabranch_core::engine::{BranchOptions, OnBranchError, Payload, Why};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::super::domain::Failure;
use super::super::errors::BranchRefused;
use super::super::keys::Opened;
use super::super::retry::RetrySpec;
use super::{Hand, Run, locked};

/// How branches live, as `anabranch._branches` describes it; durations in seconds.
#[derive(Debug, FromPyObject)]
pub(super) struct BranchesSpec<'py> {
    opening: Option<Py<PyAny>>,
    closing: Option<Py<PyAny>>,
    max_branches: usize,
    overflow: Option<Py<PyAny>>,
    on_full: String,
    timeout: Option<f64>,
    idle_ttl: Option<f64>,
    on_error: String,
    after: u32,
    backoff: Option<RetrySpec<'py>>,
    stay_open: bool,
    weight: u16,
}

/// Who is asked about branches, and how many there may be.
#[derive(Debug)]
struct Hooks {
    /// Called with the tenant before a branch opens; returns its capacity, its `on_full` and its
    /// weight, each of which may be `None`.
    opening: Option<Py<PyAny>>,
    /// Called with the tenant when a branch has closed; raises nothing but what ends the process.
    closing: Option<Py<PyAny>>,
    /// The most branches open at once.
    max_branches: usize,
    /// The key of the branch that takes what is beyond that; `None`: it is refused.
    overflow: Option<Py<PyAny>>,
}

/// What the driver keeps of the branches.
#[derive(Debug)]
pub(super) struct Branches {
    hooks: Hooks,
    overflow: Option<BranchId>,
    /// The error of what a branch refuses, by branch and reason: one for all of its items.
    errors: HashMap<(BranchId, Why), Failure>,
}

/// A tenant, and whether it was told to the callables that its branch has opened, and not yet that
/// it has closed.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) key: Py<PyAny>,
    told: bool,
}

impl Branches {
    /// From now on a branch refuses what comes with this error.
    pub(super) fn refuse_with(&mut self, branch: BranchId, why: Why, failure: Failure) {
        self.errors.insert((branch, why), failure);
    }

    /// The most branches open at once.
    pub(super) const fn most(&self) -> usize {
        self.hooks.max_branches
    }

    /// Whether one branch takes what is beyond that.
    pub(super) const fn shares(&self) -> bool {
        self.hooks.overflow.is_some()
    }

    /// That branch, once it was needed.
    pub(super) const fn shared(&self) -> Option<BranchId> {
        self.overflow
    }
}

impl BranchesSpec<'_> {
    /// Splits a description into the engine's part and the driver's.
    pub(super) fn build(self) -> PyResult<(BranchOptions, Branches)> {
        let seconds = |it: f64| Duration::try_from_secs_f64(it).unwrap_or(Duration::MAX);
        let backoff = self.backoff.as_ref().map(RetrySpec::policy).transpose()?;
        let on_error = match (self.on_error.as_str(), backoff) {
            ("fail", _) => OnBranchError::Fail { after: self.after },
            ("restart", Some(backoff)) => OnBranchError::Restart(backoff),
            ("stop_pipeline", _) => OnBranchError::Stop,
            _ => OnBranchError::Continue,
        };
        let options = BranchOptions {
            on_full: on_full(&self.on_full).unwrap_or(OnFull::Wait),
            timeout: self.timeout.map(seconds),
            idle_ttl: self.idle_ttl.map(seconds),
            on_error,
            stay_open: self.stay_open,
            weight: self.weight,
        };
        let hooks = Hooks {
            opening: self.opening,
            closing: self.closing,
            max_branches: self.max_branches,
            overflow: self.overflow,
        };
        let branches = Branches {
            hooks,
            overflow: None,
            errors: HashMap::new(),
        };
        Ok((options, branches))
    }
}

fn on_full(name: &str) -> Option<OnFull> {
    match name {
        "wait" => Some(OnFull::Wait),
        "drop_newest" => Some(OnFull::DropNewest),
        "drop_oldest" => Some(OnFull::DropOldest),
        // A dead letter is a failure that finds its way to the target.
        "fail" | "dead_letter" => Some(OnFull::Fail),
        _ => None,
    }
}

impl Run {
    /// Opens the branch of a tenant that was never seen, or the one that is given again.
    ///
    /// # Errors
    /// What the user's callables that are asked or told first raise; that there are too many.
    pub(super) fn open_branch(
        &self,
        branches: &mut Branches,
        key: &Bound<'_, PyAny>,
        again: Option<BranchId>,
    ) -> PyResult<Opened> {
        let full = self.is_full(branches, again);
        // What waits for a branch that comes back cannot go to the one for all others.
        if full && (again.is_none() || branches.hooks.overflow.is_none()) {
            return self.beyond(branches, key);
        }
        let own = self.ask_to_open(branches, key)?;
        let now = self.shared.now();
        let Some(branch) = again else {
            let branch = locked(&self.engine).open_branch(own, now);
            locked(&self.tenants).push(Tenant {
                key: key.clone().unbind(),
                told: true,
            });
            return Ok(Opened::Own(branch));
        };
        branches.errors.retain(|(of, _), _| *of != branch);
        locked(&self.engine).reopen(branch, own, now);
        self.tell_of(branch, true);
        Ok(Opened::Own(branch))
    }

    /// Whether there is no room for one more branch: for that one to come back, if one is given.
    pub(super) fn is_full(&self, branches: &Branches, again: Option<BranchId>) -> bool {
        let engine = locked(&self.engine);
        let counted = again.is_some_and(|branch| !engine.state(branch).0.is_over());
        !counted && engine.open_branches() >= branches.hooks.max_branches
    }

    fn ask_to_open(&self, branches: &Branches, key: &Bound<'_, PyAny>) -> PyResult<Own> {
        let Some(opening) = &branches.hooks.opening else {
            return Ok(Own::default());
        };
        let py = key.py();
        let answer = opening.bind(py).call1((key,)).inspect_err(|error| {
            // There is no branch that the failure could name.
            let note = format!(
                "anabranch: pipeline '{}' has opened no branch for tenant {}",
                self.shared.pipeline,
                super::super::convert::shown(key)
            );
            let noted = error.value(py).call_method1("add_note", (note,));
            self.shared.postpone_all(py, noted.err());
        })?;
        let (capacity, mode, weight): (_, Option<String>, _) = answer.extract()?;
        Ok(Own {
            capacity,
            on_full: mode.as_deref().and_then(on_full),
            weight,
        })
    }

    /// There are as many branches as there may be.
    fn beyond(&self, branches: &mut Branches, key: &Bound<'_, PyAny>) -> PyResult<Opened> {
        let py = key.py();
        let Some(shared) = &branches.hooks.overflow else {
            return Err(self.limit_reached(branches, key, ""));
        };
        if let Some(branch) = branches.overflow {
            return Ok(Opened::Shared(branch, None));
        }
        let shared = shared.clone_ref(py);
        let own = self.ask_to_open(branches, shared.bind(py))?;
        let branch = locked(&self.engine).open_branch(own, self.shared.now());
        locked(&self.tenants).push(Tenant {
            key: shared.clone_ref(py),
            told: true,
        });
        branches.overflow = Some(branch);
        Ok(Opened::Shared(branch, Some(shared)))
    }

    /// There are as many branches as there may be, and none is opened.
    pub(super) fn limit_reached(
        &self,
        branches: &Branches,
        key: &Bound<'_, PyAny>,
        shares: &str,
    ) -> PyErr {
        let most = branches.hooks.max_branches;
        let tenant = super::super::convert::shown(key);
        let message = format!(
            "no branch for tenant {tenant}: there are max_branches={most} already{shares}; raise \
             max_branches, or drain a branch or let idle_ttl close it"
        );
        self.refusal(key.py(), "branch.limit", &message)
    }

    fn refusal(&self, py: Python<'_>, code: &str, message: &str) -> PyErr {
        let message = format!("pipeline '{}': {message}", self.shared.pipeline);
        let arguments = PyDict::new(py);
        let error = arguments.set_item("code", code).and_then(|()| {
            py.get_type::<BranchRefused>()
                .call((message,), Some(&arguments))
        });
        error.map_or_else(|error| error, PyErr::from_value)
    }

    /// Notes whether the callables have been told of a branch; returns whether that is new.
    fn tell_of(&self, branch: BranchId, opened: bool) -> bool {
        let mut tenants = locked(&self.tenants);
        let tenant = (branch.0 as usize).checked_sub(1);
        let tenant = tenant.and_then(|index| tenants.get_mut(index));
        tenant.is_some_and(|tenant| std::mem::replace(&mut tenant.told, opened) != opened)
    }

    /// The tenants whose branches have opened and not closed since, in order.
    pub(super) fn tenants_told(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let tenants = locked(&self.tenants);
        let told = tenants.iter().filter(|tenant| tenant.told);
        told.map(|tenant| tenant.key.clone_ref(py)).collect()
    }

    /// Hears what has happened to branches, and makes failures of what they have not let in.
    /// Returns whether there was anything.
    pub(super) fn tend_branches(&self, py: Python<'_>, hand: &mut Hand) -> bool {
        let mut any = false;
        loop {
            let (news, refused) = {
                let mut engine = locked(&self.engine);
                (engine.take_news(), engine.take_refused())
            };
            if news.is_empty() && refused.is_empty() {
                return any;
            }
            any = true;
            self.note_turns(hand);
            for refused in refused {
                let mut failure = self.error_of(py, hand, refused.branch, refused.why);
                failure.item = given(py, &refused.payload);
                let now = self.shared.now();
                locked(&self.engine).fail_refused(refused, failure, now);
            }
            for (branch, what) in news {
                if let News::Closed { .. } = what {
                    self.closed(py, hand, branch);
                }
                if matches!(what, News::Wanted | News::Closed { wanted: true }) {
                    // Whoever waits for it hears of the error.
                    if let Err(error) = self.open_again(py, hand, branch) {
                        self.shared.postpone(py, error);
                    }
                }
            }
            self.bury();
        }
    }

    /// A generation has ended: its tenant is told, and the next item opens the branch again.
    fn closed(&self, py: Python<'_>, hand: &mut Hand, branch: BranchId) {
        if locked(&self.engine).state(branch).0 == State::Evicted {
            hand.router.sleep(branch);
        }
        let (Some(closing), Some(tenant)) = (&hand.branches.hooks.closing, self.tenant(py, branch))
        else {
            self.tell_of(branch, false);
            return;
        };
        if self.tell_of(branch, false)
            && let Err(error) = closing.call1(py, (tenant,))
        {
            self.shared.postpone(py, error);
        }
    }

    /// Opens a branch that is wanted, if the user's callables let it.
    pub(super) fn open_again(
        &self,
        py: Python<'_>,
        hand: &mut Hand,
        branch: BranchId,
    ) -> PyResult<()> {
        let Some(tenant) = self.tenant(py, branch) else {
            return Ok(());
        };
        let tenant = tenant.bind(py);
        let opened = self.open_branch(&mut hand.branches, tenant, Some(branch));
        match opened {
            Ok(_) => {
                hand.router.wake(branch);
                Ok(())
            }
            Err(error) => {
                let failure = self.shared.failure(
                    py,
                    &error,
                    hand.fan_stage,
                    Some(&tenant.clone().unbind()),
                    None,
                    None,
                );
                hand.branches
                    .errors
                    .insert((branch, Why::Declined), failure);
                let now = self.shared.now();
                locked(&self.engine).decline(branch, now);
                Err(error)
            }
        }
    }

    /// The error of what a branch refuses.
    fn error_of(&self, py: Python<'_>, hand: &mut Hand, branch: BranchId, why: Why) -> Failure {
        if let Some(failure) = hand.branches.errors.get(&(branch, why)) {
            return failure.clone_ref(py);
        }
        let tenant = self.tenant(py, branch);
        let shown = tenant
            .as_ref()
            .map(|tenant| super::super::convert::shown(tenant.bind(py)))
            .unwrap_or_default();
        let (code, what) = match why {
            Why::Failed | Why::Declined => (
                "branch.failed",
                format!("the branch of tenant {shown} has failed; restart() opens it again"),
            ),
            Why::Removed => (
                "branch.removed",
                format!("the branch of tenant {shown} was removed; add_branch() opens it again"),
            ),
            Why::Full => (
                "branch.full",
                format!("the branch of tenant {shown} is full, and its on_full is 'fail'"),
            ),
            Why::Timeout => (
                "branch.timeout",
                format!("the branch of tenant {shown} was full for longer than branch_timeout"),
            ),
        };
        let error = self.refusal(py, code, &what);
        let failure = self
            .shared
            .failure(py, &error, hand.fan_stage, tenant.as_ref(), None, None);
        hand.branches
            .errors
            .insert((branch, why), failure.clone_ref(py));
        failure
    }
}

/// What a handler would have been given; None where the list cannot be made.
fn given(py: Python<'_>, payload: &Payload<Py<PyAny>>) -> Option<Py<PyAny>> {
    match payload {
        Payload::One(value) | Payload::Sealed { value, .. } => Some(value.clone_ref(py)),
        Payload::Many(values) => PyList::new(py, values.iter().map(|value| value.bind(py)))
            .ok()
            .map(|list| list.into_any().unbind()),
    }
}
