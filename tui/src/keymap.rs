//! Which key does what. Every action can be given other keys in the configuration.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

macro_rules! actions {
    ($( $(#[doc = $doc:literal])+ $action:ident = $name:literal, [$($key:literal),*], $group:ident, $help:literal; )+) => {
        /// What a key can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action { $( $(#[doc = $doc])+ $action, )+ }

        impl Action {
            /// All, in the order of the help.
            pub const ALL: &[Self] = &[$(Self::$action),+];

            /// Its name, as in the configuration and the palette.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$action => $name, )+ }
            }

            /// What it does, in a few words.
            pub const fn help(self) -> &'static str {
                match self { $( Self::$action => $help, )+ }
            }

            /// Where it is listed in the help.
            pub const fn group(self) -> Group {
                match self { $( Self::$action => Group::$group, )+ }
            }

            const fn keys(self) -> &'static [&'static str] {
                match self { $( Self::$action => &[$($key),*], )+ }
            }
        }
    };
}

/// Kinds of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Where one is.
    Screens,
    /// Where the cursor is.
    Move,
    /// What is shown, and how.
    Look,
    /// What is done to the pipelines.
    Act,
    /// Everything else.
    Session,
}

impl Group {
    /// All, in the order of the help.
    pub const ALL: [Self; 5] = [
        Self::Screens,
        Self::Move,
        Self::Look,
        Self::Act,
        Self::Session,
    ];

    /// Its name.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Screens => "Screens",
            Self::Move => "Moving",
            Self::Look => "Looking",
            Self::Act => "Acting (each asks first)",
            Self::Session => "Session",
        }
    }
}

