//! A for-loop driver on a hand-moved clock, and the types it puts into the engine.
//!
//! It keeps the engine's first law: a value that is dropped while the engine is borrowed fails
//! the test.

use std::cell::Cell;
use std::time::Duration;

use anabranch_core::branch::{BranchId, Command, Misfit, News, Own};
use anabranch_core::clock::Time;
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{
    Again, BranchOptions, Config, Domain, Engine, Graveyard, Item, LegOptions, Outcome, Payload,
    Port, RollbackOptions, Turn, Unit, Why, Work,
};
use anabranch_core::window::{Cut, Reason};

pub(crate) const PORT: Port = Port(0);
/// Monday, 2026-01-05 00:00 UTC: the hand-moved clock begins with a day.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_571_200);

thread_local! {
    static BORROWED: Cell<bool> = const { Cell::new(false) };
}

/// Fails the test when it is dropped while the engine is borrowed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Foreign;

impl Drop for Foreign {
    fn drop(&mut self) {
        assert!(
            !BORROWED.get() || std::thread::panicking(),
            "foreign code ran while the engine was borrowed"
        );
    }
}

/// The driver's types.
#[derive(Debug)]
pub(crate) struct Lab;

/// An event: its number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event(pub(crate) u64, Foreign);

impl Event {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number, Foreign)
    }
}

