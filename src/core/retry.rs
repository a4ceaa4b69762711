//! Whether a failed attempt is tried again, and after how long.
//!
//! Guarantees: a policy is a pure value; the same failed attempt and the same random number give
//! the same delay. Not responsible for which errors are worth another attempt (the border knows
//! exception types), nor for waiting.
//!
//! - `retry/cron.rs`: when a calendar allows another attempt.
//! - `retry/budget.rs`: what further attempts are paid from.

mod budget;
mod cron;

use std::time::Duration;

pub use budget::Budget;
pub use cron::Cron;

/// How often and how patiently a unit is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How many attempts there are in all, the first included; at least 1.
    pub attempts: u32,
    /// How long to wait between two attempts.
    pub backoff: Backoff,
    /// How long after the beginning of the first attempt another one may begin; `None`: any time.
    pub total: Option<Duration>,
    /// What each further attempt takes a token from.
    pub budget: Option<Budget>,
}

/// How the delays follow each other.
#[derive(Debug, Clone, PartialEq)]
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
    /// Anything from `base` to three times the delay before, but never more than `cap`: the
    /// "decorrelated jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
    /// Blog, 2015.
    Decorrelated {
        /// The shortest delay.
        base: Duration,
        /// The longest delay.
        cap: Duration,
    },
    /// Until the next instant of a calendar.
    Cron(Cron),
    /// What the driver says; see [`Tried::asked`].
    Custom,
}

/// What chance makes of a delay, so that units that failed together do not return together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// The delay as it is.
    None,
    /// Anything from zero to the delay, all equally likely: the "full jitter" of the article that
    /// [`Backoff::Decorrelated`] is from.
    #[default]
    Full,
}

/// A failed attempt, as its policy sees it.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Tried {
    /// Its number; the first is 1.
    pub attempt: u32,
    /// How long was waited before it; zero for the first.
    pub waited: Duration,
    /// How long ago the first attempt began.
    pub since_first: Duration,
    /// What time it is, counted from 1970: calendars and budgets, which pipelines share, go by it.
    pub wall: Duration,
    /// Uniform in `[0, 1)`; decides the jitter.
    pub random: f64,
    /// The delay the driver asks for; zero unless the policy is [`Backoff::Custom`].
    pub asked: Duration,
}

/// Why a unit that failed is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// Its error is not worth another attempt.
    Error,
    /// There is none left.
    Attempts,
    /// The next one would begin too late.
    Total,
    /// The budget cannot pay for it.
    Budget,
    /// The run was cut short.
    Cancelled,
}

impl GaveUp {
    /// The word for it, for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Attempts => "attempts",
            Self::Total => "total",
            Self::Budget => "budget",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Retry {
    /// So many attempts, with nothing but a back-off between them.
    pub const fn new(attempts: u32, backoff: Backoff) -> Self {
        Self {
            attempts,
            backoff,
            total: None,
            budget: None,
        }
    }

    /// How long to wait after a failed attempt; takes a token from the budget.
    ///
    /// # Errors
    /// [`GaveUp`] says why there is no further attempt; then nothing was taken.
    ///
    /// ```
    /// use anabranch_core::retry::{Backoff, GaveUp, Retry, Tried};
    /// use std::time::Duration;
    ///
    /// let retry = Retry::new(2, Backoff::Fixed(Duration::from_secs(1)));
    /// let attempt = |attempt| Tried { attempt, ..Tried::default() };
    /// assert_eq!(retry.delay(&attempt(1)), Ok(Duration::from_secs(1)));
    /// assert_eq!(retry.delay(&attempt(2)), Err(GaveUp::Attempts));
    /// ```
    pub fn delay(&self, tried: &Tried) -> Result<Duration, GaveUp> {
        if tried.attempt >= self.attempts {
            return Err(GaveUp::Attempts);
        }
        let delay = self.backoff.delay(tried).ok_or(GaveUp::Total)?;
        if self
            .total
            .is_some_and(|total| tried.since_first.saturating_add(delay) > total)
        {
            return Err(GaveUp::Total);
        }
        // Last: a token is not spent on an attempt that will not be made.
        match &self.budget {
            Some(budget) if !budget.take(tried.wall) => Err(GaveUp::Budget),
            _ => Ok(delay),
        }
    }
}

impl Backoff {
    /// `None`: never.
    fn delay(&self, tried: &Tried) -> Option<Duration> {
        let delay = match *self {
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
                let power = i32::try_from(tried.attempt.saturating_sub(1)).unwrap_or(i32::MAX);
                let delay = seconds(base.as_secs_f64() * factor.powi(power), cap);
                match jitter {
                    Jitter::None => delay,
                    Jitter::Full => seconds(delay.as_secs_f64() * tried.random, delay),
                }
            }
            Self::Decorrelated { base, cap } => {
                let before = tried.waited.max(base).as_secs_f64();
                let least = base.as_secs_f64();
                seconds(least + (before * 3.0 - least) * tried.random, cap)
            }
            Self::Cron(ref cron) => return cron.delay(tried.wall),
            Self::Custom => tried.asked,
        };
        Some(delay)
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
mod tests;
