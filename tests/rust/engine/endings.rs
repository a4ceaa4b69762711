//! The end of a run: end, drain, abort, discard. The rows W2, W11, W12, B8, C18, R7.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{Item, Outcome, Spot};
use anabranch_core::retry::GaveUp;
use anabranch_core::window::Reason::{Close, Size};
use anabranch_core::window::{Partial, WindowOptions};

use crate::driver::{Driver, Error, Event, numbers, scope};
use crate::options::{age, leg, ms, narrow, retried, size, windowed};

#[test]
fn w2_the_partial_window_leaves_when_the_source_completes() {
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give([1, 2, 3]);
    driver.end();
    assert!(!driver.finished(), "two windows have not been handled");
    assert_eq!(driver.windows(), [(vec![1, 2], Size), (vec![3], Close)]);
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.committed, counts.windows), (3, 2));
}

#[test]
fn w11_on_abort_the_partial_window_follows_its_policy() {
    let table = [
        (None, true),
        (Some(Partial::Drop), true),
        (Some(Partial::Flush), false),
    ];
    for (on_cancel, dropped) in table {
        let mut driver = Driver::of([windowed(WindowOptions {
            on_cancel,
            ..size(2)
        })]);
        driver.give([1, 2, 3]);
        driver.abort();
        // Windows that have left stay readable.
        let mut expected = vec![(vec![1, 2], Size)];
        if !dropped {
            expected.push((vec![3], Close));
        }
        assert_eq!(driver.windows(), expected, "{on_cancel:?}");
        assert!(driver.finished());
        let counts = driver.engine().counts();
        assert_eq!(counts.dropped, u64::from(dropped), "{on_cancel:?}");
        assert_eq!(counts.committed, 3 - counts.dropped, "{on_cancel:?}");
        let told = driver.engine().look_at_leg(0).gauge.dropped;
        assert_eq!(told, counts.dropped, "V1: {on_cancel:?}");
    }
}

#[test]
fn w11_a_whole_window_that_had_no_room_to_leave_is_not_partial() {
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give(1..=7);
    driver.abort();
    assert_eq!(
        driver.windows(),
        [(vec![1, 2], Size), (vec![3, 4], Size), (vec![5, 6], Size)]
    );
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.committed, counts.dropped, counts.left), (6, 0, 1));
}

#[test]
fn w11_windows_behind_units_still_under_way_follow_their_policy_after_an_abort_too() {
    let mut driver = Driver::of([leg(), windowed(age(10))]);
    driver.give([1]);
    let unit = driver.unit().expect("the item");
    driver.call(|engine, now| {
        engine.received(1);
        engine.offer(1, BranchId::TRUNK, Item::new(Event::new(9)), now);
    });
    driver.abort();
    driver.done(unit, [1]);
    assert_eq!(driver.forward(1), [1]);
    assert_eq!(driver.engine().deadline(), Some(driver.now.after(ms(10))));
    driver.poll();
    // Nothing can come behind it any more: it is partial, and the pipeline aborted.
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().dropped, 2);
    assert!(driver.finished());
}

#[test]
fn w2_a_window_stays_open_while_something_is_on_its_way_to_it() {
    let mut driver = Driver::of([leg(), windowed(size(2))]);
    driver.give([1, 2]);
    driver.end();
    let unit = driver.unit().expect("the first item");
    driver.done(unit, [1]);
    driver.forward(1);
    let unit = driver.unit().expect("the second item");
    driver.poll();
    driver.done(unit, [2]);
    driver.poll();
    driver.forward(1);
    assert_eq!(driver.windows(), [(vec![1, 2], Size)]);
}

#[test]
fn w2_items_that_come_after_the_end_leave_as_soon_as_there_is_room() {
    let mut driver = Driver::of([windowed(size(3))]);
    driver.end();
    driver.give([1, 2, 3, 4]);
    let windows = driver.windows();
    assert_eq!(
        windows,
        [(vec![1], Close), (vec![2], Close), (vec![3, 4], Close)]
    );
    assert!(driver.finished());
}

#[test]
fn e8_items_that_come_after_an_abort_are_left() {
    let mut driver = Driver::of([leg()]);
    driver.abort();
    driver.give([1]);
    assert!(driver.unit().is_none());
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().left, 1);
    assert_eq!(driver.graveyard().items, [Event::new(1)]);
}

