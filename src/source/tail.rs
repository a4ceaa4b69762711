//! What is appended to a file, through rotation and truncation.
//!
//! The file is asked for, time after time, and not watched: a look costs a few microseconds, while
//! notifications of the system do not come from network file systems and some container mounts, are
//! limited in number, and would need the looks beside them anyway.
//!
//! # Guarantees
//! - What is appended is delivered in order, once.
//! - A file that takes the path's place (rotation) is read from its beginning, once there is
//!   something in it and the old one is read to its end: until then whoever wrote the old one may
//!   still be at it.
//! - A file that is shorter than what was read of it was truncated: it is read from its beginning.
//!   One that has grown beyond that again by the next look cannot be told from one that has grown.
//! - A full inbox stops the reading.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anabranch_core::framing::{Decode, End, Framing, LineSplitter, Lines};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::owner::{Delivery, Order, Outlet, Owner, ordered, reached};
use crate::inbox::Inbox;

/// The most that one look takes, in bytes.
const READ: u64 = 256 * 1024;

/// Which file, and what is taken for a line.
#[derive(Debug, Clone)]
pub struct TailOptions {
    /// The path; whatever file is there is the one.
    pub path: PathBuf,
    /// Whether what is in the file at the start is read; otherwise what is appended from then on.
    pub from_start: bool,
    /// The longest line, in bytes without its terminator.
    pub max_line: usize,
    /// What the contents of a line have to be.
    pub decode: Decode,
    /// How long to wait after a look that brought nothing.
    pub poll: Duration,
    /// How long after its start it ends of its own accord.
    pub until: Option<Duration>,
}

/// Opens the file, if it is there, and starts to follow it, on the runtime of `handle`, which needs
/// time enabled.
///
/// The inbox is closed when it has ended, for whatever reason; [`Owner::fault`] is the error that
/// ended it, if there was one.
///
/// # Errors
/// If there is something at the path that cannot be read, or is no file.
pub fn start(
    handle: &Handle,
    options: TailOptions,
    inbox: Arc<Inbox<Delivery>>,
) -> io::Result<Owner> {
    let TailOptions { poll, until, .. } = options;
    let peer = options.path.display().to_string().into();
    let tail = Tail::open(options)?;
    let (owner, outlet, orders) = Owner::of(inbox);
    handle.spawn(follow(tail, outlet, orders, peer, poll, until));
    Ok(owner)
}

/// The one task: looks, delivers, waits.
///
/// # Cancel safety
/// Cancelled at any await it has lost at most what one look had brought.
async fn follow(
    mut tail: Tail,
    outlet: Outlet,
    mut orders: watch::Receiver<Order>,
    peer: Arc<str>,
    poll: Duration,
    until: Option<Duration>,
) {
    let end = until.and_then(|delay| Instant::now().checked_add(delay));
    let how = loop {
        let looked;
        // A disk may be slow; this thread is the others', too.
        let looking = spawn_blocking(move || {
            let looked = tail.look();
            (tail, looked)
        });
        let Ok(both) = looking.await else { return };
        (tail, looked) = both;
        let (lines, more) = match looked {
            Ok(Looked { lines, more }) => (lines, more),
            Err(error) => return outlet.fail(error),
        };
        tokio::select! {
            biased;
            () = ordered(&mut orders, Order::Abort) => return,
            left = outlet.deliver(&peer, lines) => if left.is_err() { return },
        }
        tokio::select! {
            biased;
            () = ordered(&mut orders, Order::Drain) => break "drain",
            () = reached(end) => break "end of the time",
            () = pause(if more { None } else { Some(poll) }) => {}
        }
    };
    // If the inbox is closed by now, nobody wants to know.
    let last = tail.splitter.finish(End::Cut(how));
    let _ = outlet.deliver(&peer, last).await;
}

/// Returns after a while, if one is wanted: even none at all would be a millisecond of tokio's.
///
/// # Cancel safety
/// Holds nothing but the time.
async fn pause(delay: Option<Duration>) {
    if let Some(delay) = delay {
        sleep(delay).await;
    }
}

