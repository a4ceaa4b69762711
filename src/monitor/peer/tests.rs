//! A client's patience, and ours, by a clock of the test's.

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::clock::Time;
use anabranch_protocol::message::{Detail, Process, Scope, Totals};
use proptest::prelude::*;

use super::super::sums;
use super::*;
use crate::monitor::{Facts, Values};
use crate::wake::Wake;

/// A process with one pipeline, and what its clients are told by.
struct Scene {
    pipelines: Vec<Arc<Pipeline>>,
    outboxes: Outboxes,
    orders: Orders,
    journal: Journal,
    welcome: Welcome,
    clock: Arc<AtomicU64>,
}

impl Scene {
    fn new(branches: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let read = clock.clone();
        let facts = Facts {
            name: "ingest".to_owned(),
            stages: vec!["source".to_owned(), "store".to_owned()],
            legs: Vec::new(),
            fan_leg: Some(0),
            epoch: Duration::ZERO,
            clock: Box::new(move || Time::from_nanos(read.load(Ordering::Relaxed))),
            wake: Box::new(|| {}),
            control: true,
        };
        let wake = Arc::new(Wake::new().unwrap());
        let scene = Self {
            outboxes: Outboxes::new(wake.clone()).unwrap(),
            pipelines: vec![Arc::new(Pipeline::new(0, facts, wake))],
            orders: Orders::default(),
            journal: Journal::default(),
            welcome: Welcome {
                proto: 1,
                server: Process::default(),
                caps: Vec::new(),
                cols: Vec::new(),
                max_line: MAX_LINE,
                min_tick_ms: MIN_TICK_MS,
            },
            clock,
        };
        scene.sweep(branches, 1);
        scene
    }

    fn slots(&self) -> &crate::monitor::Slots {
        &self.pipelines[0].slots
    }

    /// All branches tell of so many items.
    fn sweep(&self, branches: usize, received: u64) {
        for branch in 0..branches {
            let values = Values {
                received,
                ..Values::default()
            };
            self.slots().tell(branch, &values);
            self.slots()
                .name(branch, || Text::name(&format!("tenant-{branch}")));
        }
        self.slots().swept(branches);
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut World<'_>) -> T) -> T {
        let mut world = World {
            pipelines: &self.pipelines,
            outboxes: &self.outboxes,
            orders: &mut self.orders,
            journal: &self.journal,
            welcome: &self.welcome,
            rss: || 7,
            unix_ms: self.clock.load(Ordering::Relaxed) / 1_000_000,
        };
        act(&mut world)
    }

    fn say(&mut self, peer: &mut Peer, message: impl Into<Client>, now: Duration) {
        let mut line = Vec::new();
        encode(&message.into(), &mut line).unwrap();
        self.with(|world| peer.read(&line, world, now));
    }

    /// A client that was let in, and has read its welcome.
    fn client(&mut self, now: Duration) -> Peer {
        let mut peer = stranger(now);
        let hello = anabranch_protocol::message::Hello {
            proto: SUPPORTED,
            client: "test".into(),
            want: vec![Right::Observe, Right::Control],
            token: None,
        };
        self.say(&mut peer, hello, now);
        assert!(matches!(&heard(&mut peer, now)[..], [Server::Welcome(_)]));
        peer
    }

    fn tick(&mut self, peer: &mut Peer, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap();
        self.clock.store(nanos, Ordering::Relaxed);
        self.with(|world| peer.tick_if_due(world, now));
    }
}

fn stranger(now: Duration) -> Peer {
    let terms = Terms {
        control: true,
        token: None,
    };
    Peer::new(1, Who::default(), terms, now)
}

