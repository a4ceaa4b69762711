//! What the dashboard knows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anabranch_protocol::Text;
use anabranch_protocol::message::{Severity, Sub};
use jiff::tz::TimeZone;

use super::act::Sent;
use super::columns::{Column, Sort};
use super::focus::Focus;
use super::list::{List, RowId};
use super::{Screen, Span, layout, order};
use crate::config::{Config, Thresholds};
use crate::conn::TargetId;
use crate::filter::Filter;
use crate::keymap::Keymap;
use crate::store::{BranchId, ProcessId, Store};
use crate::symbols::{self, Symbols};
use crate::theme::Theme;

/// The screen is stopped; the pipelines are not.
#[derive(Debug)]
pub struct Frozen {
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// What was known then.
    pub store: Box<Store>,
}

/// A line for the operator that goes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub text: String,
    /// Whether something went wrong.
    pub bad: bool,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// How long a notice stays, in milliseconds.
pub(super) const NOTICE_MS: u64 = 5_000;

/// What the dashboard knows.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own that an operator turns"
)]
pub struct Model {
    /// The time, in milliseconds since 1970.
    pub now: u64,
    /// Where the clock on the wall is.
    pub zone: TimeZone,
    /// The users of this machine, by number.
    pub users: BTreeMap<u32, String>,
    /// Columns and lines of the terminal.
    pub size: (u16, u16),
    /// What the processes tell.
    pub store: Store,
    /// What was known when the screen was stopped, if it is.
    pub frozen: Option<Frozen>,
    /// When the recording was over, if one is told and is.
    pub over: Option<u64>,
    /// What is shown.
    pub screen: Screen,
    /// The rows of each screen.
    pub lists: [List; 7],
    /// The pipeline that was gone into.
    pub scope: Option<(ProcessId, u32)>,
    /// The branch that was gone into.
    pub open: Option<BranchId>,
    /// The outbox that was gone into.
    pub open_store: Option<(ProcessId, Text)>,
    /// Which branches are shown.
    pub filter: Filter,
    /// What was searched for.
    pub search: String,
    /// The order of branches.
    pub sort: Sort,
    /// The column the keys act on.
    pub column: Column,
    /// Marked branches.
    pub marks: BTreeSet<BranchId>,
    /// Nodes of trees that are turned around.
    pub folded: HashSet<RowId>,
    /// What takes the keys first.
    pub focus: Focus,
    /// How far back a history goes.
    pub span: Span,
    /// The lowest level of the log that is shown.
    pub level: Severity,
    /// Whether the cursor of the log follows what comes.
    pub follow: bool,
    /// Between two ticks, in milliseconds.
    pub tick_ms: u64,
    /// The colours.
    pub theme: Theme,
    /// What is drawn.
    pub symbols: &'static Symbols,
    /// Which key does what.
    pub keymap: Keymap,
    /// From where on something is worth a look.
    pub thresholds: Thresholds,
    /// The columns of branches, if they were chosen.
    pub columns: Option<Vec<Column>>,
    /// Whether the mouse is taken.
    pub mouse: bool,
    /// Whether nothing may be done to the pipelines.
    pub read_only: bool,
    /// What the operator is told.
    pub notice: Option<Notice>,
    /// What was asked of the processes.
    pub sent: Vec<Sent>,
    /// Whether the screen shows anything that is no longer so.
    pub dirty: bool,
    /// Whether somebody waits for that: a key was pressed, a process has been reached, or all of it
    /// was told for the first time.
    pub urgent: bool,
    /// Tells the commands of this dashboard from those of others.
    pub(super) session: String,
    pub(super) numbered: u64,
    subscriptions: u64,
    /// What the monitors were asked to tell, and when.
    pub(super) subscribed: HashMap<TargetId, (Sub, u64)>,
    pub(super) stale_rows: bool,
}

/// How a dashboard begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// What a user has chosen once and for all.
    pub config: Config,
    /// The colours.
    pub theme: Theme,
    /// Whether to draw in ASCII alone.
    pub ascii: bool,
    /// Whether nothing may be done to the pipelines.
    pub read_only: bool,
    /// Between two ticks, in milliseconds.
    pub tick_ms: u64,
    /// The order of branches.
    pub sort: Sort,
    /// Tells the commands of this dashboard from those of others: no two dashboards may share it.
    pub session: String,
    /// Where the clock on the wall is.
    pub zone: TimeZone,
    /// The users of this machine, by number.
    pub users: BTreeMap<u32, String>,
}

