//! Between two generations of a branch: what comes for it waits, and what is still inside of it ends.
//! Rows B4, B5, B7.

use anabranch_core::branch::{BranchId, Command, News, Own, State};
use anabranch_core::channel::OnFull;
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{
    BranchOptions, LegOptions, Level, OnBranchError, Operator, Unit, Why,
};
use anabranch_core::retry::{Backoff, Retry};

use crate::driver::{Driver, Error, Lab, numbers};
use crate::lives::{fail_for_good, states};
use crate::options::{leg, ms, narrow, retried, size, windowed};
use crate::scopes::step;

/// A branch that drains, and the unit that it waits for.
fn draining(branches: BranchOptions, leg: LegOptions) -> (Driver, BranchId, Unit<Lab>) {
    let mut driver = Driver::living(branches, 0, [leg]);
    let branch = driver.open();
    driver.give_to(branch, [1]);
    let Some(unit) = driver.unit() else {
        panic!("the item given is not handed out")
    };
    assert_eq!(driver.obey(branch, Command::Drain), Ok(()));
    (driver, branch, unit)
}

/// The driver ends the unit that the branch waited for, opens it again, and takes all there is.
fn next_generation(driver: &mut Driver, unit: Unit<Lab>) -> Vec<u64> {
    driver.done(unit, []);
    driver.poll();
    driver.news();
    let mut seen = Vec::new();
    while let Some(unit) = driver.unit() {
        seen.extend(numbers(&unit));
        driver.done(unit, []);
    }
    driver.end();
    assert!(driver.finished());
    seen
}

#[test]
fn b5_what_waits_for_the_next_generation_is_bounded_and_does_what_the_mode_says() {
    let table = [
        (OnFull::DropNewest, vec![2, 3], 2, vec![]),
        (OnFull::DropOldest, vec![4, 5], 2, vec![]),
        (OnFull::Fail, vec![2, 3], 0, vec![4, 5]),
        // What the driver had in its hand is kept.
        (OnFull::Wait, vec![2, 3, 4, 5], 0, vec![]),
    ];
    for (on_full, kept, dropped, failed) in table {
        let branches = BranchOptions {
            on_full,
            ..BranchOptions::default()
        };
        let (mut driver, branch, unit) = draining(branches, narrow(2, false));
        driver.give_to(branch, 2..=5);
        let waits = on_full == OnFull::Wait;
        assert_eq!(driver.engine().room() == 0, waits, "{on_full:?}");
        let refused = driver.refused().into_iter();
        let refused: Vec<_> = refused.map(|it| (it.1, it.2[0])).collect();
        let failed: Vec<_> = failed.into_iter().map(|n| (Why::Full, n)).collect();
        assert_eq!(refused, failed);
        assert_eq!(driver.engine().counts_of(branch).dropped, dropped);
        assert_eq!(next_generation(&mut driver, unit), kept, "{on_full:?}");
    }
}

#[test]
fn b6_nor_may_it_hold_the_source_up_for_longer_than_branch_timeout() {
    let branches = BranchOptions {
        timeout: Some(ms(20)),
        ..BranchOptions::default()
    };
    let (mut driver, branch, unit) = draining(branches, narrow(2, false));
    driver.give_to(branch, 2..=3);
    driver.advance(ms(19));
    assert_eq!(driver.engine().room(), 0);
    driver.advance(ms(1));
    assert!(driver.engine().room() > 0);
    driver.give_to(branch, [4]);
    assert_eq!(driver.refused(), [(branch, Why::Timeout, vec![4])]);
    assert_eq!(next_generation(&mut driver, unit), [2, 3]);
}

#[test]
fn b4_an_item_for_an_idle_branch_waits_until_what_was_registered_for_it_has_ended() {
    let branches = BranchOptions {
        idle_ttl: Some(ms(100)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [leg()]);
    let branch = driver.open();
    let close = step(Kind::Finalizer, 1);
    driver.call(|engine, _| engine.register(Level::Branch(branch), close));
    driver.advance(ms(100));
    assert_eq!(states(&driver, &[branch]), [State::Evicted]);
    driver.give_to(branch, [1]);
    assert_eq!(driver.news(), [], "its generation is not over");
    assert_eq!(driver.undo_all(), [1]);
    driver.poll();
    assert_eq!(driver.news(), [(branch, News::Closed { wanted: true })]);
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![1]));
}

