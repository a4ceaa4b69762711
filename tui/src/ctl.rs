//! `anabranch ctl`: one command to one branch, pipeline or store, and what came of it.
//!
//! It looks first, so that the command carries the generation that was seen: a branch that changes
//! in between is left alone.
//!
//! - `ctl/aim.rs`: what the target is.
//! - `ctl/letters.rs`: dead letters, listed and shown.
//! - `ctl/tell.rs`: what is asked back, and what is told.

mod aim;
mod letters;
mod tell;

use std::collections::BTreeMap;
use std::time::Duration;

use anabranch_protocol::message::{Arguments, Cmd, Done, Op, Phase, Right, Server, Sub, Topic};
use anabranch_protocol::row::State;
use anabranch_protocol::{Client, Text};

use self::aim::{Aim, aims, is_about_letters, named, stores, unknown};
use self::tell::{confirm, late, lost, tell};
use crate::Exit;
use crate::app::act::verb;
use crate::cli::complain;
use crate::conn::TargetId;
use crate::session::{At, Failed, Session};
use crate::store::{COLUMNS, ProcessId, Store};
use crate::top::{clock, instant};

/// How long a process may take for its first picture.
const PATIENCE: Duration = Duration::from_secs(3);

/// After so many more sweeps all that a process tells is newer than the question.
const SWEEPS: u64 = 2;

/// How often a process that does not answer is asked.
const TRIES: usize = 4;

/// What is to be done.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct Order {
    /// What it is where the target is a branch.
    pub(crate) branch: Op,
    /// What it is where the target is a pipeline, if that can be.
    pub(crate) pipeline: Option<Op>,
    /// The target as it was written.
    pub(crate) target: String,
    /// Dead letters.
    pub(crate) ids: Vec<String>,
    /// What the command needs beyond its target.
    pub(crate) arguments: Arguments,
    /// Whether nobody is to be asked.
    pub(crate) yes: bool,
    /// Whether it is only to be told what would happen.
    pub(crate) dry: bool,
    /// Whether to wait until it is done.
    pub(crate) wait: bool,
    /// How long.
    pub(crate) timeout: Duration,
    /// Whether to print JSON.
    pub(crate) json: bool,
    /// Names this very decision.
    pub(crate) key: String,
}

/// A process that is looked at.
struct Watched {
    id: ProcessId,
    target: TargetId,
    at: At,
    session: Session,
}

/// Why a command did not come to an answer.
enum Stopped {
    /// The connection.
    Failed(Failed),
    /// No answer in time; whether the command was taken on.
    Late(bool),
}

