//! How the command ends.

use std::process::ExitCode;

/// What the shell is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// The arguments make no sense.
    Usage = 2,
    /// There is nothing to attach to.
    Nothing = 3,
    /// The process was lost, or did not answer in time.
    Lost = 4,
    /// The process let us not in.
    Refused = 5,
    /// What was asked for did not work.
    Failed = 6,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
