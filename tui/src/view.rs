//! What the model looks like. It is drawn from what the model holds, and changes nothing.
//!
//! A screen is in the file of its name; `view/header.rs` and `view/footer.rs` are around each,
//! `view/help.rs` and `view/dialog.rs` above it; `view/table.rs`, `view/gauge.rs`,
//! `view/spark.rs` and `view/panes.rs` are what they are made of.

pub mod branches;
mod comps;
mod detail;
mod dialog;
mod errors;
mod footer;
mod gauge;
mod header;
pub mod help;
mod log;
mod outbox;
mod overview;
mod panes;
mod row;
mod save;
mod spark;
mod status;
mod table;
mod windows;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::app::focus::Focus;
use crate::app::{Model, Screen, layout};
use crate::format;
use crate::store::Store;
use crate::symbols::Symbols;
use crate::theme::{Role, Theme};

pub use row::row_text;
pub use save::snapshot;

/// Draws the model.
pub fn draw(model: &Model, frame: &mut Frame<'_>) {
    render(model, frame.buffer_mut());
}

/// Draws the model into a buffer of the size it has.
pub fn render(model: &Model, buffer: &mut Buffer) {
    let area = buffer.area;
    let look = Look::new(model);
    if layout::too_small((area.width, area.height)) {
        let (width, height) = layout::LEAST;
        let text = format!(
            "terminal too small: {}x{}, need {width}x{height} (q quits)",
            area.width, area.height
        );
        for (y, line) in (area.y..area.bottom()).zip(by_words(&text, area.width.into())) {
            buffer.set_stringn(area.x, y, line, area.width.into(), Style::new());
        }
        return;
    }
    // The size of the model is that of the terminal, but for the moment in which it changes.
    let [header, body, footer] = [
        Rect::new(0, 0, area.width, layout::HEADER),
        Rect::new(
            0,
            layout::HEADER,
            area.width,
            area.height - layout::HEADER - 1,
        ),
        Rect::new(0, area.height - 1, area.width, 1),
    ];
    put(buffer, header, &header::lines(&look, area.width));
    if let Focus::Help { .. } = model.focus {
        put(buffer, body, &help::page(&look, body));
    } else {
        put(buffer, body, &screen(&look, body));
    }
    put(buffer, footer, &[footer::line(&look, area.width)]);
    dialog::draw(&look, buffer, body);
}

