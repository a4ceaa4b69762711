//! What a pipeline must do, written down without the engine: a ledger that hears of every step
//! and says whether the engine could take it.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_core::branch::{BranchId, State, WINDOW_OUTPUT};
use anabranch_core::engine::{
    Batch, BranchOptions, Config, Engine, LegOptions, Operator, Port, Unit,
};

use crate::deeds::Deeds;
use crate::draws::MOST_BATCH;
use crate::driver::{Lab, numbers};
use crate::held::Held;

pub(crate) type LaneId = (BranchId, usize);

/// What is known of one event.
#[derive(Debug, Default, Clone)]
struct Fact {
    /// Its place in the order of offers.
    offered: u64,
    weight: u64,
    /// Undo actions that travel with it.
    scope: Held,
    /// The leg it was made at.
    made_at: usize,
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
    /// The youngest output that went on from here, by where to.
    passed: BTreeMap<usize, (u64, usize)>,
    with_handler: u32,
}

/// What is known of one unit with a handler.
#[derive(Debug)]
pub(crate) struct Handed {
    place: u64,
    pub(crate) scope: Held,
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
    /// Branches, legs and weights of units in back-off or on their way there, by their first event.
    backing_off: BTreeMap<u64, (BranchId, usize, u64)>,
    pub(crate) deeds: Deeds,
    /// Items whose failure is on its way to an operator.
    heading: u64,
    /// Items, as the report must count them.
    pub(crate) routed: BTreeMap<BranchId, u64>,
    pub(crate) committed: u64,
    pub(crate) filtered: u64,
    pub(crate) failed: u64,
    pub(crate) recovered: u64,
    pub(crate) dead_lettered: u64,
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
            deeds: Deeds::new(config),
            heading: 0,
            routed: BTreeMap::new(),
            committed: 0,
            filtered: 0,
            failed: 0,
            recovered: 0,
            dead_lettered: 0,
            retried: 0,
            ended: false,
            aborted: false,
            lively: config.branches != BranchOptions::default()
                || config
                    .legs
                    .iter()
                    .any(|leg| leg.throttle.is_some() || leg.operator.is_some()),
            broken: BTreeSet::new(),
            breaks: false,
        }
    }

    /// The leg that fresh items come to.
    pub(crate) fn entry(&self) -> Option<usize> {
        self.legs.iter().position(|leg| leg.operator.is_none())
    }

    /// The handler that what arrives at `leg` goes to.
    pub(crate) fn handler(&self, leg: usize) -> Option<usize> {
        if self.legs[leg].operator.is_none() {
            return Some(leg);
        }
        self.next(leg)
    }

    /// The next handler of the same course.
    fn next(&self, leg: usize) -> Option<usize> {
        let course = self.legs[leg].course;
        let fits = |next: &usize| {
            let next = &self.legs[*next];
            next.operator.is_none() && next.course == course
        };
        (leg + 1..self.legs.len()).find(fits)
    }

    /// Whether an operator from the leg `behind` on takes what fails at `at`.
    fn is_heard(&self, at: usize, behind: usize) -> bool {
        let last = self.legs.iter().rposition(|leg| leg.operator.is_none());
        let course = self.legs[at].course;
        let mut legs = self.legs.iter().enumerate().skip(behind);
        legs.any(|(at, leg)| leg.operator.is_some() && (leg.course == course || Some(at) > last))
    }

    /// Whether a port serves the sink alone, and so may ask for batches.
    pub(crate) fn is_sink(&self, port: Port) -> bool {
        let mut legs = self.legs.iter().enumerate();
        legs.all(|(leg, options)| {
            let sink = options.operator.is_none() && self.next(leg).is_none();
            sink || options.port != port
        })
    }

    /// So many items fail at a leg, and an operator from the leg `behind` on may take them.
    fn fail(&mut self, (at, behind): (usize, usize), weight: u64) {
        if !self.aborted && self.is_heard(at, behind) {
            self.heading += weight;
        } else {
            self.failed += weight;
        }
    }

    /// The driver has taken a failure on its way.
    pub(crate) const fn taken(&mut self, weight: u64) {
        self.heading -= weight;
    }

    /// No operator takes it: it has failed.
    pub(crate) const fn lost(&mut self, weight: u64) {
        self.failed += weight;
    }

    /// A failure becomes an event for its operator.
    pub(crate) fn failure(&mut self, number: u64, weight: u64) {
        let fact = Fact {
            weight,
            ..Fact::default()
        };
        self.events.insert(number, fact);
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
        if self.legs[lane.1].operator.is_none() {
            self.lanes.entry(lane).or_default().waiting += 1;
        }
    }

    /// A stage of the driver's takes an event out, or fails at it.
    pub(crate) fn ended_outside(&mut self, number: u64, failed: Option<(usize, usize)>) {
        let fact = self.events[&number].clone();
        if let Some(at) = failed {
            self.fail(at, fact.weight);
        } else {
            self.filtered += fact.weight;
            self.deeds.holding.release(fact.scope);
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
        if unit.attempt == 1 && leg.operator.is_some() {
            // Failures come in any order, some to the lanes of the trunk.
            lane.handed += 1;
            self.places.insert(numbers[0], lane.handed);
            lane.latest.1 = numbers;
        } else if unit.attempt == 1 {
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
        let operator = self.legs[unit.leg].operator;
        if operator == Some(Operator::Recover) {
            self.recovered += weight;
        }
        if operator == Some(Operator::DeadLetter) {
            self.dead_lettered += weight;
            self.deeds.holding.release(scope);
            return;
        }
        if self.next(unit.leg).is_none() {
            self.committed += weight;
            self.deeds.holding.release(scope);
            return;
        }
        if outputs.is_empty() {
            self.filtered += weight;
            self.deeds.holding.release(scope);
            return;
        }
        let copied = self.legs[unit.leg].copies.is_some();
        let scope = self.deeds.holding.share(scope, outputs.len());
        self.between += outputs.len();
        for (index, number) in outputs.iter().enumerate() {
            let fact = Fact {
                offered: 0,
                weight: if index == 0 || copied { weight } else { 1 },
                scope: scope.clone(),
                made_at: unit.leg,
                born: (handed.place, index),
            };
            self.events.insert(*number, fact);
        }
    }

    /// The engine hands out a batch.
    pub(crate) fn batch_handed(&mut self, batch: &Batch<Lab>) {
        let lane = self.lanes.entry((batch.branch, batch.leg)).or_default();
        lane.with_handler += 1;
        self.in_flight += 1;
        assert!(self.in_flight <= self.max_in_flight, "T11: per pipeline");
        for value in &batch.values {
            let fact = &self.events[&value.0];
            assert!(fact.scope.orders.is_empty(), "its actions would be lost");
            assert!(
                fact.offered > lane.latest.0,
                "W6, B3: order in is order out"
            );
            lane.latest.0 = fact.offered;
        }
        lane.waiting -= batch.values.len();
    }

    /// A batch comes back; all has been handled, or what has, what is in hand and the rest.
    pub(crate) fn batch_ended(
        &mut self,
        lane: LaneId,
        (handled, filtered): (usize, usize),
        broken: Option<(u64, usize)>,
    ) {
        self.committed += (handled - filtered) as u64;
        self.filtered += filtered as u64;
        let requeued = !self.aborted && !self.broken.contains(&lane.0);
        let lane = self.lanes.entry(lane).or_default();
        if let Some((current, rest)) = broken {
            lane.handed += 1;
            self.places.insert(current, lane.handed);
            lane.latest = (self.events[&current].offered, vec![current]);
            lane.waiting += if requeued { rest } else { 0 };
        } else {
            lane.with_handler -= 1;
            self.in_flight -= 1;
        }
    }

    /// An attempt failed; says nothing about what upstream registered.
    pub(crate) fn failed(&mut self, unit: &Unit<Lab>, retryable: bool) {
        let leg = &self.legs[unit.leg];
        let attempts = leg.retry.as_ref().map_or(1, |retry| retry.attempts);
        let broken = leg.operator.is_none() && self.broken.contains(&unit.branch);
        let over = self.aborted || broken;
        let weight = u64::from(unit.weight);
        if retryable && unit.attempt < attempts && !over {
            let backs_off = (unit.branch, unit.leg, weight);
            self.backing_off.insert(numbers(unit)[0], backs_off);
        } else {
            self.fail((unit.leg, unit.leg + 1), weight);
        }
    }

    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        let backing_off = std::mem::take(&mut self.backing_off).into_values();
        self.failed += backing_off.map(|(.., weight)| weight).sum::<u64>();
        self.failed += std::mem::take(&mut self.heading);
    }

    /// What a branch is doing now.
    ///
    /// One that has failed gives up what was begun until its generation has ended, though it is told
    /// to go or to open again meanwhile.
    pub(crate) fn branch_is(&mut self, branch: BranchId, state: State) {
        if !matches!(state, State::Failed | State::Removed | State::Draining) {
            self.broken.remove(&branch);
        } else if state == State::Failed && self.broken.insert(branch) {
            self.breaks = true;
            for (number, unit) in std::mem::take(&mut self.backing_off) {
                let (of, leg, weight) = unit;
                if of == branch && self.legs[leg].operator.is_none() {
                    self.fail((leg, leg + 1), weight);
                } else {
                    self.backing_off.insert(number, unit);
                }
            }
        }
    }

    /// Events were not let in: so many have failed, the others an operator may take.
    pub(crate) fn refused(&mut self, numbers: &[u64], failed: u64) {
        let weights = numbers.iter().map(|number| self.events[number].weight);
        let weight: u64 = weights.sum();
        assert!(failed == 0 || failed == weight, "E8: {failed} of {weight}");
        self.failed += failed;
        self.heading += weight - failed;
    }

    /// An event of `branch` arrives behind the leg it was made at, which is returned.
    pub(crate) fn arrived(&mut self, branch: BranchId, to: usize, number: u64) -> usize {
        self.between -= 1;
        let Fact { born, made_at, .. } = self.events[&number];
        let leg = &self.legs[made_at];
        // What is recovered comes when it comes.
        if leg.operator.is_none() && (leg.ordered || leg.concurrency == 1) {
            let fact = self.lanes.entry((branch, made_at)).or_default();
            let before = fact.passed.insert(to, born);
            assert!(before < Some(born), "T11, B1: {born:?} after {before:?}");
        }
        made_at
    }

    /// What must hold whenever nothing is in the driver's hand but what was handed out. With
    /// `prompt`, the driver offers what arrives before it asks for more.
    pub(crate) fn check(&self, engine: &Engine<Lab>, prompt: bool) {
        let counts = engine.counts();
        assert!(counts.balanced(), "E8: {counts:?}");
        assert_eq!(engine.in_flight(), self.in_flight);
        let certain = (counts.committed, counts.filtered, counts.retried);
        assert_eq!(certain, (self.committed, self.filtered, self.retried));
        let taken = (counts.recovered, counts.dead_lettered);
        assert_eq!(taken, (self.recovered, self.dead_lettered), "T3");
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
                counts.received == routed || !prompt || self.has_operators(),
                "E8: {routed} routed to {counts:?}"
            );
            assert!(counts.balanced(), "E8: {counts:?}");
        }
    }

    /// How many events may wait at a leg: its limit, a window that cannot leave and those that
    /// have, and what was under way when the limit was reached. `None` where only time cuts.
    fn most_waiting(&self, leg: usize) -> Option<usize> {
        let room = self.legs.iter().map(|leg| leg.capacity).min()?;
        let course = self.legs[leg].course;
        let same = (0..leg).rfind(|before| self.legs[*before].course == course);
        let under_way = match same.or_else(|| leg.checked_sub(1)) {
            Some(before) => 3 * self.legs[before].concurrency as usize,
            None => room,
        };
        let leg = &self.legs[leg];
        let windows = match &leg.window {
            Some(window) => window.max_items? * (WINDOW_OUTPUT + 1),
            None => 0,
        };
        let more = if leg.isolate { leg.capacity / 4 } else { 0 };
        // What a broken batch gives back was let in before.
        Some(leg.capacity + more + windows + under_way + MOST_BATCH)
    }

    /// How many outputs are between two legs; an abort may give them up.
    pub(crate) fn on_the_way(&self) -> usize {
        if self.aborted { 0 } else { self.between }
    }

    pub(crate) fn has_operators(&self) -> bool {
        self.legs.iter().any(|leg| leg.operator.is_some())
    }

    /// What must hold once all has ended.
    pub(crate) fn check_end(&self, engine: &Engine<Lab>) {
        assert_eq!((engine.in_flight(), engine.timers()), (0, 0));
        assert_eq!(engine.counts().failed, self.failed);
        assert!(self.backing_off.is_empty());
        for (branch, counts) in engine.branch_counts().skip(1) {
            let routed = self.routed.get(&branch).copied().unwrap_or(0);
            assert_eq!(counts.received, routed, "E8: of {branch:?}");
        }
        self.deeds.check_end(engine);
    }
}
