//! Branches that are paused, drained, removed, restarted, idle or failed: the rows B4, B14, C19.

use anabranch_core::branch::{BranchId, Command, Misfit, News, Own, State};
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{BranchOptions, Level, Outcome, Port, Why};

use crate::driver::{Driver, Error, numbers};
use crate::options::{leg, ms, retried, size, windowed};
use crate::scopes::step;

pub(crate) fn states(driver: &Driver, branches: &[BranchId]) -> Vec<State> {
    let state = |branch: &BranchId| driver.engine().state(*branch).0;
    branches.iter().map(state).collect()
}

pub(crate) fn fail_for_good(driver: &mut Driver) {
    let Some(unit) = driver.unit() else {
        panic!("there is no unit to fail")
    };
    let again = anabranch_core::engine::Again::No;
    let error = Error::new("Oops", 1);
    driver.complete(unit, Outcome::Failed { error, again }, None);
}

#[test]
fn b4_a_paused_branch_takes_items_in_and_hands_none_out_until_it_is_resumed() {
    let mut driver = Driver::fanned(0, [leg()]);
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, [1]);
    assert_eq!(driver.obey(a, Command::Pause), Ok(()));
    driver.give_to(a, [2]);
    driver.give_to(b, [10]);
    let unit = driver.unit().expect("that of the other branch");
    assert_eq!(numbers(&unit), [10]);
    driver.done(unit, []);
    assert!(driver.unit().is_none());
    driver.end();
    assert!(!driver.finished(), "it waits for the paused branch");
    assert_eq!(driver.obey(a, Command::Resume), Ok(()));
    let order: Vec<_> = std::iter::from_fn(|| {
        let unit = driver.unit()?;
        let number = numbers(&unit)[0];
        driver.done(unit, []);
        Some(number)
    })
    .collect();
    assert_eq!(order, [1, 2]);
    assert!(driver.finished());
}

#[test]
fn b4_a_unit_whose_back_off_ends_while_its_branch_is_paused_waits() {
    for paused_first in [true, false] {
        let mut driver = Driver::fanned(0, [retried(3, ms(5))]);
        let a = driver.open();
        driver.give_to(a, [1]);
        let unit = driver.unit().expect("the item");
        driver.fail(unit, []);
        if paused_first {
            assert_eq!(driver.obey(a, Command::Pause), Ok(()));
            driver.advance(ms(5));
        } else {
            driver.advance(ms(5));
            assert_eq!(driver.obey(a, Command::Pause), Ok(()));
        }
        assert!(driver.unit().is_none());
        assert_eq!(driver.obey(a, Command::Resume), Ok(()));
        assert_eq!(driver.unit().map(|unit| unit.attempt), Some(2));
    }
}

#[test]
fn b4_an_abort_does_not_wait_for_a_paused_branch() {
    let mut driver = Driver::fanned(0, [retried(3, ms(5)), windowed(size(1))]);
    let a = driver.open();
    driver.give_to(a, [1, 2, 3]);
    let unit = driver.unit().expect("the first item");
    driver.done(unit, [1]);
    driver.forward(1);
    let unit = driver.unit().expect("the window");
    driver.complete(unit, Outcome::Interrupted, None);
    let unit = driver.unit().expect("the second item");
    driver.fail(unit, []);
    assert_eq!(driver.obey(a, Command::Pause), Ok(()));
    driver.advance(ms(5));
    driver.abort();
    assert!(driver.unit().is_none());
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.failed, counts.left), (1, 2));
}

#[test]
fn b4_a_drained_branch_finishes_what_it_holds_and_comes_back_for_its_next_item() {
    let mut driver = Driver::fanned(0, [leg(), windowed(size(10))]);
    let a = driver.open();
    driver.give_to(a, [1, 2]);
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    assert_eq!(states(&driver, &[a]), [State::Draining]);
    for number in [1, 2] {
        let unit = driver.unit().expect("what it held");
        driver.done(unit, [number]);
        driver.forward(1);
        driver.poll();
    }
    // An item of the next generation overtakes nothing, and does not come into the old window.
    driver.give_to(a, [3]);
    driver.poll();
    let unit = driver.unit().expect("the partial window leaves");
    assert_eq!(numbers(&unit), [1, 2]);
    assert!(driver.unit().is_none(), "the next generation waits");
    driver.done(unit, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: true })]);
    assert_eq!(driver.engine().state(a), (State::Open, 2));
    let unit = driver.unit().expect("it has come back");
    assert_eq!(numbers(&unit), [3]);
    driver.done(unit, []);
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
    driver.give_to(a, [4]);
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![4]));
}

