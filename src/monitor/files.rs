//! The files by which the process is found: made when its monitor begins, removed when it ends.
//!
//! Their owner holds the lock file locked. What the dead have left behind is removed by whoever
//! comes next, but only if it is certainly dead: the lock can be taken **and** nobody listens at
//! the socket. Names are never used again, so nothing that is alive can take the place of what is
//! being removed.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anabranch_protocol::place::{self, Marker, Name, Unsafe};
use rustix::fs::FlockOperation;

use super::fork::Noted;

/// Where a process can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the user's directory.
    Directory,
    /// At a path of the user's choosing, and in that directory.
    Path(PathBuf),
    /// At a TCP address; 0 picks a port.
    Tcp {
        /// The address.
        address: std::net::SocketAddr,
        /// Whether operators may steer what they find there.
        control: bool,
    },
}

/// Why a process cannot be looked at.
#[derive(Debug)]
pub enum OpenError {
    /// The directory must not be used.
    Directory(Unsafe),
    /// Something else went wrong there.
    Io(PathBuf, io::Error),
    /// The path is too long for a socket.
    TooLong(PathBuf),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::TooLong(path) => write!(
                f,
                "{} is longer than the {} bytes that the path of a socket may have",
                path.display(),
                place::MAX_SOCKET_PATH
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// The files of this process. Dropping them removes them.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    name: Name,
    /// Where the socket is, if not beside the others.
    elsewhere: Option<PathBuf>,
    _lock: File,
    _noted: Noted,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |error| OpenError::Io(path, error)
}

/// Makes a file that only its owner can read; it must not be there.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

impl Files {
    /// Takes a name in a directory.
    pub(super) fn open(directory: PathBuf, pid: u32, uid: u32) -> Result<Self, OpenError> {
        place::prepare(&directory, uid).map_err(OpenError::Directory)?;
        loop {
            let random = random().map_err(io_error(Path::new("/dev/urandom")))?;
            let name = Name { pid, random };
            let path = name.lock(&directory);
            let lock = match create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(io_error(&path))?,
            };
            // Whoever looks whether it is held holds it for a moment.
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)
                .map_err(io::Error::from)
                .map_err(io_error(&path))?;
            if !is_same(&lock, &path) {
                // Whoever tidies up took it for one of the dead, and has removed it.
                continue;
            }
            return Ok(Self {
                directory,
                name,
                elsewhere: None,
                _noted: Noted::new(&lock),
                _lock: lock,
            });
        }
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the socket is to be.
    pub(super) fn socket(&self) -> PathBuf {
        self.elsewhere
            .clone()
            .unwrap_or_else(|| self.name.socket(&self.directory))
    }

    /// Listens, at another path if one is given.
    pub(super) fn listen(&mut self, elsewhere: Option<PathBuf>) -> Result<UnixListener, OpenError> {
        self.elsewhere = elsewhere;
        let path = self.socket();
        if !place::fits(&path) {
            self.elsewhere = None;
            return Err(OpenError::TooLong(path));
        }
        if self.elsewhere.is_some() && is_dead(&path) {
            let _ = std::fs::remove_file(&path);
        }
        let listener = UnixListener::bind(&path);
        if listener.is_err() {
            // Not ours: it is not to be removed with our files.
            self.elsewhere = None;
        }
        let listener = listener.map_err(io_error(&path))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(io_error(&path))?;
        listener.set_nonblocking(true).map_err(io_error(&path))?;
        Ok(listener)
    }

    /// Makes what lets a client in over TCP.
    pub(super) fn token(&self) -> Result<String, OpenError> {
        let path = self.name.token(&self.directory);
        let mut token = String::new();
        for _ in 0..8 {
            let random = random().map_err(io_error(Path::new("/dev/urandom")))?;
            // Writing to a string does not fail.
            let _ = write!(token, "{random:08x}");
        }
        let mut file = create(&path).map_err(io_error(&path))?;
        file.write_all(token.as_bytes()).map_err(io_error(&path))?;
        Ok(token)
    }

    /// Tells about the process; the last thing that is made, and in one piece.
    pub(super) fn tell(&self, marker: &Marker) -> Result<(), OpenError> {
        let path = self.name.marker(&self.directory);
        let draft = path.with_extension("json.new");
        let text = serde_json::to_vec(marker).map_err(io::Error::from);
        let written = text.and_then(|text| {
            create(&draft)?.write_all(&text)?;
            std::fs::rename(&draft, &path)
        });
        written.map_err(io_error(&path))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let name = &self.name;
        let directory = &self.directory;
        let _ = std::fs::remove_file(name.marker(directory));
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_file(name.token(directory));
        // The last: while it is there and locked, nobody else removes anything.
        let _ = std::fs::remove_file(name.lock(directory));
    }
}

/// Whether a file is still the one at a path.
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |it: std::fs::Metadata| (it.dev(), it.ino());
    let open = file.metadata().map(identity).ok();
    open.is_some() && open == std::fs::symlink_metadata(path).map(identity).ok()
}

fn random() -> io::Result<u32> {
    use std::io::Read;
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Removes what the dead have left in a directory that was checked.
pub(super) fn sweep(directory: &Path, uid: u32) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let Some(name) = stem.and_then(Name::parse)
            && path.extension().is_some_and(|it| it == "lock")
        {
            remove_if_dead(directory, name, uid);
        }
    }
}

fn remove_if_dead(directory: &Path, name: Name, uid: u32) {
    let path = name.lock(directory);
    let Ok(lock) = OpenOptions::new()
        .read(true)
        .custom_flags(libc_nofollow())
        .open(&path)
    else {
        return;
    };
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let socket = name.socket(directory);
    match std::fs::symlink_metadata(&socket) {
        // Somebody else's, or no socket: whatever it is, it is not ours to remove.
        Ok(found) if found.uid() != uid || !found.file_type().is_socket() => return,
        Ok(_) if !is_dead(&socket) => return,
        Ok(_) => {
            let _ = std::fs::remove_file(&socket);
        }
        Err(_) => {}
    }
    let _ = std::fs::remove_file(name.marker(directory));
    let _ = std::fs::remove_file(name.token(directory));
    let _ = std::fs::remove_file(&path);
}

/// `O_NOFOLLOW`: a link is not followed.
fn libc_nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// Whether there is a socket at which certainly nobody listens: anything but a refusal proves
/// nothing.
fn is_dead(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    UnixStream::connect(path).err().is_some_and(refused)
}
