//! Branches that are full, hold others up, or are throttled: the rows B5, B6, B11.

use anabranch_core::branch::{BranchId, Command, Own};
use anabranch_core::channel::OnFull;
use anabranch_core::clock::Time;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{BranchOptions, Item, LegOptions, Why};
use anabranch_core::throttle::Rate;

use crate::driver::{Driver, Event, numbers, scope};
use crate::options::{age, leg, ms, narrow, size, windowed};

fn living(on_full: OnFull, leg: LegOptions) -> Driver {
    let branches = BranchOptions {
        on_full,
        ..BranchOptions::default()
    };
    Driver::living(branches, 0, [leg])
}

fn all(driver: &mut Driver) -> Vec<u64> {
    let mut seen = Vec::new();
    while let Some(unit) = driver.unit() {
        seen.extend(numbers(&unit));
        driver.done(unit, []);
    }
    seen
}

#[test]
fn b5_a_full_branch_drops_or_fails_what_its_mode_says_and_stalls_nobody() {
    let table = [
        (OnFull::DropNewest, vec![1, 2, 3], 2, vec![]),
        (OnFull::DropOldest, vec![3, 4, 5], 2, vec![]),
        (OnFull::Fail, vec![1, 2, 3], 0, vec![4, 5]),
    ];
    for (on_full, kept, dropped, failed) in table {
        let mut driver = living(on_full, narrow(3, true));
        let (a, b) = (driver.open(), driver.open());
        driver.give_to(a, 1..=5);
        assert!(driver.engine().room() > 0, "{on_full:?}");
        let refused = driver.refused();
        assert!(refused.iter().all(|it| (it.0, it.1) == (a, Why::Full)));
        let refused: Vec<_> = refused.into_iter().flat_map(|it| it.2).collect();
        assert_eq!(refused, failed);
        driver.give_to(b, [10]);
        let seen: Vec<_> = all(&mut driver).into_iter().filter(|n| *n < 10).collect();
        assert_eq!(seen, kept, "{on_full:?}");
        let (_, counts) = driver.engine().branch_counts().nth(1).expect("the branch");
        assert_eq!(
            (counts.dropped, counts.failed),
            (dropped, failed.len() as u64)
        );
        assert_eq!(counts.received, 5);
        assert_eq!(driver.engine().look_at_leg(0).gauge.dropped, dropped, "V1");
        driver.end();
        assert!(driver.finished());
    }
}

#[test]
fn b5_what_waits_in_front_of_a_window_is_what_is_dropped() {
    for (on_full, kept) in [(OnFull::DropNewest, 1..=8), (OnFull::DropOldest, 1..=8)] {
        let mut driver = living(
            on_full,
            LegOptions {
                window: Some(size(2)),
                ..narrow(2, false)
            },
        );
        let a = driver.open();
        driver.give_to(a, 1..=8);
        assert_eq!(
            driver.engine().counts().dropped,
            0,
            "two cut, one due, two wait"
        );
        driver.give_to(a, 9..=10);
        assert_eq!(driver.engine().counts().dropped, 2);
        let mut kept: Vec<_> = kept.collect();
        if on_full == OnFull::DropOldest {
            kept.splice(6..8, [9, 10]);
        }
        assert_eq!(all(&mut driver), kept, "{on_full:?}");
    }
}

#[test]
fn b5_a_branch_may_have_a_mode_of_its_own() {
    let mut driver = living(OnFull::Wait, narrow(1, false));
    let a = driver.open_own(Own {
        on_full: Some(OnFull::DropNewest),
        ..Own::default()
    });
    let b = driver.open();
    driver.give_to(a, [1, 2]);
    assert!(driver.engine().room() > 0);
    driver.give_to(b, [3]);
    assert_eq!(
        (driver.engine().room(), driver.engine().counts().dropped),
        (0, 1)
    );
}

#[test]
fn b5_what_a_dropped_item_did_upstream_is_undone() {
    for on_full in [OnFull::DropNewest, OnFull::DropOldest] {
        let mut driver = living(on_full, narrow(1, false));
        let a = driver.open();
        for order in 1..=2 {
            let scope: Box<Scope<_>> = Box::new(scope([order]));
            driver.give_item(
                a,
                Item {
                    scope: Some(scope),
                    ..Item::new(Event::new(order))
                },
            );
        }
        let undone = if on_full == OnFull::DropNewest { 2 } else { 1 };
        assert_eq!(driver.undo_all(), [undone]);
    }
}

