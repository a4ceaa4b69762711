//! How branches open, pause, end and come back; the states are in `branch/life.rs`.
//!
//! The engine decides, and the driver hears of it: who is told of branches that open and close is
//! foreign code. So a branch that is to come back is not opened here: the driver is told that it
//! is wanted ([`Engine::take_news`]), and opens it ([`Engine::reopen`]) or declines to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::end::Phase;
use super::full::Refused;
use super::unit::{Alarm, Timer};
use super::{Domain, Engine, Item, Payload, Port, Unit, Why};
use crate::branch::{Branch, BranchId, Change, Command, Ending, Lane, Misfit, News, Own, State};
use crate::channel::OnFull;
use crate::clock::Time;
use crate::retry::{Retry, Tried};
use crate::throttle::{Bucket, Rate};

/// How branches live.
#[derive(Debug, Clone, PartialEq)]
pub struct BranchOptions {
    /// What becomes of an item that finds its branch full.
    pub on_full: OnFull,
    /// How long a full branch may hold up others; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// How long after its last unit an empty branch is evicted; `None`: never.
    pub idle_ttl: Option<Duration>,
    /// What follows when a unit of a branch has failed for good.
    pub on_error: OnBranchError,
    /// Whether branches go on when the source has ended, until the pipeline is drained.
    pub stay_open: bool,
}

impl Default for BranchOptions {
    fn default() -> Self {
        Self {
            on_full: OnFull::Wait,
            timeout: None,
            idle_ttl: None,
            on_error: OnBranchError::Continue,
            stay_open: false,
        }
    }
}

/// What follows when a unit of a branch has failed for good, and was rolled back.
#[derive(Debug, Clone, PartialEq)]
pub enum OnBranchError {
    /// The branch goes on.
    Continue,
    /// It fails, once so many units have failed with none committed in between.
    Fail {
        /// So many.
        after: u32,
    },
    /// It waits, and opens again; with no attempt left it fails.
    Restart(Retry),
    /// The pipeline stops.
    Stop,
}

/// What is to happen to branches.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Branches whose generation ends as soon as they are at rest.
    ending: Vec<BranchId>,
    /// When to see whether a branch is idle: at most one entry for each.
    idle: BinaryHeap<Reverse<(Time, BranchId)>>,
    /// Branches with lanes.
    open: usize,
    news: Vec<(BranchId, News)>,
}

impl<D: Domain> Engine<D> {
    /// Opens a tenant's branch.
    pub fn open_branch(&mut self, own: Own, now: Time) -> BranchId {
        let id = BranchId(u32::try_from(self.branches.len()).unwrap_or(u32::MAX));
        let first = self.config.fan_leg;
        let on_full = own.on_full.unwrap_or(self.config.branches.on_full);
        let legs = &self.config.legs[first..];
        self.branches
            .push(Branch::new(first, legs, own.capacity, on_full, now));
        self.lives.open += 1;
        self.opened(id, own, now);
        id
    }

    /// Opens a branch again that was wanted, or is over: what has come for it meanwhile goes in.
    pub fn reopen(&mut self, branch: BranchId, own: Own, now: Time) {
        let row = &mut self.branches[branch.index()];
        if row.life.state.admits() && row.life.state != State::Restarting {
            return;
        }
        if row.lanes.is_empty() {
            let on_full = own.on_full.unwrap_or(self.config.branches.on_full);
            let legs = &self.config.legs[row.first..];
            row.lanes = Lane::row(legs, own.capacity, on_full);
            self.lives.open += 1;
        }
        row.shut = 0;
        let life = &mut row.life;
        life.state = State::Open;
        life.after = State::Open;
        life.ending = Ending::None;
        life.generation += 1;
        life.touched = now;
        let next = life.take_next();
        let entry = row.entry;
        self.opened(branch, own, now);
        for item in next {
            self.load[entry] -= 1;
            self.offer(entry, branch, item, now);
        }
        self.list_all(branch);
    }

    /// The driver will not open a branch that was wanted: what has come for it is refused.
    pub fn decline(&mut self, branch: BranchId, now: Time) {
        let row = &mut self.branches[branch.index()];
        if row.life.state == State::Restarting {
            self.fail_branch(branch, Why::Declined, now);
        }
        self.refuse_next(branch, Why::Declined);
    }

    fn opened(&mut self, branch: BranchId, own: Own, now: Time) {
        self.least = self.least.min(own.capacity.unwrap_or(usize::MAX));
        self.watch_idle(branch, now);
    }

