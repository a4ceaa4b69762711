//! One tenant's course through the stages behind the fan-out, and the trunk before it.
//!
//! A [`Branch`] is a row of lanes, one per leg of the pipeline it passes. A lane is the place
//! where items wait for their handler: a bounded queue, the window if the leg has one, and the
//! windows that have left and wait to be handled.
//!
//! ```text
//! arrive --> [queue] --> (throttle) --> (window) --> [cut, at most 2] --> in flight --> next leg
//! ```
//!
//! - `branch/life.rs`: the states of a branch, and what may be asked of it.

mod life;

use std::collections::VecDeque;

pub use life::{Change, Command, Misfit, News, State};
pub(crate) use life::{Ending, Life};

use crate::channel::OnFull;
use crate::clock::Time;
use crate::compensation::Scope;
use crate::engine::{BranchOptions, DURATIONS, Domain, Item, LegOptions, Payload, Unit};
use crate::report::Counts;
use crate::throttle::Bucket;
use crate::window::{Reason, Window};

/// Windows that may wait for their handler; beyond them the lane fills up.
pub const WINDOW_OUTPUT: usize = 2;

/// A branch's number within its pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BranchId(pub u32);

impl BranchId {
    /// The course before the fan-out, and all of a pipeline that has none.
    pub const TRUNK: Self = Self(0);

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One course through the legs from `first` on.
#[derive(Debug)]
pub struct Branch<D: Domain> {
    pub(crate) lanes: Vec<Lane<D>>,
    pub(crate) first: usize,
    /// The leg that its items come to; before it are only legs that take failures.
    pub(crate) entry: usize,
    /// What happened here so far; what waits is added when someone asks.
    pub(crate) counts: Counts,
    /// Source items in units handed out, or on their way from one leg to the next.
    pub(crate) outside: u64,
    /// What was registered for the branch as a whole.
    pub(crate) scope: Option<Box<Scope<D::Undo>>>,
    /// The legs that nothing can reach any more because the branch is drained: those before it.
    pub(crate) shut: usize,
    /// The code of its last failure.
    pub(crate) last_error: Option<Box<str>>,
    /// Undo actions that have run.
    pub(crate) undone: u64,
    /// How many attempts took how long, while somebody looks at it.
    pub(crate) durations: Option<Box<[u64; DURATIONS]>>,
    pub(crate) life: Life<D>,
}

/// What a branch has of its own, in the place of what its pipeline says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Items that may wait at each leg.
    pub capacity: Option<usize>,
    /// What becomes of an item that finds it full.
    pub on_full: Option<OnFull>,
    /// How many units it hands out in one turn.
    pub weight: Option<u16>,
}

impl<D: Domain> Branch<D> {
    pub(crate) fn new(
        first: usize,
        legs: &[LegOptions],
        own: Own,
        options: &BranchOptions,
        now: Time,
    ) -> Self {
        Self {
            lanes: Lane::row(legs, own, options),
            first,
            entry: first + entry(legs),
            counts: Counts::default(),
            outside: 0,
            scope: None,
            shut: 0,
            last_error: None,
            undone: 0,
            durations: None,
            life: Life::new(now),
        }
    }

    /// Whether nothing is inside, nor on its way between two legs.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.outside == 0 && self.lanes.iter().all(Lane::is_vacant)
    }

    /// The counts with what is still inside.
    pub(crate) fn counts(&self) -> Counts {
        let waiting: u64 = self.lanes.iter().map(Lane::waiting).sum();
        let next = self
            .life
            .next()
            .iter()
            .map(|(_, item)| u64::from(item.weight));
        Counts {
            left: self.counts.left + self.outside + waiting + next.sum::<u64>(),
            ..self.counts
        }
    }
}

/// The first of these legs that takes items.
fn entry(legs: &[LegOptions]) -> usize {
    let takes_items = |leg: &LegOptions| leg.operator.is_none();
    legs.iter().position(takes_items).unwrap_or(0)
}

/// The outputs of one unit of an ordered leg, held until those before it are out.
#[derive(Debug)]
pub(crate) enum Slot<D: Domain> {
    Pending,
    Filled(Vec<Item<D>>),
}

