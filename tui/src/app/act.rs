//! What is done to the pipelines: which actions there are, on what, and when not.

use anabranch_protocol::message::{Arguments, Cmd as Wire, Done, Op, Right};

use super::aim::{Aim, aims};
use super::ask::Ask;
use super::focus::Focus;
use super::{Cmd, Model, OLD_MS, Screen};
use crate::conn::TargetId;
use crate::format;
use crate::keymap::Action;
use crate::store::ProcessId;

/// The actions of the menu, in its order.
pub const MENU: [Action; 10] = [
    Action::Pause,
    Action::Resume,
    Action::Drain,
    Action::Cancel,
    Action::Restart,
    Action::Throttle,
    Action::Retry,
    Action::Skip,
    Action::Requeue,
    Action::Discard,
];

/// Commands that are kept to be shown once they are over.
const SENT: usize = 64;

/// How long a command may take, in milliseconds.
const DEADLINE_MS: u64 = 30_000;

/// A command that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The command.
    pub cmd: Wire,
    /// The process it was sent to.
    pub process: ProcessId,
    /// How that is reached.
    pub target: TargetId,
    /// What it is about.
    pub label: String,
    /// When it was sent, in milliseconds since 1970.
    pub at: u64,
    /// When it ended, if it has.
    pub ended: Option<u64>,
    /// How it goes.
    pub state: State,
}

/// How it goes with a command.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It was sent.
    Asked,
    /// It was taken on.
    Accepted,
    /// So much is left, in items.
    Left(u64),
    /// It has ended.
    Done(Done),
    /// The process it was sent to is no more.
    Gone,
}

impl State {
    /// Whether no more is heard of it.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Gone)
    }
}

impl Sent {
    fn what(&self) -> String {
        format!("cmd {} {} {}", self.cmd.id, verb(self.cmd.op), self.label)
    }

    /// That what it has begun is not done yet, in a line.
    pub fn going(&self, left: u64) -> String {
        format!("{}: running, {} left", self.what(), format::count(left))
    }

    /// What became of it, in a line.
    pub fn line(&self, now: u64) -> String {
        let what = self.what();
        let left = (self.at + DEADLINE_MS).saturating_sub(now);
        let deadline = || format!("{} to deadline", format::span(left));
        let ended = || {
            let ago = self.ended.filter(|at| *at < now);
            ago.map_or_else(String::new, |at| format!(" {} ago", format::ago(now, at)))
        };
        match &self.state {
            State::Asked => format!("{what}: asked"),
            State::Accepted => format!("{what}: running, {}", deadline()),
            // What tells how far it is has no end that is due.
            State::Left(left) => self.going(*left),
            State::Done(done) => match &done.err {
                Some(failure) => format!("{what}: {} ({})", failure.msg, failure.code),
                None if done.msg.is_empty() => format!("{what} OK{}", ended()),
                None => format!("{what} OK{}: {}", ended(), done.msg),
            },
            State::Gone => format!("{what}: lost, the process is gone"),
        }
    }
}

/// An operation in a word.
pub fn verb(op: Op) -> &'static str {
    let word = op.word();
    word.split_once('.').map_or(word, |(_, verb)| verb)
}

/// The operation of an action on the screen that is shown.
pub fn operation(model: &Model, action: Action) -> Option<Op> {
    let pipeline = model.screen == Screen::Pipes;
    Some(match action {
        Action::Pause => Op::BranchPause,
        Action::Resume => Op::BranchResume,
        Action::Drain if pipeline => Op::PipelineDrain,
        Action::Drain => Op::BranchDrain,
        Action::Cancel if pipeline => Op::PipelineCancel,
        Action::Cancel => Op::BranchCancel,
        Action::Restart => Op::BranchRestart,
        Action::Throttle => Op::BranchThrottle,
        Action::Retry => Op::CompRetry,
        Action::Skip => Op::CompSkip,
        Action::Requeue => Op::DeadRequeue,
        Action::Discard => Op::DeadDiscard,
        _ => return None,
    })
}

/// Why an action cannot be begun now, if it cannot.
pub fn why_not(model: &Model, action: Action) -> Option<String> {
    let op = operation(model, action)?;
    if model.read_only {
        return Some("this dashboard is read-only".to_owned());
    }
    if model.frozen.is_some() {
        return Some("the screen is frozen".to_owned());
    }
    match aims(model, op) {
        Ok(aims) => aims.iter().find_map(|aim| refused(model, aim)),
        Err(why) => Some(why),
    }
}

/// Why nothing can be asked of a target now, if it cannot.
pub fn refused(model: &Model, aim: &Aim) -> Option<String> {
    let process = model.store.process(aim.process)?;
    if !process.is_live() {
        return Some(format!("{} is lost", process.label()));
    }
    if !process.rights.contains(&Right::Control) {
        return Some(format!("{} lets nobody act", process.label()));
    }
    let pipeline = aim.on.p.and_then(|p| process.pipelines.get(&p));
    if let Some(pipeline) = pipeline.filter(|it| !it.pipe.control) {
        return Some(format!("pipeline {} lets nobody act", pipeline.pipe.name));
    }
    match process.age(model.now) {
        Some(age) if age > OLD_MS => Some(format!("the data are {} old", format::span(age))),
        Some(_) => None,
        None => Some("no data yet".to_owned()),
    }
}

/// Asks whether an action is to be done, and what it would do.
pub fn begin(model: &mut Model, action: Action) -> Vec<Cmd> {
    let Some(op) = operation(model, action) else {
        return Vec::new();
    };
    if let Some(why) = why_not(model, action) {
        model.warn(format!("{}: {why}", action.name()));
        return Vec::new();
    }
    let Ok(aims) = aims(model, op) else {
        return Vec::new();
    };
    let mut ask = Ask::new(model, op, aims);
    let cmds = ask.dry_run(model);
    model.focus = Focus::Ask(Box::new(ask));
    cmds
}

/// Sends a command, and remembers it.
pub fn send(
    model: &mut Model,
    op: Op,
    aim: &Aim,
    args: Arguments,
    dry: bool,
) -> (u64, Option<Cmd>) {
    let id = model.number();
    let Some(target) = model.store.process(aim.process).map(|it| it.target) else {
        return (id, None);
    };
    let cmd = Wire {
        id,
        op,
        on: aim.on.clone(),
        if_gen: aim.generation,
        args: Arguments {
            deadline_ms: Some(DEADLINE_MS),
            ..args
        },
        key: format!("{}-{id}", model.session),
        dry,
    };
    if model.sent.len() >= SENT {
        // One that is under way stays: its answer is still to come.
        if let Some(over) = model.sent.iter().position(|it| it.state.is_over()) {
            model.sent.remove(over);
        }
    }
    model.sent.push(Sent {
        cmd: cmd.clone(),
        process: aim.process,
        target,
        label: aim.label.clone(),
        at: model.now,
        ended: None,
        state: State::Asked,
    });
    (id, Some(Cmd::Send(target, Box::new(cmd.into()))))
}
