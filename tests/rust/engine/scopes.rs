//! Scopes wider than a unit, or held by several outputs: more of the rows C.

use anabranch_core::branch::BranchId;
use anabranch_core::compensation::{Kind, Scope, Step};
use anabranch_core::engine::{
    Again, BranchOptions, Config, Item, Level, Outcome, PATIENCE, RollbackOptions, Work,
};
use anabranch_core::window::{Partial, WindowOptions};

use crate::driver::{Driver, EPOCH, Error, Event, PORT, Undo, scope};
use crate::options::{leg, ms, retried, size, windowed};

pub(crate) fn with(rollback: RollbackOptions, stop_on_error: bool) -> Driver {
    Driver::new(Config {
        legs: vec![leg()],
        fan_leg: 0,
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

fn register(driver: &mut Driver, level: Level, order: u64) {
    let step = step(Kind::Compensation, order);
    driver.call(|engine, _| engine.register(level, step));
}

/// A unit of a branch, in hand.
pub(crate) fn in_hand(
    driver: &mut Driver,
    branch: BranchId,
) -> anabranch_core::engine::Unit<crate::driver::Lab> {
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
fn c2_when_the_run_stops_unit_branch_and_pipeline_are_undone_in_one_order() {
    let mut driver = with(RollbackOptions::default(), true);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    register(&mut driver, Level::Pipeline, 1);
    register(&mut driver, Level::Branch(branch), 3);
    register(&mut driver, Level::Pipeline, 5);
    driver.fail(unit, [2, 4, 6]);
    assert_eq!(driver.undo_all(), [], "the run has not stopped yet");
    driver.abort();
    assert!(!driver.finished());
    assert_eq!(driver.undo_all(), [6, 5, 4, 3, 2, 1]);
    assert!(driver.finished());
}

#[test]
fn c19_wide_actions_stay_when_a_unit_fails_and_are_released_at_a_good_end() {
    let mut driver = plain();
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    register(&mut driver, Level::Branch(branch), 1);
    register(&mut driver, Level::Pipeline, 2);
    driver.fail(unit, [3]);
    assert_eq!(driver.undo_all(), [3]);
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.undo_all(), []);
    assert_eq!(driver.graveyard().undos.len(), 2);
}

#[test]
fn c19_wide_actions_run_when_the_source_has_failed() {
    let mut driver = plain();
    register(&mut driver, Level::Pipeline, 1);
    driver.call(|engine, _| engine.fail());
    driver.drain();
    assert!(!driver.finished());
    assert_eq!(driver.undo_all(), [1]);
    assert!(driver.finished());
}

#[test]
fn c19_a_branch_that_fails_is_undone_by_itself() {
    let mut driver = plain();
    let (one, other) = (driver.open(), driver.open());
    register(&mut driver, Level::Branch(one), 1);
    register(&mut driver, Level::Branch(other), 2);
    register(&mut driver, Level::Branch(one), 3);
    driver.call(|engine, now| engine.undo_branch(one, now));
    assert_eq!(driver.undo_all(), [3, 1]);
    driver.call(|engine, now| engine.commit_branch(other, now));
    driver.abort();
    assert!(driver.finished());
    assert_eq!(driver.undo_all(), []);
}

#[test]
fn c2_the_rollback_of_an_aborted_run_waits_for_units_in_hand_but_not_for_ever() {
    let mut driver = plain();
    let branch = driver.open();
    let (one, other) = {
        let other = driver.open();
        (in_hand(&mut driver, branch), in_hand(&mut driver, other))
    };
    register(&mut driver, Level::Pipeline, 2);
    driver.abort();
    driver.poll();
    driver.fail(one, [1, 3]);
    driver.poll();
    assert_eq!(driver.undo_all(), [], "another unit may register yet");
    assert_eq!(driver.engine().deadline(), Some(driver.now.after(PATIENCE)));
    driver.advance(PATIENCE);
    assert_eq!(driver.undo_all(), [3, 2, 1]);
    driver.fail(other, [4]);
    assert_eq!(driver.undo_all(), [4]);
    assert!(driver.finished());
}

fn at_end() -> Driver {
    let commit_at_end = true;
    let options = RollbackOptions {
        commit_at_end,
        ..RollbackOptions::default()
    };
    with(options, false)
}

#[test]
fn c11_commit_at_the_end_undoes_all_if_a_partial_window_is_dropped() {
    for (drops, expected) in [(true, vec![2, 1]), (false, vec![])] {
        let mut driver = Driver::new(Config {
            legs: vec![windowed(WindowOptions {
                on_cancel: drops.then_some(Partial::Drop),
                ..size(2)
            })],
            fan_leg: 1,
            ports: 1,
            max_in_flight: 256,
            stop_on_error: false,
            seed: 7,
            epoch: EPOCH,
            rollback: RollbackOptions {
                commit_at_end: true,
                ..RollbackOptions::default()
            },
            branches: BranchOptions::default(),
        });
        driver.give([1, 2]);
        let Some(unit) = driver.unit() else {
            panic!("a full window leaves")
        };
        driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([1, 2]).into()));
        driver.give([3]);
        driver.drain();
        if let Some(unit) = driver.unit() {
            driver.done(unit, []);
        }
        driver.poll();
        assert_eq!(driver.undo_all(), expected);
        assert!(driver.finished());
    }
}

#[test]
fn c11_commit_at_the_end_undoes_an_item_that_is_given_up_and_all_others_with_it() {
    let mut driver = at_end();
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([1]).into()));
    let item = Item {
        scope: Some(scope([2]).into()),
        ..Item::new(Event::new(9))
    };
    driver.call(|engine, now| {
        engine.received(1);
        engine.leave(branch, item, now);
    });
    driver.end();
    driver.poll();
    assert_eq!(driver.undo_all(), [2, 1]);
    assert!(driver.finished());
}

#[test]
fn c11_commit_at_the_end_keeps_all_and_undoes_all_if_an_item_failed() {
    let mut driver = at_end();
    let branch = driver.open();
    for order in [1, 2, 3] {
        let unit = in_hand(&mut driver, branch);
        if order == 2 {
            driver.fail(unit, [order]);
        } else {
            driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([order]).into()));
        }
        assert_eq!(driver.undo_all(), []);
        assert_eq!(driver.graveyard().undos.len(), 0);
    }
    driver.end();
    assert!(!driver.finished());
    assert_eq!(driver.undo_all(), [3, 2, 1]);
    assert!(driver.finished());
}

#[test]
fn c11_commit_at_the_end_releases_all_if_nothing_failed() {
    let mut driver = at_end();
    let branch = driver.open();
    for order in [1, 2] {
        let unit = in_hand(&mut driver, branch);
        driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([order]).into()));
    }
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.undo_all(), []);
    assert_eq!(driver.graveyard().undos.len(), 2);
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
fn c5_actions_that_register_wide_ones_for_ever_are_stopped() {
    let mut driver = plain();
    register(&mut driver, Level::Pipeline, 0);
    driver.abort();
    let mut ran = 0;
    loop {
        driver.poll();
        let Some(Work::Undo(turn)) = driver.call(|engine, now| engine.next(PORT, now)) else {
            break;
        };
        ran += 1;
        register(&mut driver, Level::Pipeline, ran);
        driver.undone(turn);
    }
    assert_eq!(ran, 16);
    assert!(driver.finished());
    assert_eq!(driver.engine().undone_counts().failed, 1);
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
