//! Windows in the engine: the rows W (W8 is the plan's; how they end is in `endings.rs`).

use anabranch_core::branch::{BranchId, WINDOW_OUTPUT};
use anabranch_core::clock::Time;
use anabranch_core::engine::{Item, LegOptions, Spot};
use anabranch_core::window::Reason::{self, Age, Bytes, Close, Idle, Size};
use anabranch_core::window::WindowOptions;

use crate::driver::{Driver, Error, Event, cut, numbers};
use crate::options::{age, idle, leg, ms, size, windowed};

fn none() -> Vec<(Vec<u64>, Reason)> {
    Vec::new()
}

#[test]
fn w1_a_full_window_leaves_without_the_clock() {
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give([1, 2]);
    assert_eq!(driver.windows(), [(vec![1, 2], Size)]);
    assert_eq!(driver.engine().timers(), 0);
}

#[test]
fn w3_without_age_and_idle_time_flushes_nothing() {
    let bytes = WindowOptions {
        max_bytes: Some(10),
        ..WindowOptions::default()
    };
    for options in [size(3), bytes] {
        let mut driver = Driver::of([windowed(options)]);
        driver.give([1, 2]);
        driver.advance(ms(u64::from(u32::MAX)));
        assert_eq!(driver.windows(), none());
        assert_eq!(driver.engine().deadline(), None);
    }
}

#[test]
fn w4_a_timer_on_an_empty_window_emits_nothing() {
    let mut driver = Driver::of([windowed(WindowOptions {
        max_items: Some(2),
        ..age(100)
    })]);
    driver.give([1, 2]);
    assert_eq!(driver.windows(), [(vec![1, 2], Size)]);
    driver.advance(ms(100));
    assert_eq!(driver.windows(), none());
    driver.give([3]);
    driver.advance(ms(99));
    assert_eq!(driver.windows(), none());
    driver.give([4]);
    assert_eq!(driver.windows(), [(vec![3, 4], Size)]);
}

#[test]
fn w5_the_first_item_leaves_within_max_age_however_fast_others_trickle_in() {
    let mut driver = Driver::of([windowed(age(100))]);
    driver.advance(ms(7));
    for number in 0..10 {
        assert_eq!(driver.windows(), none());
        driver.give([number]);
        driver.advance(ms(10));
    }
    let unit = driver.unit().expect("the first item is 100 ms old");
    assert_eq!(numbers(&unit), (0..10).collect::<Vec<_>>());
    let at = |millis| Time::ZERO.after(ms(millis));
    assert_eq!(
        (cut(&unit).reason, cut(&unit).opened, cut(&unit).closed),
        (Age, at(7), at(107))
    );
}

#[test]
fn w5_idle_counts_from_the_last_item_and_never_outlasts_max_age() {
    let both = WindowOptions {
        idle: Some(ms(30)),
        ..age(100)
    };
    let mut driver = Driver::of([windowed(both)]);
    for number in 1..=3 {
        driver.give([number]);
        driver.advance(ms(29));
        assert_eq!(driver.windows(), none());
    }
    driver.advance(ms(1));
    assert_eq!(driver.windows(), [(vec![1, 2, 3], Idle)]);
    for number in 4..=8 {
        driver.give([number]);
        driver.advance(ms(20));
    }
    assert_eq!(driver.windows(), [(vec![4, 5, 6, 7, 8], Age)]);
}

#[test]
fn w5_w17_bytes_are_the_third_trigger() {
    let mut driver = Driver::of([windowed(WindowOptions {
        max_bytes: Some(10),
        ..age(100)
    })]);
    for (number, bytes) in [(1, 4), (2, 5), (3, 1), (4, 50), (5, 9)] {
        let item = Item {
            bytes,
            ..Item::new(Event::new(number))
        };
        driver.give_item(BranchId::TRUNK, item);
    }
    assert_eq!(driver.windows(), [(vec![1, 2, 3], Bytes), (vec![4], Bytes)]);
    driver.advance(ms(100));
    assert_eq!(driver.windows(), [(vec![5], Age)]);
}

#[test]
fn w6_order_out_is_order_in_over_every_kind_of_flush() {
    let mut driver = Driver::of([LegOptions {
        capacity: 4,
        ..windowed(WindowOptions {
            max_items: Some(4),
            idle: Some(ms(5)),
            ..age(8)
        })
    }]);
    let mut seen = Vec::new();
    for number in 0..500 {
        driver.give([number]);
        driver.advance(ms(number % 7));
        if number % 11 == 0 {
            seen.extend(driver.windows());
        }
    }
    driver.end();
    seen.extend(driver.windows());
    for reason in [Size, Age, Idle] {
        assert!(
            seen.iter().any(|(_, of)| *of == reason),
            "no window left by {reason:?}"
        );
    }
    let order: Vec<u64> = seen.into_iter().flat_map(|(numbers, _)| numbers).collect();
    assert_eq!(order, (0..500).collect::<Vec<_>>());
    assert!(driver.finished());
}

#[test]
fn w7_one_wake_up_cuts_as_many_full_windows_as_fit() {
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give(0..11);
    let leaving = driver.windows();
    assert_eq!(leaving.len(), 5);
    assert!(
        leaving
            .iter()
            .all(|(numbers, reason)| numbers.len() == 2 && *reason == Size)
    );
    assert_eq!(driver.engine().counts().windows, 5);
}

