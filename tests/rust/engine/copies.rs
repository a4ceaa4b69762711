//! Courses of copies: one unit becomes two, and what became of both tells what becomes of it. Rows
//! T7 and B1, and what E8, C17, T3 and W2 say of copies.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{LegOptions, Operator, Outcome, Unit};

use crate::driver::{Driver, Event, Lab, numbers, scope};
use crate::options::{leg, narrow, size, windowed};

/// A leg of the copies' course.
fn copy(leg: LegOptions) -> LegOptions {
    LegOptions { course: 1, ..leg }
}

/// A leg that copies its units.
fn copies() -> LegOptions {
    LegOptions {
        copies: Some(1),
        ..leg()
    }
}

fn operator(operator: Operator) -> LegOptions {
    LegOptions {
        operator: Some(operator),
        ..leg()
    }
}

/// Copies what waits at the first leg: the copy of event `n` is event `100 + n`.
fn copy_all(driver: &mut Driver, legs: usize) {
    while let Some(unit) = driver.unit() {
        assert_eq!(unit.leg, 0);
        let number = numbers(&unit)[0];
        driver.done(unit, [number, 100 + number]);
    }
    for leg in 1..legs {
        driver.forward(leg);
    }
}

/// The units that wait, as leg and event.
fn waiting(driver: &mut Driver) -> Vec<(usize, u64, Unit<Lab>)> {
    let units = std::iter::from_fn(|| driver.unit());
    units
        .map(|unit| (unit.leg, numbers(&unit)[0], unit))
        .collect()
}

#[test]
fn b1_both_courses_see_all_items_in_the_same_order_and_e8_copies_are_produced() {
    let wide = LegOptions {
        concurrency: 9,
        ..leg()
    };
    let mut driver = Driver::of([copies(), copy(wide.clone()), wide]);
    driver.give(1..=3);
    copy_all(&mut driver, 3);
    let units = waiting(&mut driver);
    let of = |leg| units.iter().filter(move |it| it.0 == leg).map(|it| it.1);
    assert_eq!(of(1).collect::<Vec<_>>(), [101, 102, 103]);
    assert_eq!(of(2).collect::<Vec<_>>(), [1, 2, 3]);
    for (.., unit) in units {
        driver.done(unit, []);
    }
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!(
        (counts.received, counts.produced, counts.committed),
        (3, 3, 6)
    );
}

#[test]
fn c17_what_a_unit_did_is_undone_once_both_copies_have_ended_if_either_has_failed() {
    for failing in [0, 1, 2] {
        for last in [1, 2] {
            let mut driver = Driver::of([copies(), copy(leg()), leg()]);
            let unit = driver.give_and_take();
            let both = Outcome::Done(vec![Event::new(1), Event::new(101)]);
            driver.complete(unit, both, Some(scope([10, 11]).into()));
            driver.forward(1);
            driver.forward(2);
            let mut units = waiting(&mut driver);
            units.sort_by_key(|it| it.0 == last);
            let mut undone = Vec::new();
            for (place, (leg, _, unit)) in units.into_iter().enumerate() {
                if leg == failing {
                    driver.fail(unit, []);
                } else {
                    driver.done(unit, []);
                }
                undone = driver.undo_all();
                assert!(place == 1 || undone.is_empty(), "the other is under way");
            }
            let expected: &[u64] = if failing == 0 { &[] } else { &[11, 10] };
            assert_eq!(undone, expected, "leg {failing} fails");
            driver.end();
            assert!(driver.finished());
        }
    }
}

#[test]
fn t3_a_failure_stays_in_its_course_but_for_those_behind_the_last_sink() {
    // An operator behind the sink of the copies, one in front of the sink of the items, and one
    // behind all.
    let legs = [
        copies(),
        copy(leg()),
        copy(operator(Operator::DeadLetter)),
        operator(Operator::Recover),
        leg(),
        operator(Operator::DeadLetter),
    ];
    let takers = |legs: &[LegOptions], failing: usize| {
        let mut driver = Driver::of(legs);
        driver.give([1]);
        copy_all(&mut driver, legs.len());
        for (leg, _, unit) in waiting(&mut driver) {
            if leg == failing {
                driver.fail(unit, []);
            } else {
                driver.done(unit, []);
            }
        }
        let failures = driver.call(|engine, _| engine.take_failures());
        let mut taker = failures.iter().map(|(leg, _)| *leg).next();
        let mut takers = Vec::new();
        while let Some(leg) = taker {
            takers.push(leg);
            taker = driver.engine().operator_behind(leg);
        }
        takers
    };
    assert_eq!(takers(&legs, 1), [2, 5]);
    let last = legs.len() - 2;
    assert_eq!(takers(&legs, last), [5], "not that of the copies");
}

#[test]
fn w2_the_last_window_of_a_course_does_not_wait_for_the_other_one() {
    let mut driver = Driver::of([copies(), copy(leg()), windowed(size(10))]);
    driver.give([1]);
    copy_all(&mut driver, 3);
    driver.end();
    driver.poll();
    // The copy is with its handler all the while.
    let units = waiting(&mut driver);
    let legs: Vec<_> = units.iter().map(|it| it.0).collect();
    assert_eq!(legs, [1, 2]);
    assert!(!driver.finished());
    for (.., unit) in units {
        driver.done(unit, []);
    }
    assert!(driver.finished());
}

#[test]
fn b6_a_full_course_holds_back_what_copies_and_not_the_other_course() {
    let mut driver = Driver::of([copies(), copy(narrow(1, false)), leg()]);
    driver.give([1]);
    copy_all(&mut driver, 3);
    let mut slow = Vec::new();
    for (leg, _, unit) in waiting(&mut driver) {
        match leg {
            1 => slow.push(unit),
            _ => driver.done(unit, []),
        }
    }
    driver.give([2]);
    copy_all(&mut driver, 3);
    assert_eq!(driver.engine().room(), 0, "the source waits");
    driver.give([3]);
    let next = waiting(&mut driver);
    let legs: Vec<_> = next.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(
        legs,
        [(2, 2)],
        "the other course goes on, and what copies waits"
    );
    for unit in next.into_iter().map(|it| it.2).chain(slow) {
        driver.done(unit, []);
    }
    let next = waiting(&mut driver);
    let legs: Vec<_> = next.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(legs, [(1, 102), (0, 3)], "there is room again");
    for (leg, _, unit) in next {
        driver.done(unit, [3, 103].into_iter().filter(|_| leg == 0));
    }
    driver.forward(1);
    driver.forward(2);
    for (.., unit) in waiting(&mut driver) {
        driver.done(unit, []);
    }
    driver.end();
    assert!(driver.finished());
}

#[test]
fn t7_the_copies_of_a_tenant_stay_in_its_branch() {
    let mut driver = Driver::fanned(0, [copies(), copy(leg()), leg()]);
    let (one, other) = (driver.open(), driver.open());
    driver.give_to(one, [1]);
    driver.give_to(other, [2]);
    copy_all(&mut driver, 3);
    let of: Vec<(BranchId, usize)> = waiting(&mut driver)
        .into_iter()
        .map(|(leg, _, unit)| {
            let branch = unit.branch;
            driver.done(unit, []);
            (branch, leg)
        })
        .collect();
    assert_eq!(of.len(), 4);
    for branch in [one, other] {
        assert!(of.contains(&(branch, 1)) && of.contains(&(branch, 2)));
        assert_eq!(driver.engine().counts_of(branch).committed, 2);
        assert_eq!(driver.engine().counts_of(branch).received, 1);
    }
    driver.end();
    assert!(driver.finished());
}
