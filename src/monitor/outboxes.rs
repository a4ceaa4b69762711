//! The outboxes of this process, as the monitor and whoever reads them share them.
//!
//! Their messages are in databases, behind Python's drivers, and the monitor waits for neither. So a
//! thread of Python's own reads the stores while somebody looks at them, and carries out what
//! operators ask for; it sleeps otherwise. Here the two meet.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use anabranch_protocol::message::{Code, Dead, Op, Outbox};

use super::commands::Answer;
use super::locked;
use crate::wake::Wake;

/// Requests that may wait.
const WAITING: usize = 64;

/// What an operator asks about dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct LetterRequest {
    /// Its number in the process.
    pub number: u64,
    /// What to do.
    pub op: Op,
    /// With the letters of which store.
    pub store: String,
    /// With which of them; all, if there are none.
    pub ids: Vec<i64>,
    /// If all are meant, how many there must be: those that its giver saw.
    pub seen: Option<u32>,
    /// How many a second are to be made ready again, if that was said.
    pub rate: Option<f64>,
    /// Whether nothing is to be done.
    pub dry: bool,
    /// Who asks, for the log.
    pub who: String,
}

/// What is known of the stores.
#[derive(Debug, Default)]
struct Told {
    outbox: Outbox,
    /// The dead letters of each store, and how often they were told of.
    dead: Vec<(Dead, u64)>,
}

/// The outboxes of this process.
#[derive(Debug)]
pub struct Outboxes {
    told: Mutex<Told>,
    version: AtomicU64,
    requests: Mutex<VecDeque<LetterRequest>>,
    answers: Mutex<Vec<(Answer, Option<Dead>)>>,
    /// How much is left of requests that take long: of each the last that was told.
    progress: Mutex<BTreeMap<u64, u64>>,
    /// Whether somebody looks at them.
    wanted: AtomicBool,
    /// Whether operators may do more than look.
    control: AtomicBool,
    closed: AtomicBool,
    /// Wakes the reader of the stores.
    reader: Wake,
    /// Wakes the monitor.
    monitor: Arc<Wake>,
}

impl AsFd for Outboxes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl AsRawFd for Outboxes {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Outboxes {
    pub(super) fn new(monitor: Arc<Wake>) -> io::Result<Self> {
        Ok(Self {
            told: Mutex::default(),
            version: AtomicU64::new(0),
            requests: Mutex::default(),
            answers: Mutex::default(),
            progress: Mutex::default(),
            wanted: AtomicBool::new(false),
            control: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            reader: Wake::new()?,
            monitor,
        })
    }

    // The reader's side.

    /// Before looking for what is wanted: from here on a wake-up is sent again.
    pub fn clear(&self) {
        self.reader.clear();
    }

    /// Whether the monitor is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Whether somebody looks.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// From now on operators may only look.
    pub fn only_look(&self) {
        self.control.store(false, Relaxed);
    }

    /// Tells of all stores. Their dead letters are told of where there is something new.
    pub fn tell(&self, outbox: Outbox, dead: Vec<Dead>) {
        let mut told = locked(&self.told);
        let known = |letters: &Dead| {
            let name = letters.store.as_ref();
            outbox.r.iter().any(|it| Some(&it.store) == name)
        };
        told.dead.retain(|(letters, _)| known(letters));
        for letters in dead {
            let found = told.dead.iter_mut().find(|it| it.0.store == letters.store);
            match found {
                Some((old, _)) if *old == letters => {}
                Some(old) => *old = (letters, old.1 + 1),
                None => told.dead.push((letters, 1)),
            }
        }
        told.outbox = outbox;
        drop(told);
        self.version.fetch_add(1, Release);
        if self.is_wanted() {
            self.monitor.wake();
        }
    }

    /// What operators have asked for.
    pub fn requests(&self) -> VecDeque<LetterRequest> {
        std::mem::take(&mut locked(&self.requests))
    }

    /// What became of a request, with the letters that were to be shown.
    pub fn answer(&self, answer: Answer, letters: Option<Dead>) {
        locked(&self.answers).push((answer, letters));
        self.monitor.wake();
    }

    /// So much is left of a request.
    pub fn progress(&self, number: u64, left: u64) {
        locked(&self.progress).insert(number, left);
        self.monitor.wake();
    }

    // The monitor's side.

    /// Says whether somebody looks.
    pub(super) fn want(&self, wanted: bool) {
        if self.wanted.swap(wanted, AcqRel) != wanted && wanted {
            self.reader.wake();
        }
    }

    /// Nobody will look, or ask, any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Release);
        self.reader.wake();
    }

    /// Whether operators may do more than look.
    pub(super) fn may_be_steered(&self) -> bool {
        self.control.load(Relaxed)
    }

    /// How often the stores were told of.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// What was told of the stores.
    pub(super) fn outbox(&self) -> Outbox {
        locked(&self.told).outbox.clone()
    }

    /// The dead letters of those stores where there are others than in that version of them.
    pub(super) fn letters(&self, seen: impl Fn(&str) -> u64) -> Vec<(Dead, u64)> {
        let told = locked(&self.told);
        let new = told.dead.iter().filter(|(letters, version)| {
            let store = letters.store.as_deref().unwrap_or_default();
            seen(store) != *version
        });
        new.cloned().collect()
    }

    /// The names of all stores.
    pub(super) fn names(&self) -> Vec<String> {
        let told = locked(&self.told);
        told.outbox
            .r
            .iter()
            .map(|it| it.store.to_string())
            .collect()
    }

    /// Asks for something. Returns whether it was told: not if too many wait, or nobody would hear.
    pub(super) fn ask(&self, request: LetterRequest) -> Result<(), (Code, String)> {
        let mut requests = locked(&self.requests);
        if requests.len() >= WAITING {
            let what = format!("outbox '{}' has too many commands waiting", request.store);
            return Err((Code::Busy, what));
        }
        requests.push_back(request);
        drop(requests);
        self.reader.wake();
        Ok(())
    }

    /// What is left of requests, by number, where there is something new.
    pub(super) fn progressed(&self) -> BTreeMap<u64, u64> {
        std::mem::take(&mut locked(&self.progress))
    }

    pub(super) fn answers(&self) -> Vec<(Answer, Option<Dead>)> {
        std::mem::take(&mut locked(&self.answers))
    }
}