#[test]
fn b5_a_full_later_leg_of_a_branch_that_drops_holds_back_its_own_only() {
    let branches = BranchOptions {
        on_full: OnFull::DropNewest,
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [leg(), narrow(2, false)]);
    let a = driver.open();
    driver.give_to(a, [1]);
    driver.call(|engine, now| {
        for number in 2..=4 {
            engine.received(1);
            engine.offer(1, a, Item::new(Event::new(number)), now);
        }
    });
    assert!(driver.engine().room() > 0);
    let legs: Vec<_> = driver.units().iter().map(|unit| unit.leg).collect();
    assert_eq!(legs, [1]);
}

#[test]
fn b6_who_holds_the_source_up_and_for_how_long_is_known() {
    let mut driver = living(OnFull::Wait, narrow(2, false));
    let (a, b) = (driver.open(), driver.open());
    let blocking = |driver: &Driver| driver.engine().blocking().collect::<Vec<_>>();
    driver.give_to(a, [1, 2]);
    driver.advance(ms(10));
    driver.give_to(b, [3, 4]);
    assert_eq!(blocking(&driver), [a, b]);
    driver.advance(ms(5));
    let unit = driver.unit().expect("the first of a");
    driver.done(unit, []);
    assert_eq!(blocking(&driver), [b]);
    driver.advance(ms(1));
    let blocked = |branch| driver.engine().blocked_by(branch, driver.now);
    assert_eq!((blocked(a), blocked(b)), (ms(15), ms(6)));
    assert_eq!(driver.engine().blocked(driver.now), ms(16));
    all(&mut driver);
    driver.advance(ms(100));
    assert_eq!(driver.engine().blocked(driver.now), ms(16));
}

