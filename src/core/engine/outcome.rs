//! How units end: success, another attempt, failure.

use std::time::Duration;

use super::rollback::Then;
use super::streaks::{Place, Spot};
use super::{
    Again, Domain, Engine, Failed, Item, MAX_SAMPLES, Operator, Origin, Outcome, Payload, Unit,
};
use crate::branch::{BranchId, State};
use crate::clock::Time;
use crate::compensation::Scope;
use crate::report::Counts;
use crate::retry::{GaveUp, Tried};

fn merged<U>(upstream: Option<Box<Scope<U>>>, own: Option<Box<Scope<U>>>) -> Option<Box<Scope<U>>> {
    match (upstream, own) {
        (Some(mut upstream), Some(own)) => {
            upstream.absorb(*own);
            Some(upstream)
        }
        (upstream, own) => upstream.or(own),
    }
}

impl<D: Domain> Engine<D> {
    /// Takes a unit back with the outcome of its attempt and the undo actions it registered.
    pub fn complete(
        &mut self,
        mut unit: Unit<D>,
        outcome: Outcome<D>,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        self.in_flight -= 1;
        self.attempted(unit.branch, unit.leg, 1, now.since(unit.began));
        self.end_clocked(&mut unit);
        match outcome {
            Outcome::Done(values) => self.succeed(unit, values, registered, now),
            Outcome::Failed { error, again } => {
                self.fail_attempt(unit, error, again, registered, now);
            }
            Outcome::Interrupted => {
                self.came_back(&unit).left += u64::from(unit.weight);
                let scope = merged(unit.scope.take(), registered);
                self.undo(unit.branch, scope, Then::Release(unit), now);
            }
        }
    }

    /// Takes back a unit without a deadline that the handler of the last leg has handled.
    ///
    /// Returns its item, if it is a single one, to be dropped as soon as the engine is not
    /// borrowed: in the [`Graveyard`](super::Graveyard) its memory would grow cold.
    pub fn complete_last(&mut self, mut unit: Unit<D>, now: Time) -> Option<D::Item> {
        debug_assert!(unit.deadline().is_none(), "it would stay watched");
        self.in_flight -= 1;
        self.attempted(unit.branch, unit.leg, 1, now.since(unit.began));
        if unit.scope.is_some() {
            self.end_streak(unit.branch, unit.leg, Place::Handler);
            self.commit(unit, None, now);
            return None;
        }
        self.end_streak(unit.branch, unit.leg, Place::Handler);
        self.came_back(&unit).committed += u64::from(unit.weight);
        let (branch, leg, entries) = (unit.branch, unit.leg, unit.payload.entries());
        let value = match std::mem::replace(&mut unit.payload, Payload::Many(Vec::new())) {
            Payload::One(value) => Some(value),
            payload => {
                unit.payload = payload;
                None
            }
        };
        self.bury(unit);
        self.release(branch, leg, entries as u64, now);
        value
    }

    /// A unit will not be handed out again: its source items are counted anew.
    fn came_back(&mut self, unit: &Unit<D>) -> &mut Counts {
        let row = &mut self.branches[unit.branch.index()];
        row.outside -= u64::from(unit.weight);
        &mut row.counts
    }

    /// An item has failed in a stage of the driver's: what it did before is undone, and then its
    /// failure goes to the first operator behind the spot where it failed.
    pub fn fail_item(
        &mut self,
        spot: Spot,
        branch: BranchId,
        error: D::Error,
        weight: u32,
        scope: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        let failed = Failed::new(branch, error, weight, GaveUp::Attempts);
        let Spot { ahead_of, behind } = spot;
        self.fail_from((ahead_of, Place::Ahead), behind, failed, scope, None, now);
    }

    fn succeed(
        &mut self,
        unit: Unit<D>,
        values: Vec<D::Item>,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        let weight = u64::from(unit.weight);
        let counts = &mut self.branches[unit.branch.index()].counts;
        let operator = self.config.legs[unit.leg].operator;
        match operator {
            None => self.end_streak(unit.branch, unit.leg, Place::Handler),
            Some(Operator::Recover) => {
                counts.recovered += weight;
                self.leave_streak(unit.streak);
            }
            Some(Operator::DeadLetter | Operator::PassOn) => {}
        }
        if operator != Some(Operator::DeadLetter) && self.ways.next(unit.leg).is_some() {
            self.pass_on(unit, values, registered, now);
            return;
        }
        self.graveyard.items.extend(values);
        self.commit(unit, registered, now);
    }

