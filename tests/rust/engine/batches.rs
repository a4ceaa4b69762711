//! Batches: the rows B3, R1, T4, T11, C7 and E8 where items are handed out together.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{Again, Batch, Item, Outcome, Unit};

use crate::driver::{Driver, Error, Event, Lab, PORT, scope};
use crate::options::{leg, ms, retried, size, wide, windowed};

fn batch(driver: &mut Driver, most: usize) -> Option<(Vec<u64>, Batch<Lab>)> {
    let batch = driver.call(|engine, now| engine.next_batch(PORT, most, now))?;
    Some((batch.values.iter().map(|event| event.0).collect(), batch))
}

fn completed(driver: &mut Driver, batch: &Batch<Lab>) {
    filtered(driver, batch, 0);
}

fn filtered(driver: &mut Driver, batch: &Batch<Lab>, taken_out: usize) {
    let items = batch.values.len();
    driver.call(|engine, now| {
        engine.complete_batch(batch.branch, batch.leg, (items, taken_out), now);
    });
}

/// Ends a batch at its `at`th item, which stays in hand.
fn broken(driver: &mut Driver, mut batch: Batch<Lab>, at: usize) -> Unit<Lab> {
    let rest = batch.values.split_off(at + 1);
    let Some(current) = batch.values.pop() else {
        panic!("the batch has no item number {at}")
    };
    let (branch, leg) = (batch.branch, batch.leg);
    driver.call(|engine, now| engine.break_batch(branch, leg, (at, 0), current, rest, now))
}

fn failed(driver: &mut Driver, unit: Unit<Lab>, again: Again) {
    let error = Error::new("broken", 0);
    driver.call(|engine, now| {
        engine.complete(unit, Outcome::Failed { error, again }, None, now);
    });
}

#[test]
fn e8_a_batch_is_committed_whole_and_in_order() {
    let mut driver = Driver::of([leg()]);
    driver.give(0..5);
    let (seen, first) = batch(&mut driver, 3).expect("three items");
    assert_eq!(seen, [0, 1, 2]);
    assert!(batch(&mut driver, 3).is_none(), "t11: one in flight");
    assert!(driver.unit().is_none(), "t11: one in flight");
    completed(&mut driver, &first);
    let (seen, second) = batch(&mut driver, 3).expect("two items");
    assert_eq!(seen, [3, 4]);
    completed(&mut driver, &second);
    driver.end();
    let counts = driver.call(|engine, _| engine.counts());
    assert_eq!((counts.committed, counts.left), (5, 0));
    assert!(driver.finished());
}

#[test]
fn e8_what_a_handler_takes_out_of_a_batch_is_filtered() {
    let mut driver = Driver::of([leg()]);
    driver.give(0..5);
    let (_, first) = batch(&mut driver, 3).expect("three items");
    filtered(&mut driver, &first, 2);
    let (_, mut second) = batch(&mut driver, 3).expect("two items");
    let Some(current) = second.values.pop() else {
        panic!("the second batch has two items")
    };
    let unit = driver.call(|engine, now| {
        engine.break_batch(second.branch, second.leg, (1, 1), current, Vec::new(), now)
    });
    driver.fail(unit, []);
    driver.end();
    let counts = driver.call(|engine, _| engine.counts());
    assert_eq!(
        (counts.committed, counts.filtered, counts.failed),
        (1, 3, 1)
    );
    assert!(driver.finished());
}

#[test]
fn t11_a_batch_is_of_one_branch() {
    let mut driver = Driver::fanned(0, [leg()]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, [1]);
    driver.give_to(b, [10]);
    driver.give_to(a, [2]);
    let (seen, of_a) = batch(&mut driver, 9).expect("those of a");
    assert_eq!((seen, of_a.branch), (vec![1, 2], a));
    let (seen, of_b) = batch(&mut driver, 9).expect("that of b");
    assert_eq!((seen, of_b.branch), (vec![10], b));
}

#[test]
fn t11_there_is_no_batch_of_windows_nor_where_several_units_may_be_in_flight() {
    let mut driver = Driver::of([wide(4, false)]);
    driver.give(0..5);
    assert!(batch(&mut driver, 9).is_none());
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give(0..5);
    assert!(batch(&mut driver, 9).is_none());
}

