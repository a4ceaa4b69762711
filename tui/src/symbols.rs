//! What is drawn: in UTF-8, or in ASCII alone.
//!
//! All of them are one cell wide in every terminal; none is an emoji, none is ambiguous in width
//! beyond what box drawing is.

use anabranch_protocol::message::ActionState;
use anabranch_protocol::row::State;

/// One set of symbols.
#[derive(Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Whether it is ASCII alone.
    pub ascii: bool,
    /// The row the keys act on.
    pub cursor: &'static str,
    /// A marked row.
    pub mark: &'static str,
    /// Data arrive.
    pub live: &'static str,
    /// The end of a text that was cut.
    pub cut: char,
    /// Levels of a sparkline, the lowest first.
    pub levels: [char; 8],
    /// A gauge: its begin, a full cell, an empty cell, its end.
    pub gauge: [&'static str; 4],
    /// A horizontal and a vertical line, and a corner or crossing.
    pub lines: [&'static str; 2],
    /// Corners: top left, top right, bottom left, bottom right.
    pub corners: [&'static str; 4],
    /// Crossings of a vertical line with a horizontal one: at the left, at the right.
    pub tees: [&'static str; 2],
    /// A branch of a tree, and its last.
    pub tree: [&'static str; 2],
    /// A node that is open, and one that is folded.
    pub fold: [&'static str; 2],
    /// The order of a column: falling, rising.
    pub order: [&'static str; 2],
    /// From one to the other.
    pub arrow: &'static str,
    /// A selected item of a menu.
    pub chosen: &'static str,
}

/// For terminals that can show UTF-8.
pub static UTF8: Symbols = Symbols {
    ascii: false,
    cursor: "▸",
    mark: "x",
    live: "●",
    cut: '…',
    levels: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    gauge: ["", "█", "░", ""],
    lines: ["─", "│"],
    corners: ["┌", "┐", "└", "┘"],
    tees: ["├", "┤"],
    tree: ["├─", "└─"],
    fold: ["▾", "▸"],
    order: ["↓", "↑"],
    arrow: "→",
    chosen: "▸",
};

/// For all others.
pub static ASCII: Symbols = Symbols {
    ascii: true,
    cursor: ">",
    mark: "x",
    live: "*",
    cut: '~',
    levels: ['.', ':', '-', '=', '+', '*', '#', '#'],
    gauge: ["[", "#", "-", "]"],
    lines: ["-", "|"],
    corners: ["+", "+", "+", "+"],
    tees: ["+", "+"],
    tree: ["+-", "+-"],
    fold: ["v", ">"],
    order: ["v", "^"],
    arrow: "->",
    chosen: ">",
};

impl Symbols {
    /// The sign of a branch's state; the word beside it says the same.
    pub const fn state(&self, state: State) -> &'static str {
        if self.ascii {
            match state {
                State::Run => ">>",
                State::Idle => "..",
                State::Full => "!!",
                State::Paused => "||",
                State::Draining => "~~",
                State::Restarting => "@@",
                State::Failed => "XX",
                State::Evicted | State::Removed => "--",
                State::Unknown => "??",
            }
        } else {
            match state {
                State::Run => "▶ ",
                State::Idle => "· ",
                State::Full => "▲ ",
                State::Paused => "‖ ",
                State::Draining => "▼ ",
                State::Restarting => "↻ ",
                State::Failed => "✗ ",
                State::Evicted | State::Removed => "− ",
                State::Unknown => "? ",
            }
        }
    }

    /// The sign of an undo action.
    pub const fn action(&self, state: ActionState) -> &'static str {
        match (state, self.ascii) {
            (ActionState::Pending, _) => ".",
            (ActionState::Running, true) => ">",
            (ActionState::Running, false) => "▶",
            (ActionState::Done, true) => "+",
            (ActionState::Done, false) => "✓",
            (ActionState::Failed, true) => "X",
            (ActionState::Failed, false) => "✗",
            (ActionState::Unrun, _) => "!",
            (ActionState::Skipped, true) => "-",
            (ActionState::Skipped, false) => "−",
            (ActionState::Unknown, _) => "?",
        }
    }
}

/// A branch's state as a word of four letters at most.
pub const fn state_word(state: State) -> &'static str {
    match state {
        State::Run => "run",
        State::Idle => "idle",
        State::Full => "full",
        State::Paused => "paus",
        State::Draining => "drn",
        State::Restarting => "rest",
        State::Failed => "fail",
        State::Evicted => "evic",
        State::Removed => "gone",
        State::Unknown => "?",
    }
}

/// Whether the locale is one without UTF-8, so that only ASCII is safe. Where none was chosen, as in
/// many containers, the terminal around them knows UTF-8 all the same.
pub fn only_ascii(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let chosen = |name: &str| {
        let value = variable(name)?.to_string_lossy().to_lowercase();
        // What Python puts there for itself where the locale is C: nobody has chosen it.
        let coerced = name == "LC_CTYPE" && matches!(&*value, "c.utf-8" | "c.utf8" | "utf-8");
        (!value.is_empty() && !coerced).then_some(value)
    };
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(chosen);
    locale.is_some_and(|it| !it.contains("utf-8") && !it.contains("utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_for_locales_without_utf_8() {
        let with = |set: &[(&str, &str)]| {
            only_ascii(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).into())
            })
        };
        assert!(!with(&[]));
        assert!(!with(&[("LANG", "de_CH.UTF-8")]));
        assert!(!with(&[("LANG", "C.utf8")]));
        assert!(with(&[("LANG", "C")]));
        assert!(
            with(&[("LANG", "C"), ("LC_CTYPE", "C.UTF-8")]),
            "Python's own"
        );
        assert!(!with(&[("LANG", "C"), ("LC_CTYPE", "en_US.UTF-8")]));
        assert!(with(&[("LC_ALL", "POSIX"), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[("LC_ALL", ""), ("LANG", "en_US.UTF-8")]));
    }
}
