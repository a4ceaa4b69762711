//! The dashboard on sockets that are named, without anything around it; and something to look at.
//!
//! ```text
//! dashboard top PATH...     shows the processes at these sockets
//! dashboard replay FILE     shows a recording
//! dashboard record FILE PATH...
//! dashboard serve PATH [BRANCHES]   answers at a socket, as a monitor does
//! dashboard panic           panics on the terminal
//! ```

#[path = "../tests/server/mod.rs"]
mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anabranch_tui::app::Begin;
use anabranch_tui::top::{Options, Source, top};
use anabranch_tui::{At, term};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["top", paths @ ..] => show(live(paths, None)),
        ["record", file, paths @ ..] => show(live(paths, Some(file))),
        ["replay", file] => show(Source::Recording(file.into(), 1.0)),
        ["serve", path, branches @ ..] => {
            let branches = branches.first().map_or(8, |it| it.parse().unwrap_or(8));
            let shared = Arc::new(server::Shared::default());
            let _monitor = server::Monitor::listen(path.as_ref(), 1, branches, shared);
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        ["panic"] => {
            let result = term::run(|terminals| -> std::io::Result<()> {
                terminals.screen.draw(|frame| {
                    frame.buffer_mut().set_string(
                        0,
                        0,
                        "about to panic",
                        ratatui::style::Style::new(),
                    );
                })?;
                std::thread::sleep(Duration::from_millis(300));
                panic!("on purpose")
            });
            if result.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        _ => ExitCode::from(2),
    }
}

fn live(paths: &[&str], record: Option<&str>) -> Source {
    Source::Live {
        targets: paths
            .iter()
            .map(|path| ((*path).to_owned(), At::Unix(path.into())))
            .collect(),
        find: None,
        record: record.map(Into::into),
    }
}

fn show(source: Source) -> ExitCode {
    let options = Options {
        source,
        begin: Begin {
            session: std::process::id().to_string(),
            ..Begin::default()
        },
        mouse: false,
        warnings: vec![],
        panic: false,
    };
    match top(options) {
        Ok(exit) => exit.into(),
        Err(_) => ExitCode::FAILURE,
    }
}