/// A text in lines of at most so many cells, but for words that are longer.
fn by_words(text: &str, cells: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if format::width(line) + 1 + format::width(word) <= cells => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn screen(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    if look.store.processes().next().is_none() {
        return nothing(look);
    }
    if look.model.open.is_some() {
        return detail::page(look, body);
    }
    match look.model.screen {
        Screen::Pipes => overview::page(look, body),
        Screen::Branches => branches::page(look, body),
        Screen::Windows => windows::page(look, body),
        Screen::Comps => comps::page(look, body),
        Screen::Outbox => outbox::page(look, body),
        Screen::Errors => errors::page(look, body),
        Screen::Log => log::page(look, body),
    }
}

fn nothing(look: &Look<'_>) -> Vec<Line<'static>> {
    let lines = [
        (Role::Title, "No pipelines are running here."),
        (Role::Text, ""),
        (
            Role::Text,
            "Start one: it appears by itself. Whatever this user runs on this machine",
        ),
        (
            Role::Text,
            "can be seen, unless it was made with observe=\"off\".",
        ),
        (Role::Text, ""),
        (
            Role::Dim,
            "anabranch doctor   tells where is looked, and what is found",
        ),
        (Role::Dim, "anabranch demo     starts something to look at"),
    ];
    let mut page = vec![Line::default(); 2];
    page.extend(
        lines
            .into_iter()
            .map(|(role, text)| Line::styled(format!("  {text}"), look.style(role))),
    );
    page
}

/// The line of the terminal on which the first row of the screen is.
pub fn first_row(model: &Model) -> u16 {
    match model.screen {
        Screen::Pipes => layout::HEADER + 1,
        _ => layout::HEADER + 2,
    }
}

fn put(buffer: &mut Buffer, area: Rect, lines: &[Line<'static>]) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        // A line's own style fills its whole width: the cursor is a bar, not a word.
        if line.style != Style::new() {
            buffer.set_style(Rect::new(area.x, y, area.width, 1), line.style);
        }
        let mut x = area.x;
        for span in &line.spans {
            let style = line.style.patch(span.style);
            x = write(buffer, (x, y), area.right(), &span.content, style);
        }
    }
}

/// Writes a text from a cell on, and returns where it ended.
fn write(buffer: &mut Buffer, (mut x, y): (u16, u16), end: u16, text: &str, style: Style) -> u16 {
    if !format::is_plain(text) {
        let rest = end.saturating_sub(x);
        return buffer.set_stringn(x, y, text, rest.into(), style).0;
    }
    // To look for graphemes in each text would be most of what a frame takes.
    for char in text.chars() {
        if x >= end {
            break;
        }
        buffer[(x, y)].set_char(char).set_style(style);
        x += 1;
    }
    x
}

/// What is drawn, and how.
struct Look<'a> {
    model: &'a Model,
    store: &'a Store,
    /// The time of what is shown.
    now: u64,
    theme: Theme,
    symbols: &'static Symbols,
    /// From 100 columns on there is place for more words.
    wide: bool,
}

impl<'a> Look<'a> {
    fn new(model: &'a Model) -> Self {
        Self {
            model,
            store: model.shown(),
            now: model.shown_at(),
            theme: model.theme,
            symbols: model.symbols,
            wide: model.size.0 >= 100,
        }
    }

    fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    fn span(&self, role: Role, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(role))
    }

    /// Exactly so many cells.
    fn fit(&self, text: &str, cells: usize) -> String {
        format::fit(text, cells, format::Align::Left, self.symbols.cut)
    }

    /// Exactly so many cells, padded before the text.
    fn right(&self, text: &str, cells: usize) -> String {
        format::fit(text, cells, format::Align::Right, self.symbols.cut)
    }

    /// The time of day.
    fn time(&self, ms: u64, millis: bool) -> String {
        let ms = i64::try_from(ms).unwrap_or(0);
        let Ok(stamp) = jiff::Timestamp::from_millisecond(ms) else {
            return String::new();
        };
        let form = if millis { "%H:%M:%S%.3f" } else { "%H:%M:%S" };
        stamp
            .to_zoned(self.model.zone.clone())
            .strftime(form)
            .to_string()
    }

    /// A line across, with a text at its right end.
    fn rule(&self, width: u16, label: &str) -> Line<'static> {
        let margin = self.margin();
        let label = if label.is_empty() {
            String::new()
        } else {
            format!(" {label}")
        };
        let label = if format::width(&label) + 2 * margin > usize::from(width) {
            self.fit(&label, usize::from(width).saturating_sub(2 * margin))
        } else {
            label
        };
        let used = format::width(&label) + 2 * margin;
        let rest = usize::from(width).saturating_sub(used);
        Line::from(vec![
            Span::raw(" ".repeat(margin)),
            self.span(Role::Line, self.symbols.lines[0].repeat(rest)),
            self.span(Role::Dim, label),
        ])
    }

    /// Cells left free at the sides.
    const fn margin(&self) -> usize {
        if self.wide { 0 } else { 1 }
    }

    /// Parts in a line, two spaces between them; those that do not fit are left out.
    fn parts(&self, width: u16, parts: Vec<Span<'static>>) -> Line<'static> {
        let mut line = vec![Span::raw(" ".repeat(self.margin()))];
        let mut used = self.margin();
        for part in parts {
            let more = format::width(&part.content);
            if more == 0 {
                continue;
            }
            let gap = if line.len() > 1 { 2 } else { 0 };
            if used + gap + more > usize::from(width) {
                break;
            }
            line.push(Span::raw(" ".repeat(gap)));
            line.push(part);
            used += gap + more;
        }
        Line::from(line)
    }

    /// Which rows of how many are shown.
    fn range(&self, height: u16) -> String {
        let list = self.model.list();
        let shown = list.shown(height).len();
        let all = format::count(list.rows().len() as u64);
        match shown {
            0 => "no rows".to_owned(),
            _ => format!("rows {}-{} of {all}", list.offset + 1, list.offset + shown),
        }
    }
}

/// A line with a text at its right end, as far as there is place for it.
fn with_right(mut line: Line<'static>, width: u16, right: Span<'static>) -> Line<'static> {
    let margin = 2;
    let used = line.width() + format::width(&right.content) + margin;
    if let Some(rest) = usize::from(width).checked_sub(used).filter(|it| *it > 0) {
        line.push_span(Span::raw(" ".repeat(rest)));
        line.push_span(right);
    }
    line
}
