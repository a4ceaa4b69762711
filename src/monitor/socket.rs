//! The sockets the monitor answers on, Unix or TCP, and how they are opened.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::files::{Files, OpenError, Place};
use super::open::Access;
use super::peer::Terms;

#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Stream {
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Unix(listener) => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        };
        match &stream {
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
        }
        Ok(stream)
    }
}

pub(super) fn listen(
    access: &Access,
    directories: &[std::path::PathBuf],
    pid: u32,
    uid: u32,
) -> Result<(Files, Listener, String, Terms), OpenError> {
    let mut first = None;
    for directory in directories {
        match listen_in(access, directory.clone(), pid, uid) {
            Ok(open) => return Ok(open),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| OpenError::TooLong(std::path::PathBuf::new())))
}

fn listen_in(
    access: &Access,
    directory: std::path::PathBuf,
    pid: u32,
    uid: u32,
) -> Result<(Files, Listener, String, Terms), OpenError> {
    let mut files = Files::open(directory, pid, uid)?;
    let control = access.control;
    match &access.place {
        Place::Tcp { address, control } => {
            let path = || std::path::PathBuf::from(format!("tcp:{address}"));
            let listener = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                let at = format!("tcp:{}", listener.local_addr()?);
                Ok((listener, at))
            });
            let (listener, at) = listener.map_err(|error| OpenError::Io(path(), error))?;
            let token = Some(files.token()?);
            let terms = Terms {
                control: *control,
                token,
            };
            Ok((files, Listener::Tcp(listener), at, terms))
        }
        Place::Directory | Place::Path(_) => {
            let elsewhere = match &access.place {
                Place::Path(path) => Some(path.clone()),
                _ => None,
            };
            let listener = files.listen(elsewhere)?;
            let at = format!("unix:{}", files.socket().display());
            let terms = Terms {
                control,
                token: None,
            };
            Ok((files, Listener::Unix(listener), at, terms))
        }
    }
}

pub(super) fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whose process is at the other end.
#[cfg(target_os = "linux")]
pub(super) fn credentials(stream: &UnixStream) -> Option<(u32, u32)> {
    let found = rustix::net::sockopt::socket_peercred(stream).ok()?;
    let pid = u32::try_from(found.pid.as_raw_nonzero().get()).unwrap_or(0);
    Some((found.uid.as_raw(), pid))
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn credentials(_stream: &UnixStream) -> Option<(u32, u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashboard_2_where_a_path_is_too_long_the_next_directory_is_used() {
        let scratch = std::env::temp_dir().join(format!("ab-{}", std::process::id()));
        let long = scratch.join("x".repeat(100));
        let short = scratch.join("run");
        std::fs::create_dir(&scratch).unwrap();
        let access = Access {
            place: Place::Directory,
            control: true,
            version: "0".to_owned(),
            name: "test".to_owned(),
        };
        let uid = rustix::process::geteuid().as_raw();
        let opened = listen(&access, &[long.clone(), short.clone()], 7, uid);
        let left: Vec<_> = std::fs::read_dir(&long).unwrap().collect();
        let (files, listener, at, _) = opened.unwrap();
        assert!(
            at.starts_with(&format!("unix:{}/7-", short.display())),
            "{at}"
        );
        assert!(
            left.is_empty(),
            "nothing stays where it did not work: {left:?}"
        );
        assert!(listen(&access, &[long], 7, uid).is_err());
        drop((files, listener));
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
