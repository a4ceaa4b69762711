//! How often units are tried, and what is kept of their failures: the rows R and T6.

use std::time::Duration;

use anabranch_core::engine::{Again, LegOptions, MAX_HISTORY, MAX_SAMPLES, Outcome};
use anabranch_core::retry::{Backoff, Budget, Cron, GaveUp, Jitter, Retry};

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
    let retry = Some(Retry::new(6, backoff));
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

/// Fails a unit over and over; returns how long the engine waited each time.
fn waits(driver: &mut Driver, again: Again) -> Vec<Duration> {
    let mut waits = Vec::new();
    let mut next = Some(driver.give_and_take());
    while let Some(unit) = next {
        let error = Error::new("Oops", u64::from(unit.attempt));
        driver.complete(unit, Outcome::Failed { error, again }, None);
        let Some(deadline) = driver.engine().deadline() else {
            return waits;
        };
        let wait = deadline.since(driver.now);
        waits.push(wait);
        driver.advance(wait.saturating_sub(Duration::from_nanos(1)));
        assert!(driver.unit().is_none(), "not a nanosecond early");
        driver.advance(wait.min(Duration::from_nanos(1)));
        next = driver.unit();
    }
    waits
}

fn trying(retry: Retry) -> Driver {
    let retry = Some(retry);
    Driver::of([LegOptions { retry, ..leg() }])
}

#[test]
fn r2_r6_decorrelated_delays_go_by_the_one_before_and_by_the_seed() {
    let (base, cap) = (ms(100), ms(2000));
    let retry = Retry::new(20, Backoff::Decorrelated { base, cap });
    let delays = waits(&mut trying(retry.clone()), Again::Yes);
    assert_eq!(delays.len(), 19);
    let mut before = base;
    for delay in &delays {
        assert!(
            *delay >= base && *delay <= (before * 3).min(cap),
            "{delays:?}"
        );
        before = *delay;
    }
    assert!(delays.iter().any(|delay| *delay > base * 3), "{delays:?}");
    assert_eq!(delays, waits(&mut trying(retry), Again::Yes));
}

#[test]
fn r2_r6_cron_waits_for_instants_of_the_calendar() {
    let cron = Cron::parse("*/20 30 0 * * mon,tue").expect("valid");
    let mut driver = trying(Retry::new(5, Backoff::Cron(cron)));
    driver.pass(ms(1_810_500));
    let delays = waits(&mut driver, Again::Yes);
    // 00:30:10.5, then 00:30:20, :40, and the next day's 00:30:00 and :20.
    let expected = [9_500, 20_000, 86_400_000 - 40_000, 20_000];
    assert_eq!(delays, expected.map(ms));
}

#[test]
fn r2_r6_a_custom_delay_is_the_one_asked_for() {
    let mut driver = trying(Retry::new(3, Backoff::Custom));
    assert_eq!(waits(&mut driver, Again::After(ms(77))), [ms(77); 2]);
    assert_eq!(driver.engine().failures()[0].delay, ms(154));
}

#[test]
fn r4_no_attempt_begins_later_than_the_total_after_the_first() {
    let mut driver = trying(Retry {
        total: Some(ms(1000)),
        ..Retry::new(9, Backoff::Fixed(ms(300)))
    });
    driver.pass(ms(5000));
    let mut unit = driver.give_and_take();
    // Each attempt takes 150 ms: they begin after 0, 450 and 900 ms; one after 1350 would be late.
    for _ in 0..2 {
        driver.pass(ms(150));
        driver.fail(unit, []);
        driver.advance(ms(300));
        unit = driver.unit().expect("another attempt");
    }
    driver.pass(ms(150));
    driver.fail(unit, []);
    let failure = &driver.engine().failures()[0];
    assert_eq!((failure.attempts, failure.gave_up), (3, GaveUp::Total));
    assert_eq!(driver.engine().deadline(), None);
}

#[test]
fn r4_a_budget_is_shared_by_all_units() {
    let budget = Budget::new(ms(1000), 2);
    let retry = Retry {
        budget: Some(budget),
        ..Retry::new(9, Backoff::Fixed(ms(10)))
    };
    let legs = [LegOptions {
        retry: Some(retry),
        concurrency: 8,
        ..leg()
    }];
    let mut driver = Driver::of(legs);
    driver.give(1..=5);
    for unit in driver.units() {
        driver.fail(unit, []);
    }
    let given_up: Vec<_> = driver
        .engine()
        .failures()
        .iter()
        .map(|it| it.gave_up)
        .collect();
    assert_eq!(given_up, [GaveUp::Budget; 3]);
    driver.advance(ms(10));
    for unit in driver.units() {
        driver.done(unit, []);
    }
    // One more token has come in a second.
    driver.advance(ms(990));
    driver.give([6, 7]);
    for unit in driver.units() {
        driver.fail(unit, []);
    }
    assert_eq!(driver.engine().failures().len(), 4);
    assert_eq!(driver.engine().timers(), 1);
}

#[test]
fn r5_of_many_attempts_the_first_error_and_the_latest_are_kept() {
    let attempts = 100;
    let mut driver = Driver::of([retried(attempts, ms(1))]);
    waits(&mut driver, Again::Yes);
    let failure = &driver.engine().failures()[0];
    let kept: Vec<_> = failure.history.iter().map(|error| error.1).collect();
    assert_eq!((failure.attempts, failure.error.1), (100, 100));
    assert_eq!((kept.len(), kept[0], kept[1]), (MAX_HISTORY, 1, 69));
    let mut dead: Vec<_> = driver.graveyard().errors.iter().map(|it| it.1).collect();
    dead.sort_unstable();
    assert_eq!(dead, (2..69).collect::<Vec<_>>());
}

#[test]
fn r5_a_failure_says_why_there_was_no_further_attempt() {
    let table = [
        (Again::No, 3, GaveUp::Error, 1),
        (Again::Yes, 3, GaveUp::Attempts, 3),
        (Again::Yes, 1, GaveUp::Attempts, 1),
    ];
    for (again, attempts, gave_up, made) in table {
        let mut driver = Driver::of([retried(attempts, ms(1))]);
        waits(&mut driver, again);
        let failure = &driver.engine().failures()[0];
        assert_eq!((failure.gave_up, failure.attempts), (gave_up, made));
    }
}

#[test]
fn r3_what_makes_no_sense_is_not_tried_again() {
    let mut driver = Driver::of([retried(5, ms(0))]);
    let unit = driver.give_and_take();
    let outcome = Outcome::Failed {
        error: Error::new("TypeError", 0),
        again: Again::No,
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
