//! What keys do: where they lead, what they ask of the processes, and what they never do.

mod world;

use anabranch_protocol::message::{Code, Done, Failure, Op, Pipe, Right};
use anabranch_protocol::row::{Columns, State};
use anabranch_protocol::{Client, Text};
use anabranch_tui::app::ask::GUARD_MS;
use anabranch_tui::app::attention;
use anabranch_tui::app::focus::Focus;
use anabranch_tui::app::list::RowId;
use anabranch_tui::app::{Cmd, Msg, Screen};
use anabranch_tui::keymap::Key;
use anabranch_tui::store::COLUMNS;
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use world::World;

fn branches() -> World {
    let mut world = World::new((80, 24), true);
    world.press("\n");
    world.cmds.clear();
    world
}

fn tenant(world: &World) -> String {
    match world.model.selected() {
        Some(RowId::Branch(id)) => {
            let row = world.model.store.row(*id);
            row.map_or_else(String::new, |it| it.tenant.to_string())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn v6_enter_goes_in_and_esc_goes_out() {
    let mut world = World::new((80, 24), true);
    world.press("\n");
    assert_eq!(world.model.screen, Screen::Branches);
    assert!(world.screen().contains("branches 14/14"));
    world.press("\n");
    assert!(world.model.open.is_some());
    world.press("\u{1b}\u{1b}");
    assert_eq!(world.model.screen, Screen::Pipes);
    assert_eq!(world.model.scope, None);
}

#[test]
fn v6_the_worst_come_first_however_many_are_asked_for() {
    let world = World::new((80, 24), true);
    let (all, count) = attention::worst(&world.model, usize::MAX);
    assert!(count > 3);
    assert_eq!(all.len(), count);
    assert!(all.is_sorted_by_key(|it| std::cmp::Reverse(it.rank)));
    for most in 0..=count {
        let told = attention::worst(&world.model, most);
        assert_eq!(told, (all[..most].to_vec(), count));
    }
}

#[test]
fn v4_a_pipeline_that_takes_no_commands_is_shown_as_read_only() {
    let mut world = World::new((80, 24), true);
    assert!(world.screen().contains(" rw "));
    for target in 0..3 {
        for p in 0..4 {
            let pipe = Pipe {
                control: false,
                ..world::pipe(p, "closed")
            };
            world.hear(target, pipe);
        }
    }
    assert!(world.screen().contains(" ro "));
    world.press("2P");
    assert!(world.screen().contains("pipeline closed lets nobody act"));
    assert_eq!(world.sent(), []);
}

#[test]
fn v6_a_filter_holds_while_it_is_written_and_esc_takes_it_back() {
    let mut world = branches();
    world.press("/st:!ok");
    assert_eq!(world.model.list().rows().len(), 4);
    world.press("\n");
    assert!(world.screen().contains("filter: st:!ok"));
    world.press("/x\u{1b}");
    assert_eq!(world.model.filter.source(), "st:!ok");
    world.press("\u{1b}");
    assert_eq!(world.model.list().rows().len(), 14);
}

#[test]
fn v6_a_column_sorts_and_the_cursor_stays_on_its_branch() {
    let mut world = branches();
    world.press("j");
    let before = tenant(&world);
    world.press(":sort tenant\n");
    assert_eq!(tenant(&world), before);
    let first = &world.model.list().rows()[0];
    let RowId::Branch(id) = first else { panic!() };
    assert_eq!(&*world.model.store.row(*id).unwrap().tenant, "acme");
    world.press("S");
    assert_eq!(tenant(&world), before);
    assert!(world.screen().contains("sort: tenant v"));
}

#[test]
fn v6_frozen_stands_still_while_the_store_goes_on() {
    let mut world = branches();
    world.press(" ");
    let before = world.screen();
    world.cmds.clear();
    world.tick(
        0,
        vec![],
        vec![Columns::new(COLUMNS).write(&world::branch(0, 70))],
    );
    assert_eq!(world.screen(), before);
    let row = world.model.store.pipeline(0, 1).unwrap().row(1).unwrap();
    assert_eq!(row.branch.received, world::branch(0, 70).received);
    assert!(world.cmds.is_empty(), "the process hears nothing of it");
    world.press(" ");
    assert!(world.model.frozen.is_none());
}

#[test]
fn v10_an_action_is_tried_dry_confirmed_and_sent_with_what_the_operator_saw() {
    let mut world = branches();
    world.press("P");
    let [dry] = world.sent().try_into().unwrap();
    assert!(dry.dry && dry.op == Op::BranchPause && dry.if_gen == Some(5));
    world.hear(
        0,
        Done {
            id: dry.id,
            ok: true,
            n: 7,
            msg: Text::new("7 units would wait"),
            ..Done::default()
        },
    );
    assert!(world.screen().contains("7 units would wait"));
    // The branch is opened again meanwhile.
    let mut changed = world::branch(1, 60);
    changed.generation = 6;
    world.tick(0, vec![], vec![Columns::new(COLUMNS).write(&changed)]);
    world.now += GUARD_MS;
    world.press("l\n");
    let [real] = world.sent().try_into().unwrap();
    assert!(
        !real.dry && real.if_gen == Some(5),
        "as it was seen: {real:?}"
    );
    assert_ne!(real.key, dry.key);
    world.hear(
        0,
        Done {
            id: real.id,
            err: Some(Failure {
                code: Code::Conflict,
                msg: Text::new("it has changed"),
            }),
            ..Done::default()
        },
    );
    assert!(world.screen().contains("it has changed (conflict)"));
}

#[test]
fn v10_enter_never_confirms_by_itself_nor_too_soon() {
    let mut world = branches();
    world.press("P\n");
    assert!(matches!(world.model.focus, Focus::Ask(_)), "too soon");
    world.now += GUARD_MS;
    world.sent();
    world.press("\n");
    assert!(
        matches!(world.model.focus, Focus::Screen),
        "the default is to cancel"
    );
    assert_eq!(world.sent(), vec![]);
}

#[test]
fn v10_what_cannot_be_taken_back_must_be_typed() {
    let mut world = branches();
    world.press("D");
    world.now += GUARD_MS;
    world.sent();
    world.press("globe\n");
    assert_eq!(world.sent(), vec![]);
    world.say(Msg::Paste("x".to_owned()));
    world.now += GUARD_MS;
    world.press("\n");
    assert_eq!(world.sent(), vec![], "pasted is not typed");
    world.press("x");
    world.now += GUARD_MS;
    world.press("\n");
    let [cmd] = world.sent().try_into().unwrap();
    assert_eq!((cmd.op, cmd.on.branch), (Op::BranchDrain, Some(2)));
}

#[test]
fn v10_what_was_begun_is_told_of_until_it_is_done() {
    let mut world = World::new((120, 40), false);
    world.press("2g");
    while tenant(&world) != "umbrella" {
        world.press("j");
    }
    world.press("D");
    world.now += GUARD_MS;
    world.sent();
    world.press("umbrella\n");
    let [cmd] = world.sent().try_into().unwrap();
    let done = Done {
        id: cmd.id,
        ok: true,
        ..Done::default()
    };
    world.hear(0, done);
    let inside = 20 + world::branch(3, 60).in_flight;
    let going = format!("cmd {} drain umbrella: running, {inside} left", cmd.id);
    let screen = world.screen();
    assert!(screen.contains(&going), "{screen}");
    let mut over = world::branch(3, 60);
    assert_eq!(cmd.on.branch, Some(over.id));
    over.state = State::Idle;
    world.tick(0, vec![], vec![Columns::new(COLUMNS).write(&over)]);
    let over = format!("last: cmd {} drain umbrella OK", cmd.id);
    let screen = world.screen();
    assert!(
        !screen.contains(&going) && screen.contains(&over),
        "{screen}"
    );
}

#[test]
fn v10_no_more_letters_are_thrown_away_than_the_operator_saw() {
    let mut world = World::new((120, 40), false);
    world.press("5:discard\n");
    let [dry] = world.sent().try_into().unwrap();
    assert!(dry.dry && dry.op == Op::DeadDiscard && dry.if_gen.is_none());
    let done = Done {
        id: dry.id,
        ok: true,
        n: 890,
        ..Done::default()
    };
    world.hear(0, done);
    world.now += GUARD_MS;
    world.press("hooli-db\n");
    let [real] = world.sent().try_into().unwrap();
    assert_eq!((real.dry, real.if_gen), (false, Some(890)));
}

#[test]
fn v10_several_branches_are_confirmed_by_their_number() {
    let mut world = branches();
    world.press("xxxU");
    world.now += GUARD_MS;
    assert_eq!(world.sent().len(), 3, "a dry run each");
    world.press("3\n");
    let cmds = world.sent();
    assert_eq!(cmds.len(), 3);
    let keys: std::collections::HashSet<_> = cmds.iter().map(|it| &it.key).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn v10_an_action_says_why_it_cannot_be() {
    let mut frozen = branches();
    frozen.press(" D");
    assert!(frozen.screen().contains("the screen is frozen"));

    let mut old = branches();
    old.now += 2_500;
    old.press("D");
    assert!(
        old.screen().contains("the data are 2.5s old"),
        "{}",
        old.screen()
    );

    let mut lost = branches();
    lost.lose(0, "gone", None);
    lost.press("D");
    assert!(lost.screen().contains("is lost"));

    let mut guest = branches();
    guest.model.store.process_mut(0).unwrap().rights = vec![Right::Observe];
    guest.press("D");
    assert!(guest.screen().contains("lets nobody act"));

    for mut world in [frozen, old, lost, guest] {
        assert_eq!(world.sent(), vec![]);
    }
}

#[test]
fn v6_what_is_looked_at_is_what_is_asked_for() {
    let mut world = World::new((80, 24), true);
    world.press("\n");
    let subs: Vec<_> = world
        .cmds
        .iter()
        .filter_map(|cmd| match cmd {
            Cmd::Send(id, message) if id.0 == 0 => match &**message {
                Client::Sub(sub) => Some(sub),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let last = subs.last().unwrap();
    assert_eq!(last.visible.len(), 14);
    world.cmds.clear();
    let _ = world.screen();
    assert_eq!(world.cmds, vec![], "nothing new, nothing said");
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let letters = "jkgGhlsS/nN +-tvfcxXaPUDRKCTQ:ywmr?q1234567ab>0:!^stqueue\u{65e5}";
    let letters: Vec<char> = letters.chars().collect();
    let plain = proptest::sample::select(letters).prop_map(KeyCode::Char);
    let names = [
        "enter", "esc", "tab", "backtab", "up", "down", "pageup", "pagedown", "home", "end",
    ];
    let others = proptest::sample::select(names.to_vec()).prop_map(|name| {
        assert!(Key::parse(name).is_some());
        match name {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "tab" => KeyCode::Tab,
            "backtab" => KeyCode::BackTab,
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "pageup" => KeyCode::PageUp,
            "pagedown" => KeyCode::PageDown,
            "home" => KeyCode::Home,
            _ => KeyCode::End,
        }
    });
    let code = prop_oneof![6 => plain, 3 => others, 1 => Just(KeyCode::Backspace)];
    let control = prop::bool::weighted(0.05);
    (code, control).prop_map(|(code, control)| {
        let modifiers = if control {
            KeyModifiers::CONTROL
        } else {
            KeyModifiers::NONE
        };
        KeyEvent::new(code, modifiers)
    })
}

#[test]
fn v6_a_screen_of_one_cell_takes_keys() {
    let mut world = World::brief((1, 1));
    for key in "123456hljkgG/?".chars() {
        let event = KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE);
        world.say(Msg::Key(event));
        world.say(Msg::Key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Key(KeyEvent),
    Resize(u16, u16),
    Tick(usize, u64),
    Gone(u32),
    Lose,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_key().prop_map(Step::Key),
        1 => (1u16..220, 1u16..70).prop_map(|(width, height)| Step::Resize(width, height)),
        2 => (0usize..20, 0u64..80).prop_map(|(branch, second)| Step::Tick(branch, second)),
        1 => (0u32..20).prop_map(Step::Gone),
        1 => Just(Step::Lose),
        1 => (0u64..5000).prop_map(Step::Wait),
    ]
}

/// So many cases, unless `PROPTEST_CASES` asks for more or fewer.
fn cases(usual: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(usual, |_| asked.cases);
    ProptestConfig { cases, ..asked }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn v6_no_keys_sizes_or_news_make_it_panic(steps in proptest::collection::vec(any_step(), 1..80)) {
        let mut world = World::brief((80, 24));
        for step in steps {
            match step {
                Step::Key(event) => world.say(Msg::Key(event)),
                Step::Resize(width, height) => world.say(Msg::Resize(width, height)),
                Step::Tick(branch, second) => {
                    let row = Columns::new(COLUMNS).write(&world::branch(branch, second));
                    world.tick(0, vec![], vec![row]);
                }
                Step::Gone(branch) => {
                    let gone = vec![anabranch_protocol::row::BranchKey(1, branch)];
                    let tick = anabranch_protocol::message::Tick { gone, ts: world.now, ..Default::default() };
                    world.hear(0, tick);
                }
                Step::Lose => world.lose(0, "gone", Some(world.now + 100)),
                Step::Wait(ms) => {
                    world.now += ms;
                    world.say(Msg::Wake);
                }
            }
            world.screen();
            prop_assert!(anabranch_tui::app::wake(&world.model).is_none_or(|at| at > world.model.now));
        }
    }

    #[test]
    fn v6_the_selected_branch_stays_selected(
        at in 0isize..14,
        steps in proptest::collection::vec((0usize..14, 0u64..80, 60u16..200, 16u16..60), 1..40),
    ) {
        let mut world = World::brief((80, 24));
        world.press("\n");
        for _ in 0..at {
            world.press("j");
        }
        let selected = world.model.selected().cloned();
        for (branch, second, width, height) in steps {
            let mut row = world::branch(branch, second);
            row.queued = second * 13 % 1000;
            world.tick(0, vec![], vec![Columns::new(COLUMNS).write(&row)]);
            world.say(Msg::Resize(width, height));
            world.screen();
            prop_assert_eq!(world.model.selected(), selected.as_ref());
            let shown = world.model.list().shown(world.model.height());
            prop_assert!(shown.contains(selected.as_ref().unwrap()));
        }
    }
}
