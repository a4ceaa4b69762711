//! How often units are tried, and what is kept of their failures: the rows R and T6.

use std::time::Duration;

use anabranch_core::engine::{LegOptions, MAX_SAMPLES, Outcome};
use anabranch_core::retry::{Backoff, Jitter, Retry};

use crate::driver::{Driver, Error, numbers};
use crate::options::{leg, ms, retried};

#[test]
fn r1_attempts_include_the_first() {
    for attempts in 1..5 {
        let mut driver = Driver::of([retried(attempts, ms(0))]);
        let mut unit = driver.give_and_take();
        for attempt in 1..=attempts {
            assert_eq!((unit.attempt, numbers(&unit)), (attempt, vec![1]));
            driver.fail(unit, []);
            driver.poll();
            match driver.unit() {
                Some(next) => unit = next,
                None => break,
            }
        }
        let failure = &driver.engine().failures()[0];
        assert_eq!(
            (failure.attempts as usize, failure.history.len() + 1),
            (attempts as usize, attempts as usize)
        );
        assert_eq!(driver.engine().counts().retried, u64::from(attempts - 1));
    }
}

#[test]
fn r2_r6_delays_are_exact() {
    let backoff = Backoff::Exponential {
        base: ms(200),
        factor: 2.0,
        cap: ms(1000),
        jitter: Jitter::None,
    };
    let retry = Some(Retry {
        attempts: 6,
        backoff,
    });
    let mut driver = Driver::of([LegOptions { retry, ..leg() }]);
    let mut next = driver.give_and_take();
    for delay in [200, 400, 800, 1000, 1000].map(ms) {
        driver.fail(next, []);
        assert_eq!(driver.engine().deadline(), Some(driver.now.after(delay)));
        driver.advance(delay.saturating_sub(Duration::from_nanos(1)));
        assert!(driver.unit().is_none());
        driver.advance(Duration::from_nanos(1));
        next = driver.unit().expect("the back-off is over");
    }
    driver.fail(next, []);
    assert_eq!(driver.engine().failures()[0].delay, ms(3400));
}

#[test]
fn r3_what_makes_no_sense_is_not_tried_again() {
    let mut driver = Driver::of([retried(5, ms(0))]);
    let unit = driver.give_and_take();
    let outcome = Outcome::Failed {
        error: Error::new("TypeError", 0),
        retryable: false,
    };
    driver.complete(unit, outcome, None);
    let failure = &driver.engine().failures()[0];
    assert_eq!((failure.attempts, failure.error.0), (1, "TypeError"));
}

#[test]
fn r5_the_failure_keeps_attempts_each_error_and_the_delay() {
    let mut driver = Driver::of([retried(3, ms(20))]);
    let mut next = Some(driver.give_and_take());
    while let Some(unit) = next {
        driver.fail(unit, []);
        driver.advance(ms(20));
        next = driver.unit();
    }
    let failure = &driver.engine().failures()[0];
    assert_eq!(
        (failure.attempts, failure.delay, failure.error.1),
        (3, ms(40), 3)
    );
    assert_eq!(
        failure
            .history
            .iter()
            .map(|error| error.1)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn t6_counts_by_code_are_exact_and_samples_capped() {
    let mut driver = Driver::of([leg()]);
    let many = MAX_SAMPLES as u64 + 50;
    for order in 0..many {
        let unit = driver.give_and_take();
        driver.fail(unit, [order]);
        driver.undo_all();
    }
    let engine = driver.engine();
    assert_eq!(engine.codes().get("Oops"), Some(&many));
    assert_eq!(
        (engine.failures().len(), engine.undone().len()),
        (MAX_SAMPLES, MAX_SAMPLES)
    );
    assert_eq!(engine.undone_counts().done, many);
    let dead = driver.graveyard();
    assert_eq!((dead.errors.len(), dead.undos.len()), (50, 50));
}
