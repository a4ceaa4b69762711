//! Keys and the mouse where they only look: nothing of it reaches a process, but what is to be told.

mod world;

use anabranch_protocol::Client;
use anabranch_tui::app::focus::Focus;
use anabranch_tui::app::list::RowId;
use anabranch_tui::app::{Cmd, Msg};
use ratatui::crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use world::World;

fn branches() -> World {
    let mut world = World::brief((80, 24));
    world.press("\n");
    world.screen();
    world.cmds.clear();
    world
}

fn tenant(world: &World) -> String {
    match world.model.selected() {
        Some(RowId::Branch(id)) => world
            .model
            .store
            .pipeline(id.process, id.key.0)
            .map_or_else(String::new, |it| it.tenant(id.key.1)),
        other => panic!("{other:?}"),
    }
}

/// The line of the screen that a tenant is on.
fn line(world: &mut World, tenant: &str) -> u16 {
    let screen = world.screen();
    let line = (0..)
        .zip(screen.lines())
        .find(|(_, it)| it.contains(tenant));
    line.unwrap_or_else(|| panic!("no {tenant} in\n{screen}")).0
}

fn mouse(world: &mut World, kind: MouseEventKind, row: u16) {
    world.say(Msg::Mouse(MouseEvent {
        kind,
        column: 5,
        row,
        modifiers: KeyModifiers::NONE,
    }));
}

const CLICK: MouseEventKind = MouseEventKind::Down(MouseButton::Left);

#[test]
fn dashboard_6_a_click_selects_and_the_wheel_moves() {
    let mut world = branches();
    let first = tenant(&world);
    let row = line(&mut world, "tyrell");
    mouse(&mut world, CLICK, row);
    assert_eq!(tenant(&world), "tyrell");
    for _ in 0..9 {
        mouse(&mut world, MouseEventKind::ScrollUp, row);
    }
    assert_eq!(tenant(&world), first);
    mouse(&mut world, MouseEventKind::ScrollDown, row);
    let fourth = tenant(&world);
    world.press("gjjj");
    assert_eq!(tenant(&world), fourth);
    // What is above and below the rows is none of them.
    for elsewhere in [0, 3, 4, 22, 23, 99] {
        mouse(&mut world, CLICK, elsewhere);
        assert_eq!(tenant(&world), fourth, "line {elsewhere}");
    }
}

#[test]
fn dashboard_6_the_mouse_does_nothing_to_a_question() {
    let mut world = branches();
    world.press("D");
    let row = line(&mut world, "Type the tenant");
    let asked = tenant(&world);
    world.sent();
    for kind in [CLICK, MouseEventKind::ScrollDown] {
        for row in [row - 5, row, row + 1] {
            mouse(&mut world, kind, row);
        }
    }
    assert!(matches!(world.model.focus, Focus::Ask(_)));
    assert_eq!(tenant(&world), asked);
    assert!(world.sent().is_empty());
}

#[test]
fn dashboard_6_the_mouse_is_the_terminals_until_it_is_asked_for() {
    let mut world = branches();
    assert!(!world.model.mouse, "so that text can be selected");
    world.press("mm");
    let taken: Vec<_> = world
        .cmds
        .iter()
        .filter(|it| matches!(it, Cmd::Mouse(_)))
        .collect();
    assert_eq!(taken, [&Cmd::Mouse(true), &Cmd::Mouse(false)]);
}

#[test]
fn dashboard_6_a_snapshot_is_what_the_screen_shows_and_what_is_known() {
    let mut world = branches();
    let screen = world.screen();
    world.press("w");
    let saved = world.cmds.iter().find_map(|it| match it {
        Cmd::Save { stem, text, json } => Some((stem, text, json)),
        _ => None,
    });
    let (stem, text, json) = saved.unwrap();
    assert_eq!(text.trim_end(), screen.trim_end());
    assert!(stem.starts_with("anabranch-"), "{stem}");
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(told["processes"].as_array().unwrap().len(), 3);
}

#[test]
fn dashboard_6_a_row_is_copied() {
    let mut world = branches();
    let tenant = tenant(&world);
    world.press("y");
    let copied = world.cmds.iter().any(|it| match it {
        Cmd::Copy(text) => text.starts_with(&tenant),
        _ => false,
    });
    assert!(copied, "{:?}", world.cmds);
}

#[test]
fn dashboard_6_the_ticks_go_faster_and_slower_as_far_as_a_server_lets_them() {
    let mut world = branches();
    let asked = |world: &mut World| {
        let cmds = std::mem::take(&mut world.cmds);
        let ticks = cmds.iter().filter_map(|it| match it {
            Cmd::Send(_, message) => match &**message {
                Client::Sub(sub) => Some(sub.tick_ms),
                _ => None,
            },
            _ => None,
        });
        ticks.collect::<Vec<_>>()
    };
    world.press("-");
    let slower = asked(&mut world);
    assert!(
        !slower.is_empty() && slower.iter().all(|it| *it == 200),
        "{slower:?}"
    );
    world.press("++++++");
    let faster = asked(&mut world);
    assert_eq!(faster.last(), Some(&50));
    world.press("---------");
    assert_eq!(asked(&mut world).last(), Some(&2_000));
    assert!(world.sent().is_empty(), "the pipelines hear nothing of it");
}

#[test]
fn dashboard_6_the_history_has_three_lengths() {
    let mut world = branches();
    let lengths: Vec<_> = (0..4)
        .map(|_| {
            world.press("t");
            world.model.span.name()
        })
        .collect();
    assert_eq!(lengths, ["5m", "30s", "60s", "5m"]);
}

#[test]
fn dashboard_6_what_is_searched_is_found_again_in_both_directions() {
    let mut world = World::brief((80, 24));
    world.press("7g/e\n");
    let at = |world: &World| world.model.list().at();
    let first = at(&world);
    world.press("n");
    let second = at(&world);
    assert!(first < second, "{first} {second}");
    world.press("N");
    assert_eq!(at(&world), first);
}

#[test]
fn dashboard_6_no_key_that_slips_destroys_anything() {
    let mut world = branches();
    for code in [
        KeyCode::Char('d'),
        KeyCode::Delete,
        KeyCode::Backspace,
        KeyCode::Insert,
    ] {
        for _ in 0..3 {
            world.key(code);
        }
    }
    assert!(world.sent().is_empty());
    assert!(matches!(world.model.focus, Focus::Screen));
}
