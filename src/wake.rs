//! Waking the driving thread from any other: one byte through a socket pair, once per burst.
//!
//! No Python and no lock is needed to wake. The asyncio loop watches the reading end; the
//! blocking driver polls it, which a signal interrupts.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(feature = "python")]
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(any(test, feature = "python"))]
use std::time::Duration;

#[cfg(any(test, feature = "python"))]
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The two ends, and whether a byte is on its way.
#[derive(Debug)]
pub(crate) struct Wake {
    reader: UnixStream,
    writer: UnixStream,
    pending: AtomicBool,
    /// This process is a fork: what is in the pipe is for its parent, which shares it.
    copied: AtomicBool,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self {
            reader,
            writer,
            pending: AtomicBool::new(false),
            copied: AtomicBool::new(false),
        })
    }

    /// Wakes the driver, or does nothing if it has been told and has not looked yet.
    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // A full pipe means that the driver has a byte to read: it wakes all the same.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// The end to watch.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The end to watch, as a number.
    #[cfg(feature = "python")]
    pub(crate) fn fileno(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Before looking for what came: from here on a wake-up is sent again.
    ///
    /// The order matters: a producer that delivers after this call sends a byte, one that
    /// delivered before it is seen by the look that follows. A byte that was announced and not
    /// yet written stays behind: one wake-up too many, never one too few.
    pub(crate) fn clear(&self) {
        if self.pending.swap(false, Ordering::AcqRel) {
            self.drain();
        }
    }

    /// In a fork: nothing is read from here on. The parent, which has announced the byte, would
    /// wait for it and announce no other.
    #[cfg(feature = "python")]
    pub(crate) fn copied(&self) {
        self.copied.store(true, Ordering::Relaxed);
    }

    /// Reads what is in the pipe, announced or not.
    pub(crate) fn drain(&self) {
        if self.copied.load(Ordering::Relaxed) {
            return;
        }
        let mut bytes = [0; 16];
        while (&self.reader)
            .read(&mut bytes)
            .is_ok_and(|read| read == bytes.len())
        {}
    }

    /// Waits for a wake-up, at most this long; returns early at a signal.
    ///
    /// `poll`, not a read with a timeout: the kernel rounds a socket's timeout up to whole ticks,
    /// which would make every timer some milliseconds late.
    #[cfg(any(test, feature = "python"))]
    pub(crate) fn wait(&self, most: Duration) {
        let timeout = Timespec::try_from(most).ok();
        let mut ends = [PollFd::new(&self.reader, PollFlags::IN)];
        let _ = poll(&mut ends, timeout.as_ref());
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_byte_and_no_wake_up_is_lost() {
        let wake = Wake::new().unwrap();
        for _ in 0..100_000 {
            wake.wake();
        }
        wake.wait(Duration::from_secs(60));
        wake.wake();
        wake.wait(Duration::from_secs(60));
        wake.wake();
        wake.clear();
        wake.wake();
        wake.wait(Duration::from_secs(60));
    }
}
