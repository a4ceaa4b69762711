//! Where items and failures go next.
//!
//! The legs stand in a row. An item goes from handler to handler, a failure from operator to
//! operator. Behind a leg that **copies** stand, in the row, first the legs of the copies' course,
//! and then those that the item itself goes on to; a course of copies may copy in its turn.
//!
//! ```text
//!  row:      0 handler   1 copies   2 handler   3 sink   4 operator   5 sink   6 operator
//!  course:   0           0          1           1        1            0        0
//!  items:    0 -> 1 -> 5            copies: 1 -> 2 -> 3
//! ```
//!
//! A failure stays in its course: if an operator in front of another sink made an item of it, there
//! would be two of it there. Only those behind the last sink of the row, who have nothing to make
//! items for, take the failures of all courses.

use std::ops::Range;

use super::{Domain, Failed, Item, LegOptions};
use crate::branch::BranchId;

/// Where items and failures go next, and the failures on their way.
#[derive(Debug)]
pub(super) struct Ways<D: Domain> {
    /// The leg that the outputs of each leg go to.
    next: Vec<Option<usize>>,
    /// The leg that their copies go to.
    side: Vec<Option<usize>>,
    /// The leg that each is reached from.
    before: Vec<Option<usize>>,
    /// The course of each.
    course: Vec<usize>,
    /// Where in the row each course ends.
    ends: Vec<usize>,
    /// The first leg behind the last sink.
    tail: usize,
    /// The leg that fresh items come to.
    entry: usize,
    /// The legs that take failures, ascending.
    operators: Vec<usize>,
    /// Failures that have not reached the leg they are on their way to, those whose unit is being
    /// undone included.
    pub(super) heading: Vec<u64>,
    pub(super) failures: Vec<(usize, Failed<D>)>,
    /// Failures whose operator will not be asked any more.
    pub(super) unheard: Vec<(BranchId, Item<D>)>,
    /// The leg behind the operator that has made what is offered now; 0 if none has.
    pub(super) past: usize,
}

impl<D: Domain> Ways<D> {
    pub(super) fn new(legs: &[LegOptions]) -> Self {
        let all = 0..legs.len();
        let takes_items = |leg: &usize| legs[*leg].operator.is_none();
        let next_of = |leg: usize, course: usize| {
            let mut behind = (leg + 1..legs.len()).filter(takes_items);
            behind.find(|other| legs[*other].course == course)
        };
        let course: Vec<_> = legs.iter().map(|leg| leg.course).collect();
        let courses = course.iter().max().map_or(1, |last| last + 1);
        let end = |of: usize| match of {
            0 => legs.len(),
            _ => all
                .clone()
                .rfind(|leg| course[*leg] == of)
                .map_or(0, |leg| leg + 1),
        };
        Self {
            next: all
                .clone()
                .map(|leg| next_of(leg, legs[leg].course))
                .collect(),
            side: all
                .clone()
                .map(|leg| legs[leg].copies.and_then(|course| next_of(leg, course)))
                .collect(),
            before: all
                .clone()
                .map(|leg| {
                    let mut before = (0..leg).rev();
                    let same = before.find(|other| course[*other] == course[leg]);
                    same.or_else(|| leg.checked_sub(1))
                })
                .collect(),
            ends: (0..courses).map(end).collect(),
            tail: all.clone().rfind(takes_items).map_or(0, |leg| leg + 1),
            entry: all.clone().find(takes_items).unwrap_or(0),
            operators: all.filter(|leg| !takes_items(leg)).collect(),
            heading: vec![0; legs.len()],
            failures: Vec::new(),
            unheard: Vec::new(),
            past: 0,
            course,
        }
    }

    /// The leg that the outputs of `leg` go to.
    pub(super) fn next(&self, leg: usize) -> Option<usize> {
        self.next[leg]
    }

    /// The leg that the copies go to which `leg` makes.
    pub(super) fn side(&self, leg: usize) -> Option<usize> {
        self.side[leg]
    }

    /// The leg that fresh items come to.
    pub(super) const fn entry(&self) -> usize {
        self.entry
    }

    /// The legs that something may come to `leg` from.
    pub(super) fn before(&self, leg: usize) -> Range<usize> {
        match self.before[leg] {
            _ if leg >= self.tail => 0..leg,
            Some(before) => before..before + 1,
            None => 0..0,
        }
    }

    /// The legs that what leaves `leg` may come to.
    pub(super) fn behind(&self, leg: usize) -> impl Iterator<Item = usize> + use<D> {
        let end = self.ends[self.course[leg]];
        (leg + 1..end).chain(end.max(self.tail)..self.next.len())
    }

    /// How many legs the trunk passes: failures from before the fan-out pass all operators.
    pub(super) fn of_trunk(&self, fan_leg: usize) -> usize {
        match self.operators.last() {
            Some(last) => fan_leg.max(last + 1),
            None => fan_leg,
        }
    }

    /// Whether no failure is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.failures.is_empty() && self.unheard.is_empty()
    }

    /// Whether a failure of `branch` is on its way.
    pub(super) fn has_failure_of(&self, branch: BranchId) -> bool {
        self.failures
            .iter()
            .any(|(_, failed)| failed.branch == branch)
    }

    /// The first operator that takes failures from leg `at`, among the legs from `from` on.
    pub(super) fn operator(&self, at: usize, from: usize) -> Option<usize> {
        let course = self.course.get(at).copied().unwrap_or(0);
        let hears =
            |leg: &usize| *leg >= from && (*leg >= self.tail || self.course[*leg] == course);
        self.operators.iter().copied().find(hears)
    }
}
