//! Failures and the operators behind them: the rows T about failure items.

use anabranch_core::branch::{BranchId, Command, News, State};
use anabranch_core::channel::OnFull;
use anabranch_core::engine::{
    Again, BranchOptions, Failed, Item, LegOptions, OnBranchError, Operator, Outcome,
    RollbackOptions, Spot, Unit, Why,
};
use anabranch_core::retry::{Backoff, GaveUp, Retry};

use crate::driver::{Driver, Error, Event, Lab, numbers, scope};
use crate::options::{age, leg, ms, narrow, retried, size, wide, windowed};
use crate::scopes::with_legs;

/// On the way to the first leg.
const AT_THE_ENTRY: Spot = Spot {
    ahead_of: 0,
    behind: 0,
};

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
    let item = Item::of_failure(Event::new(number), &failed);
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
    with_legs(legs, fan_leg, rollback, false)
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
        engine.fail_item(
            AT_THE_ENTRY,
            BranchId::TRUNK,
            Error::new("KeyError", 0),
            1,
            None,
            now,
        );
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
        driver.call(|engine, now| engine.lose(failed, now));
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
        let failed = Failed::new(
            branch,
            Error::new("Oops", 0),
            item.weight,
            GaveUp::Cancelled,
        );
        driver.call(|engine, now| engine.lose(failed, now));
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

#[test]
fn c11_what_outputs_stand_on_is_undone_though_the_failed_one_is_dead_lettered_and_the_run_good() {
    for good in [true, false] {
        let rollback = RollbackOptions {
            commit_at_end: true,
            ..RollbackOptions::default()
        };
        let mut driver = with([leg(), leg(), dead_letters()], 3, rollback);
        let both = driver.give_and_take();
        let outputs = Outcome::Done(vec![Event::new(2), Event::new(3)]);
        driver.complete(both, outputs, Some(scope([10]).into()));
        driver.forward(1);
        let bad = unit(&mut driver);
        driver.fail(bad, [11]);
        assert_eq!(driver.undo_all(), [11]);
        send(&mut driver, 4);
        let other = unit(&mut driver);
        driver.complete(other, Outcome::Done(Vec::new()), Some(scope([12]).into()));
        assert_eq!(
            driver.undo_all(),
            [],
            "12 stands on 10, and may be undone yet"
        );
        let letter = unit(&mut driver);
        driver.done(letter, []);
        if !good {
            driver.call(|engine, _| engine.fail());
        }
        driver.end();
        driver.poll();
        let expected = if good { vec![10] } else { vec![12, 10] };
        assert_eq!(driver.undo_all(), expected, "a good run commits 12");
        assert!(driver.finished());
    }
}

/// One branch, whose failures come to an operator in front of its only handler.
fn with_operator_in_front(kind: Operator, branches: BranchOptions) -> (Driver, BranchId) {
    let mut driver = Driver::living(branches, 0, [operator(kind), narrow(1, false)]);
    let branch = driver.open();
    (driver, branch)
}

#[test]
fn b4_what_waits_for_the_next_generation_does_not_hold_back_the_operators_of_this_one() {
    let branches = BranchOptions {
        on_full: OnFull::Fail,
        ..BranchOptions::default()
    };
    let (mut driver, branch) = with_operator_in_front(Operator::Recover, branches);
    let entry = |driver: &mut Driver, number| {
        driver.call(|engine, _| engine.received(1));
        driver.offer(1, branch, Item::new(Event::new(number)));
    };
    entry(&mut driver, 1);
    assert_eq!(driver.obey(branch, Command::Drain), Ok(()));
    entry(&mut driver, 2);
    entry(&mut driver, 3);
    assert_eq!(driver.refused(), [(branch, Why::Full, vec![3])]);
    send(&mut driver, 4);
    let mut units = driver.units();
    units.sort_by_key(|unit| unit.leg);
    let legs: Vec<_> = units.iter().map(|unit| unit.leg).collect();
    assert_eq!(legs, [0, 1], "the operator's is among them");
    for unit in units {
        if unit.leg == 0 {
            pass_on(&mut driver, unit, "Full");
        } else {
            driver.done(unit, []);
        }
    }
    driver.poll();
    assert_eq!(driver.engine().state(branch).0, State::Evicted);
}

#[test]
fn e8_a_branch_that_may_not_restart_keeps_failures_that_wait_for_their_operator() {
    for in_hand in [false, true] {
        let branches = BranchOptions {
            on_error: OnBranchError::Restart(Retry::new(2, Backoff::Fixed(ms(0)))),
            ..BranchOptions::default()
        };
        // One that only looks: what may be recovered does not count before it is.
        let (mut driver, branch) = with_operator_in_front(Operator::PassOn, branches);
        driver.call(|engine, now| {
            engine.received(1);
            engine.fail_item(AT_THE_ENTRY, branch, Error::new("Early", 0), 1, None, now);
        });
        send(&mut driver, 2);
        driver.poll();
        driver.poll();
        assert_eq!(driver.engine().state(branch).0, State::Restarting);
        let taken = in_hand.then(|| unit(&mut driver));
        driver.call(|engine, now| engine.decline(branch, now));
        driver.poll();
        let failure = taken.unwrap_or_else(|| unit(&mut driver));
        pass_on(&mut driver, failure, "Early");
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.engine().counts().failed, 1);
    }
}

#[test]
fn t3_what_is_recovered_for_an_evicted_branch_goes_on_behind_its_operator() {
    let mut driver = Driver::fanned(0, [leg(), recovers(), leg()]);
    let branch = driver.open();
    assert_eq!(driver.obey(branch, Command::Drain), Ok(()));
    driver.poll();
    driver.news();
    assert_eq!(driver.engine().state(branch).0, State::Evicted);
    driver.call(|engine, now| {
        engine.received(1);
        engine.fail_item(
            AT_THE_ENTRY,
            BranchId::TRUNK,
            Error::new("Early", 0),
            1,
            None,
            now,
        );
    });
    send(&mut driver, 1);
    let failure = unit(&mut driver);
    driver.done(failure, [2]);
    for (_, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
        driver.call(|engine, now| engine.offer_recovered(1, 2, branch, item, now));
    }
    assert_eq!(driver.news(), [(branch, News::Wanted)]);
    let sink = unit(&mut driver);
    assert_eq!(sink.leg, 2, "not in front of the first handler once more");
    driver.done(sink, []);
    driver.end();
    assert!(driver.finished());
}
