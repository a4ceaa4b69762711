//! Branches that are paused, drained, removed, restarted, idle or failed: the rows B4, B7, C19.

use anabranch_core::branch::{BranchId, Command, Misfit, News, Own, State};
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{BranchOptions, Level, OnBranchError, Outcome, Port, Why};
use anabranch_core::retry::{Backoff, Retry};

use crate::driver::{Driver, Error, PORT, numbers};
use crate::options::{leg, ms, retried, size, wide, windowed};
use crate::scopes::step;

fn states(driver: &Driver, branches: &[BranchId]) -> Vec<State> {
    let state = |branch: &BranchId| driver.engine().state(*branch).0;
    branches.iter().map(state).collect()
}

fn fail_for_good(driver: &mut Driver) {
    let Some(unit) = driver.unit() else {
        panic!("there is no unit to fail")
    };
    let again = anabranch_core::engine::Again::No;
    let error = Error::new("Oops", 1);
    driver.complete(unit, Outcome::Failed { error, again }, None);
}

fn failing(on_error: OnBranchError) -> Driver {
    let branches = BranchOptions {
        on_error,
        ..BranchOptions::default()
    };
    Driver::living(branches, 0, [leg()])
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
fn b7_a_branch_fails_after_so_many_units_in_a_row_and_queues_nothing() {
    let mut driver = failing(OnBranchError::Fail { after: 3 });
    let (a, b) = (driver.open(), driver.open());
    driver.give_to(a, 1..=9);
    for _ in 0..2 {
        fail_for_good(&mut driver);
    }
    let good = driver.unit().expect("the third");
    driver.done(good, []);
    for _ in 0..2 {
        fail_for_good(&mut driver);
    }
    assert_eq!(states(&driver, &[a, b]), [State::Open, State::Open]);
    fail_for_good(&mut driver);
    assert_eq!(states(&driver, &[a, b]), [State::Failed, State::Open]);
    let refused: Vec<_> = (7..=9).map(|n| (a, Why::Failed, vec![n])).collect();
    assert_eq!(driver.refused(), refused);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    driver.give_to(a, [10]);
    driver.give_to(b, [20]);
    assert_eq!(driver.refused(), [(a, Why::Failed, vec![10])]);
    let unit = driver.unit().expect("the other goes on");
    assert_eq!(numbers(&unit), [20]);
    driver.done(unit, []);
    driver.end();
    assert!(driver.finished());
    let counts = driver.engine().counts();
    assert_eq!((counts.committed, counts.failed), (2, 9));
}

#[test]
fn b7_a_failed_branch_gives_up_windows_back_offs_and_what_units_pass_on() {
    let mut driver = Driver::fanned(0, [retried(3, ms(50)), windowed(size(2))]);
    let a = driver.open();
    driver.give_to(a, 1..=7);
    let mut window = None;
    for number in [1, 2, 4, 5] {
        let unit = driver.unit().expect("seven items");
        assert_eq!(numbers(&unit), [number]);
        driver.done(unit, [number]);
        driver.forward(1);
        if number == 2 {
            let third = driver.unit().expect("it was there before the window");
            window = driver.unit();
            driver.done(third, [3]);
            driver.forward(1);
        }
    }
    let window = window.expect("the first window");
    assert_eq!(numbers(&window), [1, 2]);
    let item = driver.unit().expect("the sixth item");
    driver.fail(item, []);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    let refused = driver
        .refused()
        .into_iter()
        .flat_map(|(_, _, numbers)| numbers);
    assert_eq!(refused.collect::<Vec<_>>(), [7, 3, 4, 5]);
    driver.advance(ms(100));
    assert_eq!(driver.engine().codes().get("cancelled"), Some(&1));
    assert!(driver.unit().is_none());
    // What was with a handler goes on to its end.
    driver.done(window, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b7_what_a_unit_of_a_failed_branch_passes_on_is_refused() {
    let mut driver = Driver::fanned(0, [leg(), leg()]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let unit = driver.unit().expect("the item");
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    driver.done(unit, [1]);
    driver.forward(1);
    assert_eq!(driver.refused(), [(a, Why::Failed, vec![1])]);
}

#[test]
fn b7_the_rest_of_a_batch_of_a_failed_branch_is_refused() {
    let mut driver = Driver::fanned(0, [leg()]);
    let a = driver.open();
    driver.give_to(a, 1..=3);
    let batch = driver.call(|engine, now| engine.next_batch(PORT, 3, now));
    let mut batch = batch.expect("a batch");
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    let rest = batch.values.split_off(1);
    let first = batch.values.remove(0);
    let unit = driver.call(|engine, now| engine.break_batch(a, 0, (0, 0), first, rest, now));
    driver.done(unit, []);
    let refused: Vec<_> = driver.refused().into_iter().map(|it| it.2[0]).collect();
    assert_eq!(refused, [2, 3]);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn b7_a_failed_branch_that_is_restarted_opens_once_what_it_had_begun_has_ended() {
    let mut driver = Driver::fanned(0, [wide(2, false)]);
    let a = driver.open();
    driver.give_to(a, [1]);
    let unit = driver.unit().expect("the item");
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    driver.poll();
    assert_eq!(states(&driver, &[a]), [State::Failed]);
    driver.done(unit, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: true })]);
    assert_eq!(driver.engine().state(a), (State::Open, 2));
}

#[test]
fn b7_a_branch_restarts_after_its_back_off_and_keeps_what_waits() {
    let policy = Retry::new(3, Backoff::Fixed(ms(10)));
    let mut driver = failing(OnBranchError::Restart(policy));
    let a = driver.open();
    driver.call(|engine, _| engine.register(Level::Branch(a), step(Kind::Compensation, 1)));
    driver.give_to(a, 1..=4);
    fail_for_good(&mut driver);
    assert_eq!(states(&driver, &[a]), [State::Restarting]);
    assert!(driver.unit().is_none());
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    assert_eq!(driver.undo_all(), [1]);
    driver.advance(ms(9));
    assert!(driver.news().is_empty());
    driver.advance(ms(1));
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert_eq!(driver.engine().state(a), (State::Open, 2));
    fail_for_good(&mut driver);
    driver.poll();
    driver.advance(ms(10));
    driver.news();
    // The third attempt is the last, for none has been committed in between.
    fail_for_good(&mut driver);
    assert_eq!(states(&driver, &[a]), [State::Failed]);
    assert_eq!(driver.refused(), [(a, Why::Failed, vec![4])]);
    driver.end();
    driver.poll();
    assert!(driver.finished());
}

#[test]
fn b7_a_restarted_branch_that_commits_has_all_its_restarts_again() {
    let policy = Retry::new(2, Backoff::Fixed(ms(0)));
    let mut driver = failing(OnBranchError::Restart(policy));
    let a = driver.open();
    driver.give_to(a, 1..=10);
    for _ in 0..5 {
        fail_for_good(&mut driver);
        for _ in 0..2 {
            driver.poll();
            driver.news();
        }
        let unit = driver.unit().expect("it is open again");
        driver.done(unit, []);
    }
    assert_eq!(driver.engine().state(a), (State::Open, 6));
}

#[test]
fn b7_a_failure_may_stop_the_pipeline() {
    let mut driver = failing(OnBranchError::Stop);
    let a = driver.open();
    driver.give_to(a, [1, 2]);
    fail_for_good(&mut driver);
    assert!(driver.engine().stopping() && driver.unit().is_none());
}

#[test]
fn b7_an_item_that_fails_before_it_reaches_a_handler_counts_for_its_branch() {
    let mut driver = failing(OnBranchError::Fail { after: 2 });
    let a = driver.open();
    for number in 0..2 {
        driver.call(|engine, now| {
            engine.received(1);
            engine.fail_item(1, a, Error::new("Oops", number), 1, None, now);
        });
    }
    assert_eq!(states(&driver, &[a]), [State::Failed]);
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
        on_full: None,
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
