//! Numbers, durations and times as people read them, and text that fits a width.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A count as a floating point number.
#[expect(clippy::cast_precision_loss, reason = "what is shown has four digits")]
pub const fn real(number: u64) -> f64 {
    number as f64
}

/// A floating point number as a count: never negative, and saturated.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, which is what is wanted"
)]
pub const fn whole(number: f64) -> u64 {
    number as u64
}

/// An index as a column or row of a terminal, saturated.
pub fn cells(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Whether each character of a text is drawn in one cell of its own, as letters, lines, blocks and
/// bars are: almost all of a screen, and of that one need not know where graphemes end.
pub fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|char| matches!(char, ' '..='~' | '\u{2500}'..='\u{259f}'))
}

/// How wide a text is on a terminal, in cells.
pub fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    if is_plain(text) {
        return text.chars().count();
    }
    // By grapheme, as it is drawn.
    text.graphemes(true).map(UnicodeWidthStr::width).sum()
}

/// A name as people read it: in quotes, if nothing of it can be seen.
///
/// ```
/// use anabranch_tui::format::name;
///
/// assert_eq!([name("acme"), name(""), name(" ")], ["acme", "\"\"", "\" \""]);
/// assert_eq!(name("\u{200b}"), "\"\\u{200b}\"");
/// ```
pub fn name(name: &str) -> Cow<'_, str> {
    let seen = |char: char| !char.is_whitespace() && char.width().unwrap_or(0) > 0;
    if name.chars().any(seen) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("{name:?}"))
    }
}

/// At which end the text is, and at which the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The padding is behind the text.
    Left,
    /// The padding is before the text.
    Right,
}

/// Exactly so many cells of a text: padded, or cut with a mark at its end.
///
/// ```
/// use anabranch_tui::format::{Align, fit};
///
/// assert_eq!(fit("acme", 6, Align::Right, '…'), "  acme");
/// assert_eq!(fit("umbrella", 5, Align::Left, '…'), "umbr…");
/// assert_eq!(fit("東京都", 4, Align::Left, '…'), "東… ");
/// ```
pub fn fit(text: &str, cells: usize, align: Align, mark: char) -> String {
    let full = width(text);
    let (text, used) = if full <= cells {
        (Cow::Borrowed(text), full)
    } else {
        let (cut, used) = cut(text, cells, mark);
        (Cow::Owned(cut), used)
    };
    let padding = " ".repeat(cells - used);
    match align {
        Align::Left => format!("{text}{padding}"),
        Align::Right => format!("{padding}{text}"),
    }
}

fn cut(text: &str, cells: usize, mark: char) -> (String, usize) {
    if cells == 0 {
        return (String::new(), 0);
    }
    let (mut kept, mut used) = (String::new(), 0);
    for grapheme in text.graphemes(true) {
        let more = grapheme.width();
        if used + more > cells - 1 {
            break;
        }
        kept.push_str(grapheme);
        used += more;
    }
    kept.push(mark);
    (kept, used + 1)
}

