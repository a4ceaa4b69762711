//! One random run: the engine, who drives it, and who writes down what must come of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anabranch_core::branch::{BranchId, Command, News, Own, State};
use anabranch_core::compensation::{Kind, Scope, Step};
use anabranch_core::engine::{
    Again, AttemptId, Batch, Config, Engine, Failed, Item, Level, Outcome, Payload, Port,
    RollbackId, Spot, Turn, Unit, Work,
};
use anabranch_core::retry::GaveUp;

use crate::deeds::Owner;
use crate::draws::{Acts, Fate, Finish, Move, Reach};
use crate::driver::{Driver, Error, Event, Lab, Undo, numbers};
use crate::model::Ledger;

pub(crate) const PORTS: usize = 2;

#[derive(Debug)]
enum InHand {
    Unit(Unit<Lab>),
    Undo { turn: Turn<Lab>, passes: u32 },
    Batch(Batch<Lab>),
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
    /// Whether a step has moved more than it was to: a driver that moves something polls once more.
    stirred: bool,
    made: u64,
    errors: u64,
    orders: u64,
    /// Events and errors the driver itself has dropped, and what the engine has buried.
    dropped: usize,
    errors_dropped: usize,
    buried: (usize, usize, usize),
    /// What has happened to branches, and was not attended to.
    news: VecDeque<(BranchId, News)>,
    /// Branches whose generation has failed: removing them does not make it good.
    broken: BTreeSet<BranchId>,
    /// The branches of failures that became events.
    failures: BTreeMap<u64, BranchId>,
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
            stirred: false,
            made: 0,
            errors: 0,
            orders: 0,
            dropped: 0,
            errors_dropped: 0,
            buried: (0, 0, 0),
            news: VecDeque::new(),
            broken: BTreeSet::new(),
            failures: BTreeMap::new(),
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

    /// Registers actions of a unit of `branch`; returns those that go with it, and their numbers.
    fn actions(
        &mut self,
        acts: Acts,
        branch: BranchId,
        during: Option<(RollbackId, u32)>,
    ) -> (Option<Box<Scope<Undo>>>, Vec<u64>) {
        let mut scope = Scope::default();
        let owner = match acts.reach {
            Reach::Unit => Owner::Unit,
            Reach::Branch => Owner::Branch(branch),
            Reach::Run => Owner::Run,
        };
        for n in 0..acts.undos + acts.finalizers {
            self.orders += 1;
            let finalizer = n >= acts.undos;
            self.ledger
                .deeds
                .register(self.orders, owner, finalizer, during);
            let step = Step {
                order: self.orders,
                kind: if finalizer {
                    Kind::Finalizer
                } else {
                    Kind::Compensation
                },
                undo: Undo::new(self.orders, acts.port),
            };
            let level = match acts.reach {
                Reach::Unit => {
                    scope.push(step);
                    continue;
                }
                Reach::Branch => Level::Branch(branch),
                Reach::Run => Level::Pipeline,
            };
            self.driver.call(|engine, _| engine.register(level, step));
        }
        let orders: Vec<_> = scope.steps().iter().map(|step| step.order).collect();
        ((!orders.is_empty()).then(|| Box::new(scope)), orders)
    }

    /// The branch an event of the trunk belongs to at `leg`.
    fn course(&mut self, leg: usize, branch: usize, weight: u32) -> BranchId {
        if leg < self.fan_leg {
            return BranchId::TRUNK;
        }
        let branch = self.branches[branch % self.branches.len()];
        *self.ledger.routed.entry(branch).or_default() += u64::from(weight);
        branch
    }

    /// The first leg that takes items.
    fn entry(&self) -> usize {
        let Some(entry) = self.ledger.entry() else {
            unreachable!("there is always a sink")
        };
        entry
    }

