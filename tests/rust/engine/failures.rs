//! Failures and the operators behind them: the rows T about failure items, and their sum.

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::Policy;
use anabranch_core::engine::{
    Again, BranchOptions, Config, Failed, Item, LegOptions, Operator, Outcome, RollbackOptions,
    Unit, Work,
};
use proptest::prelude::*;

use crate::driver::{Driver, EPOCH, Error, Event, Lab, PORT, numbers, scope};
use crate::options::{age, leg, ms, retried, size, wide, windowed};

fn operator(operator: Operator) -> LegOptions {
    LegOptions {
        operator: Some(operator),
        ..leg()
    }
}

fn recovers() -> LegOptions {
    operator(Operator::Recover)
}

fn dead_letters() -> LegOptions {
    operator(Operator::DeadLetter)
}

/// Takes the failures on their way: the operator's leg, the branch, the code, and the items.
fn on_their_way(driver: &mut Driver) -> Vec<(usize, Failed<Lab>)> {
    driver.call(|engine, _| engine.take_failures())
}

/// Offers the one failure on its way to its operator, as event `number`.
fn send(driver: &mut Driver, number: u64) -> usize {
    let mut failures = on_their_way(driver);
    assert_eq!(failures.len(), 1, "one failure is on its way");
    let Some((leg, failed)) = failures.pop() else {
        unreachable!()
    };
    let item = Item {
        weight: failed.items,
        ..Item::new(Event::new(number))
    };
    driver.call(|engine, now| engine.offer(leg, failed.branch, item, now));
    leg
}

fn unit(driver: &mut Driver) -> Unit<Lab> {
    let Some(unit) = driver.unit() else {
        panic!("nothing is handed out")
    };
    unit
}

/// The failure goes on: the operator has only looked.
fn pass_on(driver: &mut Driver, unit: Unit<Lab>, code: &'static str) {
    let outcome = Outcome::Failed {
        error: Error::new(code, 0),
        again: Again::No,
    };
    driver.complete(unit, outcome, None);
}

#[test]
fn t3_a_failure_goes_to_the_operators_behind_it_and_to_no_other() {
    let mut driver = Driver::of([recovers(), leg(), recovers(), leg(), dead_letters()]);
    driver.call(|engine, _| engine.received(1));
    driver.offer(1, BranchId::TRUNK, Item::new(Event::new(1)));
    let first = unit(&mut driver);
    assert_eq!(
        first.leg, 1,
        "fresh items come to the first leg that takes them"
    );
    driver.fail(first, []);
    assert_eq!(send(&mut driver, 2), 2);
    let looked_at = unit(&mut driver);
    assert_eq!((looked_at.leg, numbers(&looked_at)), (2, vec![2]));
    pass_on(&mut driver, looked_at, "Oops");
    assert_eq!(send(&mut driver, 3), 4, "past the handler in between");
    driver.end();
    let last = unit(&mut driver);
    driver.done(last, []);
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.dead_lettered, counts.failed), (1, 0));
    assert!(driver.engine().codes().is_empty(), "V4: nobody has failed");
}

#[test]
fn t1_what_is_recovered_goes_on_behind_its_operator() {
    let mut driver = Driver::of([leg(), recovers(), leg()]);
    driver.give([1]);
    driver.end();
    let first = unit(&mut driver);
    driver.fail(first, []);
    send(&mut driver, 2);
    assert!(!driver.finished());
    let failure = unit(&mut driver);
    driver.done(failure, [3]);
    assert_eq!(
        driver.forward(2),
        [],
        "it is not where items of the first leg arrive"
    );
    let arrivals = driver.call(|engine, _| engine.take_arrivals(1));
    assert_eq!(arrivals.len(), 1);
    for (branch, item) in arrivals {
        driver.offer(2, branch, item);
    }
    let sink = unit(&mut driver);
    assert_eq!(numbers(&sink), [3]);
    driver.done(sink, []);
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!(
        (counts.recovered, counts.committed, counts.failed),
        (1, 1, 0)
    );
}

