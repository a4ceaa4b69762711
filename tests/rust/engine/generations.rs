//! How a branch's generation ends, and what its end leaves alone: the rows B4, B7.

use std::time::Duration;

use anabranch_core::branch::{BranchId, Command, News, Own, State};
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{
    Again, BranchOptions, Failed, Item, LegOptions, Level, OnBranchError, Operator, Outcome, Spot,
    Unit, Why,
};
use anabranch_core::retry::{Backoff, GaveUp, Retry};

use crate::driver::{Driver, Error, Event, Lab, numbers};
use crate::lives::{fail_for_good, states};
use crate::options::{leg, ms, narrow, retried, size, wide, windowed};
use crate::scopes::step;

fn unit(driver: &mut Driver) -> Unit<Lab> {
    let Some(unit) = driver.unit() else {
        panic!("nothing is handed out")
    };
    unit
}

fn recovers(leg: LegOptions) -> LegOptions {
    LegOptions {
        operator: Some(Operator::Recover),
        ..leg
    }
}

fn register(driver: &mut Driver, branch: BranchId, number: u64) {
    let undo = step(Kind::Compensation, number);
    driver.call(|engine, _| engine.register(Level::Branch(branch), undo));
}

/// Offers the failures on their way to their operators; says which legs those are.
fn send(driver: &mut Driver) -> Vec<usize> {
    let mut legs = Vec::new();
    for (leg, failed) in driver.call(|engine, _| engine.take_failures()) {
        let item = Item::of_failure(Event::new(0), &failed);
        driver.call(|engine, now| engine.offer(leg, failed.branch, item, now));
        legs.push(leg);
    }
    legs
}

/// One that rests for so long after each failure.
fn resting(delay: Duration, legs: impl Into<Vec<LegOptions>>) -> (Driver, BranchId) {
    let branches = BranchOptions {
        on_error: OnBranchError::Restart(Retry::new(9, Backoff::Fixed(delay))),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, legs);
    let branch = driver.open();
    (driver, branch)
}

#[test]
fn c19_a_failed_branch_is_undone_though_it_is_restarted_and_removed_before_it_came_to_rest() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let begun = unit(&mut driver);
    register(&mut driver, a, 7);
    for command in [Command::Fail, Command::Restart, Command::Remove] {
        assert_eq!(driver.obey(a, command), Ok(()), "{command:?}");
    }
    driver.done(begun, []);
    driver.poll();
    assert_eq!(driver.undo_all(), [7]);
    driver.poll();
    assert_eq!(states(&driver, &[a]), [State::Removed]);
}

#[test]
fn b7_a_failed_branch_cuts_no_back_off_of_another_short() {
    for over in [false, true] {
        let mut driver = Driver::fanned(0, [retried(3, ms(50))]);
        let (a, b) = (driver.open(), driver.open());
        driver.give_to(a, [1]);
        driver.give_to(b, [2]);
        for unit in driver.units() {
            driver.fail(unit, []);
        }
        if over {
            driver.advance(ms(50));
        }
        assert_eq!(driver.obey(a, Command::Fail), Ok(()));
        assert_eq!(driver.engine().codes().get("cancelled"), Some(&1));
        driver.advance(ms(50));
        let again = unit(&mut driver);
        assert_eq!((again.branch, again.attempt), (b, 2));
        driver.done(again, []);
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.engine().counts().committed, 1);
    }
}

#[test]
fn t3_what_takes_the_failures_of_a_failed_branch_is_tried_again() {
    for over in [false, true] {
        let mut driver = Driver::fanned(0, [leg(), recovers(retried(3, ms(50)))]);
        let a = driver.open();
        driver.give_to(a, [1]);
        fail_for_good(&mut driver);
        assert_eq!(send(&mut driver), [1]);
        let asked = unit(&mut driver);
        driver.fail(asked, []);
        if over {
            driver.advance(ms(50));
        }
        assert_eq!(driver.obey(a, Command::Fail), Ok(()));
        driver.advance(ms(50));
        let again = unit(&mut driver);
        assert_eq!((again.leg, again.attempt), (1, 2));
        driver.done(again, []);
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.engine().counts().recovered, 1);
    }
}

