//! The directory where processes are found, and the names in it.
//!
//! A process that can be looked at has three files there: `<pid>-<8 hex>.sock`, on which it
//! answers; `.lock`, which it holds locked while it lives; and `.json`, a [`Marker`] that tells
//! about it. The random part keeps two containers apart that are both pid 1 on a shared volume,
//! and a name is never used again.
//!
//! Whoever may write into that directory could pose as any process, so it is refused unless it is
//! a real directory, ours, and closed to all others.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::Text;
use crate::version::Versions;

/// The longest path of a socket, in bytes: what the smallest `sun_path` holds besides its end.
pub const MAX_SOCKET_PATH: usize = 103;

/// The environment variable that names the directory.
pub const VARIABLE: &str = "ANABRANCH_RUNTIME_DIR";

/// The directories to look in, the one to use first.
///
/// `$ANABRANCH_RUNTIME_DIR`, if it is set, and no other: whoever names a directory means that one.
/// Otherwise `anabranch` in `$XDG_RUNTIME_DIR`, or `anabranch-<uid>` in `$TMPDIR` or `/tmp`.
/// `$XDG_RUNTIME_DIR` counts only if it is a directory of this user: under `sudo` it is that of
/// somebody else, who could not use it any more. The last is `/tmp/anabranch-<uid>`, where sockets
/// are made whose path would be too long elsewhere.
pub fn directories(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Vec<PathBuf> {
    let set = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(named) = set(VARIABLE) {
        return vec![named];
    }
    let own = |path: &Path| std::fs::metadata(path).is_ok_and(|it| it.is_dir() && it.uid() == uid);
    let shared = format!("anabranch-{uid}");
    let short = Path::new("/tmp").join(&shared);
    let first = match set("XDG_RUNTIME_DIR").filter(|path| path.is_absolute() && own(path)) {
        Some(path) => path.join("anabranch"),
        None => set("TMPDIR").unwrap_or_else(|| "/tmp".into()).join(&shared),
    };
    if first == short {
        vec![first]
    } else {
        vec![first, short]
    }
}

/// Why a directory is not used.
#[derive(Debug)]
pub struct Unsafe {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a directory.
#[derive(Debug)]
pub enum Why {
    /// It is a link, or no directory.
    NotADirectory,
    /// It belongs to another user.
    Owner(u32),
    /// Others may enter it.
    Mode(u32),
    /// It cannot be made, or looked at.
    Io(io::Error),
}

impl Unsafe {
    /// Whether it is just not there.
    pub fn is_missing(&self) -> bool {
        matches!(&self.why, Why::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::NotADirectory => write!(f, "{path} is not a directory: remove it"),
            Why::Owner(uid) => write!(
                f,
                "{path} belongs to user {uid}: remove it, or set {VARIABLE} to a directory of yours"
            ),
            Why::Mode(mode) => write!(
                f,
                "{path} is open to other users (mode {mode:03o}): chmod 700 {path}"
            ),
            Why::Io(error) => write!(
                f,
                "{path}: {error}; set {VARIABLE} to a directory that can be used"
            ),
        }
    }
}

impl std::error::Error for Unsafe {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Checks that a directory is real, of this user, and closed to all others.
///
/// # Errors
/// [`Unsafe`] if it is not, or is not there.
pub fn check(path: &Path, uid: u32) -> Result<(), Unsafe> {
    let refuse = |why| Unsafe {
        path: path.to_owned(),
        why,
    };
    let found = std::fs::symlink_metadata(path).map_err(|error| refuse(Why::Io(error)))?;
    let mode = found.mode() & 0o777;
    if !found.is_dir() {
        Err(refuse(Why::NotADirectory))
    } else if found.uid() != uid {
        Err(refuse(Why::Owner(found.uid())))
    } else if mode & 0o077 != 0 {
        Err(refuse(Why::Mode(mode)))
    } else {
        Ok(())
    }
}

/// Makes a directory if it is not there, closed to all others, and checks it in any case.
///
/// # Errors
/// [`Unsafe`] if it cannot be made, or must not be used.
pub fn prepare(path: &Path, uid: u32) -> Result<(), Unsafe> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Unsafe {
            path: path.to_owned(),
            why: Why::Io(error),
        }),
        _ => check(path, uid),
    }
}

/// The name of one process's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The process.
    pub pid: u32,
    /// What keeps it apart from others of that number.
    pub random: u32,
}

