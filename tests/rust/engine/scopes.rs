//! Scopes wider than a unit, or held by several outputs: more of the rows C.

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::{Kind, Scope, Step};
use anabranch_core::engine::{
    Again, BranchOptions, Config, Engine, Item, LegOptions, Outcome, RollbackOptions, Unit,
};

use crate::driver::{Driver, EPOCH, Error, Event, Lab, PORT, Undo, scope};
use crate::options::{leg, ms, retried, size, windowed};

pub(crate) fn with(rollback: RollbackOptions, stop_on_error: bool) -> Driver {
    with_legs([leg()], 0, rollback, stop_on_error)
}

pub(crate) fn with_legs(
    legs: impl Into<Vec<LegOptions>>,
    fan_leg: usize,
    rollback: RollbackOptions,
    stop_on_error: bool,
) -> Driver {
    Driver::new(Config {
        legs: legs.into(),
        fan_leg,
        ports: 1,
        max_in_flight: 256,
        stop_on_error,
        seed: 7,
        epoch: EPOCH,
        rollback,
        branches: BranchOptions::default(),
    })
}

pub(crate) fn plain() -> Driver {
    with(RollbackOptions::default(), false)
}

pub(crate) fn step(kind: Kind, order: u64) -> Step<Undo> {
    let undo = Undo::new(order, PORT);
    Step { order, kind, undo }
}

/// A unit of a branch, in hand.
pub(crate) fn in_hand(driver: &mut Driver, branch: BranchId) -> Unit<Lab> {
    driver.give_to(branch, [1]);
    let Some(unit) = driver.unit() else {
        panic!("the item given is not handed out")
    };
    unit
}

#[test]
fn c17_a_failure_of_any_output_undoes_the_unit_once_all_have_ended() {
    for failing in 0..3 {
        let mut driver = Driver::of([leg(), leg()]);
        let unit = driver.give_and_take();
        let outputs = Outcome::Done((1..=3).map(Event::new).collect());
        driver.complete(unit, outputs, Some(scope([10, 11]).into()));
        driver.forward(1);
        for output in 0..3 {
            let unit = driver.unit().expect("an output");
            let own = 20 + output;
            if output == failing {
                driver.fail(unit, [own]);
            } else {
                let own = Some(scope([own]).into());
                driver.complete(unit, Outcome::Done(Vec::new()), own);
            }
            let mut expected = if output == failing { vec![own] } else { vec![] };
            if output == 2 {
                expected.extend([11, 10]);
            }
            assert_eq!(
                driver.undo_all(),
                expected,
                "output {output} of 3, {failing} fails"
            );
        }
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.engine().counts().failed, 1);
        assert_eq!(driver.engine().counts().committed, 2);
    }
}

/// Two outputs of a unit that has registered 10, both in hand.
fn two_outputs() -> (Driver, [Unit<Lab>; 2]) {
    let at_once = LegOptions {
        concurrency: 2,
        ..leg()
    };
    let mut driver = Driver::of([leg(), at_once]);
    let unit = driver.give_and_take();
    let outputs = Outcome::Done((1..=2).map(Event::new).collect());
    driver.complete(unit, outputs, Some(scope([10]).into()));
    driver.forward(1);
    let (Some(first), Some(second)) = (driver.unit(), driver.unit()) else {
        panic!("both are handed out")
    };
    (driver, [first, second])
}

#[test]
fn c17_what_an_output_stands_on_is_undone_after_what_it_did_itself_has_been() {
    for both_fail in [false, true] {
        let (mut driver, [first, second]) = two_outputs();
        driver.fail(first, [20]);
        let slow = driver.turn();
        assert_eq!(slow.step.order, 20);
        if both_fail {
            driver.fail(second, [30]);
        } else {
            driver.done(second, []);
        }
        let meanwhile = if both_fail { vec![30] } else { vec![] };
        assert_eq!(driver.undo_all(), meanwhile, "20 runs, and stands on 10");
        driver.end();
        assert!(!driver.finished());
        driver.undone(slow);
        assert_eq!(driver.undo_all(), [10]);
        assert!(driver.finished());
    }
}

