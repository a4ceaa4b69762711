//! The playback of scopes that have ended: which step comes next.

use super::{Ended, Held, Kind, Scope, Step};

/// Passes over what is registered during playback before a rollback gives up.
///
/// An action that registers another one each time it runs would otherwise never end.
pub const MAX_PASSES: u8 = 16;

/// How the compensations of a rollback follow each other. Finalizers always run one after the
/// other, the last registered first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// One at a time, the last registered first.
    #[default]
    Sequential,
    /// All of a pass at once.
    Parallel,
    /// None is run.
    Skip,
    /// The driver arranges the first pass, see [`Rollback::arranged`]; one at a time.
    Custom,
}

/// A playback under way.
#[derive(Debug)]
pub struct Rollback<U> {
    policy: Policy,
    /// Taken from the end.
    pending: Vec<Step<U>>,
    /// What actions registered while they ran: the next pass.
    registered: Vec<Step<U>>,
    /// Run when no compensation is left; taken from the end.
    finalizers: Vec<Step<U>>,
    /// What will not run: skipped by the policy, or beyond the last pass.
    abandoned: Vec<Step<U>>,
    passes: u8,
    /// Steps handed out that have not come back.
    out: usize,
    /// What the steps stand on, together with others.
    held: Held<U>,
}

impl<U> Rollback<U> {
    /// Starts the playback of what is due.
    pub fn new(mut due: Vec<Step<U>>, mut finalizers: Vec<Step<U>>, policy: Policy) -> Self {
        due.sort_by_key(|step| step.order);
        finalizers.sort_by_key(|step| step.order);
        let mut rollback = Self {
            policy,
            pending: due,
            registered: Vec::new(),
            finalizers,
            abandoned: Vec::new(),
            passes: 1,
            out: 0,
            held: Held::default(),
        };
        if policy == Policy::Skip {
            rollback.abandoned.append(&mut rollback.pending);
        }
        rollback
    }

    /// The playback of a scope that has ended; what it released is not in it.
    pub fn of(ended: Ended<U>, policy: Policy) -> Self {
        Self {
            held: ended.held,
            ..Self::new(ended.due, ended.finalizers, policy)
        }
    }

    /// What its steps stood on: once it is over, or given up, that may be undone, too.
    pub fn let_go(&mut self) -> Held<U> {
        std::mem::take(&mut self.held)
    }

    /// The first pass, for the driver to arrange, the last registered first.
    pub fn unarranged(&mut self) -> Vec<Step<U>> {
        std::mem::take(&mut self.pending)
            .into_iter()
            .rev()
            .collect()
    }

    /// Takes back what of the first pass the driver wants run, in this order.
    pub fn arranged(&mut self, steps: Vec<Step<U>>) {
        self.pending.extend(steps.into_iter().rev());
    }

    /// The next step to run; `None` while it must wait for those that run, or when it is over.
    #[expect(
        clippy::should_implement_trait,
        reason = "steps are given back between two calls"
    )]
    pub fn next(&mut self) -> Option<Step<U>> {
        if self.out > 0 && (self.policy != Policy::Parallel || self.pending.is_empty()) {
            return None;
        }
        if self.pending.is_empty() && !self.registered.is_empty() {
            self.begin_pass();
        }
        let next = self.pending.pop().or_else(|| self.finalizers.pop())?;
        self.out += 1;
        Some(next)
    }

    fn begin_pass(&mut self) {
        let registered = std::mem::take(&mut self.registered);
        if self.passes >= MAX_PASSES {
            self.abandoned.extend(registered);
            return;
        }
        self.passes += 1;
        for step in registered {
            let list = match step.kind {
                Kind::Finalizer => &mut self.finalizers,
                Kind::Compensation if self.policy == Policy::Skip => &mut self.abandoned,
                Kind::Compensation => &mut self.pending,
            };
            list.push(step);
        }
        self.pending.sort_by_key(|step| step.order);
    }

    /// A step has run; what it registered runs in the next pass, finalizers at its end.
    pub fn ran(&mut self, registered: Option<Scope<U>>) {
        self.out = self.out.saturating_sub(1);
        // A new scope: it ends badly, for what it undoes does.
        let Some(ended) = registered.map(|scope| scope.end(false)) else {
            return;
        };
        self.registered.extend(ended.due);
        self.registered.extend(ended.finalizers);
    }

    /// Nothing more is handed out: all that has not run is abandoned.
    pub fn give_up(&mut self) {
        self.abandoned.append(&mut self.finalizers);
        self.abandoned.append(&mut self.registered);
        self.abandoned.append(&mut self.pending);
    }

    /// Whether every step has run or is abandoned.
    pub const fn is_over(&self) -> bool {
        self.out == 0
            && self.pending.is_empty()
            && self.registered.is_empty()
            && self.finalizers.is_empty()
    }

    /// The steps that will not run, so far; the last to be run first.
    pub fn abandoned(&mut self) -> Vec<Step<U>> {
        std::mem::take(&mut self.abandoned)
            .into_iter()
            .rev()
            .collect()
    }

    /// The steps that are still to be handed out, as far as it is known the next one first.
    pub fn upcoming(&self) -> impl Iterator<Item = &Step<U>> {
        let pending = self.pending.iter().rev();
        pending
            .chain(self.registered.iter().rev())
            .chain(self.finalizers.iter().rev())
    }

    /// How many steps have not run yet, those that run now included.
    pub const fn left(&self) -> usize {
        self.out + self.pending()
    }

    /// How many steps are still to be handed out.
    pub const fn pending(&self) -> usize {
        self.pending.len() + self.registered.len() + self.finalizers.len()
    }
}