#[test]
fn w11_w12_when_draining_the_partial_window_follows_its_policy_after_the_whole_ones() {
    let table = [
        (None, false),
        (Some(Partial::Drop), true),
        (Some(Partial::Flush), false),
    ];
    for (on_cancel, dropped) in table {
        let mut driver = Driver::of([windowed(WindowOptions {
            on_cancel,
            ..size(2)
        })]);
        driver.give(1..=9);
        driver.call(|engine, now| {
            let error = Error::new("source.failed", 0);
            engine.fail_item(
                Spot {
                    ahead_of: 0,
                    behind: 0,
                },
                BranchId::TRUNK,
                error,
                0,
                None,
                now,
            );
            engine.drain(now);
        });
        let windows = driver.windows();
        let whole = windows
            .iter()
            .take_while(|(numbers, _)| numbers.len() == 2)
            .count();
        assert_eq!(whole, 4, "{on_cancel:?}");
        let last = if dropped {
            &[][..]
        } else {
            &[(vec![9], Close)]
        };
        assert_eq!(&windows[whole..], last, "{on_cancel:?}");
        assert!(driver.finished());
        assert_eq!(
            driver.engine().counts().dropped,
            u64::from(dropped),
            "{on_cancel:?}"
        );
        assert_eq!(driver.engine().failures()[0].error.0, "source.failed");
    }
}

#[test]
fn w11_what_came_to_its_end_by_itself_is_never_dropped() {
    let options = WindowOptions {
        on_cancel: Some(Partial::Drop),
        ..size(2)
    };
    let mut driver = Driver::of([windowed(options)]);
    driver.give([1]);
    driver.end();
    assert_eq!(driver.windows(), [(vec![1], Close)]);
}

#[test]
fn b5_abort_frees_what_was_held_back() {
    let window = size(1);
    let mut driver = Driver::of([windowed(window), narrow(1, false)]);
    driver.call(|engine, now| {
        engine.received(1);
        engine.offer(1, BranchId::TRUNK, Item::new(Event::new(9)), now);
    });
    driver.give([1]);
    let last = driver.unit().expect("the last leg's item");
    driver.call(|engine, now| engine.offer(1, BranchId::TRUNK, Item::new(Event::new(8)), now));
    driver.call(|engine, _| engine.received(1));
    assert!(driver.unit().is_none());
    driver.abort();
    let window = driver
        .unit()
        .expect("a window that left stays to be handed out");
    driver.done(window, [1]);
    driver.done(last, []);
    driver.poll();
    assert_eq!(driver.forward(1), [1]);
    let unit = driver.unit().expect("what the window became");
    driver.done(unit, []);
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().left, 1);
}

#[test]
fn b8_branches_end_after_their_queued_items_when_the_source_completes_and_when_it_fails() {
    for fault in [false, true] {
        let mut driver = Driver::fanned(1, [leg(), windowed(size(2))]);
        let branches = [driver.open(), driver.open()];
        driver.give(1..=6);
        if fault {
            driver.call(|engine, now| {
                let error = Error::new("source.failed", 0);
                engine.fail_item(
                    Spot {
                        ahead_of: 0,
                        behind: 0,
                    },
                    BranchId::TRUNK,
                    error,
                    0,
                    None,
                    now,
                );
                engine.drain(now);
            });
        } else {
            driver.end();
        }
        let mut out = Vec::new();
        loop {
            for (_, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
                let branch = branches[(item.value.0 % 2) as usize];
                driver.call(|engine, now| engine.offer(1, branch, item, now));
            }
            driver.poll();
            let Some(unit) = driver.unit() else { break };
            assert!(!driver.finished());
            let numbers = numbers(&unit);
            if unit.leg == 0 {
                driver.done(unit, numbers);
            } else {
                driver.done(unit, []);
                out.push(numbers);
            }
        }
        out.sort();
        assert_eq!(out, [vec![1, 3], vec![2, 4], vec![5], vec![6]], "{fault}");
        assert!(driver.finished());
        assert_eq!(driver.engine().failures().len(), usize::from(fault));
    }
}