#[test]
fn b4_a_removed_branch_finishes_what_it_holds_refuses_what_comes_and_can_be_added_again() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    driver.give_to(a, [2]);
    assert_eq!(driver.refused(), [(a, Why::Removed, vec![2])]);
    let unit = driver.unit().expect("what it held");
    driver.done(unit, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    assert_eq!(states(&driver, &[a]), [State::Removed]);
    driver.give_to(a, [3]);
    assert_eq!(driver.refused(), [(a, Why::Removed, vec![3])]);
    let misfit = Misfit {
        command: Command::Remove,
        state: State::Removed,
    };
    assert_eq!(driver.obey(a, Command::Remove), Err(misfit));
    assert_eq!(driver.obey(a, Command::Add), Ok(()));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    driver.give_to(a, [4]);
    let unit = driver.unit().expect("it is open");
    driver.done(unit, []);
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.committed, counts.failed), (2, 2));
}

#[test]
fn b4_what_waits_for_the_next_generation_is_refused_if_there_will_be_none() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.give_to(a, [2]);
    assert!(driver.refused().is_empty());
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    assert_eq!(driver.refused(), [(a, Why::Removed, vec![2])]);
    // Changed again: it opens once what it held has ended.
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    driver.give_to(a, [3]);
    let unit = driver.unit().expect("what it held");
    driver.done(unit, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: true })]);
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![3]));
}

#[test]
fn b4_an_evicted_branch_that_is_removed_opens_for_nothing_that_came() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.poll();
    driver.news();
    driver.give_to(a, [1]);
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    assert_eq!(driver.news(), [], "nobody wants it any more");
    assert_eq!(driver.refused(), [(a, Why::Removed, vec![1])]);
    assert_eq!(states(&driver, &[a]), [State::Removed]);
}

#[test]
fn b4_items_for_the_next_generation_hold_the_source_back_like_any_others() {
    let mut driver = Driver::fanned(0, [crate::options::narrow(4, false)]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let unit = driver.unit().expect("the item");
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.give_to(a, [2, 3, 4]);
    assert!(driver.engine().room() > 0);
    driver.give_to(a, [5]);
    assert_eq!(driver.engine().room(), 0);
    driver.done(unit, []);
    driver.poll();
    driver.news();
    assert_eq!(driver.engine().room(), 0, "they wait in its queue now");
    for _ in 0..2 {
        let unit = driver.unit().expect("four");
        driver.done(unit, []);
    }
    assert!(driver.engine().room() > 0);
}

#[test]
fn b4_an_idle_branch_is_evicted_after_idle_ttl_and_not_before() {
    let branches = BranchOptions {
        idle_ttl: Some(ms(100)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [windowed(size(2))]);
    let a = driver.open();
    driver.advance(ms(60));
    driver.give_to(a, [1]);
    driver.advance(ms(100));
    assert_eq!(states(&driver, &[a]), [State::Open], "an item is inside");
    driver.give_to(a, [2]);
    let unit = driver.unit().expect("the window");
    driver.advance(ms(30));
    driver.done(unit, []);
    driver.advance(ms(99));
    assert_eq!(states(&driver, &[a]), [State::Open]);
    assert_eq!(driver.engine().deadline(), Some(driver.now.after(ms(1))));
    driver.advance(ms(1));
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    assert_eq!(driver.engine().deadline(), None);
    driver.give_to(a, [3, 4]);
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![3, 4]));
}

#[test]
fn b4_an_item_whose_branch_may_not_come_back_is_refused() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    assert_eq!(driver.obey(a, Command::Drain), Ok(()));
    driver.poll();
    driver.call(|engine, _| engine.take_news());
    driver.give_to(a, [1]);
    driver.call(|engine, now| engine.decline(a, now));
    assert_eq!(driver.refused(), [(a, Why::Declined, vec![1])]);
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
}

#[test]
fn c19_what_a_branch_registered_is_undone_if_it_fails_and_released_if_it_is_removed() {
    for command in [Command::Fail, Command::Remove, Command::Drain] {
        let mut driver = Driver::fanned(0, [leg()]);
        let a = driver.open();
        driver.give_to(a, [1]);
        let unit = driver.unit().expect("the item");
        driver.call(|engine, _| {
            engine.register(Level::Branch(a), step(Kind::Compensation, 1));
            engine.register(Level::Branch(a), step(Kind::Finalizer, 2));
        });
        assert_eq!(driver.obey(a, command), Ok(()));
        driver.poll();
        assert_eq!(driver.undo_all(), [], "a unit may yet register");
        driver.done(unit, []);
        driver.poll();
        let expected: &[u64] = if command == Command::Fail {
            &[1, 2]
        } else {
            &[2]
        };
        assert_eq!(driver.undo_all(), expected, "{command:?}");
        driver.end();
        assert!(driver.finished());
    }
}

