//! The units of a branch that are under way, for those who look: as far as the engine has them, or
//! has to see that they end in time. Of the others with a handler there is only the number.

use super::unit::Alarm;
use super::{Domain, Engine};
use crate::branch::BranchId;
use crate::clock::Time;

/// One unit under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitLook {
    /// For which leg's handler it is.
    pub leg: usize,
    /// Items in it, if the engine has it.
    pub items: Option<usize>,
    /// The number of the attempt under way, or to come.
    pub attempt: u32,
    /// Attempts it may have, if that is settled.
    pub of: Option<u32>,
    /// Since when it is with its handler.
    pub since: Option<Time>,
    /// When it is handed out again.
    pub again: Option<Time>,
}

impl<D: Domain> Engine<D> {
    /// The units of a branch: those in back-off, the next one first, then those whose attempt has a
    /// deadline; at most so many. It costs a look at every timer.
    pub fn look_at_units(&self, branch: BranchId, most: usize) -> Vec<UnitLook> {
        let of = |leg: usize| self.config.legs[leg].retry.as_ref().map(|it| it.attempts);
        let waiting = self.timers.iter().filter_map(|timer| match &timer.alarm {
            Alarm::Retry(unit) if unit.branch == branch => Some(UnitLook {
                leg: unit.leg,
                items: Some(unit.payload.entries()),
                attempt: unit.attempt,
                of: of(unit.leg),
                since: None,
                again: Some(timer.at),
            }),
            _ => None,
        });
        let mut units: Vec<_> = waiting.collect();
        units.sort_by_key(|unit| unit.again);
        units.extend(self.watch.attempts_of(branch).map(|(leg, attempt, began)| {
            let (items, again) = (None, None);
            let (of, since) = (of(leg), Some(began));
            UnitLook {
                leg,
                items,
                attempt,
                of,
                since,
                again,
            }
        }));
        units.truncate(most);
        units
    }
}
