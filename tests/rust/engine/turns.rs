//! Whose turn it is: the row B12.

use anabranch_core::branch::{BranchId, Own};
use anabranch_core::engine::{Batch, LegOptions, Unit};
use proptest::prelude::*;

use crate::driver::{Driver, Lab, PORT};
use crate::options::{age, leg, ms, size, wide, windowed};

/// A driver with a branch of each of these weights.
fn weighted(leg: LegOptions, weights: &[u16]) -> (Driver, Vec<BranchId>) {
    let mut driver = Driver::fanned(0, [leg]);
    let branches = weights.iter().map(|weight| {
        driver.open_own(Own {
            weight: Some(*weight),
            ..Own::default()
        })
    });
    let branches = branches.collect();
    (driver, branches)
}

fn unit(driver: &mut Driver) -> Unit<Lab> {
    let Some(unit) = driver.unit() else {
        panic!("nothing is handed out")
    };
    unit
}

/// Hands out and finishes so many units, one after the other; says whose they were.
fn served(driver: &mut Driver, units: usize) -> Vec<BranchId> {
    let mut whose = Vec::new();
    for _ in 0..units {
        let unit = unit(driver);
        whose.push(unit.branch);
        driver.done(unit, []);
    }
    whose
}

fn batch(driver: &mut Driver) -> Batch<Lab> {
    let Some(batch) = driver.call(|engine, now| engine.next_batch(PORT, 500, now)) else {
        panic!("nothing is handed out")
    };
    batch
}

#[test]
fn b12_a_tenant_with_much_waiting_does_not_hold_up_one_with_a_single_item() {
    let (mut driver, branches) = weighted(leg(), &[1, 1, 1]);
    driver.give_to(branches[0], 0..900);
    assert_eq!(served(&mut driver, 10), [branches[0]; 10]);
    driver.give_to(branches[1], [1]);
    driver.give_to(branches[2], [2]);
    let expected = [branches[0], branches[1], branches[2], branches[0]];
    assert_eq!(served(&mut driver, 4), expected);
}

#[test]
fn b12_a_branch_has_as_many_units_in_a_turn_as_its_weight_says() {
    for concurrency in [1, 4] {
        let (mut driver, branches) = weighted(wide(concurrency, false), &[3, 1]);
        for branch in &branches {
            driver.give_to(*branch, 0..100);
        }
        let [a, b] = [branches[0], branches[1]];
        assert_eq!(served(&mut driver, 8), [a, a, a, b, a, a, a, b]);
    }
}

#[test]
fn b12_windows_take_turns_too() {
    let (mut driver, branches) = weighted(windowed(size(2)), &[2, 1]);
    for branch in &branches {
        driver.give_to(*branch, 0..20);
    }
    let [a, b] = [branches[0], branches[1]];
    assert_eq!(served(&mut driver, 6), [a, a, b, a, a, b]);
}

#[test]
fn b12_a_turn_that_ended_early_is_not_saved_up() {
    let (mut driver, branches) = weighted(leg(), &[4, 1]);
    let [a, b] = [branches[0], branches[1]];
    driver.give_to(a, [1, 2]);
    driver.give_to(b, 0..10);
    assert_eq!(served(&mut driver, 3), [a, a, b]);
    driver.give_to(a, 0..10);
    // What was left of the turn is gone: it stands behind the one that waits, and has four again.
    assert_eq!(served(&mut driver, 6), [b, a, a, a, a, b]);
}

#[test]
fn b12_a_batch_that_others_wait_for_is_short() {
    let (mut driver, branches) = weighted(leg(), &[2, 1]);
    driver.give_to(branches[0], 0..900);
    let alone = batch(&mut driver);
    assert_eq!(alone.values.len(), 500, "nobody waits");
    driver.call(|engine, now| engine.complete_batch(branches[0], 0, (500, 0), now));
    drop(alone);
    driver.give_to(branches[1], 0..300);
    for (whose, long) in [(0, 128), (1, 64), (0, 128), (1, 64)] {
        let batch = batch(&mut driver);
        assert_eq!((batch.branch, batch.values.len()), (branches[whose], long));
        driver.call(|engine, now| engine.complete_batch(batch.branch, 0, (long, 0), now));
    }
}

#[test]
fn b12_a_batch_that_ends_early_is_one_unit_of_the_turn() {
    let (mut driver, branches) = weighted(leg(), &[2, 1]);
    for branch in &branches {
        driver.give_to(*branch, 0..50);
    }
    for (whose, most) in [(0, 500), (0, 1), (1, 500), (0, 1), (0, 500), (1, 1)] {
        let Some(mut batch) = driver.call(|engine, now| engine.next_batch(PORT, most, now)) else {
            panic!("nothing is handed out")
        };
        assert_eq!(batch.branch, branches[whose]);
        let rest = batch.values.split_off(1);
        let current = batch.values.remove(0);
        let unit = driver
            .call(|engine, now| engine.break_batch(batch.branch, 0, (0, 0), current, rest, now));
        driver.done(unit, []);
    }
}

#[test]
fn b12_a_batch_of_one_is_one_unit_of_the_turn() {
    let (mut driver, branches) = weighted(leg(), &[3, 1]);
    for branch in &branches {
        driver.give_to(*branch, 0..50);
    }
    for whose in [0, 0, 0, 1, 0, 0, 0, 1] {
        let batch = driver.call(|engine, now| engine.next_batch(PORT, 1, now));
        let branch = batch.map(|it| it.branch);
        assert_eq!(branch, Some(branches[whose]));
        driver.call(|engine, now| engine.complete_batch(branches[whose], 0, (1, 0), now));
    }
}

#[test]
fn b12_a_window_that_leaves_by_age_is_not_before_its_turn() {
    let (mut driver, branches) = weighted(windowed(age(10)), &[1, 1]);
    driver.give_to(branches[1], [1]);
    driver.give_to(branches[0], [2]);
    driver.advance(ms(10));
    let expected = [branches[1], branches[0]];
    assert_eq!(served(&mut driver, 2), expected);
}

proptest! {
    #[test]
    fn b12_who_always_has_something_is_served_by_weight(
        weights in prop::collection::vec(1_u16..6, 2..6),
        in_hand in 1_u32..4,
        units in 1_usize..150,
    ) {
        // One branch may have all that is in hand: it never waits for a place of its own.
        let (mut driver, branches) = weighted(wide(in_hand, false), &weights);
        for branch in &branches {
            driver.give_to(*branch, 0..200);
        }
        let mut turns = vec![0_u32; branches.len()];
        let mut hand = Vec::new();
        for _ in 0..units {
            if hand.len() == in_hand as usize {
                driver.done(hand.remove(0), []);
            }
            let unit = unit(&mut driver);
            turns[unit.branch.0 as usize - 1] += 1;
            hand.push(unit);
        }
        // Full turns differ by one at most.
        let full = |(served, weight): (&u32, &u16)| *served / u32::from(*weight);
        let full: Vec<_> = turns.iter().zip(&weights).map(full).collect();
        let (least, most) = (full.iter().min(), full.iter().max());
        let apart = most.zip(least).map_or(0, |(most, least)| most - least);
        prop_assert!(apart <= 1, "{turns:?} of {weights:?}");
    }
}
