//! What is asked back before a command, and what is told of it after.

use std::io::{IsTerminal, Write};

use anabranch_protocol::message::{Code, Done, Failure};
use serde_json::json;

use super::aim::{Aim, named};
use super::letters::payload;
use super::{Order, Stopped};
use crate::Exit;
use crate::cli::{complain, say};
use crate::session::{At, Failed};
use crate::store::Store;

/// Asks for the name of what is about to be done.
pub(super) fn confirm(store: &Store, aim: &Aim, done: &Done) -> Result<(), Exit> {
    let who = named(store, aim);
    if !std::io::stdin().is_terminal() {
        complain(&format!(
            "{} of {who} is not done unasked: add --yes",
            aim.op
        ));
        return Err(Exit::Usage);
    }
    let mut out = std::io::stderr().lock();
    // If the question cannot be read, the answer will not be the name.
    let _ = write!(
        out,
        "{}: {}\nType {:?} to confirm: ",
        aim.op, done.msg, aim.label
    );
    let _ = out.flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim_end_matches('\n') == aim.label {
        return Ok(());
    }
    complain("nothing was done");
    Err(Exit::Failed)
}

/// Prints what came of it.
pub(super) fn tell(store: &Store, aim: &Aim, order: &Order, done: &Done, dry: bool) -> Exit {
    let exit = match &done.err {
        None => Exit::Ok,
        Some(failure) => refused(failure),
    };
    let letter = payload(store, aim).filter(|_| done.ok);
    if order.json {
        let process = store.process(aim.process).and_then(|it| it.info.as_ref());
        let line = json!({
            "op": aim.op,
            "process": process,
            "on": aim.on,
            "target": aim.label,
            "dry": dry,
            "ok": done.ok,
            "n": done.n,
            "skipped": done.skipped,
            "msg": done.msg,
            "payload": letter,
            "err": done.err,
        });
        say(&format!("{line}\n"));
    } else if let Some(failure) = &done.err {
        complain(&format!(
            "{}: {} ({})",
            aim.label, failure.msg, failure.code
        ));
    } else {
        let begin = if dry { "dry run: " } else { "" };
        say(&format!("{begin}{}: {}\n", aim.label, done.msg));
        if let Some(letter) = letter {
            say(&format!("{letter}\n"));
        }
    }
    exit
}

const fn refused(failure: &Failure) -> Exit {
    match failure.code {
        Code::ReadOnly => Exit::Refused,
        Code::Timeout => Exit::Lost,
        _ => Exit::Failed,
    }
}

pub(super) fn late(at: &At, stopped: Stopped) -> Exit {
    match stopped {
        Stopped::Failed(error) => lost(at, &error),
        Stopped::Late(taken) => {
            let what = if taken {
                "it was taken on, and is not done yet"
            } else {
                "no answer"
            };
            complain(&format!("{at}: {what}"));
            Exit::Lost
        }
    }
}

pub(super) fn lost(at: &At, error: &Failed) -> Exit {
    complain(&format!("{at}: {error}"));
    match error {
        Failed::Refused(_) => Exit::Refused,
        _ => Exit::Lost,
    }
}
