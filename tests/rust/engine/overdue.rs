//! Attempts that do not end in time: the rows R4 and R8.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{Abandoned, Engine, LegOptions, MAX_SAMPLES, Outcome, Overdue};
use anabranch_core::retry::{Backoff, Retry};

use crate::driver::{Driver, Error};
use crate::options::{leg, ms, retried};

/// Attempts may take 100 ms, and their operations 30 ms more.
fn timed() -> LegOptions {
    LegOptions {
        timeout: Some(ms(100)),
        grace: ms(30),
        concurrency: 200,
        ..leg()
    }
}

fn overdue(driver: &mut Driver) -> Vec<Overdue> {
    driver.call(|engine, _| engine.take_overdue())
}

#[test]
fn r4_r6_a_timeout_is_exact_and_told_once() {
    let mut driver = Driver::of([timed()]);
    driver.pass(ms(7));
    let unit = driver.give_and_take();
    let (attempt, at) = unit.deadline().expect("a deadline");
    assert_eq!(at, driver.now.after(ms(100)));
    assert_eq!(driver.engine().deadline(), Some(at));
    driver.advance(ms(99));
    assert_eq!(overdue(&mut driver), []);
    driver.advance(ms(1));
    let late = Overdue {
        attempt,
        leg: Some(0),
        abandoned: false,
    };
    assert_eq!(overdue(&mut driver), [late]);
    driver.advance(ms(1));
    assert_eq!(overdue(&mut driver), []);
    driver.fail(unit, []);
    driver.call(|engine, _| engine.ended(attempt, false));
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.engine().abandoned(), (&[][..], 0));
}

#[test]
fn r4_an_attempt_that_ends_in_time_leaves_nothing_behind() {
    let mut driver = Driver::of([timed()]);
    for _ in 0..1000 {
        let unit = driver.give_and_take();
        driver.advance(ms(1));
        driver.done(unit, []);
        assert_eq!(driver.engine().deadline(), None);
    }
    driver.advance(ms(1000));
    assert_eq!(overdue(&mut driver), []);
}

#[test]
fn r4_each_attempt_has_its_own_time() {
    let mut driver = Driver::of([LegOptions {
        timeout: Some(ms(100)),
        grace: ms(30),
        ..retried(3, ms(20))
    }]);
    let mut unit = driver.give_and_take();
    let mut attempts = Vec::new();
    for _ in 0..2 {
        driver.advance(ms(90));
        driver.fail(unit, []);
        driver.advance(ms(20));
        unit = driver.unit().expect("another attempt");
        let (attempt, at) = unit.deadline().expect("a deadline");
        assert_eq!(at, driver.now.after(ms(100)));
        attempts.push(attempt);
    }
    assert_ne!(attempts[0], attempts[1]);
    driver.advance(ms(99));
    assert_eq!(overdue(&mut driver), []);
    driver.advance(ms(1));
    assert_eq!(overdue(&mut driver).len(), 1);
}

#[test]
fn r8_a_late_attempt_is_tried_again_while_its_operation_still_runs() {
    let mut driver = Driver::of([LegOptions {
        retry: Some(Retry::new(2, Backoff::Fixed(ms(10)))),
        ..timed()
    }]);
    let unit = driver.give_and_take();
    driver.advance(ms(100));
    let [late] = overdue(&mut driver)[..] else {
        panic!("one is late")
    };
    driver.fail(unit, [1]);
    assert_eq!(driver.undo_all(), [1]);
    driver.advance(ms(10));
    let second = driver.unit().expect("another attempt");
    driver.done(second, []);
    driver.end();
    assert!(!driver.finished(), "the first operation still runs");
    driver.call(|engine, _| engine.ended(late.attempt, true));
    assert!(driver.finished());
    assert_eq!(driver.engine().late(), 1);
    assert_eq!(driver.engine().counts().committed, 1);
}

#[test]
fn r8_after_the_grace_it_is_abandoned_and_listed() {
    let mut driver = Driver::of([timed()]);
    let unit = driver.give_and_take();
    driver.advance(ms(105));
    let attempt = overdue(&mut driver)[0].attempt;
    driver.advance(ms(29));
    assert_eq!(overdue(&mut driver), []);
    driver.advance(ms(1));
    let news = Overdue {
        attempt,
        leg: Some(0),
        abandoned: true,
    };
    assert_eq!(overdue(&mut driver), [news]);
    let listed = Abandoned {
        branch: unit.branch,
        leg: 0,
        attempt: 1,
        ran: ms(135),
    };
    assert_eq!(driver.engine().abandoned(), (&[listed][..], 1));
    driver.fail(unit, []);
    driver.end();
    assert!(driver.finished());
    // Its result comes after all, for nothing.
    driver.call(|engine, _| engine.ended(attempt, true));
    assert_eq!(driver.engine().late(), 1);
    assert!(driver.finished());
}

#[test]
fn r8_the_abandoned_are_counted_exactly_and_listed_as_samples() {
    let mut driver = Driver::of([timed()]);
    let many = MAX_SAMPLES as u64 + 20;
    driver.give(0..many);
    let units = driver.units();
    driver.advance(ms(100));
    driver.advance(ms(30));
    for unit in units {
        let error = Error::new("timeout", 0);
        let again = anabranch_core::engine::Again::No;
        driver.complete(unit, Outcome::Failed { error, again }, None);
    }
    let (listed, count) = driver.engine().abandoned();
    assert_eq!((listed.len(), count), (MAX_SAMPLES, many));
    assert_eq!(driver.engine().codes().get("timeout"), Some(&many));
}

#[test]
fn r8_an_aborted_run_waits_for_late_operations_no_longer_than_their_grace() {
    let mut driver = Driver::of([timed()]);
    let unit = driver.give_and_take();
    driver.abort();
    driver.advance(ms(100));
    driver.fail(unit, []);
    assert_eq!(overdue(&mut driver).len(), 1);
    assert!(!driver.finished());
    driver.advance(ms(30));
    assert!(!driver.finished(), "the driver has not heard of it yet");
    assert_eq!(overdue(&mut driver).len(), 1);
    assert!(driver.finished());
}

#[test]
fn e7_r8_what_is_late_is_left_behind_at_once_when_nobody_waits_any_longer() {
    let mut driver = Driver::of([timed()]);
    driver.give([1, 2]);
    let mut units = driver.units();
    let (timely, late) = (units.pop().expect("two"), units.pop().expect("two"));
    let (attempt, _) = late.deadline().expect("a deadline");
    driver.advance(ms(60));
    // It has begun again, and has its time yet.
    driver.fail(timely, []);
    let timely = driver.give_and_take();
    driver.advance(ms(40));
    overdue(&mut driver);
    driver.fail(late, []);
    driver.end();
    driver.advance(ms(10));
    driver.call(Engine::end_grace);
    driver.poll();
    let news = Overdue {
        attempt,
        leg: Some(0),
        abandoned: true,
    };
    assert_eq!(overdue(&mut driver), [news]);
    let left = Abandoned {
        branch: BranchId::TRUNK,
        leg: 0,
        attempt: 1,
        ran: ms(110),
    };
    assert_eq!(driver.engine().abandoned(), (&[left][..], 1));
    driver.advance(ms(1000));
    driver.done(timely, []);
    assert_eq!(
        driver.engine().abandoned().1,
        1,
        "that of the other is not over"
    );
}
