//! What a user has chosen once and for all: `~/.config/anabranch/top.toml`.
//!
//! A mistake in it never keeps the dashboard from starting: what is not understood is left out,
//! and told.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::app::columns::Column;
use crate::filter::Filter;
use crate::keymap::{Action, Key, Keymap};
use crate::theme::Theme;

/// What a user has chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The colours; without it, what fits the terminal.
    pub theme: Option<Theme>,
    /// Which branches are shown at first.
    pub filter: Filter,
    /// The columns of the table of branches, in their order; without it, all that fit.
    pub columns: Option<Vec<Column>>,
    /// From where on something is worth a look.
    pub thresholds: Thresholds,
    /// Which key does what.
    pub keymap: Keymap,
}

/// From where on something is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// How full a queue is, in percent.
    pub queue: u64,
    /// How long an undo action has been pending, in seconds.
    pub compensation: u64,
    /// How long a message has waited in an outbox, in seconds.
    pub lag: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            queue: 90,
            compensation: 30,
            lag: 60,
        }
    }
}

/// Where the file is: in `$XDG_CONFIG_HOME`, or in `~/.config`.
pub fn path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|it: &OsString| !it.is_empty());
    let folder = match set("XDG_CONFIG_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(folder.join("anabranch").join("top.toml"))
}

impl Config {
    /// Reads the file at its place, if there is one. What is wrong comes back as sentences.
    pub fn load(variable: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<String>) {
        let Some(path) = path(variable) else {
            return (Self::default(), Vec::new());
        };
        let (config, warnings) = match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (Self::default(), Vec::new())
            }
            Err(error) => (Self::default(), vec![error.to_string()]),
        };
        let place = path.display();
        let told = warnings.into_iter().map(|it| format!("{place}: {it}"));
        (config, told.collect())
    }

    /// Reads a file's text. What is wrong in it comes back as sentences, and has no effect.
    ///
    /// ```
    /// use anabranch_tui::config::Config;
    ///
    /// let (config, warnings) = Config::parse("theme = 'cb'\n[keymap]\nquit = ['q', 'Z']\nsing = 'l'");
    /// assert_eq!(config.theme.unwrap().name(), "cb");
    /// assert_eq!(warnings, ["keymap.sing: there is no such action; `?` lists them"]);
    /// ```
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut config = Self::default();
        let mut warnings = Vec::new();
        match text.parse::<Table>() {
            Ok(table) => {
                for (key, value) in &table {
                    config.set(key, value, &mut warnings);
                }
            }
            Err(error) => warnings.push(error.message().to_owned()),
        }
        (config, warnings)
    }

    fn set(&mut self, key: &str, value: &Value, warnings: &mut Vec<String>) {
        match (key, value) {
            ("theme", Value::String(name)) => match Theme::from_name(name) {
                Some(theme) => self.theme = Some(theme),
                None => warnings.push(format!(
                    "theme: {name:?} is none; use ansi, cb, mono, light or dark"
                )),
            },
            ("filter", Value::String(source)) => match Filter::parse(source) {
                Ok(filter) => self.filter = filter,
                Err(error) => warnings.push(format!("filter: {error}")),
            },
            ("columns", Value::Array(names)) => {
                let mut columns = Vec::new();
                for name in names {
                    let name = name.as_str().unwrap_or_default();
                    match Column::from_name(name) {
                        Some(column) => columns.push(column),
                        None => warnings.push(format!("columns: there is no column {name:?}")),
                    }
                }
                self.columns = Some(columns).filter(|it| !it.is_empty());
            }
            ("thresholds", Value::Table(table)) => self.thresholds.set(table, warnings),
            ("keymap", Value::Table(table)) => {
                for (action, keys) in table {
                    self.bind(action, keys, warnings);
                }
            }
            ("theme" | "filter" | "columns" | "thresholds" | "keymap", _) => {
                warnings.push(format!("{key}: a {} does not fit", value.type_str()));
            }
            _ => warnings.push(format!("{key}: unknown, and left out")),
        }
    }

    fn bind(&mut self, name: &str, keys: &Value, warnings: &mut Vec<String>) {
        let Some(action) = Action::from_name(name) else {
            warnings.push(format!(
                "keymap.{name}: there is no such action; `?` lists them"
            ));
            return;
        };
        let written = match keys {
            Value::Array(keys) => keys.iter().collect(),
            key => vec![key],
        };
        let mut read = Vec::new();
        for key in written {
            if let Some(key) = key.as_str().and_then(Key::parse) {
                read.push(key);
            } else {
                let shown = key.as_str().unwrap_or(key.type_str());
                warnings.push(format!("keymap.{name}: {shown:?} is no key"));
            }
        }
        self.keymap.bind(action, &read);
    }
}

