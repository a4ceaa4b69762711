//! What is known of the processes: their pipelines, branches and topics, as last told.
//!
//! - `store/process.rs`: one process, and what its monitor says.
//! - `store/pipeline.rs`: one pipeline with its branches and their rates.
//! - `store/ring.rs`: the history of one number.
//!
//! A process that is lost stays, with the time it was last heard of.

mod pipeline;
mod process;
mod ring;

use std::collections::{BTreeMap, HashMap, VecDeque};

use anabranch_protocol::message::{Log, LogEntry, Welcome};
use anabranch_protocol::row::BranchKey;

pub use pipeline::{Pipeline, Rates, Row};
pub use process::{COLUMNS, Link, Process};
pub use ring::{POINTS, Ring};

use crate::conn::TargetId;

/// Lost processes that are kept to be looked at.
pub const LOST: usize = 16;

/// Entries of all logs that are kept.
pub const LOG: usize = 4096;

/// A process, by its place in the store; it keeps it.
pub type ProcessId = u32;

/// A branch of any process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BranchId {
    /// Its process.
    pub process: ProcessId,
    /// Its pipeline and its number.
    pub key: BranchKey,
}

/// One line of the log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Whose log it is of.
    pub process: ProcessId,
    /// What happened.
    pub entry: LogEntry,
    /// How many were lost just before it.
    pub lost: u64,
}

/// All that is known.
#[derive(Debug, Default, Clone)]
pub struct Store {
    processes: BTreeMap<ProcessId, Process>,
    /// The id of the next one: none is used again.
    next: ProcessId,
    /// The process each target leads to now.
    targets: HashMap<TargetId, ProcessId>,
    /// What all of them have logged, by time.
    pub log: VecDeque<LogLine>,
}

impl Store {
    /// All processes, those that are lost too, with their ids.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.processes.iter().map(|(id, process)| (*id, process))
    }

    /// One process.
    pub fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// One process, to change it.
    pub fn process_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.processes.get_mut(&id)
    }

    /// One pipeline.
    pub fn pipeline(&self, process: ProcessId, pipeline: u32) -> Option<&Pipeline> {
        self.process(process)?.pipelines.get(&pipeline)
    }

    /// One branch.
    pub fn row(&self, id: BranchId) -> Option<&Row> {
        self.pipeline(id.process, id.key.0)?.row(id.key.1)
    }

    /// The process that a target leads to; a new one, if it has led nowhere yet.
    pub fn target(&mut self, target: TargetId, label: &str) -> ProcessId {
        if let Some(id) = self.targets.get(&target) {
            return *id;
        }
        let id = self.add(Process::new(target, label));
        self.targets.insert(target, id);
        id
    }

    /// The process that a target leads to, if it is known.
    pub fn of_target(&self, target: TargetId) -> Option<ProcessId> {
        self.targets.get(&target).copied()
    }

    fn add(&mut self, process: Process) -> ProcessId {
        let id = self.next;
        self.next += 1;
        self.processes.insert(id, process);
        id
    }

    /// Forgets those lost the longest ago, beyond [`LOST`]: a dashboard that stays open sees
    /// thousands come and go. One that is looked into stays. Returns the targets that led to them.
    pub fn forget(&mut self, but: Option<ProcessId>) -> Vec<TargetId> {
        let others = self.processes().filter(|(id, _)| Some(*id) != but);
        let lost = others.filter_map(|(id, process)| match process.link {
            Link::Lost { since, .. } => Some((since, id)),
            _ => None,
        });
        let mut lost: Vec<_> = lost.collect();
        lost.sort_unstable();
        lost.truncate(lost.len().saturating_sub(LOST));
        let mut targets = Vec::new();
        for (_, id) in lost {
            self.processes.remove(&id);
            let led = self.targets.iter().find(|(_, to)| **to == id);
            if let Some(target) = led.map(|(target, _)| *target) {
                self.targets.remove(&target);
                targets.push(target);
            }
        }
        targets
    }

    /// A session has begun. If it is with the process that was there before, what is known goes
    /// on; if not, the other stays as lost, and a new one begins.
    ///
    /// Returns the process, and whether it is the one from before.
    pub fn welcome(&mut self, target: TargetId, welcome: &Welcome, now: u64) -> (ProcessId, bool) {
        let id = self.target(target, "");
        let same = self.process(id).is_some_and(|it| it.is(&welcome.server));
        let fresh = self.process(id).is_some_and(|it| it.info.is_none());
        let id = if same || fresh {
            id
        } else {
            if let Some(old) = self.process_mut(id) {
                old.replaced(now);
            }
            let new = self.add(Process::new(target, ""));
            self.targets.insert(target, new);
            new
        };
        if let Some(process) = self.process_mut(id) {
            process.welcome(welcome, now);
        }
        (id, same)
    }

    /// Takes in entries of a log; those that came before, as after a reconnect, are left out.
    pub fn log(&mut self, process: ProcessId, log: Log) {
        let Some(told) = self.process_mut(process).map(|it| &mut it.logged) else {
            return;
        };
        let mut lost = log.lost;
        let before = *told;
        let fresh = log.r.into_iter().filter(|entry| entry.n >= before);
        let lines: Vec<_> = fresh
            .map(|entry| LogLine {
                process,
                lost: std::mem::take(&mut lost),
                entry,
            })
            .collect();
        *told = lines
            .iter()
            .map(|line| line.entry.n + 1)
            .fold(before, u64::max);
        let over = (self.log.len() + lines.len()).saturating_sub(LOG);
        self.log.drain(..over.min(self.log.len()));
        // Each tells its own by pipeline, and what was before it was looked at comes late.
        let end = self.log.back().map_or(0, |line| line.entry.at);
        let late = std::iter::once(end).chain(lines.iter().map(|line| line.entry.at));
        let in_order = late.is_sorted();
        self.log.extend(lines);
        if !in_order {
            self.log.make_contiguous().sort_by_key(|line| line.entry.at);
        }
    }
}
