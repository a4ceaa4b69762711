//! What a forked child must close.
//!
//! The child has a copy of every descriptor and no thread to answer on them: a listener it keeps
//! would take connections that nobody serves, and a lock it keeps would say that its parent lives.
//! It cannot drop what holds them, which belongs to a thread that is not there. So their numbers
//! stand here, where the child finds them without a lock.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Listener, lock, the pair that wakes the thread, eight clients, and one that is refused.
const PLACES: usize = 16;

static OPEN: [AtomicI32; PLACES] = [const { AtomicI32::new(-1) }; PLACES];

/// A descriptor that a child must close, while this lives.
#[derive(Debug)]
pub(super) struct Noted(Option<usize>);

impl Noted {
    pub(super) fn new(owner: &impl AsRawFd) -> Self {
        let fd = owner.as_raw_fd();
        let free = |place: &AtomicI32| place.compare_exchange(-1, fd, AcqRel, Relaxed).is_ok();
        Self(OPEN.iter().position(free))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            OPEN[place].store(-1, Relaxed);
        }
    }
}

/// In a forked child: the descriptors of its parent's monitor, which it must close. They are told
/// once.
pub fn descriptors() -> Vec<RawFd> {
    let open = OPEN.iter().map(|place| place.swap(-1, Acquire));
    open.filter(|fd| *fd >= 0).collect()
}
