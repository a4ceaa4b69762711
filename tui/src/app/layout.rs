//! How many lines each part of the screen has.
//!
//! The model must know it too: to keep the cursor on the screen, and to tell the monitors which
//! branches are looked at.

use super::Screen;

/// Less than this is no dashboard.
pub const LEAST: (u16, u16) = (60, 16);

/// From this on the branches have panes around them.
pub const PANES: (u16, u16) = (120, 32);

/// Lines above the body: numbers, and tabs.
pub const HEADER: u16 = 3;

/// Whether a terminal is too small.
pub const fn too_small((width, height): (u16, u16)) -> bool {
    width < LEAST.0 || height < LEAST.1
}

/// Whether the branches have panes around them.
pub const fn panes((width, height): (u16, u16)) -> bool {
    width >= PANES.0 && height >= PANES.1
}

/// Lines between the header and the line with the keys.
pub const fn body((_, height): (u16, u16)) -> u16 {
    height.saturating_sub(HEADER + 1)
}

/// The parts of the overview, in lines. Each but the list has a rule above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overview {
    /// Pipelines.
    pub list: u16,
    /// The history, its axis and its rule; 0 if there is no place for it.
    pub chart: u16,
    /// What needs attention, and its rule.
    pub attention: u16,
    /// An empty line.
    pub gap: u16,
}

/// The parts of the overview of so many pipelines.
pub fn overview(size: (u16, u16), pipelines: usize) -> Overview {
    // The names of the columns, and two lines of sums.
    let rest = body(size).saturating_sub(3);
    let attention = (rest / 4).clamp(2, 10) + 1;
    let gap = u16::from(rest >= 12);
    let chart = if rest >= 15 {
        (rest / 3).clamp(7, 14)
    } else {
        0
    };
    let most = rest.saturating_sub(attention + gap + chart);
    // A list that is shorter leaves its place to the history.
    let wanted = crate::format::cells(pipelines).max(3).min(most);
    let more = if chart > 0 { (most - wanted).min(8) } else { 0 };
    Overview {
        list: most - more,
        chart: chart + more,
        attention,
        gap,
    }
}

/// The heights of the three rows of panes, without their frames.
pub const fn pane_rows((_, height): (u16, u16)) -> [u16; 3] {
    // What is higher than 40 lines goes to the table for two thirds.
    let more = height.saturating_sub(40) / 3;
    [7 + more / 3, 4 + more / 3, 4 + more / 3]
}

/// Lines that a pane of stores, of a list below a list, has; 0 if there is no place for it.
pub const fn below(size: (u16, u16)) -> u16 {
    let body = body(size);
    if body >= 18 { body * 2 / 5 } else { 0 }
}

/// Lines that the rows of a screen have.
pub fn rows(screen: Screen, size: (u16, u16), pipelines: usize) -> u16 {
    let body = body(size);
    match screen {
        Screen::Pipes => overview(size, pipelines).list,
        Screen::Branches if panes(size) => {
            let [a, b, c] = pane_rows(size);
            // Title, columns, which rows; four lines of frames; the line of commands.
            body.saturating_sub(3 + a + b + c + 4 + 1)
        }
        // Title, columns, which rows, two lines of sums, a rule.
        Screen::Branches => body.saturating_sub(6),
        Screen::Outbox | Screen::Errors => body.saturating_sub(3 + below(size)),
        Screen::Windows | Screen::Comps | Screen::Log => body.saturating_sub(3),
    }
}
