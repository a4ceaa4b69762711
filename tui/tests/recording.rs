//! Sessions that are written down, and told again.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the right answer")]

mod world;

use std::path::PathBuf;
use std::sync::mpsc;

use anabranch_tui::app::Msg;
use anabranch_tui::conn::{Event, Target, TargetId};
use anabranch_tui::record::{Recorder, read, replay};
use anabranch_tui::top::Bell;
use anabranch_tui::{At, app};
use world::World;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ab-{}-{name}.rec", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn target() -> Target {
    Target {
        id: TargetId(0),
        label: "orders-svc".to_owned(),
        at: At::Unix("/run/orders-svc.sock".into()),
    }
}

#[test]
fn v9_a_recording_that_is_told_again_shows_the_same() {
    let path = scratch("same");
    let recorder = Recorder::create(&path).unwrap();
    let mut world = World::empty((80, 24), true);
    world.found(&["orders-svc"]);
    let story = world.story(|world| world.orders(world::TENANTS.iter().map(|it| it.0)));
    for (at, event) in &story {
        recorder.write(&target(), event, *at);
    }
    let lost = Event::Lost {
        why: "gone".to_owned(),
        again: None,
    };
    recorder.write(&target(), &lost, world.now);
    world.lose(0, "gone", None);
    drop(recorder);

    let (said, told) = mpsc::sync_channel(100_000);
    let (bell, _ear) = Bell::new().unwrap();
    let (_stop, stopped) = mpsc::sync_channel(0);
    replay(read(&path).unwrap(), 1000.0, &said, &bell, &stopped);
    drop(said);
    let mut again = World::empty((80, 24), true);
    let mut over = false;
    let times = story.iter().map(|(at, _)| *at);
    let mut times = std::iter::once(again.now)
        .chain(times)
        .chain(std::iter::repeat(world.now));
    for message in told {
        over |= matches!(&message, Msg::Over);
        if !matches!(message, Msg::Over) {
            app::update(&mut again.model, message, times.next().unwrap());
        }
    }
    assert!(over, "it says that it is over");
    for keys in ["", "\n", "3", "4", "5", "6", "7"] {
        world.press(keys);
        again.press(keys);
        assert_eq!(again.screen(), world.screen(), "after {keys:?}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn v9_what_is_no_recording_is_refused_and_what_is_broken_is_left_out() {
    let path = scratch("broken");
    std::fs::write(&path, "{\"t\":\"hello\"}\n").unwrap();
    let error = read(&path).err().unwrap().to_string();
    assert!(error.ends_with("is no recording of a dashboard"), "{error}");
    let text = "{\"anabranch\":\"recording\",\"v\":1}\nnot json\n{\"at\":1}\n\
                {\"at\":5,\"n\":0,\"label\":\"a\\u001b[2J\",\"lost\":\"x\"}\n{\"at\":6,\"n\":0,";
    std::fs::write(&path, text).unwrap();
    assert_eq!(read(&path).unwrap().count(), 1);
    let error = Recorder::create(&path).unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::AlreadyExists,
        "nothing is overwritten"
    );
    let told = format!("{} is there already: name another file", path.display());
    assert_eq!(error.to_string(), told);
    std::fs::remove_file(path).unwrap();
}
