//! How rollbacks go about it: their policies and their deadline, of the rows C.

use std::time::Duration;

use anabranch_core::branch::{Command, State};
use anabranch_core::clock::Time;
use anabranch_core::compensation::{Kind, Policy};
use anabranch_core::engine::{
    Again, AttemptId, Fate, LegOptions, Level, Outcome, Overdue, RollbackOptions, UNDO_GRACE,
};

use crate::driver::{Error, scope};
use crate::options::{leg, ms};
use crate::scopes::{in_hand, plain, step, with, with_legs};

#[test]
fn c8_a_rollback_gives_up_at_its_deadline_and_the_rest_is_stuck() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2, 3]);
    let turn = driver.turn();
    assert_eq!(turn.deadline, Time::ZERO.after(ms(100)));
    driver.undone(turn);
    let slow = driver.turn();
    driver.end();
    assert_eq!(driver.engine().deadline(), Some(Time::ZERO.after(ms(100))));
    driver.advance(ms(100));
    assert!(!driver.finished(), "what runs is waited for");
    let [Overdue { attempt, .. }] = driver.call(|engine, _| engine.take_overdue())[..] else {
        panic!("the driver is to stop it")
    };
    driver.undone(slow);
    driver.call(|engine, _| engine.ended(attempt, false));
    assert_eq!(driver.engine().deadline(), None);
    assert!(driver.finished());
    let counts = driver.engine().undone_counts();
    assert_eq!((counts.done, counts.failed), (2, 1));
    let stuck = &driver.engine().stuck()[0];
    assert_eq!(
        (stuck.step.order, matches!(stuck.fate, Fate::Unrun)),
        (1, true)
    );
}

#[test]
fn c8_an_action_that_comes_back_late_is_the_last_though_nobody_has_looked_at_the_clock() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2]);
    let slow = driver.turn();
    driver.pass(ms(100));
    driver.undone(slow);
    assert_eq!(driver.undo_all(), []);
    let counts = driver.engine().undone_counts();
    assert_eq!((counts.done, counts.failed), (1, 1));
}

#[test]
fn c8_what_waits_for_its_port_at_the_deadline_is_stuck_too() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        policy: Policy::Parallel,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2, 3]);
    driver.end();
    driver.advance(ms(100));
    assert!(driver.finished());
    assert_eq!(driver.engine().undone_counts().failed, 3);
}

#[test]
fn c8_b4_a_branch_whose_rollback_is_given_up_is_over_at_once() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    driver.call(|engine, _| engine.register(Level::Branch(branch), step(Kind::Finalizer, 1)));
    assert_eq!(driver.obey(branch, Command::Remove), Ok(()));
    driver.poll();
    assert_eq!(driver.engine().state(branch).0, State::Draining);
    driver.advance(ms(100));
    // Nothing else is to happen, so a driver sleeps until somebody wakes it.
    assert_eq!(driver.engine().deadline(), None);
    assert_eq!(driver.engine().state(branch).0, State::Removed);
}

#[test]
fn b3_c8_what_an_ordered_lane_lets_out_when_a_rollback_is_given_up_is_told_of() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let in_order = LegOptions {
        concurrency: 2,
        ordered: true,
        ..leg()
    };
    let mut driver = with_legs([in_order, leg()], 2, options, false);
    driver.give([1, 2]);
    let [first, second] = [driver.unit(), driver.unit()].map(|it| it.expect("both are in hand"));
    driver.fail(first, [10]);
    driver.done(second, [20]);
    assert!(
        !driver.engine().has_arrivals(),
        "it waits for the one before it"
    );
    driver.advance(ms(100));
    // Nothing else is to happen, so a driver that is not told would sleep.
    assert_eq!(driver.engine().deadline(), None);
    assert!(driver.engine().has_arrivals());
    assert_eq!(driver.forward(1), [20]);
}

#[test]
fn c4_in_parallel_all_are_handed_out_and_every_failure_is_told() {
    let options = RollbackOptions {
        policy: Policy::Parallel,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2, 3]);
    let turns = [driver.turn(), driver.turn(), driver.turn()];
    for turn in turns {
        let error = (turn.step.order != 2).then(|| Error::new("OSError", turn.step.order));
        driver.call(|engine, now| engine.complete_undo(turn, error, None, now));
    }
    let counts = driver.engine().undone_counts();
    assert_eq!((counts.done, counts.failed), (1, 2));
    let stuck: Vec<_> = driver
        .engine()
        .stuck()
        .iter()
        .map(|it| it.step.order)
        .collect();
    assert_eq!(stuck, [3, 1]);
}

