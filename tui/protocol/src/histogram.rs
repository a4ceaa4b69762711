//! Latencies in powers of two: small enough to keep per stage, exact enough for a p99.
//!
//! Bucket 0 counts what took less than a microsecond, bucket `i` what took at least `2^(i-1)` and
//! less than `2^i` microseconds; the last one takes whatever is longer.

/// How many buckets there are: the last begins at some 18 minutes.
pub const BUCKETS: usize = 32;

/// The bucket of a duration.
pub const fn bucket(nanos: u64) -> usize {
    let micros = nanos / 1000;
    let bucket = (u64::BITS - micros.leading_zeros()) as usize;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// Where a bucket ends, in microseconds.
pub const fn upper(bucket: usize) -> u64 {
    1 << bucket
}

/// The time that a share of all that was counted did not exceed, in microseconds: `0.99` for the
/// p99. Within its bucket it is interpolated, so it is off by a factor of two at worst. `None` if
/// nothing was counted.
///
/// ```
/// use anabranch_protocol::histogram::{BUCKETS, bucket, quantile};
///
/// let mut counts = [0; BUCKETS];
/// counts[bucket(3_000)] = 100;
/// assert_eq!(quantile(&counts, 0.5), Some(3));
/// assert_eq!(quantile(&[], 0.5), None);
/// ```
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; counts are far below 2^52"
)]
pub fn quantile(counts: &[u64], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = share.clamp(0.0, 1.0) * total as f64;
    let mut before = 0;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bucket = bucket.min(BUCKETS - 1);
        if (before + count) as f64 >= wanted {
            let lower = if bucket == 0 { 0 } else { upper(bucket - 1) };
            let inside = (wanted - before as f64) / *count as f64;
            return Some(lower + (inside * (upper(bucket) - lower) as f64) as u64);
        }
        before += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn v5_buckets_are_powers_of_two_of_a_microsecond() {
        let table = [
            (0, 0),
            (999, 0),
            (1000, 1),
            (1999, 1),
            (2000, 2),
            (1_000_000, 10),
        ];
        for (nanos, expected) in table {
            assert_eq!(bucket(nanos), expected, "{nanos} ns");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn v5_a_quantile_is_within_a_factor_of_two(
            mut micros in proptest::collection::vec(1u64..1_000_000, 1..200),
            percent in 1usize..=100,
        ) {
            let mut counts = [0; BUCKETS];
            for it in &micros {
                counts[bucket(it * 1000)] += 1;
            }
            micros.sort_unstable();
            let exact = micros[(percent * micros.len()).div_ceil(100) - 1];
            let share = f64::from(u8::try_from(percent).unwrap()) / 100.0;
            let found = quantile(&counts, share).unwrap();
            prop_assert!(found <= exact * 2 && exact <= found * 2 + 1, "{found} for {exact}");
        }
    }
}