    /// An event of the source, before it is offered to the first leg of `branch`.
    fn taken(&mut self, acted: bool) -> Item<Lab> {
        let event = self.event();
        let acts = Acts {
            undos: usize::from(acted),
            ..Acts::default()
        };
        let (scope, orders) = self.actions(acts, BranchId::TRUNK, None);
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
                let entry = self.entry();
                for _ in 0..events.min(room) {
                    let branch = self.course(entry, branch, 1);
                    let item = self.taken(acted);
                    self.offer(entry, branch, item);
                }
            }
            Move::EndEarly {
                branch,
                acted,
                failed,
            } if !self.ledger.ended => {
                let ahead_of = self.entry();
                let branch = self.course(ahead_of, branch, 1);
                let behind = if branch == BranchId::TRUNK {
                    0
                } else {
                    self.fan_leg
                };
                let Item { value, scope, .. } = self.taken(acted);
                let at = (ahead_of, behind);
                self.ledger.ended_outside(value.0, failed.then_some(at));
                let error = failed.then(|| self.error());
                self.driver.call(|engine, now| {
                    if let Some(error) = error {
                        engine.fail_item(Spot { ahead_of, behind }, branch, error, 1, scope, now);
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
            Move::Batch { port, most } => self.batch(port, most),
            Move::End { which, fate, acts } if !self.hand.is_empty() => {
                let work = self.hand.swap_remove(which % self.hand.len());
                self.end(work, fate, acts);
            }
            Move::EndEarly { .. } | Move::End { .. } => {}
            Move::Forward { branch } => {
                self.forward(branch);
            }
            Move::Arrange { every } => {
                self.arrange(every);
            }
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
            self.stirred |= self.forward(0);
            self.look();
            self.stirred |= self.tend(false);
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

    /// Looks which branches have ended, what the engine has buried, and which branches have failed.
    fn look(&mut self) {
        for (branch, what) in self.driver.call(|engine, _| engine.take_news()) {
            if matches!(what, News::Closed { .. }) {
                let badly = self.broken.remove(&branch) || self.breaks(branch);
                self.ledger.deeds.generation_ended(branch, !badly);
            }
            self.news.push_back((branch, what));
        }
        let breaks = |it: &BranchId| self.broken.contains(it) || self.breaks(*it);
        let (broken, others) = self
            .branches
            .iter()
            .partition::<Vec<BranchId>, _>(|it| breaks(it));
        let closes = |it: &BranchId| {
            let (state, _) = self.driver.engine().state(*it);
            matches!(state, State::Draining | State::Evicted)
        };
        let closing = others.into_iter().filter(closes).collect();
        self.ledger.deeds.branches_end(broken, closing);
        self.ledger.deeds.listed(self.driver.engine());
        let dead = self.driver.graveyard();
        for undo in &dead.undos {
            self.ledger.deeds.buried(undo.0, self.driver.engine());
        }
        self.ledger.deeds.generations_over(self.ledger.ended);
        self.buried.0 += dead.items.len();
        self.buried.1 += dead.errors.len();
        self.buried.2 += dead.undos.len();
        for branch in &self.branches {
            let (state, _) = self.driver.engine().state(*branch);
            self.ledger.branch_is(*branch, state);
            if state == State::Open {
                self.broken.remove(branch);
            } else if self.breaks(*branch) {
                self.broken.insert(*branch);
            }
        }
    }

    /// Whether a branch has failed, at least for the time being.
    fn breaks(&self, branch: BranchId) -> bool {
        let (state, _) = self.driver.engine().state(branch);
        matches!(state, State::Failed | State::Restarting)
    }

    /// Makes failures of what was not let in, and opens branches that are wanted; says whether
    /// there was anything.
    fn tend(&mut self, decline: bool) -> bool {
        let mut any = false;
        loop {
            let refused = self.driver.call(|engine, _| engine.take_refused());
            if refused.is_empty() && self.news.is_empty() {
                return any;
            }
            any = true;
            for refused in refused {
                let numbers = match &refused.payload {
                    Payload::One(event) | Payload::Sealed { value: event, .. } => vec![event.0],
                    Payload::Many(events) => events.iter().map(|event| event.0).collect(),
                };
                let error = self.error();
                let before = self.driver.engine().counts().failed;
                self.driver
                    .call(|engine, now| engine.fail_refused(refused, error, now));
                let failed = self.driver.engine().counts().failed - before;
                self.ledger.refused(&numbers, failed);
                self.look();
            }
            while let Some((branch, what)) = self.news.pop_front() {
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

    /// Arranges the rollbacks that have begun: each `every`th action is left out, and the others
    /// run from the first to the last.
    fn arrange(&mut self, every: usize) -> bool {
        let mut any = false;
        while let Some((id, steps)) = self.driver.call(|engine, _| engine.next_unarranged()) {
            any = true;
            let last_first = steps.windows(2).all(|two| two[0].order > two[1].order);
            assert!(last_first, "C14: the policy sees the last registered first");
            let (mut run, mut skipped) = (Vec::new(), Vec::new());
            for (n, step) in steps.into_iter().enumerate() {
                if every > 0 && n % every == 0 {
                    skipped.push(step);
                } else {
                    run.push(step);
                }
            }
            run.reverse();
            let order = run.iter().map(|step| step.order).collect();
            let left_out: Vec<_> = skipped.iter().map(|step| step.order).collect();
            self.ledger.deeds.arranged(id, order, &left_out);
            self.driver
                .call(|engine, now| engine.arrange(id, run, skipped, now));
        }
        any
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
            self.stirred = true;
            let attempt = overdue.attempt;
            if overdue.abandoned {
                assert!(self.late.contains(&attempt) && !self.ended.contains(&attempt));
                self.abandoned += u64::from(overdue.leg.is_some());
            } else {
                let in_hand = self.hand.iter().any(|work| match work {
                    InHand::Unit(unit) => unit.deadline().is_some_and(|it| it.0 == attempt),
                    InHand::Undo { turn, .. } => turn.attempt == Some(attempt),
                    InHand::Batch(_) => false,
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
        if matches!(finish, Finish::Abort | Finish::Discard | Finish::Leave) {
            self.ledger.abort();
        }
        match finish {
            Finish::Fault => {
                self.ledger.deeds.source_failed();
                let error = self.error();
                self.driver.call(|engine, now| {
                    engine.fail();
                    let spot = Spot {
                        ahead_of: 0,
                        behind: 0,
                    };
                    engine.fail_item(spot, BranchId::TRUNK, error, 0, None, now);
                    engine.drain(now);
                });
            }
            Finish::Leave => {
                self.driver.discard();
                self.ledger.deeds.forsaken = true;
                self.driver.call(Engine::abandon);
            }
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
                let others = self.hand.iter().filter(|work| match work {
                    InHand::Unit(_) | InHand::Batch(_) => false,
                    InHand::Undo { turn: other, .. } => other.rollback == turn.rollback,
                });
                let busy = others.count();
                let running = self.hand.iter().filter_map(|work| match work {
                    InHand::Undo { turn, .. } if !turn.step.is_finalizer() => {
                        Some(turn.step.undo.0)
                    }
                    _ => None,
                });
                let running: Vec<_> = running.collect();
                let passes = self
                    .ledger
                    .deeds
                    .handed(&turn, busy, &running, self.driver.engine());
                self.hand.push(InHand::Undo { turn, passes });
            }
            Some(Work::Unit(mut unit)) => {
                assert!(!self.stops(), "T4: nothing begins after the first failure");
                self.ledger.handed(&unit);
                self.moved(unit.branch, numbers(&unit)[0], unit.weight);
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

    /// Takes items that are handed out together.
    fn batch(&mut self, port: Port, most: usize) {
        if !self.ledger.is_sink(port) {
            return;
        }
        let batch = self
            .driver
            .call(|engine, now| engine.next_batch(port, most, now));
        if let Some(batch) = batch {
            self.ledger.batch_handed(&batch);
            self.hand.push(InHand::Batch(batch));
        }
    }

    /// A batch comes back: to its end, or an item of it is given back as a unit, still in hand.
    fn end_batch(&mut self, batch: Batch<Lab>, fate: Fate, at: usize) {
        let Batch {
            branch,
            leg,
            mut values,
        } = batch;
        if let Fate::Done { outputs } = fate {
            let all = values.len();
            let done = (all, outputs.min(all));
            self.ledger.batch_ended((branch, leg), done, None);
            self.dropped += all;
            self.driver
                .call(|engine, now| engine.complete_batch(branch, leg, done, now));
            return;
        }
        let at = at % values.len();
        let rest = values.split_off(at + 1);
        let Some(current) = values.pop() else {
            unreachable!("a batch has at least one item")
        };
        let broken = Some((current.0, rest.len()));
        self.ledger.batch_ended((branch, leg), (at, 0), broken);
        self.dropped += at;
        let unit = self
            .driver
            .call(|engine, now| engine.break_batch(branch, leg, (at, 0), current, rest, now));
        self.hand.push(InHand::Unit(unit));
    }

    fn end_undo(&mut self, turn: Turn<Lab>, passes: u32, fate: Fate, acts: Acts) {
        let acts = if passes < 4 { acts } else { Acts::default() };
        let during = Some((turn.rollback, passes));
        let (scope, _) = self.actions(acts, turn.branch, during);
        let error = matches!(fate, Fate::Failed { .. }).then(|| self.error());
        let late = turn.attempt.filter(|attempt| self.late.contains(attempt));
        self.driver
            .call(|engine, now| engine.complete_undo(turn, error, scope, now));
        if let Some(attempt) = late {
            self.driver.call(|engine, _| engine.ended(attempt, false));
        }
    }

    fn end(&mut self, work: InHand, fate: Fate, acts: Acts) {
        let unit = match work {
            InHand::Unit(unit) => unit,
            InHand::Undo { turn, passes } => return self.end_undo(turn, passes, fate, acts),
            InHand::Batch(batch) => return self.end_batch(batch, fate, acts.undos),
        };
        let (scope, registered) = self.actions(acts, unit.branch, None);
        let handed = self.ledger.came_back(&unit);
        self.ledger.deeds.stand_on(&registered, &handed.scope);
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

    /// Offers what has arrived between the legs, and failures to their operators; says whether there
    /// was anything.
    fn forward(&mut self, branch: usize) -> bool {
        let mut any = self.driver.engine().has_failures();
        self.forward_failures(branch);
        for leg in 0..self.legs {
            for (from, item) in self.driver.call(|engine, _| engine.take_arrivals(leg)) {
                any = true;
                let made_at = self.ledger.arrived(from, leg, item.value.0);
                let Some(to) = self.ledger.handler(leg) else {
                    panic!("T3: leg {leg} leads nowhere, and something has left it")
                };
                let branch = if from == BranchId::TRUNK {
                    self.course(to, branch, item.weight)
                } else {
                    from
                };
                if to == leg {
                    self.offer(to, branch, item);
                } else {
                    self.ledger.offered((branch, to), item.value.0);
                    self.driver.call(|engine, now| {
                        engine.offer_recovered(made_at, to, branch, item, now);
                    });
                }
            }
        }
        any
    }

    /// Offers each failure to its operator, to one behind it, or to none.
    fn forward_failures(&mut self, choice: usize) {
        for (leg, failed) in self.driver.call(|engine, _| engine.take_failures()) {
            self.ledger.taken(u64::from(failed.items));
            let leg = match choice % 4 {
                3 => self.driver.engine().operator_behind(leg),
                _ => Some(leg),
            };
            let Some(leg) = leg else {
                self.lose(failed);
                continue;
            };
            let item: Item<Lab> = Item::of_failure(self.event(), &failed);
            self.errors_dropped += 1 + failed.history.len();
            self.ledger.failure(item.value.0, u64::from(item.weight));
            self.failures.insert(item.value.0, failed.branch);
            self.ledger.offered((failed.branch, leg), item.value.0);
            self.driver
                .call(|engine, now| engine.offer(leg, failed.branch, item, now));
        }
        for (branch, item) in self.driver.call(|engine, _| engine.take_unheard()) {
            self.moved(branch, item.value.0, item.weight);
            self.dropped += 1;
            let failed = Failed::new(branch, self.error(), item.weight, GaveUp::Cancelled);
            self.lose(failed);
        }
    }

    fn lose(&mut self, failed: Failed<Lab>) {
        self.ledger.lost(u64::from(failed.items));
        self.driver.call(|engine, now| engine.lose(failed, now));
    }

    /// A failure may have become the trunk's, since its own branch is over.
    fn moved(&mut self, to: BranchId, number: u64, weight: u32) {
        if let Some(from) = self.failures.remove(&number)
            && from != to
        {
            assert_eq!(to, BranchId::TRUNK, "B7: each its own");
            let routed = self.ledger.routed.entry(from).or_default();
            *routed -= u64::from(weight);
        }
    }

    /// Does whatever can be done until nothing can, as a driver whose handlers all return.
    pub(crate) fn settle(&mut self, choices: &mut impl Iterator<Item = (usize, Fate, Acts)>) {
        for _ in 0..20_000 {
            self.step(Move::Forward { branch: 0 });
            self.step(Move::Poll);
            if self.tend(false) | self.arrange(3) | std::mem::take(&mut self.stirred) {
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
                    None if self.driver.engine().has_failures() => {}
                    None if self.driver.engine().has_arrivals() || self.resume() => {}
                    // A driver would sleep now: what another poll could move would never be.
                    None => return,
                }
            } else if let Some((which, fate, acts)) = choices.next() {
                self.step(Move::End { which, fate, acts });
            }
        }
        panic!("it never comes to rest: {:?}", self.driver.engine());
    }

    /// What must hold once the run is over.
    pub(crate) fn check_end(&mut self) {
        assert!(
            self.driver.finished(),
            "it has come to rest, and is not over"
        );
        self.ledger.check(self.driver.engine(), true);
        self.ledger.check_end(self.driver.engine());
        assert_eq!(self.driver.engine().late(), self.ended.len() as u64);
        assert_eq!(self.driver.engine().abandoned().1, self.abandoned);
        self.look();
        let (items, errors, undos) = self.buried;
        assert_eq!((items + self.dropped) as u64, self.made);
        let engine = self.driver.engine();
        let (undone, stuck) = (engine.undone(), engine.stuck());
        assert_eq!((undos + undone.len() + stuck.len()) as u64, self.orders);
        let failed_undos = stuck.iter().filter(|it| it.fate.error().is_some()).count();
        let failures = engine.failures().iter();
        let failures: usize = failures.map(|failed| 1 + failed.history.len()).sum();
        let kept = failed_undos + failures + self.errors_dropped;
        assert_eq!((errors + kept) as u64, self.errors);
        let counts = engine.undone_counts();
        let unrun = stuck.len() - failed_undos;
        let ran = counts.done + counts.finalized + counts.failed - unrun as u64;
        assert_eq!(ran, self.ledger.deeds.ran());
    }
}