#[test]
fn c13_the_policy_none_runs_finalizers_only_and_counts_the_others() {
    let options = RollbackOptions {
        policy: Policy::Skip,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    let mut scope = scope([1, 2]);
    scope.push(step(Kind::Finalizer, 3));
    let error = Error::new("Oops", 1);
    let outcome = Outcome::Failed {
        error,
        again: Again::No,
    };
    driver.complete(unit, outcome, Some(scope.into()));
    assert_eq!(driver.undo_all(), [3]);
    let counts = driver.engine().undone_counts();
    assert_eq!((counts.skipped, counts.done, counts.failed), (2, 0, 0));
}

#[test]
fn c14_a_custom_policy_is_asked_once_per_rollback() {
    let options = RollbackOptions {
        policy: Policy::Custom,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2, 3]);
    assert_eq!(driver.undo_all(), []);
    let (id, mut steps) = driver
        .call(|engine, _| engine.next_unarranged())
        .expect("a rollback to arrange");
    assert_eq!(
        steps.iter().map(|it| it.order).collect::<Vec<_>>(),
        [3, 2, 1]
    );
    let skipped = vec![steps.remove(1)];
    steps.reverse();
    driver.call(|engine, now| engine.arrange(id, steps, skipped, now));
    let turn = driver.turn();
    assert_eq!(turn.step.order, 1);
    let more = Some(scope([4, 5]).into());
    driver.call(|engine, now| engine.complete_undo(turn, None, more, now));
    assert_eq!(driver.undo_all(), [3, 5, 4]);
    assert!(driver.call(|engine, _| engine.next_unarranged()).is_none());
    assert_eq!(driver.engine().undone_counts().skipped, 1);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn c8_an_action_that_runs_on_is_told_of_at_the_deadline_and_after_its_grace() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1]);
    let turn = driver.turn();
    driver.end();
    driver.advance(ms(99));
    assert_eq!(driver.call(|engine, _| engine.take_overdue()), []);
    driver.advance(ms(1));
    let news = |abandoned| Overdue {
        attempt: turn.attempt.unwrap_or(AttemptId(0)),
        leg: None,
        abandoned,
    };
    assert_eq!(
        driver.call(|engine, _| engine.take_overdue()),
        [news(false)]
    );
    let until = driver.now.after(UNDO_GRACE);
    assert_eq!(driver.engine().deadline(), Some(until));
    driver.advance(UNDO_GRACE);
    assert_eq!(driver.call(|engine, _| engine.take_overdue()), [news(true)]);
    assert!(!driver.finished(), "the driver still has it");
    let error = Some(Error::new("timeout", 0));
    driver.call(|engine, now| engine.complete_undo(turn, error, None, now));
    assert!(driver.finished());
    assert_eq!(driver.engine().undone_counts().failed, 1);
    assert_eq!(driver.engine().abandoned().1, 0, "it is told of as stuck");
}

#[test]
fn c8_an_action_that_ends_in_time_is_not_watched_on() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1]);
    let turn = driver.turn();
    driver.undone(turn);
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.engine().deadline(), None);
}

#[test]
fn c8_without_a_deadline_a_rollback_takes_as_long_as_it_takes() {
    let mut driver = plain();
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    driver.fail(unit, [1, 2]);
    let turn = driver.turn();
    assert_eq!(
        (turn.deadline, driver.engine().deadline()),
        (Time::NEVER, None)
    );
    driver.advance(Duration::from_secs(1_000_000));
    driver.undone(turn);
    assert_eq!(driver.undo_all(), [1]);
}

#[test]
fn c15_a_finalizer_without_a_turn_is_stuck_though_the_policy_skips_the_others() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        policy: Policy::Skip,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch = driver.open();
    let unit = in_hand(&mut driver, branch);
    let mut registered = scope([1]);
    registered.push(step(Kind::Finalizer, 2));
    registered.push(step(Kind::Finalizer, 3));
    let error = Error::new("Oops", 1);
    let outcome = Outcome::Failed {
        error,
        again: Again::No,
    };
    driver.complete(unit, outcome, Some(registered.into()));
    let slow = driver.turn();
    driver.advance(ms(100));
    driver.undone(slow);
    let counts = driver.engine().undone_counts();
    assert_eq!((counts.skipped, counts.failed), (1, 1));
    assert_eq!(driver.engine().stuck()[0].step.order, 2);
}

#[test]
fn c14_a_rollback_that_is_given_up_before_it_is_arranged_hides_no_other() {
    let options = RollbackOptions {
        deadline: Some(ms(100)),
        policy: Policy::Custom,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let (a, b) = (driver.open(), driver.open());
    let (early, late) = (in_hand(&mut driver, a), in_hand(&mut driver, b));
    driver.fail(early, [1]);
    driver.pass(ms(50));
    driver.fail(late, [2]);
    driver.advance(ms(50));
    let next = driver.call(|engine, _| engine.next_unarranged());
    let orders = next.map(|(_, steps)| steps.iter().map(|step| step.order).collect());
    assert_eq!(orders, Some(vec![2]));
}