/// Where the items of one branch wait for the handler of one leg.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of its own, and a byte"
)]
#[derive(Debug)]
pub struct Lane<D: Domain> {
    pub(crate) queue: VecDeque<Item<D>>,
    /// Items that may wait here.
    pub(crate) capacity: usize,
    /// Queue length that stalls what feeds the lane.
    pub(crate) limit: usize,
    pub(crate) window: Option<Window<D>>,
    pub(crate) cut: VecDeque<Unit<D>>,
    /// Units handed out and not yet ended, those in back-off or being undone included.
    pub(crate) in_flight: u32,
    /// Whether the lane stands in one of the engine's rings.
    pub(crate) listed: bool,
    /// Units it may hand out before it is the turn of others.
    pub(crate) weight: u16,
    /// Units handed out in this turn.
    pub(crate) turn: u16,
    /// Whether the queue is past its limit, which stalls what feeds it.
    pub(crate) over: bool,
    /// Whether it stalls other branches, too, by way of what feeds them all.
    pub(crate) stalls: bool,
    /// Whether it has stalled them for so long that it does not any more, until it has room.
    pub(crate) overrun: bool,
    /// What becomes of an item that finds the queue full.
    pub(crate) on_full: OnFull,
    /// Since when it has been over.
    pub(crate) since: Time,
    /// What holds units back so that they are not handed out too fast.
    pub(crate) bucket: Option<Box<Bucket>>,
    /// Whether the bucket was found empty: until its timer has gone off, nobody looks again.
    pub(crate) dry: bool,
    /// Whether that timer is set.
    pub(crate) timed: bool,
    /// Ordered legs only: a slot per unit in flight, the oldest first.
    pub(crate) slots: VecDeque<Slot<D>>,
    /// Number of the oldest slot.
    pub(crate) head: u32,
    /// The streaks of failures in front of the handler and at it; 0: none.
    pub(crate) streaks: [u32; 2],
    /// Why its last window left.
    pub(crate) left: Option<Reason>,
}

impl<D: Domain> Lane<D> {
    /// The lanes of a branch that passes these legs; what it has of its own takes the place of
    /// what is said of all.
    ///
    /// Only what arrives at the first that takes items may be dropped or refused: behind it each
    /// lane holds back the one before, and failures are never given up.
    pub(crate) fn row(legs: &[LegOptions], own: Own, options: &BranchOptions) -> Vec<Self> {
        let on_full = own.on_full.unwrap_or(options.on_full);
        let weight = own.weight.unwrap_or(options.weight);
        let waits = on_full == OnFull::Wait;
        let entry = entry(legs);
        let lanes = legs.iter().enumerate().map(|(place, leg)| {
            let on_full = if place == entry {
                on_full
            } else {
                OnFull::Wait
            };
            let stalls = waits || leg.operator.is_some();
            Self {
                weight,
                stalls,
                ..Self::new(leg, own.capacity.unwrap_or(leg.capacity), on_full)
            }
        });
        lanes.collect()
    }

    fn new(leg: &LegOptions, capacity: usize, on_full: OnFull) -> Self {
        Self {
            queue: VecDeque::new(),
            capacity,
            limit: Self::limit(leg, capacity, on_full),
            stalls: true,
            overrun: false,
            on_full,
            since: Time::ZERO,
            bucket: leg.throttle.map(|rate| Box::new(Bucket::new(rate))),
            dry: false,
            timed: false,
            window: leg.window.as_ref().map(|_| Window::default()),
            cut: VecDeque::new(),
            in_flight: 0,
            listed: false,
            weight: 1,
            turn: 0,
            over: false,
            slots: VecDeque::new(),
            head: 0,
            streaks: [0; 2],
            left: None,
        }
    }

    fn limit(leg: &LegOptions, capacity: usize, on_full: OnFull) -> usize {
        // The quarter more is there to spare the others; what drops or fails spares them anyway.
        let more = if leg.isolate && on_full == OnFull::Wait {
            capacity / 4
        } else {
            0
        };
        capacity + more
    }

    /// Whether nothing waits here, and no unit from here is under way.
    pub(crate) fn is_vacant(&self) -> bool {
        self.in_flight == 0
            && self.queue.is_empty()
            && self.cut.is_empty()
            && self.slots.is_empty()
            && self.window.as_ref().is_none_or(Window::is_empty)
    }

    /// Whether an item that finds the queue full is not let in.
    pub(crate) fn turns_down(&self) -> bool {
        self.on_full != OnFull::Wait || self.overrun
    }

