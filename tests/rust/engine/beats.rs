//! Heartbeats: which branches hear that nothing has come for a while. The row G3.

use anabranch_core::branch::{BranchId, Command, State};
use anabranch_core::engine::{Beat, BranchOptions, LegOptions};

use crate::driver::{Driver, Event, numbers};
use crate::lives::states;
use crate::options::{leg, ms};

fn beating() -> LegOptions {
    LegOptions {
        heartbeat: Some(ms(10)),
        ..leg()
    }
}

fn living(idle_ttl: Option<u64>) -> Driver {
    let branches = BranchOptions {
        idle_ttl: idle_ttl.map(ms),
        ..BranchOptions::default()
    };
    Driver::living(branches, 0, [beating()])
}

fn beats(driver: &mut Driver) -> Vec<Beat> {
    driver.call(|engine, _| engine.take_beats())
}

/// Gives an item and handles it.
fn handled(driver: &mut Driver, branch: BranchId) {
    driver.give_to(branch, [1]);
    let Some(unit) = driver.unit() else {
        panic!("the item given is not handed out")
    };
    driver.done(unit, []);
}

fn beat(branch: BranchId, number: u32) -> Beat {
    Beat {
        branch,
        leg: 0,
        silent: ms(10 * u64::from(number)),
        number,
    }
}

#[test]
fn g3_a_beat_comes_at_each_multiple_of_the_period_and_is_no_item_that_came() {
    let mut driver = living(None);
    let branch = driver.open();
    driver.advance(ms(100));
    assert_eq!(beats(&mut driver), [], "nothing has begun");
    handled(&mut driver, branch);
    for number in 1..=3 {
        assert_eq!(driver.engine().deadline(), Some(driver.now.after(ms(10))));
        driver.advance(ms(9));
        assert_eq!(beats(&mut driver), []);
        driver.advance(ms(1));
        let told = beats(&mut driver);
        assert_eq!(told, [beat(branch, number)]);
        driver.call(|engine, now| engine.offer_beat(told[0], Event::new(50), now));
        let unit = driver.unit().expect("the item that was made of it");
        assert_eq!(numbers(&unit), [50]);
        driver.done(unit, []);
    }
    // An item that came begins anew.
    driver.advance(ms(5));
    handled(&mut driver, branch);
    driver.advance(ms(9));
    assert_eq!(beats(&mut driver), []);
    driver.advance(ms(1));
    assert_eq!(beats(&mut driver), [beat(branch, 1)]);
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.received, counts.produced), (2, 3));
}

#[test]
fn g3_a_beat_that_is_looked_for_late_says_how_late_and_comes_once() {
    let mut driver = living(None);
    let branch = driver.open();
    handled(&mut driver, branch);
    driver.advance(ms(35));
    let told = Beat {
        silent: ms(35),
        ..beat(branch, 3)
    };
    assert_eq!(beats(&mut driver), [told]);
    driver.advance(ms(5));
    assert_eq!(beats(&mut driver), [beat(branch, 4)]);
}

#[test]
fn g3_no_beat_comes_while_something_waits_nor_while_the_branch_is_not_open() {
    let mut driver = living(None);
    let (busy, paused) = (driver.open(), driver.open());
    handled(&mut driver, paused);
    assert_eq!(driver.obey(paused, Command::Pause), Ok(()));
    driver.give_to(busy, [1, 2]);
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), []);
    for _ in 0..2 {
        let unit = driver.unit().expect("two");
        driver.done(unit, []);
    }
    assert_eq!(driver.obey(paused, Command::Resume), Ok(()));
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), [beat(busy, 2), beat(paused, 2)]);
}

#[test]
fn g3_a_branch_that_is_idle_for_long_enough_is_evicted_and_begins_anew() {
    let mut driver = living(Some(25));
    let branch = driver.open();
    handled(&mut driver, branch);
    driver.advance(ms(10));
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), [beat(branch, 1), beat(branch, 2)]);
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), []);
    assert_eq!(states(&driver, &[branch]), [State::Evicted]);
    driver.news();
    assert_eq!(driver.engine().deadline(), None);
    driver.give_to(branch, [2]);
    driver.news();
    let unit = driver.unit().expect("it is open again");
    driver.done(unit, []);
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), [beat(branch, 1)]);
}

#[test]
fn g3_once_the_source_has_ended_nothing_beats() {
    let mut driver = living(None);
    let branch = driver.open();
    handled(&mut driver, branch);
    driver.end();
    assert_eq!(driver.engine().deadline(), None);
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), []);
    assert!(driver.finished());
}

#[test]
fn g3_what_passes_by_a_failed_branch_does_not_beat() {
    let mut driver = living(None);
    let branch = driver.open();
    handled(&mut driver, branch);
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), []);
    assert_eq!(driver.engine().deadline(), None);
}

#[test]
fn g3_the_trunk_beats_too_and_is_never_idle() {
    let branches = BranchOptions {
        idle_ttl: Some(ms(5)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 1, [beating(), leg()]);
    handled(&mut driver, BranchId::TRUNK);
    driver.advance(ms(10));
    assert_eq!(beats(&mut driver), [beat(BranchId::TRUNK, 1)]);
}
