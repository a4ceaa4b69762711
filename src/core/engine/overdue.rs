//! Attempts that must end in time, and what becomes of those that do not.
//!
//! ```text
//!  under way --complete--> over
//!      |
//!      | deadline: the driver is told, and stops it
//!      v
//!    late -----ended-----> over: what it gave is dropped, and counted
//!      |
//!      | grace, or the run is in a hurry: the driver is told, and replaces whoever runs it
//!      v
//!  abandoned, listed --ended--> over: the same
//! ```
//!
//! The timeout fails the unit; the operation behind it may live on. So there are two ends: that
//! of the unit, [`Engine::complete`], which the driver may tell as soon as the attempt is late, and
//! that of the operation, [`Engine::ended`].
//!
//! At most as many attempts are watched as units are in flight, and operations late: nothing is
//! left behind by an attempt that ends in time.
//!
//! Undo actions are watched in the same way, to the deadline of their rollback.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Domain, Engine, MAX_SAMPLES, Turn, Unit};
use crate::branch::BranchId;
use crate::clock::Time;

/// How long after the deadline of its rollback an undo action may take to end before it is left
/// behind.
pub const UNDO_GRACE: Duration = Duration::from_secs(1);

/// Names an attempt, or an undo action under way, that has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// An attempt is not over in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Which one.
    pub attempt: AttemptId,
    /// Whose handler it is; `None`: it is an undo action.
    pub leg: Option<usize>,
    /// Whether the grace is over, too.
    pub abandoned: bool,
}

/// An operation that was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned {
    /// Whose unit.
    pub branch: BranchId,
    /// Whose handler.
    pub leg: usize,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How long it had been running by then.
    pub ran: Duration,
}

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By the time at which something has to happen.
    attempts: BTreeMap<(Time, AttemptId), Watched>,
    last: u64,
    news: Vec<Overdue>,
    abandoned: Vec<Abandoned>,
    abandoned_count: u64,
    late: u64,
}

#[derive(Debug)]
struct Watched {
    branch: BranchId,
    /// The leg and the number of the attempt; `None` for an undo action.
    handler: Option<(usize, u32)>,
    began: Time,
    late: bool,
}

impl Watch {
    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.news.is_empty()
    }

    /// The attempts of a branch: the leg, the number of the attempt, and since when.
    pub(super) fn attempts_of(
        &self,
        branch: BranchId,
    ) -> impl Iterator<Item = (usize, u32, Time)> + '_ {
        let all = self.attempts.values().filter(move |it| it.branch == branch);
        all.filter_map(|it| it.handler.map(|(leg, attempt)| (leg, attempt, it.began)))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.attempts.keys().next().map(|(at, _)| *at)
    }
}

impl<D: Domain> Unit<D> {
    /// The attempt under way, if it has a deadline, and when that is.
    pub fn deadline(&self) -> Option<(AttemptId, Time)> {
        let (at, attempt) = self.history.as_ref()?.watched?;
        Some((attempt, at))
    }
}

impl<D: Domain> Engine<D> {
    /// An attempt begins, of a leg where it matters when.
    pub(super) fn begin_clocked(&mut self, unit: &mut Unit<D>, now: Time) {
        let timeout = self.config.legs[unit.leg].timeout;
        unit.history_from(now);
        let Some(timeout) = timeout else {
            return;
        };
        let handler = Some((unit.leg, unit.attempt));
        let key = self.begin_watch(unit.branch, handler, now.after(timeout), now);
        unit.history_from(now).watched = Some(key);
    }

    fn begin_watch(
        &mut self,
        branch: BranchId,
        handler: Option<(usize, u32)>,
        until: Time,
        now: Time,
    ) -> (Time, AttemptId) {
        self.watch.last += 1;
        let key = (until, AttemptId(self.watch.last));
        let watched = Watched {
            branch,
            handler,
            began: now,
            late: false,
        };
        self.watch.attempts.insert(key, watched);
        key
    }

