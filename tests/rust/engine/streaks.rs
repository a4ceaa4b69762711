//! When a branch has failed often enough: the row B7, and its streaks.

use anabranch_core::branch::{BranchId, Command, State};
use anabranch_core::engine::{
    Again, BranchOptions, Item, LegOptions, OnBranchError, Operator, Outcome, Spot,
};
use anabranch_core::retry::{Backoff, Retry};

use crate::driver::{Driver, Error, Event};
use crate::options::{leg, ms, size, wide, windowed};

/// A pipeline that fans out at once, and a branch.
fn living(on_error: OnBranchError, legs: impl Into<Vec<LegOptions>>) -> (Driver, BranchId) {
    let branches = BranchOptions {
        on_error,
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, legs);
    let branch = driver.open();
    (driver, branch)
}

const AFTER_THREE: OnBranchError = OnBranchError::Fail { after: 3 };

fn takes(operator: Operator) -> LegOptions {
    LegOptions {
        operator: Some(operator),
        ..leg()
    }
}

/// The next unit fails for good, if wanted.
fn next(driver: &mut Driver, fails: bool) {
    let Some(unit) = driver.unit() else {
        panic!("nothing is handed out")
    };
    if fails {
        let (error, again) = (Error::new("Oops", 1), Again::No);
        driver.complete(unit, Outcome::Failed { error, again }, None);
    } else {
        driver.done(unit, [0]);
    }
}

/// An item fails in front of `ahead_of`, or comes through.
fn ahead(driver: &mut Driver, branch: BranchId, ahead_of: usize, fails: bool) {
    driver.call(|engine, now| {
        engine.received(1);
        if fails {
            let behind = ahead_of;
            let error = Error::new("Oops", 1);
            engine.fail_item(Spot { ahead_of, behind }, branch, error, 1, None, now);
        } else {
            engine.came_through(ahead_of, branch);
            engine.passed(branch, 1, 0);
        }
    });
}

/// Offers the failures on their way to the operators they go to.
fn send(driver: &mut Driver) {
    for (leg, failed) in driver.call(|engine, _| engine.take_failures()) {
        let item = Item::of_failure(Event::new(0), &failed);
        driver.call(|engine, now| engine.offer(leg, failed.branch, item, now));
    }
}

fn state(driver: &Driver, branch: BranchId) -> State {
    driver.engine().state(branch).0
}

#[test]
fn b7_failures_ahead_of_a_handler_count_though_it_commits_nothing_yet() {
    let (mut driver, a) = living(AFTER_THREE, [windowed(size(500))]);
    for _ in 0..20 {
        for fails in [true, true, false] {
            ahead(&mut driver, a, 0, fails);
        }
    }
    assert_eq!(state(&driver, a), State::Open, "never three in a row");
    for _ in 0..2 {
        ahead(&mut driver, a, 0, true);
    }
    assert_eq!(state(&driver, a), State::Open);
    ahead(&mut driver, a, 0, true);
    assert_eq!(state(&driver, a), State::Failed);
}

#[test]
fn v1_what_a_failed_branch_refuses_does_not_hide_why_it_has_failed() {
    let (mut driver, a) = living(OnBranchError::Fail { after: 1 }, [leg()]);
    let refused = |driver: &mut Driver| {
        driver.call(|engine, now| {
            engine.received(1);
            let spot = Spot {
                ahead_of: 0,
                behind: 0,
            };
            engine.fail_item(spot, a, Error::new("branch.failed", 1), 1, None, now);
        });
    };
    ahead(&mut driver, a, 0, true);
    assert_eq!(state(&driver, a), State::Failed);
    refused(&mut driver);
    assert_eq!(driver.engine().last_error(a), Some("Oops"));
    // One that an operator has made fail has failed by that.
    let (mut driver, a) = living(AFTER_THREE, [leg()]);
    ahead(&mut driver, a, 0, true);
    assert_eq!(driver.engine().last_error(a), Some("Oops"));
    assert_eq!(driver.engine().would_obey(a, Command::Fail), Ok(()));
    driver.obey(a, Command::Fail).expect("it is open");
    assert_eq!(driver.engine().last_error(a), None);
    refused(&mut driver);
    assert_eq!(driver.engine().last_error(a), Some("branch.failed"));
    let misfit = driver.engine().would_obey(a, Command::Drain).unwrap_err();
    assert_eq!(
        (misfit.command, misfit.state),
        (Command::Drain, State::Failed)
    );
    assert_eq!(
        driver.obey(a, Command::Drain),
        Err(misfit),
        "asking has changed nothing"
    );
}

