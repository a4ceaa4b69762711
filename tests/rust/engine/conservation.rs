//! Random pipelines under random interleavings: nothing is lost, nothing happens twice, and
//! whatever was going on, the run ends.
//!
//! `PROPTEST_CASES` sets how many; a failing one is shrunk.

use std::time::Duration;

use anabranch_core::branch::Command;
use anabranch_core::channel::OnFull;
use anabranch_core::engine::{
    BranchOptions, Config, LegOptions, OnBranchError, Port, RollbackOptions,
};
use anabranch_core::retry::{Backoff, Jitter, Retry};
use anabranch_core::throttle::Rate;
use anabranch_core::window::{Partial, WindowOptions};
use proptest::prelude::*;

use crate::driver::EPOCH;
use crate::options::ms;
use crate::world::{PORTS, World};

/// What a handler makes of its unit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Done { outputs: usize },
    Failed { retryable: bool },
    Interrupted,
}

/// One thing the driver or the world does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    /// Takes up to so many events from the source; a stage acted on them, or not. Once the run
    /// has been ended, they were in the driver's hand and come late.
    Give {
        events: usize,
        branch: usize,
        acted: bool,
    },
    /// A stage takes an event out, or fails at it, before the first leg.
    EndEarly {
        branch: usize,
        acted: bool,
        failed: bool,
    },
    Open,
    Next {
        port: Port,
        seal: bool,
    },
    /// Ends a unit or an undo action in hand, which has registered some actions.
    End {
        which: usize,
        fate: Fate,
        registered: usize,
        port: Port,
    },
    Forward {
        branch: usize,
    },
    /// Asks something of a branch, which may not fit its state.
    Ask {
        branch: usize,
        command: Command,
    },
    /// Changes how fast a branch may go on.
    Throttle {
        branch: usize,
        rate: Option<Rate>,
    },
    /// Hears what has happened to branches: opens those that are wanted, or declines to.
    Tend {
        decline: bool,
    },
    Pass(Duration),
    Poll,
    Finish(Finish),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish {
    End,
    Drain,
    Abort,
    Discard,
}

fn windows() -> impl Strategy<Value = Option<WindowOptions>> {
    let millis = || prop::option::of((0_u64..4).prop_map(ms));
    let policy = prop_oneof![
        Just(None),
        Just(Some(Partial::Flush)),
        Just(Some(Partial::Drop))
    ];
    let window = (
        prop::option::weighted(0.8, 1_usize..5),
        millis(),
        millis(),
        policy,
    )
        .prop_map(|(max_items, max_age, idle, on_cancel)| {
            let untimed = max_items.is_none() && max_age.is_none() && idle.is_none();
            let max_items = if untimed { Some(3) } else { max_items };
            WindowOptions {
                max_items,
                max_age,
                idle,
                max_bytes: None,
                on_cancel,
            }
        });
    prop::option::of(window)
}

fn retries() -> impl Strategy<Value = Option<Retry>> {
    let fixed = (0_u64..5).prop_map(|delay| Backoff::Fixed(ms(delay)));
    let jitter = prop_oneof![Just(Jitter::None), Just(Jitter::Full)];
    let exponential = jitter.prop_map(|jitter| Backoff::Exponential {
        base: ms(1),
        factor: 2.0,
        cap: ms(3),
        jitter,
    });
    let retry = (1_u32..4, prop_oneof![fixed, exponential]);
    prop::option::of(retry.prop_map(|(attempts, backoff)| Retry::new(attempts, backoff)))
}

fn rates() -> impl Strategy<Value = Option<Rate>> {
    let rate = (1_u64..3, 1_u32..4).prop_map(|(interval, burst)| Rate::new(ms(interval), burst));
    prop::option::weighted(0.2, rate)
}

/// Half of the pipelines have branches that live as by default.
fn lives() -> impl Strategy<Value = BranchOptions> {
    let on_full = prop_oneof![
        Just(OnFull::Wait),
        Just(OnFull::DropNewest),
        Just(OnFull::DropOldest),
        Just(OnFull::Fail),
    ];
    let restart = (1_u32..4, 0_u64..4).prop_map(|(attempts, delay)| {
        OnBranchError::Restart(Retry::new(attempts, Backoff::Fixed(ms(delay))))
    });
    let on_error = prop_oneof![
        2 => Just(OnBranchError::Continue),
        2 => (1_u32..4).prop_map(|after| OnBranchError::Fail { after }),
        2 => restart,
        1 => Just(OnBranchError::Stop),
    ];
    let millis = || prop::option::weighted(0.3, (1_u64..6).prop_map(ms));
    let lively = (
        on_full,
        millis(),
        millis(),
        on_error,
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(on_full, timeout, idle_ttl, on_error, stay_open)| BranchOptions {
                on_full,
                timeout,
                idle_ttl,
                on_error,
                stay_open,
            },
        );
    prop_oneof![Just(BranchOptions::default()), lively]
}