#[test]
fn e8_a_window_that_is_recovered_counts_all_its_items() {
    let mut driver = Driver::of([windowed(size(3)), recovers()]);
    driver.give([1, 2, 3]);
    let window = unit(&mut driver);
    driver.fail(window, []);
    send(&mut driver, 4);
    let failure = unit(&mut driver);
    assert_eq!(failure.weight, 3);
    driver.done(failure, [5]);
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!(
        (counts.recovered, counts.committed, counts.failed),
        (3, 3, 0)
    );
}

#[test]
fn t3_a_unit_is_undone_before_its_failure_goes_on() {
    for commit_at_end in [false, true] {
        let rollback = RollbackOptions {
            commit_at_end,
            ..RollbackOptions::default()
        };
        let mut driver = with([leg(), dead_letters()], 2, rollback);
        driver.give([1]);
        let first = unit(&mut driver);
        driver.fail(first, [10, 11]);
        assert!(on_their_way(&mut driver).is_empty(), "not yet undone");
        assert_eq!(
            driver.engine().counts().left,
            1,
            "E8: it is inside meanwhile"
        );
        assert_eq!(
            driver.undo_all(),
            [11, 10],
            "commit_at_end: {commit_at_end}"
        );
        send(&mut driver, 2);
        let failure = unit(&mut driver);
        driver.done(failure, []);
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.undo_all(), []);
    }
}

fn with(legs: impl Into<Vec<LegOptions>>, fan_leg: usize, rollback: RollbackOptions) -> Driver {
    Driver::new(Config {
        legs: legs.into(),
        fan_leg,
        ports: 1,
        max_in_flight: 256,
        branches: BranchOptions::default(),
        stop_on_error: false,
        seed: 7,
        epoch: EPOCH,
        rollback,
    })
}

#[test]
fn c11_a_run_that_commits_at_its_end_does_so_if_what_failed_was_recovered() {
    for recovered in [true, false] {
        let rollback = RollbackOptions {
            commit_at_end: true,
            ..RollbackOptions::default()
        };
        let mut driver = with([leg(), recovers()], 2, rollback);
        driver.give([1, 2]);
        let good = unit(&mut driver);
        driver.complete(good, Outcome::Done(Vec::new()), Some(scope([10]).into()));
        let bad = unit(&mut driver);
        driver.fail(bad, [11]);
        assert_eq!(driver.undo_all(), [11]);
        send(&mut driver, 3);
        let failure = unit(&mut driver);
        if recovered {
            driver.done(failure, [4]);
        } else {
            pass_on(&mut driver, failure, "Oops");
        }
        driver.end();
        driver.poll();
        let expected: &[u64] = if recovered { &[] } else { &[10] };
        assert_eq!(driver.undo_all(), expected);
        assert!(driver.finished());
    }
}

#[test]
fn t3_a_failure_from_before_the_fan_out_is_the_trunk_s_behind_it_too() {
    let mut driver = Driver::fanned(0, [recovers(), leg(), dead_letters()]);
    let acme = driver.open();
    driver.call(|engine, now| {
        engine.received(2);
        engine.fail_item(0, BranchId::TRUNK, Error::new("KeyError", 0), 1, None, now);
    });
    assert_eq!(send(&mut driver, 1), 0);
    driver.offer(1, acme, Item::new(Event::new(2)));
    let mut units = driver.units();
    assert_eq!(units.len(), 2);
    for unit in units.drain(..) {
        if unit.leg == 0 {
            assert_eq!(unit.branch, BranchId::TRUNK);
            pass_on(&mut driver, unit, "KeyError");
        } else {
            driver.fail(unit, []);
        }
    }
    let mut failures = on_their_way(&mut driver);
    failures.sort_by_key(|(_, failed)| failed.branch);
    let places: Vec<_> = failures.iter().map(|(leg, it)| (*leg, it.branch)).collect();
    assert_eq!(places, [(2, BranchId::TRUNK), (2, acme)]);
    for (_, failed) in failures {
        driver.call(|engine, _| engine.lose(failed));
    }
    driver.end();
    assert!(driver.finished());
    let counts: Vec<_> = driver.engine().branch_counts().collect();
    assert_eq!(
        (counts[0].1.failed, counts[1].1.failed),
        (1, 1),
        "B7: each its own"
    );
}

