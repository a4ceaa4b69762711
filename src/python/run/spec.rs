//! How a run begins: what Python describes becomes the engine, the source and the hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::clock::Time;
use anabranch_core::compensation::Policy;
use anabranch_core::engine::{Config, Engine, LegOptions, OnBranchError, RollbackOptions};
use anabranch_core::window::Partial;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PySequence, PyString};

use super::super::channel::PyChannel;
use super::super::domain::{Callbacks, FIRST_OWN, POOL, Shared};
use super::super::keys::{KeyOf, Router};
use super::super::leg::{Leg, LegSpec, PassSpec, Role};
use super::super::monitor::{PyMonitor, introduce};
use super::super::native::NativeSource;
use super::super::source::{ChannelSource, Source};
use super::super::stats;
use super::super::time::VirtualTime;
use super::super::work::LegFacts;
use super::branches::BranchesSpec;
use super::target::Target;
use super::watch::Watch;
use super::{Hand, Pool, Run, slice};
use crate::clock::Clock;
use crate::wake::Wake;

/// What `anabranch._build` makes of a pipeline.
#[derive(Debug, FromPyObject)]
pub(super) struct RunSpec<'py> {
    name: String,
    stages: Vec<String>,
    source_kind: String,
    source: Py<PyAny>,
    legs: Vec<LegSpec<'py>>,
    fan_leg: usize,
    fan_stage: usize,
    branches: BranchesSpec<'py>,
    key_kind: Option<String>,
    key: Option<Py<PyAny>>,
    max_in_flight: usize,
    stop_on_error: bool,
    seed: u64,
    policy: String,
    rollback_deadline: Option<f64>,
    commit_at_end: bool,
    arrange: Option<Py<PyAny>>,
    threads: usize,
    grow: Py<PyAny>,
    put: Py<PyAny>,
    abandon: Py<PyAny>,
    other_threads: Py<PyAny>,
    is_awaitable: Py<PyAny>,
    stops: Vec<Option<bool>>,
    /// Finds the key of an item where Python has to; `None` where no recovered item can need it.
    rekey: Option<PassSpec>,
    callbacks: Callbacks,
    /// A test's time; `None`: the machine's.
    time: Option<Py<VirtualTime>>,
    /// Where those who look find the run; `None`: nobody may.
    monitor: Option<Py<PyMonitor>>,
    /// Whether they may steer it.
    control: bool,
}

/// How keys are found without Python, if they are.
fn key_of(py: Python<'_>, kind: Option<&str>, key: Option<Py<PyAny>>) -> PyResult<Option<KeyOf>> {
    Ok(match (kind, key) {
        (Some("item"), Some(key)) => Some(KeyOf::Item(key)),
        (Some("attr"), Some(name)) => {
            let name = name.bind(py).cast::<PyString>()?;
            Some(KeyOf::Attribute(name.clone().unbind()))
        }
        _ => None,
    })
}

/// How many jobs the pool takes at once.
fn places(threads: usize, virtual_time: bool, legs: &[LegOptions]) -> usize {
    let timed = |leg: &LegOptions| leg.port == POOL && leg.timeout.is_some();
    if virtual_time {
        // A test's pool has no threads: it runs a job when it is given one.
        1
    } else if legs.iter().any(timed) {
        // A job that waits for a thread must not use up its time.
        threads
    } else {
        threads * 2
    }
}

/// Whether a leg's workers handle what the source brings, as it is, one after the other.
fn takes_straight(leg: &Leg) -> bool {
    leg.role == Role::Sink && leg.r#pass.is_none() && leg.port.0 >= FIRST_OWN
}

/// The legs, for the engine and for Python, the channels they end in, and how many ports they use.
struct Built {
    options: Vec<LegOptions>,
    legs: Vec<Leg>,
    targets: Vec<Target>,
    ports: usize,
}

