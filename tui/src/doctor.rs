//! `anabranch doctor`: whether processes can be found here, and why not.

use std::fmt::Write;
use std::path::Path;

use anabranch_protocol::message::Right;
use anabranch_protocol::place::{Name, VARIABLE, fits};

use crate::Exit;
use crate::cli::say;
use crate::find::{directories, look, processes};
use crate::session::{Failed, Session};

/// Looks, and tells. What is wrong makes it fail.
pub(crate) fn run() -> Exit {
    let mut text = String::new();
    let mut wrong = 0;
    let mut tell = |good: bool, what: &str| {
        wrong += u32::from(!good);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {what}", if good { "ok  " } else { "WRONG" });
    };
    let directories = directories();
    for (index, directory) in directories.iter().enumerate() {
        examine(directory, index == 0, directories.len() > 1, &mut tell);
    }
    for found in processes() {
        let who = format!("{}[{}] at {}", found.marker.name, found.name.pid, found.at);
        match Session::open(&found.at, "anabranch-doctor", &[Right::Observe]) {
            Ok(session) => {
                let proto = session.welcome().proto;
                tell(true, &format!("{who} answers, protocol {proto}"));
            }
            Err(Failed::Silent) => tell(
                false,
                &format!("{who} does not answer: it is stopped, or a child holds its socket"),
            ),
            Err(error) => tell(false, &format!("{who}: {error}")),
        }
    }
    let said = say(&text);
    if wrong > 0 { Exit::Failed } else { said }
}

fn examine(directory: &Path, first: bool, others: bool, tell: &mut impl FnMut(bool, &str)) {
    let shown = directory.display();
    let longest = Name {
        pid: u32::MAX,
        random: u32::MAX,
    };
    if !fits(&longest.socket(directory)) {
        let instead = if others {
            "; sockets are made in the next one"
        } else {
            ""
        };
        tell(
            others,
            &format!("{shown} is too long for sockets{instead}; {VARIABLE} names another"),
        );
    }
    match look(directory) {
        Ok((alive, dead)) => {
            let left = match dead {
                0 => String::new(),
                _ => format!(", {dead} dead: the next process to begin removes what they left"),
            };
            tell(true, &format!("{shown}: {} alive{left}", alive.len()));
        }
        Err(error) if error.is_missing() => {
            if first {
                tell(
                    true,
                    &format!("{shown} is not there yet: the first process makes it"),
                );
            }
        }
        Err(error) => tell(false, &error.to_string()),
    }
}
