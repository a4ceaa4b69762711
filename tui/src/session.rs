//! One connection to one process, blocking, with a deadline for everything.
//!
//! The dashboard runs one of these on a thread of its own per process; `--once` and `ls` use it as
//! it is.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anabranch_protocol::message::{Client, Hello, Refuse, Right, Server, Welcome};
use anabranch_protocol::{Decoder, MAX_LINE, SUPPORTED, Text, encode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long a process may take to answer hello: a child that has inherited a socket never does.
pub(crate) const HANDSHAKE: Duration = Duration::from_millis(250);

/// Where a process answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A socket.
    Unix(PathBuf),
    /// A TCP address, and what lets one in.
    Tcp(SocketAddr, Option<String>),
}

impl At {
    /// Reads `unix:PATH`, `tcp:HOST:PORT` or a path.
    ///
    /// # Errors
    /// A sentence, if it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp:") {
            let address = address.parse().map_err(|error| {
                format!("{text:?} is not tcp:ADDRESS:PORT, with an address in numbers: {error}")
            })?;
            return Ok(Self::Tcp(address, None));
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.is_empty() || text.starts_with("pipe:") {
            return Err(format!(
                "{text:?} is neither unix:PATH nor tcp:ADDRESS:PORT"
            ));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address, _) => write!(f, "tcp:{address}"),
        }
    }
}

/// Why there is no connection any more, or none at all.
#[derive(Debug)]
pub enum Failed {
    /// The process is gone, or cannot be reached.
    Lost(io::Error),
    /// It has not answered in time.
    Silent,
    /// It lets us not in.
    Refused(Refuse),
    /// It has said good-bye.
    Ended(Text),
    /// What it says is no message.
    Garbled(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => {
                // The number the system has for it tells an operator nothing.
                let why = error.to_string();
                f.write_str(why.split(" (os error").next().unwrap_or(&why))
            }
            Self::Silent => f.write_str("no answer"),
            Self::Refused(refuse) => write!(f, "refused ({}): {}", refuse.code, refuse.msg),
            Self::Ended(why) => why.fmt(f),
            Self::Garbled(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Failed {}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean no timeout.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Session {
    stream: Stream,
    lines: Decoder,
    welcome: Welcome,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what waits for a process needs a clock of its own"
)]
fn now() -> Instant {
    Instant::now()
}

/// Connects without waiting: the queue of a process that does not accept may be full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Session {
    /// Connects, and says hello.
    ///
    /// # Errors
    /// [`Failed`] if the process is not there, does not answer in time, or refuses.
    pub fn open(at: &At, client: &str, want: &[Right]) -> Result<Self, Failed> {
        let (stream, token) = match at {
            At::Unix(path) => (connect(path).map(Stream::Unix), None),
            At::Tcp(address, token) => {
                let stream = TcpStream::connect_timeout(address, HANDSHAKE * 4);
                (stream.map(Stream::Tcp), token.clone())
            }
        };
        let mut session = Self {
            stream: stream.map_err(Failed::Lost)?,
            lines: Decoder::default(),
            welcome: Welcome {
                proto: 0,
                server: anabranch_protocol::message::Process::default(),
                caps: Vec::new(),
                cols: Vec::new(),
                max_line: MAX_LINE,
                min_tick_ms: 0,
            },
        };
        session.send(&Client::from(Hello {
            proto: SUPPORTED,
            client: Text::new(client),
            want: want.to_vec(),
            token,
        }))?;
        let until = now() + HANDSHAKE;
        loop {
            match session.receive(until)? {
                None => return Err(Failed::Silent),
                Some(Server::Welcome(welcome)) => {
                    session.welcome = welcome;
                    return Ok(session);
                }
                Some(Server::Refuse(refuse)) => return Err(Failed::Refused(refuse)),
                Some(_) => {}
            }
        }
    }

    /// Who is at the other end, and what we may do.
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Says something.
    ///
    /// # Errors
    /// [`Failed`] if the process does not read, or is gone.
    pub fn send(&mut self, message: &Client) -> Result<(), Failed> {
        let mut line = Vec::new();
        encode(message, &mut line).map_err(|error| Failed::Garbled(error.to_string()))?;
        self.stream.set_timeouts(HANDSHAKE).map_err(Failed::Lost)?;
        self.stream.write_all(&line).map_err(Failed::Lost)
    }

    /// The next message, or `None` if there is none until then.
    ///
    /// # Errors
    /// [`Failed`] if the process is gone, or has said good-bye.
    pub fn receive(&mut self, until: Instant) -> Result<Option<Server>, Failed> {
        let mut bytes = [0; 16 * 1024];
        loop {
            let line = self.lines.line();
            if let Some(line) = line.map_err(|error| Failed::Garbled(error.to_string()))? {
                return match Server::decode(&line) {
                    Ok(Server::Bye(bye)) => Err(Failed::Ended(bye.msg)),
                    Ok(message) => Ok(Some(message)),
                    Err(error) => Err(Failed::Garbled(error.to_string())),
                };
            }
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_timeouts(left).map_err(Failed::Lost)?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Failed::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.lines.push(&bytes[..read]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(None),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(Failed::Lost(error)),
                },
            }
        }
    }
}