/// With at most `digits` behind the point, and none that are zero at the end.
fn short(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A number in at most five cells: `310`, `12.4k`, `812k`, `1.92M`.
///
/// ```
/// use anabranch_tui::format::si;
///
/// assert_eq!([si(0.0), si(310.0), si(12_430.0), si(811_900.0), si(1.92e6)], ["0", "310", "12.4k", "812k", "1.92M"]);
/// ```
pub fn si(number: f64) -> String {
    // Where the rounded number would need a digit more, the next unit begins.
    let units = [(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")];
    let found = units
        .into_iter()
        .find(|(factor, _)| number < 999.5 * factor);
    let (factor, unit) = found.unwrap_or((1e12, "T"));
    let scaled = number / factor;
    // Of thousands one digit behind the point is enough.
    let digits = match scaled {
        _ if unit.is_empty() => 0,
        it if it < 9.995 && unit != "k" => 2,
        it if it < 99.95 => 1,
        _ => 0,
    };
    short(scaled, digits) + unit
}

/// A count in at most so many cells, if that can be: first without the part behind the point.
pub fn si_in(number: u64, cells: usize) -> String {
    let text = si(real(number));
    match text.split_once('.') {
        Some((whole, rest)) if text.len() > cells => {
            format!(
                "{whole}{}",
                rest.trim_start_matches(|c: char| c.is_ascii_digit())
            )
        }
        _ => text,
    }
}

/// A rate per second; those below ten are told to the hundredth.
pub fn rate(number: f64) -> String {
    if number < 9.995 {
        short(number, 2)
    } else {
        si(number)
    }
}

/// A count in full, with commas: `10,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration, from milliseconds to days: `412ms`, `1.4s`, `38s`, `1m40s`, `9m`, `2h13m`, `2d03h`.
pub fn span(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..9950 => short(real(ms) / 1000.0, 1) + "s",
        9950..100_000 => format!("{}s", seconds.max(10)),
        100_000..600_000 if seconds % 60 > 0 => format!("{minutes}m{:02}s", seconds % 60),
        100_000..6_000_000 => format!("{minutes}m"),
        6_000_000..172_800_000 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// A duration of which tenths of a second are the smallest part: `0.8s`.
pub fn seconds(ms: u64) -> String {
    if ms < 9950 {
        format!("{:.1}s", real(ms) / 1000.0)
    } else {
        span(ms)
    }
}

/// A duration in microseconds: `412us`, `1.2ms`, `12ms`, `1.4s`.
pub fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..9950 => short(real(us) / 1000.0, 1) + "ms",
        _ => span(us / 1000),
    }
}

/// How old something is, from two times in milliseconds since 1970.
pub fn ago(now: u64, then: u64) -> String {
    span(now.saturating_sub(then))
}

/// A share as a whole percentage; what is in the middle is rounded up.
pub fn percent(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let table = [
            (9.0, "9"),
            (999.4, "999"),
            (999.6, "1k"),
            (9_900.0, "9.9k"),
            (99_960.0, "100k"),
            (999_600.0, "1M"),
            (1_100_000.0, "1.1M"),
            (9_996_000.0, "10M"),
            (4.2e9, "4.2G"),
        ];
        for (number, text) in table {
            assert_eq!(si(number), text);
        }
        assert_eq!([rate(0.31), rate(0.0), rate(1.1)], ["0.31", "0", "1.1"]);
        assert_eq!(
            [count(0), count(999), count(1204), count(1_234_567)],
            ["0", "999", "1,204", "1,234,567"]
        );
    }

    #[test]
    fn durations_have_two_parts_at_most() {
        let table = [
            (0, "0ms"),
            (999, "999ms"),
            (1_400, "1.4s"),
            (9_960, "10s"),
            (38_200, "38s"),
            (99_000, "99s"),
            (100_000, "1m40s"),
            (540_000, "9m"),
            (599_000, "9m59s"),
            (659_000, "10m"),
            (7_980_000, "2h13m"),
            (183_600_000, "2d03h"),
        ];
        for (ms, text) in table {
            assert_eq!(span(ms), text);
        }
        assert_eq!([seconds(800), seconds(41_000)], ["0.8s", "41s"]);
        assert_eq!(
            [micros(412), micros(1_200), micros(12_000)],
            ["412us", "1.2ms", "12ms"]
        );
    }

    proptest! {
        #[test]
        fn what_fits_is_exactly_as_wide_as_asked(text in "\\PC{0,20}", cells in 0usize..12, right in any::<bool>()) {
            let align = if right { Align::Right } else { Align::Left };
            prop_assert_eq!(width(&fit(&text, cells, align, '~')), cells, "{:?}", text);
        }

        #[test]
        fn a_short_number_has_at_most_five_cells(number in 0f64..9e14) {
            prop_assert!(si(number).len() <= 5, "{}", si(number));
        }
    }
}
