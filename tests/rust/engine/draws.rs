//! What the random runs are drawn from: pipelines, and what happens to them.

use std::time::Duration;

use anabranch_core::branch::Command;
use anabranch_core::channel::OnFull;
use anabranch_core::compensation::Policy;
use anabranch_core::engine::{
    BranchOptions, Config, LegOptions, OnBranchError, Operator, Port, RollbackOptions,
};
use anabranch_core::retry::{Backoff, Jitter, Retry};
use anabranch_core::throttle::Rate;
use anabranch_core::window::{Partial, WindowOptions};
use proptest::prelude::*;

use crate::driver::EPOCH;
use crate::options::{leg, ms};
use crate::world::PORTS;

/// Items that are handed out together, at most.
pub(crate) const MOST_BATCH: usize = 4;

/// What a handler makes of its unit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Done { outputs: usize },
    Failed { retryable: bool },
    Interrupted,
}

/// What actions belong to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Reach {
    #[default]
    Unit,
    Branch,
    Run,
}

/// Actions that a handler, or an undo action, registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acts {
    pub(crate) undos: usize,
    pub(crate) finalizers: usize,
    pub(crate) reach: Reach,
    pub(crate) port: Port,
}

impl Default for Acts {
    fn default() -> Self {
        Self {
            undos: 0,
            finalizers: 0,
            reach: Reach::Unit,
            port: Port(0),
        }
    }
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
    /// Takes up to so many items that one handler works on one after the other.
    Batch {
        port: Port,
        most: usize,
    },
    /// Ends a unit, a batch or an undo action in hand, which has registered some actions.
    End {
        which: usize,
        fate: Fate,
        acts: Acts,
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
    /// Arranges the rollbacks that have begun; leaves each so-manieth action out.
    Arrange {
        every: usize,
    },
    Pass(Duration),
    Poll,
    Finish(Finish),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish {
    End,
    Drain,
    /// The source fails.
    Fault,
    Abort,
    Discard,
    /// Nothing more is waited for: what has not been undone is listed.
    Leave,
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
        1_u16..4,
    )
        .prop_map(
            |(on_full, timeout, idle_ttl, on_error, stay_open, weight)| BranchOptions {
                on_full,
                timeout,
                idle_ttl,
                on_error,
                stay_open,
                weight,
            },
        );
    prop_oneof![Just(BranchOptions::default()), lively]
}

fn commands() -> impl Strategy<Value = Command> {
    (0..Command::ALL.len()).prop_map(|which| Command::ALL[which])
}

fn rollbacks() -> impl Strategy<Value = RollbackOptions> {
    let policy = prop_oneof![
        4 => Just(Policy::Sequential),
        1 => Just(Policy::Parallel),
        1 => Just(Policy::Skip),
        1 => Just(Policy::Custom),
    ];
    let deadline = prop::option::weighted(0.2, (1_u64..6).prop_map(ms));
    (policy, deadline, prop::bool::weighted(0.3)).prop_map(|(policy, deadline, commit_at_end)| {
        RollbackOptions {
            policy,
            deadline,
            commit_at_end,
        }
    })
}

/// A leg that takes failures: no window, no throttle.
fn operators() -> impl Strategy<Value = LegOptions> {
    let kind = prop_oneof![Just(Operator::Recover), Just(Operator::DeadLetter)];
    (
        kind,
        1_usize..8,
        1_u32..4,
        any::<bool>(),
        retries(),
        ports(),
    )
        .prop_map(
            |(kind, capacity, concurrency, ordered, retry, port)| LegOptions {
                capacity,
                concurrency,
                ordered,
                retry,
                port,
                operator: Some(kind),
                ..leg()
            },
        )
}

/// The legs: those of the items, and in some of two courses of copies.
fn courses_of(leg: BoxedStrategy<LegOptions>) -> impl Strategy<Value = Vec<LegOptions>> {
    let copies = prop::collection::vec((any::<prop::sample::Index>(), rows(leg.clone())), 1..3);
    let copies = prop_oneof![2 => Just(Vec::new()), 1 => copies];
    (rows(leg), copies).prop_map(|(mut legs, copies)| {
        for (number, (at, mut row)) in (1..).zip(copies) {
            let handler = |leg: &usize| legs[*leg].operator.is_none();
            let goes_on = |leg: &usize| {
                let mut behind = (leg + 1..legs.len()).filter(handler);
                legs[*leg].copies.is_none()
                    && behind.any(|next| legs[next].course == legs[*leg].course)
            };
            let may: Vec<_> = (0..legs.len()).filter(handler).filter(goes_on).collect();
            if may.is_empty() {
                continue;
            }
            let at = may[at.index(may.len())];
            legs[at].copies = Some(number);
            for leg in &mut row {
                leg.course = number;
            }
            let behind = legs.split_off(at + 1);
            legs.extend(row);
            legs.extend(behind);
        }
        legs
    })
}

/// A row of legs: some of one kind only, some with operators anywhere between those that take items.
fn rows(legs: impl Strategy<Value = LegOptions>) -> impl Strategy<Value = Vec<LegOptions>> {
    let operators = prop::collection::vec((any::<prop::sample::Index>(), operators()), 1..4);
    let operators = prop_oneof![Just(Vec::new()), operators];
    (prop::collection::vec(legs, 1..4), operators).prop_map(|(mut legs, operators)| {
        for (at, operator) in operators {
            legs.insert(at.index(legs.len() + 1), operator);
        }
        legs
    })
}

pub(crate) fn configs() -> impl Strategy<Value = Config> {
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
                heartbeat: None,
                retry,
                timeout,
                grace: ms(2),
                port,
                operator: None,
                course: 0,
                copies: None,
            }
        },
    );
    let leg = leg.boxed();
    (
        courses_of(leg),
        0_usize..7,
        1_usize..7,
        any::<bool>(),
        any::<u64>(),
        lives(),
        rollbacks(),
    )
        .prop_map(
            |(legs, fan, max_in_flight, stop_on_error, seed, branches, rollback)| {
                let fan_leg = fan % (legs.len() + 1);
                // Only the items themselves part by their keys.
                let own = |leg: &usize| legs[*leg].course == 0;
                let fan_leg = (fan_leg..legs.len()).find(own).unwrap_or(legs.len());
                Config {
                    legs,
                    fan_leg,
                    ports: PORTS,
                    max_in_flight,
                    stop_on_error,
                    seed,
                    epoch: EPOCH,
                    rollback,
                    branches,
                }
            },
        )
}