impl<U> Step<U> {
    /// Whether it is run after all compensations, however its scope ended.
    pub fn is_finalizer(&self) -> bool {
        self.kind == Kind::Finalizer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step<U>(order: u64, undo: U) -> Step<U> {
        let kind = Kind::Compensation;
        Step { order, kind, undo }
    }

    fn finalizer<U>(order: u64, undo: U) -> Step<U> {
        let kind = Kind::Finalizer;
        Step { order, kind, undo }
    }

    fn of<U>(steps: Vec<Step<U>>) -> Rollback<U> {
        Rollback::of(Scope::new(steps).end(false), Policy::Sequential)
    }

    fn play<U>(mut rollback: Rollback<U>) -> Vec<U> {
        let ran = std::iter::from_fn(|| {
            let step = rollback.next()?;
            rollback.ran(None);
            Some(step.undo)
        })
        .collect();
        assert!(rollback.is_over());
        ran
    }

    #[test]
    fn c1_actions_run_in_reverse_order_of_registration() {
        let steps = vec![step(1, "a"), step(2, "b"), step(3, "c")];
        assert_eq!(play(of(steps)), ["c", "b", "a"]);
    }

    #[test]
    fn c13_the_next_action_waits_for_the_one_before_it() {
        let mut rollback = of(vec![step(1, "a"), step(2, "b")]);
        assert_eq!(rollback.next().map(|step| step.undo), Some("b"));
        assert_eq!(rollback.next(), None);
        assert!(!rollback.is_over());
        rollback.ran(None);
        assert_eq!(rollback.next().map(|step| step.undo), Some("a"));
    }

    #[test]
    fn c4_in_parallel_all_of_a_pass_are_handed_out_and_the_next_pass_waits() {
        let due = vec![step(1, "a"), step(2, "b")];
        let mut rollback = Rollback::new(due, vec![finalizer(0, "close")], Policy::Parallel);
        let mut out = || rollback.next().map(|step| step.undo);
        assert_eq!([out(), out(), out()], [Some("b"), Some("a"), None]);
        rollback.ran(Some(Scope::new(vec![step(3, "undo of b")])));
        assert_eq!(rollback.next(), None, "a still runs");
        rollback.ran(None);
        assert_eq!(play(rollback), ["undo of b", "close"]);
    }

    #[test]
    fn c13_to_skip_runs_finalizers_only() {
        let due = vec![step(1, "a"), step(2, "b")];
        let mut rollback = Rollback::new(due, vec![finalizer(0, "close")], Policy::Skip);
        assert_eq!(rollback.abandoned().len(), 2);
        assert_eq!(play(rollback), ["close"]);
    }

    #[test]
    fn c14_the_driver_arranges_the_first_pass() {
        let due = vec![step(1, "a"), step(2, "b"), step(3, "c")];
        let mut rollback = Rollback::new(due, Vec::new(), Policy::Custom);
        let mut steps = rollback.unarranged();
        assert_eq!(
            steps.iter().map(|it| it.undo).collect::<Vec<_>>(),
            ["c", "b", "a"]
        );
        steps.remove(1);
        steps.reverse();
        rollback.arranged(steps);
        assert_eq!(play(rollback), ["a", "c"]);
    }

    #[test]
    fn c15_finalizers_run_last_even_after_further_passes() {
        let mut rollback = of(vec![
            step(1, "a"),
            finalizer(2, "close"),
            finalizer(3, "release"),
        ]);
        assert_eq!(rollback.next().map(|step| step.undo), Some("a"));
        rollback.ran(Some(Scope::new(vec![step(4, "undo of a")])));
        assert_eq!(play(rollback), ["undo of a", "release", "close"]);
    }

    #[test]
    fn c5_an_action_registered_during_playback_runs_in_the_next_pass_and_once() {
        let mut rollback = of(vec![step(1, "a"), step(2, "b")]);
        assert_eq!(rollback.next().map(|step| step.undo), Some("b"));
        rollback.ran(Some(Scope::new(vec![step(3, "undo of b")])));
        assert_eq!(play(rollback), ["a", "undo of b"]);
    }

    #[test]
    fn c5_playback_gives_up_after_sixteen_passes_and_names_what_is_left() {
        let mut rollback = of(vec![step(0, 0), finalizer(1, 100)]);
        let mut ran = Vec::new();
        while let Some(step) = rollback.next() {
            let n = step.undo;
            ran.push(n);
            let more = (n < 100).then(|| {
                Scope::new(vec![super::super::Step {
                    undo: n + 1,
                    ..step
                }])
            });
            rollback.ran(more);
        }
        let passes = (0..u64::from(MAX_PASSES)).chain([100]);
        assert_eq!(
            ran,
            passes.collect::<Vec<_>>(),
            "the finalizer runs all the same"
        );
        assert_eq!(rollback.abandoned()[0].undo, 16);
        assert!(rollback.is_over());
    }

    #[test]
    fn c5_finalizers_that_register_further_ones_for_ever_are_stopped_too() {
        for policy in [Policy::Sequential, Policy::Parallel, Policy::Skip] {
            let mut rollback =
                Rollback::new(Vec::new(), vec![finalizer(0, 0), finalizer(1, 100)], policy);
            let mut ran = Vec::new();
            while let Some(step) = rollback.next() {
                ran.push(step.undo);
                // Each is closed before what was there before it.
                rollback.ran(Some(Scope::new(vec![finalizer(step.undo, step.undo + 1)])));
                assert!(ran.len() < 100, "it has no end");
            }
            let expected: Vec<_> = (100..115).chain([115, 0]).collect();
            assert_eq!(ran, expected, "{policy:?}");
            let left: Vec<_> = rollback.abandoned().iter().map(|it| it.undo).collect();
            assert_eq!(left, [1, 116]);
            assert!(rollback.is_over());
        }
    }

    #[test]
    fn c13_what_a_finalizer_registers_is_skipped_by_the_policy_but_for_finalizers() {
        let mut rollback = Rollback::new(Vec::new(), vec![finalizer(0, "close")], Policy::Skip);
        assert_eq!(rollback.next().map(|step| step.undo), Some("close"));
        let more = vec![step(1, "undo"), finalizer(2, "release")];
        rollback.ran(Some(Scope::new(more)));
        assert_eq!(rollback.next().map(|step| step.undo), Some("release"));
        assert_eq!(rollback.abandoned()[0].undo, "undo");
    }

    #[test]
    fn c8_a_playback_that_gives_up_waits_only_for_what_runs() {
        let mut rollback = of(vec![step(1, "a"), step(2, "b"), finalizer(3, "close")]);
        assert_eq!(rollback.next().map(|step| step.undo), Some("b"));
        rollback.give_up();
        assert_eq!(rollback.next(), None);
        assert!(!rollback.is_over());
        rollback.ran(Some(Scope::new(vec![step(4, "too late")])));
        rollback.give_up();
        assert!(rollback.is_over());
        let left: Vec<_> = rollback.abandoned().into_iter().map(|it| it.undo).collect();
        assert_eq!(left, ["too late", "a", "close"]);
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
            prop_assert_eq!(play(Rollback::of(whole.end(false), Policy::Sequential)), expected);
        }
    }
}