    /// Something has ended in a branch: it may be idle from now on.
    pub(super) fn watch_idle(&mut self, branch: BranchId, now: Time) {
        let life = &mut self.branches[branch.index()].life;
        life.touched = now;
        if !life.watched
            && branch != BranchId::TRUNK
            && let Some(ttl) = self.config.branches.idle_ttl
        {
            life.watched = true;
            self.lives.idle.push(Reverse((now.after(ttl), branch)));
        }
    }

    /// Nothing is inside a branch, and it is over: it costs little from here on.
    fn fold(&mut self, branch: BranchId) {
        // Empty: nothing foreign is dropped with them.
        self.branches[branch.index()].lanes = Vec::new();
        self.lives.open -= 1;
    }

    /// How many branches are not over.
    pub const fn open_branches(&self) -> usize {
        self.lives.open
    }

    /// What a branch is doing, and how often it has been opened.
    pub fn state(&self, branch: BranchId) -> (State, u32) {
        let life = &self.branches[branch.index()].life;
        (life.state, life.generation)
    }

    /// What has happened to branches since the last call.
    pub fn take_news(&mut self) -> Vec<(BranchId, News)> {
        std::mem::take(&mut self.lives.news)
    }

    /// Whether a branch was wanted, which is no news any more.
    pub fn take_wanted(&mut self, branch: BranchId) -> bool {
        let before = self.lives.news.len();
        self.lives.news.retain(|it| *it != (branch, News::Wanted));
        self.lives.news.len() < before
    }

    /// Whether there is something for [`Engine::take_news`].
    pub const fn has_news(&self) -> bool {
        !self.lives.news.is_empty()
    }

    /// Carries out what is asked of a branch.
    ///
    /// # Errors
    /// [`Misfit`] if it does not fit the branch's state.
    pub fn obey(&mut self, branch: BranchId, command: Command, now: Time) -> Result<(), Misfit> {
        let life = &mut self.branches[branch.index()].life;
        match life.state.obey(command, life.after)? {
            Change::To(State::Failed) => self.fail_branch(branch, Why::Failed, now),
            Change::To(State::Paused) => self.pause(branch),
            Change::To(state) => {
                life.state = state;
                life.after = state;
                if state == State::Open {
                    self.watch_idle(branch, now);
                    self.unpark(branch);
                    self.list_all(branch);
                }
            }
            Change::Drain(after) => self.drain_branch(branch, after, now),
            Change::Open if life.ending != Ending::None => {
                life.after = State::Open;
                life.waited = Duration::ZERO;
            }
            Change::Open => self.lives.news.push((branch, News::Wanted)),
        }
        Ok(())
    }

    /// Lets the units of a branch out at another rate, at its first leg with a throttle, or, if
    /// none has one, at its first; `None`: as fast as can be. Whether it has a leg now.
    pub fn throttle(&mut self, branch: BranchId, rate: Option<Rate>, now: Time) -> bool {
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let throttled = row.lanes.iter().position(|lane| lane.bucket.is_some());
        let place = throttled.unwrap_or(row.entry - first);
        let Some(lane) = row.lanes.get_mut(place) else {
            return false;
        };
        match (&mut lane.bucket, rate) {
            (Some(bucket), Some(rate)) => bucket.change(rate, now),
            (bucket, rate) => *bucket = rate.map(|rate| Box::new(Bucket::new(rate))),
        }
        // The timer that is set may be wrong now; one that goes off for nothing does no harm.
        (lane.dry, lane.timed) = (false, false);
        if lane.window.is_some() {
            self.refill(branch, first + place, now);
        }
        self.list(branch, first + place);
        true
    }

    /// A unit, or an item, of a branch has failed for good.
    pub(super) fn branch_met_failure(&mut self, branch: BranchId, now: Time) {
        if branch == BranchId::TRUNK
            || self.config.branches.on_error == OnBranchError::Continue
            || self.aborted()
        {
            return;
        }
        let row = &mut self.branches[branch.index()];
        let life = &mut row.life;
        if life.well != row.counts.committed {
            life.well = row.counts.committed;
            life.streak = 0;
            life.restarts = 0;
            life.waited = Duration::ZERO;
        }
        life.streak = life.streak.saturating_add(1);
        if life.state.is_over() {
            return;
        }
        match &self.config.branches.on_error {
            OnBranchError::Stop => self.stopping = true,
            OnBranchError::Fail { after } => {
                if life.streak >= *after {
                    self.fail_branch(branch, Why::Failed, now);
                }
            }
            OnBranchError::Restart(retry) if matches!(life.state, State::Open | State::Paused) => {
                let delay = retry.delay(&Tried {
                    attempt: life.restarts + 1,
                    waited: life.waited,
                    since_first: Duration::ZERO,
                    wall: self.config.epoch.saturating_add(now.since(Time::ZERO)),
                    random: self.random.next_f64(),
                    asked: Duration::ZERO,
                });
                if let Ok(delay) = delay {
                    life.restarts += 1;
                    life.waited = delay;
                    life.state = State::Restarting;
                    life.after = State::Open;
                    life.ending = Ending::Badly;
                    self.lives.ending.push(branch);
                    self.unpark(branch);
                } else {
                    self.fail_branch(branch, Why::Failed, now);
                }
            }
            OnBranchError::Continue | OnBranchError::Restart(_) => {}
        }
    }

