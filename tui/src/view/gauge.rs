//! How full something is.

use ratatui::text::Span;

use super::Look;
use crate::format::{real, whole};
use crate::theme::Role;

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar of exactly so many cells, its ends included.
pub(super) fn gauge(look: &Look<'_>, part: u64, all: u64, cells: usize) -> Vec<Span<'static>> {
    let [begin, full, empty, end] = look.symbols.gauge;
    let inside = cells.saturating_sub(begin.len() + end.len());
    let share = if all == 0 {
        0.0
    } else {
        (real(part) / real(all)).min(1.0)
    };
    let eighths = usize::try_from(whole((share * real(inside as u64) * 8.0).round())).unwrap_or(0);
    let (filled, rest) = if look.symbols.ascii {
        ((eighths + 4) / 8, 0)
    } else {
        (eighths / 8, eighths % 8)
    };
    // Something is never shown as nothing.
    let filled = if look.symbols.ascii && part > 0 {
        filled.max(1)
    } else {
        filled
    };
    let rest = if part > 0 && filled == 0 {
        rest.max(1)
    } else {
        rest
    };
    let rest = if look.symbols.ascii { 0 } else { rest };
    let empties = inside.saturating_sub(filled + usize::from(rest > 0));
    let role = if all > 0 && part * 100 >= all * 90 {
        Role::Warn
    } else {
        Role::Data
    };
    vec![
        look.span(Role::Line, begin),
        look.span(role, full.repeat(filled.min(inside)) + EIGHTHS[rest]),
        look.span(Role::Line, empty.repeat(empties) + end),
    ]
}
