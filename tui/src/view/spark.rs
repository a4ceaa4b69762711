//! Histories: in one line, and as a chart.

use ratatui::text::{Line, Span};

use super::Look;
use crate::format::{self, real, whole};
use crate::store::Ring;
use crate::theme::Role;

/// A history in one line of so many cells. The highest bar is the highest of this line.
pub(super) fn spark(look: &Look<'_>, ring: &Ring, cells: usize) -> Span<'static> {
    let bars = ring.bars(look.model.span.seconds(), cells);
    let most = bars
        .iter()
        .flatten()
        .fold(0.0, |most: f64, bar| most.max(*bar));
    let text: String = bars
        .into_iter()
        .map(|bar| match bar {
            Some(bar) if bar > 0.0 => look.symbols.levels[level(bar, most, 8)],
            _ => ' ',
        })
        .collect();
    look.span(Role::Data, text)
}

/// Which of so many levels a number is on, if the highest is on the last.
fn level(number: f64, most: f64, levels: usize) -> usize {
    let steps = real(levels as u64);
    let level = whole((number / most * steps).ceil()).max(1);
    usize::try_from(level).unwrap_or(levels).min(levels) - 1
}

/// A number at least as high, with one digit that is not 0, or two: the end of an axis.
fn round_up(number: f64) -> f64 {
    if number <= 1.0 {
        return 1.0;
    }
    let unit = 10f64.powf(number.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 10.0];
    let found = steps.into_iter().find(|step| step * unit >= number);
    found.unwrap_or(10.0) * unit
}

/// A history as a chart of so many cells, axes included.
pub(super) fn chart(look: &Look<'_>, ring: &Ring, width: u16, height: u16) -> Vec<Line<'static>> {
    const AXIS: usize = 8;
    let rows = usize::from(height).saturating_sub(2);
    let columns = usize::from(width).saturating_sub(AXIS + 2);
    let bars = ring.bars(look.model.span.seconds(), columns);
    let top = round_up(
        bars.iter()
            .flatten()
            .fold(0.0, |most: f64, bar| most.max(*bar)),
    );
    let [across, down] = look.symbols.lines;
    let corner = if look.symbols.ascii { "+" } else { "└" };
    let mut lines = Vec::new();
    for row in 0..rows {
        let above = rows - row;
        let value = top * real(above as u64) / real(rows as u64);
        let labelled = row == 0 || (rows >= 4 && row == rows / 2);
        let label = if labelled {
            // Whole items: half of one would be told as one.
            Some(format::si(value)).filter(|_| row == 0 || value >= 2.0)
        } else {
            None
        };
        let label = label.unwrap_or_default();
        let cells: String = bars
            .iter()
            .map(|bar| cell(look, *bar, top, rows, above))
            .collect();
        lines.push(Line::from(vec![
            look.span(Role::Dim, look.right(&label, AXIS - 2) + " "),
            look.span(Role::Line, down),
            look.span(Role::Data, cells),
        ]));
    }
    lines.push(Line::from(vec![
        look.span(Role::Dim, look.right("0", AXIS - 2) + " "),
        look.span(Role::Line, corner.to_owned() + &across.repeat(columns)),
    ]));
    let from = format!("-{}", look.model.span.name());
    let gap = (columns + 1).saturating_sub(from.len() + 3);
    lines.push(Line::from(look.span(
        Role::Dim,
        format!("{}{from}{}now", " ".repeat(AXIS - 1), " ".repeat(gap)),
    )));
    lines
}

/// The cell of a bar in a row of a chart, counted from the bottom.
fn cell(look: &Look<'_>, bar: Option<f64>, top: f64, rows: usize, above: usize) -> char {
    let Some(bar) = bar.filter(|it| *it > 0.0) else {
        return ' ';
    };
    let height = bar / top * real(rows as u64);
    let below = real(above as u64 - 1);
    match (look.symbols.ascii, height - below) {
        (_, part) if part <= 0.0 => ' ',
        (true, part) if part >= 0.5 => ':',
        (true, _) => '.',
        (false, part) if part >= 1.0 => '█',
        (false, part) => look.symbols.levels[level(part, 1.0, 8)],
    }
}