#[test]
fn t3_a_window_behind_an_operator_closes_after_what_is_recovered_has_come() {
    let mut driver = Driver::of([leg(), recovers(), windowed(age(1000))]);
    driver.give([1, 2]);
    let good = unit(&mut driver);
    driver.done(good, [1]);
    driver.forward(2);
    driver.end();
    let bad = unit(&mut driver);
    driver.fail(bad, [20]);
    driver.poll();
    assert!(
        driver.engine().counts().windows == 0,
        "a failure is on its way"
    );
    assert_eq!(driver.undo_all(), [20]);
    driver.poll();
    assert!(driver.engine().counts().windows == 0);
    send(&mut driver, 2);
    let failure = unit(&mut driver);
    driver.done(failure, [2]);
    for (branch, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
        driver.offer(2, branch, item);
    }
    driver.poll();
    assert_eq!(driver.windows().len(), 1, "both in one");
    assert!(driver.finished());
}

#[test]
fn t6_operators_that_do_not_keep_up_hold_back_what_feeds_them() {
    let narrow = LegOptions {
        capacity: 2,
        isolate: false,
        ..dead_letters()
    };
    let mut driver = Driver::of([leg(), narrow]);
    driver.give(1..=5);
    let mut waiting = 0;
    while let Some(unit) = driver.unit() {
        if unit.leg == 1 {
            continue; // as if its handler took for ever
        }
        driver.fail(unit, []);
        send(&mut driver, 10 + waiting);
        waiting += 1;
    }
    assert_eq!(waiting, 3, "one with its handler, two that wait");
    assert_eq!(driver.engine().room(), 0, "the source stands still");
}

#[test]
fn e8_once_aborted_no_operator_is_asked_and_all_has_failed() {
    let mut driver = Driver::of([leg(), dead_letters()]);
    driver.give(1..=4);
    let with_operator = unit(&mut driver);
    driver.fail(with_operator, []);
    send(&mut driver, 11);
    let waiting = unit(&mut driver);
    let asked = unit(&mut driver);
    assert_eq!((waiting.leg, asked.leg), (0, 1));
    driver.fail(waiting, []);
    send(&mut driver, 12);
    let on_its_way = unit(&mut driver);
    driver.fail(on_its_way, []);
    let being_undone = unit(&mut driver);
    driver.fail(being_undone, [7]);
    driver.abort();
    assert_eq!(driver.engine().counts().failed, 1, "the one on its way");
    let unheard = driver.call(|engine, _| engine.take_unheard());
    assert_eq!(unheard.len(), 1);
    for (branch, item) in unheard {
        let failed = Failed {
            branch,
            error: Error::new("Oops", 0),
            items: item.weight,
            attempts: 1,
            delay: Duration::ZERO,
            history: Vec::new(),
            gave_up: anabranch_core::retry::GaveUp::Cancelled,
        };
        driver.call(|engine, _| engine.lose(failed));
    }
    assert_eq!(driver.undo_all(), [7]);
    assert!(on_their_way(&mut driver).is_empty());
    driver.done(asked, []);
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!(
        (counts.failed, counts.dead_lettered, counts.left),
        (3, 1, 0)
    );
}

#[test]
fn e8_what_a_driver_has_taken_before_an_abort_is_not_asked_about_after_it() {
    let mut driver = Driver::of([leg(), dead_letters()]);
    driver.give([1]);
    let first = unit(&mut driver);
    driver.fail(first, []);
    let failures = on_their_way(&mut driver);
    driver.abort();
    for (leg, failed) in failures {
        let item = Item::new(Event::new(2));
        driver.call(|engine, now| engine.offer(leg, failed.branch, item, now));
    }
    assert!(driver.unit().is_none(), "no operator is asked");
    assert_eq!(driver.engine().counts().left, 1, "E8: it is inside");
    assert_eq!(driver.call(|engine, _| engine.take_unheard()).len(), 1);
}

#[test]
fn c2_an_abort_undoes_a_unit_that_fails_then_in_one_order_with_all_others() {
    let rollback = RollbackOptions {
        commit_at_end: true,
        ..RollbackOptions::default()
    };
    let mut driver = with([wide(2, false), dead_letters()], 2, rollback);
    driver.give([1, 2]);
    let (good, bad) = (unit(&mut driver), unit(&mut driver));
    driver.complete(good, Outcome::Done(Vec::new()), Some(scope([12]).into()));
    driver.abort();
    driver.fail(bad, [11]);
    driver.poll();
    assert_eq!(driver.undo_all(), [12, 11]);
    assert!(driver.finished());
}

