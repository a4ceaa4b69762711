//! Whether a failed attempt is tried again, and after how long.
//!
//! Guarantees: a policy is a pure value; the same attempt and the same random number give the same
//! delay. Not responsible for which errors are worth another attempt (the border knows exception
//! types), nor for waiting.

use std::time::Duration;

/// How often and how patiently a unit is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// How many attempts there are in all, the first included; at least 1.
    pub attempts: u32,
    /// How long to wait between two attempts.
    pub backoff: Backoff,
}

/// How the delays follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backoff {
    /// The same delay every time.
    Fixed(Duration),
    /// Delays `base`, `base * factor`, `base * factor²`, …, none above `cap`.
    Exponential {
        /// The delay after the first failed attempt.
        base: Duration,
        /// What each delay is multiplied by to give the next; at least 1.
        factor: f64,
        /// The longest delay.
        cap: Duration,
        /// What chance makes of the delay.
        jitter: Jitter,
    },
}

/// What chance makes of a delay, so that units that failed together do not return together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// The delay as it is.
    None,
    /// Anything from zero to the delay, all equally likely: the "full jitter" of Marc Brooker,
    /// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    #[default]
    Full,
}

impl Retry {
    /// How long to wait after failed attempt number `attempt` (the first is 1).
    ///
    /// `None` when no attempt is left. `random` is uniform in `[0, 1)` and decides the jitter;
    /// a policy without jitter does not look at it.
    ///
    /// ```
    /// use anabranch_core::retry::{Backoff, Retry};
    /// use std::time::Duration;
    ///
    /// let retry = Retry { attempts: 2, backoff: Backoff::Fixed(Duration::from_secs(1)) };
    /// assert_eq!(retry.delay(1, 0.0), Some(Duration::from_secs(1)));
    /// assert_eq!(retry.delay(2, 0.0), None);
    /// ```
    pub fn delay(&self, attempt: u32, random: f64) -> Option<Duration> {
        (attempt < self.attempts).then(|| self.backoff.delay(attempt, random))
    }
}

impl Backoff {
    fn delay(self, attempt: u32, random: f64) -> Duration {
        match self {
            Self::Fixed(delay) => delay,
            // Zero times an overflowed power would be no number.
            Self::Exponential {
                base: Duration::ZERO,
                ..
            } => Duration::ZERO,
            Self::Exponential {
                base,
                factor,
                cap,
                jitter,
            } => {
                let power = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                let delay = seconds(base.as_secs_f64() * factor.powi(power), cap);
                match jitter {
                    Jitter::None => delay,
                    Jitter::Full => seconds(delay.as_secs_f64() * random, delay),
                }
            }
        }
    }
}

/// `seconds` as a duration, and `most` where it is more than that or no number at all.
fn seconds(seconds: f64, most: Duration) -> Duration {
    Duration::try_from_secs_f64(seconds).map_or(most, |duration| duration.min(most))
}

/// A small seedable generator: the same seed gives the same numbers on every machine.
///
/// `SplitMix64`, from Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014. Good enough to spread delays; not for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The generator that begins at `seed`; any number will do.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// The next number in `[0, 1)`, uniform over the multiples of 2⁻⁵³.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are exactly what an f64 holds"
    )]
    pub const fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn exponential(attempts: u32, jitter: Jitter) -> Retry {
        let backoff = Backoff::Exponential {
            base: ms(200),
            factor: 2.0,
            cap: ms(1000),
            jitter,
        };
        Retry { attempts, backoff }
    }

    #[test]
    fn r1_attempts_include_the_first() {
        for attempts in 1..6 {
            let retry = Retry {
                attempts,
                backoff: Backoff::Fixed(ms(5)),
            };
            let retries = (1..10)
                .take_while(|&n| retry.delay(n, 0.5).is_some())
                .count();
            assert_eq!(retries + 1, attempts as usize);
        }
    }

    #[test]
    fn r2_r6_delays_are_exactly_d_2d_4d_up_to_the_cap() {
        let table = [(1, 200), (2, 400), (3, 800), (4, 1000), (5, 1000)];
        for (attempt, expected) in table {
            let delay = exponential(6, Jitter::None).delay(attempt, 0.9);
            assert_eq!(delay, Some(ms(expected)), "after attempt {attempt}");
        }
        assert_eq!(exponential(6, Jitter::None).delay(6, 0.9), None);
    }

    #[test]
    fn r2_full_jitter_spreads_from_zero_to_the_delay() {
        let table = [(1, 0.0, 0), (1, 0.5, 100), (3, 0.25, 200), (5, 0.75, 750)];
        for (attempt, random, expected) in table {
            let delay = exponential(6, Jitter::Full).delay(attempt, random);
            assert_eq!(
                delay,
                Some(ms(expected)),
                "attempt {attempt}, random {random}"
            );
        }
    }

    #[test]
    fn r6_a_million_attempts_overflow_nothing() {
        for attempt in [1_000_000, u32::MAX - 1] {
            assert_eq!(
                exponential(u32::MAX, Jitter::None).delay(attempt, 0.0),
                Some(ms(1000))
            );
            let zero = Backoff::Exponential {
                base: Duration::ZERO,
                factor: 2.0,
                cap: ms(1),
                jitter: Jitter::None,
            };
            let retry = Retry {
                attempts: u32::MAX,
                backoff: zero,
            };
            assert_eq!(retry.delay(attempt, 0.0), Some(Duration::ZERO));
        }
        let largest = Backoff::Exponential {
            base: Duration::MAX,
            factor: f64::MAX,
            cap: Duration::MAX,
            jitter: Jitter::Full,
        };
        let retry = Retry {
            attempts: u32::MAX,
            backoff: largest,
        };
        assert_eq!(retry.delay(1_000_000, f64::NAN), Some(Duration::MAX));
    }

    /// First numbers for the seed 1234567, as published with the reference implementation.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        let numbers = [(); 3].map(|()| random.next_u64());
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    proptest! {
        #[test]
        fn r2_no_delay_exceeds_the_cap_and_jitter_only_shortens(
            base in 0_u64..10_000, factor in 1.0_f64..10.0, cap in 0_u64..100_000,
            attempt in 1_u32..2_000_000, seed: u64,
        ) {
            let retry = |jitter| Retry {
                attempts: u32::MAX,
                backoff: Backoff::Exponential { base: ms(base), factor, cap: ms(cap), jitter },
            };
            let random = Random::new(seed).next_f64();
            let plain = retry(Jitter::None).delay(attempt, random);
            let spread = retry(Jitter::Full).delay(attempt, random);
            let next = retry(Jitter::None).delay(attempt + 1, random);
            prop_assert!(spread.is_some() && spread <= plain);
            prop_assert!(plain <= next && next <= Some(ms(cap)));
        }

        #[test]
        fn r2_the_same_seed_gives_the_same_delays(seed: u64) {
            let delays = |seed| {
                let mut random = Random::new(seed);
                (1..20)
                    .map(|n| exponential(20, Jitter::Full).delay(n, random.next_f64()))
                    .collect::<Vec<_>>()
            };
            prop_assert_eq!(delays(seed), delays(seed));
        }

        #[test]
        fn random_numbers_stay_below_one(seed: u64) {
            let mut random = Random::new(seed);
            prop_assert!((0..100).all(|_| (0.0..1.0).contains(&random.next_f64())));
        }
    }
}