/// An exception: its code, and a number.
#[derive(Debug)]
pub(crate) struct Error(pub(crate) &'static str, pub(crate) u64, Foreign);

impl Error {
    pub(crate) const fn new(code: &'static str, number: u64) -> Self {
        Self(code, number, Foreign)
    }
}

/// An undo action: its number, which is its place in the order of registration, too.
#[derive(Debug)]
pub(crate) struct Undo(pub(crate) u64, pub(crate) Port, Foreign);

impl Undo {
    pub(crate) const fn new(number: u64, port: Port) -> Self {
        Self(number, port, Foreign)
    }
}

impl Domain for Lab {
    type Item = Event;
    type Error = Error;
    type Undo = Undo;

    fn code(error: &Error) -> &str {
        error.0
    }

    fn cancelled(last: Error) -> Error {
        Error("cancelled", last.1, last.2)
    }

    fn port(undo: &Undo) -> Port {
        undo.1
    }
}

/// A scope of actions with these numbers.
pub(crate) fn scope(numbers: impl IntoIterator<Item = u64>) -> Scope<Undo> {
    let mut scope = Scope::default();
    for order in numbers {
        scope.register(order, Undo::new(order, PORT));
    }
    scope
}

/// The numbers of a unit's events.
pub(crate) fn numbers(unit: &Unit<Lab>) -> Vec<u64> {
    match &unit.payload {
        Payload::One(event) | Payload::Sealed { value: event, .. } => vec![event.0],
        Payload::Many(events) => events.iter().map(|event| event.0).collect(),
    }
}

/// The engine and its clock.
pub(crate) struct Driver {
    engine: Engine<Lab>,
    pub(crate) now: Time,
    /// A unit that came when only undo actions were asked for.
    ahead: Option<Unit<Lab>>,
}

impl Driver {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config),
            now: Time::ZERO,
            ahead: None,
        }
    }

    /// A pipeline of these legs, without branches.
    pub(crate) fn of(legs: impl Into<Vec<LegOptions>>) -> Self {
        let legs = legs.into();
        Self::fanned(legs.len(), legs)
    }

    /// A pipeline whose branches begin at `fan_leg`.
    pub(crate) fn fanned(fan_leg: usize, legs: impl Into<Vec<LegOptions>>) -> Self {
        Self::living(BranchOptions::default(), fan_leg, legs)
    }

    /// The same, with branches that live so.
    pub(crate) fn living(
        branches: BranchOptions,
        fan_leg: usize,
        legs: impl Into<Vec<LegOptions>>,
    ) -> Self {
        Self::new(Config {
            legs: legs.into(),
            fan_leg,
            ports: 1,
            max_in_flight: 256,
            stop_on_error: false,
            seed: 7,
            epoch: EPOCH,
            rollback: RollbackOptions::default(),
            branches,
        })
    }

    /// Calls the engine; nothing may be dropped meanwhile.
    pub(crate) fn call<T>(&mut self, f: impl FnOnce(&mut Engine<Lab>, Time) -> T) -> T {
        BORROWED.set(true);
        let result = f(&mut self.engine, self.now);
        BORROWED.set(false);
        result
    }

    pub(crate) const fn engine(&self) -> &Engine<Lab> {
        &self.engine
    }

    /// Offers events of the source to the first leg.
    pub(crate) fn give(&mut self, events: impl IntoIterator<Item = u64>) {
        self.give_to(BranchId::TRUNK, events);
    }

    /// Offers events of the source to the first leg, in a branch.
    pub(crate) fn give_to(&mut self, branch: BranchId, events: impl IntoIterator<Item = u64>) {
        for number in events {
            self.give_item(branch, Item::new(Event::new(number)));
        }
    }

    pub(crate) fn give_item(&mut self, branch: BranchId, item: Item<Lab>) {
        self.call(|engine, _| engine.received(u64::from(item.weight)));
        self.offer(0, branch, item);
    }

    /// Offers an item as a driver does: by the shorter way, if it has no history.
    pub(crate) fn offer(&mut self, leg: usize, branch: BranchId, item: Item<Lab>) {
        let plain =
            item.scope.is_none() && !item.origin.is_known() && (item.weight, item.bytes) == (1, 0);
        self.call(|engine, now| {
            if plain {
                engine.offer_plain(leg, [(branch, item.value)], now);
            } else {
                engine.offer(leg, branch, item, now);
            }
        });
    }

    /// The next unit; there must be no undo action before it.
    pub(crate) fn unit(&mut self) -> Option<Unit<Lab>> {
        if self.ahead.is_some() {
            return self.ahead.take();
        }
        match self.call(|engine, now| engine.next(PORT, now))? {
            Work::Unit(unit) => Some(unit),
            Work::Undo(turn) => panic!("{turn:?} comes before the next unit"),
        }
    }

    pub(crate) fn done(&mut self, unit: Unit<Lab>, outputs: impl IntoIterator<Item = u64>) {
        let outputs = outputs.into_iter().map(Event::new).collect();
        self.complete(unit, Outcome::Done(outputs), None);
    }

    /// The attempt fails, having registered actions; another one makes sense.
    pub(crate) fn fail(&mut self, unit: Unit<Lab>, registered: impl IntoIterator<Item = u64>) {
        let error = Error::new("Oops", u64::from(unit.attempt));
        self.complete(
            unit,
            Outcome::Failed {
                error,
                again: Again::Yes,
            },
            Some(scope(registered).into()),
        );
    }

    pub(crate) fn complete(
        &mut self,
        unit: Unit<Lab>,
        outcome: Outcome<Lab>,
        registered: Option<Box<Scope<Undo>>>,
    ) {
        self.call(|engine, now| engine.complete(unit, outcome, registered, now));
    }

    /// The next undo action; there must be one, and no unit.
    pub(crate) fn turn(&mut self) -> Turn<Lab> {
        match self.call(|engine, now| engine.next(PORT, now)) {
            Some(Work::Undo(turn)) => turn,
            work => panic!("{work:?}"),
        }
    }

    /// An undo action has run to its end, having registered nothing.
    pub(crate) fn undone(&mut self, turn: Turn<Lab>) {
        self.call(|engine, now| engine.complete_undo(turn, None, None, now));
    }

    /// Runs the undo actions whose turn has come, and those that come after them.
    pub(crate) fn undo_all(&mut self) -> Vec<u64> {
        let mut ran = Vec::new();
        loop {
            match self.call(|engine, now| engine.next(PORT, now)) {
                Some(Work::Undo(turn)) => {
                    ran.push(turn.step.undo.0);
                    self.undone(turn);
                }
                Some(Work::Unit(unit)) => {
                    self.ahead = Some(unit);
                    return ran;
                }
                None => return ran,
            }
        }
    }

    pub(crate) fn open(&mut self) -> BranchId {
        self.open_own(Own::default())
    }

    pub(crate) fn open_own(&mut self, own: Own) -> BranchId {
        self.call(|engine, now| engine.open_branch(own, now))
    }

    pub(crate) fn obey(&mut self, branch: BranchId, command: Command) -> Result<(), Misfit> {
        self.call(|engine, now| engine.obey(branch, command, now))
    }

    /// Fails what was not let in, as a driver does; says whose, why and which.
    pub(crate) fn refused(&mut self) -> Vec<(BranchId, Why, Vec<u64>)> {
        let refused = self.call(|engine, _| engine.take_refused());
        let mut told = Vec::new();
        for refused in refused {
            let numbers = match &refused.payload {
                Payload::One(event) | Payload::Sealed { value: event, .. } => vec![event.0],
                Payload::Many(events) => events.iter().map(|event| event.0).collect(),
            };
            told.push((refused.branch, refused.why, numbers));
            let error = Error::new("branch", 0);
            self.call(|engine, now| engine.fail_refused(refused, error, now));
        }
        told
    }

    /// What has happened to branches; those that are wanted are opened.
    pub(crate) fn news(&mut self) -> Vec<(BranchId, News)> {
        let news = self.call(|engine, _| engine.take_news());
        for &(branch, what) in &news {
            if matches!(what, News::Wanted | News::Closed { wanted: true }) {
                self.call(|engine, now| engine.reopen(branch, Own::default(), now));
            }
        }
        news
    }

    /// Gives one item and takes the unit it becomes.
    pub(crate) fn give_and_take(&mut self) -> Unit<Lab> {
        self.give([1]);
        let Some(unit) = self.unit() else {
            panic!("the item given is not handed out")
        };
        unit
    }

    /// Hands out and finishes all windows there are.
    pub(crate) fn windows(&mut self) -> Vec<(Vec<u64>, Reason)> {
        let mut windows = Vec::new();
        while let Some(unit) = self.unit() {
            windows.push((numbers(&unit), cut(&unit).reason));
            self.done(unit, []);
        }
        windows
    }

    /// Hands out all units there are, without finishing any.
    pub(crate) fn units(&mut self) -> Vec<Unit<Lab>> {
        std::iter::from_fn(|| self.unit()).collect()
    }

    /// The events that wait to be offered to `leg`; offers them, as a driver without stages in
    /// between does.
    pub(crate) fn forward(&mut self, leg: usize) -> Vec<u64> {
        let arrivals = self.call(|engine, _| engine.take_arrivals(leg));
        let mut forwarded = Vec::new();
        for (branch, item) in arrivals {
            forwarded.push(item.value.0);
            self.offer(leg, branch, item);
        }
        forwarded
    }

    /// Moves the clock without looking at the engine.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Moves the clock and runs what is due.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.pass(time);
        self.poll();
    }

    pub(crate) fn poll(&mut self) {
        self.call(Engine::poll);
    }

    pub(crate) fn end(&mut self) {
        self.call(Engine::end);
    }

    pub(crate) fn drain(&mut self) {
        self.call(Engine::drain);
    }

    pub(crate) fn abort(&mut self) {
        self.call(Engine::abort);
    }

    pub(crate) fn discard(&mut self) {
        self.call(Engine::discard);
    }

    pub(crate) fn graveyard(&mut self) -> Graveyard<Lab> {
        self.call(|engine, _| engine.take_graveyard())
    }

    /// Whether all has ended and adds up.
    pub(crate) fn finished(&mut self) -> bool {
        self.poll();
        let counts = self.engine.counts();
        assert!(counts.balanced(), "{counts:?}");
        self.engine.finished()
    }
}

/// How a unit's window left.
pub(crate) fn cut(unit: &Unit<Lab>) -> Cut {
    let Some(cut) = &unit.cut else {
        panic!("{unit:?} is no window")
    };
    **cut
}
