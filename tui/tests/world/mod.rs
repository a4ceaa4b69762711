//! A small world to look at: three processes, of which the first has branches in every state.
//!
//! It is told through the protocol, message by message, as a monitor would tell it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::wildcard_imports,
    clippy::enum_glob_use,
    reason = "each test uses a part of it, and in a test a panic is the right answer"
)]

use anabranch_protocol::message::*;
use anabranch_protocol::row::{Branch, BranchKey, Columns, State};
use anabranch_protocol::{Client, Server, Text};
use anabranch_tui::At;
use anabranch_tui::app::{self, Begin, Cmd, Model, Msg};
use anabranch_tui::conn::{Event, Target as Way, TargetId};
use anabranch_tui::store::COLUMNS;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

/// 14:02:07 of a day.
pub(crate) const NOW: u64 = 1_795_183_327_000;

/// Tenants with their state, rate, queue, window, its age, retries, undo actions, dead letters.
type Tenant = (
    &'static str,
    State,
    u64,
    u64,
    u64,
    Option<u64>,
    [u64; 3],
    Option<u64>,
);

pub(crate) const TENANTS: [Tenant; 14] = {
    use State::*;
    [
        (
            "acme",
            Run,
            12_400,
            610,
            305,
            Some(800),
            [0, 0, 0],
            Some(9_000),
        ),
        (
            "globex",
            Full,
            9_900,
            1000,
            500,
            Some(2_000),
            [14, 3, 0],
            Some(210_000),
        ),
        (
            "initech",
            Paused,
            0,
            310,
            100,
            Some(9_100),
            [0, 0, 12],
            None,
        ),
        (
            "umbrella",
            Draining,
            310,
            20,
            60,
            Some(200),
            [0, 0, 0],
            Some(3_000),
        ),
        ("hooli", Failed, 0, 0, 50, Some(41_000), [5, 4, 890], None),
        (
            "stark",
            Run,
            8_100,
            220,
            250,
            Some(1_100),
            [0, 0, 0],
            Some(8_000),
        ),
        (
            "wayne",
            Run,
            7_700,
            210,
            190,
            Some(400),
            [0, 0, 0],
            Some(7_000),
        ),
        (
            "tyrell",
            Run,
            5_200,
            440,
            377,
            Some(700),
            [0, 0, 0],
            Some(9_000),
        ),
        (
            "cyberdyne",
            Run,
            4_900,
            330,
            130,
            Some(700),
            [0, 0, 0],
            Some(6_000),
        ),
        (
            "soylent",
            Run,
            4_400,
            190,
            60,
            Some(100),
            [0, 0, 0],
            Some(5_000),
        ),
        (
            "oscorp",
            Run,
            4_100,
            180,
            250,
            Some(900),
            [0, 0, 0],
            Some(5_000),
        ),
        (
            "massive",
            Run,
            3_800,
            90,
            120,
            Some(500),
            [0, 0, 0],
            Some(4_000),
        ),
        (
            "vandelay",
            Run,
            3_600,
            120,
            60,
            Some(200),
            [0, 0, 0],
            Some(4_000),
        ),
        ("wonka", Idle, 0, 0, 0, None, [0, 0, 0], None),
    ]
};

/// A dashboard under test, with the commands it has given.
pub(crate) struct World {
    pub model: Model,
    pub now: u64,
    /// How many seconds are told of.
    pub seconds: u64,
    /// What the processes say, if it is written down.
    pub told: Option<Vec<(u64, Server)>>,
    pub cmds: Vec<Cmd>,
}

impl World {
    pub(crate) fn empty(size: (u16, u16), ascii: bool) -> Self {
        Self::begun(
            size,
            Begin {
                ascii,
                session: "test".to_owned(),
                users: [(1000, "alice".to_owned())].into(),
                ..Begin::default()
            },
        )
    }

    pub(crate) fn begun(size: (u16, u16), begin: Begin) -> Self {
        Self {
            model: Model::new(begin, size, NOW - 87_000),
            now: NOW - 87_000,
            seconds: 60,
            told: None,
            cmds: Vec::new(),
        }
    }

    /// The world of the mock-ups.
    pub(crate) fn new(size: (u16, u16), ascii: bool) -> Self {
        let mut world = Self::empty(size, ascii);
        world.people();
        world
    }

    /// The same, of which less is told: where the history does not matter.
    pub(crate) fn brief(size: (u16, u16)) -> Self {
        let mut world = Self::empty(size, false);
        world.seconds = 2;
        world.people();
        world
    }

