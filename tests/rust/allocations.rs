//! What is not used costs nothing: allocations counted, the row C20. A test binary of its own, for
//! it brings an allocator.

use std::time::Duration;

use allocation_counter::measure;
use anabranch_core::branch::{BranchId, Command, Own};
use anabranch_core::clock::Time;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{
    Again, BranchOptions, Config, Domain, Engine, Item, LegOptions, OnBranchError, Operator,
    Outcome, Payload, Port, RollbackOptions, Work,
};
use anabranch_core::window::WindowOptions;

const PORT: Port = Port(0);
const CHUNK: u64 = 250;
const WINDOW: usize = 500;

#[derive(Debug)]
struct Bare;

impl Domain for Bare {
    type Item = u64;
    type Error = ();
    type Undo = u64;

    fn code((): &()) -> &'static str {
        "?"
    }

    fn cancelled((): ()) {}

    fn port(_: &u64) -> Port {
        PORT
    }
}

/// How a driver takes what there is and gives it back.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Item by item, as the workers of a plain handler do.
    Plain,
    /// Many at once, as those of a sequential one do.
    Batches,
    /// Any unit, as all others do.
    Units,
    /// The same, where each unit registers an undo action.
    Registering,
}

fn leg() -> LegOptions {
    LegOptions {
        window: None,
        capacity: 1000,
        isolate: true,
        concurrency: 1,
        ordered: true,
        throttle: None,
        heartbeat: None,
        retry: None,
        timeout: None,
        grace: Duration::ZERO,
        port: PORT,
        operator: None,
        course: 0,
        copies: None,
    }
}

fn config(legs: Vec<LegOptions>, on_error: OnBranchError) -> Config {
    Config {
        legs,
        fan_leg: 0,
        ports: 1,
        max_in_flight: 256,
        stop_on_error: false,
        seed: 7,
        epoch: Duration::ZERO,
        rollback: RollbackOptions::default(),
        branches: BranchOptions {
            on_error,
            ..BranchOptions::default()
        },
    }
}

struct Job {
    engine: Engine<Bare>,
    branches: Vec<BranchId>,
    way: Way,
    orders: u64,
}

impl Job {
    fn new(way: Way, windowed: bool) -> Self {
        let window = WindowOptions {
            max_items: Some(WINDOW),
            ..WindowOptions::default()
        };
        let leg = LegOptions {
            window: windowed.then_some(window),
            ..leg()
        };
        let mut engine = Engine::new(config(vec![leg], OnBranchError::Continue));
        let branches = (0..10)
            .map(|_| engine.open_branch(Own::default(), Time::ZERO))
            .collect();
        Self {
            engine,
            branches,
            way,
            orders: 0,
        }
    }

    fn run(&mut self, items: u64) {
        let now = Time::ZERO;
        for _ in 0..items / CHUNK {
            let branches = self.branches.iter().copied().cycle();
            self.engine.received(CHUNK);
            self.engine.offer_plain(0, branches.zip(0..CHUNK), now);
            while self.handle(now) {}
            self.engine.poll(now);
            drop(self.engine.take_graveyard());
        }
    }

    fn handle(&mut self, now: Time) -> bool {
        if matches!(self.way, Way::Batches) {
            let Some(batch) = self.engine.next_batch(PORT, 64, now) else {
                return false;
            };
            let items = batch.values.len();
            self.engine
                .complete_batch(batch.branch, batch.leg, (items, 0), now);
            return true;
        }
        let unit = match self.engine.next(PORT, now) {
            Some(Work::Unit(unit)) => unit,
            Some(Work::Undo(turn)) => {
                self.engine.complete_undo(turn, None, None, now);
                return true;
            }
            None => return false,
        };
        match self.way {
            Way::Plain if matches!(unit.payload, Payload::One(_)) => {
                self.engine.complete_last(unit, now);
            }
            Way::Registering => {
                self.orders += 1;
                let mut scope = Scope::default();
                scope.register(self.orders, self.orders);
                let registered = Some(Box::new(scope));
                self.engine
                    .complete(unit, Outcome::Done(Vec::new()), registered, now);
            }
            _ => self
                .engine
                .complete(unit, Outcome::Done(Vec::new()), None, now),
        }
        true
    }
}

/// Allocations over so many items, once all has the size it keeps.
fn allocations(way: Way, windowed: bool, items: u64) -> u64 {
    let mut job = Job::new(way, windowed);
    job.run(20_000);
    let counted = measure(|| job.run(items));
    assert_eq!(job.engine.counts().committed, 20_000 + items);
    counted.count_total
}

#[test]
fn c20_an_item_costs_no_allocation_where_nothing_is_registered() {
    assert_eq!(allocations(Way::Plain, false, 100_000), 0);
    // What is dropped is collected in the graveyard, once a chunk.
    let chunks = 100_000 / CHUNK;
    let units = allocations(Way::Units, false, 100_000);
    assert!(units <= 10 * chunks, "{units} in {chunks} chunks");
    // A batch is a list.
    let batches = allocations(Way::Batches, false, 100_000);
    assert!(batches <= 10 * chunks, "{batches} in {chunks} chunks");
}

#[test]
fn c20_a_window_costs_as_many_allocations_however_many_items_it_has() {
    let windows = 100_000 / WINDOW as u64;
    let counted = allocations(Way::Units, true, 100_000);
    assert!(counted <= 10 * windows, "{counted} in {windows} windows");
}

#[test]
fn c20_a_registration_costs_four_allocations_and_only_where_it_is() {
    let without = allocations(Way::Units, false, 10_000);
    let with = allocations(Way::Registering, false, 10_000);
    let more = with - without;
    assert!((40_000..41_000).contains(&more), "{more} more");
}

/// Two items fail or not; what takes their failures recovers them or not; every fifth time their
/// branch ends and comes back.
fn streak(engine: &mut Engine<Bare>, branch: BranchId, number: u64) {
    let now = Time::ZERO;
    engine.received(2);
    for item in 0..2 {
        engine.offer(0, branch, Item::new(item), now);
    }
    let mut draw = number;
    while let Some(Work::Unit(unit)) = engine.next(PORT, now) {
        let outcome = if draw.is_multiple_of(2) {
            Outcome::Done(Vec::new())
        } else {
            let again = Again::No;
            Outcome::Failed { error: (), again }
        };
        draw /= 2;
        engine.complete(unit, outcome, None, now);
        for (leg, failed) in engine.take_failures() {
            let item = Item::of_failure(2, &failed);
            engine.offer(leg, failed.branch, item, now);
        }
    }
    if number.is_multiple_of(5) {
        let _ = engine.obey(branch, Command::Restart, now);
    }
    engine.poll(now);
    for _ in engine.take_news() {
        engine.reopen(branch, Own::default(), now);
    }
    drop((engine.take_turns(), engine.take_graveyard()));
}

#[test]
fn b7_streaks_of_failures_leave_nothing_behind() {
    let legs = vec![
        leg(),
        LegOptions {
            operator: Some(Operator::Recover),
            ..leg()
        },
    ];
    let mut engine = Engine::new(config(legs, OnBranchError::Fail { after: u32::MAX }));
    let branch = engine.open_branch(Own::default(), Time::ZERO);
    for number in 0..1000 {
        streak(&mut engine, branch, number);
    }
    let left = measure(|| {
        for number in 1000..6000 {
            streak(&mut engine, branch, number);
        }
    });
    let counts = engine.counts();
    assert!(
        counts.recovered > 1000 && counts.failed > 1000,
        "{counts:?}"
    );
    assert!(left.count_current < 10, "{left:?}");
}