fn built(specs: Vec<LegSpec<'_>>, wake: &Arc<Wake>) -> PyResult<Built> {
    let mut ports = FIRST_OWN;
    let (mut options, mut legs, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for spec in specs {
        let (engine, python, channel) = spec.build(&mut ports)?;
        let target = channel.map(|channel| Target::new(channel, python.port, wake.clone()));
        targets.extend(target);
        options.push(engine);
        legs.push(python);
    }
    Ok(Built {
        options,
        legs,
        targets,
        ports,
    })
}

/// The legs for those who look.
fn introduced(options: &[LegOptions], legs: &[Leg]) -> Vec<anabranch_protocol::message::Leg> {
    let legs = options.iter().zip(legs);
    legs.map(|(engine, python)| introduce(engine, python))
        .collect()
}

/// What anyone may know of a leg without Python.
fn facts(leg: &Leg) -> LegFacts {
    LegFacts {
        role: leg.role,
        port: leg.port,
        stage: leg.stage,
        takes_ctx: leg.takes_ctx,
        retries: leg.retry.as_ref().is_some_and(|retry| retry.attempts > 1),
        plain: matches!(leg.role, Role::Sink | Role::Channel)
            && !leg.takes_ctx
            && leg.timeout.is_none(),
    }
}

/// How rollbacks go about it; the deadline in seconds.
fn rollback(policy: &str, deadline: Option<f64>, commit_at_end: bool) -> RollbackOptions {
    RollbackOptions {
        policy: match policy {
            "parallel" => Policy::Parallel,
            "none" => Policy::Skip,
            "custom" => Policy::Custom,
            _ => Policy::Sequential,
        },
        deadline: deadline.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        commit_at_end,
    }
}

impl RunSpec<'_> {
    /// Makes the run, and starts its native source.
    pub(super) fn open(self, py: Python<'_>) -> PyResult<Run> {
        let virtual_time = self.time.is_some();
        let shared = Arc::new(Shared::new(
            self.name,
            self.stages,
            self.stops,
            Clock::start(self.time.map(|time| time.get().0.clone())),
            self.callbacks,
        ));
        let wake = Arc::new(Wake::new()?);
        let Built {
            options,
            legs,
            targets,
            ports,
        } = built(self.legs, &wake)?;
        let flush_on_abort = options.iter().any(flushes);
        let pooled = places(self.threads, virtual_time, &options);
        let (source, native) = open_source(&self.source_kind, self.source.bind(py), &wake)?;
        let facts = legs.iter().map(facts).collect();
        let watched = self.monitor.and_then(|monitor| {
            let legs = introduced(&options, &legs);
            let monitor = monitor.get();
            monitor.show(&shared, legs, self.fan_leg, &wake, self.control)
        });
        stats::begin(watched.as_ref());
        let takes_items = |leg: &usize| options[*leg].operator.is_none();
        let entry = (0..options.len()).find(takes_items).unwrap_or(0);
        let key_leg = (self.fan_leg..options.len()).find(takes_items);
        let (living, branches) = self.branches.build()?;
        let counts = living.on_error != OnBranchError::Continue;
        let key = key_of(py, self.key_kind.as_deref(), self.key)?;
        let engine = Engine::new(Config {
            legs: options,
            fan_leg: self.fan_leg,
            ports,
            max_in_flight: self.max_in_flight,
            stop_on_error: self.stop_on_error,
            seed: self.seed,
            epoch: shared.clock.epoch(),
            rollback: rollback(&self.policy, self.rollback_deadline, self.commit_at_end),
            branches: living,
        });
        let hand = Hand {
            source,
            key,
            entry,
            key_leg,
            fan_leg: self.fan_leg,
            rekey: self.rekey,
            fan_stage: self.fan_stage,
            counts,
            router: Router::new(py),
            branches,
            pool: Pool {
                grow: self.grow,
                put: self.put,
                out: 0,
                most: pooled,
                abandon: self.abandon,
                timed: HashMap::new(),
            },
            targets,
            chunk: slice::FIRST_CHUNK,
            // In virtual time a worker would never give way to others: none passes while it works.
            straight: !virtual_time && legs.first().is_some_and(takes_straight),
            napped: Time::ZERO,
            other_threads: self.other_threads,
            is_awaitable: self.is_awaitable,
            flush_on_abort,
            arrange: self.arrange,
            watch: watched.clone().map(Watch::new),
        };
        Ok(Run {
            shared,
            facts,
            legs: Mutex::new(Some(Arc::new(legs))),
            engine: Mutex::new(engine),
            hand: Mutex::new(Some(hand)),
            tenants: Mutex::default(),
            asked: Mutex::new(Some(Vec::new())),
            returned: Mutex::default(),
            adopted: Mutex::default(),
            late: Mutex::default(),
            overdue: Mutex::default(),
            pushed: Mutex::default(),
            collected: Mutex::new(Some(PyList::empty(py).unbind())),
            wake,
            watched,
            native,
            tallied: AtomicBool::new(false),
            drain_asked: AtomicBool::new(false),
            abort_asked: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            wanted: AtomicUsize::new(usize::MAX),
            failed: AtomicBool::new(false),
            copied: AtomicBool::new(false),
            left: AtomicBool::new(false),
            starved: AtomicBool::new(false),
        })
    }
}

/// Whether a partial window of this leg leaves when the run is aborted.
fn flushes(leg: &LegOptions) -> bool {
    leg.window
        .as_ref()
        .is_some_and(|window| window.on_cancel == Some(Partial::Flush))
}

/// The source, and once more if it is a native one.
fn open_source(
    kind: &str,
    source: &Bound<'_, PyAny>,
    wake: &Arc<Wake>,
) -> PyResult<(Source, Option<Arc<NativeSource>>)> {
    Ok(match kind {
        "sequence" => {
            let items = source.cast::<PySequence>()?.clone().unbind();
            (Source::Sequence { items, next: 0 }, None)
        }
        "iterable" => {
            let items = source.cast::<PyIterator>()?.clone().unbind();
            (Source::Iterator { items, pull: 1 }, None)
        }
        "channel" => {
            let channel = source.cast::<PyChannel>()?.clone().unbind();
            let source = ChannelSource::new(channel, wake.clone());
            (Source::Channel(source), None)
        }
        "native" => {
            let native = Arc::new(NativeSource::start(source.py(), source, wake.clone())?);
            (Source::Native(native.clone()), Some(native))
        }
        _ => (Source::Pushed, None),
    })
}
