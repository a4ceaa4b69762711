//! What the monitors tell, and how it goes with the connections.

use anabranch_protocol::Server;
use anabranch_protocol::message::Op;

use super::act::State;
use super::{Cmd, Model, Screen};
use crate::app::focus::Focus;
use crate::conn::{Event, Target, TargetId};

/// There are other processes to attach to.
pub(super) fn found(model: &mut Model, targets: Vec<Target>) -> Vec<Cmd> {
    let mut cmds = Vec::new();
    for target in targets {
        if model.store.of_target(target.id).is_none() {
            model.store.target(target.id, &target.label);
            model.dirty = true;
            model.reorder();
            cmds.push(Cmd::Open(target));
        }
    }
    let looked_at = model.scope.map(|(process, _)| process);
    let looked_at = looked_at.or(model.open.map(|it| it.process));
    for target in model.store.forget(looked_at) {
        model.subscribed.remove(&target);
        cmds.push(Cmd::Close(target));
    }
    cmds
}

/// A connection tells something.
pub fn hear(model: &mut Model, target: TargetId, event: Event) -> Vec<Cmd> {
    let Some(id) = model.store.of_target(target) else {
        return Vec::new();
    };
    // A screen that is stopped shows nothing of what comes.
    if model.frozen.is_none() {
        model.dirty = true;
        model.reorder();
    }
    match event {
        Event::Heard(message) => match *message {
            Server::Welcome(welcome) => {
                // A new session knows of no subscription.
                model.subscribed.remove(&target);
                model.urgent = true;
                let (id, same) = model.store.welcome(target, &welcome, model.now);
                model.reorder();
                return again(model, target, id, same);
            }
            Server::Log(log) => model.store.log(id, log),
            Server::Ack(ack) => model.answer(ack.id, |sent| {
                if !sent.state.is_over() {
                    sent.state = State::Accepted;
                }
            }),
            Server::Prog(prog) => model.answer(prog.id, |sent| {
                if !sent.state.is_over() {
                    sent.state = State::Left(prog.left);
                }
            }),
            Server::Done(done) => {
                let number = done.id;
                let now = model.now;
                model.answer(number, |sent| {
                    sent.state = State::Done(done);
                    sent.ended = Some(now);
                });
                model.tell_done(number);
            }
            message => {
                model.urgent |= matches!(&message, Server::Rows(rows) if rows.full && !rows.more);
                let now = model.now;
                if let Some(process) = model.store.process_mut(id) {
                    process.hear(message, now);
                }
            }
        },
        Event::Lost { why, again } => {
            let now = model.now;
            if let Some(process) = model.store.process_mut(id) {
                process.lose(&why, now, again);
            }
            model.dirty = true;
        }
    }
    Vec::new()
}

/// A session has begun. What was asked and not answered is asked again of the same process, which
/// knows its keys and does nothing twice; of another process it is lost.
fn again(model: &mut Model, target: TargetId, process: u32, same: bool) -> Vec<Cmd> {
    let mut cmds = Vec::new();
    for sent in &mut model.sent {
        if sent.target != target || sent.state.is_over() {
            continue;
        }
        if same && sent.process == process {
            cmds.push(Cmd::Send(target, Box::new(sent.cmd.clone().into())));
        } else {
            sent.state = State::Gone;
            sent.ended = Some(model.now);
        }
    }
    cmds
}

impl Model {
    fn answer(&mut self, number: u64, change: impl FnOnce(&mut super::act::Sent)) {
        if let Some(sent) = self.sent.iter_mut().find(|it| it.cmd.id == number) {
            change(sent);
            // The answer is news on a screen that is stopped, too.
            self.dirty = true;
        }
    }

    /// Says how a command ended, unless a dialog does.
    fn tell_done(&mut self, number: u64) {
        let Some(sent) = self.sent.iter().find(|it| it.cmd.id == number) else {
            return;
        };
        let State::Done(done) = &sent.state else {
            return;
        };
        let asked = matches!(&self.focus, Focus::Ask(ask) if ask.asked(number));
        let quiet = matches!(sent.cmd.op, Op::LogLevel | Op::Snapshot | Op::DeadPeek);
        if asked || sent.cmd.dry || (quiet && done.ok) {
            return;
        }
        let (ok, line) = (done.ok, sent.line(self.now));
        if ok {
            self.tell(line);
        } else {
            self.warn(line);
        }
    }

    /// Freezes the screen, or lets it go on.
    pub(super) fn freeze(&mut self) {
        if self.frozen.take().is_none() {
            self.frozen = Some(super::Frozen {
                since: self.now,
                store: Box::new(self.store.clone()),
            });
        }
        self.reorder();
        if self.screen == Screen::Log {
            self.follow = self.frozen.is_none();
        }
    }
}