    fn pause(&mut self, branch: BranchId) {
        self.branches[branch.index()].life.state = State::Paused;
        for port in 0..self.again.len() {
            for unit in std::mem::take(&mut self.again[port]) {
                self.try_again(unit);
            }
        }
    }

    /// Whether a unit that would be tried again has failed for good meanwhile, with the run or with
    /// its branch.
    pub(super) fn tries_no_more(&self, unit: &Unit<D>) -> bool {
        self.aborted()
            || (self.branches[unit.branch.index()].life.state == State::Failed
                && !self.is_operator(unit.leg))
    }

    /// A unit's back-off is over: its turn comes, unless its branch is paused. What takes failures
    /// goes on then, too: others may wait for it.
    pub(super) fn try_again(&mut self, unit: Unit<D>) {
        let goes_on = self.aborted() || self.is_operator(unit.leg);
        let life = &mut self.branches[unit.branch.index()].life;
        if life.state == State::Paused && !goes_on {
            life.rare().parked.push(unit);
        } else {
            let Port(port) = self.config.legs[unit.leg].port;
            self.again[port].push_back(unit);
        }
    }

    fn unpark(&mut self, branch: BranchId) {
        for unit in self.branches[branch.index()].life.take_parked() {
            self.try_again(unit);
        }
    }

    fn list_all(&mut self, branch: BranchId) {
        for leg in self.branches[branch.index()].first..self.config.legs.len() {
            self.list(branch, leg);
        }
    }

    fn drain_branch(&mut self, branch: BranchId, after: State, now: Time) {
        let row = &mut self.branches[branch.index()];
        row.life.after = after;
        if row.life.state != State::Draining {
            row.life.state = State::Draining;
            row.life.ending = Ending::Well;
            if let Some(lane) = row.lanes.get_mut(row.entry - row.first) {
                // What comes now does not go in by the short way.
                lane.limit = 0;
            }
            self.lives.ending.push(branch);
            self.unpark(branch);
            for leg in self.branches[branch.index()].first..self.config.legs.len() {
                self.refill(branch, leg, now);
                self.list(branch, leg);
            }
        }
        if after == State::Removed {
            self.refuse_next(branch, Why::Removed);
        }
    }

    /// Gives up what no handler of the branch has begun, and undoes the branch once the others
    /// have ended.
    fn fail_branch(&mut self, branch: BranchId, why: Why, now: Time) {
        let row = &mut self.branches[branch.index()];
        let first = row.first;
        let life = &mut row.life;
        if life.state == State::Failed {
            return;
        }
        // A branch in its back-off has ended its generation already.
        let open = life.state != State::Restarting || life.ending != Ending::None;
        life.state = State::Failed;
        life.after = State::Failed;
        if open {
            if life.ending == Ending::None {
                self.lives.ending.push(branch);
            }
            life.ending = Ending::Badly;
        }
        for leg in first..self.config.legs.len() {
            // Failures that wait for their operator are still heard.
            if !self.is_operator(leg) {
                self.refuse_lane(branch, leg, why, now);
            }
        }
        self.refuse_next(branch, why);
        self.unpark(branch);
        let timers = std::mem::take(&mut self.timers);
        let mut cut_short = Vec::new();
        for timer in timers {
            match timer.alarm {
                Alarm::Retry(unit)
                    if unit.branch == branch && self.config.legs[unit.leg].operator.is_none() =>
                {
                    cut_short.push((unit, timer.at));
                }
                _ => self.timers.push(timer),
            }
        }
        for port in 0..self.again.len() {
            for unit in std::mem::take(&mut self.again[port]) {
                if unit.branch == branch && !self.is_operator(unit.leg) {
                    cut_short.push((unit, now));
                } else {
                    self.again[port].push_back(unit);
                }
            }
        }
        for (unit, at) in cut_short {
            self.fail_in_back_off(unit, at, now);
        }
        if !open {
            self.fold(branch);
        }
    }

