//! The one place that reads the machine's monotonic clock.

use std::time::Instant;

use anabranch_core::clock::Time;

/// A monotonic clock whose epoch is the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MonotonicClock(Instant);

impl MonotonicClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver's clock: everything else is told the time"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
