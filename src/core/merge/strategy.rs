//! The orders in which sources are read.

use std::time::Duration;

use crate::clock::Time;

/// Where a source stands in the order: the least first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of a number, in the order of numbers; no number comes last.
    pub fn of(number: f64) -> Self {
        if number.is_nan() {
            return Self(u64::MAX);
        }
        // Both zeros are one number.
        let bits = (number + 0.0).to_bits();
        Self(if bits >> 63 == 1 {
            !bits
        } else {
            bits | (1 << 63)
        })
    }
}

/// How the source to be read next is found among those that are ready.
#[derive(Debug, Clone, PartialEq)]
pub enum Strategy {
    /// Whoever has been ready longest: of sources that are always ready each has its turn.
    RoundRobin,
    /// The one of the lowest level; of equals whoever has been ready longest.
    Priority {
        /// One for each source, 0 being the most urgent.
        levels: Vec<u32>,
        /// By how much a level comes after the one before it; `None`: by any time.
        aging: Option<Duration>,
    },
    /// In turn, as many reads each as its weight says (at least one each).
    Weighted(Vec<f64>),
    /// The one that holds most.
    LongestQueue,
    /// The one whose next item has the least stamp.
    OldestFirst,
    /// The first in the order of the sources.
    DrainFirst,
    /// The one that was read last, as long as it has something; then whoever has been ready longest.
    Sticky,
    /// As the driver says.
    Custom,
}

impl Strategy {
    /// Deficit round-robin by any weights above zero: the least of them is worth one read a turn.
    pub fn weighted(weights: &[f64]) -> Self {
        let least = weights.iter().copied().fold(f64::INFINITY, f64::min);
        Self::Weighted(weights.iter().map(|it| it / least).collect())
    }

    /// Where a source stands that has become ready now.
    pub(super) fn place(&self, source: usize, stamp: Stamp, now: Time) -> Stamp {
        match self {
            Self::Priority { levels, aging } => {
                let level = levels.get(source).copied().unwrap_or(u32::MAX);
                Stamp(match aging {
                    None => u64::from(level),
                    Some(aging) => now.after(aging.saturating_mul(level)).as_nanos(),
                })
            }
            Self::OldestFirst => stamp,
            Self::DrainFirst => Stamp(source as u64),
            Self::RoundRobin
            | Self::Weighted(_)
            | Self::LongestQueue
            | Self::Sticky
            | Self::Custom => Stamp(0),
        }
    }
}