    fn refuse_lane(&mut self, branch: BranchId, leg: usize, why: Why, now: Time) {
        let row = &mut self.branches[branch.index()];
        let Some(lane) = row.lanes.get_mut(leg - row.first) else {
            return;
        };
        let queue = std::mem::take(&mut lane.queue);
        let cut = std::mem::take(&mut lane.cut);
        let partial = lane.window.as_mut().filter(|window| !window.is_empty());
        let partial = partial.map(|window| window.cut(crate::window::Reason::Close, now));
        self.let_on(branch, leg, now);
        for unit in cut {
            self.load[leg] -= unit.payload.entries() as u64;
            self.refuse_unit(unit, why);
        }
        if let Some(contents) = partial {
            self.load[leg] -= contents.values.len() as u64;
            self.refuse(Refused {
                branch,
                why,
                behind: leg,
                payload: Payload::Many(contents.values),
                weight: contents.weight,
                scope: contents.scope,
            });
        }
        self.load[leg] -= queue.len() as u64;
        for item in queue {
            self.refuse_item(leg, branch, item, why);
        }
    }

    fn refuse_next(&mut self, branch: BranchId, why: Why) {
        let row = &mut self.branches[branch.index()];
        let (first, entry) = (row.first, row.entry);
        let next = row.life.take_next();
        self.load[entry] -= next.len() as u64;
        for item in next {
            self.refuse_item(first, branch, item, why);
        }
    }

    /// Whether a branch that lets nothing in now has an answer for what comes to this leg.
    pub(super) fn turns_away(&self, leg: usize, branch: BranchId) -> bool {
        let row = &self.branches[branch.index()];
        match row.life.state {
            _ if self.is_operator(leg) => false,
            State::Failed | State::Removed | State::Evicted => true,
            State::Draining => leg == row.entry,
            State::Open | State::Paused | State::Restarting => false,
        }
    }

    /// An item comes to a branch that lets nothing in.
    pub(super) fn turn_away(&mut self, leg: usize, branch: BranchId, item: Item<D>, now: Time) {
        let row = &mut self.branches[branch.index()];
        let removed = row.life.after == State::Removed;
        match row.life.state {
            State::Failed => return self.refuse_entry(branch, item, Why::Failed),
            State::Removed => return self.refuse_entry(branch, item, Why::Removed),
            _ if removed => return self.refuse_entry(branch, item, Why::Removed),
            _ => {}
        }
        // Between two generations, it waits in front of the first leg.
        let waiting = row.life.next().len();
        if row.life.state == State::Evicted && waiting == 0 {
            self.lives.news.push((branch, News::Wanted));
        }
        let lane = row.lanes.get(row.entry - row.first);
        let full = lane.is_some_and(|lane| waiting >= lane.capacity && lane.turns_down());
        if full {
            match lane.map(|lane| lane.on_full) {
                Some(OnFull::DropOldest) => {
                    let next = &mut row.life.rare().next;
                    next.push(item);
                    let oldest = next.remove(0);
                    self.drop_item(branch, oldest, now);
                }
                Some(OnFull::DropNewest) => self.drop_item(branch, item, now),
                Some(OnFull::Fail) => self.refuse_entry(branch, item, Why::Full),
                Some(OnFull::Wait) | None => self.refuse_entry(branch, item, Why::Timeout),
            }
            return;
        }
        let holds_up = lane.is_some_and(|lane| waiting + 1 >= lane.capacity && !lane.over);
        row.life.rare().next.push(item);
        self.load[leg] += 1;
        if holds_up {
            self.hold_up(branch, leg, now);
        }
    }

    /// Ends the generations whose time has come.
    pub(super) fn end_generations(&mut self, now: Time) {
        if self.lives.ending.is_empty() {
            return;
        }
        let ending = std::mem::take(&mut self.lives.ending);
        for branch in ending {
            if !self.end_generation(branch, now) {
                self.lives.ending.push(branch);
            }
        }
    }

