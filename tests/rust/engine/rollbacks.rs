//! What failed units did is undone: the rows C.

use anabranch_core::branch::BranchId;
use anabranch_core::clock::Time;
use anabranch_core::compensation::{Kind, MAX_PASSES, Step};
use anabranch_core::engine::{Again, Item, Outcome, Turn, Undone, UndoneCounts, Work};

use crate::driver::{Driver, Error, Event, Lab, PORT, Undo, scope};
use crate::options::{leg, ms, retried, size, windowed};

#[test]
fn c1_a_failed_unit_is_undone_in_reverse() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1, 2, 3]);
    assert_eq!(driver.undo_all(), [3, 2, 1]);
    driver.end();
    assert!(driver.finished());
    assert_eq!(driver.engine().counts().failed, 1);
}

#[test]
fn c1_an_action_waits_for_the_one_before_it() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1, 2]);
    let turn = driver.turn();
    assert_eq!(turn.step.undo.0, 2);
    assert!(!driver.engine().has_work(PORT));
    driver.end();
    assert!(!driver.finished(), "an action is under way");
    driver.undone(turn);
    assert_eq!(driver.undo_all(), [1]);
    assert!(driver.finished());
}

#[test]
fn c3_a_failed_action_does_not_stop_the_others() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1, 2]);
    let turn = driver.turn();
    driver.pass(ms(30));
    let error = Some(Error::new("OSError", 0));
    driver.call(|engine, now| engine.complete_undo(turn, error, None, now));
    assert_eq!(driver.undo_all(), [1]);
    let engine = driver.engine();
    let counts = engine.undone_counts();
    assert_eq!((counts.done, counts.failed), (1, 1));
    let told = |it: &Undone<Lab>| {
        (
            it.number,
            it.step.undo.0,
            it.fate.error().map(|e| e.0),
            it.took,
        )
    };
    let stuck: Vec<_> = engine.stuck().iter().map(told).collect();
    let done: Vec<_> = engine.undone().iter().map(told).collect();
    assert_eq!(stuck, [(1, 2, Some("OSError"), ms(30))]);
    assert_eq!(done, [(2, 1, None, ms(0))]);
}

#[test]
fn c5_actions_registered_during_playback_run_in_the_next_pass_and_each_once() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1, 2]);
    let turn = driver.turn();
    driver.call(|engine, now| {
        engine.complete_undo(turn, None, Some(scope([3, 4]).into()), now);
    });
    assert_eq!(driver.undo_all(), [1, 4, 3]);
}

#[test]
fn c5_after_sixteen_passes_what_is_left_is_counted_and_the_unit_let_go() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [0]);
    let mut passes = 0;
    while let Some(work) = driver.call(|engine, now| engine.next(PORT, now)) {
        let Work::Undo(turn) = work else {
            panic!("{work:?}")
        };
        passes += 1;
        let more = Some(scope([turn.step.undo.0 + 1]).into());
        driver.call(|engine, now| engine.complete_undo(turn, None, more, now));
    }
    assert_eq!(passes, u64::from(MAX_PASSES));
    let stuck = driver.engine().stuck();
    assert_eq!(stuck.len(), 1);
    assert_eq!(
        (stuck[0].step.undo.0, &stuck[0].fate.error().is_none()),
        (passes, &true)
    );
    assert_eq!(driver.engine().undone_counts().failed, 1);
    driver.end();
    assert!(driver.finished());
}

#[test]
fn c5_an_action_given_back_after_its_rollback_is_over_is_buried() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1]);
    let turn = driver.turn();
    let rollback = turn.rollback;
    driver.undone(turn);
    driver.graveyard();
    let late = Turn {
        step: Step {
            order: 1,
            kind: Kind::Compensation,
            undo: Undo::new(1, PORT),
        },
        rollback,
        branch: BranchId::TRUNK,
        began: Time::ZERO,
        deadline: Time::NEVER,
        attempt: None,
    };
    let (error, more) = (Some(Error::new("Late", 0)), Some(scope([2]).into()));
    driver.call(|engine, now| engine.complete_undo(late, error, more, now));
    let dead = driver.graveyard();
    assert_eq!((dead.undos.len(), dead.errors.len()), (2, 1));
    assert_eq!(driver.undo_all(), []);
}

