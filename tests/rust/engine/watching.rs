//! What those who watch are told of a run, and what an operator does about stuck undo actions: the
//! rows V.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{
    Cause, LegOptions, Reach, RollbackLook, StepState, UndoneCounts, UnitLook,
};
use anabranch_core::throttle::Rate;
use anabranch_core::window::Reason;

use crate::driver::{Driver, Error};
use crate::options::{leg, ms, retried, size, windowed};

/// The steps of a rollback: their numbers, and what becomes of them.
fn steps(look: &RollbackLook) -> Vec<(u64, StepState)> {
    look.steps.iter().map(|it| (it.order, it.state)).collect()
}

fn only(driver: &Driver) -> RollbackLook {
    let mut looks = driver.engine().rollbacks(8);
    assert_eq!(looks.len(), 1, "{looks:?}");
    looks.remove(0)
}

/// A pipeline whose one unit has failed, and whose first undo action has, too.
fn stuck() -> Driver {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1, 2]);
    let turn = driver.turn();
    let error = Some(Error::new("OSError", 0));
    driver.call(|engine, now| engine.complete_undo(turn, error, None, now));
    assert_eq!(driver.undo_all(), [1]);
    driver
}

#[test]
fn v1_a_rollback_is_seen_in_the_order_it_runs_from_its_beginning_to_its_end() {
    use StepState::{Done, Pending, Running};
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.pass(ms(5));
    driver.fail(unit, [1, 2, 3]);
    assert_eq!(
        steps(&only(&driver)),
        [(3, Pending), (2, Pending), (1, Pending)]
    );
    let turn = driver.turn();
    driver.pass(ms(7));
    let look = only(&driver);
    assert_eq!(steps(&look), [(3, Running), (2, Pending), (1, Pending)]);
    assert_eq!(
        (look.branch, look.reach, look.took),
        (BranchId::TRUNK, Reach::Unit, None)
    );
    assert_eq!(look.steps[0].began, Some(look.began));
    driver.undone(turn);
    assert_eq!(driver.undo_all(), [2, 1]);
    let look = only(&driver);
    assert_eq!(steps(&look), [(3, Done), (2, Done), (1, Done)]);
    assert_eq!((look.took, look.steps[0].took), (Some(ms(7)), Some(ms(7))));
    assert_eq!(look.cause.code.as_deref(), Some("Oops"));
    assert_eq!(driver.engine().look(BranchId::TRUNK, driver.now).undone, 3);
}

#[test]
fn v1_why_an_attempt_is_undone_is_told_while_it_is() {
    let mut driver = Driver::of([retried(3, ms(10))]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1]);
    let expected = Cause {
        leg: None,
        stage: Some(0),
        code: Some("Oops".into()),
    };
    assert_eq!(only(&driver).cause, expected);
}

#[test]
fn v1_of_rollbacks_that_are_over_only_some_are_remembered() {
    let mut driver = Driver::of([leg()]);
    for _ in 0..100 {
        let unit = driver.give_and_take();
        driver.fail(unit, [1]);
        driver.undo_all();
    }
    assert_eq!(driver.engine().rollbacks(1000).len(), 32);
    assert_eq!(driver.engine().rollbacks(8).len(), 8);
    let unit = driver.give_and_take();
    driver.fail(unit, 1..40);
    driver.undo_all();
    let actions = |most| {
        driver
            .engine()
            .rollbacks(most)
            .iter()
            .map(|it| it.steps.len())
            .sum::<usize>()
    };
    assert_eq!(
        actions(2),
        39,
        "the last one is told of, however long it is, and no other"
    );
    assert_eq!(actions(5), 40);
}

#[test]
fn v1_what_is_stuck_is_tried_again_when_an_operator_says_so() {
    use StepState::{Done, Failed};
    let mut driver = stuck();
    let look = only(&driver);
    assert_eq!(steps(&look), [(2, Failed), (1, Done)]);
    assert_eq!(look.steps[0].code.as_deref(), Some("OSError"));
    let none = driver.call(|engine, now| engine.retry_stuck(|it| it.step.order == 1, now));
    assert_eq!(none, 0, "that one is done");
    let again =
        driver.call(|engine, now| engine.retry_stuck(|it| it.rollback.get() == look.id, now));
    assert_eq!(again, 1);
    driver.end();
    assert!(!driver.finished(), "the run waits for it");
    assert_eq!(driver.undo_all(), [2]);
    assert!(driver.finished());
    let engine = driver.engine();
    assert!(engine.stuck().is_empty());
    let counts = engine.undone_counts();
    assert_eq!(
        counts,
        UndoneCounts {
            done: 2,
            ..UndoneCounts::default()
        }
    );
    let looks: Vec<_> = engine.rollbacks(8).iter().map(steps).collect();
    assert_eq!(looks, [vec![(2, Done)], vec![(1, Done)]]);
}

