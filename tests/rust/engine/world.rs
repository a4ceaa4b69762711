//! One random run: the engine, who drives it, and who writes down what must come of it.

use std::collections::BTreeSet;

use anabranch_core::branch::{BranchId, Command, News, Own, State};
use anabranch_core::compensation::Scope;
use anabranch_core::engine::{
    Again, AttemptId, Config, Item, Outcome, Payload, Port, Turn, Unit, Work,
};

use crate::conservation::{Fate, Finish, Move};
use crate::driver::{Driver, Error, Event, Lab, Undo, numbers};
use crate::model::Ledger;

pub(crate) const PORTS: usize = 2;

#[derive(Debug)]
enum InHand {
    Unit(Unit<Lab>),
    Undo { turn: Turn<Lab>, passes: u32 },
}

/// The engine, who drives it, and who writes down what must come of it.
pub(crate) struct World {
    pub(crate) driver: Driver,
    ledger: Ledger,
    fan_leg: usize,
    legs: usize,
    branches: Vec<BranchId>,
    hand: Vec<InHand>,
    /// Whether what arrives is offered at once.
    prompt: bool,
    made: u64,
    errors: u64,
    orders: u64,
    /// Events the driver itself has dropped.
    dropped: usize,
    /// Attempts that are late, and those whose operation has ended since.
    late: BTreeSet<AttemptId>,
    ended: BTreeSet<AttemptId>,
    /// Operations left behind.
    abandoned: u64,
    /// Whether branches outlive the source.
    stay_open: bool,
}

