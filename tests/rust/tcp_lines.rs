//! The line server over real sockets on loopback: framing, ends, limits, back-pressure.
//!
//! Nothing here sleeps: a test waits for what it wants to see, up to a deadline far longer than
//! that ever takes.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod line_server;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anabranch::inbox::Inbox;
use anabranch::source::tcp::{TcpOptions, TcpSource, Until};
use anabranch_core::channel::Taken;
use anabranch_core::framing::Event;

use line_server::{DEADLINE, Server, options};

#[test]
fn e9_lines_arrive_whole_however_they_were_sent() {
    let server = Server::start(options());
    let mut client = server.connect();
    let lines: Vec<_> = (0..500)
        .map(|n| format!("acme\t{n}\t{}", "x".repeat(n)))
        .collect();
    let stream = lines.join("\r\n");
    let (mut rest, mut size) = (stream.as_bytes(), 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        client.say(chunk);
        (rest, size) = (after, size * 7 % 1009 + 1);
    }
    client.finish();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.as_bytes().escape_ascii().to_string())
        .collect();
    assert_eq!(
        server.events(500),
        lines,
        "the last has no terminator, but a clean end"
    );
    client.gone();
    server.close();
}

#[test]
fn a_delivery_names_the_other_end() {
    let server = Server::start(options());
    let mut client = server.connect();
    client.say(b"hello\n");
    let delivery = server.next().expect("a line");
    assert_eq!(*delivery.peer, *client.address().to_string());
    server.close();
}

#[test]
fn a_reset_truncates_the_line_it_cuts_and_no_other() {
    let server = Server::start(options());
    let mut client = server.connect();
    client.say(b"one\ntw");
    assert_eq!(
        server.events(1),
        ["one"],
        "what was sent with it has been read, too"
    );
    client.reset(&server.runtime);
    assert_eq!(server.events(1), ["!source.truncated 2"]);
    let whole = server.connect();
    (&whole.0).write_all(b"one\n").expect("the server reads");
    assert_eq!(server.events(1), ["one"]);
    whole.reset(&server.runtime);
    server.source.drain();
    assert_eq!(server.rest(), Vec::<String>::new(), "nothing was cut");
}

#[test]
fn a_bad_line_fails_alone_and_its_connection_goes_on() {
    let server = Server::start(TcpOptions {
        max_line: 8,
        ..options()
    });
    let mut client = server.connect();
    client.say(b"12345678\r\n123456789\nb\xffd\n");
    client.say(&b"x".repeat(200_000));
    client.say(b"\nok\n");
    let events = [
        "12345678",
        "!source.line_too_long 9",
        "!source.invalid_utf8 3",
        "!source.line_too_long 200000",
        "ok",
    ];
    assert_eq!(server.events(5), events);
    server.close();
}

#[test]
fn beyond_max_connections_clients_wait_until_one_leaves() {
    let server = Server::start(TcpOptions {
        max_connections: 1,
        ..options()
    });
    let mut first = server.connect();
    first.say(b"first\n");
    assert_eq!(server.events(1), ["first"]);
    let mut second = server.connect();
    second.say(b"second\n");
    second.finish();
    for _ in 0..100 {
        first.say(b"still here\n");
        assert_eq!(server.events(1), ["still here"]);
    }
    first.finish();
    assert_eq!(server.events(1), ["second"]);
    server.close();
}

#[test]
fn a_silent_client_is_closed_and_fails_only_in_the_middle_of_a_line() {
    let idle_timeout = Some(Duration::from_millis(30));
    let server = Server::start(TcpOptions {
        idle_timeout,
        ..options()
    });
    server.connect().gone();
    let mut client = server.connect();
    client.say(b"one\ntw");
    client.gone();
    assert_eq!(server.events(2), ["one", "!source.truncated 2"]);
    server.close();
}

#[test]
fn a_full_inbox_stops_the_sender_and_loses_nothing() {
    let server = Server::with_inbox(10, options());
    let mut client = server.connect();
    // A write that gets nowhere for this long proves that nobody reads.
    client
        .0
        .set_write_timeout(Some(Duration::from_millis(300)))
        .expect("a deadline");
    let block: Vec<u8> = (0..1000)
        .flat_map(|_| [b"x".repeat(99), b"\n".to_vec()].concat())
        .collect();
    let mut sent = 0;
    loop {
        assert!(sent < 1 << 30, "no buffer holds that much");
        match client.0.write(&block[sent % block.len()..]) {
            Ok(written) => sent += written,
            Err(error) => {
                let kind = error.kind();
                assert!(
                    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                    "{kind}"
                );
                break;
            }
        }
    }
    let one_read = 64 * 1024 / 100 + 1;
    assert!(
        server.inbox.len() <= one_read,
        "one batch, which is heavier than the inbox holds"
    );

    client
        .0
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    let whole_blocks = sent.next_multiple_of(block.len());
    let writer = thread::spawn(move || {
        client.say(&block[block.len() - (whole_blocks - sent)..]);
        client
    });
    let total = whole_blocks / 100;
    let lines = server.events(total);
    assert_eq!(lines.len(), total);
    assert!(lines.iter().all(|line| line.len() == 99), "none was torn");
    drop(writer.join().expect("it got rid of everything"));
    server.close();
}

