//! What a pipeline must do, written down without the engine: a ledger that hears of every step
//! and says whether the engine could take it.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::branch::{BranchId, WINDOW_OUTPUT};
use anabranch_core::engine::{BranchOptions, Config, Engine, LegOptions, RollbackId, Unit};

use crate::driver::{Lab, Undo, numbers};
use crate::held::{Held, Holding};

pub(crate) type LaneId = (BranchId, usize);

/// What is known of one event.
#[derive(Debug, Default, Clone)]
struct Fact {
    /// Its place in the order of offers.
    offered: u64,
    weight: u64,
    /// Undo actions that travel with it.
    scope: Held,
    /// Its parent's place in the order its lane handed units out, and its own among the outputs.
    born: (u64, usize),
}

/// What is known of one lane.
#[derive(Debug, Default)]
struct LaneFact {
    /// Units handed out so far.
    handed: u64,
    /// The youngest offer handed out, and the events of the unit it was in.
    latest: (u64, Vec<u64>),
    /// Events offered and not handed out yet.
    waiting: usize,
    /// The youngest output that went on from here.
    passed: Option<(u64, usize)>,
    with_handler: u32,
}

/// What is known of one unit with a handler.
#[derive(Debug)]
pub(crate) struct Handed {
    place: u64,
    scope: Held,
}

#[expect(clippy::struct_excessive_bools, reason = "what has happened so far")]
#[derive(Debug)]
pub(crate) struct Ledger {
    legs: Vec<LegOptions>,
    max_in_flight: usize,
    events: BTreeMap<u64, Fact>,
    offers: u64,
    lanes: BTreeMap<LaneId, LaneFact>,
    /// Each unit's place in its lane, by its first event: a retried unit keeps it.
    places: BTreeMap<u64, u64>,
    in_flight: usize,
    /// Outputs made and not arrived at the next leg.
    between: usize,
    /// Branches and weights of units in back-off or on their way there, by their first event.
    backing_off: BTreeMap<u64, (BranchId, u64)>,
    rollbacks: BTreeMap<RollbackId, (u32, u64)>,
    registered: BTreeMap<u64, u32>,
    holding: Holding,
    ran: BTreeSet<u64>,
    /// Items, as the report must count them.
    pub(crate) routed: BTreeMap<BranchId, u64>,
    pub(crate) committed: u64,
    pub(crate) filtered: u64,
    pub(crate) failed: u64,
    pub(crate) retried: u64,
    pub(crate) ended: bool,
    pub(crate) aborted: bool,
    /// Whether branches are commanded, or do more than wait: then what is bounded is not checked.
    pub(crate) lively: bool,
    /// Branches that have failed.
    broken: BTreeSet<BranchId>,
    /// Whether there ever was one.
    breaks: bool,
}