impl Default for Begin {
    fn default() -> Self {
        Self {
            config: Config::default(),
            theme: Theme::Ansi,
            ascii: false,
            read_only: false,
            tick_ms: 100,
            sort: Sort::default(),
            session: String::new(),
            zone: TimeZone::UTC,
            users: BTreeMap::new(),
        }
    }
}

impl Model {
    /// A dashboard that knows nothing yet.
    pub fn new(begin: Begin, size: (u16, u16), now: u64) -> Self {
        Self {
            now,
            zone: begin.zone,
            users: begin.users,
            size,
            store: Store::default(),
            frozen: None,
            over: None,
            screen: Screen::Pipes,
            lists: std::array::from_fn(|_| List::default()),
            scope: None,
            open: None,
            open_store: None,
            filter: begin.config.filter,
            search: String::new(),
            sort: begin.sort,
            column: begin.sort.column,
            marks: BTreeSet::new(),
            folded: HashSet::new(),
            focus: Focus::Screen,
            span: Span::Minute,
            level: Severity::Info,
            follow: true,
            tick_ms: begin.tick_ms,
            theme: begin.theme,
            symbols: if begin.ascii {
                &symbols::ASCII
            } else {
                &symbols::UTF8
            },
            keymap: begin.config.keymap,
            thresholds: begin.config.thresholds,
            columns: begin.config.columns,
            mouse: false,
            read_only: begin.read_only,
            notice: None,
            sent: Vec::new(),
            dirty: true,
            urgent: true,
            session: begin.session,
            numbered: 0,
            subscriptions: 0,
            subscribed: HashMap::new(),
            stale_rows: true,
        }
    }

    /// What is shown: what is known, or was when the screen was stopped.
    pub fn shown(&self) -> &Store {
        self.frozen
            .as_ref()
            .map_or(&self.store, |frozen| &frozen.store)
    }

    /// The time of what is shown: it stands still with it.
    pub fn shown_at(&self) -> u64 {
        let now = self.over.unwrap_or(self.now);
        self.frozen
            .as_ref()
            .map_or(now, |frozen| frozen.since.min(now))
    }

    /// A user, for people: `alice(1000)`, or the number alone.
    pub fn user(&self, uid: u32) -> String {
        match self.users.get(&uid) {
            Some(name) => format!("{name}({uid})"),
            None => format!("uid {uid}"),
        }
    }

    /// The rows of the screen that is shown.
    pub fn list(&self) -> &List {
        &self.lists[self.screen.index()]
    }

    /// The row the keys act on.
    pub fn selected(&self) -> Option<&RowId> {
        self.list().selected()
    }

    /// Lines that the rows of the screen have.
    pub fn height(&self) -> u16 {
        let pipelines = self.lists[Screen::Pipes.index()].rows().len();
        layout::rows(self.screen, self.size, pipelines)
    }

    /// Tells the operator something.
    pub fn tell(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice {
            text: text.into(),
            bad: false,
            at: self.now,
        });
    }

    /// Tells the operator that something went wrong.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.tell(text);
        if let Some(notice) = &mut self.notice {
            notice.bad = true;
        }
    }

    /// Goes to a screen. What was gone into stays, unless it is the first one: there one chooses
    /// anew.
    pub fn go(&mut self, screen: Screen) {
        self.screen = screen;
        self.open = None;
        self.open_store = None;
        if screen == Screen::Pipes {
            self.scope = None;
        }
        self.reorder();
    }

    /// The rows are no longer what they were.
    pub(super) const fn reorder(&mut self) {
        self.stale_rows = true;
    }

    /// Makes the rows what they should be, if they may not be.
    pub(super) fn arrange(&mut self) {
        if std::mem::take(&mut self.stale_rows) {
            let rows = order::rows(self, self.screen);
            let following = self.screen == Screen::Log && self.follow;
            let height = self.height();
            let list = &mut self.lists[self.screen.index()];
            list.replace(rows);
            if following {
                list.go(usize::MAX);
            }
            list.scroll(height);
            if self.screen != Screen::Pipes && self.lists[0].rows().is_empty() {
                self.lists[0].replace(order::rows(self, Screen::Pipes));
            }
        }
    }

    /// The number of a new command: operators read it.
    pub(super) const fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// The number of a new subscription.
    pub(super) const fn subscription(&mut self) -> u64 {
        self.subscriptions += 1;
        self.subscriptions
    }
}