    /// Whether it is one of those that feeds wait for now.
    pub(crate) const fn counts_as_over(&self) -> bool {
        self.over && self.stalls && !self.overrun
    }

    /// Whether a unit could be handed out now.
    pub(crate) fn dispatchable(&self, leg: &LegOptions) -> bool {
        let busy = if leg.reorders() {
            self.slots.len()
        } else {
            self.in_flight as usize
        };
        busy < leg.concurrency as usize
            && if self.window.is_some() {
                !self.cut.is_empty()
            } else {
                !self.queue.is_empty() && !self.dry
            }
    }

    /// So many units of its turn are used. A lane that runs empty has ended its turn, so that
    /// nobody saves up.
    pub(crate) fn use_turn(&mut self, units: u16) {
        let empty = self.queue.is_empty() && self.cut.is_empty();
        self.turn = if empty {
            0
        } else {
            self.turn.saturating_add(units).min(self.weight)
        };
    }

    /// Whether its turn goes on: it has begun, and is not used up.
    pub(crate) const fn keeps_its_turn(&self) -> bool {
        0 < self.turn && self.turn < self.weight
    }

    /// Whether another window may leave.
    pub(crate) fn has_room(&self) -> bool {
        self.cut.len() < WINDOW_OUTPUT
    }

    /// Moves queued items into the window, and lets it leave each time it is due, while there is
    /// room for the windows that leave.
    ///
    /// Returns how many did.
    pub(crate) fn fill(&mut self, at: (BranchId, usize), leg: &LegOptions, now: Time) -> u64 {
        let (Some(window), Some(options)) = (&mut self.window, &leg.window) else {
            return 0;
        };
        let mut left = 0;
        loop {
            if let Some(reason) = window.due() {
                if self.cut.len() >= WINDOW_OUTPUT {
                    return left;
                }
                if self.cut.capacity() == 0 {
                    // By itself it would make room for four, which is much for an idle branch.
                    self.cut.reserve_exact(WINDOW_OUTPUT);
                }
                self.left = Some(reason);
                self.cut
                    .push_back(Unit::of_window(at, window.cut(reason, now)));
                left += 1;
            }
            if self.dry || self.queue.is_empty() {
                return left;
            }
            if let Some(bucket) = &mut self.bucket
                && !bucket.take(now)
            {
                self.dry = true;
                return left;
            }
            let Some(item) = self.queue.pop_front() else {
                return left;
            };
            window.push(item, options, now);
        }
    }

    /// Takes the next unit out.
    pub(crate) fn take(&mut self, at: (BranchId, usize), leg: &LegOptions) -> Option<Unit<D>> {
        let mut unit = if self.window.is_some() {
            self.cut.pop_front()?
        } else {
            Unit::of_item(at, self.queue.pop_front()?)
        };
        self.in_flight += 1;
        self.use_turn(1);
        if leg.reorders() {
            unit.slot = self
                .head
                .wrapping_add(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
            self.slots.push_back(Slot::Pending);
        }
        Some(unit)
    }

    /// Keeps the outputs of a unit until it is their turn.
    pub(crate) fn hold(&mut self, slot: u32, outputs: Vec<Item<D>>) {
        if let Some(place) = self.slots.get_mut(slot.wrapping_sub(self.head) as usize) {
            *place = Slot::Filled(outputs);
        }
    }

    /// The outputs whose turn it is, of one unit after the other.
    pub(crate) fn turn(&mut self) -> Option<Vec<Item<D>>> {
        match self.slots.pop_front()? {
            Slot::Filled(items) => {
                self.head = self.head.wrapping_add(1);
                Some(items)
            }
            Slot::Pending => {
                self.slots.push_front(Slot::Pending);
                None
            }
        }
    }

    /// Source items waiting here, those in flight not included.
    fn waiting(&self) -> u64 {
        let held = self.slots.iter().flat_map(|slot| match slot {
            Slot::Pending => &[][..],
            Slot::Filled(items) => items,
        });
        let single = self.queue.iter().chain(held).map(|item| item.weight);
        let buffered = self.window.iter().map(Window::weight);
        let cut = self.cut.iter().map(|unit| unit.weight);
        single.chain(buffered).chain(cut).map(u64::from).sum()
    }
}

impl<T> Payload<T> {
    /// How many places of its leg a unit takes.
    pub(crate) const fn entries(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(values) => values.len(),
            Self::Sealed { entries, .. } => *entries,
        }
    }
}