impl World {
    pub(crate) fn new(config: Config, prompt: bool) -> Self {
        let ledger = Ledger::new(&config);
        let (fan_leg, legs) = (config.fan_leg, config.legs.len());
        let stay_open = config.branches.stay_open;
        let mut world = Self {
            driver: Driver::new(config),
            ledger,
            fan_leg,
            legs,
            branches: Vec::new(),
            hand: Vec::new(),
            prompt,
            made: 0,
            errors: 0,
            orders: 0,
            dropped: 0,
            late: BTreeSet::new(),
            ended: BTreeSet::new(),
            abandoned: 0,
            stay_open,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        if self.branches.len() < 3 {
            self.branches.push(self.driver.open());
        }
    }

    fn event(&mut self) -> Event {
        self.made += 1;
        Event::new(self.made)
    }

    fn error(&mut self) -> Error {
        self.errors += 1;
        Error::new("Oops", self.errors)
    }

    fn actions(&mut self, count: usize, port: Port, pass: u32) -> Option<Box<Scope<Undo>>> {
        let mut scope = Scope::default();
        for _ in 0..count {
            self.orders += 1;
            self.ledger.register(self.orders, pass);
            scope.register(self.orders, Undo::new(self.orders, port));
        }
        (count > 0).then(|| Box::new(scope))
    }

    /// The branch an event belongs to at `leg`.
    fn course(&mut self, leg: usize, branch: usize) -> BranchId {
        let branch = if leg < self.fan_leg {
            BranchId::TRUNK
        } else {
            self.branches[branch % self.branches.len()]
        };
        if leg == self.fan_leg {
            *self.ledger.routed.entry(branch).or_default() += 1;
        }
        branch
    }

    /// An event of the source, before it is offered to the first leg of `branch`.
    fn taken(&mut self, acted: bool) -> Item<Lab> {
        let event = self.event();
        let scope = self.actions(usize::from(acted), Port(0), 0);
        let orders = scope.is_some().then_some(self.orders).into_iter().collect();
        self.ledger.source_event(event.0, orders);
        self.driver.call(|engine, _| engine.received(1));
        Item {
            scope,
            ..Item::new(event)
        }
    }

    fn offer(&mut self, leg: usize, branch: BranchId, item: Item<Lab>) {
        self.ledger.offered((branch, leg), item.value.0);
        self.driver.offer(leg, branch, item);
    }

    pub(crate) fn step(&mut self, step: Move) {
        match step {
            Move::Give {
                events,
                branch,
                acted,
            } => {
                let room = if self.ledger.ended {
                    1
                } else {
                    self.driver.engine().room()
                };
                for _ in 0..events.min(room) {
                    let branch = self.course(0, branch);
                    let item = self.taken(acted);
                    self.offer(0, branch, item);
                }
            }
            Move::EndEarly {
                branch,
                acted,
                failed,
            } if !self.ledger.ended => {
                let branch = self.course(0, branch);
                let Item { value, scope, .. } = self.taken(acted);
                self.ledger.ended_outside(value.0, failed);
                let error = failed.then(|| self.error());
                self.driver.call(|engine, now| {
                    if let Some(error) = error {
                        engine.fail_item(0, branch, error, 1, scope, now);
                    } else {
                        engine.passed(branch, 1, 0);
                        engine.release_scope(branch, scope, now);
                    }
                });
                self.dropped += 1;
            }
            Move::Open => self.open(),
            Move::Next { port, seal } => {
                self.next(port, seal);
            }
            Move::End {
                which,
                fate,
                registered,
                port,
            } if !self.hand.is_empty() => {
                let work = self.hand.swap_remove(which % self.hand.len());
                self.end(work, fate, registered, port);
            }
            Move::EndEarly { .. } | Move::End { .. } => {}
            Move::Forward { branch } => self.forward(branch),
            Move::Pass(time) => self.driver.pass(time),
            Move::Poll => {
                self.driver.poll();
                self.overdue();
            }
            // Without a leg behind the fan-out there are no branches.
            Move::Ask { .. } | Move::Throttle { .. } if self.fan_leg == self.legs => {}
            Move::Ask { branch, command } => self.ask(branch, command),
            Move::Throttle { branch, rate } => {
                self.ledger.lively = true;
                let branch = self.branches[branch % self.branches.len()];
                self.driver
                    .call(|engine, now| engine.throttle(branch, rate, now));
            }
            Move::Tend { decline } => {
                self.tend(decline);
            }
            Move::Finish(finish) => self.finish(finish),
        }
        self.look();
        if self.prompt {
            self.forward(0);
            self.tend(false);
        }
        self.ledger.check(self.driver.engine(), self.prompt);
        if self.driver.engine().finished() {
            assert!(
                self.hand.is_empty(),
                "it is finished, and {:?} is in hand",
                self.hand
            );
            assert_eq!(
                self.ledger.on_the_way(),
                0,
                "it is finished, and events are on their way"
            );
        }
    }

    fn ask(&mut self, branch: usize, command: Command) {
        self.ledger.lively = true;
        let branch = self.branches[branch % self.branches.len()];
        let (before, _) = self.driver.engine().state(branch);
        let obeyed = self.driver.obey(branch, command);
        assert!(
            obeyed.is_ok() || self.driver.engine().state(branch).0 == before,
            "B4: a command that does not fit changes nothing"
        );
    }

    /// Looks which branches have failed.
    fn look(&mut self) {
        for branch in &self.branches {
            let (state, _) = self.driver.engine().state(*branch);
            self.ledger.branch_is(*branch, state == State::Failed);
        }
    }

    /// Makes failures of what was not let in, and opens branches that are wanted; says whether
    /// there was anything.
    fn tend(&mut self, decline: bool) -> bool {
        let mut any = false;
        loop {
            let refused = self.driver.call(|engine, _| engine.take_refused());
            let news = self.driver.call(|engine, _| engine.take_news());
            if refused.is_empty() && news.is_empty() {
                return any;
            }
            any = true;
            for refused in refused {
                let numbers = match &refused.payload {
                    Payload::One(event) | Payload::Sealed { value: event, .. } => vec![event.0],
                    Payload::Many(events) => events.iter().map(|event| event.0).collect(),
                };
                self.ledger.refused(&numbers);
                let error = self.error();
                self.driver
                    .call(|engine, now| engine.fail_refused(refused, error, now));
            }
            for (branch, what) in news {
                if matches!(what, News::Closed { wanted: false }) {
                    continue;
                }
                self.driver.call(|engine, now| {
                    if decline {
                        engine.decline(branch, now);
                    } else {
                        engine.reopen(branch, Own::default(), now);
                    }
                });
                self.look();
            }
        }
    }

    pub(crate) fn stays_open(&self) -> bool {
        self.stay_open && !self.driver.engine().finished()
    }

    /// Lets paused branches go on; says whether there was one.
    fn resume(&mut self) -> bool {
        let mut any = false;
        for branch in self.branches.clone() {
            any |= self.driver.obey(branch, Command::Resume).is_ok();
        }
        any
    }

    /// Hears which attempts are overdue.
    fn overdue(&mut self) {
        for overdue in self.driver.call(|engine, _| engine.take_overdue()) {
            let attempt = overdue.attempt;
            if overdue.abandoned {
                assert!(self.late.contains(&attempt) && !self.ended.contains(&attempt));
                self.abandoned += 1;
            } else {
                let in_hand = self.hand.iter().any(|work| match work {
                    InHand::Unit(unit) => unit.deadline().is_some_and(|it| it.0 == attempt),
                    InHand::Undo { .. } => false,
                });
                assert!(in_hand, "R4: an attempt that is over is late");
                assert!(self.late.insert(attempt), "R4: it is told twice");
            }
        }
    }

    /// Whether a failure has asked for a stop that has not been carried out.
    fn stops(&self) -> bool {
        self.driver.engine().stopping() && !self.driver.engine().aborted()
    }

    fn finish(&mut self, finish: Finish) {
        self.ledger.ended = true;
        if matches!(finish, Finish::Abort | Finish::Discard) {
            self.ledger.abort();
        }
        match finish {
            Finish::End => self.driver.end(),
            Finish::Drain => self.driver.drain(),
            Finish::Abort => self.driver.abort(),
            Finish::Discard => self.driver.discard(),
        }
    }

    /// Takes work; says whether there was any.
    fn next(&mut self, port: Port, seal: bool) -> bool {
        let has_work = self.driver.engine().has_work(port);
        match self.driver.call(|engine, now| engine.next(port, now)) {
            None => return false,
            Some(Work::Undo(turn)) => {
                let busy = self.hand.iter().any(|work| match work {
                    InHand::Unit(_) => false,
                    InHand::Undo { turn: other, .. } => other.rollback == turn.rollback,
                });
                assert!(!busy, "C13: one action of a rollback at a time");
                let passes = self.ledger.undoing(turn.rollback, &turn.step.undo);
                self.hand.push(InHand::Undo { turn, passes });
            }
            Some(Work::Unit(mut unit)) => {
                assert!(!self.stops(), "T4: nothing begins after the first failure");
                self.ledger.handed(&unit);
                if seal && matches!(unit.payload, Payload::Many(_)) {
                    let of = numbers(&unit);
                    let value = self.event();
                    self.ledger.sealed((unit.branch, unit.leg), &of, value.0);
                    self.dropped += of.len();
                    unit.payload = Payload::Sealed {
                        value,
                        entries: of.len(),
                    };
                }
                self.hand.push(InHand::Unit(unit));
            }
        }
        assert!(has_work, "a driver that asks has_work would have missed it");
        true
    }

    fn end(&mut self, work: InHand, fate: Fate, registered: usize, port: Port) {
        let unit = match work {
            InHand::Unit(unit) => unit,
            InHand::Undo { turn, passes } => {
                let registered = if passes < 3 { registered } else { 0 };
                let scope = self.actions(registered, port, passes);
                let error = matches!(fate, Fate::Failed { .. }).then(|| self.error());
                self.driver.call(|engine, now| {
                    engine.complete_undo(turn, error, scope, now);
                });
                return;
            }
        };
        let before = self.orders;
        let scope = self.actions(registered, port, 0);
        let registered: Vec<u64> = (before + 1..=self.orders).collect();
        let handed = self.ledger.came_back(&unit);
        let attempt = unit.deadline().map(|(attempt, _)| attempt);
        let outcome = match fate {
            Fate::Done { outputs } => {
                let outputs: Vec<_> = (0..outputs).map(|_| self.event()).collect();
                let made: Vec<_> = outputs.iter().map(|event| event.0).collect();
                self.ledger.done(&unit, &handed, &made, &registered);
                Outcome::Done(outputs)
            }
            Fate::Failed { retryable } => {
                self.ledger.failed(&unit, retryable);
                Outcome::Failed {
                    error: self.error(),
                    again: if retryable { Again::Yes } else { Again::No },
                }
            }
            Fate::Interrupted => Outcome::Interrupted,
        };
        // What was interrupted has left its operation behind.
        let ended = attempt
            .filter(|attempt| self.late.contains(attempt) && !matches!(fate, Fate::Interrupted));
        self.driver.complete(unit, outcome, scope);
        if let Some(attempt) = ended {
            self.ended.insert(attempt);
            self.driver.call(|engine, _| engine.ended(attempt, true));
        }
    }

    /// Offers what has arrived between the legs.
    fn forward(&mut self, branch: usize) {
        for leg in 1..self.legs {
            for (from, item) in self.driver.call(|engine, _| engine.take_arrivals(leg)) {
                self.ledger.arrived((from, leg - 1), item.value.0);
                let to = if leg == self.fan_leg {
                    self.course(leg, branch)
                } else {
                    from
                };
                if leg == self.fan_leg && item.weight > 1 {
                    *self.ledger.routed.entry(to).or_default() += u64::from(item.weight) - 1;
                }
                self.offer(leg, to, item);
            }
        }
    }

    /// Does whatever can be done until nothing can, as a driver whose handlers all return.
    pub(crate) fn settle(&mut self, choices: &mut impl Iterator<Item = (usize, Fate, usize)>) {
        for _ in 0..20_000 {
            self.step(Move::Forward { branch: 0 });
            self.step(Move::Poll);
            if self.tend(false) {
                // A generation may end, now that what was not let in has.
                continue;
            }
            if self.stops() {
                // What it let go is still to be forwarded.
                self.step(Move::Finish(Finish::Abort));
                continue;
            }
            while (0..PORTS).any(|port| self.next(Port(port), false)) {}
            if self.hand.is_empty() {
                match self.driver.engine().deadline() {
                    Some(at) => self.driver.now = self.driver.now.max(at),
                    None if self.resume() => {}
                    None => return,
                }
            } else if let Some((which, fate, registered)) = choices.next() {
                self.step(Move::End {
                    which,
                    fate,
                    registered,
                    port: Port(0),
                });
            }
        }
        panic!("it never comes to rest: {:?}", self.driver.engine());
    }

    /// What must hold once the run is over.
    pub(crate) fn check_end(&mut self) {
        assert!(self.driver.finished(), "stuck: {:?}", self.driver.engine());
        self.ledger.check(self.driver.engine(), true);
        self.ledger.check_end(self.driver.engine());
        assert_eq!(self.driver.engine().late(), self.ended.len() as u64);
        assert_eq!(self.driver.engine().abandoned().1, self.abandoned);
        let dead = self.driver.graveyard();
        assert_eq!((dead.items.len() + self.dropped) as u64, self.made);
        let engine = self.driver.engine();
        let (undone, stuck) = (engine.undone(), engine.stuck());
        let kept = undone.len() + stuck.len();
        assert_eq!((dead.undos.len() + kept) as u64, self.orders);
        let counts = engine.undone_counts();
        assert_eq!(counts.done + counts.failed, self.ledger.undone());
        let kept = engine
            .failures()
            .iter()
            .map(|failed| 1 + failed.history.len())
            .sum::<usize>()
            + stuck.len();
        assert_eq!((dead.errors.len() + kept) as u64, self.errors);
    }
}
