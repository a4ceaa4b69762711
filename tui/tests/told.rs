//! V6: the screen says what is so, and no more: of what is silent, stuck, over, or too small to see.

mod world;

use anabranch_protocol::Text;
use anabranch_protocol::message::{
    Action, ActionState, Comp, Kind, Log, LogEntry, Outbox, Phase, Scope, ScopeLevel, Severity,
    States, Store, Totals,
};
use anabranch_protocol::row::{BranchKey, Columns, State};
use anabranch_tui::app::list::RowId;
use anabranch_tui::app::{Msg, attention, wake};
use anabranch_tui::store::COLUMNS;
use world::{NOW, World};

fn line<'a>(screen: &'a str, word: &str) -> &'a str {
    let found = screen.lines().find(|line| line.contains(word));
    found.unwrap_or_else(|| panic!("no {word:?} in\n{screen}"))
}

fn matters(world: &World) -> Vec<String> {
    let (found, _) = attention::worst(&world.model, usize::MAX);
    let told = found.iter().map(|it| format!("{} {}", it.who, it.what));
    told.collect()
}

/// The first process goes on for some seconds, and tells of one pipeline each second.
fn goes_on(world: &mut World, seconds: u64, totals: impl Fn(u64) -> Totals) {
    for _ in 0..seconds {
        world.now += 1000;
        let now = world.now;
        world.tick(0, vec![totals(now)], vec![]);
    }
}

#[test]
fn v6_numbers_of_a_process_that_is_silent_are_not_shown_as_those_of_now() {
    let mut world = World::new((120, 40), false);
    let before = world.screen();
    assert!(line(&before, "billing[4377]").contains("1.1M"));
    world.now += 3_000;
    let now = world.now;
    world.tick(0, vec![], vec![]);
    world.say(Msg::Wake);
    let screen = world.screen();
    let row = line(&screen, "billing[4377]");
    assert!(row.contains("SILENT last seen 14:02:07"), "{row}");
    assert!(!row.contains("1.1M"), "{row}");
    assert!(
        line(&screen, "in ").contains("in 890k/s"),
        "it is in no sum: {screen}"
    );
    assert!(
        line(&screen, "LIVE").contains("3 processes"),
        "another one is"
    );
    assert_eq!(now, world.now);
}

#[test]
fn v6_a_pipeline_that_tells_nothing_while_its_process_does_is_held_up() {
    let mut world = World::new((120, 40), false);
    let told = NOW;
    let quiet = |at: u64| Totals {
        p: 1,
        phase: Phase::Run,
        at,
        ..Totals::default()
    };
    goes_on(&mut world, 4, |_| quiet(told));
    let what = "ingest has told nothing for 4s: what drives it is held up";
    assert!(
        matters(&world).contains(&what.to_owned()),
        "{:?}",
        matters(&world)
    );
    goes_on(&mut world, 1, quiet);
    assert!(
        !matters(&world)
            .iter()
            .any(|it| it.starts_with("ingest has told nothing"))
    );
    let ended = |_| Totals {
        phase: Phase::End,
        ..quiet(told)
    };
    goes_on(&mut world, 5, ended);
    assert!(
        !matters(&world)
            .iter()
            .any(|it| it.starts_with("ingest has told nothing"))
    );
}

#[test]
fn v6_who_has_paused_a_branch_is_told_and_a_full_one_that_drops_holds_nothing_up() {
    let mut world = World::new((120, 40), false);
    let told = matters(&world);
    assert!(
        told.contains(&"initech paused 9m ago by alice(1000)".to_owned()),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|it| it.contains("queue full 38s, holds up")),
        "{told:?}"
    );
    let mut drops = world::branch(1, 60);
    drops.blocked_ms = 0;
    world.tick(0, vec![], vec![Columns::new(COLUMNS).write(&drops)]);
    let told = matters(&world);
    assert!(
        told.contains(&"globex queue full 38s".to_owned()),
        "{told:?}"
    );
}

