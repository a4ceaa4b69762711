//! Scopes of undo actions and finalizers: who holds them, and what becomes of them at the end.
//!
//! A [`Scope`] collects what a unit registered and travels with it from stage to stage. It ends
//! once: well, and its compensations are released; or badly, and they are to be run. Its
//! finalizers are to be run in either case. It runs nothing: a [`Rollback`] hands out one step
//! after the other, and the driver runs them.
//!
//! ```text
//!        fork (one scope, several holders)
//!         |
//! Scope --+-- end(well)  --> Ended { released, finalizers }
//!         |
//!         +-- end(badly) --> Ended { due, finalizers } --> Rollback --next, ran--> over
//! ```
//!
//! # Several outputs of one unit
//! What a unit registered belongs to all that comes of it: [`Scope::fork`] makes another holder.
//! It ends with the last holder, and badly if any holder did. So nothing is undone under an
//! output that is still on its way, and what an output registered itself is undone before what it
//! stands on: along every path the order stays last in, first out. For that, a holder whose own
//! actions are to be run lets go when they have: [`Ended::held`] is the driver's until then.
//! Rejected: to give the scope to the first output (a failure of the second undoes nothing), and to
//! undo at the first failure (the other outputs would go on without what they stand on, and undo
//! after it).
//!
//! Scopes that meet again, in a window, are merged: a holder that is the last one brings the
//! steps with it, and they take their place in the order of registration.

mod rollback;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use rollback::{MAX_PASSES, Policy, Rollback};

/// When a step is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Undoes an effect: run if its scope ends badly.
    Compensation,
    /// Closes or releases something: run when its scope has ended, and after the compensations,
    /// which may still need it.
    Finalizer,
}

/// One undo action or finalizer and its place in the order of registration, which is global to
/// the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<U> {
    /// Later registrations have greater numbers; playback goes from the greatest down.
    pub order: u64,
    /// When it is run.
    pub kind: Kind,
    /// What is to be called.
    pub undo: U,
}

/// What was registered for one unit of work.
#[derive(Debug)]
pub struct Scope<U> {
    steps: Vec<Step<U>>,
    /// Scopes this one holds together with others.
    shared: Vec<Arc<Shared<U>>>,
}

/// A scope with several holders.
#[derive(Debug)]
struct Shared<U> {
    scope: Scope<U>,
    /// Whether a holder has ended badly.
    failed: AtomicBool,
}

/// What is to become of the steps of a scope that has ended; in no order.
#[derive(Debug)]
pub struct Ended<U> {
    /// Compensations that are not needed any more.
    pub released: Vec<Step<U>>,
    /// Compensations to be run.
    pub due: Vec<Step<U>>,
    /// Finalizers to be run after them.
    pub finalizers: Vec<Step<U>>,
    /// What the compensations stand on, if others hold it, too: to be ended when they have run.
    pub held: Held<U>,
}

/// A hold on scopes with several holders, for as long as what was registered upon them is undone.
#[derive(Debug)]
pub struct Held<U>(Vec<Arc<Shared<U>>>);

impl<U> Held<U> {
    /// Whether it holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets go, and ends what it was the last holder of.
    pub fn end(self) -> Ended<U> {
        settle(Vec::new(), self.0)
    }
}

impl<U> Default for Held<U> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<U> From<Held<U>> for Scope<U> {
    /// A scope without steps of its own, upon what is held.
    fn from(held: Held<U>) -> Self {
        Self {
            steps: Vec::new(),
            shared: held.0,
        }
    }
}

impl<U> Default for Ended<U> {
    fn default() -> Self {
        Self {
            released: Vec::new(),
            due: Vec::new(),
            finalizers: Vec::new(),
            held: Held::default(),
        }
    }
}

impl<U> Ended<U> {
    /// Whether there is nothing to run.
    pub const fn is_quiet(&self) -> bool {
        self.due.is_empty() && self.finalizers.is_empty()
    }
}

impl<U> Default for Scope<U> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<U> Scope<U> {
    /// A scope of these steps.
    pub const fn new(steps: Vec<Step<U>>) -> Self {
        Self {
            steps,
            shared: Vec::new(),
        }
    }