    /// Fills a world that is empty.
    pub(crate) fn people(&mut self) {
        self.found(&["orders-svc", "billing", "edge"]);
        self.edge();
        self.orders(TENANTS.iter().map(|it| it.0));
        self.billing();
        self.lose(2, "socket closed", Some(NOW + 2_000));
    }

    pub(crate) fn found(&mut self, labels: &[&str]) {
        let targets = (0..).zip(labels).map(|(id, label)| Way {
            id: TargetId(id),
            label: (*label).to_owned(),
            at: At::Unix(format!("/run/{label}.sock").into()),
        });
        self.say(Msg::Found(targets.collect()));
    }

    pub(crate) fn say(&mut self, message: Msg) {
        let cmds = app::update(&mut self.model, message, self.now);
        self.cmds.extend(cmds);
    }

    /// What the processes say meanwhile, with its times.
    pub(crate) fn story(&mut self, tell: impl FnOnce(&mut Self)) -> Vec<(u64, Event)> {
        self.told = Some(Vec::new());
        tell(self);
        let told = self.told.take().unwrap_or_default();
        let events = told
            .into_iter()
            .map(|(at, message)| (at, Event::Heard(Box::new(message))));
        events.collect()
    }

    pub(crate) fn hear(&mut self, target: u32, message: impl Into<Server>) {
        let message = message.into();
        if let Some(told) = &mut self.told {
            told.push((self.now, message.clone()));
        }
        let event = Event::Heard(Box::new(message));
        self.say(Msg::Conn(TargetId(target), event));
    }

    pub(crate) fn lose(&mut self, target: u32, why: &str, again: Option<u64>) {
        let why = why.to_owned();
        self.say(Msg::Conn(TargetId(target), Event::Lost { why, again }));
    }