#[test]
fn b7_each_stage_has_a_streak_of_its_own() {
    let (mut driver, a) = living(AFTER_THREE, [leg(), leg()]);
    driver.give_to(a, 1..=5);
    for _ in 0..3 {
        // The first handler and what is ahead of it succeed, and say nothing of the second.
        next(&mut driver, false);
        ahead(&mut driver, a, 0, false);
        driver.forward(1);
        assert_eq!(state(&driver, a), State::Open);
        let Some(unit) = driver.unit() else {
            panic!("nothing is handed out")
        };
        let unit = if unit.leg == 1 {
            unit
        } else {
            let second = driver.unit().expect("the second leg's");
            driver.done(unit, []);
            second
        };
        let (error, again) = (Error::new("Oops", 1), Again::No);
        driver.complete(unit, Outcome::Failed { error, again }, None);
    }
    assert_eq!(state(&driver, a), State::Failed);
}

#[test]
fn b7_a_success_ends_the_streak_by_whichever_way_it_is_told() {
    for way in ["unit", "last", "batch", "broken batch"] {
        let (mut driver, a) = living(AFTER_THREE, [leg()]);
        driver.give_to(a, 1..=9);
        for _ in 0..2 {
            next(&mut driver, true);
        }
        match way {
            "unit" => next(&mut driver, false),
            "last" => {
                let unit = driver.unit().expect("the third");
                let value = driver.call(|engine, now| engine.complete_last(unit, now));
                drop(value);
            }
            "batch" => {
                let batch =
                    driver.call(|engine, now| engine.next_batch(crate::driver::PORT, 1, now));
                assert_eq!(batch.map(|it| it.values.len()), Some(1));
                driver.call(|engine, now| engine.complete_batch(a, 0, (1, 0), now));
            }
            _ => {
                let batch =
                    driver.call(|engine, now| engine.next_batch(crate::driver::PORT, 2, now));
                let mut values = batch.map(|it| it.values).unwrap_or_default();
                let current = values.pop().expect("two");
                let unit = driver
                    .call(|engine, now| engine.break_batch(a, 0, (1, 0), current, Vec::new(), now));
                driver.done(unit, []);
            }
        }
        for _ in 0..2 {
            next(&mut driver, true);
        }
        assert_eq!(state(&driver, a), State::Open, "{way}");
        next(&mut driver, true);
        assert_eq!(state(&driver, a), State::Failed, "{way}");
    }
}

/// A pipeline that recovers, and a branch in which `fates` come to pass at the first handler one
/// after the other: each failure is handled by the operator behind before the next item comes.
fn recovering(operator: Operator, fates: &[Fate]) -> State {
    let (mut driver, a) = living(AFTER_THREE, [leg(), takes(operator), leg()]);
    for fate in fates {
        driver.give_to(a, [1]);
        if driver.engine().has_refused() {
            break;
        }
        next(&mut driver, *fate != Fate::Succeeds);
        send(&mut driver);
        if *fate != Fate::Succeeds {
            next(&mut driver, *fate == Fate::Fails);
        }
        driver.call(|engine, _| (engine.take_arrivals(1), engine.take_arrivals(2)));
    }
    state(&driver, a)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Succeeds,
    Fails,
    /// It fails, and the operator takes it.
    Taken,
}

#[test]
fn b7_what_is_recovered_neither_counts_nor_ends_the_streak() {
    use Fate::{Fails, Succeeds, Taken};
    for (fates, expected) in [
        (&[Fails, Taken, Fails, Taken, Taken, Taken][..], State::Open),
        (&[Fails, Taken, Fails, Taken, Fails], State::Failed),
        (&[Fails, Fails, Succeeds, Fails, Fails], State::Open),
        (
            &[Fails, Fails, Succeeds, Fails, Fails, Fails],
            State::Failed,
        ),
        (&[Taken; 9], State::Open),
    ] {
        assert_eq!(recovering(Operator::Recover, fates), expected, "{fates:?}");
    }
}