/// The file that says what holds without one. What depends on the terminal stands in comments.
pub fn default_text() -> String {
    let names = |names: &mut dyn Iterator<Item = &'static str>| {
        let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
        names.join(", ")
    };
    let themes = names(&mut Theme::ALL.into_iter().map(Theme::name));
    let columns = names(&mut Column::ALL.into_iter().map(Column::name));
    let Thresholds {
        queue,
        compensation,
        lag,
    } = Thresholds::default();
    let mut text = format!(
        "# The dashboard of anabranch: ~/.config/anabranch/top.toml\n\
         # theme = \"ansi\"  # {themes}\n\
         # columns = [{columns}]\n\
         filter = \"\"  # such as \"st:!ok\"\n\n\
         [thresholds]\n\
         queue = {queue}  # percent\n\
         compensation = {compensation}  # seconds\n\
         lag = {lag}  # seconds\n\n\
         [keymap]\n"
    );
    let keymap = Keymap::default();
    for action in Action::ALL {
        let keys: Vec<_> = keymap
            .keys(*action)
            .map(|it| format!("{:?}", it.name()))
            .collect();
        let (name, help) = (action.name(), action.help());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} = [{}]  # {help}", keys.join(", "));
    }
    text
}

impl Thresholds {
    fn set(&mut self, table: &Table, warnings: &mut Vec<String>) {
        for (key, value) in table {
            let place = match key.as_str() {
                "queue" => &mut self.queue,
                "compensation" => &mut self.compensation,
                "lag" => &mut self.lag,
                _ => {
                    warnings.push(format!("thresholds.{key}: unknown, and left out"));
                    continue;
                }
            };
            match value.as_integer().and_then(|it| u64::try_from(it).ok()) {
                Some(number) => *place = number,
                None => warnings.push(format!("thresholds.{key}: not a number from 0 on")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_understood_is_told_and_left_out() {
        let text = "theme = 'pink'\nfilter = 'mood:good'\ncolumns = ['tenant', 'mood']\nsize = 3\n\
                    [thresholds]\nqueue = -1\nlag = 5\nx = 1\n[keymap]\nquit = ['Z', 'nokey']\n";
        let (config, warnings) = Config::parse(text);
        assert_eq!(warnings.len(), 7, "{warnings:#?}");
        assert_eq!(config.thresholds.lag, 5);
        assert_eq!(config.thresholds.queue, 90);
        assert_eq!(config.columns, Some(vec![Column::Tenant]));
        assert_eq!(config.keymap.first(Action::Quit), "Z");
        assert_eq!(Config::parse("theme = ").1.len(), 1, "no TOML at all");
        assert_eq!(Config::parse(""), (Config::default(), vec![]));
    }

    #[test]
    fn the_default_written_out_is_the_default() {
        let text = default_text();
        let (config, warnings) = Config::parse(&text);
        assert_eq!(warnings, Vec::<String>::new());
        let plain = Config::default();
        assert_eq!(
            (
                &config.filter,
                config.thresholds,
                config.theme,
                &config.columns
            ),
            (&plain.filter, plain.thresholds, None, &None)
        );
        let keys = |map: &Keymap, action| map.keys(action).collect::<Vec<_>>();
        for action in Action::ALL {
            let (written, own) = (keys(&config.keymap, *action), keys(&plain.keymap, *action));
            assert_eq!(written, own, "{}", action.name());
        }
        // What stands in comments is right, too.
        let bare = text
            .replace("# theme", "theme")
            .replace("# columns", "columns");
        let (config, warnings) = Config::parse(&bare);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.theme, Some(Theme::Ansi));
        assert_eq!(config.columns.map(|it| it.len()), Some(Column::ALL.len()));
    }

    #[test]
    fn it_lies_where_the_user_keeps_such_files() {
        let with = |set: &[(&str, &str)]| {
            path(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/ann");
        let own = "/home/ann/.config/anabranch/top.toml";
        assert_eq!(with(&[home]), Some(own.into()));
        let xdg = with(&[home, ("XDG_CONFIG_HOME", "/etc/ann")]);
        assert_eq!(xdg, Some("/etc/ann/anabranch/top.toml".into()));
        assert_eq!(with(&[home, ("XDG_CONFIG_HOME", "here")]), Some(own.into()));
        assert_eq!(with(&[]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            Config::parse(&text);
        }
    }
}
