//! One pipeline, as the monitor and its driver share it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use anabranch_core::clock::Time;
use anabranch_protocol::Text;
use anabranch_protocol::message::{Detail, Kind, Leg, LogEntry, Phase, Pipe, Scope, Severity};

use super::commands::{Answer, Request};
use super::locked;
use super::slots::Slots;
use crate::wake::Wake;

/// Requests that may wait for the driver.
const WAITING: usize = 64;

/// What does not change while a pipeline runs.
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its stages, the source first.
    pub stages: Vec<String>,
    /// Its legs.
    pub legs: Vec<Leg>,
    /// The first leg that every tenant has for itself, if there is one.
    pub fan_leg: Option<usize>,
    /// When it began, as time since 1970.
    pub epoch: std::time::Duration,
    /// Reads its clock, on any thread.
    pub clock: Box<dyn Fn() -> Time + Send + Sync>,
    /// Wakes its driver, on any thread.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Whether operators may steer it.
    pub control: bool,
}

/// What those who look want to be told of beyond the numbers of all.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Branches whose attempts are to be measured one by one.
    pub branches: Vec<u32>,
    /// Branches to be told of in detail.
    pub details: Vec<u32>,
    /// Whether the undo actions are to be told of.
    pub undo: bool,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("name", &self.name)
            .field("stages", &self.stages)
            .finish_non_exhaustive()
    }
}

/// One pipeline of this process.
#[derive(Debug)]
pub struct Pipeline {
    /// Its number in the process.
    pub number: u32,
    /// What does not change.
    pub facts: Facts,
    /// Its numbers.
    pub slots: Slots,
    /// Whether something waits in `requests`: all that the driver looks at.
    asked: AtomicBool,
    requests: Mutex<VecDeque<Request>>,
    answers: Mutex<Vec<Answer>>,
    /// What has happened, for the journal, and how much of it was lost.
    news: Mutex<(Vec<LogEntry>, u64)>,
    looked: Mutex<Looked>,
    /// Whether that has changed since the driver has read it.
    looked_anew: AtomicBool,
    /// The undo actions, while somebody looks at them.
    undo: Mutex<Vec<Scope>>,
    /// The branches that somebody looks at in detail.
    details: Mutex<Vec<Detail>>,
    /// Wakes the monitor.
    monitor: Arc<Wake>,
    /// When it ended, in nanoseconds of its clock; 0: it has not.
    ended: AtomicU64,
}

impl Pipeline {
    pub(super) fn new(number: u32, facts: Facts, monitor: Arc<Wake>) -> Self {
        let slots = Slots::new(facts.legs.len());
        Self {
            number,
            facts,
            slots,
            asked: AtomicBool::new(false),
            requests: Mutex::default(),
            answers: Mutex::default(),
            news: Mutex::default(),
            looked: Mutex::default(),
            looked_anew: AtomicBool::new(false),
            undo: Mutex::default(),
            details: Mutex::default(),
            monitor,
            ended: AtomicU64::new(0),
        }
    }

    // The driver's side.

    /// Whether operators have asked for something.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// What operators have asked for.
    pub fn requests(&self) -> VecDeque<Request> {
        let mut requests = locked(&self.requests);
        self.asked.store(false, Relaxed);
        std::mem::take(&mut requests)
    }

    /// What became of a request.
    pub fn answer(&self, answer: Answer) {
        locked(&self.answers).push(answer);
        self.monitor.wake();
    }

    /// Something has happened that operators should read of.
    pub fn report(&self, level: Severity, branch: Option<u32>, message: &str, now: Time) {
        let mut news = locked(&self.news);
        if news.0.len() < WAITING {
            news.0.push(LogEntry {
                at: self.unix_ms(now.as_nanos()),
                kind: Kind::Event,
                level,
                p: Some(self.number),
                b: branch,
                msg: Text::name(message),
                ..LogEntry::default()
            });
        } else {
            news.1 += 1;
        }
    }