#[test]
fn b7_a_dead_letter_counts_as_any_other_failure() {
    use Fate::{Fails, Succeeds, Taken};
    for (fates, expected) in [
        (&[Taken, Taken, Taken][..], State::Failed),
        (&[Taken, Fails, Taken], State::Failed),
        (&[Taken, Taken, Succeeds, Taken, Taken], State::Open),
    ] {
        assert_eq!(
            recovering(Operator::DeadLetter, fates),
            expected,
            "{fates:?}"
        );
    }
}

#[test]
fn b7_a_failure_that_nobody_recovers_in_the_end_counts_for_the_streak_it_arose_in() {
    for good in [false, true] {
        let (mut driver, a) = living(
            AFTER_THREE,
            [wide(9, false), takes(Operator::Recover), leg()],
        );
        // The operator hears of them only when others have ended.
        driver.give_to(a, 1..=6);
        for fails in [true, true, !good, true, true] {
            next(&mut driver, fails);
        }
        send(&mut driver);
        let heard = (0..if good { 4 } else { 5 }).map(|_| {
            let unit = (0..2).find_map(|_| driver.unit().filter(|unit| unit.leg == 1));
            let unit = unit.expect("a failure");
            let (error, again) = (Error::new("Oops", 1), Again::No);
            driver.complete(unit, Outcome::Failed { error, again }, None);
            state(&driver, a)
        });
        let failed = heard.filter(|state| *state == State::Failed).count();
        assert_eq!(failed, if good { 0 } else { 3 }, "good: {good}");
    }
}

#[test]
fn b7_failures_of_a_streak_that_is_over_still_count_where_they_end() {
    let (mut driver, a) = living(
        AFTER_THREE,
        [wide(9, false), takes(Operator::Recover), leg()],
    );
    driver.give_to(a, 1..=4);
    for fails in [true, true, true, false] {
        next(&mut driver, fails);
    }
    send(&mut driver);
    for left in [2, 1, 0] {
        assert_eq!(state(&driver, a), State::Open, "{left} and one more");
        next(&mut driver, true);
    }
    assert_eq!(state(&driver, a), State::Failed);
}

#[test]
fn b7_a_recovered_failure_does_not_stop_the_pipeline_nor_restart_the_branch() {
    let policy = Retry::new(9, Backoff::Fixed(ms(10)));
    for on_error in [OnBranchError::Stop, OnBranchError::Restart(policy)] {
        for taken in [true, false] {
            let legs = [
                leg(),
                takes(Operator::PassOn),
                takes(Operator::Recover),
                leg(),
            ];
            let (mut driver, a) = living(on_error.clone(), legs);
            driver.give_to(a, [1]);
            next(&mut driver, true);
            send(&mut driver);
            next(&mut driver, true);
            send(&mut driver);
            assert!(!driver.engine().stopping());
            assert_eq!(state(&driver, a), State::Open);
            next(&mut driver, !taken);
            let stops = driver.engine().stopping();
            let rests = state(&driver, a) == State::Restarting;
            assert_eq!(stops || rests, !taken, "{on_error:?}");
        }
    }
}

#[test]
fn b7_what_fails_while_a_branch_rests_belongs_to_the_failure_it_rests_for() {
    let policy = Retry::new(2, Backoff::Fixed(ms(10)));
    let (mut driver, a) = living(OnBranchError::Restart(policy), [wide(3, false)]);
    driver.give_to(a, 1..=5);
    let units = driver.units();
    for unit in units {
        let (error, again) = (Error::new("Oops", 1), Again::No);
        driver.complete(unit, Outcome::Failed { error, again }, None);
        assert_eq!(state(&driver, a), State::Restarting);
    }
    driver.poll();
    driver.advance(ms(10));
    driver.news();
    assert_eq!(state(&driver, a), State::Open);
    next(&mut driver, true);
    assert_eq!(state(&driver, a), State::Failed);
}

#[test]
fn b7_a_branch_that_comes_back_has_no_streak() {
    let (mut driver, a) = living(AFTER_THREE, [leg()]);
    for _ in 0..2 {
        ahead(&mut driver, a, 0, true);
    }
    assert!(driver.engine().has_streaks_ahead());
    assert_eq!(
        driver.obey(a, anabranch_core::branch::Command::Restart),
        Ok(())
    );
    driver.poll();
    driver.news();
    assert!(!driver.engine().has_streaks_ahead());
    for _ in 0..2 {
        ahead(&mut driver, a, 0, true);
    }
    assert_eq!(state(&driver, a), State::Open);
}

