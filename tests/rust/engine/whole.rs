//! What is undone with a branch, or with the run as a whole: more of the rows C.

use anabranch_core::branch::Command;
use anabranch_core::channel::OnFull;
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{
    Again, BranchOptions, Config, Item, LegOptions, Level, Operator, Outcome, RollbackOptions, Unit,
};
use anabranch_core::window::{Partial, WindowOptions};

use crate::driver::{Driver, EPOCH, Error, Event, Lab, scope};
use crate::options::{leg, ms, narrow, retried, size, wide, windowed};
use crate::scopes::{in_hand, plain, step, with};

pub(crate) fn register(driver: &mut Driver, level: Level, order: u64) {
    let step = step(Kind::Compensation, order);
    driver.call(|engine, _| engine.register(level, step));
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
    assert!(
        !driver.engine().falls_short(),
        "it was not to commit as one"
    );
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
    assert!(
        !driver.engine().falls_short(),
        "each unit commits by itself"
    );
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
fn c19_once_a_branch_with_wide_actions_has_ended_units_are_undone_by_themselves_again() {
    for command in [Command::Drain, Command::Fail] {
        let mut driver = plain();
        let (over, other) = (driver.open(), driver.open());
        register(&mut driver, Level::Branch(over), 1);
        assert_eq!(driver.obey(over, command), Ok(()));
        driver.poll();
        driver.undo_all();
        let unit = in_hand(&mut driver, other);
        driver.abort();
        driver.fail(unit, [2]);
        assert_eq!(driver.undo_all(), [2], "nothing is left to be one with");
        assert!(driver.finished());
    }
}

#[test]
fn c2_an_attempt_that_fails_in_an_aborted_run_is_undone_with_the_whole() {
    let mut driver = Driver::of([retried(3, ms(0))]);
    let unit = driver.give_and_take();
    register(&mut driver, Level::Pipeline, 2);
    driver.abort();
    driver.fail(unit, [1, 3]);
    assert_eq!(driver.undo_all(), [], "none follows it");
    driver.poll();
    assert_eq!(driver.undo_all(), [3, 2, 1]);
    assert!(driver.finished());
    assert_eq!(driver.engine().failures()[0].attempts, 1);
}

#[test]
fn c2_the_rollback_of_an_aborted_run_waits_for_units_in_hand() {
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
    assert_eq!(driver.engine().deadline(), None);
    driver.advance(ms(3_600_000));
    assert_eq!(driver.undo_all(), []);
    driver.fail(other, [4]);
    driver.poll();
    assert_eq!(driver.undo_all(), [4, 3, 2, 1]);
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
fn c11_commit_at_the_end_undoes_all_if_an_item_is_left_or_dropped_or_a_branch_has_failed() {
    for way in 0..4 {
        let mut driver = at_end();
        let branch = driver.open();
        let unit = in_hand(&mut driver, branch);
        driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([1]).into()));
        match way {
            0 => driver.call(|engine, _| {
                engine.received(1);
                engine.left_behind(1);
            }),
            1 => {
                let unit = in_hand(&mut driver, branch);
                driver.complete(unit, Outcome::Interrupted, None);
            }
            2 => assert_eq!(driver.obey(branch, Command::Fail), Ok(())),
            _ => {}
        }
        driver.end();
        driver.poll();
        let expected: &[u64] = if way < 3 { &[1] } else { &[] };
        assert_eq!(driver.undo_all(), expected, "way {way}");
        assert!(driver.finished());
        assert_eq!(driver.engine().falls_short(), way < 3, "way {way}");
    }
    let dropping = BranchOptions {
        on_full: OnFull::DropNewest,
        ..BranchOptions::default()
    };
    let mut driver = Driver::new(Config {
        legs: vec![narrow(1, false)],
        fan_leg: 0,
        ports: 1,
        max_in_flight: 256,
        stop_on_error: false,
        seed: 7,
        epoch: EPOCH,
        rollback: RollbackOptions {
            commit_at_end: true,
            ..RollbackOptions::default()
        },
        branches: dropping,
    });
    let branch = driver.open();
    driver.give_to(branch, [1, 2]);
    let Some(unit) = driver.unit() else {
        panic!("the first item is let in")
    };
    driver.complete(unit, Outcome::Done(Vec::new()), Some(scope([1]).into()));
    driver.end();
    driver.poll();
    assert_eq!(driver.engine().counts().dropped, 1);
    assert_eq!(driver.undo_all(), [1]);
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

/// A run that stops at the first failure, with something registered for it as a whole, and units
/// of the second leg in hand: `outputs` of a first unit, which registered action 1.
fn stopping(outputs: u64) -> (Driver, Vec<Unit<Lab>>) {
    let operator = LegOptions {
        operator: Some(Operator::PassOn),
        ..leg()
    };
    let mut driver = Driver::new(Config {
        legs: vec![leg(), wide(8, false), operator],
        fan_leg: 3,
        ports: 1,
        max_in_flight: 256,
        stop_on_error: true,
        seed: 7,
        epoch: EPOCH,
        rollback: RollbackOptions::default(),
        branches: BranchOptions::default(),
    });
    register(&mut driver, Level::Pipeline, 0);
    let first = driver.give_and_take();
    let made = Outcome::Done((0..outputs).map(Event::new).collect());
    driver.complete(first, made, Some(scope([1]).into()));
    driver.forward(1);
    let units = driver.units();
    assert_eq!(units.len() as u64, outputs);
    (driver, units)
}

/// The failure on its way to the operator is nobody's to take: it ends.
fn lose_failures(driver: &mut Driver) {
    for (_, failed) in driver.call(|engine, _| engine.take_failures()) {
        driver.call(|engine, now| engine.lose(failed, now));
    }
}

#[test]
fn c2_once_the_run_stops_what_an_operator_will_hear_of_is_undone_with_the_whole_too() {
    let (mut driver, mut units) = stopping(3);
    driver.fail(units.pop().expect("the third"), [2]);
    assert_eq!(
        driver.undo_all(),
        [2],
        "the run goes on until somebody has heard of it"
    );
    lose_failures(&mut driver);
    assert!(driver.engine().stopping());
    driver.fail(units.pop().expect("the second"), [3]);
    assert_eq!(
        driver.undo_all(),
        [],
        "it is part of what ends with the run"
    );
    lose_failures(&mut driver);
    driver.done(units.pop().expect("the first"), []);
    driver.abort();
    assert!(!driver.finished());
    assert_eq!(driver.undo_all(), [3, 1, 0]);
    assert!(driver.finished());
}

#[test]
fn c2_once_the_run_stops_what_its_outputs_held_together_is_undone_with_the_whole() {
    let (mut driver, mut units) = stopping(2);
    driver.fail(units.pop().expect("the second"), []);
    lose_failures(&mut driver);
    driver.done(units.pop().expect("the first"), []);
    assert_eq!(
        driver.undo_all(),
        [],
        "the last output ends well, what they stood on does not, and the run ends"
    );
    driver.abort();
    assert!(!driver.finished());
    assert_eq!(
        driver.undo_all(),
        [1, 0],
        "one rollback, last in, first out"
    );
    assert!(driver.finished());
}

#[test]
fn c10_an_attempt_that_fails_while_the_run_stops_is_undone_by_itself() {
    let mut driver = Driver::new(Config {
        legs: vec![LegOptions {
            concurrency: 2,
            ..retried(2, ms(0))
        }],
        fan_leg: 1,
        ports: 1,
        max_in_flight: 256,
        stop_on_error: true,
        seed: 7,
        epoch: EPOCH,
        rollback: RollbackOptions::default(),
        branches: BranchOptions::default(),
    });
    register(&mut driver, Level::Pipeline, 0);
    driver.give([1, 2]);
    let mut units = driver.units();
    let (again, error) = (Again::No, Error::new("Oops", 1));
    let unit = units.pop().expect("the second");
    driver.complete(unit, Outcome::Failed { error, again }, None);
    assert!(driver.engine().stopping());
    driver.fail(units.pop().expect("the first"), [1]);
    assert_eq!(driver.undo_all(), [1], "another may follow it yet");
    driver.abort();
    assert!(!driver.finished());
    assert_eq!(driver.undo_all(), [0]);
    assert!(driver.finished());
}