#[test]
fn c15_c17_what_is_held_up_by_an_action_that_never_ends_is_listed_when_the_run_is_left() {
    let (mut driver, [first, second]) = two_outputs();
    driver.fail(first, [20]);
    let hangs = driver.turn();
    driver.done(second, []);
    driver.abort();
    driver.call(Engine::abandon);
    let stuck = |driver: &Driver| -> Vec<_> {
        let stuck = driver.engine().stuck().iter();
        stuck.map(|it| it.step.order).collect()
    };
    assert_eq!(stuck(&driver), [10]);
    driver.undone(hangs);
    assert_eq!(driver.undo_all(), []);
    assert_eq!(stuck(&driver), [10], "once");
    assert!(driver.finished());
}

#[test]
fn c17_outputs_that_all_end_well_commit_the_unit() {
    let mut driver = Driver::of([leg(), leg()]);
    let unit = driver.give_and_take();
    let outputs = Outcome::Done((1..=2).map(Event::new).collect());
    driver.complete(unit, outputs, Some(scope([10]).into()));
    driver.forward(1);
    for left in [1, 0] {
        let unit = driver.unit().expect("an output");
        driver.done(unit, []);
        assert_eq!(
            driver.graveyard().undos.len(),
            1 - left,
            "released with the last"
        );
    }
    assert_eq!(driver.undo_all(), []);
}

#[test]
fn c17_outputs_in_two_windows_share_and_merge_in_the_order_of_registration() {
    let mut driver = Driver::of([leg(), windowed(size(2))]);
    for (orders, outputs) in [([1, 4], 3), ([2, 3], 1)] {
        let unit = driver.give_and_take();
        let outputs = Outcome::Done((0..outputs).map(Event::new).collect());
        driver.complete(unit, outputs, Some(scope(orders).into()));
    }
    driver.forward(1);
    let first = driver.unit().expect("two outputs of the first");
    driver.done(first, []);
    assert_eq!(driver.undo_all(), []);
    let second = driver.unit().expect("the third, and that of the second");
    driver.fail(second, [5]);
    assert_eq!(driver.undo_all(), [5, 4, 3, 2, 1]);
}

#[test]
fn c15_finalizers_run_however_the_unit_ends_and_its_lane_waits_for_them() {
    for fails in [false, true] {
        let mut driver = plain();
        let branch = driver.open();
        driver.give_to(branch, [1, 2]);
        let unit = driver.unit().expect("the first");
        let mut scope = scope([1]);
        scope.push(step(Kind::Finalizer, 2));
        scope.push(step(Kind::Finalizer, 3));
        let outcome = if fails {
            Outcome::Failed {
                error: Error::new("Oops", 1),
                again: Again::No,
            }
        } else {
            Outcome::Done(Vec::new())
        };
        driver.complete(unit, outcome, Some(scope.into()));
        let expected = if fails { vec![1, 3, 2] } else { vec![3, 2] };
        assert_eq!(driver.undo_all(), expected);
        assert!(driver.unit().is_some(), "then the next unit");
        let counts = driver.engine().undone_counts();
        assert_eq!((counts.done, counts.finalized), (u64::from(fails), 2));
        assert_eq!(driver.engine().undone().len(), usize::from(fails));
    }
}

#[test]
fn c15_finalizers_of_an_attempt_run_before_the_next_one() {
    let mut driver = Driver::of([retried(2, ms(0))]);
    let unit = driver.give_and_take();
    let mut scope = scope([1]);
    scope.push(step(Kind::Finalizer, 2));
    let error = Error::new("Oops", 1);
    let outcome = Outcome::Failed {
        error,
        again: Again::Yes,
    };
    driver.complete(unit, outcome, Some(scope.into()));
    assert_eq!(driver.undo_all(), [1, 2]);
    driver.poll();
    assert_eq!(driver.unit().expect("the next attempt").attempt, 2);
}

#[test]
fn c20_no_unit_has_a_scope_where_nothing_was_registered() {
    let mut driver = Driver::of([leg(), windowed(size(10)), leg()]);
    let mut units = 0;
    for _ in 0..1000 {
        driver.give([1]);
        while let Some(unit) = driver.unit() {
            units += 1;
            assert!(unit.scope.is_none());
            let outputs = if unit.leg == 0 { vec![1, 2] } else { vec![3] };
            driver.done(unit, outputs);
            driver.forward(1);
            driver.forward(2);
        }
    }
    assert_eq!(units, 1000 + 200 + 200);
    assert!(
        size_of::<Item<crate::driver::Lab>>() <= 64,
        "a scope is one pointer"
    );
    assert_eq!(size_of::<Option<Box<Scope<Undo>>>>(), size_of::<usize>());
}