#[test]
fn b7_a_unit_that_waits_for_a_paused_branch_fails_with_it() {
    let mut driver = Driver::fanned(0, [retried(3, ms(5))]);
    let branch = driver.open();
    driver.give_to(branch, [1]);
    let unit = driver.unit().expect("the item");
    driver.fail(unit, []);
    assert_eq!(driver.obey(branch, Command::Pause), Ok(()));
    driver.advance(ms(5));
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    assert_eq!(driver.engine().codes().get("cancelled"), Some(&1));
    driver.poll();
    assert_eq!(driver.news(), [(branch, News::Closed { wanted: false })]);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b7_a_branch_that_rests_finishes_the_unit_that_waited_for_it_while_it_was_paused() {
    let retry = OnBranchError::Restart(Retry::new(9, Backoff::Fixed(ms(50))));
    let branches = BranchOptions {
        on_error: retry,
        ..BranchOptions::default()
    };
    let wide = LegOptions {
        concurrency: 2,
        ..retried(3, ms(5))
    };
    let mut driver = Driver::living(branches, 0, [wide]);
    let branch = driver.open();
    driver.give_to(branch, [1, 2]);
    let unit = driver.unit().expect("the first");
    driver.fail(unit, []);
    let other = driver.unit().expect("the second");
    assert_eq!(driver.obey(branch, Command::Pause), Ok(()));
    driver.advance(ms(5));
    assert!(driver.unit().is_none(), "it is paused");
    let (error, again) = (Error::new("Oops", 1), anabranch_core::engine::Again::No);
    let failed = anabranch_core::engine::Outcome::Failed { error, again };
    driver.complete(other, failed, None);
    assert_eq!(states(&driver, &[branch]), [State::Restarting]);
    let unit = driver.unit().expect("what was begun is finished");
    assert_eq!(unit.attempt, 2);
    driver.done(unit, []);
    driver.poll();
    driver.advance(ms(50));
    driver.news();
    assert_eq!(driver.engine().state(branch), (State::Open, 2));
}

#[test]
fn b7_a_branch_that_fails_before_it_has_come_to_rest_tries_nothing_again_though_it_is_restarted() {
    let branches = BranchOptions {
        on_error: OnBranchError::Restart(Retry::new(9, Backoff::Fixed(ms(50)))),
        ..BranchOptions::default()
    };
    let wide = LegOptions {
        concurrency: 2,
        ..retried(3, ms(5))
    };
    let mut driver = Driver::living(branches, 0, [wide]);
    let branch = driver.open();
    driver.give_to(branch, [1, 2]);
    let begun = driver.unit().expect("the first");
    fail_for_good(&mut driver);
    assert_eq!(states(&driver, &[branch]), [State::Restarting]);
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    assert_eq!(driver.obey(branch, Command::Restart), Ok(()));
    driver.fail(begun, []);
    driver.advance(ms(5));
    assert!(driver.unit().is_none());
    assert_eq!(driver.engine().counts().failed, 2);
    driver.news();
    assert_eq!(driver.engine().state(branch), (State::Open, 2));
}

#[test]
fn b7_nothing_is_refused_of_a_window_that_was_empty() {
    let mut driver = Driver::fanned(0, [windowed(size(3))]);
    let branch = driver.open();
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    assert_eq!(driver.refused(), []);
}

/// A branch that rests, with a failure of its item 2 waiting in its operator's lane: its generation
/// has ended.
fn resting(on_full: OnFull) -> (Driver, BranchId) {
    let branches = BranchOptions {
        on_error: OnBranchError::Restart(Retry::new(9, Backoff::Fixed(ms(50)))),
        on_full,
        ..BranchOptions::default()
    };
    let recovers = LegOptions {
        operator: Some(Operator::Recover),
        ..leg()
    };
    let wide = LegOptions {
        concurrency: 2,
        ..narrow(2, false)
    };
    let mut driver = Driver::living(branches, 0, [wide, recovers, leg()]);
    let branch = driver.open();
    driver.give_to(branch, [1, 2]);
    for _ in 0..2 {
        fail_for_good(&mut driver);
    }
    for (leg, failed) in driver.call(|engine, _| engine.take_failures()) {
        let item = anabranch_core::engine::Item::of_failure(crate::driver::Event::new(7), &failed);
        driver.call(|engine, now| engine.offer(leg, branch, item, now));
    }
    // The operator cannot help the first.
    fail_for_good(&mut driver);
    assert_eq!(states(&driver, &[branch]), [State::Restarting]);
    driver.poll();
    assert_eq!(driver.news(), [(branch, News::Closed { wanted: false })]);
    (driver, branch)
}

/// The operator makes an item of the failure that waits for it; it goes on behind it.
fn recover(driver: &mut Driver) {
    let Some(unit) = driver.unit() else {
        panic!("the operator is not asked")
    };
    assert_eq!(unit.leg, 1);
    driver.done(unit, [7]);
    for (branch, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
        driver.call(|engine, now| engine.offer_recovered(1, 2, branch, item, now));
    }
}

#[test]
fn b7_what_is_recovered_of_a_generation_that_ended_in_a_back_off_is_not_lost_with_the_next() {
    for restarted in [true, false] {
        let (mut driver, branch) = resting(OnFull::Wait);
        assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
        if restarted {
            assert_eq!(driver.obey(branch, Command::Restart), Ok(()));
        }
        recover(&mut driver);
        let refused = driver.refused();
        if restarted {
            assert_eq!(refused, []);
            let unit = driver.unit().expect("the item it became");
            assert_eq!((unit.leg, numbers(&unit)), (2, vec![7]));
            driver.done(unit, []);
        } else {
            assert_eq!(refused, [(branch, Why::Failed, vec![7])]);
        }
        driver.end();
        driver.poll();
        driver.news();
        assert!(driver.finished());
    }
}

#[test]
fn b5_whatever_waited_longest_is_dropped_for_what_comes_while_a_branch_is_not_open() {
    let (mut driver, branch) = resting(OnFull::DropOldest);
    driver.advance(ms(50));
    driver.call(|engine, now| {
        drop(engine.take_news());
        engine.decline(branch, now);
    });
    recover(&mut driver);
    driver.give_to(branch, [8, 9]);
    assert_eq!(
        driver.engine().counts_of(branch).dropped,
        1,
        "what was recovered"
    );
    driver.call(|engine, now| engine.reopen(branch, Own::default(), now));
    for number in [8, 9] {
        let unit = driver.unit().expect("two wait");
        assert_eq!((unit.leg, numbers(&unit)), (0, vec![number]));
        driver.done(unit, []);
    }
    driver.call(|engine, _| drop(engine.take_arrivals(2)));
    driver.end();
    driver.poll();
    let counts = driver.engine().counts();
    assert_eq!((counts.dropped, counts.failed), (1, 1));
}
