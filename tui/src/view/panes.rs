//! Panes around the table of branches: three rows of two.

use ratatui::text::{Line, Span};

use super::{Look, comps, detail, errors, log, outbox, windows};
use crate::app::aim::branch_here;
use crate::app::layout;
use crate::format;
use crate::theme::Role;

struct Pane {
    title: String,
    lines: Vec<Line<'static>>,
}

/// All panes with their frames.
pub(super) fn page(look: &Look<'_>, width: u16) -> Vec<Line<'static>> {
    let heights = layout::pane_rows(look.model.size);
    // The share of the left pane, in thousandths.
    let shares = [483, 600, 417];
    let mut page = Vec::new();
    for (index, (height, share)) in heights.into_iter().zip(shares).enumerate() {
        let left = usize::from(width) * share / 1000;
        let right = usize::from(width) - left;
        let inner = |outer: usize| format::cells(outer.saturating_sub(4));
        let (first, second) = row(look, index, (inner(left), inner(right)), height);
        page.push(edge(
            look,
            index == 0,
            &[(left, &first.title), (right, &second.title)],
        ));
        for line in 0..usize::from(height) {
            let mut spans = Vec::new();
            for (pane, outer) in [(&first, left), (&second, right)] {
                framed(look, pane.lines.get(line), outer, &mut spans);
            }
            page.push(Line::from(spans));
        }
    }
    let [across, _] = look.symbols.lines;
    let [_, _, left, right] = look.symbols.corners;
    let bottom = format!(
        "{left}{}{right}",
        across.repeat(usize::from(width).saturating_sub(2))
    );
    page.push(Line::from(look.span(Role::Line, bottom)));
    page
}

fn row(look: &Look<'_>, index: usize, widths: (u16, u16), height: u16) -> (Pane, Pane) {
    let here = branch_here(look.model);
    match index {
        0 => {
            let tenant = here.and_then(|id| {
                let pipeline = look.store.pipeline(id.process, id.key.0)?;
                Some(pipeline.tenant(id.key.1))
            });
            (
                Pane {
                    title: format!("branch {}", tenant.unwrap_or_default()),
                    lines: here.map_or_else(Vec::new, |id| detail::lines(look, id)),
                },
                Pane {
                    title: "compensations (reverse order)".to_owned(),
                    lines: comps::pane(look, here, widths.1, height),
                },
            )
        }
        1 => (
            Pane {
                title: "windows: fill (count) and age".to_owned(),
                lines: windows::pane(look, widths.0, height),
            },
            Pane {
                title: "outbox stores".to_owned(),
                lines: outbox::pane(look, widths.1, height),
            },
        ),
        _ => (
            Pane {
                title: "errors by code (5 min)".to_owned(),
                lines: errors::pane(look, widths.0, height),
            },
            Pane {
                title: if look.model.follow {
                    "log (follow)"
                } else {
                    "log"
                }
                .to_owned(),
                lines: log::pane(look, widths.1, height),
            },
        ),
    }
}

/// The upper edge of a row of panes, which is the lower one of those above.
fn edge(look: &Look<'_>, top: bool, panes: &[(usize, &str)]) -> Line<'static> {
    let [across, _] = look.symbols.lines;
    let [top_left, top_right, ..] = look.symbols.corners;
    let [tee_left, tee_right] = look.symbols.tees;
    let (left, right) = if top {
        (top_left, top_right)
    } else {
        (tee_left, tee_right)
    };
    let mut spans = Vec::new();
    for (width, title) in panes {
        let title = look.fit_at_most(title, width.saturating_sub(6));
        let rest = width.saturating_sub(format::width(&title) + 5);
        spans.push(look.span(Role::Line, format!("{left}{across} ")));
        spans.push(look.span(Role::Title, title));
        spans.push(look.span(Role::Line, format!(" {}{right}", across.repeat(rest))));
    }
    Line::from(spans)
}

/// A line between two vertical ones: padded, or cut.
fn framed(
    look: &Look<'_>,
    line: Option<&Line<'static>>,
    outer: usize,
    out: &mut Vec<Span<'static>>,
) {
    let [_, down] = look.symbols.lines;
    let inner = outer.saturating_sub(4);
    let mut used = 0;
    out.push(look.span(Role::Line, format!("{down} ")));
    for span in line.map_or(&[][..], |line| &line.spans) {
        let text = look.fit_at_most(&span.content, inner - used);
        used += format::width(&text);
        out.push(Span::styled(text, span.style));
        if used >= inner {
            break;
        }
    }
    out.push(Span::raw(" ".repeat(inner - used)));
    out.push(look.span(Role::Line, format!(" {down}")));
}