    /// A unit has come to its end, well.
    fn commit(&mut self, mut unit: Unit<D>, registered: Option<Box<Scope<D::Undo>>>, now: Time) {
        let dead = self.config.legs[unit.leg].operator == Some(Operator::DeadLetter);
        let counts = self.came_back(&unit);
        let weight = u64::from(unit.weight);
        if dead {
            counts.dead_lettered += weight;
        } else {
            counts.committed += weight;
        }
        let scope = merged(unit.scope.take(), registered);
        let streak = unit.streak;
        self.end_well(unit.branch, scope, Then::Release(unit), now);
        if dead {
            self.stay_in_streak(streak, now);
        }
    }

    /// Sends a unit's outputs to the next leg. The first one stands in for the unit: it carries
    /// its weight and its origin. A copy stands for as many items. What undoes the unit belongs to all
    /// of them.
    fn pass_on(
        &mut self,
        mut unit: Unit<D>,
        values: Vec<D::Item>,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        let mut scope = merged(unit.scope.take(), registered);
        let copied = self.config.legs[unit.leg].copies.is_some();
        let each = if copied { unit.weight } else { 1 };
        let counts = self.came_back(&unit);
        if values.is_empty() {
            counts.filtered += u64::from(unit.weight);
            self.end_well(unit.branch, scope.take(), Then::Nothing, now);
        } else {
            counts.produced += (values.len() as u64 - 1) * u64::from(each);
        }
        let mut left = values.len();
        let origin = unit.origins.first().copied().unwrap_or(Origin::UNKNOWN);
        let mut weight = unit.weight;
        let outputs = values.into_iter().map(|value| {
            let weight = std::mem::replace(&mut weight, each);
            left -= 1;
            let scope = match &mut scope {
                Some(scope) if left > 0 => Some(Box::new(scope.fork())),
                scope => scope.take(),
            };
            Item {
                value,
                origin,
                scope,
                weight,
                bytes: 0,
            }
        });
        self.let_go(unit, outputs, now);
    }

    /// A unit has ended: its outputs go on as soon as it is their turn, and its lane may hand out
    /// another one.
    pub(super) fn let_go(
        &mut self,
        unit: Unit<D>,
        outputs: impl Iterator<Item = Item<D>>,
        now: Time,
    ) {
        let (branch, leg, slot) = (unit.branch, unit.leg, unit.slot);
        let entries = unit.payload.entries() as u64;
        self.bury(unit);
        if self.config.legs[leg].reorders() {
            let first = self.branches[branch.index()].first;
            self.branches[branch.index()].lanes[leg - first].hold(slot, outputs.collect());
            while let Some(items) = self.branches[branch.index()].lanes[leg - first].turn() {
                self.arrive(leg, branch, items.into_iter(), now);
            }
        } else {
            self.arrive(leg, branch, outputs, now);
        }
        self.release(branch, leg, entries, now);
    }

    /// Sends what has left `from` on its way.
    fn arrive(
        &mut self,
        from: usize,
        branch: BranchId,
        items: impl Iterator<Item = Item<D>>,
        now: Time,
    ) {
        let Some(to) = self.ways.next(from) else {
            return;
        };
        let side = self.ways.side(from);
        for (nth, item) in items.enumerate() {
            // First the item itself, then its copy.
            let to = side.filter(|_| nth > 0).unwrap_or(to);
            let leg = if self.is_operator(from) { from } else { to };
            if self.gives_up(to) {
                self.leave(branch, item, now);
            } else {
                self.branches[branch.index()].outside += u64::from(item.weight);
                self.arrivals[leg].push((branch, item));
            }
        }
    }

    fn fail_attempt(
        &mut self,
        mut unit: Unit<D>,
        error: D::Error,
        again: Again,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        match self.next_delay(&unit, again, now) {
            Ok(delay) => {
                let history = unit.history_from(now);
                self.graveyard.errors.extend(history.push(error));
                history.waited = delay;
                history.delay = history.delay.saturating_add(delay);
                unit.attempt += 1;
                let branch = unit.branch;
                self.undo(branch, registered, Then::Retry(unit, now.after(delay)), now);
            }
            Err(gave_up) => self.fail_unit(unit, error, gave_up, registered, now),
        }
    }

