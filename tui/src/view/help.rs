//! The keys, as they are bound.

use ratatui::layout::Rect;
use ratatui::text::Line;

use super::Look;
use crate::app::Model;
use crate::app::focus::{Focus, layout_page};
use crate::keymap::{Action, Group, Key};
use crate::theme::Role;

/// What the help says: a title of a group, or the keys of an action and what it does. Only what has
/// the words that are searched for.
pub fn lines(model: &Model) -> Vec<(String, String)> {
    let wanted = match &model.focus {
        Focus::Help { field, .. } => field.text.to_lowercase(),
        _ => String::new(),
    };
    let mut lines = Vec::new();
    for group in Group::ALL {
        let actions = Action::ALL.iter().filter(|it| it.group() == group);
        let found: Vec<_> = actions
            .filter_map(|action| {
                let keys: Vec<_> = model.keymap.keys(*action).map(Key::name).collect();
                let keys = keys.join(" ");
                let text = format!("{keys} {} {}", action.name(), action.help()).to_lowercase();
                let keys = if keys.is_empty() {
                    format!(":{}", action.name())
                } else {
                    keys
                };
                text.contains(&wanted)
                    .then(|| (keys, action.help().to_owned()))
            })
            .collect();
        if !found.is_empty() {
            if !lines.is_empty() {
                lines.push((String::new(), String::new()));
            }
            lines.push((String::new(), group.title().to_owned()));
            lines.extend(found);
        }
    }
    lines
}

/// The help, from the line it was moved to.
pub(super) fn page(look: &Look<'_>, body: Rect) -> Vec<Line<'static>> {
    let Focus::Help {
        field,
        offset,
        typing,
    } = &look.model.focus
    else {
        return Vec::new();
    };
    let lines = lines(look.model);
    let place = usize::from(layout_page(look.model.size));
    let title = if *typing || !field.text.is_empty() {
        let cursor = if *typing { "_" } else { "" };
        look.span(Role::Key, format!("help  /{}{cursor}", field.text))
    } else {
        let down = look.model.keymap.first(Action::Down);
        let search = look.model.keymap.first(Action::Filter);
        look.span(
            Role::Title,
            format!("help   {down} moves, {search} searches, esc leaves"),
        )
    };
    let mut page = vec![look.parts(body.width, vec![title])];
    if lines.is_empty() {
        page.push(look.parts(body.width, vec![look.span(Role::Dim, "no key does that")]));
    }
    let from = (*offset).min(lines.len().saturating_sub(1));
    for (keys, what) in lines.into_iter().skip(from).take(place) {
        let margin = " ".repeat(look.margin());
        if keys.is_empty() {
            page.push(Line::from(
                look.span(Role::Title, format!("{margin}{what}")),
            ));
        } else {
            page.push(Line::from(vec![
                look.span(Role::Key, format!("{margin}  {} ", look.fit(&keys, 18))),
                look.span(Role::Text, what),
            ]));
        }
    }
    page
}