#[test]
fn t3_what_waited_for_a_generation_that_never_comes_goes_to_the_operators_behind_it() {
    // To the branch's entry it came past no operator; recovered by the last one, past both.
    for (came_to, heard_by) in [(1, vec![0]), (3, vec![])] {
        let legs = [recovers(leg()), leg(), recovers(leg()), leg()];
        let mut driver = Driver::fanned(0, legs);
        let a = driver.open();
        driver.call(|engine, _| engine.received(2));
        driver.offer(1, a, Item::new(Event::new(1)));
        let begun = unit(&mut driver);
        assert_eq!(driver.obey(a, Command::Drain), Ok(()));
        driver.done(begun, []);
        driver.poll();
        let waits = Item::new(Event::new(2));
        driver.call(|engine, now| engine.offer_recovered(2, came_to, a, waits, now));
        assert_eq!(driver.obey(a, Command::Remove), Ok(()));
        assert_eq!(driver.refused(), [(a, Why::Removed, vec![2])]);
        assert_eq!(send(&mut driver), heard_by);
    }
}

#[test]
fn b7_what_is_passed_on_does_not_wait_for_the_restart_of_a_branch_that_failed() {
    let mut driver = Driver::fanned(0, [leg(), leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let begun = unit(&mut driver);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    driver.done(begun, [1]);
    driver.forward(1);
    assert_eq!(driver.refused(), [(a, Why::Failed, vec![1])]);
}

#[test]
fn b7_a_branch_that_fails_while_it_drains_refuses_what_waits_for_it() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let begun = unit(&mut driver);
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.give_to(a, [2]);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    assert_eq!(driver.refused(), [(a, Why::Failed, vec![2])]);
    driver.done(begun, []);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b6_a_full_branch_that_fails_holds_the_source_up_no_more() {
    let mut driver = Driver::fanned(0, [narrow(2, false)]);
    let a = driver.open();
    driver.advance(ms(3));
    driver.give_to(a, 1..=2);
    assert_eq!(driver.engine().room(), 0);
    driver.advance(ms(5));
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    driver.advance(ms(5));
    assert!(driver.engine().room() > 0);
    assert_eq!(driver.engine().blocking().count(), 0);
    driver.call(|engine, now| assert_eq!(engine.blocked(now), ms(5)));
}

#[test]
fn b7_the_driver_hears_of_a_branch_that_fails_by_itself() {
    let branches = BranchOptions {
        on_error: OnBranchError::Fail { after: 1 },
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    fail_for_good(&mut driver);
    assert_eq!(
        driver.call(|engine, _| engine.take_turns()),
        [(a, true)],
        "it need not call the stages in front of it any more"
    );
}

#[test]
fn b7_a_branch_that_rests_keeps_its_open_window_for_its_next_generation() {
    let (mut driver, a) = resting(ms(10), [windowed(size(3))]);
    driver.give_to(a, 1..=4);
    fail_for_good(&mut driver);
    driver.poll();
    driver.poll();
    driver.news();
    driver.advance(ms(10));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert!(driver.unit().is_none(), "it is not full");
    driver.give_to(a, 5..=6);
    assert_eq!(numbers(&unit(&mut driver)), [4, 5, 6]);
}

#[test]
fn b7_a_branch_that_fails_in_its_back_off_does_not_come_back_by_itself() {
    let (mut driver, a) = resting(ms(10), [leg()]);
    driver.give_to(a, [1]);
    fail_for_good(&mut driver);
    driver.poll();
    driver.news();
    assert_eq!(states(&driver, &[a]), [State::Restarting]);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    driver.advance(ms(10));
    let wanted = driver.news().contains(&(a, News::Wanted));
    assert!(!wanted);
    assert_eq!(states(&driver, &[a]), [State::Failed]);
}

#[test]
fn b7_a_back_off_that_a_restart_cut_short_does_not_shorten_the_next_one() {
    let (mut driver, a) = resting(ms(10), [leg()]);
    driver.give_to(a, [1]);
    fail_for_good(&mut driver);
    driver.poll();
    driver.news();
    driver.advance(ms(6));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    driver.give_to(a, [2]);
    fail_for_good(&mut driver);
    driver.poll();
    driver.news();
    driver.advance(ms(4));
    assert_eq!(driver.news(), [], "that was the first one's");
    driver.advance(ms(6));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
}

#[test]
fn c2_what_is_registered_for_a_branch_while_it_is_undone_waits_for_its_turn() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    register(&mut driver, a, 1);
    register(&mut driver, a, 2);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    driver.poll();
    let latest = driver.turn();
    assert_eq!(latest.step.undo.0, 2);
    register(&mut driver, a, 3);
    driver.poll();
    assert!(driver.undo_all().is_empty(), "one after the other");
    driver.undone(latest);
    let mut ran = driver.undo_all();
    driver.poll();
    ran.extend(driver.undo_all());
    assert_eq!(ran, [1, 3]);
}

#[test]
fn b4_a_draining_branch_waits_for_what_is_recovered_before_its_last_window_leaves() {
    // The failure is on its way, with its operator, or what became of it is.
    for looks in 0..3 {
        let legs = [wide(2, false), recovers(leg()), windowed(size(3))];
        let mut driver = Driver::fanned(0, legs);
        let a = driver.open();
        driver.give_to(a, 1..=2);
        let first = unit(&mut driver);
        let second = unit(&mut driver);
        driver.done(second, [2]);
        driver.forward(2);
        assert_eq!(driver.obey(a, Command::Drain), Ok(()));
        let (error, again) = (Error::new("Oops", 1), Again::No);
        driver.complete(first, Outcome::Failed { error, again }, None);
        let look = |driver: &mut Driver, at| {
            if looks == at {
                driver.poll();
                assert!(driver.unit().is_none(), "its window is not whole");
            }
        };
        look(&mut driver, 0);
        send(&mut driver);
        let failure = unit(&mut driver);
        look(&mut driver, 1);
        driver.done(failure, [1]);
        look(&mut driver, 2);
        for (branch, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
            driver.offer(2, branch, item);
        }
        driver.poll();
        assert_eq!(numbers(&unit(&mut driver)), [2, 1]);
    }
}

#[test]
fn b4_a_paused_branch_that_is_drained_goes_on_at_once_with_all_it_holds() {
    let mut driver = Driver::fanned(0, [retried(2, ms(5)), leg()]);
    let a = driver.open();
    driver.give_to(a, 1..=3);
    let first = unit(&mut driver);
    driver.done(first, [1]);
    let second = unit(&mut driver);
    driver.fail(second, []);
    assert_eq!(driver.obey(a, Command::Pause), Ok(()));
    driver.forward(1);
    driver.advance(ms(5));
    assert!(driver.unit().is_none());
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    let mut ready: Vec<_> = driver.units();
    ready.sort_by_key(|unit| unit.leg);
    let ready: Vec<_> = ready.iter().map(|it| (it.leg, numbers(it))).collect();
    assert_eq!(ready, [(0, vec![2]), (1, vec![1])]);
}

#[test]
fn e8_an_abort_gives_up_what_waits_outside_of_the_lanes() {
    // For its branch to be resumed, and for the next generation.
    for discard in [false, true] {
        let mut driver = Driver::fanned(0, [retried(2, ms(5))]);
        let (a, b) = (driver.open(), driver.open());
        driver.give_to(a, [1]);
        driver.give_to(b, [2]);
        let mut units = driver.units();
        units.sort_by_key(|unit| unit.branch);
        let begun = units.pop().expect("two branches have an item each");
        let failing = units.pop().expect("two branches have an item each");
        assert_eq!(driver.obey(a, Command::Pause), Ok(()));
        driver.fail(failing, []);
        driver.advance(ms(5));
        assert_eq!(driver.obey(b, Command::Drain), Ok(()));
        driver.give_to(b, [3]);
        if discard {
            driver.discard();
        } else {
            driver.abort();
        }
        assert_eq!(driver.engine().codes().get("cancelled"), Some(&1));
        driver.done(begun, []);
        assert!(driver.finished());
        let counts = driver.engine().counts();
        assert_eq!((counts.failed, counts.left, counts.committed), (1, 1, 1));
    }
}

#[test]
fn t3_an_abort_asks_no_operator_about_failures_of_the_trunk_that_wait_behind_the_fan_out() {
    let mut driver = Driver::fanned(0, [leg(), recovers(leg())]);
    driver.call(|engine, now| {
        let spot = Spot {
            ahead_of: 0,
            behind: 0,
        };
        engine.received(1);
        engine.fail_item(spot, BranchId::TRUNK, Error::new("Early", 0), 1, None, now);
    });
    assert_eq!(send(&mut driver), [1]);
    driver.abort();
    assert!(driver.unit().is_none());
    for (branch, item) in driver.call(|engine, _| engine.take_unheard()) {
        let error = Error::new("Early", 0);
        let failed = Failed::new(branch, error, item.weight, GaveUp::Cancelled);
        driver.call(|engine, now| engine.lose(failed, now));
    }
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().failed, 1);
}

#[test]
fn b4_a_branch_that_came_back_is_idle_from_then_on() {
    let branches = BranchOptions {
        idle_ttl: Some(ms(100)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [leg()]);
    let a = driver.open();
    driver.advance(ms(100));
    driver.poll();
    driver.news();
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
    driver.advance(ms(100));
    driver.call(|engine, now| engine.reopen(a, Own::default(), now));
    driver.advance(ms(99));
    assert_eq!(states(&driver, &[a]), [State::Open]);
    driver.advance(ms(1));
    driver.poll();
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
}

#[test]
fn b4_to_open_a_branch_that_is_open_changes_nothing() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    driver.call(|engine, now| engine.reopen(a, Own::default(), now));
    assert_eq!(driver.engine().state(a), (State::Open, 1));
}

#[test]
fn b4_b7_the_driver_hears_that_a_branch_takes_items_again() {
    let turns = |driver: &mut Driver| driver.call(|engine, _| engine.take_turns());
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    driver.poll();
    driver.news();
    assert_eq!(turns(&mut driver), [(a, true)]);
    assert_eq!(driver.obey(a, Command::Add), Ok(()));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert_eq!(turns(&mut driver), [(a, false)]);

    // One whose restart is declined asks again with its next item, which has to come in.
    let (mut driver, a) = resting(ms(10), [leg()]);
    driver.give_to(a, [1]);
    fail_for_good(&mut driver);
    driver.poll();
    driver.call(|engine, now| engine.decline(a, now));
    let told = turns(&mut driver);
    assert!(told.last().is_none_or(|it| !it.1), "{told:?}");
}

#[test]
fn b7_a_restart_cuts_the_back_off_short_and_begins_no_unit_before_the_branch_is_at_rest() {
    let (mut driver, a) = resting(ms(10), [wide(2, false)]);
    driver.give_to(a, 1..=3);
    let first = unit(&mut driver);
    let second = unit(&mut driver);
    let (error, again) = (Error::new("Oops", 1), Again::No);
    driver.complete(first, Outcome::Failed { error, again }, None);
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    driver.poll();
    assert!(driver.unit().is_none(), "one is still with its handler");
    driver.done(second, []);
    driver.poll();
    driver.poll();
    driver.news();
    assert_eq!(driver.engine().state(a), (State::Open, 2), "at once");
    assert_eq!(numbers(&unit(&mut driver)), [3]);
}
