//! Reading from many sources at once: which of those that have something is read next.
//!
//! A [`Merge`] knows nothing of channels: it is told which sources are ready, says which one to
//! read, and is told when that one may be read again. What is not ready costs nothing, however many
//! there are of it.
//!
//! ```text
//!           ready                 pick
//!  resting --------> [ ready ] --------> taken
//!     ^                  ^                 |
//!     |                  +---- ready ------+
//!     +--------------------- rest ---------+      end, from anywhere --> ended
//! ```
//!
//! - `merge/strategy.rs`: the orders there are.

mod strategy;

use std::collections::BTreeSet;

pub use strategy::{Stamp, Strategy};

use crate::clock::Time;

/// A source, as those see it who choose one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether it has something to be read.
    pub ready: bool,
    /// Since when; as long as it is not ready, when it was last.
    pub since: Time,
    /// Whether it has come to its end.
    pub ended: bool,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This source is to be read.
    Read(usize),
    /// Nothing is ready, or what is ready is to wait.
    Nothing,
    /// There is no such source.
    Unknown(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Resting,
    /// With its place in the order.
    Ready(Stamp, u64),
    Taken,
    Ended,
}

#[derive(Debug)]
struct Source {
    state: State,
    since: Time,
    /// Reads it is still owed before it is the next one's turn; for the weighted strategy.
    credit: f64,
}

/// The sources of one reader.
///
/// ```
/// use anabranch_core::clock::Time;
/// use anabranch_core::merge::{Choice, Merge, Stamp, Strategy};
///
/// let mut merge = Merge::new(Strategy::DrainFirst, 3);
/// merge.ready(2, Stamp::default(), Time::ZERO);
/// merge.ready(1, Stamp::default(), Time::ZERO);
/// assert_eq!(merge.pick(|_| 0), Choice::Read(1));
/// assert_eq!(merge.pick(|_| 0), Choice::Read(2));
/// assert_eq!(merge.pick(|_| 0), Choice::Nothing);
/// ```
#[derive(Debug)]
pub struct Merge {
    strategy: Strategy,
    sources: Vec<Source>,
    /// The ready ones in the order they are to be read in.
    order: BTreeSet<(Stamp, u64, usize)>,
    /// Counts who became ready, so that among equals the first comes first.
    turns: u64,
    /// The one that was read last.
    last: Option<usize>,
    /// Sources that have not ended.
    open: usize,
}

impl Merge {
    /// So many sources, none of which is ready.
    pub fn new(strategy: Strategy, sources: usize) -> Self {
        let source = |_| Source {
            state: State::Resting,
            since: Time::ZERO,
            credit: 0.0,
        };
        Self {
            strategy,
            sources: (0..sources).map(source).collect(),
            order: BTreeSet::new(),
            turns: 0,
            last: None,
            open: sources,
        }
    }

    /// How the next one is found.
    pub const fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Whether all have ended.
    pub const fn is_over(&self) -> bool {
        self.open == 0
    }

    /// The source that was read last.
    pub const fn last(&self) -> Option<usize> {
        self.last
    }

    /// Forgets what is ready and what has ended, but not whose turn it is.
    pub fn reset(&mut self) {
        self.order.clear();
        self.open = self.sources.len();
        for it in &mut self.sources {
            it.state = State::Resting;
        }
    }

    /// Whether one is ready.
    pub fn has_ready(&self) -> bool {
        !self.order.is_empty()
    }

    /// A source has something to be read; `stamp` is what [`Strategy::OldestFirst`] compares.
    pub fn ready(&mut self, source: usize, stamp: Stamp, now: Time) {
        let Some(it) = self.sources.get_mut(source) else {
            return;
        };
        if !matches!(it.state, State::Resting | State::Taken) {
            return;
        }
        it.since = now;
        let place = self.strategy.place(source, stamp, now);
        self.turns += 1;
        it.state = State::Ready(place, self.turns);
        self.order.insert((place, self.turns, source));
    }

    /// A source that was read has nothing more for now.
    pub fn rest(&mut self, source: usize) {
        if let Some(it) = self.sources.get_mut(source) {
            if it.state == State::Taken {
                it.state = State::Resting;
            }
            // Who comes back begins anew: credit is not saved up.
            it.credit = 0.0;
        }
    }

    /// A source has come to its end.
    pub fn end(&mut self, source: usize) {
        let Some(it) = self.sources.get_mut(source) else {
            return;
        };
        if let State::Ready(place, turn) = it.state {
            self.order.remove(&(place, turn, source));
        }
        if it.state != State::Ended {
            it.state = State::Ended;
            self.open -= 1;
        }
    }

    /// Chooses the source to be read next; it is not chosen again before it is
    /// [ready](Self::ready) again. `depth` tells how much a source holds.
    ///
    /// With [`Strategy::Custom`] it is whoever has been ready longest; see [`Self::choose`].
    pub fn pick(&mut self, depth: impl Fn(usize) -> usize) -> Choice {
        let chosen = match &self.strategy {
            Strategy::Sticky => self.last.filter(|it| self.is_ready(*it)),
            Strategy::Weighted(_) => self
                .last
                .filter(|it| self.is_ready(*it) && self.sources[*it].credit >= 1.0),
            // Of equals the one that has been ready longest.
            Strategy::LongestQueue => self
                .order
                .iter()
                .rev()
                .max_by_key(|(_, _, source)| depth(*source))
                .map(|(_, _, source)| *source),
            _ => None,
        };
        let Some(source) = chosen.or_else(|| Some(self.order.first()?.2)) else {
            return Choice::Nothing;
        };
        self.take(source);
        Choice::Read(source)
    }

    /// Takes the answer of a strategy of the user's: a source to be read, or none for now.
    ///
    /// One that is not ready, or has ended, holds up nobody: who has been ready longest is read
    /// instead.
    pub fn choose(&mut self, answer: Option<usize>) -> Choice {
        match answer {
            None => Choice::Nothing,
            Some(source) if source >= self.sources.len() => Choice::Unknown(source),
            Some(source) if self.is_ready(source) => {
                self.take(source);
                Choice::Read(source)
            }
            Some(_) => self.pick(|_| 0),
        }
    }

    /// What there is to choose from, in the order of the sources.
    pub fn looks(&self) -> impl Iterator<Item = Look> {
        self.sources.iter().map(|it| Look {
            ready: matches!(it.state, State::Ready(..)),
            since: it.since,
            ended: it.state == State::Ended,
        })
    }

    fn is_ready(&self, source: usize) -> bool {
        matches!(self.sources[source].state, State::Ready(..))
    }

    fn take(&mut self, source: usize) {
        let it = &mut self.sources[source];
        if let State::Ready(place, turn) = it.state {
            self.order.remove(&(place, turn, source));
        }
        it.state = State::Taken;
        if let Strategy::Weighted(weights) = &self.strategy {
            // Deficit round-robin: a turn brings as many reads as the weight says, and what is
            // left of a fraction goes over to the next one, but no whole read: nobody saves up.
            if self.last != Some(source) || it.credit < 1.0 {
                it.credit = it.credit.fract() + weights.get(source).copied().unwrap_or(1.0);
            }
            it.credit -= 1.0;
        }
        self.last = Some(source);
    }
}

#[cfg(test)]
mod tests;
