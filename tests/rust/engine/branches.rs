//! Branches, back-pressure, order and the number of units in flight: the rows B, T4, T11, E8.

use anabranch_core::branch::BranchId;
use anabranch_core::engine::{
    BranchOptions, Config, Engine, Item, LegOptions, Port, RollbackOptions, Spot, Work,
};
use anabranch_core::retry::Random;

use crate::driver::{Driver, EPOCH, Error, Event, PORT, numbers};
use crate::options::{fixed, leg, ms, narrow, size, wide, windowed};

#[test]
fn b13_a_branch_without_lanes_takes_few_bytes_for_itself() {
    assert!(size_of::<anabranch_core::branch::Branch<crate::driver::Lab>>() <= 320);
}

#[test]
fn b3_a_branch_opened_while_running_keeps_its_order() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1, 2]);
    let b = driver.open();
    driver.give_to(b, [10, 20]);
    driver.give_to(a, [3]);
    let mut seen = [Vec::new(), Vec::new()];
    while let Some(unit) = driver.unit() {
        seen[usize::from(unit.branch == b)].extend(numbers(&unit));
        driver.done(unit, []);
    }
    assert_eq!(seen, [vec![1, 2, 3], vec![10, 20]]);
}

#[test]
fn b3_branches_take_turns() {
    let mut driver = Driver::fanned(0, [leg()]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, 0..5);
    driver.give_to(b, 0..5);
    let turns: Vec<_> = (0..10)
        .map(|_| {
            let unit = driver.unit().expect("ten units");
            let branch = unit.branch;
            driver.done(unit, []);
            branch
        })
        .collect();
    assert_eq!(turns, [a, b].repeat(5));
}

#[test]
fn b5_a_branch_stalls_the_source_at_its_capacity_or_a_quarter_more() {
    for (isolate, limit) in [(false, 100), (true, 125)] {
        let mut driver = Driver::fanned(0, [narrow(100, isolate)]);
        let (a, b) = (driver.open(), driver.open());
        for number in 0..limit {
            assert_eq!(driver.engine().room(), 100, "at {number} of {limit}");
            driver.give_to(a, [number]);
        }
        assert_eq!(driver.engine().room(), 0);
        // The others go on with what they hold, and so does the full one.
        driver.give_to(b, [1000]);
        let both: Vec<_> = driver.units().iter().map(|unit| unit.branch).collect();
        assert_eq!(both, [a, b]);
    }
}

#[test]
fn b5_a_stalled_source_goes_on_at_half_of_the_capacity_and_not_before() {
    let mut driver = Driver::of([narrow(100, false)]);
    driver.give(0..100);
    for waiting in (51..100).rev() {
        let unit = driver
            .unit()
            .expect("a full branch has something to hand out");
        driver.done(unit, []);
        assert_eq!(driver.engine().room(), 0, "{waiting} wait");
    }
    let unit = driver.unit().expect("51 wait");
    assert!(driver.engine().room() > 0);
    driver.done(unit, []);
    driver.give(100..149);
    assert!(
        driver.engine().room() > 0,
        "it stalls at the capacity again, not before"
    );
    driver.give([149]);
    assert_eq!(driver.engine().room(), 0);
}

#[test]
fn b5_b6_a_full_leg_holds_back_what_feeds_it_and_no_other_branch() {
    let mut driver = Driver::fanned(1, [leg(), leg(), narrow(2, false)]);
    let (a, b) = (driver.open(), driver.open());
    driver.give(0..4);
    let trunk = driver.unit().expect("the trunk's first item");
    driver.done(trunk, [0]);
    drop(driver.call(|engine, _| engine.take_arrivals(1)));
    driver.call(|engine, now| {
        for number in 0..3 {
            engine.offer(1, a, Item::new(Event::new(number)), now);
            engine.offer(1, b, Item::new(Event::new(number)), now);
            engine.offer(2, a, Item::new(Event::new(100 + number)), now);
        }
    });
    assert_eq!(driver.engine().room(), 0);
    let out: Vec<_> = driver
        .units()
        .iter()
        .map(|unit| (unit.branch, unit.leg))
        .collect();
    // One unit of the full lane leaves two behind, half of which is still too much: the trunk and
    // the same branch's earlier leg wait.
    assert_eq!(out, [(b, 1), (a, 2)]);
}