#[test]
fn w9_age_zero_means_what_one_wake_up_brought_and_no_busy_loop() {
    let mut driver = Driver::of([windowed(age(0))]);
    driver.give([1, 2, 3]);
    assert_eq!(driver.engine().deadline(), Some(driver.now));
    driver.poll();
    assert_eq!(driver.engine().deadline(), None);
    driver.give([4]);
    driver.poll();
    // The output is full now: what follows waits for room, not in a loop.
    driver.give([5, 6]);
    driver.poll();
    assert_eq!(driver.engine().deadline(), None);
    assert_eq!(
        driver.windows(),
        [(vec![1, 2, 3], Age), (vec![4], Age), (vec![5, 6], Age)]
    );
}

#[test]
fn w10_a_slow_consumer_stalls_the_source() {
    for options in [size(2), age(0), idle(0)] {
        let window = options.clone();
        let mut driver = Driver::of([LegOptions {
            capacity: 8,
            isolate: false,
            ..windowed(window)
        }]);
        let mut inside = 0;
        while driver.engine().room() > 0 {
            assert!(inside < 100, "{options:?} never stalls");
            driver.give([inside, inside + 1]);
            inside += 2;
            driver.poll();
        }
        // A window that waits, those that have left, and the branch's capacity.
        assert_eq!(inside, 2 + 2 * WINDOW_OUTPUT as u64 + 8, "{options:?}");
        while driver.engine().room() == 0 {
            let unit = driver
                .unit()
                .expect("a stalled lane has something to hand out");
            driver.done(unit, []);
        }
    }
}

#[test]
fn w10_an_overdue_window_keeps_its_reason_while_it_waits() {
    let mut driver = Driver::of([windowed(WindowOptions {
        max_items: Some(3),
        ..age(10)
    })]);
    driver.give(0..6);
    driver.give([6]);
    driver.advance(ms(10));
    driver.give([7]);
    let expected = [(vec![0, 1, 2], Size), (vec![3, 4, 5], Size), (vec![6], Age)];
    assert_eq!(driver.windows(), expected);
    driver.advance(ms(10));
    assert_eq!(driver.windows(), [(vec![7], Age)]);
}

#[test]
fn w13_a_window_that_left_is_a_snapshot() {
    let mut driver = Driver::of([windowed(size(2))]);
    driver.give([1, 2]);
    let unit = driver.unit().expect("a window");
    driver.give([3, 4, 5]);
    driver.advance(ms(1000));
    assert_eq!((numbers(&unit), unit.weight), (vec![1, 2], 2));
}

#[test]
fn w14_a_million_idle_intervals_leave_nothing_behind() {
    let mut driver = Driver::fanned(
        0,
        [windowed(WindowOptions {
            idle: Some(ms(1)),
            ..age(5)
        })],
    );
    let branches: Vec<_> = (0..10).map(|_| driver.open()).collect();
    for interval in 0..1_000_000_u64 {
        if interval % 50 == 0 {
            driver.give_to(branches[(interval % 7) as usize], [interval]);
        }
        driver.advance(ms(1));
        assert!(driver.engine().timers() <= branches.len());
        if let Some(unit) = driver.unit() {
            driver.done(unit, []);
            drop(driver.graveyard());
        }
    }
    assert_eq!(driver.engine().timers(), 0);
    assert_eq!(driver.engine().counts().left, 0);
}

#[test]
fn w15_only_the_clock_that_is_handed_in_moves_windows() {
    let mut driver = Driver::of([windowed(age(1))]);
    driver.give([1]);
    for _ in 0..1000 {
        driver.poll();
    }
    assert_eq!(driver.windows(), none());
    driver.advance(ms(1));
    assert_eq!(driver.windows(), [(vec![1], Age)]);
}

#[test]
fn w16_a_branch_never_waits_for_the_window_of_another() {
    let mut driver = Driver::fanned(
        0,
        [windowed(WindowOptions {
            max_items: Some(2),
            ..age(100)
        })],
    );
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, [1]);
    driver.pass(ms(50));
    driver.give_to(b, [10]);
    driver.give_to(a, [2]);
    assert_eq!(driver.windows(), [(vec![1, 2], Size)]);
    driver.advance(ms(99));
    assert_eq!(driver.windows(), none());
    driver.advance(ms(1));
    assert_eq!(driver.windows(), [(vec![10], Age)]);
}

#[test]
fn w17_the_reasons_have_the_names_users_see() {
    let names = [Size, Age, Idle, Bytes, Close].map(Reason::name);
    assert_eq!(names, ["size", "age", "idle", "bytes", "close"]);
}

#[test]
fn w18_a_failed_item_enters_no_window_and_a_window_counts_its_items() {
    let mut driver = Driver::of([windowed(size(2)), leg()]);
    driver.give([1]);
    driver.call(|engine, now| {
        engine.received(1);
        engine.fail_item(
            Spot {
                ahead_of: 0,
                behind: 0,
            },
            BranchId::TRUNK,
            Error::new("ValueError", 2),
            1,
            None,
            now,
        );
    });
    driver.give([3]);
    let unit = driver.unit().expect("two items are enough");
    assert_eq!((numbers(&unit), unit.weight), (vec![1, 3], 2));
    driver.done(unit, [13]);
    assert_eq!(driver.forward(1), [13]);
    let unit = driver.unit().expect("what the window became");
    assert_eq!(unit.weight, 2);
    driver.done(unit, []);
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!(
        (counts.received, counts.committed, counts.failed),
        (3, 2, 1)
    );
}