    /// Whether those who look want to be told of something else.
    #[inline]
    pub fn is_looked_anew(&self) -> bool {
        self.looked_anew.load(Relaxed)
    }

    /// What those who look want to be told of, if that has changed.
    pub fn looked(&self) -> Option<Looked> {
        let anew = self.is_looked_anew() && self.looked_anew.swap(false, Acquire);
        anew.then(|| locked(&self.looked).clone())
    }

    /// Tells of the undo actions.
    pub fn tell_undo(&self, scopes: Vec<Scope>) {
        *locked(&self.undo) = scopes;
    }

    /// Tells of single branches in detail.
    pub fn tell_details(&self, details: Vec<Detail>) {
        *locked(&self.details) = details;
    }

    /// The run is over.
    pub fn end(&self) {
        if self.has_ended() {
            return;
        }
        let now = (self.facts.clock)();
        self.report(Severity::Info, None, "the pipeline has ended", now);
        self.ended.store(now.as_nanos().max(1), Release);
        for request in self.requests() {
            self.answer(Answer::ended(&request));
        }
    }

    // The monitor's side.

    /// Whether the run is over.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Acquire) > 0
    }

    /// Asks its driver for something. Returns whether it was told: not if too many wait, or at its end.
    pub(super) fn ask(&self, request: Request) -> bool {
        let mut requests = locked(&self.requests);
        if requests.len() >= WAITING || self.has_ended() {
            return false;
        }
        requests.push_back(request);
        self.asked.store(true, Relaxed);
        drop(requests);
        (self.facts.wake)();
        true
    }

    /// Whether it ended longer ago than this, in nanoseconds.
    pub(super) fn ended_before(&self, nanos: u64) -> bool {
        let ended = self.ended.load(Acquire);
        ended > 0 && self.now().saturating_sub(ended) > nanos
    }

    /// Wakes the driver if it has not told anything for so long.
    pub(super) fn rouse(&self, every: std::time::Duration) {
        let (pulse, _) = self.slots.last_pulse();
        let silent = std::time::Duration::from_nanos(self.now().saturating_sub(pulse.at));
        if silent >= every {
            (self.facts.wake)();
        }
    }

    pub(super) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut locked(&self.answers))
    }

    /// What has happened, and how much more of it was lost.
    pub(super) fn news(&self) -> (Vec<LogEntry>, u64) {
        std::mem::take(&mut locked(&self.news))
    }

    /// Says what those who look want to be told of.
    pub(super) fn look(&self, looked: Looked) {
        let mut known = locked(&self.looked);
        if *known != looked {
            *known = looked;
            self.looked_anew.store(true, Release);
        }
    }

    /// The undo actions, as they were told of.
    pub(super) fn undo(&self) -> Vec<Scope> {
        locked(&self.undo).clone()
    }

    /// A branch in detail, if it was told of.
    pub(super) fn detail(&self, branch: u32) -> Option<Detail> {
        let details = locked(&self.details);
        details.iter().find(|it| it.id == branch).cloned()
    }

    /// A time of its clock as milliseconds since 1970.
    pub fn unix_ms(&self, nanos: u64) -> u64 {
        let at = self.facts.epoch + std::time::Duration::from_nanos(nanos);
        u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
    }

    /// Its clock now, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        (self.facts.clock)().as_nanos()
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        if self.has_ended() {
            return Phase::End;
        }
        let (pulse, _) = self.slots.last_pulse();
        let index = usize::try_from(pulse.phase).unwrap_or(usize::MAX);
        Phase::ALL.get(index).copied().unwrap_or_default()
    }

    /// How it is introduced.
    pub(super) fn introduce(&self) -> Pipe {
        Pipe {
            p: self.number,
            name: Text::name(&self.facts.name),
            phase: self.phase(),
            start: self.unix_ms(0),
            stages: self.facts.stages.iter().map(|it| Text::name(it)).collect(),
            legs: self.facts.legs.clone(),
            fan_leg: self.facts.fan_leg.and_then(|it| u32::try_from(it).ok()),
            control: self.facts.control,
        }
    }
}
