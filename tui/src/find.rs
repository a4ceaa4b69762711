//! The processes of this user that can be looked at.
//!
//! Only files are looked at, so a process that hangs is found as quickly as any other: whoever holds
//! the lock lives.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anabranch_protocol::place::{self, Marker, Name, Unsafe};
use rustix::fs::{FlockOperation, OFlags};

use crate::session::At;

/// The longest marker that is read, in bytes.
const MARKER: u64 = 64 * 1024;

/// A process that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name of its files.
    pub name: Name,
    /// What it tells about itself.
    pub marker: Marker,
    /// Where it answers.
    pub at: At,
}

/// The directories in which processes are found, the one for new ones first.
pub fn directories() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    place::directories(|name| std::env::var_os(name), uid)
}

/// The names of what lives in a directory, and how many that are dead have left something behind.
pub(crate) fn look(directory: &Path) -> Result<(Vec<Name>, usize), Unsafe> {
    place::check(directory, rustix::process::geteuid().as_raw())?;
    let entries = std::fs::read_dir(directory).map_err(|error| Unsafe {
        path: directory.to_owned(),
        why: place::Why::Io(error),
    })?;
    let (mut alive, mut dead) = (Vec::new(), 0);
    for path in entries.flatten().map(|entry| entry.path()) {
        let stem = path.file_stem().and_then(|it| it.to_str());
        if let Some(name) = stem.and_then(Name::parse)
            && path.extension().is_some_and(|it| it == "lock")
        {
            if is_held(&path) {
                alive.push(name);
            } else {
                dead += 1;
            }
        }
    }
    alive.sort_unstable();
    Ok((alive, dead))
}

/// Whether somebody holds the lock. What cannot be told proves nothing: then it may live.
fn is_held(path: &Path) -> bool {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // Shared: those who look do not take each other for the owner.
        Ok(lock) => rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Reads what a process tells about itself.
fn marker(path: &Path) -> Option<Marker> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MARKER), &mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The processes that live, by pid. A directory that must not be used is left out.
pub fn processes() -> Vec<Found> {
    let mut found = Vec::new();
    for directory in directories() {
        let Ok((names, _)) = look(&directory) else {
            continue;
        };
        for name in names {
            // It is being made, or removed.
            let Some(marker) = marker(&name.marker(&directory)) else {
                continue;
            };
            let elsewhere = marker.at.as_deref().map(At::parse);
            let at = match elsewhere {
                None => At::Unix(name.socket(&directory)),
                Some(Ok(At::Tcp(address, _))) => {
                    let token = std::fs::read_to_string(name.token(&directory)).ok();
                    At::Tcp(address, token)
                }
                Some(Ok(at)) => at,
                Some(Err(_)) => continue,
            };
            found.push(Found { name, marker, at });
        }
    }
    found.sort_by_key(|it| (it.name.pid, it.marker.start));
    found
}

impl Found {
    /// Whether a person means it by `word`: its pid, its name, or the beginning of its name.
    pub(crate) fn is_meant(&self, word: &str) -> bool {
        self.name.pid.to_string() == word || self.marker.name.starts_with(word)
    }
}