#[test]
fn b6_a_stall_is_bounded_by_branch_timeout_if_set() {
    let branches = BranchOptions {
        timeout: Some(ms(20)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [narrow(4, false)]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, 1..=4);
    driver.advance(ms(19));
    assert_eq!(driver.engine().room(), 0);
    assert_eq!(driver.engine().deadline(), Some(driver.now.after(ms(1))));
    driver.advance(ms(1));
    assert!(driver.engine().room() > 0);
    driver.give_to(a, [5]);
    driver.give_to(b, [6]);
    assert_eq!(driver.refused(), [(a, Why::Timeout, vec![5])]);
    driver.advance(ms(5));
    let blocked = driver.engine().blocked(driver.now);
    assert_eq!(
        (driver.engine().blocked_by(a, driver.now), blocked),
        (ms(20), ms(20))
    );
    // With room again, it may hold the source up again.
    let of_a: Vec<_> = all(&mut driver).into_iter().filter(|n| *n != 6).collect();
    assert_eq!(of_a, [1, 2, 3, 4]);
    driver.give_to(a, 7..=10);
    assert_eq!(driver.engine().room(), 0);
    driver.advance(ms(20));
    assert!(driver.engine().room() > 0);
    all(&mut driver);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b6_the_stages_in_front_go_on_once_a_branch_has_held_them_up_for_too_long() {
    let branches = BranchOptions {
        timeout: Some(ms(20)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 1, [leg(), narrow(1, false)]);
    let a = driver.open();
    driver.call(|engine, now| {
        engine.received(1);
        engine.offer(1, a, Item::new(Event::new(1)), now);
    });
    driver.give([2]);
    let of_branch = driver.unit().expect("that of the branch");
    driver.call(|engine, now| {
        engine.received(1);
        engine.offer(1, a, Item::new(Event::new(3)), now);
    });
    assert!(driver.unit().is_none(), "the trunk is held back");
    driver.advance(ms(20));
    let unit = driver.unit().expect("the trunk goes on");
    assert_eq!(unit.branch, BranchId::TRUNK);
    driver.done(unit, []);
    driver.done(of_branch, []);
    all(&mut driver);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b6_a_branch_that_had_room_in_between_has_its_whole_time_again() {
    let branches = BranchOptions {
        timeout: Some(ms(20)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [narrow(2, false)]);
    let a = driver.open();
    driver.give_to(a, 1..=2);
    driver.advance(ms(15));
    all(&mut driver);
    driver.give_to(a, 3..=4);
    driver.advance(ms(19));
    assert_eq!(driver.engine().room(), 0);
    driver.advance(ms(1));
    assert!(driver.engine().room() > 0);
}

fn throttled(interval: u64, burst: u32, leg: LegOptions) -> LegOptions {
    LegOptions {
        throttle: Some(Rate::new(ms(interval), burst)),
        ..leg
    }
}

fn at(driver: &Driver) -> Time {
    driver.now
}

#[test]
fn b11_a_throttle_delays_and_never_drops() {
    let mut driver = Driver::fanned(0, [throttled(10, 2, leg())]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, 1..=5);
    driver.give_to(b, [10]);
    assert_eq!(
        all(&mut driver),
        [1, 10, 2],
        "a burst, and the others as ever"
    );
    for number in 3..=5 {
        assert_eq!(driver.engine().deadline(), Some(at(&driver).after(ms(10))));
        driver.advance(ms(9));
        assert_eq!(all(&mut driver), []);
        driver.advance(ms(1));
        assert_eq!(all(&mut driver), [number]);
    }
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b11_what_enters_a_window_is_throttled_by_the_short_way_and_the_long_one() {
    for chunks in [1, 10] {
        let mut driver = Driver::fanned(0, [throttled(10, 4, windowed(size(3)))]);
        let a = driver.open();
        for chunk in 0..chunks {
            let events = 10 / chunks;
            let items = (chunk * events..(chunk + 1) * events).map(|n| (a, Event::new(n)));
            let items: Vec<_> = items.collect();
            driver.call(|engine, now| {
                engine.received(items.len() as u64);
                engine.offer_plain(0, items, now);
            });
        }
        assert_eq!(
            driver.windows().len(),
            1,
            "three, and one of the burst is left"
        );
        driver.advance(ms(20));
        let windows: Vec<_> = driver.windows().into_iter().map(|it| it.0).collect();
        assert_eq!(windows, [[3, 4, 5]]);
        driver.end();
        driver.advance(ms(39));
        let windows: Vec<_> = driver.windows().into_iter().map(|it| it.0).collect();
        assert_eq!(windows, [[6, 7, 8]], "an end waits for what is throttled");
        driver.advance(ms(1));
        let windows: Vec<_> = driver.windows().into_iter().map(|it| it.0).collect();
        assert_eq!(windows, [[9]]);
        assert!(driver.finished());
    }
}

#[test]
fn b11_tokens_gather_up_to_the_burst_while_nothing_comes() {
    let mut driver = Driver::fanned(0, [throttled(10, 3, windowed(age(5)))]);
    let a = driver.open();
    driver.give_to(a, 1..=3);
    driver.advance(ms(1000));
    assert_eq!(driver.windows().len(), 1);
    driver.give_to(a, 4..=8);
    driver.advance(ms(5));
    assert_eq!(driver.windows()[0].0, [4, 5, 6]);
}

#[test]
fn b11_a_throttle_is_changed_set_and_lifted_while_running() {
    let mut driver = Driver::fanned(0, [throttled(1000, 1, leg())]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, 1..=4);
    driver.give_to(b, 10..=12);
    assert_eq!(all(&mut driver), [1, 10]);
    let change = |driver: &mut Driver, branch, rate| {
        driver.call(|engine, now| engine.throttle(branch, rate, now))
    };
    assert!(change(&mut driver, a, Some(Rate::new(ms(10), 1))));
    driver.advance(ms(10));
    assert_eq!(all(&mut driver), [2]);
    assert!(change(&mut driver, a, None));
    assert_eq!(all(&mut driver), [3, 4]);
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    driver.poll();
    assert!(!change(&mut driver, a, None), "it is over");
    driver.advance(ms(990));
    assert_eq!(all(&mut driver), [11]);
}

#[test]
fn b11_a_throttle_holds_the_source_back_by_its_full_queue() {
    let mut driver = Driver::fanned(0, [throttled(10, 1, narrow(4, false))]);
    let a = driver.open();
    driver.give_to(a, 1..=5);
    assert_eq!((all(&mut driver), driver.engine().room()), (vec![1], 0));
    assert_eq!(driver.engine().blocking().collect::<Vec<_>>(), [a]);
    driver.advance(ms(10));
    driver.advance(ms(10));
    assert_eq!(all(&mut driver), [2]);
    driver.advance(ms(10));
    assert_eq!(all(&mut driver), [3]);
    assert!(driver.engine().room() > 0);
    driver.abort();
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().left, 2);
}

#[test]
fn b11_the_trunk_may_be_throttled_too() {
    let mut driver = Driver::of([throttled(10, 1, leg())]);
    driver.give([1, 2]);
    assert_eq!(driver.unit().map(|unit| unit.branch), Some(BranchId::TRUNK));
}

#[test]
fn b11_nothing_overtakes_what_a_throttle_holds_in_front_of_a_window() {
    let mut driver = Driver::fanned(0, [throttled(10, 1, windowed(size(3)))]);
    let a = driver.open();
    driver.give_to(a, [1, 2]);
    // There is a token again, and nobody has looked at the clock yet.
    driver.pass(ms(10));
    driver.give_to(a, [3]);
    driver.advance(ms(0));
    driver.advance(ms(10));
    assert_eq!(driver.windows()[0].0, [1, 2, 3]);
}
