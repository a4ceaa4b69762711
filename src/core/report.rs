//! The counts of a run: kept per branch, added up over the pipeline, and always in balance.

use std::ops::AddAssign;

/// Counters of one branch, or the sum over a pipeline. In items unless said otherwise.
///
/// The invariant every report keeps, exactly:
/// `received + produced = committed + filtered + failed + dropped + dead_lettered + returned + left`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Taken from the source; for a branch: routed to it.
    pub received: u64,
    /// Made by stages beyond the item each of them consumed (`flat_map`).
    pub produced: u64,
    /// Handled by the sink to the end.
    pub committed: u64,
    /// Taken out by a stage on purpose.
    pub filtered: u64,
    /// Failed for good.
    pub failed: u64,
    /// Given up by policy: a partial window when the pipeline is aborted.
    pub dropped: u64,
    /// Handed to a dead-letter target.
    pub dead_lettered: u64,
    /// Given back to a source that takes items back.
    pub returned: u64,
    /// Still inside when the report was made.
    pub left: u64,
    /// Failed, and made an item again by an operator; they end, and count, another time.
    pub recovered: u64,
    /// Attempts after the first, in units.
    pub retried: u64,
    /// Windows that left, in windows.
    pub windows: u64,
}

impl Counts {
    /// Everything that went in or came into being.
    pub const fn entered(&self) -> u64 {
        self.received + self.produced
    }

    /// Everything that has ended, in whichever way, or is still inside.
    pub const fn accounted(&self) -> u64 {
        self.committed
            + self.filtered
            + self.failed
            + self.dropped
            + self.dead_lettered
            + self.returned
            + self.left
    }

    /// Whether all that went in has come to a good end: nothing failed, was dropped or given back,
    /// or is left.
    pub const fn is_whole(&self) -> bool {
        self.entered() == self.committed + self.filtered + self.dead_lettered
    }

    /// Whether nothing was lost and nothing counted twice.
    pub const fn balanced(&self) -> bool {
        self.entered() == self.accounted()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.produced += other.produced;
        self.committed += other.committed;
        self.filtered += other.filtered;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.dead_lettered += other.dead_lettered;
        self.returned += other.returned;
        self.left += other.left;
        self.recovered += other.recovered;
        self.retried += other.retried;
        self.windows += other.windows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e8_a_lost_item_unbalances_the_counts() {
        let mut counts = Counts {
            received: 3,
            produced: 2,
            committed: 4,
            failed: 1,
            ..Counts::default()
        };
        assert!(counts.balanced());
        counts.received += 1;
        assert!(!counts.balanced());
        counts.left += 1;
        assert!(counts.balanced());
    }
}