#[test]
fn c6_with_nothing_registered_nothing_runs() {
    for registered in [None, Some(scope([]).into())] {
        let mut driver = Driver::of([leg()]);
        let unit = driver.give_and_take();
        let outcome = Outcome::Failed {
            error: Error::new("Oops", 1),
            again: Again::Yes,
        };
        driver.complete(unit, outcome, registered);
        assert_eq!(driver.undo_all(), []);
        assert!(driver.engine().undone().is_empty());
        assert_eq!(driver.engine().undone_counts(), UndoneCounts::default());
        driver.end();
        assert!(driver.finished());
        assert_eq!(driver.engine().codes().get("Oops"), Some(&1));
    }
}

#[test]
fn c7_the_failure_stays_what_it_was() {
    let mut driver = Driver::of([leg()]);
    let unit = driver.give_and_take();
    driver.fail(unit, [1]);
    driver.undo_all();
    let failure = &driver.engine().failures()[0];
    assert_eq!(
        (failure.error.0, failure.items, failure.attempts),
        ("Oops", 1, 1)
    );
    assert_eq!(driver.engine().undone()[0].step.undo.0, 1);
    assert_eq!(driver.engine().codes().get("Oops"), Some(&1));
}

#[test]
fn c9_c17_the_failing_steps_own_actions_run_first_then_upstreams_and_only_this_units() {
    let mut driver = Driver::of([leg(), leg()]);
    driver.give([1, 2]);
    for order in [10, 20] {
        let unit = driver.unit().expect("two items");
        let output = Outcome::Done(vec![Event::new(order)]);
        driver.complete(unit, output, Some(scope([order, order + 5]).into()));
        driver.forward(1);
    }
    let first = driver.unit().expect("the first item, downstream");
    driver.fail(first, [30, 31]);
    assert_eq!(driver.undo_all(), [31, 30, 15, 10]);
    let second = driver.unit().expect("the second item, downstream");
    driver.done(second, []);
    assert_eq!(driver.undo_all(), []);
    let released: Vec<_> = driver.graveyard().undos.iter().map(|undo| undo.0).collect();
    assert_eq!(released, [20, 25]);
}

#[test]
fn c17_a_window_merges_the_scopes_of_its_items() {
    let pair = size(2);
    let mut driver = Driver::of([windowed(pair)]);
    for orders in [[1, 4], [2, 3]] {
        let item = Item {
            scope: Some(scope(orders).into()),
            ..Item::new(Event::new(0))
        };
        driver.give_item(BranchId::TRUNK, item);
    }
    let unit = driver.unit().expect("a window");
    driver.fail(unit, [5]);
    assert_eq!(driver.undo_all(), [5, 4, 3, 2, 1]);
}

#[test]
fn c10_the_actions_of_an_attempt_run_before_the_next_one() {
    let mut driver = Driver::of([retried(3, ms(10))]);
    let item = Item {
        scope: Some(scope([1]).into()),
        ..Item::new(Event::new(0))
    };
    driver.give_item(BranchId::TRUNK, item);
    for attempt in 1..=2 {
        let unit = driver.unit().expect("an attempt");
        assert_eq!(unit.attempt, attempt);
        let order = u64::from(attempt) * 10;
        driver.fail(unit, [order, order + 1]);
        // However long the undo takes, the attempt waits for it.
        driver.advance(ms(100));
        assert_eq!(
            driver.undo_all(),
            [order + 1, order],
            "and upstream's action stays"
        );
        driver.poll();
    }
    let unit = driver.unit().expect("the last attempt");
    driver.fail(unit, [30]);
    assert_eq!(driver.undo_all(), [30, 1]);
}

#[test]
fn c11_success_releases_at_once_and_memory_stays_flat() {
    let mut driver = Driver::of([leg()]);
    for order in 0..10_000 {
        let item = Item {
            scope: Some(scope([2 * order]).into()),
            ..Item::new(Event::new(order))
        };
        driver.give_item(BranchId::TRUNK, item);
        let unit = driver.unit().expect("the item");
        let own = Some(scope([2 * order + 1]).into());
        driver.complete(unit, Outcome::Done(Vec::new()), own);
        let dead = driver.graveyard();
        // Upstream's action and the handler's own.
        assert_eq!((dead.items.len(), dead.undos.len()), (1, 2));
    }
    assert_eq!(driver.undo_all(), []);
}
