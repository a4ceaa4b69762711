//! Scopes of undo actions, and their playback in strict reverse order.
//!
//! A [`Scope`] collects what a unit registered. When the unit fails, the scope becomes a
//! [`Rollback`], which hands out one action at a time, the newest first, and takes in what the
//! actions themselves register meanwhile. It runs nothing: the driver does.
//!
//! ```text
//! Scope --commit--> released       Scope --into_rollback--> Rollback --next/register--> done
//! ```

/// Passes over actions registered during playback before a rollback gives up.
///
/// An action that registers another one each time it runs would otherwise never end.
pub const MAX_PASSES: u8 = 16;

/// One undo action and its place in the order of registration, which is global to the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<U> {
    /// Later registrations have greater numbers; playback goes from the greatest down.
    pub order: u64,
    /// What undoes the effect.
    pub undo: U,
}

/// The undo actions registered for one unit of work.
#[derive(Debug, PartialEq, Eq)]
pub struct Scope<U> {
    steps: Vec<Step<U>>,
}

impl<U> Default for Scope<U> {
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<U> Scope<U> {
    /// A scope of these steps.
    pub const fn new(steps: Vec<Step<U>>) -> Self {
        Self { steps }
    }

    /// Adds one action.
    pub fn register(&mut self, order: u64, undo: U) {
        self.steps.push(Step { order, undo });
    }

    /// How many actions are pending.
    pub const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether no action is pending.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes in the actions of `other`; playback still follows the order of registration.
    pub fn absorb(&mut self, other: Self) {
        self.steps.extend(other.steps);
    }

    /// The actions, released: nothing will be undone.
    pub fn commit(self) -> Vec<Step<U>> {
        self.steps
    }

    /// Starts undoing.
    pub fn into_rollback(mut self) -> Rollback<U> {
        self.steps.sort_by_key(|step| step.order);
        Rollback {
            pending: self.steps,
            registered: Vec::new(),
            passes: 1,
        }
    }
}

/// The playback of one scope.
#[derive(Debug)]
pub struct Rollback<U> {
    /// Ascending by order; taken from the end.
    pending: Vec<Step<U>>,
    /// What actions registered while they ran: the next pass.
    registered: Vec<Step<U>>,
    passes: u8,
}

impl<U> Rollback<U> {
    /// The next action to run, or `None` when all have been handed out or the passes are used up.
    #[expect(
        clippy::should_implement_trait,
        reason = "actions may be registered between two calls"
    )]
    pub fn next(&mut self) -> Option<U> {
        if self.pending.is_empty() && !self.registered.is_empty() && self.passes < MAX_PASSES {
            self.passes += 1;
            self.pending = std::mem::take(&mut self.registered);
            self.pending.sort_by_key(|step| step.order);
        }
        self.pending.pop().map(|step| step.undo)
    }

    /// Takes in what a running action registered: it runs in the next pass.
    pub fn register(&mut self, scope: Scope<U>) {
        self.registered.extend(scope.steps);
    }

    /// The actions that will not run because [`MAX_PASSES`] was reached.
    pub fn abandoned(&mut self) -> Vec<U> {
        self.registered.drain(..).map(|step| step.undo).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn play<U>(mut rollback: Rollback<U>) -> Vec<U> {
        std::iter::from_fn(|| rollback.next()).collect()
    }

    #[test]
    fn c1_actions_run_in_reverse_order_of_registration() {
        let mut scope = Scope::default();
        for (order, undo) in [(1, "a"), (2, "b"), (3, "c")] {
            scope.register(order, undo);
        }
        assert_eq!(play(scope.into_rollback()), ["c", "b", "a"]);
    }

    #[test]
    fn c5_an_action_registered_during_playback_runs_in_the_next_pass_and_once() {
        let mut scope = Scope::default();
        scope.register(1, "a");
        scope.register(2, "b");
        let mut rollback = scope.into_rollback();
        assert_eq!(rollback.next(), Some("b"));
        rollback.register(Scope::new(vec![Step {
            order: 3,
            undo: "undo of b",
        }]));
        assert_eq!(play(rollback), ["a", "undo of b"]);
    }

    #[test]
    fn c5_playback_gives_up_after_sixteen_passes_and_names_what_is_left() {
        let mut scope = Scope::default();
        scope.register(0, 0);
        let mut rollback = scope.into_rollback();
        let mut ran = 0;
        while let Some(n) = rollback.next() {
            ran += 1;
            rollback.register(Scope::new(vec![Step {
                order: n + 1,
                undo: n + 1,
            }]));
        }
        assert_eq!(ran, u64::from(MAX_PASSES));
        assert_eq!(rollback.abandoned(), [16]);
    }

    #[test]
    fn c6_an_empty_scope_undoes_nothing() {
        let scope = Scope::<u8>::default();
        assert!(scope.is_empty());
        assert_eq!(play(scope.into_rollback()), []);
    }

    #[test]
    fn c11_commit_releases_the_actions() {
        let mut scope = Scope::default();
        scope.register(1, "a");
        assert_eq!(
            scope.commit(),
            [Step {
                order: 1,
                undo: "a"
            }]
        );
    }

    proptest! {
        #[test]
        fn c1_absorbed_scopes_keep_the_global_order(owners in proptest::collection::vec(0_usize..4, 0..40)) {
            let mut scopes: Vec<Scope<usize>> = (0..4).map(|_| Scope::default()).collect();
            for (order, owner) in owners.iter().enumerate() {
                scopes[*owner].register(order as u64, order);
            }
            let mut whole = Scope::default();
            for scope in scopes {
                whole.absorb(scope);
            }
            let expected: Vec<usize> = (0..owners.len()).rev().collect();
            prop_assert_eq!(play(whole.into_rollback()), expected);
        }
    }
}
