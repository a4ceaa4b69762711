//! The numbers of one pipeline, where any thread may read them.
//!
//! The driving thread writes, everyone else reads; no lock, and no interpreter. The engine counts
//! in plain integers, and the driver copies them here:
//!
//! - a **pulse** at the end of each slice: how far the pipeline is, in a few stores;
//! - a **sweep** over all branches, a piece per slice, so often that it costs a fixed small share of
//!   the driver's time: see [`Slots::interval`];
//! - before it calls a callable inline, **where** it is going: if it does not come back, that is what
//!   one needs to know. The numbers are then at most one sweep old.
//!
//! Rejected: a store per item (a cache line per branch and event), and a channel of events (its
//! reader could be slow). Numbers are absolute, so what one reader misses is in the next row.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anabranch_core::engine::DURATIONS;
use anabranch_protocol::Text;

use super::locked;

/// How often all branches are told of while nobody looks.
const UNWATCHED: Duration = Duration::from_secs(1);
/// The share of the driver's time that sweeps may take, while nobody looks and while somebody
/// does, as a divisor: a sweep that took 1 ms is followed by the next one after so many ms.
const UNWATCHED_SHARE: u32 = 2000;
const WATCHED_SHARE: u32 = 200;
/// Slots in the first chunk, and in all others.
const FIRST: usize = 64;
const CHUNK: usize = 1024;
/// Chunks at most: more than a million branches are only counted.
const CHUNKS: usize = 1 + 1024;