#[test]
fn v1_what_fails_again_is_stuck_again() {
    let mut driver = stuck();
    driver.call(|engine, now| engine.retry_stuck(|_| true, now));
    let turn = driver.turn();
    let error = Some(Error::new("OSError", 0));
    driver.call(|engine, now| engine.complete_undo(turn, error, None, now));
    let engine = driver.engine();
    assert_eq!(
        (engine.stuck().len(), engine.undone_counts().failed),
        (1, 1)
    );
    assert_eq!(engine.rollbacks(8)[0].steps[0].state, StepState::Failed);
}

#[test]
fn v1_what_is_stuck_is_left_out_when_an_operator_says_so() {
    let mut driver = stuck();
    assert_eq!(driver.call(|engine, _| engine.skip_stuck(|_| true)), 1);
    assert_eq!(driver.call(|engine, _| engine.skip_stuck(|_| true)), 0);
    let engine = driver.engine();
    let counts = engine.undone_counts();
    assert_eq!((counts.done, counts.failed, counts.skipped), (1, 0, 1));
    let expected = [(2, StepState::Skipped), (1, StepState::Done)];
    assert_eq!(steps(&only(&driver)), expected);
}

#[test]
fn v5_attempts_of_a_branch_are_measured_only_while_somebody_looks_at_it() {
    let mut driver = Driver::fanned(0, [leg()]);
    let (one, other) = (driver.open(), driver.open());
    let handle = |driver: &mut Driver, branch| {
        driver.give_to(branch, [1]);
        let unit = driver.unit().expect("it was given one");
        driver.pass(ms(3));
        driver.done(unit, []);
    };
    handle(&mut driver, one);
    assert_eq!(driver.engine().durations_of(one), None);
    driver.call(|engine, _| engine.measure(vec![one, one, BranchId(99)]));
    handle(&mut driver, one);
    handle(&mut driver, other);
    let counted = |driver: &Driver, branch| {
        let durations = driver.engine().durations_of(branch);
        durations.map(|it| it.iter().sum::<u64>())
    };
    assert_eq!(
        (counted(&driver, one), counted(&driver, other)),
        (Some(1), None)
    );
    // 3 ms: at least 2048, and less than 4096 microseconds.
    assert_eq!(driver.engine().durations_of(one).map(|it| it[12]), Some(1));
    driver.call(|engine, _| engine.measure(vec![other]));
    assert_eq!(
        (counted(&driver, one), counted(&driver, other)),
        (None, Some(0))
    );
    let leg = driver.engine().look_at_leg(0).gauge;
    assert_eq!(leg.durations()[12], 3, "those of the stage are always");
}

#[test]
fn v1_why_the_last_window_left_is_told() {
    let mut driver = Driver::of([windowed(size(2))]);
    let left = |driver: &Driver| driver.engine().look(BranchId::TRUNK, driver.now).left;
    driver.give([1]);
    assert_eq!(left(&driver), None);
    driver.give([2, 3]);
    assert_eq!(left(&driver), Some(Reason::Size));
    driver.end();
    driver.unit();
    driver.poll();
    assert_eq!(left(&driver), Some(Reason::Close));
}

#[test]
fn v1_the_units_under_way_are_seen_and_how_fast_a_leg_may_be() {
    let rate = Rate::new(ms(250), 10);
    let options = LegOptions {
        throttle: Some(rate),
        timeout: Some(ms(100)),
        concurrency: 2,
        ..retried(5, ms(40))
    };
    let mut driver = Driver::of([options]);
    let units = |driver: &Driver| driver.engine().look_at_units(BranchId::TRUNK, 8);
    assert_eq!(units(&driver), []);
    driver.pass(ms(3));
    let unit = driver.give_and_take();
    let with_handler = UnitLook {
        leg: 0,
        items: None,
        attempt: 1,
        of: Some(5),
        since: Some(driver.now),
        again: None,
    };
    assert_eq!(units(&driver), [with_handler]);
    driver.pass(ms(4));
    driver.fail(unit, []);
    let waits = UnitLook {
        items: Some(1),
        attempt: 2,
        since: None,
        again: Some(driver.now.after(ms(40))),
        ..with_handler
    };
    assert_eq!(units(&driver), [waits]);
    let engine = driver.engine();
    assert_eq!(engine.look_at_units(BranchId(1), 8), []);
    assert_eq!(engine.look_at_units(BranchId::TRUNK, 0), []);
    let lanes = engine.look_at_lanes(BranchId::TRUNK, driver.now);
    assert_eq!(lanes[0].rate, Some(4.0));
}

#[test]
fn v1_a_stage_tells_of_its_failures_and_of_what_was_undone() {
    let driver = stuck();
    let stage = &driver.engine().stages()[0];
    assert_eq!((stage.failed, stage.undone), (1, 1));
    assert_eq!(stage.last_error.as_deref(), Some("Oops"));
    let lanes = driver.engine().look_at_lanes(BranchId::TRUNK, driver.now);
    assert_eq!(
        (lanes.len(), lanes[0].leg, lanes[0].capacity > 0),
        (1, 0, true)
    );
    assert_eq!(driver.engine().in_flight_of(0), 0);
}
