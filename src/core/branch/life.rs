//! The life of a branch: its states, what may be asked of it in each, and its generations.
//!
//! ```text
//!                    +--- pause ---> paused --- resume ---+
//!                    |                                    |
//!  first item, add --+--> open <--------------------------+
//!                         |  ^ ^ ^
//!                         |  | | +-- next item, add, restart --- evicted, removed
//!                         |  | +--------------- restart -------- failed
//!                         |  +---- back-off is over ------------ restarting
//!                         |
//!                         +-- drain, remove, restart --> draining --at rest--> evicted
//!                         |                                         removed, open again
//!                         +-- idle for idle_ttl -----------------------------> evicted
//!                         +-- on_branch_error="restart" --> restarting
//!                         +-- fail, on_branch_error="fail" --> failed
//! ```
//!
//! `restart` leads from `failed` to `draining` while something that was begun is still under way.
//! `fail` leads to `failed` from wherever something may be inside; `remove` leads from `failed` and
//! `evicted` to `removed`, too.
//!
//! A **generation** lasts from one opening to the next end: what was registered for the branch
//! ends with it, well if it was drained or idle, badly if it has failed. It is over, and the next
//! one may begin, when the finalizers and undo actions of that have run. What comes for a branch
//! that is draining waits for the next generation, which therefore overtakes nothing; what comes
//! for one that is removed or has failed is refused at once, and never queues.
//!
//! Not responsible for the items: the engine moves them (`engine/life.rs`).

use std::time::Duration;

use crate::clock::Time;
use crate::engine::{Domain, Item, Unit};

/// What a branch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Items come in, and units go out.
    Open,
    /// Items come in, and wait.
    Paused,
    /// What is inside is finished; what comes waits for the next generation.
    Draining,
    /// What units have begun is finished, then it waits for its back-off; items come in, and wait.
    Restarting,
    /// What comes is refused, until it is restarted.
    Failed,
    /// Nothing is inside, and little is kept; it opens again for its next item.
    Evicted,
    /// What comes is refused, until it is added again.
    Removed,
}

impl State {
    /// The word users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Evicted => "evicted",
            Self::Removed => "removed",
        }
    }

    /// Whether units that have not been begun wait.
    pub const fn holds(self) -> bool {
        matches!(self, Self::Paused | Self::Restarting)
    }

    /// Whether items are let in.
    pub const fn admits(self) -> bool {
        matches!(self, Self::Open | Self::Paused | Self::Restarting)
    }

    /// Whether it is at its end, until someone or something opens it again.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Evicted | Self::Removed)
    }
}

/// What may be asked of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Hand nothing out until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Finish what is inside and close, until the next item comes.
    Drain,
    /// Finish what is inside and close for good.
    Remove,
    /// Finish what is inside, or has failed, and open again.
    Restart,
    /// Give up what no handler has begun, and refuse what comes.
    Fail,
    /// Open what is closed.
    Add,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 7] = [
        Self::Pause,
        Self::Resume,
        Self::Drain,
        Self::Remove,
        Self::Restart,
        Self::Fail,
        Self::Add,
    ];

    /// The word users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drain => "drain",
            Self::Remove => "remove",
            Self::Restart => "restart",
            Self::Fail => "fail",
            Self::Add => "add",
        }
    }

    /// The command called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }
}

/// What a command does to a branch that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is in this state now.
    To(State),
    /// It drains, and this is what follows.
    Drain(State),
    /// It is to be opened, which the driver does.
    Open,
}

/// A command does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit {
    /// What was asked.
    pub command: Command,
    /// What the branch is.
    pub state: State,
}

impl State {
    /// What a command does to a branch in this state; `after` is what follows if it is draining.
    ///
    /// # Errors
    /// [`Misfit`] if there is nothing that the command could do.
    pub fn obey(self, command: Command, after: Self) -> Result<Change, Misfit> {
        let misfit = Misfit {
            command,
            state: self,
        };
        Ok(match (self, command) {
            (Self::Open, Command::Pause) => Change::To(Self::Paused),
            (Self::Paused, Command::Resume) => Change::To(Self::Open),
            (Self::Open | Self::Paused, Command::Drain) => Change::Drain(Self::Evicted),
            (Self::Open | Self::Paused, Command::Remove) => Change::Drain(Self::Removed),
            (Self::Open | Self::Paused, Command::Restart) => Change::Drain(Self::Open),
            // The last word counts.
            (Self::Draining, Command::Remove) if after != Self::Removed => {
                Change::Drain(Self::Removed)
            }
            (Self::Draining, Command::Restart | Command::Add) if after == Self::Removed => {
                Change::Drain(Self::Open)
            }
            (Self::Failed | Self::Evicted, Command::Remove) => Change::To(Self::Removed),
            (Self::Failed | Self::Evicted | Self::Removed | Self::Restarting, Command::Restart)
            | (Self::Evicted | Self::Removed, Command::Add) => Change::Open,
            (Self::Open | Self::Paused | Self::Draining | Self::Restarting, Command::Fail) => {
                Change::To(Self::Failed)
            }
            _ => return Err(misfit),
        })
    }
}

/// How a generation is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is not.
    None,
    /// What was registered for the branch is released.
    Well,
    /// It is undone.
    Badly,
    /// It has ended in a back-off, and was undone; only its lanes are not empty yet.
    Quietly,
}