    /// Adds one compensation.
    pub fn register(&mut self, order: u64, undo: U) {
        let kind = Kind::Compensation;
        self.push(Step { order, kind, undo });
    }

    /// Adds one step.
    pub fn push(&mut self, step: Step<U>) {
        self.steps.push(step);
    }

    /// The steps it holds alone, in the order they were added.
    pub fn steps(&self) -> &[Step<U>] {
        &self.steps
    }

    /// The steps of a scope that has never had another holder, in the order they were added.
    pub fn into_steps(self) -> Vec<Step<U>> {
        debug_assert!(self.shared.is_empty(), "what others hold, too, is lost");
        self.steps
    }

    /// Whether it holds nothing, alone or together with others.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.shared.is_empty()
    }

    /// Takes in what `other` holds; playback still follows the order of registration.
    pub fn absorb(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.shared.extend(other.shared);
    }

    /// Another holder of what this scope holds now. It ends with the last of its holders, and
    /// badly if one of them does.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        if !self.steps.is_empty() || self.shared.len() > 1 {
            let scope = std::mem::take(self);
            let failed = AtomicBool::new(false);
            self.shared.push(Arc::new(Shared { scope, failed }));
        }
        Self {
            steps: Vec::new(),
            shared: self.shared.clone(),
        }
    }

    /// Takes out what it holds together with others, which will end badly, whoever ends it.
    #[must_use]
    pub fn take_failed(&mut self) -> Self {
        for shared in &self.shared {
            shared.failed.store(true, Ordering::Relaxed);
        }
        Self {
            steps: Vec::new(),
            shared: std::mem::take(&mut self.shared),
        }
    }

    /// Ends the scope, and with it those it was the last holder of.
    pub fn end(self, well: bool) -> Ended<U> {
        settle(vec![(self, well)], Vec::new())
    }
}