impl From<Failed> for Stopped {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Carries an order out.
pub(crate) fn run(targets: &[(String, At)], order: &Order) -> Exit {
    let mut store = Store::default();
    let mut watched = Vec::new();
    let mut worst = Exit::Nothing;
    for (number, (label, at)) in (0..).zip(targets) {
        match look(&mut store, TargetId(number), label, at) {
            Ok(session) => watched.push(session),
            Err(error) => worst = lost(at, &error),
        }
    }
    if watched.is_empty() {
        return worst;
    }
    let mut found = find(&store, order);
    if found.is_empty() {
        for it in &mut watched {
            settle(&mut store, it);
        }
        found = find(&store, order);
    }
    let mut aim = match found.as_slice() {
        [aim] => aim.clone(),
        [] => {
            complain(&unknown(&store, order));
            return Exit::Failed;
        }
        several => {
            let labels: Vec<_> = several.iter().map(|it| named(&store, it)).collect();
            complain(&format!(
                "{:?} may be {}: say which with PIPELINE/TENANT and --process",
                order.target,
                labels.join(" or ")
            ));
            return Exit::Usage;
        }
    };
    let Some(Watched {
        target,
        at,
        session,
        ..
    }) = watched.iter_mut().find(|it| it.id == aim.process)
    else {
        return Exit::Lost;
    };
    if aim.op == Op::DeadPeek && order.ids.is_empty() {
        return match letters::list(&mut store, session, &aim, order) {
            Ok(exit) => exit,
            Err(error) => lost(at, &error),
        };
    }
    if order.dry || !order.yes && aim.op.is_dangerous() {
        let done = match ask(&mut store, session, &aim, order, true) {
            Ok(done) => done,
            Err(stopped) => return late(at, stopped),
        };
        if order.dry || !done.ok {
            return tell(&store, &aim, order, &done, true);
        }
        if let Err(exit) = confirm(&store, &aim, &done) {
            return exit;
        }
        if aim.op == Op::DeadDiscard && order.ids.is_empty() {
            // Those that come meanwhile are not among them.
            aim.generation = u32::try_from(done.n).ok();
        }
        // Meanwhile nobody has listened to the process, which hangs up on those who do not.
        match look(&mut store, *target, "", at) {
            Ok(again) if again.id == aim.process => *session = again.session,
            Ok(_) => {
                complain(&format!("{at}: another process has taken its place"));
                return Exit::Lost;
            }
            Err(error) => return lost(at, &error),
        }
    }
    let mut done = match ask(&mut store, session, &aim, order, false) {
        Ok(done) => done,
        Err(stopped) => return late(at, stopped),
    };
    if done.ok && order.wait && takes_time(aim.op) {
        if let Err(stopped) = effect(&mut store, session, &aim, order.timeout) {
            return late(at, stopped);
        }
        // What was begun is no longer so.
        done.msg = Text::new(&format!("{} is done", verb(aim.op)));
    }
    tell(&store, &aim, order, &done, false)
}

fn find(store: &Store, order: &Order) -> Vec<Aim> {
    if is_about_letters(order.branch) {
        stores(store, order)
    } else {
        aims(store, order)
    }
}

/// Listens until what a process tells is newer than this: what is asked for may have begun just now.
fn settle(store: &mut Store, watched: &mut Watched) {
    let sweeps = |store: &Store| {
        let process = store.process(watched.id);
        let pipelines = process.into_iter().flat_map(|it| &it.pipelines);
        let running = pipelines.filter(|(_, it)| it.totals.phase != Phase::End);
        let sweeps = running.map(|(number, it)| (*number, it.totals.sweep));
        sweeps.collect::<BTreeMap<_, _>>()
    };
    let before = sweeps(store);
    let is_new = |store: &Store| {
        let now = sweeps(store);
        // A pipeline that has begun meanwhile counts from nothing.
        let new = |(number, sweep): (&u32, &u64)| {
            *sweep >= before.get(number).copied().unwrap_or(0) + SWEEPS
        };
        !now.is_empty() && now.iter().all(new)
    };
    let until = instant() + PATIENCE;
    while !is_new(store) || !knows_all(store, watched.id) {
        match watched.session.receive(until) {
            Ok(Some(message)) => hear(store, watched.id, message),
            // It is told why when it is asked.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Connects, and listens until all branches were told of.
fn look(store: &mut Store, target: TargetId, label: &str, at: &At) -> Result<Watched, Failed> {
    let client = concat!("anabranch-ctl/", env!("CARGO_PKG_VERSION"));
    let open = || {
        Session::open(
            at,
            client,
            &[Right::Observe, Right::Control, Right::Payloads],
        )
    };
    // On a machine that is busy a process may be late; it is the order that is wanted, not haste.
    let mut session = match (1..TRIES).map(|_| open()).find(|it| !is_silent(it)) {
        Some(answered) => answered?,
        None => open()?,
    };
    let id = store.target(target, label);
    store.welcome(target, session.welcome(), clock());
    let sub = Sub {
        id: 1,
        tick_ms: 100,
        bulk_ms: 200,
        topics: vec![Topic::Totals, Topic::Branches, Topic::Outbox],
        cols: COLUMNS.iter().map(|it| Text::new(it)).collect(),
        ..Sub::default()
    };
    session.send(&Client::from(sub))?;
    let until = instant() + PATIENCE;
    let mut whole = false;
    while !whole || !knows_all(store, id) {
        match session.receive(until)? {
            Some(message) => {
                whole |= matches!(&message, Server::Rows(rows) if rows.full && !rows.more);
                hear(store, id, message);
            }
            None if whole => break,
            None => return Err(Failed::Silent),
        }
    }
    let at = at.clone();
    Ok(Watched {
        id,
        target,
        at,
        session,
    })
}

/// Whether each branch that the sums speak of was told of: some may have opened since the table was
/// begun.
fn knows_all(store: &Store, id: ProcessId) -> bool {
    let pipelines = store
        .process(id)
        .into_iter()
        .flat_map(|it| it.pipelines.values());
    let mut missing = pipelines.filter(|it| {
        let told = it.rows.iter().filter(|row| row.told && row.id > 0).count();
        (told as u64) < it.totals.branches.all
    });
    missing.next().is_none()
}

const fn is_silent(opened: &Result<Session, Failed>) -> bool {
    matches!(opened, Err(Failed::Silent))
}

fn hear(store: &mut Store, id: ProcessId, message: Server) {
    if let Some(process) = store.process_mut(id) {
        process.hear(message, clock());
    }
}

/// Sends the command, or the question what it would do, and waits for what came of it.
fn ask(
    store: &mut Store,
    session: &mut Session,
    aim: &Aim,
    order: &Order,
    dry: bool,
) -> Result<Done, Stopped> {
    let id = if dry { 1 } else { 2 };
    let deadline = u64::try_from(order.timeout.as_millis()).unwrap_or(u64::MAX);
    let cmd = Cmd {
        id,
        op: aim.op,
        on: aim.on.clone(),
        if_gen: aim.generation,
        args: Arguments {
            deadline_ms: Some(deadline),
            ..order.arguments.clone()
        },
        key: format!("{}-{id}", order.key),
        dry,
    };
    session.send(&Client::from(cmd))?;
    let mut until = instant() + order.timeout;
    let mut taken = false;
    loop {
        match session.receive(until)? {
            None => return Err(Stopped::Late(taken)),
            Some(Server::Ack(ack)) if ack.id == id => taken = true,
            // It goes on: that is an answer, too.
            Some(Server::Prog(prog)) if prog.id == id => until = instant() + order.timeout,
            Some(Server::Done(done)) if done.id == id => return Ok(done),
            Some(message) => hear(store, aim.process, message),
        }
    }
}

/// Waits until what was begun is done: a branch that drains is empty, a pipeline has ended.
fn effect(
    store: &mut Store,
    session: &mut Session,
    aim: &Aim,
    timeout: Duration,
) -> Result<(), Stopped> {
    let until = instant() + timeout;
    while !is_over(store, aim) {
        match session.receive(until) {
            Ok(Some(message)) => hear(store, aim.process, message),
            Ok(None) => return Err(Stopped::Late(true)),
            // A process whose pipeline was to end has ended with it.
            Err(Failed::Lost(_) | Failed::Ended(_)) if aim.on.branch.is_none() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether it is only begun when it is answered.
const fn takes_time(op: Op) -> bool {
    matches!(
        op,
        Op::BranchDrain | Op::BranchCancel | Op::PipelineDrain | Op::PipelineCancel
    )
}

fn is_over(store: &Store, aim: &Aim) -> bool {
    let pipeline = aim.on.p.and_then(|p| store.pipeline(aim.process, p));
    let Some(pipeline) = pipeline else {
        return true;
    };
    if pipeline.totals.phase == Phase::End {
        return true;
    }
    let row = aim.on.branch.map(|id| pipeline.row(id));
    match (aim.op, row) {
        (Op::PipelineDrain | Op::PipelineCancel, _) => false,
        (Op::BranchDrain | Op::BranchCancel, Some(Some(row))) => {
            let branch = &row.branch;
            let inside = branch.queued + branch.in_flight + branch.compensations;
            branch.state != State::Draining
                && (inside == 0 || aim.generation != Some(branch.generation))
        }
        _ => true,
    }
}