actions! {
    /// Shows the pipelines of all processes.
    Pipes = "pipes", ["1"], Screens, "pipelines of all processes";
    /// Shows the branches.
    Branches = "branches", ["2"], Screens, "branches";
    /// Shows the open windows.
    Windows = "windows", ["3"], Screens, "open windows";
    /// Shows the undo actions.
    Comps = "compensations", ["4"], Screens, "compensations";
    /// Shows the outboxes.
    Outbox = "outbox", ["5"], Screens, "outbox stores and dead letters";
    /// Shows the errors.
    Errors = "errors", ["6"], Screens, "errors by code";
    /// Shows the log.
    Log = "log", ["7"], Screens, "log";
    /// Goes to the next screen.
    NextScreen = "next-screen", ["tab"], Screens, "next screen";
    /// Goes to the screen before.
    LastScreen = "previous-screen", ["backtab"], Screens, "previous screen";
    /// Explains the keys.
    Help = "help", ["?"], Screens, "this help";
    /// Moves down.
    Down = "down", ["j", "down"], Move, "down";
    /// Moves up.
    Up = "up", ["k", "up"], Move, "up";
    /// Moves to the first.
    First = "first", ["g", "home"], Move, "first";
    /// Moves to the last.
    Last = "last", ["G", "end"], Move, "last";
    /// Moves down half a page.
    HalfDown = "half-page-down", ["ctrl-d"], Move, "half a page down";
    /// Moves up half a page.
    HalfUp = "half-page-up", ["ctrl-u"], Move, "half a page up";
    /// Moves down a page.
    PageDown = "page-down", ["pagedown", "ctrl-f"], Move, "a page down";
    /// Moves up a page.
    PageUp = "page-up", ["pageup", "ctrl-b"], Move, "a page up";
    /// Goes to the column at the left.
    ColumnLeft = "column-left", ["h", "left"], Move, "column at the left";
    /// Goes to the column at the right.
    ColumnRight = "column-right", ["l", "right"], Move, "column at the right";
    /// Goes into what the cursor is on.
    Enter = "enter", ["enter"], Move, "open, fold, or reconnect what is lost";
    /// Goes out again.
    Back = "back", ["esc"], Move, "back";
    /// Asks for a filter, or for words to search.
    Filter = "filter", ["/"], Look, "filter branches; search in the log and the help";
    /// Goes to the next that was found.
    NextMatch = "next-match", ["n"], Look, "next match";
    /// Goes to the one found before.
    LastMatch = "previous-match", ["N"], Look, "previous match";
    /// Sorts by the column.
    Sort = "sort", ["s"], Look, "sort by the column";
    /// Turns the order around.
    Reverse = "reverse", ["S"], Look, "reverse the order";
    /// Stops the screen, not the pipelines.
    Freeze = "freeze", ["space"], Look, "freeze the screen (the pipelines go on)";
    /// Asks for faster ticks.
    Faster = "faster", ["+", "="], Look, "faster ticks";
    /// Asks for slower ticks.
    Slower = "slower", ["-"], Look, "slower ticks";
    /// Changes the time a history shows.
    Span = "time-span", ["t"], Look, "history of 30s, 60s, 5m";
    /// Changes the level of the log.
    Level = "level", ["v"], Look, "lowest level of the log";
    /// Follows the log.
    Follow = "follow", ["f"], Look, "follow the log";
    /// Changes the colours.
    Theme = "theme", ["c"], Look, "next theme";
    /// Marks the row.
    Mark = "mark", ["x"], Act, "mark";
    /// Takes all marks away.
    Unmark = "clear-marks", ["X"], Act, "clear all marks";
    /// Shows what can be done.
    Menu = "actions", ["a"], Act, "menu of actions";
    /// Pauses branches.
    Pause = "pause", ["P"], Act, "pause branches";
    /// Lets them go on.
    Resume = "resume", ["U"], Act, "unpause branches";
    /// Drains branches.
    Drain = "drain", ["D"], Act, "drain branches, or a pipeline";
    /// Tries stuck undo actions again.
    Retry = "retry", ["R"], Act, "retry stuck compensations";
    /// Gives stuck undo actions up.
    Skip = "skip", ["K"], Act, "skip stuck compensations";
    /// Cancels branches.
    Cancel = "cancel", ["C"], Act, "cancel branches, or a pipeline";
    /// Limits how fast branches are.
    Throttle = "throttle", ["T"], Act, "throttle branches";
    /// Puts dead letters back.
    Requeue = "requeue", ["Q"], Act, "requeue dead letters";
    /// Opens branches again that are over.
    Restart = "restart", [], Act, "restart branches";
    /// Throws dead letters away.
    Discard = "discard", [], Act, "discard dead letters";
    /// Asks for a command.
    Palette = "palette", [":"], Session, "command, with completion";
    /// Copies the row.
    Copy = "copy", ["y"], Session, "copy the row to the clipboard";
    /// Writes down what is shown.
    Save = "save", ["w"], Session, "save a snapshot: json and text";
    /// Turns the mouse on or off.
    Mouse = "mouse", ["m"], Session, "mouse on or off";
    /// Reconnects at once.
    Reconnect = "reconnect", ["r"], Session, "reconnect now";
    /// Redraws everything.
    Redraw = "redraw", ["ctrl-l"], Session, "redraw";
    /// Stops the dashboard, as a shell does.
    Suspend = "suspend", ["ctrl-z"], Session, "suspend the dashboard";
    /// Ends the dashboard.
    Quit = "quit", ["q", "ctrl-c"], Session, "quit";
}

impl Action {
    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.name() == name)
    }
}

/// A key as it is written: `j`, `G`, `ctrl-d`, `pagedown`, `space`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    control: bool,
}

impl Key {
    /// Reads a key; `None` if there is none of that name.
    pub fn parse(text: &str) -> Option<Self> {
        let (control, name) = match text.strip_prefix("ctrl-") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let mut characters = name.chars();
        let code = match name {
            "space" => KeyCode::Char(' '),
            "tab" => KeyCode::Tab,
            "backtab" => KeyCode::BackTab,
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "left" => KeyCode::Left,
            "right" => KeyCode::Right,
            "home" => KeyCode::Home,
            "end" => KeyCode::End,
            "pageup" => KeyCode::PageUp,
            "pagedown" => KeyCode::PageDown,
            _ => {
                if let (Some(character), None) = (characters.next(), characters.next()) {
                    KeyCode::Char(character)
                } else {
                    let number = name.strip_prefix('f')?.parse().ok()?;
                    (1..=12).contains(&number).then_some(KeyCode::F(number))?
                }
            }
        };
        Some(Self { code, control })
    }