#[test]
fn b4_of_two_commands_the_later_one_wins() {
    for last in [Command::Restart, Command::Fail, Command::Remove] {
        let mut driver = Driver::fanned(0, [retried(3, ms(5)), leg()]);
        let a = driver.open();
        driver.call(|engine, _| engine.register(Level::Branch(a), step(Kind::Compensation, 9)));
        driver.give_to(a, [1, 2]);
        let first = driver.unit().expect("the first");
        assert_eq!(driver.obey(a, Command::Fail), Ok(()));
        let refused = driver.refused();
        assert_eq!(refused, [(a, Why::Failed, vec![2])]);
        if last == Command::Fail {
            assert_eq!(driver.obey(a, Command::Restart), Ok(()));
        }
        assert_eq!(driver.obey(a, last), Ok(()), "{last:?}");
        driver.give_to(a, [3]);
        let refused = driver.refused();
        assert_eq!(refused.is_empty(), last == Command::Restart, "{last:?}");
        // What was begun before is not tried again, and goes no further.
        driver.fail(first, [1]);
        assert_eq!(driver.undo_all(), [1]);
        driver.advance(ms(100));
        assert_eq!(
            driver.undo_all(),
            [9],
            "{last:?}: it has failed before that"
        );
        assert_eq!(driver.news(), [], "{last:?}");
        driver.poll();
        let (news, state) = match last {
            Command::Restart => (News::Closed { wanted: true }, State::Open),
            Command::Fail => (News::Closed { wanted: false }, State::Failed),
            _ => (News::Closed { wanted: false }, State::Removed),
        };
        assert_eq!(driver.news(), [(a, news)], "{last:?}");
        assert_eq!(states(&driver, &[a]), [state]);
        if last == Command::Restart {
            assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![3]));
        } else {
            driver.end();
            assert!(driver.finished());
        }
    }
}

#[test]
fn b4_a_failed_branch_with_nothing_inside_is_wanted_as_soon_as_it_is_restarted() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    assert!(driver.call(|engine, _| engine.take_wanted(a)));
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    driver.call(|engine, now| engine.reopen(a, Own::default(), now));
    driver.poll();
    assert_eq!(driver.engine().state(a), (State::Open, 2));
    assert!(driver.news().is_empty());
}

#[test]
fn b14_branches_that_stay_open_outlive_the_source_until_the_pipeline_is_drained() {
    let branches = BranchOptions {
        stay_open: true,
        idle_ttl: Some(ms(100)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 1, [windowed(size(2)), windowed(size(9))]);
    let a = driver.open();
    driver.give([1]);
    driver.end();
    let unit = driver.unit().expect("the trunk's window leaves");
    driver.done(unit, [1]);
    for (_, item) in driver.call(|engine, _| engine.take_arrivals(1)) {
        driver.offer(1, a, item);
    }
    assert!(!driver.finished() && driver.unit().is_none());
    assert_eq!(driver.engine().deadline(), Some(driver.now.after(ms(100))));
    driver.drain();
    let unit = driver.unit().expect("the branch's window leaves");
    driver.done(unit, []);
    assert!(driver.finished());
}

#[test]
fn b4_a_window_timer_of_an_ended_generation_does_nothing_to_the_next() {
    let window = anabranch_core::window::WindowOptions {
        max_age: Some(ms(10)),
        ..size(2)
    };
    let mut driver = Driver::fanned(0, [windowed(window)]);
    let a = driver.open();
    driver.give_to(a, [1, 2]);
    let unit = driver.unit().expect("a full window");
    driver.done(unit, []);
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    driver.poll();
    driver.news();
    driver.advance(ms(5));
    driver.give_to(a, [3]);
    driver.advance(ms(5));
    assert!(driver.unit().is_none(), "it is five old");
    driver.advance(ms(5));
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![3]));
}

#[test]
fn b4_a_branch_may_come_back_with_another_capacity() {
    let mut driver = Driver::fanned(0, [crate::options::narrow(4, false)]);
    let a = driver.open_own(Own {
        capacity: Some(2),
        ..Own::default()
    });
    driver.give_to(a, [1, 2]);
    assert_eq!(driver.engine().room(), 0);
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    for _ in 0..2 {
        let unit = driver.unit().expect("two");
        assert_eq!(unit.leg, 0);
        driver.done(unit, []);
    }
    driver.poll();
    driver.news();
    driver.give_to(a, [3, 4, 5]);
    assert!(driver.engine().room() > 0);
    driver.give_to(a, [6]);
    assert_eq!(driver.engine().room(), 0);
    assert!(driver.engine().has_work(Port(0)));
}

#[test]
fn b4_a_branch_is_idle_from_its_last_unit_on_not_from_its_opening() {
    let branches = BranchOptions {
        idle_ttl: Some(ms(100)),
        ..BranchOptions::default()
    };
    let mut driver = Driver::living(branches, 0, [leg()]);
    let a = driver.open();
    driver.advance(ms(60));
    driver.give_to(a, [1]);
    let unit = driver.unit().expect("the item");
    driver.done(unit, []);
    for passed in [40, 59] {
        driver.advance(ms(passed));
        assert_eq!(states(&driver, &[a]), [State::Open]);
    }
    driver.advance(ms(1));
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
}