fn millis(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Reads all there is.
fn heard(peer: &mut Peer, now: Duration) -> Vec<Server> {
    assert!(
        peer.out().len() <= 2 * MAX_LINE,
        "what is kept for a client is bounded"
    );
    let lines = peer
        .out()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let messages = lines.map(|line| Server::decode(line).unwrap()).collect();
    peer.wrote(peer.out().len(), now);
    messages
}

fn sub(topics: &[Topic]) -> Sub {
    Sub {
        id: 1,
        topics: topics.to_vec(),
        ..Sub::default()
    }
}

/// Reads until a table is complete; returns its rows, and whether it was a full one.
fn table(scene: &mut Scene, peer: &mut Peer, now: Duration) -> (usize, bool) {
    let (mut rows, mut full) = (0, false);
    loop {
        for message in heard(peer, now) {
            if let Server::Rows(piece) = message {
                rows += piece.r.len();
                full |= piece.full;
            }
        }
        if !peer.has_more() {
            return (rows, full);
        }
        scene.with(|world| peer.go_on(world, now));
    }
}

#[test]
fn dashboard_2_a_client_that_reads_nothing_is_let_go_after_30_seconds() {
    let mut scene = Scene::new(10);
    let mut peer = scene.client(millis(0));
    scene.say(&mut peer, sub(&[Topic::Totals]), millis(0));
    let mut kept = peer.out().len();
    for tick in 1..300 {
        let now = millis(100 * tick);
        scene.tick(&mut peer, now);
        assert_eq!(
            peer.out().len(),
            kept,
            "nothing is added to what it has not read"
        );
        assert!(!peer.is_over(now));
        kept = peer.out().len();
    }
    assert_eq!(peer.skipped, 299);
    assert!(peer.is_over(millis(30_000)));
    peer.wrote(1, millis(29_999));
    assert!(!peer.is_over(millis(30_000)), "it reads after all");
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let peer = stranger(millis(7));
    assert_eq!(peer.due(), Some(millis(5007)));
    assert!(!peer.is_over(millis(5006)));
    assert!(peer.is_over(millis(5007)));
}

#[test]
fn dashboard_1_a_skipped_tick_costs_resolution_and_no_truth() {
    let mut scene = Scene::new(3);
    let mut peer = scene.client(millis(0));
    scene.say(&mut peer, sub(&[Topic::Branches, Topic::Totals]), millis(0));
    assert_eq!(table(&mut scene, &mut peer, millis(0)), (3, true));
    scene.tick(&mut peer, millis(100));
    // It does not read that one; meanwhile much happens.
    for round in 2..20 {
        scene.sweep(3, round);
        scene.tick(&mut peer, millis(100 * round));
    }
    let now = millis(2000);
    heard(&mut peer, now);
    scene.tick(&mut peer, now);
    let messages = heard(&mut peer, now);
    let skipped = messages.iter().find_map(|it| match it {
        Server::Tick(tick) => Some(tick.skipped),
        _ => None,
    });
    assert_eq!(skipped, Some(18));
    let rows = messages.into_iter().find_map(|it| match it {
        Server::Rows(rows) => Some(rows),
        _ => None,
    });
    let rows = rows.expect("what has changed is told");
    let columns = Columns::default();
    assert!(!rows.full);
    assert_eq!(rows.r.len(), 3);
    assert!(rows.r.iter().all(|row| columns.read(row).received == 19));
}

#[test]
fn dashboard_3_only_what_has_changed_is_sent_again() {
    let mut scene = Scene::new(5000);
    let mut peer = scene.client(millis(0));
    scene.say(&mut peer, sub(&[Topic::Branches]), millis(0));
    assert_eq!(table(&mut scene, &mut peer, millis(0)), (5000, true));
    scene.slots().tell(
        4000,
        &Values {
            received: 9,
            ..Values::default()
        },
    );
    scene.slots().swept(5000);
    scene.tick(&mut peer, millis(1000));
    assert_eq!(table(&mut scene, &mut peer, millis(1000)), (1, false));
    scene.tick(&mut peer, millis(2000));
    assert_eq!(table(&mut scene, &mut peer, millis(2000)), (0, false));
    let snapshot = Cmd {
        id: 1,
        op: Op::Snapshot,
        ..Cmd::default()
    };
    scene.say(&mut peer, snapshot, millis(2000));
    assert_eq!(table(&mut scene, &mut peer, millis(2000)), (5000, true));
}

#[test]
fn a_row_that_changes_during_a_pass_comes_with_the_next() {
    let mut scene = Scene::new(5000);
    let mut peer = scene.client(millis(0));
    scene.say(&mut peer, sub(&[Topic::Branches]), millis(0));
    // The first pieces are out: what is behind them changes, and so does what is in them.
    scene.sweep(5000, 2);
    assert!(table(&mut scene, &mut peer, millis(0)).1);
    scene.tick(&mut peer, millis(1000));
    let (rows, full) = table(&mut scene, &mut peer, millis(1000));
    assert_eq!((rows, full), (5000, false));
}

#[test]
fn dashboard_3_the_ticks_are_no_faster_than_the_server_allows() {
    let mut scene = Scene::new(1);
    let mut peer = scene.client(millis(0));
    let fast = Sub {
        tick_ms: 0,
        bulk_ms: 0,
        ..sub(&[Topic::Totals])
    };
    scene.say(&mut peer, fast, millis(0));
    assert_eq!(peer.wants(), Some(millis(MIN_TICK_MS)));
    let slow = Sub {
        tick_ms: u64::MAX,
        bulk_ms: u64::MAX,
        ..sub(&[])
    };
    scene.say(&mut peer, slow, millis(0));
    assert_eq!(peer.wants(), Some(MAX_TICK));
    heard(&mut peer, millis(0));
    assert_eq!(peer.due(), Some(MAX_TICK));
}

#[test]
fn v3_an_old_pulse_says_how_old_it_is() {
    let scene = Scene::new(1);
    let pulse = crate::monitor::Pulse {
        at: 5_000_000,
        taken: 3,
        ..crate::monitor::Pulse::default()
    };
    scene.slots().pulse(&pulse, false);
    scene.clock.store(9_000_000, Ordering::Relaxed);
    let told: Totals = sums::totals(&scene.pipelines[0]);
    assert_eq!((told.at, told.received), (5, 3));
    scene.slots().pulse(&pulse, true);
    assert_eq!(
        sums::totals(&scene.pipelines[0]).at,
        9,
        "a driver that waits has told all"
    );
}

#[test]
fn dashboard_3_a_client_that_scrolls_keeps_its_bulk_tick() {
    let mut scene = Scene::new(3);
    let mut peer = scene.client(millis(0));
    let mut wanted = sub(&[Topic::Branches, Topic::Totals]);
    scene.say(&mut peer, wanted.clone(), millis(0));
    table(&mut scene, &mut peer, millis(0));
    let mut bulks = 0;
    for step in 1..=40_u64 {
        let now = millis(50 * step);
        scene.sweep(3, step + 1);
        wanted = Sub {
            id: step + 1,
            visible: vec![BranchKey(0, u32::try_from(step % 3).unwrap())],
            ..wanted
        };
        scene.say(&mut peer, wanted.clone(), now);
        let messages = heard(&mut peer, now);
        let ticks = messages.iter().filter_map(|it| match it {
            Server::Tick(tick) => Some((tick.sub, tick.r.len())),
            _ => None,
        });
        assert_eq!(
            ticks.collect::<Vec<_>>(),
            [(step + 1, 1)],
            "its rows come at once"
        );
        bulks += messages
            .iter()
            .filter(|it| matches!(it, Server::Rows(_)))
            .count();
    }
    assert_eq!(bulks, 2, "in two seconds");
}

#[test]
fn dashboard_3_scrolling_is_no_way_to_faster_ticks() {
    let mut scene = Scene::new(3);
    let mut peer = scene.client(millis(0));
    let mut wanted = sub(&[Topic::Totals]);
    scene.say(&mut peer, wanted.clone(), millis(0));
    heard(&mut peer, millis(0));
    let mut ticks = 0;
    for step in 1..=100_u64 {
        let now = millis(step);
        wanted = Sub {
            visible: vec![BranchKey(0, u32::try_from(step % 3).unwrap())],
            ..wanted
        };
        scene.say(&mut peer, wanted.clone(), now);
        scene.tick(&mut peer, now);
        let messages = heard(&mut peer, now);
        ticks += messages
            .iter()
            .filter(|it| matches!(it, Server::Tick(_)))
            .count();
    }
    assert!(ticks <= 2, "{ticks} in 100 ms");
}

#[test]
fn v1_undo_actions_and_a_branch_in_detail_come_with_the_bulk_tick_if_they_are_asked_for() {
    let mut scene = Scene::new(3);
    scene.pipelines[0].tell_undo(vec![Scope {
        id: 7,
        ..Scope::default()
    }]);
    scene.pipelines[0].tell_details(vec![Detail {
        id: 2,
        ..Detail::default()
    }]);
    let mut peer = scene.client(millis(0));
    let wanted = Sub {
        detail: Some(BranchKey(0, 2)),
        visible: vec![BranchKey(0, 1), BranchKey(9, 9)],
        ..sub(&[Topic::Comp])
    };
    scene.say(&mut peer, wanted, millis(0));
    let mut looked = Looked::default();
    peer.looks_at(0, &mut looked);
    let expected = Looked {
        branches: vec![1, 2],
        details: vec![2],
        undo: true,
    };
    assert_eq!(looked, expected);
    let messages = heard(&mut peer, millis(0));
    assert!(
        messages
            .iter()
            .any(|it| matches!(it, Server::Comp(comp) if comp.r[0].id == 7))
    );
    assert!(
        messages
            .iter()
            .any(|it| matches!(it, Server::Detail(detail) if detail.id == 2))
    );
    scene.tick(&mut peer, millis(100));
    let messages = heard(&mut peer, millis(100));
    assert!(matches!(&messages[..], [Server::Tick(_)]), "{messages:?}");
    scene.say(&mut peer, sub(&[Topic::Totals]), millis(200));
    let mut looked = Looked::default();
    peer.looks_at(0, &mut looked);
    assert_eq!(looked, Looked::default());
}

/// The branches whose rows the last tick tells of.
fn rows_of(messages: &[Server]) -> Vec<Option<u64>> {
    let ticks = messages.iter().rev();
    let mut ticks = ticks.filter_map(|it| match it {
        Server::Tick(tick) => Some(&tick.r),
        _ => None,
    });
    let rows = ticks.next().expect("a tick");
    rows.iter().map(|row| row[1].number()).collect()
}

#[test]
fn dashboard_3_a_tick_tells_of_the_rows_that_have_changed_and_of_open_windows() {
    let mut scene = Scene::new(4);
    let mut peer = scene.client(millis(0));
    let windowed = Values {
        received: 1,
        window: 1,
        ..Values::default()
    };
    scene.slots().tell(3, &windowed);
    scene.slots().swept(4);
    let wanted = Sub {
        visible: vec![BranchKey(0, 1), BranchKey(0, 2), BranchKey(0, 3)],
        ..sub(&[Topic::Totals])
    };
    scene.say(&mut peer, wanted.clone(), millis(0));
    let all = [Some(1), Some(2), Some(3)];
    assert_eq!(rows_of(&heard(&mut peer, millis(0))), all);
    scene.tick(&mut peer, millis(100));
    assert_eq!(rows_of(&heard(&mut peer, millis(100))), [Some(3)]);
    let changed = Values {
        received: 9,
        ..Values::default()
    };
    scene.slots().tell(2, &changed);
    scene.slots().swept(4);
    scene.tick(&mut peer, millis(200));
    assert_eq!(rows_of(&heard(&mut peer, millis(200))), [Some(2), Some(3)]);
    // With nothing to do it is idle after a while, though nobody has told.
    scene.tick(&mut peer, millis(10_000));
    assert_eq!(rows_of(&heard(&mut peer, millis(10_000))), all);
    let other = Sub {
        topics: vec![Topic::Totals, Topic::Errors],
        ..wanted
    };
    scene.say(&mut peer, other, millis(10_050));
    assert_eq!(rows_of(&heard(&mut peer, millis(10_050))), all);
}

#[test]
fn dashboard_9_however_much_is_undone_one_message_tells_of_it() {
    let mut scene = Scene::new(1);
    let action = anabranch_protocol::message::Action {
        name: Text::name(&"x".repeat(200)),
        ..anabranch_protocol::message::Action::default()
    };
    let scope = Scope {
        actions: vec![action; 64],
        ..Scope::default()
    };
    scene.pipelines[0].tell_undo(vec![scope; 512]);
    let mut peer = scene.client(millis(0));
    scene.say(&mut peer, sub(&[Topic::Comp, Topic::Totals]), millis(0));
    let messages = heard(&mut peer, millis(0));
    let told = messages.iter().find_map(|it| match it {
        Server::Comp(comp) => Some((comp.r.len(), comp.more)),
        _ => None,
    });
    let (scopes, more) = told.expect("they are told of");
    assert!(scopes > 2 && !more);
    assert!(
        messages.iter().any(|it| matches!(it, Server::Tick(_))),
        "and the tick, too"
    );
}

/// Lines that were worth a try once.
const CORPUS: &str = include_str!("../../../tests/corpus/monitor.txt");

#[test]
fn dashboard_9_no_line_of_the_corpus_is_kept_or_waited_for() {
    for greeted in [false, true] {
        for line in CORPUS.lines() {
            let mut scene = Scene::new(700);
            let mut peer = if greeted {
                scene.client(millis(0))
            } else {
                stranger(millis(0))
            };
            let bytes = [line.as_bytes(), b"\n"].concat();
            scene.with(|world| peer.read(&bytes, world, millis(0)));
            heard(&mut peer, millis(0));
            for step in 1..20 {
                scene.tick(&mut peer, millis(100 * step));
                heard(&mut peer, millis(100 * step));
            }
            if !greeted && !line.contains("hello") {
                assert!(peer.is_leaving(), "{line}");
            }
        }
    }
}

/// So many cases, unless `PROPTEST_CASES` asks for more or fewer.
fn cases(usual: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(usual, |_| asked.cases);
    ProptestConfig { cases, ..asked }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn dashboard_9_whatever_a_client_sends_little_is_kept_for_it(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                proptest::sample::select(CORPUS.lines().collect::<Vec<_>>())
                    .prop_map(|line| [line.as_bytes(), b"\n"].concat()),
                Just(b"{\"t\":\"hello\",\"proto\":[1,1]}\n".to_vec()),
                Just(b"{\"t\":\"sub\",\"id\":1,\"topics\":[\"branches\",\"totals\",\"log\"]}\n".to_vec()),
                Just(b"{\"t\":\"cmd\",\"id\":1,\"op\":\"snapshot\"}\n".to_vec()),
                Just(b"{\"t\":\"cmd\",\"id\":1,\"op\":\"branch.pause\"}\n".to_vec()),
            ],
            0..60,
        ),
        reads in any::<bool>(),
    ) {
        let mut scene = Scene::new(700);
        let mut peer = stranger(millis(0));
        for (step, piece) in pieces.iter().enumerate() {
            let now = millis(100 * step as u64);
            scene.with(|world| peer.read(piece, world, now));
            scene.tick(&mut peer, now);
            prop_assert!(peer.out().len() <= 2 * MAX_LINE);
            if reads {
                heard(&mut peer, now);
            }
        }
    }
}
