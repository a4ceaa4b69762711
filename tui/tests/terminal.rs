//! The dashboard on a real terminal: what it draws, how fast it answers, and how it leaves.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "in a test a panic is the right answer, and this one waits for real processes"
)]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};

fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/dashboard")
}

struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    /// Everything the dashboard has written.
    bytes: Arc<Mutex<Vec<u8>>>,
    /// What of it is on the screen now.
    screen: Arc<Mutex<vt100::Parser>>,
    before: String,
}

impl Terminal {
    fn new(arguments: &[&str], size: (u16, u16)) -> Self {
        let (cols, rows) = size;
        let pair = native_pty_system()
            .openpty(PtySize {
                rows,
                cols,
                pixel_width: 0,
                pixel_height: 0,
            })
            .unwrap();
        let mut command = CommandBuilder::new(example());
        command.args(arguments);
        command.env("TERM", "xterm-256color");
        let before = mode(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let writer = pair.master.take_writer().unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let parser = vt100::Parser::new(rows.try_into().unwrap(), cols.try_into().unwrap(), 0);
        let screen = Arc::new(Mutex::new(parser));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 16384];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..read]);
                shown.lock().unwrap().process(&buffer[..read]);
            }
        });
        Self {
            master: pair.master,
            writer,
            child,
            bytes,
            screen,
            before,
        }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Waits until the screen shows a text, and tells how long that took.
    fn shows(&self, text: &str) -> Duration {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if self.screen().contains(text) {
                return begun.elapsed();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{text:?} never came:\n{}", self.screen());
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.process_id().unwrap()), signal).unwrap();
    }

    /// Waits for the end, and sees that the terminal is as it was.
    fn ended(mut self) -> portable_pty::ExitStatus {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        // What it wrote last is on its way.
        std::thread::sleep(Duration::from_millis(50));
        let bytes = self.bytes.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for (on, off) in [
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?2004h", "\x1b[?2004l"),
        ] {
            let (on_at, off_at) = (text.rfind(on), text.rfind(off));
            assert!(
                on_at.is_some() && off_at > on_at,
                "{off:?} does not come last"
            );
        }
        for mouse in ["\x1b[?1000l", "\x1b[?1006l"] {
            assert!(text.contains(mouse), "{mouse:?} is missing");
        }
        let after = mode(&*self.master);
        assert_eq!(
            format!("{:?}", self.before),
            format!("{after:?}"),
            "the mode"
        );
        status
    }
}

/// The mode of the terminal, which its two ends share.
fn mode(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// A monitor in a process of its own, and where it answers.
struct Target {
    child: Child,
    path: String,
}

impl Target {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ab-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let path = path.to_str().unwrap().to_owned();
        let child = std::process::Command::new(example())
            .args(["serve", &path])
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !std::path::Path::new(&path).exists() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, path }
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn begun(name: &str) -> (Target, Terminal) {
    let target = Target::new(name);
    let terminal = Terminal::new(&["top", &target.path], (100, 30));
    terminal.shows("ingest");
    (target, terminal)
}

#[test]
fn v8_q_gives_the_terminal_back() {
    let (_target, mut terminal) = begun("q");
    terminal.press("\r");
    terminal.shows("tenant-1 ");
    terminal.press("m");
    terminal.shows("mouse on");
    terminal.press("q");
    assert!(terminal.ended().success());
}

#[test]
fn v6_another_size_is_drawn_at_once_and_the_cursor_stays() {
    let (_target, mut terminal) = begun("size");
    terminal.press("\rjj");
    terminal.shows("▸ tenant-3 ");
    for (cols, rows) in [(60, 16), (50, 10), (130, 40)] {
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        let parser = &mut *terminal.screen.lock().unwrap();
        let (rows, cols) = (rows.try_into().unwrap(), cols.try_into().unwrap());
        *parser = vt100::Parser::new(rows, cols, 0);
        terminal.master.resize(size).unwrap();
    }
    terminal.shows("compensations (reverse order)");
    terminal.shows("▸ tenant-3 ");
    terminal.press("q");
    assert!(terminal.ended().success());
}

#[test]
fn v8_signals_give_the_terminal_back_and_end_the_process() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let (_target, terminal) = begun(&format!("{signal:?}"));
        terminal.signal(signal);
        assert!(!terminal.ended().success(), "it ends as the signal has it");
    }
}

#[test]
fn v8_a_panic_gives_the_terminal_back_before_it_is_told() {
    let terminal = Terminal::new(&["panic"], (80, 24));
    terminal.shows("about to panic");
    let bytes = Arc::clone(&terminal.bytes);
    assert!(!terminal.ended().success());
    let bytes = bytes.lock().unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.find("on purpose") > text.find("\x1b[?1049l"),
        "{text:?}"
    );
}

#[test]
fn v8_the_death_of_the_target_ends_nothing() {
    let (target, mut terminal) = begun("death");
    terminal.press("\r");
    terminal.shows("tenant-1 ");
    target.signal(Signal::KILL);
    terminal.shows("LOST");
    terminal.shows("tenant-1 ");
    terminal.press("q");
    assert!(terminal.ended().success());
}

#[test]
fn v8_stopped_by_the_shell_it_leaves_and_comes_back() {
    let (_target, mut terminal) = begun("stop");
    let raw = mode(&*terminal.master);
    terminal.press("\x1a");
    let begun = Instant::now();
    // What it wrote before is read a little later.
    while mode(&*terminal.master) == raw || terminal.screen().contains("LIVE") {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it keeps the terminal"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    // It may not be stopped yet, and then the signal is lost.
    while !terminal.screen().contains("LIVE") {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it does not come back"
        );
        terminal.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.press("q");
    assert!(terminal.ended().success());
}

#[test]
fn v7_keys_are_answered_while_the_target_is_stopped_killed_or_coming_back() {
    let (target, mut terminal) = begun("keys");
    let mut slowest = Duration::ZERO;
    let mut answer = |terminal: &mut Terminal| {
        for (key, text) in [
            ("?", "esc leaves"),
            ("?", "in/s, last"),
            ("7", "log   from"),
            ("1", "in/s, last"),
        ] {
            terminal.press(key);
            slowest = slowest.max(terminal.shows(text));
            // The whole frame, of which that was a part.
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    target.signal(Signal::STOP);
    terminal.shows("SILENT");
    answer(&mut terminal);
    target.signal(Signal::CONT);
    terminal.shows("LIVE");
    target.signal(Signal::KILL);
    terminal.shows("LOST");
    answer(&mut terminal);
    // The machine may be slow; a dashboard that waits for the target takes seconds.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    terminal.press("q");
    assert!(terminal.ended().success());
}