/// Where a branch is in its life.
#[derive(Debug)]
pub(crate) struct Life<D: Domain> {
    pub(crate) state: State,
    /// What follows the draining.
    pub(crate) after: State,
    /// How often it has been opened.
    pub(crate) generation: u32,
    /// The back-off before the last restart.
    pub(crate) waited: Duration,
    /// When something last ended, or the branch was opened.
    pub(crate) touched: Time,
    /// How long it has held up what feeds it.
    pub(crate) blocked: Duration,
    /// The end of its generation, still to be carried out once it is at rest.
    pub(crate) ending: Ending,
    /// How many rollbacks of what was registered for the branch are under way.
    pub(crate) undoing: u32,
    /// How often what was registered for the branch has ended in this generation: what was
    /// registered for it meanwhile ends with it once more.
    pub(crate) rounds: u8,
    /// Whether somebody will look whether it is idle.
    pub(crate) watched: bool,
    /// Whether what comes to it is refused, as the driver has heard or is about to.
    pub(crate) refuses: bool,
    /// What few branches have.
    pub(crate) rare: Option<Box<Rare<D>>>,
}

/// What waits outside of the lanes.
#[derive(Debug)]
pub(crate) struct Rare<D: Domain> {
    /// Items for the next generation, with the leg each came to.
    pub(crate) next: Vec<(usize, Item<D>)>,
    /// Units whose back-off is over while the branch is paused.
    pub(crate) parked: Vec<Unit<D>>,
}

impl<D: Domain> Default for Rare<D> {
    fn default() -> Self {
        Self {
            next: Vec::new(),
            parked: Vec::new(),
        }
    }
}

impl<D: Domain> Life<D> {
    pub(crate) const fn new(now: Time) -> Self {
        Self {
            state: State::Open,
            after: State::Open,
            generation: 1,
            waited: Duration::ZERO,
            touched: now,
            blocked: Duration::ZERO,
            ending: Ending::None,
            undoing: 0,
            rounds: 0,
            watched: false,
            refuses: false,
            rare: None,
        }
    }

    pub(crate) fn rare(&mut self) -> &mut Rare<D> {
        self.rare.get_or_insert_default()
    }

    /// Whether what its handlers have not begun is given up: it has failed, though it may have been
    /// removed or told to open again since.
    pub(crate) fn gives_up(&self) -> bool {
        self.state == State::Failed
            || (self.ending == Ending::Badly && self.state != State::Restarting)
    }

    /// Items that wait for the next generation.
    pub(crate) fn next(&self) -> &[(usize, Item<D>)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.next)
    }

    pub(crate) fn take_next(&mut self) -> Vec<(usize, Item<D>)> {
        let rare = self.rare.as_mut();
        rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.next))
    }

    pub(crate) fn take_parked(&mut self) -> Vec<Unit<D>> {
        let rare = self.rare.as_mut();
        rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.parked))
    }
}

/// What the driver is to be told of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A generation has ended; `wanted`: the branch is to be opened again at once.
    Closed {
        /// Whether to open it again.
        wanted: bool,
    },
    /// It is to be opened: its back-off is over, or an item has come after all.
    Wanted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_a_command_that_does_not_fit_is_refused_and_any_other_one_leads_on() {
        use Command::{Add, Drain, Fail, Pause, Remove, Restart, Resume};
        let drains = |after| Some(Change::Drain(after));
        let to = |state| Some(Change::To(state));
        let open = Some(Change::Open);
        let table = [
            (
                State::Open,
                [
                    (Pause, to(State::Paused)),
                    (Resume, None),
                    (Drain, drains(State::Evicted)),
                    (Remove, drains(State::Removed)),
                    (Restart, drains(State::Open)),
                    (Fail, to(State::Failed)),
                    (Add, None),
                ],
            ),
            (
                State::Paused,
                [
                    (Pause, None),
                    (Resume, to(State::Open)),
                    (Drain, drains(State::Evicted)),
                    (Remove, drains(State::Removed)),
                    (Restart, drains(State::Open)),
                    (Fail, to(State::Failed)),
                    (Add, None),
                ],
            ),
            (
                State::Restarting,
                [
                    (Pause, None),
                    (Resume, None),
                    (Drain, None),
                    (Remove, None),
                    (Restart, open),
                    (Fail, to(State::Failed)),
                    (Add, None),
                ],
            ),
            (
                State::Failed,
                [
                    (Pause, None),
                    (Resume, None),
                    (Drain, None),
                    (Remove, to(State::Removed)),
                    (Restart, open),
                    (Fail, None),
                    (Add, None),
                ],
            ),
            (
                State::Evicted,
                [
                    (Pause, None),
                    (Resume, None),
                    (Drain, None),
                    (Remove, to(State::Removed)),
                    (Restart, open),
                    (Fail, None),
                    (Add, open),
                ],
            ),
            (
                State::Removed,
                [
                    (Pause, None),
                    (Resume, None),
                    (Drain, None),
                    (Remove, None),
                    (Restart, open),
                    (Fail, None),
                    (Add, open),
                ],
            ),
        ];
        for (state, row) in table {
            for (command, expected) in row {
                let found = state.obey(command, State::Open);
                assert_eq!(found.ok(), expected, "{command:?} in {state:?}");
            }
        }
        let draining = |command, after| State::Draining.obey(command, after).ok();
        assert_eq!(draining(Remove, State::Evicted), drains(State::Removed));
        assert_eq!(draining(Remove, State::Removed), None);
        assert_eq!(draining(Restart, State::Removed), drains(State::Open));
        assert_eq!(draining(Add, State::Removed), drains(State::Open));
        assert_eq!(draining(Add, State::Evicted), None);
        assert_eq!(draining(Fail, State::Evicted), to(State::Failed));
        assert_eq!(draining(Pause, State::Evicted), None);
        for command in [Pause, Resume, Drain, Remove, Restart, Fail, Add] {
            assert_eq!(Command::from_name(command.name()), Some(command));
        }
    }
}
