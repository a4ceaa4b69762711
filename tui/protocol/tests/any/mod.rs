//! Messages at random. Long because every field of every message has its line here, and splitting
//! that would only scatter it.

use anabranch_protocol::message::{
    Ack, Action, ActionState, Arguments, Bye, Call, Cmd, Code, Comp, Dead, DeadLetter, Detail,
    Done, ErrorRow, Errors, Failure, Hello, Kind, Leg, LegDetail, Log, LogEntry, Lost, Names, Op,
    Outbox, Peer, Phase, Pipe, Process, Prog, Refuse, Right, Role, Rows, Scope, ScopeLevel,
    Severity, Stage, Stages, States, Store, Sub, Target, Tick, Topic, Totals, UnitDetail, Welcome,
    Win, Windows,
};
use anabranch_protocol::row::{BranchKey, Cell};
use anabranch_protocol::{Client, Server, Text, Versions};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn text() -> impl Strategy<Value = Text> + Clone {
    any::<String>().prop_map(Text::from)
}

fn key() -> impl Strategy<Value = BranchKey> + Clone {
    any::<(u32, u32)>().prop_map(|(p, id)| BranchKey(p, id))
}

fn cell() -> impl Strategy<Value = Cell> + Clone {
    let number = any::<u64>().prop_map(Cell::Number).boxed();
    prop_oneof![Just(Cell::Null), number, text().prop_map(Cell::Text)].boxed()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Cell>>> {
    vec(vec(cell(), 0..5), 0..4)
}

/// Any JSON, not too deep.
pub(crate) fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let names = select(vec![
        "t", "id", "proto", "r", "on", "seq", "topics", "server", "visible", "p", "x",
    ]);
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((names.clone(), inner), 0..5).prop_map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

/// Any message of a client.
pub(crate) fn client() -> impl Strategy<Value = Client> {
    let hello = (
        any::<(u32, u32)>(),
        text(),
        vec(select(Right::ALL), 0..3),
        option::of(any::<String>()),
    )
        .prop_map(|((a, b), client, want, token)| {
            Hello {
                proto: Versions(a, b),
                client,
                want,
                token,
            }
            .into()
        });
    let sub = (
        any::<(u64, u64, u64)>(),
        vec(key(), 0..4),
        vec(select(Topic::ALL), 0..4),
        vec(text(), 0..3),
        option::of(key()),
    )
        .prop_map(|((id, tick_ms, bulk_ms), visible, topics, cols, detail)| {
            Sub {
                id,
                tick_ms,
                bulk_ms,
                visible,
                topics,
                cols,
                detail,
            }
            .into()
        });
    let target = (
        any::<(Option<u32>, Option<String>, Option<u32>, Option<String>)>(),
        any::<(Option<u64>, Option<u64>, Option<String>)>(),
        vec(any::<String>(), 0..3),
    )
        .prop_map(
            |((p, pipeline, branch, tenant), (scope, action, store), ids)| Target {
                p,
                pipeline,
                branch,
                tenant,
                scope,
                action,
                store,
                ids,
            },
        );
    let args = (
        any::<(Option<u64>, Option<u32>, Option<u32>)>(),
        option::of(select(Severity::ALL)),
        option::of(text()),
    )
        .prop_map(|((deadline_ms, rate, burst), level, reason)| Arguments {
            deadline_ms,
            rate: rate.map(f64::from),
            burst,
            level,
            reason,
        });
    let cmd = (
        any::<(u64, Option<u32>, String, bool)>(),
        select(Op::ALL),
        target,
        args,
    )
        .prop_map(|((id, if_gen, key, dry), op, on, args)| {
            Cmd {
                id,
                op,
                on,
                if_gen,
                args,
                key,
                dry,
            }
            .into()
        });
    prop_oneof![hello, sub, cmd]
}

/// Any message of a monitor.
pub(crate) fn server() -> impl Strategy<Value = Server> {
    prop_oneof![
        session(),
        pipe(),
        table(),
        tick(),
        detail(),
        comp(),
        store(),
        errors(),
        command()
    ]
}

fn session() -> impl Strategy<Value = Server> {
    let process =
        (any::<(u32, u64)>(), text(), text()).prop_map(|((pid, start), name, cwd)| Process {
            version: Text::new("0.1.0"),
            pid,
            start,
            name,
            host: Text::default(),
            cwd,
        });
    prop_oneof![
        (
            process,
            any::<(u32, usize, u64)>(),
            vec(select(Right::ALL), 0..3),
            vec(text(), 0..4)
        )
            .prop_map(|(server, (proto, max_line, min_tick_ms), caps, cols)| {
                Welcome {
                    proto,
                    server,
                    caps,
                    cols,
                    max_line,
                    min_tick_ms,
                }
                .into()
            }),
        (text(), option::of(any::<(u32, u32)>()), text()).prop_map(|(code, need, msg)| {
            Refuse {
                code,
                need: need.map(|(a, b)| Versions(a, b)),
                msg,
            }
            .into()
        }),
        (text(), text()).prop_map(|(code, msg)| Bye { code, msg }.into()),
    ]
}

fn pipe() -> impl Strategy<Value = Server> {
    let leg = (
        any::<(u32, u64, u32)>(),
        select(Role::ALL),
        any::<(Option<u64>, Option<u64>, Option<u32>)>(),
    )
        .prop_map(
            |((stage, capacity, concurrency), role, (window_size, window_max_age_ms, attempts))| {
                Leg {
                    stage,
                    role,
                    capacity,
                    concurrency,
                    window_size,
                    window_max_age_ms,
                    attempts,
                }
            },
        );
    (
        any::<(u32, u64, Option<u32>, bool)>(),
        text(),
        select(Phase::ALL),
        vec(text(), 0..4),
        vec(leg, 0..3),
    )
        .prop_map(
            |((p, start, fan_leg, control), name, phase, stages, legs)| {
                Pipe {
                    p,
                    name,
                    phase,
                    start,
                    stages,
                    legs,
                    fan_leg,
                    control,
                }
                .into()
            },
        )
}

fn table() -> impl Strategy<Value = Server> {
    let stage = (
        any::<(u32, u32)>(),
        any::<[u64; 9]>(),
        option::of(text()),
        vec(any::<u64>(), 0..5),
    )
        .prop_map(|((p, s), n, last_error, hist)| Stage {
            p,
            s,
            received: n[0],
            passed: n[1],
            failed: n[2],
            dropped: n[3],
            retried: n[4],
            compensated: n[5],
            queued: n[6],
            in_flight: n[7],
            blocked_ms: n[8],
            last_error,
            hist,
        });
    prop_oneof![
        vec((any::<u32>(), any::<u32>(), text()), 0..4).prop_map(|r| Names { r }.into()),
        (any::<(u64, bool, bool)>(), rows()).prop_map(|((seq, full, more), r)| Rows {
            seq,
            full,
            more,
            r
        }
        .into()),
        vec(stage, 0..3).prop_map(|r| Stages { r }.into()),
    ]
}

fn tick() -> impl Strategy<Value = Server> {
    let call = (text(), any::<(u64, Option<u32>)>()).prop_map(|(stage, (since, branch))| Call {
        stage,
        since,
        branch,
    });
    let totals = (
        any::<(u32, [u64; 16])>(),
        select(Phase::ALL),
        any::<[Option<u64>; 6]>(),
        any::<[u64; 9]>(),
        option::of(call),
    )
        .prop_map(|((p, n), phase, maybe, s, call)| Totals {
            p,
            phase,
            received: n[0],
            committed: n[1],
            failed: n[2],
            dropped: n[3],
            dead_lettered: n[4],
            retried: n[5],
            compensations: n[6],
            compensated: n[7],
            stuck: n[8],
            comp_age_ms: maybe[0],
            queued: n[9],
            in_flight: n[10],
            windows: n[11],
            late: n[12],
            window_fill: maybe[1],
            blocked_ms: n[13],
            branches: States {
                all: s[0],
                run: s[1],
                idle: s[2],
                full: s[3],
                pause: s[4],
                drain: s[5],
                restart: s[6],
                fail: s[7],
                over: s[8],
            },
            p50: maybe[2],
            p99: maybe[3],
            at: n[14],
            sweep: n[15],
            call,
            lease_ms: maybe[4],
            lag_ms: maybe[5],
        });
    (
        any::<[u64; 6]>(),
        vec(totals, 0..3),
        rows(),
        vec(key(), 0..3),
    )
        .prop_map(|(n, tot, r, gone)| {
            Tick {
                seq: n[0],
                ts: n[1],
                sub: n[2],
                tot,
                r,
                gone,
                skipped: n[3],
                lost: Lost { log: n[4] },
                rss: n[5],
            }
            .into()
        })
}

fn win() -> impl Strategy<Value = Win> {
    (
        key(),
        any::<(u32, u64, Option<u64>, u64, Option<u64>)>(),
        option::of(text()),
    )
        .prop_map(|(b, (leg, n, max, age_ms, max_age_ms), last)| Win {
            b,
            leg,
            n,
            max,
            age_ms,
            max_age_ms,
            last,
        })
}

fn detail() -> impl Strategy<Value = Server> {
    let leg = (
        any::<(u32, [u64; 4], Option<u64>, Option<u32>)>(),
        option::of(win()),
    )
        .prop_map(|((leg, n, full_ms, rate), window)| LegDetail {
            leg,
            queued: n[0],
            capacity: n[1],
            full_ms,
            in_flight: n[2],
            window,
            cut: n[3],
            rate: rate.map(f64::from),
        });
    let unit = any::<(u32, u64, u32, Option<u32>, Option<u64>, Option<u64>)>().prop_map(
        |(leg, items, attempt, of, since, again)| UnitDetail {
            leg,
            items,
            attempt,
            of,
            since,
            again,
        },
    );
    let whole = (
        any::<(u32, u32, u64, u64)>(),
        vec(leg, 0..3),
        vec(unit, 0..3),
        option::of(text()),
        vec(any::<u64>(), 0..4),
        vec((text(), any::<u64>()), 0..3),
    )
        .prop_map(|((p, id, at, since), legs, units, error, hist, facts)| {
            Detail {
                p,
                id,
                at,
                since,
                legs,
                units,
                note: error.clone(),
                error,
                hist,
                facts,
            }
            .into()
        });
    let windows = (any::<u64>(), vec(win(), 0..4)).prop_map(|(all, r)| Windows { all, r }.into());
    prop_oneof![whole, windows]
}

fn comp() -> impl Strategy<Value = Server> {
    let action = (
        any::<(u64, bool, Option<u64>, Option<u64>, Option<u64>, u32, u32)>(),
        text(),
        text(),
        select(ActionState::ALL),
        option::of(text()),
    )
        .prop_map(
            |((n, finalizer, at, took_ms, again, attempt, of), name, stage, state, error)| Action {
                n,
                name,
                stage,
                state,
                finalizer,
                at,
                took_ms,
                attempt,
                of,
                again,
                error,
            },
        );
    let scope = (
        any::<(u64, u64, Option<u64>)>(),
        key(),
        select(ScopeLevel::ALL),
        text(),
        text(),
        vec(action, 0..4),
    )
        .prop_map(
            |((id, start, took_ms), b, level, what, policy, actions)| Scope {
                id,
                b,
                level,
                what,
                policy,
                start,
                took_ms,
                actions,
            },
        );
    (any::<bool>(), vec(scope, 0..3)).prop_map(|(more, r)| Comp { more, r }.into())
}

fn store() -> impl Strategy<Value = Server> {
    let store = (
        any::<([u64; 4], [Option<u64>; 5])>(),
        text(),
        text(),
        text(),
        text(),
        (vec(text(), 0..3), any::<bool>()),
    )
        .prop_map(
            |((n, maybe), store, tenant, state, selection, (paused, resting))| Store {
                store,
                tenant,
                state,
                selection,
                ready: n[0],
                leased: n[1],
                retry: n[2],
                dead: n[3],
                lag_ms: maybe[0],
                lease_ms: maybe[1],
                expires: maybe[2],
                polled: maybe[3],
                workers: maybe[4],
                paused,
                resting,
            },
        );
    let letter = (
        text(),
        text(),
        text(),
        text(),
        any::<(u32, u64)>(),
        option::of(text()),
    )
        .prop_map(
            |(id, topic, tenant, error, (attempts, at), payload)| DeadLetter {
                id,
                topic,
                tenant,
                attempts,
                error,
                at,
                payload,
            },
        );
    prop_oneof![
        (any::<bool>(), vec(store, 0..3)).prop_map(|(more, r)| Outbox { more, r }.into()),
        (option::of(text()), any::<(u64, bool)>(), vec(letter, 0..3)).prop_map(
            |(store, (all, more), r)| Dead {
                store,
                all,
                more,
                r
            }
            .into()
        ),
    ]
}

fn errors() -> impl Strategy<Value = Server> {
    let row = (
        any::<(u32, [u64; 6])>(),
        text(),
        vec(any::<u32>(), 0..3),
        text(),
        vec(text(), 0..3),
    )
        .prop_map(|((p, n), code, branches, stage, sample)| ErrorRow {
            p,
            code,
            n: n[0],
            n1: n[1],
            n5: n[2],
            n60: n[3],
            first: n[4],
            last: n[5],
            branches,
            stage,
            sample,
        });
    let peer = (any::<(Option<u32>, Option<u32>)>(), text())
        .prop_map(|((uid, pid), client)| Peer { uid, pid, client });
    let entry = (
        any::<(u64, u64, Option<u32>, Option<u32>, Option<bool>)>(),
        select(Kind::ALL),
        select(Severity::ALL),
        text(),
        option::of(peer),
        option::of(text()),
    )
        .prop_map(|((n, at, p, b, ok), kind, level, msg, peer, op)| LogEntry {
            n,
            at,
            kind,
            level,
            p,
            b,
            msg,
            peer,
            op,
            ok,
        });
    prop_oneof![
        vec(row, 0..3).prop_map(|r| Errors { r }.into()),
        (any::<u64>(), vec(entry, 0..3)).prop_map(|(lost, r)| Log { r, lost }.into()),
    ]
}

fn command() -> impl Strategy<Value = Server> {
    let failure = (select(Code::ALL), text()).prop_map(|(code, msg)| Failure { code, msg });
    prop_oneof![
        (any::<u64>(), text()).prop_map(|(id, state)| Ack { id, state }.into()),
        any::<(u64, u64)>().prop_map(|(id, left)| Prog { id, left }.into()),
        (any::<(u64, bool, u64, u64)>(), text(), option::of(failure)).prop_map(
            |((id, ok, n, skipped), msg, err)| {
                Done {
                    id,
                    ok,
                    n,
                    skipped,
                    msg,
                    err,
                }
                .into()
            }
        ),
    ]
}