/// Ends scopes, each well or badly, and of those that are held together those that nobody else
/// holds.
fn settle<U>(mut ending: Vec<(Scope<U>, bool)>, mut held: Vec<Arc<Shared<U>>>) -> Ended<U> {
    let mut ended = Ended::default();
    loop {
        // A loop: a chain of shared scopes may be as long as the pipeline.
        while let Some((scope, well)) = ending.pop() {
            for step in scope.steps {
                match (step.kind, well) {
                    (Kind::Finalizer, _) => ended.finalizers.push(step),
                    (Kind::Compensation, true) => ended.released.push(step),
                    (Kind::Compensation, false) => ended.due.push(step),
                }
            }
            for shared in scope.shared {
                if !well {
                    // Relaxed: giving up the reference orders it before the last holder's load.
                    shared.failed.store(true, Ordering::Relaxed);
                }
                held.push(shared);
            }
        }
        // Holders that have met again are one.
        held.sort_unstable_by_key(Arc::as_ptr);
        held.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let lets_go = ended.due.is_empty();
        for shared in std::mem::take(&mut held) {
            let last = if lets_go {
                Arc::into_inner(shared)
            } else {
                Arc::try_unwrap(shared)
                    .map_err(|shared| held.push(shared))
                    .ok()
            };
            if let Some(last) = last {
                ending.push((last.scope, !last.failed.into_inner()));
            }
        }
        if ending.is_empty() {
            ended.held = Held(held);
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(orders: impl IntoIterator<Item = u64>) -> Scope<u64> {
        let mut scope = Scope::default();
        for order in orders {
            scope.register(order, order);
        }
        scope
    }

    fn finalizer(order: u64) -> Step<u64> {
        Step {
            order,
            kind: Kind::Finalizer,
            undo: order,
        }
    }

    fn numbers(steps: &[Step<u64>]) -> Vec<u64> {
        let mut numbers: Vec<_> = steps.iter().map(|step| step.order).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn c6_an_empty_scope_undoes_nothing() {
        assert!(Scope::<u8>::default().is_empty());
        assert!(Scope::<u8>::default().end(false).is_quiet());
    }

    #[test]
    fn c11_a_good_end_releases_the_compensations() {
        let ended = scope([1, 2]).end(true);
        assert!(ended.is_quiet());
        assert_eq!(numbers(&ended.released), [1, 2]);
    }

    #[test]
    fn c15_a_finalizer_is_due_however_the_scope_ends() {
        for well in [true, false] {
            let mut scope = scope([1]);
            scope.push(finalizer(2));
            assert_eq!(numbers(&scope.end(well).finalizers), [2]);
        }
    }

    #[test]
    fn c17_a_forked_scope_ends_with_its_last_holder_and_badly_if_one_did() {
        for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut one = scope([1]);
            let mut other = one.fork();
            other.register(2, 2);
            let early = other.end(first);
            let own = if first { &early.released } else { &early.due };
            assert_eq!(numbers(own), [2], "its own steps end at once");
            let late = one.end(second);
            // Once its own steps have run.
            let last = early.held.end();
            let well = first && second;
            let released = [late.released, last.released].concat();
            let due = [late.due, last.due].concat();
            let parts = (numbers(&released), numbers(&due));
            let expected = if well {
                (vec![1], vec![])
            } else {
                (vec![], vec![1])
            };
            assert_eq!(parts, expected, "{first} {second}");
        }
    }

    #[test]
    fn c17_what_an_output_stands_on_waits_until_its_own_actions_have_run() {
        let mut one = scope([1]);
        let mut other = one.fork();
        other.register(2, 2);
        let early = other.end(false);
        assert_eq!(numbers(&early.due), [2]);
        let late = one.end(true);
        assert!(late.is_quiet(), "2 may be running");
        assert!(late.held.is_empty());
        assert_eq!(numbers(&early.held.end().due), [1]);
    }

    #[test]
    fn c17_a_chain_of_outputs_is_undone_from_its_end() {
        let mut root = scope([1]);
        let mut left = root.fork();
        left.register(2, 2);
        let mut leaf = left.fork();
        leaf.register(3, 3);
        let third = leaf.end(false);
        assert!(left.end(true).is_quiet());
        assert!(root.end(true).is_quiet());
        let rest = third.held.end();
        assert_eq!(numbers(&rest.due), [1, 2]);
        assert!(rest.held.is_empty());
    }

    #[test]
    fn c17_what_has_failed_ends_badly_though_its_last_holder_ends_well() {
        let mut one = scope([1]);
        let mut other = one.fork();
        other.register(2, 2);
        let failed = other.take_failed();
        assert_eq!(numbers(&other.end(false).due), [2]);
        assert!(one.end(true).is_quiet());
        assert_eq!(numbers(&failed.end(true).due), [1]);
    }

    #[test]
    fn c17_holders_that_meet_again_end_together() {
        let mut one = scope([1]);
        let other = one.fork();
        one.absorb(other);
        assert_eq!(numbers(&one.end(false).due), [1]);
    }

    #[test]
    fn c17_a_fork_of_a_fork_fails_what_is_above_it_but_not_its_siblings() {
        let mut root = scope([1]);
        let mut left = root.fork();
        left.register(2, 2);
        let mut left_child = left.fork();
        left_child.register(3, 3);
        let mut right = root;
        right.register(4, 4);
        assert_eq!(numbers(&left_child.end(false).due), [3]);
        assert_eq!(numbers(&left.end(true).due), [2], "its child has failed");
        let ended = right.end(true);
        assert_eq!(numbers(&ended.released), [4], "what it did itself is kept");
        assert_eq!(numbers(&ended.due), [1], "what all stand on is not");
    }

    #[test]
    fn a_scope_without_steps_of_its_own_is_not_wrapped_again() {
        let mut scope = scope([1]);
        let forks: Vec<_> = (0..3).map(|_| scope.fork()).collect();
        assert_eq!(Arc::strong_count(&scope.shared[0]), 4);
        assert!(forks.iter().all(|fork| fork.shared.len() == 1));
        assert!(Scope::<u8>::default().fork().is_empty());
    }
}
