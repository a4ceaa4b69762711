//! Rows in columns.

use ratatui::text::{Line, Span};

use super::Look;
use crate::app::list::RowId;
use crate::format::Align;
use crate::theme::Role;

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) title: String,
    pub(super) width: usize,
    pub(super) align: Align,
    /// Cells before it.
    pub(super) gap: usize,
    /// How soon it is left out when there is no place: the highest first; 0 never.
    pub(super) spare: u8,
    /// How much wider it may become.
    pub(super) grows: usize,
    pub(super) role: Role,
}

/// A column whose text begins at its left.
pub(super) fn left(title: &str, width: usize, gap: usize) -> Head {
    Head {
        title: title.to_owned(),
        width,
        align: Align::Left,
        gap,
        spare: 0,
        grows: 0,
        role: Role::Title,
    }
}

/// A column whose text ends at its right.
pub(super) fn right(title: &str, width: usize, gap: usize) -> Head {
    Head {
        align: Align::Right,
        ..left(title, width, gap)
    }
}

impl Head {
    pub(super) const fn spare(mut self, spare: u8) -> Self {
        self.spare = spare;
        self
    }

    pub(super) const fn grows(mut self, grows: usize) -> Self {
        self.grows = grows;
        self
    }
}

/// Leaves columns out until the rest fits, and lets the rest grow. What comes back tells for each
/// column that is left which one it was.
pub(super) fn arrange(heads: Vec<Head>, width: usize) -> Vec<(usize, Head)> {
    let mut kept: Vec<(usize, Head)> = heads.into_iter().enumerate().collect();
    let used = |kept: &[(usize, Head)]| -> usize {
        kept.iter().map(|(_, head)| head.gap + head.width).sum()
    };
    while used(&kept) > width {
        let spare = kept
            .iter()
            .enumerate()
            .filter(|(_, (_, head))| head.spare > 0)
            .max_by_key(|(_, (_, head))| head.spare);
        let Some(at) = spare.map(|(at, _)| at) else {
            break;
        };
        kept.remove(at);
    }
    let mut rest = width.saturating_sub(used(&kept));
    for (_, head) in &mut kept {
        let more = rest.min(head.grows);
        head.width += more;
        rest -= more;
    }
    kept
}

/// The names of columns.
pub(super) fn head(look: &Look<'_>, heads: &[(usize, Head)]) -> Line<'static> {
    let mut line = vec![Span::raw(" ".repeat(sign_width(look)))];
    for (_, head) in heads {
        let text = crate::format::fit(&head.title, head.width, head.align, look.symbols.cut);
        line.push(Span::raw(" ".repeat(head.gap)));
        line.push(look.span(head.role, text));
    }
    Line::from(line)
}

/// Cells before the first column.
pub(super) const fn sign_width(look: &Look<'_>) -> usize {
    if look.wide { 2 } else { 3 }
}

/// What stands before a row: whether it is marked, and whether the cursor is on it.
pub(super) fn sign(look: &Look<'_>, here: bool, marked: bool) -> Span<'static> {
    let (role, sign) = match (marked, here) {
        (true, _) => (Role::Marked, look.symbols.mark),
        (_, true) => (Role::Key, look.symbols.cursor),
        _ => (Role::Text, " "),
    };
    look.span(role, format!("{}{sign} ", " ".repeat(look.margin())))
}

/// A text in a column.
pub(super) fn cell(look: &Look<'_>, head: &Head, role: Role, text: &str) -> Vec<Span<'static>> {
    let text = crate::format::fit(text, head.width, head.align, look.symbols.cut);
    vec![look.span(role, text)]
}

/// A row: its sign, and its cells with the gaps before them.
pub(super) fn row(
    look: &Look<'_>,
    here: bool,
    marked: bool,
    cells: Vec<(usize, Vec<Span<'static>>)>,
) -> Line<'static> {
    let mut line = vec![sign(look, here, marked)];
    for (gap, cell) in cells {
        line.push(Span::raw(" ".repeat(gap)));
        line.extend(cell);
    }
    let line = Line::from(line);
    if here {
        line.style(look.style(Role::Cursor))
    } else {
        line
    }
}

/// The rows of the list that are on a screen of so many lines, each drawn by `draw`, and empty
/// lines behind them.
pub(super) fn rows(
    look: &Look<'_>,
    height: u16,
    draw: impl Fn(&RowId, bool) -> Line<'static>,
) -> Vec<Line<'static>> {
    let list = look.model.list();
    let mut lines: Vec<_> = list
        .shown(height)
        .iter()
        .map(|row| draw(row, list.selected() == Some(row)))
        .collect();
    lines.resize(height.into(), Line::default());
    lines
}