#[test]
fn draining_cuts_what_is_unfinished_and_ends() {
    let server = Server::start(options());
    let (mut busy, quiet) = (server.connect(), server.connect());
    busy.say(b"one\ntw");
    assert_eq!(server.events(1), ["one"]);
    server.source.drain();
    assert_eq!(server.rest(), ["!source.truncated 2"]);
    let refused = TcpStream::connect(server.source.address()).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
    drop(quiet);
    server.close();
}

#[test]
fn draining_delivers_what_has_been_read_once_there_is_room() {
    let server = Server::with_inbox(1, options());
    let mut client = server.connect();
    client.say(b"one\ntwo\nthr");
    server
        .ears
        .recv_timeout(DEADLINE)
        .expect("the first two lines are inside");
    server.source.drain();
    assert_eq!(server.rest(), ["one", "two", "!source.truncated 3"]);
}

#[test]
fn closing_aborts_whoever_waits_for_room() {
    let server = Server::with_inbox(1, options());
    let mut client = server.connect();
    client.say(b"one\n");
    assert_eq!(server.events(1), ["one"]);
    // Having found nothing more, the driver is woken by the next. It may have been woken by the
    // first, too, and have found it before it listened.
    assert!(matches!(server.inbox.take(), Taken::Empty));
    let _ = server.ears.try_recv();
    client.say(b"two\n");
    server.ears.recv_timeout(DEADLINE).expect("two is inside");
    client.say(b"three\n");
    assert!(server.source.close(DEADLINE));
    assert_eq!(server.rest(), ["two"]);
    client.gone();
}

#[test]
fn dropping_the_source_or_its_runtime_ends_the_inbox() {
    let Server {
        source,
        inbox,
        ears,
        runtime,
    } = Server::start(options());
    drop(source);
    ears.recv_timeout(DEADLINE).expect("the end wakes");
    assert!(matches!(inbox.take(), Taken::Ended));
    drop(runtime);

    let Server {
        source,
        inbox,
        ears,
        runtime,
    } = Server::start(options());
    drop(runtime);
    ears.recv_timeout(DEADLINE).expect("the end wakes");
    assert!(matches!(inbox.take(), Taken::Ended));
    assert!(source.close(Duration::ZERO));
}

#[test]
fn until_disconnected_it_serves_all_who_came_even_those_still_waiting() {
    let until = Until::Disconnected;
    let server = Server::start(TcpOptions {
        until,
        max_connections: 1,
        ..options()
    });
    let clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for (n, client) in clients.iter().enumerate() {
        writeln!(&client.0, "{n}").expect("the backlog takes it");
    }
    drop(clients);
    assert_eq!(server.rest(), ["0", "1", "2", "3", "4"]);
}

#[test]
fn after_its_time_it_drains() {
    let until = Until::After(Duration::from_millis(50));
    let server = Server::start(TcpOptions { until, ..options() });
    let mut client = server.connect();
    assert_eq!(server.rest(), Vec::<String>::new());
    client.gone();
}

#[test]
fn an_address_that_cannot_be_bound_is_an_error_at_the_start() {
    let server = Server::start(options());
    let port = server.source.address().port();
    let start = |options| {
        let inbox = Arc::new(Inbox::new(1, Box::new(|| ())));
        TcpSource::start(server.runtime.handle(), options, inbox).map_err(|error| error.kind())
    };
    let taken = start(TcpOptions { port, ..options() });
    assert_eq!(taken.err(), Some(io::ErrorKind::AddrInUse));
    let foreign = start(TcpOptions {
        host: "192.0.2.1".to_owned(),
        ..options()
    });
    assert_eq!(foreign.err(), Some(io::ErrorKind::AddrNotAvailable));
    server.close();
}

#[test]
fn eight_connections_at_once_lose_and_reorder_nothing() {
    const LINES: usize = 100_000;
    let server = Server::start(TcpOptions {
        until: Until::Disconnected,
        ..options()
    });
    let writers: Vec<_> = (0..8)
        .map(|n| {
            // All connect before the first can be done.
            let mut client = server.connect();
            thread::spawn(move || {
                let line = |line| format!("{n}\t{line}\tsome forty bytes of a line of log\n");
                let stream = (0..LINES).map(line).collect::<Vec<_>>().concat();
                stream
                    .as_bytes()
                    .chunks(10_007 + n)
                    .for_each(|chunk| client.say(chunk));
                client.address().to_string()
            })
        })
        .collect();
    let mut next: HashMap<String, usize> = HashMap::new();
    while let Some(delivery) = server.next() {
        let next = next.entry(delivery.peer.to_string()).or_default();
        for event in &delivery.lines {
            let Event::Line(line) = event else {
                panic!("{event:?}")
            };
            let number = line.split(|&byte| byte == b'\t').nth(1);
            assert_eq!(number, Some(next.to_string().as_bytes()));
            *next += 1;
        }
    }
    for writer in writers {
        let peer = writer.join().expect("everything was read");
        assert_eq!(next.remove(&peer), Some(LINES));
    }
}
