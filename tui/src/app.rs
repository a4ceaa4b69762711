//! What the dashboard knows and does: a model, messages that change it, and commands to the world.
//!
//! [`update`] is pure: the time comes with each message, and what is to be done outside, such as
//! telling a monitor something, is returned. [`crate::view::draw`] shows the model and changes
//! nothing. All that waits, reads or writes is in [`crate::top`] and [`crate::conn`].
//!
//! - `app/model.rs`: what the dashboard knows.
//! - `app/key.rs`, `app/mouse.rs`: what a key does, and the mouse.
//! - `app/focus.rs`: fields, menus and dialogs that take the keys first.
//! - `app/act.rs`, `app/aim.rs`, `app/ask.rs`: what is done to the pipelines, to which, and asked
//!   before.
//! - `app/palette.rs`: commands by name.
//! - `app/list.rs`, `app/order.rs`, `app/columns.rs`: rows, which, and in which order.
//! - `app/layout.rs`: how many lines each part has.
//! - `app/subscribe.rs`: what the monitors are asked to tell.
//! - `app/hear.rs`: what they tell.
//! - `app/attention.rs`: what somebody should look at.

pub mod act;
pub mod aim;
pub mod ask;
pub mod attention;
pub mod columns;
pub mod focus;
mod hear;
mod key;
pub mod layout;
pub mod list;
mod model;
mod mouse;
pub mod order;
pub mod palette;
mod subscribe;

use anabranch_protocol::Client;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};

use self::model::NOTICE_MS;
use crate::conn::{Event, Target, TargetId};

pub use hear::hear;
pub use model::{Begin, Frozen, Model, Notice};

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Screen {
    /// The pipelines of all processes.
    Pipes,
    /// Branches.
    Branches,
    /// Open windows.
    Windows,
    /// Undo actions.
    Comps,
    /// Outboxes and dead letters.
    Outbox,
    /// Errors by code.
    Errors,
    /// The log.
    Log,
}

impl Screen {
    /// All, in the order of their keys.
    pub const ALL: [Self; 7] = [
        Self::Pipes,
        Self::Branches,
        Self::Windows,
        Self::Comps,
        Self::Outbox,
        Self::Errors,
        Self::Log,
    ];

    /// Its place among all.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name on a tab, short or in full.
    pub const fn title(self, full: bool) -> &'static str {
        match self {
            Self::Pipes => "Pipes",
            Self::Branches => "Branches",
            Self::Windows => "Windows",
            Self::Comps if full => "Compensations",
            Self::Comps => "Comp",
            Self::Outbox => "Outbox",
            Self::Errors => "Errors",
            Self::Log => "Log",
        }
    }
}

/// How far back a history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 30 seconds.
    Half,
    /// 60 seconds.
    Minute,
    /// 5 minutes.
    Five,
}

impl Span {
    /// In seconds.
    pub const fn seconds(self) -> usize {
        match self {
            Self::Half => 30,
            Self::Minute => 60,
            Self::Five => 300,
        }
    }

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half => "30s",
            Self::Minute => "60s",
            Self::Five => "5m",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Half => Self::Minute,
            Self::Minute => Self::Five,
            Self::Five => Self::Half,
        }
    }
}

/// Something has happened.
#[derive(Debug)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was used.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has another size.
    Resize(u16, u16),
    /// There are other processes to attach to.
    Found(Vec<Target>),
    /// A connection tells something.
    Conn(TargetId, Event),
    /// Something was done outside, or was not.
    Notice(Result<String, String>),
    /// Time has passed.
    Wake,
    /// The recording that is told is over: no more comes.
    Over,
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Cmd {
    /// End.
    Quit,
    /// Stop, until the shell says to go on.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Connect to a process.
    Open(Target),
    /// Let go of a process that is lost.
    Close(TargetId),
    /// Tell a monitor something.
    Send(TargetId, Box<Client>),
    /// Try to reach a process at once.
    Reconnect(TargetId),
    /// Put text on the clipboard.
    Copy(String),
    /// Write a snapshot to files of that stem.
    Save {
        /// The files' names, without their ends.
        stem: String,
        /// What the screen shows.
        text: String,
        /// What is known.
        json: String,
    },
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
}

/// Numbers older than this are no ground to act on, in milliseconds.
pub const OLD_MS: u64 = 2_000;

/// Takes a message in, and returns what is to be done outside.
pub fn update(model: &mut Model, msg: Msg, now: u64) -> Vec<Cmd> {
    model.now = now.max(model.now);
    match msg {
        Msg::Key(event) => {
            model.dirty = true;
            model.urgent = true;
            model.arrange();
            key::press(model, &event)
        }
        Msg::Mouse(event) => mouse::mouse(model, event),
        Msg::Paste(text) => {
            model.dirty = true;
            focus::paste(model, &text)
        }
        Msg::Resize(width, height) => {
            model.size = (width, height);
            model.dirty = true;
            model.reorder();
            Vec::new()
        }
        Msg::Found(targets) => hear::found(model, targets),
        Msg::Conn(target, event) => hear::hear(model, target, event),
        Msg::Notice(told) => {
            model.dirty = true;
            match told {
                Ok(text) => model.tell(text),
                Err(text) => model.warn(text),
            }
            Vec::new()
        }
        Msg::Over => {
            model.over = Some(model.now);
            model.dirty = true;
            model.tell("the recording is over");
            Vec::new()
        }
        Msg::Wake => {
            model.dirty = true;
            let now = model.now;
            model
                .notice
                .take_if(|it| now.saturating_sub(it.at) >= NOTICE_MS);
            Vec::new()
        }
    }
}

/// Makes the model ready to be drawn, and returns what the monitors are to be told about what is
/// looked at now.
pub fn prepare(model: &mut Model) -> Vec<Cmd> {
    model.arrange();
    subscribe::wanted(model)
}

/// When something on the screen changes though nothing happens; `None`, if it does not.
pub fn wake(model: &Model) -> Option<u64> {
    let second = model.now - model.now % 1000 + 1000;
    let notice = model.notice.as_ref().map(|it| it.at + NOTICE_MS);
    let frozen = model.frozen.as_ref().map(|_| second);
    let heard = model.store.processes().filter(|_| model.over.is_none());
    let processes = heard.filter_map(|(_, process)| {
        match process.age(model.now) {
            // One that is heard of all the time wakes us by itself; if it is silent, that shows.
            Some(age) if process.is_live() && age < OLD_MS => Some(model.now + OLD_MS - age),
            Some(_) => Some(second),
            None => process_waits(process).then_some(second),
        }
    });
    processes
        .chain(notice)
        .chain(frozen)
        .min()
        .map(|at| at.max(model.now + 1))
}

/// Whether a process that never told anything is tried again, which the screen counts down to.
const fn process_waits(process: &crate::store::Process) -> bool {
    matches!(
        process.link,
        crate::store::Link::Lost { again: Some(_), .. }
    )
}