#[test]
fn r1_an_operator_may_be_tried_again() {
    let retried = LegOptions {
        operator: Some(Operator::DeadLetter),
        ..retried(2, ms(5))
    };
    let mut driver = Driver::of([leg(), retried]);
    driver.give([1]);
    let first = unit(&mut driver);
    driver.fail(first, []);
    send(&mut driver, 2);
    let failure = unit(&mut driver);
    driver.fail(failure, []);
    assert!(on_their_way(&mut driver).is_empty());
    driver.advance(ms(5));
    let failure = unit(&mut driver);
    assert_eq!(failure.attempt, 2);
    driver.done(failure, []);
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().dead_lettered, 1);
}

/// A row of legs with at least one that takes items, and where branches begin.
fn rows() -> impl Strategy<Value = (Vec<LegOptions>, usize, RollbackOptions)> {
    let item = (
        prop::option::weighted(0.3, 1_usize..4),
        1_u32..3,
        any::<bool>(),
    )
        .prop_map(|(window, concurrency, ordered)| LegOptions {
            window: window.map(size),
            capacity: 3,
            ..wide(concurrency, ordered)
        });
    let failure = prop_oneof![Just(Operator::Recover), Just(Operator::DeadLetter)];
    let failure = (failure, 1_u32..3).prop_map(|(kind, concurrency)| LegOptions {
        operator: Some(kind),
        capacity: 3,
        ..wide(concurrency, true)
    });
    let legs = prop::collection::vec(prop_oneof![2 => item.clone(), 3 => failure], 0..5);
    (
        legs,
        item,
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(mut legs, item, at, fan, commit_at_end)| {
            legs.insert(at.index(legs.len() + 1), item);
            let rollback = RollbackOptions {
                policy: Policy::Sequential,
                deadline: None,
                commit_at_end,
            };
            let fan = fan.index(legs.len() + 1);
            (legs, fan, rollback)
        })
}

/// Drives a row to its end by `choices`; an event's number says which item of the source it is,
/// what it was made of included.
struct Course {
    driver: Driver,
    legs: Vec<LegOptions>,
    fan_leg: usize,
    branches: Vec<BranchId>,
    hand: Vec<Unit<Lab>>,
    registered: u64,
    /// How often each order was undone.
    undone: BTreeMap<u64, u32>,
}

impl Course {
    fn takes_items(&self, from: usize) -> Option<usize> {
        (from..self.legs.len()).find(|leg| self.legs[*leg].operator.is_none())
    }

    fn course(&self, leg: usize, choice: usize) -> BranchId {
        if leg < self.fan_leg {
            BranchId::TRUNK
        } else {
            self.branches[choice % self.branches.len()]
        }
    }

    /// Moves all that is between the legs; `choice` lets an operator pass, or loses a failure.
    fn forward(&mut self, choice: usize) {
        for (leg, failed) in on_their_way(&mut self.driver) {
            let leg = match choice % 4 {
                0 => self.driver.engine().operator_from(leg + 1),
                _ => Some(leg),
            };
            let branch = failed.branch;
            let item = Item {
                weight: failed.items,
                ..Item::new(Event::new(0))
            };
            match leg {
                Some(leg) => self
                    .driver
                    .call(|engine, now| engine.offer(leg, branch, item, now)),
                None => self.driver.call(|engine, _| engine.lose(failed)),
            }
        }
        for (branch, item) in self.driver.call(|engine, _| engine.take_unheard()) {
            let failed = Failed {
                branch,
                error: Error::new("Unheard", 0),
                items: item.weight,
                attempts: 1,
                delay: Duration::ZERO,
                history: Vec::new(),
                gave_up: anabranch_core::retry::GaveUp::Cancelled,
            };
            self.driver.call(|engine, _| engine.lose(failed));
        }
        for from in 0..self.legs.len() {
            for (branch, item) in self.driver.call(|engine, _| engine.take_arrivals(from)) {
                let Some(to) = self.takes_items(from) else {
                    panic!("T3: leg {from} leads nowhere, and something has left it")
                };
                let parts = to >= self.fan_leg && branch == BranchId::TRUNK;
                let branch = if parts {
                    self.course(to, choice)
                } else {
                    branch
                };
                self.driver
                    .call(|engine, now| engine.offer(to, branch, item, now));
            }
        }
    }

