//! Text that came from another process, without what could steer a terminal.
//!
//! Tenants, stages and error messages are chosen by whoever sends events. Shown as they are, they
//! could move the cursor, change the title, or turn the reading order around. [`Text`] is cleaned
//! where it is read from the wire, once; what holds a `Text` may print it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters of a name at most; what is longer is cut, and ends in `…`.
pub const MAX_NAME: usize = 200;

/// A string that is safe to show on a terminal, in one line.
///
/// ```
/// use anabranch_protocol::Text;
///
/// assert_eq!(&*Text::new("ac\u{1b}[2Jme\n"), "ac[2Jme ");
/// ```
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    /// Cleans a string.
    pub fn new(raw: &str) -> Self {
        Self(sanitize(raw).into_owned())
    }

    /// A name, cleaned, and cut after [`MAX_NAME`] characters.
    pub fn name(raw: &str) -> Self {
        Self(cut(&sanitize(raw), MAX_NAME).into_owned())
    }
}

impl From<&str> for Text {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for Text {
    fn from(raw: String) -> Self {
        match sanitize(&raw) {
            Cow::Borrowed(_) => Self(raw),
            Cow::Owned(clean) => Self(clean),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::new(&raw))
    }
}

/// The text without control characters (C0, DEL, C1), without those that change the direction of
/// writing, and without the invisible ones of the tag block. What ends a line becomes a space.
pub fn sanitize(raw: &str) -> Cow<'_, str> {
    // Most names are plain: all that is to go is either below the space, or not ASCII.
    let plain = |byte: u8| (b' '..0x7f).contains(&byte);
    if raw.bytes().all(plain) || raw.chars().all(|c| fate(c) == Fate::Keep) {
        return Cow::Borrowed(raw);
    }
    let mut clean = String::with_capacity(raw.len());
    for character in raw.chars() {
        match fate(character) {
            Fate::Keep => clean.push(character),
            Fate::Space => clean.push(' '),
            Fate::Drop => {}
        }
    }
    Cow::Owned(clean)
}

#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    Space,
    Drop,
}

const fn fate(character: char) -> Fate {
    match character {
        '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Fate::Space,
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => Fate::Drop,
        _ => Fate::Keep,
    }
}

/// At most so many characters, the last of them `…` if any are missing.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some(_) if most == 0 => Cow::Borrowed(""),
        Some(_) => {
            let kept: String = text.chars().take(most - 1).collect();
            Cow::Owned(kept + "…")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_lose_what_steers_a_terminal_and_keep_the_rest() {
        let table = [
            ("acme", "acme"),
            ("", ""),
            ("\u{1b}]0;owned\u{7}x", "]0;ownedx"),
            ("a\u{9b}31mb", "a31mb"),
            ("a\u{202e}bc\u{202c}", "abc"),
            ("left\u{2066}x\u{2069}", "leftx"),
            ("two\r\nlines", "two  lines"),
            ("Zürich 東京 👩‍🚀", "Zürich 東京 👩‍🚀"),
            ("\u{e0041}tag", "tag"),
        ];
        for (raw, clean) in table {
            assert_eq!(sanitize(raw), clean, "{raw:?}");
        }
    }

    #[test]
    fn a_plain_name_is_not_copied() {
        assert!(matches!(sanitize("tenant-17"), Cow::Borrowed(_)));
        assert!(matches!(sanitize("Zürich"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_name_is_cut_by_characters() {
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 0), "");
        assert_eq!(Text::name(&"é".repeat(300)).chars().count(), MAX_NAME);
    }

    proptest! {
        #[test]
        fn nothing_that_steers_a_terminal_is_left(raw in any::<String>()) {
            let clean = sanitize(&raw);
            prop_assert!(clean.chars().all(|c| !c.is_control() && fate(c) == Fate::Keep));
            prop_assert_eq!(sanitize(&clean), clean.as_ref(), "cleaning twice changes nothing");
        }
    }
}