/// Where it is in which file.
#[derive(Debug)]
struct Tail {
    options: TailOptions,
    /// None as long as there is none at the path.
    opened: Option<Opened>,
    splitter: LineSplitter,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    /// Device and number: the same file, whatever it is called by now.
    identity: (u64, u64),
    /// How much of it was read.
    offset: u64,
}

/// What a look brought.
#[derive(Debug)]
struct Looked {
    lines: Lines,
    /// Whether there may be more at once.
    more: bool,
}

impl Tail {
    fn open(options: TailOptions) -> io::Result<Self> {
        let splitter = LineSplitter::new(&Framing::Lf, options.max_line, options.decode);
        let mut opened = Opened::at(&options)?;
        if let Some(opened) = &mut opened
            && !options.from_start
        {
            opened.skip(options.max_line as u64)?;
        }
        Ok(Self {
            options,
            opened,
            splitter,
            chunk: Vec::new(),
        })
    }

    /// Reads what has been appended; at the end of the file, sees whether it still is the one.
    fn look(&mut self) -> io::Result<Looked> {
        let Some(opened) = &mut self.opened else {
            self.opened = Opened::at(&self.options)?;
            let more = self.opened.is_some();
            let lines = Lines::default();
            return Ok(Looked { lines, more });
        };
        if opened.file.metadata()?.len() < opened.offset {
            opened.offset = 0;
            let lines = self.splitter.finish(End::Cut("truncation of the file"));
            return Ok(Looked { lines, more: true });
        }
        // Before it is read: what is appended after this look at the path is read after it.
        let next = opened.successor(&self.options)?;
        if opened.read(&mut self.chunk)? {
            let lines = self.splitter.feed(&self.chunk);
            return Ok(Looked { lines, more: true });
        }
        let Some(next) = next else {
            let lines = Lines::default();
            return Ok(Looked { lines, more: false });
        };
        self.opened = Some(next);
        // Nobody will ever end its last line: it is one as it is.
        let lines = self.splitter.finish(End::Clean);
        Ok(Looked { lines, more: true })
    }
}

impl Opened {
    /// The file that is there now, at its beginning.
    fn at(options: &TailOptions) -> io::Result<Option<Self>> {
        // Asked first: to open a pipe would wait for who writes into it.
        let opened = options.path.metadata().and_then(|it| {
            if it.is_file() {
                return File::open(&options.path);
            }
            let kind = if it.is_dir() {
                io::ErrorKind::IsADirectory
            } else {
                io::ErrorKind::InvalidInput
            };
            Err(io::Error::new(kind, "not a regular file"))
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(Some(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            offset: 0,
        }))
    }

    /// The file that has taken its place, once there is something in that.
    fn successor(&self, options: &TailOptions) -> io::Result<Option<Self>> {
        match options.path.metadata() {
            Ok(it) if (it.dev(), it.ino()) == self.identity || it.len() == 0 => Ok(None),
            Ok(_) => Self::at(options),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads on; false at the end.
    fn read(&mut self, chunk: &mut Vec<u8>) -> io::Result<bool> {
        chunk.clear();
        self.file.seek(SeekFrom::Start(self.offset))?;
        let read = (&self.file).take(READ).read_to_end(chunk)?;
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// Goes to the beginning of the last line, which may still grow, or of so much of it that it is
    /// too long in any case.
    fn skip(&mut self, max_line: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        // A CR of its terminator, and one more than fits.
        let start = length.saturating_sub(max_line.saturating_add(2));
        self.file.seek(SeekFrom::Start(start))?;
        let mut last = Vec::new();
        (&self.file).take(length - start).read_to_end(&mut last)?;
        let begins = memchr::memrchr(b'\n', &last).map_or(0, |at| at as u64 + 1);
        self.offset = start + begins;
        Ok(())
    }
}
