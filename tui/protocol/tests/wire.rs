//! Messages as they are on the wire: in both directions, with what a newer version may add, and
//! with what nobody should send.

mod any;

use anabranch_protocol::message::{Cmd, Done, Hello, Op, Rows, Sub, Tick, Topic, Welcome};
use anabranch_protocol::row::{BranchKey, Cell};
use anabranch_protocol::{Client, Decoder, MAX_LINE, Server, Text, Versions, encode};
use proptest::prelude::*;

fn wire(message: &impl serde::Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    encode(message, &mut line).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(line.pop(), Some(b'\n'));
    assert!(!line.contains(&b'\n'), "a message is one line");
    line
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
    fn what_a_client_says_comes_back_as_it_was_written(message in any::client()) {
        prop_assert_eq!(Client::decode(&wire(&message)).unwrap(), message);
    }

    #[test]
    fn what_a_monitor_says_comes_back_as_it_was_written(message in any::server()) {
        prop_assert_eq!(Server::decode(&wire(&message)).unwrap(), message);
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped(message in any::server(), extra in any::json()) {
        let mut value: serde_json::Value = serde_json::from_slice(&wire(&message)).unwrap();
        value["from_the_future"] = extra;
        prop_assert_eq!(Server::decode(&wire(&value)).unwrap(), message);
    }

    #[test]
    fn dashboard_9_a_damaged_line_is_an_error_or_a_message_and_never_a_panic(
        message in any::server(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut line = wire(&message);
        for (place, byte) in damage {
            let place = place.index(line.len());
            line[place] = byte;
        }
        let _ = Server::decode(&line);
        let _ = Client::decode(&line);
    }

    #[test]
    fn dashboard_9_whatever_arrives_nothing_panics_and_little_is_kept(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        value in any::json(),
    ) {
        let mut decoder = Decoder::new(512);
        for piece in bytes.chunks(64).chain([&wire(&value)[..], b"\n"]) {
            decoder.push(piece);
            while let Ok(Some(line)) = decoder.line() {
                let _ = Server::decode(&line);
                let _ = Client::decode(&line);
            }
            prop_assert!(decoder.kept() <= 512 + 64 + wire(&value).len());
        }
    }

    #[test]
    fn dashboard_9_an_object_of_any_type_is_an_error_or_a_message(
        word in prop::sample::select(vec![
            "hello", "sub", "cmd", "welcome", "refuse", "pipe", "names", "rows", "tick", "stages",
            "detail", "wins", "comp", "outbox", "dead", "errors", "log", "ack", "prog", "done", "bye",
        ]),
        mut value in any::json(),
    ) {
        if let Some(object) = value.as_object_mut() {
            object.insert("t".to_owned(), word.into());
        }
        let line = wire(&value);
        let _ = Server::decode(&line);
        let _ = Client::decode(&line);
    }
}

#[test]
fn the_first_lines_read_as_the_specification_has_them() {
    let hello = Hello {
        proto: Versions(1, 1),
        client: Text::new("anabranch-top/0.1.0"),
        want: vec![],
        token: None,
    };
    let expected = r#"{"t":"hello","proto":[1,1],"client":"anabranch-top/0.1.0","want":[]}"#;
    assert_eq!(wire(&Client::from(hello)), expected.as_bytes());

    let sub = r#"{"t":"sub","id":1,"visible":[[0,17]],"topics":["totals","tea"]}"#;
    let expected = Sub {
        id: 1,
        visible: vec![BranchKey(0, 17)],
        topics: vec![Topic::Totals, Topic::Unknown],
        ..Sub::default()
    };
    assert_eq!(
        Client::decode(sub.as_bytes()).unwrap(),
        Client::Sub(expected)
    );

    let cmd =
        r#"{"t":"cmd","id":7,"op":"branch.drain","on":{"p":0,"branch":3},"if_gen":5,"key":"k"}"#;
    let Client::Cmd(Cmd {
        op, if_gen, dry, ..
    }) = Client::decode(cmd.as_bytes()).unwrap()
    else {
        panic!("not a command");
    };
    assert_eq!((op, if_gen, dry), (Op::BranchDrain, Some(5), false));
}

#[test]
fn what_is_newer_is_not_known_and_no_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_of_ours = format!(r#"{{"t":"prog","id":1,"left":2,"x":{deep}}}"#);
    assert!(matches!(
        Server::decode(deep_of_ours.as_bytes()),
        Ok(Server::Prog(_))
    ));
    let table = [r#"{"t":"sing"}"#, r#"{"t":"?"}"#, r#"{"t":"","x":[[[]]]}"#];
    for line in table {
        assert_eq!(
            Server::decode(line.as_bytes()).unwrap(),
            Server::Unknown,
            "{line}"
        );
        assert_eq!(
            Client::decode(line.as_bytes()).unwrap(),
            Client::Unknown,
            "{line}"
        );
    }
    let cmd = Client::decode(br#"{"t":"cmd","id":1,"op":"branch.tickle"}"#).unwrap();
    assert!(matches!(
        cmd,
        Client::Cmd(Cmd {
            op: Op::Unknown,
            ..
        })
    ));
}

#[test]
fn dashboard_9_odd_lines_are_told_from_messages() {
    let table: &[&[u8]] = &[
        b"{",
        b"[]",
        b"null",
        b"\"t\"",
        b"{}",
        br#"{"t":1}"#,
        br#"{"t":null}"#,
        b"\xff\xfe",
        br#"{"t":"hello"}"#,
        br#"{"t":"hello","proto":[1]}"#,
        br#"{"t":"hello","proto":[-1,1]}"#,
        br#"{"t":"hello","proto":[1,99999999999999999999]}"#,
        br#"{"t":"sub","id":"one"}"#,
        br#"{"t":"sub","id":1,"visible":[[0]]}"#,
        br#"{"t":"sub","id":1} trailing"#,
        br#"{"t":"cmd","id":1,"on":[]}"#,
        "{\"t\":\"\u{0}\"".as_bytes(),
        b"GET / HTTP/1.1",
    ];
    for line in table {
        let error =
            Client::decode(line).expect_err(&String::from_utf8_lossy(&line[..line.len().min(80)]));
        assert!(error.to_string().starts_with("not a message: "), "{error}");
    }
}

#[test]
fn names_are_cleaned_where_they_are_read() {
    let line = r#"{"t":"names","r":[[0,1,"a\u001b[2J\u202eb"],[0,2,"東京"]]}"#;
    let Server::Names(names) = Server::decode(line.as_bytes()).unwrap() else {
        panic!("not names");
    };
    assert_eq!(&*names.r[0].2, "a[2Jb");
    assert_eq!(&*names.r[1].2, "東京");
    let line = br#"{"t":"rows","seq":1,"r":[["\u0007x"]]}"#;
    let Server::Rows(rows) = Server::decode(line).unwrap() else {
        panic!("no rows");
    };
    assert_eq!(rows.r, [[Cell::Text(Text::new("x"))]]);
}

#[test]
fn the_largest_piece_of_a_table_fits_into_a_line() {
    use anabranch_protocol::row::{Branch, Columns, State};
    let branch = Branch {
        pipeline: u32::MAX,
        id: u32::MAX,
        generation: u32::MAX,
        state: State::Restarting,
        received: u64::MAX,
        committed: u64::MAX,
        failed: u64::MAX,
        dropped: u64::MAX,
        queued: u64::MAX,
        capacity: u64::MAX,
        window: Some(u64::MAX),
        window_size: Some(u64::MAX),
        window_age_ms: Some(u64::MAX),
        window_max_age_ms: Some(u64::MAX),
        blocked_ms: u64::MAX,
        in_flight: u64::MAX,
        retried: u64::MAX,
        compensations: u64::MAX,
        compensated: u64::MAX,
        dead_lettered: u64::MAX,
        windows: u64::MAX,
        last_error: Some(Text::new("")),
        last_error_at: Some(u64::MAX),
        since: u64::MAX,
        entered: u64::MAX,
        p50: Some(u64::MAX),
        p99: Some(u64::MAX),
        stuck: u64::MAX,
    };
    // What is left over is for the code of the last error.
    let row = Columns::default().write(&branch);
    let rows = Rows {
        seq: u64::MAX,
        full: true,
        more: true,
        r: vec![row; 400],
    };
    assert!(wire(&Server::from(rows)).len() < MAX_LINE);
}

#[test]
fn a_tick_and_a_welcome_need_little() {
    let tick = Server::decode(br#"{"t":"tick","seq":1,"ts":2}"#).unwrap();
    assert_eq!(
        tick,
        Server::Tick(Tick {
            seq: 1,
            ts: 2,
            ..Tick::default()
        })
    );
    let line = br#"{"t":"welcome","proto":1,"server":{"pid":1,"start":2},"caps":[],"cols":["id"]}"#;
    let Server::Welcome(Welcome { max_line, .. }) = Server::decode(line).unwrap() else {
        panic!("no welcome");
    };
    assert_eq!(max_line, MAX_LINE);
    let done =
        Server::decode(br#"{"t":"done","id":7,"ok":false,"err":{"code":"conflict"}}"#).unwrap();
    assert!(matches!(
        done,
        Server::Done(Done {
            ok: false,
            err: Some(_),
            ..
        })
    ));
}