#[test]
fn b5_what_was_held_back_goes_on() {
    let mut driver = Driver::fanned(1, [leg(), leg(), narrow(2, false)]);
    let a = driver.open();
    driver.give([0]);
    driver.call(|engine, now| {
        engine.offer(1, a, Item::new(Event::new(1)), now);
        engine.offer(2, a, Item::new(Event::new(2)), now);
        engine.offer(2, a, Item::new(Event::new(3)), now);
    });
    let first = driver.unit().expect("the full lane's first item");
    assert_eq!((first.branch, first.leg), (a, 2));
    let mut rest: Vec<_> = driver
        .units()
        .iter()
        .map(|unit| (unit.branch, unit.leg))
        .collect();
    rest.sort_unstable();
    assert_eq!(rest, [(BranchId::TRUNK, 0), (a, 1)]);
}

#[test]
fn e8_the_counts_of_a_branch_add_up_though_stages_in_front_of_it_end_items() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    driver.call(|engine, now| {
        // Of five items routed to the branch, one is filtered, one fails, one becomes three.
        engine.received(4);
        engine.passed(a, 1, 2);
        engine.fail_item(
            Spot {
                ahead_of: 0,
                behind: 0,
            },
            a,
            Error::new("ValueError", 0),
            1,
            None,
            now,
        );
        for number in 2..6 {
            engine.offer(0, a, Item::new(Event::new(number)), now);
        }
    });
    let (_, counts) = driver.engine().branch_counts().nth(1).expect("the branch");
    assert_eq!((counts.received, counts.produced, counts.left), (5, 2, 5));
    assert!(counts.balanced() && driver.engine().counts().balanced());
}

#[test]
fn t4_the_first_failure_stops_what_follows_until_the_driver_aborts() {
    for stop_on_error in [false, true] {
        let mut driver = Driver::new(Config {
            legs: vec![windowed(size(1))],
            fan_leg: 1,
            ports: 1,
            max_in_flight: 1,
            stop_on_error,
            seed: 0,
            epoch: EPOCH,
            rollback: RollbackOptions::default(),
            branches: BranchOptions::default(),
        });
        driver.give([1, 2]);
        assert!(!driver.engine().stopping());
        let unit = driver.unit().expect("the first window");
        driver.fail(unit, [7]);
        assert_eq!(driver.engine().stopping(), stop_on_error);
        assert_eq!(driver.undo_all(), [7], "the rollback goes on");
        assert!(!(stop_on_error && driver.engine().has_work(PORT)));
        driver.abort();
        let unit = driver
            .unit()
            .expect("a window that left stays to be handed out");
        driver.done(unit, []);
        assert!(driver.finished());
    }
}

#[test]
fn t11_no_branch_has_more_in_flight_than_its_concurrency() {
    for (concurrency, ordered) in [(1, true), (3, true), (3, false)] {
        let mut driver = Driver::fanned(0, [wide(concurrency, ordered), leg()]);
        let (a, b) = (driver.open(), driver.open());
        driver.give_to(a, 0..10);
        driver.give_to(b, 0..10);
        let mut units = driver.units();
        assert_eq!(units.len(), 2 * concurrency as usize);
        // A unit in back-off or being undone keeps its place.
        let unit = units.remove(0);
        driver.fail(unit, [1]);
        assert_eq!(driver.call(|engine, _| engine.in_flight()), units.len());
        let undo = driver.call(|engine, now| engine.next(PORT, now));
        assert!(matches!(undo, Some(Work::Undo(_))));
        assert!(driver.unit().is_none());
        drop(units);
    }
}