impl Name {
    /// Reads the stem of a file's name.
    ///
    /// ```
    /// use anabranch_protocol::place::Name;
    ///
    /// let name = Name { pid: 4211, random: 0xbeef };
    /// assert_eq!(name.to_string(), "4211-0000beef");
    /// assert_eq!(Name::parse("4211-0000beef"), Some(name));
    /// assert_eq!(Name::parse("4211-beef"), None);
    /// ```
    pub fn parse(stem: &str) -> Option<Self> {
        let (pid, random) = stem.split_once('-')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = Self {
            pid: pid.parse().ok()?,
            random: u32::from_str_radix(random, 16).ok()?,
        };
        (random.len() == 8 && plain(random) && pid.bytes().all(|byte| byte.is_ascii_digit()))
            .then_some(name)
    }

    /// The file on which the process answers.
    pub fn socket(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.sock"))
    }

    /// The file it holds locked.
    pub fn lock(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.lock"))
    }

    /// The file that tells about it.
    pub fn marker(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.json"))
    }

    /// The file with what lets a client in over TCP.
    pub fn token(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{self}.token"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.pid, self.random)
    }
}

/// Whether a socket can be made at a path.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

/// What a process tells about itself to whoever finds it, without being asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// What it calls itself.
    #[serde(default)]
    pub name: Text,
    /// Its number.
    pub pid: u32,
    /// When it began to be observable, in milliseconds since 1970.
    pub start: u64,
    /// The version of anabranch in it.
    #[serde(default)]
    pub version: Text,
    /// The protocol versions it speaks.
    pub proto: Versions,
    /// The directory it was started in.
    #[serde(default)]
    pub cwd: Text,
    /// Where it answers, if not on the socket beside this file: `unix:PATH` or `tcp:HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory of its own for each test, gone afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("anabranch-place-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn with(set: &[(&str, &Path)]) -> Vec<PathBuf> {
        let find = |name: &str| {
            let found = set.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.as_os_str().to_owned())
        };
        directories(find, uid())
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_directory() {
        let scratch = Scratch::new("order");
        let short = PathBuf::from(format!("/tmp/anabranch-{}", uid()));
        let xdg = ("XDG_RUNTIME_DIR", scratch.0.as_path());
        let tmp = ("TMPDIR", Path::new("/var/tmp"));
        let own = (VARIABLE, Path::new("/somewhere"));
        let in_tmp = PathBuf::from(format!("/var/tmp/anabranch-{}", uid()));
        let named = with(&[own, xdg, tmp]);
        assert_eq!(
            named,
            [PathBuf::from("/somewhere")],
            "that one and no other"
        );
        assert_eq!(
            with(&[xdg, tmp]),
            [scratch.0.join("anabranch"), short.clone()]
        );
        let only_tmp = with(std::slice::from_ref(&tmp));
        assert_eq!(only_tmp, [in_tmp.clone(), short.clone()]);
        assert_eq!(with(&[]), std::slice::from_ref(&short));
        assert_eq!(with(&[("TMPDIR", Path::new(""))]), [short]);
        // Somebody else's, as under sudo, or a directory that is not there.
        for not_ours in ["/nowhere/at/all", "relative"] {
            assert_eq!(
                with(&[("XDG_RUNTIME_DIR", Path::new(not_ours)), tmp])[0],
                in_tmp
            );
        }
        assert_eq!(
            directories(
                |name| (name == "XDG_RUNTIME_DIR").then(|| scratch.0.clone().into()),
                uid() + 1
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_directory_that_others_could_write_to_is_refused() {
        let scratch = Scratch::new("modes");
        let path = scratch.0.join("run");
        assert!(check(&path, uid()).unwrap_err().is_missing());
        prepare(&path, uid()).unwrap();
        prepare(&path, uid()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for mode in [0o701, 0o710, 0o755, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = prepare(&path, uid()).unwrap_err();
            assert!(matches!(error.why, Why::Mode(found) if found == mode));
            assert!(error.to_string().contains("chmod 700"));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let error = check(&path, uid() + 1).unwrap_err();
        assert!(matches!(error.why, Why::Owner(found) if found == uid()));
        let link = scratch.0.join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(
            prepare(&link, uid()).unwrap_err().why,
            Why::NotADirectory
        ));
        let missing = scratch.0.join("no/parent");
        assert!(matches!(
            prepare(&missing, uid()).unwrap_err().why,
            Why::Io(_)
        ));
    }

    #[test]
    fn only_names_of_ours_are_read() {
        for odd in [
            "",
            "-",
            "1",
            "1-",
            "-00000000",
            "+1-00000000",
            "1-+0000000",
            "1-0000000g",
            "1-000000000",
            "99999999999-00000000",
            "1-00000000-2",
        ] {
            assert_eq!(Name::parse(odd), None, "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_comes_back_as_it_was_written(pid in any::<u32>(), random in any::<u32>()) {
            let name = Name { pid, random };
            prop_assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
    }
}
