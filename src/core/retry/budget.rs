//! A budget that further attempts are paid from, shared by any number of stages and pipelines.
//!
//! When a service that all tenants use goes down, every unit fails, and retries multiply the load
//! it comes back under. A token bucket bounds them: a unit whose further attempt the budget cannot
//! pay for has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A token bucket; its clones share what is in it.
///
/// It is the "generic cell rate algorithm" (ITU-T I.371, 1996): instead of a number of tokens it
/// keeps the time at which the bucket will be full again, one integer, so that it is exact and
/// needs no lock. It starts full. A clock that is set back never fills it twice.
///
/// ```
/// use anabranch_core::retry::Budget;
/// use std::time::Duration;
///
/// let budget = Budget::new(Duration::from_millis(500), 2);
/// let now = Duration::from_secs(1_000_000_000);
/// assert_eq!([(); 3].map(|()| budget.take(now)), [true, true, false]);
/// assert!(budget.take(now + Duration::from_millis(500)));
/// ```
#[derive(Debug, Clone)]
pub struct Budget {
    /// Nanoseconds until one more token is in.
    interval: u64,
    /// Nanoseconds that fill an empty bucket.
    whole: u64,
    /// Nanoseconds since 1970 until the bucket is full.
    full_at: Arc<AtomicU64>,
}

impl Budget {
    /// A full bucket of `burst` tokens, to which one is added each `interval`.
    pub fn new(interval: Duration, burst: u32) -> Self {
        // At most 292 years each, so that no sum of theirs can be beyond what a u64 holds.
        let interval = nanos(interval).min(u64::MAX / 2);
        let whole = interval.saturating_mul(u64::from(burst));
        Self {
            interval,
            whole: whole.min(u64::MAX / 2),
            full_at: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Takes a token out, if there is one `now`, counted from 1970.
    pub fn take(&self, now: Duration) -> bool {
        let now = nanos(now);
        let taken = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(self.interval);
            (full_at <= now.saturating_add(self.whole)).then_some(full_at)
        };
        // Relaxed: the number itself is all that threads share.
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }
}

/// Two budgets are equal if they are the same one.
impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.full_at, &other.full_at)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn at(millis: u64) -> Duration {
        EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn r4_a_budget_pays_a_burst_then_one_per_interval() {
        let budget = Budget::new(Duration::from_millis(100), 3);
        let table = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99, false),
            (100, true),
            (100, false),
            (350, true),
            (350, true),
            (350, false),
            (400, true),
        ];
        for (millis, paid) in table {
            assert_eq!(budget.take(at(millis)), paid, "at {millis} ms");
        }
    }

    #[test]
    fn r4_an_idle_budget_holds_its_burst_and_no_more() {
        let budget = Budget::new(Duration::from_millis(100), 3);
        assert!(budget.take(at(0)));
        let paid = (0..10).filter(|_| budget.take(at(1_000_000))).count();
        assert_eq!(paid, 3);
    }

    #[test]
    fn r4_a_clock_that_is_set_back_fills_nothing() {
        let budget = Budget::new(Duration::from_millis(100), 1);
        assert!(budget.take(at(5000)));
        assert!(!budget.take(at(0)));
        assert!(!budget.take(at(5099)));
        assert!(budget.take(at(5100)));
    }

    #[test]
    fn r4_clones_share_what_is_left() {
        let budget = Budget::new(Duration::MAX, 1);
        assert!(budget.clone().take(at(0)));
        assert!(!budget.take(at(1_000_000_000)));
        assert_ne!(budget, Budget::new(Duration::MAX, 1));
    }

    proptest! {
        #[test]
        fn r4_no_stretch_of_time_pays_more_than_its_share(
            interval in 1_u64..50, burst in 1_u32..20, steps in prop::collection::vec(0_u64..30, 1..200),
        ) {
            let budget = Budget::new(Duration::from_millis(interval), burst);
            let (mut now, mut paid) = (0, Vec::new());
            for step in steps {
                now += step;
                if budget.take(at(now)) {
                    paid.push(now);
                }
            }
            for (first, from) in paid.iter().enumerate() {
                for (last, to) in paid.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / interval;
                    prop_assert!(((last - first) as u64) < most, "{} to {}", from, to);
                }
            }
        }
    }
}
