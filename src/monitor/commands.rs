//! What operators ask for: checked here as far as numbers tell, carried out by the driver of the
//! pipeline, and written into the journal.
//!
//! A command has a key, chosen by whoever decided. The last keys are kept with what became of them,
//! so that a client which lost its connection may send the command again: it runs once.

use std::collections::VecDeque;
use std::sync::Arc;

use anabranch_protocol::Text;
use anabranch_protocol::message::{
    Cmd, Code, Done, Failure, Kind, LogEntry, Op, Peer, Prog, Severity,
};

pub use self::find::no_branch;
use self::find::{find_branch, find_pipeline, find_store, letter_ids, names_no_branch, rate};
use super::outboxes::{LetterRequest, Outboxes};
use super::pipeline::Pipeline;

mod find;

/// Commands under way, and keys of old ones, at most.
const KEPT: usize = 256;

/// A command on its way to the driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its number in the process.
    pub number: u64,
    /// What to do.
    pub op: Op,
    /// With which branch.
    pub branch: Option<u32>,
    /// Its tenant, if it is not known here: the driver may have heard of it since.
    pub tenant: Option<Text>,
    /// The generation it must be in.
    pub if_gen: Option<u32>,
    /// With which undo actions: those of a scope, or one of them.
    pub undo: (Option<u64>, Option<u64>),
    /// Items per second, and at once, of a throttle.
    pub rate: Option<(f64, u32)>,
    /// Whether nothing is to be done.
    pub dry: bool,
    /// Who asks, for the log.
    pub who: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The request.
    pub number: u64,
    /// How many items, and what happened; or why not.
    pub result: Result<(u64, String), (Code, String)>,
}

impl Answer {
    /// The pipeline has ended before it was carried out.
    pub(super) fn ended(request: &Request) -> Self {
        Self {
            number: request.number,
            result: Err((Code::Ended, "the pipeline has ended".to_owned())),
        }
    }
}

/// A command that was taken on.
#[derive(Debug)]
struct Order {
    number: u64,
    key: String,
    /// Who waits for it: clients by number, and what they call it.
    waiting: Vec<(u64, u64)>,
    done: Option<Done>,
    peer: Peer,
    op: Op,
    dry: bool,
    about: (Option<u32>, Option<u32>),
}

/// The commands of the process.
#[derive(Debug, Default)]
pub(super) struct Orders {
    orders: VecDeque<Order>,
    next: u64,
}

/// What a client is told of its command at once.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// It was accepted; or, `known`, was before.
    Accepted { known: bool },
    /// It is over already.
    Over(Done),
}

/// Who gives a command, and may he.
#[derive(Debug, Clone, Copy)]
pub(super) struct Giver<'a> {
    pub(super) client: u64,
    pub(super) peer: &'a Peer,
    pub(super) control: bool,
    /// Whether it may see what dead letters hold, where their process shows that.
    pub(super) payloads: bool,
}

/// What commands are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subjects<'a> {
    pub(super) pipelines: &'a [Arc<Pipeline>],
    pub(super) outboxes: &'a Outboxes,
}

impl Orders {
    /// Takes a command on, or says why not. What happens to it is written into `journal`.
    pub(super) fn take(
        &mut self,
        cmd: &Cmd,
        giver: Giver<'_>,
        subjects: Subjects<'_>,
        journal: &mut impl FnMut(LogEntry),
    ) -> Taken {
        if !cmd.key.is_empty()
            && let Some(known) = self.orders.iter_mut().find(|order| order.key == cmd.key)
        {
            if let Some(done) = &known.done {
                return Taken::Over(Done {
                    id: cmd.id,
                    ..done.clone()
                });
            }
            known.waiting.push((giver.client, cmd.id));
            return Taken::Accepted { known: true };
        }
        match self.begin(cmd, giver, subjects) {
            Ok(()) => Taken::Accepted { known: false },
            Err((code, message)) => {
                let done = failed(cmd.id, code, &message);
                journal(audit(
                    giver.peer,
                    (cmd.op, cmd.dry),
                    (cmd.on.p, cmd.on.branch),
                    Err(&message),
                ));
                Taken::Over(done)
            }
        }
    }

