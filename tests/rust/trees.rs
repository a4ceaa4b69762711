//! Random trees of scopes and failure points against a reference model: the row C21.
//!
//! 100 000 trees, or as many as `TRIALS` says (`make trials`), from a random seed, which a failure
//! prints, or from `SEED`.

use std::hash::{BuildHasher, Hasher, RandomState};

use anabranch_core::compensation::{Kind, Policy, Rollback, Scope, Step};
use anabranch_core::retry::Random;

/// What happens to a tree of scopes; each scope has a number.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// An action is registered, which registers `spawns` others when it runs.
    Register(usize, Kind, u64),
    /// A unit has another output: a new scope holds what this one does.
    Fork(usize),
    /// The second folds into the first: outputs meet in a window, a child ends in its parent.
    Absorb(usize, usize),
    /// A unit succeeds or fails.
    End(usize, bool),
}

/// An action, as the reference knows it.
#[derive(Debug)]
struct Known {
    order: u64,
    kind: Kind,
    spawns: u64,
    holders: Vec<usize>,
    failed: bool,
}

/// The reference: an action runs when its last holder has ended, if one has failed.
#[derive(Debug, Default)]
struct Model {
    known: Vec<Known>,
    scopes: usize,
    orders: u64,
}

impl Model {
    fn apply(&mut self, event: Event) -> Vec<u64> {
        let held = |scope| move |it: &&mut Known| it.holders.contains(&scope);
        match event {
            Event::Register(scope, kind, spawns) => {
                self.orders += 1;
                let (order, holders, failed) = (self.orders, vec![scope], false);
                self.known.push(Known {
                    order,
                    kind,
                    spawns,
                    holders,
                    failed,
                });
            }
            Event::Fork(scope) => {
                self.scopes += 1;
                self.known
                    .iter_mut()
                    .filter(held(scope))
                    .for_each(|it| it.holders.push(self.scopes));
            }
            Event::Absorb(scope, other) => {
                let all = self.known.iter_mut().flat_map(|it| it.holders.iter_mut());
                all.filter(|holder| **holder == other)
                    .for_each(|holder| *holder = scope);
            }
            Event::End(scope, well) => {
                for it in self.known.iter_mut().filter(held(scope)) {
                    it.holders.retain(|holder| *holder != scope);
                    it.failed |= !well;
                }
            }
        }
        let (over, left): (Vec<_>, _) = self.known.drain(..).partition(|it| it.holders.is_empty());
        self.known = left;
        self.play(&over)
    }

    fn play(&mut self, over: &[Known]) -> Vec<u64> {
        let due = over
            .iter()
            .filter(|it| it.failed && it.kind == Kind::Compensation);
        let mut pass: Vec<_> = due.map(|it| (it.order, it.spawns)).collect();
        let mut ran = Vec::new();
        while !pass.is_empty() {
            let mut next = Vec::new();
            while let Some((order, spawns)) = pass.pop() {
                ran.push(order);
                next.extend((1..=spawns).map(|n| (self.orders + n, spawns - 1)));
                self.orders += spawns;
            }
            pass = next;
        }
        let last = over.iter().rev().filter(|it| it.kind == Kind::Finalizer);
        ran.extend(last.map(|it| it.order));
        ran
    }
}

/// The same with the core's scopes.
#[derive(Debug)]
struct Real {
    scopes: Vec<Option<Scope<u64>>>,
    orders: u64,
}

impl Real {
    fn step(&mut self, kind: Kind, spawns: u64) -> Step<u64> {
        self.orders += 1;
        let (order, undo) = (self.orders, spawns);
        Step { order, kind, undo }
    }

    fn apply(&mut self, event: Event) -> Vec<u64> {
        match event {
            Event::Register(scope, kind, spawns) => {
                let step = self.step(kind, spawns);
                self.open(scope).push(step);
            }
            Event::Fork(scope) => {
                let fork = self.open(scope).fork();
                self.scopes.push(Some(fork));
            }
            Event::Absorb(scope, other) => {
                let other = self.take(other);
                self.open(scope).absorb(other);
            }
            Event::End(scope, well) => {
                let ended = self.take(scope).end(well);
                return self.play(Rollback::of(ended, Policy::Sequential));
            }
        }
        Vec::new()
    }

    fn open(&mut self, scope: usize) -> &mut Scope<u64> {
        self.scopes[scope].get_or_insert_default()
    }

    fn take(&mut self, scope: usize) -> Scope<u64> {
        self.scopes[scope].take().unwrap_or_default()
    }

    fn play(&mut self, mut rollback: Rollback<u64>) -> Vec<u64> {
        let mut ran = Vec::new();
        while let Some(step) = rollback.next() {
            ran.push(step.order);
            let spawns = if step.is_finalizer() { 0 } else { step.undo };
            let new = (0..spawns).map(|_| self.step(Kind::Compensation, spawns - 1));
            let new: Vec<_> = new.collect();
            rollback.ran(Some(Scope::new(new)));
        }
        assert!(rollback.is_over());
        ran
    }
}

struct Chance(Random);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.0.next_u64() % most as u64).unwrap_or_default()
    }

    /// The next event for these scopes, two of which may be the same.
    fn event(&mut self, open: &[usize]) -> Event {
        let scope = open[self.below(open.len())];
        let other = open[self.below(open.len())];
        match self.below(12) {
            0..=4 => Event::Register(scope, Kind::Compensation, [0, 0, 0, 1, 2][self.below(5)]),
            5 => Event::Register(scope, Kind::Finalizer, 0),
            6..=8 => Event::Fork(scope),
            9 if scope != other => Event::Absorb(scope, other),
            _ => Event::End(scope, self.below(2) == 0),
        }
    }
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the seed is for whoever runs it at length"
)]
fn c21_any_tree_of_scopes_and_any_failure_point_undo_what_the_reference_does() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let trials = number("TRIALS").unwrap_or(100_000);
    let seed = number("SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("C21: {trials} trees, SEED={seed}");
    let mut ran = 0;
    for trial in 0..trials {
        let mut chance = Chance(Random::new(seed.wrapping_add(trial)));
        let (mut model, mut open) = (Model::default(), vec![0]);
        let scopes = vec![Some(Scope::default())];
        let mut real = Real { scopes, orders: 0 };
        let mut events = Vec::new();
        // The failure point: whatever is open then fails with the root, or by itself.
        let (length, together) = (chance.below(40), chance.below(2) == 0);
        while let Some(&first) = open.first() {
            let event = match (events.len() < length, together, open.get(1)) {
                (true, ..) => chance.event(&open),
                (false, true, Some(&other)) => Event::Absorb(first, other),
                (false, ..) => Event::End(first, false),
            };
            events.push(event);
            match event {
                Event::Fork(_) => open.push(real.scopes.len()),
                Event::Absorb(_, gone) | Event::End(gone, _) => open.retain(|it| *it != gone),
                Event::Register(..) => {}
            }
            let (did, should) = (real.apply(event), model.apply(event));
            let place = format!("SEED={}, TRIALS=1: {events:?}", seed.wrapping_add(trial));
            assert_eq!(did, should, "{place}");
            ran += did.len();
        }
        assert!(model.known.is_empty());
    }
    assert!(
        ran as u64 > trials,
        "the trees have grown too small to tell anything"
    );
}
