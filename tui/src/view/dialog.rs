//! What is above the screen: the menu of actions, and the question before one.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Look, put};
use crate::app::act::{MENU, why_not};
use crate::app::ask::{Ask, Step};
use crate::app::focus::Focus;
use crate::format;
use crate::theme::Role;

/// Draws what is above the screen, if anything is.
pub(super) fn draw(look: &Look<'_>, buffer: &mut Buffer, body: Rect) {
    let (title, lines) = match &look.model.focus {
        Focus::Menu(at) => ("Actions".to_owned(), menu(look, *at)),
        Focus::Ask(ask) => (ask.title().to_owned(), question(look, ask)),
        _ => return,
    };
    let widest = lines
        .iter()
        .map(Line::width)
        .max()
        .unwrap_or(0)
        .max(title.len() + 4);
    let width = format::cells(widest + 4).clamp(50, 78).min(body.width);
    let height = format::cells(lines.len() + 2).min(body.height);
    let area = Rect::new(
        body.x + (body.width - width) / 2,
        body.y + (body.height - height) / 2,
        width,
        height,
    );
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            buffer[(x, y)].reset();
        }
    }
    let inside = usize::from(width) - 2;
    let [across, down] = look.symbols.lines;
    let [top_left, top_right, low_left, low_right] = look.symbols.corners;
    let edge = |text: String| Line::from(look.span(Role::Line, text));
    let rest = inside.saturating_sub(format::width(&title) + 3);
    let mut framed = vec![Line::from(vec![
        look.span(Role::Line, format!("{top_left}{across} ")),
        look.span(Role::Title, title),
        look.span(Role::Line, format!(" {}{top_right}", across.repeat(rest))),
    ])];
    let place = usize::from(height).saturating_sub(2);
    for line in lines.into_iter().take(place) {
        let mut spans = vec![look.span(Role::Line, format!("{down} "))];
        let mut used = 1;
        for span in line.spans {
            let text = look.fit_at_most(&span.content, inside.saturating_sub(used + 1));
            used += format::width(&text);
            spans.push(Span::styled(text, span.style.patch(line.style)));
        }
        spans.push(Span::raw(" ".repeat(inside.saturating_sub(used))));
        spans.push(look.span(Role::Line, down));
        framed.push(Line::from(spans));
    }
    framed.push(edge(format!(
        "{low_left}{}{low_right}",
        across.repeat(inside)
    )));
    put(buffer, area, &framed);
}

fn menu(look: &Look<'_>, at: usize) -> Vec<Line<'static>> {
    let model = look.model;
    let line = |(index, action): (usize, &crate::keymap::Action)| {
        let here = index == at;
        let why = why_not(model, *action);
        let sign = if here { look.symbols.chosen } else { " " };
        let role = if why.is_some() {
            Role::Stale
        } else {
            Role::Text
        };
        let key = look.fit(&model.keymap.first(*action), 3);
        let mut spans = vec![
            look.span(Role::Key, format!("{sign} ")),
            look.span(if why.is_some() { role } else { Role::Key }, key),
            look.span(role, look.fit(action.help(), 30)),
        ];
        if let Some(why) = why {
            spans.push(look.span(Role::Stale, format!(" ({why})")));
        }
        let line = Line::from(spans);
        if here {
            line.style(look.style(Role::Cursor))
        } else {
            line
        }
    };
    MENU.iter().enumerate().map(line).collect()
}

fn question(look: &Look<'_>, ask: &Ask) -> Vec<Line<'static>> {
    let text = |role, text: String| Line::from(look.span(role, text));
    let mut lines = vec![text(Role::Text, about(look, ask))];
    if ask.aims.len() > 1 {
        let names: Vec<_> = ask.aims.iter().map(|it| it.label.as_str()).collect();
        lines.push(text(Role::Text, names.join(", ")));
    }
    lines.push(text(Role::Dim, ask.meaning().to_owned()));
    if let Some(rate) = ask.rate {
        lines.push(text(Role::Text, format!("{}/s", format::rate(rate))));
    }
    let forecast = ask.forecast(look.model);
    lines.extend(forecast.into_iter().map(|it| text(Role::Warn, it)));
    let cancel = "[Esc] cancel";
    lines.push(match &ask.step {
        Step::Rate(field) => Line::from(vec![
            look.span(Role::Text, "Items per second, nothing for no limit: "),
            look.span(Role::Key, format!("{}_", field.text)),
            look.span(Role::Dim, format!("   {cancel}")),
        ]),
        Step::Word { word, what, field } => {
            let fits = word.starts_with(&field.text);
            let ready = *word == field.text;
            let hint = if ready { "[Enter] do it" } else { "" };
            Line::from(vec![
                look.span(Role::Text, format!("Type {what} to confirm ({word}): ")),
                look.span(
                    if fits { Role::Key } else { Role::Bad },
                    format!("{}_", field.text),
                ),
                look.span(Role::Bad, format!("  {hint}")),
                look.span(Role::Dim, format!("  {cancel}")),
            ])
        }
        Step::Choice { yes } => {
            let button = |chosen: bool, label: &str| {
                let role = if chosen { Role::Cursor } else { Role::Text };
                let sign = if chosen { look.symbols.chosen } else { " " };
                look.span(role, format!("{sign}[ {label} ]"))
            };
            Line::from(vec![
                button(!*yes, "Cancel"),
                Span::raw("   "),
                button(*yes, ask.title()),
                look.span(Role::Dim, "   Tab chooses, Enter takes it"),
            ])
        }
    });
    lines
}

/// What an action is about, in a line.
fn about(look: &Look<'_>, ask: &Ask) -> String {
    let Some(aim) = ask.aims.first() else {
        return String::new();
    };
    if ask.aims.len() > 1 {
        return format!("{} branches", format::count(ask.aims.len() as u64));
    }
    let process = look.store.process(aim.process);
    let label = process.map_or_else(String::new, crate::store::Process::label);
    let pipeline = aim.on.p.and_then(|it| look.store.pipeline(aim.process, it));
    let name = pipeline.map_or_else(String::new, |it| format!("pipeline {}   ", it.pipe.name));
    let what = match (aim.on.branch, &aim.on.store) {
        (_, Some(store)) => format!("store {store}   "),
        (Some(branch), None) => {
            let tenant = pipeline.map_or_else(String::new, |it| it.tenant(branch));
            format!("tenant {tenant}   ")
        }
        _ => String::new(),
    };
    format!("{name}{what}process {label}")
}