    fn begin(
        &mut self,
        cmd: &Cmd,
        giver: Giver<'_>,
        subjects: Subjects<'_>,
    ) -> Result<(), (Code, String)> {
        if !supported(cmd.op) {
            let what = format!("{} is not offered by this process", cmd.op);
            return Err((Code::Unsupported, what));
        }
        if cmd.op == Op::DeadPeek && !giver.payloads {
            let what = "this session may not see what messages hold; ask for the right to payloads";
            return Err((Code::ReadOnly, what.to_owned()));
        }
        if cmd.op != Op::DeadPeek && !giver.control {
            let what = "this session may only look: it has not asked for the right to control, or is not given it"
                .to_owned();
            return Err((Code::ReadOnly, what));
        }
        if cmd.key.len() > 128 {
            return Err((Code::Invalid, "the key is longer than 128 bytes".to_owned()));
        }
        if is_about_letters(cmd.op) {
            return self.begin_letters(cmd, giver, subjects.outboxes);
        }
        let pipeline = find_pipeline(cmd, subjects.pipelines)?;
        if !pipeline.facts.control {
            let what = format!("pipeline '{}' may only be looked at", pipeline.facts.name);
            return Err((Code::ReadOnly, what));
        }
        let (branch, tenant) = match cmd.op {
            Op::PipelineDrain | Op::PipelineCancel => (None, None),
            // All of the pipeline, where no branch is named; what ends with the run is the trunk's.
            Op::CompRetry | Op::CompSkip if names_no_branch(cmd) => (None, None),
            Op::CompRetry | Op::CompSkip => find_branch(cmd, pipeline, 0)?,
            _ => find_branch(cmd, pipeline, 1)?,
        };
        let rate = rate(cmd)?;
        let number = self.number()?;
        let request = Request {
            number,
            op: cmd.op,
            branch,
            tenant,
            if_gen: cmd.if_gen,
            undo: (cmd.on.scope, cmd.on.action),
            rate,
            dry: cmd.dry,
            who: name(giver.peer),
        };
        if !pipeline.ask(request) {
            let over = pipeline.has_ended();
            let code = if over { Code::Ended } else { Code::Busy };
            let why = if over {
                "has ended"
            } else {
                "has too many commands waiting"
            };
            return Err((code, format!("pipeline '{}' {why}", pipeline.facts.name)));
        }
        self.keep(number, cmd, giver, (Some(pipeline.number), branch));
        Ok(())
    }

    /// A command about dead letters.
    fn begin_letters(
        &mut self,
        cmd: &Cmd,
        giver: Giver<'_>,
        outboxes: &Outboxes,
    ) -> Result<(), (Code, String)> {
        let store = find_store(cmd, &outboxes.names())?;
        if cmd.op != Op::DeadPeek && !outboxes.may_be_steered() {
            let what = format!("outbox '{store}' may only be looked at");
            return Err((Code::ReadOnly, what));
        }
        let ids = letter_ids(cmd)?;
        let rate = rate(cmd)?.map(|(rate, _)| rate);
        let number = self.number()?;
        outboxes.ask(LetterRequest {
            number,
            op: cmd.op,
            store,
            ids,
            seen: cmd.if_gen,
            rate,
            dry: cmd.dry,
            who: name(giver.peer),
        })?;
        self.keep(number, cmd, giver, (None, None));
        Ok(())
    }

    /// The number of the next command; room is made for it.
    fn number(&mut self) -> Result<u64, (Code, String)> {
        while self.orders.len() >= KEPT {
            let over = self.orders.iter().position(|order| order.done.is_some());
            let Some(over) = over else {
                return Err((Code::Busy, "too many commands are under way".to_owned()));
            };
            self.orders.remove(over);
        }
        self.next += 1;
        Ok(self.next)
    }