#[test]
fn v6_stuck_undo_actions_are_counted_where_they_are_and_can_be_retried_from_there() {
    let mut world = World::empty((80, 24), false);
    world.found(&["orders-svc"]);
    world.orders(["acme", "hooli"]);
    let mut hooli = world::branch(1, 60);
    hooli.state = State::Failed;
    (hooli.compensations, hooli.stuck) = (0, 9);
    hooli.last_error = Some(Text::new("store.timeout"));
    world.tick(0, vec![], vec![Columns::new(COLUMNS).write(&hooli)]);
    world.hear(0, Comp::default());
    let told = matters(&world);
    let what = "hooli failed store.timeout, 9 compensations stuck";
    assert!(told.contains(&what.to_owned()), "{told:?}");
    world.press("2:go hooli\n");
    let screen = world.screen();
    let row = line(&screen, "fail");
    assert!(row.trim_end().ends_with("9   0"), "{row}");
    // Its actions are told of on their own screen alone.
    world.press("R");
    assert!(
        !world.screen().contains("nothing is stuck"),
        "{}",
        world.screen()
    );
    assert_eq!(world.sent().len(), 1, "the dry run");
    world.press("\u{1b}1");
    let stuck = Totals {
        p: 1,
        stuck: 9,
        branches: States::default(),
        ..Totals::default()
    };
    world.tick(0, vec![stuck], vec![]);
    let screen = world.screen();
    assert!(
        line(&screen, "windows late").contains("compensations stuck 9"),
        "{screen}"
    );
    assert!(!screen.contains("no compensation pending"), "{screen}");
    assert!(line(&screen, "queued").contains("comp 9"), "{screen}");
}

#[test]
fn v6_branches_that_wait_for_an_operator_are_the_first_on_the_screen_of_undo_actions() {
    let mut world = World::new((80, 24), false);
    let scope = |id: u64, branch: u32, state: ActionState| Scope {
        id,
        b: BranchKey(1, branch),
        level: ScopeLevel::Unit,
        start: NOW - id,
        actions: vec![Action {
            n: id,
            state,
            ..Action::default()
        }],
        ..Scope::default()
    };
    let r = vec![
        scope(1, 1, ActionState::Done),
        scope(2, 2, ActionState::Pending),
        scope(3, 5, ActionState::Failed),
        scope(4, 5, ActionState::Done),
        scope(5, 2, ActionState::Done),
    ];
    world.hear(0, Comp { more: false, r });
    world.press("4");
    let branches = world
        .model
        .list()
        .rows()
        .iter()
        .filter_map(|row| match row {
            RowId::Undo(id) => Some(id.key.1),
            _ => None,
        });
    assert_eq!(branches.collect::<Vec<_>>(), [5, 2, 1]);
}

#[test]
fn v6_the_log_is_in_the_order_of_time_however_it_comes() {
    let mut world = World::empty((80, 24), false);
    world.found(&["one", "two"]);
    let entry = |n: u64, at: u64, msg: &str| LogEntry {
        n,
        at: NOW + at,
        kind: Kind::Event,
        level: Severity::Info,
        msg: Text::new(msg),
        ..LogEntry::default()
    };
    let r = vec![entry(1, 10, "a"), entry(2, 40, "d"), entry(3, 20, "b")];
    world.hear(0, Log { r, lost: 0 });
    let r = vec![entry(1, 30, "c"), entry(2, 50, "e")];
    world.hear(1, Log { r, lost: 0 });
    let told: Vec<_> = world
        .model
        .store
        .log
        .iter()
        .map(|it| &*it.entry.msg)
        .collect();
    assert_eq!(told, ["a", "b", "c", "d", "e"]);
}

#[test]
fn v6_an_outbox_that_is_down_or_late_needs_attention() {
    let mut world = World::new((120, 40), false);
    let store = |name: &str, state: &str, lag_ms: u64| Store {
        store: Text::new(name),
        state: Text::new(state),
        lag_ms: Some(lag_ms),
        ..Store::default()
    };
    let r = vec![
        store("acme-db", "up", 59_000),
        store("hooli-db", "up", 61_000),
        store("edge-db", "down", 0),
    ];
    world.hear(0, Outbox { more: false, r });
    let told = matters(&world);
    assert!(
        told.contains(&"edge-db outbox cannot be reached".to_owned()),
        "{told:?}"
    );
    assert!(
        told.contains(&"hooli-db outbox: a message has waited 61s".to_owned()),
        "{told:?}"
    );
    assert!(!told.iter().any(|it| it.starts_with("acme-db")), "{told:?}");
    assert!(
        world.screen().contains("outbox lag max"),
        "{}",
        world.screen()
    );
}