#[test]
fn c7_an_item_with_something_to_undo_is_handed_out_alone() {
    let mut driver = Driver::of([leg()]);
    driver.give([1]);
    let item = Item {
        scope: Some(Box::new(scope([7]))),
        ..Item::new(Event::new(2))
    };
    driver.give_item(BranchId::TRUNK, item);
    let (seen, first) = batch(&mut driver, 9).expect("the plain one");
    assert_eq!(seen, [1]);
    completed(&mut driver, &first);
    assert!(batch(&mut driver, 9).is_none());
    let unit = driver.unit().expect("the other one");
    driver.fail(unit, []);
    assert_eq!(driver.undo_all(), [7]);
}

#[test]
fn r1_a_failure_in_a_batch_is_one_items_and_the_rest_keeps_its_turn() {
    let mut driver = Driver::of([leg()]);
    driver.give(0..5);
    let (_, first) = batch(&mut driver, 4).expect("four items");
    let unit = broken(&mut driver, first, 1);
    failed(&mut driver, unit, Again::No);
    let (seen, rest) = batch(&mut driver, 9).expect("the rest");
    assert_eq!(seen, [2, 3, 4]);
    completed(&mut driver, &rest);
    driver.end();
    let counts = driver.call(|engine, _| engine.counts());
    assert_eq!((counts.committed, counts.failed), (4, 1));
    assert!(counts.balanced() && driver.finished());
}

#[test]
fn b3_an_item_that_is_tried_again_is_not_overtaken() {
    let mut driver = Driver::of([retried(2, ms(100))]);
    driver.give(0..3);
    let (_, first) = batch(&mut driver, 9).expect("three items");
    let unit = broken(&mut driver, first, 0);
    failed(&mut driver, unit, Again::Yes);
    assert!(batch(&mut driver, 9).is_none(), "0 is in back-off");
    driver.pass(ms(100));
    driver.poll();
    assert!(
        batch(&mut driver, 9).is_none(),
        "a further attempt comes alone"
    );
    let unit = driver.unit().expect("0 again");
    driver.done(unit, []);
    assert_eq!(batch(&mut driver, 9).expect("the rest").0, [1, 2]);
}

#[test]
fn e8_what_an_aborted_batch_had_not_begun_is_left() {
    let mut driver = Driver::of([leg()]);
    driver.give(0..5);
    let (_, first) = batch(&mut driver, 4).expect("four items");
    driver.abort();
    let unit = broken(&mut driver, first, 1);
    failed(&mut driver, unit, Again::No);
    let counts = driver.call(|engine, _| engine.counts());
    assert_eq!((counts.committed, counts.failed, counts.left), (1, 1, 3));
    assert!(counts.balanced());
    driver.poll();
    assert!(driver.finished());
}

#[test]
fn e8_a_batch_straight_from_the_source_counts_as_any_other() {
    let mut driver = Driver::of([leg()]);
    assert!(driver.call(|engine, _| engine.straight()));
    driver.call(|engine, _| engine.lend(5));
    assert!(
        !driver.call(|engine, _| engine.straight()),
        "t11: one in flight"
    );
    driver.end();
    assert!(!driver.finished(), "they are still in hand");
    driver.call(|engine, now| engine.complete_batch(BranchId::TRUNK, 0, (5, 2), now));
    driver.poll();
    let counts = driver.call(|engine, _| engine.counts());
    assert_eq!(
        (counts.received, counts.committed, counts.filtered),
        (5, 3, 2)
    );
    assert!(driver.finished());
}

#[test]
fn b3_nothing_is_taken_straight_past_what_waits() {
    let mut queued = Driver::of([leg()]);
    queued.give([1]);
    assert!(!queued.call(|engine, _| engine.straight()));

    let mut retrying = Driver::of([retried(2, ms(100))]);
    retrying.give([1]);
    let unit = retrying.unit().expect("the one that waits");
    failed(&mut retrying, unit, Again::Yes);
    assert!(
        !retrying.call(|engine, _| engine.straight()),
        "in back-off it still has its turn"
    );
    retrying.pass(ms(100));
    retrying.poll();
    assert!(!retrying.call(|engine, _| engine.straight()));
}

#[test]
fn t11_nothing_is_taken_straight_where_units_overlap_or_gather_or_part() {
    for other in [wide(4, false), windowed(size(2))] {
        let mut driver = Driver::of([other]);
        assert!(!driver.call(|engine, _| engine.straight()));
    }
    let mut driver = Driver::fanned(0, [leg()]);
    assert!(!driver.call(|engine, _| engine.straight()));
}

#[test]
fn e5_nothing_is_taken_straight_once_the_source_has_ended() {
    let mut driver = Driver::of([leg()]);
    driver.end();
    assert!(!driver.call(|engine, _| engine.straight()));
}