    /// An undo action begins, and must have ended with its rollback.
    pub(super) fn begin_undo(
        &mut self,
        branch: BranchId,
        deadline: Time,
        now: Time,
    ) -> Option<AttemptId> {
        (deadline < Time::NEVER).then(|| self.begin_watch(branch, None, deadline, now).1)
    }

    /// An undo action comes back.
    pub(super) fn end_undo(&mut self, turn: &Turn<D>) {
        if let Some(attempt) = turn.attempt {
            self.watch.attempts.remove(&(turn.deadline, attempt));
        }
    }

    /// A unit comes back. If its attempt is late, its operation is watched on.
    pub(super) fn end_clocked(&mut self, unit: &mut Unit<D>) {
        if let Some(history) = &mut unit.history
            && let Some(key) = history.watched.take()
        {
            // A late one stands under another time.
            self.watch.attempts.remove(&key);
        }
    }

    /// Finds out which attempts are overdue.
    pub(super) fn watch(&mut self, now: Time) {
        while let Some(first) = self.watch.attempts.first_entry()
            && first.key().0 <= now
        {
            let ((_, attempt), mut watched) = first.remove_entry();
            self.watch.news.push(Overdue {
                attempt,
                leg: watched.handler.map(|(leg, _)| leg),
                abandoned: watched.late,
            });
            match watched.handler {
                // Undo actions that do not end are told of with their rollback.
                None if watched.late => {}
                Some((leg, attempt)) if watched.late => {
                    let ran = now.since(watched.began);
                    self.tell_abandoned(watched.branch, leg, attempt, ran);
                }
                handler => {
                    watched.late = true;
                    let grace = handler.map_or(UNDO_GRACE, |(leg, _)| self.config.legs[leg].grace);
                    self.watch
                        .attempts
                        .insert((now.after(grace), attempt), watched);
                }
            }
        }
    }

    /// Nobody waits any longer for operations that are late: their grace is over now.
    pub fn end_grace(&mut self, now: Time) {
        let attempts = &mut self.watch.attempts;
        let late = attempts
            .iter()
            .filter(|(_, it)| it.late && it.handler.is_some());
        let late: Vec<_> = late.map(|(key, _)| *key).collect();
        for key in late {
            if let Some(watched) = attempts.remove(&key) {
                attempts.insert((now, key.1), watched);
            }
        }
    }

    /// Counts a call that was left behind, after its timeout or because it does not end when the run
    /// is aborted.
    pub fn tell_abandoned(&mut self, branch: BranchId, leg: usize, attempt: u32, ran: Duration) {
        self.watch.abandoned_count += 1;
        if self.watch.abandoned.len() < MAX_SAMPLES {
            self.watch.abandoned.push(Abandoned {
                branch,
                leg,
                attempt,
                ran,
            });
        }
    }

    /// What is overdue since the last call. The driver stops a late attempt, and completes its
    /// unit as failed, at the latest when it hears that the attempt is abandoned.
    pub fn take_overdue(&mut self) -> Vec<Overdue> {
        std::mem::take(&mut self.watch.news)
    }

    /// The operation of a late attempt has ended after all; whether it gave a result, which was
    /// dropped.
    pub fn ended(&mut self, attempt: AttemptId, gave: bool) {
        self.watch.late += u64::from(gave);
        let late = |&(_, id): &(Time, AttemptId)| id == attempt;
        if let Some(key) = self.watch.attempts.keys().copied().find(late) {
            self.watch.attempts.remove(&key);
        }
    }

    /// The first operations that were left behind, as samples, and how many were.
    pub fn abandoned(&self) -> (&[Abandoned], u64) {
        (&self.watch.abandoned, self.watch.abandoned_count)
    }

    /// How many late attempts gave a result after all.
    pub const fn late(&self) -> u64 {
        self.watch.late
    }
}
