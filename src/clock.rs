//! The clocks a run can go by: the machine's monotonic one, read here and nowhere else, and one
//! that stands still until somebody moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anabranch_core::clock::Time;

/// A clock whose epoch is the start of the run.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The machine's.
    Monotonic(Instant),
    /// A test's, and where it stood when the run began.
    Virtual(VirtualTime, u64),
}

impl Clock {
    /// The machine's clock, or the given one; the run begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver's clock: everything else is told the time"
    )]
    pub(crate) fn start(time: Option<VirtualTime>) -> Self {
        match time {
            None => Self::Monotonic(Instant::now()),
            Some(time) => {
                let start = time.nanos();
                Self::Virtual(time, start)
            }
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(match self {
            Self::Monotonic(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Virtual(time, start) => time.nanos().saturating_sub(*start),
        })
    }

    /// Whether time passes only by being moved: then nothing may be measured by it.
    pub(crate) const fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual(..))
    }
}

/// Nanoseconds that whoever holds a clone may move forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualTime(Arc<AtomicU64>);

impl VirtualTime {
    pub(crate) fn nanos(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves on to `nanos`; never back.
    pub(crate) fn reach(&self, nanos: u64) {
        self.0.fetch_max(nanos, Ordering::AcqRel);
    }
}
