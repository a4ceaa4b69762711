//! Colours by role. What a colour says, a sign or a word beside it says too.

use anabranch_protocol::row::State;
use ratatui::style::{Color, Modifier, Style};

/// What a text is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What is read.
    Text,
    /// What may be passed over.
    Dim,
    /// The name of a column or a pane.
    Title,
    /// The tab of the screen that is shown.
    Active,
    /// A key that can be pressed.
    Key,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Something failed.
    Bad,
    /// In between: paused, draining, chosen by an operator.
    Held,
    /// Bars and lines of data.
    Data,
    /// Frames.
    Line,
    /// Data that are old.
    Stale,
    /// What must not be overlooked: `FROZEN`, `LOST`.
    Badge,
    /// The row the keys act on.
    Cursor,
    /// A marked row.
    Marked,
}

/// One set of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// The 16 colours of the terminal, as its user has chosen them.
    Ansi,
    /// Blue, orange and bright instead of green, yellow and red.
    ColourBlind,
    /// None: bold, dim and reverse alone.
    Mono,
    /// For a light background, whatever the terminal's palette is.
    Light,
    /// For a dark background, whatever the terminal's palette is.
    Dark,
}

impl Theme {
    /// All, in the order in which a key goes through them.
    pub const ALL: [Self; 5] = [
        Self::Ansi,
        Self::ColourBlind,
        Self::Mono,
        Self::Light,
        Self::Dark,
    ];

    /// Its name, as in options and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ansi => "ansi",
            Self::ColourBlind => "cb",
            Self::Mono => "mono",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The theme of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }

    /// The one that is shown unless told otherwise: none of the colours if `NO_COLOR` is set to
    /// anything, or if the terminal has none.
    pub fn default_for(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let set = |name| variable(name).is_some_and(|value| !value.is_empty());
        if set("NO_COLOR") || variable("TERM").is_some_and(|term| term == "dumb") {
            Self::Mono
        } else {
            Self::Ansi
        }
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|theme| *theme == self);
        Self::ALL[(at.unwrap_or(0) + 1) % Self::ALL.len()]
    }

    /// How a role looks.
    pub fn style(self, role: Role) -> Style {
        let plain = Style::new();
        match role {
            // The cursor is reverse in each theme, so that it is seen without colours.
            Role::Cursor => return plain.add_modifier(Modifier::REVERSED),
            Role::Badge => {
                return self
                    .colour(Role::Badge)
                    .map_or(plain, |colour| plain.fg(colour))
                    .add_modifier(Modifier::REVERSED | Modifier::BOLD);
            }
            _ => {}
        }
        let modifier = match role {
            Role::Title | Role::Key | Role::Bad | Role::Marked => Modifier::BOLD,
            Role::Active => Modifier::BOLD.union(Modifier::UNDERLINED),
            Role::Dim | Role::Stale | Role::Line if self.colour(role).is_none() => Modifier::DIM,
            _ => Modifier::empty(),
        };
        self.colour(role)
            .map_or(plain, |colour| plain.fg(colour))
            .add_modifier(modifier)
    }

    /// How a branch's state looks.
    pub fn state(self, state: State) -> Style {
        self.style(match state {
            State::Run => Role::Good,
            State::Full => Role::Warn,
            State::Paused | State::Draining | State::Restarting => Role::Held,
            State::Failed => Role::Bad,
            State::Idle | State::Evicted | State::Removed | State::Unknown => Role::Dim,
        })
    }

    const fn colour(self, role: Role) -> Option<Color> {
        let [good, warn, bad, held, data, dim] = match self {
            Self::Mono => return None,
            Self::Ansi => [
                Color::Green,
                Color::Yellow,
                Color::Red,
                Color::Cyan,
                Color::Blue,
                Color::DarkGray,
            ],
            Self::ColourBlind => [
                Color::LightBlue,
                Color::Yellow,
                Color::LightMagenta,
                Color::Cyan,
                Color::Blue,
                Color::DarkGray,
            ],
            Self::Light => [
                Color::Indexed(28),
                Color::Indexed(130),
                Color::Indexed(160),
                Color::Indexed(30),
                Color::Indexed(25),
                Color::Indexed(244),
            ],
            Self::Dark => [
                Color::Indexed(114),
                Color::Indexed(221),
                Color::Indexed(203),
                Color::Indexed(80),
                Color::Indexed(75),
                Color::Indexed(245),
            ],
        };
        match role {
            Role::Good => Some(good),
            Role::Warn | Role::Badge | Role::Marked => Some(warn),
            Role::Bad => Some(bad),
            Role::Held | Role::Key | Role::Active => Some(held),
            Role::Data => Some(data),
            Role::Dim | Role::Stale | Role::Line => Some(dim),
            Role::Text | Role::Title | Role::Cursor => None,
        }
    }
}
