//! V10: actors over real sockets: they come back, know who they come back to, and ask nothing
//! twice.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "in a test a panic is the right answer, and this one waits for real processes"
)]

mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anabranch_protocol::message::Right;
use anabranch_tui::At;
use anabranch_tui::app::{self, Begin, Cmd, Model, Msg};
use anabranch_tui::conn::{Conn, Context, Event, Target, TargetId};
use anabranch_tui::store::Link;
use anabranch_tui::top::{Bell, clock};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use server::{Monitor, Shared};

/// A dashboard without a terminal.
struct Dashboard {
    model: Model,
    conn: Conn,
    heard: Receiver<(TargetId, Event)>,
}

impl Dashboard {
    fn new(path: &std::path::Path) -> Self {
        let target = Target {
            id: TargetId(0),
            label: "it".to_owned(),
            at: At::Unix(path.to_owned()),
        };
        let begin = Begin {
            session: "s".to_owned(),
            ..Begin::default()
        };
        let mut model = Model::new(begin, (80, 24), clock());
        app::update(&mut model, Msg::Found(vec![target.clone()]), clock());
        let (events, heard) = mpsc::sync_channel(16);
        let (bell, _ear) = Bell::new().unwrap();
        let context = Context {
            client: "test/0".to_owned(),
            want: vec![Right::Observe, Right::Control],
            events,
            bell,
            recorder: None,
        };
        let conn = Conn::open(target, context).unwrap();
        Self { model, conn, heard }
    }

    fn carry_out(&self, cmds: Vec<Cmd>) {
        for cmd in cmds {
            match cmd {
                Cmd::Send(_, message) => assert!(self.conn.send(message)),
                Cmd::Reconnect(_) => self.conn.reconnect(),
                _ => {}
            }
        }
    }

    fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = if key == '\n' {
                KeyCode::Enter
            } else {
                KeyCode::Char(key)
            };
            let event = KeyEvent::new(code, KeyModifiers::NONE);
            let cmds = app::update(&mut self.model, Msg::Key(event), clock());
            self.carry_out(cmds);
        }
    }

    /// Goes on until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Model) -> bool) {
        let begun = Instant::now();
        while !holds(&self.model) {
            assert!(begun.elapsed() < Duration::from_secs(10), "never: {what}");
            if let Ok((id, event)) = self.heard.recv_timeout(Duration::from_millis(50)) {
                let cmds = app::update(&mut self.model, Msg::Conn(id, event), clock());
                self.carry_out(cmds);
            }
            let cmds = app::prepare(&mut self.model);
            self.carry_out(cmds);
        }
    }
}

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ab-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn rows(model: &Model) -> usize {
    let pipeline = model.store.pipeline(0, 1);
    pipeline.map_or(0, |it| it.rows.iter().filter(|row| row.told).count())
}

fn lost(model: &Model) -> bool {
    let process = model.store.process(0).unwrap();
    matches!(process.link, Link::Lost { .. })
}

fn live(model: &Model) -> bool {
    model
        .store
        .processes()
        .any(|(_, it)| it.is_live() && it.age(clock()).is_some())
}

#[test]
fn v10_the_same_process_goes_on_where_it_was() {
    let shared = Arc::new(Shared::default());
    let path = path("same");
    let monitor = Monitor::listen(&path, 1, 600, Arc::clone(&shared));
    let mut dashboard = Dashboard::new(&path);
    dashboard.until("all rows", |model| rows(model) == 600);
    drop(monitor);
    dashboard.until("lost", lost);
    assert_eq!(rows(&dashboard.model), 600, "what is known stays");
    let _monitor = Monitor::listen(&path, 1, 600, shared);
    dashboard.until("live again", live);
    assert_eq!(dashboard.model.store.processes().count(), 1);
}

#[test]
fn v10_another_process_is_a_row_of_its_own_and_rates_never_fall_below_zero() {
    let shared = Arc::new(Shared::default());
    let path = path("other");
    let monitor = Monitor::listen(&path, 1, 3, Arc::clone(&shared));
    let mut dashboard = Dashboard::new(&path);
    dashboard.until("rows", |model| rows(model) == 3);
    drop(monitor);
    dashboard.until("lost", lost);
    let _monitor = Monitor::listen(&path, 2, 3, shared);
    dashboard.until("live again", live);
    let store = &dashboard.model.store;
    assert_eq!(store.processes().count(), 2);
    let old = store.process(0).unwrap();
    assert!(matches!(old.link, Link::Lost { again: None, .. }));
    for (_, process) in store.processes() {
        assert!(
            process
                .pipelines
                .values()
                .all(|it| it.rates.received >= 0.0)
        );
    }
}

#[test]
fn v10_a_command_is_carried_out_once_though_the_answer_was_lost() {
    let shared = Arc::new(Shared::default());
    let path = path("once");
    let _monitor = Monitor::listen(&path, 1, 3, Arc::clone(&shared));
    let mut dashboard = Dashboard::new(&path);
    dashboard.until("rows", |model| rows(model) == 3);
    dashboard.press("2");
    dashboard.until("an order", |model| model.list().rows().len() == 3);
    dashboard.press("P");
    dashboard.until("a dry run", |model| {
        model.sent.iter().all(|it| it.state.is_over())
    });
    std::thread::sleep(Duration::from_millis(app::ask::GUARD_MS));
    shared.hang_up.store(true, Ordering::SeqCst);
    dashboard.press("l\n");
    assert_eq!(
        dashboard.model.sent.len(),
        2,
        "the dry run, and the command"
    );
    dashboard.until("an answer", |model| {
        model.sent.iter().all(|it| it.state.is_over())
    });
    let key = dashboard.model.sent[1].cmd.key.clone();
    let heard = shared.heard.lock().unwrap();
    let asked = heard.iter().filter(|it| match it {
        anabranch_protocol::Client::Cmd(cmd) => cmd.key == key,
        _ => false,
    });
    assert_eq!(asked.count(), 2, "it was asked again with the same key");
    assert_eq!(shared.sessions.load(Ordering::SeqCst), 2);
}

#[test]
fn v2_who_does_not_say_hello_is_given_up_in_a_quarter_of_a_second_and_tried_again() {
    let shared = Arc::new(Shared::default());
    shared.mute.store(true, Ordering::SeqCst);
    let path = path("mute");
    let _monitor = Monitor::listen(&path, 1, 3, Arc::clone(&shared));
    let mut dashboard = Dashboard::new(&path);
    dashboard.until("lost", lost);
    shared.mute.store(false, Ordering::SeqCst);
    dashboard.press("r");
    dashboard.until("live", live);
}
