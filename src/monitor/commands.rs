//! What operators ask for: checked here as far as numbers tell, carried out by the driver of the
//! pipeline, and written into the journal.
//!
//! A command has a key, chosen by whoever decided. The last keys are kept with what became of them,
//! so that a client which lost its connection may send the command again: it runs once.

use std::collections::VecDeque;
use std::sync::Arc;

use anabranch_protocol::Text;
use anabranch_protocol::message::{Cmd, Code, Done, Failure, Kind, LogEntry, Op, Peer, Severity};
use anabranch_protocol::text::sanitize;

use super::pipeline::Pipeline;

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
    about: (u32, Option<u32>),
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
}

impl Orders {
    /// Takes a command on, or says why not. What happens to it is written into `journal`.
    pub(super) fn take(
        &mut self,
        cmd: &Cmd,
        giver: Giver<'_>,
        pipelines: &[Arc<Pipeline>],
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
        match self.begin(cmd, giver, pipelines) {
            Ok(()) => Taken::Accepted { known: false },
            Err((code, message)) => {
                let done = failed(cmd.id, code, &message);
                journal(audit(
                    giver.peer,
                    cmd.op,
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
        pipelines: &[Arc<Pipeline>],
    ) -> Result<(), (Code, String)> {
        if !supported(cmd.op) {
            let what = format!("{} is not offered by this process", cmd.op);
            return Err((Code::Unsupported, what));
        }
        if !giver.control {
            let what = "this session may only look; ask for the right to control".to_owned();
            return Err((Code::ReadOnly, what));
        }
        if cmd.key.len() > 128 {
            return Err((Code::Invalid, "the key is longer than 128 bytes".to_owned()));
        }
        let pipeline = find_pipeline(cmd, pipelines)?;
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
        while self.orders.len() >= KEPT {
            let over = self.orders.iter().position(|order| order.done.is_some());
            let Some(over) = over else {
                return Err((Code::Busy, "too many commands are under way".to_owned()));
            };
            self.orders.remove(over);
        }
        let number = self.next;
        self.next += 1;
        let uid = giver.peer.uid.map_or("?".to_owned(), |uid| uid.to_string());
        let request = Request {
            number,
            op: cmd.op,
            branch,
            tenant,
            if_gen: cmd.if_gen,
            undo: (cmd.on.scope, cmd.on.action),
            rate,
            dry: cmd.dry,
            who: format!("{} (uid {uid})", giver.peer.client),
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
        self.orders.push_back(Order {
            number,
            key: cmd.key.clone(),
            waiting: vec![(giver.client, cmd.id)],
            done: None,
            peer: giver.peer.clone(),
            op: cmd.op,
            about: (pipeline.number, branch),
        });
        Ok(())
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
        let about = (Some(order.about.0), order.about.1);
        let done = match answer.result {
            Ok((n, message)) => {
                journal(audit(&order.peer, order.op, about, Ok(&message)));
                Done {
                    ok: true,
                    n,
                    msg: Text::name(&message),
                    ..Done::default()
                }
            }
            Err((code, message)) => {
                journal(audit(&order.peer, order.op, about, Err(&message)));
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
    )
}

fn failed(id: u64, code: Code, message: &str) -> Done {
    let msg = Text::new(message);
    Done {
        id,
        err: Some(Failure { code, msg }),
        ..Done::default()
    }
}

fn audit(
    peer: &Peer,
    op: Op,
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
        msg: Text::name(message),
        peer: Some(peer.clone()),
        op: Some(Text::new(op.word())),
        ok: Some(ok),
        ..LogEntry::default()
    }
}

fn find_pipeline<'a>(
    cmd: &Cmd,
    pipelines: &'a [Arc<Pipeline>],
) -> Result<&'a Arc<Pipeline>, (Code, String)> {
    let running = pipelines.iter().filter(|it| !it.has_ended());
    let fits = |it: &&Arc<Pipeline>| match (cmd.on.p, &cmd.on.pipeline) {
        (Some(p), _) => it.number == p,
        (None, Some(name)) => it.facts.name == *name || sanitize(&it.facts.name) == *name,
        (None, None) => true,
    };
    let mut found = running.filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err((
            Code::NotFound,
            "there is no such pipeline, or it has ended".to_owned(),
        )),
        (Some(_), Some(_)) => {
            let what = "several pipelines fit: name one by its number";
            Err((Code::Ambiguous, what.to_owned()))
        }
    }
}

const fn names_no_branch(cmd: &Cmd) -> bool {
    cmd.on.branch.is_none() && cmd.on.tenant.is_none()
}

/// The branch a command names, from the first on that it may be about; or its tenant, if no branch
/// of that name was told of yet.
fn find_branch(
    cmd: &Cmd,
    pipeline: &Pipeline,
    first: usize,
) -> Result<(Option<u32>, Option<Text>), (Code, String)> {
    let slots = &pipeline.slots;
    let named = |tenant: &str| {
        (1..slots.len()).find(|id| slots.name_of(*id).is_some_and(|name| **name == *tenant))
    };
    let number = |id: usize| u32::try_from(id).ok();
    match (cmd.on.branch, &cmd.on.tenant) {
        (Some(id), _) if (first..slots.len()).contains(&(id as usize)) => Ok((Some(id), None)),
        (Some(_), _) => Err(no_branch(&pipeline.facts.name)),
        (None, Some(tenant)) => {
            let tenant = Text::name(tenant);
            let known = named(&tenant).and_then(number);
            let unknown = known.is_none().then_some(tenant);
            Ok((known, unknown))
        }
        (None, None) => Err((Code::Invalid, "name the branch, or its tenant".to_owned())),
    }
}

/// Why a command about a branch that is not there is refused.
pub fn no_branch(pipeline: &str) -> (Code, String) {
    let what = format!("pipeline '{pipeline}' has no such branch");
    (Code::NotFound, what)
}

fn rate(cmd: &Cmd) -> Result<Option<(f64, u32)>, (Code, String)> {
    let Some(rate) = cmd.args.rate else {
        return Ok(None);
    };
    let burst = cmd.args.burst.unwrap_or(1);
    if !(rate.is_finite() && rate > 0.0) || burst == 0 {
        let what = format!("rate must be > 0 and burst >= 1, got {rate} and {burst}");
        return Err((Code::Invalid, what));
    }
    Ok(Some((rate, burst)))
}
