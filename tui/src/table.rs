//! Plain tables: columns as wide as what they hold, numbers to the right.

use crate::format::{Align, fit, width};

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The names of its columns; those that end in `>` are aligned to the right.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        let head = |head: &&'static str| match head.strip_suffix('>') {
            Some(name) => (name, true),
            None => (*head, false),
        };
        Self {
            heads: heads.iter().map(head).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as text, each line with its end.
    pub(crate) fn render(&self) -> String {
        let heads = self
            .heads
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let lines: Vec<Vec<String>> = std::iter::once(heads).chain(self.rows.clone()).collect();
        let widest = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.heads.len()).map(widest).collect();
        let mut text = String::new();
        for line in &lines {
            let mut out = String::new();
            for ((cell, width), (_, right)) in line.iter().zip(&widths).zip(&self.heads) {
                if !out.is_empty() {
                    out.push_str("  ");
                }
                let align = if *right { Align::Right } else { Align::Left };
                // Each fits: nothing is cut.
                out.push_str(&fit(cell, *width, align, ' '));
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A count in at most five characters: `812k`.
pub(crate) fn short(count: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if count < 10_000 {
        return count.to_string();
    }
    let mut rest = count;
    let mut unit = "";
    for next in UNITS {
        let tenths = rest / 100;
        unit = next;
        rest /= 1000;
        if rest < 100 {
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        if rest < 1000 {
            break;
        }
    }
    format!("{rest}{unit}")
}

/// A time in milliseconds, for people: `2d03h`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let table = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (12_440, "12.4k"),
            (99_999, "99.9k"),
            (812_345, "812k"),
            (1_920_000, "1.9M"),
            (55_000_000, "55.0M"),
            (123_456_789_012, "123G"),
            (u64::MAX, "18.4E"),
        ];
        for (count, expected) in table {
            assert_eq!(short(count), expected, "{count}");
        }
    }

    #[test]
    fn a_table_is_as_wide_as_what_it_holds() {
        let mut table = Table::new(&["NAME", "N>"]);
        table.row(vec!["acme".to_owned(), "7".to_owned()]);
        table.row(vec!["Zürich-long".to_owned(), "1234".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME            N\nacme            7\nZürich-long  1234\n"
        );
    }

    #[test]
    fn v6_names_are_as_wide_as_a_terminal_draws_them() {
        let mut table = Table::new(&["NAME", "N>"]);
        for name in ["東京", "acme", "ze\u{200b}ro", "e\u{301}a"] {
            table.row(vec![name.to_owned(), "7".to_owned()]);
        }
        assert_eq!(
            table.render(),
            "NAME  N\n東京  7\nacme  7\nze\u{200b}ro  7\ne\u{301}a    7\n"
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!(
            [span(0), span(119_000), span(7_199_000)],
            ["0s", "119s", "119m"]
        );
        assert_eq!([span(7_980_000), span(183_600_000)], ["2h13m", "2d03h"]);
    }
}
