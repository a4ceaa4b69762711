//! How fast items go on: one token bucket per branch, which delays and never drops.

use std::time::Duration;

use crate::clock::Time;

/// So many items per second on the average, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds until one more token is in; at least one.
    interval: u64,
    /// Tokens a bucket holds at most; at least one.
    burst: u32,
}

impl Rate {
    /// One token each `interval`, and `burst` of them at most.
    pub fn new(interval: Duration, burst: u32) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            // At most 292 years each, so that no sum of theirs can be beyond what a u64 holds.
            interval: interval.clamp(1, u64::MAX / 2),
            burst: burst.max(1),
        }
    }

    /// Nanoseconds that fill a bucket in which one token is missing, and so many more.
    const fn slack(self) -> u64 {
        let whole = self.interval.saturating_mul(self.burst as u64 - 1);
        if whole > u64::MAX / 2 {
            u64::MAX / 2
        } else {
            whole
        }
    }
}

/// A token bucket on the clock of whoever asks. It begins full.
///
/// The "generic cell rate algorithm", as in [`Budget`](crate::retry::Budget): it keeps the time at
/// which it will be full again, so that taking a token is one comparison and one addition.
///
/// ```
/// use anabranch_core::clock::Time;
/// use anabranch_core::throttle::{Bucket, Rate};
/// use std::time::Duration;
///
/// let mut bucket = Bucket::new(Rate::new(Duration::from_millis(500), 2));
/// let now = Time::ZERO;
/// assert_eq!([(); 3].map(|()| bucket.take(now)), [true, true, false]);
/// assert_eq!(bucket.ready_at(), now.after(Duration::from_millis(500)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    interval: u64,
    slack: u64,
    /// When the bucket will be full again, in nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// A full bucket.
    pub const fn new(rate: Rate) -> Self {
        Self {
            interval: rate.interval,
            slack: rate.slack(),
            full_at: 0,
        }
    }

    /// Takes a token out, if there is one.
    #[inline]
    pub const fn take(&mut self, now: Time) -> bool {
        let now = now.as_nanos();
        if self.full_at > now.saturating_add(self.slack) {
            return false;
        }
        let from = if self.full_at > now {
            self.full_at
        } else {
            now
        };
        self.full_at = from.saturating_add(self.interval);
        true
    }

    /// When there is, or was, a token.
    pub const fn ready_at(&self) -> Time {
        Time::from_nanos(self.full_at.saturating_sub(self.slack))
    }

    /// Tokens per second.
    #[expect(clippy::cast_precision_loss, reason = "it is to be shown")]
    pub fn per_second(&self) -> f64 {
        1e9 / self.interval as f64
    }

    /// Goes by another rate from now on. The tokens that were missing still are, as far as the
    /// new bucket can miss as many.
    pub const fn change(&mut self, rate: Rate, now: Time) {
        let missing = self
            .full_at
            .saturating_sub(now.as_nanos())
            .div_ceil(self.interval);
        let most = if missing > rate.burst as u64 {
            rate.burst as u64
        } else {
            missing
        };
        self.interval = rate.interval;
        self.slack = rate.slack();
        self.full_at = now
            .as_nanos()
            .saturating_add(most.saturating_mul(rate.interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Time {
        Time::ZERO.after(Duration::from_millis(millis))
    }

    fn per(millis: u64, burst: u32) -> Rate {
        Rate::new(Duration::from_millis(millis), burst)
    }

    #[test]
    fn b11_a_bucket_lets_a_burst_through_then_one_per_interval() {
        let mut bucket = Bucket::new(per(100, 3));
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
            (1_000_000, true),
            (1_000_000, true),
            (1_000_000, true),
            (1_000_000, false),
        ];
        for (millis, let_through) in table {
            assert_eq!(bucket.take(at(millis)), let_through, "at {millis} ms");
        }
        assert_eq!(bucket.ready_at(), at(1_000_100));
    }

    #[test]
    fn b11_a_changed_rate_goes_on_with_the_tokens_there_are() {
        let mut bucket = Bucket::new(per(100, 10));
        for _ in 0..8 {
            assert!(bucket.take(at(0)));
        }
        bucket.change(per(1000, 10), at(0));
        let left = (0..10).filter(|_| bucket.take(at(0))).count();
        assert_eq!(left, 2);
        assert_eq!(bucket.ready_at(), at(1000));
        bucket.change(per(10, 2), at(500));
        assert!(!bucket.take(at(500)) && bucket.take(at(510)));
    }

    proptest! {
        #[test]
        fn b11_no_interval_lets_more_through_than_its_burst_and_its_rate(
            interval in 1_u64..50,
            burst in 1_u32..6,
            steps in prop::collection::vec(0_u64..40, 1..200),
        ) {
            let mut bucket = Bucket::new(per(interval, burst));
            let mut now = 0;
            let mut through = Vec::new();
            for step in steps {
                now += step;
                if bucket.take(at(now)) {
                    through.push(now);
                } else {
                    prop_assert!(bucket.ready_at() > at(now));
                }
            }
            for (first, from) in through.iter().enumerate() {
                for (last, to) in through.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / interval;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}