fn ports() -> impl Strategy<Value = Port> {
    (0..PORTS).prop_map(Port)
}

pub(crate) fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (0_usize..4).prop_map(|outputs| Fate::Done { outputs }),
        3 => any::<bool>().prop_map(|retryable| Fate::Failed { retryable }),
        1 => Just(Fate::Interrupted),
    ]
}

/// Actions as often as not none.
pub(crate) fn acts() -> impl Strategy<Value = Acts> {
    let reach = prop_oneof![
        6 => Just(Reach::Unit),
        1 => Just(Reach::Branch),
        1 => Just(Reach::Run),
    ];
    let some =
        (0_usize..4, 0_usize..2, reach, ports()).prop_map(|(undos, finalizers, reach, port)| {
            Acts {
                undos,
                finalizers,
                reach,
                port,
            }
        });
    prop_oneof![2 => Just(Acts::default()), 1 => some]
}

pub(crate) fn finishes() -> impl Strategy<Value = Finish> {
    prop_oneof![
        6 => Just(Finish::End),
        4 => Just(Finish::Drain),
        2 => Just(Finish::Fault),
        4 => Just(Finish::Abort),
        4 => Just(Finish::Discard),
        1 => Just(Finish::Leave),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let index = || 0_usize..12;
    prop_oneof![
        12 => (1_usize..5, index(), prop::bool::weighted(0.2))
            .prop_map(|(events, branch, acted)| Move::Give { events, branch, acted }),
        1 => (index(), any::<bool>(), any::<bool>())
            .prop_map(|(branch, acted, failed)| Move::EndEarly { branch, acted, failed }),
        1 => Just(Move::Open),
        12 => (ports(), prop::bool::weighted(0.2)).prop_map(|(port, seal)| Move::Next { port, seal }),
        3 => (ports(), 1..=MOST_BATCH).prop_map(|(port, most)| Move::Batch { port, most }),
        12 => (index(), fates(), acts()).prop_map(
            |(which, fate, acts)| Move::End { which, fate, acts }
        ),
        1 => (0_usize..4).prop_map(|every| Move::Arrange { every }),
        6 => index().prop_map(|branch| Move::Forward { branch }),
        4 => (0_u64..4).prop_map(|time| Move::Pass(ms(time))),
        1 => Just(Move::Pass(ms(1000))),
        4 => Just(Move::Poll),
    ]
}

/// The same, with commands to branches, or without any.
pub(crate) fn courses(most: usize) -> impl Strategy<Value = Vec<Move>> {
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