impl Ledger {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            legs: config.legs.clone(),
            max_in_flight: config.max_in_flight,
            events: BTreeMap::new(),
            offers: 0,
            lanes: BTreeMap::new(),
            places: BTreeMap::new(),
            in_flight: 0,
            between: 0,
            backing_off: BTreeMap::new(),
            rollbacks: BTreeMap::new(),
            registered: BTreeMap::new(),
            holding: Holding::default(),
            ran: BTreeSet::new(),
            routed: BTreeMap::new(),
            committed: 0,
            filtered: 0,
            failed: 0,
            retried: 0,
            ended: false,
            aborted: false,
            lively: config.branches != BranchOptions::default()
                || config.legs.iter().any(|leg| leg.throttle.is_some()),
            broken: BTreeSet::new(),
            breaks: false,
        }
    }

    /// A handler or a stage registers an action; `pass` is how many playbacks lie before it.
    pub(crate) fn register(&mut self, order: u64, pass: u32) {
        self.registered.insert(order, pass);
    }

    pub(crate) fn source_event(&mut self, number: u64, orders: Vec<u64>) {
        let scope = Held::alone(orders);
        self.events.insert(
            number,
            Fact {
                weight: 1,
                scope,
                ..Fact::default()
            },
        );
    }

    pub(crate) fn offered(&mut self, lane: LaneId, number: u64) {
        self.offers += 1;
        if let Some(fact) = self.events.get_mut(&number) {
            fact.offered = self.offers;
        }
        self.lanes.entry(lane).or_default().waiting += 1;
    }

    /// A stage of the driver's takes an event out, or fails at it.
    pub(crate) fn ended_outside(&mut self, number: u64, failed: bool) {
        let fact = self.events[&number].clone();
        if failed {
            self.failed += fact.weight;
        } else {
            self.filtered += fact.weight;
            self.holding.release(fact.scope);
        }
    }

    /// The events of a unit become one value.
    pub(crate) fn sealed(&mut self, lane: LaneId, of: &[u64], number: u64) {
        let first = self.events[&of[0]].clone();
        let scope = Held::of(of.iter().map(|number| self.events[number].scope.clone()));
        let weight = of.iter().map(|number| self.events[number].weight).sum();
        self.events.insert(
            number,
            Fact {
                weight,
                scope,
                ..first
            },
        );
        self.places.insert(number, self.places[&of[0]]);
        let lane = self.lanes.entry(lane).or_default();
        if lane.latest.1 == of {
            lane.latest.1 = vec![number];
        }
    }

    /// The engine hands a unit out.
    pub(crate) fn handed(&mut self, unit: &Unit<Lab>) {
        let numbers = numbers(unit);
        let leg = &self.legs[unit.leg];
        let lane = self.lanes.entry((unit.branch, unit.leg)).or_default();
        lane.with_handler += 1;
        assert!(lane.with_handler <= leg.concurrency, "T11: per branch");
        self.in_flight += 1;
        assert!(self.in_flight <= self.max_in_flight, "T11: per pipeline");
        let scope: usize = numbers
            .iter()
            .map(|number| self.events[number].scope.orders.len())
            .sum();
        assert_eq!(
            unit.scope.as_ref().map_or(0, |scope| scope.steps().len()),
            scope,
            "C17: scope"
        );
        let weight: u64 = numbers
            .iter()
            .map(|number| self.events[number].weight)
            .sum();
        assert_eq!(u64::from(unit.weight), weight, "W18: weight");
        if unit.attempt == 1 {
            for number in &numbers {
                let offered = self.events[number].offered;
                assert!(offered > lane.latest.0, "W6, B3: order in is order out");
                lane.latest.0 = offered;
            }
            lane.waiting -= numbers.len();
            lane.handed += 1;
            self.places.insert(numbers[0], lane.handed);
            if let Some(most) = leg.window.as_ref().and_then(|window| window.max_items) {
                assert!(numbers.len() <= most, "W1: at most max_items");
            }
            lane.latest.1 = numbers;
        } else {
            assert!(!self.aborted, "R7: no attempt after an abort");
            assert!(
                self.backing_off.remove(&numbers[0]).is_some(),
                "R1: only failed units return"
            );
            if leg.concurrency == 1 {
                assert_eq!(
                    numbers, lane.latest.1,
                    "nothing overtakes a unit in back-off"
                );
            }
            self.retried += 1;
        }
    }

    /// A unit comes back. What the returned value says of it outlives it.
    pub(crate) fn came_back(&mut self, unit: &Unit<Lab>) -> Handed {
        if let Some(lane) = self.lanes.get_mut(&(unit.branch, unit.leg)) {
            lane.with_handler -= 1;
        }
        self.in_flight -= 1;
        let numbers = numbers(unit);
        let held = |number: &u64| self.events[number].scope.clone();
        let scope = Held::of(numbers.iter().map(held));
        Handed {
            place: self.places[&numbers[0]],
            scope,
        }
    }

    pub(crate) fn done(
        &mut self,
        unit: &Unit<Lab>,
        handed: &Handed,
        outputs: &[u64],
        registered: &[u64],
    ) {
        let weight = u64::from(unit.weight);
        let mut scope = handed.scope.clone();
        scope.orders.extend(registered);
        if unit.leg + 1 == self.legs.len() {
            self.committed += weight;
            self.holding.release(scope);
            return;
        }
        if outputs.is_empty() {
            self.filtered += weight;
            self.holding.release(scope);
            return;
        }
        let scope = self.holding.share(scope, outputs.len());
        self.between += outputs.len();
        for (index, number) in outputs.iter().enumerate() {
            let fact = Fact {
                offered: 0,
                weight: if index == 0 { weight } else { 1 },
                scope: scope.clone(),
                born: (handed.place, index),
            };
            self.events.insert(*number, fact);
        }
    }

    /// An attempt failed; says nothing about what upstream registered.
    pub(crate) fn failed(&mut self, unit: &Unit<Lab>, retryable: bool) {
        let attempts = self.legs[unit.leg]
            .retry
            .as_ref()
            .map_or(1, |retry| retry.attempts);
        let over = self.aborted || self.broken.contains(&unit.branch);
        if retryable && unit.attempt < attempts && !over {
            let backs_off = (unit.branch, u64::from(unit.weight));
            self.backing_off.insert(numbers(unit)[0], backs_off);
        } else {
            self.failed += u64::from(unit.weight);
        }
    }

    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        let backing_off = std::mem::take(&mut self.backing_off).into_values();
        self.failed += backing_off.map(|(_, weight)| weight).sum::<u64>();
    }

    /// What a branch is doing now.
    pub(crate) fn branch_is(&mut self, branch: BranchId, failed: bool) {
        if !failed {
            self.broken.remove(&branch);
        } else if self.broken.insert(branch) {
            self.breaks = true;
            let failed = &mut self.failed;
            self.backing_off.retain(|_, (of, weight)| {
                *failed += if *of == branch { *weight } else { 0 };
                *of != branch
            });
        }
    }

    /// Events were not let in.
    pub(crate) fn refused(&mut self, numbers: &[u64]) {
        let weights = numbers.iter().map(|number| self.events[number].weight);
        self.failed += weights.sum::<u64>();
    }

    /// An event arrives at the leg behind the one it was made at.
    pub(crate) fn arrived(&mut self, lane: LaneId, number: u64) {
        self.between -= 1;
        let born = self.events[&number].born;
        let leg = &self.legs[lane.1];
        if leg.ordered || leg.concurrency == 1 {
            let fact = self.lanes.entry(lane).or_default();
            assert!(
                fact.passed < Some(born),
                "T11: {born:?} after {:?}",
                fact.passed
            );
            fact.passed = Some(born);
        }
    }

    /// The engine hands an action out; returns how many playbacks lie before what it registers.
    pub(crate) fn undoing(&mut self, rollback: RollbackId, undo: &Undo) -> u32 {
        let pass = self.registered[&undo.0];
        assert!(self.ran.insert(undo.0), "C5: {} runs twice", undo.0);
        assert!(
            !self.holding.released.contains(&undo.0),
            "C11: {} was committed",
            undo.0
        );
        if let Some((last_pass, last)) = self.rollbacks.insert(rollback, (pass, undo.0)) {
            let descends = pass > last_pass || (pass == last_pass && undo.0 < last);
            assert!(
                descends,
                "C1: {} after {last}, passes {pass} and {last_pass}",
                undo.0
            );
        }
        pass + 1
    }

    /// What must hold whenever nothing is in the driver's hand but what was handed out. With
    /// `prompt`, the driver offers what arrives before it asks for more.
    pub(crate) fn check(&self, engine: &Engine<Lab>, prompt: bool) {
        let counts = engine.counts();
        assert!(counts.balanced(), "E8: {counts:?}");
        assert_eq!(engine.in_flight(), self.in_flight);
        let certain = (counts.committed, counts.filtered, counts.retried);
        assert_eq!(certain, (self.committed, self.filtered, self.retried));
        // A unit whose attempt is being undone when the run is aborted, or its branch has failed,
        // fails once that is done.
        let later = self.aborted || self.breaks;
        assert!(
            counts.failed == self.failed || (later && counts.failed < self.failed),
            "{} failed, {counts:?}",
            self.failed
        );
        assert_eq!(
            engine.codes().values().sum::<u64>(),
            counts.failed,
            "T6: codes are exact"
        );
        let windows = self
            .lanes
            .keys()
            .filter(|(_, leg)| self.legs[*leg].window.is_some());
        assert!(
            self.lively || engine.timers() <= windows.count() + self.backing_off.len(),
            "W14: timers"
        );
        for ((_, leg), lane) in self
            .lanes
            .iter()
            .filter(|_| prompt && !self.ended && !self.lively)
        {
            if let Some(most) = self.most_waiting(*leg) {
                assert!(
                    lane.waiting <= most,
                    "B5, W10: {} wait at leg {leg}",
                    lane.waiting
                );
            }
        }
        for (branch, counts) in engine.branch_counts().skip(1) {
            let routed = self.routed.get(&branch).copied().unwrap_or(0);
            assert!(
                counts.received == routed || !prompt,
                "E8: {routed} routed to {counts:?}"
            );
            assert!(counts.balanced(), "E8: {counts:?}");
        }
    }

    /// How many events may wait at a leg: its limit, a window that cannot leave and those that
    /// have, and what was under way when the limit was reached. `None` where only time cuts.
    fn most_waiting(&self, leg: usize) -> Option<usize> {
        let room = self.legs.iter().map(|leg| leg.capacity).min()?;
        let under_way = match leg.checked_sub(1) {
            Some(before) => 3 * self.legs[before].concurrency as usize,
            None => room,
        };
        let leg = &self.legs[leg];
        let windows = match &leg.window {
            Some(window) => window.max_items? * (WINDOW_OUTPUT + 1),
            None => 0,
        };
        let more = if leg.isolate { leg.capacity / 4 } else { 0 };
        Some(leg.capacity + more + windows + under_way)
    }

    /// How many outputs are between two legs; an abort may give them up.
    pub(crate) fn on_the_way(&self) -> usize {
        if self.aborted { 0 } else { self.between }
    }

    /// How many actions ran.
    pub(crate) fn undone(&self) -> u64 {
        self.ran.len() as u64
    }

    /// What must hold once all has ended.
    pub(crate) fn check_end(&self, engine: &Engine<Lab>) {
        assert_eq!((engine.in_flight(), engine.timers()), (0, 0));
        assert_eq!(engine.counts().failed, self.failed);
        assert!(self.backing_off.is_empty());
        let registered: BTreeSet<_> = self.registered.keys().copied().collect();
        let expected: BTreeSet<_> = registered
            .difference(&self.holding.released)
            .copied()
            .collect();
        assert_eq!(
            self.ran, expected,
            "C9, C17: all that was not committed is undone"
        );
    }
}
