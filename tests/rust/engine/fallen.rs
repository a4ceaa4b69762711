//! Branches whose units fail for good: how they fail, and come back: the row B7.

use anabranch_core::branch::{Command, News, State};
use anabranch_core::compensation::Kind;
use anabranch_core::engine::{BranchOptions, Level, OnBranchError, Spot, Why};
use anabranch_core::retry::{Backoff, Retry};

use crate::driver::{Driver, Error, PORT, numbers};
use crate::lives::{fail_for_good, states};
use crate::options::{leg, ms, retried, size, wide, windowed};
use crate::scopes::step;

fn failing(on_error: OnBranchError) -> Driver {
    let branches = BranchOptions {
        on_error,
        ..BranchOptions::default()
    };
    Driver::living(branches, 0, [leg()])
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
fn b7_a_failed_branch_that_is_removed_tries_nothing_again_and_takes_nothing_back() {
    let mut driver = Driver::fanned(0, [retried(2, ms(0))]);
    let branch = driver.open();
    driver.give_to(branch, [1]);
    let unit = driver.unit().expect("the item given");
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    driver.fail(unit, [1]);
    assert_eq!(driver.obey(branch, Command::Remove), Ok(()));
    assert_eq!(driver.undo_all(), [1]);
    driver.poll();
    assert!(driver.unit().is_none(), "no second attempt");
    assert_eq!(driver.engine().counts().failed, 1);

    let mut driver = Driver::fanned(0, [leg()]);
    let branch = driver.open();
    driver.give_to(branch, [1, 2]);
    let batch = driver.call(|engine, now| engine.next_batch(PORT, 2, now));
    let mut values = batch.expect("two items that wait").values;
    assert_eq!(driver.obey(branch, Command::Fail), Ok(()));
    assert_eq!(driver.obey(branch, Command::Remove), Ok(()));
    let rest = values.split_off(1);
    let current = values.pop().expect("the item in hand");
    let unit = driver.call(|engine, now| engine.break_batch(branch, 0, (0, 0), current, rest, now));
    driver.done(unit, []);
    assert_eq!(driver.refused(), [(branch, Why::Removed, vec![2])]);
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
    assert_eq!(states(&driver, &[a]), [State::Draining]);
    driver.give_to(a, [2]);
    driver.done(unit, []);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: true })]);
    assert_eq!(driver.engine().state(a), (State::Open, 2));
    // What came behind the restart has waited for it.
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![2]));
    assert!(driver.refused().is_empty());
}

#[test]
fn b7_a_branch_whose_restart_is_declined_asks_again_with_its_next_item() {
    let policy = Retry::new(9, Backoff::Fixed(ms(10)));
    let mut driver = failing(OnBranchError::Restart(policy));
    let a = driver.open();
    driver.give_to(a, 1..=3);
    fail_for_good(&mut driver);
    driver.poll();
    driver.news();
    driver.advance(ms(10));
    assert_eq!(
        driver.call(|engine, _| engine.take_news()),
        [(a, News::Wanted)]
    );
    driver.call(|engine, now| engine.decline(a, now));
    let refused = driver.refused();
    assert_eq!(refused, [2, 3].map(|n| (a, Why::Declined, vec![n])));
    driver.poll();
    assert_eq!(states(&driver, &[a]), [State::Evicted]);
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    driver.give_to(a, [4]);
    assert_eq!(driver.news(), [(a, News::Wanted)]);
    assert_eq!(driver.unit().map(|unit| numbers(&unit)), Some(vec![4]));
}

#[test]
fn b7_the_driver_hears_which_branches_refuse_what_comes() {
    let mut driver = Driver::fanned(0, [leg(), leg()]);
    let a = driver.open();
    let turns = |driver: &mut Driver| driver.call(|engine, _| engine.take_turns());
    driver.give_to(a, [1]);
    let unit = driver.unit().expect("the item");
    for command in [Command::Pause, Command::Resume, Command::Drain] {
        assert_eq!(driver.obey(a, command), Ok(()));
        assert_eq!(turns(&mut driver), [], "{command:?}");
    }
    assert_eq!(driver.obey(a, Command::Remove), Ok(()));
    assert_eq!(turns(&mut driver), [(a, true)]);
    assert!(driver.engine().refuses(0, a) && !driver.engine().refuses(1, a));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    assert_eq!(turns(&mut driver), [(a, false)]);
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    assert_eq!(turns(&mut driver), [(a, true)]);
    assert!(driver.engine().refuses(0, a) && driver.engine().refuses(1, a));
    assert_eq!(driver.obey(a, Command::Restart), Ok(()));
    assert_eq!(turns(&mut driver), [(a, false)]);
    assert!(!driver.engine().refuses(0, a) && driver.engine().refuses(1, a));
    driver.done(unit, []);
    driver.poll();
    driver.news();
    assert!(!driver.engine().refuses(1, a));
    assert_eq!(turns(&mut driver), []);
    // It does, too, when nothing is inside any more.
    assert_eq!(driver.obey(a, Command::Fail), Ok(()));
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
    assert!(driver.engine().refuses(0, a) && driver.engine().refuses(1, a));
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
    assert_eq!(driver.news(), [], "what undoes it has not run");
    assert_eq!(driver.undo_all(), [1]);
    driver.poll();
    assert_eq!(driver.news(), [(a, News::Closed { wanted: false })]);
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
            engine.fail_item(
                Spot {
                    ahead_of: 0,
                    behind: 1,
                },
                a,
                Error::new("Oops", number),
                1,
                None,
                now,
            );
        });
    }
    assert_eq!(states(&driver, &[a]), [State::Failed]);
}