fn commands() -> impl Strategy<Value = Command> {
    (0..Command::ALL.len()).prop_map(|which| Command::ALL[which])
}

fn configs() -> impl Strategy<Value = Config> {
    let leg = (
        windows(),
        1_usize..8,
        any::<bool>(),
        1_u32..4,
        any::<bool>(),
        retries(),
        prop::option::weighted(0.3, (1_u64..6).prop_map(ms)),
        ports(),
        rates(),
    );
    let leg = leg.prop_map(
        |(window, capacity, isolate, concurrency, ordered, retry, timeout, port, throttle)| {
            LegOptions {
                window,
                capacity,
                isolate,
                concurrency,
                ordered,
                throttle,
                retry,
                timeout,
                grace: ms(2),
                port,
                operator: None,
            }
        },
    );
    let legs = prop::collection::vec(leg, 1..4);
    (
        legs,
        0_usize..4,
        1_usize..7,
        any::<bool>(),
        any::<u64>(),
        lives(),
    )
        .prop_map(
            |(legs, fan, max_in_flight, stop_on_error, seed, branches)| {
                let fan_leg = fan % (legs.len() + 1);
                Config {
                    legs,
                    fan_leg,
                    ports: PORTS,
                    max_in_flight,
                    stop_on_error,
                    seed,
                    epoch: EPOCH,
                    rollback: RollbackOptions::default(),
                    branches,
                }
            },
        )
}

fn ports() -> impl Strategy<Value = Port> {
    (0..PORTS).prop_map(Port)
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (0_usize..4).prop_map(|outputs| Fate::Done { outputs }),
        3 => any::<bool>().prop_map(|retryable| Fate::Failed { retryable }),
        1 => Just(Fate::Interrupted),
    ]
}

fn finishes() -> impl Strategy<Value = Finish> {
    prop_oneof![
        Just(Finish::End),
        Just(Finish::Drain),
        Just(Finish::Abort),
        Just(Finish::Discard),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let index = || 0_usize..12;
    let registered = prop_oneof![3 => Just(0_usize), 1 => 1_usize..4];
    prop_oneof![
        12 => (1_usize..5, index(), prop::bool::weighted(0.2))
            .prop_map(|(events, branch, acted)| Move::Give { events, branch, acted }),
        1 => (index(), any::<bool>(), any::<bool>())
            .prop_map(|(branch, acted, failed)| Move::EndEarly { branch, acted, failed }),
        1 => Just(Move::Open),
        12 => (ports(), prop::bool::weighted(0.2)).prop_map(|(port, seal)| Move::Next { port, seal }),
        12 => (index(), fates(), registered, ports()).prop_map(
            |(which, fate, registered, port)| Move::End { which, fate, registered, port }
        ),
        6 => index().prop_map(|branch| Move::Forward { branch }),
        4 => (0_u64..4).prop_map(|time| Move::Pass(ms(time))),
        4 => Just(Move::Poll),
    ]
}

/// The same, with commands to branches, or without any.
fn courses(most: usize) -> impl Strategy<Value = Vec<Move>> {
    let asked = || {
        prop_oneof![
            8 => moves(),
            1 => (0_usize..3, commands()).prop_map(|(branch, command)| Move::Ask { branch, command }),
            1 => prop::bool::weighted(0.2).prop_map(|decline| Move::Tend { decline }),
            1 => (0_usize..3, rates()).prop_map(|(branch, rate)| Move::Throttle { branch, rate }),
        ]
    };
    prop_oneof![
        prop::collection::vec(moves(), 0..most),
        prop::collection::vec(asked(), 0..most),
    ]
}

fn cases() -> u32 {
    let default = ProptestConfig::default().cases;
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        3000
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        ..ProptestConfig::default()
    })]

    #[test]
    fn e8_nothing_is_lost_nothing_happens_twice_and_every_run_ends(
        config in configs(),
        prompt: bool,
        before in courses(80),
        rest in any::<bool>(),
        finish in prop::collection::vec((finishes(), courses(12)), 1..3),
        choices in prop::collection::vec((0_usize..12, fates(), 0_usize..2), 0..40),
    ) {
        let mut world = World::new(config, prompt);
        let calm = std::iter::repeat_with(|| (0, Fate::Done { outputs: 1 }, 0));
        let mut choices = choices.into_iter().chain(calm);
        for step in before {
            world.step(step);
        }
        if rest {
            world.settle(&mut choices);
            let engine = world.driver.engine();
            prop_assert!(engine.room() > 0 || engine.aborted(), "B5: stalled with nothing to do");
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
    }
}