    /// The key of an event.
    pub fn of(event: &KeyEvent) -> Self {
        Self {
            code: event.code,
            control: event.modifiers.contains(KeyModifiers::CONTROL),
        }
    }

    /// As it is written.
    pub fn name(self) -> String {
        let name = match self.code {
            KeyCode::Char(' ') => "space".to_owned(),
            KeyCode::Char(character) => character.to_string(),
            KeyCode::F(number) => format!("f{number}"),
            other => format!("{other:?}").to_lowercase(),
        };
        if self.control {
            format!("ctrl-{name}")
        } else {
            name
        }
    }
}

/// Which key does what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keymap {
    keys: Vec<(Key, Action)>,
}

impl Default for Keymap {
    fn default() -> Self {
        let all = Action::ALL.iter().flat_map(|action| {
            let keys = action.keys().iter().filter_map(|key| Key::parse(key));
            keys.map(|key| (key, *action))
        });
        Self {
            keys: all.collect(),
        }
    }
}

impl Keymap {
    /// What a key does.
    pub fn action(&self, event: &KeyEvent) -> Option<Action> {
        let key = Key::of(event);
        let found = self.keys.iter().find(|(it, _)| *it == key);
        found.map(|(_, action)| *action)
    }

    /// The keys of an action, the first of which is shown.
    pub fn keys(&self, action: Action) -> impl Iterator<Item = Key> + '_ {
        let keys = self.keys.iter().filter(move |(_, it)| *it == action);
        keys.map(|(key, _)| *key)
    }

    /// The first key of an action as it is written; nothing, if it has none.
    pub fn first(&self, action: Action) -> String {
        self.keys(action).next().map_or_else(String::new, Key::name)
    }

    /// Gives an action these keys and no others; other actions lose them.
    pub fn bind(&mut self, action: Action, keys: &[Key]) {
        self.keys
            .retain(|(key, it)| *it != action && !keys.contains(key));
        self.keys.extend(keys.iter().map(|key| (*key, action)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_default_key_is_one_and_does_one_thing() {
        let written: Vec<_> = Action::ALL.iter().flat_map(|it| it.keys()).collect();
        let keys: HashSet<_> = written.iter().map(|it| Key::parse(it).unwrap()).collect();
        assert_eq!(keys.len(), written.len());
        for key in keys {
            assert_eq!(Key::parse(&key.name()), Some(key), "{}", key.name());
        }
    }

    #[test]
    fn what_cannot_be_taken_back_has_a_capital_and_no_control_key() {
        let harmless = ["d", "delete", "backspace"];
        let map = Keymap::default();
        for action in Action::ALL.iter().filter(|it| it.group() == Group::Act) {
            for key in map.keys(*action) {
                assert!(!key.control, "{}", action.name());
                assert!(!harmless.contains(&key.name().as_str()));
                let looks = matches!(action, Action::Mark | Action::Menu);
                let capital = key.name().chars().all(char::is_uppercase);
                assert!(looks || capital, "{}", action.name());
            }
        }
        assert_eq!(map.first(Action::Discard), "", "from the menu alone");
    }

    #[test]
    fn a_key_that_is_given_to_another_action_is_taken_from_the_first() {
        let mut map = Keymap::default();
        map.bind(Action::Quit, &[Key::parse("j").unwrap()]);
        let event = |code, modifiers| KeyEvent::new(code, modifiers);
        let j = event(KeyCode::Char('j'), KeyModifiers::NONE);
        assert_eq!(map.action(&j), Some(Action::Quit));
        let q = event(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(map.action(&q), None);
        let down = event(KeyCode::Down, KeyModifiers::NONE);
        assert_eq!(map.action(&down), Some(Action::Down));
    }
}