    fn keep(
        &mut self,
        number: u64,
        cmd: &Cmd,
        giver: Giver<'_>,
        about: (Option<u32>, Option<u32>),
    ) {
        self.orders.push_back(Order {
            number,
            key: cmd.key.clone(),
            waiting: vec![(giver.client, cmd.id)],
            done: None,
            peer: giver.peer.clone(),
            op: cmd.op,
            dry: cmd.dry,
            about,
        });
    }

    /// So much is left of a command: who is to be told, and what.
    pub(super) fn progress(&self, number: u64, left: u64) -> Vec<(u64, Prog)> {
        let mut orders = self.orders.iter();
        let waiting = orders.find(|order| order.number == number && order.done.is_none());
        let waiting = waiting.into_iter().flat_map(|order| &order.waiting);
        waiting
            .map(|(client, id)| (*client, Prog { id: *id, left }))
            .collect()
    }

    /// What became of a command: who is to be told, and what.
    pub(super) fn over(
        &mut self,
        answer: Answer,
        journal: &mut impl FnMut(LogEntry),
    ) -> Vec<(u64, Done)> {
        let found = self
            .orders
            .iter_mut()
            .find(|order| order.number == answer.number);
        let Some(order) = found else {
            return Vec::new();
        };
        let (what, about) = ((order.op, order.dry), order.about);
        let done = match answer.result {
            Ok((n, message)) => {
                journal(audit(&order.peer, what, about, Ok(&message)));
                Done {
                    ok: true,
                    n,
                    msg: Text::name(&message),
                    ..Done::default()
                }
            }
            Err((code, message)) => {
                journal(audit(&order.peer, what, about, Err(&message)));
                failed(0, code, &message)
            }
        };
        order.done = Some(done.clone());
        let waiting = std::mem::take(&mut order.waiting);
        let told = waiting
            .into_iter()
            .map(|(client, id)| (client, Done { id, ..done.clone() }));
        told.collect()
    }
}

/// What the driver of a pipeline can carry out.
const fn supported(op: Op) -> bool {
    matches!(
        op,
        Op::BranchPause
            | Op::BranchResume
            | Op::BranchDrain
            | Op::BranchCancel
            | Op::BranchThrottle
            | Op::BranchRestart
            | Op::CompRetry
            | Op::CompSkip
            | Op::PipelineDrain
            | Op::PipelineCancel
            | Op::DeadRequeue
            | Op::DeadPeek
            | Op::DeadDiscard
    )
}

const fn is_about_letters(op: Op) -> bool {
    matches!(op, Op::DeadRequeue | Op::DeadPeek | Op::DeadDiscard)
}

/// Who gives a command, for the log of the process.
fn name(peer: &Peer) -> String {
    let uid = peer.uid.map_or("?".to_owned(), |uid| uid.to_string());
    format!("{} (uid {uid})", peer.client)
}

fn failed(id: u64, code: Code, message: &str) -> Done {
    let msg = Text::new(message);
    Done {
        id,
        err: Some(Failure { code, msg }),
        ..Done::default()
    }
}

/// What an operator did, or, dry, has only asked about: nobody should take one for the other.
fn audit(
    peer: &Peer,
    (op, dry): (Op, bool),
    (p, b): (Option<u32>, Option<u32>),
    result: Result<&str, &str>,
) -> LogEntry {
    let (ok, message) = match result {
        Ok(message) => (true, message),
        Err(message) => (false, message),
    };
    LogEntry {
        kind: Kind::Audit,
        level: if ok { Severity::Info } else { Severity::Warn },
        p,
        b,
        msg: Text::name(&format!("{}{message}", if dry { "dry run: " } else { "" })),
        peer: Some(peer.clone()),
        op: Some(Text::new(op.word())),
        ok: Some(ok),
        ..LogEntry::default()
    }
}
