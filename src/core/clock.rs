//! A point in time, as the engine sees it: bare nanoseconds, always handed in.

use std::time::Duration;

/// Nanoseconds since the driver's own epoch.
///
/// The core never asks what time it is: whoever drives it says so, which is what makes virtual
/// time a matter of the driver alone.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The driver's epoch.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will happen.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `delay` later; stays at [`Time::NEVER`] once it gets there.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let one = Time::from_nanos(1);
        assert_eq!(one.after(Duration::MAX), Time::NEVER);
        assert_eq!(one.since(Time::from_nanos(5)), Duration::ZERO);
        assert_eq!(
            one.after(Duration::from_nanos(4)).since(one),
            Duration::from_nanos(4)
        );
    }
}
