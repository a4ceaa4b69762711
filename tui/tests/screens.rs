//! V6: each screen as text, in four sizes, in UTF-8 and in ASCII, and in states that are odd.

mod world;

use anabranch_tui::app::{Begin, Cmd, Msg};
use anabranch_tui::theme::{Role, Theme};
use ratatui::style::{Color, Modifier};
use world::World;

const SIZES: [(u16, u16); 4] = [(60, 16), (80, 24), (120, 40), (200, 60)];

/// How each screen is reached from the first.
const SCREENS: [(&str, &str); 9] = [
    ("pipes", ""),
    ("branches", "\n"),
    ("windows", "3"),
    ("compensations", "4"),
    ("outbox", "5"),
    ("errors", "6"),
    ("log", "7"),
    ("help", "?"),
    ("detail", "\nj\n"),
];

#[test]
fn v6_each_screen_in_each_size() {
    for (name, keys) in SCREENS {
        for size in SIZES {
            for ascii in [true, false] {
                let mut world = World::new(size, ascii);
                world.press(keys);
                if name == "detail" {
                    world.press("\u{1b}kk");
                    world.press("gj\n");
                }
                let form = if ascii { "ascii" } else { "utf8" };
                let (width, height) = size;
                insta::assert_snapshot!(format!("{name}-{width}x{height}-{form}"), world.screen());
            }
        }
    }
}

/// A screen in a state that is odd, at 80 columns and with panes.
fn odd(name: &str, size: (u16, u16), world: &mut World) {
    let (width, height) = size;
    insta::assert_snapshot!(format!("{name}-{width}x{height}"), world.screen());
}

#[test]
fn v6_states_that_are_odd() {
    for size in [(80, 24), (120, 40)] {
        let mut world = World::empty(size, false);
        odd("empty", size, &mut world);
        world.found(&["orders-svc"]);
        odd("connecting", size, &mut world);

        let mut world = World::new(size, false);
        world.press("\n");
        world.lose(0, "connection reset by peer", Some(world::NOW + 400));
        odd("lost", size, &mut world);

        let mut world = World::new(size, false);
        world.press("\n ");
        world.now += 12_000;
        world.say(Msg::Wake);
        world.tick(0, vec![], vec![]);
        odd("frozen", size, &mut world);

        let read_only = Begin {
            read_only: true,
            ..Begin::default()
        };
        let mut world = World::begun(size, read_only);
        world.people();
        world.press("\na");
        odd("read-only", size, &mut world);

        let mut world = World::empty(size, false);
        world.found(&["orders-svc"]);
        world.seconds = 4;
        world.orders((0..10_000).map(|it| format!("tenant-{it:05}")));
        world.press("\nG");
        odd("many", size, &mut world);

        let mut world = World::empty(size, false);
        world.found(&["orders-svc"]);
        world.orders([
            "東京都水道局の顧客番号",
            "👩‍🚀 crew",
            "a\u{300}e\u{301} marks",
            "\u{200b}zero\u{200d}width",
            "\u{1b}[31mred\u{202e}",
            "ﷺ wide",
            "",
        ]);
        world.press("\n");
        odd("names", size, &mut world);
    }
}

#[test]
fn v6_dialogs() {
    for (name, keys) in [
        ("menu", "\na"),
        ("menu-frozen", "\n a"),
        ("pause", "\njP"),
        ("drain", "\nD"),
        ("drain-marked", "\nxxD"),
        ("throttle", "\nT"),
        ("requeue", "5Q"),
        ("filter", "\n/st:!ok queue:>many"),
        ("palette", ":sort "),
    ] {
        let size = (80, 24);
        let mut world = World::new(size, true);
        world.press(keys);
        odd(name, size, &mut world);
    }
}

#[test]
fn v6_too_small_is_one_line() {
    let mut world = World::new((52, 12), true);
    let line = "terminal too small: 52x12, need 60x16 (q quits)";
    assert_eq!(world.screen().trim_end(), line);
    world.press("q");
    assert!(world.cmds.contains(&Cmd::Quit));
}

#[test]
fn v6_the_cursor_is_reverse_and_a_state_is_never_colour_alone() {
    for theme in Theme::ALL {
        let mut world = World::begun(
            (80, 24),
            Begin {
                theme,
                ..Begin::default()
            },
        );
        world.people();
        world.press("\nj");
        let buffer = world.buffer();
        let line = |y: u16| (0..80).all(|x| buffer[(x, y)].modifier.contains(Modifier::REVERSED));
        let reversed: Vec<u16> = (0..24).filter(|y| line(*y)).collect();
        assert_eq!(
            reversed,
            [6],
            "{}: the cursor, and nothing else",
            theme.name()
        );
        if theme == Theme::Mono {
            let plain = buffer.content.iter().all(|cell| cell.fg == Color::Reset);
            assert!(plain, "no colour at all");
        }
        // What colours say is in the text, too.
        let text = world::text(&buffer);
        for word in ["full", "fail", "paus", "drn", "run"] {
            assert!(text.contains(word), "{word}");
        }
    }
}

#[test]
fn v6_roles_have_their_colours() {
    let table = [
        (Theme::Ansi, Role::Bad, Some(Color::Red)),
        (Theme::Ansi, Role::Good, Some(Color::Green)),
        (Theme::ColourBlind, Role::Bad, Some(Color::LightMagenta)),
        (Theme::ColourBlind, Role::Good, Some(Color::LightBlue)),
        (Theme::Mono, Role::Bad, None),
        (Theme::Light, Role::Warn, Some(Color::Indexed(130))),
        (Theme::Dark, Role::Data, Some(Color::Indexed(75))),
    ];
    for (theme, role, colour) in table {
        assert_eq!(theme.style(role).fg, colour, "{} {role:?}", theme.name());
    }
    let set = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        Theme::default_for(move |it| (it == name).then(|| value.clone().into()))
    };
    assert_eq!(set("NO_COLOR", "1"), Theme::Mono);
    assert_eq!(set("NO_COLOR", ""), Theme::Ansi);
    assert_eq!(set("TERM", "dumb"), Theme::Mono);
}
