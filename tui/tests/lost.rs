//! Processes that are no more: what is still shown of them, what is not, and for how long.

mod world;

use anabranch_protocol::Text;
use anabranch_protocol::message::{Names, Right, Rows};
use anabranch_protocol::row::Columns;
use anabranch_tui::At;
use anabranch_tui::app::{Cmd, Msg};
use anabranch_tui::conn::{Target, TargetId};
use anabranch_tui::store::{COLUMNS, LOST};
use world::{NOW, World, branch, pipe, process};

fn line<'a>(screen: &'a str, word: &str) -> &'a str {
    let found = screen.lines().find(|line| line.contains(word));
    found.unwrap_or_else(|| panic!("no {word:?} in\n{screen}"))
}

#[test]
fn dashboard_5_a_branch_of_a_lost_process_has_the_sign_of_no_state() {
    let mut world = World::brief((120, 40));
    world.press("\n");
    assert!(line(&world.screen(), "stark").contains("▶ run"));
    world.lose(0, "Connection refused", Some(NOW + 1_000));
    let screen = world.screen();
    assert!(line(&screen, "stark").contains("? run"), "{screen}");
    assert!(!screen.contains('▶'), "colour alone would say it: {screen}");
}

#[test]
fn dashboard_5_what_a_lost_process_had_is_in_no_sum_of_those_that_live() {
    let mut world = World::brief((120, 40));
    let before = world.screen();
    assert!(line(&before, "queued ").contains("queued 55k"), "{before}");
    world.lose(0, "Connection refused", Some(NOW + 1_000));
    let screen = world.screen();
    assert!(line(&screen, "queued ").contains("queued 14k"), "{screen}");
    assert!(screen.contains("4 branches"), "{screen}");
    assert!(line(&screen, "LIVE").contains("3 processes  2 LOST"));
    world.lose(1, "Connection refused", Some(NOW + 1_000));
    let screen = world.screen();
    let all = line(&screen, "queued ");
    assert!(all.contains("queued 55k"), "all there is to be seen: {all}");
}

#[test]
fn dashboard_5_those_that_live_stand_before_those_that_are_lost() {
    let mut world = World::brief((120, 40));
    world.press("j");
    let before = world.model.selected().cloned();
    world.lose(0, "Connection refused", Some(NOW + 1_000));
    let screen = world.screen();
    let at = |word: &str| screen.find(word).unwrap();
    assert!(at("billing[4377]") < at("orders-svc[4211]"), "{screen}");
    assert!(at("orders-svc[4211]") < at("edge[9120]"), "{screen}");
    assert_eq!(
        world.model.selected().cloned(),
        before,
        "the cursor goes with its row"
    );
}

#[test]
fn dashboard_8_thousands_of_processes_may_come_and_go() {
    let mut world = World::empty((120, 40), false);
    let many = 2_000;
    let mut closed = Vec::new();
    for number in 0..many {
        world.now += 1_000;
        let target = Target {
            id: TargetId(number),
            label: format!("job[{number}]"),
            at: At::Unix(format!("/run/{number}.sock").into()),
        };
        world.say(Msg::Found(vec![target]));
        world.welcome(number, process("job", number, world.now), &[Right::Observe]);
        world.hear(number, pipe(1, "nightly"));
        world.tick(number, vec![], vec![]);
        if number == 0 {
            // What somebody has gone into stays, however long it has been lost.
            world.screen();
            world.press("\n");
            assert_eq!(world.model.scope, Some((0, 1)));
        }
        world.lose(number, "No such file or directory", Some(NOW + 5_000));
        assert!(world.model.store.processes().count() <= LOST + 2);
        closed.extend(world.cmds.drain(..).filter_map(|cmd| match cmd {
            Cmd::Close(TargetId(target)) => Some(target),
            _ => None,
        }));
    }
    let gone = many - u32::try_from(LOST + 1).unwrap();
    let longest: Vec<_> = (1..gone).collect();
    assert_eq!(closed, longest, "those lost the longest ago go first");
    world.press("1");
    let screen = world.screen();
    assert!(screen.contains("job[0]"), "{screen}");
    assert!(screen.contains(&format!("job[{gone}]")), "{screen}");
}

#[test]
fn dashboard_5_a_name_of_which_nothing_is_seen_is_shown_in_quotes() {
    let mut world = World::empty((120, 40), false);
    world.found(&["orders-svc"]);
    world.welcome(0, process("orders-svc", 1, NOW), &[Right::Observe]);
    world.hear(0, pipe(1, "ingest"));
    let names = ["", "  ", "\u{200b}", "#17"];
    let r = names
        .iter()
        .zip(1..)
        .map(|(name, id)| (1, id, Text::new(name)));
    world.hear(0, Names { r: r.collect() });
    // The last one has no name yet.
    let rows = (0..5).map(|index| Columns::new(COLUMNS).write(&branch(index, 60)));
    world.hear(
        0,
        Rows {
            full: true,
            r: rows.collect(),
            ..Rows::default()
        },
    );
    world.press("2");
    let screen = world.screen();
    for shown in ["\"\" ", "\"  \" ", "\"\\u{200b}\"", "#17 ", "#5 "] {
        assert!(screen.contains(shown), "no {shown} in\n{screen}");
    }
}

#[test]
fn dashboard_3_commands_are_numbered_for_those_who_read_them() {
    let mut world = World::brief((80, 24));
    // Wherever one looks, something else is subscribed to.
    world.press("2345672");
    world.cmds.clear();
    world.press("P");
    let numbers: Vec<_> = world.sent().iter().map(|it| it.id).collect();
    assert_eq!(numbers, [1], "the question what would happen");
}
