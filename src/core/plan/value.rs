//! Values by name, as the builder got them and as they are once checked.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error::quoted;

/// A value as the builder got it, before and after it was checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Not given, or `None`.
    None,
    /// A truth value; never taken for a number.
    Bool(bool),
    /// A whole number. Wider than any rule allows, so that what is too large is still a number.
    Int(i128),
    /// A number; seconds, once a duration has been checked.
    Float(f64),
    /// A duration in seconds that was given as such, not as a bare number.
    Seconds(f64),
    /// A text.
    Text(Cow<'static, str>),
    /// Options within an option: a retry policy.
    Options(Options),
    /// Anything else, by the name of its type: no rule allows it.
    Other(String),
}

/// A text for the tables of options.
pub(super) const fn text(text: &'static str) -> Value {
    Value::Text(Cow::Borrowed(text))
}

impl Value {
    /// A whole or other number, as a float; not a duration, nor a truth value.
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2**53")]
    pub(super) fn number(&self) -> Option<f64> {
        match *self {
            Self::Int(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// As Python would write it; text is quoted.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) | Self::Seconds(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Options(_) => f.write_str("a dict"),
            Self::Other(kind) => write!(f, "<{kind} object>"),
        }
    }
}

/// Values by name, in order.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Options(Vec<(Cow<'static, str>, Value)>);

impl Options {
    /// The value called `key`; [`Value::None`] where there is none.
    pub fn get(&self, key: &str) -> &Value {
        self.iter()
            .find(|&(name, _)| name == key)
            .map_or(&Value::None, |(_, value)| value)
    }

    /// The whole number called `key`, if it is one.
    pub fn count(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The number called `key`, if it is one.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).number()
    }

    /// The number of seconds called `key`, if it is one.
    pub fn seconds(&self, key: &str) -> Option<Duration> {
        Duration::try_from_secs_f64(self.number(key)?).ok()
    }

    /// The text called `key`, if it is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether the flag called `key` is there and set.
    pub fn flag(&self, key: &str) -> bool {
        *self.get(key) == Value::Bool(true)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<K: Into<Cow<'static, str>>> FromIterator<(K, Value)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value))
                .collect(),
        )
    }
}
