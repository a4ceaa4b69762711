//! Which files of some folders are written to, as the system tells it: none of them is opened.
//!
//! Guarantees: what is written to a file after `watch` of its folder has returned is told, once or
//! more often, unless it is written through a mapping or by another machine. Not responsible for
//! what is in the files: a write may be told before it means anything.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// What was written to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A file of the folder with this number.
    File(i32, OsString),
    /// So much that nobody knows what: any of them.
    Any,
}

/// Folders that are watched.
#[derive(Debug)]
pub(crate) struct Folders(OwnedFd);

impl Folders {
    /// The end to watch: it can be read once there is something to tell.
    pub(crate) fn fileno(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(target_os = "linux")]
impl Folders {
    /// # Errors
    /// A user has so many of them at most (128, often).
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::fs::inotify::{CreateFlags, init};

        Ok(Self(init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?))
    }

    /// Watches a folder; returns its number, the same each time.
    ///
    /// # Errors
    /// It cannot be read, or too many are watched.
    pub(crate) fn watch(&self, folder: &Path) -> io::Result<i32> {
        use rustix::fs::inotify::{WatchFlags, add_watch};

        Ok(add_watch(&self.0, folder, WatchFlags::MODIFY)?)
    }

    /// Watches a folder no more; one that is gone is watched no more already.
    pub(crate) fn leave(&self, number: i32) {
        let _ = rustix::fs::inotify::remove_watch(&self.0, number);
    }

    /// What was written to since the last call.
    pub(crate) fn written(&self) -> io::Result<Vec<Written>> {
        use std::mem::MaybeUninit;
        use std::os::unix::ffi::OsStrExt;

        use rustix::fs::inotify::{ReadFlags, Reader};
        use rustix::io::Errno;

        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut room);
        let mut written = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(written),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                written.push(Written::Any);
            } else if let Some(name) = event.file_name() {
                let name = std::ffi::OsStr::from_bytes(name.to_bytes());
                let file = Written::File(event.wd(), name.to_owned());
                if written.last() != Some(&file) {
                    written.push(file);
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Folders {
    pub(crate) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn watch(&self, _folder: &Path) -> io::Result<i32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn leave(&self, _number: i32) {}

    pub(crate) fn written(&self) -> io::Result<Vec<Written>> {
        Ok(Vec::new())
    }
}