    /// How long a unit waits after an attempt that failed now.
    fn next_delay(&mut self, unit: &Unit<D>, again: Again, now: Time) -> Result<Duration, GaveUp> {
        let retry = self.config.legs[unit.leg].retry.as_ref();
        let retry = retry.ok_or(GaveUp::Attempts)?;
        let asked = match again {
            Again::No => return Err(GaveUp::Error),
            Again::Yes => Duration::ZERO,
            Again::After(delay) => delay,
        };
        let (waited, began) = match &unit.history {
            Some(history) => (history.waited, history.began),
            None => (Duration::ZERO, now),
        };
        retry.delay(&Tried {
            attempt: unit.attempt,
            waited,
            since_first: now.since(began),
            wall: self.config.epoch.saturating_add(now.since(Time::ZERO)),
            random: self.random.next_f64(),
            asked,
        })
    }

    /// A unit has failed for good.
    pub(super) fn fail_unit(
        &mut self,
        mut unit: Unit<D>,
        error: D::Error,
        gave_up: GaveUp,
        registered: Option<Box<Scope<D::Undo>>>,
        now: Time,
    ) {
        let row = &mut self.branches[unit.branch.index()];
        row.outside -= u64::from(unit.weight);
        let (history, delay) = match unit.history.take() {
            Some(history) => (history.errors, history.delay),
            None => (Vec::new(), Duration::ZERO),
        };
        let (branch, items, attempts) = (unit.branch, unit.weight, unit.attempt);
        let mut failed = Failed {
            branch,
            error,
            items,
            attempts,
            delay,
            history,
            gave_up,
            streak: 0,
        };
        let scope = merged(unit.scope.take(), registered);
        let (leg, behind) = (unit.leg, unit.leg + 1);
        if self.is_operator(leg) {
            // It is the failure the operator was given that has failed.
            failed.streak = unit.streak;
            self.fail_behind((leg, behind), failed, scope, Some(unit), now);
        } else {
            let at = (leg, Place::Handler);
            self.fail_from(at, behind, failed, scope, Some(unit), now);
        }
    }

    /// A unit whose next attempt, due at `at`, will not be made has failed as cancelled.
    pub(super) fn fail_in_back_off(&mut self, mut unit: Unit<D>, at: Time, now: Time) {
        unit.attempt -= 1;
        let last = unit.history.as_mut().and_then(|history| {
            history.delay = history.delay.saturating_sub(at.since(now));
            history.errors.pop()
        });
        if let Some(error) = last {
            self.fail_unit(unit, D::cancelled(error), GaveUp::Cancelled, None, now);
        }
    }

    /// No operator has taken a failure: its items have failed.
    pub fn lose(&mut self, failed: Failed<D>, now: Time) {
        let streak = failed.streak;
        let items = u64::from(failed.items);
        let row = &mut self.branches[failed.branch.index()];
        row.counts.failed += items;
        // What a branch that has failed refuses follows from that: why it has is what is asked.
        let follows = row.life.state == State::Failed && row.last_error.is_some();
        if !follows && row.last_error.as_deref() != Some(D::code(&failed.error)) {
            row.last_error = Some(D::code(&failed.error).into());
        }
        let stage = D::stage(&failed.error);
        self.gauges.fail(stage, items, D::code(&failed.error));
        self.stopping |= D::stops(&failed.error, self.config.stop_on_error);
        let code = D::code(&failed.error);
        if let Some(count) = self.codes.get_mut(code) {
            *count += items;
        } else {
            self.codes.insert(code.to_owned(), items);
        }
        if self.failures.len() < MAX_SAMPLES {
            self.failures.push(failed);
        } else {
            self.graveyard.errors.push(failed.error);
            self.graveyard.errors.extend(failed.history);
        }
        self.stay_in_streak(streak, now);
    }

    /// Whether a failure has asked for the pipeline to stop: no unit is handed out until the driver
    /// has called [`Engine::abort`].
    pub const fn stopping(&self) -> bool {
        self.stopping
    }

    pub(super) fn bury(&mut self, unit: Unit<D>) {
        match unit.payload {
            Payload::One(value) => self.graveyard.items.push(value),
            payload => self.graveyard.bury_payload(payload),
        }
        debug_assert!(unit.scope.is_none(), "its scope has ended before it");
        if let Some(history) = unit.history {
            self.graveyard.errors.extend(history.errors);
        }
    }
}
