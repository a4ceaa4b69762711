//! Attempts that must end in time, and what becomes of those that do not.
//!
//! ```text
//!  under way --complete--> over
//!      |
//!      | deadline: the driver is told, and stops it
//!      v
//!    late -----ended-----> over: what it gave is dropped, and counted
//!      |
//!      | grace: the driver is told, and replaces whoever runs it
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

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Domain, Engine, MAX_SAMPLES, Unit};
use crate::branch::BranchId;
use crate::clock::Time;

/// Names an attempt that has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// An attempt is not over in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Which one.
    pub attempt: AttemptId,
    /// Whose handler it is.
    pub leg: usize,
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
    leg: usize,
    attempt: u32,
    began: Time,
    late: bool,
}

impl Watch {
    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.news.is_empty()
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
        self.watch.last += 1;
        let key = (now.after(timeout), AttemptId(self.watch.last));
        unit.history_from(now).watched = Some(key);
        let watched = Watched {
            branch: unit.branch,
            leg: unit.leg,
            attempt: unit.attempt,
            began: now,
            late: false,
        };
        self.watch.attempts.insert(key, watched);
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
            let leg = watched.leg;
            self.watch.news.push(Overdue {
                attempt,
                leg,
                abandoned: watched.late,
            });
            if watched.late {
                self.watch.abandoned_count += 1;
                if self.watch.abandoned.len() < MAX_SAMPLES {
                    self.watch.abandoned.push(Abandoned {
                        branch: watched.branch,
                        leg,
                        attempt: watched.attempt,
                        ran: now.since(watched.began),
                    });
                }
            } else {
                watched.late = true;
                let until = now.after(self.config.legs[leg].grace);
                self.watch.attempts.insert((until, attempt), watched);
            }
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