#[test]
fn c18_an_interrupted_unit_counts_as_left_and_is_undone() {
    let mut driver = Driver::of([retried(5, ms(1))]);
    let unit = driver.give_and_take();
    driver.abort();
    driver.complete(unit, Outcome::Interrupted, Some(scope([1]).into()));
    assert_eq!(driver.undo_all(), [1]);
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().left, 1);
}

#[test]
fn c18_an_abort_undoes_what_waiting_items_did_and_a_drain_commits_it() {
    for abort in [false, true] {
        let mut driver = Driver::of([leg(), leg()]);
        let unit = driver.give_and_take();
        driver.complete(
            unit,
            Outcome::Done(vec![Event::new(1)]),
            Some(scope([1]).into()),
        );
        driver.forward(1);
        let undone = if abort {
            driver.abort();
            driver.undo_all()
        } else {
            driver.drain();
            let unit = driver.unit().expect("the item, downstream");
            driver.done(unit, []);
            driver.undo_all()
        };
        assert_eq!(undone, if abort { &[1][..] } else { &[] });
        assert!(driver.finished());
        let counts = driver.engine().counts();
        assert_eq!(
            (counts.left, counts.committed),
            (u64::from(abort), u64::from(!abort))
        );
    }
}

#[test]
fn c18_a_second_abort_gives_up_nothing_more() {
    let mut driver = Driver::of([leg(), leg()]);
    let unit = driver.give_and_take();
    driver.abort();
    driver.done(unit, [1]);
    assert_eq!(driver.forward(1), [1]);
    driver.abort();
    let unit = driver.unit().expect("what the unit passed on goes its way");
    driver.done(unit, []);
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().committed, 1);
}

#[test]
fn c18_discard_gives_up_windows_and_what_is_still_passed_on() {
    let one = size(1);
    let mut driver = Driver::of([windowed(one), leg()]);
    driver.give([1, 2]);
    let unit = driver.unit().expect("the first window");
    driver.discard();
    assert!(driver.unit().is_none(), "the second window is given up");
    driver.complete(
        unit,
        Outcome::Done(vec![Event::new(1)]),
        Some(scope([7]).into()),
    );
    assert_eq!(driver.forward(1), []);
    assert_eq!(driver.undo_all(), [7]);
    // What was in the driver's hand comes too late, at whichever leg.
    driver.give([3]);
    driver.call(|engine, now| {
        engine.received(1);
        engine.offer(1, BranchId::TRUNK, Item::new(Event::new(4)), now);
    });
    assert!(driver.unit().is_none());
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().left, 4);
}

#[test]
fn r7_an_abort_ends_a_back_off_as_cancelled_and_what_was_done_upstream_is_undone() {
    for due in [false, true] {
        let mut driver = Driver::of([retried(3, ms(20))]);
        let item = Item {
            scope: Some(scope([1]).into()),
            ..Item::new(Event::new(0))
        };
        driver.give_item(BranchId::TRUNK, item);
        let unit = driver.unit().expect("the first attempt");
        driver.fail(unit, []);
        if due {
            driver.advance(ms(25));
        } else {
            driver.advance(ms(5));
        }
        driver.abort();
        assert_eq!(driver.undo_all(), [1]);
        assert!(driver.finished());
        assert_eq!(driver.engine().deadline(), None);
        let failure = &driver.engine().failures()[0];
        assert_eq!(failure.error.0, "cancelled");
        assert_eq!(failure.gave_up, GaveUp::Cancelled);
        assert_eq!(driver.engine().codes().get("cancelled"), Some(&1));
        // The number is the last attempt's error's.
        assert_eq!((failure.attempts, failure.error.1), (1, 1));
        assert_eq!(failure.delay, if due { ms(20) } else { ms(5) });
        assert_eq!(
            (driver.engine().counts().retried, failure.history.len()),
            (0, 0)
        );
    }
}

#[test]
fn r7_an_abort_during_the_undo_of_an_attempt_makes_it_the_last() {
    let mut driver = Driver::of([retried(3, ms(20))]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1]);
    driver.abort();
    assert_eq!(driver.undo_all(), [1]);
    assert!(driver.finished());
    assert_eq!(driver.engine().failures()[0].attempts, 1);
}