    /// Runs the undo actions whose turn has come, and takes a unit if there is one.
    fn take(&mut self) {
        loop {
            match self.driver.call(|engine, now| engine.next(PORT, now)) {
                Some(Work::Undo(turn)) => {
                    *self.undone.entry(turn.step.undo.0).or_default() += 1;
                    self.driver.undone(turn);
                }
                Some(Work::Unit(unit)) => {
                    self.hand.push(unit);
                    return;
                }
                None => return,
            }
        }
    }

    fn end_one(&mut self, choice: usize) {
        let unit = self.hand.swap_remove(choice % self.hand.len());
        self.registered += 1;
        let registered = Some(Box::new(scope([self.registered])));
        let outcome = match choice % 3 {
            0 => Outcome::Failed {
                error: Error::new("Oops", 0),
                again: Again::No,
            },
            1 => Outcome::Done(vec![Event::new(0)]),
            _ if self.legs[unit.leg].operator.is_some() => Outcome::Done(vec![Event::new(0)]),
            _ => Outcome::Done((0..choice as u64 % 4).map(Event::new).collect()),
        };
        self.driver.complete(unit, outcome, registered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            ProptestConfig::default().cases
        } else {
            2000
        },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn e8_whatever_operators_there_are_nothing_is_lost_and_every_run_ends(
        (legs, fan_leg, rollback) in rows(),
        choices in prop::collection::vec(0_usize..24, 1..80),
        finish in 0_usize..4,
        at in 0_usize..80,
    ) {
        let mut course = Course {
            driver: with(legs.clone(), fan_leg, rollback),
            legs,
            fan_leg,
            branches: Vec::new(),
            hand: Vec::new(),
            registered: 0,
            undone: BTreeMap::new(),
        };
        course.branches = (0..2).map(|_| course.driver.open()).collect();
        let Some(entry) = course.takes_items(0) else {
            panic!("there is a leg that takes items")
        };
        let mut ended = false;
        let rest = std::iter::repeat_with(|| 1).take(4000);
        for (step, choice) in choices.into_iter().chain(rest).enumerate() {
            let room = course.driver.engine().room();
            if !ended && room > 0 {
                course.driver.call(|engine, _| engine.received(2));
                let branch = course.course(entry, choice);
                course.driver.offer(entry, branch, Item::new(Event::new(1)));
                if choice % 5 == 0 {
                    // It fails in a stage in front of the leg.
                    let behind = choice % (course.legs.len() + 1);
                    course.driver.call(|engine, now| {
                        let error = Error::new("Early", 0);
                        engine.fail_item(behind, BranchId::TRUNK, error, 1, None, now);
                    });
                } else {
                    course.driver.offer(entry, branch, Item::new(Event::new(2)));
                }
            }
            if step >= at && !ended {
                ended = true;
                match finish {
                    0 | 1 => course.driver.end(),
                    2 => course.driver.abort(),
                    _ => course.driver.discard(),
                }
            }
            course.forward(choice);
            course.driver.poll();
            if choice % 2 == 0 || course.hand.is_empty() {
                course.take();
            }
            if choice % 3 != 0 && !course.hand.is_empty() {
                course.end_one(choice);
            }
            let counts = course.driver.engine().counts();
            prop_assert!(counts.balanced(), "E8: {counts:?}");
            prop_assert_eq!(
                course.driver.engine().codes().values().sum::<u64>(),
                counts.failed,
                "T6: codes are exact"
            );
            if course.hand.is_empty() && course.driver.finished() {
                break;
            }
        }
        prop_assert!(course.driver.finished(), "stuck: {:?}", course.driver.engine());
        let counts = course.driver.engine().counts();
        prop_assert!(counts.balanced() && (counts.left == 0 || finish > 1), "{counts:?}");
        prop_assert!(course.undone.values().all(|times| *times == 1), "C5: once");
    }
}