    /// Ends a generation if its branch is at rest.
    fn end_generation(&mut self, branch: BranchId, now: Time) -> bool {
        if self.branches[branch.index()].life.state == State::Draining {
            self.shut(branch, now);
        }
        let row = &self.branches[branch.index()];
        let begun = row.lanes.iter().any(|lane| lane.in_flight > 0);
        let at_rest = match row.life.state {
            State::Restarting => !begun,
            _ => row.is_at_rest(),
        };
        if !at_rest {
            return false;
        }
        match row.life.ending {
            Ending::None => return true,
            Ending::Well => self.commit_branch(branch, now),
            Ending::Badly => self.undo_branch(branch, now),
        }
        let row = &mut self.branches[branch.index()];
        let (first, lanes) = (row.first, row.lanes.len());
        row.life.ending = Ending::None;
        if row.life.state == State::Restarting {
            let (generation, at) = (row.life.generation, now.after(row.life.waited));
            self.lives
                .news
                .push((branch, News::Closed { wanted: false }));
            self.sequence += 1;
            self.timers.push(Timer {
                at,
                order: self.sequence,
                alarm: Alarm::Reopen(branch, generation),
            });
            return true;
        }
        let after = row.life.after;
        let waits = !row.life.next().is_empty();
        let wanted = after == State::Open || (after == State::Evicted && waits);
        if row.life.state == State::Draining {
            let over = if after == State::Removed {
                State::Removed
            } else {
                State::Evicted
            };
            row.life.state = over;
        }
        for leg in first..first + lanes {
            self.let_on(branch, leg, now);
        }
        self.fold(branch);
        self.lives.news.push((branch, News::Closed { wanted }));
        true
    }

    /// Lets the windows of a draining branch leave, one leg after the other, as soon as nothing
    /// can reach them any more.
    fn shut(&mut self, branch: BranchId, now: Time) {
        let row = &self.branches[branch.index()];
        let first = row.first;
        for place in 0..row.lanes.len() {
            let leg = first + place;
            let row = &mut self.branches[branch.index()];
            let before = place.checked_sub(1).map(|before| &row.lanes[before]);
            if before.is_some_and(|lane| !lane.is_vacant()) {
                return;
            }
            let arriving = |of: &(BranchId, Item<D>)| of.0 == branch;
            if place > 0
                && (self.ways.has_failure_of(branch)
                    || self.arrivals[first..=leg].iter().flatten().any(arriving))
            {
                return;
            }
            if row.shut <= leg {
                row.shut = leg + 1;
                self.refill(branch, leg, now);
                self.list(branch, leg);
            }
        }
    }

    /// A branch has waited long enough since its generation ended.
    pub(super) fn back_off_is_over(&mut self, branch: BranchId, generation: u32) {
        let life = &self.branches[branch.index()].life;
        if life.state == State::Restarting && life.generation == generation {
            self.lives.news.push((branch, News::Wanted));
        }
    }

    /// When the next branch may be idle.
    pub(super) fn idle_deadline(&self) -> Option<Time> {
        let next = self.lives.idle.peek().filter(|_| !self.winds_up());
        next.map(|Reverse((at, _))| *at)
    }

    /// Whether all branches are about to close anyway.
    fn winds_up(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Ending => !self.config.branches.stay_open,
            Phase::Draining | Phase::Aborted | Phase::Discarding => true,
        }
    }

    /// Evicts the branches that have been idle for long enough.
    pub(super) fn evict_idle(&mut self, now: Time) {
        let Some(ttl) = self.config.branches.idle_ttl else {
            return;
        };
        while let Some(&Reverse((at, branch))) = self.lives.idle.peek()
            && at <= now
        {
            self.lives.idle.pop();
            let winds_up = self.winds_up();
            let row = &mut self.branches[branch.index()];
            if row.life.state != State::Open || !row.is_at_rest() || winds_up {
                // Looked at again once something ends in it: a branch where nothing does would
                // else keep the clock going for ever.
                row.life.watched = false;
                continue;
            }
            let until = row.life.touched.after(ttl);
            if until > now {
                self.lives.idle.push(Reverse((until, branch)));
                continue;
            }
            row.life.state = State::Evicted;
            row.life.after = State::Evicted;
            row.life.watched = false;
            self.commit_branch(branch, now);
            self.fold(branch);
            self.lives
                .news
                .push((branch, News::Closed { wanted: false }));
        }
    }

    /// Gives up what waits outside of the lanes: for the next generation, or for a branch to be
    /// resumed.
    pub(super) fn give_up_waiting(&mut self, now: Time) {
        for index in 0..self.branches.len() {
            let row = &mut self.branches[index];
            if row.life.rare.is_none() {
                continue;
            }
            let entry = row.entry;
            let branch = BranchId(u32::try_from(index).unwrap_or(u32::MAX));
            let (next, parked) = (row.life.take_next(), row.life.take_parked());
            self.load[entry] -= next.len() as u64;
            for item in next {
                self.leave(branch, item, now);
            }
            for unit in parked {
                self.fail_in_back_off(unit, now, now);
            }
        }
    }
}