    pub(crate) fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                other => KeyCode::Char(other),
            };
            self.key(code);
        }
    }

    pub(crate) fn key(&mut self, code: KeyCode) {
        self.say(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        let cmds = app::prepare(&mut self.model);
        self.cmds.extend(cmds);
    }

    /// Commands that were sent to a process since this was asked last; subscriptions are left out.
    pub(crate) fn sent(&mut self) -> Vec<anabranch_protocol::message::Cmd> {
        let cmds = std::mem::take(&mut self.cmds);
        cmds.into_iter()
            .filter_map(|cmd| match cmd {
                Cmd::Send(_, message) => match *message {
                    Client::Cmd(cmd) => Some(cmd),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    pub(crate) fn buffer(&mut self) -> Buffer {
        let cmds = app::prepare(&mut self.model);
        self.cmds.extend(cmds);
        let (width, height) = self.model.size;
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        anabranch_tui::view::render(&self.model, &mut buffer);
        buffer
    }

    /// What the screen shows.
    pub(crate) fn screen(&mut self) -> String {
        text(&self.buffer())
    }

    pub(crate) fn welcome(&mut self, target: u32, process: Process, caps: &[Right]) {
        let welcome = Welcome {
            proto: 1,
            server: process,
            caps: caps.to_vec(),
            cols: vec![],
            max_line: 262_144,
            min_tick_ms: 50,
        };
        self.hear(target, welcome);
    }

    pub(crate) fn tick(
        &mut self,
        target: u32,
        tot: Vec<Totals>,
        r: Vec<Vec<anabranch_protocol::row::Cell>>,
    ) {
        self.hear(
            target,
            Tick {
                ts: self.now,
                tot,
                r,
                ..Tick::default()
            },
        );
    }

    /// The first process: a pipeline of which a minute is told, and a quiet one.
    pub(crate) fn orders<S: AsRef<str>>(&mut self, names: impl IntoIterator<Item = S>) {
        let names: Vec<String> = names.into_iter().map(|it| it.as_ref().to_owned()).collect();
        let end = NOW;
        self.welcome(
            0,
            process("orders-svc", 4211, end - 183_600_000),
            &[Right::Observe, Right::Control],
        );
        self.hear(0, pipe(1, "ingest"));
        self.hear(0, pipe(2, "audit"));
        let r = names
            .iter()
            .zip(1u32..)
            .map(|(name, id)| (1, id, Text::new(name)));
        self.hear(0, Names { r: r.collect() });
        for second in 60 - self.seconds..=60u64 {
            self.now = end - 60_000 + second * 1000;
            self.tick(0, totals(second, names.len() as u64), vec![]);
            for (piece, chunk) in names.chunks(512).enumerate() {
                let rows = (0..).zip(chunk).map(|(at, _)| {
                    let index = piece * 512 + at;
                    Columns::new(COLUMNS).write(&branch(index, second))
                });
                self.hear(
                    0,
                    Rows {
                        seq: second,
                        full: second == 60 - self.seconds,
                        more: (piece + 1) * 512 < names.len(),
                        r: rows.collect(),
                    },
                );
            }
        }
        self.now = end;
        self.topics();
    }

    /// So many seconds more, in which all rows change.
    pub(crate) fn later(&mut self, branches: usize, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1000;
            let second = 60 + (self.now - NOW) / 1000;
            self.tick(0, totals(second, branches as u64), vec![]);
            let all: Vec<usize> = (0..branches).collect();
            for chunk in all.chunks(512) {
                let rows = chunk.iter().map(|index| {
                    let mut row = branch(*index, 60);
                    row.received += (second - 60) * (*index as u64 % 977 + 1);
                    row.queued = (row.queued + second * (*index as u64 % 31)) % 1000;
                    Columns::new(COLUMNS).write(&row)
                });
                let rows = Rows {
                    seq: second,
                    full: false,
                    more: chunk.last() != all.last(),
                    r: rows.collect(),
                };
                self.hear(0, rows);
            }
        }
    }

    fn topics(&mut self) {
        let now = self.now;
        self.hear(0, windows());
        self.hear(0, scopes(now));
        self.hear(0, stores(now));
        self.hear(0, letters(now));
        self.hear(0, errors(now));
        self.hear(0, log(now));
        self.hear(0, detail(now));
    }

    fn billing(&mut self) {
        let now = self.now;
        self.welcome(
            1,
            process("billing", 4377, now - 7_200_000),
            &[Right::Observe],
        );
        self.hear(1, pipe(1, "fan-in"));
        for second in 0..=3u64 {
            self.now = now - 3000 + second * 1000;
            let totals = Totals {
                p: 1,
                phase: Phase::Run,
                received: second * 1_100_000,
                committed: second * 1_100_000,
                queued: 14_000,
                branches: States {
                    all: 4,
                    run: 4,
                    ..States::default()
                },
                p99: Some(8_000),
                at: self.now,
                ..Totals::default()
            };
            self.tick(1, vec![totals], vec![]);
        }
    }

    fn edge(&mut self) {
        self.welcome(2, process("edge", 9120, NOW - 3_600_000), &[Right::Observe]);
        self.hear(2, pipe(1, "telemetry"));
        self.tick(2, vec![], vec![]);
    }
}

/// A buffer as text, without the spaces at the ends of lines.
pub(crate) fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(anabranch_tui::format::width(symbol))
                .unwrap()
                .max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn process(name: &str, pid: u32, start: u64) -> Process {
    Process {
        version: Text::new("0.1.0"),
        pid,
        start,
        name: Text::new(name),
        host: Text::new("host-a"),
        cwd: Text::new("/srv"),
    }
}

pub(crate) fn pipe(p: u32, name: &str) -> Pipe {
    Pipe {
        p,
        name: Text::new(name),
        phase: Phase::Run,
        stages: ["parse", "store"].map(Text::new).to_vec(),
        legs: vec![Leg {
            stage: 1,
            role: Role::Sink,
            capacity: 1000,
            window_size: Some(500),
            window_max_age_ms: Some(1000),
            ..Leg::default()
        }],
        fan_leg: Some(0),
        control: true,
        ..Pipe::default()
    }
}

fn totals(second: u64, branches: u64) -> Vec<Totals> {
    let at = NOW - 60_000 + second * 1000;
    // A hill: slow, fast, and a bit slower again.
    let per_second = |s: u64| 300_000 + 9_000 * s.min(50) + if s > 30 { 100_000 } else { 0 };
    let received: u64 = (1..=second).map(per_second).sum();
    vec![
        Totals {
            p: 1,
            phase: Phase::Run,
            received,
            committed: received - received / 800,
            failed: second / 30,
            retried: second * 11 / 10,
            dead_lettered: 1204,
            compensations: 7,
            comp_age_ms: Some(38_000),
            queued: 41_000,
            late: 2,
            window_fill: Some(38),
            branches: States {
                all: branches,
                run: branches.saturating_sub(6),
                idle: 1,
                full: 1,
                pause: 1,
                drain: 1,
                fail: 1,
                ..States::default()
            },
            p50: Some(1_200),
            p99: Some(12_000),
            lease_ms: Some(22_000),
            lag_ms: Some(7_980_000),
            at,
            ..Totals::default()
        },
        Totals {
            p: 2,
            phase: Phase::Run,
            received: second * 40_000,
            committed: second * 40_000,
            branches: States {
                all: 16,
                run: 16,
                ..States::default()
            },
            p99: Some(2_000),
            at,
            ..Totals::default()
        },
    ]
}

/// A branch, some seconds after the first; those beyond the known tenants are like the last ones.
pub(crate) fn branch(index: usize, second: u64) -> Branch {
    let known = TENANTS.get(index).copied();
    let (_, state, rate, queued, window, age, [retried, comp, dead], p99) =
        known.unwrap_or(TENANTS[5 + index % 8]);
    let wave = |s: u64| match index % 4 {
        0 => rate * (30 + s) / 90,
        1 => rate,
        2 => rate * (90 - s) / 90,
        _ => rate * (1 + (s / 5) % 2) / 2,
    };
    let held = matches!(state, State::Paused | State::Failed | State::Draining);
    let flows = |s: u64| {
        if held {
            4_000u64.saturating_sub(s * 200)
        } else {
            wave(s)
        }
    };
    let received: u64 = (1..=second).map(flows).sum();
    Branch {
        pipeline: 1,
        id: u32::try_from(index + 1).unwrap(),
        generation: 5,
        state,
        received,
        committed: received.saturating_sub(received / 100),
        queued: if known.is_some() {
            queued
        } else {
            90 - (index as u64 % 90)
        },
        capacity: 1000,
        window: Some(window).filter(|_| age.is_some()),
        window_size: Some(500),
        window_age_ms: age,
        window_max_age_ms: Some(1000),
        blocked_ms: if state == State::Full { 38_000 } else { 0 },
        retried,
        compensations: comp,
        dead_lettered: dead,
        last_error: (state == State::Failed).then(|| Text::new("store.timeout")),
        last_error_at: (state == State::Failed).then_some(NOW - 41_000),
        entered: match state {
            State::Full => NOW - 38_000,
            State::Paused => NOW - 540_000,
            _ => NOW - 41_000,
        },
        p50: p99.map(|it| it / 8),
        p99,
        ..Branch::default()
    }
}

fn windows() -> Windows {
    let window = |id: u32, n: u64, age_ms: u64, last: &str| Win {
        b: BranchKey(1, id),
        n,
        max: Some(500),
        age_ms,
        max_age_ms: Some(1000),
        last: Some(Text::new(last)),
        ..Win::default()
    };
    Windows {
        all: 4,
        r: vec![
            window(2, 500, 2000, "size"),
            window(1, 305, 800, "age"),
            window(8, 377, 700, "size"),
            window(6, 250, 600, "close"),
        ],
    }
}

fn scopes(now: u64) -> Comp {
    let action = |n: u64, name: &str, state: ActionState, at: u64| Action {
        n,
        name: Text::new(name),
        stage: Text::new("store"),
        state,
        at: Some(now - at),
        ..Action::default()
    };
    Comp {
        more: false,
        r: vec![
            Scope {
                id: 88_121,
                b: BranchKey(1, 2),
                level: ScopeLevel::Unit,
                what: Text::new("store: store.timeout"),
                policy: Text::new("sequential"),
                start: now - 4_000,
                took_ms: None,
                actions: vec![
                    Action {
                        attempt: 3,
                        of: 5,
                        again: Some(now + 1_600),
                        ..action(3, "delete_batch", ActionState::Pending, 3_900)
                    },
                    action(2, "outbox.retract", ActionState::Pending, 4_000),
                    action(1, "idempotency.delete", ActionState::Pending, 4_100),
                ],
            },
            Scope {
                id: 88_090,
                b: BranchKey(1, 2),
                level: ScopeLevel::Unit,
                what: Text::new("store: decode.invalid"),
                policy: Text::new("sequential"),
                start: now - 60_000,
                took_ms: Some(41),
                actions: vec![Action {
                    took_ms: Some(41),
                    ..action(7, "delete_batch", ActionState::Done, 60_100)
                }],
            },
            Scope {
                id: 87_000,
                b: BranchKey(1, 5),
                level: ScopeLevel::Branch,
                what: Text::new("hooli failed"),
                policy: Text::new("parallel"),
                start: now - 41_000,
                took_ms: None,
                actions: vec![Action {
                    error: Some(Text::new("OSError: no space left")),
                    attempt: 1,
                    of: 1,
                    took_ms: Some(12),
                    ..action(9, "release_lease", ActionState::Failed, 41_000)
                }],
            },
        ],
    }
}

fn stores(now: u64) -> Outbox {
    let store = |name: &str, numbers: [u64; 4], lag: u64| Store {
        store: Text::new(name),
        tenant: Text::new(name.strip_suffix("-db").unwrap_or_default()),
        state: Text::new("up"),
        selection: Text::new("round_robin"),
        ready: numbers[0],
        leased: numbers[1],
        retry: numbers[2],
        dead: numbers[3],
        lag_ms: Some(lag),
        lease_ms: Some(22_000),
        expires: Some(now + 38_000),
        polled: Some(now - 400),
        workers: Some(2),
        paused: if name == "globex-db" {
            vec![Text::new("mail")]
        } else {
            vec![]
        },
        resting: false,
    };
    Outbox {
        more: false,
        r: vec![
            store("hooli-db", [120, 0, 5, 890], 7_980_000),
            store("globex-db", [310, 50, 9, 0], 41_000),
            store("acme-db", [400, 30, 0, 300], 1_100),
            store("rest-db", [492, 35, 1, 14], 1_000),
        ],
    }
}

fn letters(now: u64) -> Dead {
    let letter = |id: &str, topic: &str, error: &str, age: u64| DeadLetter {
        id: Text::new(id),
        topic: Text::new(topic),
        tenant: Text::new("hooli"),
        attempts: 20,
        error: Text::new(error),
        at: now - age,
        payload: None,
    };
    Dead {
        store: Some(Text::new("hooli-db")),
        all: 890,
        more: false,
        r: vec![
            letter(
                "88121",
                "billing",
                "store.timeout: no answer in 5s",
                7_980_000,
            ),
            letter(
                "88122",
                "billing",
                "store.timeout: no answer in 5s",
                7_979_000,
            ),
            letter("88180", "order.created", "decode.invalid: not JSON", 60_000),
        ],
    }
}

fn errors(now: u64) -> Errors {
    let error = |code: &str, n: u64, ago: u64, branches: &[u32], stage: &str| ErrorRow {
        p: 1,
        code: Text::new(code),
        n: n * 10,
        n1: n / 4,
        n5: n,
        n60: n * 3,
        first: now - 3_600_000,
        last: now - ago,
        branches: branches.to_vec(),
        stage: Text::new(stage),
        sample: [
            "TimeoutError: no answer from hooli-db in 5 s",
            "ConnectionResetError: [Errno 104] Connection reset by peer",
        ]
        .map(Text::new)
        .to_vec(),
    };
    Errors {
        r: vec![
            error("store.timeout", 14, 1_400, &[2, 5], "store"),
            error("decode.invalid", 3, 130_000, &[1], "parse"),
            error("lease.lost", 1, 540_000, &[3], "store"),
        ],
    }
}

fn log(now: u64) -> Log {
    let entry = |n: u64, ago: u64, level: Severity, b: Option<u32>, msg: &str| LogEntry {
        n,
        at: now - ago,
        kind: Kind::Event,
        level,
        p: b.map(|_| 1),
        b,
        msg: Text::new(msg),
        ..LogEntry::default()
    };
    let audit = |op: &str, entry: LogEntry| LogEntry {
        kind: Kind::Audit,
        peer: Some(Peer {
            uid: Some(1000),
            pid: Some(77),
            client: Text::new("anabranch-top/0.1.0"),
        }),
        op: Some(Text::new(op)),
        ok: Some(true),
        ..entry
    };
    Log {
        lost: 312,
        r: vec![
            audit(
                "branch.pause",
                entry(312, 540_000, Severity::Info, Some(3), "branch is paused"),
            ),
            entry(
                313,
                40_780,
                Severity::Error,
                Some(5),
                "branch failed: store.timeout (5/5)",
            ),
            entry(
                314,
                26_100,
                Severity::Error,
                None,
                "connection closed by peer",
            ),
            audit(
                "branch.drain",
                entry(315, 5_996, Severity::Info, Some(4), "drain requested"),
            ),
            entry(
                316,
                1_888,
                Severity::Warn,
                Some(2),
                "retry 3/5 store.timeout, next 1.6s",
            ),
        ],
    }
}

fn detail(now: u64) -> Detail {
    Detail {
        p: 1,
        id: 2,
        at: now,
        since: now - 38_000,
        legs: vec![LegDetail {
            leg: 0,
            queued: 1000,
            capacity: 1000,
            full_ms: Some(38_000),
            in_flight: 1,
            ..LegDetail::default()
        }],
        units: vec![UnitDetail {
            leg: 0,
            items: 500,
            attempt: 3,
            of: Some(5),
            since: Some(now - 1_400),
            again: None,
        }],
        error: Some(Text::new("TimeoutError: no answer in 5 s")),
        facts: vec![(Text::new("idempotency hits"), 12)],
        ..Detail::default()
    }
}
