//! Undo actions and finalizers that never have a turn: too many passes lie before them, or the run is
//! left. None is lost: the rows C5, C15, E5.

use anabranch_core::branch::{BranchId, Command, State};
use anabranch_core::compensation::{Kind, Policy};
use anabranch_core::engine::{Engine, Fate, Level, Outcome, RollbackOptions, Work};

use crate::driver::{Driver, PORT, scope};
use crate::lives::states;
use crate::scopes::{in_hand, plain, step, with};

/// Plays back an action that registers another one like it each time it runs; says how often it did.
fn endless(driver: &mut Driver, level: Level, kind: Kind) -> u64 {
    let mut ran = 0;
    loop {
        driver.poll();
        let Some(Work::Undo(turn)) = driver.call(|engine, now| engine.next(PORT, now)) else {
            return ran;
        };
        assert_eq!(turn.step.kind, kind);
        ran += 1;
        assert!(ran < 100, "it has no end");
        let another = step(kind, ran);
        driver.call(|engine, _| engine.register(level, another));
        driver.undone(turn);
    }
}

/// What is stuck, as kind and number.
fn stuck(driver: &Driver) -> Vec<(Kind, u64)> {
    let stuck = driver.engine().stuck().iter();
    stuck.map(|it| (it.step.kind, it.step.order)).collect()
}

#[test]
fn c5_actions_that_register_others_for_the_run_for_ever_are_stopped() {
    use Kind::{Compensation, Finalizer};
    for (kind, aborts) in [(Compensation, true), (Finalizer, true), (Finalizer, false)] {
        let mut driver = plain();
        driver.call(|engine, _| engine.register(Level::Pipeline, step(kind, 0)));
        if aborts {
            driver.abort();
        } else {
            driver.end();
        }
        assert_eq!(endless(&mut driver, Level::Pipeline, kind), 16);
        assert!(driver.finished());
        assert_eq!(stuck(&driver), [(kind, 16)]);
        assert_eq!(driver.engine().undone_counts().failed, 1);
    }
}

#[test]
fn c5_nor_do_those_that_register_others_for_their_branch_go_on_for_ever() {
    use Kind::{Compensation, Finalizer};
    for (kind, command) in [
        (Compensation, Command::Fail),
        (Finalizer, Command::Fail),
        (Finalizer, Command::Drain),
    ] {
        let mut driver = plain();
        let branch = driver.open();
        let level = Level::Branch(branch);
        for generation in 1..=2 {
            driver.call(|engine, _| engine.register(level, step(kind, 0)));
            assert_eq!(driver.obey(branch, command), Ok(()));
            assert_eq!(endless(&mut driver, level, kind), 16);
            assert_eq!(stuck(&driver), vec![(kind, 16); generation], "{command:?}");
            assert_eq!(driver.engine().stuck()[0].branch, branch);
            let over = [State::Failed, State::Evicted];
            assert!(over.contains(&states(&driver, &[branch])[0]));
            // Each generation has as many turns.
            assert_eq!(driver.obey(branch, Command::Restart), Ok(()));
            driver.poll();
            driver.news();
        }
        driver.end();
        assert!(driver.finished());
    }
}

/// Something of each kind at each level, of which one action of the unit runs while the run is left.
fn left(policy: Policy) -> Driver {
    let options = RollbackOptions {
        policy,
        ..RollbackOptions::default()
    };
    let mut driver = with(options, false);
    let branch: BranchId = driver.open();
    let unit = in_hand(&mut driver, branch);
    let levels = [Level::Branch(branch), Level::Pipeline];
    for (level, first) in levels.into_iter().zip([4, 6]) {
        driver.call(|engine, _| {
            engine.register(level, step(Kind::Compensation, first));
            engine.register(level, step(Kind::Finalizer, first + 1));
        });
    }
    let mut own = scope([1, 2]);
    own.push(step(Kind::Finalizer, 3));
    own.push(step(Kind::Finalizer, 8));
    driver.complete(unit, Outcome::Interrupted, Some(own.into()));
    let running = driver.turn();
    driver.call(Engine::abandon);
    driver.undone(running);
    assert_eq!(driver.undo_all(), []);
    driver.end();
    assert!(driver.finished());
    driver
}

#[test]
fn e5_c15_what_has_had_no_turn_when_the_run_is_left_is_stuck_finalizers_too() {
    let driver = left(Policy::Sequential);
    let mut unrun = stuck(&driver);
    unrun.sort_by_key(|it| it.1);
    let expected = [
        (Kind::Compensation, 1),
        (Kind::Finalizer, 3),
        (Kind::Compensation, 4),
        (Kind::Finalizer, 5),
        (Kind::Compensation, 6),
        (Kind::Finalizer, 7),
        (Kind::Finalizer, 8),
    ];
    assert_eq!(unrun, expected);
    assert_eq!(driver.engine().undone_counts().done, 1);
}

#[test]
fn c13_what_the_policy_leaves_out_is_not_stuck_when_the_run_is_left() {
    let driver = left(Policy::Skip);
    let mut unrun = stuck(&driver);
    unrun.sort_by_key(|it| it.1);
    let finalizers = [3, 5, 7].map(|order| (Kind::Finalizer, order));
    assert_eq!(unrun, finalizers, "the eighth runs");
    let undone = driver.engine().undone();
    let skipped = undone.iter().filter(|it| matches!(it.fate, Fate::Skipped));
    let mut skipped: Vec<_> = skipped.map(|it| it.step.order).collect();
    skipped.sort_unstable();
    assert_eq!(skipped, [1, 2, 4, 6]);
    assert_eq!(driver.engine().undone_counts().finalized, 1);
}
