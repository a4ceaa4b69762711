//! The columns of the table of branches, and the order they give it.

use crate::store::Row;

/// A column of the table of branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Its key.
    Tenant,
    /// Its process and pipeline, where several are shown.
    Pipeline,
    /// What it is doing.
    State,
    /// Items that come, per second.
    In,
    /// Items handled to the end, per second.
    Out,
    /// The history of items that come.
    Spark,
    /// How full its queue is.
    Queue,
    /// How full its open window is.
    Window,
    /// How old its open window is.
    Age,
    /// Attempts after the first.
    Retry,
    /// Undo actions that are pending.
    Comp,
    /// Dead letters.
    Dead,
    /// Items failed for good.
    Failed,
    /// 99 of 100 units took no longer.
    P99,
}

impl Column {
    /// All, in the order of the screen.
    pub const ALL: [Self; 14] = [
        Self::Tenant,
        Self::Pipeline,
        Self::State,
        Self::In,
        Self::Out,
        Self::Spark,
        Self::Queue,
        Self::Window,
        Self::Age,
        Self::Retry,
        Self::Comp,
        Self::Dead,
        Self::Failed,
        Self::P99,
    ];

    /// Its name, as in options, in the configuration and in the palette.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Pipeline => "pipeline",
            Self::State => "state",
            Self::In => "in",
            Self::Out => "out",
            Self::Spark => "history",
            Self::Queue => "queue",
            Self::Window => "window",
            Self::Age => "age",
            Self::Retry => "retry",
            Self::Comp => "comp",
            Self::Dead => "dl",
            Self::Failed => "err",
            Self::P99 => "p99",
        }
    }

    /// The column of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|column| column.name() == name);
        found.or_else(|| (name == "rate").then_some(Self::In))
    }

    /// Whether the highest comes first unless told otherwise: it does for numbers.
    pub const fn falls(self) -> bool {
        !matches!(self, Self::Tenant | Self::Pipeline)
    }

    /// What a branch is sorted by. For a state: the worst is the highest.
    pub fn rank(self, row: &Row) -> u64 {
        let branch = &row.branch;
        match self {
            Self::Tenant | Self::Pipeline => 0,
            Self::State => {
                use anabranch_protocol::row::State;
                match branch.state {
                    State::Failed => 8,
                    State::Full => 7,
                    State::Paused => 6,
                    State::Draining => 5,
                    State::Restarting => 4,
                    State::Run => 3,
                    State::Idle => 2,
                    State::Evicted | State::Removed => 1,
                    State::Unknown => 0,
                }
            }
            Self::In | Self::Spark => u64::from(row.rate_in),
            Self::Out => u64::from(row.rate_out),
            Self::Queue => branch.queued,
            Self::Window => branch.window.unwrap_or(0),
            Self::Age => branch.window_age_ms.unwrap_or(0),
            Self::Retry => branch.retried,
            Self::Comp => row.undone(),
            Self::Dead => branch.dead_lettered,
            Self::Failed => branch.failed,
            Self::P99 => branch.p99.unwrap_or(0),
        }
    }
}

/// The order of the table of branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Whether the highest comes first.
    pub falling: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self {
            column: Column::Queue,
            falling: true,
        }
    }
}

impl Sort {
    /// Reads an order: `queue`, `queue:desc`, `tenant:asc`.
    ///
    /// ```
    /// use anabranch_tui::app::columns::{Column, Sort};
    ///
    /// let sort = Sort::parse("tenant:desc").unwrap();
    /// assert_eq!((sort.column, sort.falling), (Column::Tenant, true));
    /// assert_eq!(Sort::parse("mood"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (name, order) = text.split_once(':').unwrap_or((text, ""));
        let column = Column::from_name(name)?;
        let falling = match order {
            "" => column.falls(),
            "desc" => true,
            "asc" => false,
            _ => return None,
        };
        Some(Self { column, falling })
    }
}