#[test]
fn t11_no_pipeline_has_more_in_flight_than_max_in_flight() {
    let mut driver = Driver::new(Config {
        legs: vec![LegOptions {
            retry: Some(fixed(2, ms(0))),
            ..wide(4, false)
        }],
        fan_leg: 0,
        ports: 1,
        max_in_flight: 5,
        stop_on_error: false,
        seed: 0,
        epoch: EPOCH,
        rollback: RollbackOptions::default(),
        branches: BranchOptions::default(),
    });
    for _ in 0..10 {
        let branch = driver.open();
        driver.give_to(branch, 0..4);
    }
    let mut units = driver.units();
    assert_eq!((units.len(), driver.engine().in_flight()), (5, 5));
    assert!(!driver.engine().has_work(PORT));
    // A unit whose back-off is over waits for its place like any other.
    let unit = units.pop().expect("five");
    driver.fail(unit, []);
    units.extend(driver.units());
    driver.poll();
    assert!(driver.unit().is_none());
    let unit = units.pop().expect("five");
    driver.done(unit, []);
    assert_eq!(driver.unit().map(|unit| unit.attempt), Some(2));
}

#[test]
fn t11_ordered_outputs_keep_the_order_under_any_order_of_completion() {
    for seed in 0..200 {
        let retry = Some(fixed(2, ms(1)));
        let mut driver = Driver::of([
            LegOptions {
                retry,
                ..wide(4, true)
            },
            leg(),
        ]);
        let mut random = Random::new(seed);
        let mut one_in = |n: u64| random.next_u64().is_multiple_of(n);
        driver.give(0..100);
        let (mut units, mut out) = (Vec::new(), Vec::new());
        while out.len() < 100 {
            units.extend(driver.units());
            assert!(units.len() <= 4);
            if units.is_empty() {
                driver.advance(ms(1));
                continue;
            }
            let place = (0..units.len()).find(|_| one_in(3)).unwrap_or(0);
            let unit = units.swap_remove(place);
            let number = numbers(&unit)[0];
            if unit.attempt == 1 && one_in(4) {
                driver.fail(unit, []);
            } else {
                driver.done(unit, [number]);
            }
            let arrivals = driver.call(|engine, _| engine.take_arrivals(1));
            out.extend(arrivals.into_iter().map(|(_, item)| item.value.0));
        }
        assert_eq!(out, (0..100).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn t11_no_more_outputs_wait_for_an_earlier_one_than_units_may_be_in_flight() {
    let mut driver = Driver::of([wide(3, true), leg()]);
    driver.give(0..10);
    let mut units = driver.units();
    let first = units.remove(0);
    for unit in units {
        let number = numbers(&unit)[0];
        driver.done(unit, [number]);
    }
    assert!(driver.unit().is_none());
    assert_eq!(driver.forward(1), []);
    driver.done(first, [0]);
    assert_eq!(driver.forward(1), [0, 1, 2]);
}

#[test]
fn t11_unordered_outputs_do_not_wait() {
    let mut driver = Driver::of([wide(2, false), leg()]);
    driver.give([1, 2]);
    let mut units = driver.units();
    let second = units.pop().expect("two units");
    driver.done(second, [2]);
    assert_eq!(driver.forward(1), [2]);
}

#[test]
fn t11_a_sink_never_waits_for_its_first_unit() {
    let mut driver = Driver::of([wide(2, true)]);
    driver.give(0..10);
    let mut units = driver.units();
    for _ in 0..8 {
        let second = units.pop().expect("two units");
        driver.done(second, []);
        units.extend(driver.units());
        assert_eq!(units.len(), 2);
    }
}

#[test]
fn work_for_one_port_never_waits_behind_work_for_another() {
    let other = LegOptions {
        port: Port(1),
        ..leg()
    };
    let mut engine = Engine::<crate::driver::Lab>::new(Config {
        legs: vec![leg(), other],
        fan_leg: 2,
        ports: 2,
        max_in_flight: 8,
        stop_on_error: false,
        seed: 0,
        epoch: EPOCH,
        rollback: RollbackOptions::default(),
        branches: BranchOptions::default(),
    });
    let now = anabranch_core::clock::Time::ZERO;
    engine.offer(0, BranchId::TRUNK, Item::new(Event::new(1)), now);
    engine.offer(1, BranchId::TRUNK, Item::new(Event::new(2)), now);
    for (port, number) in [(Port(1), 2), (Port(0), 1)] {
        assert!(engine.has_work(port));
        let Some(Work::Unit(unit)) = engine.next(port, now) else {
            panic!("no unit")
        };
        assert_eq!(numbers(&unit), [number]);
        assert!(!engine.has_work(port));
    }
}
