//! The clocks a run can go by: the machine's, read here and nowhere else, and one that stands still
//! until somebody moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anabranch_core::clock::Time;

/// A clock whose epoch is the start of the run.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The machine's monotonic one, and what its calendar said at the start, counted from 1970.
    Monotonic(Instant, Duration),
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
            None => {
                let epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                Self::Monotonic(Instant::now(), epoch)
            }
            Some(time) => {
                let start = time.nanos();
                Self::Virtual(time, start)
            }
        }
    }

    /// How long after 1970-01-01 00:00 UTC the run began; a virtual clock begins with 1970.
    pub(crate) const fn epoch(&self) -> Duration {
        match self {
            Self::Monotonic(_, epoch) => *epoch,
            Self::Virtual(_, start) => Duration::from_nanos(*start),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Time {
        Time::from_nanos(match self {
            Self::Monotonic(start, _) => {
                u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            Self::Virtual(time, start) => time.nanos().saturating_sub(*start),
        })
    }

    /// The time of a test, if it is one.
    pub(crate) fn virtual_time(&self) -> Option<VirtualTime> {
        match self {
            Self::Monotonic(..) => None,
            Self::Virtual(time, _) => Some(time.clone()),
        }
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