#[test]
fn v9_when_a_recording_is_over_its_time_stands_still() {
    let mut world = World::new((80, 24), false);
    world.say(Msg::Over);
    let before = matters(&world);
    world.now += 60_000;
    world.say(Msg::Wake);
    assert_eq!(matters(&world), before, "nobody has become silent");
    let screen = world.screen();
    assert!(line(&screen, "3 processes").contains("OVER"), "{screen}");
    assert!(!screen.contains("SILENT"), "{screen}");
    world.say(Msg::Wake);
    assert_eq!(wake(&world.model), None, "nothing changes any more");
}

#[test]
fn v6_how_large_a_terminal_must_be_is_read_on_a_small_one() {
    let mut world = World::new((20, 5), false);
    let screen = world.screen();
    let words: Vec<_> = screen.split_whitespace().collect();
    let text = "terminal too small: 20x5, need 60x16 (q quits)";
    assert_eq!(words.join(" "), text);
}

#[test]
fn v6_on_a_narrow_terminal_the_states_that_some_branch_is_in_are_told() {
    let mut world = World::new((60, 16), false);
    let screen = world.screen();
    assert!(
        line(&screen, "34 branches").contains("fail 1  drain 1"),
        "{screen}"
    );
    let mut wide = World::new((120, 40), false);
    assert!(wide.screen().contains("idle 1"));
}

#[test]
fn v6_the_help_names_its_own_keys_below() {
    let mut world = World::new((80, 24), false);
    world.press("7?");
    let screen = world.screen();
    let keys = screen.lines().last().unwrap_or_default().trim();
    assert_eq!(keys, "j/k move  / search  esc back");
}

#[test]
fn v6_a_chart_of_nothing_has_no_halves() {
    let mut world = World::empty((80, 24), false);
    world.found(&["idle"]);
    world.welcome(0, world::process("idle", 1, NOW), &[]);
    world.hear(0, world::pipe(1, "ingest"));
    world.tick(
        0,
        vec![Totals {
            p: 1,
            ..Totals::default()
        }],
        vec![],
    );
    let screen = world.screen();
    let axis: Vec<_> = screen
        .lines()
        .filter_map(|line| line.split_once(['│', '└']))
        .map(|(label, _)| label.trim())
        .filter(|label| !label.is_empty())
        .collect();
    assert_eq!(axis, ["1", "0"], "{screen}");
}

#[test]
fn v6_an_error_is_told_once_and_what_an_undo_action_raised_beside_it() {
    let mut world = World::new((120, 40), false);
    world.press("\n:go hooli\n\n");
    assert!(
        world
            .screen()
            .contains("release_lease  OSError: no space left"),
        "{}",
        world.screen()
    );
}

#[test]
fn v6_an_outbox_whose_worker_rests_or_that_is_paused_says_so() {
    let mut world = World::new((120, 40), false);
    let store = |name: &str, resting: bool, paused: &[&str]| Store {
        store: Text::new(name),
        state: Text::new("up"),
        ready: 3,
        workers: Some(u64::from(!resting)),
        paused: paused.iter().map(|it| Text::new(it)).collect(),
        resting,
        ..Store::default()
    };
    let r = vec![
        store("acme-db", true, &[]),
        store("edge-db", false, &["mail", "order.*"]),
        store("hooli-db", false, &["*"]),
    ];
    world.hear(0, Outbox { more: false, r });
    let told = matters(&world);
    for what in [
        "acme-db outbox does not work: its worker leaves it alone for a while",
        "edge-db outbox: paused mail, order.*",
        "hooli-db outbox: paused *",
    ] {
        assert!(told.contains(&what.to_owned()), "{told:?}");
    }
    world.press("5");
    let screen = world.screen();
    let words = |name: &str| -> Vec<String> {
        let row = line(&screen, name).split_whitespace();
        row.filter(|it| *it != "▸").map(str::to_owned).collect()
    };
    let rows = screen
        .lines()
        .filter(|it| it.contains("-db") && !it.contains("dead letters"));
    assert_eq!(rows.count(), 3, "{screen}");
    assert_eq!(
        (&*words("acme-db")[1], &*words("acme-db")[7]),
        ("rest", "0"),
        "{screen}"
    );
    assert_eq!(
        (&*words("edge-db")[1], &*words("edge-db")[7]),
        ("part", "1"),
        "{screen}"
    );
    assert_eq!(words("hooli-db")[1], "paus", "{screen}");
    assert!(screen.contains("its worker here rests"), "{screen}");
    world.press("j");
    assert!(
        world.screen().contains("paused: mail, order.*"),
        "{}",
        world.screen()
    );
}
