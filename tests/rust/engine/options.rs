//! Short names for the options the tests vary; all else is as by default.

use std::time::Duration;

use anabranch_core::engine::LegOptions;
use anabranch_core::retry::{Backoff, Retry};
use anabranch_core::window::WindowOptions;

use crate::driver::PORT;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A leg with the defaults, and one attempt.
pub(crate) const fn leg() -> LegOptions {
    LegOptions {
        window: None,
        capacity: 1000,
        isolate: true,
        concurrency: 1,
        ordered: true,
        throttle: None,
        heartbeat: None,
        retry: None,
        timeout: None,
        grace: Duration::ZERO,
        port: PORT,
        operator: None,
        course: 0,
        copies: None,
    }
}

pub(crate) fn windowed(window: WindowOptions) -> LegOptions {
    LegOptions {
        window: Some(window),
        ..leg()
    }
}

pub(crate) fn narrow(capacity: usize, isolate: bool) -> LegOptions {
    LegOptions {
        capacity,
        isolate,
        ..leg()
    }
}

pub(crate) fn wide(concurrency: u32, ordered: bool) -> LegOptions {
    LegOptions {
        concurrency,
        ordered,
        ..leg()
    }
}

pub(crate) fn retried(attempts: u32, delay: Duration) -> LegOptions {
    LegOptions {
        retry: Some(fixed(attempts, delay)),
        ..leg()
    }
}

pub(crate) const fn fixed(attempts: u32, delay: Duration) -> Retry {
    Retry::new(attempts, Backoff::Fixed(delay))
}

pub(crate) fn size(max_items: usize) -> WindowOptions {
    WindowOptions {
        max_items: Some(max_items),
        ..WindowOptions::default()
    }
}

pub(crate) fn age(millis: u64) -> WindowOptions {
    WindowOptions {
        max_age: Some(ms(millis)),
        ..WindowOptions::default()
    }
}

pub(crate) fn idle(millis: u64) -> WindowOptions {
    WindowOptions {
        idle: Some(ms(millis)),
        ..WindowOptions::default()
    }
}