macro_rules! slot {
    ($( $(#[$doc:meta])* $field:ident, )+) => {
        /// What is told of one branch.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Values {
            $( $(#[$doc])* pub $field: u64, )+
        }

        /// One branch. Written by the driver only.
        #[derive(Debug, Default)]
        struct Slot {
            /// The sweep in which something here changed last; 0: it was never written.
            version: AtomicU64,
            name: OnceLock<Text>,
            $( $field: AtomicU64, )+
        }

        impl Slot {
            fn store(&self, values: &Values, sweep: u64) {
                let mut changed = self.version.load(Relaxed) == 0;
                $(
                    if self.$field.load(Relaxed) != values.$field {
                        self.$field.store(values.$field, Relaxed);
                        changed = true;
                    }
                )+
                if changed {
                    self.version.store(sweep, Relaxed);
                }
            }

            fn load(&self) -> Values {
                Values { $( $field: self.$field.load(Relaxed), )+ }
            }
        }
    };
}

slot! {
    /// How often it has been opened.
    generation,
    /// A [`anabranch_protocol::row::State`], by its place in `State::ALL`.
    state,
    /// Items that came.
    received,
    /// Items handled to the end.
    committed,
    /// Items failed for good.
    failed,
    /// Items given up, or filtered out.
    dropped,
    /// Items handed to a dead-letter target.
    dead_lettered,
    /// Items that wait.
    queued,
    /// Items that may wait.
    capacity,
    /// Items in the open window.
    window,
    /// When the first of them came, in nanoseconds of the pipeline's clock.
    opened,
    /// Units under way.
    in_flight,
    /// Attempts after the first.
    retried,
    /// Undo actions that have not run.
    compensations,
    /// Undo actions that have run.
    compensated,
    /// Undo actions that wait for an operator.
    stuck,
    /// Windows that have left.
    windows,
    /// Why the last of them did: its place among the reasons, from 1.
    left,
    /// How long it has held up what feeds it, in milliseconds.
    blocked,
    /// The code of its last failure: its place among the codes, from 1.
    error,
    /// When that was noticed, in nanoseconds of the pipeline's clock.
    error_at,
    /// When a change was last noticed, in nanoseconds of the pipeline's clock.
    since,
    /// When it was first noticed in its state, in nanoseconds of the pipeline's clock.
    entered,
    /// Half of the units took no longer, in microseconds, and one more; 0: nobody measures.
    p50,
    /// 99 of 100 took no longer: the same.
    p99,
}

/// One leg over all branches.
#[derive(Debug)]
struct LegSlot {
    inside: AtomicU64,
    passed: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    in_flight: AtomicU64,
    durations: [AtomicU64; DURATIONS],
}

/// One leg over all branches, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegValues {
    /// Items that wait or are under way.
    pub inside: u64,
    /// Items its handler is done with.
    pub passed: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Items given up in front of it.
    pub dropped: u64,
    /// Units under way; told only while somebody looks.
    pub in_flight: u64,
    /// How many attempts took how long.
    pub durations: [u64; DURATIONS],
}

/// What the driver tells at the end of a slice.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// When, in nanoseconds of the pipeline's clock.
    pub at: u64,
    /// A [`anabranch_protocol::message::Phase`], by its place in `Phase::ALL`.
    pub phase: u64,
    /// Items taken from the source.
    pub taken: u64,
    /// Items inside.
    pub inside: u64,
    /// Units with a handler.
    pub in_flight: u64,
}

/// The numbers of one pipeline.
#[derive(Debug)]
pub struct Slots {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
    /// Slots that were written.
    len: AtomicU64,
    /// Sweeps that are complete.
    sweep: AtomicU64,
    legs: Box<[LegSlot]>,
    /// What changes in a sweep and is more than a number. Taken by the driver once per sweep, and
    /// by readers shortly.
    told: Mutex<Told>,
    at: AtomicU64,
    phase: AtomicU64,
    taken: AtomicU64,
    inside: AtomicU64,
    in_flight: AtomicU64,
    /// Stage (upper half) and branch (lower half) of the call under way, from 1; 0: there is none.
    call: AtomicU64,
    call_since: AtomicU64,
    /// Whether the driver waits for something to happen.
    asleep: AtomicBool,
    /// How often readers want a sweep, in nanoseconds; 0 while there are none.
    wanted: AtomicU64,
}

impl Slots {
    /// Room for a pipeline with so many legs; nothing has been told yet.
    pub fn new(legs: usize) -> Self {
        let leg = |_| LegSlot {
            inside: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            durations: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            len: AtomicU64::new(0),
            sweep: AtomicU64::new(0),
            legs: (0..legs).map(leg).collect(),
            told: Mutex::default(),
            at: AtomicU64::new(0),
            phase: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            inside: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            call: AtomicU64::new(0),
            call_since: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
        }
    }

    // The driver's side.

    /// Tells how far the pipeline is, and whether the driver waits now.
    pub fn pulse(&self, pulse: &Pulse, asleep: bool) {
        self.taken.store(pulse.taken, Relaxed);
        self.inside.store(pulse.inside, Relaxed);
        self.in_flight.store(pulse.in_flight, Relaxed);
        self.phase.store(pulse.phase, Relaxed);
        self.asleep.store(asleep, Relaxed);
        self.at.store(pulse.at, Release);
    }

    /// The driver calls a callable of a stage, which may not come back.
    #[inline]
    pub fn enter(&self, stage: usize, branch: u32, now: u64) {
        self.call_since.store(now, Relaxed);
        let place = ((stage as u64 + 1) << 32) | u64::from(branch);
        self.call.store(place, Release);
    }

    /// It has come back.
    #[inline]
    pub fn leave(&self) {
        self.call.store(0, Relaxed);
    }

    /// How long after the beginning of a sweep the next one begins, if this one has taken so long
    /// and the run is so old. In a young run more often: it may be stuck for good soon.
    pub fn interval(&self, took: Duration, age: Duration) -> Duration {
        match self.wanted.load(Relaxed) {
            0 => UNWATCHED
                .min(age / 4)
                .max(took.saturating_mul(UNWATCHED_SHARE)),
            wanted => Duration::from_nanos(wanted).max(took.saturating_mul(WATCHED_SHARE)),
        }
    }

    /// Tells of one branch, as part of the sweep under way.
    pub fn tell(&self, branch: usize, values: &Values) {
        let (chunk, place) = locate(branch);
        let Some(chunk) = self.chunks.get(chunk) else {
            return;
        };
        let size = if branch < FIRST { FIRST } else { CHUNK };
        let chunk = chunk.get_or_init(|| (0..size).map(|_| Slot::default()).collect());
        chunk[place].store(values, self.sweep.load(Relaxed) + 1);
    }

    /// What was told of a branch before.
    pub fn told_of(&self, branch: usize) -> Values {
        self.slot(branch).map(Slot::load).unwrap_or_default()
    }

    /// Names a branch, once.
    pub fn name(&self, branch: usize, name: impl FnOnce() -> Text) {
        if let Some(slot) = self.slot(branch) {
            slot.name.get_or_init(name);
        }
    }

    /// Whether a branch that was told of has a name.
    pub fn is_named(&self, branch: usize) -> bool {
        self.slot(branch)
            .is_none_or(|slot| slot.name.get().is_some())
    }

    /// Tells of a leg.
    pub fn tell_leg(&self, leg: usize, values: &LegValues) {
        let Some(slot) = self.legs.get(leg) else {
            return;
        };
        slot.inside.store(values.inside, Relaxed);
        slot.passed.store(values.passed, Relaxed);
        slot.retried.store(values.retried, Relaxed);
        slot.dropped.store(values.dropped, Relaxed);
        slot.in_flight.store(values.in_flight, Relaxed);
        for (place, count) in slot.durations.iter().zip(values.durations) {
            place.store(count, Relaxed);
        }
    }

    /// What is told whole, to be changed by the driver.
    pub fn retell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut locked(&self.told));
    }

    /// The sweep over so many branches is complete.
    pub fn swept(&self, branches: usize) {
        self.len.store(branches as u64, Relaxed);
        self.sweep.fetch_add(1, Release);
    }

    // The readers' side.

    /// Asks for sweeps this often; `None`: nobody looks any more.
    pub fn want(&self, every: Option<Duration>) {
        let nanos = every.map_or(0, |it| {
            u64::try_from(it.as_nanos()).unwrap_or(u64::MAX).max(1)
        });
        self.wanted.store(nanos, Relaxed);
    }

    /// Whether anybody looks.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// Sweeps that are complete.
    pub fn sweeps(&self) -> u64 {
        self.sweep.load(Acquire)
    }

    /// Branches that were told of.
    pub fn len(&self) -> usize {
        usize::try_from(self.len.load(Relaxed)).unwrap_or(0)
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last pulse, and whether the driver has waited since.
    pub fn last_pulse(&self) -> (Pulse, bool) {
        let at = self.at.load(Acquire);
        let pulse = Pulse {
            at,
            phase: self.phase.load(Relaxed),
            taken: self.taken.load(Relaxed),
            inside: self.inside.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
        };
        (pulse, self.asleep.load(Relaxed))
    }

    /// The call under way: its stage, its branch, and since when.
    pub fn call(&self) -> Option<(usize, u32, u64)> {
        let place = self.call.load(Acquire);
        let since = self.call_since.load(Relaxed);
        let stage = (place >> 32).checked_sub(1)?;
        let branch = u32::try_from(place & u64::from(u32::MAX)).unwrap_or(0);
        Some((usize::try_from(stage).unwrap_or(0), branch, since))
    }

    /// A branch, if it was ever told of, and in which sweep it has changed last.
    pub fn read(&self, branch: usize) -> Option<(Values, u64)> {
        let slot = self.slot(branch)?;
        let version = slot.version.load(Relaxed);
        (version > 0).then(|| (slot.load(), version))
    }

    /// In which sweep a branch has changed last; 0 if it was never told of.
    pub fn version(&self, branch: usize) -> u64 {
        self.slot(branch)
            .map_or(0, |slot| slot.version.load(Relaxed))
    }

    /// Whether a branch has an open window.
    pub fn has_window(&self, branch: usize) -> bool {
        self.slot(branch)
            .is_some_and(|slot| slot.window.load(Relaxed) > 0)
    }

    /// When a branch has last failed, and the place of the error among the codes, if it has.
    pub fn error_of(&self, branch: usize) -> Option<(u64, usize)> {
        let slot = self.slot(branch)?;
        let place = usize::try_from(slot.error.load(Relaxed)).ok()?;
        Some((slot.error_at.load(Relaxed), place.checked_sub(1)?))
    }

    /// The name of a branch.
    pub fn name_of(&self, branch: usize) -> Option<&Text> {
        self.slot(branch)?.name.get()
    }

    /// A leg over all branches.
    pub fn leg(&self, leg: usize) -> Option<LegValues> {
        let slot = self.legs.get(leg)?;
        Some(LegValues {
            inside: slot.inside.load(Relaxed),
            passed: slot.passed.load(Relaxed),
            retried: slot.retried.load(Relaxed),
            dropped: slot.dropped.load(Relaxed),
            in_flight: slot.in_flight.load(Relaxed),
            durations: std::array::from_fn(|place| slot.durations[place].load(Relaxed)),
        })
    }

    /// How many legs there are.
    pub const fn legs(&self) -> usize {
        self.legs.len()
    }

    /// What is told whole.
    pub fn told<T>(&self, read: impl FnOnce(&Told) -> T) -> T {
        read(&locked(&self.told))
    }

    fn slot(&self, branch: usize) -> Option<&Slot> {
        let (chunk, place) = locate(branch);
        self.chunks.get(chunk)?.get()?.get(place)
    }
}

/// The chunk of a branch, and its place there.
const fn locate(branch: usize) -> (usize, usize) {
    if branch < FIRST {
        (0, branch)
    } else {
        (1 + (branch - FIRST) / CHUNK, (branch - FIRST) % CHUNK)
    }
}

mod told;

pub use told::{ErrorCount, StageTold, Sums, Told};

#[cfg(test)]
mod tests;
