//! Random pipelines under random interleavings: nothing is lost, nothing happens twice, every undo
//! action has the one fate that is its own, and whatever was going on, the run ends. The row E8.
//!
//! 10 000 runs, or as many as `TRIALS` says (`make trials`), from a random seed or from `SEED`. The
//! one that fails is shrunk, and printed with a seed that brings it back by itself.

use std::hash::{BuildHasher, Hasher, RandomState};

use anabranch_core::branch::Command;
use anabranch_core::engine::{BranchOptions, Config, LegOptions, Operator, Port, RollbackOptions};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use crate::draws::{Acts, Fate, Finish, Move, acts, configs, courses, fates, finishes};
use crate::driver::EPOCH;
use crate::options::leg;
use crate::world::World;

/// The random numbers of one run.
fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the seed is for whoever runs it at length"
)]
fn e8_nothing_is_lost_nothing_happens_twice_and_every_run_ends() {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        text.parse::<u64>().ok()
    };
    let trials = number("TRIALS").unwrap_or(10_000);
    let seed = number("SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("E8: {trials} runs, SEED={seed}");
    let drawn = (
        configs(),
        any::<bool>(),
        courses(80),
        any::<bool>(),
        prop::collection::vec((finishes(), courses(12)), 1..3),
        prop::collection::vec((0_usize..12, fates(), acts()), 0..40),
    );
    for trial in 0..trials {
        let own = seed.wrapping_add(trial);
        let config = ProptestConfig {
            cases: 1,
            max_shrink_iters: 20_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let mut runner = TestRunner::new_with_rng(config, random(own));
        let ran = runner.run(&drawn, |(config, prompt, before, rest, finish, choices)| {
            let mut world = World::new(config, prompt);
            let calm = std::iter::repeat_with(|| (0, Fate::Done { outputs: 1 }, Acts::default()));
            let mut choices = choices.into_iter().chain(calm);
            for step in before {
                world.step(step);
            }
            if rest {
                world.settle(&mut choices);
                let engine = world.driver.engine();
                prop_assert!(
                    engine.room() > 0 || engine.aborted(),
                    "B5: stalled with nothing to do"
                );
            }
            for (finish, after) in finish {
                world.step(Move::Finish(finish));
                for step in after {
                    world.step(step);
                }
            }
            world.settle(&mut choices);
            if world.stays_open() {
                world.step(Move::Finish(Finish::Drain));
                world.settle(&mut choices);
            }
            world.check_end();
            Ok(())
        });
        if let Err(TestError::Fail(reason, least)) = ran {
            panic!("SEED={own} TRIALS=1: {reason}\nat the least: {least:?}");
        }
    }
}

/// What an operator made of a refused item comes back to its branch, which is declined by then.
#[test]
fn e8_b14_the_counts_of_a_branch_add_up_though_what_it_made_has_become_the_trunks() {
    let recovers = || LegOptions {
        operator: Some(Operator::Recover),
        ..leg()
    };
    let config = Config {
        legs: vec![recovers(), recovers(), leg()],
        fan_leg: 0,
        ports: 2,
        max_in_flight: 1,
        stop_on_error: false,
        seed: 0,
        epoch: EPOCH,
        rollback: RollbackOptions::default(),
        branches: BranchOptions::default(),
    };
    let mut world = World::new(config, false);
    let branch = 0;
    let given = Move::Give {
        events: 1,
        branch,
        acted: false,
    };
    let ask = |command| Move::Ask { branch, command };
    let port = Port(0);
    let made = Move::End {
        which: 0,
        fate: Fate::Done { outputs: 3 },
        acts: Acts::default(),
    };
    let removed = [ask(Command::Remove), given, ask(Command::Add)];
    let recovered = [
        Move::Tend { decline: false },
        Move::Forward { branch },
        Move::Next { port, seal: false },
        made,
    ];
    let declined = [
        Move::Forward { branch },
        Move::Poll,
        Move::Tend { decline: true },
        Move::Finish(Finish::End),
    ];
    for step in removed.into_iter().chain(recovered).chain(declined) {
        world.step(step);
    }
    let calm = std::iter::repeat_with(|| (0, Fate::Done { outputs: 1 }, Acts::default()));
    world.settle(&mut calm.into_iter());
    world.check_end();
}