#[test]
fn t3_b7_failures_in_front_of_the_fan_out_fail_no_branch() {
    let fails = OnBranchError::Fail { after: 1 };
    for on_error in [OnBranchError::Stop, fails] {
        let branches = BranchOptions {
            on_error: on_error.clone(),
            ..BranchOptions::default()
        };
        let mut driver = Driver::living(branches, 1, [leg(), leg()]);
        let a = driver.open();
        ahead(&mut driver, BranchId::TRUNK, 0, true);
        driver.give([1]);
        next(&mut driver, true);
        assert!(!driver.engine().stopping(), "{on_error:?}");
        driver.call(|engine, _| engine.received(1));
        driver.offer(1, a, Item::new(Event::new(2)));
        next(&mut driver, false);
        driver.end();
        assert!(driver.finished(), "{on_error:?}");
    }
}

/// A failure of a branch's first leg that is with its operator, which has not taken it yet.
fn open_failure(on_error: OnBranchError) -> (Driver, BranchId) {
    let (mut driver, a) = living(on_error, [leg(), takes(Operator::Recover), leg()]);
    driver.give_to(a, [1]);
    next(&mut driver, true);
    send(&mut driver);
    (driver, a)
}

#[test]
fn b7_what_fails_of_an_earlier_generation_is_none_of_the_next_ones() {
    let policy = Retry::new(9, Backoff::Fixed(ms(10)));
    let legs = [leg(), takes(Operator::Recover), leg()];
    let (mut driver, a) = living(OnBranchError::Restart(policy), legs);
    driver.give_to(a, [1]);
    next(&mut driver, true);
    // It is still on its way to the operator when another one, behind that, counts.
    driver.call(|engine, _| engine.received(1));
    driver.offer(2, a, Item::new(Event::new(2)));
    next(&mut driver, true);
    assert_eq!(state(&driver, a), State::Restarting);
    driver.poll();
    driver.news();
    driver.advance(ms(10));
    driver.news();
    assert_eq!(driver.engine().state(a), (State::Open, 2));
    send(&mut driver);
    next(&mut driver, true);
    assert_eq!(driver.engine().state(a), (State::Open, 2));
}

#[test]
fn b4_b7_a_failure_that_counts_late_does_not_restart_a_branch_that_drains() {
    let policy = Retry::new(9, Backoff::Fixed(ms(10)));
    let (mut driver, a) = open_failure(OnBranchError::Restart(policy));
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    next(&mut driver, true);
    driver.poll();
    assert_eq!(state(&driver, a), State::Evicted);
}

#[test]
fn b7_a_failure_that_counts_after_an_abort_fails_no_branch() {
    let (mut driver, a) = open_failure(OnBranchError::Fail { after: 1 });
    let Some(asked) = driver.unit() else {
        panic!("the failure is not handed out")
    };
    driver.abort();
    let (error, again) = (Error::new("Oops", 1), Again::No);
    driver.complete(asked, Outcome::Failed { error, again }, None);
    assert_eq!(state(&driver, a), State::Open);
    assert!(driver.finished());
}

#[test]
fn b7_r2_restarts_go_by_the_delay_before_until_something_succeeds() {
    let (base, cap) = (ms(10), ms(100_000));
    let policy = Retry::new(99, Backoff::Decorrelated { base, cap });
    let (mut driver, a) = living(OnBranchError::Restart(policy), [leg()]);
    let rest = |driver: &mut Driver| {
        driver.give_to(a, [1]);
        next(driver, true);
        driver.poll();
        driver.news();
        let mut waited = 0;
        while state(driver, a) != State::Open {
            driver.advance(ms(1));
            driver.news();
            waited += 1;
        }
        waited
    };
    let longest = (0..12).map(|_| rest(&mut driver)).max();
    assert!(longest > Some(90), "they grow: {longest:?}");
    driver.give_to(a, [2]);
    next(&mut driver, false);
    assert!(rest(&mut driver) <= 30, "from the beginning");
}
